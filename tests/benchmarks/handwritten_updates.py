"""The best loop that we could write by hand for one pass of updates, and nothing else.

One thread reads chunks of a store in random order, verifies the crc32c of X and y, and permutes the
rows' numbers; another learns from them by one compiled kernel, float32 parameters and all. It knows
one case: float32 and uint8 in shards without a codec, two classes, a constant learning rate, no
weights, no scaling, no penalty, no intercept. It uses nothing of ooc_train but what lies on the
disk.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from time import perf_counter
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from tests.benchmarks.handwritten import Layout, _compiled, _index

LOSSES = {"squared": 0, "logistic": 1, "hinge": 2}

_BUFFERS = 4


@_compiled
def _slope(loss: int, y: float, z: Any) -> tuple[float, float]:
    """Return a row's loss and its derivative."""
    if loss == 0:
        return 0.5 * (z - y) ** 2, z - y
    if loss == 1:
        e = np.exp(-abs(z))
        return max(z, 0.0) - y * z + np.log(1.0 + e), (1.0 if z >= 0.0 else e) / (1.0 + e) - y
    side = 2.0 * y - 1.0
    return max(1.0 - side * z, 0.0), -side if side * z < 1.0 else 0.0


@_compiled
def _learn(
    X: NDArray[np.float32],
    y: NDArray[np.uint8],
    order: NDArray[np.int64],
    coef: NDArray[np.float32],
    gradient: NDArray[np.float32],
    loss: int,
    batch_size: int,
    eta: float,
) -> float:
    """Return the sum of the rows' losses, each before the update that uses it.

    A batch that the chunk doesn't fill is taken as it is: batches don't straddle chunks.
    """
    features = X.shape[1]
    total = 0.0
    if batch_size == 1:
        for t in range(len(order)):
            i = order[t]
            z = np.float32(0)
            for j in range(features):
                z += coef[j] * X[i, j]
            value, r = _slope(loss, y[i], z)
            total += value
            step = np.float32(eta * r)
            for j in range(features):
                coef[j] -= step * X[i, j]
        return total
    for start in range(0, len(order), batch_size):
        stop = min(start + batch_size, len(order))
        whole = stop - (stop - start) % 4
        for t in range(start, whole, 4):
            a, b, c, d = order[t], order[t + 1], order[t + 2], order[t + 3]
            z0 = z1 = z2 = z3 = np.float32(0)
            for j in range(features):
                w = coef[j]
                z0 += w * X[a, j]
                z1 += w * X[b, j]
                z2 += w * X[c, j]
                z3 += w * X[d, j]
            v0, s0 = _slope(loss, y[a], z0)
            v1, s1 = _slope(loss, y[b], z1)
            v2, s2 = _slope(loss, y[c], z2)
            v3, s3 = _slope(loss, y[d], z3)
            total += (v0 + v1) + (v2 + v3)
            r0, r1, r2, r3 = np.float32(s0), np.float32(s1), np.float32(s2), np.float32(s3)
            for j in range(features):
                gradient[j] += (r0 * X[a, j] + r1 * X[b, j]) + (r2 * X[c, j] + r3 * X[d, j])
        for t in range(whole, stop):
            i = order[t]
            z = np.float32(0)
            for j in range(features):
                z += coef[j] * X[i, j]
            value, r = _slope(loss, y[i], z)
            total += value
            for j in range(features):
                gradient[j] += np.float32(r) * X[i, j]
        step = np.float32(eta / (stop - start))
        for j in range(features):
            coef[j] -= step * gradient[j]
            gradient[j] = np.float32(0)
    return total


@_compiled
def _learn_scaled(
    X: NDArray[np.float32],
    y: NDArray[np.uint8],
    order: NDArray[np.int64],
    coef: NDArray[np.float64],
    row: NDArray[np.float64],
    loss: int,
    eta: float,
) -> float:
    """Learn as ooc_train does from single rows; return the sum of the rows' losses.

    In float64, from rows that are centred and scaled on the way, with a penalty and a constant, the
    last of `coef`, which is (4, features + 1): coefficients, means, inverse scales, penalties.
    """
    features = X.shape[1]
    total = 0.0
    for t in range(len(order)):
        i = order[t]
        z = coef[0, features]
        for j in range(features):
            row[j] = (X[i, j] - coef[1, j]) * coef[2, j]
            z += coef[0, j] * row[j]
        value, r = _slope(loss, y[i], z)
        total += value
        coef[0, features] -= eta * r
        for j in range(features):
            coef[0, j] -= eta * (r * row[j] + coef[3, j] * coef[0, j])
    return total


@_compiled
def _permute(order: NDArray[np.int64], state: int) -> int:
    """Shuffle in place, by a linear congruential generator; return its state."""
    for i in range(len(order) - 1, 0, -1):
        state = (state * 6364136223846793005 + 1442695040888963407) & 0x7FFFFFFFFFFFFFFF
        j = ((state >> 32) * (i + 1)) >> 31
        order[i], order[j] = order[j], order[i]
    return state


class UpdateLoop:
    """The loop over one store.

    Parameters
    ----------
    path : a store
    """

    def __init__(self, path: str) -> None:
        self._layout = layout = Layout.of(path)
        self._buffers = [
            (
                np.empty((layout.chunk_rows, layout.features), np.float32),
                np.empty(layout.chunk_rows, np.uint8),
                np.arange(layout.chunk_rows),
            )
            for _ in range(_BUFFERS)
        ]

    def __call__(
        self, loss: str, batch_size: int, eta: float, *, scaled: bool = False
    ) -> tuple[float, float]:
        """Return the seconds of a pass, and the mean loss of its rows.

        `scaled` has single rows learned from with all that ooc_train does to them.
        """
        layout, started = self._layout, perf_counter()
        parameters = np.zeros((4, layout.features + 1))
        parameters[2], parameters[3] = 1.0, 1e-9
        row = np.empty(layout.features)
        coef = np.zeros(layout.features, np.float32)
        gradient, total = np.zeros_like(coef), 0.0
        free: SimpleQueue[Any] = SimpleQueue()
        ready: SimpleQueue[Any] = SimpleQueue()
        for buffers in self._buffers:
            free.put(buffers)
        with ThreadPoolExecutor(1) as executor:
            reading = executor.submit(self._read, free, ready)
            while (item := ready.get()) is not None:
                rows, buffers = item
                X, y, order = buffers
                code = LOSSES[loss]
                if scaled:
                    total += _learn_scaled(X, y, order[:rows], parameters, row, code, eta)
                else:
                    total += _learn(X, y, order[:rows], coef, gradient, code, batch_size, eta)
                free.put(buffers)
            reading.result()
        if not np.isfinite(total):
            raise ValueError("a value isn't finite")
        return perf_counter() - started, total / layout.rows

    def _read(self, free: SimpleQueue[Any], ready: SimpleQueue[Any]) -> None:
        try:
            self._read_all(free, ready)
        finally:
            ready.put(None)

    def _read_all(self, free: SimpleQueue[Any], ready: SimpleQueue[Any]) -> None:
        layout = self._layout
        per_shard = layout.shard_rows // layout.chunk_rows
        files = dict(self._files())
        checksums, state = (bytearray(4), bytearray(4)), 1
        chunks = -(-layout.rows // layout.chunk_rows)
        try:
            for chunk in np.random.default_rng(0).permutation(chunks).tolist():
                buffers = free.get()
                shard, place = divmod(chunk, per_shard)
                rows = min(layout.chunk_rows, layout.rows - chunk * layout.chunk_rows)
                for (file, entries), data, due in zip(
                    files[shard], buffers, checksums, strict=False
                ):
                    offset, length = entries[place]
                    if os.preadv(file, [data, due], offset) != length:
                        raise ValueError(f"chunk {chunk} is cut short")
                    if crc32c(data) != int.from_bytes(bytes(due), "little"):
                        raise ValueError(f"chunk {chunk} fails its checksum")
                order = buffers[2]
                order[:] = np.arange(layout.chunk_rows)
                state = _permute(order[:rows], state)
                ready.put((rows, buffers))
        finally:
            for pair in files.values():
                for file, _ in pair:
                    os.close(file)

    def _files(self) -> Iterator[tuple[int, list[tuple[int, list[tuple[int, int]]]]]]:
        """Yield each shard with the open files of its X and y, and their indices."""
        layout = self._layout
        for shard in layout.shards:
            files = [
                os.open(f"{layout.path}/{key}", os.O_RDONLY)
                for key in (f"X/c/{shard}/0", f"y/c/{shard}")
            ]
            yield shard, [(file, _index(file, layout)) for file in files]
