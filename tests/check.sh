#!/usr/bin/env bash
# Everything that CI runs, in order, quickest first; with --quick without the tests marked slow.
# Needs the test and notebooks extras.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1-} in
    '') which= ;;
    --quick) which=' and not slow' ;;
    *)
        echo "usage: tests/check.sh [--quick]" >&2
        exit 2
        ;;
esac

# Tests start hundreds of processes, which would compile what they import, each anew, on machines
# that do not let Python keep it.
unset PYTHONDONTWRITEBYTECODE
python -m compileall -q ooc_train
ruff check .
ruff format --check .
# Stores wait for the disk at each commit: where there is plenty of memory, tests write to that.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
free=$(df --output=avail --block-size=1G /dev/shm 2> /dev/null | tail -1 || echo 0)
available=$(awk '/^MemAvailable:/ { print int($2 / 2**20) }' /proc/meminfo 2> /dev/null || echo 0)
if ((free >= 8 && available >= 12)); then
    rmdir "$scratch"
    scratch=$(mktemp -d /dev/shm/ooc_train-tests-XXXXXX)
fi
# Before tests find them missing, each of which would compile a few anew.
python -m tests.kernels
# Only their files: to collect all tests takes longer than to run these.
mapfile -t alone < <(grep -rl --include='*.py' 'pytest\.mark\.alone' tests ooc_train | sort)
pytest -m "alone$which" "${alone[@]}"
# One core would check types, with nothing to do for the others: it is done beside the tests.
mypy &
types=$!
trap 'kill "$types" 2> /dev/null || true; rm -rf "$scratch"' EXIT
# Two processes take a file at a time, whose tests share what its fixtures make. The order is that of
# the names: files of few and long tests would come last otherwise, with nothing to do beside them.
pytest -m "not alone$which" -n 2 --dist loadfile --no-loadscope-reorder --basetemp "$scratch/pytest"
wait "$types" || {
    echo "mypy found errors: they are printed above, among the first tests" >&2
    exit 1
}
