"""Kills a small run again and again, at random moments, and compares it with one that was left alone.

`python tests/stress.py [kills] [seed]` sends SIGKILL, one time in four SIGTERM or SIGINT, and starts the same command
again. At the end of each run it compares metrics (rates aside) and the checksums of the last state. It prints what it
counted, and ends with code 1 at the first difference.
"""

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
NUM_STEPS = 3000
FLAGS = [
    "--config=configs/digits.py",
    f"--config.train.num_steps={NUM_STEPS}",
    "--config.train.batch_size=40",
    "--config.energy.widths=(32,)",
    "--config.generator.widths=(32,)",
    "--config.encoder.widths=(32,)",
    "--config.checkpoint.every=25",
    "--config.evaluation.every=0",
    "--config.log.images_every=1000",
]


def start(workdir):
    command = [sys.executable, "-m", "dualmcmc_jax.main", *FLAGS, f"--workdir={workdir}"]
    return subprocess.Popen(command, cwd=ROOT, stderr=(workdir.parent / "log").open("a"), stdout=subprocess.DEVNULL)


def outcome(workdir):
    """Rows of metrics without their rates, and the checksums of the last state."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("steps_per_second", None)
    record = workdir / "checkpoints" / str(NUM_STEPS) / "record" / "metadata"
    return rows, json.loads(record.read_text())["checksums"]


def newest(workdir):
    """Step of the newest complete checkpoint."""
    return max((int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit()), default=0)


def main():
    num_kills, seed = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((1, 50), (2, 0)))
    chance, counts = random.Random(seed), Counter()
    folder = Path(tempfile.mkdtemp(prefix="dualmcmc_jax-stress-"))
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    began = time.perf_counter()
    assert start(folder / "alone").wait() == 0
    seconds = time.perf_counter() - began
    expected = outcome(folder / "alone")
    while counts["kills"] < num_kills:
        workdir = folder / f"run{counts['runs']}"
        before = 0
        while True:
            process = start(workdir)
            try:
                code = process.wait(chance.uniform(0, seconds / 2))
            except subprocess.TimeoutExpired:
                number = chance.choice([signal.SIGKILL] * 6 + [signal.SIGTERM, signal.SIGINT])
                process.send_signal(number)
                code = process.wait(60)
                counts["kills"] += 1
                counts[number.name] += 1
            counts[f"exit code {code}"] += 1
            step = newest(workdir)
            assert step >= before, f"went back from step {before} to {step}"
            counts["lives that saved"] += step > before
            before = step
            if code == 0:
                break
        assert not list((workdir / "checkpoints").glob("damaged*")), "a checkpoint was damaged"
        if outcome(workdir) != expected:
            sys.exit(f"DIFFERS from the run left alone: {workdir}")
        counts["runs"] += 1
        print(dict(counts), flush=True)
    shutil.rmtree(folder)
    print(f"{counts['kills']} kills over {counts['runs']} runs: all ended as the run left alone")


if __name__ == "__main__":
    main()
