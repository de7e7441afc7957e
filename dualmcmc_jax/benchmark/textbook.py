"""Multiply-adds of one update in a straightforward ("textbook") implementation: a reference for the compiled program.

`Net.textbook_multiply_adds` holds the count of a forward pass. Each convolution counts at the resolution at which the
network's definition applies it: before pooling, after interpolation, and with shortcuts at the larger size. Padding
counts too. The gradient with respect to the input costs as much as a forward pass. So does the gradient with respect to
the parameters.
"""

from dualmcmc_jax.core.samplers import gradients_per_step
from dualmcmc_jax.models import Nets


def x_chain(config, nets: Nets) -> int:
    """Return the multiply-adds of the x-revision, per example."""
    return 2 * config.x_chain.num_steps * gradients_per_step(config.x_chain) * nets.energy.textbook_multiply_adds


def z_chain(config, nets: Nets) -> int:
    """Return the multiply-adds of the z-revision, per example."""
    return 2 * config.z_chain.num_steps * gradients_per_step(config.z_chain) * nets.generator.textbook_multiply_adds


def step(config, nets: Nets) -> int:
    """Return the multiply-adds of one update, per example.

    The sum contains both chains, their initial states, and the three losses with their gradients, each on two batches.
    """
    energy, generator, encoder = (net.textbook_multiply_adds for net in nets)
    starts = generator + encoder
    losses = 2 * 3 * (energy + generator + encoder)
    fresh = x_chain(config, nets) + generator if config.loss.fresh_negatives else 0
    return x_chain(config, nets) + z_chain(config, nets) + starts + losses + fresh
