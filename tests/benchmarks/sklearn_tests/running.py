"""A module of scikit-learn's tests in a process of its own, with ours in place of theirs."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import sklearn

MODULES: Mapping[str, str] = MappingProxyType(
    {
        "coordinate_descent": "linear_model/tests/test_coordinate_descent.py",
        "glm": "linear_model/_glm/tests/test_glm.py",
        "huber": "linear_model/tests/test_huber.py",
        "logistic": "linear_model/tests/test_logistic.py",
        "quantile": "linear_model/tests/test_quantile.py",
        "ridge": "linear_model/tests/test_ridge.py",
        "sgd": "linear_model/tests/test_sgd.py",
        "svm": "svm/tests/test_svm.py",
    }
)
"""The modules, by short names."""

_HOME = Path(sklearn.__file__).parent
_PLUGIN = "tests.benchmarks.sklearn_tests.plugin"


@dataclass(frozen=True)
class Outcome:
    """How a test ended.

    Attributes
    ----------
    test : str
        Its name, with parameters.
    outcome : str
        "passed", "failed" or "skipped".
    used : bool
        Whether an estimator or a function of ours took part.
    translated : list of str
        Settings of how scikit-learn computes that were left out, and "sparse X".
    text : str
        The error of a failed test.
    """

    test: str
    outcome: str
    used: bool
    translated: list[str]
    text: str


def outcomes_of(module: str, *, only: str = "", again: Sequence[str] = ()) -> list[Outcome]:
    """Run the tests of a module, and return how those ended that use ours.

    Parameters
    ----------
    module : str
        A name of `MODULES`.
    only : str
        An expression of pytest's ``-k``; empty for all tests.
    again : sequence of str
        Names of tests to run at a tight tolerance; empty for all tests, at their own.

    Raises
    ------
    RuntimeError
        If pytest did not get to the end.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, names = Path(folder, "outcomes"), Path(folder, "names")
        path.touch()
        names.write_text("\n".join(again), encoding="utf8")
        command = [
            sys.executable, "-m", "pytest", "-q", "--tb=no", f"--rootdir={_HOME}", "-c", os.devnull,
            "--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", _PLUGIN,
            "-k", only, str(_HOME / MODULES[module]),
        ]  # fmt: skip
        environment = {
            **os.environ,
            "OOC_TRAIN_OUTCOMES": str(path),
            "OOC_TRAIN_TIGHT": str(names) if again else "",
        }
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        if ended.returncode not in (0, 1):
            raise RuntimeError(f"pytest ended with {ended.returncode}: {ended.stdout[-2_000:]}")
        lines = path.read_text(encoding="utf8").splitlines()
    found = [Outcome(**json.loads(line)) for line in lines]
    return [each for each in found if each.used and each.outcome != "skipped"]
