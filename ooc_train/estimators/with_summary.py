"""The method `summary` of estimators whose loss is a likelihood."""

from typing import Any

from ooc_train.estimators.validation import ValidatingEstimator
from ooc_train.explanation.coefficient_summary import CoefficientSummary
from ooc_train.explanation.covariance import Errors
from ooc_train.explanation.summary import Weights, summary
from ooc_train.runs.fitted import Fitted


class WithSummary(ValidatingEstimator):
    """Estimators of coefficients that have standard errors."""

    def _fitted(self) -> Fitted:
        raise NotImplementedError

    def summary(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        errors: Errors = "classical",
        groups: Any = None,
        weights: Weights = "variance",
        level: float = 0.95,
    ) -> CoefficientSummary:
        """Return coefficients with standard errors, z, p and confidence limits, by one pass.

        `ooc_train.summary` states formulas and sources. The model has no penalty, and X and y are
        the rows that it learned from.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        errors : {"classical", "HC1", "cluster"}
            The kind of standard errors.
        groups : str, int, or array of shape (n_samples,)
            For "cluster": the name or number of a column of X, or a label for each row.
        weights : {"variance", "frequency"}
            What a weight is: in inverse proportion to a row's variance, or a number of equal rows.
        level : float
            Level of the confidence limits, between 0 and 1.

        Returns
        -------
        CoefficientSummary
            A table; its `frame` is a `pandas.DataFrame`.

        Raises
        ------
        ValueError
            If the model has a penalty, constraints or class weights, or is not at the optimum on
            these rows; if there are too few rows or groups.
        CeilingExceeded
            If the pass does not fit the memory ceiling, before it begins.
        """
        fitted = self._fitted()
        validated = self._validated(X, y, sample_weight, first=False, classes=fitted.classes)
        return summary(
            fitted,
            validated.inputs,
            errors=errors,
            groups=groups,
            weights=weights,
            level=level,
            memory_ceiling=self.memory_ceiling,
        )
