"""Make stores of the flights: ``python data/flights_store.py STORE [--test-size 0.2]``.

Numeric columns go in as they are, the others one-hot; the rows are in random order, and the test
rows go to a sister store: flights.zarr and flights.test.zarr. See README.md beside this file.
"""

import argparse
import os

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ooc_train.store.writer import StoreWriter

NUMERIC = ("dep_delay", "sched_dep_time", "distance", "day")
CATEGORICAL = ("month", "weekday", "carrier", "origin", "dest")
ROWS_AT_ONCE = 2**14


class Design:
    """The flights as a matrix of float32, expanded some rows at a time.

    The columns of the file are small (5 MB) and are held; the expanded matrix (191 MB) never is.
    """

    def __init__(self, path: str) -> None:
        table = pq.read_table(path, pre_buffer=False)
        self.late = table["late"].to_numpy()
        self.numbers = np.column_stack([table[name].to_numpy() for name in NUMERIC])
        names, codes = list(NUMERIC), []
        for name in CATEGORICAL:
            values = pc.unique(table[name]).sort()
            codes.append(pc.index_in(table[name], values).to_numpy() + len(names))
            names += [f"{name}={value}" for value in values.to_pylist()]
        self.codes = np.column_stack(codes)
        self.feature_names = names

    def expand(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Give the float32 matrix of some rows, shape (len(rows), features)."""
        X = np.zeros((len(rows), len(self.feature_names)), np.float32)
        X[:, : len(NUMERIC)] = self.numbers[rows]
        np.put_along_axis(X, self.codes[rows], 1, axis=1)
        return X


def make_flights_store(path: str, test_size: float = 0.2, random_state: int = 0) -> tuple[str, str]:
    """Write the training and test rows; give the paths of the two stores.

    Parameters
    ----------
    path : str
        Where the training store goes, such as flights.zarr; the test store goes beside it.
    test_size : float
        The share of the rows that goes to the test store.
    random_state : int
        Decides both the split and the order of the rows.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    design = Design(os.path.join(here, "flights.parquet"))
    order = np.random.default_rng(random_state).permutation(len(design.late))
    n_test = round(test_size * len(order))
    root, extension = os.path.splitext(path)
    test_path = f"{root}.test{extension}"
    for target, rows in ((path, order[n_test:]), (test_path, order[:n_test])):
        with StoreWriter(
            target,
            n_features=len(design.feature_names),
            dtype="float32",
            y_dtype="uint8",
            feature_names=design.feature_names,
            classes=[False, True],
            codec="lz4",
            row_id=True,
            shuffled=random_state,
        ) as writer:
            for start in range(0, len(rows), ROWS_AT_ONCE):
                some = rows[start : start + ROWS_AT_ONCE]
                writer.write(design.expand(some), design.late[some], row_id=some)
            writer.commit()
    return path, test_path


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make stores of the flights.")
    parser.add_argument("store", help="where the training store goes, such as flights.zarr")
    parser.add_argument("--test-size", type=float, default=0.2, help="share of the rows (0.2)")
    parser.add_argument("--random-state", type=int, default=0, help="split and order (0)")
    arguments = parser.parse_args()
    paths = make_flights_store(arguments.store, arguments.test_size, arguments.random_state)
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
