"""Multi-layer perceptrons: gradients, scikit-learn's own numbers, extremes and refusals."""

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sklearn.neural_network
import zarr
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_diabetes, load_digits

from ooc_train import (
    LogisticRegression,
    MLPClassifier,
    MLPClassifierModel,
    MLPRegressor,
    MLPRegressorModel,
    NonFiniteData,
    StoreWriter,
    Training,
    load,
    train,
)
from ooc_train.core.sums import Block
from ooc_train.errors import InvalidRun
from ooc_train.models.model import DataFigures
from ooc_train.models.network import Layers
from ooc_train.models.network_predictor import NetworkPredictor
from ooc_train.objective.activations import ACTIVATIONS, Gelu, Relu
from ooc_train.objective.losses import LOSSES
from ooc_train.objective.scaling import Scaling
from ooc_train.optimizers.adam import Adam
from ooc_train.optimizers.momentum import Momentum
from ooc_train.optimizers.schedules import Constant

DIGITS, CLASSES = load_digits(return_X_y=True)
DIGITS = DIGITS[:640] / 16
CLASSES = CLASSES[:640]
pytestmark = pytest.mark.filterwarnings("ignore:.*not converged")

FULL: dict[str, Any] = {"batch_size": "full", "solver": "lbfgs"}


def rows_of(loss, outputs, rows=23, features=5):
    """Return rows, and targets in the loss's domain."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(rows, features))
    if loss.kind == "rowwise":
        y = rng.integers(0, outputs, (rows, 1)).astype(float)
    elif loss.target in ("binary", "codes"):
        y = rng.integers(0, 2, (rows, outputs)).astype(float)
    else:
        y = rng.normal(size=(rows, outputs))
    if loss.target in ("nonnegative", "positive"):
        y = np.abs(y) + 0.1
    return Block(X, y, rng.uniform(0.5, 2.0, rows))


def problem_of(model, classes=0, features=5, outputs=1, rows=23):
    return model.problem(DataFigures(rows, features, outputs, classes, float(rows)))


# Activations and gradients


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("largest", [1.0, 1e6, 1e9, 1e30])
def test_the_loss_of_a_run_is_that_of_its_predictions(scale, largest):
    """The products of float32 rows of 1e9 would have another loss by percents."""
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(3000, 4)) * [1.0, largest, 1.0, 1.0]).astype(np.float32)
    X[:, 2] = X[:, 1]
    y = rng.normal(size=(3000, 1))
    model = MLPRegressorModel(hidden_layer_sizes=(20,), scale=scale)
    problem = problem_of(model, features=4, rows=3000)
    if scale != 1.0:
        problem = replace(problem, scaling=Scaling.constant(scale, 4))
    params = problem.initial(1)
    params[40:60] = -params[20:40]  # the large columns cancel
    with np.errstate(over="ignore"):
        z = problem.predictor(params).decision(X.astype(np.float64))
        due = 0.5 * ((z - y) ** 2).sum()
        block = Block(X, y, None)
        loss, gradient = problem.block_gradient(params, block)
        assert problem.block_loss(params, block) == pytest.approx(loss, rel=1e-12)
    assert loss == pytest.approx(due, rel=1e-5 if largest < 1e4 else 1e-12)
    assert np.isfinite(gradient).all() or largest > 1e20


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_slope_of_an_activation_is_its_derivative(name):
    activation = ACTIVATIONS[name]()
    z = np.linspace(-6.0, 6.0, 48)  # not 0, where a kink may be
    by_differences = (activation.value(z + 1e-6) - activation.value(z - 1e-6)) / 2e-6
    assert_allclose(activation.slope(z, activation.value(z)), by_differences, atol=1e-8)
    narrow = activation.value(z.astype(np.float32))
    assert narrow.dtype == np.float32
    assert_allclose(narrow, activation.value(z), rtol=2e-6, atol=1e-6)
    assert activation.slope(z.astype(np.float32), narrow).dtype != np.float64


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_finite_for_large_inputs_and_tell_of_nan(name):
    activation = ACTIVATIONS[name]()
    z = np.array([-1e4, 1e4])
    assert np.isfinite(activation.slope(z, activation.value(z))).all()
    assert np.isnan(activation.value(np.array([np.nan]))).all()


SMOOTH = [name for name in LOSSES if LOSSES[name].smooth and name not in ("huber-scale",)]


@pytest.mark.parametrize("activation", ["tanh", "gelu", "logistic", "identity", "relu"])
@pytest.mark.parametrize(
    ("loss", "outputs"),
    [("squared", 2), ("logistic", 1), ("multinomial", 3), ("poisson", 1), ("squared_hinge", 2)],
)
@pytest.mark.parametrize("hidden", [(), (4,), (4, 3)], ids=str)
def test_gradients_are_those_of_finite_differences(activation, loss, outputs, hidden):
    loss = LOSSES[loss]()
    block = rows_of(loss, outputs)
    model = MLPRegressorModel(hidden_layer_sizes=hidden, activation=activation, alpha=0.3)
    problem = problem_of(model, outputs=outputs)
    scaling = Scaling(np.arange(5.0) / 5, np.linspace(0.5, 2.0, 5))
    object.__setattr__(problem, "loss", loss)
    object.__setattr__(problem, "scaling", scaling)
    params = problem.initial(1)

    def objective(point):
        sums = problem.reduction(point[None], gradients=0)
        total = sums.zeros()
        sums.add(total, block, {})
        return problem.objectives(total, point[None])[0]

    reduction = problem.reduction(params[None])
    sums = reduction.zeros()
    reduction.add(sums, block, {})
    gradient = problem.read(sums, params[None]).gradient
    rng = np.random.default_rng(0)
    for direction in rng.normal(size=(4, len(params))):
        step = 1e-5 * direction
        by_differences = (objective(params + step) - objective(params - step)) / 2e-5
        assert_allclose(gradient @ direction, by_differences, rtol=2e-6, atol=1e-6)


# scikit-learn's own numbers


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "sgd", "learning_rate_init": 0.01},
        {
            "solver": "sgd",
            "momentum": 0.0,
            "activation": "tanh",
            "alpha": 0.1,
            "learning_rate_init": 0.05,
        },
        {"solver": "sgd", "nesterovs_momentum": False, "activation": "logistic"},
        {"solver": "adam", "epsilon": 1e-13, "activation": "identity", "alpha": 10.0},
    ],
    ids=str,
)
def test_parameters_are_scikit_learns_after_each_pass(settings):
    settings = {"batch_size": 32, "random_state": 3} | settings
    ours = MLPClassifier((32, 16), average=False, **settings)
    theirs = sklearn.neural_network.MLPClassifier((32, 16), shuffle=False, **settings)
    # Of a constant column Adam divides rounding by rounding.
    X = DIGITS + np.random.default_rng(0).normal(scale=0.1, size=DIGITS.shape)
    for _ in range(2):
        for each in (ours, theirs):
            each.partial_fit(X, CLASSES, classes=np.arange(10))
        assert ours.n_layers_ == theirs.n_layers_
        assert ours.out_activation_ == theirs.out_activation_
        for found, due in zip(
            ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True
        ):
            assert_allclose(found, due, rtol=0, atol=1e-10)
    assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-9)
    assert_array_equal(ours.predict(X), theirs.predict(X))


@pytest.mark.parametrize("clip_norm", [0.02, 0.3])
def test_clipped_gradients_are_pytorchs(clip_norm):
    torch = pytest.importorskip("torch")
    problem = problem_of(
        MLPClassifierModel(hidden_layer_sizes=(6,), alpha=0.7), classes=10, features=64, rows=640
    )
    updates = problem.updates("<f8", 64, Momentum(clip_norm=clip_norm), Constant(), 0.1, np.inf)
    state = updates.start(problem.initial(0))
    specs = updates.workspace(640)
    arrays = {name: np.empty(each.shape, each.dtype) for name, each in specs.items()}
    with updates.learner(state, arrays) as learn:
        learn(Block(DIGITS, CLASSES[:, None].astype(float), None), np.arange(640))
    views = problem.layers.views(problem.initial(0))
    params = [torch.tensor(part.copy(), requires_grad=True) for each in views for part in each]
    X, y = torch.tensor(DIGITS), torch.tensor(CLASSES)
    optimizer = torch.optim.SGD(params, lr=0.1, momentum=0.9)
    for first in range(0, 640, 64):
        optimizer.zero_grad()
        hidden = torch.relu(X[first : first + 64] @ params[0] + params[1])
        z = hidden @ params[2] + params[3]
        loss = torch.nn.functional.cross_entropy(z, y[first : first + 64])
        squares = (params[0] ** 2).sum() + (params[2] ** 2).sum()
        (loss + 0.7 / 640 / 2 * squares).backward()
        torch.nn.utils.clip_grad_norm_(params, clip_norm)
        optimizer.step()
    found = [part for each in problem.layers.views(state["theta"]) for part in each]
    for ours, theirs in zip(found, params, strict=True):
        # PyTorch adds 1e-6 to the norm.
        assert_allclose(ours, theirs.detach().numpy(), rtol=0, atol=1e-6)


def test_several_outputs_and_poisson_are_scikit_learns():
    X, y = load_diabetes(return_X_y=True)
    both = np.column_stack([y, -y])[:400] / 100
    settings: dict[str, Any] = {
        "batch_size": 40,
        "random_state": 1,
        "solver": "sgd",
        "learning_rate_init": 0.01,
    }
    ours = MLPRegressor((8,), average=False, **settings).partial_fit(X[:400], both)
    theirs = sklearn.neural_network.MLPRegressor(hidden_layer_sizes=(8,), shuffle=False, **settings)
    assert_allclose(
        ours.predict(X), theirs.partial_fit(X[:400], both).predict(X), rtol=0, atol=1e-10
    )
    ours = MLPRegressor((8,), loss="poisson", average=False, **settings).partial_fit(
        X[:400], both[:, 0]
    )
    theirs = sklearn.neural_network.MLPRegressor("poisson", (8,), shuffle=False, **settings)
    theirs.partial_fit(X[:400], both[:, 0])
    for found, due in zip(ours.coefs_, theirs.coefs_, strict=True):
        assert_allclose(found, due, rtol=0, atol=1e-10)
    assert ours.predict(X).shape == (len(X),)
    assert ours.out_activation_ == "exp"


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**100])
def test_the_start_follows_from_the_seed(seed):
    layers = Layers((5, 4, 2), Relu())
    assert_array_equal(layers.initial(seed, "glorot"), layers.initial(seed, "glorot"))
    assert (layers.initial(seed, "glorot") != layers.initial(1, "glorot")).any()
    (weights, biases), _ = layers.views(layers.initial(seed, "he"))
    assert np.abs(weights).max() <= (6 / 5) ** 0.5
    assert_array_equal(biases, 0.0)


# Learning


def test_a_network_without_hidden_layers_is_a_linear_model():
    network = MLPClassifier((), alpha=1.0, tol=1e-8, max_iter=500, random_state=0, **FULL)
    linear = LogisticRegression(C=1.0, tol=1e-9)
    X = DIGITS[:, 20:40]
    found = network.fit(X, CLASSES).predict_proba(X)
    assert_allclose(found, linear.fit(X, CLASSES).predict_proba(X), atol=1e-6)


@pytest.mark.parametrize(
    "training",
    [
        {"solver": "adam", "batch_size": 32, "max_iter": 60},
        {"solver": "momentum:nesterov=1", "batch_size": 1, "learning_rate": 0.003, "max_iter": 6},
        {"solver": "lbfgs", "max_iter": 60},
        {"solver": "adam", "learning_rate": 0.03, "max_iter": 60},
        {"solver": "adam", "batch_size": 16, "replicas": 2, "max_iter": 40},
        {"solver": "adamw", "batch_size": "chunk", "learning_rate": "cosine:0.02", "max_iter": 60},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_digits_are_learned_by_every_way(training, dtype):
    model = MLPClassifierModel(hidden_layer_sizes=(32,))
    _, report = train(model, DIGITS.astype(dtype), Training(random_state=0, **training), y=CLASSES)
    assert report.loss < 0.15


def test_columns_of_any_scale_are_learned_standardised():
    scales = np.geomspace(1e-6, 1e9, DIGITS.shape[1])
    X = DIGITS * scales + scales
    settings: dict[str, Any] = {"max_iter": 40, "random_state": 0, "batch_size": 32}
    scaled = MLPClassifier((32,), standardize=True, **settings).fit(X, CLASSES)
    plain = MLPClassifier((32,), standardize=True, **settings).fit(DIGITS, CLASSES)
    assert scaled.score(X, CLASSES) > 0.99
    assert_allclose(scaled.predict_proba(X), plain.predict_proba(DIGITS), atol=1e-6)
    again = MLPClassifier((32,), standardize=True, warm_start=True, **settings | {"max_iter": 1})
    again.fit(X, CLASSES)
    first = again.loss_
    assert again.fit(X, CLASSES).loss_ < first


def test_weights_are_repeated_rows_and_class_weights_are_weights():
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 3, len(DIGITS)).astype(float)
    settings: dict[str, Any] = {"max_iter": 10, "random_state": 0, "tol": 0.0, "alpha": 1.0} | FULL
    found = MLPClassifier((8,), **settings).fit(DIGITS, CLASSES, sample_weight=weights)
    repeated = np.repeat(np.arange(len(DIGITS)), weights.astype(int))
    due = MLPClassifier((8,), **settings).fit(DIGITS[repeated], CLASSES[repeated])
    assert_allclose(found.coefs_[0], due.coefs_[0], atol=1e-7)
    by_class = {k: 1.0 + k for k in range(10)}
    found = MLPClassifier((8,), class_weight=by_class, **settings).fit(DIGITS, CLASSES)
    due = MLPClassifier((8,), **settings).fit(DIGITS, CLASSES, sample_weight=1.0 + CLASSES)
    assert_allclose(found.coefs_[0], due.coefs_[0], atol=1e-9)
    settings |= {"batch_size": 40, "solver": "adam"}
    found = MLPClassifier((8,), class_weight=by_class, **settings).fit(DIGITS, CLASSES)
    due = MLPClassifier((8,), **settings).fit(DIGITS, CLASSES, sample_weight=1.0 + CLASSES)
    assert_allclose(found.coefs_[0], due.coefs_[0], atol=1e-9)


def test_blocks_of_any_size_give_the_same_bits(tmp_path):
    """A batch may lie in several blocks: its gradient waits for the rest of the rows."""
    problem = problem_of(MLPClassifierModel(hidden_layer_sizes=(7,)), classes=10, features=64)
    updates = problem.updates("<f8", 16, Adam(), Constant(), 0.01, np.inf)
    y, states = CLASSES[:, None].astype(float), []
    for cuts in ([640], [5, 640], [16, 40, 41, 640]):
        state = updates.start(problem.initial(0))
        first = 0
        for last in cuts:
            rows = last - first
            specs = updates.workspace(rows)
            arrays = {name: np.full(each.shape, np.nan, each.dtype) for name, each in specs.items()}
            with updates.learner(state, arrays) as learn:
                learn(Block(DIGITS[first:last], y[first:last], None), np.arange(rows))
            first = last
        states.append(state)
    for state in states[1:]:
        assert_allclose(state["theta"], states[0]["theta"], atol=1e-12)
        assert_array_equal(state["counters"], states[0]["counters"])


def test_partial_fit_goes_on_by_name_and_forgets_nothing(tmp_path):
    names = [f"p{i}" for i in range(64)]
    settings: dict[str, Any] = {"random_state": 0, "batch_size": 32}
    found = []
    for order in (np.arange(64), np.arange(64)[::-1]):
        made = MLPClassifier((8,), **settings)
        for i, columns in enumerate((np.arange(64), order)):
            rows, path = slice(320 * i, 320 * i + 320), tmp_path / f"{i}{order[0]}"
            with StoreWriter(
                path, n_features=64, feature_names=[names[k] for k in columns]
            ) as writer:
                writer.write(DIGITS[rows, columns], CLASSES[rows].astype(float))
                writer.commit()
            made.partial_fit(str(path), classes=np.arange(10.0))
        assert made.t_ == 10
        found.append(made.coefs_)
    for one, other in zip(*found, strict=True):
        assert_allclose(one, other, atol=1e-6)
    with pytest.raises(ValueError, match=r"standardize=True and .* of mlp-classifier need the mom"):
        MLPClassifier((8,), standardize=True).partial_fit(DIGITS, CLASSES, classes=np.arange(10))


# Saving and predicting


def test_a_saved_network_predicts_the_same_bits(tmp_path):
    made = MLPClassifier((9, 4), activation="gelu", max_iter=3, standardize=True).fit(
        DIGITS, CLASSES
    )
    made.save(tmp_path / "run")
    loaded = load(tmp_path / "run")
    assert_array_equal(loaded.predict_proba(DIGITS), made.predict_proba(DIGITS))
    assert isinstance(loaded, MLPClassifier)
    assert loaded.hidden_layer_sizes == (9, 4)
    with np.load(tmp_path / "run" / "parameters.npz") as archive:
        numbers = dict(archive)
    for broken in (
        {"sizes": np.array([64.0, 9, 5, 10])},
        {"sizes": np.array([64.0, -9, 4, 10])},
        {"sizes": np.array([1e300, 9])},
        {"activation": np.array([1e9, 2.0])},
        {"params": np.full(len(numbers["params"]), np.nan)},
        {"params": numbers["params"].reshape(1, -1)},
    ):
        np.savez(tmp_path / "run" / "parameters.npz", **numbers | broken)
        with pytest.raises(InvalidRun, match="damaged"):
            load(tmp_path / "run")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("activation", ["relu", "logistic", "tanh"])
def test_rows_that_are_not_finite_are_named(bad, activation, tmp_path):
    X = DIGITS.astype(np.float32)
    X[77, 5] = bad
    group = zarr.open_group(tmp_path / "a", mode="w")
    group.create_array("X", data=X, chunks=(100, 64))
    group.create_array("y", data=CLASSES, chunks=(100,))
    settings: dict[str, Any] = {"hidden_layer_sizes": (1,), "activation": activation, "max_iter": 2}
    for more in (FULL, {"batch_size": 16}, {"batch_size": 1, "solver": "sgd"}):
        with pytest.raises(NonFiniteData, match=r"row 77 has (-?inf|nan) in column 5 of X"):
            MLPClassifier(**settings, **more, random_state=0).fit(str(tmp_path / "a"))
    fitted = MLPClassifier(**settings, random_state=0).fit(DIGITS, CLASSES)
    with pytest.raises(NonFiniteData, match=r"row 77 has (-?inf|nan) in column 5 of X"):
        fitted.predict(str(tmp_path / "a"))


def test_predicting_rows_in_pieces_of_any_size():
    layers = Layers((3, 6, 2), Gelu())
    predictor = NetworkPredictor(layers, layers.initial(0, "he"))
    X = np.random.default_rng(0).normal(size=(700, 3))
    due = predictor.decision(X)
    for rows in (1, 7, 300, 5000):
        found = predictor.decision(X.astype(np.float32), np.empty((rows, 3)))
        assert_allclose(found, due, atol=1e-5)
    assert predictor.decision(X[:0]).shape == (0, 2)
    order = np.array([2, 0, 1])
    assert_allclose(predictor.permuted(order).decision(X[:, order]), due, atol=1e-14)


# Extremes and refusals


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("settings", [FULL, {"batch_size": 1}, {}], ids=str)
def test_one_column_and_constant_columns(kind, settings):
    X = np.column_stack([np.arange(12.0) > 5, np.ones(12)])
    for columns in (X[:, :1], X):
        made = kind((3,), max_iter=3, random_state=0, **settings).fit(columns, X[:, 0])
        assert np.isfinite(made.predict(columns)).all()


def test_one_row_is_learned():
    made = MLPRegressor((3,), max_iter=200, tol=0, random_state=0, **FULL).fit([[1.0]], [2.0])
    assert made.predict([[1.0]]) == pytest.approx([2.0], abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes=.*units of each hidden layer"),
        ({"hidden_layer_sizes": (1.5,)}, "hidden_layer_sizes="),
        ({"hidden_layer_sizes": "many"}, "hidden_layer_sizes="),
        ({"hidden_layer_sizes": (10**7,)}, "from 1 to 1,000,000"),
        ({"activation": "step"}, "activation='step' is not 'relu'"),
        ({"alpha": -1}, "alpha=-1"),
        ({"solver": "newton"}, "solver='newton' needs .*'lbfgs'"),
        ({"learning_rate": "cosine:0.1", "learning_rate_init": 0.1}, "leave one of them out"),
        ({"momentum": 2, "solver": "sgd"}, "momentum=2"),
        ({"batch_size": "exp:8..64"}, "is for linear models; use one batch size"),
        ({"loss": "huber"}, "loss='huber' is not 'squared_error'"),
    ],
)
def test_settings_that_cannot_be_used(settings, said):
    kind = MLPRegressor if "loss" in settings else MLPClassifier
    with pytest.raises(ValueError, match=said):
        kind(**settings).fit(DIGITS, CLASSES)


def test_poisson_names_the_row_outside_of_its_domain():
    y = np.abs(CLASSES - 3.0)
    y[50] = -1.0
    for settings in ({"batch_size": 16}, FULL):
        with pytest.raises(ValueError, match=r"y\[50\] = -1 is below 0"):
            MLPRegressor((4,), loss="poisson", random_state=0, **settings).fit(DIGITS, y)


def test_a_start_of_other_layers_is_refused():
    made = MLPClassifier((4,), max_iter=2).fit(DIGITS, CLASSES)
    model = MLPClassifierModel(hidden_layer_sizes=(5,))
    with pytest.raises(ValueError, match=r"not those of layers of the sizes \(64, 5, 10\)"):
        train(model, DIGITS, Training(batch_size=32), y=CLASSES, start=made)


# batches shared among threads


@pytest.mark.parametrize("settings", [{}, {"dropout": 0.3}, {"alpha": 0.1, "frozen_layers": 1}])
@pytest.mark.parametrize("batch_size", [256, 300, 700])
def test_threads_share_a_batch_without_changing_a_bit(settings, batch_size, monkeypatch):
    monkeypatch.setattr("ooc_train.models.network_updates._PART_PARAMETERS", 300)
    problem = problem_of(
        MLPClassifierModel(hidden_layer_sizes=(24, 12), **settings),
        classes=10, features=64, rows=len(DIGITS),
    )  # fmt: skip
    block = Block(DIGITS, CLASSES[:, None].astype(float), np.linspace(0.5, 2.0, len(DIGITS)))
    order = np.random.default_rng(0).permutation(len(DIGITS))
    updates = problem.updates("<f8", batch_size, Adam(), Constant(), 0.01, np.inf)
    found = []
    for threads in (1, 2, 3, 7):
        state = updates.start(problem.initial(0))
        specs = updates.workspace(len(order))
        arrays = {name: np.full(each.shape, 7, each.dtype) for name, each in specs.items()}
        before = threading.active_count()
        with updates.learner(state, arrays, threads) as learn:
            learn(block, order[:451])
            learn(block, order[451:])
            if batch_size == 700:
                assert threading.active_count() == before + min(threads, 3) - 1
        assert threading.active_count() == before
        updates.finish(state, arrays)
        found.append({name: array.tobytes() for name, array in state.items()})
    assert found[1:] == found[:1] * 3
    # Shares are rows of a batch: the gradient is that of the batch, up to rounding.
    with monkeypatch.context() as patch:
        patch.setattr("ooc_train.models.network_updates._SHARES", 1)
        one = updates.start(problem.initial(0))
        specs = updates.workspace(len(order))
        arrays = {name: np.empty(each.shape, each.dtype) for name, each in specs.items()}
        with updates.learner(one, arrays) as learn:
            learn(block, order)
        updates.finish(one, arrays)
    assert_allclose(state["theta"], one["theta"], rtol=1e-9, atol=1e-12)
    assert one["counters"].tolist() == state["counters"].tolist()


def test_an_error_of_a_shared_batch_is_raised_once_and_no_thread_is_left():
    problem = problem_of(
        MLPClassifierModel(hidden_layer_sizes=(8,)), classes=10, features=64, rows=len(DIGITS)
    )
    updates = problem.updates("<f8", 512, Adam(), Constant(), 0.01, np.inf)
    for row in (3, 500):  # of the first share, and of the last
        X = DIGITS.copy()
        X[row, 5] = np.nan
        state, specs = updates.start(problem.initial(0)), updates.workspace(len(X))
        arrays = {name: np.empty(each.shape, each.dtype) for name, each in specs.items()}
        before = threading.active_count()
        with (
            pytest.raises(NonFiniteData, match=f"row {row}"),
            updates.learner(state, arrays, 4) as learn,
        ):
            learn(Block(X, CLASSES[:, None].astype(float), None), np.arange(len(X)))
        assert threading.active_count() == before


@pytest.mark.slow
def test_early_stopping_keeps_a_tenth_of_the_rows_out():
    made = MLPClassifier((8,), early_stopping=True, random_state=0, max_iter=300)
    made.fit(DIGITS, CLASSES)
    assert any("64 of 640 rows are kept out" in note for note in made.report_.notes)
    assert made.report_.validation_loss is not None
    with_rows = made.set_params(max_iter=20).fit(DIGITS, CLASSES, X_val=DIGITS, y_val=CLASSES)
    assert not any("are kept out" in note for note in with_rows.report_.notes)
