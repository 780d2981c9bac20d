"""Learning by updates: a step of gradient descent or Adam for each batch of rows.

A batch of fewer rows than there are is a scan, one epoch a pass. A batch of all rows is a reduce
pass and one step: plain gradient descent, whose sums, and so its bits, are those of every other
full-batch method.

The learning rate "auto" is the largest that is safe in the mean, for rows in random order: `B /
(beta (r2 + (B - 1) lam))`, with `beta` the loss's greatest curvature, `r2` the mean squared norm of
a scaled row and `lam` the largest eigenvalue of the scaled second moments: 1 / (beta r2) for single
rows, 1 / (beta lam) for all (Jain et al. 2018, Parallelizing SGD), less what the penalty adds to
the curvature. Over the epochs it falls linearly to zero, which averages out what the last rows
happened to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ooc_train.errors import Diverged
from ooc_train.models.linear import LinearProblem
from ooc_train.models.moments import GramSums
from ooc_train.models.rules import BETA1, BETA2, EPSILON, Rule
from ooc_train.models.sums import Array, Sums, Work
from ooc_train.models.updates import LinearUpdates
from ooc_train.solvers.base import State, Stream
from ooc_train.stream.order import rounds
from ooc_train.stream.sources import Source, sample_leaves

_PATIENCE = 5
"""Epochs without progress after which learning stops, as in scikit-learn."""

_SAMPLE_LEAVES = 32
_SAMPLE_ROWS = 2**15
_WIDEST = 2048
"""Up to so many features the largest eigenvalue is computed; beyond, it is bounded by the trace."""

_ADAM_RATE = 1e-3 / 32
_ADAM_LARGEST = 512
"""The usual 1e-3 at the usual batch of 32 rows, in proportion for others: steps of Adam are of the
size of the learning rate whatever the gradient, so that an epoch covers the same ground."""


@dataclass(frozen=True, eq=False)
class _Memory:
    """The rule with its learning rate, each lane's state, and how long the loss has not fallen.

    `gradient` is that of the mean objective at the last point, of batches of all rows.
    """

    updates: LinearUpdates
    states: Sequence[Sums]
    best: float = float("inf")
    stale: int = 0
    gradient: Array | None = None


@dataclass(frozen=True)
class Updates:
    """Updates by batches.

    Attributes
    ----------
    rule : how a gradient becomes a step
    batch_size : rows per update
    learning_rate : of the steps on scaled parameters, constant; "auto" as the module says
    max_iter : epochs, over which the automatic learning rate falls to zero
    tol : mean loss that an epoch has to gain; for a batch of all rows, the gradient's largest entry
    seed : of the order of rows
    mixing : chunks mixed row by row
    lanes : of rows, each learned from by itself, which are averaged now and then
    """

    rule: Rule
    batch_size: int
    learning_rate: float | str
    max_iter: int
    tol: float
    seed: int
    mixing: int
    lanes: int = 1

    @property
    def slots(self) -> int:
        """Vectors of the size of `theta` that the solver holds beside it."""
        return 8 * self.lanes

    def start(self, problem: LinearProblem, stream: Stream, theta: Array) -> State:
        """Return the state to begin with; the automatic learning rate looks at a sample."""
        whole = self.batch_size >= stream.source.n_rows
        per_epoch = -(-self._rows_of_a_lane(stream.source) // self.batch_size)
        eta0 = self.first_rate(problem, stream)
        falls = self.learning_rate == "auto" and not (whole and self.rule == "sgd")
        updates = LinearUpdates(
            problem,
            stream.source.dtype,
            self.batch_size,
            self.rule,
            "linear" if falls else "constant",
            eta0,
            float(self.max_iter * per_epoch),
        )
        states = tuple(updates.start(theta) for _ in range(self.lanes))
        note = f"learning rate {eta0:.4g}" + (", falling linearly to zero" if falls else "")
        return State(theta, memory=_Memory(updates, states), note=note)

    def _rows_of_a_lane(self, source: Source) -> int:
        """Return the most rows that a lane learns from in an epoch."""
        group_rows = self.mixing * source.leaf_rows
        groups = -(-source.n_leaves // self.mixing)
        taken = [0] * self.lanes
        for cuts in rounds(groups, group_rows * source.row_bytes, self.lanes):
            for lane, (start, stop) in enumerate(cuts):
                taken[lane] += stop - start
        return min(source.n_rows, max(taken) * group_rows)

    def first_rate(self, problem: LinearProblem, stream: Stream) -> float:
        """Return the learning rate of the first update; the automatic one looks at a sample."""
        if not isinstance(self.learning_rate, str):
            return float(self.learning_rate)
        if self.rule == "adam":
            return _ADAM_RATE * min(self.batch_size, _ADAM_LARGEST)
        return automatic_rate(problem, stream, self.batch_size)

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
        before = [lane | {"sums": np.zeros(2)} for lane in memory.states]
        after = stream.scan(
            memory.updates, before, seed=self.seed, epoch=state.n_iter, mixing=self.mixing
        )
        total, weight = np.sum([lane["sums"] for lane in after], axis=0)
        loss = float(total / weight)
        self._raise_if_diverged(loss, memory)
        stale = 0 if loss <= memory.best - self.tol else memory.stale + 1
        return State(
            theta=after[0]["theta"],
            n_iter=state.n_iter + 1,
            updates=sum(int(lane["counters"][1]) for lane in after),
            loss=loss,
            converged=stale >= _PATIENCE,
            memory=replace(memory, states=after, best=min(loss, memory.best), stale=stale),
            note=f"no epoch of the last {stale} lowered the loss by {self.tol:g}"
            if stale >= _PATIENCE
            else "",
        )

    def _step_by_all_rows(self, problem: LinearProblem, stream: Stream, state: State) -> State:
        """Return the state after one more pass, which evaluates the point that the step led to."""
        memory: _Memory = state.memory
        lanes, n_iter = memory.states, state.n_iter
        if memory.gradient is not None:
            lanes, n_iter = [self._descend(memory, memory.gradient, n_iter)], n_iter + 1
        theta = lanes[0]["theta"]
        sums = stream.reduce(problem.sums(theta[None]))
        now = problem.evaluation(sums, theta[None])
        self._raise_if_diverged(now.loss, memory)
        gradient = now.gradient / problem.total_weight
        norm = float(np.abs(gradient).max())
        best = min(now.loss, memory.best)
        return State(
            theta=theta,
            n_iter=n_iter,
            updates=n_iter,
            loss=now.loss,
            gradient_norm=norm,
            converged=norm <= self.tol,
            memory=replace(memory, states=lanes, best=best, gradient=gradient),
        )

    @staticmethod
    def _descend(memory: _Memory, gradient: Array, t: int) -> Sums:
        """Return the state after one step, as the compiled scan takes them batch by batch."""
        (before,) = memory.states
        updates, theta = memory.updates, before["theta"]
        eta = updates.rate(t)
        if updates.rule == "sgd":
            return before | {"theta": theta - eta * gradient}
        first, second = before["slots"]
        first = first + (1.0 - BETA1) * (gradient - first)
        second = second + (1.0 - BETA2) * (gradient**2 - second)
        mean = first / (1.0 - BETA1 ** (t + 1))
        deviation = np.sqrt(second / (1.0 - BETA2 ** (t + 1)))
        theta = theta - eta * mean / (deviation + EPSILON)
        return before | {"theta": theta, "slots": np.stack([first, second])}

    def works(self, problem: LinearProblem) -> tuple[Work, ...]:
        """Return the largest of each kind of sums that reduce passes add up."""
        sums = problem.sums(problem.zeros()[None])
        return (sums, GramSums(problem.scaling)) if problem.n_features <= _WIDEST else (sums,)

    @staticmethod
    def _raise_if_diverged(loss: float, memory: _Memory) -> None:
        if not np.isfinite(loss) or loss > 1e3 * memory.best + 1e3:
            raise Diverged(
                f"the loss went from {memory.best:.4g} to {loss:.4g}: the learning rate of "
                f'{memory.updates.eta0:.3g} is too large; use learning_rate="auto" or a smaller one'
            )


def automatic_rate(problem: LinearProblem, stream: Stream, batch_size: int) -> float:
    """Return the learning rate "auto" of gradient descent on batches, from a sample of the rows."""
    source, features = stream.source, problem.n_features
    leaves = sample_leaves(source, min(_SAMPLE_ROWS, _SAMPLE_LEAVES * source.leaf_rows))
    if features <= _WIDEST:
        gram = stream.reduce(GramSums(problem.scaling, 0, problem.class_weight), leaves)
        weight = float(gram["gram"][-1, -1])
        moments = gram["gram"] / weight
        spread_of_weights = float(gram["rows"] * gram["squared_weight"]) / weight**2
        if not problem.fit_intercept:
            moments = moments[:-1, :-1]
        square = float(np.trace(moments)) * spread_of_weights
        largest = float(np.linalg.eigvalsh(moments)[-1])
    else:
        square = largest = features + 1.0
    curvature = problem.loss.curvature * (square + (batch_size - 1) * largest)
    penalty = float(problem.penalty.max()) / problem.total_weight
    return batch_size / (curvature + batch_size * penalty)
