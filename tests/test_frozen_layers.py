"""Layers that a run leaves as it began with them, to the same bits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits

from ooc_train import MLPClassifier, MLPClassifierModel, Training, train

DIGITS, CLASSES = load_digits(return_X_y=True)
DIGITS, CLASSES = DIGITS[:640] / 16, CLASSES[:640]
pytestmark = pytest.mark.filterwarnings("ignore:.*not converged")
MODEL = MLPClassifierModel(hidden_layer_sizes=(9, 7), alpha=1.0)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("frozen", [1, 2])
@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "adam", "batch_size": 32},
        {"solver": "adamw:weight_decay=0.1", "batch_size": 32},
        {"solver": "sgd:clip_norm=0.1", "batch_size": 1},
        {"solver": "adam", "batch_size": 16, "replicas": 2},
        {"solver": "adamw:weight_decay=0.1", "batch_size": "full"},
        {"solver": "lbfgs", "batch_size": "full"},
    ],
    ids=str,
)
def test_frozen_layers_stay_and_the_others_learn(settings, frozen, dtype):
    X = DIGITS.astype(dtype)
    given: dict[str, Any] = {"max_iter": 4, "tol": 0.0, "random_state": 0}
    first, _ = train(MODEL, X, Training(batch_size=32, **given), y=CLASSES)
    model = replace(MODEL, frozen_layers=frozen)
    found, report = train(model, X, Training(**given | settings), y=CLASSES, start=first)
    predictors: Any = first.predictor, found.predictor
    views = [each.layers.views(each.params) for each in predictors]
    for i, (was, now) in enumerate(zip(*views, strict=True)):
        for one, other in zip(was, now, strict=True):
            assert np.array_equal(one, other) is (i < frozen)
    assert np.isfinite(report.loss)


def test_an_estimator_goes_on_with_its_first_layer():
    made = MLPClassifier((32,), batch_size=32, max_iter=5, random_state=0, warm_start=True)
    made.fit(DIGITS, CLASSES)
    made.frozen_layers = 1
    kept, moved = made.coefs_[0].copy(), made.coefs_[1].copy()
    made.fit(DIGITS, CLASSES)
    assert_array_equal(made.coefs_[0], kept)
    assert not np.array_equal(made.coefs_[1], moved)


def test_all_layers_cannot_be_frozen():
    for frozen in (2, 5):
        with pytest.raises(ValueError, match=f"frozen_layers={frozen} leaves nothing to learn"):
            MLPClassifier((8,), frozen_layers=frozen).fit(DIGITS, CLASSES)
    with pytest.raises(ValueError, match="frozen_layers=-1"):
        MLPClassifier((8,), frozen_layers=-1).fit(DIGITS, CLASSES)


def parity(y):
    return y % 2


@pytest.mark.parametrize("standardize", [False, True])
def test_a_network_for_other_classes_begins_with_the_hidden_layers(standardize):
    model = replace(MODEL, standardize=standardize)
    settings = Training(batch_size=32, max_iter=6, tol=0.0, random_state=0)
    first, _ = train(model, DIGITS, settings, y=CLASSES)
    frozen = replace(model, frozen_layers=2)
    found, report = train(frozen, DIGITS, settings, y=parity(CLASSES), start=first)
    was: Any = first.predictor
    now: Any = found.predictor
    assert now.layers.sizes == (64, 9, 7, 1)
    assert found.classes == (0, 1)
    for i in range(2):
        pairs = was.layers.views(was.params)[i], now.layers.views(now.params)[i]
        for one, other in zip(*pairs, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12)
    assert any("hidden layers begin as those of the model to start from" in n for n in report.notes)


def test_as_many_other_classes_are_other_outputs_too():
    settings = Training(batch_size=32, max_iter=2, tol=0.0, random_state=0)
    first, _ = train(MODEL, DIGITS, settings, y=CLASSES)
    _, report = train(MODEL, DIGITS, settings, y=CLASSES + 100, start=first)
    assert any("output layer begins at random" in note for note in report.notes)
    _, same = train(MODEL, DIGITS, settings, y=CLASSES, start=first)
    assert not any("output layer begins at random" in note for note in same.notes)


def test_a_warm_start_keeps_its_classes():
    made = MLPClassifier((8,), max_iter=2, warm_start=True).fit(DIGITS, CLASSES)
    with pytest.raises(
        ValueError, match=r"goes on with the classes \[0, 1, .*set warm_start=False"
    ):
        made.fit(DIGITS, parity(CLASSES))


def test_without_hidden_layers_in_common_nothing_is_taken():
    settings = Training(batch_size=32, max_iter=2, tol=0.0, random_state=0)
    first, _ = train(MODEL, DIGITS, settings, y=CLASSES)
    other = replace(MODEL, hidden_layer_sizes=(9, 8))
    with pytest.raises(ValueError, match="start afresh"):
        train(other, DIGITS, settings, y=parity(CLASSES), start=first)
