#!/usr/bin/env bash
# Everything that CI runs, in order, quickest first. Needs the test and notebooks extras.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ruff check .
ruff format --check .
mypy
pytest
