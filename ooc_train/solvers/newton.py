"""Newton's method, with a step control that costs no pass of its own.

A pass adds up loss, gradient and Hessian at the full step, and on the same stream the losses of
shorter steps. If the full step lowers the objective enough (Armijo's rule), the Hessian for the
next step is there already: one pass an iteration. Otherwise the next pass goes to the best of the
shorter steps.

The first step starts from the optimum of a sample. The sample keeps the whole penalty: with a
penalty in proportion to its rows, unguarded steps were seen to diverge. A sample may lack the
outliers of a column. Its optimum is then far on the wrong side for them, where the loss has no
curvature, and many steps are shortened. The scale of the column shows that outliers are missing, so
`LinearProblem.with_missing_curvature` penalises the weight by the curvature that they may have.

When the gradient meets the tolerance, the step by the last Hessian is taken without another pass:
near the optimum, such a step squares the error.

Nocedal and Wright 2006, chapter 3.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

import numpy as np

from ooc_train.core.partitions import Rows, rows_of, sample_partitions
from ooc_train.core.requests import Reduce
from ooc_train.core.sums import Array, Sums
from ooc_train.errors import Diverged
from ooc_train.models.linear import LinearProblem
from ooc_train.models.problem import Capability
from ooc_train.solvers.base import STALLED, Holdings, State, lowers

_SHORTER = np.array([0.5, 0.25, 1 / 16, 1 / 128])
"""Lengths of the shorter steps, as shares of the full one."""

_MAX_LAST_DECREASE = 1e-2
"""Limit of the predicted decrease of a step without a pass, as a share of the objective."""

_SAMPLE_ROWS_PER_PARAMETER = 100
_SAMPLE_SHARE = 1 / 16
_SAMPLE_ITERATIONS = 8

_OF_SAMPLE, _AT_START = "optimum of a sample", "at the start"
"""Phases: iterations on a sample, before the first iteration; and the pass at the problem's initial
parameters, which follows if the optimum of the sample turns out worse than they are."""


@dataclass(frozen=True)
class Newton:
    """Newton's method.

    Attributes
    ----------
    tol : float
        Largest entry of the gradient of the mean objective, by scaled parameters, to stop at.
    """

    tol: float = 1e-4

    name: ClassVar[str] = "newton"
    requires: ClassVar[frozenset[Capability]] = frozenset({"hessian", "smooth", "moments"})

    def holds(self, problem: LinearProblem, rows: Rows) -> Holdings:
        """Return the memory that requests and states need."""
        del rows
        points = np.broadcast_to(0.0, (1 + len(_SHORTER), *problem.shape))
        return Holdings(
            (problem.reduction(points, hessian=True),),
            sets=8 + 3 * (1 + len(_SHORTER)),
            algebra=7 * 8 * problem.n_parameters**2,
        )

    def init(self, problem: LinearProblem, rows: Rows, params: Array) -> State:
        """Return the first state.

        Newton begins at the optimum of a sample if the data have many times its rows, and if
        `params` are the problem's own.
        """
        given = not np.array_equal(params, problem.initial())
        if given or len(_sample(problem, rows)) > _SAMPLE_SHARE * rows.n_partitions:
            return State(params)
        return State(params, phase=_OF_SAMPLE, memory={"iterations_left": _SAMPLE_ITERATIONS})

    def ask(self, problem: LinearProblem, rows: Rows, state: State) -> Reduce:
        """Return the request for the Hessian at the full step and the losses of shorter steps."""
        partitions = _sample(problem, rows) if state.phase == _OF_SAMPLE else None
        return Reduce(problem.reduction(_points(state), hessian=True), partitions)

    def tell(self, problem: LinearProblem, rows: Rows, state: State, answer: Sums) -> State:
        """Return the state after a pass."""
        if state.phase == _OF_SAMPLE:
            return self._tell_of_sample(problem, rows, state, answer)
        after = self._iterated(problem, state, answer)
        if after.loss > state.memory.get("start_loss", inf):
            note = f"the optimum of the sample is worse than {_start(problem)}; begins there"
            return State(problem.initial(), phase=_AT_START, note=note)
        return replace(after, note=state.note) if state.phase == _AT_START else after

    def _tell_of_sample(
        self, problem: LinearProblem, rows: Rows, state: State, answer: Sums
    ) -> State:
        """Return the state after an iteration on the sample."""
        coarse = Newton(tol=max(self.tol, 1e-3))
        sample_rows = rows_of(rows, _sample(problem, rows))
        left, extra_l2 = state.memory["iterations_left"] - 1, state.memory.get("extra_l2")
        start_loss = state.memory.get("start_loss")
        after = coarse._iterated(replace(problem, extra_l2=extra_l2), state, answer)
        if left == _SAMPLE_ITERATIONS - 1:
            # Without a bound of y, one row of the others can be worse than the whole sample.
            start_loss = inf if problem.loss.target == "real" else after.loss
            curvature = after.memory["relative_curvature"]
            extra_l2 = problem.with_missing_curvature(curvature, sample_rows).extra_l2
            if extra_l2 is not None:
                after = State(state.params)  # the first step lacked the extra penalty
        if left and not after.converged and not after.stalled:
            memory = {**after.memory, "iterations_left": left, "start_loss": start_loss}
            if extra_l2 is not None:
                memory["extra_l2"] = extra_l2
            return replace(after, phase=_OF_SAMPLE, memory=memory)
        note = f"begins at the optimum of a sample of {sample_rows:,} rows"
        return State(after.params, memory={"start_loss": start_loss}, note=note)

    def _iterated(self, problem: LinearProblem, state: State, answer: Sums) -> State:
        """Return the state after a pass at `_points(state)`."""
        points, search = _points(state), state.memory
        now = problem.read(answer, points)
        is_step = "direction" in search
        if not is_step:
            if not np.isfinite(now.objective):
                raise Diverged("the objective is no number at the parameters to start from")
        elif not lowers(
            search["objective"], search["slope"], now, search["direction"], search["length"]
        ):
            return _shortened(state, problem.objectives(answer, points))
        if now.hessian is None:
            raise ValueError("the pass added up no Hessian")
        direction = problem.direction(now.gradient, now.hessian)
        slope = float((now.gradient * direction).sum())
        norm = float(np.abs(now.gradient).max()) / problem.total_weight
        # Sums over a sample are scaled up to all rows.
        norm *= problem.n_rows / float(answer["rows"])
        converged = norm <= self.tol
        params, loss, n_iter = now.params, now.loss, state.n_iter + is_step
        updates = n_iter
        if converged and -slope <= _MAX_LAST_DECREASE * abs(now.objective):
            # The quadratic model gives the loss after the last step, to third order.
            params, updates = now.params + direction, n_iter + 1
            penalty = problem.penalty_value(params)
            loss = (now.objective + 0.5 * slope - penalty) / float(answer["weight"])
        return State(
            params=params,
            n_iter=n_iter,
            updates=updates,
            loss=loss,
            gradient_norm=norm,
            converged=converged,
            memory={
                "base": now.params,
                "direction": direction,
                "objective": now.objective,
                "slope": slope,
                "relative_curvature": problem.relative_curvature(answer),
                "length": 1.0,
            },
        )


def _start(problem: LinearProblem) -> str:
    """Return the problem's initial parameters in words."""
    return "the mean of y" if problem.initial().any() else "zero"


def _sample(problem: LinearProblem, rows: Rows) -> tuple[int, ...]:
    """Return the partitions of the sample that Newton begins with."""
    return sample_partitions(rows, _SAMPLE_ROWS_PER_PARAMETER * problem.n_parameters)


def _points(state: State) -> Array:
    """Return the points that the next pass evaluates, (points, *shape): at first, the start."""
    search = state.memory
    if "direction" not in search:
        return state.params[None]
    lengths = search["length"] * np.append(1.0, _SHORTER)
    points: Array = search["base"] + np.multiply.outer(lengths, search["direction"])
    return points


def _shortened(state: State, objectives: Array) -> State:
    """Return the state whose full step is the best of the shorter ones.

    The solver stalls when steps are as short as rounding.
    """
    search = state.memory
    tried = np.where(np.isfinite(objectives[1:]), objectives[1:], np.inf)
    best = int(tried.argmin())
    if tried[best] < search["objective"]:
        length = search["length"] * float(_SHORTER[best])
    elif search["length"] < 1e-12:
        return replace(state, stalled=STALLED, note="")
    else:
        length = search["length"] * float(_SHORTER[-1]) ** 2
    return replace(
        state,
        memory={**search, "length": length},
        note="the step did not lower the objective enough; it is shortened to "
        f"{length:.3g} of Newton's",
    )
