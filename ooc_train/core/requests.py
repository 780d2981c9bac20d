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
    """What an epoch does with rows: a value that travels to the workers."""

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays that a learner works in, for blocks of at most `rows` rows."""
        ...

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that a learner makes beside them, for such blocks."""
        ...

    def learner(
        self, state: Sums, workspace: Arrays
    ) -> AbstractContextManager[Callable[[Block, NDArray[np.int64]], None]]:
        """Lend a function that takes rows of a block, in the order given, into `state`.

        What the function changes may be in `state` only when the context ends.
        """
        ...

    def finish(self, state: Sums, workspace: Arrays) -> None:
        """Apply the incomplete last batch of the epoch, in place."""
        ...

    def average(self, before: Sequence[Sums], after: Sequence[Sums]) -> None:
        """Replace the states of replicas by their mean, in place; `before` the round they were."""
        ...


@dataclass(frozen=True, eq=False)
class Reduce:
    """Asks for sums over rows; the answer is `Sums`.

    Attributes
    ----------
    reduction : Reduction
        Which sums.
    partitions : sequence of int, or None
        Where the rows are; None for all.
    counted : bool
        Whether the rows count as part of the run's passes.
    """

    reduction: Reduction
    partitions: Sequence[int] | None = None
    counted: bool = True


@dataclass(frozen=True, eq=False)
class Epoch:
    """Asks for one pass of updates; the answer is a list of states, one a replica.

    Attributes
    ----------
    scan : Scan
        What is done with the rows.
    states : sequence of Sums
        Of the replicas, before the pass.
    seed : int or None
        Of the order of rows, together with `number`. None for the order in which they lie.
    number : int
        Epochs before this one.
    shuffle_chunks : int
        Chunks whose rows are mixed.
    """

    scan: Scan
    states: Sequence[Sums]
    seed: int | None
    number: int = 0
    shuffle_chunks: int = 1


Request = Reduce | Epoch | tuple[Reduce, ...]
"""Several sums are asked for together where none depends on another: the answer is a list."""

Answer = Sums | list[Sums]
