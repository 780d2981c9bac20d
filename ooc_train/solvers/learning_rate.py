"""The learning rate "auto" of updates: its first value, and how it falls.

SGD begins with the largest rate that is stable in the mean for rows in random order,
`B / (beta (r + (B - 1) lam))`. `B` is the batch size, `beta` the loss's greatest curvature, `lam`
the largest eigenvalue of the scaled second moments, and `r` the mean squared norm of a scaled row.
So single rows learn by `1 / (beta r)`, and all rows at once by `1 / (beta lam)` (Jain et al. 2018,
Parallelizing SGD, theorem 1), less what the penalty adds to the curvature. The term in `r` bounds
the noise of a batch, and the term in `lam` bounds the curvature. `r` grows with the number of
columns, and `lam` need not: it is computed for rows of any width (`lanczos.py` for wide ones). An
l1 penalty changes no rate: a proximal step never lengthens the distance between two points (Parikh
and Boyd 2014, section 2.3).

With momentum, the term in `r` counts `1 / (1 - momentum)` times, since so many steps carry the same
noise. The term in `lam` counts once: curvature bounds the rate as it does without momentum. Where
`lam` leads, as with large batches of correlated columns, momentum so goes up to `1 / (1 -
momentum)` times as far along directions of little curvature.

The model is the average of the parameters over the updates, so the rate need not fall at the end of
a run, which is not known beforehand. For the squared loss, the average has no bias at a constant
rate (Bach and Moulines 2013). Where slopes grow with the error, as those of the squared loss do,
rows of large norm could make it diverge: those of a rare column by its own weight alone. There `r`
is the largest, over the columns `x`, of the mean of `x ** 2` times the squared norm, over the mean
of `x ** 2`. It is no more than stability needs (`R ** 2` of Bach and Moulines, column by column).
For normal rows it is the mean squared norm. For other losses the average has a bias, by the square
of the noise. There the term in `r` grows with the root of the number of updates, as though batches
grew, and the term in `lam` stays.

Steps of Adam, AdamW and RMSprop have the size of the rate, whatever the gradient. The rate is in
proportion to the root of the batch size (Malladi et al. 2022). Adagrad's rate is constant, since
its steps become shorter by themselves, by the size of the noise too. Beyond 100 features a rate is
in proportion to one over the root of their number, since the steps of all features add up in a
predictor. Those of large batches have one direction, and so their rate is in proportion to one over
the number. Such rates fall earlier, since each parameter has little to go. RMSprop's first step,
and Adagrad's, is at most half a unit.

The constants were chosen on synthetic and real data (`tests/benchmarks/anytime.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from ooc_train.core.partitions import Rows, sample_partitions
from ooc_train.core.requests import Reduce
from ooc_train.core.sums import Array, Sums
from ooc_train.models.linear import LinearProblem
from ooc_train.models.norm_sums import NormSums
from ooc_train.models.problem import Problem
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.optimizers.schedules import Falling

_SAMPLE_PARTITIONS, _SAMPLE_ROWS, _WIDE_BYTES = 32, 2**15, 2**27
"""Limits of the sample: partitions, rows, and bytes of rows too wide for a matrix, whose sample is
read several times."""

MAX_GRAM_FEATURES = 2048
"""Limit of features for a matrix of second moments; beyond, a few products with it suffice."""

_SGD_EPOCHS, _SGD_ROWS_PER_PARAMETER = 0.05, 3.0
"""Time over which SGD's rate falls: a share of an epoch, and at least so many rows for each
parameter of an output. With fewer, the rate would fall before the parameters have left the start;
with more, wide models would learn from noise for epochs.
"""

_ADAM_RATE, _ADAM_ROWS, _ADAM_FEATURES, _ADAM_LARGEST = 0.03, 32, 100, 0.25
_ADAM_EPOCHS, _ADAM_UPDATES = 0.25, 1000.0
"""Time over which Adam's rate falls: a share of an epoch, and at least so many updates. Beyond 100
features, less by their number, but at least a row for each parameter of an output."""

_FIRST_STEP = 0.5
"""Limit of the first step of a normalised optimizer, of a scaled parameter."""

EVALUATED_ROWS, _EVALUATED_BYTES, _LEAST_EVALUATED = 2**17, 2**26, 4
"""Rows that evaluate a model after each epoch, the limit of their bytes, and the least number of
partitions. The loss of so many rows is within half a percent of that of all."""

_CONSTANT = Falling(noise=0.0)


@dataclass(frozen=True, slots=True)
class Rate:
    """The first learning rate, and how the rate falls.

    Attributes
    ----------
    eta0 : float
        The rate that the schedule changes.
    schedule : Falling
        How the rate falls with the number of updates.
    """

    eta0: float
    schedule: Falling = _CONSTANT


def is_wide(problem: LinearProblem) -> bool:
    """Return whether rows are too wide for the matrix of their second moments."""
    return problem.n_features > MAX_GRAM_FEATURES


def norms(problem: LinearProblem, vector: Array | None = None) -> NormSums:
    """Return the reduction of norms and second moments, or of their product with a vector."""
    with_gram, factors = not is_wide(problem), problem.class_weight
    if factors is not None and problem.own_class_weight:
        factors = np.maximum(factors, 1.0)  # the largest of a row's weights in all outputs
    return NormSums(problem.scaling, factors, problem.fit_intercept, with_gram, vector)


def require_linear(problem: Problem) -> LinearProblem:
    """Return the problem if its moments give a learning rate; raise `ValueError` otherwise."""
    if not isinstance(problem, LinearProblem):
        raise ValueError(  # noqa: TRY004 (a setting that does not fit the problem)
            "learning_rate='auto' is for linear models; give a learning_rate, or use solver='adam'"
        )
    return problem


def require_full_gradient(problem: Problem) -> None:
    """Raise `ValueError` if a batch of all rows has no gradient: with dropout or augmentation."""
    if "gradient" not in problem.can:
        raise ValueError(
            f"dropout and augment draw anew for each batch, and one batch has all of the "
            f"{problem.n_rows:,} rows here; use a smaller batch_size"
        )


def rate_request(
    problem: LinearProblem, rows: Rows, vector: Array | None = None, *, counted: bool = True
) -> Reduce:
    """Return the request for the norms and second moments of a sample of the rows."""
    wanted = min(_SAMPLE_ROWS, _SAMPLE_PARTITIONS * rows.partition_rows)
    if is_wide(problem):
        wanted = max(1, min(wanted, _WIDE_BYTES // rows.row_bytes))
    return Reduce(norms(problem, vector), sample_partitions(rows, wanted), counted=counted)


def automatic_rate(
    optimizer: Optimizer,
    problem: LinearProblem,
    rows: Rows,
    sums: Sums,
    batch_size: int,
    per_epoch: float | None,
    largest: float = 0.0,
) -> Rate:
    """Return the learning rate "auto" of an optimizer whose steps follow the gradient's size.

    Parameters
    ----------
    sums : Sums
        The answer to `rate_request`.
    per_epoch : float or None
        Updates of an epoch. None if the number of rows is not known.
    largest : float
        Largest eigenvalue of the sum of second moments, where `sums` lacks their matrix.

    Raises
    ------
    ValueError
        If the rows of the sample have no weight, or the loss's curvature has no bound.
    """
    weight, n = float(sums["weight"]), float(sums["rows"])
    if not weight > 0:
        raise ValueError(
            f"the {n:,.0f} rows that the learning rate is chosen by weigh nothing; give a "
            "learning_rate"
        )
    bound = problem.bound
    if bound is None:
        raise ValueError(
            f"learning_rate='auto' needs a bound of the loss's curvature, and the "
            f"{problem.loss.name} loss has none; use solver='adam', which needs none, or give a "
            "learning_rate"
        )
    squares = float(sums["squares"])
    square = squares / weight * n * float(sums["squared_weight"]) / weight**2
    all_rows = batch_size >= rows.n_rows
    if not problem.loss.bounded_slope and not all_rows:
        seen = sums["second"] > 0.0
        by_column = sums["fourth"][seen] / sums["second"][seen]
        square = max(square, float(by_column.max(initial=0.0)) * n / weight)
    if "gram" in sums:
        largest = float(np.linalg.eigvalsh(sums["gram"])[-1])
    penalty = batch_size * float(problem.theta_penalty.l2.max()) / problem.total_weight
    noise = optimizer.gain * bound * square
    curvature = bound * (batch_size - 1) * largest / weight + penalty
    steepness = noise + optimizer.curvature_gain * curvature
    # Batches of all rows have no noise.
    falling_share = 0.0 if problem.loss.constant_curvature or all_rows else noise / steepness
    least = _SGD_ROWS_PER_PARAMETER * (problem.n_features + 1) / batch_size
    eta0 = batch_size / steepness
    return Rate(eta0, Falling(falling_share, max(1.0, least, _SGD_EPOCHS * (per_epoch or 0.0))))


def normalised_rate(
    optimizer: Optimizer, n_features: int, batch_size: int, per_epoch: float | None
) -> Rate:
    """Return the learning rate "auto" of an optimizer whose steps ignore the gradient's size.

    The rate depends on no rows.
    """
    narrow = min(1.0, sqrt(_ADAM_FEATURES / n_features))
    first = _FIRST_STEP / optimizer.first_step
    if optimizer.slowing:
        return Rate(first * narrow)
    largest = min(_ADAM_LARGEST * narrow, first, _ADAM_RATE * sqrt(batch_size / _ADAM_ROWS))
    fall = narrow**2 * max(_ADAM_UPDATES, _ADAM_EPOCHS * (per_epoch or 0.0))
    fall = max(fall, (n_features + 1) / batch_size)
    return Rate(largest * narrow, Falling(1.0, fall))


def evaluated_partitions(rows: Rows, most: int = EVALUATED_ROWS) -> Sequence[int]:
    """Return the partitions, spread evenly, that evaluate a model after each epoch.

    Small data are evaluated by all partitions. Bytes count as models see them: pixels of one byte
    become four.
    """
    row_bytes = max(rows.row_bytes, rows.n_features * np.dtype(rows.dtype).itemsize)
    wanted = min(most, _EVALUATED_BYTES // max(1, row_bytes))
    return sample_partitions(rows, max(wanted, _LEAST_EVALUATED * rows.partition_rows))
