"""Descriptions of the settings `solver` and `tol`: a line for each solver that a model has."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from ooc_train.core.settings import ITEM
from ooc_train.optimizers import OPTIMIZERS

_OPTIMIZERS = ", ".join(OPTIMIZERS)

_SOLVERS: Mapping[str, str] = MappingProxyType(
    {
        "gram": "gram: least squares by the Gram matrix, in one pass.",
        "coordinate-descent": "coordinate-descent: least squares with l1 or positive weights.",
        "newton": "newton: the fewest passes, for up to some hundred parameters.",
        "proximal-newton": "proximal-newton: newton with an l1 penalty.",
        "lbfgs": "lbfgs: for more parameters.",
        "block-lbfgs": "block-lbfgs: lbfgs with the Hessian of each output, for several outputs.",
        "proximal-lbfgs": "proximal-lbfgs: lbfgs with an l1 penalty.",
        "smoothing": "smoothing: for losses with kinks, and Huber's.",
        "updates": f"{_OPTIMIZERS}: updates by batches, with settings as "
        '"momentum:momentum=0.8,nesterov=1".',
        "private": "private:noise_multiplier=1.1,max_grad_norm=1: updates by clipped rows and "
        "noise, with a budget of privacy.",
    }
)

_GRADIENT = "the largest entry of the gradient of the mean objective is at most this"

_CONVERGED: Mapping[str, str] = MappingProxyType(
    {
        "newton": _GRADIENT,
        "proximal-newton": _GRADIENT,
        "lbfgs": _GRADIENT,
        "block-lbfgs": _GRADIENT,
        "proximal-lbfgs": _GRADIENT,
        "coordinate-descent": "the duality gap is at most this share of the sum of squares of y; "
        "without l1, the cosine of residuals and each column is at most this",
        "smoothing": "the duality gap is at most this share of the objective",
        "updates": "`n_iter_no_change` epochs in a row each gained less mean loss than this",
    }
)
"""When a solver has converged. "gram" needs no tolerance, and private updates have none."""


def solver_text(solvers: Collection[str]) -> str:
    """Return the description of the setting `solver`, for the names in `Model.solvers`."""
    lines = [text for name, text in _SOLVERS.items() if name in solvers]
    objects = "Also an `Optimizer`" + (
        ", or a `DifferentiallyPrivate`." if "private" in solvers else "."
    )
    objects = objects if "updates" in solvers else ""
    return ITEM.join([f'How the model is learned; "auto" chooses. {objects}'.rstrip(), *lines])


def tol_text(solvers: Collection[str], default: str) -> str:
    """Return the description of the setting `tol`, and of the default that None stands for."""
    names: dict[str, list[str]] = {}
    for name, text in _CONVERGED.items():
        if name in solvers:
            names.setdefault(text, []).append("updates by batches" if name == "updates" else name)
    lines = [f"{', '.join(each)}: {text}." for text, each in names.items()]
    return ITEM.join([f"Tolerance at which a run has converged. None is {default}.", *lines])
