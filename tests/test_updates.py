"""Learning by updates: what a scan does to parameters, at any batch size and under any weights."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ooc_train.core import partitions
from ooc_train.errors import Diverged, NonFiniteData
from ooc_train.kernels import api as kernels
from ooc_train.models.linear_updates import LinearUpdates
from ooc_train.objective.penalty import Penalty
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.optimizers.schedules import Falling
from ooc_train.stream import order
from tests.streams import Case, Cut, make_case, same_bits, stream


def updates_of(case: Case, batch_size: int, *, rule="sgd", noise=0.0, eta0=0.01):
    optimizer, schedule = OPTIMIZERS[rule](), Falling(noise, 50.0)
    return LinearUpdates(case.problem, case.source.dtype, batch_size, optimizer, schedule, eta0)


def rate(eta0: float, t: int) -> float:
    """The learning rate after t updates that falls with their root."""
    return eta0 / float(np.sqrt(1 + t / 50))


def learned(case: Case, batch_size: int, *, epochs=2, shuffle_chunks=2, **rule):
    updates = updates_of(case, batch_size, **rule)
    state = updates.start(case.problem.initial())
    for epoch in range(epochs):
        (state,) = stream(case.source).scan(
            updates, [state], seed=1, epoch=epoch, shuffle_chunks=shuffle_chunks
        )
    return state


def rows_in_order(case: Case, seed: int, epoch: int, shuffle_chunks: int):
    """The numbers of the rows in the order of a scan."""
    taken: list[int] = []
    for i, group in enumerate(order.groups(case.source.n_partitions, shuffle_chunks, seed, epoch)):
        size, n = case.source.partition_rows, case.source.n_rows
        rows = np.array(
            [
                r
                for partition in group
                for r in range(partition * size, min(n, (partition + 1) * size))
            ]
        )
        permutation = np.empty(len(rows), np.int64)
        seed_of_rows = order.row_seed(order.epoch_seed(seed, epoch), i)
        kernels.shuffle(seed_of_rows, permutation)
        taken += rows[permutation].tolist()
    return taken


@pytest.mark.parametrize("settings", [{}, {"weighted": True, "class_weight": True}])
@pytest.mark.parametrize("batch_size", [1, 7, 50])
@pytest.mark.parametrize(("loss", "outputs"), [("logistic", 1), ("multinomial", 3)])
def test_an_epoch_is_one_step_down_the_mean_gradient_of_each_batch(
    loss, outputs, batch_size, settings
):
    case = make_case(loss, outputs, **settings)
    found = learned(case, batch_size, epochs=1, noise=1.0, eta0=0.05)
    # Said with the sums of the full-batch methods, a batch at a time.
    problem, theta = case.problem, case.problem.initial()
    share = problem.n_rows / problem.total_weight
    rows, progressive = rows_in_order(case, 1, 0, 2), 0.0
    batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    for t, batch in enumerate(batches):
        weight = None if case.source.weight is None else case.source.weight[batch]
        part = Cut(case.source.X[batch], case.y[batch], weight)
        sums = stream(part).reduce(problem.reduction(theta[None]))
        progressive += float(sums["loss"][0])
        with np.errstate(invalid="ignore"):  # a batch of no weight has no mean loss
            free = replace(problem, penalty=Penalty()).read(sums, theta[None])
        penalty = problem.theta_penalty.l2 * theta / problem.total_weight
        gradient = free.gradient * share / len(batch) + penalty
        # An incomplete batch takes a step in proportion to its rows.
        theta = theta - len(batch) / batch_size * rate(0.05, t) * gradient
    np.testing.assert_allclose(found["theta"], theta, rtol=1e-8, atol=1e-10)
    assert found["counters"].tolist() == [0, len(batches), 101]
    assert found["sums"][0] / found["sums"][1] == pytest.approx(progressive / problem.total_weight)


def test_lanes_are_epochs_of_their_own_that_are_averaged_by_rows(monkeypatch):
    case, batch_size, eta = make_case("logistic"), 5, 0.05
    # Leaves of 7 rows in groups of two: 8 groups, and so two rounds of four.
    monkeypatch.setattr(partitions, "_ROUND_BYTES", 2 * 14 * case.source.row_bytes)
    updates = updates_of(case, batch_size, noise=1.0, eta0=eta)
    replicas: Any = [updates.start(case.problem.initial())] * 2
    replicas = stream(case.source).scan(updates, replicas, seed=1, epoch=0, shuffle_chunks=2)
    # Said with the sums of the full-batch methods, a row at a time.
    problem, n = case.problem, case.problem.n_rows
    rows = rows_in_order(case, 1, 0, 2)
    sizes = [
        sum(
            min(case.source.partition_rows, n - partition * case.source.partition_rows)
            for partition in group
        )
        for group in order.groups(case.source.n_partitions, 2, 1, 0)
    ]
    assert len(sizes) == 8
    ends = np.cumsum([0, *sizes])
    theta, t = problem.initial(), [0, 0]
    partial = [np.zeros_like(theta), np.zeros_like(theta)]
    filled = [0, 0]
    rounds = partitions.rounds(8, 14 * case.source.row_bytes, 2)
    assert len(rounds) == 2
    for cuts in rounds:
        thetas, learned = [], []
        for replica, (a, b) in enumerate(cuts):
            own, mine = theta, rows[ends[a] : ends[b]]
            for i, row in enumerate(mine):
                part = Cut(case.source.X[[row]], case.y[[row]], None)
                sums = stream(part).reduce(problem.reduction(own[None]))
                free = replace(problem, penalty=Penalty()).read(sums, own[None]).gradient
                partial[replica] = partial[replica] + free
                filled[replica] += 1
                ends_pass = cuts is rounds[-1] and i == len(mine) - 1
                if filled[replica] == batch_size or ends_pass:
                    step = partial[replica] / filled[replica] + problem.theta_penalty.l2 * own / n
                    own = own - filled[replica] / batch_size * rate(eta, t[replica]) * step
                    partial[replica], filled[replica], t[replica] = (
                        np.zeros_like(theta),
                        0,
                        t[replica] + 1,
                    )
            thetas.append(own)
            learned.append(len(mine))
        theta = np.average(thetas, axis=0, weights=learned)
    for replica in (0, 1):
        np.testing.assert_allclose(replicas[replica]["theta"], theta, rtol=1e-8, atol=1e-10)
        assert replicas[replica]["counters"][:2].tolist() == [0, t[replica]]


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_the_unit_of_weights_does_not_matter(rule):
    case = make_case("logistic", weighted=True, class_weight=True)
    found = []
    for factor in (1.0, 1000.0):
        assert case.source.weight is not None
        source = Cut(case.source.X, case.y, factor * case.source.weight)
        problem = replace(
            case.problem,
            total_weight=factor * case.problem.total_weight,
            penalty=Penalty(l2=factor * case.problem.penalty.l2),
        )
        found.append(learned(Case(problem, source), 7, rule=rule)["theta"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-10)


def test_without_an_intercept_none_is_learned():
    case = make_case("multinomial", 3, fit_intercept=False)
    for rule in ("sgd", "adam"):
        for batch_size in (1, 9):
            theta = learned(case, batch_size, rule=rule)["theta"]
            assert not theta[:, -1].any()
            assert theta[:, :-1].all()


def test_the_state_given_is_left_as_it_was():
    case = make_case("logistic")
    updates = updates_of(case, 3, rule="adam")
    before = updates.start(case.problem.initial())
    kept = {name: array.copy() for name, array in before.items()}
    stream(case.source).scan(updates, [before], seed=0, epoch=0, shuffle_chunks=1)
    assert same_bits(before, kept)


def test_float32_rows_learn_as_their_float64_copies():
    single = make_case("squared", 2, dtype="<f4")
    source = replace(single.source, X=single.source.X.astype("<f8"))
    double = Case(single.problem, source)
    np.testing.assert_allclose(
        learned(single, 4)["theta"], learned(double, 4)["theta"], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize(
    ("where", "said"), [("X", "nan in column 2 of X"), ("y", "nan in y"), ("weight", "nan in samp")]
)
def test_a_row_that_is_not_finite_is_named_by_its_place_in_the_data(batch_size, where, said):
    case = make_case("squared", 1, weighted=True)
    arrays: dict[str, Any] = {"X": case.source.X, "y": case.y, "weight": case.row_weights}
    arrays[where] = arrays[where].copy()
    arrays[where][(51, 2) if where == "X" else 51] = np.nan
    source = Cut(arrays["X"], arrays["y"], arrays["weight"])
    with pytest.raises(NonFiniteData, match=f"row 51 has {said}"):
        learned(Case(case.problem, source), batch_size, shuffle_chunks=5)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_learning_rate_that_is_too_large_is_told_of(batch_size):
    case = make_case("squared", 1)
    with pytest.raises(
        Diverged, match=r"rate of 1e\+100 is too large; use learning_rate="
    ) as error:
        learned(case, batch_size, eta0=1e100)
    found = re.search(r"row (\d+) is no number after ([\d,]+) updates", str(error.value))
    assert found is not None
    row, done = (int(number) for number in found.groups())
    assert row in rows_in_order(case, 1, 0, 2)[done * batch_size : (done + 1) * batch_size]


def test_updates_need_y():
    case = make_case("squared", 1)
    with pytest.raises(ValueError, match="needs y"):
        learned(Case(case.problem, Cut(case.source.X)), 1)
