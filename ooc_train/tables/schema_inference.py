"""What a first pass over raw files learns: categories, ranges, and what missing values become.

The pass adds up what training rows hold; the recipe is made of that, and of nothing that a test row
holds.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ooc_train.errors import InvalidTable
from ooc_train.tables.arrow import from_texts
from ooc_train.tables.diagnostics import too_many_classes
from ooc_train.tables.encoding import Encoder
from ooc_train.tables.features import Column, Label, Records, Target, slots
from ooc_train.tables.medians import MEDIAN_BYTES, medians
from ooc_train.tables.names import as_option
from ooc_train.tables.precision import Rounding
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.tallies import Counts, Ranges
from ooc_train.tables.values import (
    UNKNOWN,
    Vocabulary,
    date_of,
    day_of,
)

MOST_CLASSES = 1000
"""Of text that is not said to be labels."""


@dataclass(frozen=True)
class ColumnSummary:
    """What was found in a raw column, and what becomes of it.

    Parameters
    ----------
    name, type : str
    becomes : str
        In words.
    n_features : int
    missing : int
        Training rows without a value.
    range : str
        Of its values.
    """

    name: str
    type: str
    becomes: str
    n_features: int
    missing: int
    range: str


class Survey:
    """Adds up what training rows hold, and makes the recipe of it.

    Parameters
    ----------
    draft : Recipe
    min_count : int
        As of `Roles`.
    sure : bool
        Whether the target's values are labels because the user says so.
    strict : bool
        Whether a number that the draft's dtype would round too far raises `Rounded`.

    Attributes
    ----------
    encoder : Encoder
        Whose vocabularies grow as it encodes.
    draft : Recipe
    """

    def __init__(
        self, draft: Recipe, min_count: int, *, sure: bool = True, strict: bool = False
    ) -> None:
        self.draft = draft
        self._min_count = min_count
        self._sure = sure
        self.strict = strict
        categories = [column.name for column in draft.columns if column.kind == "category"]
        self.encoder = Encoder(
            draft.columns,
            {name: Vocabulary(grows=True) for name in categories},
            dtype=draft.dtype,
            missing=draft.missing,
            unseen="ignore",  # every value is new at first
            target=draft.target,
            labels=None if draft.classes is None else Vocabulary(grows=True),
            sample_weight=draft.sample_weight,
            id_column=draft.id_column,
            strict=strict,
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
        """About how many bytes the categories and classes take that were found so far."""
        found = [*self.encoder.vocabularies.values()]
        found += [] if self.encoder.labels is None else [self.encoder.labels]
        return sum(vocabulary.nbytes for vocabulary in found)

    def add(self, records: Records) -> None:
        """Take in training rows.

        Raises
        ------
        InvalidTable
            More classes than text means that is said to be no label.
        """
        if not len(records):
            return
        self._n_rows += len(records)
        labels = self.encoder.labels
        if labels is not None and not self._sure and len(labels) > MOST_CLASSES:
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
        """The smaller float that holds every y of a regression."""
        return "float32" if self._y_is_float32 and self.draft.dtype == "float32" else "float64"

    def recipe(
        self, blocks: Callable[[], Iterable[Records]] | None, room: int = MEDIAN_BYTES
    ) -> Recipe:
        """Make the recipe.

        Parameters
        ----------
        blocks : callable that gives all training records, or None
            For medians, which take a few looks at all rows; without it they are left open.
        room : int
            Bytes that finding medians may hold.

        Raises
        ------
        InvalidTable
            A column without any value; a target of one class.
        """
        draft = self.draft
        fills = self._fills(blocks, room)
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
            column,
            values=tuple(common),
            missing=missing,
            other=self.draft.unseen == "other",
        )

    def _rare(self, column: Column, i: int) -> InvalidTable:
        """Say that all values of a category are rare."""
        most = int(self._counts[i].by_code.max())
        return InvalidTable(
            f"column {column.name!r} has {len(self.encoder.vocabularies[column.name]):,} values, "
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

    def recoder(self, recipe: Recipe) -> Callable[[Records], None]:
        """Give what changes the codes of records, in place, from those of the pass to the recipe's.

        It raises `InvalidTable` where a row has a value that no training row had, and the recipe
        refuses such.
        """
        tables = []
        for column in (c for c in recipe.columns if c.kind == "category"):
            found = self.encoder.vocabularies[column.name].values
            known = Vocabulary(column.values, grows=False)
            # The last two places are those of MISSING and UNKNOWN, counted from the end.
            codes = [*known.codes(from_texts(found)), UNKNOWN, -1]
            tables.append((column, np.array(codes, np.int32), found))
        labels = None
        if recipe.classes is not None and self.encoder.labels is not None:
            order = Vocabulary(self._labels.common(self.encoder.labels), grows=False)
            labels = order.codes(from_texts(self.encoder.labels.values))

        def recode(records: Records) -> None:
            for i, (column, codes, found) in enumerate(tables):
                old = records["codes"][:, i].copy()
                records["codes"][:, i] = codes[old]
                unseen = records["codes"][:, i] == UNKNOWN
                if recipe.unseen == "error" and unseen.any():
                    row = int(np.argmax(unseen))
                    raise InvalidTable(
                        f"column {column.name!r} in row {records['row'][row]:,} is "
                        f"{found[old[row]]!r}, which no training row has: rows for testing are "
                        "drawn at random, and rare values may all be among them; choose what "
                        "becomes of such values: --unseen other or --unseen ignore"
                    )
            if labels is not None:
                codes_of_y = labels[records["y"].astype(np.intp)]
                if (codes_of_y == UNKNOWN).any():
                    row = int(np.argmax(codes_of_y == UNKNOWN))
                    raise InvalidTable(
                        f"the target's class in row {records['row'][row]:,} is one that no "
                        "training row has; use another --random-state or --test-size"
                    )
                records["y"] = codes_of_y

        return recode

    def _fills(
        self, blocks: Callable[[], Iterable[Records]] | None, room: int
    ) -> dict[str, dict[int, float]]:
        """Give what missing values of numbers and dates become, by field and its column."""
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

                middle = medians(values, wanted, ranges.valid, room)
                fills[field] = dict(zip(wanted, middle, strict=True))
        return fills

    def losses(self) -> list[str]:
        """Say what numbers and dates lose in the dtype.

        Raises
        ------
        Rounded
            If strict, and there is any.
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
            dates.look(np.stack([ranges.low, ranges.high]) - np.floor(ranges.low))
        return self.encoder.rounding.losses() + dates.losses()

    def summaries(self, recipe: Recipe) -> list[ColumnSummary]:
        """Say what was found in each column, and what becomes of it."""
        found = []
        for column, field, i in slots(recipe.columns):
            names = column.feature_names
            if column.kind == "category":
                n = len(column.values)
                shown = ", ".join(column.values[:3]) + (", ..." if n > 3 else "")
                becomes = f"{len(names):,} columns of 0 and 1"
                missing = self._counts[i].missing
            else:
                ranges = self._ranges[field]
                low, high, missing = ranges.low[i], ranges.high[i], int(ranges.missing[i])
                shown = f"{low:.6g} to {high:.6g}"
                becomes = "as it is"
                if column.kind == "date":
                    shown = f"{date_of(low)} to {date_of(high)}"
                    becomes = f"days since {column.origin}"
                elif column.type == "bool":
                    becomes = "0 and 1"
                elif self.encoder.rounding.lost[i]:
                    becomes = f"rounded to {recipe.dtype}"
                if column.fill is not None and missing:
                    becomes += f", missing: {column.fill:.6g}"
            found.append(
                ColumnSummary(column.name, column.type, becomes, len(names), missing, shown)
            )
        return found

    def constant(self, recipe: Recipe) -> list[str]:
        """Name the columns that are the same in every training row."""
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


class Known:
    """In the place of a `Survey` where a recipe is known: it learns nothing.

    Parameters
    ----------
    recipe : Recipe
    needs_y : bool
        Whether the target and the weights are wanted.
    """

    nbytes = 0

    def __init__(self, recipe: Recipe, *, needs_y: bool) -> None:
        self.draft = recipe
        self.encoder = recipe.encoder(needs_y=needs_y)
        self.y_dtype = recipe.dtype

    def add(self, records: Records) -> None:
        """Take in training rows, to no effect."""

    def recipe(
        self,
        blocks: Callable[[], Iterable[Records]] | None,  # noqa: ARG002
        room: int = 0,  # noqa: ARG002
    ) -> Recipe:
        """Give the recipe."""
        return self.draft

    def recoder(self, recipe: Recipe) -> Callable[[Records], None]:  # noqa: ARG002
        """Give what leaves records as they are: their codes are the recipe's."""
        return lambda _: None

    def losses(self) -> list[str]:
        """Say what numbers lose in the recipe's dtype."""
        return self.encoder.rounding.losses()

    def constant(self, recipe: Recipe) -> list[str]:  # noqa: ARG002
        """Name no column."""
        return []


def _empty(column: Column) -> InvalidTable:
    return InvalidTable(
        f"column {column.name!r} has no value in any training row; leave it out with "
        f"--drop {as_option([column.name])}"
    )


def _label(text: str, arrow: str) -> Label:
    """Give a label as what it was before it was text."""
    if arrow == "bool":
        return text == "true"
    if arrow == "string":
        return text
    try:
        return int(text)  # with all digits
    except ValueError:
        number = float(text)
    return int(number) if number.is_integer() else number
