"""Partial dependence against scikit-learn's, on data in memory and in stores."""

import json
from typing import Any

import numpy as np
import pytest
import zarr
from sklearn.inspection import partial_dependence as in_memory
from typer.testing import CliRunner

import ooc_train
from ooc_train import cli, partial_dependence
from ooc_train.explanation import row_sample
from ooc_train.explanation.dependence import DependenceSums
from ooc_train.plotting import plots
from tests.streams import Cut, Shuffled, same_bits, stream, write_store
from tests.test_held import SMALL, held_by
from tests.test_importance import CASES, data


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("case", CASES)
def test_averages_are_those_of_scikit_learn(case):
    made, target = CASES[case]
    X, z, _ = data()
    y = target(z)
    model = made.fit(X, y)
    grids = {"feature 0": [-1.0, 0.0, 2.5], "feature 3": [1.0, 3.0]}
    found = partial_dependence(model, X, [0, 3], values=grids)
    assert found.names == ("feature 0", "feature 3")
    for column, name, averages in zip((0, 3), found.names, found.averages, strict=True):
        grid = np.array(grids[name])
        if "r2 of two" in case:
            rows = [np.where(np.arange(4) == column, value, X) for value in grid]
            due = np.array([model.predict(each).mean(axis=0) for each in rows])
        else:
            kinds = {"method": "brute", "custom_values": {column: grid}}
            due = in_memory(model, X, [column], **kinds)["average"].T
        np.testing.assert_allclose(averages[:, -due.shape[1] :], due, rtol=1e-9)
    if "accuracy" in case or "classes" in case:
        np.testing.assert_allclose(found.averages[0].sum(axis=1), 1.0)
        assert len(found.outputs) == len(model.classes_)


def test_values_are_those_of_the_data_or_between_their_quantiles(tmp_path, monkeypatch):
    X, z, _ = data(3000)
    X[:, 1] = np.round(X[:, 1])
    store = write_store(tmp_path / "a.zarr", X, z, chunk_rows=50, shard_chunks=4)
    model = ooc_train.Ridge().fit(store)
    found = partial_dependence(model, store, [0, 1], grid_resolution=12)
    low, high = np.quantile(X[:, 0], [0.05, 0.95])
    np.testing.assert_allclose(found.values[0], np.linspace(low, high, 12))
    assert list(found.values[1]) == np.unique(X[:, 1]).tolist()
    # A line, of the slope of the coefficient.
    np.testing.assert_allclose(
        np.diff(found.averages[0][:, 0]) / np.diff(found.values[0]), model.coef_[0]
    )
    monkeypatch.setattr(row_sample, "_ROWS", 1024)
    again = partial_dependence(model, store, 0, grid_resolution=12)
    np.testing.assert_allclose(again.values[0], found.values[0], atol=0.3)
    assert again.n_rows == 3000


def test_cutting_the_rows_changes_no_bit():
    X, z, _ = data(300)
    model = ooc_train.MLPRegressor(hidden_layer_sizes=(5,), max_iter=1, tol=0).fit(X, z)
    work = DependenceSums(
        model.to_fitted().bare(),
        (slice(1, 2), np.array([0, 3])),
        (np.array([[0.0], [2.0]]), np.eye(2)),
    )
    source = Cut(X, None, None)
    sums = stream(source).reduce(work)
    assert same_bits(sums, stream(source, task_groups=1, executor=Shuffled(3)).reduce(work))
    changed = X.copy()
    changed[:, [0, 3]] = [0, 1]
    due = model.predict(changed).mean()
    assert work.averages(sums)[1][1, 0] == pytest.approx(due, rel=1e-9)


@pytest.mark.slow
def test_categories_are_set_one_at_a_time(flights):
    model = ooc_train.LogisticRegression(max_iter=3, tol=1e-2).fit(flights[0])
    found = partial_dependence(model, flights[1], ["origin", "dep_delay"], grid_resolution=3)
    assert found.values[0] == ("EWR", "JFK", "LGA")
    assert found.outputs == ("False", "True")
    names = list(ooc_train.open_store(flights[1]).feature_names or ())
    places = [names.index(f"origin={name}") for name in found.values[0]]
    rows: Any = zarr.open_array(f"{flights[1]}/X", mode="r")[:]
    rows[:, places] = [0, 1, 0]
    assert found.averages[0][1, 1] == pytest.approx(
        model.predict_proba(rows)[:, 1].mean(), rel=1e-6
    )
    # A later departure makes a late arrival more likely.
    assert (np.diff(found.averages[1][:, 1]) > 0).all()
    axes = found.plot("origin")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["EWR", "JFK", "LGA"]
    assert found.frame.loc[("origin", "JFK"), "True"] == found.averages[0][1, 1]
    with pytest.raises(ValueError, match="has categories, and values are of numbers"):
        partial_dependence(model, flights[1], "origin", values={"origin": [1.0]})


def test_averages_hold_no_more_than_their_terms():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 300))
    model = ooc_train.MLPRegressor(hidden_layer_sizes=(300,), max_iter=1, tol=0).fit(X, X[:, 0])
    found, peak = held_by(lambda: partial_dependence(model, X, [0, 1], grid_resolution=5))
    counted = sum(found.memory.terms.values()) - found.memory.terms["headroom"]
    assert peak <= counted + SMALL


def test_what_cannot_be_averaged_is_refused():
    X, z, _ = data()
    model = ooc_train.Ridge().fit(X, z)
    with pytest.raises(ValueError, match="grid_resolution=1"):
        partial_dependence(model, X, 0, grid_resolution=1)
    bad: list[Any] = [{"other": [1.0]}, {"feature 0": []}, {"feature 0": [np.nan]}]
    for values in bad:
        with pytest.raises(ValueError, match="give one or more finite numbers"):
            partial_dependence(model, X, 0, values=values)
    found = partial_dependence(model, X, 0)
    with pytest.raises(ValueError, match="there is no column 'a'"):
        found.plot("a")
    assert "<table>" in found._repr_html_()
    assert repr(found) == "<PartialDependence: 'feature 0', 900 rows>"
    assert str(found).count("\n") == 20
    json.dumps(found.to_json())
    lines: list[Any] = list(plots.dependence(found).lines)
    np.testing.assert_allclose(lines[-1].get_ydata(), found.averages[0][:, 0])


@pytest.mark.slow
def test_the_command_shows_curves(tmp_path):
    X, z, _ = data()
    store = write_store(tmp_path / "a.zarr", X, z, feature_names=("a", "<b>", "c", "d"))
    ooc_train.Ridge().fit(store).save(tmp_path / "a.run")
    html = tmp_path / "a.html"
    arguments = [
        "explain", tmp_path / "a.run", store.path, "--repeats", 1, "--dependence", "<b>",
        "--html", html, "--quiet", "--workers", 1, "--json",
    ]  # fmt: skip
    done = CliRunner().invoke(cli.app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["dependence"]
    assert len(found["<b>"]["averages"]) == 20
    assert html.read_text().count("<svg") == 2
