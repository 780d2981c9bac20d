"""scikit-learn's `SGDClassifier.partial_fit` over slabs of a Zarr array.

Averaged updates at a small constant rate (`average=True`, as its documentation advises) are within
0.3 % of the optimum after one pass; the last update alone, the default's "optimal" rate and falling
ones were further off after two. Scaling columns first cost more than it brought on these data.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

from sklearn.linear_model import SGDClassifier

from tests.benchmarks.peers.contest import Contestant, Data, Step, slabs


def classifier() -> SGDClassifier:
    """Return the classifier with the settings that suit it best here."""
    return SGDClassifier(
        loss="log_loss",
        alpha=1e-7,
        learning_rate="constant",
        eta0=1e-3,
        average=True,
        random_state=0,
    )


def start(data: Data, folder: str, stack: ExitStack) -> Contestant:
    """Return the contestant; there is nothing to start."""

    def train() -> Iterator[Step]:
        model = classifier()
        for passes in count(1):
            for X, y in slabs(data.store):
                model.partial_fit(X, y, classes=[0, 1])
            yield Step(model.coef_[0], float(model.intercept_[0]), passes)

    return Contestant(train)
