"""A module of PyTorch whose parameters are one vector, and the losses of rows by the module."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from ooc_train.augmentation.augmenter import halves
from ooc_train.core.forks import after_fork
from ooc_train.core.sums import Array
from ooc_train.core.text import counted
from ooc_train.models.pytorch.torch_parts import criterion_of, module_of, row_scaling
from ooc_train.models.pytorch.torch_settings import NetworkSpec, name_of

_ALIGNED = 64
"""Bytes at multiples of which PyTorch allocates tensors."""

_PIECE_ROWS, _PIECE_BYTES = 1024, 2**25
"""Most rows that go through a module at a time where all rows of a batch need not, and most bytes
that they make. Where rows are cut changes the last bits of a sum, and so no plan decides."""

_KEPT = 2
"""Networks that a thread keeps: that of a fit, and that of a predictor."""


def piece_rows(row_bytes: int) -> int:
    """Return how many rows go through a module at a time, if each takes `row_bytes` bytes."""
    return max(16, min(_PIECE_ROWS, _PIECE_BYTES // max(1, row_bytes)))


def device_of(name: str) -> torch.device:
    """Return a device by its name; "auto" is the accelerator if there is one, else the CPU.

    Raises
    ------
    ValueError
        If PyTorch has no such device here.
    """
    if name == "auto":
        if not torch.accelerator.is_available():
            return torch.device("cpu")
        name = str(torch.accelerator.current_accelerator())
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).partition("\n")[0]
        raise ValueError(f"device={name!r} can't be used here: {first}") from None
    return device


def _has_modes(layer: torch.nn.Module) -> bool:
    """Return whether a layer drops values, or normalises by the rows of a batch."""
    if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):  # noqa: SLF001
        return True
    # Recurrent layers and attention have a share of their own.
    is_dropout = isinstance(layer, torch.nn.modules.dropout._DropoutNd)  # noqa: SLF001
    share = layer.p if is_dropout else getattr(layer, "dropout", 0.0)
    return isinstance(share, float | int) and share > 0


class Network:
    """A module whose parameters are views of one vector.

    The vector of a problem has the parameters, followed by the values of buffers, such as the
    running means of batch normalisation.

    Parameters
    ----------
    spec : NetworkSpec
        The module and its criterion.
    seed : int
        Seed of the module's initial parameters. The caller's random numbers go on as before.
    """

    def __init__(self, spec: NetworkSpec, seed: int = 0) -> None:
        self.spec, self.device = spec, device_of(spec.model.device)
        with drawing(seed):
            self.module = module_of(spec.model).to(self.device)
            self.criterion = criterion_of(spec.model)
        if isinstance(self.criterion, torch.nn.Module):
            self.criterion.to(self.device)
        self.params = list(self.module.parameters())
        self.learned = [param for param in self.params if param.requires_grad]
        self.buffers = list(self.module.buffers())
        self.dtype = self.params[0].dtype
        self.n_params = sum(param.numel() for param in self.params)
        self.size = self.n_params + sum(buffer.numel() for buffer in self.buffers)
        self._flat = torch.cat([param.detach().reshape(-1) for param in self.params])
        start = 0
        for param in self.params:
            param.data = self._flat[start : start + param.numel()].view_as(param)
            start += param.numel()

        self._scaled = row_scaling(spec, self.dtype, self.device)

    @property
    def has_modes(self) -> bool:
        """Whether the module has layers that compute otherwise in training than in evaluation."""
        return any(_has_modes(each) for each in self.module.modules())

    def load(self, vector: Array) -> None:
        """Set parameters and buffers to the values of a vector, (size,), and drop all gradients."""
        self.module.zero_grad(set_to_none=True)
        kind = torch.empty(0, dtype=self.dtype).numpy().dtype
        self._flat.copy_(torch.from_numpy(vector[: self.n_params].astype(kind)))
        start = self.n_params
        for buffer in self.buffers:
            values = vector[start : start + buffer.numel()].reshape(tuple(buffer.shape))
            buffer.copy_(torch.from_numpy(np.array(values)))
            start += buffer.numel()

    def store(self, vector: Array) -> None:
        """Write the values of parameters and buffers to a vector, (size,)."""
        vector[: self.n_params] = self._flat.cpu().numpy()
        start = self.n_params
        for buffer in self.buffers:
            vector[start : start + buffer.numel()] = buffer.detach().cpu().reshape(-1).numpy()
            start += buffer.numel()

    def load_tensors(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Set the module's tensors to the arrays of a `state_dict`, by name."""
        found = self.module.state_dict()
        for name, value in found.items():
            value.copy_(torch.from_numpy(tensors[name]))

    def require_tensors(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Raise `ValueError` unless arrays have the names and shapes of the module's tensors."""
        due = {name: tuple(value.shape) for name, value in self.module.state_dict().items()}
        found = {name: array.shape for name, array in tensors.items()}
        if due == found:
            return
        name = next(name for name in {**due, **found} if due.get(name) != found.get(name))
        raise ValueError(
            f"the module {name_of(self.spec.model.module)} has {name!r} of the shape "
            f"{due.get(name, 'of none')}, and the saved one {found.get(name, 'of none')}; give the "
            "module that was trained, with its parameters"
        )

    def gradient(self, vector: Array) -> None:
        """Add the last backward pass's gradient to a vector, (size,), and reset the gradient."""
        start = 0
        for param in self.params:
            if param.grad is not None:
                vector[start : start + param.numel()] += param.grad.cpu().reshape(-1).numpy()
                param.grad = None
            start += param.numel()

    def set_gradient(self, vector: Array) -> None:
        """Set the gradient that an optimizer uses to the values of a vector, (size,)."""
        start = 0
        for param in self.params:
            if param.requires_grad:
                values = torch.from_numpy(vector[start : start + param.numel()])
                param.grad = values.to(self.device, self.dtype).view_as(param)
            start += param.numel()

    def inputs(self, X: NDArray[Any]) -> torch.Tensor:
        """Return scaled rows as a tensor for the module, aligned as PyTorch aligns its own.

        The last bits of a product may depend on where its factors lie. Rows of the module's type
        that are aligned already are not copied.
        """
        rows = torch.from_numpy(np.ascontiguousarray(X)).to(self.device, self.dtype)
        rows = self._scaled(rows)
        if rows.data_ptr() % _ALIGNED:
            rows = rows.clone()
        return rows.view(len(X), *self.spec.row_shape)

    def outputs(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the module's outputs for rows.

        Raises
        ------
        ValueError
            If the module returns another shape than that of the targets.
        """
        out = self.module(rows)
        spec, n = self.spec, len(rows)
        shapes: list[tuple[int, ...]] = [(n, spec.n_outputs)]
        shapes += [(n,)] if spec.n_outputs == 1 else []
        shapes += [(n, 2)] if spec.n_classes == 2 else []
        if not isinstance(out, torch.Tensor) or tuple(out.shape) not in shapes:
            found = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
            what = (
                counted(spec.n_classes, "class")
                if spec.n_classes
                else f"{counted(spec.n_outputs, 'column')} of y"
            )
            due = " or ".join(str(shape) for shape in shapes)
            raise ValueError(
                f"the module returns {found} for rows {tuple(rows.shape)} and {what}; it has to "
                f"return {due}"
            )
        return out

    def losses(self, out: torch.Tensor, y: Array) -> torch.Tensor:
        """Return the loss of each row, (rows,), or their mean, ().

        Raises
        ------
        ValueError
            If the criterion returns something else.
        """
        values = self.criterion(out, self._targets(out, y))
        if not isinstance(values, torch.Tensor) or (
            values.numel() != 1 and values.shape[:1] != out.shape[:1]
        ):
            found = tuple(values.shape) if isinstance(values, torch.Tensor) else repr(values)[:60]
            raise ValueError(
                f"the criterion returns {found} for {counted(len(out), 'row')}; it has to return "
                "their mean "
                "loss, one number, or a loss for each row"
            )
        if values.ndim == 0 or values.shape[:1] != out.shape[:1]:
            return values.reshape(())
        return values.reshape(len(out), -1).mean(1) if values.ndim > 1 else values

    def _targets(self, out: torch.Tensor, y: Array) -> torch.Tensor:
        """Return y in the form that the criterion takes: class codes, or numbers as `out` is."""
        if self.spec.n_classes and out.ndim > 1 and out.shape[1] > 1:
            return torch.from_numpy(y[:, 0].astype(np.int64)).to(self.device)
        return torch.from_numpy(np.ascontiguousarray(y)).to(self.device, self.dtype).view_as(out)

    def loss_sum(self, X: NDArray[Any], y: Array | None, weight: Array | None) -> torch.Tensor:
        """Return the weighted sum of the losses of rows, ().

        Weights (rows, 2) are those of mixed rows, whose y has the targets of both, see `halves`.

        Raises
        ------
        ValueError
            If rows have weights, and the criterion returns their mean.
        """
        if y is None:
            raise ValueError("a loss needs y, and these data have none")
        out = self.outputs(self.inputs(X))
        if weight is None:
            values = self.losses(out, y)
            return values * len(X) if values.ndim == 0 else values.sum()
        if weight.ndim == 1:
            return self._weighted_sum(out, y, weight)
        first, second = halves(y, weight)
        return self._weighted_sum(out, *first) + self._weighted_sum(out, *second)

    def _weighted_sum(self, out: torch.Tensor, y: Array, weight: Array) -> torch.Tensor:
        values = self.losses(out, y)
        if values.ndim == 0:
            raise ValueError(
                "rows have weights, and the criterion returns one number for all of them; use one "
                "that returns a loss for each row (reduction='none'). Mixup weighs rows too"
            )
        return values @ torch.from_numpy(weight).to(self.device, values.dtype)

    def predictors(self, X: NDArray[Any]) -> Array:
        """Return the predictors z of rows, (rows, outputs); of two classes, their difference."""
        z: Array = self.outputs(self.inputs(X)).detach().cpu().numpy().astype(np.float64)
        z = z.reshape(len(X), -1)
        return z[:, 1:] - z[:, :1] if self.spec.n_classes == 2 and z.shape[1] == 2 else z


_lock, _limit_lock = threading.Lock(), threading.Lock()
_limited, _threads = 0, 1
"""Users of `one_thread` now, and the threads that PyTorch had before the first of them."""


@after_fork
def _renew() -> None:
    """Give a forked process locks and a count: threads of its parent may have held the old ones."""
    global _lock, _limit_lock, _limited
    _lock, _limit_lock, _limited = threading.Lock(), threading.Lock(), 0


@contextmanager
def drawing(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Within the context, PyTorch draws random numbers by a seed; the caller's are not disturbed.

    PyTorch has one generator for all threads, so one at a time draws.
    """
    with _lock:
        before = torch.default_generator.get_state()
        on_cpu = device is None or device.type == "cpu"
        (torch.default_generator.manual_seed if on_cpu else torch.manual_seed)(seed % 2**63)
        try:
            yield
        finally:
            torch.default_generator.set_state(before)


_local = threading.local()


def network_of(spec: NetworkSpec, *, training: bool) -> Network:
    """Return the network of a spec that this thread keeps, set to training or evaluation mode."""
    kept: OrderedDict[str, Network] = _local.__dict__.setdefault("kept", OrderedDict())
    restore_threads()
    network = kept.pop(spec.token, None) or Network(spec)
    kept[spec.token] = network
    while len(kept) > _KEPT:
        kept.popitem(last=False)
    network.module.train(training)
    return network


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the context, PyTorch computes by one thread, so that sums have the same bits.

    PyTorch has a limit of the process, and one of each of its threads, which are set together. So
    the last thread to leave restores them, and others restore theirs when they compute again.
    """
    global _limited, _threads
    restore_threads()
    with _limit_lock:
        _threads = _threads if _limited else torch.get_num_threads()
        _limited += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _limit_lock:
            _limited -= 1
            _local.limited = True
        restore_threads()


def restore_threads() -> None:
    """Restore this thread's limit, if `one_thread` has left it and no other thread needs it."""
    if not getattr(_local, "limited", False):
        return
    with _limit_lock:
        if not _limited:
            torch.set_num_threads(_threads)
            _local.limited = False


def warm_up(spec: NetworkSpec) -> None:
    """Run a forward and a backward pass of a few rows, and make an optimizer.

    What this loads and allocates is there before memory is measured.
    """
    if isinstance(spec.model.module, str):
        return  # of a saved run without its module, which says so when it predicts
    made_bytes(spec)
    torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])


class _Bytes(TorchDispatchMode):  # type: ignore[misc] # torch has no types here
    """A context that counts the bytes of all tensors that operations allocate."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count what it returns unless that is a view."""
        del types
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, list | tuple) else (found,):
            if isinstance(each, torch.Tensor) and not each._is_view():  # noqa: SLF001
                self.made += each.nbytes
        return found


def made_bytes(spec: NetworkSpec) -> tuple[int, int]:
    """Return the bytes that a forward and backward pass allocates: a constant, and per row.

    Two passes of a few rows of zeros are made. No tensor of a pass is taken to be freed before its
    end, so the figures are bounds, but for the scratch memory of libraries.

    Raises
    ------
    ValueError
        If the module or the criterion fails, or if no loss depends on the parameters.
    """
    network = Network(spec)
    sizes = []
    for rows in (4, 8):
        X = np.zeros((rows, int(np.prod(spec.row_shape))), np.float32)
        y = np.zeros((rows, 1 if spec.n_classes else spec.n_outputs))
        try:
            with drawing(0), _Bytes() as count:
                network.loss_sum(X, y, None).backward()
        except (RuntimeError, TypeError, IndexError, AttributeError) as error:
            first = str(error).partition("\n")[0]
            raise ValueError(
                f"the module or the criterion fails for rows {(rows, *spec.row_shape)}: {first}"
            ) from error
        sizes.append(count.made)
    each = max(0, sizes[1] - sizes[0]) // 4
    return max(0, sizes[0] - 4 * each), each
