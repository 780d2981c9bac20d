"""Dropout of perceptrons: which units are left out, and what follows for gradients and runs."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits

from ooc_train import MLPClassifier, MLPClassifierModel, MLPRegressor
from ooc_train.core.sums import Block
from ooc_train.models.gradient_updates import mask_key
from ooc_train.models.model import DataFigures
from ooc_train.models.network import Layers, Propagation
from ooc_train.models.network_dropout import DropoutMasks, mask_workspace
from ooc_train.objective.activations import ACTIVATIONS, Tanh
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.optimizers.adam import Adam
from ooc_train.optimizers.schedules import Constant

DIGITS, CLASSES = load_digits(return_X_y=True)
DIGITS, CLASSES = DIGITS[:640] / 16, CLASSES[:640]
pytestmark = pytest.mark.filterwarnings("ignore:.*not converged")


def arrays_of(specs):
    return {name: np.full(each.shape, np.nan, each.dtype) for name, each in specs.items()}


def masks_of(share, units, rows, update=0, first=0, key=7):
    layers = Layers((3, *units, 2), Tanh())
    arrays = arrays_of(mask_workspace(layers, rows, "<f8"))
    DropoutMasks(share, layers, arrays, key).draw(update, first, rows)
    flat, ends = arrays["masks"].reshape(-1), rows * np.cumsum(units)
    return [part.reshape(rows, -1) for part in np.split(flat, ends[:-1])]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_units_are_left_out_at_random_and_the_mean_stays(share):
    masks = masks_of(share, (13, 40), 4000)
    for mask in masks:
        assert_allclose(np.unique(mask), [0.0, 1 / (1 - share)])
        deviation = np.sqrt(share / (1 - share) / mask.size)
        assert abs(mask.mean() - 1.0) < 4 * deviation
        by_unit = mask.mean(axis=0)
        assert np.abs(by_unit - 1.0).max() < 5 * deviation * np.sqrt(mask.shape[1])
        assert abs(np.corrcoef(mask[:-1, 0], mask[1:, 0])[0, 1]) < 0.07
    assert abs(np.corrcoef(masks[0][:, 0], masks[1][:, 0])[0, 1]) < 0.07
    for other in ({"update": 1}, {"key": 8}):
        assert (masks_of(share, (13, 40), 4000, **other)[0] != masks[0]).mean() > 0.1


def test_a_row_has_its_mask_however_its_batch_is_cut():
    whole = masks_of(0.5, (13, 40), 100, update=3)
    for first, rows in ((0, 1), (37, 20), (99, 1)):
        for due, found in zip(whole, masks_of(0.5, (13, 40), rows, 3, first), strict=True):
            assert_array_equal(found, due[first : first + rows])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_those_of_the_units_that_are_left(activation):
    layers, rng = Layers((5, 6, 4, 3), ACTIVATIONS[activation]()), np.random.default_rng(0)
    specs = layers.workspace(23, "<f8", gradients=True) | mask_workspace(layers, 23, "<f8")
    arrays = arrays_of(specs)
    DropoutMasks(0.5, layers, arrays, 1).draw(0, 0, 23)
    X, y = rng.normal(size=(23, 5)), rng.integers(0, 3, (23, 1)).astype(float)
    params, direction = layers.initial(3, "glorot"), rng.normal(size=layers.n_parameters)
    propagation = Propagation(layers, Multinomial(), arrays)

    def loss_at(point):
        arrays["params"][...] = point
        return propagation.loss(X, y, None)

    step = 1e-6 * direction
    by_differences = (loss_at(params + step) - loss_at(params - step)) / 2e-6
    arrays["params"][...] = params
    propagation.gradient(X, y, None, out=arrays["gradient"])
    assert arrays["gradient"] @ direction == pytest.approx(by_differences, rel=1e-6)
    with_masks = propagation.loss(X, y, None)
    arrays["masks"][...] = 1.0
    assert propagation.loss(X, y, None) != pytest.approx(with_masks)


def test_blocks_of_any_size_give_the_same_updates():
    model = MLPClassifierModel(hidden_layer_sizes=(7, 9), dropout=0.4)
    problem = model.problem(DataFigures(640, 64, 1, 10, 640.0))
    updates = problem.updates("<f8", 16, Adam(), Constant(), 0.01, np.inf)
    y, states = CLASSES[:, None].astype(float), []
    for cuts in ([640], [5, 640], [16, 40, 41, 640]):
        state, first = updates.start(problem.initial(0)), 0
        for last in cuts:
            rows = last - first
            with updates.learner(state, arrays_of(updates.workspace(rows))) as learn:
                learn(Block(DIGITS[first:last], y[first:last], None), np.arange(rows))
            first = last
        states.append(state)
    for state in states[1:]:
        assert_allclose(state["theta"], states[0]["theta"], atol=1e-12)
    other = replace(problem, dropout=0.0).updates("<f8", 16, Adam(), Constant(), 0.01, np.inf)
    assert "mask key" not in other.start(problem.initial(0))
    assert mask_key(problem.initial(0)) != mask_key(problem.initial(1))


def test_a_run_by_dropout_is_repeated_by_its_seed_and_predicts_with_all_units():
    settings: dict[str, Any] = {"batch_size": 32, "max_iter": 30, "dropout": 0.5}
    made = MLPClassifier((64,), random_state=0, **settings).fit(DIGITS, CLASSES)
    again = MLPClassifier((64,), random_state=0, **settings).fit(DIGITS, CLASSES)
    other = MLPClassifier((64,), random_state=0, **settings | {"dropout": 0.0}).fit(DIGITS, CLASSES)
    assert_array_equal(made.coefs_[0], again.coefs_[0])
    assert not np.allclose(made.coefs_[0], other.coefs_[0])
    assert made.score(DIGITS, CLASSES) > 0.97
    # The reported loss is that of predictions, in which no unit is left out.
    chosen = made.predict_proba(DIGITS)[np.arange(640), CLASSES]
    assert made.loss_ == pytest.approx(-np.log(chosen).mean(), rel=1e-9)
    parts = MLPClassifier((64,), random_state=0, **settings)
    for first in range(0, 640, 20):  # blocks of fewer rows than a batch
        rows = slice(first, first + 20)
        parts.partial_fit(DIGITS[rows], CLASSES[rows], classes=np.arange(10))
    assert np.isfinite(parts.coefs_[0]).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dropout": 1.0}, "dropout=1.0 is not a number of at least 0 and at most 0.99"),
        ({"dropout": -0.1}, "dropout=-0.1"),
        ({"dropout": 0.5, "batch_size": "full"}, "all of the 640 rows here; use a smaller batch"),
        ({"dropout": 0.5, "batch_size": 640}, "use a smaller batch_size"),
        (
            {"dropout": 0.5, "solver": "lbfgs"},
            r"needs a gradient of all rows \(no drop",
        ),
    ],
)
def test_dropout_that_cannot_be_used(settings, said):
    with pytest.raises(ValueError, match=said):
        MLPRegressor((4,), **settings).fit(DIGITS, CLASSES)
