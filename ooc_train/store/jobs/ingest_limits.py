"""What ingest refuses: too many categories for the memory, and too large a store for the disk."""

import errno

from ooc_train.core.text import counted
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import CeilingExceeded
from ooc_train.store.jobs.ingest_memory import CATEGORY_COPIES, row_bytes
from ooc_train.store.jobs.ingest_storage import free_disk
from ooc_train.tables.fixed_schema import Schema
from ooc_train.tables.names import as_option
from ooc_train.tables.recipe import Recipe

_SHOWN = 3
"""Columns with many values that a message names."""


def require_few_categories(schema: Schema, most: int) -> None:
    """Raise `CeilingExceeded` if categories take more than `most` bytes, before they take it.

    The message names the column with the most values.
    """
    if CATEGORY_COPIES * schema.nbytes > most:
        encoder = schema.encoder
        counts = {name: (len(values), "column") for name, values in encoder.vocabularies.items()}
        if encoder.labels is not None and schema.draft.target is not None:
            counts[schema.draft.target.name] = len(encoder.labels), "target"
        widest = max(counts, key=lambda name: counts[name])
        count, what = counts[widest]
        way = f"leave it out (--drop {as_option([widest])})"
        if what == "target":
            way = "choose another --target"
        raise CeilingExceeded(
            f"category values, and the columns made of them, take "
            f"{approximate_bytes(CATEGORY_COPIES * schema.nbytes)} so far, and at most "
            f"{approximate_bytes(most)} are available: the {what} {widest!r} has {count:,} of them"
            f"; {way}, or raise the memory ceiling"
        )


def require_disk(path: str, recipe: Recipe, n_rows: int, *, share: float, chosen: bool) -> None:
    """Refuse a store that doesn't fit on the disk.

    Parameters
    ----------
    n_rows : int
        Rows of all stores.
    share : float
        Fraction of the bytes that compression leaves of the first chunk.
    chosen : bool
        Whether the user chose the codec, and so relies on compression.

    Raises
    ------
    OSError
        The message states the figures, and the columns that take the most.
    """
    free, decoded = free_disk(path), n_rows * row_bytes(recipe)
    compressed = int(decoded * share)
    if (compressed if chosen else decoded) <= free:
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
    if compressed <= free:
        ways.append(
            f"rely on compression, which may leave {approximate_bytes(compressed)} (--codec lz4)"
        )
    size = approximate_bytes(compressed if chosen else decoded)
    raise OSError(
        errno.ENOSPC,
        f"the store takes {size} ({counted(n_rows, 'row')} x "
        f"{counted(recipe.n_features, 'column')} of "
        f"{recipe.dtype}), and the disk has {approximate_bytes(free)} left: {', '.join(ways[:-1])}"
        f"{', or ' if ways[:-1] else ''}{ways[-1]}",
        path,
    )
