"""The command `report`."""

from typing import Annotated, Any

import typer

from ooc_train.cli.command import command
from ooc_train.cli.options import OutputOptions, Overwrite, ResourceOptions
from ooc_train.cli.printing import print_json
from ooc_train.core.text import printable
from ooc_train.core.units import approximate_bytes
from ooc_train.monitoring.callbacks import ConsoleBar


@command
def report(
    *,
    run: Annotated[list[str], typer.Argument(help="Folders of saved runs.", show_default=False)],
    out: Annotated[str, typer.Option(metavar="FILE", help="HTML page to write.")],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="STORE",
            help="Evaluate the models on this store, by one pass each, and show coefficients per "
            "standard deviation of its columns.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    resources: ResourceOptions,
    output: OutputOptions,
) -> None:
    """Write the figures, plots, settings and coefficients of runs as one HTML page.

    Several runs stand side by side first.
    """
    from ooc_train.core.atomic import write_file
    from ooc_train.core.output_kinds import PAGE, require_output
    from ooc_train.monitoring.run_page import Evaluated, models_page, run_page
    from ooc_train.runs.run_loading import load_fitted

    require_output(out, PAGE, overwrite=overwrite)
    models = {name: load_fitted(name) for name in run}
    evaluated = None
    if data is not None:
        from ooc_train.inference.predict import evaluate
        from ooc_train.store.opening.opener import open_store

        store = open_store(data)
        # Refuse before the cluster starts; columns are those of the store from here on.
        models = {
            name: fitted.for_columns(store.feature_names, store.n_features, data, store.row_shape)
            for name, fitted in models.items()
        }
        metrics: dict[str, Any] = {}
        with (
            ConsoleBar(quiet=output.quiet) as bar,
            resources.client(bar, kernels=False) as client,
        ):
            for name, fitted in models.items():
                metrics[name], _ = evaluate(
                    fitted,
                    store,
                    client=client,
                    memory_ceiling=resources.ceiling,
                    progress=bar.progress,
                )
        deviations = None if store.statistics is None else store.statistics.scale
        evaluated = Evaluated(data, metrics, deviations)
    if len(models) == 1:
        ((name, fitted),) = models.items()
        text = run_page(fitted, name, evaluated)
    else:
        text = models_page(models, evaluated)
    page = text.encode()
    write_file(out, page, overwrite=overwrite)
    if output.as_json:
        print_json({"out": out, "bytes": len(page)})
        return
    typer.echo(printable(f"saved in {out}: {approximate_bytes(len(page))}"))
