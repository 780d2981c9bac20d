"""scikit-learn's meta-estimators give the same answers with our estimators as with its own."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.linear_model
from sklearn import config_context
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer
from sklearn.feature_selection import RFE, RFECV, SelectFromModel, SequentialFeatureSelector
from sklearn.frozen import FrozenEstimator
from sklearn.impute import IterativeImputer
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import RANSACRegressor
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import (
    ClassifierChain,
    MultiOutputClassifier,
    MultiOutputRegressor,
    RegressorChain,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils import all_estimators

import ooc_train

assert enable_halving_search_cv
assert enable_iterative_imputer

N = 90
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, 4))
VALUES = X @ [1.0, -2.0, 0.5, 0.0] + 0.3 * RNG.standard_normal(N)
TWO = (VALUES > 0).astype(int)
THREE = np.digitize(VALUES, [-1.0, 1.0])
WEIGHT = np.arange(N) % 3 + 0.5
FRAME = pd.DataFrame(X, columns=list("abcd"))
NAMES = np.array(["no", "yes", "zoo"])

SEED: Any = {"random_state": 0}
SHARES: Any = {"C": [0.1, 1.0]}
CONSTANT: Any = {"fit_intercept": [True, False]}

CLASSIFIERS: dict[str, Any] = {
    "AdaBoostClassifier": lambda one: AdaBoostClassifier(one, n_estimators=4, **SEED),
    "BaggingClassifier": lambda one: BaggingClassifier(one, n_estimators=3, **SEED),
    "CalibratedClassifierCV": lambda one: CalibratedClassifierCV(one, cv=3),
    "FixedThresholdClassifier": lambda one: FixedThresholdClassifier(one, threshold=0.3),
    "FrozenEstimator": lambda one: FrozenEstimator(one.fit(X, TWO)),
    "TunedThresholdClassifierCV": lambda one: TunedThresholdClassifierCV(one, cv=3),
    "GradientBoostingClassifier": lambda one: GradientBoostingClassifier(
        init=one, n_estimators=1, **SEED
    ),
    "GridSearchCV": lambda one: GridSearchCV(one, SHARES, cv=3),
    "HalvingGridSearchCV": lambda one: HalvingGridSearchCV(one, SHARES, cv=3, **SEED),
    "HalvingRandomSearchCV": lambda one: HalvingRandomSearchCV(one, SHARES, cv=3, **SEED),
    "RandomizedSearchCV": lambda one: RandomizedSearchCV(one, SHARES, n_iter=2, cv=3, **SEED),
    "OneVsOneClassifier": OneVsOneClassifier,
    "OneVsRestClassifier": OneVsRestClassifier,
    "OutputCodeClassifier": lambda one: OutputCodeClassifier(one, **SEED),
    "RFE": lambda one: RFE(one, n_features_to_select=2),
    "RFECV": lambda one: RFECV(one, cv=3),
    "SelectFromModel": SelectFromModel,
    "SequentialFeatureSelector": lambda one: SequentialFeatureSelector(
        one, n_features_to_select=1, cv=2
    ),
    "SelfTrainingClassifier": SelfTrainingClassifier,
    "StackingClassifier": lambda one: StackingClassifier([("a", one)], one, cv=3),
    "VotingClassifier": lambda one: VotingClassifier([("a", one), ("b", one)], voting="soft"),
    "Pipeline": lambda one: make_pipeline(StandardScaler(), one),
    "ClassifierChain": ClassifierChain,
    "MultiOutputClassifier": MultiOutputClassifier,
}
REGRESSORS: dict[str, Any] = {
    "AdaBoostRegressor": lambda one: AdaBoostRegressor(one, n_estimators=4, **SEED),
    "BaggingRegressor": lambda one: BaggingRegressor(one, n_estimators=3, **SEED),
    "GradientBoostingRegressor": lambda one: GradientBoostingRegressor(
        init=one, n_estimators=1, **SEED
    ),
    "GridSearchCV": lambda one: GridSearchCV(one, CONSTANT, cv=3),
    "IterativeImputer": lambda one: IterativeImputer(one, max_iter=2, tol=0.5, **SEED),
    "MultiOutputRegressor": MultiOutputRegressor,
    "RegressorChain": RegressorChain,
    "RANSACRegressor": lambda one: RANSACRegressor(one, min_samples=10, max_trials=5, **SEED),
    "RFE": lambda one: RFE(one, n_features_to_select=2),
    "SelectFromModel": SelectFromModel,
    "StackingRegressor": lambda one: StackingRegressor([("a", one)], one, cv=3),
    "TransformedTargetRegressor": lambda one: TransformedTargetRegressor(
        one, transformer=StandardScaler()
    ),
    "VotingRegressor": lambda one: VotingRegressor([("a", one), ("b", one)]),
}
HOLDS = {
    "estimator", "base_estimator", "estimators", "regressor", "classifier", "final_estimator",
}  # fmt: skip
METHODS = (
    "predict", "predict_proba", "predict_log_proba", "decision_function", "transform",
)  # fmt: skip


def logistic(module: Any) -> Any:
    return module.LogisticRegression(tol=1e-8, max_iter=5000)


def answers(model: Any, data: Any, y: Any, **weights: Any) -> dict[str, Any]:
    """All that a fitted model says of its own rows."""
    with warnings.catch_warnings():
        # That a logarithm of 0 is infinite, and that halving has too few rows.
        warnings.simplefilter("ignore")
        model.fit(data, y, **weights)
        found = {name: getattr(model, name)(data) for name in METHODS if hasattr(model, name)}
        if hasattr(model, "predict"):
            found["score"] = model.score(data, y)
    names = ("classes_", "n_features_in_", "feature_names_in_", "support_")
    return found | {name: getattr(model, name) for name in names if hasattr(model, name)}


def require_same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs) or (np.isscalar(ours) and np.isscalar(theirs))
    if isinstance(theirs, list):
        for one, other in zip(ours, theirs, strict=True):
            require_same(one, other)
        return
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    if theirs.dtype.kind == "f":
        # scikit-learn takes the logarithm of a probability, which may be rounded to 0.
        lost = np.isneginf(theirs)
        assert (ours[lost] < -30).all()
        np.testing.assert_allclose(ours[~lost], theirs[~lost], rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_array_equal(ours, theirs)


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for name in theirs:
        require_same(ours[name], theirs[name])


def test_every_meta_estimator_is_tried():
    there = {name for name, made in all_estimators() if HOLDS & set(made._get_param_names())}
    assert there <= CLASSIFIERS.keys() | REGRESSORS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_within(name):
    data, y = FRAME, THREE
    if name in ("FixedThresholdClassifier", "TunedThresholdClassifierCV"):
        y = NAMES[TWO]
    elif name == "GradientBoostingClassifier":
        y = TWO  # of three classes, rounding decides between splits that are equally good
    elif name == "ClassifierChain":
        y = np.column_stack([TWO, TWO[::-1]])
    elif name == "MultiOutputClassifier":
        y = np.column_stack([THREE, THREE[::-1]])
    elif name == "SelfTrainingClassifier":
        y = np.where(np.arange(N) % 5 == 0, -1, TWO)
    elif name == "FrozenEstimator":
        data, y = X, TWO
    ours, theirs = (CLASSIFIERS[name](logistic(m)) for m in (ooc_train, sklearn.linear_model))
    compare(answers(ours, data, y), answers(theirs, data, y))


@pytest.mark.slow
@pytest.mark.parametrize("y", [VALUES, np.rint(3 * VALUES).astype(int)], ids=["float", "int"])
@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors_within(name, y):
    if name in ("MultiOutputRegressor", "RegressorChain", "RANSACRegressor"):
        y = np.column_stack([y, y[::-1] ** 2])
    ours, theirs = (REGRESSORS[name](m.Ridge()) for m in (ooc_train, sklearn.linear_model))
    compare(answers(ours, X, y), answers(theirs, X, y))


def with_both(of: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        ours, theirs = (of(m) for m in (ooc_train, sklearn.linear_model))
    require_same(ours, theirs)


@pytest.mark.slow
def test_scores_and_predictions_of_folds():
    with_both(lambda m: cross_val_score(logistic(m), X, THREE, cv=3))
    with_both(lambda m: cross_val_score(logistic(m), X, TWO, cv=3, scoring="neg_log_loss"))
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        with_both(
            lambda m, at=method: cross_val_predict(logistic(m), FRAME, THREE, cv=2, method=at)
        )
    with_both(lambda m: cross_validate(m.Ridge(), X, VALUES, scoring=["r2"], cv=3)["test_r2"])


@pytest.mark.slow
def test_inspections():
    with_both(
        lambda m: (
            permutation_importance(
                m.Ridge().fit(FRAME, VALUES),
                FRAME,
                VALUES,
                n_repeats=2,
                sample_weight=WEIGHT,
                **SEED,
            ).importances
        )
    )
    with_both(lambda m: partial_dependence(logistic(m).fit(FRAME, TWO), FRAME, ["a"])["average"])


@pytest.mark.slow
def test_weights_are_routed():
    def searched(module: Any) -> Any:
        model = logistic(module).set_fit_request(sample_weight=True)
        model.set_score_request(sample_weight=True)
        search = GridSearchCV(model, {"C": [0.1, 1.0]}, cv=3)
        return list(search.fit(X, TWO, sample_weight=WEIGHT).cv_results_["mean_test_score"])

    def wrapped(module: Any) -> Any:
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        model = logistic(module).set_fit_request(sample_weight=True)
        return make_pipeline(scaler, model).fit(X, TWO, sample_weight=WEIGHT).predict_proba(X)

    with config_context(enable_metadata_routing=True):
        with_both(searched)
        with_both(wrapped)


def test_frames_come_out_of_what_transforms():
    def chosen(module: Any) -> Any:
        pipeline = make_pipeline(StandardScaler(), SelectFromModel(logistic(module)))
        found = pipeline.set_output(transform="pandas").fit(FRAME, TWO).transform(FRAME)
        return [found.to_numpy(), found.columns.to_numpy()]

    with_both(chosen)


@pytest.mark.parametrize(
    "given",
    [
        NAMES[THREE].astype(object), THREE.astype(np.int8), THREE.astype(np.float32), TWO > 0,
        NAMES[THREE].tolist(), 2 * TWO - 1,
        pd.Series(NAMES[THREE], dtype="category"),
        pd.Series(NAMES[THREE], dtype="string"), pd.Series(TWO > 0),
    ],
    ids=lambda given: f"{type(given).__name__} {getattr(given, 'dtype', '')}",
)  # fmt: skip
def test_labels_of_every_kind_come_back(given):
    ours, theirs = (logistic(m) for m in (ooc_train, sklearn.linear_model))
    compare(answers(ours, X.tolist(), given), answers(theirs, X.tolist(), given))
