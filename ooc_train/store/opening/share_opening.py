"""Opening of a share: its store is recognised, and then restricted to the rows of the share."""

from collections.abc import Collection
from dataclasses import replace

from ooc_train.core.text import counted
from ooc_train.errors import InvalidStore, StoreChanged
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.format.shares import StoreShare
from ooc_train.store.opening.fingerprint import change_since

_ROLES = ("X", "y", "sample_weight", "row_id")

_BY_ROLE = {"X": "X", "y": "y", "sample_weight": "sample_weight", "fill_missing": False}
"""Arguments of `open_store` for a share: its file names the arrays."""


def share_of(store: Store, share: StoreShare, path: str, others: Collection[str]) -> Store:
    """Return a share of a store, as it is opened without the name of an array.

    Statistics and counts of all rows are none of the share. Rows that were appended later are not
    in use.

    Parameters
    ----------
    store : Store
        The store that lies where the share's did.
    share : StoreShare
        Which rows.
    path : str
        The file of the share.
    others : collection of str
        Roles of arrays that are not compared with those that the store was split with: others were
        named on purpose.

    Raises
    ------
    StoreChanged
        If the store or an array is not the one that was split, with the command that splits again.
    InvalidStore
        If X has other chunks than the X that was split.
    """
    if store.store_id != share.store_id or store.n_rows < share.n_stored:
        why = "it was replaced since"
        if not share.store_id and not store.store_id:
            why = f"it has {counted(store.n_rows, 'row')}, and had {share.n_stored:,}"
        raise StoreChanged(
            f"{store.path} is not the store that {path} is a share of: {why}; split it again: "
            f"{share.split_command(path)}"
        )
    for role in _ROLES if share.contents else ():
        if role not in others and (change := _change(store, share, role)):
            raise StoreChanged(
                f"{store.path} is not what it was when {path} was split from it: {change}; split "
                "it again, and train anew unless its rows are the same: "
                f"{share.split_command(path)}"
            )
    if store.X.part_rows != share.chunk_rows:
        raise InvalidStore(
            f"{path} is a share of chunks of {counted(share.chunk_rows, 'row')}, and "
            f"{store.X.path} is read by {store.X.part_rows:,}; leave out X=, or "
            "split the store again"
        )
    n = share.n_stored
    return replace(
        store,
        path=path,
        X=store.X.with_rows(n),
        y=store.y and store.y.with_rows(n),
        sample_weight=store.sample_weight and store.sample_weight.with_rows(n),
        row_id=store.row_id and store.row_id.with_rows(n),
        n_rows=share.n_rows,
        class_counts=None,
        statistics=None,
        shuffled=share.shuffled,
        pair=None,
        share=share,
        opened=_BY_ROLE,
    )


def _change(store: Store, share: StoreShare, role: str) -> str:
    """Return what of an array without the store's id is not as it was; "" if nothing."""
    layout: ArrayLayout | None = getattr(store, role)
    then = share.contents.get(role)
    if layout is None:
        return "" if then is None else f"its array {share.arrays.get(role, role)} is gone"
    place = layout.place(store.path)
    if then is not None:
        change = change_since(then, layout, share.n_stored)
        return change and f"of {place}, {change}"
    return "" if layout.store_id and layout.store_id == store.store_id else f"{place} was added"
