"""Predictions and metrics in this process: of raw files, and for CSV and Parquet.

Raw files are parsed, and tables are written, as a single stream, so a cluster would only wait. A
thread parses the next batch meanwhile. Memory holds a batch, and a block of rows of X.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.progress import Progress, no_progress
from ooc_train.core.sums import Block, nbytes
from ooc_train.core.text import listed
from ooc_train.core.threads import load_blas, one_blas_thread
from ooc_train.errors import InvalidRun
from ooc_train.inference.file_rows import Path, StoreRows, open_raw_rows
from ooc_train.inference.metrics import PIECE_ROWS, MetricSums
from ooc_train.inference.outputs import BY_CLASS, Kind, Outputs
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, Term
from ooc_train.memory.measured import MemoryReport
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.run_loading import as_fitted
from ooc_train.store.dataset import Store
from ooc_train.store.format.chunk_sizes import default_chunk_rows, default_shard_rows
from ooc_train.store.jobs.raw_rows import FileRows, RawRows
from ooc_train.store.writing.predictions import PredictionWriter
from ooc_train.stream.classes import codes_of_labels
from ooc_train.tables.features import Unseen
from ooc_train.tables.names import format_of, require_predictions_name
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.table_writer import TableWriter, label_column

_BLOCK_COPIES = 4
"""Copies of a block of X: expanded, read, and two in float64."""


def predict_files(
    model: Any,
    data: Store | Path | Sequence[Path],
    out: Path,
    *,
    kinds: Sequence[Kind] = ("prediction",),
    keep: Sequence[str] = (),
    overwrite: bool = False,
    unseen: Unseen | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    memory_ceiling: str | int | Ceiling | None = None,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[int, MemoryReport]:
    """Write predictions for each row, in order: CSV or Parquet by the name of `out`, else Zarr.

    A table has the id of each row: its number, or the id column of the recipe. It has `prediction`
    with original labels, numbered for several outputs. For each class it has `probability_LABEL`
    or `log_probability_LABEL`.

    Parameters
    ----------
    model : Fitted, fitted estimator, or path of a saved run
    data : Store, or paths of raw files
        CSV or Parquet with the raw columns that the model's recipe names.
    out : str or os.PathLike
        The output.
    kinds : sequence of {"prediction", "probability", "log_probability", "decision"}
        Kinds of predictions.
    keep : sequence of str
        Columns of the raw files that the table repeats beside the predictions, such as ids of text.
    overwrite : bool
        Whether an existing output is replaced, once the new one is complete.
    unseen : {"error", "other", "ignore"}, optional
        Treatment of values that no training row had; None is that of the recipe.
    delimiter, encoding : str, optional
        Delimiter and encoding of CSV; by default those of the training files. Where the header
        has the columns of the recipe under another delimiter alone, that one is used, or refused.
    memory_ceiling : str, int, Ceiling or None
        The most memory that this process may hold.
    progress : callable
        Called with the stage ("predicting"), its rows so far, and the fraction done, from 0 to 1.
    warn : callable
        Called where the files lack the ids of the recipe, so that rows are numbered; where the
        recipe drops rows that lack values; and with the precision that numbers of raw files lost in
        the type of the recipe.

    Returns
    -------
    int, MemoryReport
        Rows that were written; ceiling, projection and measurement.

    Raises
    ------
    OutputExists
        If the output exists and `overwrite` is off.
    ValueError
        If the output is named as neither a table nor a store; if columns are to be kept, and the
        data are a store, the output is one, or predictions have their names.
    InvalidRun
        If the data are raw files and the model has no recipe.
    CeilingExceeded
        If the ceiling is too small.
    TableNotFound, InvalidTable, CorruptChunk
        If the data can't be used.

    Examples
    --------
    >>> import pandas as pd
    >>> from ooc_train import LogisticRegression, ingest, predict_files
    >>> table = pd.DataFrame({"x": [0.0, 1.0] * 50, "late": [0, 1] * 50})
    >>> table.to_csv("rows.csv", index=False)
    >>> made = ingest("rows.csv", "rows.zarr", target="late")
    >>> model = LogisticRegression().fit("rows.zarr")
    >>> rows, memory = predict_files(model, "rows.csv", "predicted.csv")
    >>> rows, pd.read_csv("predicted.csv").columns.tolist()
    (100, ['row_id', 'prediction'])
    """
    require_predictions_name(out)
    fitted = as_fitted(model)
    _require_kept(keep, data, out)
    rows: RawRows | StoreRows
    count = 0
    load_blas()
    with one_blas_thread(), Budget(memory_ceiling) as budget:
        if isinstance(data, Store):
            fitted = fitted.for_columns(
                data.feature_names, data.n_features, data.path, data.row_shape
            )
            rows = StoreRows(data)
        else:
            fitted, rows = open_raw_rows(
                fitted, data, False, unseen, delimiter, encoding, warn, keep
            )
        working, outputs = _working(fitted), Outputs.of(fitted)
        available = budget.left([working])
        terms = budget.settle(lambda most: [working, *rows.terms(most - working.bytes)])
        converted = np.empty((_piece_rows(fitted), fitted.n_features))
        with _writer(fitted, kinds, os.fspath(out), overwrite=overwrite) as writer:
            for block in rows.blocks(available):
                z = fitted.decision(block.X, converted, count)
                if isinstance(writer, TableWriter):
                    named = {rows.id_name: block.ids, **block.repeated}
                    predicted = _columns(outputs, z, kinds)
                    if twice := sorted(named.keys() & predicted.keys()):
                        raise ValueError(
                            f"predictions have columns of the names {listed(twice)} themselves; "
                            "leave them out of keep"
                        )
                    writer.write(named | predicted)
                else:
                    found = {kind: outputs.labelled(z, kind) for kind in kinds}
                    writer.write({"row_id": block.ids} | found)
                count += len(block.ids)
                progress("predicting", count, block.share)
            writer.commit()
        return count, budget.report(terms)


def _require_kept(keep: Sequence[str], data: Any, out: Path) -> None:
    """Raise `ValueError` if columns are to be kept, and the data or the output can't have any."""
    is_table = format_of(os.fspath(out)) is not None
    if keep and (isinstance(data, Store) or not is_table):
        store = data.path if isinstance(data, Store) else out
        raise ValueError(
            f"{store} is a store, which has no raw columns to keep: leave keep out, or name a table"
        )


def evaluate_files(
    model: Any,
    paths: Path | Sequence[Path],
    *,
    unseen: Unseen | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    memory_ceiling: str | int | Ceiling | None = None,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[dict[str, Any], MemoryReport]:
    """Return metrics of a model on raw files with the target, as `evaluate` does on a store.

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

    Examples
    --------
    >>> import pandas as pd
    >>> from ooc_train import LogisticRegression, evaluate_files, ingest
    >>> table = pd.DataFrame({"x": [0.0, 1.0] * 50, "late": [0, 1] * 50})
    >>> table.to_csv("rows.csv", index=False)
    >>> made = ingest("rows.csv", "rows.zarr", target="late")
    >>> model = LogisticRegression().fit("rows.zarr")
    >>> metrics, memory = evaluate_files(model, "rows.csv")
    >>> metrics["accuracy"]
    1.0
    """
    fitted = as_fitted(model)
    load_blas()
    with one_blas_thread(), Budget(memory_ceiling) as budget:
        fitted, rows = open_raw_rows(fitted, paths, True, unseen, delimiter, encoding, warn)
        if rows.recipe.target is None:
            raise InvalidRun("the recipe of the run has no target to compare with")
        reduction, sums = MetricSums(fitted, np.zeros(fitted.n_outputs), detailed=True), None
        working = _working(fitted, nbytes(reduction.zeros()))
        available = budget.left([working])
        terms = budget.settle(lambda most: [working, *rows.terms(most - working.bytes)])
        workspace = reduction.workspace(_piece_rows(fitted))
        arrays = {name: np.empty(spec.shape, spec.dtype) for name, spec in workspace.items()}
        count = 0
        for block in rows.blocks(available):
            y = _targets(fitted, rows.recipe, block)
            if sums is None:
                # The mean of the first block is subtracted from y, so that squares lose no digits.
                reduction = replace(reduction, about=y.mean(axis=0))
                sums = reduction.zeros()
            reduction.add(sums, Block(block.X, y, block.weight, ((0, count),)), arrays)
            count += len(y)
            progress("evaluating", count, block.share)
        if sums is None:
            raise InvalidRun("no row is left to evaluate: all lack a value")
        return reduction.evaluation(sums), budget.report(terms)


def _targets(fitted: Fitted, recipe: Recipe, block: FileRows) -> NDArray[np.float64]:
    """Return y for the model, (rows, 1): codes of its classes, or numbers."""
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
    """Return the columns of a table of predictions, from linear predictors (rows, outputs)."""
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
    """Return the rows that are converted to float64 at a time."""
    return min(PIECE_ROWS, default_chunk_rows(fitted.n_features, "float32"))


def _working(fitted: Fitted, sums: int = 0) -> Term:
    """Return the memory of the work on a block of rows, from X to the output or to sums."""
    rows = default_chunk_rows(fitted.n_features, "float32")
    outputs = 8 * (2 + fitted.n_outputs + len(fitted.classes))
    block = rows * (4 * fitted.n_features + outputs)
    piece = 8 * _piece_rows(fitted) * fitted.n_features + fitted.predictor.made_bytes
    size = _BLOCK_COPIES * block + piece + sums
    return Term("working", size, f"{_BLOCK_COPIES} x a block, a piece of it, and sums")
