"""From linear predictors z of rows to the predictions that users see: the only place for it."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.squared import Squared
from ooc_train.runs.fitted import Fitted, Label

ByClass = Literal["probability", "log_probability"]
BY_CLASS: tuple[ByClass, ...] = get_args(ByClass)
"""Kinds of predictions with a number for each class."""

_LINEAR = ("truncated linear", "probability")
"""Links of which z is twice the probability, less 1, cut off at 0 and 1 or always between them."""

Kind = Literal["prediction", "decision"] | ByClass


def loss_name(fitted: Fitted) -> str:
    """Return what users call the loss of a model; "loss" where a criterion of PyTorch is the loss.

    Examples
    --------
    >>> from ooc_train import PoissonModel, RidgeModel, train
    >>> fitted, _ = train(RidgeModel(), np.eye(3), y=[1.0, 2.0, 4.0])
    >>> loss_name(fitted)
    'half squared error'
    >>> fitted, _ = train(PoissonModel(), np.eye(3), y=[1.0, 2.0, 4.0])
    >>> loss_name(fitted)
    'poisson loss'
    """
    if hasattr(fitted.model, "criterion"):
        return "loss"
    if Outputs.of(fitted).is_log_loss:
        return "log-loss"
    if isinstance(fitted.loss, Squared):
        return "half squared error"
    return f"{fitted.loss.name.replace('_', ' ')} loss"


@dataclass(frozen=True, eq=False)
class Outputs:
    """The predictions of a model, from the linear predictors z of rows.

    Attributes
    ----------
    loss : Loss
        Its inverse link turns z into the expected y.
    n_outputs : int
        Predictors of a row.
    classes : tuple
        Labels by their codes; empty for regression.
    """

    loss: Loss
    n_outputs: int
    classes: tuple[Label, ...] = ()

    @classmethod
    def of(cls, fitted: Fitted) -> "Outputs":
        """Return the outputs of a fitted model."""
        return cls(fitted.loss, fitted.n_outputs, fitted.classes)

    def width(self, kind: Kind) -> int:
        """Return the number of columns of a kind of predictions.

        Raises
        ------
        ValueError
            If the kind is probabilities, and the loss gives none.
        """
        if kind not in BY_CLASS:
            return self.n_outputs
        self._require_probabilities()
        return len(self.classes)

    def at(self, z: Array, kind: Kind) -> NDArray[Any]:
        """Return the predictions of rows.

        Parameters
        ----------
        z : float64 array (rows, outputs)
            The predictors.
        kind : str
            "prediction": codes of classes (rows,), or the expected y (rows, outputs). "decision":
            z itself. "probability", "log_probability": a number for each class (rows, classes).
        """
        if kind == "decision":
            return z
        if kind == "probability":
            return self.probabilities(z)
        if kind == "log_probability":
            return self.log_probabilities(z)
        return self.codes(z) if self.classes else self.loss.mean(z)

    @property
    def has_probabilities(self) -> bool:
        """Whether z gives probabilities of classes that add up to 1."""
        return self.has_positive_probabilities or self.loss.link in _LINEAR

    @property
    def has_positive_probabilities(self) -> bool:
        """Whether z gives probabilities above 0, which have logarithms: the link is a logit."""
        return bool(self.classes) and self.loss.link in ("logit", "multinomial logit")

    @property
    def scores_are_probabilities(self) -> bool:
        """Whether `scores` are probabilities, which do not tie where predictors differ."""
        return self.has_probabilities and self.loss.link != "truncated linear"

    @property
    def is_log_loss(self) -> bool:
        """Whether the loss is minus the log-likelihood of the probabilities."""
        single = self.n_outputs == 1 or self.loss.kind == "rowwise"
        return self.has_positive_probabilities and single

    def _require_probabilities(self) -> None:
        if not self.has_probabilities:
            raise ValueError(
                f"the {self.loss.name} loss gives no probabilities; ask for predictions, or "
                "decisions"
            )

    def probabilities(self, z: Array) -> Array:
        """Return the probability of each class, (rows, classes).

        Those of one class against the rest are divided by their sum, as by scikit-learn. Where all
        are 0, each is the same.
        """
        self._require_probabilities()
        by_one = self.n_outputs > 1 and self.loss.kind == "pointwise"
        if by_one and self.has_positive_probabilities:
            return np.asarray(np.exp(self.log_probabilities(z)))
        p = self.loss.mean(z)
        if by_one:
            total = p.sum(axis=1, keepdims=True)
            same = np.full_like(p, 1.0 / self.n_outputs)
            np.divide(p, total, out=same, where=total > 0.0)
            return same
        return np.column_stack([1.0 - p, p]) if self.n_outputs == 1 else p

    def log_probabilities(self, z: Array) -> Array:
        """Return the log-probability of each class, (rows, classes), finite for a logit."""
        if not self.has_positive_probabilities:
            with np.errstate(divide="ignore"):
                return np.asarray(np.log(self.probabilities(z)))
        if self.n_outputs == 1:
            rest = np.log1p(np.exp(-np.abs(z)))
            return np.hstack([np.minimum(-z, 0.0) - rest, np.minimum(z, 0.0) - rest])
        if self.loss.kind == "pointwise":
            z = np.minimum(z, 0.0) - np.log1p(np.exp(-np.abs(z)))  # of each class against the rest
        shifted: Array = z - z.max(axis=1, keepdims=True)
        # One class at a time: no second array of this size.
        total = sum(np.exp(shifted[:, k]) for k in range(self.n_outputs))
        shifted -= np.log(total)[:, np.newaxis]
        return shifted

    def scores(self, z: Array) -> Array:
        """Return a score from 0 to 1 of each class, of two of the second, (rows, scored classes).

        Scores that are no probabilities are in the order of z, and give the same curves.
        """
        if not self.scores_are_probabilities:
            return Logistic().mean(z)
        return self.loss.mean(z) if self.n_outputs == 1 else self.probabilities(z)

    def ranks(self, z: Array, codes: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return how many classes come before each row's own, (rows,): 0 if it is predicted."""
        if self.n_outputs == 1:
            return np.asarray(self.codes(z) != codes, np.intp)
        own = z[np.arange(len(z)), codes][:, np.newaxis]
        # Of classes with the same predictor, the first one is predicted.
        ahead = (z > own) | ((z == own) & (np.arange(z.shape[1]) < codes[:, np.newaxis]))
        return np.asarray(ahead.sum(axis=1))

    def codes(self, z: Array) -> NDArray[np.intp]:
        """Return the code of the class with the largest predictor, (rows,)."""
        return (z[:, 0] > 0).astype(np.intp) if self.n_outputs == 1 else z.argmax(axis=1)

    @property
    def labels(self) -> NDArray[Any] | None:
        """The class labels as a numeric array, by class code; None if any label is not a number."""
        labels = np.asarray(self.classes)
        return labels if len(labels) and labels.dtype.kind in "biuf" else None

    def column(self, kind: Kind) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape and type of the prediction for a row; labels that are text become codes."""
        if kind == "prediction" and self.classes:
            return (), np.dtype(np.int64) if self.labels is None else self.labels.dtype
        return (self.width(kind),), np.dtype(np.float64)

    def labelled(self, z: Array, kind: Kind) -> NDArray[Any]:
        """Return the predictions of rows, with numeric labels in place of codes."""
        values = self.at(z, kind)
        labels = self.labels if kind == "prediction" else None
        return values if labels is None else labels[values]
