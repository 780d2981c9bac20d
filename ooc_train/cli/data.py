"""Commands about data: what a store holds, and made data."""

import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ooc_train.callbacks import ConsoleBar, printable
from ooc_train.cli.command import command
from ooc_train.cli.options import STORE, Output, Overwrite
from ooc_train.cli.parsers import parsed
from ooc_train.cli.text import aligned, count, print_json
from ooc_train.units import approximate_bytes, format_rows, parse_rows

if TYPE_CHECKING:
    from ooc_train.store.layout import Store


@command
def info(
    *,
    store: Annotated[str, STORE],
    columns: Annotated[int, typer.Option(min=0, help="Columns whose statistics are shown.")] = 8,
    output: Output,
) -> None:
    """Show what a store holds, without reading a row."""
    from ooc_train.store.layout import open_store

    found = open_store(store)
    if output.as_json:
        print_json(_describe(found, columns))
        return
    typer.echo(printable(_description(found, columns)))


@command
def make_data(
    *,
    out: Annotated[str, typer.Argument(help="Where the store will lie.")],
    rows: Annotated[Any, typer.Option(parser=parsed(parse_rows), help="Such as 20M.")],
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
    overwrite: Overwrite = False,
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
        print_json(_describe(made, 0))
        return
    size = f"{format_rows(made.n_rows)} rows x {count(made.n_features, 'feature')}"
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
        ("y", "none" if store.y is None else count(store.n_outputs, "column")),
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
        text += ["", *aligned([["column", "mean", "scale", "min", "max"], *table])]
        if (more := store.n_features - len(table)) > 0:
            text.append(f"... and {more:,} more (--columns {store.n_features})")
    return "\n".join(text)


def _bytes_at_rest(path: str) -> int | None:
    """Return the bytes of the files of a store, None where it is no local directory."""
    if not os.path.isdir(path):
        return None
    return sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(path)
        for name in names
    )
