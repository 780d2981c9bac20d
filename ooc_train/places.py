"""Places that output is written to: local files and folders, and never a URL."""

import os
import re

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""The start of a URL. `pathlib` makes one slash of two, and a drive of Windows has one letter."""


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
