"""What the engine predicts, made what scikit-learn's estimators return."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.errors import NonFiniteData
from ooc_train.inference.metrics import PIECE_ROWS
from ooc_train.inference.outputs import Kind, Outputs
from ooc_train.runs.fitted import Fitted
from ooc_train.stream.kinds import as_numbers
from ooc_train.stream.sources import model_dtype


@dataclass(frozen=True, eq=False)
class Finish:
    """Makes what the engine predicts what scikit-learn's estimators return.

    Attributes
    ----------
    fitted : the model
    kind : what is predicted
    labels : of the classes by code, or None
    flat : whether one output is one axis
    """

    fitted: Fitted
    kind: Kind
    labels: NDArray[Any] | None
    flat: bool

    def found(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return classes for codes, and one axis where there is one output."""
        if self.labels is not None and self.kind == "prediction":
            return np.asarray(self.labels[values])
        return values[:, 0] if self.flat else values

    def __call__(self, X: Any, first_row: int = 0) -> NDArray[Any]:
        """Return the predictions for rows in memory, of which the first has a number."""
        fitted = self.fitted
        converted = np.empty((PIECE_ROWS, fitted.n_features))
        z = fitted.predictor.decision(np.asarray(X), converted, first_row)
        return self.found(Outputs.of(fitted).at(z, self.kind))

    def lazily(self, X: Any) -> Any:
        """Return the predictions for a Dask array, as one that is not computed."""
        X = X.rechunk({1: -1})
        meta = self(np.zeros((0, X.shape[1])))
        if meta.ndim == 1:
            return X.map_blocks(self._of_block, drop_axis=1, meta=meta)
        return X.map_blocks(self._of_block, chunks=(X.chunks[0], meta.shape[1:]), meta=meta)

    def _of_block(self, X: Any, block_info: Any = None) -> NDArray[Any]:
        """Return the predictions for a block of a Dask array, which says where that lies."""
        first_row = block_info[0]["array-location"][0][0]
        if not np.isnan(first_row):
            return self(as_numbers(X, "X", model_dtype(X.dtype), int(first_row)), int(first_row))
        try:
            return self(as_numbers(X, "X", model_dtype(X.dtype)))
        except NonFiniteData as error:
            block = block_info[0]["chunk-location"][0]
            raise NonFiniteData(f"in block {block}, by its own count: {error}") from None
