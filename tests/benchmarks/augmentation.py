"""Augmentation on Fashion-MNIST: rows per second with it over without, and accuracies.

``python -m tests.benchmarks.augmentation [--rounds 5] [--epochs 20] [--json FILE]`` needs the
package `dataset-fashion-mnist` of Debian. A network of 784-128-10 and a softmax learns by Adam.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ooc_train import (
    Cutout,
    Flip,
    Mixup,
    MLPClassifierModel,
    Noise,
    Shift,
    Store,
    Training,
    evaluate,
    train,
)
from tests.benchmarks.images import raw_store, seconds
from tests.benchmarks.tools import Figure, arguments, interleave, report, table

_BOTH = (Shift(2), Flip())
_AUGMENTATIONS: dict[str, Any] = {
    "none": None,
    "shift of 2, and flip": _BOTH,
    "flip": Flip(),
    "cutout of 8": Cutout(8),
    "noise of 0.1": Noise(0.1),
    "mixup of 0.2": Mixup(0.2),
}


def _model(augment: Any) -> MLPClassifierModel:
    return MLPClassifierModel(hidden_layer_sizes=(128,), scale=1 / 255, augment=augment)


def _accuracies(augment: Any, epochs: int, stores: list[Store]) -> list[float]:
    """Return the accuracies on training and test images after so many passes."""
    how = Training(solver="adam", batch_size=32, max_iter=epochs, random_state=0, tol=0.0)
    fitted, _ = train(_model(augment), stores[0], how)
    return [float(evaluate(fitted, store)[0]["accuracy"]) for store in stores]


def main() -> None:
    """Let both take turns, then train with each augmentation."""
    parser = arguments(__doc__.partition("\n")[0], rows="60k")
    parser.add_argument("--epochs", type=int, default=20, help="of accuracies (%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stores = [raw_store(Path(folder), kind) for kind in ("train", "t10k")]
        contestants = {
            f"{size} {name}": partial(seconds, _model(augment), stores[0], size, "adam")
            for size in (32, 256)
            for name, augment in (("without", None), ("with", _BOTH))
        }
        taken = {name: np.array(s) for name, s in interleave(contestants, options.rounds).items()}
        found = {
            name: _accuracies(augment, options.epochs, stores)
            for name, augment in _AUGMENTATIONS.items()
        }
    ratios = {
        size: Figure.of(taken[f"{size} without"] / taken[f"{size} with"]) for size in (32, 256)
    }
    rates = {name: Figure.of(120 / each) for name, each in taken.items()}
    lines = [
        (str(size), str(rates[f"{size} with"]), str(rates[f"{size} without"]), str(ratio))
        for size, ratio in ratios.items()
    ]
    header = ("rows of a batch", "k rows/s with shift and flip", "without", "with over without")
    accuracies = [(name, *(f"{each:.2%}" for each in pair)) for name, pair in found.items()]
    report(
        "\n".join(
            [table(header, lines), table(("augmentation", "training", "test images"), accuracies)]
        ),
        {"ratios": {str(size): ratio for size, ratio in ratios.items()}, "accuracies": found},
        options.json,
    )


if __name__ == "__main__":
    main()
