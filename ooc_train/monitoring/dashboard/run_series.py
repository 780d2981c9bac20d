"""What is known of runs, in series that never grow beyond a limit."""

from collections import deque
from collections.abc import Mapping, Sequence
from socket import gethostname
from time import localtime, strftime, time
from typing import Any

import numpy as np

WORKER_METRIC = "ooc_train"
"""What workers report with their heartbeats: process, bytes it holds, and the most it held."""

STEPS = (
    "n_iter", "passes", "updates", "loss", "validation_loss", "gradient_norm", "learning_rate",
    "seconds",
)  # fmt: skip
PROFILE = ("reading", "decoding", "computing", "waiting", "dask", "evaluating", "validating")
PROGRESS = ("seconds", "rows", *PROFILE)
"""The columns of what is sent: of a step, and of how far a run is (both since it began)."""

MOST_EVENTS = 50
_MOST_ROWS = 500
_MOST_PROCESSES = 24
_APART_SECONDS, _MOST_INTERVALS = 0.5, 200
_RATE_SECONDS = 5.0
"""The rate of a run that goes on is that of its last seconds."""


class Series:
    """Rows of numbers, of which never more than a limit is kept: at it, every other goes.

    The first row and the last are always there.

    Attributes
    ----------
    rows : list[tuple of float]
        What is kept.
    count : int
        Rows that were taken in, by which one knows whether there are new ones.

    Examples
    --------
    >>> series = Series(limit=4)
    >>> for i in range(10):
    ...     series.append((float(i),))
    >>> series.rows
    [(0.0,), (4.0,), (8.0,), (9.0,)]
    """

    def __init__(self, limit: int = _MOST_ROWS) -> None:
        self.rows: list[tuple[float, ...]] = []
        self._limit = limit
        self._every = 1
        self.count = 0
        self._table: Any = None

    def append(self, row: Sequence[float]) -> None:
        """Take in a row."""
        self._table = None
        if self.count and (self.count - 1) % self._every:
            self.rows.pop()  # it was there only for being the last
        self.rows.append(tuple(row))
        self.count += 1
        if len(self.rows) > self._limit:
            self._every *= 2
            last = self.rows[-1]
            self.rows = self.rows[::2]
            if self.rows[-1] is not last:
                self.rows.append(last)

    def columns(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the columns by their names, each an array."""
        if self._table is None:  # runs that are over are drawn again beside those that go on
            self._table = np.array(self.rows, dtype=float).reshape(len(self.rows), len(names)).T
        return dict(zip(names, self._table, strict=True))


class Run:
    """What is known of one run.

    Attributes
    ----------
    runs : Runs
        All that the scheduler knows of, this one among them, the newest last.
    identity, number : str
        A name and a number that no other run has.
    about : mapping
        What the driver said of it when it began.
    client : str
        The name of the client that it runs on.
    steps, progress : rows of the columns `STEPS` and `PROGRESS`
    processes : dict[str, tuple[str, int, int]]
        By address, a process's name, bytes now, and the most bytes that it held.
    events : deque[tuple[float, str]]
        Time and text of what happened meanwhile, to workers and tasks too, newest first.
    state : str
        "running", "converged", "finished" by a limit, or what ended it.
    """

    def __init__(self, runs: "Runs", identity: str, client: str, about: Mapping[str, Any]) -> None:
        self.runs = runs
        # The next colour, whichever of the runs before are still here.
        self.number: int = max((run.number for run in runs.values()), default=-1) + 1
        self.identity = identity
        self.client = client
        self.about = about
        self.begun = time()
        self.steps, self.progress = Series(), Series()
        self.processes: dict[str, tuple[str, int, int]] = {}
        self.events: deque[tuple[float, str]] = deque(maxlen=MOST_EVENTS)
        self.state = "running"

    @property
    def seconds(self) -> float:
        """Seconds from the beginning of the run to the last that was heard of it."""
        return self.progress.rows[-1][0] if self.progress.rows else 0.0

    @property
    def rows(self) -> float:
        """Rows read so far."""
        return self.progress.rows[-1][1] if self.progress.rows else 0.0

    @property
    def passes(self) -> float:
        """Rows read over rows there are."""
        return self.rows / float(self.about["n_rows"])

    @property
    def label(self) -> str:
        """The run in a few words, as in a legend."""
        about = self.about
        started = strftime("%H:%M:%S", localtime(self.begun))
        return f"{about['model']} {about['solver']} {about['batch_size']}, {started}"

    @property
    def rate(self) -> float:
        """Rows a second: of the last seconds, or of the whole run once it is over."""
        known = self.progress.rows
        before: tuple[float, ...] = (0.0, 0.0)
        if self.state == "running":
            recent = (row for row in known if row[0] >= self.seconds - _RATE_SECONDS)
            before = next(recent) if len(known) > 1 else before
        seconds = self.seconds - before[0]
        return (self.rows - before[1]) / seconds if seconds > 0 else 0.0

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of all threads so far, by what they went on.

        Not all runs evaluate and validate: of these only what took time.
        """
        seconds = (self.progress.rows or [(0.0,) * len(PROGRESS)])[-1][2:]
        named = zip(PROFILE, seconds, strict=True)
        return {name: timings for name, timings in named if timings or name in PROFILE[:-2]}

    @property
    def reading_limit(self) -> float | None:
        """Bytes a second that its threads would reach if all that they did was read."""
        if not self.progress.rows:
            return None
        timings = dict(zip(PROGRESS, self.progress.rows[-1], strict=True))
        return reading_limit(
            self.rows * self.about["row_bytes"],
            timings["reading"] + timings["decoding"],
            self.about["threads"],
        )

    def rows_over_time(self) -> list[tuple[float, float]]:
        """Return seconds and rows read by then, from the beginning on, some time apart.

        Tasks come in a few at a time, and a rate from one to the next would say nothing.
        """
        apart = max(_APART_SECONDS, self.seconds / _MOST_INTERVALS)
        kept = [(0.0, 0.0)]
        for seconds, rows, *_ in self.progress.rows:
            if rows > kept[-1][1]:
                if len(kept) > 1 and kept[-1][0] - kept[-2][0] < apart:
                    kept.pop()
                kept.append((seconds, rows))
        if len(kept) > 2 and kept[-1][0] - kept[-2][0] < apart:
            del kept[-2]
        return kept

    @property
    def share(self) -> float:
        """How far the run is, or where its length is not known the pass, from 0 to 1."""
        if self.state != "running":
            return 1.0
        most = self.about["most_passes"]
        done = self.passes % 1 if most is None else self.passes / max(most, 1e-9)
        if self.about["max_seconds"]:
            done = max(done if most else 0.0, self.seconds / self.about["max_seconds"])
        return min(done, 1.0)

    @property
    def left(self) -> str:
        """How long the run, or where its length is not known the pass, will go on for."""
        if self.state != "running":
            return f"took {duration(self.seconds)}"
        if not self.rows:
            return "starting"
        most, within = self.about["most_passes"], ""
        remaining = 1 - self.passes % 1 if most is None else max(most - self.passes, 0.0)
        left = self.seconds / self.passes * remaining
        limit = self.about["max_seconds"]
        if limit and limit - self.seconds < left:
            left = max(limit - self.seconds, 0.0)
        elif most is None:
            within = " in this pass"
        return f"{duration(left)} left{within}"

    def memory(self) -> list[tuple[str, int, int]]:
        """Return name, bytes now and peak of each process, the sum of them first."""
        found = sorted(self.processes.values(), key=lambda row: (row[0] != "driver", -row[2]))
        total = ("all", sum(row[1] for row in found), sum(row[2] for row in found))
        # The largest, in an order that does not change while they grow.
        return [total, *sorted(found[:_MOST_PROCESSES], key=_in_order)]


class Runs(dict[str, Run]):
    """Runs by their identities, the newest last.

    Attributes
    ----------
    version : a number that changes with whatever there is to see
    """

    version = 0


def reading_limit(nbytes: float, seconds: float, threads: int) -> float | None:
    """Return the bytes a second that threads would reach if all that they did was read.

    That is the run's own measure, and costs none: how fast it read while it read, by as many
    threads, with nothing else to do and nothing to wait for. It is no measure of the disk: what
    comes from memory that the system keeps files in counts as read, and threads that only read
    might get in each other's way more than these did.

    Parameters
    ----------
    nbytes : float
        Decoded bytes that were read.
    seconds : float
        That all threads together spent on reading, checking and decoding them.
    threads : int
        Threads that read at a time.

    Returns
    -------
    float or None
        None before anything was read.

    Examples
    --------
    >>> reading_limit(6e9, 3.0, 2)
    4000000000.0
    """
    return nbytes * threads / seconds if seconds > 0 and nbytes else None


def process_name(pid: int) -> str:
    """Return a name for a process of this machine that no other of the cluster has."""
    return f"{gethostname()} {pid}"


def _in_order(row: tuple[str, int, int]) -> tuple[bool, int, str]:
    """Return what sorts the driver first, and worker 2 before worker 10."""
    return row[0] != "driver", len(row[0]), row[0]


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
