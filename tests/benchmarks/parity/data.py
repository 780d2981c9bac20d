"""The rows that answers are compared on: real, weighted, and ill-conditioned ones."""

import gzip
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine

from ooc_train.experiments.demo import flights_file
from ooc_train.store.jobs.ingest import ingest

Floats = NDArray[np.float64]

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts it."""

_CONDITION = 1e8


class Rows(NamedTuple):
    """Features, target and weights; y is labels for classifiers."""

    X: Floats
    y: NDArray[Any]
    weight: Floats | None = None

    def first(self, most: int) -> "Rows":
        """Return at most so many rows."""
        weight = None if self.weight is None else self.weight[:most]
        return Rows(self.X[:most], self.y[:most], weight)


def _standard(X: NDArray[Any]) -> Floats:
    """Return columns of mean 0 and deviation 1; constant ones are left out."""
    X = np.asarray(X, np.float64)
    X = X[:, X.std(axis=0) > 0.0]
    return np.asarray((X - X.mean(axis=0)) / X.std(axis=0))


def _weighted(rows: Rows) -> Rows:
    """Return the same rows with weights over two decades."""
    weight = 10.0 ** np.random.default_rng(1).uniform(-1.0, 1.0, len(rows.y))
    return rows._replace(weight=weight)


def _breast_cancer(task: str) -> Rows:
    X, y = load_breast_cancer(return_X_y=True)
    return Rows(_standard(X), y)


def _digits(task: str) -> Rows:
    X, y = load_digits(return_X_y=True)
    return Rows(np.asarray(X, np.float64) / 16.0, y)


def _wine(task: str) -> Rows:
    X, y = load_wine(return_X_y=True)
    return Rows(_standard(X), y)


def _diabetes(task: str) -> Rows:
    X, y = load_diabetes(return_X_y=True)
    return Rows(_standard(X), np.asarray(y, np.float64))


def _ill_conditioned(task: str) -> Rows:
    """Return rows whose centred columns are nearly dependent in all directions alike."""
    rng = np.random.default_rng(0)
    n_rows, n_features = 2_000, 20
    left = rng.standard_normal((n_rows, n_features))
    left, _ = np.linalg.qr(left - left.mean(axis=0))
    right, _ = np.linalg.qr(rng.standard_normal((n_features, n_features)))
    spread = np.sqrt(n_rows) * np.logspace(0.0, -np.log10(_CONDITION), n_features)
    X = left * spread @ right.T
    z = X @ right.sum(axis=1)
    y = {
        "binary": rng.random(n_rows) < 1.0 / (1.0 + np.exp(-z)),
        "real": z + rng.standard_normal(n_rows),
        "counts": rng.poisson(np.exp(0.5 * z)),
        "positive": np.exp(0.5 * z) * rng.gamma(2.0, 0.5, n_rows),
    }[task]
    return Rows(X, np.asarray(y, np.int64 if task == "binary" else np.float64))


@cache
def _flights_arrays() -> tuple[Floats, NDArray[Any], list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        made = ingest(flights_file(), f"{folder}/flights.zarr", target="late", test_size=0.2)
        group = zarr.open_group(made.store.path, mode="r")
        X, y = np.asarray(group["X"], np.float64), np.asarray(group["y"])
        names: Any = group.attrs["feature_names"]
        return X, y, [str(name) for name in names]


def _flights(task: str) -> Rows:
    """Return late or not, by all features; else minutes of delay at departure, by the others."""
    X, late, names = _flights_arrays()
    if task == "binary":
        return Rows(X, late)
    delayed = names.index("dep_delay")
    y = X[:, delayed]
    X = np.delete(X, delayed, axis=1)
    return Rows(X, {"real": y, "counts": np.maximum(y, 0.0), "positive": y - y.min() + 1.0}[task])


def fashion_images(*, test: bool = False) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return images of clothes as rows of 784 numbers from 0 to 1, and their classes."""
    kind = "t10k" if test else "train"
    pixels, labels = (
        np.frombuffer(
            gzip.decompress((FASHION / f"{kind}-{name}").read_bytes()), np.uint8, -1, skip
        )
        for name, skip in (("images-idx3-ubyte.gz", 16), ("labels-idx1-ubyte.gz", 8))
    )
    X = pixels.reshape(len(labels), -1).astype(np.float32)
    return X / np.float32(255.0), labels.astype(np.int64)


def _fashion(task: str) -> Rows:
    narrow, labels = fashion_images()
    X = narrow.astype(np.float64)
    if task == "classes":
        return Rows(X, labels)
    shirts = (labels == 0) | (labels == 6)  # the pair that is hardest to tell apart
    return Rows(X[shirts], labels[shirts])


_SETS: dict[str, tuple[Callable[[str], Rows], tuple[str, ...]]] = {
    "breast cancer": (_breast_cancer, ("binary",)),
    "breast cancer, weighted": (lambda task: _weighted(_breast_cancer(task)), ("binary",)),
    "digits": (_digits, ("classes",)),
    "wine": (_wine, ("classes",)),
    "diabetes": (_diabetes, ("real", "counts", "positive")),
    "diabetes, weighted": (
        lambda task: _weighted(_diabetes(task)),
        ("real", "counts", "positive"),
    ),
    "ill-conditioned": (_ill_conditioned, ("binary", "real", "counts", "positive")),
    "flights": (_flights, ("binary", "real", "counts", "positive")),
    "fashion, 2 classes": (_fashion, ("binary",)),
    "fashion, 10 classes": (_fashion, ("classes",)),
}

SETS = tuple(_SETS)
LARGE = tuple(name for name in SETS if name.startswith(("flights", "fashion")))
"""Sets that take minutes, and Fashion-MNIST a package of Debian's."""


def tasks_of(name: str) -> tuple[str, ...]:
    """Return what a set can be used for: binary, classes, real, counts, positive."""
    return _SETS[name][1]


def rows_of(name: str, task: str) -> Rows:
    """Return the rows of a set for a task.

    Raises
    ------
    FileNotFoundError
        If Fashion-MNIST is not installed.
    """
    return _SETS[name][0](task)
