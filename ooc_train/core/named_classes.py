"""Registries of classes by name, whose values convert to and from text and JSON."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, Generic, TypeVar

from ooc_train.core.schema import shown
from ooc_train.core.text import meant

Value = TypeVar("Value")


def plain(value: Any) -> Any:
    """Return a scalar of NumPy as a Python value, and other values unchanged."""
    return value.item() if getattr(value, "size", 0) == 1 and hasattr(value, "item") else value


def as_text(value: Any) -> str:
    """Return a JSON value of a setting as the text of its option: "huber:epsilon=2.0"."""
    if isinstance(value, Mapping):
        name, parts = value.get("name"), {key: each for key, each in value.items() if key != "name"}
        found = ",".join(f"{key}={_part(each)}" for key, each in parts.items())
        return found if name is None else f"{name}:{found}" if found else str(name)
    if isinstance(value, list):
        separator = " " if value and isinstance(value[0], Mapping) else ","
        return separator.join(map(as_text, value))
    return str(value)


def _part(value: Any) -> str:
    """Return a hyperparameter as text, where truth is a number."""
    if isinstance(value, list):
        return "/".join(map(_part, value))
    return str(int(value)) if isinstance(value, bool) else str(value)


class Registry(Mapping[str, type[Value]], Generic[Value]):
    """A mapping from names to frozen dataclasses of one kind, such as losses.

    It makes values from text and JSON. A class's fields are the hyperparameters.

    Parameters
    ----------
    kind : str
        What the classes are, for messages, such as "loss".
    symbol : str
        The name of the registry's variable, for messages, such as "LOSSES".
    classes : iterable of type
        The classes that are registered at the start.

    Examples
    --------
    >>> from ooc_train.optimizers import OPTIMIZERS
    >>> OPTIMIZERS.parse("momentum:momentum=0.8")
    Momentum(clip_norm=0.0, momentum=0.8, nesterov=False)
    >>> OPTIMIZERS.to_json(OPTIMIZERS.parse("momentum:nesterov=1"))
    {'name': 'momentum', 'clip_norm': 0.0, 'momentum': 0.9, 'nesterov': True}
    """

    def __init__(self, kind: str, symbol: str, classes: Iterable[type[Value]]) -> None:
        self.kind, self.symbol = kind, symbol
        self._classes: dict[str, type[Value]] = {}
        for each in classes:
            self.add(each)

    def __getitem__(self, name: str) -> type[Value]:
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def add(self, cls: type[Value]) -> type[Value]:
        """Register a class, and return it: a decorator.

        A class of the same module and name replaces an earlier one, as in a notebook.

        Raises
        ------
        ValueError
            If another class has the name.
        """
        name = getattr(cls, "name", None)
        if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
            raise ValueError(
                f"{cls.__name__} has no name; give it `name: ClassVar[str]`, of letters and digits"
            )
        known = self._classes.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (
            cls.__module__,
            cls.__qualname__,
        ):
            raise ValueError(
                f"the {self.kind} {name!r} is {known.__qualname__} already; give "
                f"{cls.__name__} another name"
            )
        self._classes[name] = cls
        return cls

    def parse(self, text: str) -> Value:
        """Make a value from a name, or from a name and hyperparameters: "huber:epsilon=2".

        A hyperparameter of several numbers has slashes: "steps:at=0.5/0.75". One whose default is
        text is text.

        Raises
        ------
        ValueError
            If the name is not known, or a hyperparameter is not.
        """
        name, _, rest = text.partition(":")
        found: dict[str, Any] = {}
        hyperparameters = fields(self[name]) if name in self else ()  # type: ignore[arg-type]
        texts = {each.name for each in hyperparameters if isinstance(each.default, str)}
        for part in filter(None, rest.split(",")):
            key, _, value = part.partition("=")
            if key.strip() in texts:
                found[key.strip()] = value.strip()
                continue
            try:
                numbers = [float(each) for each in value.split("/")]
            except ValueError:
                raise ValueError(
                    f"{shown(part)} of the {self.kind} {shown(text)} is no hyperparameter, such "
                    "as epsilon=2"
                ) from None
            found[key.strip()] = numbers if "/" in value else numbers[0]
        return self.from_json({"name": name, **found})

    def to_json(self, value: Value) -> dict[str, Any]:
        """Return a value's name and hyperparameters as a JSON object.

        Raises
        ------
        ValueError
            If the class is not registered, so that nothing could make the value again, or if a
            hyperparameter is not a number, text, or tuple of these.
        """
        name = getattr(value, "name", None)
        if not isinstance(name, str) or self._classes.get(name) is not type(value):
            raise ValueError(
                f"{type(value).__name__} is no registered {self.kind}, and so a run with it cannot "
                f"be saved; decorate the class with `@{self.symbol}.add`"
            )
        parts = {each.name: getattr(value, each.name) for each in fields(value)}  # type: ignore[arg-type]
        return {"name": name, **{key: self._plain(key, part) for key, part in parts.items()}}

    def _plain(self, key: str, part: Any) -> Any:
        """Convert a hyperparameter to a value that JSON can hold."""
        if isinstance(part, tuple):
            return [self._plain(key, each) for each in part]
        part = plain(part)
        if not isinstance(part, int | float | str):
            raise ValueError(  # noqa: TRY004 (as for other settings)
                f"{key}={shown(part)} of a {self.kind} cannot be saved; use a number, text, or a "
                "tuple of these"
            )
        return part

    def from_json(self, found: Mapping[str, Any]) -> Value:
        """Make the value that `to_json` described.

        Raises
        ------
        ValueError
            If no class has the name, or the class has other hyperparameters.
        """
        settings = dict(found)
        name = settings.pop("name", None)
        if not isinstance(name, str) or name not in self._classes:
            hint = meant(name, self._classes) if isinstance(name, str) else ""
            raise ValueError(
                f"the {self.kind} {shown(name)} is not one of {', '.join(self._classes)}; "
                + (hint or "import the module that registers it, if there is one")
            )
        cls = self._classes[name]
        known = {each.name: each for each in fields(cls)}  # type: ignore[arg-type]
        if strangers := [key for key in settings if key not in known]:
            accepted = ", ".join(known) or "nothing"
            # A class may say where else a hyperparameter of other libraries is.
            where = getattr(cls, "elsewhere", {}).get(strangers[0])
            raise ValueError(
                f"the {self.kind} {name!r} has {accepted}, and not {shown(strangers[0])}"
                + (f": {where}" if where else "")
            )
        for key, value in settings.items():
            if isinstance(value, list):
                settings[key] = tuple(value)
            elif isinstance(value, bool) and known[key].type in (bool, "bool"):
                continue
            elif isinstance(value, bool) or not isinstance(value, int | float | str):
                raise ValueError(f"{key}={shown(value)} of the {self.kind} {name!r} is no number")
        missing = [
            key
            for key, each in known.items()
            if key not in settings and each.default is MISSING and each.default_factory is MISSING
        ]
        if missing:
            raise ValueError(f"the {self.kind} {name!r} needs {', '.join(missing)}")
        try:
            return cls(**settings)
        except TypeError as error:
            raise ValueError(f"the {self.kind} {name!r}: {error}") from None
