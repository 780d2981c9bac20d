"""Newton's method with step control that costs no pass of its own.

A pass at the new point adds up loss, gradient and Hessian there, and on the same stream the loss
at shorter steps in the same direction. Where the full step lowers the objective enough (Armijo's
rule), the Hessian for the next step is there already: one pass an iteration. Where it does not, the
best of the shorter steps is where the next pass goes. The first Newton step starts from the optimum
of a sample under the whole penalty, which pulls what a small sample knows little of towards zero:
the optimum of a sample that trusts itself is where an unguarded step was seen to diverge. So is
that of a sample without the outliers of a column: at its optimum they are far on the wrong side,
where they have no curvature, and steps have to be shortened again and again. The scale of a column
tells of outliers that the sample lacks; the curvature that they can have restrains its weight.

When the gradient meets the tolerance, the step that the last Hessian gives is taken without another
pass: by then it can be trusted, and it squares the error.

Nocedal and Wright 2006, chapter 3.
"""

from dataclasses import dataclass, replace
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
"""Lengths of the steps that are tried beside the full one."""

_SMALL = 1e-2
"""Share of the objective that a step has to promise less of to be taken without another pass."""

_SAMPLE_ROWS_PER_PARAMETER = 100
_SAMPLE_SHARE = 1 / 16
_SAMPLE_ITERATIONS = 8

_OF_SAMPLE, _AT_ZERO = "optimum of a sample", "at zero"
"""Phases: iterations on a sample, before the first iteration; and the pass at zero, where the
optimum of the sample was worse than zero."""


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
        """Return what requests and states take."""
        del rows
        points = np.broadcast_to(0.0, (1 + len(_SHORTER), *problem.shape))
        return Holdings(
            (problem.reduction(points, hessian=True),),
            sets=8 + 3 * (1 + len(_SHORTER)),
            algebra=7 * 8 * problem.n_parameters**2,
        )

    def init(self, problem: LinearProblem, rows: Rows, params: Array) -> State:
        """Return the state to begin with.

        Where the data are many times what a sample takes, Newton begins at the optimum of a sample.
        Parameters that were handed over are begun from as they are.
        """
        if params.any() or len(_sample(problem, rows)) > _SAMPLE_SHARE * rows.n_partitions:
            return State(params)
        return State(params, phase=_OF_SAMPLE, memory={"left": _SAMPLE_ITERATIONS})

    def ask(self, problem: LinearProblem, rows: Rows, state: State) -> Reduce:
        """Return the request for the Hessian at the next point, and losses of shorter steps."""
        partitions = _sample(problem, rows) if state.phase == _OF_SAMPLE else None
        return Reduce(problem.reduction(_points(state), hessian=True), partitions)

    def tell(self, problem: LinearProblem, rows: Rows, state: State, answer: Sums) -> State:
        """Return the state after one more pass."""
        if state.phase == _OF_SAMPLE:
            return self._tell_of_sample(problem, rows, state, answer)
        after = self._iterated(problem, state, answer)
        if state.memory.get("sampled") and after.loss > problem.null_loss:
            note = "the optimum of the sample is worse than zero; begins at zero"
            return State(problem.initial(), phase=_AT_ZERO, note=note)
        return replace(after, note=state.note) if state.phase == _AT_ZERO else after

    def _tell_of_sample(
        self, problem: LinearProblem, rows: Rows, state: State, answer: Sums
    ) -> State:
        """Return the state after one more iteration on the sample."""
        coarse = Newton(tol=max(self.tol, 1e-3))
        taken = rows_of(rows, _sample(problem, rows))
        left, restraint = state.memory["left"] - 1, state.memory.get("restraint")
        restrained = problem if restraint is None else replace(problem, restraint=restraint)
        after = coarse._iterated(restrained, state, answer)
        if left == _SAMPLE_ITERATIONS - 1:
            restrained = problem.restrained(after.memory["seen"], taken)
            restraint = restrained.restraint
            if restraint is not None:
                after = State(state.params)  # the first step was of the problem unrestrained
        if left and not after.converged and not after.stalled:
            memory = {**after.memory, "left": left}
            if restraint is not None:
                memory["restraint"] = restraint
            return replace(after, phase=_OF_SAMPLE, memory=memory)
        note = f"begins at the optimum of a sample of {taken:,} rows"
        return State(after.params, memory={"sampled": 1}, note=note)

    def _iterated(self, problem: LinearProblem, state: State, answer: Sums) -> State:
        """Return the state after a pass at `_points(state)`."""
        points, search = _points(state), state.memory
        now = problem.read(answer, points)
        searched = "direction" in search
        if not searched:
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
        # Sums over partitions stand for sums over all rows, and are small by as much.
        norm *= problem.n_rows / float(answer["rows"])
        converged = norm <= self.tol
        params, loss, n_iter = now.params, now.loss, state.n_iter + searched
        updates = n_iter
        if converged and -slope <= _SMALL * abs(now.objective):
            # What is left to gain is known to third order, so is the loss after the last step.
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
                "seen": problem.seen(answer),
                "length": 1.0,
            },
        )


def _sample(problem: LinearProblem, rows: Rows) -> tuple[int, ...]:
    """Return the partitions whose optimum is begun from."""
    return sample_partitions(rows, _SAMPLE_ROWS_PER_PARAMETER * problem.n_parameters)


def _points(state: State) -> Array:
    """Return the full step and the shorter ones, (points, *shape); at first, the start alone."""
    search = state.memory
    if "direction" not in search:
        return state.params[None]
    lengths = search["length"] * np.append(1.0, _SHORTER)
    points: Array = search["base"] + np.multiply.outer(lengths, search["direction"])
    return points


def _shortened(state: State, objectives: Array) -> State:
    """Return the state whose full step is the best of the shorter ones that were tried.

    The solver stalls where steps are as short as rounding.
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
