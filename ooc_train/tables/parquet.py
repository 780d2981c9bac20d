"""Parquet as Arrow record batches, page by page: nothing is mapped, nothing is read ahead."""

import base64
import os
import struct
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ooc_train.core.files import parse_json, reading
from ooc_train.core.text import brief
from ooc_train.errors import InvalidTable, TableNotFound
from ooc_train.tables.diagnostics import require_all
from ooc_train.tables.names import TABLE

_PAGE_BYTES = 2**20
_MOST_FOOTER_BYTES = 2**28
"""Of the account that a file gives of itself at its end, which is read whole."""

_BUFFER_BYTES = 2**16
_END = struct.Struct("<I4s")
_COLUMNS_TOGETHER = 512
"""Columns of a row group that are read at a time, where all of it fits."""

_READER_BYTES = 7 * 2**10
"""Of what reads a column, beside its pages."""

_METADATA_COPIES = 18
"""What a file says of its columns takes so many times its bytes in memory (measured: 14 to 16)."""


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
        metadata = pq.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
        require_all(path, schema.names, names)
        # Text repeats itself: as dictionaries it takes four bytes a row, and is encoded by value.
        texts = [name for name in names if _is_text(schema.field(name).type)]
        size, n_rows, done = os.path.getsize(path), metadata.num_rows, 0
        with pq.ParquetFile(
            path,
            metadata=metadata,
            read_dictionary=texts,
            buffer_size=_BUFFER_BYTES,
            pre_buffer=False,
        ) as file:
            if _pages(metadata) > _whole(metadata):
                batches = _groups(file, names, rows)
            else:
                batches = file.iter_batches(rows, columns=names, use_threads=False)
            del metadata
            for batch in batches:
                done += batch.num_rows
                yield batch.select(names), size * done // n_rows
        # Where a file was cut between two pages, Arrow takes it for the end.
        if done < n_rows:
            raise InvalidTable(
                f"{path} has {n_rows:,} rows by its own account and {done:,} of them came: "
                "something cut it meanwhile; restore it"
            )


def _groups(file: pq.ParquetFile, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Read row groups whole, some columns at a time: each is 7 KB and its pages to read."""
    for i in range(file.metadata.num_row_groups):
        arrays: list[pa.Array] = []
        for start in range(0, len(names), _COLUMNS_TOGETHER):
            some = list(names[start : start + _COLUMNS_TOGETHER])
            table = file.read_row_group(i, columns=some, use_threads=False)
            for name in some:
                chunks = table.column(name)
                arrays.append(
                    chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()
                )
        batch = pa.RecordBatch.from_arrays(arrays, names=list(names))
        del arrays
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


class Held(NamedTuple):
    """Bytes that reading holds: of pages, and of what the files say of their columns."""

    pages: int
    metadata: int


def room(paths: Sequence[str]) -> Held:
    """Bytes that `read_batches` holds at most, without its batches."""
    pages = told = 0
    for path in paths:
        with _explained(path):
            metadata = pq.read_metadata(path)
        told = max(told, _METADATA_COPIES * metadata.serialized_size)
        pages = max(pages, min(_pages(metadata), _whole(metadata)))
    return Held(pages, told)


def _pages(metadata: pq.FileMetaData) -> int:
    """Bytes of every column's pages, of the largest row group, where all are read at a time."""
    most = 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        # Of every column one page and its dictionary, packed and unpacked.
        held = sum(
            _READER_BYTES + min(3 * _PAGE_BYTES, 2 * group.column(j).total_uncompressed_size)
            for j in range(group.num_columns)
        )
        most = max(most, held)
    return most


def _whole(metadata: pq.FileMetaData) -> int:
    """Bytes of the largest row group as a whole, twice, since the next is read meanwhile."""
    most = 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        n = group.num_columns
        # An array takes 1 KB, a value of text its bytes, another eight at most.
        values = max(8 * n * group.num_rows, group.total_byte_size)
        readers = sum(
            _READER_BYTES + min(3 * _PAGE_BYTES, 2 * size)
            for size in sorted(
                (group.column(j).total_uncompressed_size for j in range(n)), reverse=True
            )[:_COLUMNS_TOGETHER]
        )
        most = max(most, 2 * (values + 1024 * n) + readers)
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
