"""Output that is whole or absent: written beside its place, and named by one rename.

Every file and folder that this package writes for its users is a `PartialOutput`. It promises:

- A process that is killed leaves at the place either what was there before, or the whole new
  output. The next writer to the place removes the remains beside it, and warns.
- The rename never replaces what appeared at the place meanwhile. An output that was there from the
  start is replaced only on request, if it is of the same kind and unchanged.
- One process at a time writes to a place. A second one is refused before its work.
"""

import errno
import os
import secrets
import warnings
from contextlib import suppress

from ooc_train.core.closing import Discarding
from ooc_train.core.locks import is_open_at, lock
from ooc_train.core.output_kinds import (
    FILE,
    Kind,
    explain_os_errors,
    fingerprint,
    require_output,
)
from ooc_train.core.places import local_path
from ooc_train.core.renames import (
    UNSUPPORTED,
    audit_rename,
    exchange,
    remove,
    remove_open,
    rename_exclusive,
    sync_folder,
)
from ooc_train.core.replacements import (
    hidden_paths,
    open_and_lock,
    remove_replaced,
    undo_replacement,
)
from ooc_train.errors import LeftoversRemoved, OutputExists, SavedElsewhere

_LOCK_ATTEMPTS = 20


class PartialOutput(Discarding):
    """A file or folder that is written at `partial_path`, and then renamed to `path`.

    A context manager: leaving it without `commit` removes what was written.

    Parameters
    ----------
    path : str or os.PathLike
        Where the output will lie. Missing folders above it are made.
    kind : Kind
        The kind decides whether `partial_path` is a new folder or, without markers, an empty file.
    overwrite : bool
        Whether `commit` replaces an output of this kind that lies there.

    Attributes
    ----------
    path, partial_path : str
        Absolute paths.

    Raises
    ------
    OutputExists
        If something lies there that may not be replaced, or another process is writing there.
    OSError
        If nothing can be written there.
    ValueError
        If the path is a URL.

    Warns
    -----
    LeftoversRemoved
        If an earlier process was killed while it wrote to the same place.
    """

    def __init__(
        self, path: str | os.PathLike[str], kind: Kind, *, overwrite: bool = False
    ) -> None:
        self.path = local_path(path)
        self._given_path = os.fspath(path)
        self._kind = kind
        self._lock = self._old_lock = -1
        self._new_folders: list[str] = []
        self.partial_path, self._replaced_path = hidden_paths(self.path, "partial", "replaced")
        with explain_os_errors(self.path):
            with suppress(FileNotFoundError, FileExistsError, BlockingIOError):
                undo_replacement(self.path)
            # The identity comes before the check, so that nothing that appears later is replaced.
            self._before = kind.identity(self.path) if overwrite else None
            require_output(self.path, kind, overwrite=overwrite)
            try:
                self._make_folders()
                self._acquire()
                self._clear()
            except BaseException:
                self.discard()
                raise

    @property
    def active(self) -> bool:
        """Whether the output is still open: neither committed nor discarded."""
        return self._lock >= 0

    @property
    def replaces(self) -> str:
        """The fingerprint of the output that is to be replaced, "" where there is none."""
        return fingerprint(self._before)

    def commit(self, *, elsewhere: bool = False) -> str:
        """Flush the output to the disk (fsync), and rename it to its final path.

        The writer of a folder flushes its files before this call. If the output replaces an older
        one, the older one is removed after the rename.

        Parameters
        ----------
        elsewhere : bool
            Whether the output takes another name in the same folder, if its path is taken.

        Returns
        -------
        str
            Where the output lies: the path that was given, or the other name.

        Warns
        -----
        SavedElsewhere
            If the output took another name.

        Raises
        ------
        OutputExists
            If something appeared at the place meanwhile, or the output to be replaced has changed.
            What lies there stays.
        OSError
            If the disk is full, or the rename fails.
        """
        place = self.path
        with explain_os_errors(place):
            if not self._kind.markers:
                os.fsync(self._lock)
            try:
                self.rename_into_place()
            except FileExistsError as error:
                if not elsewhere:
                    raise taken(place, error) from None
                place = self._rename_elsewhere()
            sync_folder(os.path.dirname(place))
            self.release()
        if place == self.path:
            return self._given_path
        warnings.warn(
            f"{self.path} was made or changed by another process while this one was at work, and "
            f"stays as it is; what this one made is saved in {place}",
            SavedElsewhere,
            stacklevel=3,
        )
        return place

    def discard(self) -> None:
        """Remove what was written, unless it was committed."""
        if self.active:
            remove_open(self._lock, self.partial_path)
            self._unlock()
        for folder in reversed(self._new_folders):
            with suppress(OSError):  # another process may have put something there
                os.rmdir(folder)
        self._new_folders = []

    def _make_folders(self) -> None:
        folder = os.path.dirname(self.path)
        missing = []
        while not os.path.lexists(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for folder in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(folder)
                self._new_folders.append(folder)

    def _acquire(self) -> None:
        """Open the partial file or folder, and hold its lock, which ends with this process."""
        for _ in range(_LOCK_ATTEMPTS):
            fd = self._open_partial()
            try:
                lock(fd)
            except BlockingIOError:
                os.close(fd)
                raise OutputExists(
                    f"another process is writing {self.path}; wait for it, or write elsewhere"
                ) from None
            except OSError as error:
                os.close(fd)
                if error.errno not in UNSUPPORTED | {errno.EBADF, errno.ENOLCK}:
                    raise
                # File systems without locks, such as NFS: a unique name keeps processes apart.
                unlocked = f"partial-{secrets.token_hex(4)}"
                self.partial_path = hidden_paths(self.path, unlocked)[0]
                fd = self._open_partial()
            # Another process may have renamed or removed it between `open` and `lock`.
            if is_open_at(fd, self.partial_path):
                if self._kind.markers or os.fstat(fd).st_nlink == 1:
                    self._lock = fd
                    return
                # A kill during a commit by link left this second name.
                os.unlink(self.partial_path)
            os.close(fd)
        raise OutputExists(f"other processes keep writing {self.path}; write elsewhere")

    def _open_partial(self) -> int:
        path, flags = self.partial_path, os.O_NOFOLLOW | os.O_CLOEXEC
        if not self._kind.markers:
            return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
        with suppress(FileExistsError):
            os.mkdir(path)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | flags)

    def _clear(self) -> None:
        """Remove what a killed process left beside the path, and warn."""
        if self._kind.markers:
            remains = [entry.path for entry in os.scandir(self.partial_path)]
        else:
            remains = [self.partial_path] if os.fstat(self._lock).st_size else []
            os.ftruncate(self._lock, 0)
        if os.path.lexists(self._replaced_path):
            remains.append(self._replaced_path)
        for path in remains:
            if path != self.partial_path:
                remove(path)
        if remains:
            warnings.warn(
                f"removed what an earlier process, which was killed, left beside {self.path}",
                LeftoversRemoved,
                stacklevel=4,
            )

    def rename_into_place(self) -> None:
        """Rename the output to its path; a replaced one stays beside it until `release`.

        Raises
        ------
        FileExistsError
            If something lies there that may not be replaced, or another process changes it.
        """
        found = self._kind.identity(self.path)
        if found is None or self._before is None:
            rename_exclusive(self.partial_path, self.path)
            return
        if found != self._before:
            raise FileExistsError(errno.EEXIST, "was changed", self.path)
        self._old_lock = open_and_lock(self.path)
        if not exchange(self.partial_path, self.path):
            self._replace_in_two_steps()
            return
        # Another process may have changed the old output just before the exchange.
        if self._kind.identity(self.partial_path) != self._before:
            exchange(self.partial_path, self.path)
            raise FileExistsError(errno.EEXIST, "was changed", self.path)

    def _replace_in_two_steps(self) -> None:
        """Replace the old output where the file system can't exchange two names."""
        if not self._kind.markers:
            audit_rename(self.partial_path, self.path)
            os.replace(self.partial_path, self.path)
            return
        rename_exclusive(self.path, self._replaced_path)
        try:
            rename_exclusive(self.partial_path, self.path)
        except OSError:
            rename_exclusive(self._replaced_path, self.path)
            raise

    def rename_back(self) -> None:
        """Undo `rename_into_place` for a folder.

        Raises
        ------
        OSError
            If a rename fails.
        """
        identity = self._kind.identity
        if self._before is not None and identity(self.partial_path) == self._before:
            exchange(self.partial_path, self.path)
            return
        rename_exclusive(self.path, self.partial_path)
        if self._before is not None and identity(self._replaced_path) == self._before:
            rename_exclusive(self._replaced_path, self.path)

    def release(self) -> None:
        """Remove the replaced output, and let other processes write to the place."""
        if self._before is not None:
            for path in (self.partial_path, self._replaced_path):
                remove_replaced(self._old_lock, path)
        self._unlock()

    def _rename_elsewhere(self) -> str:
        stem, suffix = os.path.splitext(self.path)
        number = 1
        while True:
            place = f"{stem}-{number}{suffix}"
            try:
                rename_exclusive(self.partial_path, place)
            except FileExistsError:
                number += 1
            else:
                return place

    def _unlock(self) -> None:
        if self._old_lock >= 0:
            os.close(self._old_lock)
        os.close(self._lock)
        self._old_lock = self._lock = -1


def taken(path: str, error: FileExistsError) -> OutputExists:
    """Return the error for a path that another process took while this one was writing."""
    if isinstance(error, OutputExists):
        return error
    return OutputExists(
        f"{path} was made or changed by another process while this one was writing, and stays as "
        "it is; write to another place"
    )


def write_file(path: str | os.PathLike[str], content: bytes, *, overwrite: bool) -> None:
    """Write a small file, whole or not at all.

    Raises
    ------
    OutputExists, OSError, ValueError
        As `PartialOutput` does.
    """
    with PartialOutput(path, FILE, overwrite=overwrite) as output:
        with explain_os_errors(output.path), open(output.partial_path, "wb") as file:
            file.write(content)
        output.commit()
