"""Sums of the gradients of rows, each scaled down to a norm: kernels of linear models and networks.

A row's gradient by the weights of a layer is the product of the slopes by the layer's outputs and
of its inputs. So its norm is the product of two norms, and no gradient of a row is ever made
(Goodfellow 2015). A linear model is one layer.
"""

from typing import Any

import numpy as np

from ooc_train.core.sums import Array
from ooc_train.kernels.compiled.full_batch import slope_of
from ooc_train.kernels.compiled.loop_parts import ActivationParts, LossParts
from ooc_train.kernels.compiled.network_passes import multiply
from ooc_train.kernels.compiled.parts import FAR, part, prefetch
from ooc_train.kernels.compiled.vectors import load_row, store_row, total, zeros
from ooc_train.kernels.layout import LANES, Integers, Rows


@part
def _factor(square: float, most: float) -> Any:
    """Return what scales a gradient of a squared norm down to a norm; NaN if it has none."""
    norm = np.sqrt(square)
    factor = most / norm if norm > most else 1.0
    return factor if norm < np.inf else np.nan


@part
def _predict(
    X: Rows, taken: Integers, first: int, count: int, W: Array, b: Array, Z: Array, squares: Array
) -> None:
    """Write predictors and squared norms of rows `taken`, from number `first` on."""
    features, stop = X.shape[1], len(taken)
    for i in range(0, count, 4):
        for ahead in range(first + i + FAR, first + i + FAR + 4):
            prefetch(X, taken[min(ahead, stop - 1)])
        # A quad of too few rows repeats its last one, whose results are written again.
        i1, i2, i3 = min(i + 1, count - 1), min(i + 2, count - 1), min(i + 3, count - 1)
        r0, r1 = taken[first + i], taken[first + i1]
        r2, r3 = taken[first + i2], taken[first + i3]
        s0 = s1 = s2 = s3 = zeros()
        for j in range(0, features, LANES):
            x0, x1 = load_row(X, r0, j), load_row(X, r1, j)
            x2, x3 = load_row(X, r2, j), load_row(X, r3, j)
            s0 += x0 * x0
            s1 += x1 * x1
            s2 += x2 * x2
            s3 += x3 * x3
        squares[i], squares[i1] = total(s0), total(s1)
        squares[i2], squares[i3] = total(s2), total(s3)
        for k in range(len(W)):
            z0 = z1 = z2 = z3 = zeros()
            for j in range(0, features, LANES):
                w = load_row(W, k, j)
                z0 += w * load_row(X, r0, j)
                z1 += w * load_row(X, r1, j)
                z2 += w * load_row(X, r2, j)
                z3 += w * load_row(X, r3, j)
            Z[i, k] = total(z0) + b[k]
            Z[i1, k] = total(z1) + b[k]
            Z[i2, k] = total(z2) + b[k]
            Z[i3, k] = total(z3) + b[k]


@part
def _accumulate(X: Rows, taken: Integers, first: int, count: int, R: Array, G: Array) -> None:
    """Add the products of rows `taken`, and of a 1, with their slopes `R` to `G`."""
    features = X.shape[1]
    whole = count - count % 4
    for i in range(0, whole, 4):
        at = first + i
        a, b, c, d = taken[at], taken[at + 1], taken[at + 2], taken[at + 3]
        for k in range(len(G)):
            r0, r1, r2, r3 = R[i, k], R[i + 1, k], R[i + 2, k], R[i + 3, k]
            for j in range(0, features, LANES):
                g = load_row(G, k, j) + r0 * load_row(X, a, j)
                g += r1 * load_row(X, b, j)
                g += r2 * load_row(X, c, j)
                g += r3 * load_row(X, d, j)
                store_row(G, k, j, features, g)
            G[k, features] += (r0 + r1) + (r2 + r3)
    for i in range(whole, count):
        row = taken[first + i]
        for k in range(len(G)):
            r = R[i, k]
            for j in range(0, features, LANES):
                store_row(G, k, j, features, load_row(G, k, j) + r * load_row(X, row, j))
            G[k, features] += r


def add_clipped_of(loss: LossParts) -> Any:
    """Return the kernel `add_clipped` for a loss."""
    slope = slope_of(loss)

    @part
    def add_clipped(arguments: Any) -> None:
        X, y, taken = arguments.X, arguments.y, arguments.taken
        Y, Z, R, G, squares = (
            arguments.Y,
            arguments.Z,
            arguments.R,
            arguments.G,
            arguments.squares,
        )
        rows, start = len(taken), 0
        while start < rows:  # a range of a step that may be zero could raise
            n = min(len(Z), rows - start)
            _predict(X, taken, start, n, arguments.W, arguments.b, Z, squares)
            for i in range(n):
                for k in range(y.shape[1]):
                    Y[i, k] = y[taken[start + i], k]
            slope(
                arguments.loss,
                Y[:n],
                arguments.own,
                Z[:n],
                arguments.weight,
                R[:n],
                arguments.sums,
                arguments.cells,
            )
            for i in range(n):
                square = 0.0
                for k in range(len(G)):
                    square += R[i, k] * R[i, k]
                factor = _factor((squares[i] + arguments.constant) * square, arguments.most)
                for k in range(len(G)):
                    R[i, k] *= factor
            _accumulate(X, taken, start, n, R, G)
            start += n

    return add_clipped


def network_clipped_of(activation: ActivationParts) -> Any:
    """Return the kernel `network_clipped` for an activation."""
    slope_of_unit = activation.slope

    @part
    def add_squares(
        inputs: Array, first: int, slopes: Array, at: int, before: int, units: int, squares: Array
    ) -> None:
        """Add the squared norms of rows' gradients by the weights and biases of a layer."""
        for i in range(len(squares)):
            of_slopes, of_inputs = 0.0, 1.0
            for j in range(units):
                slope = np.float64(slopes[at + i * units + j])
                of_slopes += slope * slope
            for j in range(before):
                value = np.float64(inputs[first + i * before + j])
                of_inputs += value * value
            squares[i] += of_slopes * of_inputs

    @part
    def add_squares_of_rows(X: Rows, slopes: Array, at: int, units: int, squares: Array) -> None:
        """Add the squared norms of rows' gradients by the first layer, whose inputs are `X`."""
        for i in range(len(squares)):
            of_slopes, of_inputs = 0.0, 1.0
            for j in range(units):
                slope = np.float64(slopes[at + i * units + j])
                of_slopes += slope * slope
            for j in range(X.shape[1]):
                value = np.float64(X[i, j])
                of_inputs += value * value
            squares[i] += of_slopes * of_inputs

    @part
    def scale_and_sum(
        slopes: Array, start: int, units: int, factors: Array, out: Array, at: int
    ) -> None:
        """Scale the slopes of each row, and write their sums by unit."""
        for j in range(units):
            out[at + j] = 0.0
        for i in range(len(factors)):
            factor = factors[i]
            for j in range(units):
                slope = slopes[start + i * units + j] * factor
                slopes[start + i * units + j] = slope
                out[at + j] += slope

    @part
    def network_clipped(arguments: Any) -> None:
        X, params, sizes, gemm = arguments.X, arguments.params, arguments.sizes, arguments.gemm
        values, R, slopes, squares = (
            arguments.values,
            arguments.R,
            arguments.slopes,
            arguments.squares,
        )
        gradient, frozen = arguments.gradient, arguments.frozen
        inputs = arguments.inputs if len(arguments.inputs) else values
        rows, last = len(X), len(sizes) - 2
        first, at = 0, len(params)
        for layer in range(last):
            first += rows * sizes[layer + 1]
        for i in range(rows):
            squares[i] = 0.0
            for j in range(sizes[last + 1]):
                slopes[first + i * sizes[last + 1] + j] = R[i, j]
        # `first` is where the layer's slopes begin, and those of the layer before where its
        # inputs do: slopes lie as values do, followed by those by the predictors.
        for layer in range(last, frozen - 1, -1):
            before, units = sizes[layer], sizes[layer + 1]
            at -= (before + 1) * units
            if layer == 0:
                add_squares_of_rows(X, slopes, first, units, squares)
                break
            below = first - rows * before
            add_squares(values, below, slopes, first, before, units, squares)
            if layer > frozen:
                multiply(gemm, 2, rows, before, units, slopes, first, params, at, slopes, below)
                for j in range(below, first):
                    slopes[j] *= slope_of_unit(arguments.loss, inputs[j], values[j])
            first = below
        for i in range(rows):
            squares[i] = _factor(squares[i], arguments.most)
        at, first, below = 0, 0, 0
        for layer in range(last + 1):
            before, units = sizes[layer], sizes[layer + 1]
            biases = at + before * units
            if layer < frozen:
                for j in range(at, biases + units):
                    gradient[j] = 0.0
            else:
                scale_and_sum(slopes, first, units, squares, gradient, biases)
                if layer == 0:
                    multiply(gemm, 1, before, units, rows, X, 0, slopes, first, gradient, at)
                else:
                    multiply(
                        gemm, 1, before, units, rows, values, below, slopes, first, gradient, at
                    )
            at = biases + units
            below, first = first, first + rows * units

    return network_clipped
