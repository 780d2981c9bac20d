"""Losses: derivatives by finite differences, extremes, one definition for arrays and scalars."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ooc_train.objective.losses import LOSSES, probabilities, softmax

POINTWISE = [LOSSES["squared"], LOSSES["logistic"]]
MULTINOMIAL = LOSSES["multinomial"]
EXTREMES = np.array([-1e4, -745.2, -708.4, -36.8, -1e-300, 0.0, 1e-300, 36.8, 708.4, 745.2, 1e4])

predictors = st.floats(-30, 30)
labels = st.sampled_from([0.0, 1.0])


def test_names_and_codes():
    assert {name: (loss.name, loss.code) for name, loss in LOSSES.items()} == {
        "squared": ("squared", 0),
        "logistic": ("logistic", 1),
        "multinomial": ("multinomial", 2),
        "hinge": ("hinge", 3),
    }


def test_hinge_is_how_far_a_margin_of_one_is_missed():
    hinge, y, z = (
        LOSSES["hinge"],
        np.array([0.0, 0, 0, 1, 1, 1]),
        np.array([-2, -0.5, 1, 2, 0.5, -1]),
    )
    assert hinge.value(y, z).tolist() == [0, 0.5, 2, 0, 0.5, 2]
    assert hinge.gradient(y, z).tolist() == [0, 1, 1, 0, -1, -1]
    assert hinge.hessian is not None
    assert not hinge.hessian(y, z).any()
    assert np.isnan(hinge.gradient(y[:1], np.array([np.nan])))


@pytest.mark.parametrize("loss", POINTWISE, ids=lambda loss: loss.name)
@given(y=labels, z=predictors)
def test_derivatives_are_those_of_the_value(loss, y, z):
    h = 1e-4
    y, z = np.array([y]), np.array([z])
    slope = (loss.value(y, z + h) - loss.value(y, z - h)) / (2 * h)
    np.testing.assert_allclose(loss.gradient(y, z), slope, atol=1e-8)
    assert loss.hessian is not None
    bend = (loss.gradient(y, z + h) - loss.gradient(y, z - h)) / (2 * h)
    np.testing.assert_allclose(loss.hessian(y, z), bend, atol=1e-8)
    assert loss.hessian(y, z) <= loss.curvature * (1 + 4 * np.finfo(float).eps)


def test_curvature_is_reached():
    zero = np.zeros(1)
    for loss in POINTWISE:
        assert loss.hessian is not None
        assert loss.hessian(zero, zero) == loss.curvature
    p = np.array([0.5, 0.5, 0.0])
    assert np.linalg.eigvalsh(np.diag(p) - np.outer(p, p)).max() == pytest.approx(
        MULTINOMIAL.curvature
    )


@given(
    code=st.integers(0, 3),
    z=st.lists(predictors, min_size=4, max_size=4),
)
def test_multinomial_derivatives(code, z):
    h = 1e-4
    y, z = np.array([float(code)]), np.array([z])
    gradient = MULTINOMIAL.gradient(y, z)
    slope = [
        (MULTINOMIAL.value(y, z + h * unit) - MULTINOMIAL.value(y, z - h * unit)) / (2 * h)
        for unit in np.eye(4)
    ]
    np.testing.assert_allclose(gradient, np.transpose(slope), atol=1e-7)
    assert abs(gradient.sum()) < 1e-15


def test_multinomial_of_two_classes_is_logistic():
    z = np.linspace(-40, 40, 33)
    y = (np.arange(33) % 3 == 0).astype(float)
    pair = np.stack([np.full(33, 7.0), z + 7.0], axis=1)
    logistic = LOSSES["logistic"]
    np.testing.assert_allclose(MULTINOMIAL.value(y, pair), logistic.value(y, z), atol=1e-13)
    np.testing.assert_allclose(
        MULTINOMIAL.gradient(y, pair)[:, 1], logistic.gradient(y, z), atol=1e-14
    )
    np.testing.assert_allclose(probabilities(pair)[:, 1], logistic.mean(z), rtol=1e-12)


def test_codes_may_stand_in_a_column():
    z, y = np.random.default_rng(0).normal(size=(7, 3)), np.array([0.0, 2, 1, 1, 0, 2, 2])
    for function in (MULTINOMIAL.value, MULTINOMIAL.gradient):
        np.testing.assert_array_equal(function(y[:, None], z), function(y, z))
    with pytest.raises(ValueError, match="reshape"):
        MULTINOMIAL.value(y[:3], z)


def test_extremes_are_exact_and_silent():
    logistic = LOSSES["logistic"]
    zeros, ones = np.zeros_like(EXTREMES), np.ones_like(EXTREMES)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        np.testing.assert_allclose(
            logistic.value(zeros, EXTREMES), np.logaddexp(0, EXTREMES), rtol=1e-15, atol=2e-16
        )
        np.testing.assert_array_equal(
            logistic.value(ones, -EXTREMES), logistic.value(zeros, EXTREMES)
        )
        assert logistic.gradient(zeros, EXTREMES)[0] == 0.0
        assert logistic.gradient(zeros, EXTREMES)[-1] == 1.0
        assert logistic.mean(np.array([-700.0])) == pytest.approx(np.exp(-700.0), rel=1e-14)
        assert logistic.hessian is not None
        assert np.all(logistic.hessian(zeros, EXTREMES) >= 0.0)
        z = np.stack([EXTREMES, EXTREMES[::-1], zeros], axis=1)
        for code in (0.0, 1.0, 2.0):
            y = np.full(len(z), code)
            expected = np.logaddexp.reduce(z, axis=1) - z[:, int(code)]
            np.testing.assert_allclose(MULTINOMIAL.value(y, z), expected, rtol=1e-15, atol=5e-16)
            np.testing.assert_allclose(MULTINOMIAL.gradient(y, z).sum(axis=1), 0.0, atol=1e-15)


def test_not_a_number_stays_one():
    nan = np.array([np.nan])
    for loss in POINTWISE:
        assert np.isnan(loss.value(np.zeros(1), nan))
        assert np.isnan(loss.gradient(np.zeros(1), nan))
    assert np.isnan(MULTINOMIAL.value(np.zeros(1), np.array([[0.0, np.nan, 1.0]])))


def test_softmax_may_overwrite_its_input():
    z = np.array([[0.3, -2.0, 5.0], [1.0, 1.0, -1.0]])
    expected = probabilities(z)
    softmax(z.T, z.T)
    np.testing.assert_array_equal(z, expected)
    np.testing.assert_allclose(expected.sum(axis=1), 1.0, rtol=1e-15)


@pytest.mark.parametrize("loss", POINTWISE, ids=lambda loss: loss.name)
def test_compiled_scalars_equal_arrays(loss):
    numba = pytest.importorskip("numba")
    z = np.concatenate([EXTREMES, np.linspace(-20, 20, 101)])
    for y in (np.zeros_like(z), np.ones_like(z)):
        for function in (loss.value, loss.gradient):
            scalar = numba.njit(function)
            compiled = [scalar(*pair) for pair in zip(y, z, strict=True)]
            # NumPy's vectors and the C library's exp may round differently
            np.testing.assert_allclose(compiled, function(y, z), rtol=4e-16, atol=4e-16)


def test_compiled_softmax_equals_arrays():
    numba = pytest.importorskip("numba")
    scalar = numba.njit(softmax)
    z = np.random.default_rng(0).normal(size=(50, 5)) * 10
    out, row = np.empty_like(z), np.empty(5)
    normaliser = softmax(z.T, out.T)
    for i in range(len(z)):
        assert scalar(z[i], row) == pytest.approx(normaliser[i], rel=1e-15)
        np.testing.assert_allclose(row, out[i], rtol=1e-14)
