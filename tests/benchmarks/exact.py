"""Exact solvers: Newton in passes of full batches, and ridge over scikit-learn's in memory.

``python -m tests.benchmarks.exact [--rows 20M] [--columns 10,100,300,1000,2000] [--rounds N]
[--only newton|ridge] [--json FILE]``; the store of Newton takes 8 GB in the temporary folder.
"""

import tempfile
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import sklearn.linear_model
import zarr
from distributed import Client

from ooc_train.core.units import parse_rows
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.regression_models import RidgeModel
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.solvers.training_settings import Training
from ooc_train.store.dataset import Store
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.loop import train
from tests.benchmarks.tools import Figure, arguments, interleave, report, table

_BYTES = 800_000_000
"""Bytes of X for each ridge."""


def fits(client: Client, store: Store, model: Any, training: Training) -> Callable[[], Any]:
    """Return what fits, and returns the report."""
    inputs = read_inputs(store, classifier=model.is_classifier)
    return lambda: train(model, inputs, training, client=client)[1]


def newton(client: Client, folder: str, rows: int, rounds: int) -> dict[str, Any]:
    """Return a fit of Newton's in passes of full batches, by the condition of the columns."""
    found: dict[str, Any] = {}
    for condition in (1.0, 1e4):
        store = make_data(f"{folder}/{condition}.zarr", rows=rows, features=100,
                          condition=condition, overwrite=True)  # fmt: skip
        model = LogisticModel()
        best = fits(client, store, model, Training(solver="newton", tol=1e-9))().loss
        by_newton = fits(client, store, model, Training(solver="newton"))
        passes = fits(client, store, model, Training(solver="lbfgs", max_iter=4, tol=1e-14))
        excess: list[float] = []

        def one_fit(run: Callable[[], Any] = by_newton, best: float = best,
                    excess: list[float] = excess) -> float:  # fmt: skip
            done = run()
            excess.append(done.loss / best - 1.0)
            return float(done.seconds)

        def one_pass(run: Callable[[], Any] = passes) -> float:
            done = run()
            return float(done.seconds / done.passes)

        taken = interleave({"newton": one_fit, "pass": one_pass}, rounds)
        ratio = Figure.of(np.array(taken["newton"]) / np.array(taken["pass"]))
        found[f"condition {condition:g}"] = {"ratio": ratio, "excess": max(excess)}
    return found


def ridge(client: Client, folder: str, columns: list[int], rounds: int) -> dict[str, Any]:
    """Return the seconds of scikit-learn's ridge in memory over ours, by the number of columns."""
    found: dict[str, Any] = {}
    for features in columns:
        rows = _BYTES // (4 * features)
        store = make_data(f"{folder}/ridge.zarr", rows=rows, features=features,
                          task="regression", overwrite=True)  # fmt: skip
        ours = fits(client, store, RidgeModel(), Training())
        X, y = (zarr.open_array(f"{store.path}/{name}")[:] for name in ("X", "y"))

        def in_memory(X: Any = X, y: Any = y) -> float:
            begun = perf_counter()
            sklearn.linear_model.Ridge().fit(X, y)
            return perf_counter() - begun

        def out_of_core(run: Callable[[], Any] = ours) -> float:
            return float(run().seconds)

        taken = interleave({"scikit-learn": in_memory, "ours": out_of_core}, rounds)
        ratio = Figure.of(np.array(taken["scikit-learn"]) / np.array(taken["ours"]))
        found[f"{rows:,} x {features:,}"] = {"ratio": ratio, "ours": Figure.of(taken["ours"])}
    return found


def main() -> None:
    """Print both tables."""
    parser = arguments(__doc__.partition("\n")[0], rows="20M")
    parser.add_argument("--columns", default="10,100,300,1000,2000", help="of ridge (%(default)s)")
    parser.add_argument("--only", choices=("newton", "ridge"))
    options = parser.parse_args()
    columns = [int(each) for each in options.columns.split(",")]
    figures: dict[str, Any] = {}
    texts = []
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=2, dashboard_address="127.0.0.1:0") as cluster,
        cluster.get_client() as client,
    ):
        if options.only != "ridge":
            found = newton(client, folder, parse_rows(options.rows), options.rounds)
            lines = [(name, str(each["ratio"]), f"{each['excess']:.1e}")
                     for name, each in found.items()]  # fmt: skip
            texts.append(table(("Newton", "passes of full batches", "excess loss"), lines))
            figures["newton"] = found
        if options.only != "newton":
            found = ridge(client, folder, columns, options.rounds)
            lines = [(name, str(each["ours"]), str(each["ratio"])) for name, each in found.items()]
            texts.append(table(("ridge", "seconds", "scikit-learn over ours"), lines))
            figures["ridge"] = found
    report("\n\n".join(texts), figures, options.json)


if __name__ == "__main__":
    main()
