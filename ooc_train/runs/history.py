"""The steps of a run, as a series that stays small."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

from ooc_train.core.schema import integer, mapping_of, number, record
from ooc_train.runs.events import Stepped

_MOST_STEPS = 4096


@dataclass(frozen=True, slots=True)
class LossPoint:
    """A loss within a pass.

    Attributes
    ----------
    passes, seconds : float
        Rows read divided by rows of the data, and seconds since the run began.
    loss : float
        Of a full-batch pass the mean loss of its rows so far, at the parameters that it evaluates.
        Of least squares that of the model which these rows give. Of updates the mean loss of the
        rows since the last such point, each just before its own update.
    updates : int
        Updates of the parameters so far.
    metrics : mapping of str to float
        "accuracy", "roc_auc" (of two classes) or "r2" of the model so far, on a fixed sample of at
        most 2,048 training rows. Of updates it is the model after those so far, of a full-batch
        pass the one before the pass; of least squares it is that of the rows so far. Empty for data
        of fewer than 100 chunks (shuffled stores: 10), and where the sample would cost much.
    """

    passes: float
    seconds: float
    loss: float
    updates: int
    metrics: Mapping[str, float] = field(default_factory=dict)


POINT_SCHEMA = record(
    {
        "passes": number(),
        "seconds": number(),
        "loss": number(finite=False),
        "updates": integer(0),
    },
    optional={"metrics": mapping_of(number())},
)
"""The fields of a `LossPoint` as values of JSON."""

Entry = TypeVar("Entry", Stepped, LossPoint)


class Steps(Generic[Entry]):
    """The series of a run's steps, thinned evenly if it is long, so that it stays small."""

    def __init__(self) -> None:
        self._kept: list[Entry] = []
        self._last: Entry | None = None
        self._every = 1
        self._count = 0

    def add(self, step: Entry) -> None:
        """Append a step."""
        if self._count % self._every == 0:
            self._kept.append(step)
            if len(self._kept) > _MOST_STEPS:
                del self._kept[1::2]
                self._every *= 2
        self._last = step
        self._count += 1

    def to_json(self) -> dict[str, Any]:
        """Return the series as values of JSON, which `restore` accepts."""
        steps = [asdict(step) for step in self.all()]
        return {"steps": steps, "every": self._every, "count": self._count}

    def restore(self, steps: Sequence[Entry], every: int, count: int) -> None:
        """Continue the series of another run, which had `count` steps, from its kept `steps`."""
        self._every, self._count = every, count
        self._last = steps[-1] if steps else None
        # The last step is kept only if its turn has come.
        self._kept = list(steps[: -(-count // every)])

    def all(self) -> tuple[Entry, ...]:
        """Return the kept steps; the last step of the run is always among them."""
        kept = list(self._kept)
        if self._last is not None and kept[-1] is not self._last:
            kept.append(self._last)
        return tuple(kept)
