"""The learning rate after t updates.

A schedule is a frozen dataclass whose fields are its hyperparameters. `rate` is vectorised NumPy:
kernels are handed an array of rates. To add a schedule: its class, and its line in `SCHEDULES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ooc_train.core.named_classes import Registry
from ooc_train.core.sums import Array
from ooc_train.optimizers.optimizer import require_above_zero

RATE_UPDATES = 64
"""Updates between two changes of a learning rate."""

_TABLE_RATES = 1024
"""Rates that a table holds: of 65,536 updates. A power of two."""


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes in the course of a run.

    Attributes
    ----------
    name : str
        The key in `SCHEDULES`.
    """

    name: ClassVar[str]

    def rate(self, t: Array | float, eta0: float, horizon: float) -> Array:
        """Return the learning rate after t updates, of the shape of `t`.

        Parameters
        ----------
        t : float or float64 array
            Numbers of updates.
        eta0 : float
            The learning rate of the first update.
        horizon : float
            Planned number of updates of the run; infinity where nobody knows it.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """The first rate, all along."""

    name: ClassVar[str] = "constant"

    def rate(self, t: Array | float, eta0: float, horizon: float) -> Array:  # noqa: ARG002
        """Return the learning rate after t updates."""
        return np.full(np.shape(t), eta0)


@dataclass(frozen=True)
class Falling(Schedule):
    """A rate of which a share falls with the root of the number of updates.

    Attributes
    ----------
    noise : float
        Share of the rate's bound that grows with the root of t. 0 is a constant rate.
    fall : float
        Updates after which that share of the bound has grown by ``sqrt(2)``.
    """

    noise: float = 1.0
    fall: float = 1000.0

    name: ClassVar[str] = "falling"

    def __post_init__(self) -> None:
        if not 0.0 <= self.noise <= 1.0:
            raise ValueError(f"noise={self.noise!r} is not a number from 0 to 1")
        require_above_zero("fall", self.fall)

    def rate(self, t: Array | float, eta0: float, horizon: float) -> Array:  # noqa: ARG002
        """Return the learning rate after t updates."""
        slowed = np.sqrt(1.0 + np.asarray(t) / self.fall)
        return np.asarray(eta0 / (1.0 + self.noise * (slowed - 1.0)))


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a wave from the first rate to the last (Loshchilov and Hutter 2017, without restarts).

    Attributes
    ----------
    last : float
        The rate at the horizon and after it, as a share of the first. From 0 to 1.
    """

    last: float = 0.0

    name: ClassVar[str] = "cosine"

    def __post_init__(self) -> None:
        if not 0.0 <= self.last <= 1.0:
            raise ValueError(f"last={self.last!r} is not a number from 0 to 1")

    def rate(self, t: Array | float, eta0: float, horizon: float) -> Array:
        """Return the learning rate after t updates."""
        wave = 0.5 + 0.5 * np.cos(np.pi * np.minimum(np.asarray(t) / horizon, 1.0))
        return np.asarray(eta0 * (self.last + (1.0 - self.last) * wave))


@dataclass(frozen=True)
class Exponential(Schedule):
    """A rate that falls by the same factor over equal numbers of updates.

    Attributes
    ----------
    last : float
        The rate at the horizon, as a share of the first. Above 0.
    """

    last: float = 0.01

    name: ClassVar[str] = "exponential"

    def __post_init__(self) -> None:
        require_above_zero("last", self.last)

    def rate(self, t: Array | float, eta0: float, horizon: float) -> Array:
        """Return the learning rate after t updates."""
        return np.asarray(eta0 * self.last ** (np.asarray(t) / horizon))


@dataclass(frozen=True)
class Steps(Schedule):
    """A rate that is multiplied by a factor at each of several points.

    Attributes
    ----------
    factor : float
        What the rate is multiplied by. Above 0.
    at : tuple of float
        The points, as shares of the horizon.
    """

    factor: float = 0.1
    at: tuple[float, ...] = (0.5, 0.75)

    name: ClassVar[str] = "steps"

    def __post_init__(self) -> None:
        require_above_zero("factor", self.factor)
        for point in self.at:
            require_above_zero("at", point)

    def rate(self, t: Array | float, eta0: float, horizon: float) -> Array:
        """Return the learning rate after t updates."""
        passed = np.searchsorted(np.sort(self.at), np.asarray(t) / horizon, side="right")
        return np.asarray(eta0 * self.factor**passed)


SCHEDULES: Registry[Schedule] = Registry(
    "schedule", "SCHEDULES", (Constant, Falling, Cosine, Exponential, Steps)
)
"""Schedules by name. ``@SCHEDULES.add`` registers one of your own."""


class RateTable:
    """Learning rates of the updates to come, which compiled loops look up.

    Attributes
    ----------
    rates : float64 array (1024,)
        The rate of update t is at ``t // RATE_UPDATES``, modulo the length.
    """

    def __init__(self, rate: Callable[[Array], Array]) -> None:
        self.rates = np.empty(_TABLE_RATES)
        self._rate = rate
        self._known = -1

    def cover(self, first: int, updates: int) -> None:
        """Have the rates of so many updates from the first in the table, at most 65,472."""
        if first + updates > self._known:
            block = first // RATE_UPDATES
            blocks = np.arange(block, block + _TABLE_RATES)
            self.rates[blocks % _TABLE_RATES] = self._rate(RATE_UPDATES * blocks.astype(np.float64))
            self._known = (block + _TABLE_RATES) * RATE_UPDATES
