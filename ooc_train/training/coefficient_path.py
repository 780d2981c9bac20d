"""A whole path of elastic nets, from the one pass that makes the Gram matrix."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ooc_train.core.sums import Array
from ooc_train.core.threads import one_blas_thread
from ooc_train.memory.ceiling import Ceiling
from ooc_train.memory.measured import MemoryReport
from ooc_train.models.regression_models import ElasticNetModel
from ooc_train.runtime.job import Job
from ooc_train.solvers.base import advance, start
from ooc_train.solvers.elastic_net_path import ElasticNetPath
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.outliers import report_outliers
from ooc_train.training.column_scaling import prepared
from ooc_train.training.task import Task


@dataclass(frozen=True, eq=False)
class CoefficientPath:
    """Coefficients of a linear model at many strengths of the penalty.

    Attributes
    ----------
    alphas : float64 array (alphas,)
        Strengths, in descending order.
    coef : float64 array (outputs, features, alphas)
        Coefficients, in the data's units.
    intercept : float64 array (outputs, alphas)
        Intercepts.
    dual_gaps, n_iter : arrays (alphas,)
        Duality gap of the mean objective, and number of sweeps, at each alpha.
    passes : float
        Rows read, divided by rows of the data. Samples that scale the columns count.
    shortfall : str
        Why the tolerance was not reached at an alpha; empty if it was at all of them.
    memory : MemoryReport
        Ceiling, projection and measurement.
    """

    alphas: Array
    coef: Array
    intercept: Array
    dual_gaps: Array
    n_iter: Array
    passes: float
    shortfall: str
    memory: MemoryReport


def elastic_net_path(
    inputs: Inputs,
    *,
    l1_ratio: float,
    alphas: int | Sequence[float],
    eps: float,
    fit_intercept: bool,
    positive: bool = False,
    tol: float,
    max_iter: int,
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
) -> CoefficientPath:
    """Return the coefficients at many strengths of an elastic-net penalty.

    Parameters
    ----------
    inputs : Inputs
        The rows.
    l1_ratio : float
        Fraction of the penalty that is l1.
    alphas, eps :
        As of `ElasticNetPath`.
    fit_intercept : bool
        Whether there is an intercept.
    positive : bool
        Whether no coefficient may be below 0.
    tol, max_iter : float, int
        Tolerance and limit of sweeps of each descent.
    client, memory_ceiling :
        As for `train`.

    Raises
    ------
    CeilingExceeded
        If the ceiling is too small; nothing has been read then.
    ValueError
        If a setting cannot be used.
    """
    if isinstance(alphas, int) and l1_ratio == 0:
        raise ValueError(
            f"l1_ratio=0 has no l1 penalty, and so there is no grid of {alphas} alphas that begins "
            "where all coefficients are zero; pass the alphas themselves"
        )
    training = Training(solver="coordinate-descent", tol=tol, max_iter=max_iter)
    model = ElasticNetModel(
        alpha=1.0, l1_ratio=l1_ratio, fit_intercept=fit_intercept, positive=positive
    )
    task = Task.of(model, inputs, training, memory_ceiling=memory_ceiling)
    solver = ElasticNetPath(task.tol, task.max_iter, alphas, eps)
    task = replace(task, solver=solver)
    rows: list[int] = []
    job = Job(inputs.source, client=client, memory_ceiling=memory_ceiling)
    with one_blas_thread(), job:
        plan = job.plan(task.requirements())
        stream = job.stream(plan, rows.append)
        with report_outliers(stream):
            problem = replace(task.linear_problem, scaling=prepared(task, stream).scaling)
            state = start(solver, problem, stream, problem.initial())
            state = advance(solver, problem, stream, state)
        memory = job.memory(plan)
    path = state.memory
    shortfall = ""
    if unmet := path["unmet"]:
        shortfall = (
            f"not converged at {unmet:,} of {len(path['alphas']):,} alphas, the first at "
            f"{state.stalled}; raise max_iter or tol"
        )
    return CoefficientPath(
        path["alphas"],
        path["coef"],
        path["intercept"],
        path["dual_gap"],
        path["n_iter"],
        sum(rows) / inputs.source.n_rows,
        shortfall,
        memory,
    )
