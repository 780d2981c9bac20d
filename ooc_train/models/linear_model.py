"""The base of models with a linear predictor, and the settings that several of them share."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from ooc_train.core.named_classes import plain
from ooc_train.core.schema import shown
from ooc_train.core.settings import Constraint, Flag, Number
from ooc_train.models.model import DataFigures, Model
from ooc_train.models.scale_setting import (
    CHANNEL,
    SCALES,
    channels_of,
    factor_of,
    require_one_scale,
)
from ooc_train.objective.penalty import NO_PENALTY, Penalty
from ooc_train.objective.scaling import Scaling

if TYPE_CHECKING:
    from ooc_train.models.linear import LinearProblem

_WEIGHT = Number(least=0.0)


@dataclass(frozen=True)
class ClassWeight(Constraint):
    """A constraint that accepts None, "balanced", or a mapping from labels to weights."""

    words: tuple[str | None, ...] = (None, "balanced")

    kind: ClassVar[str] = "mapping"

    @property
    def _others(self) -> str:
        return "a mapping from labels to weights"

    def _checked(self, name: str, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise self._refused(name, value)
        for label, weight in value.items():
            _WEIGHT.check(f"{name} of {shown(label)}", weight)
        return value

    def _parsed(self, name: str, text: str) -> Any:
        pairs = [part.rpartition("=") for part in text.split(",")]
        try:
            weights = {label: float(weight) for label, _, weight in pairs}
        except ValueError:
            weights = {}
        if "" in weights or len(weights) != len(pairs):
            raise ValueError(
                f"{name}={shown(text)} is not 'balanced' or the weights of labels, such as "
                "no=1,yes=5"
            )
        return weights

    def to_json(self, value: Any) -> Any:
        """Convert a value to one that JSON can hold: labels become text."""
        if not isinstance(value, Mapping):
            return value
        return {str(plain(label)): plain(weight) for label, weight in value.items()}

    @property
    def metavar(self) -> str:
        """The placeholder for the value in an option's help."""
        return "balanced|LABEL=W,..."


@dataclass(frozen=True)
class NumberOfEach(Number):
    """A constraint that accepts a number, or a sequence of numbers, one for each output."""

    @property
    def type_text(self) -> str:
        """The accepted values, written as a type in docs."""
        return "float, or array of shape (n_outputs,)"

    @property
    def _others(self) -> str:
        return f"{super()._others}, or one such number for each output"

    def _checked(self, name: str, value: Any) -> Any:
        check = super()._checked
        if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
            return check(name, value)
        if not np.shape(value)[:1] > (0,):
            raise self._refused(name, value)
        return tuple(check(name, plain(number)) for number in value)

    def _parsed(self, name: str, text: str) -> Any:
        parse = super()._parsed
        numbers = [parse(name, part) for part in text.split(",")]
        return numbers if len(numbers) > 1 else numbers[0]

    def to_json(self, value: Any) -> Any:
        """Convert a value to one that JSON can hold."""
        return list(value) if isinstance(value, tuple) else value

    @property
    def metavar(self) -> str:
        """The placeholder for the value in an option's help."""
        return f"{super().metavar}|NUMBER,..."


Alpha = Annotated[float, Number(least=0.0), "Strength of the penalty, in the units of the data."]
AlphaOfEach = Annotated[
    float | Sequence[float],
    NumberOfEach(least=0.0),
    "Strength of the penalty, in the units of the data; or that of each output.",
]
L1Ratio = Annotated[
    float, Number(least=0.0, most=1.0), "Fraction of the penalty that is l1; the rest is l2."
]
InverseStrength = Annotated[
    float,
    Number(above=0.0, most=inf),
    "Inverse strength of the penalty, relative to the sum of losses, in the units of the data; "
    "infinity is no penalty.",
]
ClassWeights = Annotated[
    str | Mapping[Any, float] | None,
    ClassWeight(),
    'Weight of each class by its label; "balanced" is in inverse proportion to its rows.',
]
"""Settings that several models have."""


def l2_penalty(alpha: float | Sequence[float], *, positive: bool = False) -> Penalty:
    """Return the l2 penalty of strength `alpha`, one for all outputs or one for each."""
    strengths = [float(each) for each in (alpha if isinstance(alpha, Sequence) else [alpha])]
    of_each = tuple(strengths) if len(set(strengths)) > 1 else ()
    return Penalty(l2=min(strengths), positive=positive, l2_of_each=of_each)


@dataclass(frozen=True, kw_only=True)
class LinearModel(Model):
    """The base of all models with a linear predictor."""

    fit_intercept: Annotated[
        bool,
        Flag(off="no-intercept"),
        "Learn an intercept. It is not penalised.",
    ] = True
    standardize: Annotated[bool, Flag(), "Penalise the weights of standardised columns."] = False
    scale: Annotated[
        float | str,
        SCALES,
        "Factor of all columns, such as 1/255 for pixels of 8 bits: the penalty is on the weights "
        'of columns times the factor. With "channel" it is on those of images whose channels '
        "are centred and scaled to a standard deviation of 1. The channel is the last of the axes "
        "(height, width, channel). Coefficients are those of the columns as they come.",
    ] = 1.0

    def __post_init__(self) -> None:
        """Check the settings, and that at most one of them scales the columns."""
        super().__post_init__()
        require_one_scale(self.scale, standardize=self.standardize)

    @property
    def is_classifier(self) -> bool:
        """Whether y holds class labels."""
        return False

    @property
    def standardizes(self) -> bool:
        """Whether the penalty is on weights of columns that are scaled by their moments."""
        return self.standardize or self.scale == CHANNEL

    @abstractmethod
    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the penalty on the weights, in the data's units, added to the sum of losses.

        Parameters
        ----------
        total_weight : float
            Sum of the rows' weights. Models whose `alpha` is relative to the mean loss multiply
            `alpha` by this sum.
        """

    def problem(self, data: DataFigures) -> "LinearProblem":
        """Return the problem of learning the model from data; its scaling is the identity."""
        # The command line makes its options of this file, and so it loads no kernels.
        from ooc_train.models.linear import LinearProblem

        n_outputs = data.n_targets
        if self.is_classifier:
            n_outputs = 1 if data.n_classes == 2 else data.n_classes
        identity = Scaling.constant(1.0, data.n_features)
        penalty = self.penalty_for(data.total_weight).of_scaled(factor_of(self.scale))
        if len(penalty.l2_of_each) not in (0, n_outputs):
            raise ValueError(
                "Number of targets and number of penalties do not correspond: "
                f"{len(penalty.l2_of_each)} != {n_outputs}; pass one alpha, or that of each output"
            )
        return LinearProblem(
            self.loss_for(data.n_classes),
            n_outputs,
            data.n_rows,
            data.total_weight,
            identity,
            penalty,
            self.fit_intercept,
            self.standardizes,
            data.class_weight,
            channels=channels_of(self.scale, data.row_shape),
        )


@dataclass(frozen=True, kw_only=True)
class StochasticModel(LinearModel):
    """The base of models with an elastic-net penalty and, by default, batches of one row.

    The mean loss of a row, by weight, plus
    `alpha * (l1_ratio * |w| + (1 - l1_ratio) / 2 * |w|^2)` is minimised.
    """

    penalty: Annotated[
        str | None,
        Constraint(("l2", "l1", "elasticnet", None)),
        "Norm of the weights that is penalised; None is no penalty.",
    ] = "l2"
    alpha: Alpha = 1e-4
    l1_ratio: Annotated[
        float | None,
        Number((None,), least=0.0, most=1.0),
        'Fraction of the penalty "elasticnet" that is l1. None where the penalty is another.',
    ] = 0.15

    default_tol: ClassVar[float] = 1e-3
    default_max_iter: ClassVar[int] = 1000
    default_batch_size: ClassVar[int | str] = 1

    def __post_init__(self) -> None:
        """Check the settings, and that an elastic net has an `l1_ratio`."""
        super().__post_init__()
        if self.penalty == "elasticnet" and self.l1_ratio is None:
            raise ValueError(
                "l1_ratio must be set when penalty is 'elasticnet'; pass a number from 0 to 1"
            )

    def penalty_for(self, total_weight: float) -> Penalty:
        """Return the penalty: `alpha` times the total weight, split between l1 and l2."""
        if self.penalty is None:
            return NO_PENALTY
        share = {"l2": 0.0, "l1": 1.0}.get(self.penalty, self.l1_ratio or 0.0)
        strength = float(self.alpha) * total_weight
        return Penalty(strength * share, strength * (1.0 - share))
