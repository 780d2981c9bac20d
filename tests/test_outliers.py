"""A finite value that a fit fails by is named, with row and column, however the fit failed."""

import dask.array
import numpy as np
import pytest
import zarr

from ooc_train import RidgeModel, StoreWriter, Training, train
from ooc_train.errors import Diverged, NonFiniteData
from ooc_train.estimators.classification import LogisticRegression
from ooc_train.estimators.regression import LinearRegression, Ridge
from ooc_train.runtime import clients

ROWS, ROW, COLUMN = 400, 57, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 4))
VALUES = X @ [1.0, 2.0, -1.0, 0.5] + RNG.normal(size=ROWS)
LABELS = (VALUES > 0).astype(int)


@pytest.fixture(autouse=True)
def _inline(monkeypatch):
    monkeypatch.setattr(clients, "inside_another_job", lambda: True)


def with_value(value):
    bad = X.copy()
    bad[ROW, COLUMN] = value
    return bad


def ways(path, rows, y):
    """The same rows in memory, in blocks, and in a store."""
    group = zarr.create_group(path)
    for name, values in (("X", rows), ("y", y)):
        group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=(90, *values.shape[1:])
        )[...] = values
    return (rows, y), (dask.array.from_array(rows, chunks=((90, 0, 7, 303), 4)), y), (path,)


FAILING = {
    "gram": LinearRegression(),
    "least squares by lbfgs": Ridge(solver="lbfgs"),
    "newton": LogisticRegression(),
    "lbfgs": LogisticRegression(solver="lbfgs"),
    "standardized": LogisticRegression(standardize=True),
    "all rows by sgd": LogisticRegression(solver="sgd"),
    "batches": Ridge(batch_size=16, random_state=0),
    "one row": LogisticRegression(batch_size=1, random_state=0),
    "adam": Ridge(solver="adam", batch_size=16, random_state=0),
}


@pytest.mark.slow
@pytest.mark.parametrize("value", [1e300, -1e308])
@pytest.mark.parametrize("name", FAILING)
def test_a_value_whose_square_overflows_is_named(tmp_path, name, value):
    model = FAILING[name]
    y = LABELS if isinstance(model, LogisticRegression) else VALUES
    for data in ways(tmp_path / "a.zarr", with_value(value), y):
        with pytest.raises(NonFiniteData) as caught:
            model.fit(*data)
        assert str(caught.value) == (
            f"row 57 has {value:g} in column 2 of X, whose square no float64 holds; drop or "
            "correct such rows first"
        )


def test_it_is_named_where_learning_goes_block_by_block():
    model = Ridge(batch_size=16).partial_fit(X, VALUES)
    for again in (Ridge(batch_size=16), model):
        with pytest.raises(NonFiniteData, match=r"^row 57 has 1e\+300 in column 2 of X"):
            again.partial_fit(with_value(1e300), VALUES)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_value_that_a_step_suits_not_is_named_and_no_other_row(batch_size):
    model = Ridge(batch_size=batch_size, learning_rate=0.1, random_state=0)
    with pytest.raises(Diverged) as caught:
        model.fit(with_value(1e30), VALUES)
    assert str(caught.value) == (
        "row 57 has 1e+30 in column 2 of X, 1e+30 times as much as usual in its column, and no "
        "step suits both; drop or correct such rows first"
    )


@pytest.mark.parametrize("batch_size", [1, 16])
def test_the_automatic_rate_suits_a_value_that_has_its_column_for_itself(batch_size):
    best = Ridge().fit(with_value(1e30), VALUES).report_.loss
    by_batches = Ridge(batch_size=batch_size, random_state=0).fit(with_value(1e30), VALUES)
    assert by_batches.report_.loss == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("model", [Ridge(solver="lbfgs"), Ridge(batch_size=16, random_state=0)])
def test_a_huge_outcome_is_named(model):
    y = VALUES.copy()
    y[ROW] = 1e300
    with pytest.raises(NonFiniteData, match=r"^row 57 has 1e\+300 in y, whose square"):
        model.fit(X, y)


def test_a_learning_rate_that_is_too_large_is_still_reported():
    rows = X.copy()
    rows[:, 3] = 0.0
    rows[5, 3] = 1.0  # a rare category is no outlier
    rows[:, 0] = RNG.standard_cauchy(ROWS)  # nor is a heavy tail
    with pytest.raises(Diverged, match="the learning rate of 1e"):
        Ridge(batch_size=16, learning_rate=1e9, random_state=0).fit(rows, VALUES)


def test_nothing_is_looked_for_where_nothing_failed(monkeypatch):
    monkeypatch.setattr("ooc_train.stream.outliers._Search", None)
    assert Ridge().fit(with_value(1e30), VALUES).coef_[COLUMN] == pytest.approx(0, abs=1e-20)


@pytest.fixture(scope="module")
def with_unseen_rows(tmp_path_factory):
    """A store with twenty rows 300 times as large as others, where the sample has no rows."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200_000, 3))
    y = X @ [1.0, -1.0, 0.5] + rng.normal(size=len(X))
    large = slice(150_100, 150_120)
    X[large] *= 300.0
    y[large] = X[large] @ [1.0, -1.0, 0.5]
    path = tmp_path_factory.mktemp("unseen") / "a.zarr"
    with StoreWriter(path, n_features=3, chunk_rows=512, dtype="float64") as writer:
        writer.write(X, y)
        return writer.commit()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not converged")
@pytest.mark.parametrize("batch_size", [1, 16, 256, "exp:16..256"])
@pytest.mark.parametrize("solver", ["sgd", "momentum"])
def test_rows_that_the_sample_misses_lower_the_rate(with_unseen_rows, batch_size, solver):
    training = Training(solver=solver, batch_size=batch_size, max_iter=5, tol=0.0, random_state=0)
    fitted, report = train(RidgeModel(alpha=1.0), with_unseen_rows, training)
    off = np.append(fitted.coef[0] - [1.0, -1.0, 0.5], fitted.intercept)
    # The noise alone has a loss of 0.5. Each batch size of a schedule has a rate of its own.
    assert 0.5 * float(off @ off) < (0.05 if isinstance(batch_size, str) else 0.005)
    (note,) = [note for note in report.notes if "is too large for some rows" in note]
    assert "learning goes on from the model of iteration" in note
    assert report.n_iter == 5


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 16])
def test_partial_fit_lowers_its_rate_and_keeps_it(with_unseen_rows, batch_size):
    """Also where the model so far is good, and the rows grow without end in the second call."""
    found = []
    for before in (0, 1, 1):
        model = Ridge(alpha=1.0, batch_size=batch_size)
        for _ in range(before):
            model.partial_fit(X[:, :3], X[:, :3] @ [1.0, -1.0, 0.5])
            assert not model.report_.notes
        first = model.partial_fit(with_unseen_rows).report_
        (note,) = first.notes
        assert "is too large for some rows: they are learned from again at" in note
        off = np.append(model.coef_ - [1.0, -1.0, 0.5], model.intercept_)
        assert 0.5 * float(off @ off) < 0.05
        later = model.partial_fit(X[:, :3], X[:, :3] @ [1.0, -1.0, 0.5]).report_
        assert not later.notes
        assert later.learning_rate <= 4.0 * first.learning_rate
        found.append(model.coef_)
    np.testing.assert_array_equal(found[1], found[2])


def test_partial_fit_lowers_no_rate_that_was_given(with_unseen_rows):
    model = Ridge(batch_size=16, learning_rate=1e3)
    with pytest.raises(Diverged, match="learning rate of 1e\\+03 is too large"):
        model.partial_fit(with_unseen_rows)


def test_a_rate_that_was_given_is_not_lowered(with_unseen_rows):
    training = Training(batch_size=16, learning_rate=1.0, max_iter=2, random_state=0)
    with pytest.raises(Diverged, match="learning rate of 1 is too large"):
        train(RidgeModel(alpha=1.0), with_unseen_rows, training)
