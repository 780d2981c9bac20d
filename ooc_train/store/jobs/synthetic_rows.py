"""Made rows: what they are drawn from, block by block.

Columns are ``mean + H @ (scale * normal)``, H the reflection ``I - 2 v v.T`` (Householder 1958) at
a random v. The covariance ``H diag(scale ** 2) H`` has exactly the condition number that was asked
for, its columns are correlated, so that scaling each of them helps little, and a row costs
O(features), where a random rotation would cost their square.
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
"""Threads that make blocks: four of them keep one writer busy."""

_AHEAD = 2
"""Blocks that wait for the writer, for each thread."""

_BLOCK_COPIES, _OUTCOME_COPIES = 3, 8
"""Of a block while it is made: its X, what is added to it, and what the allocator keeps; and of its
predictors in float64 (measured)."""

_MOST_CONDITION = 1e12

_TRUTH, _ROWS = 0, 1
"""What a stream of random numbers is for: streams of different keys are independent."""

_Rows = tuple[NDArray[np.floating], NDArray[Any], NDArray[np.float64] | None]
"""X, y and weights of a block."""


@dataclass(frozen=True)
class _Truth:
    """What the rows are drawn from.

    Attributes
    ----------
    mean, scale, normal : float64 arrays (features,)
        Of the columns, of the independent numbers that they are mixed from, and of the mirror.
    coef : float64 array (predictors, features)
    intercept : float64 array (predictors,)
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    normal: NDArray[np.float64]
    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]


@dataclass(frozen=True)
class SyntheticRecipe:
    """The settings of `make_data` that its numbers are a function of; they cannot be wrong."""

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
        rules = {
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
        for name, (kept, rule) in rules.items():
            if not kept:
                raise ValueError(f"{name}={getattr(self, name)!r} should be {rule}")
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
        """Return the settings and the truth as values that JSON can hold."""
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
        """Linear predictors: a target each, or a class each where there are more than two."""
        if self.task == "regression":
            return self.outputs
        return 1 if self.classes == 2 else self.classes

    @property
    def block_rows(self) -> int:
        """Rows of a block, so many that none of its arrays is much larger than a chunk."""
        return default_chunk_rows(max(self.features, self.predictors), self.dtype)

    def _random(self, *key: int) -> np.random.Generator:
        # SFC64 is the fastest of NumPy's generators, and normal numbers are most of the work.
        seed = np.random.SeedSequence(self.random_state, spawn_key=key)
        return np.random.Generator(np.random.SFC64(seed))

    @cached_property
    def truth(self) -> _Truth:
        """What the rows are drawn from."""
        random = self._random(_TRUTH)
        mean = random.standard_normal(self.features)
        scale = self.condition ** np.linspace(-0.25, 0.25, self.features)
        normal = random.standard_normal(self.features)
        normal /= np.linalg.norm(normal)
        direction = random.standard_normal((self.predictors, self.features))
        level = 0.5 * random.standard_normal(self.predictors)
        classifies = self.task == "classification"
        if classifies and self.predictors > 1:
            # Of all the coefficients that give the same probabilities, those of least norm.
            direction -= direction.mean(axis=0)
            level -= level.mean()
        direction /= np.sqrt((direction**2).sum() / self.predictors)
        if classifies:
            direction /= self.noise
            level /= self.noise
        # Weighing the independent numbers alike gives every direction of the data an equal say.
        whitened = direction / scale
        coef = whitened - 2 * np.outer(whitened @ normal, normal)
        return _Truth(mean, scale, normal, coef, level - coef @ mean)

    def block(self, index: int, *, weighted: bool) -> _Rows:
        """Return the rows of a block; all blocks are alike in size."""
        random, truth, dtype = self._random(_ROWS, index), self.truth, np.dtype(self.dtype)
        n = self.block_rows
        X = random.standard_normal((n, self.features), dtype.type)
        mirror = np.ones((n, 2), dtype)
        mirror[:, 0] = X @ (truth.scale * truth.normal).astype(dtype)
        X *= truth.scale.astype(dtype)
        X += mirror @ np.array([-2 * truth.normal, truth.mean], dtype)
        y = self._outcomes(X @ truth.coef.T.astype(dtype) + truth.intercept.astype(dtype), random)
        # Last, so that X and y are the same with and without.
        return X, y, random.uniform(0.5, 1.5, n) if weighted else None

    def _outcomes(self, z: NDArray[np.floating], random: np.random.Generator) -> NDArray[Any]:
        """Return the y of rows with the predictors `z`.

        Classes are drawn by the noise that turns a maximum into the logistic model's probabilities.
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
        """Yield whole blocks until there are at least `rows`, made ahead by a few threads."""
        waiting: deque[Future[_Rows]] = deque()
        with one_blas_thread(), ThreadPoolExecutor(threads, "ooc_train-make") as making:
            for index in range(-(-rows // self.block_rows)):
                if len(waiting) == _AHEAD * threads:
                    yield waiting.popleft().result()
                waiting.append(making.submit(self.block, index, weighted=weighted))
            while waiting:
                yield waiting.popleft().result()

    def making_term(self, threads: int) -> Term:
        """Say what `blocks` holds, the block that is being written included."""
        X = self.block_rows * self.features * np.dtype(self.dtype).itemsize
        outcomes = self.block_rows * self.predictors * 8
        waiting = (_AHEAD * threads + 1) * (X + 2 * outcomes)
        size = waiting + threads * (_BLOCK_COPIES * X + _OUTCOME_COPIES * outcomes)
        truth = 32 * (4 + 2 * self.predictors) * self.features
        return Term(
            "making",
            size + truth,
            f"{threads} x {1 + _AHEAD} blocks of {approximate_bytes(X)} and more",
        )
