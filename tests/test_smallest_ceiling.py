"""The smallest ceiling that is told will do: the function that tells it is the one that accepts.

Plans over shapes of all kinds, and each command once: refused, and run again under what it told.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_train.core.units import parse_bytes
from ooc_train.errors import CeilingExceeded
from ooc_train.memory.budget import HEADROOM_BYTES, Budget
from ooc_train.memory.ceiling import START_BYTES, Ceiling, Projection, Term
from ooc_train.store.format.arrays import CodecName
from ooc_train.store.format.chunk_sizes import default_chunk_rows
from ooc_train.store.jobs import rechunk, shuffle
from ooc_train.store.jobs import synthetic as made
from ooc_train.store.jobs.ingest_memory import (
    CATEGORY_COPIES,
    IngestMemory,
    ingest_writing_term,
    most_values,
)
from ooc_train.store.jobs.store_records import record_dtype
from ooc_train.store.jobs.synthetic import make_data
from ooc_train.store.jobs.synthetic_rows import SyntheticSettings
from ooc_train.store.opening.opener import open_store
from ooc_train.tables.batches import ReadingMemory
from ooc_train.tables.names import Missing
from tests.watch import watch

MIB = 2**20
ADVISED = re.compile(r"raise the memory ceiling to (\d+MiB)")

shapes = st.builds(
    IngestMemory,
    reading=st.builds(
        ReadingMemory,
        blocks=st.integers(0, 200 * MIB),
        columns=st.integers(0, 50 * MIB),
        row=st.integers(8, 400_000),
        most=st.integers(1, 400),
        least=st.just(1),
        batches=st.sampled_from([0, 2]),
    ),
    record=st.integers(8, 400_000),
    rows=st.integers(1, 10**9),
    plain=st.integers(0, 60_000),
    categories=st.integers(0, 5_000),
    labels=st.booleans(),
    medians=st.integers(0, 60_000),
    dtype=st.sampled_from(["float32", "float64"]),
    chunk_rows=st.none() | st.integers(1, 10_000),
    outputs=st.sampled_from([1, 2]),
).filter(lambda shape: shape.plain + shape.categories > 0)


def total(terms: list[Term]) -> int:
    return sum(term.bytes for term in terms)


def advised_ceiling(
    choose: Callable[[int], list[Term]],
    worst: Callable[[int], list[Term]] | None = None,
    *,
    baseline: int,
) -> str:
    """Return the ceiling that a refused job tells of."""
    with pytest.raises(CeilingExceeded) as refused:
        budget_of(1, baseline).settle(choose, worst=worst)
    found = ADVISED.search(str(refused.value))
    assert found is not None
    # The table below says the same.
    assert str(refused.value).endswith(f"enough at each start: {found[1]}")
    return found[1]


def budget_of(limit: int, baseline: int) -> Budget:
    """Make the budget of a command that holds so much before any data."""
    budget = Budget(Ceiling(limit, "given", whole_process=True))
    budget.baseline = baseline
    return budget


def will_do(choose: Callable[[int], list[Term]], baseline: int, later: int) -> None:
    """Hold a job to what it tells, also where the next start holds more before any data."""
    ceiling = parse_bytes(advised_ceiling(choose, baseline=baseline))
    terms = budget_of(ceiling, baseline + later).settle(choose)
    assert baseline + later + HEADROOM_BYTES + total(terms) <= ceiling
    # And it is the smallest: what is less by more than rounding and starting take won't do.
    less = ceiling - START_BYTES - 2 * MIB
    with pytest.raises(CeilingExceeded):
        budget_of(less, baseline).settle(choose)


held = st.integers(20 * MIB, 300 * MIB)
later = st.integers(-START_BYTES, START_BYTES)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(shape=shapes, baseline=held, later=later)
def test_ingest(shape: IngestMemory, baseline: int, later: int) -> None:
    will_do(shape.terms, baseline, later)


@settings(max_examples=200, deadline=None)
@given(shape=shapes, baseline=held)
def test_ingest_that_may_be_of_float64(shape: IngestMemory, baseline: int) -> None:
    ceiling = parse_bytes(advised_ceiling(shape.terms, shape.widened().terms, baseline=baseline))
    budget_of(ceiling, baseline).settle(shape.terms)
    budget_of(ceiling, baseline).settle(shape.widened().terms)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    shape=shapes, available=st.integers(0, 4 * 2**30), share=st.floats(0, 1), extra=st.booleans()
)
def test_what_is_found_later_has_room(
    shape: IngestMemory, available: int, share: float, extra: bool
) -> None:
    """Whatever categories hold, the second pass needs no more than what was planned with."""
    terms = {term.name: term.bytes for term in shape.terms(available)}
    most = most_values(terms["categories"])
    values = int(share * most) if shape.categories else 0
    if shape.categories:
        assert most >= 3_000
    columns = shape.plain + max(values, shape.categories) + extra * 2 * shape.categories
    if columns > shape.plain + most + 2 * shape.categories:
        return
    rows = shape.chunk_rows or default_chunk_rows(columns, shape.dtype)
    width = columns * np.dtype(shape.dtype).itemsize
    assert ingest_writing_term(rows, width, shape.outputs).bytes <= terms["writing"]
    assert CATEGORY_COPIES * 160 * values <= terms["categories"]


@settings(max_examples=100, deadline=None)
@given(shape=shapes, available=st.integers(0, 2**32), more=st.integers(0, 2**30))
def test_more_room_takes_nothing_away(shape: IngestMemory, available: int, more: int) -> None:
    small, large = shape.terms(available), shape.terms(available + more)
    assert total(small) <= max(available, total(shape.terms(0)))
    for less, greater in zip(small, large, strict=True):
        if less.name == "scattering":
            assert less.bytes <= greater.bytes or small[3].bytes < large[3].bytes
        else:
            assert less.bytes <= greater.bytes


@settings(max_examples=100, deadline=None)
@given(
    features=st.integers(1, 50_000),
    classes=st.integers(2, 9),
    codec=st.sampled_from(["none", "lz4"]),
    chunk_rows=st.none() | st.integers(1, 10_000),
    baseline=held,
    later=later,
)
def test_making_data(
    features: int, classes: int, codec: CodecName, chunk_rows: int | None, baseline: int, later: int
) -> None:
    recipe = SyntheticSettings(features, "classification", 1, classes, 1.0, 0.1, "float32", 0)
    rows = chunk_rows or default_chunk_rows(features, "float32")
    will_do(partial(made._terms, recipe, rows, codec), baseline, later)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of ours, of 4 MB."""
    return make_data(tmp_path_factory.mktemp("told") / "a.zarr", rows=20_000, features=50).path


@settings(max_examples=50, deadline=None)
@given(
    n_rows=st.integers(1, 10**10),
    chunk_rows=st.integers(1, 100_000),
    codec=st.sampled_from(["none", "lz4"]),
    dtype=st.sampled_from(["f4", "f8", "f2"]),
    missing=st.sampled_from(get_args(Missing)),
    baseline=held,
    later=later,
)
def test_writing_anew(
    store: str,
    n_rows: int,
    chunk_rows: int,
    codec: CodecName,
    dtype: str,
    missing: Missing,
    baseline: int,
    later: int,
) -> None:
    source = replace(open_store(store), n_rows=n_rows)
    record = record_dtype(source)
    will_do(partial(shuffle._terms, source, record, chunk_rows, codec, missing), baseline, later)
    written = np.dtype(dtype)
    will_do(partial(rechunk._terms, source, chunk_rows, codec, written, missing), baseline, later)


def test_the_figure_has_room_for_another_start() -> None:
    terms = (Term("baseline", 10 * MIB + 1, ""),)
    assert Projection(terms).smallest == "11MiB"
    assert Projection(terms, started=2).smallest_ceiling == 11 * MIB + 2 * START_BYTES


def test_a_beginning_tells_no_ceiling_that_would_do() -> None:
    with pytest.raises(CeilingExceeded) as refused:
        budget_of(MIB, 0).require([Term("labels", 5 * MIB, "")], alone="looking at labels")
    assert ADVISED.search(str(refused.value)) is None
    assert "looking at labels alone needs 21 MiB" in str(refused.value)
    assert str(refused.value).endswith("needed at least: 25MiB")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CSV file, which float32 is too narrow for only in its last row, with text."""
    path = tmp_path_factory.mktemp("told") / "raw.csv"
    rng = np.random.default_rng(0)
    rows = [
        f"{a:.5f},{b:.5f},{c},{int(a > 0)}"
        for (a, b), c in zip(
            rng.normal(size=(50_000, 2)), rng.integers(500, size=50_000), strict=True
        )
    ]
    wide = f"1.5,{2**24 + 1},7,1"
    path.write_text("\n".join(["a,b,c,y", *rows, wide, ""]))
    return str(path)


def will_run(*command: str) -> None:
    """Hold a command to the ceiling that it tells of, from outside too."""
    with pytest.raises(RuntimeError) as refused:
        watch(*command, "--memory-ceiling", "20MiB")
    found = ADVISED.search(str(refused.value))
    assert found is not None, str(refused.value)
    watched = watch(*command, "--memory-ceiling", found[1])
    memory = watched.report["memory"]
    assert memory["measured"] <= memory["projected"] <= memory["ceiling"] == parse_bytes(found[1])
    assert watched.peak <= memory["ceiling"]


@pytest.mark.slow
def test_each_command_runs_under_the_ceiling_that_it_tells_of(
    store: str, raw: str, tmp_path: Path
) -> None:
    ingested, run = str(tmp_path / "raw.zarr"), str(tmp_path / "raw.run")
    ways = ("--target", "y", "--categorical", "c", "--task", "classification")
    will_run("ingest", raw, ingested, *ways, "--test-size", "0.2")
    will_run("rechunk", store, str(tmp_path / "b.zarr"), "--codec", "lz4")
    will_run("shuffle", store, str(tmp_path / "c.zarr"))
    cluster = ("--workers", "1", "--dashboard-address", "127.0.0.1:0")
    settings = ("--model", "logistic", "--batch-size", "64", "--max-iter", "1", *cluster)
    will_run("train", ingested, *settings, "--out", run)
    will_run("predict", run, raw, str(tmp_path / "a.csv"))
