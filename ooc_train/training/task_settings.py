"""Total weight of the rows, and settings of the solver, made from settings and data."""

from ooc_train.core.sums import Array
from ooc_train.models.model import Model
from ooc_train.solvers.registry import Settings
from ooc_train.solvers.training_settings import Training
from ooc_train.stream.classes import class_weights
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.order import MIXED_CHUNKS


def weights_of(model: Model, inputs: Inputs) -> tuple[float, Array | None]:
    """Return the total weight of the rows, and the class weights or None.

    The total includes the class weights.
    """
    # Class totals of a store with weights take a pass, so they are read only if needed.
    totals = None if model.class_weight is None else inputs.class_totals
    weights = class_weights(model.class_weight, inputs.classes, totals)
    if weights is None or totals is None:
        return inputs.total_weight, weights
    return float(weights @ totals), weights


def require_private(model: Model) -> None:
    """Raise `ValueError` if private updates would tell more of the rows than their budget says."""
    refused = {
        "class_weight": (
            model.class_weight is not None,
            "a row of a rare class would count more than one row; leave it out",
        ),
        "standardize" if getattr(model, "standardize", False) else "scale='channel'": (
            model.standardizes,
            "it divides columns by deviations of the rows; scale them by numbers that may be known",
        ),
    }
    for name, (is_set, why) in refused.items():
        if is_set:
            raise ValueError(f"{name} with differential privacy: {why}")


def solver_settings(model: Model, training: Training, inputs: Inputs, seed: int) -> Settings:
    """Return the settings of the solver, with numbers from the data in place of "auto"."""
    source = inputs.source
    chunks = training.shuffle_chunks
    if chunks == "auto":
        # The more rows a private batch is sampled from, the less privacy it costs.
        chunks = source.shuffle_chunks
        chunks = max(chunks, MIXED_CHUNKS) if training.is_private else chunks
    chunks = min(int(chunks), source.n_partitions)
    tol = model.default_tol if training.tol is None else float(training.tol)
    tol = 0.0 if training.is_private else tol  # which would need losses of the rows
    chunk_rows = source.partition_rows if inputs.store is None else inputs.store.chunk_rows
    return Settings(
        tol=tol,
        batch_size=training.rows_per_update(source.n_rows, chunk_rows),
        learning_rate=training.learning_rate,
        schedule=None if isinstance(training.schedule, str) else training.schedule,
        seed=seed,
        shuffle_chunks=chunks,
        # A replica needs a group of chunks to learn from.
        replicas=min(training.replicas, -(-source.n_partitions // chunks)),
        epochs=training.max_iter or model.default_max_iter,
        patience=training.n_iter_no_change,
    )
