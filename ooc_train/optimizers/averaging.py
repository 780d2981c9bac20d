"""The average of the parameters over updates: the model that a scan leads to."""

AVERAGE_POWER = 3.0
"""The average weighs the parameters after t updates by about ``t ** 3``: the first half of the
updates has 6 % of the weight, so that the average soon forgets the start (polynomial decay: Shamir
and Zhang 2013, section 4)."""

AVERAGE_ROWS = 32
"""Batches of fewer rows are averaged once for about so many rows: parameters that are a few rows
apart differ too little to tell more."""


def average_every(batch_size: int) -> int:
    """Return the number of updates between two entries of the average, a power of two."""
    return 1 << (max(1, AVERAGE_ROWS // batch_size).bit_length() - 1)
