"""The demo: its figures are in order, and it leaves nothing behind however it ends."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from ooc_train import cli
from ooc_train.experiments import comparing, demo
from ooc_train.memory.processes import measure
from ooc_train.runtime.cluster import LocalCluster
from ooc_train.store.opening.opener import open_store

ROOT = Path(__file__).parent.parent


def start(*arguments, folder):
    """Start the demo in a process group of its own, with its data in `folder`."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "ooc_train", "demo", "--dashboard-address", "127.0.0.1:0"),
            *arguments,
        ],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(folder)},
        start_new_session=True,
    )


@pytest.mark.slow
def test_the_figures_are_in_order_and_nothing_stays(tmp_path):
    with start("--size", "64MiB", "--workers", "2", "--json", "--quiet", folder=tmp_path) as run:
        out, err = run.communicate(timeout=240)
    assert (run.returncode, err) == (0, "")
    found = json.loads(out)
    assert found["flights"]["n_rows"] + found["flights"]["n_test_rows"] == 327_346
    fits = found["fits"]
    assert [fit["batch_size"] for fit in fits] == ["full", "chunk", 256, 1]
    assert [fit["updates"] for fit in fits][1:] == [
        5 * -(-found["flights"]["n_rows"] // rows) for rows in (1536, 256, 1)
    ]
    for fit in fits:
        assert fit["measured"] <= fit["projected"] <= 2**30
        # On test rows every batch size comes close to the optimum.
        assert fit["log_loss"] == pytest.approx(fits[0]["log_loss"], rel=0.01)
        assert fit["roc_auc"] > 0.9
        assert fit["seconds"] > 0
    assert found["own_peaks"] is True
    # A peak that only grew would not let a later fit measure less than what came before it.
    assert fits[0]["measured"] < fits[1]["measured"]
    assert found["synthetic"]["bytes"] == pytest.approx(64 * 2**20, rel=1e-3)
    memory = found["memory"]
    assert memory["measured"] <= memory["projected"] <= memory["ceiling"] == 2**30
    assert max(memory["measured"], *(fit["measured"] for fit in fits)) <= found["peak"] <= 2**30
    assert list(tmp_path.glob("ooc_train*")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("send", "number", "status"),
    # Ctrl-C goes to all processes of a terminal, kill to one.
    [(os.killpg, signal.SIGINT, 130), (os.kill, signal.SIGTERM, 143)],
)
def test_it_cleans_up_however_it_is_ended(tmp_path, send, number, status):
    """In the midst of writing."""
    with start("--size", "4GiB", "--workers", "1", folder=tmp_path) as run:
        try:
            deadline = time.monotonic() + 120
            while not list(tmp_path.glob("ooc_train.demo-*/.synthetic.zarr.partial/X/c/1")):
                assert run.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            send(run.pid, number)
            _, err = run.communicate(timeout=60)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == status
    assert "Traceback" not in err
    assert list(tmp_path.glob("ooc_train*")) == []


@pytest.mark.slow
def test_what_it_prints(tmp_path):
    with LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0") as cluster:
        arguments = [
            "demo", "--size", "4MB", "--dir", str(tmp_path / "here"), "--memory-ceiling", "4GiB",
            "--scheduler", cluster.scheduler_address,
        ]  # fmt: skip
        result = CliRunner().invoke(cli.app, arguments)
        again = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert re.match(r"dashboard  http://127\.0\.0\.1:\d+/\S+/status\n", result.stderr)
    head, *rows = re.findall(r"^(?:batch size|full|chunk|256|1) .*$", result.stdout, re.MULTILINE)
    assert head.split()[-3:] == ["AUC", "projected", "measured"]
    assert [row.split()[:2] for row in rows] == [
        ["full", "newton"], ["chunk", "sgd"], ["256", "sgd"], ["1", "sgd"],
    ]  # fmt: skip
    assert {len(row) for row in (head, *rows)} == {len(head)}
    size = r"[\d.]+ [MG]iB"
    assert re.search(
        rf"^memory: ceiling 4 GiB, projected {size}, measured {size}$", result.stdout, re.MULTILINE
    )
    assert result.stdout.endswith(f"the data are in {tmp_path}/here\n")
    assert open_store(tmp_path / "here" / "synthetic.zarr").n_rows == demo.rows_of(4_000_000)
    assert again.exit_code == 1
    assert "flights.zarr exists" in again.stderr


def test_a_disk_without_room_is_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    result = CliRunner().invoke(cli.app, ["demo", "--dir", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"error: the demo writes 4.06 GiB and {tmp_path} has 1 GiB free; name a place with more by "
        "--dir, or give a smaller --size\n"
    )
    assert list(tmp_path.iterdir()) == []
    demo.require_disk_space(str(tmp_path), 2**29)


def test_the_flights_are_found_in_a_clone_and_in_a_wheel(tmp_path, monkeypatch):
    assert Path(demo.flights_file()) == ROOT / "data" / "flights.parquet"
    package = tmp_path / "site-packages" / "ooc_train"
    (package / "data").mkdir(parents=True)
    monkeypatch.setattr(demo, "__file__", str(package / "experiments" / "demo.py"))
    with pytest.raises(FileNotFoundError, match=r"is in neither .*; install ooc-train again"):
        demo.flights_file()
    (package / "data" / "flights.parquet").touch()
    assert demo.flights_file() == str(package / "data" / "flights.parquet")


def test_a_scratch_folder_respects_tmpdir_and_is_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with suppress(KeyboardInterrupt), demo.scratch_folder() as folder:
            assert os.path.dirname(folder) == str(tmp_path)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            (Path(folder) / "file").touch()
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert list(tmp_path.iterdir()) == []


@pytest.mark.alone
def test_peaks_start_again_and_the_largest_is_kept():
    class Nobody:
        def run(self, _):
            return {}

    peaks = comparing.Peaks(Nobody())
    peaks.restart()
    np.ones(2**25)  # 256 MiB
    high = measure().peak
    peaks.restart()
    assert measure().peak < high - 2**27
    assert high <= peaks.largest
    peaks.update()
    assert high <= peaks.largest
    assert peaks.own
