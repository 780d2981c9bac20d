"""Lanczos's method against NumPy's eigenvalues."""

import numpy as np
import pytest

from ooc_train.solvers.lanczos import PRODUCTS, first_vector, largest_eigenvalue, next_vector


def estimate(matrix):
    """Return the largest eigenvalue by products, and their number."""
    vectors, products = first_vector(len(matrix))[None], np.empty((0, len(matrix)))
    while True:
        products = np.vstack([products, matrix @ vectors[-1]])
        vector = next_vector(vectors, products)
        if vector is None:
            return largest_eigenvalue(vectors, products), len(products)
        vectors = np.vstack([vectors, vector])
        np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(vectors)), atol=1e-12)


@pytest.mark.parametrize("columns", [1, 2, PRODUCTS, PRODUCTS + 1])
def test_as_many_products_as_columns_are_exact(columns):
    rows = np.random.default_rng(0).normal(size=(20, columns))
    found, products = estimate(rows.T @ rows)
    assert found == pytest.approx(np.linalg.eigvalsh(rows.T @ rows)[-1], rel=1e-3)
    if columns <= PRODUCTS:
        assert found == pytest.approx(np.linalg.eigvalsh(rows.T @ rows)[-1], rel=1e-12)
    assert products == min(columns, PRODUCTS)


@pytest.mark.parametrize(
    ("eigenvalues", "products"),
    [
        (np.zeros(50), 1),
        (np.full(50, 3.0), 1),
        (np.append(np.zeros(49), 1e-12), 2),
        (np.append(np.full(49, 1.0), 1e9), 2),
        (np.linspace(0.0, 1.0, 50), PRODUCTS),
        (np.geomspace(1e-9, 1e9, 50), PRODUCTS),
    ],
    ids=["zeros", "equal", "one tiny", "one huge", "even", "every size"],
)
def test_the_estimate_is_hardly_less_than_the_largest_eigenvalue(eigenvalues, products):
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(50, 50)))[0]
    found, taken = estimate(turn * eigenvalues @ turn.T)
    assert 0.9 * eigenvalues[-1] <= found <= (1 + 1e-9) * eigenvalues[-1]
    assert taken <= products


@pytest.mark.slow
@pytest.mark.parametrize("rows", [100, 1000, 4000])
def test_moments_of_random_rows_need_few_products(rows):
    """Their eigenvalues lie dense up to the largest, which is the hardest case."""
    X = np.random.default_rng(2).normal(size=(rows, 1000)) / np.sqrt(rows)
    largest = np.linalg.norm(X, 2) ** 2
    assert 0.85 * largest <= estimate(X.T @ X)[0] <= (1 + 1e-9) * largest
