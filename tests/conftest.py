"""Fixtures that more than one file uses."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

DATA = Path(__file__).parent.parent / "data"


def data_script(name: str) -> ModuleType:
    """Import a script of the folder data/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DATA / f"{name}.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(DATA / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The stores of the flights, training and test rows: made once, not to be written to."""
    path = tmp_path_factory.mktemp("flights") / "flights.zarr"
    train, test = data_script("flights_store").make_flights_store(str(path))
    return train, test
