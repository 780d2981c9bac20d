"""Limits that end a run before it converges."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of a run.

    Attributes
    ----------
    max_iter : int
        Largest number of iterations, or of epochs of updates.
    max_passes : float or None
        Largest number of passes over the training rows.
    max_seconds : float or None
        Longest time since the run began, in seconds.
    """

    max_iter: int
    max_passes: float | None = None
    max_seconds: float | None = None

    def reached(self, n_iter: int, passes: float, seconds: float) -> str | None:
        """Return the first limit that is reached, as text; None if there is none."""
        if n_iter >= self.max_iter:
            return f"max_iter={self.max_iter} reached"
        if self.max_passes is not None and passes >= self.max_passes:
            return f"max_passes={self.max_passes:g} reached"
        if self.max_seconds is not None and seconds >= self.max_seconds:
            return f"max_seconds={self.max_seconds:g} reached"
        return None
