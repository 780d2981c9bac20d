"""Files of a cache, which processes may write at the same time."""

import os
import tempfile
from contextlib import suppress
from time import time

from ooc_train.core.renames import remove

_PREFIX = ".partial-"
"""First characters of the names of cache files while they are written."""

_ABANDONED_SECONDS = 3600
"""Age of a partial file whose writer was killed."""


def replace_file(path: str, content: bytes) -> None:
    """Write a cache file; of processes that write it at the same time, the last one wins.

    Raises
    ------
    OSError
        If the file can't be written.
    """
    folder, name = os.path.split(path)
    with suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            age = time() - entry.stat().st_mtime if entry.name.startswith(_PREFIX) else 0
            if age > _ABANDONED_SECONDS:
                os.unlink(entry.path)
    fd, partial_path = tempfile.mkstemp(prefix=f"{_PREFIX}{name}.", dir=folder)
    try:
        with open(fd, "wb") as file:
            file.write(content)
        os.replace(partial_path, path)
    except BaseException:
        remove(partial_path)
        raise
