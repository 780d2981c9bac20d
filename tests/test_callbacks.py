"""What is shown of a run: a bar on a terminal, few lines elsewhere, nothing where that is asked."""

import io
import re
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from ooc_train import LogisticRegression, RidgeClassifier, make_data
from ooc_train.core.progress import row_counter
from ooc_train.core.text import printable
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.regression_models import RidgeModel
from ooc_train.monitoring import callbacks
from ooc_train.monitoring.callbacks import ConsoleBar, History
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.runs.events import Ended, Noted, Progressed, Saving, Started, Stepped
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.task import Task


def started(solver="newton", max_iter=100):
    return Started(
        model="logistic",
        solver=solver,
        batch_size="full",
        n_rows=1000,
        n_features=3,
        max_iter=max_iter,
        solver_passes={"gram": 1.0, "sgd": float(max_iter), "adam": float(max_iter)}.get(solver),
        dashboard=None,
        ceiling=2**29,
        projected=2**28,
        explanation="",
    )


def stepped(n_iter, passes=None, loss=0.5):
    passes = n_iter if passes is None else passes
    return Stepped(n_iter, passes, n_iter, loss, None, float(passes))


def updating_solvers():
    """Names of the solvers that learn by batches, whichever there are."""
    return sorted(OPTIMIZERS)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """The time that lines are held apart by, at the test's command."""
    now = [100.0]
    monkeypatch.setattr(callbacks, "perf_counter", lambda: now[0])
    return now


def lines_of(events, clock, seconds=2.0, **settings):
    """What is written elsewhere than on a terminal, where events come so many seconds apart."""
    stream = io.StringIO()
    with ConsoleBar(stream=stream, **settings) as bar:
        for event in events:
            bar(event)
            clock[0] += seconds
    return stream.getvalue().splitlines()


def test_history_keeps_the_steps_and_nothing_else():
    history = History()
    for event in (started(), Progressed(500, 1.0), stepped(1), stepped(2), Ended(True, 2.0)):
        history(event)
    assert history == [stepped(1), stepped(2)]


def test_a_line_a_step_without_a_terminal(clock):
    events = [started("sgd", 4), Progressed(3000, 2.0), stepped(2), Ended(True, 2.0)]
    assert lines_of(events, clock) == [
        "2 of 4 passes  loss 0.5  1.5k rows/s  memory 256 MiB of 512 MiB  1s left"
    ]


def test_the_loss_of_validation_rows_stands_beside_the_other(clock):
    judged = replace(stepped(2), validation_loss=0.625)
    (line,) = lines_of([started("sgd", 4), judged], clock)
    assert line.startswith("2 of 4 passes  loss 0.5 (validation 0.625)  ")


@pytest.mark.parametrize(
    ("settings", "due"),
    [({"verbose": True}, ["after 1m30s: a\\x1bb"]), ({}, []), ({"quiet": True}, [])],
)
def test_what_is_noted_is_a_line_where_that_is_asked(clock, settings, due):
    assert lines_of([started(), Noted("a\x1bb", 90.0), Ended(True, 91.0)], clock, **settings) == due


def test_a_loss_stands_beside_the_passes_after_which_it_is_that_of_the_model(clock):
    start = replace(stepped(1), n_iter=0, passes=1.0)
    full = [Progressed(1000, 1.0), start, Progressed(2000, 2.0), replace(stepped(1), passes=2.0)]
    known = lines_of([started("lbfgs", 8), *full], clock, seconds=20.0)
    assert [line.split("  ")[:2] for line in known] == [
        ["pass 1", "1k rows/s"],
        ["1 pass", "loss at the start 0.5"],
        ["pass 2", "loss at the start 0.5"],
        ["2 passes", "loss 0.5"],
    ]
    # The rows of a pass that has just ended are those of no further pass.
    updates = [Progressed(1000, 1.0), replace(stepped(1), passes=1.0), Progressed(1000, 1.1)]
    known = lines_of([started("sgd", 2), *updates], clock, seconds=20.0)
    titles = [line.split("  ")[0] for line in known]
    assert titles == ["pass 1 of 2", "1 of 2 passes", "pass 1 of 2"]


def test_rows_of_earlier_processes_make_no_rate(clock):
    begun = replace(started("sgd", 20), spent=(5500, 100.0))
    # The rows of a pass under way are taken back until it asks again.
    known = lines_of(
        [begun, Progressed(0, 0.5), Progressed(5000, 101.0), Progressed(5600, 102.0),
         Progressed(5700, 104.0), Progressed(5900, 106.0)], clock, seconds=20.0,
    )  # fmt: skip
    assert [line.split("  ")[1] for line in known[:2]] == ["0 rows/s"] * 2
    assert not any("left" in line for line in known[:2])
    figures = [(line.split("  ")[1], line.split("  ")[-1]) for line in known[2:]]
    assert figures == [
        ("50 rows/s", "4m48s left"),
        ("50 rows/s", "4m46s left"),
        ("75 rows/s", "3m8s left"),
    ]


def test_a_line_a_second_at_most(clock):
    events = [started(), *(stepped(i, loss=float(i)) for i in range(100))]
    lines = lines_of(events, clock, seconds=0.1)
    assert 8 <= len(lines) <= 10


def test_a_pass_that_takes_long_tells_how_far_it_is(clock):
    events = [started(), *(Progressed(10 * i, float(i)) for i in range(1, 30))]
    lines = lines_of(events, clock, seconds=1.0)
    assert len(lines) == 2
    assert lines[0] == "pass 1  10 rows/s  memory 256 MiB of 512 MiB  1m30s left in this pass"


@pytest.mark.parametrize(
    ("solver", "limits", "expected"),
    [
        ("gram", {}, "pass 1 of 1  100 rows/s  memory 256 MiB of 512 MiB  5s left"),
        ("sgd", {}, "pass 1 of 8  100 rows/s  memory 256 MiB of 512 MiB  1m15s left"),
        ("adam", {"max_passes": 2}, "pass 1 of 2  100 rows/s  memory 256 MiB of 512 MiB  15s left"),
        ("lbfgs", {"max_seconds": 7.0}, "pass 1  100 rows/s  memory 256 MiB of 512 MiB  2s left"),
        ("lbfgs", {}, "pass 1  100 rows/s  memory 256 MiB of 512 MiB  5s left in this pass"),
    ],
)  # fmt: skip
def test_the_time_left_is_that_of_the_first_end(clock, solver, limits, expected):
    events = [started(solver, 8), Progressed(500, 5.0)]
    assert lines_of(events, clock, seconds=20.0, **limits) == [expected]


@pytest.mark.parametrize(
    ("model", "settings", "most"),
    [
        (RidgeModel(), {}, 1.0),
        (LogisticModel(), {"solver": "lbfgs"}, None),
        *((LogisticModel(), {"solver": s, "batch_size": 8}, 2.0) for s in updating_solvers()),
    ],
)
def test_a_run_announces_its_number_of_passes(model, settings, most):
    X = np.linspace(-1.0, 1.0, 40).reshape(20, 2)
    inputs = read_inputs(X, X[:, 0] > 0, classifier=model.is_classifier)
    task = Task.of(model, inputs, Training(**settings, max_iter=2))
    assert task.most_passes == most
    event = replace(started(), solver_passes=task.most_passes)
    assert event.most_passes == most
    assert replace(event, max_passes=1.5).most_passes == min(1.5, most or 1.5)


def test_rows_beyond_the_last_pass_leave_no_time(clock):
    (line,) = lines_of([started("sgd", 2), Progressed(2100, 2.0)], clock, seconds=20.0)
    assert line.startswith("pass 2 of 2 ")
    assert line.endswith("  0s left")


def test_quiet_is_silent():
    stream = Terminal()
    with ConsoleBar(stream=stream, quiet=True) as bar:
        bar.say("a line")
        for event in (started(), Progressed(500, 1.0), stepped(1), Ended(True, 2.0)):
            bar(event)
    assert stream.getvalue() == ""


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with ConsoleBar(stream=stream) as bar:
        bar.say("[red]a line[/red] :smile:")
        for event in (started("sgd", 2), Progressed(500, 1.0), stepped(1), Ended(True, 2.0)):
            bar(event)
    text = stream.getvalue()
    assert text.startswith("[red]a line[/red] :smile:\n")
    assert "1 of 2 passes" in text
    assert "loss 0.5" in text
    # The bar is taken away, and the cursor is given back.
    assert text.endswith("\x1b[?25h\r\x1b[1A\x1b[2K")


def test_a_bar_tells_a_metric_of_the_model_so_far(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    bar: Any = ConsoleBar(stream=Terminal())
    bar(started("lbfgs"))
    metrics = {"accuracy": 0.93412, "roc_auc": 0.97}
    bar(Progressed(1500, 150.0, loss=0.123456, metrics=metrics))
    (task,) = bar._bar.tasks
    assert "loss so far 0.123456  accuracy 0.934" in task.fields["figures"]
    bar(Progressed(1600, 160.0, loss=0.123456, metrics={"r2": 0.25}))
    assert "R2 0.250" in bar._bar.tasks[0].fields["figures"]
    bar.close()


@pytest.mark.parametrize("columns", [80, 100])
def test_a_bar_fits_a_narrow_terminal(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    bar: Any = ConsoleBar(stream=Terminal())
    bar(started("lbfgs"))
    for i in range(1, 4):
        bar(Progressed(1000 * i, 100.0 * i, loss=0.123456))
        bar(replace(stepped(i, loss=0.123456), validation_loss=0.234567, seconds=100.0 * i))
        bar(Progressed(1000 * i + 500, 100.0 * i + 50, loss=0.123456))
    (task,) = bar._bar.tasks
    words = f"{task.description} {task.fields['figures']} {task.fields['left']}"
    assert len(words) + 14 <= columns
    assert task.fields["left"].startswith("50s left")
    assert "validation 0.234567" in words
    assert ("rows/s" in words) is (columns == 100)
    assert "memory" not in words
    bar.close()


def test_what_is_done_before_rows_are_read_has_a_name(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    bar: Any = ConsoleBar(stream=stream)
    with bar:
        for title in ("starting workers", "planning"):
            bar.doing(title)
        assert [task.description for task in bar._bar.tasks] == ["planning"]
    assert "planning" in stream.getvalue()
    elsewhere = io.StringIO()
    ConsoleBar(stream=elsewhere).doing("planning")
    assert elsewhere.getvalue() == ""


def test_compiling_counts_in_no_rate_and_in_no_time_left(clock):
    # A minute went by before the first rows; since then it is 100 rows/s.
    events = [started("sgd", 4), Progressed(100, 61.0), Progressed(1100, 71.0)]
    *_, line = lines_of(events, clock, seconds=20.0)
    assert "  100 rows/s  " in line
    assert line.endswith("  29s left")


def test_a_bar_in_a_notebook(monkeypatch):
    shown: list[str] = []
    handle = SimpleNamespace(update=shown.append)

    def display(html, *, display_id):
        assert display_id
        shown.append(html)
        return handle

    shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    module = SimpleNamespace(HTML=lambda text: text, display=display)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    with ConsoleBar(max_passes=2) as bar:
        bar(started("sgd<", 2))
        for i in range(1, 300):
            bar(Progressed(5 * i, i / 100, loss=0.5))
        bar(replace(stepped(2), validation_loss=0.625))
    assert 2 <= len(shown) < 20  # not for each event
    assert 'value="0.7475"' in shown[-1]
    assert "loss 0.5 (validation 0.625)" in shown[-1]
    shown.clear()
    with ConsoleBar(quiet=True) as bar:
        bar(started())
    assert shown == []
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert ConsoleBar()._notebook is None


def test_an_estimator_shows_its_fit_and_hands_its_events_on(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(callbacks, "_LINE_SECONDS", 0.0)
    history = History()
    X = np.linspace(-1.0, 1.0, 400).reshape(200, 2)
    model = LogisticRegression(verbose=True, callbacks=(history,)).fit(X, X[:, 0] > 0)
    assert tuple(history) == model.report_.history
    assert "  loss " in capsys.readouterr().err
    quiet = clone(model).set_params(verbose=False, callbacks=()).fit(X, X[:, 0] > 0)
    assert capsys.readouterr().err == ""
    assert (quiet.coef_ == model.coef_).all()
    history.clear()
    grid = GridSearchCV(model, {"C": [0.1, 1.0]}, cv=2).fit(X, X[:, 0] > 0)
    assert grid.best_estimator_.callbacks
    assert capsys.readouterr().err.count("  loss ") >= 5


def test_predictions_of_a_store_show_a_bar(monkeypatch, tmp_path):
    told: list[tuple[bool, str, float]] = []

    def spy(bar, stage, rows, share):
        assert rows == 20_000 * share
        told.append((bar._quiet, stage, share))

    monkeypatch.setattr(ConsoleBar, "progress", spy)
    store = make_data(tmp_path / "a.zarr", rows=20_000, features=3)
    model = RidgeClassifier(verbose=True).fit(store)
    model.predict(store)
    assert told[0] == (False, "predicting", 0.0)
    assert told[-1] == (False, "predicting", 1.0)
    model.set_params(verbose=False).predict(store)
    assert told[-1] == (True, "predicting", 1.0)


def test_saving_has_a_name_on_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    bar: Any = ConsoleBar(stream=Terminal())
    with bar:
        bar(started())
        bar(Progressed(500, 1.0))
        bar(Saving("checkpoint", 1.0))
        assert [task.description for task in bar._bar.tasks] == ["saving the checkpoint"]
        bar(Progressed(600, 1.1))
        assert bar._bar.tasks[0].description.startswith("pass 1")


def test_a_bar_that_is_closed_twice_or_never_began():
    for events in ([], [started(), Ended(True, 1.0)]):
        with ConsoleBar(stream=Terminal()) as bar:
            for event in events:
                bar(event)
            bar.close()


def test_the_stages_of_a_job(clock):
    stream = io.StringIO()
    bar = ConsoleBar(stream=stream)
    for stage in ("reading", "writing"):
        add_rows = row_counter(bar.progress, stage, 100)
        for _ in range(4):
            clock[0] += 11
            add_rows(25)
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["reading"] * 4 + ["writing"] * 4
    assert lines[1] == lines[5].replace("writing", "reading")
    assert lines[1] == "reading  50 rows  2.27 rows/s  22s left"


def test_a_bar_of_stages_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with ConsoleBar(stream=stream) as bar:
        for stage in ("reading", "writing"):
            row_counter(bar.progress, stage, 100)(1_000)
    text = stream.getvalue()
    assert "reading" in text
    assert re.search(r"writing .*1,000 rows", text)


def test_everything_goes_to_stderr(capsys, monkeypatch):
    ConsoleBar().say("a line")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "a line\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("late.zarr", "late.zarr"),
        ("é and\n two lines", "é and\n two lines"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\rb", r"a\rb"),
        ("a\u202eb", r"a\u202eb"),
    ],
)
def test_no_text_steers_the_terminal(text, expected):
    assert printable(text) == expected


def test_rich_is_loaded_for_a_terminal_only(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    ConsoleBar(stream=io.StringIO())
    with pytest.raises(ImportError):
        ConsoleBar(stream=Terminal())


class Gone(Terminal):
    """A terminal that is closed after so many writes, as the system tells of it."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(5, "Input/output error")
        return super().write(text)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stream_that_nobody_reads_stops_no_run(clock, monkeypatch, terminal):
    stream = Gone(2)
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    with ConsoleBar(stream=stream) as bar:
        bar.say("a line")
        for event in (started(), Progressed(500, 1.0), stepped(1), stepped(2), Ended(True, 2.0)):
            bar(event)
            clock[0] += 2.0
        bar.say("another")
    assert stream.left < 0
    assert stream.getvalue().startswith("a line\n")
    closed = io.StringIO()
    closed.close()
    ConsoleBar(stream=closed).say("a line")


class Notebook:
    """What ipykernel puts in the place of stderr: neither a terminal nor a file."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.shown: list[str] = []

    def write(self, text: str) -> int:
        self.shown.append(text)
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


def test_a_notebook_gets_plain_lines(clock, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    stream: Any = Notebook()
    monkeypatch.setattr(sys, "stderr", stream)
    with ConsoleBar() as bar:
        for event in (started("sgd", 4), stepped(2), stepped(3), Ended(True, 2.0)):
            bar(event)
            clock[0] += 2.0
    lines = "".join(stream.shown).splitlines()
    due = [["2 of 4 passes", "loss 0.5"], ["3 of 4 passes", "loss 0.5"]]
    assert [line.split("  ")[:2] for line in lines] == due
    assert all(line.isprintable() for line in lines)
