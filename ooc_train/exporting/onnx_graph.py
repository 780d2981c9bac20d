"""A graph of ONNX, made node by node in float64."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

OPSET, ML_OPSET, IR_VERSION = 18, 4, 9
"""Versions that onnxruntime reads from 1.17 on, which has the label encoder of all types."""

ML = "ai.onnx.ml"

Shape = Sequence[int | str]

_TYPES = {
    "double": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
}


class Graph:
    """A graph that grows; values are known by their names.

    Parameters
    ----------
    reserved : sequence of str
        Names of inputs and outputs, which no value inside may have.
    """

    def __init__(self, reserved: Sequence[str]) -> None:
        self._taken = set(reserved)
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []

    def _new(self, stem: str) -> str:
        number = len(self._nodes) + len(self._constants)
        name = f"{stem}_{number}"
        while name in self._taken:
            name += "_"
        return name

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant, an array of float64, int64, bool or text."""
        name = self._new("constant")
        self._constants.append(numpy_helper.from_array(value, name))
        return name

    def add(
        self, op: str, *inputs: str, name: str = "", domain: str = "", **attributes: Any
    ) -> str:
        """Add a node with one output, and return the name of the output."""
        output = self._new(op.lower())
        node = helper.make_node(
            op, list(inputs), [output], name=name or output, domain=domain, **attributes
        )
        self._nodes.append(node)
        return output

    def with_number(self, op: str, value: str, number: float) -> str:
        """Add an operation of a value and a number of float64."""
        return self.add(op, value, self.constant(np.array(number, np.float64)))

    def input(self, name: str, kind: str, shape: Shape, doc: str) -> str:
        """Add an input of the graph, and return its name."""
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[kind], shape, doc))
        return name

    def output(self, name: str, value: str, kind: str, shape: Shape) -> None:
        """Give a value the name of an output."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output {name}"))
        self._outputs.append(helper.make_tensor_value_info(name, _TYPES[kind], shape))

    def refusing(self, values: str, name: str) -> str:
        """Return values (rows, columns) that are all finite: others end the call of the runtime.

        ONNX has no operator that raises. An index outside of an array is an error by its standard,
        and the message of the runtime has the name of the node.
        """
        total = self.add("ReduceSum", self.with_number("Mul", values, 0.0), keepdims=0)
        place = self.add("Cast", self.add("IsNaN", total), to=TensorProto.INT64)
        nothing = self.add("Gather", self.constant(np.zeros(1)), place, name=name)
        return self.add("Add", values, nothing)

    def to_model(self, doc: str, properties: dict[str, str]) -> ModelProto:
        """Return the checked model of the graph."""
        graph = helper.make_graph(
            self._nodes, "model", self._inputs, self._outputs, self._constants, doc_string=doc
        )
        model = helper.make_model(
            graph,
            producer_name="ooc_train",
            producer_version=version("ooc_train"),
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(ML, ML_OPSET)],
        )
        helper.set_model_props(model, properties)
        checker.check_model(model)
        return model


def label_array(labels: Sequence[Any]) -> tuple[NDArray[Any], str]:
    """Return labels as an array of one type that ONNX has, and the name of the type."""
    array = np.asarray(labels)
    kinds = {"b": ("bool", bool), "i": ("int64", np.int64), "f": ("double", np.float64)}
    kind, dtype = kinds.get(array.dtype.kind, ("string", object))
    return array.astype(dtype), kind
