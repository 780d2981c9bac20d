"""The command `calibrate`: probabilities of a classifier, calibrated on validation rows."""

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
from ooc_train.cli.printing import noted, print_json
from ooc_train.core.text import counted, printable
from ooc_train.monitoring.callbacks import ConsoleBar


@command
def calibrate(
    *,
    run: Annotated[str, RUN],
    store: Annotated[str, STORE],
    out: Annotated[str, typer.Option(metavar="RUN", help="Folder of the calibrated run.")],
    method: Annotated[
        Literal["sigmoid", "temperature", "isotonic"],
        typer.Option(
            help="A logistic function of each linear predictor z, one factor of all, or any rising "
            "function."
        ),
    ] = "sigmoid",
    overwrite: Overwrite = False,
    stored: StoreOptions,
    resources: ResourceOptions,
    output: OutputOptions,
) -> None:
    """Calibrate the probabilities of a classifier on validation rows, and save a run.

    The store has rows that the run did not learn from. The calibrated run is one as any other.
    """
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.core.output_kinds import RUN as KIND
        from ooc_train.core.output_kinds import require_output
        from ooc_train.inference.calibrate import calibrate as learn
        from ooc_train.runs.run_loading import load_fitted

        require_output(out, KIND, overwrite=overwrite)
        fitted, data = load_fitted(run), noted(stored.open(store), bar)
        # Refuse before the cluster starts.
        fitted.for_columns(data.feature_names, data.n_features, store, data.row_shape)
        with resources.client(bar, kernels=False) as client:
            found, memory = learn(
                fitted,
                data,
                method,
                client=client,
                memory_ceiling=resources.ceiling,
                progress=bar.progress,
            )
        found.save(out, overwrite=overwrite)
    if output.as_json:
        print_json({"out": out, "method": method, "n_rows": data.n_rows, "memory": asdict(memory)})
        return
    typer.echo(f"calibrated by {method} on {counted(data.n_rows, 'row')} | memory: {memory}")
    typer.echo(printable(f"saved in {out}"))
