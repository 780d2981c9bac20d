"""Differentially private updates as a setting: `solver=DifferentiallyPrivate(...)`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ooc_train.core.named_classes import Registry
from ooc_train.core.settings import Part
from ooc_train.core.text import counted
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.optimizers.optimizer import Optimizer, require_above_zero, require_share


@dataclass(frozen=True)
class DifferentiallyPrivate:
    """Updates whose model tells little of any single row: DP-SGD (Abadi et al. 2016).

    The gradient of each sampled row, by all parameters, is scaled down to the norm `max_grad_norm`
    if it is longer. Gaussian noise of the deviation ``noise_multiplier * max_grad_norm`` is added
    to the sum over a batch.

    Attributes
    ----------
    noise_multiplier : float
        Deviation of the noise, over the largest norm of a row's gradient.
    max_grad_norm : float
        The largest norm of a row's gradient.
    optimizer : str or Optimizer
        What makes a step of the noisy gradient: "sgd", "adam:beta_1=0.8", or an `Optimizer`. It is
        kept as text.
    delta : float
        The budget is the epsilon at this delta, which has to be below one over the number of rows;
        0 is one over ten times that number.

    Examples
    --------
    >>> import numpy as np
    >>> from ooc_train import DifferentiallyPrivate, LogisticRegression
    >>> X = np.random.default_rng(0).normal(size=(2_000, 3))
    >>> private = DifferentiallyPrivate(noise_multiplier=1.0, max_grad_norm=1.0)
    >>> model = LogisticRegression(solver=private, batch_size=100, learning_rate=1.0, max_iter=5)
    >>> model.fit(X, X[:, 0] > 0).report_.privacy_text
    'epsilon 3.587 at delta 5e-05'
    """

    noise_multiplier: float
    max_grad_norm: float
    optimizer: str | Optimizer = "sgd"
    delta: float = 0.0

    name: ClassVar[str] = "private"

    def __post_init__(self) -> None:
        """Check the values; raise `ValueError` naming one that cannot be used."""
        require_above_zero("noise_multiplier", self.noise_multiplier)
        require_above_zero("max_grad_norm", self.max_grad_norm)
        require_share("delta", self.delta)
        if isinstance(self.optimizer, Optimizer):
            found = OPTIMIZERS.to_json(self.optimizer)
            name = found.pop("name")
            parts = ",".join(f"{key}={float(value)!r}" for key, value in found.items())
            object.__setattr__(self, "optimizer", f"{name}:{parts}")
        OPTIMIZERS.parse(str(self.optimizer))

    def delta_of(self, n_rows: int) -> float:
        """Return the delta of data of so many rows.

        Raises
        ------
        ValueError
            If it bounds nothing.
        """
        if self.delta * n_rows >= 1.0:
            raise ValueError(
                f"delta={self.delta:g} is not below one over the {counted(n_rows, 'row')}, and so "
                "bounds "
                "nothing; use a smaller one"
            )
        return self.delta or 0.1 / n_rows

    @property
    def steps_by(self) -> Optimizer:
        """The optimizer that makes the steps."""
        return OPTIMIZERS.parse(str(self.optimizer))


PRIVATE: Registry[DifferentiallyPrivate] = Registry("solver", "PRIVATE", (DifferentiallyPrivate,))
"""What text and JSON call the setting: "private:noise_multiplier=1.1,max_grad_norm=1"."""


@dataclass(frozen=True)
class SolverSetting(Part):
    """A constraint that accepts the name of a solver, an optimizer, or private updates."""

    @property
    def type_text(self) -> str:
        """The accepted values, written as a type in docs."""
        return f"{super().type_text} or {DifferentiallyPrivate.__name__}"

    def _checked(self, name: str, value: Any) -> Any:
        if isinstance(value, DifferentiallyPrivate):
            return value
        if isinstance(value, Mapping) and value.get("name") in PRIVATE:
            return PRIVATE.from_json(value)
        return super()._checked(name, value)

    def _parsed(self, name: str, text: str) -> Any:
        if text.partition(":")[0] in PRIVATE:
            return PRIVATE.parse(text)
        return super()._parsed(name, text)

    @property
    def metavar(self) -> str:
        """The placeholder for the value in an option's help."""
        return "|".join([super().metavar, *PRIVATE])

    def to_json(self, value: Any) -> Any:
        """Convert a value to one that JSON can hold: name and settings."""
        if isinstance(value, DifferentiallyPrivate):
            return PRIVATE.to_json(value)
        return super().to_json(value)
