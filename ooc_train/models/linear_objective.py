"""The objective of linear models: a loss of `z = X @ W + b`, and a penalty on W.

The objective is `sum_i weight_i loss(y_i, z_i)` plus the penalty, in the data's units and without
the intercept b. It is scikit-learn's for ridge (`l2 = alpha`) and logistic regression
(`l2 = 1 / C`).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from ooc_train.core.packing import unpacked
from ooc_train.core.sums import Array, Sums, Value
from ooc_train.models.gram_sums import GramSums
from ooc_train.models.linear_clipping import LinearClipping
from ooc_train.models.loss_sums import LossSums
from ooc_train.models.problem import Evaluation
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.squared import Squared
from ooc_train.objective.penalty import NO_PENALTY, ColumnPenalty, Penalty
from ooc_train.objective.scaling import Scaling
from ooc_train.optimizers.optimizer import Optimizer

_COMPILED_WORK = 2**33
"""Multiplications of a pass from which on compiled kernels add up its Hessian or Gram matrix. A
smaller pass takes BLAS a few tenths of a second, and no process has to load kernels."""

_NARROW = 128
"""Columns up to which BLAS adds up a Gram matrix of any number of rows: kernels would take a tenth
less time, and each process 25 MiB to load them. A Hessian's pass needs kernels anyway."""


@dataclass(frozen=True, eq=False)
class LinearObjective(Value):
    """The objective of a linear model, by scaled parameters `theta` (outputs, features + 1).

    Attributes
    ----------
    n_outputs : int
        Number of linear predictors of a row: one for each target, or for each of 3 or more classes.
    total_weight : float
        Sum of the rows' weights, class weights included.
    penalty : Penalty
        Penalty on the weights in the data's units, added to the sum of losses.
    standardize : bool
        Whether the penalty is on the weights of standardised columns instead.
    class_weight : float64 array (classes,) or None
        Factor of a row's weight by the code of its class.
    channels : int or None
        Number of channels of images whose moments standardise columns; None for moments of columns.
    standard : Scaling or None
        The scaling that standardises columns by channels, once moments are known.
    own_class_weight : bool
        Whether class weights hold in the output of a row's own class alone (one against the rest).
    extra_l2 : float64 array (features,) or None
        Further l2 penalty on the weight of each scaled column.
    target_mean : float64 array (outputs,) or None
        Mean of y, or an estimate, if the loss has a log link.
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
    extra_l2: Array | None = None
    target_mean: Array | None = None
    own_class_weight: bool = False
    channels: int | None = None
    standard: Scaling | None = None

    own_optimizer: ClassVar[Optimizer | None] = None

    @property
    def n_features(self) -> int:
        """Number of columns of the data."""
        return self.scaling.n_features

    @property
    def n_parameters(self) -> int:
        """Number of entries of `theta`."""
        return self.n_outputs * (self.n_features + 1)

    @cached_property
    def theta_penalty(self) -> ColumnPenalty:
        """The penalty on the entries of `theta`: strengths (features + 1,), 0 for the constant.

        The l2 strengths are (outputs, features + 1) if they differ by output.
        """
        penalty = self.penalty.by_column(self.scaling.scale / self.penalised_scale)
        l2 = penalty.l2 if self.extra_l2 is None else penalty.l2 + self.extra_l2
        constant = np.zeros((*l2.shape[:-1], 1))
        return ColumnPenalty(np.append(penalty.l1, 0.0), np.concatenate([l2, constant], axis=-1))

    @property
    def penalised_scale(self) -> Array:
        """The scale of the columns whose weights are penalised, (features,): 1 for the data's."""
        if not self.standardize:
            return np.ones(self.n_features)
        return self.scaling.scale if self.standard is None else self.standard.scale

    @property
    def compiled_hessian(self) -> bool:
        """Whether compiled kernels add up the Hessian; BLAS does for small data."""
        return self.n_rows * math.prod(self.hessian_shape) >= _COMPILED_WORK

    def gram_sums(self) -> GramSums:
        """Return the reduction of products of all pairs of scaled columns and outputs."""
        columns = self.n_features + 1 + self.n_outputs
        compiled = columns > _NARROW and self.n_rows * columns**2 >= _COMPILED_WORK
        return GramSums(
            self.scaling, self.n_outputs, compiled, self._least_squares, self.class_weight
        )

    @property
    def _least_squares(self) -> Squared:
        if not isinstance(self.loss, Squared):
            raise TypeError(f"the {self.loss.name} loss is not that of least squares")
        return self.loss

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of `theta`: (outputs, features + 1), with the constant last."""
        return self.n_outputs, self.n_features + 1

    @property
    def row_factors(self) -> Array | None:
        """Class weights that hold in all outputs, by class code; None if there are none."""
        return None if self.own_class_weight else self.class_weight

    @property
    def own_factors(self) -> Array:
        """Class weights that hold in the output of a row's own class alone, (outputs,)."""
        if self.class_weight is None or not self.own_class_weight:
            return np.ones(self.n_outputs)
        return self.class_weight

    @property
    def hessian_shape(self) -> tuple[int, int, int]:
        """Shape of the Hessian, as (diagonal blocks, block size, block size)."""
        return self.loss.hessian_shape(*self.shape)

    @property
    def bound(self) -> float | None:
        """Upper bound of the second derivative of the loss by a predictor, or None."""
        return self.loss.bound

    @property
    def steepness(self) -> float | None:
        """Typical second derivative of the loss by a predictor; None if it is unknown.

        It is `bound` if there is one, else the second derivative for the best constant prediction
        at the mean of y.
        """
        if self.bound is not None or self.target_mean is None or self.loss.curvature is None:
            return self.bound
        mean = self.target_mean[self.target_mean > 0.0]
        return float(self.loss.curvature(mean, np.log(mean)).mean()) if len(mean) else None

    def initial(self, seed: int = 0) -> Array:
        """Return initial parameters: zeros, or the best constant if a log link's mean is known.

        The seed has no effect.
        """
        del seed
        theta = np.zeros(self.shape)
        if self.target_mean is not None and self.fit_intercept:
            positive = self.target_mean > 0.0
            theta[positive, -1] = np.log(self.target_mean[positive])
        return theta

    def from_data_units(self, coef: Array, intercept: Array) -> Array:
        """Return the `theta` of coefficients and intercepts in the data's units.

        Without `fit_intercept`, the constant of `theta` is zero.
        """
        theta = self.scaling.from_data_units(coef, intercept)
        if not self.fit_intercept:
            theta[..., -1] = 0.0
        return theta

    def reduction(
        self,
        theta: Array,
        *,
        gradients: int = 1,
        hessian: bool = False,
        by_output: bool = False,
    ) -> LossSums:
        """Return the reduction at the models `theta` (models, outputs, features + 1).

        With `by_output`, the Hessian is the one that `output_hessians` reads.
        """
        return LossSums(
            self.loss,
            self.scaling,
            theta,
            gradients,
            hessian,
            self.class_weight,
            self.compiled_hessian,
            self.own_class_weight,
            by_output,
        )

    def objectives(self, sums: Sums, theta: Array) -> Array:
        """Return the objective at each of the models `theta`, (models,), from a pass's sums."""
        objectives: Array = sums["loss"] + self.theta_penalty.values(theta)
        return objectives

    def gradient(self, sums: Sums, model: int = 0) -> Array:
        """Return the gradient of the sum of losses by `theta`, for one model of a pass."""
        by_coef, by_intercept = sums["gradient"][model][:, :-1], sums["gradient"][model][:, -1]
        return self.scaling.gradient_from_data_units(by_coef, by_intercept)

    def mean_gradient(self, sums: Sums, theta: Array) -> Array:
        """Return the mean objective's gradient without l1, from sums over all or some rows.

        `sums` are those at `theta`.
        """
        gradient = self.gradient(sums) / float(sums["weight"])
        gradient += self.theta_penalty.gradient(theta) / self.total_weight
        if not self.fit_intercept:
            gradient[:, -1] = 0.0
        return gradient

    def least_subgradient(self, gradient: Array, theta: Array) -> Array:
        """Return the mean objective's subgradient of least norm, from `mean_gradient`."""
        return self.theta_penalty.least_subgradient(gradient, theta, 1.0 / self.total_weight)

    def read(self, sums: Sums, theta: Array, model: int = 0) -> Evaluation:
        """Return the evaluation of one model, from the sums of a pass."""
        gradient = self.gradient(sums, model) + self.theta_penalty.gradient(theta[model])
        if not self.fit_intercept:
            gradient[:, -1] = 0.0
        hessian = None
        if "hessian" in sums and model == 0:
            pairs = self.loss.output_pairs(self.n_outputs)
            hessian = self._hessian(sums["hessian"], pairs, self.hessian_shape)
        return Evaluation(
            theta[model],
            float(sums["loss"][model] / sums["weight"]),
            float(self.objectives(sums, theta)[model]),
            gradient,
            hessian,
        )

    @property
    def output_hessians_shape(self) -> tuple[int, int, int]:
        """Shape of the `output_hessians`: (outputs, columns, columns)."""
        outputs, columns = self.shape
        return outputs, columns, columns

    def output_hessians(self, sums: Sums) -> Array:
        """Return the Hessian by the parameters of each output alone, (outputs, columns, columns).

        Sums over a part of the rows are scaled up to all.
        """
        share = self.total_weight / float(sums["weight"])
        pairs = [(k, k) for k in range(self.n_outputs)]
        return self._hessian(sums["hessian"], pairs, self.output_hessians_shape, share)

    def _hessian(
        self,
        packed: Array,
        pairs: list[tuple[int, int]],
        shape: tuple[int, int, int],
        factor: float = 1.0,
    ) -> Array:
        """Return the objective's Hessian in blocks, from packed sums times a factor.

        The packed sums are those of pairs of outputs.
        """
        outputs, columns = self.shape
        blocks, size, _ = shape
        within, diagonal = outputs // blocks, np.arange(size)
        hessian = np.zeros((blocks, within, columns, within, columns))
        for (a, b), sums in zip(pairs, packed, strict=True):
            (block, i), j = divmod(a, within), b % within
            hessian[block, i, :, j] = hessian[block, j, :, i] = unpacked(sums, columns)
        hessian *= factor
        whole = hessian.reshape(shape)
        l2 = np.broadcast_to(self.theta_penalty.l2, self.shape)
        whole[:, diagonal, diagonal] += l2.reshape(blocks, size)
        if not self.fit_intercept:
            constant = diagonal[self.n_features :: columns]
            whole[:, constant, :] = whole[:, :, constant] = 0.0
            whole[:, constant, constant] = 1.0
        return whole

    def penalty_gradient(self, theta: Array) -> Array:
        """Return the gradient of the penalty without l1, in units of the sum of losses."""
        return self.theta_penalty.gradient(theta)

    def clipping(self, dtype: str, batch_size: int, max_norm: float) -> LinearClipping:
        """Return the sums of the rows' gradients, each scaled down to a norm.

        Raises
        ------
        ValueError
            If columns are scaled by more than one factor of all.
        """
        del dtype, batch_size
        inverse, features = self.scaling.inverse, self.n_features
        if self.scaling.mean.any() or (inverse != inverse[0]).any():
            raise ValueError("gradients of rows are clipped of columns with one factor of all")
        factor = float(inverse[0])
        return LinearClipping(
            self.loss, self.n_outputs, features, self.fit_intercept, factor, max_norm
        )

    def without_frozen(self, gradient: Array) -> None:
        """Set derivatives by parameters that are not learned to 0, in place."""
        if not self.fit_intercept:
            gradient[:, -1] = 0.0

    def penalty_value(self, theta: Array) -> float:
        """Return the penalty on the parameters, in units of the sum of losses."""
        return self.theta_penalty.value(theta)
