"""The articles' programmes of gradient descent, each beside the same loop in plain NumPy.

Those of momentum with weight decay are in `test_optimizer_runs.py`, those of learning rates in
`test_schedule_runs.py`.
"""

from typing import Any

import numpy as np
import pytest

from ooc_train import CustomModel, LeastSquares, Training, train
from ooc_train.objective.losses.squared import Squared

RATE, ITERATIONS = 0.1, 60


def regression() -> tuple[Any, Any]:
    """Return the articles' linear regression: 1,000 rows of 10 columns, standardised here."""
    rng = np.random.default_rng(42)
    X = rng.normal(size=(1000, 10))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    return X, X @ rng.normal(size=10) + 4.0 + rng.normal(size=1000)


def gradient_descent(X: Any, y: Any, l1: float, l2: float) -> tuple[Any, float]:
    """Return weights and intercept after steps along the mean gradient of all rows.

    The penalty is ``l1 |w| + l2 / 2 w ** 2`` beside the mean of half the squared errors. That of l1
    has no gradient at 0, and becomes a proximal step.
    """
    w, b = np.zeros(X.shape[1]), 0.0
    for _ in range(ITERATIONS):
        error = X @ w + b - y
        w = w - RATE * (X.T @ error / len(X) + l2 * w)
        w = np.sign(w) * np.maximum(np.abs(w) - RATE * l1, 0.0)
        b -= RATE * error.mean()
    return w, b


@pytest.mark.filterwarnings("ignore:.*not converged")
@pytest.mark.parametrize(
    ("l1", "l2"),
    [(0.0, 0.0), (0.0, 0.1), (0.2, 0.0), (0.1, 0.1)],
    ids=["plain", "l2", "l1", "both"],
)
def test_full_batches_are_the_articles_gradient_descent(l1, l2):
    X, y = regression()
    model = CustomModel(loss=Squared(), l1=l1 * len(X), l2=l2 * len(X), standardize=True)
    training = Training(solver="sgd", learning_rate=RATE, max_iter=ITERATIONS, tol=0.0)
    fitted, report = train(model, X, training, y=y)
    assert report.n_iter == ITERATIONS
    w, b = gradient_descent(X, y, l1, l2)
    np.testing.assert_allclose(fitted.coef[0], w, rtol=1e-9, atol=1e-12)
    assert fitted.intercept[0] == pytest.approx(b, rel=1e-9)
    np.testing.assert_array_equal(fitted.coef[0] == 0.0, w == 0.0)
    assert (w == 0.0).any() == (l1 > 0.0)


@pytest.mark.filterwarnings("ignore:.*not converged")
@pytest.mark.parametrize("batch_size", ["exp:1..100,factor=2", "step:1@0,10@5,100@10", "grow:10"])
def test_batch_sizes_over_time_find_the_articles_line(batch_size):
    rng = np.random.default_rng(0)
    X = 2.0 * rng.random((100, 1))
    y = 4.0 + 3.0 * X[:, 0] + rng.normal(size=100)
    training = Training(solver="sgd", batch_size=batch_size, max_iter=50, tol=0.0, random_state=0)
    fitted, _ = train(LeastSquares(), X, training, y=y)
    slope, intercept = np.polyfit(X[:, 0], y, 1)
    assert fitted.coef[0, 0] == pytest.approx(slope, abs=0.05)
    assert fitted.intercept[0] == pytest.approx(intercept, abs=0.05)
