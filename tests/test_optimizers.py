"""Optimizers as sources of NumPy arrays: what is declared is true, and steps are the papers'."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ooc_train import Training
from ooc_train.models.linear_updates import LinearUpdates
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.optimizers.adam import Adam, bias_factor
from ooc_train.optimizers.adamw import AdamW
from ooc_train.optimizers.momentum import Momentum
from ooc_train.optimizers.schedules import Constant
from tests.streams import make_case, stream

EVERY: dict[str, Any] = {name: kind() for name, kind in OPTIMIZERS.items()}
EVERY["momentum, nesterov"] = Momentum(0.8, nesterov=True)
EVERY["adamw, strong decay"] = AdamW(weight_decay=2.0)

every_optimizer = pytest.mark.parametrize("optimizer", EVERY.values(), ids=EVERY)


def steps(optimizer: Any, gradients, eta=0.1, parts=None):
    """Return the parameters after each step from zero."""
    theta = np.zeros_like(gradients[0])
    slots, age, path = [np.zeros_like(theta)] * len(optimizer.slot_powers), 0.0, []
    for g, part in zip(gradients, parts or [1.0] * len(gradients), strict=True):
        age += part
        scalars = optimizer.prepare(age, part)
        left = optimizer.retained(part * eta) * theta
        theta, *slots = optimizer.step(left, g, part * eta, scalars, *slots)
        path.append(theta)
    return np.array(path)


GRADIENTS = np.random.default_rng(0).normal(size=(20, 2, 3))


@every_optimizer
def test_an_optimizer_is_known_by_its_name_and_keeps_the_slots_that_it_declares(optimizer):
    assert type(optimizer) is OPTIMIZERS[optimizer.name]
    assert OPTIMIZERS.from_json(OPTIMIZERS.to_json(optimizer)) == optimizer
    assert type(optimizer)(**optimizer.hyperparameters) == optimizer
    zeros = [np.zeros(3)] * len(optimizer.slot_powers)
    stepped = optimizer.step(np.ones(3), np.ones(3), 0.1, optimizer.prepare(1.0, 1.0), *zeros)
    assert len(stepped) == 1 + len(optimizer.slot_powers)
    assert all(array.shape == (3,) for array in stepped)


@every_optimizer
def test_one_source_takes_arrays_and_numbers(optimizer):
    whole = steps(optimizer, GRADIENTS)
    for i in range(2):
        for j in range(3):
            alone = steps(optimizer, GRADIENTS[:, i, j])
            np.testing.assert_allclose(alone, whole[:, i, j], rtol=1e-14)


@every_optimizer
def test_linear_and_normalised_say_what_steps_do(optimizer):
    large = 1000.0 * GRADIENTS  # beside which epsilon is nothing
    grown = 1.0 if optimizer.normalised else 1000.0
    np.testing.assert_allclose(
        steps(optimizer, 1000.0 * large), grown * steps(optimizer, large), rtol=1e-5
    )
    once = steps(optimizer, GRADIENTS)
    plain = -0.1 * np.cumsum(GRADIENTS, axis=0)
    assert np.allclose(once, plain) == optimizer.linear
    if optimizer.normalised:
        first = 0.1 * optimizer.first_step
        np.testing.assert_allclose(np.abs(once[0]), first, rtol=1e-4)


def moves(optimizer, size, count):
    """Return what is left of each parameter's moves by a constant gradient, without decay."""
    theta, slots, path = np.zeros(1), [np.zeros(1)] * len(optimizer.slot_powers), []
    for age in range(1, count + 1):
        scalars, before = optimizer.prepare(age, 1.0), theta
        theta, *slots = optimizer.step(before, np.full(1, size), 0.1, scalars, *slots)
        path.append((before - theta)[0])
    return np.array(path), optimizer.proximal_rate(0.1, scalars, *slots)


@every_optimizer
def test_a_constant_gradient_moves_parameters_by_the_gain_in_the_end(optimizer):
    path, _ = moves(optimizer, 1.0, 3000)
    due = 0.1 * optimizer.gain / (np.sqrt(3000) if optimizer.slowing else 1.0)
    assert path[-1] == pytest.approx(due, rel=1e-6)
    assert (path[-1] < 0.9 * path[-1000]) == optimizer.slowing


@every_optimizer
@pytest.mark.parametrize("factor", [1e-3, 7.0])
def test_slots_grow_as_the_declared_powers_of_the_gradients(optimizer, factor):
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
def test_the_proximal_rate_is_that_of_a_constant_gradient_in_the_end(optimizer, size):
    path, rate = moves(optimizer, size, 3000)
    np.testing.assert_allclose(path[-1], rate * size, rtol=1e-6)


# What PyTorch's optimizers of these names do, from the formulas of the papers.


def sgds(gradients, eta):
    theta = np.zeros_like(gradients[0])
    for g in gradients:
        theta = theta - eta * g
        yield theta


def sutskevers(gradients, eta, mu):
    """Nesterov's momentum at the point that looks ahead (Sutskever et al. 2013, section 2).

    There, the gradient is taken at ``theta + mu * velocity``, which is the point that is kept here.
    """
    theta, velocity = np.zeros_like(gradients[0]), np.zeros_like(gradients[0])
    for g in gradients:
        velocity = mu * velocity - eta * g
        theta = theta + velocity
        yield theta + mu * velocity


def polyaks(gradients, eta, mu):
    """Polyak's form: x' = x - eta g + momentum (x - x of the step before)."""
    before = theta = np.zeros_like(gradients[0])
    for g in gradients:
        before, theta = theta, theta - eta * g + mu * (theta - before)
        yield theta


def adagrads(gradients, eta, epsilon):
    theta = np.zeros_like(gradients[0])
    for t, g in enumerate(gradients, 1):
        theta = theta - eta * g / (np.sqrt((gradients[:t] ** 2).sum(axis=0)) + epsilon)
        yield theta


def rmsprops(gradients, eta, rho, epsilon):
    theta, mean = np.zeros_like(gradients[0]), np.zeros_like(gradients[0])
    for g in gradients:
        mean = rho * mean + (1 - rho) * g**2
        theta = theta - eta * g / (np.sqrt(mean) + epsilon)
        yield theta


def adams(gradients, eta, beta1, beta2, epsilon, decay=0.0):
    theta, m, v = (np.zeros_like(gradients[0]) for _ in range(3))
    for t, g in enumerate(gradients, 1):
        theta = theta - eta * decay * theta
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        theta = theta - eta * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + epsilon)
        yield theta


REFERENCES: dict[str, Any] = {
    "sgd": [(sgds, {})],
    "momentum": [(polyaks, {"momentum": 0.7}), (sutskevers, {"momentum": 0.7, "nesterov": True})],
    "adagrad": [(adagrads, {"epsilon": 1e-3})],
    "rmsprop": [(rmsprops, {"rho": 0.8, "epsilon": 1e-3})],
    "adam": [(adams, {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3})],
    "adamw": [(adams, {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3, "weight_decay": 0.6})],
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_the_papers(name):
    for reference, settings in REFERENCES[name]:
        numbers = [value for value in settings.values() if value is not True]
        due = np.array(list(reference(GRADIENTS, 0.1, *numbers)))
        found = steps(OPTIMIZERS[name](**settings), GRADIENTS)
        np.testing.assert_allclose(found, due, rtol=1e-12)


@every_optimizer
def test_two_halves_of_a_batch_age_an_optimizer_as_much_as_a_whole_one(optimizer):
    zero = np.zeros(1)  # without a gradient, what is left of a mean is a matter of age alone
    g = np.full(1, 2.0) if optimizer.normalised else zero
    slots = [np.ones(1)] * len(optimizer.slot_powers)

    def left(parts):
        found, age = slots, 3.0
        for part in parts:
            age += part
            _, *found = optimizer.step(zero, g, 0.1, optimizer.prepare(age, part), *found)
        return found

    np.testing.assert_allclose(left([0.5, 0.5]), left([1.0]), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("adam", {"beta1": 1.0}, "beta1=1.0 is not a number of at least 0 and below 1"),
        ("adam", {"epsilon": 0.0}, "epsilon=0.0 is not a finite number above 0"),
        ("momentum", {"momentum": -0.1}, "momentum=-0.1 is not"),
        ("momentum", {"nesterov": 0.5}, "nesterov=0.5 is not True or False"),
        ("momentum", {"nesterov": "no"}, "nesterov='no' is not True or False"),
        ("adagrad", {"epsilon": np.inf}, "epsilon=inf is not a finite number above 0"),
        ("rmsprop", {"rho": 1.0}, "rho=1.0 is not a number of at least 0 and below 1"),
        ("rmsprop", {"epsilon": -1.0}, "epsilon=-1.0 is not a finite number above 0"),
        ("adamw", {"weight_decay": -0.1}, "weight_decay=-0.1 is not a finite number of at least 0"),
        ("adamw", {"beta2": 1.0}, "beta2=1.0 is not"),
    ],
)
def test_a_hyperparameter_that_cannot_be_used_is_named(name, settings, said):
    with pytest.raises(ValueError, match=said):
        OPTIMIZERS[name](**settings)


@pytest.mark.parametrize("solver", ["momentum:momentum=0.8,nesterov=1", Momentum(0.8, True)])
def test_a_solver_is_an_object_or_the_text_of_the_command_line(solver):
    assert Training(solver=solver) == Training(solver=Momentum(momentum=0.8, nesterov=True))


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "adamw"])
def test_a_weight_decay_in_the_gradient_is_the_models_and_the_error_says_so(name):
    said = rf"{name}' has .* and not 'weight_decay': .* l2 penalty of the model.*adamw"
    with pytest.raises(ValueError, match=said):
        Training(solver=f"{name}:weight_decay=5e-4")


# The weight decay of AdamW.


@pytest.mark.parametrize("all_rows", [True, False])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_decay_takes_the_same_share_of_each_weight_in_any_units_and_none_of_intercepts(
    all_rows, fit_intercept
):
    case = make_case("logistic", fit_intercept=fit_intercept)
    problem, found = case.problem, []
    theta = np.random.default_rng(0).normal(size=problem.shape)
    theta[:, -1] *= fit_intercept
    for decay in (0.0, 0.3):
        optimizer = AdamW(weight_decay=decay)
        updates = LinearUpdates(problem, "<f8", 101, optimizer, Constant(), 0.2)
        if all_rows:
            gradient = np.ones(problem.shape)
            gradient[:, -1] *= fit_intercept
            after = updates.step_by_all_rows(updates.start(theta), gradient)
        else:
            scanned = stream(case.source).scan(
                updates, [updates.start(theta)], seed=0, epoch=0, shuffle_chunks=10**6
            )
            (after,) = scanned
        found.append(after["theta"])
    plain, decayed = found
    assert np.abs(plain - theta).max() == pytest.approx(0.2, rel=1e-4)
    np.testing.assert_allclose(plain[:, -1], decayed[:, -1], rtol=1e-14)
    before, _ = problem.scaling.to_data_units(theta)
    coefs = [problem.scaling.to_data_units(each)[0] for each in found]
    np.testing.assert_allclose(coefs[0] - coefs[1], 0.2 * 0.3 * before, rtol=1e-9)


def test_a_decay_of_more_than_the_whole_weight_leaves_zero():
    assert AdamW(weight_decay=3.0).retained(0.5) == 0.0
    assert AdamW(weight_decay=3.0).retained(0.1) == pytest.approx(0.7)
    assert replace(AdamW(), weight_decay=0.0).retained(0.5) == Adam().retained(0.5) == 1.0


def test_no_scaled_weight_stays_above_one_over_the_decay():
    path = steps(AdamW(weight_decay=4.0), -np.ones((2000, 1)))
    assert path.max() <= 0.25
    assert path[-1] == pytest.approx(0.25, rel=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999, 0.99999])
def test_the_factor_against_bias_saves_a_power_and_no_bit(decay):
    ages = np.concatenate([np.arange(1.0, 60.0), np.linspace(30, 45, 2001) / (1.0 - decay)])
    for age in ages.tolist():
        assert bias_factor(decay, age) == 1.0 / (1.0 - decay**age)
    assert bias_factor(decay, 1e9) == 1.0
