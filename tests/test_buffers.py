"""The pool: never more than its limit, waiting and waking, and buffers that are used again."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_train.core.sums import ArraySpec, total_bytes
from ooc_train.errors import CeilingExceeded
from ooc_train.stream import buffers
from ooc_train.stream.buffers import Pool

KIB = {"a": ArraySpec((1024,), "u1")}


def pool_of(limit):
    pool = Pool()
    pool.allow(limit)
    return pool


def test_lends_arrays_of_the_shapes_that_were_asked_for():
    specs = {"X": ArraySpec((3, 5), "<f4"), "y": ArraySpec((3, 1)), "order": ArraySpec((3,), "<i8")}
    pool = pool_of(10_000)
    with pool.take(specs, {}, {"y": ArraySpec((2,))}) as (first, none, second):
        assert {k: (v.shape, v.dtype.str) for k, v in first.items()} == {
            "X": ((3, 5), "<f4"),
            "y": ((3, 1), "<f8"),
            "order": ((3,), "<i8"),
        }
        assert none == {}
        arrays = [*first.values(), *second.values()]
        for i, array in enumerate(arrays):
            assert array.flags.c_contiguous
            assert array.ctypes.data % array.itemsize == 0
            array[...] = i
        # No array lies on another.
        assert [float(array.ravel()[0]) for array in arrays] == [0, 1, 2, 3]
        assert [float(array.ravel()[-1]) for array in arrays] == [0, 1, 2, 3]
        assert pool.held == total_bytes(specs) + 64


def test_returned_buffers_are_lent_again():
    pool = pool_of(1024)
    with pool.take(KIB) as (first,):
        address = first["a"].ctypes.data
    assert pool.held == 1024
    with pool.take(KIB) as (second,):
        assert second["a"].ctypes.data == address
    assert pool.held == 1024


def test_idle_buffers_make_way_for_others():
    pool = pool_of(1024)
    with pool.take(KIB):
        pass
    with pool.take({"a": ArraySpec((64,), "u1")}):
        assert pool.held == 64


def test_more_than_the_whole_pool_is_refused_at_once():
    pool = pool_of(1000)
    with (
        pytest.raises(CeilingExceeded, match=r"buffers of 1 KiB .* plan allows 1000 B"),
        pool.take(KIB),
    ):
        pass
    assert pool.held == 0


def test_lowering_the_limit_frees_what_is_idle():
    pool = pool_of(4096)
    with pool.take(KIB), pool.take(KIB):
        pass
    assert pool.held == 2048
    pool.allow(1024)
    assert pool.held == 1024
    pool.allow(0)
    assert pool.held == 0


def test_a_request_beyond_the_limit_waits_until_buffers_are_returned():
    pool = pool_of(1536)
    entered, order = threading.Event(), []

    def second():
        entered.set()
        with pool.take(KIB):
            order.append("second")

    thread = threading.Thread(target=second)
    with pool.take(KIB):
        thread.start()
        assert entered.wait(5)
        time.sleep(0.05)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert pool.held == 1024


def test_waiting_ends_with_the_figures(monkeypatch):
    monkeypatch.setattr(buffers, "_WAIT_SECONDS", 0.05)
    pool = pool_of(1024)
    with (
        pool.take(KIB),
        pytest.raises(CeilingExceeded, match=r"no memory for 1 KiB came free .* 1 KiB of 1 KiB"),
        pool.take(KIB),
    ):
        pass
    with pool.take(KIB):
        assert pool.held == 1024


def test_a_raised_limit_wakes_who_waits():
    pool, done = pool_of(1024), threading.Event()

    def second():
        with pool.take(KIB):
            done.set()

    with pool.take(KIB):
        thread = threading.Thread(target=second)
        thread.start()
        assert not done.wait(0.05)
        pool.allow(2048)
        assert done.wait(5)
    thread.join(5)


def test_idle_buffers_are_kept_up_to_a_limit():
    pool = Pool()
    pool.allow(1000)
    for size in (100, 200, 300):
        with pool.take({"a": ArraySpec((size,), "u1")}, most_kept=512):
            pass
    assert pool.held <= 512
    with pool.take({"a": ArraySpec((300,), "u1")}, most_kept=0):
        assert pool.held > 300
    assert pool.held == 0


def test_an_error_gives_the_buffers_back():
    pool = pool_of(1024)
    with pytest.raises(KeyError), pool.take(KIB):
        raise KeyError
    with pool.take(KIB):
        pass


@settings(max_examples=10, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 1024), min_size=3, max_size=30),
    threads=st.integers(2, 6),
    limit=st.integers(1024, 3000),
)
def test_never_more_than_the_limit_is_held(sizes, threads, limit):
    pool, lent, most, lock = pool_of(limit), [0], [0], threading.Lock()
    todo = iter(sizes)

    def work():
        while True:
            with lock:
                size = next(todo, None)
            if size is None:
                return
            with pool.take({"a": ArraySpec((size,), "u1")}) as (arrays,):
                with lock:
                    lent[0] += ArraySpec((size,), "u1").nbytes
                    most[0] = max(most[0], lent[0], pool.held)
                arrays["a"][:] = 1
                with lock:
                    lent[0] -= ArraySpec((size,), "u1").nbytes

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
        assert not worker.is_alive()
    assert most[0] <= limit
    assert pool.held <= limit
    free = sum(memory.nbytes for memory in pool._free)
    assert free == pool.held
    np.testing.assert_equal(lent[0], 0)
