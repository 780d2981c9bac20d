"""Streams for tests: rows cut as a test likes, and executors that bring results as they like."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.models.linear import LinearProblem
from ooc_train.objective.losses import LOSSES
from ooc_train.objective.penalty import Penalty
from ooc_train.objective.scaling import Scaling
from ooc_train.store.dataset import Store
from ooc_train.store.writing.writer import StoreWriter
from ooc_train.stream.array_source import ArraySource
from ooc_train.stream.executors import Executor, LocalExecutor
from ooc_train.stream.pass_config import PassConfig
from ooc_train.stream.passes import Stream
from ooc_train.stream.sources import Source

POOL_BYTES = 2**28
"""A pool that nothing here fills."""


@dataclass(frozen=True, eq=False)
class Cut(ArraySource):
    """Rows in memory, cut into partitions of so many rows and groups of so many partitions."""

    rows: int = 7
    group: int = 3

    @property
    def partition_rows(self) -> int:
        return self.rows

    @property
    def group_partitions(self) -> int:
        return self.group


@dataclass(frozen=True)
class Shuffled:
    """Runs the calls of each window in any order."""

    seed: int

    def run(
        self,
        function: Callable[..., Any],
        calls: Iterable[tuple[Any, ...]],
        window: int,
        name: str,
        shared: tuple[Any, ...] = (),
        results_per_fetch: int = 1,
    ) -> Iterator[Any]:
        del name, results_per_fetch
        rng, waiting = np.random.default_rng(self.seed), iter(calls)
        pending: list[tuple[Any, ...]] = []
        while True:
            while len(pending) < window:
                try:
                    pending.append(next(waiting))
                except StopIteration:
                    break
            if not pending:
                return
            yield function(*shared, *pending.pop(int(rng.integers(len(pending)))))

    def release(self) -> None:
        pass


def stream(
    source: Source,
    *,
    task_groups: int = 2,
    window: int = 2,
    replicas: int = 1,
    pipeline_threads: int = 2,
    prefetch_groups: int = 3,
    pool_bytes: int = POOL_BYTES,
    executor: Executor | None = None,
) -> Stream:
    """Return the passes over a source, in this thread."""
    config = PassConfig(
        task_groups,
        window,
        replicas,
        pipeline_threads,
        pipeline_threads + (pipeline_threads > 1),
        prefetch_groups,
        pool_bytes,
    )
    return Stream(source, executor or LocalExecutor(), config)


def write_store(
    path: str | os.PathLike[str],
    X: NDArray[Any],
    y: NDArray[Any] | None = None,
    weight: NDArray[Any] | None = None,
    *,
    chunk_rows: int = 8,
    shard_chunks: int = 2,
    **settings: Any,
) -> Store:
    """Write a store in one go."""
    if y is not None and y.ndim == 2:
        settings["outputs"] = y.shape[1]
    with StoreWriter(
        path,
        n_features=X.shape[1],
        dtype=settings.pop("dtype", X.dtype),
        chunk_rows=chunk_rows,
        shard_rows=chunk_rows * shard_chunks,
        sample_weight=weight is not None,
        **settings,
    ) as writer:
        writer.write(X, y, weight)
        return writer.commit()


@dataclass(frozen=True, eq=False)
class Case:
    """A problem and rows for it."""

    problem: LinearProblem
    source: Cut

    @property
    def y(self) -> NDArray[np.float64]:
        assert self.source.y is not None
        return self.source.y

    @property
    def row_weights(self) -> NDArray[np.float64]:
        """The weight of each row, that of its class multiplied in."""
        weight = np.ones(self.source.n_rows) if self.source.weight is None else self.source.weight
        if self.problem.class_weight is not None:
            weight = weight * self.problem.class_weight[self.y[:, 0].astype(int)]
        return weight


def make_case(
    loss: str = "logistic",
    outputs: int = 1,
    *,
    rows: int = 101,
    features: int = 4,
    weighted: bool = False,
    class_weight: bool = False,
    own_class_weight: bool = False,
    fit_intercept: bool = True,
    standardize: bool = False,
    l2: float = 0.7,
    dtype: str = "<f8",
    seed: int = 0,
    partition_rows: int = 7,
    group: int = 3,
) -> Case:
    """Return a problem on columns that lie off zero and differ in scale."""
    rng = np.random.default_rng(seed)
    scales = np.geomspace(0.3, 20.0, features)
    X = (scales * (rng.normal(size=(rows, features)) + rng.normal(size=features))).astype(dtype)
    coef = rng.normal(size=(outputs, features)) / scales
    z = X @ coef.T + rng.normal(size=outputs)
    if loss == "squared":
        y = z + rng.normal(size=z.shape)
    elif outputs == 1:
        y = (z + rng.logistic(size=z.shape) > 0).astype(float)
    else:
        y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)[:, None].astype(float)
    weight = rng.uniform(0.0, 3.0, rows) if weighted else None
    if weight is not None:
        weight[3] = 0.0
    by_class = rng.uniform(0.5, 2.0, max(2, outputs)) if class_weight else None
    source = Cut(X, np.ascontiguousarray(y), weight, rows=partition_rows, group=group)
    deviation = X.std(axis=0, dtype=np.float64) * rng.uniform(0.7, 1.5, features)
    mean = X.mean(axis=0, dtype=np.float64) + 0.3 * scales
    problem = LinearProblem(
        LOSSES[loss](),
        outputs,
        rows,
        1.0,
        Scaling.of(mean, deviation, centre=fit_intercept),
        Penalty(l2=l2),
        fit_intercept,
        standardize,
        by_class,
    )
    case = Case(problem, source)
    total = float(case.row_weights.sum())
    return Case(replace(problem, total_weight=total, own_class_weight=own_class_weight), source)


def same_bits(a: dict[str, NDArray[Any]], b: dict[str, NDArray[Any]]) -> bool:
    """Return whether two sets of sums are the same to the last bit."""
    return a.keys() == b.keys() and all(a[k].tobytes() == b[k].tobytes() for k in a)


PERFECTLY_FITTED = [
    (np.ones((1, 1)), np.array([7.0])),
    (np.eye(3), np.array([1.0, 2.0, 4.0])),
    (np.arange(20.0)[:, None], 3.0 * np.arange(20.0) + 1e6),
    (np.arange(20.0)[:, None], np.zeros(20)),
    (np.arange(20.0)[:, None], np.full(20, 5.0)),
]
"""Rows and targets that a linear predictor with an intercept fits without a residual."""
