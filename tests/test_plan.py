"""Plans: sums of their terms, refused when too large, and without a say in what is learned."""

import itertools
import re
import subprocess
import sys
from dataclasses import replace

import dask.array
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_train.core.sums import total_bytes
from ooc_train.core.units import parse_bytes
from ooc_train.errors import CeilingExceeded
from ooc_train.memory.ceiling import START_BYTES, Ceiling
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.column_moments import ColumnSums
from ooc_train.models.model import Model
from ooc_train.models.regression_models import LassoModel, LeastSquares, RidgeModel
from ooc_train.solvers.base import advance, start
from ooc_train.solvers.training_settings import Training
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.stream.baseline import Processes
from ooc_train.stream.dask_source import dask_source
from ooc_train.stream.executors import LocalExecutor
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.pass_config import PassConfig
from ooc_train.stream.passes import Stream, task_ranges
from ooc_train.stream.plan_choices import make_plan
from ooc_train.stream.requirements import Requirements
from ooc_train.stream.store_source import StoreSource
from ooc_train.training.column_scaling import prepared
from ooc_train.training.task import Task
from tests.accesses import accesses
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


def plan_of(source, mib, *, processes=None, **requirements):
    partition = total_bytes(source.buffers(1))
    requirements = {"workspace": 0, "sums": 800, "parameters": 808, "slots": 3} | requirements
    processes = processes or Processes(0, ((90 * MIB, 1), (95 * MIB, 1)), 2)
    return make_plan(
        source, Requirements(partition, **requirements), Ceiling(int(mib * MIB), "given"), processes
    )


@st.composite
def stores(draw):
    """Stores of any shape, type and layout, which nobody has to write to plan for them."""
    rows, features = draw(st.integers(1, 10**9)), draw(st.integers(1, 3000))
    kinds = st.sampled_from(["|b1", "|u1", "<i4", "<f2", "<f4", "<f8"])
    codecs = st.sampled_from([("raw", False), ("raw", True), ("blosc", True), ("zstd", False)])
    chunk_rows = max(1, 2 ** draw(st.integers(10, 24)) // (8 * features))

    def array(name, row_shape, dtype, chunk_rows):
        codec, crc = draw(codecs)
        shard_rows = chunk_rows * draw(st.integers(1, 80))
        shape = (rows, *row_shape)
        return ArrayLayout(
            f"/none/{name}",
            name,
            shape,
            dtype,
            chunk_rows,
            shard_rows,
            True,
            codec,
            crc,
            True,
            "{}",
        )

    of_others = st.sampled_from([chunk_rows, chunk_rows, 1000, 10**6])
    X = array("X", (features,), draw(kinds), chunk_rows)
    y = array("y", draw(st.sampled_from([(), (3,)])), draw(kinds), draw(of_others))
    weight = array("sample_weight", (), "<f8", draw(of_others)) if draw(st.booleans()) else None
    return StoreSource(X, y, weight, rows, draw(st.booleans()), "/none")


workers = st.tuples(st.integers(0, 200 * MIB), st.integers(1, 4))
processes = st.builds(
    lambda driver, workers, libraries, limits: Processes(
        driver,
        tuple(workers),
        sum(n for _, n in workers) or 1,
        libraries,
        tuple(limits[: len(workers)]),
    ),
    st.integers(0, 200 * MIB),
    st.lists(workers, max_size=4),
    st.sampled_from([0, 50 * MIB]),
    st.just([]) | st.lists(st.integers(0, 600 * MIB), min_size=4, max_size=4),
)
requirements = st.fixed_dictionaries(
    {
        "workspace": st.integers(0, 20 * MIB),
        "sums": st.integers(0, MIB),
        "parameters": st.integers(0, MIB),
        "slots": st.integers(0, 30),
        "shuffle_chunks": st.sampled_from([0, 1, 5, 64]),
        "replicas": st.integers(1, 5),
        "updates": st.integers(0, 2 * MIB),
        "results": st.sampled_from([0, MIB]),
    }
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(store=stores(), more=st.floats(-9, 9), processes=processes, requirements=requirements)
def test_a_plan_is_the_sum_of_its_terms_and_never_over_the_ceiling(
    store, more, processes, requirements
):
    mib = plan_of(store, 1, processes=processes, **requirements).projected / MIB + more
    plan = plan_of(store, mib, processes=processes, **requirements)
    assert plan.projected == sum(term.bytes for term in plan.projection.terms)
    assert all(term.bytes >= 0 and term.why for term in plan.projection.terms)
    assert plan.to_json()["fits"] == plan.fits
    if plan.fits:
        assert plan.projected <= plan.ceiling.limit
        plan.validate()
        return
    with pytest.raises(CeilingExceeded, match=r"the run needs|would need"):
        plan.validate()
    # What is named as the smallest ceiling, and as what workers need by their own, will do.
    for _ in processes.workers:
        if plan.overrun is None:
            break
        worker, limit, need = plan.overrun
        assert limit < need
        limits = list(processes.limits)
        limits[worker] = need
        processes = replace(processes, limits=tuple(limits))
        plan = plan_of(store, mib, processes=processes, **requirements)
    assert plan.overrun is None
    if plan.fits:
        return
    smallest = parse_bytes(plan.smallest) / MIB
    again = plan_of(store, max(mib, smallest), processes=processes, **requirements)
    again.validate()
    assert again.projected >= plan.projected
    # And no less, but for what processes may differ by from one start to the next.
    started = bool(processes.driver) + len(processes.workers)
    less = smallest - 1 - started * START_BYTES / MIB
    assert not plan_of(store, less, processes=processes, **requirements).fits


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(store=stores(), mib=st.floats(1, 6000), processes=processes, requirements=requirements)
def test_the_pool_of_a_process_is_large_enough_for_all_its_tasks(
    store, mib, processes, requirements
):
    """Tasks take all of their buffers at once, so that one that fits alone ends some day."""
    config = (plan := plan_of(store, mib, processes=processes, **requirements)).config
    partition = total_bytes(store.buffers())
    assert partition >= store.partition_rows * store.n_features
    assert config.pool_bytes >= partition + requirements["workspace"]
    if shuffle_chunks := requirements["shuffle_chunks"]:
        order = 8 * config.prefetch_groups * shuffle_chunks * store.partition_rows
        prefetch_groups = (
            total_bytes(store.buffers(config.prefetch_groups * shuffle_chunks)) + order
        )
        # So many replicas may meet in one process.
        most = max((n for _, n in processes.workers), default=plan.threads)
        assert config.replicas == min(requirements["replicas"], plan.threads)
        replica = config.slots * prefetch_groups + requirements["updates"]
        # Where a worker's own limit is short, one replica waits for another.
        together = 1 if any(processes.limits) else min(config.replicas, most)
        assert config.pool_bytes >= together * replica
        assert config.slots == 1 if config.pipeline_threads == 1 else config.slots in (2, 3)
        if plan.threads == processes.threads and config.replicas == 1:
            # While one process scans, the others hold buffers of the passes before.
            others = max(0, len(processes.workers) - 1)
            reduce = partition + requirements["workspace"]
            terms = {term.name: term.bytes for term in plan.projection.terms}
            assert terms["buffers"] >= replica + others * reduce
    assert (
        min(
            config.task_groups,
            config.min_task_groups,
            config.pipeline_threads,
            config.prefetch_groups,
        )
        >= 1
    )
    assert 1 <= plan.threads <= min(config.window, processes.threads)
    buffers = next(term.bytes for term in plan.projection.terms if term.name == "buffers")
    # Where no thread waits for room, all tasks that can run at a time have it.
    assert buffers >= min(config.window, processes.threads) * (
        partition + requirements["workspace"]
    )


def goodness(plan):
    """What a larger ceiling may raise and must not lower."""
    config = plan.config
    of_scan = config.replicas, config.pipeline_threads, config.prefetch_groups
    return plan.threads, config.window, *of_scan, config.task_groups, config.pool_bytes


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    store=stores(),
    step=st.sampled_from([2.0**i for i in range(-4, 5)]),
    processes=processes,
    requirements=requirements,
)
def test_a_larger_ceiling_makes_no_plan_worse(store, step, processes, requirements):
    least = plan_of(store, 1, processes=processes, **requirements).projected / MIB
    ceilings = [least + i * step for i in range(20)]
    plans = [plan_of(store, mib, processes=processes, **requirements) for mib in ceilings]
    for small, large in itertools.pairwise(plans):
        better = list(zip(goodness(small), goodness(large), strict=True))
        assert all(less <= more for less, more in better), better
        # The last tasks of a pass are smaller only where more threads share what is left.
        if small.threads == large.threads:
            assert small.config.min_task_groups == large.config.min_task_groups
        assert small.partition_rows == large.partition_rows


@pytest.mark.parametrize("shuffle_chunks", [0, 1])
def test_under_a_small_ceiling_no_more_tasks_run_than_have_memory(large, shuffle_chunks):
    eight = Processes(0, ((90 * MIB, 1),) * 8, 8)
    seen = set()
    for mib in range(820, 1100, 8):
        plan = plan_of(
            large, mib, processes=eight, shuffle_chunks=shuffle_chunks, workspace=20 * MIB
        )
        if plan.projected > plan.ceiling.limit:
            continue
        seen.add(plan.threads)
        buffers = next(t.bytes for t in plan.projection.terms if t.name == "buffers")
        tasks = min(plan.config.window, 8)
        assert tasks * (total_bytes(large.buffers(1)) + 20 * MIB) <= buffers
        assert plan.config.window == (32 if plan.threads == 8 else plan.threads)
    assert seen == set(range(1, 9))


def test_the_table_is_what_users_see(large):
    assert plan_of(large, 400).explain() == TABLE
    table = plan_of(large, 200).explain()
    assert table.splitlines()[-1].split("  ")[-1].startswith("enough at each start: ")
    assert table.splitlines()[-1].startswith("missing")


def test_a_plan_shows_itself_with_the_ways_out(large):
    fits, tight = (
        plan_of(large, 400),
        plan_of(large, 60, processes=Processes(0, (), 1), shuffle_chunks=64),
    )
    assert str(fits).splitlines()[-1] == fits.verdict
    assert re.match(r"it fits: .* would do at each start with 2 workers is \d+MiB$", fits.verdict)
    assert fits.smallest_ceiling - 3 * START_BYTES < fits.projected
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
    assert f"raise the memory ceiling to {plan.smallest}" in said
    # What processes hold as they start differs a little from one start to the next.
    started = plan.projection.started * START_BYTES
    assert started > 0
    assert 0 <= plan.smallest_ceiling - plan.projected - started < MIB
    assert "use fewer workers (each holds 95 MiB before any data)" in said
    assert plan.explain() in said
    one = plan_of(large, 10, processes=Processes(0, (), 1), shuffle_chunks=64)
    with pytest.raises(CeilingExceeded, match=r"so that 64 chunks need not be mixed") as error:
        one.validate()
    assert "fewer workers" not in str(error.value)
    assert re.search(r"ooc-train shuffle \S+rows.zarr \S+rows.shuffled.zarr$", said_first(error))
    with pytest.raises(CeilingExceeded, match="use a smaller shuffle_chunks"):
        plan_of(
            replace(large, shuffled=True), 45, processes=one.processes, shuffle_chunks=64
        ).validate()


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
    # Raw chunks are read in parts, and need none of it; those with a checksum a piece to check it.
    decoding = []
    for crc in (False, True):
        raw = in_chunks_of(large, 2_000_000, codec="raw", crc=crc)
        plan = plan_of(raw, 50, processes=alone)
        plan.validate()
        decoding += [term.bytes for term in plan.projection.terms if term.name == "decoding"]
        assert "chunks of X" not in plan.advice
    assert decoding[1] - decoding[0] == MIB


def test_a_row_that_is_too_large_is_reported(large):
    wide = in_chunks_of(large, 1)
    wide = replace(wide, X=replace(wide.X, shape=(10, 50_000_000)), n_rows=10)
    with pytest.raises(CeilingExceeded, match=r"a row alone takes 191 MiB"):
        plan_of(wide, 200, processes=Processes(0, (), 1)).validate()


WIDE = """
import sys
from ooc_train.memory.processes import measure
from ooc_train.models.classification_models import LogisticModel
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.task import Task

before = measure().peak
task = Task.of(LogisticModel(), read_inputs(sys.argv[1], classifier=True))
requirements = task.requirements()
print(task.solver.name, requirements.partition, requirements.parameters, measure().peak - before)
"""


def wide_group(path, columns):
    """Make a group of 3 rows of so many columns, without a file of X, and return its path."""
    import zarr

    group = zarr.open_group(path, mode="w")
    group.create_array("X", shape=(3, columns), chunks=(1, columns), dtype="f4")
    group.create_array("y", data=np.array([0, 1, 0]), chunks=(3,))
    return str(path)


@pytest.mark.slow
def test_parameters_beyond_the_ceiling_are_counted_without_being_made(tmp_path):
    """50 million columns: a row, and a set of parameters, of hundreds of MB."""
    ran = subprocess.run(
        [sys.executable, "-c", WIDE, wide_group(tmp_path / "wide.zarr", 50_000_000)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    solver, *figures = ran.stdout.split()
    partition, parameters, grown = map(int, figures)
    assert solver == "lbfgs"
    assert partition >= 200_000_000
    assert parameters == 8 * 50_000_001
    assert grown < 40 * MIB


def test_a_matrix_that_no_machine_holds_is_refused_with_its_size(tmp_path):
    inputs = read_inputs(wide_group(tmp_path / "wide.zarr", 3_000_000), classifier=True)
    models: list[tuple[Model, str, str]] = [
        (LogisticModel(), "newton", "solver='lbfgs' or 'sgd', which hold none"),
        (RidgeModel(), "gram", "solver='lbfgs' or 'sgd', which hold none"),
        (LassoModel(), "coordinate-descent", "solver='proximal-lbfgs' or 'sgd', which hold none"),
        (LassoModel(positive=True), "coordinate-descent", "fewer columns, or positive=False"),
    ]
    for model, solver, way_out in models:
        said = rf"3,000,001 x 3,000,001 numbers, 65\.5 TiB.* use {way_out}"
        with pytest.raises(CeilingExceeded, match=said):
            Task.of(model, inputs, Training(solver=solver)).requirements()


def test_parameters_that_are_too_many_are_reported(large):
    way_out = "learn from fewer columns"
    with pytest.raises(CeilingExceeded, match=f", or {way_out}\n"):
        plan_of(large, 500, parameters=400 * MIB, slots=30, way_out=way_out).validate()
    with pytest.raises(CeilingExceeded) as refused:
        plan_of(large, 500, parameters=400 * MIB, slots=30).validate()
    assert "columns" not in str(refused.value).splitlines()[0]


def test_only_a_fit_is_told_to_take_another_solver():
    inputs = read_inputs(np.ones((8, 2)), np.arange(8) % 2, classifier=True)
    assert "lbfgs or sgd" in Task.of(LogisticModel(), inputs).requirements().way_out
    sums = [ColumnSums(np.zeros(2))]
    assert Requirements.of(inputs.source, sums).way_out == ""
    assert Requirements.of(inputs.source, sums, way_out="fewer").way_out == "fewer"


def test_planning_reads_nothing(large):
    with accesses(this_thread=True) as found:
        for shuffle_chunks in (0, 1, 64):
            found_plan = plan_of(large, 500, shuffle_chunks=shuffle_chunks)
            found_plan.validate()
            found_plan.explain()
    assert found == []
    with accesses(this_thread=True) as found:
        read_inputs(large.path, classifier=True)
    assert found  # whoever reads is heard


def test_tasks_are_coarse_but_enough_for_all_threads(large):
    config = plan_of(large, 1000).config
    group = large.group_partitions * large.partition_rows * large.row_bytes
    assert 512 * MIB < config.task_groups * group <= 1024 * MIB
    assert 32 * MIB < config.min_task_groups * group <= 64 * MIB
    for groups in (config.task_groups, config.min_task_groups):
        assert groups & (groups - 1) == 0
    few = replace(large, n_rows=20 * large.group_partitions * large.partition_rows)
    assert plan_of(few, 1000).config.min_task_groups == 2  # 10 tasks for 2 threads


def test_blocks_of_tasks_are_few_at_a_time():
    X = dask.array.zeros((4_000_000, 100), chunks=(5_000, -1), dtype="f4")
    config = plan_of(dask_source(X), 1000).config
    assert config.window == 4
    assert config.task_groups * 5_000 * 400 <= 64 * MIB


@given(
    groups=st.integers(1, 3000),
    task=st.integers(0, 9),
    least=st.integers(0, 9),
    threads=st.integers(1, 8),
)
def test_shares_are_whole_nodes_that_shrink_towards_the_end(groups, task, least, threads):
    config = PassConfig(2**task, 2 * threads, 1, 1, 1, 1, 0, 2 ** min(task, least), threads)
    shares = list(task_ranges(groups, config))
    assert [first for first, _ in shares] == [0, *(last for _, last in shares[:-1])]
    assert shares[-1][1] == groups
    sizes = [last - first for first, last in shares]
    for (first, _), size in zip(shares[:-1], sizes[:-1], strict=True):
        assert first % size == 0
        assert size & (size - 1) == 0
    assert sizes[:-1] == sorted(sizes[:-1], reverse=True)
    assert sizes[-1] < 2 * max(sizes[:-1], default=groups)
    assert all(config.min_task_groups <= size <= config.task_groups for size in sizes[:-1])


@pytest.mark.parametrize(
    ("replicas", "threads", "due"),
    [
        (1, 2, r"2 threads of a worker read \d+ pieces of 2,048 rows .* at a time, one learns"),
        (2, 2, "for each of 2 replicas, a thread reads a piece of 2,048 rows .* at a time"),
        (2, 4, "for each of 2 replicas, 2 threads of a worker read"),
    ],
)
def test_a_plan_says_which_threads_read_for_the_replicas(large, replicas, threads, due):
    workers = Processes(0, ((90 * MIB, 1),) * threads, threads)
    plan = plan_of(large, 3000, processes=workers, shuffle_chunks=1, replicas=replicas)
    assert re.match(due, plan.reads)


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


RUNS: dict[str, tuple[Model, Training]] = {
    "newton": (LogisticModel(), Training()),
    "lbfgs": (LogisticModel(), Training(solver="lbfgs")),
    "gram": (RidgeModel(standardize=True), Training()),
    "coordinate descent": (LassoModel(alpha=0.1), Training(tol=1e-9)),
    "full": (LogisticModel(), Training(solver="sgd", random_state=5)),
    "sgd": (LogisticModel(), Training(batch_size=7, random_state=5)),
    "adam": (LeastSquares(), Training(batch_size="chunk", solver="adam", random_state=5)),
    "one": (LogisticModel(), Training(batch_size=1, shuffle_chunks=5, random_state=5)),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Stores in chunks and codecs of several kinds, shuffled and not."""
    folder, y = tmp_path_factory.mktemp("written"), CASE.y[:, 0].astype(int)
    X, weight = CASE.source.X, CASE.source.weight
    return [
        write_store(folder / "a", X, y, weight, chunk_rows=9, codec="lz4").path,
        write_store(folder / "b", X.astype("f4"), y, chunk_rows=64, codec="none", shuffled=1).path,
        write_store(folder / "c", X.astype("f2"), y, chunk_rows=400, codec="zstd").path,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
@settings(max_examples=6, deadline=None)
@given(number=st.integers(0, 2), room=st.floats(0, 2), threads=st.integers(1, 6))
def test_what_is_learned_is_the_same_under_any_plan(written, name, number, room, threads):
    """Solver, samples, leaves and their order, to the last bit of what comes of them."""
    (model, training), found = RUNS[name], []
    inputs = read_inputs(written[number], classifier=model.is_classifier)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ooc_train.stream.sources._GROUP_BYTES", 2**10)
        for more, n in ((room, threads), (4000.0, 1)):
            task = Task.of(model, inputs, training)
            requirements, alone = task.requirements(), Processes(0, (), n)
            least = make_plan(inputs.source, requirements, Ceiling(1, "given"), alone).projected
            ceiling = Ceiling(int(least + more * MIB), "given")
            plan = make_plan(inputs.source, requirements, ceiling, alone)
            plan.validate()
            passes = Stream(inputs.source, LocalExecutor(), plan.config)
            problem = replace(task.linear_problem, scaling=prepared(task, passes).scaling)
            state = start(task.solver, problem, passes, problem.initial())
            for _ in range(2):
                state = advance(task.solver, problem, passes, state)
            rows = np.array(passes.timings.rows)
            found.append({"theta": state.params, "loss": np.array(state.loss), "rows": rows})
    assert same_bits(*found)


def test_a_source_of_a_store_asks_for_y_only_where_it_is_needed(source, tmp_path):
    store = write_store(tmp_path / "a", CASE.source.X, CASE.y[:, 0].astype(int))
    assert "y" not in StoreSource.of(store, needs_y=False).buffers()
    assert StoreSource.of(store, needs_y=False).n_outputs == 0
    assert set(source.buffers()) == {"X", "y", "y at rest", "weight", "weight at rest", "encoded"}


TABLE = """\
baseline           185 MiB  worker 90 MiB + worker 95 MiB
headroom            40 MiB  growth of interpreters, scheduler and dashboard
shared libraries       0 B  shared with processes that may end
buffers           4.38 MiB  2 x 2.19 MiB: a chunk, and the work on it
decoding               0 B  by zarr-python, and of a y in other chunks than X
sums              30.5 KiB  800 B in flight and in the tree of sums
parameters        2.37 KiB  3 x 808 B that the driver holds
shared                 0 B  0 B of arguments, and what tasks make of them
projected          229 MiB
ceiling            400 MiB  given
left               171 MiB"""
