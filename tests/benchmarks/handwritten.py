"""The best loop that we could write by hand for one full-batch pass, and nothing else.

It reads X and y of a store chunk by chunk into reused buffers, verifies the crc32c of both, and
adds up logistic loss and gradient by one compiled kernel. It knows one case: float32 and uint8 in
shards, raw or by blosc, two classes, no weights, no scaling, no fixed order of adding.
It uses nothing of ooc_train but what lies on the disk.
"""

import json
import math
import os
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, TypeVar

import numpy as np
from crc32c import crc32c
from numba import njit
from numcodecs import blosc
from numpy.typing import NDArray

Array = NDArray[np.float64]
Function = TypeVar("Function", bound=Callable[..., Any])

_ENTRY = struct.Struct("<QQ")
_CHECKSUM = 4

_BLOCK = 128
"""Rows whose loss is taken together: enough for vectors, and of 100 float32 in the nearest cache
twice over."""

_LN2 = math.log(2.0)


def _compiled(function: Function) -> Function:
    """Compile; parts stay calls, since inlined into one function they were no longer vectors."""
    options: Any = {"fastmath": {"reassoc", "contract"}, "error_model": "numpy"}
    compiled: Function = njit(cache=True, nogil=True, **options)(function)
    return compiled


@_compiled
def _predict(
    X: NDArray[np.float32], start: int, stop: int, coef: NDArray[np.float32], z: Array
) -> None:
    features = X.shape[1]
    whole = stop - (stop - start) % 4
    for i in range(start, whole, 4):
        x0, x1, x2, x3 = X[i], X[i + 1], X[i + 2], X[i + 3]
        s0 = s1 = s2 = s3 = np.float32(0)
        for j in range(features):
            s0 += coef[j] * x0[j]
            s1 += coef[j] * x1[j]
            s2 += coef[j] * x2[j]
            s3 += coef[j] * x3[j]
        k = i - start
        z[k], z[k + 1], z[k + 2], z[k + 3] = s0, s1, s2, s3
    for i in range(whole, stop):
        s = np.float32(0)
        for j in range(features):
            s += coef[j] * X[i, j]
        z[i - start] = s


@_compiled
def _slope(
    y: NDArray[np.uint8],
    start: int,
    stop: int,
    intercept: float,
    z: Array,
    rest: Array,
    bits: NDArray[np.int64],
    power: Array,
) -> tuple[float, float]:
    """Replace predictors by the loss's derivatives; return the sums of losses and derivatives.

    Exponential and logarithm are polynomials, exact to 1e-11, since calls don't make vectors; they
    are written out, since neither do loops over their coefficients.
    """
    for i in range(stop - start):
        z[i] += intercept
        a = max(-abs(z[i]), -700.0)
        k = np.int64(a / _LN2 - 0.5)
        rest[i] = a - k * _LN2
        bits[i] = (k + 1023) << 52  # which is 2 ** k in `power`
    loss = total = 0.0
    for i in range(stop - start):
        a = rest[i]
        e = 1 / 5040 + a * (1 / 40320 + a * (1 / 362880 + a / 3628800))
        e = 1 / 6 + a * (1 / 24 + a * (1 / 120 + a * (1 / 720 + a * e)))
        e = power[i] * (1.0 + a * (1.0 + a * (0.5 + a * e)))
        q = e / (2.0 + e)  # log(1 + e) = 2 atanh(q), and q is at most a third
        q2 = q * q
        log = 1 / 13 + q2 * (1 / 15 + q2 * (1 / 17 + q2 * (1 / 19 + q2 / 21)))
        log = 1 / 5 + q2 * (1 / 7 + q2 * (1 / 9 + q2 * (1 / 11 + q2 * log)))
        log = 2.0 * q * (1.0 + q2 * (1 / 3 + q2 * log))
        target = float(y[start + i])
        loss += max(z[i], 0.0) - target * z[i] + log
        z[i] = (1.0 if z[i] >= 0.0 else e) / (1.0 + e) - target
        total += z[i]
    return loss, total


@_compiled
def _accumulate(X: NDArray[np.float32], start: int, stop: int, r: Array, gradient: Array) -> None:
    features = X.shape[1]
    whole = stop - (stop - start) % 8
    for i in range(start, whole, 8):
        x0, x1, x2, x3 = X[i], X[i + 1], X[i + 2], X[i + 3]
        x4, x5, x6, x7 = X[i + 4], X[i + 5], X[i + 6], X[i + 7]
        k = i - start
        r0, r1, r2, r3 = r[k], r[k + 1], r[k + 2], r[k + 3]
        r4, r5, r6, r7 = r[k + 4], r[k + 5], r[k + 6], r[k + 7]
        for j in range(features):
            gradient[j] += ((r0 * x0[j] + r1 * x1[j]) + (r2 * x2[j] + r3 * x3[j])) + (
                (r4 * x4[j] + r5 * x5[j]) + (r6 * x6[j] + r7 * x7[j])
            )
    for i in range(whole, stop):
        for j in range(features):
            gradient[j] += r[i - start] * X[i, j]


@_compiled
def _add_rows(
    X: NDArray[np.float32],
    y: NDArray[np.uint8],
    coef: NDArray[np.float32],
    intercept: float,
    gradient: Array,
    work: Array,
    bits: NDArray[np.int64],
) -> float:
    """Return the loss of rows, and add its gradient to `gradient` (features + 1,)."""
    z, rest, power = work[0], work[1], work[2]
    by_coef = gradient[:-1]
    loss = 0.0
    for start in range(0, X.shape[0], _BLOCK):
        stop = min(start + _BLOCK, X.shape[0])
        _predict(X, start, stop, coef, z)
        block_loss, total = _slope(y, start, stop, intercept, z, rest, bits, power)
        _accumulate(X, start, stop, z, by_coef)
        loss += block_loss
        gradient[-1] += total
    return loss


@dataclass(frozen=True)
class Layout:
    """Where the rows lie."""

    path: str
    rows: int
    features: int
    chunk_rows: int
    shard_rows: int
    encoded: bool

    @classmethod
    def of(cls, path: str) -> "Layout":
        X, y = (json.loads((Path(path) / role / "zarr.json").read_text()) for role in ("X", "y"))
        sharding, of_y = (array["codecs"][0]["configuration"] for array in (X, y))
        rows, features = X["shape"]
        layout = cls(
            path,
            rows,
            features,
            sharding["chunk_shape"][0],
            X["chunk_grid"]["configuration"]["chunk_shape"][0],
            "blosc" in [codec["name"] for codec in sharding["codecs"]],
        )
        codecs = [codec["name"] for codec in sharding["codecs"] if codec["name"] != "blosc"]
        types = X["data_type"], y["data_type"]
        if (
            codecs != ["bytes", "crc32c"]
            or types != ("float32", "uint8")
            or of_y["chunk_shape"] != [layout.chunk_rows]
        ):
            raise ValueError(f"{path} is not what this loop was written for")
        return layout

    @property
    def shards(self) -> range:
        return range(-(-self.rows // self.shard_rows))


_local = threading.local()

blosc.use_threads = False


def _add_shard(
    layout: Layout, coef: NDArray[np.float32], intercept: float, shard: int
) -> tuple[float, Array]:
    """Return loss and gradient over a shard."""
    if getattr(_local, "layout", None) != layout:
        _local.layout = layout
        _local.X = np.empty((layout.chunk_rows, layout.features), np.float32)
        _local.y = np.empty(
            layout.shard_rows // layout.chunk_rows * (layout.chunk_rows + 64), np.uint8
        )
        _local.work = np.empty((3, _BLOCK))
        _local.labels = np.empty(layout.chunk_rows, np.uint8)
        _local.encoded = bytearray(_local.X.nbytes + 2**16 if layout.encoded else 0)
    X, work = _local.X, _local.work
    bits = work[2].view(np.int64)
    gradient, loss = np.zeros(layout.features + 1), 0.0
    first = shard * layout.shard_rows
    rows = min(layout.shard_rows, layout.rows - first)
    chunks = range(-(-rows // layout.chunk_rows))
    checksum = bytearray(_CHECKSUM)
    keys = f"X/c/{shard}/0", f"y/c/{shard}"
    files = [os.open(f"{layout.path}/{key}", os.O_RDONLY) for key in keys]
    try:
        entries, entries_of_y = (_index(file, layout) for file in files)
        # All of the shard's y is smaller than one chunk of X: it comes by one call.
        end = max(entries_of_y[i][0] + entries_of_y[i][1] for i in chunks)
        os.preadv(files[1], [_local.y[:end]], 0)
        for i in chunks:
            offset, length = entries[i]
            stored = X
            if layout.encoded:
                stored = memoryview(_local.encoded)[: length - _CHECKSUM]
            if os.preadv(files[0], [stored, checksum], offset) != length:
                raise ValueError(f"chunk {i} of shard {shard} is cut short")
            offset, length = entries_of_y[i]
            y = _local.y[offset : offset + length - _CHECKSUM]
            for data, due in ((stored, checksum), (y, _local.y[offset + len(y) : offset + length])):
                if crc32c(data) != int.from_bytes(bytes(due), "little"):
                    raise ValueError(f"chunk {i} of shard {shard} fails its checksum")
            if layout.encoded:
                blosc.decompress(stored, X)
                blosc.decompress(y, _local.labels)
                y = _local.labels
            n = min(layout.chunk_rows, rows - i * layout.chunk_rows)
            # A value that isn't finite makes a loss that isn't.
            loss += _add_rows(X[:n], y[:n], coef, intercept, gradient, work, bits)
    finally:
        for file in files:
            os.close(file)
    if not math.isfinite(loss):
        raise ValueError(f"shard {shard} holds a value that isn't finite")
    return loss, gradient


def _index(file: int, layout: Layout) -> list[tuple[int, int]]:
    """Return offset and length of the chunks of a shard."""
    length = _ENTRY.size * (layout.shard_rows // layout.chunk_rows)
    index = os.pread(file, length + _CHECKSUM, os.fstat(file).st_size - length - _CHECKSUM)
    if crc32c(index[:length]) != int.from_bytes(index[length:], "little"):
        raise ValueError("the index of a shard fails its checksum")
    return list(_ENTRY.iter_unpack(index[:length]))


@dataclass(frozen=True)
class Result:
    """What a pass found, and the seconds that it took."""

    seconds: float
    loss: float
    gradient: Array


class Loop:
    """A loop over the pieces of a store, on a pool that is there already.

    Parameters
    ----------
    add : returns loss and gradient over a piece, given coefficients, intercept, and its number
    pieces : the numbers
    executor : of threads or processes
    """

    def __init__(
        self, add: Callable[..., tuple[float, Array]], pieces: range, executor: Executor
    ) -> None:
        self._add, self._pieces, self._executor = add, pieces, executor

    def __call__(self, coef: Array, intercept: float) -> Result:
        """Return the sums of losses and of gradients over all rows, intercept last."""
        started = perf_counter()
        task = partial(self._add, coef.astype(np.float32), intercept)
        losses, gradients = zip(*self._executor.map(task, self._pieces), strict=True)
        loss, gradient = math.fsum(losses), np.sum(gradients, axis=0)
        return Result(perf_counter() - started, loss, gradient)


@contextmanager
def on_pool(
    add: Callable[..., tuple[float, Array]],
    pieces: range,
    features: int,
    workers: int,
    kind: Literal["threads", "processes"],
) -> Iterator[Loop]:
    """Yield a loop, on a pool of `workers` that has compiled its kernel."""
    with (
        ThreadPoolExecutor(workers)
        if kind == "threads"
        else ProcessPoolExecutor(workers, get_context("spawn"))
    ) as executor:
        loop = Loop(add, pieces, executor)
        loop(np.zeros(features), 0.0)
        yield loop


def handwritten(
    path: str, workers: int, kind: Literal["threads", "processes"]
) -> AbstractContextManager[Loop]:
    """Return the loop over a store, on a pool."""
    layout = Layout.of(path)
    return on_pool(partial(_add_shard, layout), layout.shards, layout.features, workers, kind)
