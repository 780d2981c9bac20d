"""The memory that the passes of a job need, by purpose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from ooc_train.core.requests import Scan
from ooc_train.core.sums import Reduction, array_bytes, nbytes, total_bytes
from ooc_train.kernels.api import SHUFFLE
from ooc_train.kernels.specs import KernelSpec
from ooc_train.stream.sources import Source


def _needs(*jobs: object) -> tuple[KernelSpec, ...]:
    """Return the compiled kernels that reductions and scans say they call, each once."""
    needs = (spec for job in jobs for spec in getattr(job, "needs", ()))
    return tuple(dict.fromkeys(needs))


def loads_of(*jobs: object) -> tuple[Callable[[], None], ...]:
    """Return the functions by which reductions, scans and predictors load libraries, each once."""
    return tuple(dict.fromkeys(load for job in jobs for load in getattr(job, "loads", ())))


@dataclass(frozen=True, slots=True)
class Requirements:
    """The memory that a job needs, by purpose, in bytes unless stated otherwise.

    Attributes
    ----------
    partition : int
        Buffers for one partition.
    workspace : int
        Scratch arrays of the work on a partition.
    sums : int
        Sums of one reduction.
    parameters : int
        One set of parameters.
    slots : int
        Number of sets of parameters that the driver holds.
    columns : int
        One number for each column.
    shared : int
        Arrays that all tasks of a pass share.
    opened : int
        Arrays that a task makes, apart from its buffers.
    state : int
        State of one replica of a scan.
    algebra : int
        Arrays that the driver computes from sums.
    shuffle_chunks : int
        Number of chunks whose rows a scan shuffles together; 0 for jobs without a scan.
    replicas : int
        Number of replicas of a scan.
    updates : int
        Scratch arrays of updates.
    result : int
        Result of one task of a map.
    results : int
        Results that the driver keeps for its caller.
    sample : int
        Rows for metrics within passes, and the work on them.
    needs : tuple of KernelSpec
        Compiled kernels that every process loads before it is measured.
    loads : tuple of callable
        Functions that load further libraries, which every process calls before.
    way_out : str
        How sums and parameters could take less memory, as advice; "" if they could not.
    """

    partition: int
    workspace: int
    sums: int = 0
    parameters: int = 0
    slots: int = 0
    columns: int = 0
    shared: int = 0
    opened: int = 0
    state: int = 0
    algebra: int = 0
    shuffle_chunks: int = 0
    replicas: int = 1
    updates: int = 0
    result: int = 0
    results: int = 0
    sample: int = 0
    needs: tuple[KernelSpec, ...] = ()
    loads: tuple[Callable[[], None], ...] = ()
    way_out: str = ""

    @classmethod
    def of(
        cls,
        source: Source,
        reductions: Sequence[Reduction],
        *,
        parameters: int = 0,
        sets: int = 1,
        columns: int = 0,
        algebra: int = 0,
        way_out: str = "",
    ) -> Self:
        """Return the requirements of reduce passes over a source.

        Parameters
        ----------
        reductions : sequence of Reduction
            The largest reduction of each kind.
        parameters, sets : int
            Bytes of a set of parameters, and number of sets that the driver holds.
        way_out : str
            The attribute; "" is that of the first reduction that has one.
        """
        rows = source.partition_rows
        return cls(
            partition=total_bytes(source.buffers(1)),
            workspace=max(total_bytes(each.workspace(rows)) for each in reductions),
            sums=max(nbytes(each.zeros()) for each in reductions),
            parameters=parameters,
            slots=sets,
            columns=columns,
            shared=max(array_bytes(each) for each in reductions),
            opened=max(each.made_bytes(rows) for each in reductions),
            algebra=algebra,
            needs=_needs(*reductions),
            loads=loads_of(*reductions),
            way_out=way_out or next((r.way_out for r in reductions if hasattr(r, "way_out")), ""),
        )

    def with_updates(
        self, source: Source, scan: Scan, *, carried: int, replicas: int, shuffle_chunks: int
    ) -> Self:
        """Return the requirements of these passes and of epochs of updates.

        `carried` is the number of sets of parameters in the state of a replica.
        """
        rows = source.partition_rows * shuffle_chunks
        return replace(
            self,
            needs=tuple(dict.fromkeys((*self.needs, *_needs(scan), SHUFFLE))),
            shared=max(self.shared, array_bytes(scan)),
            opened=max(self.opened, 4 * self.columns + scan.made_bytes(rows)),
            state=self.parameters * carried,
            shuffle_chunks=shuffle_chunks,
            replicas=replicas,
            updates=total_bytes(scan.workspace(rows)),
        )
