"""Places on disk: for output, which never goes to a URL, and for what is temporary."""

import os
import re
import shutil
import tempfile
import weakref

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""The start of a URL. `pathlib` makes one slash of two, and a drive of Windows has one letter."""


_SCRATCH = "ooc_train-given-"


def lasting_folder() -> str | None:
    """Return where temporary data go, None for the system's default.

    Not to /tmp unless that is all there is: on many systems it lies in memory.
    """
    if "TMPDIR" not in os.environ and os.access("/var/tmp", os.W_OK | os.X_OK):  # noqa: S108
        return "/var/tmp"  # noqa: S108
    return None


def scratch_folder(owner: object) -> str:
    """Return a new folder for arrays that are gone with `owner`, or when the process ends."""
    folder = tempfile.mkdtemp(prefix=_SCRATCH, dir=lasting_folder())
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder


def in_scratch(path: str) -> bool:
    """Return whether a path lies in a folder that `scratch_folder` made."""
    return any(part.startswith(_SCRATCH) for part in path.split(os.sep))


def local_path(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of a place to write to.

    Raises
    ------
    ValueError
        If it is a URL, which would otherwise become a local folder such as ``s3:``.
    """
    place = os.fspath(path)
    if _URL.match(place):
        raise ValueError(
            f"{place} is a URL, and output is written to local files and folders only; write it to "
            "a local path, and copy it from there"
        )
    return os.path.abspath(place)
