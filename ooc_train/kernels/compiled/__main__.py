"""Compile kernels for one type of X into files of machine code; print the bytes it took.

Standard input names the kernels. It is a pipe from the parent, never a file: the specs are pickled,
with a user's classes by value.
"""

import multiprocessing
import os
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor

from ooc_train.kernels.compiled.entries import compile_kernel
from ooc_train.kernels.compiled.quick_numba import only_translate
from ooc_train.kernels.machine_code import write
from ooc_train.kernels.specs import KernelSpec
from ooc_train.memory.processes import measure

_MOST_PROCESSES = 4


_asked: list[tuple[KernelSpec, str]] = []
"""Kernels to compile, with the path of each, the longest first. Forked processes find them here."""


def _compile(i: int, dtype: str) -> tuple[int, int]:
    """Compile one kernel; return the number of this process, and the most bytes that it held."""
    spec, path = _asked[i]
    write(path, compile_kernel(spec, dtype))
    return os.getpid(), measure().peak


def main() -> None:
    """Compile the slowest kernels first, as many at a time as there are processors."""
    dtype = sys.argv[1]
    only_translate()
    asked = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 (from the parent)
    _asked.extend(sorted(asked, key=lambda pair: -pair[0].signature.cost))
    processes = min(len(_asked), len(os.sched_getaffinity(0)), _MOST_PROCESSES)
    if processes == 1:
        held = dict(_compile(i, dtype) for i in range(len(_asked)))
    else:
        # Forked, so that numba is imported once, and a user's classes come along.
        fork = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(processes, fork) as pool:
            jobs = [pool.submit(_compile, i, dtype) for i in range(len(_asked))]
            held = dict(job.result() for job in jobs)
        held[os.getpid()] = measure().peak
    sys.stdout.write(str(sum(held.values())))


if __name__ == "__main__":
    main()
