"""A Dask cluster on this machine that only holders of its key, or of its link, can reach.

The dashboard speaks HTTP to browsers, which have no key. Its addresses begin with a secret of the
cluster. Requests without the secret get a 404, and requests that would change anything are refused.
"""

import hmac
import os
import secrets
import warnings
import weakref
from typing import Any

import dask
import distributed
from distributed.security import Security
from tornado.httputil import HTTPServerRequest
from tornado.routing import Router
from tornado.web import Application, RequestHandler

from ooc_train.core.forks import after_fork
from ooc_train.core.semaphores import named_semaphores, remove_dead_semaphores
from ooc_train.core.temporary_folders import close_folder, open_folder
from ooc_train.runtime.nanny import PatientNanny
from ooc_train.runtime.security import (
    ADDRESS,
    FOLDER,
    require_security,
    security_of_run,
    write_private,
)

START_SECONDS = 60.0
"""Time limit for the start of workers."""

_FREE_BYTES = 4 * 2**20
"""Freed memory that a worker's allocator may keep."""

# The plan keeps the ceiling. Dask's memory limits would spill, pause and kill.
SHOWN_LIMIT = "ooc_train.shown-limit"
"""Setting of our workers: Dask shows their memory limit, and does not act on it."""

LEAN = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    SHOWN_LIMIT: True,
    "distributed.comm.timeouts.connect": f"{START_SECONDS:.0f}s",
    # Profiles by key would pile up: the keys of a pass differ only in their number.
    "distributed.worker.profile.enabled": False,
    # Each connection keeps its last messages (1,000 by default) with their parameters: 255 KiB a
    # task at 10,000 features.
    "distributed.admin.low-level-log-length": 10,
    # Dask sets glibc to release free memory above 64 KiB and to map blocks above 128 KiB anew.
    # Blosc allocates with every chunk, and decoded at a quarter of its speed.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": _FREE_BYTES,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": _FREE_BYTES,
}


EXPECTED_WARNINGS = (
    # The dashboard takes another port, and says which.
    "Port .* is already in use",
    # A busy machine is slow too, and the folder is chosen here, not by Dask's `local-directory`.
    "Creating scratch directories is taking a surprisingly long time",
)

_clusters: "weakref.WeakSet[GuardedCluster]" = weakref.WeakSet()
inherited_clusters: list["GuardedCluster"] = []
"""Clusters of the process that forked this one, kept so that they are never closed here."""


@after_fork
def _release_clusters() -> None:
    """In a forked process, leave clusters, their folders and processes to the parent."""
    for cluster in list(_clusters):
        cluster.shutdown_on_close = False  # distributed would close it at exit, and hang
        inherited_clusters.append(cluster)
        for server in (cluster.scheduler, *cluster.workers.values()):
            process = getattr(getattr(server, "process", None), "process", None)
            for owner, name in (
                (getattr(server, "_workdir", None), "_finalizer"),
                (process, "_proc_finalizer"),
            ):
                if (finalizer := getattr(owner, name, None)) is not None:
                    finalizer.detach()


def _make_secret() -> str:
    """Return the secret prefix of a dashboard: 128 random bits as text."""
    return secrets.token_urlsafe(16)


class _Refused(RequestHandler):
    """The handler that answers refused requests."""

    def initialize(self, status: int, why: str) -> None:
        self._refusal = status, why

    def prepare(self) -> None:
        """Answer the request, whatever its method."""
        status, why = self._refusal
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{why}\n")

    def check_xsrf_cookie(self) -> None:
        """Skip the check, so that requests of every method reach `prepare`."""


class _Guard(Router):
    """A router that passes on only read-only requests whose path begins with the secret."""

    def __init__(self, pages: Application, secret: str) -> None:
        self._pages = pages
        self._secret = secret.encode()
        self._refusals = Application()

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Return the handler of a request."""
        first = request.path.lstrip("/").partition("/")[0]
        if not hmac.compare_digest(first.encode(), self._secret):
            return self._refuse(
                request, 404, "This dashboard opens by the link that its cluster printed."
            )
        if request.method not in ("GET", "HEAD"):
            return self._refuse(request, 405, "This dashboard is read-only.")
        return self._pages.find_handler(request, **kwargs)

    def _refuse(self, request: HTTPServerRequest, status: int, why: str) -> Any:
        return self._refusals.get_handler_delegate(
            request, _Refused, {"status": status, "why": why}
        )


class GuardedScheduler(distributed.Scheduler):  # type: ignore[misc] # untyped base
    """A scheduler whose web pages are read-only, at paths that begin with a secret."""

    def __init__(self, *args: Any, http_prefix: str, **kwargs: Any) -> None:
        self._secret = http_prefix
        super().__init__(*args, http_prefix=http_prefix, **kwargs)

    def start_http_server(self, *args: Any, **kwargs: Any) -> None:
        """Start the web server, with the guard in place before the first request."""
        super().start_http_server(*args, **kwargs)
        self.http_server.request_callback = _Guard(self.http_application, self._secret)

    def identity(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the identity for clients: the port of the dashboard includes the secret.

        Clients make their `dashboard_link` from that port.
        """
        known: dict[str, Any] = super().identity(*args, **kwargs)
        port = known["services"]["dashboard"]
        known["services"] = known["services"] | {"dashboard": f"{port}/{self._secret}"}
        return known


class LeanWorker(distributed.Worker):  # type: ignore[misc] # untyped base
    """A worker without a web server; the scheduler's pages show its state."""

    def start_http_server(self, *args: Any, **kwargs: Any) -> None:
        """Start no web server."""


class LeanNanny(PatientNanny):
    """A nanny that starts a `LeanWorker` in a process of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, worker_class=LeanWorker, **kwargs)

    async def instantiate(self) -> Any:
        """Start the process, with semaphores that the next command removes after a kill."""
        with named_semaphores():
            return await super().instantiate()


class GuardedCluster(distributed.LocalCluster):  # type: ignore[misc] # untyped base
    """A Dask cluster on this machine; by default ports need its key, the dashboard its link.

    Parameters
    ----------
    security : bool or distributed.Security
        True makes a key. False uses no key: every user of this machine can connect, and open the
        dashboard. A `Security` object has TLS settings with an existing key.
    processes : bool
        Whether workers are processes. Otherwise they are threads of this process, and scheduler and
        workers have no network port.
    settings
        As for `distributed.LocalCluster`.

    Raises
    ------
    ClusterError
        If no key can be made.
    UnsafePlace
        If other users could tamper with every place for temporary files.
    """

    def __init__(self, *, security: bool | Security, processes: bool, **settings: Any) -> None:
        require_security(security)
        self._secret = "" if security is False else _make_secret()
        self._folder = folder = open_folder(FOLDER)
        weakref.finalize(self, close_folder, folder)
        remove_dead_semaphores()
        self._has_own_key = security is True and processes
        if self._has_own_key:
            security = security_of_run(folder)
        if isinstance(security, bool):
            # Override Dask's configuration: its key, if any, is not shared by these processes.
            security = Security(require_encryption=False)
        if not processes:
            settings["protocol"] = "inproc://"
        # The scheduler takes its folder from the configuration only.
        with dask.config.set({"temporary-directory": folder}), warnings.catch_warnings():
            for message in EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            super().__init__(
                processes=processes,
                security=security,
                worker_class=LeanNanny if processes else LeanWorker,
                worker_dashboard_address=None,
                local_directory=folder,
                **settings,
            )
        _clusters.add(self)

    async def _start(self) -> None:
        is_new = self.scheduler is None
        if is_new and self._secret:
            self.scheduler_spec["cls"] = GuardedScheduler
            self.scheduler_spec["options"]["http_prefix"] = self._secret
        await super()._start()
        if is_new and self._has_own_key:
            write_private(os.path.join(self._folder, ADDRESS), self.scheduler.address.encode())

    async def _close(self) -> None:
        await super()._close()
        close_folder(self._folder)
