"""The table of chain kernels. `x_chain.sampler` and `z_chain.sampler` of a config name one of them.

A new kernel is a function and a row. It is called as
`kernel(keys, x0, log_density, *, num_steps, step_size, keep_every, unroll)` and returns the final states and a `Trace`;
`core.langevin.langevin` describes them. All randomness comes from the keys, and `num_steps=0` returns x0.
"""

from collections.abc import Callable

import jax

from dualmcmc_jax.core.langevin import Trace, langevin

Kernel = Callable[..., tuple[jax.Array, Trace]]

SAMPLERS: dict[str, Kernel] = {
    "langevin": langevin,  # unadjusted Langevin dynamics, Eq. 3 and 6
}
