"""Compare the speed of the update with a textbook implementation with rolled loops.

`PYTHONPATH=. python tests/speed.py [number of timed updates]` alternates between the two in one process. The config is
CIFAR-10's recipe with widths 64, 64 and 32, batch size 16, float32, one x-chain, 30 x-steps and 10 z-steps.
"""

import sys
import time

import jax
import numpy as np
import textbook

from dualmcmc_jax import models
from dualmcmc_jax.benchmark import program
from dualmcmc_jax.configs import cifar10
from dualmcmc_jax.data import batches
from dualmcmc_jax.runtime.parallel import AXIS
from dualmcmc_jax.training import loop, optimizers
from dualmcmc_jax.training import state as train_state


def compiled_update(build, unroll):
    """Return the compiled update, its initial state and its multiply-adds.

    Args:
      build: function that builds the networks of a config.
      unroll: number of unrolled steps of a chain.
    """
    config = cifar10.get_config()
    config.energy.widths = config.generator.widths = (64,) * 4
    config.encoder.widths = (32, 64, 128, 256)
    config.train.update(batch_size=16, unroll=unroll)
    config.loss.fresh_negatives = False
    optimizer = optimizers.build(config, steps_per_epoch=100)
    state = train_state.create(config, models.build(config), optimizer)
    step = loop.compiled_step(config, build(config, axis_name=AXIS), optimizer)
    text = step.lower(state, BATCH).compile().as_text()
    return step, jax.device_put(state), program.cost(text).multiply_adds


IMAGES = np.random.RandomState(0).randint(0, 256, (1, 16, 32, 32, 3)).astype(np.uint8)
BATCH = batches.Batch(IMAGES, np.arange(16)[None])


def main():
    """Time both programs and print the results."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    programs = {"textbook, rolled": compiled_update(textbook.build, 1), "ours": compiled_update(models.build, 0)}
    seconds = {name: [] for name in programs}
    states = {name: state for name, (_, state, _) in programs.items()}
    for _ in range(repeats + 1):
        for name, (step, _, _) in programs.items():
            start = time.perf_counter()
            states[name], scalars = step(states[name], BATCH)
            jax.block_until_ready(scalars)
            seconds[name].append(time.perf_counter() - start)
    for name, (_, _, multiply_adds) in programs.items():
        low, median, high = np.quantile(seconds[name][1:], [0.25, 0.5, 0.75])
        print(f"{name:<18}{median:.2f} s ({low:.2f} to {high:.2f}), {multiply_adds / 1e9:.1f} G multiply-adds")
    ratios = np.array(seconds["textbook, rolled"][1:]) / np.array(seconds["ours"][1:])
    print("ratio of pairs    {1:.2f} ({0:.2f} to {2:.2f})".format(*np.quantile(ratios, [0.25, 0.5, 0.75])))


if __name__ == "__main__":
    main()
