"""Metrics added up chunk by chunk against scikit-learn's of all rows at once."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ooc_train.errors import NonFiniteData
from ooc_train.inference.class_metrics import ClassMetrics, roc_areas
from ooc_train.inference.metrics import MetricSums
from ooc_train.inference.outputs import Outputs
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.model_registry import MODELS
from ooc_train.models.predictor import LinearPredictor
from ooc_train.models.regression_models import LeastSquares
from ooc_train.runs.fitted import Fitted
from tests.streams import Case, Cut, make_case, same_bits, stream

metrics = pytest.importorskip("sklearn.metrics")


def fitted_of(case: Case, classes=()) -> Fitted:
    theta = np.random.default_rng(1).normal(size=case.problem.initial().shape)
    coef, intercept = case.problem.scaling.to_data_units(theta)
    name = "logistic" if classes else "ridge"
    return Fitted(MODELS[name](), LinearPredictor(coef, intercept), classes)


def found_by(fitted, source, about=None, **how):
    work = MetricSums(fitted, fitted.intercept if about is None else about)
    return work.metrics(stream(source, **how).reduce(work))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("loss", "n"), [("logistic", 2), ("multinomial", 3)])
def test_of_classifiers(loss, n, weighted):
    case = make_case(loss, 1 if n == 2 else n, rows=703, weighted=weighted)
    fitted = fitted_of(case, tuple("abc"[:n]))
    found = found_by(fitted, case.source)
    y, z = case.y[:, 0].astype(int), fitted.predictor.decision(case.source.X)
    p, weight = Outputs.of(fitted).probabilities(z), case.source.weight
    due = metrics.log_loss(y, p, sample_weight=weight)
    assert found["n_rows"] == 703
    assert found["log_loss"] == found["loss"] == pytest.approx(due, rel=1e-9)
    due = metrics.accuracy_score(y, Outputs.of(fitted).codes(z), sample_weight=weight)
    assert found["accuracy"] == pytest.approx(due, rel=1e-12)
    if n == 2:
        area = metrics.roc_auc_score(y, p[:, 1], sample_weight=weight)
        assert abs(found["roc_auc"] - area) <= found["roc_auc_error"] + 1e-12
        assert found["roc_auc_error"] < 1e-3
    else:
        assert "roc_auc" not in found
    assert all(type(value) in (int, float) for value in found.values())


@pytest.mark.parametrize("about", [None, 0.0, 1e3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_of_regressions(outputs, weighted, about):
    case = make_case("squared", outputs, rows=703, weighted=weighted)
    fitted = fitted_of(case)
    near = None if about is None else np.full(outputs, about)
    found = found_by(fitted, case.source, near)
    predicted, weight = fitted.predictor.decision(case.source.X), case.source.weight
    due = metrics.r2_score(case.y, predicted, sample_weight=weight)
    assert found["r2"] == pytest.approx(due, rel=1e-7)
    due = metrics.mean_squared_error(case.y, predicted, sample_weight=weight)
    assert found["mse"] == pytest.approx(due, rel=1e-12)
    assert found["loss"] == pytest.approx(due * outputs / 2, rel=1e-12)
    assert "accuracy" not in found


@pytest.mark.parametrize("right", [True, False])
def test_a_y_that_never_varies_is_right_or_wrong(right):
    fitted = Fitted(
        LeastSquares(), LinearPredictor(np.zeros((1, 2)), np.array([3.0 if right else 2.0]))
    )
    X, y = np.ones((9, 2)), np.full((9, 1), 3.0)
    found = found_by(fitted, Cut(X, y))
    assert found["r2"] == metrics.r2_score(y, fitted.predictor.decision(X)) == float(right)


def test_a_y_far_from_zero_costs_the_score_no_digits():
    case = make_case("squared", 1)
    fitted = fitted_of(case)
    expected = found_by(fitted, case.source)["r2"]
    far = Fitted(fitted.model, LinearPredictor(fitted.coef, fitted.intercept + 1e8))
    moved = Cut(case.source.X, case.y + 1e8)
    assert found_by(far, moved, case.y.mean(axis=0) + 1e8)["r2"] == pytest.approx(expected, 1e-6)


@pytest.mark.parametrize("cut", [{"rows": 1}, {"rows": 50, "group": 1}, {"rows": 2000}])
def test_cutting_the_rows_changes_rounding_only(cut):
    case = make_case("logistic", rows=703, weighted=True)
    fitted = fitted_of(case, (0, 1))
    expected = found_by(fitted, case.source)
    source = Cut(case.source.X, case.y, case.source.weight, **cut)
    assert found_by(fitted, source) == pytest.approx(expected, rel=1e-12)
    work = MetricSums(fitted, fitted.intercept)
    sums = [stream(case.source, task_groups=n).reduce(work) for n in (1, 5)]
    assert same_bits(*sums)


counts = arrays(float, 12, elements=st.integers(0, 5).map(float))


@given(negatives=counts, positives=counts)
def test_the_area_is_the_share_of_pairs_in_order_and_half_the_ties(negatives, positives):
    area, error = np.concatenate(roc_areas(np.array([[negatives, positives]])))
    pairs = np.outer(positives, negatives)  # positive in bin i, negative in bin j
    if pairs.sum() == 0:
        assert np.isnan([area, error]).all()
        return
    assert area == pytest.approx((np.tril(pairs, -1).sum() + pairs.trace() / 2) / pairs.sum())
    assert error == pytest.approx(pairs.trace() / 2 / pairs.sum())


def test_one_class_alone_has_no_area():
    case = make_case("logistic")
    fitted = fitted_of(case, (0, 1))
    found = found_by(fitted, Cut(case.source.X, np.ones_like(case.y)))
    assert np.isnan(found["roc_auc"])
    assert 0 <= found["accuracy"] <= 1


def test_a_certain_prediction_falls_in_the_last_bin():
    fitted = Fitted(LogisticModel(), LinearPredictor(np.array([[1e4]]), np.zeros(1)), (0, 1))
    X, y = np.array([[1.0], [-1.0]]), np.array([[1.0], [0.0]])
    found = found_by(fitted, Cut(X, y))
    assert (found["roc_auc"], found["accuracy"], found["loss"]) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize("where", ["X", "y", "weight"])
def test_what_is_not_finite_is_named(where):
    case = make_case("squared", 1, weighted=True)
    given: dict[str, Any] = {"X": case.source.X, "y": case.y, "weight": case.row_weights}
    given[where] = given[where].copy()
    given[where][51] = np.nan
    with pytest.raises(NonFiniteData, match="row 51 has nan"):
        found_by(fitted_of(case), Cut(given["X"], given["y"], given["weight"]))


def test_evaluation_needs_y():
    case = make_case("squared", 1)
    with pytest.raises(ValueError, match="evaluation needs y"):
        found_by(fitted_of(case), Cut(case.source.X))


# Of each class


def by_class_of(case, fitted):
    work = MetricSums(fitted, fitted.intercept, detailed=True)
    found: ClassMetrics = work.evaluation(stream(case.source).reduce(work))["by_class"]
    y, z = case.y[:, 0].astype(int), fitted.predictor.decision(case.source.X)
    return found, y, Outputs.of(fitted).probabilities(z), Outputs.of(fitted).codes(z)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("loss", "n"), [("logistic", 2), ("multinomial", 3)])
def test_of_each_class(loss, n, weighted):
    case = make_case(loss, 1 if n == 2 else n, rows=703, weighted=weighted)
    found, y, p, predicted = by_class_of(case, fitted_of(case, tuple("abc"[:n])))
    weight = case.source.weight
    due = metrics.confusion_matrix(y, predicted, sample_weight=weight)
    np.testing.assert_allclose(found.confusion, due)
    due = metrics.precision_recall_fscore_support(y, predicted, sample_weight=weight)
    for name, values in zip(("precision", "recall", "f1", "support"), due, strict=True):
        np.testing.assert_allclose(getattr(found, name), values, err_msg=name)
    area, average = found.roc_auc, found.average_precision
    for i, label in enumerate(found.scored_classes):
        is_class, score = y == "abc".index(label), p[:, "abc".index(label)]
        for curve, right in (
            (area, metrics.roc_auc_score(is_class, score, sample_weight=weight)),
            (average, metrics.average_precision_score(is_class, score, sample_weight=weight)),
        ):
            assert abs(curve.value[i] - right) <= curve.error[i] + 1e-12
            assert curve.error[i] < 8e-3
        x, true, threshold = found.roc(label)
        assert float(np.trapezoid(true, x)) == pytest.approx(area.value[i], rel=1e-12)
        for at in (len(x) // 3, len(x) - 1):  # a point is what its threshold gives
            chosen = score >= threshold[at]
            rows = np.ones(703) if weight is None else weight
            assert true[at] == pytest.approx(rows @ (chosen & is_class) / (rows @ is_class))
            assert x[at] == pytest.approx(rows @ (chosen & ~is_class) / (rows @ ~is_class))
        recall, precision, _ = found.precision_recall(label)
        mean = np.diff(recall) @ precision[1:]
        assert mean == pytest.approx(average.value[i], rel=1e-12)
        calibrated = found.calibration(label, n_bins=5)
        observed, expected = [], []
        for low in np.arange(5) / 5:
            chosen = (score >= low) & (score < low + 0.2)
            if chosen.any():
                rows = np.ones(703) if weight is None else weight
                observed.append(np.average(is_class[chosen], weights=rows[chosen]))
                expected.append(np.average(score[chosen], weights=rows[chosen]))
        # A bin of scores may lie on both sides of the edge of a bin.
        np.testing.assert_allclose(calibrated.observed, observed, atol=0.01)
        np.testing.assert_allclose(calibrated.predicted, expected, atol=0.01)
    with pytest.raises(ValueError, match="no score of the class 'z'"):
        found.roc("z")


def test_classes_without_rows_have_no_figures_in_place_of_wrong_ones():
    case = make_case("multinomial", 3)
    fitted = fitted_of(case, ("a", "b", "c"))
    work = MetricSums(fitted, fitted.intercept, detailed=True)
    y = np.zeros_like(case.y)
    found = work.evaluation(stream(Cut(case.source.X, y)).reduce(work))["by_class"]
    assert np.isnan(found.recall[1:]).all()
    assert np.isfinite(found.recall[0])
    assert np.isnan(found.roc_auc.value).all()
    with pytest.raises(ValueError, match="are of the class 'b', which has no curve"):
        found.roc("b")


@pytest.mark.slow
@given(negatives=counts, positives=counts, data=st.data())
def test_the_mean_precision_is_within_its_bound_in_any_order_of_ties(negatives, positives, data):
    found = ClassMetrics((0, 1), np.eye(2), np.array([[negatives, positives]]), True)
    value, error = (float(each[0]) for each in found.average_precision)
    if positives.sum() == 0:
        assert np.isnan(value)
        return
    times = np.r_[negatives, positives].astype(int)
    bins = np.repeat(np.r_[:12, :12], times)
    y = np.r_[np.zeros(int(negatives.sum())), np.ones(int(positives.sum()))]
    tied = metrics.average_precision_score(y, bins)
    assert value == pytest.approx(tied)
    order = data.draw(st.permutations(range(len(y))))
    broken = metrics.average_precision_score(y, bins + np.array(order) / (2 * len(y)))
    assert abs(broken - value) <= error + 1e-12


def test_a_thousand_classes_are_counted_and_more_are_not():
    for n, is_counted in ((1_000, True), (1_001, False)):
        fitted = Fitted(
            LogisticModel(), LinearPredictor(np.zeros((n, 1)), np.zeros(n)), tuple(range(n))
        )
        work = MetricSums(fitted, np.zeros(1), detailed=True)
        found = work.evaluation(stream(Cut(np.ones((3, 1)), np.ones((3, 1)))).reduce(work))
        assert ("by_class" in found) is is_counted
        assert found["accuracy"] == 0.0
