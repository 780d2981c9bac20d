"""A few kills of the benchmark `kills`, whose jobs go on to the bits of unbroken ones."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.killing import run_forked

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_killed_jobs_go_on_to_the_same_bits():
    names = [word for name in ("lbfgs", "adamw", "shuffle", "follow") for word in ("--only", name)]
    words = [sys.executable, "-m", "tests.benchmarks.kills", "--kills", "4", *names]
    ran = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "0 of which ended otherwise" in ran.stdout


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
