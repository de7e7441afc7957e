#!/usr/bin/env bash
# Runs the linter and the tests: ./launch/test.sh [--fast] [any argument of pytest]. --fast skips the slow tests.
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
