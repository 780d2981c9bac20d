"""The gradient noise scale: what the gradients of single rows say, seen in sums of many."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ooc_train.models.noise import NoiseScale, NoiseSums, noise_scales
from ooc_train.solvers.base import advance, start
from ooc_train.solvers.newton import Newton
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.stream.inputs import read_inputs
from tests.streams import Case, Cut, make_case, same_bits, stream

CASES: list[dict[str, Any]] = [
    {},
    {"weighted": True, "class_weight": True},
    {"fit_intercept": False, "l2": 30.0},
    {"standardize": True, "dtype": "<f4"},
    {"loss": "squared", "outputs": 2, "weighted": True},
    {"loss": "multinomial", "outputs": 3, "class_weight": True},
]
every_case = pytest.mark.parametrize("settings", CASES, ids=lambda s: ", ".join(s) or "plain")


def points(case: Case, models: int = 2) -> np.ndarray:
    """Some parameters, and those of a model that knows nothing."""
    problem = case.problem
    theta = np.random.default_rng(5).normal(size=(models, *problem.initial().shape))
    theta[-1] = 0.0
    if not problem.fit_intercept:
        theta[..., -1] = 0.0
    return theta


def gradients_of_rows(case: Case, theta: np.ndarray) -> np.ndarray:
    """By theta, of each row's loss in the mean objective, (rows, parameters): one by one."""
    problem, source = case.problem, case.source
    scaled = np.empty((source.n_rows, problem.n_features + 1))
    problem.scaling.apply(source.X, scaled)
    by_z: np.ndarray = problem.loss.slope(case.y, scaled @ theta.T)
    weight = case.row_weights * source.n_rows / problem.total_weight
    by_theta = (by_z * weight[:, None])[:, :, None] * scaled[:, None, :]
    if not problem.fit_intercept:
        by_theta[..., -1] = 0.0
    return by_theta.reshape(source.n_rows, -1)


def direct(case: Case, theta: np.ndarray) -> NoiseScale:
    """The same from the gradients of the rows: their covariance, and their mean."""
    rows = gradients_of_rows(case, theta)
    variance = rows.var(axis=0, ddof=1).sum()
    penalty = (case.problem.theta_penalty.l2 * theta / case.problem.total_weight).ravel()
    square = ((rows.mean(axis=0) + penalty) ** 2).sum() - variance / len(rows)
    return NoiseScale(float(variance), float(square))


def measured(case: Case, theta: np.ndarray) -> list[NoiseScale]:
    problem = case.problem
    work = NoiseSums(problem.reduction(theta, gradients=len(theta)), problem.fit_intercept)
    found = noise_scales(problem, stream(case.source).reduce(work), theta)
    assert found is not None
    return found


@every_case
def test_leaves_of_one_row_say_what_the_rows_say(settings):
    case = make_case(**settings, partition_rows=1, group=4)
    theta = points(case)
    for one, at in zip(measured(case, theta), theta, strict=True):
        expected = direct(case, at)
        assert one.variance == pytest.approx(expected.variance, rel=1e-9)
        assert one.square == pytest.approx(expected.square, rel=1e-9, abs=1e-9 * one.variance)
        assert one.rows == pytest.approx(expected.rows, rel=1e-6)


@pytest.mark.slow
@every_case
@pytest.mark.parametrize("partition_rows", [7, 40])
def test_larger_leaves_say_the_same_in_the_mean(settings, partition_rows):
    """Over random orders of the rows, of which the last partition has fewer: no bias."""
    case = make_case(**settings, rows=101, partition_rows=partition_rows)
    theta, rng = points(case), np.random.default_rng(1)
    found = []
    for _ in range(300):
        order, source = rng.permutation(101), case.source
        weight = None if source.weight is None else source.weight[order]
        mixed = replace(source, X=source.X[order], y=case.y[order], weight=weight)
        scales = measured(Case(case.problem, mixed), theta)
        found.append([(one.variance, one.square) for one in scales])
    variance, square = np.moveaxis(np.array(found), 2, 0)
    for m, at in enumerate(theta):
        expected = direct(case, at)
        error = 4 / math.sqrt(len(found))
        assert abs(variance[:, m].mean() - expected.variance) < error * variance[:, m].std()
        assert abs(square[:, m].mean() - expected.square) < error * square[:, m].std() + 1e-12


@every_case
def test_it_rides_on_the_sums_and_changes_none_of_their_bits(settings):
    case = make_case(**settings)
    losses = case.problem.reduction(points(case), gradients=2)
    alone = stream(case.source).reduce(losses)
    with_noise = stream(case.source).reduce(NoiseSums(losses, case.problem.fit_intercept))
    assert with_noise.keys() - alone.keys() == {"partition_squares", "squared_rows"}
    assert same_bits({name: with_noise[name] for name in alone}, alone)


def test_squared_norms_of_rows_are_those_that_rows_have_one_by_one():
    case = make_case("multinomial", 3, rows=40, partition_rows=1)
    theta = points(case)
    work = NoiseSums(case.problem.reduction(theta, gradients=2))
    found = stream(case.source).reduce(work)["partition_squares"]
    for m in range(2):
        gradients = [
            case.problem.gradient(
                stream(Cut(case.source.X[[i]], case.y[[i]])).reduce(
                    case.problem.reduction(theta[m : m + 1])
                )
            )
            for i in range(40)
        ]
        assert found[m] == pytest.approx(np.square(gradients).sum(), rel=1e-9)


def test_one_leaf_says_nothing():
    case = make_case(rows=9, partition_rows=20)
    work = NoiseSums(case.problem.reduction(points(case), gradients=2))
    assert noise_scales(case.problem, stream(case.source).reduce(work), points(case)) is None


def test_where_the_gradient_is_lost_in_the_noise_the_scale_has_no_end():
    case = make_case(rows=2000, partition_rows=20)
    passes, solver = stream(case.source), Newton(tol=1e-10)
    state = start(solver, case.problem, passes, case.problem.initial())
    while not state.converged:
        state = advance(solver, case.problem, passes, state)
    (at_the_end,) = measured(case, state.params[None])
    (at_zero,) = measured(case, np.zeros((1, *state.params.shape)))
    assert at_the_end.rows > 2000
    assert at_zero.rows < 200
    assert NoiseScale(1.0, -1e-9).rows == math.inf


def test_of_a_store_of_chunks_it_is_about_what_the_rows_say(tmp_path):
    """20 leaves of 1,000 rows, and 30 parameters: to about a tenth."""
    store = make_data(tmp_path / "a", rows=20_000, features=30, chunk_rows=1000)
    source = read_inputs(store, classifier=True).source
    case = make_case(rows=20_000, features=30, partition_rows=1000)
    problem = case.problem
    arrays = {name: np.zeros(r.shape, r.dtype) for name, r in source.buffers(20).items()}
    block = source.reader().gather(range(20), arrays)
    assert block.y is not None
    rows = replace(case.source, X=block.X.copy(), y=block.y.copy(), weight=None)
    theta = points(case)[:1] * 0.1
    work = NoiseSums(problem.reduction(theta), problem.fit_intercept)
    found = noise_scales(problem, stream(source).reduce(work), theta)
    assert found is not None
    expected = direct(Case(problem, rows), theta[0])
    assert found[0].variance == pytest.approx(expected.variance, rel=0.2)
    assert found[0].square == pytest.approx(expected.square, rel=0.02)
