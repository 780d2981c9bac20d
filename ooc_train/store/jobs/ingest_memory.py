"""Memory terms of ingest: both passes are planned before the first file is read."""

from dataclasses import dataclass, replace

import numpy as np

from ooc_train.core.units import approximate_bytes
from ooc_train.memory.ceiling import Term
from ooc_train.store.format.chunk_sizes import CHUNK_BYTES, default_chunk_rows
from ooc_train.store.jobs.shuffle_sizes import ample_memory, least_memory
from ooc_train.tables.batches import ReadingMemory, Tables
from ooc_train.tables.fixed_schema import Schema
from ooc_train.tables.medians import BYTES_PER_COLUMN
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.schema_inference import SchemaInference

_LEAST_OF_COLUMN = 8 * 8 * 192
"""Least bytes for the values of each category column: enough for eight."""

_LEAST_CATEGORY_BYTES, _MOST_CATEGORY_BYTES = 4 * 2**20, 256 * 2**20
"""Bytes of category values and what is made of them: enough for 3,000 short ones, or 200,000."""

CATEGORY_COPIES = 8
"""Factor to the bytes of category values (measured: 1.4 KB a column of X at 180 bytes a value)."""

_LEAST_MEDIANS = 8 * 2**20
"""Least bytes to compute medians, of some columns at a time."""

_RECORD_COPIES = 4
"""Copies of a batch: as records, as training and test records, for checks; a column as float64."""

_CHUNK_COPIES = 8
"""Copies of a chunk: as X twice, twice as float64 for statistics, and encoded."""


@dataclass(frozen=True)
class IngestMemory:
    """The properties of raw files and of their stores that decide about memory.

    Parameters
    ----------
    record, rows : int
        Bytes of a record, and expected number of records.
    plain, categories : int
        Known columns of X, and raw columns whose values become columns.
    labels : bool
        Whether the target has labels, which take memory like category values.
    medians : int
        Columns whose medians are computed.
    dtype : str
        Type of X.
    chunk_rows : int or None
        Rows of a chunk that the user chose.
    outputs : int
        Number of stores.
    """

    reading: ReadingMemory
    record: int
    rows: int
    plain: int
    categories: int
    labels: bool
    medians: int
    dtype: str
    chunk_rows: int | None
    outputs: int

    @classmethod
    def of(
        cls, tables: Tables, schema: Schema, chunk_rows: int | None, outputs: int
    ) -> "IngestMemory":
        """Derive the properties from raw files and a schema."""
        draft = schema.draft
        learned = isinstance(schema, SchemaInference)
        n_categories = sum(column.kind == "category" for column in draft.columns)
        return cls(
            reading=tables.reading_memory,
            record=schema.encoder.dtype.itemsize,
            rows=tables.expected_rows,
            plain=len(draft.columns) - n_categories if learned else draft.n_features,
            categories=n_categories if learned else 0,
            labels=learned and draft.classes is not None,
            medians=len(draft.columns) if learned and draft.missing == "median" else 0,
            dtype=draft.dtype,
            chunk_rows=chunk_rows,
            outputs=outputs,
        )

    def widened(self) -> "IngestMemory":
        """Return the properties if X becomes float64."""
        if self.dtype != "float32":
            return self
        return replace(self, dtype="float64", record=self.record + 4 * self.plain)

    def terms(self, available: int) -> list[Term]:
        """Return memory terms of at most `available` bytes, or the smallest possible ones.

        The second pass is planned with the first, so that no file is read in vain.
        """
        return self._terms(self.batch_rows(available), available)

    def batch_rows(self, available: int) -> int:
        """Return the rows of a batch for which `available` bytes suffice."""

        def held(rows: int) -> int:
            return sum(term.bytes for term in self._terms(rows, 0))

        # A batch takes at most half of the memory that the other terms' least sizes leave.
        least = held(self.reading.least)
        return self.reading.batch_rows(least + (available - least) // 2, held)

    def _terms(self, batch_rows: int, available: int) -> list[Term]:
        least_medians = min(_LEAST_MEDIANS, BYTES_PER_COLUMN * self.medians)
        fixed = self.reading.terms(batch_rows, _RECORD_COPIES)
        expected = self.rows * self.record
        least = least_memory(self.record, expected)
        # Few records need no more memory than their own size.
        ample = min(ample_memory(self.record, expected), 2 * expected + 2**20)
        left = available - sum(term.bytes for term in fixed) - self.outputs * least - least_medians
        has_categories = bool(self.categories) or self.labels
        values = 0
        if has_categories:
            values = max(_LEAST_CATEGORY_BYTES, _LEAST_OF_COLUMN * self.categories)
            more = min(left // 2, _MOST_CATEGORY_BYTES)
            while more > values:
                if more + self._writing_term(more).bytes <= left:
                    values = more
                    break
                more //= 2
        writing = self._writing_term(values)
        left -= values + writing.bytes
        medians = least_medians
        if self.medians:
            medians += max(0, min(left // 2, BYTES_PER_COLUMN * self.medians - least_medians))
            left -= medians - least_medians
        scattering = max(least, min(ample, least + left // self.outputs))
        return [
            *fixed,
            Term("medians", medians, "counts by their bits, or the values of some columns"),
            Term("categories", values, "at most"),
            Term(
                "scattering",
                self.outputs * scattering,
                f"records of {self.record:,} bytes in random order, by way of the disk",
            ),
            writing,
        ]

    def _writing_term(self, category_bytes: int) -> Term:
        """Return the most memory of the second pass, if category values take so many bytes."""
        values = most_values(category_bytes) + 2 * self.categories if self.categories else 0
        narrow, wide = max(1, self.plain + self.categories), max(1, self.plain + values)
        row, of_narrow = (n * np.dtype(self.dtype).itemsize for n in (wide, narrow))
        if self.chunk_rows is not None:
            return ingest_writing_term(self.chunk_rows, row, self.outputs)
        rows = default_chunk_rows(narrow, self.dtype)
        # Rows are rounded to multiples of 256, and at least 1.
        X = max(rows * of_narrow, row, int(4 / 3 * CHUNK_BYTES) if values else 0)
        chunk_bytes = X + rows * OUTCOME_BYTES
        return _chunks_term(chunk_bytes, self.outputs)


OUTCOME_BYTES = 32
"""Bytes of y, weight and ids of a row."""

_VALUE_BYTES = 160
"""Least bytes of a value, as `Vocabulary` counts them."""


def most_values(category_bytes: int) -> int:
    """Return how many category values fit into `category_bytes`, with all their copies."""
    return category_bytes // CATEGORY_COPIES // _VALUE_BYTES


def ingest_writing_term(chunk_rows: int, row_bytes: int, n_outputs: int) -> Term:
    """Return the memory term of the second pass, once the width of X is known."""
    return _chunks_term(chunk_rows * (row_bytes + OUTCOME_BYTES), n_outputs)


def _chunks_term(chunk_bytes: int, n_outputs: int) -> Term:
    # Each store holds the chunk it fills; one chunk at a time is written.
    copies = _CHUNK_COPIES + n_outputs - 1
    return Term(
        "writing", copies * chunk_bytes, f"{copies} x {approximate_bytes(chunk_bytes)}, a chunk"
    )


def expected_bytes(tables: Tables, schema: Schema) -> int:
    """Return the expected bytes of the records of all rows."""
    return tables.expected_rows * schema.encoder.dtype.itemsize


def row_bytes(recipe: Recipe) -> int:
    """Return the bytes of a row of X."""
    return recipe.n_features * np.dtype(recipe.dtype).itemsize
