"""Rows that are kept out of training: which ones, and that training never sees them."""

from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from ooc_train import StoreWriter, cli, split_store
from ooc_train.errors import CeilingExceeded, NonFiniteData
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.regression_models import RidgeModel
from ooc_train.solvers.training_settings import Training
from ooc_train.store.opening.opener import open_store
from ooc_train.stream.hold_out import hold_out
from ooc_train.stream.inputs import read_inputs
from ooc_train.training.loop import train
from tests.streams import stream, write_store

ROWS, FEATURES, CHUNK = 495, 4, 50
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, FEATURES)) * [1.0, 1e-6, 1e9, 3.0]
Y = (X[:, 0] + X[:, 3] + RNG.logistic(size=ROWS) > 2.0).astype(int)
WEIGHT = RNG.uniform(0.5, 2.0, ROWS)
KINDS = ["store", "arrays", "dask"]
FULL = Training(random_state=0, max_iter=2, tol=0.0)
BATCHES = replace(FULL, batch_size=16)


def inputs_of(
    kind: str, path: Any, x: Any = X, y: Any = Y, weight: Any = None, *, classifier: bool = True
) -> Any:
    """The same rows in one of the forms, cut into chunks of 50."""
    if kind == "store" and not np.isfinite(x).all():  # a writer of ours refuses these
        group = zarr.open_group(path, mode="w")
        group.create_array("X", data=x, chunks=(CHUNK, FEATURES))
        group.create_array("y", data=y, chunks=(CHUNK,))
        return read_inputs(open_store(path, fill_missing=False), classifier=classifier)
    if kind == "store":
        write_store(path, x, y, weight, chunk_rows=CHUNK, shard_chunks=3)
        return read_inputs(str(path), classifier=classifier)
    if kind == "dask":
        x, y = da.from_array(x, (CHUNK, -1)), da.from_array(y, CHUNK)
        weight = None if weight is None else da.from_array(weight, CHUNK)
    return read_inputs(x, y, weight, classifier=classifier)


class Numbers:
    """Returns the row numbers that a map pass meets."""

    def workspace(self, _):
        return {}

    def run(self, blocks, _):
        return [block.row_number(row) for block in blocks for row in range(block.n_rows)]


def numbers_of(inputs):
    """The numbers, within all rows, of the rows of an input."""
    source = inputs.source
    runs = [(0, source.n_rows // 2), (source.n_rows // 2, source.n_rows)]
    found = [row for rows in stream(source).map(Numbers(), runs) for row in rows]
    assert len(found) == source.n_rows
    return np.array(found)


@pytest.mark.parametrize("kind", ["store", "dask"])
@pytest.mark.parametrize("seed", [0, 3])  # the second keeps the last chunk, of 45 rows
def test_whole_chunks_are_kept_out(kind, seed, tmp_path):
    parts: Any = hold_out(inputs_of(kind, tmp_path / "a", weight=WEIGHT), 0.2, seed)
    training, kept = (numbers_of(part) for part in parts)
    assert sorted([*training, *kept]) == list(range(ROWS))
    chunks = set(kept // CHUNK)
    assert len(chunks) == 2
    assert chunks.isdisjoint(training // CHUNK)
    for part, rows in zip(parts, (training, kept), strict=True):
        assert part.total_weight == pytest.approx(WEIGHT[rows].sum(), rel=1e-12)
        np.testing.assert_allclose(
            part.class_totals, np.bincount(Y[rows], WEIGHT[rows]), rtol=1e-12
        )
        assert (part.statistics, part.share_seed) == (None, seed)
    notes = parts[0].notes[-2:] if kind == "store" else parts[0].notes[-1:]
    assert notes[0].startswith(f"{len(kept)} of 495 rows are kept out")
    assert all("a are not known to be in random order" in note for note in notes[1:])
    others = hold_out(inputs_of(kind, tmp_path / "b", weight=WEIGHT), 0.2, seed + 1)[1]
    assert set(numbers_of(others) // CHUNK) != chunks


@pytest.mark.slow
@pytest.mark.parametrize("shuffled", [None, 3])
@pytest.mark.parametrize("part", ["whole", "share"])
def test_validation_and_split_tell_the_same_of_rows_in_no_random_order(tmp_path, shuffled, part):
    path = tmp_path / "a.zarr"
    with StoreWriter(
        path, n_features=FEATURES, classes=["no", "yes"], chunk_rows=CHUNK, shard_rows=CHUNK,
        shuffled=shuffled,
    ) as writer:  # fmt: skip
        writer.write(X, Y)
        writer.commit()
    split = CliRunner().invoke(cli.app, ["split", str(path), "--test", "0.2", "--by-chunks"])
    data = path if part == "whole" else tmp_path / "a.split" / "train.share"
    how = ["--validation-fraction", "0.2", "--model", "logistic", "--max-iter", "1", "--quiet"]
    how += ["--dashboard-address", "127.0.0.1:0"]
    told = CliRunner().invoke(cli.app, ["train", str(data), *how])
    assert (split.exit_code, told.exit_code) == (0, 0), split.output + told.output
    why = (
        f"note: the rows of {path} are not known to be in random order, so whole chunks "
        f"are no random sample; ooc-train shuffle {path} {tmp_path / 'a.shuffled.zarr'}\n"
    )
    assert split.output.count(why) == told.output.count(why) == (shuffled is None)
    if shuffled is None and part == "whole":
        with pytest.raises(ValueError, match="are not known to be in random order") as refused:
            split_store(path, tmp_path / "b.split", test=0.2)
        reason, command = why.removeprefix("note: ").rstrip().split("; ")
        assert str(refused.value).startswith(f"{reason}; if you know that they are")
        assert str(refused.value).endswith(f"or copy the rows in random order: {command}")


def test_rows_of_arrays_are_kept_out_by_class():
    x = np.arange(995.0)[:, None]
    y = np.repeat([0, 1, 2], [900, 90, 5])
    inputs: Any = read_inputs(x, y, classifier=True)
    parts: Any = hold_out(inputs, 0.2, 0)
    training, kept = parts
    assert kept.class_totals.tolist() == [180, 18, 1]
    assert training.class_totals.tolist() == [720, 72, 4]
    rows = kept.source.X[:, 0].astype(int)
    assert sorted([*rows, *training.source.X[:, 0].astype(int)]) == list(range(995))
    np.testing.assert_array_equal(kept.source.y[:, 0], y[rows])
    others: Any = hold_out(inputs, 0.2, 1)[1]
    assert not np.array_equal(kept.source.X, others.source.X)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "training"),
    [("store", FULL), ("store", BATCHES), ("arrays", BATCHES), ("dask", FULL)],
    ids=["store, full batch", "store, batches", "arrays, batches", "dask, full batch"],
)
def test_a_fit_is_that_of_the_training_rows_alone(kind, training, tmp_path):
    """Sums, order, weights and scaling do not see the others: the bits are the same."""
    inputs = inputs_of(kind, tmp_path / "all", weight=WEIGHT)
    model = LogisticModel(class_weight="balanced")
    apart: Any = hold_out(inputs, 0.2, 0)[0]
    rows = numbers_of(apart) if kind != "arrays" else None
    if rows is None:
        source = apart.source
        alone = read_inputs(source.X, source.y[:, 0].astype(int), source.weight, classifier=True)
    else:
        alone = inputs_of(kind, tmp_path / "some", X[rows], Y[rows], WEIGHT[rows])
    fitted, report = train(model, inputs, replace(training, validation_fraction=0.2))
    expected, plain = train(model, replace(alone, statistics=None), training)
    np.testing.assert_array_equal(fitted.coef, expected.coef)
    np.testing.assert_array_equal(fitted.intercept, expected.intercept)
    assert report.loss_history == plain.loss_history
    assert report.n_rows == plain.n_rows < ROWS
    assert report.validation_loss is not None
    assert report.random_state == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "training"),
    [("store", FULL), ("store", BATCHES), ("dask", FULL)],
    ids=["store, full batch", "store, batches", "dask, full batch"],
)
def test_training_never_reads_the_chunks_that_are_kept_out(kind, training, tmp_path):
    clean, kept = hold_out(inputs_of(kind, tmp_path / "a"), 0.2, 0)
    numbers = numbers_of(kept)
    poisoned = X.copy()
    poisoned[numbers] = np.nan
    rows, others = hold_out(inputs_of(kind, tmp_path / "poisoned", poisoned), 0.2, 0)
    fitted, _ = train(LogisticModel(), rows, training)
    expected, _ = train(LogisticModel(), clean, training)
    np.testing.assert_array_equal(fitted.coef, expected.coef)
    starts = "|".join(map(str, numbers[numbers % CHUNK == 0]))
    with pytest.raises(NonFiniteData, match=rf"row ({starts}) has nan"):
        train(LogisticModel(), rows, training, validation=others)


@pytest.mark.slow
def test_a_bad_row_is_named_by_its_number_among_all_rows(tmp_path):
    training_rows = numbers_of(hold_out(inputs_of("store", tmp_path / "a"), 0.2, 0)[0])
    bad = int(training_rows[-3])
    for kind in ("store", "dask"):
        for value, said in ((np.nan, f"row {bad} has nan"), (1e200, f"row {bad} has 1e\\+200")):
            x = X.copy()
            x[bad, 1] = value
            training = replace(FULL, validation_fraction=0.2)
            with pytest.raises(NonFiniteData, match=said):
                train(LogisticModel(), inputs_of(kind, tmp_path / f"{kind}{value}", x), training)


@pytest.mark.parametrize("kind", KINDS)
def test_regressions_of_several_outputs(kind, tmp_path):
    y = np.stack([X[:, 0], X[:, 3] + 1.0], 1)
    inputs = inputs_of(kind, tmp_path / "a", X[:, [0, 3]], y, classifier=False)
    fitted, report = train(RidgeModel(alpha=0.0), inputs, Training(validation_fraction=0.3))
    np.testing.assert_allclose(fitted.coef, np.eye(2), atol=1e-9)
    assert report.validation_loss == pytest.approx(0.0, abs=1e-12)
    again = replace(Training(validation_fraction=0.3), random_state=report.random_state)
    assert train(RidgeModel(alpha=0.0), inputs, again)[1].n_rows == report.n_rows


def test_what_cannot_be_kept_out_is_refused(tmp_path):
    one_chunk = inputs_of("store", tmp_path / "one", X[:CHUNK], Y[:CHUNK])
    with pytest.raises(
        ValueError, match="all 50 rows are in one; make smaller chunks by ooc-train"
    ):
        hold_out(one_chunk, 0.1, 0)
    with pytest.raises(ValueError, match="there is one row only"):
        hold_out(read_inputs(X[:1], X[:1, 0], classifier=False), 0.5, 0)
    in_order = inputs_of("store", tmp_path / "sorted", X[: 2 * CHUNK], np.repeat([0, 1], CHUNK))
    with pytest.raises(ValueError, match=r"all rows of the class . out of training"):
        hold_out(in_order, 0.5, 0)
    one_weighs = np.where(np.arange(ROWS) == 7, 1.0, 0.0)
    weightless = inputs_of("arrays", None, weight=one_weighs, classifier=False)
    with pytest.raises(ValueError, match=r"weights of all (validation )?rows add up to 0"):
        train(RidgeModel(), weightless, replace(FULL, validation_fraction=0.2))
    with pytest.raises(CeilingExceeded, match="keeping rows out of arrays in memory"):
        hold_out(read_inputs(X, Y, classifier=True), 0.2, 0, memory_ceiling=2**14)
    with pytest.raises(ValueError, match="validation rows were passed too"):
        train(LogisticModel(), X, replace(FULL, validation_fraction=0.2), y=Y, validation=one_chunk)
