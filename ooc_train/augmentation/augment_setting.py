"""The setting `augment` of models: one augmentation, or a sequence of them."""

from dataclasses import dataclass
from typing import Annotated, Any

from ooc_train.augmentation import AUGMENTATIONS
from ooc_train.augmentation.augmentation import Augmentation
from ooc_train.core.settings import Part


@dataclass(frozen=True)
class Parts(Part):
    """A constraint that accepts one value as `Part` does, or a sequence, and makes a tuple of them.

    Text has spaces between the values: "shift:pixels=2 flip".
    """

    @property
    def type_text(self) -> str:
        """The accepted values, written as a type in docs."""
        words = super().type_text.removesuffix(self.of.__name__)
        return f"{words}{self.of.__name__} or sequence of {self.of.__name__}"

    @property
    def _others(self) -> str:
        return f"{super()._others} or a sequence of them"

    def _checked(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            return self._parsed(name, value)
        values = value if isinstance(value, list | tuple) else [value]
        return tuple(
            self._parsed(name, each)[0]
            if isinstance(each, str)
            else super(Parts, self)._checked(name, each)
            for each in values
        )

    def _parsed(self, name: str, text: str) -> Any:
        if not text.strip():
            raise self._refused(name, text)
        return tuple(super(Parts, self)._parsed(name, each) for each in text.split())

    def to_json(self, value: Any) -> Any:
        """Convert a value to one that JSON can hold: names and hyperparameters."""
        return value if value is None else [super(Parts, self).to_json(each) for each in value]

    @property
    def metavar(self) -> str:
        """The placeholder for the value in an option's help: accepted words and kinds of values."""
        return f"{super().metavar} ..."


Augment = Annotated[
    Any,
    Parts((None,), Augmentation, AUGMENTATIONS),
    "Augmentations: how the rows of batches are changed at random, anew in each epoch. They follow "
    "from `random_state`, the epoch and the row's number in the data. Predictions, validation and "
    "reported losses are of rows as they are.",
]
"""The setting `augment` of networks and modules."""
