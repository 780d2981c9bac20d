"""Compression of chunks, and the choice whether it pays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.store.format.arrays import Codec

_LEAST_FACTOR = 1.3
"""Factor by which lz4 has to shrink a sample to be chosen."""


def compresses_well(sample: NDArray[Any]) -> bool:
    """Return whether lz4 shrinks a sample of a chunk enough to pay for its decoding."""
    return compressed_fraction(sample, "blosc") * _LEAST_FACTOR < 1


def compressed_fraction(sample: NDArray[Any], codec: Codec | None) -> float:
    """Return the encoded bytes of a sample, divided by its decoded bytes."""
    return memoryview(encode(codec, np.ascontiguousarray(sample))).nbytes / sample.nbytes


def encode(codec: Codec | None, chunk: NDArray[Any]) -> Any:
    """Return the encoded bytes of a chunk."""
    if codec == "blosc":
        from numcodecs import blosc

        return blosc.compress(chunk, b"lz4", 5, blosc.SHUFFLE)
    if codec == "zstd":
        from numcodecs import zstd

        return zstd.compress(chunk, 3)
    return chunk
