"""The command `ingest`."""

from dataclasses import asdict
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ooc_train.cli.command import command
from ooc_train.cli.describe import describe_store
from ooc_train.cli.format_options import FormatOptions
from ooc_train.cli.image_options import (
    ImageOptions,
    ingest_labelled_images,
    options_of_tables,
    require_unused,
)
from ooc_train.cli.options import (
    CsvOptions,
    MemoryCeiling,
    OutputOptions,
    Overwrite,
    option,
)
from ooc_train.cli.parsers import LIST, names, rows_of
from ooc_train.cli.printing import aligned, one_line, print_json, short_path
from ooc_train.core.text import counted, few, printable
from ooc_train.core.units import approximate_bytes, approximate_duration
from ooc_train.memory.ceiling import Ceiling
from ooc_train.monitoring.callbacks import ConsoleBar

if TYPE_CHECKING:
    from ooc_train.store.jobs.ingest import Ingested
    from ooc_train.store.jobs.ingest_preview import Preview

_COLUMNS = "Columns"
_ROWS = "Rows"
_STORE = "Store"


@command
def ingest(
    *,
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Tables: CSV or Parquet, as files, patterns or folders. Or images and labels: two "
            "files of IDX or .npy, a .npz of both, or a folder of images with a folder for each "
            "class. The first bytes of the first file decide, and in folders the names of files."
        ),
    ],
    out: Annotated[str, typer.Argument(help="Path of the new store.")],
    target: Annotated[
        str | None, option(of=_COLUMNS, metavar="COLUMN", help="The column to predict.")
    ] = None,
    features: Annotated[
        Any,
        option(of=_COLUMNS, parse=names, metavar=LIST, help="Use these columns only."),
    ] = None,
    drop: Annotated[
        Any, option(of=_COLUMNS, parse=names, metavar=LIST, help="Leave these columns out.")
    ] = None,
    categorical: Annotated[
        Any,
        option(
            of=_COLUMNS,
            parse=names,
            metavar=LIST,
            help="Make a feature of each value of these columns (one-hot).",
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        option(
            "--id",
            of=_COLUMNS,
            metavar="COLUMN",
            help="Integer identifiers of the rows (default: row numbers).",
        ),
    ] = None,
    sample_weight: Annotated[
        str | None, option(of=_COLUMNS, metavar="COLUMN", help="Weights of the rows.")
    ] = None,
    task: Annotated[
        Literal["auto", "classification", "regression"],
        option(of=_COLUMNS, help="Kind of the target; auto: text and booleans are labels."),
    ] = "auto",
    missing: Annotated[
        Literal["error", "drop", "mean", "median"],
        option(of=_ROWS, help="How to treat missing values."),
    ] = "error",
    unseen: Annotated[
        Literal["error", "other", "ignore"],
        option(of=_ROWS, help="How to treat categories that are not in the training rows."),
    ] = "error",
    min_count: Annotated[
        int,
        option(
            of=_ROWS, metavar="N", min=1, help="Treat values with fewer training rows as unseen."
        ),
    ] = 1,
    test_size: Annotated[
        float,
        option(
            of=_ROWS, metavar="NUMBER", help="Fraction of rows for a second store, *.test.zarr."
        ),
    ] = 0.0,
    shuffle: Annotated[bool, option(of=_ROWS, help="Put the rows in random order.")] = True,
    random_state: Annotated[
        int, option(of=_ROWS, metavar="N", min=0, help="Seed of the order and of the test rows.")
    ] = 0,
    like: Annotated[
        str | None,
        option(of=_COLUMNS, metavar="STORE|RUN", help="Apply the recipe of a store or a run."),
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "float64"],
        option(of=_STORE, help="Of X; auto: float32, or float64 where float32 loses digits."),
    ] = "auto",
    chunk_rows: Annotated[
        Any,
        option(
            "--chunk-rows",
            "--chunk",
            of=_STORE,
            parse=rows_of,
            metavar="ROWS",
            help="Rows of a chunk (default: those of about 0.8 MiB; 1/16 of few rows).",
        ),
    ] = None,
    shard_rows: Annotated[
        Any,
        option(
            "--shard-rows",
            "--shard",
            of=_STORE,
            parse=rows_of,
            metavar="ROWS",
            help="Rows of a shard (default: those of about 64 MiB).",
        ),
    ] = None,
    codec: Annotated[
        Literal["auto", "none", "lz4", "zstd"],
        option(of=_STORE, help="Of the chunks; auto: lz4 if a sample shrinks by a factor of 1.3."),
    ] = "auto",
    csv: CsvOptions,
    cells: FormatOptions,
    images: ImageOptions,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the encoding of each column, and write nothing.")
    ] = False,
    overwrite: Overwrite = False,
    memory_ceiling: MemoryCeiling = None,
    output: OutputOptions,
) -> None:
    """Write a store from raw files of any size: tables (CSV, Parquet), or images and labels."""
    begun = perf_counter()
    with ConsoleBar(quiet=output.quiet) as bar:
        ceiling = Ceiling.of(memory_ceiling, whole_process=True)
        from ooc_train.images.open_images import are_images

        roles: dict[str, Any] = {
            "target": target,
            "features": features,
            "drop": drop or (),
            "categorical": categorical or (),
            "id_column": id_column,
            "sample_weight": sample_weight,
            "task": task,
            "missing": missing,
            "unseen": unseen,
            "min_count": min_count,
            "dtype": dtype,
        }
        storage: dict[str, Any] = {
            "test_size": test_size,
            "shuffle": shuffle,
            "random_state": random_state,
            "chunk_rows": chunk_rows,
            "shard_rows": shard_rows,
            "codec": codec,
            "memory_ceiling": ceiling,
            "overwrite": overwrite,
            "progress": bar.progress,
            "say": bar.say,
        }
        if are_images(paths):
            of_tables = options_of_tables(roles | asdict(cells), csv) | {
                "--like": like,
                "--dry-run": dry_run,
            }
            require_unused(of_tables, "images have no columns")
            ingest_labelled_images(paths, out, images, storage, output)
            return
        require_unused(
            {f"--{name}": value for name, value in asdict(images).items()},
            "these files hold no images",
        )
        roles["formats"] = cells.formats()
        from ooc_train.store.jobs.ingest import ingest as write
        from ooc_train.store.jobs.ingest_preview import preview
        from ooc_train.tables.roles import Roles

        if dry_run:
            if like is not None:
                raise ValueError(
                    "--dry-run shows the recipe of new files, and --like names one; omit one"
                )
            found = preview(
                paths,
                Roles(**roles),
                test_size=test_size,
                random_state=random_state,
                progress=bar.progress,
                **asdict(csv),
            )
            bar.close()
            _print_preview(found, output)
            return
        made = write(
            paths,
            out,
            **roles,
            **asdict(csv),
            like=like,
            **storage,
            warn=lambda _: None,  # the notes have it
        )
    _print_ingested(made, perf_counter() - begun, output)


def _print_ingested(made: "Ingested", seconds: float, output: OutputOptions) -> None:
    """Print a description of the new stores, as JSON or as lines."""
    stores = [made.store, *([made.test] if made.test is not None else [])]
    if output.as_json:
        print_json(
            {
                "store": describe_store(made.store, 0),
                "test": None if made.test is None else describe_store(made.test, 0),
                "recipe": made.recipe.to_json(),
                "dropped": made.dropped,
                "notes": made.notes,
                "seconds": seconds,
                "memory": asdict(made.memory),
            }
        )
        return
    for store in stores:
        typer.echo(
            one_line(
                f"{short_path(store.path)}: {counted(store.n_rows, 'row')} x "
                f"{counted(store.n_features, 'column')}, {approximate_bytes(store.total_bytes)}, "
                f"{store.X.codec}"
            )
        )
    for note in made.notes:
        typer.echo(f"note: {one_line(note)}")
    typer.echo(f"{approximate_duration(seconds)} | memory: {made.memory}")


def _print_preview(found: "Preview", output: OutputOptions) -> None:
    """Print the encoding of each column."""
    if output.as_json:
        print_json(asdict(found) | {"recipe": found.recipe.to_json()})
        return
    head = ["column", "type", "becomes", "features", "missing", "values"]
    rows = [
        [
            one_line(column.name),
            column.type,
            one_line(column.becomes),
            f"{column.n_features:,}",
            f"{column.missing:,}",
            one_line(column.range),
        ]
        for column in found.columns
    ]
    typer.echo("\n".join(aligned([head, *rows], left=(0, 1, 2, 5))))
    target = found.recipe.target
    if target is not None:
        what = "numbers"
        if target.classes is not None:
            what = f"{counted(len(target.classes), 'class')}: {few(target.classes)}"
        typer.echo(printable(f"target {one_line(target.name)}: {one_line(what)}"))
    features = found.recipe.n_features
    tested = f" and {found.n_test:,} for testing" if found.n_test else ""
    size = approximate_bytes((found.n_rows + found.n_test) * found.row_bytes)
    typer.echo(
        f"{counted(found.n_rows, 'row')}{tested} x {counted(features, 'column')} of "
        f"{found.recipe.dtype}: "
        f"{size} before compression"
    )
    for note in found.notes:
        typer.echo(f"note: {one_line(note)}")
