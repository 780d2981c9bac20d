"""Sums over validation rows that a calibration is fitted to, each by one pass."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array, Arrays, Block, Sums, Workspace, array_bytes
from ooc_train.inference.metrics import MetricSums
from ooc_train.objective.losses.logistic import Logistic

_BINS, _LEAST_BINS = 65_536, 1_024
"""Bins of the predictors of all outputs together, and the fewest of an output."""


@dataclass(frozen=True, eq=False)
class ScoreSums:
    """The base of reductions over the predictors z of rows and their classes.

    Attributes
    ----------
    metrics : MetricSums
        What predicts, by pieces of rows.
    """

    metrics: MetricSums

    @property
    def n_outputs(self) -> int:
        """Number of predictors z of each row; of two classes that of the second alone."""
        return self.metrics.fitted.n_outputs

    @property
    def loads(self) -> tuple[Callable[[], None], ...]:
        """Functions that load the libraries of the predictor."""
        return self.metrics.loads

    def zeros(self) -> Sums:
        """Return the sums over no rows, all zero."""
        raise NotImplementedError

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `add`, for blocks of at most `rows` rows."""
        return self.metrics.workspace(rows)

    def made_bytes(self, rows: int) -> int:
        """Return the bytes of the arrays that `add` makes for at most `rows` rows."""
        return self.metrics.made_bytes(rows) + array_bytes(self)

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place.

        Raises
        ------
        NonFiniteData
            If the block holds NaN or infinity.
        """
        for piece, z in self.metrics.predicted(block, workspace):
            if piece.y is None:
                raise ValueError("a calibration needs y, and these data have none")
            weight = np.ones(piece.n_rows) if piece.weight is None else piece.weight
            self.add_scores(sums, z, piece.y[:, 0].astype(np.intp), weight)

    def add_scores(self, sums: Sums, z: Array, codes: NDArray[np.intp], weight: Array) -> None:
        """Add the sums over rows with predictors z, (rows, outputs), into `sums`, in place."""
        raise NotImplementedError

    def of_class(self, z: Array, codes: NDArray[np.intp], weight: Array) -> Array:
        """Return the sum over the rows of each class of its own predictor, (outputs,)."""
        if self.n_outputs == 1:
            return (weight * codes) @ z
        own = weight * z[np.arange(len(z)), codes]
        return np.bincount(codes, own, minlength=self.n_outputs).astype(np.float64)


@dataclass(frozen=True, eq=False)
class ScoreMoments(ScoreSums):
    """The reduction of weights, and of moments of the predictors about numbers near their means.

    Attributes
    ----------
    about : float64 array (outputs,)
        Numbers near the means.
    """

    about: Array

    def zeros(self) -> Sums:
        """Return the sums over no rows, all zero."""
        one, each = ("rows", "weight"), ("own_weight", "first", "own_first", "second")
        sums: Sums = {name: np.zeros(()) for name in one}
        return sums | {name: np.zeros(self.n_outputs) for name in each}

    def add_scores(self, sums: Sums, z: Array, codes: NDArray[np.intp], weight: Array) -> None:
        """Add the sums over rows into `sums`, in place."""
        shifted = z - self.about
        sums["rows"] += len(z)
        sums["weight"] += weight.sum()
        sums["own_weight"] += self.of_class(np.ones_like(z), codes, weight)
        sums["first"] += weight @ shifted
        sums["own_first"] += self.of_class(shifted, codes, weight)
        sums["second"] += weight @ shifted**2


@dataclass(frozen=True, eq=False)
class SigmoidSums(ScoreSums):
    """The reduction of log-losses of ``a s + b``, s being z in standard units, by trial lines.

    The sums leave out ``y (a s + b)``, which moments give for any targets.

    Attributes
    ----------
    mean, deviation : float64 array (outputs,)
        What makes standard units of z.
    lines : float64 array (trials, 2, outputs)
        The slopes a, and the offsets b.
    """

    mean: Array
    deviation: Array
    lines: Array

    def zeros(self) -> Sums:
        """Return the sums over no rows: losses, gradients, and Hessians (aa, ab, bb)."""
        trials, _, outputs = self.lines.shape
        sizes = {"loss": 1, "gradient": 2, "hessian": 3}
        return {name: np.zeros((trials, n, outputs)) for name, n in sizes.items()}

    def add_scores(self, sums: Sums, z: Array, codes: NDArray[np.intp], weight: Array) -> None:
        """Add the sums over rows into `sums`, in place."""
        del codes
        s = (z - self.mean) / self.deviation
        logistic = Logistic()
        for trial, (slope, offset) in enumerate(self.lines):
            found = s * slope
            found += offset
            sums["loss"][trial, 0] += weight @ logistic.value(0.0, found)
            p = logistic.mean(found)
            curvature = p * (1.0 - p)
            sums["gradient"][trial, 1] += weight @ p
            p *= s
            sums["gradient"][trial, 0] += weight @ p
            for k in (2, 1, 0):
                sums["hessian"][trial, k] += weight @ curvature
                curvature *= s


@dataclass(frozen=True, eq=False)
class TemperatureSums(ScoreSums):
    """The reduction of derivatives of the log-loss by a common factor of the predictors.

    Attributes
    ----------
    factors : float64 array (trials,)
        The factors.
    """

    factors: Array

    def zeros(self) -> Sums:
        """Return the sums over no rows: weight, first and second derivatives, (trials,)."""
        sums: Sums = {name: np.zeros(len(self.factors)) for name in ("slope", "curvature")}
        return sums | {"weight": np.zeros(())}

    def add_scores(self, sums: Sums, z: Array, codes: NDArray[np.intp], weight: Array) -> None:
        """Add the sums over rows into `sums`, in place."""
        if self.n_outputs == 1:
            z = np.hstack([np.zeros_like(z), z])
        z = z - z[np.arange(len(z)), codes][:, np.newaxis]
        sums["weight"] += weight.sum()
        below, squares = z - z.max(axis=1, keepdims=True), z * z
        for trial, factor in enumerate(self.factors):
            p = factor * below
            np.exp(p, out=p)
            total = p.sum(axis=1)
            mean = np.einsum("ij,ij->i", p, z) / total
            square = np.einsum("ij,ij->i", p, squares) / total
            sums["slope"][trial] += weight @ mean
            sums["curvature"][trial] += weight @ np.maximum(square - mean * mean, 0.0)


@dataclass(frozen=True, eq=False)
class ScoreHistogram(ScoreSums):
    """The reduction of weights by bins of each predictor.

    Bins have equal widths of the inverse hyperbolic sine of z in standard units: near the mean some
    2e-4 standard deviations for one output, and far from it so much of the distance.

    Attributes
    ----------
    mean, deviation : float64 array (outputs,)
        What makes standard units of z.
    most : float
        The largest number of standard units that has a bin of its own.
    """

    mean: Array
    deviation: Array
    most: float

    @property
    def n_bins(self) -> int:
        """Number of bins of an output."""
        return max(_LEAST_BINS, _BINS // self.n_outputs)

    def zeros(self) -> Sums:
        """Return the sums over no rows: weights of all rows and of the class, and of the scores."""
        return {"histogram": np.zeros((self.n_outputs, 3, self.n_bins))}

    def add_scores(self, sums: Sums, z: Array, codes: NDArray[np.intp], weight: Array) -> None:
        """Add the sums over rows into `sums`, in place."""
        s = (z - self.mean) / self.deviation
        shares = np.arcsinh(s) / (2.0 * np.arcsinh(self.most)) + 0.5
        bins = np.clip(shares * self.n_bins, 0, self.n_bins - 1).astype(np.intp)
        for k in range(self.n_outputs):
            own = codes == (1 if self.n_outputs == 1 else k)
            for i, value in enumerate((weight, weight * own, weight * s[:, k])):
                np.add.at(sums["histogram"][k, i], bins[:, k], value)
