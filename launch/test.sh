#!/usr/bin/env bash
# Lints and tests: ./launch/test.sh [--fast] [any argument of pytest]; --fast leaves out the tests that take long.
set -euo pipefail
if [ "${1:-}" = --fast ]; then
  shift
  set -- -m "not slow and not more" "$@"
fi
# shellcheck source=launch/venv.sh
. "$(dirname "$0")/venv.sh" tests/requirements.txt
ruff check .
ruff format --check .
exec python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
