"""`ingest`: raw files in, stores out, in two passes.

The first pass reads the files once. It encodes rows as records, and adds them to an external
shuffle, which decides the stores' order. The recipe is learned from the training rows. The second
pass reads the records back, and the recipe turns each into a row of X.
"""

import operator
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from ooc_train.core.output_kinds import STORE, require_output
from ooc_train.core.places import local_path
from ooc_train.core.progress import Progress, no_progress, row_counter
from ooc_train.core.text import counted, html_table
from ooc_train.errors import InvalidTable
from ooc_train.images.open_images import are_images
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, Term
from ooc_train.memory.measured import MemoryReport
from ooc_train.store.dataset import Store
from ooc_train.store.format.pairs import finish_pair
from ooc_train.store.jobs.external_shuffle import ExternalShuffle
from ooc_train.store.jobs.ingest_limits import require_disk, require_few_categories
from ooc_train.store.jobs.ingest_memory import (
    CATEGORY_COPIES,
    IngestMemory,
    expected_bytes,
    ingest_writing_term,
    row_bytes,
)
from ooc_train.store.jobs.ingest_notes import losses, notes, size_of
from ooc_train.store.jobs.ingest_reading import (
    PathLike,
    make_schema,
    read_pieces,
    read_with_widening,
    recipe_of,
)
from ooc_train.store.jobs.ingest_storage import (
    CodecOption,
    StorageOptions,
    commit_stores,
    free_disk,
)
from ooc_train.store.jobs.ingest_writing import feature_rows, first_chunk, ingest_writer
from ooc_train.store.jobs.train_test_split import (
    pairs_of,
    path_for_testing,
    require_test_size,
)
from ooc_train.tables.batches import Tables
from ooc_train.tables.cell_formats import CellFormats
from ooc_train.tables.features import Unseen
from ooc_train.tables.fixed_schema import Schema
from ooc_train.tables.names import Missing, as_paths
from ooc_train.tables.open_tables import open_tables
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.roles import Roles, Task
from ooc_train.tables.schema_inference import SchemaInference


@dataclass(frozen=True, repr=False)
class Ingested:
    """The result of `ingest`.

    Parameters
    ----------
    store : Store
        The training rows.
    test : Store or None
        The test rows, in a store of their own.
    recipe : Recipe
        How raw columns became features.
    memory : MemoryReport
        Ceiling, projection and measurement of the job.
    dropped : int
        Rows left out because of missing values.
    notes : tuple of str
        Notes for the user, for example on constant columns.
    losses : tuple of str
        Notes on different numbers that may have become equal by rounding.
    """

    store: Store
    test: Store | None
    recipe: Recipe
    memory: MemoryReport
    dropped: int
    notes: tuple[str, ...]
    losses: tuple[str, ...] = ()

    def __repr__(self) -> str:
        test = "" if self.test is None else f", {counted(self.test.n_rows, 'test row')}"
        dropped = counted(self.dropped, "row")
        return f"<Ingested: {self.store!r}{test}, {dropped} dropped; {self.memory}>"

    def _repr_html_(self) -> str:
        """Return the store, the notes and the memory as HTML, for notebooks."""
        rows = [("note", note) for note in (*self.notes, *self.losses)]
        rows.insert(0, ("rows dropped", f"{self.dropped:,}"))
        if self.test is not None:
            rows.insert(0, ("test rows", f"{self.test.n_rows:,} in {self.test.path}"))
        return f"{self.store._repr_html_()}{html_table(rows)}{self.memory._repr_html_()}"


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
    formats: CellFormats | None = None,
    like: "Recipe | Store | PathLike | None" = None,
    test_size: float = 0.0,
    shuffle: bool = True,
    random_state: int = 0,
    chunk_rows: int | None = None,
    shard_rows: int | None = None,
    codec: CodecOption = "auto",
    delimiter: str | None = None,
    encoding: str | None = None,
    memory_ceiling: str | int | Ceiling | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
    say: Callable[[str], None] = lambda _: None,
    warn: Callable[[str], None] = warnings.warn,
) -> Ingested:
    """Write a store from raw files, CSV or Parquet, of any size.

    The disk holds the stores and, until the job ends, the records of all rows.

    Parameters
    ----------
    paths : str, os.PathLike or sequence of these
        Files, patterns or folders.
    out : str or os.PathLike
        Path of the store, such as "flights.zarr". Test rows go to "flights.test.zarr".
    target : str, optional
        The column to predict.
    features : sequence of str, optional
        The columns that become features, in this order. None is all columns without another role,
        except the index of a pandas frame.
    drop : sequence of str
        Columns that are left out.
    categorical : sequence of str
        Columns of which each value becomes a feature, besides those that the files declare.
    id_column : str, optional
        Whole numbers that identify rows. None numbers the rows of the files.
    sample_weight : str, optional
        The column of weights.
    task : {"auto", "classification", "regression"}
        Whether the values of the target are labels. auto: text and booleans are.
    missing : {"error", "drop", "mean", "median"}
        Missing values: refused, their rows left out, or filled by that of the training rows. With
        the last two a missing category becomes a category of its own.
    unseen : {"error", "other", "ignore"}
        Categories that no training row had: refused, a feature "other", or zeros alone.
    min_count : int
        Categories with fewer training rows count as unseen.
    dtype : {"auto", "float32", "float64"}
        Type of X. auto is float32, or float64 where float32 would make different numbers equal:
        integers beyond 2**24, and columns that span few steps of float32. In that case, the files
        are read once more.
    formats : CellFormats, optional
        How numbers, dates, and yes and no are written in text, as with decimal commas. The recipe
        keeps them.
    like : Recipe, Store, or path of a store or a run, optional
        Source of a recipe to apply. Then none is learned, and the settings above must be left out.
    test_size : float
        Fraction of the test rows, from 0 to below 1: one random row of each run of
        ``1 / test_size``. Nothing is learned from them.
    shuffle : bool
        Put the rows in random order; otherwise they keep theirs.
    random_state : int
        Seed of the order and of the test rows, at least 0. The ceiling changes neither.
    chunk_rows, shard_rows : int, optional
        Rows of a chunk and of a shard, as in `StoreWriter`.
    codec : {"auto", "none", "lz4", "zstd"}
        Codec of the chunks. auto is lz4 if it shrinks the first chunk by a factor of 1.3.
    delimiter, encoding : str, optional
        Delimiter and encoding of CSV; by default those of `like`, or a comma (a tab for .tsv) and
        UTF-8. The recipe keeps them.
    memory_ceiling : str, int or Ceiling, optional
        Bytes, or text such as "1GiB"; by default half of the available memory.
    overwrite : bool
        Whether existing stores are replaced, once the new ones are complete.
    progress : callable
        Called with the stage ("reading" or "writing"), its rows so far, and the fraction done.
    say : callable
        Called with a line on the size of the store, before it is written.
    warn : callable
        Called with each of the `losses`.

    Raises
    ------
    TableNotFound, InvalidTable
        If files, columns or values can't be used. The message says where, and what to do.
    OutputExists
        If something exists at the path of a store.
    CeilingExceeded
        If the ceiling is too small, before more than the first block is read; or if there are too
        many categories for it.
    OSError
        If the disk is too small, full or not writable; what was there stays.
    ValueError
        If a setting is wrong.

    Examples
    --------
    >>> import pandas as pd
    >>> from ooc_train import ingest
    >>> hours, carriers = [6, 12, 18] * 50, ["UA", "B6"] * 75
    >>> table = pd.DataFrame({"hour": hours, "carrier": carriers, "late": [0, 1, 1] * 50})
    >>> table.to_csv("flights.csv", index=False)
    >>> made = ingest("flights.csv", "flights.zarr", target="late", categorical=["carrier"])
    >>> made.store.n_rows, made.store.feature_names
    (150, ('hour', 'carrier=B6', 'carrier=UA'))
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
        formats=formats or CellFormats(),
    )
    options = StorageOptions(operator.index(random_state), shuffle, chunk_rows, shard_rows, codec)
    require_test_size(test_size)
    outputs = {"training": local_path(out)}
    if test_size:
        outputs["testing"] = path_for_testing(outputs["training"])
    # An ingest killed between its two renames gets its second store first.
    finish_pair(outputs["training"])
    for path in outputs.values():
        require_output(path, STORE, overwrite=overwrite)
    paths = as_paths(paths)
    _require_no_images(paths)
    with Budget(memory_ceiling) as budget:
        known = None if like is None else recipe_of(like)
        tables = open_tables(paths, delimiter=delimiter, encoding=encoding, recipe=known)
        job = _Job(tables, roles, outputs, options, test_size, overwrite, progress, say)
        result = read_with_widening(
            lambda dtype: make_schema(roles, known, tables, dtype),
            lambda schema, widened: job.run(budget, schema, widened),
        )
    for loss in result.losses:
        warn(loss)
    return result


def _require_no_images(paths: Sequence[str]) -> None:
    """Raise `InvalidTable` if the first path is a file of images or labels."""
    if paths and os.path.isfile(paths[0]) and are_images(paths):
        raise InvalidTable(
            f"{paths[0]} holds images or labels, and no table; use "
            "ooc_train.ingest_images(images, out, labels)"
        )


@dataclass(frozen=True)
class _Job:
    """The settings of one ingest."""

    tables: Tables
    roles: Roles
    outputs: dict[str, str]
    options: StorageOptions
    test_size: float
    overwrite: bool
    progress: Progress
    say: Callable[[str], None]

    def run(self, budget: Budget, schema: Schema, widened: str | None) -> Ingested:
        """Run both passes; `widened` states why X is float64, if `dtype` was "auto"."""
        outputs, options = self.outputs, self.options
        with ExitStack() as stack:
            memory = IngestMemory.of(self.tables, schema, options.chunk_rows, len(outputs))
            strict = isinstance(schema, SchemaInference) and schema.strict
            terms = budget.settle(
                memory.terms,
                "" if options.chunk_rows is None else "use smaller chunks",
                worst=memory.widened().terms if strict else None,
            )
            rows = memory.batch_rows(max(0, budget.left([])))
            bytes_of = {term.name: term.bytes for term in terms}
            shuffles = {
                name: stack.enter_context(
                    ExternalShuffle(
                        schema.encoder.dtype,
                        os.path.dirname(path),
                        memory_bytes=bytes_of["scattering"] // len(outputs),
                        seed=options.random_state if options.shuffled else None,
                        expected_bytes=expected_bytes(self.tables, schema),
                    )
                )
                for name, path in outputs.items()
            }
            self._read(schema, shuffles, bytes_of["categories"], rows)
            lost = tuple(losses(schema))
            recipe = schema.recipe(shuffles["training"].blocks, bytes_of["medians"])
            n_rows = shuffles["training"].n_rows
            options = options.with_chunk_rows(recipe.n_features, recipe.dtype, n_rows)
            known = CATEGORY_COPIES * schema.nbytes
            why = "their values, and names and statistics of columns, also as JSON"
            writing = ingest_writing_term(options.chunk_rows or 1, row_bytes(recipe), len(outputs))
            known_terms = {"categories": Term("categories", known, why), "writing": writing}
            terms = [known_terms.get(term.name, term) for term in terms]
            budget.require(terms)
            # Some notes read the first rows again, which may fail: before a store is there.
            other_notes = tuple(notes(schema, recipe, self.roles, self.tables, widened))
            stores = self._write_stores(schema, shuffles, recipe, options)
            return Ingested(
                stores["training"],
                stores.get("testing"),
                recipe,
                budget.report(terms),
                schema.encoder.dropped,
                (*lost, *other_notes),
                lost,
            )

    def _read(
        self,
        schema: Schema,
        shuffles: Mapping[str, ExternalShuffle],
        category_bytes: int,
        rows: int,
    ) -> None:
        """Run the first pass: add the records of all files to the shuffles."""
        read = read_pieces(self.tables, schema, self.test_size, self.options.random_state, rows)
        for piece, parts in read:
            for name, shuffle in shuffles.items():
                shuffle.add(parts[name])
            require_few_categories(schema, category_bytes)
            self.progress("reading", piece.start + piece.batch.num_rows, piece.share)
        for name, shuffle in shuffles.items():
            if not shuffle.n_rows:
                raise InvalidTable(
                    f"no row is left for {name}; use more rows, another test_size, or another "
                    "treatment of missing values"
                )

    def _write_stores(
        self,
        schema: Schema,
        shuffles: Mapping[str, ExternalShuffle],
        recipe: Recipe,
        options: StorageOptions,
    ) -> dict[str, Store]:
        """Run the second pass: write the stores from the records."""
        n_rows = sum(shuffle.n_rows for shuffle in shuffles.values())
        path = self.outputs["training"]
        self.say(size_of(recipe, n_rows, free_disk(path)))
        first = first_chunk(shuffles["training"], recipe, schema, options)
        chosen = options.codec != "auto"
        options, share = options.with_codec(first)
        require_disk(path, recipe, n_rows, share=share, chosen=chosen)
        del first
        pairs = pairs_of(self.outputs)
        add_rows = row_counter(self.progress, "writing", n_rows)
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(
                    ingest_writer(
                        path,
                        recipe,
                        schema,
                        options,
                        n_rows=shuffles[name].n_rows,
                        overwrite=self.overwrite,
                        pair=pairs.get(name),
                    )
                )
                for name, path in self.outputs.items()
            }
            for name, writer in writers.items():
                with closing(feature_rows(shuffles[name], recipe, schema, options)) as rows:
                    for row in rows:
                        writer.write(**row)
                        add_rows(len(row["X"]))
            return commit_stores(writers, self.outputs)
