"""Plots: what is on the axes is what the report says, and names are drawn as they are."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from ooc_train.errors import OutputExists
from ooc_train.inference.class_metrics import ClassMetrics
from ooc_train.memory.measured import MemoryReport
from ooc_train.memory.processes import ProcessMemory
from ooc_train.memory.timeline import MemoryTimeline
from ooc_train.optimizers.schedules import Cosine, Linear
from ooc_train.plotting import plots
from ooc_train.plotting.figures import require_figure, save, svg
from ooc_train.runs.events import Stepped
from ooc_train.runs.history import LossPoint
from ooc_train.runs.report import Report

MIB = 2**20
drawing: Any = plots  # axes may be of subfigures, and legends None, by their types
HOSTILE = ("$x$ and $", "_hidden", "<script>alert(1)</script>", "a\x1b[31m\nb", "é" * 100, "\\$")


@pytest.fixture(autouse=True)
def no_window(monkeypatch):
    """Draw in memory, and leave no figure of pyplot behind."""
    from matplotlib import pyplot as plt

    plt.switch_backend("agg")
    yield
    plt.close("all")


def memory_of(ceiling=400, projected=300, timeline=True) -> MemoryReport:
    processes = {"driver": (80 * MIB, 90 * MIB, 85 * MIB), "worker 0": (0, 100 * MIB, 110 * MIB)}
    return MemoryReport(
        ceiling * MIB,
        150 * MIB,
        projected * MIB,
        200 * MIB,
        (ProcessMemory(1, "driver", 90 * MIB, 0), ProcessMemory(2, "worker 0", 110 * MIB, 0)),
        {"baseline": 150 * MIB, "buffers": (projected - 150) * MIB, "decoding": 0},
        timeline=MemoryTimeline((0.1, 0.4, 0.9), processes) if timeline else MemoryTimeline(),
    )


def report_of(*losses: float, **changes: Any) -> Report:
    history = tuple(
        Stepped(i, 1.5 * i, 10 * i, loss, None, 0.25 * i) for i, loss in enumerate(losses, 1)
    )
    settings: dict[str, Any] = {
        "model": "logistic", "solver": "sgd", "batch_size": 256, "n_rows": 1000, "n_features": 3,
        "passes": 1.5 * len(losses), "updates": 10, "n_iter": len(losses), "bytes_read": 5,
        "seconds": 0.5, "loss": losses[-1] if losses else math.nan, "history": history,
        "converged": True, "random_state": 0, "shuffle_chunks": 1, "learning_rate": 0.5,
        "profile": {"reading": 0.3, "computing": 0.2}, "memory": memory_of(),
    }  # fmt: skip
    return Report(**settings | changes)


def texts(ax):
    """Everything that is written on an axis and beside it."""
    import matplotlib.text

    return [found.get_text() for found in ax.findobj(matplotlib.text.Text) if found.get_text()]


@pytest.mark.parametrize(
    ("over", "x"), [("passes", [1.5, 3.0, 4.5]), ("seconds", [0.25, 0.5, 0.75])]
)
def test_the_loss_is_that_of_each_step(over, x):
    ax = drawing.loss(report_of(0.7, 0.6, 0.5), over=over)
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_xdata(), x)
    np.testing.assert_allclose(line.get_ydata(), [0.7, 0.6, 0.5])
    assert over in ax.get_xlabel()
    assert "0.5 at the end" in ax.get_title(loc="left")


@pytest.mark.parametrize(
    ("passes", "drawn"),
    [
        ([0.2, 0.4, 5.2, 5.4], [0.2, 0.4, np.nan, 5.2, 5.4]),
        ([0.5, 5.0, 10.0, 15.0], [0.5, 5.0, 10.0, 15.0]),
        ([0.5], [0.5]),
    ],
)
def test_a_line_within_passes_breaks_where_passes_have_no_losses(passes, drawn):
    points = tuple(LossPoint(each, each, 0.6, 1) for each in passes)
    within, _ = drawing.loss(report_of(0.7, 0.6, 0.5, within=points)).lines
    np.testing.assert_allclose(within.get_xdata(), drawn)
    assert np.isnan(within.get_ydata()).sum() == np.isnan(drawn).sum()


def test_the_loss_of_validation_rows_is_dashed_beside_the_other():
    report = report_of(0.7, 0.6, 0.5)
    judged = [replace(step, validation_loss=step.loss + 0.1) for step in report.history[1:]]
    ax = drawing.loss(replace(report, history=(report.history[0], *judged)))
    own, other = ax.lines
    np.testing.assert_allclose(own.get_ydata(), [0.7, 0.6, 0.5])
    np.testing.assert_allclose(other.get_xdata(), [3.0, 4.5])
    np.testing.assert_allclose(other.get_ydata(), [0.7, 0.6])
    assert (own.get_linestyle(), other.get_linestyle()) == ("-", "--")
    assert "0.5 at the end, of validation rows 0.6" in ax.get_title(loc="left")
    assert "validation rows" in texts(ax)


@pytest.mark.parametrize("updates", [1, 40, 20_000])
def test_a_schedule_draws_the_rate_of_each_update(updates):
    schedule = Cosine(0.1)
    ax: Any = schedule.plot(0.5, updates)
    (line,) = ax.lines
    t = line.get_xdata()
    assert (t[0], t[-1]) == (0, updates - 1)
    np.testing.assert_array_equal(np.diff(t) > 0, True)
    np.testing.assert_allclose(line.get_ydata(), schedule.rate(t, 0.5, updates))
    assert "cosine:last=0.1" in ax.get_title(loc="left")
    with pytest.raises(ValueError, match=r"learning rate of 0, .* after 100 of 1,000 updates"):
        Linear(over=100).plot()


def test_the_learning_rate_is_that_of_the_last_update_of_each_epoch():
    report = report_of(0.7, 0.6, 0.5)
    steps = [replace(step, learning_rate=0.3 / step.n_iter) for step in report.history]
    ax = drawing.learning_rate(replace(report, history=tuple(steps)))
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_xdata(), [10, 20, 30])
    np.testing.assert_allclose(line.get_ydata(), [0.3, 0.15, 0.1])
    assert "0.1 at the end" in ax.get_title(loc="left")
    assert "the solver has no learning rate" in texts(drawing.learning_rate(report))


def test_what_is_not_known_is_not_drawn():
    with pytest.raises(ValueError, match="over='rows' is not 'passes' or 'seconds'"):
        drawing.loss(report_of(0.5), over="rows")
    assert "no steps were recorded" in texts(drawing.loss(report_of()))
    assert "no steps were recorded" in texts(drawing.tradeoff({}))
    assert "no timeline was recorded" in texts(drawing.memory(memory_of(timeline=False)))
    (line,) = drawing.loss(report_of(0.7, math.inf, math.nan, 0.5)).lines
    np.testing.assert_allclose(line.get_ydata(), [0.7, 0.5])


@pytest.mark.slow
def test_memory_is_stacked_by_process_under_projection_and_ceiling():
    ax = memory_of().plot()
    driver, worker = (np.asarray(part.get_paths()[0].vertices) for part in ax.collections)
    assert driver[:, 1].max() == pytest.approx(90)
    assert worker[:, 1].max() == pytest.approx(85 + 110)
    levels = sorted(line.get_ydata()[0] for line in ax.lines)
    np.testing.assert_allclose(levels, [300, 400])
    assert ax.get_ylabel() == "MiB"
    found = texts(ax)
    assert {"ceiling 400 MiB", "projected 300 MiB", "driver, up to 90 MiB"} <= set(found)
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["worker 0, up to 110 MiB", "driver, up to 90 MiB"]  # as they are stacked
    # The terms of the plan, as a bar beside it; those of nothing are left out.
    (beside,) = ax.child_axes
    heights = [bar.get_height() for bar in beside.patches]
    np.testing.assert_allclose(sorted(heights), [150, 150])
    assert "baseline 150 MiB" in found
    assert not any("decoding" in text for text in found)


def test_many_processes_are_counted_and_not_named():
    timeline = MemoryTimeline((0.0, 1.0), {f"worker {i}": (MIB, MIB) for i in range(40)})
    ax = drawing.memory(replace(memory_of(), timeline=timeline))
    assert len(ax.collections) == 40
    assert ax.get_legend() is None
    assert "40 processes" in ax.get_title(loc="left")


def test_a_ceiling_far_above_all_leaves_room_for_the_rest():
    ax = drawing.memory(memory_of(ceiling=8000))
    assert ax.get_ylim()[1] < 500
    assert "ceiling 7.81 GiB ↑" in texts(ax)
    assert "far to the right" in drawing.plan(memory_of(ceiling=8000)).get_title(loc="left")


def test_the_plan_is_a_bar_of_its_terms():
    ax = drawing.plan(memory_of())
    *terms, measured = ax.patches
    np.testing.assert_allclose([bar.get_width() for bar in terms], [150, 150])
    np.testing.assert_allclose([bar.get_x() for bar in terms], [0, 150])
    assert measured.get_width() == pytest.approx(200)
    assert ax.lines[0].get_xdata()[0] == pytest.approx(400)
    assert "buffers  150 MiB" in texts(ax)


def test_the_trade_off_has_a_line_a_run_with_its_figures():
    runs = {"full": report_of(0.6, 0.5), "256": report_of(0.7, 0.65, 0.6), "none": report_of()}
    ax = drawing.tradeoff(runs)
    assert [len(line.get_xdata()) for line in ax.lines[:2]] == [2, 3]
    legend = ax.get_legend()
    lines = [text.get_text().split() for text in legend.get_texts()]
    assert lines == [
        ["full", "3", "500", "ms", "200", "MiB"],
        ["256", "4.5", "500", "ms", "200", "MiB"],
    ]
    assert legend.get_title().get_text().split() == ["passes", "time", "peak", "memory"]
    assert ax.get_xlabel() == "passes over the data"
    ax = drawing.tradeoff(runs, over="seconds")
    seconds = [step.seconds for step in runs["256"].history]
    np.testing.assert_allclose(ax.lines[1].get_xdata(), seconds)
    assert ax.get_xlabel() == "seconds"
    with pytest.raises(ValueError, match="over='rows' is not 'passes' or 'seconds'"):
        drawing.tradeoff(runs, over="rows")


def test_the_largest_coefficients_are_drawn_by_name():
    ax = drawing.coefficients([0.1, -3.0, 2.0, 0.0], ["a", "b", "c", "d"], most=3)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "c", "a"]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [-3.0, 2.0, 0.1])
    assert ax.get_title(loc="left") == "Coefficients: the 3 largest of 4"
    ax = drawing.coefficients([0.1, -3.0], ["a", "b"])  # of a model that may have more
    assert ax.get_title(loc="left") == "Coefficients of 2 features"
    ax = drawing.coefficients(np.array([[0.0, 1.0], [5.0, -2.0]]), outputs=["no", "yes"])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["feature 0", "feature 1"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["no", "yes"]
    many = drawing.coefficients(np.ones((10, 2)), outputs=[f"c{i}" for i in range(10)])
    assert len(many.get_legend().get_texts()) == 10
    looks = {
        (line.get_color(), line.get_marker()) for line in many.lines if line.get_label()[0] == "c"
    }
    assert len(looks) == 10
    most = drawing.coefficients(np.ones((31, 2)))
    assert most.get_legend() is None
    assert most.get_title(loc="left") == "Coefficients of 2 features, of each of 31 outputs"
    with pytest.raises(ValueError, match="2 names for 3 coefficients; give one each"):
        drawing.coefficients([1, 2, 3], ["a", "b"])


def test_an_axis_that_is_given_is_drawn_on_and_returned():
    from matplotlib import pyplot as plt

    report = report_of(0.5, 0.4)
    for draw in (
        lambda ax: drawing.loss(report, ax),
        lambda ax: drawing.tradeoff({"a": report}, ax),
        lambda ax: drawing.memory(report.memory, ax),
        lambda ax: drawing.plan(report.memory, ax),
        lambda ax: drawing.coefficients([1.0, 2.0], None, ax),
    ):
        _, ax = plt.subplots()
        assert draw(ax) is ax
        plt.close("all")


def test_names_are_drawn_as_they_are():
    names = [*HOSTILE, "列車"]
    drawn = svg(lambda ax: drawing.coefficients(range(1, 8), names, ax))
    assert "<script" not in drawn
    assert "\x1b" not in drawn
    assert drawn.startswith("<svg")
    ax = drawing.coefficients(np.ones((6, 2)), outputs=HOSTILE)
    ax.figure.canvas.draw()
    shown = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(shown) == len(HOSTILE)
    assert shown[0] == r"\$x\$ and \$"
    assert all(len(text) <= 44 for text in shown)
    legend = drawing.tradeoff({name: report_of(0.5) for name in HOSTILE}).get_legend()
    assert [text.get_text().strip()[:3] for text in legend.get_texts()][1:3] == ["_hi", "<sc"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("PDF", b"%PDF")]
)
def test_a_figure_is_written_by_its_suffix_and_the_same_each_time(tmp_path, suffix, begins):
    path = tmp_path / f"a.{suffix}"
    assert require_figure(path, overwrite=False) == str(path)
    save(memory_of().plot, path=path, overwrite=False)
    first = path.read_bytes()
    assert first.startswith(begins)
    save(memory_of().plot, path=path, overwrite=True)
    assert path.read_bytes() == first
    with pytest.raises(OutputExists, match="exists already"):
        require_figure(path, overwrite=False)
    require_figure(path, overwrite=True)


def test_a_place_that_takes_no_figure_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"plot='a.gif' ends with none of .png, .svg, .pdf"):
        require_figure("a.gif", overwrite=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="no file can be saved there; choose another"):
        require_figure(tmp_path / "file" / "a.png", overwrite=False)
    (tmp_path / "b.png").mkdir()
    with pytest.raises(OutputExists):
        require_figure(tmp_path / "b.png", overwrite=True)


def test_drawing_changes_no_setting_of_matplotlib():
    before = dict(mpl.rcParams)
    svg(memory_of().plot)
    assert dict(mpl.rcParams) == before


@pytest.mark.slow
def test_matplotlib_is_loaded_by_drawing_alone():
    code = (
        "import sys, ooc_train, ooc_train.plotting.plots, ooc_train.monitoring.run_page\n"
        "import ooc_train.training.loop, ooc_train.cli\n"
        "print('matplotlib' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "False\n"


def by_class_of(n_classes: int, *, empty: bool = False) -> ClassMetrics:
    scored = 1 if n_classes == 2 else n_classes
    histogram = np.zeros((scored, 2, 64)) if empty else np.ones((scored, 2, 64))
    histogram[:, 1] *= np.linspace(0.1, 2.0, 64) * np.arange(1, scored + 1)[:, None]
    confusion = np.eye(n_classes) * 3 + 1
    confusion[0] *= not empty
    return ClassMetrics(tuple(map(str, range(n_classes))), confusion, histogram, not empty)


@pytest.mark.parametrize("n_classes", [2, 3, 50])
@pytest.mark.parametrize("empty", [False, True])
def test_classes_are_drawn(n_classes, empty):
    by_class: Any = by_class_of(n_classes, empty=empty)
    ax = by_class.plot("confusion")
    shares = ax.images[0].get_array()
    assert shares.shape == (n_classes, n_classes)
    np.testing.assert_allclose(shares[1].sum(), 1.0)
    assert bool(np.ma.getmaskarray(shares)[0].all() or np.isnan(shares[0]).all()) is empty
    for kind in ("roc", "precision_recall", "calibration"):
        ax = by_class.plot(kind)
        if empty:
            assert ax.texts
            continue
        names = [text.get_text() for text in ax.get_legend().get_texts()]
        assert len(names) == min(6, 1 if n_classes == 2 else n_classes)
        line = ax.get_lines()[-1]
        due = getattr(by_class, kind)(by_class.scored_classes[len(names) - 1])
        if n_classes < 50:
            np.testing.assert_allclose(line.get_xdata(), due[0])
            np.testing.assert_allclose(line.get_ydata(), due[1])
    with pytest.raises(ValueError, match="kind='bars' is none of 'confusion'"):
        by_class.plot("bars")
    assert svg(by_class.plots[0]).startswith("<svg")


def test_several_plots_lie_side_by_side(tmp_path):
    save(*by_class_of(3).plots, path=tmp_path / "a.png", overwrite=False)
    height, width, _ = mpl.image.imread(tmp_path / "a.png").shape
    assert (width, height) == (1200, 1350)


class Model:
    """A fitted model of two features and three classes."""

    def __init__(self):
        self.report_ = report_of(0.7, 0.5)
        self.coef_ = np.array([[1.0, -3.0], [2.0, 0.5], [0.0, 4.0]])
        self.feature_names_in_ = np.array(["age", "size"], object)
        self.classes_ = np.array(["red", "green", "blue"])


@pytest.mark.parametrize(
    "name", ["loss", "memory", "plan", "learning_rate", "batch_size", "schedule"]
)
def test_a_report_and_a_fitted_model_are_drawn_alike(name):
    draw, model = getattr(drawing, name), Model()
    of_report, of_model = draw(model.report_), draw(model)
    assert texts(of_report) == texts(of_model)
    assert of_report.get_title(loc="left")
    with pytest.raises(TypeError, match="or a fitted model, and not a value of type int"):
        draw(3)


def test_coefficients_of_a_model_have_its_names():
    found = texts(drawing.coefficients(Model()))
    assert {"age", "size", "red", "green", "blue"} <= set(found)
    assert "first" in texts(drawing.coefficients(Model(), names=["first", "second"]))
    with pytest.raises(TypeError, match=r"coefficients, .* not a value of type Report"):
        drawing.coefficients(report_of(0.5))


def test_only_plots_are_listed():
    assert dir(plots) == sorted(plots.__all__)


def test_the_legend_of_precision_and_recall_covers_no_curve():
    ax = drawing.precision_recall(by_class_of(3))
    ax.figure.draw_without_rendering()
    legend, inside = ax.get_legend().get_window_extent(), ax.get_window_extent()
    assert legend.y1 <= inside.y0
    assert legend.y0 >= ax.figure.bbox.y0


def test_rows_of_weight_one_are_a_support():
    found = replace(by_class_of(2), confusion=np.array([[1_234_567.0, 0.0], [3.0, 4.0]]))
    head, rows = found.rows()
    assert (head[-1], [row[-1] for row in rows]) == ("support", ["1,234,567", "7"])
    head, rows = replace(found, confusion=found.confusion / 2).rows()
    assert (head[-1], rows[1][-1]) == ("weight", "3.5")
