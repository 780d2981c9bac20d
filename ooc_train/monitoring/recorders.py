"""Callbacks that record a run: JSON lines, TensorBoard, MLflow.

The libraries of the last two are optional. They are imported when the callback is made. Their
memory counts as the calling process's.
"""

import importlib
import json
import os
import time
from dataclasses import asdict
from typing import Any, Self

from ooc_train.core.closing import Closing
from ooc_train.core.optional_packages import needed_package
from ooc_train.core.places import local_path
from ooc_train.core.text import json_ready
from ooc_train.runs.events import Ended, Event, Started, Stepped

_FIGURES = (
    "loss",
    "validation_loss",
    "progressive_loss",
    "passes",
    "updates",
    "seconds",
    "gradient_norm",
)


class JsonLines:
    """Appends one JSON object to a file for each event of a run.

    An object holds the fields of the event, its kind as "event" ("compiling", "started",
    "progressed", "stepped", "noted", "saving", "ended") and the seconds since 1970 as "time".
    Numbers that are not finite become null. The file is opened anew for each line, so it is always
    complete and needs no closing.

    Parameters
    ----------
    path : str or path
        The file. Existing lines are kept.

    Raises
    ------
    OSError
        If the file can't be written.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> import json
    >>> from ooc_train import JsonLines, LogisticModel, train
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> fitted, _ = train(LogisticModel(), X, y=y, callbacks=[JsonLines("events.jsonl")])
    >>> with open("events.jsonl") as file:
    ...     print(json.loads(next(file))["event"])
    started
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = local_path(path)
        self._append("")

    def __call__(self, event: Event) -> None:
        """Append an event to the file as a line of JSON."""
        kind = type(event).__name__.lower()
        values = {"event": kind, "time": time.time()} | asdict(event)
        self._append(json.dumps(json_ready(values), allow_nan=False) + "\n")

    def _append(self, line: str) -> None:
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(line)


class TensorBoard(Closing):
    """Writes losses, gradient norm, updates and seconds of each step for TensorBoard.

    The step number is the iteration or epoch; passes are recorded as a scalar.

    Parameters
    ----------
    log_dir : str or path
        Folder for ``tensorboard --logdir``.

    Raises
    ------
    MissingPackage
        If tensorboardX is not installed.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self._make = _library("tensorboardX").SummaryWriter
        self._log_dir = os.fspath(log_dir)
        self._writer: Any = None

    def __call__(self, event: Event) -> None:
        """Write the figures of a step; open and close the log with the run."""
        match event:
            case Started():
                self.close()
                self._writer = self._make(self._log_dir)
                self._writer.add_text("model", f"{event.model} by {event.solver}")
                self._writer.add_text("batch size", event.batch_size)
            case Stepped() if self._writer is not None:
                for name, value in _figures(event).items():
                    self._writer.add_scalar(name, value, event.n_iter)
            case Ended():
                self.close()

    def close(self) -> None:
        """Flush and close the log; needed after a failed run."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class MLflow:
    """Records a run with MLflow: settings as parameters, steps as metrics.

    As a context manager it marks a failed run as failed.

    Parameters
    ----------
    experiment : str
        Name of the experiment; created if missing.
    run_name : str or None
        Name of the run; MLflow draws one for None.
    tracking_uri : str or None
        Where MLflow keeps its runs; None is MLflow's default.

    Attributes
    ----------
    run_id : str or None
        MLflow's identifier of the last run.

    Raises
    ------
    MissingPackage
        If mlflow is not installed.
    """

    def __init__(
        self,
        experiment: str = "ooc_train",
        run_name: str | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        self._client = _library("mlflow").MlflowClient(tracking_uri=tracking_uri)
        self._metric = _library("mlflow.entities").Metric
        self._experiment = experiment
        self._run_name = run_name
        self._running = False
        self.run_id: str | None = None

    def __call__(self, event: Event) -> None:
        """Record the figures of a step; begin and end MLflow's run with the run."""
        match event:
            case Started():
                self._begin(event)
            case Stepped() if self._running:
                now = int(time.time() * 1000)
                metrics = [
                    self._metric(name, float(value), now, event.n_iter)
                    for name, value in _figures(event).items()
                ]
                self._client.log_batch(self.run_id, metrics=metrics)
            case Ended():
                self._end("FINISHED")

    def _begin(self, event: Started) -> None:
        self._end("KILLED")
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = (
            self._client.create_experiment(self._experiment)
            if found is None
            else found.experiment_id
        )
        run = self._client.create_run(experiment, run_name=self._run_name)
        self.run_id, self._running = run.info.run_id, True
        for name in ("model", "solver", "batch_size", "n_rows", "n_features", "max_iter"):
            self._client.log_param(self.run_id, name, getattr(event, name))

    def _end(self, status: str) -> None:
        if self._running:
            self._running = False
            self._client.set_terminated(self.run_id, status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._end("FINISHED" if kind is None else "FAILED")


def _figures(step: Stepped) -> dict[str, float]:
    """Return the figures of a step that are not None, by name."""
    values = {name: getattr(step, name) for name in _FIGURES}
    return {name: value for name, value in values.items() if value is not None}


def _library(name: str) -> Any:
    with needed_package(name, f"records by {name}"):
        return importlib.import_module(name)
