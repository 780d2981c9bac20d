"""The elastic-net penalty: `l1 |w| + l2 / 2 w^2`, added up over weights (Zou and Hastie 2005)."""

from dataclasses import dataclass, replace

import numpy as np

from ooc_train.core.sums import Array


@dataclass(frozen=True, slots=True)
class Penalty:
    """Strengths of the elastic-net penalty on weights in the data's units, added to summed losses.

    Attributes
    ----------
    l1, l2 : float
        Factors of the absolute value and of half the square of each weight. At least 0.
    positive : bool
        Whether weights below 0 are forbidden: an infinite penalty on them.
    l2_of_each : tuple of float
        `l2` of each output, if outputs differ; `l2` is then the least of these. Empty if `l2` is
        that of all outputs.
    """

    l1: float = 0.0
    l2: float = 0.0
    positive: bool = False
    l2_of_each: tuple[float, ...] = ()

    @property
    def smooth(self) -> bool:
        """Whether the penalty has a gradient everywhere."""
        return self.l1 == 0.0 and not self.positive

    def of_scaled(self, factor: float) -> "Penalty":
        """Convert this penalty on weights of columns times `factor` to weights of the columns."""
        each = tuple(l2 / factor**2 for l2 in self.l2_of_each)
        return replace(self, l1=self.l1 / factor, l2=self.l2 / factor**2, l2_of_each=each)

    def by_column(self, scale: Array) -> "ColumnPenalty":
        """Return this penalty as one on the weights of columns divided by `scale`, (columns,)."""
        l2 = np.divide.outer(self.l2_of_each or self.l2, scale**2)
        return ColumnPenalty(self.l1 / scale, l2)


NO_PENALTY = Penalty()


@dataclass(frozen=True, eq=False)
class ColumnPenalty:
    """An elastic-net penalty whose strengths differ by column.

    Attributes
    ----------
    l1 : float64 array (columns,)
    l2 : float64 array (columns,), or (outputs, columns) where it differs by output
    """

    l1: Array
    l2: Array

    @property
    def smooth(self) -> bool:
        """Whether the penalty has a gradient everywhere."""
        return not self.l1.any()

    def values(self, weights: Array) -> Array:
        """Return the penalties (models,) of the weights of models (models, outputs, columns)."""
        values: Array = 0.5 * (self.l2 * weights**2).sum(axis=(1, 2))
        return values if self.smooth else values + (self.l1 * np.abs(weights)).sum(axis=(1, 2))

    def value(self, weights: Array) -> float:
        """Return the penalty of one model's weights, (outputs, columns)."""
        value = 0.5 * float((self.l2 * weights**2).sum())
        return value if self.smooth else value + float((self.l1 * np.abs(weights)).sum())

    def l1_change(self, weights: Array, step: Array) -> float:
        """Return the change of the l1 part by a step from `weights`, (outputs, columns)."""
        return float((self.l1 * (np.abs(weights + step) - np.abs(weights))).sum())

    def gradient(self, weights: Array) -> Array:
        """Return the gradient of the l2 part, of the shape of `weights`."""
        return self.l2 * weights

    def prox(self, weights: Array, step: float | Array) -> Array:
        """Return the proximal point of `step` times the l1 part, of the shape of `weights`."""
        return soft_threshold(weights, step * self.l1)

    def least_subgradient(self, gradient: Array, weights: Array, share: float) -> Array:
        """Return the least subgradient of a smooth part plus `share` times the l1 part.

        The result is zero at the optimum, and only there. The derivative of ``l1 |w|`` is
        ``l1 sign(w)``, and at zero any number of at most `l1` in size (Rockafellar 1970,
        section 23).

        Parameters
        ----------
        gradient : float64 array (..., columns)
            Gradient of the smooth part, which includes the l2 part.
        weights : float64 array (..., columns)
            The weights at which the subgradient is taken.
        share : float
            Factor of the penalty: one over the total weight where `gradient` is that of a mean.
        """
        if self.smooth:
            return gradient
        l1 = share * self.l1
        at_zero = soft_threshold(gradient, l1)
        return np.where(weights == 0.0, at_zero, gradient + l1 * np.sign(weights))


def soft_threshold(w: Array, threshold: Array) -> Array:
    """Return w shrunk towards zero by `threshold`, and zero where ``|w| <= threshold``.

    The result is the v that minimises ``threshold |v| + (v - w)^2 / 2``. The source is of NumPy
    ufuncs alone, so that compiled kernels take it one number at a time.
    """
    return np.maximum(w - threshold, 0.0) + np.minimum(w + threshold, 0.0)
