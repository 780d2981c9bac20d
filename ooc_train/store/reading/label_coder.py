"""Codes of the labels of a chunk."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.errors import InvalidStore
from ooc_train.store.format.arrays import ArrayLayout

_CODED_ROWS = 2**13
"""Labels of which codes are made at a time."""


class LabelCoder:
    """Makes codes of the labels of a chunk."""

    def __init__(self, layout: ArrayLayout) -> None:
        coding = layout.coding
        if coding is None:
            raise TypeError(f"{layout.name} hands its values out as they lie")
        self._layout = layout
        self._labels = np.asarray(coding.labels, coding.dtype)
        self._codes = np.asarray(coding.codes, layout.dtype)
        self._room: NDArray[Any] | None = None
        chunk = layout.chunk_rows * self._labels.itemsize
        self.held_bytes = chunk + min(layout.chunk_rows, _CODED_ROWS) * (16 + self._labels.itemsize)

    def room(self) -> NDArray[Any]:
        """Return the room for the labels of a chunk, which is the same each time."""
        if self._room is None:
            self._room = np.empty(self._layout.chunk_rows, self._labels.dtype)
        return self._room

    def encode(self, labels: NDArray[Any], out: NDArray[Any], start: int) -> None:
        """Write the codes of labels, of which the first lies in row `start`.

        Raises
        ------
        InvalidStore
            If a label is none of those that there were when the array was looked at.
        """
        for first in range(0, len(labels), _CODED_ROWS):
            part = labels[first : first + _CODED_ROWS]
            place = np.searchsorted(self._labels, part)
            place[place == len(self._labels)] = 0
            known = self._labels[place] == part
            if not known.all():
                row = int(np.argmin(known))
                raise InvalidStore(
                    f"row {start + first + row} has the label {part[row].item()!r} in "
                    f"{self._layout.name}, which is none of the classes; was {self._layout.path} "
                    "changed meanwhile?"
                )
            out[first : first + len(part)] = self._codes[place]
