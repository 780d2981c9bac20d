"""Training data and seeds of estimators, checked as scikit-learn does."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from ooc_train.core.settings import Setting, settings_of
from ooc_train.core.sums import Array
from ooc_train.estimators.fit_callbacks import CallbackSupport
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.model import Model
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.array_inputs import dense
from ooc_train.stream.array_source import ArraySource, beside
from ooc_train.stream.feature_names import column_order, require_row_shape
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.inputs import as_store, read_inputs, read_targets
from ooc_train.stream.kinds import as_labels, as_numbers, is_dask, require_arrays
from ooc_train.stream.labels_and_weights import is_stored
from ooc_train.stream.sources import model_dtype

DTYPES = [np.float64, np.float32]
"""Types of X that estimators take without a copy."""


Rows = tuple[Any, Any, Any]
"""X, y and sample_weight as `fit` takes them; None for what was not passed."""

NO_ROWS: Rows = (None, None, None)

_EARLY_STOPPING_FRACTION = 0.1
"""Share of the rows that early stopping keeps out where no validation rows are passed."""

EARLY_STOPPING = Setting(
    settings_of(Training)["early_stopping"].constraint,
    "End when the validation loss no longer falls; keep the best parameters. An `EarlyStopping` "
    "has a patience of its own. Without `X_val` and `validation_fraction`, a tenth of the rows is "
    "kept out for it.",
)
"""What is declared of the parameter by estimators that keep rows out, as scikit-learn's do."""


def with_validation_share(parameters: dict[str, Any], validation: Rows) -> dict[str, Any]:
    """Return parameters that keep rows out of training, if early stopping has none else."""
    no_rows = validation[0] is None and parameters["validation_fraction"] is None
    if parameters["early_stopping"] and no_rows:
        return parameters | {"validation_fraction": _EARLY_STOPPING_FRACTION}
    return parameters


@dataclass(frozen=True, eq=False)
class ValidatedData:
    """Training data that an estimator has checked.

    Attributes
    ----------
    inputs : Inputs
        The rows.
    flat : bool
        Whether y has one axis.
    labels : dtype or None
        Type of the caller's labels; None for the type of the classes found.
    """

    inputs: Inputs
    flat: bool
    labels: np.dtype[Any] | None


def seed_of(random_state: Any, *, used: bool) -> int | None:
    """Return the seed of a fit, or None if the fit itself is to draw one.

    Parameters
    ----------
    random_state : None, int or RandomState
        The setting of the estimator.
    used : bool
        Whether the fit draws at random. If not, a generator keeps its state, as in
        scikit-learn.
    """
    if random_state is None:
        return None
    if isinstance(random_state, Integral):
        return int(random_state)
    generator = check_random_state(random_state)
    return int(generator.randint(2**31)) if used else None


def require_columns(X: Any) -> None:
    """Raise `ValueError` unless a Dask array has two axes, as scikit-learn does for others."""
    if X.ndim != 2:
        raise ValueError(
            f"Found array with dim {X.ndim}, while dim <= 2 is required: X has shape {X.shape}; "
            "pass X.reshape(len(X), -1), or a store of such rows, or use ooc_train.train"
        )


def row_weights(X: NDArray[np.floating], sample_weight: Any) -> Array | None:
    """Return the checked weight of each row; a number is the weight of every row."""
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


class ValidatingEstimator(CallbackSupport, BaseEstimator):  # type: ignore[misc] # untyped base
    """An estimator that checks its data, and the columns of its data."""

    _model_class: ClassVar[type[Model]]
    _single_output: ClassVar[bool] = False
    """Whether y has one column."""
    memory_ceiling: str | int | Ceiling | None
    _row_shape: tuple[int, ...] | None = None
    """Shape of a row of the training data that has several axes, as of an image."""

    @property
    def _classifies(self) -> bool:
        return bool(is_classifier(self))

    def _validated(
        self, X: Any, y: Any, sample_weight: Any, *, first: bool, classes: Sequence[Any] = ()
    ) -> ValidatedData:
        """Return training data as inputs of a job.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        first : bool
            Whether these data determine the columns of the estimator, or must have its columns.
        classes : sequence
            Labels in the order of their codes, if they are known beforehand.
        """
        if is_stored(X):
            store = as_store(X)
            self._note_shape(store.row_shape, store.path, first=first)
            self._note_features(store.n_features, store.feature_names, store.path, first=first)
            inputs = self._read(store, y, sample_weight, classes)
            read = inputs.store
            labels = None if is_stored(y) else getattr(y, "dtype", None)
            return ValidatedData(
                inputs,
                read is not None and read.y is not None and not read.y.row_shape,
                labels if isinstance(labels, np.dtype) else None,
            )
        y, sample_weight = read_targets(y, sample_weight)
        require_arrays(X, y, sample_weight)
        if is_dask(X):
            require_columns(X)
            self._note_shape(None, "X", first=first)
            self._note_features(X.shape[1], None, "X", first=first)
            inputs = self._read(X, y, sample_weight, classes)
            dtype = getattr(y, "dtype", None)
            labels = dtype if isinstance(dtype, np.dtype) and dtype.kind in "biuf" else None
            return ValidatedData(inputs, np.ndim(y) == 1, labels)
        given = X, y, sample_weight
        if y is not None and self._classifies:
            y = as_labels(y)
        elif np.asarray(y).dtype.kind == "O" and y is not None:
            y = as_numbers(y, "y", np.float64)
        X, y = validate_data(
            self,
            self._columns_of(X, first=first),
            y,
            reset=first,
            dtype=DTYPES,
            order="C",
            multi_output=not self._classifies,
            y_numeric=not self._classifies,
        )
        if self._classifies:
            check_classification_targets(y)
        if self._classifies or self._single_output:
            y = column_or_1d(y, warn=True)
        inputs = self._read(X, y, row_weights(X, sample_weight), classes)
        source = inputs.source
        if isinstance(source, ArraySource):
            source = beside(source, *given)
        inputs = replace(
            inputs, source=source, feature_names=self._names(), row_shape=self._row_shape
        )
        return ValidatedData(inputs, y.ndim == 1, y.dtype)

    def _rows_to_predict(
        self, X: Any, *, named: bool
    ) -> tuple[NDArray[Any], np.dtype[np.floating]]:
        """Return checked rows (rows, features) in memory, and the type in which models read them.

        Arrays and frames of numbers are not converted here, so that no copy is made of all rows.
        If not `named`, arrays without names of columns are as good as frames with them.
        """
        numbers = hasattr(X, "iloc") or (isinstance(X, np.ndarray) and X.dtype.kind in "biuf")
        how: dict[str, Any] = {"dtype": "numeric"} if numbers else {"dtype": DTYPES, "order": "C"}
        are_images = isinstance(X, np.ndarray) and X.ndim > 2
        if are_images:
            self._note_shape(X.shape[1:], "X", first=False)
            X = X.reshape(len(X), math.prod(X.shape[1:])) if numbers else dense(X)[0]
        if isinstance(X, np.ndarray) and not named:
            X = check_array(X, **how)
            self._require_features(X.shape[1])
        else:
            X = validate_data(self, X, reset=False, **how)
        dtype = X.dtype if X.dtype in DTYPES else np.float64
        return X, np.dtype(model_dtype(X.dtype) if are_images else dtype)

    def _columns_of(self, X: Any, *, first: bool = False) -> Any:
        """Return rows of several axes as columns, once their shape is noted; others unchanged."""
        shape = None
        if isinstance(X, np.ndarray) and X.ndim > 2:
            X, shape = dense(X)
        if first or shape is not None:
            self._note_shape(shape, "X", first=first)
        return X

    def _validation_inputs(self, rows: Rows, inputs: Inputs) -> Inputs | None:
        """Return validation rows, which go with the training rows `inputs`; None without rows."""
        X, y, sample_weight = rows
        if X is None:
            if y is not None or sample_weight is not None:
                raise ValueError("y_val and sample_weight_val need X_val, which was not passed")
            return None
        return self._validated(X, y, sample_weight, first=False, classes=inputs.classes).inputs

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
        """Return the names of the columns of the training data, or None."""
        names = getattr(self, "feature_names_in_", None)
        return None if names is None else tuple(names.tolist())

    def _note_shape(self, shape: tuple[int, ...] | None, what: str, *, first: bool) -> None:
        """Set the shape of rows of several axes on the `first` call; compare later data."""
        if first:
            self._row_shape = shape
        require_row_shape(self._row_shape, shape, model=f"this {type(self).__name__}", data=what)

    def _note_features(
        self, n: int, names: tuple[str, ...] | None, what: str, *, first: bool
    ) -> None:
        """Set `n_features_in_` and `feature_names_in_` on the `first` call; compare later data."""
        if not first:
            self._require_features(n, names, what)
            return
        self.n_features_in_ = n
        if names is not None:
            self.feature_names_in_ = np.asarray(names, object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _require_dask_features(self, X: Any) -> None:
        """Raise `ValueError` unless a Dask array has two axes and the number of columns fitted."""
        require_columns(X)
        self._require_features(X.shape[1])

    def _require_features(
        self, n: int, names: tuple[str, ...] | None = None, what: str = "X"
    ) -> None:
        """Raise `ValueError` if names or number of columns differ from those of the fit."""
        column_order(self._names(), names, model=f"this {type(self).__name__}", data=what)
        if n != self.n_features_in_:
            raise ValueError(
                f"X has {n} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
