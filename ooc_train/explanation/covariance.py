"""Covariances of coefficients from information and scores: the algebra of standard errors.

Classical errors are the inverse information times the dispersion. Robust ones are the sandwich
`H^-1 M H^-1`, where M adds up products of scores: of rows (White 1980; HC1 has the factor
n / (n - k) of MacKinnon and White 1985), or of sums over groups (Liang and Zeger 1986).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.packing import unpacked
from ooc_train.core.sums import Array, Sums
from ooc_train.core.text import counted
from ooc_train.models.information_sums import InformationSums
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.gamma import Gamma
from ooc_train.objective.losses.squared import Squared
from ooc_train.objective.losses.tweedie import Tweedie

Errors = Literal["classical", "HC1", "cluster"]
ERRORS: tuple[Errors, ...] = get_args(Errors)
"""Kinds of standard errors."""

_DEPENDENT = 1e-9
"""Share of a column's sum of squares that others leave over, at which it counts as their sum."""

_BOUNDLESS = 0.01
"""Share of the classical variance of a coefficient below which a robust variance of probabilities
and counts is no estimate: their variance follows from their mean."""

_DISPERSED: tuple[type[Loss], ...] = (Squared, Gamma, Tweedie)
"""Losses that are minus a log-likelihood but for the dispersion, which residuals estimate."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """Coefficients of outputs that are estimated together, in units of the data.

    Attributes
    ----------
    outputs : tuple of int
        The outputs.
    kept : ndarray of shape (columns,)
        The columns that are no sums of others, the constant last; the rest is left out.
    coef : float64 array (outputs, columns)
        Coefficients of the kept columns.
    covariance : float64 array (outputs * columns, outputs * columns)
        Their covariance matrix.
    dispersion : float
        Estimated dispersion; 1 where the loss has none.
    n_left : float
        Degrees of freedom of the residuals: rows less parameters.
    distance : float
        Upper bound, in standard errors, of how far the coefficients, and any sum of them, are from
        the optimum.
    boundless : bool array (outputs, columns)
        Whether the rows of a column have next to no variation of y left, by which the robust error
        of its coefficient is no error: there, the optimum is infinite.
    moved : float
        The same for how far leaving out columns moves predictions: 0 but for rounding if the
        columns are sums of others.
    """

    outputs: tuple[int, ...]
    kept: NDArray[np.intp]
    coef: Array
    covariance: Array
    dispersion: float
    n_left: float
    distance: float
    boundless: NDArray[np.bool_]
    moved: float

    @property
    def std_err(self) -> Array:
        """Standard errors of the coefficients, (outputs, columns)."""
        variance = np.maximum(np.diag(self.covariance), 0.0).reshape(self.coef.shape)
        return np.where(self.boundless, np.nan, np.sqrt(variance))


def estimates(
    reduction: InformationSums, sums: Sums, errors: Errors, *, fit_intercept: bool
) -> list[Estimate]:
    """Return the estimates of all outputs: one for each, or one for all if the loss couples them.

    The coefficients of coupled outputs, the classes, are differences to those of the first class.

    Raises
    ------
    ValueError
        If there are no more rows than parameters, or fewer than two groups.
    """
    outputs = range(reduction.n_outputs)
    coupled = reduction.loss.kind == "rowwise"
    blocks = [tuple(outputs)[1:]] if coupled else [(k,) for k in outputs]
    return [_estimate(reduction, sums, errors, block, fit_intercept) for block in blocks]


def algebra_bytes(reduction: InformationSums) -> int:
    """Return the bytes of the arrays that `estimates` makes."""
    columns = reduction.n_columns
    size = columns * (reduction.n_outputs if reduction.loss.kind == "rowwise" else 1)
    groups = 0 if reduction.groups is None else reduction.groups.n_groups
    blocks = reduction.n_outputs * columns * size
    return 8 * (10 * size**2 + 4 * columns**2 + 2 * blocks + 2 * groups * size)


def _estimate(
    reduction: InformationSums,
    sums: Sums,
    errors: Errors,
    outputs: tuple[int, ...],
    fit_intercept: bool,
) -> Estimate:
    columns, several = reduction.n_columns, len(outputs)
    own = list(outputs)
    theta = reduction.theta[own]
    if reduction.loss.kind == "rowwise":
        theta = theta - reduction.theta[0]
    information = _matrix(reduction, sums["information"], outputs)
    # The constant first: of columns that are sums of others, the last ones are left out.
    order = [columns - 1] * fit_intercept + list(range(columns - 1))
    together = np.einsum("kikj->ij", information)
    kept, rest, passed_on = _independent(together, order)
    changed = np.zeros_like(theta)
    changed[:, kept], changed[:, rest] = theta[:, rest] @ passed_on.T, -theta[:, rest]
    n = float(sums["weight"] if reduction.counts else sums["rows"])
    n_left = n - several * len(kept)
    if n_left <= 0:
        raise ValueError(
            f"{counted(n, 'row', ',.0f')} with a weight are not more than the "
            f"{several * len(kept):,} "
            "parameters, so that no standard error can be estimated; use more rows"
        )
    dispersion = 1.0
    if isinstance(reduction.loss, _DISPERSED):
        dispersion = float(sums["pearson"][own[0]]) / n_left
    inverse = _inverse(_of_kept(information, kept))
    gradient = sums["gradient"][own][:, kept].ravel()
    if errors == "classical":
        covariance = inverse * dispersion
    else:
        covariance = inverse @ _meat(reduction, sums, outputs, kept) @ inverse
        covariance *= n / n_left if errors == "HC1" else _group_factor(reduction, n, n_left)
    units = _to_data_units(reduction, kept, several)
    covariance = units @ covariance @ units.T
    coef = units @ (theta + changed)[:, kept].ravel()
    boundless = np.zeros_like(coef, bool)
    if errors != "classical" and not isinstance(reduction.loss, _DISPERSED):
        usual = np.diag(units @ inverse @ units.T)
        boundless = np.diag(covariance) < _BOUNDLESS * usual
    unit = dispersion or 1.0
    return Estimate(
        outputs,
        kept,
        coef.reshape(several, -1),
        covariance,
        dispersion,
        n_left,
        float(np.sqrt(max(float(gradient @ inverse @ gradient), 0.0) / unit)),
        boundless.reshape(several, -1),
        float(np.sqrt(abs(np.einsum("ai,aibj,bj", changed, information, changed)) / unit)),
    )


def _matrix(reduction: InformationSums, packed: Array, outputs: Sequence[int]) -> Array:
    """Return packed sums of pairs as an array (outputs, columns, outputs, columns)."""
    columns, place = reduction.n_columns, {k: i for i, k in enumerate(outputs)}
    matrix = np.zeros((len(outputs), columns, len(outputs), columns))
    for (a, b), of_pair in zip(reduction.pairs, packed, strict=True):
        if a in place and b in place:
            i, j = place[a], place[b]
            matrix[i, :, j] = matrix[j, :, i] = unpacked(of_pair, columns)
    return matrix


def _of_kept(matrix: Array, kept: NDArray[np.intp]) -> Array:
    """Return the part of the kept columns as a square matrix."""
    part = matrix[:, kept][:, :, :, kept]
    size = part.shape[0] * part.shape[1]
    return part.reshape(size, size)


def _meat(
    reduction: InformationSums, sums: Sums, outputs: Sequence[int], kept: NDArray[np.intp]
) -> Array:
    """Return the sum of products of scores, of rows or of groups."""
    if reduction.groups is None:
        return _of_kept(_matrix(reduction, sums["products"], outputs), kept)
    scores = sums["scores"].reshape(-1, reduction.n_outputs, reduction.n_columns)
    part = scores[:, list(outputs)][:, :, kept].reshape(len(scores), -1)
    return part.T @ part


def _group_factor(reduction: InformationSums, n: float, n_left: float) -> float:
    groups = 0 if reduction.groups is None else reduction.groups.n_groups
    if groups < 2:
        raise ValueError(
            f"clustered errors need two groups or more, and the rows have {groups}; choose "
            'others, or errors="HC1"'
        )
    return groups / (groups - 1) * (n - 1.0) / n_left


def _independent(
    matrix: Array, order: Sequence[int]
) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """Return the columns to keep, those that are sums of kept ones before them, and the factors.

    Column r of the rest is the sum of kept columns k times ``factors[k, r]``. `matrix` has the
    products of all columns, and `order` is that in which they are kept.
    """
    unit = np.sqrt(np.diag(matrix))
    unit = np.where(unit > 0.0, unit, 1.0)
    scaled = matrix / unit / unit[:, None]
    left = scaled[np.ix_(order, order)]
    is_kept = np.ones(len(order), bool)
    try:
        all_kept = np.diag(np.linalg.cholesky(left)).min() ** 2 > _DEPENDENT
    except np.linalg.LinAlgError:
        all_kept = False
    if not all_kept:
        for i in range(len(order)):
            pivot = left[i, i]
            is_kept[i] = pivot > _DEPENDENT
            if is_kept[i]:
                left[i + 1 :, i + 1 :] -= np.outer(left[i + 1 :, i], left[i, i + 1 :] / pivot)
    kept = np.sort(np.asarray(order, np.intp)[is_kept])
    rest = np.sort(np.asarray(order, np.intp)[~is_kept])
    factors = np.linalg.solve(scaled[np.ix_(kept, kept)], scaled[np.ix_(kept, rest)])
    return kept, rest, factors * unit[rest] / unit[kept][:, None]


def _inverse(matrix: Array) -> Array:
    """Return the inverse of a positive definite matrix; scaled first, for accuracy."""
    unit = np.sqrt(np.diag(matrix))
    inverse = np.linalg.inv(matrix / unit / unit[:, None])
    return np.asarray((inverse + inverse.T) / 2.0 / unit / unit[:, None])


def _to_data_units(reduction: InformationSums, kept: NDArray[np.intp], several: int) -> Array:
    """Return the matrix that turns parameters of scaled columns into those of the data's units."""
    scaling, constant = reduction.scaling, reduction.n_columns - 1
    is_feature = kept < constant
    features = kept[is_feature]
    units = np.diag(np.append(scaling.inverse, 1.0)[kept])
    if not is_feature.all():
        units[-1, : len(features)] = -scaling.mean[features] * scaling.inverse[features]
    return np.asarray(np.kron(np.eye(several), units), np.float64)
