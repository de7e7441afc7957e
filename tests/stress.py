"""Kills a run again and again, at random moments, fills its disk, and compares it with one that was left alone.

  python tests/stress.py [--minutes=30] [--num_steps=1500] [--seed=0]

Of ten events six are SIGKILL, two SIGTERM or SIGINT, and two fill the file system (on Linux with user namespaces, where
the runs live on a small one of their own) until the run stops; then the same command is started again. At the end of
each run metrics (rates aside), the checksums of the last state and the names of the workdir's files must be those of
the run left alone, whose memory and open files must not grow in its second half. It prints what it counted; exit code 1
at the first difference.
"""

import argparse
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
    "SIGTERM": {75, 0, -15},  # the last: before training has begun
    "SIGINT": {75, 0, 130, -2},
    "full disk": {1, 0},
    "left alone": {0},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--num_steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="dualmcmc_jax-stress-"))
    small = on_a_small_disk(folder)
    events = [event for event in EVENTS if small or event != "full disk"]
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    chance, counts, began = random.Random(given.seed), Counter(), time.perf_counter()

    alone = folder / "alone"
    code, sizes = live(start(alone, given.num_steps), 600)
    assert code == 0, log(alone)
    seconds, expected = time.perf_counter() - began, outcome(alone, given.num_steps)
    (memory, files), (last_memory, last_files) = sizes[len(sizes) // 2], sizes[-1]
    print(
        f"left alone: {seconds:.0f} s; half-way {memory} MB, {files} files; at the end {last_memory} MB, {last_files}"
    )
    assert last_memory < 1.1 * memory and last_files < files + 3  # noqa: PT018
    while time.perf_counter() - began < 60 * given.minutes:
        workdir = folder / f"run{counts['runs']}"
        one_run(workdir, given.num_steps, chance, events, seconds, counts)
        if (found := outcome(workdir, given.num_steps)) != expected:
            differing = [name for name in expected if found[name] != expected[name]]
            print(found["files"], expected["files"])
            sys.exit(f"DIFFERS from the run left alone in {', '.join(differing)}: {workdir}")
        counts["runs"] += 1
        print(dict(counts), flush=True)
        shutil.rmtree(workdir)
    if given.num_steps == 1500:
        command = [*command_of(alone, given.num_steps), "--mode=evaluate"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        print(*(line for line in done.stdout.splitlines() if "frechet" in line or "svc" in line), sep="\n")
    subprocess.run(["umount", folder], check=small)
    shutil.rmtree(folder)
    events = sum(counts[name] for name in set(EVENTS))
    print(f"{events} events over {counts['runs']} runs: all ended as the run left alone")


def on_a_small_disk(folder):
    """Whether this process, started anew in a namespace of its own, has a file system of 100 MB at the folder."""
    if os.environ.get("STRESS_NAMESPACE"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100M", "none", folder], check=True)
        return True
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") and subprocess.run([*unshare, "true"], capture_output=True).returncode == 0:
        folder.rmdir()
        os.environ["STRESS_NAMESPACE"] = "1"
        os.execvp("unshare", [*unshare, sys.executable, *sys.argv])
    print("no user namespaces here: no disk is filled")
    return False


def command_of(workdir, num_steps):
    return [
        *(sys.executable, "-m", "dualmcmc_jax.main", "--config=configs/digits.py", f"--workdir={workdir}"),
        *(f"--config.train.num_steps={num_steps}", "--config.checkpoint.every=25", "--config.evaluation.every=0"),
    ]


def start(workdir, num_steps):
    """Under way, its standard error in a file beside the workdir."""
    file = workdir.with_suffix(".log").open("a")
    return subprocess.Popen(command_of(workdir, num_steps), cwd=ROOT, stderr=file, stdout=subprocess.DEVNULL)


def live(process, seconds):
    """Waits for the end, at most some seconds: (exit code or None, [(MB of memory, open files) after every second])."""
    sizes, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        try:
            return process.wait(max(0, min(1, until - time.perf_counter()))), sizes
        except subprocess.TimeoutExpired:
            status = Path(f"/proc/{process.pid}/status").read_text()
            memory = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
            if memory:  # it has not just ended
                sizes.append((memory[0] // 1000, len(os.listdir(f"/proc/{process.pid}/fd"))))
    return None, sizes


def one_run(workdir, num_steps, chance, events, seconds, counts):
    before, code = 0, None
    while code != 0:
        process = start(workdir, num_steps)
        code, _ = live(process, chance.uniform(0, seconds / 2))
        event = "left alone"
        if code is None:
            event = chance.choice(events)
            code = disturb(process, event, workdir)
            counts[event] += 1
        assert code in EXPECTED[event], f"exit code {code} after {event}: {log(workdir)}"
        counts[f"exit code {code}"] += 1
        step = max((int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit()), default=0)
        assert step >= before, f"went back from step {before} to {step}"
        counts["lives that saved"] += step > before
        before = step


def disturb(process, event, workdir):
    """The exit code after an event."""
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
    """Rows of metrics without their rates, the checksums of the last state, and the names of other files.

    An old checkpoint more is no fault: it is deleted with the next save, and after the last there is none. Neither is a
    picture less, for which the disk had no space.
    """
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("steps_per_second", None)
    record = workdir / "checkpoints" / str(num_steps) / "record" / "metadata"
    names = {path.name for path in [*workdir.iterdir(), *workdir.glob("checkpoints/*")] if not path.name.isdigit()}
    names.discard("samples")
    return {"metrics": rows, "checksums": json.loads(record.read_text())["checksums"], "files": sorted(names)}


def log(workdir):
    return workdir.with_suffix(".log").read_text()[-2000:]


if __name__ == "__main__":
    main()
