"""What goes on from one call of `partial_fit` to the next, in the units of another scaling."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from ooc_train.kernels.layout import AGE
from ooc_train.objective.scaling import Scaling
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.training.partial_fit_state import PartialFit, continued_replica
from tests.streams import make_case


@dataclass(frozen=True)
class Squares(Optimizer):
    """An optimizer with one slot, which adds up squares."""

    name: ClassVar[str] = "squares"
    slot_powers: ClassVar[tuple[int, ...]] = (2,)

    def prepare(self, age: float, part: float) -> tuple[float, ...]:
        del age, part
        return ()

    def step(self, theta: Any, g: Any, eta: float, scalars: tuple[float, ...], *slots: Any) -> Any:
        del scalars
        total = slots[0] + g * g
        return theta - eta * g / np.sqrt(total), total


PROBLEM = make_case("squared", 2).problem
UNUSED: dict[str, Any] = {"moments": None, "config": None, "memory": None}
OPTIMIZER_TYPES = [*OPTIMIZERS.values(), Squares]


def slots_after(optimizer: Any, by_data_units, scaling: Scaling):
    """The slots after gradients in the data's units, of parameters in those of a scaling."""
    slots = np.zeros((len(optimizer.slot_powers), *PROBLEM.shape))
    for age, g in enumerate(by_data_units, 1):
        g = g / np.append(scaling.scale, 1.0)
        scalars = optimizer.prepare(age, 1.0)
        _, *found = optimizer.step(np.zeros(PROBLEM.shape), g, 0.1, scalars, *slots)
        slots[...] = np.reshape(found, slots.shape)
    return slots


def replica_of(slots, age: float) -> dict[str, Any]:
    return {
        "theta": np.zeros(PROBLEM.shape),
        "average": np.zeros(PROBLEM.shape),
        "slots": slots,
        "counters": np.array([0, 5, 50]),
        "clock": np.array([age, age, age]),
    }


def continued(before: Any, after: Any, scaling: Scaling, slots):
    kept = PartialFit(
        problem=PROBLEM,
        feature_names=None,
        inverse_rate=1.0,
        lowered=0,
        first=0.0,
        optimizer=before,
        replica=replica_of(slots, 5.0),
        kind="arrays",
        dtype="<f8",
        **UNUSED,
    )
    initial = replica_of(np.zeros((len(after.slot_powers), *PROBLEM.shape)), 0.0)
    return continued_replica(replace(PROBLEM, scaling=scaling), after, initial, kept, None)


@pytest.mark.parametrize("kind", OPTIMIZER_TYPES)
def test_slots_go_on_as_though_the_gradients_had_been_in_the_new_units(kind):
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(5, *PROBLEM.shape))
    old = PROBLEM.scaling
    new = Scaling(old.mean, old.scale * rng.uniform(0.2, 5.0, old.n_features))
    found = continued(kind(), kind(), new, slots_after(kind(), gradients, old))
    np.testing.assert_allclose(found["slots"], slots_after(kind(), gradients, new), rtol=1e-12)
    assert found["clock"][AGE] == 5.0


def test_another_optimizer_begins_with_slots_of_its_own_and_their_age():
    momentum = OPTIMIZERS["momentum"]()
    slots = np.ones((1, *PROBLEM.shape))
    for before, after in ((momentum, Squares()), (momentum, OPTIMIZERS["adam"]())):
        found = continued(before, after, PROBLEM.scaling, slots)
        assert found["slots"].shape == (len(after.slot_powers), *PROBLEM.shape)
        assert not found["slots"].any()
        assert found["clock"].tolist()[AGE] == 0.0
        assert found["counters"].tolist() == [0, 5, 50]
