"""The memory budget of a job in the calling process: what is left of it, and the report."""

import os
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Self

from ooc_train.core.forks import after_fork
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import CeilingExceeded
from ooc_train.memory import rlimit
from ooc_train.memory.ceiling import Ceiling, Projection, Term
from ooc_train.memory.measured import MemoryReport
from ooc_train.memory.processes import held_by, measure, reset_peak
from ooc_train.memory.timeline import Sampler

Choice = Callable[[int], Sequence[Term]]
"""Takes available bytes; returns terms whose sum is at most that, or at most the sum for 0."""

_NAME = "this process"

_lock = threading.Lock()
_running: Counter[int] = Counter()
"""Number of jobs by thread. A forked process keeps only one of the threads."""

_ADDRESSES = 192 * 2**20
"""Bytes of addresses that threads, BLAS and Arrow reserve and mostly never touch.

120 MiB were seen: 8 for each stack, 64 for BLAS's buffers. A refusal of these ends the process.
"""

HEADROOM_BYTES = 16 * 2**20
"""Bytes for small objects of the interpreter and for unused parts of the allocator's blocks."""


@after_fork
def _keep_own_jobs() -> None:
    """In a forked process, count only the jobs of the thread that was kept."""
    global _lock
    _lock = threading.Lock()
    for thread in set(_running) - {threading.get_ident()}:
        del _running[thread]


class PeakWatch:
    """A context manager that makes the peak memory of this process that of one job.

    Parameters
    ----------
    whole_process : bool
        Whether all that the process holds counts, and not only its growth.

    Attributes
    ----------
    before : int
        Bytes that the process held when the job began.
    notes : list of str
        Limits of the figures that the reader has to know.
    """

    def __init__(self, *, whole_process: bool) -> None:
        self.whole_process = whole_process
        self.before = 0
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        with _lock:
            _running[threading.get_ident()] += 1
            # The process has one peak: to reset it would erase the peak of another job.
            if _running.total() > 1:
                self.notes.append("another job ran in this process: they share one figure")
            elif not self.whole_process and not reset_peak():
                self.notes.append("the peak could not be reset: it may be from before this job")
        self.before = measure().current
        return self

    def __exit__(self, *_: object) -> None:
        with _lock:
            _running[threading.get_ident()] -= 1


class Budget:
    """A context manager for a job in this process: plans and measures the memory it may hold.

    Import the libraries of the job before entering, so that they count as baseline.

    Parameters
    ----------
    memory_ceiling : str, int, Ceiling or None
        Bytes, or text such as "1GiB"; None is half of the available memory.

    Attributes
    ----------
    ceiling : Ceiling
        The ceiling of the job.
    baseline : int
        Bytes before any data: what the process holds, or 0 where only its growth counts.

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
        self._watch = PeakWatch(whole_process=self.ceiling.whole_process)
        self.baseline = 0
        self._shared_libraries = 0
        self._terms: tuple[Term, ...] = ()
        self._job = secrets.token_hex(8)

    def __enter__(self) -> Self:
        self._watch.__enter__()
        own = measure()
        if self.ceiling.whole_process:
            self.baseline, self._shared_libraries = own.peak, own.mapped - own.share
        # Jobs look at their files before there is a plan.
        left = self.ceiling.limit - self.baseline - self._shared_libraries
        rlimit.allow(self._job, max(0, left) + _ADDRESSES)
        self._share = own.share
        self._sampler = Sampler(self._look, perf_counter())
        self._sampler.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._sampler.stop()
        self._watch.__exit__()
        rlimit.lift(self._job)
        if isinstance(error, MemoryError) and not isinstance(error, CeilingExceeded):
            why = str(error) or "no reason given"
            raise CeilingExceeded(
                f"this process was refused memory ({why}), beyond its plan and "
                f"{approximate_bytes(rlimit.SLACK + _ADDRESSES)} of slack; raise the memory "
                f"ceiling, or use fewer columns; otherwise this is a fault of ooc_train\n"
                f"{self.projection(self._terms).explain(self.ceiling, alone=True)}"
            ) from error

    def _accept(self, terms: Sequence[Term]) -> None:
        """Record the terms, and let the operating system refuse much more than their sum."""
        self._terms = tuple(terms)
        # In a caller's own process, other threads may allocate: only the ceiling limits those.
        if self.ceiling.whole_process:
            more = self.projection(terms).total - self.baseline - self._shared_libraries
            rlimit.allow(self._job, more + _ADDRESSES)

    def _look(self) -> dict[str, int]:
        """Return the bytes of this process that count now, in a dict by the process's name."""
        try:
            held = held_by(os.getpid(), self._share)
        except OSError:  # systems other than Linux have no /proc
            return {}
        return {_NAME: max(0, held - (0 if self.ceiling.whole_process else self._watch.before))}

    def projection(self, terms: Sequence[Term]) -> Projection:
        """Return the projection of a job with these terms, and of what the process needs itself."""
        whole = self.ceiling.whole_process
        baseline = Term(
            "baseline",
            self.baseline,
            "this process" if whole else "only growth of the calling process counts",
        )
        headroom = Term("headroom", HEADROOM_BYTES, "the interpreter and its allocator")
        libraries = Term(
            "shared libraries", self._shared_libraries, "shared with processes that may end"
        )
        return Projection((baseline, headroom, libraries, *terms), started=int(whole))

    def left(self, terms: Sequence[Term]) -> int:
        """Return the bytes that these terms leave under the ceiling; negative if they exceed it."""
        return self.ceiling.limit - self.projection(terms).total

    def settle(
        self, choose: Choice, advice: str = "", *, worst: Choice | None = None
    ) -> list[Term]:
        """Return terms that use the available bytes, or refuse the job.

        The smallest ceiling in the error is the sum of ``choose(0)``. So a job fits under the
        ceiling that its error names.

        Parameters
        ----------
        choose : callable
            Takes available bytes; returns terms whose sum is at most that, or at most the sum of
            ``choose(0)``.
        advice : str
            As for `require`.
        worst : callable, optional
            As `choose`, for the largest job that this one may become while it runs. The smallest
            ceiling in the error is enough for both.

        Raises
        ------
        CeilingExceeded
            With the terms, and the smallest ceiling that is enough.
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
        raise AssertionError("`choose` took more than the available bytes, and less would do")

    def require(self, terms: Sequence[Term], advice: str = "", *, alone: str = "") -> None:
        """Raise if the terms exceed the ceiling, even when raised as far as it may be.

        Parameters
        ----------
        terms : sequence of Term
            The terms of the job.
        advice : str
            Another way out than a higher ceiling, such as "use smaller chunks".
        alone : str
            Name of the first step, where the terms cover only that and the rest is unknown. The
            error then names no ceiling that is enough for the job.

        Raises
        ------
        CeilingExceeded
            With the terms, and the smallest ceiling that is enough.
        """
        projection = self.projection(terms)
        self.ceiling = self.ceiling.raised_to(projection.total)
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
                f"raise the memory ceiling to {projection.smallest}, which is enough at each start"
                f"{or_else}\n"
                f"{projection.explain(self.ceiling)}"
            )
        self._accept(terms)

    def report(self, terms: Sequence[Term]) -> MemoryReport:
        """Return the memory report of the job: ceiling, projected bytes and measured peak."""
        projection = self.projection(terms)
        # The sampler stops before the measurement, since its memory is part of the job's.
        timeline = self._sampler.stop()
        own = replace(measure(), name=_NAME)
        if not self.ceiling.whole_process:
            own = replace(own, peak=max(0, own.peak - self._watch.before))
        notes = [*self._watch.notes, *([own.note] if own.note else [])]
        return MemoryReport(
            ceiling=self.ceiling.limit,
            baseline=self.baseline,
            projected=projection.total,
            measured=own.peak,
            processes=(own,),
            terms={term.name: term.bytes for term in projection.terms},
            ceiling_source=self.ceiling.source,
            notes=tuple(notes),
            timeline=timeline,
        )
