"""The command `evaluate`: how well a model predicts."""

import os
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ooc_train.cli.command import command
from ooc_train.cli.options import (
    DATA,
    RUN,
    OutputOptions,
    Overwrite,
    RawFileOptions,
    ResourceOptions,
    StoreOptions,
)
from ooc_train.cli.parsers import column
from ooc_train.cli.printing import aligned, noted, one_line, print_json
from ooc_train.core.text import counted, printable
from ooc_train.monitoring.callbacks import ConsoleBar
from ooc_train.tables.names import is_table

if TYPE_CHECKING:
    from ooc_train.inference.class_metrics import ClassMetrics
    from ooc_train.inference.residual_metrics import ResidualMetrics

_MOST_PRINTED = 20
"""Groups in the table of metrics."""


@command
def evaluate(
    *,
    run: Annotated[str, RUN],
    data: Annotated[str, DATA],
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Show the metrics of each value of this column too: its name, or its number if "
            "columns have no names. One more pass finds the values.",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="Show the fraction of rows whose class is among the first K."),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Draw what becomes of each class: confusion, ROC curves, precision over recall, "
            "calibration and lift; or residuals, and the mean of y by prediction (png, svg or "
            "pdf).",
        ),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write metrics and plots as one HTML page."),
    ] = None,
    overwrite: Overwrite = False,
    raw_files: RawFileOptions,
    stored: StoreOptions,
    resources: ResourceOptions,
    output: OutputOptions,
) -> None:
    """Show metrics of a model on a store, or on raw files with the target.

    Raw files are read by this process alone, without a cluster.
    """
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.core.atomic import write_file
        from ooc_train.core.output_kinds import PAGE, require_output
        from ooc_train.inference.class_metrics import MOST_CLASSES
        from ooc_train.plotting.figures import require_figure, save
        from ooc_train.runs.run_loading import load_fitted

        fitted = load_fitted(run)
        n_classes = len(fitted.classes)
        if report is not None:
            require_output(report, PAGE, overwrite=overwrite)
        if plot is not None:
            require_figure(plot, overwrite=overwrite)
            if n_classes > MOST_CLASSES:
                raise ValueError(
                    f"--plot draws up to {MOST_CLASSES:,} classes, and {run} has {n_classes:,}; "
                    "leave it out"
                )
        if top_k is not None and not top_k <= n_classes <= MOST_CLASSES:
            raise ValueError(
                f"--top-k {top_k} needs as many classes, and at most {MOST_CLASSES:,}; {run} has "
                f"{n_classes:,}"
            )
        notes: tuple[str, ...] = ()
        if is_table(data):
            from ooc_train.inference.raw_files import evaluate_files

            stored.require_default("raw files")
            if by is not None:
                made = f"{os.path.basename(data).partition('.')[0].strip('*?') or 'new'}.zarr"
                columns = [] if fitted.feature_names is None else fitted.feature_names
                by = next((name for name in columns if name.startswith(f"{by}=")), by)
                raise ValueError(
                    "--by is for a store, and not for raw files; ingest them first: ooc-train "
                    f"{shlex.join(['ingest', data, made, '--like', run])}; then: ooc-train "
                    f"{shlex.join(['evaluate', run, made, '--by', by])}"
                )
            metrics, memory = evaluate_files(
                fitted,
                data,
                **asdict(raw_files),
                memory_ceiling=resources.ceiling,
                progress=bar.progress,
                warn=lambda text: bar.say(f"warning: {text}"),
            )
        else:
            from ooc_train.inference.predict import evaluate as measure
            from ooc_train.stream.inputs import read_inputs

            store = noted(stored.open(data), bar)
            notes = store.notes
            # Refuse before the cluster starts.
            fitted.for_columns(store.feature_names, store.n_features, data, store.row_shape)
            classifies = fitted.model.is_classifier
            inputs = read_inputs(
                store,
                classifier=classifies,
                classes=fitted.classes,
                memory_ceiling=resources.ceiling,
            )
            groups = None if by is None else column(by, store.feature_names)
            with resources.client(bar, kernels=False) as client:
                metrics, memory = measure(
                    fitted,
                    inputs,
                    by=groups,
                    client=client,
                    memory_ceiling=resources.ceiling,
                    progress=bar.progress,
                )
    by_class: ClassMetrics | None = metrics.get("by_class")
    residuals: ResidualMetrics | None = metrics.get("residuals")
    if top_k is not None and by_class is not None:
        metrics[f"top_{top_k}_accuracy"] = by_class.top_k(top_k)
    if plot is not None:
        drawn = by_class or residuals
        save(*([] if drawn is None else drawn.plots), path=plot, overwrite=overwrite)
    if report is not None:
        from ooc_train.monitoring.evaluation_page import evaluation_page

        title = os.path.basename(os.path.normpath(run))
        about = f"{fitted.model.name} model, evaluated on {data}"
        page = evaluation_page(metrics, title, about).encode()
        write_file(report, page, overwrite=overwrite)
    if output.as_json:
        files = {"plot": plot, "report": report}
        detailed = {name: each.to_json() for name, each in _tables(metrics).items()}
        print_json(metrics | detailed | files | {"memory": asdict(memory)})
        return
    _print_metrics(metrics)
    for path, verb in ((plot, "drawn"), (report, "saved")):
        if path is not None:
            typer.echo(printable(f"{verb} in {path}"))
    typer.echo(f"memory: {memory}")
    for note in notes:
        typer.echo(printable(f"note: {note}"))


def _tables(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics that are tables."""
    return {name: each for name, each in metrics.items() if hasattr(each, "to_json")}


def _print_metrics(metrics: dict[str, Any]) -> None:
    """Print single numbers, then the tables of classes, of residuals and of groups."""
    from ooc_train.monitoring.evaluation_page import figures

    for line in aligned(figures(metrics), left=(0, 1)):
        typer.echo(line)
    if (by_class := metrics.get("by_class")) is not None:
        _print_classes(by_class)
    if (residuals := metrics.get("residuals")) is not None:
        for k, quantiles in enumerate(residuals.to_json()["quantiles"]):
            of = f" of output {k}" if len(residuals.mae) > 1 else ""
            shown = ", ".join(f"{float(q):.0%} {value:.4g}" for q, value in quantiles.items())
            typer.echo(f"quantiles of residuals{of}: {shown}")
    if (by_group := metrics.get("by_group")) is not None:
        rows = by_group.rows()[:_MOST_PRINTED]
        for line in aligned([[one_line(cell) for cell in row] for row in (by_group.head, *rows)]):
            typer.echo(line)
        if len(rows) < len(by_group):
            typer.echo(
                f"({len(rows)} of {counted(len(by_group), 'group')}; --json and --report have all)"
            )


def _print_classes(by_class: "ClassMetrics") -> None:
    """Print precision, recall and F1 of each class, or of those that are predicted worst."""
    head, rows = by_class.rows()
    for line in aligned([head, *((one_line(name), *figures) for name, *figures in rows)]):
        typer.echo(line)
    if len(rows) < len(by_class.classes):
        typer.echo(f"({len(rows)} of {len(by_class.classes):,} classes: those of the least f1)")
