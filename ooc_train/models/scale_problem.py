"""Linear models whose residuals have a scale that is fitted too.

The scale is the constant of a second output, whose weights are zero. So every sum is that of a loss
by two outputs, and solvers see one array of parameters.

Near the optimum, Newton's method needs few steps. Far from it, a step would make the scale
negative: for rows that stay on their sides of epsilon, the objective is ``c s + b / s + d`` along
the scale s, once the weights are the best ones for s. `direction` steps to the minimum of that
function, ``sqrt(b / c)``, and to the weights that are best there. Its first order is Newton's step.
"""

import math
from dataclasses import dataclass, fields, replace

import numpy as np

from ooc_train.core.sums import Array, Sums
from ooc_train.models.linear import LinearProblem, newton_step
from ooc_train.models.predictor import LinearPredictor, ScaledPredictor
from ooc_train.models.problem import Capability, Evaluation
from ooc_train.models.target_sums import TargetSums

_LEAST, _ROUNDING = 1e-10, 1e3 * float(np.finfo(np.float64).eps)
"""The least scale, as shares of the deviation of y and of its mean: a fit is perfect then."""

_LEAST_DEVIATION = float(np.sqrt(np.finfo(np.float64).eps))
"""The least deviation that sums of squares show, as a share of the mean."""

_SHRINK, _GROW = 0.1, 2.0
"""Limits of the factor by which a step changes the scale: rows change sides of epsilon."""


@dataclass(frozen=True, eq=False)
class ScaleProblem(LinearProblem):
    """The problem of a linear model of one output, and of the scale of its residuals.

    Attributes
    ----------
    deviation : float
        Standard deviation of y, or an estimate: the initial scale.
    """

    deviation: float = 1.0

    @classmethod
    def of(cls, problem: LinearProblem) -> "ScaleProblem":
        """Return a scale problem with the settings of a problem of a single output."""
        settings = {each.name: getattr(problem, each.name) for each in fields(problem)}
        return cls(**settings | {"n_outputs": 2})

    @property
    def can(self) -> frozenset[Capability]:
        """Capabilities of the problem: no updates, which would move the scale too far.

        Nor can it add up Hessian blocks: the Hessian couples the scale and the weights.
        """
        return super().can - {"updates", "blocks"}

    @property
    def bound(self) -> float:
        """Curvature at the initial scale, which sets step sizes; there is no true bound."""
        return 2.0 / self.deviation

    @property
    def n_predicted(self) -> int:
        """Number of outputs that predict y."""
        return 1

    @property
    def target_sums(self) -> TargetSums:
        """The reduction for moments of y, which a run needs at its start."""
        return TargetSums(self.loss, 1, squares=True)

    def with_targets(self, mean: Array, deviation: Array) -> "ScaleProblem":
        """Return the problem, given mean and standard deviation of y, (1,), or estimates."""
        least = _LEAST_DEVIATION * abs(float(mean[0])) or 1.0
        return replace(self, target_mean=mean, deviation=max(float(deviation[0]), least))

    def initial(self, seed: int = 0) -> Array:
        """Return parameters of the mean of y and its deviation; the seed has no effect."""
        del seed
        theta = np.zeros(self.shape)
        if self.fit_intercept and self.target_mean is not None:
            theta[0, -1] = self.target_mean[0]
        theta[1, -1] = self.deviation
        return theta

    def params_of(self, predictor: LinearPredictor) -> Array:
        """Convert a predictor in the data's units to `theta`, the parameters of scaled columns."""
        theta = self.initial()
        theta[:1] = self.from_data_units(predictor.coef, predictor.intercept)
        if isinstance(predictor, ScaledPredictor):
            theta[1, -1] = max(predictor.scale[0], self._least)
        return theta

    @property
    def _least(self) -> float:
        mean = 0.0 if self.target_mean is None else abs(float(self.target_mean[0]))
        return max(_LEAST * self.deviation, _ROUNDING * mean)

    def _is_least(self, scale: float, slope: float) -> bool:
        """Return whether the scale is the least allowed, and a smaller one would be better."""
        return slope * scale >= 0.0 and abs(scale) <= (1.0 + _ROUNDING) * self._least

    def read(self, sums: Sums, theta: Array, model: int = 0) -> Evaluation:
        """Return the evaluation of one model of a pass, by the parameters that are free to move."""
        # Without an intercept, the constant of the scale is free all the same.
        now = LinearProblem.read(replace(self, fit_intercept=True), sums, theta, model)
        fixed = np.zeros(self.shape, bool)
        fixed[0, -1] = not self.fit_intercept
        fixed[1, :-1] = True
        gradient = np.where(fixed, 0.0, now.gradient)
        if self._is_least(theta[model][1, -1], gradient[1, -1]):
            gradient[1, -1] = 0.0
        hessian = now.hessian
        if hessian is not None:
            square, held = hessian.reshape(self.n_parameters, -1), np.flatnonzero(fixed)
            square[held, :] = square[:, held] = 0.0
            square[held, held] = 1.0
        return replace(now, gradient=gradient, hessian=hessian)

    def direction(self, now: Evaluation, hessian: Array) -> Array:
        """Return the step to the optimum for rows that stay on their sides of epsilon."""
        columns = self.n_features + 1
        hessian = hessian.reshape(self.n_parameters, -1)
        inner, cross = hessian[:columns, :columns], hessian[:columns, -1]
        gradient, scale = now.gradient[0], float(now.params[1, -1])
        l2 = self.theta_penalty.l2
        has_penalty = bool(l2.any())
        # The derivatives by the scale, once the weights follow it.
        slope = float(
            now.gradient[1, -1] + cross @ newton_step(gradient, inner, is_definite=has_penalty)
        )
        bend = float(hessian[-1, -1] + cross @ newton_step(cross, inner, is_definite=has_penalty))
        ratio = 1.0
        if slope != 0.0 and not self._is_least(scale, now.gradient[1, -1]):
            rising = max(bend, 0.0) * scale
            falling = rising + 2.0 * slope
            ratio = math.sqrt(rising / falling) if falling > 0.0 else _GROW
            ratio = min(max(ratio, _SHRINK, self._least / scale), _GROW)
        penalty = np.diag(l2)
        step = np.zeros(self.shape)
        step[0] = newton_step(
            gradient + (1.0 - 1.0 / ratio) * scale * cross,
            (inner - penalty) / ratio + penalty,
            is_definite=has_penalty,
        )
        step[1, -1] = (ratio - 1.0) * scale
        return step

    def predictor(self, theta: Array) -> ScaledPredictor:
        """Return the predictor of `theta`, in the data's units."""
        plain = super().predictor(theta)
        scale = np.abs(theta[1:, -1])
        return ScaledPredictor(plain.coef[:1], plain.intercept[:1], scale)
