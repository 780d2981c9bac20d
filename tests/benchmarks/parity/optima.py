"""Optima to the last digits, where no estimator of scikit-learn gives them.

Newton's method for smooth losses with or without l1, and an interior point method for the hinge.
All rows and the whole Hessian are in memory.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Quadratic = tuple[float, Floats, Floats]
"""Value, gradient and Hessian at some parameters."""


def newton(evaluate: Callable[[Floats], Quadratic], start: Floats, l1: Floats) -> Floats:
    """Return the minimum of `evaluate` plus `l1 |params|`; steps are halved until one gains."""
    at = start
    value, gradient, hessian = evaluate(at)
    best = value + float(l1 @ np.abs(at))
    for _ in range(200):
        step = _lasso_step(gradient, hessian, at, l1)
        length = 1.0
        while length > 1e-6:
            new = at + length * step
            value, gradient, hessian = evaluate(new)
            total = value + float(l1 @ np.abs(new))
            if total <= best:
                break
            length /= 2.0
        else:
            return at
        at, gain, best = new, best - total, total
        if gain <= 1e-15 * abs(best):
            return at
    return at


def _lasso_step(gradient: Floats, hessian: Floats, at: Floats, l1: Floats) -> Floats:
    """Return the step to the minimum of the quadratic model plus l1.

    Sweeps over coordinates find which parameters are zero, and a linear solve finds the others. It
    ends where the solve changes no sign, and no parameter that is zero wants to leave.
    """
    if not l1.any():
        return np.asarray(-np.linalg.lstsq(hessian, gradient, rcond=1e-15)[0], np.float64)
    diagonal = np.maximum(np.diag(hessian), 1e-300)
    step, product = np.zeros_like(at), np.zeros_like(at)

    def model(trial: Floats) -> float:
        quadratic = gradient @ trial + 0.5 * trial @ hessian @ trial
        return float(quadratic + l1 @ np.abs(at + trial))

    for _ in range(50):
        for _ in range(20):
            for j in range(len(at)):
                old = at[j] + step[j]
                goal = old - (gradient[j] + product[j]) / diagonal[j]
                new = np.sign(goal) * max(abs(goal) - l1[j] / diagonal[j], 0.0)
                if new != old:
                    product += hessian[j] * (new - old)
                    step[j] = new - at[j]
        kept = (at + step != 0.0) | (l1 == 0.0)
        signs = np.sign(at + step)
        solved = -at
        pull = gradient + hessian @ solved + l1 * signs
        change = np.linalg.lstsq(hessian[np.ix_(kept, kept)], -pull[kept], rcond=1e-15)[0]
        solved[kept] += change
        slack = np.abs(gradient + hessian @ solved) <= l1 * (1.0 + 1e-9)
        same = np.sign(at + solved) == signs
        if (same | (l1 == 0.0)).all() and slack[~kept].all():
            return solved
        if model(solved) < model(step):
            step = solved
        product = hessian @ step
    return step


def hinge_optimum(X: Floats, side: Floats, cost: Floats) -> tuple[Floats, float]:
    """Return weights and intercept that minimise `|w|^2 / 2` plus the weighted sum of hinges.

    The dual is solved, `|Q' a|^2 / 2 - sum(a)` with `0 <= a <= cost` and `side' a = 0`, by steps
    along the central path (Ferris and Munson 2002). Its matrix is a diagonal plus one of low rank.
    """
    Q = X * side[:, None]
    a = 0.5 * cost
    intercept = 0.0
    slope = Q @ (Q.T @ a) - 1.0
    low = 1.0 + np.maximum(slope, 0.0)  # multipliers of the two bounds
    high = 1.0 + np.maximum(-slope, 0.0)
    for _ in range(60):
        room = cost - a
        gap = low @ a + high @ room
        weights = Q.T @ a
        dual = Q @ weights - 1.0 + intercept * side - low + high
        if gap <= 1e-13 * max(float(a.sum()), 1.0) and np.abs(dual).max() <= 1e-9:
            break
        centre = 0.1 * gap / (2 * len(a))
        diagonal = low / a + high / room
        inner = np.eye(Q.shape[1]) + (Q.T / diagonal) @ Q

        def solved(right: Floats, diagonal: Floats = diagonal, inner: Floats = inner) -> Floats:
            scaled = right / diagonal
            return np.asarray(scaled - (Q @ np.linalg.solve(inner, Q.T @ scaled)) / diagonal)

        right = -dual + (centre / a - low) - (centre / room - high)
        by_right, by_side = solved(right), solved(side)
        move = (side @ by_right + side @ a) / (side @ by_side)
        step = by_right - move * by_side
        low_step, high_step = (centre - low * step) / a - low, (centre + high * step) / room - high
        length = 1.0
        for now, change in ((a, step), (room, -step), (low, low_step), (high, high_step)):
            falls = change < 0.0
            if falls.any():
                length = min(length, 0.99 * float((-now[falls] / change[falls]).min()))
        a, intercept = a + length * step, intercept + length * float(move)
        low, high = low + length * low_step, high + length * high_step
    return Q.T @ a, float(intercept)
