"""Symmetric matrices as packed lower triangles, in the order in which kernels add them up.

Columns are cut into strips of 16, and each strip has the rows from its own diagonal on, one after
another. So the whole takes half of the matrix's memory, and a few rows of a strip lie together.
Rows and columns beyond the matrix, to the next multiple of 16, are zero.
"""

from collections.abc import Iterator

import numpy as np

from ooc_train.core.sums import Array

STRIP = 16
"""Number of columns of a strip."""


def _strips(columns: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first column, start, stop) of each strip; start and stop index packed numbers."""
    height, at = -(-columns // STRIP) * STRIP, 0
    for first in range(0, columns, STRIP):
        size = (height - first) * STRIP
        yield first, at, at + size
        at += size


def packed_size(columns: int) -> int:
    """Return the length of a packed matrix of `columns` columns."""
    strips = -(-columns // STRIP)
    return STRIP * STRIP * (strips * (strips + 1) // 2)


def add_packed(packed: Array, matrix: Array) -> None:
    """Add a symmetric matrix (columns, columns) to a packed matrix, in place."""
    columns = len(matrix)
    for first, start, stop in _strips(columns):
        part = matrix[first:, first : first + STRIP]
        packed[start:stop].reshape(-1, STRIP)[: len(part), : part.shape[1]] += part


def unpacked(packed: Array, columns: int) -> Array:
    """Return the symmetric matrix (columns, columns) that a packed matrix holds."""
    whole = np.empty((columns, columns))
    for first, start, stop in _strips(columns):
        strip = packed[start:stop].reshape(-1, STRIP)[: columns - first, : columns - first]
        whole[first:, first : first + STRIP] = strip
        whole[first : first + STRIP, first:] = strip.T
        square = strip[: strip.shape[1]]
        lower = np.tril(square)
        whole[first : first + STRIP, first : first + STRIP] = lower + np.tril(lower, -1).T
    return whole


def packed_diagonal(packed: Array, columns: int) -> Array:
    """Return the diagonal of a packed matrix, (columns,)."""
    parts = [packed[start : start + STRIP * STRIP : STRIP + 1] for _, start, _ in _strips(columns)]
    return np.concatenate(parts)[:columns]
