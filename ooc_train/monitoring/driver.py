"""The driver's end of the Training page: what happens in a run, sent to the scheduler.

At most five messages a second and one at a time are on their way, so that a slow scheduler slows no
training; what happens meanwhile waits, thinned. Nothing that goes wrong here ends a run: it goes on
without its page, and the report says so.
"""

import asyncio
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from math import nan
from time import perf_counter
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import cloudpickle

from ooc_train.core.forks import after_fork
from ooc_train.memory.measured import MemoryReport
from ooc_train.memory.processes import ProcessMemory
from ooc_train.monitoring import dashboard
from ooc_train.monitoring.dashboard import plugin
from ooc_train.monitoring.dashboard.run_series import (
    MOST_EVENTS,
    PROFILE,
    PROGRESS,
    STEPS,
    Series,
    process_name,
)
from ooc_train.runs.events import Ended, Event, Noted, Progressed, Started, Stepped

_SEND_SECONDS = 0.2
_MEASURE_SECONDS = 1.0
"""To measure a process takes 2 ms."""

_PATIENCE_SECONDS = 5.0
"""How long a run waits for a scheduler before it goes on without its page."""

_lock = threading.Lock()
_known: "weakref.WeakSet[Any]" = weakref.WeakSet()
"""Clients whose scheduler has the page."""


@after_fork
def _unlock() -> None:
    """Have a forked process not wait for a thread that is not there."""
    global _lock
    _lock = threading.Lock()


class TrainingPage:
    """Shows a run on the Training page of its cluster's dashboard: a callback to be entered.

    Parameters
    ----------
    client : object
        The Dask client that the run is on, or None: then nothing is shown.
    link : str or None
        The dashboard's address, or None.
    memory : callable
        Returns what the calling process holds.

    Attributes
    ----------
    link : str or None
        The page's address, or None where there is none.
    notes : list of str
        What the report says of it.
    """

    def __init__(self, client: Any, link: str | None, memory: Callable[[], ProcessMemory]) -> None:
        self.link: str | None = None
        self.notes: list[str] = []
        self._client = client
        self._dashboard = link
        self._memory = memory
        self._run = secrets.token_hex(6)
        self._steps = Series()
        self._noted: deque[str] = deque(maxlen=MOST_EVENTS)
        self._progress = (0.0,) * len(PROGRESS)
        self._sent = self._measured = 0.0
        self._on_its_way: Future[Any] | None = None
        self._state: str | None = None

    def __enter__(self) -> Self:
        if self._client is None:
            return self
        try:
            answer = _ask_for_page(self._client)
        # Whatever fails on a scheduler of any version, training does not need it.
        except Exception as error:  # noqa: BLE001
            self._give_up(_in_words(error))
            return self
        if answer["page"] is None:
            self._give_up(answer["why"])
        elif self._dashboard is not None:
            self.link = page_link(self._dashboard, answer["page"])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._end(_in_words(error), None)

    def __call__(self, event: Event) -> None:
        """Take note of an event, and send what there is if it is time."""
        match event:
            case Started():
                self._state, self._sent = "running", perf_counter()
                self._send("begun", _about(event))
            case Progressed():
                self._progress = _progress(event.seconds, event.rows, event.profile)
            case Stepped():
                self._steps.append(_step(event))
                self._progress = _progress(event.seconds, self._progress[1], event.profile)
            case Noted():
                self._noted.append(event.text)
            case Ended():
                self._progress = (event.seconds, *self._progress[1:])
                self._end("converged" if event.converged else "finished", event.memory)
        now = perf_counter()
        if self._state == "running" and now - self._sent >= _SEND_SECONDS and self._is_free():
            self._sent = now
            self._send("moved", self._news())

    def _news(self) -> dict[str, Any]:
        """Return what there is to say since the last message."""
        steps, self._steps = self._steps.rows, Series()
        noted = list(self._noted)
        self._noted.clear()
        driver = None
        if perf_counter() - self._measured >= _MEASURE_SECONDS:
            self._measured = perf_counter()
            own = self._memory()
            driver = [process_name(own.pid), own.current, own.peak]
        return {
            "steps": steps,
            "progress": self._progress,
            "noted": noted,
            "driver": driver,
            "memory": None,
        }

    def _end(self, state: str, memory: MemoryReport | None) -> None:
        """Send what is left, and wait until it is there."""
        if self._state != "running":
            return
        self._state = state
        processes = () if memory is None else memory.processes
        measured = [[process.name, 0, process.peak] for process in processes]
        self._is_free(_PATIENCE_SECONDS)
        self._send("ended", self._news() | {"state": state, "memory": measured})
        self._is_free(_PATIENCE_SECONDS)

    def _send(self, kind: str, values: Mapping[str, Any]) -> None:
        if self._client is None:
            return
        call = getattr(self._client.scheduler, plugin.HANDLER)
        message = call(kind=kind, run=self._run, client=self._client.id, values=values)
        try:
            self._on_its_way = asyncio.run_coroutine_threadsafe(
                message, self._client.loop.asyncio_loop
            )
        except RuntimeError as error:  # the client was closed
            message.close()
            self._give_up(_in_words(error))

    def _is_free(self, seconds: float = 0.0) -> bool:
        """Return whether the last message has come, within so many seconds."""
        if self._on_its_way is None:
            return True
        try:
            self._on_its_way.result(seconds)
        except Exception as error:  # noqa: BLE001 # as when the page was asked for
            # Not yet there, or it failed, be it by a time-out of its own.
            if not self._on_its_way.done():
                return False
            self._give_up(_in_words(error))
        self._on_its_way = None
        return True

    def _give_up(self, why: str) -> None:
        # The next run asks anew: the scheduler may have been started again.
        _known.discard(self._client)
        self._client, self._on_its_way = None, None
        self.notes.append(f"without a Training page: {why}")


def _ask_for_page(client: Any) -> dict[str, Any]:
    """Return what the scheduler's plugin says of its page; there is one afterwards."""
    if client not in _known:
        _register(client)
    ask = getattr(client.scheduler, plugin.HANDLER)
    answer: dict[str, Any] = client.sync(ask, kind="asked", callback_timeout=_PATIENCE_SECONDS)
    _known.add(client)
    return answer


def _register(client: Any) -> None:
    """Send the plugin, by value, as the scheduler may lack the package; one that is there stays."""
    with _lock:
        known = cloudpickle.list_registry_pickle_by_value()
        # The folder, for whatever the plugin calls, and its own file, where Dask looks.
        ours = [module for module in (dashboard, plugin) if module.__name__ not in known]
        for module in ours:
            cloudpickle.register_pickle_by_value(module)
        try:
            client.register_plugin(plugin.TrainingPlugin(), plugin.NAME)
        finally:
            for module in ours:
                cloudpickle.unregister_pickle_by_value(module)


def page_link(status_link: str, path: str) -> str:
    """Return the page's address, from that of Dask's status page and the path at the scheduler.

    Examples
    --------
    >>> page_link("http://127.0.0.1:8787/status", "/training")
    'http://127.0.0.1:8787/training'

    Dask leaves the scheduler's `--dashboard-prefix` out of its address; a proxy has its own.

    >>> page_link("http://127.0.0.1:8787/status", "/dask/training")
    'http://127.0.0.1:8787/dask/training'
    >>> page_link("https://hub/user/me/proxy/8787/status", "/training")
    'https://hub/user/me/proxy/8787/training'
    """
    parts = urlsplit(status_link)
    before = parts.path.rpartition("/")[0]
    prefix, _, page = path.rpartition("/")
    if not before.endswith(prefix):
        before += prefix
    return urlunsplit((parts.scheme, parts.netloc, f"{before}/{page}", "", ""))


def _in_words(error: BaseException) -> str:
    name = type(error).__name__
    return f"{name}: {error}" if str(error) else name


def _about(event: Started) -> dict[str, Any]:
    """Return what a run is about, as plain values that any scheduler can read."""
    return {
        "model": event.model,
        "solver": event.solver,
        "batch_size": event.batch_size,
        "data": event.data,
        "n_rows": event.n_rows,
        "n_features": event.n_features,
        "validation_rows": event.validation_rows,
        "threads": event.threads,
        "row_bytes": event.row_bytes,
        "rows_per_update": event.rows_per_update,
        "most_passes": event.most_passes,
        "max_seconds": event.max_seconds,
        "ceiling": event.ceiling,
        "ceiling_source": event.ceiling_source,
        "projected": event.projected,
        "terms": [(term.name, term.bytes, term.why) for term in event.terms],
    }


def _progress(seconds: float, rows: float, profile: Mapping[str, float]) -> tuple[float, ...]:
    return (seconds, rows, *(float(profile.get(name, 0.0)) for name in PROFILE))


def _step(event: Stepped) -> tuple[float, ...]:
    known = (getattr(event, name) for name in STEPS)
    return tuple(nan if value is None else float(value) for value in known)
