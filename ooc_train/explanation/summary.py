"""Standard errors of a linear model, by one pass more over its rows."""

from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np

from ooc_train.core.partitions import sample_partitions
from ooc_train.core.progress import Progress, no_progress, row_counter
from ooc_train.core.schema import shown
from ooc_train.core.sums import Array, Sums
from ooc_train.core.text import counted, feature_name, listed
from ooc_train.explanation.coefficient_summary import CoefficientSummary
from ooc_train.explanation.covariance import ERRORS, Errors, Estimate, algebra_bytes, estimates
from ooc_train.inference.grouping import row_groups
from ooc_train.inference.predict import with_inputs
from ooc_train.memory.ceiling import Ceiling
from ooc_train.memory.measured import MemoryReport
from ooc_train.models.column_moments import ColumnSums, moments_by_passes
from ooc_train.models.information_sums import InformationSums
from ooc_train.models.linear_model import LinearModel
from ooc_train.objective.losses.gamma import Gamma
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.losses.poisson import Poisson
from ooc_train.objective.losses.squared import Squared
from ooc_train.objective.losses.tweedie import Tweedie
from ooc_train.objective.scaling import Scaling
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.run_loading import as_fitted
from ooc_train.runtime.job import Job
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.passes import Stream
from ooc_train.stream.requirements import Requirements

Weights = Literal["variance", "frequency"]

_LIKELIHOODS = (Squared, Logistic, Multinomial, Poisson, Gamma, Tweedie)

_SAMPLE_PARTITIONS = 32
"""Size of the sample, in largest partitions, whose moments scale columns without statistics."""

_MOST_DISTANCE, _NOTED_DISTANCE = 0.1, 1e-3
"""Distances from the optimum, in standard errors, that are refused and noted."""

_SEPARABLE = 1e-4
"""Mean log-loss of rows below which a note says that classes may be separable."""


def summary(
    model: Any,
    data: Any,
    *,
    y: Any = None,
    sample_weight: Any = None,
    errors: Errors = "classical",
    groups: Any = None,
    weights: Weights = "variance",
    level: float = 0.95,
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
    progress: Progress = no_progress,
) -> CoefficientSummary:
    """Return coefficients with standard errors, z, p and confidence limits, by one pass.

    The model is a linear, logistic, multinomial, Poisson, gamma or Tweedie regression without a
    penalty, and the rows are those that it learned from. With the information H, the expected
    second derivative of minus the log-likelihood, the covariance matrix is

    - "classical": ``phi H^-1``. The dispersion phi is Pearson's statistic divided by n - k, for
      least squares the variance of the residuals; for logistic and Poisson models it is 1.
    - "HC1": ``n / (n - k) H^-1 M H^-1``, where M adds up ``s s'`` of the scores s of rows, and H is
      the observed information (White 1980, MacKinnon and White 1985).
    - "cluster": ``g / (g - 1) (n - 1) / (n - k) H^-1 M H^-1``, where M adds up ``s s'`` of the sums
      s of scores over each of g groups (Liang and Zeger 1986).

    z of least squares has Student's t distribution of n - k degrees of freedom, or of g - 1 with
    groups; that of other models has the normal distribution. The memory of clustered errors is
    groups x coefficients x 8 bytes in each task.

    A column may be a sum of others before it, as the last category of a one-hot encoding is. It is
    left out as a reference: its coefficient is NaN, and those of the others include it. Of three or
    more classes, coefficients are differences to those of the first class.

    Parameters
    ----------
    model : Fitted, fitted estimator, or path of a saved run
        The model.
    data, y, sample_weight, client, memory_ceiling
        As for `train`.
    errors : {"classical", "HC1", "cluster"}
        The kind of standard errors.
    groups : str, int, or array of shape (rows,)
        For "cluster": the name or number of a column of X, or a label for each row. The values of
        a column are found by one more pass.
    weights : {"variance", "frequency"}
        What a weight is. "variance": a row is one observation, whose variance is in inverse
        proportion to its weight (as `var_weights` of statsmodels); robust errors are right for
        sampling weights too. "frequency": a row stands for so many equal rows (`freq_weights`).
    level : float
        Level of the confidence limits, between 0 and 1.
    progress : callable
        Called with the stage, its rows so far, and the fraction done, from 0 to 1.

    Returns
    -------
    CoefficientSummary

    Raises
    ------
    ValueError
        If the model is of another kind, has a penalty, constraints or class weights, or is not at
        the optimum on these rows; if there are too few rows or groups.
    InvalidRun
        If the data have other columns, by name or by number.
    CeilingExceeded
        If the pass does not fit the ceiling, before it begins.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ooc_train import LinearRegression, summary
    >>> X, y = load_diabetes(return_X_y=True)
    >>> table = summary(LinearRegression().fit(X, y), X, y=y)
    >>> table.frame.columns.tolist()
    ['coef', 'std_err', 'z', 'p', 'low', 'high']
    """
    if errors not in ERRORS:
        raise ValueError(f"errors={shown(errors)} is none of {', '.join(map(repr, ERRORS))}")
    if weights not in ("variance", "frequency"):
        raise ValueError(f"weights={shown(weights)} is none of 'variance' and 'frequency'")
    if (groups is not None) != (errors == "cluster"):
        raise ValueError('errors="cluster" needs groups, and groups are for errors="cluster"')
    if not 0.0 < level < 1.0:
        raise ValueError(f"level={shown(level)} is not between 0 and 1; pass 0.95, for example")
    fitted = replace(as_fitted(model).bare(), calibration=None)
    require_likelihood(fitted)
    memory_ceiling = Ceiling.of(memory_ceiling)
    fitted, inputs = with_inputs(fitted, data, y, sample_weight, memory_ceiling)
    source = inputs.source
    of_rows = None
    if groups is not None:
        of_rows = row_groups(inputs, groups, client=client, memory_ceiling=memory_ceiling)

    def reduction(scaling: Scaling) -> InformationSums:
        return InformationSums(
            fitted.loss,
            scaling,
            scaling.from_data_units(fitted.coef, fitted.intercept),
            errors != "classical",
            of_rows,
            weights == "frequency",
        )

    largest = reduction(Scaling(np.zeros(source.n_features), np.ones(source.n_features)))
    requirements = Requirements.of(
        source,
        [largest, ColumnSums(np.zeros(source.n_features))],
        parameters=fitted.nbytes,
        algebra=algebra_bytes(largest),
        way_out=(
            "cluster by a column of fewer values"
            if groups is not None
            else "summarise a model of fewer columns"
        ),
    )
    with Job(source, client=client, memory_ceiling=memory_ceiling) as job:
        plan = job.plan(requirements)
        stream = job.stream(plan, row_counter(progress, "summarising", source.n_rows))
        made = reduction(_scaling(inputs, stream, centre=_fits_intercept(fitted)))
        sums = stream.reduce(made)
        found = estimates(made, sums, errors, fit_intercept=_fits_intercept(fitted))
        memory = job.memory(plan)
    return _summarised(fitted, made, sums, found, errors, level, memory)


def _fits_intercept(fitted: Fitted) -> bool:
    return bool(getattr(fitted.model, "fit_intercept", True))


def require_likelihood(fitted: Fitted) -> None:
    """Refuse a model whose loss and penalty give no standard errors, with the way out.

    Raises
    ------
    ValueError
        If it has none.
    """
    model = fitted.model
    loss = fitted.loss
    if not isinstance(model, LinearModel) or not isinstance(loss, _LIKELIHOODS):
        raise ValueError(  # noqa: TRY004 (as for other settings)
            f"standard errors are for linear, logistic, Poisson, gamma and Tweedie regression, and "
            f"this is a {model.name} model"
        )
    if model.is_classifier and (
        isinstance(loss, Squared) or (fitted.n_outputs > 1 and loss.kind == "pointwise")
    ):
        raise ValueError(
            f"the {model.name} model has no likelihood of these classes; fit a LogisticRegression"
        )
    penalty = model.penalty_for(1.0)
    if penalty.l1 or penalty.l2 or any(penalty.l2_of_each) or penalty.positive:
        what = "the constraint positive=True" if penalty.positive else "a penalty"
        raise ValueError(
            f"the model was fitted with {what}, which biases coefficients by more than a standard "
            "error can show; fit it without: C=inf, alpha=0, or model='linear' (LinearRegression)"
        )
    if model.class_weight is not None:
        raise ValueError(
            "the model was fitted with class_weight, which no standard error allows for; pass "
            'sample_weight instead, to fit and summary, with errors="HC1"'
        )
    if model.standardizes and not model.fit_intercept:
        raise ValueError(
            "standardize=True or scale='channel' without an intercept centres columns all the "
            "same; fit the model without it, which has no effect if there is no penalty"
        )


def _scaling(inputs: Inputs, stream: Stream, *, centre: bool) -> Scaling:
    """Return the scaling of the columns: by their statistics, or by the moments of a sample."""
    statistics = inputs.statistics
    if statistics is not None:
        return Scaling.of(statistics.mean, statistics.scale, centre=centre)
    source = inputs.source
    sample = sample_partitions(source, _SAMPLE_PARTITIONS * source.partition_rows)
    moments = moments_by_passes(
        partial(stream.reduce, counted=False), source.n_features, sample, sample
    )
    return Scaling.of(moments.mean, np.sqrt(moments.variance), centre=centre)


def _summarised(
    fitted: Fitted,
    reduction: InformationSums,
    sums: Sums,
    found: list[Estimate],
    errors: Errors,
    level: float,
    memory: MemoryReport,
) -> CoefficientSummary:
    """Return the table, after a check that the model is at the optimum."""
    names = tuple(
        feature_name(fitted.feature_names, fitted.row_shape, i) for i in range(fitted.n_features)
    )
    distance = max(estimate.distance for estimate in found)
    left_out = sorted(set(range(fitted.n_features)) - set(found[0].kept.tolist()))
    if max(estimate.moved for estimate in found) > _MOST_DISTANCE:
        raise ValueError(
            f"the columns {listed([names[i] for i in left_out])} are so nearly sums of others that "
            "float64 cannot separate their coefficients; fit the model without them"
        )
    if not distance <= _MOST_DISTANCE:
        raise ValueError(
            f"the coefficients are up to {distance:.3g} standard errors from the optimum on these "
            "rows, so that limits about them would be wrong; pass the rows and weights that the "
            "model learned from, or fit it with a smaller tol and a larger max_iter"
        )
    notes = []
    if left_out:
        notes.append(
            f"left out, since they are sums of the columns before them: "
            f"{listed([names[i] for i in left_out])}; the other coefficients are relative to them"
        )
    if distance > _NOTED_DISTANCE:
        notes.append(
            f"the coefficients are up to {distance:.2g} standard errors from the optimum; a fit "
            "with a smaller tol is nearer"
        )
    coefficients = (*names, "intercept")
    boundless = {
        coefficients[j]: None for each in found for j in each.kept[each.boundless.any(axis=0)]
    }
    if boundless:
        notes.append(
            f"without a robust error, since nearly all of their rows are of one class, or 0: "
            f"{listed(list(boundless))}; their best coefficients are infinite"
        )
    mean_loss = float(sums["loss"] / sums["weight"])
    if fitted.classes and mean_loss < _SEPARABLE:
        notes.append(
            f"the mean log-loss is {mean_loss:.2g}: the classes may be separable, and then no "
            "finite coefficients are the best"
        )
    if fitted.loss.kind == "rowwise":
        notes.append(f"coefficients are relative to the class {fitted.classes[0]}")
    groups, degrees = reduction.groups, np.inf
    n_coefficients = max(each.coef.size for each in found)
    if groups is not None and groups.n_groups <= n_coefficients:
        notes.append(
            f"{counted(groups.n_groups, 'group')} are no more than the "
            f"{counted(n_coefficients, 'coefficient')}: "
            "tests of single coefficients stand, those of all of them together do not"
        )
    if isinstance(fitted.loss, Squared):
        degrees = min(each.n_left for each in found) if groups is None else groups.n_groups - 1.0
    return CoefficientSummary(
        model=fitted.model.name,
        errors=errors,
        names=(*(["intercept"] * _fits_intercept(fitted)), *names),
        outputs=_outputs(fitted),
        coef=_spread(fitted, found, [each.coef for each in found]),
        std_err=_spread(fitted, found, [each.std_err for each in found]),
        covariance=tuple(each.covariance for each in found),
        dispersion=np.array([each.dispersion for each in found for _ in each.outputs]),
        degrees=float(degrees),
        level=level,
        n_rows=round(float(sums["weight"] if reduction.counts else sums["rows"])),
        n_groups=None if groups is None else groups.n_groups,
        distance=distance,
        notes=tuple(notes),
        memory=memory,
    )


def _outputs(fitted: Fitted) -> tuple[str, ...]:
    """Return the names of the outputs that have coefficients; none for one output."""
    if fitted.n_outputs == 1:
        return ()
    if fitted.classes:
        return tuple(map(str, fitted.classes[1:]))
    return tuple(f"output {i}" for i in range(fitted.n_outputs))


def _spread(fitted: Fitted, found: list[Estimate], values: list[Array]) -> Array:
    """Return values of kept columns as (outputs, coefficients), NaN elsewhere, intercept first."""
    columns = fitted.n_features + 1
    rows = []
    for estimate, of_kept in zip(found, values, strict=True):
        whole = np.full((len(of_kept), columns), np.nan)
        whole[:, estimate.kept] = of_kept
        rows.append(whole)
    spread = np.concatenate(rows)
    return np.roll(spread, 1, axis=1) if _fits_intercept(fitted) else spread[:, :-1]
