"""The rooms of the package and what may enter them, asserted from the imports themselves."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ooc_train"


def tree(text):
    """The rooms of a design, highest first, each with its files ("core/" has "units", "text").

    Parameters
    ----------
    text : a tree whose unindented lines begin with a room ("store/") or a file ("errors.py"); a
        room inside a room stands below it, two spaces further in. Words are files where a room
        has a file of that name; those in brackets explain the one before them.
    """
    rooms: dict[str, set[str]] = {}
    outer = ""
    for line in text.splitlines():
        name = line.split()[0]
        depth = len(line) - len(line.lstrip())
        if depth <= 2:
            outer = name if depth == 0 else outer
            room = name if depth == 0 else outer + name
            rooms[room] = set()
            line = line.lstrip().removeprefix(name)
        rooms[room].update(re.sub(r"\(.*?\)", "", line).replace(":", " ").split())
    return rooms


def design():
    """The tree that DESIGN.md draws."""
    text = (PACKAGE / "DESIGN.md").read_text(encoding="utf-8")
    return tree(text.partition("## 4. The rooms")[2].split("```")[1].strip("\n"))


DESIGN = design()

# A file imports only from rooms after its own; files of one room may import from each other.
ROOMS_IN_ORDER = ["__main__", "__init__", *(room.removesuffix(".py") for room in DESIGN)]

# Libraries and the only files (or folders) that may import them.
HOMES: dict[str, tuple[str, ...]] = {
    "zarr": ("store/",),
    "numcodecs": ("store/",),
    "crc32c": ("store/",),
    "dask": (
        "stream/executors",
        "stream/dask_executor",
        "stream/cluster_waits",
        "stream/dask_arrays",
        "stream/dask_source",
        "runtime/",
        "monitoring/dashboard/",
    ),
    "distributed": (
        "stream/dask_executor",
        "stream/cluster_waits",
        "stream/dask_arrays",
        "stream/shared",
        "runtime/",
        "monitoring/dashboard/",
    ),
    "jinja2": ("monitoring/html_page", "monitoring/dashboard/"),
    "markupsafe": ("monitoring/html_page", "monitoring/run_page"),
    "bokeh": ("monitoring/dashboard/",),
    "numba": ("kernels/compiled/",),
    "llvmlite": ("kernels/",),
    "sklearn": ("estimators/",),
    "dask_ml": ("estimators/",),
    # Only where a user asks for a DataFrame: `history_` of the estimators, `frame` of tables.
    "pandas": (
        "estimators/",
        "experiments/tradeoff_result",
        "explanation/",
        "inference/group_metrics",
    ),
    "matplotlib": ("plotting/",),
    "torch": ("models/pytorch/", "stream/batching/batch_dataset"),
    "pyarrow": ("tables/",),
    "PIL": ("images/",),
    "dp_accounting": ("solvers/privacy_budget",),
    "onnx": ("exporting/",),
    "onnxruntime": ("exporting/",),
    "typer": ("cli/", "monitoring/callbacks"),
    "rich": ("cli/", "monitoring/callbacks"),
}

FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "pickle.load",
    "pickle.loads",
    "cloudpickle.load",
    "cloudpickle.loads",
}

# What a process of ours must not load: a worker of each would hold hundreds of MB more.
HEAVY = {"sklearn", "pandas", "scipy", "pyarrow", "matplotlib", "bokeh", "torch"}

READERS: dict[str, str] = {
    "core/files": "the reader that all others use",
    "core/replacements": "locks of outputs, whose content is not read",
    "core/temporary_folders": "locks of folders, whose content is not read",
    "core/semaphores": "/proc, which the kernel writes",
    "memory/system": "/proc, which the kernel writes",
    "memory/rlimit": "/proc, which the kernel writes",
}
"""The files that may open what they read, and what that is."""

READS = {
    *("io.open", "os.open", "json.load", "np.load", "numpy.load", "np.fromfile", "np.memmap"),
    *("mmap.mmap", "pickle.Unpickler", "pa.memory_map", "pa.input_stream"),
}
"""Calls that open a file, whatever it is."""

SOURCES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
}
every_file = pytest.mark.parametrize("file", SOURCES)


def room_of(file):
    """The room of a file: "core/" of "core/units", "store/format/" of "store/format/arrays"."""
    folder, _, _ = file.rpartition("/")
    return f"{folder}/" if folder else file


def height(file):
    """The number of the room of a file, from the highest down."""
    return ROOMS_IN_ORDER.index(room_of(file))


def imported(file, source, files):
    """What a source imports: (files of the package, top-level names of other libraries)."""
    ours, others = set(), set()

    def add(name):
        top, *parts = name.split(".")
        if top != "ooc_train":
            others.add(top)
            return
        path = "/".join(parts)
        # The longest prefix that is a file; what follows is a name inside it.
        while path and path not in files and f"{path}/__init__" not in files:
            path = path.rpartition("/")[0]
        ours.add(path if path in files else f"{path}/__init__".lstrip("/"))

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parts = ["ooc_train", *file.split("/")][: -node.level]
                module = ".".join([*parts, *filter(None, [module])])
            for alias in node.names:
                add(f"{module}.{alias.name}")
    return ours - {file}, others


def backward(file, source, files):
    """The imports of a file that run back up."""
    ours, _ = imported(file, source, files)
    room = room_of(file)
    return {
        other
        for other in ours
        if height(other) <= height(file)
        # A room and one inside it may import from each other; circles are looked for elsewhere.
        and not (room_of(other).startswith(room) or room.startswith(room_of(other)))
    }


def homeless(file, source):
    """The libraries that a file imports and may not."""
    _, others = imported(file, source, SOURCES)
    return {
        library
        for library in others & set(HOMES)
        if not any(
            file.startswith(home) if home.endswith("/") else file == home for home in HOMES[library]
        )
    }


UNPICKLES = {"kernels/compiled/__main__": {"pickle.loads"}}
"""Files that make objects of bytes. This one's come through a pipe from the process that started
it, which can hand over a user's own loss by value in no other way."""


def forbidden(source):
    """The lines of a source that do what the package never does."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            found.append((node.lineno, "assert"))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in FORBIDDEN_CALLS:
                found.append((node.lineno, name))
            for keyword in node.keywords:
                if keyword.arg == "shell" and ast.unparse(keyword.value) != "False":
                    found.append((node.lineno, "shell=True"))
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found += [(node.lineno, name) for name in names & FORBIDDEN_CALLS]
    return found


def unchecked(source):
    """The lines of a source that read a file by other means than the reader."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        mode = node.args[1] if len(node.args) > 1 else None
        for keyword in node.keywords:
            mode = keyword.value if keyword.arg == "mode" else mode
        writes = isinstance(mode, ast.Constant) and not set("r+").intersection(str(mode.value))
        opens = name in ("open", "io.open") and not writes
        if name == "os.open":
            flags = ast.unparse(node.args[1]) if len(node.args) > 1 else ""
            # A folder is opened to be locked, or brought to the disk.
            opens = not any(flag in flags for flag in ("O_WRONLY", "O_CREAT", "O_DIRECTORY"))
        if (
            opens
            or name in READS - {"io.open", "os.open"}
            or name.endswith((".read_text", ".read_bytes"))
        ):
            found.append((node.lineno, name))
    return found


@every_file
def test_files_are_read_by_the_one_reader(file):
    if file not in READERS:
        assert unchecked(SOURCES[file]) == []


def test_the_design_names_every_room_and_every_file():
    rooms: dict[str, set[str]] = {}
    for file in SOURCES:
        if "/" in file:
            rooms.setdefault(room_of(file), set()).add(file.rpartition("/")[2])
    rooms = {room: files - {"__init__", "__main__"} for room, files in rooms.items()}
    assert {room.removesuffix(".py") for room in DESIGN} == {*rooms, "errors"}
    for room, files in rooms.items():
        assert files - DESIGN[room] == set(), room
    named = {word for words in DESIGN.values() for word in words if "_" in word}
    assert named - {file for files in rooms.values() for file in files} == set()


def test_nothing_else_lies_in_the_package():
    # Two tables of a trial were once committed with the rest.
    files = {path for path in PACKAGE.rglob("*.*") if path.is_file()}
    ours = {".py", ".pyi", ".pyc", ".md", ".html", ".typed"}
    assert {path.name for path in files if path.suffix not in ours} == set()


def test_no_two_files_have_one_name():
    names = [file.rpartition("/")[2] for file in SOURCES]
    twice = {name for name in names if names.count(name) > 1}
    assert twice <= {"__init__", "__main__"}


def test_no_file_is_long():
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in PACKAGE.rglob("*.py")}
    assert {path.name: n for path, n in lines.items() if n > 400} == {}
    assert sorted(lines.values())[len(lines) // 2] <= 180


@every_file
def test_imports_go_one_way(file):
    assert backward(file, SOURCES[file], SOURCES) == set()


@pytest.mark.slow
def test_no_imports_go_in_circles():
    graph = {file: imported(file, source, SOURCES)[0] for file, source in SOURCES.items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_the_training_page_imports_nothing_of_ours():
    # It travels by value to schedulers that lack the package.
    page = "monitoring/dashboard/"
    for file in [file for file in SOURCES if file.startswith(page)]:
        assert {
            other
            for other in imported(file, SOURCES[file], SOURCES)[0]
            if not other.startswith(page)
        } == set()


@every_file
def test_libraries_stay_in_their_rooms(file):
    assert homeless(file, SOURCES[file]) == set()


@every_file
def test_the_package_has_no_assert_and_runs_no_text(file):
    found = forbidden(SOURCES[file])
    assert {name for _, name in found} == UNPICKLES.get(file, set())


def loaded_by(modules):
    """The top-level names that a fresh process holds once it has imported the modules."""
    code = (
        f"import sys, {', '.join(modules)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def module_name(file):
    return ".".join(["ooc_train", *file.split("/")]).removesuffix(".__init__")


@pytest.mark.slow
@pytest.mark.parametrize("room", ["objective/", "optimizers/", "models/", "solvers/"])
def test_what_is_learned_and_how_know_no_dask_and_no_zarr(room):
    modules = [module_name(file) for file in SOURCES if file.startswith(room)]
    assert loaded_by(modules) & {"dask", "distributed", "zarr", "numcodecs"} == set()


@pytest.mark.parametrize("file", ["__init__", "cli/__init__", "stream/passes"])
def test_what_every_process_loads_is_light(file):
    assert loaded_by([module_name(file)]) & HEAVY == set()


# The alarms ring: each check above is shown a file that breaks its rule.

HOUSE = (
    *("errors", "store/__init__", "store/dataset", "store/format/arrays", "store/writing/rows"),
    *("stream/passes", "training/loop", "__init__"),
)


def test_a_tree_is_read():
    text = "a/   what a does: b (c) d\n     e (a, b)\n  f/ g\nerrors.py   every exception"
    found = tree(text)
    assert list(found) == ["a/", "a/f/", "errors.py"]
    assert found["a/"] >= {"b", "d", "e"}
    assert "c" not in found["a/"]
    assert found["a/f/"] == {"g"}


@pytest.mark.parametrize(
    ("file", "source", "against"),
    [
        ("errors", "import ooc_train.training.loop", {"training/loop"}),
        ("store/dataset", "from ooc_train.stream.passes import reduce", {"stream/passes"}),
        ("store/dataset", "from ooc_train.stream import passes", {"stream/passes"}),
        ("store/dataset", "from ..stream import passes", {"stream/passes"}),
        ("store/dataset", "from ..training import loop", {"training/loop"}),
        ("store/dataset", "def f():\n    from ooc_train.training import loop", {"training/loop"}),
        ("store/format/arrays", "import ooc_train.store.writing.rows", {"store/writing/rows"}),
        ("store/dataset", "import ooc_train.store.format.arrays", set()),
        ("training/loop", "from ooc_train import something", {"__init__"}),
        ("training/loop", "from ooc_train.store import open_store", set()),
        ("store/dataset", "from ooc_train.store import open_store", set()),
        ("store/dataset", "from . import open_store\nfrom ooc_train.errors import E", set()),
        ("stream/passes", "from ooc_train.store.dataset import Store", set()),
        ("__init__", "from ooc_train.training.loop import train", set()),
    ],
)
def test_a_backward_import_is_found(file, source, against):
    assert backward(file, source, HOUSE) == against


@pytest.mark.parametrize(
    ("file", "source", "libraries"),
    [
        ("training/loop", "import zarr.storage", {"zarr"}),
        ("store/dataset", "import zarr", set()),
        ("stream/order", "from dask.delayed import delayed", {"dask"}),
        ("cli/predict_command", "if 0:\n    import pandas as pd, rich", {"pandas"}),
        ("kernels/compiled/parts", "from numba import njit\nimport numpy", set()),
    ],
)
def test_a_library_outside_its_room_is_found(file, source, libraries):
    assert homeless(file, source) == libraries


@pytest.mark.parametrize(
    "source",
    [
        "assert x",
        "eval('1')",
        "pickle.load(file)",
        "from pickle import loads",
        "subprocess.run('ls', shell=True)",
        "f(lambda: exec(code))",
    ],
)
def test_a_forbidden_line_is_found(source):
    assert len(forbidden(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "open(path)",
        "with open(path, 'rb') as file: pass",
        "open(path, mode='r+b')",
        "open(path, encoding='utf-8')",
        "open(path, how)",
        "os.open(path, os.O_RDONLY)",
        "json.load(file)",
        "np.load(path)",
        "Path(path).read_text()",
    ],
)
def test_a_file_that_is_read_unchecked_is_found(source):
    assert len(unchecked(source)) == 1


def test_files_that_are_written_are_not_found():
    source = "open(path, 'w'); open(path, mode='ab'); os.open(p, os.O_WRONLY); store.open(path)"
    assert unchecked(source) == []


def test_harmless_lines_are_not_found():
    assert forbidden("evaluate(); run([], shell=False); pickle.dumps(x); self.exec()") == []
