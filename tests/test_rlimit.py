"""The operating system's limit behind the plan: what takes more than it said is refused."""

import mmap
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import pytest

from ooc_train.core.sums import Arrays, Block, Sums, total_bytes
from ooc_train.errors import CeilingExceeded
from ooc_train.memory import rlimit
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Term
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.column_moments import ColumnSums
from ooc_train.runs.events import Stepped
from ooc_train.runtime.clients import private_client
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.runtime.job import Job
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.requirements import Requirements
from ooc_train.stream.store_source import StoreSource
from ooc_train.training.loop import train
from tests.streams import same_bits, write_store

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is Linux's"),
]

MIB = 2**20
TOO_MUCH = 4 * rlimit.SLACK


def limits(_: object = None) -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_DATA)


@dataclass(frozen=True, eq=False)
class Lying(ColumnSums):
    """Takes room that it doesn't state."""

    def add(self, sums: Sums, block: Block, work: Arrays) -> None:
        np.ones(TOO_MUCH, np.uint8)
        super().add(sums, block, work)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    X = np.random.default_rng(0).normal(size=(500, 3))
    return StoreSource.of(write_store(tmp_path_factory.mktemp("limit") / "a", X, X[:, 0]))


def requirements(source, work):
    return Requirements(
        partition=total_bytes(source.buffers(1)),
        workspace=total_bytes(work.workspace(source.partition_rows)),
    )


@pytest.mark.slow
def test_a_workspace_that_lies_is_refused_and_the_worker_lives(source):
    about = np.zeros(3)
    lying, honest = Lying(about), ColumnSums(about)
    with (
        LocalCluster(
            n_workers=1, memory_ceiling="2GiB", dashboard_address="127.0.0.1:0"
        ) as cluster,
        cluster.get_client() as client,
    ):
        before, [pid] = client.run(limits), client.run(os.getpid).values()
        with Job(source, client=client) as job:
            due = job.stream(job.plan(requirements(source, honest))).reduce(honest)
            [(soft, _)] = client.run(limits).values()
            assert soft < 2**40
        assert client.run(limits) == before
        refusal = r"refused memory \(Unable to allocate.*(?s:.*)projected"
        with pytest.raises(CeilingExceeded, match=refusal), Job(source, client=client) as job:
            job.stream(job.plan(requirements(source, lying))).reduce(lying)
        assert client.run(limits) == before
        assert list(client.run(os.getpid).values()) == [pid]
        with Job(source, client=client) as job:
            again = job.stream(job.plan(requirements(source, honest))).reduce(honest)
        assert same_bits(due, again)


def test_the_users_own_process_keeps_its_limits(source):
    work: Any = ColumnSums(np.zeros(3))
    before = limits()
    with Job(source, client=private_client(), memory_ceiling="8GiB") as job:
        stream = job.stream(job.plan(requirements(source, work)))
        assert limits() == before
        stream.reduce(work)
    assert limits() == before


CODE = """if True:
    import resource
    import numpy as np
    from ooc_train.memory import rlimit

    def refused(size):
        try:
            np.ones(size, np.uint8)
        except MemoryError:
            return True
        return False

    before = resource.getrlimit(resource.RLIMIT_DATA)
    much = 4 * rlimit.SLACK
    assert not refused(much)
    rlimit.allow("a", 2**20)
    assert refused(much)
    assert not refused(2**20)
    rlimit.allow("b", much)   # jobs that overlap have room for both
    assert not refused(much)
    assert refused(2 * much)
    rlimit.lift("b")
    assert refused(much)
    rlimit.lift("b")          # once more does nothing
    rlimit.lift("a")
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert not refused(much)
    resource.setrlimit(resource.RLIMIT_DATA, (2 * much, before[1]))
    rlimit.allow("a", 8 * much)
    assert refused(3 * much)    # a lower limit that was there stays
"""


def test_rows_of_dask_arrays_have_no_limit(tmp_path):
    """Their own graph is not planned: fits on two workers waited for ever for refused blocks."""
    X = da.random.default_rng(1).normal(size=(400_000, 30), chunks=(50_000, 30))
    y = (X[:, 0] + X[:, 1] > 0.3).astype("i1")
    store = write_store(tmp_path / "a", np.asarray(X[:500]), np.asarray(y[:500]))
    found: list[set[tuple[int, int]]] = []
    with (
        LocalCluster(n_workers=2, memory_ceiling="1GiB") as cluster,
        cluster.get_client() as client,
    ):
        before = set(client.run(limits).values())

        def look(event: object) -> None:
            if isinstance(event, Stepped):
                found.append(set(client.run(limits).values()))

        for batch_size in ("full", 256, "full", 256):
            training = Training(batch_size=batch_size, max_iter=2)
            _, report = train(LogisticModel(), X, training, y=y, client=client, callbacks=[look])
            assert any("own graph" in note for note in report.memory.notes)
        assert all(each == before for each in found)
        train(LogisticModel(), store, Training(max_iter=1), client=client, callbacks=[look])
    assert found[-1] != before


def test_limits_of_jobs_that_overlap():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", CODE], env=environment, check=True)


def test_a_job_of_one_process_is_refused_what_it_has_no_plan_for() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    terms = [Term("buffers", MIB, "a chunk")]
    with (  # noqa: PT012
        pytest.raises(CeilingExceeded, match=r"was refused memory .*\n(.*\n)*buffers +1 MiB"),
        Budget(64 * MIB) as budget,
    ):
        budget.require(terms)
        np.ones(2**26)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with Budget(64 * MIB) as budget:
        budget.require(terms)
        assert resource.getrlimit(resource.RLIMIT_DATA) != before
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert np.ones(2**26).sum() == 2**26


def test_addresses_that_allocators_reserve_meanwhile_leave_room_for_what_is_planned() -> None:
    rlimit.allow("a", 8 * 2**30)
    try:
        # As Arrow's allocator does, between the start of a job and its plan.
        with mmap.mmap(-1, 2**30, flags=mmap.MAP_PRIVATE):
            rlimit.allow("a", 32 * MIB)
            assert np.ones(24 * MIB, np.uint8).sum() == 24 * MIB
    finally:
        rlimit.lift("a")
