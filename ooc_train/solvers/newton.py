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
Without a penalty, rows of one class in a rare category do the same; `with_slight_penalty` keeps its
weight near.

The Hessian costs several times the gradient. So a second, larger sample brings the start nearer to
the optimum, and its Hessian serves the passes over all rows, which then add up gradients alone
(Roosta-Khorasani and Mahoney 2019, Sub-sampled Newton methods). Such a step multiplies the
distance to the optimum by the relative error of the sample's Hessian, some hundredths, and the
change of the gradient over the step corrects the Hessian (BFGS). Where a step does much worse, the
next pass adds up the Hessian of all rows.

When the gradient meets the tolerance, the step by the last Hessian is taken without another pass:
near the optimum, such a step squares the error.

Nocedal and Wright 2006, chapters 3 and 6.
"""

import math
from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

import numpy as np

from ooc_train.core.partitions import Rows, rows_of, sample_partitions
from ooc_train.core.requests import Reduce
from ooc_train.core.sums import Array, Sums
from ooc_train.core.text import counted
from ooc_train.errors import Diverged
from ooc_train.models.linear import LinearProblem
from ooc_train.models.problem import Capability, Evaluation
from ooc_train.solvers.base import STALLED, Holdings, State, Tree, lowers

MOST_PARAMETERS = 512
"""Limit of parameters of a block of the Hessian for "auto" to choose Newton's method. Beyond,
computing the Hessian, in proportion to the square of their number, costs more than the additional
passes of L-BFGS."""

_MOST_WITH_KINKS = 2**22
"""Limit of numbers of the Hessian, 32 MiB, for objectives with kinks: losses like the hinge, and l1
penalties. L-BFGS takes hundreds to thousands of passes there, if columns are correlated."""

_SHORTER = np.array([0.5, 0.25, 1 / 16, 1 / 128])
"""Lengths of the shorter steps, as shares of the full one."""

_MAX_LAST_DECREASE, _MAX_LAST_BY_SAMPLE = 1e-2, 1e-6
"""Limits of the predicted decrease of a step without a pass, as a share of the objective: by the
Hessian of all rows, and by that of a sample, whose prediction has its error."""

_SAMPLE_ROWS_PER_PARAMETER = 100
SAMPLE_SHARE = 1 / 16
"""Limit of the rows of a sample, as a share of all, for a solver to begin with it."""

_SAMPLE_ITERATIONS = 8
_SAMPLE_TOL = 1e-3

_LARGER, _LARGER_ITERATIONS = 10, 3
"""Rows of the second sample by those of the first, if they are at most `_SAMPLE_SHARE` of all; and
limit of the passes over it."""

_MAX_LEFT = 0.1
"""Share of the predicted decrease that may be left after a step by a sample's Hessian; if more is,
the next pass adds up the Hessian of all rows."""

_MIN_CURVATURE = 1e-3
"""Least curvature along a step, as a share of the expected one, that corrects the Hessian."""

_OF_SAMPLE, _OF_LARGER_SAMPLE = "optimum of a sample", "optimum of a larger sample"
_AT_START = "at the start"
"""Phases: iterations on samples, before the first iteration; and the pass at the problem's initial
parameters, which follows if the optimum of the sample turns out worse than they are."""


@dataclass(frozen=True)
class Newton:
    """Newton's method as a solver.

    Attributes
    ----------
    tol : float
        Largest entry of the gradient of the mean objective, by scaled parameters, to stop at.
    """

    tol: float = 1e-4

    name: ClassVar[str] = "newton"
    requires: ClassVar[frozenset[Capability]] = frozenset({"hessian", "smooth", "moments"})

    def holds(self, problem: LinearProblem, rows: Rows) -> Holdings:
        """Return the memory that requests and states need, for the plan."""
        del rows
        points = np.broadcast_to(0.0, (1 + len(_SHORTER), *problem.shape))
        return Holdings(
            (problem.reduction(points, hessian=True),),
            sets=8 + 3 * (1 + len(_SHORTER)),
            algebra=8 * 8 * math.prod(problem.hessian_shape),
        )

    def init(self, problem: LinearProblem, rows: Rows, params: Array) -> State:
        """Return the initial state.

        Newton begins at the optimum of a sample if the data have many times its rows, and if
        `params` are the problem's own.
        """
        given = not np.array_equal(params, problem.initial())
        if given or len(newton_sample(problem, rows)) > SAMPLE_SHARE * rows.n_partitions:
            return State(params)
        return State(params, phase=_OF_SAMPLE, memory={"iterations_left": _SAMPLE_ITERATIONS})

    def ask(self, problem: LinearProblem, rows: Rows, state: State) -> Reduce:
        """Return the request for the Hessian at the full step and the losses of shorter steps."""
        partitions = None
        if state.phase == _OF_SAMPLE:
            partitions = newton_sample(problem, rows)
        elif state.phase == _OF_LARGER_SAMPLE:
            partitions = _larger_sample(problem, rows)
        hessian = partitions is not None or "hessian" not in state.memory
        return Reduce(problem.reduction(_points(state), hessian=hessian), partitions)

    def tell(self, problem: LinearProblem, rows: Rows, state: State, answer: Sums) -> State:
        """Return the next state, given the answer of a pass."""
        if state.phase == _OF_SAMPLE:
            return self._tell_of_sample(problem, rows, state, answer)
        if state.phase == _OF_LARGER_SAMPLE:
            return self._tell_of_larger_sample(problem, rows, state, answer)
        after = self._iterated(problem, state, answer, self.tol)
        if after.loss > state.memory.get("start_loss", inf):
            note = f"the optimum of the sample is worse than {_start(problem)}; begins there"
            return State(problem.initial(), phase=_AT_START, note=note)
        return replace(after, note=state.note) if state.phase == _AT_START else after

    def _tell_of_sample(
        self, problem: LinearProblem, rows: Rows, state: State, answer: Sums
    ) -> State:
        """Return the state after an iteration on the sample."""
        coarse = max(self.tol, _SAMPLE_TOL)
        sample_rows = rows_of(rows, newton_sample(problem, rows))
        left, extra_l2 = state.memory["iterations_left"] - 1, state.memory.get("extra_l2")
        start_loss = state.memory.get("start_loss", inf)
        after = self._iterated(replace(problem, extra_l2=extra_l2), state, answer, coarse)
        if left == _SAMPLE_ITERATIONS - 1:
            # Without a bound of y, one row of the others can be worse than the whole sample.
            start_loss = inf if problem.loss.target == "real" else after.loss
            curvature = problem.relative_curvature(answer)
            missing = problem.with_missing_curvature(curvature, sample_rows)
            if missing.extra_l2 is not None:
                after = State(state.params)  # the first step lacked the extra penalty
            extra_l2 = missing.with_slight_penalty(sample_rows).extra_l2
        if left and not after.converged and not after.stalled:
            memory = {**after.memory, "iterations_left": left, "start_loss": start_loss}
            if extra_l2 is not None:
                memory["extra_l2"] = extra_l2
            return replace(after, phase=_OF_SAMPLE, memory=memory)
        if not problem.compiled_hessian:  # the Hessian of all rows is a matter of moments
            return _after_sample(after.params, start_loss, sample_rows)
        memory = {"begin": after.params, "start_loss": start_loss}
        return State(problem.initial(), phase=_OF_LARGER_SAMPLE, memory=memory)

    def _tell_of_larger_sample(
        self, problem: LinearProblem, rows: Rows, state: State, answer: Sums
    ) -> State:
        """Return the state after a pass over the larger sample.

        The first one is at the initial parameters, where the curvature shows whether columns lack
        outliers.
        """
        memory, start_loss = state.memory, state.memory["start_loss"]
        sample_rows, weight = rows_of(rows, _larger_sample(problem, rows)), float(answer["weight"])
        if "begin" in memory:
            curvature = problem.relative_curvature(answer)
            missing = problem.with_missing_curvature(curvature, sample_rows).extra_l2
            if weight == 0.0 or missing is not None:
                # Without the outliers' share, steps by this Hessian were seen to be far too long.
                return _after_sample(
                    memory["begin"], start_loss, rows_of(rows, newton_sample(problem, rows))
                )
            memory = {"iterations_left": _LARGER_ITERATIONS, "start_loss": start_loss}
            return State(state.memory["begin"], phase=_OF_LARGER_SAMPLE, memory=memory)
        scaled = {name: sums * (problem.total_weight / weight) for name, sums in answer.items()}
        coarse, left = max(self.tol, _SAMPLE_TOL), memory["iterations_left"] - 1
        after = self._iterated(problem, state, scaled, coarse, keep=True)
        if left and not after.converged and not after.stalled:
            memory = {**after.memory, "iterations_left": left, "start_loss": start_loss}
            return replace(after, phase=_OF_LARGER_SAMPLE, memory=memory)
        return _after_sample(after.params, start_loss, sample_rows, after.memory.get("hessian"))

    def _iterated(
        self,
        problem: LinearProblem,
        state: State,
        answer: Sums,
        tol: float,
        *,
        keep: bool = False,
    ) -> State:
        """Return the state after a pass at `_points(state)`.

        With `keep`, the state holds the Hessian of the pass, which serves the next passes.
        """
        points, search = _points(state), state.memory
        now = problem.read(answer, points)
        is_step = "direction" in search
        if not is_step:
            if not np.isfinite(now.objective):
                raise Diverged("the objective is no number at the parameters to start from")
        elif not lowers(
            search["objective"],
            search["slope"],
            now,
            search["direction"],
            search["length"],
            search["l1_change"],
        ):
            return _shortened(state, problem.objectives(answer, points))
        of_sample = now.hessian is None
        hessian = _corrected(search, now) if now.hessian is None else now.hessian
        direction, l1_change = self._step(problem, now, hessian)
        slope = float((now.gradient * direction).sum()) + l1_change
        left = problem.least_subgradient(now.gradient / problem.total_weight, now.params)
        # Sums over a sample are scaled up to all rows.
        norm = float(np.abs(left).max()) * problem.n_rows / float(answer["rows"])
        converged = norm <= tol
        params, loss, n_iter = now.params, now.loss, state.n_iter + is_step
        updates = n_iter
        most = _MAX_LAST_BY_SAMPLE if of_sample else _MAX_LAST_DECREASE
        if converged and -slope <= most * abs(now.objective):
            # The quadratic model gives the loss after the last step, to third order.
            params, updates = now.params + direction, n_iter + 1
            steps = direction.reshape(hessian.shape[:2])
            curvature = float(np.einsum("bi,bij,bj->", steps, hessian, steps))
            objective = now.objective + slope + 0.5 * curvature
            loss = (objective - problem.penalty_value(params)) / float(answer["weight"])
        memory = {
            "base": now.params,
            "direction": direction,
            "objective": now.objective,
            "slope": slope,
            "l1_change": l1_change,
            "length": 1.0,
        }
        serves = of_sample and not (is_step and slope < _MAX_LEFT * search["slope"])
        if keep or serves:
            memory |= {"hessian": hessian, "gradient": now.gradient}
        return State(
            params=params,
            n_iter=n_iter,
            updates=updates,
            loss=loss,
            gradient_norm=norm,
            converged=converged,
            memory=memory,
        )

    def _step(self, problem: LinearProblem, now: Evaluation, hessian: Array) -> tuple[Array, float]:
        """Return the full step, and the change of the l1 penalty over it: 0 where there is none."""
        return problem.direction(now, hessian), 0.0


def _start(problem: LinearProblem) -> str:
    """Return a description of the problem's initial parameters."""
    return "the mean of y" if problem.initial().any() else "zero"


def is_small(hessian_shape: tuple[int, int, int], *, kinks: bool) -> bool:
    """Return whether Newton's method takes less time than L-BFGS.

    Parameters
    ----------
    hessian_shape : (blocks, parameters, parameters)
        Shape of the Hessian.
    kinks : bool
        Whether loss or penalty have kinks.
    """
    small = hessian_shape[-1] <= MOST_PARAMETERS
    return small or (kinks and math.prod(hessian_shape) <= _MOST_WITH_KINKS)


def newton_sample(problem: LinearProblem, rows: Rows) -> tuple[int, ...]:
    """Return the partitions of the sample that Newton begins with."""
    return sample_partitions(rows, _SAMPLE_ROWS_PER_PARAMETER * problem.hessian_shape[-1])


def _larger_sample(problem: LinearProblem, rows: Rows) -> tuple[int, ...]:
    """Return the partitions of the second, larger sample."""
    wanted = _LARGER * _SAMPLE_ROWS_PER_PARAMETER * problem.hessian_shape[-1]
    return sample_partitions(rows, min(wanted, int(SAMPLE_SHARE * rows.n_rows)))


def _corrected(search: Tree, now: Evaluation) -> Array:
    """Return a sample's Hessian, each block corrected by the last step."""
    hessian: Array = search["hessian"]
    if "direction" not in search:
        return hessian
    steps = (search["length"] * search["direction"]).reshape(hessian.shape[:2])
    changes = (now.gradient - search["gradient"]).reshape(hessian.shape[:2])
    blocks = zip(hessian, steps, changes, strict=True)
    return np.stack([_corrected_block(*block) for block in blocks])


def _corrected_block(hessian: Array, step: Array, change: Array) -> Array:
    """Return a matrix, corrected by the change of the gradient over a step (BFGS, formula 6.19)."""
    curvature, expected = step @ change, hessian @ step
    if curvature <= _MIN_CURVATURE * (step @ expected):
        return hessian
    lost = np.outer(expected, expected) / (step @ expected)
    corrected: Array = hessian + np.outer(change, change) / curvature - lost
    return corrected


def _after_sample(
    params: Array, start_loss: float, sample_rows: int, hessian: Array | None = None
) -> State:
    """Return the state that begins the passes over all rows."""
    memory = {"start_loss": start_loss} | ({} if hessian is None else {"hessian": hessian})
    note = f"begins at the optimum of a sample of {counted(sample_rows, 'row')}"
    return State(params, memory=memory, note=note)


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
    search = {name: value for name, value in state.memory.items() if name != "hessian"}
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
