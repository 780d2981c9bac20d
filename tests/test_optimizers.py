"""Optimizers as sources of NumPy arrays: what is declared is true, and steps are the papers'."""

from typing import Any

import numpy as np
import pytest

from ooc_train.optimizers import OPTIMIZERS
from ooc_train.optimizers.adam import Adam
from ooc_train.optimizers.momentum import Momentum

every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def steps(optimizer: Any, gradients, eta=0.1, parts=None):
    """Return the parameters after each step from zero."""
    theta = np.zeros_like(gradients[0])
    slots, age, path = [np.zeros_like(theta)] * len(optimizer.slot_powers), 0.0, []
    for g, part in zip(gradients, parts or [1.0] * len(gradients), strict=True):
        age += part
        scalars = optimizer.prepare(age, part)
        theta, *slots = optimizer.step(theta, g, part * eta, scalars, *slots)
        path.append(theta)
    return np.array(path)


GRADIENTS = np.random.default_rng(0).normal(size=(20, 2, 3))


@every_optimizer
def test_an_optimizer_is_known_by_its_name_and_keeps_the_slots_that_it_declares(name):
    optimizer = OPTIMIZERS[name]()
    assert optimizer.name == name
    zeros = [np.zeros(3)] * len(optimizer.slot_powers)
    stepped = optimizer.step(np.ones(3), np.ones(3), 0.1, optimizer.prepare(1.0, 1.0), *zeros)
    assert len(stepped) == 1 + len(optimizer.slot_powers)
    assert all(array.shape == (3,) for array in stepped)


@every_optimizer
def test_one_source_takes_arrays_and_numbers(name):
    optimizer = OPTIMIZERS[name]()
    whole = steps(optimizer, GRADIENTS)
    for i in range(2):
        for j in range(3):
            alone = steps(optimizer, GRADIENTS[:, i, j])
            np.testing.assert_allclose(alone, whole[:, i, j], rtol=1e-14)


@every_optimizer
def test_linear_and_normalised_say_what_steps_do(name):
    optimizer = OPTIMIZERS[name]()
    once, doubled = steps(optimizer, GRADIENTS), steps(optimizer, 1000.0 * GRADIENTS)
    np.testing.assert_allclose(doubled, (1.0 if optimizer.normalised else 1000.0) * once, rtol=1e-5)
    plain = -0.1 * np.cumsum(GRADIENTS, axis=0)
    assert np.allclose(once, plain) == optimizer.linear


@every_optimizer
def test_a_constant_gradient_moves_parameters_by_the_gain_in_the_end(name):
    optimizer = OPTIMIZERS[name]()
    path = steps(optimizer, np.ones((400, 1)))
    assert path[-2] - path[-1] == pytest.approx(0.1 * optimizer.gain, rel=1e-6)


@every_optimizer
@pytest.mark.parametrize("factor", [1e-3, 7.0])
def test_slots_grow_as_the_declared_powers_of_the_gradients(name, factor):
    optimizer = OPTIMIZERS[name]()
    slots = []
    for gradients in (GRADIENTS, factor * GRADIENTS):
        theta, kept = np.zeros((2, 3)), [np.zeros((2, 3))] * len(optimizer.slot_powers)
        for age, g in enumerate(gradients, 1):
            theta, *kept = optimizer.step(theta, g, 0.1, optimizer.prepare(age, 1.0), *kept)
        slots.append(kept)
    for once, scaled, power in zip(*slots, optimizer.slot_powers, strict=True):
        np.testing.assert_allclose(scaled, factor**power * once, rtol=1e-12)
        assert np.abs(once).min() > 0.0


@every_optimizer
@pytest.mark.parametrize("size", [1e-3, 1.0, 40.0])
def test_the_proximal_rate_is_that_of_a_constant_gradient_in_the_end(name, size):
    optimizer = OPTIMIZERS[name]()
    theta, slots = np.zeros(2), [np.zeros(2)] * len(optimizer.slot_powers)
    for age in range(1, 401):
        scalars, before = optimizer.prepare(age, 1.0), theta
        theta, *slots = optimizer.step(before, np.full(2, size), 0.1, scalars, *slots)
    rate = optimizer.proximal_rate(0.1, scalars, *slots)
    np.testing.assert_allclose(before - theta, rate * size, rtol=1e-6)


def test_adam_is_the_papers_algorithm():
    m, v, theta = np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3))
    found = steps(Adam(0.8, 0.95, 1e-3), GRADIENTS)
    for t, g in enumerate(GRADIENTS, 1):
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        theta = theta - 0.1 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-3)
        np.testing.assert_allclose(found[t - 1], theta, rtol=1e-12)


def test_momentum_is_the_heavy_ball():
    found = steps(Momentum(0.7), GRADIENTS)
    # Polyak's form: x' = x - eta g + momentum (x - x of the step before).
    before = theta = np.zeros((2, 3))
    for g, expected in zip(GRADIENTS, found, strict=True):
        before, theta = theta, theta - 0.1 * g + 0.7 * (theta - before)
        np.testing.assert_allclose(theta, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_two_halves_of_a_batch_age_an_optimizer_as_much_as_a_whole_one(name):
    optimizer: Any = OPTIMIZERS[name]()
    zero = np.zeros(1)  # without a gradient, what is left of the slots is a matter of age alone
    slots = [np.ones(1)] * len(optimizer.slot_powers)

    def left(parts):
        found, age = slots, 3.0
        for part in parts:
            age += part
            _, *found = optimizer.step(zero, zero, 0.1, optimizer.prepare(age, part), *found)
        return found

    np.testing.assert_allclose(left([0.5, 0.5]), left([1.0]), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("adam", {"beta1": 1.0}, "beta1=1.0 is not a number of at least 0 and below 1"),
        ("adam", {"epsilon": 0.0}, "epsilon=0.0 is not a finite number above 0"),
        ("momentum", {"momentum": -0.1}, "momentum=-0.1 is not"),
    ],
)
def test_a_hyperparameter_that_cannot_be_used_is_named(name, settings, said):
    with pytest.raises(ValueError, match=said):
        OPTIMIZERS[name](**settings)
