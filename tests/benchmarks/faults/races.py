"""Two writers of one output, and things that appear at an output while a command is under way.

The last to commit wins whole, or is refused in one line. What others put there is never lost: a
command replaces only what is of its own kind, and only if it was asked to.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.faults import hooks, looks
from tests.benchmarks.faults.bench import Bench, Job, copy, shell
from tests.benchmarks.faults.children import Child, Ended
from tests.benchmarks.faults.jobs import JOBS
from tests.benchmarks.faults.kills import points_of, prepared
from tests.benchmarks.faults.outcomes import GOOD, Finding, Outcome, ending

_SETUPS = [(job, overwrite) for overwrite in (False, True) for job in JOBS]


def stopped(bench: Bench, seed: int) -> Iterator[Finding]:
    """Stop a writer just before one of its points, run another to its end, and let it go on."""
    rng = random.Random(f"stopped {seed}")
    job, overwrite = _SETUPS[seed % len(_SETUPS)]
    points = points_of(bench, job, overwrite=overwrite)
    point = rng.randrange(len(points))
    event, path = points[point]
    with prepared(bench, job, overwrite=overwrite) as folder:
        told = f"{bench.root}/files/stopped"
        words = job.command(bench, "new", overwrite=overwrite)
        others = job.command(bench, "old", overwrite=overwrite)
        what = (
            f"`{shell(words)}` stopped before point {point}, {event} of {os.path.basename(path)}, "
            f"`{shell(others)}` run meanwhile"
        )
        first = bench.start(words, folder, act=lambda: hooks.stopped_at(point, told))
        while not os.path.exists(told) and not first.poll():
            time.sleep(0.005)
        second = bench.run(others, folder)
        if not first.poll():
            os.kill(first.pid, signal.SIGCONT)
        ended = {"new": first.wait(), "old": second}
        if os.path.exists(told):
            os.unlink(told)
        yield from _after_both(bench, job, folder, ended, what, overwrite=overwrite)


def together(bench: Bench, seed: int) -> Iterator[Finding]:
    """Start two writers at once."""
    rng = random.Random(f"together {seed}")
    job, overwrite = _SETUPS[seed % len(_SETUPS)]
    with prepared(bench, job, overwrite=overwrite) as folder:
        started: dict[str, Child] = {}
        order = rng.sample(("new", "old"), 2)
        for of in order:
            started[of] = bench.start(job.command(bench, of, overwrite=overwrite), folder)
            time.sleep(rng.choice((0, 0, 0.01, 0.05)))
        ended = {of: child.wait() for of, child in started.items()}
        words = job.command(bench, order[0], overwrite=overwrite)
        what = f"`{shell(words)}` and the same of {order[1]} at once"
        yield from _after_both(bench, job, folder, ended, what, overwrite=overwrite)


def _after_both(
    bench: Bench,
    job: Job,
    folder: str,
    ended: dict[str, Ended],
    what: str,
    *,
    overwrite: bool,
) -> Iterator[Finding]:
    """Find what two writers came to: the old one, the new one, and what lies there."""
    found = {of: ending(end, f"{what}: the {of} one") for of, end in ended.items()}
    yield from found.values()
    done = [of for of, end in ended.items() if end.status == 0]
    if len(done) == 2 and not overwrite:
        yield Finding(Outcome.LOST, f"{what}: both wrote it, though neither may replace")
    state, why = job.state(bench, folder)
    expected = done or ["old" if overwrite else "absent"]
    if not job.exact and state == "new" and done:
        state = done[0]
    if state not in expected:
        outcome = Outcome.SILENT if done else Outcome.LOST
        yield Finding(outcome, f"{what}: done by {done}, then {state}. {why}")
    if {finding.outcome for finding in found.values()} <= GOOD:
        for left in bench.left(folder, [*job.needs("old", "new"), *job.outputs]):
            yield Finding(left.outcome, f"{what}: {left.text}")


def _file(bench: Bench, path: str) -> None:
    Path(path).write_text("someone's words\n")


def _folder(bench: Bench, path: str) -> None:
    os.makedirs(f"{path}/theirs")
    _file(bench, f"{path}/theirs/words.txt")


def _link(bench: Bench, path: str) -> None:
    os.symlink("old.csv", path)


def _store(bench: Bench, path: str) -> None:
    copy(f"{bench.template}/old.zarr", path)


def _run(bench: Bench, path: str) -> None:
    copy(f"{bench.template}/old.run", path)


_THINGS: dict[str, Callable[[Bench, str], None]] = {
    "a file": _file,
    "a folder with someone's file": _folder,
    "a link": _link,
    "a store": _store,
    "a run": _run,
}
_SAME_KIND: dict[Callable[[str], Any], str] = {
    looks.store: "a store",
    looks.predictions: "a store",
    looks.run: "a run",
    looks.table: "a file",
    looks.page: "a file",
    looks.picture: "a file",
}
"""What a command may replace when it is asked to."""


def appearing(bench: Bench, seed: int) -> Iterator[Finding]:
    """Put something at the output of a command just before one of its points."""
    rng = random.Random(f"appearing {seed}")
    job, overwrite = _SETUPS[seed % len(_SETUPS)]
    points = points_of(bench, job, overwrite=overwrite)
    # Of two, one late: between what is looked at first, and the commit.
    late = rng.random() < 0.5
    point = rng.randrange(max(0, len(points) - 8) if late else 0, len(points))
    thing = rng.choice(sorted(_THINGS))
    output = rng.choice(job.outputs)
    event, path = points[point]
    with prepared(bench, job, overwrite=overwrite) as folder:
        place, late_mark = f"{folder}/{output}", f"{bench.root}/files/late"
        before = looks.anything(place) if overwrite else None

        def put(number: int, event: str, path: str) -> None:
            if number != point:
                return
            lies = os.path.lexists(place)
            if (looks.anything(place) if lies else None) != before:
                # Too late: it was committed, and this would be to destroy it.
                os.mkdir(late_mark)
                return
            if lies:
                shutil.rmtree(place) if os.path.isdir(place) else os.unlink(place)
            _THINGS[thing](bench, place)

        words = job.command(bench, "new", overwrite=overwrite)
        what = (
            f"`{shell(words)}`, where {thing} appeared at {output} before point {point}, {event} "
            f"of {os.path.basename(path)}"
        )
        ended = bench.run(words, folder, act=lambda: put)
        found = ending(ended, what)
        yield found
        if os.path.isdir(late_mark):
            os.rmdir(late_mark)
            return
        if found.outcome not in GOOD:
            return
        yield from _kept(bench, job, folder, output, thing, ended, what, overwrite=overwrite)


def _elsewhere(job: Job, folder: str, ended: Ended) -> list[str]:
    """Return the paths that a command says it wrote to in place of its outputs."""
    words = {word.strip(".,;:()'\"`") for word in (ended.out + ended.err).split()}
    paths = {os.path.join(folder, word) for word in words if word}
    stems = tuple(f"{folder}/{os.path.splitext(output)[0]}-" for output in job.outputs)
    return sorted(path for path in paths if path.startswith(stems) and os.path.lexists(path))


def _kept(
    bench: Bench,
    job: Job,
    folder: str,
    output: str,
    thing: str,
    ended: Ended,
    what: str,
    *,
    overwrite: bool,
) -> Iterator[Finding]:
    """Find whether a thing that appeared lies where it was put, or was replaced as was asked."""
    place = f"{folder}/{output}"
    expected = f"{bench.root}/files/expected"
    _THINGS[thing](bench, expected)
    intact = os.path.lexists(place) and looks.anything(place) == looks.anything(expected)
    shutil.rmtree(expected) if os.path.isdir(expected) else os.unlink(expected)
    told = f"{what}: exit {ended.status}: {ended.out[-200:]} {ended.err[-300:]}"
    expected_names = [*job.needs("old", "new"), *job.outputs]
    if not intact:
        replaceable = overwrite and _SAME_KIND.get(job.look) == thing
        seen = job.seen(bench, folder)
        if not replaceable or seen.status != 0:
            yield Finding(Outcome.LOST, f"{told}: {thing} is gone")
    elsewhere = _elsewhere(job, folder, ended)
    for path in elsewhere:
        seen = bench.check(job.look, path, folder=folder)
        if seen.status != 0 or (job.exact and seen.value != job.known(bench, "new")[0]):
            yield Finding(Outcome.SILENT, f"{told}: {path} is not what was made")
    if intact and not elsewhere and (ended.status == 0 or job.look is looks.run):
        # What was learned is kept in any case; other things where the command says that they are.
        yield Finding(Outcome.SILENT, f"{told}: {thing} lies there, and the output nowhere")
    expected_names += map(os.path.basename, elsewhere)
    for other in {*job.outputs} - {output}:
        lies = f"{folder}/{other}"
        before = f"{job.saved(bench, 'old')}/{other}" if overwrite else None
        content = looks.anything(lies) if os.path.lexists(lies) else None
        if ended.status != 0 and content != (before and looks.anything(before)):
            yield Finding(Outcome.LOST, f"{told}: {other}, of the same pair, is another one")
    for left in bench.left(folder, expected_names):
        yield Finding(left.outcome, f"{told}: {left.text}")
