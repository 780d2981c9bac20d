"""The command `explain`: which columns a model predicts by."""

import os
from dataclasses import asdict
from functools import partial
from typing import Annotated

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
from ooc_train.cli.printing import aligned, csv_text, noted, one_line, print_json
from ooc_train.core.text import printable
from ooc_train.monitoring.callbacks import ConsoleBar


@command
def explain(
    *,
    run: Annotated[str, RUN],
    store: Annotated[str, STORE],
    repeats: Annotated[int, typer.Option(min=1, help="Permutations of each column.")] = 5,
    random_state: Annotated[int, typer.Option(min=0, help="Seed of the permutations.")] = 0,
    column: Annotated[
        list[str] | None,
        typer.Option(help="A column to permute; may be repeated (default: all)."),
    ] = None,
    dependence: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Show the mean prediction by the value of this column too, by one more pass; may "
            "be repeated.",
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Draw the importances: .png, .svg or .pdf."),
    ] = None,
    csv_file: Annotated[
        str | None, typer.Option("--csv", metavar="FILE", help="Write the table as CSV too.")
    ] = None,
    html: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write table and plot as an HTML page too."),
    ] = None,
    overwrite: Overwrite = False,
    stored: StoreOptions,
    resources: ResourceOptions,
    output: OutputOptions,
) -> None:
    """Show how much worse a model predicts when a column has the values of other rows.

    The features of a raw column, such as the categories of a one-hot encoding, move together.
    """
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.core.atomic import write_file
        from ooc_train.core.output_kinds import CSV, PAGE, require_output
        from ooc_train.explanation.dependence import partial_dependence
        from ooc_train.explanation.importance import permutation_importance
        from ooc_train.plotting.figures import require_figure, save
        from ooc_train.runs.run_loading import load_fitted

        for path, kind in ((csv_file, CSV), (html, PAGE)):
            if path is not None:
                require_output(path, kind, overwrite=overwrite)
        if plot is not None:
            require_figure(plot, overwrite=overwrite)
        fitted, data = load_fitted(run), noted(stored.open(store), bar)
        # Refuse before the cluster starts.
        fitted.for_columns(data.feature_names, data.n_features, store, data.row_shape)
        with resources.client(bar, kernels=False) as client:
            found = permutation_importance(
                fitted,
                data,
                n_repeats=repeats,
                random_state=random_state,
                columns=column,
                client=client,
                memory_ceiling=resources.ceiling,
                progress=bar.progress,
            )
            averages = None
            if dependence:
                averages = partial_dependence(
                    fitted,
                    data,
                    dependence,
                    random_state=random_state,
                    client=client,
                    memory_ceiling=resources.ceiling,
                    progress=bar.progress,
                )
    curves = [] if averages is None else [partial(averages.plot, name) for name in averages.names]
    if csv_file is not None:
        text = csv_text([tuple(found.frame.reset_index(names="column").columns), *found.rows(17)])
        write_file(csv_file, text.encode(), overwrite=overwrite)
    if plot is not None:
        save(found.plot, *curves, path=plot, overwrite=overwrite)
    if html is not None:
        from ooc_train.monitoring.html_page import Section, drawn, html_page

        figure = drawn(found.plot, 1.3 + 0.24 * min(20, len(found.names)))
        sections = [Section("Importance", [figure], found.rows(), found.head)]
        if averages is not None:
            figures = [drawn(draw) for draw in curves]
            head = averages.head
            sections.append(Section("Partial dependence", figures, averages.rows(), head))
        title = os.path.basename(os.path.normpath(run))
        write_file(html, html_page(title, found.about, sections).encode(), overwrite=overwrite)
    files = {"csv": csv_file, "html": html, "plot": plot}
    if output.as_json:
        shown = {} if averages is None else {"dependence": averages.to_json()}
        print_json(found.to_json() | shown | files | {"memory": asdict(found.memory)})
        return
    for line in aligned([[one_line(cell) for cell in row] for row in (found.head, *found.rows())]):
        typer.echo(line)
    for line in found.about:
        typer.echo(printable(line))
    if averages is not None:
        table = [[one_line(cell) for cell in row] for row in (averages.head, *averages.rows())]
        for line in aligned(table, left=(0, 1)):
            typer.echo(line)
    typer.echo(f"memory: {found.memory}")
    for path in files.values():
        if path is not None:
            typer.echo(printable(f"saved in {path}"))
