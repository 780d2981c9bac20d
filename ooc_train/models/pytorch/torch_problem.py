"""A module of PyTorch as a problem: objective, gradient, initial parameters and predictor."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ooc_train.augmentation.augmenter import Augmentations
from ooc_train.core.sums import Array, Block
from ooc_train.models.block_problem import BlockProblem
from ooc_train.models.column_moments import ColumnMoments
from ooc_train.models.gradient_updates import GradientUpdates
from ooc_train.models.model import DataFigures
from ooc_train.models.predictor import Predictor
from ooc_train.models.problem import Capability
from ooc_train.models.pytorch.torch_loading import loads_of_module
from ooc_train.models.pytorch.torch_network import (
    Network,
    made_bytes,
    network_of,
    one_thread,
    piece_rows,
)
from ooc_train.models.pytorch.torch_optimizer import TorchOptimizer, optimizer_of
from ooc_train.models.pytorch.torch_predictor import TorchPredictor
from ooc_train.models.pytorch.torch_settings import ModuleSettings, NetworkSpec
from ooc_train.models.pytorch.torch_updates import TorchUpdates
from ooc_train.models.scale_setting import channels_of
from ooc_train.objective.scaling import Scaling
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.optimizers.schedule import Schedule

_NORMALISED, _OTHERS = 1e-3, 1e-2
"""Learning rates "auto" of optimizers of ooc_train, as of multi-layer perceptrons."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TorchProblem(BlockProblem):
    """The problem of a module, with its parameters and the values of its buffers in one vector.

    Sums over rows take the module in its evaluation mode, and PyTorch computes them by one thread.

    Attributes
    ----------
    spec : NetworkSpec
        The module and its criterion.
    size, n_params : int
        Length of the vector, and how many of its values are parameters.
    fixed_bytes, row_bytes : int
        Bytes that a forward and backward pass allocates: a constant, and for each row.
    own_optimizer : TorchOptimizer
        The optimizer of updates, if no other is named.
    has_modes : bool
        Whether the module has layers that compute otherwise in training than in evaluation.
    columns : int64 array (features,) or None
        The place in the data of each column of the module; None for the order of the data.
    augmentations : Augmentations or None
        How updates change rows at random. If there are some, only updates train the module.
    """

    spec: NetworkSpec
    size: int
    n_params: int
    fixed_bytes: int
    row_bytes: int
    own_optimizer: TorchOptimizer  # type: ignore[misc] # of other problems None, for the class
    has_modes: bool = False
    columns: NDArray[np.intp] | None = None
    augmentations: Augmentations | None = None

    averages_all_rows: ClassVar[bool] = False
    target_sums: ClassVar[None] = None

    @classmethod
    def of(cls, model: ModuleSettings, data: DataFigures) -> Self:
        """Make the problem of a model and data; a few rows of zeros pass through the module.

        Raises
        ------
        ValueError
            If a part can't be made, or does not fit the data.
        """
        n_outputs = data.n_targets
        if model.is_classifier:
            n_outputs = 1 if data.n_classes == 2 else data.n_classes
        spec = NetworkSpec(model, data.row_shape or (data.n_features,), n_outputs, data.n_classes)
        channels = channels_of(model.scale, data.row_shape)
        if channels is not None:  # until the moments are known
            spec = spec.scaled_by(Scaling.constant(1.0, channels))
        fixed, each = made_bytes(spec)
        network = Network(spec)
        return cls(
            data.n_rows,
            data.total_weight,
            0.0,
            data.class_weight,
            spec=spec,
            size=network.size,
            n_params=network.n_params,
            fixed_bytes=fixed,
            row_bytes=each,
            own_optimizer=optimizer_of(model),
            has_modes=network.has_modes,
            augmentations=Augmentations.of(model.augment, spec.row_shape, data.seed),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameters: one vector, (size,)."""
        return (self.size,)

    @property
    def n_features(self) -> int:
        """Number of columns of the data."""
        return int(np.prod(self.spec.row_shape))

    @property
    def n_outputs(self) -> int:
        """Number of predictors z of each row."""
        return self.spec.n_outputs

    @property
    def can(self) -> frozenset[Capability]:
        """Capabilities of the problem: batch-dependent layers have no gradient of all rows."""
        is_drawn = self.has_modes or self.augmentations is not None
        return frozenset({"updates"}) if is_drawn else super().can

    @property
    def loads(self) -> tuple[Callable[[], None], ...]:  # type: ignore[override]
        """Functions that load PyTorch and the module's file."""
        return loads_of_module(self.spec)

    @property
    def needs_moments(self) -> bool:
        """Whether a run begins with a pass for the moments of the columns."""
        return bool(self.spec.channel_scale)

    @property
    def standardize(self) -> bool:
        """Whether moments must be those of all rows, since the objective depends on them."""
        return self.needs_moments

    def scaled_by(self, moments: ColumnMoments) -> Self:
        """Return the problem of images whose channels are standardised by their moments."""
        channels = len(self.spec.channel_scale)
        joint = moments.by_channel(channels)
        mean, deviation = joint.mean[:channels], np.sqrt(joint.variance[:channels])
        return replace(self, spec=self.spec.scaled_by(Scaling.of(mean, deviation, centre=True)))

    def with_targets(self, mean: Array, deviation: Array) -> Self:
        """Return the problem unchanged: it needs no moments of y."""
        del mean, deviation
        return self

    def initial(self, seed: int = 0) -> Array:
        """Return initial parameters: drawn by PyTorch for a seed, or those of a given module."""
        vector = np.empty(self.shape)
        Network(self.spec, seed).store(vector)
        return vector

    def automatic_rate(self, optimizer: Optimizer) -> float:
        """Return the learning rate "auto" of an optimizer, a constant."""
        if isinstance(optimizer, TorchOptimizer):
            return optimizer.rate
        return _NORMALISED if optimizer.normalised else _OTHERS / optimizer.gain

    def block_bytes(self, rows: int) -> int:
        """Return the most bytes that `block_gradient` allocates for a block of `rows` rows."""
        rows = min(rows, piece_rows(self.row_bytes))
        network = 3 * 8 * self.size  # a network, its gradient, and vectors on their way
        return network + self.fixed_bytes + rows * (self.row_bytes + 16 * self.n_features)

    def block_loss(self, params: Array, block: Block) -> float:
        """Return the weighted sum of the losses of a block's rows; NaN where X is not finite."""
        with one_thread(), torch.no_grad():
            network = self._loaded(params)
            return sum(float(network.loss_sum(*piece)) for piece in self.pieces(block))

    def block_gradient(self, params: Array, block: Block) -> tuple[float, Array]:
        """Return the weighted sum of the losses of a block's rows, and the gradient of that sum."""
        loss, gradient = 0.0, np.zeros(self.shape)
        with one_thread():
            network = self._loaded(params)
            for piece in self.pieces(block):
                total = network.loss_sum(*piece)
                total.backward()
                loss += float(total.detach())
                network.gradient(gradient)
        return loss, gradient

    def _loaded(self, params: Array) -> Network:
        network = network_of(self.spec, training=False)
        with torch.no_grad():
            network.load(params)
        return network

    def pieces(self, block: Block) -> list[tuple[NDArray[np.floating], Array | None, Array | None]]:
        """Return the rows of a block in pieces of a few rows each: X, y and weights."""
        most = piece_rows(self.row_bytes)
        return [
            (
                self.ordered(block.X[first : first + most]),
                None if block.y is None else block.y[first : first + most],
                None if block.weight is None else block.weight[first : first + most],
            )
            for first in range(0, block.n_rows, most)
        ]

    def ordered(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return X with its columns in the module's order."""
        return X if self.columns is None else X[:, self.columns]

    def updates(
        self,
        dtype: str,
        batch_size: int,
        optimizer: Optimizer,
        schedule: Schedule,
        eta0: float,
        horizon: float,
    ) -> GradientUpdates:
        """Return the scan that updates parameters by batches of `batch_size` rows.

        Raises
        ------
        ValueError
            If an optimizer of ooc_train is to train layers that depend on the batch, or by
            augmented rows.
        """
        if isinstance(optimizer, TorchOptimizer):
            return TorchUpdates(self, batch_size, optimizer, schedule, eta0, horizon, dtype)
        if self.has_modes:
            raise ValueError(
                f"solver={optimizer.name!r} takes the module in its evaluation mode, and it has "
                "dropout or normalises batches; leave solver out, and name an optimizer of PyTorch"
            )
        if self.augmentations is not None:
            raise ValueError(
                f"solver={optimizer.name!r} takes rows of a module as they are, without augment; "
                "leave solver out, and name an optimizer of PyTorch"
            )
        return GradientUpdates(self, batch_size, optimizer, schedule, eta0, horizon)

    def predictor(self, params: Array) -> TorchPredictor:
        """Return the predictor of the parameters `params`."""
        network = Network(self.spec)
        with torch.no_grad():
            network.load(params)
        tensors = {
            name: value.detach().cpu().numpy().copy()
            for name, value in network.module.state_dict().items()
        }
        return TorchPredictor(self.spec, tensors, self.row_bytes, self.columns)

    def require_predictor(self, predictor: Predictor) -> None:
        """Raise `ValueError` unless the predictor is a module with the same parameters."""
        if not isinstance(predictor, TorchPredictor):
            raise ValueError(  # noqa: TRY004 (as for other parameters)
                f"the parameters to start from are those of a {predictor.kind} model, and this is "
                "a module of PyTorch; start afresh"
            )
        Network(self.spec).require_tensors(predictor.tensors)

    def params_of(self, predictor: TorchPredictor) -> Array:
        """Convert a predictor to `params`."""
        network, vector = Network(self.spec), np.empty(self.shape)
        network.load_tensors(predictor.tensors)
        network.store(vector)
        return vector

    def permuted(self, params: Array, order: NDArray[np.intp]) -> tuple[Self, Array]:
        """Return the problem and parameters for columns reordered as `X[:, order]`."""
        return replace(self, columns=permuted_columns(self.columns, order)), params


def permuted_columns(columns: NDArray[np.intp] | None, order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the places of a module's columns in data reordered as `X[:, order]`."""
    places = np.argsort(order)
    return places if columns is None else places[columns]
