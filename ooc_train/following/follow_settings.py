"""How a stream of rows is followed, as one plain value that holds valid settings only."""

from dataclasses import dataclass
from typing import Annotated

from ooc_train.core.settings import CheckedSettings, Number, Rows

BATCH_ROWS = 32
"""Rows of a batch, where none are given."""

OF_RUNS = ("max_iter", "max_passes", "max_seconds", "target_loss", "replicas", "shuffle_chunks")
"""Settings of `Training` for runs over data that are there as a whole."""

_GROUP_ROWS, _SHORT_BATCH = 12, 4
"""Batches of up to 4 rows are learned 12 rows at a time: kernels take such batches in groups."""


@dataclass(frozen=True, kw_only=True)
class Following(CheckedSettings):
    """How a stream of rows is followed."""

    window: Annotated[
        int,
        Rows(),
        "Rows of a window, whose mean progressive loss is an entry of the history and of the test "
        "for drift. It is rounded up to whole batches.",
    ] = 1_000
    first_rows: Annotated[
        int,
        Rows(),
        "Rows that the store has before learning begins. Their moments scale the columns and give "
        'the learning rate "auto"; they are learned from as all others.',
    ] = 1_000
    replay: Annotated[
        float,
        Number(least=0.0, most=1.0),
        "Fraction of windows after which an old window, drawn at random, is learned from again: "
        "0.1 is one after every ten. Replayed rows are not scored.",
    ] = 0.0
    rate_after_drift: Annotated[
        float | None,
        Number((None,), above=0.0),
        "Factor of the first learning rate at which its schedule, and the average of the "
        "parameters, begin anew when the loss drifts. None notes the drift alone.",
    ] = None

    def window_rows(self, step: int) -> int:
        """Return the rows of a window, a multiple of `step`."""
        return -(-self.window // step) * step

    @property
    def replay_every(self) -> int:
        """Windows from one replay to the next; 0 for none."""
        return round(1.0 / self.replay) if self.replay else 0


def rows_at_a_time(batch_size: int) -> int:
    """Return the rows of which a multiple is learned at a time; fewer rows wait for more."""
    return batch_size if batch_size > _SHORT_BATCH else _GROUP_ROWS
