#!/usr/bin/env bash
# Everything that CI runs, in order, quickest first; with --quick without the tests marked slow.
# Needs the test and notebooks extras.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1-} in
    '') which=() ;;
    --quick) which=(-m 'not slow') ;;
    *)
        echo "usage: tests/check.sh [--quick]" >&2
        exit 2
        ;;
esac

ruff check .
ruff format --check .
mypy
pytest "${which[@]}"
