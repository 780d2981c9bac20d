"""The command that splits a store into shares."""

from typing import Annotated

import typer

from ooc_train.cli.command import command
from ooc_train.cli.options import STORE, OutputOptions, Overwrite, StoreOptions
from ooc_train.cli.printing import print_json, short_path
from ooc_train.core.text import aligned, counted, printable


@command
def split(
    *,
    store: Annotated[str, STORE],
    test: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER", help="Fraction of the rows for the test share, in whole chunks."
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Number of folds: of the rows, or with --test of the other rows."
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Folder of the shares (default: next to the store)."),
    ] = None,
    random_state: Annotated[
        int, typer.Option("--random-state", "--seed", metavar="N", min=0, help="Seed.")
    ] = 0,
    by_chunks: Annotated[
        bool,
        typer.Option(
            "--by-chunks", help="Draw chunks though rows are not known to be in random order."
        ),
    ] = False,
    overwrite: Overwrite = False,
    stored: StoreOptions,
    output: OutputOptions,
) -> None:
    """Split the rows of a store into shares, without copying it.

    A share is a split file: a small file that names chunks of the store, and its arrays. Other
    commands read it as a store, and need no --x, --y or --weight. It is refused once the store was
    replaced. The order of other programs' Zarr is unknown: --by-chunks.
    """
    from ooc_train.store.jobs.rewriting_commands import unordered_chunks
    from ooc_train.store.jobs.split import split_store

    shares = split_store(
        stored.open(store),
        out,
        test=test,
        folds=folds,
        random_state=random_state,
        by_chunks=by_chunks,
        overwrite=overwrite,
    )
    # All shares are of one store, in whose order chunks were drawn.
    notes = [note for note in {unordered_chunks(each) for each in shares.values()} if note]
    if output.as_json:
        found = {name: {"path": each.path, "n_rows": each.n_rows} for name, each in shares.items()}
        print_json({"shares": found, "notes": notes})
        return
    table = [["share", "rows", "of all", "chunks"]]
    for each in shares.values():
        if (share := each.share) is not None:
            part = f"{100 * each.n_rows / share.n_stored:.1f} %"
            chunks = len(share.drawn.partitions)
            table.append([short_path(each.path), f"{each.n_rows:,}", part, f"{chunks:,}"])
    typer.echo(printable("\n".join(aligned(table))))
    typer.echo(printable(f"{counted(len(shares), 'share')} of {store}, by seed {random_state}"))
    for note in notes:
        typer.echo(printable(f"note: {note}"))
