"""Scaling: there and back, what it does to gradients, and columns that hardly vary."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ooc_train.objective.scaling import Scaling, piece_rows

RNG = np.random.default_rng(0)
MEAN, SCALE = RNG.normal(size=4) * 10, np.geomspace(1e-3, 1e3, 4)
SCALING = Scaling(MEAN, SCALE)
THETA = RNG.normal(size=(2, 3, 5))


def test_units_there_and_back():
    coef, intercept = SCALING.to_data_units(THETA)
    assert coef.shape == (2, 3, 4)
    assert intercept.shape == (2, 3)
    np.testing.assert_allclose(SCALING.from_data_units(coef, intercept), THETA, rtol=1e-9)


def test_predictions_are_the_same_in_both_units():
    X = MEAN + SCALE * RNG.normal(size=(9, 4))
    scaled = SCALING.apply(X, np.full((20, 5), np.nan))
    np.testing.assert_allclose(scaled, np.column_stack([(X - MEAN) / SCALE, np.ones(9)]))
    coef, intercept = SCALING.to_data_units(THETA[0])
    np.testing.assert_allclose(scaled @ THETA[0].T, X @ coef.T + intercept, rtol=1e-8, atol=1e-8)


def test_float32_rows_are_scaled_in_float64():
    X = np.full((1, 4), 1 / 3, np.float32)
    scaled = SCALING.apply(X, np.empty((1, 5)))
    np.testing.assert_array_equal(scaled[0, :4], (float(X[0, 0]) - MEAN) * (1.0 / SCALE))


def test_a_gradient_follows_the_change_of_units():
    by_coef, by_intercept = RNG.normal(size=(3, 4)), RNG.normal(size=3)

    def linear(theta):
        coef, intercept = SCALING.to_data_units(theta)
        return (by_coef * coef).sum() + (by_intercept * intercept).sum()

    found = SCALING.gradient_from_data_units(by_coef, by_intercept)
    units = np.eye(15).reshape(15, 3, 5)
    expected = np.array([linear(unit) for unit in units]).reshape(3, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_columns_that_never_vary_are_left_as_they_are():
    deviation = np.array([0.0, 1e-9, 1e-9, 2.0])
    scaling = Scaling.of(np.array([7.0, 1e7, 1e3, 0.0]), deviation, centre=True)
    assert scaling.scale.tolist() == [1.0, 1.0, 1e-9, 2.0]
    assert scaling.n_features == 4


def test_without_an_intercept_nothing_is_centred():
    scaling = Scaling.of(np.array([3.0, 0.0, 5.0]), np.array([4.0, 0.0, 0.0]), centre=False)
    assert scaling.mean.tolist() == [0.0, 0.0, 0.0]
    assert scaling.scale.tolist() == [5.0, 1.0, 5.0]


def test_a_penalty_widens_the_scale_and_moves_nothing():
    wide = SCALING.widened(9.0)
    np.testing.assert_allclose(wide.scale**2, SCALE**2 + 9.0)
    np.testing.assert_array_equal(wide.mean, MEAN)
    np.testing.assert_array_equal(SCALING.widened(0.0).scale, SCALE)


@given(columns=st.integers(1, 10_000), square=st.booleans())
def test_pieces_are_a_power_of_two_that_fits_a_cache(columns, square):
    rows = piece_rows(columns, square=square)
    assert rows & (rows - 1) == 0
    assert rows >= 256
    if square:
        assert rows >= columns  # to compute a product costs more than to add it up
    assert rows == 256 or rows * columns * 8 <= 2 * 2**20 or (square and rows < 2 * columns)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_units_change_for_any_number_of_models(leading):
    theta = RNG.normal(size=(*leading, 5))
    coef, intercept = SCALING.to_data_units(theta)
    assert coef.shape == (*leading, 4)
    assert np.shape(intercept) == leading
