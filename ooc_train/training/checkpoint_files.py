"""One checkpoint on disk: a folder of a file of JSON and a file of arrays.

`state.npz` has the arrays of the solver's states, and `checkpoint.json` all else. The folder is
written beside its place, flushed, and named by one rename.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.atomic import PartialOutput
from ooc_train.core.files import FileKind, read_json
from ooc_train.core.output_kinds import CHECKPOINT, explain_os_errors
from ooc_train.core.renames import sync_file, sync_folder
from ooc_train.core.schema import (
    either,
    integer,
    list_of,
    mapping,
    number,
    or_none,
    record,
    require,
    shown,
    text,
)
from ooc_train.errors import InvalidRun
from ooc_train.runs.parameters import read_arrays

_VERSION = 1
_ADVICE = "restore it from a copy, or begin anew with another checkpoint"


class DamagedCheckpoint(InvalidRun):
    """Raised for a checkpoint that cannot be read, in whose place an earlier one may do."""


_SETTINGS = FileKind("the settings of a checkpoint", 2**28, DamagedCheckpoint, _ADVICE)
_ARRAYS = FileKind("the arrays of a checkpoint", 2**63, DamagedCheckpoint, _ADVICE)

_TYPES = ("<f8", "<f4", "<i8", "|u1", "|b1")
"""Types of the arrays of states."""

_SCHEMA = record(
    {
        "format": text,
        "format_version": integer(1),
        "about": mapping,
        "run": record(
            {
                "id": text,
                "seed": integer(0, 2**128),
                "every": either(text, number(0.0)),
                "training": mapping,
                "store": or_none(text),
                "validation": or_none(text),
            },
            optional={"start": or_none(record({"path": text, "digest": text}))},
        ),
        "scalars": mapping,
        "arrays": mapping,
        "progress": record(
            {
                "rows": integer(0),
                "rows_before": integer(0),
                "seconds": number(0.0),
                "learning_rate": or_none(number(0.0)),
                "notes": list_of(text),
                "steps": mapping,
                "goals": mapping,
            }
        ),
    }
)


Arrays = Mapping[str, NDArray[Any]]
"""Arrays by name; those without a dimension are numbers and text."""

_NAMES = ("state.npz", "checkpoint.json")


def write_checkpoint(path: str, values: Mapping[str, Any], parts: Mapping[str, Arrays]) -> None:
    """Write a checkpoint at a new path, whole or not at all.

    Parameters
    ----------
    path : str
        The folder to make.
    values : mapping
        "about", "run" and "progress", as values of JSON.
    parts : mapping
        The arrays of each state, by its name.

    Raises
    ------
    OSError
        If it cannot be written, with advice.
    """
    leaves = {
        f"{owner}/{name}": each for owner, part in parts.items() for name, each in part.items()
    }
    arrays = {name: each for name, each in leaves.items() if each.ndim}
    written = {
        "format": CHECKPOINT.name,
        "format_version": _VERSION,
        **values,
        "scalars": {name: each.item() for name, each in leaves.items() if not each.ndim},
        "arrays": {name: each.dtype.str for name, each in arrays.items()},
    }
    with PartialOutput(path, CHECKPOINT) as output:
        folder = output.partial_path
        with explain_os_errors(path):
            with open(os.path.join(folder, _NAMES[0]), "wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
                sync_file(file)
            with open(os.path.join(folder, _NAMES[1]), "w", encoding="utf-8") as out:
                json.dump(written, out)
                sync_file(out)
            sync_folder(folder)
        output.commit()


def read_values(path: str) -> dict[str, Any]:
    """Return the values of a checkpoint, all of them checked but the arrays.

    Raises
    ------
    DamagedCheckpoint
        If they are missing, or damaged.
    InvalidRun
        If a later release wrote them.
    """
    file = os.path.join(path, _NAMES[1])
    try:
        found = read_json(file, _SETTINGS, constants=True)
    except OSError as error:
        raise DamagedCheckpoint(f"{file} can't be read ({error}); {_ADVICE}") from None
    written = found.get("format_version")
    if isinstance(written, int) and written > _VERSION:
        raise InvalidRun(
            f"{path} was written by a later release (format {written}, this one reads {_VERSION}); "
            "install that release, or begin anew with another checkpoint"
        )
    require(found, _SCHEMA, file, _SETTINGS)
    return found


def read_parts(path: str, values: Mapping[str, Any]) -> dict[str, dict[str, NDArray[Any]]]:
    """Return the arrays of a checkpoint as they were written, given its values.

    Raises
    ------
    DamagedCheckpoint
        If arrays are missing, or damaged.
    """
    types = values["arrays"]
    for written in types.values():
        if written not in _TYPES:
            raise DamagedCheckpoint(f"{path} has an array of the type {shown(written)}; {_ADVICE}")
    try:
        numbers = read_arrays(os.path.join(path, _NAMES[0]), list(types), _ARRAYS)
    except OSError as error:
        raise DamagedCheckpoint(f"{path} can't be read ({error}); {_ADVICE}") from None
    arrays = {
        name: each.astype(types[name], copy=False)
        for name, each in zip(types, numbers, strict=True)
    }
    parts: dict[str, dict[str, NDArray[Any]]] = {}
    for name, value in (arrays | values["scalars"]).items():
        owner, _, rest = name.partition("/")
        parts.setdefault(owner, {})[rest] = np.asarray(value)
    return parts


def remove_checkpoint(path: str) -> None:
    """Remove a checkpoint. After a kill, what is left is a checkpoint or an empty folder."""
    for name in _NAMES:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(path, name))
    with suppress(OSError):  # something else lies there
        os.rmdir(path)


def is_checkpoint(path: str) -> bool:
    """Return whether a folder is a checkpoint, or what the removal of one left."""
    return CHECKPOINT.is_at(path) or (os.path.isdir(path) and not os.listdir(path))


def damaged(path: str, what: str) -> DamagedCheckpoint:
    """Return the error for a checkpoint that holds other things than it should."""
    return DamagedCheckpoint(f"{path} {what}; {_ADVICE}")


@dataclass(frozen=True, eq=False)
class LastCheckpoint:
    """The last whole checkpoint of a run.

    Attributes
    ----------
    path : str
        Its folder.
    values : mapping
        What was written as JSON.
    parts : mapping
        The arrays of each state, by its name.
    note : str
        Which later checkpoint is damaged; empty if none is.
    """

    path: str
    values: Mapping[str, Any]
    parts: Mapping[str, Any]
    note: str = ""


def last_checkpoint(path: str) -> LastCheckpoint | None:
    """Return the last whole checkpoint in a folder; None if it has none at all.

    Raises
    ------
    DamagedCheckpoint
        If all of them are damaged.
    InvalidRun
        If a later release wrote one.
    """
    error: DamagedCheckpoint | None = None
    for at in reversed(checkpoint_numbers(path)):
        place = checkpoint_path(path, at)
        try:
            values = read_values(place)
            parts = read_parts(place, values)
        except DamagedCheckpoint as found:
            error = error or found
            continue
        note = f"the last checkpoint is damaged, and the one before serves: {error}"
        return LastCheckpoint(place, values, parts, "" if error is None else note)
    if error is not None:
        raise error
    return None


def last_values(path: str) -> tuple[str, dict[str, Any]] | None:
    """Return place and values of the last checkpoint whose values can be read, without its arrays.

    Raises
    ------
    DamagedCheckpoint, InvalidRun
        As `last_checkpoint` does.
    """
    places = [checkpoint_path(path, at) for at in reversed(checkpoint_numbers(path))]
    for place in places:
        with suppress(DamagedCheckpoint):
            return place, read_values(place)
    return (places[0], read_values(places[0])) if places else None


def checkpoint_numbers(path: str) -> list[int]:
    """Return the numbers of the checkpoints in a folder, in order."""
    names = os.listdir(path) if os.path.isdir(path) else []
    numbers = [int(name) for name in names if name.isdecimal() and name == f"{int(name):06d}"]
    return sorted(number for number in numbers if is_checkpoint(checkpoint_path(path, number)))


def checkpoint_path(path: str, number: int) -> str:
    """Return the path of a checkpoint in a folder of them."""
    return os.path.join(path, f"{number:06d}")
