"""Predictions of networks for a store, over loops by hand.

``python -m tests.benchmarks.predictions [--rows 240k] [--rounds 7] [--json FILE]``: rows are images
of 784 pixels as uint8. The loops read and verify chunks by threads of one process, multiply in
float64, as predictions of ooc_train are, or in float32, and write no more than the classes.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from time import perf_counter
from typing import Any

import numpy as np
from dask.system import CPU_COUNT

from ooc_train import (
    Fitted,
    LocalCluster,
    MLPClassifierModel,
    Store,
    StoreWriter,
    open_store,
    predict_store,
)
from ooc_train.core.threads import one_blas_thread
from ooc_train.core.units import parse_rows
from ooc_train.models.network import Layers
from ooc_train.models.network_predictor import NetworkPredictor
from ooc_train.objective.activations import Relu
from ooc_train.store.reading.chunks import ChunkReader
from tests.benchmarks.tools import Figure, arguments, interleave, report, table, verdict

_PIXELS, _CLASSES, _TARGET = 784, 10, 0.8
_NETWORKS = ((100,), (512, 256))
_ROWS_AT_A_TIME = 20_000


def written(path: Path, rows: int) -> Store:
    """Return a store of random images."""
    rng = np.random.default_rng(0)
    classes = tuple(range(_CLASSES))
    with StoreWriter(path, n_features=_PIXELS, dtype="uint8", classes=classes) as writer:
        for start in range(0, rows, _ROWS_AT_A_TIME):
            n = min(_ROWS_AT_A_TIME, rows - start)
            X = rng.integers(0, 256, (n, _PIXELS)).astype(np.uint8)
            writer.write(X, rng.integers(0, _CLASSES, n))
        writer.commit()
    return open_store(path)


def network(hidden: tuple[int, ...]) -> Fitted:
    """Return a network of random weights."""
    layers = Layers((_PIXELS, *hidden, _CLASSES), Relu())
    params = np.random.default_rng(1).normal(size=layers.n_parameters) / 300.0
    model = MLPClassifierModel(hidden_layer_sizes=hidden)
    return Fitted(model, NetworkPredictor(layers, params), tuple(range(_CLASSES)))


def ours(fitted: Fitted, store: Store, out: Path, client: Any) -> float:
    """Return the seconds of `predict_store`."""
    began = perf_counter()
    predict_store(fitted, store, out, overwrite=True, client=client)
    return perf_counter() - began


def by_hand(fitted: Fitted, store: Store, out: Path, dtype: str) -> float:
    """Return the seconds of a loop of NumPy over chunks, in as many threads as there are cores."""
    predictor: Any = fitted.predictor
    layers = [
        (weights.astype(dtype), biases.astype(dtype))
        for weights, biases in predictor.layers.views(predictor.params)
    ]
    found, rows = np.empty(store.n_rows, np.int64), store.chunk_rows

    def work(first: int) -> None:
        with ChunkReader(store.X) as reader:
            buffer = np.empty((rows, _PIXELS), np.uint8)
            for start in range(first * rows, store.n_rows, CPU_COUNT * rows):
                stop = min(start + rows, store.n_rows)
                reader.read_rows(start, stop, buffer[: stop - start])
                values = buffer[: stop - start].astype(dtype)
                for i, (weights, biases) in enumerate(layers):
                    values = values @ weights
                    values += biases
                    if i < len(layers) - 1:
                        np.maximum(values, 0.0, out=values)
                found[start:stop] = values.argmax(axis=1)

    began = perf_counter()
    with one_blas_thread():
        threads = [Thread(target=work, args=(number,)) for number in range(CPU_COUNT)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    np.save(out, found)
    return perf_counter() - began


def main() -> None:
    """Let all take turns, and say how they compare."""
    options = arguments(__doc__.partition("\n")[0], rows="240k").parse_args()
    lines, text, figures = [], [], {}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=1, threads_per_worker=CPU_COUNT) as cluster,
        cluster.get_client() as client,
    ):
        place = Path(folder)
        store = written(place / "rows.zarr", parse_rows(options.rows))
        for hidden in _NETWORKS:
            fitted = network(hidden)
            contestants: dict[str, Callable[[], float]] = {
                "ours": partial(ours, fitted, store, place / "out.zarr", client)
            }
            for dtype in ("float64", "float32"):
                contestants[dtype] = partial(by_hand, fitted, store, place / "out.npy", dtype)
            seconds = {
                name: np.array(taken)
                for name, taken in interleave(contestants, options.rounds).items()
            }
            name = "-".join(map(str, (_PIXELS, *hidden, _CLASSES)))
            ratios = {each: Figure.of(seconds[each] / seconds["ours"]) for each in seconds}
            rate = Figure.of(store.n_rows / 1e3 / seconds["ours"])
            lines.append((name, str(rate), str(ratios["float64"]), str(ratios["float32"])))
            text.append(verdict(f"{name}, a loop in float64", ratios["float64"], _TARGET))
            figures[name] = {each: ratios[each] for each in ("float64", "float32")}
    header = ("network", "k rows/s", "of a loop in float64", "of one in float32")
    report("\n".join([table(header, lines), *text]), figures, options.json)


if __name__ == "__main__":
    main()
