"""Ways to spoil a file: its JSON in one place, its bytes in one place, or the file as such."""

import copy
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Values = tuple[str | int, ...]

_DEEP = 3000
_WRONG: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 7, 10**9, 2**63, 10**30, 0.5, -0.0, 1e308, "", "x"),
    *("0", "NaN", "é\n\x1b[31m", [], {}, [[]], ["x"], [0], {"x": 0}, "f" * 100_000),
    *(float("nan"), float("inf")),
)
"""Values that are put in the place of others, of whatever type."""


def places_of(value: Any, place: Values = ()) -> Iterator[Values]:
    """Yield the place of each value within JSON, the whole excepted."""
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value[:6])
        if isinstance(value, list)
        else ()
    )
    for key, child in children:
        yield (*place, key)
        yield from places_of(child, (*place, key))


def spoil_json(text: str, rng: random.Random, root: Values = ()) -> tuple[str, str]:
    """Change one place of JSON; return the text, and what was changed.

    Parameters
    ----------
    root : the place that what is changed lies in
    """
    found = json.loads(text)
    part = found
    for key in root:
        part = part[key]
    # A level first, so that long lists deep within don't take all.
    places = list(places_of(part))
    depth = rng.choice(sorted({len(place) for place in places}))
    place = (*root, *rng.choice([p for p in places if len(p) == depth]))
    *path, last = place
    holder: Any = found
    for key in path:
        holder = holder[key]
    old = holder[last]
    name = ".".join(map(str, place))
    way = rng.choice(("remove", "wrong", "wrong", "near", "near", "rename", "deep"))
    if way == "remove":
        del holder[last]
        return json.dumps(found), f"{name} removed"
    if way == "rename" and isinstance(holder, dict):
        holder[f"{last}x"] = holder.pop(last)
        return json.dumps(found), f"{name} renamed"
    if way == "deep" and rng.random() < 0.2:
        holder[last] = "DEEP"
        return json.dumps(found).replace('"DEEP"', "[" * _DEEP + "]" * _DEEP), f"{name} nested"
    new = _near(old, rng) if way == "near" else copy.deepcopy(rng.choice(_WRONG))
    holder[last] = new
    return json.dumps(found), f"{name}: {_short(old)} became {_short(new)}"


def _near(value: Any, rng: random.Random) -> Any:
    """Return another value of the same type: one that looks right."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((value // 2, value * 2, value + 1, value - 1, -value))
    if isinstance(value, float):
        return rng.choice((value / 2, value * 2, value + 1, -value, round(value)))
    if isinstance(value, str):
        return rng.choice((value + "x", value[:-1], value.upper(), value[::-1]))
    if isinstance(value, list) and value:
        return rng.choice((value[:-1], value[::-1], [*value, value[-1]], value * 2))
    if isinstance(value, dict):
        return rng.choice(({}, {**value, "unknown": 1}))
    return 0


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:50]}..."


_BYTES = tuple(bytes([byte]) for byte in b'"{}[],;:0-eN\n\r\\ \x00\xff')


def spoil_bytes(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Change some bytes; return them all, and what was changed."""
    place = rng.randrange(len(content)) if content else 0
    ways: dict[str, Callable[[], bytes]] = {
        "a bit flipped": lambda: (
            content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
        ),
        "cut": lambda: content[:place],
        "bytes put in": lambda: content[:place] + rng.randbytes(3) + content[place:],
        "bytes taken out": lambda: content[:place] + content[place + 3 :],
        "zeros": lambda: (
            content[:place] + bytes(len(content[place : place + 16])) + content[place + 16 :]
        ),
        "another byte": lambda: content[:place] + rng.choice(_BYTES) + content[place + 1 :],
    }
    way = rng.choice(sorted(ways))
    return ways[way](), f"{way} at byte {place:,} of {len(content):,}"


def _fifo(path: str) -> None:
    os.mkfifo(path)


def _linked(target: str) -> Callable[[str], object]:
    return lambda path: os.symlink(target, path)


def _huge(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b"{")
        file.truncate(20 * 2**30)


def _nothing(path: str) -> None:
    pass


FILES: dict[str, Callable[[str], object]] = {
    "is missing": _nothing,
    "is empty": lambda path: Path(path).write_bytes(b""),
    "is a folder": os.mkdir,
    "is a FIFO": _fifo,
    "is a link to /dev/zero": _linked("/dev/zero"),
    "is a link to /dev/full": _linked("/dev/full"),
    "is a link to itself": lambda path: os.symlink(os.path.basename(path), path),
    "is a link to /proc/self/mem": _linked("/proc/self/mem"),
    "is 20 GiB long": _huge,
    "is brackets, 200,000 deep": lambda path: Path(path).write_text("[" * 200_000),
    "is no UTF-8": lambda path: Path(path).write_bytes(b"\xff\xfe{}"),
    "is null": lambda path: Path(path).write_text("null"),
    "is a list": lambda path: Path(path).write_text("[1]"),
    "is an empty object": lambda path: Path(path).write_text("{}"),
    "is a number of 5,000 digits": lambda path: Path(path).write_text("9" * 5000),
}
"""What may lie in the place of a file."""


def spoil_file(path: str, rng: random.Random, way: str | None = None) -> str:
    """Put something else in the place of a file; return what."""
    way = way or rng.choice(sorted(FILES))
    if os.path.lexists(path):
        os.unlink(path)
    FILES[way](path)
    return way
