"""The command line of `ooc-train`, told of its memory by a made-up /proc: its first argument."""

import sys

from ooc_train.cli import main
from ooc_train.memory.system import (
    available_memory,
    in_container,
    machine_memory,
    out_of_memory_kills,
)

if __name__ == "__main__":
    proc = sys.argv.pop(1)
    for looks in (available_memory, in_container, machine_memory, out_of_memory_kills):
        looks.__defaults__ = (proc,)
    main()
