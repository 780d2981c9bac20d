"""A run says which kernels it compiles, while it does; one that finds them says nothing."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ooc_train.kernels import calling, known_arrays, machine_code
from ooc_train.kernels.specs import KernelSpec
from ooc_train.models.classification_models import LogisticModel
from ooc_train.monitoring.callbacks import ConsoleBar
from ooc_train.monitoring.recorders import JsonLines
from ooc_train.runs.events import Compiling, Started, Stop
from ooc_train.runtime import meter
from ooc_train.runtime.meter import Meter
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.executors import LocalExecutor
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.loop import train
from ooc_train.training.partial_fit import learn
from ooc_train.training.planning import plan
from tests.kernels import listed_kernels, spec_of, text_of
from tests.streams import write_store

FLOAT32 = np.dtype(np.float32)
SHUFFLE, OUTER = KernelSpec("shuffle"), KernelSpec("add_outer_products")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(1000, 3)).astype("f4")
Y = (X[:, 0] + RNG.logistic(size=1000) > 0).astype("u1")
LEARNING = Training(batch_size=32, max_iter=3, random_state=0)


@pytest.fixture
def none_loaded(monkeypatch: Any) -> None:
    monkeypatch.setattr(calling, "_loaded", {})


def with_cache(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(machine_code, "_lasting", lambda: str(folder))


@pytest.mark.usefixtures("none_loaded")
def test_kernels_are_missing_until_their_code_is_whole(tmp_path, monkeypatch):
    with_cache(tmp_path, monkeypatch)
    assert calling.missing("f4", [SHUFFLE, OUTER, SHUFFLE]) == {SHUFFLE: True, OUTER: True}
    machine_code.write(machine_code._path(SHUFFLE, "float32"), b"code")
    assert calling.missing("f4", [SHUFFLE, OUTER]) == {OUTER: True}
    assert calling.missing("f8", [SHUFFLE]) == {SHUFFLE: True}
    path = Path(machine_code._path(SHUFFLE, "float32"))
    path.write_bytes(path.read_bytes()[:-1])
    assert calling.missing("f4", [SHUFFLE]) == {SHUFFLE: True}


@pytest.mark.usefixtures("none_loaded")
def test_what_is_loaded_or_never_compiled_is_not_missing(tmp_path, monkeypatch):
    with_cache(tmp_path, monkeypatch)
    calling._loaded[SHUFFLE, FLOAT32] = calling._plain_kernel(SHUFFLE, FLOAT32)
    assert calling.missing("f4", [SHUFFLE, OUTER]) == {OUTER: True}
    monkeypatch.setattr(known_arrays, "convention", lambda: "arrays are laid out otherwise")
    assert calling.missing("f4", [SHUFFLE, OUTER]) == {}


@pytest.mark.usefixtures("none_loaded")
def test_without_a_folder_that_lasts_kernels_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_code, "_lasting", lambda: None)
    monkeypatch.setattr(machine_code, "_told", "")
    monkeypatch.setattr(machine_code, "_temporary", lambda: str(tmp_path))
    assert calling.missing("f4", [SHUFFLE]) == {SHUFFLE: False}


def announced(monkeypatch: Any, found: dict[KernelSpec, bool]) -> list[Any]:
    """Return what is said, in turn with what is loaded, of needs of which so many are missing."""
    said: list[Any] = []

    def load(dtype: str, specs: Any) -> str:
        said.append(dtype)
        return ""

    monkeypatch.setattr(meter, "missing_kernels", lambda *_: found)
    monkeypatch.setattr(meter, "load_kernels", load)
    needs = {"float32": (SHUFFLE, OUTER), "float64": (OUTER,)}
    Meter(LocalExecutor(), whole=False, before=0).prepare(needs, lambda *told: said.append(told))
    return said


def test_kernels_are_named_once_before_they_are_compiled(monkeypatch):
    names = ("shuffle", "add_outer_products")
    found = announced(monkeypatch, {SHUFFLE: True, OUTER: False})
    assert found == [(names, False), "float32", "float64"]


def test_nothing_is_said_of_kernels_that_are_there(monkeypatch):
    assert announced(monkeypatch, {}) == ["float32", "float64"]


@pytest.mark.parametrize(("kept", "often"), [(True, "once on each machine"), (False, "once a run")])
def test_the_bar_says_a_line_unless_it_is_quiet(kept, often):
    event = Compiling(("add_rows(logistic)", "shuffle"), kept, 0.5)
    for quiet in (False, True):
        stream = io.StringIO()
        with ConsoleBar(stream=stream, quiet=quiet) as bar:
            bar(event)
        line = f"compiling kernels for some seconds, {often}: add_rows(logistic), shuffle\n"
        assert stream.getvalue() == ("" if quiet else line)


def test_plan_and_partial_fit_say_it_too(monkeypatch):
    monkeypatch.setattr(meter, "missing_kernels", lambda *_: {SHUFFLE: True})
    events: list[Any] = []

    def callback(event: Any) -> None:
        events.append(event)
        raise Stop("nothing is there to stop")

    inputs = read_inputs(X, Y, classifier=True)
    plan(LogisticModel(), inputs, LEARNING, callbacks=[callback])
    learn(LogisticModel(), inputs, LEARNING, callbacks=[callback])
    assert [(type(event), event.kernels) for event in events] == [(Compiling, ("shuffle",))] * 2


def test_a_callback_that_stops_meanwhile_ends_the_run_after_its_first_step(monkeypatch):
    monkeypatch.setattr(meter, "missing_kernels", lambda *_: {SHUFFLE: True})
    events: list[Any] = []

    def callback(event: Any) -> None:
        events.append(event)
        if isinstance(event, Compiling):
            raise Stop("enough")

    inputs = read_inputs(X, Y, classifier=True)
    _, report = train(LogisticModel(), inputs, LEARNING, callbacks=[callback])
    assert isinstance(events[0], Compiling)
    assert sum(isinstance(event, Started) for event in events) == 1
    assert report.n_iter == 1
    assert "enough" in report.notes


def test_recorders_take_it_as_any_event(tmp_path):
    JsonLines(tmp_path / "a.jsonl")(Compiling(("shuffle",), True, 0.5))
    line = json.loads((tmp_path / "a.jsonl").read_text())
    assert (line["event"], line["kernels"], line["kept"]) == ("compiling", ["shuffle"], True)


def test_the_list_of_kernels_that_tests_need_names_those_there_are():
    for specs in listed_kernels().values():
        assert SHUFFLE in specs
        assert len(set(specs)) == len(specs)
        for spec in specs:
            assert spec_of(text_of(spec)) == spec
            assert spec.signature


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiling") / "a.zarr"
    write_store(path, X, Y, classes=[0, 1])
    return path


def lines_of(cache: Path, *arguments: Any) -> list[str]:
    """Return the lines of a command about kernels that are being compiled."""
    done = subprocess.run(
        [sys.executable, "-m", "ooc_train", *map(str, arguments)],
        env=os.environ | {"OOC_TRAIN_CACHE_DIR": str(cache)},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [line for line in done.stderr.splitlines() if line.startswith("compiling")]


@pytest.mark.slow
def test_the_first_command_names_its_kernels_once_and_the_second_says_nothing(store, tmp_path):
    options = ("--batch-sizes", "1,32", "--max-iter", "1", "--workers", "2")
    arguments = ("tradeoff", store, *options, "--dashboard-address", "127.0.0.1:0")
    names = ["scan_groups(logistic, sgd)", "scan_unrolled(logistic, one output)"]
    [line] = lines_of(tmp_path / "cache", *arguments)
    assert line.startswith("compiling kernels for some seconds, once on each machine: ")
    assert all(due in line for due in ("add_rows(logistic)", "shuffle", *names))
    assert len(list((tmp_path / "cache").iterdir())) == line.count("(") + line.count("shuffle")
    assert lines_of(tmp_path / "cache", *arguments) == []
