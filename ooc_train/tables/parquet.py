"""Parquet as Arrow record batches, page by page: nothing is mapped, nothing is read ahead."""

import base64
import os
import struct
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from ooc_train.core.files import parse_json, reading
from ooc_train.errors import InvalidTable, TableNotFound
from ooc_train.tables.names import TABLE
from ooc_train.tables.refusals import require_all
from ooc_train.text import brief

_PAGE_BYTES = 2**20
_MOST_FOOTER_BYTES = 2**28
"""Of the account that a file gives of itself at its end, which is read whole."""

_BUFFER_BYTES = 2**16
_END = struct.Struct("<I4s")


def read_schema(path: str) -> tuple[pa.Schema, int, frozenset[str], tuple[str, ...]]:
    """Give a file's columns, the number of its rows, and its categories and its index by name.

    Raises
    ------
    InvalidTable
        It is no Parquet, or names a column twice.
    """
    with _explained(path), pq.ParquetFile(path, pre_buffer=False) as file:
        schema, metadata = file.schema_arrow, file.metadata
    require_all(path, schema.names, ())
    # Parquet brings only dictionaries of text back as such; the schema that Arrow notes tells all.
    noted, notes = schema, metadata.metadata or {}
    if b"ARROW:schema" in notes:
        noted = _schema_noted(path, notes[b"ARROW:schema"])
    dictionaries = {column.name for column in noted if pa.types.is_dictionary(column.type)}
    declared = frozenset(dictionaries & set(schema.names))
    return schema, metadata.num_rows, declared, _index(notes.get(b"pandas", b"{}"), schema.names)


def _schema_noted(path: str, note: bytes) -> pa.Schema:
    try:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(note)))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidTable(
            f"{path} holds a schema of Arrow's that can't be read: {brief(error)}; write it again"
        ) from None


def _index(notes: bytes, names: Sequence[str]) -> tuple[str, ...]:
    """Give the columns that are the index of a frame, by the notes of pandas."""
    try:
        found = parse_json(notes).get("index_columns", [])
    except ValueError:  # by another writer than pandas
        return ()
    if not isinstance(found, list):
        return ()
    # A range is noted as its bounds, and is no column.
    return tuple(name for name in names if name in [i for i in found if isinstance(i, str)])


def read_batches(
    path: str, columns: Mapping[str, pa.DataType], rows: int
) -> Generator[tuple[pa.RecordBatch, int], None, None]:
    """Give the rows of some columns, so many at a time, with the bytes that were read so far.

    Raises
    ------
    InvalidTable
        Columns that aren't there; a file that is damaged, or changes meanwhile.
    TableNotFound
        The file is gone.
    """
    names = list(columns)
    with _explained(path):
        schema = pq.read_schema(path)
        require_all(path, schema.names, names)
        # Text repeats itself: as dictionaries it takes four bytes a row, and is encoded by value.
        texts = [name for name in names if _is_text(schema.field(name).type)]
        size = os.path.getsize(path)
        with pq.ParquetFile(
            path, read_dictionary=texts, buffer_size=_BUFFER_BYTES, pre_buffer=False
        ) as file:
            n_rows, done = file.metadata.num_rows, 0
            for batch in file.iter_batches(rows, columns=names, use_threads=False):
                done += batch.num_rows
                yield batch.select(names), size * done // n_rows
        # Where a file was cut between two pages, Arrow takes it for the end.
        if done < n_rows:
            raise InvalidTable(
                f"{path} has {n_rows:,} rows by its own account and {done:,} of them came: "
                "something cut it meanwhile; restore it"
            )


def room(paths: Sequence[str]) -> int:
    """Bytes that `read_batches` holds at most, without its batches."""
    most = 0
    for path in paths:
        with _explained(path):
            metadata = pq.read_metadata(path)
        for i in range(metadata.num_row_groups):
            group = metadata.row_group(i)
            # Of every column one page and its dictionary, packed and unpacked.
            held = sum(
                min(3 * _PAGE_BYTES, 2 * group.column(j).total_uncompressed_size)
                for j in range(group.num_columns)
            )
            most = max(most, held)
    return most


def _is_text(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_string(arrow) or pa.types.is_large_string(arrow))


def _require_footer(path: str) -> None:
    """Refuse what is no file, or claims that its footer is longer than one can be."""
    with reading(path, TABLE) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _END.size))
        end = file.read(_END.size)
    if len(end) == _END.size:
        footer, magic = _END.unpack(end)
        if magic == b"PAR1" and footer > min(_MOST_FOOTER_BYTES, size):
            raise InvalidTable(
                f"{path} claims a footer of {footer:,} bytes, and {_MOST_FOOTER_BYTES:,} are the "
                "most; write it again, or restore it"
            )


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        _require_footer(path)
        yield
    except FileNotFoundError:
        raise TableNotFound(f"there is no file {path} any more; check the name") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, MemoryError):
            raise
        raise InvalidTable(
            f"{path} can't be read as Parquet: {brief(error)}; write it again, or restore it"
        ) from None
