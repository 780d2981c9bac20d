"""The data of runs on the scheduler, in series of limited length."""

from collections import deque
from collections.abc import Mapping, Sequence
from socket import gethostname
from time import localtime, strftime, time
from typing import Any

import numpy as np

WORKER_METRIC = "ooc_train"
"""Metric of workers' heartbeats: process name, current bytes, peak bytes."""

STEPS = (
    "n_iter", "passes", "updates", "loss", "validation_loss", "gradient_norm", "learning_rate",
    "batch_size", "seconds",
)  # fmt: skip
METRICS = ("accuracy", "roc_auc", "r2")
POINTS = ("passes", "updates", "seconds", "loss", *METRICS)
PROFILE = ("reading", "decoding", "computing", "waiting", "dask", "evaluating", "validating")
PROGRESS = ("seconds", "rows", *PROFILE)
"""Columns of messages: of a step, of a point within a pass, and of the progress. Seconds count from
the start of the run, and a metric that is not known is NaN."""

LOST = "driver disconnected"
MOST_EVENTS = 50
_MOST_ROWS = 500
_MOST_PROCESSES = 24
_MOST_SAMPLES, _MOST_AREAS = 200, 7
_APART_SECONDS, _MOST_INTERVALS = 0.5, 200
_OUTCOMES = ("running", "converged", "finished", LOST)
"""States of a run that are no text of an error."""

_RATE_SECONDS = 5.0
"""Window of the rate of a running run."""


class Series:
    """Rows of numbers of limited length: at the limit, every other row is dropped.

    The first and the last row are always kept.

    Attributes
    ----------
    rows : list of tuple of float
        The kept rows.
    count : int
        Number of rows that were appended; it changes with new data.

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
        """Append a row; at the limit, drop every other row."""
        self._table = None
        if self.count and (self.count - 1) % self._every:
            self.rows.pop()  # kept only as the last
        self.rows.append(tuple(row))
        self.count += 1
        if len(self.rows) > self._limit:
            self._every *= 2
            last = self.rows[-1]
            self.rows = self.rows[::2]
            if self.rows[-1] is not last:
                self.rows.append(last)

    def columns(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the columns of the kept rows, each an array under one of `names`."""
        if self._table is None:  # finished runs are redrawn with running ones
            self._table = np.array(self.rows, dtype=float).reshape(len(self.rows), len(names)).T
        return dict(zip(names, self._table, strict=True))

    def broken_columns(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the columns with NaN between rows that are more than a pass apart.

        A line breaks there. Of rows that were dropped, the neighbours may be farther apart.
        """
        columns = self.columns(names)
        far = np.flatnonzero(np.diff(columns["passes"]) > self._every) + 1
        return {name: np.insert(column, far, np.nan) for name, column in columns.items()}


class Run:
    """The data of one run, as its driver sent them to the scheduler.

    Attributes
    ----------
    runs : Runs
        All runs of the scheduler, the newest last.
    about : mapping
        Settings that the driver sent at the start.
    client : str
        Name of the run's client.
    steps, within, progress : Series
        Rows of the columns `STEPS`, `POINTS` and `PROGRESS`.
    processes : dict
        By address: name of the process, current bytes, peak bytes.
    events : deque
        Time and text of each event, the newest first.
    state : str
        "running", "converged", "finished" (by a limit), or the reason of the end.
    """

    def __init__(self, runs: "Runs", identity: str, client: str, about: Mapping[str, Any]) -> None:
        self.runs = runs
        # Unique although old runs are dropped: it selects the colour.
        self.number: int = max((run.number for run in runs.values()), default=-1) + 1
        self.identity = identity
        self.client = client
        self.about = about
        self.begun = time()
        self.steps, self.within, self.progress = Series(), Series(), Series()
        self._samples: list[tuple[float, dict[str, int]]] = []
        self._sample_seconds = 0.0
        self.processes: dict[str, tuple[str, int, int]] = {}
        self.events: deque[tuple[float, str]] = deque(maxlen=MOST_EVENTS)
        self.state = "running"

    @property
    def outcome(self) -> str:
        """The state in a word or two: "failed" where it is the text of an error."""
        return self.state if self.state in _OUTCOMES else "failed"

    @property
    def seconds(self) -> float:
        """Seconds from the start of the run to its last message."""
        return self.progress.rows[-1][0] if self.progress.rows else 0.0

    @property
    def rows(self) -> float:
        """Rows read so far."""
        return self.progress.rows[-1][1] if self.progress.rows else 0.0

    @property
    def passes(self) -> float:
        """Rows read divided by rows of the data."""
        return self.rows / float(self.about["n_rows"])

    @property
    def label(self) -> str:
        """The run in a few words, for legends."""
        about = self.about
        started = strftime("%H:%M:%S", localtime(self.begun))
        return f"{about['model']} {about['solver']} {about['batch_size']}, {started}"

    @property
    def rate(self) -> float:
        """Rows per second: recent for a running run, overall for a finished one."""
        known = self.progress.rows
        before: tuple[float, ...] = (0.0, 0.0)
        if self.state == "running":
            recent = (row for row in known if row[0] >= self.seconds - _RATE_SECONDS)
            before = next(recent) if len(known) > 1 else before
        seconds = self.seconds - before[0]
        return (self.rows - before[1]) / seconds if seconds > 0 else 0.0

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of all threads by activity.

        Evaluating and validating appear only if they took time.
        """
        seconds = (self.progress.rows or [(0.0,) * len(PROGRESS)])[-1][2:]
        named = zip(PROFILE, seconds, strict=True)
        return {name: timings for name, timings in named if timings or name in PROFILE[:-2]}

    @property
    def reading_limit(self) -> float | None:
        """Bytes per second that the threads would reach by reading alone."""
        if not self.progress.rows:
            return None
        timings = dict(zip(PROGRESS, self.progress.rows[-1], strict=True))
        return reading_limit(
            self.rows * self.about["row_bytes"],
            timings["reading"] + timings["decoding"],
            self.about["threads"],
        )

    def rows_over_time(self) -> list[tuple[float, float]]:
        """Return (seconds, rows read) from the start on, at points with a minimal distance.

        Tasks finish several at a time: rates between neighbours would be meaningless.
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
        """Finished share of the run, or of the pass if the total is unknown, from 0 to 1."""
        if self.state != "running":
            return 1.0
        most = self.about["most_passes"]
        done = self.passes % 1 if most is None else self.passes / max(most, 1e-9)
        if self.about["max_seconds"]:
            done = max(done if most else 0.0, self.seconds / self.about["max_seconds"])
        return min(done, 1.0)

    @property
    def left(self) -> str:
        """Time left in the run, or in the pass if the total is unknown."""
        if self.state != "running":
            return f"took {duration(self.seconds)}"
        if not self.rows:
            return "starting"
        most, within = self.about["most_passes"], ""
        remaining = 1 - self.passes % 1 if most is None else max(most - self.passes, 0.0)
        # Since the first rows, so that neither compiling nor planning counts.
        seconds, rows = self.progress.rows[0][:2]
        steady = self.rows > rows and self.seconds > seconds
        rate = (self.rows - rows) / (self.seconds - seconds) if steady else self.rows / self.seconds
        left = remaining * float(self.about["n_rows"]) / rate
        limit = self.about["max_seconds"]
        if limit and limit - self.seconds < left:
            left = max(limit - self.seconds, 0.0)
        elif most is None:
            within = " in this pass"
        return f"{duration(left)} left{within}"

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers of steps, and of losses within passes; they change with new ones."""
        return self.steps.count, self.within.count

    @property
    def settings(self) -> dict[str, str]:
        """Settings by which runs are told apart."""
        about = self.about
        own = {name: str(about[name]) for name in ("model", "solver", "batch_size")}
        return {"data": about["data"]} | dict(about["settings"]) | own

    def compares_with(self, other: "Run") -> bool:
        """Return whether two runs are of one model and the same data, so that losses compare."""
        names = ("model", "data", "n_rows", "n_features")
        return all(self.about[name] == other.about[name] for name in names)

    def sample_memory(self) -> None:
        """Keep what the processes hold now; at the limit, drop every other sample."""
        at = self.seconds
        if self._samples and at < self._samples[-1][0] + self._sample_seconds:
            return
        self._samples.append((at, {name: now for name, now, _ in self.processes.values()}))
        if len(self._samples) > _MOST_SAMPLES:
            del self._samples[1::2]
            self._sample_seconds = 2 * self.seconds / _MOST_SAMPLES

    def memory_over_time(self) -> tuple[list[float], dict[str, list[int]]]:
        """Return the seconds of samples, and the bytes of each process then; many are one sum."""
        names = dict.fromkeys(name for _, held in self._samples for name in held)
        order = sorted(names, key=lambda name: _in_order((name, 0, 0)))
        found = {name: [held.get(name, 0) for _, held in self._samples] for name in order}
        if len(found) > _MOST_AREAS:
            rest = [found.pop(name) for name in order if name != "driver"]
            found[f"{len(rest)} workers"] = [sum(held) for held in zip(*rest, strict=True)]
        return [at for at, _ in self._samples], found

    def memory(self) -> list[tuple[str, int, int]]:
        """Return name, current and peak bytes of each process, with their sum first."""
        found = sorted(self.processes.values(), key=lambda row: (row[0] != "driver", -row[2]))
        total = ("all", sum(row[1] for row in found), sum(row[2] for row in found))
        # The largest ones, in an order that doesn't change as they grow.
        return [total, *sorted(found[:_MOST_PROCESSES], key=_in_order)]


class Runs(dict[str, Run]):
    """Runs by identity, the newest last; `version` changes with any change of the runs."""

    version = 0


def differing_settings(runs: Sequence[Run]) -> list[str]:
    """Return the names of the settings that are not the same in all runs that have them."""
    settings = [run.settings for run in runs]
    names = dict.fromkeys(name for each in settings for name in each)
    known = {name: {each[name] for each in settings if name in each} for name in names}
    return [name for name, values in known.items() if len(values) > 1]


def reading_limit(nbytes: float, seconds: float, threads: int) -> float | None:
    """Return the bytes per second that the threads of a run would reach by reading alone.

    The limit is the speed of the run while its threads read, so it needs no measurement of its own.
    It is not the speed of the disk, since reads from the page cache count.
    Threads that only read might slow each other down more.

    Parameters
    ----------
    nbytes : float
        Decoded bytes that were read.
    seconds : float
        Seconds of all threads spent on reading, checking and decoding.
    threads : int
        Number of threads.

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
    """Return a name of a process of this machine that is unique in the cluster."""
    return f"{gethostname()} {pid}"


def _in_order(row: tuple[str, int, int]) -> tuple[bool, int, str]:
    """Return a sort key: the driver first, and worker 2 before worker 10."""
    return row[0] != "driver", len(row[0]), row[0]


def duration(seconds: float) -> str:
    """Return a time in words: "2 min 5 s"."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
