"""What ingest holds in memory and takes on disk, and what it refuses for it."""

import errno
import os
import shutil

import numpy as np

from ooc_train.budget import Budget
from ooc_train.errors import CeilingExceeded
from ooc_train.memory import Term
from ooc_train.store.spool import Spool
from ooc_train.tables.files import Tables
from ooc_train.tables.medians import BYTES_PER_COLUMN
from ooc_train.tables.names import as_option
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.survey import Known, Survey
from ooc_train.units import approximate_bytes

_MOST_CATEGORY_BYTES = 64 * 2**20
CATEGORY_COPIES = 8
"""Of what values take: 1.4 KB a column of X were measured, for values of 180 bytes."""

_SHOWN = 3
"""Columns with many values that are named."""

_RECORD_COPIES = 4
"""Of a batch: as records, those of its parts, and what checks them; a column in float64."""

_CHUNK_COPIES = 8
"""Of a chunk that is written: as X twice, twice in float64 for its statistics, and encoded."""


def reading_terms(
    tables: Tables, learner: Survey | Known, n_outputs: int, budget: Budget
) -> list[Term]:
    """List what the first pass holds; scattering takes what the others leave."""
    draft, record = learner.draft, learner.encoder.dtype
    has_categories = any(column.kind == "category" for column in draft.columns)
    has_categories |= draft.classes is not None
    medians = draft.missing == "median" and isinstance(learner, Survey)
    terms = [
        Term("reading", tables.room, "a block or the pages of a row group, twice"),
        Term(
            "encoding",
            _RECORD_COPIES * tables.batch_bytes,
            f"{_RECORD_COPIES} x a batch of {approximate_bytes(tables.batch_bytes)}",
        ),
        Term(
            "medians",
            BYTES_PER_COLUMN * len(draft.columns) if medians else 0,
            "counts by their bits",
        ),
    ]
    left = budget.left(terms)
    categories = min(_MOST_CATEGORY_BYTES, max(left // 4, 2**20)) if has_categories else 0
    terms.append(Term("categories", categories, "at most"))
    expected = expected_bytes(tables, learner)
    least = Spool.least_room(record, expected)
    # A chunk's worth is for writing, whose width isn't known before categories are.
    room = budget.left(terms) - _CHUNK_COPIES * 2**20
    # Few records need no more room than they take.
    enough = min(Spool.enough_room(record, expected), 2 * expected + 2**20)
    terms.append(
        Term(
            "scattering",
            n_outputs * max(least, min(enough, room // n_outputs)),
            f"records of {record.itemsize:,} bytes in random order, by way of the disk",
        )
    )
    return terms


def writing_term(recipe: Recipe, chunk_rows: int, n_outputs: int) -> Term:
    """Say what the second pass holds beside, once the width of X is known."""
    bytes_of_chunk = chunk_rows * (row_bytes(recipe) + 32)
    # Each store holds the chunk that is being filled; one is written at a time.
    copies = _CHUNK_COPIES + n_outputs - 1
    return Term(
        "writing",
        copies * bytes_of_chunk,
        f"{copies} x {approximate_bytes(bytes_of_chunk)}, a chunk",
    )


def expected_bytes(tables: Tables, learner: Survey | Known) -> int:
    """About how many bytes the records of all rows take."""
    return tables.expected_rows * learner.encoder.dtype.itemsize


def row_bytes(recipe: Recipe) -> int:
    """Bytes of a row of X."""
    return recipe.n_features * np.dtype(recipe.dtype).itemsize


def require_few(learner: Survey | Known, most: int) -> None:
    """Refuse more categories than there is room for, before they take the machine's memory."""
    if learner.nbytes > most:
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
            f"the values of categories take {approximate_bytes(learner.nbytes)} so far, and there "
            f"is room for {approximate_bytes(most)}: the {what} {widest!r} has {count:,} of them; "
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
