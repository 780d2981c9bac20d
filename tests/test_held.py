"""What passes and solvers really hold of many parameters is no more than the plan counts."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from ooc_train import LogisticRegression
from ooc_train.errors import CeilingExceeded
from ooc_train.inference.predict import evaluate, predict
from ooc_train.kernels.api import (
    OUTER_PRODUCTS,
    PREDICTOR,
    SHUFFLE,
    add_rows_needs,
    loss_slopes_needs,
    network_step_needs,
)
from ooc_train.kernels.calling import load
from ooc_train.kernels.scan import scan_needs
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.model import Model
from ooc_train.models.network_models import MLPClassifierModel, MLPRegressorModel
from ooc_train.models.regression_models import LassoModel, RidgeModel
from ooc_train.models.robust_models import HuberModel, QuantileModel
from ooc_train.objective.losses import LOSSES
from ooc_train.objective.losses.scaled_huber import ScaledHuber
from ooc_train.optimizers.adam import Adam
from ooc_train.optimizers.sgd import Sgd
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.loop import train

SMALL = 2 * 2**20
"""Bytes of objects of Python's own, which "headroom" has room for."""

LOGISTIC = LogisticModel()
SPARSE = LogisticModel(C=10.0, l1_ratio=0.5)
CASES: dict[str, tuple[Model, Training, int, int]] = {
    "lbfgs": (LOGISTIC, Training(solver="lbfgs", max_iter=14), 60_000, 2),
    "lbfgs of classes": (LOGISTIC, Training(solver="lbfgs", max_iter=4), 3_000, 20),
    "block lbfgs": (LOGISTIC, Training(solver="block-lbfgs", max_iter=9), 500, 2),
    "block lbfgs of classes": (LOGISTIC, Training(solver="block-lbfgs", max_iter=6), 300, 5),
    "newton": (LOGISTIC, Training(solver="newton", max_iter=3), 500, 2),
    "newton of classes": (LOGISTIC, Training(solver="newton", max_iter=2), 100, 5),
    "proximal lbfgs": (SPARSE, Training(solver="proximal-lbfgs", max_iter=14), 60_000, 2),
    "proximal newton": (SPARSE, Training(solver="proximal-newton", max_iter=3), 500, 2),
    "huber": (HuberModel(), Training(max_iter=3), 250, 0),
    "smoothing": (QuantileModel(), Training(max_iter=3), 500, 0),
    "smoothing by lbfgs": (QuantileModel(alpha=0.0), Training(max_iter=14), 60_000, 0),
    "gram": (RidgeModel(), Training(), 700, 0),
    "coordinate descent": (LassoModel(alpha=1e-3), Training(tol=1e-9), 700, 0),
    "sgd": (LOGISTIC, Training(batch_size=8, max_iter=3), 60_000, 2),
    "adam": (LOGISTIC, Training(batch_size=8, solver="adam", max_iter=3), 60_000, 2),
    "sgd by all rows": (LOGISTIC, Training(solver="sgd", max_iter=3), 60_000, 2),
    "network by lbfgs": (
        MLPClassifierModel(hidden_layer_sizes=(300, 200), activation="gelu"),
        Training(solver="lbfgs", max_iter=14),
        700,
        3,
    ),
    "network by adam": (
        MLPClassifierModel(hidden_layer_sizes=(300, 200), standardize=True),
        Training(solver="adam", batch_size=8, max_iter=3),
        700,
        3,
    ),
    "network by rows": (
        MLPRegressorModel(hidden_layer_sizes=(300,)),
        Training(solver="sgd", batch_size=1, learning_rate=1e-4, max_iter=2),
        2000,
        0,
    ),
    "one column": (LOGISTIC, Training(max_iter=3), 1, 2),
}


def rows_of(features, classes, rows=48):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, features)).astype(np.float32)
    y = rng.normal(size=rows) if classes == 0 else np.arange(rows) % classes
    return read_inputs(X, y, classifier=classes > 0)


@pytest.fixture(autouse=True, scope="module")
def _compiled():
    # Kernels are loaded before anything is measured.
    for loss in (LOSSES[name]() for name in ("squared", "logistic", "multinomial")):
        for optimizer in (Sgd(), Adam()):
            for outputs in (1, 3):
                needs = scan_needs(loss, optimizer, 1, outputs, l1=False)
                load(np.float32, [*add_rows_needs(loss), *needs, SHUFFLE])
                load(np.float32, [*loss_slopes_needs(loss), *network_step_needs(optimizer)])
    for name in ("quantile", "smooth_quantile"):
        load(np.float32, add_rows_needs(LOSSES[name]()))
    load(np.float32, [PREDICTOR, OUTER_PRODUCTS, *add_rows_needs(ScaledHuber())])


def held_by(job):
    """Return what a job returns, and the most bytes that it held at a time."""
    tracemalloc.start()
    try:
        found = job()
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", CASES)
def test_training_holds_no_more_than_its_terms(case):
    model, training, features, classes = CASES[case]
    inputs = rows_of(features, classes)
    (_, report), peak = held_by(lambda: train(model, inputs, training))
    terms = report.memory.terms
    counted = sum(terms[name] for name in ("buffers", "sums", "parameters", "shared"))
    assert peak <= counted + SMALL
    # Nor is it made much larger than it is.
    assert counted <= 4 * peak + SMALL


@pytest.mark.slow
@pytest.mark.parametrize("case", ["lbfgs", "sgd", "adam", "sgd by all rows"])
def test_a_hundred_rows_of_500_000_columns_hold_no_more_than_their_terms(case):
    model, training, _, classes = CASES[case]
    inputs = rows_of(500_000, classes, rows=100)
    (_, report), peak = held_by(lambda: train(model, inputs, training))
    terms = report.memory.terms
    counted = sum(terms[name] for name in ("buffers", "sums", "parameters", "shared"))
    assert peak <= counted + SMALL
    assert counted <= 4 * peak + SMALL


@pytest.mark.slow
def test_wide_networks_hold_no_more_than_the_terms_of_predicting():
    inputs = rows_of(400, 5, rows=3000)
    model = MLPClassifierModel(hidden_layer_sizes=(5000, 20), activation="gelu")
    fitted, _ = train(model, inputs, Training(batch_size=1000, max_iter=1))
    (_, memory), peak = held_by(lambda: evaluate(fitted, inputs))
    assert peak <= sum(memory.terms.values()) - memory.terms["headroom"] + SMALL
    _, peak = held_by(lambda: predict(fitted, inputs.source.X, "probability"))
    assert fitted.predictor.made_bytes / 2 <= peak <= 2 * fitted.predictor.made_bytes


@pytest.mark.slow
def test_many_classes_hold_no_more_than_the_terms_of_predicting():
    inputs = rows_of(400, 500, rows=3000)
    fitted, _ = train(LOGISTIC, inputs, Training(batch_size=64, max_iter=1))
    (_, memory), peak = held_by(lambda: evaluate(fitted, inputs))
    assert peak <= sum(memory.terms.values()) - memory.terms["headroom"] + SMALL
    found, peak = held_by(lambda: predict(fitted, inputs.source.X, "probability"))
    assert peak <= 6 * found.nbytes


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("X", "copied"),
    [
        (np.ones((100_000, 50), np.float32), 0),
        (np.ones((100_000, 50)), 0),
        (np.ones((100_000, 5, 10), np.float32), 0),
        (np.ones((100_000, 5, 10), np.uint8), 4),
        (np.ones((100_000, 50), np.float32, order="F"), 4),
        (np.ones((100_000, 50), np.int8), 8),
        (pd.DataFrame({f"{i}": np.arange(100_000) for i in range(50)}), 8),
    ],
    ids=["float32", "float64", "images", "uint8", "columns", "int8", "frame"],
)
def test_copies_of_arrays_count(X, copied):
    y = np.arange(100_000) % 2
    least = copied * 50 * 100_000 + 8 * 100_000  # labels become codes
    model = LogisticRegression(batch_size=256, max_iter=1).fit(X, y)
    memory = model.report_.memory
    others = memory.terms["baseline"] - least
    # The system takes pages back meanwhile.
    assert -SMALL <= others < 8 * 2**20
    assert least - SMALL <= memory.measured <= memory.projected
    if isinstance(X, np.ndarray):
        _, report = train(LOGISTIC, X, Training(batch_size=256, max_iter=1), y=y)
        assert report.memory.terms["baseline"] >= least - SMALL
        _, memory = evaluate(model, X, y=y)
        assert memory.terms["baseline"] >= least - SMALL


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_copies_that_the_ceiling_has_no_room_for_are_refused():
    X, y = np.ones((100_000, 50), order="F"), np.arange(100_000) % 2
    with pytest.raises(CeilingExceeded, match=r"arrays that need no copies \(these hold 38"):
        LogisticRegression(memory_ceiling="32MiB").fit(X, y)
    room = LogisticRegression(memory_ceiling="96MiB", max_iter=1).fit(X, y).report_.memory
    assert room.measured <= room.projected <= 96 * 2**20
