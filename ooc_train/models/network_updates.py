"""Updates of a network by batches of rows.

The products of a batch have the type of X. So have parameters, slots and gradients while rows are
taken: they are in arrays of the workspace from the beginning of a task to its end, when they are
copied into the state.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.augmentation.augmenter import Augmenter, halves
from ooc_train.core.sums import (
    Array,
    Arrays,
    ArraySpec,
    Block,
    Sums,
    Workspace,
    weighted,
)
from ooc_train.core.text import counted
from ooc_train.core.thread_team import ThreadTeam
from ooc_train.errors import Diverged
from ooc_train.kernels.api import network_batch_needs, network_step, network_step_needs
from ooc_train.kernels.layout import AGE, AVERAGED
from ooc_train.kernels.specs import KernelSpec
from ooc_train.models.gradient_updates import GradientUpdates, mask_key
from ooc_train.models.loss_sums import NO_WEIGHTS
from ooc_train.models.network import Propagation, RowScaling
from ooc_train.models.network_batch import BatchCall
from ooc_train.models.network_dropout import DropoutMasks, mask_workspace
from ooc_train.models.network_gradient import NetworkGradient
from ooc_train.optimizers.averaging import average_every, average_share
from ooc_train.optimizers.optimizer import clip_factor
from ooc_train.optimizers.rate_table import RateTable

_AVERAGE_ROWS = 256
"""Smaller batches are averaged once for about so many rows: an entry of the average costs a third
of a step."""

_MOST_ROWS = 4096
"""Rows of a batch that go through the layers at a time."""

_SHARES, _SHARE_ROWS = 4, 128
"""Most shares of the rows of a batch, which threads may take, and rows of each at least. The size
of the batch alone decides where rows are cut, so the number of threads changes no bit. Products of
128 rows reach the full speed of BLAS, and an update of them takes ten times as long as its way to
another thread."""

_PART_PARAMETERS = 2**17
"""Parameters of a step that are worth a thread."""

_OF_EACH_SHARE = ("gradient", "cells")
"""Arrays of the workspace that each share has one of; the others have rows, or are of all."""

_KEPT = (("params", "theta"), ("partial", "partial"), ("slots", "slots"))
"""Arrays of the workspace, and those of the state that they are copied from and to."""


def _shares(rows: int) -> int:
    """Return the number of shares that `rows` rows of a batch are cut into."""
    return max(1, min(_SHARES, rows // _SHARE_ROWS))


@dataclass(frozen=True, eq=False)
class NetworkUpdates(GradientUpdates):
    """Updates of the parameters of a network by batches of rows.

    Attributes
    ----------
    dtype : str
        Type of X, "<f4" or "<f8".
    """

    problem: NetworkGradient
    dtype: str = "<f8"

    def start(self, params: Array) -> Sums:
        """Return the state of a replica before its first row."""
        state = super().start(params)
        if self.problem.dropout:
            state["mask key"] = np.array([mask_key(params)])
        if self.problem.augmentations is not None:
            state |= self.problem.augmentations.start(self.dtype)
        return state

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays of a learner, as specs, for blocks of at most `rows` rows."""
        layers, piece = self.problem.layers, min(rows, self.batch_size, _MOST_ROWS)
        flat = ArraySpec((layers.n_parameters,), self.dtype)
        specs = layers.workspace(piece, self.dtype, gradients=True)
        for name in _OF_EACH_SHARE:
            of_one, shares = specs[name], _shares(piece)
            specs[name] = ArraySpec((shares, *of_one.shape), of_one.dtype)
        if self.problem.dropout:
            specs |= mask_workspace(layers, piece, self.dtype)
        if self.problem.augmentations is not None:
            specs |= self.problem.augmentations.workspace(piece, self.dtype)
            if self.problem.augmentations.mixup is not None:
                specs["slopes before"] = ArraySpec((piece, layers.sizes[-1]))
        specs["rows"] = ArraySpec((piece, layers.sizes[0]), self.dtype)
        specs["targets"] = ArraySpec((piece, layers.sizes[-1]))
        specs["row weights"] = ArraySpec((piece,))
        specs["partial"] = flat
        specs["slots"] = ArraySpec((len(self.optimizer.slot_powers), 1, *flat.shape), self.dtype)
        return specs

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that a learner allocates beside its workspace."""
        piece = min(rows, self.batch_size, _MOST_ROWS)
        made = self.problem.layers.made_bytes(piece)
        if self.problem.augmentations is not None:
            made += self.problem.augmentations.made_bytes(piece, self.dtype)
        return made + 8 * self.problem.n_frozen

    @property
    def needs(self) -> tuple[KernelSpec, ...]:
        """Kernels that every process loads before memory is measured."""
        needs = *self.problem.needs, *network_step_needs(self.optimizer)
        if not self.in_one_call:
            return needs
        return *needs, *network_batch_needs(self.problem.loss, self.problem.layers.activation)

    @property
    def in_one_call(self) -> bool:
        """Whether one kernel makes all of a batch but its step: nothing is drawn for it."""
        drawn = self.problem.dropout or self.problem.augmentations is not None
        return not drawn and self.problem.loss.target != "distribution"

    @contextmanager
    def learner(
        self, state: Sums, workspace: Arrays, threads: int = 1
    ) -> Iterator[Callable[[Block, NDArray[np.int64]], None]]:
        """Return a context whose function updates `state` by rows of a block, in given order.

        The function raises `NonFiniteData` if a row of its batch holds NaN or infinity, before the
        update, and `Diverged` if a loss is not finite though the data are.
        """
        with ThreadTeam(threads) as team:
            learner = _Learner(self, state, workspace, team)
            yield learner.learn
            learner.close()

    def step_by_gradient(self, state: Sums, gradient: Array, eta: float) -> None:
        """Update `state` by the gradient of a mean objective at a learning rate, in place."""
        before = {"theta": state["theta"][: self.problem.n_frozen].copy()}
        super().step_by_gradient(state, gradient, eta)
        self._with_frozen(before, state)

    def average(self, before: Sequence[Sums], after: Sequence[Sums]) -> None:
        """Replace the states of replicas by their mean, in place."""
        super().average(before, after)
        for state in after:
            self._with_frozen(before[0], state)

    def _with_frozen(self, before: Sums, after: Sums) -> Sums:
        """Return a state with the frozen parameters of the state before, to the same bits."""
        n = self.problem.n_frozen
        for name in ("theta", "average"):
            after[name][:n] = before["theta"][:n]
        return after

    def finish(self, state: Sums, workspace: Arrays) -> None:
        """Update the parameters by the incomplete last batch, in proportion to its rows."""
        if state["counters"][0]:
            learner = _Learner(self, state, workspace, ThreadTeam(1))
            learner.step()
            learner.close()
        if self.problem.augmentations is not None:
            self.problem.augmentations.end_epoch(state)


def _of_share(workspace: Arrays, share: int, rows: int) -> Arrays:
    """Return the arrays that a share works in: its own ones, its rows, and those of all."""
    arrays = {}
    for name, array in workspace.items():
        if name in _OF_EACH_SHARE:
            arrays[name] = array[share]
        elif name in ("params", "partial", "slots"):
            arrays[name] = array
        else:
            arrays[name] = array[share * rows : (share + 1) * rows]
    return arrays


def _take(block: Block, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Copy rows of a block."""
    # Any mode but "raise" lets take write straight into `out`.
    np.take(block.X, rows, axis=0, out=out, mode="clip")


class _Learner:
    """A learner in a workspace: it loads a state there, updates it, and copies it back."""

    def __init__(
        self, updates: NetworkUpdates, state: Sums, workspace: Arrays, team: ThreadTeam
    ) -> None:
        problem = updates.problem
        self._updates, self._problem, self._state, self._team = updates, problem, state, team
        self._workspace, self._counters = workspace, state["counters"]
        for name, array in _KEPT:
            workspace[name][...] = state[array].reshape(workspace[name].shape)
        self._params, self._partial = workspace["params"], workspace["partial"]
        self._frozen = state["theta"][: problem.n_frozen].copy()
        self._gradients, self._slots = workspace["gradient"], workspace["slots"]
        ends, n = problem.layers.ends, len(self._params)
        cuts = np.linspace(0, n, max(1, min(_SHARES, n // _PART_PARAMETERS)) + 1).astype(np.int64)
        self._parts = [ends.clip(a, b) for a, b in pairwise(cuts)]
        self._n_others = 0  # gradients of shares that the gradient of the batch lacks yet
        shares = len(self._gradients)
        self._share_rows = -(-len(workspace["rows"]) // shares)
        own = [_of_share(workspace, share, self._share_rows) for share in range(shares)]
        self._propagations = [Propagation(problem.layers, problem.loss, arrays) for arrays in own]
        self._masks: list[DropoutMasks] = []
        if problem.dropout:
            key, layers = int(state["mask key"][0]), problem.layers
            self._masks = [DropoutMasks(problem.dropout, layers, arrays, key) for arrays in own]
        self._scaled = RowScaling(problem.scaling, np.dtype(updates.dtype))
        self._calls: list[BatchCall] = []
        if updates.in_one_call:
            self._calls = [
                BatchCall(problem.layers, problem.loss, self._scaled, arrays) for arrays in own
            ]
        self._augmenter = None
        if problem.augmentations is not None:
            unit = 1.0 if problem.scaling is None else problem.scaling.scale
            self._augmenter = Augmenter(problem.augmentations, workspace, state, unit)
        self._rates = RateTable(lambda t: updates.schedule.rate(t, updates.eta0, updates.horizon))
        self._every = average_every(updates.batch_size, _AVERAGE_ROWS)
        self._mean_weight = problem.total_weight / problem.n_rows
        self._block: tuple[Any, Any] = None, None

    def learn(self, block: Block, order: NDArray[np.int64]) -> None:
        """Update the parameters by the rows `order` of a block."""
        if block.y is None:
            raise ValueError("a loss needs y, and these data have none")
        if self._block[0] is not block:  # a large block is learned from in pieces
            self._problem.require_targets(block)
            self._block = block, weighted(block, self._problem.class_weight)
        start, size, most = 0, self._updates.batch_size, len(self._workspace["rows"])
        while start < len(order):
            count = min(most, size - int(self._counters[0]))
            self._add(self._block[1], order[start : start + count])
            start += count
            if self._counters[0] == size:
                self.step()

    def _add(self, block: Block, rows: NDArray[np.int64]) -> None:
        """Add the gradient of some rows of a block to the gradient of the batch."""
        self._add_others()
        shares = -(-len(rows) // self._share_rows)
        # The first gradient of a batch needs no array of its own.
        begins = not self._counters[0]
        gradients = [*([self._partial] if begins else []), *self._gradients][:shares]
        add = self._called if self._calls else self._propagated
        losses, total = add(block, rows, gradients)
        loss = float(losses.sum())
        if not math.isfinite(loss):
            self._problem.raise_if_invalid(block)
            raise Diverged(
                f"a loss is no number after {counted(self._counters[1], 'update')}, but the data "
                "are "
                f"finite: the learning rate of {self._updates.eta0:.3g} is too large, or columns "
                "of large numbers are not scaled; use a smaller rate, standardize=True, or "
                "scale=1/255 for pixels"
            )
        self._n_others = len(gradients) - begins
        self._counters[[0, 2]] += len(rows)
        self._state["sums"] += loss, total

    def _called(
        self, block: Block, rows: NDArray[np.int64], gradients: Sequence[NDArray[Any]]
    ) -> tuple[Array, float]:
        """Write the gradients of shares by one call each; return their losses and the weight."""
        losses, y, weight = np.zeros(len(gradients)), np.asarray(block.y), block.weight
        block_of = block.X, y, NO_WEIGHTS if weight is None else weight

        def add_share(share: int) -> None:
            own = rows[share * self._share_rows : (share + 1) * self._share_rows]
            losses[share] = self._calls[share].gradient(*block_of, own, gradients[share])

        self._team.run(add_share, len(gradients))
        return losses, len(rows) if weight is None else float(weight[rows].sum())

    def _propagated(
        self, block: Block, rows: NDArray[np.int64], gradients: Sequence[NDArray[Any]]
    ) -> tuple[Array, float]:
        """Write the gradients of shares of drawn rows; return their losses and the weight."""
        taken = self._workspace["rows"][: len(rows)]
        y: Array = block.y[rows]  # type: ignore[index]
        weight = None if block.weight is None else block.weight[rows]
        if self._augmenter is not None:
            _take(block, rows, taken)
            numbers = block.row_numbers(rows)
            self._augmenter.augment(taken, numbers)
            y, weight = self._augmenter.mix(taken, y, weight, numbers)
        total = len(rows) if weight is None else float(weight.sum())
        second: tuple[Array, Array] | None = None
        if weight is not None and weight.ndim == 2:
            (y, weight), second = halves(y, weight)
        losses = np.zeros(len(gradients))

        def add_share(share: int) -> None:
            own = slice(share * self._share_rows, (share + 1) * self._share_rows)
            if self._augmenter is None:
                _take(block, rows[own], taken[own])
            if self._masks:
                first = int(self._counters[0]) + own.start
                self._masks[share].draw(int(self._counters[1]), first, len(rows[own]))
            losses[share] = self._propagations[share].gradient(
                self._scaled(taken[own], taken[own]),
                y[own],
                None if weight is None else weight[own],
                None if second is None else (second[0][own], second[1][own]),
                out=gradients[share],
            )

        self._team.run(add_share, len(gradients))
        return losses, total

    def _add_others(self) -> None:
        """Add the gradients of shares to that of the batch, in their order."""
        for gradient in self._gradients[: self._n_others]:
            self._partial += gradient
        self._n_others = 0

    def step(self) -> None:
        """Update the parameters by the gradient of the batch, which is complete."""
        updates, state, t = self._updates, self._state, int(self._counters[1])
        rows = int(self._counters[0])
        part = rows / updates.batch_size
        self._rates.cover(t, 1)
        eta = part * float(self._rates.rates[t % len(self._rates.rates)])
        state["clock"][AGE] += part
        scale = 1.0 / (rows * self._mean_weight)
        decay = self._problem.l2 / self._problem.total_weight
        n_frozen = len(self._frozen)
        if n_frozen or updates.optimizer.clip_norm:
            self._add_others()
            self._partial[:n_frozen] = 0.0
        if updates.optimizer.clip_norm:
            scale, decay = self._clipped(scale, decay), 0.0
        share = 0.0
        if self._problem.average and (t + 1) % self._every == 0:
            state["clock"][AVERAGED] += 1.0
            share = average_share(float(state["clock"][AVERAGED]))
        others, self._n_others = self._gradients[: self._n_others], 0
        self._team.run(
            lambda i: network_step(
                updates.optimizer,
                self._params,
                self._partial,
                others,
                self._slots,
                state["average"],
                self._parts[i],
                scale=scale,
                decay=decay,
                eta=eta,
                age=float(state["clock"][AGE]),
                part=part,
                share=share,
            ),
            len(self._parts),
        )
        self._params[:n_frozen] = self._frozen
        self._counters[0] = 0
        self._counters[1] += 1

    def _clipped(self, scale: float, decay: float) -> float:
        """Turn the gradient sum into the mean objective's gradient; return its clipping factor."""
        gradient, layers = self._partial, self._problem.layers
        gradient *= scale
        for (by_weights, _), (weights, _) in zip(
            layers.views(gradient), layers.views(self._params), strict=True
        ):
            by_weights += decay * weights
        square = float(np.einsum("i,i", gradient, gradient, dtype=np.float64))
        return float(clip_factor(self._updates.optimizer.clip_norm, square))

    def close(self) -> None:
        """Copy parameters, slots and the gradient of an unfinished batch into the state."""
        state = self._state
        self._add_others()
        for name, array in _KEPT:
            state[array][...] = self._workspace[name].reshape(state[array].shape)
        if not self._counters[0]:
            state["partial"][...] = 0.0
        if not self._problem.average or not state["clock"][AVERAGED]:
            state["average"][...] = state["theta"]
        for name in ("theta", "average"):
            # The workspace may be narrower than they are, and an average rounds.
            state[name][: len(self._frozen)] = self._frozen
