"""What a pass of updates costs at any batch size: against loops written by hand, and full batches.

``python -m tests.benchmarks.batch_sizes [--rows 10M] [--json FILE]``; the store takes 4 GB in the
temporary folder.
"""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import numpy as np
from distributed import Client

from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.linear import LinearProblem
from ooc_train.models.linear_updates import LinearUpdates
from ooc_train.objective.losses import LOSSES
from ooc_train.objective.scaling import Scaling
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.optimizers.schedules import Constant
from ooc_train.optimizers.sgd import Sgd
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.runtime.job import Job
from ooc_train.solvers.training_settings import Training
from ooc_train.store.dataset import Store
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.order import MIXED_CHUNKS
from ooc_train.stream.passes import Stream
from ooc_train.training.task import Task
from tests.benchmarks.handwritten_updates import UpdateLoop
from tests.benchmarks.tools import Figure, arguments, interleave, report, table, verdict

_BATCH_SIZES = (1, 4, 16, 64, 256, 4096, "chunk")
_NAMES = ("logistic", "squared", "hinge")
_RATE = 1e-4
"""Small enough for rows as they lie, which the loop by hand doesn't scale; it changes no speed."""

_BY_HAND, _FULL, _FULL_IN_REPLICAS = 0.8, 2.0, 1.3
"""At least so much of the speed by hand, and at most so many times a pass of full batches."""

_REPLICAS = 2

_SGD = Sgd()


@dataclass(frozen=True)
class OurPasses:
    """Passes as solvers take them, on a cluster that is there already."""

    stream: Stream
    problem: LinearProblem
    shuffle_chunks: int
    replicas: int

    def full(self) -> float:
        """Return the seconds of a full-batch pass with the logistic loss."""
        started = perf_counter()
        self.stream.reduce(self.problem.reduction(self.problem.initial()[None]))
        return perf_counter() - started

    def updates(
        self, name: str, batch_size: int, optimizer: Optimizer = _SGD, l1: float = 0.0
    ) -> float:
        """Return the seconds of a pass of updates."""
        penalty = replace(self.problem.penalty, l1=l1)
        problem = replace(self.problem, loss=LOSSES[name](), penalty=penalty)
        dtype = self.stream.source.dtype
        updates = LinearUpdates(problem, dtype, batch_size, optimizer, Constant(), _RATE)
        states = [updates.start(problem.initial()) for _ in range(self.replicas)]
        started = perf_counter()
        self.stream.scan(updates, states, seed=0, epoch=0, shuffle_chunks=self.shuffle_chunks)
        return perf_counter() - started


def passes(
    store: Store, client: Client, stack: ExitStack, *, shuffle_chunks: int = 1, replicas: int = 1
) -> OurPasses:
    """Return our passes over a store, planned for so many replicas, and chunks that are mixed."""
    inputs = read_inputs(store, classifier=True)
    job = stack.enter_context(Job(inputs.source, client=client))
    training = Training(batch_size=1, shuffle_chunks=shuffle_chunks, replicas=replicas)
    task = Task.of(LogisticModel(), inputs, training)
    if store.statistics is None:
        raise ValueError(f"{store.path} has no statistics")
    scaling = Scaling.of(store.statistics.mean, store.statistics.scale, centre=True)
    stream = job.stream(job.plan(task.requirements()))
    problem = replace(task.linear_problem, scaling=scaling)
    return OurPasses(stream, problem, shuffle_chunks, replicas)


def main() -> None:
    """Make a store, let the contestants take turns on it, and say who was how fast."""
    parser = arguments(__doc__.partition("\n")[0], rows="10M")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = make_data(f"{folder}/made.zarr", rows=options.rows)
        cluster = stack.enter_context(LocalCluster(n_workers=2, dashboard_address="127.0.0.1:0"))
        client = stack.enter_context(cluster.get_client())
        ours, by_hand = passes(store, client, stack), UpdateLoop(store.path)
        shuffle_chunks = passes(store, client, stack, shuffle_chunks=MIXED_CHUNKS)
        in_replicas = passes(store, client, stack, replicas=_REPLICAS)
        rows = [store.X.chunk_rows if size == "chunk" else int(size) for size in _BATCH_SIZES]
        contestants: dict[str, Callable[[], float]] = {"full": ours.full}
        for name in _NAMES:
            for size in rows:
                contestants[f"{name} {size}"] = partial(ours.updates, name, size)
                contestants[f"{name} {size} replicas"] = partial(in_replicas.updates, name, size)
                contestants[f"{name} {size} by hand"] = partial(
                    lambda *settings: by_hand(*settings)[0], name, size, _RATE
                )
            contestants[f"{name} 1 scaled by hand"] = partial(
                lambda loss: by_hand(loss, 1, _RATE, scaled=True)[0], name
            )
        mixed = f"logistic 256 mixing {MIXED_CHUNKS} chunks"
        contestants[mixed] = partial(shuffle_chunks.updates, "logistic", 256)
        seconds = {name: np.array(s) for name, s in interleave(contestants, options.rounds).items()}
    millions = store.n_rows / 1e6
    lines, figures = [], {}
    for name in _NAMES:
        for size in rows:
            own, other = seconds[f"{name} {size}"], seconds[f"{name} {size} by hand"]
            of_hand, of_full = Figure.of(other / own), Figure.of(own / seconds["full"])
            replicas = Figure.of(seconds[f"{name} {size} replicas"] / seconds["full"])
            figures[f"{name} {size}"] = {
                "of_hand": of_hand,
                "of_full": of_full,
                "replicas": replicas,
            }
            speeds = [str(Figure.of(millions / taken)) for taken in (own, other)]
            lines.append((f"{name}, {size}", *speeds, str(of_hand), str(of_full), str(replicas)))
    header = (
        "loss, batch size", "M rows/s", "by hand", "of by hand", "times full batch",
        f"in {_REPLICAS} replicas",
    )  # fmt: skip
    worst = min((f["of_hand"] for f in figures.values()), key=lambda f: f.median)
    longest = max((f["of_full"] for f in figures.values()), key=lambda f: f.median)
    slowest = max((f["replicas"] for f in figures.values()), key=lambda f: f.median)
    for name in _NAMES:
        alike = Figure.of(seconds[f"{name} 1 scaled by hand"] / seconds[f"{name} 1"])
        figures[f"{name} 1"]["of_hand_scaled"] = alike
        lines.append(
            (f"{name}, 1, of a loop by hand that does the same to rows", "", "", str(alike))
        )
    cost = Figure.of(seconds[mixed] / seconds["logistic 256"])
    text = [
        f"{store!r}",
        f"a pass of full batches: {Figure.of(millions / seconds['full'])} M rows/s",
        table(header, [(*line, *("",) * (len(header) - len(line))) for line in lines]),
        f"mixing {MIXED_CHUNKS} chunks row by row, at 256: {cost} times a pass of a shuffled store",
        verdict("the slowest of the speed by hand", worst, _BY_HAND),
        verdict(
            "a pass of full batches of the longest", Figure.of([1 / longest.median]), 1 / _FULL
        ),
        verdict(
            f"a pass of full batches of the longest in {_REPLICAS} replicas",
            Figure.of([1 / slowest.median]),
            1 / _FULL_IN_REPLICAS,
        ),
    ]
    taken = {name: of_rounds.tolist() for name, of_rounds in seconds.items()}
    report(
        "\n".join(text), {"rows": store.n_rows, "ratios": figures, "seconds": taken}, options.json
    )


if __name__ == "__main__":
    main()
