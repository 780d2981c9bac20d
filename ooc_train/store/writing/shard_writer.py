"""Writing of one shard: chunks, identity and index."""

import contextlib
import os
from typing import Any

from crc32c import crc32c
from numpy.typing import NDArray

from ooc_train.core.closing import Discarding
from ooc_train.core.output_kinds import explain_os_errors
from ooc_train.store.format.arrays import ENTRY, MISSING, ArrayLayout
from ooc_train.store.format.identity import shard_identity
from ooc_train.store.writing.compression import encode


class ShardWriter(Discarding):
    """Writes one shard of an array chunk by chunk, and names the file once it is complete.

    A context manager: leaving it without `commit` removes what was written.
    """

    def __init__(self, layout: ArrayLayout, shard: int) -> None:
        self._layout = layout
        self._shard = shard
        self._path = layout.shard_path(shard)
        # Two workers may write one shard, if the scheduler took a live one for dead.
        self._partial_path = f"{self._path}.{os.getpid()}.tmp"
        self._entries: list[tuple[int, int]] = []
        self._end = 0
        with explain_os_errors(self._path):
            self._make_folders()
            self._file = open(self._partial_path, "wb", buffering=0)  # noqa: SIM115

    def _make_folders(self) -> None:
        """Make the shard's folders, but not the array's.

        If the array's folder is gone, the store was discarded; a late task must not bring it back.
        """
        folder = self._layout.path
        for name in os.path.relpath(os.path.dirname(self._path), folder).split(os.sep):
            folder = os.path.join(folder, name)
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder)

    @property
    def full(self) -> bool:
        """Whether every chunk of the shard was written."""
        return len(self._entries) == self._layout.chunks_per_shard

    def write(self, chunk: NDArray[Any], rows: int | None = None) -> None:
        """Write the next chunk, in the layout's shape and type, C-contiguous.

        The rows of `chunk` beyond `rows`, those in use, are set to 0 in place.
        """
        layout = self._layout
        if chunk.shape != (layout.chunk_rows, *layout.row_shape) or chunk.dtype != layout.dtype:
            raise ValueError(
                f"a chunk of {layout.name} is {layout.dtype} "
                f"{(layout.chunk_rows, *layout.row_shape)}, this one {chunk.dtype} {chunk.shape}"
            )
        if self.full:
            raise ValueError(f"the shard has all of its {layout.chunks_per_shard} chunks")
        if rows is not None:
            chunk[rows:] = 0
        encoded = memoryview(encode(layout.codec, chunk)).cast("B")
        with explain_os_errors(self._path):
            _write_all(self._file, encoded)
            _write_all(self._file, crc32c(encoded).to_bytes(4, "little"))
        self._entries.append((self._end, len(encoded) + 4))
        self._end += len(encoded) + 4

    def commit(self) -> None:
        """Write identity and index, sync the file to the disk, and rename it."""
        layout = self._layout
        absent = layout.chunks_per_shard - len(self._entries)
        entries = [*self._entries, *[(MISSING, MISSING)] * absent]
        index = b"".join(ENTRY.pack(*entry) for entry in entries)
        identity = shard_identity(layout.store_id, layout.stored_name, self._shard)
        with explain_os_errors(self._path):
            _write_all(self._file, identity + index + crc32c(index).to_bytes(4, "little"))
            os.fsync(self._file.fileno())
            self._file.close()
            os.rename(self._partial_path, self._path)

    def discard(self) -> None:
        """Remove what was written, unless it was committed."""
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._partial_path)


def _write_all(file: Any, data: memoryview | bytes) -> None:
    """Write every byte; an unbuffered write may take fewer, and returns only their number."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
