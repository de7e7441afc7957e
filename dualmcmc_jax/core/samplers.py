"""The table of chain kernels, from which the config fields `x_chain.sampler` and `z_chain.sampler` choose by name.

A new kernel is one function and one row of `SAMPLERS`. The function is called as
`kernel(keys, x0, log_density, *, num_steps, step_size, keep_every, unroll)` and returns the final states and a `Trace`;
`core.langevin.langevin` documents these arguments. A kernel must derive all its random numbers from `keys`, and must
return x0 as the final states if num_steps is 0.
"""

from collections.abc import Callable

import jax

from dualmcmc_jax.core.langevin import Trace, langevin
from dualmcmc_jax.core.mala import mala

Kernel = Callable[..., tuple[jax.Array, Trace]]

SAMPLERS: dict[str, Kernel] = {
    "langevin": langevin,  # unadjusted Langevin dynamics, Eq. 3 and 6
    "mala": mala,  # Metropolis-adjusted Langevin algorithm
}
