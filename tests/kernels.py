"""The kernels that tests need, compiled before them, in a process for each type of X.

``python -m tests.kernels`` compiles those of ``kernels.txt`` that the user's files lack. A test
compiles what it finds missing, in a process of its own, which translates anew what kernels have in
common: eight of them one by one take 28 s of processor time, and 22 s together. Two processes of
pytest may compile the same one as well. ``--write`` writes ``kernels.txt`` anew, after a run of all
tests: with the kernels that are there by then.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from ooc_train.kernels.calling import load, missing
from ooc_train.kernels.specs import KERNELS, KernelSpec
from ooc_train.objective.activations import ACTIVATIONS
from ooc_train.objective.losses import LOSSES
from ooc_train.objective.losses.scaled_huber import FittedHuber, ScaledHuber
from ooc_train.optimizers import OPTIMIZERS

LIST = Path(__file__).with_name("kernels.txt")
DTYPES = ("float32", "float64")

PARTS: dict[str, dict[str, Any]] = {
    "loss": {**LOSSES} | {kind.name: kind for kind in (FittedHuber, ScaledHuber)},
    "optimizer": {**OPTIMIZERS},
    "activation": {**ACTIVATIONS},
}
FLAGS = ("l1", "single", "clipped")


def text_of(spec: KernelSpec) -> str:
    """Return a kernel as words: "scan_groups loss=logistic optimizer=sgd l1"."""
    parts = ((name, getattr(spec, name)) for name in PARTS)
    named = [f"{name}={kind.name}" for name, kind in parts if kind is not None]
    return " ".join([spec.kernel, *named, *(flag for flag in FLAGS if getattr(spec, flag))])


def spec_of(text: str) -> KernelSpec:
    """Return the kernel of which `text_of` returns the words."""
    kernel, *words = text.split()
    settings: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        settings[name] = PARTS[name][value] if value else True
    return KernelSpec(kernel, **settings)


def listed_kernels() -> dict[str, list[KernelSpec]]:
    """Return the kernels of the list, by the type of X."""
    lines = [line.partition(" ") for line in LIST.read_text(encoding="ascii").splitlines()]
    return {dtype: [spec_of(text) for of, _, text in lines if of == dtype] for dtype in DTYPES}


def possible_kernels() -> Iterator[KernelSpec]:
    """Yield the kernels of all parts, also of those that they do not depend on."""
    parts = itertools.product(*([None, *kinds.values()] for kinds in PARTS.values()))
    flags = itertools.product((False, True), repeat=len(FLAGS))
    for kernel, of, are in itertools.product(KERNELS, [*parts], [*flags]):
        yield KernelSpec(
            kernel, **dict(zip(PARTS, of, strict=True)), **dict(zip(FLAGS, are, strict=True))
        )


def write() -> None:
    """Write the list of the kernels that are there."""
    possible = {*possible_kernels()}
    lines = [
        f"{dtype} {text_of(spec)}\n"
        for dtype in DTYPES
        for spec in possible - missing(dtype, possible).keys()
    ]
    LIST.write_text("".join(sorted(lines)), encoding="ascii")


def main() -> None:
    """Compile the kernels of the list, or write it."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernels", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the list anew")
    if parser.parse_args().write:
        write()
        return
    for dtype, specs in listed_kernels().items():
        lacking = [spec for spec, would_last in missing(dtype, specs).items() if would_last]
        begun = perf_counter()
        load(dtype, lacking)
        print(f"{dtype}: {len(lacking)} kernels compiled in {perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
