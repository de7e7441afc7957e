"""Compile the update of a config for TPUs that this machine need not have, and read what the compiler estimates.

The compiler is part of libtpu, which is on PyPI. It needs no TPU. Each target is compiled in a process of its own,
because libtpu can be loaded only once per process, and because its messages go to stderr.
"""

import concurrent.futures
import hashlib
import importlib.util
import json
import math
import multiprocessing
import os
import re
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from dualmcmc_jax.data import cache
from dualmcmc_jax.data.images import first_line
from dualmcmc_jax.spelling import one_of

PREFIX = "tpu:"
EXPECTED = "tpu:TOPOLOGY, such as tpu:v5e:2x2, tpu:v6e:4x4 or tpu:v5p:2x2x1"
LEAST_PYTHON = (3, 12)
"""The oldest Python for which the JAX exists whose libtpu was tested."""


class Chip(NamedTuple):
    """Published properties of a kind of TPU.

    Attributes:
      flops: floating-point operations per second in bfloat16, of one chip.
      memory: bytes of memory of one chip.
      clock: clock in Hz. It follows from `flops` and the number and size of the matrix units.
    """

    flops: float
    memory: float
    clock: float


CHIPS = {
    "v4": Chip(275e12, 32e9, 1.05e9),
    "v5e": Chip(197e12, 16e9, 1.5e9),
    "v5p": Chip(459e12, 95e9, 1.75e9),
    "v6e": Chip(918e12, 32e9, 1.75e9),
}
"""By the first part of the topology's name. https://cloud.google.com/tpu/docs/system-architecture-tpu-vm has them."""


def check(targets: list[str]) -> None:
    """Raise ValueError unless the names of targets can be understood and libtpu is installed."""
    for target in targets:
        chip, _, dims = target.removeprefix(PREFIX).partition(":")
        if not target.startswith(PREFIX) or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", dims):
            raise ValueError(f"--target: found {target!r}, expected {EXPECTED}")
        if chip not in CHIPS:
            raise ValueError(f"--target: found the chip {chip!r}, expected {one_of(chip, CHIPS)}")
    if sys.version_info < LEAST_PYTHON:
        found, least = (".".join(map(str, version[:2])) for version in (sys.version_info, LEAST_PYTHON))
        raise ValueError(f"--target: found Python {found}, expected {least} or newer, for which libtpu was tested")
    if importlib.util.find_spec("libtpu") is None:
        command = f'{sys.executable} -m pip install "jax[tpu]=={metadata.version("jax")}"'
        raise ValueError(f"--target: found no libtpu, the compiler for TPUs, expected it to be installed: {command}")


def num_chips(target: str) -> int:
    """Return the number of chips of a target, such as 4 for "tpu:v5e:2x2"."""
    return math.prod(int(n) for n in target.rpartition(":")[2].split("x"))


def measure(config, target: str) -> dict:
    """Return what the compiler says about the update of a config, or read it from the cache folder.

    Args:
      config: the full config, whose batch is divided among the chips.
      target: "tpu:" and the name of a topology, such as "tpu:v5e:2x2".

    Returns:
      Numbers by name: sizes in bytes and cycles per device, numbers and bytes of collectives, times in seconds.

    Raises:
      ValueError: the compiler refuses the topology or the program.
    """
    if config.train.compute_dtype == "float64":
        expected = "bfloat16 or float32, because TPUs do not compute in float64"
        raise ValueError(f"train.compute_dtype: found 'float64', expected {expected}")
    path = _cached(config, target)
    if path and path.exists():
        return json.loads(path.read_text())
    numbers = _in_own_process(config, target)
    if path:
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(numbers))
        temporary.replace(path)
    return numbers


def _cached(config, target: str) -> Path | None:
    """Return the path of the cached numbers. It changes with the config, the compiler and the code of this package."""
    folder, digest = cache.writable_folder("targets"), hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    versions = [metadata.version(name) for name in ("jax", "jaxlib", "libtpu", "flax", "optax")]
    digest.update(json.dumps([config.to_json(sort_keys=True), target, versions]).encode())
    return folder and folder / f"{digest.hexdigest()}.json"


def _in_own_process(config, target: str) -> dict:
    """Run `compile_numbers` in a new process, and show how long it takes."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        future, begin = pool.submit(compile_numbers, config.to_dict(), target), time.monotonic()
        with tqdm(bar_format="{desc}", leave=False) as bar:
            while not concurrent.futures.wait([future], timeout=1).done:
                seconds = time.monotonic() - begin
                bar.set_description_str(f"compiling for {target}: {seconds:.0f} s (large configs take half an hour)")
        try:
            return future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            found = "that the compiler's process ended, perhaps because the memory was full"
            raise ValueError(f"--target={target}: found {found}, expected a compiled program") from error


def compile_numbers(fields: dict, target: str) -> dict:
    """Compile the update for a target. Call this in a process that has not used JAX yet.

    Args:
      fields: the full config as a dictionary.
      target: as in `measure`.

    Returns:
      The numbers that `measure` returns.
    """
    os.environ.pop("XLA_FLAGS", None)  # they are those of the CPU
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_LOG_DIR": "disabled", "TF_CPP_MIN_LOG_LEVEL": "3"}
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtpu warns that it finds no TPU
    import jax
    from jax.experimental import topologies
    from ml_collections import ConfigDict

    from dualmcmc_jax.benchmark import cycles, program
    from dualmcmc_jax.cli import startup

    jax.config.update("jax_platforms", "cpu")  # for arrays that are made while the program is traced
    jax.config.update("jax_enable_x64", False)
    config = ConfigDict(fields)
    startup.start(config)
    kind, topology = target.removeprefix(PREFIX).partition(":")[0], target.removeprefix(PREFIX)
    try:
        devices = list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
        begin = time.monotonic()
        compiled = lower(config, devices).compile()
        seconds = time.monotonic() - begin
    except RuntimeError as error:  # jax.errors.JaxRuntimeError, whose base class depends on the version
        problem = first_line(error)
        raise ValueError(f"--target={target}: found {problem!r}, expected a topology and a program that fit") from error
    text, memory, chip = compiled.as_text(), compiled.memory_analysis(), CHIPS[kind]
    estimate, cost = cycles.estimate(text), program.cost(text)
    chips, second = num_chips(target), estimate.total / chip.clock
    flops = 2 * cost.multiply_adds * len(devices) / chips
    return {
        "target": target,
        "jax": jax.__version__,
        "libtpu": metadata.version("libtpu"),
        "num_chips": chips,
        "num_devices": len(devices),
        "batch_size": config.train.batch_size,
        "compute_dtype": config.train.compute_dtype,
        "compile_seconds": seconds,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "program_bytes": memory.generated_code_size_in_bytes,
        "chip_bytes": chip.memory,
        "multiply_adds": cost.multiply_adds,
        "collectives": [[kind, size, times] for (kind, size), times in sorted(cost.collectives.items())],
        "cycles": estimate.parts | {"total": estimate.total},
        "expensive": [item._asdict() for item in estimate.expensive],
        "unknown_loops": cost.unknown_loops,
        "clock": chip.clock,
        "estimated_seconds": second,
        "estimated_share_of_peak": flops / (second * chip.flops),
    }


def lower(config, devices):
    """Lower the update of a config for some devices, and return it without compiling it.

    Args:
      config: the full config.
      devices: the devices, whose number must divide train.batch_size.
    """
    import jax
    import jax.numpy as jnp

    from dualmcmc_jax import models
    from dualmcmc_jax.data import batches
    from dualmcmc_jax.runtime import parallel
    from dualmcmc_jax.training import loop, optimizers
    from dualmcmc_jax.training import state as train_state

    if config.train.batch_size % len(devices):
        expected = f"a multiple of {len(devices)}, the number of devices"
        raise ValueError(f"train.batch_size: found {config.train.batch_size}, expected {expected}")
    config = config.copy_and_resolve_references()
    config.train.unroll = config.train.unroll or 1  # the default of a CPU is another one
    nets, updates = models.build(config, axis_name=parallel.AXIS), optimizers.build(config, steps_per_epoch=1)
    update = loop.compiled_step(config, nets, updates, devices=devices)
    dtype = jnp.uint8 if len(config.data.shape) == 3 else jnp.float32
    rows = (len(devices), config.train.batch_size // len(devices))
    batch = batches.Batch(
        jax.ShapeDtypeStruct((*rows, *config.data.shape), dtype), jax.ShapeDtypeStruct(rows, jnp.int32)
    )
    return update.lower(train_state.abstract(config), batch)


def text(numbers: dict) -> str:
    """Return the numbers of `measure` as a table for the terminal."""
    used = numbers["argument_bytes"] + numbers["temporary_bytes"] + numbers["program_bytes"]
    share = lambda part: numbers["cycles"][part] / numbers["cycles"]["total"]
    total = lambda found: f"{sum(size * times for size, times in found) / 1e6:,.1f} MB"
    rows = {
        "target": f"{numbers['target']}, {numbers['num_chips']} chips, jax {numbers['jax']}, "
        f"libtpu {numbers['libtpu']}, {numbers['compute_dtype']}, batch size {numbers['batch_size']}",
        "compiled in": f"{numbers['compile_seconds']:,.0f} s",
        "memory per chip": f"{used / 1e6:,.0f} MB of {numbers['chip_bytes'] / 1e9:,.0f} GB: "
        f"{numbers['argument_bytes'] / 1e6:,.0f} MB of arguments, {numbers['temporary_bytes'] / 1e6:,.0f} MB of "
        f"temporary arrays, {numbers['program_bytes'] / 1e6:,.0f} MB of code",
        **{
            f"  {kind}": f"{sum(times for _, times in found):,} per update, {total(found)}"
            for kind, found in _by_kind(numbers["collectives"]).items()
        },
        "estimated cycles": f"{numbers['cycles']['total']:,}",
        **{
            f"  {part.replace('_', '-')}": f"{numbers['cycles'][part]:,}, {share(part):.0%}"
            for part in numbers["cycles"]
            if part != "total"
        },
        "estimated time": f"{numbers['estimated_seconds']:.4g} s per update, at a clock of "
        f"{numbers['clock'] / 1e9:g} GHz and without waiting for other chips",
        "estimated arithmetic": f"{numbers['estimated_share_of_peak']:.0%} of the peak",
    }
    if numbers["unknown_loops"]:
        rows["loops"] = f"{numbers['unknown_loops']} of unknown length, counted once"
    lines = [f"{name:<24}{value}" for name, value in rows.items()]
    lines += ["", "The most expensive instructions, by the compiler's estimate:"]
    for item in numbers["expensive"]:
        share_of_total = item["cycles"] / numbers["cycles"]["total"]
        lines.append(
            f"  {item['cycles']:>13,} {share_of_total:>6.1%}  {item['times']:>4} x {item['name']:<34} {item['source']}"
        )
    return "\n".join(lines)


def _by_kind(collectives: list) -> dict[str, list[tuple[int, int]]]:
    """Return (bytes of one run, number of runs) of the collectives, by their kind."""
    kinds = {}
    for kind, size, times in collectives:
        kinds.setdefault(kind, []).append((size, times))
    return kinds
