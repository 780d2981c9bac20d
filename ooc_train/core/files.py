"""Small files, read whole and checked first: regular, of a stated size, JSON without surprises.

What lies at a path may be anything: the rest of a crash, a link to a device, a pipe that nobody
writes to, a file of a gigabyte. A reader here waits for nothing, takes in no more than its caller
declared, and refuses the rest in one line that names the file. `ooc_train.core.schema` checks what
was read. No other file of the package opens a file to read it, but for those that
tests/test_layers.py lists.
"""

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from ooc_train.errors import OocTrainError

MOST_VALUES = 2**24
"""Values of a JSON file: each takes up to 100 bytes once it is parsed."""

MOST_DEPTH = 64
"""Lists and objects within one another in a JSON file: what walks them may recurse."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_NO_WAITING = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_PIECE = 2**16
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class FileKind:
    """How large files of one kind may be, and how one that can't be used is refused.

    Parameters
    ----------
    what : str
        What messages call such a file: "the metadata of a store".
    limit : int
        The most bytes.
    error : type
        What is raised.
    advice : str
        The way out: "restore it from a copy".
    """

    what: str
    limit: int
    error: type[OocTrainError]
    advice: str

    def refused(self, path: str | os.PathLike[str], why: str) -> OocTrainError:
        """Return the error that a file can't be used; `why` follows its name."""
        return self.error(f"{os.fspath(path)} {why}; {self.advice}")


class IrregularError(Exception):
    """Why what lies at a path can't be read as a file: what follows its name."""


def require_regular(path: str | os.PathLike[str], kind: FileKind) -> None:
    """Refuse what a library would open by its name, and wait for, or never see the end of.

    Raises
    ------
    FileKind.error
        If it is a folder, a pipe, a socket or a device.
    OSError
        If there is nothing, or it can't be opened.
    """
    os.close(open_regular(path, kind))


def open_regular(path: str | os.PathLike[str], kind: FileKind) -> int:
    """Open a regular file as `open_plain`, and refuse others as a file of a kind.

    Raises
    ------
    FileKind.error
        If it is a folder, a pipe, a socket or a device, or its name can't be one.
    OSError
        If there is nothing, or it can't be opened.
    """
    try:
        return open_plain(path)
    except IrregularError as error:
        raise kind.refused(path, str(error)) from None


def open_plain(path: str | os.PathLike[str]) -> int:
    """Open a regular file to be read, without waiting; the caller closes the descriptor.

    Raises
    ------
    IrregularError
        If it is a folder, a pipe, a socket or a device, or its name can't be one.
    OSError
        If there is nothing, or it can't be opened.
    """
    try:
        descriptor = os.open(path, _NO_WAITING)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise IrregularError("is a socket or a device, and no file") from None
        raise
    except ValueError:
        raise IrregularError("has a NUL in its name, which no file can have") from None
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    found = next((name for test, name in _KINDS if test(mode)), "something else")
    raise IrregularError(f"is {found}, and no file")


@contextmanager
def reading(path: str | os.PathLike[str], kind: FileKind) -> Iterator[BinaryIO]:
    """Give a regular file, for libraries that read files in pieces; its size is not limited.

    Raises
    ------
    FileKind.error, OSError
        As `open_regular`.
    """
    with os.fdopen(open_regular(path, kind), "rb") as file:
        yield file


def read_start(path: str | os.PathLike[str], count: int) -> bytes:
    """Read the first bytes of a regular file, none of anything else.

    Raises
    ------
    OSError
        If there is nothing, or it can't be read.
    """
    try:
        descriptor = open_plain(path)
    except IrregularError:
        return b""
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        return file.read(count)


def read_bytes(path: str | os.PathLike[str], kind: FileKind) -> bytes:
    """Read a regular file of at most `kind.limit` bytes.

    Raises
    ------
    FileKind.error
        If it is larger, or as `open_regular`.
    OSError
        If there is nothing, or it can't be read.
    """
    descriptor = open_regular(path, kind)
    try:
        held = os.fstat(descriptor).st_size
        data = b"" if held > kind.limit else _read(descriptor, held, kind.limit + 1)
    finally:
        os.close(descriptor)
    if held > kind.limit or len(data) > kind.limit:
        more = f"{held:,}" if held > kind.limit else f"more than {kind.limit:,}"
        raise kind.refused(path, f"has {more} bytes, and {kind.what} takes at most {kind.limit:,}")
    return data


def _read(descriptor: int, held: int, most: int) -> bytes:
    """Read up to `most` bytes of a file that had `held` when it was opened."""
    parts, step = [], max(held + 1, _PIECE)
    while most and (part := os.read(descriptor, min(step, most))):
        parts.append(part)
        most -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_json(
    path: str | os.PathLike[str], kind: FileKind, *, constants: bool = False
) -> dict[str, Any]:
    """Read a JSON object.

    Parameters
    ----------
    path : str or os.PathLike
    kind : FileKind
    constants : bool
        Whether NaN and infinities may stand for numbers, as Python writes them.

    Raises
    ------
    FileKind.error
        If it is no JSON object in UTF-8; names a key twice; holds more than 2**24 values, or
        more than 64 lists and objects within one another; or as `read_bytes`.
    OSError
        If there is nothing, or it can't be read.
    """
    data = read_bytes(path, kind)
    try:
        return _parsed(data, constants=constants)
    except IrregularError as error:
        raise kind.refused(path, str(error)) from None


def parse_json(data: bytes) -> dict[str, Any]:
    """Parse a JSON object that lies within another file.

    Raises
    ------
    ValueError
        As `read_json`.
    """
    try:
        return _parsed(data, constants=False)
    except IrregularError as error:
        raise ValueError(str(error)) from None


def _parsed(data: bytes, *, constants: bool) -> dict[str, Any]:
    # No value goes without one of these before it, but for the first.
    if sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise IrregularError(f"holds more than {MOST_VALUES:,} values")
    try:
        text = data.decode()
        found = json.loads(
            text,
            object_pairs_hook=_once,
            parse_constant=None if constants else _no_constant,
        )
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise IrregularError(f"is no text in UTF-8 (at byte {error.start:,})") from None
    except UnicodeEncodeError:
        raise IrregularError("holds half a character (an escape of a surrogate)") from None
    except RecursionError:
        raise IrregularError(_too_deep()) from None
    except ValueError as error:
        # Python says where; of a number with too many digits, how many.
        raise IrregularError(f"is not valid JSON ({error})") from None
    if not isinstance(found, dict):
        raise IrregularError("holds no JSON object")
    if _is_deeper(found, MOST_DEPTH):
        raise IrregularError(_too_deep())
    return found


def _too_deep() -> str:
    return f"holds more than {MOST_DEPTH} lists and objects within one another"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs, whose keys have to differ: which one counts, nobody knows."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON's")


def _is_deeper(value: Any, most: int) -> bool:
    """Return whether there are more than `most` containers within one another."""
    level = [value]
    for _ in range(most):
        inside: list[Any] = []
        for container in level:
            values = container.values() if isinstance(container, dict) else container
            # Long lists of numbers are passed over at the speed of C.
            if not {list, dict}.isdisjoint(map(type, values)):
                inside += [each for each in values if isinstance(each, list | dict)]
        if not inside:
            return False
        level = inside
    return True
