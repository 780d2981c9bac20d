"""The demo: real data at four batch sizes, then synthetic data much larger than the memory ceiling.

All steps run in the same processes. Each fit restarts the peaks of memory (`Peaks`), so its figure
is its own peak, including libraries that earlier fits loaded. The largest peak is kept too.
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

from ooc_train.core.progress import Progress
from ooc_train.core.temporary_folders import temporary_folder
from ooc_train.core.units import approximate_bytes
from ooc_train.experiments.comparing import load
from ooc_train.inference.predict import evaluate
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.classification_models import LogisticModel
from ooc_train.runs.events import Callback
from ooc_train.runs.report import Report
from ooc_train.solvers.training_settings import AUTOMATIC, Training
from ooc_train.store.dataset import Store
from ooc_train.store.jobs.ingest import ingest
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.store.opening.opener import open_store
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.loop import train
from ooc_train.training.task import Task

BATCH_SIZES: tuple[int | str, ...] = ("full", "chunk", 256, 1)
EPOCHS = 5
"""Epochs of updates; full-batch fits stop by themselves."""

FEATURES = 100
_ROW_BYTES = 4 * FEATURES + 1
RAW_FILE_BYTES = 192 * 2**20
"""Memory that reading raw files leaves in this process: pyarrow and its allocator's cache."""

_FLIGHTS_BYTES = 64 * 2**20
"""Disk space for the stores of flights (20 MB), and temporary files while they are written."""


@dataclass(frozen=True)
class Fit:
    """A fit and its metrics on unseen rows.

    Attributes
    ----------
    report : Report
        The report of the fit.
    metrics : mapping
        Metrics of the test rows: `log_loss`, `roc_auc`, ...
    """

    report: Report
    metrics: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the figures of the table in JSON's types."""
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
    """Return the path of the flights: inside the package (wheel) or next to it (clone).

    Raises
    ------
    FileNotFoundError
        If neither exists.
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
    """Return the number of synthetic rows that take about `size` bytes; at least one."""
    return max(1, round(size / _ROW_BYTES))


def require_disk_space(folder: str, size: int) -> None:
    """Refuse a disk that cannot hold the flights and `size` bytes of synthetic data.

    Raises
    ------
    OSError
        With the needed and the free bytes.
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
    """Give a folder that is removed at the end, after Ctrl-C and after kill."""
    with (
        _signals_end((signal.SIGTERM, signal.SIGHUP)),
        temporary_folder("demo") as folder,
    ):
        yield folder


@contextmanager
def _signals_end(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Turn signals that would end the process at once into `SystemExit`, so that it cleans up."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Signals that nohup ignores stay ignored.
    ours = [number for number in signals if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def store_flights(folder: str, *, memory_ceiling: Ceiling, overwrite: bool) -> tuple[Store, Store]:
    """Write stores of the flights, `flights.zarr` and `flights.test.zarr` (a fifth of the rows).

    Raises
    ------
    OutputExists
        If one exists and `overwrite` is False.
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
    store: Store, *, client: Any, memory_ceiling: Ceiling, callback: Callback
) -> float:
    """Let the workers load libraries and kernels; return the seconds that loading took.

    Otherwise the first fit of a kind would be charged for loading, or even for compiling kernels.
    """
    begun = perf_counter()
    inputs = read_inputs(store, classifier=True)
    tasks = [Task.of(LogisticModel(), inputs, _training(size)) for size in BATCH_SIZES]
    load(
        inputs.source,
        [task.requirements() for task in tasks],
        client=client,
        memory_ceiling=memory_ceiling,
        callbacks=(callback,),
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
    """Fit a logistic regression to the training rows; evaluate it on the test rows."""
    fitted, report = train(
        LogisticModel(),
        stores[0],
        _training(batch_size),
        client=client,
        memory_ceiling=memory_ceiling,
        callbacks=(callback,),
    )
    metrics, _ = evaluate(fitted, stores[1], client=client, memory_ceiling=memory_ceiling)
    return Fit(report, metrics)


def _training(batch_size: int | str) -> Training:
    if batch_size == "full":
        return AUTOMATIC
    return Training(batch_size=batch_size, max_iter=EPOCHS, random_state=0)


def write_synthetic(
    folder: str,
    size: int,
    *,
    memory_ceiling: Ceiling,
    overwrite: bool,
    progress: Progress,
) -> tuple[Store, float]:
    """Write about `size` bytes to `synthetic.zarr`; return the store and the seconds of writing."""
    begun = perf_counter()
    store = make_data(
        os.path.join(folder, "synthetic.zarr"),
        rows=rows_of(size),
        features=FEATURES,
        memory_ceiling=memory_ceiling,
        overwrite=overwrite,
        progress=progress,
    )
    return store, perf_counter() - begun


def fit_synthetic(
    store: Store, *, client: Any, memory_ceiling: Ceiling, callback: Callback
) -> Report:
    """Fit a logistic regression to the synthetic data by full batches."""
    _, report = train(
        LogisticModel(),
        open_store(store.path),
        client=client,
        memory_ceiling=memory_ceiling,
        callbacks=(callback,),
    )
    return report
