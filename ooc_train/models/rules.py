"""How a gradient becomes a step: what the compiled scan and descent by all rows have in common."""

from typing import Literal

Rule = Literal["sgd", "adam"]
Schedule = Literal["constant", "linear", "inverse_sqrt"]

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's constants (Kingma and Ba 2015, section 2)."""
