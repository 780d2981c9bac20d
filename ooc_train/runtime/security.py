"""Who may connect to the processes of our own clusters: only those that the run's key was given to.

Whoever reaches a Dask scheduler or worker may have it run code, as the user that it runs as. Each
cluster of ours therefore makes a key for itself, and its processes talk by TLS to those alone that
have it. The key is made by a process of its own, which ends with that: the library takes 11 MiB. It
lies in the cluster's temporary folder, which no other user can enter, and is gone with that.

The dashboard is served by HTTP, to browsers that have no such key. Its addresses begin with a
secret that changes with each cluster; to requests without it the server gives no answer but 404,
and to none that would change anything.
"""

import hmac
import os
import secrets
import subprocess
import sys
import weakref
from contextlib import suppress
from typing import Any

import dask
import distributed
from distributed.security import Security
from tornado.httputil import HTTPServerRequest
from tornado.routing import Router
from tornado.web import Application, RequestHandler

from ooc_train.core.files import read_start
from ooc_train.core.semaphores import named_semaphores, remove_dead_semaphores
from ooc_train.core.temporary_folders import close_folder, open_folder, own_folders
from ooc_train.errors import ClusterError
from ooc_train.runtime.nanny import PatientNanny

__all__ = ["GuardedCluster", "require_security", "security_for", "security_of_run"]

_FOLDER = "cluster"
_CERTIFICATE, _KEY = "certificate.pem", "key.pem"
_ADDRESS = "address"
_LONGEST_ADDRESS = 1024
"""In the folder of a cluster with a key of its own: whose key it is."""

_MAKE = """
import datetime, sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as to
from cryptography.hazmat.primitives.asymmetric import ec

key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ooc_train")])
identity = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
usage = dict.fromkeys((
    "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign",
    "encipher_only", "decipher_only",
), False)
now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
certificate = (
    x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    .not_valid_before(now - day)
    .not_valid_after(now + 3650 * day)
    .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage), True)
    .add_extension(identity, critical=False)
    .add_extension(x509.AuthorityKeyIdentifier(identity.digest, None, None), critical=False)
    .sign(key, hashes.SHA256())
)
private = key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption())
sys.stdout.buffer.write(certificate.public_bytes(to.Encoding.PEM) + b"\\0" + private)
"""
"""What makes a key and the certificate of it, by which each process knows all others."""


def security_of_run(folder: str) -> Security:
    """Return Dask's settings for TLS, with a new key that lies in a folder.

    Parameters
    ----------
    folder : str
        That nobody but this user can enter, for as long as processes may start.

    Raises
    ------
    ClusterError
        where no key can be made, such as without the library `cryptography`.
    """
    done = subprocess.run(  # noqa: S603 (this Python, and the text above)
        [sys.executable, "-P", "-c", _MAKE],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        check=False,
    )
    certificate, _, key = done.stdout.partition(b"\0")
    if done.returncode or not key:
        why = done.stderr.decode(errors="replace").strip().splitlines() or [str(done.returncode)]
        raise ClusterError(
            f"no key could be made for the cluster ({why[-1]}); security=False or --insecure does "
            "without, where every user of this machine may be trusted"
        )
    for name, content in ((_CERTIFICATE, certificate), (_KEY, key)):
        _write(os.path.join(folder, name), content)
    return _security_in(folder)


def _write(path: str, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(file, "wb") as stream:
        stream.write(content)


def _security_in(folder: str) -> Security:
    """Return Dask's settings for TLS with the key that lies in a folder."""
    certificate, key = os.path.join(folder, _CERTIFICATE), os.path.join(folder, _KEY)
    roles = ("client", "scheduler", "worker")
    return Security(
        require_encryption=True,
        tls_ca_file=certificate,
        **{f"tls_{role}_cert": certificate for role in roles},
        **{f"tls_{role}_key": key for role in roles},
    )


def security_for(address: str) -> Security:
    """Return what a client of the cluster at an address needs.

    Parameters
    ----------
    address : str
        Of a scheduler, such as "tls://127.0.0.1:8786".

    Returns
    -------
    distributed.Security
        With the cluster's own key, where it is a `GuardedCluster` of this user's on this machine;
        else what Dask's configuration says.
    """
    if address.startswith("tls://"):
        for folder in own_folders(_FOLDER):
            with suppress(OSError):
                found = read_start(os.path.join(folder, _ADDRESS), _LONGEST_ADDRESS)
                if found == address.encode():
                    return _security_in(folder)
    return Security()


def require_security(security: object) -> None:
    """Refuse what says nothing of who may connect.

    Raises
    ------
    TypeError
        where it is neither a bool nor a `distributed.Security`.
    """
    if not isinstance(security, bool | Security):
        raise TypeError(
            f"security is True, False, or a distributed.Security, not {type(security).__name__}"
        )


def make_secret() -> str:
    """Return what the addresses of a dashboard begin with: 128 random bits as text."""
    return secrets.token_urlsafe(16)


class _Refused(RequestHandler):
    """Answers requests that are not let through."""

    def initialize(self, status: int, why: str) -> None:
        self._refusal = status, why

    def prepare(self) -> None:
        """Answer, whatever the method."""
        status, why = self._refusal
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{why}\n")

    def check_xsrf_cookie(self) -> None:
        """Let every method come as far as `prepare`."""


class _Guard(Router):
    """Hands on requests whose path begins with a secret, and that only read."""

    def __init__(self, pages: Application, secret: str) -> None:
        self._pages = pages
        self._secret = secret.encode()
        self._refusals = Application()

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Return what answers a request."""
        first = request.path.lstrip("/").partition("/")[0]
        if not hmac.compare_digest(first.encode(), self._secret):
            return self._refuse(
                request, 404, "This dashboard opens by the link that its cluster printed."
            )
        if request.method not in ("GET", "HEAD"):
            return self._refuse(request, 405, "This dashboard shows, and changes nothing.")
        return self._pages.find_handler(request, **kwargs)

    def _refuse(self, request: HTTPServerRequest, status: int, why: str) -> Any:
        return self._refusals.get_handler_delegate(
            request, _Refused, {"status": status, "why": why}
        )


class GuardedScheduler(distributed.Scheduler):  # type: ignore[misc] # untyped base
    """A scheduler whose pages lie below a secret, `http_prefix`, and only show."""

    def __init__(self, *args: Any, http_prefix: str, **kwargs: Any) -> None:
        self._secret = http_prefix
        super().__init__(*args, http_prefix=http_prefix, **kwargs)

    def start_http_server(self, *args: Any, **kwargs: Any) -> None:
        """Listen, and let no request through but by the guard: none is answered before."""
        super().start_http_server(*args, **kwargs)
        self.http_server.request_callback = _Guard(self.http_application, self._secret)

    def identity(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return what clients know of it: the port of the dashboard with the secret that opens it.

        So a client's `dashboard_link`, made of the port, is the link.
        """
        known: dict[str, Any] = super().identity(*args, **kwargs)
        port = known["services"]["dashboard"]
        known["services"] = known["services"] | {"dashboard": f"{port}/{self._secret}"}
        return known


class LeanWorker(distributed.Worker):  # type: ignore[misc] # untyped base
    """A worker without a web server: the scheduler's pages show what there is to see of it."""

    def start_http_server(self, *args: Any, **kwargs: Any) -> None:
        """Start none."""


class LeanNanny(PatientNanny):
    """Starts a `LeanWorker` in a process of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, worker_class=LeanWorker, **kwargs)

    async def instantiate(self) -> Any:
        """Start the process, with semaphores that the next command removes if all are killed."""
        with named_semaphores():
            return await super().instantiate()


class GuardedCluster(distributed.LocalCluster):  # type: ignore[misc] # untyped base
    """A cluster on this machine that only those who have its key, or its link, can reach.

    Parameters
    ----------
    security : bool or Security
        Bool or distributed.Security True for a key of its own, False for none, and for
        pages that every user of this machine can open; or Dask's settings for TLS with a
        key that exists.
    processes : bool
        Whether workers are processes; else threads of this one, which nobody can connect to.
    settings
        As `distributed.LocalCluster` takes them.

    Raises
    ------
    ClusterError
        where no key can be made.
    UnsafePlace
        where there is no place for temporary files that other users can't tamper with.
    """

    def __init__(self, *, security: bool | Security, processes: bool, **settings: Any) -> None:
        if not isinstance(security, bool | Security):
            raise TypeError(
                f"security is True, False, or a distributed.Security, not {type(security).__name__}"
            )
        self._secret = "" if security is False else make_secret()
        self._folder = folder = open_folder(_FOLDER)
        weakref.finalize(self, close_folder, folder)
        remove_dead_semaphores()
        self._has_own_key = security is True and processes
        if self._has_own_key:
            security = security_of_run(folder)
        if isinstance(security, bool):
            # Not what Dask's configuration may ask for: it has no key that all here would have.
            security = Security(require_encryption=False)
        if not processes:
            settings["protocol"] = "inproc://"
        # Of the scheduler, which takes no other; workers are told it.
        with dask.config.set({"temporary-directory": folder}):
            super().__init__(
                processes=processes,
                security=security,
                worker_class=LeanNanny if processes else LeanWorker,
                worker_dashboard_address=None,
                local_directory=folder,
                **settings,
            )

    async def _start(self) -> None:
        is_new = self.scheduler is None
        if is_new and self._secret:
            self.scheduler_spec["cls"] = GuardedScheduler
            self.scheduler_spec["options"]["http_prefix"] = self._secret
        await super()._start()
        if is_new and self._has_own_key:
            _write(os.path.join(self._folder, _ADDRESS), self.scheduler.address.encode())

    async def _close(self) -> None:
        await super()._close()
        close_folder(self._folder)
