"""Timings of the compiled programs of a config, and the peak rates of this machine."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dualmcmc_jax import models
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.data import batches
from dualmcmc_jax.evaluation import sampling as sample_stream
from dualmcmc_jax.model import Model
from dualmcmc_jax.models.layers import precision
from dualmcmc_jax.runtime import metric_writer, parallel
from dualmcmc_jax.training import chains, loop, optimizers
from dualmcmc_jax.training import state as train_state
from dualmcmc_jax.training.step import apply_gradient

NUM_EXAMPLES = 2000
"""Number of random examples that replace the data."""


class Workload(NamedTuple):
    """Everything that the update of one config needs.

    Attributes:
      config: the whole config.
      nets: the networks.
      optimizers: the optimizers.
      state: the initial train state, on every device.
      train: random examples in place of training data.
    """

    config: Any
    nets: models.Nets
    optimizers: Any
    state: train_state.TrainState
    train: np.ndarray


def workload(config) -> Workload:
    """Return the workload of a config, with random examples as data.

    Raises:
      ValueError: the batch size is not a multiple of the number of devices.
    """
    num_examples = max(NUM_EXAMPLES, config.train.batch_size)
    loop.check_batch_size(config.train.batch_size, num_examples)
    nets = models.build(config, axis_name=parallel.AXIS)
    optimizer = optimizers.build(config, steps_per_epoch=100)
    state = parallel.replicate(train_state.create(config, nets, optimizer))
    shape, random = (num_examples, *config.data.shape), np.random.RandomState(0)
    noise = random.randint(0, 256, shape, np.uint8) if len(shape) == 4 else random.randn(*shape).astype(np.float32)
    return Workload(config, nets, optimizer, state, noise)


def train_step(work: Workload):
    """Return the update as training compiles it. A call donates the buffers of the state, so the state is used up."""
    return loop.compiled_step(work.config, work.nets, work.optimizers)


def parts(work: Workload) -> dict[str, tuple[Callable, tuple]]:
    """Return the parts of the update as separate programs.

    Returns:
      (compiled function, its arguments) by name, for "x_chain", "z_chain" and "optimizer".
    """
    config, nets, state = work.config, work.nets, work.state
    num_devices = jax.local_device_count()
    batch = config.train.batch_size // num_devices
    dtype = chains.param_dtype(config)
    index = np.arange(num_devices * batch).reshape(num_devices, batch)
    x, z = (
        jnp.zeros((num_devices, batch, *shape), dtype) for shape in (config.data.shape, (config.generator.latent_dim,))
    )
    index, x, z = parallel.split((index, x, z))

    model = Model.create(config, state.average, nets=nets).with_trained_x_chain()

    def x_chain(model, parts):
        index, x = parts
        return model.bound().revise_x(chain_keys(jax.random.key(0), index), x)[0]

    def z_chain(model, parts):
        index, x, z = parts
        return model.bound().revise_z(chain_keys(jax.random.key(0), index), x, z)[0]

    def optimizer(constants, _):
        params, opt_state = constants
        return [apply_gradient(*args) for args in zip(work.optimizers, params, opt_state, params, strict=True)]

    return {
        "x_chain": (parallel.per_device(x_chain), (model, (index, x))),
        "z_chain": (parallel.per_device(z_chain), (model, (index, x, z))),
        "optimizer": (parallel.per_device(optimizer), ((state.params, state.opt_state), index)),
    }


def compile_seconds(make: Callable[[], Any], *arguments) -> tuple[Any, dict[str, float]]:
    """Compile a program twice, without and with a persistent cache, and time it.

    Args:
      make: function that returns a jitted function.
      *arguments: arguments that the jitted function is lowered for.

    Returns:
      The compiled function, and the seconds of tracing, compiling, and loading the program from the cache.
    """
    from jax.experimental.compilation_cache import compilation_cache

    seconds, compiled = {}, None
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        for name in ("compile_seconds", "cached_compile_seconds"):
            compilation_cache.reset_cache()
            jax.clear_caches()
            start = time.perf_counter()
            lowered = make().lower(*arguments)
            traced = time.perf_counter()
            compiled = lowered.compile()
            seconds = {"trace_seconds": traced - start} | seconds | {name: time.perf_counter() - traced}
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    return compiled, seconds


def runs(work: Workload) -> Iterator[tuple[float, float]]:
    """Run updates without end. Yield the seconds of each update and the seconds that it waited for its batch."""
    step, state = train_step(work), jax.tree.map(jnp.copy, work.state)
    feed = batches.prefetch(loop.share_of_batch(work.config, work.train), range(10**9))
    while True:
        start = time.perf_counter()
        batch = next(feed)
        waited = time.perf_counter() - start
        state, scalars = step(state, batch)
        jax.block_until_ready((state, scalars))
        yield time.perf_counter() - start - waited, waited


def seconds_of(function: Callable[[], Any], repeats: int) -> np.ndarray:
    """Return the seconds of each of `repeats` calls, after one call that is not timed. The shape is [repeats]."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - start)
    return np.array(seconds[1:])


def logging_seconds(work: Workload) -> float:
    """Return the seconds that logging one row of metrics takes, divided by the number of updates between two rows."""
    names = ("energy_loss", "generator_loss", "encoder_loss", "energy_data", "energy_model", "revision_mse")
    scalars = dict.fromkeys((*names, "posterior_mse_start", "posterior_mse_end"), jnp.zeros(()))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(contextlib.redirect_stderr(stack.enter_context((folder / "bar").open("w"))))
        writer = stack.enter_context(metric_writer.MetricsWriter(folder, step=0, num_steps=10**6, every=1))
        row = iter(range(1, 10**6))
        seconds = seconds_of(lambda: writer.finished(next(row), scalars), 20)
    return float(np.median(seconds)) / work.config.log.every


def sampling(work: Workload) -> dict[str, float]:
    """Return the images per second of sampling from the generator alone and with the x-revision of training.

    Sampling uses full groups on all devices.
    """
    numbers, num_samples = {}, 4 * Model.create(work.config, work.state.average).group_size * jax.local_device_count()
    for name, num_steps in (("generator", 0), ("revised", work.config.x_chain.num_steps)):
        config = work.config.copy_and_resolve_references()
        config.evaluation.x_chain = ()
        config.x_chain.num_steps = num_steps
        model = Model.create(config, work.state.average)
        draw_all = lambda model=model: list(sample_stream.stream(model, num_samples=num_samples, seed=0))
        numbers[f"{name}_images_per_second"] = num_samples / float(np.median(seconds_of(draw_all, 3)))
    return numbers


def peaks(config) -> dict[str, float]:
    """Measure the peak rates of one device: the fastest of several matrix products and the fastest of several copies.

    Call `startup.start(config)` first.

    Args:
      config: the whole config. train.compute_dtype is the dtype of the matrix product.

    Returns:
      "peak_flops", in FLOP/s (two per multiply-add), and "peak_bandwidth", in bytes/s.
    """
    dtype = jnp.bfloat16 if config.train.compute_dtype == "bfloat16" else train_state.param_dtype(config)
    on_cpu = jax.default_backend() == "cpu"
    size = 2048 if on_cpu else 8192
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(partial(jnp.matmul, precision=precision(dtype)))
    vector = jnp.ones(2**25 if on_cpu else 2**28, jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    return {
        "peak_flops": 2 * size**3 / seconds_of(lambda: product(x, x), 8).min(),
        "peak_bandwidth": 2 * vector.nbytes / seconds_of(lambda: copy(vector), 8).min(),
    }
