"""Full disks: a small tmpfs, of bytes or of files, or a limit on the size of a file.

The command refuses in one line and leaves nothing of its own; what lay there stays whole; and
once there is room, the same command does its work.
"""

import contextlib
import os
import random
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator

from tests.benchmarks.faults.bench import Bench, Job, copy, shell
from tests.benchmarks.faults.jobs import JOBS
from tests.benchmarks.faults.outcomes import GOOD, Finding, Outcome, ending

_SETUPS = [(job, overwrite) for overwrite in (False, True) for job in JOBS]
_PAGE = 4096


def case(bench: Bench, seed: int) -> Iterator[Finding]:
    """Run a command where it has too little room, and again where it has enough."""
    rng = random.Random(f"full-disk {seed}")
    job, overwrite = _SETUPS[seed % len(_SETUPS)]
    saved = job.saved(bench, "old" if overwrite else "new")
    n_bytes, n_files = _size(saved)
    sources = [_size(f"{bench.template}/{name}") for name in job.needs("old", "new")]
    used = sum(size for size, _ in sources) + (n_bytes if overwrite else 0)
    files = sum(count for _, count in sources) + (n_files if overwrite else 0)
    with bench.folder() as folder, contextlib.ExitStack() as stack:
        first: Callable[[], None] | None = None
        enlarge: Callable[[], object] = _nothing
        if not job.cluster and (rng.random() < 0.2 or not bench.private):
            limit = rng.randrange(6000)
            where = f"files of at most {limit} bytes"

            def limit_files() -> None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

            first = limit_files
        elif bench.private:
            # What it takes, but for a part of it.
            if rng.random() < 0.7:
                limits = f"size={used + rng.randrange(0, max(2 * _PAGE, n_bytes), _PAGE)}"
            else:
                limits = f"size=64M,nr_inodes={files + rng.randrange(n_files) + 1}"
            enlarge = stack.enter_context(_mounted(folder, limits))
            where = f"a disk of {limits}"
            if rng.random() < 0.3:
                where += " that TMPDIR lies on too"

                def move_temporary() -> None:
                    os.environ["TMPDIR"] = folder

                first = move_temporary
        else:
            return
        yield from _run(bench, job, folder, where, first, enlarge, overwrite=overwrite)


def _nothing() -> None:
    pass


def _size(path: str) -> tuple[int, int]:
    """Return the bytes, in whole pages, and the number of files and folders at a path."""
    paths = [path]
    for folder, folders, files in os.walk(path):
        paths += [os.path.join(folder, name) for name in (*folders, *files)]
    pages = [-(-os.lstat(p).st_size // _PAGE) * _PAGE for p in paths if os.path.isfile(p)]
    return sum(pages), len(paths)


@contextlib.contextmanager
def _mounted(folder: str, limits: str) -> Iterator[Callable[[], object]]:
    """Make a folder a tmpfs of its own, and give what makes it larger."""
    subprocess.run(("mount", "-t", "tmpfs", "-o", limits, "faults", folder), check=True)
    larger = ("mount", "-o", "remount,size=64M,nr_inodes=10000", folder)
    try:
        yield lambda: subprocess.run(larger, check=True)
    finally:
        subprocess.run(("umount", "--lazy", folder), check=True)


def _run(
    bench: Bench,
    job: Job,
    folder: str,
    where: str,
    first: Callable[[], None] | None,
    enlarge: Callable[[], object],
    *,
    overwrite: bool,
) -> Iterator[Finding]:
    """Run a job where there is too little room, and again where there is enough."""
    names = job.needs("old", "new")
    for name in names:
        copy(f"{bench.template}/{name}", f"{folder}/{name}")
    if overwrite:
        saved = job.saved(bench, "old")
        for name in os.listdir(saved):
            copy(f"{saved}/{name}", f"{folder}/{name}")
    words = job.command(bench, "new", overwrite=overwrite)
    what = f"`{shell(words)}` on {where}"
    before = "old" if overwrite else "absent"
    expected = [*names, *(job.outputs if overwrite else ())]
    ended = bench.run(words, folder, first=first)
    found = ending(ended, what)
    yield found
    state, why = job.state(bench, folder)
    if ended.status == 0:
        expected = [*names, *job.outputs]
    if state != ("new" if ended.status == 0 else before):
        text = f"{what}: exit {ended.status}: {before} before, then {state}. {why}"
        yield Finding(Outcome.SILENT if ended.status == 0 else Outcome.LOST, text)
    elif found.outcome in GOOD:
        for left in bench.left(folder, expected):
            yield Finding(left.outcome, f"{what}: {left.text}; {ended.err.strip()[-200:]}")
    if ended.status == 0:
        return
    enlarge()
    again = bench.run(words, folder)
    what += ", then with room"
    found = ending(again, what)
    yield found if found.outcome is not Outcome.REFUSED else Finding(Outcome.LOST, found.text)
    if found.outcome is Outcome.FINE:
        state, why = job.state(bench, folder)
        if state != "new":
            yield Finding(Outcome.SILENT, f"{what}: {state}. {why}")
        for left in bench.left(folder, [*names, *job.outputs]):
            yield Finding(left.outcome, f"{what}: {left.text}")
