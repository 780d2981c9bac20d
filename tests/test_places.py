"""Output goes to local places: a URL is refused wherever output is named, and nothing is made."""

from pathlib import Path

import numpy as np
import pytest

from ooc_train.core.atomic import FILE, require_output
from ooc_train.core.places import local_path
from ooc_train.estimators import Ridge
from ooc_train.models.fitted import Fitted
from ooc_train.models.model import Model
from ooc_train.predict import predict_store
from ooc_train.store.made import make_data
from ooc_train.tables.output import TableWriter
from ooc_train.train import train
from ooc_train.watching.recorders import JsonLines

X, Y = np.arange(12.0).reshape(6, 2), np.arange(6.0)
FITTED = Fitted(Model(name="ridge"), np.ones((1, 2)), np.zeros(1))
URL = "s3://bucket/a"


@pytest.mark.parametrize("url", [URL, Path("gs://bucket/a"), "file:///tmp/a", "memory://a/b"])
def test_a_url_is_no_local_path(url):
    with pytest.raises(ValueError, match=r"is a URL, and output is written to local files"):
        local_path(url)


def test_a_local_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a/b", "./s3:/b", "a:b", Path("c")):
        assert local_path(path) == str(tmp_path / path)


@pytest.mark.parametrize(
    "write",
    [
        lambda: FITTED.save(URL),
        lambda: Ridge().fit(X, Y).save(URL),
        lambda: train(Model(name="ridge"), "nothing.zarr", out=URL),
        lambda: predict_store(FITTED, X, URL),
        lambda: make_data(URL, rows=10),
        lambda: TableWriter(f"{URL}.csv"),
        lambda: JsonLines(URL),
        lambda: require_output(URL, FILE, overwrite=True),
    ],
)
def test_no_output_is_written_to_a_url(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is a URL"):
        write()
    assert list(tmp_path.iterdir()) == []
