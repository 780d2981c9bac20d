"""Command lines that nobody means, and settings in Python like them: a line, with the bounds."""

import sys

import pytest
from typer.testing import CliRunner

from ooc_train import cli
from ooc_train.cli import command as commands
from ooc_train.cli.command import INTERNAL
from ooc_train.core.units import approximate_bytes, parse_bytes, parse_duration, parse_rows
from ooc_train.errors import CeilingExceeded
from ooc_train.models.classification_models import LogisticModel
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.solvers.training_settings import Training
from ooc_train.store.jobs.rechunk import rechunk_store
from ooc_train.store.jobs.synthetic import make_data


def here(*arguments):
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "a.zarr"
    make_data(path, rows=100, features=3)
    return path


@pytest.fixture
def no_cluster(monkeypatch):
    """Nothing is started by what is refused."""

    def start(*given, **settings):
        raise AssertionError("a cluster was started")

    monkeypatch.setattr(LocalCluster, "__init__", start)


@pytest.mark.parametrize("option", ["--workers", "--threads"])
@pytest.mark.parametrize("value", ["0", "-1", "1025", "1000000", "9" * 30, "1e3", "nan", ""])
def test_workers_and_threads_have_bounds(store, no_cluster, option, value):
    result = here("train", store, option, value)
    assert result.exit_code == 2
    assert f"'{option}'" in result.stderr
    if value.lstrip("-").isdigit():
        bound = "greater than or equal to 1" if int(value) < 1 else "less than or equal to 1024"
        assert bound in result.stderr


@pytest.mark.parametrize("name", ["n_workers", "threads_per_worker"])
@pytest.mark.parametrize("value", [0, -1, 1025, 10**400, 1.5, True, "2", float("nan")])
def test_workers_and_threads_have_bounds_in_python(name, value):
    with pytest.raises(ValueError, match=rf"^{name}=.* is not a whole number from 1 to 1,024$"):
        LocalCluster(memory_ceiling="512MiB", **{name: value})


def test_more_workers_than_the_ceiling_has_room_for_are_not_started():
    with pytest.raises(CeilingExceeded, match=r"n_workers=1000 hold 62.5 GiB before .* at most 8,"):
        LocalCluster(memory_ceiling="512MiB", n_workers=1000)


@pytest.mark.parametrize(
    ("command", "option", "values"),
    [
        ("rechunk", "--chunk-rows", ["1e400", "0", "-1", "nan", "9" * 30, "9" * 5000, "", "1.5"]),
        ("rechunk", "--dtype", ["object", "f4,f4", "V10", "U5", "longdouble", "", "x" * 100_000]),
        ("rechunk", "--memory-ceiling", ["1e400", "1e20GiB", "0", "-1", "1e400GiB", "inf"]),
        ("shuffle", "--random-state", ["-1", "1e400", "nan", ""]),
        ("train", "--max-iter", ["0", "-1", "1e400", "9" * 30, "nan"]),
        ("train", "--tol", ["-1", "nan", "inf", "1e400"]),
        ("train", "--C", ["0", "-1", "nan", "-inf"]),
        ("train", "--learning-rate", ["0", "-1", "nan", "inf", "1e400", "x" * 100_000]),
        ("train", "--batch-size", ["0", "-1", "1e400", "9" * 30, "nan", ""]),
        ("train", "--replicas", ["0", "-1", "9" * 30]),
        ("train", "--max-passes", ["0", "-1", "nan", "inf", "1e400"]),
        ("train", "--max-seconds", ["0", "-1", "nan", "1e400", "9" * 400 + "s"]),
        ("train", "--class-weight", ["a=1e400", "a=nan", "a", "=", "a=" + "9" * 400]),
        ("train", "--shuffle-chunks", ["0", "-1", "9" * 30, "9" * 5000]),
    ],
)
def test_numbers_that_nobody_means(store, tmp_path, no_cluster, command, option, values):
    for value in values:
        out = [tmp_path / "out.zarr"] if command in ("rechunk", "shuffle") else []
        result = here(command, store, *out, option, value, "--quiet")
        assert result.exit_code in (1, 2), (value, result.stderr)
        assert "internal error" not in result.stderr
        assert len(result.stderr) < 2000, value
        if result.exit_code == 1:
            assert len(result.stderr.splitlines()) == 1, result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["a\0b", "a\nb", "\udcff", "x" * 5000, "", "/dev/zero"])
def test_places_that_are_none(path):
    result = here("info", path)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "internal error" not in result.stderr


def test_names_of_columns_that_are_none():
    for text in ('"' + "x" * 200_000, ",", ""):
        result = here("ingest", "nothing.csv", "out.zarr", "--drop", text)
        assert result.exit_code == 2
        said = " ".join(result.stderr.replace("│", " ").split())
        assert "separate names by commas" in said


@pytest.mark.parametrize("parse", [parse_bytes, parse_rows, parse_duration])
@pytest.mark.parametrize("value", ["1e400", 10**400, float("inf"), float("nan"), -1, True])
def test_quantities_have_bounds(parse, value):
    with pytest.raises(ValueError, match=r"is not |is more than 1,208,925,819,614,\d+|longer"):
        parse(value)


def test_bytes_of_any_number_are_told():
    assert approximate_bytes(10**400).startswith("more than")


@pytest.mark.parametrize("chunk_rows", [0, -1, 10**400, 2**63])
def test_chunks_have_bounds_in_python(store, tmp_path, chunk_rows):
    with pytest.raises((ValueError, CeilingExceeded)) as caught:
        rechunk_store(store, tmp_path / "out.zarr", chunk_rows=chunk_rows)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("of", "setting"),
    [
        (Training, {"batch_size": 10**400}),
        (Training, {"max_iter": 10**400}),
        (Training, {"tol": 10**400}),
        (Training, {"learning_rate": 10**400, "batch_size": 1}),
        (LogisticModel, {"C": 10**400}),
        (Training, {"random_state": 2**128}),
        (LogisticModel, {"class_weight": {"a": 10**400}}),
    ],
)
def test_settings_of_models_and_training_have_bounds(of, setting):
    with pytest.raises(ValueError, match=r"a number of 1,329 bits|340,282,366,920,938") as caught:
        of(**setting)
    assert len(str(caught.value)) < 300


# What nobody thought of


@pytest.fixture
def broken(monkeypatch, store):
    def info(path):
        raise KeyError("nobody\nthought of it")

    monkeypatch.setattr("ooc_train.cli.data_commands.is_run", info)
    return store


def test_what_nobody_thought_of_is_a_line_and_a_status_of_its_own(broken):
    result = here("info", broken)
    assert result.exit_code == INTERNAL == 70
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: internal error: KeyError: 'nobody\\nthought of it' at ")
    assert "test_command_lines.py:" in result.stderr
    assert "--traceback" in result.stderr


def test_and_with_traceback_where_it_is_from(broken):
    result = here("info", broken, "--traceback")
    assert isinstance(result.exception, KeyError)


def test_and_outside_of_any_command(monkeypatch, capsys):
    def app():
        raise LookupError("lost")

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["ooc-train", "info"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == INTERNAL
    assert capsys.readouterr().err.startswith("error: internal error: LookupError: lost at ")
    monkeypatch.setattr(sys, "argv", ["ooc-train", "info", "--traceback"])
    with pytest.raises(LookupError):
        cli.main()


def test_no_memory_is_said(monkeypatch, store):
    def info(path):
        raise MemoryError

    monkeypatch.setattr("ooc_train.cli.data_commands.is_run", info)
    result = here("info", store)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "not enough memory" in result.stderr
    assert commands.INTERNAL != 1
