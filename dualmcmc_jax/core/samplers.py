"""The table of samplers, from which `x_chain.sampler`, `z_chain.sampler` and `evaluation.sampler` choose by name.

A new sampler is one function, its kernel, and one row of `SAMPLERS`. The kernel is called as
`kernel(keys, x0, log_density, *, num_steps, step_size, keep_every, unroll, **parameters)` and returns the final states
and a `Trace`; `core.langevin.langevin` documents these arguments. A kernel must derive all its random numbers from
`keys`, and must return x0 as the final states if num_steps is 0.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

from dualmcmc_jax.core.annealed import annealed
from dualmcmc_jax.core.hmc import hmc
from dualmcmc_jax.core.langevin import Trace, langevin
from dualmcmc_jax.core.mala import mala
from dualmcmc_jax.core.underdamped import underdamped

Kernel = Callable[..., tuple[jax.Array, Trace]]


class Sampler(NamedTuple):
    """A kernel, and what the rest of the program needs to know about it.

    Attributes:
      kernel: the function.
      parameters: keyword arguments that only some kernels have, with their default values. Each becomes a field of the
        config's sections x_chain and z_chain.
      is_metropolis: whether the kernel accepts or rejects each chain by itself. The log-density must then treat the
        examples of a batch independently.
      gradients: the parameter that holds the number of gradients per step; "" for one gradient per step.
      then: the sampler that continues a chain after its num_steps steps; "" for the same sampler.
    """

    kernel: Kernel
    parameters: Mapping[str, int | float] = {}
    is_metropolis: bool = False
    gradients: str = ""
    then: str = ""


SAMPLERS: dict[str, Sampler] = {
    # Unadjusted Langevin dynamics, Eq. 3 and 6.
    "langevin": Sampler(langevin),
    # Metropolis-adjusted Langevin algorithm.
    "mala": Sampler(mala, is_metropolis=True),
    # Hamiltonian Monte Carlo.
    "hmc": Sampler(hmc, {"num_leapfrog_steps": 10}, is_metropolis=True, gradients="num_leapfrog_steps"),
    # Underdamped Langevin dynamics, unadjusted.
    "underdamped": Sampler(underdamped, {"friction": 0.1}),
    # Unadjusted Langevin dynamics with falling step sizes or temperatures.
    "annealed": Sampler(annealed, {"step_annealing": 10.0, "temperature_annealing": 1.0}, then="langevin"),
}


def parameters() -> dict[str, int | float]:
    """Return the parameters of all kernels with their default values."""
    return {name: value for sampler in SAMPLERS.values() for name, value in sampler.parameters.items()}


def gradients_per_step(chain) -> int:
    """Return the number of gradients that one step of a chain takes.

    Args:
      chain: the config section x_chain or z_chain.
    """
    sampler = SAMPLERS[chain.sampler]
    return chain[sampler.gradients] if sampler.gradients else 1
