"""Detailed metrics: of probabilities, of residuals, of groups; and the pages that show them."""

import json
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as due
from sklearn.calibration import CalibrationDisplay
from typer.testing import CliRunner

import ooc_train
from ooc_train import cli, display, evaluate
from ooc_train.errors import CeilingExceeded
from ooc_train.inference import residual_metrics
from ooc_train.inference.class_metrics import ClassMetrics
from ooc_train.inference.group_metrics import GroupedSums
from ooc_train.inference.metrics import MetricSums
from ooc_train.inference.outputs import Outputs
from ooc_train.plotting import plots
from ooc_train.stream.row_groups import RowGroups
from tests.streams import Cut, Shuffled, same_bits, stream, write_store
from tests.test_held import SMALL, held_by


def data(n=1200, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal([0, 1, 50], size=(n, 3))
    z = X @ [1.0, -0.5, 0.0] + rng.normal(size=n)
    return X, z, rng.integers(1, 4, n).astype(float)


def classifier(n_classes):
    X, z, weight = data()
    cuts = np.quantile(z, np.linspace(0, 1, n_classes + 1)[1:-1])
    y = np.digitize(z, cuts)
    model = ooc_train.LogisticRegression(C=0.1).fit(X, y, weight)
    return model, X, y, weight


@pytest.mark.parametrize("n_classes", [2, 4])
def test_probabilities_are_scored_as_by_scikit_learn(n_classes):
    model, X, y, weight = classifier(n_classes)
    found, _ = evaluate(model, X, y=y, sample_weight=weight)
    p = model.predict_proba(X)
    if n_classes == 2:
        brier = due.brier_score_loss(y, p[:, 1], sample_weight=weight)
    else:
        brier = np.average(((p - np.eye(4)[y]) ** 2).sum(axis=1), weights=weight)
        for k in range(1, 4):
            top = due.top_k_accuracy_score(y, p, k=k, sample_weight=weight)
            assert found["by_class"].top_k(k) == pytest.approx(top, rel=1e-12)
    assert found["brier"] == pytest.approx(brier, rel=1e-12)
    largest, right = p.max(axis=1), p.argmax(axis=1) == y
    for n_bins in (10, 15):
        error = 0.0
        for low in np.arange(n_bins) / n_bins:
            rows = (largest >= low) & (largest < low + 1 / n_bins)
            if rows.any():
                gap = np.average(right[rows], weights=weight[rows])
                gap -= np.average(largest[rows], weights=weight[rows])
                error += abs(gap) * weight[rows].sum() / weight.sum()
        value = found["by_class"].calibration_error(n_bins=n_bins)
        assert value == pytest.approx(error, rel=1e-9)
    assert found["ece"] == pytest.approx(found["by_class"].calibration_error())
    assert found["by_class"].top_k(1) == pytest.approx(found["accuracy"])
    assert found["by_class"].top_k(n_classes) == 1.0


@pytest.mark.parametrize(("n_classes", "label"), [(2, None), (3, 1)])
def test_displays_are_those_of_scikit_learn(n_classes, label):
    model, X, y, _ = classifier(n_classes)
    by_class = evaluate(model, X, y=y)[0]["by_class"]
    k = n_classes - 1 if label is None else label
    p = model.predict_proba(X)[:, k]
    own, bins = y == k, by_class.histogram.shape[-1]
    p = (np.minimum(np.floor(p * bins), bins - 1) + 0.5) / bins  # ties by bins
    ours = display(by_class, "roc", label)
    expected = due.RocCurveDisplay.from_predictions(own, p, drop_intermediate=False)
    assert ours.fpr == pytest.approx(expected.fpr, abs=1e-12)
    assert ours.tpr == pytest.approx(expected.tpr, abs=1e-12)
    assert ours.roc_auc == pytest.approx(expected.roc_auc, rel=1e-9)
    expected = due.PrecisionRecallDisplay.from_predictions(own, p)
    ours = display(by_class, "precision_recall", label)
    assert ours.precision == pytest.approx(expected.precision, abs=1e-12)
    assert ours.recall == pytest.approx(expected.recall, abs=1e-12)
    assert ours.average_precision == pytest.approx(expected.average_precision, rel=1e-9)
    assert ours.prevalence_pos_label == pytest.approx(own.mean())
    expected = CalibrationDisplay.from_predictions(own, p, n_bins=10)
    ours = display(by_class, "calibration", label)
    assert ours.prob_true == pytest.approx(expected.prob_true, abs=1e-12)
    assert ours.prob_pred == pytest.approx(expected.prob_pred, abs=1e-4)
    ours = display(by_class, "confusion")
    assert (ours.confusion_matrix == due.confusion_matrix(y, model.predict(X))).all()
    assert ours.confusion_matrix.dtype == np.int64
    for kind in ("roc", "precision_recall", "calibration", "confusion"):
        assert display(by_class, kind).plot().figure_ is not None
    plt.close("all")
    with pytest.raises(ValueError, match="kind='lift' is none of 'roc'"):
        display(by_class, "lift")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no score of the class 9"):
        display(by_class, "roc", 9)
    with pytest.raises(ValueError, match="leave label out"):
        display(by_class, "confusion", 1)


def test_ranks_agree_with_the_predicted_class_in_ties():
    z = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    outputs = Outputs(classifier(4)[0].to_fitted().loss, 3, (0, 1, 2))
    for codes in np.array([[0, 0, 0], [1, 1, 1], [2, 2, 2], [0, 1, 0]]):
        ranks = outputs.ranks(z, codes)
        np.testing.assert_array_equal(ranks == 0, outputs.codes(z) == codes)
    assert outputs.ranks(z, np.array([1, 2, 2])).tolist() == [1, 1, 2]


def by_class_of(negatives, positives):
    histogram = np.array([[negatives, positives]], float)
    return ClassMetrics((0, 1), np.eye(2), histogram, has_probabilities=True)


def test_lift_and_thresholds_of_a_histogram():
    found = by_class_of([4, 3, 0, 1], [0, 1, 1, 2])
    x, y, threshold = found.lift()
    np.testing.assert_allclose(x, [3 / 12, 4 / 12, 8 / 12, 1])
    np.testing.assert_allclose(y, [2, 9 / 4, 4 / 8 * 3, 1])
    np.testing.assert_allclose(threshold, [0.75, 0.5, 0.25, 0])
    assert found.threshold(precision=0.7) == 0.5
    assert found.threshold(precision=0.5) == 0.25
    assert found.threshold(precision=0.0) == 0.0
    # Missing a positive costs as much as ten negatives: all of them are wanted.
    assert found.threshold(costs=(1.0, 10.0)) == 0.25
    assert found.threshold(costs=(10.0, 1.0)) == np.inf
    for bad in ({}, {"precision": 0.5, "costs": (1.0, 1.0)}):
        with pytest.raises(ValueError, match="precision=, or by costs"):
            found.threshold(**bad)
    with pytest.raises(ValueError, match="no threshold has the precision"):
        found.threshold(precision=0.9)
    with pytest.raises(ValueError, match="not from 1 to 2"):
        found.top_k(1)
    with pytest.raises(ValueError, match="no probabilities"):
        found.calibration_error()
    lines: list[Any] = list(plots.lift(found).lines)
    np.testing.assert_allclose(lines[1].get_ydata(), y)


@given(
    st.lists(st.floats(-1e25, 1e25, allow_subnormal=False), min_size=1, max_size=40),
    st.sampled_from([residual_metrics._FINE, residual_metrics._COARSE]),
)
def test_each_number_is_in_its_bin(values, parts):
    numbers = np.array(values)
    bins = residual_metrics._bins(numbers, parts)
    assert (np.diff(bins[np.argsort(numbers)]) >= 0).all()
    assert bins.min() >= 0
    assert bins.max() < residual_metrics._n_bins(parts)
    edges, middle = residual_metrics._edges(parts), residual_metrics._sized(parts)
    for number, place in zip(numbers, bins, strict=True):
        size = abs(int(place) - middle)
        if size:
            assert edges[size - 1] <= abs(number) <= edges[size]
        else:
            assert abs(number) <= edges[0]


@pytest.mark.parametrize("outputs", [1, 2])
def test_residuals_are_those_of_all_rows_at_once(outputs):
    X, z, weight = data()
    y = np.column_stack([z, z**3])[:, :outputs]
    model = ooc_train.Ridge().fit(X, y, weight)
    found, _ = evaluate(model, X, y=y, sample_weight=weight)
    residuals = found["residuals"]
    p = model.predict(X).reshape(y.shape)
    assert found["mae"] == pytest.approx(
        due.mean_absolute_error(y, p, sample_weight=weight), rel=1e-12
    )
    for k in range(outputs):
        for q in (0.0, 0.01, 0.3, 0.5, 0.9, 1.0):
            exact = np.quantile(y[:, k] - p[:, k], q, method="inverted_cdf", weights=weight)
            value, error = residuals.quantile(q, k)
            assert abs(value - exact) <= error * (1 + 1e-9)
            assert error <= abs(value) / 100
        predicted, observed, rows = residuals.by_prediction(k)
        assert rows.sum() == pytest.approx(weight.sum())
        assert (np.diff(predicted) > 0).all()
        assert rows @ predicted == pytest.approx(weight @ p[:, k])
        assert rows @ observed == pytest.approx(weight @ y[:, k])
        limits = np.linspace(-2, 2, 5)
        shares, _ = np.histogram(y[:, k] - p[:, k], limits, weights=weight / weight.sum())
        np.testing.assert_allclose(residuals.shares(limits, k), shares, atol=0.02)
    with pytest.raises(ValueError, match="q=2"):
        residuals.quantile(2)
    with pytest.raises(ValueError, match="kind='other'"):
        residuals.plot("other")
    assert "mean absolute error" in residuals.plot().get_title(loc="left")
    axes = residuals.plot("predicted")
    assert axes.get_ylabel() == "mean of y"
    dots = axes.collections[0]
    assert 2 < len(dots.get_offsets()) <= 30
    x, y_mean = np.asarray(dots.get_offsets()).T
    assert (np.diff(x) > 0).all()
    assert y_mean.min() >= y[:, 0].min()
    assert y_mean.max() <= y[:, 0].max()
    assert "<table>" in residuals._repr_html_()
    assert repr(residuals).startswith("<ResidualMetrics: mean absolute error 0.")
    json.dumps(residuals.to_json())


def test_residuals_without_bins():
    sums = residual_metrics.residual_zeros(1)
    sums["weight"] = np.array(3.0)
    y, zero = np.array([[1e30], [0.0], [-1e30]]), np.zeros((3, 1))
    residual_metrics.add_residuals(sums, y, zero, np.zeros(1), np.ones(3))
    found = residual_metrics.ResidualMetrics.of(sums)
    assert found.quantile(0.5).value == 0.0
    assert [found.quantile(q).error for q in (0.0, 1.0)] == [np.inf, np.inf]
    empty = residual_metrics.ResidualMetrics.of(residual_metrics.residual_zeros(1) | sums)
    empty.histogram[...] = 0.0
    with pytest.raises(ValueError, match="no row has a weight"):
        empty.quantile(0.5)


@pytest.mark.parametrize("kind", ["classes", "regression", "counts"])
def test_a_group_has_the_metrics_of_its_rows_alone(kind):
    X, z, weight = data()
    group = np.arange(len(X)) * 7 % 5
    if kind == "classes":
        model, X, y, weight = classifier(4)
    elif kind == "regression":
        y = z
        model = ooc_train.Ridge().fit(X, y, weight)
    else:
        y = np.round(np.exp(z / 2))
        model = ooc_train.PoissonRegressor().fit(X, y, weight)
    found, _ = evaluate(model, X, y=y, sample_weight=weight, by=group.astype(str))
    whole, _ = evaluate(model, X, y=y, sample_weight=weight)
    by_group = found.pop("by_group")
    tables = {"by_class", "residuals"}
    assert {name: found[name] for name in found.keys() - tables} == {
        name: whole[name] for name in whole.keys() - tables
    }
    assert list(by_group.metrics) == ["0", "1", "2", "3", "4"]
    for k in range(5):
        rows = group == k
        alone, _ = evaluate(model, X[rows], y=y[rows], sample_weight=weight[rows])
        for name, value in by_group[str(k)].items():
            if name not in tables:
                assert value == pytest.approx(alone[name], rel=1e-9), name
    frame = by_group.frame
    assert list(frame.index) == list("01234")
    assert frame["n_rows"].sum() == len(X)
    assert by_group.head[0] == "group"
    assert str(by_group).count("\n") == len(by_group) == 5
    assert "<table>" in by_group._repr_html_()
    assert repr(by_group) == "<GroupMetrics: 5 groups>"
    assert [each["group"] for each in by_group.to_json()] == list("01234")


def test_groups_by_any_cut_have_the_same_bits_and_rows_without_weight_none():
    model, X, y, weight = classifier(4)
    group = np.arange(len(X)) % 3
    weight = np.where(group == 1, 0.0, weight)
    work = GroupedSums(
        MetricSums(model.to_fitted().bare(), np.zeros(4), detailed=True),
        RowGroups(np.arange(3), codes=group),
    )
    source = Cut(X, y[:, None].astype(float), weight)
    sums = stream(source).reduce(work)
    assert same_bits(sums, stream(source, task_groups=1, executor=Shuffled(3)).reduce(work))
    found = work.evaluation(sums)["by_group"]
    assert found[1] == {"n_rows": 400}
    assert found.rows()[1] == ("1", "400", *[""] * (len(found.names) - 1))
    for name in ("rows", "weight", "hits", "confusion"):
        np.testing.assert_allclose(sums["group " + name].sum(axis=0), sums[name])


def test_groups_of_a_store_by_a_column(tmp_path):
    X, z, weight = data()
    X[:, 2] = np.arange(len(X)) % 4
    store = write_store(tmp_path / "a.zarr", X, z, weight, feature_names=("a", "b", "c"))
    model = ooc_train.Ridge().fit(store)
    found, memory = evaluate(model, store, by="c")
    exact, _ = evaluate(model, X, y=z, sample_weight=weight, by=X[:, 2])
    np.testing.assert_allclose(found["by_group"].frame, exact["by_group"].frame, rtol=1e-9)
    assert memory.measured <= memory.projected <= memory.ceiling
    with pytest.raises(ValueError, match="1,001 groups or more, and the most is 1,000"):
        evaluate(model, store, by="a")


def test_a_raw_column_that_became_several_is_told_of(tmp_path):
    table = {"city": ["Rome", "Oslo"] * 50, "late": [0, 1] * 50}
    pd.DataFrame(table).to_csv(tmp_path / "a.csv", index=False)
    made = ooc_train.ingest(
        tmp_path / "a.csv", tmp_path / "a.zarr", target="late", categorical=["city"]
    )
    model = ooc_train.LogisticRegression().fit(made.store)
    with pytest.raises(ValueError, match=r"a column for each of its values.* as 'city=Oslo'"):
        evaluate(model, made.store, by="city")
    model.save(tmp_path / "a.run")
    told = CliRunner().invoke(
        cli.app, ["evaluate", *(str(tmp_path / name) for name in ("a.run", "a.csv")), "--by=city"]
    )
    assert told.stderr.endswith("--by city=Oslo\n")


def test_groups_hold_no_more_than_their_terms():
    model, X, y, _ = classifier(4)
    group = np.arange(len(X)) % 100
    (found, memory), peak = held_by(lambda: evaluate(model, X, y=y, by=group))
    assert peak <= sum(memory.terms.values()) - memory.terms["headroom"] + SMALL
    assert len(found["by_group"]) == 100
    with pytest.raises(CeilingExceeded):
        evaluate(model, X, y=y, by=group, memory_ceiling="30MiB")


@pytest.mark.slow
def test_the_command_shows_groups_and_writes_a_page(tmp_path):
    X, z, _ = data()
    X[:, 2] = np.arange(len(X)) % 4
    names = ("a", "b", "<c>")
    for kind in ("classes", "regression"):
        y = np.digitize(z, [-1, 0, 1]) if kind == "classes" else z
        store = write_store(tmp_path / f"{kind}.zarr", X, y, feature_names=names)
        made = ooc_train.LogisticRegression() if kind == "classes" else ooc_train.Ridge()
        run = tmp_path / f"{kind}.run"
        made.fit(store).save(run)
        page, plot = tmp_path / f"{kind}.html", tmp_path / f"{kind}.png"
        arguments = ["evaluate", run, store.path, "--by", "<c>", "--report", page, "--plot", plot]
        arguments += ["--top-k", 2] if kind == "classes" else []
        arguments = [*map(str, arguments), "--quiet", "--workers", "1"]
        done = CliRunner().invoke(cli.app, arguments)
        assert done.exit_code == 0, done.output
        assert "\ngroup " in done.stdout
        assert f"saved in {page}" in done.stdout
        expected = "top_2_accuracy" if kind == "classes" else "quantiles of residuals: 1% "
        assert expected in done.stdout
        text = page.read_text()
        assert text.count("<svg") == (5 if kind == "classes" else 2)
        assert "<h2>Groups</h2>" in text or "<h2>Groups: " in text
        assert plot.read_bytes().startswith(b"\x89PNG")
        if kind == "regression":
            found = json.loads(
                CliRunner().invoke(cli.app, [*arguments, "--overwrite", "--json"]).stdout
            )
            assert set(found) == {
                "n_rows", "loss", "r2", "mse", "mae", "residuals", "by_group", "plot", "report",
                "memory",
            }  # fmt: skip
            assert len(found["by_group"]) == 4
    done = CliRunner().invoke(cli.app, [*arguments, "--overwrite", "--top-k", "2"])
    assert done.exit_code == 1
    assert "--top-k 2 needs as many classes" in done.output
