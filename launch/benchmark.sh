#!/usr/bin/env bash
# Times updates of the authors' networks: ./launch/benchmark.sh [FOLDER] (default: runs/benchmark)
# An update has one x-chain (the paper's Eq. 7) or two (the authors' code). The chain lengths are those of the paper's
# tables and of the authors' sampler. The script writes a JSON file per setting into FOLDER.
set -euo pipefail
# shellcheck source=launch/venv.sh
. "$(dirname "$0")/venv.sh" requirements.txt
out=${1:-runs/benchmark}
mkdir -p "$out"
measure() { # arguments: a name, then flags of dualmcmc_jax.benchmark
  local name=$1
  shift
  echo "== $name"
  python -m dualmcmc_jax.benchmark --json="$out/$name.json" "$@" || failed="$failed $name"
}
failed=
for recipe in cifar10 celeba64; do
  for dtype in bfloat16 float32; do
    flags=(--config="$recipe" --config.train.compute_dtype="$dtype" --config.loss.fresh_negatives=False)
    measure "$recipe-$dtype" "${flags[@]}"
    measure "$recipe-$dtype-released" --config="$recipe" --config.train.compute_dtype="$dtype"
    measure "$recipe-$dtype-batch512" "${flags[@]}" --config.train.batch_size=512
    for steps in 10 20 50; do measure "$recipe-$dtype-x$steps" "${flags[@]}" --config.x_chain.num_steps="$steps"; done
    measure "$recipe-$dtype-z30" "${flags[@]}" --config.z_chain.num_steps=30
    measure "$recipe-$dtype-x70" "${flags[@]}" --config.x_chain.num_steps=70 # as in the authors' sampler
  done
done
if [ -n "$failed" ]; then
  echo "error: these benchmarks failed:$failed" >&2
  exit 1
fi
