"""The settings `learning_rate` and `schedule`: values, or text such as "cosine:0.1,warmup=500"."""

from dataclasses import dataclass
from typing import Any

from ooc_train.core.schema import shown
from ooc_train.core.settings import Number, Part
from ooc_train.optimizers.schedule import Schedule
from ooc_train.optimizers.schedules import SCHEDULES

_ABSENT = {
    "optimal": "it follows from alpha; the learning rate 'auto' follows from the rows themselves, "
    "and 'invscaling:0.1,power_t=1' falls as fast",
    "adaptive": "use 'plateau:0.1', which lowers the rate on a plateau of the loss",
}
"""Words of scikit-learn that are no schedules here, and what to use."""


def _require_present(name: str, text: str) -> None:
    word = text.partition(":")[0]
    if word in _ABSENT:
        raise ValueError(
            f"{name}={shown(text)}: scikit-learn's {word!r} is not there: {_ABSENT[word]}"
        )


@dataclass(frozen=True)
class ScheduleSetting(Part):
    """A constraint that accepts a schedule, or its name with settings."""

    @property
    def type_text(self) -> str:
        """The accepted values, written as a type in docs."""
        return '"auto", str or Schedule'

    @property
    def _others(self) -> str:
        return "a Schedule or its name, such as 'cosine:last=0.1'"

    def _checked(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            _require_present(name, value)
        return super()._checked(name, value)

    def parse(self, name: str, text: str) -> Any:
        """Convert text, such as a command-line argument, to a valid value."""
        return self.check(name, text)


@dataclass(frozen=True)
class RateSetting(Number):
    """A constraint that accepts a learning rate, or a schedule's name with rate and settings."""

    @property
    def type_text(self) -> str:
        """The accepted values, written as a type in docs."""
        return '"auto", float or str'

    @property
    def _others(self) -> str:
        return f"{super()._others} or a schedule with its rate, such as 'cosine:0.1,warmup=500'"

    def _checked(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            rate, _ = self.parts(name, value)
            if rate != "auto":
                super()._checked(name, rate)
            return value
        return super()._checked(name, value)

    def _parsed(self, name: str, text: str) -> Any:  # noqa: ARG002 (the base has it)
        try:
            return float(text)
        except ValueError:
            return text  # `check` reads it

    def parts(self, name: str, text: str) -> tuple[float | str, Schedule]:
        """Split text into the learning rate ("auto" if the text has none) and the schedule.

        Raises
        ------
        ValueError
            If the text names no schedule, or its settings are not valid.
        """
        _require_present(name, text)
        schedule, _, settings = text.partition(":")
        if schedule not in SCHEDULES:
            raise self._refused(name, text)
        first, _, others = settings.partition(",")
        if not first or "=" in first:
            return "auto", SCHEDULES.parse(text)
        try:
            rate = float(first)
        except ValueError:
            raise self._refused(name, text) from None
        return rate, SCHEDULES.parse(f"{schedule}:{others}")

    @property
    def metavar(self) -> str:
        """The placeholder for the value in an option's help: accepted words and kinds of values."""
        return f"{super().metavar}|SCHEDULE:NUMBER"
