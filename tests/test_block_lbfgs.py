"""L-BFGS that begins with the Hessian of each output: the same optimum, in fewer passes."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from ooc_train.models import loss_sums
from ooc_train.models.classification_models import LogisticModel
from ooc_train.objective.scaling import Scaling
from ooc_train.solvers import block_lbfgs, lbfgs
from ooc_train.solvers.base import STALLED, State, advance, from_arrays, start, to_arrays
from ooc_train.solvers.block_lbfgs import BlockLBFGS, has_small_blocks
from ooc_train.solvers.lbfgs import LBFGS
from ooc_train.solvers.newton import Newton
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.loop import train
from tests.streams import Case, Cut, Shuffled, make_case, stream

LOSSES_AND_OUTPUTS = [("logistic", 1), ("logistic", 3), ("multinomial", 4), ("squared_hinge", 3)]


def solved(solver, case: Case, most: int = 80) -> tuple[State, float]:
    """The state at the tolerance, and the passes to it."""
    passes = stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    while not state.converged:
        assert state.n_iter < most, f"{solver} takes more than {most} steps"
        state = advance(solver, case.problem, passes, state)
    return state, passes.timings.rows / case.source.n_rows


def evaluated(case: Case, theta, **how):
    work = case.problem.reduction(theta[None], **how)
    return case.problem.read(stream(case.source).reduce(work), theta[None])


def correlated(loss="multinomial", outputs=3, features=30, weight=None) -> Case:
    """Columns whose directions differ in spread by a factor of 1,000."""
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(features, features)))
    X = rng.normal(size=(400, features)) * np.geomspace(1.0, 1e-3, features) @ turn
    z = 3.0 * X @ rng.normal(size=(features, outputs)) + rng.gumbel(size=(400, outputs))
    made = make_case(loss, outputs, l2=1e-3).problem
    problem = dataclasses.replace(
        made, n_rows=400, total_weight=400.0, scaling=Scaling.of(X.mean(0), X.std(0), centre=True)
    )
    y = z.argmax(axis=1) if outputs > 1 else z[:, 0] > 0
    return Case(problem, Cut(X, y[:, None].astype(float), weight, rows=50))


@pytest.mark.parametrize(
    "settings",
    [{}, {"weighted": True, "class_weight": True}, {"fit_intercept": False}, {"l2": 0.0}],
)
@pytest.mark.parametrize(("loss", "outputs"), LOSSES_AND_OUTPUTS)
def test_the_optimum_is_that_of_newton(loss, outputs, settings):
    case = make_case(loss, outputs, rows=203, **settings)
    state, _ = solved(BlockLBFGS(tol=1e-9), case)
    exact, _ = solved(Newton(tol=1e-9), case)
    now, due = evaluated(case, state.params), evaluated(case, exact.params)
    assert np.abs(now.gradient).max() <= 1.01e-9 * case.problem.total_weight
    assert now.objective == pytest.approx(due.objective, rel=1e-12)


@pytest.mark.parametrize("least", [0, 2**34], ids=["compiled", "blas"])
@pytest.mark.parametrize(
    ("loss", "outputs", "own"),
    [("logistic", 1, False), ("squared_hinge", 3, True), ("multinomial", 4, False)],
)
def test_blocks_are_those_of_the_whole_hessian(monkeypatch, loss, outputs, own, least):
    monkeypatch.setattr("ooc_train.models.linear_objective._COMPILED_WORK", least)
    monkeypatch.setattr(loss_sums, "_gathered", lambda curvature: curvature)
    case = make_case(loss, outputs, weighted=True, class_weight=True, own_class_weight=own)
    theta = np.random.default_rng(1).normal(size=case.problem.shape)
    sums = stream(case.source).reduce(block_lbfgs._blocks(case.problem, theta))
    found = case.problem.output_hessians(sums)
    whole = evaluated(case, theta, hessian=True).hessian
    assert whole is not None
    columns = case.problem.shape[1]
    for k, block in enumerate(found):
        own_part = slice(k * columns, (k + 1) * columns)
        due = whole[0][own_part, own_part] if loss == "multinomial" else whole[k]
        np.testing.assert_allclose(block, due, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("least", [0, 2**34], ids=["compiled", "blas"])
def test_rows_of_little_curvature_stand_for_one_another(monkeypatch, least):
    monkeypatch.setattr("ooc_train.models.linear_objective._COMPILED_WORK", least)
    case = make_case("multinomial", 4, weighted=True, rows=40_000)
    theta = 3.0 * np.random.default_rng(1).normal(size=case.problem.shape)
    blocks = block_lbfgs._blocks(case.problem, theta)
    found = case.problem.output_hessians(stream(case.source).reduce(blocks))
    monkeypatch.setattr(loss_sums, "_gathered", lambda curvature: curvature)
    due = case.problem.output_hessians(stream(case.source).reduce(blocks))
    for block, whole in zip(found, due, strict=True):
        ratios = np.linalg.eigvals(np.linalg.solve(whole, block)).real
        assert 0.9 < ratios.min() <= ratios.max() < 1.1
        assert not np.array_equal(block, whole)


@pytest.mark.parametrize("kind", ["sure of most", "all alike", "none", "one row", "all on one"])
def test_gathered_curvature_adds_up_to_the_same_on_fewer_rows(kind):
    rng = np.random.default_rng(0)
    curvature = {
        "sure of most": rng.uniform(size=1_000) ** 12,
        "all alike": np.full(1_000, 0.25),
        "none": np.zeros(1_000),
        "one row": np.array([0.1]),
        "all on one": np.eye(1_000)[7],
    }[kind]
    gathered = loss_sums._gathered(curvature)
    most = min(2, len(curvature)) * curvature.mean()
    assert gathered.sum() == pytest.approx(curvature.sum(), abs=0.51 * most)
    kept = curvature >= most
    np.testing.assert_array_equal(gathered[kept], curvature[kept])
    assert set(gathered[~kept]) <= {0.0, most}
    assert (gathered > 0.0).sum() <= 0.5 * len(curvature) + 1.0


def test_blocks_of_a_part_of_the_rows_are_scaled_up_to_all():
    case = make_case("multinomial", 3, weighted=True)
    theta = case.problem.initial()
    sums = stream(case.source).reduce(block_lbfgs._blocks(case.problem, theta))
    part = {name: array / 4.0 for name, array in sums.items()}
    np.testing.assert_allclose(
        case.problem.output_hessians(part), case.problem.output_hessians(sums), rtol=1e-13
    )


@pytest.mark.parametrize(("loss", "outputs"), [("multinomial", 3), ("logistic", 1)])
def test_correlated_columns_take_far_fewer_passes(loss, outputs):
    case = correlated(loss, outputs)
    state, passes = solved(BlockLBFGS(tol=1e-7), case)
    assert passes <= 24
    stream_of_plain = stream(case.source)
    plain = start(LBFGS(), case.problem, stream_of_plain, case.problem.initial())
    while stream_of_plain.timings.rows < 2 * passes * case.source.n_rows:
        plain = advance(LBFGS(), case.problem, stream_of_plain, plain)
    assert plain.loss > 1.001 * state.loss  # after twice as many passes


def test_rows_of_a_sample_give_the_curvature(monkeypatch):
    monkeypatch.setattr(block_lbfgs, "_ROWS_PER_COLUMN", 3)
    case = correlated()
    passes = stream(case.source)
    state = start(BlockLBFGS(), case.problem, passes, case.problem.initial())
    state = advance(BlockLBFGS(), case.problem, passes, state)
    assert state.note == "curvature is that of a sample of 100 rows"
    assert passes.timings.rows == 400 + 100
    exact, _ = solved(Newton(tol=1e-9), case)
    assert solved(BlockLBFGS(tol=1e-8), case)[0].loss == pytest.approx(exact.loss, rel=1e-6)


def test_a_sample_that_weighs_nothing_leaves_plain_lbfgs(monkeypatch):
    monkeypatch.setattr(block_lbfgs, "_sample", lambda *_: (0,))
    weight = np.ones(400)
    weight[:50] = 0.0
    case = correlated(weight=weight)
    solver, passes = BlockLBFGS(), stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    state = advance(solver, case.problem, passes, state)
    assert state.note == "the rows of the sample weigh nothing"
    assert "inverse" not in state.memory
    first = state.loss
    for _ in range(6):
        state = advance(solver, case.problem, passes, state)
    assert state.loss < first


def test_columns_without_curvature_and_columns_twice_stop_nothing():
    case = correlated()
    X = np.column_stack([case.source.X, case.source.X[:, :2], np.full(400, 3.0)])
    problem = dataclasses.replace(
        case.problem, scaling=Scaling.of(X.mean(axis=0), X.std(axis=0), centre=True)
    )
    state, _ = solved(BlockLBFGS(tol=1e-8), Case(problem, Cut(X, case.y)))
    alone, _ = solved(BlockLBFGS(tol=1e-8), case)
    assert np.isfinite(state.params).all()
    assert state.loss == pytest.approx(alone.loss, rel=1e-3)


def test_a_state_goes_on_from_its_arrays():
    case, solver = correlated(), BlockLBFGS(tol=1e-8)
    passes = stream(case.source)
    state = start(solver, case.problem, passes, case.problem.initial())
    for _ in range(6):
        state = advance(solver, case.problem, passes, state)
    other = from_arrays(to_arrays(state))
    for _ in range(4):  # the blocks are added up again on the way
        state = advance(solver, case.problem, passes, state)
        other = advance(solver, case.problem, passes, other)
    assert state.params.tobytes() == other.params.tobytes()


def test_bits_do_not_depend_on_tasks_or_their_order(monkeypatch):
    monkeypatch.setattr(block_lbfgs, "_ROWS_PER_COLUMN", 7)
    case, solver = correlated(), BlockLBFGS()
    found = set()
    shuffled = stream(case.source, task_groups=1, window=5, executor=Shuffled(3))
    for passes in (stream(case.source), shuffled):
        state = start(solver, case.problem, passes, case.problem.initial())
        for _ in range(7):
            state = advance(solver, case.problem, passes, state)
        found.add(state.params.tobytes())
    assert len(found) == 1


def test_blocks_are_added_up_anew_after_twice_as_many_iterations():
    assert [n for n in range(90) if block_lbfgs._is_due(n)] == [0, 5, 10, 20, 40, 80]


def test_where_no_step_helps_the_last_good_parameters_are_kept(monkeypatch):
    case, solver = make_case("multinomial", 3), BlockLBFGS(tol=1e-12)
    passes = stream(case.source)
    good = start(solver, case.problem, passes, case.problem.initial())
    for _ in range(2):
        good = advance(solver, case.problem, passes, good)
    monkeypatch.setattr(block_lbfgs, "two_loops", lambda *a: -lbfgs.two_loops(*a))
    good = state = advance(solver, case.problem, passes, good)
    while not state.stalled:
        state = advance(solver, case.problem, passes, state)
    assert state.stalled == STALLED
    np.testing.assert_array_equal(state.params, good.params)


@pytest.mark.parametrize(
    ("rows", "shape", "small"),
    [
        (60_000, (10, 785), True),
        (10**9, (10, 785), True),
        (10**9, (1, 1_700), True),
        (10**9, (1, 2_000), False),
        (10_000, (1, 2_000), True),
        (1_000, (1, 3_000), False),
        (10**9, (34, 785), False),
    ],
)
def test_auto_weighs_the_blocks_against_passes(rows, shape, small):
    problem = SimpleNamespace(n_rows=rows, shape=shape, can={"blocks"})
    assert has_small_blocks(problem) is small
    assert not has_small_blocks(SimpleNamespace(**vars(problem) | {"can": {"smooth"}}))


def test_auto_chooses_it_for_many_classes_and_says_why():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(90, 60)), np.arange(90) % 9
    inputs = read_inputs(X, y, classifier=True)
    _, report = train(LogisticModel(), inputs, Training())
    assert report.solver == "block-lbfgs"
    assert report.solver_reason == (
        "a smooth loss, and 549 parameters: more than 512; the Hessian of each output, of 61 "
        "parameters, saves passes"
    )
