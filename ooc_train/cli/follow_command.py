"""The command `follow`: learn from a store's rows as they are appended."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ooc_train.cli.command import command, ended_by
from ooc_train.cli.command_help import Described
from ooc_train.cli.model_options import Class, ModelOptions, setting_help, setting_option
from ooc_train.cli.options import (
    STORE,
    MemoryCeiling,
    OutputOptions,
    Overwrite,
    RawFileOptions,
    option,
)
from ooc_train.cli.parsers import rows_of
from ooc_train.cli.printing import print_json
from ooc_train.core.settings import defaults_of, settings_of
from ooc_train.core.text import counted, printable
from ooc_train.core.units import approximate_duration, format_duration, parse_duration
from ooc_train.following.follow_settings import BATCH_ROWS, OF_RUNS, Following
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.model import Model
from ooc_train.monitoring.callbacks import ConsoleBar

_LINE_SECONDS = 1.0
"""Least time between two lines about windows."""

if TYPE_CHECKING:
    from ooc_train.following.follow_run import Followed
    from ooc_train.runs.events import Event


def _with_settings(cls: Class) -> Class:
    """Add a field for each setting of `Following`; None is the default."""
    cls.__annotations__ = dict(cls.__annotations__)
    for name, setting in settings_of(Following).items():
        text = setting_help(setting, defaults_of(Following).get(name, MISSING))
        cls.__annotations__[name] = setting_option(name, setting, text, of="Following")
        setattr(cls, name, None)
    return cls


@dataclass(frozen=True)
@_with_settings
class FollowOptions:
    """How a stream is followed; None stands for an option that was not passed."""

    max_rows: Annotated[
        Any,
        option(of="Following", parse=rows_of, metavar="ROWS", help="New rows after which to end."),
    ] = None
    idle: Annotated[
        Any,
        option(
            of="Following",
            parse=parse_duration,
            metavar="DURATION",
            help="End after so long without a new row, such as 5min (default: Ctrl-C ends it).",
        ),
    ] = None
    publish_every: Annotated[
        Any,
        option(
            of="Following",
            parse=parse_duration,
            metavar="DURATION",
            help="Least time between two saves of the model (default: 10s).",
        ),
    ] = None

    def made(self) -> Following:
        """Return the settings, checked."""
        names = settings_of(Following)
        passed = {name: getattr(self, name) for name in names}
        return Following(**{name: each for name, each in passed.items() if each is not None})


@dataclass(frozen=True)
class FollowedModelOptions(ModelOptions):
    """A model, and how it is learned from a stream, which has no last row."""

    @classmethod
    def batch_size_of(cls, model: type[Model]) -> int | str:
        """Return the batch size of a model without the option."""
        size = model.default_batch_size
        return BATCH_ROWS if size == "full" else size

    @classmethod
    def describe(cls, arguments: Sequence[str]) -> Described:
        """Describe the options, and hide those of runs over data that are there as a whole."""
        return {**super().describe(arguments), **dict.fromkeys(OF_RUNS)}


@command
def follow(
    *,
    store: Annotated[str, STORE],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Folder of the saved run, from which the same command goes on; its checkpoint "
            "lies in RUN.checkpoint. Without it the model is lost.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="-",
            help="Append rows of the standard input to the store, and learn from them: CSV with a "
            "header, or JSON lines.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    options: FollowOptions,
    model_options: FollowedModelOptions,
    raw_files: RawFileOptions,
    memory_ceiling: MemoryCeiling = None,
    output: OutputOptions,
) -> None:
    """Learn from the rows of a store in their order, and from further ones as they are appended.

    Each row is scored before it is learned from. The command ends by --max-rows, --idle, Ctrl-C or
    SIGTERM; the same command goes on.
    """
    if source not in (None, "-"):
        raise typer.BadParameter("--from takes -, the standard input; append files instead")
    model, training = model_options.made()
    ceiling = Ceiling.of(memory_ceiling, whole_process=True)
    notes: dict[str, None] = {}
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.following.follow import follow as follow_store
        from ooc_train.monitoring.interrupts import ENDS, Interrupts
        from ooc_train.runs.events import Compiling, Noted, Started, Stepped

        last = perf_counter()

        def tell(event: "Event") -> None:
            nonlocal last
            if isinstance(event, Started):
                bar.say(f"{event.model} by {event.solver}, batch size {event.batch_size}")
                bar.say(event.explanation)
            elif isinstance(event, Compiling):
                bar.say(str(event))
            elif isinstance(event, Noted):
                bar.say(f"after {format_duration(round(event.seconds))}: {event.text}")
            elif isinstance(event, Stepped) and perf_counter() - last > _LINE_SECONDS:
                last = perf_counter()
                loss = f"loss {event.progressive_loss:.6g}, decayed {event.loss:.6g}"
                bar.say(f"window {event.n_iter:,}: {loss}, {counted(event.updates, 'update')}")

        rows = None
        if source is not None:
            from ooc_train.store.jobs.piped_rows import PipedRows

            rows = PipedRows(
                store,
                0,
                unseen=raw_files.unseen,
                delimiter=raw_files.delimiter,
                encoding=raw_files.encoding,
                memory_ceiling=ceiling,
                warn=lambda note: notes.setdefault(note),
            )
        with Interrupts(ENDS) as interrupts:
            followed = follow_store(
                model,
                store,
                training,
                options.made(),
                rows=rows,
                out=out,
                overwrite=overwrite,
                max_rows=options.max_rows,
                idle=options.idle,
                publish_every="10s" if options.publish_every is None else options.publish_every,
                callbacks=(tell, interrupts),
                memory_ceiling=ceiling,
            )
            interrupts.conclude(followed.report)
    with ended_by(interrupts.received):
        report = followed.report
        if output.as_json:
            names = ("rows", "new_rows", "waiting_rows", "progressive_loss", "drifts")
            figures = {name: getattr(followed, name) for name in names}
            print_json(report.to_json() | figures | {"out": report.saved_in})
        else:
            _print(followed, list(notes))


def _print(followed: "Followed", notes: list[str]) -> None:
    """Print the figures of following."""
    report = followed.report
    rows = f"{counted(followed.new_rows, 'row')} learned, {followed.rows:,} in all"
    loss = f"progressive loss {followed.progressive_loss:.6g}, decayed {report.loss:.6g}"
    typer.echo(f"{rows} | {loss} | memory: {report.memory}")
    duration = approximate_duration(report.seconds)
    typer.echo(f"stopped ({report.ended}) after {counted(report.updates, 'update')} in {duration}")
    if followed.waiting_rows:
        typer.echo(f"{counted(followed.waiting_rows, 'row')} of the store are still to be learned")
    for note in (*report.notes, *report.memory.notes, *notes):
        typer.echo(printable(f"note: {note}"))
    if report.saved_in is None:
        typer.echo("the model was not saved; --out RUN saves it, and the same command goes on")
    else:
        typer.echo(printable(f"saved in {report.saved_in}; the same command goes on"))
