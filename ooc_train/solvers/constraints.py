"""Constraints that only settings of `Training` have: batch sizes, seconds, and fractions."""

from dataclasses import dataclass
from typing import Any

from ooc_train.core.schema import shown
from ooc_train.core.settings import Number, Rows
from ooc_train.core.units import parse_duration
from ooc_train.solvers.batch_schedules import BATCH_SCHEDULES, BatchSchedule, batch_schedule


@dataclass(frozen=True)
class Seconds(Number):
    """A constraint that accepts a number of seconds; text may have a unit: 90s."""

    def _parsed(self, name: str, text: str) -> Any:
        try:
            return parse_duration(text)
        except ValueError as error:
            raise ValueError(f"{name}={shown(text)}: {error}") from None

    @property
    def metavar(self) -> str:
        """The placeholder for the value in an option's help."""
        return "DURATION"


@dataclass(frozen=True)
class Fraction(Number):
    """A constraint that accepts a number above 0 and below 1."""

    above: float | None = 0.0

    @property
    def _others(self) -> str:
        return f"{super()._others} and below 1"

    def _checked(self, name: str, value: Any) -> Any:
        value = super()._checked(name, value)
        if value >= 1.0:
            raise self._refused(name, value)
        return value


@dataclass(frozen=True)
class BatchSize(Rows):
    """A constraint that accepts a batch size: rows per update, or a schedule."""

    @property
    def type_text(self) -> str:
        """The accepted values, written as a type in docs."""
        return '"full", "chunk", "auto", int, str or BatchSchedule'

    def _checked(self, name: str, value: Any) -> Any:
        if isinstance(value, BatchSchedule):
            return value
        if isinstance(value, str) and value.partition(":")[0] in BATCH_SCHEDULES:
            return batch_schedule(value)
        return super()._checked(name, value)

    def _parsed(self, name: str, text: str) -> Any:
        if text.partition(":")[0] in BATCH_SCHEDULES:
            return batch_schedule(text)
        return super()._parsed(name, text)

    def to_json(self, value: Any) -> Any:
        """Convert a value to one that JSON can hold: a schedule becomes text."""
        return str(value) if isinstance(value, BatchSchedule) else value

    @property
    def metavar(self) -> str:
        """The placeholder for the value in an option's help."""
        return f"{super().metavar}|SCHEDULE"
