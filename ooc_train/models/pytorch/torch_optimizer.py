"""Optimizers and schedulers of PyTorch: how they are made, and their states as arrays."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ooc_train.core.sums import Sums
from ooc_train.models.pytorch.torch_parts import named
from ooc_train.models.pytorch.torch_settings import ModuleSettings, name_of
from ooc_train.optimizers.optimizer import Optimizer

_STATE, _VALUES = "optimizer", "slot "
"""Names in the state of a replica: the structure of the optimizer's state, and its arrays."""


@dataclass(frozen=True)
class TorchOptimizer(Optimizer):
    """The description of an optimizer of PyTorch, whose steps `TorchUpdates` takes.

    Attributes
    ----------
    title : str
        Name of the optimizer.
    sets : int
        How many numbers the optimizer keeps for each parameter.
    rate : float
        The optimizer's initial learning rate.
    """

    title: str = ""
    sets: int = 0
    rate: float = 1e-3

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the optimizer in reports."""
        return self.title

    @property
    def slot_powers(self) -> tuple[int, ...]:  # type: ignore[override]
        """One entry for each number that the optimizer keeps for a parameter."""
        return (1,) * self.sets


def optimizer_of(model: ModuleSettings) -> TorchOptimizer:
    """Return the description of a model's optimizer, found by a step on a 2 x 2 parameter.

    Raises
    ------
    ValueError
        If it can't be made, or takes no steps by gradients alone.
    """
    cls = optimizer_class(model)
    param = torch.nn.Parameter(torch.ones(2, 2))
    param.grad = torch.ones(2, 2)
    made = make_optimizer(model, [param])
    try:
        made.step()
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"optimizer={name_of(cls)} takes no step by the gradient alone ({error}); use another "
            "one, or batch_size='full' with solver='lbfgs'"
        ) from error
    kept = made.state.get(param, {}).values()
    sets = sum(isinstance(value, torch.Tensor) and value.shape == (2, 2) for value in kept)
    if model.scheduler is not None:
        scheduler_of(model, make_optimizer(model, [param]), 2)
    return TorchOptimizer(title=name_of(cls), sets=sets, rate=float(made.param_groups[0]["lr"]))


def optimizer_class(model: ModuleSettings) -> Any:
    """Return the class of a model's optimizer."""
    return named("optimizer", model.optimizer or "Adam", torch.optim)


def make_optimizer(model: ModuleSettings, params: Any, rate: float | None = None) -> Any:
    """Return a new optimizer for parameters, with learning rate `rate` if that is given.

    Raises
    ------
    ValueError
        If it can't be made.
    """
    cls, settings = optimizer_class(model), dict(model.optimizer_parameters or {})
    if rate is not None:
        settings["lr"] = rate
    try:
        made = cls(params, **settings)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"optimizer={name_of(cls)} can't be made of optimizer_parameters={settings}: {error}"
        ) from error
    if not isinstance(made, torch.optim.Optimizer) or "lr" not in made.param_groups[0]:
        raise ValueError(f"optimizer={name_of(cls)} is no optimizer of PyTorch with an lr")
    return made


def scheduler_of(model: ModuleSettings, optimizer: Any, epochs: int) -> Any:
    """Return a new scheduler, advanced by `epochs` steps.

    Raises
    ------
    ValueError
        If it can't be made, or needs a loss.
    """
    cls = named("scheduler", model.scheduler, torch.optim.lr_scheduler)
    parameters = dict(model.scheduler_parameters or {})
    try:
        made = cls(optimizer, **parameters)
        for _ in range(epochs):
            # A scheduler warns unless the optimizer has made a step since.
            optimizer._opt_called = True  # noqa: SLF001
            made.step()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"scheduler={name_of(cls)} of {parameters} fails: {error}; a scheduler takes a step "
            "after each epoch, without its loss (schedule='plateau' follows that)"
        ) from error
    return made


def save_state(optimizer: Any, state: Sums) -> None:
    """Write the optimizer's state into the state of a replica, as arrays."""
    for name in [name for name in state if name.startswith(_VALUES)]:
        del state[name]
    structure: dict[str, dict[str, Any]] = {}
    for i, values in optimizer.state_dict()["state"].items():
        structure[str(i)] = {}
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                array = value.detach().cpu().numpy()
                state[f"{_VALUES}{i} {key}"] = array.reshape(-1).copy()
                value = {"shape": list(array.shape), "device": value.device.type}
            structure[str(i)][key] = value
    text = json.dumps({"class": name_of(type(optimizer)), "state": structure})
    state[_STATE] = np.frombuffer(text.encode(), np.uint8).copy()


def load_state(optimizer: Any, state: Mapping[str, Any]) -> None:
    """Restore what `save_state` wrote, if it was for an optimizer of the same class."""
    if not len(state[_STATE]):
        return
    found = json.loads(state[_STATE].tobytes())
    if found["class"] != name_of(type(optimizer)):
        return
    restored: dict[int, dict[str, Any]] = {}
    for i, values in found["state"].items():
        restored[int(i)] = {}
        for key, value in values.items():
            if isinstance(value, dict):
                array = np.array(state[f"{_VALUES}{i} {key}"]).reshape(value["shape"])
                value = torch.from_numpy(array)
            restored[int(i)][key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": restored, "param_groups": groups})


def empty_state() -> Sums:
    """Return the part of a replica's state for an optimizer before its first step."""
    return {_STATE: np.empty(0, np.uint8)}


def averaged_names(state: Mapping[str, Any]) -> list[str]:
    """Return the names of an optimizer's arrays in a replica's state; replicas average them."""
    return [name for name in state if name.startswith(_VALUES)]
