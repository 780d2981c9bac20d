"""A store: the arrays of one data set and what its manifest records."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Never

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.text import OR_A_REGRESSION, counted, few, html_table
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import InvalidStore
from ooc_train.memory.system import available_memory
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.format.dimensions import require_rows_first
from ooc_train.store.format.pairs import StorePair
from ooc_train.store.format.shares import StoreShare
from ooc_train.store.format.statistics import ColumnStatistics
from ooc_train.store.opening.named_arrays import NamedArray, Role, require_axes
from ooc_train.store.reading.chunks import ChunkReader

_LABELS_AT_A_TIME = 2**17


Scalar = str | int | float | bool
"""Name of a class: a JSON scalar."""


@dataclass(frozen=True)
class Store:
    """A data set at rest; `open_store` makes one.

    Parameters
    ----------
    path : str
        Directory or URL.
    X : ArrayLayout
        Shape (sample, feature), or (sample, height, width[, channel]) of images and the like. Jobs
        read the values of such a row as columns, in C order.
    y : ArrayLayout or None
        Shape (sample,) or (sample, output). If the store has `classes`, y holds codes: indices into
        `classes`. In stores of other writers it may hold text, or codes that the metadata name;
        training a classifier turns these into classes.
    sample_weight, row_id : ArrayLayout or None
        Shape (sample,).
    n_rows : int
        Rows in use, by the manifest. Arrays may hold more.
    feature_names : tuple of str, or None
        One name a feature. Rows of several axes have none.
    classes : tuple of JSON scalars, or None
        Names of the classes, in the order of the codes in y.
    class_counts : tuple of int, or None
        Rows of each class.
    shuffled : int or None
        Seed of the rows' shuffle, None if the rows are in their original order.
    format_version : int
        Version of our format; 0 for a store of another writer.
    generation : int
        Number of commits, from 1; 0 for a store of another writer.
    statistics : ColumnStatistics or None
        Statistics of the columns of X; None for a store of another writer.
    attributes : mapping
        Further notes of the writer, such as the true coefficients of synthetic data.
    recipe : mapping or None
        How raw columns became features, as JSON values for `Recipe.from_json`.
    store_id : str
        Random id of the commit; "" for a store of another writer or an earlier release.
    notes : tuple of str
        Notes for the user, for example on what can't be verified.
    pair : StorePair or None
        The pair of training and test store that this store belongs to.
    share : StoreShare or None
        Which rows of the arrays are in use; None for all, in their order.
    opened : mapping
        What `open_store` was given besides the path, for those who open the store again; empty
        where an array was given that is no text.

    Examples
    --------
    >>> from ooc_train import make_data
    >>> store = make_data("made.zarr", rows=1_000, features=4)
    >>> store.n_chunks, store.total_bytes
    (32, 17000)
    >>> store.read("X", 0, 2).shape
    (2, 4)
    """

    path: str
    X: ArrayLayout
    y: ArrayLayout | None
    sample_weight: ArrayLayout | None
    row_id: ArrayLayout | None
    n_rows: int
    feature_names: tuple[str, ...] | None = None
    classes: tuple[Scalar, ...] | None = None
    class_counts: tuple[int, ...] | None = None
    shuffled: int | None = None
    format_version: int = 0
    generation: int = 0
    statistics: ColumnStatistics | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] | None = None
    store_id: str = ""
    notes: tuple[str, ...] = ()
    pair: StorePair | None = None
    share: StoreShare | None = None
    opened: Mapping[str, Any] = field(default_factory=dict)

    @property
    def whole_path(self) -> str:
        """Path of the store; of a share, that of its whole store."""
        return self.path if self.share is None else self.share.store_path

    @property
    def n_features(self) -> int:
        """Number of columns of X: values in a row."""
        return math.prod(self.X.row_shape)

    @property
    def row_shape(self) -> tuple[int, ...] | None:
        """Shape of a row of X, if it has several axes, such as (28, 28); else None."""
        return self.X.row_shape if len(self.X.row_shape) > 1 else None

    @property
    def n_outputs(self) -> int:
        """Number of columns of y: 1 if y has one axis, 0 without y."""
        if self.y is None:
            return 0
        return self.y.row_shape[0] if self.y.row_shape else 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values of X."""
        return np.dtype(self.X.dtype)

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk of X."""
        return self.X.chunk_rows

    @property
    def shard_rows(self) -> int:
        """Rows of a shard of X."""
        return self.X.shard_rows

    @property
    def n_chunks(self) -> int:
        """Number of chunks of X."""
        return self.X.n_chunks

    @property
    def chunk_bytes(self) -> int:
        """Decoded bytes of a chunk of X."""
        return self.X.chunk_bytes

    @property
    def row_bytes(self) -> int:
        """Decoded bytes that training reads of a row: X, y and weight."""
        arrays = (self.X, self.y, self.sample_weight)
        return sum(array.row_bytes for array in arrays if array is not None)

    @property
    def total_bytes(self) -> int:
        """Decoded bytes that one pass reads: X, y and weights of all rows."""
        return self.n_rows * self.row_bytes

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Read rows of one array into the memory of this process.

        While reading, it also holds one chunk in encoded and decoded form.

        Parameters
        ----------
        name : str
            "X", "y", "sample_weight" or "row_id".
        start, stop : int
            Rows, ``0 <= start <= stop <= n_rows``; by default all.

        Returns
        -------
        ndarray of the array's dtype, shape (stop - start, ...)
            If the store has `classes`, y is codes: ``np.asarray(store.classes)[y]`` are the labels.

        Raises
        ------
        InvalidStore
            If the store has no such array.
        MemoryError
            If the rows take more than the available memory.
        CorruptChunk
            If a chunk is missing, cut short, or fails its checksum or decoding.
        """
        known = name in ("X", "y", "sample_weight", "row_id")
        layout: ArrayLayout | None = getattr(self, name) if known else None
        if layout is None:
            raise InvalidStore(f"{self.path} has no array {name!r}")
        stop = self.n_rows if stop is None else stop
        size = max(0, stop - start) * layout.row_bytes
        if size > (free := available_memory()):
            raise MemoryError(
                f"{counted(stop - start, 'row')} of {name} take {approximate_bytes(size)}, and "
                f"{approximate_bytes(free)} are available; read fewer, as in "
                f"store.read({name!r}, 0, 1000)"
            )
        rows = np.empty((max(0, stop - start), *layout.row_shape), layout.dtype)
        runs = [(start, stop)] if self.share is None else self.share.runs(start, stop)
        with ChunkReader(layout) as reader:
            at = 0
            for first, end in runs:
                reader.read_rows(first, end, rows[at : at + end - first])
                at += end - first
        return rows

    def require_whole(self, job: str) -> None:
        """Refuse a share of a store for a job on whole stores, such as "verify".

        Raises
        ------
        InvalidStore
            With the store to name in place of the share.
        """
        if self.share is not None:
            raise InvalidStore(
                f"{self.path} is a share of the rows of {self.share.store_path}, and {job} is for "
                f"whole stores; give it {self.share.store_path}"
            )

    def first_rows(self, n_rows: int) -> "Store":
        """Return the store of the first rows alone, without what is known of all rows."""
        return replace(
            self,
            X=self.X.with_rows(n_rows),
            y=self.y and self.y.with_rows(n_rows),
            sample_weight=self.sample_weight and self.sample_weight.with_rows(n_rows),
            row_id=self.row_id and self.row_id.with_rows(n_rows),
            n_rows=n_rows,
            class_counts=None,
            statistics=None,
        )

    def with_array(
        self,
        role: Role,
        layout: ArrayLayout,
        *,
        classes: tuple[Scalar, ...] | None = None,
        class_counts: tuple[int, ...] | None = None,
    ) -> "Store":
        """Return the store with another array as y or sample_weight.

        Records of the replaced array are dropped: classes and the recipe's target, or statistics.

        Parameters
        ----------
        role : {"y", "sample_weight"}
            Role of the array.
        layout : ArrayLayout
            Layout of the array.
        classes : tuple of JSON scalars, or None
            Classes of a y that holds codes.
        class_counts : tuple of int, or None
            Rows of each class.

        Raises
        ------
        InvalidStore
            If the number of rows or the axes don't fit.
        """
        require_axes(layout.path, role, layout)
        if layout.n_rows != self.n_rows:
            raise InvalidStore(
                f"{self.path}: X has {counted(self.n_rows, 'row')}, and {role} ({layout.path}) has "
                f"{layout.n_rows:,}; give an array of as many rows"
            )
        if role == "sample_weight":
            return replace(self, sample_weight=layout, statistics=None)
        recipe = None if self.recipe is None else {**self.recipe, "target": None}
        return replace(self, y=layout, classes=classes, class_counts=class_counts, recipe=recipe)

    def with_named_array(self, role: Role, named: NamedArray) -> "Store":
        """Return the store with an array that the user named as y or sample_weight.

        Raises
        ------
        InvalidStore
            As in `with_array`, and if the array is transposed by the names of its axes.
        """
        require_rows_first(self.path, {role: named.dimensions})
        classes, counts = (named.manifest.get(key) for key in ("classes", "class_counts"))
        return self.with_array(
            role,
            named.layout,
            classes=None if classes is None else tuple(classes),
            class_counts=None if counts is None else tuple(counts),
        )

    def distinct_labels(self, limit: int = 1000) -> np.ndarray[Any, np.dtype[Any]]:
        """Return the sorted distinct values of y, read chunk by chunk in this process.

        Parameters
        ----------
        limit : int
            Most distinct values that y may have.

        Returns
        -------
        ndarray of y's dtype, shape (label,)

        Raises
        ------
        InvalidStore
            If there is no y of one axis, or it has more than `limit` distinct values.
        """
        if self.y is None or self.y.row_shape:
            shape = None if self.y is None else self.y.shape
            raise InvalidStore(
                f"{self.path}: labels need a y of shape (sample,), this one is {shape}"
            )
        labels = np.empty(0, self.y.dtype)
        with ChunkReader(self.y) as reader:
            step = min(self.y.chunk_rows, _LABELS_AT_A_TIME)
            out = np.empty(step, self.y.dtype)
            # Of a share, the labels of all rows: shares of one store have the same classes.
            for start in range(0, self.y.n_rows, step):
                stop = min(start + step, self.y.n_rows)
                reader.read_rows(start, stop, out[: stop - start])
                labels = np.union1d(labels, out[: stop - start])
                if len(labels) > limit:
                    raise InvalidStore(
                        f"{self.path}: y has more than {limit:,} distinct values within its first "
                        f"{counted(stop, 'row')}; {OR_A_REGRESSION}"
                    )
        return labels

    def __array__(self, dtype: object = None, copy: object = None) -> Never:
        raise TypeError(
            f"{self.path} ({self.total_bytes / 2**30:.3g} GiB) would be loaded whole by this call; "
            "pass the store to an estimator of ooc_train, or load rows on purpose, as "
            "store.read('X', 0, 1000) and store.read('y') do"
        )

    def __repr__(self) -> str:
        sizes = " x ".join(f"{size:,}" for size in (self.n_rows, *self.X.row_shape))
        parts = [f"{sizes} {self.dtype}"]
        if self.y is not None:
            outputs = f" x {self.n_outputs}" if self.y.row_shape else ""
            kind = "text" if self.y.is_text else np.dtype(self.y.dtype)
            parts.append(f"y {kind}{outputs}")
        if self.classes is not None:
            parts.append(counted(len(self.classes), "class"))
        if self.sample_weight is not None:
            parts.append("weighted")
        if self.share is not None:
            parts.append(f"share {self.share}")
        if self.shuffled is not None:
            parts.append(f"shuffled with seed {self.shuffled}")
        parts.append(
            f"{counted(self.n_chunks, 'chunk')} of {counted(self.chunk_rows, 'row')} "
            f"({self.chunk_bytes / 2**20:.3g} MiB, {self.X.codec or 'by zarr-python'})"
        )
        return f"<Store {self.path}: {', '.join(parts)}>"

    def _repr_html_(self) -> str:
        """Return shapes, classes and layout as an HTML table, for notebooks."""
        rows = [
            ("path", self.path),
            (
                "rows x features",
                " x ".join(f"{size:,}" for size in (self.n_rows, *self.X.row_shape)),
            ),
            *([] if self.share is None else [("share", str(self.share))]),
            ("type", str(self.dtype)),
            ("classes", few(self.classes) if self.classes is not None else "none"),
            ("weights", "no" if self.sample_weight is None else "yes"),
            ("order", "as written" if self.shuffled is None else f"random, seed {self.shuffled}"),
            ("chunks", f"{self.n_chunks:,} of {counted(self.chunk_rows, 'row')}"),
            ("size", f"{approximate_bytes(self.total_bytes)} when decoded"),
        ]
        if self.feature_names is not None:
            rows.insert(2, ("features", few(self.feature_names)))
        return html_table(rows)
