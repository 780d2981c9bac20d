"""Orders: every chunk once, a function of seed and epoch alone, and different for each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ooc_train.core import partitions
from ooc_train.stream import order


@given(
    n=st.integers(1, 200),
    group=st.integers(1, 70),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 1000),
)
def test_groups_hold_every_chunk_once(n, group, seed, epoch):
    groups = order.groups(n, group, seed, epoch)
    assert sorted(chunk for members in groups for chunk in members) == list(range(n))
    assert {len(members) for members in groups[:-1]} <= {group}
    assert 0 < len(groups[-1]) <= group
    assert groups == order.groups(n, group, seed, epoch)


def test_the_group_size_does_not_change_the_order_of_chunks():
    flat = [[c for members in order.groups(50, g, 3, 1) for c in members] for g in (1, 7, 49)]
    assert flat[0] == flat[1] == flat[2]


def test_one_group_of_all_is_read_as_it_lies():
    assert order.groups(5, 5, seed=0, epoch=0) == order.groups(5, 9, 1, 2) == [(0, 1, 2, 3, 4)]


def test_every_seed_and_epoch_has_its_own_order():
    keys = [(seed, epoch) for seed in range(20) for epoch in range(20)]
    assert len({tuple(order.groups(30, 1, *key)) for key in keys}) == len(keys)
    assert len({order.epoch_seed(*key) for key in keys}) == len(keys)
    # Transposed, or shifted by one, a pair is another pair.
    assert order.epoch_seed(1, 2) != order.epoch_seed(2, 1)


def test_seeds_of_groups_are_apart_and_64_bits():
    seeds = [order.row_seed(2**64 - 1, group) for group in range(10_000)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**64 for seed in seeds)
    nearest = np.diff(np.sort(np.array(seeds, np.uint64))).min()
    assert nearest > 2**64 / 10_000 / 10


def test_the_order_is_the_one_that_was_published():
    # Runs that were recorded with a random_state have to come out the same in later releases.
    assert order.groups(7, 2, seed=11, epoch=3) == [(0, 1), (4, 6), (2, 3), (5,)]
    assert order.epoch_seed(11, 3) == 16489466604871712345


@given(replicas=st.integers(1, 9), more=st.integers(0, 500), group_bytes=st.integers(0, 2**31))
def test_rounds_give_each_replica_about_as_much(replicas, more, group_bytes):
    n = replicas + more
    rounds = partitions.rounds(n, group_bytes, replicas)
    # One after another, none left out.
    flat = [cut for cuts in rounds for cut in cuts]
    assert [a for a, _ in flat] == [0, *(b for _, b in flat[:-1])]
    assert flat[-1][1] == n
    for cuts in rounds:
        sizes = [b - a for a, b in cuts]
        assert len(sizes) == replicas
        assert 1 <= min(sizes) <= max(sizes) <= min(sizes) + 1
        assert max(sizes) * group_bytes <= 2 * (2**30 + group_bytes)


def test_the_rounds_are_those_that_were_published():
    # They change what replicas learn, as the order does.
    assert partitions.rounds(11, 2**29, 2) == [[(0, 2), (2, 5)], [(5, 8), (8, 11)]]


@given(n=st.integers(1, 10_000), wanted=st.integers(1, 200))
def test_a_spread_is_even(n, wanted):
    chunks = np.array(partitions.spread(n, wanted))
    assert len(chunks) == min(n, wanted)
    assert chunks[0] >= 0
    assert chunks[-1] < n
    steps = np.diff(chunks)
    assert (steps > 0).all()
    assert len(steps) == 0 or steps.max() - steps.min() <= 1


@pytest.mark.parametrize("n", [1, 2, 64])
def test_a_spread_of_all_is_all(n):
    assert partitions.spread(n, 1000) == tuple(range(n))
