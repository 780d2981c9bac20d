"""Dropout: hidden units that are left out of an update, drawn anew for each row of each batch.

The values of the other units are divided by the share that is kept, so that predictions, which
leave nothing out, have the same mean (Srivastava et al. 2014, in the form called inverted dropout).
"""

import numpy as np

from ooc_train.core.sums import Arrays, ArraySpec, Workspace
from ooc_train.models.network import Layers

_A_STEP = 8
"""Numbers of 32 bits for each step of Philox's counter."""


def mask_workspace(layers: Layers, rows: int, dtype: str) -> Workspace:
    """Return the arrays of masks and masked values, as specs, for at most `rows` rows."""
    hidden = ArraySpec((rows, sum(layers.sizes[1:-1])), dtype)
    specs: Workspace = {"masks": hidden, "left": hidden}
    for i, units in enumerate(layers.sizes[1:-1]):
        specs[f"draws {i}"] = ArraySpec((rows, -(-units // _A_STEP) * _A_STEP), "<f4")
    return specs


class DropoutMasks:
    """The factors of hidden units: 0 for those that are left out.

    Philox is a function of a key and a counter (Salmon et al. 2011). The counter is that of update
    and row, so a row has the same mask however its batch is cut into blocks.

    Parameters
    ----------
    dropout : float
        Probability that a unit is left out, below 1.
    layers : Layers
        The network.
    arrays : mapping of arrays
        As `mask_workspace` describes them. "masks" are what `draw` writes.
    key : int
        The run's key, see `mask_key`.
    """

    def __init__(self, dropout: float, layers: Layers, arrays: Arrays, key: int) -> None:
        self._dropout, self._key, self._units = dropout, key, layers.sizes[1:-1]
        self._masks = arrays["masks"].reshape(-1)
        self._draws = [arrays[f"draws {i}"] for i in range(len(self._units))]

    def draw(self, update: int, first: int, rows: int) -> None:
        """Write the masks of rows of a batch.

        Parameters
        ----------
        update : int
            Number of the update.
        first, rows : int
            Number of the first row in its batch, and number of rows.
        """
        start = 0
        for i, (units, draws) in enumerate(zip(self._units, self._draws, strict=True)):
            counter = (first * (draws.shape[1] // _A_STEP), update, 0, 0)
            bits = np.random.Philox(key=(self._key, i), counter=counter)
            drawn, end = draws[:rows], start + rows * units
            mask = self._masks[start:end].reshape(rows, units)
            np.random.Generator(bits).random(out=drawn, dtype=np.float32)
            np.greater_equal(drawn[:, :units], self._dropout, out=mask)
            mask *= 1.0 / (1.0 - self._dropout)
            start = end
