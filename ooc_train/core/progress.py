"""Progress of a job: one protocol for all code that reads or writes rows."""

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """A function that receives the progress of a job, stage by stage."""

    def __call__(self, stage: str, rows: int, share: float) -> None:
        """Receive the progress of a stage.

        Parameters
        ----------
        stage : str
            Name of the stage: "reading", "writing", ...
        rows : int
            Rows that the stage has processed so far.
        share : float
            Processed share of the stage, from 0 to 1. The total number of rows may be unknown.
        """


def no_progress(stage: str, rows: int, share: float) -> None:
    """Ignore the progress of a job."""


def row_counter(progress: Progress, stage: str, n_rows: int) -> Callable[[int], None]:
    """Report the start of a stage of `n_rows` rows; return a function that reports further rows."""
    total = 0

    def add(rows: int) -> None:
        nonlocal total
        total += rows
        progress(stage, total, total / max(n_rows, 1))

    add(0)
    return add
