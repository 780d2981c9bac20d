"""Solvers one after another: updates by batches of several sizes, then an exact solver.

Each solver goes on from the parameters of the one before, which for updates is their average; its
own state begins anew, and so does its learning rate "auto", which follows the batch size. A rate
that was lowered since the loss grew without end is lowered for the following sizes too. The batch
size changes at ends of epochs, as a `BatchSchedule` says. At batches of all rows the exact solver
begins. A schedule that follows the gradient noise scale has it measured after each epoch, on the
rows that evaluate the model. There batches grow to all rows too where updates have converged.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import Any

from ooc_train.core.partitions import Rows
from ooc_train.core.requests import Epoch, Reduce, Request
from ooc_train.core.sums import Array
from ooc_train.core.text import counted
from ooc_train.models.linear import LinearProblem
from ooc_train.models.noise import NoiseSums, noise_scales
from ooc_train.models.problem import Capability
from ooc_train.solvers.base import Holdings, Solver, State, Tree
from ooc_train.solvers.batch_schedules import BatchSchedule
from ooc_train.solvers.learning_rate import evaluated_partitions
from ooc_train.solvers.updates import Updates

_NOISE = "gradient noise scale"
"""Phase: the pass after an epoch that measures the noise."""


@dataclass(frozen=True)
class Phased:
    """Updates by batches of several sizes, then an exact solver.

    The memory of its state has the current batch size, the epochs so far, the iterations and
    updates of the solvers before the current one, how often those lowered the learning rate, and
    the current one's memory: none before its first pass.

    Attributes
    ----------
    schedule : BatchSchedule
        Rows per update, by epoch.
    updates : Updates
        How batches of any size are learned from. Its tolerance ends the run only in the last size
        of the schedule, or has batches that follow the noise grow to all rows.
    exact : Solver or None
        The solver at batches of all rows; None if the schedule has none.
    """

    schedule: BatchSchedule
    updates: Updates
    exact: Solver | None

    @property
    def requires(self) -> frozenset[Capability]:
        """Capabilities that a problem must have for all the solvers."""
        return self.updates.requires | (frozenset() if self.exact is None else self.exact.requires)

    @property
    def name(self) -> str:
        """The names of the solvers, in their order."""
        return self.updates.name + ("" if self.exact is None else f", then {self.exact.name}")

    def holds(self, problem: LinearProblem, rows: Rows) -> Holdings:
        """Return the memory that requests and states need, for the plan."""
        smallest = self.schedule.smallest(rows.n_rows)  # short batches have kernels of their own
        holdings = [replace(self.updates, batch_size=smallest).holds(problem, rows)]
        if self.exact is not None:
            holdings.append(self.exact.holds(problem, rows))
        reductions = tuple(each for holding in holdings for each in holding.reductions)
        if self.schedule.measures_noise:
            reductions += (_noise_sums(problem, problem.initial()),)
        return replace(
            holdings[0],
            reductions=reductions,
            sets=max(holding.sets for holding in holdings) + 1,
            algebra=max(holding.algebra for holding in holdings),
        )

    def init(self, problem: LinearProblem, rows: Rows, params: Array) -> State:
        """Return the initial state, of the solver for the first batch size."""
        size = self.schedule.rows(0, rows.n_rows)
        state = _begun_with(size, State(params))
        return _outer(state, self._inner(problem, rows, state))

    def _solver(self, rows: Rows, memory: Tree) -> Solver:
        """Return the solver for the current batch size."""
        size: int = memory["batch_size"]
        if size >= rows.n_rows and self.exact is not None:
            return self.exact
        ends = self.schedule.measures_noise or size == self.schedule.last(rows.n_rows)
        tol = self.updates.tol if ends else 0.0
        return replace(self.updates, batch_size=size, tol=tol, lowered=memory["lowered"])

    def _inner(self, problem: LinearProblem, rows: Rows, state: State) -> State:
        """Return the part of `state` that the solver for the current batch size knows."""
        memory = state.memory
        if "inner" not in memory:
            return self._solver(rows, memory).init(problem, rows, state.params)
        return replace(
            state,
            n_iter=state.n_iter - memory["n_iter"],
            updates=state.updates - memory["updates"],
            memory=memory["inner"],
        )

    def ask(self, problem: LinearProblem, rows: Rows, state: State) -> Request:
        """Return the request of the current solver, or that for the gradient noise."""
        if state.phase == _NOISE:
            partitions = evaluated_partitions(rows)
            return Reduce(_noise_sums(problem, state.params), partitions, counted=False)
        solver = self._solver(rows, state.memory)
        request = solver.ask(problem, rows, self._inner(problem, rows, state))
        # The order of rows differs from that of the epochs of solvers before.
        return replace(request, number=state.n_iter) if isinstance(request, Epoch) else request

    def tell(self, problem: LinearProblem, rows: Rows, state: State, answer: Any) -> State:
        """Return the next state, which is the next solver's if the batch size changes.

        Raises
        ------
        Diverged
            As the current solver raises it.
        """
        if state.phase == _NOISE:
            scales = noise_scales(problem, answer, state.params[None])
            noise = None if scales is None else scales[0].rows
            return self._after_epoch(rows, replace(state, phase=""), noise)
        size = state.memory["batch_size"]
        inner = self._inner(problem, rows, state)
        after = self._solver(rows, state.memory).tell(problem, rows, inner, answer)
        outer = _outer(state, after)
        if after.phase or outer.n_iter == state.memory["epochs"] or size >= rows.n_rows:
            return outer
        outer = replace(outer, memory={**outer.memory, "epochs": outer.n_iter})
        if self.schedule.measures_noise and not outer.converged:
            return replace(outer, phase=_NOISE)
        return self._after_epoch(rows, outer, None)

    def more_careful(self, problem: LinearProblem, rows: Rows, state: State) -> State | None:
        """Return the state with a lower learning rate, as `Updates.more_careful` does."""
        if state.phase == _NOISE or state.memory["batch_size"] >= rows.n_rows:
            return None
        inner = self.updates.more_careful(problem, rows, self._inner(problem, rows, state))
        return None if inner is None else _outer(state, inner)

    def _after_epoch(self, rows: Rows, state: State, noise: float | None) -> State:
        """Return the state after an epoch by batches, with the batch size of the next one."""
        size, n_rows = state.memory["batch_size"], rows.n_rows
        following = self.schedule.after(state.n_iter, n_rows, size, noise)
        if state.converged and self.schedule.measures_noise:
            following = n_rows
        if following == size:
            return state
        text = (
            f"batches of {counted(following, 'row')}" if following < n_rows else "all rows at once"
        )
        if noise is not None:
            scale = (
                counted(noise, "row", ",.0f") if noise < inf else "more than these rows can tell"
            )
            text += f": the gradient noise scale is {scale}"
        return replace(_begun_with(following, state), converged=False, note=text)


def _begun_with(size: int, state: State) -> State:
    """Return a state whose solver, for batches of so many rows, has yet to begin."""
    n_iter, updates = state.n_iter, state.updates
    memory = {"batch_size": size, "epochs": n_iter, "n_iter": n_iter, "updates": updates}
    lowered = state.memory.get("inner", {}).get("lowered", 0)
    return replace(state, memory={**memory, "lowered": lowered})


def _outer(before: State, inner: State) -> State:
    """Return the state of all solvers, made from the state of the current one."""
    memory = before.memory
    return replace(
        inner,
        n_iter=memory["n_iter"] + inner.n_iter,
        updates=memory["updates"] + inner.updates,
        batch_size=memory["batch_size"],
        memory={**memory, "inner": inner.memory},
    )


def _noise_sums(problem: LinearProblem, params: Array) -> NoiseSums:
    return NoiseSums(problem.reduction(params[None]), problem.fit_intercept)
