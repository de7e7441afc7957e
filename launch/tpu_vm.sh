#!/usr/bin/env bash
# Trains on a Cloud TPU VM or slice: ./launch/tpu_vm.sh --help
set -euo pipefail
cd "$(dirname "$0")/.."
help() {
  cat << 'END'
Train on a Cloud TPU VM or slice, from eight chips to a pod.

  ./launch/tpu_vm.sh COMMAND --zone=ZONE [options] [-- flags of dualmcmc_jax.main]

commands (all are safe to repeat):
  train    create, install and run, and poll until the run is done; restart after a preemption or a crash
  create   create the slice if it does not exist, and wait until it is ready
  install  copy the last commit to every worker, and install Python and all dependencies there
  run      start training on every worker, detached from this machine
  status   show the state of the slice, and of the run on every worker
  logs     follow the log of worker 0
  fetch    copy the files of the run, except checkpoints, to runs/ on this machine
  delete   delete the slice and its disk

options:
  --zone=ZONE           zone of the slice (required)
  --name=NAME           name of the slice (default: dualmcmc)
  --project=PROJECT     Google Cloud project (default: the project set in gcloud)
  --type=TYPE           accelerator type (default: v5litepod-8)
  --runtime=VERSION     TPU software version (default: the version for JAX on the accelerator type)
  --spot                use spot capacity, which costs less and may be preempted
  --queued              request a queued resource, and wait for it
  --dry_run             print every gcloud command instead of running it

environment variables:
  TPU_POLL=60           polling interval in seconds
  TPU_WAITS="10 30 90"  delays in seconds before the retries of a failed gcloud command
END
}
fail() { echo "error: $*" >&2; exit 1; }

zone='' name=dualmcmc project='' type=v5litepod-8 runtime='' spot='' queued='' dry_run=false workdir='' flags=''
command=${1:---help}
case $command in
  train | create | install | run | status | logs | fetch | delete) shift ;;
  -h | --help) help && exit ;;
  *) fail "found $command, expected a command; ./launch/tpu_vm.sh --help lists all commands" ;;
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
  flags+=" $(printf %q "$flag")" # quoted for the shell of a worker
  case $flag in
    --dry_run | --spot | --queued | --zone=* | --type=* | --project=*) fail "$flag: found after --, expected before it" ;;
    --workdir=*) workdir=${flag#*=} ;;
    --config=*) workdir=${workdir:-runs/$(basename "${flag#*=}" .py)} ;;
  esac
done
[ -n "$zone" ] || fail "--zone: found nothing, expected a zone, as in --zone=us-west4-a"
[[ $workdir || ! $command =~ ^(train|run|fetch)$ ]] || fail "--config: found none after --, expected -- --config=NAME"
if [[ $command = train && $workdir != gs://?* ]] && [[ $spot$queued || ${type##*-} -gt 8 ]]; then
  fail "--workdir: found $workdir, expected gs://BUCKET/FOLDER, a shared folder that survives the slice"
fi
case ${runtime:-$type} in
  v6e-*) runtime=v2-alpha-tpuv6e ;;
  v5p-*) runtime=v2-alpha-tpuv5 ;;
  v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
  *) runtime=${runtime:-tpu-ubuntu2204-base} ;;
esac
$dry_run || command -v gcloud > /dev/null || fail "gcloud: found no such command, expected the Google Cloud CLI"
project_flags=(--quiet ${project:+"--project=$project"})
zone_flags=(--zone="$zone" "${project_flags[@]}")
poll=${TPU_POLL:-60} last_state=unknown was_ready=false started=false crashes=0 unanswered=0
permanent='Failed to find attribute|PERMISSION_DENIED|INVALID_ARGUMENT|UNAUTHENTICATED|unrecognized|not installed'
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
exec 3>&1

cloud() { # runs gcloud and prints its output; retries after a temporary failure, and exits after a permanent one
  local wait
  if $dry_run; then { printf gcloud && printf ' %q' "$@" && echo; } >&3 && return; fi
  for wait in ${TPU_WAITS-10 30 90} none; do
    if gcloud "$@" > "$scratch/out" 2> "$scratch/stderr" < /dev/null; then cat "$scratch/out" && return; fi
    if [ "$4" = create ] && grep -q ALREADY_EXISTS "$scratch/stderr"; then return; fi # an earlier attempt created it
    if [ "$wait" = none ] || grep -qE "$permanent" "$scratch/stderr"; then break; fi
    sleep "$wait"
  done
  fail "gcloud $1 $2 $3 $4: found $(tail -n 5 "$scratch/stderr" | tr -s ' \n' ' '), expected success"
}
on() { # arguments: a worker or "all", and the shell command that it runs
  cloud compute tpus tpu-vm ssh "$name" --worker="$1" --command="$2" "${zone_flags[@]}"
}
listed() { # arguments: queued-resources or tpu-vm, and a field; prints that field of the resource named $name
  cloud compute tpus "$1" list --format="value(name,$2)" "${zone_flags[@]}" |
    awk -v name="$name" '{ sub(/.*\//, "", $1) } $1 == name { print $2 }'
}
read_state() { # sets $state to the state of the slice or of the pending request, and to '' if neither exists
  request=$(listed queued-resources state.state) || exit 1
  node=$(listed tpu-vm state) || exit 1
  state=${request:-$node}
  if [ "$state" = ACTIVE ]; then state=${node:-SUSPENDED}; fi
}
request_slice() {
  local slice=("$name" --accelerator-type="$type" ${spot:+--spot} "${zone_flags[@]}")
  echo "requesting the slice $name of type $type" >&2
  if [ -n "$queued" ]; then
    cloud compute tpus queued-resources create "${slice[@]}" --node-id="$name" --runtime-version="$runtime"
  else
    cloud compute tpus tpu-vm create "${slice[@]}" --version="$runtime"
  fi
}
is_ready() { # requests a slice if there is none or if it was preempted; succeeds if the slice is ready
  read_state
  [ "$state" = "$last_state" ] || echo "$(date '+%F %T') $name: ${state:-there is no such slice}" >&2
  last_state=$state
  case $state in
    READY) was_ready=true ;;
    '' | PREEMPTED | TERMINATED | SUSPENDED)
      if [[ ! $spot$queued ]] && { $was_ready || [ -n "$state" ]; }; then
        fail "$name: found state ${state:-DELETED}, expected READY; a slice is recreated only with --spot or --queued"
      fi
      [ -z "$state" ] || delete
      (request_slice) || grep -qi capacity "$scratch/stderr" || exit 1 # without capacity, try again at the next poll
      started=false unanswered=0 ;;
    STOPPED | HID* | FAILED | UNKNOWN) fail "$name: found state $state, expected READY" ;; # others are transient
  esac
  [ "$last_state" = READY ] || $dry_run
}
create() { until is_ready; do sleep "$poll"; done; }

install() { # uses uv, because the Python of the TPU image is too old
  $dry_run || git archive --format=tar.gz -o "$scratch/dualmcmc_jax.tar.gz" HEAD || fail "found no commit, expected one"
  cloud compute tpus tpu-vm scp "$scratch/dualmcmc_jax.tar.gz" "$name:" --worker=all "${zone_flags[@]}"
  # shellcheck disable=SC2016
  on all 'set -e; mkdir -p dualmcmc_jax; cd dualmcmc_jax
exec 9>> train.lock; flock -w 0.3 9 || { echo "$(hostname): a run is in progress, installation skipped"; exit 0; }
tar -xzf ../dualmcmc_jax.tar.gz
[ -x ~/.local/bin/uv ] || python3 -m pip install --quiet --user uv
[ -x .venv/bin/python ] || ~/.local/bin/uv venv --quiet --python 3.12 .venv
~/.local/bin/uv pip install --quiet --python .venv/bin/python -r requirements.txt "jax[tpu]"
echo "$(hostname): installed"'
}
enter='cd dualmcmc_jax 2> /dev/null && [ -x .venv/bin/python ] || { echo "ERROR: not installed" >&2; exit 1; }'
run() { # starts training unless it is running; the process of the run holds the lock until it ends
  on all "$enter
exec 9>> train.lock; flock -w 0.3 9 || { echo \"\$(hostname): already running\"; exit 0; }
echo \"\$(hostname): started\"; rm -f train.exit; exec >> train.log 2>&1 < /dev/null
( trap '' HUP; trap : TERM; .venv/bin/python -m dualmcmc_jax.main$flags; echo \$? > train.exit ) &"
}
workers() { # prints a line per worker: its name, and "running", the exit code, or "gone" (ended without exit code)
  # shellcheck disable=SC2016
  on all "$enter"'
if flock -s -n train.lock true; then result=$(cat train.exit 2> /dev/null || echo gone); else result=running; fi
echo "$(hostname): $result"'
}
status() {
  read_state
  if $dry_run; then workers && return; fi
  echo "$name: ${state:-there is no such slice}"
  [ "$state" != READY ] || workers
}
logs() {
  local how=gcloud follow='tail -n 100 -F dualmcmc_jax/train.log'
  if $dry_run; then how=cloud; fi
  "$how" compute tpus tpu-vm ssh "$name" --worker=0 --command="$follow" "${zone_flags[@]}"
}
fetch() {
  to=runs/$(basename "$workdir")
  $dry_run || mkdir -p "$to"
  if [[ $workdir == gs://* ]]; then
    cloud storage rsync "$workdir" "$to" --recursive --exclude='checkpoints/.*' "${project_flags[@]}"
  else
    on 0 "$enter"$'\n'"tar -czf ../fetched.tar.gz --exclude=./checkpoints -C $(printf %q "$workdir") ."
    cloud compute tpus tpu-vm scp "$name:fetched.tar.gz" "$scratch" --worker=0 "${zone_flags[@]}"
    $dry_run || tar -xzf "$scratch/fetched.tar.gz" -C "$to"
  fi
}
delete() {
  read_state
  if [[ $request || ($queued && $dry_run = true) ]]; then
    cloud compute tpus queued-resources delete "$name" --force "${zone_flags[@]}"
  elif [[ $node || $dry_run = true ]]; then
    cloud compute tpus tpu-vm delete "$name" "${zone_flags[@]}"
  else
    echo "$name: there is no such slice" >&2
  fi
}
supervise() { # one poll of the run: starts it if necessary, and succeeds if it is done
  local results codes
  if $dry_run; then install && run && workers && return; fi
  if ! $started; then
    if (install && run); then started=true unanswered=0; else unanswered=$((unanswered + 1)); fi
  elif ! results=$(workers); then
    unanswered=$((unanswered + 1))
  else
    codes=$(awk '{ print $NF }' <<< "$results" | sort -u | tr '\n' ' ') unanswered=0
    if [ "$codes" = "0 " ]; then return; fi
    if [[ $codes == *running* ]]; then return 1; fi # after one process ends, the others stop soon
    echo "$results" >&2
    if tr ' ' '\n' <<< "$codes" | grep -qvxE '|0|75|134|137|143|gone'; then
      on all 'cd dualmcmc_jax; grep -qxE "0|75|134|137|143" train.exit || tail -n 20 train.log' | tail -n 40 >&2
      fail "training: found exit codes $codes, expected 0"
    fi
    [ "$codes" = "75 " ] || crashes=$((crashes + 1))
    started=false
  fi
  [ "$crashes" -le 10 ] || fail "training: found $crashes crashes, expected at most 10"
  [ "$unanswered" -lt 3 ] || fail "$name: found no answer from the workers three times in a row, expected one"
  return 1
}
train() {
  until is_ready && supervise; do sleep "$poll"; done
  $dry_run || echo "done: $workdir; to stop billing, run ./launch/tpu_vm.sh delete --name=$name --zone=$zone" >&2
}
"$command"
