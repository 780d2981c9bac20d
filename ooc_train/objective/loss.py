"""What every loss declares: the cost of a row by its linear predictor z, and its derivatives.

A loss is a frozen dataclass whose fields are its hyperparameters. The same source of `value` and
`slope` serves whole NumPy arrays and, compiled in `kernels`, one number at a time. So both are made
of NumPy ufuncs, operators and hyperparameters (``self.epsilon``) alone. Sources that use ``exp``
and ``log`` import them by name from NumPy: kernels put vectorisable ones in their place.

A loss is stable for predictors up to 1e4 in size, raises no floating-point warning, and returns NaN
for a predictor that is NaN. `tests/test_losses.py` holds every registered loss to that.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np

from ooc_train.core.sums import Array

__all__ = ["Loss", "RowwiseLoss", "Target"]

Target = Literal["real", "nonnegative", "positive", "binary", "codes"]
"""Domain of y: numbers, {0, 1}, or codes of classes (whole numbers from 0)."""


@dataclass(frozen=True)
class Loss:
    """A loss by the linear predictor z, to be added up over rows.

    Attributes
    ----------
    name : str
        The key in `LOSSES`.
    kind : {"pointwise", "rowwise"}
        Whether each output of a row has a loss of its own, or all outputs one together.
    target : str
        Domain of y, see `Target`.
    smooth : bool
        Whether the slope is continuous.
    link : str
        The link function, by the name that generalised linear models give it.
    constant_curvature : bool
        Whether the second derivative is the same everywhere.
    bounded_slope : bool
        Whether the slope is bounded, however large the predictor is. The automatic learning rate is
        smaller where it is not.
    shift_invariant : bool
        Whether adding one number to all outputs of a row leaves the loss as it is.
    """

    name: ClassVar[str]
    kind: ClassVar[Literal["pointwise", "rowwise"]] = "pointwise"
    target: ClassVar[Target] = "real"
    smooth: ClassVar[bool] = True
    link: ClassVar[str] = "identity"
    constant_curvature: ClassVar[bool] = False
    bounded_slope: ClassVar[bool] = False
    shift_invariant: ClassVar[bool] = False

    @property
    def bound(self) -> float | None:
        """Least upper bound of the second derivative (of its largest eigenvalue), or None."""
        return None

    @property
    def hyperparameters(self) -> dict[str, float]:
        """The fields and their values."""
        return {field.name: float(getattr(self, field.name)) for field in fields(self)}

    def value(self, y: Any, z: Any) -> Any:
        """Return the loss.

        Parameters
        ----------
        y, z : array
            Targets and predictors, of one shape. Of a rowwise loss (rows, 1) and (rows, outputs).

        Returns
        -------
        array
            Of the shape of `z`; of a rowwise loss (rows,).
        """
        raise NotImplementedError

    def slope(self, y: Any, z: Any) -> Any:
        """Return the first derivative by z, of the shape of `z`."""
        raise NotImplementedError

    curvature: ClassVar[Any] = None
    """The second derivative by z, a method of y and z; None where there is none, and for rowwise
    losses. Sources of one are written as those of `slope`."""

    def mean(self, z: Array) -> Array:
        """Return the expected y, the inverse of the link function, of the shape of `z`."""
        return z

    def curvatures(self, y: Array, z: Array) -> Iterator[tuple[int, int, Array]]:
        """Yield outputs a, b <= a, and the second derivative by their predictors, (rows,).

        Raises
        ------
        TypeError
            where the loss has no second derivative.
        """
        if self.curvature is None:
            raise TypeError(f"the loss {self.name} has no second derivative")
        for k, column in enumerate(self.curvature(y, z).T):
            yield k, k, column


@dataclass(frozen=True)
class RowwiseLoss(Loss):
    """A loss of all outputs of a row together, by the code of the row's class.

    A subclass defines `row`, from which `value` and `slope` follow, and `curvatures`.
    """

    kind: ClassVar[Literal["pointwise", "rowwise"]] = "rowwise"
    target: ClassVar[Target] = "codes"

    def row(self, y: Any, z: Any, out: Any) -> Any:
        """Write the slopes to `out`, and return the loss.

        The source serves arrays and, compiled, single rows: ``z[k]`` is the output k of all rows,
        or of one.

        Parameters
        ----------
        y : (...) array
            Codes of the classes.
        z, out : (outputs, ...) array
            Predictors, outputs first, and the result, which may be `z` itself.

        Returns
        -------
        (...) array
        """
        raise NotImplementedError

    def value(self, y: Any, z: Any) -> Any:
        """Return the loss, (rows,), of codes (rows, 1) and predictors (rows, outputs)."""
        return self.row(y.reshape(len(z)), z.T, np.empty_like(z).T)

    def slope(self, y: Any, z: Any) -> Any:
        """Return the slopes, (rows, outputs)."""
        out = np.empty_like(z)
        self.row(y.reshape(len(z)), z.T, out.T)
        return out
