"""What runs calls on a cluster: each result once, no more in flight than the window."""

from time import sleep, time

import pytest
from dask.delayed import delayed

from ooc_train.cluster import LocalCluster
from ooc_train.stream.executors import OnDask


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
