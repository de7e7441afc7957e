"""How do I use a trained model from Python? `load` returns a `Model` of parameters, networks and chain settings."""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from dualmcmc_jax import config_check, models, own_code
from dualmcmc_jax.core import densities, importance, operators, restoration, sampling
from dualmcmc_jax.core.langevin import Trace, chain_keys
from dualmcmc_jax.core.operators import Operator
from dualmcmc_jax.core.samplers import SAMPLERS
from dualmcmc_jax.data import batches, images
from dualmcmc_jax.interop import pretrained, weights_file
from dualmcmc_jax.models import Params
from dualmcmc_jax.runtime import storage, workdirs
from dualmcmc_jax.spelling import did_you_mean, one_of
from dualmcmc_jax.training import chains, checkpointing


class Restoration(NamedTuple):
    """Samples of x given observations y = A x + noise, and diagnostics of their chains.

    Attributes:
      samples: [B, N, ...] ends of the x-chains, N samples per observation. Images are not clipped, so their values can
        lie outside of [-1, 1].
      mean: [B, ...] mean of the samples; of images, after they are clipped to [-1, 1]. It has the least expected
        squared error.
      std: [B, ...] standard deviation of the same samples in each coordinate.
      generated: [B, N, ...] g(z) for the latents z, the answers of the generator alone.
      start: [B, N, ...] initial states of the x-chains, which agree with y: E[x | z, y] under the generator.
      z: [B, N, d] ends of the z-chains.
      misfit: [B, N] root mean square of y - A x over the observed values, in units of y. About noise_std if all is
        well.
      x_trace: the `Trace` of the x-chains, with arrays [num_steps, B, N]. Its log-density is log pi(x | y), up to a
        constant.
      z_trace: the `Trace` of the z-chains, likewise. Its log-density is log p(z | y), up to a constant.
    """

    samples: jax.Array
    mean: jax.Array
    std: jax.Array
    generated: jax.Array
    start: jax.Array
    z: jax.Array
    misfit: jax.Array
    x_trace: Trace
    z_trace: Trace


class Scores(NamedTuple):
    """How unusual examples are for a model: four scores, [B] each.

    Attributes:
      energy: the energy of the EBM, before division by the temperature. Lower: more like the data.
      log_likelihood: log p_theta(x) of the generator in nats, by importance sampling. Higher: more like the data.
      reconstruction_error: mean squared error of the reconstruction from the end of the z-chain, in squared units of x.
        Lower: more like the data.
      latent_norm: Euclidean norm of the latent at the end of the z-chain. That of a draw of the prior is about the
        square root of the number of latents.
    """

    energy: Any
    log_likelihood: Any
    reconstruction_error: Any
    latent_norm: Any

    def percentiles(self, reference: "Scores") -> "Scores":
        """Return the percentage of reference examples whose score is lower. Equal scores count one half.

        Args:
          reference: the scores of other examples, such as held-out data.
        """

        def percentile(values, others):
            values, others = np.asarray(values), np.sort(np.asarray(others))
            ranks = (np.searchsorted(others, values, side) for side in ("left", "right"))
            return 50 * sum(ranks) / len(others)

        return Scores(*map(percentile, self, reference))


class BoundModel(NamedTuple):
    """The networks of a model bound to its parameters, for use inside compiled functions.

    `Model.bound` creates an instance. The methods call functions of `core.sampling` with the bound networks and the
    chain settings of the config. Keyword arguments, such as `num_steps` or `keep_every`, override these settings.
    The methods differ from those of `Model` in two points: they take one key per chain, and they are not compiled.

    Attributes:
      energy: x [B, ...] -> energy [B].
      decode: z [B, d] -> g(z) [B, ...].
      encode: x [B, ...] -> mean [B, d] and log variance [B, d] of q(z | x).
      config: the config of the model, with the x-chain that is used for sampling.
      nets: the unbound networks.
    """

    energy: densities.Energy
    decode: densities.Decode
    encode: densities.Encode
    config: FrozenConfigDict
    nets: models.Nets

    def log_density(self, x: jax.Array) -> jax.Array:
        """Compute the unnormalized log-density of the EBM, f(x) = -energy(x) / T (Eq. 1).

        Args:
          x: [B, ...] examples.

        Returns:
          [B] values of log pi(x) + log Z, in nats.
        """
        return densities.log_ebm(x, self.energy, temperature=self.config.energy.temperature)

    def log_joint(self, x: jax.Array, z: jax.Array) -> jax.Array:
        """Compute the joint log-density log p_theta(x, z) of the generator (Eq. 4).

        Args:
          x: [B, ...] examples.
          z: [B, d] latents.

        Returns:
          [B] log-densities, in nats.
        """
        return densities.log_joint(x, z, self.decode, variance=self.config.generator.variance)

    def synthesize(self, keys: jax.Array, **settings) -> sampling.Synthesis:
        """Draw samples from the generator and revise them with the x-chain. Calls `core.sampling.synthesize`.

        Args:
          keys: [B] keys, one per chain.
          **settings: keyword arguments of `core.sampling.synthesize`, which override the config. With `init`, the
            initial states are not resampled.

        Returns:
          A `Synthesis`.
        """
        if "init" in settings:
            settings = {"resampling": None} | settings
        of_config = chains.synthesis(self.config, self.nets, sampler=settings.get("sampler"))
        return sampling.synthesize(keys, self.decode, self.energy, encode=self.encode, **of_config | settings)

    def revise_x(self, keys: jax.Array, x0: jax.Array, **settings) -> tuple[jax.Array, Trace]:
        """Run x-chains from given states. Calls `core.sampling.revise_x`.

        Args:
          keys: [B] keys, one per chain.
          x0: [B, ...] initial states.
          **settings: keyword arguments of `core.sampling.revise_x`, which override the config.

        Returns:
          The final states [B, ...] and the `Trace` of the chains.
        """
        of_config = chains.x_revision(self.config, self.nets, sampler=settings.get("sampler"))
        return sampling.revise_x(keys, self.energy, x0, **of_config | settings)

    def revise_z(self, keys: jax.Array, x: jax.Array, z0: jax.Array, **settings) -> tuple[jax.Array, Trace]:
        """Run z-chains from given states. Calls `core.sampling.revise_z`.

        Args:
          keys: [B] keys, one per chain.
          x: [B, ...] examples to condition on.
          z0: [B, d] initial states.
          **settings: keyword arguments of `core.sampling.revise_z`, which override the config.

        Returns:
          The final states [B, d] and the `Trace` of the chains.
        """
        of_config = chains.inference(self.config, self.nets, sampler=settings.get("sampler"))
        del of_config["init"]
        return sampling.revise_z(keys, self.decode, x, z0, **of_config | settings)

    def infer(self, keys: jax.Array, x: jax.Array, **settings) -> sampling.Inference:
        """Draw latents from the inference model and revise them with the z-chain. Calls `core.sampling.infer`.

        Args:
          keys: [B] keys, one per chain.
          x: [B, ...] examples; images in [-1, 1].
          **settings: keyword arguments of `core.sampling.infer`, which override the config.

        Returns:
          An `Inference`.
        """
        of_config = chains.inference(self.config, self.nets, sampler=settings.get("sampler"))
        return sampling.infer(keys, self.encode, self.decode, x, **of_config | settings)

    def reconstruct(self, keys: jax.Array, x: jax.Array, **settings) -> tuple[jax.Array, jax.Array]:
        """Reconstruct examples from the start and the end of their z-chains. Calls `core.sampling.reconstruct`.

        Args:
          keys: [B] keys, one per chain.
          x: [B, ...] examples; images in [-1, 1].
          **settings: keyword arguments of `core.sampling.infer`, which override the config.

        Returns:
          The reconstructions from the start and from the end of the z-chains, [B, ...] each.
        """
        of_config = chains.inference(self.config, self.nets, sampler=settings.get("sampler"))
        return sampling.reconstruct(keys, self.encode, self.decode, x, **of_config | settings)

    def restore(
        self, keys: jax.Array, y: jax.Array, operator: Operator, *, noise_std: float, num_samples: int, **settings
    ) -> Restoration:
        """Draw examples given observations y = A x + noise. Calls `core.restoration.restore`.

        Args:
          keys: [B] keys, one per observation.
          y: [B, ...] observations.
          operator: A.
          noise_std: standard deviation of the noise, in units of y.
          num_samples: number of samples N per observation.
          **settings: keyword arguments of `Model.restore`, which override the config.

        Returns:
          A `Restoration`.
        """
        samplers = {name: settings.get(name) for name in ("sampler", "z_sampler")}
        settings = chains.restoration(self.config, self.nets, **samplers) | settings
        z_chain = {name[2:]: settings.pop(name) for name in [*settings] if name[:2] == "z_" and name != "z_sampler"}
        shape, num_observed = tuple(self.config.data.shape), len(y)
        sample_keys = jax.vmap(chain_keys, (0, None))(keys, jnp.arange(num_samples)).reshape(-1)
        restored = restoration.restore(
            sample_keys,
            jnp.repeat(y, num_samples, axis=0),
            operator,
            *self[:3],
            noise_std=noise_std,
            latent_dim=self.config.generator.latent_dim,
            shape=shape,
            z_chain=z_chain,
            **settings,
        )
        split = lambda axis: lambda a: a.reshape(*a.shape[:axis], num_observed, num_samples, *a.shape[axis + 1 :])
        z, generated, start, samples = (split(0)(part) for part in restored[:4])
        shown = samples.clip(-1, 1) if len(shape) == 3 else samples
        misfit = split(0)(restoration.misfit(jnp.repeat(y, num_samples, axis=0), restored.x, operator))
        traces = (jax.tree.map(split(1), trace) for trace in (restored.x_trace, restored.z_trace))
        return Restoration(samples, shown.mean(1), shown.std(1), generated, start, z, misfit, *traces)

    def detect(self, keys: jax.Array, x: jax.Array, *, num_latents: int = 100) -> Scores:
        """Compute how unusual examples are.

        Args:
          keys: [B] keys, one per example.
          x: [B, ...] examples; images in [-1, 1].
          num_latents: number of latents per example in the importance sampling of log p_theta(x).

        Returns:
          The `Scores`, [B] each.
        """
        chain, latents = (jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in range(2))
        z, variance = self.infer(chain, x).z, self.config.generator.variance
        error = jnp.square(self.decode(z) - x).reshape(len(x), -1).mean(1)
        settings = {"variance": variance, "num_samples": num_latents}
        log_p, _ = importance.log_marginal(latents, self.encode, self.decode, x, **settings)
        return Scores(self.energy(x), log_p, error, jnp.linalg.norm(z, axis=1))


@functools.partial(jax.tree_util.register_dataclass, data_fields=("params", "step"), meta_fields=("run_config", "nets"))
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A trained model: an EBM, a generator and an inference model, with the chain settings of their config.

    Examples x are images [B, H, W, C] or vectors [B, D], with at least one example. Images are floats in [-1, 1], or
    uint8, which the methods scale to [-1, 1]. Latents z are vectors [B, d]. Each method raises ValueError if an array
    has another shape or dtype.

    The methods `energy`, `log_density`, `decode`, `encode`, `synthesize`, `sample`, `infer`, `reconstruct` and `detect`
    are compiled by `jax.jit`. To use a model inside your own compiled function, pass the model as an argument and call
    `bound` once, outside of loops. A model is a pytree whose leaves are the parameters and the step. A function that
    was compiled for one model is therefore reused for other parameters of the same config.

    If the generator uses batch normalization, its outputs depend on the whole batch. Samples drawn in one call are then
    not independent, and their distribution depends on the size of the batch. In training, a batch has
    `train.batch_size` examples.

    Attributes:
      params: the parameters, with spectral norm applied. In a model from `load`, they are averaged over updates if the
        config sets `train.ema_decay`.
      step: number of updates that trained the parameters.
      run_config: the config of the run. Its x_chain is the x-chain of training.
      nets: the unbound networks.

    Example:
      >>> model = dualmcmc_jax.load("digits")
      >>> samples = model.synthesize(jax.random.key(0), 16)
      >>> model.energy(samples.revised)  # [16]
    """

    params: Params
    step: Any
    run_config: FrozenConfigDict
    nets: models.Nets

    @classmethod
    def create(cls, config: ConfigDict, params: Params, *, step: int = 0, nets: models.Nets | None = None) -> "Model":
        """Create a model from a config and parameters.

        Args:
          config: the full config.
          params: parameters with spectral norm applied, such as the `average` of a train state.
          step: number of updates that trained the parameters.
          nets: the networks to use. None: build the networks of the config.

        Returns:
          The model.

        Raises:
          ValueError: nets is None and the config has a value that the networks do not support.
        """
        if isinstance(config, FrozenConfigDict):  # its own copy_and_resolve_references fails
            config = config.as_configdict()
        config = FrozenConfigDict(config.copy_and_resolve_references())
        params = jax.tree.map(jnp.asarray, params)  # copies the parameters to the device once, not in every call
        return cls(params, step, config, nets or _build(config))

    @property
    def config(self) -> FrozenConfigDict:
        """The config with the x-chain that is used for sampling.

        The x-chain is `evaluation.x_chain` if this field is set, and otherwise the x-chain of training. Likewise,
        `evaluation.sampler` replaces `x_chain.sampler` unless it is "", and `evaluation.resample` replaces
        `x_chain.resample` unless it is -1.
        """
        return _with_sampling_chain(self.run_config)

    @property
    def x_chain(self) -> tuple[int, float, float]:
        """The settings (num_steps, step_size, temperature) of the x-chain that is used for sampling."""
        config = self.config
        return config.x_chain.num_steps, config.x_chain.step_size, config.energy.temperature

    @property
    def group_size(self) -> int:
        """The number of examples per call of the generator in evaluation and sampling.

        With batch normalization, the outputs for the examples of one call depend on each other.
        """
        return self.run_config.evaluation.group_size or self.run_config.train.batch_size

    @property
    def dtype(self):
        """The dtype of the parameters and of the chains' states."""
        return chains.param_dtype(self.run_config)

    @property
    def makes_images(self) -> bool:
        """Whether examples are images [H, W, C] rather than vectors [D]."""
        return len(self.run_config.data.shape) == 3

    def with_x_chain(self, num_steps: int, step_size: float, temperature: float, sampler: str | None = None) -> "Model":
        """Return the same model with another x-chain for sampling.

        Args:
          num_steps: number of steps, at least 0.
          step_size: s of Eq. 3, in squared units of x, positive.
          temperature: T of f = -energy / T, in units of energy, positive.
          sampler: name of a sampler in `core.samplers.SAMPLERS`. None: the sampler that the model uses now.

        Raises:
          ValueError: there is no such sampler.
        """
        config = self.run_config.as_configdict().copy_and_resolve_references()
        config.evaluation.x_chain = (num_steps, step_size, temperature)
        if sampler not in (None, *SAMPLERS):
            raise ValueError(f"sampler: found {sampler!r}, expected {one_of(sampler, SAMPLERS)}")
        if sampler is not None:
            config.evaluation.sampler = sampler
        return dataclasses.replace(self, run_config=FrozenConfigDict(config))

    def with_resampling(self, least_share: float) -> "Model":
        """Return the same model with another `x_chain.resample` for sampling.

        Args:
          least_share: the least effective sample size of the initial states, as a share of the number of chains; 0
            turns resampling off.

        Raises:
          ValueError: least_share is out of range, or resampling has no meaning for the model.
        """
        config = self.run_config.as_configdict().copy_and_resolve_references()
        config.evaluation.resample = float(least_share)
        if not 0 <= least_share < math.inf:
            raise ValueError(f"least_share: found {least_share}, expected 0 or a positive number")
        if least_share:
            config_check.check_resampling("evaluation.resample", config)
        return dataclasses.replace(self, run_config=FrozenConfigDict(config))

    def with_trained_x_chain(self) -> "Model":
        """Return the same model with the x-chain of training, its sampler and its resampling, for sampling."""
        config = self.run_config.as_configdict().copy_and_resolve_references()
        config.evaluation.x_chain = ()
        config.evaluation.sampler = ""
        config.evaluation.resample = -1.0
        return dataclasses.replace(self, run_config=FrozenConfigDict(config))

    def bound(self) -> BoundModel:
        """Bind the networks to the parameters.

        Inside a compiled function, call this method once and outside of loops. It computes everything that depends only
        on the parameters.

        Returns:
          A `BoundModel`.
        """
        networks = (net.bind(params) for net, params in zip(self.nets, self.params, strict=True))
        return BoundModel(*networks, self.config, self.nets)

    def energy(self, x: jax.Array) -> jax.Array:
        """Compute the energy of examples. The log-density of the EBM is -energy(x) / T - log Z.

        Args:
          x: [B, ...] examples; images in [-1, 1] or uint8.

        Returns:
          [B] energies. Lower energy means higher density.
        """
        return _energy(self, self._examples(x))

    def log_density(self, x: jax.Array) -> jax.Array:
        """Compute the unnormalized log-density of the EBM, f(x) = -energy(x) / T (Eq. 1).

        Args:
          x: [B, ...] examples; images in [-1, 1] or uint8.

        Returns:
          [B] values of log pi(x) + log Z, in nats.
        """
        return _log_density(self, self._examples(x))

    def decode(self, z: jax.Array) -> jax.Array:
        """Decode latents with the generator: g(z), the mean of p_theta(x | z).

        Args:
          z: [B, d] latents, standard normal under the prior.

        Returns:
          [B, ...] examples; images in [-1, 1].
        """
        return _decode(self, _array("z", z, (self.run_config.generator.latent_dim,)))

    def encode(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Encode examples with the inference model q_phi(z | x).

        Args:
          x: [B, ...] examples; images in [-1, 1] or uint8.

        Returns:
          The mean [B, d] and the log variance [B, d] of q(z | x).
        """
        return _encode(self, self._examples(x))

    def synthesize(self, key: jax.Array, num_samples: int, **settings) -> sampling.Synthesis:
        """Draw samples from the generator and revise them with the x-chain (Sec. 3.1).

        Args:
          key: a single PRNG key, from which the key of each chain is derived.
          num_samples: number of samples B, at least 1. The function is compiled once for each number.
          **settings: keyword arguments of `core.sampling.synthesize`, such as num_steps=100 or keep_every=10, which
            override the config. Values must be hashable, because they are constants of the compiled function.

        Returns:
          A `Synthesis` with the latents z [B, d], the generator's samples generated = g(z) [B, ...], the final states
          revised [B, ...], and the trace of the x-chains. Images in `revised` are not clipped, so their values can
          lie outside of [-1, 1].
        """
        if num_samples < 1:
            raise ValueError(f"num_samples: found {num_samples}, expected 1 or more")
        _check_settings(settings, chains.synthesis(self.config, self.nets, sampler=settings.get("sampler")))
        return _synthesize(self, check_key(key), num_samples, tuple(settings.items()))

    def sample(self, key: jax.Array, num_samples: int, **settings) -> jax.Array:
        """Draw samples of the EBM: the final states of x-chains, as `synthesize(...).revised`.

        Args:
          key: a single PRNG key, from which the key of each chain is derived.
          num_samples: number of samples B, at least 1. The function is compiled once for each number.
          **settings: keyword arguments as in `synthesize`, such as sampler="mala", num_steps=100 and step_size=1e-4,
            and the parameters of the sampler, such as num_leapfrog_steps=5 of "hmc".

        Returns:
          [B, ...] samples. Images are not clipped, so their values can lie outside of [-1, 1].
        """
        return self.synthesize(key, num_samples, **settings).revised

    def infer(self, key: jax.Array, x: jax.Array, **settings) -> sampling.Inference:
        """Draw latents of examples from the inference model and revise them with the z-chain (Sec. 3.1).

        Args:
          key: a single PRNG key, from which the key of each chain is derived.
          x: [B, ...] examples; images in [-1, 1] or uint8.
          **settings: keyword arguments of `core.sampling.infer`, such as num_steps=30, which override the config.
            Values must be hashable, because they are constants of the compiled function.

        Returns:
          An `Inference` with the initial states `start` [B, d] (by default draws of q(z | x)), the final states z
          [B, d], and the trace of the z-chains.
        """
        _check_settings(settings, chains.inference(self.config, self.nets, sampler=settings.get("sampler")))
        return _infer(self, check_key(key), self._examples(x), tuple(settings.items()))

    def reconstruct(self, x: jax.Array, *, key: jax.Array | None = None, **settings) -> tuple[jax.Array, jax.Array]:
        """Reconstruct examples from the start and the end of their z-chains.

        Args:
          x: [B, ...] examples; images in [-1, 1] or uint8.
          key: a single PRNG key, from which the key of each chain is derived. None: jax.random.key(0).
          **settings: keyword arguments as in `infer`.

        Returns:
          The reconstructions from the start and from the end of the z-chains, [B, ...] each; images in [-1, 1].
        """
        _check_settings(settings, chains.inference(self.config, self.nets, sampler=settings.get("sampler")))
        key = jax.random.key(0) if key is None else check_key(key)
        return _reconstruct(self, key, self._examples(x), tuple(settings.items()))

    def restore(
        self,
        key: jax.Array,
        y: jax.Array,
        operator: Operator | Callable[[jax.Array], jax.Array],
        *,
        noise_std: float,
        num_samples: int = 20,
        **settings,
    ) -> Restoration:
        """Draw examples given observations y = A x + noise: inpainting, denoising, super-resolution and the like.

        For each sample, a z-chain on the generator's p(z | y) is followed by an x-chain on the EBM's pi(x | y).
        `core.restoration` has the equations, and docs/restore.md says how to choose the settings.

        Args:
          key: a single PRNG key, from which the key of each chain is derived.
          y: [B, ...] observations in floats, in the units of A x: images have pixels in [-1, 1]. With `inpainting`,
            [B, H, W, C] as the images, and values at hidden places are ignored.
          operator: A, from `inpainting`, `denoising`, `average_pooling` or `linear_operator`; or a linear function
            x [B, ...] -> A x [B, ...], from which `linear_operator` makes an operator in every call.
          noise_std: standard deviation of the noise, in units of y, at least 0. With 0, every sample satisfies A x = y.
          num_samples: number of samples N per observation, at least 1. All B N chains run together.
          **settings: settings of the x-chain, such as num_steps, step_size and sampler, which override the config;
            those of the z-chain, with the prefix "z_", such as z_num_steps=300 and z_sampler="hmc" (default: the
            z-chain of the config with 100 steps); variance, sigma^2 of the generator, in squared units of x; and
            proposals, the number of starts that the prior and the encoder propose for each z-chain. Values must be
            hashable, because they are constants of the compiled function.

        Returns:
          A `Restoration` with the samples [B, N, ...], their mean and std [B, ...], and diagnostics.

        Raises:
          ValueError: an argument has a wrong shape or value, or the operator is not linear or does not fit the model.
          TypeError: there is no such setting.

        Example:
          >>> mask = np.arange(8) < 4  # the left half is observed
          >>> operator = dualmcmc_jax.inpainting(np.tile(mask, (8, 1)))
          >>> model.restore(jax.random.key(0), images, operator, noise_std=0).mean
        """
        samplers = {name: settings.get(name) for name in ("sampler", "z_sampler")}
        for name, sampler in samplers.items():
            if sampler not in (None, *SAMPLERS):
                raise ValueError(f"{name}: found {sampler!r}, expected {one_of(sampler, SAMPLERS)}")
        of_config = chains.restoration(self.config, self.nets, **samplers)
        _check_settings(settings, of_config)
        z_sampler = (of_config | settings)["z_sampler"]
        if SAMPLERS[z_sampler].is_metropolis and config_check.couples_examples(self.config):
            expected = "'langevin', because batch statistics couple the chains of this generator"
            raise ValueError(f"z_sampler: found {z_sampler!r}, expected {expected}")
        if num_samples < 1:
            raise ValueError(f"num_samples: found {num_samples}, expected 1 or more")
        shape = tuple(self.run_config.data.shape)
        if not isinstance(operator, Operator):
            operator = operators.linear_operator(operator, shape)
        check_observation(operator, shape, noise_std)
        y = _array("y", y, jax.eval_shape(operator, jnp.zeros((1, *shape), self.dtype)).shape[1:]).astype(self.dtype)
        settings = (float(noise_std), int(num_samples), tuple(settings.items()))
        return _restore(self, check_key(key), y, operator, settings)

    def detect(self, x: jax.Array, *, key: jax.Array | None = None, num_latents: int = 100) -> Scores:
        """Compute how unusual examples are: energy, log-likelihood, reconstruction error and norm of the latent.

        Args:
          x: [B, ...] examples; images in [-1, 1] or uint8.
          key: a single PRNG key, from which the key of each example is derived. None: jax.random.key(0).
          num_latents: number of latents per example in the importance sampling of log p_theta(x), at least 1.

        Returns:
          The `Scores`, [B] each. `scores.percentiles(model.detect(held_out))` tells how they compare with those of
          held-out data.
        """
        if num_latents < 1:
            raise ValueError(f"num_latents: found {num_latents}, expected 1 or more")
        key = jax.random.key(0) if key is None else check_key(key)
        return _detect(self, key, self._examples(x), num_latents)

    def _examples(self, x: Any) -> jax.Array:
        """Return examples as the networks take them: a checked array of floats, with images in [-1, 1]."""
        x = _array("x", x, tuple(self.run_config.data.shape), or_uint8=self.makes_images)
        return batches.to_float(x, self.dtype) if x.dtype == jnp.uint8 else x

    def __repr__(self):
        config = self.run_config
        shape, latent_dim = tuple(config.data.shape), config.generator.latent_dim
        return f"Model(step={self.step}, x {shape}, z ({latent_dim},), {config.data.source!r})"


def load(
    path: str | Path, *, step: int | None = None, energy: Any = None, generator: Any = None, encoder: Any = None
) -> Model:
    """Load a trained model from a workdir, from a model.safetensors file, or from weights that ship with the package.

    Nothing in a workdir or file is executed, and no module is imported because a stored config names it. If the model
    has networks of your own, pass them as arguments.

    Args:
      path: a workdir (a local folder or gs://BUCKET/FOLDER), a model.safetensors file (a local path, hf:OWNER/NAME or
        an https address), or the name of shipped weights, such as "digits". A folder or file that exists at this path
        is preferred to shipped weights of the same name.
      step: step of the checkpoint to load from a workdir. None: the newest checkpoint that is not damaged. For a file,
        step must be None or the step of the file.
      energy, generator, encoder: what MODULE:NAME or FILE.py:NAME in the config's energy.kind, generator.kind and
        encoder.kind stands for: a flax module, an object with `init` and `apply`, or a class or function that makes
        one. None if the network is one of this package.

    Returns:
      The model, with the averaged parameters if the config sets `train.ema_decay`.

    Raises:
      ValueError: there is no model at path or no checkpoint of this step, the file or the checkpoint is damaged, a
        download failed, the model has `train.compute_dtype` "float64" and jax_enable_x64 is off, or a network of your
        own is missing, not expected, or of other shapes.

    Example:
      >>> model = dualmcmc_jax.load("digits")
    """
    nets = {"energy": energy, "generator": generator, "encoder": encoder}
    own = {f"{name}.kind": net for name, net in nets.items() if net is not None}
    with own_code.given(own):
        config, state = _read(path, step)
        fields = config_check.fields(config)
        for field, net in own.items():
            if not own_code.is_name(fields[field]):
                argument, found = field.removesuffix(".kind"), getattr(net, "__name__", type(net).__name__)
                raise ValueError(f"{argument}: found {found}, expected None, because {field} is {fields[field]!r}")
        nets = models.build(config) if own else None
    return Model.create(config, state.average, step=int(state.step), nets=nets)


def _read(path: str | Path, step: int | None) -> tuple[ConfigDict, Any]:
    """Read the config of `load`, and a state or weights."""
    name = str(path)
    if not pretrained.is_address(name) and (path := storage.open_workdir(name, argument="path")).is_dir():
        absl = logging.getLogger("absl")
        level = absl.level
        absl.setLevel(logging.ERROR)  # Orbax logs a warning for a read-only manager
        try:
            _refuse_export(path)
            config = config_check.stored_config(path)
            state = checkpointing.restore(config, path, step=step, argument="path")
        finally:
            absl.setLevel(level)
            storage.close(path, upload=False)
    else:
        config, state = weights_file.read(
            pretrained.locate("path", name, expected="a workdir or a model.safetensors file")
        )
        if step not in (None, state.step):
            raise ValueError(f"step: found {step}, expected {state.step}, the step of {name}")
    return config, state


def _refuse_export(folder: Path) -> None:
    """Raise ValueError if a folder holds a model.safetensors file, but no checkpoints."""
    file = folder / "model.safetensors"
    if file.is_file() and not workdirs.has_checkpoints(folder):
        shown = storage.shown(file)
        raise ValueError(f"path: found a folder without checkpoints, expected a workdir with them or the file {shown}")


def load_images(paths: str | Path | Iterable[str | Path], model: Model) -> np.ndarray:
    """Load image files as the data of a model were loaded: cropped, and resized to the size of its images.

    Args:
      paths: one image file, or several, or a folder or zip file of images, which are then sorted by their names.
      model: the model, whose `data.shape` and `data.crop` apply.

    Returns:
      uint8 [N, H, W, C], which every method of the model accepts.

    Raises:
      ValueError: a file is missing or no image, there are no files, or the model is not one of square images.
    """
    return images.load(paths, tuple(model.run_config.data.shape), tuple(model.run_config.data.crop))


def check_observation(operator: Operator, shape: tuple[int, ...], noise_std: float) -> None:
    """Raise ValueError unless an operator fits examples, and noise_std fits the operator.

    Args:
      operator: A.
      shape: shape of one example.
      noise_std: standard deviation of the noise, in units of A x.
    """
    if not 0 <= noise_std < math.inf:
        raise ValueError(f"noise_std: found {noise_std}, expected 0 or a positive number")
    try:
        observed = jax.eval_shape(operator, jnp.zeros((1, *shape))).shape[1:]
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(("mask: ", "factor: ")):
            raise
        expected = f"an operator on examples of shape {shape}"
        raise ValueError(
            f"operator: found {type(error).__name__} ({images.first_line(error)}), expected {expected}"
        ) from error
    is_positive = np.asarray(operator.eigenvalues) > 0
    rank = int(np.sum(is_positive if operator.basis is not None else np.broadcast_to(is_positive, observed or (1,))))
    if not noise_std and rank >= math.prod(shape):
        expected = "a positive number, because this operator hides nothing: without noise, x is known from y"
        raise ValueError(f"noise_std: found 0, expected {expected}")


def _check_settings(settings: dict[str, Any], of_config: dict[str, Any]) -> None:
    """Raise TypeError if a chain has no such settings. The message begins with the name of the first of them.

    Args:
      settings: the settings that a caller gives.
      of_config: the settings of the config, as `training.chains` returns them.
    """
    accepted = [*of_config, "keep_every"]
    for name in settings:
        if name not in accepted:
            near = did_you_mean(name, accepted)
            raise TypeError(f"{name}: found an unknown setting, expected one of {', '.join(accepted)}{near}")


def check_key(key: Any) -> jax.Array:
    """Return a key unchanged. Raise ValueError if it is no single PRNG key, typed or of the older form (uint32)."""
    shape, dtype = getattr(key, "shape", None), getattr(key, "dtype", np.dtype(object))
    is_typed, is_older = jnp.issubdtype(dtype, jax.dtypes.prng_key), dtype == np.uint32
    if not ((is_typed and len(shape) == 0) or (is_older and len(shape) == 1)):
        found = type(key).__name__ if shape is None else f"{dtype} of shape {shape}"
        raise ValueError(f"key: found {found}, expected a PRNG key, such as jax.random.key(0)")
    return key


def _array(name: str, x: Any, shape: tuple[int, ...], *, or_uint8: bool = False) -> jax.Array:
    """Return x as an array of floats, or of uint8 if or_uint8 is set, with the shape [B, *shape].

    Raises:
      ValueError: x is no such array, or it is empty. The message begins with the name of the argument.
    """
    expected = f"[B, {', '.join(map(str, shape))}] of floats{' in [-1, 1] or of uint8' if or_uint8 else ''}"
    try:
        x = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        hint = "; load_images reads files" if isinstance(x, str | Path) else ""
        raise ValueError(f"{name}: found {type(x).__name__}, expected an array {expected}{hint}") from error
    if x.ndim != len(shape) + 1 or x.shape[1:] != shape or not x.size:
        raise ValueError(f"{name}: found the shape {x.shape}, expected {expected}{_hint(name, x.shape, shape)}")
    if not jnp.issubdtype(x.dtype, jnp.floating) and not (or_uint8 and x.dtype == jnp.uint8):
        raise ValueError(f"{name}: found {x.dtype}, expected {expected}")
    return x


def _hint(name: str, found: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """Return how to change an array to the shape [B, *shape], or "" if that is not known."""
    if found == shape:
        return f"; for one example, use {name}[None]"
    if len(shape) == 3 and found[1:] == (shape[2], *shape[:2]):
        return f"; use numpy.moveaxis({name}, 1, -1)"
    if shape[-1] == 1 and found[1:] == shape[:-1]:
        return f"; use {name}[..., None]"
    return ""


@functools.lru_cache(maxsize=16)
def _build(config: FrozenConfigDict) -> models.Nets:
    """Build the networks of a config. Equal configs share their networks, and therefore compiled functions."""
    return models.build(config)


@functools.lru_cache(maxsize=16)
def _with_sampling_chain(config: FrozenConfigDict) -> FrozenConfigDict:
    """Return a copy of a config with the settings of sampling, if they are set, in place of those of training."""
    config = config.as_configdict().copy_and_resolve_references()
    if config.evaluation.sampler:
        config.x_chain.sampler = config.evaluation.sampler
    if config.evaluation.resample >= 0:
        config.x_chain.resample = config.evaluation.resample
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


@functools.partial(jax.jit, static_argnums=3)
def _reconstruct(model, key, x, settings):
    return model.bound().reconstruct(chain_keys(key, jnp.arange(len(x))), x, **dict(settings))


@functools.partial(jax.jit, static_argnums=4)
def _restore(model, key, y, operator, settings):
    noise_std, num_samples, settings = settings
    keys = chain_keys(key, jnp.arange(len(y)))
    return model.bound().restore(keys, y, operator, noise_std=noise_std, num_samples=num_samples, **dict(settings))


@functools.partial(jax.jit, static_argnums=3)
def _detect(model, key, x, num_latents):
    return model.bound().detect(chain_keys(key, jnp.arange(len(x))), x, num_latents=num_latents)
