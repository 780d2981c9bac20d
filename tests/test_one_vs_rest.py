"""One against the rest: a binary loss of more than two classes, wherever rows are read."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.multiclass import OneVsRestClassifier

from ooc_train import CustomModel, EarlyStopping, Training, evaluate, predict, train
from ooc_train.core.packing import packed_size, unpacked
from ooc_train.core.sums import Block
from ooc_train.inference.outputs import Outputs
from ooc_train.kernels import api as kernels
from ooc_train.kernels.layout import scan_workspace
from ooc_train.kernels.plain import PLAIN
from ooc_train.kernels.scan import Scan, ScanState, Updating
from ooc_train.models.gram_sums import GramSums
from ooc_train.objective.loss import indicators
from ooc_train.objective.losses import LOSSES
from ooc_train.objective.losses.hinge import Hinge
from ooc_train.objective.losses.logistic import Logistic
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.losses.squared_hinge import SquaredHinge
from ooc_train.objective.losses.squared_margin import SquaredMargin
from ooc_train.objective.scaling import Scaling
from ooc_train.optimizers import OPTIMIZERS
from ooc_train.runs.run_loading import load_fitted
from tests.streams import Shuffled, make_case, same_bits, stream, write_store

Array = NDArray[Any]
ROWS, FEATURES, CLASSES = 61, 5, 4


def rows(dtype: str = "<f8") -> tuple[Array, Array, Array]:
    """Rows, codes, and the indicators of the codes."""
    rng = np.random.default_rng(0)
    X = (1 + rng.normal(size=(ROWS, FEATURES))).astype(dtype)
    codes = rng.integers(0, CLASSES, (ROWS, 1)).astype(float)
    return X, codes, np.eye(CLASSES)[codes[:, 0].astype(int)]


def iris() -> tuple[Array, Array]:
    X, y = load_iris(return_X_y=True)
    return (X - X.mean(axis=0)) / X.std(axis=0), y


# What codes stand for


@pytest.mark.parametrize("loss", [Hinge(), SquaredMargin(), Logistic()])
def test_the_target_of_an_output_is_its_class_against_the_rest(loss):
    codes = np.array([[2.0], [0.0], [-1.0], [3.0], [np.nan]])
    due = [[0, 0, 1], [1, 0, 0], *[[np.nan] * 3] * 3]
    np.testing.assert_array_equal(loss.targets(codes, 3), due)
    np.testing.assert_array_equal(indicators(codes, range(1, 3), 3), np.array(due)[:, 1:])
    assert loss.targets(codes, 1) is codes
    assert loss.targets(y := np.eye(3), 3) is y
    assert Multinomial().targets(codes, 3) is codes


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge", "squared_margin", "logistic"])
def test_curvatures_by_codes_are_those_by_targets(loss):
    _, codes, y = rows()
    z, of = np.random.default_rng(1).normal(size=y.shape), LOSSES[loss]()
    for found, due in zip(of.curvatures(codes, z), of.curvature(y, z).T, strict=True):
        np.testing.assert_array_equal(found, due)
    for found, due in zip(of.curvatures(y, z), of.curvature(y, z).T, strict=True):
        np.testing.assert_array_equal(found, due)


# Kernels


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
@pytest.mark.parametrize("loss", ["squared_hinge", "logistic"])
def test_codes_give_a_full_batch_the_bits_of_their_indicators(loss, dtype):
    X, codes, y = rows(dtype)
    rng, models = np.random.default_rng(1), 2
    W, b = rng.normal(size=(models * CLASSES, FEATURES)), rng.normal(size=models * CLASSES)
    found = []
    for targets in (codes, y):
        G, sums = np.zeros((CLASSES, FEATURES + 1)), np.zeros(models)
        scratch = np.zeros((16, models * CLASSES)), np.zeros((16, CLASSES))
        of_loss = LOSSES[loss]()
        cells = np.zeros((2, CLASSES))
        work = *scratch, G, sums, cells, np.ones(CLASSES)
        kernels.add_rows(X, targets, np.empty(0), W, b, of_loss, *work)
        found.append((G.tobytes(), sums.tobytes()))
    assert found[0] == found[1]


def scanned(y: Array, loss: str, optimizer: str, batch_size: int) -> tuple[int, Array, Array]:
    """Updates by rows: where they stopped, their parameters, and their sums."""
    X, _, _ = rows()
    shape, columns = (CLASSES, FEATURES + 1), np.ones(FEATURES)
    chosen = OPTIMIZERS.parse(optimizer)
    updating = Updating(
        np.dtype("<f8"), LOSSES[loss](), chosen, batch_size, columns, columns, 0.1 * columns,
        0.0 * columns, fit_intercept=True, own=np.ones(CLASSES),
    )  # fmt: skip
    slots = np.zeros((len(chosen.slot_powers), *shape))
    state = ScanState(
        np.zeros(shape), slots, np.zeros(shape), np.zeros(3, np.int64), np.zeros(shape),
        np.zeros(3), np.zeros(2),
    )  # fmt: skip
    specs = scan_workspace(ROWS, FEATURES, CLASSES)
    workspace = {name: np.zeros(each.shape, each.dtype) for name, each in specs.items()}
    scan = Scan(updating, state, np.full(64, 0.05), workspace)
    stopped = scan(X, y, np.empty(0), np.arange(ROWS))
    scan.flush()
    scan.close()
    return stopped, state.theta, state.sums


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7, ROWS])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("loss", ["hinge", "logistic"])
def test_codes_give_updates_the_bits_of_their_indicators(loss, optimizer, batch_size):
    _, codes, y = rows()
    found, due = (scanned(each, loss, optimizer, batch_size) for each in (codes, y))
    assert found[0] == due[0] == -1
    for by_code, by_indicator in zip(found[1:], due[1:], strict=True):
        np.testing.assert_array_equal(by_code, by_indicator)


@pytest.mark.parametrize("code", [-1.0, float(CLASSES)])
def test_an_unknown_code_is_no_number(code):
    X, codes, _ = rows()
    codes[17] = code
    assert scanned(codes, "hinge", "sgd", 1)[0] == 17
    W, b, cells = np.ones((CLASSES, FEATURES)), np.ones(CLASSES), np.zeros((2, CLASSES))
    (spec,) = kernels.add_rows_needs(Hinge())
    plain = PLAIN[spec.kernel](spec)

    def compiled(*given: Any) -> float:
        arguments: Any = (*given[:5], Hinge(), *given[5:])
        return kernels.add_rows(*arguments)

    for add in (compiled, plain):
        scratch, G = np.zeros((ROWS, CLASSES)), np.zeros((CLASSES, FEATURES + 1))
        work = scratch, scratch.copy(), G, np.zeros(1), cells, np.ones(CLASSES)
        assert np.isnan(add(X, codes, np.empty(0), W, b, *work))
        assert np.isnan(G).all()


# Sums


@pytest.mark.parametrize("hessian", [False, True])
def test_sums_have_the_same_bits_however_rows_are_read(hessian):
    case = make_case("squared_hinge", 3, rows=701, partition_rows=50, weighted=True)
    theta = np.random.default_rng(0).normal(size=(1, *case.problem.shape))
    work = case.problem.reduction(theta, hessian=hessian)
    due = stream(case.source).reduce(work)
    for groups, window, seed in ((1, 1, 0), (1, 4, 1), (3, 3, 2)):
        passes = stream(case.source, task_groups=groups, window=window, executor=Shuffled(seed))
        assert same_bits(passes.reduce(work), due)


def test_the_hessian_has_a_block_for_each_class():
    case = make_case("squared_hinge", 10, features=30)
    assert case.problem.hessian_shape == (10, 31, 31)
    zeros = case.problem.reduction(np.zeros((1, 10, 31)), hessian=True).zeros()
    assert zeros["hessian"].shape == (10, packed_size(31))
    assert make_case("multinomial", 3, features=30).problem.hessian_shape == (1, 93, 93)
    assert make_case("squared", 3, features=30).problem.hessian_shape == (3, 31, 31)


@pytest.mark.parametrize("compiled", [False, True])
def test_products_for_least_squares_are_by_sides_and_class_weights(compiled):
    X, codes, y = rows()
    weight, by_class = np.random.default_rng(2).uniform(size=ROWS), np.arange(1.0, CLASSES + 1)
    scaling = Scaling(np.zeros(FEATURES), np.ones(FEATURES))
    work = GramSums(scaling, CLASSES, compiled, SquaredMargin(), by_class)
    sums, specs = work.zeros(), work.workspace(ROWS)
    work.add(sums, Block(X, codes, weight), {k: np.empty(each.shape) for k, each in specs.items()})
    whole = np.column_stack([X, np.ones(ROWS), 2 * y - 1])
    w = weight * by_class[codes[:, 0].astype(int)]
    gram = unpacked(sums["gram"], FEATURES + 1 + CLASSES)
    np.testing.assert_allclose(gram, (whole * w[:, None]).T @ whole, rtol=1e-12)


# Models


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize("weighted", [False, True])
def test_each_class_has_the_answer_of_its_own_problem(solver, weighted):
    X, y = iris()
    weight = np.random.default_rng(0).integers(0, 3, len(y)) * 0.7 if weighted else None
    fitted, report = train(
        CustomModel(loss=Logistic(), l2=1.0), X, Training(solver=solver, tol=1e-10), y=y,
        sample_weight=weight,
    )  # fmt: skip
    assert report.converged
    binary = LogisticRegression(solver="newton-cholesky", tol=1e-12)
    for k in range(3):
        due = binary.fit(X, y == k, weight)
        np.testing.assert_allclose(fitted.coef[k], due.coef_[0], rtol=1e-6, atol=1e-6)
        assert fitted.intercept[k] == pytest.approx(due.intercept_[0], rel=1e-6)
    if weight is None:
        due = OneVsRestClassifier(binary).fit(X, y)
        np.testing.assert_array_equal(predict(fitted, X), due.predict(X))


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("loss", [SquaredHinge(), Logistic()])
def test_updates_come_near_the_optimum_of_every_class(loss, batch_size):
    X, y = iris()
    training = Training(batch_size=batch_size, max_iter=100, tol=0.0, random_state=0)
    found, _ = train(CustomModel(loss=loss, l2=1.0), X, training, y=y)
    best, _ = train(CustomModel(loss=loss, l2=1.0), X, Training(tol=1e-8), y=y)

    def objective(fitted: Any) -> Any:
        losses = loss.value(np.eye(3)[y], X @ fitted.coef.T + fitted.intercept)
        return losses.sum(axis=0) + 0.5 * (fitted.coef**2).sum(axis=1)

    assert objective(found).sum() <= 1.02 * objective(best).sum()


def test_a_run_of_three_classes_is_saved_and_measured(tmp_path):
    X, y = iris()
    names = np.array(["ash", "beech", "cedar"])
    store = write_store(tmp_path / "rows.zarr", X, y, chunk_rows=32, classes=names.tolist())
    model = CustomModel(loss=Logistic(), l2=1.0)
    fitted, _ = train(model, store, out=tmp_path / "a.run")
    again = load_fitted(tmp_path / "a.run")
    z = predict(again, store, "decision")
    np.testing.assert_array_equal(z, predict(fitted, store, "decision"))
    np.testing.assert_allclose(z, X @ fitted.coef.T + fitted.intercept, atol=1e-12)
    metrics, _ = evaluate(again, store)
    assert metrics["accuracy"] == np.mean(z.argmax(axis=1) == y)
    losses = Logistic().value(np.eye(3)[y], z).sum(axis=1)
    assert metrics["loss"] == pytest.approx(losses.mean())
    assert "roc_auc" not in metrics
    p = np.exp(-np.logaddexp(0.0, -z))
    due = p / p.sum(axis=1, keepdims=True)
    assert metrics["log_loss"] == pytest.approx(log_loss(y, due))
    np.testing.assert_allclose(predict(again, X, "probability"), due, rtol=1e-12)
    np.testing.assert_allclose(predict(again, store, "log_probability"), np.log(due), rtol=1e-9)


def test_the_log_loss_of_one_against_the_rest_may_be_watched():
    X, y = iris()
    rule = EarlyStopping(metric="log_loss", patience=2)
    training = Training(
        solver="sgd",
        batch_size=8,
        early_stopping=rule,
        validation_fraction=0.3,
        max_iter=30,
        random_state=0,
    )
    _, report = train(CustomModel(loss=Logistic(), l2=1.0), X, training, y=y)
    values = np.array([step.validation_metric for step in report.history], float)
    assert values[0] > values.min() > 0.0
    assert values.min() < 0.5 * np.log(3)


def test_probabilities_are_finite_where_all_classes_are_ruled_out():
    outputs = Outputs(Logistic(), 3, ("ash", "beech", "cedar"))
    z = np.array([[-1000.0, -1001.0, -5000.0], [800.0, 800.0, 800.0]])
    share = 1.0 / (1.0 + np.exp(-1.0))
    np.testing.assert_allclose(outputs.probabilities(z), [[share, 1 - share, 0], [1 / 3] * 3])
    assert np.isfinite(outputs.log_probabilities(z)).all()


def test_only_least_squares_has_products_of_columns():
    with pytest.raises(TypeError, match="the squared_hinge loss is not that of least squares"):
        make_case("squared_hinge", 3).problem.gram_sums()
