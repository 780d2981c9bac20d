"""Plans from Python: what `fit` and `train` would begin with, and nothing learned."""

import shutil

import numpy as np
import pytest

from ooc_train import (
    CeilingExceeded,
    Event,
    LogisticModel,
    LogisticRegression,
    Plan,
    Started,
    Training,
    make_data,
    open_store,
    plan,
    train,
)
from ooc_train.memory.ceiling import START_BYTES

pytestmark = pytest.mark.alone

# What processes hold at the moment is another figure each time.
MOVING = {"baseline", "shared libraries"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("planning") / "a.zarr", rows=4000, features=5).path


def fixed(terms):
    return {term.name: term.bytes for term in terms if term.name not in MOVING}


@pytest.mark.parametrize("batch_size", ["full", 16])
def test_a_plan_is_the_one_that_training_begins_with(made, batch_size):
    model, training = LogisticModel(), Training(batch_size=batch_size, max_iter=2)
    found = plan(model, made, training, memory_ceiling="1GiB")
    begun: list[Started] = []

    def keep(event: Event) -> None:
        if isinstance(event, Started):
            begun.append(event)

    train(model, made, training, memory_ceiling="1GiB", callbacks=[keep])
    assert fixed(found.projection.terms) == fixed(begun[0].terms)
    assert str(found.ceiling) == "1 GiB (given)"
    assert str(found).startswith(found.explain())


def test_what_is_told_as_the_smallest_ceiling_would_do(made):
    small = plan(LogisticModel(), made, memory_ceiling="1MiB")
    assert not small.fits
    assert small.smallest_ceiling == small.projection.smallest_ceiling >= small.projected
    with pytest.raises(CeilingExceeded, match=rf"ceiling to {small.smallest}"):
        small.validate()
    large = plan(LogisticModel(), made, memory_ceiling="1GiB")
    assert large.fits
    started = large.projection.started * START_BYTES
    assert large.smallest_ceiling < large.projected + started + 2**20
    assert plan(LogisticModel(), made, memory_ceiling=large.smallest).fits
    less = large.smallest_ceiling - started - 4 * 2**20
    assert not plan(LogisticModel(), made, memory_ceiling=less).fits


def test_an_estimator_is_as_it_was(made):
    seeds = np.random.RandomState(3)
    before = seeds.get_state(legacy=False)["state"]["key"].tolist()
    model = LogisticRegression(memory_ceiling="1GiB", batch_size=16, random_state=seeds)
    found = model.plan(made)
    assert isinstance(found, Plan)
    assert str(found.ceiling) == "1 GiB (given)"
    assert vars(model).keys() == model.get_params().keys()
    assert seeds.get_state(legacy=False)["state"]["key"].tolist() == before
    X = np.random.default_rng(0).normal(size=(50, 3))
    fitted = LogisticRegression().fit(X, X[:, 0] > 0)
    fitted.plan(made)
    assert fitted.n_features_in_ == 3
    assert fitted.plan(X, X[:, 0] > 0).partition_rows > 0


def test_x_is_not_read(made, tmp_path):
    path = tmp_path / "b.zarr"
    shutil.copytree(made, path)
    shutil.rmtree(path / "X" / "c")
    store = open_store(path)
    expected = LogisticRegression(memory_ceiling="1GiB").plan(made)
    assert fixed(LogisticRegression(memory_ceiling="1GiB").plan(store).projection.terms) == fixed(
        expected.projection.terms
    )


def test_settings_that_can_not_be_used_are_refused(made):
    with pytest.raises(ValueError, match=r"learning_rate=0.5 is for updates"):
        LogisticRegression(learning_rate=0.5).plan(made)
    with pytest.raises(ValueError, match="memory_ceiling="):
        plan(LogisticModel(), made, memory_ceiling="much")
