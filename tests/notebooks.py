"""Executing the notebooks, as their test does; `python -m tests.notebooks` writes them anew.

Whatever kernels are installed for the user, they run on this interpreter and this source.
"""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(
    (ROOT / "notebooks").glob("*.ipynb"), key=lambda path: int(path.name.partition("_")[0])
)


def execute(path: Path, folder: Path, instead: Mapping[str, str] | None = None) -> Any:
    """Return a notebook executed in a folder, from its sources alone, without a network.

    Parameters
    ----------
    path : of the notebook
    folder : where it is executed
    instead : texts that are replaced in the one cell that has them, and by what

    Raises
    ------
    ValueError
        where no cell has such a text, or several do.
    nbclient.exceptions.CellExecutionError
        where a cell fails.
    """
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    for old, new in (instead or {}).items():
        (cell,) = (cell for cell in notebook.cells if old in cell.source)
        cell.source = cell.source.replace(old, new)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    with tempfile.TemporaryDirectory() as scratch:
        manager = KernelManager(
            kernel_name="python3",
            # Without folders to look in, python3 is this interpreter, whatever is installed.
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            connection_file=os.path.join(scratch, "kernel.json"),
            transport="ipc",
            ip=os.path.join(scratch, "ipc"),
        )
        client = NotebookClient(notebook, km=manager, timeout=240, record_timing=False)
        env = os.environ | {
            "PYTHONPATH": str(ROOT),
            "IPYTHONDIR": scratch,
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        }
        return client.execute(cwd=str(folder), env=env, cleanup_kc=True)


def main() -> None:
    """Execute notebooks, those whose names begin as is said or all, and write them anew."""
    import nbformat

    for path in NOTEBOOKS:
        if path.name.startswith(tuple(sys.argv[1:]) or ""):
            nbformat.write(execute(path, path.parent), path)
            print(path.name)


if __name__ == "__main__":
    main()
