"""Compiled kernels against plain NumPy, and the invariances that equal bits rest on."""

import itertools
from collections import namedtuple
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

from ooc_train.kernels import api as kernels
from ooc_train.kernels import blas, calling, clipping, known_arrays
from ooc_train.kernels.compiled import full_batch, parts
from ooc_train.kernels.compiled.loop_parts import loss_parts
from ooc_train.kernels.layout import scan_workspace
from ooc_train.kernels.plain import PLAIN
from ooc_train.kernels.scan import Scan, ScanState, Updating
from ooc_train.objective.activations import ACTIVATIONS, Gelu
from ooc_train.objective.losses import LOSSES
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.optimizers.averaging import average_every
from ooc_train.optimizers.momentum import Momentum
from ooc_train.optimizers.rate_table import RateTable
from ooc_train.optimizers.schedules import Falling

ROWS, FEATURES = 61, 13
accumulate: Any = full_batch.accumulate  # as numba has it, which is no kernel by itself


def at_offset(array, offset):
    """Copy the array to an address that is `offset` bytes past a multiple of 64."""
    room = np.zeros(array.nbytes + 128, np.uint8)
    start = -room.ctypes.data % 64 + offset
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


# ------------------------------------------------------------------------------- full batch


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("rows", [0, 1, 7, 8, ROWS])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predictor_and_accumulate_are_float64_products(dtype, rows, outputs):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, FEATURES)).astype(dtype)
    W, b = rng.normal(size=(outputs, FEATURES)), rng.normal(size=outputs)
    Z = np.full((rows, outputs), np.nan)
    kernels.predictor(X, W, b, Z)
    np.testing.assert_allclose(Z, X.astype(float) @ W.T + b, rtol=1e-13, atol=1e-13)
    G = np.ones((outputs, FEATURES + 1))
    accumulate(X, Z, G)
    ones = np.ones((rows, 1))
    np.testing.assert_allclose(G, 1 + Z.T @ np.hstack([X, ones]), rtol=1e-13, atol=1e-13)


def test_float32_rows_are_added_in_float64():
    X = np.full((4096, 1), 1 / 3, np.float32)
    G = np.zeros((1, 2))
    accumulate(X, np.ones((4096, 1)), G)
    assert G.tolist() == [[4096 * float(X[0, 0]), 4096.0]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_do_not_depend_on_where_arrays_lie(dtype):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(ROWS, 100)).astype(dtype)
    W, b, weight = rng.normal(size=(2, 100)), rng.normal(size=2), rng.uniform(size=ROWS)
    y = rng.integers(0, 2, (ROWS, 1)).astype(float)
    # What the type of X changes, it changes for one loss of each form.
    kinds = LOSSES.values() if dtype == np.float32 else (LOSSES["logistic"], LOSSES["multinomial"])
    losses = [kind() for kind in kinds]
    results = []
    for offset, slack in itertools.product((0, 8, 16, 40), (0, 3)):
        behind = at_offset(np.concatenate([np.zeros((slack, 100), dtype), X]), offset)[slack:]
        Z, G, sums = (at_offset(np.zeros(s), offset) for s in ((ROWS, 2), (2, 101), (2,)))
        kernels.predictor(behind, at_offset(W, offset), at_offset(b, offset), Z)
        for loss in losses:
            outputs = 2 if loss.kind == "rowwise" else 1
            rooms = (ROWS, 2), (ROWS, 2), (2, outputs)
            Z, R, cells = (at_offset(np.zeros(shape), offset) for shape in rooms)
            of_X = at_offset(W, offset), at_offset(b, offset), loss
            given = (
                behind,
                at_offset(y + (loss.target == "positive"), offset),
                at_offset(weight, offset),
            )
            own = np.ones(outputs)
            kernels.add_rows(*given, *of_X, Z, R, G, sums[: 2 // outputs], cells, own)
        results.append((Z.tobytes(), G.tobytes(), sums.tobytes()))
    assert len(set(results)) == 1


@cache
def slope_of(name) -> Any:
    """A loss as a part of compiled loops, and its hyperparameters as these take them."""
    numbers = LOSSES[name]().hyperparameters
    h = namedtuple("h", numbers)(**numbers) if numbers else ()  # noqa: PYI024
    kind: Any = LOSSES[name]
    return full_batch.slope_of(loss_parts(kind)), h


def slopes(name, y, z, weight=None, gradients=None):
    """Losses and derivatives of models (rows, models, outputs), by the kernel."""
    rows, models, outputs = z.shape
    R = np.full((rows, models if gradients is None else gradients, outputs), np.nan)
    sums, cells = np.zeros(models), np.empty((2, outputs))
    weight = np.empty(0) if weight is None else weight
    flat_z, flat_R = (a.reshape(rows, a.shape[1] * outputs) for a in (z, R))
    slope, h = slope_of(name)
    slope(h, y, np.ones(outputs), flat_z, weight, flat_R, sums, cells)
    return sums, R


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gradients", [0, 1, 3])
@pytest.mark.parametrize("rows", [0, 1, 7, ROWS])
@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        *[("squared", 1), ("squared", 3), ("logistic", 1), ("logistic", 2)],
        *[("hinge", 1), ("hinge", 2), ("multinomial", 3), ("huber", 2), ("squared_hinge", 1)],
        *[("poisson", 2), ("gamma", 1), ("tweedie", 2)],
    ],
)
def test_slope_is_the_loss_and_its_gradient(name, outputs, rows, gradients, weighted):
    rng, loss = np.random.default_rng(3), LOSSES[name]()
    y = rng.integers(0, 2, (rows, 1 if name == "multinomial" else outputs)).astype(float)
    y += loss.target == "positive"
    z, weight = 3 * rng.normal(size=(rows, 3, outputs)), rng.uniform(0.5, 1.5, rows)
    w = weight if weighted else np.ones(rows)
    sums, R = slopes(name, y, z, weight if weighted else None, gradients)
    for m in range(3):
        values = loss.value(y, z[:, m]).reshape(y.shape).sum(axis=1)
        np.testing.assert_allclose(sums[m], w @ values, rtol=1e-13)
        if m < gradients:
            expected = w[:, None] * loss.slope(y, z[:, m])
            np.testing.assert_allclose(R[:, m], expected, rtol=1e-13, atol=1e-15)


ULP = np.finfo(float).eps
WIDE = np.concatenate(
    [
        np.linspace(-800, 800, 4001),
        np.linspace(-2, 2, 4001),
        *(sign * np.logspace(-300, 4, 609) for sign in (-1, 1)),
        [0.0, -0.0, np.log(2) / 2, np.log(1e308)],
    ]
)


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.0, 1.0, 0.3])
def test_compiled_polynomials_are_the_losses_to_rounding(target):
    loss = LOSSES["logistic"]()
    y = np.full((len(WIDE), 1), target)
    values, by_z = loss.value(y, WIDE[:, None]), loss.slope(y, WIDE[:, None])
    _, R = slopes("logistic", y, WIDE[:, None, None])
    np.testing.assert_allclose(R[:, 0], by_z, rtol=4 * ULP, atol=ULP if target else 1e-307)
    for z, value in zip(WIDE[::7], values[::7, 0], strict=True):
        for rows in (1, 64):  # of one row, and in vectors
            [found], _ = slopes("logistic", np.full((rows, 1), target), np.full((rows, 1, 1), z))
            rounding = max(2, rows / 4) * ULP  # each addition of a sum rounds
            assert found / rows == pytest.approx(value, rel=rounding, abs=rounding)


EXTREMES = np.array(
    [0.0, -0.0, 1.0, -1.0, 5e-324, 1e-310, 2.2250738585072014e-308, 1.7976931348623157e308, 720.0,
     709.782712893384, 709.7827128933841, 709.79, 710.0, 711.0, -708.0, -745.2, -746.0, -1e308,
     np.inf, -np.inf, np.nan]
)  # fmt: skip


def test_exp_is_total():
    x = np.concatenate([EXTREMES, np.linspace(-708, 709.78, 20_001)])
    found = np.array([parts.exp(value) for value in x])
    with np.errstate(over="ignore", under="ignore"):
        np.testing.assert_allclose(found, np.exp(x), rtol=2.3e-16, atol=3.4e-308)
    assert parts.exp(720.0) == np.inf
    # Numbers below the smallest normal one are zero.
    assert [parts.exp(value) for value in (-708.1, -745.0, -1e4)] == [0.0, 0.0, 0.0]


def test_log_is_total():
    x = np.concatenate([EXTREMES, np.geomspace(5e-324, 1.7e308, 20_001), 1 + np.linspace(-1, 1)])
    found = np.array([parts.log(value) for value in x])
    with np.errstate(divide="ignore", invalid="ignore"):
        np.testing.assert_allclose(found, np.log(x), rtol=2.3e-16, atol=0)


def test_tanh_is_total():
    x = np.concatenate([np.linspace(-3, 3, 4001), np.logspace(-300, 300, 601), [0.0, 0.04, -0.04]])
    found = np.array([parts.tanh(value) for value in x])
    np.testing.assert_allclose(found, np.tanh(x), rtol=1e-15, atol=0)
    assert np.isnan(parts.tanh(np.nan))
    assert [parts.tanh(np.inf), parts.tanh(-np.inf)] == [1.0, -1.0]


def network_arrays(activation, sizes, rows, dtype, *, masked=False):
    """Return arrays of random numbers for passes of rows through layers."""
    rng, hidden = np.random.default_rng(5), rows * sum(sizes[1:-1])
    n = sum((before + 1) * after for before, after in itertools.pairwise(sizes))
    X, params = (rng.normal(size=shape).astype(dtype) for shape in ((rows, sizes[0]), n))
    masks = (2.0 * rng.integers(0, 2, hidden * masked)).astype(dtype)
    inputs, values, left = (
        np.full(hidden * is_used, 7.0, dtype) for is_used in (activation.needs_input, True, masked)
    )
    of_layers: Any = X, params, np.array(sizes), masks, inputs, values, left
    outputs = np.empty((rows, sizes[-1]), dtype), np.empty((rows, sizes[-1])), np.empty(rows + 3)
    R, slopes = rng.normal(size=(rows, sizes[-1])), np.empty((2, rows * max(sizes[1:])), dtype)
    return of_layers, outputs, (R, slopes, np.full(n, 7.0, dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_passes_through_layers_are_numpys(name, masked, dtype):
    activation = ACTIVATIONS[name]()
    rtol, atol = (1e-11, 1e-12) if dtype == np.float64 else (2e-4, 1e-4)
    own: tuple[Any, ...] = kernels.network_forward, kernels.network_backward
    compiled = [partial(function, activation) for function in own]
    plain = [PLAIN[spec.kernel](spec) for spec in kernels.network_pass_needs(activation)]
    for sizes, rows in (((3, 2), 5), ((1, 1, 1), 1), ((9, 17, 4, 3), 23), ((40, 64, 5), 130)):
        results: list[Any] = []
        for forward, backward in (compiled, plain):
            of_layers, outputs, (R, slopes, gradient) = network_arrays(
                activation, sizes, rows, dtype, masked=masked
            )
            forward(*(*of_layers, *outputs))
            backward(*(*of_layers, R, slopes, gradient))
            results.append((outputs[1], gradient, *of_layers[4:]))
        for found, due in zip(*results, strict=True):
            np.testing.assert_allclose(found, due, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "outputs"), [("squared", 2), ("multinomial", 3)])
def test_clipped_sums_of_rows_are_numpys(name, outputs, dtype):
    loss, rng = LOSSES[name](), np.random.default_rng(4)
    (spec,) = clipping.add_clipped_needs(loss)
    for rows, features in ((0, 1), (1, 8), (3, 3), (32, 17), (71, 40)):
        X = rng.normal(size=(2 * rows + 1, features)).astype(dtype)
        y = rng.integers(0, outputs, (len(X), 1)).astype(float)
        y = y if name == "multinomial" else rng.normal(size=(len(X), outputs))
        taken = np.sort(rng.permutation(len(X))[:rows])
        W, b = rng.normal(size=(outputs, features)), rng.normal(size=outputs)
        tile = [np.empty((32, y.shape[1])), np.empty((32, outputs)), np.empty((32, outputs))]
        scratch: Any = (*tile, np.empty(32), np.empty((2, outputs)))
        G, due = np.ones((2, outputs, features + 1))
        for most in (1.0, 1e9):
            arrays: Any = (X, y, taken, W, b, loss, *scratch, G)
            clipping.add_clipped(*arrays, most=most, constant=1.0)
            ones, none = np.ones(outputs), np.empty(0)
            more = np.zeros(1), ones, none, most, 1.0
            PLAIN[spec.kernel](spec)(X, y, taken, W, b, *scratch, due, *more)
        np.testing.assert_allclose(G, due, rtol=1e-12, atol=1e-12)
        if rows:
            X[taken[-1], 0] = np.nan
            clipping.add_clipped(*arrays, most=1.0, constant=1.0)
            assert np.isnan(G).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_clipped_sums_of_rows_of_networks_are_numpys(name, dtype):
    activation = ACTIVATIONS[name]()
    (spec,) = clipping.network_clipped_needs(activation)
    rtol, atol = (1e-11, 1e-12) if dtype == np.float64 else (2e-4, 1e-4)
    for sizes, rows in (((3, 2), 5), ((1, 1, 1), 1), ((9, 17, 4, 3), 23), ((40, 64, 5), 130)):
        for frozen in range(len(sizes) - 1):
            layers, outputs, (R, _, gradient) = network_arrays(activation, sizes, rows, dtype)
            kernels.network_forward(activation, *(*layers, *outputs))
            X, params, at, _, inputs, values, _ = layers
            slopes, squares = np.empty(rows * sum(sizes[1:]), dtype), np.empty(rows)
            work, due = (slopes, squares, gradient), gradient.copy()
            clipping.network_clipped(
                activation, X, params, at, inputs, values, R, *work, most=3.0, frozen=frozen
            )
            PLAIN[spec.kernel](spec)(
                X, params, at, inputs, values, R, slopes, squares, due, 3.0, frozen
            )
            np.testing.assert_allclose(gradient, due, rtol=rtol, atol=atol)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_row_that_is_not_finite_has_no_predictors(name, value):
    activation = ACTIVATIONS[name]()
    of_layers, (P, Z, marks), _ = network_arrays(activation, (4, 6, 3), 9, np.float32)
    of_layers[0][5, 1] = value
    kernels.network_forward(activation, *(*of_layers, P, Z, marks))
    assert np.isnan(Z).all(axis=1).tolist() == [row == 5 for row in range(9)]


def test_without_a_known_blas_numpy_makes_the_passes(monkeypatch):
    activation = Gelu()
    found = []
    for known in (True, False):
        with monkeypatch.context() as patch:
            if not known:
                patch.setattr(calling, "_loaded", {})
                for module in (blas, kernels, known_arrays):
                    patch.setattr(module, "gemm", lambda _: None)
                note = calling.load(np.float64, kernels.network_pass_needs(activation))
                assert "plain NumPy runs" in note
            of_layers, (P, Z, marks), _ = network_arrays(activation, (4, 6, 3), 9, np.float64)
            kernels.network_forward(activation, *(*of_layers, P, Z, marks))
            found.append(Z)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


@pytest.mark.slow
def test_compiled_softmax_is_the_losses_to_rounding():
    rng, loss = np.random.default_rng(0), LOSSES["multinomial"]()
    z = rng.normal(size=(999, 9)) * np.logspace(-3, 4, 999)[:, None]
    y = rng.integers(0, 9, (999, 1)).astype(float)
    found = [slopes("multinomial", y[i : i + 1], z[i : i + 1, None])[0][0] for i in range(999)]
    error = np.abs(found - loss.value(y, z))
    assert (error <= 2 * ULP * (1 + np.abs(z).max(axis=1))).all()  # a difference of predictors
    _, R = slopes("multinomial", y, z[:, None])
    np.testing.assert_allclose(R[:, 0], loss.slope(y, z), rtol=8 * ULP, atol=2 * ULP)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "outputs"), [("squared", 1), ("logistic", 1), ("multinomial", 3)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["z", "y", "weight"])
def test_what_is_not_finite_makes_a_sum_that_is_not(where, value, name, outputs):
    arrays = {"z": np.ones((ROWS, 1, outputs)), "y": np.ones((ROWS, 1)), "weight": np.ones(ROWS)}
    arrays[where].reshape(ROWS, -1)[17, -1] = value
    if where == "z" and name == "multinomial" and value < 0:
        arrays["y"][17] = 2.0  # else that of a class that is impossible and does not occur
    sums, R = slopes(name, **arrays)
    assert not np.isfinite(sums[0])
    if where == "z" and np.isnan(value):
        assert np.isnan(R[17]).all()
        assert np.isfinite(R[:17]).all()
        assert np.isfinite(R[18:]).all()


def test_infinite_predictors_are_sure_of_themselves():
    z = np.array([-np.inf, np.inf])[:, None, None]
    with np.errstate(invalid="ignore"):
        _, R = slopes("logistic", np.array([[0.0], [1.0]]), z)
    assert R.ravel().tolist() == [0.0, 0.0]


# ------------------------------------------------------------------------------------- scan


@dataclass
class Problem:
    """Arguments of one scan, with the state that it changes."""

    loss: str
    outputs: int
    dtype: type = np.float64
    weighted: bool = False
    optimizer: str = "sgd"
    noise: float = 0.0
    batch_size: int = 1
    fit_intercept: bool = True
    l1: float = 0.0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))

    def __post_init__(self):
        rng, shape = self.rng, (self.outputs, FEATURES + 1)
        self.X: np.ndarray = (3 + 2 * rng.normal(size=(ROWS, FEATURES))).astype(self.dtype)
        self.y = {
            "real": rng.normal(size=(ROWS, self.outputs)),
            "binary": rng.integers(0, max(2, self.outputs), (ROWS, 1)).astype(float),
            "codes": rng.integers(0, self.outputs, (ROWS, 1)).astype(float),
        }[LOSSES[self.loss].target]
        self.weight = rng.uniform(0.5, 1.5, ROWS) if self.weighted else np.empty(0)
        self.order = rng.permutation(ROWS)
        self.mean, self.inv_scale = rng.normal(size=FEATURES), rng.uniform(0.3, 0.6, FEATURES)
        self.l2 = rng.uniform(0, 0.1, FEATURES)
        self.own = np.linspace(0.5, 2.0, self.outputs)
        self.l1_by_column = (
            self.l1 * rng.uniform(0.5, 1, FEATURES) if self.l1 else np.zeros(FEATURES)
        )
        self.theta = 0.1 * rng.normal(size=shape)
        self.slots = np.zeros((len(OPTIMIZERS.parse(self.optimizer).slot_powers), *shape))
        self.partial = np.zeros(shape)
        self.counters, self.sums = np.zeros(3, np.int64), np.zeros(2)
        self.average, self.clock = np.zeros(shape), np.zeros(3)

    @property
    def state(self):
        learned = [self.theta, self.slots, self.partial, self.counters, self.average, self.clock]
        return [*learned, self.sums]

    def scan(self, order, flush):
        specs = scan_workspace(len(order), FEATURES, self.outputs)
        work = {name: np.full(each.shape, -1, each.dtype) for name, each in specs.items()}
        table = RateTable(lambda t: Falling(self.noise, 10.0).rate(t, 0.02, ROWS))
        table.cover(int(self.counters[1]), ROWS)
        scaling = self.mean, self.inv_scale, self.l2, self.l1_by_column
        updating = Updating(
            np.dtype(self.dtype), LOSSES[self.loss](), OPTIMIZERS.parse(self.optimizer),
            self.batch_size, *scaling, self.fit_intercept, self.own,
        )  # fmt: skip
        scan = Scan(updating, ScanState(*self.state), table.rates, work)
        stopped = scan(self.X, self.y, self.weight, order)
        if flush and stopped < 0:
            scan.flush()
        scan.close()
        return stopped


def proximal_rate(optimizer, eta, slots, age):
    """The rate at which a gradient that stays as it is moves the parameters."""
    rates = {
        "sgd": lambda: eta,
        "momentum": lambda: eta / (1 - 0.9),
        "adagrad": lambda: eta / (np.sqrt(slots[0]) + 1e-10),
        "rmsprop": lambda: eta / (np.sqrt(slots[0]) + 1e-8),
        "adam": lambda: eta / (np.sqrt(slots[1] / (1 - 0.999**age)) + 1e-8),
        "adamw": lambda: eta / (np.sqrt(slots[1] / (1 - 0.999**age)) + 1e-8),
    }
    return rates[optimizer.name]()


def plain_scan(p):
    """What `scan` does to one pass, said in NumPy; returns theta, its average, and the two sums."""
    loss, optimizer = LOSSES[p.loss](), OPTIMIZERS.parse(p.optimizer)
    theta, slots, sums = p.theta.copy(), p.slots.copy(), np.zeros(2)
    average, averaged, age, t = np.zeros_like(theta), 0, 0.0, 0
    w = p.weight if p.weighted else np.ones(ROWS)
    free = np.append(np.ones(FEATURES), float(p.fit_intercept))
    for start in range(0, ROWS, p.batch_size):
        i = p.order[start : start + p.batch_size]
        T = np.column_stack([(p.X[i] - p.mean) * p.inv_scale, np.ones(len(i))])
        z = T @ theta.T
        y, own = p.y[i, 0], np.ones((len(i), 1))
        if loss.kind == "pointwise":
            y = loss.targets(p.y[i], p.outputs)
            if p.y.shape[1] < p.outputs:
                own = np.where(y == 1.0, p.own, 1.0)
        value = (own * loss.value(y, z).reshape(len(i), -1)).sum(axis=1)
        sums += (w[i] * value).sum(), w[i].sum()
        g = (w[i, None] * own * loss.slope(y, z)).T @ T / len(i)
        g = (g + np.append(p.l2, 0.0) * theta) * free
        if optimizer.clip_norm:
            g = g * min(1.0, optimizer.clip_norm / np.linalg.norm(g))
        part = len(i) / p.batch_size
        eta = part * 0.02 / (1 + p.noise * (np.sqrt(1 + t / 10) - 1))
        if optimizer.slot_powers and not w[i].any():
            continue
        age += part
        theta = theta * np.append(np.full(FEATURES, optimizer.retained(eta)), 1.0)
        theta, *new = optimizer.step(theta, g, eta, optimizer.prepare(age, part), *slots)
        slots[...] = np.reshape(new, slots.shape)
        rate = proximal_rate(optimizer, eta, slots, age)
        shrunk = np.sign(theta) * np.maximum(np.abs(theta) - rate * np.append(p.l1_by_column, 0), 0)
        theta = shrunk if p.l1 else theta
        t += 1
        if t % average_every(p.batch_size) == 0:
            averaged += 1
            average += 4 / (averaged + 3) * (theta - average)
    return theta, average, sums


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7, 16, ROWS])
@pytest.mark.parametrize(
    ("loss", "outputs", "optimizer", "l1"),
    [
        *[("squared", 3, "sgd", 0.0), ("logistic", 1, "sgd", 0.0), ("hinge", 1, "sgd", 0.0)],
        *[("multinomial", 3, "sgd", 0.0), ("logistic", 1, "adam", 0.0)],
        *[("hinge", 3, "sgd", 0.0), ("squared_hinge", 3, "adam", 0.0)],
        *[
            ("multinomial", 3, "adam", 0.0),
            ("huber", 1, "momentum", 0.5),
            ("squared", 2, "sgd", 0.5),
            ("logistic", 1, "adam", 0.02),
            ("squared", 3, "sgd:clip_norm=2", 0.0),  # about the middle of the norms
            ("multinomial", 3, "momentum:clip_norm=0.5", 0.02),
        ],
    ],
)
def test_scan_is_the_plain_loop(loss, outputs, optimizer, l1, batch_size):
    scan_is_the_plain_loop(loss, outputs, optimizer, l1, batch_size)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 7, ROWS])
@pytest.mark.parametrize("l1", [0.0, 0.02])
@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, "momentum:nesterov=1", "adamw:weight_decay=2"])
def test_scan_is_the_plain_loop_for_every_optimizer(optimizer, l1, batch_size):
    scan_is_the_plain_loop("logistic", 1, optimizer, l1, batch_size, (np.float32,))


class Rising(Momentum):
    """A step with a function that vectors lack."""

    def step(self, theta, g, eta, scalars, *slots):
        velocity = np.maximum(scalars[0] * slots[0] + g, 0.0)
        return theta - eta * velocity, velocity


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 7])
def test_an_optimizers_step_may_use_any_function(batch_size, monkeypatch):
    assert Momentum.in_vectors
    assert not Rising.in_vectors
    monkeypatch.setattr(OPTIMIZERS, "parse", lambda _: Rising())
    scan_is_the_plain_loop("logistic", 1, "rising", 0.0, batch_size, (np.float32,))


def scan_is_the_plain_loop(
    loss, outputs, optimizer, l1, batch_size, dtypes: Any = (np.float32, np.float64)
):
    for noise, weighted, fit_intercept in (
        (0.0, True, True),
        (1.0, False, True),
        (0.3, True, False),
    ):
        for dtype in dtypes if l1 == 0 else (np.float32,):
            p = Problem(
                loss, outputs, dtype, weighted, optimizer, noise, batch_size, fit_intercept, l1
            )
            theta, average, sums = plain_scan(p)
            assert p.scan(p.order, True) == -1
            np.testing.assert_allclose(p.theta, theta, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(p.average, average, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(p.sums, sums, rtol=1e-12)
            assert p.counters.tolist() == [0, -(-ROWS // batch_size), ROWS]
            assert not p.partial.any()


@pytest.mark.parametrize("batch_size", [1, 2, 7, 50, 1000])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("loss", "outputs"),
    [("logistic", 1), ("squared", 3), ("hinge", 1), ("hinge", 3), ("multinomial", 3)],
)
def test_cutting_a_pass_does_not_change_a_bit(loss, outputs, optimizer, batch_size):
    results = set()
    # Short batches of SGD are taken in quads.
    of = 4 if batch_size <= 4 and optimizer == "sgd" else 1
    for cuts in ((), (1,), (5, 6, 40), (0, 30, ROWS), range(ROWS)):
        p = Problem(loss, outputs, np.float32, True, optimizer, batch_size=batch_size)
        edges = [0, *(min(of * cut, ROWS) for cut in cuts), ROWS]
        for start, stop in itertools.pairwise(edges):
            p.scan(p.order[start:stop].copy(), False)
        assert p.scan(p.order[:0], True) == -1  # the flush alone
        results.add(b"".join(array.tobytes() for array in p.state))
    assert len(results) == 1


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
@pytest.mark.parametrize(("loss", "outputs"), [("logistic", 1), ("squared", 3), ("multinomial", 3)])
def test_quads_may_be_cut_anywhere_but_for_rounding(loss, outputs, batch_size):
    whole = Problem(loss, outputs, batch_size=batch_size)
    whole.scan(whole.order, True)
    for cuts in ((1,), (2,), (3,), (5, 6, 40), (0, 30, 33), range(ROWS)):
        p = Problem(loss, outputs, batch_size=batch_size)
        for start, stop in itertools.pairwise([0, *cuts, ROWS]):
            p.scan(p.order[start:stop].copy(), False)
        p.scan(p.order[:0], True)
        # The average takes in the parameters after a quad, and so after other rows.
        p.average[...] = whole.average
        for cut, at_once in zip(p.state, whole.state, strict=True):
            np.testing.assert_allclose(cut, at_once, rtol=1e-11, atol=1e-13)


def test_scan_bits_do_not_depend_on_where_arrays_lie():
    results = set()
    for batch_size in (1, 7):
        for offset in (0, 8, 32):
            p = Problem("logistic", 1, np.float32, batch_size=batch_size)
            for name in ("X", "theta", "partial", "mean", "inv_scale", "l2"):
                setattr(p, name, at_offset(getattr(p, name), offset))
            p.scan(p.order, True)
            results.add((batch_size, p.theta.tobytes(), p.sums.tobytes()))
    assert len(results) == 2


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(
    ("loss", "outputs", "optimizer"),
    [
        ("squared", 3, "sgd"),
        ("logistic", 1, "sgd"),
        ("multinomial", 3, "sgd"),
        ("hinge", 1, "adam"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["X", "y", "weight"])
def test_a_row_that_is_not_finite_stops_the_scan_before_it_is_used(
    where, value, loss, outputs, optimizer, batch_size
):
    p, q = (
        Problem(loss, outputs, np.float32, True, optimizer, batch_size=batch_size) for _ in range(2)
    )
    bad = p.order[17]
    p.__dict__[where][(bad, 0) if where != "weight" else bad] = value
    assert p.scan(p.order, True) == 17
    assert q.scan(q.order[:17].copy(), False) == -1
    for stopped, expected in zip(p.state, q.state, strict=True):
        np.testing.assert_array_equal(stopped, expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_single_rows_without_weight_take_no_step_by_slots(optimizer):
    p = Problem("hinge", 1, np.float32, True, optimizer)
    p.weight[p.order[[0, 5, 6, ROWS - 1]]] = 0.0
    theta, average, sums = plain_scan(p)
    assert p.scan(p.order, True) == -1
    np.testing.assert_allclose(p.theta, theta, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(p.average, average, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(p.sums, sums, rtol=1e-12)
    assert p.counters.tolist() == [0, ROWS - 4 * (optimizer == "adam"), ROWS]


@pytest.mark.parametrize("code", [-1.0, 3.0, 1e300])
def test_a_class_that_does_not_exist_stops_the_scan(code):
    p = Problem("multinomial", 3)
    p.y[p.order[4]] = code
    assert p.scan(p.order, True) == 4


def test_read_only_arrays_are_read():
    p, q = Problem("logistic", 1), Problem("logistic", 1)
    for name in ("X", "y", "weight", "order", "mean", "inv_scale", "l2"):
        getattr(p, name).flags.writeable = False
    assert p.scan(p.order, True) == q.scan(q.order, True) == -1
    np.testing.assert_array_equal(p.theta, q.theta)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "X",
            np.asfortranarray,
            r"X \(argument 1\) is float64 of 2 dimensions, not C-contiguous; it takes",
        ),
        ("X", lambda X: X.astype(np.int64), "X .* is int64 of 2 dimensions.*; it takes float64"),
        ("y", lambda y: y[:, 0], "of 1 dimensions; it takes float64 of 2"),
        ("order", lambda order: order.astype(np.int32), "int32 of 1 dimensions; it takes int64"),
        ("theta", lambda theta: np.broadcast_to(theta, theta.shape), "read-only; it takes float64"),
    ],
)
def test_an_array_of_the_wrong_kind_is_refused(name, change, message):
    p = Problem("logistic", 1)
    setattr(p, name, change(getattr(p, name)))
    with pytest.raises(TypeError, match=message):
        p.scan(p.order, True)


# ---------------------------------------------------------------------------------- shuffle


def permutation(seed, n):
    order = np.full(n, -1)
    kernels.shuffle(seed, order)
    return order


@pytest.mark.parametrize("n", [0, 1, 2, 3, 2048])
def test_shuffle_permutes_and_follows_the_seed(n):
    assert sorted(permutation(7, n)) == list(range(n))
    assert permutation(7, n).tolist() == permutation(7, n).tolist()
    if n > 3:
        for seed in (0, 6, 2**63 + 7, 2**64 - 1):
            assert (permutation(7, n) == permutation(seed, n)).sum() < 12


def test_shuffle_is_uniform():
    counts = np.zeros((5, 5, 5))
    draws = 60_000
    for seed in range(draws):
        counts[tuple(permutation(seed, 5)[:3])] += 1
    seen = counts[counts > 0]
    assert seen.size == 60
    chi_square = ((seen - draws / 60) ** 2 / (draws / 60)).sum()
    assert 25 < chi_square < 110  # 59 degrees of freedom: 59, give or take 11
