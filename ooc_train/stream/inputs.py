"""The data of a user as inputs of a job: a store, a path, Zarr, NumPy or Dask arrays.

Labels become codes, 0 to k - 1 in sorted order. The manifest of a store tells classes, weights and
statistics of columns. Labels and weights that a manifest does not summarise must be read before
there can be a plan; they are read in pieces, within the ceiling.
"""

from dataclasses import replace
from typing import Any

from ooc_train.core.text import counted
from ooc_train.memory.ceiling import Ceiling
from ooc_train.store.dataset import Store
from ooc_train.store.opening.opener import open_store
from ooc_train.stream.array_inputs import dense, names_of, read_arrays, read_dask
from ooc_train.stream.array_source import ArraySource, beside
from ooc_train.stream.classes import Label, plain
from ooc_train.stream.dask_arrays import aligned
from ooc_train.stream.dask_source import dask_source
from ooc_train.stream.feature_names import column_order, require_row_shape
from ooc_train.stream.input_data import Inputs, PredictionInputs
from ooc_train.stream.kinds import is_dask, require_arrays
from ooc_train.stream.labels_and_weights import is_stored, read_at_rest, with_arrays
from ooc_train.stream.store_inputs import read_store, require_memory_for_labels
from ooc_train.stream.store_source import StoreSource


def as_store(X: Any) -> Store:
    """Return a store, or the store at a path, URL or Zarr group."""
    return X if isinstance(X, Store) else open_store(X)


def read_inputs(
    X: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    classifier: bool,
    classes: tuple[Label, ...] = (),
    memory_ceiling: str | int | Ceiling | None = None,
) -> Inputs:
    """Return training data as `Inputs`.

    Parameters
    ----------
    X : Inputs, Store, path, Zarr group or array, ndarray (rows, features), or Dask array
        The rows. `Inputs` are returned as they are. The values of a row of several axes, such as
        (height, width), become columns.
    y, sample_weight : array, path, URL, Zarr array or store, optional
        Targets and weights. They replace those of a store.
    classifier : bool
        Whether y holds labels.
    classes : tuple
        Labels in the order of their codes, if they are known beforehand.
    memory_ceiling : int, str, Ceiling or None
        Limits the reading of labels or weights that a manifest doesn't summarise. None is half of
        the available memory.

    Raises
    ------
    CeilingExceeded
        If labels or weights do not fit the ceiling, before they are read.
    InvalidStore
        If a store has no y, has labels that can't be used, or has class codes that a regression
        would learn.
    ValueError
        If y is missing, has another length than X, or has a single class.
    """
    if isinstance(X, Inputs):
        if y is not None or sample_weight is not None:
            raise ValueError("these inputs have y and sample_weight already; leave both out")
        return X
    classes = tuple(plain(label) for label in classes)
    if is_stored(X):
        replaced = with_arrays(
            as_store(X),
            y,
            sample_weight,
            classifier=classifier,
            classes=classes,
            memory_ceiling=memory_ceiling,
        )
        require_memory_for_labels(replaced.store, memory_ceiling, classifier=classifier)
        inputs = read_store(replaced.store, classifier=classifier, classes=classes)
        inputs = replace(inputs, notes=replaced.notes + inputs.notes, scratch=replaced.scratch)
    elif is_dask(X):
        y, sample_weight = read_targets(y, sample_weight)
        inputs = read_dask(X, y, sample_weight, classifier=classifier, classes=classes)
    else:
        y, sample_weight = read_targets(y, sample_weight)
        inputs = read_arrays(X, y, sample_weight, classifier=classifier, classes=classes)
    if classifier and not classes and len(inputs.classes) < 2:
        raise ValueError(
            f"y has one class only, {inputs.classes[0]!r}: a classifier needs at least 2 classes; "
            "check how y was made"
        )
    return inputs


def read_targets(y: Any, sample_weight: Any) -> tuple[Any, Any]:
    """Return y and weights for an X that is no store; stored arrays are read into memory."""
    if is_stored(y):
        y = read_at_rest(y, "y")
    if is_stored(sample_weight):
        sample_weight = read_at_rest(sample_weight, "sample_weight")
    return y, sample_weight


def read_validation(
    validation: Any,
    inputs: Inputs,
    *,
    classifier: bool,
    memory_ceiling: str | int | Ceiling | None = None,
) -> Inputs:
    """Return validation data, which must match the training data.

    `ValueError` is raised if columns, outputs or classes differ, or if all weights are 0.
    """
    found = read_inputs(
        validation, classifier=classifier, classes=inputs.classes, memory_ceiling=memory_ceiling
    )
    source, other = inputs.source, found.source
    require_row_shape(
        inputs.row_shape,
        found.row_shape,
        model="the data to learn from",
        data="the validation data",
    )
    column_order(
        inputs.feature_names,
        found.feature_names,
        model="the data to learn from",
        data="the validation data",
    )
    if (source.n_features, found.classes) != (other.n_features, inputs.classes):
        raise ValueError(
            f"the validation rows have {counted(other.n_features, 'column')} and the classes "
            f"{list(found.classes)}, those to learn from {source.n_features:,} and "
            f"{list(inputs.classes)}; use a store that was made with them"
        )
    if source.n_outputs != other.n_outputs:
        raise ValueError(
            f"y of the validation rows has {counted(other.n_outputs, 'column')}, and that of those "
            "to "
            f"learn from {source.n_outputs:,}; use a store that was made with them"
        )
    if not found.total_weight > 0:
        raise ValueError("the weights of all validation rows add up to 0; some must be above zero")
    return found


def read_features(X: Any) -> PredictionInputs:
    """Return data to predict for, without y."""
    if is_stored(X):
        store = as_store(X)
        source = StoreSource.of(store, needs_y=False)
        return PredictionInputs(
            source, store.path, store.feature_names, store.row_id, store.row_shape
        )
    if is_dask(X):
        rows = dask_source(aligned(X)[0])
        return PredictionInputs(rows, row_shape=X.shape[1:] if X.ndim > 2 else None)
    require_arrays(X)
    values, row_shape = dense(X)
    arrays = beside(ArraySource(values), X)
    return PredictionInputs(arrays, feature_names=names_of(X), row_shape=row_shape)
