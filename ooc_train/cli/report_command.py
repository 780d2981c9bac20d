"""The command about a run that was saved: report."""

from typing import Annotated

import typer

from ooc_train.cli.command import command
from ooc_train.cli.options import RUN, Output, Overwrite
from ooc_train.cli.printing import print_json
from ooc_train.core.text import printable
from ooc_train.core.units import approximate_bytes


@command
def report(
    *,
    run: Annotated[str, RUN],
    out: Annotated[str, typer.Option(metavar="FILE", help="Page of HTML to write.")],
    overwrite: Overwrite = False,
    output: Output,
) -> None:
    """Write what a run did as one page: settings, figures, plots and coefficients."""
    from ooc_train.core.atomic import write_file
    from ooc_train.core.output_kinds import FILE, require_output
    from ooc_train.monitoring.run_page import run_page
    from ooc_train.runs.fitted import load_fitted

    require_output(out, FILE, overwrite=overwrite)
    page = run_page(load_fitted(run), run).encode()
    write_file(out, page, overwrite=overwrite)
    if output.as_json:
        print_json({"out": out, "bytes": len(page)})
        return
    typer.echo(printable(f"saved in {out}: {approximate_bytes(len(page))}"))
