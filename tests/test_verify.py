"""`verify_store`: each bad chunk is named, and no good one."""

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from ooc_train import CeilingExceeded, StoreWriter, cli, make_data, verify_store
from ooc_train.store.opening.opener import open_store
from tests.sealing import metadata_of, put_metadata, reseal

CLASSES = (3.0, 7.0)


@pytest.fixture
def store(tmp_path):
    """A store of 10 chunks of 7 rows, in shards of 2 chunks."""
    rng, path = np.random.default_rng(0), tmp_path / "a.zarr"
    with StoreWriter(
        path, n_features=3, chunk_rows=7, shard_rows=14, classes=CLASSES, sample_weight=True
    ) as writer:
        writer.write(rng.normal(size=(68, 3)), rng.integers(0, 2, 68), np.ones(68))
        writer.commit()
    return path


def shard(path, array, number):
    for folder, _, files in os.walk(path / array):
        for name in files:
            place = os.path.relpath(os.path.join(folder, name), path / array)
            if place.replace("c/", "").split("/")[0] == str(number):
                return path / array / place
    raise FileNotFoundError(number)


def flip(file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(bytes(data))


def test_a_store_that_is_whole(store):
    seen = []
    found = verify_store(store, progress=lambda *given: seen.append(given))
    assert found.whole
    assert found.damages == ()
    assert found.chunks == 30
    assert found.decoded_bytes == open_store(store).total_bytes
    assert seen[-1] == ("verifying", 68, 1.0)
    assert found.memory.measured <= found.memory.projected <= found.memory.ceiling


def test_bad_chunks_of_every_array_are_named_and_no_others(store):
    flip(shard(store, "X", 1), 5)  # the first chunk of the shard, chunk 2
    shard(store, "y", 3).unlink()
    file = shard(store, "sample_weight", 4)
    file.write_bytes(file.read_bytes()[:-3])
    found = verify_store(str(store))
    assert [(each.array, each.chunk) for each in found.damages] == [
        ("X", 2), ("y", 6), ("y", 7), ("sample_weight", 8), ("sample_weight", 9),
    ]  # fmt: skip
    first = found.damages[0]
    assert (first.first_row, first.end_row) == (14, 21)
    assert "checksum" in first.why
    assert found.damages[-1].end_row == 68


def test_values_that_cannot_be_used_are_named(tmp_path):
    group = zarr.open_group(tmp_path / "a", mode="w")
    X, y, weight = np.ones((50, 2), "f4"), np.arange(50) % 2.0, np.ones(50)
    X[33, 1], y[21], weight[9] = np.nan, np.inf, -1.0
    for name, values in (("X", X), ("y", y), ("sample_weight", weight)):
        group.create_array(name, data=values, chunks=(10, *values.shape[1:]))
    found = verify_store(tmp_path / "a")
    assert [(each.array, each.chunk, each.why) for each in found.damages] == [
        ("X", 3, "row 33 holds NaN in column 1 of X"),
        ("y", 2, "row 21 holds infinity in y"),
        ("sample_weight", 0, "row 9 has the weight -1; weights are >= 0"),
    ]


@pytest.mark.slow
def test_missing_values_are_named_with_the_command_that_fills_them(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    X = np.ones((50, 2), "f4")
    X[33, 1] = np.nan
    group.create_array("data", data=X, chunks=(10, 2))
    group.create_array("labels", data=np.arange(50.0), chunks=(10,))
    names = ("--x", "data", "--y", "labels")
    ran = CliRunner().invoke(cli.app, ["verify", str(tmp_path / "a.zarr"), *names, "--quiet"])
    lines = ran.stdout.splitlines()
    assert lines[0] == "row 33 holds NaN in column 1 of X"
    about, _, proposed = lines[1].partition(": ooc-train ")
    assert about == "drop or fill missing values, --missing drop, mean or median"
    command = [sys.executable, "-m", "ooc_train", *shlex.split(proposed)]
    subprocess.run(command, check=True, capture_output=True)
    assert verify_store(tmp_path / "a.rechunked.zarr").whole


def test_a_label_of_no_class_is_named(store):
    metadata = metadata_of(store)
    metadata["attributes"]["classes"], metadata["attributes"]["class_counts"] = [3.0], [68]
    put_metadata(store, metadata)
    reseal(store)
    found = verify_store(store)
    assert {each.array for each in found.damages} == {"y"}
    assert found.damages[0].why.endswith("and the store has 1 class")


def test_a_large_raw_chunk_is_read_in_parts_under_the_ceiling(tmp_path):
    group = zarr.open_group(tmp_path / "a", mode="w")
    X = group.create_array(
        "X", shape=(200_000, 100), chunks=(200_000, 100), dtype="f4", compressors=None
    )
    rows = np.ones((200_000, 100), "f4")
    rows[150_000, 7] = np.inf
    X[:] = rows
    del rows
    group.create_array("y", data=np.ones(200_000), chunks=(50_000,))
    found = verify_store(tmp_path / "a", memory_ceiling="60MiB")
    assert [each.why for each in found.damages] == ["row 150000 holds infinity in column 7 of X"]
    assert found.memory.measured <= found.memory.projected <= found.memory.ceiling
    with pytest.raises(CeilingExceeded, match="reading"):
        verify_store(tmp_path / "a", memory_ceiling="2MiB")


def test_the_command_names_them_and_fails(tmp_path):
    path = tmp_path / "a.zarr"
    make_data(path, rows=3_000, features=4, chunk_rows=10)
    ran = CliRunner().invoke(cli.app, ["verify", str(path), "--quiet"])
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert "600 chunks" in ran.stdout
    assert "all are whole" in ran.stdout
    for folder, _, files in os.walk(path / "X"):
        for name in files:
            if name != "zarr.json":
                os.truncate(os.path.join(folder, name), 100)
    ran = CliRunner().invoke(cli.app, ["verify", str(path), "--quiet"])
    assert ran.exit_code == 1
    assert ran.stdout.count("X, chunk ") == 100
    assert "and 200 more; --json has all" in ran.stdout
    assert "300 are bad" in ran.stdout
    ran = CliRunner().invoke(cli.app, ["verify", str(path), "--quiet", "--json"])
    assert len(json.loads(ran.stdout)["damages"]) == 300


@pytest.mark.parametrize(
    ("rows", "damaged", "said"),
    [(20, 0, "1 chunk (160 B): it is whole"), (20, 1, "1 is bad"), (40, 2, "2 are bad")],
)
def test_the_command_counts_in_words(tmp_path, rows, damaged, said):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    values = np.ones((rows, 2), "f4")
    group.create_array("X", data=values, chunks=(20, 2))
    for chunk in range(damaged):
        (tmp_path / "a.zarr" / "X" / "c" / str(chunk) / "0").unlink()
    ran = CliRunner().invoke(cli.app, ["verify", str(tmp_path / "a.zarr")])
    assert said in ran.stdout
