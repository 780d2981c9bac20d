"""Runs as Prometheus asks for them, at the scheduler's `/metrics`."""

from collections.abc import Mapping
from typing import Any

from ooc_train.monitoring.dashboard.run_series import STEPS, Run, Runs


class _Metrics:
    """The runs as Prometheus asks for them, at the scheduler's `/metrics`."""

    def __init__(self, runs: Runs, scheduler: Any) -> None:
        self._runs, self._scheduler = runs, scheduler

    def describe(self) -> list[Any]:
        """Return nothing: what is told depends on the runs, and on whether there are any."""
        return []

    def collect(self) -> list[Any]:
        """Return what is known of each run by now; nothing of a scheduler that has ended."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        run_labels = ["run", "model", "solver", "batch_size"]
        families = {
            "rows": CounterMetricFamily("ooc_train_rows", "Rows read", labels=run_labels),
            "updates": CounterMetricFamily(
                "ooc_train_updates", "Updates of the parameters", labels=run_labels
            ),
            "seconds": CounterMetricFamily(
                "ooc_train_seconds",
                "Seconds of all threads, by what they went on",
                labels=[*run_labels, "activity"],
            ),
            "loss": GaugeMetricFamily(
                "ooc_train_loss", "Mean loss of a row, last known", labels=run_labels
            ),
            "validation_loss": GaugeMetricFamily(
                "ooc_train_validation_loss", "The same of the validation rows", labels=run_labels
            ),
            "running": GaugeMetricFamily(
                "ooc_train_running", "1 while the run goes on", labels=run_labels
            ),
            "memory": GaugeMetricFamily(
                "ooc_train_memory_bytes",
                "What a process holds (now) and held (peak); what all may (projected, ceiling)",
                labels=[*run_labels, "process", "figure"],
            ),
        }
        if str(getattr(self._scheduler, "status", "")) == "Status.running":
            for run in self._runs.values():
                _add_metrics(families, run)
        return list(families.values())


def _add_metrics(families: Mapping[str, Any], run: Run) -> None:
    about = run.about
    labels = [run.identity, about["model"], about["solver"], about["batch_size"]]
    families["rows"].add_metric(labels, run.rows)
    families["running"].add_metric(labels, float(run.state == "running"))
    if run.steps.rows:
        last = dict(zip(STEPS, run.steps.rows[-1], strict=True))
        families["updates"].add_metric(labels, last["updates"])
        families["loss"].add_metric(labels, last["loss"])
        if run.about["validation_rows"]:
            families["validation_loss"].add_metric(labels, last["validation_loss"])
    if run.progress.rows:
        for activity, seconds in run.timings.items():
            families["seconds"].add_metric([*labels, activity], seconds)
    for name, now, peak in run.processes.values():
        families["memory"].add_metric([*labels, name, "now"], now)
        families["memory"].add_metric([*labels, name, "peak"], peak)
    for figure in ("projected", "ceiling"):
        families["memory"].add_metric([*labels, "all", figure], about[figure])


def export(runs: Runs, scheduler: Any) -> None:
    """Have the scheduler's `/metrics` tell of the runs, where prometheus_client is installed."""
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return
    # The registry is the process's, and a scheduler before this one may have left its own there:
    # that has ended, and tells nothing any more.
    REGISTRY.register(_Metrics(runs, scheduler))
