"""One compiled call for a share of a batch: rows taken and scaled, layers, losses, derivatives."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array, Arrays
from ooc_train.kernels.api import network_batch
from ooc_train.models.network import Floats, Layers, RowScaling
from ooc_train.objective.loss import Loss

_Taking = Callable[[Floats, Array, Array, NDArray[np.int64]], None]


class BatchCall:
    """The gradient of rows of a block, in the arrays of a share.

    What a call needs but the rows is packed once for each number of rows, and kept.

    Parameters
    ----------
    layers : Layers
        The network.
    loss : Loss
        Loss by the predictors.
    scaling : RowScaling
        Scaling of the columns.
    arrays : mapping of arrays
        As `Propagation` takes them, and "rows", "targets" and "row weights".
    """

    def __init__(self, layers: Layers, loss: Loss, scaling: RowScaling, arrays: Arrays) -> None:
        self._layers, self._loss, self._scaling, self._arrays = layers, loss, scaling, arrays
        self._sizes, self._sum = np.array(layers.sizes, np.int64), np.zeros(1)
        self._calls: dict[tuple[int, int, int], _Taking] = {}

    def gradient(
        self, X: Floats, y: Array, weight: Array, order: NDArray[np.int64], out: Floats
    ) -> float:
        """Write the gradient of the weighted sum of the losses of rows; return that sum.

        Parameters
        ----------
        X, y, weight : arrays (rows, ...)
            A block. Of `weight`, no numbers stand for weights of 1.
        order : int64 array
            Numbers of the rows to take.
        out : array (parameters,)
            The result.
        """
        key = len(order), y.shape[1], out.ctypes.data
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = self._call(len(order), y.shape[1], out)
        call(X, y, weight, order)
        return float(self._sum[0])

    def _call(self, rows: int, targets: int, out: Floats) -> _Taking:
        arrays, scaling = self._arrays, self._scaling
        nothing: NDArray[Any] = np.empty(0, out.dtype)

        def flat(name: str) -> NDArray[Any]:
            return arrays[name].reshape(-1) if name in arrays else nothing

        return network_batch(
            self._loss,
            self._layers.activation,
            arrays["rows"][:rows],
            flat("targets")[: rows * targets].reshape(rows, targets),
            arrays["row weights"][:rows],
            nothing if scaling.mean is None else scaling.mean,
            nothing if scaling.inverse is None else scaling.inverse,
            1.0 if scaling.divisor is None else float(scaling.divisor),
            arrays["params"],
            self._sizes,
            flat("inputs"),
            flat("values"),
            arrays["predictors"][:rows],
            arrays["z"][:rows],
            arrays["marks"][:rows],
            arrays["loss slopes"][:rows],
            self._sum,
            arrays["cells"],
            arrays["slopes"].reshape(2, -1),
            out,
        )
