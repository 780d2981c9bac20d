"""Commands about stores: info, make-data, rechunk, shuffle, append, verify."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ooc_train.cli.command import command
from ooc_train.cli.describe import describe_run, describe_store, is_run, run_text, store_text
from ooc_train.cli.option_names import with_option_names
from ooc_train.cli.options import (
    STORE,
    MemoryCeiling,
    OutputOptions,
    Overwrite,
    RawFileOptions,
    StoreOptions,
)
from ooc_train.cli.parsers import parsed, rows_of
from ooc_train.cli.printing import print_json
from ooc_train.core.text import counted, printable
from ooc_train.core.units import approximate_bytes, format_rows, parse_rows
from ooc_train.memory.ceiling import Ceiling
from ooc_train.monitoring.callbacks import ConsoleBar

if TYPE_CHECKING:
    from ooc_train.memory.measured import MemoryReport
    from ooc_train.store.dataset import Store

TreatMissing = Annotated[
    Literal["error", "drop", "mean", "median"],
    typer.Option(help="How to treat missing values of X; a row without y is dropped or an error."),
]

_OF_VERIFY = {"fill_missing": "--fill-missing"}
"""Options for arguments of Python in what is bad of a store."""

_MOST_DAMAGES = 100
"""Bad chunks that are printed."""


@command
def info(
    *,
    path: Annotated[str, typer.Argument(help="Path or URL of a store, or folder of a run.")],
    columns: Annotated[
        int, typer.Option(metavar="N", min=0, help="Number of columns whose statistics are shown.")
    ] = 8,
    stored: StoreOptions,
    output: OutputOptions,
) -> None:
    """Show the contents of a store, without reading rows, or the results of a run."""
    if is_run(path):
        from ooc_train.runs.run_loading import load_fitted

        fitted = load_fitted(path)
        found, text = describe_run(path, fitted), run_text(path, fitted)
    else:
        store = stored.open(path)
        found, text = describe_store(store, columns), store_text(store, columns)
    if output.as_json:
        print_json(found)
        return
    typer.echo(printable(text))


@command
def make_data(
    *,
    out: Annotated[str, typer.Argument(help="Path of the new store.")],
    rows: Annotated[Any, typer.Option(parser=parsed(parse_rows), metavar="N", help="Such as 20M.")],
    features: Annotated[int, typer.Option(metavar="N", help="Columns of X.")] = 100,
    task: Annotated[
        Literal["classification", "regression"], typer.Option(help="Kind of y.")
    ] = "classification",
    classes: Annotated[int, typer.Option(metavar="N", help="Number of classes.")] = 2,
    condition: Annotated[
        float, typer.Option(metavar="NUMBER", help="Condition number of the covariance of X.")
    ] = 1.0,
    noise: Annotated[
        float, typer.Option(metavar="NUMBER", help="Noise on a signal of deviation 1.")
    ] = 1.0,
    dtype: Annotated[Literal["float32", "float64"], typer.Option(help="Of X.")] = "float32",
    random_state: Annotated[int, typer.Option(metavar="N", help="Seed.")] = 0,
    codec: Annotated[Literal["none", "lz4", "zstd"], typer.Option(help="Of the chunks.")] = "none",
    overwrite: Overwrite = False,
    memory_ceiling: MemoryCeiling = None,
    output: OutputOptions,
) -> None:
    """Write a store of synthetic data with known coefficients, of any size."""
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.store.jobs.synthetic import make_synthetic_store
        from ooc_train.store.jobs.synthetic_rows import SyntheticSettings

        written, memory = make_synthetic_store(
            out,
            SyntheticSettings(features, task, 1, classes, condition, noise, dtype, random_state),
            rows,
            codec=codec,
            memory_ceiling=Ceiling.of(memory_ceiling, whole_process=True),
            overwrite=overwrite,
            progress=bar.progress,
        )
    size = f"{format_rows(written.n_rows)} rows x {counted(written.n_features, 'feature')}"
    _print_store(written, f"{size} ({approximate_bytes(written.total_bytes)})", memory, out, output)


@command
def rechunk(
    *,
    store: Annotated[str, STORE],
    out: Annotated[str, typer.Argument(help="Path of the new store.")],
    chunk_rows: Annotated[
        Any,
        typer.Option(
            parser=parsed(rows_of),
            metavar="ROWS",
            help="Rows of a chunk (default: those of about 0.8 MiB; 1/16 of few rows).",
        ),
    ] = None,
    codec: Annotated[
        Literal["none", "lz4", "zstd"] | None,
        typer.Option(help="Of the chunks (default: the store's, or chosen from the first rows)."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="float32|float64|...", help="Of X (default: unchanged).")
    ] = None,
    missing: TreatMissing = "error",
    overwrite: Overwrite = False,
    stored: StoreOptions,
    memory_ceiling: MemoryCeiling = None,
    output: OutputOptions,
) -> None:
    """Rewrite a store with another chunk size, codec or type; the row order stays.

    With --missing drop, the rows keep their numbers as ids.
    """
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.store.jobs.rechunk import rechunk_store

        source = stored.open(store)
        written, memory = rechunk_store(
            source,
            out,
            chunk_rows=chunk_rows,
            codec=codec,
            dtype=dtype,
            missing=missing,
            memory_ceiling=Ceiling.of(memory_ceiling, whole_process=True),
            overwrite=overwrite,
            progress=bar.progress,
            warn=lambda text: bar.say(f"warning: {text}"),
        )
    size = f"{counted(written.n_rows, 'row')} ({approximate_bytes(written.total_bytes)})"
    chunks = f"{counted(written.n_chunks, 'chunk')} of {approximate_bytes(written.chunk_bytes)}"
    _print_store(written, f"{size} in {chunks}", memory, out, output)


@command
def shuffle(
    *,
    store: Annotated[str, STORE],
    out: Annotated[str, typer.Argument(help="Path of the new store.")],
    random_state: Annotated[int, typer.Option(metavar="N", min=0, help="Seed.")] = 0,
    missing: TreatMissing = "error",
    overwrite: Overwrite = False,
    stored: StoreOptions,
    memory_ceiling: MemoryCeiling = None,
    output: OutputOptions,
) -> None:
    """Write the rows of a store in random order, as training in batches needs."""
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.store.jobs.shuffle import shuffle_store

        source = stored.open(store)
        shuffled, memory = shuffle_store(
            source,
            out,
            random_state=random_state,
            missing=missing,
            memory_ceiling=Ceiling.of(memory_ceiling, whole_process=True),
            overwrite=overwrite,
            progress=bar.progress,
            warn=lambda text: bar.say(f"note: {text}"),
        )
    size = f"{counted(shuffled.n_rows, 'row')} ({approximate_bytes(shuffled.total_bytes)})"
    _print_store(shuffled, f"{size} shuffled with seed {random_state}", memory, out, output)


@command
def append(
    *,
    store: Annotated[str, STORE],
    files: Annotated[
        list[str], typer.Argument(help="Raw files: CSV or Parquet, patterns or folders.")
    ],
    raw_files: RawFileOptions,
    memory_ceiling: MemoryCeiling = None,
    output: OutputOptions,
) -> None:
    """Add the rows of raw files to the end of a store, encoded as at ingest; all or none."""
    notes: list[str] = []
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.store.jobs.append import append as append_rows

        added = append_rows(
            store,
            files,
            unseen=raw_files.unseen,
            delimiter=raw_files.delimiter,
            encoding=raw_files.encoding,
            memory_ceiling=Ceiling.of(memory_ceiling, whole_process=True),
            progress=bar.progress,
            warn=notes.append,
        )
    if output.as_json:
        found = describe_store(added.store, 0)
        print_json(found | {"added": added.n_rows, "memory": asdict(added.memory)})
        return
    rows = f"{counted(added.n_rows, 'row')} added, {added.store.n_rows:,} now"
    typer.echo(f"{rows} | memory: {added.memory}")
    for note in notes:
        typer.echo(printable(f"note: {note}"))


@command
def verify(
    *,
    store: Annotated[str, STORE],
    stored: StoreOptions,
    memory_ceiling: MemoryCeiling = None,
    output: OutputOptions,
) -> None:
    """Read every chunk of a store, and name each that is missing, damaged or not finite."""
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.store.jobs.verify import verify_store

        source = stored.open(store)
        found = verify_store(
            source,
            memory_ceiling=Ceiling.of(memory_ceiling, whole_process=True),
            progress=bar.progress,
        )
    if output.as_json:
        print_json(found.to_json())
    else:
        chunks = f"{counted(found.chunks, 'chunk')} ({approximate_bytes(found.decoded_bytes)})"
        for damage in found.damages[:_MOST_DAMAGES]:
            typer.echo(printable(with_option_names(damage.why, _OF_VERIFY)))
        if len(found.damages) > _MOST_DAMAGES:
            typer.echo(f"and {len(found.damages) - _MOST_DAMAGES:,} more; --json has all")
        if found.advice:
            typer.echo(printable(found.advice))
        bad = len(found.damages)
        state = f"{bad:,} {'is' if bad == 1 else 'are'} bad"
        if found.whole:
            state = "it is whole" if found.chunks == 1 else "all are whole"
        typer.echo(f"{chunks}: {state} | memory: {found.memory}")
    if not found.whole:
        raise typer.Exit(1)


def _print_store(
    store: "Store", summary: str, memory: "MemoryReport", out: str, output: OutputOptions
) -> None:
    """Print the store that a command wrote, and the memory of the command."""
    if output.as_json:
        print_json(describe_store(store, 0) | {"memory": asdict(memory)})
        return
    typer.echo(f"{summary} | memory: {memory}")
    typer.echo(printable(f"saved in {out}"))
