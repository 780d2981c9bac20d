"""Fashion-MNIST as it comes, uint8 in IDX files, beside the same images stored as floats.

``python -m tests.benchmarks.images [--rounds 7] [--epochs 10] [--json FILE]`` needs the package
`dataset-fashion-mnist` of Debian. A network of 784-128-10 and a softmax learn from both stores: raw
pixels by ``scale=1/255``, and float32 from 0 to 1 in chunks of as many rows.
"""

import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from ooc_train import (
    LogisticModel,
    MLPClassifierModel,
    Store,
    StoreWriter,
    Training,
    evaluate,
    ingest_images,
    train,
)
from ooc_train.models.model import Model
from tests.benchmarks.parity.data import FASHION
from tests.benchmarks.tools import Figure, arguments, interleave, report, table, verdict

_SCALE = 1 / 255
_JOBS: dict[str, tuple[Model, Model, int | str, str]] = {
    "network, 32": (
        MLPClassifierModel(hidden_layer_sizes=(128,), scale=_SCALE),
        MLPClassifierModel(hidden_layer_sizes=(128,)),
        32,
        "adam",
    ),
    "network, 256": (
        MLPClassifierModel(hidden_layer_sizes=(128,), scale=_SCALE),
        MLPClassifierModel(hidden_layer_sizes=(128,)),
        256,
        "adam",
    ),
    "softmax, 32": (LogisticModel(scale=_SCALE), LogisticModel(), 32, "sgd"),
    "softmax, full": (LogisticModel(scale=_SCALE), LogisticModel(), "full", "lbfgs"),
}
"""The model of raw pixels, that of floats, the batch size, and the solver."""

_RATE, _ACCURACY = 0.9, 0.885


def raw_store(folder: Path, kind: str) -> Store:
    """Return the store that `ingest_images` makes of the files of the package."""
    images, labels = (
        FASHION / f"{kind}-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1")
    )
    return ingest_images(images, folder / f"{kind}.zarr", labels, codec="none").store


def float_store(folder: Path, raw: Store) -> Store:
    """Return a store of the same rows as float32, from 0 to 1."""
    with StoreWriter(
        folder / "floats.zarr",
        row_shape=raw.row_shape,
        classes=raw.classes,
        chunk_rows=raw.chunk_rows,
        shuffled=0,
    ) as writer:
        writer.write(raw.read("X") / np.float32(255), raw.read("y"))
        return writer.commit()


def seconds(model: Model, store: Store, size: int | str, solver: str) -> float:
    """Return the seconds of two epochs, or of five iterations by all rows."""
    settings = Training(
        solver=solver, batch_size=size, max_iter=5 if size == "full" else 2, random_state=0, tol=0.0
    )
    _, done = train(model, store, settings)
    return done.seconds


def main() -> None:
    """Let both take turns, then train on raw pixels to the end."""
    parser = arguments(__doc__.partition("\n")[0], rows="60k")
    parser.add_argument("--epochs", type=int, default=10, help="of the accuracy (%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = perf_counter()
        raw, test = (raw_store(Path(folder), kind) for kind in ("train", "t10k"))
        ingesting = perf_counter() - began
        floats = float_store(Path(folder), raw)
        contestants = {}
        for name, (scaled, plain, size, solver) in _JOBS.items():
            contestants[f"raw {name}"] = partial(seconds, scaled, raw, size, solver)
            contestants[f"floats {name}"] = partial(seconds, plain, floats, size, solver)
        taken = {name: np.array(s) for name, s in interleave(contestants, options.rounds).items()}
        model, _, size, solver = _JOBS["network, 32"]
        how = Training(solver=solver, batch_size=size, max_iter=options.epochs, random_state=0)
        fitted, _ = train(model, raw, how)
        accuracy = float(evaluate(fitted, test)[0]["accuracy"])
    lines, text, figures = [], [], {}
    for name, (_, _, size, _) in _JOBS.items():
        rows = 60_000 * (5 if size == "full" else 2) / 1e3
        ratio = Figure.of(taken[f"floats {name}"] / taken[f"raw {name}"])
        rates = [str(Figure.of(rows / taken[f"{kind} {name}"])) for kind in ("raw", "floats")]
        lines.append((name, *rates, str(ratio)))
        text.append(verdict(f"rows a second of raw pixels over floats, {name}", ratio, _RATE))
        figures[name] = ratio
    text.append(verdict("test accuracy of the network", Figure.of([accuracy]), _ACCURACY))
    text.append(f"ingest of 70,000 images: {ingesting:.2f} s")
    header = ("job", "k rows/s of raw pixels", "of floats", "raw over floats")
    report(
        "\n".join([table(header, lines), *text]),
        {"ratios": figures, "accuracy": accuracy, "ingest": ingesting},
        options.json,
    )


if __name__ == "__main__":
    main()
