"""A part of scikit-learn's own tests, with our estimators in the place of theirs."""

import pytest

from tests.benchmarks.sklearn_tests.__main__ import explained
from tests.benchmarks.sklearn_tests.reasons import REASONS, reason_of
from tests.benchmarks.sklearn_tests.running import Outcome


@pytest.mark.slow
def test_scikit_learns_tests_pass_with_ours_or_are_explained():
    only = "toy or positive"
    kinds = [kind for _, kind, _ in explained("coordinate_descent", only)]
    assert "unexplained" not in kinds
    assert sum(kind in ("as it is", "translated") for kind in kinds) >= 6


def test_a_failure_without_a_reason_is_none():
    outcome = Outcome("test_lasso_toy", "failed", True, [], "AssertionError: 1 is not 2")
    assert reason_of(outcome) is None
    assert len({reason.why for reason in REASONS}) == len(REASONS)
