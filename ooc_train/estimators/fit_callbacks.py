"""scikit-learn's protocol of callbacks, where the installed version has it (1.9 and later).

`estimator.set_callbacks(ProgressBar())`, and callbacks that a grid search hands on, follow a fit as
a tree of tasks: the fit, and its iterations or epochs. With an earlier version nothing changes.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ooc_train.monitoring.callbacks import ConsoleBar
from ooc_train.runs.events import Callback, Event, Learned, Stepped, Stop
from ooc_train.runs.fitted import Fitted

if TYPE_CHECKING:

    class CallbackSupport:
        """The base of estimators that take callbacks."""

    def with_callbacks(method: Any) -> Any:
        """Return a method that tears callbacks down at its end."""
else:
    try:
        from sklearn.callback import CallbackSupportMixin as CallbackSupport
        from sklearn.callback import with_callbacks
    except ImportError:  # before scikit-learn 1.9

        class CallbackSupport:
            """The base of estimators; this version of scikit-learn has no callbacks."""

        def with_callbacks(method: Any) -> Any:
            """Return the method as it is."""
            return method


Attributes = Callable[[Fitted, Stepped], Mapping[str, Any]]
"""A function from the model after a step to the fitted attributes of its estimator."""


@contextmanager
def following(
    estimator: Any, rows: tuple[Any, Any, Any], max_iter: int, attributes: Attributes
) -> Iterator[tuple[Callback, ...]]:
    """Lend the callbacks of a run: those of the estimator, its bar, and one for scikit-learn's.

    Parameters
    ----------
    estimator : estimator
        The estimator, within a call of a method that `with_callbacks` decorates.
    rows : tuple
        X, y and sample_weight as the user passed them, for callbacks that compute scores.
    max_iter : int
        Most iterations of the run.
    attributes : function
        Returns the fitted attributes after a step, if a callback asks for the estimator.
    """
    with bar_of(estimator) as bar:
        own = (*estimator.callbacks, *([bar] if estimator.verbose else []))
        if not getattr(estimator, "_skl_callbacks", None):
            yield own
            return
        X, y, sample_weight = rows
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        given = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        context = estimator._init_callback_context(max_subtasks=max_iter)  # noqa: SLF001
        context.call_on_fit_task_begin(**given)
        follower = _Follower(context, given, attributes)
        yield (follower, *own)
        context.call_on_fit_task_end(**given, reconstruction_attributes=follower.attributes)


def bar_of(estimator: Any) -> ConsoleBar:
    """Return a bar for a job of an estimator, which shows nothing unless it is `verbose`."""
    return ConsoleBar(
        quiet=not estimator.verbose,
        max_passes=estimator.max_passes,
        max_seconds=estimator.max_seconds,
    )


class _Follower:
    """A callback of a run that calls scikit-learn's callbacks through the context of the fit."""

    takes_models = True

    def __init__(self, context: Any, given: dict[str, Any], attributes: Attributes) -> None:
        self._context, self._given, self._attributes = context, given, attributes
        self._last: Learned | None = None

    def attributes(self) -> Mapping[str, Any] | None:
        """Return the fitted attributes after the last step; None before the first."""
        last = self._last
        return None if last is None else self._attributes(last.fitted(), last.step)

    def __call__(self, event: Event) -> None:
        """Begin and end the task of an iteration, or of an epoch."""
        if not isinstance(event, Learned):
            return
        self._last = event
        if event.step.n_iter == 0:
            return  # the start of a solver, which is no iteration
        by_batches = event.step.progressive_loss is not None
        task = self._context.subcontext(task_name="epoch" if by_batches else "iteration")
        task.call_on_fit_task_begin(**self._given)
        if task.call_on_fit_task_end(**self._given, reconstruction_attributes=self.attributes):
            raise Stop("a callback of scikit-learn stopped it")
