"""The loading of PyTorch and a module's file, before the memory of processes is measured."""

from collections.abc import Callable
from functools import partial

from ooc_train.core.optional_packages import needed_package
from ooc_train.models.pytorch.torch_settings import NetworkSpec


def loads_of_module(spec: NetworkSpec) -> tuple[Callable[[], None], ...]:
    """Return (a function,), which loads PyTorch and the user's file of the module."""
    return (partial(_load, spec),)


def _load(spec: NetworkSpec) -> None:
    with needed_package("torch", "models of PyTorch"):
        from ooc_train.models.pytorch.torch_network import warm_up

    warm_up(spec)
