"""Constraints that only settings of `Training` have: seconds, and fractions."""

from dataclasses import dataclass
from typing import Any

from ooc_train.core.schema import shown
from ooc_train.core.settings import Number
from ooc_train.core.units import parse_duration


@dataclass(frozen=True)
class Seconds(Number):
    """A number of seconds, which text may give a unit: 90s."""

    def _parsed(self, name: str, text: str) -> Any:
        try:
            return parse_duration(text)
        except ValueError as error:
            raise ValueError(f"{name}={shown(text)}: {error}") from None

    @property
    def metavar(self) -> str:
        """The accepted values, in the help of an option."""
        return "DURATION"


@dataclass(frozen=True)
class Fraction(Number):
    """A number above 0 and below 1."""

    above: float | None = 0.0

    @property
    def _others(self) -> str:
        return f"{super()._others} and below 1"

    def _checked(self, name: str, value: Any) -> Any:
        value = super()._checked(name, value)
        if value >= 1.0:
            raise self._refused(name, value)
        return value
