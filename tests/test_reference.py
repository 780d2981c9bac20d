"""The reference: a page for each public name, and an example of each function and estimator."""

import inspect
import json

import pytest

import ooc_train
from tests.reference.site import build, rooms

NAMES: list[str] = getattr(ooc_train, "__all__", [])

NO_CALLS = {
    "LocalCluster": "it starts processes",
    "MLflow": "it needs a package that is not installed here",
    "TensorBoard": "it needs a package that is not installed here",
    "Recipe": "`ingest` makes it",
    "training_link": "it needs a cluster",
}
"""Names without an example, and why."""


def is_called(name: str) -> bool:
    """Whether a person calls it: a function, or a class other than results, bases and errors."""
    value = getattr(ooc_train, name)
    if inspect.isfunction(value):
        return True
    if not inspect.isclass(value) or inspect.isabstract(value) or issubclass(value, Exception):
        return False
    home = value.__module__
    return "estimators" in home or (name.endswith("Model") and name != "Model")


def test_each_public_name_is_of_one_room():
    found = [name for names in rooms().values() for name in names]
    assert sorted(found) == sorted(NAMES)


@pytest.mark.parametrize("name", sorted({*filter(is_called, NAMES)} - {*NO_CALLS}))
def test_each_docstring_of_what_is_called_has_an_example(name):
    doc = inspect.getdoc(getattr(ooc_train, name)) or ""
    assert "Examples\n--------\n>>> " in doc
    assert doc.index("Examples\n----") > doc.rfind("Attributes\n----")


@pytest.mark.slow
def test_the_site_has_a_page_for_each_name_and_a_search(tmp_path):
    assert not build(tmp_path / "sources", tmp_path / "site")
    index = json.loads(
        (tmp_path / "site" / "searchindex.js").read_text().partition("(")[2].rstrip(")\n;")
    )
    titles = {title.lower() for title in index["alltitles"]}
    for name in NAMES:
        page = (tmp_path / "site" / "names" / f"{name}.html").read_text(encoding="utf8")
        assert name.lower() in titles
        assert f"{name}</span>" in page, f"the page of {name} does not show it"
