"""How fast a full-batch pass is against the best loop written by hand: DESIGN's second promise.

``python -m tests.benchmarks.stream [--rows 20M] [--only PART] [--json FILE]``; the default store
takes 8 GB in the temporary folder.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from ooc_train.core.sums import Array, Sums
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.linear import LinearProblem
from ooc_train.objective.scaling import Scaling
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.runtime.job import Job
from ooc_train.solvers.training_settings import Training
from ooc_train.store.dataset import Store
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.store.opening.opener import open_store
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.passes import Stream
from ooc_train.stream.timings import Timings
from ooc_train.training.task import Task
from tests.benchmarks.handwritten import Loop, Result, handwritten
from tests.benchmarks.handwritten_foreign import handwritten_foreign
from tests.benchmarks.tools import Figure, arguments, interleave, report, table, verdict

_PROCESSES = {(2, 1): 0.8, (1, 2): 0.7}
"""Workers and threads, and the share that they are to reach of the faster loop by hand."""

_COLD = 0.9
_PARTS = ("none", "lz4", "foreign", "foreign lz4", "cold", "overhead")
_PASS, _FIT, _IMPORT = 0.015, 1.0, 0.3

_FOREIGN, _FOREIGN_ROWS = dict.fromkeys(_PROCESSES, 0.8), 65_536
"""The same for chunks of others, and their rows."""

Codec = Literal["none", "lz4"]
Section = tuple[str, dict[str, Any]]


class OurPass:
    """A full-batch pass as a solver takes it, on a cluster that is there already.

    Parameters
    ----------
    of : what the columns' statistics are from
    """

    def __init__(self, of: Store, job: Job, task: Task) -> None:
        self._stream: Stream = job.stream(job.plan(task.requirements()))
        statistics = of.statistics
        if statistics is None:
            raise ValueError(f"{of.path} has no statistics")
        scaling = Scaling.of(statistics.mean, statistics.scale, centre=True)
        self.problem: LinearProblem = replace(task.linear_problem, scaling=scaling)

    def __call__(self, coef: Array, intercept: Array) -> tuple[float, Sums, Timings]:
        """Return the seconds of a pass, its sums, and what its tasks spent."""
        theta = self.problem.scaling.from_data_units(coef, intercept)
        self._stream.timings = Timings()
        started = perf_counter()
        sums = self._stream.reduce(self.problem.reduction(theta[None]))
        return perf_counter() - started, sums, self._stream.timings


def require_same(found: Result, sums: Sums) -> None:
    """Refuse to compare two passes that don't add up the same."""
    size = np.abs(found.gradient).max() + np.sqrt(float(sums["rows"]))
    off = np.abs(sums["gradient"][0, 0] - found.gradient).max() / size
    if off > 1e-3 or not np.isclose(found.loss, sums["loss"][0], rtol=1e-6):
        raise ValueError(f"the sums differ: losses {found.loss}, {sums['loss'][0]}; slopes {off}")


ByHand = Callable[[str, int, Literal["threads", "processes"]], AbstractContextManager[Loop]]


class Contest:
    """Full-batch passes over a store, by hand and ours, on two cores.

    Parameters
    ----------
    store : whose rows are read
    stack : that closes what is opened here
    of : the store that was made, of which `store` may be a copy in another layout
    by_hand : the loop for its layout
    """

    def __init__(
        self,
        store: Store,
        stack: ExitStack,
        of: Store | None = None,
        by_hand: ByHand = handwritten,
    ) -> None:
        of = of or store
        truth = of.attributes["made"]
        # Half way to the truth, where no sum is zero but for chance.
        self._at = 0.5 * np.array(truth["coef"]), 0.5 * np.array(truth["intercept"])
        self.timings: dict[str, list[Timings]] = {}
        self.contestants: dict[str, Callable[[], float]] = {}
        inputs = read_inputs(store, classifier=True)
        task = Task.of(LogisticModel(), inputs, Training(solver="lbfgs"))
        for workers, threads in _PROCESSES:
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=workers, threads_per_worker=threads, dashboard_address="127.0.0.1:0"
                )
            )
            client = stack.enter_context(cluster.get_client())
            job = stack.enter_context(Job(inputs.source, client=client))
            name = f"ooc_train, {workers} x {threads}"
            self.contestants[name] = partial(self._ours, name, OurPass(of, job, task))
        coef, intercept = self._at
        _, sums, _ = OurPass(of, job, task)(coef, intercept)
        kind: Literal["threads", "processes"]
        for kind in ("threads", "processes"):
            loop = stack.enter_context(by_hand(store.path, 2, kind))
            require_same(loop(coef[0], intercept[0]), sums)
            self.contestants[f"by hand, {kind}"] = partial(self._by_hand, loop)

    def _ours(self, name: str, one_pass: OurPass) -> float:
        seconds, _, timings = one_pass(*self._at)
        self.timings.setdefault(name, []).append(timings)
        return seconds

    def _by_hand(self, loop: Loop) -> float:
        coef, intercept = self._at
        return loop(coef[0], intercept[0]).seconds


def warm(folder: str, codec: Codec, rows: str, rounds: int) -> Section:
    """Return how fast passes are over what lies in memory."""
    with ExitStack() as stack:
        store = made(folder, rows, codec)
        return _warm(store, Contest(store, stack), codec, rounds)


def foreign(folder: str, codec: Codec, rows: str, rounds: int) -> Section:
    """Return how fast passes are over chunks of 26 MB, as others write them, in memory."""
    of = made(folder, rows, "none")
    with ExitStack() as stack:
        store = copied(of, f"{folder}/foreign.zarr", codec)
        contest = Contest(store, stack, of, handwritten_foreign)
        return _warm(store, contest, f"foreign, {codec}", rounds, _FOREIGN)


def copied(store: Store, path: str, codec: Codec) -> Store:
    """Copy X and y by zarr-python into chunks of 65,536 rows, each a file without a checksum."""
    source, copy = zarr.open_group(store.path, mode="r"), zarr.open_group(path, mode="w")
    compressors = None if codec == "none" else BloscCodec(cname="lz4", clevel=5)
    for name in ("X", "y"):
        array: Any = source[name]
        chunks = (_FOREIGN_ROWS, *array.shape[1:])
        other: Any = copy.create_array(
            name, shape=array.shape, dtype=array.dtype, chunks=chunks, compressors=compressors
        )
        for start in range(0, store.n_rows, _FOREIGN_ROWS):
            rows = slice(start, start + _FOREIGN_ROWS)
            other[rows] = array[rows]
    return open_store(path)


def _warm(
    store: Store,
    contest: Contest,
    label: str,
    rounds: int,
    targets: Mapping[tuple[int, int], float] = _PROCESSES,
) -> Section:
    """Let the contestants take turns, and return who was how fast."""
    seconds = {k: np.array(v) for k, v in interleave(contest.contestants, rounds).items()}
    fastest = np.min([v for k, v in seconds.items() if k.startswith("by hand")], axis=0)
    speeds = {name: Figure.of(store.total_bytes / 1e9 / taken) for name, taken in seconds.items()}
    lines = [
        repr(store),
        table(("warm", "GB/s, median (quartiles)"), [(k, str(v)) for k, v in speeds.items()]),
    ]
    figures: dict[str, Any] = {"gigabytes_per_second": speeds}
    for (workers, threads), target in targets.items():
        name = f"ooc_train, {workers} x {threads}"
        ratio = Figure.of(fastest / seconds[name])
        profile = sum(contest.timings[name][1:], Timings()).profile
        shares = {k: round(v / sum(profile.values()), 3) for k, v in profile.items() if v}
        lines.append(
            verdict(f"{label}, {workers} x {threads}, over the faster by hand", ratio, target)
        )
        lines.append(f"  its threads: {shares}")
        figures[name] = {"ratio": ratio, "target": target, "profile": shares}
    return "\n".join(lines), figures


def cold(folder: str, rows: str, rounds: int) -> Section:
    """Return how fast a pass is when the operating system holds nothing of the files."""
    with ExitStack() as stack:
        store = made(folder, rows, "none")
        ours = Contest(store, stack).contestants["ooc_train, 2 x 1"]
        files = [str(file) for file in sorted(Path(store.path).rglob("*")) if file.is_file()]
        contestants = {
            "read from end to end": partial(after_forgetting, files, partial(read_all, files)),
            "ooc_train, 2 x 1": partial(after_forgetting, files, ours),
        }
        seconds = {k: np.array(v) for k, v in interleave(contestants, rounds).items()}
    speeds = {name: Figure.of(store.total_bytes / 1e9 / taken) for name, taken in seconds.items()}
    ratio = Figure.of(seconds["read from end to end"] / seconds["ooc_train, 2 x 1"])
    text = table(("cold", "GB/s"), [(name, str(speed)) for name, speed in speeds.items()])
    text += "\n" + verdict("cold, over reading from end to end", ratio, _COLD)
    return text, {"gigabytes_per_second": speeds, "ratio": ratio, "target": _COLD}


def after_forgetting(files: Sequence[str], run: Callable[[], float]) -> float:
    """Have the operating system forget files, then run."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    return run()


def read_all(files: Sequence[str]) -> float:
    """Return the seconds that reading files one after another takes."""
    buffer, started = bytearray(2**20), perf_counter()
    for file in files:
        with open(file, "rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass
    return perf_counter() - started


def overhead(folder: str, rounds: int) -> Section:
    """Return what is left of a pass, a fit, and an import when there is next to nothing to read."""
    store = made(folder, "1000", "none")
    with ExitStack() as stack:
        contest = Contest(store, stack)
        passes = interleave({"pass": contest.contestants["ooc_train, 2 x 1"]}, 10 * rounds)["pass"]
    fit = (
        "from time import perf_counter; from ooc_train import LogisticRegression; import sys;"
        "from ooc_train.kernels import api as kernels; s = perf_counter();"
        "LogisticRegression().fit(sys.argv[1]); print(perf_counter() - s)"
    )
    start = "from time import perf_counter as t; s = t(); import ooc_train; print(t() - s)"
    figures: dict[str, Any] = {
        "a pass": (Figure.of(passes), _PASS),
        "a fit without a cluster": (
            Figure.of([printed(fit, store.path) for _ in range(rounds)]),
            _FIT,
        ),
        "import ooc_train": (Figure.of([printed(start) for _ in range(rounds)]), _IMPORT),
    }
    lines = [
        f"{name}, 1,000 rows: {figure} s, at most {most:g} "
        + ("reached" if figure.median <= most else "MISSED")
        for name, (figure, most) in figures.items()
    ]
    return "\n".join(lines), figures


def printed(code: str, *arguments: str) -> float:
    """Return the number that a Python of its own prints."""
    command = [sys.executable, "-c", code, *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def made(folder: str, rows: str, codec: Codec) -> Store:
    """Make a store in place of the one before."""
    return make_data(f"{folder}/made.zarr", rows=rows, condition=100.0, codec=codec, overwrite=True)


def main() -> None:
    """Make stores, let the contestants take turns on them, and say who was how fast."""
    parser = arguments(__doc__.partition("\n")[0], rows="20M")
    parser.add_argument("--only", choices=_PARTS, action="append")
    options = parser.parse_args()
    rows, rounds = options.rows, options.rounds
    texts, figures = [], {}
    with tempfile.TemporaryDirectory() as folder:
        parts: dict[str, Callable[[], Section]] = {
            "none": lambda: warm(folder, "none", rows, rounds),
            "lz4": lambda: warm(folder, "lz4", rows, rounds),
            "foreign": lambda: foreign(folder, "none", rows, rounds),
            "foreign lz4": lambda: foreign(folder, "lz4", rows, rounds),
            "cold": lambda: cold(folder, rows, rounds),
            "overhead": lambda: overhead(folder, rounds),
        }
        for name in options.only or parts:
            text, figures[name] = parts[name]()
            texts.append(text)
    report("\n\n".join(texts), figures, options.json)


if __name__ == "__main__":
    main()
