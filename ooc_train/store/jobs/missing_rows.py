"""Missing values of a store that is rewritten: their rows are dropped, or they are filled.

NaN is missing, and so is what the metadata of an array declare to be. Infinity is an error, as in
raw files.
"""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.prefetch import prefetched
from ooc_train.core.progress import Progress, row_counter
from ooc_train.core.text import counted
from ooc_train.errors import NonFiniteData
from ooc_train.memory.ceiling import Term
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.format.missing_values import MissingValues
from ooc_train.store.jobs.store_records import PIECE_BYTES, read_records, record_dtype
from ooc_train.tables.medians import BYTES_PER_COLUMN, MEDIAN_BYTES, medians
from ooc_train.tables.names import Missing
from ooc_train.tables.ranges import Ranges

_COPIES, _MASKS = 5, 4
"""Copies of a piece of X as float64, and masks of it."""

_COLUMN_BYTES = 128
"""Bytes of a column's counts, sums and fill."""


class MissingRows:
    """What becomes of missing values while a store is rewritten.

    Parameters
    ----------
    source : Store
        The store that is read.
    missing : {"error", "drop", "mean", "median"}
        As in `ingest`. Means and medians are those of the other rows, whatever their weights. A y
        that is missing is dropped, or an error; so is a missing category.

    Attributes
    ----------
    source : Store
        The store to read the rows from. Unless `missing` is "error", it has no statistics, and
        readers return what is declared to be missing.
    dropped, filled : int
        Rows that were dropped, and values that were filled, so far.

    Raises
    ------
    ValueError
        If `missing` is none of these, or X holds whole numbers that no mean can replace.
    """

    def __init__(self, source: Store, missing: Missing) -> None:
        if missing not in get_args(Missing):
            known = ", ".join(map(repr, get_args(Missing)))
            raise ValueError(f"missing={missing!r} is none of {known}")
        self.missing, self.dropped, self.filled = missing, 0, 0
        y = source.y
        self._declared: dict[str, MissingValues | None] = {
            "X": source.X.missing_values,
            "y": None if y is None else y.missing_values,
        }
        self._fills = np.zeros(0)
        if missing == "error":
            self.source = source
            return
        if missing != "drop" and source.dtype.kind != "f" and source.X.missing_values is not None:
            raise ValueError(
                f"missing={missing!r} fills X of {source.dtype} with fractions, which it cannot "
                "hold; drop the rows: missing='drop'"
            )
        X = replace(source.X, missing_values=None)
        # Codes of labels keep their check: a label that is missing has no code.
        if y is not None and y.coding is None:
            y = replace(y, missing_values=None)
        else:
            self._declared["y"] = None
        self.source = replace(source, X=X, y=y, statistics=None)

    @property
    def drops(self) -> bool:
        """Whether rows are dropped, so that the others need ids."""
        return self.missing == "drop"

    @property
    def note(self) -> str:
        """What was dropped or filled, in words; "" if nothing was."""
        if self.dropped:
            ids = "the others have their numbers in the source, or their ids, as row_id"
            return f"{counted(self.dropped, 'row')} with missing values left out; {ids}"
        if self.filled:
            of = f"the {self.missing} of the column"
            return f"{counted(self.filled, 'missing value')} replaced by {of}"
        return ""

    def terms(self) -> list[Term]:
        """Return the memory term of the treatment; none if missing values are an error."""
        return missing_terms(self.source.X, record_dtype(self.source), self.missing)

    def prepare(self, progress: Progress) -> None:
        """Find the means or medians, by further passes over the rows.

        Means take one pass. Medians take 3 more of float32 and 6 more of float64, again for each 64
        MiB of histograms (2,000 columns), or one more where a column has up to 1,365 values.

        Raises
        ------
        NonFiniteData
            If a value is infinite, or a y is missing.
        ValueError
            If all values of a column are missing.
        """
        if self.missing not in ("mean", "median"):
            return
        ranges = Ranges(self.source.n_features)
        for values in self._values(progress):
            ranges.add(values)
        if (ranges.valid == 0).any():
            column = int(np.argmin(ranges.valid))
            raise ValueError(
                f"column {column} of X has no value in any row, so no {self.missing}; write X "
                "without that column"
            )
        lacking = np.flatnonzero(ranges.missing)
        fills = np.full(self.source.n_features, np.nan)
        if self.missing == "mean":
            fills[lacking] = ranges.total[lacking] / ranges.valid[lacking]
        elif len(lacking):
            most = _median_bytes(self.source.n_features)
            fills[lacking] = medians(
                lambda: self._values(progress), lacking.tolist(), ranges.valid, most
            )
        self._fills = fills

    def _values(self, progress: Progress) -> Iterator[NDArray[Any]]:
        """Yield the rows of X as floats of at least 4 bytes, with NaN for missing values."""
        add_rows = row_counter(progress, f"finding {self.missing}s", self.source.n_rows)
        with closing(prefetched(read_records(self.source, record_dtype(self.source)))) as blocks:
            for records in blocks:
                X, absent, _ = self._found(records)
                values = X.astype(np.result_type(X.dtype, np.float32))
                values[absent] = np.nan
                yield values
                add_rows(len(records))

    def rows(self, blocks: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Yield blocks of records without missing values; `prepare` comes first.

        Raises
        ------
        NonFiniteData
            If a value is infinite, or a y is missing and not dropped.
        ValueError
            If all rows are dropped.
        """
        if self.missing == "error":
            yield from blocks
            return
        for records in blocks:
            X, absent, without_y = self._found(records)
            if self.missing == "drop":
                lost = absent.any(axis=1) | without_y
                self.dropped += int(lost.sum())
                yield records[~lost] if lost.any() else records
            else:
                for column in np.flatnonzero(absent.any(axis=0)):
                    X[absent[:, column], column] = self._fills[column]
                self.filled += int(absent.sum())
                yield records
        if self.dropped == self.source.n_rows:
            raise ValueError(
                f"every row of {self.source.path} has a missing value, and none would be left; "
                "fill them, missing='mean'"
            )

    def _found(
        self, records: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return X as columns, which of its values are missing, and which rows have no y."""
        X = records["X"].reshape(len(records), -1)
        absent = self._absent("X", X, records)
        without_y: NDArray[np.bool_] = np.zeros(len(records), bool)
        if "y" in (records.dtype.names or ()):
            y = records["y"].reshape(len(records), -1)
            without_y |= self._absent("y", y, records).any(axis=1)
        if without_y.any() and self.missing != "drop":
            row = records["row"][np.argmax(without_y)]
            raise NonFiniteData(
                f"row {row} has no y, and only X is filled; leave such rows out: missing='drop'"
            )
        return X, absent, without_y

    def _absent(self, role: str, values: NDArray[Any], records: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which values are missing; one that is infinite raises `NonFiniteData`."""
        declared = self._declared[role]
        if declared is None:
            absent = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        else:
            absent = declared.mask(values)
        if values.dtype.kind == "f" and (infinite := np.isinf(values) & ~absent).any():
            row, column = np.argwhere(infinite)[0]
            where = f"column {column} of X" if role == "X" else role
            raise NonFiniteData(
                f"row {records['row'][row]} has {values[row, column]} in {where}, and infinity is "
                "no missing value; correct it"
            )
        return absent


def missing_terms(X: ArrayLayout, record: np.dtype[Any], missing: Missing) -> list[Term]:
    """Return the memory term of `MissingRows`: pieces, their masks, and histograms of medians."""
    if missing == "error":
        return []
    columns = math.prod(X.row_shape)
    rows = max(1, PIECE_BYTES // record.itemsize)
    size = rows * (columns * (8 * _COPIES + _MASKS) + record.itemsize) + _COLUMN_BYTES * columns
    if missing == "median":
        size += _median_bytes(columns)
    return [Term("missing values", size, "a piece of rows, its masks, and figures of columns")]


def _median_bytes(columns: int) -> int:
    """Return the bytes of the histograms of medians that are found together."""
    return int(min(MEDIAN_BYTES, columns * BYTES_PER_COLUMN))
