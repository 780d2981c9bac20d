"""The memory ceiling of a run, and the projection of what a plan needs.

The `Ceiling` is what the user allows. A `Projection` is the sum of named terms: the peak that a
plan expects. `memory.measured` has the report that puts both beside the measured peak.
"""

from dataclasses import dataclass, field, replace

from ooc_train.core.units import approximate_bytes, parse_bytes
from ooc_train.memory.processes import measure
from ooc_train.memory.system import available_memory, in_container, machine_memory

HALF = "half of what is available"
"""Source of a ceiling that the user did not set."""

SHARE = 0.8
"""Share of the available memory that a job in a container may take where half is too little.

No other program uses that memory. The rest is for cached files and the kernel's own tables.
"""

_MOST_GIB = 16
"""Numbers without a unit up to this one probably meant GiB."""

START_BYTES = 4 * 2**20
"""Bound of the difference in baseline between two starts of a process; 2 MiB in 40 starts seen."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most bytes that a run may hold, and the source of that number.

    Parameters
    ----------
    limit : int
        Bytes, more than zero.
    source : str
        Where the figure is from, printed beside it: "given", "the cluster's", ...
    whole_process : bool
        Whether all that the calling process holds counts (the command line). Otherwise only its
        growth since the call counts (Python).
    available : int
        Available bytes, where a job that needs more than the limit may take some of them; else 0.
        See `raised_to`.

    Raises
    ------
    ValueError
        If the limit is zero or less.

    Examples
    --------
    >>> print(Ceiling.of("1 MiB"))
    1 MiB (given)
    """

    limit: int
    source: str
    whole_process: bool = field(default=False, repr=False)
    available: int = field(default=0, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.limit <= 0:
            raise ValueError(
                f"memory_ceiling={self.limit} leaves no memory at all; "
                "give bytes such as '512MiB', or leave it out for half of what is available"
            )

    @classmethod
    def of(cls, value: "str | float | Ceiling | None", *, whole_process: bool = False) -> "Ceiling":
        """Return the ceiling for a setting; a `Ceiling` is returned unchanged.

        None is half of the memory that is available now. Decide it once, before a job starts
        processes. In a container, a job that needs more may take up to 80 % of that memory.

        Raises
        ------
        ValueError
            If the text is no number of bytes, or the number is zero, or more than the memory of
            the machine or of its control group.
        """
        if isinstance(value, Ceiling):
            return value
        if value is None:
            # What this process holds is part of the ceiling, but not of the available memory.
            available = available_memory() + (measure().current if whole_process else 0)
            return cls(available // 2, HALF, whole_process, available if in_container() else 0)
        ceiling = cls.given(value, whole_process=whole_process)
        machine = machine_memory()
        if ceiling.limit > machine:
            raise ValueError(
                f"memory_ceiling={value!r} is {approximate_bytes(ceiling.limit)}, but this machine "
                f"(or its control group) has {approximate_bytes(machine)}; give at most that"
            )
        return ceiling

    @classmethod
    def given(cls, value: str | float, *, whole_process: bool) -> "Ceiling":
        """Return the ceiling of a number of bytes; few without a unit are doubted in the source.

        Raises
        ------
        ValueError
            If the text is no number of bytes, or the number is zero.

        Examples
        --------
        >>> print(Ceiling.given("100", whole_process=True))
        100 B (100 is bytes; 100MiB?)
        """
        try:
            limit = parse_bytes(value)
        except ValueError as error:
            raise ValueError(f"memory_ceiling={error}") from None
        number, source = str(value).strip(), "given"
        if 0 < limit < 2**20 and number[-1:].isdigit():
            source = f"{number} is bytes; {number}{'MiB' if limit > _MOST_GIB else 'GiB'}?"
        return cls(limit, source, whole_process)

    @property
    def most(self) -> int:
        """The largest limit that `raised_to` returns, in bytes."""
        return max(self.limit, int(SHARE * self.available))

    def raised_to(self, need: int) -> "Ceiling":
        """Return the ceiling of a job that needs `need` bytes; it may stay below the need.

        Examples
        --------
        >>> ceiling = Ceiling(400 * 2**20, HALF, available=800 * 2**20)
        >>> for need in (300 * 2**20, 500 * 2**20, 700 * 2**20):
        ...     print(ceiling.raised_to(need))
        400 MiB (half of what is available)
        500 MiB (what the job needs, 62 % of what is available)
        640 MiB (80 % of what is available)
        """
        if need <= self.limit or self.most == self.limit:
            return self
        if need <= self.most:
            share = f"what the job needs, {100 * need / self.available:.0f} % of what is available"
            return replace(self, limit=need, source=share)
        return replace(self, limit=self.most, source=f"{100 * SHARE:.0f} % of what is available")

    def with_copies(self, copies: int) -> "Ceiling":
        """Return the ceiling of a job that holds copies of its data already, in bytes.

        Half of what is available was found beside them, and they count: it grows by them.
        """
        if self.source != HALF or self.whole_process:
            return self
        available = self.available and self.available + copies
        return replace(self, limit=self.limit + copies, available=available)

    def __str__(self) -> str:
        return f"{approximate_bytes(self.limit)} ({self.source})"


@dataclass(frozen=True, slots=True)
class Term:
    """One named part of a projection, in bytes.

    Parameters
    ----------
    name : str
        What holds the memory: "baseline", "buffers", ...
    bytes : int
        Bytes of this part, zero or more.
    why : str
        The arithmetic in words: "2 workers x 4 buffers of 1 MiB".
    """

    name: str
    bytes: int
    why: str

    def __post_init__(self) -> None:
        if self.bytes < 0:
            raise ValueError(f"the term {self.name!r} has {self.bytes} bytes; give zero or more")


@dataclass(frozen=True, slots=True)
class Projection:
    """The peak that a plan expects: the sum of its terms.

    Parameters
    ----------
    terms : tuple of Term
        The parts.
    started : int
        Number of processes whose measured baseline is among the terms. The next start of the same
        command may measure up to `START_BYTES` more of each.

    Examples
    --------
    >>> projection = Projection(
    ...     (
    ...         Term("baseline", 2 * 90 * 1024**2, "2 workers of 90 MiB"),
    ...         Term("buffers", 8 * 1024**2, "2 workers x 4 chunks of 1 MiB"),
    ...     )
    ... )
    >>> for row in projection.table():
    ...     print(row)
    ('baseline', '180 MiB', '2 workers of 90 MiB')
    ('buffers', '8 MiB', '2 workers x 4 chunks of 1 MiB')
    ('projected', '188 MiB', '')
    """

    terms: tuple[Term, ...]
    started: int = 0

    @property
    def total(self) -> int:
        """The projected peak in bytes."""
        return sum(term.bytes for term in self.terms)

    @property
    def smallest_ceiling(self) -> int:
        """The smallest ceiling that the job can keep at every start: a multiple of 1 MiB."""
        return -(-(self.total + self.started * START_BYTES) // 2**20) * 2**20

    @property
    def smallest(self) -> str:
        """The smallest ceiling as text that users can paste, such as "188MiB"."""
        return f"{self.smallest_ceiling // 2**20}MiB"

    def table(self) -> list[tuple[str, str, str]]:
        """Return a row (name, size, reason) for each term, and one for the sum."""
        rows = [(term.name, approximate_bytes(term.bytes), term.why) for term in self.terms]
        return [*rows, ("projected", approximate_bytes(self.total), "")]

    def rows(self, ceiling: Ceiling, *, alone: bool = False) -> list[tuple[str, str, str]]:
        """Return the lines of the memory table: terms, ceiling, and the bytes left under it.

        Parameters
        ----------
        ceiling : Ceiling
            The ceiling of the job.
        alone : bool
            Whether the terms cover only the start of a job, so that the job may need more.
        """
        left = ceiling.limit - self.total
        rows = [*self.table(), ("ceiling", approximate_bytes(ceiling.limit), ceiling.source)]
        least = "needed at least" if alone else "enough at each start"
        rows.append(
            ("left", approximate_bytes(left), "")
            if left >= 0
            else ("missing", approximate_bytes(-left), f"{least}: {self.smallest}")
        )
        return rows

    def explain(self, ceiling: Ceiling, *, alone: bool = False) -> str:
        """Return the rows of `rows` as a table in plain text."""
        rows = self.rows(ceiling, alone=alone)
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        return "\n".join(f"{n:<{widths[0]}}  {b:>{widths[1]}}  {w}".rstrip() for n, b, w in rows)
