"""The command `follow`, and rows that come by a pipe."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

from ooc_train import (
    InvalidTable,
    LogisticModel,
    OocTrainError,
    StoreAppender,
    Training,
    append,
    cli,
    follow,
    ingest,
    open_store,
)
from ooc_train.following.follow_settings import Following
from ooc_train.runs.run_loading import load_fitted
from ooc_train.store.jobs.piped_rows import PipedRows, _Lines

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)
ROWS = 900
A, KIND = RNG.normal(size=ROWS).round(3), RNG.choice(["red", 'a "b"\nc', "blue"], ROWS)
Y = np.where(A + (KIND == "red") + RNG.normal(size=ROWS) > 0, "yes", "no")
A[RNG.random(ROWS) < 0.1] = np.nan
WORDS = ("--first-rows", "200", "--window", "64", "--random-state", "1", "--quiet")
SMALL = Following(window=64, first_rows=200)
HOW = Training(batch_size=32, random_state=1)


def csv_of(start, stop, *, header=True):
    quoted = ['"' + kind.replace('"', '""') + '"' for kind in KIND[start:stop]]
    rows = zip(A[start:stop], quoted, Y[start:stop], strict=True)
    lines = [f"{'' if np.isnan(a) else a},{kind},{y}\n" for a, kind, y in rows]
    return ("a,kind,y\n" if header else "") + "".join(lines)


def json_of(start, stop):
    rows = zip(A[start:stop].tolist(), KIND[start:stop], Y[start:stop], strict=True)
    values = [
        {"kind": str(kind), "y": str(y), "a": None if np.isnan(a) else a} for a, kind, y in rows
    ]
    return "".join(json.dumps(each) + "\n" for each in values)


def ingested(folder, stop):
    (folder / "first.csv").write_text(csv_of(0, stop))
    store = folder / "a.zarr"
    ingest(
        folder / "first.csv", store, target="y", categorical=["kind"], missing="mean",
        random_state=2,
    )  # fmt: skip
    return store


def run(*words, text=""):
    return CliRunner().invoke(cli.app, ["follow", *map(str, words), *WORDS], input=text)


@pytest.mark.slow
def test_the_same_command_goes_on_with_rows_that_were_appended(tmp_path):
    store, out = ingested(tmp_path, 500), tmp_path / "run"
    found = run(store, "--out", out, "--idle", "0s", "--json")
    assert found.exit_code == 0, found.output
    figures = json.loads(found.stdout)
    assert (figures["rows"], figures["new_rows"], figures["waiting_rows"]) == (480, 480, 20)
    assert figures["out"] == str(out)
    (tmp_path / "more.csv").write_text(csv_of(500, ROWS))
    append(store, tmp_path / "more.csv")
    found = run(store, "--out", out, "--max-rows", 64)
    assert found.exit_code == 0, found.output
    assert "64 rows learned, 544 in all" in found.output
    assert "stopped (max_rows=64 reached)" in found.output
    assert "356 rows of the store are still to be learned" in found.output
    assert run(store, "--out", out, "--idle", "0").exit_code == 0
    due = follow(LogisticModel(), store, HOW, SMALL, idle=0)
    assert_array_equal(load_fitted(out).coef, due.fitted.coef)
    assert load_fitted(out).recipe is not None
    found = run(store, "--out", out, "--replay", "0.5", "--idle", "0")
    assert (found.exit_code, "is a checkpoint of another run: replay" in found.output) == (1, True)
    found = CliRunner().invoke(cli.app, ["train", "--resume", str(out)])
    assert (found.exit_code, "call of `ooc-train follow` goes on" in found.output) == (1, True)


def test_a_rate_of_batches_that_a_stream_has_not_is_refused(tmp_path):
    store = ingested(tmp_path, 300)
    for words, said in (
        (("--batch-size", "full"), "--batch-size full has no meaning for a stream"),
        (("--max-iter", "3"), "--max-iter is for train"),
        (("--from", "a.csv"), "--from takes -"),
        (("--replay", "2"), "--replay"),
        (("--idle", "soon"), "soon"),
    ):
        found = run(store, *words)
        assert found.exit_code in (1, 2), found.output
        assert said in found.output.replace("\n", " "), found.output


@pytest.mark.parametrize("text", [csv_of, json_of])
def test_rows_of_a_pipe_are_appended_and_learned(tmp_path, text):
    store, out = ingested(tmp_path, 300), tmp_path / "run"
    reading, writing = os.pipe()
    rows, sent = PipedRows(store, reading, warn=print), text(300, ROWS).encode()
    feed = iter(rows)
    assert next(feed) is None
    cuts = [0, 1, 40, 3_000, 3_001, len(sent)]
    for start, stop in pairwise(cuts):
        os.write(writing, sent[start:stop])
        next(feed)
    os.close(writing)
    found = follow(LogisticModel(), store, HOW, SMALL, rows=feed, out=out)
    os.close(reading)
    assert found.report.ended == "the rows ended"
    grown, rest = open_store(store), tmp_path / "rest.csv"
    assert grown.n_rows == ROWS
    (tmp_path / "due").mkdir()
    due = ingested(tmp_path / "due", 300)
    rest.write_text(csv_of(300, ROWS))
    append(due, rest)
    for name in ("X", "y"):
        assert_array_equal(grown.read(name), open_store(due).read(name))
    expected = follow(LogisticModel(), due, HOW, SMALL, idle=0)
    assert_array_equal(found.fitted.coef, expected.fitted.coef)


@pytest.mark.parametrize("text", [csv_of, json_of])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_text_of_a_pipe_is_cut_at_ends_of_rows(text, size):
    sent = text(0, 20).encode().removesuffix(b"\n")
    lines, found = _Lines(","), []
    for start in range(0, len(sent), size):
        part = sent[start : start + size]
        found.append(lines.taken(part, is_over=start + size >= len(sent)))
    header, _, rows = csv_of(0, 20).partition("\n")
    if text is csv_of:
        whole = b"".join(each.removeprefix(header.encode() + b"\n") for each in found)
        assert whole.decode() == rows
    else:
        assert sum(each.count(b"\nred") + each.count(b"yes") for each in found)
    assert lines.taken(b"", is_over=True) == b""


def test_text_of_a_pipe_that_is_no_row_is_refused_and_the_rows_before_stay(tmp_path):
    good = json_of(0, 2).encode()
    for bad, said in (
        (b"[1]\n", "line 3 of the pipe is no JSON object"),
        (b"{1}\n", "line 3 of the pipe is no JSON"),
        (b'{"a": 1, "y": "no"}\n', "such as 'kind'"),
        (b'{"a": [1], "kind": "red", "y": "no"}\n', "has a list as 'a'"),
    ):
        with pytest.raises(InvalidTable, match=said):
            _Lines(",").taken(good + bad, is_over=False)
    store = ingested(tmp_path, 300)
    reading, writing = os.pipe()
    os.write(writing, csv_of(300, 400).encode())
    feed = iter(PipedRows(store, reading))
    assert next(feed) == ()
    os.write(writing, b"1,red,perhaps\n")
    os.close(writing)
    with pytest.raises(OocTrainError, match="perhaps"):
        follow(LogisticModel(), store, HOW, SMALL, rows=feed, out=tmp_path / "run")
    os.close(reading)
    assert load_fitted(tmp_path / "run").report["n_rows"] == 384
    assert open_store(store).n_rows == 400


@pytest.mark.slow
def test_sigterm_saves_and_a_follower_learns_while_others_append(tmp_path):
    store, out = ingested(tmp_path, 300), tmp_path / "run"
    words = [sys.executable, "-m", "ooc_train", "follow", store, "--out", out]
    words += ["--publish-every", "0s", *WORDS]
    process = subprocess.Popen(
        list(map(str, words)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    grown = open_store(store)
    X, y = grown.read("X"), grown.read("y")
    for _ in range(3):
        with StoreAppender(store) as appender:
            appender.write(X[:64], y[:64], row_id=np.arange(64))
            appender.commit()
    due = open_store(store).n_rows // 32 * 32
    for _ in range(600):
        if out.exists() and load_fitted(out).report["n_rows"] == due:
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "stopped (stopped by SIGTERM" in output
    assert load_fitted(out).report["n_rows"] == due
