"""How a gradient becomes a step: what the compiled scan and descent by all rows have in common."""

from typing import Literal

Rule = Literal["sgd", "adam"]

OPTIMIZERS: dict[Rule, int] = {"sgd": 0, "adam": 1}
"""What compiled loops know them by."""

RATE_UPDATES = 64
"""Updates between two changes of a falling learning rate."""

AVERAGE_POWER = 3.0
"""The average weighs the parameters after t updates by about ``t ** 3``: the first half of the
updates has 6 % of the weight, so that the start is soon forgotten (polynomial decay: Shamir and
Zhang 2013, section 4)."""

AVERAGE_ROWS = 32
"""Batches of fewer rows are averaged once for about so many rows: parameters that are a few rows
apart differ too little to tell more."""


def average_every(batch_size: int) -> int:
    """Return how many updates apart the parameters are taken into their average, a power of two."""
    return 1 << (max(1, AVERAGE_ROWS // batch_size).bit_length() - 1)


BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's constants (Kingma and Ba 2015, section 2)."""
