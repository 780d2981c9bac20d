"""Laying arrays down: shards as their chunks fill, the group last, all of it or nothing."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ooc_train.core.atomic import PartialOutput
from ooc_train.core.closing import Discarding
from ooc_train.core.output_kinds import STORE, explain_os_errors
from ooc_train.core.renames import sync_folder
from ooc_train.store.format.arrays import ArrayLayout, Codec
from ooc_train.store.format.checksums import with_checksums
from ooc_train.store.format.identity import new_store_id
from ooc_train.store.format.zarr_json import array_metadata, group_metadata


class OutputStore(Discarding):
    """A store in the making, beside the place where it will lie.

    Arrays are added, their shards written (by any number of processes, with `ShardWriter`), and
    `commit` gives the directory its name: a store that was begun and not committed never opens.
    A context manager: leaving it without `commit` removes all of it. Each has a random id, which
    the manifest and every shard name; what the manifest and the metadata of arrays say is
    checksummed in the manifest.

    Parameters
    ----------
    path : str or os.PathLike
        Where the store will lie.
    overwrite : bool
        Whether a store that lies there is replaced, at `commit` and not before.

    Attributes
    ----------
    output : PartialOutput
        What gives the store its name.

    Raises
    ------
    OutputExists, OSError, ValueError
        As `PartialOutput` does.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.output = PartialOutput(path, STORE, overwrite=overwrite)
        self.store_id = new_store_id()
        self._arrays: dict[str, tuple[ArrayLayout, tuple[str, ...]]] = {}

    @property
    def path(self) -> str:
        """Where the store will lie."""
        return self.output.path

    @property
    def active(self) -> bool:
        """Whether it was neither committed nor discarded."""
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
        """Add an array, and return the layout for `ShardWriter`; its rows are counted at `commit`.

        Parameters
        ----------
        name : str
            Such as "X" or "prediction".
        row_shape : tuple of int
            Shape of one row, () for an array of one axis.
        dtype : dtype
            A number; stored little-endian.
        chunk_rows, shard_rows : int
            Rows of a chunk, and of a shard: a multiple of it.
        codec : {"raw", "blosc", "zstd"}
            Of the chunks; a crc32c follows each.
        dimension_names : sequence of str
            One an axis.
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
        """Write the metadata, the group's last, and give the store its name.

        Parameters
        ----------
        n_rows, attributes
            As of `finalize`.

        Raises
        ------
        OutputExists
            If something else appeared at the path meanwhile.
        OSError
            If the disk is full or can't be written.
        """
        self.finalize(n_rows, attributes)
        self.output.commit()

    def finalize(
        self,
        n_rows: int,
        attributes: Mapping[str, Any],
        of_arrays: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Write the metadata, the group's last: the store is whole, and lacks only its name.

        Parameters
        ----------
        n_rows : int
            Rows of every array.
        attributes : mapping
            Of the group; JSON values, with text for keys.
        of_arrays : mapping, optional
            Attributes of arrays, by their name.

        Raises
        ------
        OSError
            If the disk is full or can't be written.
        """
        of_arrays = of_arrays or {}
        partial_path = self.output.partial_path
        with explain_os_errors(self.path):
            arrays = {
                name: array_metadata(
                    layout.with_rows(n_rows), dimension_names, of_arrays.get(name, {})
                )
                for name, (layout, dimension_names) in self._arrays.items()
            }
            for name, metadata in arrays.items():
                _write_json(os.path.join(partial_path, name), metadata)
            for directory, _, files in os.walk(partial_path, topdown=False):
                for file in files:
                    # Of a worker that was killed; another one wrote the shard.
                    if file.endswith(".tmp"):
                        os.unlink(os.path.join(directory, file))
                sync_folder(directory)
            sealed = with_checksums(attributes, self.store_id, arrays)
            _write_json(partial_path, group_metadata(sealed))
            sync_folder(partial_path)

    def discard(self) -> None:
        """Remove all of it, unless it was committed."""
        self.output.discard()


def _write_json(directory: str, metadata: Mapping[str, Any]) -> None:
    with open(os.path.join(directory, "zarr.json"), "w", encoding="utf-8") as file:
        json.dump(metadata, file, indent=2, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
