"""Forked processes: they have one thread, and nothing that needs others."""

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from ooc_train.core import threads
from ooc_train.core.threads import one_blas_thread
from ooc_train.memory import budget
from ooc_train.memory.budget import PeakWatch
from tests.streams import write_store

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")

SCRIPT = """
import multiprocessing, os, sys, warnings
import numpy as np
from ooc_train import LogisticRegression, open_store
from ooc_train.errors import ClusterError
from ooc_train.models.classification_models import LogisticModel
from ooc_train.training.loop import train

warnings.simplefilter("ignore", DeprecationWarning)  # of Python, that forks with threads may hang
how, path = sys.argv[1:]
client = None

def fit():
    return LogisticRegression(solver="lbfgs").fit(open_store(path)).coef_.tobytes()

def check():
    if client is not None:
        try:
            train(LogisticModel(), open_store(path), client=client)
        except ClusterError as error:
            print(error, flush=True)
    assert fit() == expected

if __name__ == "__main__":
    from ooc_train import LocalCluster
    if how == "client":
        client = LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0").get_client()
    expected = fit()
    child = os.fork()
    if not child:
        check()
        # Python itself waits at exit for processes that another has started.
        (sys.exit if how == "private" else os._exit)(3)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    process = multiprocessing.get_context("fork").Process(target=fit)
    process.start()
    process.join()
    assert expected == fit()
    print(status, process.exitcode)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["private", "client"])
def test_a_fit_in_a_forked_process_ends_and_gives_the_same(tmp_path, how):
    X = np.random.default_rng(0).normal(size=(300, 3))
    path = write_store(tmp_path / "a", X, (X[:, 0] > 0).astype(int), chunk_rows=50)
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, script, how, str(getattr(path, "path", path))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert (done.returncode, done.stderr) == (0, "")
    *told, status = done.stdout.splitlines()
    assert status == "3 0"
    assert len(told) == (how == "client")
    if told:
        assert told[0].startswith("the client belongs to the process that this one was forked from")


def elsewhere(manager):
    """Enter a context manager in another thread, which stays inside until it is told to leave."""
    inside, leave = threading.Event(), threading.Event()

    def stay():
        with manager:
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=stay)
    thread.start()
    assert inside.wait(30)
    return thread, leave


def in_a_fork(check):
    """Return whether a check holds in a forked process."""
    child = os.fork()
    if not child:
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_other_threads_were_at_counts_for_nothing():
    blas, leave_blas = elsewhere(one_blas_thread())
    job, leave_job = elsewhere(PeakWatch(whole_process=True))

    def check():
        with threads._lock, budget._lock:
            pass
        alone = threads._limiter is None
        with PeakWatch(whole_process=True) as watch, one_blas_thread():
            return alone and not watch.notes and threads._limiter is not None

    try:
        with threads._lock, budget._lock:  # as threads that the fork comes in the midst of
            assert in_a_fork(check)
        assert threads._limiter is not None
    finally:
        for thread, leave in ((blas, leave_blas), (job, leave_job)):
            leave.set()
            thread.join()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_the_thread_itself_is_at_goes_on():
    def check():
        return threads._limiter is not None and threads._inside.total() == 1

    with one_blas_thread():
        assert in_a_fork(check)
    assert threads._limiter is None
