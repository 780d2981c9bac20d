"""The command `tradeoff`: one model at several batch sizes, side by side."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import typer

from ooc_train.cli import parsers
from ooc_train.cli.command import command
from ooc_train.cli.model_options import ModelOptions
from ooc_train.cli.options import (
    STORE,
    OutputOptions,
    Overwrite,
    ResourceOptions,
    StoreOptions,
    option,
)
from ooc_train.cli.printing import aligned, noted, print_json
from ooc_train.core.text import printable
from ooc_train.monitoring.callbacks import ConsoleBar


@dataclass(frozen=True)
class ModelOptionsWithoutBatchSize(ModelOptions):
    """The settings of a model, except the batch size."""

    omitted: ClassVar[frozenset[str]] = frozenset({"batch_size"})


@command
def tradeoff(
    *,
    store: Annotated[str, STORE],
    batch_sizes: Annotated[
        Any,
        option(
            of="Training",
            parse=parsers.batch_sizes,
            metavar="SIZE,...",
            help="Each is full, chunk, or a number of rows per update.",
        ),
    ] = "1,16,256,chunk,full",
    validation: Annotated[
        str | None,
        typer.Option(metavar="STORE", help="Validation rows for the comparison."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder for the table as JSON and CSV, and its plot."),
    ] = None,
    overwrite: Overwrite = False,
    stored: StoreOptions,
    model_options: ModelOptionsWithoutBatchSize,
    resources: ResourceOptions,
    output: OutputOptions,
) -> None:
    """Fit a model at several batch sizes, and compare costs and results."""
    model, training = model_options.made()
    with ConsoleBar(quiet=output.quiet) as bar, ExitStack() as fits:
        from ooc_train.core.output_kinds import TRADEOFF, require_output
        from ooc_train.experiments.tradeoff import tradeoff as measure
        from ooc_train.runs.events import Event, Started

        # Refuse before the cluster starts.
        if out is not None:
            require_output(out, TRADEOFF, overwrite=overwrite)
        current = bar

        def show(event: Event) -> None:
            nonlocal current
            if isinstance(event, Started):
                # Each fit has its own bar: a shared one would keep those of earlier fits.
                fits.close()
                current = fits.enter_context(ConsoleBar(quiet=output.quiet))
                current.say(f"batch size {event.batch_size}, by {event.solver}")
            current(event)

        rows = noted(stored.open(store), bar)
        with resources.client(bar, kernels=True) as client:
            found = measure(
                model,
                rows,
                batch_sizes,
                training=training,
                validation=stored.open_validation(validation),
                out=out,
                overwrite=overwrite,
                callbacks=(show,),
                client=client,
                memory_ceiling=resources.ceiling,
                progress=bar.progress,
            )
    if output.as_json:
        print_json(found.to_json() | {"out": found.saved_in})
        return
    for line in aligned(found.figures(), left=(0, 1)):
        typer.echo(line)
    for line in found.comparison():
        typer.echo(line)
    rate = found.advice.learning_rate
    with_rate = "" if rate is None else f" --learning-rate {rate}"
    typer.echo(f"\nadvice: --batch-size {found.advice.batch_size}{with_rate}")
    typer.echo(found.advice.reason)
    for note in found.notes:
        typer.echo(f"note: {note}")
    if found.saved_in is not None:
        typer.echo(printable(f"saved in {found.saved_in}"))
