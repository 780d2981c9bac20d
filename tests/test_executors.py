"""What runs calls on a cluster: each result once, no more in flight than the window."""

import itertools
import subprocess
import sys
from time import perf_counter, sleep, time

import dask.array
import numpy as np
import pytest
from dask.delayed import delayed
from distributed import Client

from ooc_train.cluster import LocalCluster
from ooc_train.errors import ClusterError
from ooc_train.events import Stepped
from ooc_train.models.model import Model
from ooc_train.stream.executors import OnDask
from ooc_train.stream.inputs import read_inputs
from ooc_train.train import train
from tests.streams import write_store


def slept(number, seconds):
    """Return the number, and when it was done."""
    sleep(seconds)
    return number, time()


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(n_workers=1, threads_per_worker=4, dashboard_address="127.0.0.1:0") as cluster,
        cluster.get_client() as client,
    ):
        yield client


@pytest.mark.parametrize("window", [1, 3, 8])
@pytest.mark.parametrize("argument", [int, delayed(int, pure=False)], ids=["values", "delayed"])
def test_every_result_comes_once_and_a_window_is_in_flight(client, window, argument):
    taken, found = 0, list[int]()

    def calls():
        nonlocal taken
        for i in range(20):
            taken += 1
            assert taken - len(found) <= window
            yield argument(i), 0.0

    for number, _ in OnDask(client).run(slept, calls(), window, "test"):
        found.append(number)
    assert sorted(found) == list(range(20))


def test_a_long_call_does_not_hold_back_what_is_done(client):
    run = OnDask(client).run(slept, [(0, 3.0), (1, 0.0), (2, 0.5)], 8, "test")
    assert [next(run)[0], next(run)[0]] == [1, 2]
    arrived = time()
    number, done = next(run)
    assert (number, list(run)) == (0, [])
    assert arrived < done


def test_drivers_that_share_a_scheduler_share_no_result(client, monkeypatch):
    # As it is in two processes: each counts its calls from 0.
    with Client(client.scheduler.address, security=client.security) as other:
        found = []
        running = []
        for number, driver in enumerate((client, other)):
            monkeypatch.setattr(OnDask, "_serial", itertools.count())
            calls = [(10 * number + i, 0.5) for i in range(2)]
            running.append(OnDask(driver).run(slept, calls, 8, "test"))
            # The first of the results: the other call of this driver is still known to Dask.
            found.append([next(running[-1])[0]])
        for got, run in zip(found, running, strict=True):
            got += [value for value, _ in run]
    assert [sorted(got) for got in found] == [[0, 1], [10, 11]]


CLUSTER = """
import asyncio
from distributed import Scheduler, Worker

async def run():
    async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
        async with Worker(scheduler.address, nthreads=1):
            print(scheduler.address, flush=True)
            await scheduler.finished()

asyncio.run(run())
"""


@pytest.fixture
def cluster_to_kill():
    """A scheduler and its worker in a process of their own, and a client of them."""
    command = [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        client = Client(process.stdout.readline().strip(), timeout=30)
        yield process, client
        process.kill()
        client.close(timeout=1)


GONE = r"^the scheduler at tcp://127\.0\.0\.1:\d+ is gone; start a cluster, connect a new client"


def test_a_scheduler_that_is_gone_is_told_of_soon(tmp_path, cluster_to_kill):
    process, client = cluster_to_kill
    X = np.random.default_rng(0).normal(size=(200, 3))
    y = (X[:, 0] > 0).astype(int)
    store = write_store(tmp_path / "a", X, y, chunk_rows=20)

    def kill(event):
        if isinstance(event, Stepped):
            process.kill()
            process.wait()

    model, started = Model(name="logistic", solver="lbfgs", tol=1e-12), perf_counter()
    with pytest.raises(ClusterError, match=GONE):
        train(model, store, client=client, callbacks=[kill])
    for again in (
        lambda: train(model, store),
        lambda: read_inputs(dask.array.from_array(X, chunks=(50, 3)), y, classifier=True),
    ):
        with client.as_current(), pytest.raises(ClusterError, match=GONE):
            again()
    # Dask waited for 20 s each time.
    assert perf_counter() - started < 20
