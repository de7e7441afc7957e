"""A trained model: parameters, networks and chain settings together, for evaluation and for use from Python."""

import dataclasses
import functools
import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict, FrozenConfigDict

from dualmcmc_jax import config_check, models
from dualmcmc_jax.core import densities, sampling
from dualmcmc_jax.core.langevin import Trace, chain_keys
from dualmcmc_jax.interop import weights_file
from dualmcmc_jax.models import Params
from dualmcmc_jax.runtime import storage
from dualmcmc_jax.training import chains, checkpointing


class BoundModel(NamedTuple):
    """The three networks bound to parameters, and the two revisions with the chain settings of a config.

    Keyword arguments of the methods replace the settings of the config, such as `num_steps` or `keep_every`. All keys
    are one per chain, [B].

    Attributes:
      energy: x [B, ...] -> [B].
      decode: z [B, d] -> g(z) [B, ...].
      encode: x [B, ...] -> (mean [B, d], log_var [B, d]).
      config: the config of the model, with the x-chain that is used for sampling.
      nets: the unbound networks.
    """

    energy: densities.Energy
    decode: densities.Decode
    encode: densities.Encode
    config: FrozenConfigDict
    nets: models.Nets

    def log_density(self, x: jax.Array) -> jax.Array:
        """Return f(x) = -energy(x) / T of x [B, ...], the EBM's log-density without its constant, in nats: [B]."""
        return densities.log_ebm(x, self.energy, temperature=self.config.energy.temperature)

    def log_joint(self, x: jax.Array, z: jax.Array) -> jax.Array:
        """Return log p_theta(x, z) of x [B, ...] and z [B, d], in nats: [B]."""
        return densities.log_joint(x, z, self.decode, variance=self.config.generator.variance)

    def synthesize(self, keys: jax.Array, **settings) -> sampling.Synthesis:
        """Draw from the revised joint P~ by `core.sampling.synthesize`."""
        settings = chains.synthesis(self.config, self.nets) | settings
        return sampling.synthesize(keys, self.decode, self.energy, **settings)

    def revise_x(self, keys: jax.Array, x0: jax.Array, **settings) -> tuple[jax.Array, Trace]:
        """Run the x-chain from x0 [B, ...] by `core.sampling.revise_x`."""
        return sampling.revise_x(keys, self.energy, x0, **chains.x_revision(self.config, self.nets) | settings)

    def revise_z(self, keys: jax.Array, x: jax.Array, z0: jax.Array, **settings) -> tuple[jax.Array, Trace]:
        """Run the z-chain from z0 [B, d] towards x [B, ...] by `core.sampling.revise_z`."""
        chain = chains.inference(self.config, self.nets)
        del chain["init"]
        return sampling.revise_z(keys, self.decode, x, z0, **chain | settings)

    def infer(self, keys: jax.Array, x: jax.Array, **settings) -> sampling.Inference:
        """Draw from the revised joint Q~, given x [B, ...] in [-1, 1], by `core.sampling.infer`."""
        settings = chains.inference(self.config, self.nets) | settings
        return sampling.infer(keys, self.encode, self.decode, x, **settings)

    def reconstruct(self, keys: jax.Array, x: jax.Array, **settings) -> tuple[jax.Array, jax.Array]:
        """Decode the start and the end of the z-chain towards x [B, ...] by `core.sampling.reconstruct`."""
        settings = chains.inference(self.config, self.nets) | settings
        return sampling.reconstruct(keys, self.encode, self.decode, x, **settings)


@functools.partial(jax.tree_util.register_dataclass, data_fields=("params", "step"), meta_fields=("run_config", "nets"))
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Model:
    """The parameters of three networks, the networks, and the chain settings of their config. Images are in [-1, 1].

    A model is a pytree whose leaves are the parameters and the step. A compiled function that takes a model as an
    argument is therefore compiled once for all parameters of a config. Such a function calls `bound` once, outside of
    its loops, and uses the networks and chains of the result.

    With batch statistics in the generator, samples that are made together depend on each other.

    Attributes:
      params: the parameters in use, averaged if the config asks for averaging.
      step: number of updates behind the parameters.
      run_config: the config of the run. Its x-chain is the chain of training.
      nets: the unbound networks.
    """

    params: Params
    step: Any
    run_config: FrozenConfigDict
    nets: models.Nets

    @classmethod
    def create(cls, config: ConfigDict, params: Params, *, step: int = 0, nets: models.Nets | None = None) -> "Model":
        """Put a config and its parameters together.

        Args:
          config: the whole config.
          params: parameters that are ready to be bound, such as the `average` of a train state.
          step: number of updates behind the parameters.
          nets: networks to use in the place of those that the config describes.
        """
        config = FrozenConfigDict(config.copy_and_resolve_references())
        params = jax.tree.map(jnp.asarray, params)  # on the device once, and not again with every call
        return cls(params, step, config, nets or _build(config))

    @property
    def config(self) -> FrozenConfigDict:
        """The config with the x-chain that is used for sampling, which `evaluation.x_chain` may set."""
        return _at_test_time(self.run_config)

    @property
    def x_chain(self) -> tuple[int, float, float]:
        """(num_steps, step_size, temperature) of the x-revision when sampling."""
        config = self.config
        return config.x_chain.num_steps, config.x_chain.step_size, config.energy.temperature

    @property
    def group_size(self) -> int:
        """How many examples one call of the generator makes. With batch statistics they depend on each other."""
        return self.run_config.evaluation.group_size or self.run_config.train.batch_size

    @property
    def dtype(self):
        """The dtype of parameters and chains."""
        return chains.param_dtype(self.run_config)

    @property
    def makes_images(self) -> bool:
        """Whether examples are images [H, W, C], and not vectors."""
        return len(self.run_config.data.shape) == 3

    def with_x_chain(self, num_steps: int, step_size: float, temperature: float) -> "Model":
        """Return the same model with another x-revision when sampling."""
        config = self.run_config.as_configdict().copy_and_resolve_references()
        config.evaluation.x_chain = (num_steps, step_size, temperature)
        return dataclasses.replace(self, run_config=FrozenConfigDict(config))

    def with_trained_x_chain(self) -> "Model":
        """Return the same model with the x-revision of training when sampling."""
        config = self.run_config.as_configdict().copy_and_resolve_references()
        config.evaluation.x_chain = ()
        return dataclasses.replace(self, run_config=FrozenConfigDict(config))

    def bound(self) -> BoundModel:
        """Bind the networks to the parameters. Inside compiled functions, call this once and outside of loops."""
        networks = (net.bind(params) for net, params in zip(self.nets, self.params, strict=True))
        return BoundModel(*networks, self.config, self.nets)

    def energy(self, x: jax.Array) -> jax.Array:
        """Return the energy of x [B, ...]: [B]. The EBM's log-density is -energy / T - log Z."""
        return _energy(self, x)

    def log_density(self, x: jax.Array) -> jax.Array:
        """Return f(x) = -energy(x) / T of x [B, ...], the EBM's log-density without its constant, in nats: [B]."""
        return _log_density(self, x)

    def decode(self, z: jax.Array) -> jax.Array:
        """Return g(z) of z [B, d], the mean of p_theta(x | z): [B, ...]."""
        return _decode(self, z)

    def encode(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return mean and log variance of q_phi(z | x) of x [B, ...]: [B, d] each."""
        return _encode(self, x)

    def synthesize(self, key: jax.Array, num_samples: int, **settings) -> sampling.Synthesis:
        """Draw samples from the generator and revise them by the x-chain.

        Args:
          key: one key, from which each chain gets its own.
          num_samples: number of chains, B.
          **settings: keyword arguments of `core.sampling.synthesize` that replace those of the config, such as
            num_steps or keep_every.

        Returns:
          A `Synthesis`: z [B, d], generated = g(z) and revised [B, ...], and the trace of the x-chain.
        """
        return _synthesize(self, key, num_samples, tuple(settings.items()))

    def infer(self, key: jax.Array, x: jax.Array, **settings) -> sampling.Inference:
        """Draw latents of examples from the inference model and revise them by the z-chain.

        Args:
          key: one key, from which each chain gets its own.
          x: [B, ...], examples in [-1, 1].
          **settings: keyword arguments of `core.sampling.infer` that replace those of the config.

        Returns:
          An `Inference`: start, drawn from q_phi(z | x), and the revised z [B, d], and the trace of the z-chain.
        """
        return _infer(self, key, jnp.asarray(x), tuple(settings.items()))

    def __repr__(self):
        config = self.run_config
        shape, latent_dim = tuple(config.data.shape), config.generator.latent_dim
        return f"Model(step={self.step}, x {shape}, z ({latent_dim},), {config.data.source!r})"


def load(path: str | Path, *, step: int | None = None) -> Model:
    """Load the model of a workdir or of a model.safetensors.

    Args:
      path: a workdir, which may be at gs://, or a file.
      step: number of updates of the checkpoint to load. None: the newest checkpoint.

    Raises:
      ValueError: there is no model at path, or it is damaged.
    """
    path = storage.open_workdir(str(path), argument="path")
    if path.is_dir():
        absl = logging.getLogger("absl")
        level = absl.level
        absl.setLevel(logging.ERROR)  # Orbax warns that nothing will be written
        try:
            config = config_check.stored_config(path)
            state = checkpointing.restore(config, path, step=step, argument="path")
        finally:
            absl.setLevel(level)
            storage.close(path, leads=False)
    else:
        config, state = weights_file.read(path)
        if step not in (None, int(state.step)):
            raise ValueError(f"step: found {step}, expected {int(state.step)}, that of {path}")
    return Model.create(config, state.average, step=int(state.step))


@functools.lru_cache(maxsize=16)
def _build(config: FrozenConfigDict) -> models.Nets:
    """Build the networks of a config, once: equal configs share networks, and so compiled functions."""
    return models.build(config)


@functools.lru_cache(maxsize=16)
def _at_test_time(config: FrozenConfigDict) -> FrozenConfigDict:
    """Return the config with `evaluation.x_chain`, if that is set, in the place of the x-chain of training."""
    config = config.as_configdict().copy_and_resolve_references()
    if config.evaluation.x_chain:
        num_steps, step_size, config.energy.temperature = config.evaluation.x_chain
        config.x_chain.update(num_steps=num_steps, step_size=step_size)
    return FrozenConfigDict(config)


@jax.jit
def _energy(model, x):
    return model.bound().energy(x)


@jax.jit
def _log_density(model, x):
    return model.bound().log_density(x)


@jax.jit
def _decode(model, z):
    return model.bound().decode(z)


@jax.jit
def _encode(model, x):
    return model.bound().encode(x)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _synthesize(model, key, num_samples, settings):
    return model.bound().synthesize(chain_keys(key, jnp.arange(num_samples)), **dict(settings))


@functools.partial(jax.jit, static_argnums=3)
def _infer(model, key, x, settings):
    return model.bound().infer(chain_keys(key, jnp.arange(len(x))), x, **dict(settings))
