"""The importance of columns by permutation, out of core."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ooc_train.core.progress import Progress, no_progress, row_counter
from ooc_train.core.schema import shown
from ooc_train.explanation.importance_sums import ImportanceSums
from ooc_train.explanation.importance_table import Importance
from ooc_train.explanation.raw_columns import chosen_columns
from ooc_train.explanation.row_sample import RowSample, sample_rows
from ooc_train.inference.metrics import PIECE_ROWS, MetricSums
from ooc_train.inference.predict import with_inputs
from ooc_train.memory.ceiling import Ceiling
from ooc_train.runs.run_loading import as_fitted
from ooc_train.runtime.job import Job
from ooc_train.stream.requirements import Requirements


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

    All columns take one pass, after a pool of rows was read (Breiman 2001; Fisher, Rudin and
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
        Called with the stage, its rows so far, and the fraction done, from 0 to 1.

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

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from ooc_train import LogisticRegression, permutation_importance
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = LogisticRegression().fit(X, y)
    >>> found = permutation_importance(model, X, y, n_repeats=3)
    >>> len(found.frame)
    30
    """
    if n_repeats < 1:
        raise ValueError(f"n_repeats={shown(n_repeats)} is below 1; pass 5, for example")
    whole = as_fitted(model)
    memory_ceiling = Ceiling.of(memory_ceiling)
    whole, inputs = with_inputs(whole, X, y, sample_weight, memory_ceiling)
    source = inputs.source
    chosen = chosen_columns(whole, columns)
    pool_rows = sample_rows(source)
    rng = np.random.default_rng(random_state)
    shifts = rng.integers(0, pool_rows, (n_repeats, len(chosen)))
    blank = np.broadcast_to(np.zeros((), source.dtype), (0, source.n_features))
    reduction = ImportanceSums(
        MetricSums.of(whole.bare(), inputs), tuple(chosen.values()), blank, pool_rows, shifts
    )
    row_bytes = source.n_features * np.dtype(source.dtype).itemsize
    pool_bytes, sample = (pool_rows + PIECE_ROWS) * row_bytes, RowSample.of(source, pool_rows)
    requirements = Requirements.of(source, [reduction], parameters=whole.nbytes)
    requirements = replace(
        requirements,
        shared=requirements.shared + pool_bytes,
        result=int(sample.kept.max()) * row_bytes,
        results=pool_bytes,
        way_out="explain fewer columns at a time",
    )
    with Job(source, client=client, memory_ceiling=memory_ceiling) as job:
        plan = job.plan(requirements)
        stream = job.stream(plan, row_counter(progress, "permuting", source.n_rows))
        reduction = replace(reduction, pool=sample.read(stream, rng, PIECE_ROWS))
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
