"""Models and training as values: what they refuse, by name; and there and back through JSON."""

import json
from dataclasses import MISSING, dataclass, fields
from fractions import Fraction
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ooc_train.core.named_classes import Registry
from ooc_train.core.settings import CheckedSettings, Count, Flag, Number, defaults_of, settings_of
from ooc_train.models.classification_models import (
    LinearSVCModel,
    LogisticModel,
    RidgeClassifierModel,
)
from ooc_train.models.custom_model import CustomModel
from ooc_train.models.generalized_linear_models import GammaModel, PoissonModel, TweedieModel
from ooc_train.models.model import DataFigures, Model
from ooc_train.models.model_registry import MODELS
from ooc_train.models.regression_models import ElasticNetModel, LassoModel, LeastSquares, RidgeModel
from ooc_train.models.robust_models import (
    HuberModel,
    LinearSVRModel,
    QuantileModel,
    SGDRegressorModel,
)
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses import LOSSES
from ooc_train.objective.losses.gamma import Gamma
from ooc_train.objective.losses.hinge import Hinge
from ooc_train.objective.losses.huber import Huber
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.losses.squared import Squared
from ooc_train.objective.penalty import Penalty
from ooc_train.optimizers.adam import Adam
from ooc_train.optimizers.momentum import Momentum
from ooc_train.optimizers.schedules import SCHEDULES, Cosine, Steps
from ooc_train.solvers.registry import Settings, solver_for
from ooc_train.solvers.training_settings import EXACT, Training

NOT_NUMBERS: list[Any] = ["1", None, True, np.nan, np.inf, -np.inf, [1.0], np.ones(2), 1j]


class Unregistered(Hinge):
    """A loss of a user's that no registry has."""

    name: ClassVar[str] = "unregistered"


@pytest.mark.parametrize(
    ("cls", "setting", "values", "said"),
    [
        (
            ElasticNetModel,
            "l1_ratio",
            [*NOT_NUMBERS, -1e-9, 1.1],
            r"l1_ratio=.* is not a number of at least 0 and at most 1",
        ),
        (LassoModel, "alpha", [*NOT_NUMBERS, -1e-9], r"alpha=.* is not a number of at least 0"),
        (
            LogisticModel,
            "C",
            [v for v in NOT_NUMBERS if v is not np.inf] + [0, -1.0],
            r"C=.* is not a number above 0",
        ),
        (LogisticModel, "fit_intercept", ["no", None, 2], "fit_intercept=.* is not True or False"),
        (LeastSquares, "standardize", ["no", None, 2], "standardize=.* is not True or False"),
        (
            LogisticModel,
            "class_weight",
            ["even", [1, 2], 3.0],
            "class_weight=.* is not None or 'balanced' or a map",
        ),
        (
            LogisticModel,
            "class_weight",
            [{1: -1.0}, {1: np.nan}, {1: "x"}],
            "class_weight of 1=.* is not a num",
        ),
        (CustomModel, "loss", [None, 1, "hubert", Huber, Adam()], "loss=.* is not a Loss"),
        (CustomModel, "loss", [{"name": "hubert"}, {"name": []}, {}], "loss .* is not one of squ"),
        (CustomModel, "loss", [{"name": "huber", "epsilon": 0}], "epsilon=0 is not a finite"),
        (CustomModel, "loss", [{"name": "huber", "size": 1}], "'huber' has epsilon, and not 'siz"),
        (CustomModel, "loss", [{"name": "huber", "epsilon": {}}], "epsilon={} of the loss"),
        (CustomModel, "l1", [*NOT_NUMBERS, -1e-9], r"l1=.* is not a number of at least 0"),
        (
            Training,
            "tol",
            ["1", True, np.nan, np.inf, -1.0],
            r"tol=.* is not None or a number of at least 0",
        ),
        (
            Training,
            "max_iter",
            ["1", True, 0, -1, 1.5, np.nan],
            "max_iter=.* is not None or a whole number of at le",
        ),
        (
            Training,
            "batch_size",
            ["all", 0, -1, 2.0, True, None],
            "batch_size=.* is not 'full' or 'chunk'",
        ),
        (
            Training,
            "learning_rate",
            ["fast", 0.0, -1, None, True, np.nan],
            "learning_rate=.* is not 'auto'",
        ),
        (
            Training,
            "schedule",
            ["cosines", 0.1, None, Adam()],
            "schedule=.* is not 'auto' or a Sch",
        ),
        (Training, "shuffle_chunks", ["all", 0, 1.5, None, False], "shuffle_chunks=.* is not 'aut"),
        (Training, "replicas", ["auto", 0, 1.5, None, False], "replicas=.* is not a whole number"),
        (Training, "random_state", [-1, 1.5, "x", True], "random_state=.* is not None or a whole"),
        (Training, "random_state", [2**128], "random_state=.* is too large"),
        (Training, "solver", ["saga", None, 1, Huber()], "solver=.* is not 'auto' or 'gram' or"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(cls, setting, values, said):
    others = {"loss": Huber()} if cls is CustomModel else {}
    for value in values:
        with pytest.raises(ValueError, match=said):
            cls(**others | {setting: value})


@pytest.mark.parametrize("model", MODELS.values())
def test_a_model_has_its_own_settings_alone(model):
    with pytest.raises(TypeError, match="unexpected keyword argument 'momentum'"):
        model(momentum=0.9)
    with pytest.raises(TypeError, match="unexpected keyword argument 'batch_size'"):
        model(batch_size=1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"solver": "newton", "batch_size": 10},
            "solver='newton' reads all rows before each step, and batch_size=10 asks for more",
        ),
        ({"solver": "gram", "batch_size": "chunk"}, "batch_size='chunk'"),
        ({"replicas": 2}, "replicas=2 is for updates by batches"),
    ],
)
def test_settings_that_do_not_go_together_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        Training(**settings)


def test_a_custom_model_is_for_the_classes_of_its_loss():
    assert CustomModel(loss=Hinge()).is_classifier
    assert not CustomModel(loss=Huber()).is_classifier
    with pytest.raises(ValueError, match="class_weight is for classes, and the huber loss has no"):
        CustomModel(loss=Huber(), class_weight="balanced")
    assert CustomModel(loss=Hinge()).loss_for(3) == Hinge()  # one against the rest
    with pytest.raises(ValueError, match="multinomial loss is for more than 2 classes, and y has"):
        CustomModel(loss=Multinomial()).loss_for(2)


WHAT = st.one_of(
    st.builds(
        LeastSquares, positive=st.booleans(), fit_intercept=st.booleans() | st.just(np.bool_(True))
    ),
    st.builds(RidgeModel, alpha=st.floats(0, 1e300) | st.just(np.float32(0.5))),
    st.builds(
        LogisticModel,
        C=st.floats(1e-9, 1e9)
        | st.integers(1, 99)
        | st.sampled_from([np.float32(0.5), np.inf, np.float32(np.inf), "inf"]),
        l1_ratio=st.floats(0, 1),
        class_weight=st.sampled_from([None, "balanced", {"late": np.float32(3)}, {"a": 1.5}]),
        standardize=st.booleans(),
    ),
    st.builds(
        CustomModel,
        loss=st.sampled_from([Hinge(), Multinomial()]) | st.builds(Huber, st.floats(1e-9, 1e9)),
        l1=st.floats(0, 9),
        l2=st.integers(0, 9),
    ),
    st.builds(
        TweedieModel,
        alpha=st.floats(0, 9),
        power=st.just(0) | st.floats(1, 9),
        link=st.just("auto"),
    ),
)
HOW = st.builds(
    Training,
    solver=st.sampled_from(
        ["auto", "sgd", "momentum", "adam", Momentum(0.5, True), Adam(beta1=0.8)]
    ),
    batch_size=st.sampled_from(["full", "chunk", 1, np.int64(300)]),
    learning_rate=st.just("auto") | st.floats(1e-9, 10),
    schedule=st.just("auto") | st.builds(Cosine, st.floats(0, 1)) | st.just(Steps(0.5, (0.1, 0.2))),
    max_iter=st.none() | st.integers(1, 10**6),
    tol=st.none() | st.floats(0, 1),
    shuffle_chunks=st.just("auto") | st.integers(1, 99),
    random_state=st.none() | st.integers(0, 2**64),
)


@given(WHAT | HOW)
def test_settings_make_the_same_value_again_through_json(value):
    text = json.dumps(value.settings(), allow_nan=False)
    again = type(value)(**json.loads(text))
    assert again == value
    assert json.dumps(again.settings()) == text


def test_labels_are_text_in_json():
    weights: dict[Any, Any] = {np.int64(3): 1.0, 0: np.float32(2)}
    settings = LogisticModel(class_weight=weights).settings()
    assert json.loads(json.dumps(settings["class_weight"])) == {"3": 1.0, "0": 2.0}


def test_a_class_that_is_not_registered_is_not_saved():
    with pytest.raises(ValueError, match=r"Unregistered is no registered loss.*`@LOSSES.add`"):
        CustomModel(loss=Unregistered()).settings()


def test_hyperparameters_are_plain_in_json():
    model = CustomModel(loss=Huber(np.float32(1.5)))  # type: ignore[arg-type]
    assert json.loads(json.dumps(model.settings()))["loss"] == {"name": "huber", "epsilon": 1.5}
    schedule = Steps(0.5, (np.float32(0.25), np.float64(0.5)))  # type: ignore[arg-type]
    found = json.loads(json.dumps(Training(schedule=schedule).settings()))["schedule"]
    plain = {"name": "steps", "warmup": 0.0, "over": 0.0, "factor": 0.5, "at": [0.25, 0.5]}
    assert found == plain
    array = np.ones(2)
    with pytest.raises(ValueError, match=r"at=array.* of a schedule cannot be saved; use a number"):
        SCHEDULES.to_json(Steps(0.5, array))  # type: ignore[arg-type]


def test_what_settings_mean():
    assert RidgeModel(alpha=Fraction(1, 4)).penalty_for(9.0).l2 == 0.25  # type: ignore[arg-type]
    assert LeastSquares().penalty_for(9.0).l2 == 0.0
    assert LogisticModel(C=4.0).penalty_for(9.0).l2 == 0.25
    assert LogisticModel(C=np.inf).penalty_for(9.0).l2 == 0.0
    assert LogisticModel(C=0.5, l1_ratio=0.25).penalty_for(9.0) == Penalty(0.5, 1.5)
    penalty = CustomModel(loss=Huber(), l1=2, l2=3).penalty_for(9.0)
    assert (penalty.l1, penalty.l2) == (2.0, 3.0)
    assert LassoModel(alpha=2).penalty_for(9.0) == Penalty(18.0, 0.0)
    assert ElasticNetModel(alpha=2, l1_ratio=0.25).penalty_for(9.0) == Penalty(4.5, 13.5)
    assert PoissonModel(alpha=2.0).penalty_for(9.0) == Penalty(0.0, 18.0)
    tolerances = {name: model.default_tol for name, model in MODELS.items()}
    others = {"linear": 1e-6, "huber": 1e-5, "sgd-classifier": 1e-3, "sgd-regressor": 1e-3}
    assert tolerances == dict.fromkeys(MODELS, 1e-4) | others
    losses = [MODELS[name]().loss_for(n).name for name in ("ridge", "logistic") for n in (2, 3)]
    assert losses == ["squared", "squared", "logistic", "multinomial"]
    assert CustomModel(loss=Huber(2.0)).loss_for(0) == Huber(2.0)
    powers = {0: "squared", 1: "poisson", 1.5: "tweedie", 2: "gamma", 3: "tweedie"}
    assert {p: TweedieModel(power=p).loss_for(0).name for p in powers} == powers
    assert not CustomModel(loss=Gamma()).is_classifier


def test_powers_and_links_without_a_convex_objective_are_refused():
    with pytest.raises(ValueError, match=r"power=0\.5 is between 0 and 1, where no"):
        TweedieModel(power=0.5)
    for power, link, fitting in ((0.0, "log", "identity"), (1.5, "identity", "log")):
        with pytest.raises(ValueError, match=f"link='{link}'.*use link=\"{fitting}\""):
            TweedieModel(power=power, link=link)
        assert TweedieModel(power=power, link=fitting).loss_for(0).link == fitting
    with pytest.raises(ValueError, match="power=-1 is not a number of at least 0"):
        TweedieModel(power=-1)


def problem(model: Model, n_parameters: int, n_classes: int = 2) -> Any:
    n_classes = n_classes if model.is_classifier else 0
    return model.problem(DataFigures(10, n_parameters - 1, 1, n_classes, 10.0))


@pytest.mark.parametrize(
    ("model", "n_parameters", "solver"),
    [
        (LeastSquares(), 10, "gram"),
        (RidgeModel(), 4096, "gram"),
        (RidgeModel(), 4097, "lbfgs"),
        (LassoModel(), 4096, "coordinate-descent"),
        (LassoModel(), 4097, "proximal-lbfgs"),
        (LassoModel(alpha=0.0), 10, "gram"),
        (ElasticNetModel(l1_ratio=0.0), 10, "gram"),
        (ElasticNetModel(l1_ratio=1e-9), 10, "coordinate-descent"),
        (LeastSquares(positive=True), 10, "coordinate-descent"),
        (ElasticNetModel(positive=True), 4097, "coordinate-descent"),
        (CustomModel(loss=Squared(), l1=1.0), 10, "coordinate-descent"),
        (LogisticModel(), 512, "newton"),
        (LogisticModel(), 513, "block-lbfgs"),
        (LogisticModel(), 3_000, "lbfgs"),
        (LogisticModel(l1_ratio=0.1), 512, "proximal-newton"),
        (LogisticModel(l1_ratio=1.0), 2048, "proximal-newton"),
        (LogisticModel(l1_ratio=1.0), 2049, "proximal-lbfgs"),
        (LogisticModel(l1_ratio=1.0, C=np.inf), 10, "newton"),
        (LinearSVCModel(), 512, "newton"),
        (LinearSVCModel(penalty="l1"), 10, "proximal-newton"),
        (RidgeClassifierModel(), 4096, "gram"),
        (CustomModel(loss=Huber()), 10, "smoothing"),
        (SGDRegressorModel(loss="huber"), 513, "smoothing"),
        (LinearSVRModel(), 10, "smoothing"),
        (LinearSVRModel(loss="squared_epsilon_insensitive"), 512, "newton"),
        (SGDRegressorModel(), 10, "gram"),
        (SGDRegressorModel(penalty="l1"), 10, "coordinate-descent"),
        (PoissonModel(), 10, "newton"),
        (GammaModel(), 513, "block-lbfgs"),
        (TweedieModel(), 10, "gram"),
        (TweedieModel(power=3), 10, "lbfgs"),
        (CustomModel(loss=Hinge()), 10, "smoothing"),
        (CustomModel(loss=Huber(), l1=1.0), 10, "smoothing"),
        (CustomModel(loss=Hinge(), l1=1.0), 10, "smoothing"),
        (HuberModel(), 256, "newton"),
        (HuberModel(), 257, "lbfgs"),
        (QuantileModel(), 10, "smoothing"),
        (QuantileModel(alpha=0.0), 10_000, "smoothing"),
    ],
)
def test_auto_is_the_solver_that_fits_loss_penalty_and_size(model, n_parameters, solver):
    found = solver_for("auto", Settings(1e-4, 10), problem(model, n_parameters))
    assert found.name == solver


@pytest.mark.parametrize("solver", EXACT)
def test_an_exact_solver_has_its_name(solver):
    models = {"gram": LeastSquares(), "coordinate-descent": LeastSquares()}
    model = {**models, "smoothing": QuantileModel()}.get(solver, LogisticModel())
    assert solver_for(solver, Settings(1e-4, 10), problem(model, 3)).name == solver


@pytest.mark.parametrize(
    ("solver", "model", "said"),
    [
        ("coordinate-descent", LogisticModel(), "needs the loss of least squares, which this"),
        ("gram", LassoModel(), "needs a gradient everywhere.*use 'coordinate-descent' or 'proxi"),
        ("gram", LogisticModel(), "needs the loss of least squares, which this problem does not"),
        ("newton", CustomModel(loss=Hinge()), r"second derivatives .* and a gradient everywhere"),
        ("lbfgs", CustomModel(loss=Huber(), l1=1.0), "gradient everywhere.*use 'proximal-newton'"),
        ("proximal-lbfgs", CustomModel(loss=Hinge(), l1=1.0), "a loss with a gradient every.*'sgd"),
    ],
)
def test_a_solver_that_does_not_fit_the_problem_is_refused(solver, model, said):
    with pytest.raises(ValueError, match=said):
        solver_for(solver, Settings(1e-4, 10), problem(model, 3))


def test_another_constant_curvature_is_not_solved_as_least_squares():
    class Doubled(Loss):
        name: ClassVar[str] = "doubled"
        constant_curvature: ClassVar[bool] = True
        bound: ClassVar[float] = 2.0

        def value(self, y, z):
            return (z - y) ** 2

        def slope(self, y, z):
            return 2.0 * (z - y)

    made = problem(CustomModel(loss=Doubled()), 3)
    assert "gram" not in made.can
    assert solver_for("auto", Settings(1e-4, 10), made).name == "lbfgs"


def test_batch_sizes_in_rows():
    sizes = [Training(batch_size=b).rows_per_update(100, 30) for b in ("full", "chunk", 7)]
    assert sizes == [100, 30, 7]
    assert Training(batch_size="chunk").rows_per_update(20, 30) == 20
    assert Training(batch_size=100).rows_per_update(100, 30) == 100
    with pytest.raises(ValueError, match=r"batch_size=101 is more than the 100 rows"):
        Training(batch_size=101).rows_per_update(100, 30)


# Declarations

RATE_AS_TEXT = "cosine:0.1,warmup=5"
"""`Training` makes a number and a schedule of it."""


def test_every_field_of_a_model_and_of_training_is_declared_and_described():
    for cls in (*MODELS.values(), Training):
        declared = settings_of(cls)
        assert list(declared) == [field.name for field in fields(cls)]
        for name, setting in declared.items():
            assert setting.description.endswith(".")
            assert f"\n{name} : {setting.constraint.type_text}\n" in str(cls.__doc__)
            default = defaults_of(cls)[name]
            if default is not MISSING:
                assert setting.constraint.check(name, default) == default


@pytest.mark.parametrize(
    ("constraint", "text", "value"),
    [
        (settings_of(Training)["batch_size"].constraint, "full", "full"),
        (settings_of(Training)["batch_size"].constraint, "chunk", "chunk"),
        (settings_of(Training)["batch_size"].constraint, "20k", 20_000),
        (settings_of(Training)["learning_rate"].constraint, "auto", "auto"),
        (settings_of(Training)["learning_rate"].constraint, "1e-3", 1e-3),
        (settings_of(Training)["shuffle_chunks"].constraint, "8", 8),
        (settings_of(Training)["solver"].constraint, "momentum:momentum=0.5", Momentum(0.5)),
        (settings_of(Training)["solver"].constraint, "gram", "gram"),
        (settings_of(Training)["schedule"].constraint, "cosine:last=0.1", Cosine(0.1)),
        (settings_of(Training)["learning_rate"].constraint, "cosine:0.1,warmup=5", RATE_AS_TEXT),
        (settings_of(LogisticModel)["class_weight"].constraint, "balanced", "balanced"),
        (
            settings_of(LogisticModel)["class_weight"].constraint,
            "no=1,yes=2.5",
            {"no": 1.0, "yes": 2.5},
        ),
        (settings_of(LogisticModel)["class_weight"].constraint, "a=b=2", {"a=b": 2.0}),
        (settings_of(LogisticModel)["C"].constraint, "inf", np.inf),
        (settings_of(CustomModel)["loss"].constraint, "huber:epsilon=2", Huber(2.0)),
    ],
)
def test_settings_are_parsed_from_text(constraint, text, value):
    assert constraint.parse("it", text) == value


def test_values_of_registered_classes_are_text_in_python_too():
    made = Training(solver="momentum:nesterov=1", schedule="cosine:last=0.1")
    assert made == Training(solver=Momentum(nesterov=True), schedule=Cosine(0.1))
    assert Training(**json.loads(json.dumps(made.settings()))) == made
    loss: Any = "huber:epsilon=2"
    assert CustomModel(loss=loss) == CustomModel(loss=Huber(2.0))
    wrong: Any = {"name": "momentum", "momentum": True}
    with pytest.raises(ValueError, match="momentum=True of the optimizer 'momentum' is no number"):
        Training(solver=wrong)
    with pytest.raises(ValueError, match=r"nesterov=2.0 is not True or False"):
        Training(solver="momentum:nesterov=2")


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        (Count(), "1.5"),
        (Count(), ""),
        (Number(above=0.0), "0"),
        (Number(least=0.0), "much"),
        (Flag(), "perhaps"),
        (settings_of(Training)["schedule"].constraint, "it=cosine"),
        (settings_of(Training)["learning_rate"].constraint, "forest:0.1"),
        (settings_of(CustomModel)["loss"].constraint, "forest"),
        (settings_of(CustomModel)["loss"].constraint, "huber:epsilon"),
        (settings_of(CustomModel)["loss"].constraint, "huber:epsilon=x"),
        (settings_of(CustomModel)["loss"].constraint, "huber:width=1"),
        (settings_of(CustomModel)["loss"].constraint, "huber:epsilon=-1"),
    ],
)
def test_text_that_is_no_setting_is_refused(constraint, text):
    with pytest.raises(ValueError, match=r"it=|of the loss|the loss 'huber' has|epsilon="):
        constraint.parse("it", text)


def test_settings_of_a_base_come_first_and_bounds_hold():
    @dataclass(frozen=True, kw_only=True)
    class Base(CheckedSettings):
        first: Annotated[int, Count(most=3), "The first."] = 1

    @dataclass(frozen=True, kw_only=True)
    class Derived(Base):
        second: Annotated[float, Number(above=0.0, most=1.0), "The second."] = 1.0

    assert list(settings_of(Derived)) == ["first", "second"]
    with pytest.raises(ValueError, match="first=4 is too large: it is at most 3"):
        Derived(first=4)
    with pytest.raises(ValueError, match="second=2 is not a number above 0 and at most 1"):
        Derived(second=2)


# Registries


def test_a_registry_refuses_a_name_that_another_class_has():
    registry: Registry[Loss] = Registry("loss", "LOSSES", [Huber])
    assert registry.add(Huber) is Huber
    taken = type("Taken", (Hinge,), {"name": "huber"})
    with pytest.raises(ValueError, match="the loss 'huber' is Huber already; give Taken another"):
        registry.add(taken)
    nameless = type("Nameless", (Hinge,), {"name": "two words"})
    with pytest.raises(ValueError, match="Nameless has no name"):
        registry.add(nameless)


def test_a_loss_of_the_users_is_saved_and_loaded_once_it_is_registered(monkeypatch):
    monkeypatch.setattr(LOSSES, "_classes", dict(LOSSES._classes))
    model = CustomModel(loss=Unregistered(), l2=1.0)
    LOSSES.add(Unregistered)
    assert CustomModel(**json.loads(json.dumps(model.settings()))) == model
