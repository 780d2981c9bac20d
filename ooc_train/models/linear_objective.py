"""The objective of models whose prediction is linear in the features: `z = X @ W + b` under a loss.

The objective is `sum_i weight_i loss(y_i, z_i)` plus a penalty on W in the data's units, with the
intercept free: scikit-learn's for ridge (`l2 = alpha`) and logistic regression (`l2 = 1 / C`).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ooc_train.core.sums import Array, Sums, Value
from ooc_train.models.loss_sums import LossSums
from ooc_train.models.problem import Evaluation
from ooc_train.objective.loss import Loss
from ooc_train.objective.penalty import NO_PENALTY, ColumnPenalty, Penalty
from ooc_train.objective.scaling import Scaling

_COMPILED_WORK = 2**33
"""Multiplications of a pass, from which on its Hessian is compiled: below, a pass of BLAS takes a
few tenths of a second, and no process has to hold kernels, nor a first run to compile them."""


@dataclass(frozen=True, eq=False)
class LinearObjective(Value):
    """A linear model, and what has to be known of the data to fit it.

    Attributes
    ----------
    loss : the loss
    n_outputs : linear predictors: targets, or classes where there are more than two
    n_rows : rows of the data
    total_weight : sum of the rows' weights, class weights included
    scaling : of the columns
    penalty : on the weights in the data's units, beside the sum of losses
    fit_intercept : whether there is a free constant
    standardize : whether the penalty is on the weights of scaled columns instead
    class_weight : float64 array (classes,) or None
    restraint : further l2 penalty by scaled column, float64 array (features,), or None
    """

    loss: Loss
    n_outputs: int
    n_rows: int
    total_weight: float
    scaling: Scaling
    penalty: Penalty = NO_PENALTY
    fit_intercept: bool = True
    standardize: bool = False
    class_weight: Array | None = None
    restraint: Array | None = None

    @property
    def n_features(self) -> int:
        """Columns of the data."""
        return self.scaling.n_features

    @property
    def n_parameters(self) -> int:
        """Entries of `theta`."""
        return self.n_outputs * (self.n_features + 1)

    @cached_property
    def theta_penalty(self) -> ColumnPenalty:
        """The penalty on the entries of `theta`: strengths (features + 1,), 0 for the constant."""
        scale = np.ones(self.n_features) if self.standardize else self.scaling.scale
        penalty = self.penalty.by_column(scale)
        l2 = penalty.l2 if self.restraint is None else penalty.l2 + self.restraint
        return ColumnPenalty(np.append(penalty.l1, 0.0), np.append(l2, 0.0))

    @property
    def compiled_hessian(self) -> bool:
        """Whether so many rows and parameters are worth loading compiled loops for a Hessian."""
        return self.n_rows * self.n_parameters**2 >= _COMPILED_WORK

    @property
    def shape(self) -> tuple[int, int]:
        """Of `theta`: outputs, and features with the constant last."""
        return self.n_outputs, self.n_features + 1

    @property
    def bound(self) -> float | None:
        """Upper bound of the loss's curvature by a predictor."""
        return self.loss.bound

    def initial(self, seed: int = 0) -> Array:
        """Return the `theta` of a model that knows nothing: zeros, whatever the seed."""
        del seed
        return np.zeros(self.shape)

    def from_data_units(self, coef: Array, intercept: Array) -> Array:
        """Return the `theta` of coefficients and intercepts in the data's units.

        Without an intercept, the constant of `theta` is zero, whatever is given.
        """
        theta = self.scaling.from_data_units(coef, intercept)
        if not self.fit_intercept:
            theta[..., -1] = 0.0
        return theta

    def reduction(self, theta: Array, *, gradients: int = 1, hessian: bool = False) -> LossSums:
        """Return the sums at the models `theta` (models, outputs, features + 1)."""
        return LossSums(
            self.loss,
            self.scaling,
            theta,
            gradients,
            hessian,
            self.class_weight,
            self.compiled_hessian,
        )

    def objectives(self, sums: Sums, theta: Array) -> Array:
        """Return the objective of each model of a pass, (models,)."""
        objectives: Array = sums["loss"] + self.theta_penalty.values(theta)
        return objectives

    def gradient(self, sums: Sums, model: int = 0) -> Array:
        """Return the gradient of the sum of losses by the `theta` of one of a pass's models."""
        by_coef, by_intercept = sums["gradient"][model][:, :-1], sums["gradient"][model][:, -1]
        return self.scaling.gradient_from_data_units(by_coef, by_intercept)

    def mean_gradient(self, sums: Sums, theta: Array) -> Array:
        """Return the gradient of the mean objective at `theta`, of a sample of rows or of all."""
        gradient = self.gradient(sums) / float(sums["weight"])
        gradient += self.theta_penalty.gradient(theta) / self.total_weight
        if not self.fit_intercept:
            gradient[:, -1] = 0.0
        return gradient

    def read(self, sums: Sums, theta: Array, model: int = 0) -> Evaluation:
        """Return what a pass says of one of its models."""
        gradient = self.gradient(sums, model) + self.theta_penalty.gradient(theta[model])
        hessian = None
        if "hessian" in sums and model == 0:
            hessian = sums["hessian"] + np.diag(np.tile(self.theta_penalty.l2, self.n_outputs))
        if not self.fit_intercept:
            gradient[:, -1] = 0.0
            if hessian is not None:
                free = np.arange(self.n_parameters).reshape(self.n_outputs, -1)[:, -1]
                hessian[free, :] = hessian[:, free] = 0.0
                hessian[free, free] = 1.0
        return Evaluation(
            theta[model],
            float(sums["loss"][model] / sums["weight"]),
            float(self.objectives(sums, theta)[model]),
            gradient,
            hessian,
        )

    def penalty_value(self, theta: Array) -> float:
        """Return the penalty on the parameters, beside the sum of losses."""
        return self.theta_penalty.value(theta)
