"""A model together with data: everything that is decided before a row is read."""

import math
import secrets
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ooc_train.core.sums import Array, Reduction
from ooc_train.core.units import approximate_bytes
from ooc_train.errors import CeilingExceeded
from ooc_train.inference.metrics import MetricSums
from ooc_train.memory.ceiling import Ceiling
from ooc_train.memory.system import machine_memory
from ooc_train.models.column_moments import ColumnSums
from ooc_train.models.linear import LinearProblem
from ooc_train.models.model import DataFigures, Model
from ooc_train.models.problem import ModelProblem
from ooc_train.optimizers.schedule import Schedule
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report
from ooc_train.solvers.base import Solver
from ooc_train.solvers.batch_schedules import BatchSchedule
from ooc_train.solvers.early_stopping import EarlyStopping
from ooc_train.solvers.phased import Phased
from ooc_train.solvers.registry import Settings, automatic_solver, phased, solver_for
from ooc_train.solvers.training_settings import AUTOMATIC, Training
from ooc_train.stream.feature_names import column_order, require_row_shape
from ooc_train.stream.hold_out import hold_out
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.inputs import read_validation
from ooc_train.stream.requirements import Requirements
from ooc_train.stream.sources import Source
from ooc_train.training.sample_metrics import SampleMetrics
from ooc_train.training.task_settings import require_private, solver_settings, weights_of


@dataclass(frozen=True, eq=False)
class Task:
    """A model together with its data, and all that follows from them before a row is read.

    Attributes
    ----------
    model : Model
        The model.
    training : Training
        How the model is learned.
    inputs : Inputs
        The training rows.
    problem : ModelProblem
        The objective. Columns are not scaled; `prepared` returns the problem of a run.
    solver : Solver
        The solver.
    settings : Settings
        Settings of the solver, with figures in place of "auto".
    validation : Inputs or None
        Rows on which every step is evaluated. They are not trained on.
    solver_reason : str
        Why "auto" chose the solver; empty if the user did.
    """

    model: Model
    training: Training
    inputs: Inputs
    problem: ModelProblem
    solver: Solver
    settings: Settings
    validation: Inputs | None = None
    solver_reason: str = ""

    @classmethod
    def of(
        cls,
        model: Model,
        inputs: Inputs,
        training: Training = AUTOMATIC,
        validation: Any = None,
        memory_ceiling: str | int | Ceiling | None = None,
        *,
        allow_zero_weight: bool = False,
        by_updates: bool = False,
    ) -> "Task":
        """Make the task of training a model on data.

        Parameters
        ----------
        model : Model
            The model.
        inputs : Inputs
            The training rows; with `validation_fraction`, those of validation too.
        training : Training
            How the model is learned.
        validation : Inputs, store, path, array or None
            Rows that evaluate every step.
        memory_ceiling : str, int, Ceiling or None
            As for `train`.
        allow_zero_weight : bool
            Whether the weights of all rows may be zero.
        by_updates : bool
            Whether solver="auto" is one by updates for batches of all rows too.

        Raises
        ------
        ValueError
            If a setting does not fit the data.
        """
        seed = inputs.share_seed if training.random_state is None else training.random_state
        # A seed that could be guessed would tell the noise of private updates.
        seed = secrets.randbits(128 if training.is_private else 32) if seed is None else seed
        fraction = training.validation_fraction
        if fraction is not None and inputs.share_seed is None:
            if validation is not None:
                raise ValueError(
                    f"validation_fraction={fraction:g} keeps rows out for validation, and "
                    "validation rows were passed too; leave one of them out"
                )
            inputs, validation = hold_out(inputs, fraction, seed, memory_ceiling=memory_ceiling)
        if training.early_stopping and validation is None:
            raise ValueError(
                "early_stopping needs validation rows, and there are none; set "
                "validation_fraction=0.1, or pass rows, validation=ROWS (to fit of estimators: "
                "X_val and y_val)"
            )
        source = inputs.source
        if training.is_private:
            require_private(model)
        total, weights = weights_of(model, inputs)
        if not total > 0 and not allow_zero_weight:
            raise ValueError(
                f"the weights of all rows add up to {total:g}; some must be above zero"
            )
        n_classes = len(inputs.classes)
        settings = solver_settings(model, training, inputs, seed)
        problem = model.problem(
            DataFigures(
                source.n_rows,
                source.n_features,
                source.n_outputs,
                n_classes,
                total,
                weights,
                settings.batch_size,
                inputs.row_shape,
                seed,
            )
        )
        name, reason = training.solver, ""
        if name == "auto":
            by_updates = by_updates or training.batch_size != "full"
            choice = automatic_solver(problem, by_updates=by_updates)
            name, reason = choice.solver, choice.reason
        elif getattr(model, "optimizer", None) is not None:
            raise ValueError(
                f"solver={training.solver!r} and the optimizer of the model would both take the "
                "steps; leave one of them out"
            )
        solver = solver_for(name, settings, problem)
        if isinstance(training.batch_size, BatchSchedule):
            solver = phased(training.batch_size, solver, settings, problem)
        for name in ("learning_rate", "schedule", "shuffle_chunks"):
            if "updates" not in solver.requires and getattr(training, name) != "auto":
                value = getattr(training, name)
                shown_value = repr(str(value) if isinstance(value, Schedule) else value)
                raise ValueError(
                    f"{name}={shown_value} is for updates, and "
                    f"solver={solver.name!r} makes none by batches; leave it out, or use "
                    "solver='sgd' or a batch_size"
                )
        if validation is not None:
            validation = read_validation(
                validation,
                inputs,
                classifier=model.is_classifier,
                memory_ceiling=memory_ceiling,
            )
        task = cls(model, training, inputs, problem, solver, settings, validation, reason)
        if task.metric is not None:
            names = task.metric_sums(problem, problem.initial()).names
            if task.metric not in names:
                raise ValueError(
                    f"metric={task.metric!r} is not one of the {model.name} model; use "
                    f"{' or '.join(map(repr, names))}"
                )
        return task

    @property
    def linear_problem(self) -> LinearProblem:
        """The problem of a linear model.

        Raises
        ------
        ValueError
            If the model is of another kind.
        """
        if not isinstance(self.problem, LinearProblem):
            raise ValueError(f"this is for linear models, and {self.model.name} is none")  # noqa: TRY004 (as for other settings)
        return self.problem

    @property
    def max_iter(self) -> int:
        """The largest number of iterations or epochs."""
        return self.training.max_iter or self.model.default_max_iter

    @property
    def tol(self) -> float:
        """The tolerance of the solver."""
        return self.settings.tol

    def start_from(self, start: Fitted) -> Fitted:
        """Return the parameters to begin from, in the column order of these data.

        Raises
        ------
        ValueError
            If the classes, columns, or numbers of outputs or features differ.
        """
        between = {"model": "the model to start from", "data": self.inputs.name}
        require_row_shape(start.row_shape, self.inputs.row_shape, **between)
        order = column_order(start.feature_names, self.inputs.feature_names, **between)
        if order is not None:
            start = replace(
                start,
                predictor=start.predictor.permuted(order),
                feature_names=self.inputs.feature_names,
            )
        if start.classes != self.inputs.classes:
            raise ValueError(
                f"the parameters to start from are for the classes {list(start.classes)}, and "
                f"these data have {list(self.inputs.classes)}; start afresh"
            )
        self.problem.require_predictor(start.predictor)
        return start

    @cached_property
    def _validation_order(self) -> NDArray[np.intp] | None:
        """Position of each validation column in the training columns; None for the same order."""
        if self.validation is None:
            return None
        return column_order(
            self.inputs.feature_names,
            self.validation.feature_names,
            model="the data to learn from",
            data="the validation data",
        )

    def validation_sums(self, problem: ModelProblem, theta: Array) -> Reduction:
        """Return the reduction that evaluates `theta` on the validation rows.

        If validation columns have another order, problem and parameters are permuted to it.
        """
        order = self._validation_order
        if order is not None:
            problem, theta = problem.permuted(theta, order)
        return problem.reduction(theta[None], gradients=0)

    def metric_sums(self, problem: ModelProblem, theta: Array) -> MetricSums:
        """Return the reduction of metrics of `theta` on the validation rows."""
        if self.validation is None:
            raise ValueError("there are no validation rows")
        inputs, rows = self.inputs, self.validation
        fitted = Fitted(self.model, problem.predictor(theta), inputs.classes, inputs.feature_names)
        n_features = rows.source.n_features
        # Validation rows have the shape of training rows, see `read_validation`.
        return MetricSums.of(fitted.for_columns(rows.feature_names, n_features, rows.name), rows)

    @property
    def metric(self) -> str | None:
        """The metric that early stopping watches; None if it is the loss."""
        rule = self.training.early_stopping
        return rule.metric if isinstance(rule, EarlyStopping) else None

    @property
    def needs_kernels(self) -> bool:
        """Whether workers need the compiled kernels."""
        return self.validation is not None or bool(self.requirements().needs)

    @property
    def data_name(self) -> str:
        """A description of where the rows come from, for users."""
        store = self.inputs.store
        return f"{self.inputs.kind} in memory" if store is None else str(store.path)

    @property
    def rows_per_update(self) -> int:
        """Number of rows of a batch."""
        return min(self.settings.batch_size, self.inputs.source.n_rows)

    @property
    def by_updates(self) -> bool:
        """Whether the solver learns by updates, with batches of any size."""
        return "updates" in self.solver.requires

    @property
    def most_passes(self) -> float | None:
        """The largest number of passes of the solver, or None if only its tolerance decides."""
        if self.by_updates:
            return None if isinstance(self.solver, Phased) else float(self.max_iter)
        return 1.0 if "gram" in self.solver.requires else None

    @property
    def _best_sets(self) -> int:
        """Number of arrays of the parameters' shape that early stopping keeps."""
        return int(bool(self.training.early_stopping))

    def requirements(self) -> Requirements:
        """Return what passes over the training rows require, for the plan."""
        source, problem = self.inputs.source, self.problem
        self._require_square()
        holdings = self.solver.holds(problem, source)
        parameters = 8 * problem.n_parameters
        needed = Requirements.of(
            source,
            (*holdings.reductions, ColumnSums(np.zeros(source.n_features))),
            parameters=parameters,
            sets=holdings.sets + self._best_sets,
            columns=8 * (source.n_features + 1),
            algebra=holdings.algebra,
            way_out="learn from fewer columns, or by a solver that holds less: lbfgs or sgd",
        )
        if not self.training.is_private:
            needed = replace(needed, sample=SampleMetrics(self.model, problem, self.inputs).nbytes)
        if holdings.scan is None:
            return needed
        return needed.with_updates(
            source,
            holdings.scan,
            carried=holdings.carried,
            replicas=holdings.replicas,
            shuffle_chunks=holdings.shuffle_chunks,
        )

    def validation_requirements(self) -> tuple[Source, Requirements] | None:
        """Return the validation rows and what passes over them require; None without such rows."""
        if self.validation is None:
            return None
        source, problem = self.validation.source, self.problem
        copies = 0 if self._validation_order is None else 1  # in the order of their columns
        zeros = np.broadcast_to(0.0, (1, *problem.shape))
        reductions: list[Reduction] = [problem.reduction(zeros, gradients=0)]
        if self.metric is not None:
            copies += 2  # coefficients in the units of the data, in the order of either columns
            reductions.append(self.metric_sums(problem, problem.initial()))
        requirements = Requirements.of(
            source,
            reductions,
            parameters=8 * problem.n_parameters,
            # The solver keeps its parameters during the pass.
            sets=self.solver.holds(problem, self.inputs.source).sets + self._best_sets + copies,
            columns=8 * (source.n_features + 1),
        )
        return source, requirements

    def _require_square(self) -> None:
        """Raise `CeilingExceeded` if square matrices exceed the memory of the machine."""
        columns = self.problem.n_features + 1
        shapes = {
            "hessian": self.problem.hessian_shape,
            "blocks": (self.problem.shape[0], columns, columns),
            "gram": (1, columns, columns),
        }
        required = [shapes[each] for each in self.solver.requires if each in shapes]
        size = 8 * max(map(math.prod, required), default=0)
        if size > machine_memory():
            ((blocks, side, _),) = required
            matrices = "a matrix" if blocks == 1 else f"{blocks:,} matrices"
            other = "lbfgs" if "smooth" in self.problem.can else "proximal-lbfgs"
            way_out = f"use solver={other!r} or 'sgd', which hold none"
            if "updates" not in self.problem.can:
                way_out = "use fewer columns, or positive=False"
            raise CeilingExceeded(
                f"solver={self.solver.name!r} adds up {matrices} of "
                f"{side:,} x {side:,} numbers, "
                f"{approximate_bytes(size)}, and this machine has "
                f"{approximate_bytes(machine_memory())}; {way_out}"
            )


def fitted_model(
    task: Task, problem: ModelProblem, theta: Array, report: Report | None = None
) -> Fitted:
    """Return the fitted model of the parameters `theta`, which are of scaled columns."""
    inputs, training = task.inputs, task.training
    if training.is_private:
        training = replace(training, random_state=None)  # it would tell the noise
    recipe = None if inputs.store is None else inputs.store.recipe
    return Fitted(
        task.model,
        problem.predictor(theta),
        inputs.classes,
        inputs.feature_names,
        {} if report is None else report.to_json(),
        recipe,
        training,
        inputs.row_shape,
    )
