"""The report of a job's memory: ceiling, projection and measurement, side by side."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from ooc_train.core.schema import integer, list_of, mapping_of, or_none, record, text, texts
from ooc_train.core.text import html_table
from ooc_train.core.units import approximate_bytes
from ooc_train.memory.processes import PROCESS_SCHEMA, ProcessMemory
from ooc_train.memory.timeline import TIMELINE_SCHEMA, MemoryTimeline
from ooc_train.plotting import plots

MEMORY_SCHEMA = record(
    {
        "ceiling": integer(0),
        "baseline": integer(0),
        "projected": integer(0),
        "measured": integer(0),
    },
    optional={
        "processes": list_of(PROCESS_SCHEMA),
        "terms": mapping_of(integer(0)),
        "ceiling_source": text,
        "notes": texts(),
        "timeline": or_none(TIMELINE_SCHEMA),
    },
)
"""The fields of a `MemoryReport` in JSON."""


@dataclass(frozen=True, slots=True, repr=False)
class MemoryReport:
    """The memory report of a job: ceiling, projected and measured peak, in bytes.

    Attributes
    ----------
    ceiling : int
        The most that the run was allowed to hold.
    baseline : int
        What the processes held before any data.
    projected : int
        The peak that the plan expected.
    measured : int
        The sum of the peaks that the operating system reported.
    processes : tuple of ProcessMemory
        The peak of each process.
    terms : mapping of str to int
        The terms whose sum is the projection.
    ceiling_source : str
        Where the ceiling is from.
    notes : tuple of str
        Limits of the figures that the reader has to know.
    timeline : MemoryTimeline
        Samples of what each process held during the job; empty where none were taken.
    """

    ceiling: int
    baseline: int
    projected: int
    measured: int
    processes: tuple[ProcessMemory, ...] = ()
    terms: Mapping[str, int] = field(default_factory=dict)
    ceiling_source: str = "given"
    notes: tuple[str, ...] = ()
    timeline: MemoryTimeline = field(default_factory=MemoryTimeline, repr=False)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Make a report from its fields, as read from JSON; earlier releases wrote fewer."""
        names = {each.name for each in fields(cls)}
        kept = {name: value for name, value in values.items() if name in names}
        processes = kept.get("processes", ())
        kept["processes"] = tuple(ProcessMemory(**process) for process in processes)
        kept["notes"] = tuple(kept.get("notes", ()))
        kept["timeline"] = MemoryTimeline.from_json(
            kept.get("timeline") or {"seconds": (), "processes": {}}
        )
        return cls(**kept)

    def plot(self, ax: Any = None) -> Any:
        """Draw what each process held over time, with projection and ceiling.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes new axes.

        Returns
        -------
        matplotlib.axes.Axes
        """
        return plots.memory(self, ax)

    def __repr__(self) -> str:
        return f"<MemoryReport: {self}>"

    def _repr_html_(self) -> str:
        """Return ceiling, projection and measurement as an HTML table, for notebooks."""
        size = approximate_bytes
        parts = {process.name: process.peak for process in self.processes}
        by = [
            ", ".join(f"{name} {size(held)}" for name, held in each.items() if held)
            for each in (self.terms, parts)
        ]
        rows = [
            ("ceiling", size(self.ceiling), self.ceiling_source),
            ("projected", size(self.projected), by[0]),
            ("measured", size(self.measured), by[1]),
        ]
        return html_table([*rows, *(("note", "", note) for note in self.notes)])

    def __str__(self) -> str:
        return (
            f"ceiling {approximate_bytes(self.ceiling)}, projected "
            f"{approximate_bytes(self.projected)}, measured {approximate_bytes(self.measured)}"
        )
