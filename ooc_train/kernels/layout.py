"""The workspace of compiled updates: where each array lies, how it is filled and copied back.

Most of the workspace is the array "room". Its rows are whole vectors: rows of the scaling and the
penalty, eight rows of X, and three rows for each output. Separate or unaligned arrays would keep
compiled loops from using vectors. A task fills the workspace once, and copies parameters back once
at its end. The average of the parameters lies elsewhere, since few updates write to it.
"""

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.packing import STRIP
from ooc_train.core.sums import Array, Arrays, ArraySpec, Workspace

Rows = NDArray[np.float32] | NDArray[np.float64]
Integers = NDArray[np.int64]

GROUP = 32
"""Rows of a batch that updates process at a time. Slopes of several vectors wait for one another
less, and the rows are still in the nearest cache when the gradient is computed."""

LANES = 8
"""Numbers of a vector: a register of the largest processors; others use several registers."""

_PANEL = 64
"""Scaled rows of a strip of outer products. A strip (8 KB) and the part of another one that meets
it are in the nearest cache."""

MEAN, INV_SCALE, L2, L1, ROWS, OUTPUTS = 0, 1, 2, 3, 4, 12
"""Rows of the array "room". Two quads of scaled rows of X begin at `ROWS`, and the rows of the
outputs at `OUTPUTS`."""

THETA, PARTIAL, W, EACH = 0, 1, 2, 3
"""The `EACH` rows of an output: parameters of the scaled columns, the gradient of a batch by
parameters in the data's units, and the parameters in the data's units."""

AGE, AVERAGED, WEIGHT = 0, 1, 2
"""Entries of a scan's clock: steps of the optimizer, where an incomplete batch counts as a
fraction; parameters in the average; weight of the rows in the unfinished batch."""


def outer_workspace(rows: int, columns: int) -> Workspace:
    """Return the scratch arrays of outer products of so many columns, for calls of `rows` rows."""
    strips = -(-columns // STRIP)
    strip_rows = strips * max(1, min(rows, _PANEL))
    return {
        "scaled": ArraySpec((strip_rows, STRIP)),
        "weighted": ArraySpec((strip_rows, STRIP)),
    }


def scan_workspace(rows: int, features: int, outputs: int) -> Workspace:
    """Return the scratch arrays of updates, for calls of at most `rows` rows."""
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

    Entries beyond the last column become zero.
    """
    room, features = workspace["room"], len(mean)
    room[...] = 0.0
    for row, values in ((MEAN, mean), (INV_SCALE, inv_scale), (L2, l2), (L1, l1)):
        room[row, :features] = values
    room[OUTPUTS + THETA :: EACH, :features] = theta[:, :-1]
    room[OUTPUTS + PARTIAL :: EACH, :features] = partial[:, :-1]
    np.multiply(room[OUTPUTS + THETA :: EACH], room[INV_SCALE], out=room[OUTPUTS + W :: EACH])


def leave(workspace: Arrays, theta: Array, partial: Array) -> None:
    """Copy parameters and the unfinished gradient from the workspace into arrays."""
    room, features = workspace["room"], theta.shape[1] - 1
    theta[:, :-1] = room[OUTPUTS + THETA :: EACH, :features]
    partial[:, :-1] = room[OUTPUTS + PARTIAL :: EACH, :features]
