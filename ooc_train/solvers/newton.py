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

import math
from dataclasses import dataclass, replace

import numpy as np

from ooc_train.core.sums import Array, Sums
from ooc_train.errors import Diverged
from ooc_train.models.linear import LinearProblem
from ooc_train.models.loss_sums import LossSums
from ooc_train.solvers.base import STALLED, State, Stream, lowers
from ooc_train.stream.sources import rows_of, sample_partitions

_SHORTER = np.array([0.5, 0.25, 1 / 16, 1 / 128])
"""Lengths of the steps that are tried beside the full one."""

_SMALL = 1e-2
"""Share of the objective that a step has to promise less of to be taken without another pass."""

_SAMPLE_ROWS_PER_PARAMETER = 100
_SAMPLE_SHARE = 1 / 16
_SAMPLE_ITERATIONS = 8

_SEEN = 0.5
"""Share of a column's variance that a sample has to hold to be trusted with its weight."""


@dataclass(frozen=True, eq=False)
class _Search:
    """From where, in which direction, and how far promised: what a step is judged by.

    `seen` is the curvature of each column's weight in the loss at `base`, as a share of the
    intercept's, (features,): at zero, the second moment of the scaled column.
    """

    base: Array
    direction: Array
    objective: float
    slope: float
    seen: Array
    length: float = 1.0

    def points(self) -> Array:
        """Return the full step and the shorter ones, (1 + shorter, outputs, features + 1)."""
        lengths = self.length * np.append(1.0, _SHORTER)
        points: Array = self.base + lengths[:, None, None] * self.direction
        return points


@dataclass(frozen=True)
class _Sampled:
    """What is remembered of a start: it is the optimum of a sample, and not yet judged."""


@dataclass(frozen=True)
class Newton:
    """Newton's method.

    Attributes
    ----------
    tol : largest entry of the gradient of the mean objective, by scaled parameters, to stop at
    """

    tol: float = 1e-4

    @property
    def slots(self) -> int:
        """Vectors of the size of `theta` that the solver holds beside it."""
        return 8 + 3 * (1 + len(_SHORTER))

    def algebra(self, problem: LinearProblem) -> int:
        """Return the bytes of matrices that the solver makes of sums, beside them."""
        return 7 * 8 * problem.n_parameters**2

    def reductions(self, problem: LinearProblem) -> tuple[LossSums]:
        """Return the largest of what passes add up."""
        points = np.zeros((1 + len(_SHORTER), *problem.zeros().shape))
        return (problem.sums(points, hessian=True),)

    def start(self, problem: LinearProblem, stream: Stream, theta: Array) -> State:
        """Return the optimum of a sample, where the data are many times what a sample takes.

        Parameters that were handed over are begun from as they are.
        """
        if theta.any():
            return State(theta)
        source = stream.source
        rows = _SAMPLE_ROWS_PER_PARAMETER * problem.n_parameters
        partitions = sample_partitions(source, rows)
        state = State(theta)
        if len(partitions) > _SAMPLE_SHARE * source.n_partitions:
            return state
        coarse = Newton(tol=max(self.tol, 1e-3))
        first = coarse._iterate(problem, stream, state, partitions)
        restrained = _restrained(problem, first.memory.seen, rows_of(source, partitions))
        state = first if restrained is problem else state
        for _ in range(_SAMPLE_ITERATIONS - 1):
            if state.converged or state.stalled:
                break
            state = coarse._iterate(restrained, stream, state, partitions)
        taken = rows_of(source, partitions)
        note = f"begins at the optimum of a sample of {taken:,} rows"
        return State(state.theta, memory=_Sampled(), note=note)

    def step(self, problem: LinearProblem, stream: Stream, state: State) -> State:
        """Return the state after one more pass; two where a sample's optimum is no good start.

        Raises
        ------
        Diverged
            where the objective is no number at the start.
        """
        if not isinstance(state.memory, _Sampled):
            return self._iterate(problem, stream, state, None)
        now = self._iterate(problem, stream, replace(state, memory=None), None)
        if now.loss <= math.log(max(2, problem.n_outputs)):  # that of even chances
            return now
        now = self._iterate(problem, stream, State(problem.zeros()), None)
        return replace(now, note="the optimum of the sample is worse than zero; begins at zero")

    def _iterate(
        self,
        problem: LinearProblem,
        stream: Stream,
        state: State,
        partitions: tuple[int, ...] | None,
    ) -> State:
        search: _Search | None = state.memory
        points = state.theta[None] if search is None else search.points()
        sums = stream.reduce(problem.sums(points, hessian=True), partitions)
        now = problem.evaluation(sums, points)
        if search is None:
            if not np.isfinite(now.objective):
                raise Diverged("the objective is no number at the parameters to start from")
        elif not lowers(search.objective, search.slope, now, search.direction, search.length):
            shorter = _shorten(search, problem.objectives(sums, points))
            if shorter is None:
                return replace(state, stalled=STALLED, note="")
            note = (
                "the step did not lower the objective enough; it is shortened to "
                f"{shorter.length:.3g} of Newton's"
            )
            return replace(state, memory=shorter, note=note)
        if now.hessian is None:
            raise ValueError("the pass added up no Hessian")
        direction = newton_direction(problem, now.gradient, now.hessian)
        slope = float((now.gradient * direction).sum())
        norm = float(np.abs(now.gradient).max()) / problem.total_weight
        # Sums over partitions stand for sums over all rows, and are small by as much.
        norm *= problem.n_rows / float(sums["rows"])
        converged = norm <= self.tol
        theta, loss, n_iter = now.theta, now.loss, state.n_iter + (search is not None)
        updates = n_iter
        if converged and -slope <= _SMALL * abs(now.objective):
            # What is left to gain is known to third order, so is the loss after the last step.
            theta, updates = now.theta + direction, n_iter + 1
            penalty = problem.theta_penalty.value(theta)
            loss = (now.objective + 0.5 * slope - penalty) / float(sums["weight"])
        return State(
            theta=theta,
            n_iter=n_iter,
            updates=updates,
            loss=loss,
            gradient_norm=norm,
            converged=converged,
            memory=_Search(now.theta, direction, now.objective, slope, _seen(problem, sums)),
        )


def _seen(problem: LinearProblem, sums: Sums) -> Array:
    """Return the curvature of each column's weight in the loss, as a share of the intercept's."""
    curvature = np.diagonal(sums["hessian"]).reshape(problem.n_outputs, -1).sum(axis=0)
    share: Array = curvature[:-1] / max(float(curvature[-1]), np.finfo(np.float64).tiny)
    return share


def _restrained(problem: LinearProblem, seen: Array, rows: int) -> LinearProblem:
    """Return the problem of a sample, restrained where it lacks most of a column's variance.

    What is lacking may have as much curvature as the loss can, so that is the penalty.
    """
    weight = problem.total_weight * rows / problem.n_rows
    widening = problem.penalty.l2 / (problem.loss.require_bound() * problem.total_weight)
    due = 1.0 if problem.standardize else 1.0 - widening / problem.scaling.scale**2
    lacking = np.where(seen < _SEEN * due, due - seen, 0.0)
    if not lacking.any():
        return problem
    return replace(problem, restraint=problem.loss.require_bound() * weight * lacking)


def _shorten(search: _Search, objectives: Array) -> _Search | None:
    """Return the search whose full step is the best of the shorter ones that were tried.

    None where steps are as short as rounding.
    """
    tried = np.where(np.isfinite(objectives[1:]), objectives[1:], np.inf)
    best = int(tried.argmin())
    if tried[best] < search.objective:
        return replace(search, length=search.length * float(_SHORTER[best]))
    if search.length < 1e-12:
        return None
    return replace(search, length=search.length * float(_SHORTER[-1]) ** 2)


def newton_direction(problem: LinearProblem, gradient: Array, hessian: Array) -> Array:
    """Return the step to the minimum of the quadratic model, (outputs, features + 1).

    Adding one vector to all classes of a softmax changes nothing that it predicts, so along that
    direction the Hessian is zero; so is the gradient, and any curvature put there leaves the step
    as it is. Other singular directions are left out, which gives the step of least norm.
    """
    hessian = hessian.copy()
    if problem.loss.shift_invariant:
        classes, columns = gradient.shape
        free = problem.theta_penalty.l2 == 0.0
        typical = np.trace(hessian) / len(hessian)
        blocks = hessian.reshape(classes, columns, classes, columns)
        for column in np.flatnonzero(free):
            blocks[:, column, :, column] += typical / classes
    flat = gradient.ravel()
    if problem.penalty.l2 > 0:
        try:
            # Succeeds only where the matrix is positive definite to working precision.
            np.linalg.cholesky(hessian)
            downhill = np.asarray(-np.linalg.solve(hessian, flat), np.float64)
            return downhill.reshape(gradient.shape)
        except np.linalg.LinAlgError:
            pass
    values, vectors = np.linalg.eigh(hessian)
    kept = values > values[-1] * len(values) * 10 * np.finfo(np.float64).eps
    step: Array = -(vectors[:, kept] @ ((vectors[:, kept].T @ flat) / values[kept]))
    return step.reshape(gradient.shape)
