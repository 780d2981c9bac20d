"""The contest: data, what a contestant is, and the seconds that one trains until it is good enough.

A contestant trains in steps, and is looked at after each. Its clock runs during steps only: reading
the data does count, and starting, compiling, converting and looking at it do not.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

from ooc_train.core.sums import Array
from ooc_train.store.dataset import Store
from ooc_train.store.jobs.synthetic import make_data

CLOSE = 0.005
"""How far above the optimum's test loss is good enough, as a share of it: what one pass of well-set
updates reaches. Closer by, it would be a contest of schedules of learning rates, not of speed."""

SLAB_ROWS = 16_384
"""Rows that peers read at a time: eight chunks, with which zarr-python reads fastest."""

_MOST_PASSES = 20
"""Passes, or iterations, after which a contestant is stopped."""

_TEST_ROWS = 100_000


class Step(NamedTuple):
    """What a contestant has learned so far, in units of the data, and in how many passes."""

    coef: Array
    intercept: float
    passes: int


Train = Callable[[], Iterator[Step]]
"""Begins anew, and yields after each pass."""


@dataclass(frozen=True)
class Contestant:
    """Who trains, and what was done before that isn't counted: conversions of the data."""

    train: Train
    converted: str = ""


@dataclass(frozen=True, eq=False)
class Data:
    """Rows to learn from, and others of the same truth that tell how well it went."""

    store: Store
    X_test: NDArray[np.float32]
    y_test: NDArray[np.uint8]

    @classmethod
    def made(cls, folder: str, rows: int) -> "Data":
        """Make data of correlated columns."""
        settings: dict[str, Any] = {"condition": 100.0, "overwrite": True}
        path = f"{folder}/made.zarr"
        longer = make_data(path, rows=rows + _TEST_ROWS, **settings)
        (X, y), *_ = slabs(longer, rows, _TEST_ROWS)
        # The first rows of a long store are those of a short one.
        return cls(make_data(path, rows=rows, **settings), X, y)

    def loss(self, coef: Array, intercept: float) -> float:
        """Return the mean loss of rows that were not learned from."""
        return float(losses(self.X_test, self.y_test, coef, intercept).mean())


class Peer(Protocol):
    """The module of a peer."""

    @staticmethod
    def start(data: Data, folder: str, stack: ExitStack) -> Contestant:
        """Start what takes long to start, convert the data, and say on `stack` what ends it."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a contestant did: seconds, passes or iterations, and the last test loss."""

    seconds: float
    passes: int
    loss: float
    reached: bool


def race(contestant: Contestant, data: Data, target: float) -> Outcome:
    """Train until the test loss is at most `target`, or for many passes."""
    steps = contestant.train()
    seconds = 0.0
    while True:
        started = perf_counter()
        step = next(steps)
        seconds += perf_counter() - started
        loss = data.loss(step.coef, step.intercept)
        if loss <= target or step.passes >= _MOST_PASSES:
            return Outcome(seconds, step.passes, loss, loss <= target)


def told_beforehand(fit: Callable[[int], Step]) -> Train:
    """Return the training of one who is told before it begins how many passes it has.

    Each step begins anew with one pass more; who trains again begins with as many as did the last
    time, so that after the first time only the fit that is good enough is counted.
    """
    enough = 1

    def train() -> Iterator[Step]:
        nonlocal enough
        for passes in count(enough):
            enough = passes
            yield fit(passes)

    return train


def slabs(
    store: Store, start: int = 0, rows: int = SLAB_ROWS
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    """Yield X and y of so many rows at a time, read by zarr-python."""
    group = zarr.open_group(store.path, mode="r")
    X: Any = group["X"]
    y: Any = group["y"]
    for first in range(start, store.n_rows, rows):
        last = min(first + rows, store.n_rows)
        yield X[first:last], y[first:last]


def losses(
    X: NDArray[np.float32], y: NDArray[np.uint8], coef: Array, intercept: float
) -> NDArray[np.float64]:
    """Return the logistic loss of each row."""
    z = X @ np.asarray(coef, np.float64) + intercept
    found: NDArray[np.float64] = np.logaddexp(0.0, z) - y * z
    return found
