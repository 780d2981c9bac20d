"""Calibrated probabilities: a classifier and the calibration that validation rows teach."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ooc_train.core.partitions import sample_partitions
from ooc_train.core.progress import Progress, no_progress, row_counter
from ooc_train.core.schema import shown
from ooc_train.core.sums import Array, Sums
from ooc_train.core.text import counted, listed
from ooc_train.inference.calibration_sums import (
    ScoreHistogram,
    ScoreMoments,
    ScoreSums,
    SigmoidSums,
    TemperatureSums,
)
from ooc_train.inference.metrics import MetricSums
from ooc_train.inference.predict import with_inputs
from ooc_train.memory.ceiling import Ceiling
from ooc_train.memory.measured import MemoryReport
from ooc_train.models.calibration import (
    METHODS,
    Calibration,
    Isotonic,
    Method,
    Sigmoid,
    Temperature,
)
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.run_loading import as_fitted
from ooc_train.runtime.job import Job
from ooc_train.stream.requirements import Requirements

_STEPS = 0.25 ** np.arange(5)
"""Shares of a step that one pass tries."""

_MOST_STEPS = 50
_CERTAIN = 1e-9
"""Expected decrease of the mean loss below which a whole step is right: losses are rounded."""

_TOL = 1e-14
"""Expected decrease of the mean loss of the last step, which is taken without a further pass."""

_FACTORS = np.exp(np.linspace(-10.0, 10.0, 21))
"""Factors of the predictors among which the search for the best one begins."""

_GRIDS = (_FACTORS, np.exp(np.linspace(-70.0, 70.0, 57)))
"""What is tried in turn until one factor is too small and another too large: predictors of 1e12
need the second."""

_SAMPLE_ROWS = 2**17
"""Rows of a sample that tells where the best factor is, to some thousandth; fewer rows are all."""

_BESIDE = 0.02
"""Trials beside the expected best factor, relative to it, or less where bounds are near."""

_FACTOR_TOL = 1e-5
"""Relative size of the last step to the best factor, whose error is about its square."""

_NOT_PRIVATE = (
    "the calibration depends on its validation rows, which the budget of privacy leaves out"
)

Reduce = Callable[[ScoreSums], Sums]
Partial = Callable[[ScoreSums, Sequence[int] | None], Sums]


def calibrate(
    model: Any,
    data: Any,
    method: Method = "sigmoid",
    *,
    y: Any = None,
    sample_weight: Any = None,
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
    progress: Progress = no_progress,
) -> tuple[Fitted, MemoryReport]:
    """Return a classifier with calibrated probabilities, by some passes over validation rows.

    With the linear predictors z of a row, as `decision_function` returns them, the probability of a
    class is

    - "sigmoid": ``1 / (1 + exp(-(a z + b)))`` with the targets of Platt (1999), by Newton's steps
      (Lin, Lin and Weng 2007), a pass each: about 6 passes.
    - "temperature": the softmax of ``f z`` for one factor f of all classes, whose log-loss is least
      (Guo et al. 2017). It takes 2 passes after a sample, of small data about 4. No
      predicted class changes.
    - "isotonic": the rising function of z of the least squared error (Zadrozny and Elkan 2002), in
      2 passes. Rows in one of 65,536 bins of z count as ties; outputs share the bins.

    "sigmoid" and "isotonic" calibrate each of several classes against the rest, and divide
    probabilities by their sum, as scikit-learn does. The predicted class is that of the largest
    calibrated probability. Decisions are calibrated log odds, and of "isotonic" ``2 p - 1``.

    Parameters
    ----------
    model : Fitted, fitted estimator, or path of a saved run
        The classifier. A calibration that it has already is replaced.
    data, y, sample_weight, client, memory_ceiling
        As for `train`. The rows should be none that the model learned from.
    method : {"sigmoid", "temperature", "isotonic"}
        The kind of calibration.
    progress : callable
        Called with the stage, its rows so far in all passes, and its share of one pass, at most 1.

    Returns
    -------
    fitted : Fitted
        The calibrated classifier.
    memory : MemoryReport
        Ceiling, projection and measurement.

    Raises
    ------
    ValueError
        If the model is no classifier, if a class has no rows, if linear predictors never vary,
        or if no temperature is best.
    InvalidRun
        If the data have other columns, by name or by number.
    InvalidStore
        If the data have other classes, or no y.
    CeilingExceeded
        If the passes do not fit the ceiling, before they begin.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from ooc_train import LogisticRegression, calibrate
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = LogisticRegression().fit(X[:400], y[:400])
    >>> calibrated, memory = calibrate(model, X[400:], "temperature", y=y[400:])
    >>> calibrated.classes
    (0, 1)
    """
    if method not in METHODS:
        raise ValueError(f"method={shown(method)} is none of {', '.join(map(repr, METHODS))}")
    given = as_fitted(model)
    if not given.model.is_classifier:
        raise ValueError(f"the {given.model.name} model has no classes to calibrate")
    given = replace(given, calibration=None)
    memory_ceiling = Ceiling.of(memory_ceiling)
    fitted, inputs = with_inputs(given.bare(), data, y, sample_weight, memory_ceiling)
    source = inputs.source
    row = np.zeros(fitted.n_features) if inputs.statistics is None else inputs.statistics.mean
    # With room for detailed metrics, which make as many arrays.
    metrics = MetricSums(fitted, np.zeros(1), detailed=True)
    moments = ScoreMoments(metrics, fitted.predictor.decision(row[None])[0])
    none = np.zeros(fitted.n_outputs)
    largest = {
        "sigmoid": SigmoidSums(metrics, none, none, np.zeros((len(_STEPS), 2, len(none)))),
        "temperature": TemperatureSums(metrics, _FACTORS),
        "isotonic": ScoreHistogram(metrics, none, none, 1.0),
    }[method]
    requirements = Requirements.of(source, [moments, largest], parameters=fitted.nbytes)
    with Job(source, client=client, memory_ceiling=memory_ceiling) as job:
        plan = job.plan(requirements)
        n_rows = source.n_rows

        def of_one_pass(stage: str, rows: int, share: float) -> None:
            progress(stage, rows, min(share, 1.0))

        stream = job.stream(plan, row_counter(of_one_pass, "calibrating", n_rows))
        if method == "temperature":
            sample = sample_partitions(source, _SAMPLE_ROWS)
            some = sample if 2 * len(sample) < source.n_partitions else None
            calibration = _temperature(metrics, stream.reduce, n_rows, some)
        else:
            fit = _sigmoid if method == "sigmoid" else _isotonic
            calibration = fit(moments, stream.reduce, _checked(moments, stream.reduce))
        report = given.report
        if report.get("privacy") is not None:
            notes = dict.fromkeys([*report.get("notes", ()), _NOT_PRIVATE])
            report = {**report, "notes": list(notes)}
        return replace(given, calibration=calibration, report=report), job.memory(plan)


def _checked(moments: ScoreMoments, reduce: Reduce) -> Sums:
    """Return the moments of the predictors, with their mean and deviation, by one pass."""
    sums = reduce(moments)
    weight, own = sums["weight"], sums["own_weight"]
    classes = moments.metrics.fitted.classes[-len(own) :]
    one_sided = [str(c) for c, w in zip(classes, own, strict=True) if not 0.0 < w < weight]
    if one_sided:
        raise ValueError(
            f"no validation row with a weight, or each one, is of the class {listed(one_sided)}; "
            "pass rows of every class"
        )
    shift = sums["first"] / weight
    variance = sums["second"] / weight - shift**2
    still = variance <= 1e-14 * (sums["second"] / weight)
    if still.any():
        names = listed([str(c) for c, each in zip(classes, still, strict=True) if each])
        raise ValueError(
            f"the model predicts the same for each row of the class {names} and of others, which "
            "leaves nothing to calibrate; fit it anew"
        )
    return sums | {"mean": moments.about + shift, "deviation": np.sqrt(variance)}


def _sigmoid(moments: ScoreMoments, reduce: Reduce, sums: Sums) -> Calibration:
    """Return slopes and offsets of the least log-loss for Platt's targets, by Newton's steps."""
    mean, deviation, weight = sums["mean"], sums["deviation"], sums["weight"]
    own, rest = sums["own_weight"], weight - sums["own_weight"]
    high, low = (own + 1.0) / (own + 2.0), 1.0 / (rest + 2.0)
    # The sums over rows of target x s, and of targets.
    own_score = (sums["own_first"] - own * (mean - moments.about)) / deviation
    due = np.stack([(high - low) * own_score, high * own + low * rest])
    line = np.stack([np.zeros_like(own), np.log(due[1] / (weight - due[1]))])
    due /= weight
    lines = line[np.newaxis]
    each, certain = np.arange(len(own)), np.zeros(len(own), bool)
    for _ in range(_MOST_STEPS):
        found = reduce(SigmoidSums(moments.metrics, mean, deviation, lines))
        # Of a mean row: products of sums of weights may exceed float64.
        found = {name: array / weight for name, array in found.items()}
        losses = found["loss"][:, 0] - (lines * due).sum(axis=1)
        best = losses.argmin(axis=0)
        best[certain] = 0
        line = lines[best, :, each].T
        gradient = found["gradient"][best, :, each].T - due
        aa, ab, bb = found["hessian"][best, :, each].T
        determinant = aa * bb - ab * ab
        step = -np.stack([bb * gradient[0] - ab * gradient[1], aa * gradient[1] - ab * gradient[0]])
        step /= determinant
        decrease = -(step * gradient).sum(axis=0)
        if (decrease <= _TOL).all():
            slope, offset = line + step
            slope = slope / deviation
            return Sigmoid(int(sums["rows"]), slope, offset - slope * mean)
        certain = decrease <= _CERTAIN
        lines = line + _STEPS[:, np.newaxis, np.newaxis] * step
    raise ValueError(
        f"the calibration has not converged in {counted(_MOST_STEPS, 'pass')}; "
        'pass more rows, or method="isotonic"'
    )


def _temperature(
    metrics: MetricSums, reduce: Partial, n_rows: int, sample: Sequence[int] | None
) -> Calibration:
    """Return the factor of the predictors with the least log-loss, between narrowing bounds.

    With a `sample` of partitions, the search begins near the best factor of these.
    """
    factors = _FACTORS
    if sample is not None:
        try:
            found = _best_factor(metrics, lambda sums: reduce(sums, sample), factors)
        except ValueError:
            pass  # all rows may tell more
        else:
            factors = found * np.exp(_BESIDE * np.array([-1.0, 0.0, 1.0]))
    return Temperature(n_rows, _best_factor(metrics, lambda sums: reduce(sums, None), factors))


def _best_factor(metrics: MetricSums, reduce: Reduce, factors: Array) -> float:
    """Return the factor where the slope of the log-loss, which rises, is 0.

    Each pass tries the factors that slopes and curvatures of the nearest known ones lead to.
    """
    known: dict[float, tuple[float, float]] = {}
    bounds = math.inf
    while True:
        sums = reduce(TemperatureSums(metrics, factors))
        if not sums["weight"] > 0.0:
            raise ValueError("no validation row has a weight; pass rows with weights above 0")
        pairs = zip(sums["slope"].tolist(), sums["curvature"].tolist(), strict=True)
        known |= dict(zip(factors.tolist(), pairs, strict=True))
        below = max((f for f, (slope, _) in known.items() if slope <= 0.0), default=None)
        above = min((f for f, (slope, _) in known.items() if slope > 0.0), default=None)
        if below is None or above is None:
            # The sample may be far from all rows, or the predictors far from 1.
            grids = ([f for f in grid.tolist() if f not in known] for grid in _GRIDS)
            factors = np.array(next((grid for grid in grids if grid), []))
            if len(factors):
                continue
            better = "worse than by chance" if below is None else "without a doubtful case"
            raise ValueError(
                f"the model predicts these rows {better}, so that no temperature is best; pass "
                'more rows, or method="sigmoid"'
            )
        best = _root((below, above), known[below], known[above])
        near = min(abs(best - below), abs(best - above))
        if near <= _FACTOR_TOL * best or above - below <= 1e-12 * below:
            return best
        width = math.log(above / below)
        around = best * np.exp(min(_BESIDE, 0.1 * width) * np.array([-1.0, 0.0, 1.0]))
        # Bounds that hardly narrow are halved.
        halves = [math.sqrt(below * above)] if width > 0.5 * bounds else []
        bounds = width
        tried = np.unique([*around.tolist(), *halves])
        factors = tried[(tried > below) & (tried < above)]


def _root(
    ends: tuple[float, float], below: tuple[float, float], above: tuple[float, float]
) -> float:
    """Return where a cubic is 0 that has these values and derivatives at both ends.

    The values are of different signs. The root is found by halving.
    """
    (start, stop), (v0, d0), (v1, d1) = ends, below, above
    d0, d1 = d0 * (stop - start), d1 * (stop - start)
    low, high = 0.0, 1.0
    for _ in range(60):
        t = 0.5 * (low + high)
        rest = 1.0 - t
        of_start = rest * rest * (v0 * (1.0 + 2.0 * t) + d0 * t)
        if of_start + t * t * (v1 * (3.0 - 2.0 * t) - d1 * rest) > 0.0:
            high = t
        else:
            low = t
    return start + low * (stop - start)


def _isotonic(moments: ScoreMoments, reduce: Reduce, sums: Sums) -> Calibration:
    """Return the isotonic regression of each class on its predictor, in bins."""
    mean, deviation = sums["mean"], sums["deviation"]
    # No row is farther from the mean than by this many deviations, if all have the same weight.
    most = float(np.sqrt(sums["rows"]))
    found = reduce(ScoreHistogram(moments.metrics, mean, deviation, most))
    points = []
    for k, (weight, own, score) in enumerate(found["histogram"]):
        taken = weight > 0.0
        weight, own = weight[taken], own[taken]
        scores = mean[k] + deviation[k] * (score[taken] / weight)
        points.append(_rising(scores, own / weight, weight))
    return Isotonic.of(int(sums["rows"]), points)


def _rising(x: Array, y: Array, weight: Array) -> Array:
    """Return the ends of the steps of the isotonic regression of y on rising x, (2, points).

    Neighbours that fall are pooled until none do (Ayer et al. 1955).
    """
    means: list[float] = []
    weights: list[float] = []
    firsts: list[int] = []
    for i, (value, w) in enumerate(zip(y.tolist(), weight.tolist(), strict=True)):
        first = i
        while means and means[-1] >= value:
            before = weights.pop()
            value += (means.pop() - value) * (before / (before + w))
            w += before
            first = firsts.pop()
        means.append(value)
        weights.append(w)
        firsts.append(first)
    lasts = [each - 1 for each in firsts[1:]] + [len(x) - 1]
    at = np.unique(np.stack([firsts, lasts], axis=1))
    step = np.searchsorted(firsts, at, side="right") - 1
    return np.stack([np.maximum.accumulate(x[at]), np.clip(np.asarray(means)[step], 0.0, 1.0)])
