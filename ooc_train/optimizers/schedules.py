"""The learning-rate schedules. To add one: its class, and its line in `SCHEDULES`."""

from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from ooc_train.core.named_classes import Registry
from ooc_train.core.sums import Array
from ooc_train.optimizers.optimizer import require_above_zero, require_not_negative
from ooc_train.optimizers.schedule import Schedule, require_in_01, require_updates


@dataclass(frozen=True)
class Constant(Schedule):
    """A constant learning rate."""

    name: ClassVar[str] = "constant"

    def share(self, t: Array, horizon: float) -> Array:  # noqa: ARG002
        """Return the rate after t updates, as a share of the learning rate."""
        return np.ones(np.shape(t))


@dataclass(frozen=True)
class Falling(Schedule):
    """The learning rate times ``1 / (1 + noise * (sqrt(1 + t / fall) - 1))`` after t updates.

    Attributes
    ----------
    noise : float
        Share of the denominator that grows with the root of t. 0 is a constant rate.
    fall : float
        Updates after which that share has grown by a factor of ``sqrt(2)``.
    """

    noise: float = 1.0
    fall: float = 1000.0

    name: ClassVar[str] = "falling"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_in_01("noise", self.noise)
        require_above_zero("fall", self.fall)

    def share(self, t: Array, horizon: float) -> Array:  # noqa: ARG002
        """Return the rate after t updates, as a share of the learning rate."""
        return np.asarray(1.0 / (1.0 + self.noise * (np.sqrt(1.0 + t / self.fall) - 1.0)))


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """The learning rate divided by a power of the update's number; scikit-learn's "invscaling".

    The n-th update has the rate ``eta0 / n**power_t``.

    Attributes
    ----------
    power_t : float
        The power. Above 0.
    """

    power_t: float = 0.25

    name: ClassVar[str] = "invscaling"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero("power_t", self.power_t)

    def share(self, t: Array, horizon: float) -> Array:  # noqa: ARG002
        """Return the rate after t updates, as a share of the learning rate."""
        return np.asarray((t + 1.0) ** -self.power_t)


@dataclass(frozen=True)
class Staircase(Schedule):
    """A rate that is multiplied by `factor` after every `every` updates.

    Attributes
    ----------
    factor : float
        What the rate is multiplied by. Above 0.
    every : float
        Updates of a step. Above 0.
    """

    factor: float = 0.5
    every: float = 1000.0

    name: ClassVar[str] = "staircase"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero("factor", self.factor)
        require_above_zero("every", self.every)

    def share(self, t: Array, horizon: float) -> Array:  # noqa: ARG002
        """Return the rate after t updates, as a share of the learning rate."""
        return np.asarray(self.factor ** np.floor(t / self.every))


@dataclass(frozen=True)
class Planned(Schedule):
    """A schedule that spans a planned number of updates.

    Attributes
    ----------
    over : float
        Number of updates after the warm-up that the schedule spans. 0 is all updates of the run:
        `max_iter` epochs times the updates of an epoch.
    """

    over: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_updates("over", self.over)

    @property
    def needs_horizon(self) -> bool:
        """Whether the rates depend on the planned number of updates."""
        return not self.over

    def done(self, t: Array, horizon: float) -> Array:
        """Return t as a share of the updates that the schedule spans: above 1 after the last."""
        return np.asarray(t / (self.over or horizon))


@dataclass(frozen=True)
class Linear(Planned):
    """A rate that falls linearly from the learning rate to `last` of it.

    Attributes
    ----------
    last : float
        The rate after the last update, as a share of the learning rate. From 0 to 1.
    """

    last: float = 0.0

    name: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_in_01("last", self.last)

    def share(self, t: Array, horizon: float) -> Array:
        """Return the rate after t updates, as a share of the learning rate."""
        return np.asarray(1.0 - (1.0 - self.last) * np.minimum(self.done(t, horizon), 1.0))


@dataclass(frozen=True)
class Cosine(Planned):
    """A rate that falls along half a cosine wave (Loshchilov and Hutter 2017, one cycle).

    Attributes
    ----------
    last : float
        The rate after the last update, as a share of the learning rate. From 0 to 1.
    """

    last: float = 0.0

    name: ClassVar[str] = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_in_01("last", self.last)

    def share(self, t: Array, horizon: float) -> Array:
        """Return the rate after t updates, as a share of the learning rate."""
        wave = 0.5 + 0.5 * np.cos(np.pi * np.minimum(self.done(t, horizon), 1.0))
        return np.asarray(self.last + (1.0 - self.last) * wave)


@dataclass(frozen=True)
class Exponential(Planned):
    """A rate that falls exponentially, also after the last planned update.

    Attributes
    ----------
    last : float
        The rate after the last update, as a share of the learning rate. Above 0.
    """

    last: float = 0.01

    name: ClassVar[str] = "exponential"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero("last", self.last)

    def share(self, t: Array, horizon: float) -> Array:
        """Return the rate after t updates, as a share of the learning rate."""
        return np.asarray(self.last ** self.done(t, horizon))


@dataclass(frozen=True)
class Steps(Planned):
    """A rate that is multiplied by a factor at each of several points.

    Attributes
    ----------
    factor : float
        What the rate is multiplied by. Above 0.
    at : tuple of float
        The points, as shares of the updates; in text "at=0.5/0.75".
    """

    factor: float = 0.1
    at: tuple[float, ...] = (0.5, 0.75)

    name: ClassVar[str] = "steps"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero("factor", self.factor)
        at: Any = self.at
        if isinstance(at, Real):  # text with a single point
            object.__setattr__(self, "at", (at,))
        for point in self.at:
            require_above_zero("at", point)

    def share(self, t: Array, horizon: float) -> Array:
        """Return the rate after t updates, as a share of the learning rate."""
        passed = np.searchsorted(np.sort(self.at), self.done(t, horizon), side="right")
        return np.asarray(self.factor**passed)


@dataclass(frozen=True)
class OneCycle(Planned):
    """A rate that rises linearly to its peak, falls linearly, and then falls far below.

    Smith and Topin 2019, Super-convergence; momentum does not change. The learning rate is the
    peak, which may be far above a good constant rate.

    Attributes
    ----------
    first : float
        The rate at the start and after the cycle, as a share of the learning rate. Above 0 and at
        most 1.
    peak : float
        Share of the updates before the peak, and again from there to the end of the cycle. Above 0
        and at most 0.5.
    last : float
        The rate after the last update, as a share of the learning rate. From 0 to `first`.
    """

    first: float = 0.1
    peak: float = 0.45
    last: float = 0.001

    name: ClassVar[str] = "one-cycle"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, most in (("first", 1.0), ("peak", 0.5)):
            value = getattr(self, name)
            if not 0.0 < value <= most:
                raise ValueError(f"{name}={value!r} is not a number above 0 and at most {most:g}")
        if not 0.0 <= self.last <= self.first:
            raise ValueError(f"last={self.last!r} is not a number from 0 to first={self.first!r}")

    def share(self, t: Array, horizon: float) -> Array:
        """Return the rate after t updates, as a share of the learning rate."""
        points = [0.0, self.peak, 2.0 * self.peak, 1.0]
        rates = [self.first, 1.0, self.first, self.last]
        if self.peak == 0.5:  # the cycle takes all updates
            points, rates = points[:3], rates[:3]
        return np.interp(self.done(t, horizon), points, rates)


@dataclass(frozen=True)
class Plateau(Schedule):
    """A rate that is multiplied by a factor whenever a run makes no more progress.

    It follows the validation rows where there are some: their loss, or the metric of early
    stopping. Else it follows the objective of the training rows. As scikit-learn's "adaptive" and
    `ReduceLROnPlateau` of PyTorch and Keras. The run lowers the rate: `solvers/plateaus.py`.

    Attributes
    ----------
    factor : float
        What the rate is multiplied by. Above 0 and below 1.
    patience : float
        Epochs in a row without progress after which the rate is lowered. A whole number.
    min_delta : float
        How much better than the best so far an epoch has to be for progress.
    last : float
        Share of the learning rate from which on the rate is not lowered any more. Above 0 and at
        most 1.
    """

    factor: float = 0.2
    patience: float = 5.0
    min_delta: float = 1e-4
    last: float = 1e-4

    name: ClassVar[str] = "plateau"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.factor < 1.0:
            raise ValueError(f"factor={self.factor!r} is not a number above 0 and below 1")
        if not (1.0 <= self.patience < 2**31 and self.patience == int(self.patience)):
            raise ValueError(f"patience={self.patience!r} is not a whole number of at least 1")
        require_not_negative("min_delta", self.min_delta)
        if not 0.0 < self.last <= 1.0:
            raise ValueError(f"last={self.last!r} is not a number above 0 and at most 1")

    def share(self, t: Array, horizon: float) -> Array:  # noqa: ARG002
        """Return the rate after t updates, as a share of the rate of the epoch."""
        return np.ones(np.shape(t))

    def may_lower(self, times: int) -> bool:
        """Return whether a plateau may lower the rate again, after `times` times."""
        return self.factor**times > self.last

    def plot(self, learning_rate: float = 1.0, updates: int = 1000, ax: Any = None) -> Any:
        """Raise `ValueError`: rates depend on the run; `plots.learning_rate` draws a run's."""
        del learning_rate, updates, ax
        raise ValueError(
            "the rates of 'plateau' follow the run; plots.learning_rate(report) draws those of one"
        )


SCHEDULES: Registry[Schedule] = Registry(
    "schedule",
    "SCHEDULES",
    (
        Constant,
        Falling,
        InverseScaling,
        Staircase,
        Linear,
        Cosine,
        Exponential,
        Steps,
        OneCycle,
        Plateau,
    ),
)
"""Schedules by name. ``@SCHEDULES.add`` registers one of your own."""
