"""The registries of models and predictors: names on the command line and in saved runs."""

from collections.abc import Mapping
from types import MappingProxyType

from ooc_train.core.named_classes import Registry
from ooc_train.models.classification_models import (
    LinearSVCModel,
    LogisticModel,
    RidgeClassifierModel,
    SGDClassifierModel,
)
from ooc_train.models.custom_model import CustomModel
from ooc_train.models.generalized_linear_models import GammaModel, PoissonModel, TweedieModel
from ooc_train.models.model import Model
from ooc_train.models.network_models import MLPClassifierModel, MLPRegressorModel
from ooc_train.models.network_predictor import NetworkPredictor
from ooc_train.models.predictor import LinearPredictor, Predictor, ScaledPredictor
from ooc_train.models.pytorch.torch_module import (
    TorchClassifierModel,
    TorchModule,
    TorchRegressorModel,
)
from ooc_train.models.pytorch.torch_predictor import TorchPredictor
from ooc_train.models.regression_models import ElasticNetModel, LassoModel, LeastSquares, RidgeModel
from ooc_train.models.robust_models import (
    HuberModel,
    LinearSVRModel,
    QuantileModel,
    SGDRegressorModel,
)

MODELS: Registry[Model] = Registry(
    "model",
    "MODELS",
    (
        LeastSquares,
        RidgeModel,
        LassoModel,
        ElasticNetModel,
        LogisticModel,
        LinearSVCModel,
        RidgeClassifierModel,
        SGDClassifierModel,
        PoissonModel,
        GammaModel,
        TweedieModel,
        HuberModel,
        QuantileModel,
        LinearSVRModel,
        SGDRegressorModel,
        MLPClassifierModel,
        MLPRegressorModel,
        CustomModel,
    ),
)
"""Models by name."""

SAVED_MODELS: Mapping[str, type[Model]] = MappingProxyType(
    {
        **MODELS,
        **{each.name: each for each in (TorchModule, TorchClassifierModel, TorchRegressorModel)},
    }
)
"""Models of saved runs: those of the command line, and those that take code."""

PREDICTORS: Mapping[str, type[Predictor]] = MappingProxyType(
    {
        each.kind: each
        for each in (LinearPredictor, ScaledPredictor, NetworkPredictor, TorchPredictor)
    }
)
"""Predictors by their kind, which a saved run names."""
