"""Predictors: named arrays that are saved, and that give the predictors z of rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array, Block, raise_if_not_finite
from ooc_train.errors import NonFiniteData


class Predictor(Protocol):
    """The learned parameters of a model, in units of the data: a value that travels to workers.

    Attributes
    ----------
    kind : str
        The key in `PREDICTORS`.
    names : tuple of str
        Names of the arrays that are saved.
    """

    kind: ClassVar[str]
    names: ClassVar[tuple[str, ...]]

    @property
    def n_features(self) -> int:
        """Number of columns of X."""

    @property
    def n_outputs(self) -> int:
        """Number of predictors z of each row."""

    @property
    def made_bytes(self) -> int:
        """Bytes that `decision` allocates beside the predictors."""

    @property
    def arrays(self) -> Mapping[str, Array]:
        """The arrays that are saved, in the order of `names`."""

    @classmethod
    def of(cls, *arrays: Array) -> Self:
        """Make a predictor from its saved arrays, in the order of `names`.

        Raises
        ------
        ValueError
            If shapes disagree, or a number is not finite.
        """

    def decision(
        self, X: NDArray[np.floating], converted: Array | None = None, first_row: int = 0
    ) -> Array:
        """Return the predictors z of rows, (rows, outputs).

        Parameters
        ----------
        X : array (rows, features)
            The rows.
        converted : float64 array (piece, features), or None
            Workspace in which rows are converted, one piece at a time. None converts all at once.
        first_row : int
            Number of the first row within the data, for messages.

        Raises
        ------
        NonFiniteData
            If a row holds NaN or infinity, or its predictor exceeds float64.
        """

    def permuted(self, order: NDArray[np.intp]) -> Self:
        """Return the predictor for columns reordered as `X[:, order]`."""


@dataclass(frozen=True, eq=False)
class LinearPredictor:
    """Coefficients (outputs, features) and intercepts: ``z = X @ coef.T + intercept``."""

    coef: Array
    intercept: Array

    kind: ClassVar[str] = "linear"
    names: ClassVar[tuple[str, ...]] = ("coef", "intercept")

    @property
    def n_features(self) -> int:
        """Number of columns of X."""
        return int(self.coef.shape[1])

    @property
    def n_outputs(self) -> int:
        """Number of predictors z of each row."""
        return int(self.coef.shape[0])

    @property
    def made_bytes(self) -> int:
        """0: `decision` writes predictors in place, and allocates nothing else."""
        return 0

    @property
    def arrays(self) -> Mapping[str, Array]:
        """The saved arrays: coefficients and intercepts."""
        return {"coef": self.coef, "intercept": self.intercept}

    @classmethod
    def of(cls, *arrays: Array) -> Self:
        """Make a predictor from its saved arrays."""
        coef, intercept = arrays
        if coef.ndim != 2 or 0 in coef.shape or intercept.shape != coef.shape[:1]:
            raise ValueError(f"coefficients {coef.shape} and intercepts {intercept.shape}")
        if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
            raise ValueError("some parameters are not finite")
        return cls(coef, intercept)

    def decision(
        self, X: NDArray[np.floating], converted: Array | None = None, first_row: int = 0
    ) -> Array:
        """Return the predictors z of rows, (rows, outputs)."""
        # NaN and infinity in X reach z whatever the coefficients: X needs no check of its own.
        with np.errstate(over="ignore", invalid="ignore"):
            if converted is None:
                z = np.asarray(X, np.float64) @ self.coef.T + self.intercept
            else:
                z = np.empty((len(X), self.n_outputs))
                for start in range(0, len(X), len(converted)):
                    rows = slice(start, start + len(converted))
                    piece = converted[: len(X[rows])]
                    np.copyto(piece, X[rows])
                    np.matmul(piece, self.coef.T, out=z[rows])
                z += self.intercept
        if not np.isfinite(z).all():
            self._raise_without_predictor(X, z, first_row)
        return z

    def _raise_without_predictor(self, X: NDArray[np.floating], z: Array, first_row: int) -> None:
        """Raise `NonFiniteData` with row and column of the first non-finite predictor."""
        raise_if_not_finite(Block(X, None, None, ((0, first_row),)))
        row, output = np.argwhere(~np.isfinite(z))[0]
        column = int(np.argmax(np.abs(X[row] / np.abs(X[row]).max() * self.coef[output])))
        raise NonFiniteData(
            f"row {first_row + int(row)} has {X[row, column]:g} in column {column} of X, and no "
            "float64 holds its prediction; drop or correct such rows first"
        )

    def permuted(self, order: NDArray[np.intp]) -> Self:
        """Return the predictor for columns reordered as `X[:, order]`."""
        return replace(self, coef=self.coef[:, order])


@dataclass(frozen=True, eq=False)
class ScaledPredictor(LinearPredictor):
    """A linear predictor, and the scale of its residuals in units of y, (1,)."""

    scale: Array

    kind: ClassVar[str] = "linear-scale"
    names: ClassVar[tuple[str, ...]] = ("coef", "intercept", "scale")

    @property
    def arrays(self) -> Mapping[str, Array]:
        """The saved arrays: coefficients, intercepts and the scale."""
        return {**super().arrays, "scale": self.scale}

    @classmethod
    def of(cls, *arrays: Array) -> Self:
        """Make a predictor from its saved arrays."""
        coef, intercept, scale = arrays
        plain = LinearPredictor.of(coef, intercept)
        if scale.shape != (1,) or not 0.0 <= scale[0] < np.inf:
            raise ValueError(f"scale {scale} is not one finite number of at least 0")
        return cls(plain.coef, plain.intercept, scale)
