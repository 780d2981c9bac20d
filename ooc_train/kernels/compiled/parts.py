"""How loops over rows are compiled, and an exponential and a logarithm that can be vectorised."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ooc_train.core.sums import Array
from ooc_train.kernels.layout import Rows

FAR = 8
"""Number of rows that a scan prefetches ahead."""

Function = TypeVar("Function", bound=Callable[..., Any])

# Lets sums be vectorised. Not ``fastmath=True``: it would drop the checks for NaN.
_OPTIONS: Any = {"fastmath": {"reassoc", "contract"}, "error_model": "numpy"}
_STRICT: Any = {"fastmath": {"contract"}, "error_model": "numpy"}
_INLINED: Any = {"forceinline": True, "no_cfunc_wrapper": True}


def part(function: Function) -> Function:
    """Compile as a part of the loops that call it.

    Parts take whole arrays and indices, never views. A view counts references by an atomic
    instruction, which cost as much as the arithmetic of a row.
    """
    compiled: Function = njit(**_OPTIONS, **_INLINED)(function)
    return compiled


def strict_part(function: Function) -> Function:
    """Compile as a part that adds up in the order of its source.

    So its bits depend neither on the function that inlines it, nor on the rows of a call.
    """
    compiled: Function = njit(**_STRICT, **_INLINED)(function)
    return compiled


LOG2_E = 1.0 / np.log(2.0)
LN2, LN2_REST = 6.93147180369123816490e-01, 1.90821492927058770002e-10
"""Their sum is log(2) to 85 bits, and the first times a small whole number is exact."""

_SMALLEST_NORMAL, _TWO54 = float(np.finfo(np.float64).tiny), 2.0**54
TWO52 = 2.0**52
_WHOLE = 1.5 * TWO52
_WHOLE_BITS = int(np.float64(_WHOLE).view(np.int64))
_SQRT_HALF_BITS = int(np.float64(0.5**0.5).view(np.int64))
"""A whole number plus 1.5 * 2 ** 52 has the number in its last bits: a conversion for vectors."""


# Exponential and logarithm as polynomials, since compilers don't vectorise calls of the C library:
# 2 ns a row for loss and derivative, and 13 in NumPy. The powers are written out, since loops over
# coefficients aren't vectorised either. Strict: reassociation would cancel the corrections.
@strict_part
def exp(x: float) -> Any:
    """Return ``exp(x)``, within 1 ulp: 0 below -708, infinity beyond 709.78, NaN of NaN."""
    a = -708.0 if x < -708.0 else x
    a = 710.0 if a > 710.0 else a
    shifted = a * LOG2_E + 1.5 * TWO52
    k = shifted - 1.5 * TWO52
    # Half the power, and twice the result, since the largest power is infinite.
    power = np.int64((np.float64(shifted).view(np.int64) << 52) + (1022 << 52)).view(np.float64)
    r = (a - k * LN2) - k * LN2_REST
    s = r * r
    e = 1 / 479001600 + r * (1 / 6227020800)  # Taylor's series, in pairs
    e = (1 / 3628800 + r * (1 / 39916800)) + s * e
    e = (1 / 40320 + r * (1 / 362880)) + s * e
    e = (1 / 720 + r * (1 / 5040)) + s * e
    e = (1 / 24 + r * (1 / 120)) + s * e
    e = (1 / 2 + r * (1 / 6)) + s * e
    e = 2.0 * (power * (1.0 + (r + s * e)))
    return 0.0 if x < -708.0 else e


@strict_part
def log(x: float) -> Any:
    """Return ``log(x)``, within 1 ulp of x >= 1: -infinity of 0, NaN of x < 0 and of NaN."""
    tiny = x < _SMALLEST_NORMAL
    bits = np.float64(_TWO54 * x if tiny else x).view(np.int64)
    k = (bits - _SQRT_HALF_BITS) >> 52
    n = np.int64(k + _WHOLE_BITS).view(np.float64) - (_WHOLE + 54.0 if tiny else _WHOLE)
    f = np.int64(bits - (k << 52)).view(np.float64) - 1.0  # x = 2 ** k (1 + f)
    q = f / (2.0 + f)  # log(1 + f) = 2 atanh(q), and q is at most 0.172
    s = q * q
    t = 1 / 19 + s * (1 / 21 + s * (1 / 23))
    t = 1 / 13 + s * (1 / 15 + s * (1 / 17 + s * t))
    t = 1 / 7 + s * (1 / 9 + s * (1 / 11 + s * t))
    t = s * (1 / 3 + s * (1 / 5 + s * t))
    value = n * LN2 + (f - (q * (f - 2.0 * t) - n * LN2_REST))
    finite = value if x > 0.0 else (-np.inf if x == 0.0 else np.nan)
    return x if x == np.inf else finite


@strict_part
def tanh(x: float) -> Any:
    """Return ``tanh(x)``, within 4 ulp; NaN of NaN."""
    s = x * x
    # Taylor's series, where the difference of the exponential from 1 would lose digits.
    series = x * (1.0 + s * (-1 / 3 + s * (2 / 15 + s * (-17 / 315 + s * (62 / 2835)))))
    e = exp(-2.0 * abs(x))
    far = (1.0 - e) / (1.0 + e)
    return series if abs(x) < 0.04 else (far if x > 0.0 else -far)


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(typing_context: Any, array: Any, offset: Any) -> Any:  # noqa: ARG001 (numba's protocol)
    """Ask for the cache line that is `offset` bytes into an array (LLVM's `llvm.prefetch`)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.gep(builder.bitcast(data, byte), [arguments[1]])
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, near, of_data = word(0), word(3), word(1)
        builder.call(function, [place, read, near, of_data])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@part
def prefetch(X: Rows, i: int) -> None:
    """Load row `i` of X into the nearest cache while other rows are processed."""
    size = X.shape[1] * X.itemsize
    for offset in range(i * size, (i + 1) * size, 64):
        _prefetch(X, offset)


@strict_part
def rate_after(rates: Array, updates: int) -> Any:
    """Learning rate after `updates` updates, by a `RateTable`."""
    return rates[updates & (len(rates) - 1)]
