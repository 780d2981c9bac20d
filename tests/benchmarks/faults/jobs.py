"""The commands that write something, each for "old" and for "new" data."""

from tests.benchmarks.faults import looks
from tests.benchmarks.faults.bench import CHUNKS, SHORT, Job

_TABLE = ("--target", "y", *CHUNKS)

JOBS = (
    Job(
        "ingest",
        lambda of: ("ingest", f"{of}.csv", "out.zarr", *_TABLE),
        ("out.zarr",),
        looks.store,
        ("{}.csv",),
    ),
    Job(
        "ingest a pair",
        lambda of: ("ingest", f"{of}.csv", "out.zarr", *_TABLE, "--test-size", "0.2"),
        ("out.zarr", "out.test.zarr"),
        looks.store,
        ("{}.csv",),
    ),
    Job(
        "rechunk",
        lambda of: ("rechunk", f"{of}.zarr", "out.zarr", "--chunk-rows", "50"),
        ("out.zarr",),
        looks.store,
        ("{}.zarr",),
    ),
    Job(
        "shuffle",
        lambda of: ("shuffle", f"{of}.zarr", "out.zarr"),
        ("out.zarr",),
        looks.store,
        ("{}.zarr",),
    ),
    Job(
        "make-data",
        lambda of: (
            *("make-data", "out.zarr", "--rows", "500", "--features", "3"),
            *("--random-state", str(len(of) + (of == "new"))),
        ),
        ("out.zarr",),
        looks.store,
        (),
    ),
    Job(
        "predict to CSV",
        lambda of: ("predict", f"{of}.run", f"{of}.zarr", "out.csv"),
        ("out.csv",),
        looks.table,
        ("{}.zarr", "{}.run"),
    ),
    Job(
        "predict to Parquet",
        lambda of: ("predict", f"{of}.run", f"{of}.csv", "out.parquet", "--proba"),
        ("out.parquet",),
        looks.table,
        ("{}.csv", "{}.run"),
    ),
    Job(
        "predict a table to a store",
        lambda of: ("predict", f"{of}.run", f"{of}.csv", "out.zarr"),
        ("out.zarr",),
        looks.predictions,
        ("{}.csv", "{}.run"),
    ),
    Job(
        "predict a store to a store",
        lambda of: ("predict", f"{of}.run", f"{of}.zarr", "out.zarr", "--proba"),
        ("out.zarr",),
        looks.predictions,
        ("{}.zarr", "{}.run"),
        cluster=True,
    ),
    Job(
        "train",
        lambda of: ("train", f"{of}.zarr", "--out", "out.run", *SHORT),
        ("out.run",),
        looks.run,
        ("{}.zarr",),
        cluster=True,
    ),
    Job(
        "train with a plot",
        lambda of: ("train", f"{of}.zarr", "--plot", "out.png", *SHORT),
        ("out.png",),
        looks.picture,
        ("{}.zarr",),
        cluster=True,
        exact=False,
    ),
    Job(
        "tradeoff",
        lambda of: (
            *("tradeoff", f"{of}.zarr", "--out", "out", "--batch-sizes", "64,full"),
            *("--max-iter", "2", "--random-state", "0"),
        ),
        ("out",),
        looks.tradeoff,
        ("{}.zarr",),
        cluster=True,
    ),
    Job(
        "report",
        lambda of: ("report", f"{of}.run", "--out", "out.html"),
        ("out.html",),
        looks.page,
        ("{}.run",),
    ),
)
