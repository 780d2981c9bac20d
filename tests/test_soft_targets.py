"""Networks of targets that are probabilities: of labels by themselves, or of classes together."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss

from ooc_train import (
    MLPClassifier,
    MLPRegressor,
    MLPRegressorModel,
    StoreWriter,
    Training,
    load,
    predict,
    predict_store,
    train,
)
from ooc_train.models.model import DataFigures
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.losses.soft_multinomial import SoftMultinomial

DIGITS, CLASSES = load_digits(return_X_y=True)
DIGITS, CLASSES = DIGITS[:640] / 16, CLASSES[:640]
ONE_HOT = np.eye(10)[CLASSES]
SETTINGS: dict[str, Any] = {"random_state": 0, "batch_size": 32, "max_iter": 20, "tol": 0.0}
pytestmark = pytest.mark.filterwarnings("ignore:.*not converged")


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
def test_the_slope_is_that_of_finite_differences(temperature):
    rng, loss = np.random.default_rng(0), SoftMultinomial(temperature)
    y, z = rng.dirichlet(np.ones(4), 7), rng.normal(scale=3, size=(7, 4))
    for step in 1e-6 * np.eye(4):
        by_differences = (loss.value(y, z + step) - loss.value(y, z - step)) / 2e-6
        assert_allclose(loss.slope(y, z) @ (step * 1e6), by_differences, atol=1e-7)
    # The least is where both are the same distribution.
    assert_allclose(loss.slope(y, np.log(y)), 0.0, atol=1e-12)


def test_certain_targets_are_classes():
    z = np.random.default_rng(0).normal(size=(640, 10))
    codes = CLASSES[:, None].astype(float)
    assert_allclose(SoftMultinomial().value(ONE_HOT, z), Multinomial().value(codes, z))
    found = MLPRegressor((16,), loss="cross_entropy", **SETTINGS).fit(DIGITS, ONE_HOT)
    due = MLPClassifier((16,), **SETTINGS).fit(DIGITS, CLASSES)
    assert_allclose(found.coefs_[0], due.coefs_[0], atol=1e-8)
    assert found.out_activation_ == "softmax"
    assert_allclose(found.predict(DIGITS), due.predict_proba(DIGITS), atol=1e-8)


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        ("cross_entropy", {"batch_size": 32}),
        ("cross_entropy", {"batch_size": "full", "solver": "lbfgs"}),
        ("log_loss", {"batch_size": 32}),
        ("log_loss", {"batch_size": "full", "solver": "lbfgs"}),
    ],
)
def test_a_student_learns_the_probabilities_of_its_teacher(loss, settings, tmp_path):
    teacher = MLPClassifier((32,), **SETTINGS | {"max_iter": 10}).fit(DIGITS, CLASSES)
    y = teacher.predict_proba(DIGITS)
    weights = np.linspace(0.5, 2.0, 640)
    made = MLPRegressor((16,), loss=loss, **SETTINGS | {"max_iter": 150} | settings)
    made.fit(DIGITS, y, sample_weight=weights)
    found = made.predict(DIGITS)
    assert np.abs(found - y).mean() < 0.025  # of 0.1 on average
    if loss == "cross_entropy":
        assert_allclose(found.sum(axis=1), 1.0)
        losses = -(y * np.log(found)).sum(axis=1)
    else:
        losses = -(y * np.log(found) + (1 - y) * np.log1p(-found)).sum(axis=1)
    assert made.loss_ == pytest.approx(np.average(losses, weights=weights), rel=1e-9)
    made.save(tmp_path / "run")
    assert_array_equal(load(tmp_path / "run").predict(DIGITS), found)


def test_several_labels_of_a_row_are_learned_each_by_itself():
    y = np.column_stack([CLASSES % 2, CLASSES > 4, CLASSES == 3]).astype(float)
    made = MLPRegressor((32,), loss="log_loss", **SETTINGS | {"max_iter": 60}).fit(DIGITS, y)
    found = made.predict(DIGITS)
    assert ((found > 0.5) == y).all(axis=1).mean() > 0.9
    due = sum(log_loss(y[:, k], found[:, k]) for k in range(3))
    assert made.loss_ == pytest.approx(due, rel=1e-6)
    assert made.out_activation_ == "logistic"


def test_what_a_teacher_wrote_is_the_y_of_a_student(tmp_path):
    with StoreWriter(tmp_path / "rows.zarr", n_features=64) as writer:
        writer.write(DIGITS, CLASSES.astype(float))
        writer.commit()
    teacher = MLPClassifier((32,), **SETTINGS).fit(DIGITS, CLASSES)
    rows, taught = str(tmp_path / "rows.zarr"), tmp_path / "taught.zarr"
    predict_store(teacher, rows, taught, kinds=("probability",))
    model = MLPRegressorModel(hidden_layer_sizes=(32,), loss="cross_entropy", temperature=2.0)
    student, _ = train(model, rows, Training(**SETTINGS), y=str(taught / "probability"))
    due = predict(teacher, DIGITS, "probability")
    found = predict(student, DIGITS)
    assert (found.argmax(axis=1) == due.argmax(axis=1)).mean() > 0.9


def change(y, row, column, value):
    changed = y.copy()
    changed[row, column] = value
    return changed


@pytest.mark.parametrize("settings", [{}, {"batch_size": "full", "solver": "lbfgs"}], ids=str)
@pytest.mark.parametrize(
    ("loss", "value", "said"),
    [
        ("cross_entropy", -0.25, r"y\[77, 3\] = -0.25 is in no row of probabilities"),
        ("cross_entropy", 0.5, r"y\[77, 0\] = .* is in no row of probabilities, and the soft_mult"),
        ("log_loss", 1.5, r"y\[77, 3\] = 1.5 is not from 0 to 1"),
        ("log_loss", -1e-9, r"y\[77, 3\] = -1e-09 is not from 0 to 1"),
    ],
)
def test_targets_that_are_no_probabilities_are_named(settings, loss, value, said):
    made = MLPRegressor((4,), loss=loss, **SETTINGS | {"max_iter": 2} | settings)
    with pytest.raises(ValueError, match=said):
        made.fit(DIGITS, change(ONE_HOT, 77, 3, value))


def test_a_temperature_is_for_cross_entropy():
    with pytest.raises(ValueError, match="temperature=2 is for loss='cross_entropy'"):
        MLPRegressorModel(temperature=2.0)
    with pytest.raises(ValueError, match="temperature=0"):
        MLPRegressorModel(loss="cross_entropy", temperature=0.0)
    data = DataFigures(10, 3, 2, 0, 10.0)
    needs = MLPRegressorModel(loss="cross_entropy", temperature=2.0).problem(data).needs
    assert {spec.kernel for spec in needs} == {"network_forward", "network_backward"}
