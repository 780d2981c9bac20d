"""Writer of CSV and Parquet files, whole or not at all."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ooc_train.core.atomic import PartialOutput
from ooc_train.core.closing import Discarding
from ooc_train.core.output_kinds import FILE, explain_os_errors
from ooc_train.tables.arrow import from_numpy, from_texts
from ooc_train.tables.names import COMPRESSED, format_of


class TableWriter(Discarding):
    """A writer of columns to a file, which gets its name in `commit`.

    A context manager: leaving it without `commit` removes what was written. The path ends in .csv,
    .tsv or .parquet, and `overwrite` replaces a file that lies there. Errors are those of
    `PartialOutput`.
    """

    def __init__(self, path: str, *, overwrite: bool = False) -> None:
        if format_of(path) is None or path.lower().endswith(COMPRESSED):
            raise ValueError(f"{path} should end in .csv, .tsv or .parquet, and is not packed")
        self._output = PartialOutput(path, FILE, overwrite=overwrite)
        self._file = open(self._output.partial_path, "wb")  # noqa: SIM115
        self._writer: Any = None

    def write(self, columns: Mapping[str, NDArray[Any] | pa.Array]) -> None:
        """Add rows, with the same names and types of columns in every call."""
        arrays = [
            from_numpy(values) if isinstance(values, np.ndarray) else values
            for values in columns.values()
        ]
        batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
        with explain_os_errors(self._output.path):
            if self._writer is None:
                self._writer = self._open(batch.schema)
            self._writer.write_batch(batch)

    def _open(self, schema: pa.Schema) -> Any:
        if format_of(self._output.path) == "parquet":
            return pq.ParquetWriter(self._file, schema)
        delimiter = "\t" if self._output.path.endswith(".tsv") else ","
        options = pyarrow.csv.WriteOptions(delimiter=delimiter, quoting_style="needed")
        return pyarrow.csv.CSVWriter(self._file, schema, write_options=options)

    def commit(self) -> None:
        """Flush the file to the disk, and rename it to its path."""
        with explain_os_errors(self._output.path):
            if self._writer is not None:
                self._writer.close()
            self._file.close()
        self._output.commit()

    def discard(self) -> None:
        """Remove what was written, unless it was committed."""
        # Both write what they still hold when they close, which fails on a full disk.
        for unclosed in filter(None, (self._writer, self._file)):
            with contextlib.suppress(OSError, ValueError):
                unclosed.close()
        self._output.discard()


def label_column(labels: Sequence[Any], codes: NDArray[np.intp]) -> NDArray[Any] | pa.Array:
    """Return the label of each code as a column of the labels' type."""
    if all(isinstance(label, str) for label in labels):
        return from_texts(labels).take(from_numpy(codes))
    found: NDArray[Any] = np.asarray(labels)[codes]
    return found
