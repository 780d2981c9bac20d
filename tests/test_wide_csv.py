"""CSV of many columns, which is parsed by types: the same answers as column by column."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_train.errors import InvalidTable
from ooc_train.store.jobs.ingest import ingest
from ooc_train.tables import csv_parsing
from ooc_train.tables.csv_cells import Cells, header_end
from ooc_train.tables.medians import BYTES_PER_COLUMN, medians
from ooc_train.tables.open_tables import open_tables
from tests.benchmarks.wide_files import commands, trained, under_what_is_told, write

NARROW = 10**9
"""Columns that no file here has, so that each is parsed by itself."""

cells = st.sampled_from(
    ["", "0", "-1", "12", "1.5", "-2.25e-05", "1e300", "NaN", "NA", "null", "true", "False", "a b",
     "2013-01-31", "2013-01-31 12:00:01", "2013-01-31T12:00:00Z", "12:30", "9223372036854775807",
     "9223372036854775808", "é", '"q"', '"a,b"', '"two\nlines"', '"say ""so"""', '""', "x\"y", "-",
     "1-2", "+3", ".5", "5.", " 7", "inf"]
)  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Draw a file of a few columns, each of which mostly holds a few kinds of cells."""
    columns = draw(st.integers(2, 6))
    of = [draw(st.lists(cells, min_size=1, max_size=3)) for _ in range(columns)]
    rows = draw(st.integers(1, 6))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    lines = [",".join(f"c{i}" for i in range(columns))]
    for _ in range(rows):
        lines.append(",".join(draw(st.sampled_from(kind)) for kind in of))
        lines += [""] * draw(st.sampled_from([0, 0, 0, 1]))
    last = draw(st.sampled_from(["", end]))
    return (end.join(lines) + last).encode()


def read(path: str, wide: int, monkeypatch: pytest.MonkeyPatch, types: Any = None) -> Any:
    """Return what a file holds, and the types that were found, or why it can't be read."""
    monkeypatch.setattr(csv_parsing, "WIDE_COLUMNS", wide)
    try:
        tables = open_tables(path)
        if types is None:
            types = {field.name: field.type for field in tables.schema}
        found: dict[str, list[object]] = {name: [] for name in types}
        for piece in tables.pieces(types):
            for name, values in found.items():
                column = piece.batch.column(name)
                # Times as they are at rest: those of a zone need none by that name.
                if pa.types.is_timestamp(column.type):
                    column = column.cast(pa.int64())
                values += map(repr, column.to_pylist())
    except InvalidTable as error:
        return str(error)
    return tables.schema, tables.expected_rows, found


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(content=files())
def test_it_reads_as_narrow_files_do(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("wide") / "a.csv"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        require_same(read(str(path), 1, patch), read(str(path), NARROW, patch))
        for type_ in (pa.float64(), pa.int64(), pa.dictionary(pa.int32(), pa.string())):
            wanted = {"c1": type_, "c0": pa.string()}
            wide, narrow = (read(str(path), width, patch, wanted) for width in (1, NARROW))
            require_same(wide, narrow)


def require_same(wide: Any, narrow: Any) -> None:
    """Both hold the same, or refuse a cell; of several wrong ones each may name another."""
    wrong_cell = r"column '(c\d)', row \d+ \(.*conversion error"
    named = [re.search(wrong_cell, str(each)) for each in (wide, narrow)]
    if named[0] is None or named[1] is None or named[0][1] == named[1][1]:
        assert wide == narrow


@pytest.mark.parametrize("width", [1, NARROW])
def test_one_of_two_wrong_cells_is_named(tmp_path: Path, width: int) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"c0,c1,c2,c3\n0,,,0\n0,0,,1.5")
    with pytest.MonkeyPatch.context() as patch:
        found = read(str(path), width, patch)
    assert "column 'c1', row 1" in found or "column 'c3', row 1" in found


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ("1,2\n1,2,3\n1,2\n", r"row 1 \(about line 3\).*Expected 2 columns, got 3"),
        ("1,2\n1,2\n1\n", r"row 2 \(about line 4\).*Expected 2 columns, got 1"),
    ],
)
def test_a_row_of_another_width(
    rows: str, match: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{tmp_path}/a.csv"
    with open(path, "w", encoding="utf-8") as file:
        file.write("a,b\n" + rows)
    wide, narrow = (read(path, width, monkeypatch, {"a": pa.int64()}) for width in (1, NARROW))
    assert wide == narrow
    with pytest.raises(AssertionError, match=match):
        raise AssertionError(wide)


def test_a_value_of_another_type_is_placed(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{tmp_path}/a.csv"
    for n in (3, 40_000):
        with open(path, "w", encoding="utf-8") as file:
            file.write("a,b,c\n" + "1,2,3\n" * n + "4,5,x\n")
        types = dict.fromkeys("abc", pa.int64())
        wide, narrow = (read(path, width, monkeypatch, types) for width in (1, NARROW))
        assert wide == narrow
        assert f"row {n:,} " in str(wide)
        assert "column 'c'" in str(wide)
        assert "'x'" in str(wide)


def test_cells() -> None:
    found = Cells.of(b'\n\n1,"a,\n""b"\r\n\r\n,\r\n3,4', ord(","), 2)
    assert found is not None
    assert found.one_cell_a_line(np.array([1])) == b'"a,\n""b"\n\n4\n'
    assert found.one_row_a_line(np.array([0, 1])) == b'1,"a,\n""b"\n,\n3,4\n'
    assert Cells.of(b"1,2\n3\n", ord(","), 2) is None
    assert Cells.of(b"1\n3,4,5\n", ord(","), 2) is None
    assert header_end(b'"a\nb",c\r\n1,2', ord(",")) == 8


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_store_is_the_same(form: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the columns are read by: types, groups of columns, or one by one."""
    raw = write(f"{tmp_path}/a", form, columns=300, rows=700)
    ways: dict[str, Any] = {
        "target": "y",
        "categorical": [f"c{i}" for i in range(3, 300, 10)],
        "missing": "median",
        "unseen": "ignore",
        "test_size": 0.25,
    }
    made = [ingest(raw, f"{tmp_path}/wide.zarr", memory_ceiling="1GiB", **ways)]
    monkeypatch.setattr(csv_parsing, "WIDE_COLUMNS", NARROW)
    monkeypatch.setattr("ooc_train.tables.parquet._COLUMNS_TOGETHER", 7)
    monkeypatch.setattr("ooc_train.tables.parquet._READER_BYTES", 2**18)
    monkeypatch.setattr("ooc_train.tables.encoding._COLUMNS_TOGETHER", 1)
    monkeypatch.setattr("ooc_train.tables.batches._FEW_BATCH_ROWS", 50)
    monkeypatch.setattr("ooc_train.store.jobs.ingest_memory._LEAST_MEDIANS", 2**18)
    made.append(ingest(raw, f"{tmp_path}/narrow.zarr", memory_ceiling="128MiB", **ways))
    assert made[0].recipe == made[1].recipe
    for wide, narrow in ((made[0].store, made[1].store), (made[0].test, made[1].test)):
        assert wide is not None
        assert narrow is not None
        for role in ("X", "y", "row_id"):
            assert np.array_equal(wide.read(role), narrow.read(role))


@pytest.mark.parametrize("rows", [1, 2, 40, 3_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_medians_are_exact_in_any_room(rows: int, dtype: type) -> None:
    rng = np.random.default_rng(rows)
    values: Any = rng.normal(size=(rows, 9)).round(1).astype(dtype)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[0] = 1
    counts = np.count_nonzero(~np.isnan(values), axis=0)
    columns = [0, 2, 3, 7, 8]
    looks = 0

    def blocks() -> Any:
        nonlocal looks
        looks += 1
        return np.array_split(values, min(rows, 7))

    expected = np.nanmedian(values[:, columns].astype(np.float64), axis=0).tolist()
    assert medians(blocks, columns, counts, 2**30) == expected
    once, looks = looks, 0
    assert medians(blocks, columns, counts, BYTES_PER_COLUMN) == expected
    if rows == 3_000:
        assert looks == len(columns) * once


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "columns", "jobs"),
    [("csv", 10_000, ("ingest", "predict")), ("parquet", 2_000, ("ingest",))],
)
def test_the_ceiling_is_kept(
    form: str, columns: int, jobs: tuple[str, ...], tmp_path: object
) -> None:
    """In a control group of exactly the ceiling that was told, which ends what needs more."""
    raw = write(f"{tmp_path}/raw", form, columns=columns, rows=40)
    for job, command in commands(raw, str(tmp_path), columns).items():
        if job in jobs:
            figures = under_what_is_told(*command)
            assert figures["killed"] == 0
            assert figures["measured"] <= figures["projected"] <= figures["told"]
            assert figures["outside"] <= figures["told"]
        if job == "ingest" and len(jobs) > 1:
            trained(f"{tmp_path}/raw.zarr", f"{tmp_path}/raw.run")
