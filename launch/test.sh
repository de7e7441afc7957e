#!/usr/bin/env bash
# Lints and tests: ./launch/test.sh [any argument of pytest], for example -m "not slow"
set -euo pipefail
# shellcheck source=launch/venv.sh
. "$(dirname "$0")/venv.sh" tests/requirements.txt
ruff check .
ruff format --check .
exec python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
