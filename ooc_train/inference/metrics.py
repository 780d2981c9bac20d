"""Metrics of a model as sums over rows, by one pass.

Curves of a class come from a histogram of its score. All classes together have about 65,536 bins.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import (
    Array,
    Arrays,
    ArraySpec,
    Block,
    Sums,
    Workspace,
    raise_if_not_finite,
)
from ooc_train.inference.class_metrics import (
    CONFIDENCE_BINS,
    MOST_CLASSES,
    ClassMetrics,
    calibration_error,
    roc_areas,
)
from ooc_train.inference.outputs import Outputs
from ooc_train.inference.residual_metrics import ResidualMetrics, add_residuals, residual_zeros
from ooc_train.objective.loss import LogLinkLoss, raise_if_outside
from ooc_train.runs.fitted import Fitted
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.requirements import loads_of

PIECE_ROWS = 1024
"""Rows converted to float64 at a time for prediction."""

_BINS, _LEAST_BINS = 65_536, 64

_FLAT = 1e-14
"""Share of a difference of two sums that is rounding."""

_PIECE_BYTES, _COPIES, _DETAILED_COPIES = 2**23, 6, 6
"""Bytes of linear predictors of a piece, and arrays of that size that a piece needs; and further
ones if sums are detailed."""


@dataclass(frozen=True, eq=False)
class MetricSums:
    """The reduction of metrics: sums of losses, right predictions and squares over rows.

    Attributes
    ----------
    fitted : Fitted
        The model.
    about : ndarray of shape (outputs,)
        Numbers near the mean of y, subtracted from y so that squares lose no digits.
    detailed : bool
        Whether further sums are added up: of probabilities, of each class unless there are more
        than 1,000, and of residuals.
    bins : int
        Number of bins of the scores of all classes together.
    """

    fitted: Fitted
    about: Array
    detailed: bool = False
    bins: int = _BINS

    @classmethod
    def of(cls, fitted: Fitted, inputs: Inputs, *, detailed: bool = False) -> Self:
        """Return the reduction for a model whose columns are in the order of those of `inputs`."""
        statistics = inputs.statistics
        row = np.zeros(fitted.n_features) if statistics is None else statistics.mean
        about = fitted.decision(row[None])[0]
        if not fitted.model.is_classifier:
            about = fitted.loss.mean(about)
        return cls(fitted, about[: inputs.source.n_outputs], detailed)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics, beside the number of rows and the loss."""
        if not self.fitted.model.is_classifier:
            return ("r2", "mse", "d2") if self.has_deviance else ("r2", "mse")
        names = ["accuracy"]
        names += ["log_loss"] if Outputs.of(self.fitted).has_positive_probabilities else []
        return (*names, "roc_auc") if self._is_binary else tuple(names)

    @property
    def has_deviance(self) -> bool:
        """Whether the loss is half a deviance, so that D^2 is defined."""
        return isinstance(self.fitted.loss, LogLinkLoss)

    @property
    def null(self) -> Array:
        """The predictors, (outputs,), of the constant that the sum "null" compares y with."""
        return np.log(np.where(self.about > 0.0, self.about, 1.0))

    @property
    def _is_binary(self) -> bool:
        return len(self.fitted.classes) == 2

    @property
    def _has_own_log_loss(self) -> bool:
        """Whether there is a log-loss that is not the loss: of one class against the rest."""
        outputs = Outputs.of(self.fitted)
        return outputs.has_positive_probabilities and not outputs.is_log_loss

    @property
    def _counts_classes(self) -> bool:
        return self.detailed and 0 < len(self.fitted.classes) <= MOST_CLASSES

    @property
    def _scores_probabilities(self) -> bool:
        return self.detailed and Outputs.of(self.fitted).has_probabilities

    @property
    def _histogram_shape(self) -> tuple[int, int, int]:
        """Shape of the histogram: scored classes, 2 (other rows, the class), bins of the score."""
        scored = 1 if self._is_binary else len(self.fitted.classes)
        return scored, 2, max(_LEAST_BINS, self.bins // scored)

    @property
    def loads(self) -> tuple[Callable[[], None], ...]:
        """Functions that load the libraries of the predictor."""
        return loads_of(self.fitted.predictor)

    def zeros(self) -> Sums:
        """Return the sums over no rows, all zero."""
        sums: Sums = {name: np.zeros(()) for name in ("rows", "weight", "loss")}
        if not self.fitted.model.is_classifier:
            if self.has_deviance:
                sums["null"] = np.zeros(())
            squares = ("residual", "first", "second")
            sums |= {name: np.zeros(len(self.about)) for name in squares}
            return sums | (residual_zeros(len(self.about)) if self.detailed else {})
        sums["hits"] = np.zeros(())
        if self._has_own_log_loss:
            sums["log_loss"] = np.zeros(())
        if self._counts_classes:
            sums["confusion"] = np.zeros((len(self.fitted.classes),) * 2)
            sums["ranks"] = np.zeros(len(self.fitted.classes))
        if self._scores_probabilities:
            sums |= {"brier": np.zeros(()), "confidence": np.zeros((3, CONFIDENCE_BINS))}
        if self._counts_classes or self._is_binary:
            sums["histogram"] = np.zeros(self._histogram_shape)
        return sums

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `add`, for blocks of at most `rows` rows."""
        return {"converted": ArraySpec((min(rows, PIECE_ROWS), self.fitted.n_features))}

    def made_bytes(self, rows: int) -> int:
        """Return the bytes of the arrays that `add` makes for at most `rows` rows."""
        made = self.fitted.predictor.made_bytes
        copies = _COPIES + _DETAILED_COPIES * self.detailed
        return 8 * min(rows, self._piece) * (copies * self.fitted.n_outputs + 4) + made

    @property
    def _piece(self) -> int:
        return max(1, _PIECE_BYTES // (8 * self.fitted.n_outputs))

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place; many outputs by pieces of rows.

        Raises
        ------
        NonFiniteData
            If the block holds NaN or infinity.
        """
        for piece, z in self.predicted(block, workspace):
            self.add_predicted(sums, piece, z)

    def predicted(self, block: Block, workspace: Arrays) -> Iterator[tuple[Block, Array]]:
        """Yield pieces of a block and their predictors z."""
        if block.y is None:
            raise ValueError("evaluation needs y, and these data have none")
        for start in range(0, block.n_rows, self._piece):
            rows = slice(start, start + self._piece)
            weight = None if block.weight is None else block.weight[rows]
            first = block.row_number(start)
            piece = Block(block.X[rows], block.y[rows], weight, ((0, first),))
            yield piece, self.fitted.decision(piece.X, workspace["converted"], first)

    def add_predicted(self, sums: Sums, block: Block, z: Array) -> None:
        """Add the sums over rows with predictors z into `sums`, in place."""
        if block.y is None:
            raise ValueError("evaluation needs y, and these data have none")
        fitted, y = self.fitted, block.y
        weight = np.ones(block.n_rows) if block.weight is None else block.weight
        sums["rows"] += block.n_rows
        sums["weight"] += weight.sum()
        with np.errstate(over="ignore", invalid="ignore"):
            loss = fitted.loss.value(fitted.loss.targets(y, fitted.n_outputs), z)
        sums["loss"] += weight @ loss.reshape(len(z), -1).sum(axis=1)
        if not np.isfinite(sums["loss"]):
            raise_if_not_finite(block)
            raise_if_outside(fitted.loss, block)
        if not fitted.model.is_classifier:
            shifted = y - self.about
            mean = fitted.loss.mean(z)
            with np.errstate(over="ignore"):
                sums["residual"] += weight @ (y - mean) ** 2
            if self.detailed:
                add_residuals(sums, y, mean, self.about, weight)
            if self.has_deviance:
                null = np.broadcast_to(self.null, z.shape)
                sums["null"] += weight @ fitted.loss.value(y, null).sum(axis=1)
            sums["first"] += weight @ shifted
            sums["second"] += weight @ shifted**2
            return
        codes = y[:, 0].astype(np.intp)
        outputs = Outputs.of(fitted)
        predicted = outputs.codes(z)
        sums["hits"] += weight @ (predicted == codes)
        if self._has_own_log_loss:
            logs = outputs.log_probabilities(z)
            sums["log_loss"] -= weight @ logs[np.arange(len(logs)), codes]
        if self._counts_classes:
            np.add.at(sums["confusion"], (codes, predicted), weight)
            np.add.at(sums["ranks"], outputs.ranks(z, codes), weight)
        if self._scores_probabilities:
            self._add_probabilities(sums, codes, outputs.probabilities(z), weight)
        if "histogram" in sums:
            self._add_scores(sums["histogram"], codes, z, weight)

    @staticmethod
    def _add_probabilities(
        sums: Sums, codes: NDArray[np.intp], probabilities: Array, weight: Array
    ) -> None:
        """Add squared errors of probabilities, and the largest ones by bin, in place."""
        rows, n = np.arange(len(codes)), CONFIDENCE_BINS
        predicted = probabilities.argmax(axis=1)
        largest = probabilities[rows, predicted]
        bins = np.minimum((largest * n).astype(np.intp), n - 1)
        for k, value in enumerate((1.0, predicted == codes, largest)):
            np.add.at(sums["confidence"][k], bins, weight * value)
        squares = np.einsum("ij,ij->i", probabilities, probabilities)
        squares += 1.0 - 2.0 * probabilities[rows, codes]
        # Of two classes, both errors are the same.
        sums["brier"] += weight @ squares / (2.0 if probabilities.shape[1] == 2 else 1.0)

    def _add_scores(
        self, histogram: Array, codes: NDArray[np.intp], z: Array, weight: Array
    ) -> None:
        """Add the weights of rows to the bins of their scores, in place."""
        scored, _, n_bins = histogram.shape
        scores = Outputs.of(self.fitted).scores(z)
        for k in range(scored):
            bins = np.minimum((scores[:, k] * n_bins).astype(np.intp), n_bins - 1)
            bins += n_bins * (codes == (1 if self._is_binary else k))
            np.add.at(histogram[k].reshape(-1), bins, weight)

    def metrics(self, sums: Sums) -> dict[str, Any]:
        """Return the metrics from sums over all rows, as plain numbers."""
        weight = float(sums["weight"])
        found: dict[str, Any] = {"n_rows": int(sums["rows"]), "loss": float(sums["loss"]) / weight}
        if not self.fitted.model.is_classifier:
            found["r2"] = self.r2(sums["residual"], sums, weight)
            found["mse"] = float(np.mean(sums["residual"])) / weight
            if self.has_deviance:
                found["d2"] = self.d2(found["loss"], sums, weight)
            return found
        found["accuracy"] = float(sums["hits"]) / weight
        if Outputs.of(self.fitted).has_positive_probabilities:
            found["log_loss"] = float(sums.get("log_loss", sums["loss"])) / weight
        if self._is_binary:
            area = roc_areas(sums["histogram"])
            found["roc_auc"], found["roc_auc_error"] = map(float, np.concatenate(area))
        return found

    def evaluation(self, sums: Sums) -> dict[str, Any]:
        """Return the metrics of all rows; detailed ones have those of classes or residuals."""
        found = self.metrics(sums)
        if not self.detailed:
            return found
        if not self.fitted.model.is_classifier:
            residuals = ResidualMetrics.of(sums)
            return found | {"mae": float(residuals.mae.mean()), "residuals": residuals}
        if self._scores_probabilities:
            found["brier"] = float(sums["brier"] / sums["weight"])
            found["ece"] = calibration_error(sums["confidence"])
        if self._counts_classes:
            found["by_class"] = ClassMetrics(
                self.fitted.classes,
                sums["confusion"],
                sums["histogram"],
                Outputs.of(self.fitted).scores_are_probabilities,
                sums["ranks"],
                sums.get("confidence"),
            )
        return found

    @staticmethod
    def r2(residual: Array, sums: Sums, weight: float) -> float:
        """Return R^2, the mean over outputs, for sums of squared residuals (outputs,)."""
        total = sums["second"] - sums["first"] ** 2 / weight
        # If y never varies, R^2 is 1 for exact predictions and else 0, as in scikit-learn.
        flat = np.where(residual == 0, 1.0, 0.0)
        share = np.divide(residual, total, out=1.0 - flat, where=total > 0)
        return float(np.mean(1.0 - share))

    def d2(self, loss: float, sums: Sums, weight: float) -> float:
        """Return the share of the deviance that the model explains.

        A deviance is a Bregman divergence. So the deviance of y from its mean is the deviance of y
        from any constant, less the deviance of the mean from that constant (Banerjee et al. 2005,
        theorem 1).
        """
        mean = self.about + sums["first"] / weight
        of_mean = self.fitted.loss.value(mean, self.null).sum() if (mean > 0.0).all() else 0.0
        null = float(sums["null"]) / weight - float(of_mean)
        if null <= _FLAT * float(sums["null"]) / weight:
            # y never varies: 1 for exact predictions and else 0, as for R^2.
            return float(loss == 0.0)
        return 1.0 - loss / null
