"""Inputs: what labels, weights and shapes become, and what is refused with its figures."""

from typing import Any

import dask.array
import dask.dataframe
import numpy as np
import pandas as pd
import pytest
import zarr
from typer.testing import CliRunner

from ooc_train import cli
from ooc_train.errors import CeilingExceeded, InvalidStore, NonFiniteData
from ooc_train.models.classification_models import LogisticModel
from ooc_train.solvers.training_settings import Training
from ooc_train.store.jobs.rechunk import rechunk_store
from ooc_train.store.jobs.rewriting_commands import small_chunks_note
from ooc_train.store.opening.opener import open_store
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.stream.array_source import ArraySource
from ooc_train.stream.classes import class_weights
from ooc_train.stream.inputs import read_features, read_inputs
from ooc_train.stream.store_source import StoreSource
from ooc_train.training.loop import train
from ooc_train.training.task import Task
from tests.streams import write_store

ROWS = 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 2))
CODES = np.arange(ROWS) * 7 % 5 % 3  # 0, 2, 1, 1, 0: no order that sorting would give
WEIGHT = RNG.uniform(0, 2, ROWS)
FOREIGN: Any = {
    "codes": [0, 1, 2],
    "signs": [-1, 1],
    "numbers": [-4, 7, 1000],
    "halves": [2.0, 3.0, 9.0],
    "booleans": [False, True],
}


def labels_of(name, codes=CODES):
    values = np.array(FOREIGN[name])
    return values[codes % len(values)]


def y_of(inputs):
    """The codes that models see."""
    source = inputs.source
    arrays = {k: np.zeros(room.shape, room.dtype) for k, room in source.buffers().items()}
    reader = source.reader()
    return np.concatenate(
        [block.y[:, 0].copy() for block in reader.run(range(source.n_partitions), arrays)]
    )


def foreign(path, **arrays):
    group = zarr.create_group(path)
    for name, values in arrays.items():
        made = group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=(8, *values.shape[1:]),
            config={"write_empty_chunks": True},
        )  # fmt: skip
        made[...] = values
    return str(path)


def inputs_of(kind, tmp_path, y, weight=None, **how):
    """The same rows in memory, as Dask arrays, or in the store of another writer."""
    if kind == "arrays":
        return read_inputs(X, y, weight, classifier=True, **how)
    if kind == "dask":
        rows, labels = (dask.array.from_array(a, chunks=(25, *a.shape[1:])) for a in (X, y))
        return read_inputs(rows, labels, weight, classifier=True, **how)
    arrays = {"X": X, "y": y} | ({} if weight is None else {"sample_weight": weight})
    return read_inputs(foreign(tmp_path / "z", **arrays), classifier=True, **how)


KINDS = ["arrays", "store", "dask"]


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("kind", KINDS)
def test_labels_become_codes_in_sorted_order(tmp_path, kind, name, weight):
    y = labels_of(name)
    inputs = inputs_of(kind, tmp_path, y, weight)
    labels, codes = np.unique(y, return_inverse=True)
    assert list(inputs.classes) == labels.tolist()
    assert all(type(label) in (int, bool) for label in inputs.classes)
    assert inputs.class_totals is not None
    np.testing.assert_allclose(inputs.class_totals, np.bincount(codes, weight), rtol=1e-12)
    assert inputs.total_weight == pytest.approx(ROWS if weight is None else weight.sum())
    assert inputs.kind == kind
    if kind != "dask":
        np.testing.assert_array_equal(y_of(inputs), codes)


def test_text_in_memory_becomes_codes():
    text = np.array(["on time", "late", "cancelled"])[CODES]
    for y in (text, text.astype(object), text.tolist(), text[:, None]):
        inputs = read_inputs(X, y, classifier=True)
        assert inputs.classes == ("cancelled", "late", "on time")
        np.testing.assert_array_equal(y_of(inputs), 2 - CODES)


def test_named_classes_of_a_store_keep_their_order(tmp_path):
    store = write_store(tmp_path / "a", X, CODES, classes=("z", "a", "m"))
    inputs = read_inputs(store, classifier=True)
    assert inputs.classes == ("z", "a", "m")
    np.testing.assert_array_equal(y_of(inputs), CODES)
    assert inputs.class_totals is not None
    assert inputs.class_totals.tolist() == np.bincount(CODES).tolist()
    assert inputs.statistics is store.statistics
    with pytest.raises(InvalidStore, match=r"has the classes \['z', 'a', 'm'\] and the model"):
        read_inputs(store, classifier=True, classes=("a", "m", "z"))


@pytest.mark.parametrize("order", [(-4, 7, 1000), (1000, -4, 7), (7, 1000, -4)])
@pytest.mark.parametrize("kind", KINDS)
def test_classes_that_are_known_keep_their_order(tmp_path, kind, order):
    y = labels_of("numbers")
    inputs = inputs_of(kind, tmp_path, y, classes=order)
    assert inputs.classes == order
    due = [order.index(label) for label in y]
    assert inputs.class_totals is not None
    assert inputs.class_totals.tolist() == np.bincount(due).tolist()
    if kind != "dask":
        assert y_of(inputs).tolist() == due


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_without_rows_is_known_all_the_same(tmp_path, kind):
    inputs = inputs_of(kind, tmp_path, labels_of("signs"), classes=(-1, 0, 1))
    assert inputs.classes == (-1, 0, 1)
    assert inputs.class_totals is not None
    assert inputs.class_totals[1] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_that_is_no_class_is_refused(tmp_path, kind):
    with pytest.raises(ValueError, match=r"label .*-4.* not one of the (model's )?classes"):
        inputs_of(kind, tmp_path, labels_of("numbers"), classes=(7, 1000, 5))


def test_numbers_in_y_where_the_model_knows_words(tmp_path):
    with pytest.raises(InvalidStore, match="numbers in y, and the model's classes are"):
        inputs_of("store", tmp_path, CODES, classes=("late", "early"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_y_that_is_continuous_is_no_label(tmp_path, kind):
    with pytest.raises(
        ValueError, match=r"y holds -?\d\.\d+, and labels .* train a regression: --model ridge"
    ):
        inputs_of(kind, tmp_path, RNG.normal(size=ROWS))


@pytest.mark.parametrize("kind", KINDS)
def test_one_class_is_too_few(tmp_path, kind):
    with pytest.raises(ValueError, match="one class only, 4: a classifier needs at least 2"):
        inputs_of(kind, tmp_path, np.full(ROWS, 4))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_label_that_is_not_finite_is_named_by_its_row(tmp_path, kind, value):
    y = CODES.astype(float)
    y[37] = value
    with pytest.raises(NonFiniteData, match=f"row 37 has {value} in y"):
        inputs_of(kind, tmp_path, y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (np.nan, NonFiniteData, "row 37 has nan in sample_weight"),
        (-0.5, ValueError, "row 37 has the weight -0.5; weights are >= 0"),
    ],
)
def test_a_weight_that_is_none_is_named_by_its_row(tmp_path, kind, value, error, said):
    weight = WEIGHT.copy()
    weight[37] = value
    with pytest.raises(error, match=said):
        # Of a store, weights are looked at only when they are asked for.
        assert inputs_of(kind, tmp_path, CODES, weight).total_weight


def test_of_a_store_of_ours_no_row_is_read_before_the_plan(tmp_path, monkeypatch):
    for name, weight in (("a", None), ("b", WEIGHT)):
        path = write_store(tmp_path / name, X, CODES, weight, classes=[0, 1, 2]).path
        expected = read_inputs(path, classifier=True)
        totals = np.bincount(CODES, weight)
        assert expected.class_totals is not None
        np.testing.assert_allclose(expected.class_totals, totals, rtol=1e-12)
        with monkeypatch.context() as patch:
            patch.setattr(ChunkReader, "read_rows", None)
            Task.of(LogisticModel(), inputs := read_inputs(path, classifier=True))
            assert inputs.total_weight == pytest.approx(totals.sum(), rel=1e-14)


@pytest.mark.parametrize("classifier", [True, False])
def test_labels_and_weights_that_do_not_fit_the_ceiling_are_not_read(
    tmp_path, monkeypatch, classifier
):
    rows = 4 * 2**20
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("X", shape=(rows, 3), dtype="f4", chunks=(1000, 3))
    group.create_array("y", shape=(rows,), dtype="f8", chunks=(rows,))
    group.create_array("sample_weight", shape=(rows,), dtype="f8", chunks=(rows,))
    store = open_store(tmp_path / "a.zarr")
    with monkeypatch.context() as patch:
        patch.setattr(ChunkReader, "read_rows", None)
        with pytest.raises(CeilingExceeded, match=r"(?s)labels .* manifest lacks") as error:
            read_inputs(store, classifier=classifier, memory_ceiling="96MiB")
    said = str(error.value).splitlines()[0]
    assert f"ooc-train rechunk {store.path}" in said
    # A chunk of each and its code, which lie there no more than what is told; the rest is planned
    # only after these are known, so that no ceiling that would do can be told.
    assert (
        128 < int(said.partition("raise the memory ceiling beyond ")[2].partition("MiB")[0]) < 170
    )


def test_a_negative_weight_of_a_dask_array(tmp_path):
    weight = WEIGHT - 0.5
    with pytest.raises(ValueError, match=r"^row 3 has the weight -0\.016"):
        inputs_of("dask", tmp_path, CODES, weight)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((X, None), "training needs y"),
        ((X, CODES[:-1]), "X has 60 rows and y has 59"),
        ((X, CODES, WEIGHT[1:]), "X has 60 rows and sample_weight has 59"),
        ((X, CODES, WEIGHT[:, None]), r"sample_weight has shape \(60, 1\)"),
        ((X[:, 0], CODES), r"X has shape \(60,\); give one row a sample"),
        (
            (X, np.stack([CODES, CODES], axis=1)),
            r"y has shape \(60, 2\): labels are one column; take one",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_reported_with_their_figures(arguments, said):
    with pytest.raises(ValueError, match=said):
        read_inputs(*arguments, classifier=True)


def test_a_store_brings_its_own_y(tmp_path):
    store = write_store(tmp_path / "a", X, CODES)
    inputs = read_inputs(store, classifier=True)
    np.testing.assert_array_equal(y_of(inputs), CODES)
    with pytest.raises(ValueError, match="these inputs have y and sample_weight already"):
        read_inputs(inputs, CODES, classifier=True)
    bare = write_store(tmp_path / "b", X)
    with pytest.raises(InvalidStore, match="has no y"):
        read_inputs(bare, classifier=False)
    wide = write_store(tmp_path / "c", X, np.stack([CODES, CODES], axis=1))
    with pytest.raises(
        InvalidStore, match=r"y of shape \(60, 2\): labels are one column; take .* y="
    ):
        read_inputs(wide, classifier=True)
    assert read_inputs(wide, classifier=False).source.n_outputs == 2


@pytest.mark.parametrize("kind", ["codes", "numbers", "text", "ours", "zarr v2"])
def test_a_y_of_one_column_holds_labels(tmp_path, kind):
    values = {"codes": CODES, "numbers": CODES * 5 - 4, "text": np.array(["c", "a", "b"])[CODES]}
    y = values.get(kind, CODES)[:, None]
    if kind == "ours":
        write_store(tmp_path / "a", X, y)
    else:
        group = zarr.open_group(
            tmp_path / "a", mode="w", zarr_format=2 if kind in ("zarr v2", "text") else 3
        )
        group.create_array("X", data=X, chunks=(7, 2))
        made = group.create_array(
            "y", shape=y.shape, dtype=y.dtype, chunks=(9, 1), config={"write_empty_chunks": True}
        )
        made[...] = y
    due = read_inputs(X, y, classifier=True)
    found = read_inputs(tmp_path / "a", classifier=True)
    assert found.classes == due.classes
    np.testing.assert_array_equal(y_of(found), y_of(due))
    if kind != "text":
        assert read_inputs(tmp_path / "a", classifier=False).source.n_outputs == 1
    else:
        assert rechunk_store(tmp_path / "a", tmp_path / "b")[0].classes == ("a", "b", "c")
        with pytest.raises(InvalidStore, match=r"name an array of numbers, .* train a classifier"):
            read_inputs(tmp_path / "a", classifier=False)


def test_statistics_count_only_with_the_weights_they_were_made_with(tmp_path):
    write_store(tmp_path / "a", X, CODES, WEIGHT)
    assert read_inputs(tmp_path / "a", classifier=True).statistics is not None
    unweighted = open_store(tmp_path / "a", sample_weight=None)
    inputs = read_inputs(unweighted, classifier=False)
    assert inputs.statistics is None
    assert inputs.total_weight == ROWS


@pytest.mark.parametrize(
    ("given", "kept"),
    [("f4", "f4"), ("f8", "f8"), ("f2", "f8"), (">f4", "f8"), (">f8", "f8"), ("i8", "f8")],
)
def test_rows_in_memory_become_what_kernels_take(given, kept):
    values = (X * 10).astype(given)
    for rows in (values, np.asfortranarray(values), np.repeat(values, 2, axis=1)[:, ::2]):
        source = read_inputs(rows, X[:, 0], classifier=False).source
        assert isinstance(source, ArraySource)
        assert source.X.dtype == kept
        assert source.X.flags.c_contiguous
        np.testing.assert_array_equal(source.X, values)
    assert np.shares_memory(values, read_inputs(values, X[:, 0], classifier=False).source.X) == (  # type: ignore[attr-defined]
        given in ("f4", "f8")
    )


def test_data_to_predict_for_need_no_y(tmp_path):
    store = write_store(tmp_path / "a", X, CODES)
    rows = read_features(store)
    assert isinstance(rows.source, StoreSource)
    assert rows.source.y is None
    assert (rows.name, rows.row_id) == (store.path, store.row_id)
    assert read_features(X).row_id is None
    assert read_features(dask.array.from_array(X, chunks=(25, 1))).source.n_partitions == 3


def test_dask_arrays_that_do_not_know_their_rows():
    rows = dask.array.from_array(X, chunks=(25, 2))
    unknown = rows[rows[:, 0] > 0]
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        read_inputs(unknown, CODES, classifier=True)


# ----------------------------------------------------------------------------- class weights


def test_balanced_weights_give_every_class_the_same_total():
    totals = np.array([10.0, 30.0, 60.0])
    weights = class_weights("balanced", (0, 1, 2), totals)
    assert weights is not None
    np.testing.assert_allclose(weights * totals, 100 / 3)
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    y = np.repeat([0, 1, 2], [10, 30, 60])
    due = sklearn.compute_class_weight("balanced", classes=np.arange(3), y=y)
    np.testing.assert_allclose(weights, due)


def test_balanced_weights_leave_out_a_class_without_rows():
    weights = class_weights("balanced", (0, 1, 2), np.array([10.0, 0.0, 30.0]))
    assert weights is not None
    np.testing.assert_allclose(weights, [2.0, 0.0, 2 / 3])


@pytest.mark.parametrize("setting", [{1: 5.0}, {1.0: 5}, {"1": 5.0}, {np.int64(1): np.float32(5)}])
def test_weights_go_to_the_label_they_name_and_others_weigh_one(setting):
    weights = class_weights(setting, (-1, 0, 1), np.ones(3))
    assert weights is not None
    assert weights.tolist() == [1.0, 1.0, 5.0]


def test_a_weight_for_a_label_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match=r"class_weight names '2', which is not one of \[-1, 1\]"):
        class_weights({2: 1.0, 1: 3.0}, (-1, 1), np.ones(2))
    assert class_weights(None, (-1, 1), np.ones(2)) is None


def test_a_dask_frame_is_distinguished_from_an_array():
    frame = dask.dataframe.from_pandas(pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}))
    with pytest.raises(TypeError, match=r"to_dask_array\(lengths=True\)"):
        read_inputs(frame, np.zeros(2), classifier=False)


def test_arrays_that_lie_askew_are_copied():
    def askew(array):
        room = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
        room[...] = array
        assert not room.flags.aligned
        return room

    X, y = np.arange(12.0).reshape(6, 2), np.arange(6.0)
    source: Any = read_inputs(askew(X), askew(y), askew(y + 1), classifier=False).source
    for array, due in ((source.X, X), (source.y[:, 0], y), (source.weight, y + 1)):
        assert array.flags.aligned
        np.testing.assert_array_equal(array, due)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "chunk_rows", "told"), [(4_000, 2, True), (4_000, 8, False)])
def test_many_small_chunks_are_told_with_the_way_out(tmp_path, rows, chunk_rows, told):
    write_store(tmp_path / "a.zarr", np.ones((rows, 1)), np.arange(rows) % 2, chunk_rows=chunk_rows)
    notes = read_inputs(tmp_path / "a.zarr", classifier=True).notes
    assert any("2,000 chunks of 16 B in X are slow to read" in note for note in notes) == told
    assert any(f"ooc-train rechunk {tmp_path / 'a.zarr'}" in note for note in notes) == told


@pytest.mark.parametrize(
    ("x_chunk", "y_chunk", "said"),
    [
        ((100, 2), 100, "2,100 chunks of 800 B in X are"),  # 30 x 70: columns are cut as well
        ((100, 140), 1, "3,000 chunks of 8 B in y are"),
        ((100, 140), 100, ""),
    ],
)
def test_small_chunks_of_other_writers_are_told(tmp_path, x_chunk, y_chunk, said):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("X", shape=(3000, 140), chunks=x_chunk, dtype="f4")
    group.create_array("labels", shape=3000, chunks=(y_chunk,), dtype="i8")
    store = open_store(tmp_path / "a.zarr", y="labels", fill_missing=True)
    note = small_chunks_note(store)
    assert note.startswith(said)
    assert note.endswith(" --y labels --fill-missing") == bool(said)


@pytest.mark.slow
def test_commands_tell_small_chunks_before_they_read_any(tmp_path):
    """Before what stops these commands, but for plan, which runs to its end."""
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("X", shape=(3000, 140), chunks=(100, 2), dtype="f4")
    group.create_array("y", data=np.arange(3000) % 2, chunks=(100,))
    run = tmp_path / "a.run"
    train(LogisticModel(), np.ones((6, 3)), Training(), y=np.arange(6) % 2, out=run)
    for call in (
        ("plan", tmp_path / "a.zarr", "--fill-missing", "--dashboard-address", "127.0.0.1:0"),
        ("tradeoff", tmp_path / "a.zarr", "--scheduler", "none"),
        ("evaluate", run, tmp_path / "a.zarr"),
        ("explain", run, tmp_path / "a.zarr"),
        ("predict", run, tmp_path / "a.zarr", tmp_path / "p.zarr"),
    ):
        result = CliRunner().invoke(cli.app, list(map(str, call)))
        assert "in X are slow to read" in result.stdout + result.stderr, call
