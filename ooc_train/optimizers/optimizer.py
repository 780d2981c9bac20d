"""What every optimizer declares: how a gradient becomes a step of the parameters.

An optimizer is a frozen dataclass whose fields are its hyperparameters. The same source of `step`
and `prepare` serves NumPy arrays and, compiled in `kernels`, one number or one vector at a time. So
`step` is made of NumPy ufuncs, operators and hyperparameters alone, and `prepare` of scalars.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True)
class Optimizer:
    """The base of optimizers, which turn a gradient into a step of the parameters.

    Attributes
    ----------
    name : str
        The key in `OPTIMIZERS`.
    slot_powers : tuple of int
        One entry for each slot: an array of the parameters' shape that the optimizer keeps from
        step to step, zeros at first. A slot grows as this power of the gradients' size: 1 for a
        mean of gradients, 2 for a mean of squares.
    linear : bool
        Whether a step is ``theta - eta * g``, so that several steps can be taken together.
    in_vectors : bool
        Whether `step` is of ``+``, ``-``, ``*``, ``/`` and ``np.sqrt`` alone, and finite where
        parameter, gradient and slots are 0, so that kernels compute it in vectors.
    normalised : bool
        Whether the size of a step depends on the learning rate alone, not on the gradient's size.
    slowing : bool
        Whether steps of a normalised optimizer become shorter with the root of their number.
    elsewhere : mapping
        What other libraries have as a hyperparameter, and where it is here, for messages.
    clip_norm : float
        The largest norm of the gradient of an update: a longer gradient is scaled down to it, as by
        `clip_grad_norm_` of PyTorch and Keras's `global_clipnorm`. The norm is that of the gradient
        of the mean objective of the batch, l2 penalty included. It is by the parameters of scaled
        columns and intercepts, of all outputs together. A step still moves by slots and the l1
        penalty, and the model is the average of the parameters that clipped updates gave. 0 is no
        limit.
    """

    name: ClassVar[str]
    slot_powers: ClassVar[tuple[int, ...]]
    linear: ClassVar[bool] = False
    in_vectors: ClassVar[bool] = False
    normalised: ClassVar[bool] = False
    slowing: ClassVar[bool] = False
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "weight_decay": "added to the gradient, it is the l2 penalty of the model, which the "
            "objective counts: with w and n rows, CustomModel(l2=w * n), ridge's alpha=w * n or "
            "logistic's C=1 / (w * n), on columns as a PyTorch loop has them with "
            "standardize=True; apart from the gradient, it is adamw's",
            "momentum": "use the optimizer 'momentum', as in momentum:momentum=0.9",
            "nesterov": "use the optimizer 'momentum', as in momentum:nesterov=1",
            "max_norm": "it is clip_norm, as in sgd:clip_norm=1",
            "clipnorm": "it is clip_norm, as in sgd:clip_norm=1",
            "lr": "it is the learning_rate of the training",
        }
    )

    clip_norm: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        """Check the hyperparameters; raise `ValueError` naming one that cannot be used."""
        require_not_negative("clip_norm", self.clip_norm)

    def __init_subclass__(cls) -> None:
        # Another step than that of the base class may use any function of NumPy.
        if "step" in cls.__dict__ and "in_vectors" not in cls.__dict__:
            cls.in_vectors = False

    @property
    def hyperparameters(self) -> dict[str, float]:
        """The hyperparameters: the values of the fields, by name."""
        return {field.name: float(getattr(self, field.name)) for field in fields(self)}

    @property
    def gain(self) -> float:
        """Limit of the steps under a constant gradient, over learning rate times gradient.

        Of a normalised optimizer: over the learning rate alone. Of a slowing one: the limit of the
        n-th step times ``sqrt(n)``.
        """
        return 1.0

    @property
    def curvature_gain(self) -> float:
        """What the rate "auto" is divided by, where curvature bounds it; `gain` is for the noise.

        Steps by the true gradient must be stable at ``1 / (curvature * curvature_gain)``.
        """
        return self.gain

    @property
    def first_step(self) -> float:
        """Size of the first step of a normalised optimizer, in units of the learning rate."""
        return 1.0

    @property
    def decay(self) -> float:
        """Weight decay: the share of each weight that a step removes, over the learning rate."""
        return 0.0

    def clipped(self, g: Any) -> Any:
        """Return the gradient by all parameters, scaled down to the norm `clip_norm` if longer."""
        if not self.clip_norm:
            return g
        with np.errstate(over="ignore"):  # an infinite norm is no error here
            square = np.sum(g * g)
        return g * clip_factor(self.clip_norm, square)

    def prepare(self, age: float, part: float) -> tuple[float, ...]:
        """Return the scalars of one update, which all parameters share.

        Parameters
        ----------
        age : float
            Batches so far, with this one; an incomplete batch counts as the part that it is.
        part : float
            Rows of this batch as a share of a full batch, above 0 and at most 1.
        """
        raise NotImplementedError

    def step(self, theta: Any, g: Any, eta: float, scalars: tuple[float, ...], *slots: Any) -> Any:
        """Return the parameters after a step, followed by the optimizer's slots after the step.

        Parameters
        ----------
        theta, g : float or array
            Parameters, and the gradient of the mean objective of the batch.
        eta : float
            The learning rate, times the part that the batch is.
        scalars : tuple of float
            What `prepare` returned.
        slots : float or array
            The slots before the step, each of the shape of `theta`.
        """
        raise NotImplementedError

    def retained(self, eta: float) -> Any:  # noqa: ARG002
        """Return the factor of each weight before a step, by weight decay; 1 without decay.

        Intercepts do not decay. The source serves arrays and kernels.
        """
        return 1.0

    def proximal_rate(self, eta: float, scalars: tuple[float, ...], *slots: Any) -> Any:  # noqa: ARG002
        """Return the learning rate of the proximal step that an l1 penalty takes after a step.

        Under a constant gradient `g`, steps tend to this rate times `g`. So
        step and proximal step cancel where `g` is `l1` in size: at the optimum, and only there.
        The same source serves arrays and kernels, as that of `step` does.

        Parameters
        ----------
        eta, scalars :
            As for `step`.
        slots : float or array
            The slots after the step.
        """
        return eta


def clip_factor(clip_norm: float, square: Any) -> Any:
    """Return the factor that scales a gradient of squared norm `square` down to `clip_norm`.

    The factor is 1 for shorter gradients, and where the squared norm is infinite, so that the run
    is seen to diverge. The source serves kernels too.
    """
    norm = np.sqrt(square)
    return clip_norm / norm if clip_norm < norm < np.inf else 1.0


def row_clip_factors(max_norm: float, norms: Any) -> Any:
    """Return the factors that scale gradients of rows down to a norm, (rows,); NaN for others.

    Parameters
    ----------
    max_norm : float
        The largest norm that a gradient keeps.
    norms : float64 array (rows,)
        The norms of the gradients. Those that are not finite have no factor.
    """
    return np.where(np.isfinite(norms), max_norm / np.maximum(norms, max_norm), np.nan)


def require_share(name: str, value: float) -> None:
    """Raise ValueError unless a hyperparameter is at least 0 and below 1."""
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name}={value!r} is not a number of at least 0 and below 1")


def require_above_zero(name: str, value: float) -> None:
    """Raise ValueError unless a hyperparameter is finite and above 0."""
    if not 0.0 < value < float("inf"):
        raise ValueError(f"{name}={value!r} is not a finite number above 0")


def require_not_negative(name: str, value: float) -> None:
    """Raise ValueError unless a hyperparameter is finite and at least 0."""
    if not 0.0 <= value < float("inf"):
        raise ValueError(f"{name}={value!r} is not a finite number of at least 0")


def require_flag(name: str, value: bool | float) -> None:
    """Raise ValueError unless a hyperparameter is True, False, 1 or 0."""
    if value not in (0, 1):
        raise ValueError(f"{name}={value!r} is not True or False")
