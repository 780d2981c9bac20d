"""Predictions and metrics in this process alone: of raw files, and into CSV and Parquet.

Raw files are parsed in one stream, and tables are written in one: a cluster would wait for both.
Parsing runs ahead in a thread; what is held is a batch of it, and a block of rows of X.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.prefetch import prefetched
from ooc_train.core.progress import Progress, no_progress
from ooc_train.core.sums import Block
from ooc_train.core.text import listed
from ooc_train.core.threads import load_blas, one_blas_thread
from ooc_train.errors import InvalidRun
from ooc_train.inference.metrics import PIECE_ROWS, MetricSums
from ooc_train.inference.outputs import BY_CLASS, Kind, Outputs
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, Term
from ooc_train.memory.measured import MemoryReport
from ooc_train.runs.fitted import Fitted, as_fitted
from ooc_train.store.dataset import Store
from ooc_train.store.format.chunk_sizes import default_chunk_rows, default_shard_rows
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.store.writing.predictions import PredictionWriter
from ooc_train.stream.classes import codes_of_labels
from ooc_train.stream.store_source import StoreSource
from ooc_train.tables.batches import Tables
from ooc_train.tables.features import Unseen
from ooc_train.tables.names import format_of
from ooc_train.tables.open_tables import open_tables
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.table_writer import TableWriter, label_column

Path = str | os.PathLike[str]
"""Takes the rows so far, and how much of all that is, from 0 to 1."""

_BATCH_COPIES = 6
"""Of a batch: as Arrow has it, column by column in float64, as records, and as it is written."""

_BLOCK_COPIES = 4
"""Of a block of X: as it is expanded and read, and what becomes of it in float64."""


@dataclass(frozen=True)
class _Rows:
    """A block of rows: X (row, feature), and what is known of them."""

    ids: NDArray[np.int64]
    X: NDArray[np.floating]
    y: NDArray[np.float64] | None = None
    weight: NDArray[np.float64] | None = None
    share: float = 1.0


@dataclass(frozen=True)
class _RawRows:
    """The rows of raw files, as a recipe makes them.

    Parameters
    ----------
    tables : Tables
    recipe : Recipe
    needs_y : bool
        Whether the target and the weights are wanted.
    unseen : {"error", "other", "ignore"}, optional
        Takes the place of the recipe's.
    warn : callable
        Called, after the last row, with what numbers lost in the recipe's dtype.
    """

    tables: Tables
    recipe: Recipe
    needs_y: bool = False
    unseen: Unseen | None = None
    warn: Callable[[str], None] = warnings.warn

    @property
    def id_name(self) -> str:
        """What the ids of rows are called."""
        return self.recipe.id_column or "row_id"

    def terms(self, room: int) -> list[Term]:
        """List what reading them holds, of so many bytes: at most those, or the least."""
        return self.tables.reading_memory.terms(self._batch_rows(room), _BATCH_COPIES)

    def _batch_rows(self, room: int) -> int:
        reading = self.tables.reading_memory

        def held(rows: int) -> int:
            return sum(term.bytes for term in reading.terms(rows, _BATCH_COPIES))

        return reading.batch_rows(room, held)

    def blocks(self, room: int) -> Iterator[_Rows]:
        """Give the rows, in the order of the files, and hold no more than `terms` says."""
        encoder = self.recipe.encoder(needs_y=self.needs_y, unseen=self.unseen)
        step = default_chunk_rows(self.recipe.n_features, self.recipe.dtype)
        fields = encoder.dtype.names or ()
        with closing(
            prefetched(self.tables.pieces(encoder.types, self._batch_rows(room)))
        ) as pieces:
            for piece in pieces:
                records = encoder.encode(piece)
                for start in range(0, len(records), step):
                    part = records[start : start + step]
                    yield _Rows(
                        part["id"] if "id" in fields else part["row"],
                        self.recipe.expand(part),
                        part["y"] if "y" in fields else None,
                        part["weight"] if "weight" in fields else None,
                        piece.share,
                    )
        for loss in encoder.rounding.losses():
            self.warn(
                f"{loss}, as the model's recipe has it: numbers that differ may have become the "
                "same; learn from rows that were ingested with --dtype float64"
            )


@dataclass(frozen=True)
class _StoreRows:
    """The rows of a store, read one chunk after another."""

    store: Store
    id_name = "row_id"

    def terms(self, room: int) -> list[Term]:
        """List what reading them holds, however much room there is."""
        del room
        source = StoreSource.of(self.store, needs_y=False)
        room = sum(room.nbytes for room in source.buffers(1).values()) + source.hidden_bytes
        return [Term("reading", room, "a chunk")]

    def blocks(self, room: int) -> Iterator[_Rows]:
        """Give the rows, in the order of the store."""
        del room
        source = StoreSource.of(self.store, needs_y=False)
        arrays = {
            name: np.empty(room.shape, room.dtype) for name, room in source.buffers(1).items()
        }
        reader, layout, start = source.reader(), self.store.row_id, 0
        ids_of = None if layout is None else ChunkReader(layout)
        for block in reader.run(range(source.n_partitions), arrays):
            stop = start + block.n_rows
            ids = np.arange(start, stop)
            if ids_of is not None:
                ids_of.read_rows(start, stop, ids)
            yield _Rows(ids, block.X, share=stop / self.store.n_rows)
            start = stop
        source.require_same()
        if ids_of is not None:
            ids_of.require_same()


def predict_files(
    model: Any,
    data: Store | Path | Sequence[Path],
    out: Path,
    *,
    kinds: Sequence[Kind] = ("prediction",),
    overwrite: bool = False,
    unseen: Unseen | None = None,
    delimiter: str | None = None,
    encoding: str = "utf8",
    memory_ceiling: str | int | Ceiling | None = None,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[int, MemoryReport]:
    """Write predictions for each row, in order: CSV or Parquet by the name of `out`, else Zarr.

    A table has the id of each row (its number, or the recipe's id column), `prediction` with the
    original labels, or numbered where there are several outputs, and `probability_LABEL` or
    `log_probability_LABEL` of each class.

    Parameters
    ----------
    model : Fitted, fitted estimator, or path of a saved run
    data : Store, or paths of raw files
        CSV or Parquet with the raw columns that the model's recipe names.
    out : str or os.PathLike
    kinds : sequence of {"prediction", "probability", "log_probability", "decision"}
    overwrite : bool
        Whether what lies there is replaced, once this is whole.
    unseen : {"error", "other", "ignore"}, optional
        What becomes of values that no training row had; by default as the recipe says.
    delimiter, encoding : str
        Of CSV.
    memory_ceiling : str, int, Ceiling or None
    progress : callable
        Called with the stage ("predicting"), its rows so far, and its share from 0 to 1.
    warn : callable
        Called with what numbers of raw files lost in the recipe's dtype.

    Returns
    -------
    int, MemoryReport
        Rows that were written; ceiling, projection and measurement.

    Raises
    ------
    OutputExists
        If something lies there and `overwrite` is off.
    InvalidRun
        If the model has no recipe, and the data are raw.
    CeilingExceeded
        If the ceiling is too small.
    TableNotFound, InvalidTable, CorruptChunk
        Data that can't be used.
    """
    fitted = as_fitted(model)
    rows: _RawRows | _StoreRows
    count = 0
    load_blas()
    with one_blas_thread(), Budget(memory_ceiling) as budget:
        if isinstance(data, Store):
            fitted = fitted.for_columns(data.feature_names, data.n_features, data.path)
            rows = _StoreRows(data)
        else:
            fitted, rows = _raw_rows(fitted, data, False, unseen, delimiter, encoding, warn)
        working, outputs = _working(fitted), Outputs.of(fitted)
        room = budget.left([working])
        terms = budget.settle(lambda room: [working, *rows.terms(room - working.bytes)])
        converted = np.empty((_piece_rows(fitted), fitted.n_features))
        with _writer(fitted, kinds, os.fspath(out), overwrite=overwrite) as writer:
            for block in rows.blocks(room):
                z = fitted.predictor.decision(block.X, converted, count)
                if isinstance(writer, TableWriter):
                    writer.write({rows.id_name: block.ids} | _columns(outputs, z, kinds))
                else:
                    found = {kind: outputs.labelled(z, kind) for kind in kinds}
                    writer.write({"row_id": block.ids} | found)
                count += len(block.ids)
                progress("predicting", count, block.share)
            writer.commit()
        return count, budget.report(terms)


def evaluate_files(
    model: Any,
    paths: Path | Sequence[Path],
    *,
    unseen: Unseen | None = None,
    delimiter: str | None = None,
    encoding: str = "utf8",
    memory_ceiling: str | int | Ceiling | None = None,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[dict[str, Any], MemoryReport]:
    """Return metrics of a model on raw files that have the target, as `evaluate` does on a store.

    Parameters
    ----------
    model, paths, unseen, delimiter, encoding, memory_ceiling, progress, warn
        As of `predict_files`.

    Raises
    ------
    InvalidRun
        If the model has no recipe, or one without a target.
    CeilingExceeded, TableNotFound, InvalidTable
        As `predict_files`.
    """
    fitted = as_fitted(model)
    load_blas()
    with one_blas_thread(), Budget(memory_ceiling) as budget:
        fitted, rows = _raw_rows(fitted, paths, True, unseen, delimiter, encoding, warn)
        if rows.recipe.target is None:
            raise InvalidRun("the recipe of the run has no target to compare with")
        working = _working(fitted)
        room = budget.left([working])
        terms = budget.settle(lambda room: [working, *rows.terms(room - working.bytes)])
        reduction, sums = MetricSums(fitted, fitted.intercept), None
        of_piece = reduction.workspace(_piece_rows(fitted))
        arrays = {name: np.empty(r.shape, r.dtype) for name, r in of_piece.items()}
        count = 0
        for block in rows.blocks(room):
            y = _outcomes(fitted, rows.recipe, block)
            if sums is None:
                # Squares lose no digits if something near the mean of y is taken off first.
                reduction = MetricSums(fitted, y.mean(axis=0))
                sums = reduction.zeros()
            reduction.add(sums, Block(block.X, y, block.weight, ((0, count),)), arrays)
            count += len(y)
            progress("evaluating", count, block.share)
        if sums is None:
            raise InvalidRun("no row is left to evaluate: all lack a value")
        return reduction.metrics(sums), budget.report(terms)


def _raw_rows(
    fitted: Fitted,
    paths: Path | Sequence[Path],
    needs_y: bool,
    unseen: Unseen | None,
    delimiter: str | None,
    encoding: str,
    warn: Callable[[str], None],
) -> tuple[Fitted, _RawRows]:
    """Return the rows of raw files, and the model for the columns that its recipe makes."""
    if fitted.recipe is None:
        raise InvalidRun(
            "the model has no recipe for raw files: the columns that it was trained on were not "
            "made by ingest; give it a store of the same columns, or train on an ingested one"
        )
    try:
        recipe = Recipe.from_json(fitted.recipe)
    except ValueError as error:
        raise InvalidRun(f"the run's recipe can't be used: {error}") from None
    fitted = fitted.for_columns(recipe.feature_names, recipe.n_features, "its recipe")
    tables = open_tables(paths, delimiter=delimiter, encoding=encoding)
    return fitted, _RawRows(tables, recipe, needs_y, unseen, warn)


def _outcomes(fitted: Fitted, recipe: Recipe, block: _Rows) -> NDArray[np.float64]:
    """Return y as models take it, (row, 1): codes of the model's classes, or numbers."""
    y = np.zeros(len(block.ids)) if block.y is None else block.y
    if fitted.model.is_classifier:
        labels = np.asarray(fitted.classes)
        if recipe.classes is None:
            y = codes_of_labels(labels, y).astype(np.float64)
        elif recipe.classes != fitted.classes:
            raise InvalidRun(
                f"the recipe has the classes {listed(recipe.classes)} and the model "
                f"{listed(fitted.classes)}; use the recipe that the model was trained with"
            )
    return y[:, np.newaxis]


def _columns(outputs: Outputs, z: NDArray[np.float64], kinds: Sequence[Kind]) -> dict[str, Any]:
    """Return the columns of a table of predictions, from linear predictors (row, output)."""
    columns: dict[str, Any] = {}
    for kind in kinds:
        found = outputs.at(z, kind)
        if kind in BY_CLASS:
            names = [f"{kind}_{label}" for label in outputs.classes]
        elif found.ndim == 1:
            columns[kind] = label_column(outputs.classes, found)
            continue
        else:
            n = found.shape[1]
            names = [kind] if n == 1 else [f"{kind}_{i}" for i in range(n)]
        columns |= {name: found[:, i] for i, name in enumerate(names)}
    return columns


def _writer(
    fitted: Fitted, kinds: Sequence[Kind], out: str, *, overwrite: bool
) -> TableWriter | PredictionWriter:
    if format_of(out) is not None:
        return TableWriter(out, overwrite=overwrite)
    columns: dict[str, Any] = {kind: Outputs.of(fitted).column(kind) for kind in kinds}
    columns["row_id"] = (), np.dtype("int64")
    chunk_rows = default_chunk_rows(fitted.n_features, "float32")
    return PredictionWriter(
        out,
        columns,
        chunk_rows=chunk_rows,
        shard_rows=default_shard_rows(fitted.n_features, "float32", chunk_rows),
        classes=fitted.classes,
        model=fitted.model.name,
        overwrite=overwrite,
    )


def _piece_rows(fitted: Fitted) -> int:
    """Rows that are taken into float64 at a time: no more than a block has."""
    return min(PIECE_ROWS, default_chunk_rows(fitted.n_features, "float32"))


def _working(fitted: Fitted) -> Term:
    """Return what a block of rows takes, from X to what is written of it."""
    rows = default_chunk_rows(fitted.n_features, "float32")
    outputs = 8 * (2 + fitted.n_outputs + len(fitted.classes))
    block = rows * (4 * fitted.n_features + outputs)
    piece = 8 * _piece_rows(fitted) * fitted.n_features
    return Term(
        "working", _BLOCK_COPIES * block + piece, f"{_BLOCK_COPIES} x a block, and a piece of it"
    )
