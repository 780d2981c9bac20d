"""A run's report: as text, as HTML, as a page, as a DataFrame, and read back."""

import html.parser
import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import ooc_train
from ooc_train import LinearRegression, cli, make_data
from ooc_train.core.text import html_table, json_ready, printable
from ooc_train.errors import InvalidRun
from ooc_train.models.model_registry import MODELS
from ooc_train.models.predictor import LinearPredictor
from ooc_train.monitoring.run_page import Evaluated, models_page, run_page, runs_page
from ooc_train.runs.events import Stepped
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.history import Steps
from ooc_train.runs.report import Report
from ooc_train.runs.run_loading import load_fitted
from ooc_train.runs.runs_table import SavedRun, runs_table
from tests.test_plots import report_of

EVIL = '<script>alert("1")</script>&'


class Page(html.parser.HTMLParser):
    """The tags of a page, what they refer to, and whether each is closed."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_data(self, data):
        self.words.append(data)


def fitted_of(n_features=3, classes=("no", "yes"), names=None, **changes):
    rng = np.random.default_rng(0)
    n_outputs = len(classes) if len(classes) > 2 else 1
    fitted = Fitted(
        MODELS["logistic" if classes else "linear"](),
        LinearPredictor(
            rng.standard_normal((n_outputs, n_features)), rng.standard_normal(n_outputs)
        ),
        classes,
        names,
        json.loads(json.dumps(report_of(0.7, 0.6).to_json())),
    )
    return replace(fitted, **changes)


# The report


def test_a_report_reads_back():
    report = report_of(0.7, 0.6, notes=("a note",))
    again = Report.from_json(json.loads(json.dumps(report.to_json())))
    assert again == report
    assert again.loss_history == (0.7, 0.6)


def test_a_report_is_one_short_line_among_others():
    report = report_of(0.7, 0.6, notes=("a note",) * 50)
    assert repr(report) == (
        "<Report: logistic by sgd, batch size 256, 3 passes in 500 ms, loss 0.6, "
        "ceiling 400 MiB, projected 300 MiB, measured 200 MiB>"
    )


@pytest.mark.slow
def test_a_report_of_an_older_release_reads_back():
    values = report_of(0.7, 0.6).to_json()
    del values["history"], values["memory"]["timeline"]
    again = Report.from_json(values | {"loss_history": [0.7, 0.6]})
    assert again.loss_history == (0.7, 0.6)
    assert math.isnan(again.history[0].passes)
    assert again.memory.timeline.seconds == ()
    # When its losses were is not known, and is not made up.
    assert "<svg" in run_page(fitted_of(report=values | {"loss_history": [0.7, 0.6]}), "a.run")


def test_a_step_of_a_later_release_reads_back():
    values = json.loads(json.dumps(report_of(0.7).to_json()))
    values["history"][0]["learning_rate_of_tomorrow"] = 1.0
    assert Report.from_json(values) == report_of(0.7)


def test_very_many_steps_are_thinned_evenly():
    steps = Steps()
    assert steps.all() == ()
    for i in range(10_000):
        steps.add(Stepped(i, float(i), i, 0.5, None, float(i)))
    kept = [step.n_iter for step in steps.all()]
    assert kept[:3] == [0, 4, 8]
    assert kept[-2:] == [9996, 9999]
    assert len(kept) <= 4097
    again, values = Steps(), steps.to_json()
    again.restore([Stepped(**step) for step in values["steps"]], values["every"], values["count"])
    for series in (steps, again):
        series.add(Stepped(10_000, 0.0, 0, 0.5, None, 0.0))
    assert again.all() == steps.all()


def test_a_report_shows_itself_as_html_with_names_escaped():
    text = report_of(0.7, 0.6, notes=(EVIL,))._repr_html_()
    page = Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert EVIL in page.words
    assert {"0.6", "batch size", "256", "memory ceiling", "400 MiB, given"} <= set(page.words)


def test_a_table_is_escaped_and_steers_no_terminal():
    page = Page(html_table([(EVIL, "a\x1b[31m")], ("<th>", EVIL)))
    assert page.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "th", "td"]
    assert page.words == ["<th>", EVIL, EVIL, "a\\x1b[31m"]


def test_numbers_that_are_none_are_null_in_json():
    assert json_ready({1: (math.nan, [math.inf, 2.5])}) == {"1": [None, [None, 2.5]]}
    assert printable("a\x1b") == "a\\x1b"


def test_history_is_a_data_frame():
    X = np.arange(20.0).reshape(10, 2) ** 2
    model = LinearRegression(solver="lbfgs").fit(X, X[:, 0])
    assert not hasattr(LinearRegression(), "history_")
    frame = model.history_
    assert list(frame.columns) == [
        "n_iter", "passes", "updates", "loss", "gradient_norm", "seconds", "learning_rate",
        "validation_loss", "progressive_loss", "batch_size", "validation_metric",
    ]  # fmt: skip
    assert tuple(frame["loss"]) == model.report_.loss_history
    assert frame["passes"].is_monotonic_increasing
    assert frame["passes"].iloc[-1] <= model.report_.passes
    assert list(frame["n_iter"]) == list(range(model.report_.n_iter + 1))  # 0 is the start
    blocks = LinearRegression(batch_size=2).partial_fit(X, X[:, 0]).partial_fit(X, X[:, 0])
    assert blocks.history_[["n_iter", "updates"]].to_numpy().tolist() == [[1, 5]]


@pytest.mark.slow
def test_pandas_is_loaded_by_asking_for_history_alone():
    modules = "ooc_train.experiments.tradeoff, ooc_train.runs.report, ooc_train.monitoring.run_page"
    code = f"import sys, {modules}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {"pandas", "matplotlib"} & set(loaded) == set()


# The page


@pytest.mark.slow
def test_a_page_has_everything_and_asks_for_nothing():
    text = run_page(fitted_of(names=("a", "b", "c")), "runs/late.run/")
    page = Page(text)
    assert page.open == []
    assert page.tags.count("svg") == 5
    # Parts of the page itself, and no others.
    assert all(reference.startswith("#") for reference in page.references)
    assert re.findall(r"url\((?!#)", text) == []
    assert "@import" not in text
    assert {"script", "link", "img", "iframe"} & set(page.tags) == set()
    words = set(page.words)
    assert {"late.run", "baseline", "batch size", "logistic", "fit_intercept", "for yes"} <= words
    fitted = fitted_of()
    assert {f"{value:.6g}" for value in (*fitted.coef[0], *fitted.intercept)} <= words


def test_a_page_escapes_what_names_hold():
    fitted = fitted_of(classes=(EVIL, "b", "c"), names=(EVIL, "$x$", "_y\x1b"))
    page = Page(run_page(fitted, f"runs/{EVIL}".replace("/script", "script")))
    assert page.open == []
    assert "script" not in page.tags
    assert EVIL in page.words


def test_a_page_shows_a_script_as_text():
    fitted = fitted_of(names=("<script>", "b", "c"))
    text = run_page(fitted, "<script>.run")
    assert "<script" not in text
    assert {"<script>", "<script>.run"} <= set(Page(text).words)
    assert text.count("&lt;script&gt;") >= 4


@pytest.mark.slow
@pytest.mark.parametrize("classes", [(), ("a", "b"), ("a", "b", "c")])
def test_a_page_of_every_kind_of_model(classes):
    page = Page(run_page(fitted_of(1200, classes), "a.run"))
    assert page.open == []
    assert "... and 200 smaller ones" in page.words


def test_a_page_without_a_report():
    with pytest.raises(InvalidRun, match=r"a\.run has no readable training report"):
        run_page(fitted_of(report={}), "a.run")


def test_coefficients_per_deviation_stand_beside_those_per_unit():
    fitted, deviations = fitted_of(), np.array([10.0, 0.1, 1.0])
    found = Evaluated("x/rows.zarr", {"a.run": {"n_rows": 7, "accuracy": 0.75}}, deviations)
    words = Page(run_page(fitted, "a.run", found)).words
    assert {"7 rows of rows.zarr", "accuracy", "0.75", "for yes, per deviation"} <= set(words)
    assert {f"{value:.6g}" for value in fitted.coef[0]} <= set(words)
    per = fitted.coef[0] * deviations
    order = [f"feature {i}" for i in np.argsort(-np.abs(per))]
    at = [words.index(name, words.index("intercept")) for name in order]
    assert at == sorted(at)
    assert [words[i + 2] for i in at] == [f"{per[int(n[-1])]:.6g}" for n in order]


@pytest.mark.slow
def test_several_models_stand_side_by_side_in_one_page():
    other = fitted_of()
    other = replace(other, model=replace(other.model, C=0.125))
    last = fitted_of(classes=())
    models = {"x/a.run": fitted_of(), "x/b.run": other, "y/a.run": last}
    found = {name: {"n_rows": 7, "accuracy": i / 8} for i, name in enumerate(models, 1)}
    page = Page(models_page(models, Evaluated("rows.zarr", found)))
    assert page.open == []
    assert page.tags.count("details") >= 3 * 4
    words = page.words
    # Names of folders that are the same are told apart by their paths.
    assert {"x/a.run", "x/b.run", "y/a.run", "C", "0.125", "0.25", "0.375"} <= set(words)
    assert sum(word.startswith("Loss of ") for word in words) == 1  # of one model, by its report
    first = models_page({name: models[name] for name in ("x/a.run", "x/b.run")})
    assert {"a.run", "b.run"} <= set(Page(first).words)


@pytest.mark.slow
def test_the_command_of_runs_lists_a_folder(tmp_path):
    fitted_of().save(tmp_path / "first.run")
    other = fitted_of()
    replace(other, model=replace(other.model, C=0.125)).save(tmp_path / "second.run")
    (tmp_path / "bad.run").mkdir()
    (tmp_path / "bad.run" / "model.json").write_text("{}")
    (tmp_path / "none").mkdir()

    def here(*arguments):
        return CliRunner().invoke(cli.app, ["runs", *map(str, arguments)])

    result = here(tmp_path, "--html", tmp_path / "runs.html")
    assert (result.exit_code, result.stderr) == (0, "")
    head, *rows = result.stdout.splitlines()
    assert head.split()[:3] == ["run", "C", "loss"]
    assert [row.split()[:2] for row in rows[:2]] == [["second.run", "0.125"], ["first.run", "1.0"]]
    assert rows[2].startswith("note: ")
    assert "bad.run is damaged" in rows[2]
    assert Page((tmp_path / "runs.html").read_text()).open == []
    told = json.loads(here(tmp_path, "--json").stdout)
    assert [run["run"] for run in told["runs"]] == ["second.run", "first.run"]
    assert list(told["unreadable"]) == ["bad.run"]
    empty = here(tmp_path / "none")
    assert (empty.exit_code, empty.stdout) == (1, "")
    assert "holds no runs" in empty.stderr
    assert here(tmp_path / "nix").stderr.startswith(f"error: there is no folder {tmp_path / 'nix'}")


def test_runs_show_settings_as_their_options():
    values: dict[str, Any] = {
        "model": {"name": "logistic", "class_weight": {"yes": 2.0}},
        "training": {"solver": {"name": "private", "noise_multiplier": 1.5, "max_grad_norm": 1.0}},
        "report": report_of(0.7).to_json(),
    }
    one = SavedRun.of("a", json.loads(json.dumps(values)))
    values["training"]["solver"]["max_grad_norm"] = 2.0
    head, rows = runs_table([one, SavedRun.of("b", json.loads(json.dumps(values)))])
    assert one.settings["class_weight"] == "yes=2.0"
    assert head[1] == "solver"
    assert [row[1] for row in rows] == [
        f"private:noise_multiplier=1.5,max_grad_norm={norm}" for norm in ("1.0", "2.0")
    ]


@pytest.mark.slow
def test_the_command_writes_a_page(tmp_path):
    run, out = tmp_path / "a.run", tmp_path / "a.html"
    fitted_of().save(run)
    assert load_fitted(run).classes == ("no", "yes")

    def here(*arguments):
        return CliRunner().invoke(cli.app, ["report", str(run), "--out", str(out), *arguments])

    result = here()
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"saved in {out}: ")
    first = out.read_bytes()
    assert Page(first.decode()).tags.count("svg") == 5
    again = here()
    assert (again.exit_code, again.stdout) == (1, "")
    assert "exists already" in again.stderr
    over = here("--overwrite", "--json")
    assert json.loads(over.stdout) == {"out": str(out), "bytes": len(first)}
    assert out.read_bytes() == first
    make_data(tmp_path / "rows.zarr", rows=100, features=3, random_state=0)
    result = here("--overwrite", "--quiet", "--data", str(tmp_path / "rows.zarr"))
    assert result.exit_code == 1
    assert "classes" in result.stderr  # the store has others
    fitted_of(classes=(0, 1)).save(tmp_path / "b.run")
    command = ["report", str(tmp_path / "b.run"), "--data", str(tmp_path / "rows.zarr")]
    result = CliRunner().invoke(
        cli.app, [*command, "--out", str(out), "--overwrite", "--workers=1"]
    )
    assert result.exit_code == 0, result.stderr
    words = Page(out.read_text()).words
    assert {"100 rows of rows.zarr", "roc_auc", "for 1, per deviation"} <= set(words)
    shutil.rmtree(tmp_path / "rows.zarr")
    shutil.rmtree(tmp_path / "b.run")
    none = CliRunner().invoke(cli.app, ["report", str(tmp_path), "--out", str(tmp_path / "b.html")])
    assert none.exit_code == 1
    assert "is no run" in none.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.run"]


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 3, 12])
def test_a_table_of_runs_takes_the_room_that_there_is(browser, tmp_path, n):
    """It scrolls in a window that is too narrow alone; the page itself never does."""
    values = [
        {"C": f"{10.0**-i:g}", "solver": ["adam", "momentum"][i % 2], "batch_size": f"{2**i}",
         "learning_rate": "auto", "max_iter": f"{i}", "validation_fraction": f"{i / 20:g}",
         "tol": f"{0.1**i:.0g}", "class_weight": ["balanced", "None"][i % 2],
         "early_stopping": f"patience={i},min_delta=0.0,metric=None,restore_best=True"}
        for i in range(n)
    ]  # fmt: skip
    origin = {"data": "arrays: 2,000 x 5 float64", "date": "2026-12-01 11:45 UTC"}
    report = replace(report_of(0.6931, 0.4), origin=origin)
    runs = [SavedRun(f"late_by_adam_{i}.run", each, report) for i, each in enumerate(values)]
    (tmp_path / "runs.html").write_text(runs_page("runs", runs), encoding="utf-8")

    def hidden(width):
        browser.set_window_size(width, 900)
        browser.get(f"file://{tmp_path}/runs.html")
        return browser.execute_script(
            "return [document.querySelector('.table'), document.documentElement]"
            ".map(e => e.scrollWidth - e.clientWidth)"
        )

    assert hidden(1600) == [0, 0]
    table, page = hidden(800)
    assert page == 0
    assert n == 1 or table > 0
    heads = browser.execute_script(
        "return [...document.querySelectorAll('thead th')].map(e => e.innerText)"
    )
    assert heads[0] == "run"
    assert n == 1 or "validation_fraction" in [head.replace("\n", "") for head in heads]


def test_one_pass_is_no_passes():
    report = replace(report_of(), passes=1.0, updates=1, n_rows=1)
    page = run_page(fitted_of(report=report.to_json()), "a.run")
    for text in (repr(report), page):
        assert "1 pass" in text
        assert not re.search(r"\b1 (passes|updates|rows|steps|epochs|chunks)\b", text)


def test_counts_have_one_function():
    """No number stands before a plural that would be wrong for one."""
    nouns = r"passes|updates|epochs|runs|features|coefficients|predictions"
    found = [
        f"{path}: {line.strip()}"
        for path in Path(ooc_train.__file__).parent.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(rf"\{{[^{{}}]+(:,|:\.\dg)\}} ({nouns})\b", line)
    ]
    assert not found
