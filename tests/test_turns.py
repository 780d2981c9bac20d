"""Threads that take turns: in the order of the numbers, whoever is slow and whoever fails."""

import random
import time

import pytest

from ooc_train.stream.turns import in_turns


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_turns_come_in_the_order_of_the_numbers(threads, count):
    came: list[int] = []

    def work(turn, numbers):
        for number in numbers:
            time.sleep(random.random() / 1000)
            with turn():
                came.append(number)
        return len(numbers)

    done = in_turns(work, count, threads)
    assert came == list(range(count))
    assert sum(done) == count
    assert len(done) == threads


def test_one_at_a_time():
    inside = 0

    def work(turn, numbers):
        nonlocal inside
        for _ in numbers:
            with turn():
                inside += 1
                time.sleep(1e-4)
                assert inside == 1
                inside -= 1

    in_turns(work, 50, 4)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("where", ["before", "within", "after"])
@pytest.mark.parametrize("number", [0, 1, 5, 8])
def test_what_a_thread_raises_ends_the_others_and_is_raised(threads, where, number):
    came: list[int] = []

    def work(turn, numbers):
        for i in numbers:
            if where == "before" and i == number:
                raise KeyError(i)
            with turn():
                if where == "within" and i == number:
                    raise KeyError(i)
                came.append(i)
            if where == "after" and i == number:
                raise KeyError(i)

    with pytest.raises(KeyError, match=str(number)):
        in_turns(work, 9, threads)
    assert came == list(range(len(came)))
    assert set(range(number)) - set(came) <= set(range(number - threads, number))


def test_the_first_thread_to_fail_is_heard():
    def work(turn, numbers):
        for i in numbers:
            with turn():
                raise KeyError(i)

    with pytest.raises(KeyError, match="0"):
        in_turns(work, 4, 4)
