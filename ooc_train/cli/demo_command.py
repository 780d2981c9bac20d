"""The command `demo`: batch sizes side by side, and training under a memory ceiling."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ooc_train.cli import parsers
from ooc_train.cli.command import command
from ooc_train.cli.options import OutputOptions, Overwrite, ResourceOptions, option
from ooc_train.cli.printing import print_json
from ooc_train.core.text import counted, printable
from ooc_train.core.units import approximate_bytes, approximate_duration, parse_bytes
from ooc_train.memory.ceiling import Ceiling
from ooc_train.monitoring.callbacks import ConsoleBar

if TYPE_CHECKING:
    from ooc_train.experiments.demo import Fit
    from ooc_train.runs.report import Report

_TABLE = "{:<10}  {:<6}  {:>6}  {:>9}  {:>7}  {:>8}  {:>6}  {:>9}  {:>8}"
_HEAD = (
    "batch size", "solver", "passes", "updates", "seconds", "log-loss", "AUC", "projected",
    "measured",
)  # fmt: skip


@dataclass(frozen=True)
class DemoResourceOptions(ResourceOptions):
    """Resources of the demo, with a default ceiling that is the same on all machines."""

    memory_ceiling: Annotated[
        str | None,
        option(
            of="Resources",
            parse=parsers.size,
            metavar="BYTES",
            help="The most that all processes may hold.",
        ),
    ] = "1GiB"


@command
def demo(
    *,
    folder: Annotated[
        str | None,
        typer.Option(
            "--dir",
            metavar="FOLDER",
            help="Folder that keeps the data (default: a temporary folder).",
        ),
    ] = None,
    size: Annotated[
        str,
        typer.Option(
            parser=parsers.parsed(parsers.size), metavar="BYTES", help="Of the synthetic data."
        ),
    ] = "4GiB",
    overwrite: Overwrite = False,
    resources: DemoResourceOptions,
    output: OutputOptions,
) -> None:
    """Show in about a minute: four batch sizes side by side, and 4 GiB trained under 1 GiB."""
    n_bytes = parse_bytes(size)
    ceiling = resources.ceiling
    with _place(folder) as place:
        from ooc_train.experiments.demo import RAW_FILE_BYTES, require_disk_space
        from ooc_train.monitoring.interrupts import immediate_interrupts

        require_disk_space(place, n_bytes)
        begun = perf_counter()
        with (
            immediate_interrupts(),
            ConsoleBar(quiet=output.quiet) as bar,
            resources.client(bar, kernels=True, other_bytes=RAW_FILE_BYTES) as client,
        ):
            found = {"dashboard": client.dashboard_link}
            found |= _steps(place, n_bytes, client, ceiling, overwrite=overwrite, output=output)
            found["seconds"] = perf_counter() - begun
    kept = f"the data are in {folder}" if folder is not None else f"{place} is removed"
    if output.as_json:
        print_json(found)
        return
    typer.echo(
        f"\ntotal: {approximate_duration(found['seconds'])}, peak of all processes together "
        f"{approximate_bytes(found['peak'])}; " + printable(kept)
    )


@contextmanager
def _place(folder: str | None) -> Iterator[str]:
    """Give the folder for the data: a named one, or a temporary one."""
    import os

    from ooc_train.core.places import local_path
    from ooc_train.experiments.demo import scratch_folder

    if folder is None:
        with scratch_folder() as place:
            yield place
        return
    os.makedirs(local_path(folder), exist_ok=True)
    yield folder


def _steps(
    place: str,
    n_bytes: int,
    client: Any,
    ceiling: Ceiling,
    *,
    overwrite: bool,
    output: OutputOptions,
) -> dict[str, Any]:
    """Run the steps of the demo, print the result of each, and return all results."""
    from ooc_train.experiments import demo as steps
    from ooc_train.experiments.comparing import Peaks

    def say(text: str) -> None:
        if not output.as_json:
            typer.echo(text)

    peaks = Peaks(client)
    begun = perf_counter()
    stores = steps.store_flights(place, memory_ceiling=ceiling, overwrite=overwrite)
    flights = {
        "n_rows": stores[0].n_rows,
        "n_test_rows": stores[1].n_rows,
        "n_features": stores[0].n_features,
        "seconds": perf_counter() - begun,
    }
    say(
        f"{flights['n_rows']:,} flights x {flights['n_features']} features, and "
        f"{flights['n_test_rows']:,} for testing, stored in "
        f"{approximate_duration(flights['seconds'])}\n"
        "Which will arrive more than 15 minutes late? A logistic regression, by batch size:\n"
    )
    say(_TABLE.format(*_HEAD))
    with ConsoleBar(quiet=output.quiet) as bar:
        loading = steps.load_libraries(
            stores[0], client=client, memory_ceiling=ceiling, callback=bar
        )
    fits = []
    for batch_size in steps.BATCH_SIZES:
        peaks.restart()
        with ConsoleBar(quiet=output.quiet) as bar:
            fit = steps.fit_flights(
                batch_size, stores, client=client, memory_ceiling=ceiling, callback=bar
            )
        fits.append(fit)
        say(_row(fit))
    say(
        "\nlog-loss and AUC: of the test rows; projected and measured: the peak of all processes, "
        + ("of each fit" if peaks.own else "since the demo began")
        + f"\nloading of libraries and kernels took {approximate_duration(loading)}, not included\n"
    )
    with ConsoleBar(quiet=output.quiet) as bar:
        made, seconds = steps.write_synthetic(
            place,
            n_bytes,
            memory_ceiling=ceiling,
            overwrite=overwrite,
            progress=bar.progress,
        )
    total = made.total_bytes
    say(
        f"{made.n_rows:,} synthetic rows x {counted(made.n_features, 'feature')}: "
        f"{approximate_bytes(total)}, "
        f"{total / ceiling.limit:.3g} times the ceiling, written in {approximate_duration(seconds)}"
    )
    peaks.restart()
    with ConsoleBar(quiet=output.quiet) as bar:
        report = steps.fit_synthetic(made, client=client, memory_ceiling=ceiling, callback=bar)
    say(_result_text(report))
    peaks.update()
    # The share of libraries in a process falls as others map them: compare all figures.
    measured = [report.memory.measured, *(fit.report.memory.measured for fit in fits)]
    return {
        "flights": flights,
        "fits": [fit.to_json() for fit in fits],
        "loading_seconds": loading,
        "synthetic": {"n_rows": made.n_rows, "bytes": total, "seconds": seconds},
        "report": report.to_json(),
        "memory": asdict(report.memory),
        "peak": max(peaks.largest, *measured),
        "own_peaks": peaks.own,
    }


def _row(fit: "Fit") -> str:
    """Return a fit as a line of the printed table."""
    found = fit.to_json()
    return _TABLE.format(
        found["batch_size"],
        found["solver"],
        f"{found['passes']:.3g}",
        f"{found['updates']:,}",
        f"{found['seconds']:.2f}",
        f"{found['log_loss']:.4f}",
        f"{found['roc_auc']:.4f}",
        approximate_bytes(found["projected"]),
        approximate_bytes(found["measured"]),
    )


def _result_text(report: "Report") -> str:
    """Return the result of training on the synthetic data, as lines of text."""
    rate = approximate_bytes(report.bytes_read / report.seconds)
    return (
        f"trained by full batches: {counted(report.passes, 'pass', '.3g')} in "
        f"{approximate_duration(report.seconds)} ({rate}/s), log-loss {report.loss:.4f}\n"
        f"memory: {report.memory}"
    )
