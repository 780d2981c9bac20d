"""Why a run has not converged, and the way out, in one line."""

from ooc_train.core.text import counted
from ooc_train.models.linear import LinearProblem
from ooc_train.models.problem import Problem
from ooc_train.solvers.base import State
from ooc_train.solvers.gain import gain_requests, guaranteed_gain, is_gain_small
from ooc_train.solvers.registry import Settings
from ooc_train.stream.passes import Stream


def shortfall(
    cause: str,
    problem: Problem,
    stream: Stream,
    state: State,
    settings: Settings,
    *,
    by_batches: bool,
    advice: str = "",
) -> str:
    """Return why a run has not converged; empty if updates are close to the optimum all the same.

    Parameters
    ----------
    cause : str
        The limit that ended the run, or why its solver stalled.
    state : State
        The last state.
    settings : Settings
        Settings of the solver: its tolerance, and the patience of updates.
    by_batches : bool
        Whether the run made updates by batches. What is left to gain then takes passes over a
        sample.
    advice : str
        What to say in place of raising a limit.
    """
    tol, patience = settings.tol, settings.patience
    way_out = f"{cause.split('=')[0]} or tol" if cause.startswith("max_") else "tol"
    early = f" before {counted(patience, 'epoch')} in a row gained less than tol"
    if by_batches and not isinstance(problem, LinearProblem):
        cause += early  # no bound of its curvature tells what is left to gain
    elif by_batches and isinstance(problem, LinearProblem):
        requests = gain_requests(problem, stream.source, state.params)
        gain = guaranteed_gain(problem, stream.sums(requests), state.params)
        if is_gain_small(gain, state.loss, tol):
            if tol == 0:  # the run had no tolerance
                return ""
            cause += early
        else:
            cause += f", and the mean objective can be lowered by {gain:.3g} at least"
            way_out = "max_iter, or change learning_rate or batch_size"
    elif state.gradient_norm is not None:
        norm = state.gradient_norm
        has_l1 = isinstance(problem, LinearProblem) and not problem.penalty.smooth
        slope = "subgradient of least size" if has_l1 else "gradient"
        cause += f", the largest entry of the {slope} is {norm:.3g} and tol is {tol:g}"
    return f"not converged: {cause}; {advice or f'raise {way_out}'}"
