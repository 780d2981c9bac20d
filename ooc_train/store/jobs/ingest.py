"""Raw files in, a store out: a first pass learns the recipe, a second writes.

The first pass reads the files once. It turns rows into records, which it spools on disk in the
random order that the store will have, and adds up what training rows hold. From then on the files
aren't needed: the second pass reads the spool, and each record becomes a row of X by the recipe.
"""

import operator
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.atomic import STORE, commit_together, require_output
from ooc_train.core.files import FileKind, read_json
from ooc_train.core.places import local_path
from ooc_train.core.prefetch import ahead
from ooc_train.core.progress import Progress, no_progress, row_counter
from ooc_train.errors import InvalidTable
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, MemoryReport, Term
from ooc_train.store.dataset import Store, open_store
from ooc_train.store.format.pairs import Pair, finish_pair, new_pair_id
from ooc_train.store.jobs.external_shuffle import Spool, row_keys
from ooc_train.store.jobs.ingest_limits import (
    CATEGORY_COPIES,
    Shape,
    expected_bytes,
    free_disk,
    require_disk,
    require_few,
    row_bytes,
    writing_term,
)
from ooc_train.store.jobs.ingest_notes import losses, notes, size_of
from ooc_train.store.jobs.ingest_writing import Codec, Layout, expanded, first_chunk, writer_of
from ooc_train.tables.batches import Piece, Tables, open_tables
from ooc_train.tables.features import Missing, Records, Unseen
from ooc_train.tables.names import RECIPE_FILE
from ooc_train.tables.precision import Rounded
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.roles import Roles, Task
from ooc_train.tables.schema_inference import ColumnSummary, Known, Survey

__all__ = ["Ingested", "Preview", "ingest", "preview"]

Path = str | os.PathLike[str]
_T = TypeVar("_T")

_RECIPE = FileKind(
    "a recipe", 2**28, InvalidTable, "restore it from a copy, or ingest the raw files again"
)
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
    losses : tuple of str
        Those of the notes that tell of numbers which differ and became the same.
    """

    store: Store
    test: Store | None
    recipe: Recipe
    memory: MemoryReport
    dropped: int
    notes: tuple[str, ...]
    losses: tuple[str, ...] = ()


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
    notes : tuple of str
        As of `Ingested`.
    """

    recipe: Recipe
    columns: tuple[ColumnSummary, ...]
    n_rows: int
    n_test: int
    row_bytes: int
    notes: tuple[str, ...] = ()


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
    dtype: str = "auto",
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
    progress: Progress = no_progress,
    say: Callable[[str], None] = lambda _: None,
    warn: Callable[[str], None] = warnings.warn,
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
    dtype : {"auto", "float32", "float64"}
        Of X; auto: float32, and float64 where numbers that differ would become the same in that:
        whole numbers beyond 2**24, columns that span few steps of float32. Files are read once
        more then.
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
    warn : callable
        Called with each of the `losses`.

    Raises
    ------
    TableNotFound, InvalidTable
        Files, columns or values that can't be used; the message says where and what to do.
    OutputExists
        If something lies at `out` or its sister.
    CeilingExceeded
        If the ceiling is too small, before more than the first block is read; or if the categories
        turn out too many for it.
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
    layout = Layout(operator.index(random_state), shuffle, chunk_rows, shard_rows, codec)
    _require_share(test_size)
    outputs = {"training": local_path(out)}
    if test_size:
        outputs["testing"] = sister_path(outputs["training"])
    # Of an ingest that was killed between its two stores: both or none.
    finish_pair(outputs["training"])
    for path in outputs.values():
        require_output(path, STORE, overwrite=overwrite)
    with Budget(memory_ceiling) as budget:
        tables = open_tables(paths, delimiter=delimiter, encoding=encoding)
        job = _Job(tables, roles, outputs, layout, test_size, overwrite, progress, say)
        made = _widening(
            lambda dtype: _learner(roles, like, tables, dtype),
            lambda learner, widened: job.made(budget, learner, widened),
        )
    for loss in made.losses:
        warn(loss)
    return made


@dataclass(frozen=True)
class _Job:
    """Stores to be made of raw files, as the user has it."""

    tables: Tables
    roles: Roles
    outputs: dict[str, str]
    layout: Layout
    test_size: float
    overwrite: bool
    progress: Progress
    say: Callable[[str], None]

    def made(self, budget: Budget, learner: Survey | Known, widened: str | None) -> Ingested:
        """Make them; `widened` says why X is of another dtype than it would be."""
        outputs, layout = self.outputs, self.layout
        with ExitStack() as stack:
            shape = Shape.of(self.tables, learner, layout.chunk_rows, len(outputs))
            strict = isinstance(learner, Survey) and learner.strict
            terms = budget.settle(
                shape.terms,
                "" if layout.chunk_rows is None else "use smaller chunks",
                worst=shape.wider().terms if strict else None,
            )
            rows = shape.batch_rows(max(0, budget.left([])))
            rooms = {term.name: term.bytes for term in terms}
            spools = {
                name: stack.enter_context(
                    Spool(
                        learner.encoder.dtype,
                        os.path.dirname(path),
                        room=rooms["scattering"] // len(outputs),
                        seed=layout.random_state if layout.shuffled else None,
                        expected_bytes=expected_bytes(self.tables, learner),
                    )
                )
                for name, path in outputs.items()
            }
            self._read(learner, spools, rooms["categories"], rows)
            lost = tuple(losses(learner))
            recipe = learner.recipe(spools["training"].blocks, rooms["medians"])
            layout = layout.of(recipe)
            known = CATEGORY_COPIES * learner.nbytes
            why = "their values, and names and statistics of columns, also as JSON"
            writing = writing_term(layout.chunk_rows or 1, row_bytes(recipe), len(outputs))
            found = {
                "categories": Term("categories", known, why),
                "writing": writing,
            }
            terms = [found.get(term.name, term) for term in terms]
            budget.require(terms)
            stores = self._written(learner, spools, recipe, layout)
            told = notes(learner, recipe, self.roles, self.tables, widened)
            return Ingested(
                stores["training"],
                stores.get("testing"),
                recipe,
                budget.report(terms),
                learner.encoder.dropped,
                (*lost, *told),
                lost,
            )

    def _read(
        self, learner: Survey | Known, spools: Mapping[str, Spool], room: int, rows: int
    ) -> None:
        """Bring the rows of all files to the disk, as records."""
        read = _read(self.tables, learner, self.test_size, self.layout.random_state, rows)
        for piece, parts in read:
            for name, spool in spools.items():
                spool.add(parts[name])
            require_few(learner, room)
            self.progress("reading", piece.start + piece.batch.num_rows, piece.share)
        for name, spool in spools.items():
            if not spool.n_rows:
                raise InvalidTable(
                    f"no row is left for {name}; use more rows, or another test_size, or another "
                    "way with missing values"
                )

    def _written(
        self, learner: Survey | Known, spools: Mapping[str, Spool], recipe: Recipe, layout: Layout
    ) -> dict[str, Store]:
        """Make stores of records."""
        n_rows, path = sum(spool.n_rows for spool in spools.values()), self.outputs["training"]
        self.say(size_of(recipe, n_rows, free_disk(path)))
        first = first_chunk(spools["training"], recipe, learner, layout)
        chosen = layout.codec != "auto"
        layout, share = layout.packing(first)
        require_disk(path, recipe, n_rows, share=share, chosen=chosen)
        del first
        pairs = self._pairs()
        add_rows = row_counter(self.progress, "writing", n_rows)
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(
                    writer_of(
                        path,
                        recipe,
                        learner,
                        layout,
                        overwrite=self.overwrite,
                        pair=pairs.get(name),
                    )
                )
                for name, path in self.outputs.items()
            }
            for name, writer in writers.items():
                with closing(expanded(spools[name], recipe, learner, layout)) as rows:
                    for row in rows:
                        writer.write(**row)
                        add_rows(len(row["X"]))
            # Both or none, and the test rows first: where the training rows lie, all is there.
            names = list(reversed(self.outputs))
            for name in names:
                writers[name].seal()
            commit_together([writers[name].output for name in names])
            return {name: open_store(self.outputs[name]) for name in names}

    def _pairs(self) -> dict[str, Pair]:
        """Return what each of two stores says of the other; nothing where there is one."""
        id_, names = new_pair_id(), {name: os.path.basename(p) for name, p in self.outputs.items()}
        others = {"training": "testing", "testing": "training"}
        return {name: Pair(id_, names[others[name]]) for name in names if len(names) > 1}


def _widening(
    learner: Callable[[str | None], Survey | Known],
    run: Callable[[Survey | Known, str | None], _T],
) -> _T:
    """Read raw files, and once more for float64 where float32 turns out too narrow."""
    try:
        return run(learner(None), None)
    except Rounded as error:
        # What the first run held is free when this clause is left.
        widened = str(error)
    return run(learner("float64"), widened)


def preview(
    paths: Path | Sequence[Path],
    roles: Roles,
    *,
    test_size: float = 0.0,
    random_state: int = 0,
    delimiter: str | None = None,
    encoding: str = "utf8",
    progress: Progress = no_progress,
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

    def looked(learner: Survey | Known, widened: str | None) -> Preview:
        n_rows, n_test = 0, 0
        for piece, parts in _read(tables, learner, test_size, operator.index(random_state)):
            n_rows += len(parts["training"])
            n_test += len(parts["testing"])
            progress("reading", piece.start + piece.batch.num_rows, piece.share)
        lost = tuple(losses(learner))
        recipe = learner.recipe(None)
        columns = tuple(learner.summaries(recipe)) if isinstance(learner, Survey) else ()
        told = (*lost, *notes(learner, recipe, roles, tables, widened))
        return Preview(recipe, columns, n_rows, n_test, row_bytes(recipe), told)

    return _widening(lambda dtype: _learner(roles, None, tables, dtype), looked)


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
    if not isinstance(source, Store) and os.path.lexists(file := os.path.join(source, RECIPE_FILE)):
        return _recipe_from(read_json(file, _RECIPE), file)
    store = source if isinstance(source, Store) else open_store(source)
    if store.recipe is None:
        raise InvalidTable(
            f"{store.path} has no recipe: it wasn't made of raw files; ingest them, and train on "
            "what that makes"
        )
    return _recipe_from(store.recipe, store.path)


def _recipe_from(values: Mapping[str, Any], path: str) -> Recipe:
    try:
        return Recipe.from_json(values)
    except ValueError as error:
        raise InvalidTable(f"{path}: {error}; ingest the raw files again") from None


def _learner(
    roles: Roles, like: Recipe | Store | Path | None, tables: Tables, dtype: str | None
) -> Survey | Known:
    """Give what learns of rows; a dtype takes the place of one that is auto."""
    if like is None:
        return Survey(
            roles.draft(tables, dtype),
            roles.min_count,
            sure=roles.sure_labels(tables),
            strict=roles.dtype == "auto" and dtype is None,
        )
    if roles != Roles():
        raise ValueError("like= brings what all columns are for; leave the other settings out")
    recipe = recipe_of(like)
    names = tables.names
    has_y = recipe.target is not None and recipe.target.name in names
    return Known(recipe, needs_y=has_y)


def _read(
    tables: Tables, learner: Survey | Known, share: float, seed: int, rows: int | None = None
) -> Iterator[tuple[Piece, dict[str, Records]]]:
    """Read raw files piece by piece, as records for training, which are learned, and for testing.

    Reading runs ahead of the rest.
    """
    with closing(ahead(tables.pieces(learner.encoder.types, rows))) as pieces:
        for piece in pieces:
            records = learner.encoder.encode(piece)
            testing = rows_for_testing(records["row"], share, seed)
            parts = {"training": records, "testing": records[:0]}
            if testing.any():
                parts = {"training": records[~testing], "testing": records[testing]}
            learner.add(parts["training"])
            yield piece, parts


def _require_share(test_size: float) -> None:
    if not 0 <= test_size < 1:
        raise ValueError(f"test_size={test_size!r} should be a share of the rows, 0 to below 1")
