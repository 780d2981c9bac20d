"""Nodes of a Zarr hierarchy: groups and arrays, and the layouts of arrays."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ooc_train.core.files import parse_json
from ooc_train.errors import InvalidStore
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.format.checksums import StoreChecksums, verified_checksums
from ooc_train.store.format.conventions import decode_attributes, flag_names
from ooc_train.store.format.dimensions import DIMENSIONS, dimensions_of
from ooc_train.store.format.identity import MetadataStamp
from ooc_train.store.format.metadata import read_metadata, require_valid_metadata
from ooc_train.store.format.missing_values import MissingValues
from ooc_train.store.format.zarr_json import direct_layout
from ooc_train.store.opening.zarr_opening import invalid_store_on_error, open_by_zarr, zarr_layout
from ooc_train.store.reading.chunks import ChunkReader

if TYPE_CHECKING:
    import zarr

_MAX_VALUES = 100_000
"""Most categories that are read while a store is opened."""

_GROUPS = frozenset({"", "anndata", "dict", "dataframe", "raw"})
"""AnnData's types of groups that hold arrays. Groups of other types stand for one array."""


@dataclass(frozen=True)
class Node:
    """A group or an array; `find_node` makes one.

    Consolidated metadata are never read, because they are stale after an append.

    Parameters
    ----------
    path : str
        Directory or URL.
    metadata : mapping or None
        Its ``zarr.json``, if it is a local directory of format 3.
    opened : zarr.Group, zarr.Array or None
        The node as zarr-python opened it, if `metadata` is None.
    stamp : MetadataStamp or None
        State of its metadata file just before reading it; None for groups and URLs.
    """

    path: str
    metadata: Mapping[str, Any] | None
    opened: "zarr.Group | zarr.Array[Any] | None"
    stamp: MetadataStamp | None = field(default=None, compare=False)

    @property
    def is_array(self) -> bool:
        """Whether the node is an array, not a group."""
        if self.metadata is not None:
            return bool(self.metadata.get("node_type") == "array")
        return hasattr(self.opened, "shape")

    @property
    def is_encoded(self) -> bool:
        """Whether the node is a group that stands for an array, such as AnnData's categories."""
        kind = "" if self.is_array else self.attributes.get("encoding-type", "")
        return str(kind) not in _GROUPS

    @property
    def holds_array(self) -> bool:
        """Whether the node is an array, or a group that stands for one."""
        return self.is_array or self.is_encoded

    @property
    def attributes(self) -> Mapping[str, Any]:
        """User attributes of the node."""
        if self.metadata is not None:
            attributes: Mapping[str, Any] = self.metadata.get("attributes", {})
            return attributes
        if self.opened is None:
            return {}
        with invalid_store_on_error(self.path):
            return dict(self.opened.attrs)

    @cached_property
    def checksums(self) -> StoreChecksums | None:
        """Verified checksums of a store of our format.

        None for arrays, for groups of other writers, and if the checksums are off. `InvalidStore`
        is raised if the manifest differs from the one that was written.
        """
        return None if self.is_array else verified_checksums(self.path, self.attributes)

    def child(self, name: str) -> "Node | None":
        """Return the node of that name in a group, None if there is none."""
        path = f"{self.path}/{name}"
        stamp = MetadataStamp.of(path)
        if self.metadata is not None:
            metadata = read_metadata(path)
            return None if metadata is None else Node(path, metadata, None, stamp)
        opened: Any = self.opened
        if "://" not in path:
            require_valid_metadata(path)
        # zarr-python refuses unknown types and codecs, such as pickled objects.
        with invalid_store_on_error(path):
            found = opened.get(name)
        return None if found is None else Node(path, None, found, stamp)

    def array_names(self) -> list[str]:
        """Return the sorted names of a group's arrays, and of subgroups that stand for one."""
        if self.is_array:
            return []
        if self.metadata is None:
            opened: Any = self.opened
            if "://" not in self.path:
                for entry in os.scandir(self.path):
                    require_valid_metadata(entry.path)
            with invalid_store_on_error(self.path):
                groups = (
                    (name, Node(f"{self.path}/{name}", None, one)) for name, one in opened.groups()
                )
                encoded = [name for name, one in groups if one.is_encoded]
                return sorted([*opened.array_keys(), *encoded])
        names = sorted(entry.name for entry in os.scandir(self.path) if entry.is_dir())
        children = {name: self.child(name) for name in names}
        return [name for name, child in children.items() if child is not None and child.holds_array]

    def group_names(self) -> list[str]:
        """Return the sorted names of a group's subgroups."""
        if self.metadata is None:
            opened: Any = self.opened
            with invalid_store_on_error(self.path):
                return sorted(opened.group_keys())
        names = sorted(entry.name for entry in os.scandir(self.path) if entry.is_dir())
        children = {name: self.child(name) for name in names}
        return [
            name for name, child in children.items() if child is not None and not child.is_array
        ]

    def layout(self, role: str, *, fill_missing: bool = False) -> ArrayLayout:
        """Return the layout of an array; messages call the array `role`.

        If `fill_missing`, unwritten chunks are read as the fill value. `InvalidStore` is raised if
        the values are packed or no numbers, or zarr-python can't open the array.
        """
        if not self.is_array:
            return self._of_group(role, fill_missing=fill_missing)
        layout = None
        if self.metadata is not None:
            layout = direct_layout(self.path, role, self.metadata, fill_missing=fill_missing)
        if layout is None:
            with invalid_store_on_error(self.path):
                layout = zarr_layout(self.path, role, self._array, fill_missing=fill_missing)
        stored = np.dtype(layout.dtype)
        if stored.kind not in "biuf" and not (layout.is_text and role == "y"):
            what = "text" if layout.is_text else str(stored)
            needed = "numbers or text" if role == "y" else "numbers"
            raise InvalidStore(
                f"{self.path} holds {what}, and {role} needs {needed}; encode it first, as "
                "`ooc-train ingest` does"
            )
        attributes = self.attributes
        meant, missing = decode_attributes(attributes, stored, self.path, masked=self._masked)
        names = flag_names(attributes, stored, meant, self.path)
        if names is not None and role != "y":
            raise InvalidStore(
                f"{self.path} holds codes of categories (it has flag_meanings), which would be "
                "taken for numbers; write a column for each category, or remove that attribute"
            )
        dtype = "T" if stored.kind == "T" else meant.str
        return replace(layout, dtype=dtype, missing_values=missing, names=names, stamp=self.stamp)

    def verified_layout(
        self, role: str, checksums: StoreChecksums | None, *, fill_missing: bool = False
    ) -> ArrayLayout:
        """Return the layout of an array after verifying its metadata.

        An array that isn't among the checksums of its group is not verified. `InvalidStore` is
        raised as in `layout`, and if the metadata differ from those that were written.
        """
        name = self.path.rpartition("/")[2]
        if checksums is None or name not in checksums.arrays:
            return self.layout(role, fill_missing=fill_missing)
        checksums.require_array(self.path, name, self.written_metadata)
        return replace(self.layout(role), store_id=checksums.store_id, stamp=None)

    @property
    def written_metadata(self) -> Any:
        """The stored ``zarr.json``, also if zarr-python opened the node; None if there is none."""
        if self.metadata is not None:
            return self.metadata
        opened: Any = self.opened
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        content = sync((opened.store_path / "zarr.json").get(default_buffer_prototype()))
        try:
            return None if content is None else parse_json(content.to_bytes())
        except ValueError:
            return None

    def _of_group(self, role: str, *, fill_missing: bool) -> ArrayLayout:
        """Return the layout of a group that stands for an array: AnnData's categorical labels."""
        kind = str(self.attributes.get("encoding-type"))
        codes, categories = self.child("codes"), self.child("categories")
        if (
            role == "y"
            and kind == "categorical"
            and codes is not None
            and categories is not None
            and codes.is_array
            and categories.is_array
        ):
            layout = codes.layout(role, fill_missing=fill_missing)
            names = tuple(enumerate(categories.values()))
            code = "encoding as categories of AnnData"
            missing = MissingValues(((code, -1),), (code, 0), (code, len(names) - 1))
            return replace(layout, missing_values=missing, names=names, group=self.path)
        if "matrix" in kind:
            raise InvalidStore(
                f"{self.path} is sparse ({kind} of AnnData), and {role} has to be dense; write "
                "adata.X.toarray() to a store by StoreWriter, in pieces of rows"
            )
        raise InvalidStore(
            f"{self.path} is {kind} of AnnData, and no array for {role}; name or write an "
            "array of numbers, as adata.obs[name].to_numpy() is one"
        )

    def values(self) -> list[Any]:
        """Return the values of a small array of one axis, such as the categories of labels.

        `InvalidStore` is raised if the array has other axes, or more than 100,000 values.
        """
        layout = self.layout("y", fill_missing=True)
        if len(layout.shape) != 1 or layout.shape[0] > _MAX_VALUES:
            raise InvalidStore(
                f"{self.path} has shape {layout.shape}, and at most {_MAX_VALUES:,} categories "
                "are read; is this a label?"
            )
        values = np.empty(layout.shape, layout.dtype)
        with ChunkReader(layout) as reader:
            reader.read_rows(0, len(values), values)
        categories: list[Any] = values.tolist()
        return categories

    @property
    def dimensions(self) -> tuple[str | None, ...] | None:
        """Names of an array's axes, None if nothing names them."""
        metadata: Any = self.metadata
        if metadata is None:
            metadata = {"dimension_names": getattr(self._array.metadata, "dimension_names", None)}
        return dimensions_of(self.attributes, metadata.get("dimension_names"), self.path)

    @property
    def _array(self) -> Any:
        """The array as zarr-python opens it."""
        return self.opened if self.opened is not None else open_by_zarr(self.path)

    @property
    def _masked(self) -> Any:
        """The fill value if it marks missing values, as in xarray's arrays of Zarr format 2."""
        if self.metadata is not None or DIMENSIONS not in self.attributes:
            return None
        metadata: Any = self._array.metadata
        return metadata.fill_value if metadata.zarr_format == 2 else None
