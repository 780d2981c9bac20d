"""Summaries of raw columns, for previews and reports of ingest."""

from dataclasses import dataclass

from ooc_train.core.text import counted
from ooc_train.tables.features import Column
from ooc_train.tables.values import date_of


@dataclass(frozen=True)
class ColumnSummary:
    """What was found in a raw column, and its features.

    Parameters
    ----------
    name, type : str
        The column and its Arrow type.
    becomes : str
        The features in words.
    missing : int
        Training rows without a value.
    range : str
        The range of the values, or some of them.
    """

    name: str
    type: str
    becomes: str
    n_features: int
    missing: int
    range: str


def summary_of_category(column: Column, missing: int) -> ColumnSummary:
    """Return the summary of a category with so many missing values."""
    n, names = len(column.values), column.feature_names
    shown = ", ".join(column.values[:3]) + (", ..." if n > 3 else "")
    becomes = f"{counted(len(names), 'column')} of 0 and 1"
    return ColumnSummary(column.name, column.type, becomes, len(names), missing, shown)


def summary_of_numbers(
    column: Column, low: float, high: float, missing: int, *, rounded_to: str | None
) -> ColumnSummary:
    """Return the summary of a number or date column with values from `low` to `high`.

    `rounded_to` is the dtype if different numbers become equal in it.
    """
    shown, becomes = f"{low:.6g} to {high:.6g}", "as it is"
    if column.kind == "date":
        shown = f"{date_of(low)} to {date_of(high)}"
        becomes = f"days since {column.origin}"
    elif column.type == "bool":
        becomes = "0 and 1"
    elif rounded_to is not None:
        becomes = f"rounded to {rounded_to}"
    if column.fill is not None and missing:
        becomes += f", missing: {column.fill:.6g}"
    return ColumnSummary(column.name, column.type, becomes, 1, missing, shown)
