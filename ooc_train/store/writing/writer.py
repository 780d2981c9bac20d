"""`StoreWriter`: rows in, a store out."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.atomic import PartialOutput
from ooc_train.core.text import counted
from ooc_train.store.dataset import Scalar, Store
from ooc_train.store.format.arrays import CODECS, CodecName
from ooc_train.store.format.chunk_sizes import default_chunk_rows, default_shard_rows
from ooc_train.store.format.pairs import PAIR, StorePair
from ooc_train.store.format.statistics import ColumnStatistics, StatisticsSum
from ooc_train.store.opening.manifests import FORMAT, FORMAT_VERSION
from ooc_train.store.opening.opener import open_store
from ooc_train.store.writing.checked_rows import CheckedRows
from ooc_train.store.writing.output import OutputStore
from ooc_train.store.writing.rows import BackgroundRowWriter

_AXES: Mapping[int, Sequence[str]] = MappingProxyType(
    {1: ("feature",), 2: ("height", "width"), 3: ("height", "width", "channel")}
)
"""Names of the axes of a row of X, by their number."""


class StoreWriter(CheckedRows):
    """Writes a store from rows in calls of any size.

    A context manager: leaving it without `commit` removes everything written. The writer holds one
    chunk of each array. The result depends on the rows alone, not on how calls divide them.

    Parameters
    ----------
    path : str or os.PathLike
        Path of the finished store.
    n_features : int, optional
        Columns of X. Either this or `row_shape` is passed.
    dtype : dtype
        Type of X.
    outputs : int, optional
        Columns of y; by default y has one axis.
    y_dtype : dtype, optional
        Type of y. By default: with `classes`, the smallest unsigned integer; for integers, the type
        of the first y; else X's type if that is floating, else float32.
    feature_names : sequence of str, optional
        One name a feature.
    classes : sequence of str, int, float or bool, optional
        Names of the classes. y then holds indices into this sequence: 0, 1, ...
    chunk_rows, shard_rows : int, optional
        Rows of a chunk (by default about 0.8 MiB of X) and of a shard (a multiple, about 64 MiB),
        for every array.
    expected_rows : int, optional
        About how many rows will be written. If they are few, the default chunk is smaller, so that
        there are at least 16 chunks, or chunks of 32 rows. `validation_fraction` and `split_store`
        draw whole chunks.
    codec : {"none", "lz4", "zstd"}
        Codec of the chunks; lz4 is blosc with shuffled bytes.
    sample_weight, row_id : bool
        Whether each row has a weight (float64, at least 0) and an id (int64).
    shuffled : int, optional
        Seed of the rows' shuffle.
    attributes : mapping, optional
        Further notes; JSON values.
    statistics : ColumnStatistics, optional
        Known statistics of the columns of X, such as those of the same rows in another order. By
        default the writer computes them, which takes most of its time.
    recipe : mapping, optional
        How raw columns became features, as JSON values.
    overwrite : bool
        Whether `commit` replaces an existing store.
    pair : StorePair, optional
        The pair of training and test store that this store belongs to.
    row_shape : sequence of int, optional
        Shape of a row of X, such as (28, 28) or (32, 32, 3) for images, whose channels come last.

    Raises
    ------
    OutputExists
        If something exists at `path`.
    ValueError
        If a setting is wrong.
    OSError
        If the disk is full or not writable.

    Examples
    --------
    >>> import numpy as np
    >>> from ooc_train import StoreWriter
    >>> with StoreWriter("rows.zarr", n_features=3, y_dtype="float64") as writer:
    ...     for _ in range(4):
    ...         writer.write(np.random.rand(100, 3), np.random.rand(100))
    ...     store = writer.commit()
    >>> store.n_rows
    400
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        n_features: int | None = None,
        dtype: np.dtype[Any] | str = "float32",
        outputs: int | None = None,
        y_dtype: np.dtype[Any] | str | None = None,
        feature_names: Sequence[str] | None = None,
        classes: Sequence[Scalar] | None = None,
        chunk_rows: int | None = None,
        shard_rows: int | None = None,
        codec: CodecName = "none",
        sample_weight: bool = False,
        row_id: bool = False,
        shuffled: int | None = None,
        attributes: Mapping[str, Any] | None = None,
        statistics: ColumnStatistics | None = None,
        recipe: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        pair: StorePair | None = None,
        row_shape: Sequence[int] | None = None,
        expected_rows: int | None = None,
    ) -> None:
        if (n_features is None) == (row_shape is None):
            raise ValueError("pass n_features, or row_shape for rows of several axes")
        row_shape = (n_features,) if n_features is not None else tuple(row_shape or ())
        n_features = math.prod(row_shape)
        if n_features < 1 or not row_shape:
            what = f"n_features={n_features}" if len(row_shape) == 1 else f"{row_shape=}"
            raise ValueError(f"{what}: X needs at least one column")
        if feature_names is not None and len(row_shape) > 1:
            raise ValueError(
                f"{row_shape=}: feature_names are for rows of one axis; leave them out"
            )
        if codec not in CODECS:
            raise ValueError(f"codec={codec!r} is none of {', '.join(CODECS)}")
        if feature_names is not None and len(feature_names) != n_features:
            raise ValueError(f"{len(feature_names)} feature_names for n_features={n_features}")
        if statistics is not None and (len(statistics.mean), statistics.weighted) != (
            n_features,
            sample_weight,
        ):
            raise ValueError(
                f"statistics are of {counted(len(statistics.mean), 'column')}, weighted="
                f"{statistics.weighted}, the rows have {n_features}, weighted={sample_weight}"
            )
        if classes is not None and outputs is not None:
            raise ValueError("classes need a y of one axis: leave outputs out")
        self._dtype = np.dtype(dtype)
        self._outputs = outputs
        self._y_dtype = y_dtype
        self._classes = None if classes is None else [_scalar(value) for value in classes]
        super().__init__(
            chunk_rows or default_chunk_rows(n_features, self._dtype, expected_rows),
            statistics or StatisticsSum(n_features, weighted=sample_weight),
            None if classes is None else np.zeros(len(classes), np.int64),
        )
        self._shard_rows = shard_rows or default_shard_rows(
            n_features, self._dtype, self._chunk_rows, expected_rows
        )
        self._codec = CODECS[codec]
        self._attributes = {
            "feature_names": None if feature_names is None else list(feature_names),
            "shuffled": None if shuffled is None else int(shuffled),
            # Keys become text, as they are in JSON.
            "attributes": json.loads(json.dumps(dict(attributes or {}))),
            "recipe": None if recipe is None else dict(recipe),
        }
        # Find values that JSON can't hold now, not at the commit.
        json.dumps(self._attributes, allow_nan=False)
        y_settings = (outputs, y_dtype, classes)
        self._required = {"y"} if any(value is not None for value in y_settings) else set()
        # The executor starts its thread with the first full shard.
        self._syncing = ThreadPoolExecutor(1, "ooc_train-sync")
        self._output = OutputStore(path, overwrite=overwrite)
        self._pair = None if pair is None else replace(pair, replaces=self.output.replaces)
        try:
            self._add_array("X", row_shape, self._dtype)
            if sample_weight:
                self._add_array("sample_weight", (), "float64")
            if row_id:
                self._add_array("row_id", (), "int64")
        except BaseException:
            self._output.discard()
            raise

    @property
    def _active(self) -> bool:
        """Whether rows can be added."""
        return self._output.active

    def _expected(self, rows: Mapping[str, NDArray[Any]]) -> set[str]:
        """Return the roles that every call of `write` passes; the first y decides its type."""
        if "y" in rows and self.n_rows == 0 and "y" not in self._arrays:
            self._add_y(rows["y"])
        return self._arrays.keys() | self._required

    def _add_y(self, y: NDArray[Any]) -> None:
        row_shape = () if self._outputs is None else (self._outputs,)
        if self._y_dtype is not None:
            dtype = np.dtype(self._y_dtype)
        elif self._classes is not None:
            dtype = np.min_scalar_type(max(0, len(self._classes) - 1))
        elif y.dtype.kind in "biu":
            dtype = y.dtype
        else:
            dtype = self._dtype if self._dtype.kind == "f" else np.dtype("float32")
        self._add_array("y", row_shape, dtype)

    def _add_array(self, role: str, row_shape: tuple[int, ...], dtype: np.dtype[Any] | str) -> None:
        names = _AXES.get(len(row_shape), [f"axis {i}" for i in range(1, len(row_shape) + 1)])
        if role != "X":
            names = ["output"][: len(row_shape)]
        layout = self._output.add_array(
            role,
            row_shape=row_shape,
            dtype=dtype,
            chunk_rows=self._chunk_rows,
            shard_rows=self._shard_rows,
            codec=self._codec,
            dimension_names=["sample", *names],
        )
        self._arrays[role] = BackgroundRowWriter(layout, self._syncing)

    def commit(self) -> Store:
        """Write the remaining rows, give the store its name, and open it.

        Returns
        -------
        Store

        Raises
        ------
        ValueError
            If no row was written.
        OutputExists
            If something appeared at the path.
        OSError
            If the disk is full or not writable.
        """
        self.finalize()
        self.output.commit()
        return open_store(self.path)

    @property
    def output(self) -> PartialOutput:
        """The output, whose `commit` gives the finalized store its name."""
        return self._output.output

    def finalize(self) -> None:
        """Write the remaining rows and the metadata; the store then lacks only its name.

        Raises
        ------
        ValueError
            If no row was written.
        OSError
            If the disk is full or not writable.
        """
        if self.n_rows == 0 or not self._output.active:
            reason = "no row was written" if self._output.active else "the writer is closed"
            raise ValueError(f"nothing to commit to {self.path}: {reason}")
        self._finish()
        self._syncing.shutdown()
        statistics = self._statistics
        if isinstance(statistics, StatisticsSum):
            statistics = statistics.result()
        self._output.finalize(
            self.n_rows,
            {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "n_rows": self.n_rows,
                "generation": 1,
                "classes": self._classes,
                "class_counts": None if self._counts is None else self._counts.tolist(),
                "statistics": statistics.to_json(),
                **self._attributes,
            },
            {} if self._pair is None else {"X": {PAIR: self._pair.to_json()}},
        )

    @property
    def path(self) -> str:
        """Path of the finished store."""
        return self._output.path

    def discard(self) -> None:
        """Remove everything written, unless it was committed."""
        super().discard()
        self._syncing.shutdown()
        self._output.discard()


def _scalar(value: Any) -> Scalar:
    """Return a class as a Python scalar, which JSON can hold."""
    plain: Scalar = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, str | int | float | bool):
        raise TypeError(f"classes are str, int, float or bool, not {type(value).__name__}")
    return plain
