"""Settings with their constraint and description: declared once, for checks, options and docs.

A setting is a field of a dataclass, annotated with its type, a constraint and its description:

>>> from typing import Annotated
>>> @dataclass(frozen=True, kw_only=True)
... class Sampling(CheckedSettings):
...     '''How rows are sampled.'''
...
...     share: Annotated[float, Number(above=0.0, most=1.0), "Share of the rows."] = 1.0
>>> Sampling(share=0)
Traceback (most recent call last):
    ...
ValueError: share=0 is not a number above 0 and at most 1
"""

import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import inf, isinf, nan
from numbers import Integral, Real
from sys import float_info
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, get_type_hints

from ooc_train.core.named_classes import Registry, plain
from ooc_train.core.schema import INT64, shown
from ooc_train.core.text import meant
from ooc_train.core.units import parse_rows

LARGEST_SEED = 2**128 - 1

_LARGEST = float_info.max
_INDENT = "    "
_INFINITE = "inf"
"""An infinite number in JSON, which has none of its own."""


@dataclass(frozen=True)
class Constraint:
    """A constraint on a setting: the values that are accepted.

    Attributes
    ----------
    words : tuple of str or None
        Words that are accepted beside other values, such as "auto". None is among them if accepted.
    """

    words: tuple[str | None, ...] = ()

    kind: ClassVar[str] = "str"
    """The type of the other values, in docs."""

    @property
    def accepted(self) -> str:
        """A description of the accepted values, for error messages."""
        return " or ".join([*map(repr, self.words), *filter(None, [self._others])])

    @property
    def _others(self) -> str:
        """A description of the accepted values other than `words`."""
        return ""

    def check(self, name: str, value: Any) -> Any:
        """Return the value in its plain Python form, or raise.

        Raises
        ------
        ValueError
            If the value is not accepted; the message has name, value and what is accepted.
        """
        value = plain(value)
        if (value is None or isinstance(value, str)) and value in self.words:
            return value
        return self._checked(name, value)

    def _checked(self, name: str, value: Any) -> Any:
        raise self._refused(name, value)

    def _refused(self, name: str, value: Any) -> ValueError:
        return ValueError(f"{name}={shown(value)} is not {self.accepted}")

    def parse(self, name: str, text: str) -> Any:
        """Convert text, such as a command-line argument, to a valid value."""
        return self.check(name, text if text in self.words else self._parsed(name, text))

    def _parsed(self, name: str, text: str) -> Any:
        raise self._refused(name, text)

    def to_json(self, value: Any) -> Any:
        """Convert a value to one that JSON can hold and `check` accepts."""
        return value

    @property
    def type_text(self) -> str:
        """The accepted values, written as a type in docs."""
        words = ["None" if word is None else f'"{word}"' for word in self.words]
        return " or ".join(filter(None, [", ".join(words), self.kind]))

    @property
    def metavar(self) -> str:
        """The placeholder for the value in an option's help: accepted words and kinds of values."""
        return "|".join(str(word) for word in self.words if word is not None)


@dataclass(frozen=True)
class Flag(Constraint):
    """A constraint that accepts True and False.

    Attributes
    ----------
    off : str
        Name of the option that turns off a flag that is on by default, such as "no-intercept".
    """

    off: str = ""

    kind: ClassVar[str] = "bool"

    @property
    def _others(self) -> str:
        return "True or False"

    def _checked(self, name: str, value: Any) -> Any:
        if value is not True and value is not False:
            raise self._refused(name, value)
        return value


@dataclass(frozen=True)
class Count(Constraint):
    """A constraint that accepts whole numbers within bounds.

    Attributes
    ----------
    least, most : int
        Bounds of the number, which it may reach.
    """

    least: int = 1
    most: int = INT64

    kind: ClassVar[str] = "int"

    @property
    def _others(self) -> str:
        return f"a whole number of at least {self.least}"

    def _checked(self, name: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, Integral) or value < self.least:
            raise self._refused(name, value)
        if int(value) > self.most:
            raise ValueError(f"{name}={shown(value)} is too large: it is at most {self.most:,}")
        return value

    def _parsed(self, name: str, text: str) -> Any:
        try:
            return int(text)
        except ValueError:
            raise self._refused(name, text) from None

    @property
    def metavar(self) -> str:
        """The placeholder for the value in an option's help: accepted words and kinds of values."""
        return "|".join(filter(None, [super().metavar, "N"]))


@dataclass(frozen=True)
class Rows(Count):
    """A constraint that accepts numbers of rows, which text may abbreviate: 20M."""

    def _parsed(self, name: str, text: str) -> Any:
        try:
            return parse_rows(text)
        except ValueError:
            raise ValueError(
                f"{name}={shown(text)} is not {' or '.join(map(repr, self.words))} or a whole "
                "number of rows such as 256"
            ) from None

    @property
    def metavar(self) -> str:
        """The placeholder for the value in an option's help: accepted words and kinds of values."""
        return "|".join([*filter(None, self.words), "ROWS"])


@dataclass(frozen=True)
class Number(Constraint):
    """A constraint that accepts numbers within bounds.

    Attributes
    ----------
    least, above : float or None
        Lower bound of the number: `least` may be reached, `above` not. One of them is given.
    most : float
        Upper bound of the number; infinity if the setting may be infinite.
    """

    least: float | None = None
    above: float | None = None
    most: float = _LARGEST

    kind: ClassVar[str] = "float"

    @property
    def _others(self) -> str:
        bound = f"above {self.above:g}" if self.least is None else f"of at least {self.least:g}"
        return f"a number {bound}" + (f" and at most {self.most:g}" if self.most < _LARGEST else "")

    def _checked(self, name: str, value: Any) -> Any:
        if self.most == inf and isinstance(value, str) and value == _INFINITE:
            return inf
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not number or not _as_float(value) <= self.most:
            raise self._refused(name, value)
        if self.least is not None and value < self.least:
            raise self._refused(name, value)
        if self.above is not None and value <= self.above:
            raise self._refused(name, value)
        return value

    def _parsed(self, name: str, text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            raise self._refused(name, text) from None

    def to_json(self, value: Any) -> Any:
        """Convert a value to one that JSON can hold: infinity becomes text."""
        return _INFINITE if isinstance(value, Real) and isinf(value) else value

    @property
    def metavar(self) -> str:
        """The placeholder for the value in an option's help: accepted words and kinds of values."""
        return "|".join(filter(None, [super().metavar, "NUMBER"]))


@dataclass(frozen=True)
class Part(Constraint):
    """A constraint that accepts values of registered classes, or of classes that the user wrote.

    Attributes
    ----------
    of : type
        The base class of accepted values.
    registry : Registry or None
        The classes that text and JSON can name.
    """

    of: type = object
    registry: Registry[Any] | None = None

    @property
    def type_text(self) -> str:
        """The accepted values, written as a type in docs."""
        words = super().type_text.removesuffix(f" or {self.kind}") if self.words else ""
        return " or ".join(filter(None, [words, self.of.__name__]))

    @property
    def _others(self) -> str:
        article = "an" if self.of.__name__[0] in "AEIOU" else "a"
        return f"{article} {self.of.__name__}"

    def _checked(self, name: str, value: Any) -> Any:
        if isinstance(value, Mapping) and self.registry is not None:
            return self.registry.from_json(value)
        if isinstance(value, str):
            return self._parsed(name, value)
        if not isinstance(value, self.of):
            raise self._refused(name, value)
        return value

    def _parsed(self, name: str, text: str) -> Any:
        if self.registry is None:
            raise self._refused(name, text)
        if (first := text.partition(":")[0]) not in self.registry:
            hint = meant(first, [*filter(None, self.words), *self.registry])
            raise ValueError("; ".join(filter(None, [str(self._refused(name, text)), hint])))
        return self.registry.parse(text)

    def to_json(self, value: Any) -> Any:
        """Convert a value to one that JSON can hold: name and hyperparameters."""
        plain_value = isinstance(value, str) or value is None or self.registry is None
        return value if plain_value else self.registry.to_json(value)  # type: ignore[union-attr]

    @property
    def metavar(self) -> str:
        """The placeholder for the value in an option's help: accepted words and kinds of values."""
        names = () if self.registry is None else tuple(self.registry)
        return "|".join(dict.fromkeys([*filter(None, self.words), *names]))


class Setting(NamedTuple):
    """The declaration of a setting.

    Attributes
    ----------
    constraint : Constraint
        The values that the setting accepts.
    description : str
        What the setting is, in sentences. The command line's help shows the first alone, and the
        items of a list, each of which begins with `ITEM`.
    """

    constraint: Constraint
    description: str


ITEM = "\n- "
"""What begins an item of a list in a description."""

EXAMPLES = "\n\nExamples\n--------\n"
"""What begins the examples of a docstring, its last section."""


class CheckedSettings:
    """The base of frozen dataclasses whose annotated fields are checked on creation."""

    _declared: ClassVar[Mapping[str, Setting]] = MappingProxyType({})

    def __init_subclass__(cls) -> None:
        found = {}
        for name, hint in get_type_hints(cls, include_extras=True).items():
            metadata = getattr(hint, "__metadata__", ())
            constraint = next((each for each in metadata if isinstance(each, Constraint)), None)
            if constraint is not None:
                description = next(each for each in metadata if isinstance(each, str))
                found[name] = Setting(constraint, description)
        cls._declared = MappingProxyType(found)
        if found:
            doc, *examples = inspect.cleandoc(cls.__doc__ or "").partition(EXAMPLES)
            cls.__doc__ = f"{doc}\n\nAttributes\n----------\n{described(found)}" + "".join(examples)

    def __post_init__(self) -> None:
        """Replace each setting by its checked value.

        Raises
        ------
        ValueError
            If a setting is not valid; the message names it.
        """
        for name, setting in self._declared.items():
            object.__setattr__(self, name, setting.constraint.check(name, getattr(self, name)))

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values, from which an equal value can be made.

        Raises
        ------
        ValueError
            If a setting is of a class that is not registered.
        """
        return {
            name: setting.constraint.to_json(getattr(self, name))
            for name, setting in self._declared.items()
        }

    def texts(self) -> dict[str, str]:
        """Return the settings as text, of at most 80 characters each."""
        return {name: str(getattr(self, name))[:80] for name in self._declared}


def settings_of(cls: type[CheckedSettings]) -> Mapping[str, Setting]:
    """Return the declared settings of a class by name, those of its bases first."""
    return cls._declared


def defaults_of(cls: type) -> dict[str, Any]:
    """Return the defaults of a dataclass's fields; `dataclasses.MISSING` where there is none."""
    return {field.name: field.default for field in fields(cls)}


def described(settings: Mapping[str, Setting]) -> str:
    """Return the settings as entries of a numpydoc section: name, type and description."""
    return "\n".join(
        f"{name} : {setting.constraint.type_text}\n{_filled(setting.description)}"
        for name, setting in settings.items()
    )


def _filled(description: str) -> str:
    """Return a description in lines, and its list as numpydoc parses one."""
    text, *items = description.split(ITEM)
    filled = textwrap.fill(text, 96, initial_indent=_INDENT, subsequent_indent=_INDENT)
    for at, item in enumerate(items):
        first = f"{_INDENT}- "
        filled += "\n" * (1 if at else 2)
        filled += textwrap.fill(item, 96, initial_indent=first, subsequent_indent=_INDENT + "  ")
    return filled


def _as_float(value: Real) -> float:
    """Return a number as float64; NaN, which every bound refuses, if float64 cannot hold it."""
    try:
        return float(value)
    except OverflowError:
        return nan
