"""A model as a plain value: what is learned, and how.

The command line makes it directly, an estimator from its parameters; it cannot hold a setting that
cannot be used.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import inf, isinf, nan
from numbers import Integral, Real
from sys import float_info
from typing import Any, Literal, get_args

from ooc_train.core.schema import INT64, shown
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses import LOSSES
from ooc_train.optimizers import OPTIMIZERS

Name = Literal["linear", "ridge", "logistic"]
NAMES: tuple[str, ...] = get_args(Name)

EXACT = ("gram", "newton", "lbfgs")
UPDATES = tuple(OPTIMIZERS)

_SOLVERS = {
    "linear": ("auto", "gram", "lbfgs", *UPDATES),
    "ridge": ("auto", "gram", "lbfgs", *UPDATES),
    "logistic": ("auto", "newton", "lbfgs", *UPDATES),
}
_MAX_ITER = {"linear": 100, "ridge": 100, "logistic": 100}
_LARGEST = float_info.max
_LARGEST_SEED = 2**128 - 1
_INFINITE = "inf"
"""An infinite `C` as JSON holds it, which has no number for infinity."""

_TOL = {"linear": 1e-6, "ridge": 1e-4, "logistic": 1e-4}

_GRAM_FEATURES = 4096
"""A Gram matrix of more columns takes longer to add up and solve than L-BFGS takes altogether."""

_NEWTON_PARAMETERS = 512
"""Above so many parameters a Newton pass is bound by computing, which grows with their square, and
the passes that it saves cost more than the many of L-BFGS."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is learned, and how.

    Attributes
    ----------
    name : "linear", "ridge" or "logistic"
    alpha : ridge's penalty: `alpha / 2 * |w|^2` beside half the sum of squares, as scikit-learn's
    C : the logistic model's inverse penalty: `1 / (2 C) * |w|^2` beside the sum of losses;
        infinity, or "inf" as JSON holds it, is no penalty
    fit_intercept : whether there is a free constant
    class_weight : None, "balanced", or the weight of each class by its label
    solver : "auto", or one that goes with the model: "gram", "newton", "lbfgs", "sgd", "adam"
    batch_size : rows per update: "full", "chunk", or a number of rows
    learning_rate : of updates, on scaled columns: "auto", or a constant
    max_iter : most iterations, or epochs of updates; None is the model's own default, 100
    tol : tolerance, as scikit-learn's; None is the model's own default
    standardize : whether the penalty is on standardised columns
    shuffle_chunks : chunks mixed row by row when batches are drawn; "auto" is 1 for shuffled data
    replicas : shares of the rows that are learned from at the same time, each by updates of its
        own, and averaged at fixed points; the answer is that of as many replicas wherever it is
        computed
    random_state : seed of the order of rows; None draws one, which the report tells

    Raises
    ------
    ValueError, TypeError
        naming the setting that cannot be used.
    """

    name: Name
    alpha: float = 1.0
    C: float = 1.0
    fit_intercept: bool = True
    class_weight: str | Mapping[Any, float] | None = None
    solver: str = "auto"
    batch_size: int | str = "full"
    learning_rate: float | str = "auto"
    max_iter: int | None = None
    tol: float | None = None
    standardize: bool = False
    shuffle_chunks: int | str = "auto"
    replicas: int = 1
    random_state: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            # A number of NumPy's is one that JSON cannot hold.
            value = plain(getattr(self, field.name))
            is_infinite = field.name == "C" and isinstance(value, str) and value == _INFINITE
            object.__setattr__(self, field.name, inf if is_infinite else value)
        if self.name not in NAMES:
            raise ValueError(f"model={shown(self.name)} is not one of {', '.join(NAMES)}")
        if self.solver not in _SOLVERS[self.name]:
            known = ", ".join(map(repr, _SOLVERS[self.name]))
            raise ValueError(f"solver={shown(self.solver)} is not one of {self.name}'s: {known}")
        _require_flag("fit_intercept", self.fit_intercept)
        _require_flag("standardize", self.standardize)
        _require_number("alpha", self.alpha, least=0.0)
        _require_number("C", self.C, above=0.0, most=inf)
        if self.tol is not None:
            _require_number("tol", self.tol, least=0.0)
        if self.max_iter is not None:
            _require_count("max_iter", self.max_iter)
        if self.learning_rate != "auto":
            _require_number("learning_rate", self.learning_rate, above=0.0, words=("auto",))
        if self.shuffle_chunks != "auto":
            _require_count("shuffle_chunks", self.shuffle_chunks, words=("auto",))
        _require_count("replicas", self.replicas)
        if self.replicas > 1 and self.batch_size == "full":
            raise ValueError(
                f"replicas={shown(self.replicas)} is for updates by batches, and batch_size='full' "
                "reads all rows for each; leave it out, or choose another batch_size"
            )
        if self.batch_size not in ("full", "chunk"):
            _require_count("batch_size", self.batch_size, words=("full", "chunk"))
        if self.batch_size != "full" and self.solver in EXACT:
            raise ValueError(
                f"solver={self.solver!r} looks at all rows before each step, and "
                f"batch_size={self.batch_size!r} asks for more steps; use batch_size='full', or "
                "solver='sgd' or 'adam'"
            )
        if self.random_state is not None:
            _require_count(
                "random_state", self.random_state, least=0, most=_LARGEST_SEED, words=(None,)
            )
        if isinstance(self.class_weight, Mapping):
            for label, weight in self.class_weight.items():
                _require_number(f"class_weight of {shown(label)}", weight, least=0.0)
        elif self.class_weight not in (None, "balanced"):
            raise ValueError(
                f"class_weight={shown(self.class_weight)} is not None, 'balanced' or a mapping of "
                "labels"
            )
        for setting, owner in (("alpha", "ridge"), ("C", "logistic")):
            if self.name != owner and getattr(self, setting) != 1.0:
                raise ValueError(f"{setting} is for the {owner} model, and this is {self.name}")
        if self.class_weight is not None and not self.is_classifier:
            raise ValueError(f"class_weight is for classes, and the {self.name} model has none")

    @property
    def is_classifier(self) -> bool:
        """Whether y holds classes."""
        return self.name == "logistic"

    @property
    def l2(self) -> float:
        """Strength of the penalty beside a sum of losses."""
        return {"linear": 0.0, "ridge": float(self.alpha), "logistic": 1.0 / self.C}[self.name]

    @property
    def iterations(self) -> int:
        """The most iterations or epochs."""
        return self.max_iter or _MAX_ITER[self.name]

    @property
    def tolerance(self) -> float:
        """The tolerance."""
        return _TOL[self.name] if self.tol is None else float(self.tol)

    def loss(self, n_classes: int) -> Loss:
        """Return the loss, given how many classes there are."""
        if not self.is_classifier:
            return LOSSES["squared"]()
        return LOSSES["logistic" if n_classes == 2 else "multinomial"]()

    def rows_per_update(self, n_rows: int, chunk_rows: int) -> int:
        """Return the batch size in rows.

        Raises
        ------
        ValueError
            where it is more than there are.
        """
        if self.batch_size == "full":
            return n_rows
        rows = min(chunk_rows, n_rows) if self.batch_size == "chunk" else int(self.batch_size)
        if rows > n_rows:
            raise ValueError(
                f"batch_size={rows:,} is more than the {n_rows:,} rows there are; use "
                "batch_size='full' for all of them"
            )
        if rows * self.replicas > n_rows:
            raise ValueError(
                f"batches of {rows:,} rows in {self.replicas} replicas are more than the "
                f"{n_rows:,} rows there are; use fewer replicas, or smaller batches"
            )
        return rows

    def solver_for(self, n_parameters: int) -> str:
        """Return the solver that "auto" stands for, given the size of the model."""
        if self.solver != "auto":
            return self.solver
        if self.batch_size != "full":
            return "sgd"
        if self.is_classifier:
            return "newton" if n_parameters <= _NEWTON_PARAMETERS else "lbfgs"
        return "gram" if n_parameters <= _GRAM_FEATURES else "lbfgs"

    def settings(self) -> dict[str, Any]:
        """Return the settings as values that JSON can hold: `Model(**settings)` makes it again."""
        settings = asdict(self)
        settings["C"] = _INFINITE if isinf(self.C) else self.C
        if isinstance(self.class_weight, Mapping):
            weights = {str(plain(k)): plain(v) for k, v in self.class_weight.items()}
            settings["class_weight"] = weights
        return settings


def plain(value: Any) -> Any:
    """Return a number or label of NumPy as the Python value that it is, others as they are."""
    return value.item() if getattr(value, "size", 0) == 1 and hasattr(value, "item") else value


def _require_flag(name: str, value: object) -> None:
    if value is not True and value is not False:
        raise ValueError(f"{name}={shown(value)} is not True or False")


def _require_count(
    name: str,
    value: object,
    *,
    least: int = 1,
    most: int = INT64,
    words: tuple[str | None, ...] = (),
) -> None:
    accepted = " or ".join([*map(repr, words), f"a whole number of at least {least}"])
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}={shown(value)} is not {accepted}")
    if int(value) > most:
        raise ValueError(f"{name}={shown(value)} is too large: it is at most {most:,}")


def _require_number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float = _LARGEST,
    words: tuple[str, ...] = (),
) -> None:
    bound = f"of at least {least:g}" if least is not None else f"above {above:g}"
    accepted = " or ".join([*map(repr, words), f"a number {bound}"])
    if isinstance(value, bool) or not isinstance(value, Real) or not _as_float(value) <= most:
        raise ValueError(f"{name}={shown(value)} is not {accepted}")
    if (least is not None and value < least) or (above is not None and value <= above):
        raise ValueError(f"{name}={shown(value)} is not {accepted}")


def _as_float(value: Real) -> float:
    """Return a number as float64, where that holds it; else NaN, which no bound takes."""
    try:
        return float(value)
    except OverflowError:
        return nan
