"""dask-ml's `LogisticRegression`, by its full-batch solvers, on a cluster of two workers.

``python -m tests.benchmarks.peers.dask_ml_solvers STORE SOLVER`` prints what it found as JSON. Two
workers of 512 MiB each, without a share for the client and the scheduler. Blocks of 13 MB, which it
makes float64 and copies several times. Tolerances are loose enough to stop soon after 1e-6: of
Newton's, the coefficients' last change, which squares from step to step; of L-BFGS, an entry of the
gradient of a sum, which grows with the rows.
"""

import json
import os
import sys
from time import perf_counter
from typing import Any

import dask.array as da
from dask_ml.linear_model import LogisticRegression
from distributed import Client, LocalCluster

from ooc_train.store.opening.opener import open_store

SOLVERS = ("newton", "lbfgs")

_BLOCK_ROWS = 32_768
_WORKER_MEMORY = "512MiB"


def solve(path: str, solver: str) -> dict[str, Any]:
    """Return the parameters that a solver finds, and the seconds that it took."""
    store = open_store(path)
    rows = slice(store.n_rows)
    tol = {"newton": 1e-2, "lbfgs": 1e-5 * store.n_rows}[solver]
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit=_WORKER_MEMORY,
            dashboard_address="127.0.0.1:0",
            local_directory=os.path.dirname(path),
        ) as cluster,
        Client(cluster),
    ):
        started = perf_counter()
        X = da.from_zarr(path, "X", chunks=(_BLOCK_ROWS, store.n_features))[rows]
        y = da.from_zarr(path, "y", chunks=_BLOCK_ROWS)[rows]
        model = LogisticRegression(solver=solver, tol=tol).fit(X, y)
        seconds = perf_counter() - started
    return {
        "seconds": seconds,
        "coef": model.coef_.tolist(),
        "intercept": float(model.intercept_),
    }


if __name__ == "__main__":
    print(json.dumps(solve(*sys.argv[1:])))
