"""Options that name a model and how it is learned, made from the settings' own declarations."""

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, TypeVar

from ooc_train.cli.command_help import Described, value_of
from ooc_train.cli.options import option
from ooc_train.core.schema import shown
from ooc_train.core.settings import ITEM, Flag, Setting, defaults_of, settings_of
from ooc_train.core.text import meant
from ooc_train.models.model import Model
from ooc_train.models.model_registry import MODELS
from ooc_train.solvers.early_stopping import EarlyStopping
from ooc_train.solvers.training_settings import Training, training_defaults, training_settings

_MODEL, _TRAINING = "Model", "Training"
_OFF = MappingProxyType(
    {
        "no-intercept": "Learn no intercept.",
        "no-average": "Keep the last parameters of updates, not their average.",
        "keep-last": "With early stopping: keep the last parameters, not those of the best loss.",
    }
)
"""Help of the options that turn off flags."""

_DEFAULT = "logistic"

_OWNERS: dict[str, list[type[Model]]] = {}
"""The models that have a setting, by its name."""

for _model in MODELS.values():
    for _name in settings_of(_model):
        _OWNERS.setdefault(_name, []).append(_model)

Class = TypeVar("Class", bound=type)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def setting_help(setting: Setting, default: Any) -> str:
    """Return the first sentence of a setting's description with the default, and its list."""
    known = default not in (None, MISSING) and not isinstance(default, bool)
    text, *items = setting.description.split(ITEM)
    first = text.partition(". ")[0].rstrip(".")
    # The help puts a paragraph on a line of its own.
    return "\n\n".join([first + (f" (default: {_shown(default)})." if known else "."), *items])


def _shown(default: Any) -> str:
    """Return a default as the option takes it."""
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _help_of(setting: Setting, default: Any) -> str:
    """Return the help of the option of one model's setting."""
    off = getattr(setting.constraint, "off", "")
    return _OFF[off] if off else setting_help(setting, default)


def setting_option(name: str, setting: Setting, text: str, *, of: str) -> Any:
    """Return the annotation of an option for a setting."""
    constraint = setting.constraint
    if isinstance(constraint, Flag):
        names = _flag(name)
        if constraint.off:
            names, text = f" /--{constraint.off}", _OFF[constraint.off]
        return Annotated[bool | None, option(names, of=of, help=text, show_default=False)]
    return Annotated[
        Any,
        option(
            _flag(name),
            of=of,
            parse=partial(constraint.parse, name),
            metavar=constraint.metavar,
            help=text,
        ),
    ]


def _model_option(name: str, owners: list[type[Model]]) -> Any:
    """Return the annotation of an option for a setting of some models."""
    settings = [settings_of(owner)[name] for owner in owners]
    names: dict[str, list[str]] = {}
    for owner, setting in zip(owners, settings, strict=True):
        names.setdefault(setting_help(setting, defaults_of(owner)[name]), []).append(owner.name)
    everywhere = len(owners) == len(MODELS) and len(names) == 1
    text = " ".join(
        help_text if everywhere else f"Of {', '.join(of)}: {help_text}"
        for help_text, of in names.items()
    )
    if all(setting.constraint == settings[0].constraint for setting in settings):
        return setting_option(name, settings[0], text, of=_MODEL)
    # Models accept different values: `ModelOptions.made` parses the text.
    words = "|".join(setting.constraint.metavar for setting in settings).split("|")
    metavar = "|".join(dict.fromkeys(words))
    return Annotated[Any, option(_flag(name), of=_MODEL, parse=str, metavar=metavar, help=text)]


def _with_settings(cls: Class) -> Class:
    """Add a field for each setting of every model, `Training` and `EarlyStopping`.

    None is the default.
    """
    cls.__annotations__ = dict(cls.__annotations__)
    for name, owners in _OWNERS.items():
        cls.__annotations__[name] = _model_option(name, owners)
        setattr(cls, name, None)
    for owner, only in ((Training, ""), (EarlyStopping, "With early stopping: ")):
        for name, setting in settings_of(owner).items():
            text = setting_help(setting, defaults_of(owner)[name])
            text = only + text[0].lower() + text[1:] if only else text
            cls.__annotations__[name] = setting_option(name, setting, text, of=_TRAINING)
            setattr(cls, name, None)
    return cls


_OTHER_PENALTY = {"alpha": "C", "C": "alpha"}
"""Settings of the strength of a penalty, and the one that other models have for it, its inverse."""


def _model_name(text: str) -> str:
    if text not in MODELS:
        hint = meant(text, MODELS)
        raise ValueError(
            f"model={shown(text)} is not one of {', '.join(MODELS)}{f'; {hint}' if hint else ''}"
        )
    return text


@dataclass(frozen=True)
@_with_settings
class ModelOptions:
    """A model, and how it is learned; None stands for an option that was not passed."""

    model: Annotated[
        Any,
        option(
            of=_MODEL,
            parse=_model_name,
            metavar="NAME",
            help=f"What is learned: {', '.join(MODELS)} (default: {_DEFAULT}). `--model NAME "
            "--help` shows the options of a model.",
        ),
    ] = None

    omitted: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def describe(cls, arguments: Sequence[str]) -> Described:
        """Describe the options of the model that the arguments name, and hide those of others."""
        model = MODELS.get(value_of("--model", arguments, _DEFAULT))
        if model is None:
            return {}
        own, defaults = settings_of(model), defaults_of(model)
        of_model = {
            name: (_help_of(own[name], defaults[name]), own[name].constraint.metavar)
            if name in own
            else None
            for name in _OWNERS
        }
        how = training_defaults(model) | {"batch_size": cls.batch_size_of(model)}
        return of_model | {
            name: (setting_help(setting, how[name]), setting.constraint.metavar)
            for name, setting in training_settings(model).items()
        }

    @classmethod
    def batch_size_of(cls, model: type[Model]) -> int | str:
        """Return the batch size of a model without the option."""
        return model.default_batch_size

    def made(self) -> tuple[Model, Training]:
        """Return the model and its training, checked.

        Raises
        ------
        ValueError
            If a setting is not valid, or is one of another model.
        """
        cls = MODELS[self.model or _DEFAULT]
        passed = self._of_model(cls)
        missing = [
            name
            for name, default in defaults_of(cls).items()
            if default is MISSING and name not in passed
        ]
        if missing:
            raise ValueError(f"--model {cls.name} needs {' and '.join(map(_flag, missing))}")
        how = {"batch_size": self.batch_size_of(cls)} | self._passed(settings_of(Training))
        if watched := self._passed(settings_of(EarlyStopping)):
            how["early_stopping"] = EarlyStopping(**watched)
        return cls(**passed), Training(**how)

    def made_on(self, model: Model, training: Training) -> tuple[Model, Training]:
        """Return a model and its training with the options that were passed in place of theirs.

        Raises
        ------
        ValueError
            If a setting is not valid, or is one of another model.
        """
        if self.model not in (None, model.name):
            raise ValueError(
                f"--model {self.model} is another model than the {model.name} of the run that is "
                "to go on; leave it out, or begin anew with another --out"
            )
        how = self._passed(settings_of(Training))
        if "learning_rate" in how:
            how.setdefault("schedule", "auto")  # the text of the rate may name a schedule
        if watched := self._passed(settings_of(EarlyStopping)):
            rule = training.early_stopping
            before = vars(rule) if isinstance(rule, EarlyStopping) else {}
            how["early_stopping"] = EarlyStopping(**before | watched)
        return replace(model, **self._of_model(type(model))), replace(training, **how)

    def _of_model(self, cls: type[Model]) -> dict[str, Any]:
        """Return the settings that were passed for a model; refuse those of other models."""
        passed = self._passed(_OWNERS)
        own = defaults_of(cls)
        for name in passed:
            if name not in own:
                *others, last = (owner.name for owner in _OWNERS[name])
                owners = " and ".join(filter(None, [", ".join(others), last]))
                other = _OTHER_PENALTY.get(name)
                way = f"; {_flag(other)} sets its penalty" if other in own else ""
                raise ValueError(
                    f"{_flag(name)} is for the {owners} model, and this is {cls.name}{way}"
                )
        for name, value in passed.items():
            if isinstance(value, str):
                passed[name] = settings_of(cls)[name].constraint.parse(name, value)
        return passed

    def _passed(self, names: Iterable[str]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}
