"""A plugin of pytest that puts ours in the place of scikit-learn's, and writes what tests do.

The environment has `OOC_TRAIN_OUTCOMES`, a file for a line of JSON a test, and
`OOC_TRAIN_TIGHT`, the file of the tests to run again at a tight tolerance; empty for a first run.
"""

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.sklearn_tests import stand_ins
from tests.benchmarks.sklearn_tests.stand_ins import Notes

_OUTCOMES = Path(os.environ["OOC_TRAIN_OUTCOMES"])
_AGAIN = os.environ["OOC_TRAIN_TIGHT"]
_MOST_CHARACTERS = 600

# Before any test module imports them.
stand_ins.put_in_place(tight=bool(_AGAIN))


def name_of(item: pytest.Item) -> str:
    """Return the name of a test in one line: parameters may be the text of an estimator."""
    return " ".join(item.nodeid.partition("::")[2].replace("\\n", " ").split())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that are to run again."""
    if _AGAIN:
        names = set(Path(_AGAIN).read_text(encoding="utf8").splitlines())
        items[:] = [item for item in items if name_of(item) in names]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Forget what the test before used."""
    del item
    Notes.used = False
    Notes.translated.clear()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: Any
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write how a test ended."""
    report = yield
    if report.when == "call" or report.outcome != "passed":
        text = "" if call.excinfo is None else f"{call.excinfo.typename}: {call.excinfo.value}"
        line = {
            "test": name_of(item),
            "outcome": report.outcome,
            "used": Notes.used,
            "translated": sorted(Notes.translated),
            "text": " ".join(text.split())[:_MOST_CHARACTERS],
        }
        with _OUTCOMES.open("a", encoding="utf8") as file:
            file.write(json.dumps(line) + "\n")
    return report
