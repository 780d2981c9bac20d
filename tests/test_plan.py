"""Plans: sums of their terms, refused when too large, and without a say in what is learned."""

import re
import subprocess
import sys
from dataclasses import replace

import dask.array
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_train.errors import CeilingExceeded
from ooc_train.memory import Ceiling
from ooc_train.models import kernels
from ooc_train.models.model import Model
from ooc_train.models.sums import total_bytes
from ooc_train.models.updates import update_rooms
from ooc_train.solvers.updates import Updates
from ooc_train.stream.executors import Inline
from ooc_train.stream.inputs import dask_source, read_inputs
from ooc_train.stream.passes import Grain, Stream, _shares
from ooc_train.stream.plan import Demand, Processes, make_plan
from ooc_train.stream.sources import StoreSource
from ooc_train.train import Task
from tests.streams import make_case, same_bits, write_store

MIB = 2**20
CASE = make_case("logistic", rows=900, weighted=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "rows.zarr"
    write_store(
        path, CASE.source.X, CASE.y[:, 0].astype(int), CASE.source.weight, chunk_rows=9, codec="lz4"
    )
    return read_inputs(path, classifier=True).source


@pytest.fixture(scope="module")
def large(source):
    """A store of 80 GB, which nobody has to write to plan for it."""
    X = replace(source.X, shape=(200_000_000, 100), dtype="<f4", chunk_rows=2048, shard_rows=163840)
    y, weight = (
        replace(a, shape=(200_000_000,), chunk_rows=2048, shard_rows=163840)
        for a in (source.y, source.weight)
    )
    return replace(source, X=X, y=y, weight=weight, n_rows=200_000_000)


def plan_of(source, mib, *, processes=None, **demand):
    leaf = total_bytes(source.rooms(1))
    demand = {"workspace": 0, "sums": 800, "parameters": 808, "slots": 3} | demand
    processes = processes or Processes(0, ((90 * MIB, 1), (95 * MIB, 1)), 2)
    return make_plan(source, Demand(leaf, **demand), Ceiling(int(mib * MIB), "given"), processes)


processes = st.builds(
    lambda driver, workers: Processes(
        driver, tuple(workers), sum(n for _, n in workers) or 1
    ),
    st.integers(0, 200 * MIB),
    st.lists(st.tuples(st.integers(0, 200 * MIB), st.integers(1, 4)), max_size=4),
)  # fmt: skip
demands = st.fixed_dictionaries(
    {
        "workspace": st.integers(0, 20 * MIB),
        "sums": st.integers(0, MIB),
        "parameters": st.integers(0, MIB),
        "slots": st.integers(0, 30),
        "mixing": st.sampled_from([0, 1, 5, 64]),
        "lanes": st.integers(1, 5),
        "updates": st.integers(0, 2 * MIB),
        "results": st.sampled_from([0, MIB]),
    }
)


@settings(max_examples=50, deadline=None)
@given(mib=st.floats(1, 3000), processes=processes, demand=demands)
def test_a_plan_is_the_sum_of_its_terms_and_never_over_the_ceiling(large, mib, processes, demand):
    plan = plan_of(large, mib, processes=processes, **demand)
    assert plan.projected == sum(term.bytes for term in plan.projection.terms)
    assert all(term.bytes >= 0 and term.why for term in plan.projection.terms)
    assert plan.to_json()["fits"] == (plan.projected <= plan.ceiling.limit)
    # At least one chunk is read at a time; each thread of a scan has buffers of its own.
    chunk = total_bytes(large.rooms(1))
    assert plan.grain.pool_bytes >= chunk + demand["workspace"]
    of_turn = demand["mixing"] * 2048 * large.row_bytes
    if demand["mixing"]:
        # So many lanes may meet in one process.
        most = max((n for _, n in processes.workers), default=plan.threads)
        at_once = plan.grain.turns * min(plan.grain.lanes, most)
        assert plan.grain.pool_bytes >= at_once * plan.grain.lot * of_turn
        assert plan.grain.lanes == min(demand["lanes"], plan.threads)
    assert min(plan.grain.task_stripes, plan.grain.window, plan.grain.turns, plan.grain.lot) >= 1
    assert plan.threads <= processes.threads
    if plan.projected <= plan.ceiling.limit:
        plan.validate()
        return
    with pytest.raises(CeilingExceeded, match="the run needs"):
        plan.validate()
    # What is named as the smallest ceiling is one that will do.
    smallest = Ceiling.of(plan.smallest)
    again = plan_of(large, smallest.limit / MIB, processes=processes, **demand)
    again.validate()
    assert again.projected >= plan.projected


@settings(max_examples=20, deadline=None)
@given(mib=st.lists(st.floats(1, 3000), min_size=2, max_size=6), demand=demands)
def test_a_larger_ceiling_makes_no_plan_worse(large, mib, demand):
    plans = [plan_of(large, m, **demand) for m in sorted(mib)]
    order = [(plan.threads, plan.grain.lanes, plan.grain.turns, plan.grain.lot) for plan in plans]
    assert order == sorted(order)


@pytest.mark.parametrize("mixing", [0, 1])
def test_where_room_is_short_no_more_tasks_run_than_have_room(large, mixing):
    eight = Processes(0, ((90 * MIB, 1),) * 8, 8)
    seen = set()
    for mib in range(820, 1100, 8):
        plan = plan_of(large, mib, processes=eight, mixing=mixing, workspace=20 * MIB)
        if plan.projected > plan.ceiling.limit:
            continue
        seen.add(plan.threads)
        buffers = next(t.bytes for t in plan.projection.terms if t.name == "buffers")
        tasks = min(plan.grain.window, 8)
        assert tasks * (total_bytes(large.rooms(1)) + 20 * MIB) <= buffers
        assert plan.grain.window == (32 if plan.threads == 8 else plan.threads)
    assert seen == set(range(1, 9))


def test_the_table_is_what_users_see(large):
    assert plan_of(large, 400).explain() == TABLE
    table = plan_of(large, 200).explain()
    assert table.splitlines()[-1].split("  ")[-1].startswith("smallest ceiling: ")
    assert table.splitlines()[-1].startswith("missing")


def test_a_plan_shows_itself_with_the_ways_out(large):
    fits, tight = plan_of(large, 400), plan_of(large, 60, processes=Processes(0, (), 1), mixing=64)
    assert str(fits).splitlines()[-1] == fits.verdict
    assert re.match(r"it fits: .* would do with 2 workers is \d+MiB$", fits.verdict)
    assert fits.smallest_ceiling < fits.projected
    assert repr(fits) == (
        f"<Plan: {round(fits.projected / MIB)} MiB projected, the ceiling is 400 MiB (given); "
        f"{fits.verdict}>"
    )
    assert "with" not in tight.verdict
    assert str(tight).splitlines()[-1] == f"or {tight.ways_out()[0]}"
    page = replace(tight, advice="put them <script>in order")._repr_html_()
    assert "or put them &lt;script&gt;in order</p>" in page
    assert page.count("<tr>") == len(tight.explain().splitlines())
    assert f"<td>{tight.ceiling.limit // MIB} MiB</td><td>given</td>" in page


def test_a_refusal_states_need_ceiling_and_the_way_out(large):
    plan = plan_of(large, 100)
    with pytest.raises(CeilingExceeded) as error:
        plan.validate()
    said = str(error.value)
    assert f"needs {round(plan.projected / MIB)} MiB and its memory ceiling is 100 MiB" in said
    assert f"raise the memory ceiling to at least {-(-plan.projected // MIB)}MiB" in said
    assert "use fewer workers (each holds 95 MiB before any data)" in said
    assert plan.explain() in said
    one = plan_of(large, 10, processes=Processes(0, (), 1), mixing=64)
    with pytest.raises(CeilingExceeded, match=r"so that 64 chunks need not be mixed") as error:
        one.validate()
    assert "fewer workers" not in str(error.value)
    assert re.search(r"ooc-train shuffle \S+rows.zarr \S+rows.shuffled.zarr$", said_first(error))
    with pytest.raises(CeilingExceeded, match="use a smaller shuffle_buffer"):
        plan_of(replace(large, shuffled=True), 45, processes=one.processes, mixing=64).validate()


def said_first(error):
    return str(error.value).splitlines()[0]


def in_chunks_of(large, rows, **more):
    return replace(large, X=replace(large.X, chunk_rows=rows, shard_rows=rows, **more))


def test_chunks_that_are_too_large_come_with_the_command_that_makes_them_small(large):
    alone = Processes(0, (), 1)
    packed = in_chunks_of(large, 2_000_000)
    with pytest.raises(CeilingExceeded, match="chunks of X take 763 MiB each, in small") as error:
        plan_of(packed, 500, processes=alone).validate()
    command = said_first(error).partition("ooc-train ")[2].split()
    assert command[0] == "rechunk"
    assert command[1:3] == [large.path, large.path.replace("rows.zarr", "rows.rechunked.zarr")]
    # A chunk, its code and what is held beside: the size that will do.
    assert 2 * 763 < int(command[4].removesuffix("MiB")) < 2 * 763 + 120
    of_y = replace(large, y=replace(large.y, chunk_rows=20_000_000, shard_rows=20_000_000))
    with pytest.raises(CeilingExceeded, match="chunks of y take 153 MiB each, in small"):
        plan_of(of_y, 200, processes=alone).validate()
    # Raw chunks are read in parts, and need none of it.
    raw = in_chunks_of(large, 2_000_000, codec="raw", crc=False)
    plan_of(raw, 150, processes=alone).validate()
    checked = in_chunks_of(large, 2_000_000, codec="raw", crc=True)
    with pytest.raises(CeilingExceeded) as error:
        plan_of(checked, 500, processes=alone).validate()
    assert int(said_first(error).rpartition(" ")[2].removesuffix("MiB")) < 150


def test_a_row_that_is_too_large_is_told_as_such(large):
    wide = in_chunks_of(large, 1)
    wide = replace(wide, X=replace(wide.X, shape=(10, 50_000_000)), n_rows=10)
    with pytest.raises(CeilingExceeded, match=r"a row alone takes 191 MiB"):
        plan_of(wide, 200, processes=Processes(0, (), 1)).validate()


WIDE = """
import sys
from ooc_train.memory import measure
from ooc_train.models.model import Model
from ooc_train.stream.inputs import read_inputs
from ooc_train.train import Task

before = measure().peak
task = Task.of(Model(name="logistic"), read_inputs(sys.argv[1], classifier=True))
demand = task.demand()
print(task.solver_name, demand.leaf, demand.parameters, measure().peak - before)
"""


def test_parameters_beyond_the_ceiling_are_counted_without_being_made(tmp_path):
    """50 million columns: a row, and a set of parameters, of hundreds of MB; and no file of X."""
    import zarr

    group = zarr.open_group(tmp_path / "wide.zarr", mode="w")
    group.create_array("X", shape=(3, 50_000_000), chunks=(1, 50_000_000), dtype="f4")
    group.create_array("y", data=np.array([0, 1, 0]), chunks=(3,))
    ran = subprocess.run(
        [sys.executable, "-c", WIDE, str(tmp_path / "wide.zarr")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    solver, *figures = ran.stdout.split()
    leaf, parameters, grown = map(int, figures)
    assert solver == "lbfgs"
    assert leaf >= 200_000_000
    assert parameters == 8 * 50_000_001
    assert grown < 40 * MIB


def test_a_matrix_that_no_machine_holds_is_refused_with_its_size(tmp_path):
    X = np.zeros((4, 3_000_000), "f4")
    inputs = read_inputs(write_store(tmp_path / "a", X, np.arange(4) % 2).path, classifier=True)
    for model in (Model(name="logistic", solver="newton"), Model(name="ridge", solver="gram")):
        with pytest.raises(CeilingExceeded, match=r"3,000,001 x 3,000,001 numbers, 65\.5 TiB"):
            Task.of(model, inputs).demand()


def test_parameters_that_are_too_many_are_told_as_such(large):
    with pytest.raises(CeilingExceeded, match="fewer columns, or by a solver that holds less"):
        plan_of(large, 500, parameters=400 * MIB, slots=30).validate()


def test_planning_reads_nothing(large):
    for mixing in (0, 1, 64):
        plan_of(large, 500, mixing=mixing)  # there are no such files


def test_tasks_are_coarse_but_enough_for_all_threads(large):
    grain = plan_of(large, 1000).grain
    stripe = large.stripe_leaves * large.leaf_rows * large.row_bytes
    assert 512 * MIB < grain.task_stripes * stripe <= 1024 * MIB
    assert 32 * MIB < grain.least_stripes * stripe <= 64 * MIB
    for stripes in (grain.task_stripes, grain.least_stripes):
        assert stripes & (stripes - 1) == 0
    few = replace(large, n_rows=20 * large.stripe_leaves * large.leaf_rows)
    assert plan_of(few, 1000).grain.least_stripes == 2  # 10 tasks for 2 threads


def test_blocks_that_tasks_are_given_are_few_at_a_time():
    X = dask.array.zeros((4_000_000, 100), chunks=(5_000, -1), dtype="f4")
    grain = plan_of(dask_source(X), 1000).grain
    assert grain.window == 4
    assert grain.task_stripes * 5_000 * 400 <= 64 * MIB


@given(
    stripes=st.integers(1, 3000),
    task=st.integers(0, 9),
    least=st.integers(0, 9),
    threads=st.integers(1, 8),
)
def test_shares_are_whole_nodes_that_shrink_towards_the_end(stripes, task, least, threads):
    grain = Grain(2**task, 2 * threads, 1, 1, 1, 0, 2 ** min(task, least), threads)
    shares = list(_shares(stripes, grain))
    assert [first for first, _ in shares] == [0, *(last for _, last in shares[:-1])]
    assert shares[-1][1] == stripes
    sizes = [last - first for first, last in shares]
    for (first, _), size in zip(shares[:-1], sizes[:-1], strict=True):
        assert first % size == 0
        assert size & (size - 1) == 0
    assert sizes[:-1] == sorted(sizes[:-1], reverse=True)
    assert sizes[-1] < 2 * max(sizes[:-1], default=stripes)
    assert all(grain.least_stripes <= size <= grain.task_stripes for size in sizes[:-1])


@pytest.mark.parametrize("name", ["zarr", "y"])
def test_what_others_allocate_is_a_term(source, name):
    hidden = source
    if name == "y":
        hidden = replace(source, y=replace(source.y, chunk_rows=1800, shard_rows=1800))
        assert hidden.hidden_bytes >= 1800 * 8
    else:
        import zarr

        zarr.create_array(source.X.path + "/../F", data=np.zeros((90, 4)), chunks=(9, 4))
        foreign = replace(source.X, path=source.X.path + "/../F", direct=False)
        hidden = replace(source, X=foreign)
        assert hidden.hidden_bytes == 2 * 9 * 4 * 8
    terms = {t.name: t.bytes for t in plan_of(hidden, 1000).projection.terms}
    assert terms["decoding"] == 2 * hidden.hidden_bytes
    assert source.hidden_bytes == 0


# ------------------------------------------------- a plan changes nothing of what is learned


@settings(max_examples=8, deadline=None)
@given(mib=st.floats(40.2, 41.5), threads=st.integers(1, 6), batch_size=st.sampled_from([1, 7, 64]))
def test_what_is_learned_is_the_same_under_any_plan(source, mib, threads, batch_size):
    kernels.load(source.dtype)
    found = []
    for limit, n in ((mib, threads), (4000.0, 1)):
        solver = Updates("sgd", batch_size, 0.01, 3, 0.0, 5, 2)
        work = CASE.problem.sums(CASE.problem.zeros()[None], hessian=True)
        workspace = total_bytes(work.rooms(source.leaf_rows))
        leaf = total_bytes(source.rooms(1))
        updates = total_bytes(update_rooms(CASE.problem, source.leaf_rows * 2))
        demand = Demand(leaf=leaf, workspace=workspace, mixing=2, updates=updates)
        plan = make_plan(source, demand, Ceiling(int(limit * MIB), "given"), Processes(0, (), n))
        plan.validate()
        passes = Stream(source, Inline(), plan.grain)
        state = solver.start(CASE.problem, passes, CASE.problem.zeros())
        for _ in range(2):
            state = solver.step(CASE.problem, passes, state)
        found.append(passes.reduce(work) | state.memory.states[0])
    assert same_bits(*found)


def test_a_source_of_a_store_asks_for_y_only_where_it_is_needed(source, tmp_path):
    store = write_store(tmp_path / "a", CASE.source.X, CASE.y[:, 0].astype(int))
    assert "y" not in StoreSource.of(store, needs_y=False).rooms()
    assert StoreSource.of(store, needs_y=False).n_outputs == 0
    assert set(source.rooms()) == {"X", "y", "y at rest", "weight", "weight at rest", "encoded"}


TABLE = """\
reserved     185 MiB  worker 90 MiB + worker 95 MiB
growth        40 MiB  interpreters, the scheduler's books and the dashboard's
libraries        0 B  shared with processes that may end meanwhile
buffers     4.38 MiB  2 x 2.19 MiB: a chunk, and the work on it
decoding         0 B  by zarr-python, and of a y in other chunks than X
sums        41.4 KiB  800 B in flight and in the tree of sums
parameters  11.8 KiB  15 x 808 B
projected    229 MiB
ceiling      400 MiB  given
left         171 MiB"""
