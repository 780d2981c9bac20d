"""Predictions and metrics for data of any size under a ceiling, by one pass each."""

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
from ooc_train.inference.group_metrics import MOST_GROUPS, GroupedSums
from ooc_train.inference.grouping import row_groups
from ooc_train.inference.metrics import PIECE_ROWS, MetricSums
from ooc_train.inference.outputs import Kind, Outputs
from ooc_train.memory.ceiling import Ceiling
from ooc_train.memory.measured import MemoryReport
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.run_loading import as_fitted
from ooc_train.runtime.job import Job
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.format.shares import StoreShare
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.store.writing.output import OutputStore
from ooc_train.store.writing.predictions import PredictionRows, add_arrays, manifest, row_ids
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.inputs import read_features, read_inputs
from ooc_train.stream.requirements import Requirements, loads_of
from ooc_train.stream.sources import Source
from ooc_train.stream.store_source import StoreSource

_PIECE_COPIES = 2
"""Copies of a piece of predictions, while codes or probabilities are made of it."""

_RUN_PARTITIONS, _RUN_BYTES = 64, 16 * 2**20
"""Partitions of a task for data without shards, and most bytes of its result."""

_FEWEST_TASKS = 4
"""Tasks of small data, whose single shard would be work for one thread; one costs about 10 ms."""


def evaluate(
    model: Any,
    data: Any,
    *,
    y: Any = None,
    sample_weight: Any = None,
    by: Any = None,
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
    progress: Progress = no_progress,
) -> tuple[dict[str, Any], MemoryReport]:
    """Return metrics of a model on data with y, by one pass.

    Parameters
    ----------
    model : Fitted, fitted estimator, or path of a saved run
        The model.
    data, y, sample_weight, client, memory_ceiling
        As for `train`.
    by : str, int, or array of shape (rows,), optional
        Groups of rows that have metrics of their own too: a column of X, or a label for each row.
        The values of a column are found by one more pass. At most 1,000 groups.
    progress : callable
        Called with the stage, its rows so far, and the fraction done, from 0 to 1.

    Returns
    -------
    metrics : dict
        `n_rows` and `loss`. For classes `accuracy`, and `log_loss` if that is the loss;
        for two classes `roc_auc` with its `roc_auc_error`. For a regression `r2` and `mse`; for
        losses with a log link also `d2`, the share of the deviance that the model explains.
        With probabilities also `brier`, the mean squared error of the probabilities (Brier 1950);
        it is summed over classes if there are more than two. And `ece`, the expected calibration
        error of the predicted class in 15 bins (Guo et al. 2017).
        For at most 1,000 classes also `by_class`, a `ClassMetrics`: confusion, precision, recall,
        F1, top k, and curves. For a regression also `mae`, and `residuals`, a `ResidualMetrics`:
        quantiles with bounds of their errors. With `by` also `by_group`, a `GroupMetrics`.
    memory : MemoryReport
        Ceiling, projection and measurement.

    Raises
    ------
    InvalidRun
        If the data have other columns, by name or by number.
    InvalidStore
        If the data have other classes, or no y.
    ValueError
        If there is no such column, or too many groups.

    Examples
    --------
    >>> from ooc_train import LogisticRegression, evaluate, make_data
    >>> store = make_data("made.zarr", rows=2_000, features=5)
    >>> metrics, memory = evaluate(LogisticRegression().fit(store), store)
    >>> round(metrics["accuracy"], 2)
    0.67
    """
    fitted = as_fitted(model).bare()
    # An automatic ceiling is read before anything starts and reduces the available memory.
    memory_ceiling = Ceiling.of(memory_ceiling)
    fitted, inputs = with_inputs(fitted, data, y, sample_weight, memory_ceiling)
    source = inputs.source
    metrics = MetricSums.of(fitted, inputs, detailed=True)
    reduction: MetricSums | GroupedSums = metrics
    if by is not None:
        groups = row_groups(
            inputs, by, most=MOST_GROUPS, client=client, memory_ceiling=memory_ceiling
        )
        reduction = GroupedSums(metrics, groups)
    requirements = Requirements.of(source, [reduction], parameters=fitted.nbytes)
    with Job(source, client=client, memory_ceiling=memory_ceiling) as job:
        plan = job.plan(requirements)
        add_rows = row_counter(progress, "evaluating", source.n_rows)
        found = reduction.evaluation(job.stream(plan, add_rows).reduce(reduction))
        return found, job.memory(plan)


def with_inputs(
    fitted: Fitted,
    data: Any,
    y: Any,
    sample_weight: Any,
    memory_ceiling: Ceiling,
) -> tuple[Fitted, Inputs]:
    """Return a model with its columns in the order of data with y, and the inputs of these data.

    Raises
    ------
    InvalidRun
        If the data have other columns, by name or by number.
    InvalidStore
        If the data have other classes, or no y.
    """
    inputs = read_inputs(
        data,
        y,
        sample_weight,
        classifier=fitted.model.is_classifier,
        classes=fitted.classes,
        memory_ceiling=memory_ceiling,
    )
    names, n_features = inputs.feature_names, inputs.source.n_features
    return fitted.for_columns(names, n_features, inputs.name, inputs.row_shape), inputs


def predict(
    model: Any,
    data: Any,
    kind: Kind = "prediction",
    *,
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
    progress: Progress = no_progress,
) -> NDArray[Any]:
    """Return predictions for data of any size, in memory.

    Parameters
    ----------
    model : Fitted, fitted estimator, or path of a saved run
        The model.
    data : Store, path, or array (rows, features) of NumPy or Dask
        The rows. A row may have several axes, as those that the model learned from.
    kind : str
        Kind of predictions.
    client, memory_ceiling, progress
        As for `predict_store`.

    Returns
    -------
    ndarray
        "prediction": codes of classes (rows,), or values (rows, outputs). "probability",
        "log_probability": (rows, classes). "decision": linear predictors (rows, outputs).

    Raises
    ------
    InvalidRun
        If the data have other columns, by name or by number.
    CeilingExceeded
        If the predictions do not fit; `predict_store` writes them instead.

    Examples
    --------
    >>> from ooc_train import LogisticRegression, make_data, predict
    >>> store = make_data("made.zarr", rows=2_000, features=5)
    >>> predict(LogisticRegression().fit(store), store, "probability").shape
    (2000, 2)
    """
    fitted, rows = as_fitted(model).bare(), read_features(data)
    source = rows.source
    fitted = fitted.for_columns(rows.feature_names, source.n_features, rows.name, rows.row_shape)
    function = _Collect(fitted, kind)
    is_code = kind == "prediction" and fitted.classes
    shape = () if is_code else (Outputs.of(fitted).width(kind),)
    dtype = np.dtype(np.int64 if is_code else np.float64)
    row_bytes = max(1, int(np.prod(shape))) * dtype.itemsize
    most = min(_RUN_PARTITIONS, _RUN_BYTES // (source.partition_rows * row_bytes))
    runs = runs_of_partitions(source, _run_partitions(source, most))
    requirements = Requirements(
        partition=total_bytes(source.buffers(1)),
        workspace=total_bytes(function.workspace(source.partition_rows)),
        parameters=fitted.nbytes,
        slots=1,
        shared=fitted.nbytes,
        opened=_piece_bytes(fitted, [kind], source),
        result=max(stop - start for start, stop in runs) * row_bytes,
        results=source.n_rows * row_bytes,
        loads=loads_of(fitted.predictor),
    )
    with Job(source, client=client, memory_ceiling=memory_ceiling) as job:
        add_rows = row_counter(progress, "predicting", source.n_rows)
        stream = job.stream(job.plan(requirements), add_rows)
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
    """Write predictions to a store, with an array for each kind.

    A chunk holds the rows of a partition, and a shard at most about those of a shard of the data.
    Workers write shards in place, and `row_id`: ids, or of a share numbers of rows in the store.
    Numeric labels are written as such, others as codes, with the labels in the attribute `classes`.

    Parameters
    ----------
    model : Fitted, fitted estimator, or path of a saved run
        The model.
    data : Store, path, or array (rows, features) of NumPy or Dask
        The rows. A row may have several axes, as those that the model learned from.
    out : path
        The store to make.
    kinds : sequence of str
        Kinds of predictions.
    overwrite : bool
        Whether an existing output is replaced.
    client, memory_ceiling
        As for `train`.
    progress : callable
        Called with the stage, its rows so far, and the fraction done, from 0 to 1.

    Returns
    -------
    MemoryReport
        Ceiling, projection and measurement.

    Raises
    ------
    OutputExists
        If the output exists and `overwrite` is off.
    InvalidRun
        If the data have other columns, by name or by number.

    Examples
    --------
    >>> from ooc_train import LogisticRegression, make_data, predict_store
    >>> store = make_data("made.zarr", rows=2_000, features=5)
    >>> model = LogisticRegression().fit(store)
    >>> memory = predict_store(model, store, "predicted.zarr", kinds=["probability"])
    """
    fitted = as_fitted(model).bare()
    rows = read_features(data)
    source, ids = rows.source, rows.row_id
    fitted = fitted.for_columns(rows.feature_names, source.n_features, rows.name, rows.row_shape)
    run = _RUN_PARTITIONS
    if isinstance(source, StoreSource):
        run = source.X.shard_rows // source.partition_rows
    run = _run_partitions(source, run)
    outputs = Outputs.of(fitted)
    widths = [outputs.width(kind) for kind in kinds]
    requirements = Requirements(
        partition=total_bytes(source.buffers(1)),
        # A chunk of each array, and the ids of the rows of a partition.
        workspace=8 * source.partition_rows * (2 + sum(widths))
        + total_bytes(_workspace(fitted, source.partition_rows)),
        parameters=fitted.nbytes,
        slots=1,
        shared=fitted.nbytes,
        opened=_piece_bytes(fitted, kinds, source),
        loads=loads_of(fitted.predictor),
    )
    with (
        Job(source, client=client, memory_ceiling=memory_ceiling) as job,
        OutputStore(out, overwrite=overwrite) as output,
    ):
        plan = job.plan(requirements)
        stream = job.stream(plan, row_counter(progress, "predicting", source.n_rows))
        columns: dict[str, Any] = {kind: outputs.column(kind) for kind in kinds}
        within = source.within if isinstance(source, StoreSource) else None
        if ids is not None or within is not None:
            columns["row_id"] = (), np.dtype(np.int64 if ids is None else ids.dtype)
        partition_rows = source.partition_rows
        layouts = add_arrays(
            output, columns, chunk_rows=partition_rows, shard_rows=run * partition_rows
        )
        n, shard_rows = source.n_rows, run * partition_rows
        shards = [(first, min(first + shard_rows, n)) for first in range(0, n, shard_rows)]
        for _ in stream.map(_Write(fitted, layouts, ids, within), shards):
            pass
        output.commit(source.n_rows, manifest(source.n_rows, fitted.classes, fitted.model.name))
        return job.memory(plan)


def _run_partitions(source: Source, most: int) -> int:
    """Return the partitions of a task: `most`, or fewer of small data."""
    return max(1, min(most, source.n_partitions // _FEWEST_TASKS))


def _piece_bytes(fitted: Fitted, kinds: Sequence[Kind], source: Source) -> int:
    """Return the bytes of a piece of predictions of all kinds, made one after another."""
    outputs = Outputs.of(fitted)
    widths = [max(outputs.width(kind), fitted.n_outputs) for kind in kinds]
    rows = min(PIECE_ROWS, source.partition_rows)
    made = fitted.predictor.made_bytes
    return 8 * rows * _PIECE_COPIES * (max(widths) + sum(widths)) + made


def _workspace(fitted: Fitted, rows: int) -> Workspace:
    """Return the arrays in which rows are converted, for blocks of at most `rows` rows."""
    return {"converted": ArraySpec((min(rows, PIECE_ROWS), fitted.n_features))}


@dataclass(frozen=True, eq=False)
class _Collect:
    """Predicts for a run of rows, and returns the predictions to the driver."""

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
            # In pieces: with many classes, predictors may be much larger than the rows.
            for row in range(0, block.n_rows, PIECE_ROWS):
                X = block.X[row : row + PIECE_ROWS]
                z = self.fitted.decision(X, workspace["converted"], first + row)
                parts.append(outputs.at(z, self.kind))
        return start, np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class _Write:
    """Predicts for the rows of a shard, and writes the shard in the worker."""

    fitted: Fitted
    layouts: Mapping[str, ArrayLayout]
    ids: ArrayLayout | None
    within: StoreShare | None

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
                start = block.row_number(0)
                numbers = row_ids(ids, self.within, start, block.n_rows)
                # In pieces: with many classes, predictions may be much larger than the rows.
                for row in range(0, block.n_rows, PIECE_ROWS):
                    X = block.X[row : row + PIECE_ROWS]
                    z = self.fitted.decision(X, workspace["converted"], start + row)
                    columns = {
                        name: outputs.labelled(z, cast("Kind", name))
                        for name in self.layouts.keys() - {"row_id"}
                    }
                    if "row_id" in self.layouts:
                        columns["row_id"] = numbers[row : row + PIECE_ROWS]
                    writer.write(columns)
            writer.commit()
            return writer.n_rows - first
