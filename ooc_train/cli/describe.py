"""Descriptions of stores and runs for `info`, as JSON and as text."""

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ooc_train.cli.printing import aligned, one_line
from ooc_train.core.output_kinds import RUN
from ooc_train.core.schema import flag, list_of, mapping, or_none, record, texts
from ooc_train.core.schema import text as is_text
from ooc_train.core.text import counted, few, losses, pixel_name, printable
from ooc_train.core.units import approximate_bytes, approximate_duration
from ooc_train.tables.names import as_option, delimiter_option

if TYPE_CHECKING:
    from ooc_train.runs.fitted import Fitted
    from ooc_train.store.dataset import Store
    from ooc_train.store.format.arrays import ArrayLayout


_RECIPE = record(
    {
        "target": or_none(record({"name": is_text, "type": is_text})),
        "sample_weight": or_none(is_text),
        "id_column": or_none(is_text),
        "columns": list_of(
            record(
                {"name": is_text, "kind": is_text, "type": is_text},
                optional={"values": texts(), "missing": flag, "other": flag},
            )
        ),
    },
    optional={"formats": mapping, "delimiter": is_text, "encoding": is_text},
)
"""The parts of a recipe that `info` shows; the whole is checked when it is applied."""


def is_run(path: str) -> bool:
    """Return whether a folder is a run."""
    return RUN.is_at(path)


def describe_store(store: "Store", columns: int) -> dict[str, Any]:
    """Return the description of a store, without reading a row.

    Parameters
    ----------
    store : Store
        The store.
    columns : int
        Number of columns of X whose statistics are included.
    """
    ids, recipe = store.row_id, store.recipe or {}
    decoded = store.total_bytes + (0 if ids is None else store.n_rows * ids.row_bytes)
    at_rest = _bytes_at_rest(store.path)  # None of a share, which has no rows of its own
    found: dict[str, Any] = {
        "path": store.path,
        "share": None if store.share is None else str(store.share),
        "n_rows": store.n_rows,
        "n_features": store.n_features,
        "row_shape": store.row_shape,
        "n_outputs": store.n_outputs,
        "dtype": store.dtype.name,
        "y_dtype": None if store.y is None else _y_name(store.y),
        "classes": store.classes,
        "class_counts": store.class_counts,
        "weighted": store.sample_weight is not None,
        "row_id": ids is not None,
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
        "bytes_at_rest": at_rest,
        "ratio": decoded / at_rest if at_rest else None,
        "format_version": store.format_version,
        "generation": store.generation,
        "store_id": store.store_id or None,
        "notes": list(store.notes),
        "raw_columns": _raw_columns(store),
        "csv": {name: recipe[name] for name in ("delimiter", "encoding") if name in recipe} or None,
        "cell_formats": recipe.get("formats"),
        "columns": None,
    }
    statistics, names, row_shape = store.statistics, store.feature_names, store.row_shape

    def unnamed(column: int) -> str | None:
        return None if row_shape is None else pixel_name(row_shape, column)

    if statistics is not None:
        found["columns"] = [
            {
                "name": unnamed(i) if names is None else names[i],
                "mean": statistics.mean[i].item(),
                "scale": statistics.scale[i].item(),
                "min": statistics.minimum[i].item(),
                "max": statistics.maximum[i].item(),
            }
            for i in range(min(columns, store.n_features))
        ]
    return found


def store_text(store: "Store", columns: int) -> str:
    """Return the description of a store as lines."""
    found = describe_store(store, columns)
    y = "none"
    if store.y is not None:
        y = f"{counted(store.n_outputs, 'column')} of {found['y_dtype']}"
    chunks = f"{store.n_chunks:,} of {counted(store.chunk_rows, 'row')}"
    shards = f"{store.X.n_shards:,} of {counted(store.shard_rows, 'row')}"
    size = approximate_bytes(store.total_bytes)
    if found["bytes_at_rest"] is not None:
        size += f", at rest {approximate_bytes(found['bytes_at_rest'])}"
    if found["ratio"] is not None:
        size += f", ratio {found['ratio']:.3g}"
    order = "not shuffled"
    if store.shuffled is not None:
        order = f"shuffled with seed {store.shuffled}"
    written = "by another writer"
    if store.format_version:
        written = f"version {found['format_version']}, {counted(store.generation, 'commit')}"
    rows = [
        ("path", store.path),
        *([] if store.share is None else [("share", str(store.share))]),
        ("rows", f"{store.n_rows:,}"),
        ("features", f"{_features(store.n_features, store.row_shape)} of {store.dtype.name}"),
        ("y", y),
        ("classes", _classes(store)),
        ("weights", "yes" if found["weighted"] else "none"),
        ("row ids", "yes" if found["row_id"] else "none"),
        ("chunks", f"{chunks}, {approximate_bytes(store.chunk_bytes)} each"),
        ("shards", shards if store.X.sharded else "none: one file for each chunk"),
        ("codec", (store.X.codec or "by zarr-python") + (", checksums" if store.X.crc else "")),
        ("order", order),
        ("bytes", size),
        ("format", written),
        *(("note", one_line(note)) for note in store.notes),
    ]
    text = _pairs(rows)
    if raw := found["raw_columns"]:
        table = [
            [
                *(one_line(column[key]) for key in ("name", "role", "type")),
                "" if column["features"] is None else f"{column['features']:,}",
            ]
            for column in raw[: max(columns, 1)]
        ]
        text += ["", *aligned([["raw column", "is a", "type", "features"], *table], left=(0, 1, 2))]
        if (more := len(raw) - len(table)) > 0:
            text.append(f"... and {more:,} more (--columns {len(raw)})")
    if formats := {**(found["csv"] or {}), **(found["cell_formats"] or {})}:
        text.append(printable(f"cells are read by {_format_options(formats)}"))
    if found["columns"]:
        table = [
            [one_line(column["name"] or f"column {i}")]
            + [f"{column[key]:.6g}" for key in ("mean", "scale", "min", "max")]
            for i, column in enumerate(found["columns"])
        ]
        text += ["", *aligned([["column", "mean", "scale", "min", "max"], *table])]
        if (more := store.n_features - len(table)) > 0:
            text.append(f"... and {more:,} more (--columns {store.n_features})")
    return "\n".join(text)


def describe_run(path: str, fitted: "Fitted") -> dict[str, Any]:
    """Return the description of a run."""
    return {
        "path": path,
        "model": {"name": fitted.model.name, **fitted.model.settings()},
        "training": fitted.training.settings(),
        "n_features": fitted.n_features,
        "row_shape": fitted.row_shape,
        "n_outputs": fitted.n_outputs,
        "classes": list(fitted.classes) or None,
        "calibration": None if fitted.calibration is None else fitted.calibration.to_json(),
        "report": dict(fitted.report),
    }


def run_text(path: str, fitted: "Fitted") -> str:
    """Return the description of a run as lines."""
    from ooc_train.inference.outputs import loss_name
    from ooc_train.runs.report import report_of

    report = report_of(fitted.report, path)
    met = "" if report.converged else ", tolerance not reached"
    rows = [
        ("path", path),
        ("model", f"{report.model} by {report.solver}, batch size {report.batch_size}"),
        ("features", _features(fitted.n_features, fitted.row_shape)),
        ("classes", one_line(few(fitted.classes)) or "none"),
        ("rows", counted(report.n_rows, "training row")),
        ("passes", f"{report.passes:.4g}, {counted(report.updates, 'update')}"),
        (loss_name(fitted), f"{losses(report.loss, report.validation_loss)}{met}"),
        ("seconds", approximate_duration(report.seconds)),
        ("memory", str(report.memory)),
        *(("note", one_line(note)) for note in report.notes),
    ]
    if fitted.calibration is not None:
        rows.insert(4, ("calibration", str(fitted.calibration)))
    return "\n".join(_pairs(rows))


def _raw_columns(store: "Store") -> list[dict[str, Any]] | None:
    """Return the encoding of raw columns, or None if the store has no recipe.

    It reads the recipe as JSON, since `Recipe` needs pyarrow.

    Raises
    ------
    ValueError
        If the recipe is damaged.
    """
    recipe = store.recipe
    if recipe is None:
        return None
    try:
        _RECIPE(recipe, "")
        target = recipe["target"]
        special = [] if target is None else [(target["name"], "target", target["type"])]
        roles = {"sample_weight": "weight", "id_column": "row id"}
        special += [(recipe[key], role, "") for key, role in roles.items() if recipe[key]]
        found: list[tuple[Any, ...]] = [(*column, None) for column in special]
        for column in recipe["columns"]:
            values = [*column.get("values", ())]
            values += filter(None, (column.get("missing"), column.get("other")))
            features = len(values) if column["kind"] == "category" else 1
            found.append((column["name"], column["kind"], column["type"], features))
    except ValueError as error:
        raise ValueError(f"{store.path}: its recipe is damaged ({error}); ingest again") from None
    return [dict(zip(("name", "role", "type", "features"), row, strict=True)) for row in found]


def _format_options(formats: Mapping[str, Any]) -> str:
    """Return how a recipe has files and cells written, as options of `ingest`."""
    found = []
    for name, value in formats.items():
        if name == "delimiter":
            found.append(delimiter_option(value))
            continue
        each = [value]
        if isinstance(value, Mapping):
            each = [f"{column}={form}" if column else form for column, form in value.items()]
        elif isinstance(value, list):
            each = [as_option(value)]
        option = "--" + name.replace("_", "-")
        quoted = (text if isinstance(value, list) else shlex.quote(text) for text in each)
        found += [f"{option} {text}" for text in quoted]
    return " ".join(found)


def _features(count_: int, row_shape: tuple[int, ...] | None) -> str:
    """Return the number of features, and the shape of rows of several axes."""
    if row_shape is None:
        return f"{count_:,}"
    return f"{count_:,} ({' x '.join(f'{size:,}' for size in row_shape)})"


def _classes(store: "Store") -> str:
    if store.classes is None:
        return "none" if store.y is None else "not noted in the store"
    counts = store.class_counts or (None,) * len(store.classes)
    shown = few(
        [
            f"{label}" if n is None else f"{label} ({counted(n, 'row')})"
            for label, n in zip(store.classes, counts, strict=True)
        ]
    )
    return one_line(shown)


def _pairs(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(8, *(len(name) for name, _ in rows))
    return [f"{name:<{width}}  {value}" for name, value in rows]


def _y_name(y: "ArrayLayout") -> str:
    """Return the kind of y: its type, text, or codes of names."""
    if y.is_text:
        return "text"
    name = _dtype_name(y.dtype)
    return name if y.names is None else f"{name}, codes of {len(y.names):,} names"


def _dtype_name(dtype: str) -> str:
    """Return NumPy's name of a type: "uint8" for "|u1"."""
    import numpy as np

    return np.dtype(dtype).name


def _bytes_at_rest(path: str) -> int | None:
    """Return the bytes of a store's files, or None if it is no local directory."""
    if not os.path.isdir(path):
        return None
    return sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(path)
        for name in names
    )
