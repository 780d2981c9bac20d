"""Commands that learn a model, or would: plan, train."""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from ooc_train.cli.command import command, ended_by
from ooc_train.cli.config_file import Config
from ooc_train.cli.model_options import ModelOptions
from ooc_train.cli.options import (
    STORE,
    CheckpointOptions,
    OutputOptions,
    Overwrite,
    ResourceOptions,
    StoreOptions,
    Validation,
)
from ooc_train.cli.printing import print_json
from ooc_train.core.text import counted, losses, printable
from ooc_train.core.units import approximate_duration
from ooc_train.monitoring.callbacks import ConsoleBar

if TYPE_CHECKING:
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
        print_json(about | dict(found.to_json()) | {"notes": task.inputs.notes})
    else:
        typer.echo(str(found))
        for note in task.inputs.notes:
            typer.echo(printable(f"note: {note}"))
    if not found.fits:
        raise typer.Exit(1)


@command
def train(
    *,
    store: Annotated[str | None, STORE] = None,
    validation: Validation = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Folder of the saved run; without it the model is lost."),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Draw memory over time: .png, .svg or .pdf."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Begin from the parameters of a saved run; of a network for other classes, from "
            "its hidden layers.",
        ),
    ] = None,
    start_digest: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="Begin only if the run of --start has these parameters."),
    ] = None,
    overwrite: Overwrite = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print the notes of the solver too.")
    ] = False,
    config: Config = None,
    stored: StoreOptions,
    model_options: ModelOptions,
    checkpoints: CheckpointOptions,
    resources: ResourceOptions,
    output: OutputOptions,
) -> None:
    """Fit a model to a store, or go on with a run: `ooc-train train --resume RUN`."""
    if config is not None and checkpoints.resume is not None:
        raise typer.BadParameter("--resume goes on with known settings; leave --config out")
    if start_digest is not None and start is None:
        raise typer.BadParameter("--start-digest says which parameters the run of --start has")
    kept = checkpoints.kept()
    out, checkpoint = checkpoints.placed(out, kept)
    if kept is not None:
        model, training = model_options.made_on(kept.model, kept.training)
        store, validation = store or kept.store, validation or kept.validation
        stored = stored.made_on(kept.opened)
    elif store is not None:
        model, training = model_options.made()
    else:
        raise typer.BadParameter("STORE is missing, or --resume RUN to go on with a run")
    with ConsoleBar(
        quiet=output.quiet,
        verbose=verbose,
        max_passes=training.max_passes,
        max_seconds=training.max_seconds,
    ) as bar:
        from ooc_train.core.output_kinds import RUN, require_output
        from ooc_train.inference.outputs import loss_name
        from ooc_train.monitoring.interrupts import ENDS, Interrupts
        from ooc_train.plotting.figures import require_figure, save
        from ooc_train.runs.events import Event, Started
        from ooc_train.training.checkpoints import CheckpointFolder
        from ooc_train.training.loop import train as fit
        from ooc_train.training.run_notes import notes_before
        from ooc_train.training.run_start import require_start

        if out is not None and kept is None:
            require_output(out, RUN, overwrite=overwrite)
        if plot is not None:
            require_figure(plot, overwrite=overwrite)
        if start is not None and start_digest is not None:
            require_start(start, start_digest)
        task = _task(
            model, training, stored.open(store), stored.open_validation(validation), resources
        )
        if checkpoint is not None:
            CheckpointFolder(checkpoint, overwrite=overwrite).require(
                task, out, overwrite=overwrite
            )

        def print_plan(event: Event) -> None:
            if isinstance(event, Started):
                if event.training_page is not None:
                    bar.say(f"training   {event.training_page}")
                bar.say(
                    f"{event.model} by {event.solver}, batch size {event.batch_size}: "
                    f"{counted(event.n_rows, 'row')} x {counted(event.n_features, 'feature')}"
                )
                bar.say(event.explanation)
                for note in () if verbose else notes_before(task):  # the bar says them then
                    bar.say(f"note: {note}")
                if out is None:
                    bar.say("note: without --out the model will not be saved")

        with (
            resources.client(bar, kernels=task.needs_kernels) as client,
            Interrupts(ENDS) as interrupts,
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
                start=start,
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
            interrupted = interrupts.received is not None
            _print_report(report, plot, loss_name(fitted), interrupted=interrupted)


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


def _print_report(report: "Report", plot: str | None, loss: str, *, interrupted: bool) -> None:
    """Print the figures of a run."""
    passes = counted(report.passes, "pass", ".4g")
    found = losses(report.loss, report.validation_loss)
    typer.echo(f"{passes}, {loss} {found} | memory: {report.memory}")
    rate = f"{report.rows_per_second:,.0f} rows/s"
    end = "converged" if report.converged else f"stopped ({report.ended})"
    updates = counted(report.updates, "update")
    typer.echo(f"{end} after {updates} in {approximate_duration(report.seconds)}, {rate}")
    typer.echo(f"solver: {report.solver_with_reason}")
    if report.privacy is not None:
        typer.echo(f"privacy: {report.privacy_text}")
    if report.precision is not None:
        typer.echo(report.precision)
    if report.time_spent:  # a run that went on with the limit that had ended it spends none
        typer.echo(f"time spent: {report.time_spent}")
    for note in (*report.notes, *report.memory.notes):
        typer.echo(f"note: {note}")
    if report.saved_in is None:
        typer.echo("the model was not saved; --out RUN saves it")
    else:
        typer.echo(printable(f"saved in {report.saved_in}"))
    if (
        report.run_id
        and not report.converged
        and (way_on := _way_on(report, interrupted=interrupted))
    ):
        typer.echo(printable(way_on))
    if plot is not None:
        typer.echo(printable(f"drawn in {plot}"))


def _way_on(report: "Report", *, interrupted: bool) -> str:
    """Return the whole command that goes on with a run; empty if a goal or the solver ended it."""
    command = f"ooc-train train --resume {shlex.quote(str(report.saved_in))}"
    if interrupted:
        return f"go on: {command}"
    limit, _, value = report.ended.removesuffix(" reached").partition("=")
    if limit == "max_iter":
        return f"go on, with twice the limit: {command} --max-iter {2 * int(value)}"
    if limit in ("max_passes", "max_seconds"):
        option = limit.replace("_", "-")
        return f"go on, with twice the limit: {command} --{option} {2 * float(value):g}"
    if limit == "target_loss":
        return f"go on, with a lower target: {command} --target-loss LOSS"
    return ""
