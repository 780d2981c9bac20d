"""What a forked process inherits of threads that it does not have.

A fork copies memory and the one thread that forks. Locks that other threads held stay locked in
the copy, counts of what they were doing stay as they were, and nobody is left to change either.
"""

import os
from collections.abc import Callable

_forked = False


def after_fork(renew: Callable[[], object]) -> Callable[[], object]:
    """Have a function called first in every process that this one forks; a decorator.

    Not in processes that `multiprocessing` spawns: they begin with nothing of this one's memory.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)
    return renew


@after_fork
def _note() -> None:
    global _forked
    _forked = True


def is_forked() -> bool:
    """Return whether this process was forked from one that had loaded this file."""
    return _forked
