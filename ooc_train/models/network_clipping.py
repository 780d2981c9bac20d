"""Sums of clipped gradients of the rows of networks, by compiled loops and BLAS."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array, Arrays, ArraySpec, Block, Workspace
from ooc_train.core.thread_team import ThreadTeam
from ooc_train.kernels.clipping import network_clipped, network_clipped_needs
from ooc_train.kernels.specs import KernelSpec
from ooc_train.models.network import Layers, Propagation, RowScaling
from ooc_train.objective.loss import Loss
from ooc_train.objective.scaling import Scaling

_PIECES, _LEAST_ROWS, _MOST_ROWS = 4, 128, 512
"""Pieces of a batch that threads take at a time, and rows of each. The expected rows of a batch
alone decide where rows are cut, so the number of threads changes no bit."""


@dataclass(frozen=True, eq=False)
class NetworkClipping:
    """Sums of the gradients of rows of a network, each scaled down to a norm.

    Products have the type of X, as those of other updates have. Norms and the sum of pieces of at
    most 512 rows are float64.

    Attributes
    ----------
    layers : Layers
        Sizes and activation of the layers.
    loss : Loss
        Loss by the predictors.
    scaling : Scaling or None
        Scaling of the columns; None for the identity.
    frozen_layers : int
        Layers of weights, from the first, whose gradient is 0.
    kernels : tuple of KernelSpec
        Kernels of the passes through the layers.
    dtype : str
        Type of X, "<f4" or "<f8".
    batch_size : int
        Expected rows of a batch.
    max_norm : float
        The largest norm of the gradient of a row, by all parameters.
    """

    layers: Layers
    loss: Loss
    scaling: Scaling | None
    frozen_layers: int
    kernels: tuple[KernelSpec, ...]
    dtype: str
    batch_size: int
    max_norm: float

    @property
    def needs(self) -> tuple[KernelSpec, ...]:
        """Kernels that every process loads before memory is measured."""
        return (*self.kernels, *network_clipped_needs(self.layers.activation))

    @property
    def _piece(self) -> int:
        return max(_LEAST_ROWS, min(_MOST_ROWS, -(-self.batch_size // _PIECES)))

    def workspace(self) -> Workspace:
        """Return the scratch arrays of `add`, of each piece those of a `Propagation`."""
        rows, layers = self._piece, self.layers
        specs = layers.workspace(rows, self.dtype, gradients=False)
        specs["gradient"] = ArraySpec((layers.n_parameters,), self.dtype)
        specs["row slopes"] = ArraySpec((rows, sum(layers.sizes[1:])), self.dtype)
        specs["squares"] = ArraySpec((rows,))
        specs["rows"] = ArraySpec((rows, layers.sizes[0]), self.dtype)
        del specs["params"]
        of_all = {"params": ArraySpec((layers.n_parameters,), self.dtype)}
        return of_all | {
            name: ArraySpec((_PIECES, *spec.shape), spec.dtype) for name, spec in specs.items()
        }

    def add(
        self,
        params: Array,
        block: Block,
        taken: NDArray[np.int64],
        workspace: Arrays,
        team: ThreadTeam,
        out: Array,
    ) -> None:
        """Add the clipped gradients of the rows `taken` of a block to `out`, of its shape."""
        if block.y is None:
            raise ValueError("a loss needs y, and these data have none")
        y, scaled = block.y, RowScaling(self.scaling, np.dtype(self.dtype))
        workspace["params"][...] = params
        sizes = np.array(self.layers.sizes, np.int64)

        def write(piece: int) -> None:
            arrays = {
                name: array if name == "params" else array[piece]
                for name, array in workspace.items()
            }
            rows = lot[piece * self._piece : (piece + 1) * self._piece]
            X = arrays["rows"][: len(rows)]
            # Any mode but "raise" lets take write straight into `out`.
            np.take(block.X, rows, axis=0, out=X, mode="clip")
            X = scaled(X, X)
            propagation = Propagation(self.layers, self.loss, arrays)
            propagation.loss(X, y[rows], None)
            network_clipped(
                self.layers.activation,
                X,
                arrays["params"],
                sizes,
                arrays["inputs"].reshape(-1),
                arrays["values"].reshape(-1),
                arrays["loss slopes"][: len(rows)],
                arrays["row slopes"].reshape(-1),
                arrays["squares"][: len(rows)],
                arrays["gradient"],
                most=self.max_norm,
                frozen=self.frozen_layers,
            )

        for first in range(0, len(taken), _PIECES * self._piece):
            lot = taken[first : first + _PIECES * self._piece]
            pieces = -(-len(lot) // self._piece)
            team.run(write, pieces)
            for gradient in workspace["gradient"][:pieces]:
                out += gradient
