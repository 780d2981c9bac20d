"""Commits of outputs that belong together, such as training rows and test rows.

The outputs are named one after another. A process that is killed in between leaves the others whole
beside their places, where `finish_commit` names them.
"""

import os
from collections.abc import Sequence

from ooc_train.core.atomic import PartialOutput, taken
from ooc_train.core.locks import is_open_at, lock
from ooc_train.core.output_kinds import Kind, explain_os_errors, fingerprint
from ooc_train.core.renames import exchange, remove, rename_exclusive, sync_folder
from ooc_train.core.replacements import hidden_paths, open_and_lock, remove_replaced


def commit_together(outputs: Sequence[PartialOutput]) -> None:
    """Rename folders that belong together to their final paths, in order: all or none.

    Raises
    ------
    OutputExists, OSError
        As `PartialOutput.commit`; folders that had their names already lose them again.
    """
    renamed: list[PartialOutput] = []
    try:
        for output in outputs:
            with explain_os_errors(output.path):
                try:
                    output.rename_into_place()
                except FileExistsError as error:
                    raise taken(output.path, error) from None
                renamed.append(output)
                sync_folder(os.path.dirname(output.path))
    except BaseException:
        for output in reversed(renamed):
            output.rename_back()
        raise
    for output in outputs:
        output.release()


def finish_commit(path: str, kind: Kind, replaces: str) -> bool:
    """Rename to `path` a whole folder that a killed process left beside that path.

    Parameters
    ----------
    path : str
        The place.
    kind : Kind
        The kind of the output.
    replaces : str
        `PartialOutput.replaces` of the killed writer: only that output is replaced.

    Returns
    -------
    bool
        Whether the folder lies at its place now. False if another output has appeared there.

    Raises
    ------
    BlockingIOError
        If the process that writes the folder is alive.
    OSError
        If a rename fails.
    """
    partial_path, replaced_path = hidden_paths(path, "partial", "replaced")
    fd = os.open(partial_path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    old_lock = -1
    try:
        lock(fd)
        if not is_open_at(fd, partial_path):
            return False  # another process has just named it
        found = kind.identity(path)
        if found is None:
            rename_exclusive(partial_path, path)
            if replaces and fingerprint(kind.identity(replaced_path)) == replaces:
                remove(replaced_path)
        elif fingerprint(found) != replaces:
            return False
        else:
            old_lock = open_and_lock(path)
            if not exchange(partial_path, path):
                rename_exclusive(path, replaced_path)
                rename_exclusive(partial_path, path)
            for remains in (partial_path, replaced_path):
                remove_replaced(old_lock, remains)
        sync_folder(os.path.dirname(path))
    finally:
        for descriptor in (fd, old_lock):
            if descriptor >= 0:
                os.close(descriptor)
    return True
