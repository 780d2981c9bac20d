"""Limited-memory BFGS: full-batch, for models whose Hessian is too large.

An iteration is a pass at the new point. If it does not lower the objective enough, the next pass
evaluates several shorter steps on one stream and takes the best. So does the first step, whose
length is not known.

Nocedal and Wright 2006, algorithm 7.5. Pairs of too little curvature are left out (section 6.1).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ooc_train.core.partitions import Rows
from ooc_train.core.requests import Reduce
from ooc_train.core.sums import Array, Sums
from ooc_train.errors import Diverged
from ooc_train.models.problem import Capability, Evaluation, Problem
from ooc_train.solvers.base import STALLED, Holdings, State, Tree, lowers

LENGTHS = np.array([1.0, 1 / 4, 1 / 16, 1 / 64])
"""Lengths of the steps that one pass evaluates if the right length is not known."""

Pair = tuple[Array, Array]
"""A step, and the change of the gradient over the step."""


@dataclass(frozen=True)
class LBFGS:
    """The solver L-BFGS, which approximates the inverse Hessian from recent steps.

    Attributes
    ----------
    tol : float
        Largest entry of the gradient of the mean objective, by scaled parameters, to stop at.
    history : int
        Number of pairs kept.
    """

    tol: float = 1e-4
    history: int = 10

    name: ClassVar[str] = "lbfgs"
    requires: ClassVar[frozenset[Capability]] = frozenset({"gradient", "smooth"})

    def holds(self, problem: Problem, rows: Rows) -> Holdings:
        """Return the memory that requests and states need, for the plan."""
        del rows
        points = np.broadcast_to(0.0, (len(LENGTHS), *problem.shape))
        # The pairs; the points, and two copies while they are evaluated; and eight directions.
        sets = 2 * self.history + 3 * len(LENGTHS) + 8
        return Holdings((problem.reduction(points, gradients=len(points)),), sets)

    def init(self, problem: Problem, rows: Rows, params: Array) -> State:
        """Return the initial state, at the parameters `params`."""
        del problem, rows
        return State(params)

    def ask(self, problem: Problem, rows: Rows, state: State) -> Reduce:
        """Return the request for loss and gradient at the next points."""
        del rows
        points = _points(state)
        return Reduce(problem.reduction(points, gradients=len(points)))

    def tell(self, problem: Problem, rows: Rows, state: State, answer: Sums) -> State:
        """Return the next state, given the answer of a pass."""
        del rows
        points, memory = _points(state), state.memory
        objectives = problem.objectives(answer, points)
        best = int(np.where(np.isfinite(objectives), objectives, np.inf).argmin())
        now = problem.read(answer, points, best)
        del points
        pairs: tuple[Pair, ...] = ()
        if memory:
            if not lowers(
                memory["objective"],
                memory["slope"],
                now,
                memory["direction"],
                float(memory["lengths"][best]),
                memory["l1_change"],
            ):
                return _shortened(state)
            pairs = _remember(state, now, self.history)
        elif not np.isfinite(now.objective):
            raise Diverged("the objective is no number at the parameters to start from")
        left = problem.least_subgradient(now.gradient / problem.total_weight, now.params)
        norm = float(np.abs(left).max())
        direction, l1_change = self._step(problem, now, pairs, memory)
        n_iter = state.n_iter + bool(memory)
        return State(
            params=now.params,
            n_iter=n_iter,
            updates=n_iter,
            loss=now.loss,
            gradient_norm=norm,
            converged=norm <= self.tol,
            memory={
                "objective": now.objective,
                "gradient": now.gradient,
                "direction": direction,
                "slope": float((now.gradient * direction).sum()) + l1_change,
                "l1_change": l1_change,
                "lengths": LENGTHS[:1] if pairs else LENGTHS,
                "pairs": pairs,
            },
        )

    def _step(
        self, problem: Problem, now: Evaluation, pairs: tuple[Pair, ...], memory: Tree
    ) -> tuple[Array, float]:
        """Return the full step, and the change of the l1 penalty over it: 0 where there is none."""
        del memory
        if pairs:
            return _direction(now.gradient, pairs), 0.0
        return -first_length(problem, now.gradient) * now.gradient, 0.0


def _points(state: State) -> Array:
    """Return the points that the next pass evaluates, (points, *shape)."""
    if not state.memory:
        return state.params[None]
    points: Array = state.params + np.multiply.outer(
        state.memory["lengths"], state.memory["direction"]
    )
    return points


def first_length(problem: Problem, gradient: Array) -> float:
    """Return the length of the first step, in units of the gradient of the sum of losses.

    The bound of the curvature gives a safe length. Without a bound, the step has norm 1.
    """
    if problem.bound is not None:
        return 1.0 / (problem.bound * problem.total_weight)
    return 1.0 / max(float(np.sqrt((gradient**2).sum())), np.finfo(np.float64).tiny)


def _shortened(state: State) -> State:
    """Return the state whose next pass evaluates shorter steps from the same point."""
    lengths = LENGTHS * state.memory["lengths"][-1] / 4
    if lengths[0] < 1e-12:
        return replace(state, stalled=STALLED, note="")
    return replace(
        state,
        memory={**state.memory, "lengths": lengths},
        note="the step did not lower the objective enough; shorter ones, "
        f"{lengths[0]:.3g} of it and less, are tried",
    )


def _remember(state: State, now: Evaluation, history: int) -> tuple[Pair, ...]:
    """Return the latest pairs, with the newest last if it has enough curvature."""
    pairs: tuple[Pair, ...] = state.memory.get("pairs", ())  # arrays do not tell an empty tuple
    step = now.params - state.params
    change = now.gradient - state.memory["gradient"]
    if (step * change).sum() <= np.finfo(np.float64).eps * (change**2).sum():
        return pairs
    return (*pairs, (step, change))[-history:]


def _direction(gradient: Array, pairs: tuple[Pair, ...]) -> Array:
    """Return minus the inverse Hessian that the pairs imply, times the gradient."""
    step, change = pairs[-1]
    scale = (step * change).sum() / (change**2).sum()
    return two_loops(gradient, pairs, lambda direction: direction * scale)


def two_loops(gradient: Array, pairs: tuple[Pair, ...], initial: Callable[[Array], Array]) -> Array:
    """Return minus an inverse Hessian, which the pairs correct, times the gradient.

    `initial` multiplies by the inverse Hessian before the corrections.
    """
    direction: Array = -gradient
    shares = []
    for step, change in reversed(pairs):
        share = (step * direction).sum() / (step * change).sum()
        direction = direction - share * change
        shares.append(share)
    direction = initial(direction)
    for (step, change), share in zip(pairs, reversed(shares), strict=True):
        back = (change * direction).sum() / (step * change).sum()
        direction = direction + (share - back) * step
    return direction
