"""What benchmarks share: contestants in turns, medians with their spread, and a report.

Machines are noisy and drift, so contestants take turns, and what is compared is compared within a
round, where the machine was much the same for all.
"""

import argparse
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LIBRARIES = ("numpy", "numba", "crc32c", "zarr", "dask", "distributed")


@dataclass(frozen=True)
class Figure:
    """The median of some rounds, and their quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float] | NDArray[np.float64]) -> "Figure":
        low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
        return cls(float(median), float(low), float(high))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def interleave(
    contestants: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, list[float]]:
    """Return what each contestant returned in each round, seconds for one.

    A first round isn't counted: it loads what is loaded once. Who begins changes with each round.
    """
    names = list(contestants)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds = contestants[name]()
            if turn > 0:
                taken[name].append(seconds)
    return taken


def arguments(description: str, rows: str) -> argparse.ArgumentParser:
    """Return a parser of what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rows", default=rows, help="of the store, such as %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="that count (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="to write the figures to")
    return parser


def machine() -> dict[str, Any]:
    """Return what figures depend on beside our code."""
    cpu = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        cpu = next(models, cpu)
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        **{library: version(library) for library in _LIBRARIES},
    }


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text as columns, the first to the left."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        f"{line[0]:<{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    )


def verdict(name: str, figure: Figure, target: float) -> str:
    """Return whether a figure reached its target, as a line."""
    word = "reached" if figure.median >= target else "MISSED"
    return f"{name}: {figure}, target {target:g} {word}"


def report(text: str, figures: Mapping[str, Any], path: Path | None) -> None:
    """Print a report with the machine that it is true of; write its figures to `path`, if given."""
    where = machine()
    print(text)
    print(", ".join(f"{name} {value}" for name, value in where.items()))
    if path is not None:
        path.write_text(json.dumps({"machine": where, **figures}, default=asdict, indent=2) + "\n")
