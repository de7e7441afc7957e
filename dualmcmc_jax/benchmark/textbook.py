"""Multiply-adds of one update as a textbook writes it: what the compiled program is measured against.

A forward pass counts each convolution at the resolution where it is written (pooling and interpolation after and before
it, shortcuts at the larger size), padding included: `Net.textbook_multiply_adds`. A gradient with respect to the input
costs the same again, and one with respect to the parameters too.
"""

from dualmcmc_jax.models import Nets


def x_chain(config, nets: Nets) -> int:
    """Return the multiply-adds of the x-revision, per example."""
    return 2 * config.x_chain.num_steps * nets.energy.textbook_multiply_adds


def z_chain(config, nets: Nets) -> int:
    """Return the multiply-adds of the z-revision, per example."""
    return 2 * config.z_chain.num_steps * nets.generator.textbook_multiply_adds


def step(config, nets: Nets) -> int:
    """Return the multiply-adds of one update, per example: the chains, their starts, and losses of two batches each."""
    energy, generator, encoder = (net.textbook_multiply_adds for net in nets)
    starts = generator + encoder
    losses = 2 * 3 * (energy + generator + encoder)
    fresh = x_chain(config, nets) + generator if config.loss.fresh_negatives else 0
    return x_chain(config, nets) + z_chain(config, nets) + starts + losses + fresh
