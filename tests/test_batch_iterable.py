"""`batches`: every row once an epoch, in the order of a scan, in buffers that a ceiling bounds."""

import json
import pickle
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import sleep

import numpy as np
import pytest
import zarr
from numpy.testing import assert_array_equal

from ooc_train import CeilingExceeded, NonFiniteData, batches
from ooc_train.errors import CorruptChunk, InvalidStore
from ooc_train.memory.processes import measure, reset_peak
from ooc_train.stream.batching.batch_pieces import layouts
from ooc_train.stream.batching.ordered_slots import OrderedSlots, Slot
from ooc_train.stream.store_source import StoreSource
from tests.streams import stream, write_store

N = 1003
X = np.arange(N * 5, dtype=np.float32).reshape(N, 5)
Y = np.arange(N, dtype=float)
MIB = 2**20


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Rows that tell their number, of chunks of 16, the last one with 11 rows."""
    return write_store(tmp_path_factory.mktemp("b") / "a", X, Y, Y / 2, chunk_rows=16)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """31 MiB in 160 chunks: more than the buffers of small batches."""
    rows = np.random.default_rng(0).normal(size=(40_000, 200)).astype(np.float32)
    path = tmp_path_factory.mktemp("b") / "large"
    return write_store(path, rows, np.arange(40_000.0), chunk_rows=250, shuffled=0)


def rows_of(made, epochs=1):
    """The numbers of the rows of each batch, in order; the rest of each row is looked at."""
    found = []
    for _ in range(epochs):
        for X_batch, y, weight in made:
            assert_array_equal(X_batch, X[y.astype(int)])
            assert_array_equal(weight, y / 2)
            found.append(y.astype(int).tolist())
    return found


def flat(found):
    return [row for batch in found for row in batch]


# Rows and their order


@pytest.mark.parametrize("size", [1, 7, 64, 500, N])
@pytest.mark.parametrize("settings", [{}, {"shuffle_chunks": 1}, {"shuffle_chunks": 5}])
def test_every_row_comes_once_an_epoch_in_an_order_of_its_own(store, size, settings):
    made = batches(store, size, random_state=3, **settings)
    first, second = rows_of(made), rows_of(made)
    assert len(first) == len(second) == len(made) == -(-N // size)
    assert {len(batch) for batch in first[:-1]} <= {size}
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(N))
    assert flat(first) != flat(second)
    assert flat(first) != sorted(flat(first))


@pytest.mark.parametrize("shuffle", [True, False])
def test_no_number_of_threads_and_no_ceiling_changes_the_order(large, shuffle):
    found = set()
    for settings in ({"threads": 1}, {"threads": 5}, {"memory_ceiling": "24MiB"}):
        made = batches(large, 300, random_state=1, shuffle=shuffle, **settings)
        found.add(tuple(flat(y.tolist() for _, y in made)))
    assert len(found) == 1


@dataclass(frozen=True)
class Recorder:
    """A scan that notes the rows that it is given."""

    def workspace(self, rows):
        del rows
        return {}

    @contextmanager
    def learner(self, state, workspace, threads=1):
        del workspace, threads

        def learn(block, order):
            at = int(state["count"])
            state["rows"][at : at + len(order)] = block.y[order, 0]
            state["count"] += len(order)

        yield learn

    def finish(self, state, workspace):
        pass

    def made_bytes(self, rows):
        return 0 * rows

    def average(self, before, after):
        pass


@pytest.mark.parametrize("shuffle_chunks", [1, 3, 64])
@pytest.mark.parametrize("epoch", [0, 2])
def test_the_order_is_that_of_a_scan(store, shuffle_chunks, epoch):
    state = {"rows": np.zeros(N), "count": np.zeros((), np.int64)}
    (after,) = stream(StoreSource.of(store)).scan(
        Recorder(), [state], seed=7, epoch=epoch, shuffle_chunks=shuffle_chunks
    )
    made = batches(store, 50, shuffle_chunks=shuffle_chunks, random_state=7)
    assert flat(rows_of(made, epoch + 1))[epoch * N :] == after["rows"].tolist()


def test_stored_order(store):
    assert flat(rows_of(batches(store, 100, shuffle=False))) == list(range(N))


def test_an_incomplete_last_batch_may_be_left_out(store):
    made = batches(store, 100, drop_last=True, random_state=0)
    found = rows_of(made)
    assert len(made) == len(found) == 10
    assert len(set(flat(found))) == 1000
    assert made.epoch == 1


def test_a_seed_is_drawn_and_told(store):
    made = batches(store, 100)
    assert rows_of(made) == rows_of(batches(store, 100, random_state=made.random_state))
    assert made.random_state != batches(store, 100).random_state


def test_shapes_and_types(tmp_path, store):
    X_batch, y, weight = next(iter(batches(store, 8)))
    assert (X_batch.dtype, y.dtype, weight.dtype) == (np.float32,) * 3
    assert (X_batch.shape, y.shape, weight.shape) == ((8, 5), (8,), (8,))
    two = write_store(tmp_path / "two", X.astype(float), np.column_stack([Y, -Y]))
    X_batch, y = next(iter(batches(two, 8)))
    assert (X_batch.dtype, y.dtype, y.shape) == (np.float64, np.float64, (8, 2))
    assert_array_equal(y[:, 0], -y[:, 1])
    codes = write_store(tmp_path / "c", X, Y % 3, classes=["a", "b", "c"])
    made = batches(codes, 8)
    X_batch, y = next(iter(made))
    assert (y.dtype, y.shape, made.classes) == (np.int64, (8,), ("a", "b", "c"))
    assert_array_equal(y, X_batch[:, 0] // 5 % 3)


def test_bytes_become_floats_and_labels_become_codes(tmp_path):
    group = zarr.open_group(tmp_path / "z", mode="w")
    group.create_array("X", data=np.arange(120, dtype=np.uint8).reshape(40, 3), chunks=(7, 3))
    group.create_array("y", data=np.arange(40) % 4 * 10 + 5, chunks=(40,))
    made = batches(tmp_path / "z", 9, classifier=True)
    seen = 0
    for X_batch, y in made:
        assert X_batch.dtype == np.float32
        assert_array_equal(y, X_batch[:, 0] // 3 % 4)
        seen += len(y)
    assert (seen, made.classes) == (40, (5, 15, 25, 35))


def test_images_keep_their_shape(tmp_path):
    group = zarr.open_group(tmp_path / "z", mode="w")
    images = np.arange(40 * 12, dtype=np.uint8).reshape(40, 3, 2, 2)
    group.create_array("X", data=images, chunks=(7, 3, 2, 2))
    group.create_array("y", data=np.arange(40.0), chunks=(40,))
    made = batches(tmp_path / "z", 9, random_state=0)
    assert (made.row_shape, made.n_features) == ((3, 2, 2), 12)
    for X_batch, y in made:
        assert_array_equal(X_batch, images[y.astype(int)])


# How long a batch stays valid


def test_a_batch_that_is_kept_is_an_error_and_never_overwritten(large):
    kept = []

    def keep():
        for X_batch, _ in batches(large, 100, random_state=0):
            kept.append((X_batch[:3], X_batch[:3].copy()))

    with pytest.raises(ValueError, match=r"earlier batch are still in use.*copy what you keep"):
        keep()
    assert len(kept) > 1
    for views, copies in kept:
        assert_array_equal(views, copies)
    made = [y.copy() for _, y in batches(large, 100, random_state=0)]
    assert len(made) == 400


def test_the_last_batch_of_an_epoch_stays_valid_in_the_next(large):
    made = batches(large, 4000, random_state=0)
    for _ in range(3):
        for X_batch, _ in made:
            copy = X_batch.copy()
        it = iter(made)
        sleep(0.01)
        next(it)
        assert_array_equal(X_batch, copy)


def test_rows_that_fit_are_not_copied_again(large):
    owners = [X_batch.base for X_batch, _ in islice(batches(large, 100, threads=1), 9)]
    assert len({id(owner) for owner in owners}) == 1


# Going on


@pytest.mark.parametrize("size", [1, 64, 300])
@pytest.mark.parametrize("settings", [{}, {"shuffle": False}, {"shuffle_chunks": 5}])
def test_a_loop_goes_on_in_the_middle_of_an_epoch(store, size, settings):
    made = batches(store, size, random_state=1, **settings)
    due = rows_of(made, 2)
    for taken in (0, 1, len(made) // 2, len(made) - 1, len(made), len(made) + 2):
        first = batches(store, size, random_state=1, **settings)
        before = rows_of(islice(first, taken))
        if taken > len(made):
            before += rows_of(islice(first, taken - len(made)))
        state = json.loads(json.dumps(first.state_dict()))
        other = batches(store, size, random_state=99, **settings)
        other.load_state_dict(state)
        assert before == due[:taken]
        rest = rows_of(other, 2)
        assert rest[: len(due) - taken] == due[taken:]


def test_an_iteration_that_ends_early_is_an_epoch(store):
    made = batches(store, 100, random_state=0)
    due = rows_of(batches(store, 100, random_state=0), 3)
    assert rows_of(islice(made, 2)) == due[:2]
    assert made.state_dict()["batch"] == 2
    assert rows_of(made) == due[11:22]
    assert made.epoch == 2
    # An iteration that takes nothing is none.
    iter(made)
    assert rows_of(made) == due[22:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 63}, "batch_size=63, and these batches have batch_size=64"),
        ({"n_rows": 5}, "n_rows=5"),
        ({"shuffle_chunks": 2}, "shuffle_chunks=2"),
        ({"epoch": -1}, "epoch is -1"),
        ({"batch": "x"}, "batch is 'x'"),
        ({"random_state": None}, "random_state is None"),
    ],
)
def test_a_state_of_other_batches_is_refused(store, change, said):
    made = batches(store, 64, random_state=0)
    with pytest.raises(ValueError, match=re.escape(said)):
        made.load_state_dict(made.state_dict() | change)
    with pytest.raises(ValueError, match="epoch is missing"):
        made.load_state_dict({})


def test_a_second_loop_ends_the_first(large):
    made = batches(large, 100, random_state=0)
    first = iter(made)
    next(first)
    second = iter(made)
    assert len(next(second)[1]) == 100
    with pytest.raises(ValueError, match="another loop over these batches has begun"):
        for _ in first:
            pass
    assert len(next(second)[1]) == 100


def readers():
    return [each for each in threading.enumerate() if each.name == "ooc_train-batches"]


def test_threads_end_with_the_loop(large):
    made = batches(large, 100)
    for _ in islice(made, 3):
        assert readers()
    assert readers() == []
    for _ in made:
        break
    assert readers() == []
    copy = pickle.loads(pickle.dumps(made))
    assert sum(len(y) for _, y in copy) == 40_000


# Shares


@pytest.mark.parametrize("workers", [1, 2, 3, 100])
def test_shares_of_workers_have_every_row_once(store, workers):
    made = batches(store, 50, shuffle_chunks=2, random_state=0)
    parts = [flat(rows_of(made.share(i, workers))) for i in range(workers)]
    assert sorted(flat(parts)) == list(range(N))
    if workers > 1:
        with pytest.raises(TypeError, match="differ in number"):
            len(made.share(0, workers))


def test_a_share_that_is_none(store):
    made = batches(store, 50)
    with pytest.raises(ValueError, match="worker=2"):
        made.share(2, 2)


# The ceiling


@pytest.mark.parametrize("settings", [{}, {"shuffle_chunks": 20}, {"shuffle": False}])
@pytest.mark.parametrize("size", [10, 2000])
def test_a_ceiling_that_is_named_is_enough_and_less_is_refused(large, settings, size):
    with pytest.raises(CeilingExceeded, match="raise the memory ceiling to") as refused:
        batches(large, size, memory_ceiling="16.2MiB", **settings)
    (least,) = re.findall(r"ceiling to (\d+)MiB", str(refused.value))
    made = batches(large, size, memory_ceiling=f"{least}MiB", **settings)
    assert sum(len(y) for _, y in made) == 40_000
    assert f"{least} MiB" in made.explain()
    with pytest.raises(CeilingExceeded):
        batches(large, size, memory_ceiling=f"{int(least) - 2}MiB", **settings)


@pytest.mark.alone
@pytest.mark.parametrize("settings", [{}, {"shuffle_chunks": 20}, {"shuffle": False}])
def test_a_loop_holds_no_more_than_is_planned(large, settings):
    for _ in islice(batches(large, 64), 2):  # what is loaded once
        pass
    made = batches(large, 1000, random_state=0, **settings)
    projected = float(re.findall(r"projected +([\d.]+) MiB", made.explain())[0]) * MIB
    assert reset_peak()
    before = measure().current
    for _ in range(2):
        for _batch in made:
            pass
    assert measure().peak - before <= projected


def test_layouts_hold_less_and_less():
    @dataclass
    class Source:
        n_rows: int = 10**6
        partition_rows: int = 256
        n_features: int = 784
        dtype: str = "<f4"

    source: object = Source()
    for shuffle_chunks in (1, 64):
        found = list(
            layouts(source, 10, shuffle_chunks, 4, shuffled=True, n_classes=0)  # type: ignore[arg-type]
        )
        assert [each.threads for each in found] == [4, 3, 2, 1, 1]
        assert all(each.slots >= 3 for each in found)
        for each in found:
            pieces = each.pieces_of(each.group_rows)
            assert each.slot_rows * pieces >= each.group_rows
            assert each.slot_rows >= 2 * 10


# Bad data and bad settings


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_named(tmp_path, bad, shuffle):
    broken = X.copy()
    broken[77, 3] = bad
    group = zarr.open_group(tmp_path / "z", mode="w")
    group.create_array("X", data=broken, chunks=(16, 5))
    group.create_array("y", data=Y, chunks=(16,))
    with pytest.raises(NonFiniteData, match=r"row 77 has .* in column 3 of X"):
        for _ in batches(tmp_path / "z", 10, shuffle=shuffle):
            pass


def test_a_damaged_chunk_is_named(tmp_path):
    made = write_store(tmp_path / "a", X, Y, chunk_rows=16, shard_chunks=4)
    file = Path(made.X.shard_path(3))
    blob = bytearray(file.read_bytes())
    blob[10] ^= 1
    file.write_bytes(blob)
    loop = iter(batches(made, 10, shuffle=False))
    with pytest.raises(CorruptChunk, match="chunk 12"):
        list(loop)
    assert readers() == []


def test_codes_of_no_class_are_named(tmp_path):
    made = write_store(tmp_path / "c", X, Y % 3, classes=["a", "b", "c"], chunk_rows=16)
    made = replace(made, classes=("a", "b"), class_counts=(500, 503))
    with pytest.raises(ValueError, match=r"y\[2\] = 2 is the code of no class: there are 2"):
        for _ in batches(made, 10, shuffle=False):
            pass


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 1.5}, "batch_size=1.5"),
        ({"batch_size": N + 1}, "more than the 1,003 rows"),
        ({"shuffle_chunks": 0}, "shuffle_chunks=0"),
        ({"shuffle_chunks": 4, "shuffle": False}, "leave it out"),
        ({"random_state": -1}, "random_state=-1"),
        ({"threads": 0}, "threads=0"),
        ({"drop_last": 1}, "drop_last=1"),
        ({"memory_ceiling": "many"}, "memory_ceiling="),
    ],
)
def test_settings_that_cannot_be_used(store, settings, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        batches(store, **{"batch_size": 10} | settings)


def test_data_that_are_no_store(tmp_path):
    with pytest.raises(ValueError, match="slice arrays in memory"):
        batches(X, 10)
    bare = write_store(tmp_path / "x", X)
    with pytest.raises(InvalidStore, match="has no y"):
        batches(bare, 10)


# Slots


def slots(n):
    return [Slot({"X": np.zeros(3)[:]}) for _ in range(n)]


def test_an_error_of_a_thread_comes_after_the_pieces_before_it():
    def pieces(thread: int, item: int) -> Iterator:
        def fill(slot):
            slot.rows = item

        if item == 2:
            raise OSError("gone")
        yield item, fill

    made = OrderedSlots(slots(4), 5, pieces, 1)
    assert [made.take(i).rows for i in range(2)] == [0, 1]
    with pytest.raises(OSError, match="gone"):
        made.take(2)
    made.close()


def test_a_slot_in_use_is_known():
    (slot,) = slots(1)
    assert not slot.in_use
    view = slot.arrays["X"][1:][:1]
    assert slot.in_use
    del view
    assert not slot.in_use


# PyTorch


def test_tensors_share_the_memory_of_arrays(store):
    torch = pytest.importorskip("torch")
    made = batches(store, 64, random_state=0, tensors=True)
    due = rows_of(batches(store, 64, random_state=0))
    found = []
    for X_batch, y, weight in made:
        assert isinstance(X_batch, torch.Tensor)
        assert (X_batch[:, 0] == 5 * y).all()
        assert (weight == y / 2).all()
        found.append(y.int().tolist())
    assert found == due


def test_kept_tensors_are_an_error(large):
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match="still in use"):
        list(batches(large, 100, tensors=True))


def test_a_loader_without_workers(store):
    data = pytest.importorskip("torch.utils.data")
    made = batches(store, 64, random_state=0)
    loader = data.DataLoader(made.dataset(), batch_size=None)
    assert len(loader) == 16
    due = rows_of(batches(store, 64, random_state=0), 2)
    assert [y.int().tolist() for _ in range(2) for _, y, _ in loader] == due


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("persistent", [False, True])
def test_a_loader_with_workers(store, persistent):
    torch = pytest.importorskip("torch")
    made = batches(store, 64, random_state=0, shuffle_chunks=2)

    def epochs():
        loader = torch.utils.data.DataLoader(
            made.dataset(),
            batch_size=None,
            num_workers=2,
            persistent_workers=persistent,
            generator=torch.Generator().manual_seed(5),
        )
        return [[y.int().tolist() for _, y, _ in loader] for _ in range(2)]

    first, second = epochs()
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(N))
    assert flat(first) != flat(second)
    assert epochs() == [first, second]
