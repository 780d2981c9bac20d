"""The benchmark of faults in a size that fits, and that it tells good outcomes from bad ones."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.faults.children import Ended
from tests.benchmarks.faults.mutations import spoil_bytes, spoil_json
from tests.benchmarks.faults.outcomes import Outcome, ending

ROOT = Path(__file__).parent.parent
TRACEBACK = 'Traceback (most recent call last):\n  File "ooc_train/a.py", line 1\nKeyError: 1\n'


def ended(status, err="", *, too_large=False):
    return Ended(status, "", err, 1.0, 0, too_large)


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (ended(0), Outcome.FINE),
        (ended(0, "note: all is well\n"), Outcome.FINE),
        (ended(1, "1,000 rows\nerror: a.csv is empty\n"), Outcome.REFUSED),
        (ended(1, "error: no column for:\n  a\n  b\n"), Outcome.REFUSED),
        (ended(1, "error: too little\nreserved  12 MiB  it\nleft  -5 MiB\n"), Outcome.REFUSED),
        (ended(2, "Usage: ooc-train\n"), Outcome.REFUSED),
        (ended(1, TRACEBACK), Outcome.TRACEBACK),
        (ended(0, TRACEBACK), Outcome.TRACEBACK),
        (ended(0, "/lib/zarr/group.py:9: UserWarning: what is this\n"), Outcome.TRACEBACK),
        (ended(1), Outcome.TRACEBACK),
        (ended(1, "error: no\nmore of it; and more\n"), Outcome.TRACEBACK),
        (ended(-11), Outcome.TRACEBACK),
        (ended(None), Outcome.HANG),
        (ended(-9, too_large=True), Outcome.MEMORY),
    ],
)
def test_what_came_of_a_command(end, outcome):
    assert ending(end, "a command").outcome is outcome


def test_a_traceback_is_told_in_a_line():
    assert ending(ended(1, TRACEBACK), "it").text == "it: KeyError: 1 (elsewhere)"


@pytest.mark.parametrize("seed", range(50))
def test_json_is_changed_in_one_place_by_the_seed_alone(seed):
    text = json.dumps({"a": [1, {"b": 2.5}, "x"], "c": None, "d": {"e": True}})
    changed, done = spoil_json(text, random.Random(seed))
    assert (changed, done) == spoil_json(text, random.Random(seed))
    assert done
    assert spoil_bytes(b"0123", random.Random(seed)) == spoil_bytes(b"0123", random.Random(seed))


HOOKED = """
import os, sys
from tests.benchmarks.faults import hooks
os.chdir(sys.argv[1])
hooks.install(sys.argv[1], hooks.killed_at(int(sys.argv[2])))
open("a", "w").close()
open("a").close()
open("/dev/null", "w").close()
os.rename("a", "b")
os.mkdir("c")
os.unlink("b")
"""


@pytest.mark.parametrize(
    ("point", "left"), [(0, []), (1, ["a"]), (2, ["b"]), (3, ["b", "c"]), (4, ["c"])]
)
def test_a_process_is_killed_just_before_what_it_is_about_to_do(tmp_path, point, left):
    words = [sys.executable, "-c", HOOKED, str(tmp_path), str(point)]
    status = subprocess.run(words, cwd=ROOT, check=False).returncode
    assert status == (0 if point == 4 else -9)
    assert sorted(os.listdir(tmp_path)) == left


@pytest.mark.slow
def test_no_case_of_any_kind_ends_badly():
    # A minute of the benchmark, by counts: what it does depends on its seed alone.
    words = [sys.executable, "-m", "tests.benchmarks.faults", "--count", "1", "--seed", "0"]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
