"""The driver's side of the Training page: it sends the events of a run to the scheduler.

At most one message is in flight, and at most five are sent per second, so a slow scheduler never
slows training. Events wait in between, thinned. A failure never ends a run: the run continues
without its page, and the report notes it.
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
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import cloudpickle

from ooc_train.core.forks import after_fork
from ooc_train.memory.measured import MemoryReport
from ooc_train.memory.processes import ProcessMemory
from ooc_train.monitoring import dashboard
from ooc_train.monitoring.dashboard import plugin
from ooc_train.monitoring.dashboard.run_series import (
    METRICS,
    MOST_EVENTS,
    PROFILE,
    PROGRESS,
    STEPS,
    Series,
    process_name,
)
from ooc_train.runs.events import (
    Compiling,
    Ended,
    Event,
    Noted,
    Progressed,
    Saving,
    Started,
    Stepped,
)

_SEND_SECONDS = 0.2
_MEASURE_SECONDS = 1.0
"""Least time between measurements of this process, which take 2 ms each."""

_TIMEOUT_SECONDS = 5.0
"""How long a run waits for the scheduler before it continues without its page."""

_SETTINGS = (
    "model", "solver", "batch_size", "data", "n_rows", "n_features", "validation_rows", "threads",
    "row_bytes", "rows_per_update", "most_passes", "max_seconds", "ceiling", "ceiling_source",
    "projected",
)  # fmt: skip

_lock = threading.Lock()
_clients_with_page: "weakref.WeakSet[Any]" = weakref.WeakSet()
"""Clients whose scheduler has the page."""


@after_fork
def _unlock() -> None:
    """Replace the lock in a forked process: no thread there would release it."""
    global _lock
    _lock = threading.Lock()


class TrainingPage:
    """Shows a run on the Training page of its cluster: a callback and a context manager.

    Parameters
    ----------
    client : distributed.Client or None
        Client of the run. None shows nothing.
    memory : callable
        Returns the memory of the calling process.

    Attributes
    ----------
    link : str or None
        Address of the page, or None without one.
    """

    def __init__(self, client: Any, link: str | None, memory: Callable[[], ProcessMemory]) -> None:
        self.link: str | None = None
        self.notes: list[str] = []
        self._client = client
        self._dashboard = link
        self._memory = memory
        self._run = secrets.token_hex(6)
        self._steps, self._within = Series(), Series()
        self._spent = 0, 0.0
        self._notes_to_send: deque[str] = deque(maxlen=MOST_EVENTS)
        self._progress = (0.0,) * len(PROGRESS)
        self._sent = self._measured = 0.0
        self._in_flight: Future[Any] | None = None
        self._state: str | None = None

    def __enter__(self) -> Self:
        if self._client is None:
            return self
        try:
            answer = _request_page(self._client)
        # Schedulers of other versions may fail in any way; training does not need the page.
        except Exception as error:  # noqa: BLE001
            self._disable(_described(error))
            return self
        if answer["page"] is None:
            self._disable(answer["why"])
        elif self._dashboard is not None:
            self.link = page_link(self._dashboard, answer["page"])
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self._end(_described(error), None)

    def __call__(self, event: Event) -> None:
        """Record an event of a run, and send a message to the scheduler if one is due."""
        match event:
            case Started():
                self._state, self._sent = "running", perf_counter()
                self._n_rows = event.n_rows
                rows, seconds = self._spent = event.spent
                self._progress = _progress(seconds, rows, {})
                self._send("start", _settings(event))
            case Progressed():
                if event.rows >= self._spent[0]:  # before it asks again, a pass is taken back
                    self._progress = _progress(event.seconds, event.rows, event.profile)
                if event.loss is not None:
                    at = (event.rows / self._n_rows, event.updates, event.seconds, event.loss)
                    metrics = (event.metrics.get(name, nan) for name in METRICS)
                    self._within.append([float(value) for value in (*at, *metrics)])
            case Stepped():
                self._steps.append(_step(event))
                self._progress = _progress(event.seconds, self._progress[1], event.profile)
            case Compiling() | Saving():
                self._notes_to_send.append(str(event))  # the run appears with `Started`
            case Noted():
                self._notes_to_send.append(event.text)
            case Ended():
                self._progress = (event.seconds, *self._progress[1:])
                self._end("converged" if event.converged else "finished", event.memory)
        now = perf_counter()
        if self._state == "running" and now - self._sent >= _SEND_SECONDS and self._delivered():
            self._sent = now
            self._send("update", self._pending())

    def _pending(self) -> dict[str, Any]:
        """Return the steps, progress, notes and memory recorded since the last message."""
        steps, self._steps = self._steps.rows, Series()
        within, self._within = self._within.rows, Series()
        notes = list(self._notes_to_send)
        self._notes_to_send.clear()
        driver = None
        if perf_counter() - self._measured >= _MEASURE_SECONDS:
            self._measured = perf_counter()
            own = self._memory()
            driver = [process_name(own.pid), own.current, own.peak]
        return {
            "steps": steps,
            "within": within,
            "progress": self._progress,
            "notes": notes,
            "driver": driver,
            "memory": None,
        }

    def _end(self, state: str, memory: MemoryReport | None) -> None:
        """Send the last message of the run, with the state it ended in, and wait for delivery."""
        if self._state != "running":
            return
        self._state, self._measured = state, 0.0
        processes = () if memory is None else memory.processes
        measured = [[process.name, 0, process.peak] for process in processes]
        self._delivered(_TIMEOUT_SECONDS)
        self._send("end", self._pending() | {"state": state, "memory": measured})
        self._delivered(_TIMEOUT_SECONDS)

    def _send(self, kind: str, values: Mapping[str, Any]) -> None:
        if self._client is None:
            return
        call = getattr(self._client.scheduler, plugin.HANDLER)
        message = call(kind=kind, run=self._run, client=self._client.id, values=values)
        try:
            self._in_flight = asyncio.run_coroutine_threadsafe(
                message, self._client.loop.asyncio_loop
            )
        except RuntimeError as error:  # the client was closed
            message.close()
            self._disable(_described(error))

    def _delivered(self, seconds: float = 0.0) -> bool:
        """Wait up to `seconds`; return whether no message is in flight."""
        if self._in_flight is None:
            return True
        try:
            self._in_flight.result(seconds)
        except Exception as error:  # noqa: BLE001 # as for the request of the page
            # Not done yet, or failed: a failure may be a time-out of its own.
            if not self._in_flight.done():
                return False
            self._disable(_described(error))
        self._in_flight = None
        return True

    def _disable(self, why: str) -> None:
        # The next run asks again: the scheduler may have been restarted.
        _clients_with_page.discard(self._client)
        self._client, self._in_flight = None, None
        self.notes.append(f"no Training page: {why}")


def _request_page(client: Any) -> dict[str, Any]:
    """Register the plugin if needed; return its answer about the page."""
    if client not in _clients_with_page:
        _register(client)
    ask = getattr(client.scheduler, plugin.HANDLER)
    answer: dict[str, Any] = client.sync(ask, kind="ask", callback_timeout=_TIMEOUT_SECONDS)
    _clients_with_page.add(client)
    return answer


def _register(client: Any) -> None:
    """Send the plugin by value, since the scheduler may lack the package."""
    with _lock:
        known = cloudpickle.list_registry_pickle_by_value()
        # The folder for all that the plugin calls; its own file because Dask looks there.
        ours = [module for module in (dashboard, plugin) if module.__name__ not in known]
        for module in ours:
            cloudpickle.register_pickle_by_value(module)
        try:
            client.register_plugin(plugin.TrainingPlugin(), plugin.NAME)
        finally:
            for module in ours:
                cloudpickle.unregister_pickle_by_value(module)


def page_link(status_link: str, path: str) -> str:
    """Return the address of the Training page.

    Parameters
    ----------
    status_link : str
        Address of Dask's status page.
    path : str
        Path of the Training page at the scheduler.

    Examples
    --------
    >>> page_link("http://127.0.0.1:8787/status", "/training")
    'http://127.0.0.1:8787/training'

    Dask omits the scheduler's `--dashboard-prefix` from its address; a proxy has its own prefix.

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


def _described(error: BaseException) -> str:
    name = type(error).__name__
    return f"{name}: {error}" if str(error) else name


def _settings(event: Started) -> dict[str, Any]:
    """Return the settings of a run as plain values, for schedulers of any version."""
    terms = [(term.name, term.bytes, term.why) for term in event.terms]
    settings = dict(event.settings)
    plain = {name: getattr(event, name) for name in _SETTINGS}
    return plain | {"terms": terms, "settings": settings}


def _progress(seconds: float, rows: float, profile: Mapping[str, float]) -> tuple[float, ...]:
    return (seconds, rows, *(float(profile.get(name, 0.0)) for name in PROFILE))


def _step(event: Stepped) -> tuple[float, ...]:
    known = (getattr(event, name) for name in STEPS)
    return tuple(nan if value is None else float(value) for value in known)
