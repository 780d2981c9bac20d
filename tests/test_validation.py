"""Validation rows: their loss after each step, what it costs, and that nothing learned changes."""

import json
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import pytest
from typer.testing import CliRunner

from ooc_train import cli
from ooc_train.errors import CeilingExceeded
from ooc_train.inference.predict import evaluate
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.regression_models import RidgeModel
from ooc_train.runs.events import Compiling, Progressed, Started, Stepped, Stop
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.solvers.training_settings import Training
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.stream.baseline import Processes
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.plan_choices import make_plan
from ooc_train.stream.requirements import Requirements
from ooc_train.training.loop import train
from ooc_train.training.task import Task
from tests.streams import write_store

LOGISTIC, TRAINING = LogisticModel(), Training(max_iter=4, random_state=0)
ROWS, OTHERS = 6000, 2500


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Rows to learn from and others, both of one truth."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS + OTHERS, 4)).astype("f4")
    y = (X @ [1.0, -1.0, 0.5, 0.0] + rng.logistic(size=len(X)) > 0).astype(int)
    return X[:ROWS], y[:ROWS], X[ROWS:], y[ROWS:]


@pytest.fixture(scope="module")
def stores(tmp_path_factory, data):
    X, y, other_X, other_y = data
    folder = tmp_path_factory.mktemp("validation")
    write_store(folder / "a", X, y, chunk_rows=500)
    write_store(folder / "b", other_X, other_y, chunk_rows=300)
    return str(folder / "a"), str(folder / "b")


class Listener:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def __call__(self, event: Any) -> None:
        if not isinstance(event, Compiling):  # that depends on what is in the cache
            self.events.append(event)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "training"),
    [
        (LOGISTIC, TRAINING),
        (LOGISTIC, replace(TRAINING, solver="lbfgs")),
        (LOGISTIC, replace(TRAINING, batch_size=32)),
        (LOGISTIC, replace(TRAINING, batch_size="full", solver="sgd")),
        (RidgeModel(), Training()),
    ],
    ids=["newton", "lbfgs", "batches", "descent", "gram"],
)
def test_each_step_is_judged_and_nothing_that_is_learned_changes(stores, model, training):
    listener = Listener()
    fitted, report = train(model, stores[0], training, validation=stores[1], callbacks=[listener])
    plain, without = train(model, stores[0], training)
    np.testing.assert_array_equal(fitted.coef, plain.coef)
    np.testing.assert_array_equal(fitted.intercept, plain.intercept)
    assert report.loss_history == without.loss_history
    assert (report.passes, report.n_iter) == (without.passes, without.n_iter)
    due = evaluate(fitted, stores[1])[0]["loss"]
    assert report.validation_loss == pytest.approx(due, rel=1e-9)
    steps = [event for event in listener.events if isinstance(event, Stepped)]
    assert tuple(steps) == report.history
    assert all(step.validation_loss is not None for step in steps)
    # Without validation rows there is none of it.
    assert without.validation_loss is None
    assert {step.validation_loss for step in without.history} == {None}
    assert "validating" not in without.profile


@pytest.mark.slow
def test_a_step_is_judged_at_the_parameters_that_it_led_to(stores):
    _, report = train(LOGISTIC, stores[0], TRAINING, validation=stores[1])
    start, *steps = report.history
    assert start.n_iter == 0
    assert start.loss == pytest.approx(np.log(2), rel=1e-12)
    assert start.validation_loss == pytest.approx(np.log(2), rel=1e-12)
    for n_iter, step in enumerate(steps, start=1):
        fitted, alone = train(LOGISTIC, stores[0], replace(TRAINING, max_iter=n_iter))
        assert alone.n_iter == step.n_iter == n_iter
        due = evaluate(fitted, stores[1])[0]["loss"]
        assert step.validation_loss == pytest.approx(due, rel=1e-9)


def test_what_it_costs_is_in_the_report(stores):
    listener = Listener()
    _, report = train(LOGISTIC, stores[0], TRAINING, validation=stores[1], callbacks=[listener])
    row_bytes = 4 * 4 + 8
    due = report.passes * ROWS + len(report.history) * OTHERS
    assert report.bytes_read == due * row_bytes
    assert report.profile["validating"] > 0
    assert "validating" in report.time_spent
    assert listener.events[0].validation_rows == OTHERS
    # Limits on passes, and rows read, are of the rows that are learned from.
    rows = [event.rows for event in listener.events if isinstance(event, Progressed)]
    assert rows[-1] == report.passes * ROWS
    assert len(rows) > len(set(rows))
    assert report.to_json()["validation_loss"] == report.validation_loss
    assert f"(validation {report.validation_loss:.6g})" in str(report)
    assert ("validation loss", f"{report.validation_loss:.6g}") in report.figures()


def test_the_loss_is_measured_as_that_of_the_rows_that_are_learned_from(data):
    X, y, other_X, other_y = data
    rng = np.random.default_rng(1)
    weight = rng.uniform(0.5, 2.0, OTHERS)
    inputs = read_inputs(X, y, classifier=True)
    others = read_inputs(other_X, other_y, weight, classifier=True, classes=inputs.classes)
    model = LogisticModel(class_weight={0: 1.0, 1: 3.0})
    fitted, report = train(model, inputs, TRAINING, validation=others)
    z = other_X @ fitted.coef[0] + fitted.intercept[0]
    losses = np.logaddexp(0.0, z) - other_y * z
    due = np.average(losses, weights=weight * np.where(other_y == 1, 3.0, 1.0))
    assert report.validation_loss == pytest.approx(due, rel=1e-6)


@pytest.mark.slow
def test_rows_of_one_kind_are_judged_by_rows_of_any(data, stores):
    X, y, other_X, other_y = data
    to_learn = {
        "store": stores[0],
        "arrays": read_inputs(X, y, classifier=True),
        "dask": read_inputs(da.from_array(X, 700), da.from_array(y, 700), classifier=True),
    }
    others = {
        "store": stores[1],
        # Of another type, whose kernels are others.
        "arrays": read_inputs(other_X.astype("f8"), other_y, classifier=True),
        "dask": read_inputs(
            da.from_array(other_X, 900), da.from_array(other_y, 900), classifier=True
        ),
    }
    found = [
        train(LOGISTIC, rows, TRAINING, validation=other)[1].validation_loss
        for rows in to_learn.values()
        for other in others.values()
    ]
    judged = np.array(found, float)
    np.testing.assert_allclose(judged, judged[0], rtol=1e-6)


def test_rows_that_do_not_go_with_the_others_are_refused(data, stores, tmp_path):
    X, y, other_X, other_y = data
    write_store(tmp_path / "wide", np.zeros((6, 5)), np.arange(6) % 2)
    with pytest.raises(ValueError, match="the validation rows have 5 columns"):
        train(LOGISTIC, stores[0], TRAINING, validation=tmp_path / "wide")
    two = read_inputs(other_X, np.stack([other_y, other_y], 1), classifier=False)
    with pytest.raises(ValueError, match="y of the validation rows has 2 columns"):
        train(RidgeModel(), read_inputs(X, y, classifier=False), validation=two)
    none = read_inputs(other_X, other_y, np.zeros(OTHERS), classifier=True)
    with pytest.raises(ValueError, match="weights of all validation rows add up to 0"):
        train(LOGISTIC, stores[0], TRAINING, validation=none)
    of_one_class = read_inputs(other_X, np.zeros(OTHERS, int), classifier=True, classes=(0, 1))
    unweighted = LogisticModel(class_weight={0: 0.0, 1: 1.0})
    with pytest.raises(ValueError, match="leaves the validation rows no weight"):
        train(unweighted, stores[0], validation=of_one_class)


def test_a_run_that_is_asked_to_stop_reads_no_validation_rows(stores):
    class Stops(Listener):
        def __call__(self, event: Any) -> None:
            super().__call__(event)
            if isinstance(event, Progressed) and any(isinstance(e, Stepped) for e in self.events):
                raise Stop("enough")

    _, report = train(LOGISTIC, stores[0], TRAINING, validation=stores[1], callbacks=[Stops()])
    assert [step.validation_loss is None for step in report.history] == [False, True]
    assert report.notes == ("enough",)


# The memory contract


def test_a_plan_has_room_for_both_and_says_so(stores):
    inputs = read_inputs(stores[0], classifier=True)
    source = inputs.source
    processes, ceiling = Processes(0, ((90 * 2**20, 1),), 1), Ceiling(2**30, "given")
    own = Requirements(partition=10_000, workspace=1000, sums=500, parameters=40, slots=5)
    # What is read takes more, what is added up less.
    other = Requirements(partition=5_000_000, workspace=1000, sums=50, parameters=40, slots=5)
    found = make_plan(source, own, ceiling, processes, (source, other))
    alone = make_plan(source, own, ceiling, processes)
    apart = make_plan(source, other, ceiling, processes)
    sizes = [{term.name: term.bytes for term in plan.projection.terms} for plan in (alone, apart)]
    assert {term.name: term.bytes for term in found.projection.terms} == {
        name: max(size, sizes[1][name]) for name, size in sizes[0].items()
    }
    assert found.config == alone.config
    assert found.validation == apart.config
    assert alone.validation is None
    small = Ceiling((alone.projected + apart.projected) // 2, "given")
    make_plan(source, own, small, processes).validate()
    with pytest.raises(CeilingExceeded, match="the run needs"):
        make_plan(source, own, small, processes, (source, other)).validate()


@pytest.mark.slow
def test_a_run_keeps_to_its_plan(tmp_path):
    store = make_data(tmp_path / "a.zarr", rows=200_000, features=20, random_state=0)
    # Their chunks are larger, and so is the room that they take.
    other = make_data(
        tmp_path / "b.zarr", rows=100_000, features=20, chunk_rows=50_000, random_state=0
    )
    with (
        LocalCluster(n_workers=2, dashboard_address="127.0.0.1:0") as cluster,
        cluster.get_client() as client,
    ):
        _, plain = train(LOGISTIC, store, TRAINING, client=client)
        _, report = train(LOGISTIC, store, TRAINING, validation=other, client=client)
    assert report.memory.terms["buffers"] > plain.memory.terms["buffers"]
    assert report.memory.measured <= report.memory.projected


def test_a_task_plans_for_what_it_is_given(stores):
    inputs = read_inputs(stores[0], classifier=True)
    assert Task.of(LOGISTIC, inputs, TRAINING).validation_requirements() is None
    task = Task.of(LOGISTIC, inputs, TRAINING, stores[1])
    beside = task.validation_requirements()
    assert beside is not None
    source, requirements = beside
    assert source.n_rows == OTHERS
    # What the solver holds stays, and no gradient is added up.
    assert requirements.slots == task.solver.holds(task.problem, inputs.source).sets
    assert requirements.sums < task.requirements().sums
    assert task.needs_kernels


# The command line


@pytest.mark.slow
def test_the_command_tells_of_it(stores, tmp_path):
    def here(*arguments: str) -> Any:
        done = CliRunner().invoke(cli.app, [*arguments, "--workers", "1"])
        assert done.exit_code == 0, done.stderr
        return done

    address = ("--dashboard-address", "127.0.0.1:0", "--validation", stores[1])
    shown = here("train", stores[0], *address)
    assert "(validation 0." in shown.stdout.splitlines()[0]
    assert "validating" in shown.stdout
    told = json.loads(here("train", stores[0], *address, "--json").stdout)
    assert told["validation_loss"] == told["history"][-1]["validation_loss"]
    plan = json.loads(here("plan", stores[0], *address, "--json").stdout)
    assert plan["terms"] == told["memory"]["terms"] | {
        name: plan["terms"][name] for name in ("baseline", "shared libraries")
    }


def test_started_tells_of_no_rows_where_there_are_none(stores):
    listener = Listener()
    train(LOGISTIC, stores[0], TRAINING, callbacks=[listener])
    started = listener.events[0]
    assert isinstance(started, Started)
    assert started.validation_rows == 0
