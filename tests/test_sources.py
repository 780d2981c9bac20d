"""Sources: the same rows from stores, memory, Dask, and the Zarr of others."""

from pathlib import Path

import dask.array
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_train.core.sums import Block
from ooc_train.errors import CorruptChunk
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.column_moments import ColumnSums
from ooc_train.solvers.training_settings import Training
from ooc_train.solvers.updates import Updates
from ooc_train.store.opening.opener import open_store
from ooc_train.store.reading.direct import DirectRoute
from ooc_train.stream.array_source import ArraySource, concatenate
from ooc_train.stream.classes import codes_of
from ooc_train.stream.dask_source import dask_source
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.store_source import StoreSource
from ooc_train.training.task import Task
from tests.streams import Cut, make_case, same_bits, stream, write_store

ROWS = 53
X = np.random.default_rng(0).normal(size=(ROWS, 3)).astype("<f4")
Y = np.arange(ROWS) * 2 - 50
WEIGHT = np.arange(ROWS) / 10


def buffers(source, partitions=1):
    return {
        name: np.zeros(room.shape, room.dtype) for name, room in source.buffers(partitions).items()
    }


def rows_of(source, y=None):
    """All rows, partition by partition."""
    arrays, reader = buffers(source), source.reader()
    blocks = []
    for partition, block in enumerate(reader.run(range(source.n_partitions), arrays)):
        assert block.X.flags.c_contiguous
        assert block.X.dtype == source.dtype
        assert block.row_number(0) == partition * source.partition_rows
        parts = (block.X, block.y, block.weight)
        blocks.append([None if part is None else part.copy() for part in parts])
    return [
        None if parts[0] is None else np.concatenate(parts) for parts in zip(*blocks, strict=True)
    ]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u2", "i4", "u4", "i8", "?"])
@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_a_store_hands_out_its_rows_as_floating_numbers(tmp_path, dtype, codec):
    stored = (X * 100).astype(dtype)
    store = write_store(tmp_path / "a", stored, Y, WEIGHT, codec=codec)
    source = StoreSource.of(store)
    found, y, weight = rows_of(source)
    wide = np.dtype(dtype) in (np.float64, np.int32, np.uint32, np.int64)
    assert source.dtype == ("<f8" if wide else "<f4")
    np.testing.assert_array_equal(found, stored.astype(source.dtype))
    np.testing.assert_array_equal(y, Y[:, None].astype(float))
    np.testing.assert_array_equal(weight, WEIGHT)
    assert (source.n_rows, source.n_features, source.n_outputs) == (ROWS, 3, 1)
    assert source.row_bytes == 3 * stored.itemsize + Y.itemsize + 8


def test_several_outputs(tmp_path):
    y = np.random.default_rng(1).normal(size=(ROWS, 2)).astype("f4")
    source = StoreSource.of(write_store(tmp_path / "a", X, y))
    assert source.n_outputs == 2
    np.testing.assert_array_equal(rows_of(source)[1], y.astype(float))


@pytest.mark.parametrize("at", [0, 5])
@pytest.mark.parametrize("partitions", [(0,), (6,), (6, 0, 3), (2, 6, 5), tuple(range(7))])
def test_partitions_gather_one_after_another_also_if_one_is_short(tmp_path, partitions, at):
    stored = StoreSource.of(write_store(tmp_path / "a", X, Y, WEIGHT))
    memory = Cut(X, Y[:, None].astype(float), WEIGHT, rows=8)
    due = np.concatenate(
        [np.arange(ROWS)[8 * partition : 8 * partition + 8] for partition in partitions]
    )
    for source in (stored, memory):
        arrays = buffers(source, len(partitions) + 1)
        block = source.reader().gather(partitions, arrays, at)
        np.testing.assert_array_equal(block.X, X[due])
        assert block.y is not None
        np.testing.assert_array_equal(block.y[:, 0], Y[due])
        np.testing.assert_array_equal(block.weight, WEIGHT[due])
        assert [block.row_number(i) for i in range(len(due))] == due.tolist()


def test_rows_in_memory_are_not_copied():
    source = ArraySource(X, Y[:, None].astype(float), WEIGHT)
    assert source.buffers(100) == {}
    for block in (*source.run([0], {}), source.gather((0,), {})):
        assert np.shares_memory(block.X, X)
    assert (source.n_partitions, source.shuffle_chunks, source.group_partitions) == (1, 1, 10)


def test_what_is_mixed_follows_from_how_rows_lie(tmp_path):
    lying = StoreSource.of(write_store(tmp_path / "a", X, Y))
    shuffled = StoreSource.of(write_store(tmp_path / "b", X, Y, shuffled=7))
    assert (lying.shuffle_chunks, shuffled.shuffle_chunks) == (64, 1)


@given(st.lists(st.integers(-99, 99), min_size=1, unique=True), st.data())
def test_codes_are_places_whatever_the_order_of_the_labels(labels, data):
    y = data.draw(st.lists(st.sampled_from(labels), max_size=20))
    assert codes_of(np.array(labels), np.array(y, int)).tolist() == [labels.index(v) for v in y]


def test_concatenated_blocks_know_their_rows():
    blocks = [
        Block(X[:4], None, None, ((0, 40),)),
        Block(X[4:5], None, None, ((0, 7),)),
        Block(X[5:8], None, None, ((0, 0),)),
    ]
    joined = concatenate(blocks)
    assert [joined.row_number(i) for i in range(8)] == [40, 41, 42, 43, 7, 0, 1, 2]
    assert concatenate(blocks[:1]) is blocks[0]


# -------------------------------------------------------------------------- Zarr of other writers

CASE = make_case("logistic", rows=157, weighted=True)
THETA = np.random.default_rng(3).normal(size=(1, 1, 5))


def plain_zarr(path, X, y, weight=None, *, zarr_format=3, chunks=(40, 4), y_chunk=40, **settings):
    group = zarr.create_group(path, zarr_format=zarr_format)
    arrays = {"X": (X, chunks), "y": (y, (y_chunk, *y.shape[1:]))}
    if weight is not None:
        arrays["sample_weight"] = (weight, (y_chunk,))
    for name, (values, size) in arrays.items():
        array = group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=size, **settings,
            config={"write_empty_chunks": True},
        )  # fmt: skip
        array[...] = values
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"chunks": (1000, 4), "y_chunk": 1000},
        {"chunks": (40, 4), "y_chunk": 7},
        {"chunks": (16, 4), "y_chunk": 157},
        {"chunks": (40, 3)},
    ],
    ids=["plain", "one chunk", "y in more chunks", "y in one chunk", "columns cut"],
)
@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", ">f4"])
def test_foreign_groups_have_the_sums_of_the_rows(tmp_path, zarr_format, layout, dtype):
    X = CASE.source.X.astype(dtype)
    y = CASE.y[:, 0].astype("<i2")
    path = plain_zarr(tmp_path / "z", X, y, CASE.source.weight, zarr_format=zarr_format, **layout)
    inputs = read_inputs(path, classifier=True)
    assert inputs.source.n_rows == 157
    assert inputs.total_weight == pytest.approx(CASE.problem.total_weight, rel=1e-14)
    work = CASE.problem.reduction(THETA, hessian=True)
    found = stream(inputs.source).reduce(work)
    memory = Cut(X.astype(dtype[1:]), CASE.y, CASE.source.weight)
    expected = stream(memory).reduce(work)
    for name, sums in expected.items():
        np.testing.assert_allclose(
            found[name], sums, rtol=1e-12, atol=1e-12 * np.abs(sums).max(), err_msg=name
        )


@pytest.mark.parametrize("dtype", ["<f2", "<i8", ">i4", "|u1"])
def test_foreign_numbers_of_other_types(tmp_path, dtype):
    X = np.abs(CASE.source.X * 3).astype(dtype)
    path = plain_zarr(tmp_path / "z", X, CASE.y[:, 0], zarr_format=2)
    found = rows_of(read_inputs(path, classifier=True).source)[0]
    np.testing.assert_array_equal(found, X)


def test_a_big_foreign_chunk_and_its_smaller_copy_agree(tmp_path):
    large = plain_zarr(tmp_path / "z", CASE.source.X, CASE.y, chunks=(157, 4))
    small = write_store(tmp_path / "a", CASE.source.X, CASE.y, chunk_rows=16)
    work = ColumnSums(np.zeros(4))
    a, b = (stream(StoreSource.of(s)).reduce(work) for s in (open_store(large), small))
    np.testing.assert_allclose(a["second"], b["second"], rtol=1e-13)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_large_chunk_is_read_in_parts_where_it_can_be(tmp_path, monkeypatch, compressed):
    monkeypatch.setattr("ooc_train.store.format.arrays.default_chunk_rows", lambda *_: 3)
    codecs = {} if compressed else {"compressors": None}
    path = plain_zarr(
        tmp_path / "z", CASE.source.X, CASE.y[:, 0], CASE.source.weight, chunks=(50, 4), y_chunk=50,
        **codecs,
    )  # fmt: skip
    source = read_inputs(path, classifier=True).source
    assert (source.partition_rows, source.n_partitions) == ((50, 4) if compressed else (6, 27))
    found = rows_of(source)
    np.testing.assert_array_equal(found[0], CASE.source.X)
    np.testing.assert_array_equal(found[1], CASE.y)
    np.testing.assert_array_equal(found[2], CASE.source.weight)
    # A chunk is still what the layout says, whatever it is read in.
    inputs = read_inputs(path, classifier=True)
    solver = Task.of(LogisticModel(), inputs, Training(batch_size="chunk")).solver
    assert isinstance(solver, Updates)
    assert solver.batch_size == 50


@pytest.fixture
def checked(tmp_path, monkeypatch):
    """A store whose chunks have checksums and are read in parts: 4 of 50 rows, in 2 shards."""
    monkeypatch.setattr("ooc_train.store.format.arrays._LARGE_CHUNK_BYTES", 100)
    monkeypatch.setattr("ooc_train.store.format.arrays.default_chunk_rows", lambda *_: 3)
    y = CASE.y[:, 0].astype(int)
    return write_store(
        tmp_path / "a", CASE.source.X, y, CASE.source.weight, chunk_rows=50, codec="none"
    ).path


@pytest.mark.parametrize("shuffle_chunks", [1, 3])
def test_a_large_chunk_with_a_checksum_is_checked_once_and_read_in_parts(
    checked, monkeypatch, shuffle_chunks
):
    through, real = [], DirectRoute._check_through

    def counted(*call):
        through.append(call)
        real(*call)

    monkeypatch.setattr(DirectRoute, "_check_through", counted)
    source = read_inputs(checked, classifier=True).source
    assert isinstance(source, StoreSource)
    assert (source.partition_rows, source.n_partitions, source.oversized) == (6, 27, False)
    for found, expected in zip(rows_of(source), (CASE.source.X, CASE.y), strict=False):
        np.testing.assert_array_equal(found, expected)
    reader, partitions = source.reader(), np.random.default_rng(0).permutation(27).tolist()
    through.clear()
    for _ in range(2):
        for i in range(0, 27, shuffle_chunks):
            block = reader.gather(
                partitions[i : i + shuffle_chunks], buffers(source, shuffle_chunks)
            )
            rows = [block.row_number(j) for j in range(block.n_rows)]
            np.testing.assert_array_equal(block.X, CASE.source.X[rows])
            np.testing.assert_array_equal(block.y, CASE.y[rows])
    assert len(through) == 3 * 4  # of X, y and weights


def test_damage_in_a_large_chunk_is_found_before_any_of_its_rows_is_used(checked):
    source = read_inputs(checked, classifier=True).source
    assert isinstance(source, StoreSource)
    file = Path(source.X.shard_path(1))
    blob = bytearray(file.read_bytes())
    blob[10] ^= 1  # of the first row of the chunk of rows 100 to 149
    file.write_bytes(blob)
    reader, arrays = source.reader(), buffers(source)
    for partition in (17, 20, 24, 20):  # rows 102 to 107, ..., none of which are damaged
        arrays["X"][:] = -1
        with pytest.raises(CorruptChunk, match=r"X, chunk 2 \(rows 100 to 149\) .* checksum"):
            reader.gather([partition], arrays)
        assert (arrays["X"] == -1).all()
    # Of the chunks beside it, rows are handed out.
    for partition, rows in ((15, slice(90, 96)), (25, slice(150, 156))):
        np.testing.assert_array_equal(reader.gather([partition], arrays).X, CASE.source.X[rows])


@settings(max_examples=6, deadline=None)
@given(
    chunk=st.integers(1, 160), y_chunk=st.integers(1, 160), shuffle_chunks=st.sampled_from([1, 3])
)
def test_y_in_chunks_of_its_own_stays_with_its_rows(
    tmp_path_factory, chunk, y_chunk, shuffle_chunks
):
    path = tmp_path_factory.mktemp("z") / "z"
    plain_zarr(path, CASE.source.X, np.arange(157.0), chunks=(chunk, 4), y_chunk=y_chunk)
    source = read_inputs(path, classifier=False).source
    partitions = list(range(source.n_partitions))[::-1]
    for i in range(0, len(partitions), shuffle_chunks):
        part = partitions[i : i + shuffle_chunks]
        block = source.reader().gather(part, buffers(source, shuffle_chunks))
        assert block.y is not None
        np.testing.assert_array_equal(block.X, CASE.source.X[block.y[:, 0].astype(int)])
        assert [block.row_number(j) for j in range(block.n_rows)] == block.y[:, 0].tolist()


# --------------------------------------------------------------------------------------- Dask


@pytest.mark.parametrize("settings", [{}, {"weighted": True}])
def test_dask_arrays_have_the_sums_of_their_blocks(settings):
    case = make_case("multinomial", 3, rows=50, **settings)
    rows = (7, 20, 3, 20)
    weight = case.source.weight
    arrays = [
        None if a is None else dask.array.from_array(a, chunks=(rows, *a.shape[1:]))
        for a in (case.source.X, case.y[:, 0].astype(int), weight)
    ]
    source = dask_source(*arrays)
    assert (source.n_rows, source.n_partitions, source.partition_rows) == (50, 4, 20)
    theta = np.random.default_rng(0).normal(size=(1, *case.problem.initial().shape))
    work = case.problem.reduction(theta, hessian=True)
    found = stream(source, task_groups=1).reduce(work)
    for task_groups in (2, 4):
        assert same_bits(stream(source, task_groups=task_groups).reduce(work), found)
    expected = stream(case.source).reduce(work)
    for name, sums in expected.items():
        np.testing.assert_allclose(found[name], sums, rtol=1e-11, atol=1e-11, err_msg=name)
    with pytest.raises(TypeError, match="arguments of a task"):
        source.reader()
