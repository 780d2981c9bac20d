"""The predictor of a fitted module of PyTorch, and its form in files."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.files import parse_json
from ooc_train.core.optional_packages import needed_package
from ooc_train.core.schema import integer, list_of, numbers, or_none, record
from ooc_train.core.sums import Array, Block, raise_if_not_finite
from ooc_train.errors import NonFiniteData
from ooc_train.models.pytorch.torch_loading import loads_of_module
from ooc_train.models.pytorch.torch_settings import NetworkSpec
from ooc_train.models.scale_setting import channels_of
from ooc_train.objective.scaling import Scaling

_FIGURES = record(
    {
        "row_shape": list_of(integer(1)),
        "n_outputs": integer(1),
        "row_bytes": integer(0),
        "columns": or_none(list_of(integer(0))),
    },
    optional={"channels": record({"mean": numbers(least=1), "scale": numbers(least=1)})},
)


def _channel_scaling(saved: Mapping[str, Any] | None, channels: int | None) -> Scaling | None:
    """Return the scaling of so many channels that a file tells; None without channels.

    Raises
    ------
    ValueError
        If there are other channels, or a scale is not above 0.
    """
    found = None if saved is None else (len(saved["mean"]), len(saved["scale"]))
    due = None if channels is None else (channels, channels)
    if found != due:
        raise ValueError(f"it has the moments of {found or 'no'} channels, and its model {due}")
    if saved is None:
        return None
    if not all(0.0 < each < math.inf for each in saved["scale"]):
        raise ValueError("some scales of its channels are not finite numbers above 0")
    return Scaling(np.array(saved["mean"], np.float64), np.array(saved["scale"], np.float64))


_PIECE_ROWS, _PIECE_BYTES = 256, 2**24
"""Most rows that go through the module at a time, and most bytes that they make."""


@dataclass(frozen=True, eq=False)
class TorchPredictor:
    """A module and its tensors by name, which predict rows.

    Attributes
    ----------
    spec : NetworkSpec
        The module.
    tensors : mapping of arrays
        The arrays of the module's `state_dict`.
    row_bytes : int
        Bytes that a forward pass allocates for each row.
    columns : int64 array (features,) or None
        The place in the data of each column of the module; None for the order of the data.
    """

    spec: NetworkSpec
    tensors: Mapping[str, NDArray[Any]]
    row_bytes: int = 0
    columns: NDArray[np.intp] | None = None

    kind: ClassVar[str] = "torch"
    names: ClassVar[tuple[str, ...]] = ()

    @property
    def n_features(self) -> int:
        """Number of columns of X."""
        return int(np.prod(self.spec.row_shape))

    @property
    def n_outputs(self) -> int:
        """Number of predictors z of each row."""
        return self.spec.n_outputs

    @property
    def loads(self) -> tuple[Callable[[], None], ...]:
        """Functions that load PyTorch and the module's file."""
        return loads_of_module(self.spec)

    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The tensors that are saved."""
        return self.tensors

    @property
    def made_bytes(self) -> int:
        """Bytes that `decision` allocates beside the predictors."""
        held = sum(array.nbytes for array in self.tensors.values())
        return 2 * held + self._piece * (self.row_bytes + 16 * self.n_features)

    @property
    def _piece(self) -> int:
        """Number of rows that go through the module at a time."""
        return max(16, min(_PIECE_ROWS, _PIECE_BYTES // max(1, self.row_bytes)))

    @classmethod
    def of(cls, *arrays: Array) -> Self:
        """Raise TypeError: arrays alone make no predictor, since the module is part of it."""
        raise TypeError(f"{len(arrays)} arrays make no module")

    def to_file(self) -> tuple[Mapping[str, NDArray[Any]], dict[str, str]]:
        """Return the content of a file: tensors by name, and other values as text."""
        figures = {
            "row_shape": list(self.spec.row_shape),
            "n_outputs": self.spec.n_outputs,
            "row_bytes": self.row_bytes,
            "columns": None if self.columns is None else self.columns.tolist(),
        }
        if self.spec.channel_scale:
            mean, scale = list(self.spec.channel_mean), list(self.spec.channel_scale)
            figures["channels"] = {"mean": mean, "scale": scale}
        return self.tensors, {"format": "pt", "ooc_train": json.dumps(figures)}

    @classmethod
    def from_file(
        cls,
        model: Any,
        n_classes: int,
        tensors: Mapping[str, NDArray[Any]],
        text: Mapping[str, str],
    ) -> Self:
        """Make a predictor from the content of a file.

        Raises
        ------
        ValueError
            If figures are missing or wrong, or a number is not finite.
        """
        if not hasattr(model, "module"):
            raise ValueError(f"tensors of a module, and the model {model.name} has none")
        figures = parse_json(text.get("ooc_train", "").encode())
        _FIGURES(figures, "ooc_train")
        columns = figures["columns"]
        row_shape = tuple(figures["row_shape"])
        if columns is not None and sorted(columns) != list(range(math.prod(row_shape))):
            raise ValueError("its columns are no order of the columns of a row")
        for name, array in tensors.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"some numbers of {name} are not finite")
        spec = NetworkSpec(model, row_shape, figures["n_outputs"], n_classes)
        scaling = _channel_scaling(figures.get("channels"), channels_of(model.scale, row_shape))
        if scaling is not None:
            spec = spec.scaled_by(scaling)
        places = None if columns is None else np.array(columns, np.intp)
        return cls(spec, tensors, figures["row_bytes"], places)

    def module(self) -> Any:
        """Return a new module with these tensors, on the CPU and in evaluation mode."""
        with needed_package("torch", "models of PyTorch"):
            import torch

            from ooc_train.models.pytorch.torch_network import Network

        network = Network(self.spec)
        with torch.no_grad():
            network.load_tensors(self.tensors)
        return network.module.eval().cpu()

    def require_module(self) -> None:
        """Raise `ValueError` unless the module can be made, and has these tensors."""
        with needed_package("torch", "models of PyTorch"):
            from ooc_train.models.pytorch.torch_network import Network

        Network(self.spec).require_tensors(self.tensors)

    def decision(
        self, X: NDArray[np.floating], converted: Array | None = None, first_row: int = 0
    ) -> Array:
        """Return the predictors z of rows, (rows, outputs)."""
        with needed_package("torch", "models of PyTorch"):
            import torch

            from ooc_train.models.pytorch.torch_network import network_of

        del converted  # modules take floats of the type of their parameters
        network = network_of(self.spec, training=False)
        z = np.empty((len(X), self.n_outputs))
        with torch.no_grad():
            network.load_tensors(self.tensors)
            for start in range(0, len(X), self._piece):
                rows = slice(start, start + self._piece)
                piece = X[rows] if self.columns is None else X[rows][:, self.columns]
                z[rows] = network.predictors(piece)
        if not np.isfinite(z).all() or not np.isfinite(X.sum()):
            self._raise_without_predictor(X, z, first_row)
        return z

    def _raise_without_predictor(self, X: NDArray[np.floating], z: Array, first_row: int) -> None:
        """Raise `NonFiniteData` for the first row without a finite predictor z."""
        raise_if_not_finite(Block(X, None, None, ((0, first_row),)))
        if np.isfinite(z).all():
            return
        row = int(np.argmin(np.isfinite(z).all(axis=1)))
        raise NonFiniteData(
            f"row {first_row + row} has a prediction that is no finite number; drop or correct "
            "such rows first"
        )

    def permuted(self, order: NDArray[np.intp]) -> Self:
        """Return the predictor for columns reordered as `X[:, order]`."""
        places = np.argsort(order)
        return replace(self, columns=places if self.columns is None else places[self.columns])
