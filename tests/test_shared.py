"""Large arrays on their way to tasks: to each worker once, and gone when the pass is over."""

import os
import pickle
import signal
from time import sleep

import numpy as np
import pytest
from dask.delayed import delayed

from ooc_train.errors import ClusterError
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.stream.dask_executor import DaskExecutor
from ooc_train.stream.shared import APART, SHARED, apart, sealed

LARGE = np.arange(SHARED // 8 + 1, dtype=np.float64)
SMALL = np.arange(10.0)


def held(dask_worker=None):
    """Return the shared arrays that a worker holds: whether they may be of numbers, their bytes."""
    return [
        (raw.ctypes.data % 8 == 0, raw.nbytes)
        for name, raw in dask_worker.data.items()
        if str(name).startswith("ooc_train-shared")
    ]


def looked_at(shared, small, number, own, seconds=0.0):
    """Return what a call was given, and in which process."""
    sleep(seconds)
    aligned = all(array.flags.aligned for array in (shared, small, own))
    return number, float(shared.sum() + small.sum() + own.sum()), aligned, os.getpid()


def looked_at_or_killed(shared, number):
    """End the worker instead of returning, once its nanny has seen it start: else none follows."""
    sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        cluster.get_client() as client,
    ):
        yield client


@pytest.mark.parametrize("offset", range(8))
def test_a_call_is_the_same_where_its_arrays_came_apart_from_it(offset):
    def moved(raw):
        within = np.empty(raw.nbytes + 16, np.uint8)
        start = -within.ctypes.data % 8 + offset
        within[start : start + raw.nbytes] = raw
        return within[start : start + raw.nbytes]

    table = np.asfortranarray(LARGE[: SHARED // 8].reshape(4, -1))
    pickled, raws = sealed(looked_at, (LARGE, SMALL, 3, table))
    assert (len(raws), len(pickled) < 2000) == (2, True)
    found = pickle.loads(pickled, buffers=map(moved, raws))
    assert found == looked_at(LARGE, SMALL, 3, table)
    assert found[2]


def test_small_arrays_stay_in_the_call():
    pickled, raws = sealed(looked_at, (SMALL, SMALL, 3, np.empty(0)))
    assert raws == []
    assert pickle.loads(pickled) == looked_at(SMALL, SMALL, 3, np.empty(0))


def test_an_array_that_is_there_twice_is_one():
    large = np.zeros(APART)
    assert [raw.nbytes for raw in apart((large, {"again": large}, SMALL))] == [large.nbytes]


@pytest.mark.slow
@pytest.mark.parametrize("own", [SMALL, np.ones(APART)], ids=["small", "large"])
@pytest.mark.parametrize("direct", [True, False])
def test_what_calls_share_lies_in_each_worker_once_and_is_gone_after_a_release(client, direct, own):
    executor = DaskExecutor(client)
    executor.direct = direct
    calls = [(i, own * i, 0.02) for i in range(12)]
    seen, found = set(), []
    for result in executor.run(looked_at, calls, 4, "test", (LARGE, SMALL), results_per_fetch=1):
        found.append(result)
        seen |= {size for arrays in client.run(held).values() for _, size in arrays}
        assert max(map(len, client.run(held).values())) == 1
    assert seen == {LARGE.nbytes}
    expected = [(i, float(LARGE.sum() + SMALL.sum() + own.sum() * i), True) for i in range(12)]
    assert [each[:3] for each in sorted(found)] == expected
    assert len({each[3] for each in found}) == 2
    executor.release()
    assert not any(client.run(held).values())


def test_calls_that_take_what_dask_makes_share_too(client):
    executor = DaskExecutor(client)
    calls = [(i, delayed(SMALL * i), 0.02) for i in range(6)]
    found = []
    for result in executor.run(looked_at, calls, 4, "test", (LARGE, SMALL), results_per_fetch=1):
        found.append(result)
        assert max(map(len, client.run(held).values())) == 1
    expected = [(i, float(LARGE.sum() + SMALL.sum() + SMALL.sum() * i)) for i in range(6)]
    assert [each[:2] for each in sorted(found)] == expected
    executor.release()


@pytest.mark.slow
def test_nothing_is_scattered_where_little_is_shared(client):
    executor = DaskExecutor(client)
    for _ in executor.run(looked_at, [(i, SMALL) for i in range(4)], 4, "test", (SMALL, SMALL)):
        assert not any(client.run(held).values())


@pytest.mark.slow
def test_a_run_that_has_failed_can_be_released(client):
    executor = DaskExecutor(client)
    calls = [(i, SMALL, 0.1) for i in range(12)]
    for _ in executor.run(looked_at, calls, 4, "test", (LARGE, SMALL)):
        break
    executor.release()
    assert not any(client.run(held).values())


@pytest.mark.slow
def test_what_is_lost_with_all_workers_is_sent_again(client):
    executor = DaskExecutor(client)
    calls = [(i, SMALL, 0.3) for i in range(8)]
    found = []
    for result in executor.run(looked_at, calls, 4, "test", (LARGE, SMALL), results_per_fetch=1):
        found.append(result)
        if len(found) == 2:
            before = client.run(os.getpid).values()
            for pid in before:
                os.kill(pid, signal.SIGKILL)
    assert [each[0] for each in sorted(found)] == list(range(8))
    assert len({each[1] - 0.0 for each in found}) == 1
    assert {each[3] for each in found} - set(before)
    client.wait_for_workers(2, timeout=60)
    executor.release()
    assert not any(client.run(held).values())


@pytest.mark.slow
def test_a_call_that_ends_every_worker_fails(client, monkeypatch):
    # As often as Dask allows takes long.
    monkeypatch.setattr("ooc_train.stream.dask_executor._ALLOWED_LOSSES", 1)
    client.wait_for_workers(2, timeout=60)
    # Nothing says that memory is why.
    known = r"\(\d workers were ended by SIGKILL, the kernel counts none ended for lack of memory\)"
    with pytest.raises(ClusterError, match=rf"^a task lost its worker 2 times over {known}; find"):
        list(DaskExecutor(client).run(looked_at_or_killed, [(0,), (1,)], 2, "test", (LARGE,)))
