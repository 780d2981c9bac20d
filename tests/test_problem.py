"""A problem that is not linear goes through the same solvers, streams and states."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ooc_train.errors import NonFiniteData
from ooc_train.models.problem import Problem
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.runtime.job import Job
from ooc_train.solvers.base import advance, from_arrays, start, to_arrays
from ooc_train.solvers.lbfgs import LBFGS
from ooc_train.solvers.registry import Settings, solver_for
from ooc_train.solvers.updates import Updates
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.requirements import Requirements
from tests.streams import Case, Cut, same_bits, stream, write_store
from tests.test_solvers import held_by_steps
from tests.two_layer import TwoLayer

ROWS, FEATURES = 600, 3


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, FEATURES))
    y = np.tanh(X @ [1.0, -2.0, 0.5]) + 0.5 * np.sin(2 * X[:, 0])
    return Cut(X, y[:, None], rng.uniform(0.5, 1.5, ROWS), rows=50, group=2)


@pytest.fixture(scope="module")
def network(rows) -> Problem:
    return TwoLayer(ROWS, float(rows.weight.sum()), 1e-3, n_features=FEATURES, hidden=8)


def objective_at(problem, rows, params):
    sums = stream(rows).reduce(problem.reduction(params[None]))
    return problem.read(sums, params[None])


def test_its_gradient_is_that_of_finite_differences(network, rows):
    params = network.initial(seed=1)
    found = objective_at(network, rows, params).gradient
    for i in range(0, len(params), 5):
        step = np.zeros_like(params)
        step[i] = 1e-5
        up, down = (objective_at(network, rows, params + s).objective for s in (step, -step))
        assert found[i] == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-6)


SOLVERS: dict[str, Any] = {
    "lbfgs": LBFGS(tol=1e-4),
    "adam": Updates(OPTIMIZERS["adam"](), 16, 0.01, tol=0.0, seed=3),
    "momentum": Updates(OPTIMIZERS["momentum"](), 16, 0.02, tol=0.0, seed=3),
    "sgd in replicas": Updates(OPTIMIZERS["sgd"](), 16, 0.1, tol=0.0, seed=3, replicas=2),
    "all rows": Updates(OPTIMIZERS["momentum"](), ROWS, 0.1, tol=0.0),
}


def learned(solver, problem, passes, steps):
    """The states after each step."""
    states = [start(solver, problem, passes, problem.initial(seed=1))]
    for _ in range(steps):
        states.append(advance(solver, problem, passes, states[-1]))
    return states


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
def test_it_is_learned(network, rows, name):
    constant = rows.y.var()
    state = learned(SOLVERS[name], network, stream(rows), 60)[-1]
    assert state.loss < 0.1 * constant / 2
    assert state.loss == pytest.approx(objective_at(network, rows, state.params).loss, rel=1e-9)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_state_goes_on_from_its_arrays(network, rows, name, tmp_path):
    solver, passes = SOLVERS[name], stream(rows)
    states = learned(solver, network, passes, 6)
    arrays: Any = to_arrays(states[3])
    np.savez(tmp_path / "state.npz", **arrays)
    with np.load(tmp_path / "state.npz", allow_pickle=False) as arrays:
        state = from_arrays(dict(arrays))
    for _ in range(3):
        state = advance(solver, network, passes, state)
    assert same_bits(to_arrays(state), to_arrays(states[6]))


def test_a_state_between_two_passes_of_an_iteration_is_kept_too(network, rows):
    solver, passes = SOLVERS["adam"], stream(rows)
    state = start(solver, network, passes, network.initial(seed=1))
    state = solver.tell(network, rows, state, passes.run(solver.ask(network, rows, state)))
    assert state.phase
    again = from_arrays(to_arrays(state))
    ends = [advance(solver, network, passes, each) for each in (state, again)]
    assert same_bits(*map(to_arrays, ends))


@pytest.mark.parametrize("name", ["gram", "newton"])
def test_a_solver_that_needs_more_than_it_can_is_refused(network, name):
    with pytest.raises(ValueError, match=r"solver='\w+' needs .* use 'lbfgs' or 'sgd'"):
        solver_for(name, Settings(1e-4, 16), network)


def test_an_automatic_learning_rate_is_refused_where_no_moments_tell_it(network, rows):
    solver = Updates(OPTIMIZERS["sgd"](), 16)
    with pytest.raises(ValueError, match="learning_rate='auto' is for linear models"):
        learned(solver, network, stream(rows), 1)


@pytest.mark.parametrize("name", ["lbfgs", "adam"])
def test_what_is_not_finite_is_told_with_its_row(network, rows, name):
    X = rows.X.copy()
    X[123, 1] = np.nan
    with pytest.raises(NonFiniteData, match="row 123 has nan in column 1"):
        learned(SOLVERS[name], network, stream(Cut(X, rows.y, rows.weight, rows=50)), 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lbfgs", "adam", "sgd in replicas"])
def test_a_cluster_learns_it_to_the_same_bits(network, rows, name, tmp_path):
    write_store(tmp_path / "rows", rows.X, rows.y[:, 0], rows.weight, chunk_rows=50)
    source = read_inputs(tmp_path / "rows", classifier=False).source
    solver = SOLVERS[name]
    holdings = solver.holds(network, source)
    needed = Requirements.of(
        source, holdings.reductions, parameters=network.initial().nbytes, sets=holdings.sets
    )
    if holdings.scan is not None:
        needed = needed.with_updates(
            source,
            holdings.scan,
            carried=holdings.carried,
            replicas=holdings.replicas,
            shuffle_chunks=holdings.shuffle_chunks,
        )
    with (
        LocalCluster(n_workers=2, dashboard_address="127.0.0.1:0") as cluster,
        cluster.get_client() as client,
        Job(source, client=client) as job,
    ):
        there = learned(solver, network, job.stream(job.plan(needed)), 3)[-1]
    here = learned(solver, network, stream(source), 3)[-1]
    assert same_bits(to_arrays(there), to_arrays(here))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lbfgs", "adam", "sgd in replicas", "all rows"])
def test_ten_million_parameters_are_held_no_more_often_than_is_said(name):
    rng = np.random.default_rng(0)
    rows = Cut(rng.normal(size=(20, 1_000)), rng.normal(size=(20, 1)), rows=5, group=2)
    network: Any = TwoLayer(20, 20.0, 1e-3, n_features=1_000, hidden=10_000)
    if name == "lbfgs":
        solver, steps = replace(SOLVERS[name], history=3), 5
    else:
        batch_size = 20 if name == "all rows" else 16
        solver, steps = replace(SOLVERS[name], batch_size=batch_size, learning_rate=1e-6), 2
    held = held_by_steps(solver, Case(network, rows), steps) / (8 * network.n_parameters)
    sets = solver.holds(network, rows).sets
    assert held <= sets + 1
    assert sets <= 2.5 * held
