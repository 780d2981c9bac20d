"""Learning rates of the updates to come, which compiled loops look up.

The rates of the first updates are exact. Later on, one rate serves several updates in a row: their
rates hardly differ, and computing each would take up to half the time of an update by a short row.
"""

from collections.abc import Callable

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.core.text import counted
from ooc_train.optimizers.schedule import refused, unusable

EXACT_UPDATES = 8192
"""Updates from the first on that have their own rates."""

RATE_UPDATES = 32
"""Updates between two changes of the learning rate later on: at most 0.4 % of those before."""

_TABLE_RATES = 8192
"""Rates that a table holds. A power of two."""

_BLOCK = 1024
"""Rates that are written together. Later ones are computed for a whole table at a time: to compute
those of a block took a sixth of the time of its single rows."""

_AHEAD = 12
"""Rates beyond those of a call that kernels load, without effect."""


def update_of_rate(t: int) -> int:
    """Return the update whose rate update `t` uses: `t` itself, or later a multiple of 32."""
    return t if t < EXACT_UPDATES else t - t % RATE_UPDATES


class RateTable:
    """A ring buffer of learning rates, indexed by the number of updates before.

    Parameters
    ----------
    rate : function of a float64 array
        Returns the learning rates after these numbers of updates.

    Attributes
    ----------
    rates : float64 array (8192,)
        The rate after t updates is at index t, modulo the length.
    """

    def __init__(self, rate: Callable[[Array], Array]) -> None:
        self.rates = np.empty(_TABLE_RATES)
        self._rate = rate
        self._known = 0
        self._window, self._later = -1, np.empty(0)
        self._unusable: tuple[int, float] | None = None

    def cover(self, first: int, updates: int) -> None:
        """Fill the table with the rates of `updates` updates from `first` on, at most 7,000.

        Updates are covered in order.

        Raises
        ------
        ValueError
            If the rate of one of them is zero or infinite.
        """
        begin = max(self._known, first // _BLOCK * _BLOCK)
        for at in range(begin, first + updates + _AHEAD, _BLOCK):
            self._fill(at)
        if self._unusable is not None and self._unusable[0] < first + updates:
            at, rate = self._unusable
            raise ValueError(f"the schedule {refused(rate)} after {counted(at, 'update')}")

    def _fill(self, at: int) -> None:
        """Write the rates of one block of updates, which begins at update `at`."""
        place = at % _TABLE_RATES
        block = self.rates[place : place + _BLOCK]
        if at < EXACT_UPDATES:
            block[...] = self._computed(at, _BLOCK, 1)
        else:
            if self._window != at - place:
                self._window = at - place
                self._later = self._computed(self._window, _TABLE_RATES, RATE_UPDATES)
            begin = place // RATE_UPDATES
            later = self._later[begin : begin + _BLOCK // RATE_UPDATES]
            block.reshape(-1, RATE_UPDATES)[...] = later[:, None]
        self._known = at + _BLOCK

    def _computed(self, first: int, updates: int, every: int) -> Array:
        """Return the rates of every `every`-th of `updates` updates from `first` on."""
        rates = self._rate(np.arange(first, first + updates, every, dtype=np.float64))
        wrong = unusable(rates)
        if self._unusable is None and wrong.any():
            i = int(np.argmax(wrong))
            self._unusable = first + i * every, float(rates[i])
        return rates
