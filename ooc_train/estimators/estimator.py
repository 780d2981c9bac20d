"""The base of all estimators: they fit, predict, and are saved."""

import os
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, replace
from functools import partial
from typing import Any, ClassVar, Self
from warnings import warn

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from ooc_train.core.sums import Array
from ooc_train.estimators.fit_callbacks import bar_of, following, with_callbacks
from ooc_train.estimators.predicting import Postprocess, write_predictions
from ooc_train.estimators.shared_parameters import settings_from
from ooc_train.estimators.validation import NO_ROWS, Rows, ValidatingEstimator, seed_of
from ooc_train.inference.outputs import Kind
from ooc_train.inference.predict import evaluate, predict
from ooc_train.inference.raw_files import predict_files
from ooc_train.models.calibration import Calibration
from ooc_train.models.model import Model
from ooc_train.models.predictor import LinearPredictor, Predictor
from ooc_train.runs.events import Stepped
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report, report_of
from ooc_train.solvers.training_settings import Training
from ooc_train.store.dataset import Store
from ooc_train.stream.inputs import as_store
from ooc_train.stream.kinds import is_dask, require_arrays
from ooc_train.stream.labels_and_weights import is_stored
from ooc_train.stream.plan import Plan
from ooc_train.tables.features import Unseen
from ooc_train.tables.recipe import Recipe
from ooc_train.training.loop import train
from ooc_train.training.partial_fit import learn
from ooc_train.training.partial_fit_state import PartialFit
from ooc_train.training.planning import plan


class Estimator(ValidatingEstimator):
    """The base of all estimators: fits, predicts, scores and saves."""

    _partial_fit_state: PartialFit | None = None
    _recipe: Mapping[str, Any] | None = None
    _calibration: Calibration | None = None
    """That of the copy which a `CalibratedClassifier` predicts by."""

    random_state: int | np.random.RandomState | None
    _model_class: ClassVar[type[Model]]
    model_: Model
    training_: Training
    coef_: Array
    intercept_: Any
    report_: Report

    def _parameters(self, validation: Rows) -> dict[str, Any]:
        """Return the parameters of the estimator, each by the name of its setting."""
        del validation
        return dict(self.get_params(deep=False))

    def _settings(self, validation: Rows = NO_ROWS) -> tuple[Model, Training]:
        """Return the model and the training that the parameters state, for these validation rows.

        Raises
        ------
        ValueError
            If a setting cannot be used.
        """
        parameters = self._parameters(validation)
        model = self._model_class(**settings_from(self._model_class, parameters))
        training = Training(**settings_from(Training, parameters | {"random_state": None}))
        seed = seed_of(self.random_state, used=training.draws(model))
        return model, replace(training, random_state=seed)

    def _fit(
        self, rows: Rows, validation: Rows = NO_ROWS, *, warm: bool = False, checkpoint: Any = None
    ) -> Self:
        report = self._train(rows, validation, warm=warm, checkpoint=checkpoint)
        if report.shortfall:
            warn(f"{report.solver}: {report.shortfall}", ConvergenceWarning, stacklevel=3)
        return self

    @with_callbacks
    def _train(self, rows: Rows, validation: Rows, *, warm: bool, checkpoint: Any) -> Report:
        """Fit the model, and set the fitted attributes."""
        model, training = self._settings(validation)
        start = self._fitted() if warm and hasattr(self, "report_") else None
        data = self._validated(*rows, first=True)
        if start is not None and start.classes != data.inputs.classes:
            raise ValueError(
                f"warm_start=True goes on with the classes {list(start.classes)}, and y has "
                f"{list(data.inputs.classes)}; set warm_start=False to start afresh"
            )
        max_iter = training.max_iter or model.default_max_iter
        attributes = partial(self._attributes, flat=data.flat, labels=data.labels)
        interrupt: KeyboardInterrupt | None = None
        with following(self, rows, max_iter, attributes) as callbacks:
            try:
                fitted, report = train(
                    model,
                    data.inputs,
                    training,
                    validation=self._validation_inputs(validation, data.inputs),
                    callbacks=callbacks,
                    memory_ceiling=self.memory_ceiling,
                    start=start,
                    checkpoint=checkpoint,
                )
            except KeyboardInterrupt as caught:
                so_far = vars(caught)
                if "fitted" not in so_far:
                    raise
                interrupt, fitted, report = caught, so_far["fitted"], so_far["report"]
        self._keep(fitted, report, flat=data.flat, labels=data.labels)
        self._partial_fit_state = None
        if interrupt is not None:
            raise interrupt
        return report

    def _attributes(
        self, fitted: Fitted, step: Stepped, *, flat: bool, labels: np.dtype[Any] | None
    ) -> dict[str, Any]:
        """Return the attributes of the model after a step of a fit that has no report yet."""
        fit_so_far = copy(self)
        # Of a report, it takes the number of iterations only.
        fit_so_far._keep(fitted, step, flat=flat, labels=labels)  # type: ignore[arg-type] # noqa: SLF001
        return {name: each for name, each in vars(fit_so_far).items() if name != "report_"}

    def plan(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Plan:
        """Return the memory plan of `fit`, without fitting; notebooks show it as a table.

        Parameters
        ----------
        X, y, sample_weight, X_val, y_val, sample_weight_val
            As for `fit`.

        Returns
        -------
        Plan
            Its terms, whether they fit the ceiling, and the smallest ceiling that they fit.

        Raises
        ------
        ValueError
            If a setting or the data cannot be used.
        """
        # On a copy, since validation sets attributes and draws a seed.
        blank: Self = clone(self)
        inputs = blank._validated(X, y, sample_weight, first=True).inputs
        model, training = blank._settings((X_val, y_val, sample_weight_val))
        return plan(
            model,
            inputs,
            training,
            validation=blank._validation_inputs((X_val, y_val, sample_weight_val), inputs),
            memory_ceiling=self.memory_ceiling,
        )

    def _partial_fit(
        self, X: Any, y: Any, sample_weight: Any, classes: NDArray[Any] | None = None
    ) -> Self:
        model, training = self._settings()
        first = not hasattr(self, "report_")
        start = None if first or self._partial_fit_state is not None else self._fitted()
        known = () if classes is None else tuple(classes.tolist())
        data = self._validated(X, y, sample_weight, first=first, classes=known)
        recipe = self._recipe
        self._partial_fit_state, fitted, report = learn(
            model,
            data.inputs,
            training,
            self._partial_fit_state,
            start=start,
            memory_ceiling=self.memory_ceiling,
        )
        names = self._names()
        if names is not None and fitted.feature_names not in (names, None):
            # Coefficients and recipe keep the column order of the first rows.
            fitted = fitted.for_columns(names, len(names), "the model")
            fitted = replace(fitted, recipe=recipe)
        labels = data.labels if classes is None else classes.dtype
        self._keep(fitted, report, flat=data.flat, labels=labels)
        return self

    def _keep(
        self, fitted: Fitted, report: Report, *, flat: bool, labels: np.dtype[Any] | None
    ) -> None:
        """Set the fitted attributes from a model and its report."""
        raise NotImplementedError

    def _labels(self) -> NDArray[Any] | None:
        return getattr(self, "classes_", None)

    def _fitted(self) -> Fitted:
        """Return the fitted attributes as a `Fitted`, which the rest of the package takes."""
        check_is_fitted(self)
        labels = self._labels()
        return Fitted(
            self.model_,
            self._predictor(),
            () if labels is None else tuple(labels.tolist()),
            self._names(),
            recipe=self._recipe,
            training=self.training_,
            row_shape=self._row_shape,
            calibration=self._calibration,
        )

    def _predictor(self) -> Predictor:
        """Return the predictor made of the fitted attributes, which users may have changed."""
        coef = np.atleast_2d(np.asarray(self.coef_, np.float64))
        intercept = np.broadcast_to(np.asarray(self.intercept_, np.float64), coef.shape[:1])
        return LinearPredictor(coef, intercept)

    @property
    def _is_flat(self) -> bool:
        """Whether predictions of one output have one axis."""
        return np.ndim(self.coef_) == 1

    @property
    def recipe_(self) -> Recipe | None:
        """The recipe that makes features of raw columns by ``recipe_.apply(table)``, or None."""
        return None if self._recipe is None else Recipe.from_json(self._recipe)

    @property
    def history_(self) -> Any:
        """The history of the last fit, a row for each iteration or epoch: a `pandas.DataFrame`."""
        import pandas as pd

        # The profile of a step is a mapping; `report_.profile` has the sum over all steps.
        frame = pd.DataFrame([asdict(step) for step in self.report_.history])
        return frame.drop(columns="profile", errors="ignore")

    def _predict(self, X: Any, kind: Kind, out: str | os.PathLike[str] | None) -> Any:
        """Return predictions in memory, as a lazy Dask array, or as the path of a store."""
        fitted = self._fitted()
        flat = kind == "decision" and fitted.n_outputs == 1
        postprocess = Postprocess(fitted, kind, self._labels(), flat or self._is_flat)
        if not is_stored(X):
            require_arrays(X)
        if is_stored(X):
            X = as_store(X)
            self._require_features(X.n_features, X.feature_names, X.path)
        elif is_dask(X):
            self._require_dask_features(X)
        else:
            rows, dtype = self._rows_to_predict(X, named=self._recipe is None)
        with bar_of(self) as bar:
            on: dict[str, Any] = {"memory_ceiling": self.memory_ceiling, "progress": bar.progress}
            if out is not None:
                return write_predictions(fitted, X, out, kind, on)
            if is_stored(X):
                return postprocess.values(predict(fitted, X, kind, **on))
        return postprocess.lazy(X) if is_dask(X) else postprocess.in_blocks(rows, dtype)

    def predict(self, X: Any, *, out: str | os.PathLike[str] | None = None) -> Any:
        """Predict for each row.

        Parameters
        ----------
        X : store, path, Zarr, Dask array or array-like of shape (n_samples, n_features)
            The rows.
        out : path, optional
            A store to write, with the array "prediction". If X is a store, also a .csv or .parquet
            file. None returns predictions.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Classes or values. A lazy Dask array if X is a Dask array; `out` if it was passed.

        Raises
        ------
        ValueError
            If X has other features than the training data. Columns of a store with names are
            matched by name, other columns by position.
        OutputExists
            If `out` exists.
        """
        return self._predict(X, "prediction", out)

    def predict_files(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        out: str | os.PathLike[str],
        *,
        proba: bool = False,
        keep: Sequence[str] = (),
        overwrite: bool = False,
        unseen: Unseen | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
    ) -> str:
        """Predict for each row of raw files of any size, by the recipe of the training data.

        Parameters
        ----------
        paths : path or sequence of paths
            Files, patterns or folders of CSV or Parquet.
        out : path
            Output: .csv, .tsv, .parquet, or else a Zarr store.
        proba : bool
            Whether the probability of each class is written too.
        keep : sequence of str
            Columns of the files that a table repeats beside the predictions.
        overwrite : bool
            Whether an existing output is replaced.
        unseen : {"error", "other", "ignore"}, optional
            Treatment of values that no training row had; None is that of the recipe.
        delimiter, encoding : str, optional
            Delimiter and encoding of CSV; by default those of the training files.

        Returns
        -------
        str
            `out`.

        Raises
        ------
        InvalidRun
            If the training data were not made by `ingest`.
        TableNotFound, InvalidTable
            If a file, a column or a value can't be used.
        OutputExists
            If `out` exists and `overwrite` is off.
        """
        kinds: tuple[Kind, ...] = ("prediction", "probability") if proba else ("prediction",)
        if proba and not self._classifies:
            raise ValueError(f"proba=True is for classes, and {type(self).__name__} has none")
        predict_files(
            self._fitted(),
            paths,
            out,
            kinds=kinds,
            keep=keep,
            overwrite=overwrite,
            unseen=unseen,
            delimiter=delimiter,
            encoding=encoding,
            memory_ceiling=self.memory_ceiling,
        )
        return os.fspath(out)

    def _score(self, X: Any, y: Any, sample_weight: Any) -> float:
        """Return the score on data that are not in memory, by one pass."""
        fitted = self._fitted()
        if not is_stored(X):
            require_arrays(X, y, sample_weight)
        data = as_store(X) if is_stored(X) else X
        if isinstance(data, Store):
            self._require_features(data.n_features, data.feature_names, data.path)
        else:
            self._require_dask_features(X)
        inputs = self._read(data, y, sample_weight, fitted.classes)
        metrics, _ = evaluate(fitted, inputs, memory_ceiling=self.memory_ceiling)
        return float(metrics["accuracy" if self._classifies else "r2"])

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the fitted model to a folder of numbers and JSON, which `load` reads.

        Parameters
        ----------
        path : path
            The folder to make.
        overwrite : bool
            Whether an existing saved model is replaced.

        Raises
        ------
        OutputExists
            If the path exists and may not be replaced.
        """
        self.to_fitted().save(path, overwrite=overwrite)

    def to_fitted(self) -> Fitted:
        """Return the fitted model as plain numbers and settings, as `train` does."""
        return replace(self._fitted(), report=self.report_.to_json())

    def _restored(self, fitted: Fitted, run: str) -> Self:
        """Set the fitted attributes from a saved model, the run at a path."""
        self._note_features(fitted.n_features, fitted.feature_names, "the model", first=True)
        self._row_shape = fitted.row_shape
        report = report_of(fitted.report, run)
        self._keep(fitted, report, flat=fitted.n_outputs == 1, labels=None)
        return self
