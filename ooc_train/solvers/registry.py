"""Solvers by name. To add one: a file of its own, and its line in `SOLVERS`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from types import MappingProxyType

from ooc_train.models.problem import Capability, Problem
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.solvers.base import Solver
from ooc_train.solvers.gram import Gram
from ooc_train.solvers.lbfgs import LBFGS
from ooc_train.solvers.newton import Newton
from ooc_train.solvers.updates import Updates


@dataclass(frozen=True)
class Settings:
    """Settings that solvers may use.

    Attributes
    ----------
    tol : float
        The tolerance.
    batch_size : int
        Rows per update.
    learning_rate : float or "auto"
        The learning rate of updates.
    seed : int
        Seed of the order of rows.
    shuffle_chunks, replicas : int
        Chunks mixed row by row, and copies of the parameters that learn from shares of the rows.
    epochs : float
        Planned number of iterations or epochs.
    """

    tol: float
    batch_size: int
    learning_rate: float | str = "auto"
    seed: int = 0
    shuffle_chunks: int = 1
    replicas: int = 1
    epochs: float = inf


_MEANINGS: Mapping[Capability, str] = MappingProxyType(
    {
        "gradient": "first derivatives",
        "hessian": "second derivatives",
        "smooth": "a gradient everywhere (no l1 penalty, no hinge loss)",
        "gram": "the loss of least squares",
        "updates": "learning by batches",
        "moments": "a linear model",
    }
)
"""Capabilities in the words of error messages."""


def _updates(optimizer: str, settings: Settings) -> Updates:
    return Updates(
        OPTIMIZERS[optimizer](),
        settings.batch_size,
        settings.learning_rate,
        settings.tol,
        settings.seed,
        settings.shuffle_chunks,
        settings.replicas,
        epochs=settings.epochs,
    )


SOLVERS: Mapping[str, Callable[[Settings], Solver]] = MappingProxyType(
    {
        "gram": lambda _: Gram(),
        "newton": lambda settings: Newton(settings.tol),
        "lbfgs": lambda settings: LBFGS(settings.tol),
        **{name: partial(_updates, name) for name in OPTIMIZERS},
    }
)
"""Functions from settings to a solver, by its name."""


def solver_for(name: str, settings: Settings, problem: Problem) -> Solver:
    """Return a solver for a problem.

    Raises
    ------
    ValueError
        If the problem lacks a capability that the solver requires; the message names solvers that
        fit.
    """
    solver = SOLVERS[name](settings)
    missing = solver.requires - problem.can
    if not missing:
        return solver
    others = [
        repr(other) for other, make in SOLVERS.items() if make(settings).requires <= problem.can
    ]
    needs = " and ".join(_MEANINGS[capability] for capability in sorted(missing))
    raise ValueError(
        f"solver={name!r} needs {needs}, which this problem does not have; "
        f"use {' or '.join(others)}"
    )
