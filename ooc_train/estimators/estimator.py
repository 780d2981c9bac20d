"""What all estimators share: learning, predicting, and being saved."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar, Self
from warnings import warn

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from ooc_train.core.sums import Array
from ooc_train.estimators.predicting import Finish
from ooc_train.estimators.validation import Given, row_weights, seed_of
from ooc_train.inference.outputs import Kind
from ooc_train.inference.predict import evaluate, predict, predict_store
from ooc_train.inference.raw_files import predict_files
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.predictor import LinearPredictor
from ooc_train.models.settings import UPDATES, Model, Name
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report, report_of
from ooc_train.store.dataset import Store
from ooc_train.stream.feature_names import column_order
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.inputs import as_store, read_inputs, read_targets
from ooc_train.stream.kinds import as_labels, as_numbers, is_dask, require_arrays
from ooc_train.stream.labels_and_weights import is_stored
from ooc_train.stream.plan import Plan
from ooc_train.tables.features import Unseen
from ooc_train.tables.names import is_table
from ooc_train.tables.recipe import Recipe
from ooc_train.training.loop import train
from ooc_train.training.partial_fit import Progress, learn
from ooc_train.training.planning import plan

_DTYPES = [np.float64, np.float32]

NOT_OF_MODEL = ("memory_ceiling", "warm_start")
"""Parameters of estimators that are no settings of a `Model`."""


class LinearModel(BaseEstimator):  # type: ignore[misc] # untyped base
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
        for name in NOT_OF_MODEL:
            settings.pop(name, None)
        by_updates = str(settings["batch_size"]) != "full" or settings["solver"] in UPDATES
        seed = seed_of(self.random_state, used=by_updates)
        return Model(name=self._name, **settings | {"random_state": seed})

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
        if report.shortfall:
            warn(f"{report.solver}: {report.shortfall}", ConvergenceWarning, stacklevel=3)
        return self

    def plan(self, X: Any, y: Any = None, sample_weight: Any = None) -> Plan:
        """Return what `fit` would hold, without fitting, in a table that notebooks show.

        Parameters
        ----------
        X, y, sample_weight : as for `fit`

        Returns
        -------
        Plan
            With its terms, whether it fits, and the smallest ceiling that would do.

        Raises
        ------
        ValueError
            naming the setting that cannot be used, or what is wrong with the data.
        """
        # Of a copy: to look at data, or to draw a seed, leaves its marks.
        one: Self = clone(self)
        inputs = one._given(X, y, sample_weight, first=True).inputs
        return plan(one._model(), inputs, memory_ceiling=self.memory_ceiling)

    def _partial_fit(
        self, X: Any, y: Any, sample_weight: Any, classes: NDArray[Any] | None = None
    ) -> Self:
        model = self._model()
        first = not hasattr(self, "coef_")
        start = None if first or self._progress is not None else self._fitted()
        known = () if classes is None else tuple(classes.tolist())
        given = self._given(X, y, sample_weight, first=first, classes=known)
        recipe = self._recipe
        self._progress, fitted, report = learn(
            model, given.inputs, self._progress, start=start, memory_ceiling=self.memory_ceiling
        )
        names = self._names()
        if names is not None and fitted.feature_names not in (names, None):
            # What is kept stays in the order of the first rows, and so does the recipe.
            fitted = fitted.for_columns(names, len(names), "the model")
            fitted = replace(fitted, recipe=recipe)
        labels = given.labels if classes is None else classes.dtype
        self._keep(fitted, report, flat=given.flat, labels=labels)
        return self

    def _given(
        self, X: Any, y: Any, sample_weight: Any, *, first: bool, classes: Sequence[Any] = ()
    ) -> Given:
        """Return training data as inputs; the first say how many features there are."""
        if is_stored(X):
            store = as_store(X)
            self._note_features(store.n_features, store.feature_names, store.path, first=first)
            inputs = self._read(store, y, sample_weight, classes)
            read = inputs.store
            labels = None if is_stored(y) else getattr(y, "dtype", None)
            return Given(
                inputs,
                read is not None and read.y is not None and not read.y.row_shape,
                labels if isinstance(labels, np.dtype) else None,
            )
        y, sample_weight = read_targets(y, sample_weight)
        require_arrays(X, y, sample_weight)
        if is_dask(X):
            self._note_features(X.shape[1], None, "X", first=first)
            inputs = self._read(X, y, sample_weight, classes)
            dtype = getattr(y, "dtype", None)
            labels = dtype if isinstance(dtype, np.dtype) and dtype.kind in "biuf" else None
            return Given(inputs, np.ndim(y) == 1, labels)
        if y is not None and self._classifies:
            y = as_labels(y)
        elif np.asarray(y).dtype.kind == "O" and y is not None:
            y = as_numbers(y, "y", np.float64)
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
        inputs = self._read(X, y, row_weights(X, sample_weight), classes)
        inputs = replace(inputs, feature_names=self._names())
        return Given(inputs, y.ndim == 1, y.dtype)

    def _read(self, X: Any, y: Any, sample_weight: Any, classes: Sequence[Any]) -> Inputs:
        return read_inputs(
            X,
            y,
            sample_weight,
            classifier=self._classifies,
            classes=tuple(classes),
            memory_ceiling=self.memory_ceiling,
        )

    def _names(self) -> tuple[str, ...] | None:
        """Return the names of the columns that were learned from, or None."""
        names = getattr(self, "feature_names_in_", None)
        return None if names is None else tuple(names.tolist())

    def _note_features(
        self, n: int, names: tuple[str, ...] | None, what: str, *, first: bool
    ) -> None:
        """Note, or check, the columns of data that are not in memory."""
        if not first:
            self._require_features(n, names, what)
            return
        self.n_features_in_ = n
        if names is not None:
            self.feature_names_in_ = np.asarray(names, object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _require_features(
        self, n: int, names: tuple[str, ...] | None = None, what: str = "X"
    ) -> None:
        """Refuse columns that differ from those of the first fit, by name or by number."""
        column_order(self._names(), names, model=f"this {type(self).__name__}", data=what)
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
        labels = self._labels()
        coef = np.atleast_2d(np.asarray(self.coef_, np.float64))
        return Fitted(
            self.model_,
            LinearPredictor(
                coef, np.broadcast_to(np.asarray(self.intercept_, np.float64), coef.shape[:1])
            ),
            () if labels is None else tuple(labels.tolist()),
            self._names(),
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
        finish = Finish(fitted, kind, self._labels(), flat or np.ndim(self.coef_) == 1)
        if not is_stored(X):
            require_arrays(X)
        if is_stored(X):
            X = as_store(X)
            self._require_features(X.n_features, X.feature_names, X.path)
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
            where X has other features than those that were learned from. Columns of a store whose
            names are known are matched by name, those of other data by place.
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
        if not is_stored(X):
            require_arrays(X, y, sample_weight)
        data = as_store(X) if is_stored(X) else X
        if isinstance(data, Store):
            self._require_features(data.n_features, data.feature_names, data.path)
        else:
            self._require_features(X.shape[1])
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
        self.to_fitted().save(path, overwrite=overwrite)

    def to_fitted(self) -> Fitted:
        """Return what was learned as plain numbers and settings, as `train` does."""
        return replace(self._fitted(), report=self.report_.to_json())

    def _restored(self, fitted: Fitted, run: str) -> Self:
        """Take over what a saved model, a run at that path, had learned."""
        self._note_features(fitted.n_features, fitted.feature_names, "the model", first=True)
        report = report_of(fitted.report, run)
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
