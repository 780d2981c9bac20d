"""The predictor of a fitted multi-layer perceptron."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array, Block, Workspace, raise_if_not_finite, total_bytes
from ooc_train.errors import NonFiniteData
from ooc_train.models.network import Layers, Propagation
from ooc_train.objective.activations import ACTIVATIONS
from ooc_train.objective.losses.squared import Squared

_PIECE_ROWS = 256
"""Rows that go through the layers at a time: their values stay in the cache."""


@dataclass(frozen=True, eq=False)
class NetworkPredictor:
    """The layers of a network, and its parameters in the data's units.

    Attributes
    ----------
    layers : Layers
        Sizes and activation of the layers.
    params : float64 array (n_parameters,)
        Weights and biases, as `Layers.views` reads them.
    """

    layers: Layers
    params: Array

    kind: ClassVar[str] = "network"
    names: ClassVar[tuple[str, ...]] = ("sizes", "activation", "params")

    @property
    def n_features(self) -> int:
        """Number of columns of X."""
        return self.layers.sizes[0]

    @property
    def n_outputs(self) -> int:
        """Number of predictors z of each row."""
        return self.layers.sizes[-1]

    @property
    def arrays(self) -> Mapping[str, Array]:
        """Layer sizes, the activation's name as character codes, and parameters."""
        name = self.layers.activation.name.encode("ascii")
        return {
            "sizes": np.array(self.layers.sizes, np.float64),
            "activation": np.array(list(name), np.float64),
            "params": self.params,
        }

    @classmethod
    def of(cls, *arrays: Array) -> Self:
        """Make a predictor from its saved arrays."""
        sizes, letters, params = arrays
        if sizes.ndim != 1 or len(sizes) < 2 or not ((sizes >= 1) & (sizes < 2**31)).all():
            raise ValueError(f"layers of the sizes {sizes}")
        name = "".join(chr(int(code)) for code in letters.ravel()[:64] if 0 < code < 128)
        if name not in ACTIVATIONS:
            raise ValueError(f"activation={name!r} is not one of {', '.join(ACTIVATIONS)}")
        layers = Layers(tuple(int(size) for size in sizes), ACTIVATIONS[name]())
        if params.shape != (layers.n_parameters,):
            raise ValueError(
                f"parameters {params.shape}, and layers of the sizes {layers.sizes} have "
                f"{layers.n_parameters:,}"
            )
        if not np.isfinite(params).all():
            raise ValueError("some parameters are not finite")
        return cls(layers, np.ascontiguousarray(params))

    @property
    def made_bytes(self) -> int:
        """Bytes that `decision` allocates beside the predictors."""
        return total_bytes(self._workspace(_PIECE_ROWS)) + self.layers.made_bytes(_PIECE_ROWS)

    def _workspace(self, rows: int) -> Workspace:
        specs = self.layers.workspace(rows, "<f8", gradients=False)
        return {name: spec for name, spec in specs.items() if name != "params"}

    def _propagation(self, rows: int) -> Propagation:
        arrays = {name: np.empty(spec.shape) for name, spec in self._workspace(rows).items()}
        # Each call has arrays of its own: threads share the predictor.
        arrays["params"] = self.params
        return Propagation(self.layers, Squared(), arrays, compiled=False)

    def decision(
        self, X: NDArray[np.floating], converted: Array | None = None, first_row: int = 0
    ) -> Array:
        """Return the predictors z of rows, (rows, outputs)."""
        z = np.empty((len(X), self.n_outputs))
        step = max(1, min(_PIECE_ROWS, len(X if converted is None else converted)))
        propagation = self._propagation(step)
        for start in range(0, len(X), step):
            rows = slice(start, start + step)
            piece = X[rows]
            if converted is None:
                piece = np.asarray(piece, np.float64)
            else:
                np.copyto(converted[: len(piece)], piece)
                piece = converted[: len(piece)]
            z[rows] = propagation.predictors(piece)
        if not np.isfinite(z).all():
            self._raise_without_predictor(X, z, first_row)
        return z

    def _raise_without_predictor(self, X: NDArray[np.floating], z: Array, first_row: int) -> None:
        """Raise `NonFiniteData` for the first row without a finite predictor z."""
        raise_if_not_finite(Block(X, None, None, ((0, first_row),)))
        row = int(np.argmin(np.isfinite(z).all(axis=1)))
        raise NonFiniteData(
            f"row {first_row + row} has a prediction that no float64 holds; drop or correct such "
            "rows first"
        )

    def permuted(self, order: NDArray[np.intp]) -> Self:
        """Return the predictor for columns reordered as `X[:, order]`."""
        return replace(self, params=self.layers.permuted(self.params, order))
