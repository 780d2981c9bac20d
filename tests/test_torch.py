"""Modules of PyTorch: a loop by hand is the reference; what is saved; and what is refused."""

import copy
import json
import os
import re
import signal
import sys
import threading
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal

from ooc_train import (
    Checkpoint,
    Diverged,
    InvalidRun,
    LocalCluster,
    LogisticRegression,
    MissingPackage,
    NonFiniteData,
    Stepped,
    TorchClassifier,
    TorchModule,
    TorchRegressor,
    Training,
    batches,
    evaluate,
    load,
    plan,
    predict,
    train,
)
from ooc_train.core.files import FileKind
from ooc_train.core.sums import Block
from ooc_train.models.model import DataFigures
from ooc_train.models.pytorch import torch_network
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.tensor_file import read_tensors, write_tensors
from ooc_train.solvers.base import advance, from_arrays, start, to_arrays
from ooc_train.solvers.registry import Settings, solver_for
from ooc_train.stream import passes
from tests.streams import Cut, Shuffled, same_bits, stream, write_store
from tests.test_kernels import at_offset

torch: Any = pytest.importorskip("torch")
nn: Any = torch.nn

from tests.torch_nets import CLASSES, FEATURES, Affine, Modes, Net  # noqa: E402 (it needs torch)

pytestmark = pytest.mark.filterwarnings("ignore:.*not converged")

N = 512
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(N, FEATURES)).astype(np.float32)
CODES = (X[:, :CLASSES] + RANDOM.gumbel(size=(N, CLASSES))).argmax(1)
NUMBERS = np.column_stack([np.sin(X[:, 0]) + X[:, 1], X[:, 2] * X[:, 3]])


def of_classes(module=Net, **settings):
    return TorchModule(module, **{"criterion": "CrossEntropyLoss"} | settings)


def seeded(module=Net, *arguments, **settings):
    """A module whose parameters are always the same."""
    torch.manual_seed(7)
    return module(*arguments, **settings)


def by_hand(module, optimizer, size, criterion=None, y=None, epochs=1):
    """The parameters after updates by rows in stored order, in a loop by hand."""
    made, loss = copy.deepcopy(module), criterion or nn.CrossEntropyLoss()
    steps = optimizer(made.parameters())
    targets = torch.from_numpy(CODES if y is None else y)
    for _ in range(epochs):
        for first in range(0, N, size):
            rows = slice(first, first + size)
            steps.zero_grad()
            loss(made(torch.from_numpy(X[rows])), targets[rows]).backward()
            steps.step()
    return {name: value.detach().numpy() for name, value in made.state_dict().items()}


def assert_same(found, due, atol=2e-5):
    assert found.keys() == due.keys()
    for name, array in due.items():
        assert_allclose(found[name], array, atol=atol, err_msg=name)


# What is learned


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        ("Adam", {"lr": 0.01, "amsgrad": True}),
        ("AdamW", {"lr": 0.01, "weight_decay": 0.1}),
        ("RMSprop", {"lr": 0.01}),
        ("Adagrad", {"lr": 0.1}),
        ("NAdam", {"lr": 0.01}),
        ("ASGD", {"lr": 0.1}),
    ],
)
@pytest.mark.parametrize("size", [64, 512])
def test_updates_are_those_of_a_loop_by_hand(name, settings, size):
    module = seeded()
    made = TorchClassifier(
        module, optimizer=name, optimizer_parameters=settings, batch_size=size
    ).partial_fit(X, CODES, classes=range(CLASSES))
    due = by_hand(module, lambda params: getattr(torch.optim, name)(params, **settings), size)
    assert_same(made.state_dict_, due)
    assert made.t_ == N // size
    assert made.report_.solver == name


def test_a_second_call_goes_on_with_what_the_optimizer_kept():
    module = seeded()
    made = TorchClassifier(module, optimizer="Adam", batch_size=64)
    for _ in range(3):
        made.partial_fit(X, CODES, classes=range(CLASSES))
    due = by_hand(module, torch.optim.Adam, 64, epochs=3)
    assert_same(made.state_dict_, due)


@pytest.mark.parametrize(
    ("criterion", "outputs", "y"),
    [
        (nn.MSELoss, 2, NUMBERS),
        (nn.MSELoss(), 1, NUMBERS[:, 0]),
        ("HuberLoss", 2, NUMBERS),
        (lambda out, y: (out - y).abs().mean(), 2, NUMBERS),
        (lambda out, y: ((out - y) ** 2).mean(1), 2, NUMBERS),
    ],
)
def test_numbers_by_any_criterion(criterion, outputs, y):
    module = seeded(Net, 8, outputs)
    made = TorchRegressor(
        module, criterion=criterion, optimizer="SGD", optimizer_parameters={"lr": 0.1},
        batch_size=64,
    ).partial_fit(X, y)  # fmt: skip
    loss = criterion if not isinstance(criterion, str) else getattr(nn, criterion)
    loss = loss() if isinstance(loss, type) else loss
    columns = y.reshape(N, -1).astype(np.float32)
    due = by_hand(
        module,
        lambda params: torch.optim.SGD(params, lr=0.1),
        64,
        lambda out, y: loss(out, y).mean(),
        columns,
    )
    assert_same(made.state_dict_, due)
    with torch.no_grad():
        out = made.module_(torch.from_numpy(X)).numpy()
    assert_allclose(made.predict(X), out if y.ndim == 2 else out[:, 0], atol=1e-6)


@pytest.mark.parametrize("flat", [True, False])
def test_two_classes_by_one_output_or_two(flat):
    y = (X[:, 0] > 0.3).astype(int)
    one = train(
        TorchModule(seeded(Affine, flat=flat), criterion="BCEWithLogitsLoss"),
        X,
        Training(solver="lbfgs", max_iter=60, tol=1e-3),
        y=y,
    )[0]
    two = train(
        of_classes(seeded(Affine, 2)), X, Training(solver="lbfgs", max_iter=60, tol=1e-3), y=y
    )[0]
    for fitted in (one, two):
        metrics, _ = evaluate(fitted, X, y=y)
        assert metrics["accuracy"] > 0.98
        assert fitted.n_outputs == 1
        p = predict(fitted, X, "probability")
        assert_allclose(p.sum(1), 1.0)
        assert_array_equal(p.argmax(1), predict(fitted, X))


def test_lbfgs_finds_the_optimum_of_a_linear_module():
    fitted, report = train(
        of_classes(Affine, module_parameters={"outputs": CLASSES}),
        X.astype(float),
        Training(solver="lbfgs", max_iter=200, tol=1e-6, random_state=0),
        y=CODES,
    )
    due = LogisticRegression(C=1e12, tol=1e-8).fit(X, CODES)
    assert report.loss == pytest.approx(due.report_.loss, abs=1e-6)
    assert_allclose(predict(fitted, X, "probability"), due.predict_proba(X), atol=2e-3)


@pytest.mark.parametrize("batch_size", ["full", 64])
@pytest.mark.parametrize("solver", ["adam", "momentum", "auto"])
def test_optimizers_of_both_kinds_at_any_batch_size(solver, batch_size):
    settings = Training(solver=solver, batch_size=batch_size, max_iter=20, random_state=0, tol=0)
    _, report = train(of_classes(), X, settings, y=CODES)
    assert report.solver == ("Adam" if solver == "auto" else solver)
    assert report.loss < report.history[0].loss
    assert report.updates == report.n_iter * (1 if batch_size == "full" else 8)


@pytest.mark.parametrize("average", [True, False])
def test_weights_count_as_repeated_rows(average):
    weight = RANDOM.integers(0, 3, N)
    rows = np.repeat(np.arange(N), weight)
    settings = Training(batch_size="full", max_iter=5, tol=0)
    model = of_classes(seeded(), optimizer="SGD", average=average)
    weighted, _ = train(model, X, settings, y=CODES, sample_weight=weight.astype(float))
    repeated, _ = train(model, X[rows], settings, y=CODES[rows])
    assert_same(weighted.predictor.arrays, repeated.predictor.arrays)


def test_class_weights_are_those_of_the_criterion():
    module, factors = seeded(), {0: 1.0, 1: 2.5, 2: 0.5}
    settings: dict[str, Any] = {"optimizer": "SGD", "batch_size": 512, "learning_rate": 0.1}
    by_class = TorchClassifier(module, class_weight=factors, **settings)
    by_class.partial_fit(X, CODES, classes=range(CLASSES))
    criterion = nn.CrossEntropyLoss(weight=torch.tensor(list(factors.values())))
    due = by_hand(module, lambda params: torch.optim.SGD(params, lr=0.1), 512, criterion)
    assert_same(by_class.state_dict_, due)


def test_an_average_of_the_parameters_is_less_noisy():
    losses = {}
    for average in (True, False):
        model = of_classes(seeded(), optimizer="SGD", average=average)
        settings = Training(batch_size=2, learning_rate=0.2, max_iter=3, tol=0, random_state=0)
        losses[average] = train(model, X, settings, y=CODES)[1].loss
    assert losses[True] < losses[False]


def test_parameters_that_need_no_gradient_stay():
    module = seeded()
    module.hidden.requires_grad_(False)
    made = TorchClassifier(module, batch_size=64, max_iter=2, tol=0).fit(X, CODES)
    before = module.state_dict()
    assert_array_equal(made.state_dict_["hidden.weight"], before["hidden.weight"])
    assert (made.state_dict_["out.weight"] != before["out.weight"].numpy()).any()


# Rates


def test_a_scheduler_takes_a_step_after_each_epoch():
    made = TorchClassifier(
        Net, optimizer="SGD", optimizer_parameters={"lr": 0.5}, scheduler="MultiStepLR",
        scheduler_parameters={"milestones": [1, 3], "gamma": 0.1}, max_iter=5, tol=0,
    ).fit(X, CODES)  # fmt: skip
    rates = [step.learning_rate or 0.0 for step in made.report_.history]
    assert_allclose(rates, [0.5, 0.05, 0.05, 0.005, 0.005])


def test_schedules_of_ours_change_the_rate_with_each_update():
    made = TorchClassifier(
        Net, optimizer="SGD", learning_rate=0.5, schedule="cosine", batch_size=64, max_iter=4, tol=0
    ).fit(X, CODES)
    rates = [step.learning_rate or 0.0 for step in made.report_.history]
    assert rates[0] < 0.5
    assert (np.diff(rates) < 0).all()


def test_the_rate_of_the_optimizer_is_that_of_the_training():
    made = TorchClassifier(Net, optimizer="AdamW", optimizer_parameters={"lr": 0.02}, max_iter=1)
    assert made.fit(X, CODES).report_.learning_rate == 0.02
    given = TorchClassifier(Net, optimizer="AdamW", learning_rate=0.03, max_iter=1)
    assert given.fit(X, CODES).report_.learning_rate == 0.03


# The same bits, whatever runs


def problem_of(model, source):
    return model.problem(DataFigures(source.n_rows, FEATURES, 1, CLASSES, float(source.n_rows)))


SOURCE = Cut(X, CODES[:, None].astype(float), rows=50)


def test_sums_have_the_same_bits_in_any_order():
    problem = problem_of(of_classes(), SOURCE)
    request = problem.reduction(problem.initial(3)[None])
    due = stream(SOURCE).reduce(request)
    for seed in range(3):
        found = stream(SOURCE, executor=Shuffled(seed), task_groups=1, window=3).reduce(request)
        assert same_bits(found, due)


def test_gradients_are_those_of_finite_differences():
    module = seeded(Net).double()
    problem = problem_of(of_classes(module), SOURCE)
    params = problem.initial()
    block = Block(X[:40].astype(float), CODES[:40, None].astype(float), RANDOM.uniform(0, 2, 40))
    loss, gradient = problem.block_gradient(params, block)
    assert loss == pytest.approx(problem.block_loss(params, block))
    for i in range(len(params)):
        step = 1e-5 * (np.arange(len(params)) == i)
        above, below = (problem.block_loss(params + sign * step, block) for sign in (1, -1))
        assert gradient[i] == pytest.approx((above - below) / 2e-5, abs=1e-6)


@pytest.mark.parametrize("module", [Net, Modes])
@pytest.mark.parametrize("size", [48, 5000])
def test_segments_change_no_bit(module, size, monkeypatch):
    source = Cut(np.tile(X, (12, 1)), np.tile(SOURCE.y, (12, 1)), rows=50)  # type: ignore[arg-type]
    found = []
    for rows in (10**9, 200):
        monkeypatch.setattr(passes, "_FIRST_SEGMENT_ROWS", rows)
        monkeypatch.setattr(passes, "_SEGMENT_SECONDS", 0.0 if rows == 200 else 1.0)
        problem = problem_of(of_classes(module), source)
        settings = Settings(0.0, size, 1e-2)
        solver = solver_for(problem.own_optimizer, settings, problem)
        run = stream(source)
        state = start(solver, problem, run, problem.initial(1))
        for _ in range(2):
            state = advance(solver, problem, run, state)
            # A state may be kept between two passes.
            state = from_arrays(to_arrays(state))
        found.append(state)
    assert_array_equal(found[0].params, found[1].params)
    assert found[0].loss == found[1].loss


@pytest.mark.parametrize("module", [Net, Modes])
def test_a_run_goes_on_from_a_checkpoint_to_the_same_bits(module, tmp_path):
    model = of_classes(module, scheduler="StepLR", scheduler_parameters={"step_size": 2})
    how: dict[str, Any] = {"batch_size": 48, "random_state": 0, "tol": 0}
    due, _ = train(model, X, Training(max_iter=5, **how), y=CODES)
    path = tmp_path / "c"
    train(model, X, Training(max_iter=3, **how), y=CODES, checkpoint=path)
    resumed = Checkpoint(path, resume=True)
    found, report = train(model, X, Training(max_iter=5, **how), y=CODES, checkpoint=resumed)
    assert report.n_iter == 5
    for name, array in due.predictor.arrays.items():
        assert_array_equal(found.predictor.arrays[name], array)


def test_the_seed_gives_the_run_and_leaves_the_callers_generator():
    torch.manual_seed(1)
    due = torch.rand(1)
    torch.manual_seed(1)
    made = [
        TorchClassifier(Modes, batch_size=64, max_iter=2, random_state=seed, tol=0).fit(X, CODES)
        for seed in (0, 0, 1)
    ]
    assert torch.rand(1) == due
    first, second, other = (each.state_dict_["hidden.weight"] for each in made)
    assert_array_equal(first, second)
    assert (first != other).any()


def test_running_means_are_learned_and_dropout_ends_with_training():
    made = TorchClassifier(Modes, batch_size=64, max_iter=3, random_state=0, tol=0).fit(X, CODES)
    assert made.state_dict_["norm.num_batches_tracked"] == 24
    assert (made.state_dict_["norm.running_mean"] != 0).any()
    assert_array_equal(made.predict_proba(X), made.predict_proba(X))
    assert made.report_.loss == pytest.approx(evaluate(made, X, y=CODES)[0]["loss"], rel=1e-5)


def test_replicas_are_averaged(tmp_path):
    store = write_store(
        tmp_path / "a", X, CODES.astype(float), chunk_rows=32, classes=[0, 1, 2], shuffled=0
    )
    made = [
        TorchClassifier(Modes, batch_size=32, replicas=n, max_iter=4, random_state=0, tol=0).fit(
            store
        )
        for n in (1, 2, 2)
    ]
    one, two, again = (each.state_dict_["out.weight"] for each in made)
    assert_array_equal(two, again)
    assert (one != two).any()
    assert made[1].report_.loss < 1.05 * made[0].report_.loss


@pytest.mark.parametrize("settings", [{"batch_size": 32}, {"solver": "lbfgs"}], ids=str)
def test_bits_do_not_depend_on_where_rows_lie(settings):
    # Products of 32 rows by 8 columns differ in their last bits by the place of the rows.
    rows, found = np.tile(X, (1, 2))[:, :8].astype("f4"), []
    training = Training(max_iter=3, tol=0, random_state=0, **settings)
    for offset in range(0, 64, 4):
        model = of_classes(seeded(nn.Linear, 8, 3))
        fitted, _ = train(model, at_offset(rows, offset), training, y=CODES)
        z = predict(fitted, at_offset(rows, offset), "decision")
        found.append((fitted.predictor.arrays["weight"].tobytes(), z.tobytes()))
    assert len(set(found)) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*socket:pytest.PytestUnraisableExceptionWarning"
)
def test_a_cluster_and_a_killed_worker_train_the_same(tmp_path):
    store = write_store(
        tmp_path / "a", X, CODES.astype(float), chunk_rows=32, classes=[0, 1, 2], shuffled=0
    )
    runs = {
        "all rows": (of_classes(seeded()), Training(solver="lbfgs", max_iter=4, tol=0)),
        "batches": (
            of_classes(Modes),
            Training(batch_size=32, replicas=2, max_iter=4, tol=0, random_state=0),
        ),
    }
    due = {name: train(model, store, how)[0] for name, (model, how) in runs.items()}
    free = "127.0.0.1:0"  # a port that no other cluster has
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=free) as cluster,
        cluster.get_client() as client,
    ):
        for name, (model, how) in runs.items():
            pids = list(client.run(os.getpid).values())

            def kill(event, pids=pids):
                if isinstance(event, Stepped) and event.n_iter == 2:
                    os.kill(pids[0], signal.SIGKILL)

            fitted, report = train(model, store, how, callbacks=[kill])
            assert any("ended by SIGKILL" in note for note in report.memory.notes)
            for tensor, array in due[name].predictor.arrays.items():
                assert_array_equal(fitted.predictor.arrays[tensor], array)
        assert_array_equal(predict(fitted, store), predict(fitted, X))


# Validation, images, columns


def test_early_stopping_restores_the_best_parameters():
    made = TorchClassifier(
        Net, module_parameters={"hidden": 64}, optimizer="Adam", learning_rate=0.05, batch_size=16,
        early_stopping=True, validation_fraction=0.3, max_iter=60, random_state=0,
    ).fit(X, CODES)  # fmt: skip
    report = made.report_
    assert "validation" in report.ended
    assert report.best is not None
    assert report.best.n_iter < report.n_iter
    losses = [step.validation_loss or np.inf for step in report.history]
    assert min(losses) == report.best.validation_loss


def test_images_come_in_their_shape(tmp_path):
    images = RANDOM.integers(0, 256, (96, 8, 8)).astype(np.uint8)
    y = (images[:, :4].mean((1, 2)) > images[:, 4:].mean((1, 2))).astype(int)
    group = zarr.open_group(tmp_path / "z", mode="w")
    group.create_array("X", data=images, chunks=(16, 8, 8))
    group.create_array("y", data=y, chunks=(96,))

    class Convolutions(nn.Module):  # type: ignore[misc] # torch has no types here
        def __init__(self):
            super().__init__()
            self.first, self.out = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 2)

        def forward(self, rows):
            assert rows.shape[1:] == (8, 8)
            return self.out(torch.relu(self.first(rows[:, None] / 255.0)).flatten(1))

    made = TorchClassifier(
        Convolutions, batch_size=16, learning_rate=0.02, max_iter=40, random_state=0, tol=0
    ).fit(str(tmp_path / "z"))
    assert made.score(str(tmp_path / "z")) > 0.9
    made.save(tmp_path / "run")
    loaded = load(tmp_path / "run", module=Convolutions)
    assert_array_equal(loaded.predict(str(tmp_path / "z")), made.predict(str(tmp_path / "z")))


def test_columns_are_matched_by_name(tmp_path):
    names, order = list("abcdef"), np.array([3, 0, 5, 1, 2, 4])
    stores = [
        write_store(
            tmp_path / f"{i}", X[:, columns], CODES.astype(float), classes=[0, 1, 2],
            feature_names=[names[k] for k in columns], chunk_rows=64,
        )
        for i, columns in enumerate((np.arange(6), order))
    ]  # fmt: skip
    made = TorchClassifier(Net, batch_size=64, max_iter=2, random_state=0, tol=0)
    made.fit(stores[0], X_val=stores[1])
    due = made.report_.history[-1]
    assert due.validation_loss == pytest.approx(due.loss, rel=1e-6)
    assert_array_equal(made.predict(stores[1]), made.predict(stores[0]))
    turned = made.to_fitted().for_columns(stores[1].feature_names, FEATURES, "the rows")
    turned.save(tmp_path / "run")
    again = load(tmp_path / "run", module=Net)
    assert_array_equal(again.predict(stores[1]), made.predict(stores[0]))


def test_a_start_from_a_fitted_module():
    made = TorchClassifier(Net, batch_size=64, max_iter=2, random_state=0, tol=0).fit(X, CODES)
    settings = Training(batch_size=64, max_iter=1, random_state=0, tol=0, learning_rate=1e-12)
    fitted, _ = train(of_classes(), X, settings, y=CODES, start=made)
    assert_same(fitted.predictor.arrays, made.state_dict_, atol=1e-7)
    with pytest.raises(ValueError, match="give the module that was trained"):
        train(of_classes(Net(5)), X, settings, y=CODES, start=made)
    with pytest.raises(ValueError, match="are those of a linear model"):
        train(of_classes(), X, settings, y=CODES, start=LogisticRegression().fit(X, CODES))


def test_a_thread_for_each_caller():
    made = TorchClassifier(Net, batch_size=64, max_iter=1, random_state=0).fit(X, CODES)
    due, found = made.predict_proba(X), []
    threads = [
        threading.Thread(target=lambda: found.append(made.predict_proba(X))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in found:
        assert_array_equal(each, due)


# Memory


def test_the_plan_counts_activations_and_what_the_optimizer_keeps():
    def held(**settings):
        model = of_classes(
            Net, module_parameters={"hidden": 4000}, **{"optimizer": "SGD"} | settings
        )
        return plan(model, X, Training(batch_size=256), y=CODES).projected

    parameters = 8 * 4000 * (FEATURES + 1 + CLASSES)
    assert held(optimizer="Adam") - held() > 4 * parameters
    problem = problem_of(of_classes(Net, module_parameters={"hidden": 4000}), SOURCE)
    assert problem.block_bytes(100) - problem.block_bytes(10) > 90 * 2 * 4 * 4000
    assert problem.row_bytes < 10 * 4 * 4000


@pytest.mark.alone
@pytest.mark.parametrize("batch_size", [64, "full"])
def test_a_run_holds_no_more_than_is_planned(tmp_path, batch_size):
    rows = np.tile(X, (40, 1))
    store = write_store(
        tmp_path / "a", rows, np.tile(CODES, 40).astype(float), chunk_rows=512, classes=[0, 1, 2]
    )
    model = of_classes(Net, module_parameters={"hidden": 3000})
    _, report = train(model, store, Training(batch_size=batch_size, max_iter=2, tol=0))
    assert report.memory.measured <= report.memory.projected


# Saving


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    made = TorchClassifier(
        Net, module_parameters={"hidden": 5}, optimizer=torch.optim.AdamW, batch_size=64,
        max_iter=2, random_state=0, tol=0,
    ).fit(X, CODES)  # fmt: skip
    path = tmp_path_factory.mktemp("runs") / "run"
    made.save(path)
    return made, path


def test_a_saved_module_predicts_the_same_bits(saved):
    made, path = saved
    loaded = load(path, module=Net)
    assert isinstance(loaded, TorchClassifier)
    assert_array_equal(loaded.predict_proba(X), made.predict_proba(X))
    assert (loaded.module_parameters, loaded.optimizer) == ({"hidden": 5}, "AdamW")
    own = load(path, module=Net(5))
    assert_array_equal(own.predict_proba(X), made.predict_proba(X))
    # Training goes on from it.
    loaded.partial_fit(X[:64], CODES[:64])
    assert loaded.t_ == 1


def test_a_run_without_its_module_is_described_and_does_not_predict(saved):
    _, path = saved
    bare = load(path)
    assert bare.report_.n_iter == 2
    with pytest.raises(ValueError, match=r"is no module; give .* of load\(path, module=\.\.\.\)"):
        bare.predict(X)
    with pytest.raises(InvalidRun, match=r"'hidden.weight' of the shape \(4, 6\).*\(5, 6\)"):
        load(path, module=Net(4))
    with pytest.raises(InvalidRun, match="can't be made of module_parameters"):
        load(path, module=Affine)


def test_a_run_of_another_kind_takes_no_module(tmp_path):
    LogisticRegression().fit(X, CODES).save(tmp_path / "run")
    with pytest.raises(InvalidRun, match="needs no module; leave it out"):
        load(tmp_path / "run", module=Net)


def test_the_file_is_one_of_safetensors(saved):
    made, path = saved
    blob = (path / "parameters.safetensors").read_bytes()
    length = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + length])
    assert header["hidden.weight"]["dtype"] == "F32"
    first, last = header["hidden.weight"]["data_offsets"]
    values = np.frombuffer(blob[8 + length :][first:last], "<f4").reshape(5, 6)
    assert_array_equal(values, made.state_dict_["hidden.weight"])
    assert header["__metadata__"]["format"] == "pt"


KIND = FileKind("parameters", 2**40, InvalidRun, "train again")


def test_tensors_of_all_types_come_back(tmp_path):
    tensors = {
        f"a {i}": np.arange(6).reshape(2, 3).astype(dtype)
        for i, dtype in enumerate(["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?"])
    } | {"number": np.array(3), "nothing": np.empty((0, 4))}
    write_tensors(tmp_path / "t", tensors, {"a": "b"})
    found, text = read_tensors(tmp_path / "t", KIND)
    assert text == {"a": "b"}
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        assert_array_equal(found[name], array)
    with pytest.raises(ValueError, match="holds complex128"):
        write_tensors(tmp_path / "c", {"z": np.ones(1, complex)}, {})


def changed(header, **entry):
    return header | {"w": header["w"] | entry}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h: changed(h, data_offsets=[0, 20]), "needs 24 bytes"),
        (lambda h: changed(h, shape=[2**40, 2**40]), "needs .* bytes and lies"),
        (lambda h: changed(h, shape=[-2, 3]), "no whole number"),
        (lambda h: changed(h, dtype="F31"), "of the type 'F31'"),
        (lambda h: changed(h, data_offsets=[8, 32]), "begins at 8"),
        (lambda h: h | {"v": h["w"]}, "begins at 0, and the one before ends at 24"),
        (lambda _: {}, "its header describes"),
        (lambda h: h | {"__metadata__": {"a": 1}}, "is 1, which is no text"),
        (lambda h: h | {"__metadata__": []}, "__metadata__ is"),
        (lambda h: h | {"v": 3}, "v is 3"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, change, said):
    write_tensors(tmp_path / "t", {"w": np.ones((2, 3), np.float32)}, {})
    blob = (tmp_path / "t").read_bytes()
    length = int.from_bytes(blob[:8], "little")
    header = json.dumps(change(json.loads(blob[8 : 8 + length]))).encode()
    (tmp_path / "t").write_bytes(len(header).to_bytes(8, "little") + header + blob[8 + length :])
    with pytest.raises(InvalidRun, match=said):
        read_tensors(tmp_path / "t", KIND)


def test_no_cut_and_no_flipped_byte_of_the_header_is_read_as_whole(tmp_path):
    write_tensors(tmp_path / "t", {"w": np.ones((2, 3), np.float32)}, {"a": "b"})
    blob = (tmp_path / "t").read_bytes()
    for end in range(len(blob)):
        (tmp_path / "t").write_bytes(blob[:end])
        with pytest.raises(InvalidRun):
            read_tensors(tmp_path / "t", KIND)
    for claim in (0, 2**27, 2**63, len(blob)):
        (tmp_path / "t").write_bytes(claim.to_bytes(8, "little") + blob[8:])
        with pytest.raises(InvalidRun, match="its header claims"):
            read_tensors(tmp_path / "t", KIND)


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"w": np.array([np.nan])}, {}),
        ({}, {"ooc_train": "{}"}),
        ({}, {"ooc_train": "[]"}),
        ({}, {}),
    ],
)
def test_a_run_with_damaged_numbers_is_refused(saved, tmp_path, tensors, text):
    made, _ = saved
    made.save(tmp_path / "run")
    file = tmp_path / "run" / "parameters.safetensors"
    kept, about = read_tensors(file, KIND)
    file.unlink()
    write_tensors(file, kept | tensors, text or (about if tensors else {}))
    with pytest.raises(InvalidRun, match="is damaged"):
        load(tmp_path / "run")


# What is refused


class Wrong(Net):
    """Returns another shape."""

    def forward(self, rows):
        return self.out(torch.tanh(self.hidden(rows)))[:, :1]


def one_number(out, y):
    return nn.functional.cross_entropy(out, y)


NOT_A_LOSS: dict[str, Any] = {"classifier": True}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: of_classes(None), "module=None is no module"),
        (lambda: of_classes("Net"), "module='Net' is no module"),
        (lambda: of_classes(nn.Flatten), "has no parameters to learn"),
        (lambda: of_classes(lambda: 3), "makes a int, and no torch.nn.Module"),
        (lambda: of_classes(Net, module_parameters={"size": 3}), r"can't be made of .*'size'"),
        (lambda: of_classes(seeded(), module_parameters={"hidden": 3}), "leave them out"),
        (lambda: of_classes(nn.LazyLinear, module_parameters={"out_features": 3}), "lazy layers"),
        (lambda: of_classes(seeded().half()), r"torch.float16; use float32"),
        (lambda: of_classes(Wrong), r"returns \(4, 1\) for rows \(4, 6\) and 3 classes.*\(4, 3\)"),
        (lambda: of_classes(Net, module_parameters={"outputs": 4}), r"returns \(4, 4\)"),
        (lambda: of_classes(Net, module_parameters={"features": 9}), "fails for rows .*shapes"),
        (lambda: of_classes(criterion="CrossEntropy"), "is the name of no class of torch.nn"),
        (lambda: of_classes(criterion=lambda out, _: out[:2], **NOT_A_LOSS), r"returns \(2, 3\)"),
        (lambda: of_classes(criterion=lambda *_: 1.0, **NOT_A_LOSS), "criterion returns 1.0"),
        (
            lambda: of_classes(criterion=lambda out, _: out.detach().mean(), **NOT_A_LOSS),
            "fails for rows .*does not require grad",
        ),
        (lambda: of_classes(criterion=nn.CrossEntropyLoss(reduction="sum")), "reduction='sum'"),
        (
            lambda: of_classes(criterion=nn.CrossEntropyLoss(weight=torch.ones(3))),
            "give class_weight",
        ),
        (lambda: of_classes(criterion="BCELoss", classifier=True), "BCEWithLogitsLoss"),
        (lambda: of_classes(optimizer="Adams"), "no class of torch.optim"),
        (lambda: of_classes(optimizer="LBFGS"), "takes no step by the gradient alone"),
        (lambda: of_classes(optimizer=Net), "is no optimizer|can't be made"),
        (
            lambda: of_classes(optimizer="Adam", optimizer_parameters={"rate": 1}),
            "can't be made of optimizer_parameters",
        ),
        (lambda: of_classes(scheduler="ReduceLROnPlateau"), "schedule='plateau' follows that"),
        (lambda: of_classes(scheduler_parameters={"gamma": 1}), "give one"),
        (lambda: of_classes(device="tpu9"), "device='tpu9' can't be used here"),
        (lambda: of_classes(device="a b"), "device='a b' is not 'auto' or the name"),
        (lambda: of_classes(module_parameters=[1]), "is not None or a mapping"),
        (lambda: of_classes(3), "module=3 is not None or a subclass"),
        (lambda: TorchModule(Net, class_weight="balanced"), "this model has none"),
    ],
)
def test_parts_that_cannot_be_used_are_named_before_any_row_is_read(model, said):
    with pytest.raises(ValueError, match=re.compile(said, re.DOTALL)):
        train(model(), np.full_like(X, np.nan), Training(batch_size=64), y=CODES)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (lambda: nn.Dropout(0.1), True),
        (lambda: nn.Dropout(0.0), False),
        (lambda: nn.BatchNorm1d(3), True),
        (lambda: nn.LayerNorm(3), False),
        (lambda: nn.LSTM(3, 3, 2, dropout=0.2), True),
        (lambda: nn.LSTM(3, 3), False),
        (lambda: nn.MultiheadAttention(4, 2, dropout=0.1), True),
    ],
)
def test_layers_that_depend_on_the_batch_are_known(layer, said):
    module = seeded()
    module.further = layer()
    assert ("gradient" in problem_of(of_classes(module), SOURCE).can) is not said


def test_settings_that_do_not_go_together():
    with pytest.raises(ValueError, match="leave one of them out"):
        train(of_classes(optimizer="SGD"), X, Training(solver="lbfgs"), y=CODES)
    for solver in ("lbfgs", "adam"):
        with pytest.raises(ValueError, match=r"no dropout|evaluation mode"):
            train(
                of_classes(Modes),
                X,
                Training(solver=solver, batch_size="full" if solver == "lbfgs" else 64),
                y=CODES,
            )
    with pytest.raises(ValueError, match="one batch has all of the 512 rows"):
        train(of_classes(Modes), X, Training(batch_size="full"), y=CODES)
    with pytest.raises(ValueError, match="rows have weights, and the criterion returns one"):
        train(
            of_classes(criterion=one_number, classifier=True),
            X,
            Training(batch_size=64),
            y=CODES,
            sample_weight=np.ones(N),
        )


@pytest.mark.parametrize("batch_size", [64, "full"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_named(batch_size, bad):
    rows = X.copy()
    rows[77, 4] = bad
    with pytest.raises(NonFiniteData, match=r"row 77 has .* in column 4 of X"):
        train(of_classes(), rows, Training(batch_size=batch_size), y=CODES)
    fitted, _ = train(of_classes(), X, Training(batch_size=64, max_iter=1), y=CODES)
    with pytest.raises(NonFiniteData, match=r"row 77 has .* in column 4 of X"):
        predict(fitted, rows)


class Roots(Affine):
    """A root of numbers below zero."""

    def forward(self, rows):
        return torch.sqrt(self.out(rows) * 1e3 + 1.0)


@pytest.mark.parametrize("batch_size", [64, "full"])
def test_a_loss_that_is_no_number_is_told(batch_size):
    with pytest.raises(Diverged, match=r"no number|went from|not finite"):
        train(
            TorchModule(Roots, optimizer="SGD"),
            X,
            Training(batch_size=batch_size, learning_rate=0.1, random_state=0),
            y=NUMBERS[:, 0],
        )


def test_a_rate_that_is_too_large_is_told_or_lowered():
    model = TorchModule(Net, module_parameters={"outputs": 1}, optimizer="SGD")
    y = 1e3 * NUMBERS[:, 0]
    with pytest.raises(Diverged, match="learning rate"):
        train(model, X, Training(batch_size=64, learning_rate=100.0), y=y)
    _, report = train(
        TorchModule(
            Net,
            module_parameters={"outputs": 1},
            optimizer="SGD",
            optimizer_parameters={"lr": 100.0},
        ),
        X,
        Training(batch_size=64, max_iter=3, random_state=0, tol=0),
        y=y,
    )
    assert (report.learning_rate or np.inf) < 100.0
    assert any("too large" in note for note in report.notes)


def test_a_fitted_module_is_described():
    fitted, _ = train(of_classes(), X, Training(batch_size=64, max_iter=1), y=CODES)
    assert isinstance(fitted, Fitted)
    settings = fitted.model.settings()
    assert settings["module"].endswith("torch_nets:Net")
    assert settings["criterion"] == "CrossEntropyLoss"
    assert json.loads(json.dumps(settings)) == settings


def test_the_number_of_threads_is_restored_in_every_thread_that_had_a_limit():
    before, seen = torch.get_num_threads(), dict[str, list[int]]()
    torch.set_num_threads(3)
    inside, leave = threading.Barrier(2), {"first": threading.Event(), "last": threading.Event()}
    left = threading.Event()

    def compute(name):
        with torch_network.one_thread():
            inside.wait(10)
            seen[name] = [torch.get_num_threads()]
            leave[name].wait(10)
        left.set()
        # The one that left first is limited until no thread computes under the limit.
        leave["last"].wait(10)
        threads["last"].join(10) if name == "first" else None
        torch_network.restore_threads()
        seen[name].append(torch.get_num_threads())

    threads = {name: threading.Thread(target=compute, args=(name,)) for name in leave}
    try:
        for thread in threads.values():
            thread.start()
        leave["first"].set()
        left.wait(10)
        leave["last"].set()
        for thread in threads.values():
            thread.join(10)
        assert seen == {"first": [1, 3], "last": [1, 3]}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_without_pytorch_the_error_says_what_to_install(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if "torch_" in name or "batch_dataset" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackage, match=r"PyTorch need .* pip install torch$"):
        TorchClassifier(Net).fit(X, CODES)
    write_store(tmp_path / "a.zarr", X, CODES)
    with pytest.raises(MissingPackage, match=r"pip install torch$"):
        batches(tmp_path / "a.zarr", 4).dataset()
