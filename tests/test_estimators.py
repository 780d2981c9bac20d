import json
import pickle
import tracemalloc
import warnings
from dataclasses import field, make_dataclass
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import sklearn.linear_model
import zarr
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ooc_train import (
    CeilingExceeded,
    ElasticNet,
    InvalidStore,
    Lasso,
    LinearRegression,
    LogisticRegression,
    MLPClassifier,
    MLPRegressor,
    OutputExists,
    PoissonRegressor,
    Report,
    Ridge,
    SGDRegressor,
    StoreWriter,
    TweedieRegressor,
    load,
    open_store,
    train,
)
from ooc_train.core.settings import settings_of
from ooc_train.estimators.estimator import Estimator
from ooc_train.estimators.shared_parameters import ESTIMATORS, SharedParameters, estimator_of
from ooc_train.models.regression_models import RidgeModel
from ooc_train.optimizers.momentum import Momentum
from ooc_train.optimizers.schedules import Cosine
from ooc_train.solvers.training_settings import Training

Array = NDArray[Any]
FEATURES = ("a", "b", "c", "d", "e")


USING_PARTIAL_FIT = (
    "check_fit_score_takes_y",
    "check_n_features_in_after_fitting",
    "check_estimators_partial_fit_n_features",
)


@pytest.mark.slow
@parametrize_with_checks(
    [
        LinearRegression(),
        LinearRegression(positive=True),
        Ridge(),
        Lasso(),
        ElasticNet(),
        LogisticRegression(),
        LogisticRegression(l1_ratio=0.5),
    ],
    expected_failed_checks=lambda estimator: (
        dict.fromkeys(USING_PARTIAL_FIT, "updates do not keep weights from being negative")
        if getattr(estimator, "positive", False)
        else {}
    ),
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


# Batches keep every convention but one: to weigh a row twice is not to draw it twice.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:sgd. not converged")
@parametrize_with_checks(
    [LogisticRegression(batch_size=1, max_iter=50, random_state=0)],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "batches are drawn of other rows"
    },
)
def test_scikit_learns_own_checks_with_batches(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not converged")
@parametrize_with_checks(
    [MLPClassifier((20,), random_state=0), MLPRegressor((20,), random_state=0)]
)
def test_scikit_learns_own_checks_of_networks(estimator, check):
    check(estimator)


def rows(n: int = 3000, n_classes: int = 2) -> tuple[Array, Array]:
    rng = np.random.default_rng(7)
    X = rng.standard_normal((n, len(FEATURES))) * [1, 10, 0.1, 3, 1] + [0, 5, 0, -2, 1]
    scores = X @ rng.standard_normal((len(FEATURES), n_classes)) / 3
    return X, (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three classes with names, in rows that are weighted."""
    X, y = rows(n_classes=3)
    path = str(tmp_path_factory.mktemp("estimators") / "rows.zarr")
    with StoreWriter(
        path,
        n_features=len(FEATURES),
        dtype="float64",
        y_dtype="uint8",
        chunk_rows=256,
        shard_rows=1024,
        feature_names=FEATURES,
        classes=["ash", "beech", "cedar"],
        sample_weight=True,
    ) as writer:
        writer.write(X, y, sample_weight=1.0 + np.arange(len(y)) % 3)
        writer.commit()
    return path


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two outputs to regress on."""
    X, y = rows()
    path = str(tmp_path_factory.mktemp("estimators") / "values.zarr")
    with StoreWriter(path, n_features=len(FEATURES), outputs=2, chunk_rows=256) as writer:
        writer.write(X.astype(np.float32), np.column_stack([X[:, 0], y]))
        writer.commit()
    return path


def read(path: str) -> dict[str, Array]:
    group = zarr.open_group(path, mode="r")
    return {name: np.asarray(array) for name, array in group.arrays()}


# What an estimator declares


class Stub(Estimator):
    pass


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "lacks alpha of RidgeModel"),
        ({"alpha": 2.0}, "has another alpha than RidgeModel"),
        ({"alpha": 1.0, "beta": 1.0}, "has beta, and RidgeModel not"),
        ({"alpha": 1.0, "tol": 1e-6}, "has another tol than RidgeModel"),
        ({"alpha": 1.0, "max_iter": 7}, "has another max_iter than RidgeModel"),
        ({"alpha": 1.0, "batch_size": 1}, "has another batch_size than RidgeModel"),
    ],
)
def test_an_estimator_has_the_settings_of_its_model_and_no_others(fields, said):
    fields = {"positive": False, **fields}
    columns = [(name, type(value), field(default=value)) for name, value in fields.items()]
    cls = make_dataclass("Own", columns, bases=(Stub, SharedParameters), kw_only=True)
    with pytest.raises(TypeError, match=f"Own {said}"):
        estimator_of(RidgeModel)(cls)
    assert ESTIMATORS[RidgeModel] is Ridge


def test_an_estimator_describes_all_of_its_parameters():
    for model, cls in ESTIMATORS.items():
        for name in cls().get_params():
            assert f"\n{name} : " in str(cls.__doc__)
        assert cls().get_params().keys() >= settings_of(model).keys() | settings_of(Training).keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:momentum. not converged")
def test_optimizer_and_schedule_may_be_values(store):
    how: dict[str, Any] = {"solver": Momentum(0.5), "schedule": Cosine(0.2), "batch_size": 64}
    model = clone(LogisticRegression(**how, max_iter=2, random_state=0)).fit(store)
    assert (model.training_.solver, model.training_.schedule) == (Momentum(0.5), Cosine(0.2))
    assert model.report_.solver == "momentum"
    assert model.report_.history[-1].learning_rate < 0.5 * model.report_.learning_rate


# What a fit learns


@pytest.mark.slow
@pytest.mark.parametrize("labels", [["no", "yes"], [-1, 1], [1.0, 2.0], [False, True], "ab"])
def test_labels_may_be_of_any_type(labels):
    X, codes = rows()
    y = np.array(list(labels))[codes]
    model = LogisticRegression().fit(X, y)
    assert model.classes_.dtype == y.dtype
    assert model.classes_.tolist() == list(labels)
    assert set(model.predict(X)) == set(labels)
    expected = sklearn.linear_model.LogisticRegression(tol=1e-8).fit(X, y)
    assert model.score(X, y) == pytest.approx(expected.score(X, y), abs=1e-3)


@pytest.mark.parametrize("labels", [[1.0, 2.0], [1, 2], ["1", "2"]])
def test_class_weights_find_their_labels(labels):
    X, codes = rows()
    y = np.array(labels)[codes]
    weights = {labels[0]: 5.0, labels[1]: 0.5}
    model = LogisticRegression(class_weight=weights, tol=1e-8).fit(X, y)
    by_row = LogisticRegression(tol=1e-8).fit(X, y, np.where(codes == 0, 5.0, 0.5))
    np.testing.assert_allclose(model.coef_, by_row.coef_, rtol=1e-6)


def test_attributes_have_scikit_learns_shapes():
    X, y = rows(n_classes=3)
    many = LogisticRegression().fit(X, y)
    assert (many.coef_.shape, many.intercept_.shape, many.n_iter_.shape) == ((3, 5), (3,), (1,))
    two = LogisticRegression().fit(X, y > 0)
    assert (two.coef_.shape, two.intercept_.shape) == ((1, 5), (1,))
    assert (two.predict_proba(X).shape, two.decision_function(X).shape) == ((3000, 2), (3000,))
    for estimator in (LinearRegression(), Ridge()):
        flat = estimator.fit(X, y)
        assert (flat.coef_.shape, np.shape(flat.intercept_)) == ((5,), ())
        for fit_intercept in (True, False):
            column = estimator.set_params(fit_intercept=fit_intercept).fit(X, y[:, None])
            theirs = getattr(sklearn.linear_model, type(estimator).__name__)(
                fit_intercept=fit_intercept
            ).fit(X, y[:, None])
            for name in ("coef_", "intercept_"):
                assert np.shape(getattr(column, name)) == np.shape(getattr(theirs, name))
            assert column.predict(X).shape == theirs.predict(X).shape
            np.testing.assert_allclose(column.predict(X), theirs.predict(X), rtol=1e-6)
            plain = column.to_sklearn()
            np.testing.assert_allclose(plain.predict(X), theirs.predict(X), rtol=1e-6)


def test_names_of_columns_come_from_frames_and_stores(store):
    X, y = rows()
    frame = pd.DataFrame(X, columns=list(FEATURES))
    assert LogisticRegression().fit(frame, y).feature_names_in_.tolist() == list(FEATURES)
    model = LogisticRegression().fit(store)
    assert model.feature_names_in_.tolist() == list(FEATURES)
    assert model.n_features_in_ == 5
    model.predict(frame)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[frame.columns[::-1]])
    assert not hasattr(model.fit(X, y), "feature_names_in_")


@pytest.mark.slow
def test_a_store_brings_classes_and_weights(store):
    X, y = rows(n_classes=3)
    model = LogisticRegression(tol=1e-8).fit(store)
    assert model.classes_.tolist() == ["ash", "beech", "cedar"]
    names = model.classes_[y]
    in_memory = LogisticRegression(tol=1e-8).fit(X, names, 1.0 + np.arange(len(y)) % 3)
    np.testing.assert_allclose(model.coef_, in_memory.coef_, rtol=1e-6)
    unweighted = LogisticRegression(tol=1e-8).fit(open_store(store, sample_weight=None))
    np.testing.assert_allclose(
        unweighted.coef_, LogisticRegression(tol=1e-8).fit(X, names).coef_, rtol=1e-6
    )
    # A y that is passed apart replaces y and the classes of the store.
    assert model.fit(store, y).classes_.tolist() == [0, 1, 2]
    np.testing.assert_allclose(model.coef_, in_memory.coef_, rtol=1e-6)


@pytest.mark.slow
def test_zarr_and_dask_arrays_are_data_too(values):
    X, y = rows()
    expected = Ridge().fit(values)
    assert expected.coef_.shape == (2, 5)
    np.testing.assert_array_equal(Ridge().fit(zarr.open_group(values)).coef_, expected.coef_)
    chunked = da.from_array(X.astype(np.float32), chunks=(700, 2))
    targets = da.from_array(np.column_stack([X[:, 0], y]), chunks=(500, 1))
    np.testing.assert_allclose(Ridge().fit(chunked, targets).coef_, expected.coef_, atol=1e-8)


def test_the_report_says_what_was_done(store):
    model = LogisticRegression().fit(store)
    assert isinstance(model.report_, Report)
    assert model.report_.passes == model.n_iter_[0] + 1  # the first only looks at the start
    data = read(store)
    expected = log_loss(data["y"], model.predict_proba(store), sample_weight=data["sample_weight"])
    assert model.report_.loss == pytest.approx(expected, rel=1e-6)
    assert model.report_.memory.measured <= model.report_.memory.ceiling


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_random_state_may_be_a_generator(store):
    def coef(random_state: Any) -> Array:
        model = LogisticRegression(batch_size=32, max_iter=2, random_state=random_state)
        found: Array = model.fit(store).coef_
        return found

    np.testing.assert_array_equal(coef(3), coef(3))
    np.testing.assert_array_equal(coef(np.int64(3)), coef(3))
    generators = np.random.RandomState(0), np.random.RandomState(0)
    np.testing.assert_array_equal(coef(generators[0]), coef(generators[1]))
    assert (coef(3) != coef(4)).any()
    # An exact fit draws nothing, and others may draw from the same generator.
    shared, untouched = np.random.RandomState(0), np.random.RandomState(0)
    LogisticRegression(random_state=shared).fit(store)
    assert shared.randint(2**31) == untouched.randint(2**31)


def test_a_fit_that_did_not_converge_warns():
    X, y = rows()
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        LogisticRegression(solver="lbfgs", max_iter=2).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="sgd: not converged: max_iter=1 reached before"):
        LogisticRegression(batch_size=10, max_iter=1).fit(X, y)
    with pytest.warns(
        ConvergenceWarning, match=r"the mean objective can be lowered by [\d.e-]+ at"
    ):
        LogisticRegression(batch_size=10, max_iter=1, learning_rate=1e-6).fit(X, y)
    # Without a tolerance, and near the optimum, there is nothing to warn of.
    assert not LogisticRegression(batch_size=10, max_iter=3, tol=0).fit(X, y).report_.converged


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["newton", "lbfgs", "sgd"])
def test_fits_of_one_step_each_go_on_learning(solver):
    X, y = rows()
    model = LogisticRegression(solver=solver, max_iter=1, tol=1e-6, warm_start=True)
    losses = [np.log(2.0)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(10):
            report = model.fit(X, y).report_
            losses.append(report.loss)
            if report.converged:
                break
            assert (report.n_iter, report.updates) == (1, 1)
            assert report.shortfall.startswith("not converged: max_iter=1 reached")
            assert losses[-1] < losses[-2]
    assert report.converged is (solver == "newton")
    loss, norm = report.history[0].loss, report.history[0].gradient_norm
    assert loss == pytest.approx(losses[-2], rel=1e-9)  # it began where the last one ended
    assert norm < 0.1 * np.abs((y - 0.5) @ (X - X.mean(axis=0)) / X.std(axis=0) / len(X)).max()


def test_a_warm_start_goes_on_from_where_the_last_fit_ended():
    X, y = rows()
    model = LogisticRegression(solver="lbfgs", tol=1e-6, warm_start=True).fit(X, y)
    cold = model.n_iter_
    assert model.fit(X, y).n_iter_ < cold
    assert model.set_params(warm_start=False).fit(X, y).n_iter_ == cold
    with pytest.raises(ValueError, match="start afresh"):
        model.set_params(warm_start=True).fit(X[:, :3], y)


# Settings


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("C", -1.0),
        ("C", 0.0),
        ("C", -np.inf),
        ("C", np.nan),
        ("C", "infinite"),
        ("tol", "small"),
        ("max_iter", 0),
        ("solver", "saga"),
        ("batch_size", 0),
        ("batch_size", "half"),
        ("learning_rate", 0.0),
        ("shuffle_chunks", 0),
        ("replicas", 0),
        ("replicas", 2),
        ("class_weight", "heavy"),
        ("fit_intercept", "maybe"),
        ("standardize", 2),
        ("random_state", "seed"),
        ("memory_ceiling", "much"),
        ("memory_ceiling", 0),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_when_a_fit_begins(setting, value):
    X, y = rows(100)
    model = LogisticRegression(**{setting: value})
    with pytest.raises(ValueError, match=setting if setting != "random_state" else "seed"):
        model.fit(X, y)


def test_an_exact_solver_takes_no_batches():
    X, y = rows(100)
    with pytest.raises(ValueError, match="batch_size"):
        Ridge(solver="gram", batch_size=10).fit(X, y)


def test_arguments_that_are_not_supported_are_absent():
    with pytest.raises(TypeError):
        LogisticRegression(n_jobs=2)
    with pytest.raises(TypeError):
        Ridge(copy_X=True)


def test_a_ceiling_that_cannot_be_kept_is_refused(store):
    with pytest.raises(CeilingExceeded):
        LogisticRegression(memory_ceiling="1KiB").fit(store)


def test_negative_weights_are_refused():
    X, y = rows(100)
    with pytest.raises(ValueError, match="negative"):
        Ridge().fit(X, y, np.full(100, -1.0))


# Predictions


KINDS = {
    "predict": "prediction",
    "predict_proba": "probability",
    "predict_log_proba": "log_probability",
    "decision_function": "decision",
}


@pytest.mark.slow
@pytest.mark.parametrize("method", KINDS)
def test_predictions_are_the_same_for_all_kinds_of_data(store, tmp_path, method):
    X, _ = rows(n_classes=3)
    model = LogisticRegression().fit(open_store(store))
    del model.feature_names_in_
    predict = getattr(model, method)
    expected = predict(X)
    chunked = predict(da.from_array(X, chunks=(700, 2)))
    assert isinstance(chunked, da.Array)
    assert (chunked.shape, chunked.dtype) == (expected.shape, expected.dtype)
    found = [predict(store), predict(open_store(store)), chunked.compute()]
    for values in found:
        assert values.dtype == expected.dtype
        if method == "predict":
            np.testing.assert_array_equal(values, expected)
        else:
            np.testing.assert_allclose(values, expected, rtol=1e-9)
    out = predict(store, out=tmp_path / "out.zarr")
    written = read(out)[KINDS[method]]
    if method == "predict":
        written = model.classes_[written]
    assert (written == expected).mean() == 1 or np.allclose(written, expected, rtol=1e-9)
    way = r"replace it by ooc_train.predict_store\(model, X, out, overwrite=True\)$"
    with pytest.raises(OutputExists, match=way):
        predict(store, out=out)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logarithms_of_probabilities_are_those_and_finite(n_classes, tmp_path):
    X, y = rows(n_classes=n_classes)
    model = LogisticRegression().fit(X, y)
    found = model.predict_log_proba(X)
    np.testing.assert_allclose(np.exp(found), model.predict_proba(X), rtol=1e-12)
    # Where the probability of a class is less than any float64.
    far = model.predict_log_proba(1e5 * X)
    assert np.isfinite(far).all()
    z = np.atleast_2d(model.decision_function(1e5 * X).T).T
    z = np.hstack([np.zeros_like(z), z]) if n_classes == 2 else z
    assert (far.argmax(axis=1) == z.argmax(axis=1)).all()
    np.testing.assert_allclose(np.diff(far), np.diff(z), rtol=1e-9)
    out = model.predict_log_proba(da.from_array(X, chunks=(700, 2)), out=tmp_path / "out.zarr")
    np.testing.assert_allclose(read(out)["log_probability"], found, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_learned_and_predicted_is_float64_for_every_type_of_data(dtype):
    X, y = rows(300)
    X = X.astype(dtype)
    model = LogisticRegression().fit(X, y)
    numbers = model.coef_, model.predict_proba(X), model.predict_log_proba(X)
    assert {np.asarray(values).dtype for values in numbers} == {np.dtype("float64")}
    regression = Ridge().fit(X, y.astype(dtype))
    assert regression.coef_.dtype == regression.predict(X).dtype == np.float64


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:(sgd|adam). not converged")
@pytest.mark.parametrize("solver", ["newton", "lbfgs", "sgd", "adam"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_no_penalty_is_an_infinite_inverse_of_it(solver, n_classes, tmp_path):
    X, y = rows(n_classes=n_classes)
    batches = {"batch_size": 100, "max_iter": 3} if solver in ("sgd", "adam") else {"tol": 1e-8}
    model = LogisticRegression(C=np.inf, solver=solver, random_state=0, **batches).fit(X, y)
    expected = sklearn.linear_model.LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(X, y)
    if "tol" in batches:
        np.testing.assert_allclose(model.predict_proba(X), expected.predict_proba(X), atol=1e-5)
    model.save(tmp_path / "run")
    text = (tmp_path / "run" / "model.json").read_text()
    assert json.loads(text)["model"]["C"] == "inf"  # JSON has no number for it
    found = load(tmp_path / "run")
    assert np.isposinf(found.C)
    np.testing.assert_array_equal(found.predict_proba(X), model.predict_proba(X))
    plain = found.to_sklearn()
    assert np.isposinf(plain.C)
    np.testing.assert_allclose(plain.predict_proba(X), model.predict_proba(X), rtol=1e-9)


def test_regressions_predict_the_same_for_all_kinds_of_data(values):
    X, _ = rows()
    model = Ridge().fit(values)
    expected = model.predict(X.astype(np.float32))
    assert expected.shape == (3000, 2)
    np.testing.assert_allclose(model.predict(values), expected, rtol=1e-9)
    chunked = da.from_array(X.astype(np.float32), chunks=(700, 2))
    np.testing.assert_allclose(model.predict(chunked).compute(), expected, rtol=1e-9)


@pytest.mark.slow
def test_scores_are_the_same_for_all_kinds_of_data(store, values):
    X, y = rows(n_classes=3)
    weight = 1.0 + np.arange(len(y)) % 3
    classifier = LogisticRegression().fit(store)
    del classifier.feature_names_in_
    names = classifier.classes_[y]
    expected = classifier.score(X, names, weight)
    assert classifier.score(store) == pytest.approx(expected)
    chunked = [da.from_array(values, chunks=700) for values in (X, names, weight)]
    assert classifier.score(*chunked) == pytest.approx(expected)
    assert classifier.score(*chunked[:2]) == pytest.approx(classifier.score(X, names))
    # Not every class has to be there.
    some = names != "beech"
    rest = [da.from_array(values[some], chunks=700) for values in (X, names)]
    assert classifier.score(*rest) == pytest.approx(classifier.score(X[some], names[some]))
    regressor = Ridge().fit(values)
    written = read(values)
    expected = regressor.score(written["X"], written["y"])
    assert regressor.score(values) == pytest.approx(expected)
    chunked = [da.from_array(written[name], chunks=(700, 2)) for name in "Xy"]
    assert regressor.score(*chunked) == pytest.approx(expected)


def test_data_of_another_width_are_refused(store, values):
    X, y = rows()
    model = LogisticRegression().fit(X[:, :3], y)
    for other in (X, store, da.from_array(X, chunks=700)):
        for method in (model.predict, model.score, model.predict_proba, model.predict_log_proba):
            with pytest.raises(ValueError, match=r"5 features, but .* is expecting 3 features"):
                method(other, y) if method == model.score and other is X else method(other)


_WIDE: Any = np.random.default_rng(1).integers(-100, 100, (60_000, 40)).astype(np.int16)
_FORMS: dict[str, Any] = {
    "int16": lambda X: X,
    "int64": lambda X: X.astype(np.int64),
    "float16": lambda X: X.astype(np.float16),
    "big-endian": lambda X: X.astype(">f8"),
    "columns after one another": lambda X: np.asfortranarray(X, np.float64),
    "every second row": lambda X: np.repeat(X.astype(np.float64), 2, axis=0)[::2],
    "float32 by columns": lambda X: np.asfortranarray(X, np.float32),
    "frame": lambda X: pd.DataFrame(X.astype(np.float64)),
    "images": lambda X: X.astype(np.uint8).reshape(len(X), 8, 5),
}


@pytest.mark.parametrize("network", [False, True], ids=["linear", "network"])
@pytest.mark.parametrize("form", _FORMS)
def test_predictions_convert_a_block_at_a_time_to_the_same_bits(form, network):
    X = _FORMS[form](_WIDE)
    settings: dict[str, Any] = {"hidden_layer_sizes": (4,), "batch_size": 64} if network else {}
    cls = MLPClassifier if network else LogisticRegression
    model: Any = cls(random_state=0, max_iter=1, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X[:500], (_WIDE[:500, 0] > 0).astype(int))
    whole = np.float32 if form in ("images", "float32 by columns") else np.float64
    expected = model.predict_proba(np.ascontiguousarray(X, whole))
    tracemalloc.start()
    found = model.predict_proba(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(found, expected)
    # A copy of all rows would take 18 MiB or 9; classes and their sums take 3.
    assert peak < 8.5 * 2**20


@pytest.mark.parametrize("form", ["float16", "columns after one another", "frame"])
@pytest.mark.parametrize("at", [0, 50_000])
def test_a_missing_value_in_any_block_is_refused_in_the_words_of_scikit_learn(form, at):
    X = _FORMS[form](_WIDE)
    model = LogisticRegression(max_iter=1, tol=1.0).fit(X[:500], (_WIDE[:500, 0] > 0).astype(int))
    wrong: Any = X.copy()
    (wrong.iloc if form == "frame" else wrong)[at, 3] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.predict(wrong)


def test_who_has_not_learned_does_not_predict(store):
    for method in (*KINDS, "score", "to_sklearn"):
        with pytest.raises(NotFittedError):
            getattr(LogisticRegression(), method)(*([store] if method != "to_sklearn" else []))


@pytest.mark.slow
def test_a_store_without_y_predicts_and_does_not_fit(store, tmp_path):
    X, _ = rows()
    bare = zarr.create_array(str(tmp_path / "bare.zarr"), data=X, chunks=(256, 5))
    with pytest.raises(InvalidStore, match="has no y"):
        LogisticRegression().fit(bare)
    model = LogisticRegression().fit(store)
    np.testing.assert_array_equal(model.predict(bare)[:9], model.predict(str(bare.store_path))[:9])


# Learning block by block


def blocks(X: Array, y: Array, n: int = 10) -> list[tuple[Array, Array]]:
    return list(zip(np.array_split(X, n), np.array_split(y, n), strict=True))


@pytest.mark.parametrize("batch_size", [1, 16, "chunk", "full"])
@pytest.mark.parametrize("solver", ["auto", "adam"])
def test_partial_fit_learns(batch_size, solver):
    X, y = rows(n_classes=3)
    model = LogisticRegression(batch_size=batch_size, solver=solver)
    for _ in range(3):
        for part in blocks(X, y):
            model.partial_fit(*part, classes=[0, 1, 2])
            # Of a block of so few rows, the loss is that of all.
            loss = log_loss(part[1], model.predict_proba(part[0]))
            assert model.report_.loss == pytest.approx(loss, rel=1e-9)
            assert model.report_.progressive_loss != model.report_.loss
    best = LogisticRegression().fit(X, y).report_.loss
    loss = log_loss(y, model.predict_proba(X))
    # 30 updates by whole blocks take it as near as this, 3 passes of small batches nearer.
    assert best < loss < best * (1.01 if batch_size in (1, 16) else 1.03)


@pytest.mark.parametrize("first", [2, 50])
@pytest.mark.parametrize("standardize", [False, True])
def test_partial_fit_does_not_stay_with_the_scales_of_a_tiny_first_block(first, standardize):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(4000, 5)) * np.geomspace(1e-3, 1e3, 5) + 7.0
    X[:first] = X[0] + 1e-9 * X[:first]  # rows that hardly differ
    y = X / np.geomspace(1e-3, 1e3, 5) @ np.ones(5) + rng.normal(size=4000)
    model = Ridge(1e-6, batch_size=16, standardize=standardize)
    model.partial_fit(X[:first], y[:first])
    for part in blocks(X[first:], y[first:], 20):
        model.partial_fit(*part)
    assert model.score(X[first:], y[first:]) > 0.8


def test_partial_fit_of_rows_without_weight_changes_nothing():
    X, y = rows()
    nothing = np.zeros(len(y))
    model = LogisticRegression(batch_size=7, solver="adam")
    model.partial_fit(X, y, classes=[0, 1], sample_weight=nothing)
    assert not model.coef_.any()
    model.partial_fit(X[:99], y[:99])
    fresh = LogisticRegression(batch_size=7, solver="adam").partial_fit(X[:99], y[:99], [0, 1])
    np.testing.assert_array_equal(model.coef_, fresh.coef_)
    model.partial_fit(X, y, sample_weight=nothing)
    assert model.report_.notes == ("no row weighs anything: nothing was learned",)
    model.partial_fit(X[99:200], y[99:200])
    fresh.partial_fit(X[99:200], y[99:200])
    np.testing.assert_array_equal(model.coef_, fresh.coef_)
    np.testing.assert_array_equal(model.intercept_, fresh.intercept_)


@pytest.mark.parametrize("settings", [{}, {"batch_size": 16, "max_iter": 60, "tol": 0}])
def test_standardize_is_a_scaler_put_first_without_an_intercept_too(settings):
    X, y = rows()
    ours = LogisticRegression(standardize=True, fit_intercept=False, random_state=0, **settings)
    theirs = make_pipeline(
        StandardScaler(), sklearn.linear_model.LogisticRegression(fit_intercept=False, tol=1e-8)
    )
    due = theirs.fit(X, y).predict_proba(X)
    np.testing.assert_allclose(
        ours.fit(X, y).predict_proba(X), due, atol=0.01 if settings else 1e-4
    )


def test_partial_fit_carries_batches_of_a_block_size_as_one_call_does(monkeypatch):
    monkeypatch.setattr("ooc_train.training.partial_fit._SCALED_BY_ROWS", 1000)
    X, y = rows()
    settings: dict[str, Any] = {"batch_size": 100, "learning_rate": 0.1, "alpha": 0.0}
    first = Ridge(**settings).partial_fit(X[:1000], y[:1000])
    twice = pickle.loads(pickle.dumps(first)).partial_fit(X[1000:], y[1000:])
    thrice = clone(first).partial_fit(X[:1000], y[:1000])
    for part in blocks(X[1000:], y[1000:], 4):
        thrice.partial_fit(*part)
    np.testing.assert_allclose(twice.coef_, thrice.coef_, rtol=1e-9)
    assert twice.report_.updates == 20
    assert thrice.report_.updates == 5
    np.testing.assert_array_equal(first.coef_, clone(first).partial_fit(X[:1000], y[:1000]).coef_)


def test_partial_fit_weighs_rows_and_penalty_by_all_rows_so_far():
    X, y = rows()
    settings: dict[str, Any] = {"batch_size": 100, "learning_rate": 0.1}
    plain, weighted = Ridge(5.0, **settings), Ridge(10.0, **settings)
    for part in blocks(X, y):
        plain.partial_fit(*part)
        weighted.partial_fit(*part, sample_weight=np.full(len(part[1]), 2.0))
    np.testing.assert_allclose(weighted.coef_, plain.coef_, rtol=1e-9)


def test_partial_fit_takes_one_pass_over_a_store_in_natural_order(store):
    X, y = rows(n_classes=3)
    settings: dict[str, Any] = {"batch_size": 8, "learning_rate": 0.01, "C": 1e9}
    model = LogisticRegression(**settings).partial_fit(store)
    assert model.report_.passes == pytest.approx(1.0, abs=0.1)
    assert model.report_.updates == 375
    assert model.classes_.tolist() == ["ash", "beech", "cedar"]
    weight = 1.0 + np.arange(len(y)) % 3
    in_memory = LogisticRegression(**settings).partial_fit(
        X, model.classes_[y], classes=model.classes_, sample_weight=weight
    )
    np.testing.assert_allclose(model.coef_, in_memory.coef_, rtol=1e-4)
    model.partial_fit(store)
    assert model.report_.updates == 375


def test_partial_fit_takes_dask_arrays_that_lack_a_class():
    X, y = rows(n_classes=3)
    model = LogisticRegression(batch_size=8)
    some = y != 1
    model.partial_fit(
        da.from_array(X[some], chunks=500), da.from_array(y[some], chunks=500), [2, 1, 0]
    )
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.score(X[some], y[some]) > 0.5


@pytest.mark.filterwarnings("ignore:sgd. not converged")
def test_partial_fit_goes_on_from_a_fit():
    X, y = rows()
    model = LogisticRegression(batch_size=8).fit(X, y)
    before = model.score(X, y)
    model.set_params(learning_rate=1e-6).partial_fit(X, y)
    assert model.score(X, y) == pytest.approx(before, abs=2e-3)
    model.partial_fit(X, y)
    assert (clone(model).fit(X, y).coef_ != model.coef_).any()


@pytest.mark.slow
def test_partial_fit_survives_rows_of_other_sizes():
    X, y = rows()
    model = LogisticRegression(batch_size=1)
    for part in blocks(X, y, 200):
        model.partial_fit(*part, classes=[0, 1])
    model.partial_fit(1e4 * X, y)
    assert np.isfinite(model.coef_).all()


def test_partial_fit_refuses_what_it_cannot_do():
    X, y = rows()
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        LogisticRegression().partial_fit(X, y)
    with pytest.raises(ValueError, match="balanced"):
        LogisticRegression(class_weight="balanced").partial_fit(X, y, [0, 1])
    with pytest.raises(ValueError, match="reads all rows"):
        LogisticRegression(solver="newton").partial_fit(X, y, [0, 1])
    model = LogisticRegression().partial_fit(X, y, [0, 1])
    with pytest.raises(ValueError, match="not those of the first call"):
        model.partial_fit(X, y, [0, 2])
    with pytest.raises(ValueError, match="label 7"):
        model.partial_fit(X, np.full(len(X), 7))
    with pytest.raises(ValueError, match="expecting 5 features"):
        model.partial_fit(X[:, :3], y)
    with pytest.raises(ValueError, match="outputs"):
        Ridge().partial_fit(X, y).partial_fit(X, np.column_stack([y, y]))


# Kept, and handed on


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "model",
    [
        LinearRegression(),
        Ridge(0.3, fit_intercept=False),
        LogisticRegression(C=np.float64(0.5), class_weight={0: 2.0, np.int64(1): 1.0}),
        LogisticRegression(
            batch_size=np.int64(64),  # type: ignore[arg-type]
            max_iter=3,
            random_state=np.int64(2),  # type: ignore[arg-type]
        ),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_saved_model_comes_back(model, tmp_path):
    X, y = rows()
    model.fit(pd.DataFrame(X, columns=list(FEATURES)), y).save(tmp_path / "run")
    del model.feature_names_in_
    found = load(tmp_path / "run")
    assert type(found) is type(model)
    assert found.feature_names_in_.tolist() == list(FEATURES)
    del found.feature_names_in_
    assert found.get_params() == model.get_params()
    for name in KINDS:
        if hasattr(model, name):
            np.testing.assert_array_equal(getattr(found, name)(X), getattr(model, name)(X))
    assert str(found.report_) == str(model.report_)
    np.testing.assert_array_equal(found.n_iter_, model.n_iter_)
    clone(found).fit(X, y)
    with pytest.raises(OutputExists):
        model.save(tmp_path / "run")
    found.save(tmp_path / "run", overwrite=True)
    assert json.loads((tmp_path / "run" / "model.json").read_text())["format"] == "ooc_train.run"


def test_a_run_of_train_loads_as_an_estimator(store, tmp_path):
    fitted, _ = train(LogisticRegression(tol=1e-6).fit(store).model_, store, out=tmp_path / "run")
    model = load(tmp_path / "run")
    np.testing.assert_array_equal(model.coef_, fitted.coef)
    assert model.classes_.tolist() == ["ash", "beech", "cedar"]


@pytest.mark.slow
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("standardize", [False, True])
def test_to_sklearn_predicts_the_same(n_classes, standardize):
    X, y = rows(n_classes=n_classes)
    classifier = LogisticRegression(standardize=standardize).fit(X, y)
    plain = classifier.to_sklearn()
    assert type(plain) is sklearn.linear_model.LogisticRegression
    np.testing.assert_array_equal(plain.predict(X), classifier.predict(X))
    np.testing.assert_allclose(plain.predict_proba(X), classifier.predict_proba(X), rtol=1e-9)
    targets = np.eye(n_classes)[y]
    for model in (Ridge(standardize=standardize), LinearRegression()):
        for target in (y, targets):
            np.testing.assert_allclose(
                model.fit(X, target).to_sklearn().predict(X), model.predict(X), atol=1e-12
            )
    plain.fit(X, y)


@pytest.mark.parametrize("kind", [SGDRegressor, PoissonRegressor, TweedieRegressor])
def test_what_scikit_learn_has_for_one_target_is_refused_for_several(kind):
    X, y = rows()
    targets = np.eye(2)[y % 2] + 1.0
    assert kind().fit(X, targets[:, 0]).to_sklearn().predict(X).shape == (len(X),)
    with pytest.raises(ValueError, match="predicts one target, and this one 2; fit one estimator"):
        kind().fit(X, targets).to_sklearn()


@pytest.mark.slow
def test_estimators_work_in_pipelines_and_searches():
    X, y = rows(1000)
    found = []
    for estimator in (LogisticRegression(), sklearn.linear_model.LogisticRegression()):
        pipeline = make_pipeline(StandardScaler(), estimator)
        search = GridSearchCV(pipeline, {"logisticregression__C": np.logspace(-4, 1, 3)}, n_jobs=2)
        found.append(search.fit(X, y).cv_results_["mean_test_score"])
    np.testing.assert_allclose(found[0], found[1], atol=2e-3)  # 2 rows of 1,000
    assert np.ptp(found[1]) > 0.01
    expected = cross_val_score(sklearn.linear_model.Ridge(), X, y)
    np.testing.assert_allclose(cross_val_score(Ridge(), X, y), expected, rtol=1e-9)
