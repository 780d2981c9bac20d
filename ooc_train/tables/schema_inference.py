"""Schema inference: a pass over raw files finds categories, ranges and fills of the recipe.

Only training rows count; no value of a test row enters the recipe.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.text import counted
from ooc_train.errors import InvalidTable
from ooc_train.tables.column_summary import ColumnSummary, summary_of_category, summary_of_numbers
from ooc_train.tables.diagnostics import too_many_classes
from ooc_train.tables.encoding import Encoder
from ooc_train.tables.features import Column, Label, Records, Target, slots
from ooc_train.tables.medians import MEDIAN_BYTES, medians
from ooc_train.tables.names import as_option
from ooc_train.tables.precision import Rounding
from ooc_train.tables.ranges import Ranges
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.remapping import remapper
from ooc_train.tables.tallies import Counts
from ooc_train.tables.values import Vocabulary, date_of, day_of

MOST_CLASSES = 1000
"""Most classes of a target of text that nothing declares as labels."""


class SchemaInference:
    """Statistics of training rows, from which the recipe is made.

    Parameters
    ----------
    draft : Recipe
        The recipe as far as the types of the columns decide it.
    min_count : int
        As in `Roles`.
    declared_labels : bool
        Whether the user or the files declare the values of the target as labels.
    strict : bool
        Whether a number that the draft's dtype would round too far raises `Rounded`.

    Attributes
    ----------
    encoder : Encoder
        An encoder whose vocabularies grow as it encodes.
    """

    def __init__(
        self, draft: Recipe, min_count: int, *, declared_labels: bool = True, strict: bool = False
    ) -> None:
        self.draft = draft
        self._min_count = min_count
        self._declared_labels = declared_labels
        self.strict = strict
        categories = [column.name for column in draft.columns if column.kind == "category"]
        self.encoder = Encoder(
            draft.columns,
            {name: Vocabulary(grows=True) for name in categories},
            dtype=draft.dtype,
            missing=draft.missing,
            unseen="ignore",  # at first every value is new
            target=draft.target,
            labels=None if draft.classes is None else Vocabulary(grows=True),
            sample_weight=draft.sample_weight,
            id_column=draft.id_column,
            strict=strict,
            formats=draft.formats,
        )
        self._ranges = {
            field: Ranges(self.encoder.dtype[field].shape[0]) for field in ("numbers", "dates")
        }
        self._counts = [Counts() for _ in categories]
        self._labels = Counts()
        self._n_rows = 0
        self._y_is_float32 = True

    @property
    def nbytes(self) -> int:
        """Approximate bytes of the categories and classes found so far."""
        found = [*self.encoder.vocabularies.values()]
        found += [] if self.encoder.labels is None else [self.encoder.labels]
        return sum(vocabulary.nbytes for vocabulary in found)

    def add(self, records: Records) -> None:
        """Add training rows to the statistics.

        `InvalidTable` is raised if a target of undeclared text has too many values for classes.
        """
        if not len(records):
            return
        self._n_rows += len(records)
        labels = self.encoder.labels
        if labels is not None and not self._declared_labels and len(labels) > MOST_CLASSES:
            name = "" if self.draft.target is None else self.draft.target.name
            raise too_many_classes(name, labels.values, self._n_rows)
        for field, ranges in self._ranges.items():
            ranges.add(records[field])
        for i, counts in enumerate(self._counts):
            counts.add(records["codes"][:, i])
        if self.draft.classes is not None:
            self._labels.add(records["y"].astype(np.int64))
        elif self.draft.target is not None:
            y = records["y"]
            self._y_is_float32 &= bool((y.astype(np.float32) == y).all())

    @property
    def y_dtype(self) -> str:
        """The smallest float type that holds every y of a regression."""
        return "float32" if self._y_is_float32 and self.draft.dtype == "float32" else "float64"

    def recipe(
        self, blocks: Callable[[], Iterable[Records]] | None, max_bytes: int = MEDIAN_BYTES
    ) -> Recipe:
        """Return the recipe that follows from the rows added so far.

        `blocks` returns all training records at each call, for medians; None leaves them out.
        `InvalidTable` is raised if a column has no value, or the target has one class only.
        """
        draft = self.draft
        fills = self._fills(blocks, max_bytes)
        columns = []
        for column, field, i in slots(draft.columns):
            if column.kind == "category":
                columns.append(self._category(column, i))
                continue
            ranges, fill = self._ranges[field], fills[field].get(i)
            if ranges.valid[i] == 0:
                raise _empty(column)
            origin = date_of(ranges.low[i]) if column.kind == "date" else None
            if fill is not None and origin is not None:
                fill -= day_of(origin)
            columns.append(replace(column, fill=fill, origin=origin))
        target = draft.target
        if target is not None and target.classes is not None:
            target = replace(target, classes=self._classes(target))
        return replace(draft, columns=tuple(columns), target=target)

    def _category(self, column: Column, i: int) -> Column:
        counts = self._counts[i]
        common = counts.common(self.encoder.vocabularies[column.name], self._min_count)
        missing = counts.missing > 0 and self.draft.missing in ("mean", "median")
        if not common and not missing:
            raise _empty(column) if not counts.by_code.any() else self._rare(column, i)
        return replace(
            column, values=tuple(common), missing=missing, other=self.draft.unseen == "other"
        )

    def _rare(self, column: Column, i: int) -> InvalidTable:
        """Return the error for a category whose values are all rare."""
        most = int(self._counts[i].by_code.max())
        return InvalidTable(
            f"column {column.name!r} has "
            f"{counted(len(self.encoder.vocabularies[column.name]), 'value')}, "
            f"and none of them {self._min_count:,} training rows (--min-count), but {most:,} at "
            f"most; leave it out with --drop {as_option([column.name])}, or take a smaller count"
        )

    def _classes(self, target: Target) -> tuple[Label, ...]:
        labels = self.encoder.labels
        found = [] if labels is None else self._labels.common(labels)
        if len(found) < 2:
            only = f"one class only, {found[0]!r}" if found else "no class"
            raise InvalidTable(
                f"the target {target.name!r} has {only}: a classifier needs at least 2; "
                "check how it was made, or choose another --target"
            )
        return tuple(_label(text, target.type) for text in found)

    def remapper(self, recipe: Recipe) -> Callable[[Records], None]:
        """Return a function that replaces codes of this pass by those of the recipe, in place.

        The function raises `InvalidTable` for a value without a training row, if the recipe refuses
        such values.
        """
        labels = self.encoder.labels
        found, ordered = (
            ([], []) if labels is None else (labels.values, self._labels.common(labels))
        )
        return remapper(recipe, self.encoder.vocabularies, found, ordered)

    def _fills(
        self, blocks: Callable[[], Iterable[Records]] | None, max_bytes: int
    ) -> dict[str, dict[int, float]]:
        """Return the values that replace missing numbers and dates, by field and index."""
        fills: dict[str, dict[int, float]] = {"numbers": {}, "dates": {}}
        if self.draft.missing not in ("mean", "median"):
            return fills
        for field, ranges in self._ranges.items():
            wanted = [i for i in range(len(ranges.missing)) if ranges.valid[i]]
            if self.draft.missing == "mean":
                fills[field] = {i: float(ranges.total[i] / ranges.valid[i]) for i in wanted}
            elif wanted and blocks is not None:

                def values(
                    field: str = field, blocks: Callable[[], Iterable[Records]] = blocks
                ) -> Iterable[NDArray[np.floating]]:
                    return (block[field] for block in blocks())

                middle = medians(values, wanted, ranges.valid, max_bytes)
                fills[field] = dict(zip(wanted, middle, strict=True))
        return fills

    def losses(self) -> list[str]:
        """Return a message for each column whose numbers or dates lose values in the dtype.

        If strict, such a column raises `Rounded`.
        """
        names = [column.name for column in self.draft.columns if column.kind == "date"]
        dates = Rounding(
            len(names),
            lambda i: f"column {names[i]!r}, as days,",
            self.draft.dtype,
            strict=self.strict,
        )
        ranges = self._ranges["dates"]
        with np.errstate(invalid="ignore"):
            dates.observe(np.stack([ranges.low, ranges.high]) - np.floor(ranges.low))
        return self.encoder.rounding.losses() + dates.losses()

    def summaries(self, recipe: Recipe) -> list[ColumnSummary]:
        """Return what was found in each column, and its features."""
        found = []
        for column, field, i in slots(recipe.columns):
            if column.kind == "category":
                found.append(summary_of_category(column, self._counts[i].missing))
                continue
            ranges = self._ranges[field]
            low, high, missing = ranges.low[i], ranges.high[i], int(ranges.missing[i])
            lost = column.kind == "number" and self.encoder.rounding.lost[i]
            found.append(
                summary_of_numbers(
                    column, low, high, missing, rounded_to=recipe.dtype if lost else None
                )
            )
        return found

    def constant(self, recipe: Recipe) -> list[str]:
        """Return the columns that are constant over the training rows."""
        same = []
        for column, field, i in slots(recipe.columns):
            if column.kind == "category":
                constant = len(column.feature_names) - column.other == 1
            else:
                ranges = self._ranges[field]
                constant = ranges.low[i] == ranges.high[i] and not ranges.missing[i]
            if constant:
                same.append(column.name)
        return same


def _empty(column: Column) -> InvalidTable:
    return InvalidTable(
        f"column {column.name!r} has no value in any training row; leave it out with "
        f"--drop {as_option([column.name])}"
    )


def _label(text: str, arrow: str) -> Label:
    """Convert the text of a label to the type of its column."""
    if arrow == "bool":
        return text == "true"
    if arrow == "string":
        return text
    try:
        return int(text)  # with all digits
    except ValueError:
        number = float(text)
    return int(number) if number.is_integer() else number
