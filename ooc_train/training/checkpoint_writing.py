"""Checkpoints that a thread writes while the run goes on: it waits for no disk.

One checkpoint is written at a time, in order. The thread gets copies of small states, since sums
and states change in place. Of large states it gets the arrays themselves, and the run waits: a
copy would be memory that no plan has.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from ooc_train.training.checkpoint_files import (
    Arrays,
    checkpoint_numbers,
    checkpoint_path,
    remove_checkpoint,
    write_checkpoint,
)

_COPIED_BYTES = 2**22
"""Most bytes of a checkpoint that are copied; the headroom of plans has room for them twice."""

_NAME = "ooc_train-checkpoint"


class CheckpointWriter:
    """Writes the checkpoints of one folder.

    Parameters
    ----------
    path : str
        The folder.
    keep : int
        How many checkpoints stay.
    """

    def __init__(self, path: str, keep: int) -> None:
        self._path, self._keep = path, keep
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None

    def begin(self, values: Callable[[], Mapping[str, Any]], parts: Mapping[str, Arrays]) -> None:
        """Begin to write a checkpoint, once the one before is whole.

        Parameters
        ----------
        values : callable
            Returns values of JSON, as `write_checkpoint` takes them; the thread calls it.
        parts : mapping
            The arrays of each state, by its name.

        Raises
        ------
        OSError
            If this checkpoint or the one before cannot be written, with advice. Those before stay.
        """
        self.finish()
        held = sum(each.nbytes for part in parts.values() for each in part.values())
        copied = held <= _COPIED_BYTES
        if copied:
            parts = {
                owner: {name: each.copy() for name, each in part.items()}
                for owner, part in parts.items()
            }
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, _NAME)
        self._writing = self._thread.submit(self._write, values, parts)
        if not copied:
            self.finish()

    def _write(self, values: Callable[[], Mapping[str, Any]], parts: Mapping[str, Arrays]) -> None:
        numbers = checkpoint_numbers(self._path)
        new = max(numbers, default=0) + 1
        write_checkpoint(checkpoint_path(self._path, new), values(), parts)
        for old in numbers[: len(numbers) + 1 - self._keep]:
            remove_checkpoint(checkpoint_path(self._path, old))

    def check(self) -> None:
        """Raise the error of a checkpoint that could not be written; wait for none.

        Raises
        ------
        OSError
            With advice.
        """
        if self._writing is not None and self._writing.done():
            self.finish()

    def finish(self) -> None:
        """Wait until the last checkpoint is on the disk.

        Raises
        ------
        OSError
            If it could not be written, with advice.
        """
        if self._writing is not None:
            wait((self._writing,))  # where a signal interrupts, the next call waits again
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """End the thread, once the last checkpoint is on the disk.

        Raises
        ------
        OSError
            If it could not be written, with advice.
        """
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        self.finish()
