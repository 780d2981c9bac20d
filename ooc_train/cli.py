"""The command line: ``ooc-train``.

What a command found goes to stdout, how far it is and what went wrong to stderr. A command ends
with 0 where it did what was asked, with 1 where it could not (the message says why), with 2 where
it was called wrongly, and with 130 where it was interrupted.

Numerical and Dask libraries are imported inside the commands, so that ``--help`` is immediate.
"""

import functools
import inspect
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from ooc_train.callbacks import ConsoleBar, printable
from ooc_train.errors import OocTrainError
from ooc_train.memory import Ceiling
from ooc_train.units import (
    approximate_bytes,
    approximate_duration,
    format_rows,
    parse_bytes,
    parse_duration,
    parse_rows,
)

if TYPE_CHECKING:
    from ooc_train.models.model import Model
    from ooc_train.memory import MemoryReport
    from ooc_train.store.layout import Store

_INTERRUPTED = 130
"""What typer makes of Ctrl-C."""

app = typer.Typer(
    name="ooc-train",
    help="Train on data larger than memory: any batch size, under a memory ceiling.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            typer.echo("interrupted", err=True)
        raise


def _parsed(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a reader of an option, whose complaints are about how the command was called."""

    def parser(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return parser


def _bytes(text: str) -> str:
    parse_bytes(text)
    return text


def _batch_size(text: str) -> int | str:
    if text in ("full", "chunk"):
        return text
    try:
        return parse_rows(text)
    except ValueError:
        raise ValueError(
            f"batch_size={text!r} is not 'full', 'chunk' or a whole number of rows such as 256"
        ) from None


def _passes(text: str) -> float:
    passes = float(text) if text.replace(".", "", 1).isdigit() else 0.0
    if not passes:
        raise ValueError(f"max_passes={text!r} is not a number of passes above 0")
    return passes


def _duration(text: str) -> float:
    seconds = parse_duration(text)
    if not seconds:
        raise ValueError(f"max_seconds={text!r} leaves no time to learn anything")
    return seconds


def _address(text: str) -> str:
    _, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:8787")
    return text


def _learning_rate(text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise ValueError(f"learning_rate={text!r} is not 'auto' or a number") from None


def _shuffle_buffer(text: str) -> int | str:
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise ValueError(f"shuffle_buffer={text!r} is not 'auto' or a number of chunks") from None


def _class_weight(text: str) -> str | Mapping[str, float]:
    if text == "balanced":
        return text
    pairs = [part.rpartition("=") for part in text.split(",")]
    try:
        weights = {label: float(weight) for label, _, weight in pairs}
    except ValueError:
        weights = {}
    if "" in weights or len(weights) != len(pairs):
        raise ValueError(
            f"class_weight={text!r} is not 'balanced' or the weights of labels, such as no=1,yes=5"
        )
    return weights


def _option(*names: str, of: str, parse: Callable[[str], Any] | None = None, **more: Any) -> Any:
    """Return the description of an option, in the panel `of` of the help."""
    parser = None if parse is None else _parsed(parse)
    return typer.Option(*names, parser=parser, rich_help_panel=of, **more)


@dataclass(frozen=True)
class Output:
    """What every command knows about what it says."""

    as_json: Annotated[
        bool, _option("--json", of="Output", help="Print one JSON object on stdout.")
    ] = False
    quiet: Annotated[bool, _option("--quiet", of="Output", help="Show no progress.")] = False
    traceback: Annotated[
        bool, _option("--traceback", of="Output", help="Show where an error is from.")
    ] = False


@dataclass(frozen=True)
class Resources:
    """What a job runs on."""

    memory_ceiling: Annotated[
        str | None,
        _option(
            of="Resources",
            parse=_bytes,
            metavar="BYTES",
            help="The most that all processes may hold, such as 512MiB "
            "(default: half of what is available).",
        ),
    ] = None
    workers: Annotated[
        int | None,
        _option(of="Resources", min=1, help="Worker processes (default: the number of cores)."),
    ] = None
    threads: Annotated[
        int | None, _option(of="Resources", min=1, help="Threads of a worker (default: 1).")
    ] = None
    scheduler: Annotated[
        str | None,
        _option(of="Resources", metavar="ADDRESS", help="A Dask cluster that runs already."),
    ] = None
    dashboard_address: Annotated[
        str | None,
        _option(
            of="Resources",
            parse=_address,
            metavar="HOST:PORT",
            help="Where the dashboard listens (default: 127.0.0.1:8787).",
        ),
    ] = None

    @property
    def ceiling(self) -> Ceiling:
        """The ceiling: here of the whole tree of processes."""
        if self.scheduler is not None and self.memory_ceiling is not None:
            # Its workers may have more memory than this machine.
            return Ceiling(parse_bytes(self.memory_ceiling), "given", whole=True)
        return Ceiling.of(self.memory_ceiling, whole=True)

    @contextmanager
    def client(self, bar: ConsoleBar) -> Iterator[Any]:
        """Give a client of the cluster of this command, which is started here and ends with it."""
        # The ceiling first: where it can't be, nothing need be started.
        ceiling = self.ceiling
        from ooc_train.cluster import DASHBOARD, LocalCluster, connect

        if self.scheduler is not None:
            for name in ("workers", "threads", "dashboard_address"):
                if getattr(self, name) is not None:
                    option = name.replace("_", "-")
                    raise typer.BadParameter(
                        f"--{option} is for workers that this command starts, and --scheduler "
                        "names a cluster that has its own; leave one of them out"
                    )
            with connect(self.scheduler) as client:
                bar.say(f"dashboard  {client.dashboard_link}")
                yield client
            return
        with (
            LocalCluster(
                memory_ceiling=ceiling,
                n_workers=self.workers,
                threads_per_worker=self.threads or 1,
                dashboard_address=self.dashboard_address or DASHBOARD,
            ) as cluster,
            cluster.get_client() as client,
        ):
            bar.say(f"dashboard  {client.dashboard_link}")
            yield client


@dataclass(frozen=True)
class Learning:
    """The settings of a `Model`; a test holds names and defaults to its."""

    name: Annotated[
        Literal["logistic", "ridge", "linear"],
        _option("--model", of="Model", help="What is learned."),
    ] = "logistic"
    batch_size: Annotated[
        Any,
        _option(
            of="Model",
            parse=_batch_size,
            metavar="full|chunk|ROWS",
            help="Rows per update of the parameters.",
        ),
    ] = "full"
    solver: Annotated[
        str,
        _option(of="Model", help="auto, gram, newton, lbfgs, sgd or adam, as the model allows."),
    ] = "auto"
    learning_rate: Annotated[
        Any,
        _option(of="Model", parse=_learning_rate, metavar="auto|RATE", help="Of updates."),
    ] = "auto"
    max_iter: Annotated[
        int | None, _option(of="Model", help="Most iterations, or epochs (default: 100).")
    ] = None
    tol: Annotated[
        float | None,
        _option(of="Model", help="Tolerance (default: the model's, 1e-4, or 1e-6 for linear)."),
    ] = None
    C: Annotated[
        float, _option("--C", of="Model", help="Inverse strength of logistic's penalty.")
    ] = 1.0
    alpha: Annotated[float, _option(of="Model", help="Strength of ridge's penalty.")] = 1.0
    class_weight: Annotated[
        Any,
        _option(
            of="Model",
            parse=_class_weight,
            metavar="balanced|LABEL=W,...",
            help="Weights of the classes.",
        ),
    ] = None
    standardize: Annotated[
        bool, _option("--standardize", of="Model", help="Penalise standardised columns.")
    ] = False
    no_intercept: Annotated[
        bool, _option("--no-intercept", of="Model", help="Learn no constant.")
    ] = False
    shuffle_buffer: Annotated[
        Any,
        _option(
            of="Model",
            parse=_shuffle_buffer,
            metavar="auto|CHUNKS",
            help="Chunks that are mixed row by row for batches.",
        ),
    ] = "auto"
    random_state: Annotated[
        int | None, _option(of="Model", help="Seed of the order of rows (default: drawn).")
    ] = None

    @property
    def model(self) -> "Model":
        """The model, checked."""
        from ooc_train.models.model import Model

        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        return Model(fit_intercept=not settings.pop("no_intercept"), **settings)


_STORE = typer.Argument(help="Path or URL of a store.", show_default=False)
_RUN = typer.Argument(help="Folder that train saved.", show_default=False)
_Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what lies at the place to write to.")
]


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command.

    A parameter that is a dataclass stands for an option a field. Errors that explain themselves
    become a line on stderr and the exit status 1.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        field_hints = get_type_hints(groups[name], include_extras=True)
        parameters += [
            parameter.replace(
                name=field.name, default=field.default, annotation=field_hints[field.name]
            )
            for field in fields(groups[name])
        ]

    @functools.wraps(function)
    def run(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        output: Output = given["output"]
        try:
            function(**given)
        except (OocTrainError, OSError, ValueError) as error:
            if output.traceback or isinstance(error, BrokenPipeError):
                raise
            if output.as_json:
                _print_json({"error": type(error).__name__, "message": str(error)})
            typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
            typer.echo(printable(str(error)), err=True)
            raise typer.Exit(1) from None

    # What typer reads: the parameters with the groups spread out.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command()(run)
    return run


@_command
def info(
    *,
    store: Annotated[str, _STORE],
    columns: Annotated[int, typer.Option(min=0, help="Columns whose statistics are shown.")] = 8,
    output: Output,
) -> None:
    """Show what a store holds, without reading a row."""
    from ooc_train.store.layout import open_store

    found = open_store(store)
    if output.as_json:
        _print_json(_describe(found, columns))
        return
    typer.echo(printable(_description(found, columns)))


@_command
def plan(
    *,
    store: Annotated[str, _STORE],
    learning: Learning,
    resources: Resources,
    output: Output,
) -> None:
    """Show what training would hold, under the same workers, without reading X.

    Ends with 1 where it does not fit under the ceiling.
    """
    model = learning.model
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.job import Job
        from ooc_train.stream.inputs import read_inputs
        from ooc_train.stream.plan import make_plan
        from ooc_train.threads import one_blas_thread
        from ooc_train.train import Task

        inputs = read_inputs(store, classifier=model.is_classifier)
        task = Task.of(model, inputs)
        with (
            resources.client(bar) as client,
            one_blas_thread(),
            Job(
                inputs.source,
                client=client,
                memory_ceiling=resources.ceiling,
                kernels=task.needs_kernels,
            ) as job,
        ):
            found = job.plan(task.demand())
    fits = found.projected <= found.ceiling.limit
    # The plan for next to nothing is the smallest there is.
    smallest = make_plan(inputs.source, task.demand(), Ceiling(1, "given"), found.processes)
    if output.as_json:
        about = {"model": model.name, "solver": task.solver_name, "batch_size": model.batch_size}
        _print_json(about | dict(found.to_json()) | {"smallest_ceiling": smallest.projected})
    else:
        typer.echo(found.explain())
        verdict = "it fits" if fits else "it does not fit"
        workers = len(found.processes.workers)
        typer.echo(
            f"{verdict}: the smallest ceiling that would do with {_count(workers, 'worker')} is "
            f"{smallest.smallest}" + (", with fewer less" if workers > 1 and not fits else "")
        )
    if not fits:
        raise typer.Exit(1)


@_command
def train(
    *,
    store: Annotated[str, _STORE],
    out: Annotated[
        str | None, typer.Option(metavar="RUN", help="Folder that the run is saved in.")
    ] = None,
    overwrite: _Overwrite = False,
    max_passes: Annotated[
        Any,
        typer.Option(
            parser=_parsed(_passes),
            metavar="PASSES",
            help="Begin no iteration after so many passes.",
        ),
    ] = None,
    max_seconds: Annotated[
        Any,
        typer.Option(
            parser=_parsed(_duration),
            metavar="DURATION",
            help="Begin no iteration after so long, such as 90s.",
        ),
    ] = None,
    learning: Learning,
    resources: Resources,
    output: Output,
) -> None:
    """Fit a model to a store."""
    model = learning.model
    with ConsoleBar(quiet=output.quiet, max_passes=max_passes, max_seconds=max_seconds) as bar:
        from ooc_train.events import Event, Started
        from ooc_train.models.fitted import require_writable
        from ooc_train.stream.inputs import read_inputs
        from ooc_train.train import Task
        from ooc_train.train import train as fit

        if out is not None:
            require_writable(out, overwrite=overwrite)
        inputs = read_inputs(store, classifier=model.is_classifier)
        # What can't be is refused before anything is started.
        Task.of(model, inputs)

        def say_plan(event: Event) -> None:
            if isinstance(event, Started):
                bar.say(
                    f"{event.model} by {event.solver}, batch size {event.batch_size}: "
                    f"{event.n_rows:,} rows x {_count(event.n_features, 'feature')}"
                )
                bar.say(event.explanation)

        with resources.client(bar) as client:
            _, report = fit(
                model,
                inputs,
                out=out,
                overwrite=overwrite,
                callbacks=(say_plan, bar),
                max_passes=max_passes,
                max_seconds=max_seconds,
                client=client,
                memory_ceiling=resources.ceiling,
            )
    if output.as_json:
        _print_json(report.to_json() | {"out": out})
        return
    loss = "log-loss" if model.is_classifier else "loss"
    passes = "1 pass" if report.passes == 1 else f"{report.passes:.4g} passes"
    typer.echo(f"{passes}, {loss} {report.loss:.6g} | memory: {report.memory}")
    rate = f"{report.rows_per_second:,.0f} rows/s"
    end = "converged" if report.converged else "stopped before the tolerance was met"
    updates = _count(report.updates, "update")
    typer.echo(f"{end} after {updates} in {approximate_duration(report.seconds)}, {rate}")
    for note in (*report.notes, *report.memory.notes):
        typer.echo(f"note: {note}")
    if out is not None:
        typer.echo(printable(f"saved in {out}"))


@_command
def evaluate(
    *,
    run: Annotated[str, _RUN],
    store: Annotated[str, _STORE],
    resources: Resources,
    output: Output,
) -> None:
    """Show how well a model does on a store with y."""
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.models.fitted import load_fitted
        from ooc_train.predict import evaluate as measure
        from ooc_train.store.layout import open_store
        from ooc_train.stream.inputs import read_inputs

        fitted = load_fitted(run)
        data = open_store(store)
        fitted.require_features(data.n_features, store)
        inputs = read_inputs(data, classifier=fitted.model.is_classifier, classes=fitted.classes)
        with resources.client(bar) as client:
            metrics, memory = measure(
                fitted,
                inputs,
                client=client,
                memory_ceiling=resources.ceiling,
                on_rows=bar.job(data.n_rows),
            )
    if output.as_json:
        _print_json(metrics | {"memory": _memory(memory)})
        return
    error = metrics.pop("roc_auc_error", None)
    for name, value in metrics.items():
        figure = f"{value:,}" if name == "n_rows" else f"{value:.6g}"
        within = f"  within {error:.1g}" if name == "roc_auc" and error is not None else ""
        typer.echo(f"{name:<8}  {figure}{within}")
    typer.echo(f"memory: {memory}")


@_command
def predict(
    *,
    run: Annotated[str, _RUN],
    store: Annotated[str, _STORE],
    out: Annotated[str, typer.Argument(help="Where the store of predictions will lie.")],
    proba: Annotated[
        bool, typer.Option("--proba", help="Write the probability of each class too.")
    ] = False,
    overwrite: _Overwrite = False,
    resources: Resources,
    output: Output,
) -> None:
    """Write predictions for a store to another."""
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.models.fitted import load_fitted
        from ooc_train.predict import Kind, predict_store
        from ooc_train.store.layout import open_store

        fitted = load_fitted(run)
        if proba and not fitted.model.is_classifier:
            raise ValueError(
                f"--proba is for classes, and the {fitted.model.name} model has none; leave it out"
            )
        data = open_store(store)
        fitted.require_features(data.n_features, store)
        kinds: tuple[Kind, ...] = ("prediction", "probability") if proba else ("prediction",)
        with resources.client(bar) as client:
            memory = predict_store(
                fitted,
                data,
                out,
                kinds=kinds,
                overwrite=overwrite,
                client=client,
                memory_ceiling=resources.ceiling,
                on_rows=bar.job(data.n_rows),
            )
    if output.as_json:
        about = {"n_rows": data.n_rows, "out": out, "arrays": kinds}
        _print_json(about | {"memory": _memory(memory)})
        return
    typer.echo(f"{data.n_rows:,} rows predicted | memory: {memory}")
    typer.echo(printable(f"saved in {out}: {', '.join(kinds)}"))


@_command
def make_data(
    *,
    out: Annotated[str, typer.Argument(help="Where the store will lie.")],
    rows: Annotated[Any, typer.Option(parser=_parsed(parse_rows), help="Such as 20M.")],
    features: Annotated[int, typer.Option(help="Columns of X.")] = 100,
    task: Annotated[
        Literal["classification", "regression"], typer.Option(help="What y holds.")
    ] = "classification",
    classes: Annotated[int, typer.Option(help="For classification.")] = 2,
    condition: Annotated[
        float, typer.Option(help="Condition number of the covariance of X.")
    ] = 1.0,
    noise: Annotated[float, typer.Option(help="Noise on a signal of deviation 1.")] = 1.0,
    dtype: Annotated[Literal["float32", "float64"], typer.Option(help="Of X.")] = "float32",
    random_state: Annotated[int, typer.Option(help="Seed.")] = 0,
    codec: Annotated[Literal["none", "lz4", "zstd"], typer.Option(help="Of the chunks.")] = "none",
    overwrite: _Overwrite = False,
    output: Output,
) -> None:
    """Write a store of made data, of a known truth and any size."""
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.store.made import make_data as make

        made = make(
            out,
            rows=rows,
            features=features,
            task=task,
            classes=classes,
            condition=condition,
            noise=noise,
            dtype=dtype,
            random_state=random_state,
            codec=codec,
            overwrite=overwrite,
            progress=bar.job(rows),
        )
    if output.as_json:
        _print_json(_describe(made, 0))
        return
    size = f"{format_rows(made.n_rows)} rows x {_count(made.n_features, 'feature')}"
    typer.echo(printable(f"{size} ({approximate_bytes(made.total_bytes)}) saved in {out}"))


def _describe(store: "Store", columns: int) -> dict[str, Any]:
    """Return what `info` tells, as values that JSON can hold."""
    names = store.feature_names
    found: dict[str, Any] = {
        "path": store.path,
        "n_rows": store.n_rows,
        "n_features": store.n_features,
        "n_outputs": store.n_outputs,
        "dtype": store.dtype.name,
        "classes": store.classes,
        "class_counts": store.class_counts,
        "weighted": store.sample_weight is not None,
        "row_id": store.row_id is not None,
        "shuffled": store.shuffled,
        "chunk_rows": store.chunk_rows,
        "chunk_bytes": store.chunk_bytes,
        "n_chunks": store.n_chunks,
        "shard_rows": store.shard_rows,
        "n_shards": store.X.n_shards,
        "codec": store.X.codec,
        "checksums": store.X.crc,
        "direct": store.X.direct,
        "bytes": store.total_bytes,
        "bytes_at_rest": _bytes_at_rest(store.path),
        "generation": store.generation,
        "columns": None,
    }
    statistics = store.statistics
    if statistics is not None:
        found["columns"] = [
            {
                "name": None if names is None else names[i],
                "mean": statistics.mean[i].item(),
                "scale": statistics.scale[i].item(),
                "min": statistics.minimum[i].item(),
                "max": statistics.maximum[i].item(),
            }
            for i in range(min(columns, store.n_features))
        ]
    return found


def _description(store: "Store", columns: int) -> str:
    """Return what `info` tells, as text."""
    found = _describe(store, columns)
    classes = "none"
    if store.classes is not None:
        counts = store.class_counts or (None,) * len(store.classes)
        classes = ", ".join(
            f"{label}" if n is None else f"{label} ({n:,} rows)"
            for label, n in zip(store.classes, counts, strict=True)
        )
    elif store.y is not None:
        classes = "not noted in the store"
    chunks = f"{store.n_chunks:,} of {store.chunk_rows:,} rows"
    shards = f"{store.X.n_shards:,} of {store.shard_rows:,} rows"
    size = approximate_bytes(store.total_bytes)
    if found["bytes_at_rest"] is not None:
        size += f", at rest {approximate_bytes(found['bytes_at_rest'])}"
    shuffled = "as the rows came"
    if store.shuffled is not None:
        shuffled = f"shuffled with seed {store.shuffled}"
    rows = [
        ("path", store.path),
        ("rows", f"{store.n_rows:,}"),
        ("features", f"{store.n_features:,} of {store.dtype.name}"),
        ("y", "none" if store.y is None else _count(store.n_outputs, "column")),
        ("classes", classes),
        ("weights", "yes" if found["weighted"] else "none"),
        ("chunks", f"{chunks}, {approximate_bytes(store.chunk_bytes)} each"),
        ("shards", shards if store.X.sharded else "none: a file a chunk"),
        ("codec", (store.X.codec or "by zarr-python") + (", checksums" if store.X.crc else "")),
        ("order", shuffled),
        ("bytes", size),
    ]
    text = [f"{name:<8}  {value}" for name, value in rows]
    if found["columns"]:
        table = [
            [column["name"] or f"column {i}"]
            + [f"{column[key]:.6g}" for key in ("mean", "scale", "min", "max")]
            for i, column in enumerate(found["columns"])
        ]
        text += ["", *_table([["column", "mean", "scale", "min", "max"], *table])]
        if (more := store.n_features - len(table)) > 0:
            text.append(f"... and {more:,} more (--columns {store.n_features})")
    return "\n".join(text)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with the first column to the left and the others, which are numbers, right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([f"{row[0]:<{widths[0]}}", *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


def _bytes_at_rest(path: str) -> int | None:
    """Return the bytes of the files of a store, None where it is no local directory."""
    if not os.path.isdir(path):
        return None
    return sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(path)
        for name in names
    )


def _memory(memory: "MemoryReport") -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(memory)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _print_json(value: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(_plain(value), indent=2))


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it, where numbers that are none are null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main()
