"""What is made is kept by its `commit`, or not at all: the context manager that all writers are."""

from types import TracebackType
from typing import Self


class Discarding:
    """Leaving it, whichever way, discards what was made and not committed."""

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
