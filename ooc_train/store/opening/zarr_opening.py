"""Opening of groups and arrays by zarr-python, with its errors explained."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ooc_train.core.text import brief
from ooc_train.errors import InvalidStore, OocTrainError, StoreNotFound
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.format.metadata import require_valid_metadata
from ooc_train.store.opening.other_formats import other_format_advice, url_advice

if TYPE_CHECKING:
    import zarr


def open_by_zarr(location: str) -> "zarr.Group | zarr.Array[Any]":
    """Open a group or an array by zarr-python.

    `StoreNotFound` is raised if a URL doesn't exist, and `InvalidStore` if it is no Zarr.
    """
    import zarr

    if "://" not in location and os.path.isdir(location):
        require_valid_metadata(location)
    errors: list[Exception] = []
    for opener in (_open_group, zarr.open_array):
        try:
            return opener(location, mode="r")
        except Exception as error:  # noqa: BLE001 (parsers and file systems raise any exception)
            errors.append(error)
    last = errors[-1]
    if "://" in location:
        if (advice := url_advice(location, last)) is not None:
            raise InvalidStore(advice) from last
        if all(isinstance(error, FileNotFoundError) for error in errors):
            raise StoreNotFound(f"there is no Zarr group or array at {location}") from last
    elif (advice := other_format_advice(location)) is not None:
        raise InvalidStore(advice) from last
    raise InvalidStore(
        f"{location} can't be opened as Zarr ({brief(last)}); restore its metadata from a "
        "copy, or write it anew"
    ) from last


@contextmanager
def invalid_store_on_error(path: str) -> Iterator[None]:
    """Turn any exception of zarr-python into `InvalidStore`; a context manager."""
    try:
        yield
    except OocTrainError:
        raise
    except Exception as error:
        raise InvalidStore(
            f"{path} can't be opened as Zarr ({brief(error)}); restore its metadata from a "
            "copy, or write it anew"
        ) from error


def _open_group(location: str, mode: Any) -> "zarr.Group":
    import zarr

    return zarr.open_group(location, mode=mode, use_consolidated=False)


def zarr_layout(path: str, role: str, array: Any, *, fill_missing: bool) -> ArrayLayout:
    """Return the layout of an array that zarr-python reads."""
    from zarr.storage import LocalStore

    local = isinstance(array.store_path.store, LocalStore)
    chunks = tuple(map(int, array.chunks or (1,)))
    if min(chunks) < 1 or (array.shards and array.shards[0] % chunks[0]):
        raise ValueError(f"its chunks are {chunks}, in shards {array.shards}")
    return ArrayLayout(
        path=path,
        name=role,
        shape=tuple(array.shape),
        # Readers return little-endian values, whatever the stored byte order.
        dtype="T" if array.dtype.kind == "T" else array.dtype.newbyteorder("<").str,
        chunk_rows=chunks[0],
        shard_rows=(array.shards or chunks)[0],
        sharded=array.shards is not None,
        codec=None,
        crc=False,
        direct=False,
        source=None if local else array,
        pieces=math.prod(
            -(-size // cut) for size, cut in zip(array.shape[1:], chunks[1:], strict=True)
        ),
        fill_value=b"" if fill_missing and array.metadata.fill_value is not None else None,
    )
