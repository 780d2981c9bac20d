"""The parts of a model of PyTorch: modules, criteria and optimizers, made from settings."""

import copy
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from ooc_train.core.schema import shown
from ooc_train.models.pytorch.torch_settings import ModuleSettings, NetworkSpec, name_of
from ooc_train.models.scale_setting import factor_of


def _made(part: str, value: Any, parameters: Mapping[str, Any] | None, library: Any) -> Any:
    """Call a class or function with its parameters, and return the result; copy an object.

    Parameters
    ----------
    part : str
        The name of the setting, for messages.
    value : class, function, object or str
        What was set. Text names a class of `library`.
    """
    value = named(part, value, library)
    if isinstance(value, torch.nn.Module):
        if parameters:
            raise ValueError(
                f"{part}_parameters={parameters} are for a class or function, and {part} is "
                "an object; leave them out, or give its class"
            )
        return copy.deepcopy(value)
    try:
        return value(**(parameters or {}))
    except TypeError as error:
        raise ValueError(
            f"{part}={name_of(value)} can't be made of {part}_parameters={parameters}: {error}"
        ) from error


def named(part: str, value: Any, library: Any) -> Any:
    """Return the class that a text names in a library; return other values as they are."""
    if not isinstance(value, str):
        return value
    found = getattr(library, value, None) if value.isidentifier() else None
    if not inspect.isclass(found):
        raise ValueError(
            f"{part}={shown(value)} is the name of no class of {library.__name__}; give the class "
            "or function itself"
        )
    return found


def module_of(model: ModuleSettings) -> torch.nn.Module:
    """Return a new module, made from a model's settings.

    Raises
    ------
    ValueError
        If there is none, or if it has no parameters, or some that are no floats.
    """
    if model.module is None or isinstance(model.module, str):
        raise ValueError(
            f"module={shown(model.module)} is no module; give the class, a function that makes "
            "a module, or a module, as module= of the model, or of load(path, module=...)"
        )
    made = _made("module", model.module, model.module_parameters, torch.nn)
    if not isinstance(made, torch.nn.Module):
        raise ValueError(  # noqa: TRY004 (as for other settings)
            f"module={name_of(model.module)} makes a {type(made).__name__}, and no torch.nn.Module"
        )
    values = list(made.parameters())
    if not any(value.requires_grad for value in values):
        raise ValueError(
            f"module={name_of(model.module)} has no parameters to learn; use layers that have some"
        )
    if any(isinstance(value, torch.nn.parameter.UninitializedParameter) for value in values):
        raise ValueError("lazy layers have no shapes yet; give their numbers of inputs")
    if len({value.dtype for value in values}) > 1 or values[0].dtype not in (
        torch.float32,
        torch.float64,
    ):
        kinds = ", ".join(sorted({str(value.dtype) for value in values}))
        raise ValueError(f"the module has parameters of the types {kinds}; use float32 for all")
    return made


def row_scaling(
    spec: NetworkSpec, dtype: torch.dtype, device: torch.device
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function that scales rows (rows, features) as a spec says, for its module."""
    if spec.channel_scale:
        moments = torch.tensor([spec.channel_mean, spec.channel_scale], dtype=torch.float64)
        mean, scale = moments.to(device, dtype)
        # The rows may lie in memory of the stream, which the subtraction leaves as they are.
        return lambda rows: (rows.view(-1, len(mean)) - mean).div_(scale).view(len(rows), -1)
    divisor = 1.0 / factor_of(spec.model.scale)
    # Pixels divided by 255 are the floats that others store as such.
    return lambda rows: rows if divisor == 1.0 else rows / divisor


Criterion = Callable[[Any, Any], Any]


def criterion_of(model: ModuleSettings) -> Criterion:
    """Return the criterion; one of torch.nn gives a loss for each row.

    Raises
    ------
    ValueError
        If its mean over rows is none by the weights of the rows.
    """
    default = "CrossEntropyLoss" if model.is_classifier else "MSELoss"
    value = named("criterion", model.criterion or default, torch.nn)
    if not inspect.isclass(value) and not isinstance(value, torch.nn.Module):
        return partial(value, **(model.criterion_parameters or {}))
    made: Any = _made("criterion", value, model.criterion_parameters, torch.nn)
    name = name_of(value)
    if isinstance(made, torch.nn.BCELoss):
        raise ValueError(  # noqa: TRY004 (as for other settings)
            "criterion=BCELoss takes probabilities, and classes are predicted by the logistic "
            "function of outputs; use BCEWithLogitsLoss, and a module without a sigmoid at its end"
        )
    if getattr(made, "weight", None) is not None:
        raise ValueError(
            f"criterion={name} has weights of its own; give class_weight, or sample_weight"
        )
    if hasattr(made, "reduction"):
        if made.reduction not in ("mean", "none"):
            raise ValueError(
                f"criterion={name} has reduction={made.reduction!r}, and the objective is a mean "
                "over rows; use reduction='mean'"
            )
        made.reduction = "none"
    if isinstance(made, torch.nn.Module):
        made.eval()
    return made  # type: ignore[no-any-return]
