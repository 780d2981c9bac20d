"""`train`: fit a model to data, with its plan, its events and its report."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from time import perf_counter
from typing import Any

from ooc_train.core.atomic import PartialOutput
from ooc_train.core.output_kinds import RUN, require_output
from ooc_train.core.threads import one_blas_thread
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.model import Model
from ooc_train.models.network_problem import NetworkProblem
from ooc_train.monitoring.driver import TrainingPage
from ooc_train.monitoring.interrupts import ENDS, Interrupts, interrupted
from ooc_train.runs.events import Callback, Ended, Saving
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report
from ooc_train.runs.run_loading import as_fitted
from ooc_train.runtime.job import Job
from ooc_train.solvers.training_settings import AUTOMATIC, Training
from ooc_train.stream.inputs import read_inputs
from ooc_train.stream.outliers import report_outliers
from ooc_train.training.checkpoints import Checkpoint, CheckpointFolder
from ooc_train.training.run import TrainingRun
from ooc_train.training.run_config import config_of
from ooc_train.training.run_start import RunStart
from ooc_train.training.task import Task, fitted_model


def train(
    model: Model,
    data: Any,
    training: Training = AUTOMATIC,
    *,
    y: Any = None,
    sample_weight: Any = None,
    validation: Any = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
    start: Any = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
) -> tuple[Fitted, Report]:
    """Fit a model to data.

    Ctrl-C ends the run after the current step, or within about a second of an epoch of updates over
    a store. It is saved as it stands, and `KeyboardInterrupt` is raised, whose attributes `fitted`
    and `report` are the model so far. A second Ctrl-C interrupts at once and saves nothing. With
    checkpoints SIGTERM and a closed terminal (SIGHUP) end the run likewise, and then the process,
    unless it handles them itself.

    Parameters
    ----------
    model : Model
        What is learned, such as ``LogisticModel(C=0.1)``.
    data : Store, str, path or array
        The rows: a store or its path, or an array of rows with `y` beside it. The values of a row
        of several axes, as of an image, are its columns.
    training : Training
        How it is learned: solver, batch size, learning rate and so on.
    y, sample_weight : array, path, URL, Store or None
        Targets and weights of all rows, in the order of the data: arrays of NumPy, Dask, pandas or
        Zarr, or the place of one. None for those of the store.
    validation : as `data`, or None
        Rows that are not trained on. After each iteration or epoch, all of them are read and their
        mean loss is computed: by weight, class weights included, without penalty. Validation
        changes no parameter, and `max_passes` does not count it.
    out : str, path or None
        Where the run is saved. Of a store, ``ooc-train train --config OUT/config.toml`` repeats it.
    overwrite : bool
        Whether a run at `out` is replaced, and checkpoints of another run.
    callbacks : sequence of Callback
        Functions that receive the run's events.
    client : distributed.Client or None
        The Dask client to run on; None for the active client, or for a private cluster.
    memory_ceiling : str, int, Ceiling or None
        The most memory that the run may hold. None is the cluster's ceiling, or else half of the
        available memory.
    start : Fitted, estimator, str, path or None
        Parameters to begin from: `Fitted`, a fitted estimator or the path of a saved run. None for
        zero. Columns are matched by name if both sides have names, otherwise by position; so are
        the columns of `validation`. Of a perceptron for other classes or outputs, the hidden layers
        are taken; its output layer begins at random, as a note says.
    checkpoint : Checkpoint, str, path or None
        Where the state of the run is kept every ten minutes and at the end, so that a run that was
        ended or killed goes on: ``Checkpoint("a.checkpoint", every="5min", resume=True)``. A path
        is one of a new run. None keeps none.

    Returns
    -------
    fitted : Fitted
        The model and its parameters.
    report : Report
        What the run did.

    Raises
    ------
    CeilingExceeded
        If the ceiling is too small; nothing has been read then.
    CorruptChunk, NonFiniteData
        If the data are damaged.
    Diverged
        If the loss or a parameter is not finite.
    KeyboardInterrupt
        If Ctrl-C ended the run.
    InvalidRun
        If the checkpoint is of other data or settings, or is damaged.
    OutputExists
        If `out` exists, or another process writes there; nothing has been read then. If `out`
        appears later, the run is saved beside it, with a `SavedElsewhere` warning.
    ValueError
        If a setting does not fit the data.

    Examples
    --------
    >>> from ooc_train import LogisticModel, make_data, train
    >>> store = make_data("made.zarr", rows=2_000, features=5)
    >>> fitted, report = train(LogisticModel(), store, memory_ceiling="512MiB")
    >>> report.solver, fitted.coef.shape
    ('newton', (1, 5))
    """
    checkpoints = None
    if checkpoint is not None:
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint(checkpoint)
        checkpoints = CheckpointFolder(checkpoint, overwrite=overwrite)
        training = checkpoints.seeded(training)
    if out is not None:
        if checkpoints is not None and not overwrite:
            overwrite = checkpoints.replaces(out)
        require_output(out, RUN, overwrite=overwrite)
        # A loss of the user's that no registry has could not be saved after the run.
        model.settings(), training.settings()
    # The ceiling is fixed before workers start, since they take available memory.
    memory_ceiling = Ceiling.of(memory_ceiling)
    inputs = read_inputs(
        data,
        y,
        sample_weight,
        classifier=model.is_classifier,
        memory_ceiling=memory_ceiling,
    )
    task = Task.of(model, inputs, training, validation, memory_ceiling=memory_ceiling)
    if start is not None and training.is_private:
        raise ValueError(
            "private updates start from zero: the privacy that the start cost is not known; leave "
            "the start out"
        )
    origin = None
    if start is not None:
        fitted = as_fitted(start)
        origin = RunStart.of(start, fitted)
        start, note = _begun_from(task, fitted)
        inputs = replace(task.inputs, notes=(*task.inputs.notes, *note))
        task = replace(task, inputs=inputs)
    snapshot = None
    if checkpoints is not None:
        origin = checkpoints.started_from(origin)
        snapshot = checkpoints.snapshot(task)
    started = perf_counter()
    job = Job(task.inputs.source, client=client, memory_ceiling=memory_ceiling)
    with (
        Interrupts() if checkpoints is None else Interrupts(ENDS, delivers=True) as interrupts,
        nullcontext() if checkpoints is None else checkpoints,
        nullcontext() if out is None else PartialOutput(out, RUN, overwrite=overwrite) as output,
        TrainingPage(job.client, job.dashboard, job.calling) as page,
    ):
        with one_blas_thread(), job:
            run = TrainingRun(task, job, (*callbacks, interrupts, page), started, checkpoints)
            with report_outliers(run.stream):
                state = run.solve(start, page.link, snapshot)
            report = run.report(state, page.notes)
        fitted = fitted_model(task, run.problem, state.params, report)
        if output is not None:
            run.emit(Saving("run", report.seconds))
            report = replace(report, saved_in=fitted.save_as(output, config_of(task, origin)))
            run.note(f"saved in {report.saved_in}")
        run.emit(Ended(report.converged, report.seconds, report.memory))
        interrupts.conclude(report)
    if interrupts.has_stopped:
        raise interrupted(fitted, report)
    return fitted, report


def _begun_from(task: Task, start: Fitted) -> tuple[Fitted, tuple[str, ...]]:
    """Return the parameters to begin from, and notes on them.

    A network for other classes, or another number of outputs, gives its hidden layers.
    """
    problem, classes = task.problem, task.inputs.classes
    outputs_differ = start.predictor.n_outputs != problem.n_outputs or start.classes != classes
    predictor = None
    if outputs_differ and isinstance(problem, NetworkProblem):
        predictor = problem.with_new_outputs(start.predictor, task.settings.seed)
    if predictor is None:
        return task.start_from(start), ()
    note = (
        "the hidden layers begin as those of the model to start from; the output layer begins at "
        "random, as classes or outputs are others"
    )
    return task.start_from(replace(start, predictor=predictor, classes=classes)), (note,)
