"""The trade-off of batch sizes: one model fitted at each batch size, and the cost of each fit.

All fits run in the same processes, which load everything before the first. One more pass evaluates
all models at their last parameters, and the null model; it measures the gradient noise scale too.
"""

import csv
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from ooc_train.core.atomic import PartialOutput
from ooc_train.core.output_kinds import TRADEOFF, explain_os_errors, require_output
from ooc_train.core.progress import Progress, no_progress
from ooc_train.core.renames import sync_file
from ooc_train.errors import Diverged
from ooc_train.experiments.advice import Outcome, recommend
from ooc_train.experiments.comparing import (
    Evaluated,
    Peaks,
    evaluate_models,
    evaluation_requirements,
    load,
)
from ooc_train.experiments.tradeoff_result import Tradeoff, Trial
from ooc_train.memory.ceiling import Ceiling
from ooc_train.models.model import Model
from ooc_train.monitoring.interrupts import immediate_interrupts
from ooc_train.plotting import figures
from ooc_train.runs.events import Callback
from ooc_train.runs.fitted import Fitted
from ooc_train.runs.report import Report
from ooc_train.runtime.clients import choose_executor
from ooc_train.solvers.training_settings import AUTOMATIC, Training
from ooc_train.stream.dask_executor import DaskExecutor
from ooc_train.stream.input_data import Inputs
from ooc_train.stream.inputs import read_inputs, read_validation
from ooc_train.stream.store_source import StoreSource
from ooc_train.training.loop import train
from ooc_train.training.task import Task

BATCH_SIZES: tuple[int | str, ...] = (1, 16, 256, "chunk", "full")

_TABLE = TRADEOFF.markers[0]


def tradeoff(
    model: Model,
    data: Any,
    batch_sizes: Sequence[int | str] = BATCH_SIZES,
    *,
    training: Training = AUTOMATIC,
    y: Any = None,
    sample_weight: Any = None,
    validation: Any = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    client: Any = None,
    memory_ceiling: str | int | Ceiling | None = None,
    progress: Progress = no_progress,
) -> Tradeoff:
    """Fit a model at several batch sizes; return the costs and losses of the fits.

    Parameters
    ----------
    model : Model
        What is learned.
    training : Training
        How it is learned. Its batch size stays "full". All fits share one seed.
    data, y, sample_weight
        As for `train`.
    batch_sizes : sequence of int or str
        "full", "chunk" or numbers of rows, each once.
    validation : object
        Validation rows for the comparison, in the forms of `data`, or None. With `early_stopping`
        they evaluate each step too. Those of `validation_fraction` are the same for all fits.
    out : str or path or None
        Folder for `tradeoff.json`, `tradeoff.csv` and, if it can be drawn, `tradeoff.png`.
    overwrite : bool
        Whether to replace an existing folder of a trade-off.
    callbacks : sequence of Callback
        Callbacks of the fits.
    client, memory_ceiling
        As for `train`; the ceiling holds for each fit.
    progress : callable
        Called in the passes that evaluate all models at the end: with the stage, its rows so far,
        and the fraction done, from 0 to 1.

    Raises
    ------
    CeilingExceeded
        Before any fit, if the ceiling is too small for one of them.
    Diverged
        If all fits diverged.
    OutputExists
        Before any reading, if `out` exists.
    OSError
        If `out` can't be written; before any reading if possible.
    ValueError
        If a batch size or a setting does not suit the data.

    Examples
    --------
    >>> from ooc_train import LogisticModel, Training, make_data, tradeoff
    >>> store = make_data("made.zarr", rows=2_000, features=5)
    >>> settings = Training(max_iter=5, random_state=0)
    >>> result = tradeoff(LogisticModel(), store, [256, "full"], training=settings)
    >>> [trial.report.batch_size for trial in result.trials]
    [256, 'full']
    """
    if training.batch_size != "full":
        raise ValueError(
            f"batch_size={training.batch_size!r} is not for a trade-off; name it in batch_sizes"
        )
    if not batch_sizes or len(set(map(str, batch_sizes))) < len(batch_sizes):
        raise ValueError(f"batch_sizes={tuple(batch_sizes)!r} are not one or more, each named once")
    if out is not None:
        require_output(out, TRADEOFF, overwrite=overwrite)
    if training.random_state is None:
        training = replace(training, random_state=secrets.randbits(32))
    # Decided before the cluster starts, which takes available memory.
    memory_ceiling = Ceiling.of(memory_ceiling)
    inputs = read_inputs(
        data,
        y,
        sample_weight,
        classifier=model.is_classifier,
        memory_ceiling=memory_ceiling,
    )
    others = None
    if validation is not None:
        others = read_validation(
            validation, inputs, classifier=model.is_classifier, memory_ceiling=memory_ceiling
        )
    trainings = [replace(training, batch_size=size) for size in batch_sizes]
    watched = others if training.early_stopping else None
    tasks = [Task.of(model, inputs, one, watched) for one in trainings]
    inputs, watched = tasks[0].inputs, tasks[0].validation
    others = watched if others is None else others
    executor = choose_executor(inputs.source, client)
    client = executor.client if isinstance(executor, DaskExecutor) else None
    on: dict[str, Any] = {"client": client, "memory_ceiling": memory_ceiling}
    for each in filter(None, (inputs, others)):
        requirements = [evaluation_requirements(tasks[0], each.source, len(tasks))]
        requirements += [task.requirements() for task in tasks] if each is inputs else []
        load(each.source, requirements, callbacks=callbacks, **on)
    with (
        nullcontext()
        if out is None
        else PartialOutput(out, TRADEOFF, overwrite=overwrite) as output
    ):
        peaks = Peaks(client)
        fits: list[tuple[Fitted, Report]] = []
        failures: dict[str, Diverged] = {}
        # A run that Ctrl-C shortened would be compared with complete ones.
        with immediate_interrupts():
            for one in trainings:
                peaks.restart()
                try:
                    fits.append(
                        train(model, inputs, one, validation=watched, callbacks=callbacks, **on)
                    )
                except Diverged as error:
                    failures[str(one.batch_size)] = error
        if not fits:
            raise next(iter(failures.values()))
        fitted = [fit for fit, _ in fits]
        on["progress"] = progress
        trained = evaluate_models(tasks[0], fitted, inputs, **on)
        validated = None if others is None else evaluate_models(tasks[0], fitted, others, **on)
        trials = _trials([report for _, report in fits], trained, validated)
        result = _result(training, inputs, trials, trained, failures, own_peaks=peaks.own)
        if output is not None:
            result = replace(result, saved_in=_save(result, output))
    return result


def _trials(
    reports: Sequence[Report], trained: Evaluated, validated: Evaluated | None
) -> tuple[Trial, ...]:
    return tuple(
        Trial(
            report,
            trained.losses[i],
            None if validated is None else validated.losses[i],
            None if trained.noise is None else trained.noise[i],
        )
        for i, report in enumerate(reports)
    )


def _result(
    training: Training,
    inputs: Inputs,
    trials: tuple[Trial, ...],
    trained: Evaluated,
    failures: Mapping[str, Exception],
    *,
    own_peaks: bool,
) -> Tradeoff:
    source, validated = inputs.source, trials[0].validation_loss is not None
    chunk_rows = source.partition_rows if inputs.store is None else inputs.store.chunk_rows
    outcomes = [
        Outcome(
            trial.report.batch_size,
            trial.report.solver,
            replace(training, batch_size=trial.report.batch_size).rows_per_update(
                source.n_rows, chunk_rows
            ),
            trial.report.learning_rate,
            trial.report.passes,
            trial.report.seconds,
            trial.loss if trial.validation_loss is None else trial.validation_loss,
            None if trial.noise is None else trial.noise.rows,
        )
        for trial in trials
    ]
    start = None if trained.noise is None else trained.noise[-1]
    criterion = "validation loss" if validated else "training loss"
    automatic = training.learning_rate == "auto"
    advice = recommend(
        outcomes, None if start is None else start.rows, criterion=criterion, automatic=automatic
    )
    notes = [
        f"seed {training.random_state}; one more pass measured the losses at the last parameters",
        "the memory of each fit includes the libraries of all fits",
    ]
    if not own_peaks:
        notes.append("memory peaks could not be restarted: each includes earlier fits")
    if not validated:
        notes.append("no validation rows: fits are compared by their training loss")
    if isinstance(source, StoreSource) and not source.shuffled:
        notes.append(
            "the store is not known to be shuffled: differences between its chunks count as noise"
        )
    notes += inputs.notes
    return Tradeoff(
        trials,
        trained.losses[-1],
        start,
        advice,
        {size: str(error) for size, error in failures.items()},
        tuple(notes),
    )


def _save(result: Tradeoff, output: PartialOutput) -> str:
    """Write the result into the folder of the output; return the path of the folder."""
    folder = output.partial_path
    with explain_os_errors(output.path):
        with open(os.path.join(folder, _TABLE), "w", encoding="utf-8") as file:
            json.dump(result.to_json(), file, indent=2, allow_nan=False)
            sync_file(file)
        with open(os.path.join(folder, "tradeoff.csv"), "w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(result.rows()[0]))
            table.writeheader()
            table.writerows(result.rows())
            sync_file(file)
    figures.save(result.plot, path=os.path.join(folder, "tradeoff.png"), overwrite=True)
    return output.commit(elsewhere=True)
