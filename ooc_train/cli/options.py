"""Options that commands share: a dataclass for each group, a field for each option."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import typer

from ooc_train.cli import parsers
from ooc_train.core.units import MOST_WORKERS, parse_duration
from ooc_train.memory.ceiling import Ceiling
from ooc_train.monitoring.callbacks import ConsoleBar

if TYPE_CHECKING:
    from ooc_train.store.dataset import Store
    from ooc_train.training.checkpoints import Checkpoint
    from ooc_train.training.kept_run import KeptRun


def option(*names: str, of: str, parse: Callable[[str], Any] | None = None, **more: Any) -> Any:
    """Return a command-line option, which the help lists under the heading `of`."""
    parser = None if parse is None else parsers.parsed(parse)
    return typer.Option(*names, parser=parser, rich_help_panel=of, **more)


@dataclass(frozen=True)
class OutputOptions:
    """Options of the output of all commands."""

    as_json: Annotated[
        bool, option("--json", of="Output", help="Print one JSON object on stdout.")
    ] = False
    quiet: Annotated[bool, option("--quiet", of="Output", help="Show no progress.")] = False
    traceback: Annotated[
        bool, option("--traceback", of="Output", help="Show the traceback of an error.")
    ] = False


MemoryCeiling = Annotated[
    str | None,
    option(
        of="Resources",
        parse=parsers.size,
        metavar="BYTES",
        help="Memory limit of all processes together, such as 512MiB (default: half of the "
        "available memory; in a container up to 80 % if needed).",
    ),
]


_PLACE = "a name in the store, a path relative to it or to this folder, or a URL"


@dataclass(frozen=True)
class StoreOptions:
    """Options of how stores are opened."""

    fill_missing: Annotated[
        bool,
        option(
            "--fill-missing",
            of="Store",
            help="Read missing chunks of other writers as their fill value.",
        ),
    ] = False
    x: Annotated[
        str, option("--x", of="Store", metavar="ARRAY", help=f"The array that is X: {_PLACE}.")
    ] = "X"
    y: Annotated[
        str, option("--y", of="Store", metavar="ARRAY", help=f"The array that is y: {_PLACE}.")
    ] = "y"
    weight: Annotated[
        str,
        option("--weight", of="Store", metavar="ARRAY", help=f"The sample weights: {_PLACE}."),
    ] = "sample_weight"
    no_weights: Annotated[
        bool, option("--no-weights", of="Store", help="Ignore the weights of the store.")
    ] = False

    def open(self, path: str) -> "Store":
        """Open the store at a path or URL."""
        return self._open(path, self.x, self.y, self.weight)

    def _open(self, path: str, x: str, y: str, weight: str) -> "Store":
        from ooc_train.store.opening.opener import open_store

        if self.no_weights and weight != "sample_weight":
            raise ValueError("--no-weights ignores the array of --weight; leave one of them out")
        return open_store(
            path,
            X=x,
            y=y,
            sample_weight=None if self.no_weights else weight,
            fill_missing=self.fill_missing,
        )

    def open_validation(self, path: str | None) -> "Store | None":
        """Open the store of the validation rows; None without one.

        Its arrays have the same names, relative to its own folder.
        """
        if path is None:
            return None
        places = {"--x": self.x, "--y": self.y, "--weight": self.weight}
        for option_name, place in places.items():
            if "://" in place or os.path.isabs(place):
                raise ValueError(
                    f"{option_name} {place} is the same array for all rows, and --validation has "
                    "rows of its own; name arrays by their place in the store"
                )
        return self._open(path, *(_from(path, place) for place in places.values()))

    def made_on(self, opened: Mapping[str, Any]) -> Self:
        """Return the options of how a store was opened, with those that were passed in their place.

        Parameters
        ----------
        opened : mapping
            As `Store.opened` has it.
        """
        usual = type(self)()
        x, y, weight = (
            opened[role] if own == default else own
            for role, own, default in (
                ("X", self.x, usual.x),
                ("y", self.y, usual.y),
                ("sample_weight", self.weight, usual.weight),
            )
        )
        return replace(
            self,
            fill_missing=self.fill_missing or opened["fill_missing"],
            x=x,
            y=y,
            weight=usual.weight if weight is None else weight,
            no_weights=self.no_weights or weight is None,
        )

    def require_default(self, what: str) -> None:
        """Raise `ValueError` if options of stores are set, for `what` that is not a store."""
        if self != type(self)():
            raise ValueError(f"options that name arrays of a store are not for {what}")


@dataclass(frozen=True)
class StoreXOptions(StoreOptions):
    """Options of how stores are opened if only X is read."""

    omitted: ClassVar[frozenset[str]] = frozenset({"y", "weight", "no_weights"})

    def open(self, path: str) -> "Store":
        """Open the store at a path or URL, without y and weights."""
        from ooc_train.store.opening.opener import open_store

        return open_store(
            path, X=self.x, y=None, sample_weight=None, fill_missing=self.fill_missing
        )


def _from(path: str, place: str) -> str:
    """Return the path of an array inside a store, so that it is searched only there."""
    if place in ("X", "y", "sample_weight"):
        return place
    from ooc_train.store.format.shares import read_share

    if (share := read_share(path)) is not None:
        path = share.store_path
    return os.path.join(path if "://" in path else os.path.abspath(path), place)


@dataclass(frozen=True)
class CsvOptions:
    """Options of how CSV files are read."""

    delimiter: Annotated[
        str | None,
        option(
            of="CSV",
            metavar="CHAR",
            help="Cell separator (default: as at ingest; there a comma, or a tab for .tsv).",
        ),
    ] = None
    encoding: Annotated[str | None, option(of="CSV", help="Text encoding, such as latin1.")] = None


@dataclass(frozen=True)
class RawFileOptions(CsvOptions):
    """Options of how raw files are read for predictions."""

    unseen: Annotated[
        Literal["error", "other", "ignore"] | None,
        typer.Option(help="Use of categories that no training row had (default: as at ingest)."),
    ] = None


@dataclass(frozen=True)
class CheckpointOptions:
    """Options of checkpoints, which lie beside the run: how often they are written, and resuming.

    The checkpoints of RUN are in RUN.checkpoint.
    """

    checkpoint_every: Annotated[
        str | None,
        option(
            of="Checkpoints",
            parse=parsers.interval,
            metavar="INTERVAL",
            help="Keep the state of the run in RUN.checkpoint, each 90s, 10min or '2 passes', so "
            "that a run that was ended or killed goes on.",
        ),
    ] = None
    resume: Annotated[
        str | None,
        option(
            of="Checkpoints",
            metavar="RUN",
            help="Go on with a run from its checkpoint; store and settings are known. Limits, such "
            "as --max-iter, and resources may be others.",
        ),
    ] = None

    def kept(self) -> "KeptRun | None":
        """Return the run to go on with; None without one.

        Raises
        ------
        InvalidRun
            If it has no checkpoint, or one that no command can go on from.
        """
        from ooc_train.training.kept_run import kept_run

        return None if self.resume is None else kept_run(self._folder(self.resume))

    def placed(
        self, out: str | None, kept: "KeptRun | None"
    ) -> tuple[str | None, "Checkpoint | None"]:
        """Return where the run is saved, and its checkpoint; None without them.

        Raises
        ------
        ValueError
            If a run with checkpoints has no place, or has two.
        """
        from ooc_train.training.checkpoints import Checkpoint

        if self.resume is not None and kept is not None:
            if out not in (None, self.resume):
                raise ValueError(
                    f"--resume {self.resume} saves the run there, and --out {out} is another "
                    "place; leave --out out"
                )
            every = self.checkpoint_every or kept.every
            return self.resume, Checkpoint(self._folder(self.resume), every, resume=True)
        if self.checkpoint_every is None:
            return out, None
        if out is None:
            raise ValueError(
                "--checkpoint-every needs --out RUN: the checkpoints lie beside it, in "
                "RUN.checkpoint"
            )
        return out, Checkpoint(self._folder(out), self.checkpoint_every)

    def _folder(self, run: str) -> str:
        """Return the folder of a run's checkpoints."""
        return f"{os.path.normpath(run)}.checkpoint"


@dataclass(frozen=True)
class ResourceOptions:
    """Options of the processes and the memory that a job uses."""

    memory_ceiling: MemoryCeiling = None
    workers: Annotated[
        int | None,
        option(
            of="Resources",
            metavar="N",
            min=1,
            max=MOST_WORKERS,
            help="Worker processes (default: one per core, fewer under a small ceiling).",
        ),
    ] = None
    threads: Annotated[
        int | None,
        option(
            of="Resources",
            metavar="N",
            min=1,
            max=MOST_WORKERS,
            help="Threads of a worker (default: 1).",
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        option(of="Resources", metavar="ADDRESS", help="Address of a running Dask cluster."),
    ] = None
    dashboard_address: Annotated[
        str | None,
        option(
            of="Resources",
            parse=parsers.address,
            metavar="HOST:PORT",
            help="Where the dashboard listens (default: 127.0.0.1:8787).",
        ),
    ] = None
    insecure: Annotated[
        bool,
        option(
            "--insecure",
            of="Resources",
            help="Let every user of this machine connect, and so run code as you.",
        ),
    ] = False
    worker_timeout: Annotated[
        Any,
        option(
            of="Resources",
            parse=parse_duration,
            metavar="DURATION",
            help="How long a run without workers waits for one (default: 60s).",
        ),
    ] = None

    @cached_property
    def ceiling(self) -> Ceiling:
        """The ceiling of all processes, decided once."""
        if self.scheduler is not None and self.memory_ceiling is not None:
            # Workers elsewhere may have more memory than this machine.
            return Ceiling.given(self.memory_ceiling, whole_process=True)
        return Ceiling.of(self.memory_ceiling, whole_process=True)

    @contextmanager
    def client(self, bar: ConsoleBar, *, kernels: bool, other_bytes: int = 0) -> Iterator[Any]:
        """Start the cluster of this command, or connect to a running one; give a client.

        Parameters
        ----------
        bar : ConsoleBar
            Prints the address of the dashboard.
        kernels : bool
            Whether workers will load the compiled kernels.
        other_bytes : int
            Bytes that this process will hold for other purposes than training.
        """
        # The ceiling first: an invalid one needs no cluster.
        ceiling = self.ceiling
        from ooc_train.runtime.clients import connect, waiting_for_workers
        from ooc_train.runtime.cluster import DASHBOARD, LocalCluster, workers_within

        if self.scheduler is not None:
            for name in ("workers", "threads", "dashboard_address", "insecure"):
                if getattr(self, name) not in (None, False):
                    option = name.replace("_", "-")
                    raise typer.BadParameter(
                        f"--{option} is for workers that this command starts, and --scheduler "
                        "names a running cluster; leave one of them out"
                    )
            bar.doing("connecting to the cluster")
            with waiting_for_workers(self.worker_timeout), connect(self.scheduler) as client:
                bar.say(f"dashboard  {client.dashboard_link}")
                yield client
            return
        bar.doing("starting workers")
        with (
            waiting_for_workers(self.worker_timeout),
            LocalCluster(
                memory_ceiling=ceiling,
                n_workers=self.workers
                or workers_within(ceiling, kernels=kernels, other_bytes=other_bytes),
                threads_per_worker=self.threads or 1,
                dashboard_address=self.dashboard_address or DASHBOARD,
                security=not self.insecure,
            ) as cluster,
            cluster.get_client() as client,
        ):
            cluster.chooses_workers = self.workers is None
            bar.say(f"dashboard  {client.dashboard_link}")
            bar.doing("planning")
            yield client


DATA = typer.Argument(
    help="A store, or raw files: CSV or Parquet, a pattern or a folder.", show_default=False
)
STORE = typer.Argument(help="Path or URL of a store.", show_default=False)
RUN = typer.Argument(help="Folder of a saved run.", show_default=False)
Validation = Annotated[
    str | None,
    typer.Option(
        metavar="STORE",
        help="Validation rows: their loss is reported after each iteration or epoch.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
