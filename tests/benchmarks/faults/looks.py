"""What lies at a path, as a value that can be compared: the content, and no times or ids.

Each reads all of it, so that what is half or damaged raises. They run in children, as
opening a store may start threads, and may finish or undo what a killed process left.
"""

import csv
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Look = Callable[[str], Any]


def digest(*parts: bytes) -> str:
    """Return a short name of some bytes."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()[:16]


def store(path: str) -> Any:
    """Return what a store holds, opened by the package."""
    from ooc_train.store.opening.opener import open_store

    found = open_store(path)
    names = [
        name for name in ("X", "y", "sample_weight", "row_id") if getattr(found, name) is not None
    ]
    arrays = {name: digest(found.read(name).tobytes()) for name in names}
    return "store", found.n_rows, found.feature_names, found.classes, arrays


def predictions(path: str) -> Any:
    """Return what a store of predictions holds, opened by zarr-python."""
    import zarr

    group = zarr.open_group(path, mode="r")
    n_rows = group.attrs["n_rows"]
    arrays = {name: digest(np.asarray(array[:n_rows]).tobytes()) for name, array in group.arrays()}
    if not arrays:
        raise ValueError(f"{path} has no arrays")
    return "predictions", n_rows, arrays


def run(path: str) -> Any:
    """Return what a saved run holds."""
    from ooc_train.runs.run_loading import load_fitted

    found = load_fitted(path)
    if found.report.get("passes") is None:
        raise ValueError(f"{path} has no report")
    numbers = digest(found.coef.tobytes(), found.intercept.tobytes())
    recipe = json.dumps(found.recipe, sort_keys=True)
    return "run", numbers, found.classes, found.feature_names, digest(recipe.encode())


def table(path: str) -> Any:
    """Return the rows of a CSV or Parquet file."""
    if path.endswith(".parquet"):
        import pyarrow.parquet as pq

        return "table", json.dumps(pq.read_table(path, use_threads=False).to_pydict())
    text = Path(path).read_text()
    rows = list(csv.reader(text.splitlines()))
    if not text.endswith("\n") or len({len(row) for row in rows}) != 1:
        raise ValueError(f"{path} is cut short")
    return "table", len(rows), digest(json.dumps(rows).encode())


def page(path: str) -> Any:
    """Return the words of a page of HTML: its plots show times of the day that it was drawn."""
    text = Path(path).read_text()
    if not text.rstrip().endswith("</html>"):
        raise ValueError(f"{path} is cut short")
    return "page", digest(re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL).encode())


def picture(path: str) -> Any:
    """Return the bytes of a picture, which must be whole."""
    content = Path(path).read_bytes()
    if not content.startswith(b"\x89PNG") or b"IEND" not in content[-12:]:
        raise ValueError(f"{path} is cut short")
    return "picture", digest(content)


def tradeoff(path: str) -> Any:
    """Return what a folder of a trade-off compares, without times."""
    found = json.loads(Path(f"{path}/tradeoff.json").read_text())
    picture(f"{path}/tradeoff.png")
    rows = list(csv.DictReader(Path(f"{path}/tradeoff.csv").read_text().splitlines()))
    losses = [(row["batch_size"], row["loss"]) for row in rows]
    return "tradeoff", sorted(found), losses


def anything(path: str) -> Any:
    """Return the names and bytes of all that lies at a path, by no format."""
    if os.path.islink(path):
        return "link", os.readlink(path)
    if os.path.isfile(path):
        return "file", digest(Path(path).read_bytes())
    return "folder", tuple(
        (entry.name, anything(entry.path)) for entry in sorted(os.scandir(path), key=str)
    )
