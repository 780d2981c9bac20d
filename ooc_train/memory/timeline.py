"""What the processes of a run held over time: samples that a thread takes.

A run may take a second or a day. The first interval is 0.25 s. Where there are more than 256
samples, every other one is dropped, and the interval doubles.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Self

from ooc_train.core.schema import all_of, integer, list_of, mapping, numbers, record, shown

_INTERVAL_SECONDS = 0.25
_MOST_SAMPLES = 256


def _of_one_length(values: Any, place: str) -> None:
    for name, held in values["processes"].items():
        due = len(values["seconds"])
        list_of(integer(0), least=due, most=due)(held, f"{place}.processes.{shown(name)}")


TIMELINE_SCHEMA = all_of(
    record({"seconds": numbers(), "processes": mapping}),
    _of_one_length,
)
"""The fields of a `MemoryTimeline` in JSON."""


@dataclass(frozen=True, slots=True)
class MemoryTimeline:
    """The bytes that each process of a run held over time.

    Attributes
    ----------
    seconds : tuple of float
        Times of the samples since the job began.
    processes : mapping of str to tuple of int
        Bytes that each process held at those times, by its name; 0 where it did not run.
    """

    seconds: tuple[float, ...] = ()
    processes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def total(self) -> tuple[int, ...]:
        """Bytes that all processes together held at each time."""
        return tuple(map(sum, zip(*self.processes.values(), strict=True)))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Make a timeline from its fields, as read from JSON."""
        processes = {name: tuple(held) for name, held in values["processes"].items()}
        return cls(tuple(values["seconds"]), processes)


class Sampler:
    """A thread that samples what the processes of a run hold.

    Parameters
    ----------
    look : callable
        Returns the bytes that each process holds now, by its name. Must be quick.
    begun : float
        Time of `perf_counter` at the start of the job, in seconds.
    """

    def __init__(self, look: Callable[[], Mapping[str, int]], begun: float) -> None:
        self._look = look
        self._begun = begun
        self._samples: list[tuple[float, Mapping[str, int]]] = []
        self._interval = _INTERVAL_SECONDS
        self._ended = threading.Event()
        # A daemon: a sampler that is never stopped must not block the interpreter's exit.
        self._thread = threading.Thread(target=self._run, name="ooc_train-sampler", daemon=True)

    def start(self) -> None:
        """Take the first sample, before the job holds anything, and start the thread."""
        self.take()
        self._thread.start()

    def stop(self) -> MemoryTimeline:
        """Take the last sample and return all; a second call returns the same."""
        if not self._ended.is_set():
            self._ended.set()
            self._thread.join()
            self.take()
        seconds = tuple(round(second, 3) for second, _ in self._samples)
        names = dict.fromkeys(name for _, held in self._samples for name in held)
        processes = {name: tuple(held.get(name, 0) for _, held in self._samples) for name in names}
        return MemoryTimeline(seconds, processes) if processes else MemoryTimeline()

    @property
    def most(self) -> int:
        """The largest sum over all processes so far, in bytes."""
        return max((sum(held.values()) for _, held in list(self._samples)), default=0)

    def take(self) -> None:
        """Take a sample; above 256 samples, drop every other one and double the interval."""
        self._samples.append((perf_counter() - self._begun, self._look()))
        if len(self._samples) > _MOST_SAMPLES:
            del self._samples[1::2]
            self._interval *= 2

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            self.take()
