import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from ooc_train.store.jobs.ingest import ingest
from ooc_train.tables.open_tables import open_tables
from tests.conftest import DATA, data_script

PARQUET = DATA / "flights.parquet"
N_ROWS, N_LATE = 327_346, 77_630


@pytest.fixture(scope="module")
def table():
    return pq.read_table(PARQUET, pre_buffer=False)


def opened(path):
    """The store as zarr sees it, so that these tests do not lean on our own reader."""
    return zarr.open_group(path, mode="r", use_consolidated=False)


@pytest.fixture(scope="module")
def stores(flights):
    return [opened(path) for path in flights]


@pytest.mark.slow
def test_the_script_makes_the_same_table_again(table):
    again = data_script("make_flights").flights_table()
    # Parquet gives categories of numbers back as numbers; that they are categories is noted.
    assert again.cast(table.schema).equals(table)
    assert open_tables(PARQUET).declared == {
        column.name for column in again.schema if pa.types.is_dictionary(column.type)
    }


@pytest.mark.slow
def test_the_same_pyarrow_makes_the_same_bytes(tmp_path):
    again = tmp_path / "flights.parquet"
    data_script("make_flights").main(str(again))
    if pq.read_metadata(PARQUET).created_by == f"parquet-cpp-arrow version {pa.__version__}":
        assert again.read_bytes() == PARQUET.read_bytes()
    else:
        assert pq.read_table(again).equals(pq.read_table(PARQUET))


def test_the_readme_says_what_the_file_is(table):
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(PARQUET.read_bytes()).hexdigest() in readme
    assert PARQUET.stat().st_size < 5_000_000
    assert f"{table.num_rows:,} flights" in readme
    assert f"{np.count_nonzero(table['late']):,} did" in readme
    assert all(f"| `{name}` |" in readme for name in table.column_names)


def test_the_file_is_whole(table):
    assert table.num_rows == N_ROWS
    assert np.count_nonzero(table["late"]) == N_LATE
    assert all(column.null_count == 0 for column in table.columns)


def test_every_row_is_in_one_of_the_two_stores(stores, table):
    ids = [group["row_id"][:] for group in stores]
    assert [len(part) for part in ids] == [261_877, 65_469]
    assert np.array_equal(np.sort(np.concatenate(ids)), np.arange(N_ROWS))
    late = table["late"].to_numpy()
    for group, part in zip(stores, ids, strict=True):
        assert np.array_equal(group["y"][:], late[part])


def test_a_row_of_the_design_is_the_row_of_the_file(stores, table):
    for group in stores:
        names = group.attrs["feature_names"]
        assert len(names) == 146
        for row in (0, 12_345, 60_001):
            x = dict(zip(names, group["X"][row], strict=True))
            raw = table.slice(group["row_id"][row], 1).to_pylist()[0]
            for name in ("dep_delay", "sched_dep_time", "distance", "day"):
                assert x.pop(name) == raw[name]
            ones = {name for name, value in x.items() if value == 1}
            assert ones == {
                f"{name}={raw[name]}" for name in ("month", "weekday", "carrier", "origin", "dest")
            }
            assert all(value in (0, 1) for value in x.values())


@pytest.mark.slow
def test_the_order_is_random_and_given_by_the_seed(stores, tmp_path):
    again = ingest(DATA / "flights.parquet", tmp_path / "again.zarr", target="late", test_size=0.2)
    group = opened(again.store.path)
    ids = group["row_id"][:]
    assert np.array_equal(ids, stores[0]["row_id"][:])
    assert group.attrs["shuffled"] == 0
    assert abs(np.corrcoef(ids, np.arange(len(ids)))[0, 1]) < 0.01
