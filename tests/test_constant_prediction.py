"""Columns that hardly suit a network, and models that are worse than a constant."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from ooc_train import MLPRegressor
from ooc_train.models.classification_models import LogisticModel
from ooc_train.models.network_models import MLPClassifierModel, MLPRegressorModel
from ooc_train.models.regression_models import RidgeModel
from ooc_train.runs.events import Event, Noted
from ooc_train.solvers.training_settings import Training
from ooc_train.store.writing.writer import StoreWriter
from ooc_train.training.loop import train

RNG = np.random.default_rng(0)
ROWS = 2000
FEW = Training(solver="adam", batch_size=50, max_iter=2, random_state=0)


def columns(large: float = 1e9) -> np.ndarray:
    """Two columns of zeros and ones, the first with 2 % of large values; and an indicator."""
    X = RNG.integers(0, 2, (ROWS, 3)).astype("float32")
    X[RNG.permutation(ROWS)[: ROWS // 50], 0] = large
    X[:, 2] = 0
    X[7, 2] = 1  # a rare category
    return X


def stored(path, X, y):
    with StoreWriter(
        path,
        n_features=X.shape[1],
        dtype=X.dtype,
        feature_names=("amount", "size", "rare"),
        chunk_rows=ROWS // 20,
        shard_rows=ROWS // 20,
    ) as writer:
        writer.write(X, y)
        return writer.commit()


def told(model, data, training=FEW, **settings):
    """Return the notes of the report on columns and constants; events tell the same."""
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)

    _, report = train(model, data, training, callbacks=[listen], **settings)
    wanted = "network takes", "best constant"
    notes = [note for note in report.notes if any(each in note for each in wanted)]
    texts = [each.text for each in events if isinstance(each, Noted)]
    for note in notes:
        assert note in texts or any(note.endswith(f"; {text}") for text in texts)
    return notes


def test_a_network_says_before_it_learns_which_columns_are_large(tmp_path):
    X, y = columns(), RNG.normal(size=ROWS)
    store = stored(tmp_path / "a.zarr", X, y)
    size = np.sqrt(np.mean(X[:, 0].astype(float) ** 2))
    first, *_ = told(MLPRegressorModel(), store)
    assert first == (
        "the network takes columns as they are, and some are large (root mean square: "
        f"'amount' {size:.3g}); standardize=True (--standardize) scales them"
    )
    apart = Training(max_iter=1, validation_fraction=0.3)
    assert told(MLPRegressorModel(), store, apart)[0] == first
    assert told(MLPRegressorModel(standardize=True), store) == []
    assert told(RidgeModel(), store, Training()) == []  # scales columns itself
    scaled = told(MLPRegressorModel(scale=1e-9), store)
    assert not any("takes columns" in note for note in scaled)


@pytest.mark.parametrize(
    ("X", "is_large"),
    [
        (columns(1.0), False),  # the rare category alone is small
        (
            columns(1.0) + np.array([0, 2013, 0], np.float32),
            True,
        ),  # years vary little, and are large
        (
            columns(1.0) * np.array([1, 1e-5, 0], np.float32),
            True,
        ),  # a column that hardly counts beside
        (columns(1.0) * np.array([90, 1, 1], np.float32), False),
    ],
)
def test_large_is_the_root_mean_square_beside_the_other_columns(tmp_path, X, is_large):
    store = stored(tmp_path / "a.zarr", X, RNG.normal(size=ROWS))
    assert any("takes columns" in each for each in told(MLPRegressorModel(), store)) is is_large


def test_a_regression_worse_than_a_constant_says_so_instead_of_raise_max_iter():
    X, y = columns(), 1000 + 10 * RNG.normal(size=ROWS)
    (note,) = told(MLPRegressorModel(), X, y=y)
    constant = f"that of the best constant prediction, {y.var() / 2:.4g}; scale the columns by "
    assert note.startswith("not converged: max_iter=2 reached")
    assert constant + "standardize=True (--standardize), or use another learning_rate" in note
    assert "raise" not in note


def test_a_classification_counts_its_classes_by_their_weights(tmp_path):
    X, y = columns(), np.repeat([0, 0, 0, 1], ROWS // 4)
    for weights, shares in ((None, [0.75, 0.25]), ({0: 1.0, 1: 3.0}, [0.5, 0.5])):
        (note,) = told(MLPClassifierModel(class_weight=weights), X, y=y)
        entropy = -np.dot(shares, np.log(shares))
        assert f"best constant prediction, {entropy:.4g}; " in note


def test_a_run_that_converged_is_no_better_for_it():
    X, y = columns(), RNG.normal(size=ROWS)
    training = Training(solver="adam", batch_size=50, tol=1e9, random_state=0)
    (note,) = told(MLPRegressorModel(), X, training, y=y)
    assert note.startswith("the training loss ")
    with pytest.warns(ConvergenceWarning, match="worse than that of the best constant"):
        MLPRegressor(tol=1e9, random_state=0).fit(X, y)


def test_a_model_that_learned_something_says_nothing():
    X = RNG.normal(size=(ROWS, 3))
    y = X[:, 0] + RNG.normal(size=ROWS)
    assert told(MLPRegressorModel(), X, y=y) == []
    assert told(LogisticModel(), X, FEW, y=(y > 0).astype(int)) == []
    # One that cannot know more than a constant is not told from it.
    assert told(LogisticModel(), X, FEW, y=RNG.integers(0, 2, ROWS)) == []


def test_a_variance_without_digits_is_compared_with_nothing():
    X, y = RNG.normal(size=(ROWS, 3)), 1e9 + RNG.normal(size=ROWS)
    assert told(MLPRegressorModel(), X, y=y) == []


def test_a_model_without_intercept_is_told_to_have_one():
    X, y = RNG.normal(size=(ROWS, 3)), 1000 + RNG.normal(size=ROWS)
    training = Training(batch_size=50, max_iter=2, random_state=0)
    (note,) = told(RidgeModel(fit_intercept=False), X, training, y=y)
    assert note.endswith("; use fit_intercept=True, or use another learning_rate")


def test_pixels_are_scaled_by_a_factor(tmp_path):
    images = RNG.integers(0, 256, (200, 8, 8), dtype=np.uint8)
    path, classes = tmp_path / "a.zarr", ["a", "b"]
    with StoreWriter(path, dtype="u1", row_shape=(8, 8), classes=classes) as writer:
        writer.write(images, RNG.integers(0, 2, 200))
        store = writer.commit()
    first, *_ = told(MLPClassifierModel(), store)
    assert first == (
        "the network takes pixels as they are, 0 to 255; scale=1/255 (--scale 1/255) scales them"
    )
    scaled = told(MLPClassifierModel(scale=1 / 255), store)
    assert not any("network takes" in each for each in scaled)
