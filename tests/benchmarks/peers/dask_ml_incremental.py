"""dask-ml's `Incremental` around the same classifier, over Dask arrays of the Zarr arrays.

Blocks of 26 MB, on Dask's threads: the classifier goes from block to block, so that of two workers
one would wait, and it would travel. Smaller blocks cost more tasks; larger ones brought nothing.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

import dask
import dask.array as da
from dask_ml.wrappers import Incremental

from tests.benchmarks.peers.contest import Contestant, Data, Step
from tests.benchmarks.peers.sklearn_partial_fit import classifier

_BLOCK_ROWS = 65_536


def start(data: Data, folder: str, stack: ExitStack) -> Contestant:
    """Return the contestant; there is nothing to start."""
    store = data.store
    rows = slice(store.n_rows)

    def train() -> Iterator[Step]:
        X = da.from_zarr(store.path, "X", chunks=(_BLOCK_ROWS, store.n_features))[rows]
        y = da.from_zarr(store.path, "y", chunks=_BLOCK_ROWS)[rows]
        model = Incremental(classifier(), random_state=0, assume_equal_chunks=True)
        for passes in count(1):
            with dask.config.set(scheduler="threads"):
                model.partial_fit(X, y, classes=[0, 1])
            found = model.estimator_
            yield Step(found.coef_[0], float(found.intercept_[0]), passes)

    return Contestant(train)
