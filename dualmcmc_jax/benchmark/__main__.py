"""Time the update of a config, its parts and sampling, and count what the compiled program computes.

  python -m dualmcmc_jax.benchmark --config=cifar10 --config.train.batch_size=16
  python -m dualmcmc_jax.benchmark --config=digits --versus=digits --versus.x_chain.num_steps=60
  python -m dualmcmc_jax.benchmark --config=cifar10 --target=tpu:v5e:2x2

flags:
  --config=NAME or FILE, --config.SECTION.FIELD=VALUE   the config to time, given as for training
  --versus=NAME or FILE, --versus.SECTION.FIELD=VALUE   a second config; timing alternates between the two
  --repeats=N   number of timed updates (default: 20)
  --target=tpu:TOPOLOGY   compile the update for TPUs that need not be there, and show the compiler's estimates instead
                of times: memory, collectives, cycles, the most expensive code; may be given several times
  --batch_per_chip=N      with --target: N examples per chip, instead of train.batch_size
  --json=FILE   also write all numbers to this file
  --debug       show the traceback of an error

The benchmark uses random input data of the configured shape. It counts the multiply-adds of all convolutions and matrix
products in the compiled program; the body of a loop counts as many times as the loop runs. Each count is shown next to
the count of a straightforward ("textbook") implementation of the same update. The peak rates are those of the
fastest of several large matrix products and of the fastest of several large copies on one device.

With --target, nothing runs and nothing is timed. The compiler comes with libtpu: pip install "jax[tpu]". Full-size
configs take from a quarter of an hour to an hour. The numbers are kept in the cache folder.
"""

from dualmcmc_jax.cli import interrupts

if __name__ == "__main__":
    interrupts.end_quietly()

import platform

from absl import flags, logging
from ml_collections import config_flags

from dualmcmc_jax import config_check
from dualmcmc_jax.benchmark import numbers_file
from dualmcmc_jax.cli import command_line, terminal

_VERSUS = config_flags.DEFINE_config_file("versus", None, "A second config.", lock_config=True)
_REPEATS = flags.DEFINE_integer("repeats", 20, "Number of timed updates.", lower_bound=3)
_TARGET = flags.DEFINE_multi_string("target", [], "TPUs to compile for, such as tpu:v5e:2x2.")
_BATCH_PER_CHIP = flags.DEFINE_integer("batch_per_chip", None, "Examples per chip.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "File to which all numbers are written.")


def main(_argv) -> None:
    """Time the configs, write the JSON file and print the table."""
    logging.set_verbosity(logging.ERROR)
    command_line.refuse_others("versus", "repeats", "target", "batch_per_chip", "json")
    configs = [command_line.CONFIG.value] + ([_VERSUS.value] if _VERSUS.value else [])
    for config in configs:
        config_check.check(config)
    numbers_file.check(_JSON.value)
    if _TARGET.value:
        if _VERSUS.value:
            raise ValueError("--versus: found it with --target, expected one config, because nothing is timed")
        estimate(configs[0], _TARGET.value)
        return
    if _BATCH_PER_CHIP.present:
        raise ValueError(f"--batch_per_chip: found {_BATCH_PER_CHIP.value} without --target, expected both")
    global_dtypes = ("float64", "tensorfloat32")  # these dtypes set JAX options that apply to the whole process
    settings = {(config.train.compute_dtype, config.train.deterministic) for config in configs}
    settings = {(dtype if dtype in global_dtypes else "", deterministic) for dtype, deterministic in settings}
    if len(settings) > 1:
        found = "float64, tensorfloat32 or deterministic in only one of the two configs"
        raise ValueError(f"--versus.train: found {found}, expected the same setting in both")
    from dualmcmc_jax.cli import startup

    startup.start(configs[0])
    startup.check_devices()
    numbers = measure(*configs)
    numbers_file.save(_JSON.value, numbers)
    terminal.show(text(numbers))
    if _JSON.value:
        terminal.show(f"\nwrote {_JSON.value}")


def estimate(config, targets: list[str]) -> None:
    """Compile the update for each target, write the JSON file and print a table per target.

    Args:
      config: the config to compile.
      targets: names of targets, such as "tpu:v5e:2x2".
    """
    from dualmcmc_jax.benchmark import target

    target.check(targets)
    numbers = {}
    for name in targets:
        own = config.copy_and_resolve_references()
        if _BATCH_PER_CHIP.value:
            own.train.batch_size = _BATCH_PER_CHIP.value * target.num_chips(name)
        numbers[name] = target.measure(own, name)
        terminal.show(f"{target.text(numbers[name])}\n")
        numbers_file.save(_JSON.value, numbers)
    if _JSON.value:
        terminal.show(f"wrote {_JSON.value}")


def measure(config, versus=None) -> dict:
    """Return all numbers of a config by name.

    Args:
      config: the config to measure.
      versus: an optional second config. Only its update is timed, in alternation with the update of the first config.

    Returns:
      Times in seconds, counts for the compiled program and for a textbook implementation, memory in bytes, and rates.
      With `versus`, also the median time of the second config's update and its ratio to the first config's update.
    """
    import jax
    import numpy as np

    from dualmcmc_jax.benchmark import program, textbook, timing
    from dualmcmc_jax.training import loop

    work = timing.workload(config)
    batch = loop.share_of_batch(config, work.train)(0)
    compiled, numbers = timing.compile_seconds(lambda: timing.train_step(work), work.state, batch)
    cost, memory = program.cost(compiled.as_text()), compiled.memory_analysis()
    updates = [timing.runs(work)] + ([timing.runs(timing.workload(versus))] if versus else [])
    for update in updates:
        next(update)  # the first call compiles
    times = np.array([[next(update) for update in updates] for _ in range(_REPEATS.value)])  # [repeats, updates, 2]
    seconds, waits = times[:, 0].T
    peaks, second = timing.peaks(config), float(np.median(seconds))
    numbers |= {
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "machine": platform.platform(),
        "jax": jax.__version__,
        "compute_dtype": config.train.compute_dtype,
        "batch_size": config.train.batch_size,
        "step_seconds": second,
        "step_seconds_quartiles": np.quantile(seconds, [0.25, 0.75]).tolist(),
        "images_per_second": config.train.batch_size / float(np.median(seconds + waits)),
        "multiply_adds": cost.multiply_adds * jax.device_count(),
        "unknown_loops": cost.unknown_loops,
        "textbook_multiply_adds": textbook.step(config, work.nets) * config.train.batch_size,
        "device_bytes_moved": cost.num_bytes,
        "collectives": sum(cost.collectives.values()) if jax.device_count() > 1 else 0,
        "peak_memory_bytes": memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes,
        **peaks,
        "device_flops": 2 * cost.multiply_adds / second,
        "peak_fraction": 2 * cost.multiply_adds / second / peaks["peak_flops"],
        "bandwidth_fraction": cost.num_bytes / second / peaks["peak_bandwidth"],
    }
    breakdown, num_runs = {}, {"x_chain": 1 + config.loss.fresh_negatives, "z_chain": 1, "optimizer": 1}
    for name, (function, arguments) in timing.parts(work).items():
        part = program.cost(function.lower(*arguments).compile().as_text())
        numbers[f"{name}_multiply_adds"] = part.multiply_adds * jax.device_count() * num_runs[name]
        one_run = float(np.median(timing.seconds_of(lambda f=function, a=arguments: f(*a), 5)))
        breakdown[name] = num_runs[name] * one_run
    numbers["textbook_x_chain_multiply_adds"] = (
        num_runs["x_chain"] * textbook.x_chain(config, work.nets) * config.train.batch_size
    )
    numbers["textbook_z_chain_multiply_adds"] = textbook.z_chain(config, work.nets) * config.train.batch_size
    # An estimate: the update minus its other parts, which are timed as separate programs.
    breakdown["losses_and_gradients"] = second - sum(breakdown.values())
    breakdown |= {"data_wait": float(np.median(waits)), "logging": timing.logging_seconds(work)}
    numbers["seconds"] = breakdown
    numbers |= timing.sampling(work)
    if versus:
        ratios = times[:, 1, 0] / times[:, 0, 0]
        numbers["versus_step_seconds"] = float(np.median(times[:, 1, 0]))
        numbers["ratio"] = float(np.median(ratios))
        numbers["ratio_quartiles"] = np.quantile(ratios, [0.25, 0.75]).tolist()
    return numbers


def text(numbers: dict) -> str:
    """Return the numbers of `measure` as a table for the terminal."""
    giga = lambda name: f"{numbers[name] / 1e9:,.2f}"
    quartiles = lambda name: "quartiles {:.4g} to {:.4g}".format(*numbers[f"{name}_quartiles"])
    ratio = lambda name: f"{numbers[name] / numbers[f'textbook_{name}']:.2f}"
    count = lambda name: f"{giga(name)} G, {ratio(name)} of the textbook count, {giga(f'textbook_{name}')} G"
    traced, cold, cached = (numbers[f"{name}_seconds"] for name in ("trace", "compile", "cached_compile"))
    rates = (f"{name} {numbers[f'{name}_images_per_second']:,.0f} images/s" for name in ("generator", "revised"))
    rows = {
        "device": f"{numbers['num_devices']} x {numbers['device']}, jax {numbers['jax']}, {numbers['compute_dtype']}",
        "update": f"{numbers['step_seconds']:.4g} s ({quartiles('step_seconds')})",
        "images per second": f"{numbers['images_per_second']:.4g} with a batch size of {numbers['batch_size']}",
        "multiply-adds": count("multiply_adds"),
        "  x-chain": count("x_chain_multiply_adds"),
        "  z-chain": count("z_chain_multiply_adds"),
        "arithmetic": f"{giga('device_flops')} GFLOP/s per device, {numbers['peak_fraction']:.0%} of the peak",
        "memory traffic": f"at most {numbers['bandwidth_fraction']:.0%} of the peak, {giga('peak_bandwidth')} GB/s",
        "peak memory": f"{numbers['peak_memory_bytes'] / 1e6:,.0f} MB per device",
        "start-up": f"{traced:.1f} s to trace, {cold:.1f} s to compile, {cached:.1f} s to load from the cache",
        **{
            f"  {name.replace('_', ' ')}": f"{value:.3g} s, {value / numbers['step_seconds']:.1%} of the update time"
            for name, value in numbers["seconds"].items()
        },
        "sampling": ", ".join(rates),
    }
    if "ratio" in numbers:
        seconds, factor = numbers["versus_step_seconds"], numbers["ratio"]
        rows["versus"] = f"{seconds:.4g} s per update, {factor:.2f} times the first config ({quartiles('ratio')})"
    return "\n".join(f"{name:<24}{value}" for name, value in rows.items())


if __name__ == "__main__":
    command_line.run(main, help=__doc__)
