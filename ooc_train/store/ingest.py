"""Raw files in, a store out: a first pass learns the recipe, a second writes.

The first pass reads the files once. It turns rows into records, which it spools on disk in the
random order that the store will have, and adds up what training rows hold. From then on the files
aren't needed: the second pass reads the spool, and each record becomes a row of X by the recipe.
"""

import json
import operator
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ooc_train.ahead import ahead
from ooc_train.budget import Budget
from ooc_train.errors import InvalidTable
from ooc_train.memory import Ceiling, MemoryReport
from ooc_train.places import local_path
from ooc_train.store.ingest_limits import (
    CATEGORY_COPIES,
    expected_bytes,
    reading_terms,
    require_disk,
    require_few,
    row_bytes,
    writing_term,
)
from ooc_train.store.layout import Scalar, Store, default_chunk_rows, open_store
from ooc_train.store.output import require_replaceable, worth_packing
from ooc_train.store.spool import Spool, row_keys
from ooc_train.store.writer import StoreWriter
from ooc_train.tables.features import Missing, Records, Unseen
from ooc_train.tables.files import Piece, Tables, open_tables
from ooc_train.tables.names import RECIPE_FILE, as_option
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.roles import Roles, Task
from ooc_train.tables.survey import ColumnSummary, Known, Survey
from ooc_train.units import approximate_bytes

__all__ = ["Ingested", "Preview", "ingest", "preview"]

Path = str | os.PathLike[str]
Codec = Literal["auto", "none", "lz4", "zstd"]

_SPLIT_SEED = 2**63
"""Added to the seed where test rows are drawn, which then know nothing of the order."""


@dataclass(frozen=True)
class Ingested:
    """What `ingest` made.

    Parameters
    ----------
    store : Store
        The training rows.
    test : Store or None
        The rows for testing, in a sister store.
    recipe : Recipe
    memory : MemoryReport
    dropped : int
        Rows that were left out, for what they lack.
    notes : tuple of str
        What a reader ought to know, such as columns that never change.
    """

    store: Store
    test: Store | None
    recipe: Recipe
    memory: MemoryReport
    dropped: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Preview:
    """What `ingest` would make.

    Parameters
    ----------
    recipe : Recipe
    columns : tuple of ColumnSummary
        What becomes of each raw column.
    n_rows, n_test : int
        Rows for training and for testing.
    row_bytes : int
        Of a row of X.
    """

    recipe: Recipe
    columns: tuple[ColumnSummary, ...]
    n_rows: int
    n_test: int
    row_bytes: int


def ingest(
    paths: Path | Sequence[Path],
    out: Path,
    *,
    target: str | None = None,
    features: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    id_column: str | None = None,
    sample_weight: str | None = None,
    task: Task = "auto",
    missing: Missing = "error",
    unseen: Unseen = "error",
    min_count: int = 1,
    dtype: str = "float32",
    like: "Recipe | Store | Path | None" = None,
    test_size: float = 0.0,
    shuffle: bool = True,
    random_state: int = 0,
    chunk_rows: int | None = None,
    shard_rows: int | None = None,
    codec: Codec = "auto",
    delimiter: str | None = None,
    encoding: str = "utf8",
    memory_ceiling: str | int | Ceiling | None = None,
    overwrite: bool = False,
    progress: Callable[[str, int, float], None] = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> Ingested:
    """Write a store of raw files, CSV or Parquet, of any size.

    Disk is needed for the store and, until it is done, for the rows as raw numbers.

    Parameters
    ----------
    paths : str, os.PathLike or sequence of these
        Files, patterns or folders.
    out : str or os.PathLike
        Where the store will lie, such as "flights.zarr"; rows for testing go to
        "flights.test.zarr".
    target, features, drop, categorical, id_column, sample_weight, task, missing, unseen, min_count
        What the columns are for; see `Roles`.
    dtype : {"float32", "float64"}
        Of X.
    like : Recipe, Store, or path of a store or a run, optional
        Whose recipe is applied; then none is learned, and nothing of the above is given.
    test_size : float
        Share of the rows that goes to the sister store, from 0 to below 1: of each run of
        ``1 / test_size`` rows one, drawn at random. Nothing is learned from them.
    shuffle : bool
        Whether rows are put in random order; else they stay as they came.
    random_state : int
        Decides the order and the test rows, at least 0. The ceiling decides neither.
    chunk_rows, shard_rows : int, optional
        As of a `StoreWriter`.
    codec : {"auto", "none", "lz4", "zstd"}
        auto: lz4 where the first chunk shrinks by 1.3 or more.
    delimiter, encoding : str
        Of CSV.
    memory_ceiling : str, int or Ceiling, optional
        Bytes, or text such as "1GiB"; by default half of what is available.
    overwrite : bool
        Whether stores that lie there are replaced, once these are whole.
    progress : callable
        Called with the stage ("reading" or "writing"), its rows so far, and how much of it that is,
        from 0 to 1.
    say : callable
        Called with what the store will be, before it is written.

    Raises
    ------
    TableNotFound, InvalidTable
        Files, columns or values that can't be used; the message says where and what to do.
    OutputExists
        If something lies at `out` or its sister.
    CeilingExceeded
        If the ceiling is too small, or the categories turn out too many for it.
    OSError
        If the disk is too small, is full or can't be written; what was there before stays.
    ValueError
        If a setting can't be.
    """
    roles = Roles(
        target=target,
        features=features,
        drop=drop,
        categorical=categorical,
        id_column=id_column,
        sample_weight=sample_weight,
        task=task,
        missing=missing,
        unseen=unseen,
        min_count=min_count,
        dtype=dtype,
    )
    layout = _Layout(operator.index(random_state), shuffle, chunk_rows, shard_rows, codec)
    _require_share(test_size)
    outputs = {"training": local_path(out)}
    if test_size:
        outputs["testing"] = sister_path(outputs["training"])
    for path in outputs.values():
        require_replaceable(path, overwrite=overwrite)
    tables = open_tables(paths, delimiter=delimiter, encoding=encoding)
    learner = _learner(roles, like, tables)
    with Budget(memory_ceiling) as budget, ExitStack() as stack:
        terms = reading_terms(tables, learner, len(outputs), budget)
        budget.require(terms)
        rooms = {term.name: term.bytes for term in terms}
        spools = {
            name: stack.enter_context(
                Spool(
                    learner.encoder.dtype,
                    os.path.dirname(path),
                    room=rooms["scattering"] // len(outputs),
                    seed=layout.random_state if shuffle else None,
                    expected_bytes=expected_bytes(tables, learner),
                )
            )
            for name, path in outputs.items()
        }
        for piece, parts in _read(tables, learner, test_size, layout.random_state):
            for name, spool in spools.items():
                spool.add(parts[name])
            require_few(learner, rooms["categories"])
            progress("reading", piece.start + piece.batch.num_rows, piece.share)
        for name, spool in spools.items():
            if not spool.n_rows:
                raise InvalidTable(
                    f"no row is left for {name}; use more rows, or another test_size, or another "
                    "way with missing values"
                )
        recipe = learner.recipe(spools["training"].blocks)
        layout = layout.of(recipe)
        terms = [
            replace(
                term,
                bytes=CATEGORY_COPIES * learner.nbytes,
                why="their values, and names and statistics of columns, also as JSON",
            )
            if term.name == "categories"
            else term
            for term in terms
        ]
        terms.append(writing_term(recipe, layout.chunk_rows or 1, len(outputs)))
        budget.require(terms, "use smaller chunks, or fewer categories")
        n_rows = sum(spool.n_rows for spool in spools.values())
        say(_size(recipe, n_rows))
        require_disk(outputs["training"], recipe, n_rows)
        layout = layout.packing(_sample(spools["training"], recipe, learner, layout))
        written = 0

        def on_rows(rows: int) -> None:
            nonlocal written
            written += rows
            progress("writing", written, written / n_rows)

        writers = {
            name: stack.enter_context(_writer(path, recipe, learner, layout, overwrite=overwrite))
            for name, path in outputs.items()
        }
        for name, writer in writers.items():
            with closing(_expanded(spools[name], recipe, learner, layout)) as rows:
                for row in rows:
                    writer.write(**row)
                    on_rows(len(row["X"]))
        # Both or none, and the test rows first: where the training rows lie, all is there.
        stores = {name: writers[name].commit() for name in reversed(outputs)}
        return Ingested(
            stores["training"],
            stores.get("testing"),
            recipe,
            budget.report(terms),
            learner.encoder.dropped,
            tuple(_notes(learner, recipe)),
        )


def preview(
    paths: Path | Sequence[Path],
    roles: Roles,
    *,
    test_size: float = 0.0,
    random_state: int = 0,
    delimiter: str | None = None,
    encoding: str = "utf8",
    progress: Callable[[str, int, float], None] = lambda *_: None,
) -> Preview:
    """Read raw files as `ingest` would, and say what would become of each column.

    Medians are left open, since they take the rows themselves.

    Parameters
    ----------
    paths, test_size, random_state, delimiter, encoding, progress
        As of `ingest`.
    roles : Roles

    Raises
    ------
    TableNotFound, InvalidTable, ValueError
        As `ingest` does.
    """
    _require_share(test_size)
    tables = open_tables(paths, delimiter=delimiter, encoding=encoding)
    learner = Survey(roles.draft(tables), roles.min_count)
    n_rows, n_test = 0, 0
    for piece, parts in _read(tables, learner, test_size, operator.index(random_state)):
        n_rows += len(parts["training"])
        n_test += len(parts["testing"])
        progress("reading", piece.start + piece.batch.num_rows, piece.share)
    recipe = learner.recipe(None)
    return Preview(recipe, tuple(learner.summaries(recipe)), n_rows, n_test, row_bytes(recipe))


def sister_path(path: str) -> str:
    """Say where the rows for testing lie: "flights.test.zarr" beside "flights.zarr"."""
    root, extension = os.path.splitext(path.rstrip("/"))
    return f"{root}.test{extension}"


def rows_for_testing(rows: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Say which rows are for testing: one of each run of ``1 / share``, drawn at random.

    It needs no count of all rows, and yet the share is exact, to the last run.

    Parameters
    ----------
    rows : ndarray of int64, shape (row,)
        Numbers of rows, in ascending order.
    share : float
        From 0 to 1.
    seed : int
    """
    if share > 0.5:  # of a run of less than two rows none could be drawn
        return ~rows_for_testing(rows, 1 - share, seed)
    if share == 0 or not len(rows):
        return np.zeros(len(rows), bool)
    runs = np.arange(max(0, int(rows[0] * share) - 1), int(rows[-1] * share) + 2)
    # A run that ends beyond all rows may as well end there: 1 / share can exceed any integer.
    with np.errstate(over="ignore"):
        bounds = [np.ceil(np.minimum(k / share, 2.0**62)) for k in (runs, runs + 1)]
    starts, stops = (bound.astype(np.int64) for bound in bounds)
    drawn = row_keys(runs, seed + _SPLIT_SEED) % np.maximum(stops - starts, 1).astype(np.uint64)
    return np.isin(rows, starts + drawn.astype(np.int64))


def recipe_of(source: Recipe | Store | Path) -> Recipe:
    """Give a recipe: itself, or that of a store, or that at the path of a store or a run.

    Raises
    ------
    StoreNotFound
        If nothing lies there.
    InvalidTable
        If it has no recipe.
    """
    if isinstance(source, Recipe):
        return source
    if not isinstance(source, Store) and os.path.exists(os.path.join(source, RECIPE_FILE)):
        with open(os.path.join(source, RECIPE_FILE), encoding="utf-8") as file:
            return Recipe.from_json(json.load(file))
    store = source if isinstance(source, Store) else open_store(source)
    if store.recipe is None:
        raise InvalidTable(
            f"{store.path} has no recipe: it wasn't made of raw files; ingest them, and train on "
            "what that makes"
        )
    return Recipe.from_json(store.recipe)


@dataclass(frozen=True)
class _Layout:
    """How stores are laid out, as far as that is settled."""

    random_state: int
    shuffled: bool
    chunk_rows: int | None
    shard_rows: int | None
    codec: Codec

    def __post_init__(self) -> None:
        if self.random_state < 0:
            raise ValueError(f"random_state={self.random_state} should be at least 0")
        if self.codec not in ("auto", "none", "lz4", "zstd"):
            raise ValueError(f"codec={self.codec!r} is none of auto, none, lz4, zstd")
        if self.chunk_rows is not None and self.chunk_rows < 1:
            raise ValueError(f"chunk_rows={self.chunk_rows} should be at least 1")

    def of(self, recipe: Recipe) -> "_Layout":
        """Settle the rows of a chunk."""
        rows = self.chunk_rows or default_chunk_rows(recipe.n_features, recipe.dtype)
        return replace(self, chunk_rows=rows)

    def packing(self, X: NDArray[np.floating]) -> "_Layout":
        """Settle the codec, by a sample."""
        if self.codec != "auto":
            return self
        return replace(self, codec="lz4" if worth_packing(X) else "none")


def _learner(roles: Roles, like: Recipe | Store | Path | None, tables: Tables) -> Survey | Known:
    if like is None:
        return Survey(roles.draft(tables), roles.min_count)
    if roles != Roles():
        raise ValueError("like= brings what all columns are for; leave the other settings out")
    recipe = recipe_of(like)
    names = tables.names
    has_y = recipe.target is not None and recipe.target.name in names
    return Known(recipe, needs_y=has_y)


def _read(
    tables: Tables, learner: Survey | Known, share: float, seed: int
) -> Iterator[tuple[Piece, dict[str, Records]]]:
    """Read raw files piece by piece, as records for training, which are learned, and for testing.

    Reading runs ahead of the rest.
    """
    with closing(ahead(tables.pieces(learner.encoder.types))) as pieces:
        for piece in pieces:
            records = learner.encoder.encode(piece)
            testing = rows_for_testing(records["row"], share, seed)
            parts = {"training": records, "testing": records[:0]}
            if testing.any():
                parts = {"training": records[~testing], "testing": records[testing]}
            learner.add(parts["training"])
            yield piece, parts


def _expanded(
    spool: Spool, recipe: Recipe, learner: Survey | Known, layout: _Layout
) -> Generator[dict[str, NDArray[Any]], None, None]:
    """Give what a `StoreWriter` takes of the rows of a spool, a chunk's rows at most at a time.

    Making the next runs ahead of writing.
    """
    recode, step = learner.recoder(recipe), layout.chunk_rows or 1
    fields = set(spool.dtype.names or ())
    given = {"y": "y", "sample_weight": "weight", "row_id": "id" if "id" in fields else "row"}

    def expanded() -> Iterator[dict[str, NDArray[Any]]]:
        with closing(spool.blocks()) as blocks:
            for block in blocks:
                for start in range(0, len(block), step):
                    records = block[start : start + step]
                    recode(records)
                    # The block is overwritten by the next one, while these are still written.
                    rows = {
                        role: records[field].copy()
                        for role, field in given.items()
                        if field in fields
                    }
                    yield {"X": recipe.expand(records), **rows}

    return ahead(expanded())


def _sample(
    spool: Spool, recipe: Recipe, learner: Survey | Known, layout: _Layout
) -> NDArray[np.floating]:
    """Give the first chunk of X: the same, however much the spool hands out at a time."""
    parts: list[NDArray[np.floating]] = []
    missing = layout.chunk_rows or 1
    with closing(_expanded(spool, recipe, learner, layout)) as rows:
        while missing and (part := next(rows, None)) is not None:
            parts.append(part["X"][:missing])
            missing -= len(parts[-1])
    return np.concatenate(parts)


def _writer(
    path: str, recipe: Recipe, learner: Survey | Known, layout: _Layout, *, overwrite: bool
) -> StoreWriter:
    fields = learner.encoder.dtype.names or ()
    has_y = "y" in fields
    classes: tuple[Scalar, ...] | None = recipe.classes if has_y else None
    return StoreWriter(
        path,
        n_features=recipe.n_features,
        dtype=recipe.dtype,
        y_dtype=learner.y_dtype if has_y and classes is None else None,
        feature_names=recipe.feature_names,
        classes=classes,
        chunk_rows=layout.chunk_rows,
        shard_rows=layout.shard_rows,
        codec="none" if layout.codec == "auto" else layout.codec,
        sample_weight="weight" in fields,
        row_id=True,
        shuffled=layout.random_state if layout.shuffled else None,
        recipe=recipe.to_json(),
        overwrite=overwrite,
    )


def _size(recipe: Recipe, n_rows: int) -> str:
    size = approximate_bytes(n_rows * row_bytes(recipe))
    raw = len(recipe.columns)
    return (
        f"{n_rows:,} rows x {recipe.n_features:,} columns of {recipe.dtype} ({size} before packing)"
        f", made of {raw:,} raw {'column' if raw == 1 else 'columns'}"
    )


def _notes(learner: Survey | Known, recipe: Recipe) -> Iterator[str]:
    if constant := learner.constant(recipe):
        yield (
            f"the same in every training row: {', '.join(constant)}; such columns teach nothing "
            f"(--drop {as_option(constant)})"
        )
    if learner.encoder.dropped:
        rows = (
            "1 row was"
            if learner.encoder.dropped == 1
            else f"{learner.encoder.dropped:,} rows were"
        )
        yield f"{rows} left out, for what they lack"


def _require_share(test_size: float) -> None:
    if not 0 <= test_size < 1:
        raise ValueError(f"test_size={test_size!r} should be a share of the rows, 0 to below 1")
