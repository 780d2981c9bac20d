"""Keys of local clusters: only processes with the key of a cluster may connect to it.

A client of a Dask scheduler or worker can run code as the user of that process. So each cluster
makes a key, and its processes use TLS. A separate process makes the key, since the library takes 11
MiB. The key lies in the cluster's temporary folder, which other users can't enter, and is deleted
with it.
"""

import os
import subprocess
import sys
from contextlib import suppress

from distributed.security import Security

from ooc_train.core.files import read_start
from ooc_train.core.temporary_folders import own_folders
from ooc_train.errors import ClusterError

FOLDER = "cluster"
_CERTIFICATE, _KEY = "certificate.pem", "key.pem"
ADDRESS = "address"
_LONGEST_ADDRESS = 1024
"""Limit of the file with the scheduler's address, next to the key."""

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
"""Program that prints a key and its certificate, by which all processes know each other."""


def security_of_run(folder: str) -> Security:
    """Make a key in a folder; return Dask's TLS settings.

    Parameters
    ----------
    folder : str
        A folder that no other user can enter, for the lifetime of the cluster.

    Raises
    ------
    ClusterError
        If no key can be made, for example without the library `cryptography`.
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
            f"no key could be made for the cluster ({why[-1]}); security=False or --insecure works "
            "without a key, if every user of this machine can be trusted"
        )
    for name, content in ((_CERTIFICATE, certificate), (_KEY, key)):
        write_private(os.path.join(folder, name), content)
    return _security_in(folder)


def write_private(path: str, content: bytes) -> None:
    """Write a new file that only this user can read."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(file, "wb") as stream:
        stream.write(content)


def _security_in(folder: str) -> Security:
    """Return Dask's TLS settings for the key in a folder."""
    certificate, key = os.path.join(folder, _CERTIFICATE), os.path.join(folder, _KEY)
    roles = ("client", "scheduler", "worker")
    return Security(
        require_encryption=True,
        tls_ca_file=certificate,
        **{f"tls_{role}_cert": certificate for role in roles},
        **{f"tls_{role}_key": key for role in roles},
    )


def security_for(address: str) -> Security:
    """Return the TLS settings for a client of a scheduler.

    Parameters
    ----------
    address : str
        Address of the scheduler, such as "tls://127.0.0.1:8786".

    Returns
    -------
    distributed.Security
        Settings with the cluster's key, for a `GuardedCluster` of this user on this machine; else
        those of Dask's configuration.
    """
    if address.startswith("tls://"):
        for folder in own_folders(FOLDER):
            with suppress(OSError):
                found = read_start(os.path.join(folder, ADDRESS), _LONGEST_ADDRESS)
                if found == address.encode():
                    return _security_in(folder)
    return Security()


def require_security(security: object) -> None:
    """Refuse an invalid `security`.

    Raises
    ------
    TypeError
        If it is neither a bool nor a `distributed.Security`.
    """
    if not isinstance(security, bool | Security):
        raise TypeError(
            f"security is True, False, or a distributed.Security, not {type(security).__name__}"
        )
