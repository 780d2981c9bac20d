"""Plots of learning rates: those that a schedule plans, and those of a run."""

from typing import TYPE_CHECKING

from ooc_train.plotting.drawable import FittedModel, run_in
from ooc_train.plotting.protocols import RateSchedule, Run
from ooc_train.plotting.style import COLORS, shown_name, styled_axes, titled, with_message

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 2048


def schedule(
    schedule: RateSchedule | Run | FittedModel,
    learning_rate: float = 1.0,
    updates: int = 1000,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the learning rate of each update of a schedule.

    Parameters
    ----------
    schedule : Schedule, Report or fitted model
        The schedule; of a run, the rates that it had are drawn, as by `learning_rate`.
    learning_rate : float
        The learning rate `eta0`, of which the schedule gives a share at each update.
    updates : int
        Planned number of updates.
    ax : Axes or None
        Where to draw; None makes new axes.
    """
    import numpy as np

    if not hasattr(schedule, "rate"):
        return _rates_of_run(schedule, ax)
    t = np.unique(np.linspace(0, updates - 1, min(updates, _POINTS)).astype(int))
    rates = schedule.rate(t.astype(float), learning_rate, updates)
    ax = _rate_axes(ax)
    # A point for each update where they are few: a line would hide that rates are steps.
    ax.plot(t, rates, color=COLORS[0], lw=1.8, marker="o" if updates <= 60 else "", ms=4)
    ax.set_xlabel("updates before")
    ax.set_ylim(bottom=0)
    return titled(ax, f"Learning rate by {shown_name(str(schedule))}")


def learning_rate(report: Run | FittedModel, ax: "Axes | None" = None) -> "Axes":
    """Draw the learning rate of the last update of each epoch, over updates.

    Parameters
    ----------
    report : Report or fitted model
        The run.
    ax : Axes or None
        Where to draw; None makes new axes.
    """
    return _rates_of_run(report, ax)


def _rates_of_run(report: Run | FittedModel, ax: "Axes | None") -> "Axes":
    """Draw the learning rates of a run; parameters named as functions hide those."""
    ax = _rate_axes(ax)
    ax.set_xlabel("updates")
    known = [
        (step.updates, step.learning_rate)
        for step in run_in(report).history
        if step.updates and step.learning_rate is not None
    ]
    if not known:
        return with_message(titled(ax, "Learning rate"), "the solver has no learning rate")
    marker = "o" if len(known) <= 60 else ""
    ax.plot(*zip(*known, strict=True), color=COLORS[0], lw=1.8, marker=marker, ms=5)
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    return titled(ax, f"Learning rate: {known[-1][1]:.4g} at the end")


def _rate_axes(ax: "Axes | None") -> "Axes":
    ax = styled_axes(ax)
    ax.set_ylabel("learning rate")
    return ax
