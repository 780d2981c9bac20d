"""Chunks that another writer left out: refused, or read as the fill value by consent."""

import os
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from ooc_train import cli
from ooc_train.errors import CorruptChunk, InvalidStore, NonFiniteData
from ooc_train.models.classification_models import LogisticModel
from ooc_train.runtime import clients
from ooc_train.solvers.training_settings import Training
from ooc_train.store.jobs.rechunk import rechunk_store
from ooc_train.store.jobs.rewriting_commands import rechunk_command
from ooc_train.store.jobs.shuffle import shuffle_store
from ooc_train.store.jobs.store_records import arrays_of
from ooc_train.store.opening.finding import find_node
from ooc_train.store.opening.opener import open_store
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.store.writing.writer import StoreWriter
from ooc_train.training.loop import train

LEFT_OUT = (
    r"missing.*, most likely as zarr-python .*: open_store\(path, fill_missing=True\) reads such "
    r"chunks as that value\. If there was a chunk, restore that file from a copy, or "
    r"write the store anew$"
)
"""The likely case comes first; what follows a lost file is said once."""


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    monkeypatch.setattr(clients, "inside_another_job", lambda: True)


def plain_zarr(path, *, write_empty=False, zarr_format=3, sharded=False):
    """Rows sorted by label, in chunks of eight: zarr leaves out chunks of nothing but zeros."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((64, 3)).astype("f4")
    X[8:16] = 0
    y = (np.arange(64) >= 32).astype("u1")
    X[:, 0] += y
    weight = np.where(np.arange(64) < 56, 1.0, 0.0)
    group = zarr.create_group(path, zarr_format=zarr_format)
    with zarr.config.set({"array.write_empty_chunks": write_empty}):
        for name, values in (("X", X), ("y", y), ("sample_weight", weight)):
            group.create_array(
                name,
                data=values,
                chunks=(8, *values.shape[1:]),
                shards=(32, *values.shape[1:]) if sharded else None,
            )
    return str(path)


WAYS = pytest.mark.parametrize(
    ("zarr_format", "sharded", "direct"),
    [(2, False, False), (3, False, True), (3, True, True), (3, False, False), (3, True, False)],
)


@pytest.mark.slow
@WAYS
def test_what_was_left_out_trains_by_consent_alone(
    tmp_path, monkeypatch, zarr_format, sharded, direct
):
    if not direct:
        monkeypatch.setattr("ooc_train.store.opening.nodes.direct_layout", lambda *_, **__: None)
    kind = {"zarr_format": zarr_format, "sharded": sharded}
    path = plain_zarr(tmp_path / "a.zarr", **kind)
    whole = plain_zarr(tmp_path / "b.zarr", **kind, write_empty=True)
    model, training = LogisticModel(), Training(max_iter=5)
    assert open_store(path).X.direct == direct
    with pytest.raises(CorruptChunk, match=LEFT_OUT):
        train(model, path, training)
    for name in ("X", "y", "sample_weight"):
        with pytest.raises(CorruptChunk, match=LEFT_OUT):
            open_store(path).read(name)
    filled = open_store(path, fill_missing=True)
    for name in ("X", "y", "sample_weight"):
        np.testing.assert_array_equal(filled.read(name), open_store(whole).read(name))
    found, due = (train(model, data, training)[0].coef for data in (filled, whole))
    np.testing.assert_array_equal(found, due)


def test_verify_names_the_option(tmp_path):
    plain_zarr(tmp_path / "a.zarr")
    result = CliRunner().invoke(cli.app, ["verify", str(tmp_path / "a.zarr")])
    assert result.exit_code == 1
    assert ": --fill-missing reads such chunks" in result.stdout


def test_a_bare_array(tmp_path):
    path = plain_zarr(tmp_path / "a.zarr")
    assert open_store(f"{path}/X", fill_missing=True).read("X").shape == (64, 3)
    with pytest.raises(CorruptChunk, match=LEFT_OUT):
        open_store(f"{path}/X").read("X")


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_way_of_reading_fills(tmp_path_factory, data):
    """Chunks, runs and rows, by both routes, of whatever is left."""
    dtype = np.dtype(data.draw(st.sampled_from(["bool", "u1", "i4", "f2", "f4", "f8"])))
    fills = (0.0, -1.5, np.inf) if dtype.kind == "f" else (0, 1)
    fill = np.array(data.draw(st.sampled_from(fills)), dtype).item()
    shards = data.draw(st.sampled_from([None, (6, 4)]))
    codec = data.draw(st.sampled_from([None, "auto"]))
    written = np.random.default_rng(0).integers(0, 2, (20, 4)).astype(dtype)
    for chunk in range(7):
        if data.draw(st.booleans()):
            written[3 * chunk : 3 * (chunk + 1)] = fill
    path = tmp_path_factory.mktemp("array")
    zarr.create_array(
        path, data=written, chunks=(3, 4), shards=shards, fill_value=fill, compressors=codec
    )
    layout = find_node(str(path)).layout("X", fill_missing=True)
    assert layout.direct
    for route in (layout, replace(layout, direct=False)):
        with ChunkReader(route) as reader:
            rows = np.empty((20, 4), dtype)
            reader.read_rows(0, 20, rows)
            np.testing.assert_array_equal(rows, written)
            reader.read_rows(4, 17, rows[:13])
            np.testing.assert_array_equal(rows[:13], written[4:17])
            run = np.empty((21, 4), dtype)
            scratch = np.empty(reader.scratch_bytes, np.uint8)
            assert reader.read_run(0, 7, run, scratch) == 20
            np.testing.assert_array_equal(run[:20], written)
            reader.prefetch(0, 20)
    # Without consent each chunk is read as it was written, or refused.
    for route in (layout, replace(layout, direct=False)):
        with ChunkReader(replace(route, fill_value=None)) as reader:
            out = np.empty((3, 4), dtype)
            for i in range(7):
                rows = written[3 * i : 3 * (i + 1)]
                try:
                    count = reader.read(i, out, np.empty(reader.scratch_bytes, np.uint8))
                except CorruptChunk:
                    assert (rows == fill).all()
                else:
                    np.testing.assert_array_equal(out[:count], rows)
                    # zarr-python leaves out every chunk of nothing but the fill value.
                    assert not (len(rows) == 3 and (rows == fill).all())


@pytest.mark.parametrize("nested", [False, True])
def test_chunks_left_out_of_shards_that_only_zarr_reads(tmp_path, nested):
    """Chunks over some columns, whose index lies in front; or shards of shards."""
    values = np.arange(96, dtype="f8").reshape(12, 8) + 1
    values[4:6, 4:] = 0
    inner: list[Any] = (
        [ShardingCodec(chunk_shape=(2, 2))] if nested else [BytesCodec(), Crc32cCodec()]
    )
    array = zarr.create(
        shape=values.shape,
        dtype="f8",
        chunks=(12, 8),
        store=str(tmp_path / "x"),
        zarr_format=3,
        codecs=[ShardingCodec(chunk_shape=(2, 4), codecs=inner, index_location="start")],
    )
    array[...] = values
    store = open_store(tmp_path / "x")
    assert not store.X.direct
    np.testing.assert_array_equal(store.read("X", 0, 4), values[:4])
    with pytest.raises(CorruptChunk, match=rf"chunk 2 \(rows 4 to 5\).*shard.*{LEFT_OUT}"):
        store.read("X")
    np.testing.assert_array_equal(open_store(tmp_path / "x", fill_missing=True).read("X"), values)


def test_zeros_that_were_written_are_no_missing_chunk(tmp_path):
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.create_array(
            tmp_path / "x", data=np.zeros((12, 8)), chunks=(2, 4), shards=(6, 8)
        )  # split by columns: zarr-python reads it
    assert not open_store(tmp_path / "x").read("X").any()


def test_a_fill_value_of_nan_is_no_number_to_learn_from(tmp_path):
    group = zarr.create_group(tmp_path / "a")
    X = np.ones((16, 2))
    X[8:] = np.nan
    group.create_array("X", data=X, chunks=(8, 2), fill_value=np.nan)
    group.create_array("y", data=np.arange(16) % 2 + 1, chunks=(8,))
    with pytest.raises(NonFiniteData, match="row 8 has nan in column 0"):
        train(LogisticModel(), open_store(tmp_path / "a", fill_missing=True))


def test_an_array_without_a_fill_value(tmp_path):
    group = zarr.create_group(tmp_path / "a", zarr_format=2)
    group.create_array("X", data=np.ones((16, 2)), chunks=(8, 2), fill_value=None)
    os.remove(tmp_path / "a/X/1.0")
    with pytest.raises(CorruptChunk, match="its fill_value is null, so its values are unknown"):
        open_store(tmp_path / "a", fill_missing=True).read("X")


def test_a_fill_value_that_is_none(tmp_path):
    zarr.create_array(tmp_path / "x", data=np.ones((4, 2), "u1"), fill_value=0)
    for value in ("many", 1000):
        file = tmp_path / "x/zarr.json"
        file.write_text(file.read_text().replace('"fill_value": 0', f'"fill_value": "{value}"'))
        with pytest.raises(InvalidStore, match=r"fill_value .* is no uint8"):
            open_store(tmp_path / "x", fill_missing=True)
        assert open_store(tmp_path / "x").read("X").all()


def test_of_a_store_of_ours_nothing_is_filled(tmp_path):
    with StoreWriter(tmp_path / "a.zarr", n_features=2, chunk_rows=4, shard_rows=8) as writer:
        writer.write(np.ones((16, 2), "f4"), np.arange(16.0))
        writer.commit()
    shutil.rmtree(tmp_path / "a.zarr/X/c/1")
    with pytest.raises(CorruptChunk, match="its file is missing"):
        open_store(tmp_path / "a.zarr", fill_missing=True).read("X")


def test_written_anew(tmp_path):
    path = plain_zarr(tmp_path / "a.zarr")
    filled = open_store(path, fill_missing=True)
    makers: list[Any] = [rechunk_store, shuffle_store]
    for i, make in enumerate(makers):
        with pytest.raises(CorruptChunk, match=LEFT_OUT):
            make(path, tmp_path / f"{i}.zarr", memory_ceiling="1GiB")
        made, _ = make(filled, tmp_path / f"{i}.zarr", memory_ceiling="1GiB")
        assert sorted(made.read("y")) == sorted(filled.read("y"))
        assert made.read("X").sum() == filled.read("X").sum()
    assert rechunk_command(path, arrays_of(filled)).endswith(" --fill-missing")
    assert "--fill-missing" not in rechunk_command(path, arrays_of(open_store(path)))
