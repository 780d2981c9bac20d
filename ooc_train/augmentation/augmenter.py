"""A sequence of augmentations of one run, and the augmenter that changes the rows of its batches.

Updates change a batch's rows in place, in units of the data, before they are scaled. The state of a
replica has the epoch and, for mixup, the row before the next one.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ooc_train.augmentation.augmentation import Augmentation, Rows
from ooc_train.augmentation.row_augmentations import Mixup
from ooc_train.augmentation.row_draws import RowDraws, row_seeds, stage_keys
from ooc_train.core.sums import Array, Arrays, ArraySpec, Sums, Workspace

_BUFFERS = 2**17
"""Bytes of NumPy's buffers, in which it converts 8,192 numbers at a time."""

_ROW, _TARGET, _WEIGHT = "row before", "y before", "weight before"


@dataclass(frozen=True, eq=False)
class Augmentations:
    """The augmentations of a run: a value that is sent to workers.

    Attributes
    ----------
    parts : tuple of Augmentation
        The augmentations, in order.
    row_shape : tuple of int
        Shape of a row.
    seed : int
        The seed of the run.
    """

    parts: tuple[Augmentation, ...]
    row_shape: tuple[int, ...]
    seed: int

    @classmethod
    def of(
        cls, parts: tuple[Augmentation, ...] | None, row_shape: tuple[int, ...], seed: int
    ) -> Self | None:
        """Return the augmentations for rows of a shape; None without any.

        Raises
        ------
        ValueError
            If one of them is for other rows, or if mixup is not the last.
        """
        if not parts:
            return None
        for i, part in enumerate(parts):
            part.require(row_shape)
            if isinstance(part, Mixup) and i < len(parts) - 1:
                raise ValueError(
                    f"augment has 'mixup' before {parts[i + 1].name!r}; put it last, once"
                )
        return cls(parts, row_shape, seed)

    @property
    def mixup(self) -> Mixup | None:
        """The last augmentation, if it is mixup."""
        last = self.parts[-1]
        return last if isinstance(last, Mixup) else None

    @property
    def _n_features(self) -> int:
        return int(np.prod(self.row_shape))

    def workspace(self, rows: int, dtype: str) -> Workspace:
        """Return the arrays of an augmenter, as specs, for at most `rows` rows at a time."""
        specs = {
            f"augment {i} {name}": spec
            for i, part in enumerate(self.parts)
            for name, spec in part.workspace(rows, self.row_shape, dtype).items()
        }
        if self.mixup is not None:
            specs["rows before"] = ArraySpec((rows, self._n_features), dtype)
        return specs

    def made_bytes(self, rows: int, dtype: str) -> int:
        """Return the bytes that an augmenter allocates beside its workspace, for such rows."""
        largest = max(part.made_bytes(rows, self.row_shape, dtype) for part in self.parts)
        return _BUFFERS + largest + 128 * rows + 4 * 8 * self._n_features

    def start(self, dtype: str) -> Sums:
        """Return the part of a replica's state that augmentations need: epoch, and row before."""
        epochs: Sums = {"epochs": np.zeros(1, np.int64)}
        return epochs | self._nothing(dtype)

    def end_epoch(self, state: Sums) -> None:
        """Change a state at the end of an epoch, of which no row is mixed with the next."""
        state["epochs"] += 1
        if self.mixup is not None:
            state |= self._nothing(state[_ROW].dtype.str)

    def _nothing(self, dtype: str) -> Sums:
        if self.mixup is None:
            return {}
        return {
            _ROW: np.empty((0, self._n_features), dtype),
            _TARGET: np.empty((0, 1)),
            _WEIGHT: np.empty(0),
        }


class Augmenter:
    """What changes the rows of batches, in a workspace and with a replica's state.

    Parameters
    ----------
    augmentations : Augmentations
        The sequence.
    arrays : mapping of arrays
        As `Augmentations.workspace` describes them.
    state : mapping of arrays
        The replica's state, see `Augmentations.start`; `mix` updates it.
    unit : float or float64 array (features,)
        The scale of the columns: what 1 after scaling is in units of the data.
    """

    def __init__(
        self,
        augmentations: Augmentations,
        arrays: Arrays,
        state: Sums,
        unit: float | Array = 1.0,
    ) -> None:
        self._augmentations, self._state = augmentations, state
        parts, shape = augmentations.parts, augmentations.row_shape
        self._keys = stage_keys(augmentations.seed, int(state["epochs"][0]), len(parts))
        self._scratch: list[Arrays] = [
            {
                name.split(" ", 2)[2]: array
                for name, array in arrays.items()
                if name.startswith(f"augment {i} ")
            }
            for i in range(len(parts))
        ]
        self._mixup, self._before = augmentations.mixup, arrays.get("rows before")
        self._unit = unit if isinstance(unit, float) else unit.reshape(shape)

    def augment(self, rows: Rows, numbers: NDArray[np.int64]) -> None:
        """Change rows in place, by all augmentations but mixup.

        Parameters
        ----------
        rows : float32 or float64 array (rows, features)
            The rows.
        numbers : int64 array (rows,)
            Their numbers within the data.

        Raises
        ------
        ValueError
            If an augmentation returns another shape, or makes numbers that are not finite.
        """
        shaped = rows.reshape(len(rows), *self._augmentations.row_shape)
        for i, part in enumerate(self._augmentations.parts):
            if part is self._mixup:
                continue
            # Rows of the data that are not finite are reported by the loss.
            checked = not part.stays_finite and _is_finite(rows)
            found = part(shaped, self._draws(i, numbers))
            if found is not shaped:
                _copy(found, shaped, part)
            if checked and not _is_finite(rows):
                _raise_not_finite(rows, numbers, part)

    def _draws(self, stage: int, numbers: NDArray[np.int64]) -> RowDraws:
        rows = len(numbers)
        scratch = {name: array[:rows] for name, array in self._scratch[stage].items()}
        return RowDraws(row_seeds(self._keys[stage], numbers), scratch, self._unit)

    def mix(
        self, rows: Rows, y: Array, weight: Array | None, numbers: NDArray[np.int64]
    ) -> tuple[Array, Array | None]:
        """Mix rows with the rows before them, in place; return targets and weights of both.

        Without mixup, `y` and `weight` are returned as they are.

        Returns
        -------
        y : float64 array (rows, 2 * outputs)
            The targets of each row, followed by those of the row before it.
        weight : float64 array (rows, 2)
            The weights of the losses by either.
        """
        if self._mixup is None or self._before is None:
            return y, weight
        share = self._mixup.shares(self._draws(len(self._keys) - 1, numbers))
        weight = np.ones(len(rows)) if weight is None else weight
        before, state = self._before[: len(rows)], self._state
        is_first = not len(state[_ROW])
        before[1:] = rows[:-1]
        before[0] = rows[0] if is_first else state[_ROW][0]
        y_before, weight_before = np.empty_like(y), np.empty_like(weight)
        y_before[1:], weight_before[1:] = y[:-1], weight[:-1]
        y_before[0] = y[0] if is_first else state[_TARGET][0]
        weight_before[0] = weight[0] if is_first else state[_WEIGHT][0]
        state |= {_ROW: rows[-1:].copy(), _TARGET: y[-1:].copy(), _WEIGHT: weight[-1:].copy()}
        if is_first:
            share[0] = 1.0
        factors = share.astype(rows.dtype)[:, None]
        rows *= factors
        np.multiply(before, 1 - factors, out=before)
        rows += before
        weights = np.stack([share * weight, (1.0 - share) * weight_before], axis=1)
        return np.hstack([y, y_before]), weights


def halves(y: Array, weight: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return targets and weights of rows, and those of the rows mixed with them, of `mix`."""
    outputs = y.shape[1] // 2
    own = np.ascontiguousarray(y[:, :outputs]), np.ascontiguousarray(weight[:, 0])
    return own, (np.ascontiguousarray(y[:, outputs:]), np.ascontiguousarray(weight[:, 1]))


def _is_finite(rows: Rows) -> bool:
    # A sum takes less time than a test of each number; one of finite numbers may overflow.
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(rows.sum())) or bool(np.isfinite(rows).all())


def _copy(found: object, rows: Rows, part: Augmentation) -> None:
    """Copy what an augmentation returned to the rows; refuse another shape or type."""
    if not isinstance(found, np.ndarray) or found.shape != rows.shape:
        shape = found.shape if isinstance(found, np.ndarray) else type(found).__name__
        raise ValueError(
            f"augment='{part}' returned {shape} for rows of the shape {rows.shape}; it has to "
            "return an array of the same shape"
        )
    if found.dtype.kind not in "fiub":
        raise ValueError(f"augment='{part}' returned {found.dtype} for numbers; return floats")
    np.copyto(rows, found, casting="same_kind")


def _raise_not_finite(rows: Rows, numbers: NDArray[np.int64], part: Augmentation) -> None:
    wrong = ~np.isfinite(rows)
    row, column = np.argwhere(wrong)[0]
    raise ValueError(
        f"augment='{part}' made {wrong.sum():,} of {wrong.size:,} numbers NaN or infinite, though "
        f"the data are finite: the first is column {column} of row {numbers[row]}; correct its "
        "arithmetic"
    )
