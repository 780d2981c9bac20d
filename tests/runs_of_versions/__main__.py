"""Write the runs of the present version: ``python -m tests.runs_of_versions``."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import ooc_train
from ooc_train import DifferentiallyPrivate, Training, calibrate, ingest, train
from ooc_train.models.calibration import Method
from ooc_train.runs.run_loading import load_fitted
from tests.runs_of_versions import EXPECTED, FOLDER, KINDS, TABLE, module, predictions

_ROWS = 60


def _data(kind: str, folder: Path) -> tuple[Any, Any]:
    """Return X and y of a kind of run; of raw columns, a store and None."""
    rng = np.random.default_rng(0)
    if kind == "raw columns":
        late = ["no", "yes", "no"] * _ROWS
        table = {name: [*values] * (len(late) // 5) for name, values in TABLE.items()}
        table["carrier"] = [None if value == "XX" else value for value in table["carrier"]]
        pq.write_table(pa.table(table | {"late": late}), folder / "rows.parquet")
        settings: dict[str, Any] = {"missing": "mean", "unseen": "other"}
        rows, out = folder / "rows.parquet", folder / "rows.zarr"
        return ingest(rows, out, target="late", categorical=["carrier"], **settings).store, None
    X = rng.normal(size=(_ROWS, 4, 3) if kind == "images" else (_ROWS, 6))
    if kind in ("outputs", "network of numbers"):
        return X, X[:, :2] @ [[1.0, 2.0], [3.0, 4.0]] + rng.normal(size=(_ROWS, 2))
    if kind == "counts":
        return X, rng.poisson(np.exp(0.3 * X[:, 0])).astype(float)
    if kind == "scale":
        return X, X[:, 0] + rng.normal(size=_ROWS)
    if kind == "sigmoid":
        return X, np.where(X[:, 0] + rng.normal(size=_ROWS) > 0, "yes", "no")
    return X, rng.integers(0, 3, _ROWS)


def main() -> None:
    """Train a model of each kind, and save it with what it predicts."""
    version = FOLDER / ooc_train.__version__
    shutil.rmtree(version, ignore_errors=True)
    expected = {}
    for kind, model in KINDS.items():
        run = version / kind.replace(" ", "_")
        with tempfile.TemporaryDirectory() as folder:
            X, y = _data(kind, Path(folder))
            training = Training(random_state=0)
            if kind in ("images", "network of numbers", "module"):
                training = Training(batch_size=16, max_passes=2, tol=0.0, random_state=0)
            if kind == "private":
                private = DifferentiallyPrivate(1.0, 0.7)
                training = Training(
                    solver=private, learning_rate=0.1, batch_size=16, max_iter=2, random_state=0
                )
            if kind in get_args(Method):
                fitted, _ = train(model, X, training, y=y)
                calibrate(fitted, X, cast("Method", kind), y=y)[0].save(run)
            else:
                train(model, X, training, y=y, out=run)
        fitted = load_fitted(run, module if kind == "module" else None)
        expected[kind] = predictions(fitted)
    (version / EXPECTED).write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
