"""What README and the guide tell a reader to paste: run as it stands, in a folder of a clone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.csv
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "notebooks" / "GUIDE.md").read_text(encoding="utf-8")
DESIGN = (ROOT / "ooc_train" / "DESIGN.md").read_text(encoding="utf-8")

# The only changes to what is run: sizes that would take CI minutes and gigabytes.
SMALLER = {
    "--rows 20M": "--rows 200k",
    "ooc-train demo": "ooc-train demo --size 64MiB",
}

# Installing takes minutes and a network; .ci/package does it, from the wheel.
INSTALL = "python3 -m venv .venv && . .venv/bin/activate && pip install ."

# What each block leaves behind, by how it is known.
LEAVES = {
    "ooc-train demo": [],
    "ooc-train ingest data": ["flights.zarr", "flights.test.zarr", "late.run", "late.csv"],
    "ooc-train split": ["rows.split", "3.run"],
    "make-data big.zarr": [
        "big.zarr",
        "shuffled.zarr",
        "packed.zarr",
        "big.run",
        "predicted.zarr",
    ],
    "ooc_train.batches": ["loop.zarr"],
    "AUGMENTATIONS.add": ["images.run"],
    "TorchClassifier": ["module.zarr", "module.run"],
    "import ooc_train as ooc": ["values.zarr", "robust.run"],
    "from ooc_train import LocalCluster": ["flights.zarr", "late.run", "late.csv"],
}


def blocks(text):
    """The fenced blocks of a text that have a language, as (language, code)."""
    return re.findall(r"^```(sh|python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


# The command that runs the tests would run this one, and so on.
RUN = [
    (language, code) for language, code in blocks(README + GUIDE) if "tests/check.sh" not in code
]  # fmt: skip


def known_as(code):
    (name,) = (name for name in LEAVES if name in code)
    return name


def without_comments(code):
    """The lines of a shell block, less those that only show what is printed."""
    return [line for line in code.splitlines() if not line.startswith("#")]


def test_every_block_is_run_and_known():
    text = README + GUIDE
    assert len(blocks(text)) == text.count("```sh") + text.count("```python")
    assert sorted(known_as(code) for _, code in RUN) == sorted(LEAVES)
    assert all(any(size in code for _, code in RUN) for size in SMALLER)


def test_the_readme_is_short_and_its_links_lead_somewhere():
    assert README.count("\n") <= 150
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_design_is_short():
    lines = DESIGN.splitlines()
    assert len(lines) <= 300
    assert max(map(len, lines)) <= 100


@pytest.mark.slow
@pytest.mark.parametrize(("language", "code"), RUN, ids=[known_as(code) for _, code in RUN])
def test_a_block_runs(tmp_path, language, code):
    for large, small in SMALLER.items():
        code = code.replace(large, small)
    if language == "sh":
        code = code.replace(f"{INSTALL} && ", "").replace(f"{INSTALL}\n", "")
    assert "pip" not in code
    (tmp_path / "data").symlink_to(ROOT / "data")
    script = tmp_path / ("block.py" if language == "python" else "block.sh")
    script.write_text(code, encoding="utf-8")
    command = [sys.executable] if language == "python" else ["bash", "-euo", "pipefail"]
    ran = subprocess.run(
        [*command, str(script)],
        cwd=tmp_path,
        env=os.environ | {"PATH": commands(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert ran.returncode == 0, ran.stderr
    for name in LEAVES[known_as(code)]:
        assert (tmp_path / name).exists(), ran.stdout
    if (tmp_path / "late.csv").exists():
        table = pyarrow.csv.read_csv(tmp_path / "late.csv")
        assert table.num_rows == 327_346
        assert table.column_names[0] == "row_id"


def commands(folder):
    """A PATH with the command as it is installed: this interpreter, on this source."""
    place = folder / "bin"
    place.mkdir()
    command = place / "ooc-train"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ooc_train "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return f"{place}{os.pathsep}{os.environ['PATH']}"
