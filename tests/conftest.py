"""Fixtures that more than one file uses."""

import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ooc_train.store.jobs.ingest import ingest

DATA = Path(__file__).parent.parent / "data"

# ``nohup`` has processes ignore that their terminal has gone, and shells have those in the
# background ignore Ctrl-C; and so do all that they start.
for number, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, number):
        signal.signal(getattr(signal, number), handler)


def data_script(name: str) -> ModuleType:
    """Import a script of the folder data/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DATA / f"{name}.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(DATA / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def one_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give all stores one id, so that those of the same rows and name are the same bytes."""
    monkeypatch.setattr("ooc_train.store.writing.output.new_store_id", lambda: "5e" * 16)
    monkeypatch.setattr("ooc_train.store.jobs.train_test_split.new_pair_id", lambda: "9a" * 16)


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The stores of the flights, training and test rows: made once, not to be written to."""
    path = tmp_path_factory.mktemp("flights") / "flights.zarr"
    made = ingest(DATA / "flights.parquet", path, target="late", test_size=0.2)
    return str(path), made.test.path if made.test is not None else ""


CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def _started_browser(profile: Path) -> Any:
    """Start Chromium without a window."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromium-driver are not installed (apt-get install them)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
        "--window-size=1500,1000", f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(30)
    driver.set_script_timeout(30)
    return driver


def _end_browser(driver: Any) -> None:
    # A browser whose tab is frozen would hold up `quit` for minutes.
    os.kill(driver.capabilities["goog:processID"], signal.SIGKILL)
    driver.quit()


@pytest.fixture(scope="session")
def browsers() -> Iterator[list[Any]]:
    """The browser that tests share, once there is one."""
    running: list[Any] = []
    yield running
    for driver in running:
        _end_browser(driver)


@pytest.fixture
def browser(browsers: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window, with an empty tab, and nothing in its log."""
    if not browsers:
        browsers.append(_started_browser(tmp_path_factory.mktemp("browser") / "profile"))
    (driver,) = browsers
    driver.set_window_size(1500, 1000)
    yield driver
    try:
        driver.get("about:blank")
        driver.get_log("browser")
    except Exception:  # noqa: BLE001 (whatever it is: a frozen tab is not for the next test)
        _end_browser(browsers.pop())
