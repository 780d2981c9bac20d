"""The state between two calls of `partial_fit`, and its change to a new scaling."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array, Sums
from ooc_train.kernels.layout import AGE
from ooc_train.memory.measured import MemoryReport
from ooc_train.models.column_moments import ColumnMoments
from ooc_train.models.linear import LinearProblem
from ooc_train.models.problem import ModelProblem
from ooc_train.objective.scaling import Scaling
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.runs.fitted import Fitted
from ooc_train.stream.pass_config import PassConfig

_BY_COLUMN = ("theta", "average", "slots", "partial")
"""Arrays of a replica with an entry for each column, and one for the constant at the end."""


@dataclass(frozen=True, eq=False)
class PartialFit:
    """The state between two calls of `partial_fit`.

    Attributes
    ----------
    problem : ModelProblem
        The objective over all rows so far.
    moments : ColumnMoments or None
        Moments of the rows that scale the columns; None if the problem needs no moments.
    feature_names : tuple of str, or None
        Column names of the first block. Parameters and scaling have its column order.
    inverse_rate : float
        Mean over all rows of the inverse of their block's safe learning rate.
    lowered : int
        How often the learning rate "auto" was lowered, since it made the loss diverge.
    first : float
        The largest objective of a block before its updates, at the model so far or at zero. An
        objective far above it indicates divergence.
    optimizer : Optimizer
        The optimizer whose slots the replica has.
    replica : Sums
        The state of the updates.
    kind, dtype : str
        Kind of source and type of X of the last block that had a plan.
    config : PassConfig
        The settings of passes of that plan.
    memory : MemoryReport
        The memory report of that block.
    """

    problem: ModelProblem
    moments: ColumnMoments | None
    feature_names: tuple[str, ...] | None
    inverse_rate: float
    lowered: int
    first: float
    optimizer: Optimizer
    replica: Sums
    kind: str
    dtype: str
    config: PassConfig
    memory: MemoryReport

    def permuted(self, order: NDArray[np.intp]) -> "PartialFit":
        """Return the state for columns reordered as `X[:, order]`."""
        by_column = {
            name: self.problem.permuted(self.replica[name], order)[1] for name in _BY_COLUMN
        }
        problem, _ = self.problem.permuted(self.replica["theta"], order)
        moments = None if self.moments is None else self.moments.permuted(order)
        return replace(self, problem=problem, moments=moments, replica=self.replica | by_column)


def _rescaled(theta: Array, problem: LinearProblem, old: Scaling) -> Array:
    """Convert parameters to the columns' new scaling.

    A parameter keeps its scaled value if the scale of its column has grown, since a coefficient by
    a few similar rows would be far too large for other rows. Otherwise it keeps its coefficient.
    Predictions stay the same at the old means.
    """
    new = problem.scaling
    kept = theta[:, :-1] * np.minimum(1.0, new.scale / old.scale)
    constant = theta[:, -1] + (kept / new.scale) @ (new.mean - old.mean)
    if not problem.fit_intercept:
        constant = np.zeros_like(constant)
    return np.concatenate([kept, constant[:, None]], axis=1)


def continued_replica(
    problem: ModelProblem,
    optimizer: Optimizer,
    initial: Sums,
    before: PartialFit | None,
    start: Fitted | None,
) -> Sums:
    """Return the state that the updates continue from, in the units of the new scaling.

    Parameters
    ----------
    problem : LinearProblem
        The objective over all rows so far.
    optimizer : Optimizer
        The optimizer; its slots are kept if the previous call's optimizer is of the same kind.
    initial : Sums
        The state of updates that begin at zero.
    before : PartialFit or None
        The state of the previous call.
    start : Fitted or None
        Parameters that a first call begins from.
    """
    if before is None:
        if start is None:
            return initial
        theta = problem.params_of(start.predictor)
        return initial | {"theta": theta, "average": theta.copy()}
    replica = initial | {
        name: array.copy()
        for name, array in before.replica.items()
        if name not in ("partial", "sums")
    }
    if type(before.optimizer) is not type(optimizer):
        # The age is that of the new slots, which are zeros.
        replica["slots"] = initial["slots"]
        replica["clock"][AGE] = 0.0
    if isinstance(problem, LinearProblem) and isinstance(before.problem, LinearProblem):
        old = before.problem.scaling
        replica |= {name: _rescaled(replica[name], problem, old) for name in ("theta", "average")}
        # Slopes by a parameter are in inverse proportion to the scale of its column.
        ratio = np.append(old.scale / problem.scaling.scale, 1.0)
        replica["slots"] *= ratio ** np.reshape(optimizer.slot_powers, (-1, 1, 1))
    return replica
