"""A path that holds no Zarr: the error names its format and the way out, in one line."""

import zipfile
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import ZipStore

from ooc_train import LogisticRegression, StoreWriter, open_store
from ooc_train.errors import InvalidStore, StoreNotFound
from ooc_train.store.opening import other_formats

X = np.random.default_rng(0).standard_normal((20, 3))


def zipped(path):
    store = ZipStore(path, mode="w")
    zarr.create_group(store).create_array("X", data=X)
    store.close()


def zipped_table(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "a,b\n1,2\n")


FILES: dict[str, tuple[Any, str]] = {
    "zarr.zip": (zipped, "is a zip archive, and no Zarr: unpack it"),
    "table.zip": (zipped_table, "is a zip archive, and no Zarr: unpack it"),
    "a.npy": (lambda path: np.save(path, X), r"NumPy array.*numpy.load\(path, mmap_mode='r'\)"),
    "a.npz": (lambda path: np.savez(path, X=X), r"archive of NumPy arrays.*\['X'\]"),
    "a.csv": (b"a,b\n1,2\n", r"is a table.*`ooc-train ingest \S+a.csv \S+a.zarr --target COLUMN`"),
    "a.csv.gz": (b"\x1f\x8b", r"is a table.*`ooc-train ingest \S+a.csv.gz \S+/a.zarr --target"),
    "a.tsv": (b"a\tb\n1\t2\n", "is a table.*`ooc-train ingest"),
    "a b.parquet": (b"PAR1", r"is a table.*`ooc-train ingest '\S+a b.parquet' '\S+a b.zarr'"),
    "part-0": (b"PAR1\x00", r"a Parquet file of another name.* ends in \.parquet"),
    "a.feather": (b"ARROW1\x00\x00", r"is an Arrow file.*pandas\.read_feather"),
    "a.arrow": (b"", "is an Arrow file"),
    "a.h5": (b"\x89HDF\r\n\x1a\n", "is an HDF5 file.*h5py.*StoreWriter"),
    "a.dat": (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
    "a.h5ad": (b"\x89HDF\r\n\x1a\n", r"is an AnnData file.*read_h5ad\(path\)\.write_zarr"),
    "a.nc": (b"CDF\x01", r"is a NetCDF file.*xarray\.open_dataset\(path\)\.to_zarr"),
    "a.xlsx": (b"PK\x03\x04", "is a spreadsheet.*save it as CSV"),
    "a.jsonl": (b"{}", "is a JSON file"),
    "a.pkl": (b"\x80\x04", "is a pickle"),
    "a.mat": (b"MATLAB", "is a MATLAB file"),
    "a.sqlite": (b"SQLite", "is a database"),
    "a": (b"what is this", "is a file, and no Zarr: make a store of tables by `ooc-train ingest`"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_are_called_by_their_kind(tmp_path, name):
    content, message = FILES[name]
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        content(tmp_path / name)
    with pytest.raises(InvalidStore, match=message) as caught:
        LogisticRegression().fit(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1
    assert "No array found" not in str(caught.value)


def test_what_files_are_told_to_do_works(tmp_path):
    """An array that NumPy maps from its file trains; StoreWriter is there."""
    np.save(tmp_path / "a.npy", X)
    LogisticRegression().fit(np.load(tmp_path / "a.npy", mmap_mode="r"), X[:, 0] > 0)
    with StoreWriter(tmp_path / "a.zarr", n_features=3) as writer:
        writer.write(X.astype("f4"), X[:, 0])
        writer.commit()


def test_folders(tmp_path):
    def refused(message):
        with pytest.raises(InvalidStore, match=message):
            open_store(tmp_path)

    refused("is a folder that holds nothing, and no Zarr")
    (tmp_path / "notes").write_text("")
    refused("holds 1 entry of other kinds")
    for name, values in (("X", X), ("y", X[:, 0])):
        zarr.create_array(tmp_path / name, data=values)
    refused(r"without metadata of Zarr, around X, y; give the path of X.*y='\.\./y'")
    assert open_store(tmp_path / "X", y="../y").n_outputs == 1
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    refused("is a folder of tables.*`ooc-train ingest")
    (tmp_path / ".zgroup").write_text("{")
    refused(r"\.zgroup is not valid JSON .*restore it from a copy")


def test_a_file_inside_a_store(tmp_path):
    zarr.create_group(tmp_path / "a.zarr").create_array("X", data=X)
    with pytest.raises(InvalidStore, match=r"a file of the Zarr that \S+a.zarr is; give that"):
        open_store(tmp_path / "a.zarr/zarr.json")


@pytest.mark.parametrize(
    ("scheme", "command"),
    [
        ("s3", "pip install s3fs"),
        ("gs", "pip install gcsfs"),
        ("https", "pip install aiohttp requests"),
        ("abfs", "pip install adlfs"),
    ],
)
def test_urls_without_the_package_that_opens_them(monkeypatch, scheme, command):
    """Whether or not it is installed here."""

    def missing(*_, **__):
        raise ImportError("Install something")

    monkeypatch.setattr("zarr.open_group", missing)
    monkeypatch.setattr("zarr.open_array", missing)
    with pytest.raises(InvalidStore, match=f"can't be opened without .*: {command}$"):
        open_store(f"{scheme}://bucket/a.zarr")


def test_urls_of_no_known_kind():
    with pytest.raises(InvalidStore, match="fsspec knows no URLs that begin with nope://"):
        open_store("nope://bucket/a.zarr")
    with pytest.raises(StoreNotFound, match="there is no Zarr group or array at memory://nothing"):
        open_store("memory://nothing")
    assert other_formats.url_advice("other://a", ImportError("needs it")) == (
        "other://a can't be opened: needs it"
    )
    assert other_formats.url_advice("s3://a", ValueError("broken")) is None
