import subprocess
import sys

import pytest

import ooc_train

# The public names. Changing this list changes the interface: say so in CHANGELOG.md.
EXPORTED: list[str] = []


def test_the_public_names_are_these():
    assert sorted(getattr(ooc_train, "__all__", [])) == EXPORTED


def test_every_public_name_is_there():
    for name in EXPORTED:
        assert getattr(ooc_train, name) is not None
    assert set(EXPORTED) <= set(dir(ooc_train))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        ooc_train.no_such_name  # type: ignore[attr-defined]


def test_importing_the_package_loads_nothing_before_it_is_asked_for():
    code = "import sys, ooc_train; print(*{'numpy', 'dask', 'zarr', 'numba'} & sys.modules.keys())"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []
