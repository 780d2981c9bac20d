"""Which batch size, and which learning rate: from what fits came to, with the reason in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ooc_train.core.units import approximate_duration

NEAR = 1e-3
"""Losses that lie no further above the lowest, as a share of it, count as no worse."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of learning by one batch size.

    Attributes
    ----------
    batch_size, solver : int or str
        How it was learned.
    rows : int
        Of a batch.
    learning_rate : float or None
        Of the first update, or None where the solver has none.
    passes, seconds : float
        What it took.
    loss : float
        What it came to.
    noise : float or None
        The gradient noise scale there, in rows, or None where it isn't known.
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
    """What to learn by.

    Attributes
    ----------
    batch_size : int or str
        Rows per update.
    learning_rate : float or str or None
        "auto" or the rate that was given, or None where the solver has none.
    reason : str
        In words, with what it is based on.
    """

    batch_size: int | str
    learning_rate: float | str | None
    reason: str


def recommend(
    outcomes: Sequence[Outcome], start_noise: float | None, *, judged_by: str, automatic: bool
) -> Advice:
    """Choose the batch size that took the least time of those that came as low as any.

    Parameters
    ----------
    outcomes : sequence of Outcome
        One a batch size, at least one.
    start_noise : float or None
        The gradient noise scale where learning began, in rows, or None.
    judged_by : str
        What the losses are, such as "validation loss".
    automatic : bool
        Whether learning rates were chosen by this package.
    """
    lowest = min(outcomes, key=lambda outcome: outcome.loss)
    near = [one for one in outcomes if one.loss <= lowest.loss + NEAR * abs(lowest.loss)]
    chosen = min(near, key=lambda outcome: outcome.seconds)
    sentences = [
        _choice(chosen, lowest, near, judged_by),
        _rate(chosen, automatic=automatic),
        _noise(chosen, start_noise),
        f"So say {len(outcomes)} runs, one a batch size, on these rows and this machine.",
    ]
    rate = "auto" if automatic and chosen.learning_rate is not None else chosen.learning_rate
    return Advice(chosen.batch_size, rate, " ".join(sentences))


def _choice(chosen: Outcome, lowest: Outcome, near: Sequence[Outcome], judged_by: str) -> str:
    took = f"{approximate_duration(chosen.seconds)} and {chosen.passes:.3g} passes"
    if len(near) == 1:
        return (
            f"batch_size={chosen.batch_size!r} has the lowest {judged_by}, {chosen.loss:.6g}, by "
            f"more than {NEAR:.1%}; it took {took}."
        )
    if chosen is lowest:
        came = f"has the lowest {judged_by}, {chosen.loss:.6g}"
    else:
        came = (
            f"came to a {judged_by} of {chosen.loss:.6g}, within {NEAR:.1%} of the lowest "
            f"({lowest.loss:.6g}, batch_size={lowest.batch_size!r})"
        )
    others = ", ".join(str(one.batch_size) for one in near if one is not chosen)
    return (
        f"batch_size={chosen.batch_size!r} {came}, and took the least time of those that come as "
        f"near ({others} too): {took}."
    )


def _rate(chosen: Outcome, *, automatic: bool) -> str:
    if chosen.learning_rate is None:
        return f"Its solver, {chosen.solver}, finds the length of its steps by itself."
    if not automatic:
        return f"Its learning rate was given, {chosen.learning_rate:.3g}, and no other was tried."
    return (
        f'Its learning rate is the automatic one for this batch size ("auto"): it begins at '
        f"{chosen.learning_rate:.3g}. No other was tried."
    )


def _noise(chosen: Outcome, start: float | None) -> str:
    if start is None or chosen.noise is None:
        return (
            "The gradient noise scale is not known: it takes two chunks of rows or more to see "
            "how gradients differ."
        )
    told = (
        f"The gradient noise scale is {_rows(start)} where learning begins and "
        f"{_rows(chosen.noise)} where it ended"
    )
    low, high = sorted((start, chosen.noise))
    if chosen.rows < low:
        return (
            f"{told}: with fewer rows a batch than that, steps are mostly noise, which smaller "
            "steps average out, and no row is wasted."
        )
    if chosen.rows > high:
        return (
            f"{told}: batches are larger than that, so that more of them would make each step "
            "little better, and fewer rows would make more steps of a pass."
        )
    return (
        f"{told}: batches are larger than needed at first and smaller than the noise asks for in "
        "the end, where steps have to be small."
    )


def _rows(rows: float) -> str:
    if math.isinf(rows):
        return "beyond what all rows can tell"
    return f"{rows:,.0f} rows" if rows >= 10 else f"{rows:.2g} rows"
