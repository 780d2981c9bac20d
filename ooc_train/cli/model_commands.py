"""Commands about models: plan, train, evaluate, predict."""

import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ooc_train.cli.command import command, ended_by
from ooc_train.cli.model_options import ModelOptions
from ooc_train.cli.options import (
    DATA,
    RUN,
    STORE,
    CheckpointOptions,
    OutputOptions,
    Overwrite,
    RawFileOptions,
    ResourceOptions,
    StoreOptions,
    StoreXOptions,
    Validation,
)
from ooc_train.cli.printing import aligned, count, one_line, print_json
from ooc_train.core.text import losses, printable
from ooc_train.core.units import approximate_duration
from ooc_train.monitoring.callbacks import ConsoleBar
from ooc_train.tables.names import is_table

if TYPE_CHECKING:
    from ooc_train.inference.class_metrics import ClassMetrics
    from ooc_train.models.model import Model
    from ooc_train.runs.report import Report
    from ooc_train.solvers.training_settings import Training
    from ooc_train.store.dataset import Store
    from ooc_train.training.task import Task


@command
def plan(
    *,
    store: Annotated[str, STORE],
    validation: Validation = None,
    stored: StoreOptions,
    model_options: ModelOptions,
    resources: ResourceOptions,
    output: OutputOptions,
) -> None:
    """Show the memory plan of a training run, without reading X.

    Exits with 1 if it does not fit under the ceiling.
    """
    model, training = model_options.made()
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.training.planning import plan as make_plan

        task = _task(
            model, training, stored.open(store), stored.open_validation(validation), resources
        )
        with resources.client(bar, kernels=task.needs_kernels) as client:
            found = make_plan(
                model,
                task.inputs,
                training,
                validation=task.validation,
                callbacks=[bar],
                client=client,
                memory_ceiling=resources.ceiling,
            )
    if output.as_json:
        about = {"model": model.name, "solver": task.solver.name, "batch_size": training.size_text}
        print_json(about | dict(found.to_json()))
    else:
        typer.echo(str(found))
    if not found.fits:
        raise typer.Exit(1)


@command
def train(
    *,
    store: Annotated[str, STORE],
    validation: Validation = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Folder of the saved run; without it the model is lost."),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Draw memory over time: .png, .svg or .pdf."),
    ] = None,
    overwrite: Overwrite = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print the notes of the solver too.")
    ] = False,
    stored: StoreOptions,
    model_options: ModelOptions,
    checkpoints: CheckpointOptions,
    resources: ResourceOptions,
    output: OutputOptions,
) -> None:
    """Fit a model to a store."""
    model, training = model_options.made()
    checkpoint = checkpoints.made()
    if checkpoint is not None:
        training = checkpoint.seeded(training)
    with ConsoleBar(
        quiet=output.quiet,
        verbose=verbose,
        max_passes=training.max_passes,
        max_seconds=training.max_seconds,
    ) as bar:
        from ooc_train.core.output_kinds import RUN, require_output
        from ooc_train.inference.outputs import Outputs
        from ooc_train.monitoring.interrupts import Interrupts
        from ooc_train.plotting.figures import require_figure, save
        from ooc_train.runs.events import Event, Started
        from ooc_train.training.loop import train as fit

        if out is not None:
            require_output(out, RUN, overwrite=overwrite)
        if plot is not None:
            require_figure(plot, overwrite=overwrite)
        task = _task(
            model, training, stored.open(store), stored.open_validation(validation), resources
        )

        def print_plan(event: Event) -> None:
            if isinstance(event, Started):
                if event.training_page is not None:
                    bar.say(f"training   {event.training_page}")
                bar.say(
                    f"{event.model} by {event.solver}, batch size {event.batch_size}: "
                    f"{event.n_rows:,} rows x {count(event.n_features, 'feature')}"
                )
                bar.say(event.explanation)
                for note in task.inputs.notes:
                    bar.say(f"note: {note}")
                if out is None:
                    bar.say("note: without --out the model will not be saved")

        with (
            resources.client(bar, kernels=task.needs_kernels) as client,
            Interrupts((signal.SIGINT, signal.SIGHUP, signal.SIGTERM)) as interrupts,
        ):
            fitted, report = fit(
                model,
                task.inputs,
                training,
                validation=task.validation,
                out=out,
                overwrite=overwrite,
                callbacks=(print_plan, bar, interrupts),
                client=client,
                memory_ceiling=resources.ceiling,
                checkpoint=checkpoint,
            )
            interrupts.conclude(report)
    if plot is not None:
        # After the workers have ended: matplotlib takes some 60 MiB.
        save(report.memory.plot, path=plot, overwrite=overwrite)
    with ended_by(interrupts.received):
        if output.as_json:
            print_json(report.to_json() | {"out": report.saved_in, "plot": plot})
        else:
            _print_report(report, plot, Outputs.of(fitted).loss_name)


def _task(
    model: "Model",
    training: "Training",
    store: "Store",
    validation: "Store | None",
    resources: ResourceOptions,
) -> "Task":
    """Return the task of a run; errors in its settings and data come before the cluster starts."""
    from ooc_train.stream.inputs import read_inputs
    from ooc_train.training.task import Task

    inputs = read_inputs(store, classifier=model.is_classifier, memory_ceiling=resources.ceiling)
    return Task.of(model, inputs, training, validation, memory_ceiling=resources.ceiling)


def _print_report(report: "Report", plot: str | None, loss: str) -> None:
    """Print the figures of a run."""
    passes = "1 pass" if report.passes == 1 else f"{report.passes:.4g} passes"
    found = losses(report.loss, report.validation_loss)
    typer.echo(f"{passes}, {loss} {found} | memory: {report.memory}")
    rate = f"{report.rows_per_second:,.0f} rows/s"
    end = "converged" if report.converged else f"stopped ({report.ended})"
    updates = count(report.updates, "update")
    typer.echo(f"{end} after {updates} in {approximate_duration(report.seconds)}, {rate}")
    typer.echo(f"solver: {report.solver_with_reason}")
    if report.precision is not None:
        typer.echo(report.precision)
    typer.echo(f"time spent: {report.time_spent}")
    for note in (*report.notes, *report.memory.notes):
        typer.echo(f"note: {note}")
    if report.saved_in is None:
        typer.echo("the model was not saved; --out RUN saves it")
    else:
        typer.echo(printable(f"saved in {report.saved_in}"))
    if plot is not None:
        typer.echo(printable(f"drawn in {plot}"))


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
