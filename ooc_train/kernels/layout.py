"""The workspace of compiled updates: where each thing lies, how it is filled, and left.

Most of it is one array of rows, side by side and in whole vectors: rows of the scaling and the
penalty, eight rows of X, and three rows of each output. Where arrays lie close to one another, or
end in the midst of a vector, compiled loops would run without vectors. The workspace is filled once
a task and left once at its end. The average of the parameters is not part of it, since few updates
write to it.
"""

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array, Arrays, ArraySpec, Workspace

Rows = NDArray[np.float32] | NDArray[np.float64]
Integers = NDArray[np.int64]

GROUP = 32
"""Rows of a batch that updates take at a time: slopes of several vectors wait for one another less,
and the rows are still in the nearest cache when the gradient is made of them."""

LANES = 8
"""Numbers of a vector: those of a register of the largest processors; others take several."""

MEAN, INV_SCALE, L2, L1, ROWS, OUTPUTS = 0, 1, 2, 3, 4, 12
"""Rows of the array "room". At `ROWS` begin two quads of scaled rows of X, at `OUTPUTS` the rows of
the outputs."""

THETA, PARTIAL, W, EACH = 0, 1, 2, 3
"""Rows of each output, which has `EACH`: parameters of the scaled columns, the sum of a batch's
gradients by predictor times row of X, and parameters that predict from rows as they lie."""

AGE, AVERAGED, WEIGHT = 0, 1, 2
"""Entries of a scan's clock: batches that the optimizer's slots have seen, an incomplete one as the
part of a batch that it is; parameters that were taken into the average; weight of the rows in the
unfinished batch."""


def scan_workspace(rows: int, features: int, outputs: int) -> Workspace:
    """Return the arrays that updates work in, for calls of at most `rows` rows."""
    width = -(-features // LANES) * LANES
    return {
        "pairs": ArraySpec((2, rows, outputs)),
        "room": ArraySpec((OUTPUTS + EACH * outputs, width)),
        "each": ArraySpec((3, outputs)),
        "group": ArraySpec((2 * outputs + 8, GROUP)),
        "places": ArraySpec((GROUP,), "<i8"),
    }


def fill(
    workspace: Arrays,
    theta: Array,
    partial: Array,
    mean: Array,
    inv_scale: Array,
    l2: Array,
    l1: Array,
) -> None:
    """Write scaling, penalty, parameters and the unfinished gradient into the workspace.

    What lies beyond the last column is zero.
    """
    room, features = workspace["room"], len(mean)
    room[...] = 0.0
    for row, values in ((MEAN, mean), (INV_SCALE, inv_scale), (L2, l2), (L1, l1)):
        room[row, :features] = values
    room[OUTPUTS + THETA :: EACH, :features] = theta[:, :-1]
    room[OUTPUTS + PARTIAL :: EACH, :features] = partial[:, :-1]
    np.multiply(room[OUTPUTS + THETA :: EACH], room[INV_SCALE], out=room[OUTPUTS + W :: EACH])


def leave(workspace: Arrays, theta: Array, partial: Array) -> None:
    """Copy parameters and the unfinished gradient back."""
    room, features = workspace["room"], theta.shape[1] - 1
    theta[:, :-1] = room[OUTPUTS + THETA :: EACH, :features]
    partial[:, :-1] = room[OUTPUTS + PARTIAL :: EACH, :features]
