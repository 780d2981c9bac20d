"""Inputs from a store; classes and totals of weights are read from its manifest or its arrays."""

from collections.abc import Sequence

import numpy as np

from ooc_train.core.text import listed
from ooc_train.errors import InvalidStore, NonFiniteData
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling
from ooc_train.store.dataset import Store
from ooc_train.store.format.arrays import ArrayLayout
from ooc_train.store.jobs.rewriting_commands import rechunk_command, small_chunks_note
from ooc_train.store.jobs.store_records import arrays_of
from ooc_train.store.labels import has_labels, labels_term, one_column, with_classes
from ooc_train.stream.checks import not_one_column
from ooc_train.stream.classes import Label, labels_of
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.store_source import StoreSource


def require_memory_for_labels(
    store: Store, memory_ceiling: str | int | Ceiling | None, *, classifier: bool
) -> None:
    """Raise `CeilingExceeded` if a chunk of labels or weights does not fit the ceiling."""
    weighted = store.sample_weight is not None and store.statistics is None
    counted = store.classes is not None and store.share is None
    arrays = [store.y] if weighted or (classifier and not counted) else []
    require_memory_to_read(
        store, [*arrays, store.sample_weight if weighted else None], memory_ceiling
    )


def require_memory_to_read(
    store: Store,
    arrays: Sequence[ArrayLayout | None],
    memory_ceiling: str | int | Ceiling | None,
) -> None:
    """Raise `CeilingExceeded` if a chunk of one of these arrays does not fit the ceiling."""
    layouts = [layout for layout in arrays if layout is not None]
    if not layouts:
        return
    with Budget(memory_ceiling) as budget:
        budget.require(
            [labels_term(*layouts)],
            "rewrite the store in smaller chunks: "
            + rechunk_command(store.whole_path, arrays_of(store)),
            alone="looking at labels and weights",
        )


def read_store(store: Store, *, classifier: bool, classes: tuple[Label, ...]) -> Inputs:
    """Return the inputs of a store, or raise `InvalidStore` if y is missing or of a wrong kind."""
    if store.y is None:
        made_of_table = store.recipe is not None
        raise InvalidStore(
            f"{store.path} has no y, and training needs one; "
            + ("ingest its table again, with --target NAME; or " if made_of_table else "")
            + "name it, as open_store(path, y=NAME), or put one into the store"
        )
    if not classifier and has_labels(store.y):
        raise InvalidStore(
            f"{store.path} has labels of classes in y, and a regression needs numbers; name an "
            "array of numbers, as open_store(path, y=NAME), or train a classifier, such as "
            "'logistic'"
        )
    labels = None
    found: tuple[Label, ...] = ()
    notes = [*store.notes, *filter(None, [small_chunks_note(store)])]
    if not classifier and store.classes is not None:
        notes.append(_numeric_classes_note(store.path, store.classes))
    if classifier:
        store = one_column(store)
        if store.y is not None and store.y.row_shape:
            raise InvalidStore(
                f"{store.path} has a {not_one_column(store.y.shape, 'y of')}; write that array, "
                "and name it, as open_store(path, y=NAME)"
            )
        try:
            store = with_classes(store, classes)
            found, labels = labels_of(store, classes)
        except NonFiniteData as error:
            if has_labels(store.y):
                raise  # a category that is missing has no code to drop it by
            command = rechunk_command(store.whole_path, arrays_of(store), missing="median")
            raise error.with_command(command) from None
    source = StoreSource.of(store, labels=labels)
    statistics, weighted = store.statistics, store.sample_weight is not None
    if statistics is not None and statistics.weighted != weighted:
        statistics = None
    weight = totals = None
    if not weighted:
        weight = float(store.n_rows)
        if classifier and store.class_counts is not None:
            totals = np.array(store.class_counts, np.float64)
    elif statistics is not None:
        weight = statistics.weight
    return Inputs(
        source,
        "store",
        found,
        totals,
        weight,
        statistics,
        store.feature_names,
        store,
        tuple(notes),
        row_shape=store.row_shape,
    )


def _numeric_classes_note(path: str, classes: tuple[Label, ...]) -> str:
    """Return the note of a regression on classes, whose codes must equal their labels."""
    if any(isinstance(label, str) or label != code for code, label in enumerate(classes)):
        raise InvalidStore(
            f"{path} has the classes {listed(classes)} as codes from 0, and a regression would "
            "learn the codes; ingest the target as a number by --task regression, in Python "
            "task='regression', or train a classifier: --model logistic, or LogisticRegression"
        )
    return f"y holds the classes {listed(classes)}, which the regression takes as numbers"
