"""A problem that is not linear: a network of one hidden layer, for squared losses."""

from dataclasses import dataclass

import numpy as np

from ooc_train.core.sums import Array, Block
from ooc_train.models.block_problem import BlockProblem


@dataclass(frozen=True, eq=False)
class TwoLayer(BlockProblem):
    """``z = v . tanh(W x + b) + c``, all parameters in one vector."""

    n_features: int = 1
    hidden: int = 8

    @property
    def shape(self) -> tuple[int, ...]:
        """Weights and biases of the hidden layer, then those of the output."""
        return (self.hidden * (self.n_features + 2) + 1,)

    def initial(self, seed: int = 0) -> Array:
        """Return small random parameters: at zero, all hidden units are the same."""
        rng = np.random.default_rng(seed)
        return rng.normal(scale=self.n_features**-0.5, size=self.shape)

    def _layers(self, params: Array) -> tuple[Array, Array, Array, float]:
        cut = self.hidden * self.n_features
        W = params[:cut].reshape(self.hidden, self.n_features)
        b, v = params[cut : cut + self.hidden], params[cut + self.hidden : -1]
        return W, b, v, float(params[-1])

    def block_bytes(self, rows: int) -> int:
        """Return the bytes of the hidden layer, forth and back."""
        return 8 * rows * (4 * self.hidden + 3)

    def block_gradient(self, params: Array, block: Block) -> tuple[float, Array]:
        """Return the sum of losses, and its gradient by back-propagation."""
        assert block.y is not None
        W, b, v, c = self._layers(params)
        hidden = np.tanh(block.X @ W.T + b)
        residual = hidden @ v + c - block.y[:, 0]
        weighted = residual if block.weight is None else residual * block.weight
        back = np.outer(weighted, v) * (1.0 - hidden**2)
        parts = (back.T @ block.X, back.sum(axis=0), weighted @ hidden, [weighted.sum()])
        return 0.5 * float(weighted @ residual), np.concatenate([np.ravel(p) for p in parts])
