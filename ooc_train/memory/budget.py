"""A job's memory in the calling process: what counts of it, what is left, and what it came to."""

import os
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from types import TracebackType
from typing import Self

from ooc_train.core.forks import after_fork
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import CeilingExceeded
from ooc_train.memory import rlimit
from ooc_train.memory.ceiling import (
    Ceiling,
    MemoryReport,
    Projection,
    Term,
    held_by,
    measure,
    reset_peak,
)
from ooc_train.memory.timeline import Sampler

Choice = Callable[[int], Sequence[Term]]
"""Gives the terms of a job that has so many bytes: no more than that, or than it gives for 0."""

_NAME = "this process"

_lock = threading.Lock()
_running: Counter[int] = Counter()
"""How many jobs each thread is at: of a forked process, only one of them goes on."""

_ADDRESSES = 192 * 2**20
"""Bytes of addresses that threads, BLAS and Arrow take beside, and mostly leave untouched: 120 MiB
were seen, of which stacks are 8 each and BLAS's buffers 64. To be refused them ends a process."""

GROWTH_BYTES = 16 * 2**20
"""Bytes that an interpreter grows by beside what is counted: small objects, and the allocator's
own waste."""


@after_fork
def _alone() -> None:
    """Have a forked process count the jobs of its one thread."""
    global _lock
    _lock = threading.Lock()
    for thread in set(_running) - {threading.get_ident()}:
        del _running[thread]


class PeakWatch:
    """Sees to it that the peak of this process is one job's; a context manager.

    Parameters
    ----------
    whole : bool
        Whether all that the process holds counts, and not only what it grew by.

    Attributes
    ----------
    before : int
        Bytes that the process held when the job began.
    notes : list of str
        What a reader of the figures has to know.
    """

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self.before = 0
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        with _lock:
            _running[threading.get_ident()] += 1
            # The peak is the process's own: who resets it while another job runs wipes that one's.
            if _running.total() > 1:
                self.notes.append("another job ran in this process: they share one figure")
            elif not self.whole and not reset_peak():
                self.notes.append("the peak could not be reset: it may be from before this job")
        self.before = measure().current
        return self

    def __exit__(self, *_: object) -> None:
        with _lock:
            _running[threading.get_ident()] -= 1


class Budget:
    """What a job that runs in this process alone may hold; a context manager.

    Libraries that the job needs are imported before it is entered, so that they count as reserved.

    Parameters
    ----------
    memory_ceiling : str, int, Ceiling or None
        As everywhere; None is half of what is available.

    Attributes
    ----------
    ceiling : Ceiling
    reserved : int
        Bytes that count before any data: what the process holds, or 0 where only its growth does.

    Examples
    --------
    >>> with Budget("1GiB") as budget:
    ...     buffers = Term("buffers", min(2**20, budget.left([])), "a chunk")
    ...     budget.require([buffers])
    ...     report = budget.report([buffers])
    >>> report.projected <= report.ceiling
    True
    """

    def __init__(self, memory_ceiling: str | int | Ceiling | None) -> None:
        self.ceiling = Ceiling.of(memory_ceiling)
        self._watch = PeakWatch(whole=self.ceiling.whole)
        self.reserved = 0
        self._libraries = 0
        self._terms: tuple[Term, ...] = ()
        self._job = secrets.token_hex(8)

    def __enter__(self) -> Self:
        self._watch.__enter__()
        own = measure()
        self.reserved = own.peak if self.ceiling.whole else 0
        self._libraries = own.mapped - own.share if self.ceiling.whole else 0
        # What files are like is learned before there is a plan.
        left = self.ceiling.limit - self.reserved - self._libraries
        rlimit.allow(self._job, max(0, left) + _ADDRESSES)
        self._share = own.share
        self._sampler = Sampler(self._look, perf_counter())
        self._sampler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sampler.stop()
        self._watch.__exit__()
        rlimit.lift(self._job)
        if isinstance(error, MemoryError) and not isinstance(error, CeilingExceeded):
            why = str(error) or "no more is said"
            raise CeilingExceeded(
                f"this process was refused memory ({why}), beyond what the plan has room for and "
                f"{approximate_bytes(rlimit.SLACK + _ADDRESSES)} of slack; raise the memory "
                f"ceiling, or use fewer columns; otherwise this is a fault of ooc_train\n"
                f"{self.projection(self._terms).explain(self.ceiling, alone=True)}"
            ) from error

    def _accept(self, terms: Sequence[Term]) -> None:
        """Have the operating system refuse this process much more than a job of these terms."""
        self._terms = tuple(terms)
        # From Python, other threads may take what isn't ours to limit, but for the ceiling.
        if self.ceiling.whole:
            growth = self.projection(terms).total - self.reserved - self._libraries
            rlimit.allow(self._job, growth + _ADDRESSES)

    def _look(self) -> dict[str, int]:
        """Return what counts of this process now, by its name in the report."""
        try:
            held = held_by(os.getpid(), self._share)
        except OSError:  # only Linux tells
            return {}
        return {_NAME: max(0, held - (0 if self.ceiling.whole else self._watch.before))}

    def projection(self, terms: Sequence[Term]) -> Projection:
        """Give what a job of these terms is expected to hold, all told."""
        whole = self.ceiling.whole
        reserved = Term(
            "reserved",
            self.reserved,
            "this process" if whole else "only what the calling process grows by counts",
        )
        growth = Term("growth", GROWTH_BYTES, "the interpreter and its allocator")
        libraries = Term("libraries", self._libraries, "shared with processes that may end")
        return Projection((reserved, growth, libraries, *terms), started=int(whole))

    def left(self, terms: Sequence[Term]) -> int:
        """Bytes that these terms leave under the ceiling; less than 0 where they exceed it."""
        return self.ceiling.limit - self.projection(terms).total

    def settle(
        self, choose: Choice, advice: str = "", *, worst: Choice | None = None
    ) -> list[Term]:
        """Give the terms of a job that makes use of the room that there is, or refuse it.

        The same function accepts and tells: what is told is the sum of ``choose(0)``, so a job
        fits under the ceiling that is told.

        Parameters
        ----------
        choose : callable
            Takes bytes of room, and gives terms whose sum is at most that, or at most the sum of
            ``choose(0)``.
        advice : str
            As for `require`.
        worst : callable, optional
            As `choose`, for what the job may turn into while it runs: what is told has room for
            both.

        Raises
        ------
        CeilingExceeded
            With the terms, and the smallest ceiling that would do.
        """
        terms = list(choose(max(0, self.left([]))))
        if self.left(terms) >= 0:
            self._accept(terms)
            return terms
        least = [list(each(0)) for each in (choose, worst) if each is not None]
        self.require(max(least, key=lambda terms: self.projection(terms).total), advice)
        terms = list(choose(max(0, self.left([]))))
        if self.left(terms) >= 0:
            return terms
        raise AssertionError("more room than there is was taken, and less would have done")

    def require(self, terms: Sequence[Term], advice: str = "", *, alone: str = "") -> None:
        """Refuse a job of these terms where it does not fit, even where more may be taken.

        Parameters
        ----------
        terms : sequence of Term
        advice : str
            What could be done beside raising the ceiling, such as "use smaller chunks".
        alone : str
            What of a job is judged, where what the rest takes isn't known before that is done: then
            no ceiling is told as one that would do.

        Raises
        ------
        CeilingExceeded
            With the terms, and the smallest ceiling that would do.
        """
        projection = self.projection(terms)
        self.ceiling = self.ceiling.taken(projection.total)
        if projection.total > self.ceiling.limit:
            or_else = f", or {advice}" if advice else ""
            needed = approximate_bytes(projection.total)
            if alone:
                raise CeilingExceeded(
                    f"{alone} alone needs {needed} and the memory ceiling is {self.ceiling}; raise "
                    f"the memory ceiling beyond {projection.smallest}, since the rest takes "
                    f"more{or_else}\n{projection.explain(self.ceiling, alone=True)}"
                )
            raise CeilingExceeded(
                f"the job needs {needed} and its memory ceiling is {self.ceiling}; "
                f"raise the memory ceiling to at least {projection.smallest}{or_else}\n"
                f"{projection.explain(self.ceiling)}"
            )
        self._accept(terms)

    def report(self, terms: Sequence[Term]) -> MemoryReport:
        """Give ceiling, projection and measurement, side by side."""
        projection = self.projection(terms)
        # Before the measurement, as it is part of what the job took.
        timeline = self._sampler.stop()
        own = replace(measure(), name=_NAME)
        if not self.ceiling.whole:
            own = replace(own, peak=max(0, own.peak - self._watch.before))
        notes = [*self._watch.notes, *([own.note] if own.note else [])]
        return MemoryReport(
            ceiling=self.ceiling.limit,
            reserved=self.reserved,
            projected=projection.total,
            measured=own.peak,
            processes=(own,),
            terms={term.name: term.bytes for term in projection.terms},
            ceiling_source=self.ceiling.source,
            notes=tuple(notes),
            timeline=timeline,
        )
