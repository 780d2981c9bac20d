"""Augmentation: training rows changed at random, anew in each epoch.

To add an augmentation: its class here, and its line in `AUGMENTATIONS`.
"""

from ooc_train.augmentation.augmentation import Augmentation
from ooc_train.augmentation.image_augmentations import Crop, Cutout, Flip, Shift
from ooc_train.augmentation.row_augmentations import Mixup, Noise
from ooc_train.core.named_classes import Registry

__all__ = ["AUGMENTATIONS"]

AUGMENTATIONS: Registry[Augmentation] = Registry(
    "augmentation", "AUGMENTATIONS", (Shift, Crop, Flip, Cutout, Noise, Mixup)
)
"""Augmentations by name. ``@AUGMENTATIONS.add`` registers one of your own."""
