"""Machine code: compiled apart, kept in a file that only its user can have written."""

import os
import re
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from ooc_train.errors import ClusterError
from ooc_train.kernels import known_arrays, machine_code
from ooc_train.kernels.compiled import entries, parts
from ooc_train.kernels.plain import PLAIN
from ooc_train.kernels.specs import KERNELS, KernelSpec
from ooc_train.objective.losses import LOSSES
from ooc_train.optimizers import OPTIMIZERS
from tests.streams import write_store
from tests.test_core_files import lay

ADD_UP = """if True:
    import sys
    import numpy as np
    from ooc_train.kernels import api as kernels
    from ooc_train.objective.losses import LOSSES
    one, sums, cells = np.ones((1, 1)), np.zeros(1), np.zeros((2, 1))
    loss = LOSSES["squared"]()
    args = one[0], one, np.zeros(1), loss, one.copy(), one.copy(), np.zeros((1, 2)), sums, cells
    args = *args, one[0]
    kernels.add_rows(one, 3 * one, *args)
    print(sums[0], *sorted(m for m in ("numba", "llvmlite") if m in sys.modules))
"""

PATH_OF = """if True:
    from ooc_train.kernels import machine_code
    from ooc_train.kernels.specs import KernelSpec
    from ooc_train.objective.losses import LOSSES
    from ooc_train.optimizers import OPTIMIZERS
    spec = KernelSpec("scan_groups", LOSSES["logistic"], OPTIMIZERS["adam"])
    print(machine_code._path(spec, "float64"))
"""


def run(code, **environment):
    """Run code in a process that has nothing but what it is given, and return what it printed."""
    command = [sys.executable, "-P", "-c", code]
    given = {"PATH": os.environ["PATH"], **environment}
    done = subprocess.run(command, env=given, check=True, capture_output=True, text=True)
    return done.stdout.split()


@pytest.mark.slow
def test_what_runs_has_no_numba_and_what_compiled_is_found_again(tmp_path):
    cache = tmp_path / "cache"
    environment = {"OOC_TRAIN_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}
    assert run(ADD_UP, **environment) == ["2.0", "llvmlite"]
    [file] = cache.iterdir()
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in (cache, file)] == [0o700, 0o600]
    compiled = file.stat().st_mtime_ns
    assert run(ADD_UP, **environment) == ["2.0", "llvmlite"]
    assert [found.stat().st_mtime_ns for found in cache.iterdir()] == [compiled]


CODE = b"\0scan\n\n"
SCAN = KernelSpec("scan_groups", LOSSES["logistic"], OPTIMIZERS["adam"])


@pytest.mark.parametrize(
    "change",
    [
        Path.unlink,
        lambda file: file.write_bytes(file.read_bytes()[:-1] + b"!"),
        lambda file: os.truncate(file, 40),
        lambda file: file.write_bytes(b""),
        lambda file: file.chmod(0o660),
        lambda file: file.chmod(0o606),
    ],
    ids=["missing", "damaged", "cut", "empty", "its group may write it", "anyone may write it"],
)
def test_what_is_not_whole_or_not_ours_is_not_read(tmp_path, change):
    file = tmp_path / "code"
    machine_code.write(str(file), CODE)
    assert machine_code._read(str(file)) == CODE
    change(file)
    assert machine_code._read(str(file)) is None
    machine_code.write(str(file), CODE)
    assert machine_code._read(str(file)) == CODE


def test_what_another_user_wrote_is_not_read(tmp_path, monkeypatch):
    file = str(tmp_path / "code")
    machine_code.write(file, CODE)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(file).st_uid + 1)
    assert machine_code._read(file) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "optimizers/averaging.py",
        "kernels/layout.py",
        "kernels/compiled/scanning.py",
    ],
)
def test_a_changed_source_is_never_served_from_the_cache(tmp_path, name):
    package = Path(machine_code.__file__).parents[1]
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, tmp_path / "ooc_train", ignore=ignored)
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    assert run(PATH_OF, **environment) == [machine_code._path(SCAN, "float64")]
    with open(tmp_path / "ooc_train" / name, "a") as file:
        file.write("# changed\n")
    assert run(PATH_OF, **environment) != [machine_code._path(SCAN, "float64")]


@pytest.fixture
def cached(monkeypatch):
    """Returns the folder that is used where a place is asked for, and why not that one."""

    def ask(variable, place):
        monkeypatch.setenv(variable, str(place))
        machine_code._lasting.cache_clear()
        return machine_code.folder()

    monkeypatch.delenv("OOC_TRAIN_CACHE_DIR", raising=False)
    yield ask
    machine_code._lasting.cache_clear()


@pytest.mark.parametrize("variable", ["OOC_TRAIN_CACHE_DIR", "XDG_CACHE_HOME"])
def test_a_folder_that_others_may_write_is_not_used(tmp_path, cached, variable):
    shared, file, link = tmp_path / "shared", tmp_path / "file", tmp_path / "link"
    shared.mkdir()
    shared.chmod(0o777)
    (shared / "own").mkdir(mode=0o700)  # which anyone may rename, and put another in its place
    link.symlink_to(shared / "own")
    file.touch()
    for place in (shared, shared / "own", shared / "new", link, file / "below"):
        used = cached(variable, place)
        assert not used.startswith(str(tmp_path))
        assert stat.S_IMODE(os.stat(used).st_mode) == 0o700
    # Nothing was made there, where it would have been somebody else's to keep.
    assert [path.name for path in shared.iterdir()] == ["own"]
    assert list((shared / "own").iterdir()) == []
    shared.chmod(0o1777)
    ours = shared / "own" / ("" if variable == "OOC_TRAIN_CACHE_DIR" else "ooc_train")
    assert cached(variable, link) == str(ours)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_no_folder_of_another_users_is_used(tmp_path, cached):
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    (theirs / "ooc_train").mkdir(mode=0o700)  # root's own, below: a cache as `sudo -E` leaves one
    os.chown(theirs, 65534, 65534)
    assert not cached("XDG_CACHE_HOME", theirs).startswith(str(tmp_path))
    os.chown(theirs, 0, 0)
    assert cached("XDG_CACHE_HOME", theirs) == str(theirs / "ooc_train")


@pytest.mark.parametrize(
    "place", ["private", "readable", "writable", "a link", "another's", "a file", "gone", ""]
)
def test_the_folder_of_the_driver_is_used_only_if_it_is_private(tmp_path, monkeypatch, place):
    told = tmp_path / "told"
    modes = {"readable": 0o750, "writable": 0o770}
    if place == "a link":
        (tmp_path / "private").mkdir(mode=0o700)
        told.symlink_to(tmp_path / "private")
    elif place == "a file":
        told.touch(mode=0o700)
    elif place != "gone":
        told.mkdir()
        told.chmod(modes.get(place, 0o700))
    monkeypatch.setattr(machine_code, "_lasting", lambda: None)
    monkeypatch.setattr(machine_code, "_temporary", lambda: "own")
    monkeypatch.setattr(machine_code, "_told", str(told) if place else "")
    if place == "another's":
        monkeypatch.setattr(os, "geteuid", lambda: os.stat(told).st_uid + 1)
    assert machine_code.folder() == (str(told) if place == "private" else "own")


RUN = """
    import sys, tempfile
    from pathlib import Path
    from ooc_train import LocalCluster, LogisticRegression
    if __name__ == "__main__":
        with LocalCluster(n_workers=2, dashboard_address="127.0.0.1:0") as made, made.get_client():
            model = LogisticRegression(solver="lbfgs", max_iter=1).fit(sys.argv[1])
        found = list(Path(tempfile.gettempdir()).glob("ooc_train.kernels-*/*"))
        print(len(found), *{oct(path.parent.stat().st_mode & 0o777) for path in found})
        print(*(note for note in model.report_.memory.notes if "compiled" in note))
"""


@pytest.mark.slow
def test_without_a_cache_a_run_compiles_once_and_leaves_nothing(tmp_path):
    rows = np.random.default_rng(0).normal(size=(1000, 3)).astype("f4")
    write_store(tmp_path / "a.zarr", rows, (rows[:, 0] > 0).astype("u1"), classes=[0, 1])
    (tmp_path / "temporary").mkdir()
    (tmp_path / "script.py").write_text(textwrap.dedent(RUN))
    (tmp_path / "no-folder").touch()
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "a.zarr")],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OOC_TRAIN_CACHE_DIR": str(tmp_path / "no-folder" / "below"),
            "TMPDIR": str(tmp_path / "temporary"),
        },
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files, note = done.stdout.splitlines()
    assert files == "1 0o700"
    # The compiler is told of, with what it held.
    assert re.search(r"compiled, once a run,.*; [\d.]+ s and [\d.]+ MiB", note)
    assert not list((tmp_path / "temporary").glob("ooc_train*"))


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("echo one >&2; echo No such file >&2; exit 3", "ended with 3: No such file"),
        ("exit 0", "ended with 0: it said nothing"),  # and it has written nothing
    ],
)
def test_a_compiler_that_fails_says_why(tmp_path, monkeypatch, does, told):
    compiler = tmp_path / "python"
    compiler.write_text(f"#!/bin/sh\n{does}\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(compiler))
    with pytest.raises(
        ClusterError, match=f"shuffle could not be compiled by {compiler} .* float32, .*{told}"
    ):
        machine_code._compiled({KernelSpec("shuffle"): str(tmp_path / "shuffle")}, "float32")


def test_a_kernel_that_needs_python_is_refused():
    def raising(arguments):
        if len(arguments.order) == 0:
            raise ValueError("nothing to shuffle")

    with pytest.raises(RuntimeError, match=r"shuffle needs .*Py.*: let nothing in it raise"):
        entries.machine_code_of(KernelSpec("shuffle"), parts.part(raising), "float64")


def test_every_kernel_has_a_source_a_plain_route_and_known_arguments():
    assert entries.SOURCES.keys() == PLAIN.keys() == KERNELS.keys()
    for kernel in KERNELS:
        loss = LOSSES["huber"] if kernel.startswith(("add_rows", "scan")) else None
        spec = KernelSpec(kernel, loss)
        assert len(known_arrays.known_arguments(spec, np.dtype("f4"))) == len(spec.parameters)


@pytest.mark.parametrize("what", ["folder", "pipe", "device"])
def test_something_else_in_the_place_of_the_code_is_left_there(tmp_path, cached, what):
    tmp_path.chmod(0o700)
    cached("OOC_TRAIN_CACHE_DIR", tmp_path)
    place = Path(machine_code._path(SCAN, "float64"))
    assert place.parent == tmp_path
    lay(place, what)
    assert machine_code._read(str(place)) is None
    elsewhere = Path(machine_code._path(SCAN, "float64"))
    assert elsewhere.name == place.name
    assert elsewhere.parent != tmp_path
    assert os.path.lexists(place)
