"""Stores that were made together: the rows for training and those for testing of one `ingest`.

Both are made whole beside their places. Then the store for testing gets its name, and after it the
store for training. Where a process was killed in between, the next opening of either store, and the
next `ingest` to the same place, give the second one its name. Where nothing is left to name, and
the partner is of another ingest, a note says so: rows for testing may have been trained on. A
partner that is not there was moved or removed, which is nobody's business.

What a store is part of lies among the attributes of its X, a small file, and so in the checksums of
its manifest: the manifest of many columns is not read for it.
"""

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from time import sleep
from typing import Any

from ooc_train.core.atomic import STORE, finish_commit, partial_path_of
from ooc_train.errors import InvalidStore
from ooc_train.store.format.metadata import read_metadata

PAIR = "pair"
"""The attribute of X that says what a store is part of."""

_WAITS, _WAIT_SECONDS = 100, 0.01
"""Looks at a pair whose stores are being named by a process that is alive."""


@dataclass(frozen=True)
class StorePair:
    """What one of two stores says of both.

    Parameters
    ----------
    id : str
        Random; of both stores.
    partner : str
        Name of the other store, in the same folder.
    replaces : str
        What tells the store that this one replaced, or is to replace, from all others.
    """

    id: str
    partner: str
    replaces: str = ""

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> "StorePair | None":
        """Read it from the attributes of X, None where a store is of no pair."""
        found = attributes.get(PAIR)
        if not isinstance(found, dict) or set(found) != {"id", "partner", "replaces"}:
            return None
        if not all(isinstance(value, str) for value in found.values()):
            return None
        if found["partner"] != os.path.basename(found["partner"]):
            return None
        return cls(**found)

    @classmethod
    def at(cls, path: str) -> "StorePair | None":
        """Read what a store in a local folder says, None where it says nothing or none is there."""
        with suppress(InvalidStore, OSError):
            attributes = (read_metadata(os.path.join(path, "X")) or {}).get("attributes")
            return cls.of(attributes) if isinstance(attributes, dict) else None
        return None

    def to_json(self) -> dict[str, str]:
        """As JSON values, from which `of` makes the same."""
        return asdict(self)

    def partner_of(self, path: str) -> str:
        """Return where the partner of the store at a path lies."""
        return os.path.join(os.path.dirname(path), self.partner)


def new_pair_id() -> str:
    """Return a random id for two stores."""
    return secrets.token_hex(16)


def finish_pair(path: str) -> tuple[str, ...]:
    """Name the store that a killed process left whole beside a place, if its partner has its name.

    Parameters
    ----------
    path : str
        Absolute path of the place.

    Returns
    -------
    tuple of str
        What users have to know of it, empty where there is no such store.
    """
    left = partial_path_of(path)
    for _ in range(_WAITS):
        pending = StorePair.at(left)
        named = None if pending is None else StorePair.at(pending.partner_of(path))
        if pending is None or named is None or named.id != pending.id:
            return ()
        try:
            if not finish_commit(path, STORE, pending.replaces):
                return ()
        except BlockingIOError:
            sleep(_WAIT_SECONDS)
        except OSError as error:
            why = error.strerror or error
            note = f"an ingest was killed before it could rename {left} to {path}, and nor can this"
            return (f"{note} ({why}); open it once with permission to write there",)
        else:
            note = "an ingest was killed before it had named its second store"
            return (f"{note}: {path} is in its place now",)
    return ()


def pair_notes(path: str, pair: StorePair | None) -> tuple[str, ...]:
    """Return what users have to know of the partner of a store, which is named where it is due.

    Parameters
    ----------
    path : str
        Absolute path of the store.
    pair : StorePair or None
        Of the store.
    """
    if pair is None:
        return ()
    partner = pair.partner_of(path)
    if told := finish_pair(partner):
        return told
    if not os.path.lexists(partner):
        return ()
    theirs = StorePair.at(partner)
    if theirs is not None and theirs.id == pair.id:
        return ()
    note = (
        f"{path} and {partner} are not of the same ingest: rows for testing may be among those for "
        "training; ingest both anew"
    )
    return (note,)
