"""Context managers whose end calls one method, with or without an error."""

from typing import Self


class Closing:
    """A context manager whose end calls `close`."""

    def close(self) -> None:
        """Release what this object holds."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Discarding:
    """A writer and context manager whose end discards what was not committed."""

    def discard(self) -> None:
        """Remove what was written, unless it was committed."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()
