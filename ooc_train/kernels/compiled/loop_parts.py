"""Losses and optimizers as parts of compiled loops, from the same sources that NumPy runs.

A source is a method of a frozen dataclass. In its compiled form, ``self`` is a tuple of the
hyperparameters by name. The compiler can vectorise the functions ``exp`` and ``log`` of that form.
"""

from collections.abc import Callable
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.kernels.compiled.parts import exp, log, part, strict_part, tanh
from ooc_train.kernels.compiled.quick_slopes import quick_logistic_slope
from ooc_train.kernels.compiled.vectors import load_columns, sqrt, store_row
from ooc_train.objective.activations import Activation
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.penalty import soft_threshold
from ooc_train.optimizers.optimizer import Optimizer

_NUMPY = ModuleType("numpy")
_FUNCTIONS: dict[np.ufunc, Any] = {np.exp: exp, np.log: log, np.tanh: tanh}
_NUMPY.__dict__.update(np.__dict__, exp=exp, log=log, tanh=tanh, sqrt=sqrt)
"""NumPy as sources use it, with functions that can be vectorised, and a square root of vectors
too."""

_QUICK_SLOPES: dict[type[Loss], Any] = {Logistic: quick_logistic_slope}
"""Losses with a faster source for the slope of a single row."""


def _names(code: CodeType) -> set[str]:
    """Return the names that a code object and its inner code objects look up."""
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return set(code.co_names).union(*map(_names, inner))


@cache
def compiled_source(source: Callable[..., Any], decorate: Callable[[Any], Any] = part) -> Any:
    """Return a Python function, and the functions that it calls, as a part of compiled loops."""
    if not isinstance(source, FunctionType):
        raise TypeError(f"{source!r} is no function of Python, so that it can't be compiled")
    found = dict(source.__globals__)
    for name in _names(source.__code__) & found.keys():
        value = found[name]
        if value is np:
            found[name] = _NUMPY
        elif isinstance(value, np.ufunc) and value in _FUNCTIONS:
            found[name] = _FUNCTIONS[value]
        elif isinstance(value, FunctionType):
            found[name] = compiled_source(value)
    copy = FunctionType(
        source.__code__, found, source.__name__, source.__defaults__, source.__closure__
    )
    return decorate(copy)


@part
def target_of(y: Array, i: int, k: int, outputs: int) -> Any:
    """Target of output `k` in row `i`, as `Loss.targets` has it."""
    if y.shape[1] == outputs:
        return y[i, k]
    code = y[i, 0]
    due = 1.0 if code == k else 0.0
    return due if 0.0 <= code < outputs else np.nan


@part
def own_class_factor(y: Array, own: Array, i: int, k: int) -> Any:
    """Factor of the weight of row `i` in output `k`, as `own_class_factors` has it."""
    return own[k] if y.shape[1] < len(own) and y[i, 0] == k else 1.0


class LossParts(NamedTuple):
    """A loss as parts of loops; the first argument of each function has the hyperparameters.

    Attributes
    ----------
    rowwise : bool
        Whether all outputs of a row have one loss together.
    value, slope : function of (h, y, z)
        Of one output, to be vectorised in a loop over rows.
    quick_slope : function of (h, y, z)
        The slope of a single row, with the shortest delay.
    row : function of (h, y, i, z, out)
        The loss of row i of `y`, NaN for an unknown class; slopes are written to `out`.
    """

    rowwise: bool
    value: Any = None
    slope: Any = None
    quick_slope: Any = None
    row: Any = None


@cache
def loss_parts(loss: type[Loss]) -> LossParts:
    """Return a loss as parts of loops."""
    if loss.kind == "pointwise":
        slope = compiled_source(loss.slope)
        return LossParts(False, compiled_source(loss.value), slope, _QUICK_SLOPES.get(loss, slope))
    source = compiled_source(loss.row, strict_part)  # type: ignore[attr-defined]
    if loss.target != "codes":

        @strict_part
        def row_of_numbers(h: Any, y: Array, i: int, z: Array, out: Array) -> Any:
            return source(h, y[i, 0], z, out)

        return LossParts(True, row=row_of_numbers)

    @strict_part
    def row(h: Any, y: Array, i: int, z: Array, out: Array) -> Any:
        if not 0.0 <= y[i, 0] < len(z):  # true for NaN too
            out[0] = np.nan
            return np.nan
        return source(h, y[i, 0], z, out)

    return LossParts(True, row=row)


class ActivationParts(NamedTuple):
    """An activation as parts of loops: functions of (h, z) and (h, z, a)."""

    value: Any
    slope: Any


@cache
def activation_parts(activation: type[Activation]) -> ActivationParts:
    """Return an activation as parts of loops."""
    return ActivationParts(compiled_source(activation.value), compiled_source(activation.slope))


class OptimizerParts(NamedTuple):
    """An optimizer as parts of loops; the first argument of each function has the hyperparameters.

    Attributes
    ----------
    in_vectors : bool
        Whether `step` takes vectors too.
    slots : int
        Number of arrays of its state.
    prepare : function of (h, age, part)
    retained : function of (h, eta)
    step : function of (h, theta, g, eta, scalars, *slots)
    proximal_rate : function of (h, eta, scalars, *slots)
    load, load_vectors : function of (slots, k, j)
        Returns the slots of one parameter, or of eight weights, a tuple.
    store, store_vectors : function of (slots, k, j, stepped)
        Writes the slots that `step` returned.
    """

    in_vectors: bool
    slots: int
    prepare: Any
    retained: Any
    step: Any
    proximal_rate: Any
    load: Any
    store: Any
    load_vectors: Any
    store_vectors: Any


@cache
def optimizer_parts(optimizer: type[Optimizer]) -> OptimizerParts:
    """Return an optimizer as parts of loops."""
    return OptimizerParts(
        optimizer.in_vectors,
        len(optimizer.slot_powers),
        compiled_source(optimizer.prepare, strict_part),
        compiled_source(optimizer.retained, strict_part),
        compiled_source(optimizer.step, strict_part),
        compiled_source(optimizer.proximal_rate, strict_part),
        _loader(len(optimizer.slot_powers), _load_number),
        slot_storer(len(optimizer.slot_powers), _store_number),
        _loader(len(optimizer.slot_powers), _load_vector),
        slot_storer(len(optimizer.slot_powers), _store_vector),
    )


@strict_part
def _load_number(slots: Array, slot: int, k: int, j: int) -> Any:
    return slots[slot, k, j]


@strict_part
def _store_number(slots: Array, slot: int, k: int, j: int, value: float) -> None:
    slots[slot, k, j] = value


@strict_part
def _load_vector(slots: Array, slot: int, k: int, j: int) -> Any:
    return load_columns(slots, slot * slots.shape[1] + k, j, slots.shape[2] - 1)


@strict_part
def _store_vector(slots: Array, slot: int, k: int, j: int, vector: Any) -> None:
    store_row(slots, slot * slots.shape[1] + k, j, slots.shape[2] - 1, vector)


def _loader(count: int, load_slot: Any) -> Any:
    if count == 0:

        def none(slots: Array, k: int, j: int) -> Any:  # noqa: ARG001
            return ()

        return strict_part(none)
    others, last = _loader(count - 1, load_slot), count - 1

    def load(slots: Array, k: int, j: int) -> Any:
        return others(slots, k, j) + (load_slot(slots, last, k, j),)  # noqa: RUF005 (numba's tuples)

    return strict_part(load)


def slot_storer(count: int, store_slot: Any) -> Any:
    """Return a part that stores what a step returned for `count` slots, by `store_slot`."""
    if count == 0:

        def none(slots: Array, k: int, j: int, stepped: Any) -> None:
            pass

        return strict_part(none)
    others, last = slot_storer(count - 1, store_slot), count - 1

    def store(slots: Array, k: int, j: int, stepped: Any) -> None:
        others(slots, k, j, stepped)
        store_slot(slots, last, k, j, stepped[count])

    return strict_part(store)


shrink = compiled_source(soft_threshold, strict_part)
"""The proximal step of an l1 penalty."""
