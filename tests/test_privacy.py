"""Differentially private updates: clipping by a plain loop, noise, budget, and what is refused."""

import json
import math
import sys
from dataclasses import replace
from typing import Any

import dask.array
import numpy as np
import pytest
from sklearn.base import clone
from typer.testing import CliRunner

import ooc_train
from ooc_train import (
    DifferentiallyPrivate,
    LogisticRegression,
    MLPClassifier,
    Ridge,
    SGDClassifier,
    calibrate,
    cli,
)
from ooc_train.core.sums import Block
from ooc_train.core.thread_team import ThreadTeam
from ooc_train.errors import MissingPackage, NonFiniteData
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.clipped_updates import _TAG, ClippedUpdates
from ooc_train.models.model import DataFigures
from ooc_train.models.network_models import MLPClassifierModel, MLPRegressorModel
from ooc_train.models.regression_models import RidgeModel
from ooc_train.monitoring.run_page import run_page
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.scaling import Scaling
from ooc_train.optimizers.adam import Adam
from ooc_train.optimizers.momentum import Momentum
from ooc_train.optimizers.schedules import Constant
from ooc_train.optimizers.sgd import Sgd
from ooc_train.runs.events import Event
from ooc_train.solvers.privacy_budget import _epsilon, privacy_budget
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.checkpoints import Checkpoint
from ooc_train.training.loop import train
from tests.streams import make_case, write_store
from tests.test_held import SMALL, held_by

PRIVATE = DifferentiallyPrivate(1.0, 0.7)
BY_64: dict[str, Any] = {"batch_size": 64, "learning_rate": 0.1, "max_iter": 2, "random_state": 5}


def data(rows=1500, features=4):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, features))
    return X, (X @ rng.normal(size=features) + rng.logistic(size=rows) > 0).astype(int)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(
    ("loss", "outputs"), [("logistic", 1), ("multinomial", 3), ("squared", 2), ("hinge", 1)]
)
def test_rows_are_clipped_as_by_a_plain_loop(loss, outputs, fit_intercept):
    case = make_case(loss, outputs, rows=400, weighted=False)
    scaling = Scaling.constant(0.8, case.problem.n_features)
    problem = replace(case.problem, fit_intercept=fit_intercept, scaling=scaling)
    X, y = case.source.X, case.y
    eta, size, most, seed = 0.3, 50, 2.0 if loss == "squared" else 0.8, 7
    updates = problem.updates("<f8", size, Sgd(), Constant(), eta, math.inf)
    scan = ClippedUpdates(problem, updates, "<f8", size, size / len(X), most, 0.0, seed)
    theta = 0.1 * np.random.default_rng(2).normal(size=problem.shape)
    theta[:, -1] *= fit_intercept
    state = scan.start(theta)
    workspace = {n: np.empty(spec.shape) for n, spec in scan.workspace(len(X)).items()}
    with scan.learner(state, workspace) as learn:
        learn(Block(X, y, None), np.arange(len(X)))
    clipped, total = 0, 0
    for update in range(8):
        rng = np.random.default_rng((seed, update, _TAG))
        taken = rng.choice(
            len(X), rng.binomial(len(X), size / len(X)), replace=False, shuffle=False
        )
        gradient = np.zeros_like(theta)
        for i in taken:
            row = np.append(0.8 * X[i], 1.0 if fit_intercept else 0.0)
            due = problem.loss.targets(y[i : i + 1], outputs)
            slope = problem.loss.slope(due, (theta @ row)[None])[0]
            own = np.outer(slope, row)
            norm = np.linalg.norm(own)
            clipped += int(norm > most)
            gradient += own * min(1.0, most / norm) if norm > 0 else own
        total += len(taken)
        gradient = gradient / size + problem.theta_penalty.gradient(theta) / problem.total_weight
        gradient[:, -1] *= fit_intercept
        theta = theta - eta * gradient
    assert 0.1 * total < clipped < total
    assert state["theta"] == pytest.approx(theta, rel=1e-12, abs=1e-14)
    assert state["counters"].tolist() == [0, 8, total]


def clipped_sum(problem, params, X, y, most, batch_size=40, threads=1):
    """Return the sum of the clipped gradients of all rows, by the kernels."""
    clipping = problem.clipping(X.dtype.str, batch_size, most)
    arrays = {name: np.empty(spec.shape, spec.dtype) for name, spec in clipping.workspace().items()}
    out = np.zeros(problem.shape)
    with ThreadTeam(threads) as team:
        clipping.add(params, Block(X, y, None), np.arange(len(X)), arrays, team, out)
    return out


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("n_classes", [0, 2, 3])
def test_rows_of_networks_are_clipped_as_by_a_plain_loop(n_classes, activation):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(40, 5))
    y = rng.normal(size=(40, 2)) if n_classes == 0 else np.arange(40.0)[:, None] % n_classes
    kind: Any = MLPRegressorModel if n_classes == 0 else MLPClassifierModel
    model = kind(hidden_layer_sizes=(6, 4), activation=activation)
    targets = 2 if n_classes == 0 else 1
    problem = model.problem(DataFigures(40, 5, targets, n_classes, 40.0, seed=3))
    problem = replace(problem, frozen_layers=1)
    params, most = 2.0 * problem.initial(3), 1.5
    due, clipped = np.zeros_like(params), 0
    for i in range(40):
        _, own = problem.block_gradient(params, Block(X[i : i + 1], y[i : i + 1], None))
        norm = np.linalg.norm(own)
        clipped += int(norm > most)
        due += own * min(1.0, most / norm)
    assert 4 < clipped < 40
    assert clipped_sum(problem, params, X, y, most) == pytest.approx(due, rel=1e-9, abs=1e-12)
    assert not due[: problem.n_frozen].any()
    assert due[problem.n_frozen :].any()


def test_clipped_sums_of_networks_depend_on_no_threads_and_hardly_on_the_type_of_x():
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(700, 30)), np.arange(700.0)[:, None] % 3
    model = MLPClassifierModel(hidden_layer_sizes=(16, 8))
    problem = model.problem(DataFigures(700, 30, 1, 3, 700.0, seed=3))
    params, most = 2.0 * problem.initial(3), 1.0
    due = clipped_sum(problem, params, X, y, most, batch_size=600)
    for threads in (2, 3):
        found = clipped_sum(problem, params, X, y, most, batch_size=600, threads=threads)
        assert (found == due).all()
    narrow = X.astype(np.float32)
    found = clipped_sum(problem, params, narrow, y, most, batch_size=600)
    assert np.linalg.norm(found - due) < 1e-5 * np.linalg.norm(due)
    of_one = [clipped_sum(problem, params, narrow[i : i + 1], y[i : i + 1], most) for i in range(9)]
    norms = np.linalg.norm(of_one, axis=1)
    assert most * (1 - 1e-6) < norms.max() < most * (1 + 1e-6)


def test_a_factor_of_all_columns_is_applied_before_rows_are_clipped():
    X, y = data()
    given: dict[str, Any] = {"solver": PRIVATE, "C": 10.0, **BY_64}
    due = LogisticRegression(**given).fit(X, y)
    found = LogisticRegression(scale=1 / 255, **given).fit(255.0 * X, y)
    assert 255.0 * found.coef_ == pytest.approx(due.coef_, rel=1e-9)
    assert found.intercept_ == pytest.approx(due.intercept_, rel=1e-9)
    assert (found.predict(255.0 * X) == due.predict(X)).all()
    other = LogisticRegression(scale=1 / 25, **given).fit(255.0 * X, y)
    assert 25.0 * other.coef_ != pytest.approx(due.coef_, rel=0.1)


@pytest.mark.slow
def test_a_private_network_learns():
    X, _ = data(20_000)
    y = (X[:, 0] * X[:, 1] > 0).astype(int)  # which no linear model can tell
    settings: dict[str, Any] = {"batch_size": 500, "max_iter": 20, "learning_rate": 0.02}
    private = DifferentiallyPrivate(0.8, 1.0, "adam")
    models = [
        MLPClassifier((16,), solver=private, random_state=0, **settings).fit(X, y) for _ in range(2)
    ]
    assert models[0].score(X, y) > 0.85
    assert models[0].report_.privacy is not None
    assert 0.0 < models[0].report_.privacy["epsilon"] < 10.0
    pairs = zip(models[0].coefs_, models[1].coefs_, strict=True)
    assert all((a == b).all() for a, b in pairs)


def test_noise_has_its_deviation_and_is_new_in_each_update():
    X, y = np.zeros((2000, 300)), np.arange(2000) % 2
    model, training = LogisticModel(fit_intercept=False, C=math.inf), Training(**BY_64)
    private = DifferentiallyPrivate(3.0, 0.5)
    seen = []

    def keep(event):
        if isinstance(event, ooc_train.Learned):
            seen.append(event.fitted().coef[0])

    keep.takes_models = True  # type: ignore[attr-defined]
    training = replace(training, solver=private, max_iter=8)
    fitted, report = train(model, read_inputs(X, y, classifier=True), training, callbacks=(keep,))
    assert report.updates == 8 * 31
    # The average with weights that grow with the third power of the update's number.
    weights = np.arange(1, report.updates + 1) ** 3.0
    of_noise = np.cumsum((weights / weights.sum())[::-1])[::-1]
    deviation = 0.1 * 3.0 * 0.5 / 64 * np.sqrt((of_noise**2).sum())
    assert fitted.coef.std() == pytest.approx(deviation, rel=0.15)
    assert abs(np.corrcoef(seen[0], seen[1] - seen[0])[0, 1]) < 0.5


def test_a_private_model_learns_and_its_bits_are_those_of_the_seed():
    X, y = data(20_000)
    settings = BY_64 | {"batch_size": 500, "max_iter": 6, "learning_rate": 1.0}
    models = [
        LogisticRegression(solver=PRIVATE, **settings, memory_ceiling=ceiling).fit(X, y)
        for ceiling in ("400MiB", "2GiB")
    ]
    assert (models[0].coef_ == models[1].coef_).all()
    assert models[0].score(X, y) > LogisticRegression().fit(X, y).score(X, y) - 0.01
    other = LogisticRegression(solver=PRIVATE, **settings | {"random_state": 6}).fit(X, y)
    assert (other.coef_ != models[0].coef_).all()
    adam = DifferentiallyPrivate(1.0, 0.7, "adam")
    found = SGDClassifier("log_loss", solver=adam, **settings | {"learning_rate": 0.05}).fit(X, y)
    assert found.score(X, y) > models[0].score(X, y) - 0.02


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path):
    X, y = data()
    inputs, training = read_inputs(X, y, classifier=True), Training(solver=PRIVATE, **BY_64)
    whole, report = train(LogisticModel(), inputs, training)

    def stop(event):
        if isinstance(event, ooc_train.Stepped):
            raise ooc_train.Stop

    place = tmp_path / "a.checkpoint"
    _, part = train(LogisticModel(), inputs, training, callbacks=(stop,), checkpoint=place)
    resumed, again = train(
        LogisticModel(), inputs, training, checkpoint=Checkpoint(place, resume=True)
    )
    assert (resumed.coef == whole.coef).all()
    assert again.privacy == report.privacy
    assert part.privacy is not None
    assert again.privacy is not None
    assert part.privacy["updates_of_a_row"] == again.privacy["updates_of_a_row"] / 2
    # A seed that was drawn goes on too, though no report has it.
    drawn = replace(training, random_state=None)
    place = tmp_path / "b.checkpoint"
    _, first = train(LogisticModel(), inputs, drawn, callbacks=(stop,), checkpoint=place)
    _, second = train(LogisticModel(), inputs, drawn, checkpoint=Checkpoint(place, resume=True))
    assert first.random_state is second.random_state is None
    assert (first.n_iter, second.n_iter) == (1, 2)


def renyi(q, noise, orders=range(2, 257)):
    """Divergences of a Poisson-sampled Gaussian of whole orders (Mironov et al. 2019, eq. 9)."""
    found = []
    for a in orders:
        terms = [
            math.lgamma(a + 1) - math.lgamma(k + 1) - math.lgamma(a - k + 1)
            + k * math.log(q) + (a - k) * math.log1p(-q) + k * (k - 1) / (2 * noise**2)
            for k in range(a + 1)
        ]  # fmt: skip
        found.append(np.logaddexp.reduce(terms) / (a - 1))
    return np.array(orders), np.array(found)


@pytest.mark.parametrize(
    ("noise", "epochs", "published"), [(1.12, 60, 2.92), (0.6, 30, 9.74), (1.2, 10, 1.20)]
)
def test_epsilon_is_that_of_published_runs(noise, epochs, published):
    # tutorials/README.md of TensorFlow Privacy: 60,000 rows in batches of 256, delta 1e-5.
    q, updates, delta = 256 / 60_000, epochs * 60_000 // 256, 1e-5
    orders, divergences = renyi(q, noise)
    divergences = updates * divergences
    classical = (divergences + math.log(1 / delta) / (orders - 1)).min()
    assert classical == pytest.approx(published, rel=0.005)
    # Later conversions from Renyi divergences give less (Canonne et al. 2020).
    better = divergences + np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)
    found = privacy_budget(DifferentiallyPrivate(noise, 1.0, delta=delta), 60_000, q, updates)
    assert found["epsilon"] == pytest.approx(better.min(), rel=0.02)
    assert found["epsilon"] < published


def test_the_accountant_is_quiet_and_knows_batches_of_all_rows(caplog):
    found = privacy_budget(DifferentiallyPrivate(1.0, 1.0), 2000, 0.1, 71)
    assert found["epsilon"] > 1.0
    assert not caplog.records
    # Without sampling it is the Gaussian mechanism, of the Renyi divergence a / (2 sigma^2).
    found = privacy_budget(DifferentiallyPrivate(4.0, 1.0, delta=1e-5), 2000, 1.0, 3)
    orders = np.linspace(1.01, 100.0, 100_000)
    divergences = 3 * orders / (2 * 4.0**2)
    due = divergences + np.log1p(-1 / orders) - np.log(1e-5 * orders) / (orders - 1)
    assert found["epsilon"] == pytest.approx(due.min(), rel=0.01)


def test_the_budget_is_of_the_groups_that_batches_are_sampled_from(tmp_path):
    X, y = data(1000)
    store = write_store(tmp_path / "s.zarr", X, y.astype(float), chunk_rows=100)
    budgets = []
    for chunks, share, updates in ((2, 0.25, 4), (10, 0.05, 20), ("auto", 0.05, 20)):
        training = Training(solver=PRIVATE, shuffle_chunks=chunks, **BY_64 | {"batch_size": 50})
        _, report = train(LogisticModel(), store, training)
        assert report.updates == 2 * 20
        found = report.privacy
        assert found is not None
        assert found["sampling_probability"] == share
        assert found["updates_of_a_row"] == 2 * updates
        assert found["delta"] == 1e-4
        budgets.append(found["epsilon"])
    assert budgets[0] > budgets[1] == budgets[2]
    with pytest.raises(ValueError, match="more than the 100 rows of shuffle_chunks=1"):
        train(LogisticModel(), store, replace(training, batch_size=200, shuffle_chunks=1))


@pytest.mark.slow
def test_nothing_but_noisy_sums_is_told(tmp_path):
    X, y = data()
    seed = 987_654_321
    model = LogisticRegression(solver=PRIVATE, **BY_64 | {"random_state": seed}).fit(X, y)
    model.save(tmp_path / "run")
    for file in ("model.json", "card.md"):
        text = (tmp_path / "run" / file).read_text()
        assert str(seed) not in text
        assert "digest" not in text
    saved = json.loads((tmp_path / "run" / "model.json").read_text())
    assert math.isnan(saved["report"]["loss"])
    assert saved["report"]["random_state"] is saved["training"]["random_state"] is None
    events: list[Any] = []

    def listen(event: Event) -> None:
        events.append(event)

    seeded = replace(model.training_, random_state=seed)
    train(model.model_, X, seeded, y=y, callbacks=[listen])
    assert str(seed) not in "".join(map(str, events))
    report = model.report_
    assert report.within == ()
    assert all(math.isnan(step.loss) and step.gradient_norm is None for step in report.history)
    assert report.passes == 2
    assert dict(report.figures())["privacy"] == report.privacy_text
    assert report.privacy is not None
    assert report.privacy_text.startswith("epsilon ")
    assert f"| epsilon | {report.privacy['epsilon']} |" in text
    assert "withheld" in run_page(model.to_fitted(), "run")
    loaded = ooc_train.load(tmp_path / "run")
    assert (loaded.predict(X) == model.predict(X)).all()
    assert loaded.report_.privacy == report.privacy
    assert loaded.solver == PRIVATE
    # Units of a column decide what is clipped, since no statistic of the rows scales it.
    plain = LogisticRegression(solver=replace(PRIVATE, noise_multiplier=0.1), **BY_64)
    wide, narrow = (clone(plain).fit(factor * X, y) for factor in (1e3, 1e-3))
    assert abs(wide.coef_).max() > 2 * abs(narrow.coef_).max()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": "full"}, "batch_size='full' .* use a number of rows"),
        ({"batch_size": "exp:32..full"}, "batch_size='exp.* use a number of rows"),
        ({"learning_rate": "auto"}, "found by the training rows; use a number"),
        ({"learning_rate": "plateau:0.1"}, "follows losses"),
        ({"replicas": 2}, "replicas=2 .* leave it out"),
        ({"target_loss": 0.1}, "would decide when the run ends"),
        ({"validation_fraction": 0.1}, "pass rows that may be known"),
    ],
)
def test_settings_that_tell_more_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Training(solver=PRIVATE, **BY_64 | settings)


def test_models_and_rows_that_tell_more_are_refused():
    X, y = data()
    for other, said in (
        (LogisticRegression(class_weight="balanced"), "class_weight with differential privacy"),
        (LogisticRegression(standardize=True), "standardize with differential privacy"),
        (ooc_train.PoissonRegressor(), "needs gradients of rows .no log link"),
        (MLPClassifier((3,), dropout=0.5), "needs gradients of rows .* no dropout"),
        (MLPClassifier((3,), standardize=True), "standardize with differential"),
    ):
        with pytest.raises(ValueError, match=said):
            other.set_params(solver=PRIVATE, **BY_64).fit(X, y)
    model = LogisticRegression(solver=PRIVATE, **BY_64)
    with pytest.raises(ValueError, match="a row of a larger weight"):
        model.fit(X, y, np.ones(len(X)))
    with pytest.raises(ValueError, match="partial_fit has some of them only; use fit"):
        model.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="private updates start from zero"):
        model.set_params(warm_start=True).fit(X, y).fit(X, y)
    with pytest.raises(ValueError, match="is not below one over the 1,500 rows"):
        model.set_params(solver=replace(PRIVATE, delta=1e-3), warm_start=False).fit(X, y)
    X[:, 1] = np.nan
    with pytest.raises(NonFiniteData, match="nan in column 1"):
        model.set_params(solver=PRIVATE).fit(dask.array.from_array(X), dask.array.from_array(y))


def test_a_missing_accountant_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    _epsilon.cache_clear()
    with pytest.raises(MissingPackage, match=r"pip install dp-accounting"):
        LogisticRegression(solver=PRIVATE, **BY_64).fit(*data())


def test_the_setting_is_text_and_json():
    training = Training(solver="private:noise_multiplier=1,max_grad_norm=0.7", **BY_64)
    assert training.solver == PRIVATE
    by_momentum = DifferentiallyPrivate(1.0, 1.0, Momentum(momentum=0.8, nesterov=True))
    assert by_momentum.steps_by == Momentum(momentum=0.8, nesterov=True)
    for solver in (PRIVATE, by_momentum):
        settings = json.loads(json.dumps(replace(training, solver=solver).settings()))
        assert Training(**settings).solver == solver
    text = "private:noise_multiplier=1,max_grad_norm=1,optimizer="
    by_adam = Training(solver=f"{text}adam:beta1=0.8", **BY_64)
    assert by_adam.solver == DifferentiallyPrivate(1.0, 1.0, "adam:beta1=0.8")
    assert by_adam.solver.steps_by == Adam(beta1=0.8)
    with pytest.raises(ValueError, match="'newton' is not one of sgd"):
        Training(solver=f"{text}newton", **BY_64)
    for arguments, said in (
        ((0.0, 1.0), "noise_multiplier=0.0"),
        ((1.0, math.inf), "max_grad_norm=inf"),
        ((1.0, 1.0, "newton"), "'newton' is not one of sgd"),
        ((1.0, 1.0, "sgd", 1.0), "delta=1.0"),
    ):
        with pytest.raises(ValueError, match=said):
            DifferentiallyPrivate(*arguments)


def test_the_budget_covers_no_calibration(tmp_path):
    X, y = data()
    model = LogisticRegression(solver=PRIVATE, **BY_64).fit(X, y)
    once, _ = calibrate(model, X, y=y)
    twice, _ = calibrate(once, X, y=y)
    assert [("calibration" in note) for note in twice.report["notes"]].count(True) == 1
    twice.save(tmp_path / "run")
    card = (tmp_path / "run" / "card.md").read_text(encoding="utf-8")
    assert "the calibration depends on its validation rows, which the budget" in card
    assert "| solver | private:noise\\_multiplier=1.0,max\\_grad\\_norm=0.7,optimizer=sgd," in card


@pytest.mark.slow
def test_private_updates_hold_no_more_than_their_terms():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 60_000)).astype(np.float32), np.arange(300) % 2
    inputs = read_inputs(X, y, classifier=True)
    training = Training(solver=PRIVATE, **BY_64)
    train(LogisticModel(), read_inputs(X[:, :5], y, classifier=True), training)  # imports
    (_, report), peak = held_by(lambda: train(LogisticModel(), inputs, training))
    terms = report.memory.terms
    counted = sum(terms[name] for name in ("buffers", "sums", "parameters", "shared"))
    assert peak <= counted + SMALL


def test_regressions_are_private_too():
    X, _ = data(5000)
    y = X @ [1.0, -1.0, 0.5, 0.0]
    private = DifferentiallyPrivate(1.0, 5.0)
    model = Ridge(alpha=1e-3, solver=private, **BY_64 | {"max_iter": 10}).fit(X, y)
    assert model.score(X, y) > 0.95
    assert isinstance(model.model_, RidgeModel)
    assert Logistic().bound == 0.25


@pytest.mark.slow
def test_private_networks_hold_no_more_than_their_terms():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(3000, 700)).astype(np.float32), np.arange(3000) % 3
    model = MLPClassifierModel(hidden_layer_sizes=(300, 200), activation="gelu")
    training = Training(solver=replace(PRIVATE, optimizer="adam"), **BY_64 | {"batch_size": 1500})
    inputs = read_inputs(X, y, classifier=True)
    (_, report), peak = held_by(lambda: train(model, inputs, training))
    terms = report.memory.terms
    counted = sum(terms[name] for name in ("buffers", "sums", "parameters", "shared"))
    assert peak <= counted + SMALL
    assert counted <= 4 * peak + SMALL


@pytest.mark.slow
def test_the_command_tells_the_budget(tmp_path):
    X, y = data()
    store = write_store(tmp_path / "s.zarr", X, y.astype(float), chunk_rows=100)
    solver = "private:noise_multiplier=1,max_grad_norm=0.7"
    arguments = ["train", store.path, "--out", str(tmp_path / "run"), "--solver", solver]
    arguments += ["--batch-size", "64", "--learning-rate", "0.1", "--max-iter", "2", "--quiet"]
    done = CliRunner().invoke(cli.app, [*arguments, "--workers", "1"])
    assert done.exit_code == 0, done.output
    assert "privacy: epsilon " in done.stdout
    assert "loss withheld" in done.stdout
    done = CliRunner().invoke(cli.app, ["info", str(tmp_path / "run")])
    assert "withheld" in done.stdout
    done = CliRunner().invoke(cli.app, ["train", "--help"])
    assert "private:" in done.stdout
