"""Names of the axes of arrays, and the check that rows are the first axis."""

from collections.abc import Mapping, Sequence
from typing import Any

from ooc_train.core.schema import shown
from ooc_train.errors import InvalidStore

DIMENSIONS = "_ARRAY_DIMENSIONS"
"""Attribute of xarray for the names of the axes in Zarr format 2."""

_SAMPLES = frozenset(
    {"sample", "row", "obs", "observation", "record", "instance", "example", "cell"}
)
_FEATURES = frozenset(
    {
        *("feature", "column", "col", "var", "variable", "predictor"),
        *("band", "gene", "channel", "output"),
    }
)
"""Usual names of the axis of rows, and of the axis of columns, in the singular."""


def dimensions_of(
    attributes: Mapping[str, Any], names: Sequence[str | None] | None, path: str
) -> tuple[str | None, ...] | None:
    """Return the names of an array's axes, None if nothing names them.

    `names` are its ``dimension_names``, a field of Zarr format 3. `InvalidStore` is raised if an
    attribute for the names is no list of names.
    """
    if names is None:
        names = attributes.get(DIMENSIONS)
    if names is None and isinstance(attributes.get("_nczarr_array"), Mapping):
        nczarr = attributes["_nczarr_array"]
        paths = nczarr.get("dimrefs", nczarr.get("dimension_references"))
        names = paths if not isinstance(paths, list) else [_last(each) for each in paths]
    if names is None:
        return None
    if not isinstance(names, list | tuple) or not all(
        name is None or isinstance(name, str) for name in names
    ):
        raise InvalidStore(
            f"{path} has {shown(names)} for the names of its axes, which should be a list of text; "
            "correct or remove that attribute"
        )
    return tuple(names)


def _last(path: Any) -> Any:
    """Return the last part of a path in a group."""
    return path.rpartition("/")[2] if isinstance(path, str) else path


def require_rows_first(path: str, dimensions: Mapping[str, tuple[str | None, ...] | None]) -> None:
    """Raise `InvalidStore` if X is transposed, or two arrays have different dimensions as rows.

    `dimensions` has the names of the axes of each array, by role: "X", "y", "sample_weight".
    """
    rows = {role: names[0] for role, names in dimensions.items() if names and names[0] is not None}
    others = [name for role, name in rows.items() if role != "X"]
    for role, names in dimensions.items():
        # The first dimension of y is the rows, whatever its name.
        if names is None or len(names) < 2 or (role == "X" and names[0] in others):
            continue
        first, *rest = names
        of_samples = [name for name in rest if _among(_SAMPLES, name)]
        is_column = _among(_FEATURES, first) and len(rest) == 1 and not _among(_FEATURES, rest[0])
        of_rows = rest if is_column else of_samples if not _among(_SAMPLES, first) else []
        if role == "X":
            of_rows = [name for name in rest if name is not None and name in others] or of_rows
        if of_rows:
            order = [of_rows[0], *(name for name in names if name != of_rows[0])]
            raise InvalidStore(
                f"{path}: {role} has the dimensions {names}, and rows come first; write it "
                f"transposed, as {role}.transpose({', '.join(map(repr, order))}) of xarray does"
            )
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"{name!r} of {role}" for role, name in rows.items())
        raise InvalidStore(
            f"{path}: the arrays have different dimensions as rows: {listed}; write them along one "
            "dimension, or give the dimensions one name if they are the same"
        )


def _among(words: frozenset[str], name: str | None) -> bool:
    """Return whether an axis is named by a word, as "sample", "samples" or "n_samples"."""
    bare = (name or "").lower().removeprefix("n_")
    return bare in words or bare.removesuffix("s") in words
