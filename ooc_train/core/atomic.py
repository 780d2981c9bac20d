"""Output that is whole or not there: written beside its place, and named by one rename.

Every file and folder that this package writes for its users goes through `PartialOutput`. So each
of them has the same promises:

- A process that is killed leaves at the place what was there before, or the whole new output. The
  next command that writes to the same place removes what was left beside it, and warns of that.
- The rename never replaces what appeared at the place meanwhile. What was there from the start is
  replaced only if that was asked for, it is of the same kind, and it is still the same.
- One process at a time writes to a place; a second one is refused before its work.

Outputs that belong together are named one after another (`commit_together`). A process that is
killed in between leaves the others whole beside their places, where `finish_commit` names them.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import secrets
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import time
from types import TracebackType
from typing import Self

from ooc_train.core.locks import is_open_at, lock
from ooc_train.core.places import local_path
from ooc_train.errors import LeftoversRemoved, OutputExists, SavedElsewhere

_ATTEMPTS = 20
"""Times that a folder is removed into which a worker may write meanwhile, and a lock is tried."""

_LONGEST_NAME = 255
"""Bytes of a file's name on Linux's file systems."""

_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY}
"""What file systems answer that know no lock, or no flag of a rename."""

_CACHED = ".partial-"
"""The start of names of files of a cache that are being written."""

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2  # of linux/fs.h


class Discarding:
    """The context manager that all writers are: leaving it discards what was not committed."""

    def discard(self) -> None:
        """Remove what was made, unless it was committed."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.discard()


@dataclass(frozen=True)
class Kind:
    """A kind of output.

    Parameters
    ----------
    name : str
        What messages call it.
    markers : tuple of str
        A folder is of this kind if one of these files lies in it. Empty for a plain file.
    """

    name: str
    markers: tuple[str, ...] = ()

    def is_at(self, path: str) -> bool:
        """Return whether what lies at a path is of this kind."""
        if not self.markers:
            return os.path.isfile(path)
        return any(os.path.lexists(os.path.join(path, marker)) for marker in self.markers)


FILE = Kind("file")
STORE = Kind("Zarr", ("zarr.json", ".zgroup", ".zarray"))
RUN = Kind("run", ("model.json",))
TRADEOFF = Kind("trade-off", ("tradeoff.json",))


def require_output(path: str | os.PathLike[str], kind: Kind, *, overwrite: bool) -> str:
    """Refuse a place for output that is taken, or where nothing can be written.

    Jobs ask this first, so that nobody learns of it after a day's work.

    Parameters
    ----------
    path : str or os.PathLike
        The place.
    kind : Kind
        Of the output.
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
        If the path is a URL.
    """
    place = local_path(path)
    if os.path.lexists(place):
        if not overwrite:
            raise OutputExists(f"{place} exists already; choose another name, or overwrite it")
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


class PartialOutput(Discarding):
    """A file or folder that is written at `partial_path`, and becomes what lies at `path`.

    A context manager: leaving it without `commit` removes what was written.

    Parameters
    ----------
    path : str or os.PathLike
        Where it will lie. Folders above it are made.
    kind : Kind
        A folder is made at `partial_path`, or an empty file where the kind has no markers.
    overwrite : bool
        Whether an output of this kind that lies there is replaced, at `commit` and not before.

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
        self._as_given = os.fspath(path)
        self._kind = kind
        self._lock = self._old = -1
        self._made: list[str] = []
        self.partial_path, self._replaced_path = _hidden(self.path, "partial", "replaced")
        with explained(self.path):
            self._recover()
            # Before it is found to be what may be replaced: what appears in between is not.
            self._before = _identity(self.path, kind) if overwrite else None
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
        """Whether it was neither committed nor discarded."""
        return self._lock >= 0

    @property
    def replaces(self) -> str:
        """What tells the output that is to be replaced from all others, "" where there is none."""
        return _fingerprint(self._before)

    def commit(self, *, elsewhere: bool = False) -> str:
        """Give the output its name; what was to be replaced is gone when that has worked.

        Whoever wrote it has brought it to the disk.

        Parameters
        ----------
        elsewhere : bool
            Whether the output takes another name beside its place, where the place is taken
            meanwhile.

        Returns
        -------
        str
            Where it lies: the path that was given, but for `elsewhere`.

        Warns
        -----
        SavedElsewhere
            If it took another name.

        Raises
        ------
        OutputExists
            If something appeared at the place since the writing began, or what was to be replaced
            has changed. Whatever lies there stays as it is.
        OSError
            If it can't be renamed.
        """
        place = self.path
        with explained(place):
            try:
                self.put()
            except FileExistsError:
                if not elsewhere:
                    raise OutputExists(
                        f"{place} was made or changed by another process while this one was "
                        "writing, and stays as it is; write to another place"
                    ) from None
                place = self._put_elsewhere()
            sync_folder(os.path.dirname(place))
            self.finish()
        if place == self.path:
            return self._as_given
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
            _remove_open(self._lock, self.partial_path)
            self._release()
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):  # by now others may have put something there
                os.rmdir(folder)
        self._made = []

    def _recover(self) -> None:
        """Put back what lay at the place, where a process was killed before it had replaced it."""
        with contextlib.suppress(FileNotFoundError, FileExistsError, BlockingIOError):
            undo_replacement(self.path)

    def _make_folders(self) -> None:
        folder = os.path.dirname(self.path)
        missing = []
        while not os.path.lexists(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder)
                self._made.append(folder)

    def _acquire(self) -> None:
        """Make what is written to, and hold its lock, which ends with this process."""
        for _ in range(_ATTEMPTS):
            fd = self._opened()
            try:
                lock(fd)
            except BlockingIOError:
                os.close(fd)
                raise OutputExists(
                    f"another process is writing {self.path}; wait for it, or write elsewhere"
                ) from None
            except OSError as error:
                if error.errno not in _UNSUPPORTED | {errno.EBADF, errno.ENOLCK}:
                    os.close(fd)
                    raise
                # Such as NFS. A name of our own then keeps two processes apart, until the rename.
                os.close(fd)
                unlocked = f"partial-{secrets.token_hex(4)}"
                self.partial_path = _hidden(self.path, unlocked)[0]
                fd = self._opened()
            # Whoever held the lock before may have renamed or removed it since it was opened.
            if is_open_at(fd, self.partial_path):
                if self._kind.markers or os.fstat(fd).st_nlink == 1:
                    self._lock = fd
                    return
                # It was committed by a link, and its second name is what a kill left.
                os.unlink(self.partial_path)
            os.close(fd)
        raise OutputExists(f"other processes keep writing {self.path}; write elsewhere")

    def _opened(self) -> int:
        path, flags = self.partial_path, os.O_NOFOLLOW | os.O_CLOEXEC
        if not self._kind.markers:
            return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | flags)

    def _clear(self) -> None:
        """Remove what a process that was killed left beside the place."""
        found = 0
        if self._kind.markers:
            for entry in os.scandir(self.partial_path):
                found += 1
                remove(entry.path)
        else:
            found += os.fstat(self._lock).st_size > 0
            os.ftruncate(self._lock, 0)
        if os.path.lexists(self._replaced_path):
            found += 1
            remove(self._replaced_path)
        if found:
            warnings.warn(
                f"removed what an earlier process, which was killed, left beside {self.path}",
                LeftoversRemoved,
                stacklevel=4,
            )

    def put(self) -> None:
        """Rename into place; what lay there is kept beside it until `finish`.

        Raises
        ------
        FileExistsError
            If the place holds something that may not be replaced.
        """
        found = _identity(self.path, self._kind)
        if found is None or self._before is None:
            rename_exclusive(self.partial_path, self.path)
            return
        if found != self._before:
            raise FileExistsError(errno.EEXIST, "was changed", self.path)
        self._old = _locked(self.path)
        if not _renamed(self.partial_path, self.path, _EXCHANGE):
            self._replace()
            return
        # What lay there now lies at the partial path; another process may have been quicker.
        if _identity(self.partial_path, self._kind) != self._before:
            _renamed(self.partial_path, self.path, _EXCHANGE)
            raise FileExistsError(errno.EEXIST, "was changed", self.path)

    def _replace(self) -> None:
        """Replace what lies there, where the file system can't exchange two names."""
        if not self._kind.markers:
            audited("rename", self.partial_path, self.path)
            os.replace(self.partial_path, self.path)
            return
        rename_exclusive(self.path, self._replaced_path)
        try:
            rename_exclusive(self.partial_path, self.path)
        except OSError:
            rename_exclusive(self._replaced_path, self.path)
            raise

    def undo(self) -> None:
        """Take the output, which is a folder, back from its place, and put there what lay there.

        Raises
        ------
        OSError
            If it can't be renamed.
        """
        if self._before is not None and (_identity(self.partial_path, self._kind) == self._before):
            _renamed(self.partial_path, self.path, _EXCHANGE)
            return
        rename_exclusive(self.path, self.partial_path)
        if self._before is not None and (
            _identity(self._replaced_path, self._kind) == self._before
        ):
            rename_exclusive(self._replaced_path, self.path)

    def finish(self) -> None:
        """Remove what was replaced, and let others write to the place."""
        if self._before is not None:
            for path in (self.partial_path, self._replaced_path):
                _remove_replaced(self._old, path)
        self._release()

    def _put_elsewhere(self) -> str:
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

    def _release(self) -> None:
        if self._old >= 0:
            os.close(self._old)
        os.close(self._lock)
        self._old = self._lock = -1


def commit_together(outputs: Sequence[PartialOutput]) -> None:
    """Give outputs that belong together, all of them folders, their names: all of them or none.

    They are named in order. A process that is killed in between leaves those that have no name yet
    whole beside their places, for `finish_commit`.

    Raises
    ------
    OutputExists, OSError
        As `PartialOutput.commit`; those that had their names already lose them again.
    """
    put: list[PartialOutput] = []
    try:
        for output in outputs:
            with explained(output.path):
                try:
                    output.put()
                except FileExistsError:
                    raise OutputExists(
                        f"{output.path} was made or changed by another process while this one was "
                        "writing, and stays as it is; write to another place"
                    ) from None
                put.append(output)
                sync_folder(os.path.dirname(output.path))
    except BaseException:
        for output in reversed(put):
            output.undo()
        raise
    for output in outputs:
        output.finish()


def finish_commit(path: str, kind: Kind, replaces: str) -> bool:
    """Name an output, a folder, that a process which was killed left whole beside its place.

    Parameters
    ----------
    path : str
        The place.
    kind : Kind
        Of the output.
    replaces : str
        `PartialOutput.replaces` of who wrote it: only that is replaced.

    Returns
    -------
    bool
        Whether it lies at its place now. False where something else has appeared there.

    Raises
    ------
    BlockingIOError
        If the process that writes it is alive.
    OSError
        If it can't be renamed.
    """
    partial_path, replaced_path = _hidden(path, "partial", "replaced")
    fd, old = os.open(partial_path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC), -1
    try:
        lock(fd)
        if not is_open_at(fd, partial_path):
            return False  # another process was quicker
        found = _identity(path, kind)
        if found is None:
            rename_exclusive(partial_path, path)
            if replaces and _fingerprint(_identity(replaced_path, kind)) == replaces:
                remove(replaced_path)
        elif _fingerprint(found) != replaces:
            return False
        else:
            old = _locked(path)
            if not _renamed(partial_path, path, _EXCHANGE):
                rename_exclusive(path, replaced_path)
                rename_exclusive(partial_path, path)
            for left in (partial_path, replaced_path):
                _remove_replaced(old, left)
        sync_folder(os.path.dirname(path))
    finally:
        for opened in (fd, old):
            if opened >= 0:
                os.close(opened)
    return True


def undo_replacement(path: str) -> None:
    """Undo a replacement by two renames between which a process was killed.

    Only file systems that can't exchange two folders at once have such.

    Raises
    ------
    OSError
        If it can't be renamed.
    """
    partial_path, replaced_path = _hidden(path, "partial", "replaced")
    if os.path.lexists(path) or not os.path.lexists(replaced_path):
        return
    fd = os.open(partial_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        lock(fd)
        rename_exclusive(replaced_path, path)
    finally:
        os.close(fd)


def partial_path_of(path: str) -> str:
    """Return where an output is written that will lie at a path."""
    return _hidden(path, "partial")[0]


def write_file(path: str | os.PathLike[str], content: bytes, *, overwrite: bool) -> None:
    """Write a small file, whole or not at all.

    Raises
    ------
    OutputExists, OSError, ValueError
        As `PartialOutput` does.
    """
    with PartialOutput(path, FILE, overwrite=overwrite) as output:
        with explained(output.path), open(output.partial_path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        output.commit()


def replace_file(path: str, content: bytes) -> None:
    """Write a file of a cache: of processes that write it at the same time, the last one wins.

    Raises
    ------
    OSError
        If it can't be written.
    """
    folder, name = os.path.split(path)
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            # Of a process that was killed: nobody writes for an hour.
            if entry.name.startswith(_CACHED) and entry.stat().st_mtime < time() - 3600:
                os.unlink(entry.path)
    fd, partial_path = tempfile.mkstemp(prefix=f"{_CACHED}{name}.", dir=folder)
    try:
        with open(fd, "wb") as file:
            file.write(content)
        os.replace(partial_path, path)
    except BaseException:
        remove(partial_path)
        raise


def rename_exclusive(source: str, target: str) -> None:
    """Rename a file or folder to a name that nothing has.

    Raises
    ------
    FileExistsError
        If something lies at the target.
    OSError
        If it can't be renamed.
    """
    if _renamed(source, target, _NOREPLACE):
        return
    audited("rename", source, target)
    if os.path.isdir(source) and not os.path.islink(source):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        try:
            # A folder that appears only now is replaced if it is empty, and nothing else is.
            os.rename(source, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        return
    os.link(source, target, follow_symlinks=False)
    os.unlink(source)


def remove(path: str) -> None:
    """Remove a file, a link or a folder with all that lies in it; nothing there is fine."""
    for _ in range(_ATTEMPTS):
        if not os.path.lexists(path):
            return
        _remove_once(path)


def _remove_once(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Say what an OSError means for the output at `path`; its type and errno stay."""
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


def audited(event: str, *arguments: str) -> None:
    """Tell Python's audit hooks of what the operating system is asked for without Python's `os`."""
    sys.audit(f"ooc_train.{event}", *arguments)


def _hidden(path: str, *endings: str) -> list[str]:
    """Return hidden paths beside `path` that end so; of a name that is too long, its digest."""
    folder, name = os.path.split(path)
    longest = max(map(len, endings))
    if len(os.fsencode(name)) + longest + 2 > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return [os.path.join(folder, f".{name}.{ending}") for ending in endings]


def _identity(path: str, kind: Kind) -> tuple[tuple[int, ...], ...] | None:
    """Return what changes when an output is replaced or changed; None where nothing lies."""
    found = []
    for part in ("", *kind.markers):
        try:
            status = os.lstat(os.path.join(path, part) if part else path)
        except (FileNotFoundError, NotADirectoryError):
            if not part:
                return None
            continue
        # The times and sizes of folders change by what does not concern their output.
        changes = (status.st_mtime_ns, status.st_size) if part or not kind.markers else ()
        found.append((status.st_dev, status.st_ino, *changes))
    return tuple(found)


def _fingerprint(identity: tuple[tuple[int, ...], ...] | None) -> str:
    return "" if identity is None else hashlib.sha256(repr(identity).encode()).hexdigest()[:32]


def _try_to_write(folder: str) -> None:
    """Make a file that has no name, or a folder, as permissions don't tell whether one may."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno not in _UNSUPPORTED | {errno.EISDIR}:
            raise
        os.rmdir(tempfile.mkdtemp(prefix=".", dir=folder))


def _locked(path: str) -> int:
    """Open and lock what is to be replaced, so that nobody takes it for remains until it is gone.

    Returns -1 of a link; on file systems without locks it is opened all the same.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    with contextlib.suppress(OSError):
        lock(fd)
    return fd


def _remove_replaced(fd: int, path: str) -> None:
    """Remove what was replaced, of which `_locked` gave the descriptor; a link where it is -1."""
    if fd >= 0:
        _remove_open(fd, path)
    elif os.path.islink(path):
        os.unlink(path)


def _remove_open(fd: int, path: str) -> None:
    """Remove what lies at a path, as long as it is what is open, of which the lock is held.

    Once that is gone, another process may make something of its own at the same path.
    """
    for _ in range(_ATTEMPTS):
        if not is_open_at(fd, path):
            return
        _remove_once(path)


def sync_folder(folder: str) -> None:
    """Bring the names in a folder to the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _renamed(source: str, target: str, flag: int) -> bool:
    """Rename by Linux's renameat2; return whether system and file system know the flag.

    Raises
    ------
    FileExistsError
        If the flag is `_NOREPLACE` and something lies at the target.
    OSError
        If it can't be renamed.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    audited("rename", source, target)
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), source, None, target)
