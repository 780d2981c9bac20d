"""Divergence of updates: how it is noticed, and how a run continues.

The learning rate "auto" follows from a sample of the rows. It may be too large for a few rows that
the sample misses. Then the run goes back to its last model, and learns on at a lower rate.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ooc_train.errors import Diverged
from ooc_train.models.problem import Problem
from ooc_train.solvers.base import Solver, State, Stream

LOWER, MOST_LOWERED = 0.25, 10
"""Factor of the learning rate "auto" where a run diverges, and how often the rate is lowered."""

_WORSE = 1.25
"""An epoch by the rate "auto" has failed if its objective is so many times that of the start."""


def raise_if_diverged(loss: float, memory: Mapping[str, Any]) -> None:
    """Raise `Diverged` if a loss is not finite, or many times the lowest one of the run."""
    if not np.isfinite(loss) or loss > 1e3 * memory["lowest"] + 1e3:
        raise Diverged(_grown(memory["lowest"], loss, memory["eta0"]))


def raise_if_worse(objective: float, memory: Mapping[str, Any]) -> None:
    """Raise `Diverged` if an objective is far above that of the first parameters, in `memory`.

    A rate that was lowered as often as allowed has a higher limit: then the start may be so good
    that no rate keeps its objective.
    """
    # The perceptron's loss is 0 at the start, which says nothing of the loss to expect.
    first = memory.get("first") or np.inf
    most = 1e3 * first + 1e3 if memory["lowered"] >= MOST_LOWERED else _WORSE * first
    if not objective <= most:
        raise Diverged(_grown(first, objective, memory["eta0"]))


def _grown(before: float, after: float, eta0: float) -> str:
    return (
        f"the loss went from {before:.4g} to {after:.4g}: the learning rate of {eta0:.3g} is too "
        'large; use learning_rate="auto" or a smaller one'
    )


def after_divergence(
    solver: Solver, problem: Problem, stream: Stream, state: State, error: Diverged
) -> State:
    """Return the state from which a solver with a method `more_careful` goes on.

    Parameters
    ----------
    state : State
        The last state before the loss grew without end.
    error : Diverged
        What is raised if the solver has no such method, or if that returns None.

    Raises
    ------
    Diverged
        If the solver has no other way.
    """
    more_careful = getattr(solver, "more_careful", None)
    after: State | None = None
    if more_careful is not None:
        after = more_careful(problem, stream.source, state)
    if after is None:
        raise error
    return after
