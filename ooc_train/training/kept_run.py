"""A run that was ended or killed, as its checkpoints describe it to the command that goes on."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ooc_train.errors import InvalidRun
from ooc_train.models.model import Model
from ooc_train.models.model_registry import MODELS
from ooc_train.runs.run_loading import SETTINGS_FILE
from ooc_train.solvers.training_settings import Training
from ooc_train.training.checkpoint_files import damaged, last_values


@dataclass(frozen=True)
class KeptRun:
    """A run to go on with.

    Attributes
    ----------
    model : Model
        The model.
    training : Training
        How it is learned, with the seed that was drawn.
    store, validation : str or None
        Paths of the stores of the training rows, and of the validation rows if there are any.
    opened : mapping
        How the stores were opened, as `Store.opened` has it.
    every : str or float
        Seconds between two checkpoints.
    """

    model: Model
    training: Training
    store: str
    validation: str | None
    opened: Mapping[str, Any]
    every: str | float


def kept_run(path: str) -> KeptRun:
    """Return the run whose checkpoints lie in a folder.

    Raises
    ------
    InvalidRun
        If there is none, it is damaged, `follow` wrote it, or it can go on in Python alone: its
        rows are no store that can be opened by names, or its model is one of the user's.
    """
    found = last_values(path)
    if found is None:
        run = path.removesuffix(".checkpoint")
        is_saved = os.path.isfile(os.path.join(run, SETTINGS_FILE))
        anew = f", and --start {run} begins a new run from its parameters" if is_saved else ""
        raise InvalidRun(
            f"{path} holds no checkpoint, so there is no run to go on with; "
            f"--checkpoint-every 10min keeps one of a new run{anew}"
        )
    place, values = found
    run, about = values["run"], values["about"]
    if "following" in about:
        raise InvalidRun(
            f"{path} is the checkpoint of a model that follows a store; the same call of "
            "`ooc-train follow` goes on with it"
        )
    try:
        settings, opened = dict(about["model"]), dict(about["data"]["arrays"])
        name = settings.pop("name")
        if run["store"] is None or not opened or name not in MODELS:
            raise InvalidRun(
                f"the run of {path} is one of Python: its model or its rows have no name on the "
                "command line; go on with train(..., checkpoint=Checkpoint(..., resume=True))"
            )
        model = MODELS[name](**settings)
        training = Training(**run["training"] | {"random_state": run["seed"]})
    except (TypeError, KeyError, ValueError) as error:
        raise damaged(place, f"describes no run ({error})") from None
    return KeptRun(model, training, run["store"], run["validation"], opened, run["every"])
