"""Times a config: the update, its parts, and sampling; counts what the compiled program computes.

  python -m dualmcmc_jax.benchmark --config=cifar10 --config.train.batch_size=16
  python -m dualmcmc_jax.benchmark --config=digits --versus=digits --versus.x_chain.num_steps=60

flags:
  --config=NAME or FILE, --config.SECTION.FIELD=VALUE   as for training
  --versus=NAME or FILE, --versus.SECTION.FIELD=VALUE   a second config, timed by turns with the first
  --repeats=N   updates timed; default: 20
  --json=FILE   also writes every number there
  --debug       show the traceback of an error

Data are noise of the config's shape. Multiply-adds are those of convolutions and matrix products in the compiled
program, loops counted out; beside them what a textbook's form of the same update would take.
"""

import json
import platform
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from dualmcmc_jax import config_check
from dualmcmc_jax.cli import command_line

_VERSUS = config_flags.DEFINE_config_file("versus", None, "A second config.", lock_config=True)
_REPEATS = flags.DEFINE_integer("repeats", 20, "Updates timed.", lower_bound=3)
_JSON = flags.DEFINE_string("json", None, "Where every number goes.")


def main(_argv) -> None:
    """Measures, prints and saves."""
    logging.set_verbosity(logging.ERROR)
    command_line.refuse_others("versus", "repeats", "json")
    configs = [command_line.CONFIG.value] + ([_VERSUS.value] if _VERSUS.value else [])
    for config in configs:
        config_check.check(config)
    if _JSON.value and not Path(_JSON.value).absolute().parent.is_dir():
        raise ValueError(f"--json: found {_JSON.value}, expected a file in a folder that exists")
    of_process = ("float64", "tensorfloat32")
    settings = {(config.train.compute_dtype, config.train.deterministic) for config in configs}
    settings = {(dtype if dtype in of_process else "", deterministic) for dtype, deterministic in settings}
    if len(settings) > 1:
        found = "float64, tensorfloat32 or deterministic in one config alone"
        raise ValueError(f"--versus.train: found {found}, expected it in both")
    from dualmcmc_jax.cli import startup

    startup.start(configs[0])
    found = measure(*configs)
    print(text(found))
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps(found, indent=2) + "\n")
        print(f"\nwrote {_JSON.value}")


def measure(config, versus=None) -> dict:
    """Every number, by name; of the second config only its update, and the ratio of the two."""
    import jax
    import numpy as np

    from dualmcmc_jax.benchmark import program, textbook, timing
    from dualmcmc_jax.training import loop

    work = timing.workload(config)
    batch = loop.share_of_batch(config, work.train)(0)
    compiled, found = timing.compile_seconds(lambda: timing.train_step(work), work.state, batch)
    cost, memory = program.cost(compiled.as_text()), compiled.memory_analysis()
    updates = [timing.runs(work)] + ([timing.runs(timing.workload(versus))] if versus else [])
    for update in updates:
        next(update)  # compiles
    times = np.array([[next(update) for update in updates] for _ in range(_REPEATS.value)])  # [repeats, updates, 2]
    seconds, waits = times[:, 0].T
    peaks, second = timing.peaks(config), float(np.median(seconds))
    found |= {
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
        found[f"{name}_multiply_adds"] = part.multiply_adds * jax.device_count() * num_runs[name]
        once = float(np.median(timing.seconds_of(lambda f=function, a=arguments: f(*a), 5)))
        breakdown[name] = num_runs[name] * once
    found["textbook_x_chain_multiply_adds"] = (
        num_runs["x_chain"] * textbook.x_chain(config, work.nets) * config.train.batch_size
    )
    found["textbook_z_chain_multiply_adds"] = textbook.z_chain(config, work.nets) * config.train.batch_size
    breakdown["losses_and_gradients"] = second - sum(breakdown.values())  # what is left: the parts are timed alone
    breakdown |= {"data_wait": float(np.median(waits)), "logging": timing.logging_seconds(work)}
    found["seconds"] = breakdown
    found |= timing.sampling(work)
    if versus:
        ratios = times[:, 1, 0] / times[:, 0, 0]
        found["versus_step_seconds"] = float(np.median(times[:, 1, 0]))
        found["ratio"], found["ratio_quartiles"] = float(np.median(ratios)), np.quantile(ratios, [0.25, 0.75]).tolist()
    return found


def text(found: dict) -> str:
    """The numbers as a person reads them."""
    giga = lambda name: f"{found[name] / 1e9:,.2f}"
    among = lambda name: "{:.4g} to {:.4g}".format(*found[f"{name}_quartiles"])
    share = lambda name: f"{found[name] / found[f'textbook_{name}']:.2f} of the textbook's {giga(f'textbook_{name}')} G"
    traced, cold, cached = (found[f"{name}_seconds"] for name in ("trace", "compile", "cached_compile"))
    drawn = (f"{name} {found[f'{name}_images_per_second']:,.0f} images/s" for name in ("generator", "revised"))
    rows = {
        "on": f"{found['num_devices']} x {found['device']}, jax {found['jax']}, {found['compute_dtype']}",
        "an update": f"{found['step_seconds']:.4g} s (quartiles {among('step_seconds')})",
        "images": f"{found['images_per_second']:.4g} a second, batch {found['batch_size']}",
        "multiply-adds": f"{giga('multiply_adds')} G, {share('multiply_adds')}",
        "  x-chain": f"{giga('x_chain_multiply_adds')} G, {share('x_chain_multiply_adds')}",
        "  z-chain": f"{giga('z_chain_multiply_adds')} G, {share('z_chain_multiply_adds')}",
        "arithmetic": f"{giga('device_flops')} GFLOP/s a device, {found['peak_fraction']:.0%} of a matrix product's",
        "memory traffic": f"at most {found['bandwidth_fraction']:.0%} of a copy's {giga('peak_bandwidth')} GB/s",
        "peak memory": f"{found['peak_memory_bytes'] / 1e6:,.0f} MB a device",
        "start": f"{traced:.1f} s to trace, {cold:.1f} s to compile, {cached:.1f} s from the cache",
        **{
            f"  {name.replace('_', ' ')}": f"{value:.3g} s, {value / found['step_seconds']:.1%}"
            for name, value in found["seconds"].items()
        },
        "sampling": ", ".join(drawn),
    }
    if "ratio" in found:
        rows["versus"] = f"{found['versus_step_seconds']:.4g} s: {found['ratio']:.2f} times ({among('ratio')})"
    return "\n".join(f"{name:<24}{value}" for name, value in rows.items())


if __name__ == "__main__":
    command_line.run(main, help=__doc__)
