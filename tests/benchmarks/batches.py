"""Batches for a loop of one's own: shuffled over unshuffled, and beside a `DataLoader` by rows.

``python -m tests.benchmarks.batches [--rows 400k] [--rounds 7] [--cpu] [--json FILE]`` needs torch,
for the contestant that reads the same Zarr store row by row. ``--cpu`` counts processor seconds,
where others keep the machine busy.
"""

from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
import zarr

from ooc_train import batches, make_data
from ooc_train.core.units import parse_rows
from tests.benchmarks.tools import Figure, arguments, interleave, report, table, verdict

_SIZE, _FEATURES, _BY_ROWS = 256, 784, 2_000
_OF_UNSHUFFLED, _OF_LOADER = 0.5, 10.0


class Rows(torch.utils.data.Dataset):  # type: ignore[misc] # torch has no types here
    """The first rows of a Zarr store, one at a time."""

    def __init__(self, path: str) -> None:
        group: Any = zarr.open_group(path, mode="r")
        self._X, self._y = group["X"], group["y"]

    def __len__(self) -> int:
        return _BY_ROWS

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return self._X[row], self._y[row]


Clock = Callable[[], float]


def ours(path: str, clock: Clock, **settings: Any) -> float:
    """Return the rows a second of an epoch of batches."""
    made, rows = batches(path, _SIZE, random_state=0, **settings), 0
    began = clock()
    for X, *_ in made:
        rows += len(X)
    return rows / (clock() - began)


def by_rows(path: str, clock: Clock) -> float:
    """Return the rows a second of a `DataLoader` of rows in random order."""
    loader = torch.utils.data.DataLoader(Rows(path), batch_size=_SIZE, shuffle=True)
    began = clock()
    for _ in loader:
        pass
    return _BY_ROWS / (clock() - began)


def main() -> None:
    """Let all take turns, and say what was reached."""
    parser = arguments(__doc__.partition("\n")[0], rows="400k")
    parser.add_argument("--cpu", action="store_true", help="count seconds of processors")
    options = parser.parse_args()
    clock: Clock = process_time if options.cpu else perf_counter
    with TemporaryDirectory() as folder:
        path = f"{folder}/rows"
        make_data(path, rows=parse_rows(options.rows), features=_FEATURES, random_state=0)
        contestants: dict[str, Callable[[], float]] = {
            "unshuffled": partial(ours, path, clock, shuffle=False),
            "shuffled": partial(ours, path, clock),
            "64 chunks mixed": partial(ours, path, clock, shuffle_chunks=64),
            "tensors": partial(ours, path, clock, tensors=True),
            "DataLoader by rows": partial(by_rows, path, clock),
        }
        rates = {name: np.array(r) for name, r in interleave(contestants, options.rounds).items()}
    unshuffled, loader = rates["unshuffled"], rates["DataLoader by rows"]
    lines = [
        (
            name,
            str(Figure.of(rate / 1e3)),
            str(Figure.of(4e-9 * _FEATURES * rate)),
            str(Figure.of(rate / unshuffled)),
            str(Figure.of(rate / loader)),
        )
        for name, rate in rates.items()
    ]
    text = [
        table(("", "k rows/s", "GB/s", "over unshuffled", "over a DataLoader"), lines),
        *(
            verdict(f"{name} over unshuffled", Figure.of(rates[name] / unshuffled), _OF_UNSHUFFLED)
            for name in ("shuffled", "64 chunks mixed")
        ),
        verdict("over a DataLoader", Figure.of(rates["shuffled"] / loader), _OF_LOADER),
    ]
    report("\n".join(text), {name: Figure.of(rate) for name, rate in rates.items()}, options.json)


if __name__ == "__main__":
    main()
