"""The reader of small files takes regular files, of a stated size, that hold what was declared."""

import json
import os
import socket
import tracemalloc

import pytest

from ooc_train.core.files import (
    MOST_DEPTH,
    FileKind,
    open_regular,
    parse_json,
    read_bytes,
    read_json,
    read_start,
    reading,
    require_regular,
)
from ooc_train.core.schema import (
    anything,
    flag,
    integer,
    list_of,
    mapping_of,
    number,
    numbers,
    one_of,
    or_none,
    record,
    require,
    scalar,
    text,
    texts,
)
from ooc_train.errors import InvalidStore

KIND = FileKind("a note", 1_000_000, InvalidStore, "restore it from a copy")


def lay(path, kind):
    """Put something at a path that is no regular file."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))


@pytest.mark.timeout(10)
@pytest.mark.parametrize("what", ["folder", "pipe", "device", "socket"])
@pytest.mark.parametrize("read", [read_bytes, read_json, open_regular, require_regular])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, monkeypatch, what, read):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    place = tmp_path / "note"
    lay(place.relative_to(tmp_path), what)
    with pytest.raises(InvalidStore, match=r"note is a .* and no file; restore it from a copy$"):
        read(place, KIND)
    assert read_start("note", 4) == b""


def test_a_link_to_a_file_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"{}")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read_json(tmp_path / "b", KIND) == {}
    with reading(tmp_path / "b", KIND) as file:
        assert file.read() == b"{}"
    assert read_start(tmp_path / "b", 1) == b"{"


def test_what_is_not_there_is_the_callers_to_say(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "nothing", KIND)
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        read_bytes(tmp_path / "a" / "b", KIND)
    with pytest.raises(InvalidStore, match="has a NUL in its name"):
        read_bytes(f"{tmp_path}/a\0b", KIND)


def test_a_file_beyond_its_limit_is_not_read(tmp_path):
    path = tmp_path / "note"
    with open(path, "wb") as file:
        file.truncate(10**12)  # a hole, which takes no disk
    tracemalloc.start()
    with pytest.raises(InvalidStore, match=r"000,000 bytes, and a note takes at most 1,0"):
        read_bytes(path, KIND)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()
    path.write_bytes(b"x" * KIND.limit)
    assert len(read_bytes(path, KIND)) == KIND.limit
    assert len(read_bytes("/proc/self/stat", KIND)) > 10  # which says that it has 0 bytes


def test_a_file_that_grows_while_it_is_read_keeps_its_limit(tmp_path, monkeypatch):
    path = tmp_path / "note"
    path.write_bytes(b"x" * 100)
    read = os.read

    def growing(descriptor, size):
        with open(path, "ab") as file:
            file.write(b"x" * 999_000)
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", growing)
    with pytest.raises(InvalidStore, match="has more than 1,000,000 bytes"):
        read_bytes(path, KIND)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is not valid JSON"),
        (b'{"a": 1', "is not valid JSON"),
        (b"[]", "holds no JSON object"),
        (b'{"a": NaN}', r"is not valid JSON \(NaN is no number of JSON's\)"),
        (b'{"a": [-Infinity]}', "-Infinity is no number"),
        (b'{"a": {"b": 1, "b": 1}}', "the key 'b' stands twice in one object"),
        (b'{"a": ' + b"9" * 5000 + b"}", r"is not valid JSON \(Exceeds the limit"),
        (b'{"a": "\xff"}', r"is no text in UTF-8 \(at byte 7\)"),
        (b'\xef\xbb\xbf{"a": 1}', "is not valid JSON"),
        (b'{"a": "\\ud800"}', "holds half a character"),
        (b'{"a":' * 100_000, "more than 64 lists and objects within one another"),
        (b'{"a":' + b"[" * MOST_DEPTH + b"]" * MOST_DEPTH + b"}", "more than 64 lists"),
    ],
)
def test_json_that_surprises_is_refused(tmp_path, content, why):
    (tmp_path / "note").write_bytes(content)
    with pytest.raises(InvalidStore, match=rf"note .*{why}.*; restore it from a copy$"):
        read_json(tmp_path / "note", KIND)
    with pytest.raises(ValueError, match=why):
        parse_json(content)


def test_json_that_does_not_surprise_is_read(tmp_path):
    deep = b"[" * (MOST_DEPTH - 1) + b"]" * (MOST_DEPTH - 1)
    content = b'{"a": 1e400, "b": "\\ud83d\\ude00", "c": ' + deep + b', "d": NaN}'
    (tmp_path / "note").write_bytes(content)
    found = read_json(tmp_path / "note", KIND, constants=True)
    assert (found["a"], found["b"]) == (float("inf"), "\U0001f600")
    assert found["d"] != found["d"]


def test_json_of_too_many_values_is_refused_before_it_is_parsed(tmp_path):
    (tmp_path / "note").write_bytes(b'{"a": [' + b"[]," * 2**23 + b"[]]}")
    kind = FileKind("a note", 2**28, InvalidStore, "restore it")
    with pytest.raises(InvalidStore, match="holds more than 16,777,216 values; restore it"):
        read_json(tmp_path / "note", kind)


CHECK = record(
    {"name": text, "n": integer(0, 10), "sizes": numbers(least=2, most=2)},
    optional={"on": flag, "kind": one_of("a", 1), "more": or_none(mapping_of(list_of(text)))},
)
GOOD = {"name": "x", "n": 3, "sizes": [1, 2.5]}


@pytest.mark.parametrize(
    "more", [{}, {"on": True}, {"kind": 1}, {"more": None}, {"more": {"b": ["c"]}}, {"other": []}]
)
def test_what_was_declared_is_taken(more):
    require(GOOD | more, CHECK, "note", KIND)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": 1}, "name is 1, which is no text"),
        ({"n": 11}, "n is 11, which is no whole number from 0 to 10"),
        ({"n": 2.0}, "n is 2.0, which is no whole"),
        ({"n": True}, "n is True, which is no whole"),
        ({"n": 10**4000}, r"n is a number of 13,288 bits, which"),
        ({"sizes": 3}, "sizes is 3, which is no list"),
        ({"sizes": [1]}, "sizes has 1 items, and 2 are due"),
        ({"sizes": [1, "2"]}, r"sizes\[1\] is '2', which is no finite number"),
        ({"sizes": [1, float("nan")]}, r"sizes\[1\] is nan, which is no finite number"),
        ({"sizes": [1, 10**400]}, r"sizes\[1\] is a number of 1,329 bits"),
        ({"on": 1}, "on is 1, which is no true or false"),
        ({"kind": True}, "kind is True, which is no one of 'a', 1"),
        ({"more": []}, r"more is \[\], which is no object"),
        ({"more": {"b c": ["d", None]}}, r"more.'b c'\[1\] is None, which is no text"),
        ({"name": {str(i): i for i in range(99)}}, "name is an object of 99 values"),
    ],
)
def test_what_was_not_declared_is_refused_by_its_place(change, why):
    with pytest.raises(InvalidStore, match=rf"^note: {why}.*; restore it from a copy$"):
        require(GOOD | change, CHECK, "note", KIND)


def test_what_is_missing_or_unknown_is_refused():
    with pytest.raises(InvalidStore, match=r"note: attributes\.sizes is missing"):
        require({"name": "x", "n": 1}, CHECK, "note", KIND, inside="attributes")
    with pytest.raises(InvalidStore, match="'b c' is none that is known here"):
        require({"a": 1, "b c": 1}, record({"a": anything}, others=False), "note", KIND)


@pytest.mark.parametrize("value", ["a", True, 1, -1.5])
def test_labels_are_scalars(value):
    scalar(value, "")


@pytest.mark.parametrize("value", [None, [], {}, float("inf")])
def test_other_values_are_no_labels(value):
    with pytest.raises(ValueError, match="which is no text, number or truth value"):
        scalar(value, "classes")


def test_numbers_and_texts_have_bounds():
    number(0.0)(0, "a")
    number(finite=False)(float("nan"), "a")
    for check, value in ((number(0.0), -1), (number(), float("inf")), (number(), True)):
        with pytest.raises(ValueError, match="which is no finite number"):
            check(value, "a")
    texts(least=1)(["b"], "a")
    with pytest.raises(ValueError, match=r"a\[1\] is 1, which is no text"):
        texts()(["b", 1], "a")


def test_a_note_as_it_was_written_comes_back(tmp_path):
    note = {"a": [1, 2.5, "\u00e4", None, True], "b": {"c": []}}
    (tmp_path / "note").write_text(json.dumps(note))
    assert read_json(tmp_path / "note", KIND) == note
