"""How a gradient becomes a step: optimizers, learning-rate schedules, and averaging.

To add an optimizer: a file of its own here, and its line in `OPTIMIZERS`.
"""

from ooc_train.core.named_classes import Registry
from ooc_train.optimizers.adagrad import Adagrad
from ooc_train.optimizers.adam import Adam
from ooc_train.optimizers.adamw import AdamW
from ooc_train.optimizers.momentum import Momentum
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.optimizers.rmsprop import Rmsprop
from ooc_train.optimizers.sgd import Sgd

__all__ = ["OPTIMIZERS"]

OPTIMIZERS: Registry[Optimizer] = Registry(
    "optimizer", "OPTIMIZERS", (Sgd, Momentum, Adagrad, Rmsprop, Adam, AdamW)
)
"""Optimizers by name. ``@OPTIMIZERS.add`` registers one of your own."""
