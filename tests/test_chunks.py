"""Reading chunks: two routes, the same bytes; and every kind of damage is found."""

import os
import pickle
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs.registry import get_codec
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, ZstdCodec

from ooc_train.errors import CorruptChunk
from ooc_train.store.opening.finding import find_node
from ooc_train.store.opening.opener import open_store
from ooc_train.store.reading import shard_files
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.store.writing.writer import StoreWriter

CODECS = {
    "raw": (),
    "blosc-lz4": (BloscCodec(cname="lz4"),),
    "blosc-zstd": (BloscCodec(cname="zstd", shuffle="bitshuffle"),),
    "zstd": (ZstdCodec(level=1),),
    "zstd-checksum": (ZstdCodec(level=1, checksum=True),),
}


def values(shape, dtype):
    """Numbers that compress a little."""
    return np.random.default_rng(0).integers(0, 50, shape).astype(dtype)


def layout_of(path):
    """Layout of one array, of any number of axes."""
    return find_node(path).layout("X")


def read_all(layout):
    """Every row, through one buffer that is reused."""
    rows = []
    with ChunkReader(layout) as reader:
        out = np.empty((layout.chunk_rows, *layout.row_shape), layout.dtype)
        scratch = np.empty(reader.scratch_bytes, np.uint8)
        for index in range(layout.n_chunks):
            reader.prefetch(index * layout.chunk_rows, (index + 1) * layout.chunk_rows)
            count = reader.read(index, out, scratch)
            rows.append(out[:count].copy())
    return np.concatenate(rows)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_both_routes_give_what_zarr_python_wrote(tmp_path_factory, data):
    n_rows = data.draw(st.integers(1, 40))
    row_shape = data.draw(st.sampled_from([(), (1,), (3,), (130,)]))
    dtype = data.draw(st.sampled_from(["f4", "f8", "f2", "i4", "i8", "u1", "bool"]))
    chunk_rows = data.draw(st.integers(1, 12))
    per_shard = data.draw(st.sampled_from([None, 1, 3]))
    codec = data.draw(st.sampled_from(sorted(CODECS)))
    checks = (Crc32cCodec(),) if data.draw(st.booleans()) else ()
    written = values((n_rows, *row_shape), dtype)
    path = tmp_path_factory.mktemp("array")
    array = zarr.create_array(
        path,
        shape=written.shape,
        dtype=dtype,
        chunks=(chunk_rows, *row_shape),
        shards=None if per_shard is None else (chunk_rows * per_shard, *row_shape),
        compressors=CODECS[codec] + checks,
        chunk_key_encoding={
            "name": data.draw(st.sampled_from(["default", "v2"])),
            "separator": data.draw(st.sampled_from(["/", "."])),
        },
        config={"write_empty_chunks": True},
    )
    array[...] = written
    layout = layout_of(path)
    assert layout.direct
    assert (layout.codec, layout.crc) == (codec.split("-")[0], bool(checks))
    for route in (layout, replace(layout, direct=False)):
        found = read_all(route)
        assert found.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(found, written)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    n_rows=st.integers(1, 50),
    codec=st.sampled_from(["none", "lz4", "zstd"]),
    dtype=st.sampled_from(["f4", "f8", "i4", "u1"]),
    chunk_rows=st.integers(1, 9),
    per_shard=st.integers(1, 4),
)
def test_zarr_python_reads_what_our_writer_writes(
    tmp_path_factory, n_rows, codec, dtype, chunk_rows, per_shard
):
    X, y = values((n_rows, 5), dtype), values((n_rows, 2), "f8")
    path = tmp_path_factory.mktemp("store") / "a.zarr"
    with StoreWriter(
        path,
        n_features=5,
        dtype=dtype,
        outputs=2,
        y_dtype="f8",
        codec=codec,
        chunk_rows=chunk_rows,
        shard_rows=per_shard * chunk_rows,
    ) as writer:
        writer.write(X, y)
        store = writer.commit()
    by_zarr = zarr.open_array(path / "X", mode="r")
    assert by_zarr.chunks == (chunk_rows, 5)
    assert by_zarr.metadata.to_dict()["dimension_names"] == ("sample", "feature")
    np.testing.assert_array_equal(by_zarr[:], X)
    np.testing.assert_array_equal(zarr.open_array(path / "y", mode="r")[:], y)
    assert store.X.direct
    np.testing.assert_array_equal(read_all(store.X), X)
    np.testing.assert_array_equal(read_all(store.y), y)


@pytest.mark.parametrize(
    "settings_of_zarr",
    [
        {"zarr_format": 2, "dtype": ">f4", "chunks": (4, 3), "order": "F"},
        {"zarr_format": 2, "dtype": "<f4", "chunks": (4, 2)},
        {"dtype": "f4", "chunks": (4, 2)},
        {"dtype": "f4", "chunks": (2, 3), "shards": (4, 6)},
        {"dtype": "f4", "chunks": (4, 6), "compressors": GzipCodec()},
        {"dtype": "f4", "chunks": (4, 6), "serializer": BytesCodec(endian="big")},
        {
            "dtype": "f4",
            "chunks": (8, 6),
            "compressors": None,
            "serializer": ShardingCodec(chunk_shape=(4, 6), index_location="start"),
        },
        {
            "dtype": "f4",
            "chunks": (8, 6),
            "compressors": None,
            "serializer": ShardingCodec(chunk_shape=(4, 6), index_codecs=[BytesCodec()]),
        },
    ],
)
def test_zarr_python_reads_the_rest(tmp_path, settings_of_zarr):
    written = values((11, 6), "f4")
    array = zarr.create_array(tmp_path / "a", shape=written.shape, **settings_of_zarr)
    array[...] = written
    layout = pickle.loads(pickle.dumps(layout_of(tmp_path / "a")))
    assert not layout.direct
    assert layout.dtype == "<f4"
    np.testing.assert_array_equal(read_all(layout), written)


def test_a_store_behind_a_url_is_read_through_zarr_python():
    group = zarr.open_group("memory://there", mode="w")
    written = values((11, 6), "f4") + 1
    group.create_array("X", data=written, chunks=(4, 6))
    for place in ("memory://there", group, group["X"]):
        store = open_store(place)
        assert (store.X.direct, store.y) == (False, None)
        layout = pickle.loads(pickle.dumps(store.X))
        np.testing.assert_array_equal(read_all(layout), written)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings_of_zarr",
    [{}, {"compressors": None}, {"compressors": None, "shards": (10, 2)}],
    ids=["compressed", "in parts", "in parts of shards"],
)
@pytest.mark.parametrize("direct_route", [True, False])
def test_any_rows_are_put_together(tmp_path, direct_route, settings_of_zarr):
    written = values((23, 2), "i4") + 1
    array = zarr.create_array(
        tmp_path / "y", shape=(23, 2), chunks=(5, 2), dtype="i4", **settings_of_zarr
    )
    array[...] = written
    reader = ChunkReader(replace(layout_of(tmp_path / "y"), direct=direct_route))
    for start in range(24):
        for stop in range(start, 24):
            out = np.empty((stop - start, 2), "i4")
            reader.read_rows(start, stop, out)
            np.testing.assert_array_equal(out, written[start:stop])
    in_parts = direct_route and "compressors" in settings_of_zarr
    assert (reader.layout.in_parts, reader.cache_bytes == 0) == (in_parts, in_parts)
    with pytest.raises(IndexError, match="rows 3 to 24 of 23"):
        reader.read_rows(3, 24, np.empty((21, 2), "i4"))


def test_more_shards_than_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_files, "MAX_OPEN_SHARDS", 2)
    store = write(tmp_path, "none")
    before = len(os.listdir("/proc/self/fd"))
    reader = ChunkReader(store.X)
    out = np.empty((4, 3), "f4")
    for index in (0, 2, 4, 1, 5, 0, 3):
        reader.read(index, out)
        np.testing.assert_array_equal(out[:2], ROWS[index * 4 : index * 4 + 2])
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_wrong_call_says_so(tmp_path):
    store = write(tmp_path, "lz4")
    reader = ChunkReader(store.X)
    scratch = np.empty(reader.scratch_bytes, np.uint8)
    with pytest.raises(IndexError, match="chunk 6 of 6 of X"):
        reader.read(6, np.empty((4, 3), "f4"), scratch)
    with pytest.raises(IndexError, match="chunk -1 of 6 of X"):
        reader.read(-1, np.empty((4, 3), "f4"), scratch)
    with pytest.raises(ValueError, match=r"out is float64 \(4, 3\).*float32 \(4, 3\)"):
        reader.read(0, np.empty((4, 3), "f8"), scratch)
    with pytest.raises(ValueError, match="scratch holds 1 bytes"):
        reader.read(0, np.empty((4, 3), "f4"), scratch[:1])


ROWS = np.arange(66, dtype="f4").reshape(22, 3)
ENTRY = struct.Struct("<QQ")


def write(folder, codec):
    """Six chunks of 4 rows, the last of 2, in three shards of 2 chunks."""
    path = folder / "a.zarr"
    with StoreWriter(path, n_features=3, chunk_rows=4, shard_rows=8, codec=codec) as writer:
        writer.write(ROWS)
        return writer.commit()


def with_entry(blob, position, entry):
    """A shard whose index says `entry` for a chunk, with a checksum that agrees."""
    index = bytearray(blob[-36:-4])
    ENTRY.pack_into(index, ENTRY.size * position, *entry)
    return blob[:-36] + bytes(index) + crc32c(bytes(index)).to_bytes(4, "little")


def flip(blob, position):
    blob = bytearray(blob)
    blob[position] ^= 4
    return bytes(blob)


DAMAGE = {
    "missing": (lambda _: None, "its file is missing"),
    "zero-length": (lambda _: b"", "too short for an index"),
    "truncated": (lambda blob: blob[:-10], "checksum"),
    "bit of the chunk": (lambda blob: flip(blob, ENTRY.unpack_from(blob[-36:], 16)[0]), "checksum"),
    "bit of its checksum": (lambda blob: flip(blob, -73), "checksum [0-9a-f]{8}, expected"),
    "bit of its identity": (lambda blob: flip(blob, -37), "has no identity of a shard"),
    "bit of the index": (lambda blob: flip(blob, -10), "the index of its shard has checksum"),
    "left out": (lambda blob: with_entry(blob, 1, (2**64 - 1,) * 2), "missing from its shard"),
    "beyond the file": (lambda blob: with_entry(blob, 1, (2**40, 52)), "of a file that holds"),
    "wrong length": (lambda blob: with_entry(blob, 1, (0, 5)), "expected|can't be decoded|header"),
    "no bytes": (lambda blob: with_entry(blob, 1, (0, 0)), "takes 0 bytes"),
}


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_named(tmp_path, codec, damage):
    store = write(tmp_path, codec)
    shard = Path(store.X.shard_path(1))
    change, message = DAMAGE[damage]
    blob = change(shard.read_bytes())
    shard.unlink()
    if blob is not None:
        shard.write_bytes(blob)
    reader = ChunkReader(store.X)
    out, scratch = np.zeros((4, 3), "f4"), np.empty(reader.scratch_bytes, np.uint8)
    reader.prefetch(3 * 4, 4 * 4)
    with pytest.raises(CorruptChunk, match=message) as caught:
        reader.read(3, out, scratch)
    assert f"X, chunk 3 (rows 12 to 15) in {shard}" in str(caught.value)
    with pytest.raises(CorruptChunk):
        reader.read_rows(10, 14, np.empty((4, 3), "f4"))
    # The other shards can still be read, and the last chunk is named by the rows it has.
    assert reader.read(5, out, scratch) == 2
    np.testing.assert_array_equal(out[:2], ROWS[20:])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_run_of_chunks_is_one_after_another(tmp_path_factory, data):
    written = values((37, *data.draw(st.sampled_from([(), (3,)]))), "f4")
    path = tmp_path_factory.mktemp("run") / "a"
    chunk_rows, per_shard = data.draw(st.integers(1, 9)), data.draw(st.sampled_from([1, 3, 100]))
    codec: Any = data.draw(st.sampled_from(["none", "lz4", "zstd"]))
    store = write_rows(path, written, chunk_rows, chunk_rows * per_shard, codec)
    layout = replace(store.y, direct=data.draw(st.booleans()))
    first = data.draw(st.integers(0, layout.n_chunks - 1))
    count = data.draw(st.integers(1, layout.n_chunks - first))
    out = np.full((count * chunk_rows, *written.shape[1:]), -1, "f4")
    with ChunkReader(layout) as reader:
        rows = reader.read_run(first, count, out, np.empty(reader.scratch_bytes, np.uint8))
        with pytest.raises(IndexError, match="more of"):
            reader.read_run(first, layout.n_chunks - first + 1, out)
    expected = written[first * chunk_rows : (first + count) * chunk_rows]
    assert rows == len(expected)
    np.testing.assert_array_equal(out[:rows], expected)


def write_rows(path, rows, chunk_rows, shard_rows, codec):
    """A store whose y are these rows."""
    with StoreWriter(
        path,
        n_features=1,
        outputs=rows.shape[1] if rows.ndim > 1 else None,
        chunk_rows=chunk_rows,
        shard_rows=shard_rows,
        codec=codec,
    ) as writer:
        writer.write(np.zeros((len(rows), 1)), rows)
        return writer.commit()


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_within_a_run_is_named_as_alone(tmp_path, damage):
    store = write(tmp_path, "none")
    shard = Path(store.X.shard_path(1))
    change, message = DAMAGE[damage]
    blob = change(shard.read_bytes())
    shard.unlink()
    if blob is not None:
        shard.write_bytes(blob)
    with pytest.raises(CorruptChunk, match=message) as caught:
        ChunkReader(store.X).read_run(0, 6, np.empty((24, 3), "f4"))
    assert "X, chunk 2" in str(caught.value) or "X, chunk 3" in str(caught.value)


def test_a_chunk_that_was_kept_is_dropped_when_the_next_one_is_damaged(tmp_path):
    store = write(tmp_path, "none")
    shard = Path(store.X.shard_path(1))
    shard.write_bytes(flip(shard.read_bytes(), 60))
    reader = ChunkReader(store.X)
    out = np.empty((4, 3), "f4")
    for _ in range(2):
        reader.read_rows(8, 12, out)
        np.testing.assert_array_equal(out, ROWS[8:12])
        with pytest.raises(CorruptChunk):
            reader.read_rows(12, 16, out)


@pytest.mark.parametrize("damage", ["cut", "missing", "longer"])
def test_damage_is_found_in_parts_of_chunks_too(tmp_path, damage):
    array = zarr.create_array(
        tmp_path / "a", shape=(20, 3), chunks=(10, 3), dtype="f4", compressors=None
    )
    array[...] = ROWS[:20]
    file = tmp_path / "a" / "c" / "1" / "0"
    if damage == "missing":
        file.unlink()
    else:
        os.truncate(file, 119 if damage == "cut" else 121)
    reader, out = ChunkReader(layout_of(tmp_path / "a")), np.empty((4, 3), "f4")
    reader.prefetch(0, 20)
    reader.read_rows(6, 10, out)
    np.testing.assert_array_equal(out, ROWS[6:10])
    with pytest.raises(CorruptChunk, match=rf"X, chunk 1 \(rows 10 to 19\) in {file}"):
        reader.read_rows(8, 12, out)


def test_a_connection_that_breaks_is_no_damaged_chunk(tmp_path, monkeypatch):
    class Broken:
        def __getitem__(self, rows):
            raise ConnectionResetError("by peer")

    reader = ChunkReader(replace(write(tmp_path, "none").X, direct=False))
    out = np.empty((4, 3), "f4")
    reader.read(0, out)
    monkeypatch.setattr(reader._route, "_array", Broken())
    with pytest.raises(ConnectionResetError):
        reader.read(1, out)


def test_a_file_that_is_cut_while_it_is_open(tmp_path):
    store = write(tmp_path, "none")
    reader = ChunkReader(store.X)
    reader.prefetch(0, 4)
    os.truncate(store.X.shard_path(0), 60)
    with pytest.raises(CorruptChunk, match="its file ends within it"):
        reader.read(1, np.empty((4, 3), "f4"))


def test_a_read_that_comes_in_pieces(tmp_path, monkeypatch):
    store = write(tmp_path, "none")
    whole = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda fd, views, at: whole(fd, [memoryview(views[0]).cast("B")[:7]], at)
    )
    np.testing.assert_array_equal(read_all(store.X), ROWS)


@pytest.mark.parametrize("codec", ["blosc", "zstd"])
@pytest.mark.parametrize(
    "content", [np.zeros(3, "f4"), np.zeros(300, "f4"), None], ids=["short", "long", "garbage"]
)
def test_wrong_content_without_a_checksum(tmp_path, codec, content):
    compressor = BloscCodec(cname="lz4") if codec == "blosc" else ZstdCodec()
    array = zarr.create_array(
        tmp_path / "a", shape=(4, 3), chunks=(4, 3), dtype="f4", compressors=compressor
    )
    array[...] = 1
    encoded = b"garbage, as long as a header is"
    if content is not None:
        encoded = get_codec({"id": codec}).encode(content)
    (tmp_path / "a/c/0/0").write_bytes(encoded)
    with pytest.raises(CorruptChunk, match=r"header|holds|can't be decoded"):
        read_all(layout_of(tmp_path / "a"))


def test_a_zstd_frame_that_states_no_size(tmp_path):
    # Magic, a window of 1 KiB and no size, one last raw block of 48 bytes (RFC 8878).
    frame = bytes.fromhex("28b52ffd 00 00") + (48 << 3 | 1).to_bytes(3, "little")
    array = zarr.create_array(
        tmp_path / "a", shape=(4, 3), chunks=(4, 3), dtype="f4", compressors=ZstdCodec()
    )
    array[...] = 1
    (tmp_path / "a/c/0/0").write_bytes(frame + ROWS[:4].tobytes())
    np.testing.assert_array_equal(read_all(layout_of(tmp_path / "a")), ROWS[:4])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("blob", "message"), [(None, "is missing"), (b"", "is empty"), (b"12345", "can't be decoded")]
)
def test_damage_is_found_through_zarr_python_too(tmp_path, zarr_format, blob, message):
    array = zarr.create_array(
        tmp_path / "a", shape=(10, 4), chunks=(4, 2), dtype="f4", zarr_format=zarr_format
    )
    array[...] = 1
    file = tmp_path / "a" / ("1.1" if zarr_format == 2 else "c/1/1")
    file.unlink()
    if blob is not None:
        file.write_bytes(blob)
    reader = ChunkReader(layout_of(tmp_path / "a"))
    out = np.empty((4, 4), "f4")
    assert reader.read(0, out) == 4
    with pytest.raises(CorruptChunk, match=f"chunk 1 .rows 4 to 7.*{message}"):
        reader.read(1, out)


def test_reading_our_store_needs_no_zarr(tmp_path):
    store = write(tmp_path, "none")
    code = (
        "import sys, numpy as np\n"
        "from ooc_train.store.opening.opener import open_store\n"
        "from ooc_train.store.reading.chunks import ChunkReader\n"
        f"store = open_store({store.path!r})\n"
        "ChunkReader(store.X).read(0, np.empty((4, 3), 'f4'))\n"
        "sys.exit(bool({'zarr', 'numcodecs', 'dask', 'pandas'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
