"""Rows of synthetic data, generated block by block from known coefficients.

Columns are ``mean + H @ (scale * normal)``, where H is the reflection ``I - 2 v v.T`` (Householder
1958) at a random v. The covariance ``H diag(scale ** 2) H`` has exactly the requested condition
number. Its columns are correlated, so that scaling each of them helps little. A row costs
O(features); a random rotation would cost the square.
"""

import math
import os
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.threads import one_blas_thread
from ooc_train.core.units import approximate_bytes
from ooc_train.memory.ceiling import Term
from ooc_train.store.format.chunk_sizes import default_chunk_rows

Task = Literal["classification", "regression"]

THREADS = min(4, os.cpu_count() or 1)
"""Threads that generate blocks; four of them keep one writer busy."""

_BLOCKS_AHEAD = 2
"""Blocks of each thread that wait for the writer."""

_BLOCK_COPIES, _OUTCOME_COPIES = 3, 8
"""Copies held while a block is generated (measured): of its X, with temporaries and what the
allocator keeps; and of its predictors in float64."""

_MOST_CONDITION = 1e12

_TRUTH, _ROWS = 0, 1
"""Keys of the streams of random numbers, which are independent of each other."""

_Rows = tuple[NDArray[np.floating], NDArray[Any], NDArray[np.float64] | None]
"""X, y and weights of a block."""


@dataclass(frozen=True)
class _Truth:
    """Parameters of the distribution of rows.

    Attributes
    ----------
    scale : ndarray of float64, shape (features,)
        Standard deviations of the independent numbers before the reflection.
    normal : ndarray of float64, shape (features,)
        Unit normal v of the reflection.
    coef : ndarray of float64, shape (predictors, features)
        Coefficients in the data's units.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    normal: NDArray[np.float64]
    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]


@dataclass(frozen=True)
class SyntheticSettings:
    """The settings of `make_data` that its numbers depend on, validated; see there."""

    features: int
    task: Task
    outputs: int
    classes: int
    condition: float
    noise: float
    dtype: np.dtype[Any] | str
    random_state: int

    def __post_init__(self) -> None:
        classifies = self.task == "classification"
        requirements = {
            "features": (self.features >= 1, "at least 1"),
            "task": (classifies or self.task == "regression", "'classification' or 'regression'"),
            "outputs": (self.outputs >= 1, "at least 1"),
            "classes": (self.classes >= 2, "at least 2"),
            "condition": (
                1 <= self.condition <= _MOST_CONDITION,
                f"from 1 to {_MOST_CONDITION:.0e}, beyond which float32 would blur it",
            ),
            "noise": (0 <= self.noise < math.inf, "at least 0, and finite"),
            "dtype": (self.dtype in ("float32", "float64"), "'float32' or 'float64'"),
            "random_state": (self.random_state >= 0, "a whole number, at least 0"),
        }
        for name, (met, requirement) in requirements.items():
            if not met:
                raise ValueError(f"{name}={getattr(self, name)!r} should be {requirement}")
        if self.features == 1 and self.condition != 1:
            raise ValueError(f"condition={self.condition!r} needs two features or more")
        if classifies and self.outputs != 1:
            raise ValueError(f"outputs={self.outputs!r} is for regression; classes have one")
        if not classifies and self.classes != 2:
            raise ValueError(f"classes={self.classes!r} is for classification")
        if classifies and self.noise == 0:
            raise ValueError(
                "noise=0 makes classes that a plane separates, for which no coefficients are best; "
                "use a positive one"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the settings and the truth as JSON values."""
        return {
            "task": self.task,
            "condition": self.condition,
            "noise": self.noise,
            "random_state": self.random_state,
            "coef": self.truth.coef.tolist(),
            "intercept": self.truth.intercept.tolist(),
        }

    @property
    def predictors(self) -> int:
        """Number of linear predictors: one a target, or one a class of more than two."""
        if self.task == "regression":
            return self.outputs
        return 1 if self.classes == 2 else self.classes

    @property
    def block_rows(self) -> int:
        """Rows of a block, chosen so that none of its arrays is much larger than a chunk."""
        return default_chunk_rows(max(self.features, self.predictors), self.dtype)

    def _random(self, *key: int) -> np.random.Generator:
        # Normal numbers are most of the work, and SFC64 is NumPy's fastest generator.
        seed = np.random.SeedSequence(self.random_state, spawn_key=key)
        return np.random.Generator(np.random.SFC64(seed))

    @cached_property
    def truth(self) -> _Truth:
        """Parameters of the distribution of rows."""
        random = self._random(_TRUTH)
        mean = random.standard_normal(self.features)
        scale = self.condition ** np.linspace(-0.25, 0.25, self.features)
        normal = random.standard_normal(self.features)
        normal /= np.linalg.norm(normal)
        direction = random.standard_normal((self.predictors, self.features))
        level = 0.5 * random.standard_normal(self.predictors)
        classifies = self.task == "classification"
        if classifies and self.predictors > 1:
            # Coefficients with equal probabilities exist; choose those of least norm.
            direction -= direction.mean(axis=0)
            level -= level.mean()
        direction /= np.sqrt((direction**2).sum() / self.predictors)
        if classifies:
            direction /= self.noise
            level /= self.noise
        # Equal weights of the independent numbers make all directions of the data equally relevant.
        whitened = direction / scale
        coef = whitened - 2 * np.outer(whitened @ normal, normal)
        return _Truth(mean, scale, normal, coef, level - coef @ mean)

    def block(self, index: int, *, weighted: bool) -> _Rows:
        """Return the rows of a block; all blocks have the same size."""
        random, truth, dtype = self._random(_ROWS, index), self.truth, np.dtype(self.dtype)
        n = self.block_rows
        X = random.standard_normal((n, self.features), dtype.type)
        mirror = np.ones((n, 2), dtype)
        mirror[:, 0] = X @ (truth.scale * truth.normal).astype(dtype)
        X *= truth.scale.astype(dtype)
        X += mirror @ np.array([-2 * truth.normal, truth.mean], dtype)
        y = self._outcomes(X @ truth.coef.T.astype(dtype) + truth.intercept.astype(dtype), random)
        # Weights are drawn last, so that X and y don't depend on them.
        return X, y, random.uniform(0.5, 1.5, n) if weighted else None

    def _outcomes(self, z: NDArray[np.floating], random: np.random.Generator) -> NDArray[Any]:
        """Return the y of rows with the linear predictors `z`.

        The noise of classes makes the class of the largest predictor follow the logistic model.
        """
        y: NDArray[Any]
        if self.task == "regression":
            y = z + self.noise * random.standard_normal(z.shape, z.dtype.type)
            y = y[:, 0] if self.outputs == 1 else y
        elif self.classes == 2:
            y = z[:, 0] + random.logistic(size=len(z)) > 0
        else:
            y = (z + random.gumbel(size=z.shape)).argmax(axis=1)
        return y

    def blocks(self, rows: int, threads: int, *, weighted: bool) -> Generator[_Rows, None, None]:
        """Yield whole blocks of at least `rows` rows, generated ahead by `threads` threads."""
        waiting: deque[Future[_Rows]] = deque()
        with one_blas_thread(), ThreadPoolExecutor(threads, "ooc_train-make") as making:
            for index in range(-(-rows // self.block_rows)):
                if len(waiting) == _BLOCKS_AHEAD * threads:
                    yield waiting.popleft().result()
                waiting.append(making.submit(self.block, index, weighted=weighted))
            while waiting:
                yield waiting.popleft().result()

    def blocks_term(self, threads: int) -> Term:
        """Return the memory term of `blocks`, including the block that is being written."""
        X = self.block_rows * self.features * np.dtype(self.dtype).itemsize
        outcomes = self.block_rows * self.predictors * 8
        waiting = (_BLOCKS_AHEAD * threads + 1) * (X + 2 * outcomes)
        size = waiting + threads * (_BLOCK_COPIES * X + _OUTCOME_COPIES * outcomes)
        truth = 32 * (4 + 2 * self.predictors) * self.features
        return Term(
            "generating",
            size + truth,
            f"{threads} x {1 + _BLOCKS_AHEAD} blocks of {approximate_bytes(X)} and more",
        )
