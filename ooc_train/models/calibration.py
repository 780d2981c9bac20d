"""Calibrations: what validation rows teach of a classifier's probabilities.

A calibration makes other predictors z of those of the model, and names the loss whose link makes
probabilities of them. So whatever predicts or evaluates treats a calibrated model as any other.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.schema import Check, integer, list_of, number, numbers, one_of, record
from ooc_train.core.sums import Array
from ooc_train.core.text import counted
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.modified_huber import ModifiedHuber
from ooc_train.objective.losses.multinomial import Multinomial

Method = Literal["sigmoid", "temperature", "isotonic"]
METHODS: tuple[Method, ...] = get_args(Method)


class SquaredError(ModifiedHuber):
    """Four times the squared error of a probability p, at ``z = 2 p - 1``."""

    name: ClassVar[str] = "squared error of probabilities"
    link: ClassVar[str] = "probability"


@dataclass(frozen=True, eq=False)
class Calibration(ABC):
    """What becomes of the predictors z of a row.

    Attributes
    ----------
    method : str
        The key in `CALIBRATIONS`.
    n_rows : int
        Number of validation rows that it learned from.
    """

    n_rows: int

    method: ClassVar[Method]

    def __str__(self) -> str:
        return f"{self.method}, from {counted(self.n_rows, 'row')}"

    @property
    @abstractmethod
    def n_outputs(self) -> int | None:
        """Number of predictors of a row; None for any."""

    def loss(self, n_outputs: int) -> Loss:
        """Return the loss that evaluates calibrated predictors; its link makes probabilities."""
        del n_outputs
        return Logistic()

    @abstractmethod
    def __call__(self, z: Array) -> Array:
        """Return the calibrated predictors of rows, of the shape of z, (rows, outputs)."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the calibration as JSON values."""


@dataclass(frozen=True, eq=False)
class Sigmoid(Calibration):
    """A logistic function of each predictor: ``slope z + offset`` (Platt 1999).

    Several classes are each calibrated against the rest.

    Attributes
    ----------
    slope, offset : float64 array (outputs,)
        The line that makes log odds of each predictor.
    """

    slope: Array
    offset: Array

    method: ClassVar[Method] = "sigmoid"

    @property
    def n_outputs(self) -> int:
        """Number of predictors of a row."""
        return len(self.slope)

    def __call__(self, z: Array) -> Array:
        """Return the calibrated predictors of rows, the log odds of each class."""
        calibrated = z * self.slope
        calibrated += self.offset
        return calibrated

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as JSON values."""
        return {
            "method": self.method,
            "n_rows": self.n_rows,
            "slope": self.slope.tolist(),
            "offset": self.offset.tolist(),
        }


@dataclass(frozen=True, eq=False)
class Temperature(Calibration):
    """A division of all predictors by one temperature (Guo et al. 2017).

    Attributes
    ----------
    inverse : float
        One divided by the temperature.
    """

    inverse: float

    method: ClassVar[Method] = "temperature"
    n_outputs: ClassVar[None] = None

    def loss(self, n_outputs: int) -> Loss:
        """Return the loss that evaluates calibrated predictors."""
        return Logistic() if n_outputs == 1 else Multinomial()

    def __call__(self, z: Array) -> Array:
        """Return the calibrated predictors of rows."""
        return z * self.inverse

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as JSON values."""
        return {"method": self.method, "n_rows": self.n_rows, "inverse": self.inverse}


@dataclass(frozen=True, eq=False)
class Isotonic(Calibration):
    """A rising function of each predictor: lines between points (Zadrozny and Elkan 2002).

    Several classes are each calibrated against the rest.

    Attributes
    ----------
    points : float64 array (2, points)
        Scores and probabilities of one output after the other, both rising. Beyond the first and
        the last score of an output, the probability stays as it is there.
    starts : int64 array (outputs,)
        Where the points of each output begin.
    """

    points: Array
    starts: NDArray[np.int64]

    method: ClassVar[Method] = "isotonic"

    @property
    def n_outputs(self) -> int:
        """Number of predictors of a row."""
        return len(self.starts)

    @property
    def of_outputs(self) -> list[Array]:
        """The points of each output, (2, points)."""
        return np.split(self.points, self.starts[1:], axis=1)

    @classmethod
    def of(cls, n_rows: int, of_outputs: Sequence[Array]) -> Self:
        """Make the calibration from the points of each output, (2, points)."""
        sizes = [points.shape[1] for points in of_outputs]
        return cls(n_rows, np.hstack(of_outputs), np.cumsum([0, *sizes[:-1]]))

    def loss(self, n_outputs: int) -> Loss:
        """Return the loss that evaluates calibrated predictors."""
        del n_outputs
        return SquaredError()

    def __call__(self, z: Array) -> Array:
        """Return the calibrated predictors of rows: twice the probability, less 1."""
        calibrated = np.empty_like(z)
        for k, (scores, probabilities) in enumerate(self.of_outputs):
            calibrated[:, k] = np.interp(z[:, k], scores, probabilities)
        calibrated *= 2.0
        calibrated -= 1.0
        return calibrated

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as JSON values."""
        points = [each.tolist() for each in self.of_outputs]
        return {"method": self.method, "n_rows": self.n_rows, "points": points}


_ABOUT = {"n_rows": integer(1)}
_SCHEMAS: Mapping[str, Check] = {
    "sigmoid": record(_ABOUT | {"slope": numbers(least=1), "offset": numbers(least=1)}),
    "temperature": record(_ABOUT | {"inverse": number(0.0)}),
    "isotonic": record(
        _ABOUT | {"points": list_of(list_of(numbers(least=1), least=2, most=2), least=1)}
    ),
}
_METHOD = record({"method": one_of(*_SCHEMAS)})


def calibration_of(found: Any, n_outputs: int) -> Calibration:
    """Return the calibration of a saved run with so many predictors of a row.

    Raises
    ------
    ValueError
        If the values are none of a calibration, or it has another number of predictors.
    """
    _METHOD(found, "calibration")
    method, n_rows = found["method"], found.get("n_rows")
    _SCHEMAS[method](found, "calibration")
    calibration: Calibration
    if method == "temperature":
        calibration = Temperature(n_rows, float(found["inverse"]))
    elif method == "sigmoid":
        lines = np.array([found["slope"], found["offset"]], np.float64)
        calibration = Sigmoid(n_rows, *lines)
    else:
        calibration = Isotonic.of(n_rows, [np.array(p, np.float64) for p in found["points"]])
        for scores, probabilities in calibration.of_outputs:
            within = probabilities[0] >= 0.0 and probabilities[-1] <= 1.0
            if not within or (np.diff(scores) < 0).any() or (np.diff(probabilities) < 0).any():
                raise ValueError("the points of the isotonic calibration do not rise from 0 to 1")
    if calibration.n_outputs not in (None, n_outputs):
        raise ValueError(
            f"a calibration of {calibration.n_outputs:,} predictors, and {n_outputs:,} are there"
        )
    return calibration
