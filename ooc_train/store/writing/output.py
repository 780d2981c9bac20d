"""A store that is being written: its arrays, its metadata, and its commit."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ooc_train.core.atomic import PartialOutput
from ooc_train.core.closing import Discarding
from ooc_train.core.output_kinds import STORE, explain_os_errors
from ooc_train.core.renames import sync_file, sync_folder
from ooc_train.store.format.arrays import ArrayLayout, Codec
from ooc_train.store.format.checksums import with_checksums
from ooc_train.store.format.identity import new_store_id
from ooc_train.store.format.zarr_json import array_metadata, group_metadata


class OutputStore(Discarding):
    """A store that is written under a temporary name and renamed by `commit`.

    Any number of processes write the shards of its arrays with `ShardWriter`. Without `commit`, no
    store appears at the path. A context manager: leaving it without `commit` removes everything
    written. The store has a random id, which the manifest and every shard repeat. The manifest
    holds checksums of itself and of the arrays' metadata. Arguments and errors are those of
    `PartialOutput`.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.output = PartialOutput(path, STORE, overwrite=overwrite)
        self.store_id = new_store_id()
        self._arrays: dict[str, tuple[ArrayLayout, tuple[str, ...]]] = {}

    @property
    def path(self) -> str:
        """Path of the finished store."""
        return self.output.path

    @property
    def active(self) -> bool:
        """Whether the store was neither committed nor discarded."""
        return self.output.active

    def add_array(
        self,
        name: str,
        *,
        row_shape: tuple[int, ...],
        dtype: np.dtype[Any] | str,
        chunk_rows: int,
        shard_rows: int,
        codec: Codec = "raw",
        dimension_names: Sequence[str],
    ) -> ArrayLayout:
        """Add an array and return its layout for `ShardWriter`; `commit` sets its number of rows.

        Parameters
        ----------
        row_shape : tuple of int
            Shape of one row, () for an array of one axis.
        dtype : dtype
            A type of numbers; stored little-endian.
        chunk_rows, shard_rows : int
            Rows of a chunk, and of a shard, which is a multiple.
        codec : {"raw", "blosc", "zstd"}
            Codec of the chunks; a CRC32C follows each.
        dimension_names : sequence of str
            One name an axis.

        Raises
        ------
        ValueError
            If a shard isn't made of whole chunks, or `dtype` can't be stored.
        """
        if chunk_rows < 1 or shard_rows < 1 or shard_rows % chunk_rows:
            raise ValueError(
                f"shard_rows={shard_rows:,} is no multiple of chunk_rows={chunk_rows:,}"
            )
        if np.dtype(dtype).kind not in "biuf" or np.dtype(dtype).itemsize > 8:
            raise ValueError(
                f"{name} can't be stored as {np.dtype(dtype)}: choose a number's dtype"
            )
        layout = ArrayLayout(
            path=os.path.join(self.output.partial_path, name),
            name=name,
            shape=(0, *row_shape),
            dtype=np.dtype(dtype).newbyteorder("<").str,
            chunk_rows=chunk_rows,
            shard_rows=shard_rows,
            sharded=True,
            codec=codec,
            crc=True,
            direct=True,
            key="/".join(["c", "{}", *["0"] * len(row_shape)]),
            store_id=self.store_id,
        )
        with explain_os_errors(self.path):
            os.makedirs(layout.path, exist_ok=True)
        self._arrays[name] = layout, tuple(dimension_names)
        return layout

    def commit(self, n_rows: int, attributes: Mapping[str, Any]) -> None:
        """Write the metadata and give the store its name."""
        self.finalize(n_rows, attributes)
        self.output.commit()

    def finalize(
        self,
        n_rows: int,
        attributes: Mapping[str, Any],
        array_attributes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Write the metadata, the group's last; the store then lacks only its name."""
        array_attributes = array_attributes or {}
        partial_path = self.output.partial_path
        with explain_os_errors(self.path):
            arrays = {
                name: array_metadata(
                    layout.with_rows(n_rows), dimension_names, array_attributes.get(name, {})
                )
                for name, (layout, dimension_names) in self._arrays.items()
            }
            for name, metadata in arrays.items():
                _write_json(os.path.join(partial_path, name), metadata)
            for directory, _, files in os.walk(partial_path, topdown=False):
                for file in files:
                    # A killed worker left it; another worker wrote the shard.
                    if file.endswith(".tmp"):
                        os.unlink(os.path.join(directory, file))
                sync_folder(directory)
            sealed = with_checksums(attributes, self.store_id, arrays)
            _write_json(partial_path, group_metadata(sealed))
            sync_folder(partial_path)

    def discard(self) -> None:
        """Remove everything written, unless it was committed."""
        self.output.discard()


def _write_json(directory: str, metadata: Mapping[str, Any]) -> None:
    with open(os.path.join(directory, "zarr.json"), "w", encoding="utf-8") as file:
        json.dump(metadata, file, indent=2, allow_nan=False)
        sync_file(file)
