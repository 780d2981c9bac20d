"""Pairs of stores: the training rows and the test rows of one `ingest`.

An ingest completes both stores under temporary names. Then it renames the test store, and after
that the training store. If the process was killed in between, the next opening of either store
renames the second one. So does the next `ingest` to the same path. If the partner belongs to
another ingest, a note warns that test rows may be among the training rows. A missing partner gives
no note: users may move or remove it.

The pair is recorded in the attributes of X: a small file, which the manifest's checksums cover. So
a look at the partner needn't read a manifest of many columns.
"""

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from time import sleep
from typing import Any

from ooc_train.core.joint_commits import finish_commit
from ooc_train.core.output_kinds import STORE
from ooc_train.core.replacements import partial_path_of
from ooc_train.errors import InvalidStore
from ooc_train.store.format.metadata import read_metadata

PAIR = "pair"
"""Attribute of X that records the pair of its store."""

_WAITS, _WAIT_SECONDS = 100, 0.01
"""Attempts, and seconds between them, while a live process renames the stores of a pair."""


@dataclass(frozen=True)
class StorePair:
    """What one store of a pair records of both: their id, and the name of the partner beside it.

    `replaces` identifies the store that this one replaces.
    """

    id: str
    partner: str
    replaces: str = ""

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> "StorePair | None":
        """Return the pair that the attributes of X record, None if there is none."""
        pair = attributes.get(PAIR)
        if not isinstance(pair, dict) or set(pair) != {"id", "partner", "replaces"}:
            return None
        if not all(isinstance(value, str) for value in pair.values()):
            return None
        if pair["partner"] != os.path.basename(pair["partner"]):
            return None
        return cls(**pair)

    @classmethod
    def at(cls, path: str) -> "StorePair | None":
        """Return the pair that the store in a local folder records, None if there is none."""
        with suppress(InvalidStore, OSError):
            attributes = (read_metadata(os.path.join(path, "X")) or {}).get("attributes")
            return cls.of(attributes) if isinstance(attributes, dict) else None
        return None

    def to_json(self) -> dict[str, str]:
        """Return JSON values from which `of` makes the same pair."""
        return asdict(self)

    def partner_of(self, path: str) -> str:
        """Return the path of the partner of the store at `path`."""
        return os.path.join(os.path.dirname(path), self.partner)


def new_pair_id() -> str:
    """Return a random id for the two stores of a pair."""
    return secrets.token_hex(16)


def finish_pair(path: str) -> tuple[str, ...]:
    """Rename the complete store that a killed ingest left, if its partner has its name.

    `path` is the absolute path that the store will have. Returns notes for the user, if there was
    such a store.
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
            note = (
                f"an ingest was killed before it renamed {left} to {path}, and renaming failed now"
            )
            return (f"{note} ({why}); open it once with permission to write there",)
        else:
            return (
                f"an ingest was killed before it renamed its second store: {path} is complete now",
            )
    return ()


def pair_notes(path: str, pair: StorePair | None) -> tuple[str, ...]:
    """Return notes for the user on a store's partner, after finishing its rename."""
    if pair is None:
        return ()
    partner = pair.partner_of(path)
    if notes := finish_pair(partner):
        return notes
    if not os.path.lexists(partner):
        return ()
    theirs = StorePair.at(partner)
    if theirs is not None and theirs.id == pair.id:
        return ()
    note = (
        f"{path} and {partner} are not of the same ingest: test rows may be among the training "
        "rows; ingest both again"
    )
    return (note,)
