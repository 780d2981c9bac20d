"""Recipes: what training rows taught, applied to anything else in the same way, by any release."""

import copy
import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ooc_train.errors import InvalidTable
from ooc_train.store.jobs.ingest import ingest
from ooc_train.store.jobs.ingest_reading import recipe_of
from ooc_train.store.writing.writer import StoreWriter
from ooc_train.tables.recipe import Recipe
from ooc_train.tables.values import date_of, day_of, in_order
from tests.test_ingest import ROLES, TABLE, features_of, write
from tests.test_writer import rows_of

GOLDEN = Path(__file__).parent / "recipe_v1.json"
"""As the first release wrote it: never to be changed, always to be read."""

ROWS: dict[str, list[Any]] = {
    "day": [date(2013, 1, 3), None, date(2012, 12, 31)],
    "carrier": ["UA", None, "ZZ"],
    "month": [12, 1, 7],
    "distance": [100, None, 7],
    "night": [True, False, None],
}
EXPECTED = [
    [100, 1, 2, 0, 0, 1, 0, 1, 0, 0],
    [500.5, 0, 10, 1, 0, 0, 0, 0, 1, 0],
    [7, 0.25, -1, 0, 0, 0, 0, 0, 0, 1],
]


def golden():
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_the_first_version_is_read_and_means_what_it_meant():
    recipe = Recipe.from_json(golden())
    names = ["distance", "night", "day", "month=1", "month=2", "month=12"]
    names += ["carrier=AA", "carrier=UA", "carrier is missing", "carrier is other"]
    assert list(recipe.feature_names) == names
    assert (recipe.classes, recipe.sample_weight, recipe.id_column) == (
        ("no", "yes"),
        "weight",
        "key",
    )
    X = recipe.apply(ROWS)
    assert X.dtype == np.float64
    assert X.tolist() == EXPECTED


def test_what_is_written_is_what_was_read():
    assert Recipe.from_json(golden()).to_json() == golden()


def test_tables_of_any_sort_are_the_same():
    recipe = Recipe.from_json(golden())
    table = pa.table(ROWS)
    frame = pd.DataFrame(ROWS)
    for rows in (
        table,
        table.to_batches()[0],
        pa.concat_tables([table.slice(0, 1), table.slice(1)]),
        table.slice(0).append_column("more", [[0, 0, 0]]),
        frame,
        frame.astype({"carrier": "category", "distance": "float32"}),
        frame.set_index(frame.index[::-1]),
        {name: pa.array(values) for name, values in ROWS.items()},
        # As text, as CSV without types would have it.
        {
            "day": ["2013-01-03", None, "2012-12-31 00:00"],
            "carrier": pa.array(["UA", None, "ZZ"]).dictionary_encode(),
            "month": ["12", "1", "7"],
            "distance": ["100", None, " 7.0"],
            "night": [1.0, 0, None],
        },
        {
            "day": [datetime(2013, 1, 3), None, datetime(2012, 12, 31)],  # noqa: DTZ001
            "carrier": pa.array(["UA", None, "ZZ"], pa.large_string()),
            "month": [12.0, 1.0, 7.0],
            "distance": [Decimal(100), None, Decimal(7)],
            "night": pa.array([1, 0, None], pa.int8()),
        },
    ):
        np.testing.assert_array_equal(recipe.apply(rows), EXPECTED)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
@pytest.mark.parametrize("missing", ["error", "median"])
def test_applied_to_the_source_it_gives_the_rows_of_the_store(tmp_path, name, missing):
    result = ingest(
        write(tmp_path / name), tmp_path / "a.zarr", test_size=0.3, missing=missing, **ROLES
    )
    order = np.argsort(TABLE["key"].to_numpy())
    keys = TABLE["key"].to_numpy()[order]
    for table in (TABLE, TABLE.to_pandas()):
        X = recipe_of(result.store).apply(table)
        for store in (result.store, result.test):
            assert store is not None
            assert store.row_id is not None
            rows = order[np.searchsorted(keys, rows_of(store.row_id))]
            np.testing.assert_array_equal(features_of(store), X[rows])


def test_json_and_back(tmp_path):
    recipe = ingest(write(tmp_path / "a.csv"), tmp_path / "a.zarr", missing="mean", **ROLES).recipe
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_a_recipe_that_a_person_changed():
    changed = golden()
    changed["columns"][3]["values"] = ["2", "7"]
    changed["columns"][0]["fill"] = -1
    changed["unseen"] = "ignore"
    del changed["columns"][1]
    recipe = Recipe.from_json(changed)
    assert recipe.n_features == 8
    assert recipe.apply(ROWS)[:, :4].tolist() == [[100, 2, 0, 0], [-1, 10, 0, 0], [7, -1, 0, 1]]


def put(value, *path):
    """The golden recipe with something else at a place."""
    changed = golden()
    inside = changed
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (put("other", "format"), "damaged: format is 'other', which is no 'ooc_train.recipe'"),
        (put(3, "format_version"), "format version 3, this package reads up to 2; update"),
        (put("1", "format_version"), "damaged"),
        (put(None, "columns"), "damaged"),
        (put([], "columns"), "columns has 0 items, and at least 1"),
        (put(3, "columns", 0), "damaged"),
        (put(3, "columns", 0, "name"), r"columns\[0\]\.name is 3, which is no text"),
        (put("night", "columns", 0, "name"), "columns has an entry twice"),
        (put("weight", "columns", 0, "name"), "sample_weight is 'weight', which should be another"),
        (
            put("blob", "columns", 0, "kind"),
            r"\[0\]\.kind is 'blob', which is no one of 'number', 'd",
        ),
        (put("x", "columns", 0, "fill"), r"columns\[0\]\.fill is 'x', which is no finite number"),
        (put(float("nan"), "columns", 0, "fill"), "fill is nan"),
        (put("x", "columns", 0, "formula"), "damaged: .*formula"),
        (put("2013", "columns", 2, "origin"), r"columns\[2\]\.origin is '2013', which is no date"),
        (put(5, "columns", 2, "origin"), "origin is 5, which is no date"),
        (put("AA", "columns", 4, "values"), "damaged: .*is 'AA', which is no list"),
        (put([1], "columns", 4, "values"), r"columns\[4\]\.values\[0\] is 1, which is no text"),
        (put(["AA", "AA"], "columns", 4, "values"), r"columns\[4\]\.values has an entry twice"),
        (put([], "columns", 3, "values"), r"columns\[3\] is a category without values"),
        (
            put("skip", "missing"),
            "missing is 'skip', which is no one of 'error', 'drop', 'mean', 'median'",
        ),
        (put([], "unseen"), "unseen is "),
        (put("float16", "dtype"), "dtype is 'float16'"),
        (put(["no"], "target", "classes"), "classes has 1 items, and at least 2"),
        (put(["no", "no"], "target", "classes"), "classes has an entry twice"),
        (put([["no"], {}], "target", "classes"), r"damaged: target\.classes\[0\] is \['no'\]"),
        (put(10**400, "columns", 0, "fill"), "fill is a number of 1,329 bits, which"),
        (
            put("yes", "columns", 0, "missing"),
            r"columns\[0\]\.missing is 'yes', which is no true or false",
        ),
        (put(3, "target", "type"), r"damaged: target\.type is 3, which is no text"),
        (put("ab", "target", "classes"), "damaged"),
        (put("day", "target", "name"), "target is 'day', which should be another column"),
        (put({}, "target"), "damaged"),
        (put(7, "id_column"), "id_column is 7"),
        ([], "damaged"),
        (None, "damaged"),
    ],
)
def test_recipes_that_can_not_be_applied(changed, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_json(changed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(value=JSON, data=st.data())
def test_whatever_is_in_it_is_a_recipe_or_a_value_error(value, data):
    changed = copy.deepcopy(golden())
    inside = changed
    while isinstance(inside, dict | list) and inside:
        keys = list(inside) if isinstance(inside, dict) else range(len(inside))
        key = data.draw(st.sampled_from(keys))
        if data.draw(st.booleans()) or not isinstance(inside[key], dict | list):
            inside[key] = value
            break
        inside = inside[key]
    try:
        recipe = Recipe.from_json(changed)
    except ValueError:
        return
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"day": ["x", None, None]}, "'day' in row 0 of the table is 'x', which is no date"),
        ({"day": [1.5, None, None]}, "'day' in row 0 .*holds a double, which is no date"),
        ({"distance": [1, 2, "3km"]}, "'distance' in row 2 .* is '3km', which is no number"),
        ({"distance": [1, 2, np.inf]}, "'distance' in row 2 .* is inf"),
        ({"distance": [date(2013, 1, 1)] * 3}, "holds a date32.*which is no number"),
    ],
)
def test_rows_that_it_can_not_be_applied_to(changed, message):
    rows = {
        name: [str(v) if isinstance(v, int) and "3km" in values else v for v in values]
        for name, values in (ROWS | changed).items()
    }
    with pytest.raises(InvalidTable, match=message):
        Recipe.from_json(golden()).apply(rows)


def test_tables_that_lack_a_column_or_a_value():
    recipe = Recipe.from_json(golden())
    with pytest.raises(InvalidTable, match="the table lacks 'day', 'carrier'; it has 'month'"):
        recipe.apply({name: ROWS[name] for name in ("month", "distance", "night")})
    strict = Recipe.from_json(put("error", "missing"))
    with pytest.raises(InvalidTable, match="'distance' in row 1 of the table is missing"):
        strict.apply(ROWS)
    dropping = Recipe.from_json(put("drop", "missing"))
    assert dropping.apply(ROWS).tolist() == EXPECTED[:1]
    closed = Recipe.from_json(put("error", "unseen"))
    with pytest.raises(InvalidTable, match="'month' in row 2 of the table is 7, which no training"):
        closed.apply(ROWS)
    assert recipe.apply({name: values[:0] for name, values in ROWS.items()}).shape == (0, 10)


def test_stores_without_a_recipe(tmp_path):
    with StoreWriter(tmp_path / "a.zarr", n_features=2) as writer:
        writer.write(np.ones((3, 2)))
        writer.commit()
    with pytest.raises(InvalidTable, match="has no recipe: it wasn't made of raw files"):
        recipe_of(tmp_path / "a.zarr")


@given(st.integers(-700_000, 2_900_000))
def test_days_and_their_dates(day):
    assert day_of(date_of(day)) == day
    assert date_of(day + 0.75) == date_of(day)


def test_values_are_sorted_as_numbers_where_all_are():
    assert in_order(["10", "9", "-1", "2.5"]) == ["-1", "2.5", "9", "10"]
    assert in_order(["10", "9", "x"]) == ["10", "9", "x"]
