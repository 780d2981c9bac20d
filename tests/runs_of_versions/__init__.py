"""Runs that each version saved, and what they predicted: the present version reads all of them.

At a release, ``python -m tests.runs_of_versions`` writes the runs of the version that
`ooc_train.__version__` names, which are committed and never changed again. A kind of model or of
calibration that is new gets its entry in `KINDS` before. Folders of a version that no release had
may be written anew.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ooc_train import (
    Fitted,
    HuberModel,
    LinearSVCModel,
    LogisticModel,
    MLPClassifierModel,
    MLPRegressorModel,
    PoissonModel,
    Recipe,
    RidgeModel,
    TorchClassifierModel,
)
from ooc_train.inference.outputs import Outputs

FOLDER = Path(__file__).parent
EXPECTED = "expected.json"


def module() -> Any:
    """A small module of PyTorch."""
    import torch

    return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))


KINDS: Mapping[str, Any] = {
    "raw columns": LogisticModel(class_weight={"no": 1.0, "yes": 2.0}),
    "classes": LogisticModel(C=0.5),
    "outputs": RidgeModel(alpha=2.0),
    "counts": PoissonModel(),
    "scale": HuberModel(),
    "images": MLPClassifierModel(hidden_layer_sizes=(5, 4), activation="tanh"),
    "network of numbers": MLPRegressorModel(hidden_layer_sizes=(3,), activation="gelu"),
    "module": TorchClassifierModel(module),
    "sigmoid": LinearSVCModel(),
    "isotonic": LinearSVCModel(),
    "private": LogisticModel(),
}
"""The model of each kind of run."""

TABLE: Mapping[str, Sequence[Any]] = {
    "carrier": ["UA", "AA", None, "DL", "XX"],
    "distance": [1000.5, None, 250.0, 7.25, -3.0],
    "stops": [0, 1, 2, 1, 0],
}
"""Raw rows to predict, with a missing and an unseen category."""


def predictions(fitted: Fitted) -> dict[str, Any]:
    """Return the predictions of five rows, as values of JSON."""
    if fitted.recipe is None:
        size = 5 * fitted.n_features
        X = np.linspace(-1.0, 1.0, size)[np.arange(size) * 7 % size].reshape(5, -1)
    else:
        X = Recipe.from_json(fitted.recipe).apply(pa.table(TABLE)).astype(np.float64)
    outputs, z = Outputs.of(fitted), fitted.decision(X)
    found = {"decision": z.tolist(), "prediction": outputs.at(z, "prediction").tolist()}
    if outputs.has_probabilities:
        found["probability"] = outputs.at(z, "probability").tolist()
    return found
