"""The reader of small files: regular files of a bounded size, and strict JSON.

A path may lead to anything: the remains of a crash, a device, a pipe without a writer, a gigabyte.
The reader never blocks, and reads no more bytes than its caller allows. It refuses other files in
one line that names the file. `core.schema` checks the values. No other file of the package opens
files to read them, except those that tests/test_layers.py lists.
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
"""Most values of a JSON file; a parsed value takes up to 100 bytes."""

MOST_DEPTH = 64
"""Deepest nesting of lists and objects in a JSON file, since callers recurse."""

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
    """A kind of file: its largest size, and the error for a file that can't be used.

    Parameters
    ----------
    what : str
        The name of such a file in messages: "the metadata of a store".
    limit : int
        The most bytes.
    error : type
        The type of the error.
    advice : str
        The way out: "restore it from a copy".
    """

    what: str
    limit: int
    error: type[OocTrainError]
    advice: str

    def refused(self, path: str | os.PathLike[str], why: str) -> OocTrainError:
        """Return the error for a file; the message is its name, `why` and the advice."""
        return self.error(f"{os.fspath(path)} {why}; {self.advice}")


class IrregularError(Exception):
    """Raised if a path is no readable regular file; its text follows the path in messages."""


def require_regular(path: str | os.PathLike[str], kind: FileKind) -> None:
    """Refuse a path before a library opens it, where reading would block or never end.

    Raises
    ------
    FileKind.error
        If the path is a folder, a pipe, a socket or a device.
    OSError
        If nothing lies there, or it can't be opened.
    """
    os.close(open_regular(path, kind))


def open_regular(path: str | os.PathLike[str], kind: FileKind) -> int:
    """Open a regular file as `open_plain` does, with the errors of its kind of file.

    Raises
    ------
    FileKind.error
        If the path is a folder, a pipe, a socket or a device, or holds a NUL.
    OSError
        If nothing lies there, or it can't be opened.
    """
    try:
        return open_plain(path)
    except IrregularError as error:
        raise kind.refused(path, str(error)) from None


def open_plain(path: str | os.PathLike[str]) -> int:
    """Open a regular file to read, without blocking; the caller closes the descriptor.

    Raises
    ------
    IrregularError
        If the path is a folder, a pipe, a socket or a device, or holds a NUL.
    OSError
        If nothing lies there, or it can't be opened.
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
    """Open a regular file of any size, for libraries that read it in pieces.

    Raises
    ------
    FileKind.error, OSError
        As `open_regular`.
    """
    with os.fdopen(open_regular(path, kind), "rb") as file:
        yield file


def read_start(path: str | os.PathLike[str], count: int) -> bytes:
    """Return the first `count` bytes of a regular file, or no bytes of anything else.

    Raises
    ------
    OSError
        If nothing lies there, or it can't be read.
    """
    try:
        descriptor = open_plain(path)
    except IrregularError:
        return b""
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        return file.read(count)


def read_bytes(path: str | os.PathLike[str], kind: FileKind) -> bytes:
    """Return the content of a regular file of at most `kind.limit` bytes.

    Raises
    ------
    FileKind.error
        If the file is larger, or as `open_regular` does.
    OSError
        If nothing lies there, or it can't be read.
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
    """Read up to `most` bytes of a file that held `held` bytes when it was opened."""
    parts, step = [], max(held + 1, _PIECE)
    while most and (part := os.read(descriptor, min(step, most))):
        parts.append(part)
        most -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_json(
    path: str | os.PathLike[str], kind: FileKind, *, constants: bool = False
) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    kind : FileKind
        Its kind.
    constants : bool
        Whether NaN and infinities are accepted, as Python writes them.

    Raises
    ------
    FileKind.error
        If the file is no JSON object in UTF-8, repeats a key, holds more than 2**24 values, or
        nests more than 64 deep; or as `read_bytes`.
    OSError
        If nothing lies there, or it can't be read.
    """
    data = read_bytes(path, kind)
    try:
        return _parsed(data, constants=constants)
    except IrregularError as error:
        raise kind.refused(path, str(error)) from None


def parse_json(data: bytes, *, constants: bool = False) -> dict[str, Any]:
    """Parse a JSON object that is part of another file; `constants` as in `read_json`.

    Raises
    ------
    ValueError
        As `read_json` refuses a file.
    """
    try:
        return _parsed(data, constants=constants)
    except IrregularError as error:
        raise ValueError(str(error)) from None


def _parsed(data: bytes, *, constants: bool) -> dict[str, Any]:
    # One of these characters precedes every value but the first.
    if sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise IrregularError(f"holds more than {MOST_VALUES:,} values")
    try:
        text = data.decode()
        found = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=None if constants else _refuse_constant,
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
        # Python's message has the place, or the number of digits.
        raise IrregularError(f"is not valid JSON ({error})") from None
    if not isinstance(found, dict):
        raise IrregularError("holds no JSON object")
    if _is_deeper(found, MOST_DEPTH):
        raise IrregularError(_too_deep())
    return found


def _too_deep() -> str:
    return f"holds more than {MOST_DEPTH} lists and objects within one another"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict of its pairs, or refuse a key that occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON's")


def _is_deeper(value: Any, most: int) -> bool:
    """Return whether containers are nested more than `most` deep."""
    level = [value]
    for _ in range(most):
        inside: list[Any] = []
        for container in level:
            values = container.values() if isinstance(container, dict) else container
            # This skips long lists of numbers at the speed of C.
            if not {list, dict}.isdisjoint(map(type, values)):
                inside += [each for each in values if isinstance(each, list | dict)]
        if not inside:
            return False
        level = inside
    return True
