"""Kills at random moments: what goes on afterwards ends with the bits of a job that ran unbroken.

``python -m tests.benchmarks.kills [--kills 1000] [--seed S] [--only NAME ...]`` ends with 1 where
bits differ or something is left behind. Jobs are training by every solver and optimizer, `ingest`,
`shuffle`, `append`, and `follow` with appends of its own. A run is killed, goes on with other
workers under another ceiling, and is killed again, up to three times; then it ends. Checkpoints are
written after every task, and passes over small stores are cut into many.
``--cost`` measures what a checkpoint of each pass costs, as a share of the run.
"""

import argparse
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ooc_train import (
    Checkpoint,
    Following,
    LocalCluster,
    LogisticModel,
    StoreAppender,
    Training,
    follow,
    ingest,
    make_data,
    open_store,
    shuffle_store,
    train,
    verify_store,
)
from ooc_train.core.temporary_folders import remove_dead_folders
from ooc_train.runs.run_loading import load_fitted
from ooc_train.training.checkpoint_writing import CheckpointWriter
from ooc_train.training.checkpoints import CheckpointFolder
from tests.benchmarks.tools import Figure, table
from tests.kept_runs import RUNS, cut_small_for_good, torch_run
from tests.killing import run_forked

_MOST_KILLS = 3
_MOST_COST = 0.01
_ROWS, _COLUMNS, _CHUNK_ROWS = 360, 6, 40
_GROWN_ROWS = 1_500
"""Rows up to which stores grow."""

_LOADED = ("ooc_train.", "distributed")
"""Modules that jobs load."""

_RESOURCES: tuple[tuple[int, str | None], ...] = (
    *((0, None), (0, None), (0, "1GiB"), (0, "2GiB")),
    *((1, "2GiB"), (2, None)),
)
"""Workers, 0 for threads of the process, and memory ceilings."""


def _quiet() -> None:
    """Let a fork say nothing but errors, and remove what killed processes left, as commands do."""
    warnings.simplefilter("ignore")
    remove_dead_folders()


def train_once(name: str, store: str, folder: str, workers: int, ceiling: str | None) -> None:
    """Train to the end, from the last checkpoint in a folder if there is one."""
    _quiet()
    cut_small_for_good()
    model, settings = torch_run() if name == "torch" else RUNS[name]
    out = os.path.join(folder, "run")
    with ExitStack() as stack:
        client = None
        if workers:
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=workers, memory_ceiling=ceiling, dashboard_address="127.0.0.1:0"
                )
            )
            client = stack.enter_context(cluster.get_client())
            client.run(cut_small_for_good)
        train(
            model,
            store,
            Training(**settings | {"random_state": 5}),
            out=out,
            client=client,
            memory_ceiling=None if workers else ceiling,
            checkpoint=Checkpoint(f"{out}.checkpoint", 0, resume=True),
        )


def trained(folder: str) -> Any:
    """Return what has to be the same of a run, and fail if more than the run is left."""
    return learned(folder, ["run", "run.checkpoint"])


def learned(folder: str, names: list[str]) -> Any:
    """Return what has to be the same of a run, and fail if other names are in its folder."""
    assert sorted(os.listdir(folder)) == names, os.listdir(folder)
    kept = os.listdir(os.path.join(folder, "run.checkpoint"))
    assert len(kept) <= 2, kept
    assert all(name.isdecimal() for name in kept), kept
    fitted = load_fitted(os.path.join(folder, "run"))
    steps = [
        {key: value for key, value in step.items() if key not in ("seconds", "profile")}
        for step in fitted.report["history"]
    ]
    arrays = fitted.predictor.arrays
    return {name: array.tobytes() for name, array in arrays.items()}, steps


def store_once(job: Callable[..., Any], folder: str, *_: Any) -> None:
    """Write the store of a folder anew, over what a killed job left there."""
    _quiet()
    job(os.path.join(folder, "a.zarr"))


def begun_store(first: str, folder: str) -> str:
    """Return the store of a folder, at first a copy of another one."""
    store, copy = os.path.join(folder, "a.zarr"), os.path.join(folder, "copy")
    shutil.rmtree(copy, ignore_errors=True)
    if not os.path.exists(store):
        shutil.copytree(first, copy)
        os.rename(copy, store)
    return store


def blocks(long: str, store: str) -> Iterator[tuple[Any, Any]]:
    """Yield rows of a longer store that a store lacks, some at a time."""
    whole, sizes = open_store(long), itertools.cycle((1, 50, 7, 33, 120))
    row = open_store(store).n_rows
    while row < _GROWN_ROWS:
        stop = min(row + next(sizes), _GROWN_ROWS)
        yield whole.read("X", row, stop), whole.read("y", row, stop)
        row = stop


def append_once(long: str, first: str, folder: str, *_: Any) -> None:
    """Append the rows that a store lacks, in many commits."""
    _quiet()
    store = begun_store(first, folder)
    for X, y in blocks(long, store):
        with StoreAppender(store) as appender:
            appender.write(X, y)
            appender.commit()


def follow_once(long: str, first: str, folder: str, *_: Any) -> None:
    """Append and follow the rows that a store lacks, from the last checkpoint if there is one."""
    _quiet()
    store = begun_store(first, folder)
    follow(
        LogisticModel(),
        store,
        Training(batch_size=16, random_state=5, solver="adam"),
        Following(window=48, first_rows=100, replay=0.2, rate_after_drift=1.0),
        rows=blocks(long, store),
        out=os.path.join(folder, "run"),
        publish_every=0,
    )


def grown(folder: str) -> Any:
    """Return the rows of a store that grew, and fail if it is damaged or has leftovers."""
    store = open_store(os.path.join(folder, "a.zarr"))
    assert not verify_store(store).damages
    left = [name for _, _, names in os.walk(store.path) for name in names if name.endswith(".tmp")]
    assert not left, left
    return store.read("X").tobytes(), store.read("y").tobytes()


def followed(folder: str) -> Any:
    """Return what has to be the same of a store and its follower."""
    assert os.path.exists(os.path.join(folder, "a.zarr"))
    return grown(folder), learned(folder, ["a.zarr", "run", "run.checkpoint"])


def stored(folder: str) -> Any:
    """Return the rows of the store in a folder, and fail if more than the store is left."""
    assert os.listdir(folder) == ["a.zarr"], os.listdir(folder)
    store = open_store(os.path.join(folder, "a.zarr"))
    return store.read("X").tobytes(), store.read("y").tobytes()


def _run_and_note_modules(once: Callable[..., None], folder: str, noted: str) -> None:
    """Run a job, and write which modules it loaded."""
    once(folder, *_RESOURCES[0])
    Path(noted).write_text("\n".join(name for name in sys.modules if name.startswith(_LOADED)))


class Case:
    """A job, and what an unbroken one leaves.

    Parameters
    ----------
    once : function of (folder, workers, ceiling)
        Runs the job, or goes on with it.
    read : function of a folder
        Returns what has to be the same, and fails if more is there.
    """

    def __init__(self, name: str, once: Callable[..., None], read: Callable[[str], Any]) -> None:
        self.name, self._once, self._read = name, once, read
        self._due: Any = None
        self._seconds = 0.0  # of an unbroken job

    def kill(
        self, rng: random.Random, most: int, resources: Sequence[tuple[int, str | None]]
    ) -> int:
        """Kill the job up to `most` times, end it, and compare; return how often it was killed.

        Each time it runs on other workers under another ceiling, drawn from `resources`.
        """
        if self._due is None:
            self._run_unbroken()
        kills = 0
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(rng.randint(1, most)):
                drawn = rng.choice(resources)
                # A cluster takes about two seconds to start.
                usual = self._seconds + 2.0 * bool(drawn[0])
                after = rng.uniform(0.0, 0.9 * usual)
                if not run_forked(self._once, folder, *drawn, kill_after=after):
                    break
                kills += 1
            run_forked(self._once, folder, *rng.choice(resources))
            assert self._read(folder) == self._due, f"{self.name}: other bits after {kills} kills"
        return kills

    def _run_unbroken(self) -> None:
        """Run the job to its end, and keep what it leaves."""
        with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile() as noted:
            started = time.perf_counter()
            run_forked(_run_and_note_modules, self._once, folder, noted.name)
            self._seconds = time.perf_counter() - started
            self._due = self._read(folder)
            # Forks of a process that has loaded them take half the time of a short job.
            for name in Path(noted.name).read_text().split():
                import_module(name)


def cases(folder: Path) -> dict[str, Case]:
    """Return all cases, whose data are in a folder."""
    store = str(folder / "rows.zarr")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4_000, 5)).round(4)
    y = np.arange(len(X)) % 2
    lines = [",".join(map(str, (*row, label))) for row, label in zip(X, y, strict=True)]
    (folder / "rows.csv").write_text("a,b,c,d,e,y\n" + "\n".join(lines) + "\n")

    def made() -> None:
        make_data(store, rows=_ROWS, features=_COLUMNS, chunk_rows=_CHUNK_ROWS, random_state=0)
        make_data(folder / "long.zarr", rows=60_000, features=20, random_state=0)
        make_data(folder / "more.zarr", rows=_GROWN_ROWS, features=_COLUMNS, random_state=0)

    run_forked(made)
    found = {
        name: Case(name, partial(train_once, name, store), trained) for name in (*RUNS, "torch")
    }
    ingesting = partial(
        ingest, str(folder / "rows.csv"), target="y", random_state=3, overwrite=True
    )
    long = str(folder / "long.zarr")
    shuffling = partial(shuffle_store, long, random_state=3, overwrite=True)
    grows = str(folder / "more.zarr"), store
    found["append"] = Case("append", partial(append_once, *grows), grown)
    found["follow"] = Case("follow", partial(follow_once, *grows), followed)
    found["ingest"] = Case("ingest", partial(store_once, ingesting), stored)
    found["shuffle"] = Case("shuffle", partial(store_once, shuffling), stored)
    return found


def run_cost(rows: str, rounds: int) -> int:
    """Measure the share of a run that its checkpoints take, one a pass; return the exit status.

    The time that the run waits for them, and the processor time of the thread that writes them, are
    what is compared: the time of whole runs varies by more.
    """
    spent = [0.0]

    def timed(owner: Any, name: str, clock: Callable[[], float]) -> None:
        function = getattr(owner, name)

        def measured(*given: Any) -> None:
            started = clock()
            try:
                function(*given)
            finally:
                spent[0] += clock() - started

        setattr(owner, name, measured)

    timed(CheckpointFolder, "write", time.perf_counter)
    timed(CheckpointFolder, "finish", time.perf_counter)
    timed(CheckpointWriter, "_write", time.thread_time)
    missed = 0
    with (
        tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder,
        LocalCluster(n_workers=2) as cluster,
        cluster.get_client() as client,
    ):
        store, place = os.path.join(folder, "rows.zarr"), os.path.join(folder, "a.checkpoint")
        make_data(store, rows=int(float(rows.replace("M", "e6"))), features=100, random_state=0)
        os.sync()  # or the first checkpoints wait until the store is on the disk
        for name, training in {
            "full batch": Training(solver="lbfgs", max_iter=10, tol=1e-14),
            "batches of 256": Training(batch_size=256, max_iter=4, tol=0.0, random_state=0),
        }.items():
            _, run = train(LogisticModel(), store, training, client=client)
            a_pass, shares = run.seconds / run.passes, []
            for _ in range(rounds):
                shutil.rmtree(place, ignore_errors=True)
                spent[0] = 0.0
                checkpoint = Checkpoint(place, a_pass)
                _, run = train(
                    LogisticModel(), store, training, client=client, checkpoint=checkpoint
                )
                shares.append(spent[0] / run.seconds)
            share = Figure.of(shares)
            word = "reached" if share.median <= _MOST_COST else "MISSED"
            print(f"{name}, a pass of {a_pass:.2g} s: share of checkpoints {share}, 0.01 {word}")
            missed += share.median > _MOST_COST
    return 1 if missed else 0


def main() -> int:
    """Kill jobs in turn, and print how often each was killed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.kills",
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    parser.add_argument("--kills", type=int, default=1_000, help="in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    parser.add_argument("--only", action="append", metavar="NAME", help="one job, or several")
    parser.add_argument("--threads", action="store_true", help="no clusters, which take seconds")
    parser.add_argument("--cost", action="store_true", help="measure the cost of checkpoints")
    parser.add_argument("--rows", default="10M", help="of the store of --cost (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of --cost (%(default)s)")
    options = parser.parse_args()
    if options.cost:
        return run_cost(options.rows, options.rounds)
    rng, counts, bad = random.Random(options.seed), Counter[str](), []
    resources = [each for each in _RESOURCES if not (options.threads and each[0])]
    with tempfile.TemporaryDirectory() as folder:
        found = cases(Path(folder))
        if unknown := set(options.only or ()) - found.keys():
            parser.error(f"no job {', '.join(sorted(unknown))}; there are {', '.join(found)}")
        names = list(options.only or found)
        rng.shuffle(names)
        turn = 0
        with suppress(KeyboardInterrupt):  # what there is so far is printed
            while counts.total() < options.kills:
                name = names[turn % len(names)]
                turn += 1
                try:
                    counts[name] += found[name].kill(rng, _MOST_KILLS, resources)
                except AssertionError as error:
                    bad.append(f"{name}, seed {options.seed}, turn {turn}: {error}")
                    print(bad[-1], file=sys.stderr, flush=True)
    print(table(("job", "kills"), [(name, str(n)) for name, n in sorted(counts.items())]))
    print(f"{counts.total():,} kills in {turn:,} jobs, {len(bad)} of which ended otherwise")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
