"""Finding the group or array that a path, a URL or a zarr object refers to."""

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ooc_train.errors import InvalidStore, StoreNotFound
from ooc_train.store.format.identity import MetadataStamp
from ooc_train.store.format.metadata import read_metadata
from ooc_train.store.opening.nodes import Node
from ooc_train.store.opening.zarr_opening import open_by_zarr

if TYPE_CHECKING:
    import zarr


def find_node(path: "str | os.PathLike[str] | zarr.Group | zarr.Array[Any]") -> Node:
    """Return the group or array at a path or URL, or that of a zarr object.

    Raises
    ------
    StoreNotFound
        If the path or URL doesn't exist.
    InvalidStore
        If it is no Zarr, or a zarr object in memory.
    """
    zarr = sys.modules.get("zarr")
    if zarr is not None and isinstance(path, zarr.Group | zarr.Array):
        return _find_opened(path)
    try:
        location = os.fspath(path)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"a store is a path, a URL, a zarr.Group or a zarr.Array, not {type(path).__name__}"
        ) from None
    location = location.removeprefix("file://")
    if "://" in location:
        return Node(location.rstrip("/"), None, open_by_zarr(location))
    location = os.path.abspath(location)
    if not os.path.exists(location):
        raise StoreNotFound(f"there is nothing at {location}")
    stamp, metadata = MetadataStamp.of(location), read_metadata(location)
    return Node(location, metadata, None if metadata else open_by_zarr(location), stamp)


def find_array(
    node: Node, name: "str | os.PathLike[str] | zarr.Group | zarr.Array[Any]"
) -> Node | None:
    """Return the node that a name refers to from the group or array `node`, None if there is none.

    A name is tried in this order: an array in the group; a path from there, such as ``../two/y``; a
    path from the working directory. Absolute paths, URLs and zarr objects are taken as they are.
    """
    if not isinstance(name, str | os.PathLike):
        return find_node(name)
    text = os.fspath(name)
    if "://" in text or os.path.isabs(text):
        return find_node(text)
    child = None if node.is_array or text.startswith(".") else node.child(text)
    if child is not None:
        return child
    scheme, separator, folder = node.path.rpartition("://")
    candidates = [scheme + separator + os.path.normpath(os.path.join(folder, text))]
    if not separator and os.path.exists(text):
        candidates.append(text)
    for candidate in candidates:
        with suppress(StoreNotFound):
            return find_node(candidate)
    return None


def group_around(node: Node) -> tuple[Node | None, str]:
    """Return the group that contains an array (None if there is none), and the array's name."""
    parent, _, name = node.path.rpartition("/")
    with suppress(StoreNotFound, InvalidStore):
        group = find_node(parent)
        if not group.is_array:
            return group, name
    return None, name


def _find_opened(opened: "zarr.Group | zarr.Array[Any]") -> Node:
    """Return the node of a zarr object."""
    from zarr.storage import LocalStore, MemoryStore

    store = opened.store_path.store
    if isinstance(store, LocalStore):
        return find_node(os.path.join(store.root, opened.path))
    if isinstance(store, MemoryStore):
        raise InvalidStore(
            "this zarr object lives in the memory of this process, where no worker reads it; pass "
            "NumPy arrays (X[:], y[:]), or write it to a directory"
        )
    return Node(str(opened.store_path), None, opened)
