"""What ingest holds in memory."""

from dataclasses import dataclass, replace

import numpy as np

from ooc_train.core.units import approximate_bytes
from ooc_train.memory.ceiling import Term
from ooc_train.store.format.chunk_sizes import CHUNK_BYTES, default_chunk_rows
from ooc_train.store.jobs.external_shuffle import ExternalShuffle
from ooc_train.tables.batches import Reading, Tables
from ooc_train.tables.medians import BYTES_PER_COLUMN
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.schema_inference import Known, Survey

_LEAST_OF_COLUMN = 8 * 8 * 192
"""Of values of each column that is a category: room for eight."""

_LEAST_CATEGORY_BYTES, _MOST_CATEGORY_BYTES = 4 * 2**20, 256 * 2**20
"""Of values of categories, with what is made of them: for 3,000 short ones, or 200,000."""

CATEGORY_COPIES = 8
"""Of what values take: 1.4 KB a column of X were measured, for values of 180 bytes."""

_LEAST_MEDIANS = 8 * 2**20
"""In which all medians of some columns are found at a time."""

_RECORD_COPIES = 4
"""Of a batch: as records, those of its parts, and what checks them; a column in float64."""

_CHUNK_COPIES = 8
"""Of a chunk that is written: as X twice, twice in float64 for its statistics, and encoded."""


@dataclass(frozen=True)
class IngestMemory:
    """What of raw files, and of what is made of them, decides about memory.

    Parameters
    ----------
    reading : Reading
        What reading holds.
    record, rows : int
        Bytes of a record, and how many of them are expected.
    plain, categories : int
        Columns of X that are known beforehand, and raw columns whose values become columns.
    labels : bool
        Whether the target has labels, which are values too.
    medians : int
        Columns whose medians are looked for.
    dtype : str
        Of X.
    chunk_rows : int or None
        As the user has it.
    outputs : int
        Stores that are made.
    """

    reading: Reading
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
        cls, tables: Tables, learner: Survey | Known, chunk_rows: int | None, outputs: int
    ) -> "IngestMemory":
        """Take from raw files, and from what learns of them, what decides about memory."""
        draft = learner.draft
        learned = isinstance(learner, Survey)
        n_categories = sum(column.kind == "category" for column in draft.columns)
        return cls(
            reading=tables.holds,
            record=learner.encoder.dtype.itemsize,
            rows=tables.expected_rows,
            plain=len(draft.columns) - n_categories if learned else draft.n_features,
            categories=n_categories if learned else 0,
            labels=learned and draft.classes is not None,
            medians=len(draft.columns) if learned and draft.missing == "median" else 0,
            dtype=draft.dtype,
            chunk_rows=chunk_rows,
            outputs=outputs,
        )

    def wider(self) -> "IngestMemory":
        """Give the shape that it has if float32 turns out too narrow."""
        if self.dtype != "float32":
            return self
        return replace(self, dtype="float64", record=self.record + 4 * self.plain)

    def terms(self, room: int) -> list[Term]:
        """Choose what is held, of so many bytes: at most those, or the least.

        The second pass is planned with the first, so that no file is read for nothing.
        """
        return self._terms(self.batch_rows(room), room)

    def batch_rows(self, room: int) -> int:
        """Choose the rows of a batch for so many bytes."""

        def held(rows: int) -> int:
            return sum(term.bytes for term in self._terms(rows, 0))

        # Beyond the least that all else takes, a batch takes no more than half.
        least = held(self.reading.least)
        return self.reading.batch_rows(least + (room - least) // 2, held)

    def _terms(self, batch_rows: int, room: int) -> list[Term]:
        least_medians = min(_LEAST_MEDIANS, BYTES_PER_COLUMN * self.medians)
        fixed = self.reading.terms(batch_rows, _RECORD_COPIES)
        expected = self.rows * self.record
        least = ExternalShuffle.least_bytes(self.record, expected)
        # Few records need no more room than they take.
        enough = min(ExternalShuffle.ample_bytes(self.record, expected), 2 * expected + 2**20)
        left = room - sum(term.bytes for term in fixed) - self.outputs * least - least_medians
        has_categories = bool(self.categories) or self.labels
        values = 0
        if has_categories:
            values = max(_LEAST_CATEGORY_BYTES, _LEAST_OF_COLUMN * self.categories)
        if has_categories:
            more = min(left // 2, _MOST_CATEGORY_BYTES)
            while more > values:
                if more + self._writing(more).bytes <= left:
                    values = more
                    break
                more //= 2
        writing = self._writing(values)
        left -= values + writing.bytes
        medians = least_medians
        if self.medians:
            medians += max(0, min(left // 2, BYTES_PER_COLUMN * self.medians - least_medians))
            left -= medians - least_medians
        scattering = max(least, min(enough, least + left // self.outputs))
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

    def _writing(self, category_bytes: int) -> Term:
        """Say what the second pass holds at most, if categories take so much."""
        values = most_values(category_bytes) + 2 * self.categories if self.categories else 0
        narrow, wide = max(1, self.plain + self.categories), max(1, self.plain + values)
        row, of_narrow = (n * np.dtype(self.dtype).itemsize for n in (wide, narrow))
        if self.chunk_rows is not None:
            return ingest_writing_term(self.chunk_rows, row, self.outputs)
        rows = default_chunk_rows(narrow, self.dtype)
        # Rows are rounded to multiples of 256, and one is the least.
        X = max(rows * of_narrow, row, int(4 / 3 * CHUNK_BYTES) if values else 0)
        bytes_of_chunk = X + rows * OUTCOME_BYTES
        return _writing(bytes_of_chunk, self.outputs)


OUTCOME_BYTES = 32
"""Of y, weight and ids of a row."""

_VALUE_BYTES = 160
"""That a value takes at least, as a `Vocabulary` counts them."""


def most_values(category_bytes: int) -> int:
    """How many values of categories may be found, where these and what is made take so much."""
    return category_bytes // CATEGORY_COPIES // _VALUE_BYTES


def ingest_writing_term(chunk_rows: int, row_bytes: int, n_outputs: int) -> Term:
    """Say what the second pass holds beside, once the width of X is known."""
    return _writing(chunk_rows * (row_bytes + OUTCOME_BYTES), n_outputs)


def _writing(bytes_of_chunk: int, n_outputs: int) -> Term:
    # Each store holds the chunk that is being filled; one is written at a time.
    copies = _CHUNK_COPIES + n_outputs - 1
    return Term(
        "writing",
        copies * bytes_of_chunk,
        f"{copies} x {approximate_bytes(bytes_of_chunk)}, a chunk",
    )


def expected_bytes(tables: Tables, learner: Survey | Known) -> int:
    """About how many bytes the records of all rows take."""
    return tables.expected_rows * learner.encoder.dtype.itemsize


def row_bytes(recipe: Recipe) -> int:
    """Bytes of a row of X."""
    return recipe.n_features * np.dtype(recipe.dtype).itemsize
