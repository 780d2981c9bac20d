"""Multi-layer perceptrons: their layers, and forward and backward passes of rows through them.

A hidden layer has the values ``activation(values of the layer before @ W + b)``. The last layer has
no activation: its values are the predictors z. Gradients come by back-propagation (Rumelhart,
Hinton and Williams 1986). Kernels compute both, with BLAS for the products, in the type of X.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array, Arrays, ArraySpec, Workspace
from ooc_train.kernels.api import loss_slopes, network_backward, network_forward
from ooc_train.models.loss_sums import NO_WEIGHTS
from ooc_train.objective.activations import Activation
from ooc_train.objective.loss import Loss
from ooc_train.objective.scaling import Scaling

Floats = NDArray[np.floating]
Views = list[tuple[NDArray[Any], NDArray[Any]]]

_RANDOM_STATES = 2**32
"""Seeds below it give the numbers of scikit-learn's `RandomState`."""


@dataclass(frozen=True)
class Layers:
    """The sizes of the layers, and their places in the vector of all parameters.

    Attributes
    ----------
    sizes : tuple of int
        Features, units of each hidden layer, and outputs.
    activation : Activation
        Activation of the hidden layers.
    """

    sizes: tuple[int, ...]
    activation: Activation

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases."""
        return sum((before + 1) * after for before, after in pairwise(self.sizes))

    @property
    def ends(self) -> NDArray[np.int64]:
        """Start of each layer's weights, then of its biases, in the vector; its length at last."""
        parts = [0]
        for before, after in pairwise(self.sizes):
            parts += [before * after, after]
        return np.cumsum(parts, dtype=np.int64)

    def views(self, vector: NDArray[Any]) -> Views:
        """Return views of each layer's weights (units before, units) and biases (units,).

        Parameters
        ----------
        vector : array (n_parameters,)
            The parameters, or another number for each. A layer's biases follow its weights.
        """
        found, start = [], 0
        for before, after in pairwise(self.sizes):
            end = start + before * after
            found.append((vector[start:end].reshape(before, after), vector[end : end + after]))
            start = end + after
        return found

    def permuted(self, vectors: Array, order: NDArray[np.intp]) -> Array:
        """Return vectors (..., n_parameters) for columns reordered as `X[:, order]`."""
        found = vectors.copy()
        for vector in found.reshape(-1, self.n_parameters):
            weights, _ = self.views(vector)[0]
            weights[...] = weights[order]
        return found

    def initial(self, seed: int, weight_init: str) -> Array:
        """Return random parameters, uniform between bounds that follow from the layers' sizes.

        Parameters
        ----------
        seed : int
            Below 2**32, "glorot" returns the numbers of scikit-learn for this `random_state`.
        weight_init : {"glorot", "he"}
            "glorot": the bound of weights and biases is ``sqrt(gain / (units before + units))``,
            the gain that of the activation (Glorot and Bengio 2010). "he": the bound of weights is
            ``sqrt(6 / units before)``, and biases are 0 (He et al. 2015).
        """
        random = np.random.RandomState(seed if seed < _RANDOM_STATES else np.random.MT19937(seed))
        params = np.zeros(self.n_parameters)
        for weights, biases in self.views(params):
            before, after = weights.shape
            if weight_init == "he":
                bound = math.sqrt(6.0 / before)
                weights[...] = random.uniform(-bound, bound, weights.shape)
                continue
            bound = math.sqrt(self.activation.start_gain / (before + after))
            weights[...] = random.uniform(-bound, bound, weights.shape)
            biases[...] = random.uniform(-bound, bound, biases.shape)
        return params

    def workspace(self, rows: int, dtype: str, *, gradients: bool) -> Workspace:
        """Return the arrays of a `Propagation` of at most `rows` rows at a time.

        Parameters
        ----------
        dtype : str
            Type of X and of the products.
        gradients : bool
            Whether gradients are computed, not losses alone.
        """
        hidden, outputs = sum(self.sizes[1:-1]), self.sizes[-1]
        specs = {
            "values": ArraySpec((rows, hidden), dtype),
            "inputs": ArraySpec((rows, hidden * self.activation.needs_input), dtype),
            "predictors": ArraySpec((rows, outputs), dtype),
            "marks": ArraySpec((rows,)),
        }
        specs |= {name: ArraySpec((rows, outputs)) for name in ("z", "loss slopes")}
        specs["cells"] = ArraySpec((2, outputs))
        specs["params"] = ArraySpec((self.n_parameters,), dtype)
        if gradients:
            specs["gradient"] = ArraySpec((self.n_parameters,), dtype)
            specs["slopes"] = ArraySpec((rows, 2 * max(self.sizes[1:])), dtype)
        return specs

    def made_bytes(self, rows: int) -> int:
        """Return the most bytes that a `Propagation` of `rows` rows allocates beside its arrays."""
        # The temporaries of an activation.
        return 8 * rows * 4 * max(self.sizes[1:-1], default=0)


class RowScaling:
    """The centring and scaling of rows, in the type of X.

    Parameters
    ----------
    scaling : Scaling or None
        Scaling of the columns; None leaves rows as they are.
    dtype : dtype
        Type of X.

    Attributes
    ----------
    divisor : number or None
        What rows are divided by, if one number scales them.
    mean, inverse : arrays (features,) or None
        Otherwise, what is subtracted from rows, and what they are then multiplied by.
    """

    def __init__(self, scaling: Scaling | None, dtype: np.dtype[Any]) -> None:
        self.divisor: Any = None
        self.mean: Floats | None = None
        self.inverse: Floats | None = None
        if scaling is None:
            return
        if not scaling.mean.any() and (scaling.scale == scaling.scale[0]).all():
            # One pass over the rows: pixels / 255 are those that were stored as such.
            self.divisor = dtype.type(scaling.scale[0])
        else:
            self.mean, self.inverse = scaling.mean.astype(dtype), scaling.inverse.astype(dtype)

    def __call__(self, X: Floats, out: Floats | None) -> Floats:
        """Return the scaled rows, which are written to `out`; X itself without a scaling."""
        if self.divisor is not None:
            divided: Floats = np.divide(X, self.divisor, out=out)
            return divided
        if self.mean is None or self.inverse is None:
            return X
        scaled: Floats = np.subtract(X, self.mean, out=out)
        scaled *= self.inverse
        return scaled


class Propagation:
    """Forward and backward passes of a few rows at a time, in arrays that are reused.

    Parameters
    ----------
    layers : Layers
        The network.
    loss : Loss
        Loss by the predictors.
    arrays : mapping of arrays
        As `Layers.workspace` describes them. "params" are the parameters, which the caller writes.
        With those of `mask_workspace`, hidden values are
        multiplied by the masks, which the caller writes too. "slopes before" are for the losses by
        a second target, of mixup.
    compiled : bool
        Whether compiled kernels run, which processes load before their memory is measured.
    """

    def __init__(
        self, layers: Layers, loss: Loss, arrays: Arrays, *, compiled: bool = True
    ) -> None:
        self._activation, self._loss, self._compiled = layers.activation, loss, compiled
        nothing = np.empty(0, arrays["params"].dtype)
        masks, inputs, values, left = (
            arrays[name].reshape(-1) if name in arrays else nothing
            for name in ("masks", "inputs", "values", "left")
        )
        sizes = np.array(layers.sizes, np.int64)
        self._of_layers = arrays["params"], sizes, masks, inputs, values, left
        self._predictors, self._z = arrays["predictors"], arrays["z"]
        self._marks, self._by_z, self._cells = (
            arrays["marks"],
            arrays["loss slopes"],
            arrays["cells"],
        )
        self._by_second = arrays.get("slopes before")
        if "slopes" in arrays:
            self._slopes = arrays["slopes"].reshape(2, -1)

    def predictors(self, X: Floats) -> Array:
        """Return the predictors z of rows, (rows, outputs); NaN in a row where X is not finite."""
        rows = len(X)
        z: Array = self._z[:rows]
        network_forward(
            self._activation,
            X,
            *self._of_layers,
            self._predictors[:rows],
            z,
            self._marks,
            compiled=self._compiled,
        )
        return z

    def loss(self, X: Floats, y: Array, weight: Array | None) -> float:
        """Return the weighted sum of the losses of rows; NaN where X is not finite.

        Parameters
        ----------
        X : array (rows, features), of the type of the arrays
        y : float64 array (rows, outputs), or codes of classes (rows, 1)
        weight : float64 array (rows,) or None
        """
        z, by_z = self.predictors(X), self._by_z[: len(X)]
        if self._loss.target == "distribution":
            return _loss_of_distributions(self._loss, y, weight, z, by_z)
        weight = NO_WEIGHTS if weight is None else weight
        return loss_slopes(self._loss, y, weight, z, by_z, self._cells)

    def gradient(
        self,
        X: Floats,
        y: Array,
        weight: Array | None,
        second: tuple[Array, Array] | None = None,
        *,
        out: Floats,
    ) -> float:
        """Write the gradient of the weighted sum of the losses of rows to `out`; return the sum.

        The other parameters are as for `loss`. `second` has y and weights of losses that are added,
        by the same predictors.
        """
        loss, rows = self.loss(X, y, weight), len(X)
        by_z = self._by_z[:rows]
        if second is not None and self._by_second is not None:
            by_second, z = self._by_second[:rows], self._z[:rows]
            loss += loss_slopes(self._loss, *second, z, by_second, self._cells)
            by_z += by_second
        network_backward(self._activation, X, *self._of_layers, by_z, self._slopes, out)
        return loss


def _loss_of_distributions(
    loss: Loss, y: Array, weight: Array | None, z: Array, by_z: Array
) -> float:
    """Return the weighted sum of losses by NumPy; write the derivatives by z to `by_z`."""
    values = loss.value(y, z)
    by_z[...] = loss.slope(y, z)
    if weight is None:
        return float(values.sum())
    by_z *= weight[:, None]
    return float(weight @ values)
