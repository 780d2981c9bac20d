"""Sums of clipped gradients of the rows of linear models, by compiled loops."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array, Arrays, ArraySpec, Block, Workspace
from ooc_train.core.thread_team import ThreadTeam
from ooc_train.kernels.clipping import add_clipped, add_clipped_needs
from ooc_train.kernels.specs import KernelSpec
from ooc_train.objective.loss import Loss

_TILE = 32
"""Rows that are still in the nearest cache when their gradients are added."""


@dataclass(frozen=True, eq=False)
class LinearClipping:
    """Sums of the gradients of rows of a linear model, each scaled down to a norm.

    Attributes
    ----------
    loss : Loss
        The loss of a row.
    n_outputs, n_features : int
        Predictors and columns of a row.
    fit_intercept : bool
        Whether there are intercepts, which count in the norm.
    factor : float
        What columns are multiplied by. Parameters are those of the products, and so are norms.
    max_norm : float
        The largest norm of the gradient of a row, by all parameters.
    """

    loss: Loss
    n_outputs: int
    n_features: int
    fit_intercept: bool
    factor: float
    max_norm: float

    @property
    def needs(self) -> tuple[KernelSpec, ...]:
        """Kernels that every process loads before memory is measured."""
        return add_clipped_needs(self.loss)

    def workspace(self) -> Workspace:
        """Return the scratch arrays of `add`."""
        outputs = self.n_outputs
        return {
            "weights": ArraySpec((outputs, self.n_features)),
            "sum": ArraySpec((outputs, self.n_features + 1)),
            "tile": ArraySpec((3, _TILE, outputs)),
            "squares": ArraySpec((_TILE,)),
            "cells": ArraySpec((2, outputs)),
        }

    def add(
        self,
        params: Array,
        block: Block,
        taken: NDArray[np.int64],
        workspace: Arrays,
        team: ThreadTeam,
        out: Array,
    ) -> None:
        """Add the clipped gradients of the rows `taken` of a block to `out`, of its shape.

        One thread computes: a row costs less than to hand it over.
        """
        del team
        if block.y is None:
            raise ValueError("a loss needs y, and these data have none")
        weights, (due, Z, R), found = workspace["weights"], workspace["tile"], workspace["sum"]
        np.multiply(params[:, :-1], self.factor, out=weights)
        found[...] = 0.0
        # The norm of a row times the factor, and of a 1, is the factor times that of the row and of
        # one divided by it.
        add_clipped(
            block.X,
            block.y,
            taken,
            weights,
            params[:, -1].copy(),
            self.loss,
            due.reshape(-1)[: _TILE * block.y.shape[1]].reshape(_TILE, -1),
            Z,
            R,
            workspace["squares"],
            workspace["cells"],
            found,
            most=self.max_norm / self.factor,
            constant=float(self.fit_intercept) / self.factor**2,
        )
        found[:, :-1] *= self.factor
        out += found
