"""Metrics within a pass: accuracy, AUC or R^2 of the model so far, on a fixed sample of rows.

The calling process gets the sample once, from 1 % of the partitions, or from one. It evaluates the
sample itself, and no result of a run depends on it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from ooc_train.core.partitions import rows_of, spread
from ooc_train.core.sums import Array, Arrays, Block, Workspace, nbytes, total_bytes
from ooc_train.errors import OocTrainError
from ooc_train.inference.metrics import MetricSums
from ooc_train.models.model import Model
from ooc_train.models.problem import ModelProblem
from ooc_train.runs.fitted import Fitted
from ooc_train.stream.dask_source import DaskSource
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.passes import Stream
from ooc_train.stream.requirements import loads_of
from ooc_train.stream.store_source import StoreSource

METRICS = ("accuracy", "roc_auc", "r2")
"""Names of the metrics, in the order in which they are shown."""

_SHARE, _PARTITIONS = 100, 16
"""The sample comes from one partition in so many, and from at most so many partitions."""

_LEAST_PARTITIONS = 10
"""Of fewer than 100 partitions, if so many, one is the sample of rows in random order."""

_ROWS, _LEAST_ROWS, _BYTES = 2048, 256, 4 * 2**20
"""Rows of the sample, and the most bytes that they, or the parameters, may have."""

_BINS = 4096
"""Bins of the scores that the AUC comes from."""


class SampleMetrics:
    """Finds the metrics of one run's models on a sample of its training rows.

    There are none for fewer than 100 partitions (10 of a shuffled store), for wide rows, for
    parameters of more than 4 MiB, for Dask arrays (which are computed to be read), and for
    predictors that load libraries.

    Parameters
    ----------
    model : Model
        The model.
    problem : ModelProblem
        The objective.
    inputs : Inputs
        The training rows.
    """

    def __init__(self, model: Model, problem: ModelProblem, inputs: Inputs) -> None:
        self._model, self._problem, self._inputs = model, problem, inputs
        self._partitions = self._sample_partitions()
        self._block: Block | None = None
        self._params: Array | None = None
        self._known: dict[str, float] = {}

    def _sample_partitions(self) -> Sequence[int]:
        source, problem = self._inputs.source, self._problem
        if isinstance(source, DaskSource) or not source.n_outputs or loads_of(problem):
            return ()
        if 8 * problem.n_parameters > _BYTES or self._most_rows < _LEAST_ROWS:
            return ()
        wanted = min(_PARTITIONS, source.n_partitions // _SHARE)
        if not wanted and isinstance(source, StoreSource) and source.shuffled:
            wanted = int(source.n_partitions >= _LEAST_PARTITIONS)
        partitions = spread(source.n_partitions, wanted) if wanted else ()
        return partitions if rows_of(source, partitions) >= _LEAST_ROWS else ()

    @property
    def _most_rows(self) -> int:
        source = self._inputs.source
        row_bytes = source.n_features * np.dtype(source.dtype).itemsize
        return min(_ROWS, _BYTES // max(1, row_bytes))

    @property
    def nbytes(self) -> int:
        """Bytes of the sample and of its evaluation, for the plan."""
        if not self._partitions:
            return 0
        source, rows = self._inputs.source, self._most_rows
        numbers = source.n_features + source.n_outputs + 1
        reduction = self._reduction(self._problem, self._problem.initial())
        work = total_bytes(reduction.workspace(rows)) + reduction.made_bytes(rows)
        # The parts of the sample and the whole; sums, and what a curve makes of them.
        held = 2 * rows * (source.n_features * np.dtype(source.dtype).itemsize + 8 * numbers)
        return held + work + 8 * nbytes(reduction.zeros()) + 32 * self._problem.n_parameters

    def read(self, stream: Stream) -> None:
        """Read the sample; do nothing if it was read, or if there is none."""
        partitions, source = self._partitions, self._inputs.source
        if self._block is not None or not partitions:
            return
        runs = [(source.first_row(each), source.first_row(each + 1)) for each in partitions]
        parts = stream.map(_Rows(self._most_rows // len(runs)), runs, counted=False)
        # They arrive in any order; rows of a share have the numbers that they have in the data.
        found = [part for _, part in sorted(parts, key=itemgetter(0))]
        X, y, weight = (
            None if part[0] is None else np.concatenate(part) for part in zip(*found, strict=True)
        )
        if X is not None:
            self._block = Block(X, y, weight)

    @property
    def is_read(self) -> bool:
        """Whether there is a sample, so that models have metrics."""
        return self._block is not None

    def values(self, problem: ModelProblem, params: Array) -> dict[str, float]:
        """Return the metrics of parameters by name; nothing where there is no sample."""
        if self._block is None:
            return {}
        if self._params is not params:
            try:
                self._known = self._evaluated(problem, params, self._block)
            except (OocTrainError, ArithmeticError, ValueError):
                self._known = {}  # the pass itself tells what is wrong with rows or parameters
            self._params = params
        return self._known

    def _reduction(self, problem: ModelProblem, params: Array) -> MetricSums:
        inputs, predictor = self._inputs, problem.predictor(params)
        fitted = Fitted(self._model, predictor, inputs.classes, inputs.feature_names)
        about = MetricSums.of(fitted, inputs).about
        return MetricSums(fitted, about, bins=_BINS)

    def _evaluated(self, problem: ModelProblem, params: Array, block: Block) -> dict[str, float]:
        reduction = self._reduction(problem, params)
        sums = reduction.zeros()
        arrays: Arrays = {
            name: np.empty(spec.shape, spec.dtype)
            for name, spec in reduction.workspace(block.n_rows).items()
        }
        with np.errstate(all="ignore"):
            reduction.add(sums, block, arrays)
            found = reduction.metrics(sums)
        known = {name: float(found[name]) for name in METRICS if name in found}
        return {name: value for name, value in known.items() if np.isfinite(value)}


@dataclass(frozen=True)
class _Rows:
    """Returns rows of each run, evenly spread, by its first row."""

    most: int

    def workspace(self, rows: int) -> Workspace:
        """Return no arrays: rows are copied from the buffer."""
        del rows
        return {}

    def run(self, blocks: Iterator[Block], workspace: Arrays) -> tuple[int, tuple[Any, ...]]:
        """Return the number of a run's first row, and X, y and weights of the chosen rows."""
        del workspace
        first, left, parts = -1, self.most, []
        for block in blocks:
            first = block.row_number(0) if first < 0 else first
            every = slice(None, None, max(1, -(-block.n_rows // max(1, left))))
            arrays = (block.X, block.y, block.weight)
            part = [None if each is None else each[every].copy() for each in arrays]
            parts.append(part)
            left -= len(block.X[every])
            if left <= 0:
                break
        return first, tuple(
            None if each[0] is None else np.concatenate(each) for each in zip(*parts, strict=True)
        )
