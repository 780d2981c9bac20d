"""A plan: how a job will run, and what it is projected to hold.

A plan reads nothing and raises nothing. `Plan.explain` is the table that users see. `Plan.validate`
refuses a plan that doesn't fit, before anything is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from ooc_train.core.text import counted, html_escaped, html_table
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import CeilingExceeded
from ooc_train.memory.ceiling import Ceiling, Projection
from ooc_train.stream.baseline import Processes
from ooc_train.stream.pass_config import PassConfig
from ooc_train.stream.plan_terms import FIXED_TERMS


@dataclass(frozen=True, slots=True)
class Plan:
    """How a job will run, and what it is projected to hold.

    Attributes
    ----------
    ceiling : Ceiling
        The most memory that the run may hold. An automatic ceiling in a container rises to what
        the plan needs, as `Ceiling.raised_to` allows.
    projection : Projection
        The terms of the memory that the run will hold.
    config : PassConfig
        How passes are cut.
    threads : int
        Tasks that run at a time.
    processes : Processes
        The processes of the run, and their memory before it.
    advice : str
        How reading could take less memory, or "".
    partition_rows, partition_bytes : int
        Size of a partition.
    overrun : tuple of (int, int, int), or None
        The worker whose own limit is too small: its number, its limit, and its need in bytes.
    smallest_ceiling : int
        Bytes that suffice for these processes, with one task at a time, as in
        `Projection.smallest_ceiling`.
    validation : PassConfig, or None
        How passes over validation rows are cut, which alternate with the others.
    way_out : str
        How sums and parameters could take less memory, or "".
    """

    ceiling: Ceiling
    projection: Projection
    config: PassConfig
    threads: int
    processes: Processes
    advice: str = ""
    partition_rows: int = 0
    partition_bytes: int = 0
    overrun: tuple[int, int, int] | None = None
    smallest_ceiling: int = 0
    validation: PassConfig | None = None
    way_out: str = ""

    @property
    def fits(self) -> bool:
        """Whether the run keeps the ceiling and the limits of all workers."""
        return self.projected <= self.ceiling.limit and self.overrun is None

    @property
    def projected(self) -> int:
        """The projected peak in bytes."""
        return self.projection.total

    @property
    def growth(self) -> int:
        """The most bytes that one process is projected to take beyond its baseline."""
        held = self.processes.baseline + self.processes.libraries
        return self.projected - held

    def explain(self) -> str:
        """Return the terms, the ceiling and what is left of it, as a table in plain text."""
        return self.projection.explain(self.ceiling)

    @property
    def reads(self) -> str:
        """How rows are read, in a sentence."""
        size = f"{counted(self.partition_rows, 'row')} ({approximate_bytes(self.partition_bytes)})"
        config = self.config
        replicas, threads = config.replicas, config.pipeline_threads
        if replicas * threads > 1:
            each = f"for each of {replicas} replicas, " if replicas > 1 else ""
            groups = config.prefetch_groups
            pieces = "a piece" if groups == 1 else f"{groups:,} pieces"
            if threads == 1:
                return f"{each}a thread reads {pieces} of {size} at a time"
            return (
                f"{each}{threads} threads of a worker read {pieces} of {size} at a time, one learns"
            )
        tasks = counted(self.threads, "task")
        return f"{tasks} at a time read pieces of {size}, {config.window} are on their way"

    @property
    def smallest(self) -> str:
        """The smallest ceiling that fits these processes, as text for `memory_ceiling`."""
        return f"{self.smallest_ceiling // 2**20}MiB"

    @property
    def verdict(self) -> str:
        """Whether the plan fits, and the smallest ceiling that would, in a sentence."""
        n = len(self.processes.workers)
        workers = f" with {counted(n, 'worker')}" if n else ""
        fewer = ", with fewer less" if n > 1 and not self.fits else ""
        return (
            f"{'it fits' if self.fits else 'it does not fit'}: the smallest ceiling that would do "
            f"at each start{workers} is {self.smallest}{fewer}"
        )

    @property
    def _sentences(self) -> list[str]:
        """The sentences below the table of terms."""
        ways = [] if self.fits else [f"or {way}" for way in self.ways_out()]
        return [self.reads, self.verdict, *ways]

    def __str__(self) -> str:
        return "\n".join([self.explain(), *self._sentences])

    def __repr__(self) -> str:
        size = approximate_bytes(self.projected)
        return f"<Plan: {size} projected, the ceiling is {self.ceiling}; {self.verdict}>"

    def _repr_html_(self) -> str:
        """Return the same as `str`, with the terms as a table, for notebooks."""
        sentences = "<br>".join(map(html_escaped, self._sentences))
        return f"{html_table(self.projection.rows(self.ceiling))}<p>{sentences}</p>"

    def to_json(self) -> Mapping[str, object]:
        """Return the plan as JSON values, with sizes in bytes."""
        return {
            "ceiling": self.ceiling.limit,
            "ceiling_source": self.ceiling.source,
            "projected": self.projected,
            "fits": self.fits,
            "threads": self.threads,
            "partition_rows": self.partition_rows,
            "partition_bytes": self.partition_bytes,
            "smallest_ceiling": self.smallest_ceiling,
            "terms": {term.name: term.bytes for term in self.projection.terms},
        }

    def joined(self, other: Self) -> Self:
        """Return the plan of a job whose passes alternate with those of another plan."""
        larger = max(self, other, key=lambda plan: plan.projected)
        terms = {term.name: term for term in self.projection.terms}
        for term in other.projection.terms:  # either plan may have terms of its own
            terms[term.name] = max(terms.get(term.name, term), term, key=lambda each: each.bytes)
        return replace(
            self,
            projection=replace(self.projection, terms=tuple(terms.values())),
            advice=larger.advice,
            overrun=self.overrun or other.overrun,
            validation=other.config,
        )

    def validate(self) -> None:
        """Raise an error if the plan does not fit the ceiling, or a worker's own limit.

        Raises
        ------
        CeilingExceeded
            With the need, the ceiling, and what could be changed.
        """
        if self.fits:
            return
        if self.overrun is not None:
            worker, limit, need = self.overrun
            raise CeilingExceeded(
                f"worker {worker} may hold {approximate_bytes(limit)} by its cluster's limit, and "
                f"would need {approximate_bytes(need)}; "
                + ", or ".join(["give it more memory or fewer threads", *self._smaller_term()])
            )
        enough = f"raise the memory ceiling to {self.smallest}, which is enough at each start"
        advice = [enough, *self.ways_out()]
        raise CeilingExceeded(
            f"the run needs {approximate_bytes(self.projected)} and its memory ceiling is "
            f"{self.ceiling}; {', or '.join(advice)}\n{self.explain()}"
        )

    def ways_out(self) -> list[str]:
        """Return changes that would make the projection smaller, as the plan knows them."""
        ways = []
        copies = self.processes.copies
        if copies and 2 * copies >= self.projected - self.ceiling.limit:
            ways.append(
                f"pass arrays that need no copies (these hold "
                f"{approximate_bytes(copies)}): float32 or float64, in C order"
            )
        if len(self.processes.workers) > 1:
            held = approximate_bytes(max(held for held, _ in self.processes.workers))
            ways.append(f"use fewer workers (each holds {held} before any data)")
        return ways + self._smaller_term()

    def _smaller_term(self) -> list[str]:
        """Return how to shrink the largest term, if that term accounts for half of the overrun."""
        largest = max(
            (term for term in self.projection.terms if term.name not in FIXED_TERMS),
            key=lambda term: term.bytes,
        )
        if self.overrun is None and 2 * largest.bytes < self.projected - self.ceiling.limit:
            return []
        if largest.name in ("buffers", "decoding"):
            return [self.advice] if self.advice else []
        if largest.name in ("parameters", "shared", "sums"):
            return [self.way_out] if self.way_out else []
        return []
