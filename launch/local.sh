#!/usr/bin/env bash
# Trains on this machine: ./launch/local.sh --config=configs/digits.py [any flag of dualmcmc_jax.main]
set -euo pipefail
# shellcheck source=launch/venv.sh
. "$(dirname "$0")/venv.sh" requirements.txt
exec python -m dualmcmc_jax.main "$@"
