"""The learning rate "auto" on wide and awkward data: near the optimum after five epochs.

Plain NumPy runs instead of kernels, so that nothing is compiled.
"""

from typing import Any

import numpy as np
import pytest

from ooc_train import LeastSquares, LogisticModel, Training, train
from ooc_train.stream.inputs import read_inputs
from tests.test_optimizer_runs import plainly  # noqa: F401 (a fixture)

EPOCHS = 5


def rows_of(name: str) -> tuple[Any, Any]:
    """Return X, and y of two classes, or numbers for least squares."""
    rng = np.random.default_rng(0)
    X: Any
    if name == "wide":
        X = rng.normal(size=(12_000, 2100)).astype(np.float32)
    elif name == "many rare columns":
        X = (rng.random((6000, 200)) < np.geomspace(2e-3, 0.5, 200)).astype(float)
    elif name == "correlated columns":  # any two correlate by 0.95
        X = rng.normal(size=(6000, 10)) + np.sqrt(19.0) * rng.normal(size=(6000, 1))
    else:
        X = rng.normal(size=(2000, 20)) * np.geomspace(1e-6, 1e6, 20)
        X[:, 3] = rng.random(2000) < 2e-3
        X[:, 4] = 0.0
    truth = rng.normal(size=X.shape[1])
    if name == "correlated columns":
        truth -= truth.mean()  # what the columns have in common tells nothing
    z = (X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-9) @ truth
    z /= z.std()
    if name == "a rare column":
        return X, z + rng.normal(size=len(z))
    return X, (z + rng.logistic(size=len(z)) > 0).astype(float)


def losses(name: str, trainings: list[Training]) -> list[float]:
    """Return the mean loss of all rows after each training."""
    X, y = rows_of(name)
    model: Any = LeastSquares() if name == "a rare column" else LogisticModel(C=1e9)
    inputs = read_inputs(X, y, classifier=name != "a rare column")
    return [train(model, inputs, training)[1].loss for training in trainings]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not converged")
@pytest.mark.parametrize(
    ("name", "solver", "batch_sizes"),
    [
        ("wide", "sgd", [16, 256]),
        ("wide", "adam", [256]),
        ("many rare columns", "sgd", [64]),
        ("a rare column", "sgd", [1, 16, 256]),
        ("a rare column", "momentum", [1, 16, 256]),
    ],
)
def test_updates_are_near_the_optimum_after_five_epochs(name, solver, batch_sizes):
    how: dict[str, Any] = {"max_iter": EPOCHS, "tol": 0.0, "random_state": 0}
    trainings = [Training(solver=solver, batch_size=size, **how) for size in batch_sizes]
    lowest, *found = losses(name, [Training(solver="lbfgs", tol=1e-5), *trainings])
    assert max(found) <= 1.02 * lowest


@pytest.mark.filterwarnings("ignore:.*not converged")
@pytest.mark.parametrize("optimizer", ["momentum", "momentum:nesterov=1"])
def test_momentum_serves_large_batches_of_correlated_columns(optimizer):
    """Curvature bounds the rate no more than without momentum, which plain steps show."""
    how: dict[str, Any] = {"batch_size": 256, "max_iter": EPOCHS, "tol": 0.0, "random_state": 0}
    trainings = [Training(solver="lbfgs", tol=1e-6)]
    trainings += [Training(solver=solver, **how) for solver in (optimizer, "sgd")]
    lowest, by_momentum, plain = losses("correlated columns", trainings)
    assert by_momentum <= 1.01 * lowest
    assert plain >= 1.05 * lowest
