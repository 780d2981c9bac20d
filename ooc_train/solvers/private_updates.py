"""Differentially private updates as a solver: an epoch of sampled, clipped and noisy batches.

A pass reads groups of `shuffle_chunks` chunks, and each update samples its batch from one group. To
sample every batch from all rows would take a pass an update. So a row takes part in the updates of
its own group alone, with the probability of a batch's share of a group. Larger groups cost less
privacy; where one group holds all rows, this is the sampling of DP-SGD (Abadi et al. 2016).

Nothing but the noisy sums depends on the rows: columns have their own units, the start is zero or
random, the learning rate is given, and no loss of the training rows is computed.
"""

from dataclasses import dataclass, replace
from math import nan
from typing import Any, ClassVar

from ooc_train.core.partitions import Rows
from ooc_train.core.requests import Epoch, Request
from ooc_train.core.sums import Array
from ooc_train.core.text import counted
from ooc_train.models.clipped_updates import ClippedUpdates, updates_of
from ooc_train.models.problem import Capability
from ooc_train.optimizers.differential_privacy import DifferentiallyPrivate
from ooc_train.optimizers.schedule import Schedule
from ooc_train.optimizers.schedules import Constant
from ooc_train.solvers.base import Holdings, State
from ooc_train.solvers.privacy_budget import privacy_budget


@dataclass(frozen=True)
class PrivateUpdates:
    """The solver of differentially private updates.

    Attributes
    ----------
    private : DifferentiallyPrivate
        Noise, clipping, and the optimizer.
    batch_size : int
        Expected rows of an update.
    learning_rate : float
        The rate that the schedule scales.
    seed : int
        Seed of groups, batches and noise. Whoever knows it can take the noise away.
    shuffle_chunks : int
        Chunks of a group.
    schedule : Schedule or None
        How the learning rate changes; None for a constant rate.
    epochs : float
        Planned number of epochs, which schedules may follow.
    """

    private: DifferentiallyPrivate
    batch_size: int
    learning_rate: float
    seed: int
    shuffle_chunks: int = 1
    schedule: Schedule | None = None
    epochs: float = 1.0

    requires: ClassVar[frozenset[Capability]] = frozenset({"updates", "private"})

    @property
    def name(self) -> str:
        """The optimizer's name, and that it is private."""
        return f"private {self.private.steps_by.name}"

    def share(self, rows: Rows) -> float:
        """Return the probability that a row takes part in an update of its group.

        Raises
        ------
        ValueError
            If a batch has more rows than a group.
        """
        group = self._group_rows(rows)
        if self.batch_size > group:
            raise ValueError(
                f"batch_size={self.batch_size:,} is more than the {counted(group, 'row')} of "
                f"shuffle_chunks={self.shuffle_chunks} chunks, from which private batches are "
                "sampled; use a larger shuffle_chunks or smaller batches"
            )
        return self.batch_size / group

    def budget(self, rows: Rows, epochs: int) -> dict[str, Any]:
        """Return the privacy that so many epochs cost, see `privacy_budget`."""
        of_an_epoch = updates_of(self._group_rows(rows), self.batch_size)
        return privacy_budget(self.private, rows.n_rows, self.share(rows), epochs * of_an_epoch)

    def _group_rows(self, rows: Rows) -> int:
        return min(rows.n_rows, self.shuffle_chunks * rows.partition_rows)

    def _scan(self, problem: Any, rows: Rows) -> ClippedUpdates:
        private = self.private
        horizon = self.epochs * -(-rows.n_rows // self.batch_size)
        updates = problem.updates(
            rows.dtype,
            self.batch_size,
            private.steps_by,
            self.schedule or Constant(),
            self.learning_rate,
            horizon,
        )
        deviation = private.noise_multiplier * private.max_grad_norm
        return ClippedUpdates(
            problem,
            updates,
            rows.dtype,
            self.batch_size,
            self.share(rows),
            private.max_grad_norm,
            deviation,
            self.seed,
        )

    def holds(self, problem: Any, rows: Rows) -> Holdings:
        """Return the memory that requests and states need, for the plan."""
        # Before memory is measured: the accountant takes some 100 MiB.
        self.budget(rows, int(self.epochs))
        scan = self._scan(problem, rows)
        carried = 3 + len(self.private.steps_by.slot_powers)
        return Holdings((), 2 * carried + 8, 0, scan, carried, 1, self.shuffle_chunks)

    def init(self, problem: Any, rows: Rows, params: Array) -> State:
        """Return the initial state."""
        replicas = (self._scan(problem, rows).start(params),)
        note = f"learning rate {self.learning_rate:.4g}"
        memory = {"replicas": replicas}
        return State(params, rate=self.learning_rate, note=note, memory=memory)

    def ask(self, problem: Any, rows: Rows, state: State) -> Request:
        """Return the request for an epoch of updates."""
        scan, states = self._scan(problem, rows), list(state.memory["replicas"])
        return Epoch(scan, states, self.seed, state.n_iter, self.shuffle_chunks)

    def tell(self, problem: Any, rows: Rows, state: State, answer: Any) -> State:
        """Return the state after an epoch, without a loss: that of the rows is no one's to know."""
        (replica,) = answer
        updates = int(replica["counters"][1])
        return replace(
            state,
            params=replica["average" if getattr(problem, "average", True) else "theta"],
            n_iter=state.n_iter + 1,
            updates=updates,
            progressive_loss=nan,
            rate=self._scan(problem, rows).rate(max(0, updates - 1)),
            note="",
            memory={"replicas": (replica,)},
        )
