"""What all solvers share: a state that is a value, and steps that turn one into the next.

Configuration and state are different objects. A solver is a frozen value of settings; what it has
learned so far is a frozen `State`, which can be kept, compared and gone on from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ooc_train.core.sums import Array, Reduction, Sums
from ooc_train.models.linear import Evaluation, LinearProblem
from ooc_train.models.linear_updates import LinearUpdates
from ooc_train.stream.sources import Source

_ENOUGH = 1e-4
"""Share of the decrease promised by the gradient that a step has to keep."""

_ROUNDING = 1e-13
"""How far two sums for one objective may lie apart, as a share of it."""

STALLED = "no step lowers the objective by more than rounding"
"""Why a solver that descends can't go on, where it can't."""


class Stream(Protocol):
    """The passes that solvers use, as `ooc_train.stream.passes.Stream` makes them."""

    source: Source

    def reduce(
        self, reduction: Reduction, partitions: Sequence[int] | None = None, *, counted: bool = True
    ) -> Sums:
        """Return the sums over all rows, or over the partitions given.

        Rows that are not counted are no part of the run's passes.
        """
        ...

    def scan(
        self,
        scan: LinearUpdates,
        states: Sequence[Sums],
        *,
        seed: int,
        epoch: int,
        shuffle_chunks: int,
    ) -> list[Sums]:
        """Return the states of all replicas after one pass over all rows in random order."""
        ...


@dataclass(frozen=True)
class Precision:
    """How well rows determine the coefficients of least squares.

    Attributes
    ----------
    condition : condition number of the scaled columns, penalty included, along the directions kept
    rank : directions kept: the others depend on these
    digits : estimated decimal digits of the coefficients, in scaled units together
    """

    condition: float
    rank: int
    digits: float


@dataclass(frozen=True, eq=False)
class State:
    """How far a solver has come.

    Attributes
    ----------
    theta : parameters in scaled units, float64 array (outputs, features + 1)
    n_iter : steps taken: iterations of a full-batch solver, epochs of updates. The first pass of an
        iterative full-batch solver evaluates the start, and takes no step
    updates : changes of the parameters
    loss : mean loss of a row, by weight, at `theta`; for updates, of a sample of the rows
    progressive_loss : for updates, the mean loss of each row just before it was learned from, over
        the last epoch
    gradient_norm : largest entry of the gradient of the mean objective, of the rows of `loss`; or
        None
    converged : whether the tolerance is met
    stalled : why no further step can be taken, where none can; `theta` is the best point found
    memory : whatever the solver needs to go on
    note : what of the step is worth telling, in words, or nothing
    precision : how well the rows determine the coefficients, where the solver knows
    """

    theta: Array
    n_iter: int = 0
    updates: int = 0
    loss: float = float("nan")
    progressive_loss: float | None = None
    gradient_norm: float | None = None
    converged: bool = False
    stalled: str = ""
    memory: Any = field(default=None, repr=False)
    note: str = ""
    precision: Precision | None = None


class Solver(Protocol):
    """How a problem is solved."""

    @property
    def slots(self) -> int:
        """Vectors of the size of `theta` that the solver holds beside it, for the plan."""
        ...

    def algebra(self, problem: LinearProblem) -> int:
        """Return the bytes of matrices that the solver makes of sums, beside them, for the plan."""
        ...

    def reductions(self, problem: LinearProblem) -> tuple[Reduction, ...]:
        """Return the largest of each kind of sums that passes add up, for the plan."""
        ...

    def start(self, problem: LinearProblem, stream: Stream, theta: Array) -> State:
        """Return the state to begin with, given parameters to begin from."""
        ...

    def step(self, problem: LinearProblem, stream: Stream, state: State) -> State:
        """Return the state after one more iteration, or epoch."""
        ...


def lowers(
    objective: float, slope: float, now: Evaluation, direction: Array, length: float
) -> bool:
    """Return whether a step lowered the objective enough (Armijo's rule).

    Where the change is no more than rounding, the objective can't tell, and the slope at the new
    point does: of a step that is not too long, it is no steeper upwards than it was downwards
    (the approximate Wolfe conditions of Hager and Zhang 2005).

    Parameters
    ----------
    objective, slope : before the step; the slope by `length`
    now : after it
    direction, length : of the step
    """
    if slope >= 0.0:
        return False
    if now.objective <= objective + _ENOUGH * length * slope:
        return True
    near = now.objective <= objective + _ROUNDING * abs(objective)
    return near and float((now.gradient * direction).sum()) <= (2 * _ENOUGH - 1) * slope
