"""Compile the loops for one type of X into a file of machine code; print the bytes it took."""

import sys

from ooc_train.kernels.compiled.entries import compile_kernels
from ooc_train.kernels.machine_code import write
from ooc_train.memory.processes import measure

if __name__ == "__main__":
    dtype, path = sys.argv[1:]
    write(path, compile_kernels(dtype))
    sys.stdout.write(str(measure().peak))
