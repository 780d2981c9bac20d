"""Made data of a known truth: what a fit ought to find, at any size.

Rows are made block by block. The numbers of a block are a function of the settings and the block's
number, so neither threads nor the number of rows change them: the first rows of a long store are
those of a short one.

Columns are ``mean + H @ (scale * normal)``, H the reflection ``I - 2 v v.T`` (Householder 1958) at
a random v. The covariance ``H diag(scale ** 2) H`` has exactly the condition number that was asked
for, its columns are correlated, so that scaling each of them helps little, and a row costs
O(features), where a random rotation would cost their square.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ooc_train.store.layout import Store, default_chunk_rows
from ooc_train.store.writer import StoreWriter
from ooc_train.threads import one_blas_thread
from ooc_train.units import parse_rows

__all__ = ["make_data"]

Task = Literal["classification", "regression"]

_THREADS = min(4, os.cpu_count() or 1)
"""Threads that make blocks: four of them keep one writer busy."""

_AHEAD = 2 * _THREADS
"""Blocks that wait for the writer."""

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
class _Recipe:
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

    def blocks(self, rows: int, *, weighted: bool) -> Generator[_Rows, None, None]:
        """Yield whole blocks until there are at least `rows`, made ahead by a few threads."""
        waiting: deque[Future[_Rows]] = deque()
        with one_blas_thread(), ThreadPoolExecutor(_THREADS, "ooc_train-make") as threads:
            for index in range(-(-rows // self.block_rows)):
                if len(waiting) == _AHEAD:
                    yield waiting.popleft().result()
                waiting.append(threads.submit(self.block, index, weighted=weighted))
            while waiting:
                yield waiting.popleft().result()


def make_data(
    path: str | os.PathLike[str],
    *,
    rows: int | str,
    features: int = 100,
    task: Task = "classification",
    outputs: int = 1,
    classes: int = 2,
    condition: float = 1.0,
    noise: float = 1.0,
    dtype: np.dtype[Any] | str = "float32",
    sample_weight: bool = False,
    random_state: int = 0,
    chunk_rows: int | None = None,
    codec: Literal["none", "lz4", "zstd"] = "none",
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Store:
    """Write a store of made data, of any size in the memory of a few dozen chunks.

    Rows are independent draws, so their order is random: the store says that it is shuffled. Its
    `attributes["made"]` hold the settings and the truth, `coef` (predictors, features) and
    `intercept` (predictors,) in the data's units, which are what fits without a penalty tend to.

    Parameters
    ----------
    path : str or os.PathLike
        Where the store will lie.
    rows : int or str
        A number, or text such as "20M".
    features : int
        Columns of X, of means about 1 in size.
    task : {"classification", "regression"}
    outputs : int
        Columns of y, for regression; one of them makes a y of one axis.
    classes : int
        For classification: two follow a logistic model, more a softmax, whose `coef` and
        `intercept` add up to 0 over the classes.
    condition : float
        Condition number of the covariance of X. At 1 the columns are independent, of unit
        variance; above, they are correlated. All principal directions matter alike to y.
    noise : float
        Size of the noise on a signal of standard deviation 1 (over several predictors: on
        average). In regression, the standard deviation of what is added to y. In classification
        what divides the log-odds: `coef` and `intercept` have been divided by it.
    dtype : {"float32", "float64"}
        Of X, and of the y of a regression.
    sample_weight : bool
        Whether rows have weights, between 0.5 and 1.5, which know nothing of X and y.
    random_state : int
        Seed, at least 0.
    chunk_rows : int, optional
        Rows of a chunk (by default about 0.8 MiB). The data don't depend on it.
    codec : {"none", "lz4", "zstd"}
        Of the chunks; noise of this kind hardly shrinks.
    overwrite : bool
        Whether a store that lies there is replaced.
    progress : callable
        Called with the number of rows after each few that were written.

    Returns
    -------
    Store
        Opened.

    Raises
    ------
    ValueError
        If a setting is wrong; the message names it.
    OutputExists
        If something lies at `path`.
    OSError
        If the disk is full or can't be written.
    """
    n_rows = parse_rows(rows)
    if n_rows < 1:
        raise ValueError(f"rows={rows!r} should be at least 1")
    if chunk_rows is not None and chunk_rows < 1:
        raise ValueError(f"chunk_rows={chunk_rows!r} should be at least 1")
    recipe = _Recipe(features, task, outputs, classes, condition, noise, dtype, random_state)
    made = {
        "task": task,
        "condition": condition,
        "noise": noise,
        "random_state": random_state,
        "coef": recipe.truth.coef.tolist(),
        "intercept": recipe.truth.intercept.tolist(),
    }
    writer = StoreWriter(
        path,
        n_features=features,
        dtype=recipe.dtype,
        outputs=outputs if outputs > 1 else None,
        classes=range(classes) if task == "classification" else None,
        chunk_rows=chunk_rows,
        codec=codec,
        sample_weight=sample_weight,
        shuffled=random_state,
        attributes={"made": made},
        overwrite=overwrite,
    )
    with writer, closing(recipe.blocks(n_rows, weighted=sample_weight)) as blocks:
        for X, y, weight in blocks:
            left = n_rows - writer.n_rows
            writer.write(X[:left], y[:left], None if weight is None else weight[:left])
            progress(min(left, recipe.block_rows))
        return writer.commit()
