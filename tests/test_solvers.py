"""Solvers against algebra and each other, and where an unguarded one would run away."""

import tracemalloc
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest
from scipy.linalg import block_diag

from ooc_train.core.sums import total_bytes
from ooc_train.errors import Diverged
from ooc_train.models.linear import LinearProblem
from ooc_train.objective.losses import LOSSES
from ooc_train.objective.penalty import Penalty
from ooc_train.objective.scaling import Scaling
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.solvers import lbfgs, newton
from ooc_train.solvers import learning_rate as rates
from ooc_train.solvers.base import State, advance, start
from ooc_train.solvers.gain import gain_requests, guaranteed_gain
from ooc_train.solvers.gram import Gram
from ooc_train.solvers.lbfgs import LBFGS
from ooc_train.solvers.learning_rate import automatic_rate, normalised_rate, rate_request
from ooc_train.solvers.least_squares import solve
from ooc_train.solvers.newton import Newton
from ooc_train.solvers.plateaus import PATIENCE
from ooc_train.solvers.updates import Updates
from tests.streams import Case, Cut, make_case, same_bits, stream


def run(solver, case: Case, *, steps=60, theta=None):
    """The state at the tolerance, which has to be met."""
    passes = stream(case.source)
    params = case.problem.initial() if theta is None else theta
    state = start(solver, case.problem, passes, params)
    while not state.converged:
        state = advance(solver, case.problem, passes, state)
        assert state.n_iter <= steps, f"{solver} takes more than {steps} steps"
    return state


def evaluate(case: Case, theta, **how):
    work = case.problem.reduction(theta[None], **how)
    return case.problem.read(stream(case.source).reduce(work), theta[None])


def conditioned(case: Case) -> Case:
    """The same problem in the units that training chooses: evened out for the penalty too."""
    problem = case.problem
    if problem.standardize:
        return case
    wide = problem.scaling.widened(
        problem.penalty.l2 / (float(problem.bound or 1.0) * problem.total_weight)
    )
    return Case(replace(problem, scaling=wide), case.source)


def least_squares_case(X, y, weight=None, *, l2=0.0, fit_intercept=True, scaling=None, **how):
    total = float(len(X) if weight is None else weight.sum())
    if scaling is None:
        mean = np.average(X, axis=0, weights=weight)
        deviation = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weight))
        scaling = Scaling.of(mean, deviation, centre=fit_intercept)
    problem = LinearProblem(
        LOSSES["squared"](),
        y.shape[1],
        len(X),
        total,
        scaling,
        Penalty(l2=l2),
        fit_intercept,
        **how,
    )
    return Case(problem, Cut(np.ascontiguousarray(X), y, weight))


# -------------------------------------------------------------------------------------- gram


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weighted": True},
        {"fit_intercept": False, "weighted": True},
        {"l2": 0.0},
        {"standardize": True, "l2": 30.0},
        {"l2": 1e6},
        {"rows": 3, "l2": 0.1},
    ],
)
@pytest.mark.parametrize("outputs", [1, 3])
def test_gram_solves_the_normal_equations_in_one_pass(outputs, settings: dict[str, Any]):
    case = make_case("squared", outputs, **settings)
    passes = stream(case.source)
    state = advance(Gram(), case.problem, passes, start(Gram(), case.problem, passes, np.empty(0)))
    assert passes.timings.rows == case.source.n_rows
    assert (state.n_iter, state.updates, state.converged) == (1, 1, True)
    now = evaluate(case, state.params)
    size = np.abs(evaluate(case, case.problem.initial()).gradient).max()
    np.testing.assert_allclose(now.gradient, 0.0, atol=1e-10 * size)
    assert state.loss == pytest.approx(now.loss, rel=1e-9, abs=1e-12 * size)


def minimum_norm(X, y, weight=None, *, fit_intercept=True, rcond=1e-11):
    """`numpy.linalg.lstsq` on centred data."""
    mean, y_mean = np.zeros(X.shape[1]), np.zeros(y.shape[1])
    if fit_intercept:
        mean, y_mean = (np.average(a, axis=0, weights=weight) for a in (X, y))
    root = np.ones((len(X), 1)) if weight is None else np.sqrt(weight)[:, None]
    coef = np.linalg.lstsq(root * (X - mean), root * (y - y_mean), rcond=rcond)[0].T
    return coef, y_mean - coef @ mean


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_columns_that_depend_on_one_another_give_the_answer_of_least_norm(fit_intercept, weighted):
    rng = np.random.default_rng(0)
    free = rng.normal(size=(90, 3)) * [1.0, 5.0, 0.2] + [3.0, 0.0, -1.0]
    X = np.column_stack([free, free @ [1.0, -2.0, 3.0], 7 * free[:, 0], np.full(90, 4.0)])
    X = np.column_stack([X, np.zeros(90)])
    y = rng.normal(size=(90, 2)) + free[:, :2]
    weight = rng.uniform(0.1, 2, 90) if weighted else None
    case = least_squares_case(X, y, weight, fit_intercept=fit_intercept)
    coef, intercept = case.problem.scaling.to_data_units(run(Gram(), case).params)
    due, due_intercept = minimum_norm(X, y, weight, fit_intercept=fit_intercept)
    np.testing.assert_allclose(coef, due, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(intercept, due_intercept, rtol=1e-8, atol=1e-8)


def test_more_columns_than_rows_give_the_answer_of_least_norm():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 30)) * np.geomspace(0.1, 10, 30), rng.normal(size=(12, 1))
    case = least_squares_case(X, y)
    coef, intercept = case.problem.scaling.to_data_units(run(Gram(), case).params)
    due, due_intercept = minimum_norm(X, y)
    np.testing.assert_allclose(coef, due, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(intercept, due_intercept, rtol=1e-7, atol=1e-9)


def test_scales_from_a_millionth_to_a_million_and_means_a_million_times_the_spread():
    rng = np.random.default_rng(0)
    scales = np.array([1e-6, 1e-3, 1.0, 1e3, 1e6, 1.0])
    means = np.array([0.0, 1.0, 1e6, -1e3, 0.0, 3.0])
    base = rng.normal(size=(400, 6))
    X = means + scales * base
    X[:, 5] = 2.5  # never varies
    truth = rng.normal(size=6) / scales
    truth[5] = 0.0
    y = (base[:, :5] @ (truth * scales)[:5] + 0.1 * rng.normal(size=400))[:, None] + 1e6
    near = Scaling.of(  # of a sample, as training knows it
        X[:40].mean(axis=0), X[:40].std(axis=0), centre=True
    )
    case = least_squares_case(X, y, scaling=near)
    theta = run(Gram(), case).params
    coef, _ = case.problem.scaling.to_data_units(theta)
    due, _ = minimum_norm((X - means) / scales, y)
    np.testing.assert_allclose(coef[0, :5] * scales[:5], due[0, :5], rtol=1e-7)
    assert abs(coef[0, 5]) < 1e-9
    fitted = X @ coef.T + case.problem.scaling.to_data_units(theta)[1]
    centred = (X - X.mean(axis=0)) / scales
    best = y.mean() + centred @ np.linalg.lstsq(centred, y - y.mean(), rcond=1e-9)[0]
    np.testing.assert_allclose(fitted, best, rtol=0, atol=1e-7)


@pytest.mark.parametrize("shift", [1e4, 1e8])
def test_weights_lose_no_digits_where_y_lies_far_from_zero(shift):
    rng = np.random.default_rng(0)
    X = rng.normal([0.0, 3.0, -2.0], size=(500, 3))
    noise = X @ rng.normal(size=(3, 2)) + rng.normal(size=(500, 2))
    near, far = (least_squares_case(X, noise + by) for by in (0.0, [shift, -shift]))
    at_zero, away = run(Gram(), near), run(Gram(), far)
    np.testing.assert_allclose(away.params[:, :-1], at_zero.params[:, :-1], rtol=1e-6, atol=1e-7)
    if shift <= 1e4:  # the loss is a difference of squares of y
        assert away.loss == pytest.approx(at_zero.loss, rel=1e-6)


def test_an_almost_singular_ridge_is_solved_all_the_same():
    rng = np.random.default_rng(0)
    a = rng.normal(size=200)
    X = np.column_stack([a, a, rng.normal(size=200)])
    y = (a + rng.normal(size=200))[:, None]
    for l2 in (1e-300, 1e-14, 1e-6):
        case = least_squares_case(X, y, l2=l2)
        coef, _ = case.problem.scaling.to_data_units(run(Gram(), case).params)
        np.testing.assert_allclose(coef, minimum_norm(X, y)[0], rtol=1e-5)


def test_solve_adds_the_penalty():
    A = np.array([[2.0, 1.0], [1.0, 3.0]])
    found = solve(A, np.array([[1.0], [2.0]]), np.array([1.0, 10.0]), np.ones(2))
    np.testing.assert_allclose(np.array([[3.0, 1.0], [1.0, 13.0]]) @ found, [[1.0], [2.0]])


# ------------------------------------------------------------------------------------ newton

CLASSIFIERS = [("logistic", 1), ("multinomial", 3)]
PENALTIES: list[dict[str, Any]] = [
    {},
    {"weighted": True, "class_weight": True},
    {"fit_intercept": False},
    {"standardize": True, "l2": 20.0},
    {"l2": 1e4},
]


@pytest.mark.parametrize("settings", PENALTIES)
@pytest.mark.parametrize(("loss", "outputs"), CLASSIFIERS)
def test_newton_and_lbfgs_find_the_same_optimum(loss, outputs, settings):
    case = conditioned(make_case(loss, outputs, rows=203, **settings))
    exact = run(Newton(tol=1e-9), case, steps=12)
    limited = run(LBFGS(tol=1e-9), case, steps=150)
    now, then = evaluate(case, exact.params), evaluate(case, limited.params)
    for at in (now, then):
        assert np.abs(at.gradient).max() <= 1.01e-9 * case.problem.total_weight
    difference = exact.params - limited.params
    if loss == "multinomial":  # of the intercepts only differences say anything
        difference[:, -1] -= difference[:, -1].mean()
    np.testing.assert_allclose(difference, 0.0, atol=1e-5)
    assert then.objective == pytest.approx(now.objective, rel=1e-12)


def test_lbfgs_solves_least_squares_as_gram_does():
    case = make_case("squared", 2, weighted=True)
    np.testing.assert_allclose(
        run(LBFGS(tol=1e-10), case).params, run(Gram(), case).params, atol=1e-7
    )


RARE, COMMON, MANY = 36, 4, 20_000
SAMPLE = MANY // 20


@pytest.fixture(scope="module")
def rare():
    """Rare columns that say nothing; in a small sample each of them seems to tell the class."""
    rng = np.random.default_rng(0)
    X = np.zeros((MANY, RARE + COMMON))
    for column in range(RARE):
        X[rng.choice(MANY, 50, replace=False), column] = 1.0
    X[:, RARE:] = rng.normal(size=(MANY, COMMON))
    z = X[:, RARE:] @ [2.0, -1.0, 0.5, 0.0]
    y = (z + rng.logistic(size=MANY) > 0).astype(float)[:, None]
    scaling = Scaling.of(X.mean(axis=0), X.std(axis=0), centre=True)
    problem = LinearProblem(LOSSES["logistic"](), 1, MANY, float(MANY), scaling, Penalty(l2=1e-6))
    return Case(problem, Cut(X, y, rows=100, group=10))


@pytest.fixture(scope="module")
def far(rare):
    """The optimum of one row in twenty that trusts itself: under its share of the penalty."""
    part = Cut(rare.source.X[:SAMPLE], rare.source.y[:SAMPLE])
    problem = replace(
        rare.problem,
        n_rows=SAMPLE,
        total_weight=float(SAMPLE),
        penalty=Penalty(l2=rare.problem.penalty.l2 / 20),
    )
    return run(Newton(tol=1e-10), Case(problem, part), steps=60).params


@pytest.mark.slow
def test_unguarded_steps_run_away_where_newton_converges(rare, far):
    objectives, theta = [], far
    with np.errstate(over="ignore"):
        for _ in range(3):
            now = evaluate(rare, theta, hessian=True)
            objectives.append(now.objective)
            assert now.hessian is not None
            theta = theta + rare.problem.direction(now, now.hessian)
    assert objectives[1] > 100 * objectives[0]  # so much worse that no later step mends it
    assert objectives[2] > 100 * objectives[0]
    state = run(Newton(tol=1e-8), rare, theta=far, steps=60)
    best = run(Newton(tol=1e-8), rare, steps=8)
    assert state.loss == pytest.approx(best.loss, rel=1e-9)


def test_newton_takes_few_passes_from_a_sample_of_its_own(rare, monkeypatch):
    monkeypatch.setattr(newton, "_SAMPLE_ROWS_PER_PARAMETER", 20)
    passes, solver = stream(rare.source), Newton(tol=1e-6)
    state = start(solver, rare.problem, passes, rare.problem.initial())
    looked = passes.timings.rows
    assert 0 < looked <= newton._SAMPLE_ITERATIONS * 900
    assert (state.n_iter, state.converged) == (0, False)
    while not state.converged:
        state = advance(solver, rare.problem, passes, state)
    assert passes.timings.rows <= looked + 12 * MANY
    norm = np.abs(evaluate(rare, state.params).gradient).max() / MANY
    assert norm <= 1e-6


def full_passes(case: Case, solver: Newton, spoil: float = 1.0) -> tuple[State, list[bool]]:
    """The state at the tolerance, and whether each pass over all rows added up a Hessian.

    The Hessian that a sample brought is multiplied by `spoil`.
    """
    passes, hessians = stream(case.source), []
    state = solver.init(case.problem, case.source, case.problem.initial())
    while not state.converged or state.phase:
        request = solver.ask(case.problem, case.source, state)
        sums = passes.reduce(request.reduction, request.partitions)
        if request.partitions is None:
            hessians.append("hessian" in sums)
        state = solver.tell(case.problem, case.source, state, sums)
        if not state.phase and not hessians and "hessian" in state.memory:
            hessian = spoil * state.memory["hessian"]
            state = replace(state, memory={**state.memory, "hessian": hessian})
        assert len(hessians) <= 12
    return state, hessians


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("loss", "outputs"), [("logistic", 1), ("multinomial", 3)])
def test_the_hessian_of_a_sample_serves_the_passes_over_all_rows(
    loss, outputs, weighted, monkeypatch
):
    case = make_case(loss, outputs, rows=40_000, features=3, weighted=weighted, partition_rows=100)
    exact, needed = full_passes(case, Newton(tol=1e-9))
    assert all(needed)
    monkeypatch.setattr("ooc_train.models.linear_objective._COMPILED_WORK", 0)
    state, hessians = full_passes(case, Newton(tol=1e-9))
    assert not any(hessians)
    assert len(hessians) <= 2 * len(needed) + 1
    np.testing.assert_allclose(state.params, exact.params, atol=1e-8)
    assert state.loss == pytest.approx(exact.loss, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [1e-3, 0.2, 5.0, 1e3])
def test_a_hessian_of_a_sample_that_misleads_gives_way_to_that_of_all_rows(spoil, monkeypatch):
    monkeypatch.setattr("ooc_train.models.linear_objective._COMPILED_WORK", 0)
    case = make_case(rows=40_000, features=3, partition_rows=100)
    best, _ = full_passes(case, Newton(tol=1e-9))
    state, hessians = full_passes(case, Newton(tol=1e-9), spoil)
    first = hessians.index(True)
    assert first <= 2
    assert all(hessians[first:])
    np.testing.assert_allclose(state.params, best.params, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("least_work", [0, inf])
@pytest.mark.parametrize("seed", [0, 4, 6, 8])
def test_newton_does_not_crawl_where_its_sample_lacks_outliers(seed, least_work, monkeypatch):
    monkeypatch.setattr("ooc_train.models.linear_objective._COMPILED_WORK", least_work)
    rng = np.random.default_rng(seed)
    classes, n = (2, 20_000) if seed % 3 else (5, 60_000)
    levels = np.eye(4)[rng.integers(0, 4, n)]  # dependent: they add up to the intercept's column
    normal = rng.normal(size=n)
    heavy = {0: rng.standard_cauchy(n), 4: np.exp(6 * normal), 6: np.exp(4 * normal)}
    tail = heavy.get(seed, rng.standard_cauchy(n) ** 3)
    z = 2.0 * (seed % 3) / 2 * levels @ rng.normal(size=(4, classes))
    y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)[:, None].astype(float)
    X = np.column_stack([levels, tail])
    loss = LOSSES["logistic" if classes == 2 else "multinomial"]()
    problem = LinearProblem(
        loss,
        1 if classes == 2 else classes,
        n,
        float(n),
        Scaling.of(X.mean(axis=0), X.std(axis=0), centre=True),
        Penalty(l2=0.1),
    )
    case = conditioned(Case(problem, Cut(X, y, rows=100, group=10)))
    passes, solver = stream(case.source), Newton(tol=1e-4)
    state = start(solver, case.problem, passes, case.problem.initial())
    assert state.note.startswith("begins at the optimum of a sample")
    while not state.converged:
        state = advance(solver, case.problem, passes, state)
        assert passes.timings.rows <= 9 * n
    cold = State(case.problem.initial())
    while not cold.converged:
        cold = advance(solver, case.problem, passes, cold)
    assert state.n_iter <= cold.n_iter + 2
    assert state.loss <= cold.loss + 1e-4


def test_newton_begins_where_it_is_told_to(rare):
    theta, passes = rare.problem.initial() + 0.1, stream(rare.source)
    state = start(Newton(tol=1e-6), rare.problem, passes, theta)
    assert (state.params is theta, passes.timings.rows) == (True, 0)


def test_the_gradient_of_a_sample_is_measured_by_the_sample(rare):
    partitions = (3, 77, 150)
    params = rare.problem.initial()
    sums = stream(rare.source).reduce(
        rare.problem.reduction(params[None], hessian=True), partitions
    )
    state = Newton().tell(rare.problem, rare.source, State(params), sums)
    rows = np.concatenate(
        [np.arange(MANY)[100 * partition : 100 * partition + 100] for partition in partitions]
    )
    part = Case(rare.problem, Cut(rare.source.X[rows], rare.source.y[rows]))
    due = np.abs(evaluate(part, rare.problem.initial()).gradient).max() / 300
    assert state.gradient_norm == pytest.approx(due, rel=1e-10)


def test_a_small_data_set_is_its_own_sample():
    case = make_case("logistic")
    passes = stream(case.source)
    state = start(Newton(), case.problem, passes, case.problem.initial())
    assert passes.timings.rows == 0
    assert not state.params.any()


def test_a_step_that_is_too_long_is_shortened_until_it_is_not(monkeypatch):
    case = make_case("logistic", rows=203)
    expected = run(Newton(tol=1e-9), case)
    direct = LinearProblem.direction
    lengths: list[float] = []

    def too_long(problem, gradient, hessian):
        return 5.0 * direct(problem, gradient, hessian)

    shorten = newton._shortened

    def noted(state, objectives):
        short = shorten(state, objectives)
        assert not short.stalled
        lengths.append(short.memory["length"] / state.memory["length"])
        return short

    monkeypatch.setattr(LinearProblem, "direction", too_long)
    monkeypatch.setattr(newton, "_shortened", noted)
    state = run(Newton(tol=1e-6), case, steps=100)
    assert set(lengths) <= {*newton._SHORTER, newton._SHORTER[-1] ** 2}
    assert lengths
    np.testing.assert_allclose(
        evaluate(case, state.params).objective, evaluate(case, expected.params).objective, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("solver", "module", "name"),
    [(Newton(tol=1e-9), LinearProblem, "direction"), (LBFGS(tol=1e-12), lbfgs, "_direction")],
)
def test_where_no_step_helps_the_last_good_parameters_are_kept(solver, module, name, monkeypatch):
    case = make_case("logistic")
    passes = stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    for _ in range(2):
        state = advance(solver, case.problem, passes, state)
    direct = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a: -direct(*a))
    good = state = advance(solver, case.problem, passes, state)
    while not state.stalled:
        assert not state.converged
        state = advance(solver, case.problem, passes, state)
    assert state.stalled == "no step lowers the objective by more than rounding"
    assert (state.n_iter, state.loss) == (good.n_iter, good.loss)
    np.testing.assert_array_equal(state.params, good.params)
    assert passes.timings.rows <= 12 * case.source.n_rows


@pytest.mark.parametrize(("loss", "outputs"), [("logistic", 1), ("multinomial", 3)])
@pytest.mark.parametrize("solver", [Newton(tol=1e-4), LBFGS(tol=1e-4), "sgd", "adam"])
def test_the_loss_of_a_state_is_that_of_its_parameters(solver, loss, outputs):
    case = make_case(loss, outputs, rows=203, weighted=True)
    if isinstance(solver, str):
        solver = updates_solver(case, 203, solver)
    passes = stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    for taken in range(6):
        state = advance(solver, case.problem, passes, state)
        now = evaluate(case, state.params)
        # The last step of Newton's is judged by the quadratic model.
        assert state.loss == pytest.approx(now.loss, rel=1e-7 if state.converged else 1e-12)
        if state.converged:
            break
        assert state.n_iter == state.updates <= taken


@pytest.mark.parametrize("solver", [Newton(), LBFGS()])
def test_a_start_that_is_no_number_is_refused(solver):
    case = make_case("logistic")
    with np.errstate(invalid="ignore"), pytest.raises(Diverged, match="is no number"):
        run(solver, case, theta=case.problem.initial() + np.inf)


@pytest.mark.parametrize("l2", [0.0, 0.7])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("loss", ["multinomial", "squared_hinge"])
def test_the_direction_of_a_singular_hessian_is_that_of_least_norm(loss, l2, fit_intercept):
    case = make_case(loss, 3, l2=l2, fit_intercept=fit_intercept)
    now = evaluate(case, case.problem.initial(), hessian=True)
    assert now.hessian is not None
    kept = now.hessian.copy()
    step = case.problem.direction(now, now.hessian)
    np.testing.assert_array_equal(now.hessian, kept)
    hessian = block_diag(*now.hessian)
    np.testing.assert_allclose(hessian @ step.ravel(), -now.gradient.ravel(), atol=1e-8)
    expected = -np.linalg.lstsq(hessian, now.gradient.ravel(), rcond=1e-10)[0]
    np.testing.assert_allclose(step.ravel(), expected, atol=1e-8)


def test_columns_that_depend_on_one_another_do_not_stop_newton():
    case = make_case("logistic", l2=0.0, rows=203)
    X = np.column_stack([case.source.X, case.source.X[:, :1], np.full(203, 3.0)])
    scaling = Scaling.of(X.mean(axis=0), X.std(axis=0), centre=True)
    double = Case(replace(case.problem, scaling=scaling), Cut(X, case.y))
    alone, together = run(Newton(tol=1e-9), case), run(Newton(tol=1e-9), double)
    assert together.loss == pytest.approx(alone.loss, rel=1e-9)
    assert together.params[0, 0] == pytest.approx(together.params[0, 4], rel=1e-6)


# ------------------------------------------------------------------------------------- lbfgs


def test_lbfgs_shortens_steps_that_are_too_long(monkeypatch):
    case = make_case("logistic", rows=203)
    direct = lbfgs._direction
    monkeypatch.setattr(lbfgs, "_direction", lambda *a: 50.0 * direct(*a))
    state = run(LBFGS(tol=1e-6), case, steps=400)
    assert np.abs(evaluate(case, state.params).gradient).max() <= 1e-6 * case.problem.total_weight


@pytest.mark.parametrize("n_pairs", [1, 2, 5])
def test_the_direction_of_lbfgs_is_that_of_the_dense_updates(n_pairs):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    A = root @ root.T + np.eye(6)
    steps = rng.normal(size=(n_pairs, 2, 3))
    pairs = tuple((step, (A @ step.ravel()).reshape(2, 3)) for step in steps)
    step, change = (array.ravel() for array in pairs[-1])
    H = np.eye(6) * (step @ change) / (change @ change)
    for pair in pairs:  # Nocedal and Wright, equation 6.17
        step, change = (array.ravel() for array in pair)
        turn = np.eye(6) - np.outer(step, change) / (step @ change)
        H = turn @ H @ turn.T + np.outer(step, step) / (step @ change)
    gradient = rng.normal(size=(2, 3))
    found = lbfgs._direction(gradient, pairs)
    np.testing.assert_allclose(found.ravel(), -H @ gradient.ravel(), rtol=1e-9)


def test_lbfgs_never_climbs():
    case = make_case("multinomial", 3, rows=203)
    passes, solver = stream(case.source), LBFGS(tol=1e-8)
    state = start(solver, case.problem, passes, case.problem.initial())
    objectives = []
    while not state.converged:
        state = advance(solver, case.problem, passes, state)
        objectives.append(evaluate(case, state.params).objective)
    assert (np.diff(objectives) <= 1e-9).all()
    assert len(state.memory["pairs"]) <= solver.history


# ----------------------------------------------------------------------------------- updates


def updates_solver(case: Case, batch_size, rule="sgd", learning_rate: Any = "auto", **how):
    settings = {"tol": 1e-9, "seed": 3, "shuffle_chunks": case.source.n_partitions} | how
    return Updates(OPTIMIZERS[rule](), batch_size, learning_rate, **settings)


def rate_of(rule, problem, source, batch_size, per_epoch):
    """The learning rate "auto"."""
    optimizer, rows = OPTIMIZERS[rule](), stream(source)
    if optimizer.normalised:
        return normalised_rate(optimizer, problem.n_features, batch_size, per_epoch)
    (sums,) = rows.sums([rate_request(problem, source)])
    return automatic_rate(optimizer, problem, source, sums, batch_size, per_epoch)


def gain_at(problem, source, params):
    """What can be gained for certain."""
    return guaranteed_gain(
        problem, stream(source).sums(gain_requests(problem, source, params)), params
    )


@pytest.mark.parametrize("batch_size", [1, 7, 101])
@pytest.mark.parametrize("settings", PENALTIES)
@pytest.mark.parametrize(("loss", "outputs"), [*CLASSIFIERS, ("squared", 2)])
def test_the_automatic_rate_is_the_formula(loss, outputs, batch_size, settings):
    if loss == "squared":
        settings = settings | {"class_weight": False}
    case = make_case(loss, outputs, **settings)
    problem, w = case.problem, case.row_weights
    A = problem.scaling.apply(case.source.X, np.empty((101, 5)))
    if not problem.fit_intercept:
        A = A[:, :-1]
    # Weights of mean one: a batch's gradient is a mean of w * row, of second moment w ** 2.
    moments = A.T * w @ A / w.sum()
    largest, norms = np.linalg.eigvalsh(moments)[-1], (A**2).sum(axis=1)
    square = (w @ norms / w.sum()) * (w**2).mean() / w.mean() ** 2
    if loss == "squared" and batch_size < 101:
        by_column = (w**2 * norms) @ A**2 / (w @ A**2)
        square = max(square, by_column.max() / w.mean())
    beta = {"squared": 1.0, "logistic": 0.25, "multinomial": 0.5}[loss]
    curvature = beta * (square + (batch_size - 1) * largest) / batch_size
    due = 1 / (curvature + problem.theta_penalty.l2.max() / problem.total_weight)
    rate = rate_of("sgd", problem, case.source, batch_size, 101 / batch_size)
    assert rate.eta0 == pytest.approx(due, rel=1e-10)
    # What of the bound is there for noise, falls; the squared loss needs no such fall.
    share = beta * square / batch_size * due
    falls = loss != "squared" and batch_size < 101
    assert rate.schedule.noise == (pytest.approx(share, rel=1e-10) if falls else 0.0)
    # 3 rows a parameter of an output are more than a twentieth of the epoch.
    assert rate.schedule.fall == max(1.0, 3 * 5 / batch_size)
    longer = rate_of("sgd", problem, case.source, batch_size, 1e6)
    assert longer.schedule.fall == 5e4


def test_the_automatic_rate_of_very_wide_rows_needs_no_matrix(monkeypatch):
    case = make_case("logistic", l2=0.0)
    narrow = rate_of("sgd", case.problem, case.source, 10, 10.0).eta0
    monkeypatch.setattr(rates, "MAX_GRAM_FEATURES", 3)
    solver = updates_solver(case, 10)
    state = start(solver, case.problem, stream(case.source), case.problem.initial())
    assert state.memory["eta0"] == pytest.approx(narrow, rel=1e-9)
    sums = solver.holds(case.problem, case.source).reductions[1].zeros()
    assert max(array.size for array in sums.values()) == 5


def test_the_learning_rate_is_the_users_where_they_give_one():
    case = make_case("logistic")
    for rule in ("sgd", "adam"):
        for batch_size in (1, 10, 101):
            solver = updates_solver(case, batch_size, rule, 0.25)
            state = start(solver, case.problem, stream(case.source), case.problem.initial())
            scan = solver._scan(case.problem, case.source, solver._rate(state))
            assert [scan.rate(t) for t in (0, 1, 10**6)] == [0.25] * 3


def test_adams_rate_grows_with_the_batch_and_shrinks_with_the_features():
    case = make_case("logistic")
    rate = [rate_of("adam", case.problem, case.source, b, 1e5).eta0 for b in (1, 4, 32, 100, 10**6)]
    np.testing.assert_allclose(np.array(rate[:3]) / 0.03, np.sqrt([1 / 32, 4 / 32, 1]))
    assert rate[3] < rate[4] == 0.25
    wide = replace(case.problem, scaling=Scaling(np.zeros(400), np.ones(400)))
    assert rate_of("adam", wide, case.source, 32, 1e5).eta0 == 0.015


def test_no_first_step_of_an_automatic_rate_is_longer_than_half_a_unit():
    case, found = make_case("logistic"), {}
    for rule, kind in OPTIMIZERS.items():
        if kind.normalised:
            rates = [rate_of(rule, case.problem, case.source, b, 1e5) for b in (1, 32, 10**6)]
            steps = [kind().first_step * rate.eta0 for rate in rates]
            assert max(steps) <= 0.5
            assert [rate.schedule.noise for rate in rates] == [not kind.slowing] * 3
            found[rule] = steps
    assert found["adagrad"] == [0.5] * 3
    assert found["adamw"] == found["adam"]
    assert found["rmsprop"][2] == pytest.approx(0.5)


@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize("settings", [*PENALTIES[:3], {"weighted": True}])
@pytest.mark.parametrize(("loss", "outputs"), [*CLASSIFIERS, ("squared", 2)])
def test_full_batch_descent_is_the_scan_with_one_batch_of_all_rows(loss, outputs, settings, rule):
    if loss == "squared":
        settings = settings | {"class_weight": False}
    case = make_case(loss, outputs, **settings)
    passes = stream(case.source)
    for learning_rate in ("auto", 0.05):
        solver = updates_solver(case, 101, rule, learning_rate, tol=0.0)
        state = start(solver, case.problem, passes, case.problem.initial())
        scan = solver._scan(case.problem, case.source, solver._rate(state))
        scanned = scan.start(case.problem.initial())
        state = advance(solver, case.problem, passes, state)
        assert not state.params.any()  # the first pass evaluates the start
        for epoch in range(6):
            state = advance(solver, case.problem, passes, state)
            (scanned,) = passes.scan(scan, [scanned], seed=3, epoch=epoch, shuffle_chunks=10**6)
            model = scanned["theta" if rule == "sgd" else "average"]
            np.testing.assert_allclose(state.params, model, rtol=1e-9, atol=1e-12)
        assert scanned["counters"].tolist() == [0, 6, 6 * 101]
        assert state.updates == state.n_iter == 6


@pytest.mark.slow
@pytest.mark.parametrize("settings", PENALTIES)
@pytest.mark.parametrize(("loss", "outputs"), CLASSIFIERS)
def test_descent_with_the_automatic_rate_goes_down_to_the_optimum(loss, outputs, settings):
    case = conditioned(make_case(loss, outputs, **settings))
    solver = updates_solver(case, 101, tol=1e-4)
    passes = stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    objectives = []
    while not state.converged:
        state = advance(solver, case.problem, passes, state)
        objectives.append(evaluate(case, state.params).objective)
    assert (np.diff(objectives) <= 1e-12 * objectives[0]).all()
    found = evaluate(case, state.params)
    assert np.abs(found.gradient).max() <= 1.01e-4 * case.problem.total_weight
    best = evaluate(case, run(Newton(tol=1e-9), case).params).objective
    assert objectives[0] > 1.1 * best  # there was a way to go
    left = (found.objective - best) / (objectives[0] - best)
    assert -1e-12 <= left <= 1e-5


def ill_conditioned() -> Case:
    """Columns that correlate by 0.6, on 2,000 rows."""
    case = make_case("logistic", rows=2000, partition_rows=50)
    X = case.source.X / case.source.X.std(axis=0) @ (np.eye(4) + 0.5)
    scaling = Scaling(X.mean(axis=0), X.std(axis=0))
    source = replace(case.source, X=X)
    return Case(replace(case.problem, scaling=scaling), source)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, 8, 64, 700])
@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize("made", [ill_conditioned, lambda: make_case("squared", 1, rows=2000)])
def test_the_model_is_near_the_optimum_after_any_epoch(made, rule, batch_size):
    """And so wherever a run ends; 700 rows leave an incomplete batch of 600."""
    case = made()
    best = run(Newton(tol=1e-9), case) if case.problem.loss.name == "logistic" else None
    lowest = evaluate(case, (best or run(Gram(), case)).params).objective
    solver = updates_solver(case, batch_size, rule, tol=0.0)
    passes = stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    found = []
    for _ in range(40):
        state = advance(solver, case.problem, passes, state)
        found.append(evaluate(case, state.params).objective / lowest)
        assert not state.converged
        assert not state.stalled
    settled = {1: 2, 3: 1, 8: 1, 64: 3, 700: 20}[batch_size]
    assert max(found[settled:]) <= 1.01
    assert found[-1] <= 1.001
    assert state.updates == 40 * -(-2000 // batch_size)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [2000, 2001, 2099])
def test_the_incomplete_last_batch_takes_a_step_in_proportion_to_its_rows(rows):
    case = make_case("squared", 1, rows=rows)
    case.source.y[-3:] += 1000 * (rows > 2000)  # type: ignore[index] # outliers, but in few rows
    lowest = evaluate(case, run(Gram(), case).params).objective
    solver = updates_solver(case, 1000, tol=0.0)
    passes = stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    for _ in range(100):
        state = advance(solver, case.problem, passes, state)
    assert evaluate(case, state.params).objective <= 1.01 * lowest


@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize("batch_size", [1, 10, 64])
def test_losses_of_epochs_are_the_models_and_the_running_mean_has_its_own_name(rule, batch_size):
    case = make_case("logistic", rows=500, weighted=True)
    solver = updates_solver(case, batch_size, rule, tol=0.0)
    passes = stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    counted: list[int] = []
    passes._on_rows = counted.append
    for epoch in range(3):
        state = advance(solver, case.problem, passes, state)
        now = evaluate(case, state.params)
        assert state.loss == pytest.approx(now.loss, rel=1e-12)
        norm = np.abs(now.gradient).max() / case.problem.total_weight
        assert state.gradient_norm == pytest.approx(norm, rel=1e-9)
        (replica,) = state.memory["replicas"]
        assert state.progressive_loss == replica["sums"][0] / replica["sums"][1] != state.loss
        # What evaluates a model is no part of the passes.
        assert sum(counted) == (epoch + 1) * 500


def test_epochs_that_gain_nothing_end_the_learning():
    case = make_case("logistic")
    state = run(updates_solver(case, 10, tol=1e-2), case)
    assert state.converged
    assert not state.stalled
    assert state.n_iter < 30
    best = evaluate(case, run(Newton(tol=1e-9), case).params).objective
    assert evaluate(case, state.params).objective <= 1.01 * best


def test_epochs_that_gain_nothing_far_from_the_optimum_are_no_convergence():
    case = make_case("logistic")
    solver, passes = updates_solver(case, 10, learning_rate=1e-7, tol=1e-3), stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    for _ in range(3 * PATIENCE):
        state = advance(solver, case.problem, passes, state)
        assert not state.converged
        assert not state.stalled


@pytest.mark.parametrize(("loss", "outputs"), [*CLASSIFIERS, ("squared", 2)])
@pytest.mark.parametrize("settings", PENALTIES)
def test_what_can_be_gained_for_certain_is_no_more_than_what_can_be_gained(loss, outputs, settings):
    if loss == "squared":
        settings = settings | {"class_weight": False}
    case = make_case(loss, outputs, **settings)
    exact: Any = Gram() if loss == "squared" else Newton(tol=1e-10)
    lowest = evaluate(case, run(exact, case).params)
    for scale in (0.0, 0.5, 3.0):
        theta = scale * np.random.default_rng(1).normal(size=case.problem.initial().shape)
        theta[:, -1] *= case.problem.fit_intercept
        left = evaluate(case, theta).objective - lowest.objective
        gain = gain_at(case.problem, case.source, theta) * case.problem.total_weight
        assert 0.05 * left * (scale == 0.0) < gain <= left * (1 + 1e-9)
        if loss == "squared":  # the bound is the curvature
            assert gain == pytest.approx(left, rel=0.02)
    at_best = gain_at(case.problem, case.source, lowest.params)
    assert abs(at_best) <= 1e-9


def test_a_huge_learning_rate_is_told_of():
    case = make_case("squared", 1)
    for batch_size in (1, 10, 101):
        solver = updates_solver(case, batch_size, learning_rate=1e6, tol=0.0)
        with pytest.raises(Diverged, match=r"learning rate of 1e\+06 is too large"):
            run(solver, case)


def test_epochs_are_a_function_of_their_seed():
    case = make_case("logistic")
    found = []
    for seed in (3, 3, 4):
        passes, solver = stream(case.source), updates_solver(case, 5, seed=seed)
        state = start(solver, case.problem, passes, case.problem.initial())
        for _ in range(2):
            state = advance(solver, case.problem, passes, state)
        found.append(state.memory["replicas"][0])
    assert same_bits(found[0], found[1])
    assert not same_bits(found[0], found[2])


@pytest.mark.parametrize("solver", [Gram(), Newton(), LBFGS()])
def test_works_are_no_smaller_than_what_passes_add_up(solver):
    case = make_case("squared" if isinstance(solver, Gram) else "logistic")
    largest: dict[str, int] = {}
    passes = stream(case.source)
    reduce = passes.reduce

    def noted(reduction, partitions=None, **how):
        for name, array in reduction.zeros().items():
            largest[name] = max(largest.get(name, 0), array.nbytes)
        return reduce(reduction, partitions, **how)

    passes.reduce = noted  # type: ignore[method-assign]
    state = start(solver, case.problem, passes, case.problem.initial())
    while not state.converged:
        state = advance(solver, case.problem, passes, state)
    reduction, *_ = solver.holds(case.problem, case.source).reductions
    assert {name: array.nbytes for name, array in reduction.zeros().items()} == largest


def held_by_steps(solver, case: Case, steps: int) -> int:
    """Return the most bytes that a solver holds at a time, beside the sums that passes return.

    What passes take is no part of it.
    """
    passes, sums, most = stream(case.source), 0, 0

    def look() -> None:
        nonlocal most
        most = max(most, tracemalloc.get_traced_memory()[1] - begun - sums)
        tracemalloc.reset_peak()

    def apart(run):
        def run_apart(*arguments, **settings):
            nonlocal sums
            look()
            found = run(*arguments, **settings)
            tracemalloc.reset_peak()
            sums += total_bytes(found) if isinstance(found, dict) else 0
            return found

        return run_apart

    passes.reduce = apart(passes.reduce)  # type: ignore[method-assign]
    passes.scan = apart(passes.scan)  # type: ignore[method-assign]
    theta = case.problem.initial()
    tracemalloc.start()
    try:
        begun = tracemalloc.get_traced_memory()[0]
        state = start(solver, case.problem, passes, theta)
        for _ in range(steps):
            look()
            sums = 0
            state = advance(solver, case.problem, passes, state)
            look()
    finally:
        tracemalloc.stop()
    return most


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lbfgs", "sgd", "adam", "adam by all rows", "sgd in replicas"])
def test_a_solver_has_slots_for_what_it_holds(name):
    case = make_case("logistic", rows=40, features=20_000, partition_rows=4)
    solver: Any = {
        "lbfgs": LBFGS(tol=0.0),
        "sgd": updates_solver(case, 8, tol=0.0),
        "adam": updates_solver(case, 8, "adam", tol=0.0),
        "adam by all rows": updates_solver(case, 40, "adam", tol=0.0),
        "sgd in replicas": updates_solver(case, 8, tol=0.0, shuffle_chunks=1, replicas=3),
    }[name]
    held_by_steps(solver, case, 2)  # what is compiled or imported is there then
    held = held_by_steps(solver, case, 16) / case.problem.initial().nbytes
    sets = solver.holds(case.problem, case.source).sets
    assert held <= sets + 1
    assert sets <= 2.5 * held


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gram", "newton"])
def test_a_solver_has_room_for_what_it_makes_of_sums(name):
    if name == "gram":
        case = make_case("squared", rows=900, features=400)
    else:
        case = make_case(rows=900, features=400, l2=0.0)  # by eigenvectors, which take most
    solver: Any = Gram() if name == "gram" else Newton(tol=0.0)
    held_by_steps(solver, case, 1)
    held = held_by_steps(solver, case, 1 if name == "gram" else 3)
    holdings = solver.holds(case.problem, case.source)
    counted = holdings.algebra + holdings.sets * case.problem.initial().nbytes
    assert held <= counted <= 2 * held  # what LAPACK takes is not traced
