"""Averages of parameters: over updates, which is the model, and over replicas."""

from collections.abc import Sequence

import numpy as np

from ooc_train.core.sums import Array, Sums

AVERAGE_POWER = 3.0
"""The average weighs the parameters after t updates by about ``t ** 3``: the first half of the
updates has 6 % of the weight, so that the average soon forgets the start (polynomial decay: Shamir
and Zhang 2013, section 4)."""

AVERAGE_ROWS = 32
"""Batches of fewer rows are averaged once for about so many rows: parameters that are a few rows
apart differ too little to tell more."""


def average_every(batch_size: int, rows: int = AVERAGE_ROWS) -> int:
    """Return the updates between two entries of the average: a power of two, about `rows` rows."""
    return 1 << (max(1, rows // batch_size).bit_length() - 1)


def add_to_average(average: Array, params: Array, entries: float) -> None:
    """Add the newest parameters to their running average, in place.

    Parameters
    ----------
    average, params : float64 arrays of one shape
        The average so far, and the parameters after another update.
    entries : float
        Number of parameter vectors in the average, the newest included.
    """
    average += average_share(entries) * (params - average)


def average_share(entries: float) -> float:
    """Return the weight of the newest parameters in an average of `entries` parameter vectors."""
    return (AVERAGE_POWER + 1.0) / (AVERAGE_POWER + entries)


def average_replicas(
    before: Sequence[Sums],
    after: Sequence[Sums],
    names: Sequence[str] = ("theta", "average", "slots"),
) -> None:
    """Replace parameters, their average and the optimizer's slots by the mean of all replicas.

    A replica counts by the rows that it learned from in the round (parameter mixing: McDonald et
    al. 2010; Zinkevich et al. 2010). Each replica keeps its own unfinished batch.

    Parameters
    ----------
    before, after : sequences of Sums
        States of the replicas at both ends of the round; those after it are changed in place.
        ``counters[2]`` of a state counts its rows.
    names : sequence of str
        The arrays that are averaged; others stay as they are.
    """
    counted = [[state["counters"][2] for state in states] for states in (before, after)]
    rows = np.diff(counted, axis=0)[0]
    for name in names:
        mean = np.average([state[name] for state in after], axis=0, weights=rows)
        for state in after:
            state[name] = mean
