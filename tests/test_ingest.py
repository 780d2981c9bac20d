"""Ingest: raw files in, and exactly their rows out, by what training rows alone told."""

import os
import re
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from ooc_train.errors import InvalidTable
from ooc_train.store.jobs.ingest import ingest
from ooc_train.store.jobs.ingest_preview import preview
from ooc_train.store.jobs.ingest_reading import recipe_of
from ooc_train.store.jobs.shuffle_keys import row_keys
from ooc_train.store.jobs.train_test_split import path_for_testing, rows_for_testing
from ooc_train.tables.roles import Roles
from tests.conftest import DATA
from tests.test_writer import contents, rows_of

RNG = np.random.default_rng(0)
N = 3000
TABLE = pa.table(
    {
        "small": pa.array(RNG.integers(-9, 9, N), pa.int16()),
        "real": RNG.normal(50, 20, N),
        "yes": RNG.random(N) < 0.3,
        "day": pa.array([date(2013, 1, 1) + timedelta(int(d)) for d in RNG.integers(0, 365, N)]),
        "town": pa.array([("Ulm", "Bonn", "Köln", "Ä, b")[i] for i in RNG.integers(0, 4, N)]),
        "weight": RNG.random(N) + 0.5,
        "key": RNG.permutation(10 * N)[:N] - N,
        "y": pa.array([("no", "yes", "maybe")[i] for i in RNG.integers(0, 3, N)]),
    }
)
ROLES: dict[str, Any] = {
    "target": "y",
    "categorical": ["town"],
    "sample_weight": "weight",
    "id_column": "key",
}


def write(path, table=TABLE):
    """Write a table as the name of the path says."""
    table = table if isinstance(table, pa.Table) else pa.table(table)
    writer = pq.write_table if str(path).endswith("parquet") else pyarrow.csv.write_csv
    writer(table, path)
    return path


def made(tmp_path, table, name="a.parquet", **settings_of_ingest):
    """Ingest a table, in its own order unless told otherwise."""
    source = write(tmp_path / name, table)
    return ingest(source, tmp_path / "out.zarr", **{"shuffle": False, **settings_of_ingest})


def features_of(store):
    return rows_of(store.X)


def by_id(store):
    """X, y and weights in the order of the ids."""
    order = np.argsort(rows_of(store.row_id))
    arrays = (store.X, store.y, store.sample_weight)
    return [None if array is None else rows_of(array)[order] for array in arrays]


def expected_features(table):
    frame = table.to_pandas()
    days = (pd.to_datetime(frame["day"]) - pd.Timestamp("2013-01-01")).dt.days
    towns = sorted(frame["town"].unique())
    hot = [frame["town"] == town for town in towns]
    columns = [frame["small"], frame["real"], frame["yes"], days, *hot]
    return np.column_stack(columns).astype("f4"), towns


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_every_row_once_with_all_that_belongs_to_it(tmp_path, name, shuffle):
    X, towns = expected_features(TABLE)
    result = made(tmp_path, TABLE, name, shuffle=shuffle, random_state=5, **ROLES)
    store, frame = result.store, TABLE.to_pandas()
    ids = rows_of(store.row_id)
    source = np.argsort(frame["key"].to_numpy())
    source = source[np.searchsorted(frame["key"].to_numpy()[source], ids)]
    expected = row_keys(np.arange(N), 5).argsort() if shuffle else np.arange(N)
    np.testing.assert_array_equal(source, expected)
    np.testing.assert_array_equal(features_of(store), X[source])
    assert store.feature_names == ("small", "real", "yes", "day", *(f"town={t}" for t in towns))
    assert store.classes == ("maybe", "no", "yes")
    labels = np.array(store.classes)[rows_of(store.y)]
    assert labels.tolist() == frame["y"].to_numpy()[source].tolist()
    np.testing.assert_array_equal(rows_of(store.sample_weight), frame["weight"].to_numpy()[source])
    assert store.shuffled == (5 if shuffle else None)
    assert result.test is None
    assert store.recipe == result.recipe.to_json()
    assert sorted(os.listdir(tmp_path)) == [name, "out.zarr"]


@pytest.mark.usefixtures("one_id")
def test_csv_and_parquet_are_the_same_store(tmp_path):
    stores = []
    for name in ("a.csv", "a.parquet"):
        (tmp_path / f"of {name}").mkdir()
        ingest(write(tmp_path / name), tmp_path / f"of {name}/b.zarr", test_size=0.3, **ROLES)
        stores.append([contents(tmp_path / f"of {name}/b{end}.zarr") for end in ("", ".test")])
    for ours, theirs in zip(*stores, strict=True):
        assert ours.keys() == theirs.keys()
        # The types that a recipe was learned from are all that differs.
        assert {key for key in ours if ours[key] != theirs[key]} <= {"zarr.json"}


@pytest.mark.usefixtures("one_id")
def test_many_files_are_one_table(tmp_path):
    for i, start in enumerate(range(0, N, 1000)):
        write(tmp_path / f"part{i}.csv", TABLE.slice(start, 1000))
    ingest(write(tmp_path / "whole.csv"), tmp_path / "whole.zarr", **ROLES)
    ingest(str(tmp_path / "part*.csv"), tmp_path / "parts.zarr", **ROLES)
    assert contents(tmp_path / "whole.zarr") == contents(tmp_path / "parts.zarr")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, 2, 3], pa.uint8()), [1, 2, 3]),
        (pa.array([1.5, 2, 3], pa.float16()), [1.5, 2, 3]),
        (pa.array([1, 2, 2**63], pa.uint64()), [1, 2, 2**63]),
        (pa.array(["1.50", "-2.25", "0.00"]).cast(pa.decimal128(5, 2)), [1.5, -2.25, 0]),
        (pa.array([True, False, True]), [1, 0, 1]),
        (pa.array([2, 0, 1], pa.date32()), [2, 0, 1]),
        (pa.array([2 * 86_400_000, 0, 86_400_000], pa.date64()), [2, 0, 1]),
        (pa.array([86_400, 0, 43_200], pa.timestamp("s")), [1, 0, 0.5]),
        (pa.array([86_400 * 10**9, 0, 1], pa.timestamp("ns", "Asia/Tokyo")), [1, 0, 0]),
        (
            pa.array(np.array(["1960-01-01", "1960-01-02T06", "1960-01-01"], "M8[us]")),
            [0, 1.25, 0],
        ),
    ],
)
def test_types_of_columns(tmp_path, values, expected):
    store = made(tmp_path, {"a": values}).store
    np.testing.assert_array_equal(features_of(store), np.array(expected, "f4")[:, np.newaxis])


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ("true,false,TRUE", [1, 0, 1]),
        ("2013-01-03,2013-01-01,2013-01-01", [2, 0, 0]),
        ("2013-01-01 12:00:00,2013-01-01,2013-01-02 00:00", [0.5, 0, 1]),
        ("2013-01-01T12:00:00Z,2013-01-01T00:00:00+0000,2013-01-02T01:00:00+0100", [0.5, 0, 1]),
        ("1e3, 2 ,-0.5", [1000, 2, -0.5]),
    ],
)
def test_types_of_text(tmp_path, cells, expected):
    (tmp_path / "a.csv").write_text("a,b\n" + "".join(f"{c},1\n" for c in cells.split(",")))
    store = ingest(tmp_path / "a.csv", tmp_path / "a.zarr", shuffle=False, drop=["b"]).store
    np.testing.assert_array_equal(features_of(store)[:, 0], np.array(expected, "f4"))


def test_a_column_whose_first_block_has_no_value(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n" + ",1\n" * 400_000 + "7.5,2\n8.5,3\n")
    store = ingest(tmp_path / "a.csv", tmp_path / "a.zarr", missing="mean", shuffle=False).store
    assert features_of(store)[[0, 400_000, 400_001], 0].tolist() == [8, 7.5, 8.5]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (pa.array(["x", "y", "x"]), ["c=x", "c=y"]),
        (pa.array(["x", "y", "x"]).dictionary_encode(), ["c=x", "c=y"]),
        (pa.array([10, 9, 10]), ["c=9", "c=10"]),
        (pa.array([10, 9, 10]).dictionary_encode(), ["c=9", "c=10"]),
        (pa.array([1.5, 2.0, 1.5]), ["c=1.5", "c=2"]),
        (pa.array([True, False, True]), ["c=false", "c=true"]),
        (pa.array([0, 1, 0], pa.date32()), ["c=1970-01-01", "c=1970-01-02"]),
    ],
)
def test_categories_of_any_type_and_the_same_from_csv(tmp_path, values, names):
    learned = made(tmp_path, {"c": values, "v": [1, 2, 3]}, categorical=["c"])
    assert list(learned.store.feature_names or ()) == [*names, "v"]
    places = features_of(learned.store)[:, :2].argmax(axis=1)
    assert places[0] == places[2] != places[1]
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    source = write(tmp_path / "a.csv", {"c": values, "v": [1, 2, 3]})
    applied = ingest(source, tmp_path / "b.zarr", like=learned.store, shuffle=False)
    np.testing.assert_array_equal(features_of(applied.store), features_of(learned.store))


def test_categories_of_floats_are_numbers_in_text_too(tmp_path):
    recipe = made(tmp_path, {"c": [1.5, 2.0, 1.5], "v": [1, 2, 3]}, categorical=["c"]).recipe
    (tmp_path / "a.csv").write_text("c,v\n2.00,1\n1.50,2\n")
    store = ingest(tmp_path / "a.csv", tmp_path / "b.zarr", like=recipe, shuffle=False).store
    assert features_of(store)[:, :2].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("values", "task", "classes", "codes"),
    [
        (pa.array(["b", "a", "b"]), "auto", ("a", "b"), [1, 0, 1]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), "auto", ("a", "b"), [1, 0, 1]),
        (pa.array([True, False, True]), "auto", (False, True), [1, 0, 1]),
        (pa.array([10, -2, 9]), "classification", (-2, 9, 10), [2, 0, 1]),
        (pa.array([10, -2, 9]).dictionary_encode(), "auto", (-2, 9, 10), [2, 0, 1]),
        (pa.array([1.5, 2.0, 2.0]), "classification", (1.5, 2), [0, 1, 1]),
        (pa.array([10, -2, 9]), "auto", None, [10, -2, 9]),
        (pa.array([0.1, 0.2, 0.3]), "regression", None, [0.1, 0.2, 0.3]),
    ],
)
@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_targets_of_any_type(tmp_path, name, values, task, classes, codes):
    if name == "a.csv" and pa.types.is_dictionary(values.type):
        values, task = values.dictionary_decode(), "classification"
    store = made(tmp_path, {"v": [1, 2, 3], "y": values}, name, target="y", task=task).store
    assert store.classes == classes
    assert [type(label) for label in store.classes or ()] == [type(c) for c in classes or ()]
    assert store.y is not None
    np.testing.assert_array_equal(rows_of(store.y), codes)
    # A regression's y keeps every bit that it came with.
    assert store.y.dtype == ("|u1" if classes else "<f4" if task == "auto" else "<f8")


HOLES = pa.table(
    {
        "a": [1.0, None, 3.5, 10.0, float("nan"), 2.0, 7.25],
        "b": [None, 5, 1, 2, 2, 8, None],
        "d": pa.array([0, 4, None, 10, 1, 2, 3], pa.date32()),
        "c": ["x", None, "y", "x", "y", "x", "x"],
        "y": [1.0, 0, 1, 0, 1, 0, 1],
    }
)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
@pytest.mark.parametrize("strategy", ["mean", "median"])
def test_missing_values_become_what_training_rows_have(tmp_path, strategy, name):
    table = pa.concat_tables([HOLES] * 50)
    result = made(
        tmp_path, table, name, target="y", categorical=["c"], missing=strategy, test_size=0.4
    )
    frame = table.to_pandas()
    frame["d"] = (pd.to_datetime(frame["d"]) - pd.Timestamp("1970-01-01")).dt.days
    test = rows_for_testing(np.arange(len(frame)), 0.4, 0)
    numbers = frame[["a", "b", "d"]].to_numpy("f4")
    imputer = SimpleImputer(strategy=strategy).fit(numbers[~test])
    hot = np.column_stack([frame["c"] == "x", frame["c"] == "y", frame["c"].isna()])
    expected = np.column_stack([imputer.transform(numbers), hot]).astype("f4")
    assert result.store.feature_names == ("a", "b", "d", "c=x", "c=y", "c is missing")
    np.testing.assert_allclose(features_of(result.store), expected[~test], rtol=1e-6)
    np.testing.assert_allclose(features_of(result.test), expected[test], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_medians_are_exact(tmp_path, dtype):
    values = np.concatenate([RNG.normal(0, 10.0 ** RNG.integers(-6, 6), 501) for _ in range(4)])
    table = {"a": values, "b": np.where(RNG.random(len(values)) < 0.3, np.nan, -values)}
    recipe = made(tmp_path, table, missing="median", dtype=dtype, shuffle=True).recipe
    for column in recipe.columns:
        assert column.fill == np.nanmedian(table[column.name].astype(dtype).astype("f8"))


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_rows_that_lack_something_are_left_out(tmp_path, name):
    result = made(tmp_path, HOLES, name, target="y", categorical=["c"], missing="drop")
    assert rows_of(result.store.row_id).tolist() == [3, 5]
    assert result.dropped == 5
    assert any("5 rows were left out" in note for note in result.notes)
    assert result.store.feature_names == ("a", "b", "d", "c=x")


@pytest.mark.parametrize("column", ["a", "b", "c", "d"])
def test_missing_values_are_refused_where_they_are(tmp_path, column):
    first = {"a": 1, "b": 0, "c": 1, "d": 2}[column]
    with pytest.raises(
        InvalidTable, match=rf"'{column}' in row {first} of .*a\.parquet is missing"
    ):
        made(tmp_path, HOLES.select([column]), categorical=["c"] if column == "c" else ())


def test_unseen_values(tmp_path):
    learned = {"c": ["x", "y", "x"], "v": [1.0, 2, 3]}
    applied = {"c": ["z", "y", "x"], "v": [1.0, 2, 3]}
    for unseen, expected in (
        ("other", [[0, 0, 1, 1], [0, 1, 0, 2], [1, 0, 0, 3]]),
        ("ignore", [[0, 0, 1], [0, 1, 2], [1, 0, 3]]),
    ):
        recipe = made(tmp_path, learned, categorical=["c"], unseen=unseen, overwrite=True).recipe
        store = made(tmp_path, applied, like=recipe, overwrite=True).store
        assert features_of(store).tolist() == expected
    recipe = made(tmp_path, learned, categorical=["c"], overwrite=True).recipe
    with pytest.raises(
        InvalidTable, match=r"row 0 of .*is 'z', which no training row had.*--unseen"
    ):
        made(tmp_path, applied, like=recipe, overwrite=True)


def test_rare_values_are_as_unseen_ones(tmp_path):
    table = {"c": ["x", "y", "x", "z"], "v": [1, 2, 3, 4]}
    result = made(tmp_path, table, categorical=["c"], unseen="other", min_count=2)
    assert result.store.feature_names == ("c=x", "c is other", "v")
    assert features_of(result.store)[:, 1].tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match="min_count=2 makes unseen values of rare ones"):
        made(tmp_path, table, categorical=["c"], min_count=2, overwrite=True)


def test_nothing_is_learned_from_test_rows(tmp_path):
    test = rows_for_testing(np.arange(100), 0.25, 3)
    town, value = np.where(test, "secret", "x"), np.where(test, 1e6, np.arange(100))
    table = {
        "c": town,
        "v": value,
        "d": pa.array(np.where(test, 0, 365).astype("i4")).cast(pa.date32()),
    }
    settings_of_ingest = {"categorical": ["c"], "test_size": 0.25, "random_state": 3}
    result = made(tmp_path, table, missing="mean", unseen="ignore", **settings_of_ingest)
    assert result.store.feature_names == ("c=x", "v", "d")
    category, number, day = result.recipe.columns
    assert category.values == ("x",)
    assert number.fill == pytest.approx(value[~test].mean(), rel=1e-6)
    assert day.origin == "1971-01-01"
    assert result.test is not None
    assert features_of(result.test)[:, 0].tolist() == [0] * 25
    with pytest.raises(InvalidTable, match=r"is 'secret', which no training row has.*--unseen"):
        made(tmp_path, table, overwrite=True, **settings_of_ingest)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 400),
    share=st.floats(0, 0.99) | st.sampled_from([0.2, 0.5, 1 / 3, 0.75]),
    seed=st.integers(0, 10),
)
def test_test_rows_are_one_of_each_run(n, share, seed):
    rows = np.arange(n)
    chosen = rows_for_testing(rows, share, seed)
    assert abs(chosen.sum() - share * n) <= 2
    # Whatever rows come together.
    cut = n // 3
    parts = [rows_for_testing(part, share, seed) for part in (rows[:cut], rows[cut:])]
    np.testing.assert_array_equal(np.concatenate(parts), chosen)


def test_test_rows_are_drawn_at_random():
    rows = np.arange(10_000)
    places = np.array([rows[rows_for_testing(rows, 0.2, seed)] % 5 for seed in range(5)])
    assert np.bincount(places.ravel()) == pytest.approx(2000, rel=0.1)
    assert len(np.unique(places, axis=0)) == 5


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_test_split_has_each_row_on_one_side(tmp_path, share):
    result = made(tmp_path, TABLE.select(["small", "real"]), test_size=share, shuffle=True)
    assert result.test is not None
    assert (
        result.test.path == str(tmp_path / "out.test.zarr") == path_for_testing(result.store.path)
    )
    ids = [rows_of(store.row_id) for store in (result.store, result.test)]
    assert len(ids[1]) == pytest.approx(share * N, abs=1)
    assert np.sort(np.concatenate(ids)).tolist() == list(range(N))
    for store, rows in zip((result.store, result.test), ids, strict=True):
        np.testing.assert_array_equal(
            features_of(store)[:, 1], TABLE["real"].to_numpy()[rows].astype("f4")
        )


@pytest.mark.slow
@pytest.mark.usefixtures("one_id")
def test_the_bytes_are_a_function_of_rows_and_seed_and_of_no_ceiling(tmp_path):
    n = 200_000
    table = {
        "a": RNG.normal(0, 1, n).round(2),
        "b": np.where(RNG.random(n) < 0.1, np.nan, RNG.integers(0, 99, n)),
        "c": RNG.integers(0, 30, n).astype(str),
        "y": RNG.integers(0, 2, n),
    }
    source = write(tmp_path / "a.csv", table)
    for ceiling in ("2GiB", "96MiB", "88MiB"):
        (tmp_path / ceiling).mkdir()
        ingest(
            source,
            tmp_path / ceiling / "b.zarr",
            target="y",
            task="classification",
            categorical=["c"],
            missing="median",
            test_size=0.2,
            random_state=1,
            memory_ceiling=ceiling,
        )
    for end in ("", ".test"):
        first, *others = (
            contents(tmp_path / ceiling / f"b{end}.zarr") for ceiling in ("2GiB", "96MiB", "88MiB")
        )
        assert all(other == first for other in others)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"dtype": "float64"}, {"dtype": "<f8"}),
        ({"chunk_rows": 100, "shard_rows": 700}, {"chunk_rows": 100, "shard_rows": 700}),
        ({"codec": "zstd"}, {"codec": "zstd"}),
        ({"codec": "lz4"}, {"codec": "blosc"}),
        ({"codec": "none"}, {"codec": "raw"}),
    ],
)
def test_how_a_store_is_laid_out(tmp_path, chosen, expected):
    layout = made(tmp_path, TABLE.select(["small", "real"]), **chosen).store.X
    assert {name: getattr(layout, name) for name in expected} == expected


def test_what_packs_well_is_packed(tmp_path):
    noise = {f"n{i}": RNG.normal(0, 1, N) for i in range(3)}
    assert made(tmp_path, noise).store.X.codec == "raw"
    constant = {"a": RNG.integers(0, 2, N), "b": RNG.integers(0, 3, N)}
    assert made(tmp_path, constant, overwrite=True).store.X.codec == "blosc"


def test_features_in_the_order_that_is_asked_for(tmp_path):
    assert made(tmp_path, TABLE, features=["real", "small"]).store.feature_names == (
        "real",
        "small",
    )
    kept = made(tmp_path, TABLE, drop=["town", "y", "day"], overwrite=True).store.feature_names
    assert kept == ("small", "real", "yes", "weight", "key")


@pytest.mark.slow
def test_like_a_store_its_path_a_run_or_a_recipe(tmp_path):
    learned = made(tmp_path, TABLE, **ROLES)
    run = tmp_path / "a.run"
    run.mkdir()
    with open(run / "recipe.json", "w", encoding="utf-8") as file:
        import json

        json.dump(learned.recipe.to_json(), file)
    source = write(tmp_path / "new.csv", TABLE.slice(0, 50).drop_columns(["y", "weight"]))
    for like in (learned.store, learned.store.path, run, learned.recipe):
        assert recipe_of(like) == learned.recipe
        store = ingest(source, tmp_path / "b.zarr", like=like, shuffle=False, overwrite=True).store
        np.testing.assert_array_equal(features_of(store), features_of(learned.store)[:50])
        assert (store.y, store.sample_weight) == (None, None)
    with pytest.raises(ValueError, match="like= brings what all columns are for"):
        ingest(source, tmp_path / "b.zarr", like=run, target="y", overwrite=True)


def test_what_would_become_of_each_column(tmp_path):
    found = preview(write(tmp_path / "a.csv"), Roles(**ROLES), test_size=0.2)
    assert os.listdir(tmp_path) == ["a.csv"]
    assert (found.n_rows, found.n_test, found.row_bytes) == (2400, 600, 32)
    summary = {column.name: (column.becomes, column.n_features) for column in found.columns}
    assert summary == {
        "small": ("as it is", 1),
        "real": ("as it is", 1),
        "yes": ("0 and 1", 1),
        "day": ("days since 2013-01-01", 1),
        "town": ("4 columns of 0 and 1", 4),
    }
    assert made(tmp_path, TABLE, "b.csv", test_size=0.2, **ROLES).recipe == found.recipe


def test_progress_and_what_is_said(tmp_path):
    heard: list[tuple[str, int, float]] = []
    said: list[str] = []
    made(tmp_path, TABLE, progress=lambda *at: heard.append(at), say=said.append, **ROLES)
    for stage in ("reading", "writing"):
        at = [(rows, share) for name, rows, share in heard if name == stage]
        assert at == sorted(at)
        assert at[-1] == (N, 1.0)
    (told,) = said
    assert told.startswith(
        "3,000 rows x 8 columns of float32 (93.8 KiB before compression), made of 5 raw columns; "
        "the disk has "
    )


# Numbers that float32 can't hold


def column_of(store):
    return features_of(store)[:, 0]


UNIX = 1_700_000_000 + np.arange(1000)
EVENING = np.datetime64("2023-11-14T22:00:00", "us")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "dtype", "why"),
    [
        (4155915305 + 190 * np.arange(100), "float64", "4155915305, which becomes 4155915264 in f"),
        (UNIX, "float64", "1700000001, which becomes 1700000000 in float32"),
        (UNIX + 0.25, "float64", "1700000000.25, which becomes 1700000000 in float32"),
        (np.where(np.arange(1000) % 7, UNIX, 0), "float64", "1700000001, which becomes 1700000000"),
        (np.array([2**24 + 1, 0]), "float64", "16777217, which becomes 16777216 in float32"),
        (np.array([1.0, 1e300]), "float64", "1.0000000000000001e+300, which is too much for float"),
        (1e6 + np.arange(9) / 10, "float64", r"goes from 1000000 to 1000000.8, where .* 13 values"),
        (EVENING + np.arange(1000), "float64", r"'a', as days, goes from 0.9.* float32 has 1 val"),
        # Nothing is lost, or no more than by any rounding.
        (2 * UNIX - 2 * UNIX[0] + 2**24, "float32", None),
        (np.arange(1000) + 16_000_000, "float32", None),
        (np.full(1000, 0.1), "float32", None),
        (RNG.standard_normal(1000), "float32", None),
        (RNG.standard_normal(1000) * 1e-30, "float32", None),
        (RNG.standard_normal(1000) * 1e30, "float32", None),
        (1013 + RNG.standard_normal(1000), "float32", None),
        (EVENING + 10**9 * np.arange(1000), "float32", None),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_the_type_of_features_holds_what_differs(tmp_path, name, values, dtype, why):
    table = {"a": values, "b": np.arange(len(values))}
    result = made(tmp_path, table, name)
    assert result.store.dtype == dtype
    assert result.losses == ()
    notes = [note for note in result.notes if "float64" in note]
    found = preview(tmp_path / name, Roles())
    assert (found.recipe, found.notes) == (result.recipe, result.notes)
    if why is None:
        assert notes == []
        return
    assert re.search(re.escape(why) if ".*" not in why else why, notes[0])
    assert "--dtype float32" in notes[0]
    if values.dtype.kind == "M":
        values = (values - values[0].astype("M8[D]")) / np.timedelta64(1, "D")
    np.testing.assert_allclose(column_of(result.store), values, rtol=0, atol=4e-12)
    # The user's choice is kept, and its price is told.
    if np.abs(values).max() < 1e38:
        with pytest.warns(UserWarning, match=r"differ may become the same \(--dtype float64 keeps"):
            narrow = made(tmp_path, table, name, dtype="float32", overwrite=True)
        assert narrow.store.dtype == "float32"
        assert narrow.losses[0] in narrow.notes
        assert preview(tmp_path / name, Roles(dtype="float32")).notes == narrow.notes


@pytest.mark.slow
def test_the_type_of_features_is_settled_wherever_the_number_comes(tmp_path):
    values = np.arange(300_000)
    values[-1] = 2**24 + 1
    for settings_of_ingest in ({"shuffle": True}, {"test_size": 0.2}, {"missing": "median"}):
        result = made(tmp_path, {"a": values}, "a.csv", overwrite=True, **settings_of_ingest)
        stores = [result.store, *([result.test] if result.test else [])]
        assert {store.dtype.name for store in stores} == {"float64"}
        found = np.concatenate([column_of(store) for store in stores])
        assert np.sort(found).tolist() == values.tolist()
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "out.test.zarr", "out.zarr"]


@pytest.mark.slow
def test_whole_numbers_that_float64_can_not_hold_are_told(tmp_path):
    ids = 2**53 + np.arange(5)
    for name in ("a.parquet", "a.csv"):
        with pytest.warns(UserWarning, match="column 'a' has numbers such as 900719925474099"):
            result = made(tmp_path, {"a": ids, "b": np.arange(5.0)}, name, overwrite=True)
        assert "leave the column out, or take its values as categories" in result.losses[0]
        with pytest.warns(UserWarning, match="the target 'a' has numbers such as"):
            made(tmp_path, {"a": ids, "b": ids * 0.0}, name, target="a", overwrite=True)
        # As categories, labels and ids they keep every digit.
        table = {"a": ids, "b": np.arange(5.0)}
        store = made(tmp_path, table, name, categorical=["a"], overwrite=True).store
        assert store.feature_names == (*(f"a={i}" for i in ids), "b")
        roles = {"target": "a", "task": "classification"}
        store = made(tmp_path, table, name, overwrite=True, **roles).store
        assert store.classes == tuple(ids.tolist())
        store = made(tmp_path, table, name, id_column="a", overwrite=True).store
        assert rows_of(store.row_id).tolist() == ids.tolist()


def test_a_recipe_tells_what_it_loses_of_other_rows(tmp_path):
    recipe = made(tmp_path, {"a": [1, 2, 3]}).recipe
    with pytest.warns(UserWarning, match=r"16777217, which becomes .*the recipe says so"):
        made(tmp_path, {"a": [2**24 + 1, 1]}, like=recipe, overwrite=True)
    with pytest.warns(UserWarning, match="which becomes 16777216 in float32, the dtype of"):
        recipe.apply({"a": [2**24 + 1, 1]})


# The index of a frame


@pytest.mark.slow
def test_the_index_of_a_frame_is_no_feature(tmp_path):
    frame = pd.DataFrame({"v": [1.5, 2.5, 3.5], "y": [0, 1, 0]}, index=[7, 3, 5])
    frame.to_parquet(tmp_path / "a.parquet")
    frame.rename_axis("key").to_parquet(tmp_path / "b.parquet")
    frame.reset_index(drop=True).to_csv(tmp_path / "c.csv")
    pd.read_csv(tmp_path / "c.csv").to_csv(tmp_path / "d.csv", index=False)
    pd.read_csv(tmp_path / "c.csv").to_parquet(tmp_path / "e.parquet")
    (tmp_path / "r.csv").write_text('"","v","y"\n"1",1.5,0\n"2",2.5,1\n"3",3.5,0\n')
    for name, index in {
        "a.parquet": "__index_level_0__",
        "b.parquet": "key",
        "c.csv": "column 1",
        "d.csv": "Unnamed: 0",
        "e.parquet": "Unnamed: 0",
        "r.csv": "column 1",
    }.items():
        result = ingest(tmp_path / name, tmp_path / "o.zarr", target="y", overwrite=True)
        assert result.store.feature_names == ("v",)
        note = f"left out: {index!r}, "
        assert any(told.startswith(note) for told in result.notes)
        assert preview(tmp_path / name, Roles(target="y")).notes == result.notes
        # It is what the user says, where the user says so.
        for role, features in (
            ({"features": [index, "v"]}, (index, "v")),
            ({"id_column": index}, ("v", "y")),
            ({"drop": [index]}, ("v", "y")),
            ({"categorical": [index]}, None),
        ):
            named = ingest(tmp_path / name, tmp_path / "o.zarr", overwrite=True, **role)
            assert not any(note in told for told in named.notes)
            assert features is None or named.store.feature_names == features


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_a_first_column_without_a_name_that_does_not_count_is_refused(tmp_path, name):
    text = f"{name},v\n" + "".join(f"{i},{i % 3}\n" for i in (7, 3, 5))
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InvalidTable, match="has no name, and holds whole numbers such as 7, 3, 5"):
        ingest(tmp_path / "a.csv", tmp_path / "o.zarr")
    # Fractions are data, and so is what has a name.
    (tmp_path / "a.csv").write_text(text.replace("7,", "7.5,"))
    assert ingest(tmp_path / "a.csv", tmp_path / "o.zarr").store.n_features == 2
    (tmp_path / "a.csv").write_text("column 1,v\n0,2\n1,3\n")
    store = ingest(tmp_path / "a.csv", tmp_path / "o.zarr", overwrite=True).store
    assert store.feature_names == ("column 1", "v")


# Flights, as scikit-learn has them


@pytest.mark.slow
def test_flights_give_the_coefficients_of_a_pipeline_on_pandas(tmp_path):
    flights = pq.read_table(DATA / "flights.parquet")
    pq.write_table(flights.take(np.arange(0, len(flights), 8)), tmp_path / "flights.parquet")
    result = ingest(
        tmp_path / "flights.parquet",
        tmp_path / "a.zarr",
        target="late",
        test_size=0.2,
        dtype="float64",
    )
    frame = pd.read_parquet(tmp_path / "flights.parquet")
    train = ~rows_for_testing(np.arange(len(frame)), 0.2, 0)
    y = frame.pop("late").to_numpy()[train]
    categories = [column.name for column in result.recipe.columns if column.kind == "category"]
    for name in frame.columns.difference(categories):
        if frame[name].dtype.kind not in "iufb":
            frame[name] = (pd.to_datetime(frame[name]) - pd.Timestamp("2013-01-01")).dt.days
    encode = ColumnTransformer(
        [("hot", OneHotEncoder(), categories)],
        remainder="passthrough",
        verbose_feature_names_out=False,
        sparse_threshold=0,
    )
    theirs = make_pipeline(encode, LogisticRegression(solver="newton-cholesky", tol=1e-12))
    theirs.fit(frame[train], y)
    X, codes, _ = by_id(result.store)
    assert result.store.classes == (False, True)
    np.testing.assert_array_equal(codes, y)
    ours = LogisticRegression(solver="newton-cholesky", tol=1e-12).fit(X, codes)
    names = [name.replace("=", "_") for name in result.store.feature_names or ()]
    coef = dict(zip(theirs[0].get_feature_names_out(), theirs[1].coef_[0], strict=True))
    assert sorted(names) == sorted(coef)
    np.testing.assert_allclose(ours.coef_[0], [coef[name] for name in names], atol=1e-5)


@pytest.mark.parametrize("paths", [pd.DataFrame({"x": [1.0], "y": [0]}), np.zeros(3), 5, ["a", 5]])
def test_what_is_no_path_is_refused(tmp_path, paths):
    with pytest.raises(TypeError, match=r"^raw files are named by their paths, and this is of"):
        ingest(paths, tmp_path / "a.zarr", target="y")
    with pytest.raises(TypeError, match=r"^raw files are named by their paths"):
        preview(paths, Roles(target="y"))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_columns_that_later_files_alone_have_are_told_of(tmp_path, ending):
    for i, table in enumerate(
        ({"a": [1, 2], "y": [0, 1]}, {"z": [5, 6], "a": [3, 4], "y": [0, 1]})
    ):
        frame, name = pd.DataFrame(table), tmp_path / f"{i}.{ending}"
        if ending == "csv":
            frame.to_csv(name, index=False)
        else:
            frame.to_parquet(name)
    made = ingest(tmp_path, tmp_path / "a.zarr", target="y")
    first, second = (tmp_path / f"{i}.{ending}" for i in range(2))
    assert f"left out: 'z' of {second}, which {first} lacks" in made.notes
    assert preview(tmp_path, Roles(target="y")).notes == made.notes
    alone = ingest(tmp_path, tmp_path / "b.zarr", target="y", features=["a"])
    assert not any("lacks" in note for note in alone.notes)
