"""scikit-learn's own tests with our estimators in the place of theirs.

``python -m tests.benchmarks.sklearn_tests [--only MODULE ...] [--failed] [--json FILE]``. A failure
that `reasons.py` does not explain makes the exit status 1.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from tests.benchmarks.sklearn_tests.reasons import reason_of
from tests.benchmarks.sklearn_tests.running import MODULES, Outcome, outcomes_of
from tests.benchmarks.tools import report, table

_KINDS = ("as it is", "translated", "tighter tol", "absent", "different", "unexplained")


def explained(module: str, only: str = "") -> list[tuple[Outcome, str, str]]:
    """Run a module; return each test that uses ours, its kind of `_KINDS`, and the reason.

    Tests that fail without a reason are run again at a tight tolerance.
    """
    found = []
    first = outcomes_of(module, only=only)
    failed = [each for each in first if each.outcome == "failed"]
    unknown = [each.test for each in failed if reason_of(each) is None]
    tight = outcomes_of(module, only=only, again=unknown) if unknown else []
    mended = {each.test for each in tight if each.outcome == "passed"}
    for each in first:
        reason = reason_of(each) if each.outcome == "failed" else None
        if each.outcome == "passed":
            kind = "translated" if each.translated else "as it is"
        elif reason is not None:
            kind = reason.kind
        else:
            kind = "tighter tol" if each.test in mended else "unexplained"
        found.append((each, kind, "" if reason is None else reason.why))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=MODULES, metavar="MODULE", default=MODULES)
    parser.add_argument("--select", default="", help="an expression of pytest's -k")
    parser.add_argument("--failed", action="store_true", help="print each test that fails too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="to write the figures to")
    options = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    reasons: Counter[tuple[str, str]] = Counter()
    for module in options.only:
        outcomes = explained(module, options.select)
        counts[module] = Counter(kind for _, kind, _ in outcomes)
        reasons.update((kind, why) for _, kind, why in outcomes if why)
        for outcome, kind, _ in outcomes:
            if kind == "unexplained" or (options.failed and outcome.outcome == "failed"):
                print(kind, outcome.test, outcome.text, sep="; ", file=sys.stderr, flush=True)
    counts["all"] = sum(counts.values(), Counter())
    lines = [
        (module, *(str(kinds[kind]) for kind in _KINDS), str(sum(kinds.values())))
        for module, kinds in counts.items()
    ]
    notes = [f"{kind}, {count}: {why}" for (kind, why), count in reasons.most_common()]
    text = "\n".join([table(("module", *_KINDS, "all"), lines), *notes])
    figures = {"sklearn_tests": counts, "reasons": {why: n for (_, why), n in reasons.items()}}
    report(text, figures, options.json)
    sys.exit(1 if counts["all"]["unexplained"] else 0)


if __name__ == "__main__":
    main()
