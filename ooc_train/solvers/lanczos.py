"""The largest eigenvalue of a matrix that is known by its products with vectors alone.

Lanczos's method: each vector is the last product, made orthogonal to all vectors before (Golub and
Van Loan 2013, section 10.3.1). The largest eigenvalue on their span is at most that of the matrix.
After six products it is hardly less, since the method begins with a random vector: the error is
that of the best polynomial of degree five (Kuczynski and Wozniakowski 1992, theorem 3.2).
"""

import numpy as np

from ooc_train.core.sums import Array

PRODUCTS = 6
"""Products with the matrix, each of which is a pass over a sample."""

_DEPENDENT = 1e-10
"""Share of a product that is left orthogonal to all vectors where it is rounding error."""


def first_vector(columns: int) -> Array:
    """Return the start vector, of norm 1: random, from a fixed seed."""
    vector = np.random.default_rng(0).standard_normal(columns)
    return vector / float(np.linalg.norm(vector))


def next_vector(vectors: Array, products: Array) -> Array | None:
    """Return the vector whose product is needed next; None if the products are enough.

    Parameters
    ----------
    vectors, products : float64 arrays (n, columns)
        The vectors so far, and the products of the matrix with them.
    """
    if len(vectors) == min(PRODUCTS, vectors.shape[1]):
        return None
    left: Array = products[-1]
    for _ in range(2):  # once more removes what rounding has left
        left = left - (vectors @ left) @ vectors
    size = float(np.linalg.norm(left))
    if size <= _DEPENDENT * float(np.linalg.norm(products[-1])):
        return None
    following: Array = left / size
    return following


def largest_eigenvalue(vectors: Array, products: Array) -> float:
    """Return the largest eigenvalue of a symmetric matrix on the span of the vectors."""
    projected = vectors @ products.T
    return float(np.linalg.eigvalsh(0.5 * (projected + projected.T))[-1])
