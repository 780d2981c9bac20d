"""Advice for paths that hold no Zarr: what lies there, and what to do with it."""

import os
import shlex

from ooc_train.core.files import read_start
from ooc_train.core.text import counted
from ooc_train.tables.names import format_of

_METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")

_MAGIC = (
    (b"PK\x03\x04", ".zip"),
    (b"\x89HDF\r\n\x1a\n", ".h5"),
    (b"CDF", ".nc"),
    (b"\x93NUMPY", ".npy"),
    (b"PAR1", ".parquet"),
    (b"ARROW1", ".feather"),
    (b"FEA1", ".feather"),
)
"""First bytes of file formats, and the usual suffix of each format."""

_IN_PIECES = "and write them to a store, in pieces of rows, by ooc_train.StoreWriter"
_KINDS = {
    ".zip": ("a zip archive", "unpack it, and give the Zarr folder or the tables that are in it"),
    ".h5": ("an HDF5 file", f"read its arrays by h5py {_IN_PIECES}"),
    ".h5ad": (
        "an AnnData file (HDF5)",
        "write it as Zarr: anndata.read_h5ad(path).write_zarr(folder), with a dense X",
    ),
    ".nc": ("a NetCDF file", "write it as Zarr: xarray.open_dataset(path).to_zarr(folder)"),
    ".parquet": (
        "a Parquet file of another name",
        "give it a name that ends in .parquet, and ingest it by `ooc-train ingest`",
    ),
    ".npy": ("a NumPy array", "give fit the array: numpy.load(path, mmap_mode='r')"),
    ".npz": ("an archive of NumPy arrays", "give fit its arrays: numpy.load(path)['X'] and ['y']"),
    ".feather": (
        "an Arrow file",
        "write it as Parquet, by pandas.read_feather(path).to_parquet(...), and ingest that",
    ),
    ".xlsx": ("a spreadsheet", "save it as CSV, and ingest that by `ooc-train ingest`"),
    ".json": ("a JSON file", "write it as CSV or Parquet, and ingest that by `ooc-train ingest`"),
    ".pkl": ("a pickle", f"load its arrays {_IN_PIECES}"),
    ".mat": ("a MATLAB file", f"load its arrays by scipy.io.loadmat {_IN_PIECES}"),
    ".sqlite": ("a database", "export the table as CSV, and ingest that by `ooc-train ingest`"),
}
_SYNONYMS = {
    synonym: suffix
    for suffix, synonyms in {
        ".h5": (".hdf5", ".hdf"),
        ".nc": (".nc4",),
        ".feather": (".arrow", ".ipc"),
        ".xlsx": (".xls", ".ods"),
        ".json": (".jsonl", ".ndjson"),
        ".pkl": (".pickle", ".joblib"),
        ".sqlite": (".db",),
    }.items()
    for synonym in synonyms
}

_EXTRAS = {
    "s3fs": ("s3", "s3a"),
    "gcsfs": ("gs", "gcs"),
    "adlfs": ("abfs", "abfss", "az", "adl"),
    "aiohttp requests": ("http", "https"),
    "requests": ("github", "webhdfs", "dbfs"),
    "paramiko": ("sftp", "ssh"),
}
"""Packages that fsspec needs, and the URL schemes of each."""


def other_format_advice(path: str) -> str | None:
    """Return what a path without Zarr is, and what to do; None if it may be Zarr."""
    if os.path.isdir(path):
        return _folder(path)
    folder, name = os.path.split(path)
    if name in _METADATA:
        return f"{path} is a file of the Zarr that {folder} is; give that folder"
    if format_of(name) is not None:
        return _table(path, "a table")
    suffix = os.path.splitext(name.lower())[1]
    by_content = _suffix_by_content(path)
    # The suffix comes first: an .npz is also a zip archive, and an .h5ad an HDF5 file.
    kind, advice = (
        _KINDS.get(_SYNONYMS.get(suffix, suffix))
        or _KINDS.get(by_content or "")
        or (
            "a file",
            "make a store of tables by `ooc-train ingest`, or of arrays by ooc_train.StoreWriter",
        )
    )
    return f"{path} is {kind}, and no Zarr: {advice}"


def _suffix_by_content(path: str) -> str | None:
    """Return the suffix of the format that a file's first bytes belong to, None if unknown."""
    try:
        start = read_start(path, 16)
    except OSError:
        return None
    return next((suffix for magic, suffix in _MAGIC if start.startswith(magic)), None)


def _table(path: str, kind: str) -> str:
    stem = path.rstrip("/")
    while (shorter := os.path.splitext(stem))[1]:
        stem = shorter[0]
    command = f"ooc-train ingest {shlex.quote(path)} {shlex.quote(stem + '.zarr')} --target COLUMN"
    return (
        f"{path} is {kind}, and no Zarr: make a store of it, by `{command}`, or predict its rows "
        "as they are, by predict_files or `ooc-train predict`"
    )


def _folder(path: str) -> str | None:
    names = sorted(os.listdir(path))
    if any(name in _METADATA for name in names):
        return None
    if any(format_of(name) for name in names):
        return _table(path, "a folder of tables")
    arrays = [
        name
        for name in names
        if any(os.path.exists(os.path.join(path, name, file)) for file in ("zarr.json", ".zarray"))
    ]
    if arrays:
        return (
            f"{path} is a folder without metadata of Zarr, around {', '.join(arrays[:5])}; give "
            "the path of X, and that of y from there, as open_store(path, y='../y')"
        )
    held = f"{counted(len(names), 'entry')} of other kinds" if names else "nothing"
    return (
        f"{path} is a folder that holds {held}, and no Zarr; make a store of tables by "
        "`ooc-train ingest`, or of arrays by ooc_train.StoreWriter"
    )


def url_advice(url: str, error: Exception) -> str | None:
    """Return why fsspec can't open a URL: a missing package or an unknown scheme; else None."""
    scheme = url.partition("://")[0]
    packages = next((name for name, schemes in _EXTRAS.items() if scheme in schemes), None)
    if isinstance(error, ImportError):
        if packages is None:
            return f"{url} can't be opened: {error}"
        return (
            f"{url} can't be opened without {packages.replace(' ', ' and ')}; here and where "
            f"workers run: pip install {packages}"
        )
    if "Protocol not known" in str(error):
        return f"{url} can't be opened: fsspec knows no URLs that begin with {scheme}://"
    return None
