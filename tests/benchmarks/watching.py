"""What watching costs: a run without the Training page, with it, and with it open in a browser.

The first contestant finds no losses within passes either.

``python -m tests.benchmarks.watching [--rows 4M] [--rounds N] [--json FILE]``
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter
from typing import Any, Self

import numpy as np
import pytest

from ooc_train.models.classification_models import LogisticModel
from ooc_train.runs.events import Event
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.solvers.training_settings import Training
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.partial_pass import PartialPass
from ooc_train.training.iterations import Iterations
from ooc_train.training.loop import train
from tests.benchmarks.tools import Figure, arguments, interleave, report, table

_MOST = 1.01
"""A run that is watched takes at most so many times as long."""

_BROWSER = """
import sys, time
from bokeh.client import pull_session
session = pull_session(url=sys.argv[1])
print("open", flush=True)
while True:
    session.force_roundtrip()
    time.sleep(1.0)
"""

LOGISTIC = LogisticModel()
TRAININGS = {
    "full batch": Training(solver="lbfgs", max_iter=20, tol=1e-12),
    "batches of 256": Training(batch_size=256, max_iter=10, tol=0.0, random_state=0),
}


class NoPage:
    """Stands where the callback of the page does, and does nothing."""

    link, notes = None, ()

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, event: Event) -> None:
        pass


@contextmanager
def opened(link: str) -> Iterator[None]:
    """Hold a page open, as a browser does, without drawing it; to open it isn't counted."""
    # A process of its own, as a browser is: within this one it would keep the driver waiting.
    with subprocess.Popen(
        [sys.executable, "-c", _BROWSER, link], stdout=subprocess.PIPE
    ) as browser:
        if browser.stdout is None or not browser.stdout.readline():
            raise RuntimeError(f"{link} could not be opened")
        try:
            yield
        finally:
            browser.kill()


def contestants(
    training: Training, inputs: Inputs, client: Any, page: str
) -> dict[str, Callable[[], float]]:
    """Return runs that return the seconds of a pass."""

    def run() -> float:
        _, done = train(LOGISTIC, inputs, training, client=client)
        return done.seconds / done.passes

    def without() -> float:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ooc_train.training.loop.TrainingPage", NoPage)
            return run()

    def blind() -> float:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ooc_train.training.within_pass.WithinPass.look", lambda *_: None)
            return without()

    def watched() -> float:
        with opened(page):
            return run()

    return {"no losses": blind, "no page": without, "page closed": run, "page open": watched}


def share_of_losses(training: Training, inputs: Inputs, client: Any) -> float:
    """Return the share of a run's seconds in which the driver finds losses within passes."""
    spent, inner = [0.0], Iterations._on_progress

    def timed(self: Iterations, progress: Callable[[], PartialPass]) -> None:
        began = perf_counter()
        inner(self, progress)
        spent[0] += perf_counter() - began

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Iterations, "_on_progress", timed)
        _, done = train(LOGISTIC, inputs, training, client=client)
    return spent[0] / done.seconds


def main() -> None:
    """Let runs take turns, and say what those that are watched take more."""
    options = arguments(__doc__.partition("\n")[0], rows="4M").parse_args()
    lines, figures = [], {}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=2, dashboard_address="127.0.0.1:0") as cluster,
        cluster.get_client() as client,
    ):
        store = make_data(f"{folder}/made.zarr", rows=options.rows, random_state=0)
        inputs = read_inputs(store, classifier=True)
        once = replace(TRAININGS["batches of 256"], max_passes=1)
        _, first = train(LOGISTIC, inputs, once, client=client)
        page = str(first.dashboard).replace("/status", "/training")
        for name, training in TRAININGS.items():
            runs = contestants(training, inputs, client, page)
            seconds = {k: np.array(v) for k, v in interleave(runs, options.rounds).items()}
            ratios = {k: Figure.of(v / seconds["no losses"]) for k, v in seconds.items()}
            rows = [(k, str(Figure.of(v)), str(ratios[k])) for k, v in seconds.items()]
            lines.append(table((name, "s a pass", "over no losses"), rows))
            for k in ("no page", "page closed", "page open"):
                word = "reached" if ratios[k].median <= _MOST else "MISSED"
                lines.append(f"{name}, {k}: {ratios[k]}, at most {_MOST:g} {word}")
            shares = [share_of_losses(training, inputs, client) for _ in range(options.rounds)]
            share = Figure.of(np.array(shares))
            word = "reached" if share.median <= _MOST - 1 else "MISSED"
            lines.append(f"{name}, losses within passes, share of the seconds: {share}: {word}")
            figures[name] = ratios | {"losses": share}
    report("\n".join(lines), figures, options.json)


if __name__ == "__main__":
    main()
