"""Parameters that all estimators share: declared and described once."""

import inspect
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ooc_train.memory.ceiling import Ceiling

_PARAMETERS = """\
fit_intercept : bool
    Whether there is an intercept. It is not penalised.
max_iter : int or None
    Most iterations, or epochs of updates. None is 100.
tol : float
    Largest entry of the gradient of the mean objective at which a solver stops; for updates, the
    mean loss that an epoch has to gain.
solver : str
    "auto", or how the model is learned. Exact: "gram" (least squares, in one pass), "newton"
    (logistic, the fewest passes), "lbfgs". By updates: "sgd", "momentum", "adam".
batch_size : "full", "chunk" or int
    Rows per update of the parameters.
standardize : bool
    Whether the penalty is on the weights of standardised columns.
shuffle_chunks : int or "auto"
    Chunks that are mixed row by row where batches are drawn. "auto" is 1 for data in random order.
replicas : int
    Shares of the rows that are learned from at the same time by batches, and averaged. The answer
    is that of as many replicas on any cluster.
memory_ceiling : int, str or None
    Bytes, or text such as "1GiB", that a fit may hold. None is the ceiling of the cluster, else
    half of what is available.
learning_rate : float or "auto"
    Of updates, on scaled columns.
random_state : int, RandomState or None
    Seed of the order of rows.
"""

_ATTRIBUTES = """\
n_features_in_ : int
    Number of features.
feature_names_in_ : ndarray of shape (n_features_in_,)
    Names of the features, where the columns have names.
report_ : Report
    Passes, loss and memory of the last fit.
history_ : pandas.DataFrame
    Steps of the last fit: passes, updates, loss, gradient_norm, ...
model_ : Model
    The settings that were used.
"""


@dataclass(kw_only=True, eq=False, repr=False)
class SharedParameters:
    """Parameters of every estimator, see `documented`."""

    fit_intercept: bool = True
    max_iter: int | None = None
    tol: float = 1e-4
    solver: str = "auto"
    batch_size: int | str = "full"
    standardize: bool = False
    shuffle_chunks: int | str = "auto"
    replicas: int = 1
    memory_ceiling: str | int | Ceiling | None = None
    learning_rate: float | str = "auto"
    random_state: int | np.random.RandomState | None = None


Estimator = TypeVar("Estimator", bound=type)


def documented(cls: Estimator) -> Estimator:
    """Add what all estimators share to the sections "Parameters" and "Attributes" of a class."""
    doc = inspect.cleandoc(cls.__doc__ or "")
    parameters, title, attributes = doc.partition("Attributes\n----------\n")
    if "Parameters\n----------\n" not in parameters:
        parameters += "Parameters\n----------\n"
    cls.__doc__ = (
        f"{parameters.rstrip()}\n{_PARAMETERS}\n{title}{attributes.rstrip()}\n{_ATTRIBUTES}"
    )
    return cls
