"""Run folders: the same bits again, all or nothing, and nothing that runs or is believed."""

import io
import json
import os
import pickle
import shutil
import stat
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import ooc_train
from ooc_train import evaluate, ingest, make_data, train
from ooc_train.core.output_kinds import RUN, require_output
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import InvalidRun, OutputExists
from ooc_train.inference.outputs import Outputs
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.predictor import LinearPredictor
from ooc_train.models.regression_models import RidgeModel
from ooc_train.objective.losses import LOSSES
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.run_loading import load_fitted
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.run_identity import origin_of
from ooc_train.training.task import Task

RNG = np.random.default_rng(0)
TWO = Fitted(
    LogisticModel(C=0.3, class_weight={"late": 3.0}),
    LinearPredictor(RNG.normal(size=(1, 3)), RNG.normal(size=1)),
    ("early", "late"),
    ("a", "b", "c"),
    {"passes": 3.0, "loss": None},
    training=Training(batch_size=32, tol=0.5, random_state=5),
)
THREE = Fitted(
    LogisticModel(), LinearPredictor(RNG.normal(size=(3, 3)), RNG.normal(size=3)), (-1, 0, 7)
)
FILES = ["card.md", "model.json", "parameters.npz"]
LINE = Fitted(RidgeModel(alpha=2.0), LinearPredictor(RNG.normal(size=(2, 3)), RNG.normal(size=2)))
X = RNG.normal(size=(40, 3)).astype("f4")


def assert_same(a, b):
    assert a.coef.tobytes() == b.coef.tobytes()
    assert a.intercept.tobytes() == b.intercept.tobytes()
    assert a.coef.shape == b.coef.shape
    assert (a.model, a.training) == (b.model, b.training)
    assert (a.classes, a.feature_names) == (b.classes, b.feature_names)
    assert dict(a.report) == dict(b.report)


@pytest.mark.parametrize("fitted", [TWO, THREE, LINE])
def test_a_run_comes_back_to_the_last_bit(tmp_path, fitted):
    fitted.save(tmp_path / "a.run/")
    assert_same(load_fitted(tmp_path / "a.run"), fitted)
    assert sorted(os.listdir(tmp_path)) == ["a.run"]
    assert sorted(os.listdir(tmp_path / "a.run")) == FILES


@settings(max_examples=25, deadline=None)
@given(
    coef=arrays(float, (2, 3), elements=st.floats(allow_nan=False, allow_infinity=False)),
    classes=st.lists(st.integers() | st.text(), min_size=3, max_size=5, unique_by=str),
    names=st.none() | st.lists(st.text(), min_size=3, max_size=3),
)
def test_any_numbers_labels_and_names_come_back(tmp_path_factory, coef, classes, names):
    n = len(classes)
    coef = np.resize(coef, (n, 3))
    named = None if names is None else tuple(names)
    fitted = Fitted(LogisticModel(), LinearPredictor(coef, coef[:, 0]), tuple(classes), named)
    path = tmp_path_factory.mktemp("runs") / "a"
    fitted.save(path)
    assert_same(load_fitted(path), fitted)


def test_folders_above_are_made_and_permissions_are_the_usual(tmp_path):
    TWO.save(tmp_path / "deep" / "down" / "a.run")
    os.mkdir(tmp_path / "usual")
    modes = [stat.S_IMODE(os.stat(tmp_path / p).st_mode) for p in ("deep/down/a.run", "usual")]
    assert modes[0] == modes[1]


def test_only_a_run_is_written_over_and_only_on_purpose(tmp_path):
    path = tmp_path / "a.run"
    TWO.save(path)
    with pytest.raises(
        OutputExists, match="exists already; choose another name, or replace it by overwrite=True"
    ):
        LINE.save(path)
    assert_same(load_fitted(path), TWO)
    LINE.save(path, overwrite=True)
    assert_same(load_fitted(path), LINE)
    assert os.listdir(tmp_path) == ["a.run"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    (tmp_path / "notes.txt").write_text("more")
    for other in ("thesis", "notes.txt"):
        with pytest.raises(OutputExists, match="is no run, so it is not written over"):
            LINE.save(tmp_path / other, overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"
    require_output(tmp_path / "free", RUN, overwrite=False)


def test_a_link_to_nowhere_is_taken(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExists):
        require_output(tmp_path / "link", RUN, overwrite=False)


@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_disk_that_fails_leaves_what_was_there(tmp_path, monkeypatch, call, overwrite):
    path = tmp_path / "a.run"
    if overwrite:
        TWO.save(path)
    real, calls = os.fsync, []

    def fails(fd: int) -> None:
        calls.append(fd)
        if len(calls) == call:
            raise OSError(28, "No space left on device")
        real(fd)

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match=r"the disk is full: .* \(nothing of it was committed\)"):
        LINE.save(path, overwrite=overwrite)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == (["a.run"] if overwrite else [])
    if overwrite:
        assert_same(load_fitted(path), TWO)


# --------------------------------------------------------------------------- hostile folders


def npz(**values):
    file = io.BytesIO()
    np.savez(file, **values)
    return file.getvalue()


def npy(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def flipped(data):
    return data[:150] + bytes([data[150] ^ 255]) + data[151:]


ONE = np.ones((1, 3))
GOOD = npz(coef=ONE, intercept=np.ones(1))


@pytest.mark.parametrize(
    "parameters",
    [
        b"",
        b"PK\x03\x04" + b"x" * 100,
        GOOD[:-30],
        GOOD[:200],
        flipped(GOOD),
        npy(ONE),
        npz(coef=ONE),
        npz(coef=ONE, intercept=np.ones(2)),
        npz(coef=np.ones(3), intercept=np.ones(1)),
        npz(coef=np.ones((3, 3)), intercept=np.ones(3)),
        npz(coef=np.ones((1, 4)), intercept=np.ones(1)),
        npz(coef=np.array([["a", "b", "c"]]), intercept=np.ones(1)),
        npz(coef=1j * ONE, intercept=np.ones(1)),
        npz(coef=np.nan * ONE, intercept=np.ones(1)),
        npz(coef=ONE, intercept=np.full(1, np.inf)),
        None,
    ],
)
def test_parameters_that_are_none_are_refused(tmp_path, parameters):
    TWO.save(tmp_path / "a")
    file = tmp_path / "a" / "parameters.npz"
    file.unlink()
    if parameters is not None:
        file.write_bytes(parameters)
    with pytest.raises(InvalidRun, match=r"a is damaged|a is no run: .*parameters\.npz is miss"):
        load_fitted(tmp_path / "a")


@pytest.mark.parametrize("inside", ["object array", "bare pickle"])
def test_nothing_is_unpickled(tmp_path, inside):
    TWO.save(tmp_path / "a")
    bomb = Bomb(str(tmp_path / "exploded"))
    hidden = np.array([[bomb, 1, 1]], dtype=object)
    data = npz(coef=hidden, intercept=np.ones(1)) if inside == "object array" else b""
    (tmp_path / "a" / "parameters.npz").write_bytes(data or pickle.dumps(bomb))
    with pytest.raises(InvalidRun, match="is damaged"):
        load_fitted(tmp_path / "a")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"format": "else"},
        {"format_version": 4},
        {"format_version": 2},
        {"format_version": 1},
        {"predictor": "network"},
        {"format_version": "1"},
        {"model": None},
        {"model": {"name": "logistic", "code": "evil"}},
        {"model": {"name": "logistic", "C": -1}},
        {"training": None},
        {"training": {"batch_size": 0}},
        {"training": {"code": "evil"}},
        {"model": {"name": "ridge"}, "classes": [1], "feature_names": ["a"]},
        {"classes": [0, 1, 2]},
        {"classes": [[0], [1]]},
        {"classes": None},
        {"feature_names": ["a"]},
        {"report": None},
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, change):
    TWO.save(tmp_path / "a")
    file = tmp_path / "a" / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(
        InvalidRun, match=r"is damaged|is no run|by (a later|an earlier) release|does not know"
    ):
        load_fitted(tmp_path / "a")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 100_000])
def test_json_that_is_none_is_refused(tmp_path, text):
    TWO.save(tmp_path / "a")
    (tmp_path / "a" / "model.json").write_bytes(text)
    with pytest.raises(InvalidRun, match="is damaged"):
        load_fitted(tmp_path / "a")


def test_what_is_no_run_is_told(tmp_path):
    with pytest.raises(InvalidRun, match=r"is no run: .*model.json is missing"):
        load_fitted(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRun, match="is a file, and a run is a folder"):
        load_fitted(tmp_path / "file")
    shutil.rmtree(tmp_path / "nothing", ignore_errors=True)
    with pytest.raises(InvalidRun, match="is missing"):
        load_fitted(tmp_path / "nothing")


# ------------------------------------------------------------------------------- predictions


@pytest.mark.parametrize("piece", [None, 1, 7, 40, 100])
@pytest.mark.parametrize("fitted", [TWO, THREE, LINE])
def test_decisions_are_the_predictors_however_rows_are_converted(fitted, piece):
    converted = None if piece is None else np.full((piece, 3), np.nan)
    z = fitted.predictor.decision(X, converted)
    np.testing.assert_allclose(
        z, X.astype(float) @ fitted.coef.T + fitted.intercept, rtol=1e-12, atol=1e-13
    )


def test_probabilities_and_codes_go_together():
    for fitted, n in ((TWO, 2), (THREE, 3)):
        z = fitted.predictor.decision(X)
        p = Outputs.of(fitted).probabilities(z)
        assert p.shape == (40, n)
        np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-15)
        np.testing.assert_array_equal(Outputs.of(fitted).codes(z), p.argmax(axis=1))
        assert len(set(Outputs.of(fitted).codes(z))) > 1
    # A row on the border is of the first class, as in scikit-learn.
    assert Outputs.of(TWO).codes(np.zeros((1, 1))).tolist() == [0]
    assert (TWO.loss, THREE.loss) == (LOSSES["logistic"](), LOSSES["multinomial"]())
    assert LINE.loss == LOSSES["squared"]()


def test_data_of_another_width_are_refused_with_both_widths():
    with pytest.raises(InvalidRun, match="trained on 3 features and these data has 4"):
        TWO.for_columns(None, 4, "these data")
    assert TWO.for_columns(None, 3, "these data") is TWO


def test_what_jobs_return_shows_itself_in_a_line_and_a_table(tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 3))
    y = np.array(["no", "<b>"])[(X[:, 0] > 0).astype(int)]
    fitted, _ = train(LogisticModel(C=0.5), X, y=y)
    metrics, memory = evaluate(fitted, X, y=y)
    table = tmp_path / "rows.csv"
    table.write_text("a,y\n" + "\n".join(f"{i},{i % 2}" for i in range(50)))
    made = ingest(table, tmp_path / "rows.zarr", target="y", test_size=0.2)
    assert repr(fitted).startswith("<Fitted logistic: 3 features, 2 classes, loss 0.")
    assert repr(fitted.bare()) == "<Fitted logistic: 3 features, 2 classes>"
    assert repr(memory) == f"<MemoryReport: {memory}>"
    assert repr(made).startswith("<Ingested: <Store ")
    assert made.test is not None
    assert f", {made.test.n_rows} test rows, 0 rows dropped; ceiling " in repr(made)
    right = f"{metrics['accuracy']:.4g} of the weight right"
    assert repr(metrics["by_class"]) == f"<ClassMetrics: 2 classes, {right}>"
    for text, value in (
        ("logistic(C=0.5)", fitted),
        ("&lt;b&gt;, no", fitted),
        ("projected", memory),
        ("&lt;b&gt;", metrics["by_class"]),
        (f"{made.store.n_rows} x 1", made.store),
        ("rows dropped", made),
        ("C=0.3)", TWO),
    ):
        page = value._repr_html_()
        assert page.startswith("<table>")
        assert "<b>" not in page
        assert text in page


def sections_of(path):
    """The tables of a card: the rows of each section as a dictionary."""
    _, *parts = (path / "card.md").read_text(encoding="utf-8").split("\n## ")
    rows = {part.partition("\n")[0]: part.splitlines()[4:] for part in parts}
    return {
        title: dict(row.strip("| ").split(" | ", 1) for row in lines if row)
        for title, lines in rows.items()
    }


def test_the_card_of_a_run_says_what_it_is(tmp_path):
    rng = np.random.default_rng(1)
    table = {"a": rng.normal(size=90), "b": list("xyz") * 30, "late": ["no", "yes"] * 45}
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    rows, out = tmp_path / "rows.parquet", tmp_path / "a.zarr"
    store = ingest(rows, out, target="late", categorical=["b"]).store
    training = Training(batch_size=16, max_passes=2, tol=0.0, random_state=7)
    _, report = train(LogisticModel(), store, training, validation=store, out=tmp_path / "a.run")
    found = sections_of(tmp_path / "a.run")
    assert list(found) == [
        *("Model", "Data", "Quality", "Run", "Settings", "Memory", "Privacy", "Made")
    ]
    assert found["Model"]["model"] == "logistic"
    assert found["Model"]["classes"] == "no, yes"
    assert found["Data"]["data"] == f"a.zarr: 90 x 4 float32, id {store.store_id}"
    assert found["Data"]["validation data"] == found["Data"]["data"]
    assert found["Data"]["raw columns"] == "a, b"
    assert found["Quality"]["loss of the training rows"] == f"{report.loss:.6g}"
    assert found["Run"]["seed"] == "7"
    assert found["Settings"]["max\\_passes"] == "2"
    assert found["Memory"]["ceiling"] == approximate_bytes(report.memory.ceiling)
    assert "none" in found["Privacy"]["differential privacy"]
    assert ooc_train.__version__ in found["Made"]["versions"]
    assert str(tmp_path) not in (tmp_path / "a.run" / "card.md").read_text(encoding="utf-8")
    assert load_fitted(tmp_path / "a.run").report["origin"] == report.origin


def test_a_card_holds_no_password_of_a_url_and_no_markup(tmp_path):
    store = make_data(tmp_path / "a.zarr", rows=100, features=2)
    inputs = read_inputs(store, classifier=True)
    secret = "s3://key:secret@host/folder/a.zarr?token=secret"
    task = Task.of(LogisticModel(), replace(inputs, store=replace(store, path=secret)), Training())
    origin = origin_of(task)
    assert origin["data"].startswith("a.zarr: 100 x 2 float32, id ")
    assert "secret" not in str(origin)
    names = ("a|b", "<script>", "[x](y)\n# z")
    replace(TWO, feature_names=names).save(tmp_path / "b.run")
    text = (tmp_path / "b.run" / "card.md").read_text(encoding="utf-8")
    assert "a\\|b, &lt;script>, \\[x\\](y) # z" in text


def test_arrays_are_known_by_some_of_their_rows():
    X = np.random.default_rng(0).normal(size=(50, 3))
    data = [train(RidgeModel(), rows, y=rows[:, 0])[1].origin["data"] for rows in (X, X, X + 1.0)]
    assert data[0].startswith("arrays: 50 x 3 float64, digest of some rows ")
    assert data[0] == data[1] != data[2]
