"""Coefficients with their standard errors: a table for terminals, notebooks, pandas and JSON."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from ooc_train.core.sums import Array
from ooc_train.core.text import aligned, counted, html_escaped, html_table, printable
from ooc_train.memory.measured import MemoryReport

COLUMNS = ("coef", "std_err", "z", "p", "low", "high")
"""Columns of the table."""


@dataclass(frozen=True, eq=False)
class CoefficientSummary:
    """What a linear model learned: coefficients, standard errors, tests and confidence limits.

    Coefficients that are left out, because their columns are sums of others, are NaN.

    Attributes
    ----------
    model : str
        The kind of model.
    errors : str
        "classical", "HC1" or "cluster".
    names : tuple of str
        Names of the coefficients, the intercept first.
    outputs : tuple of str
        Names of the outputs; empty for one output.
    coef, std_err : float64 array (outputs, names)
        Coefficients and standard errors, in units of the data.
    covariance : tuple of float64 array (coefficients, coefficients)
        Covariance matrix of the coefficients that are not left out: of each output, or of all
        classes together. The intercept comes last.
    dispersion : float64 array (outputs,)
        Estimated dispersion, which is the variance of the residuals for least squares; 1 for
        probabilities and counts.
    degrees : float
        Degrees of freedom of Student's t distribution; infinite for the normal distribution.
    level : float
        Level of the confidence limits.
    n_rows : int
        Number of rows with a weight; with weights that count rows, their sum.
    n_groups : int or None
        Number of groups of clustered errors.
    distance : float
        Upper bound of the distance of the coefficients from the optimum, in standard errors.
    notes : tuple of str
        Remarks.
    memory : MemoryReport
        Ceiling, projection and measurement of the pass.
    """

    model: str
    errors: str
    names: tuple[str, ...]
    outputs: tuple[str, ...]
    coef: Array
    std_err: Array
    covariance: tuple[Array, ...]
    dispersion: Array
    degrees: float
    level: float
    n_rows: int
    n_groups: int | None
    distance: float
    notes: tuple[str, ...]
    memory: MemoryReport

    @cached_property
    def z(self) -> Array:
        """Coefficients divided by their standard errors, (outputs, names).

        Of least squares it is Student's t.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.coef / self.std_err)

    @cached_property
    def p(self) -> Array:
        """Probability of a |z| that large, or larger, if a coefficient is 0; (outputs, names)."""
        below = -np.abs(self.z)
        tail = ndtr(below) if math.isinf(self.degrees) else stdtr(self.degrees, below)
        return np.asarray(2.0 * tail)

    @cached_property
    def _reach(self) -> Array:
        share = 0.5 + self.level / 2.0
        quantile = ndtri(share) if math.isinf(self.degrees) else stdtrit(self.degrees, share)
        return np.asarray(quantile * self.std_err)

    @property
    def low(self) -> Array:
        """Lower confidence limits, (outputs, names)."""
        return np.asarray(self.coef - self._reach)

    @property
    def high(self) -> Array:
        """Upper confidence limits, (outputs, names)."""
        return np.asarray(self.coef + self._reach)

    @property
    def frame(self) -> Any:
        """The table as a `pandas.DataFrame` of the columns coef, std_err, z, p, low and high.

        It is indexed by name; with several outputs, by output and name.
        """
        import pandas as pd

        index = pd.Index(self.names)
        if self.outputs:
            index = pd.MultiIndex.from_product([self.outputs, self.names])
        values = {name: getattr(self, name).ravel() for name in COLUMNS}
        return pd.DataFrame(values, index=index)

    @property
    def head(self) -> tuple[str, ...]:
        """The header of `rows`."""
        level = f"{100 * self.level:.4g} %"
        z = "z" if math.isinf(self.degrees) else "t"
        first = ("output", "name") if self.outputs else ("name",)
        return (*first, "coef", "std_err", z, "p", f"low {level}", f"high {level}")

    def rows(self, digits: int | None = None) -> list[tuple[str, ...]]:
        """Return the table as text, one row for each coefficient.

        Without a number of digits, figures have 6, and z and p have 4.
        """
        by_column = [digits or (4 if name in ("z", "p") else 6) for name in COLUMNS]
        found = []
        columns = [getattr(self, name) for name in COLUMNS]
        for k, output in enumerate(self.outputs or ("",)):
            for j, name in enumerate(self.names):
                first = (output, name) if self.outputs else (name,)
                values = [float(column[k, j]) for column in columns]
                cells = zip(values, by_column, strict=True)
                found.append(
                    (*first, *("" if math.isnan(x) else f"{x:.{shown}g}" for x, shown in cells))
                )
        return found

    @property
    def about(self) -> tuple[str, ...]:
        """Lines about the table: rows, errors, dispersion, distance and notes."""
        groups = "" if self.n_groups is None else f" by {counted(self.n_groups, 'group')}"
        lines = [f"{self.model}: {self.errors} errors{groups} of {counted(self.n_rows, 'row')}"]
        if not math.isinf(self.degrees):
            lines[0] += f", {self.degrees:,.0f} degrees of freedom"
        if (self.dispersion != 1.0).any():
            lines.append(f"dispersion: {', '.join(f'{each:.6g}' for each in self.dispersion)}")
        return (*lines, *(f"note: {note}" for note in self.notes))

    def __str__(self) -> str:
        lines = aligned([self.head, *self.rows()], left=range(2 if self.outputs else 1))
        return printable("\n".join([*lines, *self.about]))

    def __repr__(self) -> str:
        return (
            f"<CoefficientSummary: {counted(self.coef.size, 'coefficient')} of a {self.model} "
            "model, "
            f"{self.errors} errors>"
        )

    def _repr_html_(self) -> str:
        """Return the table and the lines about it, for notebooks."""
        lines = "<br>".join(map(html_escaped, self.about))
        return f"{html_table(self.rows(), self.head)}<p>{lines}</p>"

    def to_json(self) -> dict[str, Any]:
        """Return the table and the figures about it as JSON values; NaN where one is left out."""
        return {
            "model": self.model,
            "errors": self.errors,
            "n_rows": self.n_rows,
            "n_groups": self.n_groups,
            "degrees_of_freedom": self.degrees,
            "dispersion": self.dispersion.tolist(),
            "level": self.level,
            "distance": self.distance,
            "names": list(self.names),
            "outputs": list(self.outputs),
            **{name: getattr(self, name).tolist() for name in COLUMNS},
            "notes": list(self.notes),
        }
