#!/usr/bin/env bash
# Benchmarks and trains on one GPU in about a quarter of an hour: ./launch/gpu_day.sh --help
set -euo pipefail
help() {
  cat << 'END'
Benchmark this program and the authors' PyTorch code at full size on one GPU, and train on CIFAR-10.

  ./launch/gpu_day.sh --out=DIR [options]

options:
  --out=DIR                output folder
  --authors=DIR            a checkout of the authors' repository, to time on the same GPU; needs PyTorch and torchvision
  --images=FOLDER_OR_ZIP   CIFAR-10 as image files train/CLASS/NAME and test/CLASS/NAME; required for training
  --only=measure           only run the benchmarks
  --only=train             only train
  --measure_seconds=N      start no benchmark after N seconds (default: 280)
  --train_seconds=N        time limit of training, including its start (default: 480)
  --evaluate_seconds=N     time limit of the evaluation (default: 110)
  --tiny                   use narrow networks and short chains, to test this script on a CPU

If the environment variable PYTHON is set, the script uses that Python and its installed packages. Otherwise the script
creates and uses .venv. It writes table.md and a JSON file per benchmark to DIR, and the samples, curves, metrics and
report to DIR/train. Every stage has a time limit, and later stages run even if an earlier stage fails.
END
}
fail() { echo "error: $*" >&2; exit 1; }

out='' authors='' images='' only='' measure_seconds=280 train_seconds=480 evaluate_seconds=110 tiny=''
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) help && exit ;;
    --out=?* | --authors=?* | --images=?* | --only=measure | --only=train) declare "${1:2}" ;;
    --measure_seconds=[1-9]* | --train_seconds=[1-9]* | --evaluate_seconds=[1-9]*) declare "${1:2}" ;;
    --tiny) tiny=--tiny ;;
    *) fail "found $1, expected options of ./launch/gpu_day.sh --help" ;;
  esac
  shift
done
[ -n "$out" ] || fail "--out: found nothing, expected a folder"
mkdir -p "$out/logs"
out=$(cd "$out" && pwd)
for name in authors images; do
  [ -z "${!name}" ] || declare "$name=$(realpath -- "${!name}")"
done

python=${PYTHON:-}
if [ -z "$python" ]; then
  # shellcheck source=launch/venv.sh
  . "$(dirname "$0")/venv.sh" requirements.txt
  python=python
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stage() { # arguments: a name, a time limit in seconds, a command
  # Runs the command and writes its output to a log file. At the limit, sends SIGTERM, and SIGKILL 40 s later.
  local name=$1 limit=$2 code=0 start=$SECONDS
  shift 2
  timeout --preserve-status --kill-after=40 "$limit" "$@" > "$out/logs/$name.log" 2>&1 || code=$?
  echo "== $name: exit code $code after $((SECONDS - start)) s"
  [ $code = 0 ] || tail -n 3 "$out/logs/$name.log" | tr '\r' '\n' | tail -n 3 | cut -c1-400
  return $code
}

if [ "$only" != train ]; then
  timeout --kill-after=10 $((measure_seconds + 20)) "$python" -m dualmcmc_jax.benchmark.gpu_day --out="$out" \
    ${authors:+--authors="$authors"} --seconds="$measure_seconds" $tiny || echo "== measure: exit code $?"
fi
if [ "$only" = measure ] || [ -z "$images" ]; then
  exit
fi

# To make several thousand updates in five minutes, the energy and the generator have a quarter of the authors' widths,
# the encoder has half of them, and an update has one x-chain (the paper's Eq. 7).
work=$out/run
train=$out/train
mkdir -p "$train"
flags=(--config=cifar10 --workdir="$work" --config.data.source="images:$images" --config.loss.fresh_negatives=False
  --config.train.num_steps=1000000 --config.checkpoint.every=1000 --config.checkpoint.keep=1
  --config.log.images_every=1000000 --config.evaluation.every=0 --config.health.policy=rollback)
if [ "$tiny" ]; then
  flags+=(--config.energy.widths="(8,8,8,8)" --config.generator.widths="(8,8,8,8)" --config.encoder.widths="(8,8,8,8)"
    --config.train.batch_size=20 --config.x_chain.num_steps=3 --config.z_chain.num_steps=2 --config.log.every=2
    --config.train.unroll=1)
  sizes=(--config.evaluation.num_samples=40 --config.evaluation.num_held_out=20 --config.evaluation.num_neighbours=40)
else
  flags+=(--config.energy.widths="(128,128,128,128)" --config.generator.widths="(128,128,128,128)"
    --config.encoder.widths="(64,128,256,512)" --config.train.compute_dtype=bfloat16 --config.log.every=20)
  sizes=(--config.evaluation.num_samples=5000 --config.evaluation.num_held_out=1000
    --config.evaluation.num_neighbours=2000)
fi
code=0
stage train "$train_seconds" "$python" -m dualmcmc_jax.main "${flags[@]}" || code=$?
[ $code != 75 ] || echo "   (expected: training stopped at its time limit and saved a checkpoint)"
cp "$work/config.json" "$work/metrics.jsonl" "$train/" || true
tail -n 1 "$train/metrics.jsonl" || true
curves='import sys
from pathlib import Path
from dualmcmc_jax.report import curves, figures
figures.save(Path(sys.argv[2]), curves.training(curves.read(Path(sys.argv[1]))))'
JAX_PLATFORMS=cpu stage curves 40 "$python" -c "$curves" "$work" "$train/training.png" &
stage sample 70 "$python" -m dualmcmc_jax.main "${flags[@]}" --mode=sample --num_samples=100 --out="$train" || true
wait
stage evaluate "$evaluate_seconds" "$python" -m dualmcmc_jax.main "${flags[@]}" "${sizes[@]}" --mode=evaluate \
  --out="$train/evaluation" || true
head -n 60 "$out/logs/evaluate.log" | cut -c1-160
