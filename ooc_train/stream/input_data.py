"""Data that a job reads: rows, and what is known of them before X is read."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.format.statistics import ColumnStatistics
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.stream.checks import require_weights
from ooc_train.stream.classes import ROWS_AT_A_TIME, Label, codes_of
from ooc_train.stream.sources import Source
from ooc_train.stream.store_source import StoreSource


@dataclass(frozen=True, eq=False)
class Inputs:
    """Training data: the rows, and the classes and weights that are known before X is read.

    Attributes
    ----------
    kind : str
        "store", "arrays" or "dask".
    classes : tuple
        Labels in the order of their codes; empty for a regression.
    known_totals : ndarray of shape (n_classes,), or None
        Weight of the rows of each class; None if y and weights must be read for it.
    known_weight : float or None
        Sum of the weights; None if weights must be read for it.
    statistics : ColumnStatistics or None
        Statistics of the columns that a store carries, for the weights in use.
    scratch : object
        Keeps temporary arrays as long as it lives, or None.
    share_seed : int or None
        The seed that drew a share of the rows, as `hold_out` does; None for all rows.
    row_shape : tuple of int or None
        Shape of a row that had several axes, as of an image, before they became columns.
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
    share_seed: int | None = None
    row_shape: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """Name of the data in messages: the path of a store, or "the data"."""
        return "the data" if self.store is None else self.store.path

    @property
    def class_totals(self) -> Array | None:
        """Weight of the rows of each class, (classes,), or None for a regression."""
        if self.known_totals is not None or not self.classes:
            return self.known_totals
        return self._read[1]

    @property
    def total_weight(self) -> float:
        """Sum of the weights of all rows."""
        return self._read[0] if self.known_weight is None else self.known_weight

    @cached_property
    def _read(self) -> tuple[float, Array | None]:
        if not isinstance(self.source, StoreSource):
            raise TypeError("only a store has weights that are not known from the start")
        return _totals(self.source, len(self.classes))


@dataclass(frozen=True, eq=False)
class PredictionInputs:
    """Data to predict for.

    Attributes
    ----------
    name : str
        Name that messages use for the data.
    row_id : ArrayLayout or None
        Ids of the rows; None if the data have none.
    row_shape : tuple of int or None
        Shape of a row that had several axes, before they became columns.
    """

    source: Source
    name: str = "the data"
    feature_names: tuple[str, ...] | None = None
    row_id: ArrayLayout | None = None
    row_shape: tuple[int, ...] | None = None


def _totals(source: StoreSource, n_classes: int) -> tuple[float, Array | None]:
    """Return the weight of all rows and of each class; reads y and weights, not X."""
    totals, weight = np.zeros(n_classes), 0.0
    readers = {
        name: ChunkReader(layout)
        for name, layout in (("y", source.y), ("weight", source.weight))
        if layout is not None
    }
    rows = max(reader.layout.chunk_rows for reader in readers.values())
    # A chunk may hold all rows.
    rows = min(rows, ROWS_AT_A_TIME)
    for start, stop in source.stored_runs(rows):
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
