"""Labels in y that are no codes: text of every kind, flags of CF, categories of AnnData."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from ooc_train import LogisticRegression, Ridge, evaluate, load, open_store
from ooc_train.cli.describe import describe_store, store_text
from ooc_train.errors import CeilingExceeded, CorruptChunk, InvalidStore, NonFiniteData
from ooc_train.models.classification_models import LogisticModel
from ooc_train.runtime import clients
from ooc_train.solvers.training_settings import Training
from ooc_train.store.jobs.rechunk import rechunk_store
from ooc_train.store.jobs.shuffle import shuffle_store
from ooc_train.store.labels import labels_term, with_classes
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.training.loop import train

ROWS, CHUNK = 90, 16
X = np.random.default_rng(0).standard_normal((ROWS, 3))
LABELS = ("no", "perhaps", "yes")
CODES = np.digitize(X[:, 0] + np.random.default_rng(1).logistic(size=ROWS) / 3, [-0.4, 0.4])
TEXT = np.array(LABELS)[CODES]
KINDS = {
    "fixed": TEXT,
    "bytes": TEXT.astype("S"),
    "variable": TEXT.astype(np.dtypes.StringDType()),
}
BOTH = pytest.mark.parametrize("zarr_format", [2, 3])
LOGISTIC, TRAINING = LogisticModel(), Training(max_iter=50, tol=1e-8)


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    monkeypatch.setattr(clients, "inside_another_job", lambda: True)


def group(path, zarr_format=3, **arrays):
    """A group of another writer."""
    made = zarr.create_group(path, zarr_format=zarr_format)
    with warnings.catch_warnings():
        # Types of text of a fixed length have no specification yet, says zarr-python.
        warnings.simplefilter("ignore")
        for name, values in arrays.items():
            made.create_array(name, data=values, chunks=(CHUNK, *values.shape[1:]))
    return str(path)


def set_attributes(path, **attributes):
    """Give an array attributes, as a text editor does: zarr-python warns of some types."""
    new = Path(path, "zarr.json").exists()
    file = Path(path, "zarr.json" if new else ".zattrs")
    metadata = json.loads(file.read_text()) if file.exists() else {}
    (metadata["attributes"] if new else metadata).update(attributes)
    file.write_text(json.dumps(metadata))


def anndata(path, zarr_format=3, codes=CODES, categories=LABELS):
    """Labels as anndata 0.12 writes a categorical column of `obs`."""
    made = group(path, zarr_format, X=X)
    root = zarr.open_group(made)
    root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    obs = root.create_group("obs")
    obs.attrs.update({"encoding-type": "dataframe", "column-order": ["cell"], "_index": "_index"})
    cell = obs.create_group("cell")
    cell.attrs.update({"encoding-type": "categorical", "ordered": False})
    values = np.array(categories)
    if values.dtype.kind == "U":
        values = values.astype(np.dtypes.StringDType())
    cell.create_array("categories", data=values)
    cell.create_array("codes", data=np.asarray(codes, "i1"), chunks=(CHUNK,))
    return open_store(made, y="obs/cell")


@pytest.fixture(scope="module")
def due():
    """What the same rows give in memory."""
    return LogisticRegression(max_iter=50, tol=1e-8).fit(X, TEXT)


def require_same(store, due, tmp_path):
    """Hold a fit in place, its predictions and metrics to those of rows in memory."""
    model = LogisticRegression(max_iter=50, tol=1e-8).fit(store)
    assert model.classes_.tolist() == list(LABELS)
    np.testing.assert_allclose(model.coef_, due.coef_, rtol=1e-9)
    predicted = model.predict(X)
    assert predicted.tolist() == due.predict(X).tolist()
    accuracy = float(np.mean(predicted == TEXT))
    assert model.score(store) == pytest.approx(accuracy)
    model.save(tmp_path / "a.run")
    again = load(tmp_path / "a.run")
    assert again.predict(X).tolist() == predicted.tolist()
    metrics, _ = evaluate(tmp_path / "a.run", store)
    assert metrics["accuracy"] == pytest.approx(accuracy)


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_text_train_in_place(tmp_path, due, zarr_format, kind):
    store = open_store(group(tmp_path / "a", zarr_format, X=X, y=KINDS[kind]))
    assert store.y is not None
    assert store.y.direct == (zarr_format == 3 and kind != "variable")
    assert store.read("y").tolist() == KINDS[kind].tolist()
    require_same(store, due, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_labels_in_shards(tmp_path, monkeypatch, due, kind):
    path = group(tmp_path / "a", X=X)
    values = KINDS[kind].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = zarr.open_group(path).create_array("y", data=values, chunks=(10,), shards=(40,))
        require_same(open_store(path), due, tmp_path)
        values[20:30] = "" if kind != "bytes" else b""
        made[...] = values
    # By both routes, a chunk that was left out is refused.
    with pytest.raises(CorruptChunk, match=r"chunk 2 \(rows 20 to 29\).*missing from its shard"):
        train(LOGISTIC, path, TRAINING)
    monkeypatch.setattr("ooc_train.store.opening.nodes.direct_layout", lambda *_, **__: None)
    with pytest.raises(CorruptChunk, match=r"chunk 2 \(rows 20 to 29\).*missing from its shard"):
        train(LOGISTIC, path, TRAINING)


@pytest.mark.slow
@BOTH
def test_categories_of_anndata(tmp_path, due, zarr_format):
    """In another order than the alphabet's, and with one that no row has."""
    order = ("yes", "unused", "no", "perhaps")
    codes = [order.index(label) for label in TEXT]
    store = anndata(tmp_path / "a", zarr_format, codes, order)
    assert store.read("y").tolist() == codes
    require_same(store, due, tmp_path)


def test_categories_that_are_numbers(tmp_path):
    store = anndata(tmp_path / "a", categories=(30, 10, 20))
    assert with_classes(store).classes == (10, 20, 30)


@BOTH
def test_a_label_that_is_missing_is_no_class(tmp_path, zarr_format):
    codes = CODES.copy()
    codes[[33, 70]] = -1
    with pytest.raises(NonFiniteData, match=r"row 33 has -1 in y.*categories of AnnData"):
        train(LOGISTIC, anndata(tmp_path / "a", zarr_format, codes), TRAINING)
    codes[33] = 7
    with pytest.raises(NonFiniteData, match=r"row 33 has 7 in y.*more than 2"):
        train(LOGISTIC, anndata(tmp_path / "b", zarr_format, codes), TRAINING)
    for i, (values, code) in enumerate(((TEXT, "no"), (TEXT.astype("S"), "bm8="))):
        path = group(tmp_path / f"c{i}", 3, X=X, y=values)
        set_attributes(f"{path}/y", _FillValue=code)
        with pytest.raises(NonFiniteData, match=r"row \d+ has b?'no' in y, .*_FillValue"):
            train(LOGISTIC, path, TRAINING)


@pytest.mark.slow
@BOTH
def test_flags_are_called_by_their_meanings(tmp_path, due, zarr_format):
    values = np.array([3, 1, 7], "i2")
    path = group(tmp_path / "a", zarr_format, X=X, y=values[CODES], sample_weight=np.ones(ROWS))
    set_attributes(f"{path}/y", flag_values=[7, 3, 1], flag_meanings="yes no perhaps")
    require_same(open_store(path), due, tmp_path)
    set_attributes(f"{path}/y", flag_values=[7, 3, 2])
    with pytest.raises(InvalidStore, match="the label 1 in y, which its metadata do not name"):
        train(LOGISTIC, path, TRAINING)
    set_attributes(f"{path}/y", flag_values=[7, 3])
    with pytest.raises(InvalidStore, match="2 flag_values and 3 flag_meanings"):
        open_store(path)
    for role in ("X", "sample_weight"):
        name = f"{role}.zarr"
        path = group(tmp_path / name, zarr_format, X=X, y=CODES, sample_weight=np.ones(ROWS))
        set_attributes(f"{path}/{role}", flag_values=[0], flag_meanings="a")
        with pytest.raises(InvalidStore, match="holds codes of categories"):
            open_store(path)


@pytest.mark.slow
def test_classes_of_the_model_rule(tmp_path):
    """Validation and evaluation: codes by the model's classes, whichever there are."""
    path = group(tmp_path / "a", X=X, y=TEXT)
    some = TEXT != "perhaps"
    part = group(tmp_path / "b", X=X[some], y=KINDS["variable"][some])
    fitted, report = train(LOGISTIC, path, TRAINING, validation=part)
    assert fitted.classes == LABELS
    metrics, _ = evaluate(fitted, part)
    right = np.array(LABELS)[np.argmax(X[some] @ fitted.coef.T + fitted.intercept, axis=1)]
    assert metrics["accuracy"] == pytest.approx(np.mean(right == TEXT[some]))
    assert report.validation_loss is not None
    narrow, _ = train(LOGISTIC, part, TRAINING)
    assert narrow.classes == ("no", "yes")
    with pytest.raises(InvalidStore, match="label 'perhaps', which is not one of the model's"):
        evaluate(narrow, path)


@pytest.mark.slow
def test_written_anew_they_are_codes_of_classes(tmp_path):
    makers: dict[str, Any] = {"rechunked": rechunk_store, "shuffled": shuffle_store}
    for kind, values in KINDS.items():
        store = open_store(group(tmp_path / kind, X=X, y=values))
        for name, make in makers.items():
            made, _ = make(store, tmp_path / f"{kind}.{name}.zarr", memory_ceiling="1GiB")
            assert (made.classes, made.class_counts) == (LABELS, tuple(np.bincount(CODES)))
            order = slice(None) if made.row_id is None else made.read("row_id")
            assert made.read("y").tolist() == CODES[order].tolist()


def test_what_is_no_label(tmp_path):
    for name, values in {
        "datetime": np.arange(ROWS).astype("M8[s]"),
        "duration": np.arange(ROWS).astype("m8[s]"),
        "structured": np.zeros(ROWS, [("a", "i4"), ("b", "f4")]),
        "raw": np.zeros(ROWS, "V4"),
        "complex": np.zeros(ROWS, "c8"),
    }.items():
        for zarr_format in (2, 3):
            path = group(tmp_path / f"{name}{zarr_format}", zarr_format, X=X, y=values)
            with pytest.raises(InvalidStore, match=r"y holds .*, and y needs numbers or text"):
                open_store(path)
            assert open_store(path, y=None).n_rows == ROWS
            path = group(
                tmp_path / f"X{name}{zarr_format}", zarr_format, X=np.stack([values] * 2, 1)
            )
            with pytest.raises(InvalidStore, match=r"X holds .*, and X needs numbers"):
                open_store(path)
    for kind, values in KINDS.items():
        path = group(tmp_path / f"X{kind}", X=np.stack([values] * 2, 1))
        with pytest.raises(InvalidStore, match="X holds text, and X needs numbers"):
            open_store(path)
        path = group(tmp_path / f"w{kind}", X=X, sample_weight=values)
        with pytest.raises(InvalidStore, match="and sample_weight needs numbers"):
            open_store(path)


def test_objects_that_zarr_does_not_read(tmp_path):
    path = group(tmp_path / "a", 2, X=X, y=CODES)
    file = tmp_path / "a/y/.zarray"
    about = json.loads(file.read_text())
    about.update(dtype="|O", filters=[{"id": "pickle", "protocol": 5}], fill_value=None)
    file.write_text(json.dumps(about))
    with pytest.raises(InvalidStore, match=r"y can't be opened as Zarr .*pickle"):
        open_store(path)


def test_groups_that_are_no_array(tmp_path):
    for zarr_format in (2, 3):
        root = zarr.create_group(tmp_path / f"{zarr_format}", zarr_format=zarr_format)
        sparse = root.create_group("X")
        sparse.attrs.update({"encoding-type": "csr_matrix", "shape": [4, 3]})
        with pytest.raises(InvalidStore, match=r"X is sparse \(csr_matrix of AnnData\)"):
            open_store(tmp_path / f"{zarr_format}")
        root.create_array("dense", data=X)
        nullable = root.create_group("count")
        nullable.attrs["encoding-type"] = "nullable-integer"
        root.create_group("plain")
        for name, what in (
            ("count", "is nullable-integer of AnnData, and no array for y"),
            ("plain", "is a group without an array 'y'"),
        ):
            with pytest.raises(InvalidStore, match=what):
                open_store(tmp_path / f"{zarr_format}", X="dense", y=name)


def test_labels_are_not_learned_by_a_regression(tmp_path):
    path = group(tmp_path / "a", X=X, y=TEXT)
    for store in (open_store(path), anndata(tmp_path / "b")):
        with pytest.raises(InvalidStore, match="labels of classes in y, and a regression needs"):
            Ridge().fit(store)


def test_labels_are_few_and_short(tmp_path):
    ids = np.array([f"row {i}" for i in range(1200)])
    with pytest.raises(InvalidStore, match="more than 1,000 distinct values"):
        train(LOGISTIC, group(tmp_path / "a", X=np.ones((1200, 1)), y=ids), TRAINING)
    long = KINDS["variable"].copy()
    long[3] = "long" * 40
    with pytest.raises(InvalidStore, match="a text of 160 bytes in y, 'longlong"):
        train(LOGISTIC, group(tmp_path / "b", X=X, y=long), TRAINING)
    wrong = TEXT.astype("S")
    wrong[5] = b"\xff"
    with pytest.raises(InvalidStore, match=r"b'\\xff' in y, which is no text in UTF-8"):
        train(LOGISTIC, group(tmp_path / "c", X=X, y=wrong), TRAINING)


def test_a_label_that_was_not_there_when_they_were_looked_at(tmp_path):
    path = group(tmp_path / "a", X=X, y=TEXT)
    store = with_classes(open_store(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.open_array(f"{path}/y")[40:41] = np.array(["other"])
    with pytest.raises(InvalidStore, match=r"row 40 has the label 'other' in y.*meanwhile"):
        store.read("y")


@pytest.mark.slow
def test_a_chunk_of_labels_that_was_left_out(tmp_path):
    y = TEXT.copy()
    y[CHUNK : 2 * CHUNK] = ""
    for kind in KINDS:
        values = y.astype(KINDS[kind].dtype)
        path = group(tmp_path / kind, X=X, y=values)
        with pytest.raises(CorruptChunk, match="fill_missing=True"):
            train(LOGISTIC, path, TRAINING)
        fitted, _ = train(LOGISTIC, open_store(path, fill_missing=True), TRAINING)
        assert fitted.classes == ("", *LABELS)


def test_what_looking_at_labels_takes_is_planned(tmp_path):
    store = open_store(group(tmp_path / "a", X=X, y=KINDS["variable"]))
    looked = labels_term(store.y).bytes
    # Of each row 16 bytes that are kept, and a text of 100 bytes while zarr-python decodes it.
    assert looked - labels_term().bytes == CHUNK * (16 + 112 + 3 * 100)
    coded = with_classes(store).y
    assert coded is not None
    assert coded.coding is not None
    with ChunkReader(coded) as reader:
        # The labels have seven characters, which are kept, and coded in pieces.
        assert reader.hidden_bytes == CHUNK * (112 + 12 * 7 + 28 + 28 + 16)
    with pytest.raises(CeilingExceeded, match=r"ooc-train rechunk .*a\.rechunked"):
        train(LOGISTIC, store, TRAINING, memory_ceiling="4MiB")
    with pytest.raises(CeilingExceeded, match="labels"):
        rechunk_store(store, tmp_path / "b.zarr", memory_ceiling="4MiB")


@BOTH
def test_what_info_tells_of_labels(tmp_path, zarr_format):
    for kind, values in KINDS.items():
        store = open_store(group(tmp_path / kind, zarr_format, X=X, y=values))
        assert "1 column of text" in store_text(store, 0)
        assert ", y text, " in repr(store)
        assert describe_store(store, 0)["y_dtype"] == "text"
    store = anndata(tmp_path / "a", zarr_format)
    assert "1 column of int8, codes of 3 names" in store_text(store, 0)
    with pytest.raises(InvalidStore, match=r"is a group without an array 'y' \(it has 'cell'\)"):
        open_store(store.path, y="obs")
    with pytest.raises(InvalidStore, match=r"has no y, .* name it, as open_store\(path, y="):
        train(LOGISTIC, store.path, TRAINING)
