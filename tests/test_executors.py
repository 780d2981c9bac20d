"""What runs calls on a cluster: each result once, no more in flight than the window."""

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from time import perf_counter, sleep, time
from typing import Any

import dask.array
import distributed
import numpy as np
import pytest
from dask.delayed import delayed
from distributed import Client

from ooc_train.errors import CeilingExceeded, ClusterError
from ooc_train.models.classification_models import LogisticModel
from ooc_train.runs.events import Stepped
from ooc_train.runtime.clients import choose_executor
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.cluster_waits import WORKER_TIMEOUT
from ooc_train.stream.dask_executor import DaskExecutor
from ooc_train.stream.executors import LocalExecutor
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.loop import train
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


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("window", [1, 3, 8])
@pytest.mark.parametrize("argument", [int, delayed(int, pure=False)], ids=["values", "delayed"])
def test_threads_of_this_process_bring_every_result_once(threads, window, argument):
    taken, found, used = 0, list[int](), set[int]()

    def calls():
        nonlocal taken
        for i in range(20):
            taken += 1
            # Two calls tell whether other threads are needed at all.
            assert taken - len(found) <= max(window, 2)
            yield (argument(i),)

    def number_in(shared, number):
        assert shared == "shared"
        sleep(0.001)
        used.add(threading.get_ident())
        return number

    executor = LocalExecutor(threads)
    for number in executor.run(number_in, calls(), window, "test", ("shared",)):
        found.append(number)
    assert sorted(found) == list(range(20))
    assert 1 <= len(used) <= min(threads, window)
    assert (threading.get_ident() in used) is (min(threads, window) == 1)
    # A single call starts no thread.
    used.clear()
    assert list(executor.run(number_in, [(argument(7),)], window, "test", ("shared",))) == [7]
    assert used == {threading.get_ident()}


def test_a_pass_of_threads_that_is_given_up_ends_what_runs_and_begins_no_more():
    begun = list[int]()

    def call(number):
        begun.append(number)
        sleep(0.05)
        return number

    results = LocalExecutor(2).run(call, [(i,) for i in range(50)], 8, "given-up")
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(begun) < 8
    assert not [each for each in threading.enumerate() if "given-up" in each.name]


@pytest.mark.slow
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

    for number, _ in DaskExecutor(client).run(slept, calls(), window, "test"):
        found.append(number)
    assert sorted(found) == list(range(20))


@pytest.mark.slow
def test_a_long_call_does_not_hold_back_what_is_done(client):
    run = DaskExecutor(client).run(slept, [(0, 3.0), (1, 0.0), (2, 0.5)], 8, "test")
    assert [next(run)[0], next(run)[0]] == [1, 2]
    arrived = time()
    number, done = next(run)
    assert (number, list(run)) == (0, [])
    assert arrived < done


@pytest.mark.slow
def test_drivers_that_share_a_scheduler_share_no_result(client, monkeypatch):
    # As it is in two processes: each counts its calls from 0.
    with Client(client.scheduler.address, security=client.security) as other:
        found = []
        running = []
        for number, driver in enumerate((client, other)):
            monkeypatch.setattr(DaskExecutor, "_serial", itertools.count())
            calls = [(10 * number + i, 0.5) for i in range(2)]
            running.append(DaskExecutor(driver).run(slept, calls, 8, "test"))
            # The first of the results: the other call of this driver is still known to Dask.
            found.append([next(running[-1])[0]])
        for got, run in zip(found, running, strict=True):
            got += [value for value, _ in run]
    assert [sorted(got) for got in found] == [[0, 1], [10, 11]]


class Known:
    """What is known of workers that ended, without any that did."""

    for_memory = 0

    def __len__(self):
        return 1

    def summary_since(self, _):
        return "a worker was ended by SIGKILL"


@pytest.mark.parametrize(
    ("kills", "held", "losses", "error"),
    [
        (1, 10, 3, None),
        (1, 10, 4, CeilingExceeded),
        (0, 90, 4, CeilingExceeded),
        (0, 89, 4, None),
        (0, 89, 11, None),
        (0, 89, 12, ClusterError),
    ],
)
def test_memory_is_blamed_where_something_says_so(client, kills, held, losses, error):
    executor = DaskExecutor(client)
    executor._endings, executor.held = Known(), lambda: (held * 2**20, 100 * 2**20)
    executor._endings.for_memory = kills
    if error is None:
        executor._limit_losses(losses)
        return
    with pytest.raises(error) as raised:
        executor._limit_losses(losses)
    assert type(raised.value) is error
    assert str(raised.value).startswith(
        f"a task lost its worker {losses} times over (a worker was ended by SIGKILL; the run was "
        f"last seen to hold {held} MiB of its ceiling of 100 MiB)"
    )


@pytest.mark.slow
def test_a_call_that_dask_gives_up_is_made_again(client):
    # As often as is allowed where nothing says that memory is why.
    @dataclass
    class Dies:
        folder: str

        def __call__(self, number):
            if len(os.listdir(self.folder)) < 2 and number == 1:
                open(f"{self.folder}/{os.getpid()}", "w").close()
                sleep(0.5)  # its nanny has to have seen it start
                os.kill(os.getpid(), 9)
            return number

    with tempfile.TemporaryDirectory() as folder:
        client.run_on_scheduler(allow_failures, 0)
        try:
            assert sorted(DaskExecutor(client).run(Dies(folder), [(0,), (1,)], 2, "test")) == [0, 1]
            assert len(os.listdir(folder)) == 2
        finally:
            client.run_on_scheduler(allow_failures, 3)


def allow_failures(number, dask_scheduler):
    dask_scheduler.allowed_failures = number


def test_what_a_closed_client_says():
    with distributed.LocalCluster(
        n_workers=0, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        client = Client(cluster)
        source: Any = object()  # rows that lie elsewhere
        started = perf_counter()
        with (
            dask.config.set({WORKER_TIMEOUT: "300ms"}),
            pytest.raises(
                ClusterError, match=r"has no workers, and none joined within 0\.3 s; start"
            ),
        ):
            choose_executor(source, client)
        client.close()
        with pytest.raises(
            ClusterError, match=r"^the client of the cluster( at .*)? is closed; connect "
        ):
            choose_executor(source, client)
        assert perf_counter() - started < 10


@pytest.mark.slow
def test_a_run_without_workers_ends_after_the_time_that_was_set(tmp_path, monkeypatch):
    async def fails(self):
        raise OSError("no more processes")

    X = np.random.default_rng(0).normal(size=(200, 3))
    store = write_store(tmp_path / "a", X, (X[:, 0] > 0).astype(int), chunk_rows=20)
    with (
        LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0", worker_timeout="1s") as cluster,
        cluster.get_client() as client,
    ):
        (pid,) = client.run(os.getpid).values()
        monkeypatch.setattr(distributed.Nanny, "instantiate", fails)

        def kill(event):
            if isinstance(event, Stepped):
                os.kill(pid, 9)

        with pytest.raises(
            ClusterError,
            match=r"^no worker was left, and none came back within 1 s \(a worker was ended by "
            r"SIGKILL, .*; the run was last seen to hold .* of its ceiling of .*\); run again, or",
        ):
            train(LogisticModel(), store, Training(solver="lbfgs"), client=client, callbacks=[kill])


@pytest.mark.slow
@pytest.mark.parametrize("value", ["soon", -1])
def test_a_timeout_that_is_none(value):
    with pytest.raises(ValueError, match=r"^worker_timeout="):
        LocalCluster(worker_timeout=value)


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


# Dask closes the client in the end, so a slow machine may find it closed.
GONE = r"^the (scheduler|client of the cluster)( at tcp://127\.0\.0\.1:\d+)? is (gone|closed); "


@pytest.mark.slow
def test_a_scheduler_that_is_gone_is_reported_soon(tmp_path, cluster_to_kill):
    process, client = cluster_to_kill
    X = np.random.default_rng(0).normal(size=(200, 3))
    y = (X[:, 0] > 0).astype(int)
    store = write_store(tmp_path / "a", X, y, chunk_rows=20)

    def kill(event):
        if isinstance(event, Stepped):
            process.kill()
            process.wait()

    model, training = LogisticModel(), Training(solver="lbfgs", tol=1e-12)
    started = perf_counter()
    with pytest.raises(ClusterError, match=GONE):
        train(model, store, training, client=client, callbacks=[kill])
    for again in (
        lambda: train(model, store, training),
        lambda: read_inputs(dask.array.from_array(X, chunks=(50, 3)), y, classifier=True),
    ):
        with client.as_current(), pytest.raises(ClusterError, match=GONE):
            again()
    # Dask waited for 20 s each time.
    assert perf_counter() - started < 20


@pytest.mark.slow
def test_every_error_comes_back_from_a_worker_whatever_was_imported_first():
    code = (
        "import pickle, ooc_train.errors as errors\n"
        "import distributed  # which changes how the errors that are there are pickled\n"
        "for kind in vars(errors).values():\n"
        "    if isinstance(kind, type) and issubclass(kind, BaseException):\n"
        "        back = pickle.loads(pickle.dumps(kind('3 GiB, 2 chunks')))\n"
        "        print(type(back) is kind and str(back) == '3 GiB, 2 chunks')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"True"}


@pytest.mark.slow
def test_segments_of_a_replica_go_on_in_one_worker():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        cluster.get_client() as client,
    ):
        executor = DaskExecutor(client)

        def places(replicas):
            calls = [(i,) for i in range(replicas)]
            return dict(executor.run(place_of, calls, replicas, "scan"))

        first = [places(1)[0] for _ in range(6)]
        assert len(set(first)) == 1
        both = [places(2) for _ in range(3)]
        assert all(each == both[0] for each in both)
        assert both[0][0] == first[0] != both[0][1]
        # A worker that is lost has no say.
        client.run(os._exit, 1, workers=[first[0]], on_error="ignore")
        assert places(1)[0] in set(client.nthreads())


@pytest.mark.slow
def test_fewer_tasks_than_threads_go_to_few_workers():
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        cluster.get_client() as client,
    ):
        executor = DaskExecutor(client)

        def places(window, name="sums"):
            calls = [(i,) for i in range(12)]
            return {place for _, place in executor.run(place_of, calls, window, name)}

        (one,) = places(1)
        two = places(2)
        assert one in two
        assert len(two) == 2
        assert places(3) == set(client.nthreads())
        ((_, of_scan),) = executor.run(place_of, [(0,)], 1, "scan")
        assert of_scan == one


def place_of(number):
    """Return the number, and the address of the worker that has the call."""
    return number, distributed.get_worker().address


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 2])
def test_updates_go_on_when_all_workers_were_lost(tmp_path, n_workers):
    X = np.random.default_rng(0).normal(size=(2000, 3))
    store = write_store(tmp_path / "a", X, (X[:, 0] > 0).astype(int), chunk_rows=200)
    model = LogisticModel()
    training = Training(batch_size=64, max_iter=4, tol=0.0, replicas=n_workers, random_state=0)
    with (
        LocalCluster(n_workers=n_workers, dashboard_address="127.0.0.1:0") as cluster,
        cluster.get_client() as client,
    ):
        pids = list(client.run(os.getpid).values())

        def kill(event):
            if isinstance(event, Stepped) and event.n_iter == 2:
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)

        whole: Any = train(model, store, training, client=client)[0].predictor
        killed: Any = train(model, store, training, client=client, callbacks=[kill])[0].predictor
        assert pids != list(client.run(os.getpid).values())
    assert killed.coef.tobytes() == whole.coef.tobytes()
