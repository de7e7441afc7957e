"""Predict how an update scales from 1 to 256 devices, from the bytes that it communicates and published link speeds.

  python -m dualmcmc_jax.benchmark.scaling --config=cifar10 [--config.section.field=value]

The program compiles the update for virtual devices, so it runs on any machine and times nothing. It counts collectives
and their bytes, and predicts times under three assumptions: arithmetic runs at 40% of the bfloat16 peak, all-reduce and
all-gather use a ring, and each collective has a fixed latency. Weak scaling keeps 100 images per device; strong scaling
keeps a total batch of 1,024 images.
"""

from dualmcmc_jax.cli import interrupts

if __name__ == "__main__":
    interrupts.end_quietly()

import os
from typing import NamedTuple

from dualmcmc_jax import config_check
from dualmcmc_jax.cli import command_line, terminal

NUM_DEVICES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
UTILIZATION = 0.4
"""Assumed share of the peak at which the arithmetic runs."""


class Machine(NamedTuple):
    """The published speeds of one kind of device and its links.

    Attributes:
      peak: multiply-adds per second of one device in bfloat16.
      near: number of devices that the faster links connect.
      near_bandwidth: bytes per second from one device to the next over the faster links.
      far_bandwidth: bytes per second from one device to the next if there are more than `near` devices.
      near_latency: assumed seconds of a small collective over the faster links.
      far_latency: assumed seconds of a small collective if there are more than `near` devices.
    """

    peak: float
    near: int
    near_bandwidth: float
    far_bandwidth: float
    near_latency: float
    far_latency: float


MACHINES = {
    # ICI has 1,600 Gbit/s, half of it in each direction.
    "TPU v5e": Machine(197e12 / 2, 256, 100e9, 100e9, 10e-6, 10e-6),
    # NVLink has 900 GB/s for both directions together, and the network 400 Gbit/s per device.
    "H200": Machine(989e12 / 2, 8, 450e9, 50e9, 15e-6, 30e-6),
}


def main(_argv) -> None:
    """Compile the update for each number of devices, and print the table."""
    config = command_line.CONFIG.value
    config_check.check(config)
    command_line.refuse_others()
    virtual = f"--xla_force_host_platform_device_count={NUM_DEVICES[-1]} --xla_backend_optimization_level=0"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {virtual}"
    import jax
    from tqdm import tqdm

    jax.config.update("jax_platforms", "cpu")  # the configs have imported JAX, so it is too late for JAX_PLATFORMS

    costs = {n: count(config, n) for n in tqdm(NUM_DEVICES, desc="compiling", unit="program")}
    terminal.show(text(costs))


def count(config, num_devices: int):
    """Return the `program.Cost` of an update with one image per device."""
    import jax
    import jax.numpy as jnp

    from dualmcmc_jax import models
    from dualmcmc_jax.benchmark import program
    from dualmcmc_jax.data import batches
    from dualmcmc_jax.runtime import parallel
    from dualmcmc_jax.training import loop, optimizers
    from dualmcmc_jax.training import state as train_state

    config = config.copy_and_resolve_references()
    config.train.unroll = 1  # the CPU default unrolls all steps, which takes longer to compile
    nets, updates = models.build(config, axis_name=parallel.AXIS), optimizers.build(config, steps_per_epoch=1)
    update = loop.compiled_step(config, nets, updates, devices=jax.devices()[:num_devices])
    dtype = jnp.uint8 if len(config.data.shape) == 3 else jnp.float32
    x = jax.ShapeDtypeStruct((num_devices, 1, *config.data.shape), dtype)
    batch = batches.Batch(x, jax.ShapeDtypeStruct((num_devices, 1), jnp.int32))
    return program.cost(update.lower(train_state.abstract(config), batch).compile().as_text())


def seconds(multiply_adds: float, cost, num_devices: int, machine: Machine) -> tuple[float, float]:
    """Predict the time of one update.

    Args:
      multiply_adds: multiply-adds per device.
      cost: `program.Cost` of the update on `num_devices` devices. Only its collectives are used.
      num_devices: number of devices.
      machine: speeds of the devices and their links.

    Returns:
      Seconds of arithmetic, and seconds of communication, which are 0 for one device.
    """
    near = num_devices <= machine.near
    bandwidth = machine.near_bandwidth if near else machine.far_bandwidth
    latency = machine.near_latency if near else machine.far_latency
    sending = 0.0
    for (kind, num_bytes), times in cost.collectives.items():
        passes = 2 if kind == "all-reduce" else 1
        sending += times * (latency + passes * (num_devices - 1) / num_devices * num_bytes / bandwidth)
    return multiply_adds / (UTILIZATION * machine.peak), sending if num_devices > 1 else 0.0


def text(costs: dict) -> str:
    """Return the table for the terminal. `costs` holds the `program.Cost` of an update by number of devices."""
    rows = [
        ["devices", "collectives", "MB sent", *(f"{name} {kind}" for name in MACHINES for kind in ("weak", "strong"))]
    ]
    for n, cost in costs.items():
        collectives = cost.collectives if n > 1 else {}
        num_bytes = sum(size * times for (_, size), times in collectives.items())
        row = [str(n), str(sum(collectives.values())), f"{num_bytes / 1e6:.1f}"]
        for machine in MACHINES.values():
            for images, images_alone in ((100, 100), (1024 / n, 1024)):  # images per device: with n devices, with one
                alone, _ = seconds(costs[1].multiply_adds * images_alone, costs[1], 1, machine)
                work, sending = seconds(costs[1].multiply_adds * images, cost, n, machine)
                speedup = alone / (work + sending) * (n if images == images_alone else 1)
                row.append(f"{speedup:.1f}x {speedup / n:.0%}")
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return (
        f"{table}\n\n"
        "Collectives and MB sent are counted, per update and device. Speedups and efficiencies are predicted."
    )


if __name__ == "__main__":
    command_line.run(main, help=__doc__)
