"""The best loop that we could write by hand for a full-batch pass over chunks of 26 MB.

Such chunks lie in files of their own, without a checksum, as other writers leave them. Raw ones are
read in pieces that stay in cache, of compressed ones each is decoded whole. It knows one case:
float32 and uint8, two classes, no weights, no scaling, no fixed order of adding. It uses nothing
of ooc_train but what lies on the disk.
"""

import json
import math
import os
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from tests.benchmarks.handwritten import _BLOCK, Array, Loop, _add_rows, on_pool

_PIECE_ROWS = 2048
"""Rows that are read at a time: of 100 float32 they fit the nearest large cache."""


@dataclass(frozen=True)
class Layout:
    """Where the rows lie."""

    path: str
    rows: int
    features: int
    chunk_rows: int
    encoded: bool

    @classmethod
    def of(cls, path: str) -> "Layout":
        X, y = (json.loads((Path(path) / role / "zarr.json").read_text()) for role in ("X", "y"))
        chunk_rows = X["chunk_grid"]["configuration"]["chunk_shape"][0]
        codecs = [codec["name"] for codec in X["codecs"]]
        if (
            codecs not in (["bytes"], ["bytes", "blosc"])
            or (X["data_type"], y["data_type"]) != ("float32", "uint8")
            or y["chunk_grid"]["configuration"]["chunk_shape"] != [chunk_rows]
        ):
            raise ValueError(f"{path} is not what this loop was written for")
        rows, features = X["shape"]
        return cls(path, rows, features, chunk_rows, "blosc" in codecs)


_local = threading.local()


def _add_chunk(
    layout: Layout, coef: NDArray[np.float32], intercept: float, chunk: int
) -> tuple[float, Array]:
    """Return loss and gradient over a chunk."""
    if getattr(_local, "layout", None) != layout:
        _local.layout = layout
        rows = layout.chunk_rows if layout.encoded else _PIECE_ROWS
        _local.X = np.empty((rows, layout.features), np.float32)
        _local.y = np.empty(layout.chunk_rows, np.uint8)
        _local.work = np.empty((3, _BLOCK))
        _local.encoded = bytearray(_local.X.nbytes + 2**16 if layout.encoded else 0)
    X, y, work = _local.X, _local.y, _local.work
    bits = work[2].view(np.int64)
    gradient, loss = np.zeros(layout.features + 1), 0.0
    n = min(layout.chunk_rows, layout.rows - chunk * layout.chunk_rows)
    for key, out in ((f"y/c/{chunk}", y), (f"X/c/{chunk}/0", X)):
        file = os.open(f"{layout.path}/{key}", os.O_RDONLY)
        try:
            if layout.encoded:
                encoded = memoryview(_local.encoded)
                blosc.decompress(encoded[: os.preadv(file, [encoded], 0)], out)
            elif out is y:
                os.preadv(file, [y], 0)
            else:
                for start in range(0, n, len(X)):
                    piece = X[: min(len(X), n - start)]
                    if os.preadv(file, [piece], start * X.strides[0]) != piece.nbytes:
                        raise ValueError(f"chunk {chunk} is cut short")
                    labels = y[start : start + len(piece)]
                    loss += _add_rows(piece, labels, coef, intercept, gradient, work, bits)
        finally:
            os.close(file)
    if layout.encoded:
        loss = _add_rows(X[:n], y[:n], coef, intercept, gradient, work, bits)
    if not math.isfinite(loss):
        raise ValueError(f"chunk {chunk} holds a value that isn't finite")
    return loss, gradient


def handwritten_foreign(
    path: str, workers: int, kind: Literal["threads", "processes"]
) -> AbstractContextManager[Loop]:
    """Return the loop over a store, on a pool."""
    layout = Layout.of(path)
    chunks = range(-(-layout.rows // layout.chunk_rows))
    return on_pool(partial(_add_chunk, layout), chunks, layout.features, workers, kind)
