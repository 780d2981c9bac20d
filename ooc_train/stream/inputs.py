"""What a user hands over, made a source: a store, a path, Zarr, NumPy or Dask arrays.

Labels of classes become codes here, 0 to k - 1 in sorted order; what is known of rows, weights and
columns without reading X is gathered here too. Of a store of ours the manifest tells it. Labels
that it doesn't name, and weights without statistics, have to be read before there can be a plan: in
pieces, within a ceiling, which is refused before where it is too small.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array
from ooc_train.core.text import listed
from ooc_train.errors import InvalidStore
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.format.statistics import ColumnStatistics
from ooc_train.store.jobs.rewriting_commands import rechunk_command
from ooc_train.store.jobs.store_records import arrays_of
from ooc_train.store.labels import has_labels, labels_term, with_classes
from ooc_train.store.opening.opener import open_store
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.stream.checks import require_finite, require_weights
from ooc_train.stream.classes import (
    ROWS_AT_A_TIME,
    Label,
    codes_of,
    codes_of_labels,
    labels_of,
    plain,
    require_labels,
)
from ooc_train.stream.dask_arrays import aligned, coded, label_weights
from ooc_train.stream.dask_source import dask_source
from ooc_train.stream.feature_names import column_order
from ooc_train.stream.kinds import as_labels, as_numbers, is_dask, require_arrays
from ooc_train.stream.labels_and_weights import is_stored, read_at_rest, with_given
from ooc_train.stream.sources import ArraySource, Source, StoreSource


@dataclass(frozen=True, eq=False)
class Inputs:
    """Rows, and what is known of them before X is read.

    Attributes
    ----------
    source : the rows
    kind : "store", "arrays" or "dask"
    classes : labels in the order of their codes; empty for regression
    known_totals : weight of the rows of each class, (classes,), or None where it would be read
    known_weight : sum of the rows' weights, or None where it would be read
    statistics : of the columns, where a store carries them for the weights that are in use
    feature_names : of the columns, or None
    store : the store, where there is one
    notes : what the report has to tell of the data
    scratch : what keeps temporary arrays of the store, or None
    """

    source: Source
    kind: str
    classes: tuple[Label, ...]
    known_totals: Array | None
    known_weight: float | None
    statistics: ColumnStatistics | None = None
    feature_names: tuple[str, ...] | None = None
    store: Store | None = None
    notes: tuple[str, ...] = ()
    scratch: object = None

    @property
    def name(self) -> str:
        """What messages call the rows: the path of their store, where there is one."""
        return "the data" if self.store is None else self.store.path

    @property
    def class_totals(self) -> Array | None:
        """Weight of the rows of each class, (classes,), or None for regression."""
        if self.known_totals is not None or not self.classes:
            return self.known_totals
        return self._read[1]

    @property
    def total_weight(self) -> float:
        """Sum of the rows' weights."""
        return self._read[0] if self.known_weight is None else self.known_weight

    @cached_property
    def _read(self) -> tuple[float, Array | None]:
        if not isinstance(self.source, StoreSource):
            raise TypeError("the weights of rows that lie in no store are known from the start")
        return _totals(self.source, len(self.classes))


def as_store(X: Any) -> Store:
    """Return X, a store or where one lies, as a store."""
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
    """Return training data as inputs; what is `Inputs` already, as it is.

    Parameters
    ----------
    X : Inputs, Store, path, Zarr group or array, NumPy array (rows, features), or Dask array
    y, sample_weight : arrays, or paths, URLs, Zarr arrays or stores of such; beside a store, None
        is its own, and others take their place
    classifier : whether y holds labels
    classes : labels in the order of their codes, where they are known beforehand
    memory_ceiling : bytes, text, a `Ceiling`, or None for half of what is available: for looking at
        the labels or weights of a store whose manifest does not tell of them

    Raises
    ------
    CeilingExceeded
        before anything is read, where they take more.
    InvalidStore
        where a store has no y, or labels where none can be, or where a regression would learn the
        codes of classes.
    ValueError
        where y is missing, of another length, or has one class only.
    """
    if isinstance(X, Inputs):
        if y is not None or sample_weight is not None:
            raise ValueError("these inputs have y and sample_weight already; leave both out")
        return X
    classes = tuple(plain(label) for label in classes)
    if is_stored(X):
        given = with_given(
            as_store(X),
            y,
            sample_weight,
            classifier=classifier,
            classes=classes,
            memory_ceiling=memory_ceiling,
        )
        _require_room(given.store, memory_ceiling, classifier=classifier)
        inputs = _read_store(given.store, classifier=classifier, classes=classes)
        inputs = replace(inputs, notes=given.notes + inputs.notes, scratch=given.scratch)
    elif is_dask(X):
        y, sample_weight = in_memory(y, sample_weight)
        inputs = _read_dask(X, y, sample_weight, classifier=classifier, classes=classes)
    else:
        y, sample_weight = in_memory(y, sample_weight)
        inputs = _read_arrays(X, y, sample_weight, classifier=classifier, classes=classes)
    if classifier and not classes and len(inputs.classes) < 2:
        raise ValueError(
            f"y has one class only, {inputs.classes[0]!r}: a classifier needs at least 2 classes; "
            "check how y was made"
        )
    return inputs


def in_memory(y: Any, sample_weight: Any) -> tuple[Any, Any]:
    """Return y and weights to go with an X that is no store: those at rest are read."""
    if is_stored(y):
        y = read_at_rest(y, "y")
    if is_stored(sample_weight):
        sample_weight = read_at_rest(sample_weight, "sample_weight")
    return y, sample_weight


def _require_room(
    store: Store, memory_ceiling: str | int | Ceiling | None, *, classifier: bool
) -> None:
    """Refuse to look at labels and weights that the ceiling has no room for."""
    weighted = store.sample_weight is not None and store.statistics is None
    looked_at = [store.y] if weighted or (classifier and store.classes is None) else []
    layouts = [a for a in (*looked_at, store.sample_weight if weighted else None) if a is not None]
    if not layouts:
        return
    with Budget(memory_ceiling) as budget:
        budget.require(
            [labels_term(*layouts)],
            f"rewrite the store in smaller chunks: {rechunk_command(store.path, arrays_of(store))}",
            alone="looking at labels and weights",
        )


def read_validation(
    validation: Any,
    inputs: Inputs,
    *,
    classifier: bool,
    memory_ceiling: str | int | Ceiling | None = None,
) -> Inputs:
    """Return rows to judge by, which have to go with those that are learned from.

    Parameters
    ----------
    validation : `Inputs`, or a store, or the path of one
    inputs : the rows that are learned from
    classifier : whether y holds labels
    memory_ceiling : as for `read_inputs`

    Raises
    ------
    ValueError
        where they have other columns (by name where both sides have names), outputs or classes,
        or no weight.
    """
    others = read_inputs(
        validation, classifier=classifier, classes=inputs.classes, memory_ceiling=memory_ceiling
    )
    ours, theirs = inputs.source, others.source
    column_order(
        inputs.feature_names,
        others.feature_names,
        model="the data to learn from",
        data="the validation data",
    )
    if (ours.n_features, others.classes) != (theirs.n_features, inputs.classes):
        raise ValueError(
            f"the validation rows have {theirs.n_features:,} columns and the classes "
            f"{list(others.classes)}, those to learn from {ours.n_features:,} and "
            f"{list(inputs.classes)}; use a store that was made with them"
        )
    if ours.n_outputs != theirs.n_outputs:
        raise ValueError(
            f"y of the validation rows has {theirs.n_outputs:,} columns, and that of those to "
            f"learn from {ours.n_outputs:,}; use a store that was made with them"
        )
    if not others.total_weight > 0:
        raise ValueError("the weights of all validation rows add up to 0; some must be above zero")
    return others


def _read_store(store: Store, *, classifier: bool, classes: tuple[Label, ...]) -> Inputs:
    if store.y is None:
        raise InvalidStore(
            f"{store.path} has no y, and training needs one; name it, as open_store(path, y=NAME), "
            "or put one into the store"
        )
    if not classifier and has_labels(store.y):
        raise InvalidStore(
            f"{store.path} has labels of classes in y, and a regression needs numbers; use the "
            "model 'logistic', or name an array of numbers"
        )
    labels = None
    found: tuple[Label, ...] = ()
    notes = [*store.notes]
    if not classifier and store.classes is not None:
        notes.append(_as_numbers(store.path, store.classes))
    if classifier:
        if store.y.row_shape:
            raise InvalidStore(
                f"{store.path} has a y of shape {store.y.shape}: labels are one column"
            )
        store = with_classes(store, classes)
        found, labels = labels_of(store, classes)
    source = StoreSource.of(store, labels=labels)
    statistics, weighted = store.statistics, store.sample_weight is not None
    if statistics is not None and statistics.weighted != weighted:
        statistics = None
    weight = totals = None
    if not weighted:
        weight = float(store.n_rows)
        if classifier and store.class_counts is not None:
            totals = np.array(store.class_counts, np.float64)
    elif statistics is not None:
        weight = statistics.weight
    return Inputs(
        source,
        "store",
        found,
        totals,
        weight,
        statistics,
        store.feature_names,
        store,
        tuple(notes),
    )


def _as_numbers(path: str, classes: tuple[Label, ...]) -> str:
    """Return the note that a regression takes classes as numbers, if they are those numbers.

    Raises
    ------
    InvalidStore
        where the codes that lie in y are other numbers than the labels, or labels are text.
    """
    if any(isinstance(label, str) or label != code for code, label in enumerate(classes)):
        raise InvalidStore(
            f"{path} has the classes {listed(classes)} as codes from 0, and a regression would "
            "learn the codes; use the model 'logistic', or ingest the target as a number (task "
            "'regression')"
        )
    return f"y holds the classes {listed(classes)}, which the regression takes as numbers"


def _totals(source: StoreSource, n_classes: int) -> tuple[float, Array | None]:
    """Return the weight of all rows and of each class, by reading y and weights but not X."""
    totals, weight = np.zeros(n_classes), 0.0
    readers = {
        name: ChunkReader(layout)
        for name, layout in (("y", source.y), ("weight", source.weight))
        if layout is not None
    }
    rows = max(reader.layout.chunk_rows for reader in readers.values())
    # Chunks may hold all rows there are.
    rows = min(rows, ROWS_AT_A_TIME)
    for start in range(0, source.n_rows, rows):
        stop = min(start + rows, source.n_rows)
        part = {}
        for name, reader in readers.items():
            values = np.empty((stop - start, *reader.layout.row_shape), reader.layout.dtype)
            reader.read_rows(start, stop, values)
            part[name] = values
        weights = part.get("weight", np.ones(stop - start)).astype(np.float64)
        require_weights(weights, start)
        weight += float(weights.sum())
        if n_classes:
            codes = part["y"]
            if source.labels is not None:
                codes = codes_of(np.asarray(source.labels), codes)
            totals += np.bincount(codes.astype(np.intp), weights, minlength=n_classes)
    source.require_same()
    return weight, totals if n_classes else None


def _read_arrays(
    X: Any, y: Any, sample_weight: Any, *, classifier: bool, classes: tuple[Label, ...]
) -> Inputs:
    if y is None:
        raise ValueError("training needs y")
    require_arrays(X, y, sample_weight)
    names, X = _names_of(X), _dense(X)
    weight = None
    if sample_weight is not None:
        weight = as_numbers(sample_weight, "sample_weight", np.float64)
    y = as_labels(y) if classifier else as_numbers(y, "y", np.float64)
    for name, values in (("y", y), ("sample_weight", weight)):
        if values is not None and len(values) != len(X):
            raise ValueError(f"X has {len(X):,} rows and {name} has {len(values):,}")
    if weight is not None:
        if weight.ndim != 1:
            raise ValueError(f"sample_weight has shape {weight.shape}; give one number a row")
        require_weights(weight, 0)
    found: tuple[Label, ...] = ()
    totals = None
    if classifier:
        if y.size != len(X):
            raise ValueError(f"y has shape {y.shape}: labels are one column")
        y = y.ravel()
        if y.dtype.kind == "f":
            require_finite(y, 0, "y")
        require_labels(y)
        labels = np.unique(y) if not classes else np.asarray(classes)
        y = codes_of_labels(labels, y)
        found = tuple(plain(label) for label in labels)
        totals = np.bincount(y, weight, minlength=len(found)).astype(np.float64)
    columns = np.require(y, np.float64, ("C", "A")).reshape(len(X), -1)
    source = ArraySource(X, columns, weight)
    total = float(len(X)) if weight is None else float(weight.sum())
    return Inputs(source, "arrays", found, totals, total, feature_names=names)


def _dense(X: Any) -> NDArray[np.floating]:
    """Return rows in memory as the compiled kernels take them, copied only where they differ."""
    X = X if isinstance(X, np.ndarray) else np.asarray(X)
    if X.ndim != 2:
        raise ValueError(f"X has shape {X.shape}; give one row a sample, as (rows, features)")
    if 0 in X.shape:
        raise ValueError(f"X has {len(X):,} rows and {X.shape[1]:,} columns; give some of both")
    return as_numbers(X, "X", np.float32 if X.dtype == np.float32 else np.float64)


def _read_dask(
    X: Any, y: Any, sample_weight: Any, *, classifier: bool, classes: tuple[Label, ...]
) -> Inputs:
    if y is None:
        raise ValueError("training needs y")
    X, y, weight = aligned(X, y, sample_weight)
    found: tuple[Label, ...] = ()
    totals, total = None, float(X.shape[0])
    if classifier and y.ndim == 2:
        if y.shape[1] != 1:
            raise ValueError(f"y has shape {y.shape}: labels are one column")
        y = y[:, 0]
    if classifier or weight is not None:
        looked_at = y if classifier else None
        labels, totals, total = label_weights(looked_at, weight, X.chunks[0], classes)
    if classifier:
        found = tuple(plain(label) for label in labels)
        y = coded(y, labels)
    return Inputs(dask_source(X, y, weight), "dask", found, totals, total)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows to predict for.

    Attributes
    ----------
    source : the rows
    name : what messages call them
    feature_names : of the columns, or None
    row_id : the ids of the rows of a store that has some, or None
    """

    source: Source
    name: str = "the data"
    feature_names: tuple[str, ...] | None = None
    row_id: ArrayLayout | None = None


def without_y(X: Any) -> Rows:
    """Return data to predict for."""
    if is_stored(X):
        store = as_store(X)
        source = StoreSource.of(store, needs_y=False)
        return Rows(source, store.path, store.feature_names, store.row_id)
    if is_dask(X):
        return Rows(dask_source(aligned(X)[0]))
    require_arrays(X)
    return Rows(ArraySource(_dense(X)), feature_names=_names_of(X))


def _names_of(X: Any) -> tuple[str, ...] | None:
    """Return the names of the columns of a data frame, or None where they are not all text."""
    names = tuple(getattr(X, "columns", ()))
    return names if names and all(isinstance(name, str) for name in names) else None
