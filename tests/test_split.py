"""Shares of a store: the rows of a recorded rule, in every job the same as a copy of those rows."""

import json
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal
from typer.testing import CliRunner

from ooc_train import (
    Checkpoint,
    LeastSquares,
    LinearRegression,
    LocalCluster,
    LogisticModel,
    LogisticRegression,
    StoreAppender,
    StoreWriter,
    Training,
    batches,
    cli,
    evaluate,
    follow,
    make_data,
    open_store,
    predict_files,
    predict_store,
    rechunk_store,
    shuffle_store,
    split_store,
    train,
    verify_store,
)
from ooc_train.errors import InvalidRun, InvalidStore, OutputExists, StoreChanged
from ooc_train.store.jobs.rewriting_commands import shuffle_command
from ooc_train.store.jobs.store_records import arrays_of
from ooc_train.stream.hold_out import hold_out
from ooc_train.stream.inputs import read_inputs
from tests.streams import write_store

RNG = np.random.default_rng(0)
ROWS, FEATURES, CHUNK, SEED = 500, 3, 8, 7
CHUNKS = -(-ROWS // CHUNK)
X = RNG.normal(size=(ROWS, FEATURES)).astype("f4")
Y = (X[:, 0] + RNG.normal(size=ROWS) > 0).astype(np.uint8)
WEIGHT = RNG.uniform(0.5, 2, ROWS)
IDS = 1000 + np.arange(ROWS)


def written(path, rows, shuffled: int | None = 3):
    """A store of some rows, with all roles."""
    with StoreWriter(
        path, n_features=FEATURES, classes=["no", "yes"], chunk_rows=CHUNK, shard_rows=4 * CHUNK,
        sample_weight=True, row_id=True, feature_names=["a", "b", "c"], shuffled=shuffled,
    ) as writer:  # fmt: skip
        writer.write(X[rows], Y[rows], WEIGHT[rows], IDS[rows])
        return writer.commit()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store, its shares by name, and for each a store with a copy of its rows."""
    folder = tmp_path_factory.mktemp("made")
    whole = written(folder / "a.zarr", np.arange(ROWS))
    shares = split_store(whole, test=0.2, folds=3, random_state=SEED)
    copies = {}
    for name, share in shares.items():
        copy = written(folder / f"{name}.zarr", np.sort(share.read("row_id")) - IDS[0])
        # A share has no statistics and counts of its own.
        copies[name] = replace(copy, statistics=None, class_counts=None)
    return folder, shares, copies


def rows_of(places):
    """The rows of chunks at some places, by the rule that `split_store` documents."""
    order = np.random.default_rng(SEED).permutation(CHUNKS)
    chunks = np.concatenate([order[first:stop] for first, stop in places])
    return np.flatnonzero(np.isin(np.arange(ROWS) // CHUNK, chunks))


def test_the_rows_are_those_of_the_recorded_rule(made):
    folder, shares, _ = made
    drawn = round(0.2 * CHUNKS)
    assert list(shares) == ["train", "test"] + [
        f"fold{i}.{part}" for i in (1, 2, 3) for part in ("train", "test")
    ]
    for name, share in shares.items():
        values = json.loads((folder / "a.split" / f"{name}.share").read_text())
        rows = rows_of(values["places"])
        assert share.n_rows == len(rows)
        assert_array_equal(share.read("X"), X[rows])
        assert_array_equal(share.read("y"), Y[rows])
        assert_array_equal(share.read("sample_weight"), WEIGHT[rows])
        assert_array_equal(share.read("row_id"), IDS[rows])
        assert_array_equal(share.read("row_id", 5, 21), IDS[rows][5:21])
        assert (values["seed"], values["store"]) == (SEED, "../a.zarr")
    assert_array_equal(shares["test"].read("row_id"), IDS[rows_of([(0, drawn)])])
    # The last chunk is shorter than others, and somebody has it.
    assert ROWS % CHUNK
    with pytest.raises(IndexError):
        shares["test"].read("y", 0, shares["test"].n_rows + 1)


@pytest.mark.parametrize("test", [None, 0.001, 0.2, 0.999])
@pytest.mark.parametrize("folds", [None, 2, 5])
def test_no_row_is_in_both_and_none_is_left_out(made, tmp_path, test, folds):
    if test is None and folds is None:
        return
    store = made[0] / "a.zarr"
    shares = split_store(store, tmp_path / "s", test=test, folds=folds, random_state=1)
    ids = {name: share.read("row_id").tolist() for name, share in shares.items()}
    assert all(ids.values())
    rest = IDS.tolist()
    if test is not None:
        assert sorted(ids["train"] + ids["test"]) == rest
        rest = ids["train"]
    tests: list[int] = []
    for i in range(folds or 0):
        assert sorted(ids[f"fold{i + 1}.train"] + ids[f"fold{i + 1}.test"]) == rest
        tests += ids[f"fold{i + 1}.test"]
    assert sorted(tests) == (rest if folds else [])


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", ["full", 4])
@pytest.mark.parametrize("fraction", [None, 0.4])
@pytest.mark.parametrize("name", ["train", "fold2.train"])
def test_a_fit_is_that_of_a_copy_of_the_rows_to_the_last_bit(made, name, fraction, batch_size):
    training = Training(
        random_state=0, batch_size=batch_size, max_iter=2, validation_fraction=fraction
    )
    (found, report), (due, expected) = (
        train(
            LogisticModel(class_weight="balanced"),
            stores[name],
            training,
            validation=stores["test"] if fraction is None else None,
        )
        for stores in made[1:]
    )
    assert_array_equal(found.coef, due.coef)
    assert_array_equal(found.intercept, due.intercept)
    assert report.loss == expected.loss
    assert report.validation_loss == expected.validation_loss


def test_held_out_rows_of_a_share_are_rows_of_the_share(made):
    _, shares, _ = made
    inputs = read_inputs(shares["train"], classifier=True)
    parts = hold_out(inputs, 0.3, 0)
    runs = [run for part in parts for run in part.source.stored_runs()]  # type: ignore[attr-defined]
    found = np.concatenate([IDS[start:stop] for start, stop in runs])
    assert_array_equal(np.sort(found), shares["train"].read("row_id"))


@pytest.mark.slow
def test_metrics_predictions_and_batches_are_those_of_a_copy(made, tmp_path):
    _, shares, copies = made
    model, _ = train(LogisticModel(), copies["train"])
    share, copy = shares["test"], copies["test"]
    by = np.arange(share.n_rows) % 3
    found, due = (evaluate(model, data, by=by)[0] for data in (share, copy))
    assert found["n_rows"] == share.n_rows
    assert found["loss"] == due["loss"]
    assert str(found["by_group"]) == str(due["by_group"])
    for name, data in (("share", share), ("copy", copy)):
        predict_store(model, data, tmp_path / f"{name}.zarr", kinds=("probability",))
        predict_files(model, data, tmp_path / f"{name}.csv", kinds=("probability",))
    by_share, by_copy = (
        open_store(tmp_path / f"{name}.zarr", X="probability") for name in ("share", "copy")
    )
    assert_array_equal(by_share.read("X"), by_copy.read("X"))
    ids = [
        open_store(tmp_path / f"{name}.zarr", X="probability", y="row_id") for name in ("share",)
    ]
    assert_array_equal(ids[0].read("y"), share.read("row_id"))
    assert (tmp_path / "share.csv").read_text() == (tmp_path / "copy.csv").read_text()
    again = batches(share, 5, random_state=0)
    for (a, b, w), (c, d, v) in zip(again, batches(copy, 5, random_state=0), strict=True):
        assert_array_equal(a, c)
        assert_array_equal(b, d)
        assert_array_equal(w, v)
    estimator = LogisticRegression().fit(shares["train"])
    assert_array_equal(estimator.predict(share), estimator.predict(copy))
    assert estimator.score(share) == estimator.score(copy)


def test_predictions_for_a_store_without_ids_tell_rows_of_the_store(tmp_path):
    write_store(tmp_path / "a.zarr", X, Y.astype("f8"), shuffled=0)
    share = split_store(tmp_path / "a.zarr", folds=2)["fold1.test"]
    model = LinearRegression().fit(share)
    model.predict(share, out=tmp_path / "p.zarr")
    found = open_store(tmp_path / "p.zarr", X="prediction", y="row_id")
    due = model.predict(X)
    assert share.n_rows < ROWS
    assert_array_equal(found.read("X")[:, 0], due[found.read("y")])
    model.predict(share, out=tmp_path / "p.csv")
    table = np.loadtxt(tmp_path / "p.csv", delimiter=",", skiprows=1)
    assert_array_equal(table[:, 0], found.read("y"))


def test_a_summary_clusters_the_rows_of_a_share(made):
    _, shares, copies = made
    clusters = np.arange(shares["train"].n_rows) // 5
    found, due = (
        LogisticRegression(C=np.inf)
        .fit(data)
        .summary(data, errors="cluster", groups=clusters, weights="frequency")
        for data in (shares["train"], copies["train"])
    )
    assert_array_equal(found.std_err, due.std_err)


def test_what_reads_whole_stores_refuses_a_share_with_the_store_to_name(made, tmp_path):
    folder, shares, _ = made
    share, out = shares["test"], tmp_path / "out"
    path = folder / "a.split" / "test.share"
    jobs = {
        "verify": lambda: verify_store(share),
        "rechunk": lambda: rechunk_store(path, out),
        "shuffle": lambda: shuffle_store(path, out),
        "split": lambda: split_store(share, out, test=0.5),
        "append": lambda: StoreAppender(path),
        "following": lambda: follow(LogisticModel(), path, out=out),
        "y that is passed apart": lambda: read_inputs(
            share, np.zeros(share.n_rows), classifier=True
        ),
        "sample_weight that is passed apart": lambda: read_inputs(
            folder / "a.zarr", None, share, classifier=True
        ),
    }
    for job, call in jobs.items():
        with pytest.raises(InvalidStore, match=f"and {job} is for whole .*give it .*a.zarr$"):
            call()
    assert not out.exists()


def test_a_share_of_a_store_that_was_replaced_is_refused(made, tmp_path):
    shutil.copytree(made[0] / "a.zarr", tmp_path / "a.zarr")
    shutil.copytree(made[0] / "a.split", tmp_path / "a.split")
    path = tmp_path / "a.split" / "test.share"
    assert open_store(path).n_rows == made[1]["test"].n_rows  # both were moved
    shutil.rmtree(tmp_path / "a.zarr")
    written(tmp_path / "a.zarr", np.arange(ROWS))
    with pytest.raises(StoreChanged, match="replaced since; split it again: ooc-train split "):
        open_store(path)


@pytest.mark.slow
def test_rows_that_are_appended_belong_to_no_share(made, tmp_path):
    path = tmp_path / "a.zarr"
    written(path, np.arange(ROWS))
    shares = split_store(path, folds=2, random_state=SEED)
    before = {name: share.read("row_id") for name, share in shares.items()}
    due, _ = train(LogisticModel(), shares["fold1.train"], Training(random_state=0, batch_size=4))
    with StoreAppender(path) as appender:
        appender.write(X, Y, WEIGHT, IDS + ROWS)
        grown = appender.commit()
    assert grown.n_rows == 2 * ROWS
    for name, ids in before.items():
        share = open_store(tmp_path / "a.split" / f"{name}.share")
        assert_array_equal(share.read("row_id"), ids)
        assert share.shuffled == 3  # the store's rows are in random order no more
    found, _ = train(LogisticModel(), share_of(tmp_path), Training(random_state=0, batch_size=4))
    assert_array_equal(found.coef, due.coef)


def share_of(folder):
    return folder / "a.split" / "fold1.train.share"


def test_rows_in_no_random_order_are_split_only_if_asked_for(tmp_path):
    path = tmp_path / "a.zarr"
    written(path, np.arange(ROWS), shuffled=None)
    with pytest.raises(ValueError, match=r"draw .*by_chunks=True; .*ooc-train shuffle "):
        split_store(path, test=0.2)
    assert split_store(path, test=0.2, by_chunks=True)["test"].shuffled is None


@pytest.fixture
def labelled(tmp_path):
    """A store of ours, and beside it y and weights of another writer under names of their own."""
    written(tmp_path / "a.zarr", np.arange(ROWS))
    other = zarr.open_group(tmp_path / "labels" / "other.zarr", mode="w")
    other.create_array("target", data=(X @ [1, 2, 3]).astype("f8"), chunks=(100,))
    # zarr-python writes no chunk of zeros, which are the first 100 weights.
    other.create_array("w", data=np.arange(ROWS) // 100 * 1.0, chunks=(100,))
    return tmp_path


NAMES = ("--y", "../labels/other.zarr/target", "--weight", "../labels/other.zarr/w")


def test_a_share_knows_the_arrays_that_it_was_split_with(labelled):
    path = labelled / "a.zarr"
    result = here("split", path, "--test", 0.2, *NAMES, "--fill-missing")
    assert result.exit_code == 0, result.stderr
    test, rows = (labelled / "a.split" / f"{name}.share" for name in ("test", "train"))
    share = open_store(test)
    at = share.read("row_id") - IDS[0]
    assert_array_equal(share.read("y"), (X @ [1, 2, 3]).astype("f8")[at])
    assert_array_equal(share.read("sample_weight"), at // 100)
    assert share.classes is None
    fitted, report = train(LeastSquares(), open_store(rows), validation=share)
    assert_allclose(fitted.coef.ravel(), [1, 2, 3], rtol=1e-5)
    assert report.validation_loss == pytest.approx(0, abs=1e-8)
    run = labelled / "a.run"
    train(LeastSquares(), rows, out=run)
    assert "y = " not in (run / "config.toml").read_text()
    # What is named on purpose comes first; what a share does not know is as before.
    assert open_store(test, y="./y", sample_weight=None).classes == ("no", "yes")
    assert open_store(test, sample_weight=None).sample_weight is None
    assert json.loads(test.read_text())["format_version"] == 3
    # The names are relative to the store: all of it may move.
    shutil.move(labelled, labelled.with_name(f"{labelled.name}.moved"))
    moved = labelled.with_name(f"{labelled.name}.moved") / "a.split" / "test.share"
    assert_array_equal(open_store(moved).read("y"), (X @ [1, 2, 3]).astype("f8")[at])


def test_shares_without_weights_or_names_of_their_own(made, labelled):
    source = open_store(labelled / "a.zarr", sample_weight=None)
    shares = split_store(source, labelled / "s", test=0.2)
    assert {share.sample_weight for share in shares.values()} == {None}
    plain = split_store(labelled / "a.zarr", labelled / "t", test=0.2)["test"]
    # Shares of the store's own arrays are those that earlier releases read.
    values = json.loads((labelled / "t" / "test.share").read_text())
    assert (values["format_version"], "arrays" in values) == (1, False)
    assert plain.opened == open_store(labelled / "a.zarr").opened


def test_a_store_with_other_names_is_split_by_what_messages_say(tmp_path):
    other = zarr.open_group(tmp_path / "huge.zarr", mode="w")
    other.create_array("data", data=X, chunks=(100, FEATURES))
    other.create_array("labels", data=Y, chunks=(100,))
    path = tmp_path / "huge.zarr"
    result = here("split", path, "--test", 0.2)
    assert "as --x NAME" in result.stderr
    result = here("split", path, "--test", 0.2, "--x", "data", "--y", "labels")
    command = shlex.split(result.stderr.rpartition("ooc-train ")[2])
    assert command[0] == "shuffle"
    assert here(*command).exit_code == 0
    assert here("split", command[2], "--test", 0.2).exit_code == 0
    # Commands that add rows take stores of ours alone, and advise no option that they lack.
    for call in (("append", path, path), ("follow", path)):
        result = here(*call)
        assert result.exit_code == 1
        assert "written by another program" in result.stderr
        assert "X=" not in result.stderr


def test_commands_that_messages_suggest_name_a_group_that_stands_for_labels(tmp_path):
    other = zarr.open_group(tmp_path / "a.zarr", mode="w")
    other.create_array("X", data=X)
    labels = other.create_group("obs/kind", attributes={"encoding-type": "categorical"})
    labels.create_array("codes", data=Y.astype("i1") + 0)
    labels.create_array("categories", data=np.array([10, 20]))
    store = open_store(tmp_path / "a.zarr", y="obs/kind", fill_missing=True)
    assert "--y obs/kind " in shuffle_command(store.path, arrays_of(store)) + " "


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "nothing to split into"),
        ({"test": 1.0}, "test=1 leaves no row to learn from"),
        ({"test": 0}, "test=0 is not None or a number above 0"),
        ({"folds": 1}, "folds=1 is not"),
        ({"folds": CHUNKS + 1}, f"has {CHUNKS} chunks of 8 rows, and {CHUNKS + 1} are needed"),
        (
            {"test": 0.1, "folds": CHUNKS},
            "ooc-train rechunk .*a.zarr .*a.rechunked.zarr --chunk-rows 1$",
        ),
        ({"test": 0.1, "random_state": -1}, "random_state=-1"),
    ],
)
def test_a_split_that_cannot_be_is_refused(made, tmp_path, given, said):
    with pytest.raises(ValueError, match=said):
        split_store(made[0] / "a.zarr", tmp_path / "s", **given)
    assert not (tmp_path / "s").exists()


def test_no_share_keeps_the_password_of_a_url(made, tmp_path):
    whole = open_store(made[0] / "a.zarr")
    for secret in ("s3://key:secret@host/a.zarr", "https://host/a.zarr?token=secret"):
        with pytest.raises(ValueError, match="holds a password or a token") as refused:
            split_store(replace(whole, path=secret), tmp_path / "s", test=0.2)
        assert "secret" not in str(refused.value)
    assert not (tmp_path / "s").exists()


def test_a_split_replaces_no_other_unless_asked_for(made, tmp_path):
    store, out = made[0] / "a.zarr", tmp_path / "s"
    first = split_store(store, out, folds=2)
    with pytest.raises(OutputExists):
        split_store(store, out, folds=3)
    again = split_store(store, out, folds=3, overwrite=True)
    assert len(again) > len(first)
    assert len(list(out.iterdir())) == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"places": []}, "places"),
        ({"places": [[3, 3]]}, "places has no chunk"),
        ({"places": [[5, 9], [0, 2]]}, "ascending"),
        ({"places": [[0, 64]]}, "chunks that the store does not have"),
        ({"format": "other"}, "format is 'other'"),
        ({"seed": -1}, "seed is -1"),
        ({"format_version": 2, "arrays": {"y": None}}, "arrays.y is None, which is no text"),
        ({"format_version": 2, "arrays": {"y": "none"}}, "has no array 'none'"),
        ({"chunk_rows": 4}, "is a share of chunks of 4 rows, and .*X is read by 8"),
        ({"store": "../none.zarr"}, "there is nothing at .*none.zarr"),
    ],
)
def test_a_damaged_share_is_refused(made, tmp_path, change, said):
    shutil.copytree(made[0] / "a.split", tmp_path / "a.split")
    path = tmp_path / "a.split" / "test.share"
    values = json.loads(path.read_text()) | {"store": str(made[0] / "a.zarr")} | change
    path.write_text(json.dumps(values))
    with pytest.raises((InvalidStore, FileNotFoundError), match=said):
        open_store(path)


def test_states_and_checkpoints_of_another_share_are_refused(tmp_path):
    written(tmp_path / "a.zarr", np.arange(50 * CHUNK))
    shares = split_store(tmp_path / "a.zarr", folds=2)
    first, second = shares["fold1.train"], shares["fold2.train"]
    assert first.n_rows == second.n_rows
    state = batches(first, 5, random_state=0).state_dict()
    batches(first, 5).load_state_dict(state)
    with pytest.raises(ValueError, match="share="):
        batches(second, 5).load_state_dict(state)
    place = tmp_path / "a.checkpoint"
    training = Training(batch_size=4, max_iter=1, random_state=0)
    train(LogisticModel(), first, training, checkpoint=Checkpoint(place))
    with pytest.raises(InvalidRun, match="of the data"):
        train(LogisticModel(), second, training, checkpoint=Checkpoint(place, resume=True))


def test_a_share_shows_itself(made):
    share = made[1]["test"]
    about = f"test of {made[0] / 'a.zarr'}: 13 of 63 chunks, by seed {SEED}"
    assert f"{share.n_rows} x 3 float32" in repr(share)
    assert about in repr(share)
    assert about in share._repr_html_()
    _, report = train(LogisticModel(), share)
    assert report.origin["data"].startswith(f"test of a.zarr: {share.n_rows} x 3 float32, id ")


def here(*arguments):
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_split_and_info_of_the_command_line(tmp_path):
    make_data(tmp_path / "a.zarr", rows=60_000, features=20)
    result = here("split", tmp_path / "a.zarr", "--test", "0.2", "--folds", "2", "--seed", "3")
    assert result.exit_code == 0, result.stderr
    assert "6 shares" in result.stdout
    path = tmp_path / "a.split" / "fold1.train.share"
    assert str(path.name) in result.stdout
    result = here("info", path)
    assert "fold1.train of " in result.stdout
    assert "by seed 3" in result.stdout
    result = here("split", tmp_path / "a.zarr", "--folds", 2, "--json", "--overwrite")
    assert json.loads(result.stdout)["shares"]["fold1.test"]["n_rows"] == 29_952
    result = here("append", path, path)
    assert result.exit_code == 1
    assert f"append is for whole stores; give it {tmp_path / 'a.zarr'}" in result.stderr


@pytest.mark.slow
def test_every_command_takes_a_share(tmp_path):
    make_data(tmp_path / "a.zarr", rows=60_000, features=20)
    split_store(tmp_path / "a.zarr", test=0.2, random_state=0)
    rows, test = (tmp_path / "a.split" / f"{name}.share" for name in ("train", "test"))
    run, out = tmp_path / "a.run", tmp_path / "b.run"
    calls = [
        ("plan", rows),
        ("train", rows, "--validation", test, "--out", run, "--C", "inf"),
        ("train", "--config", run / "config.toml", "--out", out),
        ("evaluate", run, test),
        ("predict", run, test, tmp_path / "p.zarr"),
        ("explain", run, test),
        ("summary", run, rows),
        ("tradeoff", rows, "--validation", test, "--batch-sizes", "full,500"),
        ("calibrate", run, test, "--out", tmp_path / "c.run"),
    ]
    with LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0") as cluster:
        for call in calls:
            result = here(*call, "--scheduler", cluster.scheduler_address, "--quiet")
            assert result.exit_code == 0, (call, result.stderr)
    assert (out / "config.toml").read_text() == (run / "config.toml").read_text()
