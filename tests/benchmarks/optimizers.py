"""What a pass of updates costs with each optimizer, and with l1, against plain SGD.

``python -m tests.benchmarks.optimizers [--rows 5M] [--json FILE]``; the store takes 2 GB in the
temporary folder.
"""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import numpy as np

from ooc_train.optimizers import OPTIMIZERS
from ooc_train.optimizers.sgd import Sgd
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.store.jobs.synthetic import make_data
from tests.benchmarks.batch_sizes import passes
from tests.benchmarks.tools import Figure, arguments, interleave, report, table, verdict

_BATCH_SIZES = (1, 256, "chunk")
_OF_SGD, _ADAM_OF_SINGLE_ROWS = 0.8, 0.5
"""At least so much of the speed of SGD; Adam and AdamW by single rows may take longer."""

_L1 = 1.0


def main() -> None:
    """Make a store, let the optimizers take turns on it, and say which is how fast."""
    parser = arguments(__doc__.partition("\n")[0], rows="5M")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = make_data(f"{folder}/made.zarr", rows=options.rows)
        cluster = stack.enter_context(LocalCluster(n_workers=2, dashboard_address="127.0.0.1:0"))
        client = stack.enter_context(cluster.get_client())
        ours = passes(store, client, stack)
        sizes = [store.X.chunk_rows if size == "chunk" else int(size) for size in _BATCH_SIZES]
        contestants: dict[str, Callable[[], float]] = {}
        for size in sizes:
            for name, kind in OPTIMIZERS.items():
                contestants[f"{name}, {size}"] = partial(ours.updates, "logistic", size, kind())
            l1 = partial(ours.updates, "logistic", size, Sgd(), _L1)
            contestants[f"sgd with l1, {size}"] = l1
        seconds = {name: np.array(s) for name, s in interleave(contestants, options.rounds).items()}
    millions, lines, figures = store.n_rows / 1e6, [], {}
    for name, taken in seconds.items():
        of_sgd = seconds[f"sgd, {name.rpartition(', ')[2]}"]
        figures[name] = Figure.of(of_sgd / taken)
        lines.append((name, str(Figure.of(millions / taken)), str(figures[name])))
    text = [f"{store!r}", table(("optimizer, batch size", "M rows/s", "of SGD"), lines)]
    for name, figure in figures.items():
        single = name in ("adam, 1", "adamw, 1")
        text.append(verdict(name, figure, _ADAM_OF_SINGLE_ROWS if single else _OF_SGD))
    taken_seconds = {name: of_rounds.tolist() for name, of_rounds in seconds.items()}
    report(
        "\n".join(text),
        {"rows": store.n_rows, "ratios": figures, "seconds": taken_seconds},
        options.json,
    )


if __name__ == "__main__":
    main()
