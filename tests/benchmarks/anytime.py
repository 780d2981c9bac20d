"""Updates that may end anywhere: the loss after each pass over that of a run planned to end there.

Ours ends after 1, 2, 5, 10 and 20 passes, without knowing that beforehand. A plain loop by hand is
planned for each of them: the largest stable learning rate, falling linearly to zero, and the last
parameters. Each ratio is ours over the loop's; 1.01 is the target. Of Adam, the loop is the best of
four rates for each number of passes.

    python -m tests.benchmarks.anytime [--only NAME ...] [--json FILE]

Data: normal, correlated and heavy-tailed columns of a known truth, and the flights from New York.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ooc_train import LeastSquares, LogisticModel, Training, ingest, train
from ooc_train.stream.inputs import read_inputs
from tests.benchmarks.handwritten import _compiled

Array = NDArray[np.float64]

PASSES = (1, 2, 5, 10, 20)
BATCHES = (1, 16, 256, 2048)
_FLIGHTS = Path(__file__).parents[2] / "data" / "flights.parquet"
_ADAM_RATES = (1e-3, 3e-3, 1e-2, 3e-2)


@_compiled
def _planned(
    X: Array, y: Array, logistic: bool, batch_size: int, epochs: int, eta0: float, adam: bool
) -> Array:
    """Return the last parameters of a run whose learning rate falls linearly to zero."""
    n, d = X.shape
    theta, g, first, second = np.zeros(d), np.zeros(d), np.zeros(d), np.zeros(d)
    total, t = epochs * (-(-n // batch_size)), 0
    np.random.seed(1)  # noqa: NPY002 (numba's own generator)
    for _ in range(epochs):
        order, filled = np.random.permutation(n), 0  # noqa: NPY002
        for i in range(n):
            x = X[order[i]]
            z = x @ theta
            slope = (1.0 / (1.0 + np.exp(-z)) if logistic else z) - y[order[i]]
            g += slope * x
            filled += 1
            if filled < batch_size and i < n - 1:
                continue
            eta, part = eta0 * (1.0 - t / total), filled / batch_size
            t += 1
            if adam:
                mean = g / filled
                first += 0.1 * (mean - first)
                second += 0.001 * (mean * mean - second)
                size = np.sqrt(second / (1.0 - 0.999**t)) + 1e-8
                theta -= part * eta * first / (1.0 - 0.9**t) / size
            else:
                theta -= part * eta * g / filled
            g[:] = 0.0
            filled = 0
    return theta


def _loss(X: Array, y: Array, theta: Array, *, logistic: bool) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        z = X @ theta
        values = np.logaddexp(0.0, z) - y * z if logistic else 0.5 * (z - y) ** 2
        return float(values.mean())


def _data() -> dict[str, Callable[[], tuple[Array, Array, bool]]]:
    """Return what makes X, y, and whether y is of two classes, by name."""

    def truth(X: Array, size: float, *, logistic: bool) -> tuple[Array, Array, bool]:
        rng = np.random.default_rng(1)
        z = (X - X.mean(axis=0)) / X.std(axis=0) @ rng.normal(size=X.shape[1]) * size
        noisy = z + (rng.logistic(size=len(z)) if logistic else rng.normal(size=len(z)))
        return X, (noisy > 0).astype(float) if logistic else noisy, logistic

    def normal(n: int, d: int) -> Array:
        return np.random.default_rng(0).normal(size=(n, d))

    def correlated() -> Array:
        turn = np.linalg.qr(normal(50, 50))[0] * np.logspace(0, -2.5, 50)
        return np.random.default_rng(2).normal(size=(30_000, 50)) @ turn.T

    def flights() -> tuple[Array, Array, bool]:
        with tempfile.TemporaryDirectory() as folder:
            store = ingest(_FLIGHTS, Path(folder, "flights.zarr"), target="late").store
            return store.read("X").astype(float), store.read("y").astype(float), True

    return {
        "normal, 4,000 x 8": lambda: truth(normal(4000, 8), 1.0, logistic=True),
        "normal, 100,000 x 100": lambda: truth(normal(100_000, 100), 0.1, logistic=True),
        "heavy tails, 20,000 x 20": lambda: truth(
            np.exp(1.5 * normal(20_000, 20)), 0.2, logistic=True
        ),
        "correlated, 30,000 x 50": lambda: truth(correlated(), 0.5, logistic=True),
        "least squares, 10,010 x 100": lambda: truth(normal(10_010, 100), 1.0, logistic=False),
        "least squares, correlated": lambda: truth(correlated(), 0.5, logistic=False),
        "flights": flights,
    }


def _rate(X: Array, batch_size: int, *, logistic: bool) -> float:
    """Return the largest learning rate that is stable in the mean."""
    moments = X.T @ X / len(X)
    curvature = np.trace(moments) + (batch_size - 1) * np.linalg.eigvalsh(moments)[-1]
    return float(batch_size / curvature / (0.25 if logistic else 1.0))


def _ratios(
    X: Array, y: Array, solver: str, batch_size: int, *, logistic: bool
) -> tuple[list[float], float]:
    """Return our loss after each number of passes over the planned one, and our last loss."""
    model = LogisticModel(C=1e9) if logistic else LeastSquares()
    training = Training(solver=solver, batch_size=batch_size, tol=0.0, random_state=0)
    scaled = np.column_stack(
        [(X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-12), np.ones(len(X))]
    )
    losses: list[float] = []
    for passes in PASSES:
        inputs = read_inputs(X, y, classifier=logistic)
        fitted, _ = train(model, inputs, replace(training, max_iter=passes))
        theta = np.append(fitted.coef[0], fitted.intercept[0])
        losses.append(_loss(np.column_stack([X, np.ones(len(X))]), y, theta, logistic=logistic))
    ratios = []
    for passes, ours in zip(PASSES, losses, strict=True):
        rates = [_rate(scaled, batch_size, logistic=logistic)]
        if solver == "adam":
            rates = [rate * np.sqrt(batch_size / 32) for rate in _ADAM_RATES]
        planned = min(
            _loss(
                scaled, y,
                _planned(scaled, y, logistic, batch_size, passes, rate, solver == "adam"),
                logistic=logistic,
            )
            for rate in rates
        )  # fmt: skip
        ratios.append(ours / planned)
    return ratios, losses[-1]


def main() -> None:
    """Print a line for each data set, solver and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    found = {}
    print("loss after", ", ".join(map(str, PASSES)), "passes over that of a run planned for them")
    for name, make in _data().items():
        if options.only and name not in options.only:
            continue
        X, y, logistic = make()
        for solver in ("sgd", "adam"):
            for batch_size in BATCHES:
                ratios, loss = _ratios(X, y, solver, batch_size, logistic=logistic)
                found[f"{name}, {solver}, {batch_size}"] = ratios
                cells = "  ".join(f"{ratio:.4f}" for ratio in ratios)
                print(
                    f"{name:<28} {solver:<4} {batch_size:>5}  {cells}  loss {loss:.5f}", flush=True
                )
    worst = max(max(ratios) for ratios in found.values())
    print(f"the largest: {worst:.4f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
