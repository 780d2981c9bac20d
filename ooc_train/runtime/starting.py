"""Checks before workers start, and explanations if they don't.

`require_startable` tries the parts that a cluster needs, in a few milliseconds. `why_not_started`
explains other failures by exit statuses and standard error (see `worker_output.py`).
"""

import errno
import logging
import multiprocessing
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from multiprocessing import resource_tracker, spawn

from ooc_train.core.text import counted
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import ClusterError, MissingMainGuard
from ooc_train.memory.system import available_memory
from ooc_train.runtime.endings import Endings

NO_GUARD_EXIT = 78
"""Exit status of a worker that imports the script which is starting it."""

_DRIVER_FILES, _FILES_A_WORKER = 64, 16
"""Files and sockets of this process for a cluster, and for each worker. Seen: 22 and 12, with 32
workers and 4 open pages of the dashboard, without the files of stores."""

_INSIDE_FILES = 24
"""Files and sockets of this process for the private cluster; 14 were seen."""

_DRIVER_THREADS, _THREADS_A_WORKER = 12, 12
"""Threads and processes of this user for a cluster, and for each worker: 3 threads here and 4
there, and one thread of BLAS for each core."""

_DRIVER_BYTES, _WORKER_BYTES = 40 * 2**20, 60 * 2**20
"""Least growth of this process for a cluster, and least memory of a worker without shared
libraries. With less, the kernel kills one of them, usually this one."""

_CONNECT_SECONDS = 5.0

_PROBE_SECONDS = 20.0


def free_address(address: str) -> str:
    """Return an address to listen at: the same one, or one of any free port if its port is taken.

    Dask finds that out too late: its web server leaves a socket open, of which Python warns.

    Examples
    --------
    >>> free_address("127.0.0.1:0")
    '127.0.0.1:0'
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and int(port)):
        return address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as tried:
        # As the web server has it: a port that was closed a moment ago is free.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host.strip("[]"), int(port)))
        except OSError as error:
            return f"{host}:0" if error.errno == errno.EADDRINUSE else address
        except OverflowError:
            return address  # no port has such a number, as the web server will say
    return address


def require_startable(n_workers: int) -> None:
    """Refuse to start workers if something that they need is missing.

    Parameters
    ----------
    n_workers : int
        Number of processes.

    Raises
    ------
    ClusterError
        With what is missing, and the way out.
    """
    more = _DRIVER_FILES + _FILES_A_WORKER * n_workers
    who = f"a scheduler and {counted(n_workers, 'worker')} need"
    _require_files(more, who, ", or use fewer workers" if n_workers > 1 else "")
    _require_threads(n_workers)
    _require_memory(n_workers)
    _require_folders()
    program = os.fsdecode(spawn.get_executable() or "there is no Python to run")
    if shutil.which(program) is None:
        raise ClusterError(f"no process can be started: {program} is not there, or cannot be run")
    # These need the resource tracker of multiprocessing, which starts here.
    try:
        resource_tracker.ensure_running()
        _require_semaphores()
    except OSError as error:
        why = _why_none_starts(program, error)
        raise ClusterError(f"no process can be started: {why}") from None
    _require_loopback()


def require_inside() -> None:
    """Refuse to start the private cluster, inside this process, if it can't work.

    Raises
    ------
    ClusterError
        With what is missing, and the way out.
    """
    _require_files(_INSIDE_FILES, "the cluster inside this process needs")


def _require_files(more: int, who: str, way_out: str = "") -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        opened = len(os.listdir("/proc/self/fd"))
    except OSError:  # not Linux, or no free descriptor
        opened = 3
    need = opened + more
    if limit != resource.RLIM_INFINITY and limit < need:
        raise ClusterError(
            f"the limit of open files is {limit}, and {who} about {need}: raise it "
            f"(ulimit -n {need}){way_out}"
        )


def _require_threads(n_workers: int) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if limit == resource.RLIM_INFINITY or os.getuid() == 0:  # root has no limit
        return
    need = _DRIVER_THREADS + _THREADS_A_WORKER * n_workers
    # Counting takes 10 ms, and limits are usually ten times as high.
    if limit < 16 * need + 1024 and limit < (running := _threads_of(os.getuid())) + need:
        raise ClusterError(
            f"the limit of processes and threads of a user is {limit}, {running} run, and "
            f"a scheduler and {counted(n_workers, 'worker')} need about {need} more: raise it "
            f"(ulimit -u {running + need}), or use fewer workers"
        )


def _threads_of(user: int) -> int:
    """Return the number of threads of a user, in all visible processes; 0 without `/proc`."""
    found = 0
    try:
        entries = os.listdir("/proc")
    except OSError:
        return 0
    for entry in filter(str.isdigit, entries):
        with suppress(OSError):
            if os.stat(f"/proc/{entry}").st_uid == user:
                found += len(os.listdir(f"/proc/{entry}/task"))
    return found


def _require_memory(n_workers: int) -> None:
    available = available_memory()
    need = _DRIVER_BYTES + n_workers * _WORKER_BYTES
    if available < need:
        raise ClusterError(
            f"{approximate_bytes(available)} of memory are available, and a scheduler and "
            f"{counted(n_workers, 'worker')} take {approximate_bytes(need)} before any data: free "
            f"some{', or use fewer workers' if n_workers > 1 else ''}"
        )


def _require_folders() -> None:
    # Workers start in the current folder.
    try:
        here = os.getcwd()
    except OSError:
        here = ""
    if not (here and os.access(here, os.X_OK)):
        raise ClusterError(
            f"workers start in the folder that this process is in, and {here or 'it'} "
            f"{'cannot be entered' if here else 'is gone'}: start it from another folder"
        )
    try:
        with tempfile.TemporaryFile():
            pass
    except OSError as error:
        tried = os.environ.get("TMPDIR", "/tmp")  # noqa: S108 (told, not used)
        raise ClusterError(
            f"temporary files cannot be written to {tried} ({_reason(error)}): set TMPDIR to a "
            "folder that can be"
        ) from None


def _require_semaphores() -> None:
    try:
        multiprocessing.get_context("spawn").Lock()
    except (OSError, ImportError) as error:
        if isinstance(error, BrokenPipeError):  # by the resource tracker
            raise
        raise ClusterError(
            f"no semaphore can be made ({_reason(error)}), by which processes wait for each other: "
            "/dev/shm has to be there, and writable; "  # noqa: S108 (told, not used)
            "mount it (mount -t tmpfs tmpfs /dev/shm)"
        ) from None


def _why_none_starts(program: str, error: OSError) -> str:
    """Start a trivial process; return why it fails, as text."""
    try:
        done = subprocess.run(  # noqa: S603 (this Python)
            [program, "-c", "import multiprocessing.spawn"],
            capture_output=True,
            check=False,
            timeout=_PROBE_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as reason:
        return f"{program}: {_reason(reason)}{hint(str(reason))}"
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return said[-1] if done.returncode and said else f"{_reason(error)}{hint(str(error))}"


def _require_loopback() -> None:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
            with socket.create_connection(address, timeout=_CONNECT_SECONDS):
                pass
    except OSError as error:
        raise ClusterError(
            f"nothing can be reached at 127.0.0.1 ({_reason(error)}), where workers and their "
            "scheduler talk: turn the loopback interface on (ip link set lo up)"
        ) from None


def _reason(error: BaseException) -> str:
    """Return the text of an error in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or type(error).__name__


def why_not_started(error: BaseException, endings: Endings, said: str) -> ClusterError:
    """Return the error to raise, which explains why workers did not start.

    The call silences the logs of remaining processes, which end with this one.

    Parameters
    ----------
    error : BaseException
        The error of the cluster's start.
    endings : Endings
        How processes ended meanwhile.
    said : str
        Last line of their standard error, or "".
    """
    logging.getLogger("distributed.process").setLevel(logging.CRITICAL)
    if NO_GUARD_EXIT in endings.statuses:
        script = getattr(sys.modules["__main__"], "__file__", None) or "the script"
        return MissingMainGuard(
            f"{os.path.basename(script)} starts processes: put what it does under "
            'if __name__ == "__main__": (the workers could not be started)'
        )
    if endings.statuses:
        ended = endings.summary + (f": {said}" if said and not endings.killed else "")
        return ClusterError(
            f"the workers could not be started: {ended}{hint(said, endings.for_memory)}"
        )
    # Errors of distributed's clean-up hide the cause.
    while beneath := error.__cause__ or (
        error.__context__ if isinstance(error, AssertionError) else None
    ):
        error = beneath
    text = str(error) or type(error).__name__
    return ClusterError(f"the workers could not be started: {text}{hint(text, endings.for_memory)}")


def hint(text: str, for_memory: int = 0) -> str:
    """Return advice on the error message of a process that could not start, or "".

    Parameters
    ----------
    text : str
        The message.
    for_memory : int
        Number of processes that the operating system killed for lack of memory.
    """
    addresses = resource.getrlimit(resource.RLIMIT_AS)[0]
    limited = addresses != resource.RLIM_INFINITY
    threads = "Resource temporarily unavailable" in text or "start new thread" in text
    memory = "MemoryError" in text or "Cannot allocate memory" in text
    if limited and not for_memory and (threads or memory):
        kilobytes = addresses // 1024
        return f"; lift the limit of memory (ulimit -v is {kilobytes}), or use fewer workers"
    if for_memory or memory:
        return "; free some memory, or use fewer workers"
    if threads:
        return (
            "; a limit of processes or threads is reached (ulimit -u, or pids.max of the control "
            "group): raise it, or use fewer workers"
        )
    if "Too many open files" in text:
        return "; raise the limit of open files (ulimit -n), or use fewer workers"
    if "No space left" in text:
        return "; free space on the disk, and in /dev/shm"
    return ""
