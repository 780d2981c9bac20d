"""The command `predict`: predictions for a store, or for raw files."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from ooc_train.cli.command import command
from ooc_train.cli.options import (
    DATA,
    RUN,
    OutputOptions,
    Overwrite,
    RawFileOptions,
    ResourceOptions,
    StoreXOptions,
)
from ooc_train.cli.parsers import LIST, names
from ooc_train.cli.printing import noted, print_json
from ooc_train.core.text import counted, printable
from ooc_train.monitoring.callbacks import ConsoleBar
from ooc_train.tables.names import is_table, require_predictions_name


@command
def predict(
    *,
    run: Annotated[str, RUN],
    data: Annotated[str, DATA],
    out: Annotated[
        str, typer.Argument(help="Path of the predictions: .csv, .tsv, .parquet, or a store.")
    ],
    proba: Annotated[
        bool, typer.Option("--proba", help="Write the probability of each class too.")
    ] = False,
    keep: Annotated[
        Any,
        typer.Option(
            parser=names,
            metavar=LIST,
            show_default=False,
            help="Repeat these columns of the raw files in a table of predictions, such as ids of "
            "text.",
        ),
    ] = None,
    raw_files: RawFileOptions,
    overwrite: Overwrite = False,
    stored: StoreXOptions,
    resources: ResourceOptions,
    output: OutputOptions,
) -> None:
    """Write predictions for a store, or for raw files.

    Raw files and tables of predictions are processed by this process alone, without a cluster.
    """
    with ConsoleBar(quiet=output.quiet) as bar:
        from ooc_train.core.output_kinds import STORE, require_output
        from ooc_train.inference.outputs import Kind
        from ooc_train.inference.predict import predict_store
        from ooc_train.runs.run_loading import load_fitted

        require_predictions_name(out)
        fitted = load_fitted(run)
        if proba and not fitted.model.is_classifier:
            raise ValueError(
                f"--proba needs classes, and the {fitted.model.name} model has none; leave it out"
            )
        kinds: tuple[Kind, ...] = ("prediction", "probability") if proba else ("prediction",)
        raw = is_table(data)
        if raw:
            stored.require_default("raw files")
        elif keep:
            raise ValueError(f"{data} is a store, which has no raw columns: leave --keep out")
        if raw or is_table(out):
            from ooc_train.inference.raw_files import predict_files

            store = None if raw else noted(stored.open(data), bar)
            n_rows, memory = predict_files(
                fitted,
                data if store is None else store,
                out,
                kinds=kinds,
                keep=keep or (),
                overwrite=overwrite,
                **asdict(raw_files),
                memory_ceiling=resources.ceiling,
                progress=bar.progress,
                warn=lambda text: bar.say(f"warning: {text}"),
            )
        else:
            store = noted(stored.open(data), bar)
            n_rows = store.n_rows
            # Refuse before the cluster starts.
            fitted.for_columns(store.feature_names, store.n_features, data, store.row_shape)
            require_output(out, STORE, overwrite=overwrite)
            with resources.client(bar, kernels=False) as client:
                memory = predict_store(
                    fitted,
                    store,
                    out,
                    kinds=kinds,
                    overwrite=overwrite,
                    client=client,
                    memory_ceiling=resources.ceiling,
                    progress=bar.progress,
                )
    if output.as_json:
        print_json({"n_rows": n_rows, "out": out, "arrays": kinds, "memory": asdict(memory)})
        return
    typer.echo(f"{counted(n_rows, 'row')} predicted | memory: {memory}")
    for note in () if store is None else store.notes:
        typer.echo(printable(f"note: {note}"))
    typer.echo(printable(f"saved in {out}: {', '.join((*(keep or ()), *kinds))}"))
