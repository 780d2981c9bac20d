"""Command lines that make no sense: options of every command with values that nobody expects.

The options are those that the program itself knows, so a new one is tried as well. All that a
command line may do is to work or to refuse; what it writes goes to a folder of the case.
"""

import os
import random
import stat
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.faults.bench import SHORT, Bench, shell
from tests.benchmarks.faults.children import Limits, program
from tests.benchmarks.faults.outcomes import GOOD, Finding, Outcome, ending

_LIMITS = Limits(seconds=60, memory=700 * 2**20)
_ALONE = Limits(seconds=120, memory=1500 * 2**20)
"""Of commands that start workers of their own."""

_BASES: dict[str, tuple[str, ...]] = {
    "info": ("info", "new.zarr"),
    "make-data": ("make-data", "out.zarr", "--rows", "100", "--features", "3"),
    "rechunk": ("rechunk", "new.zarr", "out.zarr"),
    "shuffle": ("shuffle", "new.zarr", "out.zarr"),
    "ingest": ("ingest", "new.csv", "out.zarr", "--target", "y"),
    "plan": ("plan", "new.zarr"),
    "train": ("train", "new.zarr", "--out", "out.run", *SHORT),
    "evaluate": ("evaluate", "new.run", "new.zarr"),
    "predict": ("predict", "new.run", "new.csv", "out.csv"),
    "tradeoff": ("tradeoff", "new.zarr", "--batch-sizes", "64,full", *SHORT),
    "report": ("report", "new.run", "--out", "out.html"),
}
_ON_CLUSTER = ("plan", "train", "evaluate", "tradeoff")
_OF_CLUSTER = ("workers", "threads", "dashboard_address", "scheduler")
"""Parameters that are tried with workers of the command's own."""

_VALUES = (
    *("0", "1", "-1", "2", "3.5", "1e400", "-1e400", "1e-400", "nan", "inf", "-inf", "0x10"),
    *("9" * 30, "9" * 5000, "1e15", "1_0", " 1", "", " ", "\n", "é", "\x1b[2J", "\udcff"),
    *("auto", "full", "chunk", "none", "None", "true", "y", "a", "a,b", "a,,b", ",", "a=1", "="),
    *("yes=1,no=2", "yes=nan,no=inf", "yes=1e400", "balanced", "yes", "x" * 5000, "100%"),
    *("1KiB", "64MiB", "100MiB", "512MiB", "1GiB", "1e20GiB", "-1GiB"),
    *("1s", "0.5s", "1e9s", "-1s", "1h", "20M", "1K", "0.5"),
    *("int8", "float16", "<f4", ">f8", "object", "M8[s]", "f4,f4", "V10", "U5", "complex64"),
    *("adam", "sgd", "newton", "lbfgs", "gram", "lz4", "zstd", "logistic", "ridge", "linear"),
    *("new.csv", "new.zarr", "new.run", "nothing", "folder", "fifo", "null", "zero", "loop", "."),
    *("out.zarr", "out.csv", "out.png", "a/b/c", "/", "/proc/self/mem", "/dev/full", "~"),
    *("n" * 300, "file:///x", "s3:/x", "memory://x", "[", "*", "**", "{a}", "--", "-", "--help"),
    *("%s", "\\"),
)
_ADDRESSES = (
    *("tcp://127.0.0.1:1", "127.0.0.1", "nonsense", "tcp://", "tls://127.0.0.1:1", "inproc://x"),
    *("127.0.0.1:99999", "127.0.0.1:-1", "0.0.0.0:0", "[::1]:0", "127.0.0.1:1", "256.1.1.1:0"),
)
_NUMBERS = ("2", "0", "-1", "1e3", "10000", "9" * 30, "x", "")
_UNTRIED = ("help", "traceback")


def commands() -> dict[str, list[Any]]:
    """Return the parameters of each command, as the program declares them."""
    import typer

    from ooc_train.cli import app

    group: Any = typer.main.get_command(app)
    return {name: list(group.get_command(None, name).params) for name in _BASES}


def case(bench: Bench, seed: int) -> Iterator[Finding]:
    """Run a command with one or two options, or an argument, that make no sense."""
    rng = random.Random(f"command-lines {seed}")
    names = list(_BASES)
    name = names[seed % len(names)]
    words = list(_BASES[name])
    parameters = [p for p in commands()[name] if p.name not in _UNTRIED]
    alone = name in _ON_CLUSTER and rng.random() < 0.1
    if alone:
        parameters = [p for p in parameters if p.name in _OF_CLUSTER]
    else:
        parameters = [p for p in parameters if p.name not in _OF_CLUSTER]
    for parameter in rng.sample(parameters, min(len(parameters), rng.choice((1, 1, 2)))):
        value = rng.choice(_VALUES)
        if parameter.name in ("scheduler", "dashboard_address"):
            value = rng.choice(_ADDRESSES)
        elif alone:
            value = rng.choice(_NUMBERS)
        if parameter.param_type_name == "argument":
            place = [p.name for p in commands()[name] if p.param_type_name == "argument"]
            words[1 + place.index(parameter.name)] = value
        elif parameter.is_flag:
            words.append(rng.choice(list(parameter.opts) + list(parameter.secondary_opts)))
        else:
            words += [rng.choice(parameter.opts), value]
    with bench.folder("new.csv", "new.zarr", "new.run") as folder:
        odd = _odd_things(folder)
        what = f"`{shell(words)[:300]}`"
        if alone:
            if "--scheduler" not in words and "--workers" not in words:
                words += ["--workers", "1"]
            if "--dashboard-address" not in words and "--scheduler" not in words:
                words += ["--dashboard-address", "127.0.0.1:0"]
            ended = bench.run(words, folder, limits=_ALONE, program=program)
        else:
            words += bench.on_cluster if name in _ON_CLUSTER else ()
            ended = bench.run(words, folder, limits=_LIMITS)
        found = ending(ended, what)
        if name == "plan" and ended.status == 1 and not ended.err:
            found = Finding(Outcome.REFUSED, what)  # it tells what does not fit
        yield found
        if found.outcome in GOOD and ended.status != 0:
            expected = ["new.csv", "new.zarr", "new.run", *odd]
            for left in bench.left(folder, expected):
                yield Finding(left.outcome, f"{what}: {left.text}")


def _odd_things(folder: str) -> list[str]:
    """Make things in a folder that are no plain files, and return their names."""
    os.mkdir(f"{folder}/folder")
    os.mkfifo(f"{folder}/fifo")
    os.symlink("loop", f"{folder}/loop")
    names = ["folder", "fifo", "loop"]
    for name, minor in (("null", 3), ("zero", 5)):
        try:
            # Those of the system itself should not be replaced by a mistake.
            os.mknod(f"{folder}/{name}", stat.S_IFCHR | 0o666, os.makedev(1, minor))
            names.append(name)
        except PermissionError:
            os.symlink(f"/dev/{name}", f"{folder}/{name}")
            names.append(name)
    return names
