"""What is learned, as a value: the base of all models."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from ooc_train.core.settings import CheckedSettings
from ooc_train.core.sums import Array
from ooc_train.models.predictor import Predictor
from ooc_train.objective.loss import Loss

LEAST_SQUARES_SOLVERS = ("gram", "coordinate-descent")
SMOOTH_SOLVERS = ("newton", "proximal-newton", "lbfgs", "block-lbfgs", "proximal-lbfgs")
UPDATES = ("updates", "private")
"""Names in `Model.solvers`."""


@dataclass(frozen=True)
class DataFigures:
    """The sizes and weights of the data, from which a model makes a problem.

    Attributes
    ----------
    n_rows, n_features, n_targets : int
        Numbers of rows, of columns of X, and of columns of y.
    n_classes : int
        Number of classes of y; 0 for a regression.
    total_weight : float
        Sum of the rows' weights, class weights included.
    class_weight : float64 array (classes,) or None
        Factor of a row's weight by the code of its class.
    batch_rows : int or None
        Number of rows of a batch; None for all rows.
    row_shape : tuple of int or None
        Shape of a row of several axes, as of an image, whose values are the columns.
    seed : int
        The seed of the run.
    """

    n_rows: int
    n_features: int
    n_targets: int
    n_classes: int
    total_weight: float
    class_weight: Array | None = None
    batch_rows: int | None = None
    row_shape: tuple[int, ...] | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Model(CheckedSettings, ABC):
    """What is learned: objective and settings, without the data and without the way to learn it.

    A model is a frozen dataclass in a file of this room, with its line in `MODELS`. `Training` says
    how it is learned.

    Attributes
    ----------
    name : str
        The key in `MODELS`, and the command line's ``--model``.
    default_tol, default_max_iter : float, int
        Tolerance, and limit of iterations or epochs, where `Training` has none.
    starts_at_random : bool
        Whether a run begins with random parameters, so that `random_state` decides the model.
    solvers : tuple of str
        The solvers that can learn the model, with one of its settings at least: names of exact
        solvers, "updates" for all optimizers, and "private". Help and docstrings list these.
    learns_by_batches : bool
        Whether updates by batches can learn the model.
    default_batch_size : int or str
        Batch size of the estimator and of the command line, where none is given.
    """

    name: ClassVar[str]
    default_tol: ClassVar[float] = 1e-4
    default_max_iter: ClassVar[int] = 100
    starts_at_random: ClassVar[bool] = False
    solvers: ClassVar[tuple[str, ...]] = (
        *LEAST_SQUARES_SOLVERS,
        *SMOOTH_SOLVERS,
        "smoothing",
        *UPDATES,
    )
    learns_by_batches: ClassVar[bool] = True
    default_batch_size: ClassVar[int | str] = "full"

    @property
    @abstractmethod
    def is_classifier(self) -> bool:
        """Whether y holds class labels."""

    @property
    def class_weight(self) -> Any:
        """None, "balanced", or a mapping from labels to factors of their rows' weights."""
        return None

    @property
    def standardizes(self) -> bool:
        """Whether the objective depends on moments of the columns."""
        return self.standardizes_once

    @property
    def standardizes_once(self) -> bool:
        """Whether columns are scaled by moments over all rows, found before the first update."""
        return False

    @abstractmethod
    def loss_for(self, n_classes: int) -> Loss:
        """Return the loss for data of so many classes; 0 for a regression.

        Raises
        ------
        ValueError
            If the model is not for so many classes.
        """

    def fitted_loss(self, n_classes: int, predictor: Predictor) -> Loss:
        """Return the loss that evaluates a fitted model; it may hold fitted values, as a scale."""
        del predictor
        return self.loss_for(n_classes)

    @abstractmethod
    def problem(self, data: DataFigures) -> Any:
        """Return the problem of learning the model from data.

        Raises
        ------
        ValueError
            If the model does not fit the data.
        """
