"""A tenth of the thousand kills of the benchmark: jobs go on to the bits of unbroken ones."""

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.killing import run_forked

ROOT = Path(__file__).parent.parent


def started(folder, kills, seed, names, *words):
    """Start the benchmark for jobs by name, which writes to a folder."""
    chosen = [word for name in names for word in ("--only", name)]
    count = ("--kills", f"{kills}", "--seed", f"{seed}")
    given = [sys.executable, "-m", "tests.benchmarks.kills", *count, *chosen, *words]
    return subprocess.Popen(
        given, cwd=ROOT, stdout=PIPE, stderr=PIPE, text=True, env=os.environ | {"TMPDIR": folder}
    )


def require_same_bits(process):
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    found = re.search(r"([0-9,]+) kills in .* 0 of which ended otherwise", said)
    assert found is not None, said
    return int(found[1].replace(",", ""))


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_a_hundred_kills_and_each_job_goes_on_to_the_same_bits(tmp_path):
    # Two benchmarks at a time, one for each core of CI; jobs on stores take half the time.
    training = started(tmp_path, 30, 0, ("newton", "lbfgs", "adamw"), "--threads")
    storing = started(tmp_path, 70, 1, ("append", "follow", "ingest", "shuffle"), "--threads")
    with ExitStack() as stack:
        for each in (training, storing):
            stack.callback(each.kill)
        assert require_same_bits(training) + require_same_bits(storing) >= 100


@pytest.mark.slow
def test_jobs_of_other_clusters_go_on_to_the_same_bits(tmp_path):
    require_same_bits(started(tmp_path, 4, 0, ("lbfgs", "adamw")))


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_fork_is_killed_or_fails_or_ends(capfd):
    def forever():
        while True:
            pass

    assert run_forked(forever, kill_after=0.01)
    assert not run_forked(int, "3")
    with pytest.raises(AssertionError):
        run_forked(int, "three")
    assert "ValueError" in capfd.readouterr().err
