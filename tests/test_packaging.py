"""What installs the package says the same everywhere, and is true on the systems it names."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

import ooc_train

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ON_CONDA = {"dask": "dask-core", "matplotlib": "matplotlib-base"}

# As on macOS: this package sees no /proc and none of Linux's calls, in workers too.
SITE = """
import builtins, os, sys
import psutil

def of_the_package(depth):
    return "ooc_train" in sys._getframe(depth + 1).f_code.co_filename

def hiding(function):
    def call(path, *more, **named):
        if str(path).startswith("/proc") and (of_the_package(1) or of_the_package(2)):
            raise FileNotFoundError(2, "No such file or directory", path)
        return function(path, *more, **named)
    return call

class Platform(str):
    __hash__ = str.__hash__
    def startswith(self, *more):
        return ("darwin" if of_the_package(1) else str(self)).startswith(*more)
    def __eq__(self, other):
        return ("darwin" if of_the_package(1) else str(self)) == other

builtins.open = hiding(builtins.open)
for name in ("listdir", "stat", "readlink", "open"):
    setattr(os, name, hiding(getattr(os, name)))
for name in ("sched_getaffinity", "posix_fadvise", "O_TMPFILE"):
    if hasattr(os, name):
        delattr(os, name)
sys.platform = Platform(sys.platform)
"""

JOB = """
import os, sys
import ooc_train as ooc
from ooc_train.memory.processes import held_by, measure
from ooc_train.memory.system import available_memory, in_container, machine_memory

def main():
    assert not hasattr(os, "posix_fadvise")
    assert 2**20 < measure().current <= measure().peak < machine_memory()
    assert 2**20 < held_by(os.getppid(), 0) < machine_memory()
    assert 0 < available_memory() <= machine_memory() and not in_container()
    store = ooc.make_data("a.zarr", rows=2_000, features=4, random_state=0)
    assert sum(len(y) for _, y in ooc.batches("a.zarr", 256)) == 2_000
    with ooc.LocalCluster(n_workers=1, memory_ceiling="1GiB") as cluster, cluster.get_client():
        model = ooc.LogisticRegression().fit("a.zarr")
    memory = model.report_.memory
    assert 2**20 < memory.measured <= memory.ceiling
    print(*memory.notes, sep="\\n")

if __name__ == "__main__":
    main()
"""


def required(requirement):
    """A requirement as its name and its version."""
    name, _, version = requirement.partition(">=")
    return name.strip(), version.strip()


def test_the_conda_recipe_is_that_of_the_project():
    recipe = yaml.safe_load((ROOT / ".ci" / "recipe.yaml").read_text(encoding="utf-8"))
    project = PROJECT["project"]
    due = {
        (ON_CONDA.get(name, name), version)
        for name, version in map(required, project["dependencies"])
    } | {("python", project["requires-python"].removeprefix(">=")), ("__unix", "")}
    assert set(map(required, recipe["requirements"]["run"])) == due
    host = dict(map(required, recipe["requirements"]["host"]))
    build = dict(map(required, PROJECT["build-system"]["requires"]))
    assert {name: host[name] for name in build} == build
    assert host["python"] == project["requires-python"].removeprefix(">=")
    assert recipe["package"] == {"name": project["name"], "version": ooc_train.__version__}
    (command,) = recipe["build"]["python"]["entry_points"]
    assert dict([command.split(" = ")]) == project["scripts"]
    assert recipe["about"]["license"] == project["license"]
    assert recipe["about"]["summary"] == project["description"]


@pytest.mark.slow
def test_examples_of_a_file_alone_leave_nothing_in_the_tree():
    files = ("old.csv", "new.csv", "rows.zarr")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--doctest-modules"]
    done = subprocess.run(
        [*command, "ooc_train/store/jobs/append.py"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert not [name for name in files if (ROOT / name).exists()]


def test_on_windows_the_way_out_is_told():
    code = "import sys; sys.platform = 'win32'; import ooc_train"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].endswith("on Windows use WSL")


@pytest.mark.slow
def test_without_what_linux_alone_has_a_fit_degrades_with_a_note(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    (tmp_path / "job.py").write_text(JOB, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "job.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stderr
    assert "this system reports only the resident memory of processes" in ran.stdout
