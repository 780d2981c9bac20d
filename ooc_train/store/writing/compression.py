"""Compression of chunks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.store.format.arrays import Codec

_WORTH_PACKING = 1.3
"""lz4 is chosen where it shrinks a sample by more."""


def compresses_well(sample: NDArray[Any]) -> bool:
    """Say whether lz4 shrinks a sample of a chunk by enough to pay for being decoded."""
    return compressed_fraction(sample, "blosc") * _WORTH_PACKING < 1


def compressed_fraction(sample: NDArray[Any], codec: Codec | None) -> float:
    """Give the share of a sample's bytes that a codec leaves of it."""
    return memoryview(encode(codec, np.ascontiguousarray(sample))).nbytes / sample.nbytes


def encode(codec: Codec | None, chunk: NDArray[Any]) -> Any:
    """Return the bytes of a chunk as its codec makes them."""
    if codec == "blosc":
        from numcodecs import blosc

        return blosc.compress(chunk, b"lz4", 5, blosc.SHUFFLE)
    if codec == "zstd":
        from numcodecs import zstd

        return zstd.compress(chunk, 3)
    return chunk
