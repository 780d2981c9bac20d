"""Protocols of problems: parameters, an objective, and its sums over rows."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.requests import Scan
from ooc_train.core.sums import Array, Reduction, Sums
from ooc_train.models.column_moments import ColumnMoments
from ooc_train.models.predictor import Predictor
from ooc_train.models.target_sums import TargetSums
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.optimizers.schedule import Schedule

Capability = Literal[
    "gradient",
    "hessian",
    "blocks",
    "smooth",
    "prox",
    "smoothing",
    "gram",
    "updates",
    "moments",
    "private",
]
"""What a problem can do, and a solver may require.

"gradient", "hessian": the reduction adds these up; the objective of a "hessian" is convex.
"blocks": the reduction adds up the Hessian of each output alone, too.
"smooth": the objective has a gradient everywhere. "prox": it has, or lacks one only by an l1
penalty, which has a proximal point. "smoothing": it has either, and curvature where rows are, once
the loss is smoothed. "gram": the loss is that of least squares.
"updates": the problem learns by batches.
"moments": moments of the columns give a learning rate, a guaranteed gain, and the curvature that a
sample misses.
"private": the gradient of each row can be clipped, and nothing else depends on the rows.
"""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The objective and its derivatives at one point in the space of parameters.

    Attributes
    ----------
    params : float64 array of the problem's shape
        The parameters at which the objective is evaluated.
    loss : float
        Mean loss of a row, by weight.
    objective : float
        Sum of the losses plus the penalty.
    gradient : float64 array of the problem's shape
        Gradient of the objective without an l1 penalty.
    hessian : float64 array of the problem's `hessian_shape`, or None
        Hessian of the objective; None if the pass did not add it up.
    """

    params: Array
    loss: float
    objective: float
    gradient: Array
    hessian: Array | None = None


class Problem(Protocol):
    """An objective over rows: a value that travels to the workers.

    Parameters are one float64 array, whose shape only the problem knows.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameters."""

    @property
    def hessian_shape(self) -> tuple[int, int, int]:
        """Shape of the Hessian, as (diagonal blocks, block size, block size)."""

    @property
    def n_rows(self) -> int:
        """Number of rows of the data."""

    @property
    def total_weight(self) -> float:
        """Sum of the rows' weights."""

    @property
    def can(self) -> frozenset[Capability]:
        """Capabilities of the problem, which solvers may require."""

    @property
    def bound(self) -> float | None:
        """Upper bound of the curvature of the mean loss; None if there is none."""

    @property
    def own_optimizer(self) -> Optimizer | None:
        """The optimizer that the problem brings, for the solver "auto"; None if it has none."""

    def initial(self, seed: int = 0) -> Array:
        """Return the initial parameters of a run."""

    def automatic_rate(self, optimizer: Optimizer) -> float | None:
        """Return the learning rate "auto" of an optimizer; None if the solver finds it."""

    def reduction(self, points: Array, *, gradients: int = 1, hessian: bool = False) -> Reduction:
        """Return the reduction of losses and derivatives at one or more points, (points, *shape).

        Parameters
        ----------
        points : float64 array
            The parameters to evaluate.
        gradients : int
            Number of points, from the first, whose gradients are added up.
        hessian : bool
            Whether the Hessian at the first point is added up.
        """

    def objectives(self, sums: Sums, points: Array) -> Array:
        """Return the objective at each point, (points,)."""

    def read(self, sums: Sums, points: Array, i: int = 0) -> Evaluation:
        """Return the evaluation of point `i`, from the sums over all rows."""

    def mean_gradient(self, sums: Sums, params: Array) -> Array:
        """Return the gradient of the mean objective at `params`, from sums over all or some rows.

        The objective here is without an l1 penalty.
        """

    def least_subgradient(self, gradient: Array, params: Array) -> Array:
        """Return the subgradient of least norm of the mean objective, l1 penalty included.

        The subgradient is zero at the optimum. Without an l1 penalty it equals `gradient`, which is
        what `mean_gradient` returns at `params`.
        """

    def penalty_value(self, params: Array) -> float:
        """Return the penalty on the parameters, in units of the sum of losses."""


class UpdatesOfProblem(Scan, Protocol):
    """A scan that updates the parameters of one problem by batches of rows."""

    def start(self, params: Array) -> Sums:
        """Return the state of a replica before its first row.

        "theta" and "average" are parameters: the updated ones, and their average, which is the
        model. "counters" count the rows of an unfinished batch, the updates, and the rows so far.
        "sums" are the progressive loss and the weight of the rows of the epoch.
        """

    def step_by_all_rows(self, state: Sums, gradient: Array) -> Sums:
        """Return the state after a step by the gradient of the mean objective of all rows."""

    def rate(self, t: int) -> float:
        """Return the learning rate after t updates."""


class ProblemOfUpdates(Problem, Protocol):
    """A problem whose parameters can be learned by updates on batches of rows."""

    @property
    def averages_all_rows(self) -> bool:
        """Whether full-batch normalised steps give averaged parameters, not the last."""

    def updates(
        self,
        dtype: str,
        batch_size: int,
        optimizer: Optimizer,
        schedule: Schedule,
        eta0: float,
        horizon: float,
    ) -> UpdatesOfProblem:
        """Return the scan that updates parameters by batches of `batch_size` rows.

        Parameters
        ----------
        dtype : str
            Type of X, "<f4" or "<f8".
        batch_size : int
            Rows per update.
        optimizer : Optimizer
            How a gradient becomes a step.
        schedule : Schedule
            Which share of `eta0` the learning rate is after so many updates.
        eta0 : float
            The learning rate that the schedule scales.
        horizon : float
            Planned number of updates; infinity if unknown.
        """


class ModelProblem(ProblemOfUpdates, Protocol):
    """The problem of a model, which knows the columns of the data and makes predictors."""

    @property
    def n_features(self) -> int:
        """Number of columns of the data."""

    @property
    def n_outputs(self) -> int:
        """Number of predictors z of each row."""

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""

    @property
    def class_weight(self) -> Array | None:
        """Factor of a row's weight by the code of its class; None where all are 1."""

    @property
    def needs_moments(self) -> bool:
        """Whether a run begins with a pass for the moments of the columns."""

    @property
    def standardize(self) -> bool:
        """Whether moments must be those of all rows, since the objective depends on them."""

    @property
    def target_sums(self) -> TargetSums | None:
        """The reduction for moments of y, which a run needs at its start; None if unneeded."""

    def scaled_by(self, moments: ColumnMoments) -> Self:
        """Return the problem of columns that are scaled by their moments."""

    def with_targets(self, mean: Array, deviation: Array) -> Self:
        """Return the problem, given mean and standard deviation of y, or estimates."""

    def permuted(self, params: Array, order: NDArray[np.intp]) -> tuple[Self, Array]:
        """Return the problem and parameters for columns reordered as `X[:, order]`."""

    def predictor(self, params: Array) -> Predictor:
        """Return the predictor of `params`, in the data's units."""

    def params_of(self, predictor: Any) -> Array:
        """Convert a predictor in the data's units to `params`, see `require_predictor`."""

    def require_predictor(self, predictor: Predictor) -> None:
        """Raise `ValueError` unless the predictor has the problem's kind and shape."""
