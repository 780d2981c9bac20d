"""The learning rate "auto" on wide and awkward data: the objective after five epochs of updates.

    python -m tests.benchmarks.five_epochs [--only NAME ...] [--solver NAME ...] [--batch SIZE ...]
                                           [--rates] [--json FILE]

Each figure is the mean objective (loss and penalty) after five epochs over that of the optimum, by
an exact solver; 1.02 is the target. `--rates` tries other rates where a figure misses the target:
the rate "auto" times powers of four, constant and falling linearly to zero, of which the best says
what any rate could do in five epochs. Data are made from fixed seeds; the flights are New York's.
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train import LeastSquares, LogisticModel, Training, ingest, train
from ooc_train.errors import Diverged
from ooc_train.stream.inputs import read_inputs

Array = NDArray[Any]

EPOCHS, TARGET = 5, 1.02
SOLVERS = ("sgd", "momentum", "adam")
BATCHES = ("1", "32", "256", "2048", "chunk")
_FLIGHTS = Path(__file__).parents[2] / "data" / "flights.parquet"
_FACTORS = (1 / 64, 1 / 16, 1 / 4, 1, 4, 16, 64)


def _normal(n: int, d: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


def _alike(n: int, d: int, share: float) -> Array:
    """Return columns that have a part in common; any two have the correlation `share`."""
    X: Array = np.sqrt(share) * _normal(n, 1, 1) + np.sqrt(1.0 - share) * _normal(n, d)
    return X


def _neighbours(n: int, d: int, share: float) -> Array:
    """Return columns of which each has the correlation `share` with the one before."""
    X = _normal(n, d)
    for j in range(1, d):
        X[:, j] = share * X[:, j - 1] + np.sqrt(1.0 - share**2) * X[:, j]
    return X


def _spread(n: int, d: int, condition: float) -> Array:
    """Return columns whose second moments have a condition number, and eigenvalues between."""
    turn = np.linalg.qr(_normal(d, d, 2))[0]
    X: Array = (_normal(n, d) * np.geomspace(1.0, condition**-0.5, d)) @ turn.T
    return X


def _with_truth(
    X: Array, *, kind: str = "classes", small: bool = False, n_classes: int = 2
) -> tuple[Array, Array, Any]:
    """Return X, y of a known truth, and the model.

    If `small`, only directions of the smallest third of the eigenvalues tell of y.
    """
    rng = np.random.default_rng(1)
    X = np.ascontiguousarray(X, dtype=np.float32)
    scaled = (X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-30)
    truth = rng.normal(size=(X.shape[1], 1 if n_classes == 2 else n_classes))
    if small:
        axes = np.linalg.eigh(scaled.T @ scaled)[1][:, : X.shape[1] // 3]
        truth = axes @ (axes.T @ truth)
    z = scaled @ truth
    z /= z.std()
    if kind == "numbers":
        return X, z[:, 0] + 0.5 * rng.normal(size=len(z)), LeastSquares()
    if n_classes > 2:
        return X, (2.0 * z + rng.gumbel(size=z.shape)).argmax(axis=1), LogisticModel(C=1.0)
    noisy = 1.5 * z[:, 0] + rng.logistic(size=len(z))
    return X, (noisy > 0).astype(float), LogisticModel(C=1.0)


def _flights() -> tuple[Array, Array, Any]:
    with tempfile.TemporaryDirectory() as folder:
        store = ingest(_FLIGHTS, Path(folder, "flights.zarr"), target="late").store
        return store.read("X"), store.read("y").astype(float), LogisticModel(C=1.0)


def _scales(n: int) -> Array:
    return _normal(n, 25) * np.geomspace(1e-6, 1e6, 25)


def _heavy(n: int) -> Array:
    return np.random.default_rng(0).standard_t(2.5, size=(n, 20))


def _rare(n: int) -> Array:
    return (np.random.default_rng(0).random((n, 200)) < np.geomspace(2e-4, 0.5, 200)) * 1.0


def _data() -> dict[str, Callable[[], tuple[Array, Array, Any]]]:
    """Return what makes X, y and a model, by name."""
    return {
        "10 columns": lambda: _with_truth(_normal(50_000, 10)),
        "100 columns": lambda: _with_truth(_normal(50_000, 100)),
        "1,000 columns": lambda: _with_truth(_normal(30_000, 1000)),
        "5,000 columns": lambda: _with_truth(_normal(20_000, 5000)),
        "20,000 columns, 6,000 rows": lambda: _with_truth(_normal(6000, 20_000)),
        "correlation 0.9": lambda: _with_truth(_alike(30_000, 50, 0.9)),
        "correlation 0.999": lambda: _with_truth(_alike(30_000, 50, 0.999)),
        "correlation 0.99, small truth": lambda: _with_truth(_alike(30_000, 50, 0.99), small=True),
        "correlation 0.99, numbers": lambda: _with_truth(_alike(30_000, 50, 0.99), kind="numbers"),
        "neighbours 0.95": lambda: _with_truth(_neighbours(30_000, 100, 0.95)),
        "neighbours 0.95, small truth": lambda: _with_truth(
            _neighbours(30_000, 100, 0.95), small=True
        ),
        "condition 1e4": lambda: _with_truth(_spread(30_000, 50, 1e4)),
        "condition 1e4, small truth": lambda: _with_truth(_spread(30_000, 50, 1e4), small=True),
        "condition 1e4, numbers": lambda: _with_truth(_spread(30_000, 50, 1e4), kind="numbers"),
        "scales 1e-6 to 1e6": lambda: (*_with_truth(_scales(20_000))[:2], LogisticModel(C=1e15)),
        "scales 1e-6 to 1e6, C=1": lambda: _with_truth(_scales(20_000)),
        "heavy tails": lambda: _with_truth(_heavy(30_000)),
        "heavy tails, numbers": lambda: _with_truth(_heavy(30_000), kind="numbers"),
        "rare columns": lambda: _with_truth(_rare(30_000)),
        "rare columns, numbers": lambda: _with_truth(_rare(30_000), kind="numbers"),
        "34 classes": lambda: _with_truth(_normal(30_000, 50), n_classes=34),
        "flights": _flights,
    }


@dataclass(frozen=True)
class Task:
    """Rows, a model of them, and the optimum of its mean objective."""

    X: Array
    y: Array
    model: Any
    optimum: float = np.nan

    def objective(self, training: Training) -> tuple[float, float]:
        """Return the mean objective of all rows after a training, and its rate.

        The objective is infinite if the run diverges.
        """
        inputs = read_inputs(self.X, self.y, classifier=isinstance(self.model, LogisticModel))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                fitted, report = train(self.model, inputs, training)
            except Diverged:
                return np.inf, np.nan
        return self._mean(fitted.coef, fitted.intercept), report.learning_rate or np.nan

    def _mean(self, coef: Array, intercept: Array) -> float:
        """Return the mean of loss and penalty, in float64."""
        total = 0.0
        for start in range(0, len(self.y), 4096):
            z = self.X[start : start + 4096].astype(float) @ coef.T + intercept
            y = self.y[start : start + 4096]
            if isinstance(self.model, LeastSquares):
                total += float(0.5 * ((z[:, 0] - y) ** 2).sum())
            elif z.shape[1] == 1:
                total += float((np.logaddexp(0.0, z[:, 0]) - y * z[:, 0]).sum())
            else:
                of_all = np.logaddexp.reduce(z, axis=1)
                total += float((of_all - z[np.arange(len(y)), y]).sum())
        if isinstance(self.model, LogisticModel):
            total += 0.5 / self.model.C * float((coef**2).sum())
        return total / len(self.y)


def _best(task: Task, training: Training, rate: float) -> tuple[float, str]:
    """Return the lowest objective over the optimum's that any of several rates reaches."""
    found = []
    for factor in _FACTORS:
        for kind in ("constant", "linear"):
            tried = replace(training, learning_rate=f"{kind}:{factor * rate}")
            found.append((task.objective(tried)[0], factor, kind))
    lowest, factor, kind = min(found)
    return lowest / task.optimum, f"{kind}, {factor:g} of auto"


def main() -> None:
    """Print a line for each data set and solver, with a figure for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--solver", nargs="*", default=SOLVERS)
    parser.add_argument("--batch", nargs="*", default=BATCHES)
    parser.add_argument("--rates", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    found: dict[str, float] = {}
    print(f"{'objective after 5 epochs over the optimum':<44}", *(f"{b:>8}" for b in options.batch))
    for name, make in _data().items():
        if options.only and name not in options.only:
            continue
        task = Task(*make())
        exact = Training(tol=1e-7, max_iter=1000, max_seconds=120)
        task = replace(task, optimum=task.objective(exact)[0])
        for solver in options.solver:
            cells, notes = [], []
            for batch in options.batch:
                how: dict[str, Any] = {"solver": solver, "tol": 0.0, "random_state": 0}
                size = batch if batch == "chunk" else int(batch)
                training = Training(batch_size=size, max_iter=EPOCHS, **how)
                value, rate = task.objective(training)
                ratio = found[f"{name}, {solver}, {batch}"] = value / task.optimum
                cells.append(f"{ratio:8.4f}")
                if options.rates and not ratio <= TARGET:
                    best, which = _best(task, training, rate)
                    found[f"{name}, {solver}, {batch}, best of rates"] = best
                    notes.append(f"    batches of {batch}: {best:.4f} by {which}, {rate:.3g}")
            print(f"{name:<34} {solver:<9}", *cells, f" of {task.optimum:.5g}", flush=True)
            for note in notes:
                print(note, flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
