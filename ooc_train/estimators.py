"""scikit-learn's linear models for data of any size: thin shells around `train`.

Where a class bears a scikit-learn name, its parameters mean what they mean there, and so do its
attributes; an argument that is not supported is absent. Data may be a store, its path, Zarr, Dask
arrays, or anything that scikit-learn takes into memory. Settings are validated when a fit begins.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self
from warnings import warn

import numpy as np
import sklearn.linear_model
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from ooc_train.memory import Ceiling
from ooc_train.models.fitted import Fitted, load_fitted
from ooc_train.models.metrics import PIECE_ROWS
from ooc_train.models.model import Model, Name
from ooc_train.models.sums import Array
from ooc_train.online import Progress, learn
from ooc_train.predict import Kind, evaluate, predict, predict_store
from ooc_train.report import Report
from ooc_train.scoring import predict_files
from ooc_train.stream.inputs import Inputs, as_store, is_dask, is_stored, read_inputs
from ooc_train.tables.features import Unseen
from ooc_train.tables.names import is_table
from ooc_train.tables.recipe import Recipe
from ooc_train.train import train

__all__ = ["LinearRegression", "LogisticRegression", "Ridge", "load"]

_DTYPES = [np.float64, np.float32]
_NOT_OF_MODEL = ("memory_ceiling", "warm_start")


@dataclass(frozen=True, eq=False)
class _Given:
    """Training data as they were handed over.

    Attributes
    ----------
    inputs : the rows
    flat : whether y has one axis
    labels : type of the labels, or None where they say it themselves
    """

    inputs: Inputs
    flat: bool
    labels: np.dtype[Any] | None


class _LinearModel(BaseEstimator):  # type: ignore[misc] # untyped base
    """What all estimators share."""

    _name: ClassVar[Name]
    _progress: Progress | None = None
    _recipe: Mapping[str, Any] | None = None

    memory_ceiling: str | int | Ceiling | None
    random_state: int | np.random.RandomState | None
    model_: Model
    coef_: Array
    intercept_: Any
    report_: Report

    def _model(self) -> Model:
        """Return the settings as the engine takes them, which refuses those that cannot be used."""
        settings = self.get_params(deep=False)
        for name in _NOT_OF_MODEL:
            settings.pop(name, None)
        return Model(name=self._name, **settings | {"random_state": _seed(self.random_state)})

    @property
    def _classifies(self) -> bool:
        return self._name == "logistic"

    def _fit(self, X: Any, y: Any, sample_weight: Any, *, warm: bool = False) -> Self:
        model = self._model()
        start = self._fitted() if warm and hasattr(self, "coef_") else None
        given = self._given(X, y, sample_weight, first=True)
        fitted, report = train(model, given.inputs, memory_ceiling=self.memory_ceiling, start=start)
        self._keep(fitted, report, flat=given.flat, labels=given.labels)
        self._progress = None
        # A run that was stopped says so itself.
        spent = report.n_iter >= model.iterations
        if model.batch_size == "full" and spent and not report.converged:
            warn(
                f"{report.solver} stopped after max_iter={report.n_iter} iterations with the "
                f"tolerance of {model.tolerance:g} not met; raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def _partial_fit(
        self, X: Any, y: Any, sample_weight: Any, classes: NDArray[Any] | None = None
    ) -> Self:
        model = self._model()
        first = not hasattr(self, "coef_")
        start = None if first or self._progress is not None else self._fitted()
        known = () if classes is None else tuple(classes.tolist())
        given = self._given(X, y, sample_weight, first=first, classes=known)
        self._progress, fitted, report = learn(
            model, given.inputs, self._progress, start=start, memory_ceiling=self.memory_ceiling
        )
        labels = given.labels if classes is None else classes.dtype
        self._keep(fitted, report, flat=given.flat, labels=labels)
        return self

    def _given(
        self, X: Any, y: Any, sample_weight: Any, *, first: bool, classes: Sequence[Any] = ()
    ) -> _Given:
        """Return training data as inputs; the first say how many features there are."""
        if is_stored(X):
            store = as_store(X)
            self._note_features(store.n_features, store.feature_names, first=first)
            inputs = self._read(store, y, sample_weight, classes)
            return _Given(inputs, store.y is not None and not store.y.row_shape, None)
        if is_dask(X):
            self._note_features(X.shape[1], None, first=first)
            inputs = self._read(X, y, sample_weight, classes)
            return _Given(inputs, y.ndim == 1, y.dtype)
        X, y = validate_data(
            self,
            X,
            y,
            reset=first,
            dtype=_DTYPES,
            order="C",
            multi_output=not self._classifies,
            y_numeric=not self._classifies,
        )
        if self._classifies:
            check_classification_targets(y)
            y = column_or_1d(y, warn=True)
        inputs = self._read(X, y, _row_weights(X, sample_weight), classes)
        names = getattr(self, "feature_names_in_", None)
        if names is not None:
            inputs = replace(inputs, feature_names=tuple(names.tolist()))
        return _Given(inputs, y.ndim == 1, y.dtype)

    def _read(self, X: Any, y: Any, sample_weight: Any, classes: Sequence[Any]) -> Inputs:
        return read_inputs(
            X,
            y,
            sample_weight,
            classifier=self._classifies,
            classes=tuple(classes),
            memory_ceiling=self.memory_ceiling,
        )

    def _note_features(self, n: int, names: tuple[str, ...] | None, *, first: bool) -> None:
        """Note, or check, the columns of data that are not in memory."""
        if not first:
            self._require_features(n)
            return
        self.n_features_in_ = n
        if names is not None:
            self.feature_names_in_ = np.asarray(names, object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _require_features(self, n: int) -> None:
        if n != self.n_features_in_:
            raise ValueError(
                f"X has {n} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )

    def _keep(
        self, fitted: Fitted, report: Report, *, flat: bool, labels: np.dtype[Any] | None
    ) -> None:
        """Set the attributes that say what was learned."""
        raise NotImplementedError

    def _labels(self) -> NDArray[Any] | None:
        return getattr(self, "classes_", None)

    def _fitted(self) -> Fitted:
        """Return the attributes as the engine takes them."""
        check_is_fitted(self)
        labels, names = self._labels(), getattr(self, "feature_names_in_", None)
        coef = np.atleast_2d(np.asarray(self.coef_, np.float64))
        return Fitted(
            self.model_,
            coef,
            np.broadcast_to(np.asarray(self.intercept_, np.float64), coef.shape[:1]),
            () if labels is None else tuple(labels.tolist()),
            None if names is None else tuple(names.tolist()),
            recipe=self._recipe,
        )

    @property
    def recipe_(self) -> Recipe | None:
        """How raw columns became the features, where they did: ``recipe_.apply(table)``."""
        return None if self._recipe is None else Recipe.from_json(self._recipe)

    @property
    def history_(self) -> Any:
        """What is known after each iteration or epoch of the last fit, as a `pandas.DataFrame`."""
        import pandas as pd

        # A profile is a mapping of its own, and adds up over the steps: `report_.profile` has it.
        frame = pd.DataFrame([asdict(step) for step in self.report_.history])
        return frame.drop(columns="profile", errors="ignore")

    def _predict(self, X: Any, kind: Kind, out: str | os.PathLike[str] | None) -> Any:
        """Return predictions: in memory, as a lazy Dask array, or the path that they lie at."""
        fitted = self._fitted()
        flat = kind == "decision" and fitted.n_outputs == 1
        finish = _Finish(fitted, kind, self._labels(), flat or np.ndim(self.coef_) == 1)
        if is_stored(X):
            X = as_store(X)
            self._require_features(X.n_features)
        elif is_dask(X):
            self._require_features(X.shape[1])
        elif isinstance(X, np.ndarray) and self._recipe is not None:
            # As `recipe_.apply` makes it: without names, which scikit-learn would warn of.
            X = check_array(X, dtype=_DTYPES, order="C")
            self._require_features(X.shape[1])
        else:
            X = validate_data(self, X, reset=False, dtype=_DTYPES, order="C")
        if out is not None:
            if is_table(out) and is_stored(X):
                predict_files(fitted, X, out, kinds=(kind,), memory_ceiling=self.memory_ceiling)
            else:
                predict_store(fitted, X, out, kinds=(kind,), memory_ceiling=self.memory_ceiling)
            return os.fspath(out)
        if is_stored(X):
            return finish.found(predict(fitted, X, kind, memory_ceiling=self.memory_ceiling))
        return finish.lazily(X) if is_dask(X) else finish(X)

    def predict(self, X: Any, *, out: str | os.PathLike[str] | None = None) -> Any:
        """Predict for each row.

        Parameters
        ----------
        X : store, path, Zarr, Dask array or array-like of shape (n_samples, n_features)
        out : where to write, as the array "prediction" of a store, or for a store as X as a column
            of a .csv or .parquet file; None returns predictions

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Classes or values; a Dask array, not computed, for a Dask array; the path for `out`.

        Raises
        ------
        ValueError
            where X has other features than those that were learned from.
        OutputExists
            where something lies at `out`.
        """
        return self._predict(X, "prediction", out)

    def predict_files(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        out: str | os.PathLike[str],
        *,
        proba: bool = False,
        overwrite: bool = False,
        unseen: Unseen | None = None,
        delimiter: str | None = None,
        encoding: str = "utf8",
    ) -> str:
        """Predict for each row of raw files, of any size, as the training data were made of such.

        Parameters
        ----------
        paths : files, patterns or folders, CSV or Parquet
        out : where predictions go: .csv, .tsv, .parquet, or else a Zarr store
        proba : whether the probability of each class is written too
        overwrite : whether what lies there is replaced
        unseen : "error", "other" or "ignore": what becomes of values that no training row had;
            None is what the recipe says
        delimiter, encoding : of CSV

        Returns
        -------
        str
            `out`.

        Raises
        ------
        InvalidRun
            where the model was trained on data that `ingest` did not make.
        TableNotFound, InvalidTable
            where a file, a column or a value can't be used.
        OutputExists
            where something lies at `out`.
        """
        kinds: tuple[Kind, ...] = ("prediction", "probability") if proba else ("prediction",)
        if proba and not self._classifies:
            raise ValueError(f"proba=True is for classes, and {type(self).__name__} has none")
        predict_files(
            self._fitted(),
            paths,
            out,
            kinds=kinds,
            overwrite=overwrite,
            unseen=unseen,
            delimiter=delimiter,
            encoding=encoding,
            memory_ceiling=self.memory_ceiling,
        )
        return os.fspath(out)

    def _score(self, X: Any, y: Any, sample_weight: Any) -> float:
        """Return the score on data that are not in memory: one pass."""
        fitted = self._fitted()
        data = as_store(X) if is_stored(X) else X
        self._require_features(data.n_features if is_stored(X) else X.shape[1])
        inputs = self._read(data, y, sample_weight, fitted.classes)
        metrics, _ = evaluate(fitted, inputs, memory_ceiling=self.memory_ceiling)
        return float(metrics["accuracy" if self._classifies else "r2"])

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the fitted model to a folder of numbers and JSON, which `load` reads.

        Parameters
        ----------
        path : folder to make
        overwrite : whether a saved model that lies there is replaced

        Raises
        ------
        OutputExists
            where something lies there that may not be replaced.
        """
        replace(self._fitted(), report=self.report_.to_json()).save(path, overwrite=overwrite)

    def _restored(self, fitted: Fitted) -> Self:
        """Take over what a saved model had learned."""
        names = fitted.feature_names
        self._note_features(fitted.n_features, names, first=True)
        report = Report.from_json(fitted.report)
        self._keep(fitted, report, flat=fitted.n_outputs == 1, labels=None)
        return self

    def _copy_to(self, plain: Any) -> Any:
        """Give a plain estimator what this one has learned."""
        for name in ("coef_", "intercept_", "n_iter_", "n_features_in_", "classes_"):
            if hasattr(self, name):
                value = getattr(self, name)
                setattr(plain, name, value.copy() if isinstance(value, np.ndarray) else value)
        if hasattr(self, "feature_names_in_"):
            plain.feature_names_in_ = self.feature_names_in_.copy()
        return plain


@dataclass(frozen=True, eq=False)
class _Finish:
    """Makes what the engine predicts what scikit-learn's estimators return.

    Attributes
    ----------
    fitted : the model
    kind : what is predicted
    labels : of the classes by code, or None
    flat : whether one output is one axis
    """

    fitted: Fitted
    kind: Kind
    labels: NDArray[Any] | None
    flat: bool

    def found(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return classes for codes, and one axis where there is one output."""
        if self.labels is not None and self.kind == "prediction":
            return np.asarray(self.labels[values])
        return values[:, 0] if self.flat else values

    def __call__(self, X: Any) -> NDArray[Any]:
        """Return the predictions for rows in memory."""
        fitted = self.fitted
        converted = np.empty((PIECE_ROWS, fitted.n_features))
        z = fitted.decision(np.asarray(X), converted)
        if self.labels is not None and self.kind == "prediction":
            return self.found(fitted.codes(z))
        return self.found(fitted.probabilities(z) if self.kind == "probability" else z)

    def lazily(self, X: Any) -> Any:
        """Return the predictions for a Dask array, as one that is not computed."""
        X = X.rechunk({1: -1})
        meta = self(np.zeros((0, X.shape[1])))
        if meta.ndim == 1:
            return X.map_blocks(self, drop_axis=1, meta=meta)
        return X.map_blocks(self, chunks=(X.chunks[0], meta.shape[1:]), meta=meta)


class _Regressor(MultiOutputMixin, RegressorMixin, _LinearModel):  # type: ignore[misc]
    """What the regressors share."""

    fit_intercept: bool

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : store, path, Zarr, Dask array or array-like of shape (n_samples, n_features)
            A store brings its own y and weights.
        y : array of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array of shape (n_samples,), or a number

        Returns
        -------
        self

        Raises
        ------
        ValueError
            naming the setting that cannot be used, or what is wrong with the data.
        CeilingExceeded
            before anything is read, where the memory ceiling is too small.
        """
        return self._fit(X, y, sample_weight)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn from some more rows: one pass of updates, in the order in which they lie.

        Columns are scaled by the rows of the first call, so let them be many. `batch_size="full"`
        is one update a call. The penalty is that of a fit to all rows handed over so far.

        Parameters
        ----------
        X, y, sample_weight : as for `fit`

        Returns
        -------
        self

        Raises
        ------
        ValueError
            naming the setting that cannot be used, or what is wrong with the data.
        """
        return self._partial_fit(X, y, sample_weight)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the coefficient of determination R^2, the mean over outputs.

        Parameters
        ----------
        X : store, path, Zarr, Dask array or array-like of shape (n_samples, n_features)
        y : array of shape (n_samples,) or (n_samples, n_outputs); a store brings its own
        sample_weight : array of shape (n_samples,); a store brings its own

        Returns
        -------
        float
        """
        if is_stored(X) or is_dask(X):
            return self._score(X, y, sample_weight)
        return float(super().score(X, y, sample_weight))

    def _keep(
        self, fitted: Fitted, report: Report, *, flat: bool, labels: np.dtype[Any] | None
    ) -> None:
        del labels
        self.model_, self.report_, self._recipe = fitted.model, report, fitted.recipe
        self.coef_ = fitted.coef[0] if flat else fitted.coef
        self.intercept_ = fitted.intercept[0] if flat else fitted.intercept
        if not fitted.model.fit_intercept:
            self.intercept_ = 0.0
        self.n_iter_ = np.full(fitted.n_outputs, report.n_iter, np.int32)


class LinearRegression(_Regressor):
    """Least squares.

    Where columns depend on one another, the coefficients are those of least norm.

    Parameters
    ----------
    fit_intercept : whether there is a free constant
    max_iter : most iterations, or epochs of updates; None is 100
    tol : tolerance of the solvers that iterate
    solver : "auto", "gram" (exact, in one pass), "lbfgs", "sgd" or "adam"
    batch_size : rows per update: "full", "chunk", or a number of rows
    standardize : whether columns are standardised first; without a penalty it changes the path only
    shuffle_buffer : chunks that are mixed row by row where batches are drawn; "auto" is 1 for data
        that lie in random order
    memory_ceiling : bytes, or text such as "1GiB", that a fit may hold; None is the cluster's, else
        half of what is available
    learning_rate : of updates, on scaled columns: "auto", or a constant
    random_state : seed of the order of rows

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features)
    intercept_ : float or ndarray of shape (n_outputs,)
    n_iter_ : ndarray of shape (n_outputs,), iterations, or epochs of updates
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,), where the columns have names
    report_ : Report of the last fit: its passes, loss and memory
    history_ : pandas.DataFrame of its steps: passes, updates, loss, gradient_norm, ...
    model_ : Model, the settings that were used
    """

    _name = "linear"

    def __init__(
        self,
        *,
        fit_intercept: bool = True,
        max_iter: int | None = None,
        tol: float = 1e-6,
        solver: str = "auto",
        batch_size: int | str = "full",
        standardize: bool = False,
        shuffle_buffer: int | str = "auto",
        memory_ceiling: str | int | Ceiling | None = None,
        learning_rate: float | str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.solver = solver
        self.batch_size = batch_size
        self.standardize = standardize
        self.shuffle_buffer = shuffle_buffer
        self.memory_ceiling = memory_ceiling
        self.learning_rate = learning_rate
        self.random_state = random_state

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.LinearRegression` that predicts the same."""
        self._fitted()
        return self._copy_to(
            sklearn.linear_model.LinearRegression(fit_intercept=self.fit_intercept)
        )


class Ridge(_Regressor):
    """Least squares with an l2 penalty: `|y - X w - b|^2 + alpha |w|^2`, as scikit-learn's.

    Parameters
    ----------
    alpha : strength of the penalty, in the data's units
    fit_intercept : whether there is a free constant
    max_iter : most iterations, or epochs of updates; None is 100
    tol : tolerance of the solvers that iterate
    solver : "auto", "gram" (exact, in one pass), "lbfgs", "sgd" or "adam"
    batch_size : rows per update: "full", "chunk", or a number of rows
    standardize : whether columns are standardised first, so that the penalty is on those
    shuffle_buffer : chunks that are mixed row by row where batches are drawn; "auto" is 1 for data
        that lie in random order
    memory_ceiling : bytes, or text such as "1GiB", that a fit may hold; None is the cluster's, else
        half of what is available
    learning_rate : of updates, on scaled columns: "auto", or a constant
    random_state : seed of the order of rows

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features)
    intercept_ : float or ndarray of shape (n_outputs,)
    n_iter_ : ndarray of shape (n_outputs,), iterations, or epochs of updates
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,), where the columns have names
    report_ : Report of the last fit: its passes, loss and memory
    history_ : pandas.DataFrame of its steps: passes, updates, loss, gradient_norm, ...
    model_ : Model, the settings that were used
    """

    _name = "ridge"

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        max_iter: int | None = None,
        tol: float = 1e-4,
        solver: str = "auto",
        batch_size: int | str = "full",
        standardize: bool = False,
        shuffle_buffer: int | str = "auto",
        memory_ceiling: str | int | Ceiling | None = None,
        learning_rate: float | str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.solver = solver
        self.batch_size = batch_size
        self.standardize = standardize
        self.shuffle_buffer = shuffle_buffer
        self.memory_ceiling = memory_ceiling
        self.learning_rate = learning_rate
        self.random_state = random_state

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.Ridge` that predicts the same."""
        self._fitted()
        plain = sklearn.linear_model.Ridge(
            self.alpha, fit_intercept=self.fit_intercept, max_iter=self.max_iter, tol=self.tol
        )
        return self._copy_to(plain)


class LogisticRegression(ClassifierMixin, _LinearModel):  # type: ignore[misc]
    """Logistic regression with an l2 penalty; multinomial for more than two classes.

    Parameters
    ----------
    C : inverse strength of the penalty beside the sum of losses, in the data's units
    tol : largest entry of the gradient of the mean objective to stop at; of updates, the mean loss
        that an epoch has to gain
    fit_intercept : whether there is a free constant
    class_weight : None, "balanced", or the weight of each class by its label
    solver : "auto", "newton" (the fewest passes), "lbfgs", "sgd" or "adam"
    max_iter : most iterations, or epochs of updates
    warm_start : whether `fit` begins from the coefficients of the last one
    batch_size : rows per update: "full", "chunk", or a number of rows
    standardize : whether columns are standardised first, so that the penalty is on those
    shuffle_buffer : chunks that are mixed row by row where batches are drawn; "auto" is 1 for data
        that lie in random order
    memory_ceiling : bytes, or text such as "1GiB", that a fit may hold; None is the cluster's, else
        half of what is available
    learning_rate : of updates, on scaled columns: "auto", or a constant
    random_state : seed of the order of rows

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of shape (1, n_features) for two classes, else (n_classes, n_features)
    intercept_ : ndarray of shape (1,) or (n_classes,)
    n_iter_ : ndarray of shape (1,), iterations, or epochs of updates
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,), where the columns have names
    report_ : Report of the last fit: its passes, loss and memory
    history_ : pandas.DataFrame of its steps: passes, updates, loss, gradient_norm, ...
    model_ : Model, the settings that were used
    """

    _name = "logistic"

    def __init__(
        self,
        *,
        C: float = 1.0,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        class_weight: str | Mapping[Any, float] | None = None,
        solver: str = "auto",
        max_iter: int = 100,
        warm_start: bool = False,
        batch_size: int | str = "full",
        standardize: bool = False,
        shuffle_buffer: int | str = "auto",
        memory_ceiling: str | int | Ceiling | None = None,
        learning_rate: float | str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.C = C
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.solver = solver
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.batch_size = batch_size
        self.standardize = standardize
        self.shuffle_buffer = shuffle_buffer
        self.memory_ceiling = memory_ceiling
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : store, path, Zarr, Dask array or array-like of shape (n_samples, n_features)
            A store brings its own y and weights.
        y : labels, array of shape (n_samples,)
        sample_weight : array of shape (n_samples,), or a number

        Returns
        -------
        self

        Raises
        ------
        ValueError
            naming the setting that cannot be used, or what is wrong with the data.
        CeilingExceeded
            before anything is read, where the memory ceiling is too small.
        """
        return self._fit(X, y, sample_weight, warm=self.warm_start)

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> Self:
        """Learn from some more rows: one pass of updates, in the order in which they lie.

        Columns are scaled by the rows of the first call, so let them be many. `batch_size="full"`
        is one update a call. The penalty is that of a fit to all rows handed over so far.

        Parameters
        ----------
        X, y, sample_weight : as for `fit`
        classes : all labels that will ever come; needed by the first call, unless X is a store

        Returns
        -------
        self

        Raises
        ------
        ValueError
            naming the setting that cannot be used, or what is wrong with the data.
        """
        known = self._labels()
        if classes is not None:
            classes = np.unique(np.asarray(classes))
            if known is not None and not np.array_equal(classes, known):
                raise ValueError(
                    f"classes={classes.tolist()} are not those of the first call, "
                    f"{known.tolist()}; leave them out, or fit anew"
                )
        elif known is None and not is_stored(X):
            raise ValueError("classes must be passed on the first call to partial_fit.")
        return self._partial_fit(X, y, sample_weight, known if classes is None else classes)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the share of rows whose class is predicted.

        Parameters
        ----------
        X : store, path, Zarr, Dask array or array-like of shape (n_samples, n_features)
        y : labels, array of shape (n_samples,); a store brings its own
        sample_weight : array of shape (n_samples,); a store brings its own

        Returns
        -------
        float
        """
        if is_stored(X) or is_dask(X):
            return self._score(X, y, sample_weight)
        return float(super().score(X, y, sample_weight))

    def _keep(
        self, fitted: Fitted, report: Report, *, flat: bool, labels: np.dtype[Any] | None
    ) -> None:
        del flat
        # Text in the type of y could be cut short: blocks of y have types of different widths.
        kept = None if labels is None or labels.kind in "US" else labels
        self.model_, self.report_, self._recipe = fitted.model, report, fitted.recipe
        self.classes_ = np.asarray(fitted.classes, kept)
        self.coef_, self.intercept_ = fitted.coef, fitted.intercept
        self.n_iter_ = np.full(1, report.n_iter, np.int32)

    def predict_proba(self, X: Any, *, out: str | os.PathLike[str] | None = None) -> Any:
        """Return the probability of each class, by the order of `classes_`.

        Parameters
        ----------
        X : store, path, Zarr, Dask array or array-like of shape (n_samples, n_features)
        out : path of a store to write to, as its array "probability"; None returns them

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            A Dask array, not computed, for a Dask array; the path for `out`.
        """
        return self._predict(X, "probability", out)

    def decision_function(self, X: Any, *, out: str | os.PathLike[str] | None = None) -> Any:
        """Return the linear predictors: for two classes, the log-odds of the second.

        Parameters
        ----------
        X : store, path, Zarr, Dask array or array-like of shape (n_samples, n_features)
        out : path of a store to write to, as its array "decision"; None returns them

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            A Dask array, not computed, for a Dask array; the path for `out`.
        """
        return self._predict(X, "decision", out)

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.linear_model.LogisticRegression` that predicts the same."""
        self._fitted()
        plain = sklearn.linear_model.LogisticRegression(
            C=self.C,
            tol=self.tol,
            fit_intercept=self.fit_intercept,
            class_weight=self.class_weight,
            max_iter=self.max_iter,
        )
        return self._copy_to(plain)


_ESTIMATORS: dict[str, type[_LinearModel]] = {
    "linear": LinearRegression,
    "ridge": Ridge,
    "logistic": LogisticRegression,
}


def load(path: str | os.PathLike[str]) -> Any:
    """Return the fitted estimator that `save`, or a run of the command line, wrote.

    A regression of one output is taken to have had a y of one axis.

    Parameters
    ----------
    path : the folder

    Returns
    -------
    LinearRegression, Ridge or LogisticRegression

    Raises
    ------
    InvalidRun
        where the folder is no saved model, is damaged, or was written by a later release.
    """
    fitted = load_fitted(path)
    estimator_class = _ESTIMATORS[fitted.model.name]
    names = set(estimator_class().get_params()) - set(_NOT_OF_MODEL)
    settings = {name: getattr(fitted.model, name) for name in names}
    if isinstance(fitted.model.class_weight, Mapping):
        # JSON names labels by text.
        weights = fitted.model.class_weight
        settings["class_weight"] = {
            label: weights[str(label)] for label in fitted.classes if str(label) in weights
        }
    # scikit-learn's have numbers where the command line may leave the choice open.
    settings["tol"] = fitted.model.tolerance
    if estimator_class is LogisticRegression:
        settings["max_iter"] = fitted.model.iterations
    return estimator_class(**settings)._restored(fitted)  # noqa: SLF001 (a class of this file)


def _seed(random_state: Any) -> int | None:
    """Return a seed, drawn where a generator is given; None leaves drawing one to the engine."""
    if random_state is None:
        return None
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


def _row_weights(X: NDArray[np.floating], sample_weight: Any) -> Array | None:
    """Return the weight of each row, checked; a number stands for that of every row."""
    if sample_weight is None:
        return None
    if isinstance(sample_weight, Real):
        sample_weight = np.full(len(X), sample_weight, np.float64)
    weight: Array = check_array(
        sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if weight.ndim != 1:
        raise ValueError(f"sample_weight has shape {weight.shape}; give one number a row")
    check_consistent_length(X, weight)
    if (weight < 0).any():
        raise ValueError("sample_weight holds negative numbers; a row weighs 0 at the least")
    return weight
