"""Predictions of the engine in the form of scikit-learn: labels, shapes, lazy Dask arrays."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.errors import NonFiniteData, OutputExists
from ooc_train.inference.metrics import PIECE_ROWS
from ooc_train.inference.outputs import Kind, Outputs
from ooc_train.inference.predict import predict_store
from ooc_train.inference.raw_files import predict_files
from ooc_train.runs.fitted import Fitted
from ooc_train.stream.kinds import as_numbers
from ooc_train.stream.labels_and_weights import is_stored
from ooc_train.stream.sources import model_dtype
from ooc_train.tables.names import is_table, require_predictions_name


def write_predictions(
    fitted: Fitted, X: Any, out: str | os.PathLike[str], kind: Kind, on: Mapping[str, Any]
) -> str:
    """Write predictions of one kind to a table or a store, by the name of `out`; return its path.

    `on` has further arguments of `predict_store`.

    Raises
    ------
    ValueError
        If `out` is named as neither.
    OutputExists
        If `out` exists. The function that replaces it is named: `predict` has no such choice.
    """
    require_predictions_name(out)
    write: Any = predict_files if is_table(out) and is_stored(X) else predict_store
    try:
        write(fitted, X, out, kinds=(kind,), **on)
    except OutputExists as error:
        call = f"ooc_train.{write.__name__}(model, X, out, overwrite=True)"
        raise OutputExists(str(error).replace("overwrite=True", call)) from None
    return os.fspath(out)


_BLOCK_BYTES = 2**22
"""Bytes of a block of rows that is converted."""


@dataclass(frozen=True, eq=False)
class Postprocess:
    """Turns predictions of the engine into those of a scikit-learn estimator.

    Attributes
    ----------
    fitted : Fitted
        The model.
    kind : str
        Kind of predictions.
    labels : ndarray or None
        Labels of the classes by code.
    flat : bool
        Whether predictions of one output have one axis.
    """

    fitted: Fitted
    kind: Kind
    labels: NDArray[Any] | None
    flat: bool

    def values(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return predictions with labels in place of codes, and one axis if they are `flat`."""
        if self.labels is not None and self.kind == "prediction":
            return np.asarray(self.labels[values])
        return values[:, 0] if self.flat else values

    def __call__(self, X: Any, first_row: int = 0) -> NDArray[Any]:
        """Return the predictions for rows in memory; `first_row` is for messages."""
        fitted = self.fitted
        converted = np.empty((PIECE_ROWS, fitted.n_features))
        z = fitted.decision(np.asarray(X), converted, first_row)
        return self.values(Outputs.of(fitted).at(z, self.kind))

    def in_blocks(self, X: NDArray[Any], dtype: np.dtype[np.floating]) -> NDArray[Any]:
        """Return the predictions for rows in memory, read as `dtype`, at least one.

        Rows of another type or order are converted a block at a time: the copy is never of all.
        """
        if X.dtype == dtype and X.flags.c_contiguous and X.flags.aligned:
            return self(X)
        # Whole pieces, so that products have the same bits as those of rows that need no copy.
        step = PIECE_ROWS * max(1, _BLOCK_BYTES // (PIECE_ROWS * X.shape[1] * dtype.itemsize))

        def predicted(start: int) -> NDArray[Any]:
            return self(np.require(X[start : start + step], dtype, ("C", "A")), start)

        first = predicted(0)
        found = np.empty((len(X), *first.shape[1:]), first.dtype)
        found[:step] = first
        for start in range(step, len(X), step):
            found[start : start + step] = predicted(start)
        return found

    def lazy(self, X: Any) -> Any:
        """Return the predictions for a Dask array, as a lazy Dask array."""
        X = X.rechunk({1: -1})
        meta = self(np.zeros((0, X.shape[1])))
        if meta.ndim == 1:
            return X.map_blocks(self._of_block, drop_axis=1, meta=meta)
        return X.map_blocks(self._of_block, chunks=(X.chunks[0], meta.shape[1:]), meta=meta)

    def _of_block(self, X: Any, block_info: Any = None) -> NDArray[Any]:
        """Return the predictions for a block of a Dask array, whose first row Dask may know."""
        first_row = block_info[0]["array-location"][0][0]
        if not np.isnan(first_row):
            return self(as_numbers(X, "X", model_dtype(X.dtype), int(first_row)), int(first_row))
        try:
            return self(as_numbers(X, "X", model_dtype(X.dtype)))
        except NonFiniteData as error:
            block = block_info[0]["chunk-location"][0]
            raise NonFiniteData(f"in block {block}, by its own count: {error}") from None
