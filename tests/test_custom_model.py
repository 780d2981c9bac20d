"""A linear predictor with any loss: trained, saved, loaded, and predicted with."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import ElasticNet, HuberRegressor
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.svm import LinearSVC

from ooc_train import evaluate, load, predict, predict_files, predict_store, train
from ooc_train.errors import InvalidRun
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.custom_model import CustomModel
from ooc_train.models.regression_models import RidgeModel
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses import LOSSES
from ooc_train.objective.losses.hinge import Hinge
from ooc_train.objective.losses.huber import Huber
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.losses.squared import Squared
from ooc_train.objective.losses.squared_hinge import SquaredHinge
from ooc_train.optimizers.momentum import Momentum
from ooc_train.optimizers.schedules import Cosine
from ooc_train.runs.run_loading import load_fitted
from ooc_train.solvers.training_settings import Training
from tests.streams import write_store

pytestmark = pytest.mark.slow

N, FEATURES = 3000, 6


def share(y: Any, z: Any, tau: float) -> Any:
    return tau + (1.0 - 2.0 * tau) * (z > y)


@dataclass(frozen=True)
class Expectile(Loss):
    """Half the squared residual; rows above the prediction count tau, rows below 1 - tau."""

    tau: float = 0.9

    name: ClassVar[str] = "expectile"

    @property
    def bound(self) -> float:
        return max(self.tau, 1.0 - self.tau)

    def value(self, y: Any, z: Any) -> Any:
        return 0.5 * share(y, z, self.tau) * (z - y) * (z - y)

    def slope(self, y: Any, z: Any) -> Any:
        return share(y, z, self.tau) * (z - y)

    def curvature(self, y: Any, z: Any) -> Any:
        return share(y, z, self.tau) * np.ones_like(z)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(LOSSES, "_classes", dict(LOSSES._classes))
    LOSSES.add(Expectile)


def rows(kind="real", *, tail=None, seed=0):
    """Rows of columns of several scales, and numbers or classes."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, FEATURES))
    if tail is not None:
        X[:, 0] = rng.standard_t(tail, N)
    z = X @ rng.standard_normal(FEATURES) + 0.5
    X *= [1e-6, 1.0, 1e3, 1.0, 1e9, 1.0]
    if kind == "real":
        return X, z + rng.standard_t(3, N)
    return X, (z + rng.logistic(size=N) > 0).astype(int)


def optimum(loss: Loss, X, y, l2):
    """The smallest objective, by scipy, on columns of one scale."""
    scale = X.std(axis=0)
    S = X / scale

    def objective(w: Any) -> Any:
        z = S @ w[:-1] + w[-1]
        penalty = l2 / scale**2
        gradient = np.append(S.T @ loss.slope(y, z) + penalty * w[:-1], loss.slope(y, z).sum())
        return loss.value(y, z).sum() + 0.5 * (penalty * w[:-1] ** 2).sum(), gradient

    found = minimize(
        objective, np.zeros(FEATURES + 1), jac=True, method="L-BFGS-B",
        options={"maxiter": 10_000, "ftol": 1e-15, "gtol": 1e-10, "maxfun": 10_000},
    )  # fmt: skip
    return float(found.fun)


def objective(fitted, X, y, l2):
    z = X @ fitted.coef[0] + fitted.intercept[0]
    return float(fitted.loss.value(y, z).sum() + 0.5 * l2 * (fitted.coef**2).sum())


SMOOTH = [
    (Expectile(0.9), "real"),
    (Huber(0.7), "real"),
    (SquaredHinge(), "classes"),
    (Logistic(), "classes"),
]


@pytest.mark.parametrize(("loss", "kind"), SMOOTH)
@pytest.mark.parametrize("solver", ["auto", "lbfgs"])
def test_full_batch_solvers_reach_the_optimum_of_any_smooth_loss(loss, kind, solver):
    X, y = rows(kind)
    model, training = CustomModel(loss=loss, l2=1.0), Training(solver=solver, tol=1e-7)
    fitted, report = train(model, X, training, y=y)
    assert report.converged
    automatic = "smoothing" if isinstance(loss, Huber) else "newton"
    assert report.solver == (automatic if solver == "auto" else solver)
    assert objective(fitted, X, y, 1.0) == pytest.approx(optimum(loss, X, y, 1.0), rel=1e-9)


@pytest.mark.parametrize("batch_size", [1, 256])
@pytest.mark.parametrize("tail", [None, 2.2])
@pytest.mark.parametrize(("loss", "kind"), SMOOTH)
def test_updates_reach_the_optimum_of_any_smooth_loss(loss, kind, tail, batch_size):
    X, y = rows(kind, tail=tail)
    training = Training(batch_size=batch_size, max_iter=30, tol=0.0, random_state=0)
    fitted, _ = train(CustomModel(loss=loss, l2=1.0), X, training, y=y)
    assert objective(fitted, X, y, 1.0) <= 1.01 * optimum(loss, X, y, 1.0)


def test_the_same_loss_gives_the_bits_of_the_model_that_has_it():
    X, y = rows("classes")
    for training in (Training(), Training(batch_size=16, max_iter=2, random_state=1)):
        ours, _ = train(CustomModel(loss=Logistic(), l2=2.0), X, training, y=y)
        theirs, _ = train(LogisticModel(C=0.5), X, training, y=y)
        np.testing.assert_array_equal(ours.coef, theirs.coef)
    X, y = rows()
    ours, report = train(CustomModel(loss=Squared(), l2=2.0), X, y=y)
    theirs, _ = train(RidgeModel(alpha=2.0), X, y=y)
    assert report.solver == "gram"
    np.testing.assert_array_equal(ours.coef, theirs.coef)


def test_huber_and_the_squared_hinge_are_scikit_learns():
    X, y = rows()
    X = X / X.std(axis=0)
    theirs = HuberRegressor(epsilon=1.35, alpha=0.0, max_iter=10_000, tol=1e-10).fit(X, y)
    # Its residuals are divided by a scale, which it learns too.
    loss = Huber(1.35 * theirs.scale_)
    fitted, _ = train(CustomModel(loss=loss), X, Training(tol=1e-10), y=y)
    np.testing.assert_allclose(fitted.coef[0], theirs.coef_, rtol=1e-4)
    X, y = rows("classes")
    X = X / X.std(axis=0)
    svc = LinearSVC(C=0.5, dual=False, tol=1e-12, intercept_scaling=1e4, max_iter=10**6).fit(X, y)
    fitted, _ = train(CustomModel(loss=SquaredHinge(), l2=2.0), X, Training(tol=1e-10), y=y)
    np.testing.assert_allclose(fitted.coef[0], svc.coef_[0], rtol=1e-4)


@pytest.mark.parametrize("batch_size", [4, 64])
def test_an_elastic_net_by_updates_is_near_scikit_learns(batch_size):
    X, y = rows()
    X = X / X.std(axis=0)
    l1, l2 = 600.0, 150.0
    theirs = ElasticNet(alpha=(l1 + l2) / N, l1_ratio=l1 / (l1 + l2), tol=1e-12).fit(X, y)
    training = Training(
        batch_size=batch_size, solver=Momentum(0.9), schedule=Cosine(), max_iter=40, tol=0.0,
        random_state=0,
    )  # fmt: skip
    fitted, _ = train(CustomModel(loss=Squared(), l1=l1, l2=l2), X, training, y=y)

    def cost(coef: Any, intercept: Any) -> float:
        squares = float(((X @ coef + intercept - y) ** 2).sum())
        return squares / 2 + l1 * float(np.abs(coef).sum()) + l2 / 2 * float((coef**2).sum())

    assert cost(fitted.coef[0], fitted.intercept[0]) <= 1.002 * cost(
        theirs.coef_, theirs.intercept_
    )


def test_a_loss_of_margins_has_classes_and_no_probabilities(tmp_path):
    X, y = rows("classes")
    store = write_store(tmp_path / "rows.zarr", X, y)
    model = CustomModel(loss=Hinge(), l2=1.0)
    training = Training(batch_size=64, max_iter=20, random_state=0)
    fitted, report = train(model, store, training, out=tmp_path / "a.run")
    assert report.solver == "sgd"
    z = predict(fitted, store, "decision")
    codes = predict(tmp_path / "a.run", store)
    np.testing.assert_array_equal(codes, (z[:, 0] > 0).astype(int))
    metrics, _ = evaluate(fitted, store)
    assert "log_loss" not in metrics
    assert metrics["accuracy"] == pytest.approx(accuracy_score(y, codes))
    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(y, z[:, 0]), abs=1e-3)
    said = "the hinge loss gives no probabilities"
    for kind in ("probability", "log_probability"):
        with pytest.raises(ValueError, match=said):
            predict(fitted, store, kind)
        with pytest.raises(ValueError, match=said):
            predict_store(fitted, store, tmp_path / "p.zarr", kinds=("prediction", kind))
    with pytest.raises(ValueError, match=said):
        predict_files(fitted, store, tmp_path / "p.csv", kinds=("probability",))
    assert not (tmp_path / "p.zarr").exists()
    assert not (tmp_path / "p.csv").exists()


def test_classes_must_be_as_many_as_the_loss_is_for():
    X, _ = rows()
    three = np.arange(N) % 3
    with pytest.raises(ValueError, match="multinomial loss is for more than 2 classes"):
        train(CustomModel(loss=Multinomial()), X, y=three > 0)
    fitted, _ = train(CustomModel(loss=Multinomial(), l2=1.0), X, y=three)
    assert fitted.coef.shape == (3, FEATURES)


def test_class_weights_are_those_of_the_loss():
    X, y = rows("classes")
    weights = {0: 3.0, 1: 0.5}
    ours, _ = train(CustomModel(loss=Logistic(), l2=1.0, class_weight=weights), X, y=y)
    theirs, _ = train(LogisticModel(class_weight=weights), X, y=y)
    np.testing.assert_array_equal(ours.coef, theirs.coef)


def test_a_run_names_its_loss_and_is_loaded_by_it(tmp_path, registered):
    X, y = rows()
    fitted, _ = train(CustomModel(loss=Expectile(0.8), l2=1.0), X, y=y, out=tmp_path / "a.run")
    again = load_fitted(tmp_path / "a.run")
    assert again.model == fitted.model
    np.testing.assert_array_equal(predict(again, X), predict(fitted, X))
    loss = evaluate(tmp_path / "a.run", X, y=y)[0]["loss"]
    assert loss == pytest.approx(objective(fitted, X, y, 0.0) / N)
    with pytest.raises(InvalidRun, match="holds a custom model, which has no estimator"):
        load(tmp_path / "a.run")


def test_a_process_that_does_not_know_the_loss_says_what_to_import(tmp_path, registered):
    X, y = rows()
    train(CustomModel(loss=Expectile()), X, y=y, out=tmp_path / "a.run")
    code = (
        f"import ooc_train.runs.run_loading as runs; runs.load_fitted({str(tmp_path / 'a.run')!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the loss 'expectile' is not one of squared" in done.stderr
    assert "import the module that registers it" in done.stderr


def test_a_loss_that_is_not_registered_is_refused_before_a_row_is_read(tmp_path):
    model = CustomModel(loss=Expectile())
    with pytest.raises(ValueError, match="Expectile is no registered loss, and so a run with it"):
        train(model, tmp_path / "nothing.zarr", out=tmp_path / "a.run")
    X, y = rows()
    assert train(model, X, y=y)[1].converged


def test_the_notebook_shows_the_loss_that_this_file_tests():
    text = (Path(__file__).parent.parent / "notebooks" / "5_your_own_loss.ipynb").read_text("utf8")
    assert "class Expectile(Loss):" in text
    assert "return share(y, z, self.tau) * (z - y)" in text
