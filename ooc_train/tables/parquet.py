"""Parquet as Arrow record batches, page by page, without memory maps and without prefetching."""

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
from ooc_train.tables.diagnostics import require_columns
from ooc_train.tables.names import TABLE

_PAGE_BYTES = 2**20
_MOST_FOOTER_BYTES = 2**28
"""Most bytes of the footer, which is read whole."""

_BUFFER_BYTES = 2**16
_END = struct.Struct("<I4s")
_COLUMNS_TOGETHER = 512
"""Columns that are read at a time, where a row group is read whole."""

_READER_BYTES = 7 * 2**10
"""Bytes of the reader of a column, without its pages."""

_METADATA_COPIES = 18
"""Bytes of a file's metadata in memory per byte in the file; 14 to 16 were measured."""


def read_schema(path: str) -> tuple[pa.Schema, int, frozenset[str], tuple[str, ...]]:
    """Return schema, number of rows, categorical columns and index columns of a file.

    `InvalidTable` is raised if the file is no Parquet, or names a column twice.
    """
    with _explain_errors(path), pq.ParquetFile(path, pre_buffer=False) as file:
        schema, metadata = file.schema_arrow, file.metadata
    require_columns(path, schema.names, ())
    # Parquet restores only dictionaries of text; the noted Arrow schema has all dictionaries.
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
    """Return the index columns of a frame, by the metadata of pandas."""
    try:
        found = parse_json(notes).get("index_columns", [])
    except ValueError:  # by another writer than pandas
        return ()
    if not isinstance(found, list):
        return ()
    # pandas notes a range as its bounds, which is no column.
    return tuple(name for name in names if name in [i for i in found if isinstance(i, str)])


def read_batches(
    path: str, columns: Mapping[str, pa.DataType], rows: int
) -> Generator[tuple[pa.RecordBatch, int], None, None]:
    """Yield batches of some columns, of at most `rows` rows, and the bytes that were read so far.

    Raises
    ------
    InvalidTable
        If a column is absent, or the file is damaged or changes meanwhile.
    TableNotFound
        If the file is gone.
    """
    names = list(columns)
    with _explain_errors(path):
        metadata = pq.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
        require_columns(path, schema.names, names)
        # Text repeats: a dictionary takes four bytes a row, and each value is encoded once.
        texts = [name for name in names if _is_text(schema.field(name).type)]
        size, n_rows, done = os.path.getsize(path), metadata.num_rows, 0
        with pq.ParquetFile(
            path,
            metadata=metadata,
            read_dictionary=texts,
            buffer_size=_BUFFER_BYTES,
            pre_buffer=False,
        ) as file:
            by_page, whole = _bytes_by_pages(metadata)
            if by_page > whole:
                batches = _row_groups(file, names, rows)
            else:
                batches = file.iter_batches(rows, columns=names, use_threads=False)
            del metadata
            for batch in batches:
                done += batch.num_rows
                yield batch.select(names), size * done // n_rows
        # Arrow takes a cut between two pages for the end.
        if done < n_rows:
            raise InvalidTable(
                f"{path} should have {n_rows:,} rows, and {done:,} of them were read: "
                "something cut it meanwhile; restore it"
            )


def _row_groups(file: pq.ParquetFile, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield batches of whole row groups, read some columns at a time."""
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


class ReaderBytes(NamedTuple):
    """Bytes that the reader holds: pages, and metadata of the files."""

    pages: int
    metadata: int


def reader_bytes(paths: Sequence[str]) -> ReaderBytes:
    """Return the most bytes that `read_batches` holds, without its batches."""
    pages = noted = 0
    for path in paths:
        with _explain_errors(path):
            metadata = pq.read_metadata(path)
        noted = max(noted, _METADATA_COPIES * metadata.serialized_size)
        pages = max(pages, min(_bytes_by_pages(metadata)))
    return ReaderBytes(pages, noted)


def _bytes_by_pages(metadata: pq.FileMetaData) -> tuple[int, int]:
    """Return the bytes of reading page by page, and of reading row groups whole.

    Page by page, every column has a reader and a page. A whole row group is counted twice, since
    the next is read meanwhile, and only some columns have a reader.
    """
    by_page = whole = 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        n = group.num_columns
        # A page and its dictionary, packed and unpacked.
        readers = [
            _READER_BYTES + min(3 * _PAGE_BYTES, 2 * group.column(j).total_uncompressed_size)
            for j in range(n)
        ]
        # An array takes 1 KB; text takes its bytes, other values eight at most.
        values = max(8 * n * group.num_rows, group.total_byte_size)
        some = sum(sorted(readers, reverse=True)[:_COLUMNS_TOGETHER])
        by_page = max(by_page, sum(readers))
        whole = max(whole, 2 * (values + 1024 * n) + some)
    return by_page, whole


def _is_text(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_string(arrow) or pa.types.is_large_string(arrow))


def _require_footer(path: str) -> None:
    """Refuse a file that is not regular, or claims an impossible length of its footer."""
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
def _explain_errors(path: str) -> Iterator[None]:
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
