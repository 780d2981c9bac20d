"""Shards that were swapped, copied over one another or taken from elsewhere; and flipped bits.

Whatever is done to the files of a store of ours, its rows come out as they went in, or the
command refuses in one line.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.faults.bench import CHUNKS, Bench, copy
from tests.benchmarks.faults.metadata import READERS, clean, difference, read, remove, variant
from tests.benchmarks.faults.outcomes import GOOD, Finding, Outcome, ending

_STORES = ("own", "own-zstd")


def moved(bench: Bench, seed: int) -> Iterator[Finding]:
    """Put a whole shard where another one belongs."""
    rng = random.Random(f"moved {seed}")
    store = variant(bench, _STORES[seed % 2])
    with bench.folder(store, "new.run") as folder:
        place = f"{folder}/{os.path.basename(store)}"
        array = rng.choice(("X", "X", "y", "y", "row_id"))
        shards = sorted(str(p) for p in Path(f"{place}/{array}/c").rglob("*") if p.is_file())
        first, second = rng.sample(shards, 2)
        names = [os.path.relpath(path, folder) for path in (first, second)]
        way = rng.choice(("swapped", "copied", "elsewhere", "removed", "folder"))
        if way == "swapped":
            os.rename(first, f"{first}.x")
            os.rename(second, first)
            os.rename(f"{first}.x", second)
            done = f"{names[0]} and {names[1]} swapped"
        elif way == "copied":
            os.unlink(second)
            copy(first, second)
            done = f"{names[0]} copied over {names[1]}"
        elif way == "elsewhere":
            other = f"{bench.template}/{_other(bench, store)}/{os.path.relpath(first, place)}"
            os.unlink(first)
            copy(other, first)
            done = f"{names[0]} taken from another store"
        elif way == "removed":
            os.unlink(first)
            done = f"{names[0]} removed"
        else:
            os.unlink(first)
            os.mkdir(first)
            done = f"{names[0]} is a folder"
        yield from _read(bench, store, folder, done, rng)


def _other(bench: Bench, store: str) -> str:
    """Return a store of other rows, that is made as `store` is."""
    made = store.replace(".zarr", "-other.zarr")
    if not os.path.isdir(f"{bench.template}/{made}"):
        codec = ("--codec", "zstd") if "zstd" in store else ()
        bench.require(("ingest", "old.csv", made, "--target", "y", *CHUNKS, *codec))
    return made


def flipped(bench: Bench, seed: int) -> Iterator[Finding]:
    """Flip one bit of one file of a store: of its shards, or of its metadata."""
    rng = random.Random(f"flipped {seed}")
    store = variant(bench, _STORES[seed % 2])
    with bench.folder(store, "new.run") as folder:
        place = f"{folder}/{os.path.basename(store)}"
        files = sorted(path for path in Path(place).rglob("*") if path.is_file())
        # By their sizes: each bit is as likely as another.
        path = rng.choices(files, [file.stat().st_size for file in files])[0]
        content = bytearray(path.read_bytes())
        byte, bit = rng.randrange(len(content)), rng.randrange(8)
        content[byte] ^= 1 << bit
        path.write_bytes(content)
        done = f"bit {bit} of byte {byte:,} of {path.relative_to(folder)} flipped"
        yield from _read(bench, store, folder, done, rng)


def _read(
    bench: Bench, store: str, folder: str, done: str, rng: random.Random
) -> Iterator[Finding]:
    """Have some commands read a store that was harmed."""
    name = os.path.basename(store)
    for reader in rng.sample(sorted(READERS), 2):
        expected = clean(bench, reader, store)
        ended, words = read(bench, reader, folder, name)
        what = f"{done}: `{words}`"
        found = ending(ended, what)
        if found.outcome is Outcome.FINE and ended.value != expected:
            found = Finding(Outcome.SILENT, f"{what}: {difference(ended.value, expected)}")
        yield found
        for output in ("out.zarr", "out.csv", "out.run"):
            remove(f"{folder}/{output}")
        if found.outcome in GOOD:
            for left in bench.left(folder, [name, "new.run"]):
                yield Finding(left.outcome, f"{what}: {left.text}")
