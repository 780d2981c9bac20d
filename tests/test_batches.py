"""Raw files as they come: every row once, in order, with its place; what can't be read is said."""

import contextlib
import functools
import gzip
import itertools
import os
import random
import re
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ooc_train.errors import InvalidTable, TableNotFound
from ooc_train.tables import csv as text
from ooc_train.tables.csv_blocks import Dialect, text_blocks
from ooc_train.tables.csv_parsing import _parse
from ooc_train.tables.diagnostics import BrokenText
from ooc_train.tables.names import is_table
from ooc_train.tables.open_tables import open_tables

packed = functools.partial(gzip.compress, mtime=0)  # the names of tests may not depend on it
TEXT = "a,b\n1,2\n3,4\n"
_sink = pa.BufferOutputStream()
pq.write_table(pa.table({"a": range(99)}), _sink)
PARQUET = _sink.getvalue().to_pybytes()


def put(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(tables, **types):
    """Every row of some columns, as (rows, pieces)."""
    wanted = types or dict.fromkeys(tables.names, pa.float64())
    pieces = list(tables.pieces(wanted))
    found = []
    for piece in pieces:
        columns = [piece.batch.column(name).to_pylist() for name in wanted]
        found += [dict(zip(wanted, row, strict=True)) for row in zip(*columns, strict=True)]
    return found, pieces


def rows(path, **settings):
    return read(open_tables(path, **settings))[0]


ROWS = [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT[:-1],
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n", "\r"),
        "\ufeff" + TEXT,
        "\n\r\n" + TEXT,
        "\ufeff\n" + TEXT,
        TEXT + "\n\n\n",
        TEXT.replace("\n3", "\n\n3"),
        '"a","b"\n"1","2"\n" 3 ","4"\n',
    ],
)
def test_ways_to_write_the_same_csv(tmp_path, text):
    assert rows(put(tmp_path / "a.csv", text)) == ROWS


@pytest.mark.parametrize(
    ("name", "text", "settings"),
    [
        ("a.tsv", TEXT.replace(",", "\t"), {}),
        ("a.csv", TEXT.replace(",", ";"), {"delimiter": ";"}),
        ("a.txt", TEXT, {}),
        ("A.CSV", TEXT, {}),
        ("a.csv.gz", packed(TEXT.encode()), {}),
        ("a.csv.gz", packed(TEXT[:8].encode()) + packed(TEXT[8:].encode()), {}),
        ("a.tsv.zst", pa.compress(TEXT.replace(",", "\t").encode(), "zstd", asbytes=True), {}),
        ("a.csv", TEXT.encode("utf-16"), {"encoding": "utf16"}),
    ],
)
def test_delimiters_packings_and_encodings(tmp_path, name, text, settings):
    assert rows(put(tmp_path / name, text), **settings) == ROWS


def test_cells_with_quotes_breaks_and_delimiters(tmp_path):
    path = put(tmp_path / "a.csv", 'a,"b\n,"\n"x\ny","z ""q"""\n"",NA\n')
    tables = open_tables(path)
    assert tables.names == ("a", "b\n,")
    found, _ = read(tables, **dict.fromkeys(tables.names, pa.string()))
    assert [list(row.values()) for row in found] == [["x\ny", 'z "q"'], [None, None]]


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    cells=st.lists(st.text('a"\n\r, ', max_size=4), min_size=1, max_size=40),
    ends=st.sampled_from(["\n", "\r\n", "\r"]),
    block=st.integers(1, 40),
)
def test_text_is_cut_where_rows_end(cells, ends, block):
    # Of each cell three versions: as it is, quoted, and quoted with more after the quotes.
    escaped = [cell.replace('"', '""') for cell in cells]
    lines = [f'"{cell}",1,"{cell}"x' for cell in escaped]
    plain = [cell for cell in cells if not {*cell} & {*"\n\r,"} and not cell.startswith('"')]
    # Quotes within cells that aren't quoted mean themselves, and come before those that don't.
    content = ends.join([*(f"{cell},2,3" for cell in plain), *lines]) + ends
    raw, dialect = pa.BufferReader(content.encode()), Dialect(block_bytes=block)
    found, rest = 0, b""
    with contextlib.suppress(BrokenText):  # a row that is longer than two blocks
        for part, _ in text_blocks(raw, "a.csv", dialect):
            found += _parse(part, "abc", dialect, {}).num_rows
            rest += part
        assert found == len(lines) + len(plain)
        assert rest.decode() == content.lstrip("\r\n")


def test_a_column_without_a_name_is_called_by_its_number(tmp_path):
    assert open_tables(put(tmp_path / "a.csv", ",b\n1,2\n")).names == ("column 1", "b")


def test_every_row_of_many_files_and_where_it_is_from(tmp_path):
    counts = (100_000, 3, 250_000)
    numbers = itertools.count()
    for i, count in enumerate(counts):
        lines = (f"{n},{-n}\n" for n in itertools.islice(numbers, count))
        # The second file has its columns in another order, and one more.
        header = "b,a,c\n" if i == 1 else "a,b\n"
        if i == 1:
            lines = (",".join(line.strip().split(",")[::-1]) + ",x\n" for line in lines)
        put(tmp_path / f"part-{i}.csv", header + "".join(lines))
    tables = open_tables(tmp_path)
    assert tables.expected_rows == pytest.approx(sum(counts), rel=0.2)
    found, pieces = read(tables)
    assert found == [{"a": n, "b": -n} for n in range(sum(counts))]
    start, first = 0, dict.fromkeys(tables.paths, 0)
    for piece in pieces:
        assert (piece.start, piece.first) == (start, first[piece.file])
        start += piece.batch.num_rows
        first[piece.file] += piece.batch.num_rows
    assert list(first.values()) == list(counts)
    shares = [piece.share for piece in pieces]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert pieces[0].place(7) == f"row 7 (about line 9) of {tmp_path / 'part-0.csv'}"


def test_patterns_folders_and_lists(tmp_path):
    a, b = (put(tmp_path / name, TEXT) for name in ("a1.csv", "a2.csv"))
    put(tmp_path / "notes.md", "none of it")
    (tmp_path / "sub").mkdir()
    c = put(tmp_path / "sub" / "a3.csv", TEXT)
    odd = put(tmp_path / "a[1].csv", TEXT)
    for pattern, expected in (
        (tmp_path / "a?.csv", [a, b]),
        (tmp_path, sorted([a, b, odd])),
        (tmp_path / "**" / "*3.csv", [c]),
        (odd, [odd]),
    ):
        assert open_tables(pattern).paths == tuple(map(str, expected))
    assert open_tables([b, a]).paths == (str(b), str(a))


def test_parquet_of_several_row_groups_and_files(tmp_path):
    table = pa.table({"a": range(1000), "a.b": range(1000), "t": ["x", "y"] * 500})
    pq.write_table(table, tmp_path / "1.parquet", row_group_size=300)
    pq.write_table(table.slice(0, 0), tmp_path / "2.parquet")
    pq.write_table(table.select(["t", "a.b", "a"]), tmp_path / "3.parquet")
    tables = open_tables(tmp_path)
    assert (tables.expected_rows, tables.declared) == (2000, frozenset())
    # A name with a dot means no field of a struct.
    found, pieces = read(tables, t=pa.string(), a=pa.int64())
    assert found == 2 * table.select(["t", "a"]).to_pylist()
    assert [piece.start for piece in pieces] == sorted(piece.start for piece in pieces)
    assert {os.path.basename(piece.file) for piece in pieces} == {"1.parquet", "3.parquet"}


def test_parquet_tells_which_columns_are_categories(tmp_path):
    table = pa.table(
        {
            "text": pa.array(["x", "y"]).dictionary_encode(),
            "number": pa.array([7, 5]).dictionary_encode(),
            "plain": ["x", "y"],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    tables = open_tables(tmp_path / "a.parquet")
    assert tables.declared == {"text", "number"}
    assert [tables.kind(name) for name in tables.names] == ["text", "number", "text"]


def test_what_columns_hold(tmp_path):
    table = pa.table(
        {
            "number": pa.array([1, 2], pa.uint8()),
            "boolean": [True, None],
            "date": [date(2013, 1, 1), None],
            "text": ["x", None],
            "empty": pa.array([None, None]),
            "other": [b"x", None],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    tables = open_tables(tmp_path / "a.parquet")
    assert [tables.kind(name) for name in tables.names] == list(tables.names)


@pytest.mark.slow
def test_batches_of_parquet_are_small_however_well_it_packs(tmp_path):
    # Runs of one value take next to nothing at rest: 50 columns of 8 bytes all the same in memory.
    table = pa.table({f"c{i}": pa.repeat(1.5, 200_000) for i in range(50)})
    pq.write_table(table, tmp_path / "a.parquet")
    tables = open_tables(tmp_path / "a.parquet")
    _, pieces = read(tables)
    assert (
        max(piece.batch.nbytes for piece in pieces)
        <= 1.02 * tables.reading_memory.most * tables.reading_memory.row
    )


def test_rows_that_are_longer_than_a_block(tmp_path):
    long = "x" * 3_000_000
    tables = open_tables(put(tmp_path / "a.csv", f"a,b\n1,{long}\n2,y\n"))
    assert read(tables, b=pa.string())[0] == [{"b": long}, {"b": "y"}]
    later = put(tmp_path / "b.csv", "a,b\n" + "1,y\n" * 500_000 + f"2,{long}\n")
    with pytest.raises(InvalidTable, match=r"b\.csv: row 500,000 .*more than 1 MiB.*never"):
        read(open_tables(later), b=pa.string())


def test_what_has_no_lines_is_not_taken_in(tmp_path):
    path = tmp_path / "a.csv"
    with open(path, "wb") as file:
        file.truncate(2**40)  # which takes no room on the disk
    with pytest.raises(InvalidTable, match=r"a row takes more than 16 MiB .* or it is no CSV"):
        open_tables(path)


def test_thousands_of_columns(tmp_path):
    names = [f"column_{i}" for i in range(5000)]
    line = ",".join(map(str, range(5000)))
    path = put(tmp_path / "a.csv", f"{','.join(names)}\n" + f"{line}\n" * 50)
    tables = open_tables(path)
    found, _ = read(tables)
    assert len(found) == 50
    assert list(found[49].values()) == list(range(5000))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", r"a\.csv is empty"),
        ("a.parquet", "", r"a\.parquet is empty"),
        ("a.csv", "\n\n", "is blank: not even a header is in it"),
        ("a.csv", "\ufeff", "is blank: not even a header is in it"),
        ("a.csv.gz", packed(b""), "is blank: not even a header is in it"),
        ("a.csv", 'a,"b\n1,2\n', "the header: a quote opens a cell, and the file ends before"),
        ("a.csv", packed(TEXT.encode()), r"is packed by gzip, .*rename it to .*a\.csv\.gz"),
        ("a.csv.zst", packed(b"a"), r"is packed by gzip, .*rename it to .*a\.csv\.gz"),
        ("a.dat", packed(b"a"), r"is packed by gzip, .*rename it to .*a\.dat\.csv\.gz"),
        ("a.parquet", packed(b"a"), "is packed by gzip, .*; unpack it"),
        ("a.csv", PARQUET, r"is Parquet, .*rename it to .*a\.parquet"),
        ("a.csv", b"PK\x03\x04" + b"x" * 99, "is a zip archive, .*write it as CSV or Parquet"),
        ("a.csv", "a,b", "a header and no rows"),
        ("a.csv", "a,b\n", "a header and no rows"),
        (
            "a.csv",
            "a,b\n1,2\n3\n",
            "row 1 .about line 3.: Expected 2 columns, got 1.*as many cells",
        ),
        ("a.csv", "a,b\n1,2\n3,4,5\n", "row 1 .about line 3.: Expected 2 columns, got 3"),
        ("a.csv", "a,b,a\n1,2,3\n", r"names a column more than once: 'a'; rename"),
        ("a.csv", "a,b\n1,é\n".encode("latin1"), r"no text in the encoding utf8.*'b'.*--encoding"),
        ("a.csv", "é,b\n1,2\n".encode("latin1"), "no text in the encoding utf8"),
        ("a.csv", TEXT.encode("utf-16"), "no text in the encoding utf8.*--encoding utf16"),
        ("a.csv", TEXT.encode("utf-16-le"), "its header has NUL bytes.*--encoding utf-16-le"),
        ("a.csv", TEXT.encode("utf-16-be"), "its header has NUL bytes.*--encoding utf-16-be"),
        ("a.csv", TEXT.encode("utf-32"), "it starts as UTF-32 does.*--encoding utf32"),
        ("a.csv.gz", TEXT, r"a\.csv\.gz can't be unpacked.*rename it"),
        (
            "a.csv.gz",
            packed(random.Random(0).randbytes(99_999))[:5000],
            "ends within its .* row 0 .*cut",
        ),
        ("a.parquet", PARQUET[:-30], "can't be read as Parquet: Parquet magic bytes not found"),
        ("a.parquet", TEXT, "can't be read as Parquet"),
        ("a.dat", TEXT, "neither CSV nor Parquet"),
    ],
)
def test_files_that_can_not_be_read(tmp_path, name, content, message):
    put(tmp_path / name, content)
    with pytest.raises(InvalidTable, match=f"(?s){message}") as error:
        open_tables(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("bad", "types", "message"),
    [
        ("x,4", {}, r"column 'a', row 300,000 .about line 300,002.: .*'x'.*--categorical"),
        ("1", {}, "row 300,000 .about line 300,002.: Expected 2 columns, got 1"),
        (
            "1,é",
            {"b": pa.string()},
            "no text in the encoding utf8.*'b', row 300,000 .about line 300,002.",
        ),
    ],
)
def test_what_is_wrong_far_from_the_beginning(tmp_path, bad, types, message):
    content = ("a,b\n" + "1,2\n" * 300_000 + bad + "\n").encode("latin1")
    tables = open_tables(put(tmp_path / "a.csv", content))
    with pytest.raises(InvalidTable, match=rf"a\.csv.*{message}"):
        read(tables, **types)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('1,"abc', "a quote opens a cell, and the file ends before one closes it"),
        ('1,"abc""', "a quote opens a cell, and the file ends before one closes it"),
        ('1,"abc\n1,"x"', "a quote opens a cell that only a quote of a later row closes"),
        ('1,"abc\n1,"x y","z"', "a quote opens a cell that only a quote of a later row closes"),
        ('1,"a""b\n""\n1,"x"', "a quote opens a cell that only a quote of a later row closes"),
    ],
)
@pytest.mark.parametrize("n", [0, 25_000, 300_000])
def test_a_quote_that_is_never_closed(tmp_path, n, bad, message):
    content = "a,b\n" + "1,y\n" * n + bad + "\n" + "1,y\n" * 25_000
    path = put(tmp_path / "a.csv", content)
    with pytest.raises(InvalidTable, match=rf"a\.csv: row {n:,} .about line {n + 2:,}.: {message}"):
        read(open_tables(path), a=pa.string(), b=pa.string())


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    cells=st.lists(st.text('ab "', max_size=3), min_size=6, max_size=40),
    columns=st.integers(1, 3),
    lost=st.integers(0, 1000),
    block=st.integers(20, 200),
)
def test_a_lost_quote_takes_no_row_with_it(tmp_path_factory, cells, columns, lost, block):
    expected = [cells[i : i + columns] for i in range(0, len(cells) - columns + 1, columns)]
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in expected]
    content = "\n".join([",".join("abc"[:columns]), *quoted]) + "\n"
    quotes = [i for i, letter in enumerate(content) if letter == '"']
    place = quotes[lost % len(quotes)]
    of = content[:place].count("\n") - 1
    path = put(tmp_path_factory.mktemp("a") / "a.csv", content[:place] + content[place + 1 :])
    dialect = Dialect(block_bytes=block)
    types = dict.fromkeys("abc"[:columns], pa.string())
    try:
        batches = list(text.read_batches(str(path), dialect, types))
    except InvalidTable:
        return
    # A cell that began with the quote now begins with another letter: no other cell is touched.
    found = [list(row.values()) for batch, _ in batches for row in batch.to_pylist()]  # type: ignore[union-attr]
    assert len(found) == len(expected)
    for i, (row, due) in enumerate(zip(found, expected, strict=True)):
        if i != of:
            assert row == [cell or None for cell in due]


@pytest.mark.parametrize(("ending", "kind"), [("gz", "gzip"), ("zst", "zstd"), ("bz2", "bz2")])
def test_packed_text_that_was_cut(tmp_path, ending, kind):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, kind) as stream:
        stream.write(("a,b\n" + "".join(f"{i},{i * i}\n" for i in range(200_000))).encode())
    path = tmp_path / f"a.csv.{ending}"
    content = sink.getvalue().to_pybytes()
    tables = open_tables(put(path, content))
    put(path, content[:-9])
    with pytest.raises(
        InvalidTable, match="ends within its compressed data, at about row"
    ) as caught:
        read(tables)
    (row,) = re.findall(r"row ([\d,]+) ", str(caught.value))
    assert 190_000 <= int(row.replace(",", "")) <= 200_000 or kind == "bz2"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_files_with_a_header_alone_have_no_rows_wherever_they_come(tmp_path, place):
    files = [TEXT, TEXT]
    files.insert(place, "a,b\n" if place else "b,a")
    for i, content in enumerate(files):
        put(tmp_path / f"{i}.csv", content)
    tables = open_tables(tmp_path)
    assert [tables.kind(name) for name in tables.names] == ["number", "number"]
    assert read(tables)[0] == ROWS * 2
    put(tmp_path / f"{place}.csv", "a,c\n")
    with pytest.raises(InvalidTable, match=rf"{place}\.csv lacks the column 'b'"):
        read(open_tables(tmp_path))
    put(tmp_path / f"{place}.csv", "\n")
    with pytest.raises(InvalidTable, match=rf"{place}\.csv is blank"):
        read(open_tables(tmp_path))


def test_files_that_all_have_no_rows(tmp_path):
    for i in range(3):
        put(tmp_path / f"{i}.csv", "a,b\n")
    with pytest.raises(InvalidTable, match=r"0\.csv and 2 more have a header and no rows"):
        open_tables(tmp_path)


def test_a_file_in_another_encoding_further_on(tmp_path):
    put(tmp_path / "0.csv", TEXT)
    put(tmp_path / "1.csv", TEXT.encode("utf-16"))
    with pytest.raises(InvalidTable, match=r"1\.csv is no text .*--encoding utf16"):
        read(open_tables(tmp_path))
    cut = put(tmp_path / "2.csv", TEXT.encode("utf-16")[:-1])
    with pytest.raises(InvalidTable, match=r"2\.csv ends within a character, in row 1"):
        read(open_tables(cut, encoding="utf16"))
    with pytest.raises(InvalidTable, match=r"0\.csv is no text .*--encoding utf8"):
        open_tables(tmp_path / "0.csv", encoding="utf16")


def test_an_encoding_that_nobody_knows(tmp_path):
    with pytest.raises(ValueError, match="encoding='klingon' is unknown"):
        open_tables(put(tmp_path / "a.csv", TEXT), encoding="klingon")


@pytest.mark.parametrize("name", ["nothing.csv", "nothing-*.csv", ".", None])
def test_nothing_lies_there(tmp_path, name):
    with pytest.raises(TableNotFound):
        open_tables([] if name is None else tmp_path / name)


def test_files_that_do_not_go_together(tmp_path):
    a, b = put(tmp_path / "a.csv", TEXT), put(tmp_path / "b.csv", "a,c\n1,2\n")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "c.parquet")
    with pytest.raises(InvalidTable, match="mix CSV and Parquet"):
        open_tables([a, tmp_path / "c.parquet"])
    with pytest.raises(InvalidTable, match=r"b\.csv lacks the column 'b'; it has 'a', 'c'"):
        read(open_tables([a, b]))
    pq.write_table(pa.table({"b": [1]}), tmp_path / "d.parquet")
    with pytest.raises(InvalidTable, match=r"d\.parquet lacks the column 'a'"):
        read(open_tables([tmp_path / "c.parquet", tmp_path / "d.parquet"]))


def test_a_file_that_is_gone(tmp_path):
    tables = open_tables([put(tmp_path / "a.csv", TEXT), put(tmp_path / "b.csv", TEXT)])
    os.unlink(tmp_path / "b.csv")
    with pytest.raises(TableNotFound, match=r"b\.csv any more"):
        read(tables)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_a_file_that_shrinks_while_it_is_read(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    table = pa.table({"a": range(500_000), "b": range(500_000)})
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=50_000, compression="none")
    else:
        text = "a,b\n" + "".join(f"{i},{i}\n" for i in range(500_000))
        put(path, packed(text.encode(), compresslevel=1) if kind == "csv.gz" else text)
    pieces = open_tables(path).pieces({"a": pa.float64(), "b": pa.float64()})
    next(pieces)
    # At a line's end, where nothing else looks wrong.
    content = path.read_bytes()
    half = len(content) // 2
    os.truncate(path, content.index(b"\n", half) + 1 if kind == "csv" else half)
    message = {"csv": "a.csv had .* bytes", "csv.gz": "at about row .*it was cut"}
    with pytest.raises(InvalidTable, match=message.get(kind, "can't be")):
        list(pieces)


def test_parquet_that_ends_between_two_pages(tmp_path, monkeypatch):
    pq.write_table(pa.table({"a": range(100_000)}), tmp_path / "a.parquet")
    batches = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda *a, **k: itertools.islice(batches(*a, **k), 0)
    )
    with pytest.raises(InvalidTable, match="should have 100,000 rows, and 0 of them"):
        read(open_tables(tmp_path / "a.parquet"))


def test_what_means_raw_files(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    put(tmp_path / "a.zarr" / "zarr.json", "{}")
    assert [
        is_table(path)
        for path in (tmp_path / "new.csv", "x.parquet", tmp_path / "a.zarr", "s3://b/a.zarr", "run")
    ] == [True, True, False, False, False]
