"""Output is whole or not there, whatever happens meanwhile, and replaces only what was meant."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ooc_train.core import atomic, output_kinds, renames
from ooc_train.core.atomic import PartialOutput, write_file
from ooc_train.core.cache_files import replace_file
from ooc_train.core.output_kinds import FILE, RUN, STORE, Kind, require_output
from ooc_train.core.renames import remove, rename_exclusive
from ooc_train.errors import LeftoversRemoved, OutputExists, SavedElsewhere

KINDS = [FILE, STORE, RUN]

MOMENTS = {
    "identity": (Kind, "identity"),
    "trial": (output_kinds, "_try_to_write"),
    "naming": (atomic, "hidden_paths"),
}
"""Functions that look at the place, by name."""


def fill(path: str, kind: Kind, text: str) -> None:
    """Write an output of a kind that holds a text."""
    (Path(path) / kind.markers[0] if kind.markers else Path(path)).write_text(text)


def text_of(path: Path, kind: Kind) -> str:
    return (path / kind.markers[0] if kind.markers else path).read_text()


def make(path: Path, kind: Kind, text: str, *, overwrite: bool = False) -> None:
    with PartialOutput(path, kind, overwrite=overwrite) as output:
        fill(output.partial_path, kind, text)
        output.commit()


def make_plainly(path: Path, kind: Kind, text: str) -> None:
    """Make an output as another program would."""
    if kind.markers:
        path.mkdir()
    fill(str(path), kind, text)


@pytest.fixture(params=["linux", "other"], autouse=True)
def renaming(request, monkeypatch):
    """Renames with the flags of Linux, and without, as on other file systems."""
    if request.param == "other":
        monkeypatch.setattr(renames, "_rename_with_flag", lambda *_: False)
    return request.param


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_committed_lies_there_and_nothing_beside_it(tmp_path, kind):
    make(tmp_path / "a", kind, "one")
    assert text_of(tmp_path / "a", kind) == "one"
    with pytest.raises(
        OutputExists, match="exists already; choose another name, or replace it by overwrite=True"
    ):
        make(tmp_path / "a", kind, "two")
    make(tmp_path / "a", kind, "two", overwrite=True)
    assert text_of(tmp_path / "a", kind) == "two"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", [False, True])
def test_what_is_not_committed_leaves_what_was_there(tmp_path, kind, before):
    path = tmp_path / "deep" / "down" / "a"
    if before:
        make(path, kind, "one")
    with PartialOutput(path, kind, overwrite=True) as output:
        fill(output.partial_path, kind, "two")
    assert os.listdir(path.parent) == ["a"] if before else os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_of_its_kind_is_replaced(tmp_path, kind):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("ten years")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "notes").write_text("more")
    for name in ("papers", "link", "notes"):
        if not (kind == FILE and name == "notes"):
            with pytest.raises(OutputExists, match=f"is no {kind.name}, so it is not written over"):
                make(tmp_path / name, kind, "new", overwrite=True)
    assert (tmp_path / "papers" / "thesis.tex").read_text() == "ten years"
    assert sorted(os.listdir(tmp_path)) == ["link", "notes", "papers"]


def appear(path: Path, what: str) -> None:
    if what == "file":
        path.write_text("of somebody")
    elif what == "link":
        path.symlink_to("nowhere")
    elif what == "folder":
        path.mkdir()
        (path / "thesis.tex").write_text("ten years")
    else:
        make_plainly(path, STORE, "another")


def seen(path: Path) -> list[str]:
    """All that lies at a path, with what is in it."""
    if path.is_symlink():
        return [os.readlink(path)]
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return [f"{file.name}: {file.read_text()}" for file in files]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["file", "link", "folder", "store"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_meanwhile_is_never_replaced(tmp_path, kind, what, overwrite):
    path = tmp_path / "a.out"
    with PartialOutput(path, kind, overwrite=overwrite) as output:
        fill(output.partial_path, kind, "mine")
        appear(path, what)
        before = seen(path)
        with pytest.raises(OutputExists, match="was made or changed by another process"):
            output.commit()
    assert seen(path) == before
    assert os.listdir(tmp_path) == ["a.out"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_while_the_place_is_checked_is_never_replaced(
    tmp_path, kind, moment, overwrite, monkeypatch
):
    path, (owner, name) = tmp_path / "a", MOMENTS[moment]
    real = getattr(owner, name)

    def late(*arguments):
        monkeypatch.setattr(owner, name, real)
        found = real(*arguments)
        make_plainly(path, kind, "of somebody")
        return found

    monkeypatch.setattr(owner, name, late)
    # What was there before anything was looked at may be replaced, if that was asked for.
    if moment == "naming" and overwrite:
        make(path, kind, "mine", overwrite=True)
        assert text_of(path, kind) == "mine"
    else:
        with pytest.raises(OutputExists):
            make(path, kind, "mine", overwrite=overwrite)
        assert text_of(path, kind) == "of somebody"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_made_may_be_saved_elsewhere(tmp_path, kind):
    path = tmp_path / "a.out"
    (tmp_path / "a-1.out").write_text("taken, too")
    with PartialOutput(path, kind) as output:
        fill(output.partial_path, kind, "mine")
        path.write_text("of somebody")
        with pytest.warns(SavedElsewhere, match=r"a\.out was made .* saved in .*a-2\.out"):
            assert output.commit(elsewhere=True) == str(tmp_path / "a-2.out")
    assert text_of(tmp_path / "a-2.out", kind) == "mine"
    assert path.read_text() == "of somebody"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", ["another", "changed", "gone"])
def test_what_was_to_be_replaced_may_change_meanwhile(tmp_path, kind, change):
    path = tmp_path / "a"
    make(path, kind, "old")
    with PartialOutput(path, kind, overwrite=True) as output:
        fill(output.partial_path, kind, "mine")
        if change != "changed":
            remove(str(path))
        if change == "another":
            shutil.copytree(tmp_path / ".a.partial", path) if kind.markers else path.write_text("x")
        if change == "changed":
            fill(str(path), kind, "changed")
        if change == "gone":
            output.commit()
        else:
            with pytest.raises(OutputExists, match="was made or changed"):
                output.commit()
    assert text_of(path, kind) == {"another": "mine" if kind.markers else "x"}.get(
        change, "changed" if change == "changed" else "mine"
    )
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("renaming", ["linux"], indirect=True)  # others have no exchange
def test_a_change_just_before_the_exchange_is_undone(tmp_path, monkeypatch, renaming):
    path, real = tmp_path / "a", renames._rename_with_flag
    make(path, STORE, "old")

    def late(source: str, target: str, flag: int) -> bool:
        monkeypatch.setattr(renames, "_rename_with_flag", real)
        fill(str(path), STORE, "changed")
        return real(source, target, flag)

    with PartialOutput(path, STORE, overwrite=True) as output:
        fill(output.partial_path, STORE, "mine")
        monkeypatch.setattr(renames, "_rename_with_flag", late)
        with pytest.raises(OutputExists, match="was made or changed"):
            output.commit()
    assert text_of(path, STORE) == "changed"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path, kind):
    make(tmp_path / "a", kind, "old")
    (tmp_path / "link").symlink_to("a")
    make(tmp_path / "link", kind, "new", overwrite=True)
    assert text_of(tmp_path / "a", kind) == "old"
    assert text_of(tmp_path / "link", kind) == "new"
    assert sorted(os.listdir(tmp_path)) == ["a", "link"]


# ------------------------------------------------------------------------------ two processes


@pytest.mark.parametrize("kind", KINDS)
def test_one_writes_at_a_time(tmp_path, kind):
    with PartialOutput(tmp_path / "a", kind) as output:
        fill(output.partial_path, kind, "mine")
        with pytest.raises(OutputExists, match=r"another process is writing .*; wait for it"):
            PartialOutput(tmp_path / "a", kind)
        output.commit()
    assert text_of(tmp_path / "a", kind) == "mine"


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_of_what_was_renamed_meanwhile_is_none(tmp_path, kind, monkeypatch):
    first = PartialOutput(tmp_path / "a", kind, overwrite=True)
    fill(first.partial_path, kind, "first")

    def late(fd: int, how: int) -> None:
        monkeypatch.undo()
        first.commit()
        fcntl.flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with PartialOutput(tmp_path / "a", kind, overwrite=True) as second:
        assert text_of(tmp_path / "a", kind) == "first"
        fill(second.partial_path, kind, "second")
        # It began before the first was there, and so it was not meant to replace it.
        with pytest.raises(OutputExists, match="was made or changed"):
            second.commit()
    assert text_of(tmp_path / "a", kind) == "first"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("renaming", "ending"),
    [("linux", "commit"), ("linux", "discard"), ("other", "discard")],  # others have no exchange
    indirect=["renaming"],
)
def test_what_is_being_removed_is_nobodys_place_to_write_to(
    tmp_path, kind, ending, monkeypatch, renaming
):
    path, real, refused = tmp_path / "a", renames._remove_once, []
    make(path, kind, "old")

    def slowly(gone: str) -> None:
        with pytest.raises(OutputExists, match="another process is writing"):
            PartialOutput(path, kind, overwrite=True)
        refused.append(gone)
        monkeypatch.setattr(renames, "_remove_once", real)
        real(gone)
        # From here on the place is free, and what is there is another's.
        other.append(PartialOutput(path, kind, overwrite=True))

    other: list[PartialOutput] = []
    with PartialOutput(path, kind, overwrite=True) as output:
        fill(output.partial_path, kind, "new")
        monkeypatch.setattr(renames, "_remove_once", slowly)
        output.commit() if ending == "commit" else output.discard()
    assert len(refused) == 1
    assert text_of(path, kind) == ("new" if ending == "commit" else "old")
    with other[0]:
        fill(other[0].partial_path, kind, "another")
        other[0].commit()
    assert text_of(path, kind) == "another"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_locks_names_of_their_own_keep_processes_apart(tmp_path, kind, monkeypatch):
    def lacking(fd: int, how: int) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", lacking)
    with (
        PartialOutput(tmp_path / "a", kind) as first,
        PartialOutput(tmp_path / "a", kind) as second,
    ):
        assert first.partial_path != second.partial_path
        fill(first.partial_path, kind, "first")
        fill(second.partial_path, kind, "second")
        first.commit()
        with pytest.raises(OutputExists):
            second.commit()
    assert text_of(tmp_path / "a", kind) == "first"
    assert os.listdir(tmp_path) in (["a"], [".a.partial", "a"], ["a", ".a.partial"])


# ----------------------------------------------------------------------------------- killed


KILLED = """
import os, sys, warnings
from pathlib import Path
from ooc_train.core import renames
from tests.test_atomic import KINDS, make, text_of

kind, before, renaming = KINDS[int(sys.argv[2])], sys.argv[3] == "True", sys.argv[4]
warnings.simplefilter("ignore")
if renaming == "other":
    renames._rename_with_flag = lambda *_: False

def killed_at(nth):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event in {"ooc_train.rename", "os.rename", "os.remove", "os.rmdir", "os.link",
                     "os.mkdir", "shutil.rmtree", "open", "os.truncate"}:
            seen += str(path.parent) in str(arguments)
            if seen == nth:
                os._exit(9)
    sys.addaudithook(hook)
    make(path, kind, "new", overwrite=True)
    os._exit(0)

for nth in range(1, 40):
    folder = Path(sys.argv[1], str(nth))
    folder.mkdir()
    path = folder / "a"
    if before:
        make(path, kind, "old")
    child = os.fork()
    if not child:
        killed_at(nth)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        assert text_of(path, kind) == "new"
        break
    assert code == 9
    # Two renames of a folder are two: the next writer undoes the first.
    if os.path.lexists(path):
        assert text_of(path, kind) in ({"old", "new"} if before else {"new"})
    else:
        assert not before or kind.markers and renaming == "other"
    make(path, kind, "next", overwrite=True)
    assert text_of(path, kind) == "next"
    assert os.listdir(folder) == ["a"], os.listdir(folder)
print(nth)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", [False, True])
def test_killed_anywhere_it_is_old_or_new_and_the_next_one_clears_up(
    tmp_path, kind, before, renaming
):
    arguments = [str(tmp_path), str(KINDS.index(kind)), str(before), renaming]
    command = [sys.executable, "-c", KILLED, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert 3 < int(ended.stdout) < 39


def test_a_second_name_of_what_was_committed_is_no_place_to_write_to(tmp_path):
    make(tmp_path / "a", FILE, "old")
    os.link(tmp_path / "a", tmp_path / ".a.partial")
    with PartialOutput(tmp_path / "a", FILE, overwrite=True):
        assert text_of(tmp_path / "a", FILE) == "old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_killed_process_left_is_removed_and_told(tmp_path, kind):
    output = PartialOutput(tmp_path / "a", kind)
    fill(output.partial_path, kind, "half")
    os.close(output._lock)  # as the end of the process does
    with pytest.warns(LeftoversRemoved, match=r"removed what an earlier process.* beside .*a$"):
        make(tmp_path / "a", kind, "whole")
    assert text_of(tmp_path / "a", kind) == "whole"
    assert os.listdir(tmp_path) == ["a"]


def test_what_was_replaced_does_not_come_back_for_one_that_was_deleted(tmp_path):
    make(tmp_path / ".a.replaced", STORE, "replaced long ago by what was then deleted")
    with pytest.warns(LeftoversRemoved):
        make(tmp_path / "a", STORE, "new")
    assert text_of(tmp_path / "a", STORE) == "new"
    assert os.listdir(tmp_path) == ["a"]


def test_a_kill_between_two_renames_is_undone(tmp_path):
    make(tmp_path / ".a.replaced", STORE, "old")
    make(tmp_path / ".a.partial", STORE, "new")
    with pytest.raises(OutputExists, match="exists already"):
        PartialOutput(tmp_path / "a", STORE)
    assert text_of(tmp_path / "a", STORE) == "old"


# --------------------------------------------------------------------------------- extremes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 240, 246, 247, 255])
def test_names_of_every_length(tmp_path, kind, length):
    name = "ü" * (length // 2) + "a" * (length % 2)
    make(tmp_path / name, kind, "one")
    make(tmp_path / name, kind, "two", overwrite=True)
    assert text_of(tmp_path / name, kind) == "two"
    assert os.listdir(tmp_path) == [name]


def test_a_place_within_a_file_or_one_that_is_read_only(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a", Path("/sys/kernel/a")):
        with pytest.raises(OSError, match="no file can be saved there; choose another place"):
            require_output(path, FILE, overwrite=False)
    assert os.listdir(tmp_path) == ["file"]


def test_permissions_are_the_usual(tmp_path):
    before = os.umask(0o027)
    try:
        for kind in KINDS:
            make(tmp_path / kind.name, kind, "")
        modes = {path.name: oct(path.stat().st_mode)[-3:] for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"file": "640", "Zarr": "750", "run": "750"}


def test_a_folder_is_renamed_to_no_name_that_is_taken(tmp_path):
    for name in ("source", "empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "file").write_text("")
    for name in ("empty", "full"):
        with pytest.raises(FileExistsError):
            rename_exclusive(str(tmp_path / "source"), str(tmp_path / name))
    assert len(os.listdir(tmp_path)) == 3


def test_a_small_file_on_a_full_disk(tmp_path, monkeypatch):
    write_file(tmp_path / "a", b"old", overwrite=False)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"the disk is full: .* \(nothing of it was committed\)"):
        write_file(tmp_path / "a", b"new", overwrite=True)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_of_a_cache_is_replaced_and_old_remains_go(tmp_path):
    fresh, stale = tmp_path / ".partial-a.1", tmp_path / ".partial-a.2"
    for path in (fresh, stale):
        path.write_bytes(b"half")
    os.utime(stale, (time.time() - 7200,) * 2)
    replace_file(str(tmp_path / "a"), b"one")
    replace_file(str(tmp_path / "a"), b"two")
    assert (tmp_path / "a").read_bytes() == b"two"
    assert sorted(os.listdir(tmp_path)) == [fresh.name, "a"]
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(str(tmp_path / "b"), b"one")
    assert sorted(os.listdir(tmp_path)) == [fresh.name, "a", "b"]
