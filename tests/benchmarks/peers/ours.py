"""ooc_train as its README says: an estimator, on a cluster of two workers, from a store's path.

Updates: batches of a chunk in a replica a worker, whose automatic learning rate needs to be told
the number of passes.
Full batches: Newton's method, told the number of iterations, which begins from a sample's optimum.
"""

import json
import sys
import warnings
from contextlib import ExitStack
from time import perf_counter
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from ooc_train import LocalCluster, LogisticRegression
from tests.benchmarks.peers.contest import Contestant, Data, Step, told_beforehand

CEILING = "1GiB"
_WORKERS = 2


def start(data: Data, stack: ExitStack) -> tuple[dict[str, Contestant], float]:
    """Return our contestants, and the test loss of the optimum."""
    stack.enter_context(_cluster())
    best = LogisticRegression(tol=1e-8).fit(data.store.path)
    contestants = {
        "ooc_train, updates by chunk": _contestant(data, "chunk"),
        "ooc_train, Newton": _contestant(data, "full"),
    }
    return contestants, data.loss(best.coef_[0], best.intercept_[0])


def _contestant(data: Data, batch_size: str) -> Contestant:
    def fit(passes: int) -> Step:
        replicas = 1 if batch_size == "full" else _WORKERS
        model = LogisticRegression(
            batch_size=batch_size, replicas=replicas, max_iter=passes, random_state=0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it is stopped early
            model.fit(data.store.path)
        return Step(model.coef_[0], float(model.intercept_[0]), passes)

    return Contestant(told_beforehand(fit))


def _cluster() -> ExitStack:
    """Return a cluster of two workers under a ceiling, and a client of it."""
    with ExitStack() as stack:
        cluster = stack.enter_context(
            LocalCluster(
                n_workers=_WORKERS, memory_ceiling=CEILING, dashboard_address="127.0.0.1:0"
            )
        )
        stack.enter_context(cluster.get_client())
        return stack.pop_all()


def solve(path: str, tol: float) -> dict[str, Any]:
    """Return the optimum of a store, and the seconds that it took."""
    with _cluster():
        started = perf_counter()
        model = LogisticRegression(tol=tol).fit(path)
        seconds = perf_counter() - started
    return {
        "seconds": seconds,
        "coef": model.coef_[0].tolist(),
        "intercept": float(model.intercept_[0]),
    }


if __name__ == "__main__":
    print(json.dumps(solve(sys.argv[1], float(sys.argv[2]))))
