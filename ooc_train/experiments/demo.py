"""The demo: real data at four batch sizes, then made data of many times the memory ceiling.

Every step runs in the same processes. A process's peak only grows while it lives, so each fit
starts the peaks again from what the processes hold by then (`Peaks`): a figure is that fit's own,
what earlier ones left loaded included. The largest of them all is kept too.
"""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ooc_train.core.places import temporary_folder
from ooc_train.core.progress import Progress
from ooc_train.core.units import approximate_bytes
from ooc_train.experiments.comparing import load
from ooc_train.inference.predict import evaluate
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.settings import Model
from ooc_train.runs.events import Callback
from ooc_train.runs.report import Report
from ooc_train.store.dataset import Store
from ooc_train.store.jobs.ingest import ingest
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.store.opening.opener import open_store
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.loop import Task, train

BATCH_SIZES: tuple[int | str, ...] = ("full", "chunk", 256, 1)
EPOCHS = 5
"""Passes of those that learn by batches; full batches stop by themselves."""

FEATURES = 100
_ROW_BYTES = 4 * FEATURES + 1
BESIDE_BYTES = 192 * 2**20
"""What reading raw files leaves in this process: pyarrow, and what its allocator keeps."""

_FLIGHTS_BYTES = 64 * 2**20
"""Room for the flights' stores (20 MB) and for what writing them takes meanwhile."""


@dataclass(frozen=True)
class Fit:
    """One fit and how well it does on rows that it has not seen.

    Attributes
    ----------
    report : Report
    metrics : mapping
        Of the test rows: `log_loss`, `roc_auc`, ...
    """

    report: Report
    metrics: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the figures of the table as values that JSON can hold."""
        report, memory = self.report, self.report.memory
        return {
            "batch_size": report.batch_size,
            "solver": report.solver,
            "passes": report.passes,
            "updates": report.updates,
            "seconds": report.seconds,
            "log_loss": self.metrics["log_loss"],
            "roc_auc": self.metrics["roc_auc"],
            "projected": memory.projected,
            "measured": memory.measured,
        }


def flights_file() -> str:
    """Return the path of the flights: in a wheel inside the package, in a clone beside the package.

    Raises
    ------
    FileNotFoundError
        Where neither has it.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    places = [os.path.join(folder, "data") for folder in (package, os.path.dirname(package))]
    for place in places:
        path = os.path.join(place, "flights.parquet")
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(
        f"flights.parquet is in neither {places[0]} nor {places[1]}; install ooc-train again"
    )


def rows_of(size: int) -> int:
    """Return how many made rows take about `size` bytes; at least one."""
    return max(1, round(size / _ROW_BYTES))


def require_room(folder: str, size: int) -> None:
    """Refuse a disk that cannot hold the flights and `size` bytes of made data.

    Raises
    ------
    OSError
        With what is needed and what is free.
    """
    need, free = size + _FLIGHTS_BYTES, shutil.disk_usage(folder).free
    if need > free:
        raise OSError(
            f"the demo writes {approximate_bytes(need)} and {folder} has "
            f"{approximate_bytes(free)} free; name a place with more by --dir, or give a "
            "smaller --size"
        )


@contextmanager
def scratch_folder() -> Iterator[str]:
    """Give a folder for data, which is gone afterwards, whether that is the end, Ctrl-C or kill."""
    with (
        _signals_end((signal.SIGTERM, signal.SIGHUP)),
        temporary_folder("demo") as folder,
    ):
        yield folder


@contextmanager
def _signals_end(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Have signals that end a process on the spot end it by way of its clean-up."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # What nohup has ignored stays ignored.
    ours = [number for number in signals if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def store_flights(folder: str, *, memory_ceiling: Ceiling, overwrite: bool) -> tuple[Store, Store]:
    """Write the flights as stores of training and test rows (a fifth), `flights.zarr` and sister.

    Raises
    ------
    OutputExists
        Where one lies there and `overwrite` is not set.
    CeilingExceeded, OSError
        As `ingest` does.
    """
    made = ingest(
        flights_file(),
        os.path.join(folder, "flights.zarr"),
        target="late",
        test_size=0.2,
        memory_ceiling=memory_ceiling,
        overwrite=overwrite,
    )
    if made.test is None:
        raise RuntimeError("ingest made no test store")
    return made.store, made.test


def load_libraries(
    batch_size: int | str, store: Store, *, client: Any, memory_ceiling: Ceiling
) -> float:
    """Have the workers load what a fit needs, and return the seconds that it took.

    Otherwise the first fit of a kind would be charged with it, above all where the kernels have to
    be compiled, as after an installation.
    """
    begun = perf_counter()
    inputs = read_inputs(store, classifier=True)
    task = Task.of(_model(batch_size), inputs)
    load(
        inputs.source,
        [task.requirements()],
        kernels=task.needs_kernels,
        client=client,
        memory_ceiling=memory_ceiling,
    )
    return perf_counter() - begun


def fit_flights(
    batch_size: int | str,
    stores: tuple[Store, Store],
    *,
    client: Any,
    memory_ceiling: Ceiling,
    callback: Callback,
) -> Fit:
    """Fit a logistic regression to training rows, and evaluate it on test rows."""
    fitted, report = train(
        _model(batch_size),
        stores[0],
        client=client,
        memory_ceiling=memory_ceiling,
        callbacks=(callback,),
    )
    metrics, _ = evaluate(fitted, stores[1], client=client, memory_ceiling=memory_ceiling)
    return Fit(report, metrics)


def _model(batch_size: int | str) -> Model:
    if batch_size == "full":
        return Model(name="logistic")
    return Model(name="logistic", batch_size=batch_size, max_iter=EPOCHS, random_state=0)


def make(
    folder: str,
    size: int,
    *,
    memory_ceiling: Ceiling,
    overwrite: bool,
    progress: Progress,
) -> tuple[Store, float]:
    """Write about `size` bytes of made data to `made.zarr`; return it and the seconds it took."""
    begun = perf_counter()
    store = make_data(
        os.path.join(folder, "made.zarr"),
        rows=rows_of(size),
        features=FEATURES,
        memory_ceiling=memory_ceiling,
        overwrite=overwrite,
        progress=progress,
    )
    return store, perf_counter() - begun


def fit_made(store: Store, *, client: Any, memory_ceiling: Ceiling, callback: Callback) -> Report:
    """Fit a logistic regression, by full batches, to the made data."""
    _, report = train(
        Model(name="logistic"),
        open_store(store.path),
        client=client,
        memory_ceiling=memory_ceiling,
        callbacks=(callback,),
    )
    return report
