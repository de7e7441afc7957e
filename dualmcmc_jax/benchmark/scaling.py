"""Predicts how an update scales from 1 to 256 devices: what its compiled program sends, on links of known speed.

  python -m dualmcmc_jax.benchmark.scaling --config=cifar10 [--config.section.field=value]

Compiles for virtual devices, so it runs on any machine; nothing is timed. Bytes and collectives are counted, times are
predicted from them: arithmetic at 40% of the peak in bfloat16, a ring for all-reduce and all-gather, and a fixed
latency for each collective. Weak scaling keeps 100 images a device, strong scaling 1,024 in all.
"""

import os
from typing import NamedTuple

from dualmcmc_jax import config_check
from dualmcmc_jax.cli import command_line

NUM_DEVICES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
UTILIZATION = 0.4


class Machine(NamedTuple):
    """Attributes:
    peak: multiply-adds a second of a device, bfloat16.
    near: devices that the faster links connect.
    near_bandwidth, far_bandwidth: bytes a second from one device to the next, near and beyond.
    near_latency, far_latency: seconds of a small collective, an assumption.
    """

    peak: float
    near: int
    near_bandwidth: float
    far_bandwidth: float
    near_latency: float
    far_latency: float


MACHINES = {
    "TPU v5e": Machine(197e12 / 2, 256, 100e9, 100e9, 10e-6, 10e-6),  # ICI 1,600 Gbit/s, half of it in each direction
    "H200": Machine(989e12 / 2, 8, 450e9, 50e9, 15e-6, 30e-6),  # NVLink 900 GB/s both ways; 400 Gbit/s a device beyond
}


def main(_argv) -> None:
    """The program, after its flags are parsed."""
    config = command_line.CONFIG.value
    config_check.check(config)
    command_line.refuse_others()
    virtual = f"--xla_force_host_platform_device_count={NUM_DEVICES[-1]} --xla_backend_optimization_level=0"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {virtual}"
    import jax
    from tqdm import tqdm

    jax.config.update("jax_platforms", "cpu")  # too late for JAX_PLATFORMS: configs import JAX

    costs = {n: count(config, n) for n in tqdm(NUM_DEVICES, desc="compiling", unit="program")}
    print(text(costs))


def count(config, num_devices: int):
    """`program.Cost` of an update of one image on each of so many devices."""
    import jax
    import jax.numpy as jnp

    from dualmcmc_jax import models
    from dualmcmc_jax.benchmark import program
    from dualmcmc_jax.data import batches
    from dualmcmc_jax.runtime import parallel
    from dualmcmc_jax.training import loop, optimizers
    from dualmcmc_jax.training import state as train_state

    config = config.copy_and_resolve_references()
    config.train.unroll = 1  # on a CPU all steps would be unrolled, which takes longer to compile
    nets, updates = models.build(config, axis_name=parallel.AXIS), optimizers.build(config, steps_per_epoch=1)
    update = loop.compiled_step(config, nets, updates, devices=jax.devices()[:num_devices])
    dtype = jnp.uint8 if len(config.data.shape) == 3 else jnp.float32
    x = jax.ShapeDtypeStruct((num_devices, 1, *config.data.shape), dtype)
    batch = batches.Batch(x, jax.ShapeDtypeStruct((num_devices, 1), jnp.int32))
    return program.cost(update.lower(train_state.abstract(config), batch).compile().as_text())


def seconds(multiply_adds: float, cost, num_devices: int, machine: Machine) -> tuple[float, float]:
    """Predicted seconds of a device's arithmetic and of its collectives, which `cost` holds, in an update."""
    near = num_devices <= machine.near
    bandwidth = machine.near_bandwidth if near else machine.far_bandwidth
    latency = machine.near_latency if near else machine.far_latency
    sending = 0.0
    for (kind, num_bytes), times in cost.collectives.items():
        passes = 2 if kind == "all-reduce" else 1
        sending += times * (latency + passes * (num_devices - 1) / num_devices * num_bytes / bandwidth)
    return multiply_adds / (UTILIZATION * machine.peak), sending if num_devices > 1 else 0.0


def text(costs: dict) -> str:
    """The table."""
    rows = [
        ["devices", "collectives", "MB sent", *(f"{name} {kind}" for name in MACHINES for kind in ("weak", "strong"))]
    ]
    for n, cost in costs.items():
        among = cost.collectives if n > 1 else {}
        row = [str(n), str(sum(among.values())), f"{sum(size * times for (_, size), times in among.items()) / 1e6:.1f}"]
        for machine in MACHINES.values():
            for images, before in ((100, 100), (1024 / n, 1024)):
                alone, _ = seconds(costs[1].multiply_adds * before, costs[1], 1, machine)
                work, sending = seconds(costs[1].multiply_adds * images, cost, n, machine)
                speedup = alone / (work + sending) * (n if images == before else 1)
                row.append(f"{speedup:.1f}x {speedup / n:.0%}")
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return (
        f"{table}\n\ncollectives and MB: counted, an update and device; the rest is predicted: speedup and efficiency"
    )


if __name__ == "__main__":
    command_line.run(main, help=__doc__)
