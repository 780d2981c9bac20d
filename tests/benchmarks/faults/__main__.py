"""Fault injection: kills, races, full disks, files that lie; counted by what came of them.

``python -m tests.benchmarks.faults [--minutes N] [--seed S]`` runs cases of all kinds in turn, from
seed S on; ``--only KIND --seed S --count 1`` repeats one. It ends with 1 where an outcome is none
of *fine* and *refused*. As root it makes processes and mounts of its own (`unshare`), so that what
is left behind is known, and gone at the end.
"""

import argparse
import gc
import os
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from typing import Any

_PRIVATE = "FAULTS_PRIVATE"
_NAMESPACES = (
    *("--mount", "--propagation", "private"),
    *("--pid", "--fork", "--kill-child", "--mount-proc"),
)
_SHARED = ("mount", "-t", "tmpfs", "-o", "mode=1777", "faults", "/dev/shm")


def main() -> int:
    """Run cases, and print a table and what went wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.faults",
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    parser.add_argument("--minutes", type=float, help="that cases run for (default: 5)")
    parser.add_argument("--count", type=int, help="of rounds, in place of a time")
    parser.add_argument("--seed", type=int, default=0, help="of the first cases (%(default)s)")
    parser.add_argument("--only", action="append", metavar="KIND", help="one kind, or several")
    parser.add_argument("--list", action="store_true", help="show the kinds, and run nothing")
    parser.add_argument("--verbose", action="store_true", help="show each case as it runs")
    options = parser.parse_args()
    private = _become_private()
    # What commands import, once: before the first of them is forked.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from tests.benchmarks.faults import preload  # noqa: F401
    from tests.benchmarks.faults.bench import Bench
    from tests.benchmarks.faults.kinds import KINDS

    # What is there by now is for all: the collector of a forked process leaves it alone.
    gc.collect()
    gc.freeze()
    if options.list:
        for name, kind in KINDS.items():
            print(f"{name:18} {kind.about}")
        return 0
    names = options.only or list(KINDS)
    if unknown := set(names) - KINDS.keys():
        parser.error(f"no kind {', '.join(sorted(unknown))}; --list shows them")
    with Bench.open(private=private) as bench:
        counts, bad = _run(bench, names, options)
    print(_table(counts))
    if not private:
        print("without `unshare`: processes and shared memory left behind were not looked for")
    print(f"{len(bad)} bad outcomes" if bad else "no bad outcome")
    return 1 if bad else 0


def _become_private() -> bool:
    """Go on in processes and mounts of our own, where that is allowed; return whether it is so."""
    if _PRIVATE not in os.environ:
        probe = ("unshare", *_NAMESPACES, *_SHARED)
        try:
            allowed = subprocess.run(probe, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            allowed = False
        os.environ[_PRIVATE] = str(int(allowed))
        if allowed:
            words = (sys.executable, "-m", "tests.benchmarks.faults", *sys.argv[1:])
            os.execvp("unshare", ("unshare", *_NAMESPACES, *words))
        return False
    if os.environ[_PRIVATE] == "1":
        subprocess.run(_SHARED, check=True)
        return True
    return False


def _run(
    bench: Any, names: Sequence[str], options: argparse.Namespace
) -> tuple[dict[str, Counter[str]], list[str]]:
    """Run rounds of cases; return the outcomes by kind, and the bad ones as text."""
    from tests.benchmarks.faults.kinds import KINDS
    from tests.benchmarks.faults.outcomes import GOOD

    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    timings = dict.fromkeys(names, 0.0)
    bad: list[str] = []
    begun = time.perf_counter()
    ends = begun + 60 * (options.minutes or 5)
    turn = 0
    while turn < options.count if options.count else time.perf_counter() < ends:
        for name in names:
            kind = KINDS[name]
            each = 1 if len(names) == 1 else kind.each
            for seed in range(options.seed + turn * each, options.seed + (turn + 1) * each):
                counts[name]["cases"] += 1
                started = time.perf_counter()
                for finding in _found(kind.case, bench, seed):
                    counts[name][finding.outcome] += 1
                    if options.verbose and finding.text:
                        print(f"  {finding.outcome}: {finding.text}", flush=True)
                    if finding.outcome not in GOOD:
                        again = f"--only {name} --seed {seed} --count 1"
                        text = " ".join(finding.text.split())
                        bad.append(f"{finding.outcome} [{again}] {text}")
                        print(bad[-1], flush=True)
                seconds = time.perf_counter() - started
                timings[name] += seconds
                if options.verbose:
                    print(f"{name} {seed}: {seconds:.1f} s", flush=True)
        turn += 1
    for name, seconds in timings.items():
        counts[name]["seconds"] = round(seconds)
    return counts, bad


def _found(case: Any, bench: Any, seed: int) -> Any:
    """Yield what a case finds, and, where it fails itself, that as a bad outcome."""
    from tests.benchmarks.faults.outcomes import Finding, Outcome

    try:
        yield from case(bench, seed)
    except Exception:  # noqa: BLE001 - the other cases are still to be run
        text = f"the benchmark itself failed: {traceback.format_exc()}"
        yield Finding(Outcome.TRACEBACK, text)


def _table(counts: dict[str, Counter[str]]) -> str:
    """Return the outcomes as a table: a row a kind."""
    from tests.benchmarks.faults.outcomes import Outcome
    from tests.benchmarks.tools import table

    columns = ("cases", "seconds", *Outcome)
    total: Counter[str] = Counter()
    for found in counts.values():
        total.update(found)
    rows = [
        (name, *(str(found[column]) for column in columns))
        for name, found in [*counts.items(), ("all", total)]
    ]
    return table(("kind", *map(str, columns)), rows)


if __name__ == "__main__":
    sys.exit(main())
