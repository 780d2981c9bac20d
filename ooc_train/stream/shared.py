"""Large arrays on their way to tasks: once to each worker, and never within a pickle.

A task is a pickle, which the client, the scheduler and the worker each hold more than once. That is
nothing for 100 columns; for 500,000 it was several copies of all parameters for each task on its
way. So large arrays stay out of the pickle (protocol 5). What all calls of a pass share is
scattered, to each worker once, and lies there until the pass is over; what a call alone needs goes
with its task as an array, which the scheduler does not open.

Scattered data are lost with the last worker that holds them, and Dask then cancels the tasks that
need them. `DaskExecutor` sends them again: the driver is the retry point.
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
"""Bytes from which on an array stays out of the pickle of its task."""

SHARED = 2**18
"""Bytes from which on what calls share is scattered, which costs a way to the workers and back, and
another to see it gone."""

_ALIGNMENT = 8
"""What the compiled kernels need of an array's address."""

_SCATTER_SECONDS = 2.0
"""A worker that is being lost is waited for so long; one that takes data may take longer."""

_RELEASE_SECONDS = 5.0

Raw = NDArray[np.uint8]
_Place = tuple[int, int]
"""Where an array of this process lies: its address and its bytes."""


class Call:
    """A call that is made where it is unpickled.

    The scheduler opens whatever a task is made of, bytes apart: so it needs none of our package.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._made = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._made


def sealed(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bytes, list[Raw]]:
    """Return a call as a pickle, and the large arrays that it refers to, in order."""
    inner, buffers = _dumped(Call(function, arguments))
    apart = [raw for raw in map(_raw, buffers) if raw.nbytes >= APART]
    if not apart:
        return dumps(Call(function, arguments)), []
    # The buffers as arguments, so that they can be looked at before arrays are made of them.
    within = [b if b.raw().nbytes >= APART else bytearray(b.raw()) for b in buffers]
    return _dumped(Call(_open, (inner, within)))[0], apart


def _dumped(value: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """Return the pickle of a value, and the buffers that were left out of it."""
    buffers: list[pickle.PickleBuffer] = []
    return dumps(value, buffer_callback=buffers.append), buffers


def _raw(buffer: pickle.PickleBuffer) -> Raw:
    """Return the bytes of a buffer, where they lie."""
    raw = buffer.raw()
    return np.frombuffer(raw, np.uint8) if raw.nbytes else np.empty(0, np.uint8)


def _place(raw: Raw) -> _Place:
    return raw.ctypes.data, raw.nbytes


def _open(inner: bytes, buffers: Sequence[Any]) -> Any:
    """Make a call whose large arrays came apart from it."""
    return loads(inner, buffers=[_aligned(b) if isinstance(b, np.ndarray) else b for b in buffers])


def _aligned(raw: Raw) -> Raw:
    """Return bytes that begin where a number may: as they came, or copied.

    They came within a message, and where in it they begin depends on what stands before them.
    """
    return raw if raw.ctypes.data % _ALIGNMENT == 0 else raw.copy()


def apart(value: Any) -> list[Raw]:
    """Return the large arrays of a value, each once."""
    raws = [raw for raw in map(_raw, _dumped(value)[1]) if raw.nbytes >= APART]
    return list({_place(raw): raw for raw in raws}.values())


class Scattered:
    """Large arrays of this process that lie in the workers too."""

    def __init__(self, client: Client) -> None:
        self._client = client
        # The arrays too: as long as they are held, nothing else lies at their addresses.
        self._sent: dict[_Place, tuple[Raw, Future]] = {}

    def hold(self, raws: Sequence[Raw]) -> bool:
        """Return whether all these arrays were sent."""
        return all(_place(raw) in self._sent for raw in raws)

    def __bool__(self) -> bool:
        return bool(self._sent)

    def of(self, raw: Raw) -> Future | Raw:
        """Return what stands for an array in a task: the array itself, where it was not sent."""
        place = _place(raw)
        return self._sent[place][1] if place in self._sent else raw

    def send(self, raws: Sequence[Raw], direct: bool) -> None:
        """Have every worker hold arrays; those that it holds already are left there.

        Raises
        ------
        OSError
            where no worker took them.
        """
        new = {_place(raw): raw for raw in raws if _place(raw) not in self._sent}
        if not new:
            return
        serial = secrets.token_hex(8)
        named = {f"ooc_train-shared-{serial}-{i}": raw for i, raw in enumerate(new.values())}
        found = self._client.sync(self._scatter, named, list(self._client.nthreads()), direct)
        for (place, raw), future in zip(new.items(), found, strict=True):
            self._sent[place] = raw, future

    async def _scatter(
        self, named: dict[str, Raw], workers: list[str], direct: bool
    ) -> list[Future]:
        """Scatter arrays to each worker at once, by one name, and return their futures.

        Not by ``broadcast=True``: it never ends where a worker is lost meanwhile.
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
        """Take note that the workers have lost them."""
        self._sent.clear()

    def release(self) -> None:
        """Have workers give up what was sent to them, and wait until they have."""
        if not self._sent:
            return
        keys = [future.key for _, future in self._sent.values()]
        self._sent.clear()
        until = perf_counter() + _RELEASE_SECONDS
        while self._client.status == "running" and perf_counter() < until:
            # A worker that has none to ask for is not waited for.
            held = self._client.run(_holds, keys, on_error="ignore")
            if not any(held.values()):
                return
            sleep(0.002)


def _holds(keys: Sequence[str], dask_worker: Any) -> bool:
    """Return whether a worker holds data by one of these names."""
    return any(key in dask_worker.data for key in keys)
