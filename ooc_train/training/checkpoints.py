"""Checkpoints: a run's state on disk, from which the run goes on after it was ended or killed.

A checkpoint is a folder: `state.npz` has the arrays of the solver's state, and `checkpoint.json`
all else. It is written beside its place, flushed, and named by one rename, between two iterations
or epochs. A run that goes on takes the steps that it would have taken, to the same bits.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.atomic import PartialOutput
from ooc_train.core.files import FileKind, read_json
from ooc_train.core.output_kinds import CHECKPOINT, explain_os_errors, require_output
from ooc_train.core.renames import sync_file, sync_folder
from ooc_train.core.schema import (
    integer,
    list_of,
    mapping,
    number,
    or_none,
    record,
    require,
    shown,
    text,
)
from ooc_train.core.units import parse_duration
from ooc_train.errors import InvalidRun, OutputExists
from ooc_train.runs.events import Stepped
from ooc_train.runs.history import Steps
from ooc_train.runs.parameters import read_arrays
from ooc_train.solvers.base import State, from_arrays, to_arrays
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.array_source import ArraySource
from ooc_train.stream.input_data import Inputs
from ooc_train.training.goals import Goals
from ooc_train.training.task import Task

_VERSION = 1
_ADVICE = "restore it from a copy, or begin anew with another checkpoint"
_SETTINGS = FileKind("the settings of a checkpoint", 2**28, InvalidRun, _ADVICE)
_ARRAYS = FileKind("the arrays of a checkpoint", 2**63, InvalidRun, _ADVICE)

_LIMITS = ("max_iter", "max_passes", "max_seconds", "target_loss")
"""Settings that may be others when a run goes on."""

_DIGEST_ROWS, _DIGEST_BYTES = 1_000, 2**20
"""Most rows of arrays that are compared, and most bytes of them; at least two rows are."""

_SCHEMA = record(
    {
        "format": text,
        "format_version": integer(1),
        "about": mapping,
        "seed": integer(0, 2**128),
        "scalars": mapping,
        "arrays": mapping,
        "progress": record(
            {
                "rows": integer(0),
                "rows_before": integer(0),
                "seconds": number(0.0),
                "learning_rate": or_none(number(0.0)),
                "notes": list_of(text),
                "steps": mapping,
                "goals": mapping,
            }
        ),
    }
)


@dataclass(frozen=True)
class Checkpoint:
    """The place of a run's checkpoints, and how often they are written.

    Parameters
    ----------
    path : str or path
        The folder. Each checkpoint replaces the one before.
    every : str or float
        Time between two checkpoints: seconds, or text such as "10min". 0 is each iteration or
        epoch. The end of the run writes one always.
    resume : bool
        Whether a run goes on from the checkpoint at `path`, if there is one. Otherwise a
        checkpoint that lies there is refused. Model, settings and data have to be the same as then:
        of a store the id of its commit is compared, and of arrays the shape, the types and some
        rows. The limits `max_iter`, `max_passes`, `max_seconds` and `target_loss` may be others,
        and so may cluster and ceiling.
    """

    path: str | os.PathLike[str]
    every: str | float = "10min"
    resume: bool = False

    def __post_init__(self) -> None:
        """Check the time.

        Raises
        ------
        ValueError
            If it is no duration.
        """
        parse_duration(self.every)

    def seeded(self, training: Training) -> Training:
        """Return the settings with the seed of the run to go on with, if they have none.

        Raises
        ------
        InvalidRun
            If a checkpoint is there, and damaged or of another format.
        """
        if training.random_state is not None or not self.resume or not os.path.lexists(self.path):
            return training
        return replace(training, random_state=_read(os.fspath(self.path))["seed"])


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state of a run between two iterations.

    Attributes
    ----------
    state : State
        State of the solver.
    best : State or None
        The state of the best validation so far.
    progress : mapping
        Rows read, seconds, notes, steps and goals, as values of JSON.
    """

    state: State
    best: State | None
    progress: Mapping[str, Any]

    def restore(self, steps: Steps, goals: Goals) -> None:
        """Set the steps and the goals of a run to those of the snapshot.

        Raises
        ------
        InvalidRun
            If the steps or the goals of the snapshot are damaged.
        """
        series, counted = self.progress["steps"], self.progress["goals"]
        try:
            taken = [Stepped(**values) for values in series["steps"]]
            steps.restore(taken, int(series["every"]), int(series["count"]))
            best = None
            if self.best is not None:
                best = Stepped(**counted["best"]), self.best
            numbers = float(counted["lowest"]), int(counted["stale"]), str(counted["reached"])
            goals.restore(*numbers, best)
        except (TypeError, KeyError, ValueError, ZeroDivisionError) as error:
            raise InvalidRun(f"the steps of the checkpoint are damaged ({error})") from None


class CheckpointFile:
    """A run's checkpoint on disk, read before the run and written during the run.

    Parameters
    ----------
    checkpoint : Checkpoint
        Place and times.

    Raises
    ------
    OutputExists
        If something else lies there, or a checkpoint that the run is not to go on from.
    InvalidRun
        If the checkpoint is damaged, or of another format.
    OSError
        If nothing can be written there.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        if not checkpoint.resume and CHECKPOINT.is_at(os.fspath(checkpoint.path)):
            raise OutputExists(
                f"{os.fspath(checkpoint.path)} is a checkpoint of a run already; go on from it "
                "with resume=True (--resume), or choose another name"
            )
        self.path = require_output(checkpoint.path, CHECKPOINT, overwrite=checkpoint.resume)
        self._every = parse_duration(checkpoint.every)
        self._written = perf_counter()
        self._found = _read(self.path) if os.path.lexists(self.path) else None
        self._about: dict[str, Any] | None = None

    def snapshot(self, task: Task) -> Snapshot | None:
        """Return the snapshot from which the run continues; None without a checkpoint.

        Raises
        ------
        InvalidRun
            If the checkpoint is of other data, settings or another release, or is damaged.
        """
        if self._found is None:
            return None
        for name, now in self._about_run(task).items():
            if (then := self._found["about"].get(name)) != now:
                what, before, after = _difference(name, then, now)
                raise InvalidRun(
                    f"{self.path} is a checkpoint of another run: {what} is {shown(after)} now, "
                    f"and was {shown(before)}; begin anew with another checkpoint, or train as then"
                )
        states = _states(self.path, self._found)
        state = states.get("state")
        if state is None or state.params.shape != task.problem.shape:
            raise InvalidRun(f"{self.path} lacks parameters of the model; {_ADVICE}")
        return Snapshot(state, states.get("best"), self._found["progress"])

    def _about_run(self, task: Task) -> dict[str, Any]:
        """Return the description of the run that is compared, computed once."""
        self._about = _about(task) if self._about is None else self._about
        return self._about

    def is_due(self) -> bool:
        """Return whether it is time for another checkpoint."""
        return perf_counter() - self._written >= self._every

    def write(self, task: Task, snapshot: Snapshot) -> None:
        """Write a checkpoint; it replaces the one before, whole or not at all.

        Raises
        ------
        OSError
            If it cannot be written, with advice; the one before stays then.
        """
        arrays = {f"state/{name}": each for name, each in to_arrays(snapshot.state).items()}
        if snapshot.best is not None:
            arrays |= {f"best/{name}": each for name, each in to_arrays(snapshot.best).items()}
        scalars = {name: each.item() for name, each in arrays.items() if not each.ndim}
        arrays = {name: each for name, each in arrays.items() if each.ndim}
        values = {
            "format": CHECKPOINT.name,
            "format_version": _VERSION,
            "about": self._about_run(task),
            "seed": task.settings.seed,
            "scalars": scalars,
            "arrays": {name: each.dtype.str for name, each in arrays.items()},
            "progress": snapshot.progress,
        }
        with PartialOutput(self.path, CHECKPOINT, overwrite=True) as output:
            folder = output.partial_path
            with explain_os_errors(self.path):
                with open(os.path.join(folder, "state.npz"), "wb") as file:
                    np.savez(file, allow_pickle=False, **arrays)
                    sync_file(file)
                with open(os.path.join(folder, "checkpoint.json"), "w", encoding="utf-8") as out:
                    json.dump(values, out)
                    sync_file(out)
                sync_folder(folder)
            output.commit()
        self._written = perf_counter()


def _read(path: str) -> dict[str, Any]:
    """Return the values of a checkpoint, all of them checked but the arrays."""
    file = os.path.join(path, "checkpoint.json")
    found = read_json(file, _SETTINGS, constants=True)
    written = found.get("format_version")
    if isinstance(written, int) and written > _VERSION:
        raise InvalidRun(
            f"{path} was written by a later release (format {written}, this one reads {_VERSION}); "
            "install that release, or begin anew with another checkpoint"
        )
    require(found, _SCHEMA, file, _SETTINGS)
    return found


def _states(path: str, found: Mapping[str, Any]) -> dict[str, State]:
    """Return the states of a checkpoint by their names."""
    types = found["arrays"]
    for written in types.values():
        if written not in ("<f8", "<f4", "<i8", "|u1", "|b1"):
            raise InvalidRun(f"{path} has an array of the type {shown(written)}; {_ADVICE}")
    numbers = read_arrays(os.path.join(path, "state.npz"), list(types), _ARRAYS)
    leaves: dict[str, dict[str, NDArray[Any]]] = {}
    typed = {
        name: each.astype(types[name], copy=False)
        for name, each in zip(types, numbers, strict=True)
    }
    for name, value in (typed | found["scalars"]).items():
        owner, _, rest = name.partition("/")
        leaves.setdefault(owner, {})[rest] = np.asarray(value)
    try:
        return {owner: from_arrays(values) for owner, values in leaves.items()}
    except (TypeError, KeyError) as error:
        raise InvalidRun(f"{path} holds no state of a run ({error}); {_ADVICE}") from None


def _about(task: Task) -> dict[str, Any]:
    """Return, as values of JSON, what a run must share with the run that it continues."""
    training = task.training
    settings = training.settings() | {"random_state": task.settings.seed}
    schedule = training.schedule
    # The rates of such a schedule follow from the planned number of epochs.
    keeps = {"max_iter"} if getattr(schedule, "needs_horizon", False) else set()
    for name in set(_LIMITS) - keeps:
        del settings[name]
    about = {
        "release": version("ooc_train"),
        "model": {"name": task.model.name} | task.model.settings(),
        "training": settings,
        "data": _fingerprint(task.inputs),
        "validation": None if task.validation is None else _fingerprint(task.validation),
    }
    plain: dict[str, Any] = json.loads(json.dumps(about))
    return plain


def _fingerprint(inputs: Inputs) -> dict[str, Any]:
    """Return values that differ for other data: a store's id, or shapes, types and some rows."""
    source, store = inputs.source, inputs.store
    found = {
        "kind": inputs.kind,
        "rows": source.n_rows,
        "columns": source.n_features,
        "names": inputs.feature_names,
        "classes": inputs.classes,
        "outputs": source.n_outputs,
        "type": source.dtype,
        "partition": source.partition_rows,
        "contents": "" if store is None else store.store_id,
    }
    if isinstance(source, ArraySource):
        most = max(2, min(_DIGEST_ROWS, _DIGEST_BYTES // source.row_bytes))
        rows = np.unique(np.linspace(0, source.n_rows - 1, most).astype(np.intp))
        digest = hashlib.sha256()
        for array in (source.X, source.y, source.weight):
            digest.update(b"-" if array is None else np.ascontiguousarray(array[rows]).tobytes())
        found["contents"] = digest.hexdigest()[:16]
    return found


def _difference(name: str, then: Any, now: Any) -> tuple[str, Any, Any]:
    """Return the name of the first value that differs, and both values."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in (*now, *then):
            if then.get(key) != now.get(key):
                return f"{key} of the {name}", then.get(key), now.get(key)
    return f"the {name}", then, now
