"""Runs of every solver and optimizer, which tests and benchmarks end, kill and go on with."""

from dataclasses import replace
from typing import Any

from numpy.testing import assert_array_equal

from ooc_train import LinearSVCModel, LogisticModel, MLPClassifierModel, TorchModule
from ooc_train.core import partitions
from ooc_train.stream import passes, sources

MLP = MLPClassifierModel(hidden_layer_sizes=(8,))
BATCHES: dict[str, Any] = {"batch_size": 32, "max_iter": 6, "tol": 0.0}

RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "newton": (LogisticModel(C=0.1), {"solver": "newton", "tol": 1e-12}),
    "lbfgs": (LogisticModel(), {"solver": "lbfgs", "max_iter": 20}),
    "block-lbfgs": (LogisticModel(), {"solver": "block-lbfgs", "max_iter": 20}),
    "proximal newton": (LogisticModel(C=0.1, l1_ratio=1.0), {"solver": "proximal-newton"}),
    "proximal lbfgs": (
        LogisticModel(C=0.1, l1_ratio=0.5),
        {"solver": "proximal-lbfgs", "max_iter": 20},
    ),
    "smoothing": (LinearSVCModel(loss="hinge", C=0.01), {"solver": "smoothing"}),
    "gradient descent": (LogisticModel(), {"solver": "momentum", "max_iter": 9, "tol": 0.0}),
    "momentum": (LogisticModel(), {"solver": "momentum:nesterov=1"} | BATCHES),
    "adagrad": (LogisticModel(), {"solver": "adagrad"} | BATCHES),
    "rmsprop": (LogisticModel(), {"solver": "rmsprop"} | BATCHES),
    "adamw": (LogisticModel(), {"solver": "adamw", "learning_rate": "cosine:0.01"} | BATCHES),
    "rows": (LogisticModel(), {"solver": "sgd"} | BATCHES | {"batch_size": 1}),
    "l1": (LogisticModel(C=0.1, l1_ratio=1.0), {"solver": "adam"} | BATCHES),
    "replicas": (LogisticModel(), {"solver": "sgd", "replicas": 2} | BATCHES),
    "plateau": (LogisticModel(), {"solver": "sgd", "learning_rate": "plateau:0.5"} | BATCHES),
    "sizes": (LogisticModel(), BATCHES | {"solver": "sgd", "batch_size": "exp:16..full"}),
    "network": (MLP, {"solver": "adam"} | BATCHES),
    "network by lbfgs": (MLP, {"solver": "lbfgs", "max_iter": 12}),
    "dropout": (replace(MLP, dropout=0.3), {"solver": "adam"} | BATCHES),
}


def _network() -> Any:
    import torch

    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 2))


def torch_run() -> tuple[Any, dict[str, Any]]:
    """A module of PyTorch, with an optimizer and a scheduler that have states."""
    schedule: dict[str, Any] = {"scheduler": "StepLR", "scheduler_parameters": {"step_size": 2}}
    return TorchModule(_network, classifier=True, optimizer="AdamW", **schedule), BATCHES


def cut_small(monkeypatch: Any) -> None:
    """Cut passes into tasks of a chunk, so that passes over small stores have many tasks."""
    monkeypatch.setattr(sources, "_GROUP_BYTES", 1)
    monkeypatch.setattr(partitions, "_ROUND_BYTES", 1)
    monkeypatch.setattr(passes, "_FIRST_SEGMENT_ROWS", 1)
    monkeypatch.setattr(passes, "_SEGMENT_SECONDS", 0.0)


class _Setting:
    """Sets attributes for the life of a process, as pytest's `monkeypatch` does for a test."""

    setattr = staticmethod(setattr)


def cut_small_for_good() -> None:
    """Cut passes small in this process; a driver and its workers have to agree."""
    cut_small(_Setting)


def require_same(one, other):
    """Two fitted models and reports are those of the same run."""
    for name, array in one[0].predictor.arrays.items():
        assert_array_equal(array, other[0].predictor.arrays[name])
    kept = [
        [replace(step, seconds=0.0, profile={}) for step in run[1].history] for run in (one, other)
    ]
    assert kept[0] == kept[1]
    for name in ("n_iter", "updates", "passes", "loss", "converged", "ended", "random_state"):
        assert getattr(one[1], name) == getattr(other[1], name), name
