"""The command `summary`: coefficients with their standard errors."""

import os
from dataclasses import asdict
from typing import Annotated, Literal

import typer

from ooc_train.cli.command import command
from ooc_train.cli.options import (
    RUN,
    STORE,
    OutputOptions,
    Overwrite,
    ResourceOptions,
    StoreOptions,
)
from ooc_train.cli.parsers import column
from ooc_train.cli.printing import aligned, csv_text, noted, one_line, print_json
from ooc_train.core.text import printable
from ooc_train.monitoring.callbacks import ConsoleBar


@command
def summary(
    *,
    run: Annotated[str, RUN],
    store: Annotated[str, STORE],
    errors: Annotated[
        Literal["classical", "HC1"] | None,
        typer.Option(help="The kind of standard errors (default: classical; robust ones: HC1)."),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Cluster the errors by the values of this column, which one more pass finds: its "
            "name, or its number if columns have no names.",
        ),
    ] = None,
    frequency_weights: Annotated[
        bool,
        typer.Option(
            "--frequency-weights",
            help="A weight is the number of equal rows that a row stands for.",
        ),
    ] = False,
    level: Annotated[float, typer.Option(help="Level of the confidence limits.")] = 0.95,
    csv_file: Annotated[
        str | None, typer.Option("--csv", metavar="FILE", help="Write the table as CSV too.")
    ] = None,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the table as an HTML page too.")
    ] = None,
    overwrite: Overwrite = False,
    stored: StoreOptions,
    resources: ResourceOptions,
    output: OutputOptions,
) -> None:
    """Show coefficients with standard errors, z, p and confidence limits, by one pass.

    The table of least squares has t for z; CSV and JSON name the column z in both cases.
    The run has a linear, logistic, Poisson, gamma or Tweedie model without a penalty, and the store
    has the rows that it learned from.
    """
    if cluster is not None and errors is not None:
        raise ValueError("--cluster is a kind of errors of its own; leave --errors out")
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.core.atomic import write_file
        from ooc_train.core.output_kinds import CSV, PAGE, require_output
        from ooc_train.explanation.coefficient_summary import COLUMNS
        from ooc_train.explanation.summary import require_likelihood
        from ooc_train.explanation.summary import summary as summarise
        from ooc_train.runs.run_loading import load_fitted

        for path, kind in ((csv_file, CSV), (html, PAGE)):
            if path is not None:
                require_output(path, kind, overwrite=overwrite)
        fitted, data = load_fitted(run), noted(stored.open(store), bar)
        # Refuse before the cluster starts.
        require_likelihood(fitted.bare())
        fitted.for_columns(data.feature_names, data.n_features, store, data.row_shape)
        groups = None if cluster is None else column(cluster, data.feature_names)
        with resources.client(bar, kernels=False) as client:
            found = summarise(
                fitted,
                data,
                errors="cluster" if cluster is not None else errors or "classical",
                groups=groups,
                weights="frequency" if frequency_weights else "variance",
                level=level,
                client=client,
                memory_ceiling=resources.ceiling,
                progress=bar.progress,
            )
    if csv_file is not None:
        head = (*(["output"] if found.outputs else []), "name", *COLUMNS)
        text = csv_text([head, *found.rows(digits=17)])
        write_file(csv_file, text.encode(), overwrite=overwrite)
    if html is not None:
        from ooc_train.monitoring.html_page import Section, html_page

        title = os.path.basename(os.path.normpath(run))
        sections = [Section("Coefficients", rows=found.rows(), head=found.head)]
        write_file(html, html_page(title, found.about, sections).encode(), overwrite=overwrite)
    if output.as_json:
        files = {"csv": csv_file, "html": html}
        print_json(found.to_json() | files | {"memory": asdict(found.memory)})
        return
    table = [[one_line(cell) for cell in row] for row in (found.head, *found.rows())]
    for line in aligned(table, left=range(2 if found.outputs else 1)):
        typer.echo(line)
    for line in found.about:
        typer.echo(printable(line))
    typer.echo(f"memory: {found.memory}")
    for path in (csv_file, html):
        if path is not None:
            typer.echo(printable(f"saved in {path}"))
