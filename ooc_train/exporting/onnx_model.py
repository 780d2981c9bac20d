"""A fitted linear model or perceptron as a graph of ONNX, in float64 throughout."""

import math

import numpy as np
from onnx import ModelProto, TensorProto

from ooc_train.core.text import counted, listed
from ooc_train.core.units import approximate_bytes
from ooc_train.exporting.links import Link, layers_of, link_of
from ooc_train.exporting.onnx_calibration import isotonic
from ooc_train.exporting.onnx_columns import (
    MATRIX,
    column_sums,
    matrix_sums,
    require_columns,
)
from ooc_train.exporting.onnx_graph import Graph, label_array
from ooc_train.inference.outputs import Outputs
from ooc_train.models.calibration import Isotonic
from ooc_train.models.network_predictor import NetworkPredictor
from ooc_train.runs.fitted import Fitted
from ooc_train.tables.recipe import Recipe

_MOST_BYTES = 2**31 - 2**24
"""A message of protobuf, which a file of ONNX is, holds less than 2 GiB."""

_ROOT, _CUBE, _LARGEST_LOG = math.sqrt(2.0 / math.pi), 0.044715, 709.78
"""Constants of the activation "gelu" and of log links, as in `objective/`."""

REFUSAL = "a_row_has_a_missing_unseen_or_infinite_value"
"""Name of the node that ends a call with rows that ooc_train refuses."""

_OVERFLOW = "a_prediction_exceeds_float64"


def onnx_model(fitted: Fitted, recipe: Recipe | None) -> tuple[ModelProto, tuple[str, ...]]:
    """Return the graph of a model, and the names of its outputs.

    Parameters
    ----------
    fitted : Fitted
        A linear model or a perceptron.
    recipe : Recipe or None
        Makes the features of raw columns, each an input (rows, 1); None for one input, the matrix
        of features.

    Raises
    ------
    ValueError
        If ONNX can't express the model, with the way out.
    """
    link = link_of(fitted)
    if fitted.nbytes > _MOST_BYTES:
        raise ValueError(
            f"a file of ONNX holds less than 2 GiB, and the parameters take "
            f"{approximate_bytes(fitted.nbytes)}; export json, or predict with ooc_train"
        )
    if recipe is not None:
        require_columns(recipe)
    inputs = [MATRIX] if recipe is None else [column.name for column in recipe.columns]
    outputs = Outputs.of(fitted)
    names = {kind: _free(kind, inputs) for kind in ("prediction", "probability", "decision")}
    graph = Graph([*inputs, *names.values()])
    z = _decision(graph, fitted, recipe)
    if isinstance(fitted.calibration, Isotonic):
        z = isotonic(graph, fitted.calibration, z)
    width = fitted.n_outputs
    found = []
    if not fitted.classes:
        graph.output(names["prediction"], _mean(graph, link, z), "double", ("rows", width))
        found.append(names["prediction"])
    else:
        labels, kind = label_array(fitted.classes)
        chosen = graph.add("Gather", graph.constant(labels), _codes(graph, outputs, z))
        graph.output(names["prediction"], chosen, kind, ("rows",))
        found.append(names["prediction"])
        if outputs.has_probabilities:
            p = _probabilities(graph, outputs, link, z)
            graph.output(names["probability"], p, "double", ("rows", len(fitted.classes)))
            found.append(names["probability"])
        graph.output(names["decision"], z, "double", ("rows", width))
        found.append(names["decision"])
    classes = f"; classes: {listed(fitted.classes)}" if fitted.classes else ""
    doc = (
        f"{fitted.model.name} model of ooc_train, {counted(fitted.n_features, 'feature')}{classes}"
    )
    return graph.to_model(doc, {"model": fitted.model.name, "link": link}), tuple(found)


def _free(name: str, taken: list[str]) -> str:
    """Return a name for an output that no input has."""
    while name in taken:
        name += "_"
    return name


def _decision(graph: Graph, fitted: Fitted, recipe: Recipe | None) -> str:
    """Return the predictors z (rows, outputs)."""
    predictor = fitted.predictor
    activation = ""
    if isinstance(predictor, NetworkPredictor):
        activation = predictor.layers.activation.name
    (weights, biases), *rest = layers_of(fitted)
    if recipe is None:
        sums = matrix_sums(graph, fitted, weights)
    else:
        sums = column_sums(graph, recipe, weights)
    # Activations may hide what is not finite.
    z = graph.refusing(graph.add("Add", sums, graph.constant(biases)), REFUSAL)
    for weights, biases in rest:
        z = _activated(graph, activation, z)
        z = graph.add("MatMul", z, graph.constant(weights))
        z = graph.add("Add", z, graph.constant(biases))
    return graph.refusing(z, _OVERFLOW) if rest else z


def _activated(graph: Graph, name: str, z: str) -> str:
    """Return the activation, known by its name, of values."""
    if name == "identity":
        return z
    if name == "gelu":
        cube = graph.add("Mul", z, graph.add("Mul", z, z))
        inner = graph.add("Add", z, graph.with_number("Mul", cube, _CUBE))
        gate = graph.add("Tanh", graph.with_number("Mul", inner, _ROOT))
        half = graph.with_number("Mul", z, 0.5)
        return graph.add("Mul", half, graph.with_number("Add", gate, 1.0))
    if name == "logistic":
        return _sigmoid(graph, z)
    return graph.add({"relu": "Relu", "tanh": "Tanh"}[name], z)


def _sigmoid(graph: Graph, z: str) -> str:
    """Return ``1 / (1 + exp(-z))``, by an exponential that cannot overflow."""
    e = graph.add("Exp", graph.add("Neg", graph.add("Abs", z)))
    positive = graph.with_number("GreaterOrEqual", z, 0.0)
    top = graph.add("Where", positive, graph.constant(np.array(1.0)), e)
    return graph.add("Div", top, graph.with_number("Add", e, 1.0))


def _mean(graph: Graph, link: Link, z: str) -> str:
    """Return the expected y, by the inverse of the link."""
    if link == "identity":
        return z
    if link == "log":
        return graph.add("Exp", graph.with_number("Min", z, _LARGEST_LOG))
    if link == "logit":
        return _sigmoid(graph, z)
    if link == "multinomial logit":
        return graph.add("Softmax", z, axis=1)
    clipped = graph.with_number("Min", graph.with_number("Max", z, -1.0), 1.0)
    return graph.with_number("Mul", graph.with_number("Add", clipped, 1.0), 0.5)


def _probabilities(graph: Graph, outputs: Outputs, link: Link, z: str) -> str:
    """Return the probabilities (rows, classes), as `Outputs.probabilities` does."""
    if outputs.n_outputs == 1:
        p = _mean(graph, link, z)
        return graph.add("Concat", graph.add("Sub", graph.constant(np.array(1.0)), p), p, axis=1)
    if outputs.loss.kind == "rowwise":
        return _mean(graph, link, z)
    if link == "logit":
        # One class against the rest: the softmax of log-probabilities divides by their sum.
        rest = graph.add("Exp", graph.add("Neg", graph.add("Abs", z)))
        rest = graph.add("Log", graph.with_number("Add", rest, 1.0))
        return graph.add(
            "Softmax", graph.add("Sub", graph.with_number("Min", z, 0.0), rest), axis=1
        )
    p = _mean(graph, link, z)
    total = graph.add("ReduceSum", p, graph.constant(np.array([1])), keepdims=1)
    same = graph.constant(np.array(1.0 / outputs.n_outputs))
    positive = graph.with_number("Greater", total, 0.0)
    return graph.add("Where", positive, graph.add("Div", p, total), same)


def _codes(graph: Graph, outputs: Outputs, z: str) -> str:
    """Return the codes of the predicted classes (rows,)."""
    if outputs.n_outputs > 1:
        return graph.add("ArgMax", z, axis=1, keepdims=0)
    code = graph.add("Cast", graph.with_number("Greater", z, 0.0), to=TensorProto.INT64)
    return graph.add("Reshape", code, graph.constant(np.array([-1])))
