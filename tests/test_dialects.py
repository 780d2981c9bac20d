"""Raw files read as those of training, or as their header shows: delimiter, decimals, encoding."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from ooc_train import (
    CellFormats,
    InvalidTable,
    LinearRegression,
    append,
    evaluate_files,
    ingest,
    load,
    open_store,
    predict_files,
)
from ooc_train.cli import app
from ooc_train.store.jobs.piped_rows import PipedRows
from ooc_train.tables.open_tables import open_tables
from ooc_train.tables.recipe import Recipe

GERMAN = CellFormats(decimal=",", thousands=".", symbols=["€"])
N = 40


def text_of(delimiter: str, *, german: bool = False, names: Any = ("id", "price", "city", "y")):
    """Rows whose y is price + 10 in Köln, with a column that the recipe leaves out."""
    lines = [delimiter.join(["note", *names])]
    for i in range(N):
        price, city = 1000 + 0.125 * i, ["Köln", "Bonn"][i % 2]
        numbers = {"price": price, "y": price + 10 * (i % 2)}
        cells = {"id": f"{i}", "city": city} | {
            name: f"{number:,.3f}".translate(str.maketrans(",.", ".,")) if german else f"{number}"
            for name, number in numbers.items()
        }
        lines.append(delimiter.join(["x", *(cells[name] for name in names)]))
    return "\n".join(lines) + "\n"


def trained(folder: Path, text: str, *, encoding: str = "utf8", **settings: Any) -> tuple[str, str]:
    """A store and a run of a file of training."""
    (folder / "old.csv").write_bytes(text.encode(encoding))
    roles: dict[str, Any] = {"target": "y", "categorical": ["city"], "id_column": "id"}
    made = ingest(
        folder / "old.csv", folder / "old.zarr", **roles, drop=["note"], dtype="float64",
        encoding=encoding, shuffle=False, **settings,
    )  # fmt: skip
    LinearRegression().fit(made.store).save(folder / "old.run")
    return made.store.path, str(folder / "old.run")


def written(folder: Path, text: str, encoding: str = "utf8") -> Path:
    (folder / "new.csv").write_bytes(text.encode(encoding))
    return folder / "new.csv"


def features_of(path: Path, store: str, **told: Any) -> Any:
    """X of a file, by way of `append`."""
    before = open_store(store).n_rows
    append(store, path, **told)
    return open_store(store).read("X")[before:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("delimiter", "new"),
    [(";", None), (";", ","), ("\t", None), (",", ";"), (",", "\t"), (":", None), (":", "|")],
)
def test_a_file_is_read_by_the_delimiter_of_training_or_of_its_header(tmp_path, delimiter, new):
    store, run = trained(tmp_path, text_of(delimiter), delimiter=delimiter)
    path = written(tmp_path, text_of(new or delimiter, names=("city", "id", "y", "price")))
    expected = open_store(store).read("X")
    assert np.array_equal(features_of(path, store), expected)
    metrics, _ = evaluate_files(run, path)
    assert metrics["r2"] > 0.999
    predict_files(run, path, tmp_path / "a.csv")
    load(run).predict_files(path, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.csv").read_text().count("\n") == N + 1
    again = ingest(path, tmp_path / "again.zarr", like=run, shuffle=False)
    assert np.array_equal(again.store.read("X"), expected)


@pytest.mark.parametrize("command", ["predict", "evaluate", "append", "ingest"])
def test_commands_are_told_the_delimiter_once(tmp_path, command):
    store, run = trained(tmp_path, text_of(";", german=True), delimiter=";", formats=GERMAN)
    new = str(written(tmp_path, text_of(";", german=True)))
    words = {
        "predict": [run, new, str(tmp_path / "out.csv")],
        "evaluate": [run, new],
        "append": [store, new],
        "ingest": [new, str(tmp_path / "b.zarr"), "--like", run],
    }
    found = CliRunner().invoke(app, [command, *words[command], "--json", "--quiet"])
    assert found.exit_code == 0, found.output
    figures = json.loads(found.stdout)
    seen = {"predict": ("n_rows", N), "append": ("added", N), "ingest": ("dropped", 0)}
    name, value = seen.get(command, ("n_rows", N))
    assert figures.get(name, value) == value
    assert "r2" not in figures or figures["r2"] > 0.999


def test_numbers_beside_another_delimiter_are_refused_and_read_when_told(tmp_path):
    """1.125 is 1125 as the training files were written, and 1.125 in most files of commas."""
    store, run = trained(tmp_path, text_of(";", german=True), delimiter=";", formats=GERMAN)
    new = written(tmp_path, text_of(","))
    why = (
        "new.csv has the columns of the recipe between ',', and not between ';', so its numbers "
        "may have another form than those of training, which is --decimal ',' --thousands '.'; if "
        "it is the same, say --delimiter ',', else write the file as those of training"
    )
    for use in (
        lambda: append(store, new),
        lambda: predict_files(run, new, tmp_path / "out.csv"),
        lambda: evaluate_files(run, new),
        lambda: ingest(new, tmp_path / "b.zarr", like=run),
    ):
        with pytest.raises(InvalidTable) as raised:
            use()
        assert str(raised.value).endswith(why)
    assert open_store(store).n_rows == N
    assert not (tmp_path / "out.csv").exists()
    tabs = written(tmp_path, text_of("\t", german=True))
    assert np.array_equal(features_of(tabs, store, delimiter="\t"), open_store(store).read("X")[:N])


def test_a_header_without_a_column_is_told_by_the_names_that_it_has(tmp_path):
    store, run = trained(tmp_path, text_of(";"), delimiter=";")
    new = written(tmp_path, text_of(",", names=("id", "city", "y")))
    with pytest.raises(InvalidTable, match="lacks the column 'price'; it has 'note', 'id', 'city'"):
        append(store, new)
    # Nothing of it is known: as the training files were written.
    new = written(tmp_path, "a,b\n1,2\n")
    with pytest.raises(InvalidTable, match=r"it has 'a,b'; if cells end at ',', add --delimiter"):
        evaluate_files(run, new)
    # A part between other signs is no file of those: it isn't read as one.
    new = written(tmp_path, "id;price,x\n1;2,3\n")
    with pytest.raises(InvalidTable, match="lacks the columns 'price', 'city', 'y'; it has 'id'"):
        append(store, new)


@pytest.mark.parametrize("new", [";", ","])
def test_a_row_of_too_few_cells_is_told_by_its_place(tmp_path, new):
    store, _ = trained(tmp_path, text_of(";"), delimiter=";")
    cut = text_of(new).splitlines()
    cut[3] = cut[3].rpartition(new)[0]
    with pytest.raises(InvalidTable, match=r"row 2 \(about line 4\): Expected 5 columns, got 4"):
        append(store, written(tmp_path, "\n".join(cut)))


@pytest.mark.parametrize(
    ("cell", "advice"),
    [("1,2x", "--na"), ("", "--missing")],
    ids=["no number", "missing"],
)
def test_advice_on_options_of_ingest_is_told_as_such(tmp_path, cell, advice):
    """The command that reads by a recipe has none of them."""
    text = text_of(";", german=True)
    store, run = trained(tmp_path, text, delimiter=";", formats=GERMAN)
    lines = text.splitlines()
    lines[3] = ";".join(cell if i == 2 else each for i, each in enumerate(lines[3].split(";")))
    new = written(tmp_path, "\n".join(lines))
    why = rf"row 2 .*{advice}.*; {advice} is an option of ingest, which makes another recipe$"
    for use in (lambda: append(store, new), lambda: evaluate_files(run, new)):
        with pytest.raises(InvalidTable, match=why):
            use()
    with pytest.raises(InvalidTable, match=advice) as raised:
        ingest(
            new, tmp_path / "b.zarr", target="y", categorical=["city"], drop=["note"],
            delimiter=";", formats=GERMAN,
        )  # fmt: skip
    assert "option of ingest" not in str(raised.value)


def test_files_of_two_delimiters_are_refused(tmp_path):
    store, _ = trained(tmp_path, text_of(";"), delimiter=";")
    new = written(tmp_path, text_of(","))
    with pytest.raises(InvalidTable, match="lacks the columns"):
        append(store, [tmp_path / "old.csv", new])
    with pytest.raises(InvalidTable, match="lacks the columns"):
        append(store, [new, tmp_path / "old.csv"])
    assert open_store(store).n_rows == N


def test_the_encoding_of_training_is_remembered_and_utf8_is_not_read_as_latin1(tmp_path):
    store, run = trained(tmp_path, text_of(";"), delimiter=";", encoding="latin1")
    new = written(tmp_path, text_of(";"), "latin1")
    assert np.array_equal(features_of(new, store), open_store(store).read("X")[:N])
    other = written(tmp_path, text_of(","))
    for unseen in ("error", "ignore"):
        with pytest.raises(InvalidTable, match="seems to be text in UTF-8, and the training files"):
            predict_files(run, other, tmp_path / "out.csv", unseen=unseen)
    for path, told in ((other, "utf8"), (new, "latin1")):
        path.write_bytes(text_of(";").encode(told))
        assert np.array_equal(
            features_of(path, store, encoding=told), open_store(store).read("X")[:N]
        )
    # What has no letter of another alphabet is the same text in both.
    plain = written(tmp_path, text_of(";").replace("Köln", "Bonn"))
    assert features_of(plain, store).shape == (N, 3)


def test_utf8_is_found_where_a_letter_is_cut_by_the_end_of_a_read(tmp_path, monkeypatch):
    store, _ = trained(tmp_path, text_of(";"), delimiter=";", encoding="latin1")
    new = written(tmp_path, text_of(";"))
    place = new.read_bytes().index("ö".encode()) + 1
    monkeypatch.setattr("ooc_train.tables.csv.BLOCK_BYTES", place)
    with pytest.raises(InvalidTable, match="seems to be text in UTF-8"):
        append(store, new)


def test_the_recipe_keeps_what_the_files_were_and_older_ones_load(tmp_path):
    store, _ = trained(tmp_path, text_of(";"), delimiter=";", encoding="latin1")
    values: Any = open_store(store).recipe
    assert (values["delimiter"], values["encoding"], values["format_version"]) == (
        ";", "latin1", 1,
    )  # fmt: skip
    recipe = Recipe.from_json(values)
    assert recipe.to_json() == values
    older = {name: value for name, value in values.items() if name not in ("delimiter", "encoding")}
    recipe = Recipe.from_json(older)
    assert (recipe.delimiter, recipe.encoding) == (None, "utf8")
    assert recipe.to_json() == older
    new = written(tmp_path, text_of(";"))
    assert open_tables(new, recipe=recipe).names == ("note", "id", "price", "city", "y")
    for name, value in (("delimiter", ";;"), ("delimiter", 1), ("encoding", "klingon")):
        with pytest.raises(ValueError, match=f"the recipe is damaged: .*{name}"):
            Recipe.from_json(values | {name: value})


def test_parquet_asks_for_no_delimiter(tmp_path):
    store, _ = trained(tmp_path, text_of(";"), delimiter=";", encoding="latin1")
    table = {"id": range(4), "price": [1.0] * 4, "city": ["Bonn", "Köln"] * 2, "y": [1.0] * 4}
    pa.parquet.write_table(pa.table({name: list(cells) for name, cells in table.items()}),
                           tmp_path / "new.parquet")  # fmt: skip
    assert append(store, tmp_path / "new.parquet").n_rows == 4
    made = ingest(tmp_path / "new.parquet", tmp_path / "p.zarr", target="y", categorical=["city"])
    assert not {"delimiter", "encoding"} & made.recipe.to_json().keys()


@pytest.mark.parametrize("german", [False, True])
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_rows_of_a_pipe_are_read_as_the_training_files(tmp_path, kind, german):
    told: dict[str, Any] = {"formats": GERMAN} if german else {}
    store, _ = trained(
        tmp_path, text_of(";", german=german), delimiter=";", encoding="latin1", **told
    )
    sent = text_of(";", german=german).encode("latin1")
    if kind == "json":
        rows = [line.split(",")[1:] for line in text_of(",").splitlines()[1:]]
        sent = "".join(
            json.dumps({"id": int(i), "price": float(price), "city": city, "y": float(y)},
                       ensure_ascii=False) + "\n"
            for i, price, city, y in rows
        ).encode()  # fmt: skip
    reading, writing = os.pipe()
    os.write(writing, sent)
    os.close(writing)
    assert list(PipedRows(store, reading)) == [()]
    os.close(reading)
    X = open_store(store).read("X")
    assert np.array_equal(X[N:], X[:N])


def test_info_says_how_the_files_of_training_were_written(tmp_path):
    store, _ = trained(tmp_path, text_of("\t"), delimiter="\t", encoding="latin1")
    shown = CliRunner().invoke(app, ["info", store]).output
    assert "cells are read by --delimiter $'\\t' --encoding latin1\n" in shown
    found = json.loads(CliRunner().invoke(app, ["info", store, "--json"]).stdout)
    assert found["csv"] == {"delimiter": "\t", "encoding": "latin1"}
