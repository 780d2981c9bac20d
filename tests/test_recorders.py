"""What is kept of a run elsewhere: lines of JSON, and what TensorBoard and MLflow are told."""

import json
import math
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ooc_train import JsonLines, MLflow, TensorBoard
from ooc_train.errors import MissingPackage
from ooc_train.models.classification_models import LogisticModel
from ooc_train.runs.events import Ended, Noted, Progressed
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.training.loop import train
from tests.test_callbacks import started, stepped

EVENTS = (
    started(), Progressed(10, 0.5), stepped(1), stepped(2, loss=0.25), Noted("ends", 1.5),
    Ended(True, 2.0),
)  # fmt: skip


def test_a_line_an_event(tmp_path):
    path = tmp_path / "a.jsonl"
    recorder = JsonLines(path)
    assert path.read_text() == ""
    for i, event in enumerate(EVENTS, start=1):
        recorder(event)
        # Each line is there, whole, before the next event.
        assert len(path.read_text().splitlines()) == i
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == [
        "started", "progressed", "stepped", "stepped", "noted", "ended",
    ]  # fmt: skip
    assert (lines[4]["text"], lines[4]["seconds"]) == ("ends", 1.5)
    assert lines[0]["n_rows"] == 1000
    assert [line.get("loss") for line in lines[2:4]] == [0.5, 0.25]
    assert all(line["time"] > 1.6e9 for line in lines)


def test_lines_are_strict_json_and_what_is_there_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text("before\n")
    monkeypatch.chdir(tmp_path)
    recorder = JsonLines("a.jsonl")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    recorder(replace(stepped(1), loss=math.nan))
    before, line = path.read_text().splitlines()
    assert before == "before"
    assert json.loads(line, parse_constant=pytest.fail)["loss"] is None
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        JsonLines(tmp_path / "none" / "a.jsonl")


def test_lines_of_a_run(tmp_path):
    store = make_data(tmp_path / "a.zarr", rows=2000, features=3)
    path = tmp_path / "a.jsonl"
    _, report = train(LogisticModel(), store, callbacks=[JsonLines(path)])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [lines[0]["event"], lines[-1]["event"]] == ["started", "ended"]
    losses = [line["loss"] for line in lines if line["event"] == "stepped"]
    assert tuple(losses) == report.loss_history
    assert [line["rows"] for line in lines if line["event"] == "progressed"][-1] == int(
        report.passes * 2000
    )


def begin_and_fail(recorder):
    with recorder:
        recorder(EVENTS[0])
        raise RuntimeError


class Calls(list[tuple[Any, ...]]):
    """What a made-up library is asked to do."""

    def note(self, name: str, result: Any = None) -> Any:
        def call(*arguments: Any, **settings: Any) -> Any:
            self.append((name, *arguments, *settings.values()))
            return result

        return call


@pytest.fixture
def tensorboard(monkeypatch):
    calls = Calls()

    class SummaryWriter:
        def __init__(self, log_dir):
            calls.append(("open", log_dir))

        add_scalar = staticmethod(calls.note("scalar"))
        add_text = staticmethod(calls.note("text"))
        close = staticmethod(calls.note("close"))

    module: Any = ModuleType("tensorboardX")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    return calls


def test_tensorboard_receives_steps(tensorboard, tmp_path):
    recorder = TensorBoard(tmp_path)
    assert tensorboard == []
    for event in EVENTS:
        recorder(event)
    assert tensorboard[0] == ("open", str(tmp_path))
    assert ("text", "batch size", "full") in tensorboard
    assert [call for call in tensorboard if call[1:2] == ("loss",)] == [
        ("scalar", "loss", 0.5, 1),
        ("scalar", "loss", 0.25, 2),
    ]
    # What is not known of a step is left out.
    assert "gradient_norm" not in {call[1] for call in tensorboard if len(call) > 1}
    assert tensorboard[-1] == ("close",)
    assert tensorboard.count(("close",)) == 1


def test_the_loss_of_validation_rows_is_a_figure_where_there_are_any(tensorboard, tmp_path):
    recorder = TensorBoard(tmp_path)
    for event in (started(), stepped(1), replace(stepped(2), validation_loss=0.75)):
        recorder(event)
    judged = [call for call in tensorboard if call[1:2] == ("validation_loss",)]
    assert judged == [("scalar", "validation_loss", 0.75, 2)]


def test_tensorboard_is_closed_where_a_run_fails(tensorboard, tmp_path):
    with pytest.raises(RuntimeError):
        begin_and_fail(TensorBoard(tmp_path))
    assert tensorboard[-1] == ("close",)


@pytest.fixture
def mlflow(monkeypatch):
    calls = Calls()

    class MlflowClient:
        def __init__(self, tracking_uri):
            calls.append(("client", tracking_uri))

        get_experiment_by_name = staticmethod(calls.note("find"))
        create_experiment = staticmethod(calls.note("make", "7"))
        create_run = staticmethod(
            calls.note("run", SimpleNamespace(info=SimpleNamespace(run_id="r1")))
        )
        log_param = staticmethod(calls.note("param"))
        log_batch = staticmethod(calls.note("batch"))
        set_terminated = staticmethod(calls.note("end"))

    module: Any = ModuleType("mlflow")
    module.MlflowClient = MlflowClient
    entities: Any = ModuleType("mlflow.entities")
    entities.Metric = lambda *values: values
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return calls


def test_mlflow_receives_settings_and_steps(mlflow):
    recorder = MLflow("flights", run_name="late", tracking_uri="file:runs")
    for event in EVENTS:
        recorder(event)
    assert mlflow[:4] == [
        ("client", "file:runs"),
        ("find", "flights"),
        ("make", "flights"),
        ("run", "7", "late"),
    ]
    assert ("param", "r1", "solver", "newton") in mlflow
    batches = [metrics for name, *_, metrics in mlflow if name == "batch"]
    losses = [
        (value, step) for metrics in batches for name, value, _, step in metrics if name == "loss"
    ]
    assert losses == [(0.5, 1), (0.25, 2)]
    assert mlflow[-1] == ("end", "r1", "FINISHED")
    assert recorder.run_id == "r1"


def test_mlflow_marks_a_failed_run(mlflow):
    with pytest.raises(RuntimeError):
        begin_and_fail(MLflow())
    assert [call for call in mlflow if call[0] == "end"] == [("end", "r1", "FAILED")]


@pytest.mark.parametrize(
    ("make", "package"), [(lambda: TensorBoard("a"), "tensorboardX"), (MLflow, "mlflow")]
)
def test_a_library_that_is_missing_is_named_with_how_to_install_it(monkeypatch, make, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingPackage, match=f"need the package {package}, .* pip install {package}$"
    ):
        make()
