"""What ingest holds in memory and takes on disk, and what it refuses for it."""

import errno
import os
import shutil

from ooc_train.core.units import approximate_bytes
from ooc_train.errors import CeilingExceeded
from ooc_train.store.jobs.ingest_memory import CATEGORY_COPIES, row_bytes
from ooc_train.tables.names import as_option
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.schema_inference import Known, Survey

_SHOWN = 3
"""Columns with many values that are named."""


def require_few_categories(learner: Survey | Known, most: int) -> None:
    """Refuse more categories than there is room for, before they take the machine's memory.

    Parameters
    ----------
    learner : Survey or Known
    most : int
        Bytes that their values and what is made of them may take.
    """
    if CATEGORY_COPIES * learner.nbytes > most:
        encoder = learner.encoder
        found = {name: (len(values), "column") for name, values in encoder.vocabularies.items()}
        if encoder.labels is not None and learner.draft.target is not None:
            found[learner.draft.target.name] = len(encoder.labels), "target"
        widest = max(found, key=lambda name: found[name])
        count, what = found[widest]
        way = f"leave it out (--drop {as_option([widest])})"
        if what == "target":
            way = "choose another --target"
        raise CeilingExceeded(
            f"the values of categories, and what is made of them, take "
            f"{approximate_bytes(CATEGORY_COPIES * learner.nbytes)} so far, and there is room for "
            f"{approximate_bytes(most)}: the {what} {widest!r} has {count:,} of them; "
            f"{way}, or raise the memory ceiling"
        )


def free_disk(path: str) -> int:
    """Bytes that are free where a store will lie."""
    return shutil.disk_usage(os.path.dirname(path)).free


def require_disk(path: str, recipe: Recipe, n_rows: int, *, share: float, chosen: bool) -> None:
    """Refuse what can't fit on the disk.

    Parameters
    ----------
    path : str
        Where the store will lie.
    recipe : Recipe
    n_rows : int
    share : float
        What packing leaves of the bytes of the first chunk.
    chosen : bool
        Whether the user chose how chunks are packed, and so may count on that.

    Raises
    ------
    OSError
        With the figures, and the columns that take the most.
    """
    free, decoded = free_disk(path), n_rows * row_bytes(recipe)
    packed = int(decoded * share)
    if (packed if chosen else decoded) <= free:
        return
    wide = sorted(
        (column for column in recipe.columns if column.kind == "category"),
        key=lambda column: -len(column.feature_names),
    )[:_SHOWN]
    ways = ["write elsewhere"]
    if wide and len(wide[0].feature_names) > 1:
        shown = ", ".join(f"{column.name!r} {len(column.feature_names):,}" for column in wide)
        flag = as_option([column.name for column in wide])
        ways.insert(0, f"leave out columns with many values ({shown} of them: --drop {flag})")
        ways.insert(1, "take rare values as one (--min-count 50 --unseen other)")
    if packed <= free:
        ways.append(f"count on packing, which may leave {approximate_bytes(packed)} (--codec lz4)")
    size = approximate_bytes(packed if chosen else decoded)
    raise OSError(
        errno.ENOSPC,
        f"the store takes {size} ({n_rows:,} rows x {recipe.n_features:,} columns of "
        f"{recipe.dtype}), and the disk has {approximate_bytes(free)} left: {', '.join(ways[:-1])}"
        f"{', or ' if ways[:-1] else ''}{ways[-1]}",
        path,
    )
