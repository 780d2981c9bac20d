"""Partial dependence as a table for terminals, notebooks, pandas and JSON, and a plot."""

from dataclasses import dataclass
from typing import Any

from ooc_train.core.schema import shown
from ooc_train.core.sums import Array
from ooc_train.core.text import aligned, counted, html_table, printable
from ooc_train.memory.measured import MemoryReport
from ooc_train.plotting import importance_plots


@dataclass(frozen=True, eq=False, repr=False)
class PartialDependence:
    """The mean prediction over all rows, with a column set to each of some values.

    Attributes
    ----------
    names : tuple of str
        The columns.
    values : tuple of tuple
        The values of each column: numbers, or categories.
    averages : tuple of float64 array (values, outputs)
        The mean predictions of each column.
    outputs : tuple of str
        Names of the outputs, such as the classes; empty for one.
    n_rows : int
        Number of rows.
    memory : MemoryReport
        Ceiling, projection and measurement.
    """

    names: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]
    averages: tuple[Array, ...]
    outputs: tuple[str, ...]
    n_rows: int
    memory: MemoryReport

    @property
    def frame(self) -> Any:
        """The table as a `pandas.DataFrame` by column and value, with a column for each output."""
        import numpy as np
        import pandas as pd

        pairs = [
            (name, value)
            for name, of_column in zip(self.names, self.values, strict=True)
            for value in of_column
        ]
        index = pd.MultiIndex.from_tuples(pairs, names=["column", "value"])
        return pd.DataFrame(np.concatenate(self.averages), index, self._columns)

    @property
    def _columns(self) -> list[str]:
        return list(self.outputs) or ["average"]

    @property
    def head(self) -> tuple[str, ...]:
        """The header of `rows`."""
        return ("column", "value", *self._columns)

    def rows(self, digits: int = 6) -> list[tuple[str, ...]]:
        """Return the table as text, to a number of digits, one row for each value."""
        return [
            (
                name,
                value if isinstance(value, str) else f"{value:.{digits}g}",
                *(f"{each:.{digits}g}" for each in average),
            )
            for name, of_column, averages in zip(
                self.names, self.values, self.averages, strict=True
            )
            for value, average in zip(of_column, averages, strict=True)
        ]

    def __str__(self) -> str:
        return printable("\n".join(aligned([self.head, *self.rows()])))

    def __repr__(self) -> str:
        names = ", ".join(map(shown, self.names))
        return f"<PartialDependence: {names}, {counted(self.n_rows, 'row')}>"

    def _repr_html_(self) -> str:
        """Return the table, for notebooks."""
        return html_table(self.rows(), self.head)

    def plot(self, column: str | None = None, ax: Any = None) -> Any:
        """Draw the mean prediction by the value of a column, and return the axes.

        Parameters
        ----------
        column : str or None
            The column; None is the first one.
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes new axes.

        Raises
        ------
        ValueError
            If there is no such column.
        """
        return importance_plots.dependence(self, self.place(column), ax)

    def place(self, column: str | None) -> int:
        """Return the position of a column by its name; None is the first one."""
        if column is None:
            return 0
        if column not in self.names:
            raise ValueError(
                f"there is no column {shown(column)}; those of {shown(list(self.names))} are there"
            )
        return self.names.index(column)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values, one object for each column."""
        return {
            name: {
                "values": list(of_column),
                "outputs": list(self.outputs),
                "averages": averages.tolist(),
            }
            for name, of_column, averages in zip(
                self.names, self.values, self.averages, strict=True
            )
        }
