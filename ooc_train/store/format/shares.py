"""Shares of the rows of a store: small files that name the store, and no rows of their own.

A share is some of the store's chunks, drawn at random (or parts of large chunks). It has the rows
that the store had when it was split: rows that are appended later belong to no share.

A share knows a store of this package by its id, and each array without one by its fingerprint.
"""

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ooc_train.core.files import FileKind, read_json
from ooc_train.core.random_share import RandomShare
from ooc_train.core.schema import (
    UnfitError,
    flag,
    integer,
    list_of,
    mapping_of,
    number,
    one_of,
    or_none,
    record,
    require,
    text,
)
from ooc_train.core.text import counted
from ooc_train.errors import InvalidStore
from ooc_train.tables.names import SHARE_SUFFIX

_FORMAT, _VERSION, _WITH_ARRAYS, _WITH_CONTENTS = "ooc_train.share", 1, 2, 3
"""The later versions are written for arrays of other names, and for arrays without the store's id,
which earlier releases cannot open, or would not recognise."""

_FILE = FileKind("a share of a store", 2**20, InvalidStore, "split the store again")
_VALUES = record(
    {
        "format": one_of(_FORMAT),
        "format_version": one_of(_VERSION, _WITH_ARRAYS, _WITH_CONTENTS),
        "name": text,
        "store": text,
        "store_id": text,
        "shuffled": or_none(integer()),
        "n_rows": integer(1),
        "chunk_rows": integer(1),
        "seed": integer(0, 2**128),
        "places": list_of(list_of(integer(0), least=2, most=2), least=1),
    },
    optional={
        "arrays": record(
            {},
            optional={"X": text, "y": text, "sample_weight": or_none(text), "fill_missing": flag},
        ),
        "contents": mapping_of(mapping_of(text)),
        "asked": record({"test": or_none(number(0)), "folds": or_none(integer(2))}),
    },
)


@dataclass(frozen=True)
class StoreShare:
    """A share of the rows of a store, as its file records it.

    Attributes
    ----------
    name : str
        Such as "test" or "fold1.train".
    store_path, store_id : str
        Path or URL of the store, and its id when it was split; "" for one of another writer.
    shuffled : int or None
        Seed of the rows' shuffle, None if they are in their original order.
    n_stored, chunk_rows : int
        Rows of the store when it was split, and rows of a chunk, the unit that is drawn.
    drawn : RandomShare
        Which chunks the share has.
    arrays : mapping
        Arguments of `open_store` that the store was split with, but for the defaults. Paths are
        relative to the store.
    contents : mapping
        By role, the fingerprint of each array that does not repeat the id of the store.
    asked : mapping
        "test" and "folds" of the split, empty in files of earlier releases.
    """

    name: str
    store_path: str
    store_id: str
    shuffled: int | None
    n_stored: int
    chunk_rows: int
    drawn: RandomShare
    arrays: Mapping[str, Any] = field(default_factory=dict)
    contents: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Number of rows of the share."""
        chunks = self.drawn.partitions
        # The last chunk of the store may be shorter, and is the last one of its share.
        lacking = (int(chunks[-1]) + 1) * self.chunk_rows - self.n_stored
        return len(chunks) * self.chunk_rows - max(0, lacking)

    def runs(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield where rows of the share lie in the store: (first row, stop row) of each run.

        Raises
        ------
        IndexError
            If the share has no such rows.
        """
        if not 0 <= start <= stop <= self.n_rows:
            raise IndexError(f"rows {start:,} to {stop:,} of {self.n_rows:,} of a share")
        size, chunks = self.chunk_rows, self.drawn.partitions
        for i in range(start // size, -(-stop // size)):
            first, begin = int(chunks[i]) * size, i * size
            yield first + max(0, start - begin), first + min(size, stop - begin)

    def stored_row(self, row: int) -> int:
        """Return the number within the store of a row of the share."""
        return next(self.runs(row, row + 1))[0]

    def __str__(self) -> str:
        chunks = f"{len(self.drawn.partitions):,} of {counted(self.drawn.n_partitions, 'chunk')}"
        return f"{self.name} of {self.store_path}: {chunks}, by seed {self.drawn.seed}"

    def split_command(self, path: str) -> str:
        """Return the command that splits the store again as the share at a path was made."""
        words = ["ooc-train", "split", self.store_path]
        for role, option in (("X", "--x"), ("y", "--y"), ("sample_weight", "--weight")):
            if (place := self.arrays.get(role, "")) is None:
                words.append("--no-weights")
            elif place:
                words += [option, place]
        words += ["--fill-missing"] * self.arrays.get("fill_missing", False)
        for option in ("test", "folds"):
            if (value := self.asked.get(option)) is not None:
                words += [f"--{option}", f"{value:.15g}"]
        words += ["--seed", str(self.drawn.seed)]
        words += ["--by-chunks"] * (self.shuffled is None)
        return shlex.join([*words, "--out", os.path.dirname(path), "--overwrite"])

    def to_json(self, folder: str) -> dict[str, Any]:
        """Return the values of the file of the share, which will lie in a folder."""
        path = self.store_path
        return {
            "format": _FORMAT,
            "format_version": (
                _WITH_CONTENTS if self.contents else _WITH_ARRAYS if self.arrays else _VERSION
            ),
            "name": self.name,
            "store": path if "://" in path else os.path.relpath(path, folder),
            "store_id": self.store_id,
            "shuffled": self.shuffled,
            "n_rows": self.n_stored,
            "chunk_rows": self.chunk_rows,
            "seed": self.drawn.seed,
            "places": self.drawn.places,
            "asked": dict(self.asked),
            **({"arrays": dict(self.arrays)} if self.arrays else {}),
            **({"contents": self.contents} if self.contents else {}),
        }


def read_share(path: Any) -> StoreShare | None:
    """Return the share whose file lies at a path; None if the path is no such file.

    Raises
    ------
    InvalidStore
        If the file is damaged.
    """
    if not isinstance(path, str | os.PathLike):
        return None
    place = os.path.abspath(os.fspath(path))
    if not place.endswith(SHARE_SUFFIX) or not os.path.isfile(place):
        return None
    values = read_json(place, _FILE)
    require(values, _values, place, _FILE)
    store = values["store"]
    if "://" not in store:
        store = os.path.normpath(os.path.join(os.path.dirname(place), store))
    chunks = -(-values["n_rows"] // values["chunk_rows"])
    places = tuple((first, stop) for first, stop in values["places"])
    return StoreShare(
        values["name"],
        store,
        values["store_id"],
        values["shuffled"],
        values["n_rows"],
        values["chunk_rows"],
        RandomShare(chunks, places, values["seed"]),
        values.get("arrays", {}),
        values.get("contents", {}),
        values.get("asked", {}),
    )


def _values(value: Any, place: str) -> None:
    """Raise `UnfitError` unless a value is that of a share: of chunks that are there, each once."""
    _VALUES(value, place)
    end = 0
    for first, stop in value["places"]:
        if not end <= first <= stop:
            raise UnfitError("places are ranges of chunks in ascending order")
        end = stop
    if all(first == stop for first, stop in value["places"]):
        raise UnfitError("places has no chunk")
    if end > -(-value["n_rows"] // value["chunk_rows"]):
        raise UnfitError("places has chunks that the store does not have")
