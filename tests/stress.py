"""Interrupt training runs at random times, resume them, and compare them with an uninterrupted run.

  python tests/stress.py [--minutes=30] [--num_steps=1500] [--seed=0]

On average, of ten interruptions six are SIGKILL, two are SIGTERM or SIGINT, and two fill the disk until the run stops.
After each interruption, the same command is started again. The disk is filled only on Linux with user namespaces, where
the runs use a small temporary file system.

At the end of each run, its metrics and light evaluations (except times), its pictures, the checksums of its last state
and the names of its files must equal those of the uninterrupted run. The memory and the open files of the uninterrupted
run must not grow in its second half. The program prints the numbers of interruptions, and exits with code 1 at the
first difference.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
EVENTS = ["SIGKILL"] * 6 + ["SIGTERM", "SIGINT", "full disk", "full disk"]
EXPECTED = {
    "SIGKILL": {-9, 0},
    "SIGTERM": {75, 0, -15},  # -15 if training has not begun
    "SIGINT": {75, 0, 130, -2},
    "full disk": {1, 0},
    "no interruption": {0},
}


def main():
    """Make one uninterrupted run, and then interrupted runs until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--num_steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="dualmcmc_jax-stress-"))
    has_small_disk = mount_small_disk(folder)
    events = [event for event in EVENTS if has_small_disk or event != "full disk"]
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    random_numbers, counts, began = random.Random(arguments.seed), Counter(), time.perf_counter()

    reference = folder / "uninterrupted"
    code, sizes = wait(start(reference, arguments.num_steps), 600)
    assert code == 0, log(reference)
    seconds, expected = time.perf_counter() - began, outcome(reference, arguments.num_steps)
    (memory, files), (last_memory, last_files) = sizes[len(sizes) // 2], sizes[-1]
    print(
        f"uninterrupted run: {seconds:.0f} s; {memory} MB and {files} open files half-way, "
        f"{last_memory} MB and {last_files} open files at the end"
    )
    assert last_memory < 1.1 * memory and last_files < files + 3  # noqa: PT018
    while time.perf_counter() - began < 60 * arguments.minutes:
        workdir = folder / f"run{counts['runs']}"
        interrupted_run(workdir, arguments.num_steps, random_numbers, events, seconds, counts)
        if (actual := outcome(workdir, arguments.num_steps)) != expected:
            differing = [name for name in expected if actual[name] != expected[name]]
            print(actual["files"], expected["files"])
            sys.exit(f"{workdir} DIFFERS from the uninterrupted run in {', '.join(differing)}")
        counts["runs"] += 1
        print(dict(counts), flush=True)
        shutil.rmtree(workdir)
    if arguments.num_steps == 1500:
        command = [*command_of(reference, arguments.num_steps), "--mode=evaluate"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        print(*(line for line in done.stdout.splitlines() if "frechet" in line or "svc" in line), sep="\n")
    subprocess.run(["umount", folder], check=has_small_disk)
    shutil.rmtree(folder)
    total = sum(counts[name] for name in set(EVENTS))
    print(f"{total} interruptions in {counts['runs']} runs: every run equals the uninterrupted run")


def mount_small_disk(folder):
    """Mount a file system of 100 MB at the folder, and return whether this is possible.

    The process first restarts itself in a new namespace, in which it may mount file systems.
    """
    if os.environ.get("STRESS_NAMESPACE"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100M", "none", folder], check=True)
        return True
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") and subprocess.run([*unshare, "true"], capture_output=True).returncode == 0:
        folder.rmdir()
        os.environ["STRESS_NAMESPACE"] = "1"
        os.execvp("unshare", [*unshare, sys.executable, *sys.argv])
    print("this machine has no user namespaces, so the disk is not filled")
    return False


def command_of(workdir, num_steps):
    return [
        *(sys.executable, "-m", "dualmcmc_jax.main", "--config=configs/digits.py", f"--workdir={workdir}"),
        *(f"--config.train.num_steps={num_steps}", "--config.checkpoint.every=25", "--config.log.images_every=100"),
        *("--config.evaluation.every=100", "--config.evaluation.light_samples=200"),
    ]


def start(workdir, num_steps):
    """Start a run, with its standard error in a file beside the workdir."""
    file = workdir.with_suffix(".log").open("a")
    return subprocess.Popen(command_of(workdir, num_steps), cwd=ROOT, stderr=file, stdout=subprocess.DEVNULL)


def wait(process, seconds):
    """Wait until a process ends, for at most some seconds.

    Returns:
      The exit code, or None if the process is still running, and a list of (MB of memory, number of open files), which
      are measured every second.
    """
    sizes, deadline = [], time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        try:
            return process.wait(max(0, min(1, deadline - time.perf_counter()))), sizes
        except subprocess.TimeoutExpired:
            status = Path(f"/proc/{process.pid}/status").read_text()
            memory = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
            if memory:  # the process is still running
                sizes.append((memory[0] // 1000, len(os.listdir(f"/proc/{process.pid}/fd"))))
    return None, sizes


def interrupted_run(workdir, num_steps, random_numbers, events, seconds, counts):
    """Run to the end with interruptions at random moments, and count them."""
    last_step, code = 0, None
    while code != 0:
        process = start(workdir, num_steps)
        code, _ = wait(process, random_numbers.uniform(0, seconds / 2))
        event = "no interruption"
        if code is None:
            event = random_numbers.choice(events)
            code = interrupt(process, event, workdir)
            counts[event] += 1
        assert code in EXPECTED[event], f"exit code {code} after {event}: {log(workdir)}"
        counts[f"exit code {code}"] += 1
        step = max((int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit()), default=0)
        assert step >= last_step, f"the newest checkpoint went back from step {last_step} to {step}"
        counts["starts with a new checkpoint"] += step > last_step
        last_step = step


def interrupt(process, event, workdir):
    """Interrupt a process, and return its exit code."""
    if event != "full disk":
        process.send_signal(getattr(signal, event))
        return process.wait(30)
    filler = workdir.with_suffix(".filler")
    try:
        with filler.open("wb", buffering=0) as file:
            while file.write(bytes(2**20)):
                pass
    except OSError:
        pass
    try:
        return process.wait(60)
    finally:
        filler.unlink()


def outcome(workdir, num_steps):
    """Return the rows of metrics without times, hashes of pictures, checksums of the last state, and names of files.

    The names of checkpoints are left out, because an additional old checkpoint is correct: old checkpoints are deleted
    only at the next save.
    """
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    rows = [{name: value for name, value in row.items() if "second" not in name} for row in rows]
    pictures = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (workdir / "samples").iterdir()}
    record = workdir / "checkpoints" / str(num_steps) / "record" / "metadata"
    names = {path.name for path in [*workdir.iterdir(), *workdir.glob("checkpoints/*")] if not path.name.isdigit()}
    checksums = json.loads(record.read_text())["checksums"]
    return {"metrics": rows, "pictures": pictures, "checksums": checksums, "files": sorted(names)}


def log(workdir):
    return workdir.with_suffix(".log").read_text()[-2000:]


if __name__ == "__main__":
    main()
