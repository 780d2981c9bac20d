"""What a solver asks of a stream: sums over rows, or an epoch of updates.

A solver never holds a stream. It returns a request, and is told the answer (reverse communication).
So its state is arrays and numbers alone, and any stream can answer: one of a cluster, one of a
test, or one that several solvers share.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Arrays, Block, Reduction, Sums, Workspace


class Scan(Protocol):
    """The computation that an epoch of updates does; a value that is sent to the workers."""

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays that a learner works in, as specs, for blocks of up to `rows` rows."""
        ...

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that a learner allocates beside its workspace, for such blocks."""
        ...

    def learner(
        self, state: Sums, workspace: Arrays, threads: int = 1
    ) -> AbstractContextManager[Callable[[Block, NDArray[np.int64]], None]]:
        """Return a context whose function learns from rows of a block, in the order given.

        The function updates `state`; its arrays may be up to date only once the context has ended.
        It may share the work of a batch among `threads` threads, if that changes no bit.
        """
        ...

    def finish(self, state: Sums, workspace: Arrays) -> None:
        """Update the parameters in `state` by the incomplete last batch of the epoch."""
        ...

    def average(self, before: Sequence[Sums], after: Sequence[Sums]) -> None:
        """Replace the replicas' states `after` a round by their mean, in place."""
        ...


@dataclass(frozen=True, eq=False)
class Reduce:
    """A request for sums over rows; the answer is `Sums`.

    Attributes
    ----------
    reduction : Reduction
        Which sums are added up.
    partitions : sequence of int, or None
        Partitions whose rows are read; None for all.
    counted : bool
        Whether the rows count as part of the run's passes.
    """

    reduction: Reduction
    partitions: Sequence[int] | None = None
    counted: bool = True


@dataclass(frozen=True, eq=False)
class Epoch:
    """A request for one epoch of updates; the answer is a list of states, one for each replica.

    Attributes
    ----------
    scan : Scan
        The computation that learns from the rows.
    states : sequence of Sums
        State of each replica before the epoch.
    seed : int or None
        Seed of the order of rows, together with `number`. None for the order of the data.
    number : int
        Number of epochs before this one.
    shuffle_chunks : int
        Number of chunks whose rows are shuffled together.
    """

    scan: Scan
    states: Sequence[Sums]
    seed: int | None
    number: int = 0
    shuffle_chunks: int = 1


Request = Reduce | Epoch | tuple[Reduce, ...]
"""Several sums are asked for together where none depends on another: the answer is a list."""

Answer = Sums | list[Sums]
