"""How a model is learned, as one plain value that holds valid settings only."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Annotated, Any

from ooc_train.core.settings import (
    LARGEST_SEED,
    CheckedSettings,
    Count,
    Number,
    Setting,
    defaults_of,
    settings_of,
)
from ooc_train.core.text import counted
from ooc_train.models.model import Model
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.optimizers.differential_privacy import DifferentiallyPrivate, SolverSetting
from ooc_train.optimizers.optimizer import Optimizer
from ooc_train.optimizers.rate_settings import RateSetting, ScheduleSetting
from ooc_train.optimizers.schedule import Schedule
from ooc_train.optimizers.schedules import SCHEDULES, Plateau
from ooc_train.solvers.batch_schedules import BatchSchedule
from ooc_train.solvers.constraints import BatchSize, Fraction, Seconds
from ooc_train.solvers.early_stopping import EarlyStopping, EarlyStoppingSetting
from ooc_train.solvers.plateaus import PATIENCE
from ooc_train.solvers.solver_texts import solver_text, tol_text

EXACT = (
    "gram",
    "coordinate-descent",
    "newton",
    "proximal-newton",
    "lbfgs",
    "block-lbfgs",
    "proximal-lbfgs",
    "smoothing",
)
"""Solvers that read all rows before each step. `registry.py` makes them: this file is light, since
the command line makes its options of it."""

_AUTOMATIC_ROWS = 200
"""Rows of a batch by the batch size "auto", as in scikit-learn's networks."""

_RATE = RateSetting(("auto",), above=0.0)

_SOLVER = SolverSetting(("auto", *EXACT, *OPTIMIZERS), of=Optimizer, registry=OPTIMIZERS)

_MAX_ITER = "Most iterations, or epochs of updates."


@dataclass(frozen=True, kw_only=True)
class Training(CheckedSettings):
    """How a model is learned.

    Examples
    --------
    >>> from ooc_train import Training
    >>> Training(batch_size=256, solver="adam", learning_rate=1e-3, max_iter=5).batch_size
    256
    """

    solver: Annotated[
        str | Optimizer | DifferentiallyPrivate,
        _SOLVER,
        solver_text(Model.solvers),
    ] = "auto"
    batch_size: Annotated[
        int | str | BatchSchedule,
        BatchSize(("full", "chunk", "auto")),
        'Rows per update of the parameters. "full" is all rows, "chunk" those of a chunk, and '
        '"auto" 200, or all rows if they are fewer. A schedule changes the number at ends of '
        'epochs: "exp:32..full" doubles it each epoch, "step:256@0,4096@3,full@6" names numbers '
        'and the epochs that they begin with, and "grow" follows the noise of the gradient. At '
        '"full" an exact solver goes on.',
    ] = "full"
    learning_rate: Annotated[
        float | str,
        _RATE,
        "Learning rate of updates; columns count as scaled to a standard deviation of 1. A number "
        'without a schedule is a constant rate. Text may name a schedule: "cosine:0.1,warmup=500", '
        'and "cosine" for the learning rate "auto".',
    ] = "auto"
    schedule: Annotated[
        str | Schedule,
        ScheduleSetting(("auto",), of=Schedule, registry=SCHEDULES),
        'How the learning rate changes in the course of a run. "auto" falls as the learning rate '
        '"auto" needs it. A `Schedule`, or text such as "cosine:last=0.1,warmup=500".',
    ] = "auto"
    max_iter: Annotated[
        int | None,
        Count((None,)),
        f"{_MAX_ITER} None is the model's own default.",
    ] = None
    max_passes: Annotated[
        float | None,
        Number((None,), above=0.0),
        "Passes over the training rows after which no iteration begins.",
    ] = None
    max_seconds: Annotated[
        float | None,
        Seconds((None,), above=0.0),
        "Seconds after which no iteration begins.",
    ] = None
    target_loss: Annotated[
        float | None,
        Number((None,), above=-inf),
        "Loss at which a run ends: of the validation rows if there are some, or else of the "
        "training rows.",
    ] = None
    early_stopping: Annotated[
        bool | EarlyStopping,
        EarlyStoppingSetting(),
        "End when the validation loss no longer falls; keep the best parameters. An "
        "`EarlyStopping` has a patience of its own; True has that of `n_iter_no_change`.",
    ] = False
    validation_fraction: Annotated[
        float | None,
        Fraction((None,)),
        "Fraction of the rows that is kept out of training, to evaluate each iteration or epoch. "
        "They are drawn by `random_state`: whole chunks of a store, whole blocks of Dask arrays, "
        "and of arrays rows within each class.",
    ] = None
    tol: Annotated[
        float | None,
        Number((None,), least=0.0),
        tol_text(Model.solvers, "the model's own default"),
    ] = None
    n_iter_no_change: Annotated[
        int,
        Count(),
        "Epochs of updates in a row without progress after which a run ends. Each gained less "
        "than `tol`, or with early_stopping=True did not improve the validation.",
    ] = PATIENCE
    shuffle_chunks: Annotated[
        int | str,
        Count(("auto",)),
        'Chunks whose rows are mixed into batches; "auto" is 1 for a store in random order, and 64 '
        "for other stores. Of arrays in memory it is all rows, of Dask arrays one block.",
    ] = "auto"
    replicas: Annotated[
        int,
        Count(),
        "Copies of the parameters, which learn from a part of the rows each. All are averaged at "
        "fixed points. The result depends on this number, and not on the machine.",
    ] = 1
    random_state: Annotated[
        int | None,
        Count((None,), least=0, most=LARGEST_SEED),
        "Seed of the order of rows, of the choice of validation rows and of random parameters; "
        "without it one is drawn, which the report has.",
    ] = None

    def __post_init__(self) -> None:
        """Check each setting, and that the settings are compatible."""
        stops_early = self.early_stopping is True
        super().__post_init__()
        if stops_early:
            by_patience = EarlyStopping(patience=self.n_iter_no_change)
            object.__setattr__(self, "early_stopping", by_patience)
        self._split_learning_rate()
        if self.batch_size == "full":
            if self.replicas > 1:
                raise ValueError(
                    f"replicas={self.replicas} is for updates by batches, and batch_size='full' "
                    "reads all rows for each; leave it out, or choose another batch_size"
                )
        elif self.solver in EXACT:
            raise ValueError(
                f"solver={self.solver!r} reads all rows before each step, and "
                f"batch_size={self.size_text!r} asks for more steps; use batch_size='full', or "
                "solver='sgd' or 'adam'"
            )

        if isinstance(self.batch_size, BatchSchedule):
            for name, plain in (("replicas", 1), ("schedule", "auto")):
                if getattr(self, name) != plain:
                    raise ValueError(
                        f"{name}={str(getattr(self, name))!r} is for batches of one size, and "
                        f"batch_size='{self.batch_size}' changes the size; leave one of them out"
                    )

        if self.is_private:
            self._require_private()
        rule, schedule = self.early_stopping, self.schedule
        if (
            isinstance(rule, EarlyStopping)
            and isinstance(schedule, Plateau)
            and rule.patience < schedule.patience
        ):
            raise ValueError(
                f"early_stopping ends a run after {counted(rule.patience, 'epoch')} without "
                "progress, before "
                f"schedule='{schedule}' lowers the learning rate after {schedule.patience:g}; use "
                "a larger patience of EarlyStopping, or a smaller one of the schedule"
            )

    def _require_private(self) -> None:
        """Raise `ValueError` for a setting by which more than noisy sums tells of the rows."""
        refused = {
            "batch_size": (
                self.batch_size == "full" or isinstance(self.batch_size, BatchSchedule),
                "private batches are sampled, and have one size; use a number of rows",
            ),
            "learning_rate": (
                self.learning_rate == "auto",
                "it is found by the training rows; use a number",
            ),
            "schedule": (
                isinstance(self.schedule, Plateau),
                "it follows losses, which private updates do not compute; use another",
            ),
            "replicas": (self.replicas > 1, "private updates have one; leave it out"),
            "target_loss": (
                self.target_loss is not None,
                "a loss of rows would decide when the run ends; leave it out",
            ),
            "validation_fraction": (
                self.validation_fraction is not None,
                "losses of rows that it keeps out are not private; pass rows that may be known",
            ),
        }
        for name, (is_set, why) in refused.items():
            if is_set:
                value = getattr(self, name)
                value = str(value) if isinstance(value, Schedule | BatchSchedule) else value
                raise ValueError(f"{name}={value!r} with differential privacy: {why}")

    def texts(self) -> dict[str, str]:
        """Return the settings as text; the seed of private updates would tell their noise."""
        return super().texts() | ({"random_state": "withheld"} if self.is_private else {})

    @property
    def is_private(self) -> bool:
        """Whether the updates are differentially private."""
        return isinstance(self.solver, DifferentiallyPrivate)

    def _split_learning_rate(self) -> None:
        """Replace a learning rate that names a schedule by its number and the schedule."""
        text = self.learning_rate
        if not isinstance(text, str) or text == "auto":
            return
        if self.schedule != "auto":
            raise ValueError(
                f"learning_rate={text!r} names a schedule, and so does "
                f"schedule={str(self.schedule)!r}; leave one of them out"
            )
        rate, schedule = _RATE.parts("learning_rate", text)
        object.__setattr__(self, "learning_rate", rate)
        object.__setattr__(self, "schedule", schedule)

    @property
    def size_text(self) -> int | str:
        """The batch size as a number or text."""
        size = self.batch_size
        return str(size) if isinstance(size, BatchSchedule) else size

    def draws(self, model: Model) -> bool:
        """Return whether a run of the model draws rows or initial parameters at random."""
        draws_rows = self.by_updates or self.validation_fraction is not None
        return draws_rows or model.starts_at_random

    @property
    def by_updates(self) -> bool:
        """Whether the settings ask for updates by batches."""
        named = self.solver != "auto" and self.solver not in EXACT
        return named or self.batch_size != "full"

    def rows_per_update(self, n_rows: int, chunk_rows: int) -> int:
        """Return the batch size in rows; with a schedule, that of the first epoch.

        Raises
        ------
        ValueError
            If the batches of all replicas have more rows than the data.
        """
        if isinstance(self.batch_size, BatchSchedule):
            return self.batch_size.rows(0, n_rows)
        if self.batch_size == "full":
            return n_rows
        if self.batch_size == "auto":
            return min(_AUTOMATIC_ROWS, n_rows)
        rows = min(chunk_rows, n_rows) if self.batch_size == "chunk" else int(self.batch_size)
        if rows > n_rows:
            raise ValueError(
                f"batch_size={rows:,} is more than the {counted(n_rows, 'row')} there are; use "
                "batch_size='full' for all of them"
            )
        if rows * self.replicas > n_rows:
            raise ValueError(
                f"batches of {counted(rows, 'row')} in {counted(self.replicas, 'replica')} are "
                "more than the "
                f"{counted(n_rows, 'row')} there are; use fewer replicas, or smaller batches"
            )
        return rows


def training_settings(model: type[Model]) -> Mapping[str, Setting]:
    """Return the settings of `Training`, described for a model: its solvers and its defaults."""
    described = {
        "solver": solver_text(model.solvers),
        "tol": tol_text(model.solvers, f"{model.default_tol:g}"),
        "max_iter": f"{_MAX_ITER} None is {model.default_max_iter:,}.",
    }
    found = {
        name: setting._replace(description=described.get(name, setting.description))
        for name, setting in settings_of(Training).items()
    }
    names = (*EXACT, *OPTIMIZERS) if "updates" in model.solvers else EXACT
    fitting = tuple(name for name in names if name in model.solvers or name in OPTIMIZERS)
    solver = replace(_SOLVER, words=("auto", *fitting))
    return found | {"solver": found["solver"]._replace(constraint=solver)}


def training_defaults(model: type[Model]) -> dict[str, Any]:
    """Return the defaults of the settings of `Training` for a model, in place of None."""
    return defaults_of(Training) | {
        "tol": model.default_tol,
        "max_iter": model.default_max_iter,
        "batch_size": model.default_batch_size,
    }


AUTOMATIC = Training()
"""The default of every setting."""
