"""What a run must share with the run that it goes on with: release, model, settings and data."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np

from ooc_train.store.dataset import Store
from ooc_train.stream.array_source import ArraySource
from ooc_train.stream.input_data import Inputs
from ooc_train.training.task import Task

LIMITS = ("max_iter", "max_passes", "max_seconds", "target_loss")
"""Settings that may be others when a run goes on."""

_DIGEST_ROWS, _DIGEST_BYTES = 1_000, 2**20
"""Most rows of arrays that are compared, and most bytes of them; at least two rows are."""

_RUNS, _RUN_ROWS, _RUN_BYTES, _LARGEST_CHUNK = 8, 128, 2**14, 2**26
"""Runs of rows of a store that are compared, most rows and bytes of each, and the largest chunk to
decode."""


def identity_of(task: Task) -> dict[str, Any]:
    """Return, as values of JSON, what a run must share with the run that it goes on with."""
    training = task.training
    settings = training.settings() | {"random_state": task.settings.seed}
    schedule = training.schedule
    # The rates of such a schedule follow from the planned number of epochs.
    keeps = {"max_iter"} if getattr(schedule, "needs_horizon", False) else set()
    for name in set(LIMITS) - keeps:
        del settings[name]
    about = {
        "release": version("ooc_train"),
        "model": {"name": task.model.name} | task.model.settings(),
        "training": settings,
        "data": _data(task.inputs),
        "validation": None if task.validation is None else _data(task.validation),
    }
    plain: dict[str, Any] = json.loads(json.dumps(about))
    return plain


def origin_of(task: Task, rows: int | None = None) -> dict[str, str]:
    """Return, as text, the data, the date, the versions and the machine of a run.

    Of the place of a store its last part is told, which holds no passwords of URLs. A store that
    grows has had `rows`; None are those of the task.
    """
    # A digest of rows would confirm a guess of them.
    found = {"data": _told(task.inputs, rows, digest=not task.training.is_private)}
    if task.validation is not None:
        found["validation data"] = _told(task.validation, None, digest=True)
    libraries = [f"{name} {version(name)}" for name in ("ooc_train", "numpy")]
    return found | {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": ", ".join([*libraries, f"Python {platform.python_version()}"]),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _told(inputs: Inputs, rows: int | None, *, digest: bool) -> str:
    """Return the name of data, their rows, columns and type, and what identifies them."""
    source, store = inputs.source, inputs.store
    n_rows = source.n_rows if rows is None else rows
    shape = f"{n_rows:,} x {source.n_features:,} {np.dtype(source.dtype).name}"
    if store is not None:
        name = os.path.basename(store.whole_path.partition("?")[0].rstrip("/"))
        if store.share is not None:
            name = f"{store.share.name} of {name}"
        return f"{name}: {shape}" + (f", id {store.store_id}" if store.store_id else "")
    name = {"arrays": "arrays", "dask": "Dask arrays"}.get(inputs.kind, inputs.kind)
    if not digest or not isinstance(source, ArraySource):
        return f"{name}: {shape}"
    return f"{name}: {shape}, digest of some rows {_digest(source)}"


def _digest(source: ArraySource) -> str:
    """Return a digest of some rows of arrays."""
    most = max(2, min(_DIGEST_ROWS, _DIGEST_BYTES // source.row_bytes))
    rows = np.unique(np.linspace(0, source.n_rows - 1, most).astype(np.intp))
    digest = hashlib.sha256()
    for array in (source.X, source.y, source.weight):
        digest.update(b"-" if array is None else np.ascontiguousarray(array[rows]).tobytes())
    return digest.hexdigest()[:16]


def _data(inputs: Inputs) -> dict[str, Any]:
    """Return values that differ for other data: a store's id, or shapes, types and some rows."""
    source, store = inputs.source, inputs.store
    found = {
        "kind": inputs.kind,
        "rows": source.n_rows,
        "columns": source.n_features,
        "names": inputs.feature_names,
        "classes": inputs.classes,
        "outputs": source.n_outputs,
        "type": source.dtype,
        "partition": source.partition_rows,
        "contents": "" if store is None else store.store_id,
        "arrays": {} if store is None else dict(store.opened),
    }
    if isinstance(source, ArraySource):
        found["contents"] = _digest(source)
    if store is not None:
        found["targets"] = _some_rows(store, "y", "sample_weight")
        if not store.store_id:
            found["features"] = _some_rows(store, "X")
        if store.share is not None:
            found["share"] = asdict(store.share.drawn)
    return found


def _some_rows(store: Store, *names: str) -> str:
    """Return a digest of some rows of arrays: the id of a store tells of its own alone.

    Arrays of larger chunks than `_LARGEST_CHUNK` are left out, unless parts of these can be read.
    """
    digest = hashlib.sha256()
    for name in names:
        layout = getattr(store, name)
        if layout is None or (layout.chunk_bytes > _LARGEST_CHUNK and not layout.in_parts):
            continue
        most = min(_RUN_ROWS, store.n_rows, max(1, _RUN_BYTES // layout.row_bytes))
        for start in np.unique(np.linspace(0, store.n_rows - most, _RUNS).astype(np.intp)):
            rows = store.read(name, int(start), int(start) + most)
            digest.update(repr(rows.tolist()).encode())  # numbers, or labels as text
    return digest.hexdigest()[:16]


def difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Return the name of the first value that differs, as it was and as it is; None if none is."""
    for name, after in now.items():
        before = then.get(name)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            for key in (*after, *before):
                if before.get(key) != after.get(key):
                    return f"{key} of the {name}", before.get(key), after.get(key)
        return f"the {name}", before, after
    return None


def validation_path(task: Task) -> str | None:
    """Return the path of a store of validation rows; None for a share of the training rows."""
    if task.validation is None or task.training.validation_fraction is not None:
        return None
    return store_path(task.validation)


def store_path(inputs: Inputs) -> str | None:
    """Return the path of the store of the rows; None for other rows."""
    return None if inputs.store is None else inputs.store.path
