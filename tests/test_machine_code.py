"""Machine code: compiled apart, kept in a file that only its user can have written."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from numba import types

from ooc_train.models import kernels, machine_code
from ooc_train.models.compiled import entries, parts

ADD_UP = """if True:
    import sys
    import numpy as np
    from ooc_train.models import kernels, machine_code
    one, sums, cells = np.ones((1, 1)), np.zeros(1), np.zeros((2, 1))
    compiled = machine_code._compiled
    def counted(dtype):
        print("compiled")
        return compiled(dtype)
    machine_code._compiled = counted
    args = one[0], one, np.zeros(1), 0, one.copy(), one.copy(), np.zeros((1, 2)), sums, cells
    kernels.add_rows(one, 3 * one, *args)
    print(sums[0], *sorted(m for m in ("numba", "llvmlite") if m in sys.modules))
"""


def run(code, **environment):
    """Run code in a process that has nothing but what it is given, and return what it printed."""
    command = [sys.executable, "-P", "-c", code]
    given = {"PATH": os.environ["PATH"], **environment}
    done = subprocess.run(command, env=given, check=True, capture_output=True, text=True)
    return done.stdout.split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cache with the machine code of this user's."""
    kernels.load("f8")
    folder = tmp_path_factory.mktemp("cache")
    folder.chmod(0o700)
    shutil.copy2(machine_code._path("float64"), folder)
    return folder


def test_what_runs_has_no_numba(folder):
    found = run(ADD_UP, OOC_TRAIN_CACHE_DIR=str(folder), PYTHONPATH=os.pathsep.join(sys.path))
    assert found == ["2.0", "llvmlite"]


def damaged(file):
    file.write_bytes(file.read_bytes()[:-1] + b"!")


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [Path.unlink, damaged, lambda file: file.chmod(0o666), lambda file: os.truncate(file, 40)],
    ids=["missing", "damaged", "anyone may write it", "cut"],
)
def test_what_is_not_whole_or_not_ours_is_compiled_again(folder, tmp_path, change):
    shutil.copytree(folder, tmp_path / "cache")
    cache = tmp_path / "cache"
    [file] = cache.iterdir()
    change(file)
    environment = {"OOC_TRAIN_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}
    assert run(ADD_UP, **environment) == ["compiled", "2.0", "llvmlite"]
    assert run(ADD_UP, **environment) == ["2.0", "llvmlite"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.slow
def test_a_changed_loss_is_never_served_from_the_cache(folder, tmp_path):
    shutil.copytree(
        Path(machine_code.__file__).parents[1],
        tmp_path / "ooc_train",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    losses = tmp_path / "ooc_train" / "models" / "losses.py"
    old = "return 0.5 * (z - y) * (z - y)"
    assert old in losses.read_text()
    losses.write_text(losses.read_text().replace(old, "return 7.0 * (z - y) * (z - y)"))
    environment = {
        "OOC_TRAIN_CACHE_DIR": str(folder),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
    }
    assert run(ADD_UP, **environment) == ["compiled", "28.0", "llvmlite"]


def test_a_folder_that_others_may_write_is_not_used(tmp_path, monkeypatch):
    shared, file = tmp_path / "shared", tmp_path / "file"
    shared.mkdir()
    shared.chmod(0o777)
    file.touch()
    for place in (shared, file / "below"):
        monkeypatch.setenv("OOC_TRAIN_CACHE_DIR", str(place))
        machine_code._folder.cache_clear()
        try:
            used = machine_code._folder()
            assert not used.startswith(str(tmp_path / "shared"))
            assert stat.S_IMODE(os.stat(used).st_mode) == 0o700
            os.rmdir(used)
        finally:
            machine_code._folder.cache_clear()


def test_a_compiler_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_code, "_path", lambda dtype: str(tmp_path / "none" / dtype))
    with pytest.raises(RuntimeError, match=r"could not be compiled by .*(?s:.*)No such file"):
        machine_code._compiled("float32")


def test_a_kernel_that_needs_python_is_refused():
    def raising(seed, order):
        if len(order) == 0:
            raise ValueError("nothing to shuffle")

    with pytest.raises(RuntimeError, match=r"shuffle needs .*Py.*: let nothing in it raise"):
        entries._machine_code("shuffle", parts.part(raising), types.float64)


def test_every_kernel_is_compiled_and_described():
    assert entries._SOURCES.keys() == machine_code.KERNELS.keys()
    source = Path(kernels.__file__).read_text()
    assert set(re.findall(r'_kernel\("(\w+)"', source)) == set(machine_code.KERNELS)
