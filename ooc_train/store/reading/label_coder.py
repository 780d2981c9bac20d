"""Codes of labels, while chunks are read."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.errors import InvalidStore
from ooc_train.store.format.arrays import ArrayLayout

_CODED_ROWS = 2**13
"""Labels that are encoded at a time."""


class LabelCoder:
    """Encodes the labels of a chunk, of an array with a `coding`.

    `held_bytes` counts the bytes of its buffer, and of temporary arrays while labels are encoded.
    """

    def __init__(self, layout: ArrayLayout) -> None:
        coding = layout.coding
        if coding is None:
            raise TypeError(f"{layout.name} has no coding")
        self._layout = layout
        self._labels = np.asarray(coding.labels, coding.dtype)
        self._codes = np.asarray(coding.codes, layout.dtype)
        self._buffer: NDArray[Any] | None = None
        chunk = layout.chunk_rows * self._labels.itemsize
        self.held_bytes = chunk + min(layout.chunk_rows, _CODED_ROWS) * (16 + self._labels.itemsize)

    def buffer(self) -> NDArray[Any]:
        """Return the buffer for the labels of a chunk, the same at each call."""
        if self._buffer is None:
            self._buffer = np.empty(self._layout.chunk_rows, self._labels.dtype)
        return self._buffer

    def encode(self, labels: NDArray[Any], out: NDArray[Any], start: int) -> None:
        """Write the codes of labels to `out`, or raise `InvalidStore` for an unknown label.

        `start` is the row number of the first label, for the message.
        """
        for first in range(0, len(labels), _CODED_ROWS):
            part = labels[first : first + _CODED_ROWS]
            position = np.searchsorted(self._labels, part)
            position[position == len(self._labels)] = 0
            known = self._labels[position] == part
            if not known.all():
                row = int(np.argmin(known))
                raise InvalidStore(
                    f"row {start + first + row} has the label {part[row].item()!r} in "
                    f"{self._layout.name}, which is none of the classes; was {self._layout.path} "
                    "changed meanwhile?"
                )
            out[first : first + len(part)] = self._codes[position]
