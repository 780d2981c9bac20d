"""Columns by name: which column of some data is which column that a model was trained on.

A model whose columns have names is brought into the order of the data, and not the other way: to
permute parameters costs nothing beside a pass over the rows.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array
from ooc_train.core.text import listed


def column_order(
    known: Sequence[str] | None, found: Sequence[str] | None, *, model: str, data: str
) -> NDArray[np.intp] | None:
    """Return the place among `known` of each column of `found`.

    Names of one side alone tell nothing, and columns are matched by place. So are columns with the
    same names in the same order, even if a name occurs twice.

    Parameters
    ----------
    known : sequence of str, or None
        Names of the columns of a model.
    found : sequence of str, or None
        Names of the columns of data.
    model, data : str
        What messages call the two.

    Returns
    -------
    ndarray of shape (len(found),), or None
        ``known[order[i]] == found[i]``; None where columns are matched by place.

    Raises
    ------
    ValueError
        If the names differ, or if a name occurs twice and the order differs.
    """
    if known is None or found is None or tuple(known) == tuple(found):
        return None
    places = {name: place for place, name in enumerate(known)}
    given = set(found)
    lacking = [name for name in known if name not in given]
    further = [name for name in found if name not in places]
    if lacking or further:
        differences = []
        if lacking:
            differences.append(f"{data} lacks {listed(lacking)}, which {model} has")
        if further:
            differences.append(f"{data} has {listed(further)}, which {model} lacks")
        raise ValueError(
            f"the columns differ by name: {'; '.join(differences)}; use data with the same columns"
        )
    for names, of in ((known, model), (found, data)):
        if len(set(names)) < len(names):
            twice = [name for name, count in Counter(names).items() if count > 1]
            raise ValueError(
                f"{of} has more than one column of the name {listed(twice)}, so that columns in "
                "another order can't be matched by name; give each column its own name"
            )
    return np.array([places[name] for name in found], np.intp)


def permuted(theta: Array, order: NDArray[np.intp]) -> Array:
    """Return parameters (..., features + 1) with their columns in another order.

    Column i of the result is column ``order[i]``; the constant stays last.
    """
    return np.concatenate([theta[..., order], theta[..., -1:]], axis=-1)
