"""A local cluster of lean processes under a memory ceiling."""

import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from numbers import Integral

import dask
from distributed import Client, Security

from ooc_train.core.schema import shown
from ooc_train.core.units import MOST_WORKERS, approximate_bytes
from ooc_train.errors import CeilingExceeded, OocTrainError
from ooc_train.memory.ceiling import Ceiling
from ooc_train.runtime.clients import training_link
from ooc_train.runtime.endings import Endings
from ooc_train.runtime.guarded_cluster import LEAN, START_SECONDS, GuardedCluster
from ooc_train.runtime.security import require_security
from ooc_train.runtime.starting import (
    NO_GUARD_EXIT,
    free_address,
    require_startable,
    why_not_started,
)
from ooc_train.runtime.worker_output import captured_stderr, silenced_logs
from ooc_train.stream.cluster_waits import parse_timeout

DASHBOARD = "127.0.0.1:8787"
"""Default address of the dashboard: this machine only."""

_DRIVER_BYTES, _GROWTH_BYTES = 130 * 2**20, 56 * 2**20
_WORKER_BYTES, _KERNEL_WORKER_BYTES = 64 * 2**20, 104 * 2**20
"""Memory with buffers, from plans for 1 and 2 workers: of the command line or the growth of another
driver, and of a worker without and with compiled kernels. The driver's figure includes shared
libraries."""


_FEW_WORKERS = 8


class LocalCluster(GuardedCluster):
    """A Dask cluster on this machine, under a memory ceiling. Its processes import little.

    Parameters
    ----------
    memory_ceiling : str, int, Ceiling or None
        Bytes or text such as "1GiB": the limit of workers, scheduler and the growth of this process
        together. None is half of the available memory; in a container, a job that needs more
        takes up to 80 % of it.
    n_workers : int or None
        Number of processes. None is one per core, fewer if the ceiling is small. A later job that
        needs more memory may then reduce it further.
    threads_per_worker : int
        Python runs one thread of a process at a time, so 1, the default, is usually best.
    dashboard_address : str
        Where the dashboard listens; by default port 8787 of this machine, or a free one if it is
        taken.
    security : bool or distributed.Security
        Who may connect, and so run code. True: only clients with the key of this cluster
        (`cluster.get_client()` and `Client(cluster)` have it); the dashboard opens only by its
        link. False: every user of this machine. A
        `Security` object has TLS settings with a key of your own.
    worker_timeout : float, str or None
        How long a run whose workers are all lost waits for another: seconds, or text such as
        "90s". None is
        ``ooc_train.worker_timeout`` of Dask's configuration, else a minute.

    Attributes
    ----------
    endings : Endings
        How workers ended unexpectedly.
    chooses_workers : bool
        Whether the cluster chose its number of workers.

    Raises
    ------
    MissingMainGuard
        If the calling script lacks ``if __name__ == "__main__":``.
    ClusterError
        If workers can't start (the message says why), or no key can be made.
    UnsafePlace
        If other users could tamper with every place for temporary files.
    """

    def __init__(
        self,
        *,
        memory_ceiling: str | int | Ceiling | None = None,
        n_workers: int | None = None,
        threads_per_worker: int = 1,
        dashboard_address: str = DASHBOARD,
        security: bool | Security = True,
        worker_timeout: str | float | None = None,
    ) -> None:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # A worker is importing the script that starts it. The parent reports the error.
            os._exit(NO_GUARD_EXIT)
        # Before any process starts and takes available memory.
        self.memory_ceiling = Ceiling.of(memory_ceiling)
        self.chooses_workers = n_workers is None
        if n_workers is not None:
            _require_count("n_workers", n_workers)
            _require_memory(n_workers, self.memory_ceiling)
        _require_count("threads_per_worker", threads_per_worker)
        n_workers = n_workers or workers_within(self.memory_ceiling, kernels=True)
        require_security(security)
        require_startable(n_workers)
        self.endings = Endings()
        self.worker_timeout = None if worker_timeout is None else parse_timeout(worker_timeout)
        with (
            dask.config.set(LEAN),
            silenced_logs(),
            _signals_blocked(),
            captured_stderr() as captured,
        ):
            try:
                super().__init__(
                    n_workers=n_workers,
                    threads_per_worker=threads_per_worker,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address=free_address(dashboard_address),
                    security=security,
                    endings=self.endings,
                    patience=START_SECONDS,
                    # Shown by Dask alone: LEAN keeps it from acting on it.
                    memory_limit=max(1, self.memory_ceiling.limit // n_workers),
                    # Errors reach the driver as values. The logs would only tell of connections
                    # that end at Ctrl-C and at every close.
                    silence_logs=logging.CRITICAL,
                )
            except OocTrainError:
                raise
            except Exception as error:  # noqa: BLE001 (distributed raises errors of all kinds)
                captured.failed, why = True, error
        if captured.failed:
            raise why_not_started(why, self.endings, captured.last_line) from None

    def get_client(self) -> Client:
        """Return a client with the lean configuration."""
        with dask.config.set(LEAN):
            return super().get_client()

    def release_workers(self, n: int) -> int:
        """End up to `n` workers; return how many more could end.

        None ends, and the result is 0, if the user gave the number of workers.
        """
        if not self.chooses_workers:
            return 0
        if n > 0:
            self.sync(self.scale_down, list(self.worker_spec)[-n:])
        return len(self.worker_spec) - 1

    def restart_missing_workers(self) -> None:
        """Restart workers that distributed no longer restarts itself."""
        if len(self.workers) < len(self.worker_spec):
            self.scale(len(self.worker_spec))

    @property
    def training_link(self) -> str | None:
        """Address of the Training page, or None; it exists before the first run."""
        with dask.config.set(LEAN), Client(self, set_as_default=False) as client:
            return training_link(client)


def _require_count(name: str, value: object) -> None:
    """Refuse an impossible number of processes or threads."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not 1 <= int(value) <= MOST_WORKERS:  # type: ignore[call-overload]
        raise ValueError(f"{name}={shown(value)} is not a whole number from 1 to {MOST_WORKERS:,}")


def _require_memory(n_workers: int, ceiling: Ceiling) -> None:
    """Refuse many workers whose baseline exceeds the ceiling, before any starts.

    For a few workers the plan refuses later, with all its terms.
    """
    least, most = n_workers * _WORKER_BYTES, max(1, ceiling.limit // _WORKER_BYTES)
    if n_workers > _FEW_WORKERS and least > ceiling.limit:
        raise CeilingExceeded(
            f"n_workers={n_workers} hold {approximate_bytes(least)} before any data, and the "
            f"memory ceiling is {ceiling}; start at most {most:,}, or raise the ceiling"
        )


def workers_within(ceiling: Ceiling, *, kernels: bool, other_bytes: int = 0) -> int:
    """Return the default number of workers: one per core, if the ceiling is large enough.

    This estimate avoids useless starts on a machine with many cores. The plan decides later how
    many stay. It changes no result.

    Parameters
    ----------
    ceiling : Ceiling
        The ceiling of the command line and all its processes.
    kernels : bool
        Whether workers load the compiled kernels.
    other_bytes : int
        Bytes that the calling process holds for other purposes than training.
    """
    each = _KERNEL_WORKER_BYTES if kernels else _WORKER_BYTES
    room = ceiling.most - (_DRIVER_BYTES if ceiling.whole_process else _GROWTH_BYTES) - other_bytes
    cores: int = dask.system.CPU_COUNT
    return max(1, min(cores, room // each))


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block SIGINT and SIGHUP for threads and processes that start inside the context.

    Ctrl-C and the end of a terminal reach all its processes. Only the calling one should act: it
    ends the others, perhaps after a step that needs them. Signals that arrive meanwhile wait.
    """
    # Start the tracker first: its start unblocks the signals again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
