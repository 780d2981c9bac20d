"""Who may connect to our clusters: nobody without the key, and nobody without the link."""

import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import textwrap
import urllib.error
import urllib.request
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dask
import distributed
import pytest
from bokeh.client import pull_session
from distributed import Client
from tornado.routing import PathMatches

from ooc_train.core import places
from ooc_train.errors import ClusterError
from ooc_train.memory.processes import process_tree
from ooc_train.runtime import security as security_module
from ooc_train.runtime.clients import connect, private_client, training_link
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.runtime.guarded_cluster import GuardedCluster
from ooc_train.runtime.security import security_of_run
from ooc_train.store.jobs.synthetic import make_data

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@contextmanager
def cluster(**settings):
    with LocalCluster(
        n_workers=1, memory_ceiling="1GiB", dashboard_address="127.0.0.1:0", **settings
    ) as made:
        yield made


ROUTES = "distributed.scheduler.http.routes"
API = "distributed.http.scheduler.api"
"""What a user may add to the web server, and what could change something there."""


@pytest.fixture(scope="module")
def guarded():
    with dask.config.set({ROUTES: [*dask.config.get(ROUTES), API]}), cluster() as made:
        yield made


def status(url, method="GET"):
    """The status of the answer to a request, redirects followed."""
    request = urllib.request.Request(url, method=method, data=b"{}" if method == "POST" else None)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


# What another user can try, who knows every address of a cluster but not its key. Whatever it needs
# is loaded before it becomes that user, who may not be let into the folder of this Python.
ATTACK = """
    import asyncio, json, os, sys
    import cloudpickle
    from distributed import Client, LocalCluster, Security
    from distributed.core import rpc

    wanted, strange, *addresses = sys.argv[1:]
    own = Security(
        require_encryption=True, tls_ca_file=f"{strange}/certificate.pem",
        tls_client_cert=f"{strange}/certificate.pem", tls_client_key=f"{strange}/key.pem",
    )

    def steal(path):
        with open(path) as file:
            return file.read()

    async def attempt(address, security, timeout):
        call = {"function": cloudpickle.dumps(steal), "args": cloudpickle.dumps((wanted,))}
        for name in ("run", "run_function"):  # as workers and nannies, and as schedulers call it
            async with rpc(address, connection_args=security, timeout=timeout) as remote:
                try:
                    return (await getattr(remote, name)(**call))["result"]
                except (AttributeError, TypeError, ValueError) as error:
                    missing = error
        raise missing

    def steal_by(address, security, timeout=20):
        try:
            return str(asyncio.run(asyncio.wait_for(attempt(address, security, timeout), timeout)))
        except BaseException as error:
            return f"refused: {type(error).__name__}"

    # The key is one of this user's, so that nothing of it lies in the way.
    arguments = [Security(require_encryption=False).get_connection_args("client"),
                 own.get_connection_args("client")]
    with LocalCluster(n_workers=1, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0",
                      worker_dashboard_address="127.0.0.1:0") as warm:
        steal_by(warm.scheduler_address, arguments[0])
    steal_by("tls://127.0.0.1:1", arguments[1], 0.5)  # Dask tries until the time is over
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    found = {}
    try:
        found["itself"] = steal(wanted)
    except PermissionError:
        found["itself"] = "refused"
    for address in addresses:
        for scheme, given in zip(("tcp", "tls"), arguments):
            found[f"{scheme} {address}"] = steal_by(f"{scheme}://{address}", given)
    print(json.dumps(found))
"""


def attacked(tmp_path, addresses):
    """What another user has of a file of ours, by each way to each address."""
    treasure, strange = tmp_path / "treasure", tmp_path / "strange"
    treasure.write_text("gold")
    treasure.chmod(0o600)
    strange.mkdir(exist_ok=True)
    for file in strange.iterdir():
        file.unlink()
    security_of_run(str(strange))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ATTACK), treasure, strange, *addresses],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("itself") == "refused"
    assert len(found) == 2 * len(addresses)
    return found


def listening(*pids):
    """The addresses that processes listen on, by the kernel: HOST:PORT."""
    sockets = set()
    for pid in pids:
        for file in Path(f"/proc/{pid}/fd").iterdir():
            try:
                sockets.add(os.readlink(file))
            except FileNotFoundError:
                continue
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, state, inode = (line.split()[i] for i in (1, 3, 9))
        if state == "0A" and f"socket:[{inode}]" in sockets:
            host, _, port = local.partition(":")
            octets = [str(int(host[i : i + 2], 16)) for i in (6, 4, 2, 0)]
            found.append(f"{'.'.join(octets)}:{int(port, 16)}")
    return sorted(found)


def addresses_of(made):
    """Where the scheduler, the nannies and the workers of a cluster listen."""
    scheduler = made.scheduler
    dask = [
        scheduler.address,
        *scheduler.workers,
        *(nanny.address for nanny in made.workers.values()),
    ]
    return [address.partition("://")[2] for address in dask]


@as_root
@pytest.mark.slow
def test_another_user_can_run_nothing_by_dasks_ports(tmp_path, guarded):
    addresses = addresses_of(guarded)
    assert len(addresses) == 3
    assert all(way.startswith("refused") for way in attacked(tmp_path, addresses).values())
    # The cluster is none the worse for it.
    with guarded.get_client() as client:
        assert client.submit(int, "7").result() == 7


@as_root
@pytest.mark.slow
def test_without_security_another_user_runs_what_they_like(tmp_path):
    with cluster(security=False) as made:
        addresses = addresses_of(made)
        found = attacked(tmp_path, addresses)
        for address in addresses:
            assert found[f"tcp {address}"] == "gold"
            assert found[f"tls {address}"].startswith("refused")


@as_root
@pytest.mark.slow
@pytest.mark.parametrize("insecure", [False, True])
def test_the_command_line_lets_nobody_in(tmp_path, insecure):
    make_data(tmp_path / "a.zarr", rows=1000, features=3, random_state=0)
    command = [
        sys.executable, "-m", "ooc_train", "train", tmp_path / "a.zarr", "--batch-size", "1",
        "--max-iter", "1000000", "--tol", "0", "--workers", "1",
        "--dashboard-address", "127.0.0.1:0", *(["--insecure"] if insecure else []),
    ]  # fmt: skip
    running: Any = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        for line in running.stdout:
            if line.startswith("training"):
                break
        link = line.split()[1]
        dashboard = link.split("/")[2]
        addresses = [a for a in listening(*process_tree(running.pid)) if a != dashboard]
        assert all(address.startswith("127.0.0.1:") for address in addresses)
        stolen = [found == "gold" for found in attacked(tmp_path, addresses).values()]
        assert any(stolen) == insecure
        plain = f"http://{dashboard}/training"
        assert (plain == link) == insecure
        assert status(plain) == (200 if insecure else 404)
        assert status(link) == 200
    finally:
        running.kill()
        running.communicate()


def paths_of(made):
    """Every path that the scheduler's web server knows, below the secret or not."""
    web, found = made.scheduler.http_application, set()
    for application in (web, *web.applications):
        for router in (application.default_router, application.wildcard_router):
            rules = [
                rule for outer in router.rules for rule in getattr(outer.target, "rules", [outer])
            ]
            for rule in rules:
                if isinstance(rule.matcher, PathMatches):
                    found.add(rule.matcher.regex.pattern.rstrip("$"))
        found |= set(getattr(application, "app_paths", ()))
    return found


@pytest.mark.slow
def test_no_page_opens_without_the_secret_and_none_changes_anything(guarded):
    with guarded.get_client() as client:
        assert training_link(client)
    port, secret = guarded.scheduler.http_server.port, guarded._secret
    assert len(secret) >= 22
    assert guarded.dashboard_link == f"http://127.0.0.1:{port}/{secret}/status"
    assert guarded.training_link == f"http://127.0.0.1:{port}/{secret}/training"
    base = f"http://127.0.0.1:{port}"
    paths = paths_of(guarded)
    assert len(paths) > 50
    assert any("retire_workers" in path for path in paths)
    for path in sorted(paths):
        plain = "/" + re.sub(r"\(.*?\)", "a", path).lstrip("/").removeprefix(secret).lstrip("/")
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
            assert status(base + plain, method) == 404, (method, plain)
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert status(f"{base}/{secret}{plain}", method) == 405, (method, plain)
    for wrong in ("", "/", f"//{secret}x/status", f"/{secret[:-1]}/status", "/%00/status", "/\xe9"):
        quoted = quote(wrong, safe="/%")
        assert status(base + quoted) == 404
    for page in ("status", "training", "metrics", "info/main/workers.html", "statics/css/base.css"):
        assert status(f"{base}/{secret}/{page}") == 200
    # The page's WebSocket too, and none by the plain path.
    session = pull_session(url=f"{base}/{secret}/training")
    assert session.document.roots
    session.close()
    with pytest.raises(OSError, match="The given Path is not valid"):
        pull_session(url=f"{base}/training")
    assert len(guarded.scheduler.workers) == 1


@pytest.mark.slow
def test_without_security_pages_are_where_dask_has_them():
    routes = [*dask.config.get(ROUTES), API]
    with dask.config.set({ROUTES: routes}), cluster(security=False) as made:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/status", made.dashboard_link)
        assert made.scheduler_address.startswith("tcp://")
        assert status(made.dashboard_link) == 200
        retire = made.dashboard_link.replace("status", "api/v1/retire_workers")
        assert status(retire, "POST") == 200


def test_all_listens_on_this_machine_and_workers_serve_no_pages(guarded):
    [worker] = [nanny.pid for nanny in guarded.workers.values()]
    assert len(listening(worker)) == 1  # for Dask, and no web server
    with guarded.get_client() as client:
        assert [state["services"] for state in client.scheduler_info()["workers"].values()] == [{}]
    assert all(address.startswith("127.0.0.1:") for address in listening(worker, os.getpid()))


@pytest.mark.slow
def test_the_private_cluster_listens_for_its_page_alone():
    before = set(listening(os.getpid()))
    client = private_client()
    after = set(listening(os.getpid()))
    assert client.scheduler.address.startswith("inproc://")
    assert len(after - before) <= 1  # none where an earlier test has started it
    link = client.cluster.scheduler.http_server
    assert f"127.0.0.1:{link.port}" in after
    training = str(training_link(client))
    assert status(training) == 200
    assert re.fullmatch(rf"http://127\.0\.0\.1:{link.port}/[\w-]{{22}}/training", training)
    assert status(f"http://127.0.0.1:{link.port}/status") == 404


def _told():
    """What a process was told by its environment and on its command line."""
    return Path("/proc/self/environ").read_text() + Path("/proc/self/cmdline").read_text()


@pytest.mark.slow
def test_the_key_lies_where_nobody_else_looks_and_is_gone_with_the_cluster():
    with cluster() as made:
        folder = Path(made._folder)
        assert folder.parent == Path(places.temporary_place())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
        # What Dask keeps for its processes lies there as well.
        assert made.scheduler.local_directory.startswith(f"{folder}/")
        with made.get_client() as client:
            [worker] = client.run(lambda dask_worker: dask_worker.local_directory).values()
            assert worker.startswith(f"{folder}/")
            settings = client.run(_told)
            assert "PRIVATE KEY" not in str(settings)
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [True, False])
def test_dasks_shared_scratch_space_is_not_followed(tmp_path, monkeypatch, processes):
    shared, victim = tmp_path / "shared", tmp_path / "victim"
    shared.mkdir()
    shared.chmod(0o1777)
    victim.mkdir()
    # As another user would have laid it, for Dask to make its locks where that user may not.
    (shared / "dask-scratch-space").symlink_to(victim)
    monkeypatch.setenv("TMPDIR", str(shared))
    monkeypatch.setattr(tempfile, "tempdir", None)
    inside = partial(
        GuardedCluster, security=True, processes=False, n_workers=1,
        dashboard_address="127.0.0.1:0",
    )  # fmt: skip
    with (cluster if processes else inside)() as made, made.get_client() as client:
        assert client.submit(int, "7").result() == 7
        assert list(victim.iterdir()) == []
    assert [path.name for path in shared.iterdir()] == ["dask-scratch-space"]


def test_a_key_of_another_cluster_opens_nothing(guarded, tmp_path):
    with pytest.raises(OSError, match="TLS certificate does not match"):
        Client(
            guarded.scheduler_address,
            security=security_of_run(str(tmp_path)),
            timeout=3,
            set_as_default=False,  # one that fails leaves Dask set to it
        )


@pytest.mark.slow
def test_dasks_own_settings_are_taken(tmp_path):
    given = security_of_run(str(tmp_path))
    with cluster(security=given) as made:
        assert made.security is given
        assert not (Path(made._folder) / "key.pem").exists()
        with Client(made.scheduler_address, security=given, set_as_default=False) as client:
            assert client.submit(int, "7").result() == 7
    with pytest.raises(TypeError, match=r"True, False, or a distributed\.Security, not str"):
        LocalCluster(security="tls")


@pytest.mark.slow
def test_what_dask_is_set_to_changes_nothing_of_our_clusters(tmp_path):
    with dask.config.set({"distributed.comm.require-encryption": True}):
        with cluster() as made, made.get_client() as client:
            assert client.submit(int, "7").result() == 7
        with GuardedCluster(
            security=True, processes=False, n_workers=1, dashboard_address="127.0.0.1:0"
        ) as made:
            assert made.scheduler_address.startswith("inproc://")


def test_a_machine_that_is_busy_at_the_start_is_no_error(monkeypatch, tmp_path):
    slow = distributed.core.warn_on_duration
    monkeypatch.setattr(distributed.core, "warn_on_duration", lambda _, text: slow("0s", text))
    with GuardedCluster(
        security=False, processes=False, n_workers=1, dashboard_address="127.0.0.1:0"
    ) as made:
        assert made.scheduler_address.startswith("inproc://")


def test_a_key_that_cannot_be_made_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(security_module, "_MAKE", "import no_such_library")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(ClusterError, match=r"no key .* \(ModuleNotFoundError: .*'no_such_"):
        LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_cluster_of_others_is_reached_with_the_certificates_of_dasks_settings(
    tmp_path, monkeypatch
):
    given = security_of_run(str(tmp_path))
    with cluster(security=given) as made:
        address = made.scheduler_address
        with pytest.raises(
            ClusterError, match=r"no cluster answers at tls://.*distributed\.comm\.tls"
        ):
            connect(address)
        assert dask.config.get("scheduler", None) is None
        settings = {
            "distributed.comm.tls.ca-file": given.tls_ca_file,
            "distributed.comm.tls.client.cert": given.tls_client_cert,
            "distributed.comm.tls.client.key": given.tls_client_key,
        }
        with dask.config.set(settings), connect(address) as client:
            assert client.submit(int, "7").result() == 7


@pytest.mark.slow
def test_a_cluster_of_ones_own_is_reached_by_its_address_alone(guarded):
    code = (
        "import sys; from ooc_train.runtime.clients import connect\n"
        "with connect(sys.argv[1]) as client:\n"
        "    print(client.submit(int, '7').result(), client.dashboard_link)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, guarded.scheduler_address],
        capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.split() == ["7", guarded.dashboard_link], done.stderr
    assert status(guarded.dashboard_link) == 200
    # In notebooks a cluster and a client show it as well.
    with guarded.get_client() as client:
        assert guarded.dashboard_link in guarded._repr_html_()
        assert guarded.dashboard_link in client._repr_html_()
