"""Images in the command `ingest`: their options, the job, and its output."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Annotated, Any

import typer

from ooc_train.cli.describe import describe_store
from ooc_train.cli.options import CsvOptions, OutputOptions, option
from ooc_train.cli.printing import one_line, print_json, short_path
from ooc_train.core.text import counted
from ooc_train.core.units import approximate_bytes, approximate_duration

_IMAGES = "Images"
_DEFAULTS = {"task": "auto", "missing": "error", "unseen": "error", "min_count": 1, "dtype": "auto"}
"""Defaults of the options of tables. `Roles` has them too, and loads pyarrow."""


@dataclass(frozen=True)
class ImageOptions:
    """Options of how images are read."""

    size: Annotated[
        str | None,
        option(
            of=_IMAGES,
            metavar="WIDTHxHEIGHT",
            help="Scale the images of a folder, to 28x28 for example (default: all have one size).",
        ),
    ] = None
    grayscale: Annotated[
        bool,
        option("--grayscale", of=_IMAGES, help="Make the images of a folder shades of grey."),
    ] = False
    x: Annotated[
        str | None,
        option("--x", of=_IMAGES, metavar="ARRAY", help="The images in a .npz (default: X)."),
    ] = None
    y: Annotated[
        str | None,
        option("--y", of=_IMAGES, metavar="ARRAY", help="The labels in a .npz (default: y)."),
    ] = None


def require_unused(options: Mapping[str, Any], why: str) -> None:
    """Raise `ValueError` if an option is set that is for other files.

    Parameters
    ----------
    options : mapping
        The options; those that are not set are None, False or empty.
    """
    used = [name for name, value in options.items() if value]
    if used:
        raise ValueError(f"{', '.join(used)}: {why}; leave out what is for others")


def options_of_tables(roles: Mapping[str, Any], csv: CsvOptions) -> dict[str, Any]:
    """Return the options that are for tables alone; those of the default are False or empty."""
    flags = {"id_column": "--id"}
    passed = {
        flags.get(name, f"--{name.replace('_', '-')}"): value != _DEFAULTS.get(name) and value
        for name, value in roles.items()
    }
    return passed | {
        "--delimiter": csv.delimiter,
        "--encoding": csv.encoding,
    }


def ingest_labelled_images(
    paths: list[str],
    out: str,
    images: ImageOptions,
    storage: Mapping[str, Any],
    output: OutputOptions,
) -> None:
    """Write a store of images, and print what was made.

    Parameters
    ----------
    paths : list of str
        Images and labels, or one path of both.
    storage : mapping
        Arguments of `ingest_images` about the store.
    """
    from ooc_train.store.jobs.ingest_images import ingest_images

    begun = perf_counter()
    if len(paths) > 2:
        raise ValueError(
            f"{len(paths)} paths of images and labels were passed; pass IMAGES LABELS OUT, or one "
            "path of both, and OUT"
        )
    labels = paths[1] if len(paths) > 1 else None
    made = ingest_images(paths[0], out, labels, **asdict(images), **storage)
    seconds = perf_counter() - begun
    if output.as_json:
        print_json(
            {
                "store": describe_store(made.store, 0),
                "test": None if made.test is None else describe_store(made.test, 0),
                "recipe": None,
                "dropped": 0,
                "notes": made.notes,
                "seconds": seconds,
                "memory": asdict(made.memory),
            }
        )
        return
    for store in filter(None, (made.store, made.test)):
        shape = " x ".join(map(str, store.X.row_shape))
        typer.echo(
            one_line(
                f"{short_path(store.path)}: {counted(store.n_rows, 'image')} of {shape} "
                f"{store.dtype.name}, {approximate_bytes(store.total_bytes)}, {store.X.codec}"
            )
        )
    for note in made.notes:
        typer.echo(f"note: {one_line(note)}")
    typer.echo(f"{approximate_duration(seconds)} | memory: {made.memory}")
