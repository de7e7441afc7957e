"""The computations, memory and communication of compiled programs, compared with counts by hand."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import forks
import jax
import jax.numpy as jnp
import pytest
import tiny

from dualmcmc_jax import models
from dualmcmc_jax.benchmark import program, target, textbook, timing
from dualmcmc_jax.configs import cifar10
from dualmcmc_jax.core import densities, langevin
from dualmcmc_jax.training import loop
from dualmcmc_jax.training import state as train_state

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def cost(function, *arguments):
    """Return the cost of a jitted function."""
    return program.cost(jax.jit(function).lower(*arguments).compile().as_text())


GPU = """
HloModule fake

%body (p: f32[8,8]) -> f32[8,8] {
  %p = f32[8,8]{1,0} parameter(0)
  ROOT %g = (f32[8,8]{1,0}, s8[64]{0}) custom-call(%p, %p), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}, metadata={op_name="x"}
}

ENTRY %main (a: f32[2,8,8,3], k: f32[3,3,3,5], m: f32[8,8]) -> f32[8,8] {
  %a = f32[2,8,8,3]{3,2,1,0:T(8,128)} parameter(0)
  %k = f32[3,3,3,5]{3,2,1,0} parameter(1)
  %m = f32[8,8]{1,0} parameter(2)
  %f = (f32[2,8,8,5]{3,2,1,0}, u8[9]{0}) custom-call(%a, %k), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, custom_call_target="__cudnn$convForward"
  %y = f32[2,8,8,5]{3,2,1,0} get-tuple-element(%f), index=0
  %i = (f32[2,8,8,3]{3,2,1,0}, u8[9]{0}) custom-call(%y, %k), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, custom_call_target="__cudnn$convBackwardInput"
  %w = (f32[3,3,3,5]{3,2,1,0}, u8[9]{0}) custom-call(%a, %y), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, custom_call_target="__cudnn$convBackwardFilter"
  %t = () custom-call(%m), custom_call_target="nothing"
  %d = f32[8,8]{1,0} convolution(%m, %m), dim_labels=bf_io->bf
  %s = (f32[8,8]{1,0}, f32[16,8]{1,0}) all-gather-start(%m), dimensions={0}
  ROOT %r = f32[8,8]{1,0} while(%m), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"4"}}
}
"""


def test_operations_of_a_gpu_program_are_counted():
    gpu_cost = program.cost(GPU)
    assert gpu_cost.multiply_adds == 3 * (2 * 8 * 8 * 9 * 3 * 5) + 8**3 + 4 * 8**3
    assert gpu_cost.collectives == {("all-gather", 16 * 8 * 4): 1}
    assert not gpu_cost.unknown_loops


def convolve(x, kernel, stride=1, padding=1):
    pad = (padding, padding)
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), (pad, pad), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_products_in_loops_count_once_per_iteration():
    a, b = jnp.ones((50, 60)), jnp.ones((60, 60))
    loop = lambda a: jax.lax.scan(lambda a, _: (jnp.tanh(a @ b), None), a, None, length=7)[0]
    assert cost(loop, a).multiply_adds == 7 * 50 * 60 * 60
    twice = lambda a: jax.lax.scan(lambda a, _: (loop(a), None), a, None, length=3)[0]
    assert cost(twice, a).multiply_adds == 3 * 7 * 50 * 60 * 60
    assert cost(lambda a: a + 1, a).multiply_adds == 0
    assert cost(lambda a: a + 1, a).num_bytes == 2 * a.nbytes


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (4, 2)])
def test_convolutions_and_their_gradients_are_counted(size, stride):
    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((size, size, 3, 5))
    forward = 2 * (8 // stride) ** 2 * size**2 * 3 * 5
    loss = lambda x, kernel: (convolve(x, kernel, stride) ** 2).sum()
    assert cost(partial(convolve, stride=stride), x, kernel).multiply_adds == forward
    assert cost(jax.grad(loss), x, kernel).multiply_adds == 2 * forward
    assert cost(jax.grad(loss, argnums=1), x, kernel).multiply_adds == 2 * forward


def residual(width=8, num_devices=1):
    """Return the CIFAR-10 recipe with narrow networks."""
    config = cifar10.get_config()
    config.energy.widths = config.generator.widths = (width,) * 4
    config.encoder.widths = (width,) * len(config.encoder.widths)
    config.train.batch_size = 2 * num_devices
    return config


def chain(config, num_steps, unroll, batch=2):
    nets = models.build(config)
    params = nets.energy.init(jax.random.key(0))

    def run(params, x):
        energy = nets.energy.bind(params)
        log_density = lambda x: densities.log_ebm(x, energy, temperature=1.0)
        keys = langevin.chain_keys(jax.random.key(0), jnp.arange(batch))
        return langevin.langevin(keys, x, log_density, num_steps=num_steps, step_size=1e-6, unroll=unroll)

    return jax.jit(run).lower(params, jnp.zeros((batch, *config.data.shape))).compile()


@pytest.mark.parametrize("unroll", [1, 5])
def test_chains_compute_no_gradient_of_parameters(unroll):
    """A step costs exactly one forward pass and one gradient with respect to the input."""
    width = 64
    config = residual(width)
    by_hand, size, channels = 0, 32, 3
    for i in range(4):
        pool = i < config.energy.num_pools
        by_hand += size**2 * 9 * channels * width
        size //= 2 if pool else 1
        by_hand += size**2 * ((16 if pool else 9) * width**2 + (channels * width if pool else 0))
        channels = width
    multiply_adds = program.cost(chain(config, 5, unroll).as_text()).multiply_adds
    assert multiply_adds == pytest.approx(2 * 5 * 2 * (by_hand + width), rel=0.001)
    assert multiply_adds <= 0.65 * 2 * textbook.x_chain(config, models.build(config)) * 5 / config.x_chain.num_steps


def test_textbook_counts_equal_those_of_the_authors_networks():
    config = cifar10.get_config()
    assert models.build(config).energy.textbook_multiply_adds == pytest.approx(4.31e9, rel=1e-3)
    assert models.build(config).generator.textbook_multiply_adds == pytest.approx(6.71e9, rel=2e-3)


def test_memory_does_not_grow_with_the_length_of_the_chain():
    memory = [chain(residual(), num_steps, 1).memory_analysis().temp_size_in_bytes for num_steps in (30, 300)]
    assert memory[1] < 1.02 * memory[0]


def compiled_step(config):
    work = timing.workload(config)
    batch = loop.share_of_batch(config, work.train)(0)
    return work, timing.train_step(work).lower(work.state, batch).compile()


@pytest.mark.parametrize("fresh", [False, True])
def test_gradients_and_metrics_share_one_all_reduce(fresh):
    """MLPs have no batch normalization, so only gradients and metrics are communicated."""
    config = tiny.config(loss__fresh_negatives=fresh)
    work, compiled = compiled_step(config)
    collectives = program.cost(compiled.as_text()).collectives
    assert sum(collectives.values()) == (2 if fresh else 1)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(work.state.params))
    assert size <= sum(num_bytes for _, num_bytes in collectives) <= size + 100


def test_state_is_donated_and_the_host_is_not_called():
    work, compiled = compiled_step(tiny.config())
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(work.state))
    assert compiled.memory_analysis().alias_size_in_bytes >= 0.95 * state_bytes
    text = compiled.as_text()
    assert not any(word in text for word in ("callback", "infeed", "outfeed", " send(", " recv("))


@pytest.mark.more
def test_benchmark_measures_two_configs(tmp_path):
    flags = ["--config=digits", "--config.train.batch_size=20", "--versus=digits", "--versus.train.batch_size=60"]
    flags += ["--config.train.unroll=1", "--versus.train.unroll=1"]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_ENABLE", "JAX_COMP", "JAX_PERS"))}
    env |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "XLA_FLAGS": forks.QUICK}
    done = subprocess.run(
        [sys.executable, "-m", "dualmcmc_jax.benchmark", *flags, "--repeats=5", f"--json={tmp_path / 'numbers.json'}"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["multiply_adds"] == pytest.approx(numbers["textbook_multiply_adds"], rel=0.05)
    assert numbers["x_chain_multiply_adds"] == pytest.approx(numbers["textbook_x_chain_multiply_adds"], rel=0.01)
    assert 0 < numbers["peak_fraction"] < 1
    assert numbers["ratio"] > 0
    assert numbers["cached_compile_seconds"] > 0
    assert (tmp_path / "cache" / "dualmcmc_jax" / "programs").stat().st_mode & 0o777 == 0o700
    for line in ("update", "x-chain", "sampling", "versus"):
        assert line in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--config=digits", "--mode=sample"],
            "--mode: found a flag that this program does not use, expected only --config",
        ),
        (["--config=digits", "--versus=nosuch"], "--versus: found 'nosuch', expected a Python file or one of"),
        (["--config=digits", "--json=/nowhere/x.json"], "--json: found /nowhere/x.json, expected a file in a folder"),
    ],
)
def test_benchmark_refuses_bad_flags(flags, message, programs):
    done = programs.run(*flags, module="dualmcmc_jax.benchmark")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {message}")


def test_communication_of_many_devices_is_counted():
    """More devices send the same gradients and larger statistics. Batch normalization communicates once per layer."""
    config = tiny.config(data__shape=(8, 8, 1), z_chain__num_steps=3)
    config.generator.update(kind="resnet", widths=(4, 4))

    def cost(num_devices):
        config.train.batch_size = num_devices
        return program.cost(target.lower(config, jax.devices()[:num_devices]).compile().as_text())

    two, eight = cost(2), cost(8)
    largest = lambda cost: max(size for kind, size in cost.collectives if kind == "all-reduce")
    gathered = lambda cost: sum(size * n for (kind, size), n in cost.collectives.items() if kind == "all-gather")
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(train_state.abstract(config).params))
    assert 0 <= largest(two) - 4 * num_parameters < 100
    assert largest(eight) == largest(two)
    assert gathered(eight) == 4 * gathered(two) > 0
    assert sum(two.collectives.values()) == sum(eight.collectives.values())
    calls_with_gradient, calls, layers = 3 + 2, 1, 3
    assert sum(eight.collectives.values()) <= 1 + layers * (2 * calls_with_gradient + calls)
