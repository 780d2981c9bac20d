"""Coefficients at many strengths of the penalty: `enet_path` and `lasso_path`."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any
from warnings import warn

from sklearn.exceptions import ConvergenceWarning

from ooc_train.core.settings import Count, Number
from ooc_train.estimators.regression import ElasticNet
from ooc_train.memory.ceiling import Ceiling
from ooc_train.training.coefficient_path import elastic_net_path

_ALPHA = Number(least=0.0)
_EPS = Number(above=0.0, most=1.0)
_COUNT = Count()


def enet_path(
    X: Any,
    y: Any = None,
    *,
    l1_ratio: float = 0.5,
    eps: float = 1e-3,
    alphas: int | Sequence[float] = 100,
    sample_weight: Any = None,
    fit_intercept: bool = False,
    positive: bool = False,
    tol: float = 1e-4,
    max_iter: int = 1000,
    return_n_iter: bool = False,
    memory_ceiling: str | int | Ceiling | None = None,
) -> tuple[Any, ...]:
    """Return the coefficients of `ElasticNet` at many alphas, from one pass over the rows.

    The pass adds up the Gram matrix, as for one alpha. The results are those of
    `sklearn.linear_model.enet_path`.

    Parameters
    ----------
    X : store, path, Zarr, Dask array or array-like of shape (n_samples, n_features)
        The rows. A store has its own y and weights.
    y : array of shape (n_samples,)
        Target, of one column. For several columns, scikit-learn's path has another objective, that
        of `MultiTaskElasticNet`.
    l1_ratio : float
        Share of the l1 penalty; the rest is l2.
    eps : float
        Smallest alpha as a share of the largest, if `alphas` is a number of them.
    alphas : int or sequence of float
        Alphas, or the number of alphas. Then they are evenly spaced in the logarithm, downwards
        from the least at which all coefficients are zero.
    sample_weight : array of shape (n_samples,), or float
        Weights.
    fit_intercept : bool
        Whether there is an intercept. Off as in scikit-learn, whose paths are for centred data.
    positive : bool
        Whether no coefficient may be below 0.
    tol, max_iter : float, int
        As for `ElasticNet`, for each alpha.
    return_n_iter : bool
        Whether the sweeps of each alpha are returned too.
    memory_ceiling : int, str or None
        As for `ElasticNet`.

    Returns
    -------
    alphas : ndarray of shape (n_alphas,)
        In descending order.
    coefs : ndarray of shape (n_features, n_alphas), or (1, n_features, n_alphas)
        Coefficients; with three axes if y has two.
    dual_gaps : ndarray of shape (n_alphas,)
        Duality gaps of the mean objective; NaN for `positive=True` without l1.
    n_iters : list of int
        Sweeps, if `return_n_iter`.

    Raises
    ------
    ValueError
        If a setting or the data cannot be used.
    CeilingExceeded
        If the memory ceiling is too small, before anything is read.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import enet_path
    >>> X, y = load_diabetes(return_X_y=True)
    >>> alphas, coefs, gaps = enet_path(X, y, l1_ratio=0.8, alphas=5)
    >>> alphas.round(2).tolist()
    [2.69, 0.48, 0.08, 0.02, 0.0]
    """
    _EPS.check("eps", eps)
    if isinstance(alphas, int | Integral):
        alphas = int(_COUNT.check("alphas", alphas))
    else:
        values = [float(_ALPHA.check("alphas", alpha)) for alpha in alphas]
        if not values:
            raise ValueError("alphas is empty; pass some, or how many of them")
        alphas = sorted(values, reverse=True)
    estimator = ElasticNet(fit_intercept=fit_intercept, memory_ceiling=memory_ceiling)
    data = estimator._validated(X, y, sample_weight, first=True)  # noqa: SLF001 (of this folder)
    if (outputs := data.inputs.source.n_outputs) > 1:
        raise ValueError(
            f"y has {outputs} columns, and a path is that of one; call it with each column, or "
            "fit ElasticNet, which learns several by themselves"
        )
    path = elastic_net_path(
        data.inputs,
        l1_ratio=l1_ratio,
        alphas=alphas,
        eps=eps,
        fit_intercept=fit_intercept,
        positive=positive,
        tol=tol,
        max_iter=max_iter,
        memory_ceiling=memory_ceiling,
    )
    if path.shortfall:
        warn(path.shortfall, ConvergenceWarning, stacklevel=2)
    coefs = path.coef[0] if data.flat else path.coef
    found = path.alphas, coefs, path.dual_gaps
    return (*found, path.n_iter.tolist()) if return_n_iter else found


def lasso_path(
    X: Any,
    y: Any = None,
    *,
    eps: float = 1e-3,
    alphas: int | Sequence[float] = 100,
    sample_weight: Any = None,
    fit_intercept: bool = False,
    positive: bool = False,
    tol: float = 1e-4,
    max_iter: int = 1000,
    return_n_iter: bool = False,
    memory_ceiling: str | int | Ceiling | None = None,
) -> tuple[Any, ...]:
    """Return the coefficients of `Lasso` at many alphas: `enet_path` with `l1_ratio=1`.

    Parameters
    ----------
    X, y, eps, alphas, sample_weight, fit_intercept, positive :
        As for `enet_path`.
    tol, max_iter, return_n_iter, memory_ceiling :
        As for `enet_path`.

    Returns
    -------
    alphas, coefs, dual_gaps, n_iters
        As for `enet_path`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import lasso_path
    >>> X, y = load_diabetes(return_X_y=True)
    >>> alphas, coefs, gaps = lasso_path(X, y, alphas=5)
    >>> coefs.shape, (coefs != 0).sum(axis=0).tolist()
    ((10, 5), [0, 4, 7, 9, 10])
    """
    return enet_path(
        X,
        y,
        l1_ratio=1.0,
        eps=eps,
        alphas=alphas,
        sample_weight=sample_weight,
        fit_intercept=fit_intercept,
        positive=positive,
        tol=tol,
        max_iter=max_iter,
        return_n_iter=return_n_iter,
        memory_ceiling=memory_ceiling,
    )
