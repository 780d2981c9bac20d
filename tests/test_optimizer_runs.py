"""Runs of every optimizer with the learning rate "auto", and the articles' programme.

Plain NumPy runs instead of kernels, so that nothing is compiled. `test_kernels.py` holds kernels to
the same numbers.
"""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from ooc_train import CustomModel, Fitted, LogisticModel, RidgeModel, Training, train
from ooc_train.kernels import calling, known_arrays
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.optimizers.adamw import AdamW
from ooc_train.optimizers.momentum import Momentum
from ooc_train.stream.inputs import read_inputs
from tests.test_optimizers import EVERY

# A strong decay holds the model away from the optimum.
NAMES = [name for name, optimizer in EVERY.items() if optimizer.decay <= 0.01]

ROWS = 1000


@pytest.fixture(autouse=True)
def plainly(monkeypatch):
    monkeypatch.setattr(calling, "_loaded", {})
    monkeypatch.setattr(known_arrays, "convention", lambda: "a test asks for it")


def rows_of(*, classes: bool, seed: int = 0) -> tuple[Any, Any, Any]:
    """Return X of awkward scales, standardised X, and y."""
    rng = np.random.default_rng(seed)
    scaled = rng.normal(size=(ROWS, 4)) @ (np.eye(4) + 0.3)
    z = scaled @ [1.0, -0.5, 0.8, 0.0] - 0.4
    noise = rng.logistic(size=ROWS)
    y = (z + noise > 0).astype(float) if classes else 4.0 + z + 0.5 * noise
    scaled = (scaled - scaled.mean(axis=0)) / scaled.std(axis=0)
    X = 3.0 + scaled * [1e-6, 1.0, 1e9, 1.0]
    return np.column_stack([X, np.full(ROWS, 7.0)]), scaled, y


def objective(fitted: Fitted, X: Any, y: Any, l2: float) -> float:
    """Return the objective of a model, with the penalty on standardised columns."""
    coef, intercept = fitted.coef[0], fitted.intercept[0]
    z, scale = X @ coef + intercept, X.std(axis=0)
    losses = np.logaddexp(0.0, z) - y * z if y.max() == 1.0 else 0.5 * (z - y) ** 2
    return float(losses.sum() + 0.5 * l2 * ((coef * scale) ** 2).sum())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not converged")
@pytest.mark.parametrize(
    ("name", "classes", "batch_size", "epochs"),
    [
        *[(name, True, 1, 4) for name in NAMES],
        *[(name, classes, 16, 12) for name in NAMES for classes in (True, False)],
        *[(name, classes, "full", 400) for name in NAMES for classes in (True, False)],
        # Single rows of least squares need many updates: a constant rate leaves more noise.
        *[(name, False, 1, 20) for name in ("momentum, nesterov", "adagrad", "rmsprop")],
    ],
)
def test_updates_by_the_automatic_rate_reach_scikit_learns_optimum(
    name, classes, batch_size, epochs
):
    optimizer = EVERY[name]
    X, scaled, y = rows_of(classes=classes)
    best: Any = LogisticRegression(C=0.5, tol=1e-10) if classes else Ridge(alpha=2.0)
    best.fit(scaled, y)
    z = scaled @ np.ravel(best.coef_) + best.intercept_
    losses = np.logaddexp(0.0, z) - y * z if classes else 0.5 * (z - y) ** 2
    lowest = float(losses.sum() + (best.coef_**2).sum())
    model: Any = LogisticModel(C=0.5, standardize=True)
    if not classes:
        model = RidgeModel(alpha=2.0, standardize=True)
    training = Training(
        solver=optimizer, batch_size=batch_size, max_iter=epochs, tol=0.0, random_state=0
    )
    fitted, report = train(model, read_inputs(X, y, classifier=classes), training)
    assert report.solver == optimizer.name
    assert 1.0 - 1e-9 <= objective(fitted, X, y, 2.0) / lowest <= 1.01


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not converged")
@pytest.mark.parametrize("batch_size", [1, 16, "full"])
@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("name", EVERY)
def test_heavy_tails_diverge_with_no_optimizer(name, classes, batch_size):
    optimizer = EVERY[name]
    rng = np.random.default_rng(1)
    X = np.exp(2.0 * rng.normal(size=(400, 5)))
    X[17] *= 1e3
    z = np.log(X) @ [1.0, -1.0, 0.5, 0.0, 0.3]
    y = z + rng.standard_t(2.0, 400)
    y = (y > 0).astype(float) if classes else y
    model: Any = LogisticModel(C=1.0) if classes else RidgeModel(alpha=1.0)
    training = Training(
        solver=optimizer, batch_size=batch_size, max_iter=4, tol=0.0, random_state=0
    )
    fitted, report = train(model, read_inputs(X, y, classifier=classes), training)
    assert np.isfinite(fitted.coef).all()
    of_zero = np.log(2.0) if classes else 0.5 * float(np.mean(y**2))
    assert report.loss is not None
    assert report.loss < of_zero * (1.0 if batch_size != "full" else 1.1)


def programme(X, y, rate, epochs, momentum, decay):
    """Return the parameters of PyTorch's SGD by all rows, whose bias has no weight decay."""
    w, b, of_w, of_b = np.zeros(X.shape[1]), 0.0, np.zeros(X.shape[1]), 0.0
    for _ in range(epochs):
        slope = 1.0 / (1.0 + np.exp(-(X @ w + b))) - y
        of_w = momentum * of_w + X.T @ slope / len(y) + decay * w
        of_b = momentum * of_b + slope.mean()
        w, b = w - rate * of_w, b - rate * of_b
    return w, b


def articles_rows() -> tuple[Any, Any]:
    rng = np.random.default_rng(42)
    X = rng.normal(size=(1000, 10))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    return X, (X @ rng.normal(size=10) + rng.logistic(size=1000) > 0).astype(float)


ARTICLES = {"momentum": 0.9, "weight_decay": 5e-4, "learning_rate": 0.1, "rows": 1000}


@pytest.mark.filterwarnings("ignore:.*not converged")
def test_the_articles_momentum_and_weight_decay_by_all_rows():
    X, y = articles_rows()
    l2 = ARTICLES["weight_decay"] * ARTICLES["rows"]
    model = CustomModel(loss=Logistic(), l2=l2, standardize=True)
    training = Training(
        solver="momentum:momentum=0.9", learning_rate=0.1, max_iter=30, tol=0.0, random_state=0
    )
    fitted, report = train(model, read_inputs(X, y, classifier=True), training)
    w, b = programme(X, y, 0.1, report.n_iter, 0.9, 5e-4)
    np.testing.assert_allclose(fitted.coef[0], w, rtol=1e-9)
    assert fitted.intercept[0] == pytest.approx(b, rel=1e-9)
    without, _ = programme(X, y, 0.1, report.n_iter, 0.9, 0.0)
    assert np.abs(without - w).max() > 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not converged")
@pytest.mark.parametrize("nesterov", [False, True])
def test_the_articles_momentum_and_weight_decay_by_batches(nesterov):
    X, y = articles_rows()
    model = CustomModel(loss=Logistic(), l2=0.5, standardize=True)
    training = Training(
        solver=Momentum(0.9, nesterov=nesterov), learning_rate=0.01, batch_size=10,
        max_iter=20, tol=0.0, random_state=0,
    )  # fmt: skip
    fitted, _ = train(model, read_inputs(X, y, classifier=True), training)
    best = LogisticRegression(C=2.0, tol=1e-10).fit(X, y)
    np.testing.assert_allclose(fitted.coef, best.coef_, atol=0.05)
    z = X @ best.coef_[0] + best.intercept_[0]
    lowest = float((np.logaddexp(0.0, z) - y * z).sum() + 0.25 * (best.coef_**2).sum())
    assert objective(fitted, X, y, 0.5) <= 1.001 * lowest


def test_a_weight_decay_holds_the_model_away_and_the_run_ends_and_says_so():
    X, _, y = rows_of(classes=True)
    training = Training(
        solver=AdamW(weight_decay=1.0), batch_size=16, max_iter=100, tol=1e-3, random_state=0
    )
    said: list[str] = []
    fitted, report = train(
        LogisticModel(C=1.0),
        read_inputs(X, y, classifier=True),
        training,
        callbacks=[lambda event: said.append(str(getattr(event, "text", "")))],
    )
    assert report.converged
    assert any("which does not count the weight decay 1" in text for text in said)
    plain, _ = train(
        LogisticModel(C=1.0),
        read_inputs(X, y, classifier=True),
        Training(solver="adam", batch_size=16, max_iter=100, tol=1e-3, random_state=0),
    )
    sizes = [float(np.abs(each.coef * X.std(axis=0)).sum()) for each in (fitted, plain)]
    assert sizes[0] < 0.7 * sizes[1]
