"""Shares of the rows of a store, for training, test and cross-validation, without a copy.

Whole chunks are drawn at random. In a store whose rows lie in random order, these are random rows.
"""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ooc_train.core.atomic import PartialOutput
from ooc_train.core.output_kinds import SPLIT, explain_os_errors
from ooc_train.core.places import local_path, may_tell_secret
from ooc_train.core.random_share import RandomShare
from ooc_train.core.renames import sync_file, sync_folder
from ooc_train.core.settings import LARGEST_SEED, Count, Number
from ooc_train.core.text import counted
from ooc_train.store.dataset import Store
from ooc_train.store.format.shares import StoreShare
from ooc_train.store.jobs.rewriting_commands import (
    shuffle_command,
    smaller_chunks_command,
    why_unordered,
)
from ooc_train.store.jobs.store_records import arrays_of
from ooc_train.store.opening.fingerprint import fingerprint_of
from ooc_train.store.opening.opener import open_store
from ooc_train.store.opening.share_opening import share_of
from ooc_train.store.reading.direct import require_same_store
from ooc_train.tables.names import SHARE_SUFFIX

Places = tuple[tuple[int, int], ...]


def split_store(
    store: str | os.PathLike[str] | Store,
    out: str | os.PathLike[str] | None = None,
    *,
    test: float | None = None,
    folds: int | None = None,
    random_state: int = 0,
    by_chunks: bool = False,
    overwrite: bool = False,
) -> dict[str, Store]:
    """Split the rows of a store into shares, small files that name chunks of the store.

    A share is accepted wherever a store is, to read from it. No row is read or copied.

    A share recognises its store when it is opened: a store of this package by its id, and arrays of
    another writer by fingerprints: their metadata, and size and time of change of their files of
    chunks (at a URL: size and ETag, or what is told in its place). So the share is refused once an
    array was written anew. On disk, this holds for the same values too, and for a copy without the
    times of its files. Of more than 4,096 files of an array (at a URL 128), so many evenly spaced
    ones are compared, and a write to others alone goes unnoticed. So does a write that keeps both
    size and time.

    Parameters
    ----------
    store : str, path or Store
        The store, of this package or of another writer. Shares keep the names of the arrays that
        it was opened with, so whoever opens a share names none.
    out : str, path or None
        The folder of the shares' files; None is one beside the store, "a.split" of "a.zarr".
    test : float or None
        About which part of the rows is the share "test"; the rest is the share "train".
    folds : int or None
        In how many folds the rows are cut, or those of the share "train" with `test`. The share
        "fold1.test" is the first fold, and "fold1.train" is all others.
    random_state : int
        Seed of the order in which chunks are drawn, `default_rng(seed).permutation(chunks)`. The
        first of them are the share "test", and the folds follow.
    by_chunks : bool
        Whether whole chunks are drawn though the rows of the store are not known to be in random
        order, as those of other writers never are.
    overwrite : bool
        Whether an earlier split at `out` is replaced.

    Returns
    -------
    dict of str to Store
        The shares by their names. Rows that are appended to the store later belong to none. If
        another program appends them into the last file of an array, the shares are refused.

    Raises
    ------
    InvalidStore
        If the store is a share itself, or files of its chunks have unknown names.
    StoreChanged
        If the store was replaced since it was opened.
    OutputExists, OSError
        If `out` exists, or nothing can be written there.
    ValueError
        If rows are in no random order, if there are too few chunks, or if the store or an array is
        a URL with a password or a token, or an object of zarr-python without a path.

    Examples
    --------
    >>> from ooc_train import make_data, split_store
    >>> store = make_data("made.zarr", rows=100_000, features=20)
    >>> shares = split_store("made.zarr", test=0.2)
    >>> {name: share.n_rows for name, share in shares.items()}
    {'train': 81280, 'test': 18720}
    """
    source = store if isinstance(store, Store) else open_store(store)
    source.require_whole("split")
    test = Number((None,), above=0.0).check("test", test)
    folds = Count((None,), least=2).check("folds", folds)
    seed = Count(least=0, most=LARGEST_SEED).check("random_state", random_state)
    if test is None and folds is None:
        raise ValueError("nothing to split into; set test=0.2, folds=5, or both")
    if test is not None and test >= 1:
        raise ValueError(f"test={test:g} leaves no row to learn from; it is below 1")
    arrays = _arrays(source)
    _require_named(source, arrays)
    if not by_chunks and (why := why_unordered(source)):
        raise ValueError(
            f"{why}; if you know that they are in random order, draw chunks as they are, "
            "by_chunks=True; or keep rows of one fit out without a split, by `ooc-train train "
            "--validation-fraction 0.2`, which draws chunks too; or copy the rows in random order: "
            f"{shuffle_command(source.path, arrays_of(source))}"
        )
    place = _place(source) if out is None else local_path(out)
    size = source.X.part_rows
    n = -(-source.n_rows // size)
    _require_chunks(source, n, (0 if test is None else 1) + (folds or 1))
    contents = _contents(source)
    with PartialOutput(place, SPLIT, overwrite=overwrite) as output:
        shares = []
        for name, places in _shares(n, test, folds):
            drawn = RandomShare(n, places, seed)
            share = StoreShare(
                name,
                source.path,
                source.store_id,
                source.shuffled,
                source.n_rows,
                size,
                drawn,
                arrays,
                contents,
                {"test": test, "folds": folds},
            )
            shares.append(share)
            file = os.path.join(output.partial_path, name + SHARE_SUFFIX)
            with explain_os_errors(place), open(file, "w", encoding="utf-8") as text:
                json.dump(share.to_json(place), text)
                sync_file(text)
        sync_folder(output.partial_path)
        output.commit()
    # What was recognised just now is not looked at again, which takes a second a share at a URL.
    return {
        share.name: share_of(
            source, share, os.path.join(place, share.name + SHARE_SUFFIX), arrays_of(source)
        )
        for share in shares
    }


def _require_named(source: Store, arrays: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless a file may name the store and its arrays, and can."""
    if any(map(may_tell_secret, (source.path, *map(str, arrays.values())))):
        raise ValueError(
            "the URL of the store or of an array holds a password or a token, which files of "
            "shares would keep; open it by a URL without one, with credentials in the environment"
        )
    for role, layout in arrays_of(source).items():
        if layout.source is not None and "://" not in layout.path:
            raise ValueError(
                f"{role} is an object of zarr-python, {layout.path}, which no file of a share can "
                "name; open it by a path or a URL, with credentials in the environment"
            )


def _contents(source: Store) -> dict[str, dict[str, str]]:
    """Return fingerprints of the arrays that do not repeat the id of the store.

    `StoreChanged` is raised if one was replaced since the store was opened.
    """
    for layout in arrays_of(source).values():
        require_same_store(layout)
    return {
        role: fingerprint_of(layout, source.n_rows)
        for role, layout in arrays_of(source).items()
        if not layout.store_id or layout.store_id != source.store_id
    }


def _arrays(source: Store) -> dict[str, Any]:
    """Return the arguments that open the arrays of a store, with paths from the store.

    Those that are the defaults are left out. Weights that were left out are None.
    """
    found: dict[str, Any] = {
        role: layout.place(source.path)
        for role, layout in arrays_of(source).items()
        if role != "X" or layout.path != source.path  # A store that is an array is X itself.
    }
    for role, place in found.items():
        if os.path.isabs(place) and "://" not in source.path:
            found[role] = os.path.relpath(place, source.path)
    if source.opened.get("sample_weight", "") is None:
        found["sample_weight"] = None
    found = {role: place for role, place in found.items() if place != role}
    filled = any(layout.fill_value is not None for layout in arrays_of(source).values())
    return found | ({"fill_missing": True} if filled else {})


def _shares(n: int, test: float | None, folds: int | None) -> Iterator[tuple[str, Places]]:
    """Yield the name of each share, and its places in the random order of `n` chunks."""
    first = 0
    if test is not None:
        first = min(max(1, round(test * n)), n - (folds or 1))
        yield "train", ((first, n),)
        yield "test", ((0, first),)
    for i in range(folds or 0):
        begin, end = (first + (n - first) * k // (folds or 1) for k in (i, i + 1))
        others = ((first, begin), (end, n))
        yield f"fold{i + 1}.train", tuple(each for each in others if each[0] < each[1])
        yield f"fold{i + 1}.test", ((begin, end),)


def _place(source: Store) -> str:
    """Return the folder of shares beside a store."""
    if "://" in source.path:
        raise ValueError(f"{source.path} is a URL; name a local folder for the shares, out=")
    return os.path.splitext(source.path.rstrip("/"))[0] + ".split"


def _require_chunks(source: Store, n: int, needed: int) -> None:
    """Raise `ValueError` if there are fewer chunks than shares."""
    if n < needed:
        rows = max(1, source.n_rows // (20 * needed))
        raise ValueError(
            f"{source.path} has {counted(n, 'chunk')} of {counted(source.X.part_rows, 'row')}, and "
            f"{needed:,} are "
            "needed, better 20 for each share; make smaller ones: "
            f"{smaller_chunks_command(source, rows)}"
        )
