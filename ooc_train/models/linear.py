"""Linear models as problems: updates, predictors, Newton steps, and penalties for a sample."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.packing import packed_diagonal
from ooc_train.core.sums import Array, Sums
from ooc_train.models.column_moments import ColumnMoments
from ooc_train.models.gram_sums import ResidualSums
from ooc_train.models.linear_objective import LinearObjective
from ooc_train.models.linear_updates import LinearUpdates
from ooc_train.models.predictor import LinearPredictor, Predictor
from ooc_train.models.problem import Capability, Evaluation
from ooc_train.models.target_sums import TargetSums
from ooc_train.objective.losses.squared import Squared
from ooc_train.objective.penalty import NO_PENALTY
from ooc_train.objective.scaling import Scaling, permuted
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.optimizers.schedule import Schedule

_MIN_SHARE = 0.5
"""Share of a column's curvature that a sample needs; below, the column's weight is penalised."""

_SLIGHT = 0.01
"""Penalty of a sample on weights that have none, as a share of the curvature of its loss: less than
the error of the sample."""


@dataclass(frozen=True, eq=False)
class LinearProblem(LinearObjective):
    """The problem of a linear model: its objective, Newton steps, updates and predictors."""

    averages_all_rows: ClassVar[bool] = True

    @property
    def can(self) -> frozenset[Capability]:
        """Capabilities of the problem, which solvers may require."""
        if self.penalty.positive:  # which coordinate descent alone respects
            return frozenset({"gram"} if isinstance(self.loss, Squared) else ())
        found: set[Capability] = {"gradient", "moments"}
        if not self.penalty.l2_of_each:  # kernels take one penalty for all outputs
            found.add("updates")
            if self.target_sums is None:  # otherwise y decides the start
                found.add("private")
        if self.loss.smooth:
            found |= {"prox", "smooth"} if self.penalty.smooth else {"prox"}
        if self.loss.smoothed is not None:
            found.add("smoothing")
        has_curvature = self.loss.curvature is not None or self.loss.kind == "rowwise"
        if self.loss.smooth and self.loss.convex and has_curvature:
            found |= {"hessian", "blocks"}
        # One Gram matrix serves all outputs, and so rows weigh the same in each.
        if isinstance(self.loss, Squared) and self.row_factors is self.class_weight:
            found.add("gram")
        return frozenset(found)

    def smoothed(self, width: float) -> "LinearProblem":
        """Return the problem of the smoothed loss; `width` is in units of the predictors."""
        return replace(self, loss=self.loss.smoothed(width))

    def residual_sums(
        self, scaling: Scaling, basis: Array, coef: Array, intercept: Array
    ) -> ResidualSums:
        """Return the reduction that refines a solution of least squares, see `ResidualSums`."""
        return ResidualSums(scaling, basis, coef, intercept, self._least_squares, self.class_weight)

    def updates(
        self,
        dtype: str,
        batch_size: int,
        optimizer: Optimizer,
        schedule: Schedule,
        eta0: float,
        horizon: float,
    ) -> LinearUpdates:
        """Return the scan that updates parameters by batches of `batch_size` rows."""
        return LinearUpdates(self, dtype, batch_size, optimizer, schedule, eta0, horizon)

    def predictor(self, theta: Array) -> LinearPredictor:
        """Return the predictor of `theta`, in the data's units."""
        coef, intercept = self.scaling.to_data_units(theta)
        if self.loss.shift_invariant:
            # A constant added to all classes changes no prediction; scikit-learn's sum to zero.
            intercept = intercept - intercept.mean()
            if self.penalty == NO_PENALTY:
                coef = coef - coef.mean(axis=0)
        if not self.fit_intercept and not self.standardize:
            intercept = np.zeros_like(intercept)
        return LinearPredictor(coef, intercept)

    @property
    def needs_moments(self) -> bool:
        """True: the scaling of the columns conditions every solver."""
        return True

    def scaled_by(self, moments: ColumnMoments) -> Self:
        """Return the problem of columns scaled by their moments, to condition or standardize."""
        mean, deviation, standard = moments.mean, np.sqrt(moments.variance), None
        # Without an intercept no parameter absorbs a shift; a `StandardScaler` shifts all the same.
        if self.channels is None:
            centre = self.fit_intercept or self.standardize
            scaling = Scaling.of(mean, deviation, centre=centre)
        else:
            joint = moments.by_channel(self.channels)
            standard = Scaling.of(joint.mean, np.sqrt(joint.variance), centre=True)
            scaling = Scaling.of(
                mean,
                deviation,
                centre=self.fit_intercept,
                origin=standard.mean,
                otherwise=standard.scale,
            )
        problem = replace(self, scaling=scaling, standard=standard)
        widening = problem.widening
        return replace(problem, scaling=scaling.widened(widening)) if np.any(widening) else problem

    @property
    def widening(self) -> Array | float:
        """The variance by which scales are widened for the penalty, of each column or of all.

        It is 0 if the penalty is on the weights of scaled columns as they are, and if the loss has
        no curvature to compare the penalty with.
        """
        steepness = self.steepness
        if steepness is None or (self.standardize and self.standard is None):
            return 0.0
        widening = self.penalty.l2 / (steepness * self.total_weight)
        return widening if self.standard is None else widening * self.standard.scale**2

    def permuted(self, params: Array, order: NDArray[np.intp]) -> tuple[Self, Array]:
        """Return the problem and parameters for columns reordered as `X[:, order]`."""
        standard = None if self.standard is None else self.standard.permuted(order)
        scaling = self.scaling.permuted(order)
        return replace(self, scaling=scaling, standard=standard), permuted(params, order)

    def require_predictor(self, predictor: Predictor) -> None:
        """Raise `ValueError` unless the predictor has as many coefficients as the problem."""
        shape = (self.n_predicted, self.n_features)
        if not isinstance(predictor, LinearPredictor) or predictor.coef.shape != shape:
            found = getattr(predictor, "coef", np.empty(0)).shape
            raise ValueError(
                f"the parameters to start from are of shape {found}, and these data need {shape}; "
                "start afresh"
            )

    def automatic_rate(self, optimizer: Optimizer) -> None:
        """Return None: solvers find the learning rate "auto" by the data."""
        del optimizer

    @property
    def n_predicted(self) -> int:
        """Number of outputs that predict y: all outputs, or the first ones."""
        return self.n_outputs

    @property
    def target_sums(self) -> TargetSums | None:
        """The reduction for moments of y, which a run needs at its start; None if unneeded."""
        return TargetSums(self.loss, self.n_outputs) if self.loss.link == "log" else None

    def with_targets(self, mean: Array, deviation: Array) -> Self:
        """Return the problem, given mean and standard deviation of y, or estimates."""
        del deviation
        return replace(self, target_mean=mean)

    def params_of(self, predictor: LinearPredictor) -> Array:
        """Convert a predictor in the data's units to `theta`, the parameters of scaled columns."""
        return self.from_data_units(predictor.coef, predictor.intercept)

    def direction(self, now: Evaluation, hessian: Array) -> Array:
        """Return Newton's step, to the minimum of the quadratic model, of the problem's shape.

        Each block of the Hessian is solved by itself. A vector that is added to all classes changes
        no prediction of a softmax. Along that direction Hessian and gradient are zero, so any
        curvature there leaves the step unchanged. Other singular directions are left out, which
        gives the step of least norm.

        Parameters
        ----------
        now : Evaluation
            The objective and its gradient at the current parameters.
        hessian : float64 array of the shape `hessian_shape`
            The Hessian of the objective, or an estimate of it.
        """
        gradients = now.gradient.reshape(hessian.shape[:2])
        steps = [self._block_direction(*each) for each in zip(gradients, hessian, strict=True)]
        return np.reshape(steps, self.shape)

    def _block_direction(self, gradient: Array, hessian: Array) -> Array:
        """Return Newton's step for the parameters of one block of the Hessian, (size,)."""
        hessian = hessian.copy()
        if self.loss.shift_invariant:
            typical = np.trace(hessian) / len(hessian)
            outputs, columns = self.shape
            blocks = hessian.reshape(outputs, columns, outputs, columns)
            for column in np.flatnonzero(self.theta_penalty.l2 == 0.0):
                blocks[:, column, :, column] += typical / outputs
        return newton_step(gradient, hessian, is_definite=self.penalty.l2 > 0)

    def relative_curvature(self, sums: Sums) -> Array:
        """Return the curvature by each column's weight over that by the constant, (features,).

        At the `initial` parameters, that is the second moment of the scaled column.
        """
        outputs, columns = self.shape
        curvature = np.zeros(columns)
        for (a, b), packed in zip(self.loss.output_pairs(outputs), sums["hessian"], strict=True):
            if a == b:
                curvature += packed_diagonal(packed, columns)
        share: Array = curvature[:-1] / max(float(curvature[-1]), np.finfo(np.float64).tiny)
        return share

    def with_missing_curvature(self, curvature: Array, rows: int) -> "LinearProblem":
        """Return a sample's problem with extra penalties on columns that lack outliers.

        A column lacks outliers if the sample has less than half of its variance. The missing rows
        have at most the greatest curvature of the loss, which becomes the extra penalty; without a
        bound of the curvature, its `steepness` does.

        Parameters
        ----------
        curvature : float64 array (features,)
            The `relative_curvature` of the sample, at the `initial` parameters.
        rows : int
            Rows of the sample.
        """
        bound = self.steepness
        if bound is None:
            return self
        weight = self.total_weight * rows / self.n_rows
        expected = 1.0 - self.widening / self.scaling.scale**2
        missing = np.where(curvature < _MIN_SHARE * expected, expected - curvature, 0.0)
        if not missing.any():
            return self
        return replace(self, extra_l2=bound * weight * missing)

    def with_slight_penalty(self, rows: int) -> "LinearProblem":
        """Return a sample's problem with a slight extra penalty, if it has none otherwise.

        Without one, the weight of a rare category has no end if the sample has rows of one class
        there. Other rows of that category then have no curvature to come back by.
        """
        bound = self.steepness
        if self.penalty.l2 > 0.0 or bound is None:
            return self
        slight = _SLIGHT * bound * self.total_weight * rows / self.n_rows
        known = np.zeros(self.n_features) if self.extra_l2 is None else self.extra_l2
        return replace(self, extra_l2=np.maximum(known, slight))


def newton_step(gradient: Array, hessian: Array, *, is_definite: bool) -> Array:
    """Return Newton's step: minus the inverse of the Hessian times the gradient.

    Singular directions are left out, which gives the step of least norm. A matrix that should be
    definite is tried without them first.
    """
    if is_definite:
        try:
            # Succeeds only where the matrix is positive definite to working precision.
            np.linalg.cholesky(hessian)
            return np.asarray(-np.linalg.solve(hessian, gradient), np.float64)
        except np.linalg.LinAlgError:
            pass
    values, vectors = np.linalg.eigh(hessian)
    kept = values > values[-1] * len(values) * 10 * np.finfo(np.float64).eps
    step: Array = -(vectors[:, kept] @ ((vectors[:, kept].T @ gradient) / values[kept]))
    return step
