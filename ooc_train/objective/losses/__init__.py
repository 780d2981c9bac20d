"""The losses that have a name. To add one: a file of its own here, and its line in `LOSSES`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.hinge import Hinge
from ooc_train.objective.losses.huber import Huber
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.losses.squared import Squared
from ooc_train.objective.losses.squared_hinge import SquaredHinge

__all__ = ["LOSSES", "loss_from_json", "loss_to_json"]

LOSSES: MappingProxyType[str, type[Loss]] = MappingProxyType(
    {loss.name: loss for loss in (Squared, Huber, Logistic, Multinomial, Hinge, SquaredHinge)}
)
"""Losses by name."""


def loss_to_json(loss: Loss) -> dict[str, Any]:
    """Return name and hyperparameters of a loss as values that JSON can hold."""
    return {"name": loss.name, **loss.hyperparameters}


def loss_from_json(found: Mapping[str, Any]) -> Loss:
    """Return the loss that `loss_to_json` described.

    Raises
    ------
    ValueError
        where no loss has that name, or the loss has other hyperparameters.
    """
    settings = dict(found)
    name = settings.pop("name", None)
    if name not in LOSSES:
        raise ValueError(f"loss {name!r} is not one of {', '.join(LOSSES)}")
    try:
        return LOSSES[name](**settings)
    except TypeError as error:
        raise ValueError(f"loss {name!r} does not take {', '.join(settings)}") from error
