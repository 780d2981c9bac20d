"""Kinds of output, and the checks of the path where an output will lie."""

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ooc_train.core.places import local_path
from ooc_train.core.renames import UNSUPPORTED
from ooc_train.errors import OutputExists

Identity = tuple[tuple[int, ...], ...]
"""Device, inode, and for files time and size, of an output and its markers."""


_OF_FILES = re.compile(
    r"\.(csv|tsv|parquet|pq|xlsx?|ods|jsonl?|feather|arrow|orc|avro|h5|hdf5|nc|npy|npz|pkl|pickle"
    r"|joblib|onnx|pth?|safetensors|html|png|svg|pdf|sqlite|db|sav|dta|rds|zip|gz)",
    re.IGNORECASE,
)
"""Ends of names that mean a single file, which a folder of that name would not be."""


@dataclass(frozen=True)
class Kind:
    """A kind of output, such as a store or a saved run.

    Parameters
    ----------
    name : str
        The name of such outputs in messages.
    markers : tuple of str
        A folder is of this kind if it holds one of these files. Empty for a plain file.
    endings : tuple of str
        Ends of the names of such outputs, the usual one first; empty where any will do.
    """

    name: str
    markers: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()

    def require_fitting(self, path: str) -> None:
        """Raise `ValueError` if a path is named as an output of another kind."""
        root, ending = os.path.splitext(path)
        usual = os.path.basename(root) + (self.endings[0] if self.endings else "")
        if self.markers and _OF_FILES.fullmatch(ending):
            raise ValueError(
                f"{path} is named as a file of {ending}, and {self.name} is saved as a folder; "
                f"choose another name, such as {usual}"
            )
        if not self.markers and self.endings and ending.lower() not in ("", *self.endings):
            raise ValueError(
                f"{path} ends with {ending}, and {self.name} is saved there; choose another name, "
                f"such as {usual}"
            )

    def is_at(self, path: str) -> bool:
        """Return whether an output of this kind lies at a path."""
        if not self.markers:
            return os.path.isfile(path)
        return any(os.path.lexists(os.path.join(path, marker)) for marker in self.markers)

    def identity(self, path: str) -> Identity | None:
        """Return a value that changes with the output at a path; None if nothing lies there."""
        found = []
        for part in ("", *self.markers):
            try:
                status = os.lstat(os.path.join(path, part) if part else path)
            except (FileNotFoundError, NotADirectoryError):
                if not part:
                    return None
                continue
            # Time and size of a folder also change for reasons that don't concern the output.
            changes = (status.st_mtime_ns, status.st_size) if part or not self.markers else ()
            found.append((status.st_dev, status.st_ino, *changes))
        return tuple(found)


FILE = Kind("file")
PAGE = Kind("an HTML page", endings=(".html", ".htm"))
CSV = Kind("a CSV table", endings=(".csv", ".txt"))
STORE = Kind("Zarr", ("zarr.json", ".zgroup", ".zarray"), (".zarr",))
RUN = Kind("run", ("model.json",), (".run",))
CHECKPOINT = Kind("checkpoint", ("checkpoint.json",))
SPLIT = Kind("split", ("train.share", "fold1.train.share"))
TRADEOFF = Kind("trade-off", ("tradeoff.json",))


def fingerprint(identity: Identity | None) -> str:
    """Return an identity as text, and "" for None."""
    return "" if identity is None else hashlib.sha256(repr(identity).encode()).hexdigest()[:32]


def require_output(path: str | os.PathLike[str], kind: Kind, *, overwrite: bool) -> str:
    """Refuse a path for output that is taken, or where nothing can be written.

    Jobs call this first, so that a user doesn't learn of it after hours of work.

    Parameters
    ----------
    path : str or os.PathLike
        Where the output will lie.
    kind : Kind
        The kind of the output.
    overwrite : bool
        Whether an output of this kind that lies there is replaced.

    Returns
    -------
    str
        The absolute path.

    Raises
    ------
    OutputExists
        If something lies there that may not be replaced.
    OSError
        If nothing can be written there.
    ValueError
        If the path is a URL, or is named as a file where a folder will lie.
    """
    place = local_path(path)
    kind.require_fitting(place)
    if os.path.lexists(place):
        if not overwrite:
            raise OutputExists(
                f"{place} exists already; choose another name, or replace it by overwrite=True"
            )
        if not kind.is_at(place):
            raise OutputExists(
                f"{place} is no {kind.name}, so it is not written over; choose another name"
            )
    folder = os.path.dirname(place)
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    try:
        _try_to_write(folder)
    except OSError as error:
        message = f"{error.strerror or error}: no {kind.name} can be saved there; choose another "
        raise OSError(error.errno, message + "place", place) from None
    return place


def _try_to_write(folder: str) -> None:
    """Make an unnamed file, or a folder, in `folder`, since permissions alone don't decide."""
    unnamed = getattr(os, "O_TMPFILE", None)  # Linux has it
    if unnamed is not None:
        try:
            os.close(os.open(folder, unnamed | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except OSError as error:
            if error.errno not in UNSUPPORTED | {errno.EISDIR}:
                raise
        else:
            return
    os.rmdir(tempfile.mkdtemp(prefix=".", dir=folder))


@contextmanager
def explain_os_errors(path: str) -> Iterator[None]:
    """Add advice for the output at `path` to an OSError; its type and errno stay."""
    try:
        yield
    except OutputExists:
        raise
    except OSError as error:
        advice = {
            errno.ENOSPC: "the disk is full: free some room, or write elsewhere",
            errno.EDQUOT: "your disk quota is used up: free some room, or write elsewhere",
            errno.EFBIG: "the file would be larger than the limit (ulimit -f): raise it",
            errno.EROFS: "the file system is read-only: write elsewhere",
            errno.EACCES: "you may not write there: write elsewhere",
        }.get(error.errno or 0, error.strerror or str(error))
        raise OSError(error.errno, f"{advice} (nothing of it was committed)", path) from error
