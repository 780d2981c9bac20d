"""What following a stream has counted so far: rows, progressive losses, drifts and notes."""

from collections.abc import Mapping, Sequence
from copy import copy
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.errors import InvalidRun
from ooc_train.following.drift import DriftTest
from ooc_train.runs.events import Stepped
from ooc_train.runs.history import Steps

_HALF_LIFE = 10
"""Windows after which a loss counts half in the decayed loss."""

_JUMP = 10.0
"""A window's loss is looked into if it is so many times the decayed loss."""

_MOST_DRIFTS = 1_000
"""Drifts whose rows are kept, the last ones."""


class FollowRecord:
    """Counts of a stream that is followed, which a checkpoint keeps.

    Parameters
    ----------
    started : float
        Time of `perf_counter` when following began, in seconds.

    Attributes
    ----------
    rows : int
        Rows learned so far: the position in the store.
    learning_rate : float or None
        The rate that the schedule scales.
    drifts : list of int
        Rows at which the loss was found to have risen.
    notes : dict
        Remarks, as keys in order.
    steps : Steps
        The history: one entry a window.
    """

    def __init__(self, started: float) -> None:
        self.rows = 0
        self.learning_rate: float | None = None
        self.drifts: list[int] = []
        self.notes: dict[str, None] = {}
        self.steps = Steps()
        self._total, self._decayed = np.zeros(2), np.zeros(2)
        self._test = DriftTest()
        self._started = started

    @property
    def seconds(self) -> float:
        """Seconds of following, without those between two of its processes."""
        return perf_counter() - self._started

    @property
    def loss(self) -> float:
        """Mean progressive loss of all rows of windows that ended, by weight; NaN without any."""
        return _mean(self._total)

    @property
    def decayed_loss(self) -> float:
        """The same, in which a loss counts half after ten further windows."""
        return _mean(self._decayed)

    def has_jumped(self, windows: NDArray[np.float64]) -> bool:
        """Return whether the loss of a window is far above the decayed loss before, or no number.

        The first window has none before it.
        """
        before = self._decayed
        for sums in windows[windows[:, 1] > 0]:
            if not _mean(sums) <= _JUMP * _mean(before):
                return True
            before = _decayed(before, sums)
        return False

    def would_drift(self, windows: NDArray[np.float64]) -> bool:
        """Return whether the losses of windows, added in turn, would be found to have risen."""
        test = copy(self._test)
        return any(test.add(_mean(sums)) for sums in windows if sums[1] > 0)

    def add(self, sums: NDArray[np.float64]) -> tuple[float | None, bool]:
        """Take in loss and weight of a window; return its mean, and whether the loss has risen.

        The mean of a window without weight is None.
        """
        self._total += sums
        self._decayed = _decayed(self._decayed, sums)
        if not sums[1] > 0:
            return None, False
        loss = _mean(sums)
        return loss, self._test.add(loss)

    def note_drift(self, row: int) -> str:
        """Note that the loss was found to have risen before a row; return the note."""
        self.drifts = [*self.drifts, row][-_MOST_DRIFTS:]
        return f"drift: the progressive loss has risen before row {row:,}"

    def to_json(self) -> dict[str, Any]:
        """Return the record as values of JSON, as checkpoints keep it."""
        return {
            "rows": self.rows,
            "rows_before": 0,
            "seconds": self.seconds,
            "learning_rate": self.learning_rate,
            "notes": list(self.notes),
            "steps": self.steps.to_json(),
            "goals": {
                "drifts": self.drifts,
                "total": self._total.tolist(),
                "decayed": self._decayed.tolist(),
                "test": list(self._test.values),
            },
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on from the record of an earlier process.

        Raises
        ------
        InvalidRun
            If the record is damaged, or is that of a run of `train`.
        """
        self.rows, self.learning_rate = values["rows"], values["learning_rate"]
        self._started -= values["seconds"]
        self.notes |= dict.fromkeys(values["notes"])
        series, counted = values["steps"], values["goals"]
        try:
            steps = [Stepped(**each) for each in series["steps"]]
            self.steps.restore(steps, int(series["every"]), int(series["count"]))
            self.drifts = list(map(int, counted["drifts"]))
            self._total, self._decayed = _pair(counted["total"]), _pair(counted["decayed"])
            self._test = DriftTest(counted["test"])
        except (TypeError, KeyError, ValueError) as error:
            raise InvalidRun(f"the checkpoint is none of following a store ({error})") from None


def _decayed(before: NDArray[np.float64], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return decayed sums after a further window."""
    decayed: NDArray[np.float64] = 0.5 ** (1.0 / _HALF_LIFE) * before + sums
    return decayed


def _mean(sums: NDArray[np.float64]) -> float:
    """Return the mean of a sum of losses and a sum of weights."""
    return float(sums[0] / sums[1]) if sums[1] > 0 else float("nan")


def _pair(values: Sequence[float]) -> NDArray[np.float64]:
    total, weight = map(float, values)
    return np.array([total, weight])
