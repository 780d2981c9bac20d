"""Networks of 784-128-10 on Fashion-MNIST: rows a second beside PyTorch's, and test accuracy.

``python -m tests.benchmarks.networks [--rounds 7] [--epochs 10] [--json FILE]`` needs torch, and
Debian's package `dataset-fashion-mnist`. All train on rows in memory, float32, with as many
threads as there are cores. PyTorch slices tensors in random order, in a loop by hand.
"""

from collections.abc import Callable
from functools import partial
from time import perf_counter, sleep
from typing import Any

import numpy as np
import sklearn.neural_network
import torch
from dask.system import CPU_COUNT

from ooc_train import MLPClassifierModel, Training, evaluate, train
from tests.benchmarks.parity.data import fashion_images
from tests.benchmarks.tools import Figure, arguments, interleave, report, table, verdict

_MODEL = MLPClassifierModel(hidden_layer_sizes=(128,))
_ROWS: dict[int | str, int] = {1: 2_000, 32: 30_000, 256: 60_000, "full": 60_000}
"""Batch sizes, and the rows of a turn."""

_TARGETS: dict[int | str, float] = {32: 2.0, 256: 1.5, "full": 0.9}
_OF_SCIKIT_LEARN, _ACCURACY = 3.0, 0.885


def ours(X: Any, y: Any, size: int | str) -> float:
    """Return the seconds of a pass, without the evaluation that others do not make.

    Steps by all rows are three passes and two updates: the last pass is only for the loss.
    """
    optimizer, passes = "sgd" if size == 1 else "adam", 2 if size == "full" else 1
    settings = Training(solver=optimizer, batch_size=size, max_iter=passes, random_state=0, tol=0.0)
    _, done = train(_MODEL, X[: _ROWS[size]], settings, y=y[: _ROWS[size]])
    evaluating = done.profile.get("evaluating", 0.0) / CPU_COUNT  # which all threads do
    return float(done.seconds - evaluating) / done.passes


def pytorchs(X: Any, y: Any, size: int | str) -> float:
    """Return the seconds of a pass of PyTorch over tensors."""
    rows = _ROWS[size]
    size = rows if size == "full" else int(size)
    layers = torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
    network, loss = torch.nn.Sequential(*layers), torch.nn.CrossEntropyLoss()
    kind = torch.optim.SGD if size == 1 else torch.optim.Adam
    optimizer = kind(network.parameters(), lr=1e-3)
    order = torch.randperm(rows)
    began = perf_counter()
    for first in range(0, rows, size):
        batch = slice(None) if size == rows else order[first : first + size]
        optimizer.zero_grad()
        loss(network(X[:rows][batch]), y[:rows][batch]).backward()
        optimizer.step()
    return perf_counter() - began


def scikit_learns(X: Any, y: Any, size: int | str) -> float:
    """Return the seconds of a pass of scikit-learn."""
    rows = _ROWS[size]
    network = sklearn.neural_network.MLPClassifier(
        (128,), batch_size=rows if size == "full" else size, random_state=0
    )
    began = perf_counter()
    network.partial_fit(X[:rows], y[:rows], classes=np.arange(10))
    return perf_counter() - began


def _rested(run: Callable[[], float]) -> float:
    """Return the seconds of a turn, once the threads of the turn before have stopped to spin."""
    sleep(0.3)
    return run()


def accuracies(epochs: int) -> dict[str, float]:
    """Return the test accuracy after some epochs, by optimizer."""
    X, y = fashion_images()
    found = {}
    for name, size, rate in (("adam", 32, 1e-3), ("sgd", 1, 0.01)):
        settings = Training(
            solver=name, batch_size=size, learning_rate=rate, max_iter=epochs, random_state=0
        )
        fitted, _ = train(_MODEL, X, settings, y=y)
        X_test, y_test = fashion_images(test=True)
        metrics, _ = evaluate(fitted, X_test, y=y_test)
        found[f"{name}, {size}"] = metrics["accuracy"]
    return found


def main() -> None:
    """Let all take turns, then train to the end, and say what was reached."""
    parser = arguments(__doc__.partition("\n")[0], rows="60k")
    parser.add_argument("--epochs", type=int, default=10, help="of the accuracies (%(default)s)")
    options = parser.parse_args()
    X, y = fashion_images()
    tensors = torch.from_numpy(X), torch.from_numpy(y)
    contestants: dict[str, Callable[[], float]] = {}
    for size in _ROWS:
        contestants[f"ours, {size}"] = partial(ours, X, y, size)
        contestants[f"PyTorch, {size}"] = partial(pytorchs, *tensors, size)
        contestants[f"scikit-learn, {size}"] = partial(scikit_learns, X, y, size)
    contestants = {name: partial(_rested, run) for name, run in contestants.items()}
    seconds = {name: np.array(s) for name, s in interleave(contestants, options.rounds).items()}
    lines, text, figures = [], [], {}
    for size, rows in _ROWS.items():
        mine = seconds[f"ours, {size}"]
        rate = str(Figure.of(rows / 1e3 / mine))
        ratios = {
            name: Figure.of(seconds[f"{name}, {size}"] / mine)
            for name in ("PyTorch", "scikit-learn")
        }
        lines.append((str(size), rate, *map(str, ratios.values())))
        figures[str(size)] = ratios
        for name, ratio in ratios.items():
            target = _TARGETS.get(size) if name == "PyTorch" else _OF_SCIKIT_LEARN
            if target is not None and size != 1:
                text.append(verdict(f"{name}, {size}", ratio, target))
    header = ("batch size", "k rows/s", "over PyTorch", "over scikit-learn")
    reached = accuracies(options.epochs)
    text += [
        verdict(f"test accuracy of {name}", Figure.of([share]), _ACCURACY)
        for name, share in reached.items()
    ]
    report(
        "\n".join([table(header, lines), *text]),
        {"ratios": figures, "accuracies": reached},
        options.json,
    )


if __name__ == "__main__":
    main()
