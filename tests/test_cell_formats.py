"""Numbers, dates, and yes and no as people write them: applied when asked for, else proposed."""

import json
import re
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ooc_train import (
    CellFormats,
    InvalidTable,
    LinearRegression,
    Recipe,
    append,
    evaluate_files,
    ingest,
    open_store,
    predict_files,
)
from ooc_train.cli import app
from ooc_train.tables.cell_formats import PLAIN
from ooc_train.tables.format_guesses import guess, together
from ooc_train.tables.values import WrongValueError
from tests.test_ingest import features_of

GERMAN = CellFormats(decimal=",", thousands=".", symbols=("€", "%"), na=("unbekannt", "-"))
ROWS = 3_000


def texts(*cells):
    return pa.array(cells, pa.string())


def numbers(formats, *cells, symbol=""):
    return formats.numbers(symbol, texts(*cells)).to_pylist()


def test_decimal_commas_and_thousands_are_numbers():
    assert numbers(GERMAN, "1.234.567,89", "-1.234", "+5", ",5", "5,", " 12 ", "1,5e3", None) == [
        1234567.89, -1234.0, 5.0, 0.5, 5.0, 12.0, 1500.0, None,
    ]  # fmt: skip
    assert numbers(CellFormats(thousands=","), "1,234.5", "999") == [1234.5, 999.0]
    spaces = CellFormats(decimal=",", thousands=" ")
    assert numbers(spaces, "1 234,5", "1\u00a0234", "1\u202f234\u2009567") == [
        1234.5,
        1234,
        1234567,
    ]
    assert numbers(CellFormats(thousands="'"), "1'234", "1\u2019234.5") == [1234, 1234.5]
    assert numbers(CellFormats(na=("Unknown", "-")), "-", "unknown", "UNKNOWN", "-1") == [
        *[None] * 3, -1.0,
    ]  # fmt: skip


@pytest.mark.parametrize("cell", ["5 €", "€5", "€ 5", "5\u00a0€", "5"])
@pytest.mark.parametrize("sign", ["-", ""])
def test_a_symbol_stands_before_or_after_the_number(cell, sign):
    expected = float(f"{sign}5")
    assert numbers(GERMAN, sign + cell, symbol="€") == [expected]
    if cell.startswith("€"):
        assert numbers(GERMAN, cell.replace("5", f"{sign}5"), symbol="€") == [expected]


@pytest.mark.parametrize(
    ("cell", "symbol"),
    [
        *[(cell, "") for cell in ("1.23", "0.123", "1.2345", "1.234.56", "1..234", ".123.456")],
        *[(cell, "") for cell in (",", "+", "--5", "5-", "5,5,5", "٣", "1'234", "(5)", "x", "5 €")],
        *[(cell, "") for cell in ("1.23" + "4" * 5_000, "nan", "inf", "0x10", "1_000")],
        *[(cell, "€") for cell in ("€5€", "€€5", "5 $", "-€-5", "€", "5€5")],
        *[(cell, "%") for cell in ("5", "5%%", "%", "5 €")],
    ],
)
def test_a_cell_of_another_form_is_refused_with_its_row(cell, symbol):
    fine = "7%" if symbol == "%" else "7"
    with pytest.raises(WrongValueError, match=r"(--na|--drop)") as raised:
        numbers(GERMAN, fine, None, cell, cell, symbol=symbol)
    assert raised.value.row == 2


def test_a_huge_number_is_no_finite_number(tmp_path):
    assert numbers(GERMAN, "9" * 400, "1e999999999") == [np.inf, np.inf]
    (tmp_path / "a.csv").write_text("a;y\n1,5;1\n" + "9" * 400 + ";2\n2,5;3\n")
    with pytest.raises(InvalidTable, match=r"column 'a' in row 1 .*is inf"):
        ingest(tmp_path / "a.csv", tmp_path / "a.zarr", target="y", delimiter=";", formats=GERMAN)


def test_words_for_yes_and_no():
    formats = CellFormats(true=("ja",), false=("nein",), na=("?",))
    found = formats.flags(texts("Ja", "NEIN", "true", "0", "?", None))
    assert found.to_pylist() == [True, False, True, False, None, None]
    with pytest.raises(WrongValueError, match="'yes', which is none of the words") as raised:
        formats.flags(texts("ja", "yes"))
    assert raised.value.row == 1


def test_dates_in_the_form_that_was_named():
    found = PLAIN.dates("%d/%m/%Y %H:%M", texts("02/03/2024 14:30", None, "29/2/2024 00:00"))
    assert found.to_pylist() == [datetime(2024, 3, 2, 14, 30), None, datetime(2024, 2, 29)]  # noqa: DTZ001
    numbered = PLAIN.dates("%Y%m%d", pa.array([20240131]))
    assert numbered.to_pylist() == [datetime(2024, 1, 31)]  # noqa: DTZ001


@pytest.mark.parametrize(
    "cell", ["31/02/2024", "30/02/2023", "29/02/2023", "01/01/24", "13/13/2024", "1/1/2024x", "0"]
)
def test_a_day_that_is_none_is_refused(cell):
    with pytest.raises(WrongValueError, match="no date in the form %d/%m/%Y") as raised:
        PLAIN.dates("%d/%m/%Y", texts("03/01/2024", "01/02/2024", cell))
    assert raised.value.row == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decimal": ";"}, "decimal=';' should be"),
        ({"decimal": ",", "thousands": ","}, "both ','"),
        ({"thousands": "_"}, "thousands='_' should be"),
        ({"symbols": ("5",)}, "symbols has '5'"),
        ({"symbols": ("",)}, "symbols has ''"),
        ({"true": ("yes",)}, "name both"),
        ({"true": ("yes",), "false": ("no",), "na": ("NO",)}, "name a word twice"),
        ({"date_format": "%m/%Y"}, "day, month and year"),
        ({"date_format": "%d/%m/%Y %z"}, "day, month and year"),
        ({"date_format": "%d/%d/%Y"}, "day, month and year"),
        ({"date_format": {"a": 5}}, "day, month and year"),
    ],
)
def test_formats_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CellFormats(**settings)


def messy(rows=ROWS, seed=0):
    """The same rows as people write them in Germany, and as computers do."""
    rng = np.random.default_rng(seed)
    price = np.round(rng.uniform(-20_000, 2_000_000, rows), 2)
    share = np.round(rng.uniform(0, 100, rows), 1)
    days = np.datetime64("2023-01-01") + rng.integers(0, 700, rows)
    seen = np.datetime64("2023-01-01T00:00") + rng.integers(0, 10**6, rows)
    member, weight = rng.integers(0, 2, rows), np.round(rng.uniform(0.5, 3, rows), 1)
    missing = rng.uniform(size=rows) < 0.1
    missing[:2] = False
    y = np.round(price / 1000 + share, 3)

    def german(value, digits, after=""):
        return f"{value:,.{digits}f}".translate(str.maketrans(",.", ".,")) + after

    people, computers = ["preis;anteil;tag;um;dabei;ort;w;y"], ["preis;anteil;tag;um;dabei;ort;w;y"]
    for i in range(rows):
        day, time = days[i].item(), seen[i].item()
        flag = ("nein", "Ja")[member[i]]
        dates = f"{day:%d.%m.%Y};{time:%m/%d/%Y %H:%M}"
        cells = f"{german(share[i], 1, ' %')};{dates};{flag};1,0{i % 3};{german(weight[i], 1)}"
        money = "Unbekannt" if missing[i] else german(price[i], 2, ("", " €")[i % 2])
        people.append(f"{money};{cells};{german(y[i], 3)}")
        number = "" if missing[i] else price[i]
        cells = f"{share[i]};{day};{time};{'true' if member[i] else 'false'};1,0{i % 3};{weight[i]}"
        computers.append(f"{number};{cells};{y[i]}")
    return "\n".join(people) + "\n", "\n".join(computers) + "\n"


FORMATS = CellFormats(
    ",", ".", ("%", "€"), ("unbekannt",), ("ja",), ("nein",),
    {"": "%d.%m.%Y", "um": "%m/%d/%Y %H:%M"},
)  # fmt: skip


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("ooc_train.tables.csv.BLOCK_BYTES", 4_096)


@pytest.mark.slow
def test_files_of_people_and_of_computers_make_the_same_store_model_and_predictions(
    tmp_path, small_blocks
):
    stores = {}
    of_columns: dict[str, Any] = {"target": "y", "categorical": ["ort"], "sample_weight": "w"}
    of_columns |= {"missing": "median", "dtype": "float64", "delimiter": ";"}
    for name, text in zip(("people", "computers"), messy(), strict=True):
        (tmp_path / f"{name}.csv").write_text(text)
        formats = FORMATS if name == "people" else None
        made = ingest(
            tmp_path / f"{name}.csv", tmp_path / f"{name}.zarr", formats=formats, **of_columns
        )  # fmt: skip
        stores[name] = made
    people, computers = stores["people"], stores["computers"]
    assert people.recipe.feature_names == computers.recipe.feature_names
    assert features_of(people.store).tobytes() == features_of(computers.store).tobytes()
    model = LinearRegression().fit(people.store)
    plain = LinearRegression().fit(computers.store)
    assert model.coef_.tobytes() == plain.coef_.tobytes()  # y and weights are the same too
    more = dict(zip(("people", "computers"), messy(500, seed=1), strict=True))
    for name, fitted in (("people", model), ("computers", plain)):
        (tmp_path / f"{name}2.csv").write_text(more[name])
        predict_files(fitted, tmp_path / f"{name}2.csv", tmp_path / f"{name}.p.csv", delimiter=";")
        append(tmp_path / f"{name}.zarr", tmp_path / f"{name}2.csv", delimiter=";")
    found = (tmp_path / "people.p.csv").read_bytes()
    assert found == (tmp_path / "computers.p.csv").read_bytes()
    assert len(found.splitlines()) == 501
    appended = [open_store(tmp_path / f"{name}.zarr") for name in stores]
    assert appended[0].n_rows == ROWS + 500
    assert features_of(appended[0]).tobytes() == features_of(appended[1]).tobytes()
    metrics = [
        evaluate_files(fitted, tmp_path / f"{name}2.csv", delimiter=";")[0]
        for name, fitted in (("people", model), ("computers", plain))
    ]
    # Blocks of bytes hold other numbers of rows, so that sums are added in another order.
    assert metrics[0]["r2"] == pytest.approx(metrics[1]["r2"], rel=1e-12)
    assert metrics[1]["r2"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_no_cell_format_brings_pandas(tmp_path, ending):
    """pyarrow imports it to make a scalar of a number: 35 MiB more than the plan has."""
    # A first of the month has Python look at the day again.
    text = messy()[0] + messy(200, seed=1)[0].split("\n", 1)[1].replace("3.2", "1.2")
    name = str(tmp_path / f"people.{ending}")
    if ending == "csv":
        Path(name).write_text(text)
    else:
        head, *lines = [line.split(";") for line in text.splitlines()]
        columns = dict(zip(head, map(list, zip(*lines, strict=True)), strict=True))
        pq.write_table(pa.table(columns), name)
    delimiter = {"delimiter": ";"} if ending == "csv" else {}
    code = (
        "import sys\n"
        "from ooc_train import CellFormats, append, evaluate_files, ingest, predict_files\n"
        "from ooc_train.models.regression_models import RidgeModel\n"
        "from ooc_train.solvers.training_settings import Training\n"
        "from ooc_train.training.loop import train\n"
        f"formats = {FORMATS!r}\n"
        f"name, out = {name!r}, {str(tmp_path / 'a.zarr')!r}\n"
        "roles = dict(target='y', categorical=['ort'], sample_weight='w', missing='median')\n"
        f"ingest(name, out, formats=formats, test_size=0.2, **roles, **{delimiter})\n"
        "append(out, name)\n"
        "model, _ = train(RidgeModel(), out, Training())  # estimators import scikit-learn\n"
        "predict_files(model, name, out + '.csv')\n"
        "evaluate_files(model, name)\n"
        "print('pandas' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_later_row_of_another_form_is_named(tmp_path, small_blocks):
    people, _ = messy()
    (tmp_path / "a.csv").write_text(people + "1.5;5,0 %;01.01.2024;01/01/2024 10:00;ja;a;1;2\n")
    with pytest.raises(
        InvalidTable, match=r"column 'preis' in row 3,000 .*'1\.5', .*--decimal ','"
    ):
        ingest(
            tmp_path / "a.csv", tmp_path / "a.zarr", target="y", categorical=["ort"],
            sample_weight="w", missing="mean", delimiter=";", formats=FORMATS,
        )  # fmt: skip


def test_plain_numbers_of_a_file_with_other_signs_are_not_taken_as_they_are(tmp_path):
    (tmp_path / "a.csv").write_text("a;b;y\n1.500;1,5;1\n2.500;2,5;3\n7.250;4;4\n")
    ours: dict[str, Any] = {"target": "y", "delimiter": ";"}
    formats = CellFormats(decimal=",", thousands=".")
    made = ingest(tmp_path / "a.csv", tmp_path / "a.zarr", **ours, formats=formats, shuffle=False)
    assert features_of(made.store).tolist() == [[1500, 1.5], [2500, 2.5], [7250, 4]]
    with pytest.raises(InvalidTable, match=r"column 'a' in row 0 .*'1\.500', which is no number"):
        ingest(tmp_path / "a.csv", tmp_path / "b.zarr", **ours, formats=CellFormats(decimal=","))


def test_many_columns_are_read_the_same_way(tmp_path):
    values = np.round(np.random.default_rng(0).normal(0, 1e4, (40, 300)), 2)
    names = ";".join(f"x{i}" for i in range(300))
    rows = [";".join(f"{v:,.2f}".translate(str.maketrans(",.", ".,")) for v in r) for r in values]
    (tmp_path / "a.csv").write_text("\n".join([names, *rows]) + "\n")
    made = ingest(
        tmp_path / "a.csv", tmp_path / "a.zarr", delimiter=";", shuffle=False, dtype="float64",
        formats=CellFormats(",", "."),
    )  # fmt: skip
    assert np.array_equal(features_of(made.store), values)


def test_parquet_of_text_and_tables_in_memory(tmp_path):
    cells = {"a": ["1,5", "2.500,0", None], "d": [20240131, 20240201, 20240202], "y": [1, 2, 4]}
    pq.write_table(pa.table(cells), tmp_path / "a.parquet")
    formats = CellFormats(",", ".", date_format={"d": "%Y%m%d"})
    made = ingest(
        tmp_path / "a.parquet", tmp_path / "a.zarr", target="y", formats=formats, missing="mean",
        shuffle=False,
    )  # fmt: skip
    expected = [[1.5, 0], [2500, 1], [1250.75, 2]]
    assert features_of(made.store).tolist() == expected
    recipe = Recipe.from_json(json.loads(json.dumps(made.recipe.to_json())))
    assert recipe == made.recipe
    assert recipe.apply({"a": cells["a"], "d": cells["d"]}).tolist() == expected
    floats = {"a": [1.5, 2500.0, None], "d": ["20240131", "20240201", "20240202"]}
    assert recipe.apply(floats).tolist() == expected
    # An earlier release would parse such columns otherwise, so it must refuse the recipe.
    assert recipe.to_json()["format_version"] == 2
    damaged = recipe.to_json()
    damaged["formats"]["decimal"] = ";"
    with pytest.raises(ValueError, match="damaged: formats: decimal=';'"):
        Recipe.from_json(damaged)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("1.234,5 €", "-"), "numbers by --decimal ',' --thousands '.' --symbols '€' --na -"),
        (("1.234.567,5", "7"), "numbers by --decimal ',' --thousands '.'"),
        (("12,5", "0,25"), "numbers by --decimal ','"),
        (("1,234.5", "7"), "numbers by --thousands ','"),
        (("1 234", "7"), "numbers by --thousands ' '"),
        (("$1,200,000", "$5"), "numbers by --thousands ',' --symbols '$'"),
        (("12 %", "13.5%"), "numbers by --symbols %"),
        (("5", "Unknown", "7"), "numbers by --na unknown"),
        (("1,234", "5"), "1,234: 1.234 by --decimal ',', or 1234 by --thousands ','"),
        (("1.234", "7"), "1.234: 1.234 as it is, or 1234 by --decimal ',' --thousands '.'"),
        (("Yes", "no", "no"), "yes and no by --true yes --false no"),
        (("y", "n", "?"), "yes and no by --na '?' --true y --false n"),
        (("2024-01-31", "?"), "dates by --na '?' --date-format %Y-%m-%d"),
        (("31/01/2024", "01/02/2024"), "dates by --date-format %d/%m/%Y"),
        (("01/31/2024 10:30", "?"), "dates by --na '?' --date-format '%m/%d/%Y %H:%M'"),
        (
            ("03/04/2024", "05/06/2024"),
            (
                "03/04/2024: 2024-04-03 00:00:00 by --date-format %d/%m/%Y, "
                "or 2024-03-04 00:00:00 by --date-format %m/%d/%Y"
            ),
        ),
        (("03/03/2024",), "dates by --date-format %d/%m/%Y"),
    ],
)  # fmt: skip
def test_a_guess_names_the_options_and_both_readings_of_ambiguous_cells(cells, expected):
    cell, _, ways = expected.rpartition(": ")
    if cell:
        what = "dates" if "--date-format" in ways else "numbers"
        expected = f"{what}, and {cell!r} may be {ways}: say which"
    assert str(guess(texts(*cells))) == expected


@pytest.mark.parametrize(
    "cells",
    [
        ("1.5", "2"),
        ("a", "b"),
        ("0.123", "1.234"),
        ("5 €", "5 $"),
        ("5 %", "5"),
        ("A1", "B2"),
        ("1", "a", "b", "c", "d"),
        ("31/02/2024", "01/01/2024"),
        ("x" * 10_000 + "1",),
        ("1" * 10_000 + ",5",),
        ("12/2024",),
        (None, ""),
        (),
    ],
)
def test_no_guess_where_cells_are_plain_or_have_no_one_form(cells):
    assert guess(texts(*cells)) is None


def as_options(guesses):
    formats = together(guesses)
    assert formats is not None
    return formats.as_options()


def test_a_refusal_in_python_has_the_arguments_that_would_do(tmp_path):
    rows = [
        f"{i},5 €;{'ja' if i % 2 else 'nein'};Ort {i % 3};note {i * 7};{i % 5}" for i in range(300)
    ]
    text = "\n".join(["preis;neu;ort;notiz;y", *rows])
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    call: Any = {"target": "y", "task": "regression", "delimiter": ";"}
    with pytest.raises(InvalidTable) as refused:
        ingest(tmp_path / "a.csv", tmp_path / "a.zarr", **call)
    *_, line = str(refused.value).splitlines()
    assert line.startswith("  in Python: formats=CellFormats(decimal=',', symbols=")
    more = eval(f"dict({line.partition(': ')[2]})", {"CellFormats": CellFormats})
    assert (more["categorical"], more["drop"]) == (["ort"], ["notiz"])
    assert ingest(tmp_path / "a.csv", tmp_path / "a.zarr", **call, **more).store.n_features == 5
    told = run(
        "ingest", tmp_path / "a.csv", tmp_path / "b.zarr", "--target", "y", "--delimiter", ";"
    )
    assert "nothing says what it means" in told.stderr
    assert "in Python" not in told.stderr


def test_options_of_columns_that_contradict_each_other_are_not_put_together():
    of = {name: guess(texts(*cells)) for name, cells in {"a": ["1,5"], "b": ["2 %"]}.items()}
    assert as_options(of) == "--decimal ',' --symbols %"
    assert together(of | {"c": guess(texts("1.25 %"))}) is None
    assert together(of | {"c": guess(texts("1,234.5"))}) is None
    dates = {"d": guess(texts("31/01/2024")), "e": guess(texts("01-31-2024"))}
    assert as_options(dates) == "--date-format d=%d/%m/%Y --date-format e=%m-%d-%Y"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_proposes_options_that_it_then_takes(tmp_path):
    people, _ = messy(300)
    (tmp_path / "a.csv").write_text(people)
    ours = (
        "ingest", tmp_path / "a.csv", tmp_path / "a.zarr", "--delimiter", ";", "--target", "y",
        "--sample-weight", "w", "--categorical", "ort", "--missing", "mean", "--quiet",
    )  # fmt: skip
    refused = run(*ours, "--dry-run")
    proposed = next(line for line in refused.stderr.splitlines() if line.startswith("  --decimal"))
    assert "numbers by --decimal ',' --thousands '.' --symbols '€' --na unbekannt" in refused.stderr
    options = shlex.split(proposed)
    taken = run(*ours, *options, "--dry-run", "--json")
    assert taken.exit_code == 0, taken.output
    found = json.loads(taken.stdout)
    kinds = {column["name"]: column["kind"] for column in found["recipe"]["columns"]}
    assert kinds == {"preis": "number", "anteil": "number", "tag": "date", "um": "date"} | {
        "dabei": "number", "ort": "category",
    }  # fmt: skip
    note = "'ort' is taken as text, such as '1,00'; numbers by --decimal ','"
    assert note in found["notes"]
    assert not (tmp_path / "a.zarr").exists()


def test_what_is_proposed_treats_missing_values_and_a_dry_run_counts_them(tmp_path):
    rows = "".join(f"k{i};{'' if i % 5 else 'Oslo'};{i},5;{i % 3}\n" for i in range(200))
    (tmp_path / "a.csv").write_text(f"id;city;x;y\n{rows}200;k;;1\n")
    ours = (
        "ingest", tmp_path / "a.csv", tmp_path / "a.zarr", "--delimiter", ";", "--target", "y",
    )  # fmt: skip
    refused = run(*ours, "--dry-run").stderr
    assert "the first rows lack values of 'city', 'x': --missing mean or drop are other" in refused
    (proposed,) = [line for line in refused.splitlines() if line.startswith("  --decimal")]
    assert proposed == "  --decimal ',' --categorical city --drop id --missing median"
    assert "\n  --drop id,city,x\n" in refused  # no column with a missing value is left
    options = shlex.split(proposed)
    shown = run(*ours, *options[:-2], "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert re.search(r"^city +string +2 columns of 0 and 1 +2 +160 +Oslo, k$", shown.stdout, re.M)
    assert re.search(r"^x +double +as it is +1 +1 +0.5 to 199.5$", shown.stdout, re.M)
    note = "note: ingest refuses missing values, which are in 'city', 'x': choose what becomes of"
    assert note in shown.stdout
    assert "is missing; choose what becomes" in run(*ours, *options[:-2]).stderr
    assert run(*ours, *options).exit_code == 0


def test_an_option_of_columns_that_is_given_twice_has_both(tmp_path):
    """What is proposed is pasted behind what was given: its --drop hid the one before."""
    (tmp_path / "a.csv").write_text("id,x,leak,city,y\n" + "k1,1,1,Oslo,0\nk2,2,0,Rome,1\n" * 90)
    ours = ("ingest", tmp_path / "a.csv", tmp_path / "a.zarr", "--target", "y", "--drop", "leak")
    proposed = ["--categorical", "city", "--drop=id"]
    for given in ((*ours, *proposed), (*ours[:-2], *proposed, *ours[-2:])):
        found = json.loads(run(*given, "--dry-run", "--json").stdout)
        assert [column["name"] for column in found["recipe"]["columns"]] == ["x", "city"]
    missing = run(*ours, "--drop")
    assert missing.exit_code == 2
    assert "requires an argument" in missing.stderr


def test_a_word_among_the_numbers_of_later_rows_is_told_how_it_may_be_missing(
    tmp_path, small_blocks
):
    rows = "".join(f"{i}.5,{i % 2}\n" for i in range(3_000))
    (tmp_path / "a.csv").write_text(f"x,y\n{rows}k.A.,1\n")
    ours = ("ingest", tmp_path / "a.csv", tmp_path / "a.zarr", "--target", "y")
    refused = run(*ours)
    assert "'k.A.'; if it means a missing value, --na k.A.; else correct it" in refused.stderr
    assert run(*ours, "--na", "k.A.", "--missing", "mean").exit_code == 0


def test_a_word_for_missing_numbers_stays_a_category_as_a_note_says(tmp_path):
    (tmp_path / "a.csv").write_text("city,x,y\nOslo,1,1\nUnknown,unknown,0\nOslo,3,1\n")
    made = ingest(
        tmp_path / "a.csv", tmp_path / "a.zarr", target="y", categorical=["city"],
        missing="mean", formats=CellFormats(na=("unknown",)),
    )  # fmt: skip
    assert any(note.startswith("'city' keeps 'Unknown' as categories: --na") for note in made.notes)


def test_words_for_missing_among_true_false_and_whole_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,y\ntrue,1,1\n?,0,2\nfalse,?,3\ntrue,1,4\n")
    made = ingest(
        tmp_path / "a.csv", tmp_path / "a.zarr", target="y", formats=CellFormats(na=["?"]),
        missing="mean", dtype="float64", shuffle=False,
    )  # fmt: skip
    assert [column.type for column in made.recipe.columns] == ["bool", "int64"]
    assert np.allclose(features_of(made.store).T, np.array([[3, 2, 0, 3], [3, 0, 2, 3]]) / 3)


def test_a_target_of_text_is_told_how_it_may_be_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("a;y\n" + "".join(f"{i};{i},5\n" for i in range(300)))
    messages: dict[Any, str] = {
        "regression": "a regression learns numbers",
        "auto": "too many for classes",
    }
    for task, why in messages.items():
        with pytest.raises(InvalidTable, match=f"{why}; numbers by --decimal ','"):
            ingest(tmp_path / "a.csv", tmp_path / "a.zarr", target="y", delimiter=";", task=task)
    made = ingest(
        tmp_path / "a.csv", tmp_path / "a.zarr", target="y", delimiter=";", formats=GERMAN
    )
    assert made.recipe.classes is None


def test_the_cell_that_keeps_a_column_text_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("a;y\n1,5 €;1\n2,5 €;2\n3,5a €;3\n")
    with pytest.raises(InvalidTable, match="a cell is '3,5a €', which is no number by --decimal"):
        ingest(tmp_path / "a.csv", tmp_path / "a.zarr", target="y", delimiter=";", formats=GERMAN)


def test_numbers_of_two_readings_are_told(tmp_path):
    (tmp_path / "a.csv").write_text("a;b;y\n1.500;0.125;1\n12.500;2.500;3\n")
    made = ingest(tmp_path / "a.csv", tmp_path / "a.zarr", target="y", delimiter=";")
    (told,) = (note for note in made.notes if "may be" in note)
    assert told.startswith("'a' is read with decimal points: numbers, and '1.500' may be 1.5 as it")
    assert told.endswith("is, or 1500 by --decimal ',' --thousands '.': say which")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--date-format", "%Y/%m/%d"), "no column of text holds dates in the form %Y/%m/%d"),
        (("--date-format", "nein=%d/%m/%Y"), "--date-format names 'nein', which becomes no number"),
        (("--date-format", "a=%m/%d/%Y"), "a cell of column 'a' is '31/01/2024', which is no date"),
        (("--date-format", "%d/%m"), "--date-format %d/%m should have day, month and year"),
        (("--decimal", "x"), "--decimal x should be"),
    ],
)
def test_options_that_fit_no_column_are_refused(tmp_path, options, message):
    (tmp_path / "a.csv").write_text("a,y\n31/01/2024,1\n01/02/2024,2\n")
    refused = run("ingest", tmp_path / "a.csv", tmp_path / "a.zarr", "--target", "y", *options)
    assert refused.exit_code == 1
    assert message in refused.stderr


def test_a_form_of_one_column_is_given_by_its_name(tmp_path):
    (tmp_path / "a.csv").write_text("a=b,y\n31/01/2024,1\n02/02/2024,2\n")
    taken = run(
        "ingest", tmp_path / "a.csv", tmp_path / "a.zarr", "--target", "y", "--json", "--quiet",
        "--date-format", "a=b=%d/%m/%Y",
    )  # fmt: skip
    assert taken.exit_code == 0, taken.output
    column = json.loads(taken.stdout)["recipe"]["columns"][0]
    assert (column["origin"], column["date_format"]) == ("2024-01-31", "%d/%m/%Y")


def test_one_proposed_line_says_what_all_columns_are(tmp_path):
    rows = [f"R{i};{'ab'[i % 2]};{i},5 €;{i}" for i in range(300)]
    (tmp_path / "a.csv").write_text("\n".join(["id;shop;price;y", *rows]))
    ours = ("ingest", tmp_path / "a.csv", tmp_path / "a.zarr", "--target", "y", "--dry-run")
    refused = run(*ours, "--delimiter", ";").stderr
    (proposed,) = (line for line in refused.splitlines() if line.startswith("  --decimal"))
    assert proposed == "  --decimal ',' --symbols '€' --categorical shop --drop id"
    taken = run(*ours, "--delimiter", ";", *shlex.split(proposed))
    assert taken.exit_code == 0, taken.output
    # What was asked for before is part of the line, since the last of two equal options holds.
    refused = run(*ours, "--delimiter", ";", "--na", "?").stderr
    assert "  --decimal ',' --symbols '€' --na '?' --categorical shop --drop id" in refused


def test_formats_that_contradict_what_was_asked_for_are_not_proposed(tmp_path):
    (tmp_path / "a.csv").write_text("a;b;y\n1,5;9.5;1\n2,5;?;2\n")
    with pytest.raises(InvalidTable, match="these columns contradict each other") as raised:
        ingest(tmp_path / "a.csv", tmp_path / "a.zarr", target="y", delimiter=";")
    assert "\n  --decimal" not in str(raised.value)
    with pytest.raises(InvalidTable, match="these columns contradict each other"):
        ingest(tmp_path / "a.csv", tmp_path / "a.zarr", target="y", delimiter=";", formats=GERMAN)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a;y\n1;2\n", "';'"),
        ("a;y\n1,5;2\n", "';'"),
        ("a\ty\n1,5\t2\n", r"\$'\\t'"),
        ("a|y\n1|2\n", r"'\|'"),
    ],
)
def test_a_file_of_another_delimiter_is_told_which(tmp_path, text, name):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InvalidTable, match=f"add --delimiter {name}$"):
        ingest(tmp_path / "a.csv", tmp_path / "a.zarr", target="y")
