"""Learning by updates: a step of gradient descent or Adam for each batch of rows.

Smaller batches are a scan, with one epoch a pass. A batch of all rows is a reduce pass and one
step: plain gradient descent, with the same sums, and so the same bits, as other full-batch solvers.

The model is the average of the parameters over the updates so far, by weights that grow as the
third power of the update's number. The average removes the noise of batches and forgets the start.
So a run may end at any time, by a limit, early stopping or Ctrl-C. Batches of all rows have no
noise, and the model of gradient descent is the last point.
`learning_rate.py` has the learning rate "auto". `gain.py` tells whether updates have converged.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar

import numpy as np

from ooc_train.core.partitions import Rows, rounds
from ooc_train.core.requests import Epoch, Reduce, Request
from ooc_train.core.sums import Array, Reduction, Sums
from ooc_train.models.linear import LinearProblem
from ooc_train.models.problem import Capability, Problem, ProblemOfUpdates, UpdatesOfProblem
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.optimizers.schedule import Schedule
from ooc_train.optimizers.schedules import Falling
from ooc_train.solvers.base import Holdings, State
from ooc_train.solvers.divergence import LOWER, MOST_LOWERED, raise_if_diverged, raise_if_worse
from ooc_train.solvers.gain import gain_requests, guaranteed_gain, is_gain_small
from ooc_train.solvers.lanczos import PRODUCTS, first_vector, largest_eigenvalue, next_vector
from ooc_train.solvers.learning_rate import (
    EVALUATED_ROWS,
    Rate,
    automatic_rate,
    evaluated_partitions,
    is_wide,
    normalised_rate,
    norms,
    rate_request,
    require_full_gradient,
    require_linear,
)
from ooc_train.solvers.plateaus import PATIENCE, may_lower

_RATE = "learning rate"
_LOSS, _LOSS_OF_ALL = "loss after the epoch", "loss of all rows after the epoch"
_GAIN = "guaranteed gain"
"""Phases: the pass before the first epoch, and the passes after the updates of each epoch."""


@dataclass(frozen=True)
class Updates:
    """The solver that updates parameters by batches of rows, as SGD and Adam do.

    Attributes
    ----------
    optimizer : Optimizer
        How a gradient becomes a step.
    batch_size : int
        Rows per update.
    learning_rate : float or "auto"
        The rate that the schedule begins with, on scaled parameters.
    tol : float
        Decrease of the mean objective that counts as progress; 0 never ends a run. With batches of
        all rows, the largest entry of the gradient to stop at; of the subgradient of least size if
        there is an l1 penalty.
    seed : int or None
        Seed of the order of rows; None for stored order.
    shuffle_chunks : int
        Chunks mixed row by row.
    replicas : int
        Copies of the parameters that learn from shares of the rows, averaged at fixed points.
    schedule : Schedule or None
        How the learning rate changes. None is the schedule of the learning rate "auto", or a
        constant rate where a number is given.
    epochs : float
        Planned number of epochs, which schedules may follow.
    evaluated_rows : int
        Rows that evaluate the model after an epoch.
    in_order : bool
        Whether rows are taken in stored order, also where a batch has all rows.
    lowered : int
        How often the learning rate "auto" was lowered before, by updates with other batch sizes.
    patience : int
        Epochs in a row without progress after which a run ends.
    """

    optimizer: Optimizer
    batch_size: int
    learning_rate: float | str = "auto"
    tol: float = 1e-4
    seed: int | None = 0
    shuffle_chunks: int = 1
    replicas: int = 1
    schedule: Schedule | None = None
    epochs: float = inf
    evaluated_rows: int = EVALUATED_ROWS
    in_order: bool = False
    lowered: int = 0
    patience: int = PATIENCE

    requires: ClassVar[frozenset[Capability]] = frozenset({"updates"})

    @property
    def name(self) -> str:
        """The optimizer's name."""
        return self.optimizer.name

    def _is_full_batch(self, rows: Rows) -> bool:
        return self.batch_size >= rows.n_rows and not self.in_order

    def _compares_start(self, rows: Rows) -> bool:
        """Whether the initial parameters are evaluated together with the first epoch's."""
        return self.learning_rate == "auto" and not self._is_full_batch(rows)

    def holds(self, problem: ProblemOfUpdates, rows: Rows) -> Holdings:
        """Return the memory that requests and states need, for the plan."""
        self._require_rates(rows)  # before anything is read
        points = np.broadcast_to(0.0, (1 + self._evaluates_both(problem), *problem.shape))
        reductions: tuple[Reduction, ...] = (problem.reduction(points, gradients=len(points)),)
        algebra = 0
        if isinstance(problem, LinearProblem):
            columns = problem.n_features + 1
            reductions += (norms(problem, np.broadcast_to(0.0, columns)),)
            algebra = 4 * 8 * columns * (PRODUCTS if is_wide(problem) else columns)
        carried = 3 + len(self.optimizer.slot_powers)
        # States before and after an epoch; four more sets a replica average them.
        sets = (2 * carried + (4 if self.replicas > 1 else 0)) * self.replicas + 8
        if self._is_full_batch(rows):
            require_full_gradient(problem)
            return Holdings(reductions, sets + 4 * self._evaluates_both(problem), algebra)
        if self._compares_start(rows):
            points = np.broadcast_to(0.0, (2 + self.in_order, *problem.shape))
            reductions += (problem.reduction(points),)
        scan = self._scan(problem, rows, Rate(0.0))
        return Holdings(
            reductions, sets, algebra, scan, carried, self.replicas, self.shuffle_chunks
        )

    def init(self, problem: ProblemOfUpdates, rows: Rows, params: Array) -> State:
        """Return the initial state; SGD's learning rate "auto" takes a pass over a sample first."""
        self._require_rates(rows)
        if not isinstance(self.learning_rate, str):
            return self._started(problem, rows, params, Rate(float(self.learning_rate)))
        known = problem.automatic_rate(self.optimizer)
        if known is not None:
            return self._started(problem, rows, params, Rate(known))
        if self.optimizer.normalised:
            features = problem.shape[-1] - 1
            per_epoch = self._per_epoch(rows)
            rate = normalised_rate(self.optimizer, features, self.batch_size, per_epoch)
            return self._started(problem, rows, params, rate)
        if self.batch_size == 1 or not is_wide(require_linear(problem)):
            return State(params, phase=_RATE)
        vectors = first_vector(problem.shape[-1])[None]
        return State(params, phase=_RATE, memory={"vectors": vectors, "products": vectors[:0]})

    def _started(self, problem: ProblemOfUpdates, rows: Rows, params: Array, rate: Rate) -> State:
        rate = replace(rate, eta0=LOWER**self.lowered * rate.eta0)
        scan = self._scan(problem, rows, rate)
        return State(
            params,
            rate=rate.eta0,
            note=f"learning rate {rate.eta0:.4g}{self._how_it_changes(rate)}",
            memory={
                "eta0": rate.eta0,
                "noise": rate.schedule.noise,
                "fall": rate.schedule.fall,
                "replicas": tuple(scan.start(params) for _ in range(self.replicas)),
                "best": inf,  # the lowest mean objective after an epoch
                "stale": 0,  # epochs since the last progress
                "lowest": inf,  # the lowest progressive loss
                "lowered": self.lowered,  # how often the learning rate was lowered
            }
            | ({"starts": params[None]} if self._compares_start(rows) else {}),
        )

    def _how_it_changes(self, rate: Rate) -> str:
        if self.schedule is not None:
            return f", schedule {self.schedule}"
        return ", falling" if rate.schedule.noise else ""

    def _scan(self, problem: ProblemOfUpdates, rows: Rows, rate: Rate) -> UpdatesOfProblem:
        schedule, horizon = self.schedule or rate.schedule, self._horizon(rows)
        return problem.updates(
            rows.dtype, self.batch_size, self.optimizer, schedule, rate.eta0, horizon
        )

    def _horizon(self, rows: Rows) -> float:
        """Return the updates that a replica makes in all epochs; infinity if unknown."""
        # An incomplete batch at the end of an epoch is an update too.
        return self.epochs * -(-self._rows_of_a_replica(rows) // self.batch_size)

    def _require_rates(self, rows: Rows) -> None:
        """Raise `ValueError` if the schedule gives no rate for some update of a run."""
        if self.schedule is not None:
            self.schedule.require_rates(self._horizon(rows))

    def _rate(self, state: State) -> Rate:
        memory = state.memory
        return Rate(memory["eta0"], Falling(memory["noise"], memory["fall"]))

    def _per_epoch(self, rows: Rows) -> float | None:
        """Return the updates of an epoch; None if the number of rows is not known."""
        return None if self.in_order else self._rows_of_a_replica(rows) / self.batch_size

    def _rows_of_a_replica(self, rows: Rows) -> int:
        """Return the number of rows of the replica that has the most in an epoch."""
        group_rows = self.shuffle_chunks * rows.partition_rows
        groups = -(-rows.n_partitions // self.shuffle_chunks)
        groups_of = [0] * self.replicas
        for cuts in rounds(groups, group_rows * rows.row_bytes, self.replicas):
            for replica, (first, stop) in enumerate(cuts):
                groups_of[replica] += stop - first
        return min(rows.n_rows, max(groups_of) * group_rows)

    def ask(self, problem: ProblemOfUpdates, rows: Rows, state: State) -> Request:
        """Return the request for an epoch of updates, or for the evaluation after one."""
        memory, params = state.memory, state.params
        if state.phase == _RATE:
            vector = memory["vectors"][-1] if memory else None
            return rate_request(require_linear(problem), rows, vector)
        if state.phase in (_LOSS, _LOSS_OF_ALL):
            points = np.stack([params, *memory.get("starts", ())])
            of_all = state.phase == _LOSS_OF_ALL
            partitions = None if of_all else evaluated_partitions(rows, self.evaluated_rows)
            return Reduce(problem.reduction(points), partitions, counted=False)
        if state.phase == _GAIN:
            return gain_requests(require_linear(problem), rows, params)
        if self._is_full_batch(rows):
            points = self._points(problem, memory["replicas"][0])
            return Reduce(problem.reduction(points, gradients=len(points)))
        states = [replica | {"sums": np.zeros(2)} for replica in memory["replicas"]]
        seed = None if self.in_order else self.seed
        scan = self._scan(problem, rows, self._rate(state))
        return Epoch(scan, states, seed, state.n_iter, self.shuffle_chunks)

    def tell(self, problem: ProblemOfUpdates, rows: Rows, state: State, answer: Any) -> State:
        """Return the next state, given the answer of a pass.

        Raises
        ------
        Diverged
            If the loss is not finite, or many times the lowest loss.
        """
        if state.phase == _RATE:
            return self._after_norms(require_linear(problem), rows, state, answer)
        if state.phase in (_LOSS, _LOSS_OF_ALL):
            return self._after_evaluation(problem, state, answer)
        if state.phase == _GAIN:
            gain = guaranteed_gain(require_linear(problem), answer, state.params)
            return self._without_progress(state, optimal=is_gain_small(gain, state.loss, self.tol))
        after = self._after_step if self._is_full_batch(rows) else self._after_updates
        return after(problem, rows, state, answer)

    def more_careful(self, problem: ProblemOfUpdates, rows: Rows, state: State) -> State | None:
        """Return the last model's state at a lower learning rate; None if none is allowed.

        The sample that tells the rate "auto" may miss a few rows for which the rate is too large.
        """
        memory = state.memory
        if self.learning_rate != "auto" or memory.get("lowered", MOST_LOWERED) >= MOST_LOWERED:
            return None
        eta0, scan = LOWER * memory["eta0"], self._scan(problem, rows, self._rate(state))
        replicas = tuple(
            scan.start(state.params)
            | {name: replica[name] for name in ("counters", "epochs") if name in replica}
            for replica in memory["replicas"]
        )
        note = (
            f"the learning rate {memory['eta0']:.4g} is too large for some rows: learning goes on "
            f"from the model of iteration {state.n_iter} at {eta0:.4g}"
        )
        lowered = {"eta0": eta0, "replicas": replicas, "lowered": memory["lowered"] + 1}
        return replace(state, rate=eta0, note=note, memory={**memory, **lowered})

    def _after_norms(self, problem: LinearProblem, rows: Rows, state: State, sums: Sums) -> State:
        """Return the state after a pass for the learning rate; wide rows take several."""
        largest = 0.0
        if state.memory:
            vectors = state.memory["vectors"]
            products = np.vstack([state.memory["products"], sums["product"]])
            vector = next_vector(vectors, products)
            if vector is not None:
                memory = {"vectors": np.vstack([vectors, vector]), "products": products}
                return replace(state, memory=memory)
            largest = largest_eigenvalue(vectors, products)
        optimizer, size, per_epoch = self.optimizer, self.batch_size, self._per_epoch(rows)
        rate = automatic_rate(optimizer, problem, rows, sums, size, per_epoch, largest)
        return self._started(problem, rows, state.params, rate)

    def _after_updates(
        self, problem: ProblemOfUpdates, rows: Rows, state: State, replicas: list[Sums]
    ) -> State:
        """Return the state after the updates of an epoch, before its evaluation."""
        memory = state.memory
        total, weight = np.sum([replica["sums"] for replica in replicas], axis=0)
        progressive = float(total / weight)
        raise_if_diverged(progressive, memory)
        updates = sum(int(replica["counters"][1]) for replica in replicas)
        last = max(0, *(int(replica["counters"][1]) - 1 for replica in replicas))
        return replace(
            state,
            params=replicas[0]["average"],
            phase=_LOSS,
            n_iter=state.n_iter + 1,
            updates=updates,
            progressive_loss=progressive,
            rate=_rate_of(self._scan(problem, rows, self._rate(state)), last, replicas[0]),
            note="",
            memory={
                **memory,
                "replicas": tuple(replicas),
                "lowest": min(progressive, memory["lowest"]),
            },
        )

    def _after_evaluation(self, problem: ProblemOfUpdates, state: State, sums: Sums) -> State:
        """Return the state after the evaluation of an epoch on a sample of the rows."""
        if not sums["weight"] > 0 and state.phase == _LOSS:
            return replace(state, phase=_LOSS_OF_ALL)
        memory, params = dict(state.memory), state.params
        loss = float(sums["loss"][0]) / float(sums["weight"])
        objective = loss + problem.penalty_value(params) / problem.total_weight
        for start, total in zip(memory.pop("starts", ()), sums["loss"][1:], strict=True):
            of_start = problem.penalty_value(start) / problem.total_weight
            of_start += float(total) / float(sums["weight"])
            memory["first"] = max(of_start, memory.get("first", of_start))
        raise_if_worse(objective, memory)
        stale = 0 if objective <= memory["best"] - self.tol else memory["stale"] + 1
        after = replace(
            state,
            phase="",
            loss=loss,
            gradient_norm=_norm(problem, problem.mean_gradient(sums, params), params),
            memory={**memory, "best": min(objective, memory["best"]), "stale": stale},
        )
        if self.tol == 0 or stale < self.patience or may_lower(self.schedule, state):
            return after
        # A weight decay holds parameters away from the optimum, and so there is always a gain left.
        if "moments" in problem.can and self.optimizer.decay == 0:
            return replace(after, phase=_GAIN)
        return self._without_progress(after, optimal=True)

    def _without_progress(self, state: State, *, optimal: bool) -> State:
        """Return the state after the last of several epochs without progress."""
        note = f"no epoch of the last {self.patience} lowered the objective by {self.tol:g}"
        note += "" if optimal else ", but the gradient says that there is more to gain"
        if self.optimizer.decay > 0:
            note += f", which does not count the weight decay {self.optimizer.decay:g}"
        # Far from the optimum, slow progress does not end a run.
        memory = {**state.memory, "stale": 0}
        return replace(state, phase="", converged=optimal, note=note, memory=memory)

    def _evaluates_both(self, problem: ProblemOfUpdates) -> bool:
        """Whether a full-batch pass evaluates the parameters and, as the model, their average."""
        return self.optimizer.normalised and problem.averages_all_rows

    def _points(self, problem: ProblemOfUpdates, replica: Sums) -> Array:
        """Return the points that a pass over all rows evaluates, the model last."""
        names = ("theta", "average") if self._evaluates_both(problem) else ("theta",)
        return np.stack([replica[name] for name in names])

    def _after_step(self, problem: ProblemOfUpdates, rows: Rows, state: State, sums: Sums) -> State:
        """Return the state at the evaluated point; its memory holds the next point to evaluate."""
        memory = state.memory
        (replica,) = memory["replicas"]
        points = self._points(problem, replica)
        model = problem.read(sums, points, len(points) - 1)
        raise_if_diverged(model.loss, memory)
        norm = _norm(problem, model.gradient / problem.total_weight, model.params)
        steps = int(replica["counters"][1])
        scan = self._scan(problem, rows, self._rate(state))
        gradient = problem.read(sums, points).gradient / problem.total_weight
        return replace(
            state,
            params=points[-1],
            n_iter=steps,
            updates=steps,
            loss=model.loss,
            gradient_norm=norm,
            converged=norm <= self.tol,
            rate=_rate_of(scan, max(0, steps - 1), replica),
            note="",
            memory={
                **memory,
                "replicas": (scan.step_by_all_rows(replica, gradient),),
                "lowest": min(model.loss, memory["lowest"]),
            },
        )


def _rate_of(scan: UpdatesOfProblem, t: int, replica: Sums) -> float:
    """Return the learning rate after t updates: a replica's own, if its optimizer changes it."""
    return float(replica["own rate"][0]) if "own rate" in replica else scan.rate(t)


def _norm(problem: Problem, gradient: Array, params: Array) -> float:
    """Return the largest entry of the subgradient of least size, which is zero at the optimum."""
    return float(np.abs(problem.least_subgradient(gradient, params)).max())
