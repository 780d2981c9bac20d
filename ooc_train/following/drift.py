"""A test of change on a series of losses, which notices that the data drift.

Two cumulative sums, of rises and of falls, follow how many standard deviations the losses lie from
their mean since the last change (Page 1954; on the loss of a stream: Gama et al. 2013). A sum that
passes the threshold is a change. A fall is no drift: the model has become better. After either,
mean and deviation begin anew.
"""

from collections.abc import Sequence
from math import sqrt

_LEAST_WINDOWS = 10
"""Losses from which mean and deviation are estimated before the test begins."""

_SLACK, _THRESHOLD, _MOST = 0.5, 12.0, 4.0
"""In standard deviations: rises that count as none, the sum that is a change, and the most that one
loss adds, so that a single outlier is no change. Of independent normal losses, fewer
than one window in 100,000 is a false alarm."""

_AT_START = (0.0,) * 5

_EQUAL = 1e-9
"""Deviation, as a share of the mean, below which losses are equal."""


class DriftTest:
    """The state of the test: count, mean and sum of squares of losses, and both sums."""

    def __init__(self, values: Sequence[float] = _AT_START) -> None:
        self._count, self._mean, self._squares, self._rises, self._falls = map(float, values)

    @property
    def values(self) -> tuple[float, ...]:
        """The state as numbers, from which another test goes on."""
        return self._count, self._mean, self._squares, self._rises, self._falls

    def add(self, loss: float) -> bool:
        """Take in the mean loss of a window; return whether the losses have risen."""
        if self._count >= _LEAST_WINDOWS:
            deviation = sqrt(self._squares / (self._count - 1))
            deviation = max(deviation, _EQUAL * abs(self._mean), 1e-300)
            away = max(-_MOST, min((loss - self._mean) / deviation, _MOST))
            loss = self._mean + away * deviation
            self._rises = max(0.0, self._rises + away - _SLACK)
            self._falls = max(0.0, self._falls - away - _SLACK)
            if max(self._rises, self._falls) > _THRESHOLD:
                rose = self._rises > _THRESHOLD
                DriftTest.__init__(self)
                return rose
        self._count += 1.0
        before = self._mean
        self._mean += (loss - before) / self._count
        self._squares += (loss - before) * (loss - self._mean)
        return False
