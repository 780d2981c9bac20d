"""The spool: the order is the seed's, whatever the room; every record once; and room is kept."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_train.store import spool as spool_module
from ooc_train.store.spool import Spool, row_keys

RECORD = np.dtype([("row", "<i8"), ("X", "<f4", (3,)), ("y", "u1")])
WIDE = np.dtype([("row", "<i8"), ("X", "u1", (1500,))])
LEAST = Spool.least_room(WIDE)


def records_of(rows, dtype=WIDE):
    """Records whose content tells their row."""
    records = np.zeros(len(rows), dtype)
    records["row"] = rows
    records["X"] = (np.asarray(rows) * 2654435761 % 251)[:, np.newaxis]
    return records


def through(directory, n, *, cuts=(), seed: int | None = 0, room=LEAST, expected=None):
    """Row numbers in the order that they come back, after checking what came with them."""
    with Spool(WIDE, directory, room=room, seed=seed, expected_bytes=expected) as spool:
        for start, stop in itertools.pairwise([0, *sorted(cuts), n]):
            spool.add(records_of(np.arange(start, stop)))
        assert (spool.n_rows, spool.n_bytes) == (n, n * WIDE.itemsize)
        rows = [read(spool) for _ in range(2)]
    assert rows[0].tolist() == rows[1].tolist()
    return rows[0]


def read(spool):
    pieces = [piece.copy() for piece in spool.blocks()]
    rows = np.concatenate([piece["row"] for piece in pieces]) if pieces else np.empty(0, int)
    for piece in pieces:
        np.testing.assert_array_equal(piece, records_of(piece["row"], spool.dtype))
    return rows


def expected_order(n, seed):
    return row_keys(np.arange(n), seed).argsort()


def test_keys_are_those_of_the_published_generator():
    # SplitMix64 from the state 0, by the reference implementation of Vigna.
    reference = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    start = int(spool_module._offset(7))
    # The key of row r is output r - 1 of the stream that begins at the seed's offset.
    inverse = pow(0x9E3779B97F4A7C15, -1, 2**64)
    rows = [(inverse * -start + k) % 2**64 for k in (1, 2, 3)]
    assert row_keys(np.array(rows, np.uint64).view(np.int64), 7).tolist() == reference


def test_keys_of_a_seed_are_all_different_and_those_of_another_seed_are_others():
    rows = np.arange(100_000)
    keys = row_keys(rows, 0)
    assert len(np.unique(keys)) == len(rows)
    assert not np.isin(row_keys(rows, 1), keys).any()
    np.testing.assert_array_equal(row_keys(rows[777:999], 0), keys[777:999])


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 600),
    cuts=st.lists(st.integers(0, 600), max_size=5),
    room=st.integers(LEAST, 4 * LEAST),
    expected=st.sampled_from([None, 1, 10**4, 10**6, 10**9]),
    seed=st.integers(0, 3),
)
def test_the_order_is_a_function_of_the_seed_alone(tmp_path_factory, n, cuts, room, expected, seed):
    cuts = [cut for cut in cuts if cut <= n]
    directory = tmp_path_factory.getbasetemp()
    rows = through(directory, n, cuts=cuts, room=room, expected=expected, seed=seed)
    assert rows.tolist() == expected_order(n, seed).tolist()


@settings(max_examples=10, deadline=None)
@given(n=st.integers(0, 300), cuts=st.lists(st.integers(0, 300), max_size=4))
def test_without_a_seed_the_order_stays(tmp_path_factory, n, cuts):
    cuts = [cut for cut in cuts if cut <= n]
    rows = through(tmp_path_factory.getbasetemp(), n, cuts=cuts, seed=None)
    assert rows.tolist() == list(range(n))


@pytest.mark.parametrize("expected", [700 * WIDE.itemsize // 100, 700 * WIDE.itemsize * 100])
def test_an_expectation_that_is_wrong_changes_nothing(tmp_path, expected):
    # The room holds 16 records: too few buckets are read in dozens of ranges each.
    assert through(tmp_path, 700, expected=expected).tolist() == expected_order(700, 0).tolist()


def test_extents_that_outgrow_their_room_are_merged_down_to_one_bucket(tmp_path):
    with Spool(WIDE, tmp_path, room=LEAST, seed=3) as spool:
        sizes, buckets = spool._sizes, set()
        while spool._bits:
            rows = np.arange(spool.n_rows, spool.n_rows + sizes.block_rows)
            spool.add(records_of(rows))
            buckets.add(2**spool._bits)
            assert spool._n_extents <= sizes.cells
        spool.add(records_of(np.arange(spool.n_rows, spool.n_rows + 100)))
        pieces = itertools.islice(spool.blocks(), 9)
        found = np.concatenate([piece["row"].copy() for piece in pieces])
    assert buckets >= {1, 2, 4, 8, 16}
    assert found.tolist() == expected_order(spool.n_rows, 3)[: len(found)].tolist()
