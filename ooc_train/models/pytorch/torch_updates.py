"""Updates of a module by batches of rows: steps of an optimizer of PyTorch.

A batch of up to 4,096 rows goes through the module as one. So the rows of a batch that is not
complete at the end of a task are part of the state.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ooc_train.augmentation.augmenter import Augmentations, Augmenter
from ooc_train.core.sums import (
    Array,
    Arrays,
    ArraySpec,
    Block,
    Sums,
    Workspace,
    raise_if_not_finite,
    weighted,
)
from ooc_train.core.text import counted
from ooc_train.errors import Diverged
from ooc_train.kernels.layout import AVERAGED
from ooc_train.models.gradient_updates import BlockGradient, GradientUpdates, mask_key
from ooc_train.models.pytorch.torch_network import Network, drawing, network_of
from ooc_train.models.pytorch.torch_optimizer import (
    averaged_names,
    empty_state,
    load_state,
    make_optimizer,
    save_state,
    scheduler_of,
)
from ooc_train.models.pytorch.torch_settings import NetworkSpec
from ooc_train.optimizers.averaging import average_every, average_replicas, average_share
from ooc_train.optimizers.rate_table import RateTable

_MOST_ROWS = 4096
"""Rows of a batch that go through the module at a time."""

_AVERAGE_ROWS = 256
"""Smaller batches are averaged once for about so many rows."""


class ModuleGradient(BlockGradient, Protocol):
    """What updates of a module need of its problem."""

    @property
    def spec(self) -> NetworkSpec:
        """The module and its criterion."""

    @property
    def size(self) -> int:
        """Length of the vector of parameters and buffers."""

    @property
    def fixed_bytes(self) -> int:
        """Bytes that a forward and backward pass allocates, whatever its rows."""

    @property
    def row_bytes(self) -> int:
        """Bytes that a forward and backward pass allocates for each row."""

    @property
    def n_features(self) -> int:
        """Number of columns of the data."""

    @property
    def augmentations(self) -> Augmentations | None:
        """How updates change rows at random; None if they do not."""

    @property
    def columns(self) -> NDArray[np.intp] | None:
        """The place in the data of each column of the module; None for the data's order."""


@dataclass(frozen=True, eq=False)
class TorchUpdates(GradientUpdates):
    """Updates of the parameters of a module by an optimizer of PyTorch.

    Attributes
    ----------
    dtype : str
        Type of X, "<f4" or "<f8".
    """

    problem: ModuleGradient
    dtype: str = "<f8"

    def start(self, params: Array) -> Sums:
        """Return the state of a replica before its first row."""
        state = super().start(params)
        # The optimizer's own state takes the place of slots.
        state["slots"] = np.empty((0, *params.shape))
        augmentations = self.problem.augmentations
        return {
            **state,
            **empty_state(),
            **self._nothing(),
            **(augmentations.start(self.dtype) if augmentations is not None else {}),
            "epochs": np.zeros(1, np.int64),
            "own rate": np.array([self.eta0]),
            "key": np.array([mask_key(params)]),
        }

    def _nothing(self) -> Sums:
        """Return the part of the state that holds rows of an incomplete batch: none."""
        return {
            "waiting X": np.empty((0, self.problem.n_features), self.dtype),
            "waiting y": np.empty((0, 1)),
            "waiting weight": np.empty(0),
        }

    @property
    def _piece(self) -> int:
        """Largest number of rows that go through the module at a time."""
        return min(self.batch_size, _MOST_ROWS)

    def workspace(self, rows: int) -> Workspace:
        """Return the array for the rows of a batch, as a spec."""
        del rows
        specs = {"rows": ArraySpec((self._piece, self.problem.n_features), self.dtype)}
        if self.problem.augmentations is not None:
            specs |= self.problem.augmentations.workspace(self._piece, self.dtype)
        return specs

    def made_bytes(self, rows: int) -> int:
        """Return the bytes of a network, its optimizer, a batch's pass, and waiting rows."""
        del rows
        problem = self.problem
        values = 8 * problem.size * (4 + 2 * len(self.optimizer.slot_powers))
        row = problem.row_bytes + 16 * problem.n_features
        made = values + problem.fixed_bytes + self._piece * row
        if problem.augmentations is not None:
            made += problem.augmentations.made_bytes(self._piece, self.dtype)
        return made

    @contextmanager
    def learner(
        self, state: Sums, workspace: Arrays, threads: int = 1
    ) -> Iterator[Callable[[Block, NDArray[np.int64]], None]]:
        """Return a context whose function updates `state` by rows of a block, in given order.

        The function raises `NonFiniteData` if a row holds NaN or infinity, and `Diverged` if a loss
        is not finite though the data are.
        """
        del threads  # PyTorch has threads of its own
        learner = _Learner(self, state, workspace)
        yield learner.learn
        learner.close()

    def finish(self, state: Sums, workspace: Arrays) -> None:
        """Update the parameters by the incomplete last batch, and change the learning rate."""
        if state["counters"][0]:
            learner = _Learner(self, state, workspace)
            learner.finish()
            learner.close()
        if self.problem.augmentations is not None:
            self.problem.augmentations.end_epoch(state)
        else:
            state["epochs"] += 1

    def step_by_all_rows(self, state: Sums, gradient: Array) -> Sums:
        """Return the state after a step by the gradient of the mean objective of all rows."""
        after = {name: array.copy() for name, array in state.items()}
        learner = _Learner(self, after, {"rows": np.empty((0, self.problem.n_features))})
        learner.network.set_gradient(gradient)
        learner.step(1.0)
        learner.close()
        after["counters"][2] += self.problem.n_rows
        after["epochs"] += 1
        return after

    def average(self, before: Sequence[Sums], after: Sequence[Sums]) -> None:
        """Replace the states of replicas by their mean, in place."""
        kept = averaged_names(after[0])
        alike = all(averaged_names(state) == kept for state in after)
        average_replicas(before, after, ("theta", "average", *(kept if alike else ())))


class _Learner:
    """A learner with a network and an optimizer, which loads a state, updates it and saves it."""

    def __init__(self, updates: TorchUpdates, state: Sums, workspace: Arrays) -> None:
        problem = updates.problem
        model = problem.spec.model
        self._updates, self._problem, self._state = updates, problem, state
        self.network: Network = network_of(problem.spec, training=True)
        with torch.no_grad():
            self.network.load(state["theta"])
        self._optimizer = make_optimizer(model, self.network.learned, updates.eta0)
        load_state(self._optimizer, state)
        if model.scheduler is not None:
            scheduler_of(model, self._optimizer, int(state["epochs"][0]))
        self._has_scheduler = model.scheduler is not None
        self._groups = [(group, float(group["lr"])) for group in self._optimizer.param_groups]
        self._rates = RateTable(lambda t: updates.schedule.rate(t, updates.eta0, updates.horizon))
        self._counters, self._rows = state["counters"], workspace["rows"]
        self._every = average_every(updates.batch_size, _AVERAGE_ROWS)
        self._mean_weight = problem.total_weight / problem.n_rows
        self._key = int(state["key"][0])
        self._augmenter = None
        if problem.augmentations is not None:
            unit = problem.spec.unit
            self._augmenter = Augmenter(problem.augmentations, workspace, state, unit)
        waiting = len(state["waiting X"])
        if self._counters[0] > waiting:
            self.network.set_gradient(state["partial"])
        self._y: list[Array] = [state["waiting y"]] if waiting else []
        self._weight: list[Array] = (
            [state["waiting weight"]] if len(state["waiting weight"]) else []
        )
        self._rows[:waiting] = state["waiting X"]
        self._n_waiting = waiting

    def learn(self, block: Block, order: NDArray[np.int64]) -> None:
        """Update the parameters by the rows `order` of a block."""
        if block.y is None:
            raise ValueError("a loss needs y, and these data have none")
        block = weighted(block, self._problem.class_weight)
        start, size = 0, self._updates.batch_size
        while start < len(order):
            room = min(len(self._rows) - self._n_waiting, size - int(self._counters[0]))
            rows = order[start : start + room]
            self._take(block, rows)
            start += len(rows)
            complete = self._counters[0] == size
            if complete or self._n_waiting == len(self._rows):
                self._add_gradient()
            if complete:
                self.step(1.0)

    def _take(self, block: Block, rows: NDArray[np.int64]) -> None:
        """Copy rows of a block to the waiting rows, those whose gradient is not computed yet."""
        taken = self._rows[self._n_waiting : self._n_waiting + len(rows)]
        # Any mode but "raise" lets take write straight into `out`.
        np.take(block.X, rows, axis=0, out=taken, mode="clip")
        y: Array = block.y[rows]  # type: ignore[index]
        # A sum takes less time than a test of each number, and is finite with finite rows.
        with np.errstate(over="ignore", invalid="ignore"):
            if not math.isfinite(float(taken.sum()) + float(y.sum())):
                raise_if_not_finite(block)
        weight = None if block.weight is None else block.weight[rows]
        if self._augmenter is not None:
            numbers = block.row_numbers(rows)
            self._augmenter.augment(taken, numbers)
            y, weight = self._augmenter.mix(taken, y, weight, numbers)
        self._y.append(y)
        if weight is not None:
            self._weight.append(weight)
        self._n_waiting += len(rows)
        self._counters[0] += len(rows)
        self._counters[2] += len(rows)

    def _add_gradient(self) -> None:
        """Add the gradient of the waiting rows to the gradient of the batch."""
        X = self._rows[: self._n_waiting]
        if self._problem.columns is not None:
            X = X[:, self._problem.columns]
        y = self._y[0] if len(self._y) == 1 else np.concatenate(self._y)
        weight = None
        if self._weight:
            weight = self._weight[0] if len(self._weight) == 1 else np.concatenate(self._weight)
        # Dropout and the like are those of this update, wherever it is computed.
        with drawing((self._key << 31) + int(self._counters[2]), self.network.device):
            total = self.network.loss_sum(X, y, weight)
        scale = 1.0 / (self._updates.batch_size * self._mean_weight)
        (total * scale).backward()
        loss = float(total.detach())
        if not math.isfinite(loss):
            raise Diverged(
                f"a loss is no number after {counted(self._counters[1], 'update')}, but the data "
                "are "
                f"finite: the learning rate of {self._updates.eta0:.3g} is too large, or the "
                "module takes a logarithm or root of numbers that have none; use a smaller rate, "
                "or scale the columns"
            )
        self._state["sums"] += loss, self._n_waiting if weight is None else float(weight.sum())
        self._y, self._weight, self._n_waiting = [], [], 0

    def finish(self) -> None:
        """Update the parameters by an incomplete batch, in proportion to its rows."""
        rows = int(self._counters[0])
        if not rows:
            return
        if self._n_waiting:
            self._add_gradient()
        part = rows / self._updates.batch_size
        for param in self.network.learned:
            if param.grad is not None:
                param.grad /= part
        self.step(part)

    def step(self, part: float) -> None:
        """Update the parameters by a batch's complete gradient, at `part` of the learning rate."""
        t, state = int(self._counters[1]), self._state
        ratio = part
        if not self._has_scheduler:
            self._rates.cover(t, 1)
            ratio *= float(self._rates.rates[t % len(self._rates.rates)]) / self._updates.eta0
        for group, rate in self._groups:
            group["lr"] = rate * ratio
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._counters[0] = 0
        self._counters[1] += 1
        state["own rate"][0] = self._groups[0][1] * ratio / part
        if self._problem.spec.model.average and self._counters[1] % self._every == 0:
            state["clock"][AVERAGED] += 1.0
            share = average_share(float(state["clock"][AVERAGED]))
            self.network.store(state["theta"])
            state["average"] += share * (state["theta"] - state["average"])

    def close(self) -> None:
        """Copy parameters, the optimizer's state and waiting rows into the state."""
        state, partial = self._state, self._state["partial"]
        self.network.store(state["theta"])
        if not np.isfinite(state["theta"]).all():
            raise Diverged(
                f"a parameter is no finite number after {counted(self._counters[1], 'update')}; "
                "use a "
                "smaller learning rate"
            )
        partial[...] = 0.0
        self.network.gradient(partial)
        save_state(self._optimizer, state)
        state |= self._updates._nothing()  # noqa: SLF001 (of this file)
        if self._n_waiting:
            state["waiting X"] = self._rows[: self._n_waiting].copy()
            state["waiting y"] = np.concatenate(self._y)
            if self._weight:
                state["waiting weight"] = np.concatenate(self._weight)
        if not self._problem.spec.model.average or not state["clock"][AVERAGED]:
            state["average"][...] = state["theta"]
