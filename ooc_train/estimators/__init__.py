"""scikit-learn's linear models for data of any size: thin shells around `train`.

Where a class bears a scikit-learn name, its parameters mean what they mean there, and so do its
attributes; an argument that is not supported is absent. Data may be a store, its path, Zarr, Dask
arrays, or anything that scikit-learn takes into memory. Settings are validated when a fit begins.

One thing differs: scikit-learn computes in float32 and returns float32 where X is float32. Here
sums, coefficients, predictions and probabilities are float64 for every type of X, so that the
answer does not depend on how many rows were added up.
"""

from ooc_train.estimators.classification import LogisticRegression
from ooc_train.estimators.loading import load
from ooc_train.estimators.regression import LinearRegression, Ridge

__all__ = ["LinearRegression", "LogisticRegression", "Ridge", "load"]
