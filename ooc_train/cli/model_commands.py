"""Commands of a model that was learned: evaluate, predict."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

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
    StoreXOptions,
)
from ooc_train.cli.printing import aligned, one_line, print_json
from ooc_train.core.text import printable
from ooc_train.monitoring.callbacks import ConsoleBar
from ooc_train.tables.names import is_table

if TYPE_CHECKING:
    from ooc_train.inference.class_metrics import ClassMetrics


@command
def evaluate(
    *,
    run: Annotated[str, RUN],
    data: Annotated[str, DATA],
    plot: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Draw what becomes of each class: confusion, ROC curves, precision over recall, "
            "and calibration (png, svg or pdf).",
        ),
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
        from ooc_train.inference.class_metrics import MOST_CLASSES
        from ooc_train.plotting.figures import require_figure, save
        from ooc_train.runs.run_loading import load_fitted

        fitted = load_fitted(run)
        if plot is not None:
            require_figure(plot, overwrite=overwrite)
            if not 0 < len(fitted.classes) <= MOST_CLASSES:
                raise ValueError(
                    f"--plot draws classes, up to {MOST_CLASSES:,}, and {run} has "
                    f"{len(fitted.classes):,}; leave it out"
                )
        notes: tuple[str, ...] = ()
        if is_table(data):
            from ooc_train.inference.raw_files import evaluate_files

            stored.require_default("raw files")
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

            store = stored.open(data)
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
            with resources.client(bar, kernels=False) as client:
                metrics, memory = measure(
                    fitted,
                    inputs,
                    client=client,
                    memory_ceiling=resources.ceiling,
                    progress=bar.progress,
                )
    by_class: ClassMetrics | None = metrics.pop("by_class", None)
    if plot is not None and by_class is not None:
        save(*by_class.plots, path=plot, overwrite=overwrite)
    if output.as_json:
        figures = {} if by_class is None else {"by_class": by_class.to_json(), "plot": plot}
        print_json(metrics | figures | {"memory": asdict(memory)})
        return
    error = metrics.pop("roc_auc_error", None)
    for name, value in metrics.items():
        figure = f"{value:,}" if name == "n_rows" else f"{value:.6g}"
        within = f"  within {error:.1g}" if name == "roc_auc" and error is not None else ""
        typer.echo(f"{name:<8}  {figure}{within}")
    if by_class is not None:
        _print_classes(by_class)
    if plot is not None:
        typer.echo(printable(f"drawn in {plot}"))
    typer.echo(f"memory: {memory}")
    for note in notes:
        typer.echo(printable(f"note: {note}"))


def _print_classes(by_class: "ClassMetrics") -> None:
    """Print precision, recall and F1 of each class, or of those that are predicted worst."""
    head, rows = by_class.rows()
    for line in aligned([head, *((one_line(name), *figures) for name, *figures in rows)]):
        typer.echo(line)
    if len(rows) < len(by_class.classes):
        typer.echo(f"({len(rows)} of {len(by_class.classes):,} classes: those of the least f1)")


@command
def predict(
    *,
    run: Annotated[str, RUN],
    data: Annotated[str, DATA],
    out: Annotated[
        str, typer.Argument(help="Path of the predictions: .csv, .tsv, .parquet, or a store.")
    ],
    proba: Annotated[
        bool, typer.Option("--proba", help="Write the probability of each class too.")
    ] = False,
    raw_files: RawFileOptions,
    overwrite: Overwrite = False,
    stored: StoreXOptions,
    resources: ResourceOptions,
    output: OutputOptions,
) -> None:
    """Write predictions for a store, or for raw files.

    Raw files and tables of predictions are processed by this process alone, without a cluster.
    """
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.core.output_kinds import STORE, require_output
        from ooc_train.inference.outputs import Kind
        from ooc_train.inference.predict import predict_store
        from ooc_train.runs.run_loading import load_fitted

        fitted = load_fitted(run)
        if proba and not fitted.model.is_classifier:
            raise ValueError(
                f"--proba needs classes, and the {fitted.model.name} model has none; leave it out"
            )
        kinds: tuple[Kind, ...] = ("prediction", "probability") if proba else ("prediction",)
        raw = is_table(data)
        if raw:
            stored.require_default("raw files")
        if raw or is_table(out):
            from ooc_train.inference.raw_files import predict_files

            store = None if raw else stored.open(data)
            n_rows, memory = predict_files(
                fitted,
                data if store is None else store,
                out,
                kinds=kinds,
                overwrite=overwrite,
                **asdict(raw_files),
                memory_ceiling=resources.ceiling,
                progress=bar.progress,
                warn=lambda text: bar.say(f"warning: {text}"),
            )
        else:
            store = stored.open(data)
            n_rows = store.n_rows
            # Refuse before the cluster starts.
            fitted.for_columns(store.feature_names, store.n_features, data, store.row_shape)
            require_output(out, STORE, overwrite=overwrite)
            with resources.client(bar, kernels=False) as client:
                memory = predict_store(
                    fitted,
                    store,
                    out,
                    kinds=kinds,
                    overwrite=overwrite,
                    client=client,
                    memory_ceiling=resources.ceiling,
                    progress=bar.progress,
                )
    if output.as_json:
        print_json({"n_rows": n_rows, "out": out, "arrays": kinds, "memory": asdict(memory)})
        return
    typer.echo(f"{n_rows:,} rows predicted | memory: {memory}")
    for note in () if store is None else store.notes:
        typer.echo(printable(f"note: {note}"))
    typer.echo(printable(f"saved in {out}: {', '.join(kinds)}"))
