"""Partial dependence: the mean prediction over all rows, with a column set to each of some values.

Friedman 2001, section 8.2.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.progress import Progress, no_progress, row_counter
from ooc_train.core.schema import shown
from ooc_train.core.sums import (
    Array,
    Arrays,
    ArraySpec,
    Block,
    Sums,
    Workspace,
    array_bytes,
)
from ooc_train.core.text import feature_name
from ooc_train.explanation.dependence_table import PartialDependence
from ooc_train.explanation.raw_columns import Places, chosen_columns
from ooc_train.explanation.row_sample import RowSample, sample_rows
from ooc_train.inference.metrics import PIECE_ROWS
from ooc_train.inference.outputs import Kind, Outputs
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.predictor import LinearPredictor
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.run_loading import as_fitted
from ooc_train.runtime.job import Job
from ooc_train.stream.inputs import read_features
from ooc_train.stream.passes import Stream
from ooc_train.stream.requirements import Requirements, loads_of

_ENDS = 0.05, 0.95
"""Quantiles of a column between which its values lie."""


def partial_dependence(
    model: Any,
    X: Any,
    columns: Sequence[str | int] | str | int,
    *,
    grid_resolution: int = 20,
    values: Mapping[str, Sequence[float]] | None = None,
    random_state: int = 0,
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
    progress: Progress = no_progress,
) -> PartialDependence:
    """Return the mean prediction over all rows, with a column set to each of some values.

    All columns and values take one pass, after a sample of rows was read for the values.
    Predictions are probabilities of classes where the model has them, else expected values of y, or
    decisions. A linear model costs a product of the changed features for each value; other models
    predict all rows anew.

    Parameters
    ----------
    model : Fitted, fitted estimator, or path of a saved run
        The model.
    X : Store, path, or array (rows, features) of NumPy or Dask
        The rows; each counts once.
    columns : str, int, or sequence of them
        Raw columns or features, by name, or features by number. A raw column of categories has one
        value for each of them.
    grid_resolution : int
        Most values of a number: all values of the sample if they are no more, else evenly spaced
        ones between its 5 % and 95 % quantiles.
    values : mapping of str to sequence of float, optional
        The values of numbers by column, in place of those.
    random_state : int
        The seed of the sample.
    client, memory_ceiling
        As for `train`.
    progress : callable
        Called with the stage, its rows so far, and the fraction done, from 0 to 1.

    Returns
    -------
    PartialDependence
        A table; its `frame` is a `pandas.DataFrame`, and `plot()` draws it.

    Raises
    ------
    ValueError
        If there is no such column, or values can't be used.
    InvalidRun
        If the data have other columns, by name or by number.
    CeilingExceeded
        If the pass does not fit the ceiling, before it begins.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from ooc_train import LogisticRegression, partial_dependence
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = LogisticRegression().fit(X, y)
    >>> found = partial_dependence(model, X, [0, 1], grid_resolution=4)
    >>> len(found.frame)
    8
    """
    if grid_resolution < 2:
        raise ValueError(f"grid_resolution={shown(grid_resolution)} is below 2; pass 20")
    whole, rows = as_fitted(model), read_features(X)
    source = rows.source
    whole = whole.for_columns(rows.feature_names, source.n_features, rows.name, rows.row_shape)
    chosen = chosen_columns(whole, columns)
    given = _given(values, chosen)
    memory_ceiling = Ceiling.of(memory_ceiling)
    features = [np.arange(source.n_features)[places] for places in chosen.values()]
    most = max(max(grid_resolution, *map(len, [*features, *given.values()])), 1)
    largest = DependenceSums(
        whole.bare(), tuple(chosen.values()), tuple(np.zeros((most, len(f))) for f in features)
    )
    size = sample_rows(source)
    sample = RowSample.of(source, size)
    row_bytes = source.n_features * np.dtype(source.dtype).itemsize
    requirements = replace(
        Requirements.of(source, [largest], parameters=whole.nbytes),
        result=int(sample.kept.max()) * row_bytes,
        results=2 * size * row_bytes,
        way_out="explain fewer columns at a time",
        loads=loads_of(whole.predictor),
    )
    with Job(source, client=client, memory_ceiling=memory_ceiling) as job:
        plan = job.plan(requirements)
        stream = job.stream(plan, row_counter(progress, "averaging", source.n_rows))
        found = _settings(stream, sample, whole, chosen, given, grid_resolution, random_state)
        reduction = replace(largest, settings=tuple(setting for _, setting in found.values()))
        averages = reduction.averages(stream.reduce(reduction))
        memory = job.memory(plan)
    return PartialDependence(
        names=tuple(chosen),
        values=tuple(labels for labels, _ in found.values()),
        averages=tuple(averages),
        outputs=reduction.output_names,
        n_rows=source.n_rows,
        memory=memory,
    )


@dataclass(frozen=True, eq=False)
class DependenceSums:
    """The reduction of predictions with columns set to values.

    Attributes
    ----------
    fitted : Fitted
        The model.
    columns : tuple of slice or ndarray
        The features of each column.
    settings : tuple of float64 array (values, features)
        What the features of each column are set to.
    """

    fitted: Fitted
    columns: tuple[Places, ...]
    settings: tuple[Array, ...]

    @property
    def loads(self) -> tuple[Callable[[], None], ...]:
        """Functions that load the libraries of the predictor."""
        return loads_of(self.fitted.predictor)

    @property
    def _kind(self) -> Kind:
        if not self.fitted.classes:
            return "prediction"
        return "probability" if Outputs.of(self.fitted).has_probabilities else "decision"

    @property
    def _is_linear(self) -> bool:
        plain = self.fitted.calibration is None  # otherwise z is no longer linear
        return plain and isinstance(self.fitted.predictor, LinearPredictor)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs: of classes, or of several columns of y; none for one."""
        width = Outputs.of(self.fitted).width(self._kind)
        if self._kind == "probability" or (self.fitted.classes and width > 1):
            return tuple(map(str, self.fitted.classes))
        return tuple(f"output {k}" for k in range(width)) if width > 1 else ()

    def zeros(self) -> Sums:
        """Return the sums over no rows, all zero."""
        n = sum(map(len, self.settings))
        width = Outputs.of(self.fitted).width(self._kind)
        return {"rows": np.zeros(()), "predictions": np.zeros((n, width))}

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `add`, for blocks of at most `rows` rows."""
        shape = min(rows, PIECE_ROWS), self.fitted.n_features
        return {"converted": ArraySpec(shape), "changed": ArraySpec(shape)}

    def made_bytes(self, rows: int) -> int:
        """Return the bytes of the arrays that `add` makes for at most `rows` rows."""
        piece, fitted = min(rows, PIECE_ROWS), self.fitted
        numbers = piece * (8 * max(fitted.n_outputs, len(fitted.classes)) + fitted.n_features)
        return 8 * numbers + fitted.predictor.made_bytes + array_bytes(self)

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the predictions over one block into `sums`, in place.

        Raises
        ------
        NonFiniteData
            If the block holds NaN or infinity.
        """
        outputs = Outputs.of(self.fitted)
        for start in range(0, block.n_rows, PIECE_ROWS):
            X, first = block.X[start : start + PIECE_ROWS], block.row_number(start)
            z = self.fitted.decision(X, workspace["converted"], first)
            changed = workspace["changed"][: len(X)]
            np.copyto(changed, X)
            sums["rows"] += len(X)
            at = 0
            for places, settings in zip(self.columns, self.settings, strict=True):
                base = z
                if self._is_linear:
                    base = z - changed[:, places] @ self.fitted.coef[:, places].T
                for setting in settings:
                    found = self._with(setting, places, base, changed, workspace, first)
                    sums["predictions"][at] += outputs.at(found, self._kind).sum(axis=0)
                    at += 1
                changed[:, places] = X[:, places]

    def _with(
        self,
        setting: Array,
        places: Places,
        base: Array,
        changed: Array,
        workspace: Arrays,
        first: int,
    ) -> Array:
        """Return the predictors with a column set to a value."""
        if self._is_linear:
            return np.asarray(base + self.fitted.coef[:, places] @ setting)
        changed[:, places] = setting
        return self.fitted.decision(changed, workspace["converted"], first)

    def averages(self, sums: Sums) -> list[Array]:
        """Return the mean predictions of each column, (values, outputs)."""
        means = sums["predictions"] / sums["rows"]
        return np.split(means, np.cumsum([len(each) for each in self.settings])[:-1])


def _given(
    values: Mapping[str, Sequence[float]] | None, chosen: Mapping[str, Places]
) -> dict[str, Array]:
    """Return the values that a caller gave, checked."""
    given = {name: np.asarray(each, np.float64) for name, each in (values or {}).items()}
    for name, each in given.items():
        if name not in chosen or each.ndim != 1 or not len(each) or not np.isfinite(each).all():
            raise ValueError(
                f"values of {shown(name)}: give one or more finite numbers, of one of the columns"
            )
    return given


def _settings(
    stream: Stream,
    sample: RowSample,
    fitted: Fitted,
    chosen: Mapping[str, Places],
    given: Mapping[str, Array],
    resolution: int,
    seed: int,
) -> dict[str, tuple[tuple[Any, ...], Array]]:
    """Return the labels of the values of each column, and what its features are set to."""
    rows: NDArray[Any] = sample.read(stream, np.random.default_rng(seed))
    found: dict[str, tuple[tuple[Any, ...], Array]] = {}
    for name, places in chosen.items():
        features = np.arange(fitted.n_features)[places]
        if len(features) > 1 and name not in given:
            # One category each: the others are 0.
            labels = [feature_name(fitted.feature_names, fitted.row_shape, i) for i in features]
            short = tuple(label.removeprefix(f"{name}=") for label in labels)
            found[name] = short, np.eye(len(features))
            continue
        if len(features) > 1:
            raise ValueError(f"{shown(name)} has categories, and values are of numbers")
        numbers = given.get(name)
        if numbers is None:
            numbers = np.unique(rows[:, features[0]]).astype(np.float64)
            if len(numbers) > resolution:
                low, high = np.quantile(rows[:, features[0]].astype(np.float64), _ENDS)
                numbers = np.unique(np.linspace(low, high, resolution))
        found[name] = tuple(numbers.tolist()), numbers[:, np.newaxis]
    return found
