"""Readers of a store that is replaced again and again while they read.

What they come to belongs to exactly one of the stores that lay there, or they refuse in one line.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.benchmarks.faults import looks
from tests.benchmarks.faults.bench import Bench, copy, shell
from tests.benchmarks.faults.children import Limits
from tests.benchmarks.faults.metadata import lies, told
from tests.benchmarks.faults.outcomes import Finding, Outcome, ending

_SEED = ("--random-state", "0")
_MADE = {
    # Stores that take turns: two that differ in their values alone, one of fewer rows.
    "one": ("--rows", "30000", "--features", "8", "--random-state", "1"),
    "two": ("--rows", "30000", "--features", "8", "--random-state", "2"),
    "short": ("--rows", "20000", "--features", "8", "--random-state", "3"),
}
_CHUNKS = ("--chunk-rows", "512")
_LIMITS = Limits(seconds=90)

_READERS: dict[str, tuple[tuple[str, ...], str, Callable[[str], Any] | None]] = {
    # By name: the words, what they write, and how it is looked at; None for what is told.
    "full batches": (
        (
            *("train", "live.zarr", "--out", "out.run", "--solver", "lbfgs", "--tol", "1e-12"),
            *("--max-iter", "12", *_SEED),
        ),
        "out.run",
        looks.run,
    ),
    "updates": (
        (
            *("train", "live.zarr", "--out", "out.run", "--batch-size", "64", "--max-iter", "6"),
            *("--tol", "1e-12", *_SEED),
        ),
        "out.run",
        looks.run,
    ),
    "evaluate": (("evaluate", "one.run", "live.zarr", "--json"), "", None),
    "predict to a store": (
        ("predict", "one.run", "live.zarr", "out.zarr"),
        "out.zarr",
        looks.predictions,
    ),
    "predict to a table": (
        ("predict", "one.run", "live.zarr", "out.csv"),
        "out.csv",
        looks.table,
    ),
    "shuffle": (("shuffle", "live.zarr", "out.zarr"), "out.zarr", looks.store),
}
_ON_CLUSTER = ("full batches", "updates", "evaluate", "predict to a store")


def _made(bench: Bench, name: str) -> str:
    """Return the name in the template of one of the stores that take turns."""
    made = f"outputs/{name}.zarr"
    if not os.path.isdir(f"{bench.template}/{made}"):
        raw = f"outputs/{name}-raw.zarr"
        bench.require(("make-data", raw, *_MADE[name]))
        bench.require(("rechunk", raw, made, *_CHUNKS))
    return made


def _made_run(bench: Bench) -> str:
    """Return the name in the template of a run that learned from one of the stores."""
    made = "outputs/one.run"
    if not os.path.isdir(f"{bench.template}/{made}"):
        words = ("train", _made(bench, "one"), "--out", made, *_SEED, "--max-iter", "3")
        bench.require((*words, *bench.on_cluster))
    return made


def _result(bench: Bench, folder: str, reader: str, out: str) -> Any:
    _, output, look = _READERS[reader]
    if look is None:
        return told(out)
    return lies(bench, look, output, folder)


def _words(bench: Bench, reader: str) -> tuple[str, ...]:
    words = _READERS[reader][0]
    return (*words, *bench.on_cluster) if reader in _ON_CLUSTER else words


def _alone(bench: Bench, reader: str, name: str) -> Any:
    """Return the reader's result of one of the stores, which nobody replaces."""
    key = f"under overwrite: {reader}", name
    if key not in bench.looks:
        store = _made(bench, name)
        with bench.folder(_made_run(bench)) as folder:
            copy(f"{bench.template}/{store}", f"{folder}/live.zarr")
            ended = bench.require(_words(bench, reader), folder)
            bench.looks[key] = (_result(bench, folder, reader, ended.out),)
    return bench.looks[key][0]


def case(bench: Bench, seed: int) -> Iterator[Finding]:
    """Replace a store again and again while a command reads it."""
    rng = random.Random(f"replaced {seed}")
    reader = list(_READERS)[seed % len(_READERS)]
    names = rng.choice((("one", "two"), ("two", "one"), ("one", "short"), ("short", "two")))
    expected = {name: _alone(bench, reader, name) for name in names}
    stores = [_made(bench, name) for name in names]
    with bench.folder(*stores, _made_run(bench)) as folder:
        copy(f"{bench.template}/{stores[0]}", f"{folder}/live.zarr")
        words = _words(bench, reader)
        begun = time.perf_counter()
        child = bench.start(words, folder, limits=_LIMITS)
        turn = 0
        what = f"`{shell(words)}` while {names[0]} and {names[1]} take turns at live.zarr"
        time.sleep(rng.uniform(0, 0.3))
        while not child.poll() and time.perf_counter() - begun < _LIMITS.seconds:
            turn += 1
            source = f"{names[turn % 2]}.zarr"
            replacing = ("rechunk", source, "live.zarr", *_CHUNKS, "--overwrite")
            replaced = bench.run(replacing, folder)
            if replaced.status != 0:
                found = ending(replaced, f"{what}: `{shell(replacing)}`")
                yield found if found.text else Finding(Outcome.LOST, what)
            time.sleep(rng.choice((0, 0, 0.05)))
        ended = child.wait()
        what += f", {turn} times"
        found = ending(ended, what)
        if found.outcome is Outcome.FINE:
            result = _result(bench, folder, reader, ended.out)
            if result not in expected.values():
                text = f"{what}: the result is neither's: {str(result)[:300]}"
                found = Finding(Outcome.SILENT, text)
        yield found
        output = _READERS[reader][1]
        known = ["one.zarr", "two.zarr", "short.zarr", "one.run", "live.zarr", output]
        for left in bench.left(folder, known):
            yield Finding(left.outcome, f"{what}: {left.text}")
