"""Vowpal Wabbit: `--loss_function logistic`, every pass from its cache.

Its text, and the cache of that, are written beforehand and not counted. Plain updates (`--sgd`)
with a rate that falls as the root of the rows take two thirds of the seconds of its default
(adaptive, normalised, invariant), and come near enough in one pass of 2M rows. Without
`--holdout_off` it would leave every tenth row out.
"""

import os
from contextlib import ExitStack
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from vowpalwabbit import Workspace

from tests.benchmarks.peers.contest import Contestant, Data, Step, slabs, told_beforehand

_SETTINGS = "--loss_function logistic --sgd --learning_rate 0.05 --power_t 0.5 --holdout_off"

_CONSTANT = 11650396
"""Where it keeps the intercept."""


def start(data: Data, folder: str, stack: ExitStack) -> Contestant:
    """Write text and cache, and return the contestant."""
    text, cache = f"{folder}/made.vw", f"{folder}/made.cache"
    started = perf_counter()
    _write(data, text)
    written = perf_counter()
    Workspace(f"--data {text} --cache_file {cache} --kill_cache --noop --quiet").finish()
    seconds = written - started, perf_counter() - written
    gigabytes = os.path.getsize(text) / 1e9, os.path.getsize(cache) / 1e9
    os.unlink(text)

    def fit(passes: int) -> Step:
        given = f"{_SETTINGS} --cache_file {cache} --passes {passes} --no_stdin --quiet"
        workspace = Workspace(given)  # which runs all passes
        coef = np.array([workspace.get_weight(j) for j in range(data.store.n_features)])
        intercept = workspace.get_weight(_CONSTANT)
        workspace.finish()
        return Step(coef, intercept, passes)

    return Contestant(
        told_beforehand(fit),
        f"{gigabytes[0]:.2g} GB of text in {seconds[0]:.0f} s, "
        f"a cache of {gigabytes[1]:.2g} GB in {seconds[1]:.0f} s",
    )


def _write(data: Data, path: str) -> None:
    """Write lines such as ``-1 | 0:0.25 1:-3.5``."""
    with open(path, "wb") as file:
        for X, y in slabs(data.store):
            parts = [pa.array(np.where(y == 1, "1 |", "-1 |"))]
            for j in range(X.shape[1]):
                parts += [f" {j}:", pa.array(np.ascontiguousarray(X[:, j])).cast(pa.string())]
            lines = pc.binary_join_element_wise(*parts, "\n", "")
            file.write(lines.buffers()[2])
