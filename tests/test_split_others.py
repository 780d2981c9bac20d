"""Shares of stores of other programs: drawn without a copy, refused once the store changed."""

import json
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

from ooc_train import LocalCluster, Store, cli, open_store, split_store
from ooc_train.errors import InvalidStore, StoreChanged
from ooc_train.store.opening import fingerprint
from tests.test_split import written

RNG = np.random.default_rng(0)
ROWS, FEATURES, CHUNK, SEED = 500, 3, 40, 7
CHUNKS = -(-ROWS // CHUNK)
X = RNG.normal(size=(ROWS, FEATURES)).astype("f4")
Y = (X[:, 0] > 0).astype("i4") + 1
SMALL: dict[str, Any] = {"chunks": (CHUNK, FEATURES)}


def here(*arguments):
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def foreign(path, zarr_format=3, y=Y, y_chunk=70, **settings):
    """A store as zarr-python writes it, under names of its own."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.create_array("data", data=X, **(SMALL | settings))
    group.create_array("labels", data=y, chunks=(y_chunk, *y.shape[1:]))
    return group


def consolidated(path):
    zarr.consolidate_metadata(foreign(path, 2).store)


KINDS: dict[str, Callable[[Any], object]] = {
    "format 3": foreign,
    "format 2": lambda path: foreign(path, 2),
    "nested names of format 2": lambda path: foreign(
        path, 2, chunk_key_encoding={"name": "v2", "separator": "/"}
    ),
    "flat names of format 3": lambda path: foreign(
        path, chunk_key_encoding={"name": "v2", "separator": "."}
    ),
    "consolidated": consolidated,
    "shards": lambda path: foreign(path, shards=(4 * CHUNK, FEATURES)),
    "columns that are cut": lambda path: foreign(path, chunks=(CHUNK, 2)),
    "y of shape (n, 1)": lambda path: foreign(path, y=Y[:, None]),
    "y in one chunk": lambda path: foreign(path, y_chunk=ROWS),
}
NAMED = ("data", "labels")


def named(path):
    """The store at a path, by those names."""
    return open_store(path, X="data", y="labels")


def chunks_of(path):
    """The files of chunks of the arrays of a store."""
    files = (file for file in sorted(Path(path).rglob("*")) if file.is_file())
    return [file for file in files if file.name[0] != "." and file.name != "zarr.json"]


@pytest.mark.parametrize("kind", KINDS)
def test_shares_of_another_writers_store(tmp_path, kind):
    KINDS[kind](tmp_path / "a.zarr")
    store = named(tmp_path / "a.zarr")
    shares = split_store(store, test=0.3, random_state=SEED, by_chunks=True)
    order = np.random.default_rng(SEED).permutation(CHUNKS)
    of_test = np.isin(np.arange(ROWS) // CHUNK, order[: round(0.3 * CHUNKS)])
    # All of it may move: a share finds the store from its own place.
    (tmp_path / "b").mkdir()
    shutil.move(tmp_path / "a.zarr", tmp_path / "b" / "a.zarr")
    shutil.move(tmp_path / "a.split", tmp_path / "b" / "a.split")
    for name, rows in (("test", of_test), ("train", ~of_test)):
        share = open_store(tmp_path / "b" / "a.split" / f"{name}.share")
        assert shares[name].n_rows == share.n_rows == rows.sum()
        assert (share.store_id, share.shuffled) == ("", None)
        assert_array_equal(share.read("X"), X[rows])
        assert_array_equal(share.read("y").ravel(), Y[rows])


def test_a_store_that_is_an_array(tmp_path):
    foreign(tmp_path / "a")
    place = tmp_path / "a" / "data"
    shares = split_store(open_store(place, y="../labels"), tmp_path / "s", test=0.3, by_chunks=True)
    assert shares["test"].share is not None
    assert shares["test"].share.arrays == {"y": "../labels"}
    assert shares["test"].read("y").shape == (shares["test"].n_rows,)


def test_parts_of_one_large_chunk_are_drawn(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    rows = 700_000
    large = np.arange(3 * rows, dtype="f4").reshape(rows, 3)
    group.create_array("X", data=large, chunks=large.shape, compressors=None)
    shares = split_store(tmp_path / "a.zarr", folds=2, by_chunks=True)
    drawn = [shares[f"fold{i}.test"].read("X")[:, 0] for i in (1, 2)]
    assert_array_equal(np.sort(np.concatenate(drawn)), large[:, 0])


def split(path, out, *options):
    """Split a store on the command line."""
    result = here(
        *("split", path, "--x", "data", "--y", "labels", "--test", 0.3, "--folds", 2),
        *("--seed", SEED, "--out", out, *options),
    )
    assert result.exit_code == 0, result.stderr


def anew(group):
    foreign(group.store.root, group.metadata.zarr_format)


def in_place(group):
    group["labels"][100] = 3 - group["labels"][100]


def appended(group):
    for name, rows in (("data", X), ("labels", Y)):
        group[name].resize((2 * ROWS, *rows.shape[1:]))
        group[name][ROWS:] = rows


def shortened(group):
    for name in NAMED:
        group[name].resize((ROWS - 1, *group[name].shape[1:]))


FILES = r"files of its chunks were written, copied or removed"
CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "the same values, written anew": (anew, f"data, {FILES};"),
    "a value, in place": (in_place, f"labels, {FILES};"),
    "an attribute": (
        lambda group: group["labels"].attrs.update(flag_values=[1, 2], flag_meanings="no yes"),
        "labels, its type, chunks, codecs, attributes or categories are others;",
    ),
    "other chunks": (
        lambda group: foreign(
            group.store.root, group.metadata.zarr_format, chunks=(CHUNK // 2, FEATURES)
        ),
        "data, its type, chunks, codecs",
    ),
    "rows within the last chunk": (
        appended,
        rf"data, {FILES}; it has 1,000 rows, and had 500; split",
    ),
    "fewer rows": (shortened, "it has 499 rows, and had 500; split"),
    "weights": (
        lambda group: group.create_array("sample_weight", data=Y.astype("f8")),
        "sample_weight was added; split",
    ),
}


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_a_share_of_a_store_that_changed_is_refused(tmp_path, change, zarr_format):
    path, share = tmp_path / "a.zarr", tmp_path / "s" / "fold2.test.share"
    group = foreign(path, zarr_format)
    split(path, tmp_path / "s", "--by-chunks")
    rows = open_store(share).read("X")
    changing, said = CHANGES[change]
    changing(group)
    with pytest.raises(StoreChanged, match=said) as refused:
        open_store(share)
    # What the error says to call is what was called.
    result = here(*shlex.split(str(refused.value).rpartition("ooc-train ")[2]))
    assert result.exit_code == 0, result.stderr
    again = open_store(share)
    assert again.share is not None
    assert again.share.drawn.seed == SEED
    assert len(list((tmp_path / "s").iterdir())) == 6
    if again.share.n_stored == ROWS and again.chunk_rows == CHUNK:
        assert_array_equal(again.read("X"), rows)


def test_a_store_of_ours_in_the_place_of_another_writers(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("X", data=X, **SMALL)
    group.create_array("y", data=Y)
    split_store(tmp_path / "a.zarr", tmp_path / "s", test=0.3, by_chunks=True)
    shutil.rmtree(tmp_path / "a.zarr")
    written(tmp_path / "a.zarr", np.arange(ROWS))
    with pytest.raises(StoreChanged, match="it was replaced since; split it again"):
        open_store(tmp_path / "s" / "test.share")


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_rows_appended_in_files_of_their_own_belong_to_no_share(tmp_path, grown, zarr_format):
    path = tmp_path / "a.zarr"
    foreign(path, zarr_format, chunks=(50, FEATURES), y_chunk=100)
    split(path, tmp_path / "s", "--by-chunks")
    before = open_store(tmp_path / "s" / "train.share")
    if grown:
        appended(zarr.open_group(path))
        assert named(path).n_rows == 2 * ROWS
    after = open_store(tmp_path / "s" / "train.share")
    assert after.n_rows == before.n_rows < ROWS
    assert_array_equal(after.read("X"), before.read("X") if not grown else X[rows_of(after)])
    assert_array_equal(after.read("y"), Y[rows_of(after)])


def rows_of(share: Store):
    """The rows of a share, by their numbers in the store."""
    assert share.share is not None
    runs = share.share.runs(0, share.n_rows)
    return np.concatenate([np.arange(start, stop) for start, stop in runs])


def test_a_copy_is_known_by_the_times_of_its_files(tmp_path):
    foreign(tmp_path / "a.zarr")
    split(tmp_path / "a.zarr", tmp_path / "a.split", "--by-chunks")
    for name, copy in (("kept", shutil.copy2), ("new", shutil.copy)):
        shutil.copytree(tmp_path / "a.zarr", tmp_path / name / "a.zarr", copy_function=copy)
        shutil.copytree(tmp_path / "a.split", tmp_path / name / "a.split")
    assert open_store(tmp_path / "kept" / "a.split" / "test.share").n_rows
    with pytest.raises(StoreChanged, match="files of its chunks were written, copied"):
        open_store(tmp_path / "new" / "a.split" / "test.share")


def test_what_is_gone(tmp_path):
    foreign(tmp_path / "a.zarr")
    zarr.open_group(tmp_path / "a.zarr").create_array("sample_weight", data=Y.astype("f8"))
    split(tmp_path / "a.zarr", tmp_path / "s", "--by-chunks")
    test = tmp_path / "s" / "test.share"
    assert open_store(test).sample_weight is not None
    shutil.rmtree(tmp_path / "a.zarr" / "sample_weight")
    with pytest.raises(StoreChanged, match="its array sample_weight is gone; split it again"):
        open_store(test)
    # Left out on purpose, it is not missed.
    assert open_store(test, sample_weight=None).sample_weight is None
    chunks_of(tmp_path / "a.zarr" / "data")[3].unlink()
    with pytest.raises(StoreChanged, match="written, copied or removed"):
        open_store(test, sample_weight=None)


def test_categories_of_anndata(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("X", data=X, **SMALL)
    kind = group.create_group("obs/kind", attributes={"encoding-type": "categorical"})
    kind.create_array("codes", data=Y.astype("i1"), chunks=(CHUNK,))
    kind.create_array("categories", data=np.array([10, 20, 30]))
    store = open_store(tmp_path / "a.zarr", y="obs/kind")
    split_store(store, test=0.3, by_chunks=True)
    test = tmp_path / "a.split" / "test.share"
    assert open_store(test).y == store.y.with_rows(ROWS)  # type: ignore[union-attr]
    zarr.open_array(tmp_path / "a.zarr" / "obs" / "kind" / "categories")[0] = 11
    with pytest.raises(StoreChanged, match=r"of obs/kind, its type, chunks, .* or categories are"):
        open_store(test)


def test_labels_beside_a_store_of_ours_are_recognised_too(tmp_path):
    written(tmp_path / "a.zarr", np.arange(ROWS))
    labels = foreign(tmp_path / "b.zarr")["labels"]
    split_store(open_store(tmp_path / "a.zarr", y="../b.zarr/labels"), test=0.3)
    test = tmp_path / "a.split" / "test.share"
    values = json.loads(test.read_text())
    assert set(values["contents"]) == {"y"}
    assert values["format_version"] == 3
    labels[3] = 5
    with pytest.raises(StoreChanged, match=r"of .*b.zarr/labels, files of its chunks"):
        open_store(test)
    assert open_store(test, y="./y").classes == ("no", "yes")
    # Arrays of another store of ours are known by its id.
    other = written(tmp_path / "c.zarr", np.arange(ROWS))
    split_store(open_store(tmp_path / "a.zarr", y="../c.zarr/y"), test=0.3, overwrite=True)
    assert json.loads(test.read_text())["contents"] == {"y": {"store_id": other.store_id}}
    shutil.rmtree(other.path)
    written(tmp_path / "c.zarr", np.arange(ROWS))
    with pytest.raises(StoreChanged, match="another store took its place"):
        open_store(test)


def test_of_many_files_some_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "_MOST_FILES", 4)
    group = foreign(tmp_path / "a.zarr")
    split(tmp_path / "a.zarr", tmp_path / "s", "--by-chunks")
    group["data"][CHUNK] = 1  # The second of 13 chunks; the first, fifth, ninth and last are known.
    assert open_store(tmp_path / "s" / "test.share").n_rows
    group["data"][4 * CHUNK] = 1
    with pytest.raises(StoreChanged):
        open_store(tmp_path / "s" / "test.share")


def test_chunks_that_were_never_written(tmp_path):
    group = foreign(tmp_path / "a.zarr")
    group["data"].resize((2 * ROWS, FEATURES))
    group["labels"].resize((2 * ROWS,))
    split(tmp_path / "a.zarr", tmp_path / "s", "--by-chunks", "--fill-missing")
    test = tmp_path / "s" / "test.share"
    assert (open_store(test).read("X")[rows_of(open_store(test)) >= ROWS] == 0).all()
    group["data"][2 * ROWS - 1] = 1
    with pytest.raises(StoreChanged, match=r"--fill-missing --test 0\.3 --folds 2 --seed 7 "):
        open_store(test)


def test_without_by_chunks_there_are_three_ways_out(tmp_path):
    foreign(tmp_path / "a.zarr")
    result = here("split", tmp_path / "a.zarr", "--x", "data", "--y", "labels", "--test", 0.3)
    assert result.exit_code == 1
    ways = result.stderr.split("; ")
    assert ways[0].endswith("so whole chunks are no random sample")
    assert ways[1].endswith("draw chunks as they are, --by-chunks")
    assert "`ooc-train train --validation-fraction 0.2`" in ways[2]
    assert ways[3].rstrip().endswith("a.shuffled.zarr --x data --y labels")
    assert not (tmp_path / "a.split").exists()


def test_one_chunk_is_too_few(tmp_path):
    foreign(tmp_path / "a.zarr", chunks=X.shape)
    options = ("--test", 0.3, "--by-chunks")
    result = here("split", tmp_path / "a.zarr", "--x", "data", "--y", "labels", *options)
    assert result.exit_code == 1
    assert "has 1 chunk of 500 rows, and 2 are needed" in result.stderr
    command = shlex.split(result.stderr.rpartition("ooc-train ")[2])
    assert here(*command).exit_code == 0
    assert here("split", command[2], *options).exit_code == 0
    assert not (tmp_path / "a.split").exists()


@pytest.fixture
def url():
    """The place of a store at a URL, of a file system that tells when files were made."""
    memory = pytest.importorskip("fsspec").filesystem("memory")
    yield "memory://others/a.zarr", memory
    memory.rm("/others", recursive=True)


@pytest.mark.parametrize("versions", [True, False])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_at_a_url(tmp_path, monkeypatch, url, versions, zarr_format):
    path, memory = url
    if not versions:  # A file system that tells sizes alone.
        monkeypatch.setattr(fingerprint, "_VERSIONS", ())
    foreign(tmp_path / "a.zarr", zarr_format, compressors=None)
    memory.put(str(tmp_path / "a.zarr"), path, recursive=True)
    with pytest.raises(ValueError, match="is a URL; name a local folder for the shares, out="):
        split_store(named(path), test=0.3, by_chunks=True)
    split(path, tmp_path / "s", "--by-chunks")
    share = open_store(tmp_path / "s" / "test.share")
    assert_array_equal(share.read("X"), X[rows_of(share)])
    file = next(name for name in memory.find("/others/a.zarr/data") if name[-1].isdigit())
    content = memory.cat(file)
    memory.pipe(file, content[::-1])
    with pytest.raises(StoreChanged, match="of data, files of its chunks were written"):
        open_store(tmp_path / "s" / "test.share")
    memory.rm(file)
    with pytest.raises(StoreChanged, match="of data, files of its chunks were written"):
        open_store(tmp_path / "s" / "test.share")


def test_a_zarr_object_without_a_path_is_refused(tmp_path, url):
    path, memory = url
    foreign(tmp_path / "a.zarr")
    memory.put(str(tmp_path / "a.zarr"), path, recursive=True)
    opened = zarr.open_group(path, mode="r")
    for store in (named(opened), open_store(path, X=opened["data"], y=None)):
        with pytest.raises(ValueError, match=r"X is an object of .*by a path or a URL"):
            split_store(store, tmp_path / "s", test=0.3, by_chunks=True)
    assert not (tmp_path / "s").exists()


def test_a_store_that_was_replaced_before_it_is_split(tmp_path):
    foreign(tmp_path / "a.zarr")
    store = named(tmp_path / "a.zarr")
    foreign(tmp_path / "a.zarr")
    with pytest.raises(StoreChanged, match="run again"):
        split_store(store, test=0.3, by_chunks=True)


def test_shares_are_returned_as_their_files_are_opened(tmp_path):
    foreign(tmp_path / "a.zarr")
    for store in (named(tmp_path / "a.zarr"), written(tmp_path / "b.zarr", np.arange(ROWS))):
        for share in split_store(store, folds=2, by_chunks=True).values():
            opened = open_store(share.path)
            assert share == replace(opened, share=share.share)
            assert share.share is not None
            assert opened.share is not None
            assert share.share.to_json(str(tmp_path)) == opened.share.to_json(str(tmp_path))


def test_unknown_names_of_chunks_are_refused(tmp_path):
    """zarr-python may learn of encodings and grids that are not known here."""
    foreign(tmp_path / "a.zarr")
    layout = named(tmp_path / "a.zarr").X
    file = Path(layout.path) / "zarr.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps(about | {"chunk_key_encoding": {"name": "new"}}))
    with pytest.raises(InvalidStore, match=r"unknown names, .*by `ooc-train rechunk`"):
        fingerprint.fingerprint_of(layout, ROWS)
    os.remove(file)
    with pytest.raises(InvalidStore, match="has no metadata of Zarr any more"):
        fingerprint.fingerprint_of(layout, ROWS)


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (3, 3), (700, 5)])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_files_that_are_looked_at_are_spread_over_the_array(tmp_path, grid, zarr_format):
    array = zarr.create_array(
        tmp_path / "a", shape=(grid[0] * 2 - 1, grid[1] * 2), chunks=(2, 2), dtype="f4",
        zarr_format=zarr_format,
    )  # fmt: skip
    about = array.metadata.to_dict()
    every = [array.metadata.encode_chunk_key(place) for place in np.ndindex(grid)]
    looked = fingerprint._keys(about, array.shape[0], 7)
    assert looked is not None
    if len(every) <= 7:
        assert looked == every
    else:
        places = [every.index(key) for key in looked]
        assert (len(places), places[0], places[-1]) == (7, 0, len(every) - 1)
        assert set(np.diff(places)) <= {(len(every) - 1) // 6, (len(every) - 1) // 6 + 1}
    # Of fewer rows, no later file.
    assert fingerprint._keys(about, 1, 7) == every[: grid[1]]


@pytest.mark.slow
def test_every_command_takes_a_share_of_another_writers_store(tmp_path):
    foreign(tmp_path / "a.zarr", y=Y[:, None])
    split(tmp_path / "a.zarr", tmp_path / "s", "--by-chunks")
    rows, test = (tmp_path / "s" / f"{name}.share" for name in ("train", "test"))
    run, out = tmp_path / "a.run", tmp_path / "b.run"
    calls = [
        ("info", rows),
        ("plan", rows),
        ("train", rows, "--validation", test, "--out", run),
        ("train", "--config", run / "config.toml", "--out", out),
        ("evaluate", run, test),
        ("predict", run, test, tmp_path / "p.csv"),
        ("explain", run, test),
        ("tradeoff", rows, "--validation", test, "--batch-sizes", "full,50"),
        ("calibrate", run, test, "--out", tmp_path / "c.run"),
    ]
    with LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0") as cluster:
        client = ("--scheduler", cluster.scheduler_address, "--quiet")
        for call in calls:
            result = here(*call, *(() if call[0] == "info" else client))
            assert result.exit_code == 0, (call, result.stderr)
    ids = np.loadtxt(tmp_path / "p.csv", delimiter=",", skiprows=1, usecols=0)
    assert_array_equal(ids, rows_of(open_store(test)))
    zarr.open_array(tmp_path / "a.zarr" / "data")[0] = 0
    for call in calls:
        if test in call or rows in call:
            result = here(*call, *(("--overwrite",) if "--out" in call else ()))
            assert result.exit_code == 1, call
            assert "split it again" in result.stderr
