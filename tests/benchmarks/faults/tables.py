"""Tables that are malformed: CSV and Parquet, changed at random, and as people have sent them.

What is read has to be what Python's own csv, or pyarrow, reads; or refused in one line.
"""

import csv
import gzip
import io
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.faults.bench import FEATURES, Bench, shell
from tests.benchmarks.faults.children import Limits
from tests.benchmarks.faults.metadata import remove
from tests.benchmarks.faults.mutations import FILES, spoil_bytes, spoil_file
from tests.benchmarks.faults.outcomes import GOOD, Finding, Outcome, ending

_LIMITS = Limits(seconds=60, memory=500 * 2**20)


def _parquet(**columns: Any) -> Callable[[str], object]:
    """Return what writes Parquet with a column, or more, in place of `a`."""

    def write(path: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        n = 50
        rng = np.random.default_rng(0)
        plain = {name: rng.normal(size=n) for name in FEATURES}
        made = {name: make(pa, n) for name, make in columns.items()}
        labels = ["yes" if x > 0 else "no" for x in plain["a"]]
        pq.write_table(pa.table({**plain, **made, "y": labels}), path)

    return write


def _text(change: Callable[[str], str | bytes]) -> Callable[[str], object]:
    """Return what writes the CSV of the template, changed."""

    def write(path: str) -> None:
        changed = change(Path(path).read_text())
        content = (
            changed if isinstance(changed, bytes) else changed.encode("utf-8", "surrogatepass")
        )
        Path(path).write_bytes(content)

    return write


def _as_it_is(path: str) -> None:
    pass


def _line(number: int, line: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        lines = text.split("\n")
        lines[number] = line
        return "\n".join(lines)

    return change


def _blank(text: str) -> str:
    return "\n" * 100


def _bomb(path: str, size: int) -> None:
    with gzip.open(path, "wb", 1) as file:
        file.write(b"a,b,c,d,y\n" + bytes(size))


def _wide(text: str) -> str:
    columns = 20_000
    names = ",".join([*(f"c{i}" for i in range(columns)), "y"])
    row = ",".join(["1"] * columns)
    return f"{names}\n{row},no\n{row},yes\n"


LISTED: dict[str, tuple[str, Callable[[str], object], tuple[str, ...]]] = {
    # By name: the file, how it is written, and further options of `ingest`.
    **{
        f"--encoding {encoding}": ("new.csv", _as_it_is, ("--encoding", encoding))
        for encoding in (
            *("zlib", "rot13", "bz2", "hex", "base64", "uu", "quopri", "punycode", "idna"),
            *("undefined", "unicode_escape", "raw_unicode_escape", "utf-7", "utf-8-sig", "mbcs"),
            *("ascii", "utf16", "cp037", "", " ", "utf8\n", "../utf8", "charmap"),
        )
    },
    **{
        f"--delimiter {delimiter!r}": ("new.csv", _as_it_is, ("--delimiter", delimiter))
        for delimiter in ("ab", "", "\n", "\r", '"', "é", "\x01", "\\t", "tab", ".", "1", " ", "-")
    },
    "dates of the year 0": (
        "new.parquet",
        _parquet(a=lambda pa, n: pa.array([-62_200_000_000] * n, pa.timestamp("s"))),
        (),
    ),
    "dates of the year 10000": (
        "new.parquet",
        _parquet(a=lambda pa, n: pa.array([253_500_000_000] * n, pa.timestamp("s"))),
        (),
    ),
    "dates of the year 290,000": (
        "new.parquet",
        _parquet(a=lambda pa, n: pa.array([2**53] * n, pa.timestamp("ms"))),
        (),
    ),
    "days of the year 5,000,000": (
        "new.parquet",
        _parquet(a=lambda pa, n: pa.array([2**30] * n, pa.date32())),
        (),
    ),
    "times": ("new.parquet", _parquet(a=lambda pa, n: pa.array([1] * n, pa.time64("us"))), ()),
    "durations": ("new.parquet", _parquet(a=lambda pa, n: pa.array([1] * n, pa.duration("s"))), ()),
    "decimals": (
        "new.parquet",
        _parquet(a=lambda pa, n: pa.array(range(n)).cast(pa.decimal128(38, 9))),
        (),
    ),
    "lists": ("new.parquet", _parquet(a=lambda pa, n: pa.array([[1.0]] * n)), ()),
    "structs": ("new.parquet", _parquet(a=lambda pa, n: pa.array([{"x": 1}] * n)), ()),
    "maps": (
        "new.parquet",
        _parquet(a=lambda pa, n: pa.array([[("x", 1)]] * n, pa.map_(pa.string(), pa.int64()))),
        (),
    ),
    "bytes": ("new.parquet", _parquet(a=lambda pa, n: pa.array([b"\xff"] * n)), ()),
    "only nulls": ("new.parquet", _parquet(a=lambda pa, n: pa.nulls(n)), ()),
    "half floats": ("new.parquet", _parquet(a=lambda pa, n: pa.array(np.ones(n, "f2"))), ()),
    "integers beyond 2^63": (
        "new.parquet",
        _parquet(a=lambda pa, n: pa.array([2**64 - 1] * n, pa.uint64())),
        (),
    ),
    "NaN": ("new.parquet", _parquet(a=lambda pa, n: pa.array([math.nan] * n)), ()),
    "a column of no name": ("new.parquet", _parquet(**{"": lambda pa, n: pa.array([1.0] * n)}), ()),
    "a name of 100,000 letters": (
        "new.parquet",
        _parquet(**{"n" * 100_000: lambda pa, n: pa.array([1.0] * n)}),
        (),
    ),
    "a name of terminal codes": (
        "new.parquet",
        _parquet(**{"\x1b[2J\n": lambda pa, n: pa.array(["x"] * n)}),
        (),
    ),
    "labels that no terminal shows": ("new.csv", _text(lambda t: t.replace("yes", "\x1b[2J")), ()),
    "one label": ("new.csv", _text(lambda t: t.replace("yes", "no")), ()),
    "a header alone": ("new.csv", _text(lambda t: t.split("\n")[0]), ()),
    "two headers": ("new.csv", _text(lambda t: t.split("\n")[0] + "\n" + t), ()),
    "a column named twice": ("new.csv", _text(lambda t: t.replace("a,b", "a,a", 1)), ()),
    "a column too few": ("new.csv", _text(_line(300, "1,2,3,no")), ()),
    "a column too many": ("new.csv", _text(_line(300, "1,2,3,4,5,no")), ()),
    "an open quote": ("new.csv", _text(_line(300, '1,2,"3,4,no')), ()),
    "a quote within": ("new.csv", _text(_line(300, '1,2,3"3,4,no')), ()),
    "a NUL byte": ("new.csv", _text(_line(300, "1,2,\x00,4,no")), ()),
    "a lone surrogate": ("new.csv", _text(_line(300, "1,2,3,4,\ud800")), ()),
    "a number of 5,000 digits": ("new.csv", _text(_line(300, f"1,2,{'9' * 5000},4,no")), ()),
    "a number beyond float64": ("new.csv", _text(_line(300, "1,2,1e400,4,no")), ()),
    "a number beyond float32": ("new.csv", _text(_line(300, "1,2,1e39,4,no")), ()),
    "infinity": ("new.csv", _text(_line(300, "1,2,inf,4,no")), ()),
    "NaN as text": ("new.csv", _text(_line(300, "1,2,nan,4,no")), ()),
    "a cell of 30 MB": ("new.csv", _text(_line(300, f"1,2,3,4,{'x' * 30_000_000}")), ()),
    "lines of \\r": ("new.csv", _text(lambda t: t.replace("\n", "\r")), ()),
    "lines of \\r\\n and \\n": ("new.csv", _text(lambda t: t.replace("\n", "\r\n", 100)), ()),
    "UTF-16": ("new.csv", _text(lambda t: t.encode("utf-16")), ()),
    "UTF-16 cut": ("new.csv", _text(lambda t: t.encode("utf-16")[:-1]), ("--encoding", "utf16")),
    "packed by gzip": ("new.csv", _text(lambda t: gzip.compress(t.encode())), ()),
    "100 MB of zeros, packed": ("new.csv.gz", lambda p: _bomb(p, 100 * 2**20), ()),
    "20,000 columns": ("new.csv", _text(_wide), ()),
    "no columns": ("new.csv", _text(_blank), ()),
    "Parquet by name": ("new.parquet", lambda path: Path(path).write_text("a,b\n1,2\n"), ()),
}


def case(bench: Bench, seed: int) -> Iterator[Finding]:
    """Change a table, as listed or at random, and have commands read it."""
    rng = random.Random(f"tables {seed}")
    turn, way = divmod(seed, 2)
    options: tuple[str, ...] = ()
    with bench.folder("new.csv", "new.run") as folder:
        if way == 0 and turn % (len(LISTED) + len(FILES)) < len(LISTED):
            done = list(LISTED)[turn % (len(LISTED) + len(FILES))]
            name, write, options = LISTED[done]
            written = bench.check(write, name, folder=folder)
            if written.status != 0:
                raise RuntimeError(f"{done}: {written.err}")
        elif way == 0:
            name = "new.csv"
            done = list(FILES)[turn % (len(LISTED) + len(FILES)) - len(LISTED)]
            spoil_file(f"{folder}/{name}", rng, done)
        else:
            name = rng.choice(("new.csv", "new.csv", "new.parquet", "new.csv.gz"))
            _write(f"{folder}/new.csv", f"{folder}/{name}", bench, folder)
            content, done = spoil_bytes(Path(f"{folder}/{name}").read_bytes(), rng)
            Path(f"{folder}/{name}").write_bytes(content)
        text = options
        commands = [
            ("ingest", name, "out.zarr", "--target", "y", "--no-shuffle", *text),
            ("ingest", name, "out.zarr", "--like", "new.run", "--no-shuffle", *text),
            ("ingest", name, "out.zarr", "--target", "y", "--dry-run", *text),
            ("ingest", name, "out.zarr", "--target", "y", "--missing", "mean", *text),
            ("predict", "new.run", name, "out.csv", *text),
            ("evaluate", "new.run", name, *text),
        ]
        for words in [commands[0], rng.choice(commands[1:])]:
            ended = bench.run(words, folder, limits=_LIMITS)
            what = f"{name}, {done}: `{shell(words)}`"
            found = ending(ended, what)
            plainly = words[-1] == "--no-shuffle" and way == 1
            if found.outcome is Outcome.FINE and plainly:
                compared = bench.check(_compare, name, folder=folder)
                if compared.status != 0 or compared.value:
                    why = compared.value or compared.err[-300:]
                    found = Finding(Outcome.SILENT, f"{what}: {why}")
            yield found
            for output in ("out.zarr", "out.csv"):
                remove(f"{folder}/{output}")
            if found.outcome in GOOD:
                for left in bench.left(folder, [name, "new.csv", "new.run"]):
                    yield Finding(left.outcome, f"{what}: {left.text}")


def _write(source: str, target: str, bench: Bench, folder: str) -> None:
    """Write the CSV of the template in the format that a name says."""
    if target.endswith(".gz"):
        Path(target).write_bytes(gzip.compress(Path(source).read_bytes(), mtime=0))
    elif target.endswith(".parquet"):
        bench.check(_as_parquet, source, target, folder=folder)


def _as_parquet(source: str, target: str) -> None:
    import pyarrow.csv
    import pyarrow.parquet as pq

    pq.write_table(pyarrow.csv.read_csv(source), target)


def _compare(name: str) -> str:
    """Return where out.zarr differs from what others read of a table; "" where it doesn't."""
    from ooc_train.store.opening.opener import open_store

    found = open_store("out.zarr")
    expected = _by_others(name, found.feature_names or ())
    if expected is None:
        return ""
    X = found.read("X").astype("f8")
    if X.shape != expected.shape:
        return f"{X.shape} values, and others read {expected.shape}"
    rounded = expected.astype(found.dtype).astype("f8")
    if not np.array_equal(X, rounded):
        row, column = np.argwhere(rounded != X)[0]
        return (
            f"row {row}, column {column}: {X[row, column]}, and others read {expected[row, column]}"
        )
    return ""


def _by_others(name: str, columns: tuple[str, ...]) -> Any:
    """Return the numbers that Python's csv, or pyarrow, reads; None where that is in dispute."""
    try:
        if name.endswith(".parquet"):
            import pyarrow.parquet as pq

            table = pq.read_table(name, use_threads=False)
            return np.column_stack([table[column].to_numpy() for column in columns])
        content = Path(name).read_bytes()
        text = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
        places = [rows[0].index(column) for column in columns]
        if len({len(row) for row in rows}) > 1:
            return None
        return np.array([[float(row[place]) for place in places] for row in rows[1:]])
    except Exception:  # noqa: BLE001 - it is malformed: others may fail as they like
        return None
