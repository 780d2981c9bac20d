"""How a gradient becomes a step: what the compiled scan and descent by all rows have in common."""

from typing import Literal

Rule = Literal["sgd", "adam"]
Schedule = Literal["constant", "linear", "inverse_sqrt"]

OPTIMIZERS: dict[Rule, int] = {"sgd": 0, "adam": 1}
SCHEDULES: dict[Schedule, int] = {"constant": 0, "linear": 1, "inverse_sqrt": 2}
"""What compiled loops know them by."""

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's constants (Kingma and Ba 2015, section 2)."""
