"""What must change no result, held for every estimator that the package exports.

New estimators are found by themselves. Chunks, workers and ceilings say how rows are read; rows and
columns may come in any order; a weight is a repeated row.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from distributed import Client
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, is_classifier

import ooc_train
from ooc_train import LocalCluster, StoreWriter

ROWS, FEATURES = 360, 4

RNG = np.random.default_rng(7)
X = RNG.normal(size=(ROWS, FEATURES)) @ (np.eye(FEATURES) + 0.3) + 1.0
SIGNAL = X @ [0.5, -0.4, 0.3, 0.0]
POSITIVE = np.exp(0.5 * SIGNAL + 0.3 * RNG.normal(size=ROWS))
"""In the domain of every regression loss."""

CLASSES = np.digitize(SIGNAL + RNG.logistic(size=ROWS), [-0.5, 1.0]).astype(float)
WEIGHTS = RNG.integers(1, 4, ROWS).astype(float)


def _exported() -> list[type]:
    """Return the estimators that learn from rows alone: calibrations begin with a fitted model."""
    found = [getattr(ooc_train, name) for name in dir(ooc_train)]
    return [
        each
        for each in found
        if isinstance(each, type)
        and issubclass(each, BaseEstimator)
        and hasattr(each, "fit")
        and each is not ooc_train.CalibratedClassifier
    ]


KINDS = _exported()
EVERY = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
EXACT = pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if kind().batch_size == "full"],
    ids=lambda kind: kind.__name__,
)
"""Estimators whose results depend on no order of the rows."""


UNIQUE: dict[str, dict[str, Any]] = {"QuantileRegressor": {"alpha": 1e-3}}
"""Settings by which the optimum is one point: a penalty of 1 leaves the median alone, which may lie
anywhere between two rows."""


MODULES = {"TorchClassifier": 3, "TorchRegressor": 1}
"""Outputs of the module that an estimator of modules gets."""


OF_ALL_ROWS = ("HuberRegressor",)
"""Estimators that cannot learn by batches, and say so: a scale is fitted to all residuals."""


def _y(kind: type) -> Any:
    return CLASSES if is_classifier(kind()) else POSITIVE


def _made(kind: type, **settings: Any) -> Any:
    """Return an estimator: an exact one to many digits, or one of a few epochs of updates."""
    settings = (
        {"batch_size": kind().batch_size, "random_state": 0}
        | UNIQUE.get(kind.__name__, {})
        | _module(kind)
        | settings
    )
    by_rows = {"max_iter": 3, "tol": 0.0}
    return kind(**({"tol": 1e-9} if settings["batch_size"] == "full" else by_rows) | settings)


def _module(kind: type) -> dict[str, Any]:
    """Return the settings that name a module, of an estimator that needs one."""
    if kind.__name__ not in MODULES:
        return {}
    linear = pytest.importorskip("torch").nn.Linear
    sizes = {"in_features": FEATURES, "out_features": MODULES[kind.__name__]}
    return {"module": linear, "module_parameters": sizes}


def _parameters(fitted: Any) -> tuple[Any, ...]:
    if hasattr(fitted, "module_"):
        return tuple(each.detach().numpy() for each in fitted.module_.parameters())
    if hasattr(fitted, "coefs_"):
        return *fitted.coefs_, *fitted.intercepts_
    return np.atleast_2d(fitted.coef_), np.atleast_1d(fitted.intercept_)


def _assert_near(found: Any, due: Any) -> None:
    for one, other in zip(_parameters(found), _parameters(due), strict=True):
        assert_allclose(one, other, rtol=2e-5, atol=2e-6)


def _store(path: Path, kind: type, chunk_rows: int = 50) -> str:
    with StoreWriter(path, n_features=FEATURES, chunk_rows=chunk_rows, dtype="float64") as writer:
        writer.write(X, _y(kind))
        writer.commit()
    return str(path)


def test_every_estimator_is_found():
    assert {"Ridge", "LogisticRegression", "SGDClassifier", "TweedieRegressor"} <= {
        kind.__name__ for kind in _exported()
    }


@EXACT
def test_chunks_change_no_result(kind, tmp_path):
    """Arrays, a store of small chunks, and uneven blocks of Dask hold the same rows."""
    y = _y(kind)
    due = _made(kind).fit(X, y)
    _assert_near(_made(kind).fit(_store(tmp_path / "a", kind, 7)), due)
    blocks = da.from_array(X, chunks=((100, 1, 259), -1))
    _assert_near(_made(kind).fit(blocks, da.from_array(y, chunks=((100, 1, 259),))), due)


@EXACT
def test_the_order_of_the_rows_changes_no_result(kind):
    order = RNG.permutation(ROWS)
    _assert_near(_made(kind).fit(X[order], _y(kind)[order]), _made(kind).fit(X, _y(kind)))


@EXACT
def test_the_order_of_the_columns_changes_their_order_alone(kind):
    order = [2, 0, 3, 1]
    found, due = _made(kind).fit(X[:, order], _y(kind)), _made(kind).fit(X, _y(kind))
    found.coef_ = np.atleast_2d(found.coef_)[:, np.argsort(order)]
    _assert_near(found, due)


@EXACT
def test_a_whole_weight_is_a_row_repeated(kind):
    repeated = np.repeat(np.arange(ROWS), WEIGHTS.astype(int))
    found = _made(kind).fit(X, _y(kind), sample_weight=WEIGHTS)
    _assert_near(found, _made(kind).fit(X[repeated], _y(kind)[repeated]))


@EXACT
def test_a_row_without_weight_is_no_row(kind):
    kept = np.arange(ROWS) % 3 > 0
    found = _made(kind).fit(X, _y(kind), sample_weight=kept.astype(float))
    _assert_near(found, _made(kind).fit(X[kept], _y(kind)[kept]))


@pytest.fixture(scope="module")
def clusters():
    """Clients of one worker, and of two."""
    with ExitStack() as stack:
        yield [stack.enter_context(_client(n_workers, stack)) for n_workers in (1, 2)]


def _client(n_workers: int, stack: ExitStack) -> Client:
    cluster = LocalCluster(n_workers=n_workers, dashboard_address="127.0.0.1:0")
    return Client(stack.enter_context(cluster), set_as_default=False)


@EVERY
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not converged")
@pytest.mark.parametrize(
    "updates", [{}, {"batch_size": 16}, {"batch_size": 16, "replicas": 2}], ids=str
)
def test_workers_and_ceilings_change_no_bit(kind, updates, tmp_path, clusters):
    store = _store(tmp_path / "a", kind)
    if updates and kind.__name__ in OF_ALL_ROWS:
        with pytest.raises(ValueError, match="needs learning by batches"):
            _made(kind, **updates).fit(store)
        return
    due = _parameters(_made(kind, **updates).fit(store))
    smallest = _made(kind, **updates).plan(store).smallest_ceiling
    fits = [_made(kind, **updates, memory_ceiling=smallest + 16 * 2**20).fit(store)]
    for client in clusters:
        with client.as_current():
            fits.append(_made(kind, **updates).fit(store))
    assert [len(fit.report_.memory.processes) for fit in fits] == [1, 2, 3]
    for fit in fits:
        for one, other in zip(_parameters(fit), due, strict=True):
            assert_array_equal(one, other)
