"""Learning by updates: a step of gradient descent or Adam for each batch of rows.

A batch of fewer rows than there are is a scan, one epoch a pass. A batch of all rows is a reduce
pass and one step: plain gradient descent, whose sums, and so its bits, are those of every other
full-batch method.

The model is at any time the average of the parameters over the updates so far, by weights that
grow as the third power of their number. The noise of single batches averages out, and the start is
forgotten, wherever the run ends: its limits, early stopping or Ctrl-C need no plan beforehand. In
batches of all rows there is no noise, and gradient descent's model is the last point.

`rates.py` has the learning rate "auto".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ooc_train.core.sums import Array, Reduction, Sums
from ooc_train.errors import Diverged
from ooc_train.models.linear import LinearProblem
from ooc_train.models.linear_updates import LinearUpdates
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.optimizers.schedules import Falling
from ooc_train.solvers.base import State, Stream
from ooc_train.solvers.learning_rate import (
    WIDEST,
    Rate,
    automatic_rate,
    certain_gain,
    evaluated_partitions,
    norms,
)
from ooc_train.stream.order import rounds
from ooc_train.stream.sources import Source

PATIENCE = 5
"""Epochs without progress after which learning stops, as in scikit-learn."""

NEAR = 0.01
"""Share of the loss that a model may be known to lie above the lowest one, and be called near."""


@dataclass(frozen=True, eq=False)
class _Memory:
    """The updates with their learning rate, each replica's state, and how long nothing was gained.

    `best` is the lowest mean objective after an epoch, `stale` the epochs since it was lowered by
    the tolerance, `lowest` the lowest progressive loss; `gradient` is that of the mean objective at
    the last point, of batches of all rows.
    """

    updates: LinearUpdates
    states: Sequence[Sums]
    best: float = float("inf")
    stale: int = 0
    lowest: float = float("inf")
    gradient: Array | None = None


@dataclass(frozen=True)
class Updates:
    """Updates by batches.

    Attributes
    ----------
    rule : how a gradient becomes a step, a key of `OPTIMIZERS`
    batch_size : rows per update
    learning_rate : of the steps on scaled parameters, constant; "auto" as `rates.py` says
    tol : mean objective that an epoch has to gain, 0 for no such condition; for a batch of all
        rows, the gradient's largest entry
    seed : of the order of rows
    mixing : chunks mixed row by row
    replicas : of rows, each learned from by itself, which are averaged now and then
    """

    rule: str
    batch_size: int
    learning_rate: float | str
    tol: float
    seed: int
    shuffle_chunks: int
    replicas: int = 1

    @property
    def slots(self) -> int:
        """Vectors of the size of `theta` that the solver holds beside it."""
        # States before and after an epoch, and what their mean is made of, where there are several.
        return (2 * self.vectors + (4 if self.replicas > 1 else 0)) * self.replicas + 8

    @property
    def vectors(self) -> int:
        """Vectors of the size of `theta` that a replica carries, their average included."""
        return 3 + self.optimizer.slots

    @property
    def optimizer(self) -> Optimizer:
        """How a gradient becomes a step."""
        return OPTIMIZERS[self.rule]()

    def start(self, problem: LinearProblem, stream: Stream, theta: Array) -> State:
        """Return the state to begin with; the automatic learning rate looks at a sample."""
        rate = self.first_rate(problem, stream)
        updates = self.updates(problem, stream, rate)
        states = tuple(updates.start(theta) for _ in range(self.replicas))
        note = f"learning rate {rate.eta0:.4g}" + (", falling" if rate.noise else "")
        return State(theta, memory=_Memory(updates, states), note=note)

    def updates(self, problem: LinearProblem, stream: Stream, rate: Rate) -> LinearUpdates:
        """Return the updates by a learning rate."""
        return LinearUpdates(
            problem,
            stream.source.dtype,
            self.batch_size,
            self.optimizer,
            Falling(rate.noise, rate.horizon),
            rate.eta0,
        )

    def _rows_of_a_replica(self, source: Source) -> int:
        """Return the most rows that a replica learns from in an epoch."""
        group_rows = self.shuffle_chunks * source.partition_rows
        groups = -(-source.n_partitions // self.shuffle_chunks)
        taken = [0] * self.replicas
        for cuts in rounds(groups, group_rows * source.row_bytes, self.replicas):
            for replica, (start, stop) in enumerate(cuts):
                taken[replica] += stop - start
        return min(source.n_rows, max(taken) * group_rows)

    def first_rate(self, problem: LinearProblem, stream: Stream, *, planned: bool = True) -> Rate:
        """Return the learning rate; the automatic one looks at a sample.

        Parameters
        ----------
        planned : whether an epoch has the rows of the stream; else nobody knows how many will come
        """
        if not isinstance(self.learning_rate, str):
            return Rate(float(self.learning_rate))
        rows = self._rows_of_a_replica(stream.source)
        per_epoch = rows / self.batch_size if planned else None
        return automatic_rate(self.optimizer, problem, stream, self.batch_size, per_epoch)

    def step(self, problem: LinearProblem, stream: Stream, state: State) -> State:
        """Return the state after one more epoch.

        Raises
        ------
        Diverged
            where the loss is no number, or many times what it was.
        """
        if self.batch_size >= stream.source.n_rows:
            return self._step_by_all_rows(problem, stream, state)
        memory: _Memory = state.memory
        before = [replica | {"sums": np.zeros(2)} for replica in memory.states]
        after = stream.scan(
            memory.updates,
            before,
            seed=self.seed,
            epoch=state.n_iter,
            shuffle_chunks=self.shuffle_chunks,
        )
        total, weight = np.sum([replica["sums"] for replica in after], axis=0)
        progressive = float(total / weight)
        self._raise_if_diverged(progressive, memory)
        theta = after[0]["average"]
        loss, objective, norm = evaluated(problem, stream, theta)
        stale = 0 if objective <= memory.best - self.tol else memory.stale + 1
        converged, note = False, ""
        if self.tol > 0 and stale >= PATIENCE:
            converged = is_near(certain_gain(problem, stream, theta), loss, self.tol)
            stale = 0  # far from the optimum, little progress is no reason to end
            note = f"no epoch of the last {PATIENCE} lowered the objective by {self.tol:g}"
            note += "" if converged else ", but the gradient says that there is more to gain"
        return State(
            theta=theta,
            n_iter=state.n_iter + 1,
            updates=sum(int(replica["counters"][1]) for replica in after),
            loss=loss,
            progressive_loss=progressive,
            gradient_norm=norm,
            converged=converged,
            note=note,
            memory=replace(
                memory,
                states=after,
                best=min(objective, memory.best),
                stale=stale,
                lowest=min(progressive, memory.lowest),
            ),
        )

    def _step_by_all_rows(self, problem: LinearProblem, stream: Stream, state: State) -> State:
        """Return the state after one more pass, which evaluates the point that the step led to."""
        memory: _Memory = state.memory
        (replica,), n_iter = memory.states, state.n_iter
        if memory.gradient is not None:
            replica, n_iter = memory.updates.step_by_all_rows(replica, memory.gradient), n_iter + 1
        points = replica["theta"][None]
        if self.optimizer.normalised:
            points = np.stack([replica["theta"], replica["average"]])
        sums = stream.reduce(problem.sums(points, gradients=len(points)))
        model = problem.evaluation(sums, points, len(points) - 1)
        self._raise_if_diverged(model.loss, memory)
        norm = float(np.abs(model.gradient).max()) / problem.total_weight
        return State(
            theta=points[-1],
            n_iter=n_iter,
            updates=n_iter,
            loss=model.loss,
            gradient_norm=norm,
            converged=norm <= self.tol,
            memory=replace(
                memory,
                states=[replica],
                lowest=min(model.loss, memory.lowest),
                gradient=problem.evaluation(sums, points).gradient / problem.total_weight,
            ),
        )

    def algebra(self, problem: LinearProblem) -> int:
        """Return the bytes of matrices that the solver makes of sums, beside them."""
        return 4 * 8 * (problem.n_features + 1) ** 2 if problem.n_features <= WIDEST else 0

    def reductions(self, problem: LinearProblem) -> tuple[Reduction, ...]:
        """Return the largest of each kind of sums that reduce passes add up."""
        points = np.broadcast_to(0.0, (1 + self.optimizer.normalised, *problem.zeros().shape))
        return (problem.sums(points, gradients=len(points)), norms(problem))

    @staticmethod
    def _raise_if_diverged(loss: float, memory: _Memory) -> None:
        if not np.isfinite(loss) or loss > 1e3 * memory.lowest + 1e3:
            raise Diverged(
                f"the loss went from {memory.lowest:.4g} to {loss:.4g}: the learning rate of "
                f'{memory.updates.eta0:.3g} is too large; use learning_rate="auto" or a smaller one'
            )


def evaluated(problem: LinearProblem, stream: Stream, theta: Array) -> tuple[float, float, float]:
    """Return mean loss, mean objective and the gradient's largest entry, of a sample of rows."""
    partitions = evaluated_partitions(stream.source)
    sums = stream.reduce(problem.sums(theta[None]), partitions, counted=False)
    if not sums["weight"] > 0 and len(partitions) < stream.source.n_partitions:
        sums = stream.reduce(problem.sums(theta[None]), counted=False)
    loss = float(sums["loss"][0]) / float(sums["weight"])
    objective = loss + problem.theta_penalty.value(theta) / problem.total_weight
    return loss, objective, float(np.abs(problem.mean_gradient(sums, theta)).max())


def is_near(gain: float, loss: float, tol: float) -> bool:
    """Return whether what can be gained for certain is within the tolerance, or 1 % of the loss."""
    return gain <= max(tol, NEAR * abs(loss))
