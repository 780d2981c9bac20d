"""Raw files in, a store out: a first pass learns the recipe, a second writes.

The first pass reads the files once. It turns rows into records, which it spools on disk in the
random order that the store will have, and adds up what training rows hold. From then on the files
aren't needed: the second pass reads the spool, and each record becomes a row of X by the recipe.
"""

import operator
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from ooc_train.core.joint_commits import commit_together
from ooc_train.core.output_kinds import STORE, require_output
from ooc_train.core.places import local_path
from ooc_train.core.progress import Progress, no_progress, row_counter
from ooc_train.errors import InvalidTable
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, Term
from ooc_train.memory.measured import MemoryReport
from ooc_train.store.dataset import Store
from ooc_train.store.format.pairs import StorePair, finish_pair, new_pair_id
from ooc_train.store.jobs.external_shuffle import ExternalShuffle
from ooc_train.store.jobs.ingest_limits import free_disk, require_disk, require_few_categories
from ooc_train.store.jobs.ingest_memory import (
    CATEGORY_COPIES,
    IngestMemory,
    expected_bytes,
    ingest_writing_term,
    row_bytes,
)
from ooc_train.store.jobs.ingest_notes import losses, notes, size_of
from ooc_train.store.jobs.ingest_reading import PathLike, make_learner, read_pieces, with_widening
from ooc_train.store.jobs.ingest_writing import (
    CodecOption,
    StorageOptions,
    expanded,
    first_chunk,
    writer_of,
)
from ooc_train.store.jobs.train_test_split import path_for_testing, require_test_size
from ooc_train.store.opening.opener import open_store
from ooc_train.tables.batches import Tables, open_tables
from ooc_train.tables.features import Missing, Unseen
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.roles import Roles, Task
from ooc_train.tables.schema_inference import Known, Survey

__all__ = ["Ingested", "ingest"]


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


def ingest(
    paths: PathLike | Sequence[PathLike],
    out: PathLike,
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
    like: "Recipe | Store | PathLike | None" = None,
    test_size: float = 0.0,
    shuffle: bool = True,
    random_state: int = 0,
    chunk_rows: int | None = None,
    shard_rows: int | None = None,
    codec: CodecOption = "auto",
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
    layout = StorageOptions(operator.index(random_state), shuffle, chunk_rows, shard_rows, codec)
    require_test_size(test_size)
    outputs = {"training": local_path(out)}
    if test_size:
        outputs["testing"] = path_for_testing(outputs["training"])
    # Of an ingest that was killed between its two stores: both or none.
    finish_pair(outputs["training"])
    for path in outputs.values():
        require_output(path, STORE, overwrite=overwrite)
    with Budget(memory_ceiling) as budget:
        tables = open_tables(paths, delimiter=delimiter, encoding=encoding)
        job = _Job(tables, roles, outputs, layout, test_size, overwrite, progress, say)
        made = with_widening(
            lambda dtype: make_learner(roles, like, tables, dtype),
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
    layout: StorageOptions
    test_size: float
    overwrite: bool
    progress: Progress
    say: Callable[[str], None]

    def made(self, budget: Budget, learner: Survey | Known, widened: str | None) -> Ingested:
        """Make them; `widened` says why X is of another dtype than it would be."""
        outputs, layout = self.outputs, self.layout
        with ExitStack() as stack:
            shape = IngestMemory.of(self.tables, learner, layout.chunk_rows, len(outputs))
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
                    ExternalShuffle(
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
            writing = ingest_writing_term(layout.chunk_rows or 1, row_bytes(recipe), len(outputs))
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
        self, learner: Survey | Known, spools: Mapping[str, ExternalShuffle], room: int, rows: int
    ) -> None:
        """Bring the rows of all files to the disk, as records."""
        read = read_pieces(self.tables, learner, self.test_size, self.layout.random_state, rows)
        for piece, parts in read:
            for name, spool in spools.items():
                spool.add(parts[name])
            require_few_categories(learner, room)
            self.progress("reading", piece.start + piece.batch.num_rows, piece.share)
        for name, spool in spools.items():
            if not spool.n_rows:
                raise InvalidTable(
                    f"no row is left for {name}; use more rows, or another test_size, or another "
                    "way with missing values"
                )

    def _written(
        self,
        learner: Survey | Known,
        spools: Mapping[str, ExternalShuffle],
        recipe: Recipe,
        layout: StorageOptions,
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
                writers[name].finalize()
            commit_together([writers[name].output for name in names])
            return {name: open_store(self.outputs[name]) for name in names}

    def _pairs(self) -> dict[str, StorePair]:
        """Return what each of two stores says of the other; nothing where there is one."""
        id_, names = new_pair_id(), {name: os.path.basename(p) for name, p in self.outputs.items()}
        others = {"training": "testing", "testing": "training"}
        return {name: StorePair(id_, names[others[name]]) for name in names if len(names) > 1}
