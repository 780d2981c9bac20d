"""State that a forked process has to renew.

A fork copies the memory and only the thread that forks. In the copy, locks of other threads stay
locked, and counts of their work stay as they were, since those threads don't exist there.
"""

import os
from collections.abc import Callable

_forked = False


def after_fork(renew: Callable[[], object]) -> Callable[[], object]:
    """Register a function to run first in every process that this one forks; a decorator.

    Processes that `multiprocessing` spawns start without a copy, and don't call it.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)
    return renew


@after_fork
def _note_fork() -> None:
    global _forked
    _forked = True


def is_forked() -> bool:
    """Return whether this process was forked from one that had loaded this file."""
    return _forked
