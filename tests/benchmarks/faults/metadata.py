"""Metadata that lie: zarr.json and its kin, of stores of ours and of other writers, changed.

What our stores say of themselves is sealed, so every command has to come to the same result, or
refuse in one line. A store of another writer may be changed to one that means something else: there
zarr-python says what it means, and `rechunk` has to read the same.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.faults import looks
from tests.benchmarks.faults.bench import CHUNKS, SHORT, Bench, shell
from tests.benchmarks.faults.children import Ended, Limits
from tests.benchmarks.faults.mutations import spoil_bytes, spoil_file, spoil_json
from tests.benchmarks.faults.outcomes import GOOD, Finding, Outcome, ending

LIMITS = Limits(seconds=60, memory=450 * 2**20)

_NO_RESULT = ("memory", "path", "ratio", "bytes_at_rest", "codec", "direct")
"""What commands tell as JSON that is of this run alone, or of how bytes lie at rest."""


def told(out: str) -> Any:
    """Return what a command told as JSON, but for `_NO_RESULT`."""
    found = json.loads(out)
    return {key: value for key, value in found.items() if key not in _NO_RESULT}


READERS: dict[str, tuple[tuple[str, ...], str, Callable[[str], Any] | None]] = {
    # By name: the words, with S for the store; what they write, and how it is looked at; or,
    # with None, what they tell.
    "info": (("info", "S", "--json"), "", None),
    "rechunk": (("rechunk", "S", "out.zarr"), "out.zarr", looks.store),
    "shuffle": (("shuffle", "S", "out.zarr"), "out.zarr", looks.store),
    "predict": (("predict", "new.run", "S", "out.csv"), "out.csv", looks.table),
    "evaluate": (("evaluate", "new.run", "S", "--json"), "", None),
    "train": (("train", "S", "--out", "out.run", *SHORT), "out.run", looks.run),
    "train by batches": (
        ("train", "S", "--out", "out.run", "--batch-size", "32", *SHORT),
        "out.run",
        looks.run,
    ),
}
"""Commands that read a store, and their result."""

_ON_CLUSTER = {"evaluate", "train", "train by batches"}


def read(bench: Bench, name: str, folder: str, store: str) -> tuple[Ended, str]:
    """Run a reader on a store, and return its end, with the result as its value, and its words."""
    words, output, look = READERS[name]
    words = tuple(store if word == "S" else word for word in words)
    if name in _ON_CLUSTER:
        words += bench.on_cluster
    ended = bench.run(words, folder, limits=LIMITS)
    if ended.status == 0:
        value = told(ended.out) if look is None else lies(bench, look, output, folder)
        ended = replace(ended, value=value)
    return ended, shell(words)


def lies(bench: Bench, look: Callable[[str], Any], output: str, folder: str) -> Any:
    """Return what lies at an output, or why it can't be read."""
    seen = bench.check(look, output, folder=folder)
    return seen.value if seen.status == 0 else f"unreadable: {seen.err[-300:]}"


def _reencoded(path: str) -> None:
    """Write a store of ours anew by zarr-python, as another program may, and unseal it."""
    import zarr

    source = zarr.open_group("new.zarr", mode="r")
    made = zarr.create_group(path, attributes=dict(source.attrs) | {"checksums": "off"})
    for name, array in source.arrays():
        values = np.asarray(array[...])
        names: Any = array.metadata.to_dict()["dimension_names"]
        chunks = (64, *values.shape[1:])
        made.create_array(name, data=values, chunks=chunks, dimension_names=names)


def _foreign(zarr_format: Any, *, sharded: bool = False) -> Callable[[str], None]:
    """Return what writes X and y as another writer would."""

    def make(path: str) -> None:
        import zarr

        from ooc_train.store.opening.opener import open_store

        source = open_store("new.zarr")
        made = zarr.create_group(path, zarr_format=zarr_format)
        for name in ("X", "y"):
            values = source.read(name)
            columns = values.shape[1:]
            settings: Any = {"shards": (128, *columns), "compressors": None} if sharded else {}
            made.create_array(name, data=values, chunks=(64, *columns), **settings)

    return make


VARIANTS: dict[str, Callable[[str], None] | tuple[str, ...]] = {
    "own": ("ingest", "new.csv", "PATH", "--target", "y", *CHUNKS),
    "own-zstd": ("ingest", "new.csv", "PATH", "--target", "y", *CHUNKS, "--codec", "zstd"),
    "unsealed": _reencoded,
    "foreign-3": _foreign(3),
    "foreign-3-sharded": _foreign(3, sharded=True),
    "foreign-2": _foreign(2),
}
"""Stores of the same rows: by a command of ours, or by a function of the path."""


def variant(bench: Bench, name: str) -> str:
    """Return the name in the template of a variant of the store, which is made once."""
    made = f"outputs/{name}.zarr"
    if not os.path.isdir(f"{bench.template}/{made}"):
        how = VARIANTS[name]
        if isinstance(how, tuple):
            bench.require([made if word == "PATH" else word for word in how])
        else:
            ended = bench.check(how, made, folder=bench.template)
            if ended.status != 0:
                raise RuntimeError(f"{name}: {ended.err}")
    return made


def clean(bench: Bench, reader: str, store: str) -> Any:
    """Return a reader's result where nothing is changed; None where it refuses the store."""
    if (reader, store) not in bench.looks:
        with bench.folder(store, "new.run") as folder:
            ended, words = read(bench, reader, folder, os.path.basename(store))
            if ending(ended, words).outcome not in GOOD:
                raise RuntimeError(f"{words}: exit {ended.status}: {ended.err}")
            bench.looks[reader, store] = (ended.value,)
    return bench.looks[reader, store][0]


def by_zarr(path: str) -> dict[str, str]:
    """Return the digests of X and y as zarr-python reads them."""
    import zarr

    group = zarr.open_group(path, mode="r")
    found = {}
    for name in ("X", "y"):
        values = np.asarray(group[name][...])  # type: ignore[index]
        found[name] = looks.digest(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return found


def case(bench: Bench, seed: int) -> Iterator[Finding]:
    """Change one file of a store's metadata, and have some commands read it."""
    rng = random.Random(f"metadata {seed}")
    name = list(VARIANTS)[seed % len(VARIANTS)]
    store = variant(bench, name)
    place = os.path.basename(store)
    with bench.folder(store, "new.run") as folder:
        files = sorted(
            str(path.relative_to(folder))
            for path in Path(f"{folder}/{place}").rglob("*")
            if path.name in ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
        )
        # The group's as often as all arrays' together.
        top = [file for file in files if file.count("/") == 1]
        file = rng.choice(top if rng.random() < 0.5 else files)
        done = spoil(f"{folder}/{file}", rng)
        ours = name.startswith("own")
        truth = bench.check(by_zarr, place, folder=folder).value if not ours else None
        before = bench.check(by_zarr, store, folder=bench.template).value if not ours else None
        for reader in rng.sample(sorted(READERS), 3):
            expected = clean(bench, reader, store)
            if expected is None:
                continue
            ended, words = read(bench, reader, folder, place)
            what = f"{file} of a {name} store, {done}: `{words}`"
            found = ending(ended, what)
            if found.outcome is Outcome.FINE and ended.value != expected:
                # What an unsealed manifest says, beside the rows, is what its owner made of it.
                if ours or (truth in (None, before) and name != "unsealed"):
                    text = f"{what}: {difference(ended.value, expected)}"
                    found = Finding(Outcome.SILENT, text)
                elif reader == "rechunk" and truth and not _same_arrays(ended.value, truth):
                    text = f"{what}: {ended.value}, and zarr-python reads {truth}"
                    found = Finding(Outcome.SILENT, text)
            yield found
            for output in ("out.zarr", "out.csv", "out.run"):
                remove(f"{folder}/{output}")
            if found.outcome in GOOD:
                yield from (
                    Finding(left.outcome, f"{what}: {left.text}")
                    for left in bench.left(folder, [place, "new.run"])
                )


def spoil(path: str, rng: random.Random) -> str:
    """Change a JSON file in one place, or as such; return what was done."""
    way = rng.random()
    if way < 0.7 and Path(path).read_text().strip() != "{}":
        text, done = spoil_json(Path(path).read_text(), rng)
        Path(path).write_text(text)
        return done
    if way < 0.85:
        content, done = spoil_bytes(Path(path).read_bytes(), rng)
        Path(path).write_bytes(content)
        return done
    return spoil_file(path, rng)


def _same_arrays(value: Any, truth: dict[str, str]) -> bool:
    return isinstance(value, tuple) and all(value[4].get(k) == truth[k] for k in truth)


def difference(value: Any, expected: Any) -> str:
    """Return where two results differ, in few words."""
    if isinstance(value, dict) and isinstance(expected, dict):
        keys = [k for k in {**value, **expected} if value.get(k) != expected.get(k)]
        return ", ".join(f"{k}: {value.get(k)!r}, not {expected.get(k)!r}"[:150] for k in keys)
    return f"{str(value)[:200]}, not {str(expected)[:200]}"


def remove(path: str) -> None:
    """Remove what lies at a path, if anything does."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
