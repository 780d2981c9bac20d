"""Which cluster a job runs on."""

import gc
import socket
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import distributed
import numpy as np
import pytest
from distributed import Client

from ooc_train.core.sums import total_bytes
from ooc_train.errors import CeilingExceeded
from ooc_train.models.column_moments import ColumnSums
from ooc_train.runtime.clients import choose_executor, private_client
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.runtime.job import Job
from ooc_train.runtime.starting import free_address
from ooc_train.stream.requirements import Requirements
from ooc_train.stream.store_source import StoreSource
from tests.streams import write_store

pytestmark = pytest.mark.alone


def test_the_client_of_as_current_goes_before_the_one_made_last():
    source: Any = object()  # rows that lie elsewhere
    choose: Any = choose_executor
    with (
        distributed.LocalCluster(
            n_workers=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as first,
        Client(cluster) as second,
    ):
        assert choose(source).client is second
        with first.as_current():
            assert choose(source).client is first
        assert choose(source, first).client is first


def rows(path):
    X = np.random.default_rng(0).normal(size=(2_000, 3))
    return StoreSource.of(write_store(path, X, X[:, 0], chunk_rows=100))


def requirements(source, work):
    return Requirements(
        total_bytes(source.buffers(1)), total_bytes(work.workspace(source.partition_rows))
    )


@pytest.mark.slow
def test_the_limits_that_dask_shows_are_shares_of_the_ceiling_and_limit_nothing(tmp_path):
    source, work = rows(tmp_path / "a"), ColumnSums(np.zeros(3))
    with (
        LocalCluster(
            n_workers=2, memory_ceiling="1GiB", dashboard_address="127.0.0.1:0"
        ) as cluster,
        cluster.get_client() as client,
    ):
        found = [worker.memory_limit for worker in cluster.scheduler.workers.values()]
        assert found == [2**29, 2**29]
        assert "memory=1.00 GiB" in repr(client)
        with Job(source, client=client) as job:
            plan = job.plan(requirements(source, work))
            assert plan.processes.limits == (0, 0)
            assert str(job.ceiling) == "1 GiB (the cluster's)"
        # Without the cluster's object too: as another process finds it.
        with (
            Client(cluster.scheduler_address, security=cluster.security) as other,
            Job(source, client=other) as job,
        ):
            assert job.plan(requirements(source, work)).processes.limits == (0, 0)


@pytest.mark.slow
def test_workers_of_others_have_limits_that_are_kept(tmp_path):
    source, work = rows(tmp_path / "a"), ColumnSums(np.zeros(3))
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, memory_limit="1GiB",
            host="127.0.0.1", dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        with Job(source, client=client) as job:
            plan = job.plan(requirements(source, work))
            limit = int(0.8 * 2**30)  # beyond which Dask pauses a worker
            assert plan.processes.limits == (limit, limit)
            assert str(job.ceiling) == "1.6 GiB (its workers' limits)"
            total = job.stream(plan).reduce(work)
            assert total["weight"] == 2_000
            assert any("belong to another cluster" in note for note in job.memory(plan).notes)
        # A given ceiling goes before theirs, and is no more than a ceiling.
        with Job(source, client=client, memory_ceiling="2GiB") as job:
            assert str(job.ceiling) == "2 GiB (given)"
            large = replace(requirements(source, work), workspace=2**29)
            plan = job.plan(large)
            # Room for one task at a time and not for two, in either worker.
            assert plan.fits
            assert large.partition + 2**29 <= plan.config.pool_bytes < 2 * 2**29
            with pytest.raises(
                CeilingExceeded,
                match=r"worker 0 may hold 819 MiB by its cluster's limit, and would need 1.\d+ GiB",
            ):
                job.stream(job.plan(replace(large, workspace=2**30)))


def test_workers_that_live_here_are_under_the_ceiling_of_this_process(tmp_path):
    source = rows(tmp_path / "a")
    with Job(source, client=private_client()) as job:
        plan = job.plan(requirements(source, ColumnSums(np.zeros(3))))
        assert (plan.processes.workers, plan.processes.limits) == ((), ())
        assert job.ceiling.source == "half of what is available"
        assert job.memory(plan).notes == ()


def test_workers_are_ended_before_a_job_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("dask.system.CPU_COUNT", 3)
    source, work = rows(tmp_path / "a"), ColumnSums(np.zeros(3))
    large = replace(requirements(source, work), shared=2**29)  # which each worker holds
    cluster: Any
    with (
        LocalCluster(memory_ceiling="1500MiB", dashboard_address="127.0.0.1:0") as cluster,
        cluster.get_client() as client,
    ):
        assert cluster.chooses_workers
        assert len(cluster.workers) == 3
        with Job(source, client=client) as job:
            plan = job.plan(large)
            assert plan.fits
            assert (len(plan.processes.workers), len(client.nthreads())) == (2, 2)
            assert job.stream(plan).reduce(work)["weight"] == 2_000
            assert (
                "a worker was ended before the run, because the ceiling is too small for them"
                in (job.memory(plan).notes)
            )
            # Nobody is blamed for it, and none is started again.
            assert cluster.endings.statuses == []
            cluster.restart_missing_workers()
            assert len(cluster.worker_spec) == 2
        with Job(source, client=client) as job:
            # None is where even that would not do, and the plan says what one would need.
            hopeless = job.plan(replace(large, shared=2**31))
            assert (hopeless.fits, len(hopeless.processes.workers)) == (False, 1)
            assert len(client.nthreads()) == 2
            # Nor where their number was given.
            cluster.chooses_workers = False
            refused = job.plan(replace(large, shared=2**30))
            assert (refused.fits, len(refused.processes.workers)) == (False, 2)
            assert len(client.nthreads()) == 2


def test_the_ceiling_is_decided_before_the_private_cluster_is_started(tmp_path, monkeypatch):
    source, available = rows(tmp_path / "a"), [2**40]
    monkeypatch.setattr("ooc_train.memory.ceiling.available_memory", lambda: available[0])
    monkeypatch.setattr("ooc_train.memory.ceiling.in_container", lambda: True)
    large = replace(requirements(source, ColumnSums(np.zeros(3))), workspace=500 * 2**20)
    with Job(source) as job:
        needed = job.plan(large).smallest_ceiling

    def start(*arguments, **settings):
        available[0] //= 3
        return choose_executor(*arguments, **settings)

    monkeypatch.setattr("ooc_train.runtime.job.choose_executor", start)
    available[0] = told = needed * 20 // 13  # of which 65 % are needed
    with Job(source) as job:
        assert job.ceiling.limit == told // 2
        plan = job.plan(large)
        assert plan.threads == 1
        assert told / 2 < plan.projected == plan.ceiling.limit < 0.8 * told
        assert plan.ceiling.source.startswith("what the job needs, ")
        job.stream(plan)
        with pytest.raises(
            CeilingExceeded, match=r"ceiling is [\d.]+ \wiB \(80 % of what is available\)"
        ):
            job.stream(job.plan(replace(large, workspace=told)))


def test_a_taken_port_leaves_the_dashboard_another(recwarn):
    """Tornado leaves the socket open that found the port taken, of which Python warns."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with LocalCluster(n_workers=1, dashboard_address=f"127.0.0.1:{port}") as cluster:
            assert urlsplit(cluster.dashboard_link).port not in (None, 0, port)
        assert free_address(f"localhost:{port}") == "localhost:0"
        assert free_address(f"[::1]:{port}") == f"[::1]:{port}"
    gc.collect()
    assert not recwarn.list
    for address in (
        f"127.0.0.1:{port}",
        ":8787",
        "nowhere.invalid:8787",
        "127.0.0.1",
        "127.0.0.1:99999",
    ):
        assert free_address(address) == address
