"""Remapping of codes: from the vocabularies of the first pass to the values of the recipe."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ooc_train.errors import InvalidTable
from ooc_train.tables.arrow import from_texts
from ooc_train.tables.features import Records
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.values import UNKNOWN, Vocabulary


def remapper(
    recipe: Recipe,
    vocabularies: Mapping[str, Vocabulary],
    labels: Sequence[str],
    ordered_labels: Sequence[str],
) -> Callable[[Records], None]:
    """Return a function that replaces the codes of records by those of the recipe, in place.

    `labels` are those of the target in the order of the first pass, and `ordered_labels` in the
    order of the recipe's classes. The function raises `InvalidTable` for a value without a training
    row, if the recipe refuses such values.
    """
    tables = []
    for column in (c for c in recipe.columns if c.kind == "category"):
        found = vocabularies[column.name].values
        known = Vocabulary(column.values, grows=False)
        # MISSING and UNKNOWN index the last two entries from the end.
        codes = [*known.codes(from_texts(found)), UNKNOWN, -1]
        tables.append((column, np.array(codes, np.int32), found))
    codes_of_labels = None
    if recipe.classes is not None:
        codes_of_labels = Vocabulary(ordered_labels, grows=False).codes(from_texts(labels))

    def remap(records: Records) -> None:
        for i, (column, codes, found) in enumerate(tables):
            old = records["codes"][:, i].copy()
            records["codes"][:, i] = codes[old]
            unseen = records["codes"][:, i] == UNKNOWN
            if recipe.unseen == "error" and unseen.any():
                row = int(np.argmax(unseen))
                raise InvalidTable(
                    f"column {column.name!r} in row {records['row'][row]:,} is "
                    f"{found[old[row]]!r}, which no training row has: rows for testing are "
                    "drawn at random, and rare values may all be among them; choose what "
                    "becomes of such values: --unseen other or --unseen ignore"
                )
        if codes_of_labels is not None:
            codes_of_y = codes_of_labels[records["y"].astype(np.intp)]
            if (codes_of_y == UNKNOWN).any():
                row = int(np.argmax(codes_of_y == UNKNOWN))
                raise InvalidTable(
                    f"the target's class in row {records['row'][row]:,} is one that no "
                    "training row has; use another --random-state or --test-size"
                )
            records["y"] = codes_of_y

    return remap
