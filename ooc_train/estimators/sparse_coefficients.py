"""Coefficients as a sparse matrix, for estimators with an l1 penalty."""

from typing import Any

import scipy.sparse


class SparseCoefficients:
    """The base of estimators whose coefficients may be mostly zeros."""

    coef_: Any

    @property
    def sparse_coef_(self) -> Any:
        """The coefficients as a `scipy.sparse.csr_matrix` of shape (n_outputs, n_features)."""
        return scipy.sparse.csr_matrix(self.coef_)
