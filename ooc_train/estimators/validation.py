"""Data and seeds as they are handed to estimators, made what the engine takes."""

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array, check_consistent_length, check_random_state

from ooc_train.core.sums import Array
from ooc_train.stream.input_data import Inputs


@dataclass(frozen=True, eq=False)
class Given:
    """Training data as they were handed over.

    Attributes
    ----------
    inputs : the rows
    flat : whether y has one axis
    labels : type of the labels, or None where they say it themselves
    """

    inputs: Inputs
    flat: bool
    labels: np.dtype[Any] | None


def seed_of(random_state: Any, *, used: bool) -> int | None:
    """Return a seed; None leaves drawing one to the engine.

    Parameters
    ----------
    random_state : None, int or RandomState
    used : whether the fit draws rows. Otherwise a generator is left as it is: as in scikit-learn,
        an exact fit doesn't change what others draw from the same generator.
    """
    if random_state is None:
        return None
    if isinstance(random_state, Integral):
        return int(random_state)
    generator = check_random_state(random_state)
    return int(generator.randint(2**31)) if used else None


def row_weights(X: NDArray[np.floating], sample_weight: Any) -> Array | None:
    """Return the weight of each row, checked; a number stands for that of every row."""
    if sample_weight is None:
        return None
    if isinstance(sample_weight, Real):
        sample_weight = np.full(len(X), sample_weight, np.float64)
    weight: Array = check_array(
        sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if weight.ndim != 1:
        raise ValueError(f"sample_weight has shape {weight.shape}; give one number a row")
    check_consistent_length(X, weight)
    if (weight < 0).any():
        raise ValueError("sample_weight holds negative numbers; a row weighs 0 at the least")
    return weight
