"""The scheduler plugin: it keeps the runs and installs the page."""

from collections.abc import Mapping
from time import time
from typing import Any

from distributed import SchedulerPlugin

from ooc_train.monitoring.dashboard.page import install_pages
from ooc_train.monitoring.dashboard.prometheus import export
from ooc_train.monitoring.dashboard.run_series import LOST, WORKER_METRIC, Run, Runs

HANDLER = "ooc_train_training"
"""Name of the scheduler's handler that drivers call."""

_FAMILY = "ooc_train-training-"
NAME = _FAMILY + "5"
"""Name of the plugin. Its number changes with the format of the messages."""

_MOST_RUNS = 8


class TrainingPlugin(SchedulerPlugin):  # type: ignore[misc] # untyped base
    """Receives the runs of drivers, and shows them next to Dask's pages.

    `page` is the path of the Training page; if the scheduler has no dashboard, `page` is None, and
    `why` states the reason.
    """

    name = NAME
    idempotent = True

    def __init__(self) -> None:
        self.page: str | None = None
        self.why = ""
        self.runs = Runs()
        self._retried = ("", 0)

    async def start(self, scheduler: Any) -> None:
        """Replace an earlier plugin and install the page."""
        self.scheduler = scheduler
        # One of another version: its removal calls none of its methods.
        for name in [name for name in scheduler.plugins if name.startswith(_FAMILY)]:
            scheduler.remove_plugin(name)
        scheduler.handlers[HANDLER] = self.receive
        self.page, self.why = install_pages(self.runs, scheduler)
        export(self.runs, scheduler)

    def receive(
        self, kind: str, run: str = "", client: str = "", values: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Record a message of a driver, and return the path of the page.

        Parameters
        ----------
        kind : str
            "ask" for the page; "start", "update" or "end" of a run.
        run, client : str
            Identity of the run, and its client.
        values : mapping or None
            Figures and names, as `ooc_train.monitoring.driver` sends them.

        Returns
        -------
        dict
            Path of the page, or None and the reason.
        """
        values = values or {}
        if kind == "start":
            self.runs[run] = Run(self.runs, run, client, values)
            for old in [r for r in self.runs.values() if r.state != "running"][:-_MOST_RUNS]:
                del self.runs[old.identity]
        elif run in self.runs:
            known = self.runs[run]
            for row in values["steps"]:
                known.steps.append(row)
            for row in values["within"]:
                known.within.append(row)
            known.progress.append(values["progress"])
            for text in values["notes"]:
                known.events.appendleft((time(), text))
            self._update_memory(known, values)
            if kind == "end":
                known.state = values["state"]
        self.runs.version += 1
        return {"page": self.page, "why": self.why}

    def _update_memory(self, run: Run, values: Mapping[str, Any]) -> None:
        if values["driver"]:
            process, now, peak = values["driver"]
            found = {"": ("driver", now, peak)}
            for address, worker in self.scheduler.workers.items():
                reported = worker.metrics.get(WORKER_METRIC)
                if reported is None:
                    # It joined later: Dask's figure, and the largest of them as its peak.
                    now = int(worker.metrics.get("memory", 0))
                    reported = "", now, max(now, run.processes.get(address, ("", 0, 0))[2])
                # A worker inside the driver's process is counted there.
                if reported[0] != process:
                    found[address] = (f"worker {worker.name}", reported[1], reported[2])
            run.processes = found
            run.sample_memory()
        if values["memory"]:
            run.processes = {str(i): (*row,) for i, row in enumerate(values["memory"])}

    def record_event(self, text: str) -> None:
        """Add an event to every running run."""
        for run in self.runs.values():
            if run.state == "running":
                run.events.appendleft((time(), text))
                self.runs.version += 1

    def transition(
        self, key: Any, start: str, finish: str, *_: Any, stimulus_id: str, **more: Any
    ) -> None:
        """Log a failed task, and count tasks that will be tried again."""
        if finish == "erred" and start == "processing":
            self.record_event(
                f"task {key} failed: {more.get('exception_text') or 'its worker was lost'}"
            )
        elif finish == "released" and start == "processing":
            same = self._retried[0] == stimulus_id
            self._retried = (stimulus_id, self._retried[1] + 1 if same else 1)

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """Log a worker that joined."""
        self.record_event(f"worker {scheduler.workers[worker].name} joined ({worker})")

    def remove_worker(self, scheduler: Any, worker: str, *, stimulus_id: str, **_: Any) -> None:
        """Log a lost worker; Dask has rescheduled its tasks before."""
        del scheduler
        stimulus, retried = self._retried
        again = f"; tasks tried again: {retried}" if stimulus == stimulus_id else ""
        self.record_event(f"worker {worker} was lost{again}")

    def remove_client(self, scheduler: Any, client: str) -> None:
        """End the runs of a driver that disconnected."""
        del scheduler
        for run in self.runs.values():
            if run.client == client and run.state == "running":
                run.state = LOST
                self.runs.version += 1
