"""L-BFGS that begins with the curvature of each output, for columns that depend on one another.

L-BFGS learns the curvature from changes of the gradient, about one direction a pass, and begins
with a multiple of the identity. Correlated columns, as the pixels of images, vary in curvature by
many orders along hundreds of directions. Here each step begins with the inverse of the Hessian's
diagonal blocks, one an output, and the pairs of L-BFGS correct that (Nocedal and Wright 2006,
section 7.2, on the initial matrix).

The blocks need no loss whose outputs are independent: for a softmax they leave out what couples
its classes, but for the one direction that is known. They are added up over a sample, so that
their cost does not grow with the rows, and anew after 5, 10, 20, 40 ... iterations, as the
curvature of the loss changes on the way. Pairs of before are then dropped: on Fashion-MNIST they
doubled the distance to the optimum after 20 passes.

The first sample is small, as all rows count alike at the start. Later a model is sure of most rows,
which then have next to no curvature: the sample is larger, and few of its rows are added up. On
Fashion-MNIST the larger sample takes 33 iterations in place of 54.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ooc_train.core.partitions import Rows, rows_of, sample_partitions
from ooc_train.core.requests import Reduce
from ooc_train.core.sums import Array, Sums
from ooc_train.core.text import counted
from ooc_train.models.linear import LinearProblem
from ooc_train.models.problem import Capability, Evaluation, Problem
from ooc_train.solvers.base import Holdings, State, Tree
from ooc_train.solvers.lbfgs import LBFGS, LENGTHS, Pair, two_loops

_ROWS_PER_COLUMN, _LATER_ROWS_PER_COLUMN = 25, 100
"""Rows of the sample for each column of a block: at the start, and later."""

_MOST_NUMBERS, _MOST_WORK = 2**23, 2**37
"""Limits of what "auto" chooses: numbers of all blocks, 64 MiB, and multiplications of adding them
up, some seconds. Then fewer passes cost less than the blocks do."""

_FIRST_AGAIN = 5
"""Iteration after which the blocks are first added up again; then after twice as many each time."""

_DAMPING = 1e-6
"""Least curvature of a block, as a share of the average of the block that has the most."""

_CURVATURE = "curvature of each output"
"""Phase in which the next answer has the blocks."""


@dataclass(frozen=True)
class BlockLBFGS(LBFGS):
    """L-BFGS whose steps begin with the inverse of each output's Hessian.

    Attributes
    ----------
    tol : float
        Largest entry of the gradient of the mean objective, by scaled parameters, to stop at.
    history : int
        Number of pairs kept.
    """

    history: int = 40

    name: ClassVar[str] = "block-lbfgs"
    requires: ClassVar[frozenset[Capability]] = frozenset({"gradient", "blocks", "smooth"})

    def holds(self, problem: Any, rows: Rows) -> Holdings:
        """Return the memory that requests and states need, for the plan."""
        holdings = super().holds(problem, rows)
        outputs, columns, _ = problem.output_hessians_shape
        zeros = np.broadcast_to(0.0, problem.shape)
        # The blocks, whose inverses take their place; and an inverse with the copies it takes.
        return replace(
            holdings,
            reductions=(*holdings.reductions, _blocks(problem, zeros)),
            algebra=8 * columns**2 * (outputs + 4),
        )

    def ask(self, problem: Any, rows: Rows, state: State) -> Reduce:
        """Return the request for loss and gradient at the next points, or for the blocks."""
        if state.phase == _CURVATURE:
            return Reduce(_blocks(problem, state.params), _sample(problem, rows, state))
        return super().ask(problem, rows, state)

    def tell(self, problem: Any, rows: Rows, state: State, answer: Sums) -> State:
        """Return the next state, given the answer of a pass."""
        if state.phase == _CURVATURE:
            return self._with_blocks(problem, rows, state, answer)
        after = super().tell(problem, rows, state, answer)
        moved = not state.memory or after.n_iter > state.n_iter
        if moved and not after.converged and _is_due(after.n_iter):
            return replace(after, phase=_CURVATURE)
        if "inverse" in state.memory:
            after = replace(after, memory={**after.memory, "inverse": state.memory["inverse"]})
        return after

    def _with_blocks(self, problem: LinearProblem, rows: Rows, state: State, answer: Sums) -> State:
        """Return the state whose next step begins with the blocks of Hessian in an answer."""
        if float(answer["weight"]) == 0.0:
            return replace(state, phase="", note="the rows of the sample weigh nothing")
        inverse, gradient = _inverse(problem.output_hessians(answer)), state.memory["gradient"]
        direction = -_times(problem, inverse, gradient)
        sample, note = rows_of(rows, _sample(problem, rows, state)), ""
        if state.n_iter == 0 and sample < rows.n_rows:
            note = f"curvature is that of a sample of {counted(sample, 'row')}"
        memory = {
            **state.memory,
            "inverse": inverse,
            "direction": direction,
            "slope": float((gradient * direction).sum()),
            "lengths": LENGTHS,
            "pairs": (),
        }
        return replace(state, phase="", memory=memory, note=note)

    def _step(
        self, problem: Any, now: Evaluation, pairs: tuple[Pair, ...], memory: Tree
    ) -> tuple[Array, float]:
        """Return the full step, and the change of the l1 penalty over it: 0, as there is none."""
        if "inverse" not in memory:
            return super()._step(problem, now, pairs, memory)
        inverse, scale = memory["inverse"], 1.0
        if pairs:
            step, change = pairs[-1]
            scale = (step * change).sum() / (change * _times(problem, inverse, change)).sum()

        def initial(direction: Array) -> Array:
            return scale * _times(problem, inverse, direction)

        return two_loops(now.gradient, pairs, initial), 0.0


def has_small_blocks(problem: Problem) -> bool:
    """Return whether the blocks are so small that the passes they save pay for them."""
    if "blocks" not in problem.can:
        return False
    outputs, columns = problem.shape
    rows = min(problem.n_rows, _ROWS_PER_COLUMN * columns)
    numbers = outputs * columns**2
    return numbers <= _MOST_NUMBERS and rows * numbers <= _MOST_WORK


def _is_due(n_iter: int) -> bool:
    """Return whether blocks are added up anew after `n_iter` iterations."""
    times, rest = divmod(n_iter, _FIRST_AGAIN)
    return rest == 0 and times & (times - 1) == 0


def _blocks(problem: LinearProblem, params: Array) -> Any:
    """Return the reduction that adds up the Hessian blocks at `params`."""
    return problem.reduction(params[None], gradients=0, hessian=True, by_output=True)


def _sample(problem: LinearProblem, rows: Rows, state: State) -> tuple[int, ...]:
    """Return the partitions of the sample over which blocks are added up."""
    each = _LATER_ROWS_PER_COLUMN if state.n_iter else _ROWS_PER_COLUMN
    return sample_partitions(rows, each * problem.shape[1])


def _times(problem: LinearProblem, inverse: Array, params: Array) -> Array:
    """Return the product of the initial matrix and parameters, (outputs, columns).

    A vector that is added to all classes changes no prediction of a softmax. Blocks do not show
    that, so it is taken out: along such vectors the Hessian is the penalty's alone.
    """
    if not problem.loss.shift_invariant:
        return _by_output(inverse, params)
    l2, shift = problem.theta_penalty.l2, params.mean(axis=0)
    product = _by_output(inverse, params - shift)
    product -= product.mean(axis=0)
    product += np.divide(shift, l2, out=np.zeros_like(l2), where=l2 > 0.0)
    return product


def _by_output(blocks: Array, params: Array) -> Array:
    """Multiply each output's block by its parameters, (outputs, columns)."""
    return np.stack([block @ each for block, each in zip(blocks, params, strict=True)])


def _inverse(blocks: Array) -> Array:
    """Replace the blocks by the inverses of damped blocks, in place, and return them.

    Damping keeps steps finite along directions without curvature. It does not move the optimum.
    """
    diagonal = np.arange(blocks.shape[1])
    most = float(blocks[:, diagonal, diagonal].mean(axis=1).max())
    for block in blocks:
        block[diagonal, diagonal] += _DAMPING * most
        block[...] = np.linalg.inv(block)
        block += block.T.copy()
        block /= 2.0
    return blocks
