"""What a run's processes held over time: sampled, thinned, and said of whom."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from ooc_train.memory import timeline
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling
from ooc_train.memory.measured import MemoryReport
from ooc_train.memory.processes import ProcessMemory, held_by, measure
from ooc_train.memory.timeline import MemoryTimeline, Sampler
from ooc_train.models.classification_models import LogisticModel
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.runtime.meter import Meter
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.stream.executors import LocalExecutor
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.loop import train

pytestmark = pytest.mark.alone

MIB = 2**20
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def wait_for(condition: Any, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


class Clock:
    """What a run holds by a count of looks, and the time, at the test's command."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks = 0
        monkeypatch.setattr(timeline, "perf_counter", lambda: 10.0 + self.looks)

    def look(self) -> dict[str, int]:
        self.looks += 1
        return {"driver": self.looks} | ({"worker 0": 100} if self.looks > 2 else {})


def test_samples_are_of_the_time_since_the_job_began(monkeypatch):
    clock = Clock(monkeypatch)
    sampler = Sampler(clock.look, 8.0)
    for _ in range(4):
        sampler.take()
    sampler._ended.set()
    found = sampler.stop()
    # A process that came later held nothing before.
    assert found.seconds == (2.0, 3.0, 4.0, 5.0)
    assert found.processes == {"driver": (1, 2, 3, 4), "worker 0": (0, 0, 100, 100)}
    assert found.total == (1, 2, 103, 104)


def test_many_samples_are_thinned_and_taken_more_slowly(monkeypatch):
    clock = Clock(monkeypatch)
    sampler = Sampler(clock.look, 10.0)
    for _ in range(257):
        sampler.take()
    assert sampler._interval == 2 * timeline._INTERVAL_SECONDS
    for _ in range(128):
        sampler.take()
    assert sampler._interval == 4 * timeline._INTERVAL_SECONDS
    sampler._ended.set()
    seconds = sampler.stop().seconds
    assert len(seconds) <= 256
    assert seconds[0] == 0.0
    assert seconds[:3] == (0.0, 4.0, 8.0)


def test_the_thread_ends_with_the_job_and_there_is_a_first_and_a_last_sample(monkeypatch):
    clock = Clock(monkeypatch)
    sampler = Sampler(clock.look, 10.0)
    sampler.start()
    found = sampler.stop()
    assert not sampler._thread.is_alive()
    assert len(found.seconds) >= 2
    looks = clock.looks
    assert sampler.stop() == found
    assert clock.looks == looks


def test_nothing_to_see_is_an_empty_timeline():
    sampler = Sampler(dict, 0.0)
    sampler.start()
    assert sampler.stop() == MemoryTimeline()
    assert MemoryTimeline().total == ()


def test_a_memory_report_reads_back():
    times = MemoryTimeline((0.5, 1.0), {"driver": (1, 2), "worker 0": (3, 4)})
    processes = (ProcessMemory(1, "driver", 5, 5),)
    report = MemoryReport(10, 1, 9, 5, processes, {"baseline": 1}, "given", ("a note",), times)
    assert MemoryReport.from_json(asdict(report)) == report
    # As releases before wrote it.
    older = {name: value for name, value in asdict(report).items() if name != "timeline"}
    assert MemoryReport.from_json(older) == replace(report, timeline=MemoryTimeline())


@linux
def test_what_a_process_holds_quickly_is_what_it_holds_thoroughly():
    own = measure()
    assert held_by(own.pid, own.share) == pytest.approx(measure().current, abs=4 * MIB)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessLookupError, match="has ended"):
            held_by(ended.pid, 0)


@linux
def test_a_process_that_ends_is_no_more_and_its_successor_takes_its_place(monkeypatch):
    meter = Meter(LocalExecutor(), whole=False, before=0)
    meter.prepare({"float32": ()})
    worker = "import time, multiprocessing.spawn; time.sleep(60)"
    children = [subprocess.Popen([sys.executable, "-c", worker]) for _ in range(2)]
    # Other tests' clusters have workers among this process's children too.
    monkeypatch.setattr("ooc_train.runtime.meter.measure_tree", lambda: [measure(children[1].pid)])
    try:
        first, second = (measure(child.pid) for child in children)
        meter._watch(measure(), [first])
        assert list(meter.now()) == ["driver", "worker 0"]
        children[0].kill()
        children[0].wait()
        assert list(meter.now()) == ["driver"]
        found: dict[str, int] = {}
        for _ in range(16):  # one of so many looks is for new processes
            found = meter.now()
        assert list(found) == ["driver", "worker 0"]
        assert second.pid in meter._watched
    finally:
        for child in children:
            child.kill()
            child.wait()


def test_workers_on_other_machines_are_left_out_and_it_is_said():
    meter = Meter(LocalExecutor(), whole=False, before=0)
    own = measure()
    # A worker of another machine may have the number of any process of ours.
    meter._watch(own, [None, replace(own, pid=os.getppid(), share=0), None])
    assert list(meter.now()) == ["driver", "worker 1"]
    assert meter.notes == ["the timeline covers this machine only, without 2 of 3 workers"]


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_fit_has_a_timeline_of_its_processes(tmp_path, monkeypatch, elsewhere):
    store = make_data(tmp_path / "a.zarr", rows=20_000, features=10)
    if elsewhere:
        monkeypatch.setattr("ooc_train.runtime.meter.pid_namespace", lambda: "this one")
    with (
        LocalCluster(n_workers=2, dashboard_address="127.0.0.1:0") as cluster,
        cluster.get_client() as client,
    ):
        _, report = train(LogisticModel(), read_inputs(store, classifier=True), client=client)
    memory = report.memory
    names = [process.name for process in memory.processes]
    assert names == ["driver", "worker 0", "worker 1"]
    assert list(memory.timeline.processes) == (["driver"] if elsewhere else names)
    assert any("2 of 2 workers" in note for note in memory.notes) is elsewhere
    seconds = memory.timeline.seconds
    assert sorted(seconds) == list(seconds)
    assert 0 < seconds[0] < seconds[-1]
    # The same measure as the peaks: each process holds something, and no more than its peak.
    for process in memory.processes:
        held = memory.timeline.processes.get(process.name, (0,))
        assert max(held) <= process.peak + 4 * MIB
    if not elsewhere:
        assert min(memory.timeline.processes["worker 0"]) > 20 * MIB


@linux
def test_a_fit_of_arrays_has_a_timeline_of_this_process():
    X = np.random.default_rng(0).normal(size=(1000, 3))
    inputs = read_inputs(X, (X[:, 0] > 0).astype(int), classifier=True)
    _, report = train(LogisticModel(), inputs)
    memory = report.memory
    assert list(memory.timeline.processes) == ["driver"]
    assert max(memory.timeline.total) <= memory.measured + 4 * MIB


@linux
@pytest.mark.parametrize("whole", [False, True])
def test_a_job_of_one_process_has_a_timeline_of_what_counts_of_it(whole):
    with Budget(Ceiling(2**33, "given", whole)) as budget:
        # Far more than what earlier tests of this process may give back meanwhile.
        held = np.ones(256 * MIB // 8)
        wait_for(lambda: max(budget._sampler._samples[-1][1].values()) > 60 * MIB)
        report = budget.report([])
        del held
    assert list(report.timeline.processes) == ["this process"]
    assert 60 * MIB < max(report.timeline.total) <= report.measured + 4 * MIB
    # What the process held before counts on the command line alone.
    assert (report.timeline.total[0] > 40 * MIB) is whole
    assert MemoryReport.from_json(asdict(report)) == report


def test_a_job_of_one_process_that_fails_leaves_no_thread():
    with pytest.raises(KeyError), Budget("1GiB"):
        raise KeyError
    assert "ooc_train-sampler" not in {thread.name for thread in threading.enumerate()}


def test_a_fit_that_fails_leaves_no_thread(tmp_path):
    store = make_data(tmp_path / "a.zarr", rows=1000, features=3)

    def fail(event: Any) -> None:
        raise RuntimeError("a callback failed")

    with pytest.raises(RuntimeError, match="a callback failed"):
        train(LogisticModel(), store, callbacks=[fail])
    assert "ooc_train-sampler" not in {thread.name for thread in threading.enumerate()}
