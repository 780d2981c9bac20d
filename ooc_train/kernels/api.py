"""Compiled loops over rows, as functions of arrays.

`add_rows` is a full-batch pass over one chunk, `add_outer_products` what a Hessian is made of,
`Scan` carries parameters through rows by updates at any batch size, and `shuffle` makes the order
in which it takes them. Their sources are in `compiled`, and `machine_code` says how they got here.

X is (rows, features) float32 or float64; other numbers are float64 or int64. All arrays are
C-contiguous, those that are only read may be read-only: what doesn't fit is a TypeError. Indices
and shapes are not checked against each other. No result's bits depend on where an array lies in
memory. The interpreter's lock is released.

Whoever needs them calls `load` before memory is measured: else the first call does.
"""

import ctypes
import struct
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.forks import after_fork
from ooc_train.core.sums import Array, Arrays, ArraySpec, Workspace
from ooc_train.kernels.machine_code import KERNELS, Parameter, link

__all__ = [
    "AGE",
    "AVERAGED",
    "GROUP",
    "ROOM_ROWS",
    "ROOM_ROWS_OF_OUTPUT",
    "WEIGHT",
    "Scan",
    "add_outer_products",
    "add_rows",
    "load",
    "predictor",
    "scan_workspace",
    "shuffle",
]

Rows = NDArray[np.float32] | NDArray[np.float64]
Integers = NDArray[np.int64]

GROUP = 32
"""Rows of a batch that `Scan` takes at a time: slopes of several vectors wait for one another less,
and the rows are still in the nearest cache when the gradient is made of them."""

ROOM_ROWS, ROOM_ROWS_OF_OUTPUT, _ROOM_WIDTH = 11, 3, 8
"""Rows of the room that `Scan` works in, beside those of each output; and of how many numbers they
are a multiple, since loops over columns take four vectors of eight at a time."""

AGE, AVERAGED, WEIGHT = 0, 1, 2
"""Entries of a scan's clock: batches that Adam's moments have seen, an incomplete one as the part
of a batch that it is; parameters that were taken into the average; weight of the rows in the
unfinished batch."""

CODES = ("squared", "logistic", "multinomial", "hinge")
_OPTIMIZERS = ("sgd", "adam")
"""What compiled loops know by their positions."""

_READ, _WRITTEN = 0x101, 0x501
"""NumPy's flags of arrays that can be read, and written: C-contiguous, aligned, and writeable."""

_DTYPES = {"real": np.dtype(np.float64), "whole": np.dtype(np.int64)}
_FORMATS = {"real": "d", "whole": "q", "bits": "Q"}
_RETURNS = {"real": ctypes.c_double, "whole": ctypes.c_int64, None: None}


class _Kernel:
    """Machine code as a function of arrays and numbers: in words, where the arrays' objects lie."""

    def __init__(self, name: str, address: int, dtype: np.dtype[Any]) -> None:
        parameters, returns = KERNELS[name]
        self._name = name
        self._arrays = [_array(parameter, dtype) for parameter in parameters]
        self._formats = "".join(
            _FORMATS[parameter.values] if array is None else "P"
            for parameter, array in zip(parameters, self._arrays, strict=True)
        )
        self._packing: dict[int, struct.Struct] = {}
        self._call = ctypes.CFUNCTYPE(_RETURNS[returns], ctypes.c_char_p)(address)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(self._packed(arguments, 0))

    def followed_by(self, *arguments: Any) -> Callable[..., Any]:
        """Return the kernel as a function of its first arguments: the others are checked once."""
        first = len(self._arrays) - len(arguments)
        rest = self._packed(arguments, first)

        def call(*leading: Any, _kept: tuple[Any, ...] = arguments) -> Any:
            return self._call(self._packed(leading, 0) + rest)

        return call

    def _packed(self, arguments: tuple[Any, ...], first: int) -> bytes:
        """Return arguments from the first on as words, as which they were checked."""
        words = []
        for at, argument in enumerate(arguments, first):
            array = self._arrays[at]
            if array is None:
                words.append(argument)
                continue
            dtype, dimensions, flags = array
            if (
                (argument.dtype is not dtype and argument.dtype != dtype)
                or argument.ndim != dimensions
                or argument.flags.num & flags != flags
            ):
                raise TypeError(self._refusal(argument, at, array))
            words.append(id(argument))
        packing = self._packing.get(first)
        if packing is None:
            formats = self._formats[first : first + len(arguments)]
            packing = self._packing[first] = struct.Struct("@" + formats)
        return packing.pack(*words)

    def _refusal(self, given: NDArray[Any], at: int, due: tuple[np.dtype[Any], int, int]) -> str:
        dtype, dimensions, flags = due
        return (
            f"{self._name}: argument {at + 1} is {given.dtype} of {given.ndim} dimensions"
            f"{'' if given.flags.c_contiguous else ', not C-contiguous'}"
            f"{'' if given.flags.writeable else ', read-only'}; it takes {dtype} of {dimensions}, "
            f"C-contiguous{', which it writes to' if flags == _WRITTEN else ''}"
        )


def _array(parameter: Parameter, dtype: np.dtype[Any]) -> tuple[np.dtype[Any], int, int] | None:
    """Return type, dimensions, and the flags that an array must have, or None for a number."""
    if parameter.dimensions == 0:
        return None
    flags = _WRITTEN if parameter.written else _READ
    return _DTYPES.get(parameter.values, dtype), parameter.dimensions, flags


_lock = threading.Lock()
_loaded: dict[np.dtype[Any], dict[str, _Kernel]] = {}
_linked: list[object] = []


@after_fork
def _unlock() -> None:
    """Have a forked process not wait for a thread that was loading: what is loaded stays so."""
    global _lock
    _lock = threading.Lock()


def load(dtype: np.typing.DTypeLike) -> str:
    """Make the kernels for X of `dtype` ready; compile them, some 15 s, where they never were.

    Returns
    -------
    str
        What compiling them took, in words; nothing where it wasn't done.

    Raises
    ------
    RuntimeError
        where they could not be compiled.
    """
    kind = np.dtype(np.float32 if np.dtype(dtype) == np.float32 else np.float64)
    with _lock:
        if kind in _loaded:
            return ""
        addresses, owner, took = link(kind.name)
        _linked.append(owner)
        _loaded[kind] = {n: _Kernel(n, a, kind) for n, a in addresses.items()}
        return took


def _kernel(name: str, dtype: np.dtype[Any]) -> _Kernel:
    kernels = _loaded.get(dtype)
    if kernels is None:
        load(dtype)
        kernels = _loaded.get(dtype)
        if kernels is None:
            raise TypeError(f"{name} takes X as float32 or float64, not {dtype}")
    return kernels[name]


def predictor(X: Rows, W: Array, b: Array, Z: Array) -> None:
    """Write ``Z[i, k] = sum_j X[i, j] W[k, j] + b[k]``, added up in float64.

    Parameters
    ----------
    X : (rows, features) array
    W : (outputs, features) array
    b : (outputs,) array
    Z : (rows, outputs) array
        The result.
    """
    _kernel("predictor", X.dtype)(X, W, b, Z)


def add_rows(
    X: Rows,
    y: Array,
    weight: Array,
    W: Array,
    b: Array,
    loss: str,
    Z: Array,
    R: Array,
    G: Array,
    sums: Array,
    cells: Array,
) -> float:
    """Add up losses of one or more models, and gradients of the first ones.

    So many rows at a time as `Z` has, which are still in the nearest cache when the gradient is
    made of them.

    Parameters
    ----------
    X : (rows, features) array
    y : (rows, outputs) array
        For the multinomial loss (rows, 1): codes of the classes. One that doesn't exist makes the
        sum a NaN.
    weight : (rows,) array
        Multiplies a row's loss. Of length 0: every row weighs 1.
    W : (models * outputs, features) array
    b : (models * outputs,) array
    loss : str
        Its name.
    Z : (tile, models * outputs) array
        To work in.
    R : (tile, gradients * outputs) array
        To work in.
    G : (gradients * outputs, features + 1) array
        Gradient by the weights and, last, the intercepts; added to in place, in float64 from the
        first row.
    sums : (models,) array
        Losses, added to in place.
    cells : (2, outputs) array
        To work in.

    Returns
    -------
    float
        The losses of all models added up: no number, where one isn't.
    """
    total: float = _kernel("add_rows", X.dtype)(
        X, y, weight, W, b, CODES.index(loss), Z, R, G, sums, cells
    )
    return total


def add_outer_products(
    X: Rows,
    c: Array,
    mean: Array,
    inv_scale: Array,
    T: Array,
    W: Array,
    products: Array,
    sums: Array,
    a: int,
    b: int,
) -> None:
    """Add ``sum_i c[i] * outer(t_i, t_i)``, t the scaled row and a one, to a block of `sums`.

    Parameters
    ----------
    X : (rows, features) array
    c : (rows,) array
    mean, inv_scale : (features,) array
        The scaling: in the data's units, and one over them.
    T, W : (n, width) array
        To work in, n rows at a time, width the multiple of 16 that holds features + 1.
    products : (width, width) array
        To work in.
    sums : (outputs * (features + 1),) * 2 array
        The result, added to in place.
    a, b : int
        Which of the blocks of two outputs; where they differ, the one across the diagonal is
        added to as well.
    """
    _kernel("add_outer_products", X.dtype)(X, c, mean, inv_scale, T, W, products, sums, a, b)


def scan_workspace(rows: int, features: int, outputs: int) -> Workspace:
    """Return the arrays that `Scan` works in, for calls of at most `rows` rows.

    All that updates go through lies side by side, far enough apart and in whole vectors: where
    arrays lie close to one another, or end in the midst of a vector, loops are run without vectors.
    """
    width = -(-features // _ROOM_WIDTH) * _ROOM_WIDTH
    return {
        "pairs": ArraySpec((2, rows, outputs)),
        "room": ArraySpec((ROOM_ROWS + ROOM_ROWS_OF_OUTPUT * outputs, width)),
        "each": ArraySpec((3, outputs)),
        "group": ArraySpec((2 * outputs + 8, GROUP)),
        "places": ArraySpec((GROUP,), "<i8"),
    }


class Scan:
    """Carries parameters through rows: one update each `batch_size` rows, wherever calls are cut.

    Where that is changes no bit, but for SGD by batches of at most four rows, which are taken in
    quads: there a call has to begin at a multiple of four rows (three for batches of three), as all
    do in a pass over chunks.

    With ``t = (X[i] - mean) * inv_scale`` and ``z = theta[:, :-1] @ t + theta[:, -1]``, an update
    follows the mean over the batch of ``weight * gradient(y, z) * (t, 1)`` plus ``l2 * theta``. A
    batch that the rows of a call don't fill stays in `partial` and `counters` for the next call.

    Parameters
    ----------
    dtype : of X
    mean, inv_scale : (features,) array
        The scaling: in the data's units, and one over them.
    l2 : (features,) array
        Penalty ``l2 / 2 * theta ** 2``; the intercepts go free.
    theta : (outputs, features + 1) array
        Parameters of the scaled features, intercepts last. Changed in place, like the next six.
    slots : (2, outputs, features + 1) array
        Adam's first and second moments; of shape (0, outputs, features + 1) for SGD.
    partial : (outputs, features + 1) array
        Sum of the gradients of an unfinished batch, by parameters in the data's units.
    counters : (3,) array of int64
        Rows in `partial`, updates done, rows seen.
    average : (outputs, features + 1) array
        Average of the parameters after each `every` updates, by weights that grow as
        `AVERAGE_POWER` says.
    clock : (3,) array
        As `AGE`, `AVERAGED` and `WEIGHT` say.
    sums : (2,) array
        Progressive loss (of each row before the update that uses it) and weight, summed over rows.
    workspace : arrays
        To work in, as `scan_rooms` describes them, for as many rows as a call has.
    loss : str
        Its name.
    batch_size : int
        Rows per update.
    optimizer : str
        "sgd", or "adam" (by beta1 0.9, beta2 0.999, epsilon 1e-8).
    every : int
        Updates between two entries of the average, a power of two.
    rates : (n,) array, n a power of two
        Learning rates, as `RateTable` holds them: those of a call have to be there.
    fit_intercept : bool
        Whether the intercepts learn.
    flush : bool
        Whether an unfinished batch is applied at the end, in proportion to its rows: the last call
        of a pass.
    """

    def __init__(
        self,
        dtype: np.typing.DTypeLike,
        mean: Array,
        inv_scale: Array,
        l2: Array,
        theta: Array,
        slots: Array,
        partial: Array,
        counters: Integers,
        average: Array,
        clock: Array,
        sums: Array,
        workspace: Arrays,
        loss: str,
        batch_size: int,
        optimizer: str,
        every: int,
        rates: Array,
        fit_intercept: bool,
        flush: bool,
    ) -> None:
        self._scan = _kernel("scan", np.dtype(dtype)).followed_by(
            mean,
            inv_scale,
            l2,
            theta,
            slots,
            partial,
            counters,
            average,
            clock,
            sums,
            *workspace["pairs"],
            workspace["room"],
            workspace["each"],
            workspace["group"],
            workspace["places"],
            CODES.index(loss),
            batch_size,
            _OPTIMIZERS.index(optimizer),
            every,
            rates,
            fit_intercept,
            flush,
        )

    def __call__(self, X: Rows, y: Array, weight: Array, order: Integers) -> int:
        """Learn from rows.

        Parameters
        ----------
        X : (rows, features) array
        y : (rows, outputs) array
            For the multinomial loss (rows, 1): codes of the classes.
        weight : (rows,) array
            Multiplies a row's loss; of mean 1 over the data. Of length 0: every row weighs 1.
        order : (n,) array of int64
            Which rows of `X`, in which order. Not checked against the rows of `X`.

        Returns
        -------
        int
            -1; or the position in `order` of the first row whose predictor or slope isn't finite
            (or whose class isn't one), with everything left as it was before that row.
        """
        stopped: int = self._scan(X, y, weight, order)
        return stopped


def shuffle(seed: int, order: Integers) -> None:
    """Fill `order` with a random permutation of its indices.

    Fisher and Yates' shuffle (Knuth, TAOCP 2, algorithm P) on splitmix64 (Steele, Lea and Flood
    2014). A bounded integer is the product of the bound and 33 random bits, shifted: at 2,048 rows
    no permutation is off by more than a few in ten million.

    Parameters
    ----------
    seed : int, from 0 to 2**64 - 1
    order : (n,) array of int64, n below 2**31
    """
    # Of either type of X: whichever is there.
    dtype = next(iter(_loaded), np.dtype(np.float32))
    _kernel("shuffle", dtype)(seed, order)
