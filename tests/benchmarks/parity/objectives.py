"""What each estimator minimises, written once in NumPy.

Nothing here is of `ooc_train`, so that a fault there cannot hide. Losses are those of a row, with
slope and curvature by z.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp, xlogy

from tests.benchmarks.parity.optima import Floats, Quadratic, hinge_optimum, newton

Derivatives = tuple[Floats, Floats, Floats]


def _squared(y: Floats, z: Floats) -> Derivatives:
    return 0.5 * (y - z) ** 2, z - y, np.ones_like(z)


def _logistic(y: Floats, z: Floats) -> Derivatives:
    p = expit(z)
    return np.logaddexp(0.0, z) - y * z, p - y, p * (1.0 - p)


def _squared_hinge(y: Floats, z: Floats) -> Derivatives:
    short = np.maximum(1.0 - y * z, 0.0)
    return short**2, -2.0 * y * short, np.where(short > 0.0, 2.0, 0.0)


def _hinge(y: Floats, z: Floats) -> Derivatives:
    return np.maximum(1.0 - y * z, 0.0), -y * (y * z < 1.0), np.zeros_like(z)


def _poisson(y: Floats, z: Floats) -> Derivatives:
    mean = np.exp(z)
    return xlogy(y, y) - y * z - y + mean, mean - y, mean


def _gamma(y: Floats, z: Floats) -> Derivatives:
    ratio = y * np.exp(-z)
    return ratio - 1.0 - np.log(y) + z, 1.0 - ratio, ratio


def _tweedie(power: float) -> Callable[[Floats, Floats], Derivatives]:
    def loss(y: Floats, z: Floats) -> Derivatives:
        one, two = 1.0 - power, 2.0 - power
        up, down = np.exp(two * z), y * np.exp(one * z)
        return y**two / (one * two) - down / one + up / two, up - down, two * up - one * down

    return loss


def _pinball(quantile: float) -> Callable[[Floats, Floats], Derivatives]:
    def loss(y: Floats, z: Floats) -> Derivatives:
        share = np.where(y > z, quantile, quantile - 1.0)
        return share * (y - z), -share, np.zeros_like(z)

    return loss


LOSSES: dict[str, Callable[[Floats, Floats], Derivatives]] = {
    "squared": _squared,
    "logistic": _logistic,
    "squared hinge": _squared_hinge,
    "hinge": _hinge,
    "poisson": _poisson,
    "gamma": _gamma,
    "tweedie 1.5": _tweedie(1.5),
    "pinball 0.8": _pinball(0.8),
}


@dataclass(frozen=True)
class Solution:
    """Coefficients (outputs, features), intercepts, and the scale of Huber's residuals."""

    coef: Floats
    intercept: Floats
    scale: float = 1.0

    @classmethod
    def of(cls, estimator: Any) -> "Solution":
        """Return that of a fitted estimator, ours or scikit-learn's."""
        coef = np.atleast_2d(np.asarray(estimator.coef_, np.float64))
        intercept = np.broadcast_to(np.asarray(estimator.intercept_, np.float64), coef.shape[:1])
        return cls(coef, intercept, float(getattr(estimator, "scale_", 1.0)))

    def outputs(self) -> list["Solution"]:
        """Return each output by itself."""
        return [
            Solution(self.coef[k : k + 1], self.intercept[k : k + 1])
            for k in range(len(self.intercept))
        ]

    def distance(self, other: "Solution") -> float:
        """Return the largest difference of a coefficient, as a share of the largest."""
        most = np.abs(other.coef).max()
        return float(np.abs(self.coef - other.coef).max() / (most if most > 0.0 else 1.0))


@dataclass(frozen=True)
class Objective:
    """The sum (or the mean) of the weighted losses, plus `l1 |w| + l2 / 2 |w|^2`.

    `loss` names one of `LOSSES`, "softmax" of classes, or "huber", whose scale is fitted too.
    """

    loss: str
    l1: float = 0.0
    l2: float = 0.0
    mean: bool = False

    def times(self, strength: float) -> "Objective":
        """Return the objective with so many times the penalty."""
        return replace(self, l1=strength * self.l1, l2=strength * self.l2)

    def targets(self, y: NDArray[Any]) -> Floats:
        """Return what z is compared with, shape (rows, outputs)."""
        if self.loss not in ("logistic", "softmax", "hinge", "squared hinge", "squared"):
            return np.asarray(y, np.float64)[:, None]
        if self.loss == "squared" and np.issubdtype(y.dtype, np.floating):
            return y[:, None]
        classes, codes = np.unique(y, return_inverse=True)
        ones = np.asarray(codes[:, None] == np.arange(len(classes)), np.float64)
        ones = ones[:, 1:] if len(classes) == 2 else ones
        return ones if self.loss in ("logistic", "softmax") else 2.0 * ones - 1.0

    def _factors(self, weight: Floats | None, n_rows: int) -> Floats:
        factors = np.ones(n_rows) if weight is None else weight
        return factors / factors.sum() if self.mean else factors

    def value(self, X: Floats, y: NDArray[Any], weight: Floats | None, at: Solution) -> float:
        """Return the objective."""
        targets, z = self.targets(y), X @ at.coef.T + at.intercept
        if self.loss == "softmax":
            losses = logsumexp(z, axis=1) - (targets * z).sum(axis=1)
        elif self.loss == "huber":
            losses = _huber(targets[:, 0] - z[:, 0], at.scale)[0]
        else:
            losses = LOSSES[self.loss](targets, z)[0].sum(axis=1)
        penalty = self.l1 * np.abs(at.coef).sum() + 0.5 * self.l2 * (at.coef**2).sum()
        return float(self._factors(weight, len(X)) @ losses + penalty)

    def optimum(
        self, X: Floats, y: NDArray[Any], weight: Floats | None, start: Solution
    ) -> Solution:
        """Return the optimum of each output by itself, by Newton's method with all curvature."""
        factors, targets = self._factors(weight, len(X)), self.targets(y)
        A = np.column_stack([X, np.ones(len(X))])
        n = X.shape[1]
        l1 = np.append(np.full(n, self.l1), 0.0)
        if self.loss == "huber":
            at = np.concatenate([start.coef[0], start.intercept, [start.scale]])
            at = newton(
                lambda p: self._by_scale(A, targets[:, 0], factors, p), at, np.append(l1, 0)
            )
            return Solution(at[None, :n], at[n : n + 1], float(at[-1]))
        if self.loss == "hinge":
            coef, intercept = hinge_optimum(X, targets[:, 0], factors / self.l2)
            return Solution(coef[None], np.array([intercept]))
        found = np.array([
            newton(
                lambda p, target=target: self._by_rows(A, target, factors, p),  # type: ignore[misc]
                np.append(coef, intercept),
                l1,
            )
            for target, coef, intercept in zip(
                targets.T, start.coef, start.intercept, strict=True
            )
        ])  # fmt: skip
        return Solution(found[:, :n], found[:, n])

    def _by_rows(self, A: Floats, target: Floats, factors: Floats, params: Floats) -> Quadratic:
        value, slope, curvature = LOSSES[self.loss](target, A @ params)
        ridge = np.append(np.full(len(params) - 1, self.l2), 0.0)
        return (
            float(factors @ value + 0.5 * ridge @ params**2),
            A.T @ (factors * slope) + ridge * params,
            (A.T * (factors * curvature)) @ A + np.diag(ridge),
        )

    def _by_scale(self, A: Floats, target: Floats, factors: Floats, params: Floats) -> Quadratic:
        inner, scale = params[:-1], float(params[-1])
        ridge = np.append(np.full(len(inner) - 1, self.l2), 0.0)
        value, by_z, by_scale, zz, zs, ss = _huber(target - A @ inner, scale)
        hessian = np.empty((len(params), len(params)))
        hessian[:-1, :-1] = (A.T * (factors * zz)) @ A + np.diag(ridge)
        hessian[:-1, -1] = hessian[-1, :-1] = A.T @ (factors * zs)
        hessian[-1, -1] = factors @ ss
        gradient = np.append(A.T @ (factors * by_z) + ridge * inner, factors @ by_scale)
        return float(factors @ value + 0.5 * ridge @ inner**2), gradient, hessian


def _huber(residual: Floats, scale: float, epsilon: float = 1.35) -> tuple[Floats, ...]:
    """Return `s + h(r / s) s`, its slopes by z and s, and its curvatures by zz, zs and ss."""
    if scale <= 0.0:
        return (np.full_like(residual, np.inf),) + (np.zeros_like(residual),) * 5
    u = residual / scale
    near = np.abs(u) <= epsilon
    value = scale * (1.0 + np.where(near, u**2, 2.0 * epsilon * np.abs(u) - epsilon**2))
    by_z = -2.0 * np.clip(u, -epsilon, epsilon)
    by_scale = 1.0 - np.where(near, u**2, epsilon**2)
    curved = np.where(near, 2.0 / scale, 0.0)
    return value, np.asarray(by_z), by_scale, curved, curved * u, curved * u**2
