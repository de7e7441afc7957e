"""Compile and time the update of one config in phases that begin on command, so that processes can share one GPU.

  python -m dualmcmc_jax.benchmark.on_cue --config=cifar10 --config.train.compute_dtype=bfloat16 --json=FILE

flags:
  --config=NAME or FILE, --config.SECTION.FIELD=VALUE   the config to time, given as for training
  --json=FILE      write each number to this file as soon as it is known, and the compiled program to a file beside it
  --repeats=N      maximum number of timed updates (default: 20)
  --seconds=S      time limit; no further update is timed after S seconds (default: 8)
  --peaks          also measure the peak rates of this GPU, with large matrix products and large copies
  --profile=DIR    also write a profile of one update to this folder

The process prints "ready" once it has traced the update, "prepared" once it has compiled the update, and "timed" once
the timings are done. It waits for a line on standard input before compiling and before timing.
"""

from dualmcmc_jax.cli import interrupts

if __name__ == "__main__":
    interrupts.end_quietly()

import contextlib
import gzip
import sys
import time
from pathlib import Path

from absl import flags, logging

from dualmcmc_jax import config_check
from dualmcmc_jax.benchmark import numbers_file
from dualmcmc_jax.cli import command_line

_JSON = flags.DEFINE_string("json", None, "File for the numbers.")
_REPEATS = flags.DEFINE_integer("repeats", 20, "Maximum number of timed updates.", lower_bound=3)
_SECONDS = flags.DEFINE_float("seconds", 8.0, "Seconds after which no further update is timed.")
_PEAKS = flags.DEFINE_bool("peaks", False, "Whether to measure the peak rates of the GPU.")
_PROFILE = flags.DEFINE_string("profile", None, "Folder for a profile of one update.")


def say(word: str, *, wait: bool) -> None:
    """Print a word for the parent process. If `wait` is True, wait for an answer, and exit if the parent has ended."""
    print(word, flush=True)
    if wait and not sys.stdin.readline():
        sys.exit(1)


def main(_argv) -> None:
    """Trace, compile and time the update, and write the numbers after each phase."""
    logging.set_verbosity(logging.ERROR)
    command_line.refuse_others("json", "repeats", "seconds", "peaks", "profile")
    config = command_line.CONFIG.value
    config_check.check(config)
    numbers_file.check(_JSON.value)
    import jax

    from dualmcmc_jax.cli import startup

    startup.start(config)
    startup.check_devices()
    # Also cache programs that compile fast, such as those of timing.peaks.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
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
    numbers_file.save(_JSON.value, numbers)
    say("ready", wait=True)

    start = time.perf_counter()
    compiled = lowered.compile()
    numbers["compile_seconds"] = time.perf_counter() - start
    if _PEAKS.value:
        timing.peaks(config)  # only to compile the programs; they are measured later, when the GPU is idle
    numbers["program_bytes"] = program_bytes(compiled)
    numbers_file.save(_JSON.value, numbers)
    say("prepared", wait=True)

    state, numbers["updates"] = time_updates(compiled, state, batch)
    numbers |= summary(numbers["updates"], config.train.batch_size)
    numbers["allocator"] = device.memory_stats() or {}  # since the start, so that the peak includes compilation
    numbers_file.save(_JSON.value, numbers)
    if _PEAKS.value:
        numbers |= timing.peaks(config)
    if _PROFILE.value:
        with contextlib.suppress(Exception), jax.profiler.trace(_PROFILE.value):  # some drivers do not allow profiling
            jax.block_until_ready(compiled(state, batch(0)))
    numbers_file.save(_JSON.value, numbers)
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
    numbers_file.save(_JSON.value, numbers)


def program_bytes(compiled) -> int:
    """Return the bytes of device memory that a compiled program needs for arguments, results and temporaries."""
    memory = compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return used - memory.alias_size_in_bytes


def time_updates(compiled, state, batch) -> tuple:
    """Time updates, waiting for each one to finish.

    Args:
      compiled: the compiled update.
      state: the initial train state.
      batch: function from the step to the batch.

    Returns:
      The last state, and the seconds of each update except the first two.
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
    """Return the median and the quartiles of the seconds per update, and the images per second."""
    import numpy as np

    lower, median, upper = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
    return {
        "step_seconds": median,
        "step_seconds_quartiles": [lower, upper],
        "images_per_second": batch_size / median,
    }


if __name__ == "__main__":
    command_line.run(main, help=__doc__)
