"""Raw files on the command line: from a table to a model and back."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ooc_train import LogisticRegression
from ooc_train.cli import app
from ooc_train.store.opening.opener import open_store
from tests.test_raw_files import people


def here(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table as CSV, its store, its test rows, and a run."""
    folder = tmp_path_factory.mktemp("people")
    pyarrow.csv.write_csv(people(1_000), folder / "people.csv")
    made = here(
        "ingest", folder / "people.csv", folder / "people.zarr", "--target", "buys",
        "--categorical", "city", "--id", "number", "--test-size", "0.25", "--json", "--quiet",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    (folder / "made.json").write_text(made.stdout)
    LogisticRegression().fit(folder / "people.zarr").save(folder / "buys.run")
    return folder


def test_ingest_tells_what_it_made(folder):
    found = json.loads((folder / "made.json").read_text())
    assert found["store"]["n_rows"] == 750
    assert found["test"]["n_rows"] == 250
    assert found["store"]["classes"] == ["no", "yes"]
    assert [column["name"] for column in found["recipe"]["columns"]] == ["age", "city", "member"]
    memory = found["memory"]
    assert memory["measured"] <= memory["projected"] <= memory["ceiling"]
    again = here(
        "ingest", folder / "people.csv", folder / "again.zarr", "--target", "buys",
        "--categorical", "city", "--drop", "number",
    )  # fmt: skip
    assert again.exit_code == 0
    assert "again.zarr: 1,000 rows x 5 columns" in again.stdout
    assert "memory: ceiling" in again.stdout
    assert "1,000 rows x 5 columns of float32 (19.5 KiB before compression)" in again.stderr


def test_formats_of_cells_and_a_column_that_counts_are_told(tmp_path):
    rows = [f"{i + 1};{i % 7},5 €;{i % 28 + 1}.02.2024;{i * i % 3 % 2}" for i in range(40)]
    (tmp_path / "a.csv").write_text("\n".join(["Nr;Preis;Tag;y", *rows]), encoding="utf-8")
    given = ["--decimal", ",", "--symbols", "€", "--date-format", "%d.%m.%Y", "--delimiter", ";"]
    call = ("ingest", tmp_path / "a.csv", tmp_path / "a.zarr", "--target", "y", *given)
    made = here(*call)
    assert made.exit_code == 0, made.stderr
    assert "'Nr' counts the rows" in made.stderr + made.stdout
    assert "--id Nr keeps it" in made.stderr + made.stdout
    told = here("info", tmp_path / "a.zarr")
    assert (
        "cells are read by --delimiter ';' --decimal , --symbols '€' --date-format %d.%m.%Y\n"
        in told.stdout
    )
    found = json.loads(here("info", tmp_path / "a.zarr", "--json").stdout)["cell_formats"]
    assert found == {"decimal": ",", "symbols": ["€"], "date_format": {"": "%d.%m.%Y"}}
    again = here(*call, "--id", "Nr", "--overwrite")
    assert "counts the rows" not in again.stderr + again.stdout


def test_a_refused_summary_speaks_of_options(folder):
    refused = here("summary", folder / "buys.run", folder / "people.zarr")
    assert refused.exit_code == 1
    said = " ".join(refused.stderr.split())
    assert "fit it without: --C inf, --alpha 0, or --model linear (LinearRegression)" in said


@pytest.mark.slow
def test_a_small_table_has_chunks_enough_for_validation_and_folds(folder, tmp_path):
    pyarrow.csv.write_csv(people(300), tmp_path / "few.csv")
    store = tmp_path / "few.zarr"
    call = ("ingest", tmp_path / "few.csv", store, "--target", "buys", "--drop", "city,number")
    assert here(*call).exit_code == 0
    assert open_store(store).chunk_rows == 32
    split = here("split", store, "--test", 0.2, "--folds", 5, "--json")
    assert split.exit_code == 0, split.stderr
    rows = {name: share["n_rows"] for name, share in json.loads(split.stdout)["shares"].items()}
    assert 0.1 < rows["test"] / 300 < 0.3
    assert rows["train"] == sum(rows[f"fold{i}.test"] for i in range(1, 6)) == 300 - rows["test"]
    alone = ("--workers", 1, "--dashboard-address", "127.0.0.1:0")
    options = ("--model", "logistic", *alone, "--validation-fraction", 0.2)
    trained = here("train", store, *options, "--json", "--quiet")
    assert trained.exit_code == 0, trained.stderr
    assert json.loads(trained.stdout)["validation_loss"] is not None

    assert here(*call, "--chunk-rows", 500, "--overwrite").exit_code == 0
    assert open_store(store).n_chunks == 1  # as was asked for
    refused = here("train", store, *options)
    assert refused.exit_code == 1
    command = f"ooc-train rechunk {store} {tmp_path / 'few.rechunked.zarr'}"
    assert command in " ".join(refused.stderr.split())
    assert here(*command.split()[1:]).exit_code == 0
    trained = here("train", tmp_path / "few.rechunked.zarr", *options)
    assert trained.exit_code == 0, trained.stderr


def test_a_dry_run_shows_each_column_and_writes_nothing(folder, tmp_path):
    out = tmp_path / "dry.zarr"
    arguments = (
        "ingest", folder / "people.csv", out, "--target", "buys", "--categorical", "city",
        "--test-size", "0.25", "--dry-run",
    )  # fmt: skip
    shown = here(*arguments)
    assert shown.exit_code == 0, shown.output
    lines = {line.split()[0]: line.split() for line in shown.stdout.splitlines()}
    assert " ".join(lines["city"][1:]) == "string 3 columns of 0 and 1 3 0 Bern, Oslo, Rome"
    assert lines["member"][1:5] == ["bool", "0", "and", "1"]
    assert "target buys: 2 classes: no, yes" in shown.stdout
    assert "750 rows and 250 for testing x 6 columns of float32" in shown.stdout
    found = json.loads(here(*arguments, "--json").stdout)
    assert [column["n_features"] for column in found["columns"]] == [1, 1, 3, 1]
    assert list(tmp_path.iterdir()) == []


def test_what_numbers_lose_and_which_columns_are_an_index_is_shown(tmp_path):
    times = 1_700_000_000 + np.arange(100)
    lines = "".join(f"{i},{time},{i % 7}\n" for i, time in enumerate(times))
    (tmp_path / "a.csv").write_text(",time,v\n" + lines)
    widened = "note: X is float64: column 'time' has numbers such as 1700000001, which becomes "
    index = "note: left out: 'column 1', it has no name and counts the rows (--features takes it)"
    lost = "note: column 'time' has numbers such as 1700000001, which becomes 1700000000 in float32"
    for dtype, seen, unseen in (("auto", widened, lost), ("float32", lost, widened)):
        for more in (("--dry-run",), ()):
            out = tmp_path / f"{dtype}.zarr"
            shown = here("ingest", tmp_path / "a.csv", out, "--dtype", dtype, *more)
            assert shown.exit_code == 0, shown.output
            assert seen in shown.stdout
            assert index in shown.stdout
            assert unseen not in shown.stdout
            assert "Warning" not in shown.output
            assert ("rounded to float32" in shown.stdout) == bool(more and dtype == "float32")
    assert open_store(tmp_path / "auto.zarr").dtype == "float64"
    narrowed = here(
        "rechunk", tmp_path / "auto.zarr", tmp_path / "n.zarr", "--dtype", "float32", "--quiet"
    )
    assert narrowed.exit_code == 0, narrowed.output


def test_info_shows_ten_classes(tmp_path):
    table = {"y": [f"class {i:04}" for i in range(1200)] * 2, "v": np.arange(2400)}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    arguments = ("--target", "y", "--task", "classification")
    made = here("ingest", tmp_path / "a.parquet", tmp_path / "a.zarr", *arguments)
    assert "note: the target has 1,200 classes" in made.stdout
    shown = here("info", tmp_path / "a.zarr")
    assert "class 0009 (2 rows), ... and 1,190 more\n" in shown.stdout
    assert "class 0010" not in shown.stdout


def test_predictions_of_a_file_that_ends_early_are_refused(folder, tmp_path):
    text = (folder / "people.csv").read_text().replace('"', "").splitlines()
    before, _, label = text[500].rpartition(",")
    text[500] = f'{before},"{label}'
    (tmp_path / "cut.csv").write_text("\n".join(text) + "\n")
    for command in (
        ("predict", folder / "buys.run", tmp_path / "cut.csv", tmp_path / "out.csv"),
        ("evaluate", folder / "buys.run", tmp_path / "cut.csv"),
        ("ingest", tmp_path / "cut.csv", tmp_path / "o.zarr", "--like", folder / "buys.run"),
    ):
        refused = here(*command)
        assert refused.exit_code == 1
        assert "row 499 (about line 501): " in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["cut.csv"]


def test_text_that_nothing_declares_is_listed_with_flags_to_paste(folder, tmp_path):
    table = people(50).append_column("note", pa.array(["a, b; $(rm)"] * 50))
    table = table.rename_columns(["number", "age", "the city", "member", "buys", "note"])
    pyarrow.csv.write_csv(table, tmp_path / "t.csv")
    refused = here("ingest", tmp_path / "t.csv", tmp_path / "t.zarr", "--target", "buys")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "2 columns hold text, and nothing says what it means" in refused.stderr
    assert "  note: such as 'a, b; $(rm)'" in refused.stderr
    flags = [line for line in refused.stderr.splitlines() if "--categorical" in line]
    assert flags == ["  --categorical 'the city,note'"]
    pasted = here(
        "ingest", tmp_path / "t.csv", tmp_path / "t.zarr", "--target", "buys",
        "--categorical", "the city,note",
    )  # fmt: skip
    assert pasted.exit_code == 0, pasted.output


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".zarr"])
def test_predict_takes_raw_files(folder, tmp_path, suffix):
    out = tmp_path / f"out{suffix}"
    told = here("predict", folder / "buys.run", folder / "people.csv", out, "--proba", "--json")
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["n_rows"] == 1_000
    assert found["memory"]["measured"] <= found["memory"]["projected"]
    assert out.exists()
    if suffix == ".csv":
        table = pyarrow.csv.read_csv(out)
        assert table.column_names == ["number", "prediction", "probability_no", "probability_yes"]
        right = np.array(table["prediction"].to_pylist()) == np.array(
            people(1_000)["buys"].to_pylist()
        )
        metrics = json.loads(
            here("evaluate", folder / "buys.run", folder / "people.csv", "--json").stdout
        )
        assert metrics["accuracy"] == pytest.approx(right.mean())


def test_predict_writes_a_table_for_a_store_and_evaluate_agrees(folder, tmp_path):
    out = tmp_path / "test.parquet"
    told = here("predict", folder / "buys.run", folder / "people.test.zarr", out)
    assert told.exit_code == 0, told.output
    assert "250 rows predicted | memory: ceiling" in told.stdout
    assert pq.read_table(out).num_rows == 250


def test_like_makes_a_store_of_the_same_columns(folder, tmp_path):
    for name in ("people.zarr", "buys.run"):
        made = here(
            "ingest", folder / "people.csv", tmp_path / f"{name}.like.zarr", "--like", folder / name
        )
        assert made.exit_code == 0, made.output
        store = open_store(tmp_path / f"{name}.like.zarr")
        assert store.feature_names == open_store(folder / "people.zarr").feature_names
    refused = here(
        "ingest", folder / "people.csv", tmp_path / "x.zarr", "--like", folder / "buys.run",
        "--target", "buys",
    )  # fmt: skip
    assert refused.exit_code == 1
    assert "leave the other settings out" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.csv", "out.zarr"), "there is no file nowhere.csv"),
        (("*.nothing", "out.zarr"), "no CSV or Parquet file matches"),
        (("people.csv", "out.zarr", "--target", "bus"), "did you mean 'buys'"),
        (("people.csv", "out.zarr", "--test-size", "1"), "--test-size 1.0 should be a share"),
        (("people.csv", "people.zarr", "--target", "buys"), "exists"),
        (("people.csv", "out.zarr", "--drop", ","), "names no column"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    refused = here("ingest", *arguments)
    assert refused.exit_code in (1, 2)
    assert message in " ".join(refused.stderr.replace("│", " ").split())
    assert not (folder / "out.zarr").exists()


def test_metrics_of_groups_need_a_store_which_the_error_has_the_commands_of(folder, monkeypatch):
    monkeypatch.chdir(folder)
    refused = here("evaluate", "buys.run", "people.csv", "--by", "city=Bern")
    assert refused.exit_code == 1
    assert "ooc-train ingest people.csv people.zarr --like buys.run; then" in refused.stderr
    assert "then: ooc-train evaluate buys.run people.zarr --by city=Bern" in refused.stderr
