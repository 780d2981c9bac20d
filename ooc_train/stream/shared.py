"""Large arguments of tasks, sent once to each worker and never within a pickle.

The client, the scheduler and the worker each hold several copies of a task's pickle. With 500,000
columns, that was several copies of all parameters for each task in flight. So large arrays stay out
of the pickle (protocol 5). The arrays that all calls of a pass share are scattered: each worker
holds them once until the pass ends. The arrays of a single call travel with its task, and the
scheduler does not open them.

Scattered arrays are lost with the last worker that holds them, and Dask cancels the tasks that need
them. `DaskExecutor` sends both again.
"""

import asyncio
import pickle
import secrets
from collections.abc import Callable, Sequence
from time import perf_counter, sleep
from typing import Any

import numpy as np
from distributed import Client, Future
from distributed.protocol.pickle import dumps, loads
from numpy.typing import NDArray

APART = 2**16
"""Bytes from which on an array is kept out of the pickle of its task."""

SHARED = 2**18
"""Bytes from which on shared arrays are scattered, which costs one round trip to the workers, and
another to free them."""

_ALIGNMENT = 8
"""Alignment in bytes that compiled kernels need."""

_SCATTER_SECONDS = 2.0
"""Longest wait for a worker that is being lost; a transfer of data may take longer."""

_RELEASE_SECONDS = 5.0

Raw = NDArray[np.uint8]
_Location = tuple[int, int]
"""Address and bytes of an array in this process."""


class Call:
    """A call that runs when it is unpickled.

    The scheduler opens all parts of a task but bytes. So a scheduler without this package can run
    these tasks.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def sealed(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bytes, list[Raw]]:
    """Return a call as a pickle, and the large arrays of its arguments, in order."""
    inner, buffers = _dumped(Call(function, arguments))
    apart = [raw for raw in map(_raw, buffers) if raw.nbytes >= APART]
    if not apart:
        return dumps(Call(function, arguments)), []
    # Buffers are arguments of `_open`, which aligns them before they become arrays.
    within = [b if b.raw().nbytes >= APART else bytearray(b.raw()) for b in buffers]
    return _dumped(Call(_open, (inner, within)))[0], apart


def _dumped(value: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """Return the pickle of a value, and the buffers that were left out of it."""
    buffers: list[pickle.PickleBuffer] = []
    return dumps(value, buffer_callback=buffers.append), buffers


def _raw(buffer: pickle.PickleBuffer) -> Raw:
    """Return the bytes of a buffer, without a copy."""
    raw = buffer.raw()
    return np.frombuffer(raw, np.uint8) if raw.nbytes else np.empty(0, np.uint8)


def _location(raw: Raw) -> _Location:
    return raw.ctypes.data, raw.nbytes


def _open(inner: bytes, buffers: Sequence[Any]) -> Any:
    """Unpickle and run a call whose large arrays arrived apart from its pickle."""
    return loads(inner, buffers=[_aligned(b) if isinstance(b, np.ndarray) else b for b in buffers])


def _aligned(raw: Raw) -> Raw:
    """Return aligned bytes, copied if they are misaligned.

    Bytes that arrived within a message begin wherever the previous part of the message ended.
    """
    return raw if raw.ctypes.data % _ALIGNMENT == 0 else raw.copy()


def apart(value: Any) -> list[Raw]:
    """Return the large arrays of a value, each once."""
    raws = [raw for raw in map(_raw, _dumped(value)[1]) if raw.nbytes >= APART]
    return list({_location(raw): raw for raw in raws}.values())


class Scattered:
    """Large arrays of this process that the workers hold too."""

    def __init__(self, client: Client) -> None:
        self._client = client
        # The arrays are kept, so that no other array takes their addresses.
        self._sent: dict[_Location, tuple[Raw, Future]] = {}

    def hold(self, raws: Sequence[Raw]) -> bool:
        """Return whether all these arrays were sent."""
        return all(_location(raw) in self._sent for raw in raws)

    def __bool__(self) -> bool:
        return bool(self._sent)

    def of(self, raw: Raw) -> Future | Raw:
        """Return the future of an array, or the array itself if it was not sent."""
        location = _location(raw)
        return self._sent[location][1] if location in self._sent else raw

    def send(self, raws: Sequence[Raw], direct: bool) -> None:
        """Send arrays that were not sent before to every worker, or raise `OSError`."""
        new = {_location(raw): raw for raw in raws if _location(raw) not in self._sent}
        if not new:
            return
        serial = secrets.token_hex(8)
        named = {f"ooc_train-shared-{serial}-{i}": raw for i, raw in enumerate(new.values())}
        found = self._client.sync(self._scatter, named, list(self._client.nthreads()), direct)
        for (location, raw), future in zip(new.items(), found, strict=True):
            self._sent[location] = raw, future

    async def _scatter(
        self, named: dict[str, Raw], workers: list[str], direct: bool
    ) -> list[Future]:
        """Scatter arrays to all workers at once, under the same names, and return their futures.

        ``broadcast=True`` would never end if a worker is lost meanwhile.
        """
        found = await asyncio.gather(
            *(
                self._client.scatter(
                    named,
                    workers=[worker],
                    direct=direct,
                    timeout=_SCATTER_SECONDS,
                    asynchronous=True,
                )
                for worker in workers
            ),
            return_exceptions=True,
        )
        taken = [each for each in found if not isinstance(each, BaseException)]
        if not taken:
            reason = found[0] if found else "there is none"
            raise OSError(f"no worker took what tasks share: {reason}")
        return [taken[0][name] for name in named]

    def forget(self) -> None:
        """Record that the workers have lost the arrays."""
        self._sent.clear()

    def release(self) -> None:
        """Free the arrays in the workers, and wait until they are gone."""
        if not self._sent:
            return
        keys = [future.key for _, future in self._sent.values()]
        self._sent.clear()
        until = perf_counter() + _RELEASE_SECONDS
        while self._client.status == "running" and perf_counter() < until:
            # Workers that don't answer are ignored.
            held = self._client.run(_holds, keys, on_error="ignore")
            if not any(held.values()):
                return
            sleep(0.002)


def _holds(keys: Sequence[str], dask_worker: Any) -> bool:
    """Return whether a worker holds data under one of these keys."""
    return any(key in dask_worker.data for key in keys)
