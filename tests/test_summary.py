"""Standard errors against statsmodels and NIST, and what a summary refuses.

Reference values are those of statsmodels 0.15.0 on every tenth flight of ``data/flights.parquet``
with `design` as the columns: ``sm.OLS``, ``WLS``, ``Logit``, ``MNLogit`` and ``GLM`` (families
Poisson, Gamma and Tweedie of power 1.5 with log links) of ``sm.add_constant(X)``, fitted to a
tolerance of 1e-14; with ``cov_type="HC1"``, or ``"cluster"`` by carrier. statsmodels leaves the
factor n / (n - k) out of HC1 for all but least squares; MacKinnon and White have it in.
"""

import json
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import ooc_train
from ooc_train import cli
from ooc_train.errors import CeilingExceeded
from ooc_train.explanation.summary import summary
from ooc_train.inference.grouping import row_groups
from ooc_train.models.information_sums import InformationSums
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.losses.poisson import Poisson
from ooc_train.objective.scaling import Scaling
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.row_groups import RowGroups
from tests.conftest import DATA
from tests.streams import Cut, Shuffled, same_bits, stream, write_store
from tests.test_held import SMALL, held_by

# y, GNP deflator, GNP, unemployed, armed forces, population, year: of Longley (1967), by NIST.
LONGLEY = np.array(
    [
        [60323, 83.0, 234289, 2356, 1590, 107608, 1947],
        [61122, 88.5, 259426, 2325, 1456, 108632, 1948],
        [60171, 88.2, 258054, 3682, 1616, 109773, 1949],
        [61187, 89.5, 284599, 3351, 1650, 110929, 1950],
        [63221, 96.2, 328975, 2099, 3099, 112075, 1951],
        [63639, 98.1, 346999, 1932, 3594, 113270, 1952],
        [64989, 99.0, 365385, 1870, 3547, 115094, 1953],
        [63761, 100.0, 363112, 3578, 3350, 116219, 1954],
        [66019, 101.2, 397469, 2904, 3048, 117388, 1955],
        [67857, 104.6, 419180, 2822, 2857, 118734, 1956],
        [68169, 108.4, 442769, 2936, 2798, 120445, 1957],
        [66513, 110.8, 444546, 4681, 2637, 121950, 1958],
        [68655, 112.6, 482704, 3813, 2552, 123366, 1959],
        [69564, 114.2, 502601, 3931, 2514, 125368, 1960],
        [69331, 115.7, 518173, 4806, 2572, 127852, 1961],
        [70551, 116.9, 554894, 4007, 2827, 130081, 1962],
    ]
)

# Certified values of https://www.itl.nist.gov/div898/strd/lls/data/LINKS/DATA/Longley.dat
NIST_COEF = [
    -3482258.63459582, 15.0618722713733, -0.0358191792925910, -2.02022980381683,
    -1.03322686717359, -0.0511041056535807, 1829.15146461355,
]  # fmt: skip
NIST_STD_ERR = [
    890420.383607373, 84.9149257747669, 0.0334910077722432, 0.488399681651699,
    0.214274163161675, 0.226073200069370, 455.478499142212,
]  # fmt: skip
NIST_DEVIATION = 304.854073561965

# Standard errors of the intercept, month, weekday, time, JFK and LaGuardia.
DUE = {
    "linear classical": [
        0.903123540475, 0.06191722459667, 0.106310978096,
        0.0007547822926112, 0.5114581739402, 0.5186848633209,
    ],
    "linear HC1": [
        0.8137501046928, 0.0564895021179, 0.1051690583298,
        0.0007511813915029, 0.5022568817699, 0.5331810274296,
    ],
    "linear cluster": [
        2.013192540805, 0.1349445219827, 0.1194762066447,
        0.002045980818842, 2.303494221163, 2.116325458684,
    ],
    "weighted classical": [
        0.9191286301836, 0.06303282896619, 0.1082373981225,
        0.0007685702019207, 0.5213825403292, 0.5279262153342,
    ],
    "weighted HC1": [
        0.9143223949265, 0.06301279287037, 0.1169419806981,
        0.0008417385026037, 0.5576863211784, 0.6011801542679,
    ],
    "weighted cluster": [
        2.384479597538, 0.1522621532884, 0.1413594647152,
        0.002004292181191, 2.383675633059, 2.151175821276,
    ],
    "frequency classical": [
        0.6498972665044, 0.0445692386244, 0.07653247528508,
        0.0005434404466819, 0.3686590501434, 0.3732859504042,
    ],
    "logistic classical": [
        0.05942880469092, 0.003887273834269, 0.006675166029213,
        4.929345859512e-05, 0.03193071477097, 0.03262478379439,
    ],
    "logistic HC1": [
        0.05933605870923, 0.003896539905751, 0.006565610817164,
        4.855706495807e-05, 0.0320326852189, 0.03254792586621,
    ],
    "logistic cluster": [
        0.2066102380654, 0.008516833815142, 0.01012814998706,
        8.071655040695e-05, 0.1851408447199, 0.1598054215467,
    ],
    "poisson classical": [
        0.02902494256824, 0.00175362182579, 0.003008695903011,
        2.344217923927e-05, 0.01440521879761, 0.01461814530147,
    ],
    "poisson HC1": [
        0.0710082630712, 0.004063488090132, 0.007624019322695,
        5.575510282841e-05, 0.03595403695242, 0.03865827385163,
    ],
    "poisson cluster": [
        0.2614594125094, 0.007898045999965, 0.006449074584283,
        0.0001175726113827, 0.1717229375522, 0.1554644877511,
    ],
    "gamma classical": [
        0.01504442859787, 0.001031430610183, 0.001770951422984,
        1.257332778875e-05, 0.008519981634622, 0.00864036539998,
    ],
    "gamma cluster": [
        0.2524866232981, 0.001673592636843, 0.001656055263889,
        5.889519103092e-05, 0.2302106206873, 0.2142864722281,
    ],
    "tweedie classical": [
        0.06450388457315, 0.00420593830492, 0.00721421184618,
        5.256141106229e-05, 0.03450999823711, 0.03523158584236,
    ],
    "tweedie HC1": [
        0.06523890723767, 0.004012707369333, 0.006956620068427,
        5.313883221473e-05, 0.03214786049948, 0.03500256690226,
    ],
}  # fmt: skip
# Of the classes 1 and 2 against 0: below 0, from 0, and from 15 minutes of delay.
DUE_OF_CLASSES = {
    "classical": [
        [
            0.05984023503413, 0.004123747970669, 0.007073498439251,
            5.114437235989e-05, 0.03347841157251, 0.03506468595938,
        ],
        [
            0.06556023908559, 0.004230473756923, 0.00725270277179,
            5.491935545068e-05, 0.03476413409404, 0.03556465016941,
        ],
    ],
    "HC1": [
        [
            0.05959960731984, 0.004196293255058, 0.007048533105627,
            5.078343179928e-05, 0.0334209371907, 0.03507966203535,
        ],
        [
            0.0649969823728, 0.004188824508216, 0.007220348088985,
            5.425146234292e-05, 0.03488974371653, 0.03549254614398,
        ],
    ],
}  # fmt: skip
LINEAR_P = [
    9.182727529194e-12, 0.002569952032865, 0.000570240253556,
    0, 2.306693951149e-15, 8.385889161214e-13,
]  # fmt: skip
LINEAR_LOW = [
    -7.930575965488, -0.3080536740448, -0.5746919742964,
    0.02770920383359, -5.057058944627, -4.729153381671,
]  # fmt: skip
LOGISTIC_CLUSTER_P = [
    3.659183674483e-30, 0.3779709888194, 0.0002951550144754,
    1.546706855237e-105, 0.2996306593285, 0.3179713135272,
]  # fmt: skip
LOGISTIC_CLUSTER_LOW = [
    -2.762702858647, -0.0242014772192, -0.05650980611222,
    0.001602916939631, -0.5549022395472, -0.4728002321951,
]  # fmt: skip


@pytest.fixture(scope="module")
def tenth():
    """Every tenth flight: the columns, the delay, the distance, lateness and carrier."""
    table = pq.read_table(DATA / "flights.parquet").to_pandas().iloc[::10]
    numbers = [table[name].to_numpy(float) for name in ("month", "weekday", "sched_dep_time")]
    origin = table["origin"].to_numpy(str)
    X = np.column_stack([*numbers, origin == "JFK", origin == "LGA"]).astype(float)
    delay, distance = (table[name].to_numpy(float) for name in ("dep_delay", "distance"))
    return X, delay, distance, table["late"].to_numpy(), table["carrier"].to_numpy(str)


def fitted_to(kind, tenth):
    """Return an estimator fitted to the flights, with its y and weights."""
    X, delay, distance, late, _ = tenth
    model, y = {
        "linear": (ooc_train.LinearRegression(), delay),
        "weighted": (ooc_train.LinearRegression(), delay),
        "frequency": (ooc_train.LinearRegression(), delay),
        "logistic": (ooc_train.LogisticRegression(C=inf, tol=1e-12), late),
        "multinomial": (
            ooc_train.LogisticRegression(C=inf, tol=1e-12),
            np.digitize(delay, [0, 15]),
        ),
        "poisson": (ooc_train.PoissonRegressor(alpha=0, tol=1e-12), np.maximum(delay, 0) // 15),
        "gamma": (ooc_train.GammaRegressor(alpha=0, tol=1e-12), distance),
        "tweedie": (
            ooc_train.TweedieRegressor(power=1.5, alpha=0, tol=1e-12),
            np.maximum(delay, 0),
        ),
    }[kind]
    weight = 1.0 + np.arange(len(X)) % 3 if kind in ("weighted", "frequency") else None
    return model.fit(X, y, sample_weight=weight), y, weight


def test_longley_as_certified_by_nist():
    X, y = LONGLEY[:, 1:], LONGLEY[:, 0]
    found = ooc_train.LinearRegression().fit(X, y).summary(X, y)
    np.testing.assert_allclose(found.coef[0], NIST_COEF, rtol=1e-9)
    np.testing.assert_allclose(found.std_err[0], NIST_STD_ERR, rtol=1e-9)
    assert np.sqrt(found.dispersion[0]) == pytest.approx(NIST_DEVIATION, rel=1e-10)
    assert (found.degrees, found.n_rows, found.notes) == (9.0, 16, ())
    # t of 9 degrees: 4.10908 and 0.00263, as textbooks print for the years.
    assert found.z[0, -1] == pytest.approx(4.015889794)
    assert found.p[0, -1] == pytest.approx(0.003036803, rel=1e-6)
    np.testing.assert_allclose(found.high + found.low, 2 * found.coef, rtol=1e-12)


@pytest.mark.parametrize("kind", sorted({case.split()[0] for case in DUE}))
def test_standard_errors_as_those_of_statsmodels(kind, tenth):
    X, carrier = tenth[0], tenth[-1]
    model, y, weight = fitted_to(kind, tenth)
    meaning = "frequency" if kind == "frequency" else "variance"
    n = len(X)
    for errors in ("classical", "HC1", "cluster"):
        if f"{kind} {errors}" not in DUE:
            continue
        groups = carrier if errors == "cluster" else None
        found = model.summary(X, y, weight, errors=errors, groups=groups, weights=meaning)
        due = np.array(DUE[f"{kind} {errors}"])
        if errors == "HC1" and kind not in ("linear", "weighted"):
            due *= np.sqrt(n / (n - 6))
        np.testing.assert_allclose(found.std_err[0], due, rtol=1e-8)
        assert found.distance < 1e-6
        assert found.n_groups == (16 if groups is not None else None)


def test_probabilities_and_limits_as_those_of_statsmodels(tenth):
    X = tenth[0]
    model, y, _ = fitted_to("linear", tenth)
    found = model.summary(X, y)
    np.testing.assert_allclose(found.p[0], LINEAR_P, rtol=1e-8)
    np.testing.assert_allclose(found.low[0], LINEAR_LOW, rtol=1e-8)
    model, y, _ = fitted_to("logistic", tenth)
    found = model.summary(X, y, errors="cluster", groups=tenth[-1])
    np.testing.assert_allclose(found.p[0], LOGISTIC_CLUSTER_P, rtol=1e-8)
    np.testing.assert_allclose(found.low[0], LOGISTIC_CLUSTER_LOW, rtol=1e-8)
    wide, narrow = (model.summary(X, y, level=level) for level in (0.99, 0.5))
    assert (wide.low < narrow.low).all()
    assert (narrow.high < wide.high).all()


@pytest.mark.parametrize("errors", ["classical", "HC1"])
def test_classes_as_those_of_statsmodels(errors, tenth):
    X = tenth[0]
    model, y, _ = fitted_to("multinomial", tenth)
    found = model.summary(X, y, errors=errors)
    factor = 1.0 if errors == "classical" else np.sqrt(len(X) / (len(X) - 12))
    np.testing.assert_allclose(found.std_err, factor * np.array(DUE_OF_CLASSES[errors]), rtol=1e-8)
    assert found.outputs == ("1", "2")
    assert found.notes == ("coefficients are relative to the class 0",)
    np.testing.assert_allclose(found.coef[1, 1:], model.coef_[2] - model.coef_[0], rtol=1e-9)


def data(n=400, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)) * [1.0, 5.0, 0.2] + [0.0, 100.0, 3.0]
    y = X @ [1.0, -0.2, 2.0] + rng.normal(size=n)
    return X, y, rng.integers(1, 4, size=n), rng.integers(0, 30, size=n)


@pytest.mark.parametrize("errors", ["classical", "HC1", "cluster"])
@pytest.mark.parametrize("kind", ["linear", "poisson"])
def test_a_frequency_is_a_number_of_equal_rows(kind, errors):
    X, y, count, group = data()
    y = np.round(np.exp(y / 10)) if kind == "poisson" else y
    make = {
        "linear": ooc_train.LinearRegression,
        "poisson": lambda: ooc_train.PoissonRegressor(alpha=0, tol=1e-12),
    }[kind]
    one = lambda values: values if errors == "cluster" else None  # noqa: E731
    found = (
        make()
        .fit(X, y, count)
        .summary(X, y, count, errors=errors, groups=one(group), weights="frequency")
    )
    again = np.repeat(X, count, axis=0), np.repeat(y, count)
    due = make().fit(*again).summary(*again, errors=errors, groups=one(np.repeat(group, count)))
    np.testing.assert_allclose(found.std_err, due.std_err, rtol=1e-8)
    assert (found.n_rows, found.degrees) == (due.n_rows, due.degrees) == (count.sum(), due.degrees)


def test_several_targets_are_summed_up_one_by_one():
    X, y, _, group = data()
    both = np.column_stack([y, y**2])
    found = ooc_train.LinearRegression().fit(X, both).summary(X, both, errors="HC1")
    for k in range(2):
        alone = ooc_train.LinearRegression().fit(X, both[:, k])
        np.testing.assert_allclose(
            found.std_err[k], alone.summary(X, both[:, k], errors="HC1").std_err[0], rtol=1e-9
        )
        assert found.dispersion[k] == pytest.approx(alone.summary(X, both[:, k]).dispersion[0])
    assert list(found.frame.loc["output 1"].index) == list(found.names)
    clustered = ooc_train.LinearRegression().fit(X, both)
    found = clustered.summary(X, both, errors="cluster", groups=group)
    alone = ooc_train.LinearRegression().fit(X, both[:, 1])
    due = alone.summary(X, both[:, 1], errors="cluster", groups=group)
    np.testing.assert_allclose(found.std_err[1], due.std_err[0], rtol=1e-9)
    assert found.degrees == 29.0


@pytest.mark.parametrize("kind", ["linear", "logistic"])
def test_columns_that_are_sums_of_others_are_references(kind):
    X, y, *_ = data()
    category = np.arange(len(X)) % 3
    hot = (category[:, None] == np.arange(3)).astype(float)
    whole = np.column_stack([X[:, :2], hot, np.full(len(X), 7.0), X[:, 0] - 2 * X[:, 1]])
    part = whole[:, :4]
    if kind == "logistic":
        y = y + category > np.median(y)
    make = {
        "linear": ooc_train.LinearRegression,
        "logistic": lambda: ooc_train.LogisticRegression(C=inf, tol=1e-10, max_iter=300),
    }[kind]
    found = make().fit(whole, y).summary(whole, y)
    due = make().fit(part, y).summary(part, y)
    kept = [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found.coef[0, kept], due.coef[0], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.std_err[0, kept], due.std_err[0], rtol=1e-6)
    assert np.isnan(found.coef[0, 5:]).all()
    assert "'feature 4', 'feature 5', 'feature 6'" in found.notes[0]
    assert due.notes == ()
    assert found.degrees == due.degrees
    assert found.rows()[-1] == ("feature 6", "", "", "", "", "", "")


@pytest.mark.slow
def test_categories_without_a_late_flight_have_no_robust_error(flights):
    # Newton's first sample has one flight or two of some airports, all of them in time. Without a
    # penalty it went too far there to come back.
    model = ooc_train.LogisticRegression(C=inf, tol=1e-8, max_iter=40).fit(flights[0])
    assert model.report_.converged
    assert model.report_.passes < 40
    robust, classical = (model.summary(flights[0], errors=kind) for kind in ("HC1", "classical"))
    assert "'dest=LEX', 'dest=PSP'; their best coefficients are infinite" in robust.notes[-1]
    boundless = robust.frame.loc[["dest=LEX", "dest=PSP"]]
    assert boundless["std_err"].isna().all()
    assert (classical.frame.loc[boundless.index, "std_err"] > 100).all()
    # The last category of each column is the reference.
    assert robust.frame.index[np.isnan(robust.coef[0])].tolist() == [
        "month=12", "weekday=7", "carrier=YV", "origin=LGA", "dest=XNA",
    ]  # fmt: skip
    due = classical.frame.drop(boundless.index)["std_err"].dropna()
    ratio = robust.frame["std_err"].dropna() / due
    assert 0.5 < ratio.min() < ratio.max() < 2.0


def test_columns_that_float64_cannot_tell_apart_are_refused():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 1))
    near = np.column_stack([X, X + 1e-6 * rng.normal(size=(200, 1))])
    y = near @ [1.0, -1.0] * 1e6 + X[:, 0]
    model = ooc_train.LinearRegression().fit(near, y)
    with pytest.raises(ValueError, match=r"'feature 1'.* so nearly sums of others"):
        model.summary(near, y)


def test_without_an_intercept():
    X, y, *_ = data()
    found = ooc_train.LinearRegression(fit_intercept=False).fit(X, y).summary(X, y)
    residual = y - X @ np.linalg.lstsq(X, y)[0]
    covariance = np.linalg.inv(X.T @ X) * (residual @ residual) / (len(X) - 3)
    np.testing.assert_allclose(found.covariance[0], covariance, rtol=1e-8)
    assert found.names == ("feature 0", "feature 1", "feature 2")


def sums_of(loss, source, groups=None, **how):
    theta = np.random.default_rng(3).normal(size=(3 if loss.kind == "rowwise" else 2, 4)) / 5
    scaling = Scaling(np.array([0.0, 100.0, 3.0]), np.array([1.0, 5.0, 0.2]))
    work = InformationSums(loss, scaling, theta, is_robust=True, groups=groups)
    return work, stream(source, **how).reduce(work)


@pytest.mark.parametrize("loss", [Poisson(), Multinomial()], ids=["poisson", "multinomial"])
def test_cutting_the_rows_and_their_order_change_no_bit(loss):
    X, _, weight, group = data(300)
    y = (np.arange(600).reshape(300, 2) * 7 % 5).astype(float)
    y = y[:, :1] % 3 if loss.kind == "rowwise" else y
    codes = RowGroups(np.arange(30), codes=group)
    source = Cut(X, y, weight.astype(float))
    for groups in (None, codes):
        _, found = sums_of(loss, source, groups)
        _, again = sums_of(loss, source, groups, task_groups=1, executor=Shuffled(1))
        assert same_bits(found, again)
        work, once = sums_of(loss, replace(source, rows=300), groups)
        for name, value in found.items():
            np.testing.assert_allclose(value, once[name], rtol=1e-10, atol=1e-10)
    # The scores of all rows add up to the gradient.
    total = once["scores"].sum(axis=0).reshape(work.theta.shape)
    np.testing.assert_allclose(total, once["gradient"], rtol=1e-9, atol=1e-9)


def test_the_scores_are_differences_of_the_loss():
    X, _, weight, _ = data(40)
    y = (np.arange(80).reshape(40, 2) * 7 % 5).astype(float)
    work, sums = sums_of(Poisson(), Cut(X, y, weight.astype(float)))
    for place in ((0, 1), (1, 3)):
        step = np.zeros_like(work.theta)
        step[place] = 1e-6
        ends = [
            stream(Cut(X, y, weight.astype(float))).reduce(replace(work, theta=theta))["loss"]
            for theta in (work.theta + step, work.theta - step)
        ]
        slope = (ends[0] - ends[1]) / 2e-6
        assert sums["gradient"][place] == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize("errors", ["HC1", "cluster"])
def test_a_summary_holds_no_more_than_its_terms(errors):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 400))
    y = X[:, 0] + rng.normal(size=2000)
    model = ooc_train.LinearRegression().fit(X, y)
    groups = np.arange(2000) // 2 if errors == "cluster" else None
    inputs = read_inputs(X, y, classifier=False)
    found, peak = held_by(lambda: summary(model, inputs, errors=errors, groups=groups))
    counted = sum(found.memory.terms.values()) - found.memory.terms["headroom"]
    assert peak <= counted + SMALL
    assert counted <= 6 * peak + SMALL


def test_many_groups_are_refused_under_a_small_ceiling():
    wide = np.random.default_rng(0).normal(size=(3000, 1000))
    y = wide[:, 0] + np.random.default_rng(1).normal(size=3000)
    model = ooc_train.LinearRegression(memory_ceiling="60MiB")
    fitted = ooc_train.LinearRegression().fit(wide, y)
    model.__dict__.update({key: value for key, value in vars(fitted).items() if key.endswith("_")})
    with pytest.raises(CeilingExceeded, match="sums"):
        model.summary(wide, y, errors="cluster", groups=np.arange(3000))


def test_groups_by_a_column_of_a_store(tmp_path):
    X, y, weight, group = data()
    X[:, 1] = group
    store = write_store(tmp_path / "a.zarr", X, y, weight.astype(float))
    model = ooc_train.LinearRegression().fit(store)
    by_column = model.summary(store, errors="cluster", groups=1)
    due = model.summary(X, y, weight, errors="cluster", groups=[f"{each:02}" for each in group])
    np.testing.assert_allclose(by_column.std_err, due.std_err, rtol=1e-10)
    assert by_column.n_groups == due.n_groups == 30
    # A label for each row of a store: by the number of the row.
    labelled = model.summary(store, errors="cluster", groups=group)
    np.testing.assert_allclose(labelled.std_err, due.std_err, rtol=1e-10)


def test_groups_that_cannot_be_used():
    X, y, *_ = data()
    inputs = read_inputs(X, y, classifier=False)
    for groups, message in [
        ("a", "no column 'a'"),
        (3, "no column 3"),
        (np.arange(7), "has the shape"),
        (np.full(400, np.nan), "missing values"),
        ([None] * 400, "missing values"),
        (0, "101 groups or more, and the most is 100"),
        (np.arange(400), "400 groups or more"),
    ]:
        with pytest.raises(ValueError, match=message):
            row_groups(inputs, groups, most=100)
    model = ooc_train.LinearRegression().fit(X, y)
    with pytest.raises(ValueError, match="two groups or more"):
        model.summary(X, y, errors="cluster", groups=np.zeros(400))
    few = model.summary(X, y, errors="cluster", groups=np.arange(400) % 4)
    assert few.notes[0].startswith("4 groups are no more than the 4 coefficients")
    assert not model.summary(X, y, errors="cluster", groups=np.arange(400) % 5).notes
    found = row_groups(inputs, 0)
    with pytest.raises(ValueError, match="which no row had a pass before"):
        found.of_block(next(Cut(X + 1, y[:, None]).reader().run([0], {})))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ooc_train.LogisticRegression(), "with a penalty"),
        (ooc_train.LogisticRegression(C=inf, class_weight="balanced"), "class_weight"),
        (ooc_train.Ridge(alpha=[1.0]), "with a penalty"),
        (ooc_train.LinearRegression(positive=True), "positive=True"),
        (ooc_train.HuberRegressor(), "standard errors are for"),
        (ooc_train.RidgeClassifier(), "no likelihood of these classes"),
        (ooc_train.LinearRegression(standardize=True, fit_intercept=False), "standardize"),
        (ooc_train.MLPRegressor(max_iter=1, batch_size=50), "standard errors are for"),
        (ooc_train.PoissonRegressor(alpha=0, max_iter=1, solver="adam", batch_size=8), "optimum"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:9],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_models_without_standard_errors(model, message):
    X, y, *_ = data()
    labels = (
        y > y.mean() if hasattr(model, "predict_proba") or "Classifier" in repr(model) else None
    )
    y = np.abs(y) if labels is None else labels
    model.fit(X, y)
    with pytest.raises(ValueError, match=message):
        summary(model, X, y=y)


def test_other_rows_than_those_of_the_fit_are_refused():
    X, y, *_ = data()
    model = ooc_train.LinearRegression().fit(X, y)
    with pytest.raises(ValueError, match="standard errors from the optimum on these rows"):
        model.summary(X[:200], y[:200])
    with pytest.raises(ValueError, match="not more than the 4 parameters"):
        ooc_train.LinearRegression().fit(X[:4], y[:4]).summary(X[:4], y[:4])
    cases: list[tuple[str, Any]] = [
        ("errors", "HC2"),
        ("level", 1.0),
        ("groups", 0),
        ("weights", "other"),
    ]
    for name, bad in cases:
        with pytest.raises(ValueError, match=name):
            model.summary(X, y, **{name: bad})


@pytest.mark.slow
def test_the_command_prints_and_writes_what_python_finds(tmp_path):
    X, y, *_ = data()
    X[:, 0] = np.round(X[:, 0])
    names = ("one", "<two>", "three")
    store = write_store(tmp_path / "a.zarr", X, y, feature_names=names)
    model = ooc_train.LinearRegression().fit(store)
    model.save(tmp_path / "a.run")
    due = model.summary(store, errors="cluster", groups="one")

    def here(*arguments):
        return CliRunner().invoke(
            cli.app,
            ["summary", *map(str, (tmp_path / "a.run", store.path, *arguments)), "--workers", "1"],
        )

    csv, html = tmp_path / "a.csv", tmp_path / "a.html"
    done = here("--cluster", "one", "--csv", csv, "--html", html, "--json", "--quiet")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    np.testing.assert_allclose(found["std_err"], due.std_err, rtol=1e-12)
    header, *lines = csv.read_text().splitlines()
    assert header == "name,coef,std_err,z,p,low,high"
    assert float(lines[2].split(",")[2]) == found["std_err"][0][2]
    assert "&lt;two&gt;" in html.read_text()
    done = here("--errors", "HC1", "--quiet")
    assert "HC1 errors of 400 rows, 396 degrees of freedom" in done.output
    assert here("--errors", "HC1", "--cluster", "one").exit_code == 1


def test_a_summary_shows_itself():
    X, y, *_ = data()
    found = ooc_train.LinearRegression().fit(X, y).summary(X, y)
    frame = found.frame
    assert list(frame.columns) == ["coef", "std_err", "z", "p", "low", "high"]
    assert list(frame.index) == ["intercept", "feature 0", "feature 1", "feature 2"]
    assert frame.loc["feature 1", "coef"] == found.coef[0, 2]
    text = str(found)
    assert text.split()[:7] == ["name", "coef", "std_err", "t", "p", "low", "95"]
    assert "classical errors of 400 rows" in text
    assert "<table>" in found._repr_html_()
    assert "4 coefficients" in repr(found)
    json.dumps(found.to_json())
