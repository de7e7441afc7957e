"""The launch scripts run with fake programs in place of gcloud, Slurm, Python and uv.

The fake programs record their arguments. The fake gcloud also runs the commands of the two workers of a TPU slice.
"""

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

# The flags that the scripts may use, from https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/create and
# the pages of the other commands. WIDE has the flags of every command.
WIDE = {"quiet", "project", "format"}
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

FAKE_PROGRAM = """#!PYTHON -SE
import json, os, shutil, subprocess, sys, time
from pathlib import Path
folder, program, argv = Path(os.environ["FAKE_FOLDER"]), Path(sys.argv[0]).name, sys.argv[1:]
request, node = folder / "request", folder / "node"
with open(folder / "calls", "a") as calls:
    calls.write(json.dumps([program, *argv]) + "\\n")
def homes():
    return [folder / "w0", folder / "w1"]
def gcloud(group, verb, *rest):
    faults = json.loads((folder / "faults").read_text())
    fault = faults.pop(0) if faults and faults[0][0] == verb else None
    (folder / "faults").write_text(json.dumps(faults))
    if fault and not fault[2]:
        sys.exit(fault[1])
    resource = request if group == "queued-resources" else node
    if verb == "list" and resource.exists():
        print("projects/p/locations/z/x/dualmcmc-2\\tPREEMPTED")
        print(f"projects/p/locations/z/x/dualmcmc\\t{resource.read_text()}")
        if resource.read_text() == "WAITING_FOR_RESOURCES":
            request.write_text("ACTIVE"), node.write_text("READY")
    if verb == "create":
        resource.exists() and sys.exit("ERROR: (gcloud) ALREADY_EXISTS: Resource exists")
        resource.write_text("READY" if resource == node else "WAITING_FOR_RESOURCES")
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
if program == "gcloud":
    gcloud(*argv[2:]) if argv[0] == "compute" else None
elif program == "python3":
    Path("~/.local/bin").expanduser().mkdir(parents=True), Path("~/.local/bin/uv").expanduser().symlink_to(sys.argv[0])
elif program == "uv" and argv[0] == "venv":
    Path(".venv/bin").mkdir(parents=True), Path(".venv/bin/python").symlink_to(sys.argv[0])
elif program == "srun" or program == "python" and "dualmcmc_jax.main" in argv:
    codes = Path(f"{Path.home()}.codes")
    code, *rest = json.loads(codes.read_text())
    codes.write_text(json.dumps(rest))
    print(f"this run ends with {code}")
    while code == "wait" and not (folder / "stop").exists():
        time.sleep(0.02)
    if code == "preempted":
        node.write_text("PREEMPTED")
    sys.exit(code if isinstance(code, int) else 143)
"""


def check_flags(argv):
    """Check that a gcloud command has only documented flags."""
    words = " ".join(argv[: 4 if argv[0] == "compute" else 2])
    assert {word[2:].partition("=")[0] for word in argv if word.startswith("--")} <= DOCUMENTED[words] | WIDE


class FakePrograms:
    """A folder of fake programs, and the record of their calls."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "bin").mkdir()
        for name in ("gcloud", "python", "python3", "scontrol", "srun"):
            (folder / "bin" / name).write_text(FAKE_PROGRAM.replace("PYTHON", sys.executable))
            (folder / "bin" / name).chmod(0o755)
        self.checkout = folder / "checkout"
        shutil.copytree(ROOT / "launch", self.checkout / "launch")
        shutil.copytree(ROOT / "requirements", self.checkout / "requirements")
        for name in ("requirements.txt", "requirements.lock"):
            shutil.copy(ROOT / name, self.checkout)
        commit = "git init -q && git add . && git -c user.name=n -c user.email=e commit -q -m m"
        subprocess.run(["bash", "-c", commit], cwd=self.checkout, check=True)
        self.plan()

    def plan(self, *codes, faults=(), second=None):
        """Plan how the next runs end and which calls of gcloud fail.

        Args:
          codes: what the runs on the first worker do: an exit code, "wait" for the file `stop`, or "preempted".
          faults: (verb, message, whether the call takes effect before it fails), for the next calls that fail.
          second: the codes of the second worker; None: those of the first worker.
        """
        (self.folder / "w0.codes").write_text(json.dumps(codes))
        (self.folder / "w1.codes").write_text(json.dumps(second or codes))
        (self.folder / "faults").write_text(json.dumps(faults))

    def calls(self, program="gcloud"):
        """Return the arguments of each call of a program."""
        path = self.folder / "calls"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [argv for name, *argv in lines if name == program]

    def verbs(self):
        """Return the verbs of the calls of gcloud, such as "create", except list and ssh."""
        return [argv[3] for argv in self.calls() if argv[3] not in ("list", "ssh")]

    def __call__(self, *command, **env):
        """Run a command that finds the fake programs first, and check the flags of all calls of gcloud."""
        env = {"PATH": f"{self.folder}/bin:{os.environ['PATH']}", "FAKE_FOLDER": str(self.folder), **env}
        env |= {"HOME": str(self.folder / "w0"), "TPU_POLL": "0.05", "TPU_WAITS": "0 0"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
        for argv in self.calls():
            check_flags(argv)
        return done

    def tpu(self, *arguments, flags=("--config=digits",), zone="--zone=z"):
        """Run tpu_vm.sh."""
        return self(self.checkout / "launch/tpu_vm.sh", *arguments, zone, "--", *flags)


@pytest.fixture
def fake(tmp_path):
    return FakePrograms(tmp_path)


SPOT = {"flags": ["--config=digits", "--workdir=gs://b/digits"]}


@pytest.mark.parametrize("command", ["train", "create", "install", "run", "status", "logs", "fetch", "delete"])
def test_dry_run_prints_documented_commands_and_calls_nothing(command, fake):
    done = fake.tpu(command, "--dry_run", "--project=p", "--spot", **SPOT)
    assert done.returncode == 0, done.stderr
    assert fake.calls() == []
    for line in done.stdout.splitlines():
        printed = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True).stdout
        argv = printed.split("\0")[1:-1]
        check_flags(argv)
        assert "--project=p" in argv


def test_each_command_can_be_repeated(fake):
    fake.plan("wait", faults=[["list", "ERROR: a cold", False], ["create", "ERROR: timed out", True]])
    widths = "--config.energy.widths=(64, 64)"
    flags = ["--config=digits", widths, "--workdir=it's $HOME"]
    outputs = []
    for command in ("create", "install", "run"):
        for _ in range(2):
            done = fake.tpu(command, flags=flags)
            assert done.returncode == 0, done.stderr
            outputs.append(done.stdout)
    assert fake.verbs() == ["create", "create", "scp", "scp"]
    assert [text.count("started") for text in outputs] == [0, 0, 0, 0, 2, 0]
    assert outputs[-1].count("already running") == 2
    assert fake.tpu("status").stdout.count("running") == 2
    assert fake.calls("python") == [["-m", "dualmcmc_jax.main", *flags]] * 2
    assert fake.tpu("install").stdout.count("installation skipped") == 2
    (fake.folder / "stop").touch()
    for path in ("metrics.jsonl", "checkpoints/1"):
        (fake.folder / "w0/dualmcmc_jax/it's $HOME" / path).parent.mkdir(parents=True, exist_ok=True)
        (fake.folder / "w0/dualmcmc_jax/it's $HOME" / path).touch()
    for _ in range(2):
        assert fake.tpu("fetch", flags=flags).returncode == 0
    assert [path.name for path in (fake.checkout / "runs/it's $HOME").iterdir()] == ["metrics.jsonl"]
    for _ in range(2):
        assert fake.tpu("delete").returncode == 0
    assert fake.verbs().count("delete") == 1
    assert "there is no such slice" in fake.tpu("status").stdout


@pytest.mark.parametrize("queued", [(), ("--queued",)])
def test_train_restarts_after_a_stop_a_preemption_and_a_crash(queued, fake):
    fake.plan(75, "preempted", 134, 0, second=[75, "preempted", 137, 0])
    done = fake.tpu("train", "--spot", *queued, **SPOT)
    assert done.returncode == 0, done.stderr
    assert fake.verbs() == ["create", "scp", "scp", "delete", "create", "scp", "scp"]
    assert len(fake.calls("python")) == 8
    assert "done: gs://b/digits" in done.stderr


def test_train_waits_for_capacity(fake):
    fake.plan(0, faults=[["create", "ERROR: There is no more capacity in the zone", False]] * 4)
    assert fake.tpu("train", "--spot", **SPOT).returncode == 0
    assert fake.verbs().count("create") == 5


def test_train_stops_if_the_program_fails(fake):
    fake.plan(134, second=[1])
    done = fake.tpu("train", "--spot", **SPOT)
    assert done.returncode == 1
    assert "this run ends with 1\n" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: training: found exit codes 1 134 , expected 0"
    assert len(fake.calls("python")) == 2


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
def test_invalid_arguments_are_refused_before_any_call(arguments, error, fake):
    done = fake.tpu(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {error}")
    assert done.stderr.count("\n") == 1
    assert fake.calls() == []


def test_permanent_errors_are_not_retried(fake):
    fake.plan(faults=[["create", "ERROR: PERMISSION_DENIED: no", False]])
    done = fake.tpu("create")
    assert done.returncode == 1
    assert done.stderr.endswith(
        "error: gcloud compute tpus tpu-vm create: found ERROR: PERMISSION_DENIED: no , expected success\n"
    )
    assert fake.verbs() == ["create"]


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [
        (0, 0, False),
        (1, 0, False),
        (75, 50, True),
        (134, 9, True),
        (134, 10, False),
        (137, 0, True),
        (138, 0, True),
        (143, 0, True),
    ],
)
def test_slurm_job_is_requeued_after_a_stop_or_a_crash(code, restarts, requeued, fake):
    python = fake.checkout / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    python.with_name("activate").touch()
    fake.plan(code)
    slurm = {"SLURM_SUBMIT_DIR": str(fake.checkout), "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "3"}
    slurm |= {"SLURM_NTASKS_PER_NODE": "2", "SLURM_RESTART_COUNT": str(restarts)}
    script = ROOT / "launch/slurm.sbatch"
    assert "expected one task for each of the 4 GPUs" in fake("bash", script, **slurm, SLURM_GPUS_ON_NODE="4").stderr
    done = fake("bash", script, "--config=digits", "a b", **slurm, SLURM_GPUS_ON_NODE="2")
    (call,) = fake.calls("srun")
    assert call[-5:] == ["python", "-m", "dualmcmc_jax.main", "--config=digits", "a b"]
    assert "--cpus-per-task=3" in call
    assert fake.calls("scontrol") == [["requeue", "7"]] * requeued
    assert done.returncode == (0 if requeued else code), done.stderr


def test_scripts_pass_shellcheck_and_begin_with_a_comment():
    scripts = sorted([*ROOT.glob("launch/*.sh"), ROOT / "launch/slurm.sbatch"])
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
        assert re.match("#!/usr/bin/env bash\n# [A-Z]|# Sourced", script.read_text())
    shellcheck = Path(sys.executable).parent / "shellcheck"  # from tests/requirements.txt
    exclude = "--exclude=SC2164"  # a check of failing cd, which `set -e` makes unnecessary
    command = [shellcheck, "--external-sources", "--shell=bash", exclude, *scripts]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
