"""Goals that end a run: a target loss, and validation rows that gain no more."""

from dataclasses import asdict, replace
from math import inf
from typing import Any

from ooc_train.runs.events import Stepped
from ooc_train.solvers.base import State
from ooc_train.solvers.early_stopping import GREATER_IS_BETTER, EarlyStopping
from ooc_train.solvers.training_settings import Training


class Goals:
    """A record of a run's steps: whether a goal is reached, and which step was the best.

    Patience is counted as by scikit-learn: a step makes progress if its validation loss, or metric,
    is better than the best so far by more than `min_delta`.

    Parameters
    ----------
    training : Training
        The settings, of which `target_loss` and `early_stopping` are used.

    Attributes
    ----------
    reached : str
        The goal that is reached, as text; empty if there is none.
    """

    def __init__(self, training: Training) -> None:
        self._target = training.target_loss
        rule = training.early_stopping
        self._rule = rule if isinstance(rule, EarlyStopping) else None
        self.reached = ""
        self._best: tuple[Stepped, State] | None = None
        self._lowest, self._stale = inf, 0

    def validation(self, step: Stepped) -> float | None:
        """Return the watched metric of the validation rows, or their loss; smaller is better."""
        metric = None if self._rule is None else self._rule.metric
        if metric is None or step.validation_metric is None:
            return step.validation_loss
        return step.validation_metric * (-1.0 if metric in GREATER_IS_BETTER else 1.0)

    def add(self, step: Stepped, state: State, *, rate_lowered: bool = False) -> None:
        """Record a step and the state after it; patience begins anew if the rate was lowered."""
        loss = step.loss if step.validation_loss is None else step.validation_loss
        if self._target is not None and loss <= self._target:
            self.reached = f"target_loss={self._target:g} reached"
        watched = self.validation(step)
        if self._rule is None or watched is None:
            return
        loss = watched
        progress = loss < self._lowest - self._rule.min_delta
        self._stale = 0 if progress or rate_lowered else self._stale + 1
        if loss < self._lowest:
            # The solver's own memory, such as replicas, is not kept.
            self._lowest, self._best = loss, (step, replace(state, memory={}))
        if self._stale >= self._rule.patience:
            by = f" by more than {self._rule.min_delta:g}" if self._rule.min_delta else ""
            self.reached = (
                f"early stopping, {self._stale} evaluations in a row have not improved the "
                f"validation {self._rule.metric or 'loss'}{by}"
            )

    @property
    def best_state(self) -> State | None:
        """The state of the best validation so far; None without one."""
        return None if self._best is None else self._best[1]

    def to_json(self) -> dict[str, Any]:
        """Return what was counted so far as values of JSON, which `restore` takes."""
        best = None if self._best is None else asdict(self._best[0])
        counted = {"lowest": self._lowest, "stale": self._stale, "reached": self.reached}
        return counted | {"best": best}

    def restore(
        self, lowest: float, stale: int, reached: str, best: tuple[Stepped, State] | None
    ) -> None:
        """Go on from what another run counted."""
        self._lowest, self._stale, self.reached, self._best = lowest, stale, reached, best

    def best_before(self, last: State) -> tuple[Stepped, State] | None:
        """Return the step whose parameters should replace the last ones, and its state.

        The state counts the iterations and updates of the whole run. None if the last parameters
        are the best, or are to be kept.
        """
        if self._rule is None or not self._rule.restore_best or self._best is None:
            return None
        step, best = self._best
        if step.n_iter == last.n_iter:
            return None
        return step, replace(
            best, n_iter=last.n_iter, updates=last.updates, converged=last.converged
        )
