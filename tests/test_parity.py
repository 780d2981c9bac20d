"""A part of `python -m tests.benchmarks.parity`: small sets, against the optimum in memory."""

from dataclasses import replace

import numpy as np
import pytest

import ooc_train
from ooc_train.core.threads import one_blas_thread
from tests.benchmarks.parity.__main__ import line
from tests.benchmarks.parity.data import rows_of
from tests.benchmarks.parity.objectives import LOSSES, Objective, Solution
from tests.benchmarks.parity.problems import PROBLEMS, compare

QUICK = ("breast cancer, weighted", "wine", "diabetes, weighted")
CASES = [
    pytest.param(
        name, data, task, id=f"{name} on {data}", marks=() if data in QUICK else pytest.mark.slow
    )
    for name, problem in PROBLEMS.items()
    for data in (*QUICK, "ill-conditioned")
    for task in sorted(problem.takes(data))
]


@pytest.mark.parametrize(("name", "data", "task"), CASES)
def test_every_estimator_ends_at_the_optimum(name, data, task):
    with one_blas_thread():  # small sets, beside other tests
        outcome = compare(name, data, rows_of(data, task))
    assert not outcome.missed, line(outcome)


def test_another_penalty_is_told_of(monkeypatch):
    wrong = replace(
        PROBLEMS["Ridge"], ours=lambda **more: ooc_train.Ridge(alpha=1.01, **more), passes={"": 0.0}
    )
    monkeypatch.setitem(PROBLEMS, "Ridge", wrong)
    outcome = compare("Ridge", "diabetes", rows_of("diabetes", "real"))
    assert outcome.missed == ["coefficients"]  # the objective is flat at its optimum
    assert outcome.tight.objective > 0.0
    assert line(outcome)[-1] == "MISSED: coefficients"


@pytest.mark.parametrize("loss", [name for name in LOSSES if name not in ("hinge", "pinball 0.8")])
def test_slopes_and_curvatures_are_those_of_the_losses(loss):
    rng = np.random.default_rng(0)
    z = rng.standard_normal(200)
    y = np.sign(rng.standard_normal(200)) if "hinge" in loss else rng.gamma(2.0, size=200)
    step = 1e-5
    up, down, (_, slope, curvature) = (LOSSES[loss](y, z + move) for move in (step, -step, 0.0))
    np.testing.assert_allclose(slope, (up[0] - down[0]) / (2 * step), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(curvature, (up[1] - down[1]) / (2 * step), rtol=1e-6, atol=1e-6)


def test_the_optimum_is_no_higher_beside_it():
    rng = np.random.default_rng(0)
    rows = rows_of("breast cancer, weighted", "binary")
    for objective in (
        Objective("hinge", l2=1.0),
        Objective("squared hinge", l2=1.0),
        Objective("logistic", l1=3.0),
        Objective("huber", l2=1e-2),
    ):
        n = rows.X.shape[1]
        best = objective.optimum(*rows, Solution(np.zeros((1, n)), np.zeros(1)))
        least = objective.value(*rows, best)
        for _ in range(20):
            beside = Solution(
                best.coef + 1e-4 * rng.standard_normal((1, n)),
                best.intercept + 1e-4 * rng.standard_normal(1),
                best.scale,
            )
            assert objective.value(*rows, beside) > least * (1.0 - 1e-9)
