"""What the processes of a run held while it ran: samples by the clock, taken by a thread.

A run may take a second or a day. So the clock begins at a quarter of a second, and each time that
there are too many samples every other one is dropped and the clock goes half as fast.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Self

from ooc_train.core.schema import all_of, list_of, mapping, numbers, record, shown, whole

_INTERVAL_SECONDS = 0.25
_MOST_SAMPLES = 256


def _of_one_length(values: Any, place: str) -> None:
    for name, held in values["processes"].items():
        due = len(values["seconds"])
        list_of(whole(0), least=due, most=due)(held, f"{place}.processes.{shown(name)}")


TIMELINE_SCHEMA = all_of(
    record({"seconds": numbers(), "processes": mapping}),
    _of_one_length,
)
"""What `MemoryTimeline.from_json` takes."""


@dataclass(frozen=True, slots=True)
class MemoryTimeline:
    """Bytes that each process of a run held, by time.

    Attributes
    ----------
    seconds : times of the samples, since the job began
    processes : bytes of each process at those times, by its name; 0 where it was not there
    """

    seconds: tuple[float, ...] = ()
    processes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def total(self) -> tuple[int, ...]:
        """Bytes of all processes together at each time."""
        return tuple(map(sum, zip(*self.processes.values(), strict=True)))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the timeline whose fields these are."""
        processes = {name: tuple(held) for name, held in values["processes"].items()}
        return cls(tuple(values["seconds"]), processes)


class Sampler:
    """Looks at the processes of a run from time to time, in a thread of its own.

    Parameters
    ----------
    look : returns the bytes that each process holds now, by its name; must be quick
    begun : when the job began, by `perf_counter`
    """

    def __init__(self, look: Callable[[], Mapping[str, int]], begun: float) -> None:
        self._look = look
        self._begun = begun
        self._samples: list[tuple[float, Mapping[str, int]]] = []
        self._interval = _INTERVAL_SECONDS
        self._ended = threading.Event()
        # A thread that is left behind must not keep the interpreter from ending.
        self._thread = threading.Thread(target=self._run, name="ooc_train-sampler", daemon=True)

    def start(self) -> None:
        """Take samples, the first at once, until `stop`."""
        self._thread.start()

    def stop(self) -> MemoryTimeline:
        """Take the last sample, and return all of them; what has stopped stays so."""
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
        """The most bytes that all processes were seen to hold together so far."""
        return max((sum(held.values()) for _, held in list(self._samples)), default=0)

    def take(self) -> None:
        """Take a sample; where there are too many, drop every other one and go half as fast."""
        self._samples.append((perf_counter() - self._begun, self._look()))
        if len(self._samples) > _MOST_SAMPLES:
            del self._samples[1::2]
            self._interval *= 2

    def _run(self) -> None:
        self.take()
        while not self._ended.wait(self._interval):
            self.take()
