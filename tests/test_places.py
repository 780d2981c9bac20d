"""Places: output goes to local ones, temporary folders where no other user can tamper with them.

A URL is refused wherever output is named, and nothing is made.
"""

import errno
import fcntl
import os
import re
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from ooc_train.core import places
from ooc_train.core.output_kinds import CSV, FILE, PAGE, RUN, STORE, require_output
from ooc_train.core.places import local_path, temporary_place, why_unsafe
from ooc_train.core.temporary_folders import (
    close_folder,
    open_folder,
    scratch_folder,
    temporary_folder,
)
from ooc_train.errors import UnsafePlace
from ooc_train.estimators import Ridge
from ooc_train.inference.predict import predict_store
from ooc_train.models.predictor import LinearPredictor
from ooc_train.models.regression_models import RidgeModel
from ooc_train.monitoring.recorders import JsonLines
from ooc_train.runs.fitted import Fitted
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.tables.table_writer import TableWriter
from ooc_train.training.loop import train

X, Y = np.arange(12.0).reshape(6, 2), np.arange(6.0)
FITTED = Fitted(RidgeModel(), LinearPredictor(np.ones((1, 2)), np.zeros(1)))
URL = "s3://bucket/a"


@pytest.mark.parametrize("url", [URL, Path("gs://bucket/a"), "file:///tmp/a", "memory://a/b"])
def test_a_url_is_no_local_path(url):
    with pytest.raises(ValueError, match=r"is a URL, and output is written to local files"):
        local_path(url)


def test_a_local_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a/b", "./s3:/b", "a:b", Path("c")):
        assert local_path(path) == str(tmp_path / path)


@pytest.mark.parametrize(
    "write",
    [
        lambda: FITTED.save(URL),
        lambda: Ridge().fit(X, Y).save(URL),
        lambda: train(RidgeModel(), "nothing.zarr", out=URL),
        lambda: predict_store(FITTED, X, URL),
        lambda: make_data(URL, rows=10),
        lambda: TableWriter(f"{URL}.csv"),
        lambda: JsonLines(URL),
        lambda: require_output(URL, FILE, overwrite=True),
    ],
)
def test_no_output_is_written_to_a_url(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is a URL"):
        write()
    assert list(tmp_path.iterdir()) == []


# Temporary folders: where they go, what they survive, and what they don't.

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


@pytest.fixture
def safe(tmp_path):
    """A folder that no other user can replace: pytest's own are such, but for the one it is in."""
    assert why_unsafe(str(tmp_path)) is None
    return tmp_path


def folder_of(path, mode, owner=None):
    path.mkdir()
    path.chmod(mode)
    if owner is not None:
        os.chown(path, owner, owner)
    return path


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (0o777, r"anyone may write to .*/shared \(mode 0777, no sticky bit\)"),
        (0o702, r"anyone may write to .* \(mode 0702, no sticky bit\)"),
        (0o1777, None),
        (0o755, None),
        (0o700, None),
    ],
)
def test_a_folder_is_unsafe_where_others_can_replace_what_lies_in_it(safe, mode, why):
    shared = folder_of(safe / "shared", mode)
    found = why_unsafe(str(shared))
    assert found is None if why is None else re.fullmatch(why, str(found))
    # And so is all below: the folder on the way there could be replaced.
    assert why_unsafe(str(folder_of(shared / "own", 0o700))) == found
    assert why_unsafe(str(shared / "not" / "yet" / "there")) == found


def test_links_are_followed_to_where_they_lead(safe):
    shared = folder_of(safe / "shared", 0o777)
    (safe / "link").symlink_to(shared)
    assert f"anyone may write to {shared} " in str(why_unsafe(str(safe / "link")))
    (shared / "back").symlink_to(folder_of(safe / "own", 0o700))
    assert why_unsafe(str(shared / "back")) is None
    (safe / "file").touch()
    assert why_unsafe(str(safe / "file" / "below")) == f"{safe / 'file'} is not a folder"


@as_root
def test_what_belongs_to_another_user_or_is_open_to_a_group_is_unsafe(safe):
    assert "belongs to nobody" in str(why_unsafe(str(folder_of(safe / "theirs", 0o700, 65534))))
    # Whoever owns a folder may rename all that lies in it, sticky bit or not.
    assert "belongs to nobody" in str(
        why_unsafe(str(folder_of(safe / "theirs too", 0o1777, 65534)))
    )
    group = folder_of(safe / "group", 0o770)
    os.chown(group, 0, 65534)
    assert re.fullmatch(
        r"the group \w+ may write to .*/group \(mode 0770\)", str(why_unsafe(str(group)))
    )
    os.chown(group, 0, 0)
    assert why_unsafe(str(group)) is None


def test_a_tmpdir_that_others_can_tamper_with_is_refused_in_one_line(safe, monkeypatch):
    shared = folder_of(safe / "shared", 0o777)
    monkeypatch.setenv("TMPDIR", str(shared))
    message = r"^TMPDIR is .*/shared, and anyone may write to .* other users could replace .*\+t\)$"
    for make in (temporary_place, lambda: open_folder("a"), LocalCluster):
        with pytest.raises(UnsafePlace, match=message):
            make()
    assert list(shared.iterdir()) == []
    shared.chmod(0o1777)
    assert temporary_place() == str(shared)


def test_temporary_files_go_to_tmpdir_or_where_they_are_on_disk(safe, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(safe))
    assert temporary_place() == str(safe)
    for useless in (str(safe / "gone"), ""):
        monkeypatch.setenv("TMPDIR", useless)
        assert temporary_place() in ("/var/tmp", "/tmp")
    monkeypatch.delenv("TMPDIR")
    monkeypatch.setattr(
        places, "why_unsafe", lambda path: f"{path} is open" if path != "/tmp" else None
    )
    assert temporary_place() == "/tmp"
    (safe / ".cache").mkdir()
    monkeypatch.setenv("HOME", str(safe))
    monkeypatch.setattr(places, "why_unsafe", lambda path: "open" if path.endswith("tmp") else None)
    assert temporary_place() == str(safe / ".cache")
    monkeypatch.setattr(places, "why_unsafe", lambda path: f"{path} is open")
    with pytest.raises(
        UnsafePlace, match=r"no folder for temporary files: /var/tmp is open; /tmp is open; .*; set"
    ):
        temporary_place()


HOLD = """
    import os, sys, time
    from ooc_train.core.temporary_folders import open_folder
    print(open_folder("test"), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_a_folder_lives_as_long_as_its_process_and_no_longer(safe, monkeypatch, end):
    monkeypatch.setenv("TMPDIR", str(safe))
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        (theirs / "below").mkdir()
        assert stat.S_IMODE(theirs.stat().st_mode) == 0o700
        with temporary_folder("test") as own:
            assert theirs.exists()
            if end == "kill":
                process.kill()
            process.communicate()
            (safe / "ooc_train.strange").touch()
            (safe / "ooc_train.link").symlink_to(folder_of(safe / "elsewhere", 0o700))
            with temporary_folder("test"):
                assert not theirs.exists()
                assert Path(own).exists()
    left = {path.name for path in safe.iterdir()}
    assert left == {"ooc_train.strange", "ooc_train.link", "elsewhere"}


def test_a_child_that_was_forked_leaves_its_parents_folders_alone(safe, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(safe))
    owner = type("Owner", (), {})()
    folder = scratch_folder(owner)
    child = os.fork()
    if child == 0:
        close_folder(folder)
        with temporary_folder("test"):
            os._exit(0 if os.path.exists(folder) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert os.path.exists(folder)
    with temporary_folder("test"):  # the child's is gone, which was ended in it
        assert len(list(safe.iterdir())) == 2
    del owner
    assert list(safe.iterdir()) == []


def test_where_there_are_no_locks_nothing_is_taken_for_dead(safe, monkeypatch):
    def no_lock(descriptor, operation):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setenv("TMPDIR", str(safe))
    monkeypatch.setattr(fcntl, "flock", no_lock)
    with temporary_folder("test") as one, temporary_folder("test") as other:
        assert {Path(one).name, Path(other).name} == {path.name for path in safe.iterdir()}
    assert list(safe.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "name", "other"),
    [(STORE, "flights.xlsx", "flights.zarr"), (RUN, "late.PKL", "late.run")],
)
def test_a_folder_has_no_name_of_a_file(tmp_path, kind, name, other):
    with pytest.raises(ValueError, match=rf"{name} is named as .* such as {other}$"):
        require_output(tmp_path / name, kind, overwrite=True)
    assert require_output(tmp_path / "a.v2", kind, overwrite=False) == str(tmp_path / "a.v2")
    assert require_output(tmp_path / name, FILE, overwrite=False) == str(tmp_path / name)


@pytest.mark.parametrize(
    ("kind", "name", "other"), [(PAGE, "a.txt", "a.html"), (CSV, "b.parquet", "b.csv")]
)
def test_a_page_and_a_table_have_no_name_of_another_kind(tmp_path, kind, name, other):
    with pytest.raises(ValueError, match=rf"{name} ends with .* such as {other}$"):
        require_output(tmp_path / name, kind, overwrite=True)
    for fitting in (other, other.upper(), "page"):
        assert require_output(tmp_path / fitting, kind, overwrite=False) == str(tmp_path / fitting)
