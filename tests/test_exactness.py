"""The same bits: for any number of workers and threads, any ceiling, and after a killed worker."""

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from distributed import Client

from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.model import Model
from ooc_train.models.regression_models import ElasticNetModel, RidgeModel
from ooc_train.runs.events import Event, Progressed
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report
from ooc_train.runtime import clients
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.solvers.training_settings import Training
from ooc_train.store.writing.writer import StoreWriter
from ooc_train.training.loop import train

pytestmark = pytest.mark.slow

ROWS, FEATURES = 90_001, 60

LOGISTIC = LogisticModel()
FULL: dict[str, tuple[Model, Training]] = {
    "newton": (LogisticModel(C=0.3), Training(tol=1e-9)),
    "lbfgs": (LOGISTIC, Training(solver="lbfgs", max_iter=8)),
    "gram": (RidgeModel(alpha=2.0), Training()),
    "coordinate descent": (ElasticNetModel(alpha=0.01), Training(tol=1e-10)),
    "descent": (LOGISTIC, Training(solver="sgd", max_iter=4)),
}
BATCHES: dict[str, tuple[Model, Training]] = {
    "256": (LOGISTIC, Training(batch_size=256, max_iter=2, random_state=3)),
    "1": (LOGISTIC, Training(batch_size=1, max_iter=1, random_state=3)),
    "replicas": (LOGISTIC, Training(batch_size=16, replicas=2, max_iter=2, random_state=3)),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Rows enough for several partition groups, of columns that a wrong order of adding up would
    show in."""
    rng = np.random.default_rng(0)
    path = str(tmp_path_factory.mktemp("exactness") / "rows.zarr")
    X = rng.standard_normal((ROWS, FEATURES), np.float32) * np.logspace(-3, 3, FEATURES)
    z = X @ (rng.standard_normal(FEATURES) / np.logspace(-3, 3, FEATURES))
    y = rng.random(ROWS) < 1 / (1 + np.exp(-z))
    writer = StoreWriter(
        path, n_features=FEATURES, chunk_rows=1024, shard_rows=16 * 1024, y_dtype="uint8",
        classes=[0, 1], shuffled=0,
    )  # fmt: skip
    with writer:
        writer.write(X.astype(np.float32), y.astype(np.uint8))
        writer.commit()
    return path


@pytest.fixture(scope="module")
def client_2x1() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, memory_ceiling="2GiB", dashboard_address="127.0.0.1:0") as made,
        Client(made, set_as_default=False) as client,
    ):
        yield client


def bits(run: tuple[Fitted, Report]) -> tuple[bytes, bytes]:
    fitted, report = run
    assert np.isfinite(fitted.coef).all()
    assert report.memory.measured <= report.memory.projected <= report.memory.ceiling
    return fitted.coef.tobytes(), fitted.intercept.tobytes()


@pytest.fixture(scope="module")
def expected(store: str) -> dict[str, tuple[bytes, bytes]]:
    """The bits of a run in this thread alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients, "inside_another_job", lambda: True)
        return {
            name: bits(train(model, store, training))
            for name, (model, training) in (FULL | BATCHES).items()
        }


@pytest.mark.parametrize(("n_workers", "threads"), [(1, 1), (1, 2)])
def test_workers_and_threads_do_not_change_a_bit(store, expected, n_workers, threads):
    with (
        LocalCluster(
            n_workers=n_workers, threads_per_worker=threads, dashboard_address="127.0.0.1:0"
        ) as made,
        Client(made, set_as_default=False) as client,
    ):
        for name, (model, training) in FULL.items():
            assert bits(train(model, store, training, client=client)) == expected[name], name


def test_two_workers_and_the_ceiling_do_not_change_a_bit(store, expected, client_2x1):
    for name, (model, training) in (FULL | BATCHES).items():
        generous = train(model, store, training, client=client_2x1)
        assert bits(generous) == expected[name], name
        # Workers keep a little of what they grew by, which the next plan finds reserved.
        tight = generous[1].memory.projected + 32 * 2**20
        least = train(model, store, training, client=client_2x1, memory_ceiling=tight)
        assert bits(least) == expected[name]


def test_a_compiled_hessian_is_the_same_to_the_bit(store, client_2x1, monkeypatch):
    monkeypatch.setattr("ooc_train.models.linear_objective._COMPILED_WORK", 0)
    model, training = FULL["newton"]
    found = bits(train(model, store, training, client=client_2x1))
    with monkeypatch.context() as patch:
        patch.setattr(clients, "inside_another_job", lambda: True)
        assert bits(train(model, store, training)) == found


def test_another_random_state_does(store, expected, client_2x1):
    training = Training(batch_size=256, max_iter=2, random_state=4)
    assert bits(train(LOGISTIC, store, training, client=client_2x1)) != expected["256"]


class Kill:
    """Ends the processes of workers, one or all, once, after the rows given."""

    def __init__(self, client: Client, after_rows: int, n: int = 1) -> None:
        self.pids: dict[str, int] = client.run(os.getpid)
        self.after_rows = after_rows
        self.n, self.killed = n, list[int]()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progressed) and event.rows > self.after_rows and not self.killed:
            self.killed = list(self.pids.values())[: self.n]
            for pid in self.killed:
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("name", "n"), [("lbfgs", 1), ("newton", 2), ("256", 2), ("replicas", 1)])
def test_killed_workers_do_not_change_a_bit(store, expected, name, n):
    model, training = (FULL | BATCHES)[name]
    with (
        LocalCluster(n_workers=2, dashboard_address="127.0.0.1:0") as made,
        Client(made, set_as_default=False) as client,
    ):
        killer = Kill(client, after_rows=ROWS // 2, n=n)
        run = train(model, store, training, client=client, callbacks=[killer])
        assert len(killer.killed) == n
        fitted, report = run
        assert any("ended by SIGKILL" in note for note in report.memory.notes)
        assert (fitted.coef.tobytes(), fitted.intercept.tobytes()) == expected[name]
