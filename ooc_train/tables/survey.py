"""What a first pass over raw files learns: categories, ranges, and what missing values become.

The pass adds up what training rows hold; the recipe is made of that, and of nothing that a test row
holds.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.errors import InvalidTable
from ooc_train.tables.arrays import from_texts
from ooc_train.tables.encoding import Encoder
from ooc_train.tables.features import Column, Label, Records, Target, slots
from ooc_train.tables.medians import medians
from ooc_train.tables.names import as_option
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.values import UNKNOWN, Vocabulary, date_of, day_of, in_order


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

    Attributes
    ----------
    encoder : Encoder
        Whose vocabularies grow as it encodes.
    draft : Recipe
    """

    def __init__(self, draft: Recipe, min_count: int) -> None:
        self.draft = draft
        self._min_count = min_count
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
        )
        self._ranges = {
            field: _Ranges(self.encoder.dtype[field].shape[0]) for field in ("numbers", "dates")
        }
        self._counts = [_Counts() for _ in categories]
        self._labels = _Counts()
        self._y_is_float32 = True

    @property
    def nbytes(self) -> int:
        """About how many bytes the categories take that were found so far."""
        return sum(vocabulary.nbytes for vocabulary in self.encoder.vocabularies.values())

    def add(self, records: Records) -> None:
        """Take in training rows."""
        if not len(records):
            return
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

    def recipe(self, blocks: Callable[[], Iterable[Records]] | None) -> Recipe:
        """Make the recipe.

        Parameters
        ----------
        blocks : callable that gives all training records, or None
            For medians, which take a few looks at all rows; without it they are left open.

        Raises
        ------
        InvalidTable
            A column without any value; a target of one class.
        """
        draft = self.draft
        fills = self._fills(blocks)
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
            raise _empty(column)
        return replace(
            column,
            values=tuple(common),
            missing=missing,
            other=self.draft.unseen == "other",
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

    def _fills(self, blocks: Callable[[], Iterable[Records]] | None) -> dict[str, dict[int, float]]:
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

                middle = medians(values, wanted, ranges.valid)
                fills[field] = dict(zip(wanted, middle, strict=True))
        return fills

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

    def recipe(self, blocks: Callable[[], Iterable[Records]] | None) -> Recipe:  # noqa: ARG002
        """Give the recipe."""
        return self.draft

    def recoder(self, recipe: Recipe) -> Callable[[Records], None]:  # noqa: ARG002
        """Give what leaves records as they are: their codes are the recipe's."""
        return lambda _: None

    def constant(self, recipe: Recipe) -> list[str]:  # noqa: ARG002
        """Name no column."""
        return []


class _Ranges:
    """Counts, sums and ranges of columns of numbers, in which NaN is a missing value."""

    def __init__(self, n: int) -> None:
        self.valid = np.zeros(n, np.int64)
        self.missing = np.zeros(n, np.int64)
        self.total = np.zeros(n)
        self.low = np.full(n, np.inf)
        self.high = np.full(n, -np.inf)

    def add(self, values: NDArray[np.floating]) -> None:
        if not values.shape[1]:
            return
        # One column after another: rows of few columns are slow to reduce.
        columns = np.ascontiguousarray(values.T)
        total = columns.sum(axis=1, dtype=np.float64)
        missing = np.zeros(len(total), np.int64)
        # A sum tells of NaN at the price of an addition; only such columns are looked at again.
        for i in np.nonzero(np.isnan(total))[0]:
            missing[i] = np.isnan(columns[i]).sum()
            total[i] = np.nansum(columns[i], dtype=np.float64)
        self.total += total
        self.missing += missing
        self.valid += len(values) - missing
        np.fmin(self.low, np.fmin.reduce(columns, axis=1), out=self.low)
        np.fmax(self.high, np.fmax.reduce(columns, axis=1), out=self.high)


class _Counts:
    """Rows of each code."""

    def __init__(self) -> None:
        self.by_code = np.zeros(0, np.int64)
        self.missing = 0

    def add(self, codes: NDArray[Any]) -> None:
        known = codes[codes >= 0]
        self.missing += len(codes) - len(known)
        counts = np.bincount(known, minlength=len(self.by_code))
        counts[: len(self.by_code)] += self.by_code
        self.by_code = counts

    def common(self, vocabulary: Vocabulary, least: int = 1) -> list[str]:
        """Give the values of at least so many rows, in order."""
        # Codes beyond the counts are of values that no training row has.
        counted = zip(vocabulary.values, self.by_code, strict=False)
        return in_order(value for value, n in counted if n >= least)


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
    number = float(text)
    return int(number) if number.is_integer() else number
