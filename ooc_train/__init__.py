"""Out-of-core training at any batch size, under a memory ceiling, on Zarr and Dask.

Nothing is imported before it is asked for: a worker or the command line pays for what it uses.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ooc_train.cluster import LocalCluster as LocalCluster
    from ooc_train.cluster import training_link as training_link
    from ooc_train.drawing import plots as plots
    from ooc_train.errors import CeilingExceeded as CeilingExceeded
    from ooc_train.errors import ClusterError as ClusterError
    from ooc_train.errors import CorruptChunk as CorruptChunk
    from ooc_train.errors import Diverged as Diverged
    from ooc_train.errors import InvalidRun as InvalidRun
    from ooc_train.errors import InvalidStore as InvalidStore
    from ooc_train.errors import InvalidTable as InvalidTable
    from ooc_train.errors import MissingMainGuard as MissingMainGuard
    from ooc_train.errors import NonFiniteData as NonFiniteData
    from ooc_train.errors import OocTrainError as OocTrainError
    from ooc_train.errors import OutputExists as OutputExists
    from ooc_train.errors import StoreError as StoreError
    from ooc_train.errors import StoreNotFound as StoreNotFound
    from ooc_train.errors import TableError as TableError
    from ooc_train.errors import TableNotFound as TableNotFound
    from ooc_train.estimators import LinearRegression as LinearRegression
    from ooc_train.estimators import LogisticRegression as LogisticRegression
    from ooc_train.estimators import Ridge as Ridge
    from ooc_train.estimators import load as load
    from ooc_train.events import Callback as Callback
    from ooc_train.events import Ended as Ended
    from ooc_train.events import Event as Event
    from ooc_train.events import Noted as Noted
    from ooc_train.events import Progressed as Progressed
    from ooc_train.events import Started as Started
    from ooc_train.events import Stepped as Stepped
    from ooc_train.events import Stop as Stop
    from ooc_train.memory import Ceiling as Ceiling
    from ooc_train.memory import MemoryReport as MemoryReport
    from ooc_train.models.fitted import Fitted as Fitted
    from ooc_train.models.model import Model as Model
    from ooc_train.planning import plan as plan
    from ooc_train.predict import evaluate as evaluate
    from ooc_train.predict import predict as predict
    from ooc_train.predict import predict_store as predict_store
    from ooc_train.report import Report as Report
    from ooc_train.scoring import evaluate_files as evaluate_files
    from ooc_train.scoring import predict_files as predict_files
    from ooc_train.store.ingest import Ingested as Ingested
    from ooc_train.store.ingest import ingest as ingest
    from ooc_train.store.layout import Store as Store
    from ooc_train.store.layout import open_store as open_store
    from ooc_train.store.made import make_data as make_data
    from ooc_train.store.rechunk import rechunk_store as rechunk_store
    from ooc_train.store.shuffle import shuffle_store as shuffle_store
    from ooc_train.store.writer import StoreWriter as StoreWriter
    from ooc_train.stream.plan import Plan as Plan
    from ooc_train.tables.recipe import Recipe as Recipe
    from ooc_train.tradeoff import Tradeoff as Tradeoff
    from ooc_train.tradeoff import tradeoff as tradeoff
    from ooc_train.train import train as train
    from ooc_train.watching.callbacks import ConsoleBar as ConsoleBar
    from ooc_train.watching.recorders import JsonLines as JsonLines
    from ooc_train.watching.recorders import MLflow as MLflow
    from ooc_train.watching.recorders import TensorBoard as TensorBoard

__version__ = "0.1.0"

_NAMES = {
    "watching.callbacks": ("ConsoleBar",),
    "cluster": ("LocalCluster", "training_link"),
    "drawing": ("plots",),
    "errors": (
        "CeilingExceeded",
        "ClusterError",
        "CorruptChunk",
        "Diverged",
        "InvalidRun",
        "InvalidStore",
        "InvalidTable",
        "MissingMainGuard",
        "NonFiniteData",
        "OocTrainError",
        "OutputExists",
        "StoreError",
        "StoreNotFound",
        "TableError",
        "TableNotFound",
    ),
    "estimators": ("LinearRegression", "LogisticRegression", "Ridge", "load"),
    "events": ("Callback", "Ended", "Event", "Noted", "Progressed", "Started", "Stepped", "Stop"),
    "memory": ("Ceiling", "MemoryReport"),
    "models.fitted": ("Fitted",),
    "models.model": ("Model",),
    "planning": ("plan",),
    "predict": ("evaluate", "predict", "predict_store"),
    "watching.recorders": ("JsonLines", "MLflow", "TensorBoard"),
    "report": ("Report",),
    "scoring": ("evaluate_files", "predict_files"),
    "store.ingest": ("Ingested", "ingest"),
    "store.layout": ("Store", "open_store"),
    "store.made": ("make_data",),
    "store.rechunk": ("rechunk_store",),
    "store.shuffle": ("shuffle_store",),
    "store.writer": ("StoreWriter",),
    "stream.plan": ("Plan",),
    "tables.recipe": ("Recipe",),
    "tradeoff": ("Tradeoff", "tradeoff"),
    "train": ("train",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)


if not TYPE_CHECKING:  # a type checker takes the names above, and no others

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `train`, `predict` and `tradeoff` the functions, though files of these names hold them.

    Importing a file of a package puts the module into the package, over what is there.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
