"""Parameters updated by rows, in batches of any size.

With ``t = (X[i] - mean) * inv_scale`` and ``z = theta[:, :-1] @ t + theta[:, -1]``, the gradient of
an update is the mean over the batch of ``weight * slope(y, z) * (t, 1)`` plus ``l2 * theta``. If
the optimizer has a `clip_norm`, a longer gradient is scaled down to it. If there is an l1 penalty,
a proximal step follows. The intercepts are not penalised.

Kernels process batches in groups of rows. Batches of at most four rows are unrolled by four, if the
optimizer is linear, no gradient is clipped and no proximal step follows. Single rows have a kernel
of their own if there is one output and the optimizer computes in vectors.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from ooc_train.core.sums import Array, Arrays
from ooc_train.kernels.calling import kernel_of
from ooc_train.kernels.layout import Integers, Rows, fill, leave
from ooc_train.kernels.specs import KernelSpec
from ooc_train.objective.loss import Loss
from ooc_train.optimizers.averaging import average_every
from ooc_train.optimizers.optimizer import Optimizer

_SHORT = 4
"""Rows of the largest batches that are unrolled by four."""

_FLUSH, _GO_ON = 1, 0


@dataclass(frozen=True, eq=False)
class Updating:
    """The settings of updates by batches: batch size, scaling and penalty.

    Attributes
    ----------
    dtype : dtype
        Type of X.
    batch_size : int
        Rows per update.
    mean, inv_scale : float64 array (features,)
        The scaling: means in the data's units, and inverse scales.
    l2, l1 : float64 array (features,)
        Penalty ``l2 / 2 * theta ** 2 + l1 |theta|``.
    fit_intercept : bool
        Whether the intercepts are updated.
    own : float64 array (outputs,)
        Factors of a row's weight in the output of its own class, see `kernels.api.add_rows`.
    """

    dtype: np.dtype[Any]
    loss: Loss
    optimizer: Optimizer
    batch_size: int
    mean: Array
    inv_scale: Array
    l2: Array
    l1: Array
    fit_intercept: bool
    own: Array


@dataclass(frozen=True, eq=False)
class ScanState:
    """The state of updates: arrays that are changed in place.

    Attributes
    ----------
    theta : float64 array (outputs, features + 1)
        Parameters of the scaled features, intercepts last.
    slots : float64 array (slots, outputs, features + 1)
        Arrays that the optimizer keeps from step to step, such as a velocity.
    partial : float64 array (outputs, features + 1)
        Sum of the gradients of an unfinished batch, with respect to unscaled parameters.
    counters : int64 array (3,)
        Rows in `partial`, updates so far, rows so far.
    average : float64 array (outputs, features + 1)
        Average of the parameters over updates, see `optimizers.averaging`.
    clock : float64 array (3,)
        Batches so far (`AGE`), entries of the average (`AVERAGED`), and the weight of the rows
        in `partial` (`WEIGHT`).
    sums : float64 array (2,)
        Progressive loss (of each row before its update) and weight, summed over rows.
    """

    theta: Array
    slots: Array
    partial: Array
    counters: Integers
    average: Array
    clock: Array
    sums: Array


@cache
def _specs(
    loss: Any, optimizer: Any, *, l1: bool, single: bool, batch_size: int, clipped: bool
) -> tuple[KernelSpec, ...]:
    groups = KernelSpec("scan_groups", loss, optimizer, l1, clipped=clipped)
    if batch_size > _SHORT or clipped:
        return (groups,)
    if l1 or not optimizer.linear:
        single &= batch_size == 1 and optimizer.in_vectors and loss.kind == "pointwise"
        return (replace(groups, kernel="scan_single", single=True) if single else groups,)
    # Several outputs need a loop, which a rowwise loss has in any case.
    return groups, KernelSpec("scan_unrolled", loss, single=single and loss.kind == "pointwise")


def scan_needs(
    loss: Loss, optimizer: Optimizer, batch_size: int, outputs: int, *, l1: bool
) -> tuple[KernelSpec, ...]:
    """Return the kernels that updates call: one for any rows, and perhaps an unrolled one."""
    kinds: tuple[Any, Any] = type(loss), type(optimizer)
    single, clipped = outputs == 1, bool(optimizer.clip_norm)
    # A larger size makes no difference, and no entry of its own in the cache.
    size = min(batch_size, _SHORT + 1)
    return _specs(*kinds, l1=l1, single=single, batch_size=size, clipped=clipped)


class Scan:
    """Updates parameters by rows: one update for each `batch_size` rows, across calls.

    The cuts between calls change no bit, with one exception. For batches that are unrolled by four,
    a call must begin at a multiple of four rows (three for batches of three). All calls of a pass
    over chunks do.

    The workspace holds parameters and the unfinished gradient from `__init__` to `close`, which
    copies them into the state.

    Parameters
    ----------
    rates : float64 array (n,), n a power of two
        Learning rates of the call, as `RateTable` holds them.
    workspace : arrays
        As `scan_workspace` describes them, for as many rows as a call has.
    """

    def __init__(
        self, updating: Updating, state: ScanState, rates: Array, workspace: Arrays
    ) -> None:
        self._state, self._workspace = state, workspace
        self._batch_size, self._dtype = updating.batch_size, updating.dtype
        loss, optimizer, size = updating.loss, updating.optimizer, updating.batch_size
        specs = scan_needs(loss, optimizer, size, len(state.theta), l1=bool(updating.l1.any()))
        scaling, penalty = (updating.mean, updating.inv_scale), (updating.l2, updating.l1)
        fill(workspace, state.theta, state.partial, *scaling, *penalty)
        of_loss = tuple(loss.hyperparameters.values())
        of_optimizer = tuple(optimizer.hyperparameters.values())
        room, each, group = (workspace[name] for name in ("room", "each", "group"))
        work = *workspace["pairs"], room, each, group
        settings = rates, size, average_every(size), updating.fit_intercept, updating.own
        # The fields of a state are in the order of the kernel's parameters.
        arrays = *vars(state).values(), *work, workspace["places"]
        self._groups = kernel_of(specs[0], updating.dtype).followed_by(
            *arrays, *settings, *of_loss, *of_optimizer
        )
        self._unrolled: Any = None
        if len(specs) > 1:
            arrays = state.theta, state.counters, state.average, state.clock, state.sums, *work
            self._unrolled = kernel_of(specs[1], updating.dtype).followed_by(
                *arrays, *settings, *of_loss
            )

    def __call__(self, X: Rows, y: Array, weight: Array, order: Integers) -> int:
        """Update the parameters by rows.

        Parameters
        ----------
        y : (rows, outputs) or (rows, 1) array
            Targets, or codes of the classes, see `Loss.targets`.
        weight : (rows,) array
            Factors of the rows' losses, of mean 1 over the data. Of length 0: every row weighs 1.
        order : (n,) array of int64
            Indices of the rows, in order. They are not checked.

        Returns
        -------
        int
            -1, or the position in `order` of the first row whose predictor or slope is not finite,
            or whose class is unknown. Then the state is as it was before that row.
        """
        if self._unrolled is None:
            stopped: int = self._groups(X, y, weight, order, _GO_ON)
            return stopped
        # First the rest of an unfinished batch, then whole batches, then an incomplete one.
        rows, size = len(order), self._batch_size
        begun = min(-int(self._state.counters[0]) % size, rows)
        whole = begun + (rows - begun) // size * size
        for first, last, run in (
            (0, begun, self._groups),
            (begun, whole, self._unrolled),
            (whole, rows, self._groups),
        ):
            if first == last:
                continue
            part = order[first:last]
            more = (_GO_ON,) if run is self._groups else ()
            stopped = run(X, y, weight, part, *more)
            if stopped >= 0 and run is self._unrolled:
                # Rows before the one that is not finite start a batch that stays unfinished.
                first += stopped
                stopped = self._groups(X, y, weight, order[first:last], _GO_ON)
            if stopped >= 0:
                return first + stopped
        return -1

    def flush(self) -> None:
        """Apply an unfinished batch, in proportion to its rows."""
        state = self._state
        X = np.empty((0, state.theta.shape[1] - 1), self._dtype)
        self._groups(X, np.empty((0, 1)), np.empty(0), np.empty(0, np.int64), _FLUSH)

    def close(self) -> None:
        """Copy parameters and the unfinished gradient from the workspace into the state."""
        leave(self._workspace, self._state.theta, self._state.partial)
