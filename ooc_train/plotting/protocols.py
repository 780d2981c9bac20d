"""Protocols of the objects that plots draw, so that any room may offer a plot of its values."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Step(Protocol):
    """A step of a run, such as a `Stepped`."""

    @property
    def passes(self) -> float:
        """Rows read so far, divided by the rows of the data."""

    @property
    def seconds(self) -> float:
        """Seconds since the start of the run."""

    @property
    def updates(self) -> int:
        """Updates of the parameters so far."""

    @property
    def learning_rate(self) -> float | None:
        """Learning rate of the last update, or None."""

    @property
    def batch_size(self) -> int | None:
        """Rows per update by a schedule, or None."""

    @property
    def loss(self) -> float:
        """Mean loss of a training row, as the step reports it."""

    @property
    def validation_loss(self) -> float | None:
        """Mean loss of a validation row, or None."""


class Point(Protocol):
    """A loss within a pass, such as a `LossPoint`."""

    @property
    def passes(self) -> float:
        """Rows read so far, divided by the rows of the data."""

    @property
    def seconds(self) -> float:
        """Seconds since the start of the run."""

    @property
    def loss(self) -> float:
        """Mean loss of a row of the pass so far."""


class Timeline(Protocol):
    """Memory of processes over time, such as a `MemoryTimeline`."""

    @property
    def seconds(self) -> tuple[float, ...]:
        """Times of the samples since the start of the job."""

    @property
    def processes(self) -> Mapping[str, tuple[int, ...]]:
        """Bytes of each process at those times, by its name."""

    @property
    def total(self) -> tuple[int, ...]:
        """Bytes of all processes together at each time."""


class Memory(Protocol):
    """Memory of a run in bytes, such as a `MemoryReport`."""

    @property
    def ceiling(self) -> int:
        """The most bytes that the run may hold."""

    @property
    def projected(self) -> int:
        """The peak in bytes that the plan projected."""

    @property
    def measured(self) -> int:
        """The sum of the measured peaks of all processes in bytes."""

    @property
    def terms(self) -> Mapping[str, int]:
        """Bytes of each term of the projection, by its name."""

    @property
    def timeline(self) -> Timeline:
        """The samples of memory over time."""


class Run(Protocol):
    """A run, such as a `Report`."""

    @property
    def history(self) -> Sequence[Step]:
        """The steps of the run, in order."""

    @property
    def within(self) -> Sequence[Point]:
        """Losses within passes, in order."""

    @property
    def passes(self) -> float:
        """Rows read, divided by the rows of the data."""

    @property
    def seconds(self) -> float:
        """Seconds from start to end."""

    @property
    def memory(self) -> Memory:
        """The memory of the run."""


class RateSchedule(Protocol):
    """A learning-rate schedule, whose text names it, such as a `Schedule`."""

    def rate(self, t: Any, eta0: float, horizon: float) -> Any:
        """Return the learning rates after t updates."""


class ByClass(Protocol):
    """Metrics of a classifier for each class, such as `ClassMetrics`."""

    @property
    def classes(self) -> Sequence[Any]:
        """The class labels by code."""

    @property
    def confusion(self) -> Any:
        """Weight of the rows of each class (first axis) by predicted class."""

    @property
    def has_probabilities(self) -> bool:
        """Whether scores are probabilities."""

    @property
    def scored_classes(self) -> Sequence[Any]:
        """The classes that have curves."""

    @property
    def roc_auc(self) -> Any:
        """Areas under the ROC curves of the scored classes, as the attribute `value`."""

    @property
    def average_precision(self) -> Any:
        """Average precision of each scored class, as the attribute `value`."""

    def roc(self, label: Any) -> Any:
        """Return false and true positive rates, and thresholds."""

    def precision_recall(self, label: Any) -> Any:
        """Return recall, precision and thresholds."""

    def lift(self, label: Any) -> Any:
        """Return shares of all rows, lifts and thresholds."""

    def calibration(self, label: Any, *, n_bins: int) -> Any:
        """Return predicted and observed shares, and weights, of bins."""


class Importances(Protocol):
    """The importance of columns, such as an `Importance`."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the columns."""

    @property
    def loss_increases(self) -> Any:
        """By how much the mean loss is larger, (columns, repeats)."""


class Residuals(Protocol):
    """Metrics of residuals, such as `ResidualMetrics`."""

    @property
    def mae(self) -> Any:
        """Mean absolute error of each output."""

    def quantile(self, q: float, output: int) -> Any:
        """Return a quantile, as the attribute `value`."""

    def shares(self, limits: Any, output: int) -> Any:
        """Return the share of the weight between limits."""

    def by_prediction(self, output: int) -> Any:
        """Return mean prediction, mean y and weight of bins."""


class Dependence(Protocol):
    """Mean predictions by the values of columns, such as a `PartialDependence`."""

    @property
    def names(self) -> Sequence[str]:
        """The columns."""

    @property
    def values(self) -> Sequence[Sequence[Any]]:
        """The values of each column."""

    @property
    def averages(self) -> Sequence[Any]:
        """The mean predictions of each column, (values, outputs)."""

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs; none for one."""
