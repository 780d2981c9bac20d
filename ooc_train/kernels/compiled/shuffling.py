"""The random order of the rows of a chunk, for updates."""

from typing import Any

import numpy as np

from ooc_train.kernels.compiled.parts import part


@part
def shuffle(arguments: Any) -> None:
    """Run the kernel, see `shuffle` in `kernels.api`."""
    state, order = arguments.seed, arguments.order
    for i in range(len(order)):
        order[i] = i
    for i in range(len(order) - 1, 0, -1):
        state += np.uint64(0x9E3779B97F4A7C15)
        word = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        word ^= word >> np.uint64(31)
        j = np.int64(((word >> np.uint64(31)) * np.uint64(i + 1)) >> np.uint64(33))
        order[i], order[j] = order[j], order[i]
