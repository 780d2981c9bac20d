"""Our estimators in the place of scikit-learn's of the same name, for scikit-learn's own tests.

Settings that say how scikit-learn computes, and not what, are left out: `precompute`, `copy_X`,
solvers by its names. Sparse X is made dense. Each is noted, so that the table can count such tests
apart.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from math import inf
from typing import Any

import scipy.sparse
import sklearn.linear_model
import sklearn.svm

import ooc_train
from ooc_train.estimators import validation

PLACES: Mapping[Any, tuple[str, ...]] = {
    sklearn.linear_model: (
        "ElasticNet", "GammaRegressor", "HuberRegressor", "Lasso", "LinearRegression",
        "LogisticRegression", "PoissonRegressor", "QuantileRegressor", "Ridge", "RidgeClassifier",
        "SGDClassifier", "SGDRegressor", "TweedieRegressor", "enet_path", "lasso_path",
    ),
    sklearn.svm: ("LinearSVC", "LinearSVR"),
}  # fmt: skip
"""Where scikit-learn's tests import estimators and functions from."""

_HOW = frozenset({
    "check_input", "copy_X", "dual", "intercept_scaling", "multi_class",
    "n_jobs", "precompute", "selection", "shuffle", "solver_options", "verbose",
})  # fmt: skip
"""Settings of how scikit-learn computes."""

_SOLVERS = frozenset({
    "cholesky", "highs", "highs-ds", "highs-ipm", "interior-point", "liblinear", "lsqr",
    "newton-cg", "newton-cholesky", "sag", "saga", "sparse_cg", "svd",
})  # fmt: skip
"""Solvers that are not ours; "lbfgs" is."""

_TIGHT: dict[str, Any] = {"tol": 1e-10, "max_iter": 10_000}
"""Settings of the second run of tests that fail: at the default `tol`, ours may end elsewhere."""

_PRIVATE = ("_get_loss",)
"""Attributes of scikit-learn's classes that its tests ask the right answer of."""


class Notes:
    """What the current test used."""

    used = False
    """Whether it made an estimator of ours, or called a function of ours."""

    translated: set[str] = set()  # noqa: RUF012 (one for all)
    """What was left out or made dense."""


def _translated(given: Mapping[str, Any], ours: Any) -> dict[str, Any]:
    """Return settings of scikit-learn as ours, and note those that are left out."""
    kept: dict[str, Any] = {}
    for name, value in given.items():
        # Our "lbfgs" is no solver of non-negative least squares.
        theirs = name == "solver" and (value in _SOLVERS or given.get("positive", False))
        if theirs or (name in _HOW and name not in ours):
            Notes.translated.add(name)
        elif name == "penalty" and "C" in ours and name not in ours:
            # Of LogisticRegression, which scikit-learn replaces by `l1_ratio` and `C`, too.
            Notes.translated.add(name)
            if value is None:
                kept["C"] = inf
            elif value != "elasticnet":
                kept["l1_ratio"] = float(value == "l1")
        else:
            kept.setdefault(name, value)
    return kept


def _dense(function: Callable[..., Any], position: int) -> Callable[..., Any]:
    """Return a function whose argument at a position may be sparse."""

    @wraps(function)
    def with_dense(*args: Any, **settings: Any) -> Any:
        if len(args) > position and scipy.sparse.issparse(args[position]):
            Notes.translated.add("sparse X")
            args = (*args[:position], args[position].toarray(), *args[position + 1 :])
        return function(*args, **settings)

    return with_dense


def _stand_in(cls: Any, theirs: Any, *, tight: bool) -> type:
    """Return a subclass of an estimator of ours that takes scikit-learn's settings."""
    names = cls._get_param_names()
    # Updates by batches converge to no tolerance.
    finer = _TIGHT if tight and not cls.__name__.startswith("SGD") else {}

    def make(self: Any, *args: Any, **settings: Any) -> None:
        Notes.used = True
        kept = _translated(settings, names)
        cls.__init__(self, *args, **{**_missing(finer, kept), **kept})
        self._asked_solver = settings.get("solver", self.solver)

    def fit(self: Any, *args: Any, **settings: Any) -> Any:
        return cls.fit(self, *args, **_translated(settings, inspect.signature(cls.fit).parameters))

    def set_params(self: Any, **settings: Any) -> Any:
        return cls.set_params(self, **_translated(settings, names))

    members: dict[str, Any] = {
        "__init__": make,
        "__module__": cls.__module__,
        "_get_param_names": classmethod(lambda _: names),
        "fit": wraps(cls.fit)(fit),
        "set_params": set_params,
        "solver_": property(lambda self: self.coef_ is not None and self._asked_solver),
        **{name: getattr(theirs, name) for name in _PRIVATE if hasattr(theirs, name)},
    }
    return type(cls.__name__, (cls,), members)


def _missing(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the tight settings that are not given, or are looser there."""
    tol = settings.get("tol")
    if tol is not None and isinstance(given.get("tol"), float) and given["tol"] > tol:
        given["tol"] = tol  # type: ignore[index]
    return {name: value for name, value in settings.items() if name not in given}


def _function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of ours that takes scikit-learn's settings."""
    names = inspect.signature(function).parameters

    @wraps(function)
    def called(*args: Any, **settings: Any) -> Any:
        Notes.used = True
        return function(*args, **_translated(settings, names))

    return _dense(called, 0)


def put_in_place(*, tight: bool) -> None:
    """Put our estimators in the place of scikit-learn's, in this process."""
    validation.validate_data = _dense(validation.validate_data, 1)  # type: ignore[attr-defined]
    for place, names in PLACES.items():
        for name in names:
            ours, theirs = getattr(ooc_train, name), getattr(place, name)
            is_class = isinstance(ours, type)
            made = _stand_in(ours, theirs, tight=tight) if is_class else _function(ours)
            setattr(place, name, made)
