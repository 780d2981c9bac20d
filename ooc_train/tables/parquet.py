"""Parquet as Arrow record batches, page by page: nothing is mapped, nothing is read ahead."""

import base64
import json
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from ooc_train.errors import InvalidTable, TableNotFound
from ooc_train.tables.refusals import require_all

_PAGE_BYTES = 2**20
_BUFFER_BYTES = 2**16


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
        noted = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(notes[b"ARROW:schema"])))
    dictionaries = {column.name for column in noted if pa.types.is_dictionary(column.type)}
    declared = frozenset(dictionaries & set(schema.names))
    return schema, metadata.num_rows, declared, _index(notes.get(b"pandas", b"{}"), schema.names)


def _index(notes: bytes, names: Sequence[str]) -> tuple[str, ...]:
    """Give the columns that are the index of a frame, by the notes of pandas."""
    try:
        found = json.loads(notes).get("index_columns", [])
    except (ValueError, AttributeError):  # by another writer than pandas
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


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise TableNotFound(f"there is no file {path} any more; check the name") from None
    except (pa.ArrowException, OSError) as error:
        raise InvalidTable(
            f"{path} can't be read as Parquet: {error}; write it again, or restore it"
        ) from None
