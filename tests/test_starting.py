"""Why workers do not start: what is missing is found beforehand, and what ended them is told."""

import functools
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
from types import SimpleNamespace

import pytest

from ooc_train.errors import ClusterError, MissingMainGuard
from ooc_train.memory.system import out_of_memory_kills
from ooc_train.runtime import starting
from ooc_train.runtime.endings import Endings
from ooc_train.runtime.starting import require_inside, require_startable, why_not_started
from ooc_train.runtime.worker_output import captured_stderr
from tests.groups import Groups
from tests.watch import control_group, groups_can_be_made

TRY = "from ooc_train.runtime.starting import require_startable; require_startable(2)"


def refused(*before, code=TRY, **more):
    """Return the last line that a process says in which workers can't be started."""
    done = subprocess.run(
        [*before, sys.executable, "-c", code], capture_output=True, text=True, check=False, **more
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("no other view of the system can be made here")
    assert done.returncode == 1, done
    return done.stderr.splitlines()[-1].removeprefix("ooc_train.errors.ClusterError: ")


def test_here_workers_can_be_started():
    require_startable(2)


def test_too_few_files_may_be_open(monkeypatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(64, len(os.listdir("/proc/self/fd"))), hard))
    try:
        with pytest.raises(
            ClusterError,
            match=r"^the limit of open files is \d+, and a scheduler and 2 workers need about "
            r"(\d+): raise it \(ulimit -n \1\), or use fewer workers$",
        ):
            require_startable(2)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 8, hard))
        with pytest.raises(ClusterError, match=r"and the cluster inside this process needs about"):
            require_inside()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_few_threads_may_run(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 65534)
    monkeypatch.setattr(starting, "_threads_of", lambda _: 90)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    with pytest.raises(ClusterError, match=r"of a user is 100, 90 run, .* \(ulimit -u 126\)"):
        starting._require_threads(2)


def test_the_threads_of_a_user_are_counted(monkeypatch):
    threads = {"11": ["11"], "12": ["12", "13", "14"], "15": ["15", "16"], "17": []}
    folders = {f"/proc/{process}/task": ids for process, ids in threads.items()}
    folders["/proc"] = [*threads, "18", "self", "meminfo"]  # 18 has ended meanwhile

    def stat(path):
        number = path.removeprefix("/proc/")
        if number not in threads:
            raise FileNotFoundError(path)
        return SimpleNamespace(st_uid=1000 + (number == "15"))

    monkeypatch.setattr(starting, "os", SimpleNamespace(listdir=folders.__getitem__, stat=stat))
    assert [starting._threads_of(user) for user in (1000, 1001, 1002)] == [4, 2, 0]


def test_the_threads_of_this_process_are_among_its_users():
    done = threading.Event()
    threads = [threading.Thread(target=done.wait) for _ in range(5)]
    try:
        for thread in threads:
            thread.start()
        assert starting._threads_of(os.getuid()) > len(threads)
    finally:
        done.set()


def test_too_little_memory_is_available(monkeypatch):
    monkeypatch.setattr(starting, "available_memory", lambda: 100 * 2**20)
    with pytest.raises(
        ClusterError, match=r"100 MiB of memory are available, .* 2 workers take 160 "
    ):
        require_startable(2)
    require_startable(1)


def test_no_semaphores():
    # A mount of its own: to remount would have everybody's read-only.
    read_only = 'mount -t tmpfs -o ro none /dev/shm && exec "$@"'
    told = refused("unshare", "--mount", "sh", "-c", read_only, "sh")
    assert told.startswith("no semaphore can be made (Read-only file system)")
    assert "/dev/shm has to be there, and writable" in told


def test_no_loopback():
    told = refused("unshare", "--net")
    assert told.startswith("nothing can be reached at 127.0.0.1 (Network is unreachable)")
    assert told.endswith("turn the loopback interface on (ip link set lo up)")


def test_what_is_missing_is_named_without_namespaces(monkeypatch):
    def refuse(*arguments, **settings):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(multiprocessing, "get_context", lambda _: SimpleNamespace(Lock=refuse))
    with pytest.raises(ClusterError, match=r"^no semaphore can be made \(Read-only file system\)"):
        starting._require_semaphores()
    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(
        ClusterError, match=r"reached at 127.0.0.1 \(Read-only file system\), where"
    ):
        starting._require_loopback()


def test_no_python_to_run():
    code = f"import multiprocessing as m; m.set_executable('/nonexistent/python'); {TRY}"
    assert refused(code=code) == (
        "no process can be started: /nonexistent/python is not there, or cannot be run"
    )


def test_the_folder_is_gone(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os; os.rmdir({str(gone)!r}); {TRY}"
    told = refused(code=code, cwd=gone, env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert told.endswith("and it is gone: start it from another folder")


def test_no_place_for_temporary_files(monkeypatch, tmp_path):
    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setenv("TMPDIR", "/nowhere")
    with pytest.raises(ClusterError, match=r"to /nowhere \(Permission denied\): set TMPDIR"):
        require_startable(1)


SCRIPT = """
import os, sys
from ooc_train import LocalCluster

if __name__ == "__mp_main__":
    if sys.argv[1] == "import":
        open("/another/user's/package.py")
    if sys.argv[1] == "said":
        print("said early", file=sys.stderr)
    if sys.argv[1] == "killed":
        try:
            os.open(sys.argv[2], os.O_CREAT | os.O_EXCL)
            os.kill(os.getpid(), 9)
        except FileExistsError:
            pass

def say():
    print("said late", file=sys.stderr, flush=True)

def main():
    try:
        with LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0") as cluster:
            print(cluster.endings.summary)
            if sys.argv[1] == "said":
                with cluster.get_client() as client:
                    client.run(say)
    except Exception as error:
        print(type(error).__name__, error)

if __name__ == "__main__" or sys.argv[1] == "unguarded":
    main()
"""


NO_GUARD = """starts processes: put what it does under \
if __name__ == "__main__": (the workers could not be started)"""
FAILED = "ClusterError the workers could not be started: a worker ended with exit status 1: "
NOT_FOUND = 'FileNotFoundError: [Errno 2] No such file or directory: "/another/user\'s/package.py"'
ENDED = {
    "import": (FAILED + NOT_FOUND, ""),
    "killed": (
        "a worker was ended by SIGKILL, the kernel counts none ended for lack of memory",
        "",
    ),
    "said": ("", "said early\nsaid late"),
    "unguarded": (f"MissingMainGuard script.py {NO_GUARD}", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", ENDED)
def test_a_worker_that_ends_while_it_starts(tmp_path, how):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, script, how, tmp_path / "once"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert (done.stdout.strip(), done.stderr.strip()) == ENDED[how]


@pytest.mark.slow
def test_the_command_line_says_it_in_one_line(tmp_path):
    # It was said to lack a guard.
    code = textwrap.dedent("""
        import resource, sys
        from ooc_train.cli import main
        sys.argv = ["ooc-train", "train", sys.argv[1], "--workers", "2"]
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        main()
    """)
    from ooc_train.store.jobs.synthetic import make_data

    make_data(tmp_path / "a.zarr", rows=100, features=2)
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.zarr"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: the limit of open files is 40, and a scheduler and 2 ")
    assert done.stderr.count("\n") == 1


def endings(*statuses, kills=0):
    found = Endings()
    found._kills -= kills
    for status in statuses:
        found.add(status)
    return found


KNOWN = {
    "for memory": (
        endings(-9, -9, kills=1),
        "",
        "2 workers were ended by SIGKILL, the kernel counts 1 ended for lack of memory; free some ",
    ),
    "by itself": (endings(-11), "", "a worker was ended by SIGSEGV"),
    "threads": (
        endings(1),
        "RuntimeError: can't start new thread",
        "a worker ended with exit status 1: RuntimeError: can't start new thread; a limit of ",
    ),
    "unknown": (endings(255), "", "a worker was lost"),
}


@pytest.mark.parametrize("case", KNOWN)
def test_what_is_known_of_workers_that_ended(case):
    ended, said, told = KNOWN[case]
    error = why_not_started(RuntimeError("Nanny failed to start."), ended, said)
    assert str(error).startswith(f"the workers could not be started: {told}")


def test_only_the_exit_status_shows_a_missing_guard():
    assert isinstance(why_not_started(RuntimeError(), endings(0, 78), ""), MissingMainGuard)
    error = why_not_started(OSError(99, "Cannot assign requested address"), endings(), "")
    assert not isinstance(error, MissingMainGuard)
    assert str(error).endswith("not be started: [Errno 99] Cannot assign requested address")


def test_what_distributed_raises_as_it_cleans_up_is_not_what_failed():
    error = AssertionError("Status.starting")
    error.__context__ = OSError("what failed")
    assert str(why_not_started(error, endings(), "")).endswith("could not be started: what failed")


def test_other_output_is_forwarded(capfd):
    with captured_stderr() as said:
        os.write(2, b"a line\n")
    os.write(2, b"another\n")
    assert said._thread is not None
    said._thread.join(10)
    assert capfd.readouterr().err == "a line\nanother\n"
    with captured_stderr() as said:
        said.failed = True
        os.write(2, b"a traceback\nwhy\n\n")
    assert said.last_line == "why"
    assert capfd.readouterr().err == ""


TOLD = "a worker was ended by SIGKILL, the kernel counts 1 ended for lack of memory"


def test_kills_of_the_kernel_since_the_start_are_counted(tmp_path, monkeypatch):
    groups = Groups(tmp_path)
    groups.mount_as("v2", "/job")
    groups.add("v2", "job", limit=2**26, usage=0, kills=5)
    counted = functools.partial(out_of_memory_kills, str(groups.proc))
    monkeypatch.setattr("ooc_train.runtime.endings.out_of_memory_kills", counted)
    ended = Endings()
    ended.add(-9)
    assert ended.summary == TOLD.replace("counts 1", "counts none")
    groups.add("v2", "job", limit=2**26, usage=0, kills=6)
    assert ended.summary == TOLD


@pytest.mark.skipif(not groups_can_be_made(), reason="no control group can be made here")
def test_workers_killed_for_memory_are_reported():
    code = textwrap.dedent("""
        import os, subprocess, sys
        from ooc_train.runtime.endings import Endings
        ended = Endings()
        ended.add(subprocess.run([sys.executable, "-c", "bytes([1]) * 2**27"]).returncode)
        print(ended.summary)
    """)
    with control_group(96 * 2**20) as group:
        done = subprocess.run(
            group.command(sys.executable, "-c", code),
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.stdout == f"{TOLD}\n"
