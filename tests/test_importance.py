"""Permutation importance against scikit-learn's, and against predictions one by one."""

import json
from typing import Any

import numpy as np
import pytest
from sklearn.inspection import permutation_importance as in_memory
from typer.testing import CliRunner

import ooc_train
from ooc_train import cli
from ooc_train.explanation import row_sample
from ooc_train.explanation.importance import permutation_importance
from ooc_train.explanation.importance_sums import ImportanceSums
from ooc_train.explanation.raw_columns import raw_columns
from ooc_train.explanation.row_sample import RowSample
from ooc_train.inference.metrics import PIECE_ROWS, MetricSums
from ooc_train.plotting import plots
from ooc_train.stream.inputs import read_inputs
from tests.streams import Cut, Shuffled, same_bits, stream, write_store
from tests.test_held import SMALL, held_by


def data(n=900, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal([0, 1, 0, 3], size=(n, 4))
    z = X @ [1.0, -0.5, 0.2, 0.0] + rng.normal(size=n)
    return X, z, rng.integers(1, 4, n).astype(float)


def network(**settings):
    return {"hidden_layer_sizes": (5,), "max_iter": 5, "random_state": 0, **settings}


CASES = {
    "accuracy": (ooc_train.LogisticRegression(), lambda z: (z > 0).astype(int)),
    "accuracy of three": (ooc_train.LogisticRegression(), lambda z: np.digitize(z, [-1, 1])),
    "r2": (ooc_train.Ridge(), lambda z: z),
    "r2 of two": (ooc_train.Ridge(), lambda z: np.column_stack([z, z**2])),
    "d2": (ooc_train.PoissonRegressor(alpha=0), lambda z: np.round(np.exp(z / 2))),
    "network": (ooc_train.MLPRegressor(**network()), lambda z: z),
    "network of classes": (ooc_train.MLPClassifier(**network()), lambda z: np.digitize(z, [-1, 1])),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("case", CASES)
def test_each_permutation_as_if_all_rows_were_scored_with_it(case):
    made, target = CASES[case]
    X, z, weight = data()
    y = target(z)
    model = made.fit(X, y, weight) if "network" not in case else made.fit(X, y)
    inputs = read_inputs(
        X, y, weight, classifier="accuracy" in case or "classes" in case,
        classes=model.to_fitted().classes,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    order, shifts = rng.permutation(len(X)), rng.integers(0, len(X), (2, 3))
    columns = (slice(0, 1), slice(1, 3), np.array([0, 3]))
    pool = np.asfortranarray(X[np.resize(order, len(X) + PIECE_ROWS)])
    work = ImportanceSums(
        MetricSums.of(model.to_fitted().bare(), inputs), columns, pool, len(X), shifts
    )
    rows: Any = inputs.source
    source = Cut(X, rows.y, weight, rows=100)
    sums = stream(source).reduce(work)
    again = stream(source, task_groups=1, executor=Shuffled(2)).reduce(work)
    assert same_bits(sums, again)
    found = work.scores(sums)
    assert found[0] == pytest.approx(model.score(X, y, sample_weight=weight), rel=1e-9)
    for g, places in enumerate(columns):
        for r in range(2):
            changed = X.copy()
            others = order[(np.arange(len(X)) + shifts[r, g]) % len(X)]
            changed[:, places] = X[others][:, places]
            due = model.score(changed, y, sample_weight=weight)
            assert found[1 + 2 * g + r] == pytest.approx(due, rel=1e-9)


@pytest.mark.parametrize("case", ["accuracy", "r2"])
def test_importances_are_those_of_scikit_learn(case):
    made, target = CASES[case]
    X, z, _ = data(4000)
    y = target(z)
    model = made.fit(X, y)
    found = permutation_importance(model, X, y, n_repeats=30)
    due = in_memory(model.to_sklearn(), X, y, n_repeats=30, random_state=0)
    error = np.sqrt((found.importances_std**2 + due.importances_std**2) / 30)
    assert (np.abs(found.importances_mean - due.importances_mean) < 5 * error + 1e-12).all()
    ratio = found.importances_std / due.importances_std
    assert 0.5 < ratio.min() < ratio.max() < 2
    assert found.importances.shape == due.importances.shape == (4, 30)
    assert found.pool_rows == found.n_rows == 4000
    # Other seeds draw other permutations, the same seed the same.
    same, other = (permutation_importance(model, X, y, random_state=k) for k in (0, 1))
    np.testing.assert_array_equal(found.loss_increases[:, :1] > -1, True)
    assert same.importances.shape == (4, 5)
    assert not np.array_equal(same.importances, other.importances)
    again = permutation_importance(model, X, y)
    np.testing.assert_array_equal(again.loss_increases, same.loss_increases)


@pytest.mark.slow
def test_the_order_of_the_rows_of_a_store_does_not_matter(tmp_path, monkeypatch):
    X, z, _ = data(6000)
    # Within a chunk, the first column hardly varies.
    order = np.argsort(X[:, 0])
    store = write_store(tmp_path / "a.zarr", X[order], z[order], chunk_rows=50, shard_chunks=4)
    model = ooc_train.Ridge().fit(store)
    due = permutation_importance(model, store, n_repeats=10)
    assert due.pool_rows == 6000
    monkeypatch.setattr(row_sample, "_ROWS", 1024)
    found = permutation_importance(model, store, n_repeats=10)
    assert found.pool_rows == 1024
    np.testing.assert_allclose(found.importances_mean, due.importances_mean, rtol=0.1, atol=1e-3)
    assert "from a sample of 1,024 rows" in str(found)


def test_a_pool_has_each_row_once(monkeypatch):
    X = np.arange(3000.0)[:, None]
    for most, n_partitions in ((5000, 30), (1024, 30), (1024, 3)):
        monkeypatch.setattr(row_sample, "_ROWS", most)
        monkeypatch.setattr(row_sample, "_PARTITIONS", 4)
        source = Cut(X, X, None, rows=3000 // n_partitions)
        n = row_sample.sample_rows(source)
        pool = RowSample.of(source, n).read(stream(source), np.random.default_rng(0), 500)
        assert n == min(most, 3000)
        assert len(np.unique(pool[:n])) == n
        np.testing.assert_array_equal(pool[n:], pool[: len(pool) - n])
        assert pool.flags.f_contiguous
        assert abs(pool[:n].mean() - 1500) < 200


@pytest.mark.slow
def test_features_of_a_raw_column_move_together(flights):
    model = ooc_train.LogisticRegression(max_iter=3, tol=1e-2).fit(flights[0])
    fitted = model.to_fitted()
    known = raw_columns(fitted)
    assert list(known) == [
        "dep_delay", "month", "day", "weekday", "sched_dep_time", "distance", "carrier", "origin",
        "dest",
    ]  # fmt: skip
    assert known["month"] == slice(1, 13)
    places = np.concatenate([np.arange(146)[each] for each in known.values()])
    assert places.tolist() == list(range(146))
    found = permutation_importance(
        model, flights[1], columns=["dep_delay", "carrier", "month=1"], n_repeats=2
    )
    assert found.names == ("dep_delay", "carrier", "month=1")
    assert next(iter(found.frame.index)) == "dep_delay"
    assert found.baseline["accuracy"] == pytest.approx(model.score(flights[1]))
    # The features of a column may lie apart.
    names = fitted.feature_names or ()
    mixed = (*names[::2], *names[1::2])
    apart: Any = raw_columns(fitted.for_columns(mixed, 146, "x"))["month"]
    assert [mixed[i] for i in apart] == [f"month={k}" for k in range(1, 13)]


def test_importances_hold_no_more_than_their_terms():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 300))
    y = X[:, 0] + rng.normal(size=3000)
    for model in (
        ooc_train.Ridge().fit(X, y),
        ooc_train.MLPRegressor(hidden_layer_sizes=(300,), max_iter=1, tol=0).fit(X, y),
    ):
        inputs = read_inputs(X, y, classifier=False)

        def job(model=model, inputs=inputs):
            return permutation_importance(model, inputs, columns=range(3), n_repeats=2)

        found, peak = held_by(job)
        counted = sum(found.memory.terms.values()) - found.memory.terms["headroom"]
        assert peak <= counted + SMALL


def test_columns_that_are_not_there():
    X, z, _ = data()
    model = ooc_train.Ridge().fit(X, z)
    none: list[Any] = [None]
    for columns in (["a"], [4], none, [-1]):
        with pytest.raises(ValueError, match="there is no column"):
            permutation_importance(model, X, z, columns=columns)
    with pytest.raises(ValueError, match="n_repeats=0"):
        permutation_importance(model, X, z, n_repeats=0)
    assert permutation_importance(model, X, z, columns=2).names == ("feature 2",)


def test_importances_show_themselves():
    X, z, _ = data()
    found = permutation_importance(ooc_train.Ridge().fit(X, z), X, z)
    assert list(found.frame.columns)[:2] == ["importance", "importance_std"]
    assert list(found.frame.index) == [found.names[i] for i in found.order]
    assert "5 repeats, values permuted" in str(found)
    assert "<table>" in found._repr_html_()
    assert repr(found) == "<Importance: 4 columns, the first is 'feature 0'>"
    json.dumps(found.to_json())
    axes = plots.importance(found, most=2)
    bars: list[Any] = list(axes.patches)
    widths = [bar.get_width() for bar in bars]
    np.testing.assert_allclose(widths, found.frame["loss_increase"][:2])
    assert axes.get_title(loc="left") == "Importance: the 2 largest of 4 columns"
    assert found.plot().get_yticklabels()[0].get_text() == "feature 0"


@pytest.mark.slow
def test_the_command_prints_and_writes_what_python_finds(tmp_path):
    X, z, _ = data()
    store = write_store(tmp_path / "a.zarr", X, z, feature_names=("a", "<b>", "c", "d"))
    model = ooc_train.Ridge().fit(store)
    model.save(tmp_path / "a.run")
    due = permutation_importance(model, store, n_repeats=3, random_state=4)
    csv, html, plot = (tmp_path / f"a.{ending}" for ending in ("csv", "html", "svg"))
    arguments = [
        "explain", tmp_path / "a.run", store.path, "--repeats", 3, "--random-state", 4,
        "--csv", csv, "--html", html, "--plot", plot, "--quiet", "--workers", 1,
    ]  # fmt: skip
    done = CliRunner().invoke(cli.app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    np.testing.assert_allclose(found["importances"], due.importances, rtol=1e-9)
    assert csv.read_text().splitlines()[0].startswith("column,importance,importance_std")
    assert "&lt;b&gt;" in html.read_text()
    assert "<svg" in html.read_text()
    assert plot.exists()
    done = CliRunner().invoke(cli.app, [*map(str, arguments), "--overwrite", "--column", "a"])
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.stdout.splitlines()[:3]] == ["column", "a", "900"]
