"""A store that is replaced while a job reads it: the job ends with one line, or with old rows."""

import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zarr
from distributed import Client

from ooc_train.errors import StoreChanged, StoreNotFound
from ooc_train.inference.predict import evaluate, predict, predict_store
from ooc_train.inference.raw_files import predict_files
from ooc_train.models.classification_models import LogisticModel
from ooc_train.runs.events import Stepped
from ooc_train.runtime import clients
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.solvers.training_settings import Training
from ooc_train.store.dataset import Store
from ooc_train.store.format.identity import MetadataStamp
from ooc_train.store.jobs.rechunk import rechunk_store
from ooc_train.store.jobs.shuffle import shuffle_store
from ooc_train.store.opening.opener import open_store
from ooc_train.store.reading.chunks import ChunkReader
from ooc_train.store.reading.shard_files import OpenShards
from ooc_train.store.reading.zarr_route import ZarrRoute
from ooc_train.store.writing.writer import StoreWriter
from ooc_train.training.loop import train
from tests.sealing import as_earlier_release

CHUNK, CHUNKS, MANY = 8, 24, 100
ROWS = CHUNK * CHUNKS
"""A file each: more than a reader keeps open here; of workers it takes many."""

LOGISTIC = LogisticModel()
REDUCED = Training(solver="lbfgs", max_iter=5, random_state=0)
SCANNED = Training(batch_size=4, max_iter=3, random_state=0)
MESSAGE = r"was replaced or removed while it was being read; run again$"


def ours(path, seed=0, chunk_rows=CHUNK, rows=ROWS, codec="none"):
    """A store of ours, in place of what lies there."""
    rng = np.random.default_rng(seed)
    X = rng.normal(seed, 1, (rows, 3)).astype("f4")
    with StoreWriter(
        path,
        n_features=3,
        classes=(0, 1),
        chunk_rows=chunk_rows,
        shard_rows=chunk_rows,
        codec=codec,
        overwrite=True,
    ) as writer:
        writer.write(X, rng.integers(0, 2, rows))
        return writer.commit()


def earlier(path, seed=0, rows=ROWS):
    """A store as an earlier release wrote it."""
    ours(f"{path}.new", seed, rows=rows)
    as_earlier_release(f"{path}.new")
    return moved(path)


def plain(path, seed=0, rows=ROWS, chunks=(CHUNK, 3), zarr_format=3):
    """A store of another program."""
    rng = np.random.default_rng(seed)
    group = zarr.create_group(f"{path}.new", zarr_format=zarr_format)
    X = rng.normal(seed, 1, (rows, 3)).astype("f4")
    group.create_array("X", data=X, chunks=chunks)
    group.create_array("y", data=rng.integers(1, 3, rows).astype("i4"), chunks=(CHUNK,))
    return moved(path)


def moved(path):
    shutil.rmtree(path, ignore_errors=True)
    Path(f"{path}.new").rename(path)
    return open_store(path)


KINDS: dict[str, Callable[..., Store]] = {
    "ours": ours,
    "of an earlier release": earlier,
    "of files": plain,
    "of zarr-python": partial(plain, zarr_format=2),
    "of columns": partial(plain, chunks=(CHUNK, 2)),
}

JOBS: dict[str, Callable[[Store, Path], object]] = {
    "reduce": lambda store, _: train(LOGISTIC, store, REDUCED),
    "scan": lambda store, _: train(LOGISTIC, store, SCANNED),
    "rechunk": rechunk_store,
    "shuffle": shuffle_store,
    "read": lambda store, _: store.read("X"),
    "labels": lambda store, _: store.distinct_labels(),
}


@pytest.fixture(autouse=True)
def few_files(monkeypatch):
    """Have readers keep few files open, so that few are enough to have them opened again."""
    monkeypatch.setattr("ooc_train.store.reading.shard_files.MAX_OPEN_SHARDS", 4)


@pytest.fixture
def inline(monkeypatch):
    monkeypatch.setattr(clients, "inside_another_job", lambda: True)


def replace_at(monkeypatch, reads, replacing):
    """Have `replacing` called once, in the midst of a job: before a file is opened or read."""
    count, lock = [0], threading.Lock()

    def before(real):
        def call(*arguments):
            with lock:
                count[0] += 1
                if count[0] == reads:
                    replacing()
            return real(*arguments)

        return call

    monkeypatch.setattr(OpenShards, "_open", before(OpenShards._open))
    monkeypatch.setattr(ZarrRoute, "_read", before(ZarrRoute._read))
    return count


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.usefixtures("inline")
def test_a_job_on_a_store_that_is_replaced_ends_with_one_line(tmp_path, monkeypatch, job, kind):
    path, out = tmp_path / "a", tmp_path / "out"
    store = KINDS[kind](path)
    count = replace_at(monkeypatch, 10, lambda: KINDS[kind](path, seed=1))
    with pytest.raises(StoreChanged, match=MESSAGE) as caught:
        JOBS[job](store, out)
    assert count[0] >= 10
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    # Who runs it again has the new store.
    JOBS[job](open_store(path), out)


@pytest.mark.slow
@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("kind", ["ours", "of files"])
def test_evaluating_and_predicting_on_a_store_that_is_replaced(tmp_path, monkeypatch, kind):
    path = tmp_path / "a"
    store = KINDS[kind](path)
    fitted, _ = train(LOGISTIC, store, REDUCED)
    jobs: dict[str, Callable[[Store], object]] = {
        "evaluate": lambda store: evaluate(fitted, store),
        "predict": lambda store: predict(fitted, store),
        "predict_store": lambda store: predict_store(fitted, store, tmp_path / "out"),
        "predict_files": lambda store: predict_files(fitted, store, tmp_path / "out.csv"),
    }
    for seed, (job_name, job) in enumerate(jobs.items()):
        with monkeypatch.context() as patch:
            replace_at(patch, 10, lambda seed=seed: KINDS[kind](path, seed + 1))
            with pytest.raises(StoreChanged, match=MESSAGE):
                job(store)
        assert not list(tmp_path.glob("out*"))
        store = open_store(path)
        job(store)
        for made in tmp_path.glob("out*"):
            made.rename(tmp_path / f"made by {job_name}")


REPLACED: dict[str, Callable[[Path], object]] = {
    "in other chunks": lambda path: ours(path, 1, chunk_rows=5),
    "packed": lambda path: ours(path, 1, codec="lz4"),
    "with fewer rows": lambda path: ours(path, 1, rows=40),
    "by one of an earlier release": lambda path: earlier(path, 1),
    "by one of another program": lambda path: plain(path, 1),
    "by nothing": shutil.rmtree,
    "by a file": lambda path: (path.rename(path.with_name("b")), path.write_text("mine")),
}


@pytest.mark.parametrize("kind", ["ours", "of files", "of zarr-python"])
@pytest.mark.parametrize("how", REPLACED)
def test_whatever_takes_the_place_of_a_store(tmp_path, monkeypatch, kind, how):
    store = KINDS[kind](tmp_path / "a")
    replace_at(monkeypatch, 10, lambda: REPLACED[how](tmp_path / "a"))
    with pytest.raises(StoreChanged, match=MESSAGE):
        store.read("X")


def test_chunks_of_a_replaced_store_are_no_fill_values(tmp_path, monkeypatch):
    plain(tmp_path / "a")
    store = open_store(tmp_path / "a", fill_missing=True)
    replace_at(monkeypatch, 10, lambda: ours(tmp_path / "a", 1, rows=40))
    with pytest.raises(StoreChanged, match=MESSAGE):
        store.read("X")


def test_files_that_are_open_stay_those_that_were_opened(tmp_path):
    store = ours(tmp_path / "a", rows=32)
    before = store.read("X")
    with ChunkReader(store.X) as reader:
        rows = np.empty_like(before)
        reader.read_rows(0, 32, rows)
        ours(tmp_path / "a", 1, rows=32)
        rows[...] = 0
        reader.read_rows(0, 32, rows)
    np.testing.assert_array_equal(rows, before)


def test_a_store_that_is_replaced_while_it_is_opened(tmp_path):
    """It is opened whole, the one or the other."""
    path, stop = tmp_path / "a", threading.Event()
    ours(path)
    made: list[str] = []

    def replacing():
        while not stop.is_set():
            made.append(ours(path, len(made), rows=16 + 8 * (len(made) % 3)).store_id)

    thread = threading.Thread(target=replacing)
    thread.start()
    opened: set[str] = set()
    try:
        while len(opened) < 10:
            # Between its two renames nothing lies there.
            with suppress(StoreNotFound):
                opened.add(open_store(path).store_id)
    finally:
        stop.set()
        thread.join()
    assert len(opened - set(made)) <= 1


def test_metadata_as_another_host_sees_them(tmp_path, monkeypatch):
    """There device and inode may be others: time and size are compared."""
    file = tmp_path / "zarr.json"
    file.write_text("{}")
    seen = MetadataStamp.of(str(tmp_path))
    assert seen is not None
    seen.require_same()
    file.rename(tmp_path / "old")
    shutil.copy2(tmp_path / "old", file)
    with pytest.raises(StoreChanged, match=MESSAGE):
        seen.require_same()
    monkeypatch.setattr("ooc_train.store.format.identity._host", lambda: "elsewhere")
    seen.require_same()
    file.write_text("{} ")
    with pytest.raises(StoreChanged, match=MESSAGE):
        seen.require_same()
    assert MetadataStamp.of(str(tmp_path / "nowhere")) is None


class ReplacedAfterAStep:
    """Replaces a store once, when the first step is made."""

    def __init__(self, replacing):
        self.replacing = replacing
        self.done = False

    def __call__(self, event):
        if isinstance(event, Stepped) and not self.done:
            self.done = True
            self.replacing()


@pytest.fixture(scope="module")
def two_workers():
    with (
        LocalCluster(n_workers=2, memory_ceiling="4GiB", dashboard_address="127.0.0.1:0") as made,
        Client(made, set_as_default=False) as client,
    ):
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ours", "of an earlier release", "of files", "of zarr-python"])
@pytest.mark.parametrize("training", [REDUCED, SCANNED], ids=["reduce", "scan"])
def test_training_on_a_cluster_while_the_store_is_replaced(tmp_path, two_workers, kind, training):
    path = tmp_path / "a"
    store = KINDS[kind](path, rows=MANY * CHUNK)
    callback = ReplacedAfterAStep(lambda: KINDS[kind](path, seed=1, rows=MANY * CHUNK))
    with pytest.raises(StoreChanged, match=MESSAGE):
        train(LOGISTIC, store, training, client=two_workers, callbacks=[callback])
    assert callback.done
    train(LOGISTIC, path, training, client=two_workers)
