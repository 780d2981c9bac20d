"""The l1 penalty: scikit-learn's optimum is found, and what tells of it is true."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sklearn.linear_model
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_train.models.linear import LinearProblem
from ooc_train.objective.losses import LOSSES
from ooc_train.objective.penalty import ColumnPenalty, Penalty
from ooc_train.objective.scaling import Scaling
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.solvers import gain as gains
from ooc_train.solvers import learning_rate as rates
from ooc_train.solvers.base import advance, start
from ooc_train.solvers.gain import gain_requests, guaranteed_gain, is_gain_small
from ooc_train.solvers.plateaus import PATIENCE
from ooc_train.solvers.registry import Settings, solver_for
from ooc_train.solvers.training_settings import EXACT
from ooc_train.solvers.updates import Updates
from tests.streams import Case, Cut, make_case, stream

ROWS = 203


def l1_case(loss="squared", outputs=1, *, alpha=0.8, ratio=1.0, **how) -> Case:
    """A case under `alpha` (`ratio` |w| + (1 - `ratio`) / 2 w^2), beside the mean loss."""
    case = make_case(loss, outputs, rows=ROWS, l2=0.0, partition_rows=25, **how)
    total = case.problem.total_weight
    penalty = Penalty(l1=total * alpha * ratio, l2=total * alpha * (1.0 - ratio))
    return Case(replace(case.problem, penalty=penalty), case.source)


def scikit_learns(case: Case):
    """The optimum that scikit-learn finds, as parameters."""
    problem, X, penalty = case.problem, case.source.X, case.problem.penalty
    ratio = penalty.l1 / (penalty.l1 + penalty.l2)
    if problem.loss.name == "squared":
        alpha = (penalty.l1 + penalty.l2) / problem.total_weight
        shared: dict[str, Any] = {"alpha": alpha, "tol": 1e-15, "max_iter": 100_000}
        model: Any = sklearn.linear_model.ElasticNet(l1_ratio=ratio, **shared)
        if ratio == 1.0:
            model = sklearn.linear_model.Lasso(**shared)
        model.set_params(fit_intercept=problem.fit_intercept)
        model.fit(X, case.y[:, 0], sample_weight=case.source.weight)
        coef, intercept = model.coef_[None], np.atleast_1d(model.intercept_)
    else:
        model = sklearn.linear_model.LogisticRegression(
            C=1.0 / (penalty.l1 + penalty.l2), l1_ratio=ratio, solver="saga", tol=1e-10,
            max_iter=100_000, random_state=0,
        )  # fmt: skip
        model.fit(X, case.y[:, 0], sample_weight=case.source.weight)
        coef, intercept = model.coef_, model.intercept_
    return problem.from_data_units(coef, intercept)


def evaluate(case: Case, theta):
    sums = stream(case.source).reduce(case.problem.reduction(theta[None]))
    return case.problem.read(sums, theta[None])


def mean_objective(case: Case, theta) -> float:
    """The objective by its definition."""
    problem = case.problem
    coef, intercept = problem.scaling.to_data_units(theta)
    z = case.source.X @ coef.T + intercept
    y = case.y[:, 0] if problem.loss.kind == "rowwise" else case.y
    losses = problem.loss.value(y, z).reshape(len(z), -1).sum(axis=1)
    loss = case.row_weights @ losses
    penalty = problem.penalty.l1 * np.abs(coef).sum() + problem.penalty.l2 / 2 * (coef**2).sum()
    return float(loss + penalty) / problem.total_weight


def residual(case: Case, theta) -> float:
    """The largest of the sizes that are left of each entry's subgradients, said one by one."""
    problem = case.problem
    g = evaluate(case, theta).gradient / problem.total_weight
    scale, largest = np.append(problem.scaling.scale, np.inf), 0.0
    for k, j in np.ndindex(theta.shape):
        l1 = problem.penalty.l1 / scale[j] / problem.total_weight
        ends = [g[k, j] - l1, g[k, j] + l1]
        if theta[k, j] > 0:
            ends = ends[1:]
        elif theta[k, j] < 0:
            ends = ends[:1]
        inside = min(ends) <= 0.0 <= max(ends)
        largest = max(largest, 0.0 if inside else min(map(abs, ends)))
    return largest


def solver_of(rule: str, batch_size: int, **how: Any) -> Updates:
    return Updates(OPTIMIZERS[rule](), batch_size, **({"tol": 1e-5, "shuffle_chunks": 9} | how))


CASES: dict[str, dict[str, Any]] = {
    "lasso": {"weighted": True},
    "lasso without intercept": {"fit_intercept": False},
    "elastic net": {"ratio": 0.4},
    "logistic": {"loss": "logistic", "alpha": 0.05, "ratio": 0.5, "weighted": True},
    "softmax": {"loss": "multinomial", "outputs": 3, "alpha": 0.02, "ratio": 0.7},
}


@pytest.fixture(scope="module", params=CASES)
def fit(request):
    """A case, and scikit-learn's optimum."""
    case = l1_case(**CASES[request.param])
    return case, scikit_learns(case)


# ----------------------------------------------------------------------------- the subgradient


def test_the_least_subgradient_is_the_nearest_to_zero_of_all_of_them():
    rng = np.random.default_rng(0)
    penalty = ColumnPenalty(rng.uniform(0.5, 2.0, 40), np.zeros(40))
    w = rng.choice([-1.5, -1e-300, 0.0, -0.0, 1e-300, 2.0], (3, 40))
    g = rng.normal(scale=2.0, size=(3, 40))
    found = penalty.least_subgradient(g, w, 0.5)
    for k, j in np.ndindex(w.shape):
        sides = [np.sign(w[k, j])] if w[k, j] else np.linspace(-1.0, 1.0, 2001)
        all_of_them = [g[k, j] + 0.5 * penalty.l1[j] * side for side in sides]
        nearest = min(all_of_them, key=abs)
        assert found[k, j] == pytest.approx(nearest, abs=1e-3 * (w[k, j] == 0.0) + 1e-15)


def test_without_l1_the_subgradient_is_the_gradient_itself():
    case = make_case("logistic")
    g = np.random.default_rng(0).normal(size=case.problem.shape)
    assert case.problem.least_subgradient(g, case.problem.initial()) is g


def test_the_residual_is_zero_at_scikit_learns_optimum_and_nowhere_near(fit):
    case, best = fit
    problem = case.problem
    gradient = evaluate(case, best).gradient / problem.total_weight
    found = np.abs(problem.least_subgradient(gradient, best)).max()
    assert found <= 1e-8
    assert found == pytest.approx(residual(case, best), abs=1e-15)
    assert np.abs(gradient).max() > 1e-3  # the gradient of the smooth part says nothing
    rng = np.random.default_rng(0)
    for size in (1e-3, 1.0):
        theta = best + size * rng.normal(size=best.shape)
        theta[:, -1] *= problem.fit_intercept
        gradient = evaluate(case, theta).gradient / problem.total_weight
        found = np.abs(problem.least_subgradient(gradient, theta)).max()
        assert found == pytest.approx(residual(case, theta), rel=1e-12)
        assert found > 1e-2 * size


# ------------------------------------------------------------------------------- convergence


@pytest.mark.slow
@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_batches_of_all_rows_converge_at_scikit_learns_optimum_alone(fit, rule):
    case, best = fit
    solver, passes = solver_of(rule, ROWS), stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    # The model of Adam is an average, and so no weight of it that has moved is zero again.
    normalised = OPTIMIZERS[rule].normalised
    most = 800 if normalised else 2000
    for step in range(most):
        state = advance(solver, case.problem, passes, state)
        if step % 50 == 0 or state.converged:
            assert state.gradient_norm == pytest.approx(residual(case, state.params), abs=1e-12)
        assert state.gradient_norm is not None
        assert state.converged == (state.gradient_norm <= solver.tol)
        if state.converged:
            break
    if not normalised:
        assert state.converged
        assert ((state.params == 0.0) == (best == 0.0))[:, :-1].all()
        found, due = free_of_shift(case, state.params, best)
        np.testing.assert_allclose(found, due, atol=1e-3)
    gap = mean_objective(case, state.params) - mean_objective(case, best)
    assert -1e-12 <= gap <= (1e-4 if normalised else 1e-8)
    assert mean_objective(case, case.problem.initial()) > mean_objective(case, best) + 1e-2


def free_of_shift(case: Case, *thetas):
    """Parameters whose intercepts add up to zero for classes: only differences say anything."""
    if not case.problem.loss.shift_invariant:
        return thetas
    shifts = [np.append(np.zeros(theta.shape[1] - 1), theta[:, -1].mean()) for theta in thetas]
    return [theta - shift for theta, shift in zip(thetas, shifts, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rule"),
    # A pair is a kernel to compile, so each loss and each optimizer is taken, not all pairs.
    [
        *((name, "sgd") for name in CASES),
        *(("logistic", rule) for rule in OPTIMIZERS if rule != "sgd"),
        *(("lasso", "adam"), ("softmax", "momentum")),
    ],
)
def test_batches_converge_near_scikit_learns_optimum(name, rule):
    case = l1_case(**CASES[name])
    best = scikit_learns(case)
    solver, passes = solver_of(rule, 16, tol=5e-3), stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    while not state.converged:
        state = advance(solver, case.problem, passes, state)
        assert state.n_iter <= 300
    assert state.gradient_norm == pytest.approx(residual(case, state.params), rel=1e-9)
    gap = mean_objective(case, state.params) - mean_objective(case, best)
    assert gap <= max(solver.tol, 0.02 * abs(state.loss))


def test_epochs_that_gain_nothing_far_from_the_optimum_are_no_convergence(fit):
    case, _ = fit
    solver, passes = solver_of("sgd", 16, tol=1e-3, learning_rate=1e-7), stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    for _ in range(2 * PATIENCE + 2):
        state = advance(solver, case.problem, passes, state)
        assert not state.converged


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_an_l1_so_strong_that_no_weight_is_left(loss):
    case = l1_case(loss, alpha=100.0)
    solver, passes = solver_of("sgd", ROWS, tol=1e-8), stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    while not state.converged:
        state = advance(solver, case.problem, passes, state)
        assert state.n_iter <= 500
    assert not state.params[:, :-1].any()
    mean = case.y.mean()
    expected = mean if loss == "squared" else np.log(mean / (1.0 - mean))
    assert state.params[0, -1] == pytest.approx(expected, abs=1e-5)
    assert 0.0 <= gain_at(case, state.params) <= 1e-12


@pytest.mark.parametrize("rule", ["sgd", "momentum"])
@pytest.mark.parametrize("batch_size", [1, 16, ROWS])
def test_the_automatic_rate_does_not_depend_on_l1(rule, batch_size):
    case = l1_case("logistic")
    found = []
    for l1 in (0.0, 1.0, 1e9):
        problem = replace(case.problem, penalty=Penalty(l1=l1, l2=2.0))
        solver = solver_of(rule, batch_size)
        state = start(solver, problem, stream(case.source), problem.initial())
        found.append([state.memory[name] for name in ("eta0", "noise", "fall")])
    assert found[0] == found[1] == found[2]


def test_descent_by_the_automatic_rate_never_climbs(fit):
    case, _ = fit
    solver, passes = solver_of("sgd", ROWS), stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    objectives = []
    for _ in range(40):
        state = advance(solver, case.problem, passes, state)
        objectives.append(mean_objective(case, state.params))
    assert (np.diff(objectives) <= 1e-12 * objectives[0]).all()


# ------------------------------------------------------------------------------ what is left


def gain_at(case: Case, theta) -> float:
    requests = gain_requests(case.problem, case.source, theta)
    return guaranteed_gain(case.problem, stream(case.source).sums(requests), theta)


@pytest.mark.parametrize("most_features", [2048, 0])
def test_what_is_guaranteed_is_no_more_than_what_is_left_and_not_nothing(
    fit, most_features, monkeypatch
):
    monkeypatch.setattr(rates, "MAX_GRAM_FEATURES", most_features)
    case, best = fit
    lowest = mean_objective(case, best)
    rng = np.random.default_rng(1)
    for size in (0.0, 0.5, 3.0):
        theta = size * rng.normal(size=best.shape)
        theta[:, -1] *= case.problem.fit_intercept
        left = mean_objective(case, theta) - lowest
        gain = gain_at(case, theta)
        assert 0.0 < gain <= left * (1 + 1e-9)
        if most_features and case.problem.loss.name == "squared":  # the bound is the curvature
            assert gain == pytest.approx(left, rel=0.02)
        if size == 0.0:
            assert gain >= 0.02 * left
            assert not is_gain_small(gain, lowest, 1e-4)
    assert abs(gain_at(case, best)) <= 1e-9
    assert is_gain_small(gain_at(case, best), lowest, 1e-4)


def lowest_objective(case: Case, theta) -> float:
    """The mean objective after many steps of accelerated descent from `theta`.

    Steps are in proportion to one over the sums of the curvature's rows (Beck and Teboulle 2009).
    """
    problem, w = case.problem, case.row_weights / case.problem.total_weight
    A = problem.scaling.apply(case.source.X, np.empty((len(w), problem.n_features + 1)))
    A[:, -1] = float(problem.fit_intercept)
    l1 = problem.theta_penalty.l1 / problem.total_weight
    l2 = problem.theta_penalty.l2 / problem.total_weight
    assert problem.bound is not None
    steepness = problem.bound * np.abs(A.T * w @ A).sum(axis=0) + l2
    steepness = np.where(steepness > 0.0, steepness, 1.0)
    y = case.y[:, 0] if problem.loss.kind == "rowwise" else case.y

    def objective(at):
        losses = problem.loss.value(y, A @ at.T).reshape(len(w), -1).sum(axis=1)
        return float(w @ losses + (l1 * np.abs(at) + l2 / 2 * at**2).sum())

    point, ahead, t = theta, theta, 1.0
    lowest: float = objective(theta)
    for _ in range(1500):
        g = (w[:, None] * problem.loss.slope(y if y.ndim == 2 else y[:, None], A @ ahead.T)).T @ A
        moved = ahead - (g + l2 * ahead) / steepness
        shrunk = np.sign(moved) * np.maximum(np.abs(moved) - l1 / steepness, 0.0)
        if float(((ahead - shrunk) * steepness * (shrunk - point)).sum()) > 0.0:
            t = 1.0  # restarts where momentum leads uphill
        previous, t = t, (1.0 + np.sqrt(1.0 + 4.0 * t**2)) / 2.0
        ahead, point = shrunk + (previous - 1.0) / t * (shrunk - point), shrunk
        lowest = min(lowest, objective(point))
    return lowest


@st.composite
def any_case(draw) -> Case:
    """Rows whose columns have any scale, or one value alone; and penalties of any strength."""
    seed, rows = draw(st.integers(0, 2**32 - 1)), draw(st.integers(2, 30))
    kinds = draw(st.lists(st.sampled_from([1e-6, 1.0, 1e9, 0.0]), min_size=1, max_size=4))
    loss, outputs = draw(st.sampled_from([("squared", 2), ("logistic", 1), ("multinomial", 3)]))
    fit_intercept, weighted = draw(st.booleans()), draw(st.booleans())
    rng = np.random.default_rng(seed)
    mixing = np.eye(len(kinds)) + draw(st.sampled_from([0.0, 0.7])) * rng.normal(
        size=(len(kinds), len(kinds))
    )
    scales = np.array(kinds)
    X = (rng.normal(size=(rows, len(kinds))) @ mixing + rng.normal(size=len(kinds))) * scales
    X += 3.0 * (scales == 0.0)
    if loss == "squared":
        y = rng.normal(size=(rows, outputs))
    else:
        y = rng.integers(0, max(2, outputs), (rows, 1)).astype(float)
    weight = rng.uniform(0.1, 3.0, rows) if weighted else None
    total = float(rows if weight is None else weight.sum())
    # Scales that are not quite the columns' own, as those of a sample are not.
    off = draw(st.sampled_from([1.0, 0.7, 1.4]))
    scaling = Scaling.of(X.mean(axis=0), off * X.std(axis=0), centre=fit_intercept)
    standardize = draw(st.booleans())
    unit = 1.0 if standardize else float(np.median(scaling.scale))
    l1 = unit * total * draw(st.sampled_from([1e-3, 0.1, 1.0, 1e6]))
    l2 = unit**2 * total * draw(st.sampled_from([0.0, 0.1]))
    problem = LinearProblem(
        LOSSES[loss](), outputs, rows, total, scaling, Penalty(l1, l2), fit_intercept, standardize
    )
    return Case(problem, Cut(X, y, weight))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(any_case(), st.integers(0, 100), st.sampled_from([0.0, 0.3, 3.0]), st.booleans())
def test_no_problem_has_less_left_than_is_guaranteed(case, seed, size, with_gram):
    theta = size * np.random.default_rng(seed).normal(size=case.problem.shape)
    theta[:, ::2] *= seed % 2  # some weights are zero
    theta[:, -1] *= case.problem.fit_intercept
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rates, "MAX_GRAM_FEATURES", 2048 if with_gram else 0)
        gain = gain_at(case, theta)
    before = evaluate(case, theta).objective / case.problem.total_weight
    left = before - lowest_objective(case, theta)
    assert -1e-12 <= gain <= left + 1e-8 * max(left, 1.0) + 1e-12 * before


@pytest.mark.parametrize("most_features", [2048, 0])
def test_scales_that_are_too_small_do_not_raise_what_is_guaranteed(most_features, monkeypatch):
    monkeypatch.setattr(rates, "MAX_GRAM_FEATURES", most_features)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 1))
    X, y = np.repeat(x, 3, axis=1), x + 0.1 * rng.normal(size=(50, 1))
    scaling = Scaling.of(X.mean(axis=0), 0.5 * X.std(axis=0), centre=True)
    problem = LinearProblem(LOSSES["squared"](), 1, 50, 50.0, scaling, Penalty(l1=0.01))
    case, theta = Case(problem, Cut(X, y)), problem.initial()
    left = evaluate(case, theta).objective / 50.0 - lowest_objective(case, theta)
    assert 0.1 * left < gain_at(case, theta) <= left


@pytest.mark.slow
@pytest.mark.parametrize("at", ["zero", "optimum", "away"])
def test_the_mean_guarantee_of_samples_is_no_more_than_what_is_left(fit, at, monkeypatch):
    case, best = fit
    away = best + 0.3 * np.random.default_rng(1).normal(size=best.shape)
    away[:, -1] *= case.problem.fit_intercept
    theta = {"zero": np.zeros_like(best), "optimum": best, "away": away}[at]
    left = mean_objective(case, theta) - mean_objective(case, best)
    whole = [*range(case.source.n_partitions)]
    moments = stream(case.source).sums([rates.rate_request(case.problem, case.source)])
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        chosen = rng.choice(whole, 4, replace=False).tolist()
        monkeypatch.setattr(gains, "evaluated_partitions", lambda _, parts=chosen: parts)
        requests = gain_requests(case.problem, case.source, theta)
        assert len(requests) == 3
        answers = [*stream(case.source).sums(requests[:2]), *moments]
        found.append(guaranteed_gain(case.problem, answers, theta))
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) <= left + 4 * error
    assert at != "zero" or np.mean(found) > 0.0


def test_rows_without_weight_guarantee_no_gain():
    case = l1_case("logistic")
    theta = np.ones(case.problem.shape)
    sums = stream(case.source).sums(gain_requests(case.problem, case.source, theta))
    none = case.problem.reduction(theta[None]).zeros()
    assert guaranteed_gain(case.problem, sums, theta) > 0.0
    for halves in ([sums[0], none], [none, sums[0]], [none, none]):
        assert guaranteed_gain(case.problem, [*halves, sums[-1]], theta) == 0.0


# --------------------------------------------------------------------------- other solvers


@pytest.mark.parametrize("name", [*filter("smoothing".__ne__, EXACT), *OPTIMIZERS])
def test_solvers_that_need_a_gradient_everywhere_refuse_l1_and_those_alone(name):
    problem = make_case("squared").problem
    chosen = Settings(1e-4, 16)
    solver_for(name, chosen, problem)
    sparse = replace(problem, penalty=Penalty(l1=1e-12, l2=0.7))
    if name in (*OPTIMIZERS, "coordinate-descent") or name.startswith("proximal-"):
        solver_for(name, chosen, sparse)
        return
    said = (
        rf"solver='{name}' needs a gradient everywhere \(no l1 .* "
        "use 'coordinate-descent' or 'proximal-newton' or 'proximal-lbfgs' or 'sgd' or"
    )
    with pytest.raises(ValueError, match=said):
        solver_for(name, chosen, sparse)
