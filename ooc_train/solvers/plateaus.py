"""The learning rate of the schedule "plateau": lowered where a run makes no more progress.

Whether a run makes progress is known after an epoch alone, so no function of the updates gives such
rates. After each epoch the run hands over the figure that the schedule follows. The state keeps the
best figure, the epochs since, and how often the rate was lowered, so a run can be kept between any
two passes.
"""

from dataclasses import replace
from math import inf

from ooc_train.core.text import counted
from ooc_train.optimizers.schedules import Plateau
from ooc_train.solvers.base import Solver, State

PATIENCE = 5
"""Epochs without progress after which a run ends by default, as in scikit-learn."""


def after_epoch(solver: Solver, state: State, figure: float, *, ends: bool) -> State:
    """Return the state with a lower learning rate if the run is on a plateau.

    The rule is that of scikit-learn's `learning_rate="adaptive"`.

    Parameters
    ----------
    solver : Solver
        The solver. One without a schedule "plateau" leaves the state as it is.
    state : State
        The state after an iteration or epoch.
    figure : float
        What the schedule follows, the smaller the better: a validation loss, a metric or the
        objective.
    ends : bool
        Whether a plateau as long as the solver's patience, at the lowest rate, ends the run.
    """
    schedule = getattr(solver, "schedule", None)
    if not isinstance(schedule, Plateau) or state.converged:
        return state
    best, stale, lowered = state.memory.get("plateau", (inf, 0, 0))
    stale = 0 if figure < best - schedule.min_delta else stale + 1
    if stale < schedule.patience:
        return _kept(state, min(best, figure), stale, lowered)
    without = f"no progress by {schedule.min_delta:g} in {counted(stale, 'epoch')}"
    if not may_lower(schedule, state):
        ended = ends and stale >= getattr(solver, "patience", PATIENCE)
        stalled = f"{without} at the schedule's lowest learning rate" if ended else ""
        return replace(_kept(state, min(best, figure), stale, lowered), stalled=stalled)
    eta0 = schedule.factor * state.memory["eta0"]
    after = _kept(state, min(best, figure), 0, lowered + 1)
    return replace(
        after,
        note=f"{without}: the learning rate is lowered to {eta0:.4g}",
        memory={**after.memory, "eta0": eta0, "stale": 0},
    )


def may_lower(schedule: object, state: State) -> bool:
    """Return whether the schedule is a "plateau" that may lower the rate once more."""
    if not isinstance(schedule, Plateau):
        return False
    _, _, lowered = state.memory.get("plateau", (inf, 0, 0))
    return schedule.may_lower(lowered)


def _kept(state: State, best: float, stale: int, lowered: int) -> State:
    return replace(state, memory={**state.memory, "plateau": (best, stale, lowered)})
