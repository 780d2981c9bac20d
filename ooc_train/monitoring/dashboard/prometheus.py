"""Metrics of runs for Prometheus, at the scheduler's `/metrics`."""

from collections.abc import Mapping
from typing import Any

from ooc_train.monitoring.dashboard.run_series import STEPS, Run, Runs


class _Metrics:
    """The Prometheus collector of the metrics of all runs."""

    def __init__(self, runs: Runs, scheduler: Any) -> None:
        self._runs, self._scheduler = runs, scheduler

    def describe(self) -> list[Any]:
        """Return no descriptions of metrics, since the metrics depend on the runs."""
        return []

    def collect(self) -> list[Any]:
        """Return the metrics of each run; none once the scheduler has stopped."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        run_labels = ["run", "model", "solver", "batch_size"]
        families = {
            "rows": CounterMetricFamily("ooc_train_rows", "Rows read", labels=run_labels),
            "updates": CounterMetricFamily(
                "ooc_train_updates", "Updates of the parameters", labels=run_labels
            ),
            "seconds": CounterMetricFamily(
                "ooc_train_seconds",
                "Seconds of all threads, by activity",
                labels=[*run_labels, "activity"],
            ),
            "loss": GaugeMetricFamily("ooc_train_loss", "Mean loss of a row", labels=run_labels),
            "validation_loss": GaugeMetricFamily(
                "ooc_train_validation_loss", "Mean loss of a validation row", labels=run_labels
            ),
            "running": GaugeMetricFamily(
                "ooc_train_running", "1 while the run is in progress", labels=run_labels
            ),
            "memory": GaugeMetricFamily(
                "ooc_train_memory_bytes",
                "Bytes: now and peak of a process, projected and ceiling of all",
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
    """Register the metrics of the runs, if prometheus_client is installed."""
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return
    # The registry is global. Collectors of earlier schedulers stay in it and return nothing.
    REGISTRY.register(_Metrics(runs, scheduler))
