"""Proximal L-BFGS, for an l1 penalty on more parameters than a Hessian can have.

The quadratic model of L-BFGS plus the l1 penalty is minimised, instead of the model alone
(Scheinberg and Tang 2016; Lee, Sun and Saunders 2014). `low_rank_model.py` has the model and its
minimum. The step is a direction to search along: an iteration is a pass, as of L-BFGS, whose
pairs and step control it shares. Weights of zero are exact zeros.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ooc_train.core.partitions import Rows
from ooc_train.core.sums import Array
from ooc_train.models.problem import Capability, Evaluation
from ooc_train.objective.penalty import soft_threshold
from ooc_train.solvers.base import Holdings, Tree
from ooc_train.solvers.lbfgs import LBFGS, Pair, first_length
from ooc_train.solvers.low_rank_model import LowRankModel


@dataclass(frozen=True)
class ProximalLBFGS(LBFGS):
    """L-BFGS for a smooth loss with an l1 penalty, as a solver.

    Attributes
    ----------
    tol : float
        Largest entry of the least subgradient of the mean objective, by scaled parameters, to stop
        at.
    history : int
        Number of pairs kept.
    """

    name: ClassVar[str] = "proximal-lbfgs"
    requires: ClassVar[frozenset[Capability]] = frozenset({"gradient", "prox", "moments"})

    def holds(self, problem: Any, rows: Rows) -> Holdings:
        """Return the memory that requests and states need, for the plan."""
        holdings = super().holds(problem, rows)
        # The model has two arrays for each pair, and its minimum takes fewer than twelve more.
        return replace(holdings, sets=holdings.sets + 2 * self.history + 12)

    def _step(
        self, problem: Any, now: Evaluation, pairs: tuple[Pair, ...], memory: Tree
    ) -> tuple[Array, float]:
        """Return the step to the minimum of the model, and how the l1 penalty changes over it."""
        penalty = problem.theta_penalty
        if penalty.smooth:
            return super()._step(problem, now, pairs, memory)
        if pairs:
            l1 = np.broadcast_to(penalty.l1, problem.shape).ravel()
            model = LowRankModel.of(pairs)
            best = model.minimum(now.params.ravel(), now.gradient.ravel(), l1)
            direction = best.reshape(problem.shape) - now.params
        else:
            length = first_length(problem, now.gradient)
            moved = now.params - length * now.gradient
            direction = soft_threshold(moved, length * penalty.l1) - now.params
        return direction, penalty.l1_change(now.params, direction)
