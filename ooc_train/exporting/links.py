"""The functions that turn predictors z into predictions, by names that other programs know.

A loss may be a user's own. So its functions are recognised themselves, never by what they are
called: what is not one of ours is refused.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from ooc_train.core.sums import Array
from ooc_train.models.calibration import Isotonic, Sigmoid, Temperature
from ooc_train.models.network_predictor import NetworkPredictor
from ooc_train.models.predictor import LinearPredictor, ScaledPredictor
from ooc_train.models.pytorch.torch_predictor import TorchPredictor
from ooc_train.models.scale_setting import factor_of
from ooc_train.objective.activations import Gelu, Identity, LogisticSigmoid, Relu, Tanh
from ooc_train.objective.loss import LogLinkLoss, Loss
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.modified_huber import ModifiedHuber
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.losses.soft_multinomial import SoftMultinomial
from ooc_train.runs.fitted import Fitted

Link = Literal["identity", "log", "logit", "multinomial logit", "truncated linear", "isotonic"]

_LINKS: Mapping[Callable[..., Any], Link] = MappingProxyType(
    {
        Loss.mean: "identity",
        LogLinkLoss.mean: "log",
        Logistic.mean: "logit",
        Multinomial.mean: "multinomial logit",
        SoftMultinomial.mean: "multinomial logit",
        ModifiedHuber.mean: "truncated linear",
    }
)
"""The link of each inverse of one, the method `mean` of a loss."""

_ACTIVATIONS = (Relu, Tanh, LogisticSigmoid, Identity, Gelu)


def link_of(fitted: Fitted) -> Link:
    """Return the link of a model, whose inverse turns z into the expected y.

    That of an isotonic calibration is lines between its points.

    Raises
    ------
    ValueError
        If the model is one of PyTorch, or has a loss or an activation of the user's own, whose
        functions no other program knows.
    """
    predictor = fitted.predictor
    if isinstance(predictor, TorchPredictor):
        raise ValueError(  # noqa: TRY004 (as for other models)
            "PyTorch exports its modules itself: model = ooc_train.load(RUN, module=...), then "
            "torch.onnx.export(model.module_.double(), (rows,), 'model.onnx', dynamo=True), which "
            f"takes {_rows_of(predictor)}"
        )
    if type(predictor) not in (LinearPredictor, ScaledPredictor, NetworkPredictor):
        raise ValueError(f"a {predictor.kind} model has no export; predict with ooc_train")
    if isinstance(predictor, NetworkPredictor):
        activation = predictor.layers.activation
        if type(activation) not in _ACTIVATIONS:
            raise ValueError(
                f"the activation {activation.name!r} is your own, and only those of ooc_train are "
                f"exported: {', '.join(each.name for each in _ACTIVATIONS)}; predict with ooc_train"
            )
    if isinstance(fitted.calibration, Isotonic):
        return "isotonic"
    loss = fitted.loss
    link = _LINKS.get(type(loss).mean)
    # Probabilities follow from the name of the link, and a mean from its function: both agree.
    if link is None or link != loss.link:
        raise ValueError(
            f"the {loss.name} loss has an inverse link of its own ({loss.link}), and only "
            f"those of ooc_train are exported: {', '.join(dict.fromkeys(_LINKS.values()))}; "
            "predict with ooc_train"
        )
    return link


def _rows_of(predictor: TorchPredictor) -> str:
    """Return what rows the module of a predictor takes, in words."""
    if predictor.spec.channel_scale:
        return "images less model.channel_mean_, over model.channel_scale_"
    factor = factor_of(predictor.spec.model.scale)
    return "rows as they are" if factor == 1.0 else f"rows times {factor:.6g}, the scale"


def layers_of(fitted: Fitted) -> list[tuple[Array, Array]]:
    """Return weights (units before, units) and biases of each layer, of a linear model the only.

    A calibration by lines is part of the last layer.
    """
    predictor, calibration = fitted.predictor, fitted.calibration
    if isinstance(predictor, NetworkPredictor):
        layers = predictor.layers.views(predictor.params)
    else:
        layers = [(fitted.coef.T, fitted.intercept)]
    weights, biases = layers[-1]
    if isinstance(calibration, Sigmoid):
        weights, biases = weights * calibration.slope, calibration(biases)
    elif isinstance(calibration, Temperature):
        weights, biases = weights * calibration.inverse, calibration(biases)
    return [*layers[:-1], (weights, biases)]
