"""Compiles and times the update of one config, each when told to, so that many processes can share one GPU.

  python -m dualmcmc_jax.benchmark.on_cue --config=cifar10 --config.train.compute_dtype=bfloat16 --json=FILE

flags:
  --config=NAME or FILE, --config.SECTION.FIELD=VALUE   as for training
  --json=FILE      where the numbers go, as soon as each is known; the compiled program goes to a file beside it
  --repeats=N      updates timed at most; default: 20
  --seconds=S      after which no further update is timed; default: 8
  --peaks          also measures this GPU's best matrix product and copy
  --profile=DIR    also writes a profile of one update there

The process prints "ready" once it has traced the update, "prepared" once it has compiled it, and "timed" at the end.
Before compiling and before timing it waits for a line on its standard input.
"""

import contextlib
import gzip
import json
import sys
import time
from pathlib import Path

from absl import flags, logging

from dualmcmc_jax import config_check
from dualmcmc_jax.cli import command_line

_JSON = flags.DEFINE_string("json", None, "Where the numbers go.")
_REPEATS = flags.DEFINE_integer("repeats", 20, "Updates timed at most.", lower_bound=3)
_SECONDS = flags.DEFINE_float("seconds", 8.0, "After which no further update is timed.")
_PEAKS = flags.DEFINE_bool("peaks", False, "Whether to measure the best matrix product and copy.")
_PROFILE = flags.DEFINE_string("profile", None, "Where a profile goes.")


def say(word: str, *, wait: bool) -> None:
    """Print a word for the parent process and, if wait, stop until it answers; leave if it has gone away."""
    print(word, flush=True)
    if wait and not sys.stdin.readline():
        sys.exit(1)


def save(path: str | None, numbers: dict) -> None:
    """Write the numbers as JSON, in place of those before."""
    if path:
        whole = Path(f"{path}.part")
        whole.write_text(json.dumps(numbers, indent=2) + "\n")
        whole.replace(path)


def main(_argv) -> None:
    """Trace, compile and time, and write the numbers after each."""
    logging.set_verbosity(logging.ERROR)
    command_line.refuse_others("json", "repeats", "seconds", "peaks", "profile")
    config = command_line.CONFIG.value
    config_check.check(config)
    import jax

    from dualmcmc_jax.cli import startup

    startup.start(config)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # the peaks' programs are small
    from dualmcmc_jax.benchmark import program, textbook, timing
    from dualmcmc_jax.training import loop

    device = jax.local_devices()[0]
    numbers = {
        "device": device.device_kind,
        "jax": jax.__version__,
        "compute_dtype": config.train.compute_dtype,
        "batch_size": config.train.batch_size,
        "fresh_negatives": config.loss.fresh_negatives,
    }
    start = time.perf_counter()
    work = timing.workload(config)
    numbers["textbook_multiply_adds"] = textbook.step(config, work.nets) * config.train.batch_size
    batch, state = loop.share_of_batch(config, work.train), work.state
    created = time.perf_counter()
    lowered = timing.train_step(work).lower(state, batch(0))
    numbers |= {"create_seconds": created - start, "trace_seconds": time.perf_counter() - created}
    save(_JSON.value, numbers)
    say("ready", wait=True)

    start = time.perf_counter()
    compiled = lowered.compile()
    numbers["compile_seconds"] = time.perf_counter() - start
    if _PEAKS.value:
        timing.peaks(config)  # compiled now, measured again when nothing else runs
    numbers["program_bytes"] = program_bytes(compiled)
    save(_JSON.value, numbers)
    say("prepared", wait=True)

    state, numbers["updates"] = time_updates(compiled, state, batch)
    numbers |= summary(numbers["updates"], config.train.batch_size)
    numbers["allocator"] = device.memory_stats() or {}  # since the start, so compiling is part of its peak
    save(_JSON.value, numbers)
    if _PEAKS.value:
        numbers |= timing.peaks(config)
    if _PROFILE.value:
        with contextlib.suppress(Exception), jax.profiler.trace(_PROFILE.value):  # not all drivers allow it
            jax.block_until_ready(compiled(state, batch(0)))
    save(_JSON.value, numbers)
    say("timed", wait=False)

    text = compiled.as_text()
    if _JSON.value:
        Path(_JSON.value).with_suffix(".program.txt.gz").write_bytes(gzip.compress(text.encode()))
    cost = program.cost(text)
    numbers |= {
        "multiply_adds": cost.multiply_adds,
        "unknown_loops": cost.unknown_loops,
        "bytes_moved": cost.num_bytes,
        "flops": 2 * cost.multiply_adds / numbers["step_seconds"],
    }
    save(_JSON.value, numbers)


def program_bytes(compiled) -> int:
    """Return the memory that a compiled program takes on its device: arguments, results and scratch space."""
    memory = compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return used - memory.alias_size_in_bytes


def time_updates(compiled, state, batch) -> tuple:
    """Run updates, each to its end.

    Returns:
      The last state, and the seconds of each update but the first two.
    """
    import jax

    seconds, first = [], None
    for step in range(_REPEATS.value + 2):
        start = time.perf_counter()
        state, scalars = compiled(state, batch(step))
        jax.block_until_ready((state, scalars))
        seconds.append(time.perf_counter() - start)
        first = first or start
        if len(seconds) >= 5 and time.perf_counter() - first > _SECONDS.value:
            break
    return state, seconds[2:]


def summary(seconds: list[float], batch_size: int) -> dict:
    """Return the median, its quartiles, and the images a second."""
    import numpy as np

    lower, median, upper = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
    return {
        "step_seconds": median,
        "step_seconds_quartiles": [lower, upper],
        "images_per_second": batch_size / median,
    }


if __name__ == "__main__":
    command_line.run(main, help=__doc__)
