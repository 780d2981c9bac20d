"""The room that updates work in: what they go through, side by side and in whole vectors.

It is an array of rows: of the scaling and the penalty, of eight rows of X, and of what there is of
each output. `fill` puts there what a call is given, and `leave` takes back what it changed. The
average of the parameters is not part of it, since few updates write to it.
"""

from ooc_train.core.sums import Array
from ooc_train.kernels.api import AVERAGED, ROOM_ROWS, ROOM_ROWS_OF_OUTPUT
from ooc_train.kernels.compiled.parts import strict_part
from ooc_train.kernels.compiled.vectors import LANES, load, load_row, store_row
from ooc_train.optimizers.averaging import AVERAGE_POWER

__all__ = [
    "EACH",
    "INV_SCALE",
    "L2",
    "MEAN",
    "OUTPUTS",
    "PARTIAL",
    "ROWS",
    "THETA",
    "W",
    "average_with",
    "fill",
    "leave",
    "predict_by_theta",
]

MEAN, INV_SCALE, L2, ROWS, OUTPUTS = 0, 1, 2, 3, ROOM_ROWS
"""Rows of the room: at `ROWS` begin two quads of rows of X, scaled, and at `OUTPUTS`, which is
`ROOM_ROWS`, what there is of each output."""

THETA, PARTIAL, W, EACH = 0, 1, 2, ROOM_ROWS_OF_OUTPUT
"""Of each output: parameters of the scaled columns, the sum of a batch's gradients, and parameters
that predict from rows as they lie."""


@strict_part
def predict_by_theta(room: Array, outputs: int) -> None:
    """Bring the parameters that predict from rows as they lie up to date."""
    for k in range(outputs):
        at = OUTPUTS + EACH * k
        for j in range(room.shape[1]):
            room[at + W, j] = room[at + THETA, j] * room[INV_SCALE, j]


@strict_part
def average_with(average: Array, clock: Array, theta: Array, room: Array) -> None:
    """Take the parameters into their average; of `theta`, only the intercepts are looked at."""
    features = theta.shape[1] - 1
    clock[AVERAGED] += 1.0
    share = (AVERAGE_POWER + 1.0) / (AVERAGE_POWER + clock[AVERAGED])
    for k in range(len(theta)):
        at = OUTPUTS + EACH * k
        for j in range(0, features, LANES):
            mean = load_row(average, k, j)
            mean += share * (load(room, at + THETA, j) - mean)
            store_row(average, k, j, features, mean)
        average[k, features] += share * (theta[k, features] - average[k, features])


@strict_part
def fill(
    room: Array, theta: Array, partial: Array, mean: Array, inv_scale: Array, l2: Array
) -> None:
    """Write what a call is given; what is beyond the last column is zero."""
    outputs, features = len(theta), len(mean)
    for i in range(len(room)):
        for j in range(room.shape[1]):
            room[i, j] = 0.0
    for j in range(features):
        room[MEAN, j], room[INV_SCALE, j], room[L2, j] = mean[j], inv_scale[j], l2[j]
    for k in range(outputs):
        at = OUTPUTS + EACH * k
        for j in range(features):
            room[at + THETA, j], room[at + PARTIAL, j] = theta[k, j], partial[k, j]
    predict_by_theta(room, outputs)


@strict_part
def leave(room: Array, theta: Array, partial: Array) -> None:
    """Take parameters and gradients back."""
    for k in range(len(theta)):
        at = OUTPUTS + EACH * k
        for j in range(theta.shape[1] - 1):
            theta[k, j], partial[k, j] = room[at + THETA, j], room[at + PARTIAL, j]
