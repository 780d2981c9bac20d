"""What a plot draws, found in what it is given: a report, its memory, or a fitted model."""

from typing import Any, Protocol

from ooc_train.plotting.protocols import Memory, Run


class FittedModel(Protocol):
    """A fitted estimator of this package."""

    @property
    def report_(self) -> Any:
        """The report of its fit."""


def run_in(given: "Run | FittedModel") -> Run:
    """Return a report, or that of a fitted model.

    Raises
    ------
    TypeError
        If it is something else.
    """
    run: Run = _holder("history", given, "report_", accepted="a report")
    return run


def memory_in(given: "Memory | Run | FittedModel") -> Memory:
    """Return the memory of a run, of its report, or of a fitted model.

    Raises
    ------
    TypeError
        If it is something else.
    """
    memory: Memory = _holder(
        "timeline", given, "report_", "memory", accepted="a report, its memory"
    )
    return memory


def coefficients_in(given: Any) -> tuple[Any, Any, Any]:
    """Return coefficients, names of features or None, and names of outputs; of a model or an array.

    Raises
    ------
    TypeError
        If it is a report, or a model without coefficients.
    """
    if hasattr(given, "coef_"):
        coef = given.coef_
        coef = coef.toarray() if hasattr(coef, "toarray") else coef
        outputs = getattr(given, "classes_", ())
        return coef, getattr(given, "feature_names_in_", None), outputs
    if hasattr(given, "history") or hasattr(given, "report_"):
        raise _no_such(given, "coefficients, as an array,")
    return given, None, ()


def _holder(attribute: str, given: Any, *steps: str, accepted: str) -> Any:
    """Return what has an attribute: an object, or what it holds by one step after another."""
    found = given
    for step in steps:
        found = getattr(found, step, found)
    if not hasattr(found, attribute):
        raise _no_such(given, accepted)
    return found


def _no_such(given: object, accepted: str) -> TypeError:
    kind = type(given).__name__
    return TypeError(
        f"this plot draws {accepted} or a fitted model, and not a value of type {kind}"
    )
