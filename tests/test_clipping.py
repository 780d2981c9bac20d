"""Gradients that are clipped: `clip_norm` of every optimizer, on every route of an update."""

from typing import Any

import numpy as np
import pytest

from ooc_train.errors import Diverged
from ooc_train.kernels.calling import load
from ooc_train.kernels.specs import KernelSpec
from ooc_train.models.gradient_updates import GradientUpdates
from ooc_train.models.linear_updates import LinearUpdates
from ooc_train.models.regression_models import LeastSquares
from ooc_train.objective.losses.squared import Squared
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.optimizers.schedules import Constant
from ooc_train.optimizers.sgd import Sgd
from ooc_train.runtime import clients
from ooc_train.solvers.training_settings import Training
from ooc_train.training.loop import train
from tests.streams import make_case, stream


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    monkeypatch.setattr(clients, "inside_another_job", lambda: True)


GRADIENTS = np.random.default_rng(0).normal(size=(5, 2, 3))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_longer_gradient_gets_the_norm_and_a_shorter_one_stays(name):
    optimizer = OPTIMIZERS[name](clip_norm=2.0)
    for g in GRADIENTS:
        norm = np.linalg.norm(g)
        np.testing.assert_allclose(optimizer.clipped(g), g * min(1.0, 2.0 / norm), rtol=1e-15)
    short = GRADIENTS[0] / 10
    np.testing.assert_array_equal(optimizer.clipped(short), short)
    np.testing.assert_array_equal(OPTIMIZERS[name]().clipped(1e9 * short), 1e9 * short)
    # A run whose gradients overflow is seen to diverge.
    np.testing.assert_array_equal(optimizer.clipped(1e300 * short), 1e300 * short)
    assert OPTIMIZERS.parse(f"{name}:clip_norm=2") == optimizer
    assert OPTIMIZERS.from_json(OPTIMIZERS.to_json(optimizer)) == optimizer


def moved(clip_norm: float, fit_intercept: bool, batch_size: int) -> Any:
    """The first update's step by the learning rate: of the scan, or of a pass over all rows."""
    case = make_case("squared", fit_intercept=fit_intercept)
    updates = LinearUpdates(
        case.problem, "<f8", batch_size, Sgd(clip_norm=clip_norm), Constant(), 0.1
    )
    theta = np.full(case.problem.shape, 0.5)
    theta[:, -1] *= fit_intercept
    (after,) = stream(case.source).scan(
        updates, [updates.start(theta)], seed=0, epoch=0, shuffle_chunks=10**6
    )
    sums = stream(case.source).reduce(case.problem.reduction(theta[None], gradients=1))
    gradient = case.problem.read(sums, theta[None]).gradient / case.problem.total_weight
    at_once = updates.step_by_all_rows(updates.start(theta), gradient)
    return (theta - after["theta"]) / 0.1, (theta - at_once["theta"]) / 0.1


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_scan_and_a_step_by_all_rows_clip_the_same_gradient(fit_intercept):
    rows = len(make_case("squared").y)
    (whole, at_once) = moved(0.0, fit_intercept, rows)
    np.testing.assert_allclose(whole, at_once, rtol=1e-9)
    norm = float(np.linalg.norm(whole))
    for share in (0.25, 4.0):
        for step in moved(share * norm, fit_intercept, rows):
            np.testing.assert_allclose(step, min(share, 1.0) * whole, rtol=1e-9)


def test_a_problem_with_gradients_of_blocks_clips_too():
    class Sums:
        n_rows, total_weight, l2 = 4, 4.0, 2.0

    problem: Any = Sums()
    updates = GradientUpdates(problem, 4, Sgd(clip_norm=1.0), Constant(), 0.1)
    after = updates.step_by_all_rows(updates.start(np.zeros(2)), np.array([30.0, 40.0]))
    np.testing.assert_allclose(after["theta"], [-0.06, -0.08], rtol=1e-12)


def test_the_compiled_kernel_agrees_with_numpy_when_it_is_loaded():
    assert not load("<f8", [KernelSpec("scan_groups", Squared, Sgd, clipped=True)])


def test_clipping_keeps_a_run_that_would_diverge():
    """One row in a hundred is a thousand times as large as the others."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    y = X @ np.array([1.0, 2.0, 3.0]) + 0.1 * rng.normal(size=400)
    X[::100] *= 1000.0
    y[::100] *= 1000.0
    settings: Any = {"batch_size": 1, "learning_rate": 0.05, "random_state": 0, "tol": 0.0}
    with pytest.raises(Diverged):
        train(LeastSquares(), X, Training(solver="sgd", max_iter=3, **settings), y=y)
    how = Training(solver="sgd:clip_norm=10", max_iter=40, **settings)
    fitted, report = train(LeastSquares(), X, how, y=y)
    assert report.loss < 0.7 * report.history[0].loss  # each update goes a little way
    assert fitted.training.solver == Sgd(clip_norm=10.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sgd:clip_norm=-1", "clip_norm=-1.0 is not a finite number of at least 0"),
        ("adam:clip_norm=inf", "clip_norm=inf is not"),
        ("adamw:clip_norm=nan", "clip_norm=nan is not"),
        ("sgd:clipnorm=1", "and not 'clipnorm': it is clip_norm, as in sgd:clip_norm=1"),
        ("adam:max_norm=1", "and not 'max_norm': it is clip_norm, as in sgd:clip_norm=1"),
    ],
)
def test_a_norm_that_cannot_be_used_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        Training(solver=text)
