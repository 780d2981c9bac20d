"""Columns of data matched to the columns of a model, by name or by position.

Parameters of a model are permuted to the order of the data, which costs nothing compared to a pass.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.text import listed


def column_order(
    known: Sequence[str] | None, found: Sequence[str] | None, *, model: str, data: str
) -> NDArray[np.intp] | None:
    """Return the index in `known` of each column of `found`; None if both match by position.

    Columns are matched by position if one side has no names, or if both have the same names in the
    same order. Then a name may occur twice. Otherwise ``known[order[i]] == found[i]``, and
    `ValueError` is raised for names that differ or occur twice. `model` and `data` name the two
    sides in messages.
    """
    if known is None or found is None or tuple(known) == tuple(found):
        return None
    index = {name: i for i, name in enumerate(known)}
    present = set(found)
    lacking = [name for name in known if name not in present]
    further = [name for name in found if name not in index]
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
    return np.array([index[name] for name in found], np.intp)


def require_row_shape(
    known: Sequence[int] | None, found: Sequence[int] | None, *, model: str, data: str
) -> None:
    """Raise `ValueError` if rows of several axes, as of images, have another shape than a model's.

    Shapes are compared if both sides have one; plain columns have none. `model` and `data` name the
    two sides in messages.
    """
    if known is None or found is None or tuple(known) == tuple(found):
        return
    raise ValueError(
        f"a row of {data} has the shape {tuple(found)}, and one of {model} {tuple(known)}; write "
        "the rows in that shape (channels come last)"
    )
