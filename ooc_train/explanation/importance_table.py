"""The importance of columns: a table for terminals, notebooks, pandas and JSON, and a plot."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.schema import shown
from ooc_train.core.sums import Array
from ooc_train.core.text import aligned, counted, html_escaped, html_table, printable
from ooc_train.memory.measured import MemoryReport
from ooc_train.plotting import importance_plots


@dataclass(frozen=True, eq=False)
class Importance:
    """How much worse a model predicts when a column has the values of other rows.

    Attributes
    ----------
    names : tuple of str
        Names of the columns.
    score_name : str
        The score: "accuracy", "r2" or "d2".
    baseline : dict of str to float
        The score and the mean "loss" of the rows as they are.
    importances : float64 array (columns, repeats)
        By how much the score is smaller in each repeat.
    loss_increases : float64 array (columns, repeats)
        By how much the mean loss is larger.
    n_rows : int
        Number of rows.
    pool_rows : int
        Number of rows that the values come from; if they are all rows, columns are permuted.
    memory : MemoryReport
        Ceiling, projection and measurement.
    """

    names: tuple[str, ...]
    score_name: str
    baseline: dict[str, float]
    importances: Array
    loss_increases: Array
    n_rows: int
    pool_rows: int
    memory: MemoryReport

    @property
    def importances_mean(self) -> Array:
        """Mean importance over the repeats, (columns,)."""
        return np.asarray(self.importances.mean(axis=1))

    @property
    def importances_std(self) -> Array:
        """Standard deviation of the importance over the repeats, (columns,)."""
        return np.asarray(self.importances.std(axis=1))

    @property
    def order(self) -> NDArray[np.intp]:
        """The columns by the increase of the loss, the largest first."""
        return np.argsort(-self.loss_increases.mean(axis=1), kind="stable")

    @property
    def frame(self) -> Any:
        """The table as a `pandas.DataFrame` by name, the most important first.

        Its columns are importance, importance_std, loss_increase and loss_increase_std.
        """
        import pandas as pd

        values = {
            "importance": self.importances_mean,
            "importance_std": self.importances_std,
            "loss_increase": self.loss_increases.mean(axis=1),
            "loss_increase_std": self.loss_increases.std(axis=1),
        }
        return pd.DataFrame(values, index=pd.Index(self.names)).iloc[self.order]

    @property
    def head(self) -> tuple[str, ...]:
        """The header of `rows`."""
        return ("column", f"decrease of {self.score_name}", "std", "increase of loss", "std")

    def rows(self, digits: int = 6) -> list[tuple[str, ...]]:
        """Return the table as text, to a number of digits, the most important column first."""
        columns = (
            self.importances_mean,
            self.importances_std,
            self.loss_increases.mean(axis=1),
            self.loss_increases.std(axis=1),
        )
        return [
            (self.names[i], *(f"{column[i]:.{digits}g}" for column in columns)) for i in self.order
        ]

    @property
    def about(self) -> tuple[str, ...]:
        """Lines about the table: rows, repeats, score and loss."""
        repeats = self.importances.shape[1]
        figures = ", ".join(f"{name} {value:.6g}" for name, value in self.baseline.items())
        whole = self.pool_rows == self.n_rows
        source = "permuted" if whole else f"from a sample of {counted(self.pool_rows, 'row')}"
        return (
            f"{counted(self.n_rows, 'row')} as they are: {figures}",
            f"{repeats} repeats, values {source}",
        )

    def __str__(self) -> str:
        return printable("\n".join([*aligned([self.head, *self.rows()]), *self.about]))

    def __repr__(self) -> str:
        best = self.names[self.order[0]] if self.names else "none"
        return f"<Importance: {counted(len(self.names), 'column')}, the first is {shown(best)}>"

    def _repr_html_(self) -> str:
        """Return the table and the lines about it, for notebooks."""
        lines = "<br>".join(map(html_escaped, self.about))
        return f"{html_table(self.rows(), self.head)}<p>{lines}</p>"

    def plot(self, ax: Any = None, *, most: int = 20) -> Any:
        """Draw the increase of the loss by column, with deviations, and return the axes.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes new axes.
        most : int
            Most columns to draw.
        """
        return importance_plots.importance(self, ax, most=most)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values, in the order of the columns."""
        return {
            "names": list(self.names),
            "score": self.score_name,
            "baseline": dict(self.baseline),
            "n_rows": self.n_rows,
            "pool_rows": self.pool_rows,
            "importances": self.importances.tolist(),
            "loss_increases": self.loss_increases.tolist(),
        }
