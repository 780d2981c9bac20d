"""Kills: just before a rename, a removal, a new folder, a link or a file to write; or at any time.

Afterwards what lies at the output has to open whole, as it was before or as it was to be, and both
of a pair alike. The same command, given again, has to do its work (or say that it is done) and
leave nothing behind.
"""

import os
import random
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.faults import hooks
from tests.benchmarks.faults.bench import Bench, Job, copy, shell
from tests.benchmarks.faults.children import Ended, Limits, program
from tests.benchmarks.faults.jobs import JOBS
from tests.benchmarks.faults.outcomes import Finding, Outcome, ending

_LARGE = Limits(seconds=120, memory=1000 * 2**20)
_SETUPS = [(job, overwrite) for overwrite in (True, False) for job in JOBS]


def points_of(bench: Bench, job: Job, *, overwrite: bool) -> list[tuple[str, str]]:
    """Return the points of a job that nothing goes wrong with: events and paths, in order."""
    if (job.name, overwrite) not in bench.points:
        with prepared(bench, job, overwrite=overwrite) as folder:
            listed = f"{bench.root}/files/points"
            words = job.command(bench, "new", overwrite=overwrite)
            bench.require(words, folder, act=lambda: hooks.listed_in(listed))
            lines = Path(listed).read_text().splitlines()
            os.unlink(listed)
        pairs = [line.partition("\t")[::2] for line in lines]
        bench.points[job.name, overwrite] = [(event, path) for event, path in pairs]
    return bench.points[job.name, overwrite]


class prepared:  # noqa: N801 - it reads as a function where it is used
    """A folder with what a job reads, and, to be overwritten, its old output."""

    def __init__(self, bench: Bench, job: Job, *, overwrite: bool) -> None:
        self._old = job.saved(bench, "old") if overwrite else None
        self._context = bench.folder(*job.needs("old", "new"))

    def __enter__(self) -> str:
        folder = self._context.__enter__()
        if self._old is not None:
            for name in os.listdir(self._old):
                copy(f"{self._old}/{name}", f"{folder}/{name}")
        return folder

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)


def placed(bench: Bench, seed: int) -> Iterator[Finding]:
    """Kill a command just before one of its points."""
    rng = random.Random(f"placed {seed}")
    job, overwrite = _SETUPS[seed % len(_SETUPS)]
    points = points_of(bench, job, overwrite=overwrite)
    # Those that change what has a name already count three times: most of a job's are new files.
    weights = [1 if event in ("open", "os.mkdir") else 3 for event, _ in points]
    point = rng.choices(range(len(points)), weights)[0]
    with prepared(bench, job, overwrite=overwrite) as folder:
        words = job.command(bench, "new", overwrite=overwrite)
        event, path = points[point]
        what = f"`{shell(words)}` killed before point {point}, {event} of {os.path.basename(path)}"
        ended = bench.run(words, folder, act=lambda: hooks.killed_at(point))
        yield from _after(bench, job, folder, ended, what, rng, overwrite=overwrite)


def random_times(bench: Bench, seed: int) -> Iterator[Finding]:
    """Kill a command some time before it would end."""
    rng = random.Random(f"random {seed}")
    job, overwrite = _SETUPS[seed % len(_SETUPS)]
    points_of(bench, job, overwrite=overwrite)
    with prepared(bench, job, overwrite=overwrite) as folder:
        words = job.command(bench, "new", overwrite=overwrite)
        began = bench.run(words, folder).seconds
    with prepared(bench, job, overwrite=overwrite) as folder:
        moment = rng.uniform(0.1, 1.0) * began
        ended = bench.start(words, folder).wait(kill_after=moment)
        what = f"`{shell(words)}` killed after {moment:.3f} s"
        yield from _after(bench, job, folder, ended, what, rng, overwrite=overwrite)


def with_workers(bench: Bench, seed: int) -> Iterator[Finding]:
    """Kill a program from anew, with workers of its own, at any time or before a point."""
    rng = random.Random(f"with workers {seed}")
    jobs = [job for job in JOBS if job.cluster]
    overwrite, number = divmod(seed, len(jobs))
    job, overwrite = jobs[number], overwrite % 2 == 0
    points = points_of(bench, job, overwrite=overwrite)
    with prepared(bench, job, overwrite=overwrite) as folder:
        words = job.command(bench, "new", overwrite=overwrite, own_workers=True)
        point, moment = rng.randrange(len(points)), rng.uniform(0.3, 6)
        if rng.random() < 0.5:
            hook = {"folder": os.path.dirname(folder), "act": "kill", "argument": point}
            killed = partial(program, hook=hook)
            ended = bench.run(words, folder, program=killed, limits=_LARGE)
            what = f"`{shell(words)}`, with workers, killed before point {point}"
        else:
            child = bench.start(words, folder, program=program, limits=_LARGE)
            ended = child.wait(kill_after=moment)
            what = f"`{shell(words)}`, with workers, killed after {moment:.1f} s"
        yield from _after(
            bench, job, folder, ended, what, rng, overwrite=overwrite, own_workers=True
        )


def _after(
    bench: Bench,
    job: Job,
    folder: str,
    ended: Ended,
    what: str,
    rng: random.Random,
    *,
    overwrite: bool,
    own_workers: bool = False,
) -> Iterator[Finding]:
    """Find what a killed command left, and what the same command makes of it."""
    if ended.status != -signal.SIGKILL:
        yield ending(ended, what)
    before = "old" if overwrite else "absent"
    state, why = job.state(bench, folder, rng)
    if state not in (before, "new"):
        yield Finding(Outcome.LOST, f"{what}: {before} before, then {state}. {why}")
    else:
        yield Finding(Outcome.FINE)
    if rng.random() < 0.25:
        # Whoever removes what lies there, and begins anew, has nothing come back.
        what += ", what lay there was removed"
        state = "absent"
        for name in job.outputs:
            path = f"{folder}/{name}"
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.lexists(path):
                os.unlink(path)
    words = job.command(bench, "new", overwrite=overwrite, own_workers=own_workers)
    how: dict[str, Any] = {"program": program, "limits": _LARGE} if own_workers else {}
    again = bench.run(words, folder, **how)
    what += ", then the same command"
    found = ending(again, what)
    if found.outcome is Outcome.REFUSED and (state != "new" or "exist" not in found.text):
        yield Finding(Outcome.LOST, f"{what}: {found.text}")
    else:
        yield found
    if found.outcome in (Outcome.FINE, Outcome.REFUSED):
        state, why = job.state(bench, folder, rng)
        if state != "new":
            yield Finding(Outcome.SILENT, f"{what}: exit {again.status}, then {state}. {why}")
    yield from (
        Finding(left.outcome, f"{what}: {left.text}")
        for left in bench.left(folder, [*job.needs("old", "new"), *job.outputs])
    )
