"""Rows of CSV or JSON lines from a pipe, appended to a store as they come."""

import csv
import io
import json
import os
import select
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from ooc_train.core.temporary_folders import temporary_folder
from ooc_train.errors import InvalidTable
from ooc_train.memory.ceiling import Ceiling
from ooc_train.store.jobs.append import append, recipe_for_rows
from ooc_train.store.opening.opener import open_store
from ooc_train.tables.features import Unseen
from ooc_train.tables.quotes import whole_rows

_READ_BYTES, _BLOCK_BYTES = 2**16, 2**20
"""Bytes of a read, as many as a pipe holds, and of the text that one append takes."""


_HELD_BYTES = 64 * 2**20
"""Bytes that appends of that text hold, Arrow's among them."""


@dataclass(frozen=True)
class PipedRows:
    """The rows of a pipe, which are appended to a store in its order, all that have come at a time.

    CSV begins with a line of column names. Each JSON line is an object of values by column name;
    null is a missing value. The recipe of the store encodes both, as `append` does. An iterator
    yields () after rows were appended, and None if none have come; it ends with the pipe.

    Parameters
    ----------
    store : path
        A store that `ingest` wrote, in a local folder.
    pipe : int
        An open file descriptor, such as 0 for the standard input.
    unseen, memory_ceiling, warn
        As of `append`.
    delimiter, encoding : str, optional
        As of `append`, for CSV; JSON lines are in UTF-8.
    """

    store: str | os.PathLike[str]
    pipe: int
    unseen: Unseen | None = None
    delimiter: str | None = None
    encoding: str | None = None
    memory_ceiling: str | int | Ceiling | None = None
    warn: Callable[[str], None] = warnings.warn

    held_bytes: ClassVar[int] = _HELD_BYTES
    """Memory that the iterator needs, for the plan of who iterates."""

    def __iter__(self) -> Iterator[tuple[()] | None]:
        """Append rows as they come.

        Raises
        ------
        InvalidTable
            If the text can't be used. Rows of earlier appends stay.
        """
        recipe = recipe_for_rows(open_store(self.store))
        lines = _Lines(self.delimiter or recipe.delimiter or ",", recipe.formats.decimal)
        while True:
            came, is_over = _read(self.pipe, lines.room)
            text = lines.taken(came, is_over=is_over)
            if is_over and not text:
                return
            left = bool(text)
            while left:
                try:
                    self._append(text, lines)
                    left = False
                except BlockingIOError:
                    yield None  # another process is adding rows
            yield () if text else None

    def _append(self, text: bytes, lines: "_Lines") -> None:
        with temporary_folder("piped") as folder:
            path = os.path.join(folder, "rows.csv")
            with open(path, "wb") as file:
                file.write(text)
            append(
                self.store,
                path,
                unseen=self.unseen,
                delimiter=lines.delimiter if lines.are_json else self.delimiter,
                encoding="utf8" if lines.are_json else self.encoding,
                memory_ceiling=self.memory_ceiling,
                warn=self.warn,
            )


def _read(pipe: int, most: int) -> tuple[bytes, bool]:
    """Return what has come, at most so many bytes and without a wait, and whether it is over."""
    came = bytearray()
    while len(came) < most and select.select([pipe], [], [], 0)[0]:
        part = os.read(pipe, min(_READ_BYTES, most - len(came)))
        if not part:
            return bytes(came), True
        came += part
    return bytes(came), False


class _Lines:
    """The text of a pipe, cut into whole rows as CSV with its header.

    JSON lines become CSV of the delimiter in UTF-8, with numbers of the decimal sign.
    """

    def __init__(self, delimiter: str, decimal: str = ".") -> None:
        self.delimiter = delimiter
        self._decimal = decimal
        self._waiting = b""
        self._header = b""
        self._names: list[str] | None = None  # of JSON lines
        self._line = 0

    @property
    def are_json(self) -> bool:
        """Whether the text so far is JSON lines."""
        return self._names is not None

    @property
    def room(self) -> int:
        """Bytes that may be read: text of one append, or a row that is longer than that."""
        return max(_BLOCK_BYTES - len(self._waiting), _READ_BYTES)

    def taken(self, came: bytes, *, is_over: bool) -> bytes:
        """Return the whole rows so far as CSV, b"" if there are none."""
        text = self._waiting + came
        if is_over and text and not text.endswith(b"\n"):
            text += b"\n"
        if text[:1] == b"{" and not self._header:
            self._names, self._header = self._names or [], b"{"
        end = text.rfind(b"\n") + 1
        if self._names is None and not is_over:
            end = whole_rows(text[:end], ord(self.delimiter)).end
        self._waiting, text = text[end:], text[:end]
        if self._names is not None:
            return self._as_csv(text)
        if not self._header:
            first = whole_rows(text[: text.find(b"\n") + 1], ord(self.delimiter)).end
            self._header, text = text[:first], text[first:]
        return self._header + text if text.strip() else b""

    def _as_csv(self, text: bytes) -> bytes:
        """Return JSON lines as CSV."""
        found, rows = io.StringIO(), 0
        writer = csv.writer(found, delimiter=self.delimiter)
        for line in text.splitlines():
            self._line += 1
            if not line.strip():
                continue
            values = self._parsed(line)
            if not rows:
                self._names = self._names or list(values)
                writer.writerow(self._names)
            writer.writerow(self._cell(values[name]) for name in self._names or ())
            rows += 1
        return found.getvalue().encode() if rows else b""

    def _cell(self, value: Any) -> Any:
        """Return a value as its cell of CSV."""
        return str(value).replace(".", self._decimal) if isinstance(value, float) else value

    def _parsed(self, line: bytes) -> dict[str, Any]:
        """Return the values of a JSON line by name."""
        try:
            values = json.loads(line)
        except ValueError as error:
            raise InvalidTable(f"line {self._line:,} of the pipe is no JSON ({error})") from None
        if not isinstance(values, dict):
            raise InvalidTable(
                f"line {self._line:,} of the pipe is no JSON object of values by column name"
            )
        names = self._names or list(values)
        if values.keys() != set(names):
            (name, *_) = sorted(values.keys() ^ set(names))
            raise InvalidTable(
                f"line {self._line:,} of the pipe has other names than the lines before, such as "
                f"{name!r}; give all of them in each line, and null for a missing value"
            )
        for name, value in values.items():
            if isinstance(value, dict | list):
                raise InvalidTable(
                    f"line {self._line:,} of the pipe has a {type(value).__name__} as {name!r}; "
                    "give a number, text, true, false or null"
                )
        return values
