"""What passes cost: rows, and seconds of their threads."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """Rows that passes read, and seconds, added up over all threads.

    Attributes
    ----------
    rows : int
        Rows read.
    reading, decoding, computing : float
        Seconds of reading and checking, of decompression, and of the work on rows.
    waiting : float
        Seconds in which a thread of a task waited for other threads of that task.
    dask : float
        Seconds without a task: on the way to the workers, or at the end of a pass.
    evaluating : float
        All seconds of passes that evaluate the model of an epoch of updates.
    """

    rows: int = 0
    reading: float = 0.0
    decoding: float = 0.0
    computing: float = 0.0
    waiting: float = 0.0
    dask: float = 0.0
    evaluating: float = 0.0

    def __add__(self, other: "Timings") -> "Timings":
        # By name: `astuple` copies deeply, which took a tenth of the time of a chunk's updates.
        return Timings(
            self.rows + other.rows,
            self.reading + other.reading,
            self.decoding + other.decoding,
            self.computing + other.computing,
            self.waiting + other.waiting,
            self.dask + other.dask,
            self.evaluating + other.evaluating,
        )

    @property
    def profile(self) -> dict[str, float]:
        """Seconds of all threads by activity, such as "reading"."""
        timings = {name: getattr(self, name) for name in self.__slots__ if name != "rows"}
        if not self.evaluating:
            del timings["evaluating"]
        return timings

    def as_evaluating(self) -> "Timings":
        """Return the same rows, with all seconds counted as evaluation."""
        return Timings(self.rows, evaluating=sum(self.profile.values()))
