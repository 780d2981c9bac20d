"""Least squares to the digits that rows hold: NIST's reference sets, and columns that depend.

Data of the sets "Norris", "Pontius", "Filip", "Longley" and "Wampler1" to "Wampler5": Statistical
Reference Datasets, National Institute of Standards and Technology, in the public domain.
"""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from ooc_train import LinearRegression, Ridge
from ooc_train.models.regression_models import LeastSquares
from ooc_train.runs.report import Report
from ooc_train.solvers import gram
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.task import Task
from tests.streams import write_store

NORRIS = """
    0.2 0.1 337.4 338.8 118.2 118.1 884.6 888.0 10.1 9.2 226.5 228.1 666.3 668.5 996.3 998.5
    448.6 449.1 777.0 778.9 558.2 559.2 0.4 0.3 0.6 0.1 775.5 778.1 666.9 668.8 338.0 339.3
    447.5 448.9 11.6 10.8 556.0 557.7 228.1 228.3 995.8 998.0 887.6 888.8 120.2 119.6 0.3 0.3
    0.3 0.6 556.8 557.6 339.1 339.3 887.2 888.0 999.0 998.5 779.0 778.9 11.1 10.2 118.3 117.6
    229.2 228.9 669.1 668.4 448.9 449.2 0.5 0.2
"""
FILIP = """
    0.8116 -6.860120914 0.9072 -4.324130045 0.9052 -4.358625055 0.9039 -4.358426747 0.8053
    -6.955852379 0.8377 -6.661145254 0.8667 -6.355462942 0.8809 -6.118102026 0.7975 -7.115148017
    0.8162 -6.815308569 0.8515 -6.519993057 0.8766 -6.204119983 0.8885 -5.853871964 0.8859
    -6.109523091 0.8959 -5.79832982 0.8913 -5.482672118 0.8959 -5.171791386 0.8971 -4.851705903
    0.9021 -4.517126416 0.909 -4.143573228 0.9139 -3.709075441 0.9199 -3.499489089 0.8692
    -6.300769497 0.8872 -5.953504836 0.89 -5.642065153 0.891 -5.031376979 0.8977 -4.680685696
    0.9035 -4.329846955 0.9078 -3.928486195 0.7675 -8.56735134 0.7705 -8.363211311 0.7713
    -8.107682739 0.7736 -7.823908741 0.7775 -7.522878745 0.7841 -7.218819279 0.7971 -6.920818754
    0.8329 -6.628932138 0.8641 -6.323946875 0.8804 -5.991399828 0.7668 -8.781464495 0.7633
    -8.663140179 0.7678 -8.473531488 0.7697 -8.247337057 0.77 -7.971428747 0.7749 -7.676129393
    0.7796 -7.352812702 0.7897 -7.072065318 0.8131 -6.774174009 0.8498 -6.478861916 0.8741
    -6.159517513 0.8061 -6.835647144 0.846 -6.53165267 0.8751 -6.224098421 0.8856 -5.910094889
    0.8919 -5.598599459 0.8934 -5.290645224 0.894 -4.974284616 0.8957 -4.64454848 0.9047
    -4.290560426 0.9129 -3.885055584 0.9209 -3.408378962 0.9219 -3.13200249 0.7739 -8.726767166
    0.7681 -8.66695597 0.7665 -8.511026475 0.7703 -8.165388579 0.7702 -7.886056648 0.7761
    -7.588043762 0.7809 -7.283412422 0.7961 -6.995678626 0.8253 -6.691862621 0.8602 -6.392544977
    0.8809 -6.067374056 0.8301 -6.684029655 0.8664 -6.378719832 0.8834 -6.065855188 0.8898
    -5.752272167 0.8964 -5.132414673 0.8963 -4.811352704 0.9074 -4.098269308 0.9119 -3.66174277
    0.9228 -3.2644011
"""
PONTIUS = """
    11019 21956 32949 43899 54803 65694 76562 87487 98292 109146 120001 130822 141599 152399
    163194 173947 184646 195392 206128 216844 11052 22018 32939 43886 54798 65739 76596 87474
    98300 109150 120004 130818 141613 152408 163159 173965 184696 195445 206177 216829
"""
LONGLEY = """
    60323 83 234289 2356 1590 107608 1947 61122 88.5 259426 2325 1456 108632 1948 60171 88.2
    258054 3682 1616 109773 1949 61187 89.5 284599 3351 1650 110929 1950 63221 96.2 328975 2099
    3099 112075 1951 63639 98.1 346999 1932 3594 113270 1952 64989 99 365385 1870 3547 115094
    1953 63761 100 363112 3578 3350 116219 1954 66019 101.2 397469 2904 3048 117388 1955 67857
    104.6 419180 2822 2857 118734 1956 68169 108.4 442769 2936 2798 120445 1957 66513 110.8
    444546 4681 2637 121950 1958 68655 112.6 482704 3813 2552 123366 1959 69564 114.2 502601
    3931 2514 125368 1960 69331 115.7 518173 4806 2572 127852 1961 70551 116.9 554894 4007 2827
    130081 1962
"""
DELTAS = [759, -2048, 2048, -2048, 2523, -2048, 2048, -2048, 1838, -2048, 2048]


def numbers(text: str, columns: int = 1):
    return np.array(text.split(), float).reshape(-1, columns)


def powers(x, highest: int):
    return np.column_stack([x**k for k in range(1, highest + 1)])


def reference_set(name: str):
    """Return X and y of one of NIST's sets."""
    if name == "Norris":
        y, x = numbers(NORRIS, 2)[:, ::-1].T
        return x[:, None], y
    if name == "Pontius":
        return powers(np.tile(150_000.0 * np.arange(1, 21), 2), 2), numbers(PONTIUS)[:, 0] / 1e5
    if name == "Filip":
        y, x = numbers(FILIP, 2).T
        return powers(x, 10), y
    if name == "Longley":
        table = numbers(LONGLEY, 7)
        return table[:, 1:], table[:, 0]
    x = np.arange(21.0)
    X = powers(x, 5)
    if name == "Wampler2":
        return X, np.array([float(sum(Fraction(i, 10) ** k for k in range(6))) for i in range(21)])
    noise = {"Wampler1": 0, "Wampler3": 1, "Wampler4": 100, "Wampler5": 10_000}[name]
    return X, 1.0 + X.sum(axis=1) + noise * np.array(DELTAS + DELTAS[-2::-1])


def exactly(X, y, *, alpha: float = 0.0, weight=None, fit_intercept=True) -> list[Fraction]:
    """Return the coefficients, and the intercept last, of rational arithmetic."""
    rows = [[Fraction(v) for v in row] + [Fraction(1)] * fit_intercept for row in X.tolist()]
    weights = [Fraction(1)] * len(X) if weight is None else [Fraction(w) for w in weight.tolist()]
    width = len(rows[0])
    columns = [*zip(*rows, strict=True), [Fraction(v) for v in y.tolist()]]

    def product(i: int, j: int) -> Fraction:
        terms = zip(weights, columns[i], columns[j], strict=True)
        return sum((w * a * b for w, a, b in terms), Fraction(0))

    matrix = [[product(i, j) for j in range(width + 1)] for i in range(width)]
    for i in range(X.shape[1]):
        matrix[i][i] += Fraction(alpha)
    for i in range(width):
        pivot = next(k for k in range(i, width) if matrix[k][i])
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        matrix[i] = [v / matrix[i][i] for v in matrix[i]]
        for k in range(width):
            if k != i:
                share = matrix[k][i]
                matrix[k] = [u - share * v for u, v in zip(matrix[k], matrix[i], strict=True)]
    return [row[-1] for row in matrix]


def digits(model: Any, due: list[Fraction]) -> float:
    """Return how many digits of the worst coefficient are right."""
    found = [*model.coef_.tolist(), float(model.intercept_)]
    errors = [abs((Fraction(a) - b) / b) for a, b in zip(found, due, strict=False)]
    return 16.0 if not max(errors) else -float(np.log10(float(max(errors))))


@pytest.mark.parametrize(
    ("name", "due", "refined"),
    [
        # The fewest digits of processors with AVX2 and with AVX-512, whose sums round otherwise.
        ("Norris", 12.0, 0),
        ("Pontius", 11.4, 0),
        ("Longley", 10.6, 0),
        ("Filip", 7.0, 3),
        ("Wampler1", 9.6, 1),
        ("Wampler2", 11.8, 1),
        ("Wampler3", 9.5, 1),
        ("Wampler4", 7.6, 1),
        ("Wampler5", 5.6, 1),
    ],
)
def test_reference_sets_are_solved_to_the_digits_that_rows_hold(name, due, refined):
    X, y = reference_set(name)
    model: Any = LinearRegression().fit(X, y)
    assert digits(model, exactly(X, y)) >= due
    # Two looks at the columns, one pass, and those that refine.
    assert model.report_.passes == 3 + refined
    assert model.report_.rank == X.shape[1]
    residual = y - X @ model.coef_ - model.intercept_
    scale = float(y @ y) / len(y)
    assert model.report_.loss == pytest.approx(
        residual @ residual / 2 / len(y), 1e-6, 1e-12 * scale
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearly_dependent_columns_without_an_intercept(dtype):
    n = 100_000
    X, y = np.arange(2 * n, dtype=dtype).reshape(-1, 2), np.arange(n, dtype=float)
    model: Any = LinearRegression(fit_intercept=False).fit(X, y)
    # The second column is the first plus one: 0.5 and 0 is the one exact solution.
    np.testing.assert_allclose(model.coef_, [0.5, 0.0], rtol=0, atol=1e-9)
    assert (model.intercept_, model.report_.rank) == (0.0, 2)
    scaled = X / np.sqrt((X.astype(float) ** 2).mean(axis=0))
    assert model.report_.condition == pytest.approx(np.linalg.cond(scaled), rel=1e-3)
    assert model.report_.digits > 12


def test_an_intercept_makes_them_dependent_and_the_answer_that_of_least_norm():
    n = 100_000
    X, y = np.arange(2.0 * n).reshape(-1, 2), np.arange(float(n))
    model: Any = LinearRegression().fit(X, y)
    np.testing.assert_allclose(model.coef_, [0.25, 0.25], rtol=1e-12)
    assert model.intercept_ == pytest.approx(-0.25, rel=1e-6)
    assert model.report_.rank == 1


@pytest.mark.parametrize("alpha", [1e-9, 1e-3])
def test_a_small_penalty_is_kept_beside_nearly_dependent_columns(alpha):
    X, y = reference_set("Wampler3")
    weight = np.linspace(1.0, 3.0, 21)
    model: Any = Ridge(alpha=alpha).fit(X, y, weight)
    assert digits(model, exactly(X, y, alpha=alpha, weight=weight)) >= 8
    plain: Any = LinearRegression().fit(X, y, weight)
    assert digits(plain, exactly(X, y, weight=weight)) >= 8
    assert model.report_.condition < plain.report_.condition


def dummies(rows: int = 300):
    """Return one column to each of four categories, and two of numbers; one column is double."""
    rng = np.random.default_rng(0)
    category = np.arange(rows) % 4
    X = np.column_stack([np.eye(4)[category], rng.normal(size=(rows, 2))])
    return np.column_stack([X, X[:, 5], np.full(rows, 0.1)]), rng.normal(size=rows) + category


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_that_depend_add_no_rank_and_the_answer_has_the_least_norm(dtype):
    X, y = dummies()
    X = X.astype(dtype)
    model: Any = LinearRegression().fit(X, y)
    due = np.linalg.lstsq(X.astype(float) - X.mean(axis=0, dtype=float), y - y.mean(), rcond=1e-9)[
        0
    ]
    np.testing.assert_allclose(model.coef_, due, rtol=1e-8, atol=1e-10)
    assert model.report_.rank == 5
    assert f"rank 5 of {X.shape[1]}" in model.report_.precision
    # Rows of float64 may hold what their products don't; those of float32 don't.
    assert model.report_.passes == (4 if dtype == np.float64 else 3)


def test_what_float64_holds_and_products_do_not_counts():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200))
    X = np.column_stack([a, a + 1e-10 * b])
    y = 3.0 * X[:, 0] - 2.0 * X[:, 1]
    model: Any = LinearRegression().fit(X, y)
    np.testing.assert_allclose(model.coef_, np.linalg.lstsq(X, y, rcond=None)[0], rtol=1e-4)
    np.testing.assert_allclose(model.coef_, [3.0, -2.0], rtol=1e-4)
    assert model.report_.rank == 2


def test_well_conditioned_columns_take_one_pass_and_none_refines(monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 4)), rng.normal(size=300)
    monkeypatch.setattr(gram, "_Refinement", None)
    for model in (LinearRegression(), Ridge(), LinearRegression(fit_intercept=False)):
        report: Any = model.fit(X, y).report_
        assert report.rank == 4
        assert 1 <= report.condition < 2
        assert report.digits > 14


def test_stores_are_refined_too_and_what_travels_is_planned(tmp_path):
    X, y = reference_set("Wampler3")
    write_store(tmp_path / "a", np.tile(X, (40, 1)), np.tile(y, 40), chunk_rows=64)
    model: Any = LinearRegression().fit(tmp_path / "a")
    assert model.report_.passes >= 2
    assert digits(model, exactly(X, y)) >= 9
    again = LinearRegression().fit(tmp_path / "a")
    np.testing.assert_array_equal(model.coef_, again.coef_)
    wide = read_inputs(np.zeros((10, 300)), np.zeros(10), classifier=False)
    assert Task.of(LeastSquares(), wide).requirements().shared >= 8 * 300**2


def test_of_very_many_columns_the_digits_are_told(monkeypatch):
    monkeypatch.setattr(gram, "MAX_REFINED_FEATURES", 4)
    X, y = reference_set("Wampler1")
    report: Any = LinearRegression().fit(X, y).report_
    assert report.passes == 3
    assert report.digits < 10
    assert Ridge(alpha=1e-3).fit(X, y).report_.condition is None


def test_the_report_tells_condition_rank_and_digits():
    X, y = reference_set("Longley")
    report: Any = LinearRegression().fit(X, y).report_
    assert report.precision == "condition 111, rank 6 of 6, about 12 digits"
    assert ("precision", report.precision) in report.figures()
    assert Report.from_json(report.to_json()).precision == report.precision
    assert LinearRegression(solver="lbfgs").fit(X[:, :1], y).report_.precision is None


def test_steps_that_rounding_ends_keep_the_coefficients_and_warn():
    X, y = reference_set("Wampler1")
    model: Any = LinearRegression(solver="lbfgs", tol=1e-12)
    with pytest.warns(ConvergenceWarning, match="not converged: .*; raise"):
        model.fit(X, y)
    assert not model.report_.converged
    np.testing.assert_allclose(X @ model.coef_ + model.intercept_, y, rtol=0, atol=1e-6 * y.max())
