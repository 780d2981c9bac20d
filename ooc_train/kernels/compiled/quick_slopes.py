"""The slope of the logistic loss of a single row, since the next row waits for it."""

from typing import Any

import numpy as np

from ooc_train.kernels.compiled.parts import LN2, LN2_REST, LOG2_E, TWO52, strict_part

_STEPS = 128
_POWERS = np.exp2(np.arange(_STEPS) / _STEPS).view(np.int64)
"""The bits of the powers of two from 1 to 2."""


@strict_part
def quick_logistic_slope(h: Any, y: float, z: float) -> Any:  # noqa: ARG001 (no fields)
    """Probability that y is 1, minus y, of a single row.

    The exponential is by a table (Tang 1989), since a short polynomial takes half as long as a long
    one. The error of the probability is 2e-16, and for small ones 1e-13 of the probability.
    """
    a = 708.0 if z < -708.0 else -z
    a = -708.0 if a < -708.0 else a
    shifted = a * (LOG2_E * _STEPS) + 1.5 * TWO52
    whole = np.float64(shifted).view(np.int64)
    r = a - (shifted - 1.5 * TWO52) * ((LN2 + LN2_REST) / _STEPS)
    power = np.int64(_POWERS[whole & (_STEPS - 1)] + ((whole >> 7) << 52)).view(np.float64)
    s = r * r
    e = power * (r + s * ((1 / 2 + r * (1 / 6)) + s * (1 / 24 + r * (1 / 120))))
    return 1.0 / ((1.0 + power) + e) - y
