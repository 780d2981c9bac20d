"""`follow`: learn from the rows of a store in their order, and from those that are appended."""

import os
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from math import inf
from time import perf_counter
from typing import Any

from ooc_train.core.output_kinds import RUN, require_output
from ooc_train.core.settings import defaults_of
from ooc_train.core.text import counted
from ooc_train.core.threads import one_blas_thread
from ooc_train.core.units import parse_duration
from ooc_train.errors import InvalidStore
from ooc_train.following.follow_run import (
    Followed,
    FollowRun,
    Published,
    planned_source,
    requirements,
)
from ooc_train.following.follow_settings import BATCH_ROWS, OF_RUNS, Following, rows_at_a_time
from ooc_train.following.follower import Follower
from ooc_train.following.growing_store import GrowingStore, appending
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.model import Model
from ooc_train.monitoring.interrupts import ENDS, Interrupts
from ooc_train.runs.events import Callback, Ended, announcing
from ooc_train.runtime.job import Job
from ooc_train.solvers.batch_schedules import BatchSchedule
from ooc_train.solvers.training_settings import Training
from ooc_train.store.dataset import Store
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.checkpoints import Checkpoint, CheckpointFolder
from ooc_train.training.updating_task import updating_task

_BY_BATCHES = Training(batch_size=BATCH_ROWS)
_FOLLOWING = Following()


def follow(
    model: Model,
    store: str | os.PathLike[str] | Store,
    training: Training = _BY_BATCHES,
    following: Following = _FOLLOWING,
    *,
    rows: Iterable[Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    max_rows: int | None = None,
    idle: float | str | None = None,
    publish_every: float | str = "10s",
    callbacks: Sequence[Callback] = (),
    memory_ceiling: str | int | Ceiling | None = None,
) -> Followed:
    """Learn from the rows of a store in their order, and from further ones as they are appended.

    Each row is scored before it is learned from (progressive validation: Blum, Kalai and Langford
    1999), and is learned from once. The parameters depend on the rows and their order alone. The
    sizes of appends, and when a follower was ended or killed, change nothing: at `out` it goes on
    where it was. Rows that fill no batch wait for more; batches of up to 4 rows are learned 12 rows
    at a time. The columns are scaled by the first rows, and the penalty is that of a fit to about
    as many rows as were learned from so far. The model is an average of parameters, as of `train`.
    Where it is saved, SIGTERM and a closed terminal (SIGHUP) save it before they end the process.

    Parameters
    ----------
    model : Model
        What is learned, by updates.
    store : str, path or Store
        A store in a local folder that `ooc-train append` or `StoreAppender` can add rows to.
    training : Training
        How it is learned: solver, batch size, learning rate and so on.
    following : Following
        Windows, first rows, replay, and what a drift does.
    rows : iterable of tuples (X, y) or (X, y, sample_weight), or None
        Blocks of rows that are appended to the store as they come, and then learned from. As an
        item, None is no block yet, and () is rows that the iterable has appended itself. Following
        ends with the iterable. Its attribute `held_bytes`, if there is one, is memory of the plan.
    out : str, path or None
        Where the model is saved, again and again. Its checkpoint lies beside it, in
        `out.checkpoint`: another call with the same settings goes on from there.
    overwrite : bool
        Whether to begin anew, and replace a run and checkpoints that lie there.
    max_rows : int or None
        New rows after which to end, rounded down to whole batches.
    idle : float, str or None
        Seconds without a new row after which to end, or text such as "5min". None waits for Ctrl-C.
    publish_every : float or str
        Least time between two saves, seconds or text. The end always saves.
    callbacks : sequence of Callback
        Functions that receive events: a `Stepped` for each window, `Noted` for drifts.
    memory_ceiling : str, int, Ceiling or None
        The most memory that this process may hold; None is half of the available memory.

    Raises
    ------
    CeilingExceeded
        If the ceiling is too small; no row of X has been read then.
    Diverged
        If the loss or a parameter is not finite.
    InvalidRun
        If the checkpoint is of another store or other settings, or is damaged.
    InvalidStore
        If rows can't be added to the store, or a classifier's store doesn't name its classes.
    OutputExists
        If another run lies at `out`, or another process follows for it.
    StoreChanged
        If another store takes the place of the one that is followed.
    ValueError
        If a setting does not fit, or the store has too few rows at the end.

    Examples
    --------
    >>> from ooc_train import LogisticModel, follow, make_data
    >>> store = make_data("rows.zarr", rows=2_000, features=4)
    >>> followed = follow(LogisticModel(), store, max_rows=1_990)
    >>> followed.rows, followed.waiting_rows
    (1984, 16)
    """
    seconds = parse_duration(publish_every)
    idle_seconds = inf if idle is None else parse_duration(idle)
    if max_rows is not None and max_rows < 1:
        raise ValueError(f"max_rows={max_rows} is no number of rows of at least 1")
    ceiling, growing, started = Ceiling.of(memory_ceiling), GrowingStore(store), perf_counter()
    if model.is_classifier and growing.store.classes is None:
        raise InvalidStore(
            f"{growing.store.path} does not name its classes, and rows to come may hold others; "
            "ingest does, and StoreWriter(..., classes=[...])"
        )
    training, batch_rows = _by_batches(training, growing.store.chunk_rows)
    published = None
    if out is not None:
        place = f"{os.path.normpath(os.fspath(out))}.checkpoint"
        folder = CheckpointFolder(
            Checkpoint(place, seconds, resume=not overwrite),
            overwrite=overwrite,
            settings={"following": following.settings()},
        )
        training = folder.seeded(training)
        overwrite = overwrite or folder.replaces(out)
        require_output(out, RUN, overwrite=overwrite)
        model.settings(), training.settings()
        published = Published(os.fspath(out), folder, overwrite=overwrite)
    first_rows = max(following.first_rows, rows_at_a_time(batch_rows))
    feed = None if rows is None else appending(growing.store.path, rows)
    with (
        Interrupts() if published is None else Interrupts(ENDS, delivers=True) as interrupts,
        published or nullcontext(),
    ):
        run = FollowRun(growing, feed, max_rows, idle_seconds, (*callbacks, interrupts), started)
        run.wait_for(first_rows)
        inputs = read_inputs(
            growing.store.first_rows(first_rows),
            classifier=model.is_classifier,
            memory_ceiling=ceiling,
        )
        task = updating_task(model, inputs, training, "follow")
        if not task.problem.total_weight > 0:
            raise ValueError(
                f"the weights of the first {counted(first_rows, 'row')} add up to zero; some must "
                "be above "
                "zero, or take more first_rows"
            )
        with (
            one_blas_thread(),
            Job(planned_source(task), memory_ceiling=ceiling, local=True) as job,
        ):
            plan = job.plan(
                requirements(task, getattr(rows, "held_bytes", 0)), on_compile=announcing(callbacks)
            )
            job.stream(plan)
            follower = Follower(task, following, run.record, plan.config, run.announce)
            followed = run.to_the_end(follower, job, plan, published)
        run.emit(Ended(False, run.record.seconds, followed.report.memory))
        interrupts.conclude(followed.report)
    return followed


def _by_batches(training: Training, chunk_rows: int) -> tuple[Training, int]:
    """Return the settings, and rows per update; refuse settings of runs over a whole."""
    defaults = defaults_of(Training)
    for name in OF_RUNS:
        if getattr(training, name) != defaults[name]:
            raise ValueError(
                f"{name} is for train, and follow reads each row once, in stored order, until "
                "max_rows or idle ends it; leave it out"
            )
    size = training.batch_size
    if size == "full":
        raise ValueError(
            "batch_size='full' has no meaning for a stream, which has no last row; use a number of "
            "rows"
        )
    if isinstance(size, BatchSchedule):
        return training, 1  # refused with the other settings
    rows = training.rows_per_update(2**62, chunk_rows)
    return replace(training, batch_size=rows), rows
