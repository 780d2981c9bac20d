"""The trade-off: every batch size on one footing, evaluated alike, and advice that says why."""

import csv
import html
import json
import math
import os
import signal
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zarr
from matplotlib.figure import Figure
from typer.testing import CliRunner

from ooc_train import cli
from ooc_train.errors import CeilingExceeded, Diverged, OutputExists
from ooc_train.experiments.advice import Outcome, recommend
from ooc_train.experiments.tradeoff import tradeoff
from ooc_train.experiments.tradeoff_result import Tradeoff
from ooc_train.inference.predict import evaluate
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.model_registry import MODELS
from ooc_train.models.regression_models import RidgeModel
from ooc_train.monitoring.callbacks import History
from ooc_train.runs.events import Event, Started
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.solvers.training_settings import Training
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.loop import train
from ooc_train.training.task import Task
from tests.watch import watch

SIZES: tuple[int | str, ...] = (1, 50, "chunk", "full")
LOGISTIC, TRAINING = LogisticModel(), Training(max_iter=3, random_state=4)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Rows to learn from, and others to compare by."""
    folder = tmp_path_factory.mktemp("tradeoff")
    settings: Any = {"features": 6, "chunk_rows": 100}
    made = make_data(folder / "a", rows=3000, **settings)
    # The truth of both is drawn from the seed; their rows are not the same.
    make_data(folder / "c", rows=4000, **settings)
    group = zarr.open_group(folder / "b", mode="w")
    kept = zarr.open_group(folder / "c", mode="r")
    for name in ("X", "y"):
        group.create_array(name, data=np.asarray(kept[name])[3000:])
    return made.path, str(folder / "b")


def both(stores):
    return (read_inputs(path, classifier=True) for path in stores)


@pytest.fixture(scope="module")
def found(stores):
    inputs, others = both(stores)
    told: dict[str, list[float]] = {}
    made = tradeoff(
        LOGISTIC,
        inputs,
        SIZES,
        training=TRAINING,
        validation=others,
        progress=lambda stage, _, share: told.setdefault(stage, []).append(share),
    )
    assert list(told) == ["evaluating training rows", "evaluating validation rows"]
    for shares in told.values():
        assert shares == sorted(shares)
        assert shares[0] == 0.0
        assert shares[-1] == 1.0
    return made


@pytest.mark.slow
def test_every_fit_is_the_one_that_its_batch_size_makes_alone(stores, found):
    inputs, others = both(stores)
    assert [trial.report.batch_size for trial in found.trials] == list(SIZES)
    for trial in found.trials:
        training = replace(TRAINING, batch_size=trial.report.batch_size)
        fitted, report = train(LOGISTIC, inputs, training)
        assert trial.report.loss_history == report.loss_history
        assert (trial.report.updates, trial.report.passes) == (report.updates, report.passes)
        for rows, loss in ((inputs, trial.loss), (others, trial.validation_loss)):
            metrics, _ = evaluate(fitted, rows)
            assert loss == pytest.approx(metrics["log_loss"], rel=1e-9)
    assert found.start_loss == pytest.approx(math.log(2))
    assert found.diverged == {}
    # Newton's last step is one that its report has not seen.
    full = found.trials[-1]
    assert full.loss == min(trial.loss for trial in found.trials)
    assert full.loss <= full.report.loss


@pytest.mark.slow
def test_noise_is_measured_at_the_start_and_at_each_end(found):
    assert found.start_noise is not None
    assert 0 < found.start_noise.rows < 300
    for trial in found.trials:
        assert trial.noise is not None
        assert trial.noise.rows > 10 * found.start_noise.rows


def test_memory_is_of_each_fit_and_within_its_projection(found):
    for row in found.rows():
        assert row["measured"] <= row["projected"]


def test_all_of_it_is_json_and_the_advice_is_one_of_the_sizes(found):
    again = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [row["batch_size"] for row in again["trials"]] == list(SIZES)
    assert again["reports"].keys() == {"1", "50", "chunk", "full"}
    assert found.advice.batch_size in SIZES
    assert "validation loss" in found.advice.reason
    assert any("seed 4" in note for note in found.notes)


def test_the_table_is_a_data_frame_and_a_plot(found):
    frame = found.frame
    assert frame.index.tolist() == list(SIZES)
    assert frame["validation_loss"].tolist() == [trial.validation_loss for trial in found.trials]
    ax = Figure().subplots()
    assert found.plot(ax, over="seconds") is ax
    assert ax.get_xlabel() == "seconds"
    assert [len(line.get_xdata()) for line in ax.lines] == [
        len(report.history) for report in found.reports.values()
    ]


def test_a_notebook_shows_the_table_with_the_advice(found):
    evil = replace(found, diverged={"7": "too <script>fast"}, notes=("<b>", *found.notes))
    page = evil._repr_html_()
    assert "<td>newton</td>" in page
    assert "batch size 7 diverged: too &lt;script&gt;fast" in page
    assert "note: &lt;b&gt;" in page
    assert f"advice: batch_size={found.advice.batch_size!r}".replace("'", "&#x27;") in page
    assert html.escape(found.advice.reason) in page
    assert page.count("<th>") == len(found.figures()[0])
    assert page.count("<tr>") == 1 + len(SIZES)
    assert repr(found).startswith("<Tradeoff: batch sizes 1, 50, chunk, full; advice: batch_size=")
    assert len(repr(found)) < 150


def test_no_seed_is_one_seed_for_all(stores):
    (inputs, _) = both(stores)
    unseeded = tradeoff(LOGISTIC, inputs, (10, 20), training=Training(max_iter=1))
    assert len({trial.report.random_state for trial in unseeded.trials}) == 1
    assert any("no validation rows" in note for note in unseeded.notes)
    assert unseeded.trials[0].validation_loss is None


@pytest.mark.parametrize("name", ["ridge", "linear"])
def test_regressions_and_arrays_in_memory(name):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 3))
    y = X @ [1.0, 2.0, 3.0] + rng.normal(size=500)
    inputs = read_inputs(X, y, np.full(500, 2.0), classifier=False)
    made = tradeoff(
        MODELS[name](), inputs, (5, "full"), training=Training(max_iter=5, random_state=0)
    )
    assert [trial.report.solver for trial in made.trials] == ["sgd", "gram"]
    # Half a squared residual, whatever the rows weigh.
    centred = X - X.mean(axis=0)
    penalty = np.eye(3) / 2 if name == "ridge" else 0.0  # each row weighs 2
    coef = np.linalg.solve(centred.T @ centred + penalty, centred.T @ y)
    due = np.square(y - y.mean() - centred @ coef).mean() / 2
    assert made.trials[1].loss == pytest.approx(due, rel=1e-9)
    assert due < made.trials[0].loss < 1.005 * due
    # All rows are one partition.
    assert (made.start_noise, made.trials[0].noise) == (None, None)
    assert "unknown" in made.advice.reason


def test_unshuffled_rows_are_noted(tmp_path, stores):
    group = zarr.open_group(tmp_path / "a", mode="w")
    kept = zarr.open_group(stores[0], mode="r")
    for name in ("X", "y"):
        values = np.asarray(kept[name])
        chunks = (250, *values.shape[1:])
        group.create_array(name, data=values, chunks=chunks, config={"write_empty_chunks": True})
    training = replace(TRAINING, max_iter=1)
    made = tradeoff(LOGISTIC, str(tmp_path / "a"), (100,), training=training)
    assert any("not known to be shuffled" in note for note in made.notes)
    assert made.start_noise is not None


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("settings", "sizes", "says"),
    [
        ({}, (), "not one or more"),
        ({}, (5, "full", 5), "each named once"),
        ({}, (5, 3001), "batch_size=3,001 is more than the 3,000 rows"),
        ({}, (5, 0), "batch_size=0"),
        ({"batch_size": 7}, (5,), "batch_size=7 is not for a trade-off; name it in batch_sizes"),
        ({"solver": "newton"}, ("full", 5), "solver='newton' reads all rows"),
        ({"learning_rate": 0.1}, (5, "full"), "learning_rate=0.1 is for updates"),
    ],
)
def test_settings_that_can_not_be_used_are_refused_before_anything_runs(
    stores, settings, sizes, says
):
    events, training = History(), replace(TRAINING, **settings)
    with pytest.raises(ValueError, match=says):
        tradeoff(LOGISTIC, stores[0], sizes, training=training, callbacks=(events,))
    assert events == []


def test_a_ceiling_that_one_of_them_can_not_keep_is_refused_before_the_first(stores, monkeypatch):
    events, requirements = History(), Task.requirements

    def large_for_all_rows(task, **more):
        needs = requirements(task, **more)
        full = task.training.batch_size == "full"
        return replace(needs, workspace=2**50) if full else needs

    monkeypatch.setattr(Task, "requirements", large_for_all_rows)
    with pytest.raises(CeilingExceeded, match="PiB"):
        tradeoff(LOGISTIC, stores[0], (5, "full"), training=TRAINING, callbacks=(events,))
    assert events == []


def test_other_columns_can_not_validate(stores, tmp_path):
    make_data(tmp_path / "a", rows=100, features=3)
    with pytest.raises(ValueError, match="validation rows have 3 columns"):
        tradeoff(LOGISTIC, stores[0], (5,), training=TRAINING, validation=tmp_path / "a")


@pytest.mark.slow
def test_a_diverged_fit_is_reported_and_the_others_continue(stores):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    inputs = read_inputs(X, X @ [1.0, 2.0, 3.0], classifier=False)
    training = Training(solver="sgd", learning_rate=1.9, max_iter=30, random_state=0)
    made = tradeoff(RidgeModel(), inputs, (1, "full"), training=training)
    assert list(made.diverged) == ["1"]
    assert "learning rate" in made.diverged["1"]
    assert [trial.report.batch_size for trial in made.trials] == ["full"]
    assert made.advice.learning_rate == 1.9
    with pytest.raises(Diverged):
        tradeoff(RidgeModel(), inputs, (1, 2), training=training)


# ------------------------------------------------------------------------------------- the folder


@pytest.mark.slow
def test_the_folder_holds_the_table_and_is_replaced_only_on_purpose(stores, tmp_path):
    out = tmp_path / "deep" / "out"
    made = tradeoff(LOGISTIC, stores[0], (50, "full"), training=TRAINING, out=out)
    assert sorted(os.listdir(out))[:2] == ["tradeoff.csv", "tradeoff.json"]
    told = json.loads((out / "tradeoff.json").read_text())
    assert told == json.loads(json.dumps(made.to_json()))
    with (out / "tradeoff.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["batch_size"] for row in rows] == ["50", "full"]
    assert float(rows[0]["loss"]) == made.trials[0].loss
    assert int(rows[1]["measured"]) == made.trials[1].report.memory.measured
    events = History()
    with pytest.raises(OutputExists, match="exists already"):
        tradeoff(LOGISTIC, stores[0], (50,), training=TRAINING, out=out, callbacks=(events,))
    (tmp_path / "other").mkdir()
    with pytest.raises(OutputExists, match="is no trade-off, so it is not written over"):
        tradeoff(
            LOGISTIC, stores[0], (50,), training=TRAINING, out=tmp_path / "other", overwrite=True
        )
    assert events == []
    tradeoff(LOGISTIC, stores[0], (50,), training=TRAINING, out=out, overwrite=True)
    assert len(json.loads((out / "tradeoff.json").read_text())["trials"]) == 1
    assert os.listdir(tmp_path / "deep") == ["out"]


@pytest.mark.slow
def test_the_plot_is_drawn_of_the_reports(stores, tmp_path):
    made = tradeoff(LOGISTIC, stores[0], (50, "full"), training=TRAINING, out=tmp_path / "out")
    assert list(made.reports) == ["50", "full"]
    assert (tmp_path / "out" / "tradeoff.png").read_bytes()[1:4] == b"PNG"


def test_ctrl_c_interrupts_it_at_once(stores, tmp_path):
    seen = []

    def press(event):
        seen.append(event)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        tradeoff(
            LOGISTIC,
            stores[0],
            (50, "full"),
            training=TRAINING,
            out=tmp_path / "out",
            callbacks=[press],
        )
    assert len(seen) == 1
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------- the advice


def outcome(size: int | str, loss: float, seconds: float, **more: Any) -> Outcome:
    rows = {"full": 10_000, "chunk": 512}.get(str(size), size)
    settings: Any = {"solver": "sgd", "learning_rate": 0.25, "noise": 900.0, "passes": 5.0} | more
    return Outcome(
        batch_size=size, rows=int(rows), seconds=seconds, loss=loss, **settings
    )  # fmt: skip


def advised(*outcomes: Outcome, start: float | None = 20.0, automatic: bool = True):
    return recommend(outcomes, start, criterion="validation loss", automatic=automatic)


def test_of_losses_that_are_no_worse_the_fastest_is_advised():
    slow, fast, worse = outcome("full", 0.5, 9.0), outcome(64, 0.50049, 1.0), outcome(1, 0.51, 0.1)
    advice = advised(slow, fast, worse)
    assert (advice.batch_size, advice.learning_rate) == (64, "auto")
    assert "reached a validation loss of 0.50049, within 0.1% of the lowest (0.5" in advice.reason
    assert "batch_size='full'" in advice.reason
    assert 'automatic one ("auto"), which begins at 0.25' in advice.reason
    # Beyond a thousandth it is worse.
    assert advised(slow, outcome(64, 0.50051, 1.0), worse).batch_size == "full"
    assert "by more than 0.1%" in advised(slow, worse).reason


def test_losses_below_zero_and_of_zero_are_compared_too():
    assert advised(outcome(1, -2.0, 5.0), outcome(2, -1.999, 1.0)).batch_size == 2
    assert advised(outcome(1, -2.0, 5.0), outcome(2, -1.99, 1.0)).batch_size == 1
    assert advised(outcome(1, 0.0, 5.0), outcome(2, 0.0, 1.0)).batch_size == 2


def test_a_rate_is_advised_as_it_was_set_or_not_at_all():
    given = advised(outcome(64, 0.5, 1.0), automatic=False)
    assert given.learning_rate == 0.25
    assert "was given, 0.25; no other was tried" in given.reason
    exact = advised(outcome("full", 0.5, 1.0, solver="newton", learning_rate=None))
    assert exact.learning_rate is None
    assert "newton, chooses its step lengths itself" in exact.reason


@pytest.mark.parametrize(
    ("size", "noise", "says"),
    [
        (4, 900.0, "steps are mostly noise"),
        (512, 900.0, "larger than necessary at first"),
        (512, math.inf, "larger than all rows can show at the end"),
        (5000, 900.0, "larger batches improve each step little"),
        (512, None, "unknown"),
    ],
)
def test_the_noise_is_put_in_words(size, noise, says):
    assert says in advised(outcome(size, 0.5, 1.0, noise=noise)).reason


def test_advice_says_what_it_is_based_on():
    two = advised(outcome(1, 0.5, 1.0), outcome(2, 0.6, 1.0))
    assert two.reason.endswith("2 runs, one for each batch size, on these rows and this machine.")


# ------------------------------------------------------------------------------ the command line


@pytest.fixture(scope="module")
def scheduler():
    with LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster.scheduler_address


def here(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_the_command_shows_the_table_and_the_advice(stores, scheduler, tmp_path):
    out = tmp_path / "out"
    settings = ("--max-iter", 2, "--random-state", 1, "--scheduler", scheduler)
    result = here(
        "tradeoff", stores[0], "--batch-sizes", "1, 20,chunk,full", "--validation", stores[1],
        "--out", out, *settings,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    head, *rows = result.stdout.splitlines()[:5]
    assert head.split() == [
        "batch", "size", "solver", "passes", "updates", "seconds", "loss", "validation", "noise",
        "scale", "projected", "measured",
    ]  # fmt: skip
    assert [row.split()[:2] for row in rows] == [
        ["1", "sgd"], ["20", "sgd"], ["chunk", "sgd"], ["full", "newton"],
    ]  # fmt: skip
    assert "null model (all parameters 0): loss 0.693147, noise scale " in result.stdout
    assert "\nadvice: --batch-size " in result.stdout
    assert result.stdout.endswith(f"saved in {out}\n")
    assert "batch size 20, by sgd" in result.stderr
    again = here("tradeoff", stores[0], "--batch-sizes", "full", *settings, "--json", "--quiet")
    told = json.loads(again.stdout)
    assert [row["batch_size"] for row in told["trials"]] == ["full"]
    assert told["trials"][0]["measured"] <= told["trials"][0]["projected"]
    assert told["trials"][0]["validation_loss"] is None


@pytest.mark.slow
def test_every_fit_and_what_is_around_them_keep_to_the_ceiling(tmp_path):
    make_data(tmp_path / "a", rows=1_000_000, features=100)
    watched = watch(
        "tradeoff", str(tmp_path / "a"), "--batch-sizes", "1,256,full", "--max-iter", "1",
        "--memory-ceiling", "512MiB", "--workers", "2", "--dashboard-address", "127.0.0.1:0",
        "--quiet",
    )  # fmt: skip
    for row in watched.report["trials"]:
        assert row["measured"] <= row["projected"] <= 2**29
    assert watched.peak <= 2**29


def test_the_batch_size_of_a_model_is_no_option_of_the_command():
    assert "--batch-size " not in here("tradeoff", "--help").stdout.replace("│", " ")
    assert here("tradeoff", "nowhere", "--batch-size", "5").exit_code == 2
    wrong = here("tradeoff", "nowhere", "--batch-sizes", "1,many")
    assert wrong.exit_code == 2
    assert "batch_size='many'" in wrong.stderr


@pytest.mark.slow
def test_callbacks_receive_the_start_of_each_fit(stores):
    began: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Started):
            began.append(event.batch_size)

    training = replace(TRAINING, max_iter=1)
    made = tradeoff(LOGISTIC, stores[0], (100, "full"), training=training, callbacks=(note,))
    assert began == ["100", "full"]
    assert isinstance(made, Tradeoff)
