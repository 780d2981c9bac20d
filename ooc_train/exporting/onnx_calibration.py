"""An isotonic calibration in a graph of ONNX: lines between points, found by halving."""

import numpy as np
from onnx import TensorProto

from ooc_train.core.sums import Array
from ooc_train.exporting.onnx_graph import Graph
from ooc_train.models.calibration import Isotonic


def isotonic(graph: Graph, calibration: Isotonic, z: str) -> str:
    """Return the calibrated predictors of rows, as `Isotonic` does: twice the probability, less 1.

    ONNX has no search in sorted numbers. So each step of the graph halves the points among which
    the last one up to z is, for all outputs at once: its time grows as their logarithm.
    """
    of_outputs = calibration.of_outputs
    most = max(points.shape[1] for points in of_outputs)
    width = 1 << (most - 1).bit_length()  # a power of two
    shape = len(of_outputs), width
    # Beyond the last point no score is small enough.
    scores, probabilities, slopes = np.full(shape, np.inf), np.zeros(shape), np.zeros(shape)
    for k, points in enumerate(of_outputs):
        n = points.shape[1]
        scores[k, :n], probabilities[k, :n] = points
        slopes[k, : n - 1] = _slopes(*points)
    z = graph.add("Max", z, graph.constant(scores[:, 0]))
    flat = graph.constant(scores.ravel())
    # The last point up to z is one of `width` points from this one on, in the flat array.
    at = graph.add(
        "Add",
        graph.constant(np.arange(len(of_outputs), dtype=np.int64) * width),
        graph.add("Cast", graph.with_number("Mul", z, 0.0), to=TensorProto.INT64),
    )
    step = width // 2
    while step:
        ahead = graph.add("Add", at, graph.constant(np.array(step, np.int64)))
        is_right = graph.add("LessOrEqual", graph.add("Gather", flat, ahead), z)
        at = graph.add("Where", is_right, ahead, at)
        step //= 2
    distance = graph.add("Sub", z, graph.add("Gather", flat, at))
    slope = graph.add("Gather", graph.constant(slopes.ravel()), at)
    begin = graph.add("Gather", graph.constant(probabilities.ravel()), at)
    p = graph.add("Add", begin, graph.add("Mul", slope, distance))
    return graph.with_number("Sub", graph.with_number("Mul", p, 2.0), 1.0)


def _slopes(scores: Array, probabilities: Array) -> Array:
    """Return the slopes of the lines between points; 0 between points of one score."""
    rises, distances = np.diff(probabilities), np.diff(scores)
    return np.divide(rises, distances, out=np.zeros_like(rises), where=distances > 0.0)
