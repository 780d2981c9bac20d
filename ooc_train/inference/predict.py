"""Predicting and evaluating, for data of any size under a ceiling: one pass each."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.partitions import runs_of_partitions
from ooc_train.core.progress import Progress, no_progress, row_counter
from ooc_train.core.sums import Arrays, ArraySpec, Block, Workspace, total_bytes
from ooc_train.inference.metrics import PIECE_ROWS, MetricSums
from ooc_train.inference.outputs import Kind, Outputs
from ooc_train.memory.ceiling import Ceiling
from ooc_train.memory.measured import MemoryReport
from ooc_train.runs.fitted import Fitted, as_fitted
from ooc_train.runtime.job import Job
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.store.writing.output import OutputStore
from ooc_train.store.writing.predictions import PredictionRows, add_arrays, manifest
from ooc_train.stream.inputs import read_features, read_inputs
from ooc_train.stream.requirements import Requirements
from ooc_train.stream.sources import Source
from ooc_train.stream.store_source import StoreSource

_PIECE_COPIES = 2
"""Of a piece of predictions, where classes become probabilities."""

_RUN_PARTITIONS, _RUN_BYTES = 64, 16 * 2**20
"""Leaves of a task, where no shards say how many, and the most bytes that it is to return."""


def evaluate(
    model: Any,
    data: Any,
    *,
    y: Any = None,
    sample_weight: Any = None,
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
    progress: Progress = no_progress,
) -> tuple[dict[str, Any], MemoryReport]:
    """Return metrics of a model on data with y, and what it took to get them.

    Parameters
    ----------
    model : `Fitted`, a fitted estimator, or the path of a saved run
    data, y, sample_weight : as for `train`
    client, memory_ceiling : as for `train`
    progress : called with the stage, its rows so far, and its share from 0 to 1

    Returns
    -------
    metrics : `n_rows`, `loss`, and `accuracy`, `log_loss`, `roc_auc` with its `roc_auc_error` (two
        classes), or `r2`, `mse`
    memory : ceiling, projection and measurement

    Raises
    ------
    InvalidRun
        where the data have other columns, by name or by number.
    InvalidStore
        where the data have other classes, or no y.
    """
    fitted = as_fitted(model).bare()
    # Decided once: before anything is started, which takes of what is available.
    memory_ceiling = Ceiling.of(memory_ceiling)
    inputs = read_inputs(
        data,
        y,
        sample_weight,
        classifier=fitted.model.is_classifier,
        classes=fitted.classes,
        memory_ceiling=memory_ceiling,
    )
    source = inputs.source
    fitted = fitted.for_columns(inputs.feature_names, source.n_features, inputs.name)
    about = fitted.intercept
    if inputs.statistics is not None:
        about = about + fitted.coef @ inputs.statistics.mean
    reduction = MetricSums(fitted, about[: source.n_outputs])
    requirements = Requirements.of(source, [reduction], parameters=fitted.coef.nbytes)
    with Job(source, client=client, memory_ceiling=memory_ceiling) as job:
        plan = job.plan(requirements)
        add_rows = row_counter(progress, "evaluating", source.n_rows)
        metrics = reduction.metrics(job.stream(plan, add_rows).reduce(reduction))
        return metrics, job.memory(plan)


def predict(
    model: Any,
    data: Any,
    kind: Kind = "prediction",
    *,
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
) -> NDArray[Any]:
    """Return predictions for data of any size, in memory.

    Parameters
    ----------
    model : `Fitted`, a fitted estimator, or the path of a saved run
    data : a store, the path of one, or an array (rows, features) of NumPy or Dask
    kind : what is predicted
    client, memory_ceiling : as for `train`

    Returns
    -------
    array
        "prediction": codes of classes (rows,), or values (rows, outputs); "probability" and
        "log_probability": (rows, classes); "decision": linear predictors (rows, outputs).

    Raises
    ------
    InvalidRun
        where the data have other columns, by name or by number.
    CeilingExceeded
        where the predictions themselves do not fit; write them to a store instead.
    """
    fitted = as_fitted(model).bare()
    rows = read_features(data)
    source = rows.source
    fitted = fitted.for_columns(rows.feature_names, source.n_features, rows.name)
    function = _Collect(fitted, kind)
    is_code = kind == "prediction" and fitted.classes
    shape = () if is_code else (Outputs.of(fitted).width(kind),)
    dtype = np.dtype(np.int64 if is_code else np.float64)
    row_bytes = max(1, int(np.prod(shape))) * dtype.itemsize
    partitions = max(1, min(_RUN_PARTITIONS, _RUN_BYTES // (source.partition_rows * row_bytes)))
    runs = runs_of_partitions(source, partitions)
    requirements = Requirements(
        partition=total_bytes(source.buffers(1)),
        workspace=total_bytes(function.workspace(source.partition_rows)),
        parameters=fitted.coef.nbytes,
        slots=1,
        shared=fitted.coef.nbytes,
        opened=_piece_bytes(fitted, [kind], source),
        result=max(stop - start for start, stop in runs) * row_bytes,
        results=source.n_rows * row_bytes,
    )
    with Job(source, client=client, memory_ceiling=memory_ceiling) as job:
        stream = job.stream(job.plan(requirements))
        found = np.empty((source.n_rows, *shape), dtype)
        for start, rows in stream.map(function, runs):
            found[start : start + len(rows)] = rows
    return found


def predict_store(
    model: Any,
    data: Any,
    out: str | os.PathLike[str],
    *,
    kinds: Sequence[Kind] = ("prediction",),
    overwrite: bool = False,
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
    progress: Progress = no_progress,
) -> MemoryReport:
    """Write predictions for a store to another, which holds an array for each kind.

    Its chunks hold the rows of a partition, and its shards about those of the data's; workers
    write them where they read. `row_id` comes along. Labels that are numbers are written as such;
    of others, the codes, with the labels in the attribute `classes`.

    Parameters
    ----------
    model : `Fitted`, a fitted estimator, or the path of a saved run
    data : a store, the path of one, or an array (rows, features) of NumPy or Dask
    out : the store to make
    kinds : what is predicted, an array each
    overwrite : whether what lies there is replaced
    client, memory_ceiling : as for `train`
    progress : called with the stage, its rows so far, and its share from 0 to 1

    Raises
    ------
    OutputExists
        where something lies there and `overwrite` is not set.
    InvalidRun
        where the data have other columns, by name or by number.
    """
    fitted = as_fitted(model).bare()
    rows = read_features(data)
    source, ids = rows.source, rows.row_id
    fitted = fitted.for_columns(rows.feature_names, source.n_features, rows.name)
    run = _RUN_PARTITIONS
    if isinstance(source, StoreSource):
        run = max(1, source.X.shard_rows // source.partition_rows)
    outputs = Outputs.of(fitted)
    widths = [outputs.width(kind) for kind in kinds]
    requirements = Requirements(
        partition=total_bytes(source.buffers(1)),
        # A chunk of each array, and the ids of a partition.
        workspace=8 * source.partition_rows * (2 + sum(widths))
        + total_bytes(_workspace(fitted, source.partition_rows)),
        parameters=fitted.coef.nbytes,
        slots=1,
        shared=fitted.coef.nbytes,
        opened=_piece_bytes(fitted, kinds, source),
    )
    with (
        Job(source, client=client, memory_ceiling=memory_ceiling) as job,
        OutputStore(out, overwrite=overwrite) as output,
    ):
        plan = job.plan(requirements)
        stream = job.stream(plan, row_counter(progress, "predicting", source.n_rows))
        columns: dict[str, Any] = {kind: outputs.column(kind) for kind in kinds}
        if ids is not None:
            columns["row_id"] = (), np.dtype(ids.dtype)
        partition_rows = source.partition_rows
        layouts = add_arrays(
            output, columns, chunk_rows=partition_rows, shard_rows=run * partition_rows
        )
        function = _Write(fitted, layouts, ids)
        n, shard_rows = source.n_rows, run * partition_rows
        shards = [(first, min(first + shard_rows, n)) for first in range(0, n, shard_rows)]
        for _ in stream.map(function, shards):
            pass
        output.commit(source.n_rows, manifest(source.n_rows, fitted.classes, fitted.model.name))
        return job.memory(plan)


def _piece_bytes(fitted: Fitted, kinds: Sequence[Kind], source: Source) -> int:
    """Return the bytes of a piece of predictions as they are made, of one kind after another."""
    outputs = Outputs.of(fitted)
    widths = [max(outputs.width(kind), fitted.n_outputs) for kind in kinds]
    rows = min(PIECE_ROWS, source.partition_rows)
    return 8 * rows * _PIECE_COPIES * (max(widths) + sum(widths))


def _workspace(fitted: Fitted, rows: int) -> Workspace:
    """Return the arrays in which rows are converted, for blocks of at most `rows` rows."""
    return {"converted": ArraySpec((min(rows, PIECE_ROWS), fitted.n_features))}


@dataclass(frozen=True, eq=False)
class _Collect:
    """Predictions of a run of rows, to travel back to the driver."""

    fitted: Fitted
    kind: Kind

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays in which rows are converted, for blocks of at most `rows` rows."""
        return _workspace(self.fitted, rows)

    def run(self, blocks: Iterator[Block], workspace: Arrays) -> tuple[int, NDArray[Any]]:
        """Return the first row of a run, and predictions for all of it."""
        parts, start, outputs = [], -1, Outputs.of(self.fitted)
        for block in blocks:
            first = block.row_number(0)
            start = first if start < 0 else start
            # In pieces: of many classes, predictors may be many times the rows.
            for row in range(0, block.n_rows, PIECE_ROWS):
                X = block.X[row : row + PIECE_ROWS]
                z = self.fitted.predictor.decision(X, workspace["converted"], first + row)
                parts.append(outputs.at(z, self.kind))
        return start, np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class _Write:
    """Predictions of a shard, written where they are made."""

    fitted: Fitted
    layouts: Mapping[str, ArrayLayout]
    ids: ArrayLayout | None

    def workspace(self, rows: int) -> Workspace:
        """Return the arrays in which rows are converted, for blocks of at most `rows` rows."""
        return _workspace(self.fitted, rows)

    def run(self, blocks: Iterator[Block], workspace: Arrays) -> int:
        """Write one shard of each array, and return its number of rows."""
        outputs = Outputs.of(self.fitted)
        leading = next(blocks)
        first = leading.row_number(0)
        shard_rows = next(iter(self.layouts.values())).shard_rows
        with ExitStack() as stack:
            ids = None if self.ids is None else stack.enter_context(ChunkReader(self.ids))
            writer = stack.enter_context(PredictionRows(self.layouts, first // shard_rows))
            for block in chain([leading], blocks):
                start, stop = block.row_number(0), block.row_number(block.n_rows - 1) + 1
                if ids is not None:
                    numbers = np.empty(stop - start, self.layouts["row_id"].dtype)
                    ids.read_rows(start, stop, numbers)
                # In pieces: of many classes, the predictions of a partition may be many times its
                # rows.
                for row in range(0, block.n_rows, PIECE_ROWS):
                    X = block.X[row : row + PIECE_ROWS]
                    z = self.fitted.predictor.decision(X, workspace["converted"], start + row)
                    columns = {
                        name: outputs.labelled(z, cast("Kind", name))
                        for name in self.layouts.keys() - {"row_id"}
                    }
                    if ids is not None:
                        columns["row_id"] = numbers[row : row + PIECE_ROWS]
                    writer.write(columns)
            writer.commit()
            return writer.n_rows - first
