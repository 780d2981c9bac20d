"""The command `runs`: the runs of a folder side by side."""

import os
from typing import Annotated

import typer

from ooc_train.cli.command import command
from ooc_train.cli.options import OutputOptions, Overwrite
from ooc_train.cli.printing import one_line, print_json
from ooc_train.core.text import aligned, printable


@command
def runs(
    *,
    folder: Annotated[str, typer.Argument(help="Folder that holds saved runs.")],
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write table and losses as an HTML page too.")
    ] = None,
    overwrite: Overwrite = False,
    output: OutputOptions,
) -> None:
    """Show the runs of a folder, the newest first: the settings that differ, and their figures."""
    from ooc_train.core.atomic import write_file
    from ooc_train.core.output_kinds import PAGE, require_output
    from ooc_train.runs.runs_table import runs_table, saved_runs

    if html is not None:
        require_output(html, PAGE, overwrite=overwrite)
    if not os.path.isdir(folder):
        raise ValueError(f"there is no folder {folder}; runs lie where train --out put them")
    found, unreadable = saved_runs(folder)
    if not found and not unreadable:
        raise ValueError(f"{folder} holds no runs; train with --out {folder}/NAME.run makes one")
    head, rows = runs_table(found)
    if html is not None:
        from ooc_train.monitoring.run_page import runs_page

        write_file(html, runs_page(folder, found).encode(), overwrite=overwrite)
    if output.as_json:
        values = [dict(zip(head, row, strict=True)) for row in rows]
        print_json({"runs": values, "unreadable": dict(unreadable), "html": html})
        return
    for line in aligned([[one_line(cell) for cell in row] for row in (head, *rows)]):
        typer.echo(line)
    for _, why in unreadable:
        typer.echo(printable(f"note: {why}"))
    if html is not None:
        typer.echo(printable(f"saved in {html}"))
