"""The kinds of faults: what each does to commands, and how many cases of it a round has."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.benchmarks.faults import (
    command_lines,
    full_disks,
    kills,
    metadata,
    races,
    readers,
    runs,
    shards,
    tables,
)
from tests.benchmarks.faults.bench import Bench
from tests.benchmarks.faults.outcomes import Finding


@dataclass(frozen=True)
class Kind:
    """A kind of faults.

    Attributes
    ----------
    about : what is done, for people
    case : given the place and a seed, does it and finds what came of it
    each : cases in a round
    """

    about: str
    case: Callable[[Bench, int], Iterator[Finding]]
    each: int = 1


KINDS = {
    "kill-placed": Kind("a command killed just before it changes a file", kills.placed, 4),
    "kill-random": Kind("a command killed at any time", kills.random_times, 1),
    "kill-workers": Kind("a program killed that has workers of its own", kills.with_workers),
    "two-stopped": Kind("a writer stopped while another runs to its end", races.stopped),
    "two-together": Kind("two writers at once", races.together),
    "appearing": Kind("a thing that appears at the output meanwhile", races.appearing, 2),
    "replaced": Kind("a store replaced again and again while it is read", readers.case),
    "full-disk": Kind("a disk without room, or a limit on the size of files", full_disks.case, 2),
    "metadata": Kind("metadata of a store, changed in one place", metadata.case, 6),
    "runs": Kind("a file of a saved run, changed or another thing", runs.case, 4),
    "tables": Kind("a raw file that is malformed, as listed or at random", tables.case, 6),
    "command-lines": Kind("options that make no sense", command_lines.case, 8),
    "shards": Kind("a shard in another's place", shards.moved, 2),
    "bits": Kind("a bit of a store flipped", shards.flipped, 2),
}
