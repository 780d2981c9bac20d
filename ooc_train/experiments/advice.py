"""Advice on batch size and learning rate, from the results of fits, with its reason."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ooc_train.core.text import counted
from ooc_train.core.units import approximate_duration

NEAR = 1e-3
"""Losses within this share of the lowest loss count as equal."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a fit at one batch size.

    Attributes
    ----------
    batch_size, solver : str
        Settings of the fit.
    rows : int
        Rows of a batch.
    learning_rate : float or None
        Learning rate of the first update; None if the solver has none.
    passes, seconds : float
        Cost of the fit.
    loss : float
        Loss at the end.
    noise : float or None
        Gradient noise scale at the end, in rows; None if unknown.
    """

    batch_size: int | str
    solver: str
    rows: int
    learning_rate: float | None
    passes: float
    seconds: float
    loss: float
    noise: float | None


@dataclass(frozen=True, slots=True)
class Advice:
    """The recommended batch size and learning rate.

    Attributes
    ----------
    batch_size : int or str
        Rows per update.
    learning_rate : float, str or None
        "auto", or the rate that was given, or None if the solver has none.
    reason : str
        The reason, with its figures.
    """

    batch_size: int | str
    learning_rate: float | str | None
    reason: str


def recommend(
    outcomes: Sequence[Outcome], start_noise: float | None, *, criterion: str, automatic: bool
) -> Advice:
    """Choose the fastest batch size among those with the lowest loss.

    Parameters
    ----------
    outcomes : sequence of Outcome
        At least one.
    start_noise : float or None
        Gradient noise scale at the start, in rows.
    criterion : str
        Name of the compared losses, such as "validation loss".
    automatic : bool
        Whether ooc_train chose the learning rates.
    """
    lowest = min(outcomes, key=lambda outcome: outcome.loss)
    near = [one for one in outcomes if one.loss <= lowest.loss + NEAR * abs(lowest.loss)]
    chosen = min(near, key=lambda outcome: outcome.seconds)
    runs = counted(len(outcomes), "run")
    sentences = [
        _choice(chosen, lowest, near, criterion),
        _rate(chosen, automatic=automatic),
        _noise(chosen, start_noise),
        f"Based on {runs}, one for each batch size, on these rows and this machine.",
    ]
    rate = "auto" if automatic and chosen.learning_rate is not None else chosen.learning_rate
    return Advice(chosen.batch_size, rate, " ".join(sentences))


def _choice(chosen: Outcome, lowest: Outcome, near: Sequence[Outcome], criterion: str) -> str:
    took = f"{approximate_duration(chosen.seconds)} and {counted(chosen.passes, 'pass', '.3g')}"
    if len(near) == 1:
        return (
            f"batch_size={chosen.batch_size!r} has the lowest {criterion}, {chosen.loss:.6g}, by "
            f"more than {NEAR:.1%}; it took {took}."
        )
    if chosen is lowest:
        reached = f"has the lowest {criterion}, {chosen.loss:.6g}"
    else:
        reached = (
            f"reached a {criterion} of {chosen.loss:.6g}, within {NEAR:.1%} of the lowest "
            f"({lowest.loss:.6g}, batch_size={lowest.batch_size!r})"
        )
    others = ", ".join(str(one.batch_size) for one in near if one is not chosen)
    return (
        f"batch_size={chosen.batch_size!r} {reached}, and was the fastest of those within "
        f"{NEAR:.1%} (the others: {others}): {took}."
    )


def _rate(chosen: Outcome, *, automatic: bool) -> str:
    if chosen.learning_rate is None:
        return f"Its solver, {chosen.solver}, chooses its step lengths itself."
    if not automatic:
        return f"Its learning rate was given, {chosen.learning_rate:.3g}; no other was tried."
    return (
        f'Its learning rate is the automatic one ("auto"), which begins at '
        f"{chosen.learning_rate:.3g}; no other was tried."
    )


def _noise(chosen: Outcome, start: float | None) -> str:
    if start is None or chosen.noise is None:
        return (
            "The gradient noise scale is unknown: it takes at least two chunks of rows to see how "
            "gradients differ."
        )
    scale = (
        f"The gradient noise scale is {_rows(start)} at the start and {_rows(chosen.noise)} at the "
        "end"
    )
    low, high = sorted((start, chosen.noise))
    if chosen.rows < low:
        return (
            f"{scale}: with smaller batches, steps are mostly noise. Small learning rates "
            "average it out, and no row is wasted."
        )
    if chosen.rows > high:
        return (
            f"{scale}: larger batches improve each step little, and fewer rows per batch would "
            "give more steps per pass."
        )
    return (
        f"{scale}: the batches are larger than necessary at first, and small for the noise at the "
        "end, where steps have to be small."
    )


def _rows(rows: float) -> str:
    if math.isinf(rows):
        return "larger than all rows can show"
    return counted(rows, "row", ",.0f") if rows >= 10 else counted(rows, "row", ".2g")
