"""Limited-memory BFGS: full-batch, for models of more parameters than a Hessian has room for.

An iteration is a pass at the new point. Where it does not lower the objective enough, the next pass
tries several shorter steps on one stream and takes the best; so does the first pass of all, which
knows no length yet.

Nocedal and Wright 2006, algorithm 7.5. Pairs of too little curvature are left out (section 6.1).
"""

from dataclasses import dataclass, replace

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.errors import Diverged
from ooc_train.models.linear import Evaluation, LinearProblem
from ooc_train.models.loss_sums import LossSums
from ooc_train.solvers.base import STALLED, State, Stream, lowers

_LENGTHS = np.array([1.0, 1 / 4, 1 / 16, 1 / 64])
"""Lengths of the steps that one pass tries where the length is not known."""

Pair = tuple[Array, Array]
"""A step, and how the gradient changed over it."""


@dataclass(frozen=True, eq=False)
class _Memory:
    """The last point accepted, the direction from there, and the pairs that gave it."""

    now: Evaluation
    direction: Array
    lengths: Array
    pairs: tuple[Pair, ...] = ()

    @property
    def slope(self) -> float:
        return float((self.now.gradient * self.direction).sum())


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS.

    Attributes
    ----------
    tol : largest entry of the gradient of the mean objective, by scaled parameters, to stop at
    history : pairs to remember
    """

    tol: float = 1e-4
    history: int = 10

    @property
    def slots(self) -> int:
        """Vectors of the size of `theta` that the solver holds beside it."""
        # Pairs; points, and as much again twice while they are judged; and the directions.
        return 2 * self.history + 3 * len(_LENGTHS) + 8

    def algebra(self, problem: LinearProblem) -> int:
        """Return the bytes of matrices that the solver makes of sums, beside them."""
        del problem
        return 0

    def reductions(self, problem: LinearProblem) -> tuple[LossSums]:
        """Return the largest of what passes add up."""
        points = np.zeros((len(_LENGTHS), *problem.zeros().shape))
        return (problem.sums(points, gradients=len(points)),)

    def start(self, problem: LinearProblem, stream: Stream, theta: Array) -> State:
        """Return the state to begin with."""
        del problem, stream
        return State(theta)

    def step(self, problem: LinearProblem, stream: Stream, state: State) -> State:
        """Return the state after one more pass.

        Raises
        ------
        Diverged
            where the objective is no number at the start.
        """
        memory: _Memory | None = state.memory
        if memory is None:
            points = state.theta[None]
        else:
            points = memory.now.theta + memory.lengths[:, None, None] * memory.direction
        sums = stream.reduce(problem.sums(points, gradients=len(points)))
        objectives = problem.objectives(sums, points)
        best = int(np.where(np.isfinite(objectives), objectives, np.inf).argmin())
        now = problem.evaluation(sums, points, best)
        pairs: tuple[Pair, ...] = ()
        if memory is not None:
            length = float(memory.lengths[best])
            if not lowers(memory.now.objective, memory.slope, now, memory.direction, length):
                return self._shorten(state, memory)
            pairs = _remember(memory, now, self.history)
        elif not np.isfinite(now.objective):
            raise Diverged("the objective is no number at the parameters to start from")
        norm = float(np.abs(now.gradient).max()) / problem.total_weight
        if pairs:
            direction, lengths = _direction(now.gradient, pairs), _LENGTHS[:1]
        else:
            steepest = 1.0 / (problem.loss.require_bound() * problem.total_weight)
            direction, lengths = -steepest * now.gradient, _LENGTHS
        n_iter = state.n_iter + (memory is not None)
        return State(
            theta=now.theta,
            n_iter=n_iter,
            updates=n_iter,
            loss=now.loss,
            gradient_norm=norm,
            converged=norm <= self.tol,
            memory=_Memory(now, direction, lengths, pairs),
        )

    @staticmethod
    def _shorten(state: State, memory: _Memory) -> State:
        """Return the state whose next pass tries shorter steps from the last point accepted."""
        lengths = _LENGTHS * memory.lengths[-1] / 4
        if lengths[0] < 1e-12:
            return replace(state, stalled=STALLED, note="")
        return replace(
            state,
            memory=replace(memory, lengths=lengths),
            note="the step did not lower the objective enough; shorter ones, "
            f"{lengths[0]:.3g} of it and less, are tried",
        )


def _remember(memory: _Memory, now: Evaluation, history: int) -> tuple[Pair, ...]:
    """Return the pairs with the newest put last, where it shows curvature."""
    step = now.theta - memory.now.theta
    change = now.gradient - memory.now.gradient
    if (step * change).sum() <= np.finfo(np.float64).eps * (change**2).sum():
        return memory.pairs
    return (*memory.pairs, (step, change))[-history:]


def _direction(gradient: Array, pairs: tuple[Pair, ...]) -> Array:
    """Return minus the inverse Hessian that the pairs imply, times the gradient: two loops."""
    direction: Array = -gradient
    shares = []
    for step, change in reversed(pairs):
        share = (step * direction).sum() / (step * change).sum()
        direction = direction - share * change
        shares.append(share)
    step, change = pairs[-1]
    direction = direction * ((step * change).sum() / (change**2).sum())
    for (step, change), share in zip(pairs, reversed(shares), strict=True):
        back = (change * direction).sum() / (step * change).sum()
        direction = direction + (share - back) * step
    return direction
