"""The specification of each kernel: its parameters, its result, and its name.

A kernel is generated for a loss, an optimizer and a penalty, if it depends on them. A `KernelSpec`
names these.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

from ooc_train.objective.activations import Activation
from ooc_train.objective.loss import Loss
from ooc_train.optimizers.optimizer import Optimizer

Values = Literal["X", "real", "whole", "bits"]
Returns = Literal["real", "whole"]


class Parameter(NamedTuple):
    """A parameter of a kernel: an array, or a number, which has 0 dimensions."""

    name: str
    values: Values
    dimensions: int = 0
    written: bool = False


class Signature(NamedTuple):
    """Parameters of a kernel, its result type, and the approximate seconds to compile it.

    Kernels with the largest `cost` are compiled first.
    """

    parameters: tuple[Parameter, ...]
    returns: Returns | None
    cost: float


def _signature(text: str, returns: Returns | None, cost: float) -> Signature:
    """Parse "X:X2 y:real1 G:real2! n:whole": arrays with their dimensions, "!" if written to."""
    found = []
    for word in text.split():
        name, _, kind = word.partition(":")
        values = kind.rstrip("!123")
        dimensions = kind[len(values) :].rstrip("!")
        found.append(Parameter(name, values, int(dimensions or 0), kind.endswith("!")))  # type: ignore[arg-type]
    return Signature(tuple(found), returns, cost)


_BY_BATCHES = (
    "X:X2 y:real2 weight:real1 order:whole1 flush:whole theta:real2! slots:real3! "
    "partial:real2! counters:whole1! average:real2! clock:real1! sums:real1! Z:real2! "
    "Y:real2! room:real2! each:real2! group:real2! places:whole1! rates:real1 "
    "batch_size:whole every:whole fit_intercept:whole own:real1"
)

KERNELS: Mapping[str, Signature] = {
    "predictor": _signature("X:X2 W:real2 b:real1 Z:real2!", None, 0.3),
    "add_rows": _signature(
        "X:X2 y:real2 weight:real1 W:real2 b:real1 Z:real2! R:real2! G:real2! sums:real1! "
        "cells:real2! own:real1",
        "real",
        1.5,
    ),
    "add_outer_products": _signature(
        "X:X2 y:real2 c:real1 mean:real1 inv_scale:real1 T:real2! W:real2! sums:real1!",
        None,
        1.0,
    ),
    "scan_groups": _signature(_BY_BATCHES, "whole", 3.0),
    "scan_single": _signature(_BY_BATCHES, "whole", 3.0),
    "scan_unrolled": _signature(
        "X:X2 y:real2 weight:real1 order:whole1 theta:real2! counters:whole1! average:real2! "
        "clock:real1! sums:real1! Z:real2! Y:real2! room:real2! each:real2! group:real2! "
        "rates:real1 batch_size:whole every:whole fit_intercept:whole own:real1",
        "whole",
        4.0,
    ),
    "add_clipped": _signature(
        "X:X2 y:real2 taken:whole1 W:real2 b:real1 Y:real2! Z:real2! R:real2! squares:real1! "
        "cells:real2! G:real2! sums:real1! own:real1 weight:real1 most:real constant:real",
        None,
        1.5,
    ),
    "loss_slopes": _signature(
        "y:real2 weight:real1 own:real1 Z:real2 R:real2! sums:real1! cells:real2!", None, 0.7
    ),
    "network_forward": _signature(
        "X:X2 params:X1 sizes:whole1 masks:X1 inputs:X1! values:X1! left:X1! P:X2! Z:real2! "
        "marks:real1! gemm:bits",
        None,
        0.7,
    ),
    "network_backward": _signature(
        "X:X2 params:X1 sizes:whole1 masks:X1 inputs:X1 values:X1 left:X1 R:real2 slopes:X2! "
        "gradient:X1! gemm:bits",
        None,
        0.7,
    ),
    "network_clipped": _signature(
        "X:X2 params:X1 sizes:whole1 inputs:X1 values:X1 R:real2 slopes:X1! squares:real1! "
        "gradient:X1! most:real frozen:whole gemm:bits",
        None,
        0.8,
    ),
    "network_batch": _signature(
        "rows:X2 targets:real2 weights:real1 order:whole1 X:X2! y:real2! weight:real1! mean:X1 "
        "inverse:X1 divisor:real params:X1 sizes:whole1 masks:X1 inputs:X1! values:X1! left:X1! "
        "P:X2! Z:real2! marks:real1! own:real1 R:real2! sums:real1! cells:real2! slopes:X2! "
        "gradient:X1! gemm:bits",
        None,
        2.0,
    ),
    "network_step": _signature(
        "theta:X1! g:X1! others:X2 slots:X3! average:real1! ends:whole1 scale:real decay:real "
        "eta:real age:real part:real share:real",
        None,
        0.9,
    ),
    "shuffle": _signature("seed:bits order:whole1!", None, 0.2),
}
"""Parameters of each kernel, in order. The hyperparameters of the loss, and then those of the
optimizer, follow as numbers."""


def hyperparameters(kind: type[Any] | None) -> tuple[str, ...]:
    """Return the names of the hyperparameters of a loss or an optimizer."""
    return () if kind is None else tuple(field.name for field in fields(kind))


@dataclass(frozen=True)
class KernelSpec:
    """The name of one kernel, for any type of X.

    Attributes
    ----------
    kernel : str
        A key of `KERNELS`.
    loss, optimizer, activation : class, or None
        The loss, the optimizer and the activation, if the kernel depends on them.
    l1 : bool
        Whether a proximal step follows each update.
    single : bool
        Whether there is one output.
    clipped : bool
        Whether the gradient of each update has a largest norm.
    """

    kernel: str
    loss: type[Loss] | None = None
    optimizer: type[Optimizer] | None = None
    l1: bool = False
    single: bool = False
    clipped: bool = False
    activation: type[Activation] | None = None

    @property
    def parts(self) -> tuple[type[Any], ...]:
        """The classes that the kernel depends on."""
        found = (self.loss, self.optimizer, self.activation)
        return tuple(kind for kind in found if kind is not None)

    @property
    def signature(self) -> Signature:
        """Parameters and result of the kernel."""
        return KERNELS[self.kernel]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Parameters in order, hyperparameters included."""
        names = *hyperparameters(self.loss), *hyperparameters(self.optimizer)
        return *self.signature.parameters, *(Parameter(name, "real") for name in names)

    def __str__(self) -> str:
        about = [kind.name for kind in self.parts]
        about += ["l1"] * self.l1 + ["one output"] * self.single + ["clipped"] * self.clipped
        return f"{self.kernel}({', '.join(about)})" if about else self.kernel
