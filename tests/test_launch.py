"""The launch scripts, with stand-ins for gcloud and what it reaches, Slurm and pip, that note how they are called."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

# Of the flags in https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/create and so on, those to be used
WIDE = {"quiet", "project", "format"}  # https://cloud.google.com/sdk/gcloud/reference
DOCUMENTED = {
    "compute tpus tpu-vm create": {"zone", "accelerator-type", "version", "spot"},
    "compute tpus tpu-vm delete": {"zone"},
    "compute tpus tpu-vm list": {"zone"},
    "compute tpus tpu-vm ssh": {"zone", "worker", "command"},
    "compute tpus tpu-vm scp": {"zone", "worker"},
    "compute tpus queued-resources create": {"zone", "node-id", "accelerator-type", "runtime-version", "spot"},
    "compute tpus queued-resources delete": {"zone", "force"},
    "compute tpus queued-resources list": {"zone"},
    "storage rsync": {"recursive", "exclude"},
}

STAND_IN = """#!PYTHON -SE
import json, os, shutil, subprocess, sys, time
from pathlib import Path
there, me, argv = Path(os.environ["STAND_INS"]), Path(sys.argv[0]).name, sys.argv[1:]
request, node = there / "request", there / "node"
with open(there / "calls", "a") as calls:
    calls.write(json.dumps([me, *argv]) + "\\n")
def homes():
    return [there / "w0", there / "w1"]
def gcloud(group, verb, *rest):
    faults = json.loads((there / "faults").read_text())
    fault = faults.pop(0) if faults and faults[0][0] == verb else None
    (there / "faults").write_text(json.dumps(faults))
    if fault and not fault[2]:
        sys.exit(fault[1])
    found = request if group == "queued-resources" else node
    if verb == "list" and found.exists():
        print(f"projects/p/locations/z/x/dualmcmc-2\\tPREEMPTED\\nprojects/p/locations/z/x/dualmcmc\\t{found.read_text()}")
        if found.read_text() == "WAITING_FOR_RESOURCES":
            request.write_text("ACTIVE"), node.write_text("READY")
    if verb == "create":
        found.exists() and sys.exit("ERROR: (gcloud) ALREADY_EXISTS: Resource exists")
        found.write_text("READY" if found == node else "WAITING_FOR_RESOURCES")
        [home.mkdir(exist_ok=True) for home in homes()]
    if verb == "delete":
        request.unlink(missing_ok=True), node.unlink(missing_ok=True)
        [shutil.rmtree(home, ignore_errors=True) for home in homes()]
    if verb == "scp" and rest[1].endswith(":"):
        [shutil.copy(rest[0], home) for home in homes()]
    elif verb == "scp":
        shutil.copy(homes()[0] / rest[0].split(":")[1], rest[1])
    if verb == "ssh":
        (command,) = [word.removeprefix("--command=") for word in rest if word.startswith("--command=")]
        for home in homes() if "--worker=all" in rest else homes()[:1]:
            subprocess.run(["bash", "-c", command], cwd=home, env=os.environ | {"HOME": str(home)}, check=True)
    if fault:
        sys.exit(fault[1])
if me == "gcloud":
    gcloud(*argv[2:]) if argv[0] == "compute" else None
elif me == "python3":
    Path("~/.local/bin").expanduser().mkdir(parents=True), Path("~/.local/bin/uv").expanduser().symlink_to(sys.argv[0])
elif me == "uv" and argv[0] == "venv":
    Path(".venv/bin").mkdir(parents=True), Path(".venv/bin/python").symlink_to(sys.argv[0])
elif me == "srun" or me == "python" and "dualmcmc_jax.main" in argv:
    planned = Path(f"{Path.home()}.codes")
    code, *rest = json.loads(planned.read_text())
    planned.write_text(json.dumps(rest))
    print(f"this run ends with {code}")
    while code == "wait" and not (there / "stop").exists():
        time.sleep(0.02)
    if code == "preempted":
        node.write_text("PREEMPTED")
    sys.exit(code if isinstance(code, int) else 143)
"""


def check_flags(argv):
    words = " ".join(argv[: 4 if argv[0] == "compute" else 2])
    assert {word[2:].partition("=")[0] for word in argv if word.startswith("--")} <= DOCUMENTED[words] | WIDE


class StandIns:
    """A folder of them, and what they were called with."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "bin").mkdir()
        for name in ("gcloud", "python", "python3", "scontrol", "srun"):
            (folder / "bin" / name).write_text(STAND_IN.replace("PYTHON", sys.executable))
            (folder / "bin" / name).chmod(0o755)
        self.checkout = folder / "checkout"
        shutil.copytree(ROOT / "launch", self.checkout / "launch")
        shutil.copy(ROOT / "requirements.txt", self.checkout)
        commit = "git init -q && git add . && git -c user.name=n -c user.email=e commit -q -m m"
        subprocess.run(["bash", "-c", commit], cwd=self.checkout, check=True)
        self.plan()

    def plan(self, *codes, faults=(), second=None):
        """The ends of the runs on the first worker, on the second if they differ there, and faults of gcloud."""
        (self.folder / "w0.codes").write_text(json.dumps(codes))
        (self.folder / "w1.codes").write_text(json.dumps(second or codes))
        (self.folder / "faults").write_text(json.dumps(faults))

    def calls(self, program="gcloud"):
        path = self.folder / "calls"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [argv for name, *argv in lines if name == program]

    def verbs(self):
        """What gcloud was asked for, but for looks."""
        return [argv[3] for argv in self.calls() if argv[3] not in ("list", "ssh")]

    def __call__(self, *command, **env):
        env = {"PATH": f"{self.folder}/bin:{os.environ['PATH']}", "STAND_INS": str(self.folder), **env}
        env |= {"HOME": str(self.folder / "w0"), "TPU_POLL": "0.05", "TPU_WAITS": "0 0"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
        for argv in self.calls():
            check_flags(argv)
        return done

    def tpu(self, *arguments, flags=("--config=digits",), zone="--zone=z"):
        return self(self.checkout / "launch/tpu_vm.sh", *arguments, zone, "--", *flags)


@pytest.fixture
def stand(tmp_path):
    return StandIns(tmp_path)


SPOT = {"flags": ["--config=digits", "--workdir=gs://b/digits"]}


@pytest.mark.parametrize("command", ["train", "create", "install", "run", "status", "logs", "fetch", "delete"])
def test_dry_run(command, stand):
    done = stand.tpu(command, "--dry_run", "--project=p", "--spot", **SPOT)
    assert done.returncode == 0, done.stderr
    assert stand.calls() == []
    for line in done.stdout.splitlines():
        printed = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True).stdout
        argv = printed.split("\0")[1:-1]
        check_flags(argv)
        assert "--project=p" in argv


def test_each_command_twice(stand):
    stand.plan("wait", faults=[["list", "ERROR: a cold", False], ["create", "ERROR: timed out", True]])
    widths = "--config.energy.widths=(64, 64)"
    flags = ["--config=digits", widths, "--workdir=it's $HOME"]
    said = []
    for command in ("create", "install", "run"):
        for _ in range(2):
            done = stand.tpu(command, flags=flags)
            assert done.returncode == 0, done.stderr
            said.append(done.stdout)
    assert stand.verbs() == ["create", "create", "scp", "scp"]
    assert [text.count("started") for text in said] == [0, 0, 0, 0, 2, 0]
    assert said[-1].count("already running") == 2
    assert stand.tpu("status").stdout.count("running") == 2
    assert stand.calls("python") == [["-m", "dualmcmc_jax.main", *flags]] * 2
    assert stand.tpu("install").stdout.count("installation skipped") == 2
    (stand.folder / "stop").touch()
    for path in ("metrics.jsonl", "checkpoints/1"):
        (stand.folder / "w0/dualmcmc_jax/it's $HOME" / path).parent.mkdir(parents=True, exist_ok=True)
        (stand.folder / "w0/dualmcmc_jax/it's $HOME" / path).touch()
    for _ in range(2):
        assert stand.tpu("fetch", flags=flags).returncode == 0
    assert [path.name for path in (stand.checkout / "runs/it's $HOME").iterdir()] == ["metrics.jsonl"]
    for _ in range(2):
        assert stand.tpu("delete").returncode == 0
    assert stand.verbs().count("delete") == 1
    assert "there is no such slice" in stand.tpu("status").stdout


@pytest.mark.parametrize("queued", [(), ("--queued",)])
def test_train_outlives_preemption_and_stops(queued, stand):
    stand.plan(75, "preempted", 134, 0, second=[75, "preempted", 137, 0])
    done = stand.tpu("train", "--spot", *queued, **SPOT)
    assert done.returncode == 0, done.stderr
    assert stand.verbs() == ["create", "scp", "scp", "delete", "create", "scp", "scp"]
    assert len(stand.calls("python")) == 8
    assert "done: gs://b/digits" in done.stderr


def test_train_waits_for_capacity(stand):
    stand.plan(0, faults=[["create", "ERROR: There is no more capacity in the zone", False]] * 4)
    assert stand.tpu("train", "--spot", **SPOT).returncode == 0
    assert stand.verbs().count("create") == 5


def test_train_stops_at_an_error(stand):
    stand.plan(134, second=[1])
    done = stand.tpu("train", "--spot", **SPOT)
    assert done.returncode == 1
    assert "this run ends with 1\n" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: training: found exit codes 1 134 , expected 0"
    assert len(stand.calls("python")) == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["train", "--spot"], "--workdir: found runs/digits, expected gs://BUCKET/FOLDER"),
        (["train", "--queued"], "--workdir: found runs/digits, expected gs://BUCKET/FOLDER"),
        (["train", "--type=v6e-16"], "--workdir: found runs/digits, expected gs://BUCKET/FOLDER"),
        (["create", "--zome=z"], "found --zome=z, expected options"),
        (["make"], "found make, expected a command"),
    ],
)
def test_refuses_before_any_call(arguments, error, stand):
    done = stand.tpu(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {error}")
    assert done.stderr.count("\n") == 1
    assert stand.calls() == []


def test_does_not_try_again_what_cannot_pass(stand):
    stand.plan(faults=[["create", "ERROR: PERMISSION_DENIED: no", False]])
    done = stand.tpu("create")
    assert done.returncode == 1
    assert done.stderr.endswith(
        "error: gcloud compute tpus tpu-vm create: found ERROR: PERMISSION_DENIED: no , expected success\n"
    )
    assert stand.verbs() == ["create"]


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(0, 0, False), (1, 0, False), (75, 50, True), (134, 9, True), (134, 10, False), (137, 0, True), (143, 0, True)],
)
def test_slurm(code, restarts, requeued, stand):
    python = stand.checkout / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    python.with_name("activate").touch()
    stand.plan(code)
    slurm = {"SLURM_SUBMIT_DIR": str(stand.checkout), "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "3"}
    slurm |= {"SLURM_NTASKS_PER_NODE": "2", "SLURM_RESTART_COUNT": str(restarts)}
    script = ROOT / "launch/slurm.sbatch"
    assert "expected one task for each of the 4 GPUs" in stand("bash", script, **slurm, SLURM_GPUS_ON_NODE="4").stderr
    done = stand("bash", script, "--config=digits", "a b", **slurm, SLURM_GPUS_ON_NODE="2")
    (call,) = stand.calls("srun")
    assert call[-5:] == ["python", "-m", "dualmcmc_jax.main", "--config=digits", "a b"]
    assert "--cpus-per-task=3" in call
    assert stand.calls("scontrol") == [["requeue", "7"]] * requeued
    assert done.returncode == (0 if requeued else code), done.stderr


def test_scripts_are_sound():
    scripts = sorted([*ROOT.glob("launch/*.sh"), ROOT / "launch/slurm.sbatch"])
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
        assert re.match("#!/usr/bin/env bash\n# [A-Z]|# Sourced", script.read_text())
    shellcheck = Path(sys.executable).parent / "shellcheck"  # from tests/requirements.txt
    command = [
        shellcheck,
        "--external-sources",
        "--shell=bash",
        "--exclude=SC2164",
        *scripts,
    ]  # set -e ends a failed cd
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
