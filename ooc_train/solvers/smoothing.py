"""Smoothing, for losses with kinks: Newton's method on smoother losses that come ever nearer.

A loss with its kinks smoothed lies above the loss, by little where their width is small
(`objective/ramps.py`). So its optimum is near that of the loss itself, but Newton's method has
a long way there. So the first width is the size of the loss itself. Each begins where the optimum
of the one before moves to, by the derivative of the optimum by the width. That is the way of
interior-point methods, which quantile regression takes too (Portnoy and Koenker 1997; Chen 2007).

Each pass adds up the loss itself and the duality gap as well. The slopes of the smoothed loss are a
point of the dual problem, once its gradient is zero; Newton's decrement stands for what is left of
the gradient. The gap falls with about the square of the width, and the next width is the one that
meets the tolerance, if it is not much narrower. A pass at the loss itself concludes: it chooses
between the last points, and measures the gap that is left.

Huber's loss has kinks in its slope. It has no curvature far from y, where Newton's method would
learn nothing, and becomes one with a wider quadratic part (`SmoothHuber`).

Large data begin with the widths that a sample of their rows can tell apart.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np

from ooc_train.core.partitions import Rows, rows_of
from ooc_train.core.requests import Reduce
from ooc_train.core.sums import Array, Reduction, Sums
from ooc_train.core.text import counted
from ooc_train.errors import Diverged
from ooc_train.models.linear import LinearProblem
from ooc_train.models.loss_sums import LossSums
from ooc_train.models.problem import Capability
from ooc_train.models.smoothed_sums import SmoothedSums
from ooc_train.objective.penalty import Penalty
from ooc_train.solvers.base import STALLED, Holdings, State
from ooc_train.solvers.lbfgs import LBFGS
from ooc_train.solvers.newton import SAMPLE_SHARE, Newton, is_small, newton_sample
from ooc_train.solvers.proximal_lbfgs import ProximalLBFGS
from ooc_train.solvers.proximal_newton import ProximalNewton

_OF_SAMPLE, _FIRST, _LAST = "optimum of a sample", "size of the loss", "the loss itself"
"""Phases: iterations on a sample; and passes at the loss itself, before and after all others."""

_SHRINK, _LEAST_SHRINK = 0.1, 0.5
"""A width as a share of the one before: at least, and at most."""

_CENTRED = 0.1
"""Newton's decrement, as a share of the duality gap, from which on the next width begins."""

_TOO_SHORT = 0.01
"""Share of Newton's step that tells that a width is too narrow to begin at the last optimum."""

_AIM = 0.5
"""The duality gap that a width is chosen for, as a share of the tolerance."""

_FINE = 0.25
"""Width that needs all rows, as a share of the mean loss. That of a sample's optimum is known to
about a tenth of the size of the residuals, twice the mean loss."""

_SAMPLE_ITERATIONS = 30
_VANISHING, _LEAST = 1e-3, 1e-12
"""Share of a weight that is left at a width of 0, for one that vanishes; and the narrowest width,
as a share of the loss at the start."""


@dataclass(frozen=True)
class Smoothing:
    """The solver of losses with kinks: Newton's method (or L-BFGS) on smoothed losses.

    Attributes
    ----------
    tol : float
        Duality gap to stop at, as a share of the objective.
    """

    tol: float = 1e-4

    name: ClassVar[str] = "smoothing"
    requires: ClassVar[frozenset[Capability]] = frozenset({"smoothing", "moments"})

    def holds(self, problem: LinearProblem, rows: Rows) -> Holdings:
        """Return the memory that requests and states need, for the plan."""
        smoothed = problem.smoothed(1.0)
        inner = _inner(problem).holds(smoothed, rows)
        points = np.broadcast_to(0.0, (3, *problem.shape))
        last = smoothed.reduction(points, gradients=len(points))
        sums = [SmoothedSums(_sums(each), problem.loss) for each in (*inner.reductions, last)]
        first = problem.reduction(points[:1], gradients=0)
        return Holdings((*sums, first), inner.sets + 3 * len(points), inner.algebra)

    def init(self, problem: LinearProblem, rows: Rows, params: Array) -> State:
        """Return the initial state, which begins with a sample as Newton's does."""
        given = not np.array_equal(params, problem.initial())
        if given or len(newton_sample(problem, rows)) > SAMPLE_SHARE * rows.n_partitions:
            return State(params, phase=_FIRST, memory={"first": _FINE if given else 1.0})
        memory = {"first": 1.0, "iterations_left": _SAMPLE_ITERATIONS}
        return State(params, phase=_OF_SAMPLE, memory=memory)

    def ask(self, problem: LinearProblem, rows: Rows, state: State) -> Reduce:
        """Return the request for the loss itself, or for sums of the smoothed loss too."""
        partitions = newton_sample(problem, rows) if state.phase == _OF_SAMPLE else None
        if "width" not in state.memory:
            return Reduce(problem.reduction(state.params[None], gradients=0), partitions)
        smoothed = problem.smoothed(state.memory["width"])
        if state.phase == _LAST:
            points = _last_points(problem, state)
            reduction = smoothed.reduction(points, gradients=len(points))
        else:
            reduction = _sums(_inner(problem).ask(smoothed, rows, _inner_state(state)).reduction)
        return Reduce(SmoothedSums(reduction, problem.loss), partitions)

    def tell(self, problem: LinearProblem, rows: Rows, state: State, answer: Sums) -> State:
        """Return the next state, given the answer of a pass."""
        if state.phase == _LAST:
            return self._concluded(problem, state, answer)
        if state.phase != _OF_SAMPLE:
            return self._told(problem, rows, state, answer)
        sample_rows = rows_of(rows, newton_sample(problem, rows))
        share = sample_rows / problem.n_rows
        penalty = Penalty(share * problem.penalty.l1, share * problem.penalty.l2)
        small = replace(problem, penalty=penalty, total_weight=share * problem.total_weight)
        after = self._told(small, rows, state, answer)
        left = after.memory.get("iterations_left", 0) - 1
        if after.phase == _OF_SAMPLE and left:
            return replace(after, memory={**after.memory, "iterations_left": left})
        if "width" not in after.memory:
            return after  # the sample is fitted perfectly, or weighs nothing
        memory = {name: after.memory[name] for name in ("width", "least", "point", "drift")}
        note = f"begins at the optimum of a sample of {counted(sample_rows, 'row')}"
        return State(after.memory["point"], memory=memory, note=note)

    def _told(self, problem: LinearProblem, rows: Rows, state: State, answer: Sums) -> State:
        """Return the next state, given a pass over all rows or over the sample of `problem`."""
        if "width" not in state.memory:
            return _begun(problem, state, answer)
        memory, before = state.memory, _inner_state(state)
        inner, smoothed = _inner(problem), problem.smoothed(memory["width"])
        points = _sums(inner.ask(smoothed, rows, before).reduction).theta
        after = inner.tell(smoothed, rows, before, answer)
        if after.stalled:
            return self._centred(problem, _at_centre(state, state.params, memory["drift"]))
        at = np.flatnonzero((points == after.params).all(axis=(1, 2)))
        if not len(at):  # the step is shortened
            if after.memory.get("length", 1.0) < _TOO_SHORT and "centre" in memory:
                width = math.sqrt(memory["width"] * memory["centre_width"])
                if width <= _LEAST_SHRINK * memory["centre_width"]:
                    return _at_width(state, width)
            return replace(state, memory={**memory, "inner": after.memory}, note=after.note)
        loss, gap = float(answer["exact"][at[0]]), float(answer["gap"][at[0]])
        exact = loss + problem.penalty_value(after.params)
        direction, decrement = _step(after)
        inner_memory = {"inner": after.memory, "point": after.params}
        found = State(
            params=after.params,
            phase=state.phase,
            n_iter=after.n_iter,
            updates=after.n_iter,
            loss=loss / float(answer["weight"]),
            memory={**memory, **inner_memory, "exact": exact, "gap": gap + 2.0 * decrement},
        )
        if decrement > _CENTRED * gap:
            return found
        centre = after.params + direction
        drift = _drift(smoothed, answer, points, centre)
        return self._centred(problem, _at_centre(found, centre, drift))

    def _centred(self, problem: LinearProblem, state: State) -> State:
        """Return the next state, once the optimum at a width is found."""
        exact, width = state.memory["exact"], state.memory["width"]
        done = state.memory["gap"] <= self.tol * exact or width <= state.memory["least"]
        if state.phase == _OF_SAMPLE:
            done = done or width <= _FINE * exact / problem.total_weight
        return replace(state, phase=_LAST) if done else self._narrowed(problem, state)

    def _narrowed(self, problem: LinearProblem, state: State) -> State:
        """Return the state at the next, narrower width."""
        memory = state.memory
        exact, gap = memory["exact"], memory["gap"]
        aim = math.sqrt(_AIM * self.tol * exact / gap) if gap > 0.0 else 0.0
        width = memory["width"] * min(max(aim, _SHRINK), _LEAST_SHRINK)
        # Far above the size of the loss, all widths have nearly the same optimum.
        width = max(min(width, exact / problem.total_weight), memory["least"])
        return _at_width(state, width)

    def _concluded(self, problem: LinearProblem, state: State, answer: Sums) -> State:
        """Return the state at that one of the last points where the objective itself is lowest."""
        memory, weight = state.memory, float(answer["weight"])
        points = _last_points(problem, state)
        objectives = answer["exact"] + problem.theta_penalty.values(points)
        best = int(np.where(np.isfinite(objectives), objectives, np.inf).argmin())
        exact = float(objectives[best])
        # The straight lines of the slopes at the first point bound the objective.
        smoothed = problem.smoothed(memory["width"])
        lower = float(objectives[0] - answer["gap"][0])
        step = points[best] - points[0]
        change = float((smoothed.read(answer, points).gradient * step).sum())
        lower += min(change + problem.theta_penalty.l1_change(points[0], step), 0.0)
        gap = max(exact - lower, 0.0)
        n_iter = state.n_iter + (best != 1)
        found = State(
            params=points[best],
            n_iter=n_iter,
            updates=n_iter,
            loss=float(answer["exact"][best]) / weight,
            converged=gap <= max(self.tol * exact, memory["least"] * weight),
            dual_gap=np.array([gap / weight]),
            memory={**memory, "exact": exact, "gap": gap},
        )
        if found.converged:
            return found
        if memory["width"] <= memory["least"]:
            return replace(found, stalled=STALLED)
        return self._narrowed(problem, found)


def _inner(problem: LinearProblem) -> Newton | LBFGS:
    """Return the solver of smoothed losses, with a tolerance of 0: it never ends by itself."""
    if is_small(problem.hessian_shape, kinks=True):
        return Newton(0.0) if problem.penalty.smooth else ProximalNewton(0.0)
    return LBFGS(0.0) if problem.penalty.smooth else ProximalLBFGS(0.0)


def _sums(reduction: Reduction) -> LossSums:
    """Return the reduction as `LossSums`, which solvers of linear models request."""
    return cast("LossSums", reduction)


def _inner_state(state: State) -> State:
    """Return the state of the solver of smoothed losses."""
    inner = state.memory.get("inner", {})
    n_iter = state.n_iter + (0 if inner else state.memory.get("moved", 0))
    return State(state.memory["point"], n_iter=n_iter, memory=inner)


def _step(after: State) -> tuple[Array, float]:
    """Return the inner solver's next step, and Newton's decrement: a lower bound of its gain."""
    memory = after.memory
    if memory.get("pairs") == ():
        return memory["direction"], math.inf  # L-BFGS knows nothing of the curvature yet
    return memory["direction"], -0.5 * memory["slope"]


def _at_centre(state: State, point: Array, drift: Array) -> State:
    """Return the state at the optimum of its width, and how the optimum moves with the width."""
    centre = {"centre": point, "centre_width": state.memory["width"], "point": point}
    return replace(state, memory={**state.memory, **centre, "drift": drift})


def _at_width(state: State, width: float) -> State:
    """Return the state whose next pass is the first at a new width, near the last optimum."""
    memory = state.memory
    point = memory["centre"] + (width - memory["centre_width"]) * memory["drift"]
    memory = {**memory, "width": width, "point": point, "inner": {}, "moved": 1}
    return replace(state, memory=memory)


def _last_points(problem: LinearProblem, state: State) -> Array:
    """Return the points that the last pass evaluates, (points, *shape).

    These are the last two, and the one that the way leads to at a width of 0. Weights with an l1
    penalty that vanish on the way are zero there.
    """
    point = state.memory["point"]
    limit = point - state.memory["width"] * state.memory["drift"]
    vanishes = (problem.theta_penalty.l1 > 0.0) & (limit * point <= _VANISHING * point**2)
    return np.stack([point, state.params, np.where(vanishes, 0.0, limit)])


def _drift(smoothed: LinearProblem, answer: Sums, points: Array, centre: Array) -> Array:
    """Return how the optimum, `centre`, moves with the width; zeros without a Hessian."""
    now = smoothed.read(answer, points)
    if now.hessian is None:
        return np.zeros(smoothed.shape)
    # Weights that an l1 penalty holds at zero stay there.
    held = (centre == 0.0) & (smoothed.theta_penalty.l1 > 0.0)
    held[:, -1] = not smoothed.fit_intercept
    drift = np.where(held, 0.0, smoothed.gradient({"gradient": answer["drift"]}))
    hessian = now.hessian.copy()
    for block, fixed in zip(hessian, held.reshape(hessian.shape[:2]), strict=True):
        block[fixed, :] = block[:, fixed] = 0.0
        block[fixed, fixed] = 1.0
    return smoothed.direction(replace(now, gradient=drift), hessian)


def _begun(problem: LinearProblem, state: State, answer: Sums) -> State:
    """Return the state with the first width: the mean of the objective at the start."""
    objective = float(problem.objectives(answer, state.params[None])[0])
    weight = float(answer["weight"])
    if not np.isfinite(objective):
        raise Diverged("the objective is no number at the parameters to start from")
    if objective > 0.0 and weight > 0.0:
        size = objective / weight
        memory = {**state.memory, "width": state.memory["first"] * size, "least": _LEAST * size}
        memory |= {"point": state.params, "drift": np.zeros_like(state.params)}
        phase = state.phase if state.phase == _OF_SAMPLE else ""
        return State(state.params, phase, memory=memory)
    if state.phase == _OF_SAMPLE:
        return replace(state, phase=_FIRST)
    return State(state.params, loss=0.0, converged=True, dual_gap=np.zeros(1))
