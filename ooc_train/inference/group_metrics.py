"""Metrics of groups of rows, in the pass that evaluates all rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ooc_train.core.sums import Arrays, Block, Sums, Workspace, array_bytes
from ooc_train.core.text import aligned, counted, html_table, printable
from ooc_train.inference.metrics import MetricSums
from ooc_train.stream.row_groups import RowGroups

MOST_GROUPS = 1_000
"""Most groups that have metrics of their own."""

_GROUP_BINS = 4_096
"""Bins of the scores of a group: fewer than of all rows, so that errors of areas are larger."""

_PREFIX = "group "


@dataclass(frozen=True, eq=False)
class GroupedSums:
    """The reduction of metrics of all rows, and of each group.

    Attributes
    ----------
    metrics : MetricSums
        The metrics of all rows.
    groups : RowGroups
        The group of each row.
    """

    way_out: ClassVar[str] = "take groups of fewer values"

    metrics: MetricSums
    groups: RowGroups

    @cached_property
    def _of_group(self) -> MetricSums:
        return replace(self.metrics, bins=_GROUP_BINS)

    @property
    def loads(self) -> tuple[Callable[[], None], ...]:
        """Functions that load the libraries of the predictor."""
        return self.metrics.loads

    def zeros(self) -> Sums:
        """Return the sums over no rows, all zero; those of groups have a leading axis of groups."""
        n = self.groups.n_groups
        of_groups = {
            _PREFIX + name: np.zeros((n, *array.shape))
            for name, array in self._of_group.zeros().items()
        }
        return self.metrics.zeros() | of_groups

    def workspace(self, rows: int) -> Workspace:
        """Return the scratch arrays of `add`, for blocks of at most `rows` rows."""
        return self.metrics.workspace(rows)

    def made_bytes(self, rows: int) -> int:
        """Return the bytes that `add` allocates: those of metrics, twice, and the groups."""
        return 2 * self.metrics.made_bytes(rows) + 32 * rows + array_bytes(self.groups)

    def add(self, sums: Sums, block: Block, workspace: Arrays) -> None:
        """Add the sums over one block into `sums`, in place.

        Raises
        ------
        NonFiniteData
            If the block holds NaN or infinity.
        """
        codes, at = self.groups.of_block(block), 0
        for piece, z in self.metrics.predicted(block, workspace):
            self.metrics.add_predicted(sums, piece, z)
            own = codes[at : at + piece.n_rows]
            at += piece.n_rows
            for group in np.unique(own):
                rows = np.flatnonzero(own == group)
                part = Block(
                    piece.X[rows, :0],
                    None if piece.y is None else piece.y[rows],
                    np.ones(len(rows)) if piece.weight is None else piece.weight[rows],
                    ((0, piece.row_number(int(rows[0]))),),
                )
                self._of_group.add_predicted(self._sums_of(sums, int(group)), part, z[rows])

    def _sums_of(self, sums: Sums, group: int) -> Sums:
        """Return the sums of a group, as views."""
        return {
            name.removeprefix(_PREFIX): array[group : group + 1].reshape(array.shape[1:])
            for name, array in sums.items()
            if name.startswith(_PREFIX)
        }

    def evaluation(self, sums: Sums) -> dict[str, Any]:
        """Return the metrics of all rows, and those of groups as `by_group`."""
        found = self.metrics.evaluation(sums)
        of_groups = {}
        for k, label in enumerate(self.groups.labels.tolist()):
            own = self._sums_of(sums, k)
            # Rows without weight have no means.
            of_groups[label] = (
                self._of_group.evaluation(own)
                if own["weight"] > 0
                else {"n_rows": int(own["rows"])}
            )
        return found | {"by_group": GroupMetrics(of_groups)}


@dataclass(frozen=True, eq=False)
class GroupMetrics:
    """Metrics of groups of rows: a mapping, and a table of those that are single numbers.

    Attributes
    ----------
    metrics : mapping
        The metrics of each group by its label, as `evaluate` returns those of all rows.
    """

    metrics: Mapping[Any, Mapping[str, Any]]

    def __getitem__(self, label: Any) -> Mapping[str, Any]:
        return self.metrics[label]

    def __len__(self) -> int:
        return len(self.metrics)

    @property
    def names(self) -> list[str]:
        """Names of the metrics that are single numbers."""
        names = {
            name: None
            for metrics in self.metrics.values()
            for name, value in metrics.items()
            if isinstance(value, int | float)
        }
        return list(names)

    @property
    def frame(self) -> Any:
        """The table as a `pandas.DataFrame`, indexed by group."""
        import pandas as pd

        rows = [[each.get(name, np.nan) for name in self.names] for each in self.metrics.values()]
        return pd.DataFrame(rows, pd.Index(list(self.metrics), name="group"), self.names)

    @property
    def head(self) -> tuple[str, ...]:
        """The header of `rows`."""
        return ("group", *self.names)

    def rows(self, digits: int = 6) -> list[tuple[str, ...]]:
        """Return the table as text, to a number of digits, one row for each group."""
        return [
            (f"{label:.6g}" if isinstance(label, float) else str(label), *self._cells(each, digits))
            for label, each in self.metrics.items()
        ]

    def _cells(self, metrics: Mapping[str, Any], digits: int) -> list[str]:
        values = (metrics.get(name) for name in self.names)
        return [
            "" if value is None else f"{value:,}" if type(value) is int else f"{value:.{digits}g}"
            for value in values
        ]

    def __str__(self) -> str:
        return printable("\n".join(aligned([self.head, *self.rows()])))

    def __repr__(self) -> str:
        return f"<GroupMetrics: {counted(len(self), 'group')}>"

    def _repr_html_(self) -> str:
        """Return the table, for notebooks."""
        return html_table(self.rows(), self.head)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the metrics that are single numbers, one object for each group."""
        return [
            {"group": label, **{name: each[name] for name in self.names if name in each}}
            for label, each in self.metrics.items()
        ]
