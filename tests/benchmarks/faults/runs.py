"""Runs that lie: model.json, parameters.npz and recipe.json of a saved run, changed.

Predictions have to be those of the run as it was, or those that its files mean when they are read
plainly (what a person who changed a label by hand would expect), or refused in one line.
"""

import io
import json
import math
import os
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.faults import looks
from tests.benchmarks.faults.bench import Bench, shell
from tests.benchmarks.faults.children import Limits
from tests.benchmarks.faults.metadata import difference, lies, remove, spoil, told
from tests.benchmarks.faults.mutations import FILES, spoil_bytes, spoil_file
from tests.benchmarks.faults.outcomes import GOOD, Finding, Outcome, ending

_LIMITS = Limits(seconds=60, memory=450 * 2**20)

_COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    # By name: the words, and what they write; "" for what they tell.
    "predict a store": (("predict", "new.run", "new.zarr", "out.csv"), "out.csv"),
    "predict a table": (("predict", "new.run", "new.csv", "out.csv"), "out.csv"),
    "evaluate": (("evaluate", "new.run", "new.csv", "--json"), ""),
    "info": (("info", "new.run", "--json"), ""),
    "report": (("report", "new.run", "--out", "out.html"), "out.html"),
    "ingest": (("ingest", "new.csv", "out.zarr", "--like", "new.run"), "out.zarr"),
}
_CHECKED = ("predict a store", "predict a table", "evaluate", "ingest")
_LOOKS: dict[str, Callable[[str], Any]] = {
    ".csv": looks.table,
    ".html": looks.page,
    ".zarr": looks.store,
}


def _arrays(**arrays: Any) -> bytes:
    room = io.BytesIO()
    np.savez_compressed(room, **arrays)
    return room.getvalue()


def _large(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """An archive of arrays of zeros that are large, and pack to next to nothing."""
    room, zeros = io.BytesIO(), bytes(2**24)
    with zipfile.ZipFile(room, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, shape in shapes.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                about = {"descr": "<f8", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, about)
                left = 8 * math.prod(shape)
                while left:
                    left -= member.write(zeros[:left])
    return room.getvalue()


def _pickled() -> bytes:
    """An array of objects, which is a pickle: it makes a file where it is loaded."""

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, ("owned",)

    return _arrays(coef=np.array([[Evil()] * 4], object), intercept=np.zeros(1))


def _with_header(header: str, data: bytes = bytes(32)) -> bytes:
    """An archive whose array coef has a header that says something else than it holds."""
    text = header.encode().ljust(118) + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data
    room = io.BytesIO()
    with zipfile.ZipFile(room, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("coef.npy", array)
        one = io.BytesIO()
        np.save(one, np.zeros(1))
        archive.writestr("intercept.npy", one.getvalue())
    return room.getvalue()


def _header(shape: str, descr: str = "'<f8'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "a coef of 500 MiB of zeros": lambda: _large({"coef": (1, 2**26), "intercept": (1,)}),
    "an intercept of 500 MiB of zeros": lambda: _large({"coef": (1, 4), "intercept": (2**26,)}),
    "500 MiB of zeros beside": lambda: _large(
        {"coef": (1, 4), "intercept": (1,), "more": (2**26,)}
    ),
    "pickled objects": _pickled,
    "NaN": lambda: _arrays(coef=np.full((1, 4), np.nan), intercept=np.zeros(1)),
    "text": lambda: _arrays(coef=np.array([["a", "b", "c", "d"]]), intercept=np.zeros(1)),
    "complex numbers": lambda: _arrays(coef=np.ones((1, 4), complex), intercept=np.zeros(1)),
    "dates": lambda: _arrays(coef=np.zeros((1, 4), "M8[s]"), intercept=np.zeros(1)),
    "records": lambda: _arrays(coef=np.zeros((1, 4), [("a", "f8")]), intercept=np.zeros(1)),
    "no intercept": lambda: _arrays(coef=np.ones((1, 4))),
    "a coef without columns": lambda: _arrays(coef=np.ones((1, 0)), intercept=np.zeros(1)),
    "a coef without axes": lambda: _arrays(coef=np.float64(1), intercept=np.zeros(1)),
    "no arrays": lambda: _arrays(),
    "a shape of 10^12": lambda: _with_header(_header("(1, 1000000000000)")),
    "a shape below 0": lambda: _with_header(_header("(1, -4)")),
    "a shape of text": lambda: _with_header(_header("'x'")),
    "a header without end": lambda: _with_header("[" * 100),
    "a type of 10^9 bytes": lambda: _with_header(_header("(1, 1)", "'S1000000000'")),
}


def case(bench: Bench, seed: int) -> Iterator[Finding]:
    """Change one file of a run, and have some commands read it."""
    rng = random.Random(f"runs {seed}")
    with bench.folder("new.run", "new.zarr", "new.csv") as folder:
        file, done = _spoiled(f"{folder}/new.run", rng, seed)
        plain = bench.check(_plainly, folder=folder).value
        # Another model now? What its predictions are is then known for a store alone.
        another = plain not in (None, _clean(bench, "predict a store"))
        for name in rng.sample(sorted(_COMMANDS), 3):
            words, output = _COMMANDS[name]
            ended = bench.run(words, folder, limits=_LIMITS)
            what = f"{file} of a run, {done}: `{shell(words)}`"
            found = ending(ended, what)
            if found.outcome is Outcome.FINE:
                result = _result(bench, folder, output, ended.out)
                checked = name in (_CHECKED[:1] if another else _CHECKED)
                expected = plain if another else _clean(bench, name) if checked else None
                if checked and result != expected:
                    found = Finding(Outcome.SILENT, f"{what}: {difference(result, expected)}")
                elif isinstance(result, str) and result.startswith("unreadable"):
                    found = Finding(Outcome.SILENT, f"{what}: {result}")
            yield found
            remove(f"{folder}/{output}" if output else "")
            if os.path.lexists(f"{folder}/owned"):
                yield Finding(Outcome.SILENT, f"{what}: code of the file was run")
            if found.outcome in GOOD:
                yield from (
                    Finding(left.outcome, f"{what}: {left.text}")
                    for left in bench.left(folder, ["new.run", "new.zarr", "new.csv"])
                )


def _spoiled(run: str, rng: random.Random, seed: int) -> tuple[str, str]:
    """Change one file of a run: of three times, one as is listed, the others at random."""
    turn, way = divmod(seed, 3)
    if way == 0:
        listed = [("parameters.npz", name) for name in ARCHIVES]
        listed += [(f, w) for w in FILES for f in ("model.json", "parameters.npz", "recipe.json")]
        file, name = listed[turn % len(listed)]
        if name in ARCHIVES:
            Path(f"{run}/{file}").write_bytes(ARCHIVES[name]())
            return file, f"holds {name}"
        return file, spoil_file(f"{run}/{file}", rng, name)
    file = rng.choice(("model.json", "model.json", "parameters.npz", "recipe.json", "recipe.json"))
    if file == "parameters.npz":
        content, done = spoil_bytes(Path(f"{run}/{file}").read_bytes(), rng)
        Path(f"{run}/{file}").write_bytes(content)
        return file, done
    return file, spoil(f"{run}/{file}", rng)


def _result(bench: Bench, folder: str, output: str, out: str) -> Any:
    """Return what a command wrote or told."""
    if not output:
        return told(out)
    return lies(bench, _LOOKS[os.path.splitext(output)[1]], output, folder)


def _clean(bench: Bench, name: str) -> Any:
    """Return the result of a command where nothing is changed."""
    if ("runs", name) not in bench.looks:
        words, output = _COMMANDS[name]
        with bench.folder("new.run", "new.zarr", "new.csv") as folder:
            ended = bench.require(words, folder)
            bench.looks["runs", name] = (_result(bench, folder, output, ended.out),)
    return bench.looks["runs", name][0]


def _plainly() -> Any:
    """Return the predictions for the store that the files of the run mean, read plainly."""
    from ooc_train.store.opening.opener import open_store

    about = json.loads(Path("new.run/model.json").read_text())
    with zipfile.ZipFile("new.run/parameters.npz") as archive:
        if sum(member.file_size for member in archive.infolist()) > 2**20:
            raise ValueError("too large for a model of four features")
    with np.load("new.run/parameters.npz", allow_pickle=False) as arrays:
        coef, intercept = np.asarray(arrays["coef"], "f8"), np.asarray(arrays["intercept"], "f8")
    store = open_store("new.zarr")
    names = about["feature_names"]
    if names is not None:
        coef = coef[:, [names.index(name) for name in store.feature_names or ()]]
    z = store.read("X").astype("f8") @ coef.T + intercept
    labels = [about["classes"][int(value > 0)] for value in z[:, 0]]
    ids = store.read("row_id")
    rows = [["row_id", "prediction"], *([str(i), f"{k}"] for i, k in zip(ids, labels, strict=True))]
    return "table", len(rows), looks.digest(json.dumps(rows).encode())
