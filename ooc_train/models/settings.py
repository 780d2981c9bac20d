"""A model and its training as one plain value, which holds valid settings only.

The command line and the estimators make such values.
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
"""An infinite `C` in JSON, which has no number for infinity."""

_TOL = {"linear": 1e-6, "ridge": 1e-4, "logistic": 1e-4}

_GRAM_FEATURES = 4096
"""Limit of parameters for the solver "gram"; beyond, L-BFGS takes less time."""

_NEWTON_PARAMETERS = 512
"""Limit of parameters for the solver "newton". Beyond, computing the Hessian, in proportion to the
square of their number, costs more than the additional passes of L-BFGS."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model and its training.

    Attributes
    ----------
    name : "linear", "ridge" or "logistic"
        The kind of model.
    alpha : float
        Penalty of the ridge model, as scikit-learn's: `alpha / 2 * |w|^2`, added to half the sum of
        squares.
    C : float
        Inverse penalty of the logistic model: `1 / (2 C) * |w|^2`, added to the sum of losses.
        Infinity, or "inf" in JSON, is no penalty.
    fit_intercept : bool
        Whether the model has an intercept.
    class_weight : None, "balanced" or mapping
        Factors of the rows' weights, by label.
    solver : str
        "auto", or a solver that fits the model: "gram", "newton", "lbfgs", "sgd", "adam".
    batch_size : "full", "chunk" or int
        Rows per update.
    learning_rate : "auto" or float
        Of updates, on scaled columns. A number is a constant rate.
    max_iter : int or None
        Limit of iterations, or of epochs of updates; None is the model's default.
    tol : float or None
        Tolerance, as scikit-learn's; None is the model's default.
    standardize : bool
        Whether the penalty is on the weights of standardized columns.
    shuffle_chunks : "auto" or int
        Chunks whose rows are mixed into batches; "auto" is 1 for shuffled data.
    replicas : int
        Copies of the parameters. Each learns from a share of the rows by its own updates, and all
        are averaged at fixed points. The result depends on this number, and not on the machine.
    random_state : int or None
        Seed of the order of rows; None draws one, which the report has.

    Raises
    ------
    ValueError, TypeError
        If a setting is not valid; the message names the setting.
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
            # JSON cannot hold numbers of NumPy.
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
                f"solver={self.solver!r} reads all rows before each step, and "
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
        """Strength of the l2 penalty, added to the sum of losses."""
        return {"linear": 0.0, "ridge": float(self.alpha), "logistic": 1.0 / self.C}[self.name]

    @property
    def iterations(self) -> int:
        """The limit of iterations or epochs."""
        return self.max_iter or _MAX_ITER[self.name]

    @property
    def tolerance(self) -> float:
        """The tolerance."""
        return _TOL[self.name] if self.tol is None else float(self.tol)

    def loss(self, n_classes: int) -> Loss:
        """Return the loss; a classifier of two classes has one output."""
        if not self.is_classifier:
            return LOSSES["squared"]()
        return LOSSES["logistic" if n_classes == 2 else "multinomial"]()

    def rows_per_update(self, n_rows: int, chunk_rows: int) -> int:
        """Return the batch size in rows.

        Raises
        ------
        ValueError
            If the batches of all replicas have more rows than the data.
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
        """Return the name of the solver; "auto" depends on the number of parameters."""
        if self.solver != "auto":
            return self.solver
        if self.batch_size != "full":
            return "sgd"
        if self.is_classifier:
            return "newton" if n_parameters <= _NEWTON_PARAMETERS else "lbfgs"
        return "gram" if n_parameters <= _GRAM_FEATURES else "lbfgs"

    def settings(self) -> dict[str, Any]:
        """Return the settings as values of JSON; `Model(**settings)` restores the model."""
        settings = asdict(self)
        settings["C"] = _INFINITE if isinf(self.C) else self.C
        if isinstance(self.class_weight, Mapping):
            weights = {str(plain(k)): plain(v) for k, v in self.class_weight.items()}
            settings["class_weight"] = weights
        return settings


def plain(value: Any) -> Any:
    """Return a scalar of NumPy as a Python value, and other values unchanged."""
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
    """Return a number as float64; NaN, which every bound refuses, if float64 cannot hold it."""
    try:
        return float(value)
    except OverflowError:
        return nan
