"""Each estimator against the optimum in memory: objective, coefficients, passes and seconds.

``python -m tests.benchmarks.parity [--only NAME ...] [--data NAME ...] [--rows N] [--json FILE]``.
Fashion-MNIST is of Debian's package dataset-fashion-mnist; sets that are not there are left out.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from ooc_train.core.units import parse_rows
from tests.benchmarks.parity.data import SETS, rows_of
from tests.benchmarks.parity.problems import PROBLEMS, Outcome, compare
from tests.benchmarks.tools import report, table

_HEADER = (
    "estimator", "data", "rows", "objective", "passes", "s", "objective, tight", "coef, tight",
    "passes", "s", "in memory, s", "target",
)  # fmt: skip


def line(outcome: Outcome) -> tuple[str, ...]:
    """Return an outcome as cells of the table."""
    default, tight = outcome.default, outcome.tight
    coef = f"{tight.coef:.0e}" if outcome.unique else f"({tight.coef:.0e})"
    missed = outcome.missed
    return (
        outcome.problem, outcome.data, f"{outcome.n_rows:,}",
        f"{default.objective:.0e}", f"{default.passes:.3g}", f"{default.seconds:.2f}",
        f"{tight.objective:.0e}", coef, f"{tight.passes:.3g}", f"{tight.seconds:.2f}",
        f"{outcome.memory_seconds:.2f}",
        f"MISSED: {', '.join(missed)}" if missed else "reached",
    )  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, metavar="NAME", default=PROBLEMS)
    parser.add_argument("--data", nargs="+", choices=SETS, metavar="NAME", default=SETS)
    parser.add_argument("--rows", default="1M", help="of each set, at most (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="to write the figures to")
    options = parser.parse_args()
    most = parse_rows(options.rows)
    outcomes: list[Outcome] = []
    absent: set[str] = set()
    for name in options.only:
        for data in options.data:
            for task in sorted(PROBLEMS[name].takes(data)):
                try:
                    rows = rows_of(data, task)
                except FileNotFoundError as error:
                    absent.add(f"{data} is left out: {error}")
                    continue
                outcomes.append(compare(name, data, rows.first(most)))
                print(*line(outcomes[-1]), sep="; ", file=sys.stderr, flush=True)
    notes = [
        f"{each.problem}, {each.data}: {each.tight.shortfall}"
        for each in outcomes
        if each.tight.shortfall
    ]
    text = table(_HEADER, [line(each) for each in outcomes])
    figures = [asdict(each) | {"missed": each.missed} for each in outcomes]
    report("\n".join([text, *notes, *sorted(absent)]), {"parity": figures}, options.json)


if __name__ == "__main__":
    main()
