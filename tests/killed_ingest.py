"""`ingest --test-size`, killed before each rename and each removal, and what is opened afterwards.

A script: ``python -m tests.killed_ingest FOLDER MODE [EVENT ...]``, with "fresh", "overwrite",
"overwrite one" (of no pair) or "without exchange" for the mode, and Python's audit events before
which an ingest is killed. Each ingest runs in a fork of this process.
"""

import os
import shutil
import signal
import sys
from collections import Counter

import numpy as np

from ooc_train.core import renames
from ooc_train.errors import StoreNotFound
from ooc_train.store.jobs.ingest import ingest
from ooc_train.store.jobs.train_test_split import path_for_testing
from ooc_train.store.opening.opener import open_store

ROWS = 60
RENAMES = {"os.rename", "ooc_train.rename"}
REMOVALS = {"os.remove", "os.rmdir", "shutil.rmtree"}


def made(table, out, seed, kill_at=0, events=frozenset(), *, test_size=0.25):
    """Ingest in a fork that is killed at an event; return whether it was, and fail if it failed."""
    pid = os.fork()
    if pid == 0:
        count, folder = 0, os.path.dirname(out)

        def hook(event, arguments):
            nonlocal count
            if event in events and folder in str(arguments[0]):
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            ingest(
                table,
                out,
                target="y",
                test_size=test_size,
                random_state=seed,
                chunk_rows=8,
                shard_rows=48,
                overwrite=True,
            )
        except BaseException as error:  # noqa: BLE001
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or os.WEXITSTATUS(status) == 0, status
    return killed


def opened(path):
    try:
        return open_store(path)
    except StoreNotFound:
        return None


def check(paths, before):
    """Hold both stores to one ingest, the one or the other, and return what they are."""
    stores = [opened(path) for path in paths]
    by_name = sorted((store for store in stores if store), key=lambda store: store.path)
    notes = [note for store in by_name for note in store.notes]
    assert not any("not of the same ingest" in note for note in notes), notes
    ids = [store.store_id for store in by_name]
    if ids == before:
        return "old" if before else "none"
    assert len(by_name) == 2, (paths, os.listdir(os.path.dirname(paths[0])))
    test, training = by_name
    assert test.pair is not None
    assert training.pair is not None
    assert test.pair.id == training.pair.id
    assert not set(ids) & set(before)
    rows = np.concatenate([test.read("row_id"), training.read("row_id")])
    assert sorted(rows) == list(range(ROWS))
    assert len(test.read("X")) == 15
    return "new, completed" if any("was killed" in note for note in notes) else "new"


def main():
    folder, mode, *which = sys.argv[1:]
    events = frozenset(which) or RENAMES | REMOVALS
    table, places = os.path.join(folder, "a.csv"), os.path.join(folder, "places")
    with open(table, "w", encoding="utf-8") as file:
        file.write("x,y\n" + "".join(f"{i / 7},{i % 2}\n" for i in range(ROWS)))
    out = os.path.join(places, "a.zarr")
    both = [out, path_for_testing(out)]
    if mode == "without exchange":
        renames._rename_with_flag = lambda *_: False
    os.mkdir(places)
    if mode != "fresh":
        made(table, out, 1, test_size=0.0 if mode == "overwrite one" else 0.25)
    template = os.path.join(folder, "template")
    shutil.copytree(places, template)
    found: Counter[str] = Counter()
    point = 0
    for turn, order in enumerate((both, both[::-1])):
        point, killed = 0, True
        while killed:
            point += 1
            shutil.rmtree(places)
            shutil.copytree(template, places)
            before = [s.store_id for s in map(opened, sorted(both)) if s is not None]
            killed = made(table, out, 2, point, events)
            found[check(order, before)] += 1
            # What was opened once stays so; and the same command leaves nothing beside.
            check(order[::-1], before)
            if point % 2 == turn:
                made(table, out, 3)
                assert sorted(os.listdir(places)) == ["a.test.zarr", "a.zarr"], os.listdir(places)
                assert check(both, []) == "new"
    assert point >= 3
    assert found["new, completed"] >= 2
    print(dict(found))


if __name__ == "__main__":
    main()
