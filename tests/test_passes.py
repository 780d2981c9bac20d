"""Passes: bits that no plan, order of arrival or cut into tasks can change; every row just once."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_train.core.sums import ArraySpec, Block, Workspace, total_bytes
from ooc_train.errors import CeilingExceeded, CorruptChunk
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.column_moments import ColumnSums
from ooc_train.models.linear import LinearProblem
from ooc_train.models.linear_updates import LinearUpdates
from ooc_train.objective.losses import LOSSES
from ooc_train.objective.penalty import Penalty
from ooc_train.objective.scaling import Scaling
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.optimizers.schedules import Falling
from ooc_train.stream import order
from ooc_train.stream.baseline import Processes
from ooc_train.stream.executors import LocalExecutor
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.passes import Stream
from ooc_train.stream.plan_choices import make_plan
from ooc_train.stream.requirements import Requirements
from ooc_train.stream.sum_tree import SumTree
from ooc_train.stream.timings import Timings
from tests.streams import Cut, Shuffled, make_case, same_bits, stream, write_store

CASE = make_case("multinomial", 3, rows=233, weighted=True, class_weight=True, partition_rows=5)
THETA = np.random.default_rng(3).normal(size=(1, *CASE.problem.initial().shape))


# ------------------------------------------------------------------------------------ reduce


@pytest.fixture(scope="module")
def source(tmp_path_factory, request):
    """The rows of CASE in a store of small chunks."""
    path = tmp_path_factory.mktemp("passes") / "rows.zarr"
    write_store(path, CASE.source.X, CASE.y[:, 0].astype(int), CASE.source.weight, chunk_rows=5)
    return read_inputs(path, classifier=True).source


@pytest.mark.slow
@pytest.mark.parametrize("group_bytes", [1, 5 * 32 * 3, 5 * 32 * 1000])
@pytest.mark.parametrize("how", [{}, {"hessian": True}], ids=["gradient", "hessian"])
@settings(max_examples=12, deadline=None)
@given(
    task_groups=st.integers(1, 64),
    window=st.integers(1, 9),
    pipeline_threads=st.integers(1, 4),
    seed=st.integers(0, 1000),
    pool_bytes=st.integers(2**16, 2**20),
)
def test_cutting_a_reduce_into_tasks_does_not_change_a_bit(
    source, group_bytes, how, task_groups, window, pipeline_threads, seed, pool_bytes
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ooc_train.stream.sources._GROUP_BYTES", group_bytes)
        work = CASE.problem.reduction(THETA, **how)
        expected = stream(source, task_groups=1, window=1).reduce(work)
        found = stream(
            source,
            task_groups=task_groups,
            window=window,
            pipeline_threads=pipeline_threads,
            pool_bytes=pool_bytes,
            executor=Shuffled(seed),
        ).reduce(work)
    assert same_bits(found, expected)


def test_threads_of_this_process_do_not_change_a_bit(monkeypatch):
    monkeypatch.setattr("ooc_train.stream.sources._GROUP_BYTES", 5 * 32 * 3)
    work = CASE.problem.reduction(THETA, hessian=True)
    expected = stream(CASE.source).reduce(work)
    for _ in range(10):
        found = stream(CASE.source, window=6, executor=LocalExecutor(3)).reduce(work)
        assert same_bits(found, expected)


def test_stripes_do_change_bits_so_that_the_test_above_can_see_it(source, monkeypatch):
    work = CASE.problem.reduction(THETA)
    found = []
    for group_bytes in (1, 5 * 32 * 3, 5 * 32 * 1000):
        monkeypatch.setattr("ooc_train.stream.sources._GROUP_BYTES", group_bytes)
        found.append(stream(source).reduce(work)["gradient"].tobytes())
    assert len(set(found)) > 1


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(
    chunk_rows=st.sampled_from([1, 3, 16, 64, 232, 233, 300]),
    shard_chunks=st.integers(1, 20),
    codec=st.sampled_from(["none", "lz4", "zstd"]),
    hessian=st.booleans(),
)
def test_cutting_the_rows_into_chunks_and_shards_changes_rounding_only(
    tmp_path_factory, chunk_rows, shard_chunks, codec, hessian
):
    path = tmp_path_factory.mktemp("cut") / "rows.zarr"
    write_store(
        path, CASE.source.X, CASE.y[:, 0].astype(int), CASE.source.weight,
        chunk_rows=chunk_rows, shard_chunks=shard_chunks, codec=codec,
    )  # fmt: skip
    work = CASE.problem.reduction(THETA, hessian=hessian)
    found = stream(read_inputs(path, classifier=True).source).reduce(work)
    expected = stream(CASE.source).reduce(work)
    assert found["rows"] == expected["rows"] == 233
    for name, sums in expected.items():
        size = np.abs(sums).max()
        np.testing.assert_allclose(found[name], sums, rtol=1e-12, atol=1e-12 * size, err_msg=name)


def test_rows_in_memory_have_the_bits_of_a_store_cut_alike(source):
    work = CASE.problem.reduction(THETA)
    case = CASE.source
    memory = Cut(case.X, case.y, case.weight, rows=5, group=source.group_partitions)
    assert same_bits(stream(memory).reduce(work), stream(source).reduce(work))


@pytest.mark.parametrize("partitions", [(), (0,), (46,), (3, 46, 17), tuple(range(47))])
def test_a_sample_of_partitions_is_the_sum_over_them(partitions):
    sums = stream(CASE.source).reduce(ColumnSums(np.zeros(4)), partitions)
    rows = [
        row for partition in partitions for row in range(5 * partition, min(5 * partition + 5, 233))
    ]
    assert CASE.source.weight is not None
    weight = CASE.source.weight[rows]
    np.testing.assert_allclose(sums["weight"], weight.sum())
    np.testing.assert_allclose(sums["first"], weight @ CASE.source.X[rows], atol=1e-12)


def test_what_was_spent_counts_every_row_once():
    seen: list[int] = []
    passes = Stream(CASE.source, LocalExecutor(), stream(CASE.source)._config, seen.append)
    passes.reduce(CASE.problem.reduction(THETA))
    assert passes.timings.rows == sum(seen) == 233
    assert passes.timings.computing > 0
    assert Timings(1, 2.0, 3.0) + Timings(10, 20.0, 30.0) == Timings(11, 22.0, 33.0)
    assert next(iter(Timings(1, 2.0).profile.items())) == ("reading", 2.0)


# --------------------------------------------------------------------------------- the tree


def partitions_of(n):
    rng = np.random.default_rng(n)
    return [{"a": rng.normal(size=3) * 10.0 ** rng.integers(-9, 9)} for _ in range(n)]


def nodes_of(parts, runs):
    """What tasks over runs of partition groups return."""
    for first, last in runs:
        tree = SumTree()
        for i in range(first, last):
            tree.put((0, i), {"a": parts[i]["a"].copy()})
        yield tree.nodes


@given(n=st.integers(1, 70), data=st.data())
def test_any_partition_and_any_order_of_arrival_give_the_same_bits(n, data):
    parts = partitions_of(n)
    cuts = sorted(data.draw(st.sets(st.integers(1, n), max_size=n)) | {0, n})
    runs = data.draw(st.permutations(list(itertools.pairwise(cuts))))
    whole, tree = SumTree(), SumTree()
    for i, part in enumerate(parts):
        whole.put((0, i), {"a": part["a"].copy()})
    for nodes in nodes_of(parts, runs):
        for node in data.draw(st.permutations(list(nodes))):
            tree.put(node, nodes[node])
    expected, found = whole.total(), tree.total()
    assert expected is not None
    assert found is not None
    assert same_bits(found, expected)
    np.testing.assert_allclose(found["a"], sum(part["a"] for part in parts), rtol=1e-9, atol=1e-3)


def test_the_tree_is_the_one_that_is_drawn():
    a, b, c, d, e = (part["a"].copy() for part in partitions_of(5))
    tree = SumTree()
    for i in (4, 2, 0, 3, 1):
        tree.put((0, i), partitions_of(5)[i])
    total = tree.total()
    assert total is not None
    np.testing.assert_array_equal(total["a"], ((a + b) + (c + d)) + e)


@pytest.mark.slow
@given(n=st.integers(1, 2000))
def test_a_tree_holds_few_nodes(n):
    tree = SumTree()
    most = 0
    for i in range(n):
        tree.put((0, i), {"a": np.ones(1)})
        most = max(most, len(tree.nodes))
    assert most <= n.bit_length()
    total = tree.total()
    assert total is not None
    assert total["a"] == n


def test_a_tree_of_nothing_is_none():
    assert SumTree().total() is None


# -------------------------------------------------------------------------------------- scan

ROWS = 197


def numbered(chunk_rows=8, **settings: Any):
    """Rows whose y is their number."""
    X = np.random.default_rng(0).normal(size=(ROWS, 3))
    return Cut(X, np.arange(ROWS, dtype=float)[:, None], None, rows=chunk_rows, **settings)


@dataclass(frozen=True)
class Seen:
    """A scan that keeps, instead of learning, which rows came in which order."""

    def made_bytes(self, rows: int) -> int:
        del rows
        return 0

    def workspace(self, rows: int) -> Workspace:
        return {"numbers": ArraySpec((rows,))}

    @contextmanager
    def learner(self, state: Any, workspace: Any, threads: int = 1) -> Iterator[Any]:
        del threads

        def learn(block: Block, order: Any) -> None:
            taken, at = workspace["numbers"][: block.n_rows], int(state["at"])
            assert block.y is not None
            taken[:] = block.y[order, 0]
            state["rows"][at : at + block.n_rows] = taken
            assert [block.row_number(int(i)) for i in order] == taken.tolist()
            state["at"] += block.n_rows

        yield learn

    def finish(self, state: Any, work: Any) -> None:
        del work
        state["finished"] += 1

    def average(self, before: Any, after: Any) -> None:
        raise NotImplementedError  # of one replica


def seen(source, *, seed=0, epoch=0, shuffle_chunks=1, **config):
    state = {"rows": np.full(ROWS, -1.0), "at": np.zeros((), int), "finished": np.zeros((), int)}
    (after,) = stream(source, **config).scan(
        Seen(), [state], seed=seed, epoch=epoch, shuffle_chunks=shuffle_chunks
    )
    assert after["finished"] == 1
    assert state["at"] == 0  # the state that the driver holds stays as it was
    return after["rows"]


@pytest.mark.parametrize("shuffle_chunks", [1, 5, 1000])
@pytest.mark.parametrize("pipeline_threads", [1, 2, 5])
@pytest.mark.parametrize("prefetch_groups", [1, 4, 100])
@pytest.mark.parametrize("segment_rows", [1, 40, 2**18])
def test_a_scan_takes_every_row_once(
    monkeypatch, shuffle_chunks, pipeline_threads, prefetch_groups, segment_rows
):
    monkeypatch.setattr("ooc_train.stream.passes._FIRST_SEGMENT_ROWS", segment_rows)
    monkeypatch.setattr("ooc_train.stream.passes._SEGMENT_SECONDS", 0.0)
    rows = seen(
        numbered(),
        shuffle_chunks=shuffle_chunks,
        pipeline_threads=pipeline_threads,
        prefetch_groups=prefetch_groups,
    )
    assert sorted(rows) == list(range(ROWS))
    assert rows.tolist() == seen(numbered(), shuffle_chunks=shuffle_chunks).tolist()
    assert (rows == np.arange(ROWS)).sum() < 12


def test_a_scan_of_a_store_takes_every_row_once(tmp_path):
    X = np.random.default_rng(0).normal(size=(ROWS, 3))
    write_store(tmp_path / "a", X, np.arange(ROWS), chunk_rows=8)
    source = read_inputs(tmp_path / "a", classifier=False).source
    for shuffle_chunks in (1, 5, 25):
        rows = seen(source, shuffle_chunks=shuffle_chunks)
        assert sorted(rows) == list(range(ROWS))
        assert rows.tolist() == seen(numbered(), shuffle_chunks=shuffle_chunks).tolist()


def test_every_epoch_and_seed_has_its_own_order():
    orders = {seen(numbered(), seed=s, epoch=e).tobytes() for s in range(4) for e in range(4)}
    assert len(orders) == 16


@pytest.mark.parametrize("shuffle_chunks", [1, 5, 25])
def test_chunks_mix_row_by_row_and_only_within_their_group(shuffle_chunks):
    rows, at = seen(numbered(), shuffle_chunks=shuffle_chunks).astype(int), 0
    for group in order.groups(25, shuffle_chunks, 0, 0):
        due = [row for chunk in group for row in range(8 * chunk, min(8 * chunk + 8, ROWS))]
        taken = rows[at : at + len(due)].tolist()
        assert sorted(taken) == sorted(due)
        assert taken != due
        at += len(due)


def test_a_scan_in_order_takes_rows_as_they_lie():
    assert seen(numbered(), seed=None).tolist() == list(range(ROWS))


def test_a_scan_asks_ahead_for_what_a_disk_is_slow_to_bring(monkeypatch, tmp_path):
    X = np.random.default_rng(0).normal(size=(ROWS, 3))
    write_store(tmp_path / "a", X, np.arange(ROWS), chunk_rows=8)
    source = read_inputs(tmp_path / "a", classifier=False).source
    asked: list[int] = []
    monkeypatch.setattr(
        "ooc_train.store.reading.chunks.ChunkReader.prefetch",
        lambda _, start, stop: asked.extend(range(start // 8, stop // 8)),
    )
    monkeypatch.setattr("ooc_train.stream.read_ahead._READ_AHEAD_PARTITIONS", 4)
    for cold, shuffle_chunks, pipeline_threads in (
        (np.inf, 1, 1),
        (0.0, 1, 1),
        (0.0, 6, 1),
        (0.0, 1, 2),
    ):
        asked.clear()
        monkeypatch.setattr("ooc_train.stream.read_ahead._SLOW_SECONDS_PER_BYTE", cold)
        assert sorted(
            seen(
                source,
                shuffle_chunks=shuffle_chunks,
                pipeline_threads=pipeline_threads,
                prefetch_groups=1,
            )
        ) == list(range(ROWS))
        # Each chunk once, but for those that each thread reads first.
        groups = order.groups(25, shuffle_chunks, 0, 0)
        due = [] if cold else [c for group in groups[pipeline_threads:] for c in group]
        if pipeline_threads == 1:
            assert asked == due
        else:  # whichever thread is done first asks
            assert len(set(asked)) == len(asked)
            assert set(due) <= set(asked) <= {*due, *groups[1]}


def problem_of(source, weighted):
    weight = source.n_rows if not weighted else float(source.weight.sum())
    scaling = Scaling.of(source.X.mean(axis=0), source.X.std(axis=0), centre=True)
    return LinearProblem(LOSSES["squared"](), 1, source.n_rows, weight, scaling, Penalty(l2=0.1))


def updates_of(problem: LinearProblem, batch_size: int, rule: str) -> LinearUpdates:
    optimizer, schedule = OPTIMIZERS[rule](), Falling(0.7, 300.0)
    return LinearUpdates(problem, "<f8", batch_size, optimizer, schedule, 0.01)


@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize("shuffle_chunks", [1, 5])
@pytest.mark.parametrize("batch_size", [1, 7, 8, 256, ROWS - 1])
@pytest.mark.parametrize("weighted", [False, True])
def test_segments_and_pipelines_do_not_change_a_bit(
    monkeypatch, rule, shuffle_chunks, batch_size, weighted
):
    rows = numbered()
    rng = np.random.default_rng(1)
    weight = rng.uniform(0, 2, ROWS) if weighted else None
    source = Cut(rows.X, rng.normal(size=(ROWS, 1)), weight, rows=8)
    updates = updates_of(problem_of(source, weighted), batch_size, rule)
    found = []
    cuts = ((2**18, 1.0, 4, 1), (1, 0.0, 1, 5), (40, 1e-9, 3, 2), (9, 1.0, 2, 3))
    for segment_rows, seconds, pipeline_threads, prefetch_groups in cuts:
        monkeypatch.setattr("ooc_train.stream.passes._FIRST_SEGMENT_ROWS", segment_rows)
        monkeypatch.setattr("ooc_train.stream.passes._SEGMENT_SECONDS", seconds)
        state = updates.start(np.zeros((1, 4)))
        for epoch in range(3):
            passes = stream(
                source, pipeline_threads=pipeline_threads, prefetch_groups=prefetch_groups
            )
            (state,) = passes.scan(
                updates, [state], seed=5, epoch=epoch, shuffle_chunks=shuffle_chunks
            )
        filled, done, taken = state["counters"]
        assert (filled, done, taken) == (0, 3 * -(-ROWS // batch_size), 3 * ROWS)
        found.append(state)
    assert np.isfinite(found[0]["theta"]).all()
    for other in found[1:]:
        assert same_bits(other, found[0])


@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize("batch_size", [1, 9])
def test_replicas_are_the_same_to_the_bit_on_any_executor(monkeypatch, rule, batch_size):
    rows = numbered()
    y = np.random.default_rng(1).normal(size=(ROWS, 1))
    source = Cut(rows.X, y, rows=8)
    updates = updates_of(problem_of(source, weighted=False), batch_size, rule)
    # Several rounds an epoch.
    monkeypatch.setattr("ooc_train.core.partitions._ROUND_BYTES", 16 * source.row_bytes)

    def learned(n_replicas, **how):
        states = [updates.start(np.zeros((1, 4)))] * n_replicas
        for epoch in range(3):
            states = stream(source, **how).scan(
                updates, states, seed=5, epoch=epoch, shuffle_chunks=1
            )
        return states

    for replicas in (2, 3):
        expected = learned(replicas)
        assert sum(state["counters"][2] for state in expected) == 3 * ROWS
        assert all(
            same_bits({"theta": s["theta"]}, {"theta": expected[0]["theta"]}) for s in expected
        )
        for seed, at_a_time, pipeline_threads, prefetch_groups in (
            (0, 1, 1, 1),
            (1, 2, 2, 3),
            (2, 3, 1, 2),
        ):
            found = learned(
                replicas,
                executor=Shuffled(seed),
                replicas=at_a_time,
                pipeline_threads=pipeline_threads,
                prefetch_groups=prefetch_groups,
            )
            assert all(map(same_bits, found, expected))
    assert not np.array_equal(learned(2)[0]["theta"], learned(3)[0]["theta"])


def test_a_scan_uses_the_pool_of_the_plan_and_no_more(tmp_path):
    X = np.random.default_rng(0).normal(size=(ROWS, 3))
    write_store(tmp_path / "a", X, np.arange(ROWS), chunk_rows=5)
    source = read_inputs(tmp_path / "a", classifier=False).source
    for shuffle_chunks in (1, 3, 11):
        partition, updates = (
            total_bytes(source.buffers(1)),
            total_bytes(Seen().workspace(5 * shuffle_chunks)),
        )
        requirements = Requirements(
            partition=partition, workspace=0, shuffle_chunks=shuffle_chunks, updates=updates
        )
        config = make_plan(
            source, requirements, Ceiling(2**30, "given"), Processes(0, (), 1)
        ).config
        rows = seen(
            source,
            shuffle_chunks=shuffle_chunks,
            pipeline_threads=config.pipeline_threads,
            prefetch_groups=config.prefetch_groups,
            pool_bytes=config.pool_bytes,
        )
        assert sorted(rows) == list(range(ROWS))
    with pytest.raises(CeilingExceeded, match="were asked for where the plan allows"):
        seen(
            source,
            shuffle_chunks=11,
            pipeline_threads=config.pipeline_threads,
            prefetch_groups=config.prefetch_groups,
            pool_bytes=config.pool_bytes - 64,
        )


# --------------------------------------------------------------------------- map, and failures


@dataclass(frozen=True)
class Numbers:
    """A map that returns the numbers of the rows of a run."""

    def made_bytes(self, rows: int) -> int:
        del rows
        return 0

    def workspace(self, rows: int) -> Workspace:
        return {"room": ArraySpec((rows,))}

    def run(self, blocks: Any, work: Any) -> list[int]:
        return [
            block.row_number(i)
            for block in blocks
            for i in range(block.n_rows)
            if len(work["room"]) >= block.n_rows
        ]


@pytest.mark.parametrize("window", [1, 3])
def test_a_map_sees_the_rows_of_each_run(window):
    # Of leaves of 8 rows: whole ones, parts of two with one between, the last, and within one.
    runs = [(0, 24), (53, 70), (190, 197), (41, 43)]
    passes = stream(numbered(), window=window)
    found = list(passes.map(Numbers(), runs))
    assert found == [list(range(*run)) for run in runs]
    # What is read are leaves.
    assert passes.timings.rows == 24 + 24 + 13 + 8


@pytest.mark.parametrize("how", ["reduce", "scan", "map"])
def test_a_damaged_chunk_stops_every_kind_of_pass(tmp_path, how):
    X = np.random.default_rng(0).normal(size=(ROWS, 3))
    store = write_store(tmp_path / "a", X, np.arange(ROWS), chunk_rows=8, shard_chunks=4)
    shard = store.X.shard_path(2)
    with open(shard, "r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 8)
    source = read_inputs(tmp_path / "a", classifier=False).source
    passes = stream(source)
    run = {
        "reduce": lambda: passes.reduce(ColumnSums(np.zeros(3))),
        "scan": lambda: seen(source),
        "map": lambda: list(passes.map(Numbers(), [(0, ROWS)])),
    }[how]
    with pytest.raises(CorruptChunk, match=r"X, chunk 8 \(rows 64 to 71\)"):
        run()


def test_an_error_that_is_no_ones_purpose_is_raised_as_it_is():
    @dataclass(frozen=True)
    class Broken(Numbers):
        def run(self, blocks: Any, work: Any) -> list[int]:
            return [1 // 0 for _ in blocks if work]

    with pytest.raises(ZeroDivisionError):
        list(stream(numbered()).map(Broken(), [(0, 16)]))


def test_a_store_that_was_replaced_is_read_anew(tmp_path):
    for value in (1.0, 2.0):
        write_store(tmp_path / "a", np.full((20, 2), value), np.zeros(20), overwrite=True)
        source = read_inputs(tmp_path / "a", classifier=False).source
        sums = stream(source).reduce(ColumnSums(np.zeros(2)))
        assert sums["first"].tolist() == [20 * value] * 2
