"""Solvers by name. To add one: a file of its own, and its line in `EXACT` and `_EXACT`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf
from types import MappingProxyType

from ooc_train.core.text import counted
from ooc_train.models.problem import Capability, Problem
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.optimizers.differential_privacy import DifferentiallyPrivate
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.optimizers.schedule import Schedule
from ooc_train.solvers.base import Solver
from ooc_train.solvers.batch_schedules import BatchSchedule
from ooc_train.solvers.block_lbfgs import BlockLBFGS, has_small_blocks
from ooc_train.solvers.coordinate_descent import CoordinateDescent
from ooc_train.solvers.gram import Gram
from ooc_train.solvers.lbfgs import LBFGS
from ooc_train.solvers.newton import MOST_PARAMETERS, Newton, is_small
from ooc_train.solvers.phased import Phased
from ooc_train.solvers.plateaus import PATIENCE
from ooc_train.solvers.private_updates import PrivateUpdates
from ooc_train.solvers.proximal_lbfgs import ProximalLBFGS
from ooc_train.solvers.proximal_newton import ProximalNewton
from ooc_train.solvers.smoothing import Smoothing
from ooc_train.solvers.updates import Updates

_GRAM_COLUMNS = 4096
"""Limit of columns, and of outputs, for the solvers of the Gram matrix. Beyond, L-BFGS takes less
time."""


@dataclass(frozen=True)
class Settings:
    """The settings of `Training` that solvers need, with numbers in place of "auto".

    Attributes
    ----------
    tol : float
        The tolerance.
    batch_size : int
        Rows per update.
    learning_rate : float or "auto"
        The learning rate of updates.
    schedule : Schedule or None
        How the learning rate changes; None for "auto".
    seed : int
        Seed of the order of rows.
    shuffle_chunks, replicas : int
        Chunks mixed row by row, and copies of the parameters that learn from shares of the rows.
    epochs : float
        Planned number of iterations or epochs.
    patience : int
        Epochs of updates in a row without progress after which a run ends.
    """

    tol: float
    batch_size: int
    learning_rate: float | str = "auto"
    schedule: Schedule | None = None
    seed: int = 0
    shuffle_chunks: int = 1
    replicas: int = 1
    epochs: float = inf
    patience: int = PATIENCE


@dataclass(frozen=True)
class Choice:
    """The solver that "auto" stands for, and the reason.

    Attributes
    ----------
    solver : str or Optimizer
        A name in `EXACT` or `OPTIMIZERS`, or the optimizer that the problem brings.
    reason : str
        Why it fits best, in a few words without a full stop.
    """

    solver: str | Optimizer
    reason: str


_MEANINGS: Mapping[Capability, str] = MappingProxyType(
    {
        "gradient": "a gradient of all rows (no dropout, no augment)",
        "hessian": "second derivatives (of a convex loss)",
        "blocks": "second derivatives of each output (of a convex loss)",
        "smooth": "a gradient everywhere (no l1 penalty, no hinge loss)",
        "prox": "a loss with a gradient everywhere (no hinge loss)",
        "smoothing": "a loss with kinks that can be smoothed",
        "gram": "the loss of least squares",
        "updates": "learning by batches",
        "moments": "a linear model",
        "private": "gradients of rows (no log link, no dropout, no augment, no module)",
    }
)
"""Capabilities in the words of error messages."""

_EXACT: Mapping[str, Callable[[Settings], Solver]] = MappingProxyType(
    {
        "gram": lambda _: Gram(),
        "coordinate-descent": lambda settings: CoordinateDescent(settings.tol, settings.epochs),
        "newton": lambda settings: Newton(settings.tol),
        "proximal-newton": lambda settings: ProximalNewton(settings.tol),
        "lbfgs": lambda settings: LBFGS(settings.tol),
        "block-lbfgs": lambda settings: BlockLBFGS(settings.tol),
        "proximal-lbfgs": lambda settings: ProximalLBFGS(settings.tol),
        "smoothing": lambda settings: Smoothing(settings.tol),
    }
)
"""What makes the solvers that read all rows before each step, by the names in `EXACT`."""


def solver_for(
    solver: str | Optimizer | DifferentiallyPrivate, settings: Settings, problem: Problem
) -> Solver:
    """Return a solver for a problem.

    Parameters
    ----------
    solver : str, Optimizer or DifferentiallyPrivate
        A name of `EXACT` or `OPTIMIZERS`, an optimizer, or "auto" for batches of all rows.
    settings : Settings
        Settings of the solver.
    problem : Problem
        The problem, whose capabilities decide.

    Raises
    ------
    ValueError
        If the problem lacks a capability that the solver requires; the message names solvers that
        fit.
    """
    if solver == "auto":
        solver = automatic_solver(problem).solver
    made = _made(solver, settings)
    missing = made.requires - problem.can
    if not missing:
        return made
    fitting = [
        repr(name)
        for name in (*_EXACT, *OPTIMIZERS)
        if _made(name, settings).requires <= problem.can
    ]
    way_out = f"use {' or '.join(fitting)}"
    by_batches = isinstance(made, Updates) and settings.batch_size < problem.n_rows
    if by_batches and not any(repr(name) in fitting for name in OPTIMIZERS):
        way_out = f"leave out batch_size={settings.batch_size}, and {way_out}"
    needs = " and ".join(_MEANINGS[capability] for capability in sorted(missing))
    raise ValueError(
        f"solver={made.name!r} needs {needs}, which this problem does not have; {way_out}"
    )


def phased(
    schedule: BatchSchedule, updates: Solver, settings: Settings, problem: Problem
) -> Phased:
    """Return updates by a batch-size schedule, and the solver "auto" at batches of all rows."""
    if not isinstance(updates, Updates):
        raise TypeError(f"{updates.name} does not learn by batches")
    if "moments" not in problem.can:
        raise ValueError(f"batch_size='{schedule}' is for linear models; use one batch size")
    exact = None
    if schedule.last(problem.n_rows) == problem.n_rows:
        exact = solver_for("auto", replace(settings, batch_size=problem.n_rows), problem)
    return Phased(schedule, updates, exact)


def automatic_solver(problem: Problem, *, by_updates: bool = False) -> Choice:
    """Return the solver that "auto" stands for: the one that takes the least time.

    Parameters
    ----------
    problem : Problem
        The problem, whose capabilities and number of parameters decide.
    by_updates : bool
        Whether it has to learn by batches. The rate of SGD follows from a bound of the curvature.
        Steps of Adam are no larger than its rate, whatever the gradient, so they suit losses
        without a bound.
    """
    if problem.own_optimizer is not None:
        return Choice(problem.own_optimizer, "the optimizer of the module")
    if by_updates:
        if problem.bound is None:
            return Choice("adam", "updates, and the curvature of the loss has no bound")
        return Choice("sgd", "updates, and no rate has to be given")
    if problem.can == {"gram"}:
        return Choice("coordinate-descent", "non-negative least squares")
    smooth = "smooth" in problem.can
    if "smoothing" in problem.can:
        why = "has no curvature far from y" if "prox" in problem.can else "has kinks"
        return Choice("smoothing", f"the loss {why}, which can be smoothed")
    has_gram, columns = "gram" in problem.can, max(problem.shape)
    # Blocks of the Hessian are solved one by one.
    has_hessian, width = "hessian" in problem.can, problem.hessian_shape[-1]
    if not smooth and "prox" not in problem.can:
        return Choice("sgd", "the loss has kinks, which updates can learn from")
    l1 = "" if smooth else " with l1"
    if has_gram and columns <= _GRAM_COLUMNS:
        return Choice(
            "gram" if smooth else "coordinate-descent",
            f"least squares{l1}, and {counted(columns, 'parameter')}: at most {_GRAM_COLUMNS:,}",
        )
    if has_hessian and is_small(problem.hessian_shape, kinks=not smooth):
        limit = f"at most {MOST_PARAMETERS:,}"
        if width > MOST_PARAMETERS:
            limit = "proximal L-BFGS would take many more passes"
        return Choice(
            "newton" if smooth else "proximal-newton",
            f"a smooth loss{l1}, and {counted(width, 'parameter')}: {limit}",
        )
    if smooth and not has_gram and has_small_blocks(problem):
        return Choice(
            "block-lbfgs",
            f"a smooth loss, and {counted(width, 'parameter')}: more than {MOST_PARAMETERS:,}; the "
            f"Hessian of each output, of {counted(problem.shape[-1], 'parameter')}, saves passes",
        )
    most = _GRAM_COLUMNS if has_gram else MOST_PARAMETERS
    why = f"and {counted(width, 'parameter')}: more than {most:,}"
    if not has_hessian:
        why = "without second derivatives that are never negative"
    return Choice("lbfgs" if smooth else "proximal-lbfgs", f"a smooth loss{l1}, {why}")


def _made(solver: str | Optimizer | DifferentiallyPrivate, settings: Settings) -> Solver:
    if isinstance(solver, DifferentiallyPrivate):
        return PrivateUpdates(
            solver,
            settings.batch_size,
            float(settings.learning_rate),
            settings.seed,
            settings.shuffle_chunks,
            settings.schedule,
            settings.epochs,
        )
    if isinstance(solver, str) and solver in _EXACT:
        return _EXACT[solver](settings)
    return Updates(
        OPTIMIZERS[solver]() if isinstance(solver, str) else solver,
        settings.batch_size,
        settings.learning_rate,
        settings.tol,
        settings.seed,
        settings.shuffle_chunks,
        settings.replicas,
        settings.schedule,
        settings.epochs,
        patience=settings.patience,
    )
