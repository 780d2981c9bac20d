"""A loss of a user's own takes part in kernels, solvers and updates, as the built-in ones do."""

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from ooc_train.kernels import calling, known_arrays, machine_code
from ooc_train.kernels.api import add_rows_needs
from ooc_train.kernels.digests import code_digest
from ooc_train.kernels.scan import scan_needs
from ooc_train.kernels.specs import KernelSpec
from ooc_train.models.linear_updates import LinearUpdates
from ooc_train.objective.loss import Loss
from ooc_train.objective.penalty import Penalty
from ooc_train.optimizers.adam import Adam
from ooc_train.optimizers.momentum import Momentum
from ooc_train.optimizers.schedules import Cosine
from ooc_train.optimizers.sgd import Sgd
from tests.streams import Case, make_case, stream


def softplus(z: Any) -> Any:
    return np.maximum(z, 0.0) + np.log(1.0 + np.exp(-np.abs(z)))


@dataclass(frozen=True)
class LogCosh(Loss):
    """``width**2 log(cosh(r / width))``: quadratic near zero, linear far from it."""

    width: float = 1.0

    name: ClassVar[str] = "log cosh"
    bound: ClassVar[float] = 1.0

    def value(self, y: Any, z: Any) -> Any:
        r = np.abs(z - y) / self.width
        return self.width * self.width * (r + softplus(-2.0 * r) - 0.6931471805599453)

    def slope(self, y: Any, z: Any) -> Any:
        return self.width * np.tanh((z - y) / self.width)

    def curvature(self, y: Any, z: Any) -> Any:
        t = np.tanh((z - y) / self.width)
        return 1.0 - t * t


def case_of(loss: Loss, **settings: Any) -> Case:
    case = make_case("squared", 1)
    return Case(replace(case.problem, loss=loss, **settings), case.source)


FLOAT64 = np.dtype(np.float64)


@pytest.fixture
def plainly(monkeypatch):
    """Have no kernel loaded, and none pass its check."""
    monkeypatch.setattr(calling, "_loaded", {})
    monkeypatch.setattr(known_arrays, "agree", lambda *_: False)


@pytest.mark.slow
@pytest.mark.parametrize("width", [0.5, 3.0])
def test_a_loss_of_ones_own_is_compiled_and_adds_up_as_numpy_does(width):
    case = case_of(LogCosh(width))
    theta = np.random.default_rng(0).normal(size=(1, *case.problem.shape))
    note = calling.load(FLOAT64, add_rows_needs(case.problem.loss))
    assert "plain" not in note
    sums = stream(case.source).reduce(case.problem.reduction(theta))
    coef, intercept = case.problem.scaling.to_data_units(theta[0])
    z = case.source.X @ coef.T + intercept
    value = case.problem.loss.value(case.y, z)
    assert sums["loss"][0] == pytest.approx(value.sum(), rel=1e-12)
    slope = case.problem.loss.slope(case.y, z)
    np.testing.assert_allclose(sums["gradient"][0, 0, :-1], (slope * case.source.X).sum(axis=0))


def test_another_hyperparameter_needs_no_other_kernel():
    assert add_rows_needs(LogCosh(0.5)) == add_rows_needs(LogCosh(3.0))


def updated(case: Case, optimizer: Any, batch_size: int) -> Any:
    # Averages of unrolled batches are exact to a few updates: the second epoch moves nothing.
    schedule = Cosine(1e-12, over=60.0)
    updates = LinearUpdates(case.problem, "<f8", batch_size, optimizer, schedule, 0.05)
    state = updates.start(case.problem.initial())
    for epoch in range(2):
        (state,) = stream(case.source).scan(updates, [state], seed=1, epoch=epoch, shuffle_chunks=2)
    return state


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "batch_size", "l1"),
    [
        (Sgd(), 1, 0.0),
        (Sgd(), 3, 0.0),
        (Sgd(), 7, 30.0),
        (Momentum(0.8), 7, 30.0),
        (Adam(), 7, 30.0),
    ],
)
def test_compiled_updates_are_those_of_the_plain_route(monkeypatch, optimizer, batch_size, l1):
    case = case_of(LogCosh(0.7), penalty=Penalty(l1=l1, l2=1.0))
    compiled = updated(case, optimizer, batch_size)
    needs = scan_needs(case.problem.loss, optimizer, batch_size, 1, l1=l1 > 0)
    assert all(not calling._loaded[spec, FLOAT64]._plain for spec in needs)
    monkeypatch.setattr(calling, "_loaded", {})
    monkeypatch.setattr(known_arrays, "agree", lambda *_: False)
    plain = updated(case, optimizer, batch_size)
    assert all(calling._loaded[spec, FLOAT64]._plain for spec in needs)
    for name in ("theta", "average", "counters", "sums", "slots"):
        np.testing.assert_allclose(plain[name], compiled[name], rtol=1e-9, atol=1e-12)
    assert not l1 or (compiled["theta"][:, :-1] == 0.0).any()


@pytest.mark.parametrize("why", ["convention", "results"])
def test_where_kernels_read_wrongly_plain_numpy_takes_over_and_says_so(monkeypatch, plainly, why):
    del plainly
    if why == "convention":
        monkeypatch.setattr(known_arrays, "convention", lambda: "arrays are laid out otherwise")
        monkeypatch.setattr(calling, "link", None)  # nothing is compiled or called
    spec = add_rows_needs(make_case("squared", 1).problem.loss)
    note = calling.load(FLOAT64, spec)
    wrong = "known arrays are not NumPy's: add_rows(squared)"
    told = "otherwise" if why == "convention" else wrong
    assert "plain NumPy runs instead of compiled kernels" in note
    assert told in note
    assert calling.load(FLOAT64, spec) == ""
    case = make_case("squared", 1)
    theta = np.ones((1, *case.problem.shape))
    sums = stream(case.source).reduce(case.problem.reduction(theta))
    coef, intercept = case.problem.scaling.to_data_units(theta[0])
    value = case.problem.loss.value(case.y, case.source.X @ coef.T + intercept)
    assert sums["loss"][0] == pytest.approx(value.sum(), rel=1e-12)


def test_arrays_are_found_where_kernels_look():
    assert known_arrays.convention() is None


@pytest.mark.parametrize("basic", [24, 32])
def test_another_layout_of_objects_is_noticed(monkeypatch, basic):
    class Moved:
        __basicsize__ = basic

    monkeypatch.setattr(known_arrays, "object", Moved, raising=False)
    assert "are known to" in str(known_arrays.convention()) or "is known to" in str(
        known_arrays.convention()
    )


DEFINED = """
    from dataclasses import dataclass
    import numpy as np
    from ooc_train.objective.loss import Loss

    SCALE = {scale}

    def scaled(r):
        {comment}
        return SCALE * r

    @dataclass(frozen=True)
    class Own(Loss):
        name = "own"
        def value(self, y, z):
            return 0.5 * scaled(z - y) * (z - y)
        def slope(self, y, z):
            return scaled(z - y)
"""


def defined(**changes: Any) -> Any:
    names: dict[str, Any] = {"__name__": "own"}
    exec(textwrap.dedent(DEFINED.format(**{"scale": 1.0, "comment": "", **changes})), names)
    return names["Own"]


def test_the_digest_covers_what_a_loss_is_made_of_and_nothing_else(monkeypatch):
    import types

    module = types.ModuleType("own")
    monkeypatch.setitem(sys.modules, "own", module)
    same = code_digest(defined())
    assert code_digest(defined()) == same
    assert code_digest(defined(comment="# moved\n\n")) == same
    assert code_digest(defined(scale=2.0)) != same


SCRIPT = """
    from dataclasses import dataclass
    import numpy as np
    from ooc_train.kernels.api import add_rows_needs
    from ooc_train.kernels.calling import load
    from ooc_train.objective.loss import Loss

    def halved(r):
        return 0.5 * r

    @dataclass(frozen=True)
    class Own(Loss):
        name = "own"
        def value(self, y, z):
            return halved(z - y) * (z - y)
        def slope(self, y, z):
            return z - y

    if __name__ == "__main__":
        print(load("f8", add_rows_needs(Own())))
"""


@pytest.mark.slow
def test_a_loss_that_a_script_defines_is_compiled(tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(tmp_path / "script.py")]
    # A cache of its own: the machine's may hold what an earlier run of this test compiled.
    environment = os.environ | {"OOC_TRAIN_CACHE_DIR": str(tmp_path / "cache")}
    how: Any = {"check": True, "capture_output": True, "text": True, "env": environment}
    done = subprocess.run(command, **how)
    assert "add_rows(own)" in done.stdout
    assert "plain" not in done.stdout
    again = subprocess.run(command, **how)
    assert again.stdout.strip() == ""  # found in the cache


def test_damaged_code_is_compiled_anew_and_not_linked(tmp_path, monkeypatch):
    spec = KernelSpec("shuffle")
    path = tmp_path / "shuffle"
    monkeypatch.setattr(machine_code, "_path", lambda *_: str(path))
    machine_code.write(str(path), b"code")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    asked: list[Any] = []

    def compiled(missing: Any, dtype: str) -> Any:
        asked.append((missing, dtype))
        raise RuntimeError("compiled anew")

    monkeypatch.setattr(machine_code, "_compiled", compiled)
    with pytest.raises(RuntimeError, match="compiled anew"):
        machine_code.link([spec], "float32")
    assert asked == [({spec: str(path)}, "float32")]


@dataclass(frozen=True)
class WithMethod(Loss):
    """A loss that no kernel can be made of: it calls a method of its own."""

    tau: float = 0.9

    name: ClassVar[str] = "with_method"
    bound: ClassVar[float] = 1.0

    def share(self, y: Any, z: Any) -> Any:
        return self.tau * (z > y)

    def value(self, y: Any, z: Any) -> Any:
        return self.share(y, z) * (z - y)

    def slope(self, y: Any, z: Any) -> Any:
        return self.share(y, z) * np.ones_like(z)


@dataclass(frozen=True)
class OfAllRows(Loss):
    """A loss that no kernel can be made of: it looks at other rows."""

    name: ClassVar[str] = "of_all_rows"
    bound: ClassVar[float] = 1.0

    def value(self, y: Any, z: Any) -> Any:
        return np.abs(z - np.median(y))

    def slope(self, y: Any, z: Any) -> Any:
        return np.sign(z - np.median(y))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (WithMethod(), "WithMethod could not be compiled: Unknown attribute 'share' of type"),
        (OfAllRows(), "OfAllRows could not be compiled: No implementation of function .*median"),
    ],
)
def test_a_loss_that_cannot_be_compiled_is_refused_with_the_reason(loss, said):
    with pytest.raises(ValueError, match=said + r".*made of NumPy's ufuncs, operators"):
        calling.load(FLOAT64, add_rows_needs(loss))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "it said nothing"),
        ("Killed", "Killed"),
        ("Traceback\n  File x\nMemoryError: no room", "no room"),
        (
            "a.b.TypingError: Failed in nopython mode\nFailed in it\n\nNo way:\n\nDuring: x",
            "No way",
        ),
        ("KeyError: 'a'\n\nDuring handling\n\nOSError: disk full\n", "disk full"),
        ("ValueError: Failed in it", "Failed in it"),
    ],
)
def test_the_reason_is_the_line_that_says_it(said, reason):
    assert machine_code._reason(said) == reason
