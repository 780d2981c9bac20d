"""Checks of compiled kernels at load: whether they read arrays as NumPy lays them out.

Kernels find the data and the shape of an array in its object, at places that depend on Python and
NumPy. First these places are compared with NumPy's own figures. Then each kernel is called on small
known arrays, and its results are compared with plain NumPy's.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from ooc_train.core.packing import packed_size
from ooc_train.kernels.blas import gemm
from ooc_train.kernels.layout import OUTPUTS, fill, outer_workspace, scan_workspace
from ooc_train.kernels.specs import KernelSpec, hyperparameters

_ROWS, _FEATURES = 13, 9


def convention() -> str | None:
    """Return why kernels cannot find an array's data and shape in its object, or None."""
    array = np.arange(6.0).reshape(2, 3)
    fields = id(array) + object.__basicsize__
    data, lengths = (ctypes.c_uint64.from_address(fields + at).value for at in (0, 16))
    dimensions = ctypes.c_int.from_address(fields + 8).value
    if data != array.ctypes.data or dimensions != 2:
        return "an array's data are not where this version of NumPy is known to keep them"
    if not lengths or lengths % 8 or [*(ctypes.c_int64 * 2).from_address(lengths)] != [2, 3]:
        return "an array's shape is not where this version of NumPy is known to keep it"
    return None


def agree(
    spec: KernelSpec, dtype: np.dtype[Any], compiled: Callable[..., Any], plain: Callable[..., Any]
) -> bool:
    """Return whether a kernel's results on known arrays are plain NumPy's, up to rounding."""
    if any(parameter.name == "gemm" for parameter in spec.parameters) and gemm(dtype) is None:
        return False  # no library is known to have it
    results = []
    for function in (compiled, plain):
        arguments = known_arguments(spec, dtype)
        returned = function(*arguments)
        written = [
            argument[OUTPUTS:] if parameter.name == "room" else argument
            for parameter, argument in zip(spec.parameters, arguments, strict=True)
            if parameter.written and _is_result(spec, parameter.name)
        ]
        results.append([np.asarray(0.0 if returned is None else returned), *written])
    in_type_of_X = spec.activation is not None
    return all(
        np.allclose(found, due, **_tolerance(dtype if in_type_of_X else due.dtype), equal_nan=True)
        for found, due in zip(*results, strict=True)
    )


def _tolerance(dtype: np.dtype[Any]) -> dict[str, float]:
    return {"rtol": 1e-5, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-7, "atol": 1e-9}


_WORK = frozenset(
    ["P", "slopes", "Z", "Y", "R", "cells", "T", "W", "each", "group", "places", "squares"]
)
"""Scratch arrays, which are no results. Of the array "room", the rows of the outputs are a
result."""


_RESULTS = (
    ("predictor", "Z"),
    ("loss_slopes", "R"),
    ("network_forward", "Z"),
    ("network_clipped", "squares"),
)


def _is_result(spec: KernelSpec, name: str) -> bool:
    return name not in _WORK or (spec.kernel, name) in _RESULTS


def known_arguments(spec: KernelSpec, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """Return the fixed arguments with which a kernel is checked."""
    rng = np.random.default_rng(0)
    if spec.kernel == "shuffle":
        return 12345, np.zeros(_ROWS, np.int64)
    if spec.kernel.startswith("network_") and spec.kernel != "network_step":
        return _network_arguments(spec, dtype, rng)
    X = (1 + rng.normal(size=(_ROWS, _FEATURES))).astype(dtype)
    mean, inv_scale = rng.normal(size=_FEATURES), rng.uniform(0.5, 1.0, _FEATURES)
    if spec.kernel == "add_outer_products":
        y, c = rng.normal(size=(_ROWS, 9)), rng.uniform(size=_ROWS)
        c[1] = c[-1] = 0.0
        columns = _FEATURES + 1 + y.shape[1]
        work = [np.zeros(each.shape) for each in outer_workspace(4, columns).values()]
        return X, y, c, mean, inv_scale, *work, np.ones(packed_size(columns))
    outputs = 3 if spec.loss is not None and spec.loss.kind == "rowwise" else 2
    outputs = 1 if spec.single else outputs
    coef, b = rng.normal(size=(outputs, _FEATURES)), rng.normal(size=outputs)
    if spec.kernel == "predictor":
        return X, coef, b, np.zeros((_ROWS, outputs))
    y, weight = _targets(spec, rng, outputs), rng.uniform(0.5, 1.5, _ROWS)
    own, numbers = np.ones(outputs), _numbers(spec)
    if spec.kernel == "loss_slopes":
        Z, R = X[:, :outputs].astype(np.float64), np.zeros((_ROWS, outputs))
        return y, weight, own, Z, R, np.zeros(1), np.zeros((2, outputs)), *numbers
    if spec.kernel == "add_clipped":
        scratch = [np.zeros((5, columns)) for columns in (y.shape[1], outputs, outputs)]
        found = np.zeros(5), np.zeros((2, outputs)), np.ones((outputs, _FEATURES + 1)), np.zeros(1)
        taken, factors = np.arange(0, _ROWS, 2), (own, np.empty(0))
        return X, y, taken, coef, b, *scratch, *found, *factors, 2.0, 1.0, *numbers
    if spec.kernel == "network_step":
        theta, g = (rng.normal(size=_ROWS).astype(dtype) for _ in range(2))
        others = rng.normal(size=(2, _ROWS)).astype(dtype)
        slots = np.abs(rng.normal(size=(_slots(spec), 1, _ROWS))).astype(dtype)
        arrays = theta, g, others, slots, rng.normal(size=_ROWS), np.array([0, 9, 11, 13])
        return *arrays, 0.5, 0.01, 0.1, 3.0, 0.5, 0.25, *numbers
    if spec.kernel == "add_rows":
        tile = [np.zeros((5, outputs)), np.zeros((5, outputs))]
        results = np.ones((outputs, _FEATURES + 1)), np.ones(1), np.zeros((2, outputs))
        return X, y, weight, coef, b, *tile, *results, own, *numbers
    theta = 0.1 * rng.normal(size=(outputs, _FEATURES + 1))
    partial = np.zeros_like(theta)
    workspace = {
        name: np.zeros(each.shape, each.dtype)
        for name, each in scan_workspace(_ROWS, _FEATURES, outputs).items()
    }
    l2, l1 = rng.uniform(0, 0.1, (2, _FEATURES))
    fill(workspace, theta, partial, mean, inv_scale, l2, l1)
    counters, average, clock, sums = np.zeros(3, np.int64), theta.copy(), np.zeros(3), np.zeros(2)
    order, rates = rng.permutation(_ROWS), np.linspace(0.04, 0.06, 4)
    Z, Y = workspace["pairs"]
    room, each, group = workspace["room"], workspace["each"], workspace["group"]
    if spec.kernel == "scan_unrolled":
        changed = theta, counters, average, clock, sums, Z, Y, room, each, group
        return X, y, weight, order, *changed, rates, 1, 4, 1, own, *numbers
    state = (
        theta,
        np.zeros((_slots(spec), *theta.shape)),
        partial,
        counters,
        average,
        clock,
        sums,
        Z,
        Y,
    )
    written = room, each, group, workspace["places"]
    batch_size = 1 if spec.kernel == "scan_single" else 3
    return X, y, weight, order, 1, *state, *written, rates, batch_size, 2, 1, own, *numbers


def _network_arguments(
    spec: KernelSpec, dtype: np.dtype[Any], rng: np.random.Generator
) -> tuple[Any, ...]:
    """Return arguments of a pass through layers of 9, 5, 4 and 2 units, with masks."""
    sizes = np.array([_FEATURES, 5, 4, 2])
    n_params, hidden = int(((sizes[:-1] + 1) * sizes[1:]).sum()), _ROWS * 9

    def random(*shape: int) -> Any:
        return rng.normal(size=shape).astype(dtype)

    masks = (rng.integers(0, 2, hidden) * 2.0).astype(dtype)
    inputs, values = random(hidden), random(hidden)
    rows = random(_ROWS, _FEATURES), random(n_params), sizes, masks, inputs, values, values * masks
    address = gemm(dtype) or 0
    if spec.kernel == "network_forward":
        outputs = np.zeros((_ROWS, 2), dtype), np.zeros((_ROWS, 2)), np.zeros(_ROWS)
        return *rows, *outputs, address
    if spec.kernel == "network_clipped":
        X, params, *_ = rows
        work = np.zeros(hidden + 2 * _ROWS, dtype), np.zeros(_ROWS), np.zeros(n_params, dtype)
        return (
            X,
            params,
            sizes,
            inputs,
            values,
            rng.normal(size=(_ROWS, 2)),
            *work,
            5.0,
            1,
            address,
        )
    slopes = np.zeros((2, _ROWS * _FEATURES), dtype)
    if spec.kernel == "network_batch":
        taken, nothing = rng.permutation(_ROWS)[:7], np.zeros(0, dtype)
        count, y = len(taken), _targets(spec, rng, 2)
        arrays = np.zeros((count, _FEATURES), dtype), np.zeros((count, y.shape[1])), np.zeros(count)
        scaled = random(_FEATURES), random(_FEATURES), 1.0
        layers = rows[1], sizes, nothing, inputs, values, nothing
        outputs = np.zeros((count, 2), dtype), np.zeros((count, 2)), np.zeros(count)
        losses = np.ones(2), np.zeros((count, 2)), np.zeros(1), np.zeros((2, 2))
        data = rows[0], y, rng.uniform(0.5, 1.5, _ROWS), taken
        gradient = np.zeros(n_params, dtype)
        found = *data, *arrays, *scaled, *layers, *outputs, *losses, slopes, gradient, address
        return *found, *_numbers(spec)
    return *rows, rng.normal(size=(_ROWS, 2)), slopes, np.zeros(n_params, dtype), address


def _slots(spec: KernelSpec) -> int:
    return 0 if spec.optimizer is None else len(spec.optimizer.slot_powers)


def _targets(spec: KernelSpec, rng: np.random.Generator, outputs: int) -> Any:
    """Return targets in the domain of the loss, (rows, outputs), or (rows, 1)."""
    target = "real" if spec.loss is None else spec.loss.target
    if target == "codes":
        return rng.integers(0, outputs, (_ROWS, 1)).astype(np.float64)
    if target == "binary":
        return rng.integers(0, 2, (_ROWS, outputs)).astype(np.float64)
    is_rowwise = spec.loss is not None and spec.loss.kind == "rowwise"
    y = rng.normal(size=(_ROWS, 1 if is_rowwise else outputs))
    return y if target == "real" else np.abs(y) + 0.1


def _numbers(spec: KernelSpec) -> tuple[float, ...]:
    """Return the defaults of hyperparameters, and 1 for hyperparameters without a default.

    The largest norm of a clipped gradient is far below those of the known arrays.
    """
    return tuple(
        0.05 if spec.clipped and name == "clip_norm" else float(getattr(kind, name, 1.0))
        for kind in (spec.loss, spec.optimizer)
        for name in hyperparameters(kind)
    )
