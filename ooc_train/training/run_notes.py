"""Notes on a run before a row of X is read: its data, its replicas, the size of its columns."""

import numpy as np

from ooc_train.core.text import counted
from ooc_train.models.linear import LinearProblem
from ooc_train.stream.input_data import Inputs
from ooc_train.training.task import Task

_LARGE, _RATIO = 1e2, 1e3
"""Root mean square of a column beyond which a network hardly learns, and the largest ratio of such
a column to the largest value of another column."""

_MOST_NAMED = 3


def notes_before(task: Task) -> tuple[str, ...]:
    """Return the notes on a run that are known before it begins, each once."""
    notes = list(task.inputs.notes)
    if task.validation is not None and task.validation.store is not None:
        notes += task.validation.store.notes
    if task.settings.replicas < task.training.replicas:
        replicas = f"{task.settings.replicas} of {counted(task.training.replicas, 'replica')}"
        notes.append(f"learned in {replicas}: the order of rows has no more groups of chunks")
    notes += _sizes_note(task)
    return tuple(dict.fromkeys(notes))


def takes_raw_columns(task: Task) -> bool:
    """Return whether a model takes columns as they are; linear models scale columns themselves."""
    settings = task.model
    scaled = getattr(settings, "standardize", False) or getattr(settings, "scale", 1.0) != 1.0
    return not isinstance(task.problem, LinearProblem) and not scaled


def way_to_scale(task: Task) -> str:
    """Return how the columns of a network are scaled: the setting, and the option."""
    if _has_pixels(task.inputs):
        return "scale=1/255 (--scale 1/255)"
    if hasattr(task.model, "standardize"):
        return "standardize=True (--standardize)"
    return "a first layer such as torch.nn.BatchNorm1d"


def _sizes_note(task: Task) -> list[str]:
    """Return a note if the known sizes of columns hardly suit a model that takes them as is."""
    store, statistics = task.inputs.store, task.inputs.statistics
    if statistics is None and store is not None:
        statistics = store.statistics  # of all rows, where some are kept out of training
    if statistics is None or not takes_raw_columns(task):
        return []
    with np.errstate(over="ignore"):  # of columns near the largest float
        sizes = np.hypot(statistics.mean, statistics.scale)
    # The largest value, since the indicator of a rare category has a small root mean square.
    most = np.maximum(np.abs(statistics.minimum), np.abs(statistics.maximum))
    largest, smallest = sizes.max(initial=0.0), most[most > 0].min(initial=np.inf)
    if largest <= min(_LARGE, _RATIO * smallest):
        return []
    if _has_pixels(task.inputs):
        span = f"{statistics.minimum.min():g} to {statistics.maximum.max():g}"
        return [f"the network takes pixels as they are, {span}; {way_to_scale(task)} scales them"]
    order = np.argsort(-sizes, kind="stable")
    large = [i for i in order if sizes[i] > min(_LARGE, _RATIO * smallest)]
    named = [f"{_name(task.inputs, i)} {sizes[i]:.3g}" for i in large[:_MOST_NAMED]]
    more = len(large) - len(named)
    named += [f"{counted(more, 'more column')}"] if more else []
    note = "the network takes columns as they are, and some are large (root mean square: "
    return [f"{note}{', '.join(named)}); {way_to_scale(task)} scales them"]


def _has_pixels(inputs: Inputs) -> bool:
    """Return whether rows are images of 8 bits."""
    store = inputs.store
    return store is not None and store.row_shape is not None and np.dtype(store.X.dtype) == np.uint8


def _name(inputs: Inputs, column: int) -> str:
    names = inputs.feature_names
    return f"column {column}" if names is None else repr(names[column])
