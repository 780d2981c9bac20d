"""Batch-size schedules: what text means, and what runs by them do."""

import json
from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt
from typer.testing import CliRunner

from ooc_train import LogisticRegression, cli, plots
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.custom_model import CustomModel
from ooc_train.models.regression_models import LassoModel, LeastSquares
from ooc_train.objective.losses.huber import Huber
from ooc_train.optimizers.sgd import Sgd
from ooc_train.runs.report import Report
from ooc_train.runs.run_loading import load_fitted
from ooc_train.solvers.base import advance, from_arrays, start, to_arrays
from ooc_train.solvers.batch_schedules import (
    BatchSteps,
    ExponentialBatches,
    GrowingBatches,
    batch_schedule,
)
from ooc_train.solvers.phased import Phased
from ooc_train.solvers.training_settings import Training
from ooc_train.solvers.updates import Updates
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.loop import train
from ooc_train.training.task import Task
from tests.streams import make_case, stream, write_store

ROWS = 2000
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 5)) * [1.0, 1e-6, 1e9, 3.0, 1.0]
Z = X @ [1.0, 0.0, 0.0, -0.5, 0.0] - 0.3
Y = (Z + RNG.logistic(size=ROWS) > 0).astype(int)
MODEL = LogisticModel(C=0.1)
INPUTS = read_inputs(X, Y, classifier=True)
TRAINING = Training(random_state=0, max_iter=30)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("schedules") / "a"
    write_store(path, X, Y, chunk_rows=50, shard_chunks=8, shuffled=0)
    return str(path)


@pytest.mark.parametrize(
    ("text", "schedule", "sizes"),
    [
        ("exp:32..full", ExponentialBatches(32), [32, 64, 128, 256, 512, 1000, 1000]),
        ("exp:32..200", ExponentialBatches(32, 200), [32, 64, 128, 200, 200, 200, 200]),
        ("exp:10..1000,factor=10.0", ExponentialBatches(10, 1000, 10.0), [10, 100, *[1000] * 5]),
        ("exp:3..full,factor=1.5", ExponentialBatches(3, factor=1.5), [3, 4, 6, 10, 15, 22, 34]),
        (
            "step:256@0,4096@3,full@6",
            BatchSteps(((256, 0), (4096, 3), ("full", 6))),
            [*[256] * 3, *[1000] * 4],
        ),
        ("step:8@0,4@2", BatchSteps(((8, 0), (4, 2))), [8, 8, 4, 4, 4, 4, 4]),
        ("grow", GrowingBatches(), [32, *[1000] * 6]),
        ("grow:64", GrowingBatches(64), [64, *[1000] * 6]),
    ],
)
def test_a_schedule_and_its_text(text, schedule, sizes):
    assert batch_schedule(text) == schedule
    assert str(schedule) == text
    assert [schedule.rows(epoch, 1000) for epoch in range(7)] == sizes
    assert schedule.last(1000) == schedule.rows(10**9, 1000) == schedule.rows(10**300, 1000)
    assert schedule.smallest(1000) == min(sizes)
    training = Training(batch_size=text)
    assert training.batch_size == schedule
    assert Training(**json.loads(json.dumps(training.settings()))) == training


@pytest.mark.parametrize(
    "text",
    [
        *("exp", "exp:", "exp:32", "exp:32..", "exp:full..32", "exp:32..32", "exp:0..full"),
        *("exp:32..full,factor=1", "exp:32..full,factor=inf", "exp:32..full,pace=2"),
        *("exp:32..full,factor=2,factor=3", "exp:1.5..full", "exp:32..16", "exp:32..chunk"),
        *("step", "step:", "step:32", "step:32@1", "step:32@0,64@0", "step:32@0,64@-1"),
        *("step:32@0,64@1.5", "step:full@0,32@2", "step:0@0", "step:32@0,,64@2", "step:a@b"),
        *("grow:0", "grow:x", "grow:full", "grow:-3"),
    ],
)
def test_text_that_makes_no_sense_is_refused(text):
    with pytest.raises(ValueError, match=r"is no schedule such as 'exp:32..full', 'step:256@0,"):
        Training(batch_size=text)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ExponentialBatches(True),
        lambda: ExponentialBatches(32, 16),
        lambda: ExponentialBatches(32, factor=float("nan")),
        lambda: BatchSteps(()),
        lambda: BatchSteps(((32, True),)),
        lambda: GrowingBatches(0),
    ],
    ids=["flag", "falling", "nan", "none", "epoch", "zero"],
)
def test_values_that_cannot_be_used(make):
    with pytest.raises(ValueError, match=r"is not"):
        make()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"replicas": 2}, "replicas='2' is for batches of one size"),
        ({"schedule": "cosine"}, "schedule='cosine' is for batches of one size"),
        ({"learning_rate": "cosine:0.1"}, "schedule='cosine' is for batches of one size"),
        ({"solver": "newton"}, "solver='newton' reads all rows before each step"),
    ],
)
def test_settings_that_do_not_go_with_a_schedule(settings, said):
    with pytest.raises(ValueError, match=said):
        Training(batch_size="exp:32..full", **settings)
    if "replicas" in settings:
        with pytest.raises(ValueError, match="partial_fit makes one pass"):
            LogisticRegression(batch_size="grow").partial_fit(X, Y, classes=[0, 1])


@pytest.mark.parametrize("solver", ["auto", "adam"])
def test_a_schedule_of_one_size_is_that_batch_size(store, solver):
    training = replace(TRAINING, solver=solver, max_iter=4, tol=0.0)
    plain, expected = train(MODEL, store, replace(training, batch_size=32))
    fitted, report = train(MODEL, store, replace(training, batch_size="step:32@0"))
    np.testing.assert_array_equal(fitted.coef, plain.coef)
    assert report.loss_history == expected.loss_history
    assert (report.updates, report.passes) == (expected.updates, expected.passes)
    assert (report.phases, expected.phases) == (((32, 4),), ())


def test_sizes_change_at_ends_of_epochs_and_parameters_go_on(store):
    training = replace(TRAINING, batch_size="step:8@0,100@3", max_iter=5, tol=0.0)
    _, report = train(MODEL, store, training)
    before, _ = train(MODEL, store, replace(training, batch_size=8, max_iter=3))
    alone, _ = train(MODEL, store, replace(training, max_iter=3))
    np.testing.assert_array_equal(alone.coef, before.coef)
    assert [step.batch_size for step in report.history] == [8, 8, 8, 100, 100]
    assert report.updates == 3 * ceil(ROWS / 8) + 2 * ceil(ROWS / 100)
    assert [step.n_iter for step in report.history] == [1, 2, 3, 4, 5]
    assert report.phases == ((8, 3), (100, 5))
    assert ("rows per update", "8 to iteration 3, 100 to iteration 5") in report.figures()
    # The second size begins where the first one ended, in an order of its own.
    losses = report.loss_history
    assert abs(losses[3] - losses[2]) < 0.1 * abs(losses[0] - losses[2]) + 0.01
    again = Report.from_json(json.loads(json.dumps(report.to_json())))
    assert (again.phases, again.batch_size) == (report.phases, "step:8@0,100@3")


@pytest.mark.parametrize(
    ("model", "text", "solver"),
    [
        (MODEL, "exp:32..full,factor=8", "sgd, then newton"),
        (MODEL, "grow", "sgd, then newton"),
        (LeastSquares(), "step:64@0,full@2", "sgd, then gram"),
        (LassoModel(alpha=0.05), "exp:64..full,factor=100", "sgd, then coordinate-descent"),
        (CustomModel(loss=Huber(2.0), l2=1.0), "grow:256", "sgd, then smoothing"),
        (LogisticModel(C=0.1, l1_ratio=0.5), "grow:64", "sgd, then proximal-newton"),
    ],
    ids=["exp", "grow", "gram", "lasso", "huber", "l1 logistic"],
)
def test_an_exact_solver_ends_a_schedule_at_the_optimum(model, text, solver):
    y = Y if model.is_classifier else Z + RNG.normal(size=ROWS)
    inputs = read_inputs(X, y, classifier=model.is_classifier)
    fitted, report = train(model, inputs, replace(TRAINING, batch_size=text, tol=1e-9))
    expected, _ = train(model, inputs, Training(tol=1e-9))
    scale = X.std(axis=0)
    np.testing.assert_allclose(fitted.coef * scale, expected.coef * scale, rtol=1e-5, atol=1e-7)
    assert report.converged
    assert report.solver == solver
    sizes: Any = [step.batch_size for step in report.history]
    assert sizes == sorted(sizes)
    assert sizes[-1] == ROWS
    assert report.shortfall == ""


def test_parameters_are_handed_to_the_exact_solver(store):
    """Newton begins at them: one step brings it nearer than one from the start does."""
    training = replace(TRAINING, batch_size="step:8@0,full@4", max_iter=5)
    _, report = train(MODEL, store, training)
    _, plain = train(MODEL, store, Training(max_iter=1))
    _, optimal = train(MODEL, store, Training(tol=1e-10))
    near, far = (abs(each.loss - optimal.loss) for each in (report, plain))
    assert near < 1e-3 * far


def test_growing_batches_follow_the_noise_of_the_gradient(store):
    _, report = train(MODEL, store, replace(TRAINING, batch_size="grow:4"))
    sizes: Any = [step.batch_size for step in report.history]
    assert sizes[0] == 4
    assert sizes[1] != 16  # the scale is measured, and no growth is assumed
    assert sizes == sorted(sizes)
    assert sizes[-1] == ROWS
    # All rows in one partition do not tell the noise: sizes grow fourfold.
    _, blind = train(MODEL, INPUTS, replace(TRAINING, batch_size="grow:4"))
    assert [step.batch_size for step in blind.history][:4] == [4, 16, 64, 256]


def test_a_state_can_be_kept_between_any_two_passes(store):
    inputs = read_inputs(store, classifier=True)
    task = Task.of(MODEL, inputs, replace(TRAINING, batch_size="grow:8"))
    rows = stream(inputs.source)

    def run(keep):
        state = start(task.solver, task.problem, rows, task.problem.initial())
        while not state.converged and state.n_iter < 12:
            state = keep(advance(task.solver, task.problem, rows, state))
        return state

    straight, kept = run(lambda state: state), run(lambda state: from_arrays(to_arrays(state)))
    np.testing.assert_array_equal(straight.params, kept.params)
    assert straight.n_iter == kept.n_iter


def test_schedules_are_drawn(store):
    _, report = train(MODEL, store, replace(TRAINING, batch_size="exp:32..full"))
    for ax in (ExponentialBatches(32).plot(epochs=5, n_rows=100), plots.batch_size(report)):
        assert len(ax.lines) == 1
        assert ax.get_ylabel() == "rows per update"
        plt.close("all")
    planned = ExponentialBatches(32).plot(epochs=5, n_rows=100).lines[0]
    assert planned.get_ydata().tolist() == [32, 64, 100, 100, 100]
    plt.close("all")
    assert "no batch-size schedule" in plots.batch_size(train(MODEL, store)[1]).texts[0].get_text()
    plt.close("all")
    with pytest.raises(ValueError, match=r"plots.batch_size\(report\) draws those of a run"):
        GrowingBatches().plot()


@pytest.mark.slow
def test_estimators_and_the_command_line_take_text(store, tmp_path):
    model = LogisticRegression(C=0.1, batch_size="exp:32..full", random_state=0).fit(X, Y)
    assert model.training_.batch_size == ExponentialBatches(32)
    run = str(tmp_path / "a.run")
    options = ["--batch-size", "step:32@0,full@2", "--workers", "1", "--out", run]
    done = CliRunner().invoke(
        cli.app, ["train", store, *options, "--dashboard-address", "127.0.0.1:0"]
    )
    assert done.exit_code == 0, done.stderr
    assert "by sgd, then newton, batch size step:32@0,full@2" in done.stderr
    assert load_fitted(run).training.batch_size == BatchSteps(((32, 0), ("full", 2)))


def test_a_lowered_rate_is_handed_on_to_the_next_batch_size():
    case = make_case("squared")
    solver = Phased(batch_schedule("exp:4..16"), Updates(Sgd(), 4, tol=0.0), None)
    rates: list[Any] = []
    for times in (0, 2):
        passes = stream(case.source)
        state = start(solver, case.problem, passes, case.problem.initial())
        for _ in range(times):
            lower = solver.more_careful(case.problem, case.source, state)
            assert lower is not None
            state = lower
        found = []
        for _ in range(4):
            state = from_arrays(to_arrays(advance(solver, case.problem, passes, state)))
            found.append((state.batch_size, state.rate))
        rates.append(found)
    # The rate of the squared loss is constant.
    assert [size for size, _ in rates[0]] == [4, 8, 8, 16]
    assert rates[1] == [(size, pytest.approx(rate / 16)) for size, rate in rates[0]]
