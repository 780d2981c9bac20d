"""The two stores of one `ingest --test-size`: both or none, and noticed where they are not."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ooc_train.core import renames
from ooc_train.core.atomic import PartialOutput
from ooc_train.core.replacements import partial_path_of
from ooc_train.errors import OutputExists, StoreNotFound
from ooc_train.store.format import pairs
from ooc_train.store.format.pairs import StorePair
from ooc_train.store.jobs.ingest import ingest
from ooc_train.store.jobs.rechunk import rechunk_store
from ooc_train.store.jobs.shuffle import shuffle_store
from ooc_train.store.opening.opener import open_store
from tests.sealing import as_earlier_release, metadata_of, put_metadata, reseal

NOTE = "not of the same ingest: test rows may be among the training rows"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,y\n" + "".join(f"{i / 7},{i % 2}\n" for i in range(60)))
    return path


def made(table, seed=0, overwrite=False, test_size=0.25, out="a.zarr"):
    return ingest(
        table,
        table.parent / out,
        target="y",
        test_size=test_size,
        random_state=seed,
        chunk_rows=8,
        shard_rows=16,
        overwrite=overwrite,
    )


def notes(*paths):
    return [note for path in paths for note in open_store(path).notes]


MODES = ["fresh", "overwrite", "overwrite one", "without exchange"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "events"),
    [
        *((mode, ["ooc_train.rename"]) for mode in MODES),
        ("overwrite", []),
        ("without exchange", []),
    ],
)
def test_a_kill_at_any_rename_or_removal_leaves_both_or_none(tmp_path, mode, events):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.killed_ingest", tmp_path, mode, *events],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'new, completed': " in done.stdout


def test_both_say_what_they_are_part_of(table):
    result = made(table)
    assert result.test is not None
    store, test = result.store.pair, result.test.pair
    assert store is not None
    assert test is not None
    assert (store.id, store.partner, test.partner) == (test.id, "a.test.zarr", "a.zarr")
    assert result.store.notes == result.test.notes == ()
    again = made(table, 1, overwrite=True)
    assert again.store.pair is not None
    assert again.store.pair.id != store.id
    assert made(table, test_size=0, out="b.zarr").store.pair is None


@pytest.mark.parametrize("job", [rechunk_store, shuffle_store])
def test_a_store_written_anew_stays_part_of_its_pair(table, tmp_path, job):
    pair = made(table).store.pair
    new, _ = job(tmp_path / "a.zarr", tmp_path / "new.zarr")
    assert new.pair is not None
    assert (new.pair.id, new.pair.partner, new.notes) == (pair.id, "a.test.zarr", ())
    shutil.rmtree(tmp_path / "a.zarr")
    os.rename(tmp_path / "new.zarr", tmp_path / "a.zarr")
    assert notes(tmp_path / "a.zarr", tmp_path / "a.test.zarr") == []


def test_a_partner_of_another_ingest_is_noticed(table, tmp_path):
    made(table)
    made(table, 1, out="other.zarr")
    store, test = tmp_path / "a.zarr", tmp_path / "a.test.zarr"
    for replacement in ("other.zarr", "other.test.zarr"):
        shutil.rmtree(store)
        shutil.copytree(tmp_path / replacement, store)
        assert [NOTE in note for note in notes(test)] == [True]
    # All rows, or a store of an earlier release.
    made(table, overwrite=True, test_size=0)
    assert [NOTE in note for note in notes(test)] == [True]
    assert notes(store) == []
    as_earlier_release(store)
    assert [NOTE in note for note in notes(test)] == [True]


def test_a_partner_that_was_moved_or_removed_is_nobodys_business(table, tmp_path):
    made(table)
    store, test = tmp_path / "a.zarr", tmp_path / "a.test.zarr"
    os.rename(test, tmp_path / "b.test.zarr")
    assert notes(store, tmp_path / "b.test.zarr") == []
    shutil.rmtree(store)
    assert notes(tmp_path / "b.test.zarr") == []


def pending(table, monkeypatch):
    """What a kill between the two renames leaves."""
    folder = table.parent
    with monkeypatch.context() as patch:
        real = PartialOutput.rename_into_place

        def put(self):
            if self.path.endswith("a.zarr"):
                # The files at this moment, before the process cleans up.
                shutil.copytree(folder, f"{folder}.killed", copy_function=os.link)
                raise KeyboardInterrupt
            real(self)

        patch.setattr(PartialOutput, "rename_into_place", put)
        with pytest.raises(KeyboardInterrupt):
            made(table, overwrite=True)
    shutil.rmtree(folder)
    os.rename(f"{folder}.killed", folder)


@pytest.mark.parametrize("first", ["a.zarr", "a.test.zarr"])
def test_the_opening_of_either_names_what_a_kill_left(table, tmp_path, monkeypatch, first):
    pending(table, monkeypatch)
    assert {"a.test.zarr", ".a.zarr.partial"} <= set(os.listdir(tmp_path))
    store = open_store(tmp_path / first)
    assert ["an ingest was killed before" in note for note in store.notes] == [True]
    assert notes(tmp_path / "a.zarr", tmp_path / "a.test.zarr") == []
    with pytest.raises(OutputExists):
        made(table)


def test_the_next_ingest_names_what_a_kill_left(table, tmp_path, monkeypatch):
    pending(table, monkeypatch)
    with pytest.raises(OutputExists, match=r"a\.zarr exists already"):
        made(table)
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "a.test.zarr", "a.zarr"]
    assert notes(tmp_path / "a.zarr", tmp_path / "a.test.zarr") == []


def test_what_appeared_meanwhile_is_not_replaced(table, tmp_path, monkeypatch):
    made(table, 1, test_size=0, out="mine.zarr")
    pending(table, monkeypatch)
    os.rename(tmp_path / "mine.zarr", tmp_path / "a.zarr")
    mine = open_store(tmp_path / "a.zarr")
    assert (mine.n_rows, mine.pair, mine.notes) == (60, None, ())
    assert [NOTE in note for note in notes(tmp_path / "a.test.zarr")] == [True]


def test_a_store_that_is_being_named_is_waited_for(table, tmp_path, monkeypatch):
    pending(table, monkeypatch)
    lock = os.open(partial_path_of(str(tmp_path / "a.zarr")), os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    looks = []

    def look(_):
        looks.append(1)
        if len(looks) == 3:
            os.close(lock)

    monkeypatch.setattr(pairs, "sleep", look)
    assert open_store(tmp_path / "a.zarr").n_rows == 45
    assert len(looks) == 3


def test_one_that_may_not_write_there_is_told(table, tmp_path, monkeypatch):
    pending(table, monkeypatch)

    def refused(*_):
        raise PermissionError(13, "may not")

    monkeypatch.setattr(renames, "_rename_with_flag", refused)
    (note,) = notes(tmp_path / "a.test.zarr")
    assert f"killed before it renamed {tmp_path}/.a.zarr.partial to {tmp_path}/a.zarr" in note
    assert "(may not); open it once with permission to write there" in note
    with pytest.raises(StoreNotFound):
        open_store(tmp_path / "a.zarr")


@pytest.mark.parametrize("renamed", ["exchange", "two renames"])
@pytest.mark.parametrize("before", [True, False])
def test_where_the_second_cannot_be_named_the_first_is_taken_back(
    table, tmp_path, monkeypatch, renamed, before
):
    if renamed == "two renames":
        monkeypatch.setattr(renames, "_rename_with_flag", lambda *_: False)
    ids = []
    if before:
        result = made(table)
        assert result.test is not None
        ids = [result.test.store_id, result.store.store_id]
    real = PartialOutput.rename_into_place

    def put(self):
        if self.path.endswith("a.zarr"):
            # Another process is quicker.
            shutil.rmtree(self.path, ignore_errors=True)
            os.mkdir(self.path)
            (Path(self.path) / "thesis.tex").write_text("ten years")
        real(self)

    monkeypatch.setattr(PartialOutput, "rename_into_place", put)
    with pytest.raises(OutputExists, match=r"a\.zarr was made or changed by another process"):
        made(table, 1, overwrite=before)
    assert os.listdir(tmp_path / "a.zarr") == ["thesis.tex"]
    left = ["a.csv", "a.test.zarr", "a.zarr"] if before else ["a.csv", "a.zarr"]
    assert sorted(os.listdir(tmp_path)) == left
    if before:
        assert open_store(tmp_path / "a.test.zarr").store_id == ids[0]


@pytest.mark.parametrize(
    "about",
    [
        {"id": 1, "partner": "a", "replaces": ""},
        {"id": "1", "partner": "../a", "replaces": ""},
        {"id": "1", "partner": "/a", "replaces": ""},
        {"id": "1", "partner": "a"},
        "pair",
    ],
)
def test_what_is_no_pair_is_none(table, tmp_path, about):
    assert StorePair.of({"pair": about}) is None
    made(table)
    array = metadata_of(tmp_path / "a.zarr" / "X")
    array["attributes"]["pair"] = about
    put_metadata(tmp_path / "a.zarr" / "X", array)
    reseal(tmp_path / "a.zarr")
    assert open_store(tmp_path / "a.zarr").pair is None
