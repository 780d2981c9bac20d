"""Packed symmetric matrices against whole ones."""

import numpy as np
import pytest

from ooc_train.core.packing import STRIP, add_packed, packed_diagonal, packed_size, unpacked


@pytest.mark.parametrize("columns", [1, 2, 15, 16, 17, 32, 50])
def test_what_is_packed_is_found_again(columns):
    a, b = np.random.default_rng(0).normal(size=(2, columns, columns))
    packed = np.zeros(packed_size(columns))
    for matrix in (a + a.T, b + b.T):
        add_packed(packed, matrix)
    due = a + a.T + b + b.T
    np.testing.assert_allclose(unpacked(packed, columns), due, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(packed_diagonal(packed, columns), due.diagonal(), rtol=1e-14)


def test_packing_takes_half_of_the_room():
    columns = 64 * STRIP
    assert packed_size(columns) <= 0.51 * columns**2
