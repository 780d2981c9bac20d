"""Models as files: what onnxruntime and plain Python compute is what ooc_train predicts."""

import json
import math
import sys
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ooc_train import (
    CustomModel,
    ElasticNetModel,
    Fitted,
    GammaModel,
    HuberModel,
    LassoModel,
    LeastSquares,
    LinearSVCModel,
    LinearSVRModel,
    LogisticModel,
    MLPClassifier,
    MLPClassifierModel,
    MLPRegressor,
    MLPRegressorModel,
    OutputExists,
    PoissonModel,
    QuantileModel,
    Recipe,
    RidgeClassifierModel,
    RidgeModel,
    SGDClassifierModel,
    SGDRegressorModel,
    TorchRegressorModel,
    TweedieModel,
    cli,
    export,
    ingest,
    load,
    open_store,
    predict_files,
    train,
)
from ooc_train.errors import InvalidRun, MissingPackage
from ooc_train.exporting import onnx_columns, onnx_model
from ooc_train.inference.outputs import Outputs
from ooc_train.models.calibration import Isotonic, Sigmoid, Temperature
from ooc_train.models.network import Layers
from ooc_train.models.network_predictor import NetworkPredictor
from ooc_train.models.predictor import LinearPredictor, ScaledPredictor
from ooc_train.models.pytorch.torch_predictor import TorchPredictor
from ooc_train.models.pytorch.torch_settings import NetworkSpec
from ooc_train.objective.activations import ACTIVATIONS, Relu
from ooc_train.objective.loss import Loss
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.squared import Squared

RNG = np.random.default_rng(3)
SGD_LOSSES = ("hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron", "squared_error")
BINARY = [
    LogisticModel(),
    LinearSVCModel(),
    RidgeClassifierModel(),
    CustomModel(loss=Logistic()),
    *(SGDClassifierModel(loss=loss) for loss in SGD_LOSSES),
]
REGRESSIONS = [
    *(LeastSquares(), RidgeModel(), LassoModel(), ElasticNetModel()),
    *(PoissonModel(), GammaModel(), TweedieModel(power=1.5), TweedieModel()),
    *(QuantileModel(), LinearSVRModel(), SGDRegressorModel(), CustomModel(loss=Squared())),
]
LABELS = (("no", "yes"), (False, True), (-1, 7), (0.5, 2.0), ("a", 3))


def linear(model, classes=(), n_features=4, outputs=1, **more):
    """A linear model of random parameters."""
    predictor = LinearPredictor(RNG.normal(size=(outputs, n_features)), RNG.normal(size=outputs))
    return Fitted(model, predictor, tuple(classes), **more)


def network(model, sizes, classes=(), activation="relu", **more):
    """A perceptron of random parameters."""
    layers = Layers(tuple(sizes), ACTIVATIONS[activation]())
    params = RNG.normal(size=layers.n_parameters)
    return Fitted(model, NetworkPredictor(layers, params), tuple(classes), **more)


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(path, feeds):
    """What onnxruntime computes, by the names of the outputs."""
    served = session(path)
    names = [output.name for output in served.get_outputs()]
    return dict(zip(names, served.run(names, feeds), strict=True))


def require_agreement(found, fitted, X):
    """The outputs of a graph are the model's predictions."""
    outputs, z = Outputs.of(fitted), fitted.decision(X.reshape(len(X), -1))
    if fitted.classes:
        np.testing.assert_array_equal(
            found.pop("prediction"), np.asarray(fitted.classes)[outputs.codes(z)]
        )
        assert ("probability" in found) == outputs.has_probabilities
        assert "decision" in found
    for kind, values in found.items():
        np.testing.assert_allclose(values, outputs.at(z, kind), rtol=1e-12, atol=1e-14)


def matrix(shape=(4,)):
    """Rows of which some have predictors far from 0."""
    return RNG.normal(size=(60, *shape)) * np.logspace(-2, 2.3, 60).reshape(60, *(1 for _ in shape))


@pytest.mark.parametrize("classes", LABELS, ids=str)
def test_labels_of_any_type_come_out(tmp_path, classes):
    fitted = linear(LogisticModel(), classes)
    found = export(fitted, tmp_path / "a.onnx")
    assert found.outputs == ("prediction", "probability", "decision")
    assert found.largest_difference is not None
    assert found.largest_difference < 1e-12
    X = matrix()
    require_agreement(run(tmp_path / "a.onnx", {"X": X}), fitted, X)


@pytest.mark.parametrize("model", BINARY, ids=repr)
@pytest.mark.parametrize("n_classes", [2, 10])
def test_every_classifier(tmp_path, model, n_classes):
    fitted = linear(model, range(n_classes), outputs=1 if n_classes == 2 else n_classes)
    export(fitted, tmp_path / "a.onnx")
    X = matrix()
    require_agreement(run(tmp_path / "a.onnx", {"X": X}), fitted, X)


@pytest.mark.parametrize("model", REGRESSIONS, ids=repr)
@pytest.mark.parametrize("outputs", [1, 3])
def test_every_regression(tmp_path, model, outputs):
    fitted = linear(model, outputs=outputs)
    export(fitted, tmp_path / "a.onnx")
    X = matrix()
    require_agreement(run(tmp_path / "a.onnx", {"X": X}), fitted, X)


def test_huber_with_its_scale_and_one_column(tmp_path):
    predictor = ScaledPredictor(np.array([[2.0]]), np.array([1.0]), np.array([0.3]))
    fitted = Fitted(HuberModel(), predictor)
    export(fitted, tmp_path / "a.onnx")
    X = matrix((1,))
    require_agreement(run(tmp_path / "a.onnx", {"X": X}), fitted, X)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize(
    ("model", "sizes", "classes"),
    [
        (MLPClassifierModel(), (4, 5, 3, 1), ("no", "yes")),
        (MLPClassifierModel(), (4, 8, 10), range(10)),
        (MLPRegressorModel(), (4, 6, 2), ()),
        (MLPRegressorModel(loss="poisson"), (4, 1), ()),
        (MLPRegressorModel(loss="log_loss"), (4, 3, 2), ()),
        (MLPRegressorModel(loss="cross_entropy"), (4, 3, 3), ()),
    ],
)
def test_every_perceptron(tmp_path, activation, model, sizes, classes):
    fitted = network(model, sizes, classes, activation)
    export(fitted, tmp_path / "a.onnx")
    X = RNG.normal(size=(60, 4))
    require_agreement(run(tmp_path / "a.onnx", {"X": X}), fitted, X)


LINES = Sigmoid(90, np.array([0.7, -0.2, 1.5]), np.array([0.1, 0.3, -2.0]))


@pytest.mark.parametrize("calibration", [LINES, Temperature(90, 0.6)], ids=["lines", "one"])
@pytest.mark.parametrize("is_network", [False, True])
def test_calibrations_by_lines_are_part_of_the_last_layer(tmp_path, calibration, is_network):
    fitted = linear(LinearSVCModel(), "abc", outputs=3)
    if is_network:
        fitted = network(MLPClassifierModel(), (4, 5, 3), "abc")
    fitted = replace(fitted, calibration=calibration)
    export(fitted, tmp_path / "a.onnx")
    export(fitted, tmp_path / "a.json", to="json")
    model = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    X = RNG.normal(size=(60, 4))
    due = fitted.decision(X)
    for row, z in zip(X.tolist(), due, strict=True):
        found, _ = evaluated(model, dict(zip(model["features"], row, strict=True)))
        np.testing.assert_allclose(found, z, rtol=1e-12, atol=1e-14)
    require_agreement(run(tmp_path / "a.onnx", {"X": X}), fitted, X)


def test_images_keep_their_axes(tmp_path):
    fitted = network(MLPClassifierModel(), (48, 8, 10), range(10), row_shape=(8, 6))
    export(fitted, tmp_path / "a.onnx")
    X = RNG.normal(size=(60, 8, 6))
    assert session(tmp_path / "a.onnx").get_inputs()[0].shape == ["rows", 8, 6]
    require_agreement(run(tmp_path / "a.onnx", {"X": X}), fitted, X)


def test_half_a_million_columns(tmp_path):
    fitted = linear(LogisticModel(), ("a", "b"), n_features=500_000)
    found = export(fitted, tmp_path / "a.onnx")
    assert found.bytes < 1.1 * 8 * 500_000
    assert (found.largest_difference or 0.0) < 1e-10


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e308])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_what_predict_refuses_the_graph_refuses(tmp_path, value, activation):
    X = np.zeros((5, 4))
    X[3] = value
    for fitted in (
        Fitted(LeastSquares(), LinearPredictor(np.full((1, 4), 2.0), np.zeros(1))),
        replace(network(MLPRegressorModel(), (4, 3, 1), activation=activation)),
    ):
        export(fitted, tmp_path / "a.onnx", overwrite=True)
        try:
            due = fitted.predictor.decision(X)
        except ValueError:
            with pytest.raises(Exception, match=r"a_row_has|exceeds_float64"):
                run(tmp_path / "a.onnx", {"X": X})
        else:
            np.testing.assert_allclose(run(tmp_path / "a.onnx", {"X": X})["prediction"], due)
            assert value == 1e308


def raw_table(rows):
    """Rows with every kind of column: text, whole numbers and truths as categories, dates."""
    random = np.random.default_rng(5)

    def gaps(values, share=0.1):
        return pa.array(values, mask=random.random(rows) < share)

    start = np.datetime64("2013-01-01T05:30", "us")
    days = start + random.integers(0, 10**10, rows).astype("timedelta64[ms]")
    return pa.table(
        {
            "carrier": pa.array(random.choice(["UA", "AA", "\u00fc é", "DL"], rows)),
            "gate": gaps(random.choice(["a", "b"], rows)),
            "stops": gaps(random.integers(0, 5, rows)),
            "night": pa.array(random.random(rows) < 0.3),
            "when": pa.array(days),
            "zoned": pa.array(days, pa.timestamp("us", "UTC")),
            "distance": gaps(random.normal(1000.1, 300.0, rows)),
            "decision": pa.array(random.integers(0, 2**20, rows)),
            "late": pa.array(random.choice(["no", "yes", "never"], rows)),
        }
    )


CATEGORICAL = ["carrier", "gate", "stops"]


def feeds_of(table):
    """The columns of a table, as the documentation of the graph has them."""
    feeds = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_timestamp(column.type):
            micros = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
            values = np.asarray(micros, float) / 86_400e6
        elif pa.types.is_string(column.type):
            values = np.array(["" if v is None else v for v in column.to_pylist()], object)
        else:
            values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        feeds[name] = values[:, None].copy()
    return feeds


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A folder with a raw file, and the stores that several recipes made of it."""
    path = tmp_path_factory.mktemp("raw")
    pq.write_table(raw_table(2000), path / "rows.parquet")
    recipes: dict[str, Any] = {
        "mean": {"missing": "mean", "unseen": "other"},
        "drop": {"missing": "drop", "unseen": "ignore"},
        "wide": {"missing": "median", "unseen": "error", "dtype": "float64"},
    }
    rows = path / "rows.parquet"
    for name, settings in recipes.items():
        out = path / f"{name}.zarr"
        ingest(rows, out, target="late", categorical=CATEGORICAL, **settings)
    return path


def made_of(raw, name, model=None):
    """A model of random parameters of a store's features: a network, or linear."""
    store = open_store(raw / f"{name}.zarr")
    about = {"feature_names": store.feature_names, "recipe": store.recipe}
    n, classes = store.n_features, store.classes or ()
    if model is None:
        return network(MLPClassifierModel(), (n, 5, len(classes)), classes, **about)
    return linear(model, classes, n, len(classes), **about)


def serve(path, table, fitted):
    """The inputs of a graph for a table, and what it computes for them."""
    names = {column.name for column in Recipe.from_json(fitted.recipe or {}).columns}
    feeds = {name: values for name, values in feeds_of(table).items() if name in names}
    return feeds, run(path, feeds)


@pytest.mark.parametrize("name", ["mean", "drop", "wide"])
@pytest.mark.parametrize("model", [None, LogisticModel()], ids=["network", "linear"])
def test_raw_columns_are_encoded_inside_the_graph(raw, tmp_path, name, model):
    fitted = made_of(raw, name, model)
    found = export(fitted, tmp_path / "a.onnx")
    assert (found.largest_difference or 0.0) < 1e-9
    assert "decision_" in found.outputs  # a raw column has the name
    assert str(found).endswith("as days since 1970-01-01 (UTC): 'when', 'zoned'")
    table = raw_table(500)
    if name == "drop":
        table = table.drop_null()
    pq.write_table(table, tmp_path / "rows.parquet")
    kinds: Any = ("prediction", "probability")
    predict_files(fitted, tmp_path / "rows.parquet", tmp_path / "due.parquet", kinds=kinds)
    due = pq.read_table(tmp_path / "due.parquet")
    _, outputs = serve(tmp_path / "a.onnx", table, fitted)
    assert outputs["prediction"].tolist() == due["prediction"].to_pylist()
    for place, label in enumerate(fitted.classes):
        p = due[f"probability_{label}"].to_numpy()
        np.testing.assert_allclose(outputs["probability"][:, place], p, rtol=0, atol=1e-9)


def with_values(table, **values):
    """The table with another value in the first row."""
    for name, value in values.items():
        column = [value, *table[name].to_pylist()[1:]]
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(column, table[name].type))
    return table


@pytest.mark.parametrize(
    "change", [{"carrier": "XX"}, {"stops": 77}, {"carrier": None}, {"when": None}]
)
@pytest.mark.parametrize("name", ["mean", "drop", "wide"])
def test_values_that_training_rows_had_not(raw, tmp_path, name, change):
    fitted = made_of(raw, name, LogisticModel())
    export(fitted, tmp_path / "a.onnx")
    table = with_values(raw_table(50).drop_null(), **change)
    try:
        due = Recipe.from_json(fitted.recipe or {}).apply(table)
        refused = len(due) < len(table)  # the recipe drops the row, which a graph can't
    except ValueError:
        refused = True
    if refused:
        with pytest.raises(Exception, match="a_row_has_a_missing_unseen_or_infinite_value"):
            serve(tmp_path / "a.onnx", table, fitted)
        return
    _, outputs = serve(tmp_path / "a.onnx", table, fitted)
    np.testing.assert_allclose(
        outputs["decision_"], fitted.predictor.decision(due), rtol=1e-12, atol=1e-12
    )


def test_unseen_values_may_be_treated_otherwise_than_at_ingest(raw, tmp_path):
    fitted = made_of(raw, "wide", LogisticModel())
    export(fitted, tmp_path / "a.onnx", unseen="ignore")
    table = with_values(raw_table(50), carrier="XX")
    due = replace(Recipe.from_json(fitted.recipe or {}), unseen="ignore").apply(table)
    _, outputs = serve(tmp_path / "a.onnx", table, fitted)
    np.testing.assert_allclose(outputs["decision_"], fitted.predictor.decision(due), rtol=1e-12)


def test_features_instead_of_raw_columns(raw, tmp_path):
    fitted = made_of(raw, "mean")
    export(fitted, tmp_path / "a.onnx", features=True)
    X = Recipe.from_json(fitted.recipe or {}).apply(raw_table(50)).astype(float)
    require_agreement(run(tmp_path / "a.onnx", {"X": X}), fitted, X)


def test_an_empty_text_may_be_a_category(tmp_path):
    table = pa.table({"a": ["", "b", "c"] * 20, "y": np.arange(60.0)})
    pq.write_table(table, tmp_path / "rows.parquet")
    ingest(tmp_path / "rows.parquet", tmp_path / "a.zarr", target="y", categorical=["a"])
    fitted, _ = train(RidgeModel(), str(tmp_path / "a.zarr"))
    export(fitted, tmp_path / "a.onnx")
    due = fitted.predictor.decision(Recipe.from_json(fitted.recipe or {}).apply(table))
    found = run(tmp_path / "a.onnx", {"a": np.array(table["a"].to_pylist(), object)[:, None]})
    np.testing.assert_allclose(found["prediction"], due, rtol=1e-12)


def test_names_of_columns_are_those_of_inputs_whatever_they_are(tmp_path):
    names = ["prediction", "constant_0", "matmul_2", "a b/c", "probability", "decision"]
    table = pa.table({name: RNG.normal(size=30) for name in names} | {"y": RNG.normal(size=30)})
    pq.write_table(table, tmp_path / "rows.parquet")
    ingest(tmp_path / "rows.parquet", tmp_path / "a.zarr", target="y")
    fitted, _ = train(RidgeModel(), str(tmp_path / "a.zarr"))
    assert export(fitted, tmp_path / "a.onnx").outputs == ("prediction_",)
    due = fitted.predictor.decision(Recipe.from_json(fitted.recipe or {}).apply(table))
    _, found = serve(tmp_path / "a.onnx", table, fitted)
    np.testing.assert_allclose(found["prediction_"], due, rtol=1e-12)


def evaluated(model, row):
    """The predictors z and the prediction of a row, by the JSON form: README's lines in Python."""
    if "layers" in model:
        z = [row[name] for name in model["features"]]
        for i, layer in enumerate(model["layers"]):
            if i:
                z = [max(v, 0.0) for v in z]
            z = [
                b + sum(weights[j] * v for weights, v in zip(layer["weights"], z, strict=True))
                for j, b in enumerate(layer["biases"])
            ]
    else:
        z = list(model["intercept"])
        for name, value in row.items():
            weights = model["coefficients"].get(name, [0.0] * len(z))
            z = [a + w * value for a, w in zip(z, weights, strict=True)]
    if model["classes"]:
        best = z.index(max(z)) if len(z) > 1 else int(z[0] > 0)
        return z, model["classes"][best]
    inverse = {"identity": float, "log": math.exp, "logit": lambda v: 1 / (1 + math.exp(-v))}
    return z, [inverse[model["link"]](v) for v in z]


def features_of(recipe, row):
    """The features of a raw row that are not 0, by name: the guide's lines in Python."""
    found = {}
    for column in recipe["columns"]:
        name, value = column["name"], row[column["name"]]
        if column["kind"] == "category":
            known = str(value) in column["values"]
            rest = "missing" if value is None and column.get("missing") else "other"
            found[f"{name}={value}" if known else f"{name} is {rest}"] = 1.0
        elif value is None:
            found[name] = column["fill"]
        elif column["kind"] == "date":
            origin = datetime.fromisoformat(column["origin"]).replace(tzinfo=value.tzinfo)
            found[name] = (value - origin) / timedelta(days=1)
        else:
            found[name] = value
    return found


@pytest.mark.parametrize(
    "fitted",
    [
        linear(LogisticModel(), ("no", "yes"), feature_names=("a", "b", "c", "d")),
        linear(LogisticModel(), range(10), outputs=10),
        linear(PoissonModel(), outputs=2),
        network(MLPClassifierModel(), (4, 5, 3), "abc"),
        network(MLPRegressorModel(loss="log_loss"), (4, 3, 2)),
    ],
    ids=repr,
)
def test_json_is_evaluated_by_a_few_lines(tmp_path, fitted):
    export(fitted, tmp_path / "a.json", to="json")
    model = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    X = RNG.normal(size=(20, 4))
    outputs, due = Outputs.of(fitted), fitted.predictor.decision(X)
    for row, z in zip(X.tolist(), due, strict=True):
        found, prediction = evaluated(model, dict(zip(model["features"], row, strict=True)))
        np.testing.assert_allclose(found, z, rtol=1e-12)
        of_row = outputs.at(z[None], "prediction")[0]
        if fitted.classes:
            assert prediction == fitted.classes[of_row]
        else:
            np.testing.assert_allclose(prediction, of_row, rtol=1e-12)


def test_json_of_raw_columns_has_the_recipe(raw, tmp_path):
    fitted = made_of(raw, "mean", LogisticModel())
    export(fitted, tmp_path / "a.json", to="json")
    model = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert model["one_vs_rest"] is False
    table = with_values(raw_table(50), carrier="XX")
    due = fitted.predictor.decision(Recipe.from_json(fitted.recipe or {}).apply(table))
    for row, z in zip(table.to_pylist(), due, strict=True):
        found, label = evaluated(model, features_of(model["recipe"], row))
        np.testing.assert_allclose(found, z, rtol=1e-6)  # the recipe rounds to float32
        assert label == fitted.classes[z.argmax()]


@dataclass(frozen=True)
class OwnMean(Loss):
    """A loss with the name of a known link, and another inverse of it."""

    name = "own_mean"
    link = "log"

    def mean(self, z):
        return np.exp(z) + 1.0


class OwnActivation(Relu):
    """A registered activation's name on another function."""

    def value(self, z):
        return 2.0 * np.maximum(z, 0.0)


MODULE = TorchPredictor(NetworkSpec(TorchRegressorModel("nets:Net"), (3,), 1, 0), {})


def points(n, seed):
    """Points of an isotonic calibration; some follow each other closely, or have one score."""
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.normal(size=n).round(1 if n > 20 else 9))
    scores[n // 2 :] += 1e-3
    return np.stack([scores, np.sort(np.clip(rng.normal(0.5, 0.4, n), 0.0, 1.0))])


@pytest.mark.parametrize("sizes", [(1,), (2,), (500,), (1, 3, 40), (16, 17, 8)], ids=str)
def test_an_isotonic_calibration_is_in_the_file(tmp_path, sizes):
    of_outputs = [points(n, seed) for seed, n in enumerate(sizes)]
    width = len(sizes)
    predictor = LinearPredictor(np.eye(width), np.zeros(width))
    classes = ("no", "yes") if width == 1 else tuple("abc")
    fitted = Fitted(LinearSVCModel(), predictor, classes, calibration=Isotonic.of(9, of_outputs))
    found = export(fitted, tmp_path / "a.onnx")
    assert found.outputs == ("prediction", "probability", "decision")
    assert export(fitted, tmp_path / "a.json", to="json").bytes > 0
    # Scores at points, between them and beyond, and the largest numbers.
    z = np.concatenate([each[0] for each in of_outputs])
    z = np.concatenate([z, z[:-1] + np.diff(z) / 3, z - 1e-12, z + 1e-12, [-1e300, 0.0, 1e300]])
    X = np.stack([np.roll(z, k) for k in range(width)], axis=1)
    outputs, due = Outputs.of(fitted), fitted.decision(X)
    served = run(tmp_path / "a.onnx", {"X": X})
    np.testing.assert_allclose(served["decision"], due, rtol=1e-14, atol=1e-15)
    p = outputs.probabilities(due)
    np.testing.assert_allclose(served["probability"], p, rtol=1e-13, atol=1e-14)
    np.testing.assert_array_equal(served["prediction"], np.array(classes)[outputs.codes(due)])
    model = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert model["link"] == "isotonic"
    for row, of_row in zip(X[:50].tolist(), p[:50], strict=True):
        z, _ = evaluated(model, dict(zip(model["features"], row, strict=True)))
        calibrated = [np.interp(v, *each) for v, each in zip(z, model["points"], strict=True)]
        if model["one_vs_rest"]:
            total = sum(calibrated)
            calibrated = [v / total if total else 1 / width for v in calibrated]
        np.testing.assert_allclose(calibrated, of_row[-width:], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("to", ["onnx", "json"])
@pytest.mark.parametrize(
    ("fitted", "said"),
    [
        (linear(CustomModel(loss=OwnMean())), "own_mean loss has an inverse link of its own"),
        (
            Fitted(
                MLPRegressorModel(),
                NetworkPredictor(Layers((4, 2, 1), OwnActivation()), np.zeros(13)),
            ),
            "activation 'relu' is your own",
        ),
        (Fitted(LeastSquares(), MODULE), "torch.onnx.export.*which takes rows as they are"),
    ],
)
def test_functions_that_others_do_not_know_are_refused(tmp_path, fitted, said, to):
    with pytest.raises(ValueError, match=said):
        export(fitted, tmp_path / f"a.{to}")
    assert list(tmp_path.iterdir()) == []


def test_sizes_and_names_that_a_form_lacks_are_refused(raw, tmp_path, monkeypatch):
    fitted = made_of(raw, "mean")
    place = tmp_path / "a.onnx"
    with pytest.raises(ValueError, match="for raw columns, and the model has no recipe"):
        export(linear(LeastSquares()), place, unseen="other")
    with pytest.raises(ValueError, match=r"does not go with to='json'"):
        export(fitted, tmp_path / "a.json", features=True)
    with pytest.raises(ValueError, match=r"does not go with unseen='ignore'"):
        export(fitted, place, unseen="ignore", features=True)
    with pytest.raises(ValueError, match=r"load\(RUN\).to_sklearn\(\)"):
        export(fitted, place, to="sklearn")
    with pytest.raises(ValueError, match="'pmml' is not one of onnx, json"):
        export(fitted, place, to="pmml")  # type: ignore[arg-type]
    twice = linear(LeastSquares(), feature_names=("a", "b", "a", "c"))
    with pytest.raises(ValueError, match=r"have one name \(a\)"):
        export(twice, tmp_path / "a.json")
    monkeypatch.setattr(onnx_columns, "_MOST_COLUMNS", 7)
    with pytest.raises(ValueError, match=r"8 raw columns.*features=True"):
        export(fitted, place)
    monkeypatch.setattr(onnx_model, "_MOST_BYTES", 100)
    with pytest.raises(ValueError, match=r"less than 2 GiB.*export json"):
        export(fitted, place, features=True)
    assert list(tmp_path.iterdir()) == []


def test_categories_that_float64_confuses_are_refused(tmp_path):
    table = pa.table({"id": [2**53, 2**53 + 1] * 20, "y": np.arange(40.0)})
    pq.write_table(table, tmp_path / "rows.parquet")
    ingest(tmp_path / "rows.parquet", tmp_path / "a.zarr", target="y", categorical=["id"])
    fitted, _ = train(RidgeModel(), str(tmp_path / "a.zarr"))
    with pytest.raises(ValueError, match=r"categories of column 'id'.*float64"):
        export(fitted, tmp_path / "a.onnx")


def test_a_graph_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_model, "_CUBE", 0.05)
    fitted = network(MLPRegressorModel(), (4, 3, 1), activation="gelu")
    with pytest.raises(RuntimeError, match="another prediction than ooc_train: a number by"):
        export(fitted, tmp_path / "a.onnx")
    monkeypatch.setattr(onnx_model, "label_array", lambda _: (np.array([1, 0]), "int64"))
    with pytest.raises(RuntimeError, match=r"the class of .* of 100 rows"):
        export(linear(LogisticModel(), (0, 1)), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_onnxruntime_nothing_is_compared_and_without_onnx_it_says_what_to_install(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = export(linear(LeastSquares()), tmp_path / "a.onnx")
    assert found.largest_difference is None
    assert "not checked" in str(found)
    onnx.checker.check_model(str(tmp_path / "a.onnx"), full_check=True)
    for name in [name for name in sys.modules if name.startswith("ooc_train.exporting.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    fitted = linear(LeastSquares())
    with pytest.raises(MissingPackage, match=r"pip install onnx onnxruntime$"):
        export(fitted, tmp_path / "b.onnx")
    fitted.save(tmp_path / "b.run")
    said = CliRunner().invoke(
        cli.app, ["export", str(tmp_path / "b.run"), str(tmp_path / "b.onnx")]
    )
    assert said.exit_code == 1, said.stderr
    assert "pip install onnx onnxruntime" in said.stderr
    assert "fault of" not in said.stderr


def test_the_command(tmp_path):
    fitted = linear(LogisticModel(), ("no", "yes"))
    fitted.save(tmp_path / "a.run")

    def here(*arguments):
        return CliRunner().invoke(
            cli.app, ["export", str(tmp_path / "a.run"), *map(str, arguments)]
        )

    out = tmp_path / "a.onnx"
    said = here(out)
    assert said.exit_code == 0, said.stderr
    assert "prediction, probability, decision; onnxruntime predicts the same to" in said.stdout
    assert here(out).exit_code == 1
    figures = json.loads(here(out, "--overwrite", "--json").stdout)
    assert figures["bytes"] == out.stat().st_size
    said = here(tmp_path / "b", "--to", "sklearn")
    assert said.exit_code == 1
    assert "to_sklearn()" in said.stderr
    assert here(tmp_path / "a.json").exit_code == 0
    json.loads((tmp_path / "a.json").read_text())
    assert here(tmp_path / "model", "--to", "json").exit_code == 0
    for name, message in (
        ("a.pkl", "a.pkl ends with .pkl; end it with .onnx"),
        ("b", "b ends with no ending; end it with .onnx"),
    ):
        said = here(tmp_path / name)
        assert said.exit_code == 1
        assert message in " ".join(said.stderr.split())
    said = here(tmp_path / "c.json", "--to", "onnx")
    assert "c.json ends with .json, and a graph of ONNX is saved there" in said.stderr
    with pytest.raises(OutputExists):
        export(tmp_path / "a.run", out)
    with pytest.raises(InvalidRun):
        export(tmp_path / "none", tmp_path / "c.onnx")


@pytest.mark.filterwarnings("ignore:.*not converged")
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_networks_as_estimators_of_scikit_learn(tmp_path, activation):
    X = RNG.normal(size=(80, 4))
    for labels in (["no", "yes"], [3, 1, 2]):
        y = np.array(labels)[RNG.integers(0, len(labels), 80)]
        ours = MLPClassifier((5, 3), activation=activation, max_iter=2).fit(X, y)
        ours.save(tmp_path / "a.run", overwrite=True)
        plain = load(tmp_path / "a.run").to_sklearn()
        assert type(plain).__module__.startswith("sklearn.")
        np.testing.assert_array_equal(plain.predict(X), ours.predict(X))
        np.testing.assert_allclose(plain.predict_proba(X), ours.predict_proba(X), rtol=1e-9)
    for loss, shape in (("squared_error", (80,)), ("poisson", (80, 2))):
        number = MLPRegressor((5,), loss=loss, activation=activation, max_iter=2)
        number.fit(X, RNG.random(size=shape))
        found = number.to_sklearn().predict(X)
        np.testing.assert_allclose(found, number.predict(X), rtol=1e-9)


@pytest.mark.filterwarnings("ignore:.*not converged")
def test_networks_that_scikit_learn_lacks_are_refused():
    X = RNG.normal(size=(80, 4))
    own: Any = MLPRegressor((5,), activation="gelu", max_iter=2).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="no network with activation='gelu'"):
        own.to_sklearn()
    own = MLPRegressor((5,), loss="log_loss", max_iter=2).fit(X, X[:, 0] > 0)
    with pytest.raises(ValueError, match=r"loss='log_loss'; ooc_train.export"):
        own.to_sklearn()
