"""Where cases run: known data made once, a fresh folder a case, and what is left in it."""

import contextlib
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.faults import hooks
from tests.benchmarks.faults.children import Child, Ended, Limits, command
from tests.benchmarks.faults.outcomes import Finding, Outcome
from tests.watch import tree

N_ROWS = 600
FEATURES = ("a", "b", "c", "d")
_ROOMS = ("home", "tmp")
"""Folders beside that of each case for what commands keep aside: HOME and TMPDIR."""


def write_csv(path: str, seed: int) -> None:
    """Write numbers, and labels that depend on the first of them."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N_ROWS, len(FEATURES))).round(3)
    labels = np.where(X[:, 0] + rng.logistic(size=N_ROWS) > 0, "yes", "no")
    lines = [",".join([*map(str, row), label]) for row, label in zip(X, labels, strict=True)]
    Path(path).write_text("\n".join([",".join([*FEATURES, "y"]), *lines]) + "\n")


@dataclass
class Bench:
    """Where cases run.

    Attributes
    ----------
    root : folder of all that is made
    scheduler : address of the cluster that commands use that need one
    private : whether processes and mounts are the benchmark's own (see `__main__`), so that
        whatever is there and unknown was left behind
    looks, points : what jobs write, and where they write it, once it is known
    """

    root: str
    scheduler: str
    private: bool
    _cluster: "subprocess.Popen[str] | None" = None
    looks: dict[tuple[str, str], tuple[Any, ...]] = field(default_factory=dict)
    points: dict[tuple[str, bool], list[tuple[str, str]]] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def open(cls, *, private: bool) -> Iterator["Bench"]:
        """Make the known data and start the cluster; all of it is gone at the end."""
        # No TemporaryDirectory: children run exit handlers, and would remove it.
        root = tempfile.mkdtemp(prefix="ooc_train-faults-")
        os.environ["FAULTS_FOLDER"] = root
        bench = cls(root, "", private)
        try:
            for name in ("template", *_ROOMS, "files"):
                os.mkdir(f"{root}/{name}")
            bench._start_cluster()
            bench._make_template()
            yield bench
        finally:
            bench._stop_cluster()
            shutil.rmtree(root)

    @property
    def template(self) -> str:
        """The folder of the known data: copied from, never written to by a case."""
        return f"{self.root}/template"

    def _start_cluster(self) -> None:
        words = [sys.executable, "-m", "tests.benchmarks.faults.cluster"]
        environment = self.environment(self.template) | {"TMPDIR": self.root}
        self._cluster = subprocess.Popen(
            words, stdout=subprocess.PIPE, text=True, env=os.environ | environment, cwd=self.root
        )
        assert self._cluster.stdout is not None
        self.scheduler = self._cluster.stdout.readline().strip()
        if not self.scheduler:
            raise RuntimeError("the cluster did not start")

    def _stop_cluster(self) -> None:
        if self._cluster is not None:
            self._cluster.send_signal(signal.SIGTERM)
            try:
                self._cluster.wait(10)
            except subprocess.TimeoutExpired:
                self._cluster.kill()
                self._cluster.wait()

    def _make_template(self) -> None:
        for name, seed in (("old", 1), ("new", 2)):
            write_csv(f"{self.template}/{name}.csv", seed)
            for words in (
                ("ingest", f"{name}.csv", f"{name}.zarr", "--target", "y", *CHUNKS),
                ("train", f"{name}.zarr", "--out", f"{name}.run", *SHORT, *self.on_cluster),
            ):
                self.require(words)
        os.mkdir(f"{self.template}/outputs")

    def require(self, words: Sequence[str], folder: str | None = None, **settings: Any) -> Ended:
        """Run a command that has to succeed.

        Raises
        ------
        RuntimeError
            where it does not: then the benchmark itself is wrong, or all is.
        """
        ended = self.run(words, folder or self.template, **settings)
        if ended.status != 0:
            raise RuntimeError(f"{' '.join(words)}: exit status {ended.status}: {ended.err}")
        return ended

    @property
    def on_cluster(self) -> tuple[str, ...]:
        """Options of a command that uses the cluster."""
        return ("--scheduler", self.scheduler)

    def environment(self, folder: str) -> dict[str, str]:
        """Return the variables of a process that works in a folder."""
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        return {
            "HOME": f"{os.path.dirname(folder)}/home",
            "TMPDIR": f"{os.path.dirname(folder)}/tmp",
            "OOC_TRAIN_CACHE_DIR": os.environ.get("OOC_TRAIN_CACHE_DIR", f"{cache}/ooc_train"),
            "MPLCONFIGDIR": f"{self.root}/files/matplotlib",
        }

    @contextlib.contextmanager
    def folder(self, *names: str) -> Iterator[str]:
        """Give a fresh folder with copies of things of the template, gone afterwards."""
        case = tempfile.mkdtemp(prefix="case-", dir=self.root)
        folder = f"{case}/work"
        try:
            for room in (*_ROOMS, "work"):
                os.mkdir(f"{case}/{room}")
            for name in names:
                copy(f"{self.template}/{name}", f"{folder}/{os.path.basename(name)}")
            yield folder
        finally:
            shutil.rmtree(case)

    def start(
        self,
        words: Sequence[str],
        folder: str,
        *,
        limits: Limits | None = None,
        act: Callable[[], hooks.Act] | None = None,
        first: Callable[[], object] | None = None,
        program: Callable[..., Callable[[], None]] = command,
    ) -> Child:
        """Start a command in a folder.

        Parameters
        ----------
        act : makes, in the process, what is done before each of its points
        first : called in the process before the command
        """
        function = program(*words)

        def run() -> None:
            if first is not None:
                first()
            if act is not None:
                hooks.install(os.path.dirname(folder), act())
            function()

        environment = self.environment(folder)
        return Child(run, folder=folder, environment=environment, limits=limits or Limits())

    def run(self, words: Sequence[str], folder: str, **settings: Any) -> Ended:
        """Run a command in a folder to its end; settings as of `start`."""
        return self.start(words, folder, **settings).wait()

    def check(self, function: Callable[..., Any], *arguments: Any, folder: str) -> Ended:
        """Call a function in a child, and return its end, with what the function returned."""
        return Child(
            lambda: function(*arguments),
            folder=folder,
            environment=self.environment(folder),
            limits=Limits(memory=2**30),
        ).wait()

    def left(self, folder: str, expected: Sequence[str]) -> Iterator[Finding]:
        """Find what lies in a case's folder, in shared memory and among processes unexpectedly."""
        names = set(os.listdir(folder)) - {*expected}
        for room in _ROOMS:
            names |= {f"{room}/{name}" for name in os.listdir(f"{folder}/../{room}")}
        if self.private:
            names |= {self._ended(pid) for pid in self._strangers(patience=5)} - {""}
            mapped = self._mapped()
            names |= {e.path for e in os.scandir("/dev/shm") if str(e.inode()) not in mapped}
        names = {name for name in names if not name.startswith(_NO_MATTER)}
        if names:
            yield Finding(Outcome.LEFT, f"left behind: {', '.join(sorted(names))}")
            for name in names:
                if name.startswith("/dev/shm/"):
                    os.unlink(name)

    def _processes(self) -> list[int]:
        """Return the processes that live: all that are to be seen."""
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError):
                    state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
                    if state != "Z":
                        found.append(int(name))
        return found

    def _own(self) -> set[int]:
        """Return the processes of the benchmark: this one, and the cluster's, as they are now."""
        cluster = () if self._cluster is None else tree(self._cluster.pid)
        return {os.getpid(), *cluster}

    def _mapped(self) -> set[str]:
        """Return the inodes of the shared memory that the cluster's processes have open."""
        found = set()
        for pid in self._own():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
                # A semaphore's name, for its maker, is that of a file that is gone.
                found |= {line.split()[4] for line in lines if "/dev/shm/" in line}
        return found

    def _strangers(self, patience: float) -> set[int]:
        """Return processes that live on though nobody waits for them, after some seconds."""
        ends = time.perf_counter() + patience
        while True:
            found = set(self._processes()) - self._own()
            if not found or time.perf_counter() > ends:
                return found
            time.sleep(0.05)

    def _ended(self, pid: int) -> str:
        """End a process, and return what it was."""
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            os.kill(pid, signal.SIGKILL)
            return f"process {pid}: {words[:80]}"
        return ""


_NO_MATTER = ("home/.config", "home/.cache/fontconfig")
"""What libraries of others keep at home, once."""

CHUNKS = ("--chunk", "64", "--shard", "128")
OWN_WORKERS = ("--workers", "1", "--dashboard-address", "127.0.0.1:0")
SHORT = ("--max-iter", "3", "--random-state", "0")


@dataclass(frozen=True)
class Job:
    """A command that writes, and how what it wrote is looked at.

    Attributes
    ----------
    name : for people
    words : of the command for the "old" or the "new" data, but for options of the cluster
    outputs : names of what it writes
    look : from `looks`
    uses : names of the template that it reads, with {} for "old" or "new"
    cluster : whether it runs on one
    exact : whether the same command writes the same content again
    """

    name: str
    words: Callable[[str], tuple[str, ...]]
    outputs: tuple[str, ...]
    look: Callable[[str], Any]
    uses: tuple[str, ...]
    cluster: bool = False
    exact: bool = True

    def command(
        self, bench: Bench, of: str, *, overwrite: bool, own_workers: bool = False
    ) -> tuple[str, ...]:
        """Return the words of the command, by default for the cluster that all share."""
        cluster = OWN_WORKERS if own_workers else bench.on_cluster
        words = self.words(of) + (cluster if self.cluster else ())
        return (*words, "--overwrite") if overwrite else words

    def needs(self, *names: str) -> list[str]:
        """Return what of the template it reads for some of "old" and "new"."""
        return list({use.format(name): None for name in names for use in self.uses})

    def saved(self, bench: Bench, of: str) -> str:
        """Return a folder with its outputs, which is made once."""
        kept = f"{bench.template}/outputs/{self.name.replace(' ', '-')}-{of}"
        if not os.path.isdir(kept):
            with bench.folder(*self.needs(of)) as folder:
                bench.require(self.command(bench, of, overwrite=False), folder)
                os.mkdir(kept)
                for output in self.outputs:
                    os.rename(f"{folder}/{output}", f"{kept}/{output}")
        return kept

    def seen(self, bench: Bench, folder: str, rng: random.Random | None = None) -> Ended:
        """Look at all of its outputs in a folder, in a child: a tuple with None for what lacks."""
        names = list(self.outputs)
        if rng is not None:
            rng.shuffle(names)

        def look() -> tuple[Any, ...]:
            # The first that is opened may complete, or undo, what was going on: so absent is
            # what lacks before and after.
            found = {
                name: self.look(name)
                for _ in range(2)
                for name in names
                if os.path.lexists(os.path.join(folder, name))
            }
            return tuple(found.get(name) for name in self.outputs)

        return bench.check(look, folder=folder)

    def known(self, bench: Bench, of: str) -> tuple[Any, ...]:
        """Return what its outputs are when nothing goes wrong."""
        if (self.name, of) not in bench.looks:
            ended = self.seen(bench, self.saved(bench, of))
            if ended.status != 0:
                raise RuntimeError(f"{self.name}: what it wrote can't be read: {ended.err}")
            bench.looks[self.name, of] = ended.value
        return bench.looks[self.name, of]

    def state(self, bench: Bench, folder: str, rng: random.Random | None = None) -> tuple[str, str]:
        """Return what lies at its outputs in a word, absent, old or new, else bad; and why."""
        ended = self.seen(bench, folder, rng)
        if ended.status != 0:
            return "bad", f"what lies there can't be read: {ended.err.strip()[-400:]}"
        if all(seen is None for seen in ended.value):
            return "absent", ""
        for of in ("old", "new"):
            if ended.value == self.known(bench, of):
                return of, ""
        if not self.exact and None not in ended.value:
            return "new", ""
        return "bad", f"neither old nor new, or not both of a pair: {ended.value}"


def copy(source: str, target: str) -> None:
    """Copy a file or a folder."""
    if os.path.isdir(source):
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copyfile(source, target)


def shell(words: Sequence[str]) -> str:
    """Return a command as text, without the address of the cluster."""
    shown = list(words)
    if "--scheduler" in shown:
        place = shown.index("--scheduler")
        del shown[place : place + 2]
    return shlex.join(shown)
