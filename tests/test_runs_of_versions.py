"""Runs that earlier versions saved are read, and predict what they did."""

import json

import numpy as np
import pytest

import ooc_train
from ooc_train import load
from ooc_train.monitoring.run_page import run_page
from ooc_train.runs.report import report_of
from ooc_train.runs.run_loading import load_fitted
from tests.runs_of_versions import EXPECTED, FOLDER, KINDS, module, predictions

RUNS = sorted(path.parent for path in FOLDER.glob("*/*/model.json"))


def test_the_present_version_has_runs_of_each_kind():
    kept = {path.name for path in RUNS if path.parent.name == ooc_train.__version__}
    assert kept == {kind.replace(" ", "_") for kind in KINDS}, "python -m tests.runs_of_versions"


@pytest.mark.slow
@pytest.mark.parametrize(
    "run",
    [
        pytest.param(
            path,
            id=f"{path.parent.name} {path.name}",
            marks=[pytest.mark.slow] if path.name == "module" else [],
        )
        for path in RUNS
    ],
)
def test_a_run_predicts_what_it_did(run):
    kind = run.name.replace("_", " ")
    due = json.loads((run.parent / EXPECTED).read_text(encoding="utf-8"))[kind]
    code = module if kind == "module" else None
    fitted = load_fitted(run, code)
    found = predictions(fitted)
    assert found.keys() == due.keys()
    # PyTorch multiplies in float32.
    tolerance = 1e-5 if kind == "module" else 1e-12
    for name, values in due.items():
        np.testing.assert_allclose(found[name], values, rtol=tolerance, atol=tolerance)
    assert fitted.model.name in run_page(fitted, str(run))
    assert report_of(fitted.report, str(run)).n_rows >= 60
    estimator = load(run, module=code)
    assert estimator.to_fitted().classes == fitted.classes
