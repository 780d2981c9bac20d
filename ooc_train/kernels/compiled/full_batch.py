"""Loops over rows of a full batch, where NumPy would allocate a temporary array for each step.

`add_rows_of` makes a full-batch pass over one chunk: X times parameters, the loss, and its
derivative times X.
"""

from typing import Any

from ooc_train.core.sums import Array
from ooc_train.kernels.compiled.loop_parts import LossParts, own_class_factor, target_of
from ooc_train.kernels.compiled.parts import part
from ooc_train.kernels.compiled.vectors import load_row, store_row, total, zeros
from ooc_train.kernels.layout import LANES, Rows


@part
def _predict(X: Rows, W: Array, b: Array, Z: Array) -> None:
    """Write ``Z[i, k] = sum_j X[i, j] W[k, j] + b[k]``, added up in float64."""
    rows, features = X.shape
    whole = rows - rows % 4
    for i in range(0, whole, 4):  # four rows share a load of W and hide each other's latency
        for k in range(len(W)):
            z0 = z1 = z2 = z3 = zeros()
            for j in range(0, features, LANES):
                w = load_row(W, k, j)
                z0 += w * load_row(X, i, j)
                z1 += w * load_row(X, i + 1, j)
                z2 += w * load_row(X, i + 2, j)
                z3 += w * load_row(X, i + 3, j)
            Z[i, k] = total(z0) + b[k]
            Z[i + 1, k] = total(z1) + b[k]
            Z[i + 2, k] = total(z2) + b[k]
            Z[i + 3, k] = total(z3) + b[k]
    for i in range(whole, rows):
        for k in range(len(W)):
            z0 = zeros()
            for j in range(0, features, LANES):
                z0 += load_row(W, k, j) * load_row(X, i, j)
            Z[i, k] = total(z0) + b[k]


@part
def accumulate(X: Rows, R: Array, G: Array) -> None:
    """Add ``R.T @ (X, 1)`` to `G`, in float64 from the first row.

    Parameters
    ----------
    R : (rows, outputs) array
        Derivative of the loss by the predictor.
    G : (outputs, features + 1) array
        Gradient by the weights and, last, the intercepts; added to in place.
    """
    rows, features = X.shape
    whole = rows - rows % 8
    for i in range(0, whole, 8):  # eight rows share a load and a store of G
        for k in range(len(G)):
            r0, r1, r2, r3 = R[i, k], R[i + 1, k], R[i + 2, k], R[i + 3, k]
            r4, r5, r6, r7 = R[i + 4, k], R[i + 5, k], R[i + 6, k], R[i + 7, k]
            for j in range(0, features, LANES):
                g = load_row(G, k, j) + r0 * load_row(X, i, j)
                g += r1 * load_row(X, i + 1, j)
                g += r2 * load_row(X, i + 2, j)
                g += r3 * load_row(X, i + 3, j)
                g += r4 * load_row(X, i + 4, j)
                g += r5 * load_row(X, i + 5, j)
                g += r6 * load_row(X, i + 6, j)
                g += r7 * load_row(X, i + 7, j)
                store_row(G, k, j, features, g)
            G[k, features] += ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7))
    for i in range(whole, rows):
        for k in range(len(G)):
            r = R[i, k]
            for j in range(0, features, LANES):
                store_row(G, k, j, features, load_row(G, k, j) + r * load_row(X, i, j))
            G[k, features] += r


@part
def predictor(arguments: Any) -> None:
    """Run the kernel, see `predictor` in `kernels.api`."""
    _predict(arguments.X, arguments.W, arguments.b, arguments.Z)


def _pointwise(loss: LossParts) -> Any:
    value_of, slope_of_one = loss.value, loss.slope

    @part
    def column_slope(
        h: Any,
        y: Array,
        own: Array,
        Z: Array,
        weight: Array,
        R: Array,
        column: int,
        by_z: bool,
        coded: bool,
    ) -> Any:
        """Sum a loss over a column of predictors; its derivative goes to that of `R`."""
        weighted, outputs = len(weight) > 0, len(own)
        k, added = column % outputs, 0.0
        for i in range(len(Z)):
            w = weight[i] if weighted else 1.0
            due = y[i, k]
            if coded:
                w *= own_class_factor(y, own, i, k)
                due = target_of(y, i, k, outputs)
            added += w * value_of(h, due, Z[i, column])
            if by_z:
                R[i, column] = w * slope_of_one(h, due, Z[i, column])
        return added

    @part
    def slope(
        h: Any,
        y: Array,
        own: Array,
        Z: Array,
        weight: Array,
        R: Array,
        sums: Array,
        cells: Array,
    ) -> None:
        outputs = cells.shape[1]
        for m in range(len(sums)):
            for k in range(outputs):
                column = m * outputs + k
                by_z = column < R.shape[1]
                # The loop is made of vectors where it need not ask what y holds.
                if y.shape[1] == outputs:
                    sums[m] += column_slope(h, y, own, Z, weight, R, column, by_z, False)
                else:
                    sums[m] += column_slope(h, y, own, Z, weight, R, column, by_z, True)

    return slope


def _rowwise(loss: LossParts) -> Any:
    row = loss.row

    @part
    def slope(
        h: Any,
        y: Array,
        own: Array,  # noqa: ARG001 (numba takes no `del`)
        Z: Array,
        weight: Array,
        R: Array,
        sums: Array,
        cells: Array,
    ) -> None:
        outputs, weighted = cells.shape[1], len(weight) > 0
        z, r = cells[0], cells[1]
        for i in range(len(Z)):
            w = weight[i] if weighted else 1.0
            for m in range(len(sums)):
                first = m * outputs
                for k in range(outputs):
                    z[k] = Z[i, first + k]
                sums[m] += w * row(h, y, i, z, r)
                if first < R.shape[1]:
                    for k in range(outputs):
                        R[i, first + k] = w * r[k]

    return slope


def slope_of(loss: LossParts) -> Any:
    """Return a part that adds each model's loss to sums, and writes the slopes.

    The part takes hyperparameters, `y`, factors of own classes (outputs,), predictors `Z` (rows,
    models * outputs), weights (rows,) or none, and `sums` (models,). It writes to `R` (rows,
    gradients * outputs) the slopes of the first models, and works in `cells` (2, outputs). A class
    that doesn't exist makes the sum a NaN.
    """
    return _rowwise(loss) if loss.rowwise else _pointwise(loss)


def add_rows_of(loss: LossParts) -> Any:
    """Return the kernel `add_rows` for a loss."""
    slope = slope_of(loss)

    @part
    def add_rows(arguments: Any) -> Any:
        X, y, weight, sums = arguments.X, arguments.y, arguments.weight, arguments.sums
        Z, R, G = arguments.Z, arguments.R, arguments.G
        rows, start = len(X), 0
        while start < rows:  # a range of a step that may be zero could raise
            n = min(len(Z), rows - start)
            part_of_X = X[start : start + n]
            part_weight = weight[start : start + n] if len(weight) else weight
            _predict(part_of_X, arguments.W, arguments.b, Z[:n])
            part_y = y[start : start + n]
            slope(
                arguments.loss,
                part_y,
                arguments.own,
                Z[:n],
                part_weight,
                R[:n],
                sums,
                arguments.cells,
            )
            if len(G):
                accumulate(part_of_X, R[:n], G)
            start += n
        losses = 0.0
        for m in range(len(sums)):
            losses += sums[m]
        return losses

    return add_rows
