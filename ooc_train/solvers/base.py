"""What all solvers share: a state that is a value, and the way from a request to the next state.

A solver is a frozen value of settings. What it has learned so far is a `State` of arrays and
numbers, which can be kept, sent, and gone on from. A solver reads no rows: `ask` returns a request
for one pass, and `tell` turns the answer into the next state (reverse communication).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.partitions import Rows
from ooc_train.core.requests import Answer, Request, Scan
from ooc_train.core.sums import Array, Reduction
from ooc_train.models.problem import Capability, Evaluation, Problem

_ENOUGH = 1e-4
"""Share of the decrease promised by the gradient that a step has to keep."""

_ROUNDING = 1e-13
"""How far two sums for one objective may lie apart, as a share of it."""

STALLED = "no step lowers the objective by more than rounding"
"""Why a solver that descends can't go on, where it can't."""

Tree = Mapping[str, Any]
"""Arrays of one dimension and more, numbers and text by name; or mappings and tuples of those."""


@dataclass(frozen=True)
class Precision:
    """How well rows determine the coefficients of least squares.

    Attributes
    ----------
    condition : float
        Condition number of the scaled columns, penalty included, along the directions kept.
    rank : int
        Directions kept: the others depend on these.
    digits : float
        Estimated decimal digits of the coefficients, in scaled units together.
    """

    condition: float
    rank: int
    digits: float


@dataclass(frozen=True, eq=False)
class State:
    """How far a solver has come.

    Attributes
    ----------
    params : float64 array of the problem's shape
        The model at this point.
    phase : str
        What the next answer is about. Empty between iterations: only then are the other attributes
        those of a finished iteration.
    n_iter : int
        Steps taken: iterations of a full-batch solver, epochs of updates. The first pass of an
        iterative full-batch solver evaluates the start, and takes no step.
    updates : int
        Changes of the parameters.
    loss : float
        Mean loss of a row, by weight, at `params`; for updates, of a sample of the rows.
    progressive_loss : float or None
        For updates, the mean loss of each row just before its update, over the last epoch.
    gradient_norm : float or None
        Largest entry of the gradient of the mean objective, of the rows of `loss`.
    converged : bool
        Whether the tolerance is met.
    stalled : str
        Why no further step can be taken, where none can; `params` is the best point found.
    rate : float or None
        Learning rate of the last update, or of the first where there was none.
    note : str
        What of the iteration is worth reporting, in words.
    precision : Precision or None
        How well the rows determine the coefficients, where the solver knows.
    memory : mapping
        What the solver needs to go on: arrays, numbers and text, or mappings and tuples of those.
    """

    params: Array
    phase: str = ""
    n_iter: int = 0
    updates: int = 0
    loss: float = float("nan")
    progressive_loss: float | None = None
    gradient_norm: float | None = None
    converged: bool = False
    stalled: str = ""
    rate: float | None = None
    note: str = ""
    precision: Precision | None = None
    memory: Tree = field(default_factory=dict, repr=False)


@dataclass(frozen=True, eq=False)
class Holdings:
    """What a solver needs memory for, for the plan.

    Attributes
    ----------
    reductions : tuple of Reduction
        The largest of each kind that requests add up.
    sets : int
        Sets of parameters that the driver holds.
    algebra : int
        Bytes of matrices that the driver makes of sums.
    scan : Scan or None
        What epochs do with rows, where there are epochs.
    carried : int
        Sets of parameters that a replica carries through the rows.
    replicas, shuffle_chunks : int
        Of epochs.
    """

    reductions: tuple[Reduction, ...]
    sets: int
    algebra: int = 0
    scan: Scan | None = None
    carried: int = 0
    replicas: int = 1
    shuffle_chunks: int = 0


class Solver(Protocol):
    """How a problem is solved."""

    requires: ClassVar[frozenset[Capability]]

    @property
    def name(self) -> str:
        """Key in `SOLVERS`."""
        ...

    def init(self, problem: Any, rows: Rows, params: Array) -> State:
        """Return the state to begin with, given parameters to begin from."""
        ...

    def ask(self, problem: Any, rows: Rows, state: State) -> Request:
        """Return the request for the next pass."""
        ...

    def tell(self, problem: Any, rows: Rows, state: State, answer: Any) -> State:
        """Return the state after the pass that `ask` asked for.

        Raises
        ------
        Diverged
            Where the objective stopped being a number.
        """
        ...

    def holds(self, problem: Any, rows: Rows) -> Holdings:
        """Return what requests and states take, for the plan."""
        ...


class Stream(Protocol):
    """What answers requests, as `ooc_train.stream.passes.Stream` does."""

    @property
    def source(self) -> Rows:
        """The rows."""
        ...

    def run(self, request: Request) -> Answer:
        """Return the answer to a request."""
        ...


def start(solver: Solver, problem: Problem, stream: Stream, params: Array) -> State:
    """Return the state before the first iteration, after the passes that this takes."""
    state = solver.init(problem, stream.source, params)
    return advance(solver, problem, stream, state) if state.phase else state


def advance(solver: Solver, problem: Problem, stream: Stream, state: State) -> State:
    """Return the state after one more iteration, or epoch."""
    rows = stream.source
    while True:
        answer = stream.run(solver.ask(problem, rows, state))
        state = solver.tell(problem, rows, state, answer)
        if not state.phase:
            return state


def to_arrays(state: State) -> dict[str, NDArray[Any]]:
    """Return a state as named arrays, which an .npz or a Zarr group can hold."""
    values = {name: getattr(state, name) for name in state.__dataclass_fields__}
    if state.precision is not None:
        values["precision"] = vars(state.precision)
    return _flat({name: value for name, value in values.items() if value is not None})


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> State:
    """Return the state that `to_arrays` wrote."""
    values = _nested(arrays)
    if "precision" in values:
        values["precision"] = Precision(**values["precision"])
    return State(**values)


def _flat(tree: Tree, prefix: str = "") -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for name, value in tree.items():
        if isinstance(value, tuple | list):
            arrays |= _flat({f"{i}": each for i, each in enumerate(value)}, f"{prefix}{name}/")
        elif isinstance(value, Mapping):
            arrays |= _flat(value, f"{prefix}{name}/")
        elif isinstance(value, np.ndarray) and value.ndim == 0:
            raise TypeError(f"{prefix}{name} is an array without a dimension; use a number")
        else:
            arrays[prefix + name] = np.asarray(value)
    return arrays


def _nested(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return the tree of the arrays' names: numbers and text as such, tuples by their indices."""
    tree: dict[str, Any] = {}
    inner: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in arrays.items():
        first, _, rest = name.partition("/")
        if rest:
            inner.setdefault(first, {})[rest] = array
        else:
            tree[first] = array if array.ndim else array.item()
    for name, members in inner.items():
        found = _nested(members)
        indexed = all(key.isdecimal() for key in found)
        tree[name] = tuple(found[f"{i}"] for i in range(len(found))) if indexed else found
    return tree


def lowers(
    objective: float, slope: float, now: Evaluation, direction: Array, length: float
) -> bool:
    """Return whether a step lowered the objective enough (Armijo's rule).

    Where the change is no more than rounding, the slope at the new point decides instead. It must
    be no steeper upwards than the slope at the old point was downwards (the approximate Wolfe
    conditions of Hager and Zhang 2005).

    Parameters
    ----------
    objective, slope : float
        Before the step; the slope by the step's length.
    now : Evaluation
        After the step.
    direction, length : float64 array, float
        Of the step.
    """
    if slope >= 0.0:
        return False
    if now.objective <= objective + _ENOUGH * length * slope:
        return True
    near = now.objective <= objective + _ROUNDING * abs(objective)
    return near and float((now.gradient * direction).sum()) <= (2 * _ENOUGH - 1) * slope
