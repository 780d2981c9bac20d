"""What every loss declares: the cost of a row by its linear predictor z, and its derivatives.

A loss is a frozen dataclass whose fields are its hyperparameters. The same source of `value` and
`slope` serves whole NumPy arrays and, compiled in `kernels`, one number at a time. So both are made
of NumPy ufuncs, operators and hyperparameters (``self.epsilon``) alone. Sources that use ``exp``
and ``log`` import them by name from NumPy: kernels put vectorisable ones in their place.

A loss is stable for predictors up to 1e4 in size, raises no floating-point warning, and returns NaN
for a predictor that is NaN. `tests/test_losses.py` holds every registered loss to that.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np

from ooc_train.core.sums import Array, Block

__all__ = [
    "LogLinkLoss",
    "Loss",
    "PiecewiseLinearLoss",
    "RowwiseLoss",
    "Target",
    "raise_if_outside",
]

Target = Literal["real", "nonnegative", "positive", "binary", "codes", "distribution"]
"""Domain of y: numbers, of at least 0 or above it, or from 0 to 1; codes of classes, whole numbers
from 0; or probabilities of the outputs, which add up to 1."""

_DOMAINS: Mapping[Target, tuple[str, str]] = MappingProxyType(
    {
        "nonnegative": ("below 0", "of at least 0"),
        "positive": ("not above 0", "above 0"),
        "binary": ("not from 0 to 1", "from 0 to 1"),
        "distribution": ("in no row of probabilities", "of probabilities that add up to 1"),
    }
)
"""What a y outside of a domain is, and the domain, in the words of messages."""

_ROUNDED = 1e-4
"""How far the probabilities of a row may add up to another number than 1."""

_LARGEST_LOG = 709.78
"""The exponential of larger numbers exceeds float64."""


@dataclass(frozen=True)
class Loss:
    """The loss of a row as a function of the linear predictor z; passes add it up over rows.

    Attributes
    ----------
    name : str
        The key in `LOSSES`.
    kind : {"pointwise", "rowwise"}
        Whether each output of a row has a loss of its own, or all outputs one together.
    target : str
        Domain of y: "real", "positive" or another name of `ooc_train.objective.loss.Target`.
    smooth : bool
        Whether the first derivative is continuous.
    link : str
        The link function, by the name that generalised linear models give it.
    constant_curvature : bool
        Whether the second derivative is the same everywhere.
    bounded_slope : bool
        Whether the first derivative is bounded for all predictors. The automatic learning rate is
        smaller where it is unbounded.
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
    def convex(self) -> bool:
        """Whether the loss is convex in the predictors."""
        return True

    @property
    def bound(self) -> float | None:
        """Least upper bound of the second derivative (or its largest eigenvalue), or None."""
        return None

    @property
    def hyperparameters(self) -> dict[str, float]:
        """The hyperparameters: the values of the fields, by name."""
        return {field.name: float(getattr(self, field.name)) for field in fields(self)}

    def value(self, y: Any, z: Any) -> Any:
        """Return the loss of each row and output; of a rowwise loss, of each row.

        Parameters
        ----------
        y, z : array
            Targets and predictors, of one shape. Of a rowwise loss (rows, 1) and (rows, outputs).
            `targets` makes these targets from class codes.

        Returns
        -------
        array
            Of the shape of `z`; of a rowwise loss (rows,).
        """
        raise NotImplementedError

    def slope(self, y: Any, z: Any) -> Any:
        """Return the derivative (subgradient at kinks) of the loss by z, of the shape of `z`."""
        raise NotImplementedError

    curvature: ClassVar[Any] = None
    """The second derivative by z, a method of y and z; None where there is none, and for rowwise
    losses. Sources of one are written as those of `slope`."""

    smoothed: ClassVar[Any] = None
    """The loss with its kinks smoothed, a method of the width, see `objective/ramps.py`; None
    where there is none."""

    gap: ClassVar[Any] = None
    drift: ClassVar[Any] = None
    """Of a smoothed loss, methods of y and z: the share of a row in the duality gap of the loss
    itself, and the derivative of `slope` by the width. None for other losses."""

    def mean(self, z: Array) -> Array:
        """Return the expected y, by the inverse of the link function, of the shape of `z`."""
        return z

    def output_pairs(self, outputs: int) -> list[tuple[int, int]]:
        """Return the pairs of outputs a, b <= a that `curvatures` yields a second derivative of."""
        return [(a, a) for a in range(outputs)]

    def targets(self, y: Array, outputs: int) -> Array:
        """Return y in the form that `value` takes, for a model with `outputs` outputs.

        Codes of classes, (rows, 1), become one column an output: 1 for the output's class, else 0.
        An unknown code becomes NaN.
        """
        return y if y.shape[1] == outputs else indicators(y, range(outputs), outputs)

    def hessian_shape(self, outputs: int, columns: int) -> tuple[int, int, int]:
        """Return (blocks, size, size), a linear model's Hessian by parameters (outputs, columns).

        Outputs of a pointwise loss do not interact: each output has a block of its own.
        """
        return outputs, columns, columns

    def curvatures(self, y: Array, z: Array) -> Iterator[Array]:
        """Yield the second derivative by the two predictors of each of the `output_pairs`, (rows,).

        `y` has a target for each output, or codes of classes, (rows, 1).

        Raises
        ------
        TypeError
            If the loss has no second derivative.
        """
        if self.curvature is None:
            raise TypeError(f"the loss {self.name} has no second derivative")
        outputs = z.shape[1]
        for k in range(outputs):
            # One output at a time: the arrays of all may be many times the rows.
            own = slice(k, k + 1)
            due = y[:, own] if y.shape[1] == outputs else indicators(y, range(k, k + 1), outputs)
            yield self.curvature(due, z[:, own])[:, 0]


def indicators(codes: Array, classes: range, n_classes: int) -> Array:
    """Return 1 for the rows of each class and 0 for the rest: the targets of one-vs-rest.

    Parameters
    ----------
    codes : float64 array (rows, 1)
        Codes of classes.
    classes : range
        The classes to tell from the rest, out of `n_classes`.

    Returns
    -------
    float64 array (rows, classes)
        NaN in rows of unknown codes.
    """
    is_known = (codes >= 0) & (codes < n_classes)
    return np.where(is_known, codes == np.asarray(classes), np.nan)


def own_class_factors(codes: Array, own: Array) -> Array:
    """Return the factor of a row's weight by output: `own` for the row's class, else 1.

    Parameters
    ----------
    codes : float64 array (rows, 1)
        Codes of classes.
    own : float64 array (outputs,)
        Weights of the classes.

    Returns
    -------
    float64 array (rows, outputs)
    """
    return np.where(codes == np.arange(len(own)), own, 1.0)


@dataclass(frozen=True)
class PiecewiseLinearLoss(Loss):
    """A piecewise linear loss of z, whose subgradients are at most 1 in size."""

    smooth: ClassVar[bool] = False
    bounded_slope: ClassVar[bool] = True
    bound: ClassVar[float] = 1.0
    """Kinks have no bound of the curvature. This number only sets step sizes."""

    def curvature(self, y: Any, z: Any) -> Any:  # noqa: ARG002 (the signature of every loss)
        """Return zeros: the second derivative by z everywhere but at the kinks."""
        return np.zeros_like(z)


@dataclass(frozen=True)
class LogLinkLoss(Loss):
    """A loss with a log link: each output predicts ``exp(z)``, above 0.

    Its value is half a deviance: the constant prediction that is best is the mean of y. Its second
    derivative has no bound. An exponential that float64 cannot hold would hide how far a step went
    too far. So each subclass continues as a straight line beyond predictors of 300 in size, where
    a line search can still compare two points. Its value is no number, or infinite, for a y outside
    of its domain.
    """

    link: ClassVar[str] = "log"

    def mean(self, z: Array) -> Array:
        """Return ``exp(z)``; beyond z = 709.78 the value there, so that no mean is infinite."""
        mean: Array = np.exp(np.minimum(z, _LARGEST_LOG))
        return mean


def raise_if_outside(loss: Loss, block: Block) -> None:
    """Raise `ValueError` with the first row whose y is outside of the loss's domain.

    Passes call this after a sum is no finite number, so that valid data needs no check of every y.
    """
    if block.y is None or loss.target not in _DOMAINS:
        return
    y = block.y
    outside = y <= 0.0 if loss.target == "positive" else y < 0.0
    if loss.target in ("binary", "distribution"):
        outside |= y > 1.0
    if not outside.any() and loss.target == "distribution":
        outside |= np.abs(y.sum(axis=1, keepdims=True) - 1.0) > _ROUNDED
    if not outside.any():
        return
    row, output = np.argwhere(outside)[0]
    place = f"{block.row_number(int(row))}" + (f", {output}" if y.shape[1] > 1 else "")
    what, domain = _DOMAINS[loss.target]
    raise ValueError(
        f"y[{place}] = {y[row, output]:g} is {what}, and the {loss.name} loss is for y {domain}; "
        "drop or correct such rows, or choose a loss of real y"
    )


@dataclass(frozen=True)
class RowwiseLoss(Loss):
    """A loss that couples all outputs of a row, such as the multinomial loss.

    A subclass defines `row`, from which `value` and `slope` follow, and `curvatures`.
    """

    kind: ClassVar[Literal["pointwise", "rowwise"]] = "rowwise"
    target: ClassVar[Target] = "codes"

    def output_pairs(self, outputs: int) -> list[tuple[int, int]]:
        """Return all pairs of outputs a, b <= a."""
        return [(a, b) for a in range(outputs) for b in range(a + 1)]

    def row(self, y: Any, z: Any, out: Any) -> Any:
        """Write the derivative by each output's predictor to `out`, and return the loss.

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
        """Return the derivatives by the predictors, (rows, outputs)."""
        out = np.empty_like(z)
        self.row(y.reshape(len(z)), z.T, out.T)
        return out

    def targets(self, y: Array, outputs: int) -> Array:
        """Return the codes of the classes as they are."""
        del outputs
        return y

    def hessian_shape(self, outputs: int, columns: int) -> tuple[int, int, int]:
        """Return (1, size, size): one block for all outputs, which interact."""
        return 1, outputs * columns, outputs * columns
