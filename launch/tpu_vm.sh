#!/usr/bin/env bash
# Trains on a Cloud TPU VM or slice: ./launch/tpu_vm.sh --help
set -euo pipefail
cd "$(dirname "$0")/.."
help() {
  cat << 'END'
Trains on a Cloud TPU VM or slice, from eight chips to a pod.

  ./launch/tpu_vm.sh COMMAND --zone=ZONE [options] [-- flags of dualmcmc_jax.main]

commands, each of which can be given again at any time:
  train    create, install and run, and look after the run until it is done; a slice that is pre-empted is made again
  create   make the slice if there is none, and wait until it is ready
  install  copy the last commit to every worker, and install Python and the rest there
  run      start training on every worker, where it goes on without this machine
  status   the state of the slice, and of the run on every worker
  logs     follow the log of worker 0
  fetch    copy what the run wrote, except checkpoints, to runs/ on this machine
  delete   delete the slice and its disk

options:
  --zone=ZONE --name=NAME --project=PROJECT     default: a slice named dualmcmc in gcloud's project
  --type=TYPE --runtime=VERSION                 default: v5litepod-8, with the TPU software for JAX on the type
  --spot                                        costs less, and may be pre-empted
  --queued                                      ask for a queued resource, and wait for it
  --dry_run                                     print every gcloud command, and run none

In the environment: TPU_POLL=60 are the seconds between two looks, TPU_WAITS="10 30 90" those before each further try of
a gcloud command that failed.
END
}
fail() { echo "error: $*" >&2; exit 1; }

zone='' name=dualmcmc project='' type=v5litepod-8 runtime='' spot='' queued='' dry_run=false workdir='' flags=''
command=${1:---help}
case $command in
  train | create | install | run | status | logs | fetch | delete) shift ;;
  -h | --help) help && exit ;;
  *) fail "found $command, expected a command; ./launch/tpu_vm.sh --help lists them" ;;
esac
while [ $# -gt 0 ]; do
  case $1 in
    --zone=?* | --name=?* | --project=?* | --type=?*-[1-9]* | --runtime=?*) declare "${1:2}" ;;
    --spot | --queued) declare "${1:2}=$1" ;;
    --dry_run) dry_run=true ;;
    --) shift && break ;;
    *) fail "found $1, expected options of ./launch/tpu_vm.sh --help, then --, then flags of dualmcmc_jax.main" ;;
  esac
  shift
done
for flag in "$@"; do
  flags+=" $(printf %q "$flag")" # for the shells of the workers
  case $flag in
    --dry_run | --spot | --queued | --zone=* | --type=* | --project=*) fail "$flag: found after --, expected before it" ;;
    --workdir=*) workdir=${flag#*=} ;;
    --config=*) workdir=${workdir:-runs/$(basename "${flag#*=}" .py)} ;;
  esac
done
[ -n "$zone" ] || fail "--zone: found nothing, expected a zone, as in --zone=us-west4-a"
[[ $workdir || ! $command =~ ^(train|run|fetch)$ ]] || fail "--config: found none after --, expected -- --config=NAME"
if [[ $command = train && $workdir != gs://?* ]] && [[ $spot$queued || ${type##*-} -gt 8 ]]; then
  fail "--workdir: found $workdir, expected gs://BUCKET/FOLDER, which all workers share and which outlasts the slice"
fi
case ${runtime:-$type} in
  v6e-*) runtime=v2-alpha-tpuv6e ;;
  v5p-*) runtime=v2-alpha-tpuv5 ;;
  v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
  *) runtime=${runtime:-tpu-ubuntu2204-base} ;;
esac
$dry_run || command -v gcloud > /dev/null || fail "gcloud: found no such program, expected the Google Cloud CLI"
here=(--quiet ${project:+"--project=$project"})
there=(--zone="$zone" "${here[@]}")
poll=${TPU_POLL:-60} before=unknown had=false started=false crashes=0 silent=0
lasting='Failed to find attribute|PERMISSION_DENIED|INVALID_ARGUMENT|UNAUTHENTICATED|unrecognized|not installed'
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
exec 3>&1

cloud() { # gcloud, tried again where that may help; prints its output once it succeeds, else ends the shell
  local wait
  if $dry_run; then { printf gcloud && printf ' %q' "$@" && echo; } >&3 && return; fi
  for wait in ${TPU_WAITS-10 30 90} none; do
    if gcloud "$@" > "$scratch/out" 2> "$scratch/stderr" < /dev/null; then cat "$scratch/out" && return; fi
    if [ "$4" = create ] && grep -q ALREADY_EXISTS "$scratch/stderr"; then return; fi # the try before did it
    if [ "$wait" = none ] || grep -qE "$lasting" "$scratch/stderr"; then break; fi
    sleep "$wait"
  done
  fail "gcloud $1 $2 $3 $4: found $(tail -n 5 "$scratch/stderr" | tr -s ' \n' ' '), expected success"
}
on() { # a worker or all, then a command for its shell
  cloud compute tpus tpu-vm ssh "$name" --worker="$1" --command="$2" "${there[@]}"
}
listed() { # queued-resources or tpu-vm, then the field to print of the one with our name
  cloud compute tpus "$1" list --format="value(name,$2)" "${there[@]}" |
    awk -v name="$name" '{ sub(/.*\//, "", $1) } $1 == name { print $2 }'
}
look() { # sets now to the state of the slice, or of the request for it until that is met; empty if there is none
  request=$(listed queued-resources state.state) || exit 1
  node=$(listed tpu-vm state) || exit 1
  now=${request:-$node}
  if [ "$now" = ACTIVE ]; then now=${node:-SUSPENDED}; fi
}
ask() {
  local slice=("$name" --accelerator-type="$type" ${spot:+--spot} "${there[@]}")
  echo "asking for $name, a $type" >&2
  if [ -n "$queued" ]; then
    cloud compute tpus queued-resources create "${slice[@]}" --node-id="$name" --runtime-version="$runtime"
  else
    cloud compute tpus tpu-vm create "${slice[@]}" --version="$runtime"
  fi
}
ready() { # whether the slice is; if there is none, or no longer, asks for one
  look
  [ "$now" = "$before" ] || echo "$(date '+%F %T') $name: ${now:-there is none}" >&2
  before=$now
  case $now in
    READY) had=true ;;
    '' | PREEMPTED | TERMINATED | SUSPENDED)
      if [[ ! $spot$queued ]] && { $had || [ -n "$now" ]; }; then
        fail "$name: found it ${now:-gone}, expected READY, or --spot or --queued to make it again"
      fi
      [ -z "$now" ] || delete
      (ask) || grep -qi capacity "$scratch/stderr" || exit 1 # while there is no capacity, it asks again
      started=false silent=0 ;;
    STOPPED | HID* | FAILED | UNKNOWN) fail "$name: found it $now, expected READY" ;; # all others pass
  esac
  [ "$before" = READY ] || $dry_run
}
create() { until ready; do sleep "$poll"; done; }

install() { # uv brings a newer Python than the image has
  $dry_run || git archive --format=tar.gz -o "$scratch/dualmcmc_jax.tar.gz" HEAD || fail "found no commit, expected one"
  cloud compute tpus tpu-vm scp "$scratch/dualmcmc_jax.tar.gz" "$name:" --worker=all "${there[@]}"
  # shellcheck disable=SC2016
  on all 'set -e; mkdir -p dualmcmc_jax; cd dualmcmc_jax
exec 9>> train.lock; flock -w 0.3 9 || { echo "$(hostname): in use, left as it is"; exit 0; }
tar -xzf ../dualmcmc_jax.tar.gz
[ -x ~/.local/bin/uv ] || python3 -m pip install --quiet --user uv
[ -x .venv/bin/python ] || ~/.local/bin/uv venv --quiet --python 3.12 .venv
~/.local/bin/uv pip install --quiet --python .venv/bin/python -r requirements.txt "jax[tpu]"
echo "$(hostname): installed"'
}
enter='cd dualmcmc_jax 2> /dev/null && [ -x .venv/bin/python ] || { echo "ERROR: not installed" >&2; exit 1; }'
run() { # the lock is held as long as a process of the run lives
  on all "$enter
exec 9>> train.lock; flock -w 0.3 9 || { echo \"\$(hostname): already running\"; exit 0; }
echo \"\$(hostname): started\"; rm -f train.exit; exec >> train.log 2>&1 < /dev/null
( trap '' HUP; trap : TERM; .venv/bin/python -m dualmcmc_jax.main$flags; echo \$? > train.exit ) &"
}
workers() { # of each its name and: running, an exit code, or gone, if it ended without one
  # shellcheck disable=SC2016
  on all "$enter"'
if flock -s -n train.lock true; then found=$(cat train.exit 2> /dev/null || echo gone); else found=running; fi
echo "$(hostname): $found"'
}
status() {
  look
  if $dry_run; then workers && return; fi
  echo "$name: ${now:-there is none}"
  [ "$now" != READY ] || workers
}
logs() {
  local how=gcloud follow='tail -n 100 -F dualmcmc_jax/train.log'
  if $dry_run; then how=cloud; fi
  "$how" compute tpus tpu-vm ssh "$name" --worker=0 --command="$follow" "${there[@]}"
}
fetch() {
  to=runs/$(basename "$workdir")
  $dry_run || mkdir -p "$to"
  if [[ $workdir == gs://* ]]; then
    cloud storage rsync "$workdir" "$to" --recursive --exclude='checkpoints/.*' "${here[@]}"
  else
    on 0 "$enter"$'\n'"tar -czf ../fetched.tar.gz --exclude=./checkpoints -C $(printf %q "$workdir") ."
    cloud compute tpus tpu-vm scp "$name:fetched.tar.gz" "$scratch" --worker=0 "${there[@]}"
    $dry_run || tar -xzf "$scratch/fetched.tar.gz" -C "$to"
  fi
}
delete() {
  look
  if [[ $request || ($queued && $dry_run = true) ]]; then
    cloud compute tpus queued-resources delete "$name" --force "${there[@]}"
  elif [[ $node || $dry_run = true ]]; then
    cloud compute tpus tpu-vm delete "$name" "${there[@]}"
  else
    echo "$name: there is none" >&2
  fi
}
attend() { # starts the run, or looks after it; succeeds when it is done
  local found codes
  if $dry_run; then install && run && workers && return; fi
  if ! $started; then
    if (install && run); then started=true silent=0; else silent=$((silent + 1)); fi
  elif ! found=$(workers); then
    silent=$((silent + 1))
  else
    codes=$(awk '{ print $NF }' <<< "$found" | sort -u | tr '\n' ' ') silent=0
    if [ "$codes" = "0 " ]; then return; fi
    if [[ $codes == *running* ]]; then return 1; fi # those that still run will hear of the others' end
    echo "$found" >&2
    if tr ' ' '\n' <<< "$codes" | grep -qvxE '|0|75|134|137|143|gone'; then
      on all 'cd dualmcmc_jax; grep -qxE "0|75|134|137|143" train.exit || tail -n 20 train.log' | tail -n 40 >&2
      fail "training: found exit codes $codes, expected 0"
    fi
    [ "$codes" = "75 " ] || crashes=$((crashes + 1))
    started=false
  fi
  [ "$crashes" -le 10 ] || fail "training: found $crashes crashes, expected at most 10"
  [ "$silent" -lt 3 ] || fail "$name: found no answer of its workers three times, expected one"
  return 1
}
train() {
  until ready && attend; do sleep "$poll"; done
  $dry_run || echo "done: $workdir; ./launch/tpu_vm.sh delete --name=$name --zone=$zone ends the bill" >&2
}
"$command"
