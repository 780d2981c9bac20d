"""Checkpoints: a run's state on disk, from which the run goes on after it was ended or killed.

The place of a run's checkpoints is a folder, of which each is a folder by its number. The last two
stay, so that one is whole if a disk damages the other. A run that goes on takes the steps that it
would have taken, to the same bits.
"""

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from time import perf_counter
from types import MappingProxyType
from typing import Any, Self

from ooc_train.core.locks import lock
from ooc_train.core.output_kinds import CHECKPOINT, RUN, require_output
from ooc_train.core.places import local_path
from ooc_train.core.schema import shown
from ooc_train.core.units import parse_interval
from ooc_train.errors import InvalidRun, OutputExists
from ooc_train.runs.run_loading import load_fitted
from ooc_train.solvers.base import State, from_arrays, to_arrays
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.partial_pass import PartialPass
from ooc_train.training.checkpoint_files import (
    checkpoint_numbers,
    checkpoint_path,
    damaged,
    last_checkpoint,
    remove_checkpoint,
)
from ooc_train.training.checkpoint_writing import CheckpointWriter
from ooc_train.training.run_identity import difference, identity_of, store_path, validation_path
from ooc_train.training.run_start import RunStart
from ooc_train.training.task import Task


@dataclass(frozen=True)
class Checkpoint:
    """The place of a run's checkpoints, and how often they are written.

    Parameters
    ----------
    path : str or path
        The folder of the checkpoints. ``ooc-train train --resume RUN`` looks for `RUN.checkpoint`.
    every : str or float
        Time between two checkpoints: seconds, or text such as "10min"; or "2 passes" over the
        training rows. They are written after iterations and within passes, which go on where they
        were; epochs of updates by arrays have them within if `shuffle_chunks` is set. The end of
        the run writes one always.
    resume : bool
        Whether a run goes on from the last checkpoint at `path`, if there is one. Otherwise
        checkpoints that lie there are refused. Model, settings and data have to be the same as
        then. Of a store, the id of its commit and some rows of y and weights are compared. Of
        arrays, the shape, the types and some rows are compared. The limits `max_iter`,
        `max_passes`, `max_seconds` and `target_loss` may be others, so may cluster and ceiling.
        Where this run was saved, it is replaced.
    keep : int
        How many checkpoints stay, at least 1. If the last is damaged, a run goes on from the one
        before, with a note.

    Examples
    --------
    >>> from ooc_train import Checkpoint, LogisticModel, Training, make_data, train
    >>> store = make_data("made.zarr", rows=2_000, features=5)
    >>> settings = Training(batch_size=64, max_iter=3, random_state=0)
    >>> keep = Checkpoint("made.checkpoint", every="1 pass", resume=True)
    >>> fitted, _ = train(LogisticModel(), store, settings, checkpoint=keep)
    """

    path: str | os.PathLike[str]
    every: str | float = "10min"
    resume: bool = False
    keep: int = 2

    def __post_init__(self) -> None:
        """Check the settings.

        Raises
        ------
        ValueError
            If `every` is neither a duration nor passes, or `keep` is less than 1.
        """
        parse_interval(self.every)
        if self.keep < 1:
            raise ValueError(f"keep={self.keep!r} is no number of checkpoints of at least 1")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state of a run, between two iterations or within one.

    Attributes
    ----------
    state : State
        State of the solver after the last iteration whose step was recorded. With a phase, it is
        that of the passes before the first iteration.
    best : State or None
        The state of the best validation so far.
    progress : mapping
        Rows read, seconds, notes, steps and goals, as values of JSON.
    within : State or None
        The state that asks for the next pass of the iteration under way; without a phase, that
        after the iteration, whose step is not recorded yet. None if it is `state`.
    begun : PartialPass or None
        What is done of that pass.
    """

    state: State
    best: State | None
    progress: Mapping[str, Any]
    within: State | None = None
    begun: PartialPass | None = None

    @property
    def spent(self) -> tuple[int, float]:
        """Rows that the run has read, and its seconds."""
        return self.progress["rows"], self.progress["seconds"]

    @property
    def is_within(self) -> bool:
        """Whether an iteration is under way."""
        return self.within is not None or self.begun is not None


class CheckpointFolder:
    """A run's checkpoints on disk, read before the run and written during the run.

    A context manager, in which no other process writes there.

    Parameters
    ----------
    checkpoint : Checkpoint
        Place and times.
    overwrite : bool
        Whether checkpoints of another run are replaced.
    settings : mapping, optional
        Values of JSON besides those of `identity_of` that have to be the same as then.

    Raises
    ------
    OutputExists
        If something else lies there, or a checkpoint that the run is not to go on from.
    InvalidRun
        If the checkpoints are damaged, or of another format.
    OSError
        If nothing can be written there.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        overwrite: bool = False,
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._settings = settings
        self.path = require_place(checkpoint.path)
        self._checkpoint = checkpoint
        self._writer = CheckpointWriter(self.path, checkpoint.keep)
        self._seconds, self._passes = parse_interval(checkpoint.every)
        self._written, self._written_passes = perf_counter(), 0.0
        self._begins_anew = overwrite and not checkpoint.resume
        self._found = None if self._begins_anew else last_checkpoint(self.path)
        if self._found is not None and not checkpoint.resume:
            raise OutputExists(
                f"{os.fspath(checkpoint.path)} holds checkpoints of a run already; go on from it "
                "with resume=True (--resume RUN), choose another name, or replace it by "
                "overwrite=True"
            )
        run = {} if self._found is None else self._found.values["run"]
        self.run_id: str = run.get("id", secrets.token_hex(8))
        self._seed: int | None = run.get("seed")
        self._start = RunStart.from_json(run.get("start"))
        self._lock = -1
        self._about: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        os.makedirs(self.path, exist_ok=True)
        self._lock = self._locked()
        for number in checkpoint_numbers(self.path) if self._begins_anew else ():
            remove_checkpoint(checkpoint_path(self.path, number))
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._writer.close()
        except OSError as failed:
            if error is None:
                raise
            error.add_note(f"the last checkpoint could not be written: {failed}")
        finally:
            with suppress(OSError):  # it holds checkpoints
                os.rmdir(self.path)
            os.close(self._lock)

    def _locked(self) -> int:
        """Return a descriptor that holds the lock of the folder."""
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            lock(folder)
        except BlockingIOError:
            os.close(folder)
            raise OutputExists(
                f"another process writes checkpoints to {self.path}; wait for it, or end it"
            ) from None
        except OSError:
            pass  # a file system without locks, such as NFS
        return folder

    def require(self, task: Task, out: str | os.PathLike[str] | None, *, overwrite: bool) -> None:
        """Refuse what `train` refuses of checkpoints, before a cluster starts; write nothing.

        Raises
        ------
        InvalidRun, OutputExists
            As `snapshot`, `replaces` and the context do.
        """
        if os.path.isdir(self.path):
            os.close(self._locked())
        if out is not None and not overwrite:
            self.replaces(out)
        self._require_same(task)

    def seeded(self, training: Training) -> Training:
        """Return the settings with the seed of the run to go on with, if they have none."""
        if training.random_state is not None:
            return training
        return replace(training, random_state=self._seed)

    def started_from(self, start: RunStart | None) -> RunStart | None:
        """Keep what a new run begins from; return it, or what the run to go on with began from."""
        if self._found is None:
            self._start = start
        return self._start

    def replaces(self, out: str | os.PathLike[str]) -> bool:
        """Return whether a run lies at `out` that the run goes on from, and so may replace.

        Raises
        ------
        OutputExists
            If another run lies there.
        """
        if self._found is None or not RUN.is_at(os.fspath(out)):
            return False
        with suppress(InvalidRun):
            if load_fitted(out).report.get("run_id") == self.run_id:
                return True
        raise OutputExists(
            f"{os.fspath(out)} is another run than that of {self.path}; replace it by "
            "overwrite=True, or remove the checkpoints"
        )

    def snapshot(self, task: Task) -> Snapshot | None:
        """Return the snapshot from which the run continues; None without a checkpoint.

        Raises
        ------
        InvalidRun
            If the checkpoint is of other data, settings or another release, or is damaged.
        """
        found = self._found
        if found is None:
            return None
        self._require_same(task)
        self._found = None  # the run holds its arrays from here on
        try:
            states = {
                name: from_arrays(found.parts[name]) if name in found.parts else None
                for name in ("best", "within")
            }
            state, begun = from_arrays(found.parts["state"]), found.parts.get("begun")
            partial = None if begun is None else PartialPass.from_arrays(begun)
        except (TypeError, KeyError, ValueError) as error:
            raise damaged(found.path, f"holds no state of a run ({error})") from None
        if state.params.shape != task.problem.shape:
            raise damaged(found.path, "lacks parameters of the model")
        progress = dict(found.values["progress"])
        if found.note:
            progress["notes"] = [*progress["notes"], found.note]
        self._written_passes = progress["rows"] / task.inputs.source.n_rows
        return Snapshot(state, states["best"], progress, states["within"], partial)

    def _require_same(self, task: Task) -> None:
        """Refuse a checkpoint of other data or settings, or of another release."""
        if self._found is None:
            return
        differs = difference(self._found.values["about"], self._about_run(task))
        if differs is not None:
            what, before, after = differs
            raise InvalidRun(
                f"{self.path} is a checkpoint of another run: {what} is {shown(after)} now, and "
                f"was {shown(before)}; begin anew with another checkpoint, or train as then"
            )

    def _about_run(self, task: Task) -> dict[str, Any]:
        """Return the description of the run that is compared, computed once."""
        if self._about is None:
            self._about = {**identity_of(task), **self._settings}
        return self._about

    def is_due(self, passes: float) -> bool:
        """Return whether it is time for another checkpoint, after so many passes of the run.

        Raises
        ------
        OSError
            If the last one could not be written, with advice.
        """
        self._writer.check()
        is_time = perf_counter() - self._written >= self._seconds
        return is_time or passes - self._written_passes >= self._passes

    def write(self, task: Task, snapshot: Snapshot) -> None:
        """Begin to write a checkpoint, whole or absent, and to remove those before the last `keep`.

        The run goes on meanwhile, until it writes the next one, or calls `finish`.

        Raises
        ------
        OSError
            If it or the one before cannot be written, with advice; those before stay then.
        """
        states = {"state": snapshot.state, "best": snapshot.best, "within": snapshot.within}
        parts = {name: to_arrays(each) for name, each in states.items() if each is not None}
        if snapshot.begun is not None:
            parts["begun"] = snapshot.begun.to_arrays()
        values = {
            "run": {
                "id": self.run_id,
                "seed": task.settings.seed,
                "every": self._checkpoint.every,
                "training": task.training.settings(),
                "store": store_path(task.inputs),
                "validation": validation_path(task),
                "start": None if self._start is None else self._start.to_json(),
            },
            "progress": snapshot.progress,
        }
        # The description reads rows of the store: the thread does so too.
        self._writer.begin(lambda: {"about": self._about_run(task), **values}, parts)
        self._written = perf_counter()
        self._written_passes = snapshot.progress["rows"] / task.inputs.source.n_rows

    def finish(self) -> None:
        """Wait until the last checkpoint is on the disk.

        Raises
        ------
        OSError
            If it could not be written, with advice; those before stay then.
        """
        self._writer.finish()


def require_place(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of a folder of checkpoints, which may not exist yet.

    Raises
    ------
    OutputExists
        If something else lies there.
    OSError, ValueError
        As `require_output` does.
    """
    place = local_path(path)
    if not os.path.lexists(place):
        return require_output(path, CHECKPOINT, overwrite=False)
    if not os.path.isdir(place) or len(checkpoint_numbers(place)) < sum(
        not name.startswith(".") for name in os.listdir(place)
    ):
        raise OutputExists(
            f"{place} is no folder of checkpoints, so none is written there; choose another name"
        )
    return os.path.dirname(require_output(os.path.join(place, "new"), CHECKPOINT, overwrite=False))
