"""Threads that share reading and learning: in the order of the items, whoever is slow or fails."""

import random
import threading
import time

import pytest

from ooc_train.stream.pipeline import in_turns


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 20])
@pytest.mark.parametrize("slow", ["reading", "learning", "neither"])
def test_items_are_learned_from_in_order_each_from_its_place(threads, count, slow):
    held: dict[int, int] = {}
    came: list[int] = []

    def read(item, place):
        time.sleep(random.random() / 1000 * (slow == "reading"))
        assert place not in held
        held[place] = item

    def learn(place):
        time.sleep(random.random() / 1000 * (slow == "learning"))
        came.append(held.pop(place))

    places = threads + 1
    waited = in_turns(read, learn, count, threads, places)
    assert came == list(range(count))
    assert not held
    # One thread always finds something to do.
    assert waited == 0.0 or threads > 1


def test_one_learns_at_a_time_while_others_read():
    learning, beside = threading.Lock(), []
    busy = threading.Event()

    def read(item, place):
        beside.append(learning.locked())
        busy.wait(1e-3)

    def learn(place):
        assert learning.acquire(blocking=False)
        time.sleep(1e-3)
        learning.release()

    in_turns(read, learn, 50, 4, 5)
    assert any(beside)


@pytest.mark.parametrize("places", [1, 2])
def test_more_threads_than_places_wait(places):
    came: list[int] = []
    items: dict[int, int] = {}

    def read(item, place):
        items[place] = item

    def learn(place):
        time.sleep(1e-3)
        came.append(items[place])

    waited = in_turns(read, learn, 20, 4, places)
    assert came == list(range(20))
    assert waited > 0


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("where", ["reading", "learning"])
@pytest.mark.parametrize("number", [0, 1, 5, 8])
def test_what_a_thread_raises_ends_the_others_and_is_raised(threads, where, number):
    came: list[int] = []
    items: dict[int, int] = {}

    def read(item, place):
        if where == "reading" and item == number:
            raise KeyError(item)
        items[place] = item

    def learn(place):
        if where == "learning" and items[place] == number:
            raise KeyError(items[place])
        came.append(items[place])

    before = threading.active_count()
    with pytest.raises(KeyError, match=str(number)):
        in_turns(read, learn, 9, threads, threads + 1)
    # Of the items before it, those that were read meanwhile may be left.
    learned = number if where == "learning" or threads == 1 else len(came)
    assert came == list(range(learned))
    assert len(came) <= number
    assert threading.active_count() == before
