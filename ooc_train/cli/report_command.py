"""The command `report`."""

from typing import Annotated

import typer

from ooc_train.cli.command import command
from ooc_train.cli.options import RUN, OutputOptions, Overwrite
from ooc_train.cli.printing import print_json
from ooc_train.core.text import printable
from ooc_train.core.units import approximate_bytes


@command
def report(
    *,
    run: Annotated[str, RUN],
    out: Annotated[str, typer.Option(metavar="FILE", help="HTML page to write.")],
    overwrite: Overwrite = False,
    output: OutputOptions,
) -> None:
    """Write the settings, figures, plots and coefficients of a run as one HTML page."""
    from ooc_train.core.atomic import write_file
    from ooc_train.core.output_kinds import FILE, require_output
    from ooc_train.monitoring.run_page import run_page
    from ooc_train.runs.run_loading import load_fitted

    require_output(out, FILE, overwrite=overwrite)
    page = run_page(load_fitted(run), run).encode()
    write_file(out, page, overwrite=overwrite)
    if output.as_json:
        print_json({"out": out, "bytes": len(page)})
        return
    typer.echo(printable(f"saved in {out}: {approximate_bytes(len(page))}"))
