"""Batch-size schedules: rows per update, by epoch.

Larger batches do for the noise of updates what a smaller learning rate does, and make fewer updates
(Smith et al. 2018, "Don't decay the learning rate, increase the batch size"). At batches of all
rows an exact solver goes on from the parameters (`phased.py`).
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from ooc_train.core.schema import shown
from ooc_train.core.units import parse_rows
from ooc_train.plotting import plots

FULL = "full"
Size = int | str
"""Rows per update, or "full" for all rows."""


@dataclass(frozen=True)
class BatchSchedule:
    """A schedule of the batch size, which changes at ends of epochs.

    Attributes
    ----------
    name : str
        The word that begins the schedule as text.
    measures_noise : bool
        Whether sizes follow the gradient noise scale, which is measured after each epoch.
    """

    name: ClassVar[str]
    measures_noise: ClassVar[bool] = False

    def rows(self, epoch: int, n_rows: int) -> int:
        """Return the rows per update of an epoch, for data of `n_rows` rows."""
        raise NotImplementedError

    def after(self, epoch: int, n_rows: int, batch_size: int, noise: float | None) -> int:
        """Return the rows per update of an epoch, given those of the epoch before.

        Parameters
        ----------
        epoch, n_rows, batch_size : int
            The epoch that begins, all rows of the data, and rows per update of the epoch before.
        noise : float or None
            The gradient noise scale, in rows; None if it is not known.
        """
        del batch_size, noise
        return self.rows(epoch, n_rows)

    def last(self, n_rows: int) -> int:
        """Return the rows per update of the last epochs of a long run."""
        return self.rows(2**62, n_rows)

    def smallest(self, n_rows: int) -> int:
        """Return the fewest rows per update of any epoch."""
        return self.rows(0, n_rows)

    @property
    def _settings(self) -> str:
        """The settings as text, which follows the name and a colon."""
        raise NotImplementedError

    def __str__(self) -> str:
        """Return the schedule as text, which `batch_schedule` accepts."""
        return ":".join(filter(None, [self.name, self._settings]))

    def plot(self, epochs: int = 12, n_rows: int = 1_000_000, ax: Any = None) -> Any:
        """Draw the rows per update over epochs.

        Parameters
        ----------
        epochs, n_rows : int
            Epochs to draw, and rows of the data.
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes new axes.

        Returns
        -------
        matplotlib.axes.Axes
        """
        sizes = [self.rows(epoch, n_rows) for epoch in range(epochs)]
        return plots.batch_schedule(sizes, str(self), ax)


@dataclass(frozen=True)
class ExponentialBatches(BatchSchedule):
    """Batches that grow by a factor at the end of each epoch: "exp:32..full,factor=4".

    Attributes
    ----------
    first : int
        Rows per update of the first epoch.
    until : int or "full"
        The largest rows per update; "full" is all rows.
    factor : float
        Growth at the end of an epoch. Above 1.
    """

    first: int
    until: Size = FULL
    factor: float = 2.0

    name: ClassVar[str] = "exp"

    def __post_init__(self) -> None:
        """Check the values; raise `ValueError` naming one that cannot be used."""
        _require_whole("first", self.first)
        if self.until != FULL:
            _require_whole("until", self.until)
            if self.until <= self.first:  # type: ignore[operator] # a number by now
                raise ValueError(f"until={self.until!r} is not above first={self.first!r}")
        if not 1.0 < self.factor < math.inf:
            raise ValueError(f"factor={self.factor!r} is not a finite number above 1")

    def rows(self, epoch: int, n_rows: int) -> int:
        """Return the rows per update of an epoch."""
        most = _rows(self.until, n_rows)
        # The power of a late epoch would overflow.
        if epoch * math.log(self.factor) >= math.log(most / self.first):
            return most
        return int(self.first * self.factor**epoch)

    @property
    def _settings(self) -> str:
        factor = "" if self.factor == 2.0 else f",factor={self.factor!r}"
        return f"{self.first}..{self.until}{factor}"

    @classmethod
    def parse(cls, settings: str) -> "ExponentialBatches":
        """Make the schedule from text such as "32..full,factor=4"."""
        sizes, *others = settings.split(",")
        first, until = sizes.split("..")
        factors = [float(each.removeprefix("factor=")) for each in others]
        if len(factors) > 1 or "full" in first:
            raise ValueError("a factor is given twice, or the first size is full")
        return cls(parse_rows(first), _size(until), *factors)


@dataclass(frozen=True)
class BatchSteps(BatchSchedule):
    """Batches of several sizes, each from an epoch on: "step:256@0,4096@3,full@6".

    Attributes
    ----------
    steps : tuple of (int or "full", int)
        Rows per update, and the epoch that they begin with: the first with epoch 0, others later
        and later. Only the last may be "full".
    """

    steps: tuple[tuple[Size, int], ...]

    name: ClassVar[str] = "step"

    def __post_init__(self) -> None:
        """Check the values; raise `ValueError` naming one that cannot be used."""
        before = -1
        object.__setattr__(self, "steps", tuple((size, epoch) for size, epoch in self.steps))
        if not self.steps or self.steps[0][1] != 0:
            raise ValueError(f"steps={shown(self.steps)} is not a size from epoch 0 on, and others")
        for size, epoch in self.steps:
            _require_whole(f"the epoch of {size}", epoch, least=before + 1)
            before = epoch
            if size != FULL:
                _require_whole("a batch size", size)
        if FULL in [size for size, _ in self.steps[:-1]]:
            raise ValueError("'full' ends the schedule, and a batch size follows it")

    def rows(self, epoch: int, n_rows: int) -> int:
        """Return the rows per update of an epoch."""
        size = [size for size, begins in self.steps if begins <= epoch][-1]
        return _rows(size, n_rows)

    def smallest(self, n_rows: int) -> int:
        """Return the fewest rows per update of any epoch."""
        return min(_rows(size, n_rows) for size, _ in self.steps)

    @property
    def _settings(self) -> str:
        return ",".join(f"{size}@{epoch}" for size, epoch in self.steps)

    @classmethod
    def parse(cls, settings: str) -> "BatchSteps":
        """Make the schedule from text such as "256@0,full@6"."""
        steps = (each.split("@") for each in settings.split(","))
        return cls(tuple((_size(size), int(epoch)) for size, epoch in steps))


@dataclass(frozen=True)
class GrowingBatches(BatchSchedule):
    """Batches that follow the gradient noise scale up to all rows: "grow".

    Batches above the noise scale gain little for each row, and updates by smaller ones mostly undo
    each other (McCandlish et al. 2018, "An Empirical Model of Large-Batch Training"). The scale
    grows as the gradient falls. Where it exceeds what the rows can tell, the gradient is lost in
    the noise, and batches are all rows. Batches never become smaller.

    Attributes
    ----------
    first : int
        Rows per update of the first epoch.
    """

    first: int = 32

    name: ClassVar[str] = "grow"
    measures_noise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the value; raise `ValueError` if it cannot be used."""
        _require_whole("first", self.first)

    def rows(self, epoch: int, n_rows: int) -> int:
        """Return the rows per update of the first epoch, and all rows for any other."""
        return min(self.first, n_rows) if epoch == 0 else n_rows

    def after(self, epoch: int, n_rows: int, batch_size: int, noise: float | None) -> int:
        """Return the rows per update after an epoch: the noise scale, or more."""
        del epoch
        wanted = _BLIND_GROWTH * batch_size if noise is None else noise
        return n_rows if 2 * wanted >= n_rows else max(batch_size, int(wanted))

    @property
    def _settings(self) -> str:
        return "" if self.first == type(self).first else f"{self.first}"

    def plot(self, epochs: int = 12, n_rows: int = 1_000_000, ax: Any = None) -> Any:
        """Raise `ValueError`: sizes depend on the rows; `plots.batch_size` draws those of a run."""
        del epochs, n_rows, ax
        raise ValueError(
            "the batch sizes of 'grow' follow the rows; plots.batch_size(report) draws those of a "
            "run"
        )

    @classmethod
    def parse(cls, settings: str) -> "GrowingBatches":
        """Make the schedule from text: empty, or the rows per update of the first epoch."""
        return cls(parse_rows(settings)) if settings else cls()


_BLIND_GROWTH = 4
"""Growth at the end of an epoch where the noise scale is not known: all rows are one partition."""

BATCH_SCHEDULES: dict[str, type[Any]] = {
    cls.name: cls for cls in (ExponentialBatches, BatchSteps, GrowingBatches)
}
"""The schedules by the word that begins their text."""


def batch_schedule(text: str) -> BatchSchedule:
    """Make a batch-size schedule from its text.

    Raises
    ------
    ValueError
        If the text is no batch-size schedule.

    Examples
    --------
    >>> batch_schedule("step:256@0,4096@3,full@6").rows(4, n_rows=1_000_000)
    4096
    """
    name, _, settings = text.partition(":")
    try:
        schedule: BatchSchedule = BATCH_SCHEDULES[name].parse(settings)
    except (KeyError, ValueError) as error:
        reason = "" if isinstance(error, KeyError) else f": {error}"
        raise ValueError(
            f"batch_size={shown(text)} is no schedule such as 'exp:32..full', "
            f"'step:256@0,4096@3,full@6' or 'grow'{reason}"
        ) from None
    return schedule


def _size(text: str) -> Size:
    return FULL if text == FULL else parse_rows(text)


def _rows(size: Size, n_rows: int) -> int:
    """Return a size as a number of rows, at most all rows."""
    return n_rows if isinstance(size, str) else min(size, n_rows)


def _require_whole(name: str, value: Any, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={shown(value)} is not a whole number of at least {least}")
