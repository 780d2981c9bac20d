"""The same kernels in plain NumPy: the reference of compiled kernels, and their replacement.

Each function takes a kernel's arguments, hyperparameters included. It gives the same results up to
rounding, but slowly: each batch takes several calls of NumPy.
"""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from ooc_train.core.packing import add_packed
from ooc_train.core.sums import Array
from ooc_train.kernels.layout import (
    AGE,
    AVERAGED,
    EACH,
    INV_SCALE,
    L1,
    L2,
    MEAN,
    OUTPUTS,
    PARTIAL,
    THETA,
    WEIGHT,
    Integers,
    Rows,
    W,
)
from ooc_train.kernels.plain_clipping import add_clipped, network_clipped
from ooc_train.kernels.plain_networks import (
    loss_slopes,
    network_backward,
    network_batch,
    network_forward,
    network_step,
)
from ooc_train.kernels.plain_parts import (
    PIECE_ROWS,
    loss_of,
    optimizer_of,
    value_and_slope,
)
from ooc_train.kernels.specs import KernelSpec
from ooc_train.objective.penalty import soft_threshold
from ooc_train.optimizers.averaging import add_to_average


def _predictor(X: Rows, coef: Array, b: Array, Z: Array) -> None:
    for first in range(0, len(X), PIECE_ROWS):
        rows = slice(first, first + PIECE_ROWS)
        Z[rows] = X[rows].astype(np.float64) @ coef.T + b


def _add_rows(
    spec: KernelSpec,
    X: Rows,
    y: Array,
    weight: Array,
    coef: Array,
    b: Array,
    Z: Array,
    R: Array,
    G: Array,
    sums: Array,
    cells: Array,
    own: Array,
    *numbers: float,
) -> float:
    del Z
    loss, outputs = loss_of(spec, numbers), cells.shape[1]
    for first in range(0, len(X), PIECE_ROWS):
        rows = slice(first, first + PIECE_ROWS)
        part = X[rows].astype(np.float64)
        part_weight = weight[rows] if len(weight) else np.ones(len(part))
        z = part @ coef.T + b
        for m in range(len(sums)):
            mine = slice(m * outputs, (m + 1) * outputs)
            value, slope = value_and_slope(loss, y[rows], z[:, mine], own)
            sums[m] += part_weight @ value.reshape(len(part), -1).sum(axis=1)
            if mine.start < R.shape[1]:
                r = part_weight[:, None] * slope
                G[mine, :-1] += r.T @ part
                G[mine, -1] += r.sum(axis=0)
    return float(sums.sum())


def _add_outer_products(
    X: Rows, y: Array, c: Array, mean: Array, inv_scale: Array, T: Array, W: Array, sums: Array
) -> None:
    del T, W
    used = np.flatnonzero(c)
    for first in range(0, len(used), PIECE_ROWS):
        rows = used[first : first + PIECE_ROWS]
        scaled = (X[rows] - mean) * inv_scale
        scaled = np.concatenate([scaled, np.ones((len(scaled), 1)), y[rows]], axis=1)
        add_packed(sums, (scaled * c[rows, None]).T @ scaled)


def _shuffle(seed: int, order: Integers) -> None:
    mask, state = 2**64 - 1, seed
    found = list(range(len(order)))
    for i in range(len(order) - 1, 0, -1):
        state = (state + 0x9E3779B97F4A7C15) & mask
        word = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
        word ^= word >> 31
        j = ((word >> 31) * (i + 1)) >> 33
        found[i], found[j] = found[j], found[i]
    order[:] = found


def _scan(spec: KernelSpec, *arguments: Any) -> int:
    names = [parameter.name for parameter in spec.signature.parameters]
    of = SimpleNamespace(**dict(zip(names, arguments, strict=False)))
    numbers = arguments[len(names) :]
    loss = loss_of(spec, numbers)
    return _Updates(of, loss, optimizer_of(spec, numbers), l1=spec.l1).run()


class _Updates:
    """Updates by the arguments of a scan; without an optimizer, those of gradient descent."""

    def __init__(self, of: Any, loss: Any, optimizer: Any, *, l1: bool) -> None:
        self.of, self.loss, self.optimizer, self.l1 = of, loss, optimizer, l1
        self.features = of.X.shape[1]
        outputs = OUTPUTS + EACH * len(of.theta)
        self.theta = of.room[OUTPUTS + THETA : outputs : EACH, : self.features]
        self.partial = of.room[OUTPUTS + PARTIAL : outputs : EACH, : self.features]
        # Gradients by the intercepts. A kernel for whole batches keeps none for later calls.
        whole = optimizer is None
        self.constant = np.zeros(len(of.theta)) if whole else of.partial[:, -1]

    def run(self) -> int:
        """Return -1, or the position of the first row whose predictor or slope isn't finite."""
        of, taken = self.of, 0
        counters, room = of.counters, of.room
        stop, stopped = len(of.order), False
        while taken < stop and not stopped:
            rows = of.order[taken : taken + of.batch_size - int(counters[0])]
            good = self._add(rows)
            stopped = good < len(rows)
            if stopped and self.optimizer is None:
                break  # whole batches alone
            taken += good
            counters[0] += good
            counters[2] += good
            if counters[0] == of.batch_size:
                self._step()
        if not stopped and getattr(of, "flush", False) and counters[0]:
            self._step()
        coef = self.theta * room[INV_SCALE, : self.features]
        room[OUTPUTS + W : OUTPUTS + EACH * len(of.theta) : EACH, : self.features] = coef
        return taken if stopped else -1

    def _add(self, rows: Integers) -> int:
        """Add the gradients of rows, up to the first that isn't finite; return how many."""
        of, n = self.of, self.features
        with np.errstate(all="ignore"):
            scaled = (of.X[rows] - of.room[MEAN, :n]) * of.room[INV_SCALE, :n]
            z = scaled @ self.theta.T + of.theta[:, n]
            value, slope = value_and_slope(self.loss, of.y[rows], z, of.own)
            w = of.weight[rows] if len(of.weight) else np.ones(len(rows))
            r = w[:, None] * slope
            finite = np.isfinite(z.sum(axis=1) + r.sum(axis=1))
        good = len(rows) if finite.all() else int(np.argmin(finite))
        if good < len(rows) and self.optimizer is None:
            return good
        of.sums += w[:good] @ value[:good].reshape(good, -1).sum(axis=1), w[:good].sum()
        if self.optimizer is None or self.optimizer.slot_powers:
            of.clock[WEIGHT] += w[:good].sum()
        # Of raw rows: the step applies means and scales.
        self.partial += r[:good].T @ of.X[rows[:good]].astype(np.float64)
        self.constant += r[:good].sum(axis=0)
        return good

    def _step(self) -> None:
        of, n, filled = self.of, self.features, int(self.of.counters[0])
        part = filled / of.batch_size
        slots = 0 if self.optimizer is None else len(self.optimizer.slot_powers)
        constant = self.constant
        if slots == 0 or of.clock[WEIGHT] > 0.0:
            rate = of.rates[int(of.counters[1]) % len(of.rates)]
            of.counters[1] += 1
            of.clock[AGE] += part if slots else 0.0
            mean, inv_scale = of.room[MEAN, :n], of.room[INV_SCALE, :n]
            g = (self.partial - constant[:, None] * mean) * inv_scale / filled
            g += of.room[L2, :n] * self.theta
            g = np.concatenate([g, constant[:, None] / filled], axis=1)
            self._move(g, part * float(rate), part)
            if of.counters[1] % of.every == 0:
                of.clock[AVERAGED] += 1.0
                entries = float(of.clock[AVERAGED])
                add_to_average(of.average[:, :n], self.theta, entries)
                add_to_average(of.average[:, n], of.theta[:, n], entries)
        self.partial[...] = 0.0
        constant[...] = 0.0
        of.counters[0] = 0
        of.clock[WEIGHT] = 0.0

    def _move(self, g: Array, eta: float, part: float) -> None:
        """Move parameters and slots by the optimizer, and shrink the weights."""
        of, n = self.of, self.features
        theta = np.concatenate([self.theta, of.theta[:, n:]], axis=1)
        if self.optimizer is None:
            moved, slots, rate = theta - eta * g, [], eta
        else:
            if not of.fit_intercept:
                g[:, n] = 0.0
            g = self.optimizer.clipped(g)
            scalars = self.optimizer.prepare(float(of.clock[AGE]), part)
            theta[:, :n] *= self.optimizer.retained(eta)
            moved, *slots = self.optimizer.step(theta, g, eta, scalars, *of.slots)
            rate = self.optimizer.proximal_rate(eta, scalars, *(slot[:, :n] for slot in slots))
        free = n + 1 if of.fit_intercept else n
        for i, slot in enumerate(slots):
            of.slots[i, :, :free] = slot[:, :free]
        weights = moved[:, :n]
        if self.l1:
            weights = soft_threshold(weights, rate * of.room[L1, :n])
        self.theta[...] = weights
        if of.fit_intercept:
            of.theta[:, n] = moved[:, n]


PLAIN: dict[str, Callable[[KernelSpec], Callable[..., Any]]] = {
    "predictor": lambda spec: _predictor,  # noqa: ARG005
    "add_rows": lambda spec: partial(_add_rows, spec),
    "add_clipped": lambda spec: partial(add_clipped, spec),
    "add_outer_products": lambda spec: _add_outer_products,  # noqa: ARG005
    "scan_groups": lambda spec: partial(_scan, spec),
    "scan_single": lambda spec: partial(_scan, spec),
    "scan_unrolled": lambda spec: partial(_scan, spec),
    "loss_slopes": lambda spec: partial(loss_slopes, spec),
    "network_backward": lambda spec: partial(network_backward, spec),
    "network_clipped": lambda spec: partial(network_clipped, spec),
    "network_batch": lambda spec: partial(network_batch, spec),
    "network_forward": lambda spec: partial(network_forward, spec),
    "network_step": lambda spec: partial(network_step, spec),
    "shuffle": lambda spec: _shuffle,  # noqa: ARG005
}
"""Functions that return the plain function of a kernel."""
