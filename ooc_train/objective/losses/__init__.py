"""The losses that have a name. To add one: a file of its own here, and its line in `LOSSES`."""

from ooc_train.core.named_classes import Registry
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.epsilon_insensitive import (
    EpsilonInsensitive,
    SmoothEpsilonInsensitive,
)
from ooc_train.objective.losses.gamma import Gamma
from ooc_train.objective.losses.hinge import Hinge, SmoothHinge
from ooc_train.objective.losses.huber import Huber, SmoothHuber
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.modified_huber import ModifiedHuber
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.losses.perceptron import Perceptron
from ooc_train.objective.losses.poisson import Poisson
from ooc_train.objective.losses.quantile import Quantile, SmoothQuantile
from ooc_train.objective.losses.squared import Squared
from ooc_train.objective.losses.squared_epsilon_insensitive import SquaredEpsilonInsensitive
from ooc_train.objective.losses.squared_hinge import SquaredHinge
from ooc_train.objective.losses.squared_margin import SquaredMargin
from ooc_train.objective.losses.tweedie import Tweedie

__all__ = ["LOSSES"]

LOSSES: Registry[Loss] = Registry(
    "loss",
    "LOSSES",
    (
        Squared,
        Huber,
        Quantile,
        EpsilonInsensitive,
        SquaredEpsilonInsensitive,
        Logistic,
        Multinomial,
        Hinge,
        SquaredHinge,
        SquaredMargin,
        ModifiedHuber,
        Perceptron,
        Poisson,
        Gamma,
        Tweedie,
        SmoothHinge,
        SmoothHuber,
        SmoothQuantile,
        SmoothEpsilonInsensitive,
    ),
)
"""Losses by name. ``@LOSSES.add`` registers one of your own, so that runs with it can be saved."""
