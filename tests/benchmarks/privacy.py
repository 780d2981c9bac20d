"""Private updates (DP-SGD) over plain SGD: rows a second of a pass, from a store.

``python -m tests.benchmarks.privacy [--rows 1M] [--rounds 5] [--json FILE]``: a logistic regression
of 28 columns, a softmax of 784 pixels and 10 classes, and networks of both.
"""

import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
from distributed import Client

from ooc_train import (
    DifferentiallyPrivate,
    LocalCluster,
    LogisticModel,
    MLPClassifierModel,
    Model,
    Stepped,
    Store,
    StoreWriter,
    Training,
    open_store,
    train,
)
from ooc_train.core.units import parse_rows
from ooc_train.runs.events import Event
from tests.benchmarks.tools import Figure, arguments, interleave, report, table

_SIZES = (256, 4096)
_AT_A_TIME = 20_000
_PASSES = 4
_SOLVERS = {"sgd": "sgd", "private": DifferentiallyPrivate(1.0, 1.0)}


def written(path: Path, rows: int, features: int, classes: int) -> Store:
    """Return a store of random rows as float32."""
    rng = np.random.default_rng(0)
    codes = tuple(range(classes))
    with StoreWriter(path, n_features=features, dtype="<f4", classes=codes) as writer:
        for start in range(0, rows, _AT_A_TIME):
            n = min(_AT_A_TIME, rows - start)
            X = rng.normal(size=(n, features)).astype(np.float32)
            writer.write(X, rng.integers(0, classes, n))
        writer.commit()
    return open_store(path)


def seconds_of_a_pass(
    model: Model, store: Store, solver: str | DifferentiallyPrivate, size: int, client: Client
) -> float:
    """Return the seconds of a pass of updates, without planning and what follows."""
    times: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, Stepped):
            times.append(perf_counter())

    settings = Training(
        solver=solver,
        batch_size=size,
        learning_rate=1e-3,
        max_iter=_PASSES,
        tol=0.0,
        random_state=0,
    )
    train(model, store, settings, client=client, callbacks=(listen,))
    return (times[-1] - times[0]) / (len(times) - 1)


def main() -> None:
    """Let both take turns, and say how they compare."""
    options = arguments(__doc__.partition("\n")[0], rows="1M").parse_args()
    rows = parse_rows(options.rows)
    lines, figures = [], {}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=1, threads_per_worker=2) as cluster,
        cluster.get_client() as client,
    ):
        narrow = written(Path(folder) / "narrow.zarr", rows, 28, 2)
        wide = written(Path(folder) / "wide.zarr", rows // 10, 784, 10)
        cases: dict[str, tuple[Model, Store]] = {
            "logistic, 28 columns": (LogisticModel(standardize=False), narrow),
            "softmax, 784 columns": (LogisticModel(standardize=False), wide),
            "network 28-32-2": (MLPClassifierModel(hidden_layer_sizes=(32,)), narrow),
            "network 784-100-10": (MLPClassifierModel(hidden_layer_sizes=(100,)), wide),
        }
        for name, (model, store) in cases.items():
            for size in _SIZES:
                contestants = {
                    each: lambda solver=solver, model=model, store=store, size=size: (
                        seconds_of_a_pass(model, store, solver, size, client)
                    )
                    for each, solver in _SOLVERS.items()
                }
                taken = {k: np.array(v) for k, v in interleave(contestants, options.rounds).items()}
                rates = [Figure.of(store.n_rows / 1e3 / taken[each]) for each in _SOLVERS]
                share = Figure.of(taken["sgd"] / taken["private"])
                lines.append((f"{name}, batches of {size:,}", *map(str, rates), str(share)))
                figures[lines[-1][0]] = share
    header = ("model", "SGD, k rows/s", "private", "of SGD")
    report(table(header, lines), figures, options.json)


if __name__ == "__main__":
    main()
