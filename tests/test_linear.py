"""Sums of a loss against the objective said in NumPy, its differences, and themselves."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.linalg import block_diag
from scipy.special import logsumexp

from ooc_train.core.packing import packed_size
from ooc_train.core.sums import ArraySpec, Block, row_weights, total_bytes
from ooc_train.errors import NonFiniteData
from ooc_train.kernels import api as kernels
from ooc_train.models.linear_objective import _COMPILED_WORK
from ooc_train.models.loss_sums import LossSums
from ooc_train.objective.losses import LOSSES
from tests.streams import Case, Cut, make_case, stream

LOSSES_AND_OUTPUTS = [
    *[("squared", 1), ("squared", 3), ("logistic", 1), ("multinomial", 3)],
    ("squared_hinge", 3),  # one against the rest
]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"weighted": True},
    {"fit_intercept": False, "weighted": True},
    {"standardize": True},
    {"l2": 0.0},
]


def _cases():
    for (loss, outputs), settings in product(LOSSES_AND_OUTPUTS, SETTINGS):
        yield pytest.param(loss, outputs, settings, id=f"{loss}{outputs}-{'-'.join(settings)}")
    for loss, outputs in (("logistic", 1), ("multinomial", 3), ("squared_hinge", 3)):
        settings = {"class_weight": True, "weighted": True}
        yield pytest.param(loss, outputs, settings, id=f"{loss}{outputs}-class_weight")
    settings = {"class_weight": True, "own_class_weight": True, "weighted": True}
    yield pytest.param("squared_hinge", 3, settings, id="squared_hinge3-own_class_weight")


CASES = list(_cases())


def point(case: Case, seed: int = 1):
    """Parameters away from zero; without an intercept that of `theta` is zero."""
    rng = np.random.default_rng(seed)
    theta = 0.5 * rng.normal(size=case.problem.initial().shape)
    if not case.problem.fit_intercept:
        theta[:, -1] = 0.0
    return theta


def plain_objective(case: Case, theta) -> float:
    """The objective in the data's units, by other code than that under test."""
    problem, X, y = case.problem, case.source.X.astype(float), case.y
    coef = theta[:, :-1] / problem.scaling.scale
    z = (X - problem.scaling.mean) @ coef.T + theta[:, -1]
    if problem.loss.name == "squared":
        losses = ((z - y) ** 2).sum(axis=1) / 2
    elif problem.loss.name == "logistic":
        losses = (np.logaddexp(0, z) - y * z)[:, 0]
    elif problem.loss.name == "squared_hinge":
        sides = np.where(y == np.arange(z.shape[1]), 1.0, -1.0)
        losses = np.maximum(1.0 - sides * z, 0.0) ** 2
        if problem.own_class_weight and problem.class_weight is not None:
            # The weight of the class is no part of those of other outputs.
            losses /= np.where(sides > 0, 1.0, problem.class_weight[y.astype(int)])
        losses = losses.sum(axis=1)
    else:
        losses = logsumexp(z, axis=1) - z[np.arange(len(z)), y[:, 0].astype(int)]
    weights = coef * problem.scaling.scale if problem.standardize else coef
    return float(case.row_weights @ losses + problem.penalty.l2 / 2 * (weights**2).sum())


def differences(function, at, h=1e-5):
    """Central differences of a function of theta, by each entry of theta."""
    slopes = []
    for i in range(at.size):
        step = np.zeros(at.size)
        step[i] = h
        up, down = (function(at + sign * step.reshape(at.shape)) for sign in (1, -1))
        slopes.append((up - down) / (2 * h))
    return np.array(slopes)


def evaluation(case: Case, theta, **sums):
    points = theta[None]
    return case.problem.read(
        stream(case.source).reduce(case.problem.reduction(points, **sums)), points
    )


@pytest.mark.parametrize(("loss", "outputs", "settings"), CASES)
def test_objective_and_gradient_are_those_of_the_plain_objective(loss, outputs, settings):
    case = make_case(loss, outputs, **settings)
    theta = point(case)
    found = evaluation(case, theta)
    assert found.objective == pytest.approx(plain_objective(case, theta), rel=1e-13)
    slopes = differences(lambda at: plain_objective(case, at), theta).reshape(theta.shape)
    if not case.problem.fit_intercept:
        assert not found.gradient[:, -1].any()
        slopes[:, -1] = 0.0
    np.testing.assert_allclose(found.gradient, slopes, rtol=1e-7, atol=1e-6)
    assert found.hessian is None


@pytest.fixture(params=["blas", "compiled"])
def how_hessians_are_made(request, monkeypatch):
    least = 0 if request.param == "compiled" else 2**34
    monkeypatch.setattr("ooc_train.models.linear_objective._COMPILED_WORK", least)


@pytest.mark.usefixtures("how_hessians_are_made")
@pytest.mark.parametrize(("loss", "outputs", "settings"), CASES)
def test_hessian_is_how_the_gradient_changes(loss, outputs, settings):
    case = make_case(loss, outputs, **settings)
    theta = point(case)
    blocks = evaluation(case, theta, hessian=True).hessian
    assert blocks is not None
    assert blocks.shape == case.problem.hessian_shape
    hessian = block_diag(*blocks)
    bends = differences(lambda at: evaluation(case, at).gradient.ravel(), theta)
    if not case.problem.fit_intercept:
        free = np.arange(theta.size).reshape(theta.shape)[:, -1]
        np.testing.assert_array_equal(hessian[free], np.eye(theta.size)[free])
        bends[free, :] = bends[:, free] = 0.0
        bends[free, free] = 1.0
    np.testing.assert_allclose(hessian, bends, rtol=1e-6, atol=2e-6)
    np.testing.assert_array_equal(hessian, hessian.T)


@pytest.mark.parametrize(("loss", "outputs", "settings"), CASES)
def test_compiled_rows_and_scaled_pieces_say_the_same(loss, outputs, settings):
    case = make_case(loss, outputs, rows=701, partition_rows=400, dtype="<f4", **settings)
    theta = np.stack([point(case, seed) for seed in (1, 2, 3)])
    compiled = stream(case.source).reduce(case.problem.reduction(theta, gradients=2))
    assert case.problem.n_rows * case.problem.n_parameters**2 < _COMPILED_WORK
    pieces = stream(case.source).reduce(case.problem.reduction(theta, gradients=2, hessian=True))
    assert pieces.keys() - compiled.keys() == {"hessian"}
    for name, expected in compiled.items():
        size = np.abs(expected).max()
        np.testing.assert_allclose(pieces[name], expected, rtol=1e-12, atol=1e-12 * size)


@pytest.mark.parametrize("features", [1, 3, 15, 16, 40])
@pytest.mark.parametrize(("loss", "outputs", "settings"), CASES)
def test_compiled_hessians_are_those_of_blas(monkeypatch, loss, outputs, settings, features):
    case = make_case(
        loss, outputs, rows=401, partition_rows=150, features=features, dtype="<f4", **settings
    )
    theta = point(case)[None]
    by_blas = stream(case.source).reduce(case.problem.reduction(theta, hessian=True))
    monkeypatch.setattr("ooc_train.models.linear_objective._COMPILED_WORK", 0)
    compiled = stream(case.source).reduce(case.problem.reduction(theta, hessian=True))
    for name, expected in by_blas.items():
        size = np.abs(expected).max()
        np.testing.assert_allclose(compiled[name], expected, rtol=1e-12, atol=1e-13 * size)


def test_bits_of_a_compiled_hessian_do_not_depend_on_where_arrays_lie():
    rng, found = np.random.default_rng(0), set()
    X, c = rng.normal(size=(70, 13)).astype("f4"), rng.uniform(size=70)
    mean, scale = rng.normal(size=13), rng.uniform(1, 2, 13)
    for slack in (0, 1, 3):
        behind = np.concatenate([np.zeros((slack, 13), "f4"), X])[slack:]
        T, W = np.full((2, 8 + slack, 16), np.nan)
        sums = np.zeros(packed_size(14))
        kernels.add_outer_products(behind, np.empty((70, 0)), c, mean, scale, T, W, sums)
        found.add(sums.tobytes())
    assert len(found) == 1


@pytest.mark.parametrize("how", [{}, {"hessian": True}], ids=["compiled", "pieces"])
@pytest.mark.parametrize(("loss", "outputs"), LOSSES_AND_OUTPUTS)
def test_models_on_one_stream_are_each_as_if_alone(loss, outputs, how):
    case = make_case(loss, outputs, weighted=True)
    theta = np.stack([point(case, seed) for seed in range(4)])
    together = stream(case.source).reduce(case.problem.reduction(theta, gradients=3, **how))
    assert together["loss"].shape == (4,)
    assert together["gradient"].shape == (3, *theta.shape[1:])
    for m in range(4):
        alone = stream(case.source).reduce(case.problem.reduction(theta[m : m + 1], **how))
        np.testing.assert_allclose(together["loss"][m], alone["loss"][0], rtol=1e-13)
        if m < 3:
            np.testing.assert_allclose(
                together["gradient"][m], alone["gradient"][0], rtol=1e-11, atol=1e-12
            )
        if m == 0 and how:
            np.testing.assert_allclose(together["hessian"], alone["hessian"], rtol=1e-13)
    objectives = case.problem.objectives(together, theta)
    assert objectives == pytest.approx([plain_objective(case, t) for t in theta], rel=1e-13)


@pytest.mark.parametrize("how", [{}, {"hessian": True}])
def test_a_weight_of_zero_leaves_a_row_out_and_one_of_two_takes_it_twice(how):
    case = make_case("multinomial", 3, rows=30)
    keep = np.r_[1:30, 1:5]
    weight = np.r_[0.0, np.full(4, 2.0), np.ones(25)]
    theta = point(case)[None]
    X, y = case.source.X, case.y
    work = case.problem.reduction(theta, **how)
    weighted = stream(Cut(X, y, weight)).reduce(work)
    repeated = stream(Cut(X[keep], y[keep])).reduce(work)
    assert weighted["weight"] == repeated["weight"] == 33
    for name in {"loss", "gradient", *how}:
        np.testing.assert_allclose(weighted[name], repeated[name], rtol=1e-12, atol=1e-12)


def test_class_weights_multiply_the_rows_weights():
    case = make_case("multinomial", 3, weighted=True, class_weight=True)
    theta = point(case)[None]
    by_class = stream(case.source).reduce(case.problem.reduction(theta))
    by_row = Cut(case.source.X, case.y, case.row_weights)
    same = stream(by_row).reduce(replace(case.problem, class_weight=None).reduction(theta))
    for name, expected in same.items():
        np.testing.assert_allclose(by_class[name], expected, rtol=1e-13)
    block = Block(case.source.X, case.y, None)
    weights = row_weights(block, np.array([1.0, 10.0, 100.0]))
    np.testing.assert_array_equal(weights, 10.0 ** case.y[:, 0])
    assert row_weights(block, None) is None


@pytest.mark.parametrize("how", [{}, {"hessian": True}], ids=["compiled", "pieces"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("where", "said"), [("X", "in column 2 of X"), ("y", "in y"), ("weight", "in sample_weight")]
)
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_what_is_not_finite_is_named_by_its_row(where, said, value, how, start):
    case = make_case("squared", 1, weighted=True)
    arrays: dict[str, Any] = {"X": case.source.X, "y": case.y, "weight": case.source.weight}
    arrays[where] = arrays[where].copy()
    arrays[where][(51, 2) if where == "X" else 51] = value
    source = Cut(**arrays)
    theta = start * point(case)[None]
    with pytest.raises(NonFiniteData, match=rf"row 51 has {value} {said}; drop or fill"):
        stream(source).reduce(case.problem.reduction(theta, **how))


def test_a_loss_that_overflows_on_finite_data_is_left_to_the_solver():
    case = make_case("squared", 1)
    theta = np.full((1, 1, 5), 1e200)
    assert np.isinf(stream(case.source).reduce(case.problem.reduction(theta))["loss"]).all()


def test_sums_of_a_loss_need_y():
    case = make_case()
    source = Cut(case.source.X)
    with pytest.raises(ValueError, match="needs y"):
        stream(source).reduce(case.problem.reduction(case.problem.initial()[None]))


@pytest.mark.parametrize("how", [{}, {"hessian": True}])
@pytest.mark.parametrize("rows", [1, 100, 5000])
def test_rooms_are_bounded_and_enough(rows, how):
    case = make_case("multinomial", 3, rows=rows)
    work = case.problem.reduction(case.problem.initial()[None], **how)
    rooms = work.workspace(rows)
    arrays = {name: np.full(room.shape, np.nan) for name, room in rooms.items()}
    sums = work.zeros()
    work.add(sums, Block(case.source.X, case.y, None), arrays)
    assert sums["rows"] == rows
    assert all(np.isfinite(array).all() for array in sums.values())
    assert how == {} or total_bytes(rooms) <= 2 * 2**21
    assert ArraySpec((3, 5), "<f4").nbytes == 64  # a whole cache line


def test_mean_loss_is_by_weight():
    case = make_case("logistic", weighted=True, class_weight=True)
    found = evaluation(case, case.problem.initial())
    assert found.loss == pytest.approx(np.log(2), rel=1e-14)
    assert isinstance(case.problem.reduction(found.params[None]), LossSums)
    assert case.problem.loss == LOSSES["logistic"]()
