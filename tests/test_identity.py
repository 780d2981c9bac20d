"""Stores that are not what was written: shards of others, metadata that changed, other commits."""

import copy
import json
import os
import shutil
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_train.errors import CorruptChunk, InvalidStore
from ooc_train.inference.predict import predict_store
from ooc_train.models.classification_models import LogisticModel
from ooc_train.runtime import clients
from ooc_train.solvers.training_settings import Training
from ooc_train.store.format import checksums, identity
from ooc_train.store.jobs.rechunk import rechunk_store
from ooc_train.store.jobs.shuffle import shuffle_store
from ooc_train.store.opening.opener import open_store
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.store.writing.writer import StoreWriter
from ooc_train.training.loop import train
from tests.sealing import as_earlier_release, checksums_off, metadata_of, put_metadata

ROWS, CHUNK, SHARD = 36, 4, 12
ROLES = ("X", "y", "sample_weight", "row_id")
LOGISTIC, TRAINING = LogisticModel(), Training(max_iter=3, random_state=0)


def write(path, codec="none", seed=0, rows=ROWS, **settings):
    """A store of ours with all arrays, in three shards each."""
    rng = np.random.default_rng(seed)
    X = rng.normal(3, 2, (rows, 3)).astype("f4")
    with StoreWriter(
        path,
        n_features=3,
        feature_names=("a", "b", "c"),
        classes=("no", "yes"),
        chunk_rows=CHUNK,
        shard_rows=SHARD,
        codec=codec,
        sample_weight=True,
        row_id=True,
        **settings,
    ) as writer:
        writer.write(X, rng.integers(0, 2, rows), rng.random(rows), np.arange(rows))
        return writer.commit()


def shards_of(store, role):
    layout = getattr(store, role)
    return [Path(layout.shard_path(i)) for i in range(layout.n_shards)]


@pytest.fixture
def inline(monkeypatch):
    monkeypatch.setattr(clients, "inside_another_job", lambda: True)


# Shards


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("move", ["swap", "copy", "cycle"])
def test_shards_that_were_moved_are_refused(tmp_path, codec, role, move):
    store = write(tmp_path / "a", codec)
    before = store.read(role)
    files = shards_of(store, role)
    blobs = [file.read_bytes() for file in files]
    taken = {"swap": (1, 0, 2), "copy": (0, 0, 2), "cycle": (1, 2, 0)}[move]
    for file, i in zip(files, taken, strict=True):
        file.write_bytes(blobs[i])
    reader = ChunkReader(getattr(open_store(store.path), role))
    rows = np.empty((SHARD, *before.shape[1:]), before.dtype)
    for shard, i in enumerate(taken):
        start = shard * SHARD
        if shard == i:
            reader.read_rows(start, start + SHARD, rows)
            np.testing.assert_array_equal(rows, before[start : start + SHARD])
            continue
        with pytest.raises(CorruptChunk, match=f"is shard {i}, expected shard {shard}") as e:
            reader.read_rows(start, start + SHARD, rows)
        assert f"{role}, chunk {start // CHUNK} (rows {start}" in str(e.value)
        assert "\n" not in str(e.value)


def test_shards_of_another_array_store_or_commit_are_refused(tmp_path):
    store = write(tmp_path / "a")
    ids, weights = shards_of(store, "row_id")[1], shards_of(store, "sample_weight")[1]
    kept = ids.read_bytes()
    shutil.copy(weights, ids)
    with pytest.raises(CorruptChunk, match="belongs to another array of the store"):
        open_store(store.path).read("row_id")
    ids.write_bytes(kept)
    assert store.read("row_id").tolist() == list(range(ROWS))
    # The same rows, even: only the commit is another.
    other = write(tmp_path / "b")
    shutil.copy(shards_of(other, "X")[1], shards_of(store, "X")[1])
    with pytest.raises(CorruptChunk, match=f"another store or commit .{other.store_id}, expected"):
        open_store(store.path).read("X")


def test_an_identity_names_store_array_and_shard():
    ids = [identity.new_store_id() for _ in range(2)]
    every = [
        identity.shard_identity(of, name, shard)
        for of in ids
        for name in ("X", "y", "prediction", "Zellgröße")
        for shard in (0, 1, 2**40)
    ]
    assert len(set(every)) == len(every) == 24
    assert {len(one) for one in every} == {identity.IDENTITY_BYTES}
    for one in every:
        for bit in range(8 * len(one)):
            flipped = bytearray(one)
            flipped[bit // 8] ^= 1 << bit % 8
            assert identity.wrong_identity(flipped, ids[0], "X", 0) is not None
    assert identity.wrong_identity(b"", ids[0], "X", 0) is not None


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_zarr_python_reads_what_we_write(tmp_path, codec):
    store = write(tmp_path / "a", codec, rows=34)
    group = zarr.open_group(store.path, mode="r")
    for role in ROLES:
        array: Any = group[role]
        np.testing.assert_array_equal(array[:], store.read(role))
        np.testing.assert_array_equal(array[5:23], store.read(role, 5, 23))
        assert len(shards_of(store, role)) == 3


def test_a_chunk_that_zarr_python_wrote_is_refused_until_checksums_are_off(tmp_path):
    store = write(tmp_path / "a")
    before = store.read("X")
    zarr.open_array(store.path, path="X")[13] = 7
    with pytest.raises(CorruptChunk, match=r"another program wrote it .*'checksums' .* to 'off'"):
        open_store(store.path).read("X")
    zarr.open_group(store.path).attrs["checksums"] = "off"
    before[13] = 7
    np.testing.assert_array_equal(open_store(store.path).read("X"), before)


# Metadata


def paths_in(value, path=()):
    """Paths of all values in a JSON value, that value included."""
    yield path
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths_in(child, (*path, key))


def test_every_changed_value_of_the_manifest_is_refused(tmp_path):
    """But for keys that nothing reads, which Zarr gives to the group itself."""
    store = write(tmp_path / "a")
    kept = metadata_of(store.path)
    places = [path for path in paths_in(kept) if path[:1] == ("attributes",) and len(path) > 1]
    assert len(places) > 40
    for path in places:
        for change in ("other", "gone", "renamed"):
            metadata = copy.deepcopy(kept)
            *around, key = path
            parent = metadata
            for step in around:
                parent = parent[step]
            value = parent[key]
            if change == "other":
                parent[key] = other_than(value)
            elif change == "gone":
                del parent[key]
            elif isinstance(parent, dict):
                parent[f"{key}x"] = parent.pop(key)
            else:
                continue
            put_metadata(store.path, metadata)
            if path == ("attributes", "format_version") and change == "other":
                match = "update ooc_train"
            else:
                match = r"zarr.json is not what ooc_train wrote.*set the attribute 'checksums'"
            with pytest.raises(InvalidStore, match=match):
                open_store(store.path)
    put_metadata(store.path, kept)
    assert open_store(store.path).n_rows == ROWS


def test_fields_that_zarr_does_not_know_are_refused(tmp_path):
    """A flipped letter of one would make the store another writer's, whose classes nobody knows."""
    store = write(tmp_path / "a")
    kept = metadata_of(store.path)
    for field in kept:
        metadata = {key if key != field else f"{key[:-1]}x": kept[key] for key in kept}
        put_metadata(store.path, metadata)
        with pytest.raises(InvalidStore, match=r"a/zarr\.json"):
            open_store(store.path)
    put_metadata(store.path, {**kept, "more": {"must_understand": False}})
    assert open_store(store.path).classes == ("no", "yes")
    plain = zarr.create_array(tmp_path / "b", data=np.ones((4, 2)))
    about = metadata_of(tmp_path / "b")
    put_metadata(tmp_path / "b", {**about, "mine": 1})
    with pytest.raises(InvalidStore, match="has a field 'mine', which Zarr does not know"):
        open_store(tmp_path / "b")
    put_metadata(tmp_path / "b", {**about, "mine": {"must_understand": False}})
    assert open_store(tmp_path / "b").X.shape == plain.shape


def other_than(value):
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, list):
        return value[1:] if value else [0]
    return {} if value else {"a": 1}


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_mutated_metadata_are_refused_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("mutated")
    store = write(folder / "a", "lz4")
    known = [store.read(role) for role in ROLES]
    of = data.draw(st.sampled_from(["", *ROLES]))
    file = Path(store.path, of, "zarr.json")
    metadata = json.loads(file.read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        *around, key = data.draw(st.sampled_from([p for p in paths_in(metadata) if p]))
        parent = metadata
        for step in around:
            parent = parent[step]
        parent[key] = data.draw(SCALARS | st.lists(SCALARS, max_size=3))
    if metadata.get("attributes") in (None, {}) or not isinstance(metadata["attributes"], dict):
        return  # Then it says nothing of us: another program's group.
    file.write_text(json.dumps(metadata))
    try:
        again = open_store(store.path)
    except InvalidStore:
        return
    for role, rows in zip(ROLES, known, strict=True):
        np.testing.assert_array_equal(again.read(role), rows)
    assert again.statistics is not None
    assert store.statistics is not None
    assert again.statistics.to_json() == store.statistics.to_json()
    assert (again.classes, again.feature_names) == (store.classes, store.feature_names)


@pytest.mark.parametrize("role", ROLES)
def test_metadata_of_arrays_are_held_to_the_manifest(tmp_path, role):
    store = write(tmp_path / "a")
    array = Path(store.path, role)
    kept = metadata_of(array)
    changes = {
        "data_type": "float32" if role != "X" else "int32",
        "fill_value": 1,
        "shape": [24, *kept["shape"][1:]],
        "dimension_names": None,
        "attributes": {"scale_factor": 2},
    }
    for key, value in changes.items():
        put_metadata(array, {**kept, key: value})
        with pytest.raises(InvalidStore, match=f"{role}/zarr.json is not what ooc_train wrote"):
            open_store(store.path)
    big = json.loads(json.dumps(kept).replace('"little"', '"big"'))
    put_metadata(array, big)
    with pytest.raises(InvalidStore, match=f"{role}/zarr.json is not what"):
        open_store(store.path)
    # Whichever way the array is come by.
    for opened in (
        lambda: open_store(array),
        lambda: open_store(zarr.open_array(array, mode="r")),
        lambda: open_store(store.path, y=f"../a/{role}"),
    ):
        with pytest.raises(InvalidStore, match=f"{role}/zarr.json is not what"):
            opened()
    # As another program would write the same values.
    array.joinpath("zarr.json").write_text(json.dumps(dict(reversed(kept.items())), indent=7))
    assert open_store(store.path).n_rows == ROWS


def test_arrays_that_are_gone_are_missed(tmp_path):
    store = write(tmp_path / "a")
    for role in ("sample_weight", "y", "row_id"):
        os.rename(Path(store.path, role), tmp_path / "aside")
        with pytest.raises(InvalidStore, match=f"written with an array '{role}', which is missing"):
            open_store(store.path)
        os.rename(tmp_path / "aside", Path(store.path, role))
    os.rename(Path(store.path, "sample_weight"), tmp_path / "aside")
    assert open_store(store.path, sample_weight=None).sample_weight is None
    checksums_off(store.path)
    assert open_store(store.path).sample_weight is None


def test_arrays_that_were_added_are_opened_as_they_lie(tmp_path):
    store = write(tmp_path / "a")
    group = zarr.open_group(store.path)
    group.create_array("mine", data=np.arange(ROWS), chunks=(5,))
    assert open_store(store.path, y="mine").read("y").tolist() == list(range(ROWS))


def test_consolidated_metadata_change_nothing(tmp_path):
    store = write(tmp_path / "a")
    with warnings.catch_warnings():
        # Consolidated metadata is not (yet) part of format 3, says zarr-python.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(store.path)
    assert "consolidated_metadata" in metadata_of(store.path)
    assert open_store(store.path).read("y").tolist() == store.read("y").tolist()


@pytest.mark.slow
@given(
    st.recursive(
        SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner)
    )
)
def test_a_checksum_is_that_of_canonical_json(value):
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    assert checksums.checksum(value) == sha256(text.encode()).hexdigest()


def test_a_checksum_of_long_lists_and_deep_mappings(monkeypatch):
    monkeypatch.setattr(checksums, "_AT_A_TIME", 3)
    deep: dict[str, Any] = {"values": [*range(9), 0.5], "": [0.1, 1e300, -0.0]}
    for _ in range(6):
        deep = {"b": deep, "a": [deep] * 4, "none": {}}
    text = json.dumps(deep, sort_keys=True, separators=(",", ":"))
    assert checksums.checksum(deep) == sha256(text.encode()).hexdigest()


def test_a_checksum_of_many_fractions(monkeypatch):
    monkeypatch.setattr(checksums, "_AT_A_TIME", 3)
    lists: list[Any] = [[0.5, 1.0, 2.0, -0.0], [0.5, 1.0, 2.0, 0.0], [0.5, 1, 2.0, -0.0]]
    lists += [[0.5, 1.0, 2.0, float("nan")], [0.5, 1.0, 2.0], [0.5, 1.0, 2.0, -0.0, 0.0]]
    assert len({checksums.checksum({"mean": values}) for values in lists}) == len(lists)
    text = b'{"mean":[float64 ' + np.array(lists[0], "<f8").tobytes() + b"]}"
    assert checksums.checksum({"mean": lists[0]}) == sha256(text).hexdigest()


def test_keys_that_are_no_text_become_text(tmp_path):
    store = write(tmp_path / "a", attributes={1: "one", "b": (2.5, None)})
    assert store.attributes == {"1": "one", "b": [2.5, None]}


def test_a_store_at_a_url_is_checked_too(tmp_path):
    store = write(tmp_path / "a")
    remote = pytest.importorskip("fsspec").filesystem("memory")
    remote.put(store.path, "/identity/a", recursive=True)
    try:
        opened = open_store("memory://identity/a")
        for role in ROLES:
            np.testing.assert_array_equal(opened.read(role), store.read(role))
        first, second = (f"/identity/a/X/c/{i}/0" for i in range(2))
        remote.pipe(second, remote.cat(first))
        with pytest.raises(CorruptChunk, match="is shard 0, expected shard 1"):
            open_store("memory://identity/a").read("X")
        of_y = json.loads(remote.cat("/identity/a/y/zarr.json"))
        remote.pipe("/identity/a/y/zarr.json", json.dumps({**of_y, "data_type": "int8"}).encode())
        with pytest.raises(InvalidStore, match=r"identity/a/y/zarr.json is not what"):
            open_store("memory://identity/a")
    finally:
        remote.rm("/identity", recursive=True)


# Stores of ours that another program wrote


def rewritten(source, path, **settings):
    """A store of ours as zarr-python writes it anew, attributes and all."""
    group = zarr.create_group(path, attributes=dict(zarr.open_group(source.path).attrs))
    for role in ROLES:
        group.create_array(role, data=source.read(role), **settings)
    return str(path)


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.usefixtures("inline")
def test_a_store_that_zarr_python_wrote_anew(tmp_path, earlier):
    source = write(tmp_path / "a")
    if earlier:
        source = open_store(as_earlier_release(source.path))
    path = rewritten(source, tmp_path / "b")
    if not earlier:
        with pytest.raises(InvalidStore, match=r"b/X/zarr.json is not what.*to 'off'"):
            open_store(path)
        zarr.open_group(path).attrs["checksums"] = "off"
    store = open_store(path)
    assert (store.classes, store.feature_names) == (("no", "yes"), ("a", "b", "c"))
    # What the values may belie is not believed.
    assert (store.statistics is None, store.generation) == (not earlier, int(earlier))
    assert any(("earlier release" if earlier else "are off") in note for note in store.notes)
    for job, out in ((rechunk_store, "c"), (shuffle_store, "d")):
        made, _ = job(store, tmp_path / out)
        order = np.argsort(made.read("row_id"))
        for role in ROLES:
            np.testing.assert_array_equal(made.read(role)[order], source.read(role))
        assert made.classes == ("no", "yes")
        assert made.statistics is not None
        assert made.notes == ()
    assert train(LOGISTIC, path, TRAINING)[1].n_rows == ROWS


def test_chunks_of_nothing_but_fill_values_are_read_where_checksums_are_off(tmp_path):
    source = write(tmp_path / "a")
    path = rewritten(source, tmp_path / "b", chunks="auto")
    group = zarr.open_group(path)
    del group["sample_weight"]
    group.create_array("sample_weight", data=np.zeros(ROWS), chunks=(5,))
    group.attrs["checksums"] = "off"
    assert open_store(path, fill_missing=True).read("sample_weight").tolist() == [0] * ROWS


@pytest.mark.usefixtures("inline")
def test_a_store_of_an_earlier_release(tmp_path):
    store = write(tmp_path / "a")
    known = {role: store.read(role) for role in ROLES}
    old = open_store(as_earlier_release(store.path))
    assert (old.format_version, old.store_id) == (1, "")
    assert "written by an earlier release" in old.notes[0]
    assert "`ooc-train rechunk`" in old.notes[0]
    for role in ROLES:
        np.testing.assert_array_equal(old.read(role), known[role])
    assert any("earlier release" in note for note in train(LOGISTIC, old, TRAINING)[1].notes)
    # What nothing checked is not carried over.
    about = metadata_of(old.path)
    about["attributes"]["statistics"]["scale"][1] *= 10
    put_metadata(old.path, about)
    new, _ = rechunk_store(old.path, tmp_path / "b")
    assert (new.format_version, new.notes) == (2, ())
    assert new.statistics is not None
    assert store.statistics is not None
    np.testing.assert_allclose(new.statistics.scale, store.statistics.scale)
    assert not any("earlier release" in note for note in train(LOGISTIC, new, TRAINING)[1].notes)


@pytest.mark.usefixtures("inline")
def test_predictions_are_checked_too(tmp_path):
    store = write(tmp_path / "a")
    fitted, _ = train(LOGISTIC, store, TRAINING)
    predict_store(fitted, store, tmp_path / "p", kinds=("prediction", "probability"))
    named = open_store(store.path, y=tmp_path / "p" / "prediction")
    assert named.y is not None
    assert named.y.store_id not in ("", store.store_id)
    assert set(named.read("y")) <= {0, 1}
    blobs = [file.read_bytes() for file in shards_of(named, "y")]
    for file, blob in zip(shards_of(named, "y"), blobs[::-1], strict=True):
        file.write_bytes(blob)
    with pytest.raises(CorruptChunk, match=r"is shard \d, expected shard 0"):
        open_store(store.path, y=tmp_path / "p" / "prediction").read("y")
    about = metadata_of(tmp_path / "p")
    about["attributes"]["classes"] = ["yes", "no"]
    put_metadata(tmp_path / "p", about)
    with pytest.raises(InvalidStore, match="is not what ooc_train wrote"):
        open_store(store.path, y=tmp_path / "p" / "prediction")
