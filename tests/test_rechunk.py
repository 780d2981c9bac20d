"""Rechunking: the same rows in the same order, whatever they were and are cut into."""

import json
import os
import re
import shlex
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_train.errors import CeilingExceeded, CorruptChunk, NonFiniteData, OutputExists
from ooc_train.store.format import arrays
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.jobs.rechunk import rechunk_store
from ooc_train.store.jobs.shuffle import shuffle_store
from ooc_train.store.jobs.store_records import read_records, record_dtype
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.store.opening.opener import open_store
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.store.writing.writer import StoreWriter
from tests.test_writer import contents, rows_of

N = 700
RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, (N, 4)).astype("f4")
CLASS = RNG.integers(0, 3, N)
WEIGHT = RNG.random(N)
ID = RNG.permutation(10 * N)[:N] - N
MIB = 2**20


def write(path, **more):
    with StoreWriter(
        path,
        n_features=4,
        chunk_rows=64,
        shard_rows=128,
        classes=["x", "y", "z"],
        sample_weight=True,
        row_id=True,
        shuffled=7,
        feature_names="abcd",
        attributes={"from": "here"},
        recipe={"columns": ["a"]},
        **more,
    ) as writer:
        writer.write(X, CLASS, WEIGHT, ID)
        return writer.commit()


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_all_that_is_known_stays(tmp_path, codec):
    source = write(tmp_path / "a", codec=codec)
    made, memory = rechunk_store(source, tmp_path / "b", chunk_rows=100)
    for role, values in {"X": X, "y": CLASS, "sample_weight": WEIGHT, "row_id": ID}.items():
        layout = getattr(made, role)
        assert layout.dtype == getattr(source, role).dtype
        np.testing.assert_array_equal(rows_of(layout), values)
        assert (layout.chunk_rows, layout.codec) == (100, source.X.codec)
    assert (made.feature_names, made.classes) == (tuple("abcd"), ("x", "y", "z"))
    assert made.class_counts == source.class_counts
    assert made.statistics is not None
    assert source.statistics is not None
    assert made.statistics.to_json() == source.statistics.to_json()
    assert dict(made.attributes) == {"from": "here"}
    assert made.recipe == {"columns": ["a"]}
    # Rows in random order are in random order however they are cut.
    assert made.shuffled == 7
    assert memory.measured <= memory.projected <= memory.ceiling
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


ROWS = st.integers(1, 60)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 90),
    features=st.integers(1, 5),
    outputs=st.sampled_from([None, 0, 2]),
    before=st.sampled_from(["bool", "int8", "uint16", "int64", "float16", "float32", "float64"]),
    after=st.sampled_from([None, "float32", "float64"]),
    chunks=st.tuples(ROWS, ROWS, ROWS),
    codecs=st.tuples(*2 * [st.sampled_from(["none", "lz4", "zstd"])]),
    writer=st.sampled_from(["ours", "compressed", "raw", "v2"]),
    chunk_rows=st.none() | ROWS,
)
def test_every_row_and_value_stays(
    tmp_path_factory, n, features, outputs, before, after, chunks, codecs, writer, chunk_rows
):
    folder = tmp_path_factory.mktemp("rechunk")
    rng = np.random.default_rng(n)
    values = rng.integers(0, 2, (n, features)) if before == "bool" else rng.normal(
        40, 20, (n, features)
    )  # fmt: skip
    values = np.abs(values).astype(before)
    shape = () if not outputs else (outputs,)
    y = None if outputs is None else rng.normal(size=(n, *shape)).astype("f4")
    if writer == "ours":
        with StoreWriter(
            folder / "a",
            n_features=features,
            dtype=before,
            outputs=outputs or None,
            y_dtype=None if y is None else y.dtype,
            chunk_rows=chunks[0],
            shard_rows=2 * chunks[0],
            codec=codecs[0],
        ) as writer:
            writer.write(values, y)
            writer.commit()
    else:
        group = zarr.open_group(folder / "a", mode="w", zarr_format=2 if writer == "v2" else 3)
        compression: Any = {"compressors": None} if writer == "raw" else {}
        # zarr-python leaves out chunks of fill values by default.
        config: Any = {"write_empty_chunks": True}
        for role, of, rows in (("X", values, chunks[1]), ("y", y, chunks[2])):
            if of is not None:
                cut = (min(rows, n), *of.shape[1:])
                kept = {"shape": of.shape, "chunks": cut, "dtype": of.dtype, "config": config}
                group.create_array(role, **kept, **compression)[...] = of
    codec = codecs[1] if n % 2 else None
    made, _ = rechunk_store(
        folder / "a", folder / "b", chunk_rows=chunk_rows, codec=codec, dtype=after
    )
    dtype = np.dtype(after or before)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(rows_of(made.X), values.astype(dtype))
    assert made.dtype == dtype
    assert made.chunk_rows == chunk_rows or chunk_rows is None
    if chunk_rows is None:
        assert made.chunk_rows == default_chunk_rows(features, dtype, len(values))
    if codec is not None:
        assert made.X.codec == {"none": "raw", "lz4": "blosc", "zstd": "zstd"}[codec]
    assert (made.y is None) == (y is None)
    if made.y is not None:
        np.testing.assert_array_equal(rows_of(made.y), y)
    assert made.statistics is not None
    np.testing.assert_allclose(
        made.statistics.mean, values.astype(dtype).astype("f8").mean(axis=0), rtol=1e-9, atol=1e-9
    )
    assert made.row_id is None


def test_there_and_back_gives_the_same_bytes(tmp_path):
    write(tmp_path / "a")
    rechunk_store(tmp_path / "a", tmp_path / "b", chunk_rows=33, codec="zstd")
    made, _ = rechunk_store(tmp_path / "b", tmp_path / "c", chunk_rows=64, codec="none")
    # Its own shards are of 128 rows.
    assert made.shard_rows == 64 * 256
    for role in ("X", "y", "sample_weight", "row_id"):
        chunks = []
        for store in (open_store(tmp_path / "a"), made):
            with ChunkReader(getattr(store, role)) as reader:
                out = np.zeros((64, *getattr(store, role).row_shape), getattr(store, role).dtype)
                chunks.append([(reader.read(i, out), out.tobytes()) for i in range(store.n_chunks)])
        assert chunks[0] == chunks[1]


@pytest.mark.parametrize(
    ("values", "dtype", "why"),
    [
        (
            1_700_000_000 + np.arange(1000),
            "f4",
            "'a' has numbers such as 1700000001, which becomes",
        ),
        (
            1e6 + np.arange(1000) / 1e3,
            "f4",
            r"'a' goes from 1000000 to 1000000\.999, where float32",
        ),
        (2**53 + np.arange(1000), "f8", "'a' has numbers such as 9007199254740993, which becomes"),
        (np.arange(1000) / 7, "f4", None),
        (np.arange(1000), "f4", None),
        (1_700_000_000 + np.arange(1000), "f8", None),
    ],
)
def test_numbers_that_become_the_same_are_told(tmp_path, values, dtype, why):
    names = ("a", "b")
    X = np.column_stack([values, np.arange(1000)])
    with StoreWriter(
        tmp_path / "a.zarr", n_features=2, dtype=X.dtype, feature_names=names
    ) as writer:
        writer.write(X)
        writer.commit()
    told: list[str] = []
    made, _ = rechunk_store(tmp_path / "a.zarr", tmp_path / "b.zarr", dtype=dtype, warn=told.append)
    np.testing.assert_array_equal(rows_of(made.X), X.astype(dtype))
    assert len(told) == (why is not None)
    if why is not None:
        assert re.match(f"column {why}.*: numbers that differ may become the same", told[0])
        with pytest.warns(UserWarning, match="may become the same"):
            rechunk_store(tmp_path / "a.zarr", tmp_path / "c.zarr", dtype=dtype)
    assert rechunk_store(tmp_path / "a.zarr", tmp_path / "d.zarr", warn=told.append)
    assert len(told) == (why is not None)


def test_rounded_values_have_statistics_of_their_own(tmp_path):
    with StoreWriter(tmp_path / "a", n_features=2, dtype="float64") as writer:
        writer.write(np.array([[1 + 1e-12, 5.0], [3.0, 7.0]]))
        source = writer.commit()
    made, _ = rechunk_store(source, tmp_path / "b", dtype="float32")
    assert source.statistics is not None
    assert made.statistics is not None
    assert source.statistics.minimum[0] > 1
    assert made.statistics.minimum[0] == 1


@pytest.mark.parametrize(
    ("value", "dtype", "error"),
    [
        (1e300, "float32", NonFiniteData),
        (0.5, "int16", ValueError),
        (70000.0, "int16", ValueError),
    ],
)
def test_values_that_a_type_can_not_hold_are_refused(tmp_path, value, dtype, error):
    with StoreWriter(tmp_path / "a", n_features=2, dtype="float64") as writer:
        writer.write(np.array([[1, 2], [3, value]]))
        writer.commit()
    with pytest.raises(error, match=r"X has .* in row 1"):
        rechunk_store(tmp_path / "a", tmp_path / "b", dtype=dtype)
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "wrong", [{"chunk_rows": 0}, {"codec": "gzip"}, {"dtype": "text"}, {"dtype": "complex128"}]
)
def test_settings_that_can_not_be_used(tmp_path, wrong):
    write(tmp_path / "a")
    with pytest.raises(ValueError, match=next(iter(wrong))):
        rechunk_store(tmp_path / "a", tmp_path / "b", **wrong)
    assert os.listdir(tmp_path) == ["a"]


def test_what_others_packed_is_packed_where_it_pays(tmp_path):
    group = zarr.open_group(tmp_path / "a", mode="w")
    group.create_array("X", data=(X > 3).astype("f4"), chunks=(50, 4))
    group = zarr.open_group(tmp_path / "b", mode="w")
    group.create_array("X", data=RNG.integers(0, 2**16, (500, 6)).astype("u2"), chunks=(50, 6))
    found = [rechunk_store(tmp_path / name, tmp_path / f"{name}2")[0].X.codec for name in "ab"]
    assert found == ["blosc", "raw"]


def test_one_array_of_another_writer(tmp_path):
    zarr.create_array(tmp_path / "a", data=X, chunks=(30, 3))
    made, _ = rechunk_store(tmp_path / "a", tmp_path / "b")
    np.testing.assert_array_equal(rows_of(made.X), X)
    assert (made.y, made.generation, made.shuffled) == (None, 1, None)


def test_a_store_is_replaced_only_on_purpose_and_only_once_the_new_one_is_whole(tmp_path):
    source = write(tmp_path / "a")
    write(tmp_path / "b", codec="zstd")
    before = contents(tmp_path / "b")
    (tmp_path / "a" / "X" / "c" / "1" / "0").write_bytes(b"")
    with pytest.raises(OutputExists, match="choose another name, or replace it by overwrite=True"):
        rechunk_store(source, tmp_path / "b")
    with pytest.raises(CorruptChunk):
        rechunk_store(source, tmp_path / "b", overwrite=True)
    assert contents(tmp_path / "b") == before
    with pytest.raises(ValueError, match="the store that is read; write to another place"):
        rechunk_store(source, tmp_path / "a", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    rechunk_store(tmp_path / "b", tmp_path / "c", chunk_rows=9)
    made, _ = rechunk_store(tmp_path / "c", tmp_path / "b", overwrite=True)
    assert made.chunk_rows == default_chunk_rows(4, "f4", N)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


def test_progress_counts_every_row_once(tmp_path):
    heard: list[tuple[str, int, float]] = []
    rechunk_store(write(tmp_path / "a"), tmp_path / "b", progress=lambda *at: heard.append(at))
    assert heard == sorted(heard)
    assert (heard[0], heard[-1]) == (("writing", 0, 0.0), ("writing", N, 1.0))


# ------------------------------------------------------------------------------ large chunks


def large(path, *, raw=True, crc=False, rows=60_000, features=40):
    """A store of another writer, or of ours, whose X and y are one chunk each."""
    rng = np.random.default_rng(1)
    values, y = rng.normal(size=(rows, features)).astype("f4"), rng.integers(0, 2, rows)
    if crc:
        with StoreWriter(path, n_features=features, chunk_rows=rows, classes=[0, 1]) as writer:
            writer.write(values, y)
            writer.commit()
        return values
    group = zarr.open_group(path, mode="w")
    compression: Any = {"compressors": None} if raw else {}
    group.create_array("X", data=values, chunks=values.shape, **compression)
    group.create_array("y", data=y, chunks=(rows,), **compression)
    return values


@pytest.mark.parametrize("crc", [False, True])
def test_raw_chunks_need_no_room_for_a_whole_one(tmp_path, crc):
    values = large(tmp_path / "a", crc=crc)
    chunk = values.nbytes
    with ChunkReader(open_store(tmp_path / "a").X) as reader:
        assert (reader.in_parts, reader.cache_bytes) == (True, MIB if crc else 0)
    jobs: Any = ((rechunk_store, "b"), (shuffle_store, "c"))
    for job, out in jobs:
        # Of the writer's own chunk, shuffling a store of ours keeps the size.
        settings: Any = {"chunk_rows": 2048} if job is rechunk_store else {}
        made, memory = job(tmp_path / "a", tmp_path / out, **settings)
        assert memory.terms["reading"] < chunk / 1.5 + 3 * MIB * crc
        assert memory.measured <= memory.projected
        if job is rechunk_store:
            np.testing.assert_array_equal(rows_of(made.X), values)
        else:
            np.testing.assert_array_equal(rows_of(made.X), values[rows_of(made.row_id)])


def test_a_large_checked_chunk_is_read_through_once_and_damage_is_found_first(
    tmp_path, monkeypatch
):
    values = large(tmp_path / "a", crc=True)
    store, reads, real = open_store(tmp_path / "a"), [], os.preadv

    def counted(fd, buffers, offset):
        reads.append(sum(memoryview(buffer).nbytes for buffer in buffers))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", counted)
    with ChunkReader(store.X) as reader:
        out = np.empty((7, 40), "f4")
        for start in (0, 59_993, 3):
            reader.read_rows(start, start + 7, out)
            np.testing.assert_array_equal(out, values[start : start + 7])
    assert sum(reads) < values.nbytes + 10_000
    assert max(reads) <= MIB
    # One bit, far from the rows that are asked for.
    path = tmp_path / "a" / "X" / "c" / "0" / "0"
    blob = bytearray(path.read_bytes())
    blob[values.nbytes - 5] ^= 1
    path.write_bytes(blob)
    with ChunkReader(store.X) as reader:
        for _ in range(2):
            with pytest.raises(CorruptChunk, match=r"X, chunk 0 .*checksum"):
                reader.read_rows(0, 7, out)


def test_the_room_of_a_piece_is_all_that_reading_takes(tmp_path, monkeypatch):
    """Of any mixture of arrays: those in parts through a buffer, the others through their chunk."""
    monkeypatch.setattr(arrays, "_LARGE_CHUNK_BYTES", 100)
    write(tmp_path / "a")
    group = zarr.open_group(tmp_path / "b", mode="w")
    group.create_array("X", data=X, chunks=(50, 4), compressors=None)
    group.create_array("y", data=CLASS, chunks=(33,))
    group.create_array("sample_weight", data=WEIGHT, chunks=(N,), compressors=None)
    for name in "ab":
        source = open_store(tmp_path / name)
        record = record_dtype(source)
        found = np.concatenate([part.copy() for part in read_records(source, record)])
        np.testing.assert_array_equal(found["X"], X)
        np.testing.assert_array_equal(found["y"], CLASS)
        np.testing.assert_array_equal(found["sample_weight"], WEIGHT)
        np.testing.assert_array_equal(found["row"], np.arange(N))


def test_a_compressed_chunk_beyond_the_ceiling_is_refused_before_it_is_read(tmp_path):
    large(tmp_path / "a", raw=False)
    (tmp_path / "a" / "X" / "c" / "0" / "0").write_bytes(b"")
    with pytest.raises(CeilingExceeded, match=r"whole decoded chunk of each array, 9\.61 MiB"):
        rechunk_store(tmp_path / "a", tmp_path / "b", memory_ceiling="24MiB")
    with pytest.raises(CeilingExceeded, match="use smaller chunks"):
        rechunk_store(tmp_path / "a", tmp_path / "b", memory_ceiling="24MiB", chunk_rows=30_000)
    assert os.listdir(tmp_path) == ["a"]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "ooc_train", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_command_that_a_refusal_advises_does_what_it_says(tmp_path):
    path = tmp_path / "my rows.zarr"
    large(path, raw=False, rows=150_000, features=100)
    train = ("--memory-ceiling", "300MiB", "--workers", "1", "--dashboard-address", "127.0.0.1:0")
    refused = run("train", str(path), "--solver", "lbfgs", "--max-iter", "1", *train, "--quiet")
    assert refused.returncode == 1
    first = refused.stderr.splitlines()[0]
    assert "whose chunks of X take 57.2 MiB each" in first
    command = shlex.split(first.partition("ooc-train ")[2])
    done = run(*command, "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    memory = json.loads(done.stdout)["memory"]
    assert memory["measured"] <= memory["projected"] <= memory["ceiling"]
    made = str(tmp_path / "my rows.rechunked.zarr")
    trained = run("plan", made, "--solver", "lbfgs", *train, "--quiet")
    assert "buffers" in trained.stdout
    assert open_store(made).chunk_bytes < MIB


MEMORY = """
import sys
from ooc_train.store.jobs.rechunk import rechunk_store
source, out, ceiling = sys.argv[1:]
_, report = rechunk_store(source, out, memory_ceiling=ceiling, codec="lz4")
print(report.ceiling, report.projected, report.measured)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak can't be reset")
@pytest.mark.parametrize("chunk_rows", [None, 400_000])
def test_what_is_held_stays_under_the_ceiling(tmp_path, chunk_rows):
    # 160 MB, in chunks of 0.8 MiB or in one with a checksum.
    make_data(tmp_path / "a", rows=400_000, features=100, chunk_rows=chunk_rows)
    arguments = [str(tmp_path / "a"), str(tmp_path / "b"), "32MiB"]
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, *arguments], capture_output=True, text=True, check=True
    )
    ceiling, projected, measured = (int(value) for value in result.stdout.split())
    assert measured <= projected <= ceiling == 2**25
