"""Threads that share reading and learning: in the order of the items, whoever is slow or fails."""

import random
import threading
import time

import pytest

from ooc_train.stream.pipeline import run_pipeline


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 20])
@pytest.mark.parametrize("slow", ["reading", "learning", "neither"])
def test_items_are_processed_in_order_each_from_its_slot(threads, count, slow):
    held: dict[int, int] = {}
    came: list[int] = []

    def read(item, slot):
        time.sleep(random.random() / 1000 * (slow == "reading"))
        assert slot not in held
        held[slot] = item

    def process(slot):
        time.sleep(random.random() / 1000 * (slow == "learning"))
        came.append(held.pop(slot))

    slots = threads + 1
    waited = run_pipeline(read, process, count, threads, slots)
    assert came == list(range(count))
    assert not held
    # One thread always finds something to do.
    assert waited == 0.0 or threads > 1


def test_one_thread_processes_at_a_time_while_others_read():
    learning, while_processing = threading.Lock(), []
    busy = threading.Event()

    def read(item, slot):
        while_processing.append(learning.locked())
        busy.wait(1e-3)

    def process(slot):
        assert learning.acquire(blocking=False)
        time.sleep(1e-3)
        learning.release()

    run_pipeline(read, process, 50, 4, 5)
    assert any(while_processing)


@pytest.mark.parametrize("slots", [1, 2])
def test_more_threads_than_slots_wait(slots):
    came: list[int] = []
    items: dict[int, int] = {}

    def read(item, slot):
        items[slot] = item

    def process(slot):
        time.sleep(1e-3)
        came.append(items[slot])

    waited = run_pipeline(read, process, 20, 4, slots)
    assert came == list(range(20))
    assert waited > 0


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("where", ["reading", "learning"])
@pytest.mark.parametrize("number", [0, 1, 5, 8])
def test_what_a_thread_raises_ends_the_others_and_is_raised(threads, where, number):
    came: list[int] = []
    items: dict[int, int] = {}

    def read(item, slot):
        if where == "reading" and item == number:
            raise KeyError(item)
        items[slot] = item

    def process(slot):
        if where == "learning" and items[slot] == number:
            raise KeyError(items[slot])
        came.append(items[slot])

    before = threading.active_count()
    with pytest.raises(KeyError, match=str(number)):
        run_pipeline(read, process, 9, threads, threads + 1)
    # Of the items before it, those that were read meanwhile may be left.
    learned = number if where == "learning" or threads == 1 else len(came)
    assert came == list(range(learned))
    assert len(came) <= number
    assert threading.active_count() == before
