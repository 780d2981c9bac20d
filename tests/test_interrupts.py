"""Ctrl-C: the first ends a run after a step and keeps what was learned, the second interrupts."""

import os
import signal
import sys
import threading
from dataclasses import replace
from functools import partial
from time import sleep
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, cross_val_score

from ooc_train import LogisticRegression
from ooc_train.models.classification_models import LogisticModel
from ooc_train.monitoring import interrupts
from ooc_train.monitoring.interrupts import Interrupts, immediate_interrupts
from ooc_train.runs.events import Ended, Progressed, Started, Stepped, Stop
from ooc_train.runs.run_loading import load_fitted
from ooc_train.solvers.training_settings import Training
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.stream import passes
from ooc_train.stream.inputs import read_inputs
from ooc_train.training import within_pass
from ooc_train.training.checkpoints import Checkpoint
from ooc_train.training.loop import train
from tests.killing import run_forked

LOGISTIC, FULL = LogisticModel(), Training(solver="lbfgs", tol=0.0, max_iter=50)
KEPT = "stopped by Ctrl-C before its end"


@pytest.fixture(autouse=True)
def no_request_before(monkeypatch):
    """Each test has its own first Ctrl-C, and leaves Python's handler in place."""
    monkeypatch.setattr(interrupts, "_last_request", -1e9)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 4))
    return read_inputs(X, (X[:, 0] + rng.standard_normal(500) > 0).astype(int), classifier=True)


class CtrlC:
    """Presses Ctrl-C at the n-th event of a kind, so many times."""

    def __init__(self, kind: Any = Stepped, at: int = 1, times: int = 1) -> None:
        self.kind, self.at, self.times = kind, at, times
        self.count = 0

    def __call__(self, event: Any) -> None:
        if isinstance(event, self.kind):
            self.count += 1
            if self.count == self.at:
                for _ in range(self.times):
                    self.press()

    def press(self) -> None:
        signal.raise_signal(signal.SIGINT)


def stopped(*arguments: Any, **settings: Any) -> tuple[Any, Any]:
    """Train until Ctrl-C; return the model so far and its report."""
    with pytest.raises(KeyboardInterrupt) as caught:
        train(*arguments, **settings)
    # A process that ends by another type would have the status 1, and a loop of a shell go on.
    assert type(caught.value) is KeyboardInterrupt
    so_far = vars(caught.value)
    return so_far["fitted"], so_far["report"]


def test_the_first_stops_after_the_step_and_saves(rows, tmp_path, capsys):
    out = tmp_path / "a.run"
    fitted, report = stopped(LOGISTIC, rows, FULL, callbacks=[CtrlC(Stepped, 3)], out=out)
    assert (report.n_iter, report.converged) == (2, False)  # the first looked at the start
    assert report.notes == (KEPT,)
    assert load_fitted(out).report["n_iter"] == 2
    np.testing.assert_array_equal(load_fitted(out).coef, fitted.coef)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        "stopping after this step; Ctrl-C again interrupts at once\n"
        f"the run was stopped by Ctrl-C after {report.passes:.4g} passes; "
        f"its current state is saved in {out}\n"
    )


@pytest.mark.parametrize("kind", [Started, Progressed])
def test_before_the_first_update_there_would_be_nothing_to_keep(rows, kind, capsys):
    fitted, report = stopped(LOGISTIC, rows, FULL, callbacks=[CtrlC(kind)])
    # The first pass only looks at where it stands.
    assert report.n_iter == 1
    assert np.abs(fitted.coef).max() > 0
    assert capsys.readouterr().err.endswith(" passes\n")


def test_an_epoch_of_updates_ends_within(tmp_path, monkeypatch):
    store = make_data(tmp_path / "a.zarr", rows=60_000, features=50)
    assert store.n_chunks > 4
    monkeypatch.setattr(passes, "_FIRST_SEGMENT_ROWS", 1)
    monkeypatch.setattr(passes, "_SEGMENT_SECONDS", 0.0)
    # A loss within the pass, which a slow machine has time for, would be an event too.
    monkeypatch.setattr(within_pass, "_LEAST_SECONDS", 1e9)
    training = Training(batch_size=10, max_iter=3, random_state=0)
    press = CtrlC(Progressed, 4)
    fitted, report = stopped(LOGISTIC, store, training, callbacks=[press])
    assert press.count <= 6  # one more evaluates what was learned
    # Whole chunks were learned from, and the rest of the epoch was left.
    assert 0 < report.updates < 6000
    assert report.n_iter == 1
    assert np.isfinite(report.loss)
    assert np.abs(fitted.coef).max() > 0
    assert report.notes == (KEPT,)


def test_the_second_interrupts_at_once_and_saves_nothing(rows, tmp_path):
    out = tmp_path / "a.run"
    press = CtrlC(Stepped, 2, times=2)
    with pytest.raises(KeyboardInterrupt):
        train(LOGISTIC, rows, FULL, callbacks=[press], out=out)
    assert press.count == 2
    assert list(tmp_path.iterdir()) == []


class InAFinalizer(CtrlC):
    """Ctrl-C while Python finalizes an object, as Dask's futures are at any time."""

    class Object:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def press(self) -> None:
        self.Object()


def test_the_second_interrupts_though_it_meets_a_finalizer(rows, monkeypatch):
    """Python drops an exception of a finalizer: the run would go on, below a traceback."""
    dropped: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)
    second = InAFinalizer()
    with pytest.raises(KeyboardInterrupt) as caught:
        train(LOGISTIC, rows, FULL, callbacks=[CtrlC(), second, lambda _: sleep(second.count)])
    assert not vars(caught.value)
    assert dropped == []


def test_work_of_many_runs_is_interrupted_though_it_meets_a_finalizer(monkeypatch):
    dropped: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)

    def press_and_wait() -> None:
        InAFinalizer().press()
        sleep(20)

    with pytest.raises(KeyboardInterrupt), immediate_interrupts():
        press_and_wait()
    assert dropped == []


def test_the_second_may_meet_another_run(rows, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(interrupts, "perf_counter", lambda: now[0])
    assert stopped(LOGISTIC, rows, FULL, callbacks=[CtrlC()])[1].notes == (KEPT,)
    now[0] += 9.0
    with pytest.raises(KeyboardInterrupt) as caught:
        train(LOGISTIC, rows, FULL, callbacks=[CtrlC()])
    assert not vars(caught.value)
    now[0] += 11.0
    assert stopped(LOGISTIC, rows, FULL, callbacks=[CtrlC()])[1].notes == (KEPT,)


def test_one_that_comes_when_all_is_done_is_not_swallowed(rows, tmp_path, capsys):
    out = tmp_path / "a.run"
    with pytest.raises(KeyboardInterrupt):
        train(LOGISTIC, rows, replace(FULL, max_passes=3), callbacks=[CtrlC(Ended)], out=out)
    (note,) = load_fitted(out).report["notes"]
    assert note.startswith("not converged: max_passes=3 reached")
    assert capsys.readouterr().err == ""


def test_a_handler_of_others_is_left_alone(rows):
    seen = []
    signal.signal(signal.SIGINT, lambda *arrived: seen.append(arrived[0]))
    try:
        _, report = train(LOGISTIC, rows, replace(FULL, max_passes=5), callbacks=[CtrlC()])
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert seen == [signal.SIGINT]
    assert report.n_iter > 1
    assert report.notes == (report.shortfall,)


def test_work_of_many_runs_is_interrupted_at_once(rows):
    press = CtrlC()
    with pytest.raises(KeyboardInterrupt), immediate_interrupts():
        train(LOGISTIC, rows, FULL, callbacks=[press])
    assert press.count == 1


def test_other_threads_have_no_ctrl_c(rows):
    found = []
    thread = threading.Thread(
        target=lambda: found.append(train(LOGISTIC, rows, replace(FULL, max_passes=3))[1])
    )
    thread.start()
    thread.join()
    assert found[0].n_iter >= 1
    with immediate_interrupts():
        inner = threading.Thread(target=lambda: immediate_interrupts().__enter__())
        inner.start()
        inner.join()


def test_an_error_is_the_error_though_ctrl_c_came(rows):
    def fail(event: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        raise RuntimeError("a callback failed")

    with pytest.raises(RuntimeError, match="a callback failed"):
        train(LOGISTIC, rows, FULL, callbacks=[fail])


def test_an_estimator_keeps_what_it_learned_and_warns_of_nothing(monkeypatch):
    X = np.random.default_rng(0).standard_normal((500, 4))
    enter = Interrupts.__enter__

    def enter_and_press(self):
        enter(self)
        signal.raise_signal(signal.SIGINT)
        return self

    monkeypatch.setattr(Interrupts, "__enter__", enter_and_press)
    model = LogisticRegression(solver="lbfgs", tol=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, X[:, 0] > 0)
    assert model.report_.n_iter == 1
    assert model.report_.notes == (KEPT,)
    assert model.score(X, X[:, 0] > 0) > 0.5


@pytest.mark.parametrize("searches", [False, True])
def test_one_ends_a_search_and_no_score_of_a_fit_cut_short_is_returned(searches):
    X = np.random.default_rng(0).standard_normal((500, 4))
    y, press = X[:, 0] > 0, CtrlC(Stepped, 5)
    # Clones copy callbacks, but for functions.
    model = LogisticRegression(solver="lbfgs", tol=0, callbacks=(lambda event: press(event),))
    search = GridSearchCV(model, {"C": [0.1, 1.0]}, cv=3)
    fit = partial(search.fit, X, y) if searches else partial(cross_val_score, model, X, y, cv=3)
    with pytest.raises(KeyboardInterrupt):
        fit()
    assert press.count == 5  # no other fold has begun


def test_signals_are_taken_and_given_back():
    before = signal.getsignal(signal.SIGHUP)
    with Interrupts((signal.SIGHUP,)) as both:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)  # as a shell and the system both send it
        assert both.received is signal.SIGHUP
        with pytest.raises(Stop, match="stopped by the end of its terminal before its end"):
            both(Progressed(1, 1.0))
        both(Ended(False, 1.0))
    assert signal.getsignal(signal.SIGHUP) is before
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts((signal.SIGHUP,)) as ignored:  # as nohup has it
            signal.raise_signal(signal.SIGHUP)
        assert ignored.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_with_checkpoints_and_then_its_process(rows, tmp_path, number):
    def at_the_second(event: Any) -> None:
        if isinstance(event, Stepped) and event.n_iter == 2:
            signal.raise_signal(number)

    def job() -> None:
        kept = {"out": tmp_path / "run", "checkpoint": tmp_path / "run.checkpoint"}
        train(LOGISTIC, rows, FULL, callbacks=[at_the_second], **kept)

    assert run_forked(job)  # a signal ended it
    assert load_fitted(tmp_path / "run").report["n_iter"] == 2
    assert sorted(os.listdir(tmp_path)) == ["run", "run.checkpoint"]
    resumed = Checkpoint(tmp_path / "run.checkpoint", resume=True)
    _, report = train(LOGISTIC, rows, replace(FULL, max_iter=3), checkpoint=resumed)
    assert "went on from a checkpoint of iteration 2" in " ".join(report.notes)


def test_what_a_stop_says_is_a_note(rows):
    def stop(event: Any) -> None:
        raise Stop("enough")

    _, report = train(LOGISTIC, rows, FULL, callbacks=[stop])
    assert (report.n_iter, report.notes) == (1, ("enough",))

    def silent(event: Any) -> None:
        raise Stop

    assert train(LOGISTIC, rows, FULL, callbacks=[silent])[1].notes == ()
