"""Losses: derivatives by finite differences, extremes, and what is declared, of every one."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mean_tweedie_deviance

from ooc_train.objective.loss import Loss
from ooc_train.objective.losses import LOSSES
from ooc_train.objective.losses.gamma import Gamma
from ooc_train.objective.losses.huber import Huber
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.multinomial import Multinomial, probabilities, softmax
from ooc_train.objective.losses.poisson import Poisson
from ooc_train.objective.losses.tweedie import Tweedie

EXTREMES = np.array([-1e4, -745.2, -708.4, -36.8, -1e-300, 0.0, 1e-300, 36.8, 708.4, 745.2, 1e4])
OUTPUTS = 4

every_loss = pytest.mark.parametrize("name", LOSSES)
every_pointwise_loss = pytest.mark.parametrize(
    "name", [name for name, loss in LOSSES.items() if loss.kind == "pointwise"]
)

TARGETS: dict[str, list[float]] = {
    "real": [-3.0, 0.0, 0.7],
    "nonnegative": [0.0, 1.0, 7.0],
    "positive": [0.1, 1.0, 7.0],
    "binary": [0.0, 1.0],
    "codes": [0.0, 1.0, 3.0],
}


def cases(loss: Loss, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every target of the loss at every predictor: (rows, 1) and (rows, outputs)."""
    y, z = (a.reshape(-1, 1) for a in np.meshgrid(TARGETS[loss.target], z))
    if loss.kind == "rowwise":
        z = np.hstack([z, 0 * z, -z, 0.5 * z])
    return y, z


def total(values: np.ndarray, rows: int) -> np.ndarray:
    """The loss of each row, whatever the kind of loss."""
    return np.asarray(values.reshape(rows, -1).sum(axis=1))


@every_loss
def test_a_loss_is_known_by_its_name_and_comes_back_from_json(name):
    loss = LOSSES[name]()
    assert loss.name == name
    assert LOSSES.from_json(json.loads(json.dumps(LOSSES.to_json(loss)))) == loss


def test_hyperparameters_travel_as_json():
    assert LOSSES.to_json(Huber(2.5)) == {"name": "huber", "epsilon": 2.5}
    assert LOSSES.from_json({"name": "huber", "epsilon": 2.5}) == Huber(2.5)
    for found, said in (
        ({"name": "huber", "epsilon": 0.0}, "epsilon=0.0 is not a finite number above 0"),
        ({"name": "hubris"}, "'hubris' is not one of squared, huber"),
        ({"name": "squared", "epsilon": 1.0}, "'squared' has nothing, and not 'epsilon'"),
    ):
        with pytest.raises(ValueError, match=said):
            LOSSES.from_json(found)


@every_loss
def test_slopes_are_finite_differences_of_the_value(name):
    loss, h = LOSSES[name](), 1e-5
    # No kink of a hinge or a Huber loss is as near as h.
    y, z = cases(loss, np.linspace(-6, 6, 97) + 0.0137)
    slope = loss.slope(y, z)
    assert slope.shape == z.shape
    for k in range(z.shape[1]):
        step = h * (np.arange(z.shape[1]) == k)
        up, down = (total(loss.value(y, z + sign * step), len(z)) for sign in (1, -1))
        np.testing.assert_allclose(slope[:, k], (up - down) / (2 * h), atol=2e-8)


@every_loss
def test_curvatures_are_finite_differences_of_the_slope_and_below_their_bound(name):
    loss, h = LOSSES[name](), 1e-5
    y, z = cases(loss, np.linspace(-6, 6, 97) + 0.0137)
    outputs = z.shape[1]
    found = np.zeros((len(z), outputs, outputs))
    pairs = loss.output_pairs(outputs)
    for (a, b), curvature in zip(pairs, loss.curvatures(y, z), strict=True):
        assert b <= a
        found[:, a, b] = found[:, b, a] = curvature
    for k in range(outputs):
        step = h * (np.arange(outputs) == k)
        bend = (loss.slope(y, z + step) - loss.slope(y, z - step)) / (2 * h)
        np.testing.assert_allclose(found[:, k], bend, atol=2e-8)
    largest = np.linalg.eigvalsh(found).max()
    if loss.bound is not None and loss.smooth:
        assert largest <= loss.bound * (1 + 1e-12)
        assert largest >= 0.7 * loss.bound  # it is no more than it has to be
    assert loss.constant_curvature == (np.ptp(found, axis=0).max() == 0.0 < largest)


def test_bounds_are_reached():
    zero = np.zeros(1)
    for loss in (LOSSES["squared"](), Logistic(), LOSSES["squared_hinge"](), Huber()):
        assert loss.curvature(zero, zero) == loss.bound
    p = np.array([0.5, 0.5, 0.0])
    largest = np.linalg.eigvalsh(np.diag(p) - np.outer(p, p)).max()
    assert largest == pytest.approx(Multinomial.bound)


@every_loss
def test_only_a_kink_breaks_the_slope(name):
    loss = LOSSES[name]()
    y, z = cases(loss, np.linspace(-6, 6, 120_001))
    slope = loss.slope(y, z).reshape(120_001, -1)
    largest = np.abs(np.diff(slope, axis=0)).max()
    # Exponentials are steep without a kink: their slope changes in proportion to its size.
    assert (largest < 1e-3 * max(1.0, np.abs(slope).max() / 6)) == loss.smooth


@every_loss
def test_shifting_all_outputs_changes_nothing_only_where_a_loss_says_so(name):
    loss = LOSSES[name]()
    y, z = cases(loss, np.linspace(-2, 2, 9))
    near = np.allclose(loss.value(y, z), loss.value(y, z + 0.5), rtol=1e-12)
    assert near == loss.shift_invariant


@every_loss
def test_slopes_are_bounded_where_a_loss_says_so(name):
    loss = LOSSES[name]()
    y, near = cases(loss, np.linspace(-1e2, 1e2, 9))
    far = np.abs(loss.slope(y, 1e6 * near)).max()
    assert (far <= 2 * np.abs(loss.slope(y, near)).max()) == loss.bounded_slope


@every_loss
def test_extremes_are_finite_and_silent(name):
    loss = LOSSES[name]()
    y, z = cases(loss, EXTREMES)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        value, slope = loss.value(y, z), loss.slope(y, z)
        curvatures = list(loss.curvatures(y, z))
        mean = loss.mean(z)
    for array in (value, slope, mean, *curvatures):
        assert np.isfinite(array).all()
    assert (value >= 0.0).all()


@every_loss
def test_not_a_number_stays_one(name):
    loss = LOSSES[name]()
    y, z = cases(loss, np.array([1.0, np.nan]))
    bad = np.isnan(z).any(axis=1)
    with np.errstate(invalid="ignore"):
        assert (np.isnan(total(loss.value(y, z), len(z))) == bad).all()
        assert (np.isnan(loss.slope(y, z)).any(axis=1) == bad).all()


def test_the_mean_is_the_target_that_a_predictor_is_best_for():
    for loss in (LOSSES["squared"](), Logistic()):
        z = np.linspace(-3, 3, 13)
        assert np.abs(loss.slope(loss.mean(z), z)).max() < 1e-15
    z = np.random.default_rng(0).normal(size=(5, 3))
    assert np.abs(Multinomial().mean(z).sum(axis=1) - 1).max() < 1e-15


# --------------------------------------------------------------------- what each of them is

DEVIANCES: list[tuple[Loss, float]] = [
    *((Poisson(), 1.0), (Gamma(), 2.0)),
    *((Tweedie(power), power) for power in (1.01, 1.3, 1.99, 2.5, 3.0)),
]


@pytest.mark.parametrize(("loss", "power"), DEVIANCES)
def test_losses_with_a_log_link_are_half_the_deviance(loss, power):
    rng = np.random.default_rng(0)
    y, z = rng.gamma(0.5, 3.0, (200, 1)), rng.normal(size=(200, 1))
    if power < 2:
        y[:40] = 0.0
    due = mean_tweedie_deviance(y, np.exp(z), power=power) / 2
    assert loss.value(y, z).mean() == pytest.approx(due, rel=1e-11)
    perfect = np.maximum(y, 1e-300)
    assert (loss.value(perfect, np.log(perfect)) < 1e-9 * (1 + y)).all()
    h = 1e-5
    bend = (loss.slope(y, z + h) - loss.slope(y, z - h)) / (2 * h)
    np.testing.assert_allclose(loss.curvature(y, z), bend, rtol=1e-6, atol=1e-7)
    assert loss.convex == (loss.curvature(y, z) >= 0.0).all()
    np.testing.assert_allclose(loss.mean(z), np.exp(z), rtol=1e-15)


@pytest.mark.parametrize(("loss", "power"), DEVIANCES)
def test_a_deviance_grows_on_where_exponentials_would_overflow(loss, power):
    y = np.full(2, 0.7)
    far = np.linspace(400.0, 1e6, 50)
    for z in (far, -far):
        value = loss.value(y[:1], z)
        assert np.isfinite(value).all()
        rising = np.diff(value)
        # Above the power 2, the deviance of a mean without end is finite.
        assert (rising > 0.0).all() or (power > 2.0 and z[0] > 0.0 and (rising >= 0.0).all())


def test_a_y_outside_of_the_domain_makes_the_loss_no_finite_number():
    for loss, power in DEVIANCES:
        outside = [-1e-300, -2.0] + ([0.0] if power >= 2 else [])
        with np.errstate(all="ignore"):
            assert not np.isfinite(loss.value(np.array(outside), np.zeros(len(outside)))).any()


def test_powers_that_have_a_loss_of_their_own_are_refused():
    for power in (0.5, 1.0, 2.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="is not a finite number above 1, and other than 2"):
            Tweedie(power)


def test_hinges_are_how_far_a_margin_of_one_is_missed():
    y, z = np.array([0.0, 0, 0, 1, 1, 1]), np.array([-2, -0.5, 1, 2, 0.5, -1])
    hinge, squared = LOSSES["hinge"](), LOSSES["squared_hinge"]()
    assert hinge.value(y, z).tolist() == [0, 0.5, 2, 0, 0.5, 2]
    assert hinge.slope(y, z).tolist() == [0, 1, 1, 0, -1, -1]
    assert squared.value(y, z).tolist() == [0, 0.25, 4, 0, 0.25, 4]


def test_huber_is_half_the_square_up_to_epsilon_and_a_tangent_beyond():
    y, z = np.zeros(5), np.array([-3.0, -1.0, 0.5, 2.0, 4.0])
    assert Huber(2.0).value(y, z).tolist() == [4.0, 0.5, 0.125, 2.0, 6.0]
    assert Huber(2.0).slope(y, z).tolist() == [-2.0, -1.0, 0.5, 2.0, 2.0]


def test_logistic_is_the_log_likelihood():
    logistic, zeros, ones = Logistic(), np.zeros_like(EXTREMES), np.ones_like(EXTREMES)
    expected = np.logaddexp(0, EXTREMES)
    np.testing.assert_allclose(logistic.value(zeros, EXTREMES), expected, rtol=1e-15, atol=2e-16)
    np.testing.assert_array_equal(logistic.value(ones, -EXTREMES), logistic.value(zeros, EXTREMES))
    assert logistic.slope(zeros, EXTREMES)[0] == 0.0
    assert logistic.slope(zeros, EXTREMES)[-1] == 1.0
    assert logistic.mean(np.array([-700.0])) == pytest.approx(np.exp(-700.0), rel=1e-14)


def test_multinomial_is_the_log_likelihood_at_extremes():
    z = np.stack([EXTREMES, EXTREMES[::-1], np.zeros_like(EXTREMES)], axis=1)
    for code in (0.0, 1.0, 2.0):
        y = np.full(len(z), code)
        expected = np.logaddexp.reduce(z, axis=1) - z[:, int(code)]
        np.testing.assert_allclose(Multinomial().value(y, z), expected, rtol=1e-15, atol=5e-16)
        np.testing.assert_allclose(Multinomial().slope(y, z).sum(axis=1), 0.0, atol=1e-15)


def test_multinomial_of_two_classes_is_logistic():
    z = np.linspace(-40, 40, 33)
    y = (np.arange(33) % 3 == 0).astype(float)
    pair = np.stack([np.full(33, 7.0), z + 7.0], axis=1)
    both, one = Multinomial(), Logistic()
    np.testing.assert_allclose(both.value(y, pair), one.value(y, z), atol=1e-13)
    np.testing.assert_allclose(both.slope(y, pair)[:, 1], one.slope(y, z), atol=1e-14)
    np.testing.assert_allclose(probabilities(pair)[:, 1], one.mean(z), rtol=1e-12)


@given(code=st.integers(0, 3), z=st.lists(st.floats(-30, 30), min_size=4, max_size=4))
def test_slopes_of_classes_cancel(code, z):
    slope = Multinomial().slope(np.array([float(code)]), np.array([z]))
    assert abs(slope.sum()) < 1e-15


def test_codes_may_stand_in_a_column():
    z, y = np.random.default_rng(0).normal(size=(7, 3)), np.array([0.0, 2, 1, 1, 0, 2, 2])
    for function in (Multinomial().value, Multinomial().slope):
        np.testing.assert_array_equal(function(y[:, None], z), function(y, z))
    with pytest.raises(ValueError, match="reshape"):
        Multinomial().value(y[:3], z)


def test_softmax_may_overwrite_its_input():
    z = np.array([[0.3, -2.0, 5.0], [1.0, 1.0, -1.0]])
    expected = probabilities(z)
    softmax(z.T, z.T)
    np.testing.assert_array_equal(z, expected)
    np.testing.assert_allclose(expected.sum(axis=1), 1.0, rtol=1e-15)


@dataclass(frozen=True)
class Cubed(Loss):
    """A loss whose curvature has no bound, and is not said either."""

    name: ClassVar[str] = "cubed"

    def value(self, y: Any, z: Any) -> Any:
        return np.abs(z - y) ** 3

    def slope(self, y: Any, z: Any) -> Any:
        return 3 * (z - y) * np.abs(z - y)


def test_what_a_loss_does_not_have_is_told_of():
    assert Cubed().bound is None
    with pytest.raises(TypeError, match="the loss cubed has no second derivative"):
        next(Cubed().curvatures(np.zeros((2, 1)), np.zeros((2, 1))))
