"""Models as values: what they refuse, by name; and their settings, there and back through JSON."""

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ooc_train.models.settings import EXACT, NAMES, UPDATES, Model

NOT_NUMBERS: list[Any] = ["1", None, True, np.nan, np.inf, -np.inf, [1.0], np.ones(2), 1j]
OWNER = {"alpha": "ridge", "C": "logistic"}


def test_models_and_solvers_are_these():
    assert NAMES == ("linear", "ridge", "logistic")
    assert EXACT == ("gram", "newton", "lbfgs")
    assert UPDATES == ("sgd", "momentum", "adam")


@pytest.mark.parametrize(
    ("setting", "values", "said"),
    [
        ("alpha", [*NOT_NUMBERS, -1e-9], r"alpha=.* is not a number of at least 0"),
        (
            "C",
            [v for v in NOT_NUMBERS if v is not np.inf] + [0, -1.0],
            r"C=.* is not a number above 0",
        ),
        ("tol", ["1", True, np.nan, np.inf, -1.0], r"tol=.* is not a number of at least 0"),
        ("max_iter", ["1", True, 0, -1, 1.5, np.nan], "max_iter=.* is not a whole number of at le"),
        (
            "batch_size",
            ["all", 0, -1, 2.0, True, None],
            "batch_size=.* is not 'full' or 'chunk'",
        ),
        (
            "learning_rate",
            ["fast", 0.0, -1, None, True, np.nan],
            "learning_rate=.* is not 'auto'",
        ),
        (
            "shuffle_chunks",
            ["all", 0, 1.5, None, False],
            "shuffle_chunks=.* is not 'auto'",
        ),
        (
            "replicas",
            ["auto", 0, 1.5, None, False],
            "replicas=.* is not a whole number of at least 1",
        ),
        ("random_state", [-1, 1.5, "x", True], "random_state=.* is not None or a whole number of"),
        ("fit_intercept", ["no", None, 2], "fit_intercept=.* is not True or False"),
        ("standardize", ["no", None, 2], "standardize=.* is not True or False"),
        ("class_weight", ["even", [1, 2], 3.0], "class_weight=.* is not None, 'balanced' or a map"),
        (
            "class_weight",
            [{1: -1.0}, {1: np.nan}, {1: "x"}],
            "class_weight of 1=.* is not a num",
        ),
        ("solver", ["gram", "saga", None], "solver=.* is not one of logistic's: 'auto', 'newton'"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(setting, values, said):
    for value in values:
        with pytest.raises(ValueError, match=said):
            Model(**{"name": OWNER.get(setting, "logistic"), setting: value})


def test_a_model_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="model='lasso' is not one of linear, ridge, logistic"):
        Model(name="lasso")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument 'penalty'"):
        Model(name="ridge", penalty="l1")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "ridge", "solver": "newton"}, "solver='newton' is not one of ridge's"),
        ({"name": "ridge", "class_weight": "balanced"}, "class_weight is for classes"),
        ({"name": "linear", "alpha": 2.0}, "alpha is for the ridge model, and this is linear"),
        ({"name": "ridge", "C": 2.0}, "C is for the logistic model, and this is ridge"),
        (
            {"name": "logistic", "solver": "newton", "batch_size": 10},
            "solver='newton' reads all rows before each step, and batch_size=10 asks for more",
        ),
        ({"name": "ridge", "solver": "gram", "batch_size": "chunk"}, "batch_size='chunk'"),
    ],
)
def test_settings_that_do_not_go_together_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        Model(**settings)


@given(
    st.fixed_dictionaries(
        {"name": st.just("logistic")},
        optional={
            "C": st.floats(1e-9, 1e9)
            | st.integers(1, 99)
            | st.sampled_from([np.float32(0.5), np.inf, np.float32(np.inf), "inf"]),
            "fit_intercept": st.booleans() | st.just(np.bool_(True)),
            "class_weight": st.sampled_from(
                [None, "balanced", {0: 1.5, 1: 2}, {"late": np.float32(3)}, {np.int64(3): 1.0}]
            ),
            "solver": st.sampled_from(["auto", "sgd", "momentum", "adam"]),
            "batch_size": st.sampled_from(["full", "chunk", 1, np.int64(300)]),
            "learning_rate": st.just("auto") | st.floats(1e-9, 10),
            "max_iter": st.none() | st.integers(1, 10**6),
            "tol": st.none() | st.floats(0, 1),
            "standardize": st.booleans(),
            "shuffle_chunks": st.just("auto") | st.integers(1, 99),
            "replicas": st.just(1),
            "random_state": st.none() | st.integers(0, 2**64),
        },
    )
)
def test_settings_make_the_same_model_again_through_json(settings):
    model = Model(**settings)
    text = json.dumps(model.settings(), allow_nan=False)
    again = Model(**json.loads(text))
    assert json.dumps(again.settings()) == text
    weights = model.class_weight
    if not isinstance(weights, dict):
        assert again == model
    else:
        assert isinstance(again.class_weight, dict)
        assert list(again.class_weight) == [str(label) for label in weights]
        assert list(again.class_weight.values()) == list(weights.values())


def test_what_settings_mean():
    ridge = Model(name="ridge", alpha=Fraction(1, 4))  # type: ignore[arg-type]
    assert ridge.l2 == 0.25
    assert Model(name="linear").l2 == 0.0
    assert Model(name="logistic", C=4.0).l2 == 0.25
    assert (Model(name="linear").tolerance, ridge.tolerance) == (1e-6, 1e-4)
    assert Model(name="logistic", tol=0).tolerance == 0.0
    assert (ridge.iterations, Model(name="ridge", max_iter=7).iterations) == (100, 7)
    losses = [Model(name=name).loss(n).name for name in ("ridge", "logistic") for n in (2, 3)]
    assert losses == ["squared", "squared", "logistic", "multinomial"]


@pytest.mark.parametrize(
    ("settings", "n_parameters", "solver"),
    [
        ({"name": "linear"}, 10, "gram"),
        ({"name": "ridge"}, 4096, "gram"),
        ({"name": "ridge"}, 4097, "lbfgs"),
        ({"name": "logistic"}, 512, "newton"),
        ({"name": "logistic"}, 513, "lbfgs"),
        ({"name": "logistic", "batch_size": 1}, 10, "sgd"),
        ({"name": "linear", "batch_size": "chunk"}, 10, "sgd"),
        ({"name": "logistic", "solver": "adam"}, 10, "adam"),
        ({"name": "logistic", "solver": "lbfgs"}, 10, "lbfgs"),
    ],
)
def test_auto_is_the_solver_that_fits_the_size(settings, n_parameters, solver):
    assert Model(**settings).solver_for(n_parameters) == solver


def test_batch_sizes_in_rows():
    sizes = [
        Model(name="ridge", batch_size=b).rows_per_update(100, 30) for b in ("full", "chunk", 7)
    ]
    assert sizes == [100, 30, 7]
    assert Model(name="ridge", batch_size="chunk").rows_per_update(20, 30) == 20
    assert Model(name="ridge", batch_size=100).rows_per_update(100, 30) == 100
    with pytest.raises(ValueError, match=r"batch_size=101 is more than the 100 rows"):
        Model(name="ridge", batch_size=101).rows_per_update(100, 30)
