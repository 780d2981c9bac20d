"""What keeps runs on the scheduler, and puts the page up there."""

from collections.abc import Mapping
from time import time
from typing import Any

from distributed import SchedulerPlugin

from ooc_train.monitoring.dashboard.page import put_up
from ooc_train.monitoring.dashboard.prometheus import export
from ooc_train.monitoring.dashboard.run_series import WORKER_METRIC, Run, Runs

HANDLER = "ooc_train_training"
"""What drivers call on the scheduler."""

_FAMILY = "ooc_train-training-"
NAME = _FAMILY + "2"
"""The plugin's name, whose number changes with what drivers send."""

_MOST_RUNS = 8


class TrainingPlugin(SchedulerPlugin):  # type: ignore[misc] # untyped base
    """Keeps what drivers send of their runs, and shows it beside Dask's own pages.

    Attributes
    ----------
    page : str or None
        The page's path, or None where the scheduler has no dashboard.
    why : str
        Why there is none.
    runs : what is known of them
    """

    name = NAME
    idempotent = True

    def __init__(self) -> None:
        self.page: str | None = None
        self.why = ""
        self.runs = Runs()
        self._retried = ("", 0)

    async def start(self, scheduler: Any) -> None:
        """Take the place of what an earlier plugin left, and put up the page."""
        self.scheduler = scheduler
        # Another version's: taking a plugin away calls none of its methods.
        for name in [name for name in scheduler.plugins if name.startswith(_FAMILY)]:
            scheduler.remove_plugin(name)
        scheduler.handlers[HANDLER] = self.receive
        self.page, self.why = put_up(self.runs, scheduler)
        export(self.runs, scheduler)

    def receive(
        self, kind: str, run: str = "", client: str = "", values: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Take in what a driver says of a run.

        Parameters
        ----------
        kind : str
            "asked", whether there is a page; "begun", "moved" or "ended", of a run.
        run, client : str
            Which run, and the client that it runs on.
        values : Mapping[str, object] or None
            Numbers and names, as `ooc_train.monitoring.driver` sends them.
        """
        values = values or {}
        if kind == "begun":
            self.runs[run] = Run(self.runs, run, client, values)
            for old in [r for r in self.runs.values() if r.state != "running"][:-_MOST_RUNS]:
                del self.runs[old.identity]
        elif run in self.runs:
            known = self.runs[run]
            for row in values["steps"]:
                known.steps.append(row)
            known.progress.append(values["progress"])
            for text in values["noted"]:
                known.events.appendleft((time(), text))
            self._look_at_memory(known, values)
            if kind == "ended":
                known.state = values["state"]
        self.runs.version += 1
        return {"page": self.page, "why": self.why}

    def _look_at_memory(self, run: Run, values: Mapping[str, Any]) -> None:
        if values["memory"]:
            run.processes = {str(i): (*row,) for i, row in enumerate(values["memory"])}
        elif values["driver"]:
            process, now, peak = values["driver"]
            found = {"": ("driver", now, peak)}
            for address, worker in self.scheduler.workers.items():
                reported = worker.metrics.get(WORKER_METRIC)
                if reported is None:
                    # One that joined later: what the system says, and the most of it that was seen.
                    now = int(worker.metrics.get("memory", 0))
                    reported = "", now, max(now, run.processes.get(address, ("", 0, 0))[2])
                # A worker within the driver's process is told of already.
                if reported[0] != process:
                    found[address] = (f"worker {worker.name}", reported[1], reported[2])
            run.processes = found

    def tell(self, text: str) -> None:
        """Note what happened, with every run that goes on."""
        for run in self.runs.values():
            if run.state == "running":
                run.events.appendleft((time(), text))
                self.runs.version += 1

    def transition(
        self, key: Any, start: str, finish: str, *_: Any, stimulus_id: str, **more: Any
    ) -> None:
        """Note a task that failed, and count those that go back to be tried again."""
        if finish == "erred" and start == "processing":
            self.tell(f"task {key} failed: {more.get('exception_text') or 'its worker was lost'}")
        elif finish == "released" and start == "processing":
            same = self._retried[0] == stimulus_id
            self._retried = (stimulus_id, self._retried[1] + 1 if same else 1)

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """Note a worker that came."""
        self.tell(f"worker {scheduler.workers[worker].name} joined ({worker})")

    def remove_worker(self, scheduler: Any, worker: str, *, stimulus_id: str, **_: Any) -> None:
        """Note a worker that is gone; its tasks have gone back before."""
        del scheduler
        stimulus, retried = self._retried
        again = f"; tasks tried again: {retried}" if stimulus == stimulus_id else ""
        self.tell(f"worker {worker} was lost{again}")

    def remove_client(self, scheduler: Any, client: str) -> None:
        """Take the runs of a driver that is gone as ended."""
        del scheduler
        for run in self.runs.values():
            if run.client == client and run.state == "running":
                run.state = "its driver is gone"
                self.runs.version += 1
