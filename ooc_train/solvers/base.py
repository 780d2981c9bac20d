"""The protocol of solvers, their states, and the way from a request to the next state.

A solver is a frozen value of settings. Its `State` of arrays and numbers can be saved, sent and
resumed. A solver reads no rows: `ask` returns a request for one pass, and `tell` turns the answer
into the next state (reverse communication).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.partitions import Rows
from ooc_train.core.requests import Answer, Request, Scan
from ooc_train.core.sums import Array, Reduction
from ooc_train.models.problem import Capability, Evaluation, Problem

_ARMIJO = 1e-4
"""Least decrease of the objective, as a share of the decrease that the gradient predicts."""

_ROUNDING = 1e-13
"""Rounding error of the objective, as a share of it."""

STALLED = "no step lowers the objective by more than rounding"
"""Cause that a solver gives when it stalls."""

Tree = Mapping[str, Any]
"""Arrays of at least one dimension, numbers, text, and mappings and tuples of them, by name."""


@dataclass(frozen=True)
class Precision:
    """How precisely the rows determine the coefficients of least squares.

    Attributes
    ----------
    condition : float
        Condition number of the scaled columns, penalty included, along the directions kept.
    rank : int
        Number of directions kept; the others depend on them.
    digits : float
        Estimated decimal digits of the coefficients, in scaled units together.
    """

    condition: float
    rank: int
    digits: float


@dataclass(frozen=True, eq=False)
class State:
    """The state of a solver.

    Attributes
    ----------
    params : float64 array of the problem's shape
        The current parameters.
    phase : str
        The kind of the next answer. Empty between iterations: the other attributes then describe a
        finished iteration.
    n_iter : int
        Steps taken: iterations of a full-batch solver, epochs of updates. The first pass of an
        iterative full-batch solver evaluates the start, and takes no step.
    updates : int
        Number of updates of the parameters so far.
    loss : float
        Mean loss of a row, by weight, at `params`; for updates, of a sample of the rows.
    progressive_loss : float or None
        For updates, the mean loss of each row just before its update, over the last epoch.
    gradient_norm : float or None
        Largest entry of the gradient of the mean objective, of the rows of `loss`. With an l1
        penalty, of the subgradient of least size.
    converged : bool
        Whether the tolerance is reached.
    stalled : str
        Why no step lowers the objective; `params` is then the best point. Empty otherwise.
    rate : float or None
        Learning rate of the last update; before any update, the one that the schedule scales.
    batch_size : int or None
        Rows per update of the iteration, by a batch-size schedule; None without one.
    note : str
        A message about the iteration, or nothing.
    precision : Precision or None
        How well the rows determine the coefficients; None if the solver does not compute it.
    dual_gap : float64 array (outputs,) or None
        Duality gap of the mean objective, by output or of all outputs together, (1,); None if the
        solver does not compute it.
    memory : mapping
        The solver's own values: arrays, numbers and text, or mappings and tuples of them.
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
    batch_size: int | None = None
    note: str = ""
    precision: Precision | None = None
    dual_gap: Array | None = None
    memory: Tree = field(default_factory=dict, repr=False)


@dataclass(frozen=True, eq=False)
class Holdings:
    """The memory that a solver needs, for the plan.

    Attributes
    ----------
    reductions : tuple of Reduction
        The largest reduction of each kind that the solver requests.
    sets : int
        Number of arrays of the parameters' shape that the driver holds.
    algebra : int
        Bytes of the matrices that the driver computes from sums.
    scan : Scan or None
        The updates of an epoch; None without epochs.
    carried : int
        Number of such arrays in the state that a replica carries through the rows.
    replicas, shuffle_chunks : int
        Number of replicas of an epoch, and of chunks whose rows are shuffled together.
    """

    reductions: tuple[Reduction, ...]
    sets: int
    algebra: int = 0
    scan: Scan | None = None
    carried: int = 0
    replicas: int = 1
    shuffle_chunks: int = 0


class Solver(Protocol):
    """A method that solves a problem by requests for passes over the rows."""

    @property
    def requires(self) -> frozenset[Capability]:
        """Capabilities that a problem must have."""
        ...

    @property
    def name(self) -> str:
        """A name in `EXACT` or `OPTIMIZERS`, or several names."""
        ...

    def init(self, problem: Any, rows: Rows, params: Array) -> State:
        """Return the initial state, at the parameters `params`."""
        ...

    def ask(self, problem: Any, rows: Rows, state: State) -> Request:
        """Return the request for the next pass."""
        ...

    def tell(self, problem: Any, rows: Rows, state: State, answer: Any) -> State:
        """Return the next state, given the answer to the request of `ask`.

        Raises
        ------
        Diverged
            If the objective is not finite.
        """
        ...

    def holds(self, problem: Any, rows: Rows) -> Holdings:
        """Return the memory that requests and states need, for the plan."""
        ...


class Stream(Protocol):
    """An object that runs requests, such as `ooc_train.stream.passes.Stream`."""

    @property
    def source(self) -> Rows:
        """The size and layout of the rows."""
        ...

    def run(self, request: Request) -> Answer:
        """Return the answer to a request."""
        ...


def start(solver: Solver, problem: Problem, stream: Stream, params: Array) -> State:
    """Return the state before the first iteration, after any passes that this state needs."""
    state = solver.init(problem, stream.source, params)
    return advance(solver, problem, stream, state) if state.phase else state


def advance(
    solver: Solver,
    problem: Problem,
    stream: Stream,
    state: State,
    asking: Callable[[State], None] = lambda _: None,
) -> State:
    """Return the state after one more iteration, or epoch.

    `asking` is called with each state that asks for a pass, before the pass.
    """
    rows = stream.source
    while True:
        asking(state)
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
    """Rebuild nested mappings from names such as "a/0": indices make tuples, 0-d arrays scalars."""
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
    objective: float,
    slope: float,
    now: Evaluation,
    direction: Array,
    length: float,
    l1_change: float = 0.0,
) -> bool:
    """Return whether a step lowered the objective enough (Armijo's rule).

    If the change is within rounding, the slope at the new point decides: it may rise at most as
    steeply as the old slope fell (the approximate Wolfe conditions of Hager and Zhang 2005).

    An l1 penalty has no derivative; its change over the full step takes the place of one, in the
    slopes at both ends (Tseng and Yun 2009).

    Parameters
    ----------
    objective, slope : float
        Objective before the step, and its derivative by the step's length.
    now : Evaluation
        The evaluation after the step.
    direction, length : float64 array, float
        Direction and length of the step.
    l1_change : float
        Change of the l1 penalty over a step of length 1, which `slope` includes.
    """
    if slope >= 0.0:
        return False
    if now.objective <= objective + _ARMIJO * length * slope:
        return True
    near = now.objective <= objective + _ROUNDING * abs(objective)
    slope_now = float((now.gradient * direction).sum()) + l1_change
    return near and slope_now <= (2 * _ARMIJO - 1) * slope
