"""Random numbers of rows: functions of the run's seed, the epoch, and the row's number.

Each row has a stream of its own, SplitMix64 (Steele et al. 2014) from a seed that is a hash of
epoch and row. So a row draws the same numbers in any batch, block, thread or process.
"""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ooc_train.core.sums import Array, Arrays, ArraySpec, Workspace

Bits = NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


def stage_keys(seed: int, epoch: int, stages: int) -> Bits:
    """Return a 64-bit key for each augmentation of a sequence, (stages,), for one epoch."""
    keys = np.random.SeedSequence((seed, epoch)).generate_state(stages, np.uint64)
    return keys.view(np.uint64)


def row_seeds(key: np.uint64, numbers: NDArray[np.int64]) -> Bits:
    """Return the seeds of the streams of rows, (rows,), by their numbers within the data."""
    seeds = numbers.astype(np.uint64)
    seeds *= _STEP
    seeds += key
    return _mixed(seeds, np.empty_like(seeds))


def _mixed(bits: Bits, scratch: Bits) -> Bits:
    """Mix the bits of numbers in place, by SplitMix64's finalizer, and return them."""
    for shift, factor in zip(_SHIFTS, _FACTORS, strict=False):
        np.right_shift(bits, shift, out=scratch)
        bits ^= scratch
        bits *= factor
    np.right_shift(bits, _SHIFTS[-1], out=scratch)
    bits ^= scratch
    return bits


def normal_workspace(rows: int, count: int, dtype: str) -> Workspace:
    """Return the arrays by which `count` normal numbers are drawn for each row, as specs."""
    half = -(-count // 2)
    specs = {name: ArraySpec((rows, half), "<u8") for name in ("bits", "shifted")}
    return specs | {name: ArraySpec((rows, 2 * half), dtype) for name in ("uniform", "normal")}


class RowDraws:
    """Random numbers for the rows of a batch: arrays whose first axis is that of the rows.

    A call draws the next numbers of each row's stream.

    Parameters
    ----------
    seeds : uint64 array (rows,)
        The seed of each row's stream.
    scratch : mapping of arrays
        What the augmentation's `workspace` describes, cut to the rows of the batch.
    unit : float or array of the shape of a row
        What 1 after the scaling of the columns is, in units of the rows.
    """

    def __init__(
        self, seeds: Bits, scratch: Arrays | None = None, unit: float | NDArray[Any] = 1.0
    ) -> None:
        self._seeds, self._drawn = seeds, 0
        self.scratch, self.unit = scratch or {}, unit

    @property
    def n_rows(self) -> int:
        """Number of rows of the batch."""
        return len(self._seeds)

    def _bits(self, bits: Bits, shifted: Bits) -> Bits:
        """Write the next random bits of each row to `bits`, (rows, count), and return it."""
        count = bits.shape[1]
        steps = np.arange(self._drawn + 1, self._drawn + 1 + count, dtype=np.uint64)
        steps *= _STEP
        self._drawn += count
        np.add(self._seeds[:, None], steps, out=bits)
        return _mixed(bits, shifted)

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = ()) -> Array:
        """Return uniform numbers of at least `low` and below `high`, (rows, *shape)."""
        size = (self.n_rows, int(np.prod(shape)))
        bits = self._bits(np.empty(size, np.uint64), np.empty(size, np.uint64))
        drawn = (bits >> np.uint64(11)).astype(np.float64)
        drawn *= (high - low) * 2.0**-53
        drawn += low
        return drawn.reshape(self.n_rows, *shape)

    def integers(self, low: int, high: int, shape: tuple[int, ...] = ()) -> NDArray[np.int64]:
        """Return whole numbers of at least `low` and below `high`, (rows, *shape)."""
        drawn = np.floor(self.uniform(0.0, float(high - low), shape)).astype(np.int64)
        return np.minimum(low + drawn, high - 1)

    def normal(self, shape: tuple[int, ...] = (), dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """Return normal numbers of mean 0 and standard deviation 1, (rows, *shape).

        Two of them are made of 64 random bits (Box and Muller 1958).
        """
        count = int(np.prod(shape))
        specs = normal_workspace(self.n_rows, count, np.dtype(dtype).str)
        arrays: Arrays = {name: np.empty(spec.shape, spec.dtype) for name, spec in specs.items()}
        return self.normal_in(arrays)[:, :count].reshape(self.n_rows, *shape)

    def normal_in(self, arrays: Arrays) -> NDArray[Any]:
        """Return normal numbers, of which there may be one too many, in a `normal_workspace`."""
        uniform, normal = arrays["uniform"], arrays["normal"]
        bits = self._bits(arrays["bits"], arrays["shifted"])
        # Little-endian halves of 32 bits, in the type of the rows.
        np.copyto(uniform, bits.view("<u4"), casting="unsafe")
        uniform += 0.5  # the logarithm of 0 is infinite
        uniform *= 2.0**-32
        half = bits.shape[1]
        radius, angle = uniform[:, :half], uniform[:, half:]
        np.log(radius, out=radius)
        radius *= -2.0
        np.sqrt(radius, out=radius)
        angle *= 2.0 * np.pi
        for function, out in ((np.cos, normal[:, :half]), (np.sin, normal[:, half:])):
            function(angle, out=out)
            out *= radius
        return normal
