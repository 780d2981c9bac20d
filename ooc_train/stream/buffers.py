"""The buffers for rows in a process: a pool, sized by the plan, that lends them.

Nothing else allocates memory for rows. A fresh page of memory costs as much as its read, so the
pool lends returned buffers again. The pool enforces the ceiling: a request beyond its limit waits
until other buffers are returned.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.forks import after_fork
from ooc_train.core.sums import Arrays, Workspace, total_bytes
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import CeilingExceeded

_WAIT_SECONDS = 60.0

_CACHE_LINE = 64


class Pool:
    """Buffers of one process, never more than `limit` bytes of them at a time."""

    def __init__(self) -> None:
        self._limit = 0
        self._held = 0
        self._free: list[NDArray[np.uint8]] = []
        self._changed = threading.Condition()

    def allow(self, limit: int) -> None:
        """Set the limit in bytes, and free idle buffers above it."""
        with self._changed:
            self._limit = limit
            self._drop_idle(0)
            self._changed.notify_all()

    @property
    def held(self) -> int:
        """Bytes held now, including idle buffers."""
        return self._held

    @contextmanager
    def take(self, *sets: Workspace, most_kept: int | None = None) -> Iterator[list[Arrays]]:
        """Lend sets of buffers, contents undefined, until the block is left.

        All sets are taken at once, so that two tasks never wait for each other's buffers. At the
        end, idle buffers are freed until `most_kept` bytes are left; None keeps all.
        `CeilingExceeded` is raised if the sets exceed the pool, or if no memory was returned within
        a minute.
        """
        size = sum(total_bytes(specs) for specs in sets)
        memory = self._acquire(size)
        try:
            lent, offset = [], 0
            for specs in sets:
                arrays: Arrays = {}
                for name, spec in specs.items():
                    raw = memory[offset : offset + spec.nbytes]
                    dtype = np.dtype(spec.dtype)
                    count = int(np.prod(spec.shape, dtype=np.int64))
                    arrays[name] = raw[: count * dtype.itemsize].view(dtype).reshape(spec.shape)
                    offset += spec.nbytes
                lent.append(arrays)
            yield lent
        finally:
            with self._changed:
                self._free.append(memory)
                if most_kept is not None:
                    self._keep(most_kept)
                self._changed.notify_all()
            del memory

    def _acquire(self, size: int) -> NDArray[np.uint8]:
        with self._changed:
            if size > self._limit:
                raise CeilingExceeded(
                    f"buffers of {approximate_bytes(size)} were asked for where the plan allows "
                    f"{approximate_bytes(self._limit)}; raise the memory ceiling"
                )
            for i, memory in enumerate(self._free):
                if memory.nbytes == size:
                    return self._free.pop(i)
            self._drop_idle(size)
            if not self._changed.wait_for(lambda: self._drop_idle(size), timeout=_WAIT_SECONDS):
                raise CeilingExceeded(
                    f"no memory for {approximate_bytes(size)} came free in {_WAIT_SECONDS:.0f} s: "
                    f"{approximate_bytes(self._held)} of {approximate_bytes(self._limit)} are held"
                )
            self._held += size
        # Kernels took a fifth longer on vectors that lie across two cache lines.
        memory = np.empty(size + _CACHE_LINE, np.uint8)
        first = -memory.ctypes.data % _CACHE_LINE
        return memory[first : first + size]

    def _keep(self, most: int) -> None:
        """Free idle buffers, the oldest first, until `most` bytes are left."""
        while sum(memory.nbytes for memory in self._free) > most:
            self._held -= self._free.pop(0).nbytes

    def _drop_idle(self, wanted: int) -> bool:
        """Free idle buffers until `wanted` bytes fit, and return whether they do."""
        while self._free and self._held + wanted > self._limit:
            self._held -= self._free.pop().nbytes
        return self._held + wanted <= self._limit


_lock = threading.Lock()
_pools: dict[int, Pool] = {}
_users: Counter[int] = Counter()


@after_fork
def _reset_pools() -> None:
    """Start a forked process without pools, whose buffers belong to threads of its parent."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()
    _users.clear()


@contextmanager
def pool_of(limit: int) -> Iterator[Pool]:
    """Lend the pool of all jobs in this process with the same limit in bytes.

    Jobs with other limits have pools of their own, so that no job starves another. Idle pools of
    other limits are freed.
    """
    with _lock:
        for other in [other for other in _pools if other != limit and not _users[other]]:
            del _pools[other], _users[other]
        if limit not in _pools:
            _pools[limit] = Pool()
            _pools[limit].allow(limit)
        pool = _pools[limit]
        _users[limit] += 1
    try:
        yield pool
    finally:
        with _lock:
            _users[limit] -= 1
