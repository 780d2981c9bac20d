import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ooc_train

# The public names. Changing this list changes the interface: say so in CHANGELOG.md.
EXPORTED: list[str] = [
    "AUGMENTATIONS",
    "Appended",
    "Augmentation",
    "BatchSchedule",
    "CalibratedClassifier",
    "Callback",
    "Ceiling",
    "CeilingExceeded",
    "CellFormats",
    "Checkpoint",
    "ClassMetrics",
    "ClusterError",
    "CoefficientSummary",
    "Compiling",
    "ConsoleBar",
    "CorruptChunk",
    "Crop",
    "CustomModel",
    "Cutout",
    "DifferentiallyPrivate",
    "Diverged",
    "EarlyStopping",
    "ElasticNet",
    "ElasticNetModel",
    "Ended",
    "Event",
    "Exported",
    "Fitted",
    "Flip",
    "Followed",
    "Following",
    "GammaModel",
    "GammaRegressor",
    "GroupMetrics",
    "History",
    "HuberModel",
    "HuberRegressor",
    "Importance",
    "Ingested",
    "IngestedImages",
    "InvalidImages",
    "InvalidRun",
    "InvalidStore",
    "InvalidTable",
    "JsonLines",
    "LOSSES",
    "Lasso",
    "LassoModel",
    "Learned",
    "LeastSquares",
    "LeftoversRemoved",
    "LinearRegression",
    "LinearSVC",
    "LinearSVCModel",
    "LinearSVR",
    "LinearSVRModel",
    "LocalCluster",
    "LogisticModel",
    "LogisticRegression",
    "Loss",
    "LossPoint",
    "MLPClassifier",
    "MLPClassifierModel",
    "MLPRegressor",
    "MLPRegressorModel",
    "MLflow",
    "MemoryReport",
    "MissingMainGuard",
    "MissingPackage",
    "Mixup",
    "Model",
    "Noise",
    "NonFiniteData",
    "Noted",
    "OPTIMIZERS",
    "OocTrainError",
    "Optimizer",
    "OutputExists",
    "PartialDependence",
    "Plan",
    "PoissonModel",
    "PoissonRegressor",
    "Progressed",
    "QuantileModel",
    "QuantileRegressor",
    "Recipe",
    "Report",
    "ResidualMetrics",
    "Ridge",
    "RidgeClassifier",
    "RidgeClassifierModel",
    "RidgeModel",
    "SCHEDULES",
    "SGDClassifier",
    "SGDClassifierModel",
    "SGDRegressor",
    "SGDRegressorModel",
    "SavedElsewhere",
    "Saving",
    "Schedule",
    "Shift",
    "Started",
    "Stepped",
    "Stop",
    "Store",
    "StoreAppender",
    "StoreChanged",
    "StoreError",
    "StoreNotFound",
    "StoreWriter",
    "TableError",
    "TableNotFound",
    "TensorBoard",
    "TorchClassifier",
    "TorchClassifierModel",
    "TorchModule",
    "TorchRegressor",
    "TorchRegressorModel",
    "Tradeoff",
    "Training",
    "TweedieModel",
    "TweedieRegressor",
    "UnsafePlace",
    "append",
    "batch_schedule",
    "batches",
    "calibrate",
    "display",
    "enet_path",
    "evaluate",
    "evaluate_files",
    "export",
    "follow",
    "ingest",
    "ingest_images",
    "lasso_path",
    "load",
    "make_data",
    "open_store",
    "partial_dependence",
    "permutation_importance",
    "plan",
    "plots",
    "predict",
    "predict_files",
    "predict_store",
    "rechunk_store",
    "shuffle_store",
    "split_store",
    "summary",
    "tradeoff",
    "train",
    "training_link",
    "verify_store",
]


def test_the_public_names_are_these():
    assert sorted(getattr(ooc_train, "__all__", [])) == EXPORTED


def test_every_public_name_is_there():
    for name in EXPORTED:
        assert getattr(ooc_train, name) is not None
    assert set(EXPORTED) <= set(dir(ooc_train))


def test_the_version_is_that_of_the_project_file():
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert ooc_train.__version__ == tomllib.loads(text)["project"]["version"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "first", ["training.loop", "inference.predict", "experiments.tradeoff", "estimators", "cli"]
)
def test_functions_are_not_hidden_by_the_files_that_hold_them(first):
    code = (
        f"import ooc_train.{first}, ooc_train\n"
        "from ooc_train import predict, train\n"
        "import ooc_train.runtime.job\n"
        "print(*map(callable, (train, predict, ooc_train.train, ooc_train.predict)))"
    )
    assert run(code) == ["True"] * 4


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        ooc_train.no_such_name  # type: ignore[attr-defined]


def run(code):
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return result.stdout.split()


def test_importing_the_package_loads_nothing_before_it_is_asked_for():
    heavy = "{'numpy', 'dask', 'zarr', 'numba', 'sklearn'}"
    assert run(f"import sys, ooc_train; print(*{heavy} & sys.modules.keys())") == []


def test_asking_for_an_error_loads_no_more_than_the_errors():
    heavy = "{'numpy', 'dask', 'zarr', 'numba', 'sklearn'}"
    code = f"import sys; from ooc_train import CorruptChunk; print(*{heavy} & sys.modules.keys())"
    assert run(code) == []


def test_the_plots_are_a_module_of_the_package():
    assert run("from ooc_train import plots; print(plots.__name__)") == ["ooc_train.plotting.plots"]
