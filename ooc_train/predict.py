"""Predicting and evaluating, for data of any size under a ceiling: one pass each."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ooc_train.job import Job
from ooc_train.memory import Ceiling, MemoryReport
from ooc_train.models.fitted import Fitted
from ooc_train.models.metrics import PIECE_ROWS, MetricSums
from ooc_train.models.sums import Arrays, Block, Room, Rooms, nbytes, total_bytes
from ooc_train.store.arrays import ArrayLayout
from ooc_train.store.chunks import ChunkReader
from ooc_train.store.output import OutputStore, ShardWriter
from ooc_train.stream.inputs import Inputs, read_inputs, without_y
from ooc_train.stream.plan import Demand
from ooc_train.stream.sources import Source, StoreSource

Kind = Literal["prediction", "probability", "decision"]

PREDICTIONS_FORMAT = "ooc_train.predictions"

_RUN_LEAVES = 64
"""Leaves of a task, where no shards say how many."""


def evaluate(
    fitted: Fitted,
    data: Any,
    *,
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
) -> tuple[dict[str, Any], MemoryReport]:
    """Return metrics of a model on data with y, and what it took to get them.

    Parameters
    ----------
    fitted : the model
    data : `Inputs`, or a store, or the path of one
    client, memory_ceiling : as for `train`
    on_rows : called with the number of rows after each task

    Returns
    -------
    metrics : `n_rows`, `loss`, and `accuracy`, `log_loss`, `roc_auc` with its `roc_auc_error` (two
        classes), or `r2`, `mse`
    memory : ceiling, projection and measurement

    Raises
    ------
    InvalidRun
        where the data have another number of features.
    InvalidStore
        where the data have other classes, or no y.
    """
    inputs = (
        data
        if isinstance(data, Inputs)
        else read_inputs(data, classifier=fitted.model.is_classifier, classes=fitted.classes)
    )
    source = inputs.source
    fitted.require_features(source.n_features, "the data")
    about = fitted.intercept
    if inputs.statistics is not None:
        about = about + fitted.coef @ inputs.statistics.mean
    work = MetricSums(fitted, about[: source.n_outputs])
    demand = Demand(
        leaf=total_bytes(source.rooms(1)),
        workspace=total_bytes(work.rooms(source.leaf_rows)),
        sums=nbytes(work.zeros()),
        parameters=fitted.coef.nbytes,
    )
    with Job(source, client=client, memory_ceiling=memory_ceiling) as job:
        plan = job.plan(demand)
        metrics = work.metrics(job.stream(plan, on_rows).reduce(work))
        return metrics, job.memory(plan)


def predict(
    fitted: Fitted,
    data: Any,
    kind: Kind = "prediction",
    *,
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
) -> NDArray[Any]:
    """Return predictions for data of any size, in memory.

    Returns
    -------
    array
        "prediction": codes of classes (rows,), or values (rows, outputs); "probability": (rows,
        classes); "decision": linear predictors (rows, outputs).

    Raises
    ------
    InvalidRun
        where the data have another number of features.
    CeilingExceeded
        where the predictions themselves do not fit; write them to a store instead.
    """
    source, _ = without_y(data)
    fitted.require_features(source.n_features, "the data")
    work = _Collect(fitted, kind)
    shape, dtype = work.columns
    demand = Demand(
        leaf=total_bytes(source.rooms(1)),
        workspace=total_bytes(work.rooms(source.leaf_rows)),
        results=2 * source.n_rows * max(1, int(np.prod(shape))) * dtype.itemsize,
    )
    with Job(source, client=client, memory_ceiling=memory_ceiling) as job:
        stream = job.stream(job.plan(demand))
        found = np.empty((source.n_rows, *shape), dtype)
        for start, rows in stream.map(work, _runs(source, _RUN_LEAVES)):
            found[start : start + len(rows)] = rows
    return found


def predict_store(
    fitted: Fitted,
    data: Any,
    out: str | os.PathLike[str],
    *,
    kinds: Sequence[Kind] = ("prediction",),
    overwrite: bool = False,
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
) -> MemoryReport:
    """Write predictions for a store to another, which holds an array for each kind.

    Its chunks and shards hold the rows that those of the data hold; workers write them where they
    read. `row_id` comes along. Labels that are numbers are written as such; of others, the codes,
    with the labels in the attribute `classes`.

    Raises
    ------
    OutputExists
        where something lies there and `overwrite` is not set.
    InvalidRun
        where the data have another number of features.
    """
    source, store = without_y(data)
    fitted.require_features(source.n_features, "the data")
    run = _RUN_LEAVES
    if isinstance(source, StoreSource):
        run = source.X.shard_rows // source.X.chunk_rows
    ids = None if store is None else store.row_id
    demand = Demand(
        leaf=total_bytes(source.rooms(1)),
        workspace=source.leaf_rows * 8 * (1 + sum(_width(fitted, kind) for kind in kinds))
        + total_bytes(_Collect(fitted, kinds[0]).rooms(source.leaf_rows)),
    )
    with (
        Job(source, client=client, memory_ceiling=memory_ceiling) as job,
        OutputStore(out, overwrite=overwrite) as output,
    ):
        plan = job.plan(demand)
        stream = job.stream(plan, on_rows)
        layouts = []
        for kind in kinds:
            shape, dtype = _Collect(fitted, kind, labels=True).columns
            layouts.append(
                output.add_array(
                    kind,
                    row_shape=shape,
                    dtype=dtype,
                    chunk_rows=source.leaf_rows,
                    shard_rows=run * source.leaf_rows,
                    dimension_names=("sample", "output")[: 1 + len(shape)],
                )
            )
        id_layouts = None
        if ids is not None:
            copied = output.add_array(
                "row_id",
                row_shape=(),
                dtype=ids.dtype,
                chunk_rows=source.leaf_rows,
                shard_rows=run * source.leaf_rows,
                dimension_names=("sample",),
            )
            id_layouts = (ids, copied)
        work = _Write(fitted, tuple(kinds), tuple(layouts), id_layouts, source.leaf_rows, run)
        for _ in stream.map(work, _runs(source, run)):
            pass
        attributes = {
            "format": PREDICTIONS_FORMAT,
            "n_rows": source.n_rows,
            "classes": list(fitted.classes) or None,
            "model": fitted.model.name,
        }
        output.commit(source.n_rows, attributes)
        return job.memory(plan)


def _runs(source: Source, leaves: int) -> list[range]:
    """Return the leaves in runs of so many."""
    n = source.n_leaves
    return [range(first, min(first + leaves, n)) for first in range(0, n, leaves)]


def _width(fitted: Fitted, kind: Kind) -> int:
    return len(fitted.classes) if kind == "probability" else fitted.n_outputs


@dataclass(frozen=True, eq=False)
class _Collect:
    """Predictions of a run of leaves, to travel back to the driver."""

    fitted: Fitted
    kind: Kind
    labels: bool = False

    @property
    def _labels(self) -> NDArray[Any] | None:
        """The labels by code where they are asked for and are numbers, else None."""
        labels = np.asarray(self.fitted.classes)
        return labels if self.labels and labels.dtype.kind in "biuf" else None

    @property
    def columns(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """The shape of one row's prediction, and its type."""
        fitted = self.fitted
        if self.kind == "prediction" and fitted.model.is_classifier:
            return (), np.dtype(np.int64) if self._labels is None else self._labels.dtype
        return (_width(fitted, self.kind),), np.dtype(np.float64)

    def rooms(self, rows: int) -> Rooms:
        """Return the arrays to work in, for blocks of at most `rows` rows."""
        return {"converted": Room((min(rows, PIECE_ROWS), self.fitted.n_features))}

    def predict(self, block: Block, work: Arrays) -> NDArray[Any]:
        """Return the predictions for one block."""
        fitted = self.fitted
        z = fitted.decision(block.X, work["converted"])
        if self.kind == "decision" or not fitted.model.is_classifier:
            return z
        if self.kind == "probability":
            return fitted.probabilities(z)
        codes, labels = fitted.codes(z), self._labels
        return codes if labels is None else labels[codes]

    def run(self, blocks: Iterator[Block], work: Arrays) -> tuple[int, NDArray[Any]]:
        """Return the first row of a run, and predictions for all of it."""
        parts, start = [], -1
        for block in blocks:
            if start < 0:
                start = block.row_number(0)
            parts.append(self.predict(block, work))
        return start, np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class _Write:
    """Predictions of a shard, written where they are made."""

    fitted: Fitted
    kinds: tuple[Kind, ...]
    layouts: tuple[ArrayLayout, ...]
    ids: tuple[ArrayLayout, ArrayLayout] | None
    leaf_rows: int
    leaves: int

    def rooms(self, rows: int) -> Rooms:
        """Return the arrays to work in, for blocks of at most `rows` rows."""
        return _Collect(self.fitted, "prediction").rooms(rows)

    def run(self, blocks: Iterator[Block], work: Arrays) -> int:
        """Write one shard of each array, and return its number of rows."""
        written = 0
        writers: list[ShardWriter] = []
        try:
            for block in blocks:
                start = block.row_number(0)
                if not writers:
                    shard = start // (self.leaf_rows * self.leaves)
                    writers = [ShardWriter(layout, shard) for layout in self._outputs]
                for writer, rows in zip(writers, self._rows(block, start, work), strict=True):
                    chunk = np.zeros((self.leaf_rows, *rows.shape[1:]), rows.dtype)
                    chunk[: len(rows)] = rows
                    writer.write(chunk, len(rows))
                written += block.n_rows
            for writer in writers:
                writer.commit()
        except BaseException:
            for writer in writers:
                writer.discard()
            raise
        return written

    @property
    def _outputs(self) -> tuple[ArrayLayout, ...]:
        return (*self.layouts, *(() if self.ids is None else (self.ids[1],)))

    def _rows(self, block: Block, start: int, work: Arrays) -> Iterator[NDArray[Any]]:
        for kind, layout in zip(self.kinds, self.layouts, strict=True):
            found = _Collect(self.fitted, kind, labels=True).predict(block, work)
            yield found.astype(layout.dtype, copy=False)
        if self.ids is not None:
            source, _ = self.ids
            ids = np.empty(block.n_rows, source.dtype)
            with ChunkReader(source) as reader:
                reader.read_rows(start, start + block.n_rows, ids)
            yield ids
