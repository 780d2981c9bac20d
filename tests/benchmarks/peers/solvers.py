"""Seconds to the optimum on data many times the memory, each contestant in a process of its own.

A process may hang or be killed for memory: past the limit it is stopped with all that it started,
and is not asked again.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from ooc_train.core.units import approximate_bytes
from ooc_train.memory.processes import process_tree
from ooc_train.store.dataset import Store
from ooc_train.store.jobs.synthetic import make_data
from tests.benchmarks.peers.contest import losses, slabs
from tests.benchmarks.peers.dask_ml_solvers import SOLVERS
from tests.benchmarks.peers.ours import CEILING
from tests.benchmarks.tools import Figure, table, verdict
from tests.watch import pss

_CLOSE = 1e-6
"""How far above the optimum's objective is its optimum, as a share of it."""

_TARGET = 20.0

_TIGHT = "1e-8"
_ENOUGH = "1e-3"
"""Tolerances of ours: for the optimum, and one that stops soon after it is close, as the peers'."""

_LOOK_SECONDS = 0.5
"""Between looks at memory, which take some of the time that is measured."""

_PACKAGE = "tests.benchmarks.peers"
_OURS = "ooc_train, Newton"


@dataclass(frozen=True)
class Found:
    """What a process ended with: seconds and objective, or why there are none; and its memory."""

    seconds: float
    objective: float
    why: str
    peak: int


def solvers(folder: str, rows: str, rounds: int, limit: float) -> tuple[str, dict[str, Any]]:
    """Return the report of a contest, and its figures."""
    store = make_data(f"{folder}/made.zarr", rows=rows, condition=100.0)
    commands = {_OURS: ("ours", store.path, _ENOUGH)}
    commands |= {f"dask-ml, {name}": ("dask_ml_solvers", store.path, name) for name in SOLVERS}
    best = _ask(store, ("ours", store.path, _TIGHT), limit)
    if best.why:
        raise RuntimeError(f"there is no optimum to compare with: {best.why}")
    found: dict[str, list[Found]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            if not any(run.why for run in found[name]):
                found[name].append(_ask(store, command, limit))
    seconds: dict[str, list[float]] = {}
    lines = []
    for name, runs in found.items():
        last = runs[-1]
        above = last.objective / best.objective - 1.0
        if not last.why and above <= _CLOSE:
            seconds[name] = [run.seconds for run in runs]
        peak = approximate_bytes(max(run.peak for run in runs))
        taken = last.why or str(Figure.of([run.seconds for run in runs]))
        lines.append((name, taken, "" if last.why else f"{above:.1e}", peak))
    header = (
        f"to within {_CLOSE:g} of the optimum",
        "seconds",
        "above the optimum",
        "memory of all processes",
    )
    text = [f"{store!r}", table(header, lines), _verdict(seconds)]
    return "\n".join(text), {"rows": store.n_rows, "seconds": seconds, "found": found}


def _verdict(seconds: dict[str, list[float]]) -> str:
    """Say how many times faster we were than the fastest of those that got there."""
    if _OURS not in seconds:
        return f"{_OURS} did not come within {_CLOSE:g} of the optimum: MISSED"
    own = np.array(seconds[_OURS])
    peers = {name: np.array(taken) for name, taken in seconds.items() if name != _OURS}
    if not peers:
        return f"no solver of dask-ml came within {_CLOSE:g} of the optimum"
    name = min(peers, key=lambda name: float(np.median(peers[name])))
    return verdict(f"{_OURS} over {name}, under {CEILING}", Figure.of(peers[name] / own), _TARGET)


def _ask(store: Store, command: Sequence[str], limit: float) -> Found:
    """Run a contestant for at most so many seconds, watching its memory."""
    module, *arguments = command
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", f"{_PACKAGE}.{module}", *arguments],
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        peak, started = 0, perf_counter()
        while process.poll() is None and perf_counter() - started < limit:
            peak = max(peak, sum(pss(pid) for pid in process_tree(process.pid)))
            try:
                process.wait(_LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return Found(np.nan, np.nan, f"not finished in {limit:g} s", peak)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            *_, last = errors.read().strip().splitlines() or ["no message"]
            return Found(np.nan, np.nan, f"failed: {last[:60]}", peak)
        answer = json.load(output)
    return Found(answer["seconds"], _objective(store, answer), "", peak)


def _objective(store: Store, answer: dict[str, Any]) -> float:
    """Return the mean loss of all rows; of so many, a penalty of C=1 is no part that counts."""
    coef, intercept = np.array(answer["coef"]), answer["intercept"]
    total = sum(float(losses(X, y, coef, intercept).sum()) for X, y in slabs(store))
    return total / store.n_rows
