"""A Dask cluster of its own for the commands of cases: prints its address, and runs until ended."""

import signal
import sys
import threading


def main() -> None:
    """Start it, with one worker of one thread, and wait."""
    from distributed import LocalCluster

    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
    ) as cluster:
        sys.stdout.write(f"{cluster.scheduler_address}\n")
        sys.stdout.flush()
        stopped.wait()


if __name__ == "__main__":
    main()
