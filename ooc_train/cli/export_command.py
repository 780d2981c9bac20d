"""The command `export`: a trained model as a file that other programs evaluate."""

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from ooc_train.cli.command import command
from ooc_train.cli.options import RUN, OutputOptions, Overwrite
from ooc_train.cli.printing import print_json
from ooc_train.core.text import printable


@command
def export(
    *,
    run: Annotated[str, RUN],
    out: Annotated[str, typer.Argument(help="File to make, such as model.onnx or model.json.")],
    to: Annotated[
        Literal["onnx", "json", "sklearn"]
        | None,  # the error of the last says what makes an estimator
        typer.Option(
            metavar="onnx|json",
            help="The form: a graph of ONNX, or coefficients as JSON (default: by the end of the "
            "file's name).",
        ),
    ] = None,
    features: Annotated[
        bool,
        typer.Option(
            "--features",
            help="The graph takes the matrix of features that the recipe makes, not raw columns.",
        ),
    ] = False,
    unseen: Annotated[
        Literal["error", "other", "ignore"] | None,
        typer.Option(
            help="How the graph treats categories that no training row had (default: as set at "
            "ingest)."
        ),
    ] = None,
    overwrite: Overwrite = False,
    output: OutputOptions,
) -> None:
    """Write a linear model or a perceptron as one file, with the encodings of raw columns in it.

    ONNX needs the package onnx, and is checked by onnxruntime: pip install onnx onnxruntime, or
    '.[onnx]' in a clone. An estimator of scikit-learn is made in Python: load(RUN).to_sklearn().
    """
    from ooc_train.exporting.export import export as write

    found = write(run, out, to=to, features=features, unseen=unseen, overwrite=overwrite)
    if output.as_json:
        print_json(asdict(found))
        return
    typer.echo(printable(str(found)))
