"""Raw files that can't be used, and disks that fill up: said in a line, and nothing half-made."""

import errno
import itertools
import os
import re
import shlex
import shutil
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ooc_train.cli.parsers import names
from ooc_train.errors import CeilingExceeded, InvalidTable, OutputExists, TableNotFound
from ooc_train.store.jobs.ingest import ingest
from ooc_train.store.jobs.ingest_reading import recipe_of
from ooc_train.store.opening.opener import open_store
from ooc_train.store.writing import shard_writer
from tests.test_core_files import lay
from tests.test_ingest import RNG, ROLES, TABLE, features_of, made, write
from tests.test_writer import contents


def refused(tmp_path, table, error=InvalidTable, match="", name="a.parquet", **roles):
    with pytest.raises(error, match=match) as caught:
        made(tmp_path, table, name, **roles)
    assert os.listdir(tmp_path) == [name]
    return str(caught.value)


@pytest.mark.parametrize(
    ("table", "roles", "message"),
    [
        ({"a": [1], "b": ["x"]}, {}, "(?s)1 column holds text.*b: such as 'x'.*--categorical b"),
        ({"a": [1], "late": [1]}, {"target": "lat"}, "no column 'lat'; did you mean 'late'"),
        ({"a": [1]}, {"target": "zz"}, "no column 'zz'; there are 'a'"),
        ({"a": [1]}, {"target": "a"}, "no column left to make features of"),
        ({"a": [1, 2], "y": ["x", "x"]}, {"target": "y"}, "'y' has one class only, 'x'"),
        ({"a": [1, 2], "y": [1, None]}, {"target": "y"}, "'y' in row 1 .*missing, and it is the t"),
        ({"a": [1], "y": [date(2013, 1, 1)]}, {"target": "y"}, "'y' holds date32"),
        ({"a": [1], "y": ["x"]}, {"target": "y", "task": "regression"}, "holds text, and a regres"),
        ({"a": [1, 2], "y": [1, np.inf]}, {"target": "y"}, "'y' in row 1 .* is inf"),
        ({"a": [[1]]}, {}, r"(?s)no features can be made of 'a' \(list.*--drop a"),
        ({"a": [{"x": 1}], "b": [b"x"]}, {}, r"(?s)'a' \(struct.*'b' \(binary.*--drop a,b"),
        ({"a": [[1]]}, {"categorical": ["a"]}, r"no features can be made of 'a' \(list"),
        ({"a": [1.0, -np.inf]}, {}, "'a' in row 1 .* is -inf; correct it"),
        ({"a": [1.0, 1e300]}, {"dtype": "float32"}, r"is 1e\+300, more than float32 can hold"),
        ({"a": pa.array([None, None])}, {"missing": "mean"}, "'a' has no value .* --drop a"),
        ({"a": [1], "w": [-1.0]}, {"sample_weight": "w"}, "'w' in row 0 .* is -1; weights"),
        ({"a": [1], "w": [np.inf]}, {"sample_weight": "w"}, "'w' in row 0 .* is inf; weights"),
        ({"a": [1], "w": ["x"]}, {"sample_weight": "w"}, "is 'x', which is no number"),
        ({"a": [1, 2], "i": [1, 2.5]}, {"id_column": "i"}, "'i' in row 1 .* is 2.5, no whole"),
        ({"a": [1, 2], "i": ["1", "x"]}, {"id_column": "i"}, "'x', which is no whole number"),
        ({"a": [1, 2], "i": [1, None]}, {"id_column": "i"}, "'i' in row 1 .* is missing"),
        ({"a": [1.0], "b": [None]}, {"missing": "drop"}, "no row is left for training"),
        ({"a": [1.0]}, {"test_size": 0.2}, "no row is left for testing"),
    ],
)
def test_tables_that_can_not_be_used(tmp_path, table, roles, message):
    text = refused(tmp_path, table, match=message, **roles)
    assert "Arrow" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\nx,4\n", "(?s)1 column holds text.*a: such as 'x', '1'.*--categorical a"),
        ("a,b\n" + "1,2\n" * 300_000 + "x,4\n", r"a\.csv: column 'a', row 300,000 .*'x'"),
        ("a,b\n1,inf\n", "'b' in row 0 .about line 2. of .* is inf"),
        ("a,b\n1,\n", "'b' in row 0 .about line 2. .* is missing"),
        ("a,b\n10:30:00,2\n", r"no features can be made of 'a' \(time32"),
    ],
)
def test_text_that_can_not_be_used(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InvalidTable, match=message):
        ingest(tmp_path / "a.csv", tmp_path / "a.zarr")
    assert os.listdir(tmp_path) == ["a.csv"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "types"),
    [
        ([1, 2], ["x", "y"], ("int64", "string")),
        (["1", "2"], [1, 2], ("string", "int64")),
        ([1, 2], [True, False], ("int64", "bool")),
        ([1, 2], [date(2013, 1, 1), None], ("int64", "date32")),
        ([1, 2], pa.array(["1", "2"]).dictionary_encode(), ("int64", "dictionary")),
        ([1, 2], [b"x", b"y"], ("int64", "binary")),
    ],
)
@pytest.mark.parametrize(
    "roles",
    [
        {},
        {"categorical": ["a"]},
        {"target": "a"},
        {"target": "a", "task": "classification"},
        {"id_column": "a"},
        {"sample_weight": "a"},
    ],
)
def test_several_files_whose_types_differ(tmp_path, first, second, types, roles):
    write(tmp_path / "0.parquet", {"a": pa.array([None]), "v": [0]})
    write(tmp_path / "1.parquet", {"a": first, "v": [1, 2]})
    write(tmp_path / "2.parquet", {"a": second, "v": [3, 4]})
    message = rf"column 'a' holds {types[0]} in .*1\.parquet and {types[1]}.* in .*2\.parquet"
    with pytest.raises(InvalidTable, match=message):
        ingest(tmp_path, tmp_path / "a.zarr", missing="drop", **roles)
    store = ingest(tmp_path, tmp_path / "a.zarr", features=["v"]).store
    assert store.n_rows == 5


@pytest.mark.parametrize("roles", [{}, {"categorical": ["a"]}])
def test_times_with_a_zone_in_one_file_and_without_in_another(tmp_path, roles):
    write(tmp_path / "1.parquet", {"a": pa.array([0, 1], pa.timestamp("us"))})
    write(tmp_path / "2.parquet", {"a": pa.array([0, 1], pa.timestamp("us", "America/New_York"))})
    zoned = r"timestamp\[us, tz=America/New_York\] in .*2\.parquet"
    with pytest.raises(InvalidTable, match=rf"holds timestamp\[us\] in .*1\.parquet and {zoned}"):
        ingest(tmp_path, tmp_path / "a.zarr", **roles)


def test_types_that_go_together(tmp_path):
    write(tmp_path / "0.parquet", {"a": pa.array([None]), "d": pa.array([None])})
    write(tmp_path / "1.parquet", {"a": [1], "d": [date(2013, 1, 1)]})
    write(tmp_path / "2.parquet", {"a": [2.5], "d": pa.array([3600], pa.timestamp("s"))})
    store = ingest(tmp_path, tmp_path / "a.zarr", missing="drop", shuffle=False).store
    assert features_of(store).tolist() == [[1, 15706], [2.5, np.float32(1 / 24)]]


def test_times_with_and_without_a_zone_in_text(tmp_path):
    (tmp_path / "1.csv").write_text("t,v\n2020-01-01 00:00:00,1\n2020-01-01 01:00:00,2\n")
    (tmp_path / "2.csv").write_text("t,v\n2020-01-01 00:00:00+04:00,3\n")
    for order, has in ((("1", "2"), "has a time zone"), (("2", "1"), "has no time zone")):
        files = [tmp_path / f"{name}.csv" for name in order]
        with pytest.raises(
            InvalidTable,
            match=rf"{order[1]}\.csv: column 't', row 0 .about line 2.: .*{has}, unlike "
            rf"those of .*{order[0]}\.csv: write all with a zone, or all without one",
        ):
            ingest(files, tmp_path / "a.zarr")
    # In one file, in its first block and after it.
    (tmp_path / "3.csv").write_text("t,v\n2020-01-01 00:00:00,1\n2020-01-01 00:00:00Z,2\n")
    with pytest.raises(InvalidTable, match=r"Z' with a zone and .* without one: write them in one"):
        ingest(tmp_path / "3.csv", tmp_path / "a.zarr")
    text = "t,v\n" + "2020-01-01 00:00:00,1\n" * 100_000 + "2020-01-01 00:00:00Z,2\n"
    (tmp_path / "4.csv").write_text(text)
    with pytest.raises(InvalidTable, match=r"row 100,000 .*has a time zone, unlike rows before"):
        ingest(tmp_path / "4.csv", tmp_path / "a.zarr")
    # By a recipe.
    learned = ingest(tmp_path / "1.csv", tmp_path / "b.zarr").store
    with pytest.raises(InvalidTable, match=r"2\.csv: .*a time zone, unlike those of the training"):
        ingest(tmp_path / "2.csv", tmp_path / "a.zarr", like=learned)
    zoned = pa.array([0], pa.timestamp("us", "UTC"))
    write(tmp_path / "5.parquet", {"t": zoned, "v": [1]})
    with pytest.raises(InvalidTable, match=r"'t' in row 0 of .*5\.parquet is a time with a zone"):
        ingest(tmp_path / "5.parquet", tmp_path / "a.zarr", like=learned)
    with pytest.raises(InvalidTable, match=r"is a time with a zone .* had no zone"):
        recipe_of(learned).apply({"t": zoned, "v": [1]})
    with pytest.raises(InvalidTable, match=r"'t' in row 0 .*Z', which is no date without a zone"):
        recipe_of(learned).apply({"t": ["2020-01-01T00:00:00Z"], "v": [1]})


@pytest.mark.parametrize(
    ("chosen", "error", "message"),
    [
        ({"target": "y", "id_column": "y"}, ValueError, "have to be different columns"),
        ({"missing": "zero"}, ValueError, "missing='zero' is none of 'error', 'drop'"),
        ({"min_count": 0}, ValueError, "min_count=0"),
        ({"drop": "town"}, TypeError, "drop is a list of names"),
        ({"test_size": 1.0}, ValueError, "test_size=1.0 should be a share"),
        ({"random_state": -1}, ValueError, "random_state=-1"),
        ({"random_state": 0.5}, TypeError, "integer"),
        ({"codec": "gzip"}, ValueError, "codec='gzip' is none of auto"),
        ({"chunk_rows": 0}, ValueError, "chunk_rows=0"),
        ({"dtype": "int8"}, ValueError, "dtype='int8'"),
        ({"features": ["small", "small"]}, ValueError, "features names 'small' more than once"),
        ({"features": []}, InvalidTable, "no column left to make features of"),
        ({"delimiter": "||"}, ValueError, "should be one ASCII character"),
        ({"delimiter": "€"}, ValueError, "should be one ASCII character"),
        ({"delimiter": '"'}, ValueError, "has another meaning in CSV"),
    ],
)
def test_settings_that_can_not_be(tmp_path, chosen, error, message):
    refused(tmp_path, TABLE, error, message, **chosen)


def test_nothing_to_read(tmp_path):
    with pytest.raises(TableNotFound, match=r"nothing\.csv"):
        ingest(tmp_path / "nothing.csv", tmp_path / "a.zarr")


def test_columns_that_never_change_are_told(tmp_path):
    table = {"a": [7, 7], "b": [1, 2], "c": ["x", "x"]}
    (note,) = made(tmp_path, table, categorical=["c"]).notes
    assert note.startswith("the same in every training row: a, c")


HOSTILE = [
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "a\nb",
    "\x1b[31mred",
    "'; --",
    "a,b",
    "x.y",
]


def test_flags_to_paste_bring_hostile_names_back(tmp_path):
    message = refused(tmp_path, {name: ["x"] for name in HOSTILE}, match="7 columns hold text")
    (_, pasted) = shlex.split(message[message.index("--drop") :])
    assert names(pasted) == tuple(HOSTILE)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_hostile_names_are_names(tmp_path, name):
    columns = {column: [i, i + 1.0] for i, column in enumerate(HOSTILE)}
    values = {"c\n": pa.array(["\x00<b>\n", "../.."])}
    result = made(tmp_path, columns | values, name, categorical=["c\n"])
    assert result.store.feature_names == (*HOSTILE, "c\n=\x00<b>\n", "c\n=../..")
    assert sorted(os.listdir(tmp_path)) == [name, "out.zarr"]
    assert features_of(result.store)[1, : len(HOSTILE)].tolist() == [
        i + 1 for i in range(len(HOSTILE))
    ]


def test_the_width_is_said_before_it_is_written(tmp_path):
    said: list[str] = []
    table = {"c": [f"v{i}" for i in range(20_000)], "v": range(20_000)}

    def say(text):
        said.append(text)
        assert not list(tmp_path.glob("*.zarr")) + list(tmp_path.glob(".*partial"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, table, categorical=["c"], say=say)
    assert said[0].startswith(
        "20,000 rows x 20,001 columns of float32 (1.49 GiB before compression)"
    )


def test_more_categories_than_there_is_room_for(tmp_path):
    table = {"c": [f"value {i}" for i in range(300_000)], "v": range(300_000)}
    message = refused(
        tmp_path, table, CeilingExceeded, "'c' has", categorical=["c"], memory_ceiling="96MiB"
    )
    assert "leave it out (--drop c), or raise the memory ceiling" in message


def test_a_ceiling_that_is_too_small(tmp_path):
    refused(
        tmp_path, TABLE, CeilingExceeded, r"raise the memory ceiling to \d+MiB",
        memory_ceiling="20MiB", **ROLES,
    )  # fmt: skip


def on_a_disk_of(monkeypatch, free):
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def test_a_disk_that_is_too_small_is_found_before_writing(tmp_path, monkeypatch):
    on_a_disk_of(monkeypatch, 1000)
    with pytest.raises(
        OSError,
        match=r"the store takes 23\.4 KiB \(3,000 rows x 2 columns of float32\), and the "
        "disk has 1000 B left: write elsewhere",
    ) as caught:
        made(tmp_path, TABLE.select(["small", "real"]))
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_categories_that_the_disk_has_no_room_for(tmp_path, monkeypatch):
    # 2,000 rows x 2,601 columns are 19.8 MiB; compressed, a few hundred KiB.
    n = 2000
    table = {
        "name": [f"n{i}" for i in range(n)],
        "street": [f"s{i % 600}" for i in range(n)],
        "v": RNG.random(n),
    }
    on_a_disk_of(monkeypatch, 5 * 2**20)
    roles = {"categorical": ["street", "name"]}
    said: list[str] = []
    message = refused(
        tmp_path, table, OSError, r"the store takes 19\.8 MiB \(2,000 rows x 2,601 columns of floa",
        say=said.append, **roles,
    )  # fmt: skip
    assert "the disk has 5 MiB left" in message
    assert "('name' 2,000, 'street' 600 of them: --drop name,street)" in message
    assert "--min-count 50 --unseen other" in message
    assert re.search(r"compression, which may leave \d+ KiB \(--codec lz4\)", message)
    assert said[0].endswith("; the disk has 5 MiB left")
    # A user who relies on compression is refused only if the compressed store is too large.
    assert made(tmp_path, table, codec="lz4", **roles).store.n_features == 2601
    shutil.rmtree(tmp_path / "out.zarr")
    message = refused(
        tmp_path, table, OSError, r"19\.8 MiB .* write elsewhere", codec="none", **roles
    )
    on_a_disk_of(monkeypatch, 1000)
    refused(tmp_path, table, OSError, r"the store takes \d+ KiB .*1000 B", codec="lz4", **roles)


def test_values_that_are_all_rare_are_said_to_be_rare(tmp_path):
    table = {"c": [f"v{i // 3}" for i in range(90)], "v": range(90)}
    roles = {"categorical": ["c"], "unseen": "other", "min_count": 50}
    message = refused(tmp_path, table, match="'c' has 30 values, and none of them 50 tra", **roles)
    assert "but 3 at most; leave it out with --drop c, or take a smaller count" in message


def test_text_with_many_values_is_no_category_to_paste(tmp_path):
    n = 3000
    table = {"town": ["x", "y"] * (n // 2), "name": [f"n{i}" for i in range(n)]}
    message = refused(tmp_path, table, match="2 columns hold text")
    assert "town: such as 'x', 'y'\n" in message
    assert "3,000 values in the first 3,000 rows, too many to make a feature of each" in message
    assert "--categorical town --drop name\n" in message
    message = refused(tmp_path, {"name": table["name"], "v": range(n)}, match="1 column holds")
    assert "--categorical" not in message


@pytest.mark.parametrize("rows", [300, 3000])
def test_numbers_that_are_text_are_no_classes(tmp_path, rows):
    values = [f"{i + 0.5}" for i in range(rows)]
    values[rows // 2] = "-"
    table = {"Age (years)": range(rows), "Annual income (USD)": values}
    roles = {"target": "Annual income (USD)", "features": ["Age (years)"]}
    for name in ("a.csv", "a.parquet"):
        (tmp_path / "a.parquet").unlink(missing_ok=True)
        message = refused(tmp_path, table, match="holds text, with", name=name, **roles)
        assert f"{rows:,} values in {rows:,} rows, numbers but for 1 (such as '-')" in message
        (tmp_path / name).unlink()
    # Beyond the first rows, of which all labels may be few.
    late = ["a", "b"] * 100_000 + [f"{i}x" for i in range(1500)]
    table = {"y": late, "v": range(len(late))}
    refused(tmp_path, table, match=r"'y' holds text, with 1,\d+ values in", target="y")
    said: list[str] = []
    roles = {"target": "y", "task": "classification"}
    result = made(tmp_path, table, say=said.append, **roles)
    assert "raw column, with 1,502 classes; the disk has" in said[0]
    assert result.store.classes is not None
    assert len(result.store.classes) == 1502
    assert any("the target has 1,502 classes" in note for note in result.notes)


def test_more_classes_than_there_is_room_for(tmp_path):
    table = {"y": [f"value {i}" for i in range(300_000)], "v": range(300_000)}
    message = refused(
        tmp_path, table, CeilingExceeded, "the target 'y' has", target="y", task="classification",
        memory_ceiling="110MiB",
    )  # fmt: skip
    assert "choose another --target, or raise the memory ceiling" in message


# Files and settings that nobody means


@pytest.mark.parametrize(
    "encoding", ["zlib", "rot13", "hex", "undefined", "no such", "", "a\0b", "x" * 10_000]
)
def test_what_is_no_encoding_of_text(tmp_path, encoding):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"^encoding=.* is unknown; utf8 and latin1 are common$"):
        ingest(tmp_path / "a.csv", tmp_path / "a.zarr", encoding=encoding)


BEYOND = [
    pa.array([0, 2_932_897], pa.int32()).cast(pa.date32()),
    pa.array([0, -719_163], pa.int32()).cast(pa.date32()),
    pa.array([0, 253_402_300_800_000]).cast(pa.date64()),
    pa.array([0, 10**14]).cast(pa.timestamp("s")),
    pa.array([0, 2**63 - 1]).cast(pa.timestamp("us")),
]


@pytest.mark.parametrize("dates", BEYOND)
def test_dates_beyond_the_years_that_there_are(tmp_path, dates):
    table = {"d": dates, "v": [1, 2]}
    message = refused(tmp_path, table, match="column 'd' (in|from) row")
    assert re.search(r"beyond the years 1 to 9999|can't be used", message)
    if pa.types.is_timestamp(dates.type):
        return
    refused(tmp_path, table, match="can't be taken as a category", categorical=["d"])


def test_the_first_and_the_last_day_that_there_are(tmp_path):
    days = pa.array([-719_162, 2_932_896], pa.int32()).cast(pa.date32())
    store = made(tmp_path, {"d": days, "v": [1, 2]}, shuffle=False).store
    assert features_of(store)[:, 0].tolist() == [0, 3_652_058]
    (tmp_path / "b.csv").write_text("d,v\n0000-01-01,1\n2020-01-01,2\n")
    with pytest.raises(InvalidTable, match=r"'d' in row 0 .* is beyond the years 1 to 9999"):
        ingest(tmp_path / "b.csv", tmp_path / "b.zarr")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.csv.gz"])
@pytest.mark.parametrize("what", ["pipe", "device"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path, name, what):
    lay(tmp_path / name, what)
    with pytest.raises(InvalidTable, match=rf"{name} is a {what}, and no file; name files of CSV"):
        ingest(tmp_path / name, tmp_path / "a.zarr")


@pytest.mark.parametrize("claimed", [2**31, 2**32 - 1])
def test_a_footer_without_end(tmp_path, claimed):
    write(tmp_path / "a.parquet", {"a": [1]})
    with open(tmp_path / "a.parquet", "r+b") as file:
        file.truncate(10**11)  # a hole, which takes no disk
        file.seek(0, os.SEEK_END)
        file.write(claimed.to_bytes(4, "little") + b"PAR1")
    with pytest.raises(InvalidTable, match=rf"a\.parquet claims a footer of {claimed:,} bytes"):
        ingest(tmp_path / "a.parquet", tmp_path / "a.zarr")


@pytest.mark.parametrize(
    "notes", ['{"index_columns": 3}', '{"index_columns": [{}]}', '{"a":' * 50_000]
)
def test_notes_of_pandas_that_say_nothing(tmp_path, notes):
    table = pa.table({"a": [1, 2]}).replace_schema_metadata({"pandas": notes})
    assert made(tmp_path, table).store.n_rows == 2


def test_a_note_of_arrow_that_is_damaged(tmp_path):
    write(tmp_path / "a.parquet", {"a": [1, 2]})
    blob = bytearray((tmp_path / "a.parquet").read_bytes())
    note = blob.index(b"ARROW:schema") + 20
    blob[note : note + 8] = b"!!!!!!!!"
    (tmp_path / "a.parquet").write_bytes(blob)
    with pytest.raises(InvalidTable, match=r"a\.parquet .*can't be read"):
        ingest(tmp_path / "a.parquet", tmp_path / "a.zarr")


def test_text_of_parquet_that_is_none(tmp_path):
    table = pa.table({"c": pa.array([b"a", b"\xff", b"a"]), "v": [1, 2, 3]})
    raw = table.set_column(0, "c", table["c"].combine_chunks().view(pa.string()))
    for roles in ({}, {"categorical": ["c"]}):
        refused(tmp_path, raw, match="(?s)column 'c' .* can't be (read|taken)", **roles)


# What was there stays


@pytest.mark.parametrize("after", [0, 1, 5, 20, 40])
def test_a_disk_that_fills_up(tmp_path, monkeypatch, after):
    made(tmp_path, TABLE, test_size=0.2, **ROLES)
    before = contents(tmp_path)
    calls, write_all, write_some = itertools.count(), shard_writer._write_all, os.write

    def full(file, data):
        if next(calls) >= after:
            raise OSError(errno.ENOSPC, "No space left on device")
        return (write_some if isinstance(file, int) else write_all)(file, data)

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(shard_writer, "_write_all", full)
    with pytest.raises(OSError, match="disk is full: free some room"):
        made(tmp_path, TABLE, test_size=0.2, chunk_rows=64, overwrite=True, random_state=9, **ROLES)
    assert contents(tmp_path) == before


def test_a_failure_late_in_the_training_rows_leaves_the_old_test_rows(tmp_path):
    made(tmp_path, TABLE, test_size=0.2, **ROLES)
    before = contents(tmp_path)

    def stop(stage, rows, share):
        if stage == "writing" and share > 0.99:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, TABLE, test_size=0.2, overwrite=True, progress=stop, chunk_rows=64, **ROLES)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["out.zarr", "out.test.zarr"])
def test_an_output_that_exists_is_refused_before_anything_is_read(tmp_path, name):
    made(tmp_path, TABLE, **ROLES)
    os.rename(tmp_path / "out.zarr", tmp_path / name)
    with pytest.raises(OutputExists, match="replace it by overwrite=True"):
        ingest(tmp_path / "nothing.csv", tmp_path / "out.zarr", test_size=0.2)
    result = made(tmp_path, TABLE, test_size=0.5, overwrite=True, **ROLES)
    assert (result.store.n_rows, open_store(tmp_path / "out.test.zarr").n_rows) == (1500, 1500)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_that_shrinks_while_it_is_read(tmp_path, kind):
    source = tmp_path / f"a.{kind}"
    table = pa.table({f"c{i}": RNG.random(50_000) for i in range(40)})
    if kind == "csv":
        write(source, table)
    else:
        pq.write_table(table, source, row_group_size=5_000)

    def cut(stage, rows, share):
        content = source.read_bytes()
        os.truncate(source, content.index(b"\n", len(content) // 2) + 1)

    with pytest.raises(InvalidTable, match="cut it meanwhile" if kind == "csv" else "restore it"):
        ingest(source, tmp_path / "a.zarr", progress=cut)
    assert os.listdir(tmp_path) == [source.name]
