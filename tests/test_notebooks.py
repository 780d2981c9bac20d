"""The notebooks run, but for some sizes as they are, and those kept hold what they came to."""

import base64
import re
import sys

import pytest

from tests.notebooks import NOTEBOOKS, ROOT, execute

nbformat, _, _ = (
    pytest.importorskip(name, reason=f"no {name}: pip install '.[notebooks]'")
    for name in ("nbformat", "nbclient", "ipykernel")
)

FOLDER = ROOT / "notebooks"
PATHS = re.compile(r"/(?:tmp|root|work|home|Users|var|builds)\b[\w./-]*")
PICTURES = {"image/png", "image/jpeg"}

# The only changes to what is run: sizes of what takes long, whose cells do the same with less. The
# store of the third is larger than its ceiling still.
SMALLER = {
    "3_memory_ceilings": {'rows="3M"': 'rows="1M"'},
    "4_on_a_cluster": {'rows="500k"': 'rows="100k"'},
    "5_your_own_loss": {"max_iter=10,": "max_iter=3,"},
}


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def shown(output):
    """The text of an output, whatever kind it has, and not its pictures."""
    data = {kind: text for kind, text in output.get("data", {}).items() if kind not in PICTURES}
    return str([output.get("text", ""), output.get("traceback", ""), data])


def pictures(notebook):
    return [
        base64.b64decode(output.data["image/png"])
        for output in outputs(notebook)
        if "image/png" in output.get("data", {})
    ]


def require_in_order(notebook):
    """All cells ran, one after the other, and none failed."""
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert "error" not in {output.output_type for output in outputs(notebook)}


def test_there_are_twelve_and_readme_and_guide_list_them():
    assert [path.name.partition("_")[0] for path in NOTEBOOKS] == [str(i) for i in range(1, 13)]
    for file in (ROOT / "README.md", FOLDER / "GUIDE.md"):
        text = file.read_text(encoding="utf-8")
        assert all(f"notebooks/{path.name}" in text for path in NOTEBOOKS), file


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_was_executed_in_order_and_tells_nothing_of_its_machine(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    require_in_order(notebook)
    assert outputs(notebook)
    assert "stderr" not in {output.get("name") for output in outputs(notebook)}
    assert not PATHS.findall("\n".join(map(shown, outputs(notebook))))
    assert not PATHS.findall("\n".join(cell.source for cell in notebook.cells))
    assert "2 cores of a" in notebook.cells[0].source.replace("\n", " ")  # what was measured where


def test_what_is_kept_is_small():
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir() if path.is_file()}
    assert max(sizes.values()) < 2**20, sizes


def test_the_flights_are_found_from_the_root_and_from_the_folder(monkeypatch):
    for path in NOTEBOOKS[:2]:
        first = code_cells(nbformat.read(path, as_version=4))[0].source
        (line,) = (line for line in first.splitlines() if line.startswith("flights = "))
        for folder in (ROOT, FOLDER):
            monkeypatch.chdir(folder)
            names: dict = {}
            exec(f"from pathlib import Path\n{line}", names)
            assert names["flights"].resolve() == ROOT / "data" / "flights.parquet"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    """And shows as many pictures as the one that is kept, and leaves nothing behind."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    kept = {file.name for file in FOLDER.iterdir()}
    executed = execute(path, FOLDER, SMALLER.get(path.stem))  # raises where a cell fails
    require_in_order(executed)
    assert all(picture.startswith(b"\x89PNG") for picture in pictures(executed))
    assert len(pictures(executed)) == len(pictures(nbformat.read(path, as_version=4)))
    assert {file.name for file in FOLDER.iterdir()} == kept
    assert not list(tmp_path.rglob("*.zarr"))


@pytest.mark.slow
def test_the_kernel_is_this_interpreter_on_this_source(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))  # where another kernel of that name lies
    other = tmp_path / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text('{"argv": ["false"], "display_name": "other"}')
    cell = nbformat.v4.new_code_cell("import sys, ooc_train\nprint(sys.executable)\nooc_train")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    nbformat.write(notebook, tmp_path / "which.ipynb")
    printed, package = outputs(execute(tmp_path / "which.ipynb", tmp_path))
    assert printed.text.strip() == sys.executable
    assert str(ROOT / "ooc_train") in package.data["text/plain"]
