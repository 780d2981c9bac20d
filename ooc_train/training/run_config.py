"""The settings file of a run, `config.toml`, which `ooc-train train --config` repeats it by.

Keys are the long names of options. Every setting is written, so that later defaults change nothing.
Resources, which change no bit, are left out, and so are passwords and tokens of URLs.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

from ooc_train.core.named_classes import as_text
from ooc_train.core.places import may_tell_secret
from ooc_train.core.settings import CheckedSettings, Flag, defaults_of, settings_of
from ooc_train.models.model_registry import MODELS
from ooc_train.runs.fitted import CONFIG_FILE
from ooc_train.solvers.early_stopping import EarlyStopping
from ooc_train.store.dataset import Store
from ooc_train.training.run_start import RunStart
from ooc_train.training.task import Task

_ARRAYS = {"X": "x", "y": "y", "sample_weight": "weight"}
"""Options that name the arrays of a store, by their roles."""


class _InexpressibleError(Exception):
    """Raised if the command line has no option for a setting or for data."""


def config_of(task: Task, start: RunStart | None = None) -> str | None:
    """Return the settings file of a run as TOML, or None.

    Parameters
    ----------
    task : Task
        What is learned from what.
    start : RunStart or None
        Whose parameters the run began from; None if it began from its own.

    Returns
    -------
    str or None
        None if no call of the command line would be the same run: for data that are no store,
        models, settings and starts of Python, and arrays or validation rows whose URL holds a
        password. None of private updates too, whose noise follows from the seed.
    """
    model, training, validation = task.model, task.training, task.validation
    held_out = task.inputs.share_seed is not None
    if MODELS.get(model.name) is not type(model) or held_out != bool(training.validation_fraction):
        return None
    if training.is_private:
        return None
    if start is not None and not (start.path and start.path.isprintable()):
        return None
    try:
        found = dict(_data(task.inputs.store))
        if validation is not None and not held_out:
            found["validation"] = _validation(validation.store, task.inputs.store)
        if start is not None:
            found |= {"start": start.path, "start-digest": start.digest}
        found |= {"model": model.name, **_options(model), **_options(training)}
        if isinstance(training.early_stopping, EarlyStopping):
            found |= _options(training.early_stopping)
    except _InexpressibleError:
        return None
    seed = found.pop("random-state", None)
    seed = task.settings.seed if training.draws(model) else seed
    found |= {} if seed is None else {"random-state": seed}
    head = [f"# Repeats this run: ooc-train train --config {CONFIG_FILE} --out NEW.run"]
    if may_tell_secret(found["store"]):
        del found["store"]
        head.append("# The URL of STORE holds a password or a token; give it on the command line.")
    return "\n".join([*head, *(f"{key} = {_toml(value)}" for key, value in found.items())]) + "\n"


def _data(store: Store | None) -> Iterator[tuple[str, Any]]:
    """Yield the options of a store and of how it was opened."""
    if store is None or not store.opened or not store.path.isprintable():
        raise _InexpressibleError
    yield "store", store.path
    for role, key in _ARRAYS.items():
        place = store.opened[role]
        if place is None:
            if role != "sample_weight":
                raise _InexpressibleError
            yield "no-weights", True
        elif place != role:
            if may_tell_secret(place) or not place.isprintable():
                raise _InexpressibleError
            yield key, place
    if store.opened["fill_missing"]:
        yield "fill-missing", True


def _validation(store: Store | None, training: Store | None) -> str:
    """Return the path of the validation rows, whose arrays have the names of the training rows."""
    if store is None or training is None or may_tell_secret(store.path):
        raise _InexpressibleError
    named, due = dict(_data(store)), dict(_data(training))
    inside = {
        key: os.path.join(store.whole_path, due.get(key, role)) for role, key in _ARRAYS.items()
    }
    for key in (named.keys() | due.keys()) - {"store"}:
        if named.get(key) not in (due.get(key), inside.get(key)):
            raise _InexpressibleError
    return store.path


def _options(settings: CheckedSettings) -> dict[str, Any]:
    """Return settings as values of options, by their names; those that are None are left out."""
    found: dict[str, Any] = {}
    defaults = defaults_of(type(settings))
    for name, (constraint, _) in settings_of(type(settings)).items():
        value, key = getattr(settings, name), name.replace("_", "-")
        if value is None or isinstance(value, EarlyStopping):
            continue
        if isinstance(constraint, Flag):
            if value == defaults[name]:
                continue
            off = constraint.off if defaults[name] else ""
            if defaults[name] and not off:
                raise _InexpressibleError
            found[off or key] = True
            continue
        plain = constraint.to_json(value)
        found[key] = plain if isinstance(plain, int | float) else as_text(plain)
        try:
            again = constraint.to_json(constraint.parse(name, str(found[key])))
        except ValueError:
            raise _InexpressibleError from None
        if again != plain:
            raise _InexpressibleError
    return found


def _toml(value: Any) -> str:
    """Return text, a number or a truth value as TOML."""
    # JSON's forms of text and truth are TOML's; `repr` of numbers is too.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)
