"""What a run says of itself in words: steps that were shortened, and why it ended."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.linear import LinearProblem
from ooc_train.runs.events import Compiling, Ended, Noted, Saving, Started, Stepped, Stop
from ooc_train.solvers import lbfgs
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.checkpoints import Checkpoint
from ooc_train.training.loop import train
from tests.streams import write_store

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3000, 3))
ROWS = read_inputs(X, (X[:, 0] + RNG.logistic(size=3000) > 0).astype(int), classifier=True)
LOGISTIC, UPDATES = LogisticModel(), Training(batch_size=32, max_iter=3, random_state=0)


class Listener:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def __call__(self, event: Any) -> None:
        self.events.append(event)

    @property
    def of_the_run(self) -> Iterator[Any]:
        """The events from `Started` on: what comes before depends on the cache of kernels."""
        return (event for event in self.events if not isinstance(event, Compiling))

    @property
    def notes(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Noted)]


def integrity_notes(model: LogisticModel, training: Training, **settings: Any) -> list[str]:
    listener = Listener()
    train(model, ROWS, training, callbacks=[listener], **settings)
    assert isinstance(next(listener.of_the_run), Started)
    assert isinstance(listener.events[-1], Ended)
    return listener.notes


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        ({}, "max_iter=3 reached"),
        ({"max_passes": 2}, "max_passes=2 reached"),
        ({"max_seconds": 1e-9}, "max_seconds=1e-09 reached"),
    ],
)
def test_a_run_says_which_limit_ended_it(settings, end):
    first, *_, last = integrity_notes(LOGISTIC, replace(UPDATES, **settings))
    assert first.startswith("learning rate ")
    assert first.endswith(", falling")
    assert last == f"stopped: {end}"


@pytest.mark.parametrize("batch_size", [1, 32, 700])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_limit_leaves_the_model_of_a_run_that_was_planned_to_end_there(batch_size, solver):
    training = replace(UPDATES, batch_size=batch_size, solver=solver, max_iter=2)
    planned, _ = train(LOGISTIC, ROWS, training)
    limited, report = train(LOGISTIC, ROWS, replace(training, max_iter=30, max_passes=2))
    np.testing.assert_array_equal(limited.coef, planned.coef)
    assert report.n_iter == 2  # rows that evaluate the model are not counted
    assert report.shortfall.startswith("not converged: max_passes=2 reached")


def test_a_run_says_that_it_converged_and_where_it_was_saved(tmp_path):
    path = str(tmp_path / "a.run")
    assert integrity_notes(LOGISTIC, Training(), out=path) == [
        "converged: tolerance reached",
        f"saved in {path}",
    ]
    training = Training(batch_size=32, tol=0.5, random_state=0, learning_rate=0.01)
    assert integrity_notes(LOGISTIC, training) == [
        "learning rate 0.01",
        "no epoch of the last 5 lowered the objective by 0.5",
        "converged: tolerance reached",
    ]


def test_who_stops_a_run_is_told_of_once_and_by_no_note_of_a_note():
    class Stops(Listener):
        def __call__(self, event: Any) -> None:
            super().__call__(event)
            if any(isinstance(e, Stepped) for e in self.events):
                raise Stop("enough" if isinstance(event, Stepped) else f"{len(self.events)} events")

    stops, behind = Stops(), Listener()
    train(LOGISTIC, ROWS, UPDATES, callbacks=[stops, behind])
    assert stops.notes[1:] == ["enough"]
    # All have heard of the step before they hear what came of it.
    assert stops.events == behind.events
    assert [type(event) for event in behind.events[-3:]] == [Stepped, Noted, Ended]


def test_a_sample_that_newton_begins_at_is_told_of(tmp_path):
    write_store(tmp_path / "a", X, (X[:, 0] > 0).astype(int), chunk_rows=50)
    listener = Listener()
    # Four parameters, of which each takes a hundred rows; the store is less than 16 times that.
    train(LogisticModel(C=0.1), tmp_path / "a", callbacks=[listener])
    assert not any("sample" in note for note in listener.notes)
    narrow = X[:, :1].copy()
    write_store(tmp_path / "b", np.tile(narrow, (2, 1)), np.arange(6000) % 2, chunk_rows=50)
    train(LogisticModel(C=0.1), tmp_path / "b", callbacks=[listener])
    assert "begins at the optimum of a sample of 200 rows" in listener.notes


@pytest.mark.parametrize(
    ("solver", "method", "text"),
    [("newton", LinearProblem, "shortened to"), ("lbfgs", lbfgs, "shorter ones, ")],
)
def test_a_step_that_is_shortened_is_told_of(monkeypatch, solver, method, text):
    # A direction that is far too long.
    name = "direction" if solver == "newton" else "_direction"
    exact = getattr(method, name)

    def far(*given: Any) -> Any:
        found = exact(*given)
        return (50.0 * found[0], *found[1:]) if isinstance(found, tuple) else 50.0 * found

    monkeypatch.setattr(method, name, far)
    notes = integrity_notes(LogisticModel(C=1e-3), Training(solver=solver, max_iter=6))
    assert any(text in note and "did not lower the objective enough" in note for note in notes)


def test_what_is_saved_is_told_of_before(tmp_path):
    listener = Listener()
    place = tmp_path / "a.run"
    there: list[bool] = []

    def look(event: Any) -> None:
        listener(event)
        if isinstance(event, Saving) and event.what == "run":
            there.append(place.exists())

    checkpoint = Checkpoint(tmp_path / "a.checkpoint", every="1 pass")
    train(LOGISTIC, ROWS, UPDATES, callbacks=[look], out=place, checkpoint=checkpoint)
    told = [str(event) for event in listener.events if isinstance(event, Saving)]
    assert told == ["saving the checkpoint", "saving the run"]
    assert there == [False]
    assert place.exists()
