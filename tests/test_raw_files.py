"""Predictions and metrics of raw files, and into tables."""

import json
import os
import shutil
import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import zarr
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from ooc_train import (
    InvalidRun,
    InvalidTable,
    LinearRegression,
    LogisticModel,
    LogisticRegression,
    OutputExists,
    Ridge,
    TableNotFound,
    cli,
    evaluate,
    evaluate_files,
    ingest,
    load,
    open_store,
    predict,
    predict_files,
    predict_store,
    train,
)
from ooc_train.errors import CeilingExceeded
from ooc_train.inference.outputs import Kind
from ooc_train.runs.run_loading import load_fitted
from tests.conftest import DATA

FLIGHTS = DATA / "flights.parquet"
BOTH: tuple[Kind, ...] = ("prediction", "probability")


@pytest.fixture(scope="module")
def late(flights, tmp_path_factory):
    """A model of the flights, saved."""
    run = tmp_path_factory.mktemp("late") / "late.run"
    LogisticRegression().fit(flights[0]).save(run)
    return run


def people(n, seed=0, **more):
    """A small table of several types, with a text label."""
    random = np.random.default_rng(seed)
    age = random.integers(18, 90, n)
    city, noise = random.choice(["Bern", "Rome", "Oslo"], n), random.normal(size=n)
    return pa.table(
        {
            "number": np.arange(n) * 7 + 1000,
            "age": age,
            "city": city,
            "member": random.random(n) < 0.5,
            "buys": np.where(age + 20 * (city == "Rome") + 9 * noise > 60, "yes", "no"),
        }
        | more
    )


@pytest.fixture(scope="module")
def buyers(tmp_path_factory):
    """A model of such a table, as it was ingested from CSV, its run and the table."""
    folder = tmp_path_factory.mktemp("buyers")
    table = people(2_000)
    pyarrow.csv.write_csv(table, folder / "people.csv")
    made = ingest(
        folder / "people.csv",
        folder / "people.zarr",
        target="buys",
        categorical=["city"],
        id_column="number",
    )
    LogisticRegression(tol=1e-8).fit(made.store).save(folder / "buys.run")
    return folder / "buys.run", table


def read(path):
    return pyarrow.csv.read_csv(path) if str(path).endswith(".csv") else pq.read_table(path)


@pytest.mark.slow
def test_raw_rows_are_predicted_as_their_rows_in_the_store(late, flights, tmp_path):
    fitted = load_fitted(late)
    n, _ = predict_files(fitted, FLIGHTS, tmp_path / "late.parquet", kinds=BOTH)
    found = read(tmp_path / "late.parquet")
    assert n == found.num_rows == 327_346
    assert found["row_id"].to_numpy().tolist() == list(range(n))
    for path in flights:
        ids = zarr.open_array(path, path="row_id")[:]
        p = predict(fitted, path, "probability")
        # Products may differ in the last bits by how rows are cut.
        np.testing.assert_allclose(found["probability_True"].to_numpy()[ids], p[:, 1], rtol=1e-12)
        codes = predict(fitted, path)
        assert np.array_equal(found["prediction"].to_numpy()[ids], codes.astype(bool))


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".zarr"])
def test_every_kind_of_output_has_ids_and_original_labels(buyers, tmp_path, suffix):
    run, table = buyers
    pq.write_table(table, tmp_path / "new.parquet")
    out = tmp_path / f"out{suffix}"
    predict_files(load_fitted(run), tmp_path / "new.parquet", out, kinds=BOTH)
    model = load(run)
    expected = model.predict(model.recipe_.apply(table))
    proba = model.predict_proba(model.recipe_.apply(table))
    if suffix == ".zarr":
        group: Any = zarr.open_group(out, mode="r")
        assert group.attrs["classes"] == ["no", "yes"]
        labels = np.array(group.attrs["classes"])[group["prediction"][:]]
        ids, yes = group["row_id"][:], group["probability"][:, 1]
    else:
        found = read(out)
        assert found.column_names == ["number", "prediction", "probability_no", "probability_yes"]
        labels, ids = np.array(found["prediction"].to_pylist()), found["number"].to_numpy()
        yes = found["probability_yes"].to_numpy()
    assert np.array_equal(ids, table["number"].to_numpy())
    assert np.array_equal(labels, expected)
    np.testing.assert_allclose(yes, proba[:, 1], rtol=1e-12)


def with_more(n, integers, unit):
    """A table of people with columns that the recipe doesn't read, some values missing."""
    days = (np.datetime64("2024-01-31T05:30") + np.arange(n)).astype(f"datetime64[{unit}]")
    code = pa.array([None if i % 5 == 0 else f'0{i}, "é"' for i in range(n)])
    return people(
        n,
        code=code.dictionary_encode(),
        seen=pa.array(days),
        count=pa.array(np.arange(n), integers, mask=np.arange(n) % 7 == 0),
    )


KEPT = ("code", "age", "seen", "count")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("source", ["csv", "parquet"])
def test_columns_of_the_files_are_repeated_beside_the_predictions(buyers, tmp_path, suffix, source):
    run, _ = buyers
    tables = [with_more(1500, "int32", "ms"), with_more(700, "int64", "us")]
    names = [str(tmp_path / f"{i}.{source}") for i in range(2)]
    for table, name in zip(tables, names, strict=True):
        if source == "csv":
            decoded = table.column("code").combine_chunks().dictionary_decode()
            pyarrow.csv.write_csv(table.set_column(5, "code", decoded), name)
        else:
            pq.write_table(table, name)
    out, plain = tmp_path / f"out{suffix}", tmp_path / f"plain{suffix}"
    predict_files(run, names, out, kinds=BOTH, keep=KEPT)
    predict_files(run, names, plain, kinds=BOTH)
    found, due = read(out), read(plain)
    assert found.column_names == ["number", *KEPT, *due.column_names[1:]]
    assert found.drop_columns(KEPT) == due
    for name in KEPT:
        ours = found[name].to_pylist()
        theirs = [value for table in tables for value in table[name].to_pylist()]
        if name == "code" and suffix == ".csv":
            ours = [value or None for value in ours]
        if name in ("seen", "count") and (suffix, source) == (".parquet", "csv"):
            theirs = [None if value is None else str(value)[:10] for value in theirs]
            ours = [None if value is None else value[:10] for value in ours]
        assert ours == theirs, name


def test_rows_that_are_left_out_take_their_columns_with_them(tmp_path):
    rows = "".join(f"k{i},{'' if i % 3 == 0 else i},{i % 2}\n" for i in range(300))
    (tmp_path / "a.csv").write_text(f"id,x,y\n{rows}")
    made = ingest(tmp_path / "a.csv", tmp_path / "a.zarr", target="y", drop=["id"], missing="drop")
    model = Ridge().fit(made.store)
    with pytest.warns(UserWarning, match=r"^100 rows were left out because of missing values"):
        model.predict_files(tmp_path / "a.csv", tmp_path / "p.csv", keep=["id"])
    found = read(tmp_path / "p.csv")
    assert found["id"].to_pylist() == [f"k{i}" for i in found["row_id"].to_pylist()]
    assert len(found) == 200


def test_columns_that_can_not_be_repeated_are_refused(buyers, tmp_path):
    run, table = buyers
    lists = pa.array([[1.0]] * 2_000)
    pq.write_table(table.append_column("lists", lists), tmp_path / "a.parquet")
    pq.write_table(table.append_column("prediction", table["age"]), tmp_path / "b.parquet")
    for name, keep, out, message in (
        ("a", "nothing", "p.csv", r"a.parquet lacks the column 'nothing'; it has"),
        ("a", "lists", "p.csv", r"column 'lists' of .* holds list<.*>, which no table"),
        ("a", "age", "p.zarr", r"p.zarr is a store, which has no raw columns to keep"),
        ("b", "prediction", "p.csv", r"columns of the names 'prediction' themselves"),
    ):
        with pytest.raises(ValueError, match=message):
            predict_files(run, tmp_path / f"{name}.parquet", tmp_path / out, keep=[keep])
    large = table.set_column(1, "age", pa.array([2**40] * 2_000))
    small = table.set_column(1, "age", table["age"].cast(pa.int8()))
    pq.write_table(small, tmp_path / "c.parquet")
    pq.write_table(large, tmp_path / "d.parquet")
    names = [tmp_path / "c.parquet", tmp_path / "d.parquet"]
    with pytest.raises(InvalidTable, match=r"'age' of .*d.parquet can't be repeated as int8"):
        predict_files(run, names, tmp_path / "p.csv", keep=["age"])
    assert not list(tmp_path.glob("*.[cz]*"))
    store = open_store(run.parent / "people.zarr")
    with pytest.raises(ValueError, match=r"people.zarr is a store"):
        predict_files(run, store, tmp_path / "p.csv", keep=["age"])


@pytest.mark.slow
def test_long_texts_are_repeated_within_the_plan(tmp_path):
    """Texts take far more memory than the numbers beside them."""
    rng = np.random.default_rng(0)
    with (tmp_path / "a.csv").open("w") as file:
        file.write("text,x,y\n")
        for i in range(20_000):
            file.write(f"{'long text ' * 100}{i},{rng.random():.3f},{i % 2}\n")
    ingest(tmp_path / "a.csv", tmp_path / "a.zarr", target="y", drop=["text"])
    Ridge().fit(tmp_path / "a.zarr").save(tmp_path / "a.run")
    table = pyarrow.csv.read_csv(tmp_path / "a.csv")
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2_000)
    for source in ("csv", "parquet"):
        for kind in ("csv", "parquet"):
            out = tmp_path / f"{source}.{kind}"
            command = (
                "predict", tmp_path / "a.run", tmp_path / f"a.{source}", out,
                "--keep", "text", "--quiet", "--json",
            )  # fmt: skip
            done = subprocess.run(
                [sys.executable, "-m", "ooc_train", *map(str, command)],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            memory = json.loads(done.stdout)["memory"]
            assert memory["measured"] <= memory["projected"], (source, kind)
            assert read(out)["text"] == table["text"]


@pytest.mark.slow
def test_a_store_is_predicted_into_a_table_with_its_ids(late, flights, tmp_path):
    out = tmp_path / "test.csv"
    n, _ = predict_files(load_fitted(late), open_store(flights[1]), out)
    found = read(out)
    assert n == found.num_rows == 65_469
    assert np.array_equal(found["row_id"].to_numpy(), zarr.open_array(flights[1], path="row_id")[:])
    model = load(late)
    assert model.predict(flights[1], out=tmp_path / "again.csv") == str(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == out.read_bytes()
    assert np.array_equal(
        found["prediction"].to_numpy(zero_copy_only=False), model.predict(flights[1])
    )


@pytest.mark.slow
def test_a_model_may_be_an_estimator_or_the_path_of_its_run(buyers, tmp_path):
    run, table = buyers
    pq.write_table(table, tmp_path / "new.parquet")
    store = run.parent / "people.zarr"
    estimator, fitted = load(run), load_fitted(run)
    said = dict(fitted.report)
    for model in (estimator, str(run), run, fitted):
        metrics, _ = evaluate(model, store)
        assert metrics["accuracy"] == pytest.approx(estimator.score(store), abs=1e-12)
        assert evaluate_files(model, tmp_path / "new.parquet")[0].keys() == metrics.keys()
        assert np.array_equal(predict(model, store), predict(fitted, store))
        predict_store(model, store, tmp_path / "p.zarr", overwrite=True)
        predict_files(model, tmp_path / "new.parquet", tmp_path / "p.csv", overwrite=True)
        assert read(tmp_path / "p.csv").num_rows == table.num_rows
    again = estimator.to_fitted()
    assert (again.model, again.classes, again.recipe) == (
        fitted.model, fitted.classes, fitted.recipe
    )  # fmt: skip
    assert json.loads(json.dumps(dict(again.report))) == said


def test_what_is_no_fitted_model_is_reported(buyers):
    store = buyers[0].parent / "people.zarr"
    with pytest.raises(TypeError, match=r"Pipeline is no fitted model; give a fitted estimator"):
        evaluate(make_pipeline(LogisticRegression()), store)
    with pytest.raises(NotFittedError):
        evaluate(LogisticRegression(), store)
    with pytest.raises(InvalidRun, match="is no run"):
        evaluate(str(store), store)


def test_metrics_of_raw_rows_are_those_of_the_store(buyers, tmp_path):
    run, table = buyers
    fitted = load_fitted(run)
    pyarrow.csv.write_csv(table, tmp_path / "people.csv")
    found, memory = evaluate_files(fitted, tmp_path / "people.csv")
    expected, _ = evaluate(fitted, os.path.join(os.path.dirname(run), "people.zarr"))
    by_class = [metrics.pop("by_class").confusion for metrics in (found, expected)]
    np.testing.assert_array_equal(*by_class)
    assert found == pytest.approx(expected, rel=1e-9)
    assert memory.projected <= memory.ceiling


def test_numbers_are_predicted_and_evaluated_too(tmp_path):
    table = people(500, y=np.random.default_rng(1).normal(1e6, 1, 500)).drop_columns(["buys"])
    pq.write_table(table, tmp_path / "t.parquet")
    made = ingest(tmp_path / "t.parquet", tmp_path / "t.zarr", target="y", categorical=["city"])
    model = Ridge(alpha=1e-6).fit(made.store)
    out = model.predict_files(tmp_path / "t.parquet", tmp_path / "y.csv")
    recipe: Any = model.recipe_
    X = recipe.apply(table)
    np.testing.assert_allclose(read(out)["prediction"].to_numpy(), model.predict(X), rtol=1e-12)
    found, _ = evaluate_files(model._fitted(), tmp_path / "t.parquet")
    assert found["r2"] == pytest.approx(model.score(X, table["y"].to_numpy()), rel=1e-6)
    with pytest.raises(ValueError, match="Ridge has none"):
        model.predict_files(tmp_path / "t.parquet", tmp_path / "p.csv", proba=True)


def test_numbers_that_float32_can_not_hold_are_predicted_to_the_unit(tmp_path):
    values = 4155915305 + 190 * np.arange(200)
    pyarrow.csv.write_csv(pa.table({"a": values, "y": values}), tmp_path / "a.csv")
    made = ingest(tmp_path / "a.csv", tmp_path / "a.zarr", target="y")
    model = LinearRegression().fit(made.store)
    model.predict_files(tmp_path / "a.csv", tmp_path / "p.parquet")
    predicted = pq.read_table(tmp_path / "p.parquet")["prediction"].to_numpy()
    np.testing.assert_allclose(predicted, values, rtol=0, atol=0.01)
    # Of a recipe of float32, whose rows had no such numbers, the loss is told.
    pyarrow.csv.write_csv(pa.table({"a": [1, 2, 3], "y": [1, 2, 3]}), tmp_path / "b.csv")
    model = LinearRegression().fit(
        ingest(tmp_path / "b.csv", tmp_path / "b.zarr", target="y").store
    )
    with pytest.warns(UserWarning, match="'a' has numbers such as 4155915305, .* the recipe"):
        model.predict_files(tmp_path / "a.csv", tmp_path / "q.parquet")
    with pytest.warns(UserWarning, match="4155915305, .* the recipe has it"):
        evaluate_files(model, tmp_path / "a.csv")


def test_numbers_that_were_never_named_as_classes_come_back_as_they_were(tmp_path):
    table = people(300)
    table = table.append_column("k", pa.array(np.where(table["age"].to_numpy() > 50, 7, 3)))
    pq.write_table(table.drop_columns(["buys"]), tmp_path / "t.parquet")
    made = ingest(tmp_path / "t.parquet", tmp_path / "t.zarr", target="k", categorical=["city"])
    assert made.store.classes is None
    model = LogisticRegression().fit(made.store)
    out = model.predict_files(tmp_path / "t.parquet", tmp_path / "k.csv", proba=True)
    assert set(read(out)["prediction"].to_pylist()) == {3, 7}
    assert read(out).column_names[2:] == ["probability_3", "probability_7"]
    found, _ = evaluate_files(model._fitted(), tmp_path / "t.parquet")
    assert found["accuracy"] > 0.9


# What raw files may be like when the time comes


def changed(table, **columns):
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["age"]), "lacks the column 'age'; it has 'number'"),
        (
            lambda t: changed(t, age=pa.array(["old"] * len(t))),
            r"column 'age' in row 0 .*'old'.* no number",
        ),
        (
            lambda t: changed(t, city=pa.array(["Rome"] * 9 + ["Ulm"] * (len(t) - 9))),
            r"column 'city' in row 9 .*'Ulm'.*no training row.*--unseen",
        ),
        (
            lambda t: changed(t, age=pa.array([1, 2, None] + [3] * (len(t) - 3))),
            "column 'age' in row 2 .* is missing; .*--missing",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_place(buyers, tmp_path, change, message):
    run, table = buyers
    pq.write_table(change(table.slice(0, 50)), tmp_path / "new.parquet")
    out = tmp_path / "out.csv"
    with pytest.raises(InvalidTable, match=message):
        predict_files(load_fitted(run), tmp_path / "new.parquet", out)
    assert sorted(os.listdir(tmp_path)) == ["new.parquet"]


def test_further_columns_and_another_order_change_nothing(buyers, tmp_path):
    run, table = buyers
    more = table.select(["city", "member", "age", "number"]).append_column(
        "<b>more</b>", pa.array(["x"] * len(table))
    )
    pyarrow.csv.write_csv(table, tmp_path / "a.csv")
    pyarrow.csv.write_csv(more, tmp_path / "b.csv")
    for name in ("a", "b"):
        predict_files(load_fitted(run), tmp_path / f"{name}.csv", tmp_path / f"{name}.out.csv")
    assert (tmp_path / "a.out.csv").read_bytes() == (tmp_path / "b.out.csv").read_bytes()


def test_unseen_values_can_be_let_pass_when_predicting(buyers, tmp_path):
    run, table = buyers
    new = changed(table.slice(0, 3), city=pa.array(["Ulm"] * 3))
    pq.write_table(new, tmp_path / "new.parquet")
    model = load(run)
    out = model.predict_files(
        tmp_path / "new.parquet", tmp_path / "o.csv", unseen="ignore", proba=True
    )
    X = model.recipe_.apply(table.slice(0, 3)).copy()
    X[:, [name.startswith("city=") for name in model.feature_names_in_]] = 0
    found = read(out)["probability_yes"].to_numpy()
    np.testing.assert_allclose(found, model.predict_proba(X)[:, 1], rtol=1e-12)


def test_without_the_target_there_is_nothing_to_evaluate(buyers, tmp_path):
    run, table = buyers
    pq.write_table(table.drop_columns(["buys"]), tmp_path / "new.parquet")
    with pytest.raises(InvalidTable, match="lacks the column 'buys'"):
        evaluate_files(load_fitted(run), tmp_path / "new.parquet")
    pq.write_table(changed(table, buys=pa.array(["maybe"] * len(table))), tmp_path / "m.parquet")
    with pytest.raises(InvalidTable, match="'maybe', which is none of the classes 'no', 'yes'"):
        evaluate_files(load_fitted(run), tmp_path / "m.parquet")


def test_a_model_of_no_recipe_says_so(tmp_path):
    X = np.random.default_rng(0).normal(size=(50, 3))
    model = LogisticRegression().fit(X, X[:, 0] > 0)
    assert model.recipe_ is None
    with pytest.raises(InvalidRun, match="no recipe for raw files"):
        model.predict_files(FLIGHTS, tmp_path / "out.csv")


def test_a_recipe_that_was_spoilt_is_found(buyers, tmp_path):
    run, table = buyers
    spoilt = tmp_path / "spoilt.run"
    shutil.copytree(run, spoilt)
    recipe = json.loads((spoilt / "recipe.json").read_text())
    pq.write_table(table, tmp_path / "new.parquet")
    for change, message in (
        ({"format_version": 99}, "reads up to 2; update ooc_train"),
        ({"columns": recipe["columns"][:-1]}, "its recipe lacks 'member', which the model has"),
        ({"columns": 7}, "recipe is damaged"),
    ):
        (spoilt / "recipe.json").write_text(json.dumps(recipe | change))
        with pytest.raises(InvalidRun, match=message):
            predict_files(load_fitted(spoilt), tmp_path / "new.parquet", tmp_path / "out.csv")


def test_without_the_ids_rows_have_numbers_as_a_note_says(buyers, tmp_path):
    run, table = buyers
    pq.write_table(table.drop_columns(["number"]), tmp_path / "new.parquet")
    notes: list[str] = []
    fitted = load_fitted(run)
    predict_files(fitted, tmp_path / "new.parquet", tmp_path / "p.csv", warn=notes.append)
    found = read(tmp_path / "p.csv")
    assert found.column_names == ["row_id", "prediction"]
    assert found["row_id"].to_pylist() == list(range(len(table)))
    assert len(notes) == 1
    assert "lacks the row ids 'number'; row_id has row numbers" in notes[0]
    pq.write_table(table, tmp_path / "ids.parquet")
    predict_files(fitted, tmp_path / "ids.parquet", tmp_path / "ids.csv")
    assert found["prediction"] == read(tmp_path / "ids.csv")["prediction"]
    # Metrics have no ids: nothing is noted.
    evaluate_files(fitted, tmp_path / "new.parquet", warn=notes.append)
    assert len(notes) == 1


@pytest.mark.parametrize("name", ["p.xlsx", "p.cvs", "p.CSVS"])
def test_predictions_have_the_name_of_a_table_or_of_a_store(buyers, tmp_path, name):
    run, out = buyers[0], tmp_path / name
    with pytest.raises(ValueError, match=r"end it with .csv, .tsv or .parquet .* .zarr or nothing"):
        predict_files(load_fitted(run), FLIGHTS, out)
    said = CliRunner().invoke(cli.app, ["predict", str(run), str(FLIGHTS), str(out)])
    assert said.exit_code == 1
    assert f"{name} ends with" in said.stderr
    assert not out.exists()


@pytest.mark.slow
def test_what_lies_there_is_replaced_only_on_purpose(buyers, tmp_path):
    run, table = buyers
    fitted = load_fitted(run)
    pq.write_table(table, tmp_path / "new.parquet")
    out = tmp_path / "out.csv"
    out.write_text("mine")
    with pytest.raises(OutputExists):
        predict_files(fitted, tmp_path / "new.parquet", out)
    pq.write_table(changed(table, city=pa.array(["Ulm"] * len(table))), tmp_path / "bad.parquet")
    with pytest.raises(InvalidTable):
        predict_files(fitted, tmp_path / "bad.parquet", out, overwrite=True)
    assert out.read_text() == "mine"
    predict_files(fitted, tmp_path / "new.parquet", out, overwrite=True)
    assert read(out).num_rows == len(table)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OutputExists, match="no file"):
        predict_files(fitted, tmp_path / "new.parquet", tmp_path / "folder.csv", overwrite=True)
    with pytest.raises(ValueError, match="not packed"):
        predict_files(fitted, tmp_path / "new.parquet", tmp_path / "out.csv.gz")
    with pytest.raises(TableNotFound, match="nowhere"):
        predict_files(fitted, tmp_path / "nowhere.csv", tmp_path / "o.csv")


def test_a_ceiling_that_is_too_small_is_refused_before_reading(late, tmp_path):
    with pytest.raises(CeilingExceeded, match="raise the memory ceiling to"):
        predict_files(load_fitted(late), FLIGHTS, tmp_path / "out.csv", memory_ceiling="16MiB")
    assert os.listdir(tmp_path) == []


def test_a_target_of_decimals_has_the_classes_that_its_own_recipe_knows(tmp_path):
    x = np.arange(60.0)
    y = [Decimal("1.50") if value > 30 else Decimal("2.00") for value in x]
    table = pa.table({"x": x, "y": pa.array(y, pa.decimal128(5, 2))})
    pq.write_table(table, tmp_path / "a.parquet")
    ingest(tmp_path / "a.parquet", tmp_path / "a", target="y", task="classification")
    fitted, _ = train(LogisticModel(), tmp_path / "a")
    assert fitted.classes == (1.5, 2)
    assert evaluate_files(fitted, tmp_path / "a.parquet")[0]["accuracy"] == 1.0
