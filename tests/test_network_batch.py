"""A share of a batch by one compiled call: rows taken and scaled, their losses and gradient."""

import numpy as np
import pytest

from ooc_train.models.network import Layers, Propagation, RowScaling
from ooc_train.models.network_batch import BatchCall
from ooc_train.objective.activations import ACTIVATIONS
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.losses.squared import Squared
from ooc_train.objective.scaling import Scaling

ROWS, FEATURES, TAKEN = 40, 7, 13
RANDOM = np.random.default_rng(0)
SCALINGS = {
    "none": None,
    "factor": Scaling.constant(1 / 255, FEATURES),
    "moments": Scaling(RANDOM.normal(size=FEATURES), RANDOM.uniform(0.5, 2.0, FEATURES)),
}
LOSSES = {
    "multinomial": (Multinomial(), 3, RANDOM.integers(0, 3, (ROWS, 1)).astype(float)),
    "logistic": (Logistic(), 1, RANDOM.integers(0, 2, (ROWS, 1)).astype(float)),
    "squared": (Squared(), 2, RANDOM.normal(size=(ROWS, 2))),
}


def arrays_of(layers, dtype):
    """Return the arrays of a share, full of numbers that no result may have."""
    outputs = layers.sizes[-1]
    arrays = {
        name: np.full(spec.shape, 7, spec.dtype)
        for name, spec in layers.workspace(TAKEN, dtype, gradients=True).items()
    }
    arrays["params"][...] = layers.initial(0, "glorot")
    rows = np.full((TAKEN, FEATURES), 7, dtype)
    return arrays | {
        "rows": rows,
        "targets": np.full((TAKEN, outputs), 7.0),
        "row weights": np.full(TAKEN, 7.0),
    }


@pytest.mark.parametrize(
    ("loss", "activation"), [(n, "relu") for n in LOSSES] + [("squared", "gelu")]
)
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_one_call_is_what_its_parts_are(loss, activation, scaling, dtype):
    found_loss, outputs, y = LOSSES[loss]
    layers = Layers((FEATURES, 5, 4, outputs), ACTIVATIONS[activation]())
    X = RANDOM.normal(size=(ROWS, FEATURES)).astype(dtype)
    scaled = RowScaling(SCALINGS[scaling], np.dtype(dtype))
    arrays = arrays_of(layers, dtype)
    call = BatchCall(layers, found_loss, scaled, arrays)
    parts = arrays_of(layers, dtype)
    propagation = Propagation(layers, found_loss, parts)
    rtol = 2e-4 if dtype == "f4" else 1e-10
    for rows, weight in (
        (TAKEN, np.empty(0)),
        (5, RANDOM.uniform(0.5, 2.0, ROWS)),
        (TAKEN, np.empty(0)),
    ):
        order = RANDOM.permutation(ROWS)[:rows]
        out, due = (np.full(layers.n_parameters, 7, dtype) for _ in range(2))
        own = weight[order] if len(weight) else None
        expected = propagation.gradient(scaled(X[order], None), y[order], own, out=due)
        assert call.gradient(X, y, weight, order, out) == pytest.approx(expected, rel=rtol)
        assert np.allclose(out, due, rtol=rtol, atol=rtol * np.abs(due).max())
        assert np.array_equal(arrays["rows"][:rows], scaled(X[order], None)) or scaling == "moments"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_makes_a_loss_that_is_none(value):
    layers, (loss, _, y) = Layers((FEATURES, 4, 3), ACTIVATIONS["tanh"]()), LOSSES["multinomial"]
    X = RANDOM.normal(size=(ROWS, FEATURES))
    X[9, 2] = value
    call = BatchCall(layers, loss, RowScaling(None, X.dtype), arrays_of(layers, "f8"))
    out = np.empty(layers.n_parameters)
    assert np.isfinite(call.gradient(X, y, np.empty(0), np.arange(9), out))
    assert np.isnan(call.gradient(X, y, np.empty(0), np.arange(3, 12), out))
    y = y.copy()
    y[20] = 3.0  # no class
    assert np.isnan(call.gradient(X, y, np.empty(0), np.arange(15, 22), out))
