#!/usr/bin/env bash
# Runs the program on this machine: ./launch/local.sh --config=digits [any flag of dualmcmc_jax.main]
set -euo pipefail
# shellcheck source=launch/venv.sh
. "$(dirname "$0")/venv.sh" requirements/core.txt
exec python -m dualmcmc_jax.main "$@"
