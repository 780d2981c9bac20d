"""Augmentation: plain loops are the reference; the same bits wherever rows are; what is refused."""

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import betaincinv, ndtr

from ooc_train import (
    AUGMENTATIONS,
    Augmentation,
    Checkpoint,
    Crop,
    Cutout,
    Flip,
    LocalCluster,
    Mixup,
    MLPClassifier,
    MLPClassifierModel,
    MLPRegressorModel,
    Noise,
    NonFiniteData,
    Shift,
    Training,
    evaluate,
    load,
    plan,
    train,
)
from ooc_train.augmentation.augmenter import Augmentations, Augmenter, halves
from ooc_train.augmentation.row_draws import RowDraws, row_seeds, stage_keys
from ooc_train.cli.model_options import ModelOptions
from ooc_train.core.sums import Block
from ooc_train.models.model import DataFigures
from ooc_train.models.network import Layers, Propagation
from ooc_train.objective.activations import Tanh
from ooc_train.objective.losses.multinomial import Multinomial
from ooc_train.objective.losses.squared import Squared
from ooc_train.optimizers.adam import Adam
from ooc_train.optimizers.schedules import Constant
from ooc_train.optimizers.sgd import Sgd
from ooc_train.solvers.base import advance, start
from ooc_train.solvers.registry import Settings, solver_for
from ooc_train.store.writing.writer import StoreWriter
from ooc_train.stream import passes
from tests.streams import Cut, stream

pytestmark = pytest.mark.filterwarnings("ignore:.*not converged")

ROWS, SHAPE = 300, (7, 6)
RANDOM = np.random.default_rng(0)
CODES = RANDOM.integers(0, 3, ROWS)
IMAGES = RANDOM.integers(0, 200, (ROWS, *SHAPE)).astype(np.uint8)
IMAGES[np.arange(ROWS), 2, 1 + CODES] = 255
FLAT = IMAGES.reshape(ROWS, -1).astype(np.float32)
ALL = (Shift(2), Crop(0.6), Flip(0.5, 0.3), Cutout(3), Noise(0.1), Mixup(0.4))
MLP = MLPClassifierModel(hidden_layer_sizes=(9,), scale=1 / 255, average=False)
BATCHES: dict[str, Any] = {"batch_size": 16, "random_state": 3, "tol": 0.0, "solver": "adam"}


@AUGMENTATIONS.add
@dataclass(frozen=True)
class Darker(Augmentation):
    """Images times a random factor, of a user."""

    least: float = 0.5

    name: ClassVar[str] = "darker"

    def __call__(self, rows, random):
        return rows * random.uniform(self.least, 1.0)[:, None, None]


@dataclass(frozen=True)
class Own(Augmentation):
    """What a user's function does, as no registered class."""

    function: Callable[[Any, Any], Any]

    name: ClassVar[str] = "own"

    def __call__(self, rows, random):
        return self.function(rows, random)


def arrays_of(specs):
    return {name: np.full(each.shape, 1, each.dtype) for name, each in specs.items()}


def augmenter_of(parts, shape, rows, *, seed=5, epoch=0, unit: Any = 1.0, dtype="<f4"):
    made = Augmentations.of(parts, shape, seed)
    assert made is not None
    state = made.start(dtype)
    state["epochs"] += epoch
    return Augmenter(made, arrays_of(made.workspace(rows, dtype)), state, unit)


def augmented(part, images, numbers=None, dtype=np.float32, **settings):
    """Images after one augmentation, and the draws that it had."""
    shape, rows = images.shape[1:], len(images)
    numbers = np.arange(rows) if numbers is None else numbers
    found = images.reshape(rows, -1).astype(dtype)
    made = augmenter_of((part,), shape, rows, dtype=np.dtype(dtype).str, **settings)
    made.augment(found, numbers)
    draws = RowDraws(row_seeds(stage_keys(5, settings.get("epoch", 0), 1)[0], numbers))
    return found.reshape(images.shape), draws


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """One thread of PyTorch, as workers have: more than there are cores wait for each other."""
    if find_spec("torch") is None:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Random numbers


def test_numbers_are_uniform_and_independent_by_row_epoch_and_stage():
    rows = 20_000
    numbers = np.arange(rows) * 7
    keys = [*stage_keys(3, 0, 2), *stage_keys(3, 1, 1), *stage_keys(4, 0, 1)]
    drawn = np.array(
        [RowDraws(row_seeds(key, numbers)).uniform(shape=(3,)) for key in keys]
    ).transpose(0, 2, 1)
    series = drawn.reshape(-1, rows)
    assert series.shape == (12, rows)
    for each in series:
        counts = np.histogram(each, 20, (0.0, 1.0))[0]
        assert ((counts - rows / 20) ** 2 / (rows / 20)).sum() < 50.0  # chi2 of 19: p < 1e-4
        assert abs(np.corrcoef(each[1:], each[:-1])[0, 1]) < 0.03
    assert np.abs(np.corrcoef(series) - np.eye(12)).max() < 0.03


def test_whole_numbers_are_equally_likely():
    draws = RowDraws(row_seeds(np.uint64(9), np.arange(30_000)))
    found = draws.integers(-2, 3, (2,))
    assert found.shape == (30_000, 2)
    values, counts = np.unique(found, return_counts=True)
    assert_array_equal(values, [-2, -1, 0, 1, 2])
    assert np.abs(counts - 12_000).max() < 450


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal_numbers_have_their_distribution(dtype):
    draws = RowDraws(row_seeds(np.uint64(9), np.arange(400)))
    found = draws.normal((5, 15), dtype)
    assert (found.shape, found.dtype) == ((400, 5, 15), dtype)
    each = np.sort(ndtr(found.ravel().astype(float)))
    distance = np.abs(each - (np.arange(each.size) + 0.5) / each.size).max()
    assert distance * np.sqrt(each.size) < 1.95  # Kolmogorov and Smirnov: p < 1e-3
    assert abs(np.corrcoef(found[:, 0, :-1].ravel(), found[:, 0, 1:].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("alpha", [0.01, 0.2, 0.5, 1.0, 1.5, 8.0, 900.0])
def test_shares_of_mixup_follow_the_beta_distribution(alpha):
    draws = RowDraws(row_seeds(np.uint64(9), np.arange(3000)))
    again = RowDraws(row_seeds(np.uint64(9), np.arange(3000)))
    assert_allclose(
        Mixup(alpha).shares(draws), betaincinv(alpha, alpha, again.uniform()), atol=3e-5
    )


def test_a_row_draws_other_numbers_each_time():
    draws = RowDraws(row_seeds(np.uint64(9), np.arange(5000)))
    first, second, third = draws.uniform(), draws.uniform(shape=(2,)), draws.normal((3,))
    together = np.column_stack([first, second, third])
    assert np.abs(np.corrcoef(together.T) - np.eye(6)).max() < 0.06


# Each augmentation is that of a plain loop with the same draws

PICTURES = {
    "gray": RANDOM.normal(1, 1, (40, 7, 5)),
    "channels": RANDOM.normal(1, 1, (40, 7, 5, 3)),
    "channels first": RANDOM.normal(1, 1, (40, 3, 7, 5)),
}


def each_image(name, images):
    """Each image with the channels last."""
    for image in images:
        if name == "gray":
            yield image[:, :, None]
        else:
            yield np.moveaxis(image, 0, 2) if name == "channels first" else image


@pytest.fixture(params=PICTURES)
def pictures(request):
    images = PICTURES[request.param]

    def of(part, **settings):
        before = images.copy()
        found, draws = augmented(part, images, dtype=np.float64, **settings)
        assert_array_equal(before, images)
        assert (found != images).any()
        pairs = zip(
            each_image(request.param, images), each_image(request.param, found), strict=True
        )
        return list(pairs), draws

    return of


def test_shifts(pictures):
    pairs, draws = pictures(Shift(2, fill=9.0))
    shifts = draws.integers(-2, 3, (2,))
    assert len(np.unique(shifts, axis=0)) > 15
    for (image, found), (down, right) in zip(pairs, shifts, strict=True):
        due = np.full(image.shape, 9.0)
        for y, x in np.ndindex(7, 5):
            if 0 <= y + down < 7 and 0 <= x + right < 5:
                due[y + down, x + right] = image[y, x]
        assert_array_equal(found, due)


def test_crops(pictures):
    pairs, draws = pictures(Crop(0.4))
    shares = draws.uniform(0.4, 1.0)
    corners = draws.uniform(shape=(2,))
    for (image, found), share, corner in zip(pairs, shares, corners, strict=True):
        top, left = corner * (1 - share)
        for y, x in np.ndindex(7, 5):
            line = int(7 * (top + share * (y + 0.5) / 7))
            column = int(5 * (left + share * (x + 0.5) / 5))
            assert_array_equal(found[y, x], image[line, column])
    kept, _ = augmented(Crop(1.0), PICTURES["gray"], dtype=np.float64)
    assert_array_equal(kept, PICTURES["gray"])


def test_flips(pictures):
    pairs, draws = pictures(Flip(0.7, 0.4))
    drawn = draws.uniform(shape=(2,))
    for (image, found), (across, down) in zip(pairs, drawn, strict=True):
        due = image[:, ::-1] if across < 0.7 else image
        assert_array_equal(found, due[::-1] if down < 0.4 else due)


def test_cutouts(pictures):
    pairs, draws = pictures(Cutout(3, fill=-1.0))
    lines, columns = draws.integers(0, 7), draws.integers(0, 5)
    for (image, found), line, column in zip(pairs, lines, columns, strict=True):
        for y, x in np.ndindex(7, 5):
            inside = abs(y - line) <= 1 and abs(x - column) <= 1
            assert_array_equal(found[y, x], -1.0 if inside else image[y, x])


def test_noise_is_in_units_of_the_scaled_columns(pictures):
    pairs, draws = pictures(Noise(0.3), unit=5.0)
    images = np.stack([image for image, _ in pairs])
    found = np.stack([found for _, found in pairs])
    assert (found - images).std() == pytest.approx(1.5, rel=0.1)
    images, units = PICTURES["gray"], RANDOM.uniform(1, 2, 35)
    found, draws = augmented(Noise(0.3), images, dtype=np.float64, unit=units)
    noise = 0.3 * units.reshape(7, 5) * draws.normal((7, 5))
    assert_allclose(found, images + noise, rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_mixup_is_of_rows_targets_and_weights_with_those_before(weighted):
    rows, y = FLAT[:50].copy(), CODES[:50, None].astype(float)
    weight = RANDOM.uniform(0.5, 2, 50) if weighted else None
    made = augmenter_of((Mixup(0.8),), SHAPE, 50)
    found = rows.copy()
    both, weights = made.mix(found, y, weight, np.arange(50))
    shares = Mixup(0.8).shares(RowDraws(row_seeds(stage_keys(5, 0, 1)[0], np.arange(50))))
    assert weights is not None
    own = np.ones(50) if weight is None else weight
    assert_array_equal(found[0], rows[0])
    assert_array_equal(weights[0], [own[0], 0.0])
    for i in range(1, 50):
        assert_allclose(found[i], shares[i] * rows[i] + (1 - shares[i]) * rows[i - 1], rtol=1e-5)
        assert_array_equal(both[i], [y[i, 0], y[i - 1, 0]])
        assert_allclose(weights[i], [shares[i] * own[i], (1 - shares[i]) * own[i - 1]])


@pytest.mark.parametrize(("loss", "codes"), [(Multinomial(), True), (Squared(), False)])
def test_losses_by_two_targets_are_added_with_their_gradients(loss, codes):
    layers = Layers((5, 6, 3), Tanh())
    arrays = arrays_of(layers.workspace(23, "<f8", gradients=True))
    arrays["slopes before"] = np.empty((23, 3))
    arrays["params"][...] = layers.initial(3, "glorot")
    X = RANDOM.normal(size=(23, 5))
    pairs = [
        (
            RANDOM.integers(0, 3, (23, 1)).astype(float) if codes else RANDOM.normal(size=(23, 3)),
            RANDOM.uniform(0, 1, 23),
        )
        for _ in range(2)
    ]
    propagation, due, gradient = Propagation(layers, loss, arrays), 0.0, 0.0
    for pair in pairs:
        due += propagation.gradient(X, *pair, out=arrays["gradient"])
        gradient = gradient + arrays["gradient"]
    found = propagation.gradient(X, *pairs[0], pairs[1], out=arrays["gradient"])
    assert found == pytest.approx(due)
    assert_allclose(arrays["gradient"], gradient, atol=1e-13)


@pytest.mark.parametrize("i", [0, 1], ids=["network", "module"])
def test_a_step_by_mixed_rows_is_that_of_both_targets(i):
    plain = replace(model_of(1), optimizer="SGD") if i else replace(MLP, alpha=0.0, scale=1.0)
    figures = DataFigures(ROWS, 42, 1, 3, float(ROWS), row_shape=SHAPE, seed=5)
    problem, reference = (replace(plain, augment=a).problem(figures) for a in (Mixup(1.0), None))
    y, X = CODES[:16, None].astype(float), FLAT[:16] / 255
    weight, params = RANDOM.uniform(0.5, 2, 16), reference.initial(1)
    updates = problem.updates("<f4", 16, problem.own_optimizer or Sgd(), Constant(), 0.1, np.inf)
    state = updates.start(params)
    with updates.learner(state, arrays_of(updates.workspace(16))) as learn:
        learn(Block(X, y, weight), np.arange(16))
    mixed = X.copy()
    both, weights = augmenter_of((Mixup(1.0),), SHAPE, 16).mix(mixed, y, weight, np.arange(16))
    assert weights is not None
    loss, gradient = 0.0, np.zeros(params.shape)
    for targets, own in halves(both, weights):
        part = reference.block_gradient(params, Block(mixed, targets, own))
        loss, gradient = loss + part[0], gradient + part[1]
    assert_allclose(state["theta"], params - 0.1 * gradient / 16, atol=1e-5)
    assert_allclose(state["sums"], [loss, weights.sum()], rtol=1e-5)


# The same bits, wherever rows are


def test_numbers_of_rows_are_those_within_the_data():
    block = Block(FLAT[:9], None, None, ((0, 40), (3, 7), (5, 90)))
    order = np.array([8, 0, 4, 2, 5, 3])
    assert_array_equal(block.row_numbers(order), [block.row_number(i) for i in order])
    one = replace(block, starts=((0, 12),))
    assert_array_equal(one.row_numbers(order), order + 12)


def test_a_row_is_the_same_however_its_batch_is_cut():
    order, weight, found = RANDOM.permutation(ROWS), RANDOM.uniform(0.5, 2, ROWS), []
    for cuts in ([300], [1, 2, 40, 300], [*range(7, 300, 7), 300]):
        made = augmenter_of(ALL, SHAPE, 300, unit=255.0, epoch=2)
        first, parts = 0, []
        for last in cuts:
            rows = order[first:last]
            taken = FLAT[rows]
            made.augment(taken, rows)
            y = CODES[rows, None].astype(float)
            parts.append((taken, *made.mix(taken, y, weight[rows], rows)))
            first = last
        found.append([np.concatenate(each) for each in zip(*parts, strict=True)])
    for other in found[1:]:
        for due, array in zip(found[0], other, strict=True):
            assert_array_equal(array, due)


def test_an_epoch_and_a_seed_give_others():
    found = [augmented(Shift(2), IMAGES)[0]]
    found += [augmented(Shift(2), IMAGES, epoch=1)[0], augmented(Shift(2), IMAGES, seed=6)[0]]
    for i in range(3):
        assert (found[i] != found[i - 1]).any(axis=(1, 2)).mean() > 0.9
    # A row's number decides, and not its place.
    other, _ = augmented(Shift(2), IMAGES[::-1], np.arange(ROWS)[::-1])
    assert_array_equal(other[::-1], found[0])


def test_blocks_of_any_size_give_the_same_updates():
    figures = DataFigures(ROWS, 42, 1, 3, float(ROWS), row_shape=SHAPE, seed=4)
    problem = replace(MLP, augment=ALL).problem(figures)
    updates = problem.updates("<f8", 16, Adam(), Constant(), 0.01, np.inf)
    X, y, states = FLAT.astype(float), CODES[:, None].astype(float), []
    for cuts in ([300], [5, 300], [16, 40, 41, 300]):
        state, first = updates.start(problem.initial(0)), 0
        for last in cuts:
            rows = last - first
            block = Block(X[first:last], y[first:last], None, ((0, first),))
            workspace = arrays_of(updates.workspace(rows))
            with updates.learner(state, workspace) as learn:
                learn(block, np.arange(rows))
            first = last
        assert_allclose(state["row before"].shape, (1, 42))
        updates.finish(state, workspace)
        assert state["epochs"][0] == 1
        assert state["row before"].shape == (0, 42)
        states.append(state)
    for state in states[1:]:
        assert_allclose(state["theta"], states[0]["theta"], atol=1e-12)
    # Losses are summed with the weights of both rows, which add up to about those of the rows.
    assert states[0]["sums"][1] == pytest.approx(ROWS, abs=0.1 * ROWS)


SOURCE = Cut(FLAT, CODES[:, None].astype(float), rows=50)


def of_images(**parameters):
    """Return a module of PyTorch that takes images."""
    from tests.torch_nets import Net, nn

    return nn.Sequential(nn.Flatten(), Net(**parameters))


def model_of(i):
    """Return a perceptron, or a module of PyTorch."""
    if not i:
        return MLP
    pytest.importorskip("torch")
    from ooc_train import TorchModule

    settings = {"hidden": 9, "features": 42}
    return TorchModule(of_images, module_parameters=settings, criterion="CrossEntropyLoss")


@pytest.mark.parametrize("i", [0, 1], ids=["network", "module"])
def test_tasks_of_any_length_change_no_bit(i, monkeypatch):
    model = replace(model_of(i), augment=ALL)
    found = []
    for rows in (10**9, 100):
        monkeypatch.setattr(passes, "_FIRST_SEGMENT_ROWS", rows)
        monkeypatch.setattr(passes, "_SEGMENT_SECONDS", 0.0 if rows == 100 else 1.0)
        figures = DataFigures(ROWS, 42, 1, 3, float(ROWS), row_shape=SHAPE, seed=4)
        problem = model.problem(figures)
        solver = solver_for(problem.own_optimizer or "adam", Settings(0.0, 16, 1e-2), problem)
        run = stream(SOURCE)
        state = start(solver, problem, run, problem.initial(1))
        for _ in range(2):
            state = advance(solver, problem, run, state)
        found.append(state)
    assert_allclose(found[0].params, found[1].params, atol=0.0 if i else 1e-6)


def trained(model, data=IMAGES, **settings):
    how = Training(**{**BATCHES, "max_iter": 4} | settings)
    if model.name == "torch":
        how = replace(how, solver="auto")
    y = CODES if isinstance(data, np.ndarray) else None
    fitted, report = train(model, data, how, y=y)
    return dict(fitted.predictor.arrays), report, fitted


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("i", [0, 1], ids=["network", "module"])
def test_a_run_is_repeated_by_its_seed_and_predicts_rows_as_they_are(i):
    model = replace(model_of(i), augment=ALL)
    arrays, report, fitted = trained(model)
    assert same(arrays, trained(model)[0])
    assert not same(arrays, trained(model_of(i))[0])
    assert not same(arrays, trained(model, random_state=4)[0])
    assert report.loss == pytest.approx(evaluate(fitted, IMAGES, y=CODES)[0]["loss"], rel=1e-5)


@pytest.mark.parametrize("i", [0, 1], ids=["network", "module"])
def test_a_run_goes_on_from_a_checkpoint_to_the_same_bits(i, tmp_path):
    model = replace(model_of(i), augment=ALL)
    how = Training(**BATCHES | {"max_iter": 5, "batch_size": 48})
    how = replace(how, solver="auto") if i else how
    due, _ = train(model, IMAGES, how, y=CODES)
    place = tmp_path / "c"
    train(model, IMAGES, replace(how, max_iter=2), y=CODES, checkpoint=place)
    resumed = Checkpoint(place, resume=True)
    found, report = train(model, IMAGES, how, y=CODES, checkpoint=resumed)
    assert report.n_iter == 5
    assert same(due.predictor.arrays, found.predictor.arrays)


def stored(path):
    settings: dict[str, Any] = {"classes": ["a", "b", "c"], "shuffled": 0}
    with StoreWriter(path, dtype="u1", chunk_rows=32, row_shape=SHAPE, **settings) as writer:
        writer.write(IMAGES, CODES)
        return writer.commit()


@pytest.mark.slow
def test_workers_threads_and_ceilings_change_no_bit(tmp_path):
    store, model = stored(tmp_path / "a"), replace(MLP, augment=ALL)
    settings: dict[str, Any] = {"replicas": 2, "shuffle_chunks": 2}
    due = trained(model, store, **settings)[0]
    free = "127.0.0.1:0"  # a port that no other cluster has
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=free) as cluster,
        cluster.get_client(),
    ):
        found, report, _ = trained(model, store, **settings)
    assert same(due, found)
    assert report.memory.measured <= report.memory.projected


def test_rows_are_learned_in_parts():
    made = MLPClassifier((9,), augment=(Noise(0.1), Mixup()), scale=1 / 255, random_state=0)
    for first in range(0, ROWS, 100):
        rows = slice(first, first + 100)
        made.partial_fit(FLAT[rows], CODES[rows], classes=range(3))
    assert np.isfinite(made.coefs_[0]).all()


def test_augmentation_of_what_classes_do_not_depend_on_generalises():
    rng = np.random.default_rng(1)

    def made_of(rows):
        codes, images = rng.integers(0, 2, rows), rng.normal(0, 0.3, (rows, 9, 9))
        for image, code in zip(images, codes, strict=True):
            y, x = rng.integers(1, 6, 2)
            image[y : y + 3, x : x + 1 + 2 * code] += 1.0
        return images.astype(np.float32), codes

    (X, y), (X_test, y_test) = made_of(150), made_of(1000)
    how = Training(batch_size=16, max_iter=60, solver="adam", random_state=0, tol=0.0)
    scores = []
    for augment in (None, (Shift(2), Flip(0.5, 0.5))):
        model = MLPClassifierModel(hidden_layer_sizes=(32,), augment=augment)
        fitted, _ = train(model, X, how, y=y)
        scores.append(evaluate(fitted, X_test, y=y_test)[0]["accuracy"])
    assert scores[1] > scores[0] + 0.03


# A user's own, and what is refused


def test_an_augmentation_of_a_user_is_that_of_a_loop_and_is_saved(tmp_path):
    found, draws = augmented(Darker(0.3), IMAGES)
    for i, factor in enumerate(draws.uniform(0.3, 1.0)):
        assert_allclose(found[i], IMAGES[i] * factor, rtol=1e-6)
    model = replace(MLP, augment=(Darker(0.3), "flip"))
    assert model.augment == (Darker(0.3), Flip())
    fitted = trained(model)[2]
    fitted.save(tmp_path / "run")
    assert load(tmp_path / "run").model_.augment == model.augment


@pytest.mark.parametrize("i", [0, 1], ids=["network", "module"])
@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda rows, _: rows[:, :-1], r"returned \(16, 6, 6\) for rows of the shape \(16, 7, 6\)"),
        (lambda rows, _: rows[:-1], r"returned \(15, 7, 6\)"),
        (lambda *_: None, "returned NoneType for rows"),
        (lambda rows, _: rows + 0j, "returned complex"),
        (lambda rows, random: rows / (random.integers(0, 2) * 0)[:, None, None], "NaN or infinite"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in divide")
def test_an_augmentation_that_changes_shapes_or_makes_no_numbers_is_refused(i, function, said):
    with pytest.raises(ValueError, match=said):
        trained(replace(model_of(i), augment=Own(function)))


@pytest.mark.parametrize("i", [0, 1], ids=["network", "module"])
@pytest.mark.parametrize("augment", [Own(lambda rows, _: rows), (Shift(2), Flip())])
def test_data_that_are_not_finite_are_told_from_augmentations_that_are_not(i, augment):
    images = IMAGES.astype(np.float32)
    images[77, 3, 3] = np.nan
    with pytest.raises(NonFiniteData, match="row 77 has nan in column 21"):
        trained(replace(model_of(i), augment=augment), images)


def test_an_augmentation_that_is_not_registered_cannot_be_saved(tmp_path):
    fitted = trained(replace(MLP, augment=Own(lambda rows, _: rows)))[2]
    with pytest.raises(ValueError, match=r"decorate the class with `@AUGMENTATIONS.add`"):
        fitted.save(tmp_path / "run")


@pytest.mark.parametrize(
    ("augment", "said"),
    [
        (Shift(6), "may shift images of 7 x 6 pixels out of sight; use fewer pixels"),
        (Cutout(7), "may fill all of an image of 7 x 6 pixels"),
        ((Mixup(), Noise()), "'mixup' before 'noise'; put it last, once"),
        ((Mixup(), Mixup()), "put it last, once"),
        ("blur", "augment='blur' is not None or an Augmentation or a sequence of them"),
        ("shift:side=3", "the augmentation 'shift' has pixels, fill, and not 'side'"),
        (3, "augment=3 is not"),
    ],
)
def test_settings_that_do_not_fit_are_refused(augment, said):
    with pytest.raises(ValueError, match=said):
        trained(replace(MLP, augment=augment))


@pytest.mark.parametrize("part", [Shift(1), Crop(), Flip(), Cutout(2)])
def test_images_are_needed(part):
    with pytest.raises(ValueError, match=r"needs images, rows of shape .* have 42 columns"):
        MLPClassifier(augment=part).fit(FLAT, CODES)
    with pytest.raises(ValueError, match=r"these rows have the shape \(5, 6, 7\)"):
        Augmentations.of((part,), (5, 6, 7), 0)
    plain = MLPRegressorModel(hidden_layer_sizes=(3,), augment=(Noise(), Mixup()))
    assert np.isfinite(trained(plain, FLAT)[0]["params"]).all()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Shift(0), "pixels=0 of 'shift' is not a whole number of at least 1"),
        (lambda: Shift(1.5), "pixels=1.5"),  # type: ignore[arg-type]
        (lambda: Shift(1, np.nan), "fill=nan of 'shift' is not a finite number"),
        (lambda: Crop(0.0), "least=0.0 of 'crop' leaves no pixel"),
        (lambda: Crop(1.2), "least=1.2 of 'crop' is not a number from 0 to 1"),
        (lambda: Flip(-0.1), "horizontal=-0.1"),
        (lambda: Flip(0.5, True), "vertical=True"),
        (lambda: Cutout(-3), "pixels=-3"),
        (lambda: Noise(0.0), "deviation=0.0 of 'noise' is not a number above 0"),
        (lambda: Mixup(1e4), "alpha=10000.0 of 'mixup' is not from 0.01 to 1,000"),
    ],
)
def test_values_of_augmentations_are_checked(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"solver": "lbfgs", "batch_size": "full"}, r"a gradient of all rows \(no dropout, no aug"),
        ({"batch_size": "full"}, "all of the 300 rows here; use a smaller batch_size"),
        ({"batch_size": 300}, "all of the 300 rows here"),
    ],
)
def test_batches_of_all_rows_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        trained(replace(MLP, augment=Noise()), **settings)


def test_modules_refuse_what_would_not_augment_or_mix():
    model = replace(model_of(1), augment=Noise(1.0))
    with pytest.raises(ValueError, match="takes rows of a module as they are, without augment"):
        train(model, IMAGES, Training(**BATCHES), y=CODES)
    from torch.nn import functional

    mean = replace(model, criterion=functional.cross_entropy, augment=Mixup())
    with pytest.raises(
        ValueError, match=r"the criterion returns one number for all .* Mixup weighs rows too"
    ):
        trained(replace(mean, classifier=True))


# Settings, and memory


def test_settings_are_text_and_json():
    found = ModelOptions(model="mlp-classifier", augment="shift:pixels=1 flip:vertical=0.5 mixup")  # type: ignore[call-arg]
    model, _ = found.made()
    due = (Shift(1), Flip(0.5, 0.5), Mixup())
    assert model.augment == due  # type: ignore[attr-defined]
    assert MLPClassifierModel(**model.settings()) == model
    assert MLPClassifierModel(augment=due[0]).augment == (Shift(1),)
    for part in ALL:
        assert AUGMENTATIONS.parse(str(part)) == part


@pytest.mark.parametrize("part", [*ALL, Darker()], ids=str)
@pytest.mark.parametrize("rows", [16, 512])
def test_no_more_is_allocated_than_declared(part, rows):
    shape, dtype = (28, 26), "<f4"
    made = Augmentations.of((part,), shape, 0)
    assert made is not None
    images = RANDOM.normal(size=(rows, 28 * 26)).astype(dtype)
    arrays, y = arrays_of(made.workspace(rows, dtype)), np.zeros((rows, 1))
    augmenter, numbers = Augmenter(made, arrays, made.start(dtype)), np.arange(rows)
    for _ in range(2):  # the first call makes tables
        tracemalloc.start()
        augmenter.augment(images, numbers)
        augmenter.mix(images, y, None, numbers)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most <= made.made_bytes(rows, dtype) + 4096


def test_what_augmentation_holds_is_a_term_of_the_plan():
    images, how = np.zeros((1200, 40, 30), np.float32), Training(**BATCHES | {"batch_size": 512})
    buffers = []
    for augment in (None, Shift(2)):
        found = plan(replace(MLP, augment=augment), images, how, y=np.arange(1200) % 3)
        buffers += [each.bytes for each in found.projection.terms if each.name == "buffers"]
    # A batch, the batch with a border, the places of its pixels, and what is taken from there.
    assert buffers[0] < 512 * (40 * 30 * 4 + 44 * 34 * 4 + 40 * 30 * 12) <= buffers[1]
