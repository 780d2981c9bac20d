"""What came of a command, in a word, and how a command's end is told from what it left."""

import re
from dataclasses import dataclass
from enum import StrEnum

from tests.benchmarks.faults.children import Ended


class Outcome(StrEnum):
    """A word for what came of a command, or for the state that it left."""

    FINE = "fine"
    REFUSED = "refused"
    SILENT = "SILENT"
    TRACEBACK = "TRACEBACK"
    HANG = "HANG"
    MEMORY = "MEMORY"
    LEFT = "LEFT BEHIND"
    LOST = "LOST"


MEANINGS = {
    Outcome.FINE: "exit 0, the right result",
    Outcome.REFUSED: "exit 1 and one line that begins with `error:`, or exit 2 (called wrongly)",
    Outcome.SILENT: "exit 0, another result",
    Outcome.TRACEBACK: "a traceback, a Python warning, a signal, an error that is no line",
    Outcome.HANG: "not ended in time",
    Outcome.MEMORY: "more memory than a command of this size has use for",
    Outcome.LEFT: "files, shared memory or processes that no output is made of",
    Outcome.LOST: "what lay there is gone or half, or a command can't be run again",
}

GOOD = frozenset({Outcome.FINE, Outcome.REFUSED})


@dataclass(frozen=True)
class Finding:
    """An outcome, and what a reader needs to understand it: empty for good ones."""

    outcome: Outcome
    text: str = ""


_OF_PYTHON = re.compile(
    r"Traceback \(most recent call last\)|^Exception ignored in|^\S+\.py:\d+: \w*Warning",
    re.MULTILINE,
)
_STATUSES = (0, 1, 2)


def _raised(text: str) -> str:
    """Return a traceback in a line: what was raised, and the last place of ours."""
    places = re.findall(r'File "[^"]*/(ooc_train/[^"]+)", line (\d+)', text)
    place = ":".join(places[-1]) if places else "elsewhere"
    return f"{text.strip().splitlines()[-1][:300]} ({place})" if text.strip() else ""


_TERM = re.compile(r"\S.*?  +-?[\d,.]+ ([KMGT]i)?B\b")
"""A line of a plan's terms: a name and its bytes."""


def _is_told_in_a_line(refusal: list[str]) -> bool:
    """Return whether an error is one line; it may announce a list, or be followed by the terms."""
    if len(refusal) < 2:
        return len(refusal) == 1
    return refusal[0].endswith(":") or all(map(_TERM.match, refusal[1:]))


def ending(ended: Ended, what: str) -> Finding:
    """Return what came of a command by its end alone: FINE where it says that all went well.

    Parameters
    ----------
    ended : the command, as it ended
    what : the command and what was done to it, for the text
    """
    said = ended.err.strip()[-1500:] or ended.out.strip()[-300:]
    if ended.status is None:
        return Finding(Outcome.HANG, f"{what}: not ended after {ended.seconds:.0f} s")
    if ended.too_large:
        return Finding(Outcome.MEMORY, f"{what}: held {ended.peak / 2**20:,.0f} MiB")
    if _OF_PYTHON.search(ended.err) or _OF_PYTHON.search(ended.out):
        return Finding(Outcome.TRACEBACK, f"{what}: {_raised(ended.err) or said}")
    if ended.status not in _STATUSES:
        return Finding(Outcome.TRACEBACK, f"{what}: exit status {ended.status}: {said}")
    if ended.status == 0:
        return Finding(Outcome.FINE)
    if ended.status == 1 and not _is_told_in_a_line(ended.refusal):
        return Finding(Outcome.TRACEBACK, f"{what}: exit status 1 without one line: {said}")
    return Finding(Outcome.REFUSED, f"{what}: {' '.join(ended.refusal) or said}")
