"""A trained model for use in one's own code."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dualmcmc_jax import config_check, models
from dualmcmc_jax.core import densities, sampling
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.evaluation.drawing import at_test_time
from dualmcmc_jax.interop import weights_file
from dualmcmc_jax.runtime import storage
from dualmcmc_jax.training import checkpointing
from dualmcmc_jax.training.params import Params
from dualmcmc_jax.training.step import data_settings, model_settings


class Trained(NamedTuple):
    """The three networks with their parameters, and the two revisions with their settings. Images are in [-1, 1].

    Attributes:
      config: of the run; its energy.temperature is the T of f = -energy / T, its generator.variance the sigma^2 of
        p(x | z).
      step: updates made.
      params: the parameters in use, averaged if the config asks for it.
      energy: x [B, ...] -> [B].
      decode: z [B, d] -> x [B, ...], the generator's mean.
      encode: x [B, ...] -> (mean [B, d], log_var [B, d]), of q_phi(z | x).
      synthesize: (key, num_samples, **settings) -> `Synthesis`: z, generated = g(z), and revised by the x-chain.
      infer: (key, x, **settings) -> `Inference`: z drawn from q_phi(z | x), and revised by the z-chain.

    settings are keyword arguments of `core.sampling.synthesize` and `infer`, such as num_steps or keep_every, in the
    place of the config's. With batch statistics, samples made together depend on each other.
    """

    config: ConfigDict
    step: int
    params: Params
    energy: densities.Energy
    decode: densities.Decode
    encode: densities.Encode
    synthesize: Callable[..., sampling.Synthesis]
    infer: Callable[..., sampling.Inference]

    def __repr__(self):
        shape, latent_dim = tuple(self.config.data.shape), self.config.generator.latent_dim
        return f"Trained(step={self.step}, x {shape}, z ({latent_dim},), {self.config.data.source!r})"


def load(path: str | Path, *, step: int | None = None) -> Trained:
    """The model of a workdir, after `step` updates or as many as there are; or of a model.safetensors.

    Raises:
      ValueError: there is none, or it is damaged.
    """
    path = storage.open_workdir(str(path))
    if path.is_dir():
        config = config_check.stored_config(path)
        absl = logging.getLogger("absl")
        level = absl.level
        absl.setLevel(logging.ERROR)  # Orbax warns that nothing will be written
        try:
            state = checkpointing.restore(config, path, step=step)
        finally:
            absl.setLevel(level)
            storage.close(path, leads=False)
    else:
        config, state = weights_file.read(path)
        if step not in (None, int(state.step)):
            raise ValueError(f"step: found {step}, expected {int(state.step)}, that of {path}")
    config = at_test_time(config)
    nets, params = models.build(config), state.average
    energy, decode, encode = (jax.jit(net.bind(p)) for net, p in zip(nets, params, strict=True))

    def synthesize(key, num_samples, **settings):
        """`core.sampling.synthesize` of num_samples chains: z [B, d], generated and revised [B, ...], and the trace."""
        return model_pairs(chain_keys(key, jnp.arange(num_samples)), **model_settings(config) | settings)

    def infer(key, x, **settings):
        """`core.sampling.infer` of x [B, ...] in [-1, 1]: start and z [B, d], and the trace."""
        return data_pairs(chain_keys(key, jnp.arange(len(x))), x=jnp.asarray(x), **data_settings(config) | settings)

    chain = ("num_steps", "step_size", "init", "keep_every", "unroll")
    model_pairs = jax.jit(
        partial(sampling.synthesize, decode=decode, energy=energy),
        static_argnames=(*chain, "temperature", "start_std", "latent_dim", "dtype"),
    )
    data_pairs = jax.jit(partial(sampling.infer, encode=encode, decode=decode), static_argnames=(*chain, "variance"))
    return Trained(config, int(state.step), params, energy, decode, encode, synthesize, infer)
