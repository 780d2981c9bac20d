"""When validation rows end a run: the setting `early_stopping`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from ooc_train.core.settings import (
    CheckedSettings,
    Constraint,
    Count,
    Flag,
    Number,
    settings_of,
)

GREATER_IS_BETTER = ("accuracy", "roc_auc", "r2", "d2")
_SMALLER_IS_BETTER = ("log_loss", "mse")


@dataclass(frozen=True, kw_only=True)
class EarlyStopping(CheckedSettings):
    """A rule that ends a run when its validation loss, or a metric, gets no better.

    The validation rows are evaluated after each iteration or epoch.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from ooc_train import EarlyStopping, SGDClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> stop = EarlyStopping(patience=3, metric="roc_auc")
    >>> model = SGDClassifier(loss="log_loss", early_stopping=stop, random_state=0).fit(X, y)
    >>> model.n_iter_ < model.max_iter
    True
    """

    patience: Annotated[
        int, Count(), "Evaluations in a row without progress after which a run ends."
    ] = 5
    min_delta: Annotated[
        float,
        Number(least=0.0),
        "Least improvement of the loss, or of the metric, over the best so far that counts as "
        "progress.",
    ] = 0.0
    metric: Annotated[
        str | None,
        Constraint((None, *GREATER_IS_BETTER, *_SMALLER_IS_BETTER)),
        "The metric of `evaluate` that has to improve, by another pass over the validation rows. "
        "None is the validation loss.",
    ] = None
    restore_best: Annotated[
        bool,
        Flag(off="keep-last"),
        "Restore the parameters of the best validation, instead of keeping the last.",
    ] = True


@dataclass(frozen=True)
class EarlyStoppingSetting(Flag):
    """A constraint that accepts an `EarlyStopping`, False, or True for the default one."""

    @property
    def type_text(self) -> str:
        """The accepted values, written as a type in docs."""
        return "bool or EarlyStopping"

    @property
    def _others(self) -> str:
        return f"{super()._others} or an EarlyStopping"

    def _checked(self, name: str, value: Any) -> Any:
        if isinstance(value, EarlyStopping):
            return value
        if isinstance(value, Mapping) and value.keys() <= settings_of(EarlyStopping).keys():
            return EarlyStopping(**value)
        return super()._checked(name, value) and EarlyStopping()

    def to_json(self, value: Any) -> Any:
        """Convert a value to one that JSON can hold and `check` accepts."""
        return value.settings() if isinstance(value, EarlyStopping) else value
