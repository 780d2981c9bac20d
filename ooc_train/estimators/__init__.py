"""scikit-learn's linear models and networks for data of any size: thin classes around `train`.

A class with a name of scikit-learn has the same meaning of parameters and attributes; an argument
that is not supported is absent. Data may be a store, its path, Zarr, Dask arrays, or anything that
scikit-learn takes. Settings are validated when a fit begins.

One thing differs. scikit-learn computes in float32 if X is float32. Here sums, coefficients,
predictions and probabilities are always float64, so that the answer does not depend on the number
of rows. Networks alone multiply in the type of X while they learn.
"""

from ooc_train.estimators.calibrated import CalibratedClassifier
from ooc_train.estimators.classification import LogisticRegression
from ooc_train.estimators.displays import display
from ooc_train.estimators.generalized_linear import (
    GammaRegressor,
    PoissonRegressor,
    TweedieRegressor,
)
from ooc_train.estimators.loading import load
from ooc_train.estimators.margins import LinearSVC, RidgeClassifier, SGDClassifier
from ooc_train.estimators.modules import TorchClassifier, TorchRegressor
from ooc_train.estimators.networks import MLPClassifier, MLPRegressor
from ooc_train.estimators.paths import enet_path, lasso_path
from ooc_train.estimators.regression import ElasticNet, Lasso, LinearRegression, Ridge
from ooc_train.estimators.robust import (
    HuberRegressor,
    LinearSVR,
    QuantileRegressor,
    SGDRegressor,
)

__all__ = [
    "CalibratedClassifier",
    "ElasticNet",
    "GammaRegressor",
    "HuberRegressor",
    "Lasso",
    "LinearRegression",
    "LinearSVC",
    "LinearSVR",
    "LogisticRegression",
    "MLPClassifier",
    "MLPRegressor",
    "PoissonRegressor",
    "QuantileRegressor",
    "Ridge",
    "RidgeClassifier",
    "SGDClassifier",
    "SGDRegressor",
    "TorchClassifier",
    "TorchRegressor",
    "TweedieRegressor",
    "display",
    "enet_path",
    "lasso_path",
    "load",
]
