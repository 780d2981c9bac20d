"""Augmentations of rows of any shape: noise, and mixup."""

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import ClassVar

import numpy as np

from ooc_train.augmentation.augmentation import Augmentation, Rows, require_above
from ooc_train.augmentation.row_draws import RowDraws, normal_workspace
from ooc_train.core.sums import Array, Workspace

_POINTS = 4097
"""Points of a table of quantiles, whose error is then below 1e-6."""


@dataclass(frozen=True)
class Noise(Augmentation):
    """Normal noise, added to each value of a row.

    Attributes
    ----------
    deviation : float
        Standard deviation of the noise, in units of the scaled columns: with `scale=1/255`, 0.1 is
        25.5 of 255; with `standardize=True`, a tenth of each column's deviation. Modules of PyTorch
        scale no columns, and there it is in units of the data.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ooc_train import Noise, MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = MLPClassifier((16,), augment=Noise(0.1), max_iter=2, tol=0.0, random_state=0)
    >>> images = X.reshape(-1, 8, 8)
    >>> model = model.fit(images, y)
    >>> model.n_iter_
    2
    """

    deviation: float = 0.1

    name: ClassVar[str] = "noise"
    stays_finite: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_above(self, "deviation")

    def workspace(self, rows: int, row_shape: tuple[int, ...], dtype: str) -> Workspace:
        """Return the arrays by which the noise is drawn."""
        return normal_workspace(rows, prod(row_shape), dtype)

    def made_bytes(self, rows: int, row_shape: tuple[int, ...], dtype: str) -> int:
        """Return the bytes that a call allocates: the steps of the random numbers."""
        del rows, dtype
        return 32 * prod(row_shape)

    def __call__(self, rows: Rows, random: RowDraws) -> Rows:
        """Return the rows with noise."""
        noise = random.normal_in(random.scratch)[:, : prod(rows.shape[1:])]
        noise *= np.asarray(self.deviation * np.asarray(random.unit), rows.dtype).reshape(-1)
        rows += noise.reshape(rows.shape)
        return rows


@dataclass(frozen=True)
class Mixup(Augmentation):
    """Each row mixed with the row before it in the random order of the epoch (Zhang et al. 2018).

    A row becomes ``share * row + (1 - share) * the row before``, and its loss
    ``share * loss by y + (1 - share) * loss by y of the row before``, with the weights of both
    rows. The first row of an epoch stays as it is. The partner does not depend on how the rows
    come in blocks. Mixup is the last augmentation of a sequence.

    Attributes
    ----------
    alpha : float
        The share follows Beta(alpha, alpha): it is near 0 or 1 for small values, and uniform
        for 1. At most 1,000.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ooc_train import Mixup, MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = MLPClassifier((16,), augment=Mixup(), max_iter=2, tol=0.0, random_state=0)
    >>> images = X.reshape(-1, 8, 8)
    >>> model = model.fit(images, y)
    >>> model.n_iter_
    2
    """

    alpha: float = 0.2

    name: ClassVar[str] = "mixup"
    stays_finite: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_above(self, "alpha")
        if not 1e-2 <= self.alpha <= 1e3:
            raise ValueError(f"alpha={self.alpha!r} of 'mixup' is not from 0.01 to 1,000")

    def made_bytes(self, rows: int, row_shape: tuple[int, ...], dtype: str) -> int:
        """Return the bytes of shares, weights and targets of both rows, and of the row before."""
        return 256 * rows + 2 * prod(row_shape) * np.dtype(dtype).itemsize

    def __call__(self, rows: Rows, random: RowDraws) -> Rows:
        """Raise `TypeError`: rows are mixed with their targets, see `Augmenter.mix`."""
        del rows, random
        raise TypeError("mixup mixes targets too, and an Augmenter does so")

    def shares(self, random: RowDraws) -> Array:
        """Return the share of each row in its mixture, (rows,)."""
        drawn = random.uniform()
        from_end = np.minimum(drawn, 1.0 - drawn)
        share = np.interp(from_end, *_quantiles(self.alpha))
        power = min(self.alpha, 1.0)
        share = np.minimum(share ** (1.0 / power), 0.5)
        return np.where(drawn < 0.5, share, 1.0 - share)


@lru_cache(maxsize=8)
def _quantiles(alpha: float) -> tuple[Array, Array]:
    """Return the lower half of the distribution function of Beta(alpha, alpha), and its points.

    The points are of ``x ** min(alpha, 1)``, by which the density has no pole at 0.
    """
    power = min(alpha, 1.0)
    t = np.linspace(0.0, 0.5**power, _POINTS)
    x = t ** (1.0 / power)
    # The largest value is at the end, and so the ratio does not overflow.
    log_density = np.where(x > 0, (alpha - 1.0) * np.log1p(-x), 0.0)
    if alpha > 1.0:
        with np.errstate(divide="ignore"):
            log_density = log_density + (alpha - 1.0) * np.log(x)
    density = np.exp(log_density - log_density[-1])
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return 0.5 * below / below[-1], t
