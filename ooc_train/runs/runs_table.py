"""Saved runs side by side: the settings that differ, and the figures of each."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ooc_train.core.named_classes import as_text
from ooc_train.core.text import losses
from ooc_train.core.units import approximate_bytes, approximate_duration
from ooc_train.errors import InvalidRun
from ooc_train.runs.report import Report, report_of
from ooc_train.runs.run_loading import SETTINGS_FILE, run_values

_LONGEST = 80


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A run as it is compared with others.

    Attributes
    ----------
    name : str
        Name of its folder.
    settings : mapping of str to str
        Settings of model and training, as text.
    report : Report
        The report.
    """

    name: str
    settings: Mapping[str, str]
    report: Report

    @classmethod
    def of(cls, name: str, values: Mapping[str, Any]) -> "SavedRun":
        """Make it from the values of its `model.json`; `InvalidRun` is raised without a report."""
        model = dict(values["model"])
        known = {"model": model.pop("name", "unknown")} | model | values["training"]
        settings = {key: as_text(value) for key, value in known.items()}
        return cls(name, settings, report_of(values["report"], name))

    @property
    def data(self) -> str:
        """What the run learned from, without what identifies it."""
        return self.report.origin.get("data", "unknown").partition(", ")[0]


def saved_runs(folder: str | os.PathLike[str]) -> tuple[list[SavedRun], list[tuple[str, str]]]:
    """Return the runs in a folder, the newest first, and (name, reason) of each unreadable one.

    Raises
    ------
    NotADirectoryError, FileNotFoundError
        If there is no such folder.
    """
    found: list[tuple[float, str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            file = os.path.join(entry.path, SETTINGS_FILE)
            if os.path.isfile(file):
                found.append((os.path.getmtime(file), entry.name))
    runs, unreadable = [], []
    for _, name in sorted(found, reverse=True):
        try:
            runs.append(SavedRun.of(name, run_values(os.path.join(folder, name))))
        except InvalidRun as error:
            unreadable.append((name, str(error)))
    return runs, unreadable


def runs_table(runs: Sequence[SavedRun]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return the head and the rows of a table: differing settings, then figures, of each run."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    # Models of other kinds lack a setting, which makes no difference.
    known = {n: {run.settings[n] for run in runs if n in run.settings} for n in names}
    differing = [name for name, values in known.items() if len(values) > 1]
    figures = ("loss", "validation", "passes", "time", "memory", "ended", "data", "date")
    rows = []
    for run in runs:
        report = run.report
        validation = report.validation_loss
        rows.append(
            [
                run.name,
                *(run.settings.get(name, "-")[:_LONGEST] for name in differing),
                losses(report.loss, None),
                "-" if validation is None else f"{validation:.6g}",
                f"{report.passes:.4g}",
                approximate_duration(report.seconds),
                approximate_bytes(report.memory.measured),
                "converged" if report.converged else report.ended or "unknown",
                run.data,
                report.origin.get("date", "unknown"),
            ]
        )
    return ("run", *differing, *figures), rows
