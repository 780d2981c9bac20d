"""Gram matrices and column sums against NumPy, also where columns lie far from zero."""

from typing import Any

import numpy as np
import pytest

from ooc_train.core.packing import unpacked
from ooc_train.core.sums import Block
from ooc_train.errors import NonFiniteData
from ooc_train.models.column_moments import ColumnSums
from ooc_train.models.gram_sums import GramSums, Moments
from ooc_train.models.norm_sums import NormSums
from ooc_train.objective.scaling import Scaling
from tests.streams import Cut, make_case, stream

RNG = np.random.default_rng(0)
ROWS = 311
X = RNG.normal(size=(ROWS, 4)) * [1e-6, 1.0, 1e3, 1.0] + [1.0, 0.0, -7e3, 1e6]
Y = X[:, 1:2] + RNG.normal(size=(ROWS, 2)) + 5.0
WEIGHT = RNG.uniform(0, 2, ROWS)
SCALING = Scaling(X.mean(axis=0), X.std(axis=0))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_gram_is_the_product_of_scaled_columns_one_and_outputs(weight, compiled):
    work = GramSums(SCALING, 2, compiled)
    sums = stream(Cut(X, Y, weight)).reduce(work)
    A = np.column_stack([(X - SCALING.mean) / SCALING.scale, np.ones(ROWS), Y])
    w = np.ones(ROWS) if weight is None else weight
    gram = unpacked(sums["gram"], A.shape[1])
    np.testing.assert_allclose(gram, A.T * w @ A, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(gram, gram.T)
    assert sums["rows"] == ROWS


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("with_gram", [False, True])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_norms_are_those_of_scaled_rows(weight, with_gram, constant):
    vector = None if with_gram else np.arange(5.0)
    work = NormSums(SCALING, None, constant, with_gram, vector)
    sums = stream(Cut(X, Y, weight)).reduce(work)
    A = np.column_stack([(X - SCALING.mean) / SCALING.scale, np.full(ROWS, float(constant))])
    w = np.ones(ROWS) if weight is None else weight
    norms = (A**2).sum(axis=1)
    due = {"rows": ROWS, "weight": w.sum(), "squared_weight": w @ w}
    due |= {"squares": w @ norms, "second": w @ A**2, "fourth": (w**2 * norms) @ A**2}
    gram = A.T * w @ A
    due |= {"gram": gram} if with_gram else {"product": gram @ np.arange(5.0)}
    assert sums.keys() == due.keys()
    for name, value in due.items():
        np.testing.assert_allclose(sums[name], value, rtol=1e-9, atol=1e-9)


def test_norms_take_class_weights():
    case = make_case("multinomial", 3, weighted=True, class_weight=True)
    by_class = stream(case.source).reduce(NormSums(case.problem.scaling, case.problem.class_weight))
    by_row = Cut(case.source.X, case.y, case.row_weights)
    same = stream(by_row).reduce(NormSums(case.problem.scaling))
    for name, expected in same.items():
        np.testing.assert_allclose(by_class[name], expected, rtol=1e-12, atol=1e-12)


def test_merged_moments_of_parts_are_those_of_all_rows():
    found = None
    for part in (slice(0, 2), slice(2, 90), slice(90, ROWS)):
        sums = stream(Cut(X[part], Y[part], WEIGHT[part])).reduce(reduction := ColumnSums(X[0]))
        moments = reduction.moments(sums)
        found = moments if found is None else found.merged(moments)
    assert found is not None
    mean = np.average(X, axis=0, weights=WEIGHT)
    assert found.weight == pytest.approx(WEIGHT.sum())
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    variance = np.average((X - mean) ** 2, axis=0, weights=WEIGHT)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-6)
    permuted = found.permuted(np.array([2, 0, 1, 3]))
    np.testing.assert_array_equal(permuted.mean, found.mean[[2, 0, 1, 3]])


def test_moments_are_weighted_means_and_covariances():
    sums = stream(Cut(X, Y, WEIGHT)).reduce(GramSums(SCALING, 2))
    moments = Moments.of(sums["gram"], 4, 2)
    scaled, total = (X - SCALING.mean) / SCALING.scale, WEIGHT.sum()
    both = np.column_stack([scaled, Y])
    covariance = np.cov(both.T, aweights=WEIGHT, ddof=0) * total
    close: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8}
    assert moments.weight == pytest.approx(total)
    np.testing.assert_allclose(moments.mean, np.average(scaled, axis=0, weights=WEIGHT), **close)
    np.testing.assert_allclose(moments.output_mean, np.average(Y, axis=0, weights=WEIGHT))
    np.testing.assert_allclose(moments.covariance, covariance[:4, :4], **close)
    np.testing.assert_allclose(moments.cross, covariance[:4, 4:], **close)
    np.testing.assert_allclose(moments.output_square, np.diagonal(covariance)[4:], **close)
    np.testing.assert_allclose(moments.second, scaled.T * WEIGHT @ scaled, **close)
    np.testing.assert_allclose(moments.raw_cross, scaled.T * WEIGHT @ Y, **close)
    np.testing.assert_allclose(moments.raw_output_square, WEIGHT @ Y**2, **close)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_column_sums_give_means_and_deviations_far_from_zero(weight):
    near = X.mean(axis=0) + 0.5 * X.std(axis=0)
    work = ColumnSums(near)
    sums = stream(Cut(X, None, weight)).reduce(work)
    moments = work.moments(sums)
    scaling = Scaling.of(moments.mean, np.sqrt(moments.variance), centre=True)
    mean = np.average(X, axis=0, weights=weight)
    deviation = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weight))
    np.testing.assert_allclose(scaling.mean, mean, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(scaling.scale, deviation, rtol=1e-9)
    uncentred = Scaling.of(moments.mean, np.sqrt(moments.variance), centre=False)
    np.testing.assert_allclose(uncentred.scale, np.sqrt(np.average(X**2, axis=0, weights=weight)))
    assert not uncentred.mean.any()


@pytest.mark.parametrize("rows", [1, 255, 256, 257, 1000])
def test_more_rows_than_a_piece_are_all_taken(rows):
    block = Block(np.full((rows, 3), 2.0, np.float32), None, None)
    scaling = Scaling(np.zeros(3), np.ones(3))
    for work in (GramSums(scaling), GramSums(scaling, compiled=True), ColumnSums(np.zeros(3))):
        sums = work.zeros()
        arrays = {k: np.full(spec.shape, np.nan) for k, spec in work.workspace(rows).items()}
        work.add(sums, block, arrays)
        if isinstance(work, ColumnSums):
            assert sums["first"].tolist() == [2.0 * rows] * 3
            assert sums["second"].tolist() == [4.0 * rows] * 3
            assert sums["weight"] == rows
        else:
            gram = unpacked(sums["gram"], 4)
            assert gram[0].tolist() == [4.0 * rows] * 3 + [2.0 * rows]
            assert gram[3, 3] == rows


@pytest.mark.parametrize(
    "work", [GramSums(SCALING, 2), GramSums(SCALING, 2, compiled=True), ColumnSums(SCALING.mean)]
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named(work, value):
    bad = X.copy()
    bad[200, 1] = value
    with pytest.raises(NonFiniteData, match=f"row 200 has {value} in column 1 of X"):
        stream(Cut(bad, Y)).reduce(work)


def test_a_y_that_is_not_finite_is_named():
    bad = Y.copy()
    bad[200, 1] = -np.inf
    with pytest.raises(NonFiniteData, match="row 200 has -inf in y"):
        stream(Cut(X, bad)).reduce(GramSums(SCALING, 2))
