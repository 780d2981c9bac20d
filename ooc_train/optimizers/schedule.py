"""The base of the learning-rate schedules.

A schedule is a frozen dataclass whose fields are its hyperparameters. Its `share` is vectorised
NumPy: kernels are handed an array of rates. Any schedule can warm up, since the base does that.
"""

from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, ClassVar, Self, final

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.core.text import counted
from ooc_train.plotting import plots

_FIRST_UPDATES, _SPREAD_UPDATES = 1024, 4096
"""Updates whose rates are checked before a run: the first ones, and others spread evenly."""


@dataclass(frozen=True)
class Schedule:
    """The base of schedules: how the learning rate changes in the course of a run.

    Attributes
    ----------
    name : str
        The key in `SCHEDULES`.
    warmup : float
        Updates of the warm-up. The n-th has ``n / warmup`` of the schedule's first rate (Goyal et
        al. 2017), and the schedule begins after the last. 0 is no warm-up.
    """

    name: ClassVar[str]
    warmup: float = field(default=0.0, kw_only=True)

    def __init_subclass__(cls) -> None:
        # Such a method would leave out the warm-up, and nobody would know.
        if "rate" in cls.__dict__:
            raise TypeError(
                f"{cls.__name__} defines `rate`, which warms up by itself; define `share(t, "
                "horizon)`, the share of the learning rate after t updates"
            )

    def __post_init__(self) -> None:
        """Check the hyperparameters; raise `ValueError` naming one that cannot be used."""
        require_updates("warmup", self.warmup)

    @property
    def needs_horizon(self) -> bool:
        """Whether the rates depend on the planned number of updates."""
        return False

    def share(self, t: Array, horizon: float) -> Array:
        """Return the rate after t updates, as a share of the learning rate.

        Parameters
        ----------
        t : float64 array
            Numbers of updates, after the warm-up.
        horizon : float
            Planned number of updates after the warm-up; infinity where nobody knows it.
        """
        raise NotImplementedError

    @final
    def rate(self, t: Array | float, eta0: float, horizon: float) -> Array:
        """Return the learning rate after t updates, of the shape of `t`.

        Parameters
        ----------
        t : float or float64 array
            Numbers of updates. Beyond the horizon, the rate is that of the last planned update.
        eta0 : float
            The learning rate, of which a schedule gives a share.
        horizon : float
            Planned number of updates of the run; infinity where nobody knows it.
        """
        t = np.minimum(np.asarray(t, np.float64), horizon - 1.0)
        with np.errstate(over="ignore", under="ignore"):  # `unusable` finds what comes of that
            if not self.warmup:
                return np.asarray(eta0 * self.share(t, horizon))
            begun = self.share(np.maximum(t - self.warmup, 0.0), max(1.0, horizon - self.warmup))
            return np.asarray(eta0 * np.minimum((t + 1.0) / self.warmup, 1.0) * begun)

    @final
    def require_rates(self, horizon: float) -> Self:
        """Return the schedule if a run of so many updates can follow it.

        Raises
        ------
        ValueError
            If the number of updates is unknown, and the schedule needs it. If the warm-up takes all
            updates. If a rate is zero or infinite.
        """
        if horizon == inf and self.needs_horizon:
            raise ValueError(
                f"schedule='{self}' follows the planned number of updates, which is not known "
                f"here; say over how many it goes, such as '{self.name}:over=10000', or use "
                "'invscaling'"
            )
        if self.warmup >= horizon:
            raise ValueError(
                f"warmup={self.warmup:g} of schedule='{self}' is not below the {horizon:,.0f} "
                "updates that the run makes; use a smaller one, or a larger max_iter"
            )
        t = np.arange(min(float(_FIRST_UPDATES), horizon))
        if horizon < inf:
            t = np.append(t, np.floor(np.linspace(0.0, horizon - 1.0, _SPREAD_UPDATES)))
        rates = self.rate(t, 1.0, horizon)
        if unusable(rates).any():
            at = int(np.argmax(unusable(rates)))
            raise ValueError(
                f"schedule='{self}' {refused(rates[at])} after {t[at]:,.0f}"
                + (f" of {counted(horizon, 'update', ',.0f')}" if horizon < inf else " updates")
            )
        return self

    def plot(self, learning_rate: float = 1.0, updates: int = 1000, ax: Any = None) -> Any:
        """Draw the rate over the updates of a run.

        Parameters
        ----------
        learning_rate : float
            The learning rate, of which the schedule gives a share.
        updates : int
            Planned number of updates.
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes new axes.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ValueError
            If a run of so many updates cannot follow the schedule.
        """
        return plots.schedule(self.require_rates(updates), learning_rate, updates, ax)

    def __str__(self) -> str:
        """Return name and hyperparameters as text, which `SCHEDULES.parse` accepts."""
        changed = [
            f"{each.name}={_number_text(getattr(self, each.name))}"
            for each in fields(self)
            if getattr(self, each.name) != each.default
        ]
        return ":".join(filter(None, [self.name, ",".join(changed)]))


def unusable(rates: Array) -> Any:
    """Return a mask of the rates that are zero or not finite."""
    return ~(np.isfinite(rates) & (rates > 0.0))


def refused(rate: float) -> str:
    """Return the text of an error about a rate that is zero or not finite, with the way out."""
    way_out = "give a `last` or a `factor` that keeps it above 0" if rate <= 0 else "lower it"
    return f"has a learning rate of {rate:g}, which must be finite and above 0 ({way_out}),"


def _number_text(value: Any) -> str:
    if isinstance(value, tuple):
        return "/".join(map(_number_text, value))
    return f"{value:g}" if float(f"{value:g}") == value else repr(float(value))


def require_updates(name: str, value: float) -> None:
    """Raise ValueError unless a number of updates is finite and at least 0."""
    if not 0.0 <= value < inf:
        raise ValueError(f"{name}={value!r} is not a finite number of updates of at least 0")


def require_in_01(name: str, value: float) -> None:
    """Raise ValueError unless a number is from 0 to 1."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}={value!r} is not a number from 0 to 1")
