"""The other route: chunks through zarr-python, for stores that the direct route doesn't read."""

import gzip
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.store.arrays import ArrayLayout
from ooc_train.store.direct import corrupt_chunk


class ZarrRoute:
    """Reads chunks of one array by zarr-python, as `DirectRoute` does by itself.

    Parameters
    ----------
    layout : ArrayLayout
        Any array; dtype, byte order and axis order are converted on the way into the buffer.
    """

    scratch_bytes = 0
    check_bytes = 0
    decoding = 0.0
    """Unknown: zarr-python reads and decodes in one call."""

    def __init__(self, layout: ArrayLayout) -> None:
        import zarr

        self._layout = layout
        array = layout.source
        self._array = (
            array if isinstance(array, zarr.Array) else zarr.open_array(layout.path, mode="r")
        )
        self._stored: set[int] = set()
        # The encoded chunk, and the decoded one before it is copied.
        self.hidden_bytes = 2 * layout.chunk_bytes

    def read(self, index: int, out: NDArray[Any], scratch: NDArray[np.uint8] | None) -> None:  # noqa: ARG002
        """Decode chunk `index` into `out`; see `ChunkReader.read`."""
        start = index * self._layout.chunk_rows
        stop = min(start + self._layout.chunk_rows, self._layout.n_rows)
        shard = start // self._layout.shard_rows
        if shard not in self._stored:
            self._require_stored(index, shard)
            self._stored.add(shard)
        try:
            out[: stop - start] = self._array[start:stop]
        except Exception as error:
            # A codec may raise anything; but a connection that broke is not a damaged chunk.
            if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
                raise
            raise corrupt_chunk(self._layout, index, f"it can't be decoded ({error!r})") from error

    def read_run(
        self, index: int, count: int, out: NDArray[Any], scratch: NDArray[np.uint8] | None
    ) -> None:
        """Decode chunks one after another; see `ChunkReader.read_run`."""
        rows = self._layout.chunk_rows
        for i in range(count):
            self.read(index + i, out[i * rows : (i + 1) * rows], scratch)

    def _require_stored(self, index: int, shard: int) -> None:
        """Raise if a file of these rows is missing or empty: zarr-python would read fill values."""
        from zarr.core.sync import sync

        array = self._array
        lengths = array.shards or array.chunks
        trailing = (
            range(-(-size // length))
            for size, length in zip(array.shape[1:], lengths[1:], strict=True)
        )
        for place in itertools.product(*trailing):
            key = array.metadata.encode_chunk_key((shard, *place))
            stored = array.store_path / key
            try:
                size = sync(stored.store.getsize(stored.path))
            except FileNotFoundError:
                reason = (
                    f"{key} is missing (zarr-python leaves out chunks of nothing but fill values "
                    "unless it writes with write_empty_chunks=True)"
                )
                raise corrupt_chunk(self._layout, index, reason) from None
            if size == 0:
                raise corrupt_chunk(self._layout, index, f"{key} is empty")

    def prefetch(self, start: int, stop: int) -> None:
        """Do nothing: zarr-python has no such call."""

    def close(self) -> None:
        """Do nothing: zarr-python keeps no file open."""
