"""Modules of PyTorch on Fashion-MNIST: rows a second beside a loop by hand, and test accuracy.

``python -m tests.benchmarks.torch_modules [--rounds 7] [--epochs 8] [--cpu] [--json FILE]`` needs
torch, and Debian's package `dataset-fashion-mnist`. The loop slices tensors in memory in random
order; ours reads rows in memory, and the same rows from a store. ``--cpu`` counts seconds of
processors, where others keep the machine busy. ``--epochs 0`` leaves the accuracy out.
"""

from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

from ooc_train import StoreWriter, TorchModule, Training, evaluate, train
from ooc_train.models.model import DataFigures
from ooc_train.optimizers.schedules import Falling
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.sources import Source
from tests.benchmarks.parity.data import fashion_images
from tests.benchmarks.tools import Figure, arguments, interleave, report, table, verdict
from tests.streams import stream

_SIZE = 256
_OF_PYTORCH, _ACCURACY = 0.9, 0.9


def perceptron() -> torch.nn.Module:
    """Return a network of 784-128-10."""
    layers = torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
    return torch.nn.Sequential(*layers)


def convolutional() -> torch.nn.Module:
    """Return a network of two convolutions and a hidden layer."""
    return torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, 28, 28)),
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(32 * 7 * 7, 128),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.3),
        torch.nn.Linear(128, 10),
    )


_MODULES: dict[str, tuple[Callable[[], torch.nn.Module], int]] = {
    "perceptron": (perceptron, 60_000),
    "convolutional": (convolutional, 12_000),
}
"""What makes each module, and the rows of a turn."""


def model(name: str) -> TorchModule:
    """Return a module as a model, trained by Adam."""
    return TorchModule(_MODULES[name][0], criterion="CrossEntropyLoss", optimizer="Adam")


Clock = Callable[[], float]


def ours(name: str, source: Source, clock: Clock) -> float:
    """Return the seconds of the updates of a pass."""
    figures = DataFigures(source.n_rows, 784, 1, 10, float(source.n_rows))
    problem = model(name).problem(figures)
    optimizer, constant = problem.own_optimizer, Falling(noise=0.0)
    scan = problem.updates(source.dtype, _SIZE, optimizer, constant, optimizer.rate, 1e9)
    state, rows = scan.start(problem.initial(0)), stream(source, prefetch_groups=4)
    began = clock()
    rows.scan(scan, [state], seed=0, epoch=0, shuffle_chunks=source.shuffle_chunks)
    return clock() - began


def by_hand(name: str, X: Any, y: Any, clock: Clock) -> float:
    """Return the seconds of a pass of a loop over tensors."""
    network, loss = _MODULES[name][0](), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(network.parameters())
    began = clock()
    order = torch.randperm(len(X))
    for first in range(0, len(X), _SIZE):
        rows = order[first : first + _SIZE]
        optimizer.zero_grad()
        loss(network(X[rows]), y[rows]).backward()
        optimizer.step()
    return clock() - began


def accuracy(epochs: int) -> float:
    """Return the test accuracy of the convolutional network."""
    X, y = fashion_images()
    settings = Training(batch_size=64, max_iter=epochs, random_state=0, tol=0.0)
    fitted, _ = train(model("convolutional"), X, settings, y=y)
    X_test, y_test = fashion_images(test=True)
    return float(evaluate(fitted, X_test, y=y_test)[0]["accuracy"])


def main() -> None:
    """Let all take turns, then train to the end, and say what was reached."""
    parser = arguments(__doc__.partition("\n")[0], rows="60k")
    parser.add_argument("--epochs", type=int, default=8, help="of the accuracy (%(default)s)")
    parser.add_argument("--cpu", action="store_true", help="seconds of processors, on one thread")
    options = parser.parse_args()
    clock: Clock = process_time if options.cpu else perf_counter
    if options.cpu:
        torch.set_num_threads(1)
    X, y = fashion_images()
    contestants: dict[str, Callable[[], float]] = {}
    with TemporaryDirectory() as folder:
        for name, (_, rows) in _MODULES.items():
            path = f"{folder}/{name}"
            with StoreWriter(path, n_features=784, classes=range(10), shuffled=0) as writer:
                writer.write(X[:rows], y[:rows].astype(float))
                writer.commit()
            memory = read_inputs(X[:rows], y[:rows], classifier=True).source
            stored = read_inputs(path, classifier=True).source
            tensors = torch.from_numpy(X[:rows]), torch.from_numpy(y[:rows])
            contestants[f"{name}, by hand"] = partial(by_hand, name, *tensors, clock)
            contestants[f"{name}, rows in memory"] = partial(ours, name, memory, clock)
            contestants[f"{name}, store"] = partial(ours, name, stored, clock)
        taken = interleave(contestants, options.rounds)
    seconds = {name: np.array(values) for name, values in taken.items()}
    lines, text, figures = [], [], {}
    for name, each in seconds.items():
        module = name.partition(",")[0]
        ratio = Figure.of(seconds[f"{module}, by hand"] / each)
        lines.append((name, str(Figure.of(_MODULES[module][1] / 1e3 / each)), str(ratio)))
        figures[name] = ratio
        if not name.endswith("by hand"):
            text.append(verdict(name, ratio, _OF_PYTORCH))
    reached = accuracy(options.epochs) if options.epochs else None
    if reached is not None:
        text.append(verdict("test accuracy, convolutional", Figure.of([reached]), _ACCURACY))
    report(
        "\n".join([table(("", "k rows/s", "over the loop"), lines), *text]),
        {"ratios": figures, "accuracy": reached},
        options.json,
    )


if __name__ == "__main__":
    main()
