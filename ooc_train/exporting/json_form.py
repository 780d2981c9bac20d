"""A fitted linear model or perceptron as plain values of JSON, which any language evaluates."""

from typing import Any

from ooc_train.core.text import feature_name, few
from ooc_train.exporting.links import layers_of, link_of
from ooc_train.models.calibration import Isotonic
from ooc_train.models.network_predictor import NetworkPredictor
from ooc_train.runs.fitted import Fitted

FORMAT, FORMAT_VERSION = "ooc_train.model", 1


def json_form(fitted: Fitted) -> dict[str, Any]:
    """Return a model as values of JSON; the guide tells how they are evaluated.

    Raises
    ------
    ValueError
        If no other program knows the functions of the model, or two columns have one name.
    """
    link, predictor = link_of(fitted), fitted.predictor
    names = [
        feature_name(fitted.feature_names, fitted.row_shape, i) for i in range(fitted.n_features)
    ]
    if len(set(names)) < len(names):
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        raise ValueError(
            f"several columns have one name ({few(twice)}), and coefficients are by name; rename "
            "the columns, or export onnx"
        )
    found: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": fitted.model.name,
        "link": link,
        "classes": list(fitted.classes) or None,
        "one_vs_rest": bool(fitted.classes)
        and fitted.n_outputs > 1
        and fitted.loss.kind != "rowwise",
        "features": names,
    }
    if isinstance(fitted.calibration, Isotonic):
        found["points"] = [points.tolist() for points in fitted.calibration.of_outputs]
    if isinstance(predictor, NetworkPredictor):
        found["activation"] = predictor.layers.activation.name
        found["layers"] = [
            {"weights": weights.tolist(), "biases": biases.tolist()}
            for weights, biases in layers_of(fitted)
        ]
    else:
        [(weights, biases)] = layers_of(fitted)
        found["intercept"] = biases.tolist()
        found["coefficients"] = dict(zip(names, weights.tolist(), strict=True))
    return found | {"recipe": fitted.recipe}
