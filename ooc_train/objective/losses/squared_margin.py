"""Least squares of classes: half the squared distance of the margin from 1."""

from dataclasses import dataclass
from typing import Any, ClassVar

from ooc_train.core.sums import Array
from ooc_train.objective.loss import Target
from ooc_train.objective.losses.squared import Squared


@dataclass(frozen=True)
class SquaredMargin(Squared):
    """Half the squared residual of targets of -1 or 1, for y of 0 or 1."""

    name: ClassVar[str] = "squared_margin"
    target: ClassVar[Target] = "binary"

    def value(self, y: Any, z: Any) -> Any:
        """Return half the squared distance of the margin from 1."""
        missing = 1.0 - (2.0 * y - 1.0) * z
        return 0.5 * missing * missing

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative by z: z less the target, which is -1 or 1."""
        return z - (2.0 * y - 1.0)

    def outputs(self, y: Array, n_outputs: int) -> Array:
        """Return the targets -1 or 1 of the predictors, (rows, outputs), by y or by class codes."""
        return 2.0 * self.targets(y, n_outputs) - 1.0
