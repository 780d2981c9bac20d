"""The importance of columns by permutation, out of core."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.partitions import rows_of, spread
from ooc_train.core.progress import Progress, no_progress, row_counter
from ooc_train.core.schema import shown
from ooc_train.core.sums import Arrays, Block, Workspace
from ooc_train.core.text import feature_name, listed
from ooc_train.inference.importance_sums import ImportanceSums, Places
from ooc_train.inference.importance_table import Importance
from ooc_train.inference.metrics import PIECE_ROWS, MetricSums
from ooc_train.memory.ceiling import Ceiling
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.run_loading import as_fitted
from ooc_train.runtime.job import Job
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.passes import Stream
from ooc_train.stream.requirements import Requirements
from ooc_train.stream.sources import Source

_POOL_ROWS, _LEAST_POOL_ROWS, _POOL_BYTES = 16_384, 1_024, 16 * 2**20
"""Most rows of the pool that values come from, fewer if their bytes exceed a limit."""

_POOL_PARTITIONS = 64
"""Partitions, evenly spread, that the pool's rows come from."""


def permutation_importance(
    model: Any,
    X: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    n_repeats: int = 5,
    random_state: int = 0,
    columns: Sequence[str | int] | str | int | None = None,
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
    progress: Progress = no_progress,
) -> Importance:
    """Return how much worse the model predicts when a column has the values of other rows.

    All columns take one pass, after a pool of rows has been read (Breiman 2001; Fisher, Rudin and
    Dominici 2019). The pool holds all rows of small data. Then columns are permuted, as by
    scikit-learn's function of this name. Of larger data it holds up to 16,384 rows, from
    evenly spread parts of the data, so that the order of the rows does not matter.

    If the data were made from a table, the features of a raw column move together, such as the
    categories of a one-hot encoding. A linear model costs a product of the moved features for each
    column and repeat; other models predict all rows anew, columns x repeats times.

    Parameters
    ----------
    model : Fitted, fitted estimator, or path of a saved run
        The model.
    X, y, sample_weight, client, memory_ceiling
        As for `train`: rows to evaluate by, best those that the model has not learned from.
    n_repeats : int
        Number of permutations of each column.
    random_state : int
        The seed of the permutations.
    columns : str, int, or sequence of them, optional
        Raw columns or features to permute, by name, or features by number; None for all.
    progress : callable
        Called with the stage, its rows so far, and its share from 0 to 1.

    Returns
    -------
    Importance
        A table; its `frame` is a `pandas.DataFrame`, and `plot()` draws it.

    Raises
    ------
    ValueError
        If there is no such column, or no repeat.
    InvalidRun
        If the data have other columns, by name or by number.
    CeilingExceeded
        If the pass does not fit the ceiling, before it begins.
    """
    if n_repeats < 1:
        raise ValueError(f"n_repeats={shown(n_repeats)} is below 1; pass 5, for example")
    whole = as_fitted(model)
    memory_ceiling = Ceiling.of(memory_ceiling)
    inputs = read_inputs(
        X,
        y,
        sample_weight,
        classifier=whole.model.is_classifier,
        classes=whole.classes,
        memory_ceiling=memory_ceiling,
    )
    source = inputs.source
    whole = whole.for_columns(
        inputs.feature_names, source.n_features, inputs.name, inputs.row_shape
    )
    chosen = _chosen(raw_columns(whole), whole, columns)
    pool_rows = _pool_rows(source)
    rng = np.random.default_rng(random_state)
    shifts = rng.integers(0, pool_rows, (n_repeats, len(chosen)))
    blank = np.broadcast_to(np.zeros((), source.dtype), (0, source.n_features))
    reduction = ImportanceSums(
        MetricSums.of(whole.bare(), inputs), tuple(chosen.values()), blank, pool_rows, shifts
    )
    row_bytes = source.n_features * np.dtype(source.dtype).itemsize
    pool_bytes, sample = (pool_rows + PIECE_ROWS) * row_bytes, _Sample.of(source, pool_rows)
    requirements = Requirements.of(source, [reduction], parameters=whole.nbytes)
    requirements = replace(
        requirements,
        shared=requirements.shared + pool_bytes,
        result=int(sample.kept.max()) * row_bytes,
        results=pool_bytes,
    )
    with Job(source, client=client, memory_ceiling=memory_ceiling) as job:
        plan = job.plan(requirements)
        stream = job.stream(plan, row_counter(progress, "permuting", source.n_rows))
        reduction = replace(reduction, pool=sample.read(stream, rng))
        sums = stream.reduce(reduction)
        scores, losses = reduction.scores(sums), reduction.losses(sums)
        memory = job.memory(plan)
    shape = len(chosen), n_repeats
    return Importance(
        names=tuple(chosen),
        score_name=reduction.score_name,
        baseline={reduction.score_name: float(scores[0]), "loss": float(losses[0])},
        importances=(scores[0] - scores[1:]).reshape(shape),
        loss_increases=(losses[1:] - losses[0]).reshape(shape),
        n_rows=int(sums["rows"]),
        pool_rows=pool_rows,
        memory=memory,
    )


def raw_columns(fitted: Fitted) -> dict[str, Places]:
    """Return the features of each raw column of a model's recipe; without one, each feature."""
    names = [
        feature_name(fitted.feature_names, fitted.row_shape, i) for i in range(fitted.n_features)
    ]
    if fitted.recipe is None:
        return {name: slice(i, i + 1) for i, name in enumerate(names)}
    place = {name: i for i, name in enumerate(names)}
    found: dict[str, Places] = {}
    for column in fitted.recipe["columns"]:
        name, features = column["name"], [column["name"]]
        if column["kind"] == "category":
            features = [f"{name}={value}" for value in column.get("values", ())]
            features += [f"{name} is {what}" for what in ("missing", "other") if column.get(what)]
        found[name] = _places([place[feature] for feature in features])
    return found


def _places(features: Sequence[int]) -> Places:
    """Return columns as a slice if they are neighbours, since a slice needs no copy."""
    first = min(features, default=0)
    if sorted(features) == list(range(first, first + len(features))):
        return slice(first, first + len(features))
    return np.array(features, np.intp)


def _chosen(
    known: dict[str, Places], fitted: Fitted, columns: Sequence[str | int] | str | int | None
) -> dict[str, Places]:
    """Return the columns to permute, by name."""
    if columns is None:
        return known
    if isinstance(columns, str | int):
        columns = [columns]
    features = {
        feature_name(fitted.feature_names, fitted.row_shape, i): slice(i, i + 1)
        for i in range(fitted.n_features)
    }
    names, found = list(features), {}
    for column in columns:
        name = column
        if isinstance(column, int | np.integer) and 0 <= column < len(names):
            name = names[column]
        if not isinstance(name, str) or name not in {**known, **features}:
            raise ValueError(
                f"there is no column {shown(column)}; the model has {listed(list(known))}"
            )
        found[name] = known.get(name, features.get(name, slice(0)))
    return found


def _pool_rows(source: Source) -> int:
    """Return the number of rows of the pool."""
    row_bytes = source.n_features * np.dtype(source.dtype).itemsize
    return min(source.n_rows, max(_LEAST_POOL_ROWS, min(_POOL_ROWS, _POOL_BYTES // row_bytes)))


@dataclass(frozen=True)
class _Sample:
    """Which rows are the pool: so many of each run, a partition."""

    runs: list[tuple[int, int]]
    kept: NDArray[np.intp]

    @classmethod
    def of(cls, source: Source, pool_rows: int) -> "_Sample":
        """Return the parts of a pool: all partitions of small data, else some, evenly spread."""
        n = source.n_partitions
        wanted = n if pool_rows == source.n_rows else _POOL_PARTITIONS
        partitions: Sequence[int] = spread(n, wanted)
        while rows_of(source, partitions) < pool_rows:
            wanted *= 2
            partitions = spread(n, wanted)
        runs = [(source.first_row(p), source.first_row(p + 1)) for p in partitions]
        counts = np.array([stop - start for start, stop in runs])
        ends = np.cumsum(counts) * pool_rows // counts.sum()
        return cls(runs, np.diff(ends, prepend=0))

    def read(self, stream: Stream, rng: np.random.Generator) -> NDArray[Any]:
        """Return rows in random order, in Fortran order; the first ones follow the last again."""
        wanted = {
            start: np.sort(rng.choice(stop - start, n, replace=False))
            for (start, stop), n in zip(self.runs, self.kept, strict=True)
        }
        total = int(self.kept.sum())
        places, ends = rng.permutation(total), np.cumsum(self.kept)
        place_of = {
            start: places[end - n : end]
            for (start, _), n, end in zip(self.runs, self.kept, ends, strict=True)
        }
        source = stream.source
        pool = np.empty((total + PIECE_ROWS, source.n_features), source.dtype, order="F")
        for start, rows in stream.map(_Rows(wanted), self.runs):
            pool[place_of[start]] = rows
        pool[total:] = pool[np.arange(PIECE_ROWS) % total]
        return pool


@dataclass(frozen=True, eq=False)
class _Rows:
    """Returns chosen rows of each run, which is a partition, by its first row."""

    wanted: Mapping[int, NDArray[np.intp]]

    def workspace(self, rows: int) -> Workspace:
        """Return no arrays: rows are copied from the buffer."""
        del rows
        return {}

    def run(self, blocks: Iterator[Block], workspace: Arrays) -> tuple[int, NDArray[Any]]:
        """Return the first row of a run, and the chosen rows of it."""
        del workspace
        parts, first, at = [], -1, 0
        for block in blocks:
            first = block.row_number(0) if first < 0 else first
            chosen = self.wanted[first] - at
            parts.append(block.X[chosen[(chosen >= 0) & (chosen < block.n_rows)]])
            at += block.n_rows
        return first, np.concatenate(parts)
