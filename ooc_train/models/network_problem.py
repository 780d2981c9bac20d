"""Multi-layer perceptrons as problems: objective, gradient, initial parameters and predictor."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ooc_train.augmentation.augmenter import Augmentations
from ooc_train.core.sums import Array, Arrays, Block, total_bytes
from ooc_train.kernels.api import loss_slopes_needs, network_pass_needs
from ooc_train.kernels.specs import KernelSpec
from ooc_train.models.block_problem import BlockProblem
from ooc_train.models.column_moments import ColumnMoments
from ooc_train.models.network import Floats, Layers, Propagation, RowScaling
from ooc_train.models.network_clipping import NetworkClipping
from ooc_train.models.network_predictor import NetworkPredictor
from ooc_train.models.network_updates import NetworkUpdates
from ooc_train.models.predictor import Predictor
from ooc_train.models.problem import Capability
from ooc_train.objective.loss import Loss, raise_if_outside
from ooc_train.objective.scaling import Scaling
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.optimizers.schedule import Schedule

PIECE_ROWS = 1024

_LARGE_SQUARE = 2.0**20
"""Mean square of a block's values beyond which float32 rounds a loss visibly."""
"""Rows of a block that go through the layers at a time. Where rows are cut changes the last bits of
a sum, and so nothing else decides."""

_NORMALISED, _SLOWING, _OTHERS = 1e-3, 1e-2, 1e-2
"""Learning rates "auto": of optimizers whose steps have the size of the rate; of those whose steps
become shorter by themselves; and of the rest, whose rate is divided by the optimizer's gain. So a
momentum of 0.9 has 1e-3, as in scikit-learn."""


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkProblem(BlockProblem):
    """The problem of a multi-layer perceptron, with all its parameters in one vector.

    The objective is the sum of the losses plus ``l2 / 2`` times the sum of the squared weights.
    Biases are not penalised. The objective is not convex.

    Attributes
    ----------
    layers : Layers
        Sizes and activation of the layers.
    loss : Loss
        Loss by the predictors z.
    weight_init : {"glorot", "he"}
        Distribution of the random initial parameters, see `Layers.initial`.
    standardize : bool
        Whether columns are centred and scaled by their moments.
    channels : int or None
        Number of channels of images, if moments are those of channels and not of columns.
    scaling : Scaling or None
        Scaling of the columns; None for the identity.
    average : bool
        Whether the model of updates by batches is an average of the parameters.
    dropout : float
        Probability that a hidden unit is left out of an update. If it is above 0, only updates by
        batches train the network: the gradient of all rows is not defined.
    frozen_layers : int
        Layers of weights, from the first, that a run leaves as they are: their derivatives are 0.
    augmentations : Augmentations or None
        How updates change rows at random. If there are some, only updates train the network.
    """

    layers: Layers
    loss: Loss
    weight_init: str = "glorot"
    standardize: bool = False
    channels: int | None = None
    scaling: Scaling | None = None
    average: bool = True
    dropout: float = 0.0
    frozen_layers: int = 0
    augmentations: Augmentations | None = None

    averages_all_rows: ClassVar[bool] = False

    @property
    def can(self) -> frozenset[Capability]:
        """Capabilities of the problem, which solvers may require."""
        is_drawn = self.dropout or self.augmentations is not None
        return frozenset({"updates"}) if is_drawn else super().can | {"private"}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameters: one vector, (n_parameters,)."""
        return (self.layers.n_parameters,)

    @property
    def needs(self) -> tuple[KernelSpec, ...]:
        """Compiled kernels that losses and gradients need."""
        passes = network_pass_needs(self.layers.activation)
        return (
            passes
            if self.loss.target == "distribution"
            else (*loss_slopes_needs(self.loss), *passes)
        )

    @property
    def n_features(self) -> int:
        """Number of columns of the data."""
        return self.layers.sizes[0]

    @property
    def n_outputs(self) -> int:
        """Number of predictors z of each row."""
        return self.layers.sizes[-1]

    @property
    def n_frozen(self) -> int:
        """Number of parameters, from the first, that stay as they are."""
        return int(self.layers.ends[2 * self.frozen_layers])

    @property
    def needs_moments(self) -> bool:
        """Whether a run begins with a pass for the moments of the columns."""
        return self.standardize

    @property
    def target_sums(self) -> None:
        """None: a run needs no moments of y."""
        return None

    def with_targets(self, mean: Array, deviation: Array) -> Self:
        """Return the problem unchanged: it needs no moments of y."""
        del mean, deviation
        return self

    def scaled_by(self, moments: ColumnMoments) -> Self:
        """Return the problem of columns that are centred and scaled by their moments."""
        if self.channels is not None:
            moments = moments.by_channel(self.channels)
        scaling = Scaling.of(moments.mean, np.sqrt(moments.variance), centre=True)
        return replace(self, scaling=scaling)

    def initial(self, seed: int = 0) -> Array:
        """Return random initial parameters, as the seed determines them."""
        return self.layers.initial(seed, self.weight_init)

    def automatic_rate(self, optimizer: Optimizer) -> float:
        """Return the learning rate "auto" of an optimizer, a constant."""
        if not optimizer.normalised:
            return _OTHERS / optimizer.gain
        return _SLOWING if optimizer.slowing else _NORMALISED

    def penalty_value(self, params: Array) -> float:
        """Return the penalty on the weights, in units of the sum of losses."""
        squares = sum(float((weights**2).sum()) for weights, _ in self.layers.views(params))
        return 0.5 * self.l2 * squares

    def penalty_gradient(self, params: Array) -> Array:
        """Return the gradient of `penalty_value`, which is 0 for biases."""
        gradient: Array = self.l2 * params
        for _, biases in self.layers.views(gradient):
            biases[...] = 0.0
        gradient[: self.n_frozen] = 0.0
        return gradient

    def block_bytes(self, rows: int) -> int:
        """Return the most bytes that `block_gradient` allocates for a block of `rows` rows."""
        piece = min(rows, PIECE_ROWS)
        specs = self.layers.workspace(piece, "<f8", gradients=True)
        copied = 8 * piece * self.n_features  # as scaled rows, or as float64
        return total_bytes(specs) + self.layers.made_bytes(piece) + 8 * self.n_parameters + copied

    def block_loss(self, params: Array, block: Block) -> float:
        """Return the weighted sum of the losses of a block's rows; NaN where X is not finite."""
        self.require_targets(block)
        dtype = self._product_type(block.X)
        propagation, _ = self._propagation(params, block, dtype, gradients=False)
        return sum(propagation.loss(*piece) for piece in self._pieces(block, dtype))

    def block_gradient(self, params: Array, block: Block) -> tuple[float, Array]:
        """Return the weighted sum of the losses of a block's rows, and the gradient of that sum.

        Products have the type of X, or float64 where X is large. The pieces of rows are added up in
        float64.
        """
        self.require_targets(block)
        dtype = self._product_type(block.X)
        propagation, arrays = self._propagation(params, block, dtype, gradients=True)
        loss, gradient = 0.0, np.zeros(self.shape)
        for piece in self._pieces(block, dtype):
            loss += propagation.gradient(*piece, out=arrays["gradient"])
            gradient += arrays["gradient"]
        gradient[: self.n_frozen] = 0.0
        return loss, gradient

    def clipping(self, dtype: str, batch_size: int, max_norm: float) -> NetworkClipping:
        """Return the sums of the rows' gradients, each scaled down to a norm."""
        return NetworkClipping(
            self.layers,
            self.loss,
            self.scaling,
            self.frozen_layers,
            self.needs,
            dtype,
            batch_size,
            max_norm,
        )

    def without_frozen(self, gradient: Array) -> None:
        """Set derivatives by parameters that are not learned to 0, in place."""
        gradient[: self.n_frozen] = 0.0

    def _product_type(self, X: Floats) -> np.dtype[Any]:
        """Return the type of the products with a block's rows.

        Units of large values cancel in the layers above, and what is left has the rounding of the
        large ones: in float32 the loss would be another than that of the predictions, which are
        float64.
        """
        if self.standardize or X.dtype == np.float64:
            return X.dtype
        scale = 1.0 if self.scaling is None else float(self.scaling.scale.min())
        flat = X.ravel("K")
        is_large = np.vdot(flat, flat) > _LARGE_SQUARE * scale**2 * X.size
        return np.dtype(np.float64) if is_large else X.dtype

    def _propagation(
        self, params: Array, block: Block, dtype: np.dtype[Any], *, gradients: bool
    ) -> tuple[Propagation, Arrays]:
        """Return a `Propagation` with the parameters in its arrays, and the arrays."""
        rows = min(block.n_rows, PIECE_ROWS)
        specs = self.layers.workspace(rows, dtype.str, gradients=gradients)
        arrays: Arrays = {name: np.empty(spec.shape, spec.dtype) for name, spec in specs.items()}
        arrays["params"][...] = params
        return Propagation(self.layers, self.loss, arrays), arrays

    def _pieces(
        self, block: Block, dtype: np.dtype[Any]
    ) -> Iterator[tuple[Floats, Array, Array | None]]:
        """Yield scaled rows, y and weights of at most `PIECE_ROWS` rows of a block."""
        if block.y is None:
            raise ValueError("a loss needs y, and these data have none")
        scaled = RowScaling(self.scaling, dtype)
        for start in range(0, block.n_rows, PIECE_ROWS):
            rows = slice(start, start + PIECE_ROWS)
            weight = None if block.weight is None else block.weight[rows]
            X = block.X[rows].astype(dtype, copy=False)
            yield scaled(X, None), block.y[rows], weight

    def require_targets(self, block: Block) -> None:
        """Raise `ValueError` for a y that makes no loss infinite, and is no probability."""
        if self.loss.target in ("binary", "distribution"):
            raise_if_outside(self.loss, block)

    def raise_if_invalid(self, block: Block) -> None:
        """If invalid data make a loss non-finite, raise an error that names the row."""
        super().raise_if_invalid(block)
        raise_if_outside(self.loss, block)

    def updates(
        self,
        dtype: str,
        batch_size: int,
        optimizer: Optimizer,
        schedule: Schedule,
        eta0: float,
        horizon: float,
    ) -> NetworkUpdates:
        """Return the scan that updates parameters by batches of `batch_size` rows."""
        return NetworkUpdates(self, batch_size, optimizer, schedule, eta0, horizon, dtype)

    def predictor(self, params: Array) -> NetworkPredictor:
        """Return the predictor of `params`, in the data's units."""
        params = params.copy()
        if self.scaling is not None:
            weights, biases = self.layers.views(params)[0]
            weights /= self.scaling.scale[:, None]
            biases -= self.scaling.mean @ weights
        return NetworkPredictor(self.layers, params)

    def require_predictor(self, predictor: Predictor) -> None:
        """Raise `ValueError` unless the predictor is a network of the same layers."""
        if not isinstance(predictor, NetworkPredictor) or predictor.layers != self.layers:
            raise ValueError(
                "the parameters to start from are not those of layers of the sizes "
                f"{self.layers.sizes} with the activation {self.layers.activation.name}; start "
                "afresh"
            )

    def with_new_outputs(self, predictor: Predictor, seed: int) -> NetworkPredictor | None:
        """Return a predictor with the hidden layers of `predictor` and a random output layer.

        None if its hidden layers are not those of the problem, or if there are none.
        """
        if not isinstance(predictor, NetworkPredictor) or len(self.layers.sizes) == 2:
            return None
        theirs = replace(predictor.layers, sizes=(*predictor.layers.sizes[:-1], self.n_outputs))
        if theirs != self.layers:
            return None
        params, hidden = self.initial(seed), int(self.layers.ends[-3])
        params[:hidden] = predictor.params[:hidden]
        return NetworkPredictor(self.layers, params)

    def params_of(self, predictor: NetworkPredictor) -> Array:
        """Convert a predictor in the data's units to `params`, which are for scaled columns."""
        params = predictor.params.copy()
        if self.scaling is not None:
            weights, biases = self.layers.views(params)[0]
            biases += self.scaling.mean @ weights
            weights *= self.scaling.scale[:, None]
        return params

    def permuted(self, params: Array, order: NDArray[np.intp]) -> tuple[Self, Array]:
        """Return the problem and parameters for columns reordered as `X[:, order]`.

        `params` may be several vectors, (..., n_parameters).
        """
        scaling = None if self.scaling is None else self.scaling.permuted(order)
        return replace(self, scaling=scaling), self.layers.permuted(params, order)
