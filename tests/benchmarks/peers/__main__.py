"""ooc_train against peers: seconds of training until the same test loss, on the same data.

``python -m tests.benchmarks.peers [--rows 2M] [--rounds 7] [--only NAME ...] [--json FILE]``, and
with ``--solvers [--rows 20M] [--limit 300]`` the second part alone: seconds to the optimum on 8 GB
under 1 GiB. ``pip install -e '.[bench]'`` installs the peers; Spark needs Java 17 beside it. One
that is not installed is told of and left out. Of 2M rows it writes 5 GB to the temporary folder.
"""

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np

from ooc_train.core.units import parse_rows
from tests.benchmarks.peers import ours
from tests.benchmarks.peers.contest import CLOSE, Contestant, Data, Outcome, Peer, race
from tests.benchmarks.peers.solvers import solvers
from tests.benchmarks.tools import Figure, arguments, interleave, report, table, verdict


@dataclass(frozen=True)
class _Rival:
    """A peer: what it is called, what installs it, and how many times faster we are to be."""

    title: str
    package: str
    target: float


_RIVALS = {
    "sklearn_partial_fit": _Rival("scikit-learn's partial_fit", "scikit-learn", 5.0),
    "dask_ml_incremental": _Rival("dask-ml's Incremental", "dask-ml", 20.0),
    "pytorch_loop": _Rival("a PyTorch loop", "torch", 10.0),
    "vowpal_wabbit": _Rival("Vowpal Wabbit", "vowpalwabbit", 8.0),
    "spark": _Rival("Spark", "pyspark", 20.0),
}


def contest(
    folder: str, rows: int, rounds: int, names: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """Return the report of a contest with the peers of these names, and its figures."""
    data = Data.made(folder, rows)
    with ExitStack() as stack:
        own, optimum = ours.start(data, stack)
        target = (1.0 + CLOSE) * optimum
        contestants: dict[str, Contestant] = dict(own)
        versions: dict[str, str] = {}
        missing = []
        for name in names:
            rival = _RIVALS[name]
            try:
                versions[rival.package] = version(rival.package)
            except PackageNotFoundError:
                missing.append(f"{rival.title}: not installed")
                continue
            peer = cast("Peer", import_module(f"tests.benchmarks.peers.{name}"))
            contestants[rival.title] = peer.start(data, folder, stack)
        first = {name: race(one, data, target) for name, one in contestants.items()}
        ready = {name: one for name, one in contestants.items() if first[name].reached}
        outcomes: dict[str, Outcome] = dict(first)

        def seconds_of(name: str) -> float:
            outcomes[name] = race(ready[name], data, target)
            return outcomes[name].seconds

        seconds = interleave({name: partial(seconds_of, name) for name in ready}, rounds)
    lines = [
        (
            name,
            str(Figure.of(seconds[name])) if name in seconds else "not reached",
            str(outcome.passes),
            f"{outcome.loss / optimum - 1.0:.2%}",
            contestants[name].converted,
        )
        for name, outcome in outcomes.items()
    ]
    header = (
        f"to within {CLOSE:.1%} of the optimum's test loss",
        "seconds, median (quartiles)",
        "passes",
        "above it",
        "converted before, not counted",
    )
    text = [f"{data.store!r}", table(header, lines), *missing]
    ratios: dict[str, Figure] = {}
    fastest = min((name for name in own if name in seconds), key=lambda n: np.median(seconds[n]))
    for rival in _RIVALS.values():
        if rival.title in seconds:
            ratio = Figure.of(np.array(seconds[rival.title]) / np.array(seconds[fastest]))
            ratios[rival.title] = ratio
            text.append(verdict(f"{fastest}, over {rival.title}", ratio, rival.target))
    text.append(", ".join(f"{package} {number}" for package, number in versions.items()))
    figures = {"rows": data.store.n_rows, "versions": versions, "optimum": optimum, "close": CLOSE}
    return "\n".join(text), figures | {
        "seconds": seconds,
        "outcomes": outcomes,
        "ratios": ratios,
        "targets": {rival.title: rival.target for rival in _RIVALS.values()},
        "converted": {name: one.converted for name, one in contestants.items()},
    }


def main() -> None:
    """Print who was how fast."""
    full = "--solvers" in sys.argv
    parser = arguments(__doc__.partition("\n")[0], rows="20M" if full else "2M")
    parser.set_defaults(rounds=3 if full else 7)
    parser.add_argument("--only", nargs="+", choices=list(_RIVALS), default=list(_RIVALS))
    parser.add_argument("--solvers", action="store_true", help="to the optimum, by full batches")
    parser.add_argument(
        "--limit",
        type=float,
        default=300.0,
        help="seconds a solver may take, with all that it starts (%(default)g)",
    )
    parser.add_argument("--folder", type=Path, help="where the data go (the temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.solvers:
            found = solvers(folder, options.rows, options.rounds, options.limit)
        else:
            found = contest(folder, parse_rows(options.rows), options.rounds, options.only)
    report(*found, options.json)


if __name__ == "__main__":
    main()
